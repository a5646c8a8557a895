//! A disk in memory, with everything that disks do wrong.
//!
//! # Fault model
//!
//! What the disk should hold is kept apart from what a reader sees of it. `Area::pages` are the *pristine* bytes: what
//! every write that was carried out, or reported as carried out, left. `Area::overlay` holds the sectors whose reader sees
//! something else. Checkers look at the pristine bytes, the relay at what a reader sees. A sector is 512 bytes, and is
//! written as a whole or not at all.
//!
//! | fault | what happens | what the relay hears |
//! | --- | --- | --- |
//! | reordering | writes under way end in any order, each after a time of its own | |
//! | power cut | any subset of the sectors of the writes under way, and of those ended and not covered by a sync, is on the disk; what was durable stays | nothing: it is gone |
//! | kill | writes under way are carried out wholly, partly or not at all; what has ended stays, and is as little durable as before | nothing: it is gone |
//! | write fails | any subset of its sectors is written | an error |
//! | sync fails | nothing becomes durable by it; a later sync covers what it should have | an error |
//! | read fails | | an error |
//! | stall | nothing ends until it is over | late completions |
//! | lost write | a reader goes on to see what was there before | success |
//! | misdirected write | a reader sees the write's bytes at another place of the same area, and at its own what was there before | success |
//! | stale read | one read sees what was there before the newest writes | success |
//! | rot | a bit of a sector turns over, and stays so until the sector is written again | success |
//! | lie | completions and syncs promise durability and give none; the disk catches up [`CATCH_UP_NS`] later | success |
//! | old copy | the whole disk is as it was at some earlier time | |
//! | blank disk | the whole disk is as `relayd format` leaves it | |
//!
//! Torn sectors by power cut and kill, failures and stalls are what the promise covers for every single disk. All
//! others damage a copy: how many copies a run may damage is decided where faults are drawn (`faults.rs`).
//!
//! A sync covers one area. The superblock's area and the log's are different files, and a sync of the one says nothing about
//! the other.
//!
//! Checkpoints are written and renamed as a whole, so they are there or not; damage to one is a fault of its own.

mod inject;

use std::collections::{BTreeMap, VecDeque};

use relay_journal::scan::{LogSource, SourceError};
use relay_journal::superblock::GENERATION_LENGTH;
use relay_wire::id::Position;

use crate::clock::SECOND;
use crate::random::Random;

/// Bytes of a sector: written wholly or not at all.
pub(crate) const SECTOR: usize = 512;
/// After so long even a lying disk has written what it promised.
pub(crate) const CATCH_UP_NS: u64 = SECOND;
const PAGE: usize = 64 << 10;
/// Writes whose earlier bytes are remembered for stale reads.
const RECENT: usize = 16;
const CHECKPOINTS_KEPT: usize = 2;

/// Which file of the journal's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Zone {
    /// The segments, addressed by position.
    Log,
    /// The two generations of the superblock.
    Superblock,
}

/// How long the disk takes, in the mean; each operation draws its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latencies {
    /// The least any operation takes.
    pub(crate) least_ns: u64,
    /// A write's mean above that.
    pub(crate) write_ns: u64,
    /// A sync's mean above that.
    pub(crate) sync_ns: u64,
    /// A read's mean above that.
    pub(crate) read_ns: u64,
}

/// Names an operation under way. An operation whose process was killed has no name any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpId {
    index: u32,
    generation: u32,
}

/// An operation that was begun, and when it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) op: OpId,
    pub(crate) at_ns: u64,
}

/// What kind of operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Write(Zone),
    Sync(Zone),
    Read,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) what: What,
    /// The caller's number for it.
    pub(crate) tag: u64,
    pub(crate) is_ok: bool,
}

/// What becomes of a write, decided when it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    Fails,
    Lost,
    Misdirected,
}

#[derive(Debug)]
struct Op {
    generation: u32,
    /// `None`: free.
    what: Option<What>,
    tag: u64,
    at: u64,
    bytes: Vec<u8>,
    is_durable: bool,
    fate: Fate,
    /// A sync covers what ended before this.
    covers: u64,
}

/// A write that ended and could still be undone by a power cut.
#[derive(Debug, Clone)]
struct Unsynced {
    order: u64,
    at: u64,
    before: Vec<u8>,
    /// Set where the disk said that it is durable.
    promised_ns: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Area {
    pages: Vec<Option<Box<[u8]>>>,
    overlay: BTreeMap<u64, Box<[u8; SECTOR]>>,
    unsynced: Vec<Unsynced>,
}

impl Area {
    /// Calls `part` with each piece of `length` bytes from `at` on that lies in one page.
    fn pieces(at: u64, length: usize, mut part: impl FnMut(usize, usize, core::ops::Range<usize>)) {
        let mut done = 0;
        while done < length {
            let place = at + done as u64;
            let (page, offset) = (place as usize / PAGE, place as usize % PAGE);
            let count = (PAGE - offset).min(length - done);
            part(page, offset, done..done + count);
            done += count;
        }
    }

    fn read_pristine(&self, at: u64, into: &mut [u8]) {
        Self::pieces(at, into.len(), |page, offset, range| {
            let count = range.len();
            match self.pages.get(page) {
                Some(Some(page)) => into[range].copy_from_slice(&page[offset..offset + count]),
                _ => into[range].fill(0),
            }
        });
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.read_pristine(at, into);
        if self.overlay.is_empty() {
            return;
        }
        let first = at / SECTOR as u64;
        let end = (at + into.len() as u64).div_ceil(SECTOR as u64);
        for (&sector, seen) in self.overlay.range(first..end) {
            let start = sector * SECTOR as u64;
            for (index, &byte) in seen.iter().enumerate() {
                if let Some(to) = (start + index as u64)
                    .checked_sub(at)
                    .and_then(|offset| into.get_mut(offset as usize))
                {
                    *to = byte;
                }
            }
        }
    }

    fn write_pristine(&mut self, at: u64, bytes: &[u8]) {
        Self::pieces(at, bytes.len(), |page, offset, range| {
            if self.pages.len() <= page {
                self.pages.resize_with(page + 1, || None);
            }
            let to = self.pages[page].get_or_insert_with(|| vec![0; PAGE].into_boxed_slice());
            to[offset..offset + range.len()].copy_from_slice(&bytes[range]);
        });
    }

    /// A good write: what was wrong in its sectors is mended.
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.write_pristine(at, bytes);
        if !self.overlay.is_empty() {
            for sector in sectors(at, bytes.len()) {
                self.overlay.remove(&sector);
            }
        }
    }

    /// Has readers see `bytes` at `at`, whatever is there.
    fn pretend(&mut self, at: u64, bytes: &[u8]) {
        for (sector, seen) in sectors(at, bytes.len()).zip(bytes.chunks_exact(SECTOR)) {
            let seen: &[u8; SECTOR] = seen.try_into().expect("chunks are sectors");
            self.overlay.insert(sector, Box::new(*seen));
        }
    }

    /// Whether it should hold `bytes` at `at` already, so that writing or undoing them changes nothing.
    fn is_pristine(&self, at: u64, bytes: &[u8]) -> bool {
        let mut is_same = true;
        Self::pieces(at, bytes.len(), |page, offset, range| {
            is_same = is_same
                && match self.pages.get(page) {
                    Some(Some(page)) => page[offset..offset + range.len()] == bytes[range],
                    _ => bytes[range].iter().all(|&byte| byte == 0),
                };
        });
        is_same
    }

    /// Where the first byte lies that a power cut could still take.
    fn durable_end(&self) -> u64 {
        let open = self
            .unsynced
            .iter()
            .filter(|u| u.promised_ns.is_none() && !self.is_pristine(u.at, &u.before));
        open.map(|unsynced| unsynced.at).min().unwrap_or(u64::MAX)
    }
}

fn sectors(at: u64, length: usize) -> core::ops::Range<u64> {
    assert!(at.is_multiple_of(SECTOR as u64) && length.is_multiple_of(SECTOR));
    at / SECTOR as u64..(at + length as u64) / SECTOR as u64
}

/// Everything on a disk at one time.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    log: Area,
    superblock: Area,
    checkpoints: Vec<(Position, Vec<u8>)>,
    prepared: u64,
    incarnation: u64,
}

/// The disk. See the module's description.
#[derive(Debug)]
pub(crate) struct Disk {
    latencies: Latencies,
    random: Random,
    log: Area,
    superblock: Area,
    checkpoints: Vec<(Position, Vec<u8>)>,
    prepared: u64,
    incarnation: u64,
    /// It lied, was replaced or went back in time: what it promised may be gone.
    is_doubtful: bool,
    /// Where each piece of log begins that was set aside.
    set_aside: Vec<(Position, Vec<u8>)>,
    ops: Vec<Op>,
    free: Vec<u32>,
    ended: u64,
    stalled_until_ns: u64,
    lies_until_ns: u64,
    writes_to_fail: u32,
    syncs_to_fail: u32,
    reads_to_fail: u32,
    writes_to_lose: u32,
    writes_to_misdirect: u32,
    reads_to_age: u32,
    recent: VecDeque<(u64, Vec<u8>)>,
    keeps_recent: bool,
}

impl Disk {
    /// A disk full of zeroes, without prepared space.
    pub(crate) fn new(latencies: Latencies, random: Random) -> Self {
        Self {
            latencies,
            random,
            log: Area::default(),
            superblock: Area::default(),
            checkpoints: Vec::new(),
            prepared: 0,
            incarnation: 0,
            is_doubtful: false,
            set_aside: Vec::new(),
            ops: Vec::new(),
            free: Vec::new(),
            ended: 0,
            stalled_until_ns: 0,
            lies_until_ns: 0,
            writes_to_fail: 0,
            syncs_to_fail: 0,
            reads_to_fail: 0,
            writes_to_lose: 0,
            writes_to_misdirect: 0,
            reads_to_age: 0,
            recent: VecDeque::new(),
            keeps_recent: false,
        }
    }

    fn area(&mut self, zone: Zone) -> &mut Area {
        match zone {
            Zone::Log => &mut self.log,
            Zone::Superblock => &mut self.superblock,
        }
    }

    fn begin(&mut self, what: What, tag: u64, mean_ns: u64, now_ns: u64) -> (u32, Ticket) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.ops.push(Op {
                generation: 0,
                what: None,
                tag: 0,
                at: 0,
                bytes: Vec::new(),
                is_durable: false,
                fate: Fate::Good,
                covers: 0,
            });
            self.ops.len() as u32 - 1
        });
        let took = self.latencies.least_ns + self.random.tailed(mean_ns);
        let op = &mut self.ops[index as usize];
        op.what = Some(what);
        op.tag = tag;
        op.bytes.clear();
        op.fate = Fate::Good;
        let generation = op.generation;
        let ticket = Ticket {
            op: OpId { index, generation },
            at_ns: now_ns.max(self.stalled_until_ns) + took,
        };
        (index, ticket)
    }

    /// Begins to write `bytes` at `at`; with `is_durable` they are so when it ends.
    pub(crate) fn begin_write(
        &mut self,
        zone: Zone,
        at: u64,
        bytes: &[u8],
        is_durable: bool,
        tag: u64,
        now_ns: u64,
    ) -> Ticket {
        let mean = self.latencies.write_ns;
        let (index, ticket) = self.begin(What::Write(zone), tag, mean, now_ns);
        let fate = if take(&mut self.writes_to_fail) {
            Fate::Fails
        } else if zone == Zone::Log && take(&mut self.writes_to_lose) {
            Fate::Lost
        } else if zone == Zone::Log && take(&mut self.writes_to_misdirect) {
            Fate::Misdirected
        } else {
            Fate::Good
        };
        let op = &mut self.ops[index as usize];
        op.at = at;
        op.bytes.extend_from_slice(bytes);
        op.is_durable = is_durable;
        op.fate = fate;
        ticket
    }

    /// Begins to make durable what has been written to `zone` so far.
    pub(crate) fn begin_sync(&mut self, zone: Zone, tag: u64, now_ns: u64) -> Ticket {
        let (index, ticket) = self.begin(What::Sync(zone), tag, self.latencies.sync_ns, now_ns);
        let covers = self.ended;
        let fails = take(&mut self.syncs_to_fail);
        let op = &mut self.ops[index as usize];
        op.covers = covers;
        op.fate = if fails { Fate::Fails } else { Fate::Good };
        ticket
    }

    /// Begins to read; when it has ended the caller takes the bytes with [`Disk::read`].
    pub(crate) fn begin_read(&mut self, tag: u64, now_ns: u64) -> Ticket {
        self.begin(What::Read, tag, self.latencies.read_ns, now_ns)
            .1
    }

    /// The time has come for `op` to end, unless its process was killed.
    pub(crate) fn complete(&mut self, op: OpId, now_ns: u64) -> Option<Completion> {
        let found = &mut self.ops[op.index as usize];
        if found.generation != op.generation {
            return None;
        }
        let what = found.what.take().expect("an operation ends once");
        found.generation = found.generation.wrapping_add(1);
        self.free.push(op.index);
        let tag = found.tag;
        let is_ok = match what {
            What::Write(zone) => self.end_write(zone, op.index, now_ns),
            What::Sync(zone) => self.end_sync(zone, op.index, now_ns),
            What::Read => !take(&mut self.reads_to_fail),
        };
        Some(Completion { what, tag, is_ok })
    }

    fn end_write(&mut self, zone: Zone, index: u32, now_ns: u64) -> bool {
        let bytes = std::mem::take(&mut self.ops[index as usize].bytes);
        let (at, fate) = (self.ops[index as usize].at, self.ops[index as usize].fate);
        let is_durable = self.ops[index as usize].is_durable;
        if self.keeps_recent && zone == Zone::Log {
            self.remember(at, bytes.len());
        }
        if fate == Fate::Fails {
            let mut random = self.random.clone();
            self.random.next();
            self.write_some(zone, at, &bytes, &mut random);
            self.ops[index as usize].bytes = bytes;
            return false;
        }
        let is_lying = now_ns < self.lies_until_ns;
        if !is_durable || is_lying {
            let promised_ns = is_durable.then_some(now_ns);
            self.note_unsynced(zone, at, bytes.len(), promised_ns);
        }
        match fate {
            Fate::Good => self.area(zone).write(at, &bytes),
            Fate::Lost | Fate::Misdirected => {
                let mut before = vec![0; bytes.len()];
                self.area(zone).read(at, &mut before);
                if fate == Fate::Misdirected {
                    let reach = (at + (2 << 20)) / bytes.len() as u64;
                    let to = self.random.below(reach) * bytes.len() as u64;
                    self.area(zone).pretend(to, &bytes);
                }
                self.area(zone).write_pristine(at, &bytes);
                self.area(zone).pretend(at, &before);
            }
            Fate::Fails => unreachable!("handled above"),
        }
        self.ops[index as usize].bytes = bytes;
        true
    }

    fn remember(&mut self, at: u64, length: usize) {
        let mut before = match self.recent.len() {
            RECENT => self.recent.pop_front().expect("it is full").1,
            _ => Vec::new(),
        };
        before.clear();
        before.resize(length, 0);
        self.log.read(at, &mut before);
        self.recent.push_back((at, before));
    }

    fn note_unsynced(&mut self, zone: Zone, at: u64, length: usize, promised_ns: Option<u64>) {
        self.ended += 1;
        let order = self.ended;
        let area = self.area(zone);
        let mut before = vec![0; length];
        area.read_pristine(at, &mut before);
        area.unsynced.push(Unsynced {
            order,
            at,
            before,
            promised_ns,
        });
    }

    fn end_sync(&mut self, zone: Zone, index: u32, now_ns: u64) -> bool {
        let (covers, fate) = {
            let op = &self.ops[index as usize];
            (op.covers, op.fate)
        };
        if fate == Fate::Fails {
            return false;
        }
        let is_lying = now_ns < self.lies_until_ns;
        let area = self.area(zone);
        if is_lying {
            for unsynced in area.unsynced.iter_mut().filter(|u| u.order <= covers) {
                unsynced.promised_ns.get_or_insert(now_ns);
            }
        } else {
            area.unsynced.retain(|unsynced| unsynced.order > covers);
        }
        true
    }

    /// Any subset of the sectors of a write reaches the disk, none of them durably.
    fn write_some(&mut self, zone: Zone, at: u64, bytes: &[u8], random: &mut Random) {
        let kept = Torn::draw(random);
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            if kept.has(number, bytes.len() / SECTOR, random) {
                let place = at + (number * SECTOR) as u64;
                self.note_unsynced(zone, place, sector.len(), None);
                self.area(zone).write(place, sector);
            }
        }
    }

    /// The process is killed: what it had under way is carried out in any part, and nobody hears of it.
    pub(crate) fn kill(&mut self, random: &mut Random) {
        for index in 0..self.ops.len() {
            let Some(what) = self.ops[index].what.take() else {
                continue;
            };
            self.ops[index].generation = self.ops[index].generation.wrapping_add(1);
            self.free.push(index as u32);
            if let What::Write(zone) = what {
                let bytes = std::mem::take(&mut self.ops[index].bytes);
                let at = self.ops[index].at;
                self.write_some(zone, at, &bytes, random);
                self.ops[index].bytes = bytes;
            }
        }
    }

    /// Power is cut: of everything not durable any subset of sectors stays.
    pub(crate) fn cut_power(&mut self, random: &mut Random, now_ns: u64) {
        self.kill(random);
        for zone in [Zone::Log, Zone::Superblock] {
            let mut undone = std::mem::take(&mut self.area(zone).unsynced);
            while let Some(unsynced) = undone.pop() {
                let is_safe = unsynced
                    .promised_ns
                    .is_some_and(|promised| now_ns >= promised + CATCH_UP_NS);
                if is_safe {
                    continue;
                }
                let lost = Torn::draw(random);
                let count = unsynced.before.len() / SECTOR;
                for (number, sector) in unsynced.before.chunks(SECTOR).enumerate() {
                    if lost.has(number, count, random) {
                        let place = unsynced.at + (number * SECTOR) as u64;
                        self.area(zone).write(place, sector);
                    }
                }
            }
        }
        self.recent.clear();
    }

    /// What a reader sees.
    pub(crate) fn read(&mut self, zone: Zone, at: u64, into: &mut [u8]) {
        self.area(zone).read(at, into);
        if zone == Zone::Log && take(&mut self.reads_to_age) {
            for (place, before) in self.recent.iter().rev() {
                overlap(at, into, *place, before);
            }
        }
    }

    /// What the log should hold, for checkers.
    pub(crate) fn read_pristine(&self, at: u64, into: &mut [u8]) {
        self.log.read_pristine(at, into);
    }

    /// Where the first byte of the log lies that is not durable, or may not be; none lies before.
    pub(crate) fn durable_end(&self) -> u64 {
        // A block that is mended is written as it was.
        let is_log = |op: &&Op| {
            op.what == Some(What::Write(Zone::Log)) && !self.log.is_pristine(op.at, &op.bytes)
        };
        let writes = self.ops.iter().filter(is_log).map(|op| op.at);
        self.log.durable_end().min(writes.min().unwrap_or(u64::MAX))
    }

    /// Which disk it is, by the journal made on it.
    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whoever looks takes it for a disk that keeps what it promises.
    pub(crate) const fn count_on(&mut self) {
        self.is_doubtful = false;
    }

    /// Whether what it once promised may be gone.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Where nothing but zeroes follows, from `from` on, as a reader sees it.
    pub(crate) fn written_end(&self, from: Position) -> Position {
        let mut end = self.prepared.max(from.get());
        let mut sector = [0; SECTOR];
        while end > from.get() {
            self.log.read(end - SECTOR as u64, &mut sector);
            if sector.iter().any(|&byte| byte != 0) {
                break;
            }
            end -= SECTOR as u64;
        }
        Position(end)
    }

    /// Keeps a copy of the log between two positions in a file of its own.
    pub(crate) fn set_aside(&mut self, from: Position, end: Position) {
        let mut bytes = vec![0; end.since(from) as usize];
        self.log.read(from.get(), &mut bytes);
        self.set_aside.push((from, bytes));
    }

    /// Both generations of the superblock as a reader sees them.
    pub(crate) fn superblocks(&mut self) -> [[u8; GENERATION_LENGTH]; 2] {
        let mut both = [[0; GENERATION_LENGTH]; 2];
        for (index, generation) in both.iter_mut().enumerate() {
            let at = (index * GENERATION_LENGTH) as u64;
            self.superblock.read(at, generation);
        }
        both
    }

    /// The generations of the superblock that stay whatever becomes of the power; zeroes for one that may not. For checkers.
    pub(crate) fn superblocks_for_sure(&self) -> [[u8; GENERATION_LENGTH]; 2] {
        let is_write = |op: &&Op| op.what == Some(What::Write(Zone::Superblock));
        let under_way = self.ops.iter().filter(is_write).map(|op| op.at);
        let unsynced = self.superblock.unsynced.iter().map(|unsynced| unsynced.at);
        let open: Vec<u64> = under_way.chain(unsynced).collect();
        let mut both = [[0; GENERATION_LENGTH]; 2];
        for (index, generation) in both.iter_mut().enumerate() {
            let at = (index * GENERATION_LENGTH) as u64;
            let end = at + GENERATION_LENGTH as u64;
            if !open.iter().any(|place| (at..end).contains(place)) {
                self.superblock.read_pristine(at, generation);
            }
        }
        both
    }

    /// End of the prepared segments.
    pub(crate) const fn prepared(&self) -> u64 {
        self.prepared
    }

    /// Another segment is prepared, and durable with its name.
    pub(crate) fn prepare(&mut self, segment_size: u64) {
        self.prepared += segment_size;
    }

    /// A checkpoint gets its name; older ones go.
    pub(crate) fn store_checkpoint(&mut self, position: Position, bytes: Vec<u8>) {
        self.checkpoints.retain(|(at, _)| *at < position);
        self.checkpoints.push((position, bytes));
        let old = self.checkpoints.len().saturating_sub(CHECKPOINTS_KEPT);
        self.checkpoints.drain(..old);
    }

    /// Checkpoints, newest first.
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = &[u8]> {
        self.checkpoints
            .iter()
            .rev()
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// Removes every checkpoint behind `position`: the log was cut there.
    pub(crate) fn drop_checkpoints_after(&mut self, position: Position) {
        self.checkpoints.retain(|(at, _)| *at <= position);
    }

    /// Writes both generations of the superblock at once, as `relayd format` does, on an otherwise empty disk.
    pub(crate) fn format(&mut self, incarnation: u64, generations: [[u8; GENERATION_LENGTH]; 2]) {
        self.incarnation = incarnation;
        self.log = Area::default();
        self.superblock = Area::default();
        self.checkpoints.clear();
        self.prepared = 0;
        self.recent.clear();
        for (index, generation) in generations.iter().enumerate() {
            let at = (index * GENERATION_LENGTH) as u64;
            self.superblock.write(at, generation);
        }
    }
}

/// Which sectors of a write are kept, or lost.
#[derive(Debug, Clone, Copy)]
enum Torn {
    All,
    None,
    Before(u64),
    Any,
}

impl Torn {
    const fn draw(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Before(random.next()),
            _ => Self::Any,
        }
    }

    const fn has(self, number: usize, count: usize, random: &mut Random) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Before(choice) => (number as u64) < choice % (count as u64 + 1),
            Self::Any => random.chance(500_000),
        }
    }
}

const fn take(count: &mut u32) -> bool {
    let is_due = *count > 0;
    *count = count.saturating_sub(1);
    is_due
}

/// Copies what of `bytes` at `place` falls on `into` at `at`.
fn overlap(at: u64, into: &mut [u8], place: u64, bytes: &[u8]) {
    let start = at.max(place);
    let end = (at + into.len() as u64).min(place + bytes.len() as u64);
    if start < end {
        let (to, from) = ((start - at) as usize, (start - place) as usize);
        let length = (end - start) as usize;
        into[to..to + length].copy_from_slice(&bytes[from..from + length]);
    }
}

/// The log of a disk, as recovery reads it.
#[derive(Debug)]
pub(crate) struct LogReader<'a> {
    pub(crate) disk: &'a mut Disk,
    /// End of the prepared space.
    pub(crate) end: u64,
}

impl LogSource for LogReader<'_> {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        if self.disk.takes_read_failure() {
            return Err(SourceError {
                position,
                cause: "input/output error (simulated)".to_owned(),
            });
        }
        let left = self.end.saturating_sub(position.get());
        let length = (left as usize).min(buffer.len());
        self.disk
            .read(Zone::Log, position.get(), &mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
