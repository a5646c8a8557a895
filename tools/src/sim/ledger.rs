//! The one history: what anybody was ever shown, and the promise that it stays so.
//!
//! The ledger stands beside the run and believes nothing but disks (and where copies in memory count, memory). When a node
//! says that it releases up to a position, the ledger reads the blocks up to there from that node's *pristine, durable*
//! bytes, folds them by the journal's own rules, and compares each message with what its publisher made. From then on the
//! history up to there is fixed: whoever comes later, after whatever crash, on whichever node, must show the same
//! checksums at the same positions. Only where a loss was accepted, or disks forgot beyond the promise, it may end earlier
//! from then on; the seqs of what was lost are still never used again where somebody knew of the loss.
//!
//! What is checked, and where:
//! * a release is of durable bytes, in a log that keeps every rule ([`Ledger::on_released`]);
//! * a node that starts holds all that was ever released, unaltered ([`Ledger::on_recovered`]);
//! * no position is released twice with different bytes, and no epoch is used by two nodes (both);
//! * a loss that an operator accepted is written down in the log, and no other ([`crate::losses`]);
//! * what a client hears is in the history (the getters; the clients compare).

use std::collections::BTreeMap;

use relay_core::command::ReleasePoint;
use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::tables::Tables;
use relay_wire::code::RecordKind;
use relay_wire::id::{NodeId, Position, Seq, StreamId};
use relay_wire::record::{Record, epoch_membership};

use crate::content::{Contents, Key, topic_name};
use crate::disk::Disk;
use crate::holding::{Held, Holding};
use crate::losses::Losses;

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
    /// The primary's own copy.
    pub(crate) own: Holding<'a>,
    /// That of each member that must hold it: by the epoch's record, the newest, or one that may still come about.
    pub(crate) others: Vec<(usize, Held<'a>)>,
}

/// Messages whose seqs follow one another.
#[derive(Debug, Clone, Copy)]
struct Run {
    first_seq: u64,
    /// The place of the first of them.
    at: usize,
}

/// What may be missing from the log of a node that is to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Nothing.
    Nothing,
    /// An operator accepted a loss.
    Accepted,
    /// Whatever disks forgot, beyond the promise.
    Forgotten,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Ledger {
    contents: Contents,
    tables: Tables,
    records: Vec<Released>,
    /// Their seqs: one run, and another with each accepted loss.
    runs: Vec<Run>,
    /// The highest seq that somebody may have seen.
    used_through: u64,
    /// Where the log ended of whoever last led with something lost: what lies before was there, and may have seqs that others used
    /// for what is lost. From here on none is used again.
    tail_end: Position,
    /// Something released was lost, and somebody may know of it.
    has_lost: bool,
    boundaries: Vec<Boundary>,
    /// Every byte of it.
    log: Vec<u8>,
    released_through: BTreeMap<(u64, u64), u64>,
    /// Which process of which node released in each epoch.
    reigns: BTreeMap<u64, Reign>,
    losses: Losses,
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
            runs: Vec::new(),
            used_through: 0,
            tail_end: Position(0),
            has_lost: false,
            boundaries: Vec::new(),
            log: Vec::new(),
            released_through: BTreeMap::new(),
            reigns: BTreeMap::new(),
            losses: Losses::default(),
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
        own: &Holding<'_>,
    ) {
        let first = *self.reigns.entry(epoch).or_insert(reign);
        assert_eq!(first, reign, "two processes release in epoch {epoch}");
        self.extend(reign.node, point.position, own);
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

    /// A group's primary releases: its own copy, and that of every member, must hold all of it for sure.
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
        self.on_released(reign, claim.epoch, &claim.point, &claim.own);
        let Ok(at) = self.boundaries.binary_search_by_key(&end, |b| b.end) else {
            return;
        };
        for (node, held) in &claim.others {
            let held_end = match held {
                Held::Now(holding) => holding.end(),
                Held::Once(end) => end.get(),
            };
            assert!(
                held_end >= end.get(),
                "node {} releases up to {end}; the copy of member {node} holds only what lies before \
                 {held_end} for sure",
                reign.node
            );
            if let Held::Now(holding) = held {
                self.compare_at(*node, holding, at);
            }
        }
        self.compare_at(reign.node, &claim.own, at);
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
        self.extend(node, tables.position, &Holding::of_disk(disk));
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
        self.forget_records(tables);
        self.used_through = self.last_seq();
        self.reigns.clear();
        Match::Shorter
    }

    /// The history ends where `tables` do.
    fn forget_records(&mut self, tables: &Tables) {
        let left = self.count_before(tables.next_seq.get());
        for lost in self.records.drain(left..).rev() {
            let key = (lost.key.publisher, lost.key.incarnation);
            self.released_through
                .insert(key, lost.key.publisher_seq - 1);
        }
        self.has_lost = true;
        self.runs.retain(|run| run.at < left);
        self.log.truncate(tables.position.get() as usize);
        self.tables = tables.clone();
    }

    /// A node begins to lead with a log that folds to `tables`, all of it on its disk. True where the history ends earlier from
    /// now on.
    pub(crate) fn on_lead(
        &mut self,
        node: usize,
        tables: &Tables,
        disk: &Disk,
        lack: Lack,
    ) -> bool {
        let leader = node_id(node);
        self.losses.on_lead(leader);
        let held = Holding::of_disk(disk);
        let is_shared = |at: &usize| self.is_passed(tables, &held, *at);
        let last = self.boundaries.len().checked_sub(1);
        let is_whole =
            tables.position >= self.tables.position && last.is_none_or(|last| is_shared(&last));
        if lack == Lack::Nothing || is_whole {
            if lack == Lack::Nothing {
                self.check_holds(node, tables, disk);
            } else {
                // Its log may go on with what another's loss had taken out of the history.
                self.tail_end = self.tail_end.max(tables.position);
            }
            return false;
        }
        let shared = (0..self.boundaries.len()).rev().find(is_shared);
        self.boundaries.truncate(shared.map_or(0, |at| at + 1));
        let end = self.boundaries.last().map_or(Position(0), |last| last.end);
        let tail_end = tables.position;
        if lack == Lack::Accepted {
            let newest = tables.epochs.last().map(|entry| entry.epoch);
            self.losses.on_lost(leader, newest.unwrap_or_default());
        }
        let tables = self.fold(end);
        self.forget_records(&tables);
        self.tail_end = tail_end;
        if lack == Lack::Forgotten {
            self.used_through = self.last_seq();
        }
        true
    }

    /// An operator told a node to lead, whatever is lost by it.
    pub(crate) fn on_accepted(&mut self, node: usize) {
        self.losses.on_accepted(node_id(node));
    }

    /// The fold of what was released, up to `end`.
    fn fold(&self, end: Position) -> Tables {
        let mut tables = Tables::empty(self.tables.stream);
        while tables.position < end {
            let rest = &self.log[tables.position.get() as usize..];
            let header = block::decode_header(rest).expect("it was folded once");
            let body = &rest[HEADER_LENGTH..header.body_end()];
            let folded = tables.apply_block(&header, body);
            folded.expect("it was folded once");
        }
        tables
    }

    /// Whether something released was lost, beyond the promise or as an operator accepted: whoever knows more says so.
    pub(crate) const fn has_lost(&self) -> bool {
        self.has_lost
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
            self.compare_at(node, &Holding::of_disk(disk), last);
        }
    }

    /// Where the released block number `at` begins.
    fn start_of(&self, at: usize) -> Position {
        let before = at.checked_sub(1);
        before.map_or(Position(0), |index| self.boundaries[index].end)
    }

    /// Whether the log of `tables` went through the released block number `at`: it is there, it is the last, or the next one
    /// continues it. What a disk forgot of the log before its end is found when it is read.
    fn is_passed(&self, tables: &Tables, held: &Holding<'_>, at: usize) -> bool {
        let boundary = &self.boundaries[at];
        if boundary.end >= tables.position {
            let is_end = boundary.checksum == tables.previous_checksum;
            return is_end && boundary.end == tables.position;
        }
        let mut head = [0; HEADER_LENGTH];
        held.read(boundary.end.get(), &mut head);
        let is_continued = block::decode_header(&head).is_ok_and(|next| {
            next.position == boundary.end && next.previous_checksum == boundary.checksum
        });
        is_continued || self.is_at(held, at)
    }

    /// Whether a copy holds the released block number `at`, and so all before it.
    fn is_at(&self, held: &Holding<'_>, at: usize) -> bool {
        let mut head = [0; HEADER_LENGTH];
        held.read(self.start_of(at).get(), &mut head);
        let last = &self.boundaries[at];
        block::decode_header(&head).is_ok_and(|header| {
            (header.checksum, header.next_position()) == (last.checksum, last.end)
        })
    }

    /// The same for the released block number `at`.
    fn compare_at(&self, node: usize, held: &Holding<'_>, at: usize) {
        let last = &self.boundaries[at];
        let start = self.start_of(at);
        let mut head = [0; HEADER_LENGTH];
        held.read(start.get(), &mut head);
        let header = block::decode_header(&head).unwrap_or_else(|error| {
            panic!("node {node} holds no block at {start}, where one was released: {error}")
        });
        assert_eq!(
            (header.checksum, header.next_position()),
            (last.checksum, last.end),
            "node {node} holds another history at {start} than was released"
        );
    }

    /// The history goes on up to `end`, as the node has it.
    fn extend(&mut self, node: usize, end: Position, own: &Holding<'_>) {
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
        let held = own.end();
        assert!(
            held >= end.get(),
            "node {node} counts on bytes up to {end}; it holds only those before {held} for sure"
        );
        let mut log = std::mem::take(&mut self.log);
        log.resize(end.get() as usize, 0);
        own.read(start.get(), &mut log[start.get() as usize..]);
        while self.tables.position < end {
            self.take_block(node, &log[self.tables.position.get() as usize..]);
        }
        assert_eq!(self.tables.position, end, "a release ends between blocks");
        self.log = log;
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
        let mut opened = None;
        let mut is_unclean = false;
        for (_, record) in block::records(body).map(|record| record.expect("it was folded")) {
            match record.kind() {
                Some(RecordKind::Epoch) => opened = epoch_membership(record.payload()),
                Some(RecordKind::Unclean) => is_unclean = true,
                _ => self.take_record(&record, at),
            }
        }
        match opened {
            Some(record) => self
                .losses
                .on_opened(record.epoch, record.primary, is_unclean),
            None => assert!(!is_unclean, "a loss at {at} opens no epoch"),
        }
        self.boundaries.push(Boundary {
            end: header.next_position(),
            checksum: header.checksum,
        });
    }

    fn take_record(&mut self, record: &Record<'_>, at: Position) {
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
        self.note_seq(record.seq().get(), at);
        self.records.push(Released {
            key,
            topic: record.topic().get(),
            checksum: record.checksum(),
            receive_time_ns: record.receive_time_ns(),
        });
    }

    /// A seq is used once, whatever was lost.
    fn note_seq(&mut self, seq: u64, block: Position) {
        assert!(
            seq > self.used_through || block < self.tail_end,
            "seq {seq} is released a second time; {} was the highest",
            self.used_through
        );
        self.used_through = self.used_through.max(seq);
        let at = self.records.len();
        let is_next = |run: &Run| run.first_seq + (at - run.at) as u64 == seq;
        if !self.runs.last().is_some_and(is_next) {
            self.runs.push(Run { first_seq: seq, at });
        }
    }

    /// The highest seq in the history, 0 for none.
    fn last_seq(&self) -> u64 {
        self.runs.last().map_or(0, |run| {
            run.first_seq + (self.records.len() - run.at) as u64 - 1
        })
    }

    /// How many released messages have a seq below `next`.
    fn count_before(&self, next: u64) -> usize {
        let behind = self.runs.partition_point(|run| run.first_seq < next);
        let Some(run) = behind.checked_sub(1).map(|last| self.runs[last]) else {
            return 0;
        };
        let end = self.runs.get(behind).map_or(self.records.len(), |r| r.at);
        let within = usize::try_from(next - run.first_seq).unwrap_or(usize::MAX);
        run.at.saturating_add(within).min(end)
    }

    /// How many messages are released.
    pub(crate) fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// The seq of the released message at `place`, counted from 0; of the next one where there is none.
    pub(crate) fn seq_at(&self, place: u64) -> u64 {
        let place = place as usize;
        if place >= self.records.len() {
            return self.next_seq().get();
        }
        let run = self.runs.partition_point(|run| run.at <= place) - 1;
        let run = self.runs[run];
        run.first_seq + (place - run.at) as u64
    }

    /// The lowest seq from `seq` on that a released message has, or the next one will.
    pub(crate) fn following(&self, seq: u64) -> u64 {
        self.seq_at(self.count_before(seq) as u64)
    }

    /// The seq the next released message will have.
    pub(crate) const fn next_seq(&self) -> Seq {
        self.tables.next_seq
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
        let place = self.count_before(seq.get());
        (self.seq_at(place as u64) == seq.get())
            .then(|| self.records.get(place))
            .flatten()
    }

    /// Checksum of the message before `next`; 0 for none.
    pub(crate) fn checksum_before(&self, next: Seq) -> u32 {
        let before = self.count_before(next.get()).checked_sub(1);
        before.map_or(0, |place| self.records[place].checksum)
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

/// The identity of the node at this place.
fn node_id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}
