//! What the clients of a stream were told, and whether the journals agree with it.
//!
//! Publishers note every acknowledgement, subscribers every delivery. Afterwards the rules are checked:
//! * every subscriber saw seq 1, 2, 3 ... without a gap, and all of them the same record at each seq;
//! * the times of receipt never go backwards;
//! * of every publisher the messages came in its own order, each once, each with the payload it was sent with;
//! * what was acknowledged is in every complete journal, once, at the seq that the acknowledgement named;
//! * what was delivered is in every complete journal at the seq where it was delivered;
//! * a journal that is not complete (of a node that is gone, or was not taken in again) claims no other release.
//!
//! The payload of a message is made from its publisher and publisher sequence alone, so that whoever sees it can tell.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};

use relay_client::wire::record::Record;
use relay_journal::block::records;
use relay_journal::reader::JournalDir;

use super::Random;

/// A publisher's acknowledgement: everything through `publisher_seq` is released.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub publisher: u64,
    pub incarnation: u64,
    pub publisher_seq: u64,
    /// Of that message; 0 where the relay did not know it any more.
    pub seq: u64,
}

/// A record as somebody saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub seq: u64,
    pub publisher: u64,
    pub incarnation: u64,
    pub publisher_seq: u64,
    /// When the relay received it, ns UTC.
    pub received_ns: u64,
    pub checksum: u32,
    pub payload_hash: u64,
}

impl Seen {
    /// A message as it was sent, at its seq.
    pub fn sent(seq: u64, publisher: u64, publisher_seq: u64) -> Self {
        Self {
            seq,
            publisher,
            incarnation: 1,
            publisher_seq,
            received_ns: seq,
            checksum: 0,
            payload_hash: hash(&payload_of(publisher, publisher_seq)),
        }
    }

    pub fn of(record: &Record<'_>) -> Self {
        Self {
            seq: record.seq().get(),
            publisher: record.publisher().get(),
            incarnation: record.incarnation().get(),
            publisher_seq: record.publisher_seq().get(),
            received_ns: record.receive_time_ns(),
            checksum: record.checksum(),
            payload_hash: hash(record.payload()),
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The payload of a publisher's message: unlike every other, of a length that varies.
pub fn payload_of(publisher: u64, publisher_seq: u64) -> Vec<u8> {
    let mut random = Random::new(publisher << 48 | publisher_seq);
    let mut bytes = [publisher.to_le_bytes(), publisher_seq.to_le_bytes()].concat();
    for _ in 0..random.below(48) {
        bytes.extend(random.below(u64::MAX).to_le_bytes());
    }
    bytes
}

#[derive(Default)]
struct Noted {
    acknowledged: Vec<Acknowledged>,
    /// By subscriber.
    delivered: Vec<Vec<Seen>>,
}

/// What was noted; its copies are one and the same.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Noted>>);

/// How much was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    pub acknowledgements: usize,
    pub deliveries: usize,
    pub records: usize,
}

impl History {
    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap()
    }

    pub fn note_acknowledged(&self, acknowledged: Acknowledged) {
        self.noted().acknowledged.push(acknowledged);
    }

    /// A place for one more subscriber.
    pub fn subscriber(&self) -> usize {
        let delivered = &mut self.noted().delivered;
        delivered.push(Vec::new());
        delivered.len() - 1
    }

    pub fn note_delivered(&self, subscriber: usize, seen: Seen) {
        self.noted().delivered[subscriber].push(seen);
    }

    /// How much each publisher was told to be released, at this moment.
    pub fn acknowledged(&self) -> BTreeMap<u64, Acknowledged> {
        let noted = self.noted();
        let newest = noted.acknowledged.iter().map(|a| (a.publisher, *a));
        newest.collect()
    }

    /// The newest record delivered to anybody, at this moment.
    pub fn newest_delivered(&self) -> Option<Seen> {
        let noted = self.noted();
        let last = noted.delivered.iter().filter_map(|seen| seen.last());
        last.max_by_key(|seen| seen.seq).copied()
    }

    /// Checks everything; the first rule that is broken.
    pub fn check(&self, complete: &[Journal], partial: &[Journal]) -> Result<Checked, String> {
        let noted = self.noted();
        for journal in complete.iter().chain(partial) {
            check_order(&journal.name, &journal.records)?;
        }
        let truth = complete.first().ok_or("there is a complete journal")?;
        for journal in &complete[1..] {
            journal.agrees_with(truth, journal.records.len().max(truth.records.len()))?;
        }
        for journal in partial {
            journal.agrees_with(truth, journal.released)?;
        }
        for (number, seen) in noted.delivered.iter().enumerate() {
            let who = format!("subscriber {number}");
            check_order(&who, seen)?;
            check_unaltered(&who, seen)?;
            for seen in seen {
                truth.holds(seen).map_err(|what| format!("{who}: {what}"))?;
            }
        }
        check_acknowledged(&noted.acknowledged, truth)?;
        Ok(Checked {
            acknowledgements: noted.acknowledged.len(),
            deliveries: noted.delivered.iter().map(Vec::len).sum(),
            records: truth.records.len(),
        })
    }
}

/// The messages of a journal, by seq, and how many of them it shows to be released.
pub struct Journal {
    pub name: String,
    records: Vec<Seen>,
    released: usize,
}

impl Journal {
    /// A journal with these messages, the first `released` of which it shows to be released.
    pub fn of(name: &str, records: Vec<Seen>, released: usize) -> Self {
        let name = name.to_owned();
        Self {
            name,
            records,
            released,
        }
    }

    /// Reads a journal as far as it is intact. It may be in use: then what is written meanwhile is there or not.
    pub fn read(name: &str, directory: &Path) -> Self {
        let journal = JournalDir::open(directory).unwrap();
        let mut blocks = journal.blocks(journal.start());
        let (mut messages, mut shown) = (Vec::new(), 0);
        let mut ends = Vec::new();
        while let Some(Ok(block)) = blocks.next_block() {
            shown = shown.max(block.header.released.get());
            for record in records(block.body) {
                let (_, record) = record.unwrap();
                if record.is_data() {
                    record.verify().unwrap();
                    messages.push(Seen::of(&record));
                }
            }
            ends.push((block.header.next_position().get(), messages.len()));
        }
        let released = ends.iter().rev().find(|(end, _)| *end <= shown);
        Self::of(name, messages, released.map_or(0, |(_, count)| *count))
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether the message is in it at its seq.
    pub fn holds(&self, seen: &Seen) -> Result<(), String> {
        match self.records.get(seen.seq as usize - 1) {
            Some(found) if found == seen => Ok(()),
            Some(found) => Err(format!("{} has {found:?} instead of {seen:?}", self.name)),
            None => Err(format!("{} ends before {seen:?}", self.name)),
        }
    }

    /// Whether a publisher's message is in it.
    pub fn holds_message(&self, publisher: u64, publisher_seq: u64) -> bool {
        let is_it = |s: &&Seen| (s.publisher, s.publisher_seq) == (publisher, publisher_seq);
        self.records.iter().rev().any(|seen| is_it(&seen))
    }

    fn agrees_with(&self, truth: &Self, count: usize) -> Result<(), String> {
        let (ours, theirs) = (&self.records, &truth.records);
        for at in 0..count {
            if ours.get(at) != theirs.get(at) {
                return Err(format!(
                    "at seq {} {} has {:?} and {} has {:?}",
                    at + 1,
                    self.name,
                    ours.get(at),
                    truth.name,
                    theirs.get(at)
                ));
            }
        }
        Ok(())
    }
}

/// Seqs without a gap from 1, times in order, and of every publisher its own order, each message once.
fn check_order(who: &str, seen: &[Seen]) -> Result<(), String> {
    let mut next = BTreeMap::new();
    let mut newest_ns = 0;
    for (seq, seen) in (1..).zip(seen) {
        if seen.seq != seq {
            return Err(format!("{who}: {seen:?} in the place of seq {seq}"));
        }
        if seen.received_ns < newest_ns {
            return Err(format!("{who}: {seen:?} was received before {newest_ns}"));
        }
        newest_ns = seen.received_ns;
        let publisher = (seen.publisher, seen.incarnation);
        let expected = next.entry(publisher).or_insert(1_u64);
        if seen.publisher_seq != *expected {
            let what = format!("{seen:?} instead of its publisher's message {expected}");
            return Err(format!("{who}: {what}: lost, doubled or out of order"));
        }
        *expected += 1;
    }
    Ok(())
}

fn check_unaltered(who: &str, seen: &[Seen]) -> Result<(), String> {
    let altered = seen
        .iter()
        .find(|seen| seen.payload_hash != hash(&payload_of(seen.publisher, seen.publisher_seq)));
    match altered {
        Some(seen) => Err(format!("{who}: {seen:?} is altered")),
        None => Ok(()),
    }
}

fn check_acknowledged(acknowledged: &[Acknowledged], truth: &Journal) -> Result<(), String> {
    let mut held: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for seen in &truth.records {
        let seqs = held.entry((seen.publisher, seen.incarnation));
        seqs.or_default().push(seen.seq);
    }
    let mut through = BTreeMap::new();
    for told in acknowledged {
        let publisher = (told.publisher, told.incarnation);
        let before = through.insert(publisher, told.publisher_seq).unwrap_or(0);
        if told.publisher_seq <= before {
            return Err(format!("{told:?} after {before}"));
        }
        // In their publisher's order and without a gap: the one acknowledged and all before it are there, or not.
        let seqs = held.get(&publisher).map_or(&[][..], Vec::as_slice);
        match seqs.get(told.publisher_seq as usize - 1) {
            None => return Err(format!("{told:?}, and {} does not hold it", truth.name)),
            Some(seq) if told.seq != 0 && told.seq != *seq => {
                return Err(format!("{told:?}, and in {} it has seq {seq}", truth.name));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
