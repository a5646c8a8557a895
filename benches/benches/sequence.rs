//! What the sequencer takes for a record of 256 bytes: duplicate check, stamp, copy, sealing, and, as the write completes at
//! once, release and acknowledgement. The number in the name is how many records one command brings; a block is sealed
//! after each command, so with few of them the sealing weighs most.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relay_benches::{Stream, data_record};
use relay_wire::id::{PublisherSeq, TopicId};
use relay_wire::record;

const RECORD: usize = 256;
const LOG: usize = 64 << 20;

fn sequencing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sequence");
    for count in [1_u64, 16, 128] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("records_256B", count), |bencher| {
            let mut stream = Stream::new(LOG, 1);
            let mut next = 1;
            let mut batch = data_record(1, 1, RECORD).repeat(count as usize);
            bencher.iter_custom(|iterations| {
                let mut took = Duration::ZERO;
                for _ in 0..iterations {
                    if stream.room() < 2 << 20 {
                        // The log in memory has an end; a new one is made outside what is timed.
                        stream = Stream::new(LOG, 1);
                        next = 1;
                    }
                    for place in batch.chunks_exact_mut(RECORD) {
                        record::readdress(place, TopicId(1), PublisherSeq(next))
                            .expect("it is a record");
                        next += 1;
                    }
                    let begun = Instant::now();
                    stream.publish(black_box(&batch));
                    took += begun.elapsed();
                }
                assert_eq!(
                    stream.released.next_seq.get(),
                    next,
                    "all of it is released"
                );
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sequencing);
criterion_main!(benches);
