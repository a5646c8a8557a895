//! Messages on their way from the thread that reads them to the one that uses them.

use relay_client::Delivery;
use relay_client::wire::id::Seq;
use relay_client::wire::record::Record;

/// A batch is handed on with so many bytes.
const BYTES: usize = 256 << 10;
/// Or with so many messages looked at, wanted or not.
const LOOKED_AT_MAX: u32 = 65_536;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    topic: u32,
    end: u32,
}

/// Some messages, copied one behind the other: each record with the name of its topic.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    looked_at: u32,
    through: Seq,
}

impl Batch {
    /// Adds a message.
    pub(super) fn push(&mut self, record: &Record<'_>, topic: &str) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(record.bytes());
        let topic_start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(topic.as_bytes());
        self.entries.push(Entry {
            start,
            topic: topic_start,
            end: self.bytes.len() as u32,
        });
    }

    /// Notes that the message with this seq was looked at, wanted or not.
    pub(super) fn note(&mut self, seq: Seq) {
        self.looked_at += 1;
        self.through = seq;
    }

    /// Whether it is worth handing on.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BYTES || self.looked_at >= LOOKED_AT_MAX
    }

    /// Whether nothing was looked at.
    pub(super) fn is_fresh(&self) -> bool {
        self.looked_at == 0
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.looked_at = 0;
    }

    /// The seq of the last message looked at.
    pub(crate) const fn through(&self) -> Seq {
        self.through
    }

    /// The messages, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Delivery<'_>> {
        self.entries.iter().map(|entry| {
            let [start, topic, end] = [entry.start, entry.topic, entry.end].map(|at| at as usize);
            let record = Record::parse(&self.bytes[start..topic]).expect("it was one before");
            let topic = std::str::from_utf8(&self.bytes[topic..end]).expect("it was text before");
            Delivery { record, topic }
        })
    }
}
