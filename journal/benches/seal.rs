//! What a seal costs: the sum over a segment (blocks checked, BLAKE3), signing it, and checking a signature.
//! `cargo bench -p relay-journal --bench seal`.

#[path = "../tests/log/mod.rs"]
mod log;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use log::{LogBuilder, STREAM, superblock};
use relay_journal::block::SPAN_MAX;
use relay_journal::scan::Link;
use relay_journal::seal::{Digest, Entry, Said, SegmentSum, SigningKey, Statement};
use relay_journal::tables::Tables;

const SEGMENT: usize = 16 << 20;

/// A whole segment of blocks with so many messages of 256 bytes each.
fn segment(messages: u32) -> (LogBuilder, Vec<u8>) {
    let mut log = LogBuilder::new(superblock(SEGMENT as u64, 4096, 1 << 22));
    log.begin(1, 1);
    while log.tail() < SEGMENT {
        for _ in 0..messages {
            log.data(1, 1, &[7; 184]);
        }
        log.seal();
    }
    let mut image = log.image(2 * SEGMENT);
    image.truncate(SEGMENT);
    (log, image)
}

fn sum(log: &LogBuilder, bytes: &[u8]) -> Statement {
    let link = Some(Link::after_tables(&Tables::empty(STREAM)));
    let mut sum = SegmentSum::new(log.geometry, STREAM, 0, link, Digest::default());
    let mut at = 0;
    while !sum.is_complete() {
        let end = bytes.len().min(at + SPAN_MAX as usize);
        at += sum
            .take(&bytes[at..end], &mut |_, _| {})
            .expect("it is right");
    }
    sum.statement().expect("it is complete")
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment_sum");
    group
        .throughput(Throughput::Bytes(SEGMENT as u64))
        .sample_size(20);
    for messages in [1, 16, 900] {
        let (log, bytes) = segment(messages);
        let name = BenchmarkId::from_parameter(format!("{messages}_messages_a_block"));
        group.bench_function(name, |bencher| bencher.iter(|| sum(&log, &bytes)));
    }
    group.finish();

    let (log, bytes) = segment(900);
    let statement = sum(&log, &bytes);
    let key = SigningKey::from_secret(&[7; 32]);
    let sign = || Entry::sign(Said::Seal(statement), STREAM, 1, &key);
    criterion.bench_function("sign_entry", |bencher| bencher.iter(sign));
    let (entry, public) = (sign(), key.public());
    criterion.bench_function("check_signature", |bencher| {
        bencher.iter(|| assert!(entry.is_signed_by(&public)));
    });
}

criterion_group!(benches, seal);
criterion_main!(benches);
