//! From a release to those whom it concerns.
//!
//! The blocks that are released are looked at once, for all subscribers together: which topics they define, and who wants one of
//! their records. Only these leave the tail and are served.

use relay_journal::block::{self, BlockHeader, HEADER_LENGTH};
use relay_journal::position_index::IndexEntry;
use relay_wire::code::RecordKind;
use relay_wire::id::{Position, TopicId};

use super::Fanout;
use super::cursor::Cursor;
use crate::command::ReleasePoint;
use crate::log::LogView;

impl Fanout {
    /// Release moved on to `point`; `view` reaches at least from where the last one ended to there. The floor moves along,
    /// whether anybody reads or not.
    pub fn on_released(&mut self, point: ReleasePoint, view: &LogView<'_>) {
        assert!(point.position >= self.tail.position, "release only grows");
        self.concerned.clear();
        while self.followed < point.position {
            let bytes = view.from(self.followed);
            let header = block::decode_header(bytes).expect("the ring holds what was sealed");
            self.follow(&header, &bytes[HEADER_LENGTH..header.body_end()]);
        }
        let before = std::mem::replace(&mut self.tail, point);
        if self.sends_under_way == 0 {
            let keep = self.settings.kept_in_memory();
            let floor = Position(point.position.get().saturating_sub(keep));
            self.floor = self.floor.max(floor);
        }
        self.concerned.add_all(self.unfiltered.words());
        let mut from = 0;
        while let Some(index) = self.concerned.next_from(from) {
            from = index + 1;
            if !self.at_tail.contains(index) {
                continue;
            }
            self.at_tail.remove(index);
            if let Some(subscriber) = &mut self.subscribers[index as usize] {
                subscriber.cursor = Cursor::at(&before);
            }
            self.queue(index);
        }
    }

    /// Takes notice of a block: where it lies, which topics it defines, and who wants something of it.
    fn follow(&mut self, header: &BlockHeader, body: &[u8]) {
        self.index.offer(IndexEntry {
            position: header.position,
            first_seq: header.first_seq,
            time_before_ns: self.index_time_ns,
            sealed_time_ns: header.sealed_time_ns,
        });
        self.index_time_ns = header.sealed_time_ns;
        self.epoch = header.epoch;
        let has_control = header.record_count > header.data_count;
        if has_control || self.filtered > 0 {
            for record in block::records(body) {
                let (_, record) = record.expect("the ring holds what was sealed");
                match record.kind() {
                    Some(RecordKind::Topic) => {
                        let name = core::str::from_utf8(record.payload()).expect("checked before");
                        self.define(name);
                    }
                    Some(RecordKind::Data) => {}
                    _ => continue,
                }
                self.concerned.add_all(self.interest.row(record.topic()));
            }
        }
        self.followed = header.next_position();
    }

    fn define(&mut self, name: &str) {
        let topic = self
            .topics
            .define(name.as_bytes())
            .expect("the sequencer checked it");
        self.interest.reach(topic);
        if self.filtered == 0 {
            return;
        }
        let mut from = 0;
        while let Some(index) = self.taken.next_from(from) {
            from = index + 1;
            if let Some(subscriber) = &self.subscribers[index as usize]
                && let Some(selection) = &subscriber.selection
                && !selection.patterns.is_everything()
                && selection.patterns.select(name)
            {
                self.interest.insert(topic, index);
            }
        }
    }

    /// Takes a part of the interest out that is still noted for a place given up; with the last of it the place is free.
    pub(super) fn sweep(&mut self) {
        let Some((place, next)) = self.swept.pop_front() else {
            return;
        };
        let last = TopicId(self.topics.len() as u32);
        match self.interest.sweep(place, next, last) {
            Some(next) => self.swept.push_front((place, next)),
            None => self.free.push(place),
        }
    }
}
