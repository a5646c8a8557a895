//! A publisher and a subscriber that keep a stream busy while nodes come and go, and check every message.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay_client::{OutMessage, Publisher, PublisherConfig, Start, Subscriber, SubscriberConfig};

use super::group::Group;
use super::{LIMIT, credential, payload};

/// Nothing is left to come.
const NEVER: u64 = u64::MAX;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    delivered: AtomicU64,
    /// Messages sent in all, once that is known.
    total: AtomicU64,
    /// Longest time without a delivery, us.
    gap_us: AtomicU64,
    /// Connections the clients lost.
    losses: AtomicU64,
}

/// Runs until told to stop.
pub struct Flow {
    /// The nodes' logs, shown where it does not go well.
    logs: Vec<PathBuf>,
    shared: Arc<Shared>,
    publisher: JoinHandle<u64>,
    subscriber: JoinHandle<u64>,
}

impl Flow {
    /// One publisher (1) that sends `rate` messages a second, and one subscriber that reads everything from the first on.
    pub fn started(addresses: &[String], rate: u64) -> Self {
        let shared = Arc::new(Shared {
            total: AtomicU64::new(NEVER),
            ..Shared::default()
        });
        let config = PublisherConfig::new(addresses.to_vec(), credential("p1"), 1);
        let (publishing, addresses) = (Arc::clone(&shared), addresses.to_vec());
        let publisher = std::thread::spawn(move || publish(config, &publishing, rate));
        let reading = Arc::clone(&shared);
        let subscriber = std::thread::spawn(move || read(addresses, &reading));
        Self {
            logs: Vec::new(),
            shared,
            publisher,
            subscriber,
        }
    }

    /// As [`Flow::started`], over all nodes of a group, whose logs are shown where it does not go well.
    pub fn on(group: &Group, rate: u64) -> Self {
        Self {
            logs: group.log_paths(),
            ..Self::started(&group.addresses(), rate)
        }
    }

    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// Connections the clients lost so far.
    pub fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Acquire)
    }

    /// Waits until `count` more messages were delivered.
    pub fn await_more(&self, count: u64) {
        let from = self.delivered();
        let begun = Instant::now();
        while self.delivered() < from + count {
            assert!(!self.subscriber.is_finished(), "the subscriber ended");
            assert!(
                begun.elapsed() < LIMIT,
                "messages do not flow: {} delivered, {count} more wanted from {from}\n{}",
                self.delivered(),
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn logs(&self) -> String {
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        self.logs
            .iter()
            .map(read)
            .collect::<Vec<_>>()
            .join("\n== another node\n")
    }

    /// The longest time without a delivery since the last call.
    pub fn take_gap(&self) -> Duration {
        Duration::from_micros(self.shared.gap_us.swap(0, Ordering::AcqRel))
    }

    /// Stops the publisher, waits until everything it sent is released and delivered once and in order; how much that was.
    pub fn finish(self) -> u64 {
        self.shared.stop.store(true, Ordering::Release);
        let sent = self.publisher.join().expect("the publisher went well");
        let delivered = self.subscriber.join().expect("the subscriber went well");
        assert_eq!(sent, delivered, "everything sent is delivered");
        sent
    }
}

fn publish(config: PublisherConfig, shared: &Shared, rate: u64) -> u64 {
    let mut publisher = Publisher::connect(config).unwrap();
    let topic = publisher.topic("orders.new").unwrap();
    let begun = Instant::now();
    let mut sent = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let due = Duration::from_nanos(sent * 1_000_000_000 / rate);
        let now = begun.elapsed();
        if now < due {
            publisher
                .wait_released((due - now).min(Duration::from_millis(1)))
                .unwrap();
            std::thread::sleep((due - now).min(Duration::from_micros(300)));
            continue;
        }
        sent += 1;
        let payload = payload(1, sent);
        publisher.send(&OutMessage::new(topic, &payload)).unwrap();
        while let Some(event) = publisher.next_event() {
            if matches!(event, relay_client::PublisherEvent::Disconnected { .. }) {
                shared.losses.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
    assert!(
        publisher.wait_released(LIMIT).unwrap(),
        "{} of {sent} are not released; last failure {:?}",
        publisher.unacknowledged(),
        publisher.last_failure()
    );
    shared.total.store(sent, Ordering::Release);
    sent
}

fn read(addresses: Vec<String>, shared: &Shared) -> u64 {
    let patterns = vec![">".to_owned()];
    let config = SubscriberConfig::new(addresses, credential("p1"), patterns, Start::Earliest);
    let mut subscriber = Subscriber::connect(config).unwrap();
    let mut delivered = 0;
    let mut last = Instant::now();
    while delivered < shared.total.load(Ordering::Acquire) {
        let next = subscriber.next_within(Duration::from_millis(20)).unwrap();
        let Some(delivery) = next else {
            continue;
        };
        let number = u64::from_le_bytes(delivery.record.payload()[8..16].try_into().unwrap());
        assert_eq!(number, delivered + 1, "in order, once, nothing missing");
        assert_eq!(delivery.record.payload(), payload(1, number), "unaltered");
        delivered = number;
        let gap = last.elapsed();
        last = Instant::now();
        if delivered > 1 {
            shared
                .gap_us
                .fetch_max(gap.as_micros() as u64, Ordering::AcqRel);
        }
        shared.delivered.store(delivered, Ordering::Release);
    }
    delivered
}
