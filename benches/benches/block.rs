//! A block of the journal: sealing it, and reading it back with both checksums.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relay_benches::block_of;
use relay_journal::block::{self, HEADER_LENGTH};

fn blocks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block");
    for body_length in [4_096_usize, 65_536, 262_144] {
        group.throughput(Throughput::Bytes(body_length as u64));
        let (header, mut bytes) = block_of(body_length);
        group.bench_function(BenchmarkId::new("seal", body_length), |bencher| {
            bencher.iter(|| block::seal(&mut bytes, black_box(&header)).checksum);
        });
        group.bench_function(
            BenchmarkId::new("decode_and_verify", body_length),
            |bencher| {
                bencher.iter(|| {
                    let bytes = black_box(&bytes);
                    let header = block::decode_header(bytes).expect("it was sealed");
                    let (body, padding) =
                        bytes[HEADER_LENGTH..].split_at(header.body_length as usize);
                    block::verify_body(&header, body).expect("it was sealed");
                    block::verify_padding(padding).expect("it was sealed");
                    header.checksum
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, blocks);
criterion_main!(benches);
