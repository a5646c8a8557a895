//! What an audit costs: reading a journal's blocks, checking everything in them, making an index, and finding a seq by it.
//! `cargo bench -p relay-benches --bench audit`.
//!
//! The journal is laid out once below the target directory, 64 MiB of it, so that the numbers are those of the processor and
//! the page cache or disk of this machine.

#[path = "../../journal/tests/log/mod.rs"]
mod log;

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use log::{LogBuilder, superblock};
use relay_journal::block::{HEADER_LENGTH, records};
use relay_journal::reader::JournalDir;
use relay_journal::reader::point::PointReader;
use relay_journal::reader::side_index::Wanted;
use relay_journal::segment;
use relay_journal::side_index::{self, Builder};
use relay_journal::superblock::FILE_NAME;
use relay_journal::tables::Tables;
use relay_wire::id::{Position, Seq};

const SEGMENT_SIZE: u64 = 16 << 20;

/// A log of 64 MiB with so many messages of 256 bytes in each block.
fn filled(messages: u32) -> LogBuilder {
    let mut log = LogBuilder::new(superblock(SEGMENT_SIZE, 4096, 1 << 22));
    log.begin(100, 100);
    let mut number = 0;
    while log.tail() < 64 << 20 {
        for _ in 0..messages {
            number += 1;
            log.keyed(
                number % 100 + 1,
                (number % 100) as u32 + 1,
                number,
                &[7; 184],
            );
        }
        log.seal();
    }
    log
}

fn lay_out(log: &LogBuilder, directory: &Path) {
    let generations = [log.superblock.encode(), log.superblock.encode()].concat();
    fs::write(directory.join(FILE_NAME), generations).expect("written");
    let segments = directory.join(segment::DIRECTORY);
    fs::create_dir(&segments).expect("made");
    let prepared = log.tail().next_multiple_of(SEGMENT_SIZE as usize);
    for (index, bytes) in log
        .image(prepared)
        .chunks(SEGMENT_SIZE as usize)
        .enumerate()
    {
        fs::write(segments.join(segment::name(index as u64)), bytes).expect("written");
    }
}

fn put_index(log: &LogBuilder, directory: &Path, segment: u64) {
    let home = directory.join(side_index::DIRECTORY);
    fs::create_dir_all(&home).expect("made");
    let bytes = make_index(log, segment);
    fs::write(home.join(side_index::name(segment)), bytes).expect("written");
}

fn make_index(log: &LogBuilder, segment: u64) -> Vec<u8> {
    let mut builder = Builder::new(log::STREAM, log.geometry, segment, None);
    let mut bytes = vec![0; side_index::PAGE_LENGTH];
    let inside = |position: Position| log.geometry.segment_of(position) == segment;
    for write in log
        .writes
        .iter()
        .filter(|write| inside(write.header.position))
    {
        let body = &write.bytes[HEADER_LENGTH..write.header.body_end()];
        builder.add_block(&write.header, body).expect("it is due");
        bytes.extend(
            builder
                .take_pages()
                .into_iter()
                .flat_map(|(_, pages)| pages),
        );
    }
    let head = builder.head().expect("the segment is full");
    bytes[..head.len()].copy_from_slice(&head);
    bytes
}

fn audit(criterion: &mut Criterion) {
    for messages in [1, 900] {
        let log = filled(messages);
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        lay_out(&log, home.path());
        put_index(&log, home.path(), 1);
        let journal = JournalDir::open(home.path()).expect("a journal");
        let end = log.tables.position;
        let mut group = criterion.benchmark_group(format!("{messages}_messages_a_block"));
        group.sample_size(10);
        group.throughput(Throughput::Bytes(log.tables.position.0));
        group.bench_function("scan", |bencher| {
            bencher.iter(|| {
                let mut blocks = journal.blocks_ahead(Position(0), end).expect("it opens");
                let mut seen = 0;
                while let Some(block) = blocks.next_block() {
                    seen += block.expect("it is whole").body.len();
                }
                seen
            });
        });
        group.bench_function("verify", |bencher| bencher.iter(|| verify(&journal, end)));
        group.throughput(Throughput::Bytes(SEGMENT_SIZE));
        group.bench_function("index", |bencher| {
            bencher.iter(|| make_index(&log, 1).len())
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function("find_seq", |bencher| bencher.iter(|| find(&journal)));
        group.finish();
    }
}

/// The rules and every record's checksum, on top of the scan.
fn verify(journal: &JournalDir, end: Position) -> u64 {
    let mut tables = Tables::empty(log::STREAM);
    let mut blocks = journal.blocks_ahead(Position(0), end).expect("it opens");
    while let Some(block) = blocks.next_block() {
        let block = block.expect("it is whole");
        for record in records(block.body) {
            let (_, record) = record.expect("it is whole");
            record.verify().expect("it is intact");
        }
        let applied = tables.apply_block(&block.header, block.body);
        applied.expect("it keeps the rules");
    }
    tables.next_seq.0
}

/// A seq in the middle of a segment that has an index.
fn find(journal: &JournalDir) -> u64 {
    let mut points = PointReader::new(journal);
    let mut index = journal.side_index(1).expect("it is intact");
    let head = index.head();
    let seq = Seq(usize::midpoint(head.first_seq.0 as usize, head.next_seq.0 as usize) as u64);
    let (geometry, segment) = (head.geometry, head.segment);
    let wanted = Wanted {
        seqs: (seq, seq),
        ..Wanted::ALL
    };
    let mut found = 0;
    for part in index.head().parts_of(wanted.seqs, wanted.times_ns) {
        for row in index.blocks(part, &wanted).expect("it is intact") {
            let block = points.intact_block(row.position(geometry, segment));
            found += block.expect("it is whole").header.first_seq.0;
        }
    }
    black_box(found)
}

criterion_group!(benches, audit);
criterion_main!(benches);
