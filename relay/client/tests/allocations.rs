//! Goal: sending, acknowledging and receiving allocate nothing after start. Method: an allocator that counts, and only while a
//! client's call runs; enough messages that window and receive buffer wrap several times.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use relay_client::wire::code::RecordKind;
use relay_client::{OutMessage, PublisherConfig, Start};
use support::{Relay, Terms, defined, released};

thread_local! {
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn note() {
        if IS_COUNTING.get() {
            COUNT.set(COUNT.get() + 1);
        }
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the count touches nothing but thread-local cells, which
// need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(act: impl FnOnce() -> T) -> T {
    IS_COUNTING.set(true);
    let value = act();
    IS_COUNTING.set(false);
    value
}

#[test]
fn the_count_works() {
    counted(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(COUNT.take(), 1);
}

#[test]
fn a_publisher_allocates_nothing_while_it_sends() {
    let relay = Relay::new();
    let config = PublisherConfig {
        window_bytes: 1 << 16,
        ..relay.publisher_config()
    };
    let (mut publisher, mut session, topic) = relay.publisher(config, Terms::default());
    let payload = [7; 256];
    for round in 1..=100 {
        counted(|| {
            for _ in 0..100 {
                publisher
                    .try_send(&OutMessage::new(topic, &payload))
                    .unwrap();
            }
            publisher.flush().unwrap();
        });
        session.records(100, || counted(|| publisher.poll().map(drop).unwrap()));
        session.ack(round * 100, round * 100);
        while publisher.unacknowledged() > 0 {
            counted(|| publisher.poll().unwrap());
        }
    }
    assert_eq!(COUNT.take(), 0);
}

#[test]
fn a_subscriber_allocates_nothing_while_it_receives() {
    let relay = Relay::new();
    let config = relay.subscriber_config(">", Start::Earliest);
    let (mut subscriber, mut session, _) = relay.subscriber(config, 1, 1);
    session.send_bytes(&defined(1, 1, "a.b"));
    assert!(subscriber.poll().unwrap().is_none());
    for round in 0..100 {
        for seq in round * 100 + 1..=(round + 1) * 100 {
            session.send_bytes(&released(RecordKind::Data, 1, seq, &[7; 256]));
        }
        while subscriber.next_seq().get() <= (round + 1) * 100 {
            counted(|| subscriber.poll().map(drop).unwrap());
        }
    }
    assert_eq!(COUNT.take(), 0);
}
