//! What the fan-out takes to walk the log for one subscriber, from the memory ring: unfiltered, where whole bodies go out
//! unlooked at, and filtered by one topic of eight, where each record is looked at. Sends are accepted at once, so what is
//! measured is finding the bytes, not sending them. The log is a turn of 128 records of 256 bytes, again and again.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relay_benches::{CONN, Stream, credentials, data_record, settings};
use relay_core::command::ConnId;
use relay_core::fanout::{Fanout, FanoutEffect};
use relay_core::log::LogView;
use relay_journal::tables::Tables;
use relay_wire::code::From;
use relay_wire::id::{Epoch, Position};
use relay_wire::message::{Message, Patterns, Subscribe};

const RECORD: usize = 256;
const TURN: u64 = 128;
const TURNS: u64 = 64;
const TOPICS: u32 = 8;
const LOG: usize = 16 << 20;

fn written() -> Stream {
    let mut stream = Stream::new(LOG, TOPICS);
    let mut next = 1;
    for _ in 0..TURNS {
        let batch: Vec<u8> = (next..next + TURN)
            .flat_map(|number| data_record(number, 1 + number as u32 % TOPICS, RECORD))
            .collect();
        stream.publish(&batch);
        next += TURN;
    }
    stream
}

/// A fan-out that was told of the whole log, and a subscriber from its start.
fn subscribed(stream: &Stream, pattern: &str) -> (Fanout, ConnId) {
    let tables = Tables::empty(relay_benches::STREAM);
    // A ring of twice the log's length, so that the floor stays at its start.
    let settings = settings(2 * LOG as u64);
    let mut fanout = Fanout::new(settings, credentials(), &tables, Epoch(1));
    fanout.on_released(stream.released, &view(stream));
    let conn = fanout
        .on_subscriber(CONN.index, 0)
        .expect("there is a place");
    let mut laid_out = Vec::new();
    let patterns = Patterns::lay_out(&[pattern], &mut laid_out).expect("there is one");
    let asked = Subscribe {
        from: From::Earliest,
        checksum: None,
        value: 0,
        patterns,
    };
    let bytes = Message::Subscribe(asked)
        .to_vec()
        .expect("it can be encoded");
    assert_eq!(fanout.on_bytes(conn, &bytes, 0), bytes.len());
    (fanout, conn)
}

fn view(stream: &Stream) -> LogView<'_> {
    let end = stream.released.position.get() as usize;
    LogView::new(Position(0), &stream.log[..end])
}

/// Serves until the subscriber has everything; returns the bytes of log it was sent.
fn serve(fanout: &mut Fanout, view: &LogView<'_>) -> u64 {
    let mut sent = 0;
    while fanout.has_work() {
        fanout.serve(view, &[], 0);
        while let Some(effect) = fanout.poll_effect() {
            match effect {
                FanoutEffect::SendLog { conn, .. } => {
                    let length: u64 = fanout.pieces(conn).map(|p| u64::from(p.length)).sum();
                    sent += length;
                    fanout.on_sent(conn, length as usize, 0);
                }
                FanoutEffect::SendMessages(conn) => {
                    let length = fanout.outgoing(conn).len();
                    fanout.on_sent(conn, length, 0);
                }
                other => panic!("the log is in the ring and every socket has room: {other:?}"),
            }
        }
    }
    sent
}

fn walks(criterion: &mut Criterion) {
    let stream = written();
    let view = view(&stream);
    let records = TURN * TURNS;
    let mut group = criterion.benchmark_group("fanout");
    group.throughput(Throughput::Elements(records));
    for (name, pattern, wanted) in [
        ("plain", ">", records),
        ("one_topic_of_eight", "orders.x3", records / 8),
    ] {
        group.bench_function(BenchmarkId::new("walk", name), |bencher| {
            bencher.iter_batched(
                || subscribed(&stream, pattern),
                |(mut fanout, _)| {
                    let sent = serve(&mut fanout, &view);
                    assert!(sent >= wanted * RECORD as u64, "everything wanted is sent");
                    sent
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, walks);
criterion_main!(benches);
