//! The codecs of the wire: a record as a publisher lays it out and as ingress checks it, session messages both ways.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relay_wire::code::RecordKind;
use relay_wire::id::{Epoch, Incarnation, PublisherId, PublisherSeq, Seq, TopicId};
use relay_wire::message::{Ack, Message, Topic};
use relay_wire::record::{self, Fields};

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for length in [256_usize, 4_096] {
        group.throughput(Throughput::Bytes(length as u64));
        let payload = vec![0x5A; length];
        let fields = Fields {
            topic: TopicId(3),
            publisher: PublisherId(7),
            incarnation: Incarnation(1),
            publisher_seq: PublisherSeq(9),
            key_hash: 1,
            origin_time_ns: 2,
        };
        let mut out = vec![0; record::encoded_stride(0, length)];
        group.bench_with_input(
            BenchmarkId::new("encode", length),
            &payload,
            |bencher, payload| {
                bencher.iter(|| {
                    record::encode(&mut out, RecordKind::Data, black_box(&fields), &[], payload)
                });
            },
        );
        let encoded = relay_benches::data_record(9, 3, record::encoded_stride(0, length));
        group.bench_with_input(
            BenchmarkId::new("check_published", length),
            &encoded,
            |bencher, encoded| bencher.iter(|| record::check_published(black_box(encoded)).is_ok()),
        );
    }
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    let ack = Ack {
        publisher_seq: PublisherSeq(9),
        seq: Seq(1_000),
        epoch: Epoch(1),
    };
    let topic = Topic {
        request: 0,
        topic: TopicId(3),
        name: "orders.xnas.ABC",
    };
    for (name, message) in [("ack", Message::Ack(ack)), ("topic", Message::Topic(topic))] {
        let mut out = [0_u8; 512];
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| black_box(&message).encode(&mut out));
        });
        let encoded = message.to_vec().expect("it can be encoded");
        let length = u32::from_le_bytes([encoded[0], encoded[1], encoded[2], encoded[3]]) as usize;
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| Message::decode(black_box(&encoded[..length])).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, records, messages);
criterion_main!(benches);
