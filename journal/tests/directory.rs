//! Goal: the plain-file reader hands out exactly what was released, from any start, and reports
//! damage where it is. Method: logs built in memory are laid out as a journal's directory, then
//! damaged.

mod log;

use std::fs;
use std::path::Path;

use log::{LogBuilder, Random, SEGMENT, superblock};
use relay_journal::checkpoint;
use relay_journal::reader::{Gap, JournalDir, ReadFrom, ReaderError};
use relay_journal::recovery::{Beyond, RecoveryError};
use relay_journal::scan::Front;
use relay_journal::segment;
use relay_journal::superblock::{CleanStop, FILE_NAME, Superblock};
use relay_wire::id::{Position, Seq};

fn built(blocks: usize) -> LogBuilder {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(2, 2);
    log.grow(blocks, 3_000, &mut Random(5));
    log
}

fn lay_out(log: &LogBuilder, superblock: &Superblock) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let older = Superblock {
        generation: 0,
        clean: None,
        ..*superblock
    };
    let generations = [older.encode(), superblock.encode()].concat();
    fs::write(directory.path().join(FILE_NAME), generations).expect("the superblock is written");
    let segments = directory.path().join(segment::DIRECTORY);
    fs::create_dir(&segments).expect("the directory is made");
    let prepared = (log.tail() + 2 * SEGMENT as usize).next_multiple_of(SEGMENT as usize);
    for (index, bytes) in log.image(prepared).chunks(SEGMENT as usize).enumerate() {
        fs::write(segments.join(segment::name(index as u64)), bytes).expect("it is written");
    }
    directory
}

fn add_checkpoint(directory: &Path, log: &LogBuilder, writes: usize) -> Position {
    let tables = log.tables_after(writes);
    let file = directory.join(checkpoint::name(tables.position));
    fs::write(file, checkpoint::encode(&tables)).expect("the checkpoint is written");
    tables.position
}

fn open(directory: &tempfile::TempDir) -> JournalDir {
    JournalDir::open(directory.path()).expect("it is a journal")
}

fn seqs(journal: &JournalDir, from: ReadFrom) -> (Vec<u64>, Option<ReaderError>) {
    let mut reader = journal.records(from).expect("it can be read");
    let mut seqs = Vec::new();
    loop {
        match reader.next_record() {
            Some(Ok(found)) if found.record.is_data() => seqs.push(found.record.seq().0),
            Some(Ok(_)) => {}
            Some(Err(error)) => return (seqs, Some(error)),
            None => return (seqs, None),
        }
    }
}

fn flip(directory: &Path, position: usize) {
    let name = segment::name(position as u64 / SEGMENT);
    let file = directory.join(segment::DIRECTORY).join(name);
    let mut bytes = fs::read(&file).expect("it is there");
    bytes[position % SEGMENT as usize] ^= 1;
    fs::write(file, bytes).expect("it is written");
}

#[test]
fn hands_out_what_was_released_from_any_start() {
    let log = built(200);
    let directory = lay_out(&log, &log.superblock);
    let journal = open(&directory);
    let extent = journal.extent().expect("it can be read");
    assert_eq!(extent.tables, log.tables);
    assert_eq!(extent.released, log.tables.released);
    assert!(extent.released < extent.tail);
    let released = log
        .writes
        .iter()
        .rev()
        .find(|w| w.header.next_position() == extent.released);
    let last = released.expect("it ends a block").header.next_seq().0 - 1;
    for with_checkpoint in [false, true] {
        if with_checkpoint {
            add_checkpoint(directory.path(), &log, 100);
        }
        let (all, error) = seqs(&journal, ReadFrom::Start);
        assert!(error.is_none());
        assert_eq!(all, (1..=last).collect::<Vec<_>>());
        for first in [1, 2, last / 2, last] {
            let (found, _) = seqs(&journal, ReadFrom::Seq(Seq(first)));
            assert_eq!(found, (first..=last).collect::<Vec<_>>());
        }
        assert_eq!(
            seqs(&journal, ReadFrom::Seq(Seq(last + 1))).0,
            Vec::<u64>::new()
        );
        // The builder's clock ticks by 10 with each record.
        let mut reader = journal
            .records(ReadFrom::Time(3_005))
            .expect("it can be read");
        let first = reader
            .next_record()
            .expect("there is one")
            .expect("it is intact");
        assert_eq!(first.record.receive_time_ns(), 3_010);
    }
}

/// Goal: whole blocks are the same records, from the block on that holds the first one asked for.
#[test]
fn whole_blocks_hold_the_same_records() {
    let log = built(200);
    let directory = lay_out(&log, &log.superblock);
    let journal = open(&directory);
    let (all, _) = seqs(&journal, ReadFrom::Start);
    let last = *all.last().expect("something is released");
    for first in [1, last / 2, last] {
        let mut reader = journal
            .records(ReadFrom::Seq(Seq(first)))
            .expect("it can be read");
        let mut found = Vec::new();
        while let Some(block) = reader.next_block() {
            let block = block.expect("it is intact");
            let records = relay_journal::block::records(block.body);
            let records = records.map(|record| record.expect("it is intact").1);
            found.extend(records.filter(|r| r.is_data()).map(|r| r.seq().0));
        }
        assert!(found[0] <= first);
        let from = found.iter().position(|&seq| seq == first);
        let from = from.expect("the first one asked for is there");
        assert_eq!(found[from..], all[first as usize - 1..]);
    }
}

#[test]
fn a_clean_stop_releases_everything() {
    let log = built(60);
    let clean = Some(CleanStop {
        tail: log.tables.position,
        checksum: log.tables.previous_checksum,
        next_seq: log.tables.next_seq,
    });
    let directory = lay_out(
        &log,
        &Superblock {
            clean,
            ..log.superblock
        },
    );
    let extent = open(&directory).extent().expect("it can be read");
    assert_eq!(
        (extent.released, extent.tail),
        (log.tables.position, log.tables.position)
    );
    let (all, _) = seqs(&open(&directory), ReadFrom::Start);
    assert_eq!(all.last(), Some(&(log.tables.next_seq.0 - 1)));
}

#[test]
fn damage_is_reported_where_it_is() {
    let log = built(200);
    let directory = lay_out(&log, &log.superblock);
    let damaged = &log.writes[90];
    flip(directory.path(), damaged.position() + 130);
    let journal = open(&directory);
    let extent = journal.extent().expect("it can be read");
    assert_eq!(extent.tail, damaged.header.position);
    assert_eq!(extent.released, extent.tail);
    assert_eq!(extent.tables, log.tables_after(90));
    assert!(matches!(extent.verdict, Err(RecoveryError::Rotten(_))));
    let mut blocks = journal.blocks(Position(0));
    let mut count = 0;
    let damage = loop {
        match blocks.next_block() {
            Some(Ok(_)) => count += 1,
            Some(Err(ReaderError::Damage(damage))) => break damage,
            other => panic!("no damage after {count} blocks: {other:?}"),
        }
    };
    assert_eq!(count, 90);
    assert_eq!(
        (damage.position, damage.front),
        (damaged.header.position, Front::BadBody)
    );
    assert_eq!(damage.segment, damaged.header.position.0 / SEGMENT);
    assert_eq!(damage.offset, damaged.header.position.0 % SEGMENT);
    assert!(blocks.next_block().is_none());
    let (found, error) = seqs(&journal, ReadFrom::Start);
    assert_eq!(found, (1..damaged.header.first_seq.0).collect::<Vec<_>>());
    assert!(error.is_none(), "{error:?}");
    // Behind a checkpoint the same damage is met by the one who reads from the start, as damage.
    add_checkpoint(directory.path(), &log, 120);
    let (found, error) = seqs(&journal, ReadFrom::Start);
    assert_eq!(found.len() as u64, damaged.header.first_seq.0 - 1);
    assert!(matches!(error, Some(ReaderError::Damage(found)) if found == damage));
}

#[test]
fn a_damaged_checkpoint_costs_only_time() {
    let log = built(100);
    let directory = lay_out(&log, &log.superblock);
    let older = add_checkpoint(directory.path(), &log, 40);
    let newer = add_checkpoint(directory.path(), &log, 80);
    let journal = open(&directory);
    assert_eq!(
        journal.checkpoints().expect("they are listed"),
        vec![newer, older]
    );
    assert_eq!(
        journal.newest_tables().expect("one is good").position,
        newer
    );
    let file = directory.path().join(checkpoint::name(newer));
    fs::write(&file, &fs::read(&file).expect("it is there")[..100]).expect("it is written");
    assert_eq!(
        journal.newest_tables().expect("one is good").position,
        older
    );
    assert_eq!(journal.extent().expect("it can be read").tables, log.tables);
}

/// Goal: a checkpoint that outlived the log's blocks before it is not started from, and what is missing is damage.
/// Method: zero the log from inside the last blocks before the newest checkpoint, as a power cut of a disk that lied does.
#[test]
fn a_checkpoint_without_the_log_before_it_is_not_believed() {
    let (log, mut left) = (built(80), built(80));
    left.writes.truncate(76);
    let directory = lay_out(&left, &log.superblock);
    let older = add_checkpoint(directory.path(), &log, 40);
    let newer = add_checkpoint(directory.path(), &log, 80);
    let journal = open(&directory);
    let start = journal.recovery_start().expect("the log can be read");
    assert_eq!(start.tables().position, older);
    let extent = journal.extent().expect("damage is part of the answer");
    assert_eq!(extent.tail, log.writes[76].header.position);
    let Err(RecoveryError::Rotten(finding)) = extent.verdict else {
        panic!("it was taken for {:?}", extent.verdict);
    };
    assert_eq!(finding.position, extent.tail);
    assert_eq!(finding.evidence.beyond, Beyond::Checkpoint);
    assert_eq!(finding.witness, Some(newer));
    // Where the newer one is gone too, nothing tells that more was there: the log just ends.
    fs::remove_file(directory.path().join(checkpoint::name(newer))).expect("it is there");
    let extent = journal.extent().expect("it can be read");
    assert!(extent.verdict.is_ok(), "{:?}", extent.verdict);
    assert_eq!(extent.tail, log.writes[76].header.position);
}

#[test]
fn missing_segments_are_gaps() {
    let log = built(300);
    let directory = lay_out(&log, &log.superblock);
    let segments = directory.path().join(segment::DIRECTORY);
    fs::remove_file(segments.join(segment::name(2))).expect("it was there");
    let journal = open(&directory);
    assert_eq!(journal.gaps(), vec![Gap { first: 2, last: 2 }]);
    assert!(matches!(journal.extent(), Err(ReaderError::Source(_))));
}

#[test]
fn a_directory_that_is_no_journal_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(matches!(
        JournalDir::open(directory.path()),
        Err(ReaderError::Io { .. })
    ));
    fs::write(directory.path().join(FILE_NAME), [0; 100]).expect("it is written");
    fs::create_dir(directory.path().join(segment::DIRECTORY)).expect("it is made");
    let error = JournalDir::open(directory.path());
    assert!(
        matches!(error, Err(ReaderError::Superblock(_))),
        "{error:?}"
    );
}
