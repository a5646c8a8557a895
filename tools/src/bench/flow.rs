//! A flow through a group while its nodes come and go: one publisher, open loop, and one subscriber, on a thread each.
//!
//! Messages are due at times fixed beforehand (`pacing.rs`) whatever happens; what can't go out waits in the publisher's window and goes out first
//! afterwards, so the first message after an outage waits for nothing but the outage. Every message is counted at the
//! subscriber by its number. Times are of one process's monotonic clock.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use relay_client::{OutMessage, Publisher, Start, Subscriber, TrySendError};
use serde::Serialize;

use super::interval_log::{self, Intervals};
use super::load::{Clock, HEAD_LENGTH, read_head, write_head};
use super::pacing::{Schedule, Shape};
use super::tally::Tally;
use crate::exit::{Failure, Interrupt};
use crate::flow::{Random, spread};
use crate::output::thousands;
use crate::percentiles::{new_histogram, record};
use crate::servers::Cluster;

/// The topic of every message.
const TOPIC: &str = "bench.flow";
/// Longest sleep of either thread.
const NAP_MAX: Duration = Duration::from_millis(1);
/// How often the subscriber looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// Bound on an outage, on a gap of the flow, and on the arrival of the last messages.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many messages there are in all is not known yet.
const UNKNOWN: u64 = u64::MAX;

/// What is to flow.
#[derive(Debug, Clone)]
pub(super) struct FlowLoad {
    /// Messages a second.
    pub(super) rate: f64,
    /// Bytes of a message.
    pub(super) size: usize,
    /// When what is due; its gaps are far shorter than any patience.
    pub(super) shape: Shape,
    /// Of the payloads.
    pub(super) seed: u64,
    /// Where the interval log goes.
    pub(super) hlog: Option<PathBuf>,
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    /// No more messages fall due.
    stop: AtomicBool,
    /// Messages published in all, once that is known.
    total: AtomicU64,
    received: AtomicU64,
    /// When the last message came.
    last_ns: AtomicU64,
    /// The number behind the newest message that came.
    next: AtomicU64,
    /// Longest time without one since it was last taken.
    gap_ns: AtomicU64,
    /// Intended send to receipt since it was last taken.
    latency: Mutex<Histogram<u64>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) disordered: u64,
}

impl Counts {
    /// The failure that messages went wrong.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.lost + self.duplicated + self.disordered == 0 {
            return Ok(());
        }
        Err(Failure::Damaged(format!(
            "{} messages lost, {} duplicated, {} out of order",
            self.lost, self.duplicated, self.disordered
        )))
    }

    /// The same at the beginning of a line.
    pub(super) fn text(&self) -> String {
        format!(
            "sent {}, received {}, lost {}, duplicated {}, out of order {}",
            thousands(self.sent),
            thousands(self.received),
            self.lost,
            self.duplicated,
            self.disordered
        )
    }
}

/// A client's thread, until it is joined.
type Client<T> = Option<JoinHandle<Result<T, Failure>>>;

/// A running flow.
pub(super) struct Flow {
    shared: Arc<Shared>,
    clock: Clock,
    schedule: Schedule,
    /// Where the interval log goes, and when its time began.
    hlog: Option<(PathBuf, SystemTime)>,
    publisher: Client<u64>,
    subscriber: Client<(Tally, Option<Intervals>)>,
}

/// Why a client's thread ended that should go on.
fn ended<T>(client: &mut Client<T>) -> Result<(), Failure> {
    match client.take_if(|thread| thread.is_finished()) {
        None => Ok(()),
        Some(thread) => Err(thread.join().map_err(panicked)?.err().unwrap_or_else(over)),
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Failure {
    Failure::Failed("a client's thread panicked".into())
}

fn over() -> Failure {
    Failure::Failed("a client ended before the flow did".into())
}

impl Flow {
    /// Connects both clients, and lets it flow.
    pub(super) fn start(cluster: &Cluster, load: FlowLoad) -> Result<Self, Failure> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            total: AtomicU64::new(UNKNOWN),
            received: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            next: AtomicU64::new(0),
            gap_ns: AtomicU64::new(0),
            latency: Mutex::new(new_histogram()),
        });
        let subscription = cluster
            .subscriber()
            .subscriber(vec![TOPIC.into()], Start::Live);
        let subscriber = Subscriber::connect(subscription)?;
        let publisher = Publisher::connect(cluster.publisher(1).publisher(1))?;
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let failed = |error| Failure::Failed(format!("starting a thread: {error}"));
        let receiving = Arc::clone(&shared);
        let clock = Clock::new();
        let hlog = load.hlog.clone().map(|path| (path, SystemTime::now()));
        let schedule = Schedule::new(clock.now_ns(), load.rate, load.shape.clone());
        let begin_ns = hlog.as_ref().map(|_| schedule.start_ns);
        let subscriber = spawn("subscriber")
            .spawn(move || receive(subscriber, &receiving, clock, begin_ns))
            .map_err(failed)?;
        let (sending, kept) = (Arc::clone(&shared), schedule.clone());
        let publisher = spawn("publisher")
            .spawn(move || publish(publisher, &sending, clock, &load, &schedule))
            .map_err(failed)?;
        Ok(Self {
            shared,
            clock,
            schedule: kept,
            hlog,
            publisher: Some(publisher),
            subscriber: Some(subscriber),
        })
    }

    /// Waits until `count` more messages have arrived.
    pub(super) fn await_more(&mut self, count: u64, interrupt: &Interrupt) -> Result<(), Failure> {
        let wanted = self.shared.received.load(Ordering::Relaxed) + count;
        let is_there = |shared: &Shared| shared.received.load(Ordering::Relaxed) >= wanted;
        self.await_until(is_there, interrupt)
    }

    /// Waits until everything has arrived that falls due within so long from now: what waits for an outage to end is no part of the
    /// flow after it, and a stall is not over before what it delayed is there.
    pub(super) fn await_due(
        &mut self,
        span: Duration,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let due = self
            .schedule
            .due_until(self.clock.now_ns() + span.as_nanos() as u64);
        let is_there = |shared: &Shared| shared.next.load(Ordering::Relaxed) >= due;
        self.await_until(is_there, interrupt)
    }

    fn await_until(
        &mut self,
        is_there: impl Fn(&Shared) -> bool,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let mut received = 0;
        let mut moved = Instant::now();
        while !is_there(&self.shared) {
            interrupt.check()?;
            let now = self.shared.received.load(Ordering::Relaxed);
            if now > received {
                (received, moved) = (now, Instant::now());
            }
            ended(&mut self.publisher)?;
            ended(&mut self.subscriber)?;
            if moved.elapsed() > PATIENCE {
                return Err(Failure::Failed(
                    "the flow did not come back; see what became of the nodes and clients".into(),
                ));
            }
            thread::sleep(NAP_MAX);
        }
        Ok(())
    }

    /// The longest time without a message since the last call, counted from the last one before it.
    pub(super) fn take_gap(&self) -> Duration {
        Duration::from_nanos(self.shared.gap_ns.swap(0, Ordering::Relaxed))
    }

    /// How long the messages took that came since the last call.
    pub(super) fn take_latency(&self) -> Histogram<u64> {
        let latency = self.shared.latency.lock();
        let mut latency = latency.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *latency, new_histogram())
    }

    /// Publishes nothing more, counts once everything has arrived or is given up, and writes the log.
    pub(super) fn finish(self) -> Result<Counts, Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (Some(publisher), Some(subscriber)) = (self.publisher, self.subscriber) else {
            return Err(over());
        };
        let sent = publisher.join().map_err(panicked)??;
        let (tally, intervals) = subscriber.join().map_err(panicked)??;
        if let Some((path, from)) = &self.hlog {
            interval_log::write(path, &intervals, *from)?;
        }
        Ok(Counts {
            sent,
            received: tally.distinct,
            lost: sent.saturating_sub(tally.distinct),
            duplicated: tally.duplicated,
            disordered: tally.disordered,
        })
    }
}

/// Publishes what falls due until told to stop, and until all of it is acknowledged; how much that was.
fn publish(
    mut publisher: Publisher,
    shared: &Shared,
    clock: Clock,
    load: &FlowLoad,
    schedule: &Schedule,
) -> Result<u64, Failure> {
    let topic = publisher.topic(TOPIC)?;
    let due_ns = |index| schedule.due_ns(index);
    let mut payload = vec![0; load.size];
    let mut random = Random::new(load.seed);
    let mut next = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut is_full = false;
        while due_ns(next) <= clock.now_ns() {
            write_head(&mut payload, next, due_ns(next));
            spread(random.next(), &mut payload[HEAD_LENGTH..]);
            match publisher.try_send(&OutMessage::new(topic, &payload)) {
                Ok(_) => next += 1,
                Err(TrySendError::Full) => {
                    is_full = true;
                    break;
                }
                Err(error) => return Err(Failure::Failed(format!("sending: {error}"))),
            }
        }
        publisher.poll()?;
        let left = Duration::from_nanos(due_ns(next).saturating_sub(clock.now_ns()));
        publisher.wait(if is_full { NAP_MAX } else { left.min(NAP_MAX) });
    }
    let is_released = publisher.wait_released(PATIENCE)?;
    shared.total.store(next, Ordering::Relaxed);
    if !is_released {
        let missing = publisher.unacknowledged();
        let text = format!("{missing} messages were never acknowledged");
        return Err(Failure::Damaged(text));
    }
    publisher.close()?;
    Ok(next)
}

/// Takes what comes until everything has. It is also kept second by second from a moment on, where there is one.
fn receive(
    mut subscriber: Subscriber,
    shared: &Shared,
    clock: Clock,
    begin_ns: Option<u64>,
) -> Result<(Tally, Option<Intervals>), Failure> {
    let mut tally = Tally::default();
    let mut intervals = begin_ns.map(|_| Intervals::open_ended());
    loop {
        if let Some(delivery) = subscriber.next_within(LOOK)? {
            let head = read_head(delivery.record.payload());
            let (index, due_ns) =
                head.ok_or_else(|| Failure::Damaged("a message too short".into()))?;
            tally.note(index);
            let now_ns = clock.now_ns();
            note_time(shared, now_ns);
            let latency_ns = now_ns.saturating_sub(due_ns);
            if let (Some(intervals), Some(begin_ns)) = (&mut intervals, begin_ns) {
                intervals.note_beyond(due_ns.saturating_sub(begin_ns), latency_ns);
            }
            let latency = shared.latency.lock();
            let mut latency = latency.unwrap_or_else(PoisonError::into_inner);
            record(&mut latency, latency_ns);
            drop(latency);
            shared.next.fetch_max(index + 1, Ordering::Relaxed);
            shared.received.store(tally.distinct, Ordering::Relaxed);
        }
        let total = shared.total.load(Ordering::Relaxed);
        let waited_ns = clock.now_ns() - shared.last_ns.load(Ordering::Relaxed);
        let is_given_up = total != UNKNOWN && waited_ns > PATIENCE.as_nanos() as u64;
        if tally.distinct >= total || is_given_up {
            subscriber.close();
            return Ok((tally, intervals));
        }
    }
}

fn note_time(shared: &Shared, now_ns: u64) {
    let last_ns = shared.last_ns.swap(now_ns, Ordering::Relaxed);
    if last_ns > 0 {
        let gap_ns = now_ns.saturating_sub(last_ns);
        shared.gap_ns.fetch_max(gap_ns, Ordering::Relaxed);
    }
}
