//! Very many clients on one thread: publishers in turn, and subscribers that are looked at when their sockets have something.
//!
//! ```text
//! message i: publisher i % P, topic spread(i) % T ---> relay ---> every subscriber of its stream that wants the topic
//!                ^ due as rate and pacing fix it before the run          |
//!                '---- one thread: send what is due, wait for the sockets, take ----'
//! ```
//!
//! A loop over all sockets would cost a system call for each in each turn, and with 500 of them that, and not the relay, would be
//! measured; so one epoll says which have something, and all are visited only so often that their connections stay alive.
//! Several streams have the same clients each: client `c` of all belongs to stream `c % S`, and so does message `i` to `i % S`.
//! Slow subscribers are left out of the epoll and take one message at a time when its time has come.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use relay_client::{
    OutMessage, Publisher, PublisherEvent, PublisherId, Start, Subscriber, SubscriberEvent,
    TopicId, TrySendError,
};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Target;
use super::client_thread::Progress;
use super::interval_log::Intervals;
use super::load::{Clock, LATE_MAX_NS, Measured, read_head, write_head};
use super::over_time::OverTime;
use super::pacing::Schedule;
use crate::exit::Failure;
use crate::percentiles::{new_histogram, record};
use crate::servers::Idle;

/// Most messages sent in a turn.
const SEND_MAX: u32 = 256;
/// Most messages taken from one subscriber in a turn.
const TAKE_MAX: u32 = 1024;
/// Sockets that one wait tells of at most.
const EVENTS_MAX: usize = 1024;
/// Every client is visited so often, whether its socket has something or not.
const VISIT_EVERY_NS: u64 = 25_000_000;
/// While clients connect, those before are visited each time so many more have.
const CONNECTED_BETWEEN_VISITS: usize = 16;
/// Receive buffer of a slow subscriber's socket: what lies in it is not yet the relay's to keep.
const SLOW_SOCKET_BYTES: usize = 16 << 10;
/// Open files beside the clients' sockets.
const FILES_BESIDE: u64 = 64;
/// How long to wait for more messages after the last that came; what is missing then is lost.
const DRAIN_NS: u64 = 20_000_000_000;

/// Who there is, and what they want. Publishers and subscribers are those of all streams together, as many in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) streams: usize,
    pub(super) publishers: usize,
    /// Of each stream.
    pub(super) topics: usize,
    /// Subscribers, slow ones included.
    pub(super) subscribers: usize,
    /// The last so many of them are slow.
    pub(super) slow: usize,
    /// Of the messages that a slow one wants, the part that it takes.
    pub(super) slow_share: f64,
    /// Patterns of each subscriber; `None` for everything.
    pub(super) patterns: Option<usize>,
    /// Of the patterns, so many name a topic; nothing is published to the others.
    pub(super) matching: usize,
    /// One pattern selects all topics instead: who has it filters, and receives everything.
    pub(super) has_wildcard: bool,
}

impl Shape {
    /// The topic of message `index`: spread evenly, and the same in every run.
    fn topic_of(&self, index: u64) -> usize {
        let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
        (mixed % self.topics as u64) as usize
    }

    fn stream_of(&self, client: usize) -> usize {
        client % self.streams
    }

    fn publisher_of(&self, index: u64) -> usize {
        (index % self.publishers as u64) as usize
    }

    /// The topics that subscriber `place` names; `None` for all.
    fn topics_of(&self, place: usize) -> Option<impl Iterator<Item = usize> + '_> {
        if self.patterns.is_none() || self.has_wildcard {
            return None;
        }
        let count = self.matching.min(self.topics);
        let first = place / self.streams * count;
        Some((first..first + count).map(|topic| topic % self.topics))
    }

    /// How many of the messages in `counts`, by stream and topic, subscriber `place` wants.
    fn wanted_by(&self, place: usize, counts: &[Vec<u64>]) -> u64 {
        let of_stream = &counts[self.stream_of(place)];
        match self.topics_of(place) {
            Some(topics) => topics.map(|topic| of_stream[topic]).sum(),
            None => of_stream.iter().sum(),
        }
    }

    /// Messages by stream and topic.
    fn counts_of(&self, messages: Range<u64>) -> Vec<Vec<u64>> {
        let mut counts = vec![vec![0; self.topics]; self.streams];
        for index in messages {
            counts[self.stream_of(self.publisher_of(index))][self.topic_of(index)] += 1;
        }
        counts
    }

    fn patterns_of(&self, place: usize) -> Vec<String> {
        let Some(count) = self.patterns else {
            return vec![">".into()];
        };
        let named: Vec<_> = match self.topics_of(place) {
            Some(topics) => topics.map(topic_name).collect(),
            None => vec!["bench.crowd.>".into()],
        };
        let unused = (0..).map(|number| format!("bench.unused.{place}.{number}"));
        named.into_iter().chain(unused).take(count).collect()
    }
}

fn topic_name(topic: usize) -> String {
    format!("bench.crowd.t{topic}")
}

/// When what is due.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) clock: Clock,
    /// Begins when everybody is connected.
    pub(super) schedule: Schedule,
    /// Messages of the run, warm-up included.
    pub(super) total: u64,
    /// Index of the first measured one.
    pub(super) measured_from: u64,
    pub(super) size: usize,
    pub(super) idle: Idle,
    /// Seconds of which latency is kept one by one, where that is wanted.
    pub(super) logged: Option<f64>,
}

impl Plan {
    #[inline]
    fn due_ns(&self, index: u64) -> u64 {
        self.schedule.due_ns(index)
    }

    /// From the first message to the one behind the last.
    fn run_ns(&self) -> u64 {
        self.due_ns(self.total) - self.due_ns(0)
    }
}

struct Publishing {
    publisher: Publisher,
    topics: Vec<TopicId>,
    /// Its messages that are acknowledged.
    acked: u64,
    is_queued: bool,
}

struct Subscribing {
    subscriber: Subscriber,
    stream: usize,
    is_slow: bool,
    /// When a slow one takes its next message, and how long it waits after each.
    take_at_ns: u64,
    take_every_ns: u64,
    /// Messages that are, or are to be, sent and selected by it; and those that were due and could not be sent.
    wanted: u64,
    unsent: u64,
    received: u64,
    /// Messages that came twice, or after a later one of their publisher's.
    repeated: u64,
    /// The least index that is new, by publisher.
    next: Vec<u64>,
}

/// What all the subscribers and publishers saw.
pub(super) struct Seen {
    /// Intended send to receipt, of measured messages at the subscribers that are not slow, by stream.
    pub(super) latency: Vec<Histogram<u64>>,
    pub(super) ack_latency: Histogram<u64>,
    pub(super) lateness: Histogram<u64>,
    /// When the last of what `latency` counts came.
    pub(super) last_ns: u64,
    /// The same by when it was due, and by the second where that is wanted.
    pub(super) over_time: OverTime,
    pub(super) intervals: Option<Intervals>,
}

impl Seen {
    fn new(streams: usize, logged: Option<f64>) -> Self {
        Self {
            latency: vec![new_histogram(); streams],
            ack_latency: new_histogram(),
            lateness: new_histogram(),
            last_ns: 0,
            over_time: OverTime::new(0),
            intervals: logged.map(Intervals::new),
        }
    }

    /// Counts a measured message that was due so long after the measured time began.
    fn note(&mut self, stream: usize, at_ns: u64, latency_ns: u64) {
        record(&mut self.latency[stream], latency_ns);
        self.over_time.note(at_ns, latency_ns);
        if let Some(intervals) = &mut self.intervals {
            intervals.note(at_ns, latency_ns);
        }
    }
}

/// See the module's description.
pub(super) struct Crowd {
    plan: Plan,
    shape: Shape,
    first_publisher: u64,
    incarnations: Vec<u64>,
    publishers: Vec<Publishing>,
    subscribers: Vec<Subscribing>,
    epoll: std::os::fd::OwnedFd,
    /// Subscribers that have more in memory than one turn takes.
    unfinished: Vec<usize>,
    flushes: Vec<usize>,
    next: u64,
    /// How many are to be sent.
    last: u64,
    /// The client that the next visit is for, and when.
    visit: usize,
    visit_at_ns: u64,
    payload: Vec<u8>,
    /// When the first measured message falls due.
    pub(super) measured_from_ns: u64,
    pub(super) seen: Seen,
    progress: Arc<Progress>,
}

impl Crowd {
    /// Connects everybody; publishers first, and each with its topics.
    pub(super) fn connect(
        target: &Target,
        shape: Shape,
        plan: Plan,
        progress: Arc<Progress>,
    ) -> Result<Self, Failure> {
        allow_open_files(shape.publishers + shape.subscribers)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Failure::Failed(format!("making an epoll: {error}")))?;
        let mut crowd = Self {
            payload: vec![0; plan.size],
            measured_from_ns: 0,
            seen: Seen::new(shape.streams, plan.logged),
            last: plan.total,
            plan,
            shape,
            first_publisher: target.first_publisher,
            incarnations: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            epoll,
            unfinished: Vec::new(),
            flushes: Vec::new(),
            next: 0,
            visit: 0,
            visit_at_ns: 0,
            progress,
        };
        let names: Vec<_> = (0..shape.topics).map(topic_name).collect();
        for place in 0..shape.publishers {
            crowd.add_publisher(target, place, &names)?;
            crowd.visit_while_connecting()?;
        }
        let counts = shape.counts_of(0..crowd.plan.total);
        for place in 0..shape.subscribers {
            crowd.add_subscriber(target, place, &counts)?;
            crowd.visit_while_connecting()?;
        }
        Ok(crowd)
    }

    fn add_publisher(
        &mut self,
        target: &Target,
        place: usize,
        names: &[String],
    ) -> Result<(), Failure> {
        let index = (place / self.shape.streams) as u64;
        let id = target.first_publisher + index;
        let connection = target.at_stream(self.shape.stream_of(place), target.publisher(index));
        let mut publisher = Publisher::connect(connection.publisher(id))?;
        let topics = publisher.topics(names)?;
        self.incarnations.push(publisher.incarnation().get());
        self.listen(publisher.socket(), place)?;
        self.publishers.push(Publishing {
            publisher,
            topics,
            acked: 0,
            is_queued: false,
        });
        Ok(())
    }

    fn add_subscriber(
        &mut self,
        target: &Target,
        place: usize,
        counts: &[Vec<u64>],
    ) -> Result<(), Failure> {
        let shape = self.shape;
        let stream = shape.stream_of(place);
        let config = target
            .at_stream(stream, target.subscriber())
            .subscriber(shape.patterns_of(place), Start::Live);
        let subscriber = Subscriber::connect(config)?;
        let wanted = shape.wanted_by(place, counts);
        let is_slow = place >= shape.subscribers - shape.slow;
        if !is_slow {
            self.listen(subscriber.socket(), shape.publishers + place)?;
        } else if let Some(socket) = subscriber.socket() {
            socket2::SockRef::from(&socket)
                .set_recv_buffer_size(SLOW_SOCKET_BYTES)
                .map_err(|error| Failure::Failed(format!("making a socket small: {error}")))?;
        }
        let run_ns = self.plan.run_ns() as f64;
        let taken = (wanted as f64 * shape.slow_share).max(1.0);
        self.subscribers.push(Subscribing {
            subscriber,
            stream,
            is_slow,
            take_at_ns: 0,
            take_every_ns: (run_ns / taken) as u64,
            wanted,
            unsent: 0,
            received: 0,
            repeated: 0,
            next: vec![0; shape.publishers],
        });
        Ok(())
    }

    fn listen(
        &self,
        socket: Option<std::os::fd::BorrowedFd<'_>>,
        client: usize,
    ) -> Result<(), Failure> {
        let Some(socket) = socket else { return Ok(()) };
        let data = epoll::EventData::new_u64(client as u64);
        epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)
            .map_err(|error| Failure::Failed(format!("listening to a socket: {error}")))
    }

    fn visit_while_connecting(&mut self) -> Result<(), Failure> {
        let connected = self.publishers.len() + self.subscribers.len();
        if !connected.is_multiple_of(CONNECTED_BETWEEN_VISITS) {
            return Ok(());
        }
        for client in 0..connected {
            self.attend(client)?;
        }
        Ok(())
    }

    /// The first message falls due at `start_ns`.
    pub(super) fn start_at(&mut self, start_ns: u64) {
        let plan = &mut self.plan;
        plan.schedule.start_ns = start_ns;
        self.measured_from_ns = plan.due_ns(plan.measured_from);
        let measured_ns = plan.due_ns(plan.total) - self.measured_from_ns;
        self.seen.over_time = OverTime::new(measured_ns);
    }

    /// The measured time.
    pub(super) fn measured(&self) -> Measured {
        Measured {
            from_ns: self.measured_from_ns,
            to_ns: self
                .plan
                .schedule
                .end_ns(self.plan.measured_from, self.plan.total),
        }
    }

    /// When the last message fell due.
    pub(super) fn last_due_ns(&self) -> u64 {
        self.plan.due_ns(self.plan.total - 1)
    }

    /// Sends and takes until everything has come, or time is up.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        let result = self.run_until_done();
        self.send_no_more();
        result
    }

    fn run_until_done(&mut self) -> Result<(), Failure> {
        let give_up_ns = self.plan.due_ns(self.plan.total) + LATE_MAX_NS;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let now_ns = self.plan.clock.now_ns();
            if now_ns > give_up_ns {
                self.send_no_more();
            }
            let is_stopped = self.progress.stop.load(Ordering::Relaxed);
            if self.is_finished()
                || now_ns > self.seen.last_ns.max(give_up_ns) + DRAIN_NS
                || is_stopped
            {
                return Ok(());
            }
            let mut is_busy = self.send(now_ns)?;
            is_busy |= self.take_slowly(now_ns)?;
            self.visit(now_ns)?;
            for place in std::mem::take(&mut self.unfinished) {
                is_busy = true;
                self.take(place, TAKE_MAX)?;
            }
            self.wait(is_busy || !self.unfinished.is_empty(), &mut events)?;
        }
    }

    /// What was not sent is not waited for.
    fn send_no_more(&mut self) {
        if self.next == self.last {
            return;
        }
        let counts = self.shape.counts_of(self.next..self.last);
        for (place, subscribing) in self.subscribers.iter_mut().enumerate() {
            let unsent = self.shape.wanted_by(place, &counts);
            subscribing.wanted -= unsent;
            subscribing.unsent += unsent;
        }
        self.last = self.next;
    }

    fn is_finished(&self) -> bool {
        self.next == self.last
            && self
                .publishers
                .iter()
                .all(|p| p.publisher.unacknowledged() == 0)
            && self
                .subscribers
                .iter()
                .all(|s| s.is_slow || s.received >= s.wanted)
    }

    fn send(&mut self, now_ns: u64) -> Result<bool, Failure> {
        for _ in 0..SEND_MAX {
            let index = self.next;
            let due_ns = self.plan.due_ns(index);
            if index == self.last || due_ns > now_ns {
                break;
            }
            let place = self.shape.publisher_of(index);
            let publishing = &mut self.publishers[place];
            let topic = publishing.topics[self.shape.topic_of(index)];
            write_head(&mut self.payload, index, due_ns);
            let message = OutMessage::new(topic, &self.payload);
            match publishing.publisher.try_send(&message) {
                Ok(_) => {}
                Err(TrySendError::Full) => break,
                Err(error) => return Err(Failure::Failed(format!("sending: {error}"))),
            }
            if !publishing.is_queued {
                publishing.is_queued = true;
                self.flushes.push(place);
            }
            if index >= self.plan.measured_from {
                record(&mut self.seen.lateness, now_ns - due_ns);
            }
            self.next += 1;
        }
        let is_busy = !self.flushes.is_empty();
        for place in self.flushes.drain(..) {
            let publishing = &mut self.publishers[place];
            publishing.is_queued = false;
            publishing.publisher.flush()?;
        }
        self.progress.done.store(self.next, Ordering::Relaxed);
        Ok(is_busy)
    }

    /// Looks after one client by its number: publishers first.
    fn attend(&mut self, client: usize) -> Result<(), Failure> {
        match client.checked_sub(self.shape.publishers) {
            None => self.hear(client),
            Some(place) if self.subscribers[place].is_slow => Ok(()),
            Some(place) => self.take(place, TAKE_MAX).map(drop),
        }
    }

    /// Takes acknowledgements.
    fn hear(&mut self, place: usize) -> Result<(), Failure> {
        let publishing = &mut self.publishers[place];
        publishing.publisher.poll()?;
        let through = publishing.publisher.acked_through().get();
        if through == publishing.acked {
            return Ok(());
        }
        let now_ns = self.plan.clock.now_ns();
        for number in publishing.acked..through {
            let index = number * self.shape.publishers as u64 + place as u64;
            if index >= self.plan.measured_from {
                let took_ns = now_ns.saturating_sub(self.plan.due_ns(index));
                record(&mut self.seen.ack_latency, took_ns);
            }
        }
        publishing.acked = through;
        Ok(())
    }

    /// Takes what one subscriber has, at most so many messages; how many that was.
    fn take(&mut self, place: usize, most: u32) -> Result<u32, Failure> {
        let subscribing = &mut self.subscribers[place];
        for taken in 0..most {
            let Some(delivery) = subscribing.subscriber.poll()? else {
                return Ok(taken);
            };
            let PublisherId(publisher) = delivery.record.publisher();
            let index = publisher.wrapping_sub(self.first_publisher) as usize;
            let from = index
                .saturating_mul(self.shape.streams)
                .saturating_add(subscribing.stream);
            let incarnation = delivery.record.incarnation().get();
            if self.incarnations.get(from) != Some(&incarnation) {
                continue;
            }
            let Some((index, due_ns)) = read_head(delivery.record.payload()) else {
                continue;
            };
            if index < subscribing.next[from] {
                subscribing.repeated += 1;
                continue;
            }
            subscribing.next[from] = index + 1;
            subscribing.received += 1;
            if index >= self.plan.measured_from && !subscribing.is_slow {
                let now_ns = self.plan.clock.now_ns();
                let at_ns = due_ns.saturating_sub(self.measured_from_ns);
                let latency_ns = now_ns.saturating_sub(due_ns);
                self.seen.note(subscribing.stream, at_ns, latency_ns);
                self.seen.last_ns = now_ns;
            }
        }
        if !subscribing.is_slow {
            self.unfinished.push(place);
        }
        Ok(most)
    }

    /// Lets slow subscribers take a message whose time has come.
    fn take_slowly(&mut self, now_ns: u64) -> Result<bool, Failure> {
        let first = self.shape.subscribers - self.shape.slow;
        let mut is_busy = false;
        for place in first..self.shape.subscribers {
            let subscribing = &mut self.subscribers[place];
            if now_ns >= subscribing.take_at_ns {
                subscribing.take_at_ns = now_ns + subscribing.take_every_ns;
                is_busy |= self.take(place, 1)? > 0;
            }
        }
        Ok(is_busy)
    }

    /// Visits some clients, so that each has its turn in time: a connection is looked after by whoever owns it.
    fn visit(&mut self, now_ns: u64) -> Result<(), Failure> {
        if now_ns < self.visit_at_ns {
            return Ok(());
        }
        let clients = self.shape.publishers + self.shape.subscribers;
        self.visit_at_ns = now_ns + VISIT_EVERY_NS / clients as u64;
        self.visit = (self.visit + 1) % clients;
        self.attend(self.visit)
    }

    /// Waits until a socket has something or a message falls due, and takes what there is.
    fn wait(&mut self, is_busy: bool, events: &mut Vec<epoll::Event>) -> Result<(), Failure> {
        let now_ns = self.plan.clock.now_ns();
        let is_parking = self.plan.idle == Idle::Park && !is_busy;
        let wait_ns = if is_parking {
            let due_ns = if self.next < self.last {
                self.plan.due_ns(self.next)
            } else {
                u64::MAX
            };
            due_ns.min(self.visit_at_ns).saturating_sub(now_ns)
        } else {
            0
        };
        let timeout = Timespec::try_from(Duration::from_nanos(wait_ns)).expect("it is short");
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::Failed(format!("waiting for sockets: {error}"))),
        }
        if events.is_empty() && !is_busy && self.plan.idle == Idle::Yield {
            std::thread::yield_now();
        }
        for event in events.drain(..) {
            self.attend(event.data.u64() as usize)?;
        }
        Ok(())
    }

    /// Messages that were due and could not be sent.
    pub(super) const fn unsent(&self) -> u64 {
        self.plan.total - self.next
    }

    /// What became of the deliveries of everything that was due.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for subscribing in &self.subscribers {
            let wanted = subscribing.wanted;
            counts.repeated += subscribing.repeated;
            if subscribing.is_slow {
                counts.slow_wanted += wanted;
                counts.slow_received += subscribing.received;
            } else {
                counts.unsent += subscribing.unsent;
                counts.lost += wanted.saturating_sub(subscribing.received);
                counts.repeated += subscribing.received.saturating_sub(wanted);
            }
        }
        counts
    }

    /// Why connections were lost during the run.
    pub(super) fn losses(&mut self) -> Vec<String> {
        let mut losses = Vec::new();
        for publishing in &mut self.publishers {
            while let Some(event) = publishing.publisher.next_event() {
                if let PublisherEvent::Disconnected { reason } = event {
                    losses.push(format!("publisher: {reason}"));
                }
            }
        }
        for subscribing in &mut self.subscribers {
            while let Some(event) = subscribing.subscriber.next_event() {
                if let SubscriberEvent::Disconnected { reason } = event {
                    losses.push(format!("subscriber: {reason}"));
                }
            }
        }
        losses
    }
}

/// Sees to it that so many clients may have a socket each.
fn allow_open_files(clients: usize) -> Result<(), Failure> {
    let wanted = clients as u64 + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_none_or(|most| most >= wanted) {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        return setrlimit(Resource::Nofile, raised)
            .map_err(|error| Failure::Failed(format!("allowing more open files: {error}")));
    }
    Err(Failure::Usage(format!(
        "{clients} clients take {wanted} open files, and this process may have {}: allow more (`ulimit -Hn`), or measure fewer",
        limit.maximum.unwrap_or(u64::MAX)
    )))
}

/// What [`Crowd::counts`] says.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// Of what could not be sent.
    pub(super) unsent: u64,
    /// Of what was sent and did not come.
    pub(super) lost: u64,
    /// More than once, or out of order.
    pub(super) repeated: u64,
    /// Of what was sent, by the slow; all before but `repeated` are of the others.
    pub(super) slow_wanted: u64,
    pub(super) slow_received: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(topics: usize, patterns: Option<usize>, matching: usize) -> Shape {
        Shape {
            streams: 1,
            publishers: 1,
            topics,
            subscribers: 3,
            slow: 0,
            slow_share: 0.1,
            patterns,
            matching,
            has_wildcard: false,
        }
    }

    #[test]
    fn a_subscriber_has_as_many_patterns_as_asked_for() {
        assert_eq!(shape(4, None, 0).patterns_of(2), [">"]);
        let some = shape(4, Some(3), 2);
        assert_eq!(
            some.patterns_of(1),
            ["bench.crowd.t2", "bench.crowd.t3", "bench.unused.1.0"]
        );
        assert_eq!(
            some.topics_of(2).expect("filtered").collect::<Vec<_>>(),
            [0, 1]
        );
        let all = shape(4, Some(1_000), 1_000);
        assert_eq!(all.patterns_of(0).len(), 1_000);
        assert_eq!(all.topics_of(0).expect("filtered").count(), 4);
        let wild = Shape {
            has_wildcard: true,
            ..some
        };
        assert_eq!(
            wild.patterns_of(0)[..2],
            ["bench.crowd.>", "bench.unused.0.0"]
        );
        assert!(wild.patterns_of(0).len() == 3 && wild.topics_of(0).is_none());
    }

    #[test]
    fn streams_have_the_same_clients_and_messages_of_their_own() {
        let one = shape(4, Some(2), 2);
        let two = Shape {
            streams: 2,
            publishers: 6,
            subscribers: 2 * one.subscribers,
            ..one
        };
        for place in 0..two.subscribers {
            let of_one: Vec<_> = one.topics_of(place / 2).expect("filtered").collect();
            assert_eq!(
                two.topics_of(place).expect("filtered").collect::<Vec<_>>(),
                of_one
            );
        }
        let counts = two.counts_of(0..600);
        let of_streams: Vec<u64> = counts.iter().map(|topics| topics.iter().sum()).collect();
        assert_eq!(of_streams, [300, 300]);
        let wanted = two.wanted_by(0, &counts);
        assert_eq!(wanted, counts[0][0] + counts[0][1]);
    }

    #[test]
    fn messages_are_spread_over_all_topics() {
        let shape = shape(10, None, 0);
        let mut counts = [0; 10];
        for index in 0..10_000 {
            counts[shape.topic_of(index)] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
    }
}
