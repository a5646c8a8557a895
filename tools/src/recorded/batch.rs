//! Messages on their way from the thread that reads them to the one that uses them.

use relay_client::Delivery;
use relay_client::wire::id::Seq;
use relay_client::wire::record::Record;

/// A batch is handed on with so many bytes: each costs the user of it being woken, which takes longer than the copying of 64 KiB.
const BYTES: usize = 1 << 20;
/// Or with so many messages looked at, wanted or not.
const LOOKED_AT_MAX: u32 = 65_536;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    /// Of its topic's name.
    topic: (u32, u32),
}

/// Some messages, copied one behind the other, with the names of their topics between them: a name stands for all messages
/// up to the next one.
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
        let same = self.entries.last().map(|last| last.topic);
        let same = same
            .filter(|&(start, end)| self.bytes[start as usize..end as usize] == *topic.as_bytes());
        let topic = same.unwrap_or_else(|| self.append(topic.as_bytes()));
        let (start, end) = self.append(record.bytes());
        self.entries.push(Entry { start, end, topic });
    }

    /// Copies something in; from where to where.
    fn append(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len() as u32)
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
            let part = |start: u32, end: u32| &self.bytes[start as usize..end as usize];
            let record = Record::parse(part(entry.start, entry.end)).expect("it was one before");
            let topic = std::str::from_utf8(part(entry.topic.0, entry.topic.1));
            Delivery {
                record,
                topic: topic.expect("it was text before"),
            }
        })
    }
}
