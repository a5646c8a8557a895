//! The clients of a measurement: publishers and subscribers of one thread, and what arrives.
//!
//! Each message begins with its publisher's index for it (from 0) and the time it was meant to be sent, both 8 bytes
//! little-endian; so any subscriber can tell what is missing and how long each took. A subscriber passes over what is not
//! of this run.

use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use relay_client::{
    Delivery, Publisher, PublisherEvent, PublisherId, Start, Subscriber, SubscriberEvent, TopicId,
};

use super::Target;
use super::interval_log::{self, Intervals};
use super::over_time::OverTime;
use super::series::Load;
use super::tally::Tally;
use crate::exit::Failure;
use crate::percentiles::{new_histogram, record, write_hgrm};
use crate::servers::Idle;

/// Bytes at the front of each message.
pub(super) const HEAD_LENGTH: usize = 16;
/// The topic of every message, or what stands before the number of one of several.
const TOPIC: &str = "bench.load";
/// A pattern for all of them.
const TOPICS: &str = "bench.load.>";
/// One clock reading serves at most so many messages that came together.
const MESSAGES_PER_CLOCK_READING: u32 = 32;
/// Longest sleep of a parked client.
const PARK_MAX: Duration = Duration::from_millis(1);

/// Nanoseconds since the run's own beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        let elapsed = self.0.elapsed();
        elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
    }

    /// The wall clock's time of a moment that is past.
    fn wall(&self, at_ns: u64) -> SystemTime {
        SystemTime::now() - self.0.elapsed() + Duration::from_nanos(at_ns)
    }
}

/// Writes a message's head.
#[inline]
pub(super) fn write_head(payload: &mut [u8], index: u64, intended_ns: u64) {
    payload[..8].copy_from_slice(&index.to_le_bytes());
    payload[8..HEAD_LENGTH].copy_from_slice(&intended_ns.to_le_bytes());
}

/// Index and intended time of a message.
#[inline]
pub(super) fn read_head(payload: &[u8]) -> Option<(u64, u64)> {
    let head = payload.get(..HEAD_LENGTH)?;
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    Some((word(0), word(8)))
}

/// Pins the calling thread.
pub(super) fn pin(cpu: Option<usize>) -> Result<(), Failure> {
    let Some(id) = cpu else { return Ok(()) };
    if core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "CPU {id} can't be used by this process; name another with --client-cpu, or give --unpinned"
    )))
}

/// A publisher and its numbering.
pub(super) struct Sender {
    pub(super) publisher: Publisher,
    topics: Vec<TopicId>,
    /// Which of them its next message has.
    turn: usize,
    /// Index of its next message.
    pub(super) next: u64,
}

impl Sender {
    /// The topic of the next message; messages go round all of them.
    #[inline]
    pub(super) fn topic(&self) -> TopicId {
        self.topics[self.turn]
    }

    /// Goes on to the next message.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.next += 1;
        self.turn += 1;
        if self.turn == self.topics.len() {
            self.turn = 0;
        }
    }
}

/// Connects publishers `0..count`, each with so many topics, at least 1.
pub(super) fn senders(
    target: &Target,
    count: u64,
    topics: u64,
    window_bytes: Option<usize>,
) -> Result<Vec<Sender>, Failure> {
    let connect = |index| {
        let mut config = target
            .publisher(index)
            .publisher(target.first_publisher + index);
        if let Some(bytes) = window_bytes {
            config.window_bytes = bytes;
        }
        let mut publisher = Publisher::connect(config)?;
        let topics = if topics == 1 {
            vec![publisher.topic(TOPIC)?]
        } else {
            let topic = |number| publisher.topic(&format!("{TOPIC}.{number}"));
            (0..topics).map(topic).collect::<Result<_, _>>()?
        };
        Ok(Sender {
            publisher,
            topics,
            turn: 0,
            next: 0,
        })
    };
    (0..count).map(connect).collect()
}

/// Connects `count` subscribers, live. What they are to measure is told later, by [`Receipts::measure`]; with `logged`
/// seconds it is also kept second by second.
pub(super) fn receivers(
    target: &Target,
    count: u64,
    senders: &[Sender],
    logged: Option<f64>,
) -> Result<Vec<Receiver>, Failure> {
    let incarnations: Vec<_> = senders
        .iter()
        .map(|s| s.publisher.incarnation().get())
        .collect();
    let is_one_topic = senders.iter().all(|sender| sender.topics.len() == 1);
    let pattern = if is_one_topic { TOPIC } else { TOPICS };
    let connect = |_| {
        let config = target
            .subscriber()
            .subscriber(vec![pattern.into()], Start::Live);
        Ok(Receiver {
            subscriber: Subscriber::connect(config)?,
            receipts: Receipts {
                first_publisher: target.first_publisher,
                incarnations: incarnations.clone(),
                tallies: incarnations.iter().map(|_| Tally::default()).collect(),
                measured: Measured {
                    from_ns: u64::MAX,
                    to_ns: u64::MAX,
                },
                over_time: OverTime::new(0),
                received: 0,
                in_time: 0,
                last_receipt_ns: 0,
                latency: new_histogram(),
                intervals: logged.map(Intervals::new),
            },
        })
    };
    (0..count).map(connect).collect()
}

/// The measured time of a run, on its clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

/// A subscriber and what it received.
pub(super) struct Receiver {
    pub(super) subscriber: Subscriber,
    pub(super) receipts: Receipts,
}

/// What one subscriber received.
pub(super) struct Receipts {
    first_publisher: u64,
    incarnations: Vec<u64>,
    tallies: Vec<Tally>,
    measured: Measured,
    /// Latency by when it was due.
    pub(super) over_time: OverTime,
    /// Messages whose intended time is a measured one.
    pub(super) received: u64,
    /// Messages that arrived within the measured time.
    pub(super) in_time: u64,
    /// When the last of `received` arrived.
    pub(super) last_receipt_ns: u64,
    /// Intended send to receipt of `received`.
    pub(super) latency: Histogram<u64>,
    /// The same by the second in which it was due, where that is wanted.
    pub(super) intervals: Option<Intervals>,
}

impl Receipts {
    /// Says what is measured; before the first message.
    pub(super) fn measure(&mut self, measured: Measured) {
        self.over_time = OverTime::new(measured.to_ns - measured.from_ns);
        self.measured = measured;
    }

    #[inline]
    fn note(&mut self, delivery: &Delivery<'_>, now_ns: u64) {
        let PublisherId(publisher) = delivery.record.publisher();
        let place = publisher.wrapping_sub(self.first_publisher) as usize;
        let incarnation = delivery.record.incarnation().get();
        if self.incarnations.get(place) != Some(&incarnation) {
            return;
        }
        let Some((index, intended_ns)) = read_head(delivery.record.payload()) else {
            return;
        };
        if !self.tallies[place].note(index) {
            return;
        }
        if (self.measured.from_ns..self.measured.to_ns).contains(&now_ns) {
            self.in_time += 1;
        }
        if intended_ns >= self.measured.from_ns {
            let latency_ns = now_ns.saturating_sub(intended_ns);
            record(&mut self.latency, latency_ns);
            self.over_time
                .note(intended_ns - self.measured.from_ns, latency_ns);
            if let Some(intervals) = &mut self.intervals {
                intervals.note(intended_ns - self.measured.from_ns, latency_ns);
            }
            self.received += 1;
            self.last_receipt_ns = now_ns;
        }
    }

    /// Messages of this run that arrived, each once.
    pub(super) fn distinct(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.distinct).sum()
    }

    pub(super) fn duplicated(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.duplicated).sum()
    }

    pub(super) fn disordered(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.disordered).sum()
    }
}

impl Receiver {
    /// Takes what is there, at most `most` messages; how many that was.
    #[inline]
    pub(super) fn take(&mut self, clock: Clock, most: u32) -> Result<u32, Failure> {
        let mut now_ns = 0;
        for taken in 0..most {
            let Some(delivery) = self.subscriber.poll()? else {
                return Ok(taken);
            };
            if taken % MESSAGES_PER_CLOCK_READING == 0 {
                now_ns = clock.now_ns();
            }
            self.receipts.note(&delivery, now_ns);
        }
        Ok(most)
    }

    /// Sleeps until a message comes, at most for `timeout`, and takes it.
    fn park(&mut self, clock: Clock, timeout: Duration) -> Result<(), Failure> {
        if let Some(delivery) = self.subscriber.next_within(timeout)? {
            self.receipts.note(&delivery, clock.now_ns());
        }
        Ok(())
    }
}

/// Writes the files that were asked for.
pub(super) fn write_logs(
    load: &Load,
    clock: Clock,
    latency: &Histogram<u64>,
    receivers: &[Receiver],
) -> Result<(), Failure> {
    if let Some(path) = &load.hgrm {
        write_hgrm(path, latency)?;
    }
    if let Some(path) = &load.hlog {
        let from_ns = receivers.first().map_or(0, |r| r.receipts.measured.from_ns);
        let intervals = receivers
            .iter()
            .filter_map(|r| r.receipts.intervals.as_ref());
        interval_log::write(path, intervals, clock.wall(from_ns))?;
    }
    Ok(())
}

/// Why connections were lost during the run, oldest first.
pub(super) fn losses(senders: &mut [Sender], receivers: &mut [Receiver]) -> Vec<String> {
    let mut losses = Vec::new();
    for sender in senders {
        while let Some(event) = sender.publisher.next_event() {
            if let PublisherEvent::Disconnected { reason } = event {
                losses.push(format!("publisher: {reason}"));
            }
        }
    }
    for receiver in receivers {
        while let Some(event) = receiver.subscriber.next_event() {
            if let SubscriberEvent::Disconnected { reason } = event {
                losses.push(format!("subscriber: {reason}"));
            }
        }
    }
    losses
}

/// Waits as the strategy says, at most until `due_ns`.
pub(super) fn idle(
    strategy: Idle,
    clock: Clock,
    due_ns: u64,
    receivers: &mut [Receiver],
) -> Result<(), Failure> {
    match strategy {
        Idle::Spin => std::hint::spin_loop(),
        Idle::Yield => std::thread::yield_now(),
        Idle::Park => {
            let left = Duration::from_nanos(due_ns.saturating_sub(clock.now_ns()));
            receivers[0].park(clock, left.min(PARK_MAX))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let mut payload = [0; HEAD_LENGTH];
        write_head(&mut payload, 7, u64::MAX);
        assert_eq!(read_head(&payload), Some((7, u64::MAX)));
        assert_eq!(read_head(&payload[1..]), None);
    }
}
