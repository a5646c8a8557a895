//! Publishers as the sequencer sees them: who is logged on, which topics they were told, what is refused.

use relay_wire::code::{RecordKind, RejectCode, TerminateCode};
use relay_wire::id::{PublisherSeq, Seq, TopicId};
use relay_wire::message::Message;
use relay_wire::record::{Fields, Record};
use relay_wire::topic;

use super::{CONTROL_STRIDE_MAX, Progress, Sequence, TOPIC_WAITS_MAX, TopicWait};
use crate::command::{ConnId, Now, PublisherLogon, ToIngress};
use crate::log::LogWindow;
use crate::topics::TopicSet;

/// A publisher's connection as the sequencer sees it.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct Session {
    pub(super) conn: Option<ConnId>,
    pub(super) place: u32,
    pub(super) credential: u32,
    /// Topics whose ids were told on this connection.
    pub(super) topics: TopicSet,
    /// A reject was sent; silence until the expected record comes.
    pub(super) is_going_back: bool,
    /// See [`PublisherLogon::accepted`].
    accepted: u64,
}

/// Tokens of a rate limit, in messages times nanoseconds.
#[derive(Debug, Clone, Copy, Hash, Default)]
pub(crate) struct Bucket {
    level_ns: u64,
    filled_ns: u64,
}

impl Bucket {
    /// Takes one message at `rate` per second; at most a tenth of a second's worth may come in a burst.
    fn take(&mut self, rate: u32, now_ns: u64) -> bool {
        let cost = 1_000_000_000 / u64::from(rate.max(1));
        let most = (100_000_000).max(cost);
        let gained = now_ns.saturating_sub(self.filled_ns);
        self.level_ns = self.level_ns.saturating_add(gained).min(most);
        self.filled_ns = now_ns;
        if self.level_ns < cost {
            return false;
        }
        self.level_ns -= cost;
        true
    }
}

impl Sequence {
    pub(super) fn on_logon(
        &mut self,
        logon: &PublisherLogon,
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Progress {
        let &PublisherLogon {
            conn,
            publisher: id,
            incarnation,
            ..
        } = logon;
        if !self.make_room(CONTROL_STRIDE_MAX, now, log) {
            return Progress::STALLED;
        }
        let known = self.publishers.place(id);
        let Some(place) = known.or_else(|| self.publishers.insert(id, incarnation)) else {
            self.terminate(conn, TerminateCode::Full, 0);
            return Progress::DONE;
        };
        let newest = self.publishers.get(place).incarnation;
        if known.is_some() && incarnation < newest {
            self.terminate(conn, TerminateCode::OldIncarnation, newest.get());
            return Progress::DONE;
        }
        let served = self.publishers.get(place).conn;
        if incarnation == newest
            && served.is_some_and(|it| self.sessions[it.index as usize].accepted > logon.accepted)
        {
            // Its client left this connection for the other one before this was read.
            self.terminate(conn, TerminateCode::Superseded, 0);
            return Progress::DONE;
        }
        if known.is_none() || incarnation > newest {
            let fields = Fields {
                publisher: id,
                incarnation,
                ..Fields::default()
            };
            self.append_control(RecordKind::PublisherSession, &fields, &[], log);
            let publisher = self.publishers.get_mut(place);
            publisher.incarnation = incarnation;
            publisher.appended = PublisherSeq(0);
            publisher.released = (PublisherSeq(0), Seq(0));
            publisher.ack_entry = (0, 0);
        }
        if let Some(before) = served {
            self.on_closed(before);
            self.terminate(before, TerminateCode::Superseded, 0);
        }
        let publisher = self.publishers.get_mut(place);
        publisher.conn = Some(conn);
        let (next_expected, released_through) = (publisher.appended.next(), publisher.released.0);
        let session = &mut self.sessions[conn.index as usize];
        session.conn = Some(conn);
        session.place = place;
        session.credential = logon.credential;
        session.accepted = logon.accepted;
        session.topics.clear();
        session.is_going_back = false;
        self.reply(ToIngress::Established {
            conn,
            next_expected,
            released_through,
        });
        Progress::DONE
    }

    pub(super) fn on_closed(&mut self, conn: ConnId) {
        let session = &mut self.sessions[conn.index as usize];
        if session.conn == Some(conn) {
            session.conn = None;
            let publisher = self.publishers.get_mut(session.place);
            if publisher.conn == Some(conn) {
                publisher.conn = None;
            }
        }
    }

    pub(super) fn on_topic_request(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Progress {
        let done = Progress {
            taken: bytes.len(),
            is_done: true,
        };
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let Ok(Message::TopicRequest(asked)) = Message::decode(&bytes[..length]) else {
            unreachable!("ingress checked it");
        };
        if self.sessions[conn.index as usize].conn != Some(conn) {
            return done;
        }
        let Ok(name) = topic::check_name(asked.name) else {
            self.reject(conn, PublisherSeq(0), asked.request, RejectCode::BadTopic);
            return done;
        };
        let credential = self.sessions[conn.index as usize].credential;
        if !self.credentials.get(credential).may_publish(name) {
            self.reject(
                conn,
                PublisherSeq(0),
                asked.request,
                RejectCode::NotEntitled,
            );
            return done;
        }
        let topic = match self.topics.id(name) {
            Some(topic) => topic,
            None if self.topics.len() as u32 >= self.settings.topics_max => {
                self.reject(
                    conn,
                    PublisherSeq(0),
                    asked.request,
                    RejectCode::TooManyTopics,
                );
                return done;
            }
            None => {
                let is_room = self.topics_pending.len() < TOPIC_WAITS_MAX
                    && self.make_room(CONTROL_STRIDE_MAX, now, log);
                if !is_room {
                    return Progress::STALLED;
                }
                let topic = self.topics.define(name.as_bytes()).expect("checked above");
                let fields = Fields {
                    topic,
                    ..Fields::default()
                };
                self.append_control(RecordKind::Topic, &fields, name.as_bytes(), log);
                self.topics_pending
                    .push_back((self.packing.number(), topic));
                topic
            }
        };
        // Ids are given out in turn, so the place of one among those pending follows from the first.
        let pending = self.topics_pending.front().and_then(|(_, first)| {
            let place = topic.get().checked_sub(first.get())? as usize;
            self.topics_pending.get(place).map(|(block, _)| *block)
        });
        match pending {
            None => self.tell_topic(conn, asked.request, topic),
            Some(_) if self.topic_waits.len() >= TOPIC_WAITS_MAX => return Progress::STALLED,
            Some(block) => {
                let wait = TopicWait {
                    block,
                    conn,
                    request: asked.request,
                    topic,
                };
                self.topic_waits.push_back(wait);
            }
        }
        done
    }

    pub(super) fn tell_topic(&mut self, conn: ConnId, request: u32, topic: TopicId) {
        let session = &mut self.sessions[conn.index as usize];
        if session.conn == Some(conn) {
            session.topics.insert(topic);
            self.reply(ToIngress::Topic {
                conn,
                request,
                topic,
            });
        }
    }

    /// Whether the connection may publish this record now.
    pub(super) fn admit(
        &mut self,
        conn: ConnId,
        record: &Record<'_>,
        now: Now,
    ) -> Result<(), RejectCode> {
        let session = &self.sessions[conn.index as usize];
        if record.payload().len() > self.settings.payload_limit as usize {
            return Err(RejectCode::TooLarge);
        }
        if !session.topics.contains(record.topic()) {
            return Err(RejectCode::UnknownTopic);
        }
        let rate = self.credentials.get(session.credential).rate_limit;
        if rate != 0 {
            let publisher = self.publishers.get_mut(session.place);
            if !publisher.bucket.take(rate, now.mono_ns) {
                return Err(RejectCode::Throttled);
            }
        }
        Ok(())
    }

    /// Whether this node still leads is asked before a publisher's gap is told (rule R25).
    pub(crate) fn ask_before_gaps(&mut self) {
        self.asks_first = true;
    }

    pub(super) fn on_gap(&mut self, conn: ConnId, publisher_seq: PublisherSeq, now: Now) {
        let session = &mut self.sessions[conn.index as usize];
        // Who is told without asking only sends again what it has. There is one for each connection at most, but those of
        // connections that are gone stay until their time is over.
        let is_full = self.gaps.len() == self.gaps.capacity();
        if !self.asks_first || is_full {
            self.reject(conn, publisher_seq, 0, RejectCode::Gap);
        } else if !session.is_going_back {
            session.is_going_back = true;
            self.gaps.push_back((conn, publisher_seq, now.mono_ns));
        }
    }

    /// When the newest of the gaps that wait for being told was noticed, monotonic ns.
    pub(crate) fn newest_gap_ns(&self) -> Option<u64> {
        self.gaps.back().map(|&(_, _, since_ns)| since_ns)
    }

    /// Tells the gaps that were noticed by then, monotonic ns.
    pub(crate) fn tell_gaps(&mut self, through_ns: u64) {
        while let Some((conn, publisher_seq, since_ns)) = self.gaps.front().copied() {
            if since_ns > through_ns {
                return;
            }
            self.gaps.pop_front();
            let session = &mut self.sessions[conn.index as usize];
            // Meanwhile it may have gone, or have sent what was missing.
            if session.conn == Some(conn) && session.is_going_back {
                session.is_going_back = false;
                self.reject(conn, publisher_seq, 0, RejectCode::Gap);
            }
        }
    }

    pub(super) fn reject(
        &mut self,
        conn: ConnId,
        publisher_seq: PublisherSeq,
        request: u32,
        code: RejectCode,
    ) {
        let session = &mut self.sessions[conn.index as usize];
        if request == 0 {
            if session.is_going_back {
                return;
            }
            session.is_going_back = true;
        }
        let next_expected = self.publishers.get(session.place).appended.next();
        self.reply(ToIngress::Reject {
            conn,
            publisher_seq,
            next_expected,
            request,
            code,
        });
    }

    pub(super) fn terminate(&mut self, conn: ConnId, code: TerminateCode, detail: u64) {
        self.reply(ToIngress::Terminate { conn, code, detail });
    }
}
