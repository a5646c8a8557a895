//! The one history: what anybody was ever shown, and the promise that it stays so.
//!
//! The ledger stands beside the run and believes nothing but disks. When a node says that it releases up to a position, the
//! ledger reads the blocks up to there from that node's *pristine, durable* bytes, folds them by the journal's own
//! rules, and compares each message with what its publisher made. From then on the history up to there is fixed: whoever
//! comes later, after whatever crash, on whichever node, must show the same checksums at the same positions.
//!
//! What is checked, and where:
//! * a release is of durable bytes, in a log that keeps every rule ([`Ledger::on_released`]);
//! * a node that starts holds all that was ever released, unaltered ([`Ledger::on_recovered`]);
//! * no position is released twice with different bytes, and no epoch is used by two nodes (both);
//! * what a client hears is in the history (the getters; the clients compare).

use std::collections::BTreeMap;

use relay_core::command::ReleasePoint;
use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::tables::Tables;
use relay_wire::id::{Position, Seq, StreamId};
use relay_wire::record::Record;

use crate::content::{Contents, Key, topic_name};
use crate::disk::Disk;

/// A released DATA record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Released {
    pub(crate) key: Key,
    pub(crate) topic: u32,
    pub(crate) checksum: u32,
    pub(crate) receive_time_ns: u64,
}

/// The end of a released block.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    end: Position,
    checksum: u32,
}

/// How a recovered log compares with the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// All of it is there.
    Whole,
    /// Its end is lost, beyond the promise; the history ends earlier now.
    Shorter,
    /// It is not even a part of the history, which only a disk that shows old bytes can bring about.
    Other,
}

/// One process of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reign {
    pub(crate) node: usize,
    pub(crate) process: u32,
}

/// A release of a group's primary, and what it rests on.
pub(crate) struct Claim<'a> {
    pub(crate) reign: Reign,
    pub(crate) epoch: u64,
    pub(crate) point: ReleasePoint,
    /// Members of the epoch's record.
    pub(crate) copies: usize,
    /// How many its record asks for.
    pub(crate) min_copies: usize,
    /// The primary's own disk.
    pub(crate) own: &'a Disk,
    /// The disk of each member that must hold it: by the epoch's record, the newest, or one that may still come about.
    pub(crate) disks: Vec<(usize, &'a Disk)>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Ledger {
    contents: Contents,
    tables: Tables,
    records: Vec<Released>,
    boundaries: Vec<Boundary>,
    released_through: BTreeMap<(u64, u64), u64>,
    /// Which process of which node released in each epoch.
    reigns: BTreeMap<u64, Reign>,
    scratch: Vec<u8>,
    record: Vec<u8>,
    payload: Vec<u8>,
}

impl Ledger {
    /// The history of a stream with nothing in it.
    pub(crate) fn new(stream: StreamId, contents: Contents) -> Self {
        Self {
            contents,
            tables: Tables::empty(stream),
            records: Vec::new(),
            boundaries: Vec::new(),
            released_through: BTreeMap::new(),
            reigns: BTreeMap::new(),
            scratch: Vec::new(),
            record: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A process releases up to `point`, in `epoch`.
    pub(crate) fn on_released(
        &mut self,
        reign: Reign,
        epoch: u64,
        point: &ReleasePoint,
        disk: &Disk,
    ) {
        let first = *self.reigns.entry(epoch).or_insert(reign);
        assert_eq!(first, reign, "two processes release in epoch {epoch}");
        self.extend(reign.node, point.position, disk);
        if self.tables.position == point.position {
            assert_eq!(
                point.next_seq,
                self.next_seq(),
                "a release names the next seq"
            );
            let last = self.checksum_before(point.next_seq);
            assert_eq!(point.checksum, last, "a release names the last checksum");
        }
    }

    /// A group's primary releases: on its own disk, and on that of every member, all of it must be for sure.
    pub(crate) fn on_claim(&mut self, claim: &Claim<'_>) {
        let (reign, end) = (claim.reign, claim.point.position);
        assert!(
            claim.copies >= claim.min_copies,
            "node {} releases up to {end} with {} copies; epoch {} asks for {}",
            reign.node,
            claim.copies,
            claim.epoch,
            claim.min_copies
        );
        self.on_released(reign, claim.epoch, &claim.point, claim.own);
        let Ok(at) = self.boundaries.binary_search_by_key(&end, |b| b.end) else {
            return;
        };
        for (node, disk) in &claim.disks {
            let durable = disk.durable_end();
            assert!(
                durable >= end.get(),
                "node {} releases up to {end}; the disk of member {node} holds only what lies before \
                 {durable} for sure",
                reign.node
            );
            self.compare_at(*node, disk, at);
        }
        self.compare_at(reign.node, claim.own, at);
    }

    /// A node has recovered its log and, standing alone, counts all of it as released. `may_lose`: in a run beyond the
    /// promise, how much of what was released may be missing from the end without the node knowing.
    pub(crate) fn on_recovered(
        &mut self,
        node: usize,
        tables: &Tables,
        disk: &Disk,
        may_lose: Option<u64>,
    ) -> Match {
        if let Some(bytes) = may_lose
            && tables.position <= self.tables.position
            && tables.previous_checksum != self.tables.previous_checksum
        {
            let lost = self.tables.position.since(tables.position);
            assert!(
                lost <= bytes,
                "node {node} lost {lost} bytes that were released and did not notice; recovery can \
                 only miss the last {bytes}"
            );
            return self.rewind(tables);
        }
        self.check_holds(node, tables, disk);
        self.extend(node, tables.position, disk);
        assert_eq!(
            self.tables, *tables,
            "node {node} recovered other tables than the log gives"
        );
        Match::Whole
    }

    /// The end of the history is lost for good: from now on clients know more than the relay, and have to say so.
    fn rewind(&mut self, tables: &Tables) -> Match {
        self.boundaries
            .retain(|boundary| boundary.end <= tables.position);
        let last = self.boundaries.last().map_or(0, |last| last.checksum);
        if last != tables.previous_checksum {
            return Match::Other;
        }
        for lost in self
            .records
            .drain(tables.next_seq.get() as usize - 1..)
            .rev()
        {
            let key = (lost.key.publisher, lost.key.incarnation);
            self.released_through
                .insert(key, lost.key.publisher_seq - 1);
        }
        self.reigns.clear();
        self.tables = tables.clone();
        Match::Shorter
    }

    /// A node that starts, or is to lead, holds all that was ever released.
    pub(crate) fn check_holds(&self, node: usize, tables: &Tables, disk: &Disk) {
        let end = self.tables.position;
        assert!(
            tables.position >= end,
            "node {node} comes back with a log that ends at {}; released was up to {end}",
            tables.position
        );
        self.compare(node, disk);
    }

    /// The node's pristine bytes are those of the history: its last released block has the checksum that stands for all.
    pub(crate) fn compare(&self, node: usize, disk: &Disk) {
        if let Some(last) = self.boundaries.len().checked_sub(1) {
            self.compare_at(node, disk, last);
        }
    }

    /// The same for the released block number `at`.
    fn compare_at(&self, node: usize, disk: &Disk, at: usize) {
        let last = &self.boundaries[at];
        let before = at.checked_sub(1);
        let start = before.map_or(Position(0), |index| self.boundaries[index].end);
        let mut head = [0; HEADER_LENGTH];
        disk.read_pristine(start.get(), &mut head);
        let header = block::decode_header(&head).unwrap_or_else(|error| {
            panic!("node {node} holds no block at {start}, where one was released: {error}")
        });
        assert_eq!(
            (header.checksum, header.next_position()),
            (last.checksum, last.end),
            "node {node} holds another history at {start} than was released"
        );
    }

    /// The history goes on up to `end`, as the disk has it.
    fn extend(&mut self, node: usize, end: Position, disk: &Disk) {
        let start = self.tables.position;
        if end <= start {
            let known = self
                .boundaries
                .binary_search_by_key(&end, |boundary| boundary.end);
            assert!(
                known.is_ok() || end == Position(0),
                "a release ends between blocks"
            );
            return;
        }
        let durable = disk.durable_end();
        assert!(
            durable >= end.get(),
            "node {node} counts on bytes up to {end}; its disk holds only those before {durable} for sure"
        );
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(end.since(start) as usize, 0);
        disk.read_pristine(start.get(), &mut scratch);
        while self.tables.position < end {
            let bytes = &scratch[self.tables.position.since(start) as usize..];
            self.take_block(node, bytes);
        }
        assert_eq!(self.tables.position, end, "a release ends between blocks");
        self.scratch = scratch;
    }

    fn take_block(&mut self, node: usize, bytes: &[u8]) {
        let at = self.tables.position;
        let header = block::decode_header(bytes)
            .unwrap_or_else(|error| panic!("node {node} released {at}: {error}"));
        assert!(
            header.body_end() <= bytes.len(),
            "a release ends between blocks"
        );
        let body = &bytes[HEADER_LENGTH..header.body_end()];
        block::verify_body(&header, body)
            .unwrap_or_else(|error| panic!("node {node} released {at}: {error}"));
        assert!(header.released <= at, "no block knows the future");
        self.tables
            .apply_block(&header, body)
            .unwrap_or_else(|error| panic!("node {node} released {at}: {error}"));
        for (_, record) in block::records(body).map(|record| record.expect("it was folded")) {
            self.take_record(&record);
        }
        self.boundaries.push(Boundary {
            end: header.next_position(),
            checksum: header.checksum,
        });
    }

    fn take_record(&mut self, record: &Record<'_>) {
        if !record.is_data() {
            return;
        }
        let key = Key {
            publisher: record.publisher().get(),
            incarnation: record.incarnation().get(),
            publisher_seq: record.publisher_seq().get(),
        };
        let topic = self.contents.topic(key);
        let name = self.tables.topics.name(record.topic());
        assert_eq!(
            name,
            Some(topic_name(topic).as_str()),
            "{key:?} was sent to another topic"
        );
        self.record.clear();
        self.contents
            .encode(key, record.topic(), &mut self.payload, &mut self.record);
        let sent = Record::parse(&self.record).expect("it was encoded just now");
        assert_eq!(
            (sent.checksum(), sent.payload()),
            (record.checksum(), record.payload()),
            "{key:?} was altered"
        );
        let through = self
            .released_through
            .entry((key.publisher, key.incarnation))
            .or_default();
        assert_eq!(
            key.publisher_seq,
            *through + 1,
            "{key:?}: a publisher's messages are released once each, in order"
        );
        *through = key.publisher_seq;
        self.records.push(Released {
            key,
            topic: record.topic().get(),
            checksum: record.checksum(),
            receive_time_ns: record.receive_time_ns(),
        });
    }

    /// The seq the next released message will have.
    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.records.len() as u64 + 1)
    }

    /// How far is released.
    pub(crate) const fn position(&self) -> Position {
        self.tables.position
    }

    /// The fold of all that is released.
    pub(crate) const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The released message with this seq.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Released> {
        self.records.get((seq.get() as usize).checked_sub(1)?)
    }

    /// Checksum of the message before `next`; 0 for none.
    pub(crate) fn checksum_before(&self, next: Seq) -> u32 {
        let before = next.get().checked_sub(1).map(Seq);
        before
            .and_then(|seq| self.get(seq))
            .map_or(0, |released| released.checksum)
    }

    /// The highest publisher sequence released; 0 for none.
    pub(crate) fn released_through(&self, publisher: u64, incarnation: u64) -> u64 {
        let key = (publisher, incarnation);
        self.released_through.get(&key).copied().unwrap_or(0)
    }

    /// A client was told `id` for the topic `name`: such a definition is released.
    pub(crate) fn check_topic(&self, id: u32, name: &str) {
        let known = self.tables.topics.name(relay_wire::id::TopicId(id));
        assert_eq!(
            known,
            Some(name),
            "topic {id} was told and is not released so"
        );
    }

    /// A client was handed `record`: it is the one that was released, byte for byte.
    pub(crate) fn check_delivered(&self, record: &Record<'_>) -> Released {
        record
            .verify()
            .unwrap_or_else(|error| panic!("a damaged record was delivered: {error}"));
        let seq = record.seq();
        let released = self
            .get(seq)
            .unwrap_or_else(|| panic!("seq {seq} was delivered and never released"));
        let found = (
            record.publisher().get(),
            record.incarnation().get(),
            record.publisher_seq().get(),
            record.topic().get(),
            record.checksum(),
            record.receive_time_ns(),
        );
        let key = released.key;
        let expected = (
            key.publisher,
            key.incarnation,
            key.publisher_seq,
            released.topic,
            released.checksum,
            released.receive_time_ns,
        );
        assert_eq!(
            found, expected,
            "seq {seq} was delivered with other content than released"
        );
        *released
    }
}
