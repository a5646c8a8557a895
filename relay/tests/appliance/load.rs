//! Publishers and subscribers that keep a stream busy while things go wrong, and note what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay_client::{
    OutMessage, Publisher, PublisherConfig, PublisherEvent, Start, Subscriber, SubscriberConfig,
};

use super::history::{Acknowledged, History, Seen, payload_of};
use super::hosts::Host;
use super::{LIMIT, credential};

/// How many clients there are, and where.
#[derive(Debug, Clone)]
pub struct LoadShape {
    /// Numbered from 1.
    pub publishers: u64,
    /// Messages a second of each.
    pub rate: u64,
    pub subscribers: usize,
    pub host: Host,
}

impl Default for LoadShape {
    fn default() -> Self {
        Self {
            publishers: 2,
            rate: 500,
            subscribers: 2,
            host: Host::default(),
        }
    }
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// Publishers that are done, and what they sent.
    done: AtomicU64,
    sent: AtomicU64,
    /// By the first subscriber.
    delivered: AtomicU64,
    gap_us: AtomicU64,
    acknowledged: AtomicU64,
}

/// See the module's description.
pub struct Load {
    pub history: History,
    shared: Arc<Shared>,
    publishers: Vec<JoinHandle<()>>,
    subscribers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Everybody begins; subscribers with the first message.
    pub fn started(addresses: &[String], shape: &LoadShape) -> Self {
        let history = History::default();
        let shared = Arc::new(Shared::default());
        let publishers = (1..=shape.publishers).map(|id| {
            let config =
                PublisherConfig::new(addresses.to_vec(), credential(&format!("p{id}")), id);
            let (host, rate) = (shape.host.clone(), shape.rate);
            let (shared, history) = (Arc::clone(&shared), history.clone());
            std::thread::spawn(move || {
                host.enter();
                publish(config, rate, &shared, history);
            })
        });
        let publishers = publishers.collect();
        let subscribers = (0..shape.subscribers).map(|_| {
            let (name, patterns) = (credential("p1"), vec![">".to_owned()]);
            let config = SubscriberConfig::new(addresses.to_vec(), name, patterns, Start::Earliest);
            let (host, count) = (shape.host.clone(), shape.publishers);
            let (shared, history) = (Arc::clone(&shared), history.clone());
            std::thread::spawn(move || {
                host.enter();
                read(config, count, &shared, &history);
            })
        });
        let subscribers = subscribers.collect();
        Self {
            history,
            shared,
            publishers,
            subscribers,
        }
    }

    /// Messages the first subscriber got.
    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// Acknowledgements that came.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// Whether `count` more messages came within the limit than had come at the call.
    pub fn has_more(&self, count: u64, within: Duration) -> bool {
        let (from, begun) = (self.delivered(), Instant::now());
        while begun.elapsed() < within {
            if self.delivered() >= from + count {
                return true;
            }
            assert!(!self.has_failed(), "a client ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Waits until `count` more messages were delivered and something was acknowledged.
    pub fn await_more(&self, count: u64) {
        let acknowledged = self.acknowledged();
        assert!(self.has_more(count, LIMIT), "messages do not flow");
        super::eventually("acknowledgements flow", || {
            self.acknowledged() > acknowledged
        });
    }

    fn has_failed(&self) -> bool {
        let is_over = self.shared.is_over.load(Ordering::Acquire);
        let clients = self.publishers.iter().chain(&self.subscribers);
        !is_over && clients.into_iter().any(JoinHandle::is_finished)
    }

    /// The longest time without a delivery to the first subscriber since the last call.
    pub fn take_gap(&self) -> Duration {
        Duration::from_micros(self.shared.gap_us.swap(0, Ordering::AcqRel))
    }

    /// Ends the load once everything sent is released and delivered; how much that was, and what the clients noted.
    pub fn finish(self) -> (u64, History) {
        self.shared.is_over.store(true, Ordering::Release);
        for client in self.publishers.into_iter().chain(self.subscribers) {
            client.join().expect("a client failed, see above");
        }
        (self.shared.sent.load(Ordering::Acquire), self.history)
    }
}

fn publish(config: PublisherConfig, rate: u64, shared: &Arc<Shared>, history: History) {
    let id = config.publisher;
    let mut publisher = Publisher::connect(config).unwrap();
    let incarnation = publisher.incarnation().get();
    let noting = Arc::clone(shared);
    publisher.on_ack(Box::new(move |publisher_seq, seq| {
        history.note_acknowledged(Acknowledged {
            publisher: id,
            incarnation,
            publisher_seq: publisher_seq.get(),
            seq: seq.get(),
        });
        noting.acknowledged.fetch_add(1, Ordering::AcqRel);
    }));
    let topic = publisher.topic(&format!("orders.{id}")).unwrap();
    let begun = Instant::now();
    let mut sent = 0;
    while !shared.is_over.load(Ordering::Acquire) {
        let due = Duration::from_nanos(sent * 1_000_000_000 / rate);
        let now = begun.elapsed();
        if now < due {
            publisher.poll().unwrap();
            std::thread::sleep((due - now).min(Duration::from_micros(300)));
            continue;
        }
        sent += 1;
        let payload = payload_of(id, sent);
        let number = publisher.send(&OutMessage::new(topic, &payload)).unwrap();
        assert_eq!(number.get(), sent, "nothing was refused");
        while let Some(event) = publisher.next_event() {
            let is_refused = matches!(event, PublisherEvent::Rejected { .. });
            assert!(!is_refused, "{event:?}");
        }
    }
    assert!(
        publisher.wait_released(LIMIT).unwrap(),
        "publisher {id}: {} of {sent} are not released; last failure {:?}",
        publisher.unacknowledged(),
        publisher.last_failure()
    );
    shared.sent.fetch_add(sent, Ordering::AcqRel);
    shared.done.fetch_add(1, Ordering::AcqRel);
}

fn read(config: SubscriberConfig, publishers: u64, shared: &Shared, history: &History) {
    let place = history.subscriber();
    let mut subscriber = Subscriber::connect(config).unwrap();
    let (mut delivered, mut last) = (0, Instant::now());
    let is_all = |delivered: u64| {
        shared.done.load(Ordering::Acquire) == publishers
            && delivered >= shared.sent.load(Ordering::Acquire)
    };
    while !is_all(delivered) {
        let Some(delivery) = subscriber.next_within(Duration::from_millis(20)).unwrap() else {
            continue;
        };
        history.note_delivered(place, Seen::of(&delivery.record));
        delivered += 1;
        if place == 0 {
            if delivered > 1 {
                let gap_us = last.elapsed().as_micros() as u64;
                shared.gap_us.fetch_max(gap_us, Ordering::AcqRel);
            }
            last = Instant::now();
            shared.delivered.store(delivered, Ordering::Release);
        }
    }
}
