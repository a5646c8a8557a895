//! The clients of a measurement: publishers and subscribers of one thread, and what arrives.
//!
//! Several streams have the same clients each: client `c` of all belongs to stream `c % S`. A subscriber knows only the
//! publishers of its own stream.
//!
//! Each message begins with its publisher's index for it (from 0) and the time it was meant to be sent, both 8 bytes
//! little-endian; so any subscriber can tell what is missing and how long each took. A subscriber passes over what is not
//! of this run.

use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use relay_client::{
    Delivery, Publisher, PublisherEvent, PublisherId, Start, Subscriber, SubscriberEvent, TopicId,
};
pub(super) use relay_floor::LATE_MAX_NS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Target;
use super::interval_log::Intervals;
use super::over_time::{OverTime, Row};
use super::tally::Tally;
use crate::exit::Failure;
use crate::percentiles::{new_histogram, record};
use crate::servers::Idle;

/// Bytes at the front of each message.
pub(super) const HEAD_LENGTH: usize = 16;
/// The topic of every message, or what stands before the number of one of several.
const TOPIC: &str = "bench.load";
/// A pattern for all of them.
const TOPICS: &str = "bench.load.>";
/// One clock reading serves at most so many messages that came together, where only how many came matters.
pub(super) const MESSAGES_PER_CLOCK_READING: u32 = 32;
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
    pub(super) fn wall(&self, at_ns: u64) -> SystemTime {
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
    pub(super) stream: usize,
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

/// Messages `0..total` by the stream they belong to, where so many take turns.
pub(super) fn shares(total: u64, streams: usize) -> Vec<u64> {
    let streams = streams as u64;
    let share = |stream| total / streams + u64::from(stream < total % streams);
    (0..streams).map(share).collect()
}

/// Connects `count` publishers of each stream, each with so many topics, at least 1.
pub(super) fn senders(
    target: &Target,
    count: u64,
    topics: u64,
    window_bytes: Option<usize>,
) -> Result<Vec<Sender>, Failure> {
    let connect = |place: usize| {
        let (index, stream) = ((place / target.streams) as u64, place % target.streams);
        let mut config = target
            .at_stream(stream, target.publisher(index))
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
            stream,
            topics,
            turn: 0,
            next: 0,
        })
    };
    (0..count as usize * target.streams).map(connect).collect()
}

/// Connects `count` subscribers of each stream, live. What they are to measure is told later, by [`Receipts::measure`]; with `logged`
/// seconds it is also kept second by second.
pub(super) fn receivers(
    target: &Target,
    count: u64,
    senders: &[Sender],
    logged: Option<f64>,
) -> Result<Vec<Receiver>, Failure> {
    let is_one_topic = senders.iter().all(|sender| sender.topics.len() == 1);
    let pattern = if is_one_topic { TOPIC } else { TOPICS };
    let connect = |place: usize| {
        let stream = place % target.streams;
        let config = target
            .at_stream(stream, target.subscriber())
            .subscriber(vec![pattern.into()], Start::Live);
        let own = senders.iter().filter(|sender| sender.stream == stream);
        let incarnations: Vec<_> = own.map(|s| s.publisher.incarnation().get()).collect();
        Ok(Receiver {
            subscriber: Subscriber::connect(config)?,
            stream,
            receipts: Receipts {
                first_publisher: target.first_publisher,
                tallies: incarnations.iter().map(|_| Tally::default()).collect(),
                incarnations,
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
    (0..count as usize * target.streams).map(connect).collect()
}

/// The measured time of a run, on its clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Measured {
    /// How many a second `count` are of which the last came at `last_ns`. Where nothing is due at the end of the measured time, as
    /// between bursts, that belongs to it all the same.
    pub(super) fn rate(&self, count: u64, last_ns: u64) -> f64 {
        let span_ns = self.to_ns.max(last_ns).saturating_sub(self.from_ns);
        count as f64 / (span_ns.max(1) as f64 / 1e9)
    }
}

/// A subscriber and what it received.
pub(super) struct Receiver {
    pub(super) subscriber: Subscriber,
    pub(super) stream: usize,
    pub(super) receipts: Receipts,
}

/// What one subscriber received.
pub(super) struct Receipts {
    first_publisher: u64,
    incarnations: Vec<u64>,
    tallies: Vec<Tally>,
    measured: Measured,
    /// Latency by when it was due.
    over_time: OverTime,
    /// Messages whose intended time is a measured one.
    pub(super) received: u64,
    /// Messages that arrived within the measured time.
    pub(super) in_time: u64,
    /// When the last of `received` arrived.
    pub(super) last_receipt_ns: u64,
    /// Intended send to receipt of `received`.
    pub(super) latency: Histogram<u64>,
    /// The same by the second in which it was due, where that is wanted.
    intervals: Option<Intervals>,
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

    /// Measured messages a second: over the measured time, or longer where the last one came later.
    pub(super) fn achieved(&self) -> f64 {
        self.measured.rate(self.received, self.last_receipt_ns)
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
    /// Takes what is there, at most `most` messages; how many that was. The clock is read for every so many of them: a reading may be
    /// older than the later ones, which come by another look at the socket.
    #[inline]
    pub(super) fn take(
        &mut self,
        clock: Clock,
        most: u32,
        per_reading: u32,
    ) -> Result<u32, Failure> {
        let mut now_ns = 0;
        for taken in 0..most {
            let Some(delivery) = self.subscriber.poll()? else {
                return Ok(taken);
            };
            if taken % per_reading == 0 {
                now_ns = clock.now_ns();
            }
            self.receipts.note(&delivery, now_ns);
        }
        Ok(most)
    }
}

/// Latency over the run's time at all of them.
pub(super) fn over_time(receivers: &[Receiver]) -> Vec<Row> {
    OverTime::rows(receivers.iter().map(|it| &it.receipts.over_time))
}

/// Latency second by second, where that was wanted.
pub(super) fn intervals(receivers: &[Receiver]) -> impl Iterator<Item = &Intervals> {
    let each = receivers.iter();
    each.filter_map(|receiver| receiver.receipts.intervals.as_ref())
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

/// Waits as the strategy says, at most until `due_ns`; to be called when no receiver has anything in memory.
pub(super) fn idle(
    strategy: Idle,
    clock: Clock,
    due_ns: u64,
    senders: &[Sender],
    receivers: &[Receiver],
) -> Result<(), Failure> {
    match strategy {
        Idle::Spin => std::hint::spin_loop(),
        Idle::Yield => std::thread::yield_now(),
        Idle::Park => {
            let left = Duration::from_nanos(due_ns.saturating_sub(clock.now_ns()));
            park(senders, receivers, left.min(PARK_MAX))?;
        }
    }
    Ok(())
}

/// Sleeps until a message or an acknowledgement comes to one of them, at most for `most`.
fn park(senders: &[Sender], receivers: &[Receiver], most: Duration) -> Result<(), Failure> {
    let of_receivers = receivers.iter().filter_map(|it| it.subscriber.socket());
    let of_senders = senders.iter().filter_map(|it| it.publisher.socket());
    let mut polled: Vec<_> = of_receivers
        .chain(of_senders)
        .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(most).expect("it is short");
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Failure::Failed(format!("waiting for sockets: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_all_messages() {
        for total in [0, 1, 7, 600] {
            let found = shares(total, 4);
            for (stream, share) in (0..).zip(&found) {
                let meant = (0..total).filter(|index| index % 4 == stream).count();
                assert_eq!(*share, meant as u64, "{total} at stream {stream}");
            }
        }
    }

    /// Goal: a burst that is done long before the next would be due is no higher rate.
    #[test]
    fn a_rate_is_that_of_the_measured_time_at_least() {
        let measured = Measured {
            from_ns: 1_000_000_000,
            to_ns: 3_000_000_000,
        };
        assert_eq!(measured.rate(100, 1_000_001_000), 50.0);
        assert_eq!(measured.rate(100, 3_000_000_000), 50.0);
        assert_eq!(measured.rate(100, 5_000_000_000), 25.0);
        assert_eq!(measured.rate(0, 0), 0.0);
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let mut payload = [0; HEAD_LENGTH];
        write_head(&mut payload, 7, u64::MAX);
        assert_eq!(read_head(&payload), Some((7, u64::MAX)));
        assert_eq!(read_head(&payload[1..]), None);
    }
}
