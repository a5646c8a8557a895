//! Subscribers: each a cursor over what is released.
//!
//! Stands at the end of the way of a message. A subscriber near the tail is served straight from the memory ring, one that lies
//! further back from disk through a few shared replay buffers, and goes over from one to the other at the exact byte
//! where it stands. Nothing is kept for a subscriber but its cursor, so a slow one costs the others nothing: a socket
//! without room is left alone until it has some, and one that takes nothing for too long is let go.
//!
//! A release costs its own records and the subscribers that want one of them: who has seen everything and wants none of it is not
//! looked at, and stands at the tail all the same.
//!
//! Invariants: nothing beyond the released position is ever looked at; bytes below [`Fanout::floor`] are never read from the
//! ring; session messages go out only between records.

mod cursor;
mod interest;
mod patterns;
mod release;
mod replay;
mod start;
mod subscriber;

use std::collections::VecDeque;
use std::sync::Arc;

use relay_journal::position_index::PositionIndex;
use relay_journal::tables::Tables;
use relay_journal::topics::Topics;
use relay_wire::code::TerminateCode;
use relay_wire::id::{Epoch, Position, TopicId};
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{Message, MessageError, Terminate, Topic};
use relay_wire::stride;

use crate::command::{ConnId, ReleasePoint};
use crate::credential::CredentialBook;
use crate::ingress::terminate_text;
use crate::log::LogView;
use crate::places::PlaceSet;
use crate::settings::Settings;

use cursor::{Budget, Stretch, WalkEnd, WalkError, Wanted};
use interest::Interest;
use replay::Slot;
use subscriber::{Sending, State, Subscriber};

/// Most runs of one send.
pub const RUNS_MAX: usize = 64;
/// Bytes of log looked at, record by record or block by block from disk, for one subscriber in one step.
const STEP_BYTES: u32 = 1024 * 1024;
/// Subscribers served in one step, so that the sequencer has its turn between the sends to very many.
const SERVED_MAX: usize = 64;
/// Topics told to one subscriber in one step.
const TOPICS_STEP: u32 = 64;
/// A subscriber whose alarm is in doubt is sent to another node after so long.
const DOUBT_NS: u64 = 1_000_000_000;
/// A farewell that can't be delivered within this time is given up.
const FAREWELL_NS: u64 = 1_000_000_000;

/// Where a send's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the memory ring.
    Ring,
    /// In this replay buffer, whose first byte has the given position.
    Replay {
        /// Which buffer.
        slot: u32,
        /// Position of its first byte.
        start: Position,
    },
}

/// Bytes of the log to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where they start.
    pub position: Position,
    /// How many.
    pub length: u32,
}

/// What the caller is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanoutEffect {
    /// Send the pieces of [`Fanout::pieces`] without waiting; report with [`Fanout::on_sent`].
    SendLog {
        /// To whom.
        conn: ConnId,
        /// Where they lie.
        source: Source,
    },
    /// Send [`Fanout::outgoing`] without waiting; report with [`Fanout::on_sent`].
    SendMessages(ConnId),
    /// Report with [`Fanout::on_writable`] once the socket has room.
    AwaitRoom(ConnId),
    /// Read `length` bytes of the log from disk into a replay buffer; report with [`Fanout::on_read`].
    Read {
        /// Which buffer.
        slot: u32,
        /// First byte, at a multiple of the block alignment.
        position: Position,
        /// Bytes; not beyond the segment's end.
        length: u32,
    },
    /// Close the socket; the place is free again.
    Close(ConnId),
    /// What was read at this position is not what was written: raise an alarm.
    Damaged(Position),
    /// A subscriber saw what this log does not hold. Before that is an alarm this node has to see that it still leads: call
    /// [`Fanout::on_assured`] then.
    Doubt,
}

/// The machine. See the module's description.
#[derive(Debug, Clone)]
pub struct Fanout {
    settings: Settings,
    credentials: Arc<CredentialBook>,
    subscribers: Vec<Option<Subscriber>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Places that are taken.
    taken: PlaceSet,
    /// Subscribers for whom everything released was looked at.
    at_tail: PlaceSet,
    /// Subscribers that want everything.
    unfiltered: PlaceSet,
    /// Subscribers that want only some topics.
    filtered: u32,
    /// Who wants something of what is being released.
    concerned: PlaceSet,
    interest: Interest,
    /// Places given up whose interest is still noted, and the topic from which on.
    swept: VecDeque<(u32, TopicId)>,
    topics: Topics,
    index: PositionIndex,
    index_time_ns: u64,
    /// Everything before here was followed: topics and index know it.
    followed: Position,
    tail: ReleasePoint,
    floor: Position,
    epoch: Epoch,
    slots: Vec<Slot>,
    /// Who waits for a replay buffer, in the order of coming.
    waiting: VecDeque<u32>,
    work: VecDeque<u32>,
    effects: VecDeque<FanoutEffect>,
    checked_ns: u64,
    sends_under_way: u32,
    asks_first: bool,
    is_withdrawn: bool,
}

impl Fanout {
    /// A machine without subscribers, for a log whose fold is `tables`.
    #[must_use]
    pub fn new(
        settings: Settings,
        credentials: Arc<CredentialBook>,
        tables: &Tables,
        epoch: Epoch,
    ) -> Self {
        let places = settings.subscribers_max;
        let mut index = tables.index.clone();
        index.reserve_all();
        let tail = ReleasePoint {
            position: tables.position,
            next_seq: tables.next_seq,
            checksum: tables.last_checksum,
        };
        let topics_max = settings.topics_max.max(tables.topics.len() as u32);
        Self {
            subscribers: (0..places).map(|_| None).collect(),
            generations: vec![0; places as usize],
            free: (0..places).rev().collect(),
            taken: PlaceSet::new(places),
            at_tail: PlaceSet::new(places),
            unfiltered: PlaceSet::new(places),
            filtered: 0,
            concerned: PlaceSet::new(places),
            interest: Interest::new(places, topics_max),
            swept: VecDeque::with_capacity(places as usize),
            topics: tables.topics.clone(),
            index,
            index_time_ns: tables.last_time_ns,
            followed: tail.position,
            tail,
            floor: tail.position,
            epoch,
            slots: vec![Slot::Free; settings.replay_slots as usize],
            waiting: VecDeque::with_capacity(places as usize),
            work: VecDeque::with_capacity(places as usize),
            effects: VecDeque::with_capacity(4 * places as usize + 16),
            checked_ns: 0,
            sends_under_way: 0,
            asks_first: false,
            is_withdrawn: false,
            settings,
            credentials,
        }
    }

    /// This node is one of a group: before a subscriber's other history is an alarm, it is asked whether this node still leads (rule
    /// R25).
    pub fn ask_before_alarm(&mut self) {
        self.asks_first = true;
    }

    /// This node led still when it was asked at `asked_ns`, monotonic, on the clock of `now_ns`: the alarms of until then are raised.
    pub fn on_assured(&mut self, asked_ns: u64, now_ns: u64) {
        let mut from = 0;
        while let Some(index) = self.taken.next_from(from) {
            from = index + 1;
            if let Some(subscriber) = &self.subscribers[index as usize]
                && let State::Doubted {
                    code,
                    detail,
                    since_ns,
                } = subscriber.state
                && since_ns <= asked_ns
            {
                self.end(subscriber.conn, code, detail, now_ns);
            }
        }
    }

    /// Ends a subscription whose history is another one, at once or when that is sure.
    fn alarm(&mut self, conn: ConnId, code: TerminateCode, detail: u64, now_ns: u64) {
        let is_alarm = matches!(
            code,
            TerminateCode::BeyondTail | TerminateCode::WrongHistory
        );
        let asks = self.asks_first && is_alarm;
        match self.current(conn) {
            Some(subscriber) if asks => {
                subscriber.state = State::Doubted {
                    code,
                    detail,
                    since_ns: now_ns,
                };
                self.effects.push_back(FanoutEffect::Doubt);
            }
            _ => self.end(conn, code, detail, now_ns),
        }
    }

    /// A subscriber that logged on; `None` when there is no place.
    pub fn on_subscriber(&mut self, credential: u32, now_ns: u64) -> Option<ConnId> {
        while self.free.is_empty() && !self.swept.is_empty() {
            self.sweep();
        }
        let index = self.free.pop()?;
        let conn = ConnId {
            index,
            generation: self.generations[index as usize],
        };
        self.subscribers[index as usize] = Some(Subscriber::new(conn, credential, now_ns));
        self.taken.insert(index);
        if self.is_withdrawn {
            // It logged on just before ingress heard of it.
            self.end(conn, TerminateCode::NotPrimary, 0, now_ns);
        }
        Some(conn)
    }

    fn current(&mut self, conn: ConnId) -> Option<&mut Subscriber> {
        self.subscribers[conn.index as usize]
            .as_mut()
            .filter(|s| s.conn == conn)
    }

    /// Bytes arrived; returns how many were whole items and are done with.
    pub fn on_bytes(&mut self, conn: ConnId, bytes: &[u8], now_ns: u64) -> usize {
        let mut consumed = 0;
        loop {
            let Some(subscriber) = self.current(conn) else {
                return bytes.len();
            };
            subscriber.heard_ns = now_ns;
            if matches!(subscriber.state, State::Closing { .. }) {
                return bytes.len();
            }
            let limits = Limits {
                record_length_max: 0,
                ..Limits::after_logon(0)
            };
            match item::front(&bytes[consumed..], limits) {
                Ok(Front::Partial { .. }) => return consumed,
                Ok(Front::Message { length }) => {
                    let message = Message::decode(&bytes[consumed..consumed + length]);
                    consumed += stride(length);
                    self.on_message(conn, message, now_ns);
                }
                Ok(Front::Record { .. }) | Err(_) => {
                    self.end(conn, TerminateCode::Protocol, 0, now_ns);
                }
            }
        }
    }

    fn on_message(
        &mut self,
        conn: ConnId,
        message: Result<Message<'_>, MessageError>,
        now_ns: u64,
    ) {
        let is_fresh = self
            .current(conn)
            .is_some_and(|s| s.state == State::AwaitSubscribe);
        match message {
            Ok(Message::Heartbeat(_)) => {}
            Ok(Message::Terminate(_)) => self.end(conn, TerminateCode::Logout, 0, now_ns),
            Ok(Message::Subscribe(subscribe)) if is_fresh => {
                if let Err((code, detail)) = self.subscribe(conn, &subscribe, now_ns) {
                    self.alarm(conn, code, detail, now_ns);
                }
            }
            Err(MessageError::Checksum) => self.end(conn, TerminateCode::Checksum, 0, now_ns),
            Err(MessageError::Version(_)) => {
                let version = relay_wire::PROTOCOL_VERSION.into();
                self.end(conn, TerminateCode::Version, version, now_ns);
            }
            Ok(_) | Err(_) => self.end(conn, TerminateCode::Protocol, 0, now_ns),
        }
    }

    /// The lowest position the machine still reads in the ring. The sequencer may overwrite what lies below.
    #[must_use]
    pub const fn floor(&self) -> Position {
        self.floor
    }

    /// Serves whoever can be served: `ring` is what may be read in memory, `replay` the replay buffers.
    pub fn serve(&mut self, ring: &LogView<'_>, replay: &[&[u8]], now_ns: u64) {
        self.sweep();
        for _ in 0..self.work.len().min(SERVED_MAX) {
            let Some(index) = self.work.pop_front() else {
                break;
            };
            let Some(mut subscriber) = self.subscribers[index as usize].take() else {
                continue;
            };
            subscriber.is_queued = false;
            let conn = subscriber.conn;
            let failed = self.serve_one(&mut subscriber, ring, replay, now_ns);
            if failed.is_err() {
                self.give_up_slot(&mut subscriber);
            }
            self.subscribers[index as usize] = Some(subscriber);
            if let Err((code, detail)) = failed {
                self.alarm(conn, code, detail, now_ns);
            }
        }
    }

    fn serve_one(
        &mut self,
        subscriber: &mut Subscriber,
        ring: &LogView<'_>,
        replay: &[&[u8]],
        now_ns: u64,
    ) -> Result<(), (TerminateCode, u64)> {
        if subscriber.sending != Sending::Nothing || subscriber.blocked_since_ns.is_some() {
            return Ok(());
        }
        if subscriber.rest.is_none() {
            if subscriber.state == State::Active {
                self.tell_topics(subscriber, now_ns);
            }
            if subscriber.outgoing.wants_send() {
                subscriber.outgoing.begin_send();
                self.begin_send(subscriber, Sending::Messages);
                self.effects
                    .push_back(FanoutEffect::SendMessages(subscriber.conn));
                return Ok(());
            }
        }
        match subscriber.state {
            State::AwaitSubscribe | State::Doubted { .. } => Ok(()),
            State::Closing { .. } => {
                self.effects.push_back(FanoutEffect::Close(subscriber.conn));
                Ok(())
            }
            State::Active => self.gather(subscriber, ring, replay),
        }
    }

    /// Tells the names of topics defined before the subscription, a few at a time. Where the patterns are names these are looked up,
    /// and what it takes does not depend on how many topics there are.
    fn tell_topics(&mut self, subscriber: &mut Subscriber, now_ns: u64) {
        let Some(selection) = &subscriber.selection else {
            return;
        };
        let place = subscriber.conn.index;
        let mut looked_at = 0;
        while subscriber.topics_told < subscriber.topics_to_tell && looked_at < TOPICS_STEP {
            let at = subscriber.topics_told;
            looked_at += 1;
            let topic = match selection.patterns.names() {
                Some(names) => self.topics.id(&names[at as usize]),
                None => Some(TopicId(at + 1)),
            };
            let name = topic.and_then(|topic| self.topics.name(topic));
            if let (Some(topic), Some(name)) = (topic, name)
                && (selection.patterns.names().is_some() || selection.patterns.select(name))
            {
                let message = Message::Topic(Topic {
                    request: 0,
                    topic,
                    name,
                });
                if subscriber.outgoing.push(&message).is_err() {
                    break;
                }
                subscriber.said_ns = now_ns;
                if !selection.patterns.is_everything() {
                    self.interest.insert(topic, place);
                }
            }
            subscriber.topics_told += 1;
        }
    }

    fn begin_send(&mut self, subscriber: &mut Subscriber, what: Sending) {
        subscriber.sending = what;
        self.sends_under_way += 1;
    }

    /// Collects what the subscriber is to get next and asks for its send, or for the read that must come first.
    fn gather(
        &mut self,
        subscriber: &mut Subscriber,
        ring: &LogView<'_>,
        replay: &[&[u8]],
    ) -> Result<(), (TerminateCode, u64)> {
        if subscriber.topics_told < subscriber.topics_to_tell {
            self.queue_taken(subscriber);
            return Ok(());
        }
        let place = subscriber.conn.index;
        if self.at_tail.contains(place) {
            self.give_up_slot(subscriber);
            return Ok(());
        }
        // A run cut short by a full socket goes first; it lies in the block the cursor stood in before it.
        let from = subscriber
            .rest
            .map_or(subscriber.cursor.block, |rest| rest.block);
        let is_in_ring = from >= self.floor && from >= ring.start();
        let tail = self.tail.position;
        let (source, bytes, end) = if from >= tail {
            (Source::Ring, &[][..], tail)
        } else if is_in_ring {
            self.give_up_slot(subscriber);
            (Source::Ring, ring.from(from), tail)
        } else {
            match self.slot_bytes(subscriber, from, replay) {
                Some(found) => found,
                None => return Ok(()),
            }
        };
        subscriber.runs.clear();
        if let Some(rest) = subscriber.rest {
            // It was cut short where it came from the ring, or from another reading of the disk.
            let verifies = source != Source::Ring;
            let block = cursor::enter(bytes, from, verifies).map_err(|e| self.give_reason(e))?;
            if block.is_none() {
                self.reread(subscriber, from);
                return Ok(());
            }
            subscriber.runs.push(rest);
        }
        let mut cursor = subscriber.cursor;
        let Some(selection) = &mut subscriber.selection else {
            return Ok(());
        };
        let skipped = bytes
            .get(cursor.block.since(from) as usize..)
            .unwrap_or(&[]);
        let budget = Budget {
            runs: RUNS_MAX,
            bytes: STEP_BYTES,
        };
        let stretch = Stretch {
            bytes: skipped,
            is_trusted: source == Source::Ring,
        };
        let wanted = Wanted {
            interest: &self.interest,
            place,
        };
        let walked = cursor::walk(
            &mut cursor,
            selection,
            wanted,
            stretch,
            end,
            budget,
            &mut subscriber.runs,
        );
        subscriber.cursor = cursor;
        let walked = match walked {
            // The end of what may be looked at in a replay buffer: it goes on in the ring, or with another reading.
            Ok(WalkEnd::AtEnd) if cursor.block < tail => Ok(WalkEnd::Budget),
            Ok(WalkEnd::AtEnd) => {
                self.at_tail.insert(place);
                subscriber.was_at_tail = true;
                walked
            }
            _ => walked,
        };
        // What lies before a damaged block is sent first; the walk meets the damage again after it.
        let walked = if subscriber.runs.is_empty() {
            walked
        } else {
            walked.or(Ok(WalkEnd::Budget))
        };
        let end = walked.map_err(|error| self.give_reason(error))?;
        if !subscriber.runs.is_empty() {
            self.begin_send(subscriber, Sending::Log);
            self.effects.push_back(FanoutEffect::SendLog {
                conn: subscriber.conn,
                source,
            });
        } else {
            match end {
                WalkEnd::AtEnd => self.give_up_slot(subscriber),
                WalkEnd::Budget => self.queue_taken(subscriber),
                WalkEnd::OutOfBytes => self.reread(subscriber, cursor.block),
            }
        }
        Ok(())
    }

    /// What a subscriber is told whose walk can't go on.
    fn give_reason(&mut self, error: WalkError) -> (TerminateCode, u64) {
        match error {
            WalkError::WrongHistory(seq) => (TerminateCode::WrongHistory, seq.get()),
            WalkError::Damaged(position) => {
                self.effects.push_back(FanoutEffect::Damaged(position));
                (TerminateCode::StorageFault, position.get())
            }
        }
    }

    /// A send took `length` bytes, fewer than asked (0 included) when the socket is full.
    pub fn on_sent(&mut self, conn: ConnId, length: usize, now_ns: u64) {
        let Some(mut subscriber) = self.take_current(conn) else {
            return;
        };
        self.sends_under_way -= 1;
        let is_complete = match subscriber.sending {
            Sending::Messages => {
                let asked = subscriber.outgoing.front().len();
                subscriber.outgoing.end_send(length);
                length == asked
            }
            Sending::Log => {
                let is_complete = subscriber.on_log_sent(length);
                if !is_complete {
                    self.at_tail.remove(conn.index);
                }
                is_complete
            }
            Sending::Nothing => panic!("a send completes that was begun"),
        };
        subscriber.sending = Sending::Nothing;
        if length > 0 {
            subscriber.said_ns = now_ns;
            subscriber.taken_ns = now_ns;
        }
        if is_complete {
            self.queue_taken(&mut subscriber);
        } else {
            subscriber.blocked_since_ns = Some(now_ns);
            if !self.waiting.is_empty() {
                // Whoever waits itself does not while it could not use a buffer.
                self.give_up_slot(&mut subscriber);
            }
            self.effects.push_back(FanoutEffect::AwaitRoom(conn));
        }
        self.subscribers[conn.index as usize] = Some(subscriber);
    }

    fn take_current(&mut self, conn: ConnId) -> Option<Subscriber> {
        self.current(conn)?;
        self.subscribers[conn.index as usize].take()
    }

    /// The socket has room again.
    pub fn on_writable(&mut self, conn: ConnId) {
        if let Some(subscriber) = self.current(conn) {
            subscriber.blocked_since_ns = None;
            self.queue(conn.index);
        }
    }

    /// The peer closed, or the socket failed.
    pub fn on_closed(&mut self, conn: ConnId) {
        let Some(mut subscriber) = self.take_current(conn) else {
            return;
        };
        if subscriber.sending != Sending::Nothing {
            self.sends_under_way -= 1;
        }
        self.give_up_slot(&mut subscriber);
        self.work.retain(|&index| index != conn.index);
        self.taken.remove(conn.index);
        self.at_tail.remove(conn.index);
        self.unfiltered.remove(conn.index);
        self.generations[conn.index as usize] = conn.generation.wrapping_add(1);
        if subscriber.is_filtered() {
            self.filtered -= 1;
            self.swept.push_back((conn.index, TopicId(1)));
            self.sweep();
        } else {
            self.free.push(conn.index);
        }
    }

    /// Time passed: heartbeats, silent and stalled subscribers. Looks at everything a few times per heartbeat.
    pub fn on_time(&mut self, now_ns: u64) {
        let interval = self.settings.heartbeat_ns;
        if now_ns < self.checked_ns + interval / 8 {
            return;
        }
        self.checked_ns = now_ns;
        let mut from = 0;
        while let Some(index) = self.taken.next_from(from) {
            from = index + 1;
            let is_at_tail = self.at_tail.contains(index);
            let lag = self.lag(index);
            let Some(subscriber) = &mut self.subscribers[index as usize] else {
                continue;
            };
            let conn = subscriber.conn;
            if let State::Closing { since_ns } = subscriber.state {
                if now_ns >= since_ns + FAREWELL_NS {
                    self.effects.push_back(FanoutEffect::Close(conn));
                }
                continue;
            }
            if let State::Doubted { since_ns, .. } = subscriber.state {
                // The arbiter does not answer: no alarm is raised, and another node may know better.
                if now_ns >= since_ns + DOUBT_NS {
                    self.end(conn, TerminateCode::NotPrimary, 0, now_ns);
                }
                continue;
            }
            let silent_ns = self.settings.client_silence_ns();
            if now_ns >= subscriber.heard_ns + silent_ns {
                self.end(conn, TerminateCode::Silent, 0, now_ns);
                continue;
            }
            let limit = self.settings.lag_limit;
            let is_stalled = subscriber.blocked_since_ns.is_some()
                && now_ns >= subscriber.taken_ns + self.settings.stall_limit_ns;
            let is_lost = subscriber.was_at_tail && limit != 0 && lag > limit;
            if is_stalled || is_lost {
                let detail = subscriber.cursor.next_seq.get();
                self.end(conn, TerminateCode::TooSlow, detail, now_ns);
                continue;
            }
            if subscriber.state == State::Active && now_ns >= subscriber.heartbeat_ns + interval {
                subscriber.beat(is_at_tail, &self.tail, self.epoch, now_ns);
                self.queue(index);
            }
        }
    }

    /// Sends every subscriber on to another node, and those that come, until [`Fanout::serve_again`].
    pub fn withdraw(&mut self, now_ns: u64) {
        self.is_withdrawn = true;
        self.stop(TerminateCode::NotPrimary, now_ns);
    }

    /// Takes subscribers again after [`Fanout::withdraw`].
    pub const fn serve_again(&mut self) {
        self.is_withdrawn = false;
    }

    /// Takes leave of every subscriber.
    pub fn stop(&mut self, code: TerminateCode, now_ns: u64) {
        let mut from = 0;
        while let Some(index) = self.taken.next_from(from) {
            from = index + 1;
            if let Some(conn) = self.subscribers[index as usize].as_ref().map(|s| s.conn) {
                self.end(conn, code, 0, now_ns);
            }
        }
    }

    /// Whether nobody is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Whether every subscriber has everything that is released.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.subscribers
            .iter()
            .flatten()
            .all(|s| s.state != State::Active || self.at_tail.contains(s.conn.index))
    }

    /// Bytes of released log that were not yet looked at for the subscriber at this place.
    fn lag(&self, index: u32) -> u64 {
        let tail = self.tail.position;
        match &self.subscribers[index as usize] {
            Some(subscriber) if !self.at_tail.contains(index) => {
                tail.since(subscriber.cursor.block.min(tail))
            }
            _ => 0,
        }
    }

    fn end(&mut self, conn: ConnId, code: TerminateCode, detail: u64, now_ns: u64) {
        let Some(subscriber) = self.current(conn) else {
            return;
        };
        if matches!(subscriber.state, State::Closing { .. }) {
            return;
        }
        subscriber.state = State::Closing { since_ns: now_ns };
        let text = terminate_text(code);
        if subscriber.rest.is_some() || subscriber.sending == Sending::Log {
            // In the middle of a record no message can be said; the peer sees the connection end.
            subscriber.rest = None;
        } else {
            subscriber.say(
                &Message::Terminate(Terminate { code, detail, text }),
                now_ns,
            );
        }
        self.queue(conn.index);
    }

    fn queue(&mut self, index: u32) {
        if let Some(subscriber) = &mut self.subscribers[index as usize]
            && !subscriber.is_queued
        {
            subscriber.is_queued = true;
            self.work.push_back(index);
        }
    }

    /// [`Fanout::queue`] for a subscriber that is taken out of the table.
    fn queue_taken(&mut self, subscriber: &mut Subscriber) {
        if !subscriber.is_queued {
            subscriber.is_queued = true;
            self.work.push_back(subscriber.conn.index);
        }
    }

    /// Whether [`Fanout::serve`] has something to do.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.swept.is_empty()
    }

    /// The pieces a [`FanoutEffect::SendLog`] is about.
    pub fn pieces(&self, conn: ConnId) -> impl Iterator<Item = Piece> + '_ {
        let subscriber = self.subscribers[conn.index as usize]
            .as_ref()
            .filter(|s| s.conn == conn);
        subscriber
            .into_iter()
            .flat_map(|s| s.runs.iter())
            .map(|run| Piece {
                position: run.position,
                length: run.length,
            })
    }

    /// The bytes a [`FanoutEffect::SendMessages`] is about.
    #[must_use]
    pub fn outgoing(&self, conn: ConnId) -> &[u8] {
        self.subscribers[conn.index as usize]
            .as_ref()
            .map_or(&[], |s| s.outgoing.front())
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<FanoutEffect> {
        self.effects.pop_front()
    }

    /// Subscribers now, those of them behind the ring, and the largest lag in bytes.
    #[must_use]
    pub fn census(&self) -> (u32, u32, u64) {
        let mut census = (0, 0, 0);
        let mut from = 0;
        while let Some(index) = self.taken.next_from(from) {
            from = index + 1;
            let Some(subscriber) = &self.subscribers[index as usize] else {
                continue;
            };
            census.0 += 1;
            census.1 += u32::from(subscriber.slot.is_some() || subscriber.is_waiting);
            if subscriber.state == State::Active {
                census.2 = census.2.max(self.lag(index));
            }
        }
        census
    }
}
