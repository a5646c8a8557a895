//! A link between agents: what a value takes through the queue on one thread, and there and back between two threads that
//! spin. The round trip needs two CPUs of one's own to say anything.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use relay_benches::CONN;
use relay_core::command::ToSequence;
use rtrb::RingBuffer;

const PLACES: usize = 1 << 14;

fn command() -> ToSequence {
    ToSequence::Records {
        conn: CONN,
        offset: 0,
        length: 256,
        receive_time_ns: 1,
    }
}

fn same_thread(criterion: &mut Criterion) {
    let (mut producer, mut consumer) = RingBuffer::new(PLACES);
    criterion.bench_function("link/push_pop_same_thread", |bencher| {
        bencher.iter(|| {
            producer.push(black_box(command())).expect("it has a place");
            black_box(consumer.pop())
        });
    });
}

/// Spins for a value; gives the CPU away now and then, so that it ends where both threads share one.
fn await_value(consumer: &mut rtrb::Consumer<ToSequence>, stop: &AtomicBool) -> Option<ToSequence> {
    let mut turns = 0_u32;
    loop {
        if let Ok(value) = consumer.pop() {
            return Some(value);
        }
        turns += 1;
        if turns.is_multiple_of(1 << 12) {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

fn round_trip(criterion: &mut Criterion) {
    let (mut there, mut arrived) = RingBuffer::new(PLACES);
    let (mut back, mut returned) = RingBuffer::new(PLACES);
    let stop = Arc::new(AtomicBool::new(false));
    let echo = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while let Some(value) = await_value(&mut arrived, &stop) {
                back.push(value).expect("one value is under way");
            }
        })
    };
    criterion.bench_function("link/round_trip_two_threads", |bencher| {
        bencher.iter(|| {
            there
                .push(black_box(command()))
                .expect("one value is under way");
            await_value(&mut returned, &stop)
        });
    });
    stop.store(true, Ordering::Relaxed);
    echo.join().expect("the other thread ends");
}

criterion_group!(benches, same_thread, round_trip);
criterion_main!(benches);
