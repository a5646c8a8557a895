//! From a block's completion to its release, and what publishers are told then: acknowledgements, topics.

use relay_wire::id::{Position, PublisherSeq, Seq};

use super::{AckEntry, Sequence, SequenceEffect};
use crate::command::ToIngress;

impl Sequence {
    /// Remembers to acknowledge `publisher_seq` when the open block is released.
    pub(super) fn note_ack(&mut self, place: u32, publisher_seq: PublisherSeq, seq: Seq) {
        let block = self.packing.number();
        let publisher = self.publishers.get_mut(place);
        publisher.appended = publisher_seq;
        let (entry_block, entry) = publisher.ack_entry;
        if entry_block == block {
            let entry = &mut self.acks[(entry - self.acks_popped) as usize];
            entry.publisher_seq = publisher_seq;
            entry.seq = seq;
            return;
        }
        publisher.ack_entry = (block, self.acks_popped + self.acks.len() as u64);
        // The end is set when the block is sealed; until then the entry lies beyond every release.
        self.acks.push_back(AckEntry {
            end: Position(u64::MAX),
            place,
            publisher_seq,
            seq,
            incarnation: publisher.incarnation,
        });
    }

    /// Write `number` completed in full.
    pub fn on_written(&mut self, number: u64) {
        if self.is_failed {
            return;
        }
        self.persist.on_written(number);
        self.advance();
    }

    /// The data-sync completed.
    pub fn on_synced(&mut self) {
        if self.is_failed {
            return;
        }
        self.persist.on_synced();
        self.advance();
    }

    /// The group lets everything up to `limit` go, as far as this node's own part is done: on its disk, or in its memory where
    /// the policy and the number of copies allow that.
    pub fn set_group_limit(&mut self, limit: Position, memory_counts: bool) {
        self.group_limit = limit;
        self.memory_counts = memory_counts;
        if !self.is_failed {
            self.advance();
        }
    }

    /// The join: releases what this node's own part and the group's both cover, whole blocks at a time.
    fn advance(&mut self) {
        if self.persist.start_sync() {
            self.effects.push_back(SequenceEffect::Sync);
        }
        let durable = self.persist.durable().point.position;
        let own = if self.memory_counts {
            let kept = durable.plus(self.settings.kept_in_memory());
            self.packing.position().min(kept)
        } else {
            durable
        };
        let through = own.min(self.group_limit);
        let before = self.released;
        while let Some((_, end)) = self.unreleased.front()
            && end.point.position <= through
        {
            self.released = *end;
            self.unreleased.pop_front();
        }
        let point = self.released.point;
        if point.position == before.point.position {
            return;
        }
        assert!(point.position > before.point.position, "release only grows");
        assert!(
            point.position <= self.packing.position(),
            "release never passes what is sealed"
        );
        let first_unreleased = self.unreleased.front().map(|(number, _)| *number);
        self.released_block = first_unreleased.unwrap_or(self.packing.number());
        self.effects.push_back(SequenceEffect::Released(point));
        if self.session.released != self.session.appended
            && self.session.block < self.released_block
        {
            self.session.released = self.session.appended;
            let number = self.session.released;
            self.reply(ToIngress::Session { number });
        }
        self.reply(ToIngress::Progress {
            next_seq: point.next_seq,
            held: self.held,
        });
        while let Some(entry) = self.acks.front().copied() {
            if entry.end > point.position {
                break;
            }
            self.acks.pop_front();
            self.acks_popped += 1;
            let publisher = self.publishers.get_mut(entry.place);
            if publisher.incarnation == entry.incarnation {
                publisher.released = (entry.publisher_seq, entry.seq);
                self.owe_ack(entry.place);
            }
        }
        self.settle_acks();
        while self
            .topics_pending
            .front()
            .is_some_and(|(block, _)| *block < self.released_block)
        {
            self.topics_pending.pop_front();
        }
        while let Some(wait) = self.topic_waits.front().copied() {
            if wait.block >= self.released_block {
                break;
            }
            self.topic_waits.pop_front();
            self.tell_topic(wait.conn, wait.request, wait.topic);
        }
    }

    pub(super) fn owe_ack(&mut self, place: u32) {
        let publisher = self.publishers.get_mut(place);
        if !publisher.ack_due && publisher.conn.is_some() {
            publisher.ack_due = true;
            self.acks_due.push(place);
        }
    }

    /// One acknowledgement for each publisher that is owed one.
    pub(super) fn settle_acks(&mut self) {
        while let Some(place) = self.acks_due.pop() {
            let publisher = self.publishers.get_mut(place);
            publisher.ack_due = false;
            let (publisher_seq, seq) = publisher.released;
            if let (Some(conn), true) = (publisher.conn, publisher_seq.get() > 0) {
                self.reply(ToIngress::Ack {
                    conn,
                    publisher_seq,
                    seq,
                });
            }
        }
    }
}
