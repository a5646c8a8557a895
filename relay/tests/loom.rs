//! Goal: nobody sleeps with something in its link, and a position published is seen with what was written before it.
//! Method: loom runs small models of the links in every interleaving and with every value a weak memory may give.
//!
//! The announcement is the product's own source; around it stand a link of one place, the eventfd as a counter, and a
//! position as `link.rs` has it. Three canaries take a fence or an ordering away and must be caught.
//!
//! ```text
//! RUSTFLAGS="--cfg relay_loom" cargo test -p relayd --test loom --release --target-dir target/loom
//! ```
#![cfg(relay_loom)]

#[path = "../src/parking_flag.rs"]
mod parking_flag;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use parking_flag::ParkingFlag;

/// What a sleeper and those who wake it do with the announcement.
trait Announcement: Send + Sync + 'static {
    fn new() -> Self;
    fn announce(&self);
    fn leave(&self);
    fn is_announced(&self) -> bool;
}

impl Announcement for ParkingFlag {
    fn new() -> Self {
        Self::new()
    }
    fn announce(&self) {
        self.announce();
    }
    fn leave(&self) {
        self.leave();
    }
    fn is_announced(&self) -> bool {
        self.is_announced()
    }
}

/// The same without its fences: store and look of either side may pass each other.
struct Unfenced(AtomicBool);

impl Announcement for Unfenced {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }
    fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn leave(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
    fn is_announced(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A link of one place, as weakly ordered as `rtrb`'s: release when something is put in, acquire when it is looked for.
struct Link {
    is_full: AtomicBool,
    place: UnsafeCell<u32>,
}

// SAFETY: the flag hands the place from one side to the other; loom checks that it does.
unsafe impl Sync for Link {}

impl Link {
    fn new() -> Self {
        Self {
            is_full: AtomicBool::new(false),
            place: UnsafeCell::new(0),
        }
    }

    fn push(&self, value: u32) -> bool {
        if self.is_full.load(Ordering::Acquire) {
            return false;
        }
        // SAFETY: the place is empty, and only the one producer fills it.
        self.place.with_mut(|place| unsafe { *place = value });
        self.is_full.store(true, Ordering::Release);
        true
    }

    fn pop(&self) -> Option<u32> {
        if !self.is_full.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the place is full, and only the one consumer empties it.
        let value = self.place.with(|place| unsafe { *place });
        self.is_full.store(false, Ordering::Release);
        Some(value)
    }

    fn is_empty(&self) -> bool {
        !self.is_full.load(Ordering::Acquire)
    }
}

struct Thread<A> {
    flag: A,
    link: Link,
    /// Writes to the eventfd.
    event: AtomicUsize,
}

/// One goes to sleep while another puts something in its link.
fn a_sleeper_and_a_producer<A: Announcement>() {
    loom::model(|| {
        let shared = Arc::new(Thread {
            flag: A::new(),
            link: Link::new(),
            event: AtomicUsize::new(0),
        });
        let producer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                assert!(shared.link.push(7));
                if shared.flag.is_announced() {
                    shared.event.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        shared.flag.announce();
        let sleeps = shared.link.is_empty();
        producer.join().expect("the producer ends");
        let is_woken = shared.event.load(Ordering::Relaxed) > 0;
        assert!(!sleeps || is_woken, "asleep with something in its link");
        shared.flag.leave();
        assert_eq!(shared.link.pop(), Some(7));
    });
}

#[test]
fn nobody_sleeps_with_something_in_its_link() {
    a_sleeper_and_a_producer::<ParkingFlag>();
}

#[test]
#[should_panic(expected = "asleep with something in its link")]
fn canary_without_the_fences_somebody_does() {
    a_sleeper_and_a_producer::<Unfenced>();
}

/// The eventfd as the sleeper has it: it waits until the counter is not 0, and empties it.
struct Event {
    count: Mutex<u32>,
    is_written: Condvar,
}

/// Parks and wakes again and again, as `Idle` does: loom reports a deadlock where a wake-up is lost.
fn a_sleeper_takes_all<A: Announcement>() {
    loom::model(|| {
        let event = Event {
            count: Mutex::new(0),
            is_written: Condvar::new(),
        };
        // A link for each value: a producer that had to wait for room would spin, which no model ends.
        let shared = Arc::new((A::new(), [Link::new(), Link::new()], event));
        let producer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (flag, links, event) = &*shared;
                for (link, value) in links.iter().zip([1, 2]) {
                    assert!(link.push(value));
                    if flag.is_announced() {
                        *event.count.lock().expect("not poisoned") += 1;
                        event.is_written.notify_one();
                    }
                }
            })
        };
        let (flag, links, event) = &*shared;
        let mut taken = Vec::new();
        while taken.len() < 2 {
            let before = taken.len();
            taken.extend(links.iter().filter_map(Link::pop));
            if taken.len() > before {
                continue;
            }
            flag.announce();
            if links.iter().all(Link::is_empty) {
                let mut count = event.count.lock().expect("not poisoned");
                while *count == 0 {
                    count = event.is_written.wait(count).expect("not poisoned");
                }
                *count = 0;
            }
            flag.leave();
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        producer.join().expect("the producer ends");
    });
}

#[test]
fn a_sleeper_is_woken_for_everything() {
    a_sleeper_takes_all::<ParkingFlag>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_fences_a_wake_up_is_lost() {
    a_sleeper_takes_all::<Unfenced>();
}

/// A block is written, then its end published; whoever reads the end reads the block.
fn a_position_with_what_lies_before_it(order: Ordering) {
    loom::model(move || {
        let shared = Arc::new((UnsafeCell::new(0_u8), AtomicU64::new(0)));
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                // SAFETY: nobody reads before the position says so; loom checks it.
                shared.0.with_mut(|block| unsafe { *block = 42 });
                shared.1.store(1, order);
            })
        };
        if shared.1.load(Ordering::Acquire) == 1 {
            // SAFETY: the writer is done with it; loom checks it.
            let block = shared.0.with(|block| unsafe { *block });
            assert_eq!(block, 42);
        }
        writer.join().expect("the writer ends");
    });
}

#[test]
fn a_position_published_is_seen_with_what_was_written_before() {
    a_position_with_what_lies_before_it(Ordering::Release);
}

#[test]
#[should_panic]
fn canary_a_relaxed_position_is_not() {
    a_position_with_what_lies_before_it(Ordering::Relaxed);
}
