//! Where a subscription starts.

use relay_wire::code::{From, TerminateCode};
use relay_wire::id::{Position, Seq};
use relay_wire::message::{Message, Subscribe, Subscribed};
use relay_wire::topic;

use super::Fanout;
use super::cursor::{Cursor, Skip};
use super::patterns::PatternSet;
use crate::command::ConnId;
use crate::sequence::SEQS_SKIPPED;

impl Fanout {
    pub(super) fn subscribe(
        &mut self,
        conn: ConnId,
        subscribe: &Subscribe<'_>,
        now_ns: u64,
    ) -> Result<(), (TerminateCode, u64)> {
        let credential = self.current(conn).map_or(0, |s| s.credential);
        let credential = self.credentials.get(credential);
        let mut patterns = Vec::with_capacity(subscribe.patterns.len());
        for pattern in subscribe.patterns.iter() {
            let pattern =
                topic::check_pattern(pattern).map_err(|_| (TerminateCode::Protocol, 0))?;
            if !credential.may_subscribe(pattern) {
                return Err((TerminateCode::NotEntitled, 0));
            }
            patterns.push(Box::from(pattern));
        }
        let (cursor, skip, start_seq) = self.start_of(subscribe)?;
        let tail = self.tail;
        let epoch = self.epoch;
        let patterns = PatternSet::new(patterns);
        let topics_to_tell = match patterns.names() {
            Some(names) => names.len() as u32,
            None => self.topics.len() as u32,
        };
        let Some(subscriber) = self.current(conn) else {
            return Ok(());
        };
        let is_everything = patterns.is_everything();
        subscriber.begin(cursor, skip, patterns, topics_to_tell);
        let subscribed = Subscribed {
            start_seq,
            earliest_seq: Seq(1),
            next_seq: tail.next_seq,
            epoch,
        };
        subscriber.say(&Message::Subscribed(subscribed), now_ns);
        if is_everything {
            self.unfiltered.insert(conn.index);
        } else {
            self.filtered += 1;
        }
        self.queue(conn.index);
        Ok(())
    }

    /// Where a subscription starts, what it skips there, and the seq it starts from.
    fn start_of(
        &self,
        subscribe: &Subscribe<'_>,
    ) -> Result<(Cursor, Skip, Seq), (TerminateCode, u64)> {
        let tail = self.tail;
        let at_tail = Cursor::at(&tail);
        let from = |position| Cursor {
            block: position,
            offset: 0,
            next_seq: Seq(0),
            checksum: None,
        };
        match subscribe.from {
            From::Live => Ok((at_tail, Skip::Nothing, tail.next_seq)),
            From::Earliest => Ok((from(Position(0)), Skip::Nothing, Seq(1))),
            From::Time => {
                let position = self.index.find_time(subscribe.value);
                Ok((from(position), Skip::Time(subscribe.value), Seq(1)))
            }
            From::Seq => {
                let seq = Seq(subscribe.value.max(1));
                if seq > tail.next_seq {
                    return Err((TerminateCode::BeyondTail, tail.next_seq.get()));
                }
                let before = Seq(seq.get() - 1);
                if seq == tail.next_seq {
                    let is_other = subscribe.checksum.is_some_and(|c| c != tail.checksum);
                    if before.get() > 0 && is_other {
                        return Err((TerminateCode::WrongHistory, before.get()));
                    }
                    return Ok((at_tail, Skip::Nothing, seq));
                }
                if before.get() == 0 {
                    return Ok((from(Position(0)), Skip::Nothing, seq));
                }
                let skip = Skip::Seq {
                    until: seq,
                    checksum: subscribe.checksum,
                    passed: None,
                };
                // Where seqs may have been skipped the message before the wanted one may lie further back than its seq says.
                let position = if before.get() < SEQS_SKIPPED {
                    self.index.find_seq(before)
                } else {
                    self.index.find_before(before)
                };
                Ok((from(position), skip, seq))
            }
        }
    }
}
