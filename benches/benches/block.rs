//! A block of the journal: sealing it, and reading it back with both checksums.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relay_journal::block::{self, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_wire::id::{Epoch, Position, Seq};

const RECORD: usize = 256;

/// A header and, behind room for it, `body_length` bytes of records.
fn block_of(body_length: usize) -> (BlockHeader, Vec<u8>) {
    let records = body_length / RECORD;
    let span = block::span_for(body_length as u32, 4_096);
    let header = BlockHeader {
        kind: BlockKind::Records,
        stream: relay_benches::STREAM,
        epoch: Epoch(1),
        number: 2,
        position: Position(4_096),
        first_seq: Seq(1),
        record_count: records as u32,
        data_count: records as u32,
        body_length: body_length as u32,
        span,
        sealed_time_ns: 1,
        released: Position(0),
        previous_checksum: 3,
        body_checksum: 0,
        checksum: 0,
    };
    let mut bytes = vec![0; span as usize];
    for (number, place) in bytes[HEADER_LENGTH..]
        .chunks_exact_mut(RECORD)
        .take(records)
        .enumerate()
    {
        place.copy_from_slice(&relay_benches::data_record(number as u64 + 1, 1, RECORD));
    }
    (header, bytes)
}

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
