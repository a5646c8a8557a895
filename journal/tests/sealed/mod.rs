//! Journals laid out from logs built in memory and sealed with fixed keys, and the check of them.
#![allow(dead_code)] // each test binary uses a part of it

#[path = "../log/mod.rs"]
pub(crate) mod log;

use std::fs;
use std::path::{Path, PathBuf};

use log::{LogBuilder, Random, STREAM, superblock};
use relay_journal::reader::JournalDir;
use relay_journal::reader::seals::{
    SealCheck, SealFile, SealFinding, SealOutcome, SealStep, SegmentReport,
};
use relay_journal::scan::Link;
use relay_journal::seal::{
    Digest, Entry, FILE_NAME, PublicKey, Said, SegmentSum, SigningKey, Statement,
};
use relay_journal::segment;
use relay_journal::superblock as disk;
use relay_journal::tables::Tables;
use relay_wire::id::Position;

pub(crate) const SEGMENT: u64 = log::SEGMENT;

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_secret(&[number; 32])
}

/// A journal's directory with a log of at least `segments` whole segments.
pub(crate) struct Journal {
    pub(crate) home: tempfile::TempDir,
    pub(crate) log: LogBuilder,
}

impl Journal {
    pub(crate) fn new(segments: u64) -> Self {
        let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
        log.begin(2, 2);
        let mut random = Random(11);
        while (log.tail() as u64) < segments * SEGMENT {
            log.grow(10, 6_000, &mut random);
        }
        let home = tempfile::tempdir().expect("a temporary directory");
        let both = [log.superblock.encode(), log.superblock.encode()].concat();
        fs::write(home.path().join(disk::FILE_NAME), both).expect("the superblock is written");
        fs::create_dir(home.path().join(segment::DIRECTORY)).expect("the directory is made");
        let journal = Self { home, log };
        let prepared = (journal.log.tail() + SEGMENT as usize).next_multiple_of(SEGMENT as usize);
        let image = journal.log.image(prepared);
        for (index, bytes) in image.chunks(SEGMENT as usize).enumerate() {
            fs::write(journal.segment(index as u64), bytes).expect("it is written");
        }
        journal
    }

    /// One of `segments` whole segments, all sealed with key 1.
    pub(crate) fn sealed(segments: u64) -> Self {
        let journal = Self::new(segments);
        journal.write_seals(&journal.seals(&key(1), 1_000));
        journal
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn segment(&self, index: u64) -> PathBuf {
        let segments = self.home.path().join(segment::DIRECTORY);
        segments.join(segment::name(index))
    }

    pub(crate) fn whole_segments(&self) -> u64 {
        self.log.tail() as u64 / SEGMENT
    }

    pub(crate) fn released(&self) -> Position {
        Position(self.whole_segments() * SEGMENT)
    }

    /// What a node writes that seals this log with `key`.
    pub(crate) fn seals(&self, key: &SigningKey, time_ns: u64) -> Vec<Entry> {
        let mut entries = vec![first_key(key, time_ns)];
        for statement in self.statements() {
            entries.push(Entry::sign(Said::Seal(statement), STREAM, time_ns, key));
        }
        entries
    }

    /// What the segments on disk add up to.
    pub(crate) fn statements(&self) -> Vec<Statement> {
        let geometry = self.log.geometry;
        let mut link = Some(Link::after_tables(&Tables::empty(STREAM)));
        let mut previous = Digest::default();
        let mut statements = Vec::new();
        for index in 0..self.whole_segments() {
            let bytes = fs::read(self.segment(index)).expect("it is there");
            let mut sum = SegmentSum::new(geometry, STREAM, index, link, previous);
            // In pieces, as a node does that must not read much at a time.
            let mut at = 0;
            while !sum.is_complete() {
                let piece = &bytes[at..bytes.len().min(at + 24_000)];
                at += sum.take(piece, &mut |_, _| {}).expect("it is right");
            }
            let statement = sum.statement().expect("it is complete");
            (link, previous) = (Some(statement.link()), statement.hash());
            statements.push(statement);
        }
        statements
    }

    pub(crate) fn write_seals(&self, entries: &[Entry]) {
        fs::write(self.path().join(FILE_NAME), bytes_of(entries)).expect("it is written");
    }

    pub(crate) fn read_seals(&self) -> Vec<u8> {
        fs::read(self.path().join(FILE_NAME)).expect("it is there")
    }

    pub(crate) fn flip(&self, position: u64, mask: u8) {
        let path = self.segment(position / SEGMENT);
        let mut bytes = fs::read(&path).expect("it is there");
        bytes[(position % SEGMENT) as usize] ^= mask;
        fs::write(path, bytes).expect("it is written");
    }

    pub(crate) fn check(&self, trusted: &[PublicKey]) -> Checked {
        let journal = JournalDir::open(self.path()).expect("it is a journal");
        let check = journal.check_seals(trusted, self.released());
        Checked::of(check.expect("it can be read"))
    }

    /// Checked by somebody who trusts key 1.
    pub(crate) fn check_1(&self) -> Checked {
        self.check(&[key(1).public()])
    }

    /// Start and end of the block that holds a position, and how much of it is written.
    pub(crate) fn block_of(&self, position: u64) -> (u64, u64, u64) {
        let writes = &self.log.writes;
        let after = writes.partition_point(|write| write.header.position.get() <= position);
        let write = &writes[after - 1];
        let start = write.header.position.get();
        let end = write.header.next_position().get();
        (start, end, start + write.bytes.len() as u64)
    }
}

pub(crate) struct Checked {
    pub(crate) file: SealFile,
    pub(crate) reports: Vec<SegmentReport>,
    pub(crate) blocks: u64,
}

impl Checked {
    pub(crate) fn of(mut check: SealCheck) -> Self {
        let file = check.file().clone();
        let mut blocks = 0;
        let mut reports = Vec::new();
        loop {
            let step = check.step(&mut |_, _| blocks += 1).expect("it can be read");
            match step {
                SealStep::Read(_) => {}
                SealStep::Segment(report) => reports.push(report),
                SealStep::Over => break,
            }
        }
        Self {
            file,
            reports,
            blocks,
        }
    }

    pub(crate) fn outcomes(&self) -> Vec<SealOutcome> {
        self.reports.iter().map(SegmentReport::outcome).collect()
    }

    pub(crate) fn is_faultless(&self) -> bool {
        let is_intact = |report: &SegmentReport| report.findings.is_empty();
        self.file.finding_count == 0 && self.reports.iter().all(is_intact)
    }

    /// The only finding there is, with the segment it is about.
    pub(crate) fn only(&self) -> (u64, SealFinding) {
        assert_eq!(self.file.findings, []);
        let all: Vec<_> = self
            .reports
            .iter()
            .flat_map(|report| report.findings.iter().map(|found| (report.segment, *found)))
            .collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }
}

pub(crate) fn first_key(key: &SigningKey, time_ns: u64) -> Entry {
    let said = Said::Key {
        segment: 0,
        previous: Digest::default(),
        key: key.public(),
    };
    Entry::sign(said, STREAM, time_ns, key)
}

pub(crate) fn bytes_of(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(Entry::encode).collect()
}
