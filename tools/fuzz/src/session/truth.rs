//! What was really sent and what was really released, told apart from the machines: the released log is read back from
//! the disk and folded by the journal's own rules.

use std::collections::HashMap;

use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::tables::Tables;
use relay_wire::id::{Position, Seq, StreamId};
use relay_wire::message::Message;
use relay_wire::record::Record;
use relay_wire::topic;

/// A publisher's record: publisher, incarnation, publisher sequence.
pub(super) type Key = (u64, u64, u64);

/// A released DATA record.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) bytes: Vec<u8>,
    pub(super) key: Key,
    pub(super) topic: String,
    pub(super) receive_time_ns: u64,
    pub(super) checksum: u32,
}

#[derive(Debug)]
pub(super) struct Truth {
    pub(super) tables: Tables,
    pub(super) records: Vec<Released>,
    /// Checksums of everything sent under a key: a publisher may send two different records under one.
    sent: HashMap<Key, Vec<u32>>,
    /// Highest publisher sequence released of each publisher and incarnation.
    released_through: HashMap<(u64, u64), u64>,
}

impl Truth {
    pub(super) fn new(stream: StreamId) -> Self {
        Self {
            tables: Tables::empty(stream),
            records: Vec::new(),
            sent: HashMap::new(),
            released_through: HashMap::new(),
        }
    }

    /// A client put these bytes, whole or not, into its connection.
    pub(super) fn on_sent(&mut self, record: &[u8]) {
        if let Ok(record) = Record::parse(record) {
            let key = key_of(&record);
            self.sent.entry(key).or_default().push(record.checksum());
        }
    }

    /// The log is released up to `end`: reads it from the disk, and folds it.
    pub(super) fn on_released(&mut self, disk: &[u8], end: Position) {
        while self.tables.position < end {
            let bytes = &disk[self.tables.position.get() as usize..];
            let header = block::decode_header(bytes).expect("what is released is on the disk");
            let body = &bytes[HEADER_LENGTH..header.body_end()];
            block::verify_body(&header, body).expect("what is released is on the disk");
            assert!(
                header.released <= self.tables.position,
                "no block knows the future"
            );
            self.tables
                .apply_block(&header, body)
                .expect("the log keeps the journal's rules");
            for (_, record) in block::records(body).map(|record| record.expect("it is folded")) {
                record.verify().expect("a record keeps its checksum");
                self.on_record(&record);
            }
            assert_eq!(self.tables.next_seq, self.next_seq());
        }
        assert_eq!(self.tables.position, end, "a release ends between blocks");
    }

    fn on_record(&mut self, record: &Record<'_>) {
        if !record.is_data() {
            return;
        }
        let key = key_of(record);
        assert_eq!(record.seq(), self.next_seq(), "seqs have no gap");
        let is_known = self
            .sent
            .get(&key)
            .is_some_and(|sums| sums.contains(&record.checksum()));
        assert!(is_known, "what is released was sent: {key:?}");
        let through = self.released_through.entry((key.0, key.1)).or_default();
        assert_eq!(
            key.2,
            *through + 1,
            "a publisher's records are released once each, in order"
        );
        *through = key.2;
        let topic = self
            .tables
            .topics
            .name(record.topic())
            .expect("it is folded")
            .to_owned();
        self.records.push(Released {
            bytes: record.bytes().to_vec(),
            key,
            topic,
            receive_time_ns: record.receive_time_ns(),
            checksum: record.checksum(),
        });
    }

    pub(super) fn next_seq(&self) -> Seq {
        Seq(self.records.len() as u64 + 1)
    }

    pub(super) fn get(&self, seq: Seq) -> &Released {
        assert!(seq < self.next_seq(), "seq {seq} is not released");
        &self.records[seq.get() as usize - 1]
    }

    pub(super) fn checksum_before(&self, next: Seq) -> u32 {
        if next.get() <= 1 {
            0
        } else {
            self.get(Seq(next.get() - 1)).checksum
        }
    }

    pub(super) fn released_through(&self, publisher: u64, incarnation: u64) -> u64 {
        self.released_through
            .get(&(publisher, incarnation))
            .copied()
            .unwrap_or(0)
    }
}

fn key_of(record: &Record<'_>) -> Key {
    (
        record.publisher().get(),
        record.incarnation().get(),
        record.publisher_seq().get(),
    )
}

/// What one subscriber is to get, followed as it gets it.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) patterns: Vec<String>,
    /// Records received before this are not wanted.
    pub(super) from_time_ns: u64,
    /// Every record before this seq was delivered or is not wanted.
    pub(super) next: Seq,
    /// Topics it was told of.
    pub(super) told: HashMap<u32, String>,
}

impl Expected {
    pub(super) fn is_everything(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern == ">")
    }

    pub(super) fn selects(&self, name: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| topic::matches(pattern, name))
    }

    fn wants(&self, record: &Released) -> bool {
        record.receive_time_ns >= self.from_time_ns && self.selects(&record.topic)
    }

    /// Nothing that is wanted lies before `next`.
    pub(super) fn pass(&mut self, next: Seq, truth: &Truth) {
        while self.next < next {
            let record = truth.get(self.next);
            assert!(
                !self.wants(record),
                "the record with seq {} was left out",
                self.next
            );
            self.next = self.next.next();
        }
    }

    /// How many of the released records are still to come.
    pub(super) fn missing(&self, truth: &Truth) -> usize {
        let rest = truth.records.iter().skip(self.next.get() as usize - 1);
        rest.filter(|record| self.wants(record)).count()
    }

    pub(super) fn on_record(&mut self, bytes: &[u8], truth: &Truth) {
        let record = Record::parse(bytes).expect("what is delivered is a record");
        record.verify().expect("what is delivered is intact");
        if record.is_data() {
            assert!(
                record.seq() >= self.next,
                "a record comes once and in order"
            );
            self.pass(record.seq(), truth);
            let released = truth.get(record.seq());
            assert!(self.wants(released), "a record nobody asked for");
            assert_eq!(released.bytes, bytes, "delivered is what was released");
            let told = self.told.get(&record.topic().get());
            assert!(
                told.is_some_and(|name| *name == released.topic),
                "topics are told before"
            );
            self.next = record.seq().next();
            return;
        }
        let name = core::str::from_utf8(record.payload());
        match record.kind() {
            Some(relay_wire::code::RecordKind::Topic) => {
                self.on_topic(record.topic().get(), name.expect("a name is text"), truth);
            }
            _ => assert!(
                self.is_everything(),
                "a filtered flow has no other control records"
            ),
        }
    }

    pub(super) fn on_topic(&mut self, topic: u32, name: &str, truth: &Truth) {
        assert!(self.selects(name), "a topic nobody asked for");
        let released = truth.tables.topics.name(relay_wire::id::TopicId(topic));
        assert_eq!(released, Some(name), "a topic is told once it is released");
        self.told.insert(topic, name.to_owned());
    }

    pub(super) fn on_message(&mut self, message: &Message<'_>, truth: &Truth) {
        match message {
            Message::Topic(told) => self.on_topic(told.topic.get(), told.name, truth),
            Message::Heartbeat(beat) => {
                assert!(
                    beat.next_seq <= truth.next_seq(),
                    "a heartbeat names what is released"
                );
                assert_eq!(beat.checksum, truth.checksum_before(beat.next_seq));
                self.pass(beat.next_seq, truth);
            }
            other => panic!("not for a subscriber: {other:?}"),
        }
    }
}
