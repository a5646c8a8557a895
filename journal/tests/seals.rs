//! Goal: whatever is changed in a sealed segment, in the seals, or in who signed them is found, and found where it is; and the
//! file of seals survives a crash at any byte. Method: logs built in memory are laid out as a journal's directory and sealed with
//! fixed keys; then bytes are changed, one at a time, or a forger without the key does his best.

mod log;

use std::fs;
use std::path::{Path, PathBuf};

use log::{LogBuilder, Random, STREAM, superblock};
use proptest::prelude::*;
use relay_journal::block::{self, BlockKind, HEADER_LENGTH, decode_header};
use relay_journal::reader::JournalDir;
use relay_journal::reader::seals::{
    EntryProblem, SealCheck, SealFile, SealFinding, SealOutcome, SealStep, SegmentReport, Signed,
    Tampering,
};
use relay_journal::scan::{Front, Link};
use relay_journal::seal::{
    Chain, ChainError, Digest, ENTRY_LENGTH, Entry, EntryError, FILE_NAME, FileErrorKind, KeyId,
    PublicKey, Said, SegmentSum, SigningKey, Statement, read_file,
};
use relay_journal::segment;
use relay_journal::superblock as disk;
use relay_journal::tables::Tables;
use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, Position, Seq, StreamId};

const SEGMENT: u64 = log::SEGMENT;

fn key(number: u8) -> SigningKey {
    SigningKey::from_secret(&[number; 32])
}

/// A journal's directory with a log of at least `segments` whole segments.
struct Journal {
    home: tempfile::TempDir,
    log: LogBuilder,
}

impl Journal {
    fn new(segments: u64) -> Self {
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
    fn sealed(segments: u64) -> Self {
        let journal = Self::new(segments);
        journal.write_seals(&journal.seals(&key(1), 1_000));
        journal
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn segment(&self, index: u64) -> PathBuf {
        let segments = self.home.path().join(segment::DIRECTORY);
        segments.join(segment::name(index))
    }

    fn whole_segments(&self) -> u64 {
        self.log.tail() as u64 / SEGMENT
    }

    fn released(&self) -> Position {
        Position(self.whole_segments() * SEGMENT)
    }

    /// What a node writes that seals this log with `key`.
    fn seals(&self, key: &SigningKey, time_ns: u64) -> Vec<Entry> {
        let mut entries = vec![first_key(key, time_ns)];
        for statement in self.statements() {
            entries.push(Entry::sign(Said::Seal(statement), STREAM, time_ns, key));
        }
        entries
    }

    /// What the segments on disk add up to.
    fn statements(&self) -> Vec<Statement> {
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

    fn write_seals(&self, entries: &[Entry]) {
        fs::write(self.path().join(FILE_NAME), bytes_of(entries)).expect("it is written");
    }

    fn read_seals(&self) -> Vec<u8> {
        fs::read(self.path().join(FILE_NAME)).expect("it is there")
    }

    fn flip(&self, position: u64, mask: u8) {
        let path = self.segment(position / SEGMENT);
        let mut bytes = fs::read(&path).expect("it is there");
        bytes[(position % SEGMENT) as usize] ^= mask;
        fs::write(path, bytes).expect("it is written");
    }

    fn check(&self, trusted: &[PublicKey]) -> Checked {
        let journal = JournalDir::open(self.path()).expect("it is a journal");
        let check = journal.check_seals(trusted, self.released());
        Checked::of(check.expect("it can be read"))
    }

    /// Checked by somebody who trusts key 1.
    fn check_1(&self) -> Checked {
        self.check(&[key(1).public()])
    }

    /// Start and end of the block that holds a position, and how much of it is written.
    fn block_of(&self, position: u64) -> (u64, u64, u64) {
        let writes = &self.log.writes;
        let after = writes.partition_point(|write| write.header.position.get() <= position);
        let write = &writes[after - 1];
        let start = write.header.position.get();
        let end = write.header.next_position().get();
        (start, end, start + write.bytes.len() as u64)
    }
}

struct Checked {
    file: SealFile,
    reports: Vec<SegmentReport>,
    blocks: u64,
}

impl Checked {
    fn of(mut check: SealCheck) -> Self {
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

    fn outcomes(&self) -> Vec<SealOutcome> {
        self.reports.iter().map(SegmentReport::outcome).collect()
    }

    fn is_faultless(&self) -> bool {
        let is_intact = |report: &SegmentReport| report.findings.is_empty();
        self.file.finding_count == 0 && self.reports.iter().all(is_intact)
    }

    /// The only finding there is, with the segment it is about.
    fn only(&self) -> (u64, SealFinding) {
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

fn first_key(key: &SigningKey, time_ns: u64) -> Entry {
    let said = Said::Key {
        segment: 0,
        previous: Digest::default(),
        key: key.public(),
    };
    Entry::sign(said, STREAM, time_ns, key)
}

fn bytes_of(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(Entry::encode).collect()
}

/// The place a finding names for a change at `position` must be the changed block, or the very byte behind a filler.
fn is_located(journal: &Journal, position: u64, found: &SealFinding) -> bool {
    let (start, end, written) = journal.block_of(position);
    match found {
        SealFinding::Tampered(Tampering::Block(error)) => {
            error.position == Position(start) && position < written
        }
        SealFinding::Tampered(Tampering::Leftover { position: at }) => {
            at.get() == position && (written..end).contains(&position)
        }
        _ => false,
    }
}

#[test]
fn an_untouched_journal_is_intact() {
    let journal = Journal::sealed(5);
    let checked = journal.check_1();
    assert!(checked.is_faultless(), "{:?}", checked.reports);
    assert_eq!(checked.reports.len() as u64, journal.whole_segments());
    assert_eq!(checked.file.sealed_end, journal.released());
    assert!(checked.file.is_pinned && checked.file.is_present);
    let sealed = journal.log.writes.iter();
    let sealed = sealed.filter(|write| write.header.position < journal.released());
    assert_eq!(checked.blocks, sealed.clone().count() as u64);
    // Seals say what the blocks say.
    let records: u64 = sealed
        .map(|write| u64::from(write.header.record_count))
        .sum();
    let statements = journal.statements();
    assert_eq!(
        statements.iter().map(|s| s.record_count).sum::<u64>(),
        records
    );
    assert_eq!(statements[0].first_seq, Seq(1));
    for pair in statements.windows(2) {
        assert_eq!(pair[1].first_seq, Seq(pair[0].last_seq.get() + 1));
        assert_eq!(pair[1].previous, pair[0].hash());
    }
}

/// So that an auditor needs no tool of ours for it.
#[test]
fn a_root_is_the_hash_of_the_file() {
    let journal = Journal::sealed(3);
    for statement in journal.statements() {
        let bytes = fs::read(journal.segment(statement.segment)).expect("it is there");
        assert_eq!(statement.root.0, *blake3::hash(&bytes).as_bytes());
    }
}

/// The layout of `FORMAT.md` section 8, byte for byte.
#[test]
fn an_entry_lies_as_it_is_described() {
    let statement = Statement {
        stream: StreamId(7),
        segment: 3,
        start: Position(3 * SEGMENT),
        end: Position(4 * SEGMENT),
        first_seq: Seq(11),
        last_seq: Seq(22),
        record_count: 13,
        next_block_number: 99,
        epoch: Epoch(5),
        log_checksum: 0x0102_0304,
        previous: Digest([0xaa; 32]),
        root: Digest([0xbb; 32]),
    };
    let signer = key(1);
    let entry = Entry::sign(Said::Seal(statement), STREAM, 77, &signer);
    let mut expected = Vec::new();
    expected.extend(b"RELAYSEL");
    expected.extend(1_u16.to_le_bytes());
    expected.extend([1, 0]);
    expected.extend(7_u32.to_le_bytes());
    for number in [3, 3 * SEGMENT, 4 * SEGMENT, 11, 22, 13, 99, 5] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(0x0102_0304_u32.to_le_bytes());
    expected.extend([0; 12]);
    expected.extend([0xaa; 32]);
    expected.extend([0xbb; 32]);
    assert_eq!(statement.hash().0, *blake3::hash(&expected).as_bytes());
    expected.extend(77_u64.to_le_bytes());
    expected.extend(&blake3::hash(&signer.public().0).as_bytes()[..8]);
    expected.extend(entry.signature);
    expected.extend([0; 12]);
    expected.extend(crc32c(&expected).to_le_bytes());
    assert_eq!(entry.encode(), expected[..]);
    assert_eq!(Entry::decode(&expected), Ok(entry));
    assert!(entry.is_signed_by(&signer.public()));
    assert!(!entry.is_signed_by(&key(2).public()));

    let named = Said::Key {
        segment: 3,
        previous: Digest([0xaa; 32]),
        key: key(2).public(),
    };
    let bytes = Entry::sign(named, STREAM, 77, &signer).encode();
    assert_eq!((bytes[10], &bytes[128..160]), (2, &key(2).public().0[..]));
    assert!(bytes[24..96].iter().all(|&byte| byte == 0));
    let cut = Said::Cut {
        segment: 3,
        position: Position(4_096),
        epoch: Epoch(9),
        previous: Digest([0xaa; 32]),
    };
    let bytes = Entry::sign(cut, STREAM, 77, &signer).encode();
    assert_eq!(
        (bytes[10], &bytes[24..32]),
        (3, &4_096_u64.to_le_bytes()[..])
    );
    assert_eq!(bytes[72..80], 9_u64.to_le_bytes());
}

#[test]
fn two_nodes_give_the_same_seal_hashes() {
    let journal = Journal::new(4);
    journal.write_seals(&journal.seals(&key(1), 1_000));
    let one = journal.check_1();
    journal.write_seals(&journal.seals(&key(2), 2_000));
    let other = journal.check(&[key(2).public()]);
    assert!(one.is_faultless() && other.is_faultless());
    assert_eq!(one.file.last, other.file.last);
    assert_ne!(one.reports[0].seal, other.reports[0].seal);
}

#[test]
fn every_class_of_field_is_covered() {
    let journal = Journal::sealed(8);
    let writes = &journal.log.writes;
    let find = |kind: BlockKind, is_wanted: &dyn Fn(&log::Write) -> bool| {
        let found = writes
            .iter()
            .find(|write| write.header.kind == kind && is_wanted(write) && write.position() > 0);
        found.unwrap_or_else(|| panic!("a block of kind {kind:?}"))
    };
    let sealed = |write: &log::Write| write.header.next_position() < journal.released();
    let records = find(BlockKind::Records, &sealed);
    let mark = find(BlockKind::Mark, &sealed);
    let filler = find(BlockKind::Filler, &|write| {
        write.header.next_position() <= journal.released()
            && u64::from(write.header.span) > write.bytes.len() as u64
    });
    let padded = find(BlockKind::Records, &|write| {
        sealed(write) && write.header.body_end() < write.bytes.len()
    });
    let mut places = Vec::new();
    // Block header: magic, version, kind, zero, stream, epoch, number, position, first seq, record count, data count, body
    // length, span, sealed time, released, previous checksum, body checksum, zero, header checksum.
    let fields = [
        0, 8, 10, 11, 12, 16, 24, 32, 40, 48, 52, 56, 60, 64, 72, 80, 84, 88, 123, 124, 127,
    ];
    for block in [records, mark, filler] {
        places.extend(fields.map(|offset| block.position() + offset));
    }
    // Record: length, kind, flags, extension length, topic, checksum, publisher, incarnation, publisher sequence, key hash,
    // origin time, seq, receive time, payload.
    let fields = [0, 4, 5, 6, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72];
    places.extend(fields.map(|offset| records.position() + HEADER_LENGTH + offset));
    places.push(padded.position() + padded.header.body_end());
    places.push(padded.position() + padded.bytes.len() - 1);
    places.push(mark.position() + mark.bytes.len() - 1);
    places.push(filler.position() + filler.bytes.len());
    places.push(filler.header.next_position().get() as usize - 1);
    for place in places {
        let position = place as u64;
        for mask in [1, 0x80, 0xff] {
            journal.flip(position, mask);
            let (segment, found) = journal.check_1().only();
            assert_eq!(segment, position / SEGMENT, "position {position}");
            assert!(
                is_located(&journal, position, &found),
                "position {position}: {found:?}"
            );
            journal.flip(position, mask);
        }
    }
    assert!(journal.check_1().is_faultless());
}

/// One byte in each of the segments at a time, so that a check finds as many changes as there are segments.
#[test]
fn ten_thousand_random_changes_are_found_where_they_are() {
    const SEGMENTS: u64 = 100;
    const ROUNDS: u64 = 100;
    let journal = Journal::sealed(SEGMENTS);
    let segments = journal.whole_segments();
    let mut random = Random(29);
    let mut found = 0;
    for _ in 0..ROUNDS {
        let changes: Vec<(u64, u8)> = (0..segments)
            .map(|segment| {
                let position = segment * SEGMENT + random.below(SEGMENT);
                (position, 1 + random.below(255) as u8)
            })
            .collect();
        for (position, mask) in &changes {
            journal.flip(*position, *mask);
        }
        let checked = journal.check_1();
        assert_eq!(checked.file.finding_count, 0);
        for (report, (position, mask)) in checked.reports.iter().zip(&changes) {
            let [finding] = report.findings[..] else {
                panic!("{position}: {:?}", report.findings);
            };
            assert!(
                is_located(&journal, *position, &finding),
                "position {position}: {finding:?}"
            );
            journal.flip(*position, *mask);
            found += 1;
        }
    }
    assert_eq!(found, ROUNDS * segments);
    assert!(found >= 10_000);
}

/// Bytes of the seals themselves; with the entry's checksum as it was, and mended by somebody who knows the format.
#[test]
fn every_byte_of_a_seal_is_covered() {
    let journal = Journal::sealed(3);
    let good = journal.read_seals();
    for entry in 0..3 {
        for offset in 0..ENTRY_LENGTH {
            for is_mended in [false, true] {
                let at = entry * ENTRY_LENGTH;
                let mut bytes = good.clone();
                bytes[at + offset] ^= 0x10;
                if is_mended {
                    if offset >= ENTRY_LENGTH - 4 {
                        continue;
                    }
                    let sum = crc32c(&bytes[at..at + ENTRY_LENGTH - 4]);
                    bytes[at + ENTRY_LENGTH - 4..at + ENTRY_LENGTH]
                        .copy_from_slice(&sum.to_le_bytes());
                }
                fs::write(journal.path().join(FILE_NAME), &bytes).expect("it is written");
                let checked = journal.check_1();
                assert!(
                    !checked.is_faultless(),
                    "byte {offset} of entry {entry}, mended {is_mended}"
                );
                // The segments themselves are what they were, and no finding says otherwise.
                let accused = checked
                    .reports
                    .iter()
                    .find(|report| report.outcome() == SealOutcome::Tampered);
                assert_eq!(accused, None, "byte {offset} of entry {entry}");
            }
        }
    }
}

/// Writes the blocks from `from` on again so that every checksum fits, as somebody does who knows the format.
fn forge(journal: &mut Journal, from: usize, change: impl FnOnce(&mut [u8])) {
    let alignment = journal.log.superblock.block_alignment;
    let mut change = Some(change);
    let mut previous = journal.log.writes[from].header.previous_checksum;
    for write in &mut journal.log.writes[from..] {
        if let Some(change) = change.take() {
            change(&mut write.bytes[HEADER_LENGTH..write.header.body_end()]);
        }
        write.header.previous_checksum = previous;
        write.header = block::seal(&mut write.bytes, &write.header);
        assert_eq!(decode_header(&write.bytes), Ok(write.header));
        assert_eq!(
            write.bytes.len(),
            write.header.written_length(alignment) as usize
        );
        previous = write.header.checksum;
    }
    let prepared = (journal.log.tail() + SEGMENT as usize).next_multiple_of(SEGMENT as usize);
    let image = journal.log.image(prepared);
    for (index, bytes) in image.chunks(SEGMENT as usize).enumerate() {
        fs::write(journal.segment(index as u64), bytes).expect("it is written");
    }
}

#[test]
fn a_forgery_without_the_key_is_found() {
    let mut journal = Journal::sealed(4);
    let good = journal.read_seals();
    // A block with messages in segment 1; the first bytes of its body are a record's header, so change its last payload byte.
    let inside = |write: &log::Write| {
        write.header.data_count > 0 && write.header.position.get() / SEGMENT == 1
    };
    let at = journal.log.writes.iter().position(inside).expect("one");
    let last = journal.log.writes[at].header.body_length as usize - 1;
    forge(&mut journal, at, |body| body[last] ^= 0x55);
    // Every checksum fits now, and only the seals say that it is another log.
    let outcomes = journal.check_1().outcomes();
    assert_eq!(
        outcomes,
        [
            &[SealOutcome::Intact][..],
            &[SealOutcome::Tampered; 1],
            &vec![SealOutcome::Tampered; outcomes.len() - 2],
        ]
        .concat()
    );
    let rewritten = SealFinding::Tampered(Tampering::Rewritten);
    assert_eq!(journal.check_1().reports[1].findings, [rewritten]);

    // Sealed anew with another key that is named as the first: it is not the one that is trusted.
    journal.write_seals(&journal.seals(&key(9), 1_000));
    let checked = journal.check_1();
    let unknown = EntryProblem::UnknownKey(key(9).public().id());
    assert_eq!(checked.file.findings[0].what, unknown);
    assert!(
        checked
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::UnknownKey)
    );
    // Who trusts nobody beforehand can't see that, and is told.
    let unpinned = journal.check(&[]);
    assert!(unpinned.is_faultless() && !unpinned.file.is_pinned);

    // Sealed anew in the name of the key, which the forger lacks.
    let named = key(1).public().id();
    let mut entries = journal.seals(&key(9), 1_000);
    entries[0] = first_key(&key(1), 1_000);
    for entry in &mut entries[1..] {
        entry.signer = named;
    }
    journal.write_seals(&entries);
    let checked = journal.check_1();
    for report in &checked.reports {
        assert_eq!(report.findings[0], SealFinding::BadSignature(named));
    }

    // The good seals up to the change and forged ones behind it.
    let mut mixed = good[..2 * ENTRY_LENGTH].to_vec();
    mixed.extend(bytes_of(&entries[2..]));
    fs::write(journal.path().join(FILE_NAME), mixed).expect("it is written");
    let outcomes = journal.check_1().outcomes();
    assert_eq!(outcomes[0], SealOutcome::Intact);
    assert!(
        outcomes[1..]
            .iter()
            .all(|o| *o == SealOutcome::BadSignature)
    );
}

#[test]
fn wrong_keys_and_foreign_seals_do_not_pass() {
    let journal = Journal::sealed(3);
    let checked = journal.check(&[key(5).public()]);
    assert!(
        checked
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::UnknownKey)
    );
    // Another journal's seals: by the trusted key, of another log of the same stream.
    let mut other = Journal::new(3);
    forge(&mut other, 3, |body| {
        let last = body.len() - 1;
        body[last] ^= 1;
    });
    journal.write_seals(&other.seals(&key(1), 1_000));
    assert!(
        journal
            .check_1()
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::Tampered)
    );
    // Another stream's.
    let entries: Vec<Entry> = journal
        .seals(&key(1), 1_000)
        .iter()
        .map(|entry| match entry.said {
            Said::Seal(statement) => {
                let stream = StreamId(8);
                let statement = Statement {
                    stream,
                    ..statement
                };
                Entry::sign(Said::Seal(statement), stream, 1_000, &key(1))
            }
            _ => *entry,
        })
        .collect();
    journal.write_seals(&entries);
    let checked = journal.check_1();
    let foreign = EntryProblem::Chain(ChainError::Stream(StreamId(8)));
    assert_eq!(checked.file.findings[0].what, foreign);
    assert!(
        checked
            .outcomes()
            .iter()
            .all(|outcome| *outcome == SealOutcome::MissingSeal)
    );
}

#[test]
fn seals_taken_out_put_in_or_moved_break_the_chain() {
    let journal = Journal::sealed(5);
    let entries = journal.seals(&key(1), 1_000);
    // Taken out: the segment has none, and what follows shows that one was there.
    let mut fewer = entries.clone();
    fewer.remove(2);
    journal.write_seals(&fewer);
    let checked = journal.check_1();
    assert_eq!(checked.reports[1].findings, [SealFinding::MissingSeal]);
    let gap = EntryProblem::Chain(ChainError::Segment { found: 2, due: 1 });
    assert_eq!(checked.file.findings[0].what, gap);
    assert_eq!(checked.reports[2].findings, []);
    // Twice.
    let mut more = entries.clone();
    more.insert(2, entries[1]);
    journal.write_seals(&more);
    let twice = EntryProblem::Chain(ChainError::Segment { found: 0, due: 1 });
    assert_eq!(journal.check_1().file.findings[0].what, twice);
    // Signed by the key over another one before.
    let mut other = entries.clone();
    let Said::Seal(statement) = other[3].said else {
        panic!("a seal");
    };
    let statement = Statement {
        previous: Digest([7; 32]),
        ..statement
    };
    other[3] = Entry::sign(Said::Seal(statement), STREAM, 1_000, &key(1));
    journal.write_seals(&other);
    let checked = journal.check_1();
    assert_eq!(checked.outcomes()[2], SealOutcome::ChainBroken);
    assert_eq!(checked.outcomes()[3], SealOutcome::ChainBroken);
    // Signed by the key, and untrue.
    let Said::Seal(statement) = entries[3].said else {
        panic!("a seal");
    };
    let statement = Statement {
        record_count: statement.record_count + 1,
        ..statement
    };
    let mut other = entries;
    other[3] = Entry::sign(Said::Seal(statement), STREAM, 1_000, &key(1));
    journal.write_seals(&other);
    let untrue = SealFinding::Untrue("record count");
    assert_eq!(journal.check_1().reports[2].findings, [untrue]);
}

#[test]
fn a_missing_or_short_segment_is_named() {
    let journal = Journal::sealed(4);
    let bytes = fs::read(journal.segment(1)).expect("it is there");
    fs::write(journal.segment(1), &bytes[..1_000]).expect("it is written");
    let short = SealFinding::Tampered(Tampering::Length { found: 1_000 });
    assert_eq!(journal.check_1().only(), (1, short));
    fs::remove_file(journal.segment(1)).expect("it was there");
    let checked = journal.check_1();
    assert_eq!(checked.only(), (1, SealFinding::MissingSegment));
    // What lies behind it is checked against what its seal says.
    assert_eq!(checked.outcomes()[2], SealOutcome::Intact);
}

#[test]
fn a_journal_without_seals_says_so() {
    let journal = Journal::new(3);
    let checked = journal.check_1();
    assert!(!checked.file.is_present);
    assert_eq!(checked.file.sealed_end, Position(0));
    let outcomes = checked.outcomes();
    assert_eq!(outcomes.len() as u64, journal.whole_segments());
    assert!(outcomes.iter().all(|o| *o == SealOutcome::MissingSeal));
    // Its blocks are looked at all the same.
    journal.flip(SEGMENT + 600, 4);
    assert_eq!(journal.check_1().outcomes()[1], SealOutcome::Tampered);
}

/// A crash leaves any prefix of the file; a disk may also leave the last entry's place with anything in it.
#[test]
fn a_file_cut_anywhere_is_gone_on_with() {
    let journal = Journal::sealed(3);
    let good = journal.read_seals();
    for length in 0..=good.len() {
        let whole = length / ENTRY_LENGTH;
        let read = read_file(STREAM, &good[..length]);
        let (chain, intact) = read.unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(intact, whole * ENTRY_LENGTH, "{length}");
        assert_eq!(chain.next_segment() as usize, whole.saturating_sub(1));
        if length % 64 == 1 || length % ENTRY_LENGTH == 0 {
            fs::write(journal.path().join(FILE_NAME), &good[..length]).expect("it is written");
            let checked = journal.check_1();
            assert_eq!(checked.file.torn_bytes as usize, length % ENTRY_LENGTH);
            assert_eq!(checked.file.finding_count, 0);
            for report in &checked.reports {
                let expected = if report.segment < chain.next_segment() {
                    SealOutcome::Intact
                } else {
                    SealOutcome::MissingSeal
                };
                assert_eq!(report.outcome(), expected, "{length}");
            }
        }
    }
    let mut garbled = good.clone();
    let last = good.len() - ENTRY_LENGTH;
    garbled[last..].fill(0);
    assert_eq!(read_file(STREAM, &garbled).expect("torn").1, last);
    // Damage before the last entry is no crash's doing.
    garbled = good.clone();
    garbled[last - 1] ^= 1;
    let error = read_file(STREAM, &garbled).expect_err("it is damaged");
    assert_eq!(error.offset as usize, last - ENTRY_LENGTH);
    assert_eq!(error.what, FileErrorKind::Entry(EntryError::Checksum));
}

/// Key 1 seals two segments, key 2 one, key 3 the rest.
fn rotated(journal: &Journal) -> Vec<Entry> {
    let mut entries = vec![first_key(&key(1), 10)];
    let mut chain = Chain::empty(STREAM);
    chain.apply(&entries[0]).expect("it is the first");
    let mut signer = 1;
    for statement in journal.statements() {
        if statement.segment == 2 || statement.segment == 3 {
            let said = Said::Key {
                segment: statement.segment,
                previous: statement.previous,
                key: key(signer + 1).public(),
            };
            entries.push(Entry::sign(said, STREAM, 20, &key(signer)));
            signer += 1;
        }
        entries.push(Entry::sign(Said::Seal(statement), STREAM, 30, &key(signer)));
    }
    for entry in &entries[1..] {
        chain.apply(entry).expect("it follows");
    }
    assert_eq!(chain.key(), Some(&key(3).public()));
    entries
}

#[test]
fn rotated_keys_are_followed_from_the_first() {
    let journal = Journal::new(5);
    let entries = rotated(&journal);
    journal.write_seals(&entries);
    let checked = journal.check_1();
    assert!(checked.is_faultless(), "{:?}", checked.file.findings);
    let keys: Vec<_> = checked
        .file
        .keys
        .iter()
        .map(|named| (named.segment, named.key, named.is_trusted))
        .collect();
    let expected = [(0, 1), (2, 2), (3, 3)];
    assert_eq!(
        keys,
        expected.map(|(segment, n)| (segment, key(n).public(), true))
    );
    // The hashes are those of a node that never changed its key.
    let last = checked.file.last;
    journal.write_seals(&journal.seals(&key(1), 1_000));
    assert_eq!(journal.check_1().file.last, last);

    // Who knows only the newest key can rely on what it signed.
    journal.write_seals(&entries);
    let outcomes = journal.check(&[key(3).public()]).outcomes();
    assert_eq!(outcomes[..3], [SealOutcome::UnknownKey; 3]);
    assert!(outcomes[3..].iter().all(|o| *o == SealOutcome::Intact));

    // Without the step from 1 to 2 nobody vouches for 2, nor for 3.
    let mut fewer = entries.clone();
    fewer.remove(3);
    journal.write_seals(&fewer);
    let outcomes = journal.check_1().outcomes();
    assert_eq!(outcomes[..2], [SealOutcome::Intact; 2]);
    assert!(outcomes[2..].iter().all(|o| *o == SealOutcome::UnknownKey));

    // A step that the old key did not sign.
    let mut forged = entries.clone();
    let said = Said::Key {
        segment: 2,
        previous: entries[2].said.previous(),
        key: key(9).public(),
    };
    forged[3] = Entry::sign(said, STREAM, 20, &key(9));
    journal.write_seals(&forged);
    let unknown = EntryProblem::UnknownKey(key(9).public().id());
    let findings = journal.check_1().file.findings;
    assert!(
        findings.iter().any(|found| found.what == unknown),
        "{findings:?}"
    );
    forged[3].signer = key(1).public().id();
    journal.write_seals(&forged);
    let bad = EntryProblem::BadSignature(key(1).public().id());
    let findings = journal.check_1().file.findings;
    assert!(
        findings.iter().any(|found| found.what == bad),
        "{findings:?}"
    );
}

#[test]
fn a_retired_key_signs_nothing_more() {
    let journal = Journal::new(5);
    let mut entries = rotated(&journal);
    let last = entries.len() - 1;
    entries[last] = Entry::sign(entries[last].said, STREAM, 40, &key(1));
    journal.write_seals(&entries);
    let (_, found) = journal.check_1().only();
    assert_eq!(found, SealFinding::RetiredKey(key(1).public().id()));
    let report = journal.check_1().reports.pop().expect("the last");
    assert_eq!(
        report.seal.expect("it has one").signed,
        Signed::ByRetiredKey
    );
}

/// A group went on without what this node had sealed: the seals are taken back, in writing, and others follow.
#[test]
fn a_cut_takes_seals_back() {
    let journal = Journal::new(4);
    let statements = journal.statements();
    let signed = |said| Entry::sign(said, STREAM, 50, &key(1));
    let lost = Statement {
        root: Digest([3; 32]),
        ..statements[2]
    };
    let cut = Said::Cut {
        segment: 2,
        position: Position(2 * SEGMENT + 512),
        epoch: Epoch(4),
        previous: statements[2].previous,
    };
    let mut entries = vec![first_key(&key(1), 50)];
    entries.extend(statements[..2].iter().map(|s| signed(Said::Seal(*s))));
    entries.push(signed(Said::Seal(lost)));
    entries.push(signed(cut));
    entries.extend(statements[2..].iter().map(|s| signed(Said::Seal(*s))));
    journal.write_seals(&entries);
    let checked = journal.check_1();
    assert!(checked.is_faultless(), "{:?}", checked.reports);
    assert_eq!(checked.file.cuts.len(), 1);
    assert_eq!(checked.file.cuts[0].segment, 2);
    let (chain, _) = read_file(STREAM, &bytes_of(&entries)).expect("it is a chain");
    assert_eq!(chain.seals(), statements);
    // Not by somebody without the key.
    entries[4] = Entry::sign(cut, STREAM, 50, &key(9));
    journal.write_seals(&entries);
    let unknown = EntryProblem::UnknownKey(key(9).public().id());
    assert_eq!(journal.check_1().file.findings[0].what, unknown);
}

#[test]
fn a_segment_that_does_not_go_on_is_not_summed() {
    let journal = Journal::new(2);
    let bytes = fs::read(journal.segment(1)).expect("it is there");
    let geometry = journal.log.geometry;
    let statements = journal.statements();
    let wrong = Link {
        previous_checksum: 1,
        ..statements[0].link()
    };
    let hash = statements[0].hash();
    let mut sum = SegmentSum::new(geometry, STREAM, 1, Some(wrong), hash);
    let error = sum.take(&bytes, &mut |_, _| {}).expect_err("it is wrong");
    assert_eq!(
        (error.position, error.front),
        (Position(SEGMENT), Front::ChainBroken)
    );
    assert_eq!(sum.statement(), None);
    let mut sum = SegmentSum::new(geometry, STREAM, 1, None, hash);
    let half = sum
        .take(&bytes[..40_000], &mut |_, _| {})
        .expect("it is right");
    assert!(half <= 40_000 && !sum.is_complete() && sum.statement().is_none());
    sum.take(&bytes[half..], &mut |_, _| {})
        .expect("it is right");
    assert_eq!(sum.statement(), Some(statements[1]));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 256), kind in 0..5_u8, is_like_one: bool) {
        if is_like_one {
            bytes[..8].copy_from_slice(b"RELAYSEL");
            bytes[8..12].copy_from_slice(&[1, 0, kind, 0]);
            bytes[84..96].fill(0);
            bytes[240..252].fill(0);
            let sum = crc32c(&bytes[..252]);
            bytes[252..].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(&entry.encode()[..], &bytes[..]);
            prop_assert!(!entry.is_signed_by(&key(1).public()));
        }
        let _ = read_file(STREAM, &bytes);
    }

    #[test]
    fn no_segment_makes_the_sum_panic(seed: u64, changes in prop::collection::vec((0..SEGMENT as usize, any::<u8>()), 1..8)) {
        let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
        log.begin(2, 2);
        log.grow(20, 2_000, &mut Random(seed));
        let mut bytes = log.image(SEGMENT as usize * 4);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let mut sum = SegmentSum::new(log.geometry, STREAM, 0, None, Digest::default());
        let _ = sum.take(&bytes[..SEGMENT as usize], &mut |_, _| {});
    }
}

#[test]
fn keys_and_digests_are_read_as_they_are_shown() {
    let public = key(3).public();
    assert_eq!(public.to_string().parse(), Ok(public));
    assert_eq!(Digest([9; 32]).to_string(), "09".repeat(32));
    assert!("0".repeat(63).parse::<PublicKey>().is_err());
    assert!("g".repeat(64).parse::<PublicKey>().is_err());
    assert_eq!(KeyId(0xabc).to_string(), "0000000000000abc");
    let shown = format!("{:?}", key(3));
    assert_eq!(shown, format!("SigningKey({public})"));
}
