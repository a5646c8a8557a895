//! The subscriber: hands over records in the order of seq, each verified, and goes on after a loss where it was.
//!
//! ```text
//! Down -- logon, SUBSCRIBE --> Asking -- SUBSCRIBED --> Flowing
//!   ^____________________________|_________________________|      connection lost
//! ```
//!
//! Invariants: `next_seq` never goes back; everything before it was handed over or does not match the patterns; a record
//! is handed over only when its checksum and its place in the order are right; `resume.checksum` belongs to the record
//! before `next_seq`, or is not known.
//!
//! Records are viewed in the receive buffer, so a [`Delivery`] lasts until the next call. Control records are consumed
//! here; kinds that this version does not know are passed over.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use relay_wire::code::{From as SubscribeFrom, RecordKind, Role, TerminateCode};
use relay_wire::id::{Epoch, Incarnation, PublisherId, PublisherSeq, Seq, StreamId};
use relay_wire::item::MESSAGE_LENGTH_MAX;
use relay_wire::message::{Heartbeat, Message as WireMessage, Patterns, Subscribe, Subscribed};
use relay_wire::record::{Record, epoch_body};
use relay_wire::topic::{check_name, check_pattern};

use crate::config::{Start, SubscriberConfig};
use crate::connection::{Failure, Identity, Inbound, Item, Link};
use crate::error::{ClientError, DisconnectReason};
use crate::events::Events;
use crate::patience::Patience;
use crate::topics::SubscriberTopics;

/// The clock is looked at once in so many records while records are there without reading.
const RECORDS_PER_CLOCK_READ: u32 = 16;
/// Blocking calls look around at least so often.
const WAIT_MOST: Duration = Duration::from_secs(1);

/// What happened to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriberEvent {
    /// The connection is lost; the next one is being made.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
    /// The subscription stands.
    Connected {
        /// Delivery starts at the first match from here on.
        start_seq: Seq,
        /// The next seq to be released when the relay answered.
        next_seq: Seq,
        /// The relay's epoch.
        epoch: Epoch,
    },
}

/// A record handed over, viewed where it was received.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The record, always a DATA record, its checksum verified.
    pub record: Record<'a>,
    /// Name of its topic.
    pub topic: &'a str,
}

impl Delivery<'_> {
    /// A copy of its own.
    #[must_use]
    pub fn to_message(&self) -> Message {
        let header = self.record.header();
        Message {
            seq: self.record.seq(),
            topic: self.topic.to_owned(),
            publisher: self.record.publisher(),
            incarnation: self.record.incarnation(),
            publisher_seq: self.record.publisher_seq(),
            key_hash: header.key_hash.get(),
            origin_time_ns: header.origin_time_ns.get(),
            receive_time_ns: self.record.receive_time_ns(),
            checksum: self.record.checksum(),
            extension: self.record.extension().to_vec(),
            payload: self.record.payload().to_vec(),
        }
    }
}

/// A message on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Number in the stream.
    pub seq: Seq,
    /// Name of the topic.
    pub topic: String,
    /// Who sent it.
    pub publisher: PublisherId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The publisher's own number.
    pub publisher_seq: PublisherSeq,
    /// Hash of its key, or 0.
    pub key_hash: u64,
    /// When the publisher made it, ns UTC.
    pub origin_time_ns: u64,
    /// When the relay received it, ns UTC.
    pub receive_time_ns: u64,
    /// The publisher's checksum.
    pub checksum: u32,
    /// Extension area.
    pub extension: Vec<u8>,
    /// The message.
    pub payload: Vec<u8>,
}

/// Where a subscription can go on, in this process or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// The first seq not seen yet.
    pub seq: Seq,
    /// Checksum of the DATA record before it, where it is known.
    pub checksum: Option<u32>,
}

impl From<ResumePoint> for Start {
    fn from(point: ResumePoint) -> Self {
        Self::Seq {
            seq: point.seq.get(),
            checksum: point.checksum,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Asking,
    Flowing,
}

/// A subscriber of one stream, with one connection.
///
/// Call [`Subscriber::poll`] (or a blocking call) several times within a heartbeat interval, or the relay takes the
/// subscriber for dead; nothing is lost by that, since the next call connects again and goes on where it was.
pub struct Subscriber {
    link: Link,
    patterns: Vec<String>,
    /// The one pattern `>`: every record comes, so seq has no gaps but where a loss was accepted.
    is_complete: bool,
    /// The seq that was due where an EPOCH record had a later one: an UNCLEAN record has to follow.
    skipped: Option<Seq>,
    start: Start,
    phase: Phase,
    topics: SubscriberTopics,
    /// `None` until the first SUBSCRIBED.
    resume: Option<ResumePoint>,
    /// Whether that place is exact. A subscription from a time is told a seq that lies anywhere before its first record, and
    /// records before the time are passed over, so it is exact only from the first record on: until then the time is asked for.
    is_placed: bool,
    tail_seq: Seq,
    epoch: Epoch,
    events: Events<SubscriberEvent>,
    since_clock_read: u32,
    dead: Option<ClientError>,
}

impl Subscriber {
    /// Connects, logs on and subscribes; blocks until the relay has answered.
    ///
    /// # Errors
    /// [`ClientError::Configuration`]; whatever the relay refuses for good; [`ClientError::NotKept`];
    /// [`ClientError::GaveUp`] when `give_up_after` is set and over.
    pub fn connect(config: SubscriberConfig) -> Result<Self, ClientError> {
        check_patterns(&config.patterns)?;
        if matches!(config.start, Start::Seq { seq: 0, .. }) {
            return Err(ClientError::Configuration("seq begins at 1".into()));
        }
        let identity = Identity {
            role: Role::Subscriber,
            stream: StreamId(config.stream),
            publisher: PublisherId(0),
            incarnation: Incarnation(0),
            credential: config.credential,
        };
        let patience = Patience::new(
            config.connect_timeout,
            config.attempt_timeout,
            config.silent_intervals,
        )?;
        let link = Link::new(identity, &config.addresses, patience, config.give_up_after)?;
        let mut subscriber = Self {
            link,
            is_complete: config.patterns == [">"],
            skipped: None,
            patterns: config.patterns,
            start: config.start,
            phase: Phase::Down,
            topics: SubscriberTopics::default(),
            resume: None,
            is_placed: false,
            tail_seq: Seq(0),
            epoch: Epoch(0),
            events: Events::new(),
            since_clock_read: 0,
            dead: None,
        };
        while !subscriber.is_connected() {
            subscriber.establish()?;
            if !subscriber.is_connected() {
                subscriber.link.wait(false, WAIT_MOST);
            }
        }
        Ok(subscriber)
    }

    /// The next record, if one is there. Never blocks; one system call where nothing is there. Answers heartbeats and
    /// connects again where that is due.
    ///
    /// # Errors
    /// What ends the subscriber ([`ClientError::is_final`]). A lost connection is no error, but an event.
    pub fn poll(&mut self) -> Result<Option<Delivery<'_>>, ClientError> {
        let found = self.find()?;
        Ok(found.map(|range| self.view(range)))
    }

    /// The next record; blocks until one is there, at most for `timeout`.
    ///
    /// # Errors
    /// As [`Subscriber::poll`].
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Delivery<'_>>, ClientError> {
        let mut begun = None;
        loop {
            if let Some(range) = self.find()? {
                return Ok(Some(self.view(range)));
            }
            let begun = *begun.get_or_insert_with(Instant::now);
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.link.wait(false, left);
        }
    }

    /// Every record from here on, each with memory of its own; blocks between them. Ends after an error.
    pub fn messages(&mut self) -> impl Iterator<Item = Result<Message, ClientError>> {
        let mut has_ended = false;
        std::iter::from_fn(move || {
            while !has_ended {
                match self.next_within(WAIT_MOST) {
                    Ok(None) => {}
                    Ok(Some(delivery)) => return Some(Ok(delivery.to_message())),
                    Err(error) => {
                        has_ended = true;
                        return Some(Err(error));
                    }
                }
            }
            None
        })
    }

    /// Everything before this seq was handed over, or does not match.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.resume.map_or(Seq(0), |point| point.seq)
    }

    /// The newest "next seq to be released" that the relay told: `tail_seq - next_seq` is how far behind this is.
    #[must_use]
    pub fn tail_seq(&self) -> Seq {
        self.tail_seq
    }

    /// Where to go on in another process; give it as [`SubscriberConfig::start`].
    /// After a start from a time it is exact only once a record came: until then, start from the time again.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        self.resume.unwrap_or(ResumePoint {
            seq: Seq(0),
            checksum: None,
        })
    }

    /// The newest epoch the relay told.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the subscription stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Flowing
    }

    /// The oldest event that was not fetched yet.
    pub fn next_event(&mut self) -> Option<SubscriberEvent> {
        self.events.pop()
    }

    /// Events that gave way because nobody fetched them.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// The socket, where there is one: for waiting until one of many subscribers has something to take. It is another one after
    /// each loss of the connection. Only when [`Subscriber::poll`] found nothing is everything taken that the socket had.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link.socket()
    }

    /// Why the last connection ended or the last attempt failed, if one did.
    #[must_use]
    pub fn last_failure(&self) -> Option<&DisconnectReason> {
        self.link.last_failure()
    }

    /// Logs out.
    pub fn close(self) {
        self.link.log_out();
    }

    fn view(&self, range: Range<usize>) -> Delivery<'_> {
        let record = Record::parse(self.link.bytes(range)).expect("it was verified before");
        let topic = self
            .topics
            .name(record.topic())
            .expect("it was looked up before");
        Delivery { record, topic }
    }

    /// Where the next record to hand over lies.
    fn find(&mut self) -> Result<Option<Range<usize>>, ClientError> {
        self.guarded(|subscriber, now| {
            if subscriber.phase == Phase::Flowing {
                subscriber.stay_alive_among_records();
                if let Some(range) = subscriber.take_items()? {
                    return Ok(Some(range));
                }
            }
            let now = now.get();
            if !subscriber.turn(now)? {
                return Ok(None);
            }
            subscriber.take_items()
        })
    }

    /// Goes on towards SUBSCRIBED, without touching the records behind it.
    fn establish(&mut self) -> Result<(), ClientError> {
        self.guarded(|subscriber, now| subscriber.turn(now.get()).map(drop))
    }

    fn guarded<T: Default>(
        &mut self,
        act: impl FnOnce(&mut Self, &mut LazyNow) -> Result<T, Failure>,
    ) -> Result<T, ClientError> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        let mut now = LazyNow(None);
        let error = match act(self, &mut now) {
            Ok(value) => return Ok(value),
            Err(Failure::Connection(reason)) => match self.on_lost(reason, now.get()) {
                Ok(()) => return Ok(T::default()),
                Err(error) => error,
            },
            Err(Failure::Client(error)) => error,
        };
        let code = match &error {
            ClientError::Corrupt { .. } => Some(TerminateCode::Checksum),
            ClientError::WrongHistory { .. } => Some(TerminateCode::WrongHistory),
            ClientError::NotKept { .. } => Some(TerminateCode::Logout),
            _ => None,
        };
        if let Some(code) = code {
            self.link.say(code, &error.to_string());
        }
        self.link.let_go();
        self.phase = Phase::Down;
        self.dead = Some(error.clone());
        Err(error)
    }

    fn on_lost(&mut self, reason: DisconnectReason, now: Instant) -> Result<(), ClientError> {
        self.phase = Phase::Down;
        self.link.lost(reason.clone(), now)?;
        self.events.push(SubscriberEvent::Disconnected { reason });
        Ok(())
    }

    /// A caller slow with records that are all here already must not look dead to the relay.
    fn stay_alive_among_records(&mut self) {
        self.since_clock_read += 1;
        if self.since_clock_read >= RECORDS_PER_CLOCK_READ {
            self.since_clock_read = 0;
            self.keep_alive(Instant::now());
        }
    }

    fn keep_alive(&mut self, now: Instant) {
        self.link.keep_alive(now);
        self.link.write((&[], &[]), false, now);
    }

    /// One turn of the connection; whether records may be there.
    fn turn(&mut self, now: Instant) -> Result<bool, Failure> {
        if !self.link.is_up() {
            let Some(answer) = self.link.log_on(self.epoch, now)? else {
                return Ok(false);
            };
            self.epoch = answer.epoch;
            self.topics.clear();
            self.subscribe();
            self.phase = Phase::Asking;
        }
        self.keep_alive(now);
        if self.phase == Phase::Asking {
            // Of what the last read brought, the messages before the records; those wait for `take_items`.
            while self.phase == Phase::Asking {
                match self.link.next_item()? {
                    Some(Item::Message(message)) => self.on_message(message)?,
                    Some(Item::Record(_)) => {
                        let what = "a record before the subscription was answered";
                        return Err(DisconnectReason::malformed(what).into());
                    }
                    None if self.link.fill(now)? == 0 => return Ok(false),
                    None => {}
                }
            }
            return Ok(true);
        }
        self.since_clock_read = 0;
        Ok(self.link.fill(now)? > 0)
    }

    fn subscribe(&mut self) {
        self.skipped = None;
        let start = match self.resume {
            Some(point) if self.is_placed => point.into(),
            _ => self.start,
        };
        let (from, value, checksum) = match start {
            Start::Live => (SubscribeFrom::Live, 0, None),
            Start::Earliest => (SubscribeFrom::Earliest, 0, None),
            Start::Seq { seq, checksum } => (SubscribeFrom::Seq, seq, checksum),
            Start::Time(ns) => (SubscribeFrom::Time, ns, None),
        };
        let mut laid_out = Vec::new();
        let patterns = Patterns::lay_out(&self.patterns, &mut laid_out)
            .expect("the patterns were checked at the start");
        self.link.queue(&WireMessage::Subscribe(Subscribe {
            from,
            checksum,
            value,
            patterns,
        }));
    }

    /// Takes items until a record to hand over; where it lies.
    fn take_items(&mut self) -> Result<Option<Range<usize>>, Failure> {
        while let Some(item) = self.link.next_item()? {
            match item {
                Item::Message(message) => self.on_message(message)?,
                Item::Record(range) => {
                    if self.on_record(range.clone())? {
                        return Ok(Some(range));
                    }
                }
            }
        }
        Ok(None)
    }

    fn on_message(&mut self, message: Inbound) -> Result<(), Failure> {
        match message {
            Inbound::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat),
            Inbound::Topic { topic, name, .. } => {
                if topic.get() == 0 || check_name(name.as_bytes()).is_err() {
                    return Err(DisconnectReason::malformed("a topic without id or name").into());
                }
                self.topics.define(topic, &name);
                Ok(())
            }
            Inbound::Subscribed(subscribed) if self.phase == Phase::Asking => {
                self.on_subscribed(&subscribed)
            }
            _ => Err(DisconnectReason::malformed("a message out of turn").into()),
        }
    }

    fn on_subscribed(&mut self, subscribed: &Subscribed) -> Result<(), Failure> {
        let start_seq = subscribed.start_seq;
        if start_seq.get() == 0 {
            return Err(DisconnectReason::malformed("a subscription starts at seq 0").into());
        }
        let asked = match (self.resume, self.start) {
            (Some(point), _) if self.is_placed => Some(point),
            (None, Start::Seq { seq, checksum }) => Some(ResumePoint {
                seq: Seq(seq),
                checksum,
            }),
            _ => None,
        };
        let point = match asked {
            None => match self.resume {
                // The time is asked for again, and nothing came yet: what was passed over stays so.
                Some(point) if point.seq >= start_seq => point,
                _ => ResumePoint {
                    seq: start_seq,
                    checksum: None,
                },
            },
            Some(point) if point.seq == start_seq => point,
            Some(ResumePoint { seq: asked, .. }) if start_seq > asked => {
                return Err(ClientError::NotKept {
                    asked,
                    start: start_seq,
                }
                .into());
            }
            Some(ResumePoint { seq: expected, .. }) => {
                return Err(wrong(
                    expected,
                    start_seq,
                    "the subscription starts before what was asked",
                ));
            }
        };
        self.resume = Some(point);
        self.is_placed = !matches!(self.start, Start::Time(_)) || asked.is_some();
        self.tail_seq = self.tail_seq.max(subscribed.next_seq);
        self.epoch = self.epoch.max(subscribed.epoch);
        self.link.flows();
        self.phase = Phase::Flowing;
        self.events.push(SubscriberEvent::Connected {
            start_seq,
            next_seq: subscribed.next_seq,
            epoch: subscribed.epoch,
        });
        Ok(())
    }

    fn on_heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), Failure> {
        self.epoch = self.epoch.max(heartbeat.epoch);
        let Some(point) = &mut self.resume else {
            return Ok(());
        };
        if self.phase != Phase::Flowing || heartbeat.next_seq < point.seq {
            return Ok(());
        }
        let told = (heartbeat.checksum != 0).then_some(heartbeat.checksum);
        if heartbeat.next_seq == point.seq {
            match (point.checksum, told) {
                (None, _) => point.checksum = told,
                (Some(ours), Some(theirs)) if ours != theirs => {
                    let what = "the relay's last record is not the one that was seen";
                    return Err(wrong(point.seq, heartbeat.next_seq, what));
                }
                _ => {}
            }
        } else if self.is_complete && self.is_placed {
            let what = "the relay passed over records that match";
            return Err(wrong(point.seq, heartbeat.next_seq, what));
        } else {
            *point = ResumePoint {
                seq: heartbeat.next_seq,
                checksum: told,
            };
        }
        self.tail_seq = self.tail_seq.max(heartbeat.next_seq);
        Ok(())
    }

    /// Verifies a record; whether it is to be handed over.
    fn on_record(&mut self, range: Range<usize>) -> Result<bool, Failure> {
        let record = Record::parse(self.link.bytes(range)).map_err(DisconnectReason::malformed)?;
        if let Err(error) = record.verify() {
            return Err(ClientError::Corrupt {
                seq: record.seq(),
                text: error.to_string(),
            }
            .into());
        }
        let Some(point) = &mut self.resume else {
            return Err(DisconnectReason::malformed("a record before SUBSCRIBED").into());
        };
        let seq = record.seq();
        if seq == Seq(u64::MAX) {
            return Err(DisconnectReason::malformed("a seq that no stream reaches").into());
        }
        // While a time is awaited topics are told again, from wherever the relay begins to look for it.
        if seq < point.seq && (self.is_placed || record.is_data()) {
            return Err(wrong(
                point.seq,
                seq,
                "a record lies before what was seen already",
            ));
        }
        if self.is_complete && self.is_placed && seq > point.seq {
            if record.kind() != Some(RecordKind::Epoch) {
                return Err(wrong(point.seq, seq, "records are missing in the flow"));
            }
            self.skipped = Some(point.seq);
            point.seq = seq;
        } else if let Some(due) = self.skipped.take()
            && record.kind() != Some(RecordKind::Unclean)
        {
            return Err(wrong(due, seq, "records are missing in the flow"));
        }
        if record.is_data() {
            if self.topics.name(record.topic()).is_none() {
                return Err(DisconnectReason::malformed("a record of a topic not told").into());
            }
            *point = ResumePoint {
                seq: seq.next(),
                checksum: Some(record.checksum()),
            };
            self.is_placed = true;
            self.tail_seq = self.tail_seq.max(seq.next());
            return Ok(true);
        }
        match record.kind() {
            Some(RecordKind::Topic) => {
                let name = check_name(record.payload()).map_err(DisconnectReason::malformed)?;
                self.topics.define(record.topic(), name);
            }
            Some(RecordKind::Epoch) => {
                let body = epoch_body(record.payload())
                    .ok_or_else(|| DisconnectReason::malformed("an EPOCH record without body"))?;
                self.epoch = self.epoch.max(Epoch(body.epoch.get()));
            }
            _ => {}
        }
        Ok(false)
    }
}

/// The clock, read once and only where it is needed.
struct LazyNow(Option<Instant>);

impl LazyNow {
    fn get(&mut self) -> Instant {
        *self.0.get_or_insert_with(Instant::now)
    }
}

fn wrong(expected: Seq, found: Seq, what: &'static str) -> Failure {
    ClientError::WrongHistory {
        expected,
        found,
        what,
    }
    .into()
}

fn check_patterns(patterns: &[String]) -> Result<(), ClientError> {
    for pattern in patterns {
        check_pattern(pattern.as_bytes())
            .map_err(|error| ClientError::Configuration(format!("pattern {pattern}: {error}")))?;
    }
    let mut laid_out = Vec::new();
    Patterns::lay_out(patterns, &mut laid_out)
        .map_err(|error| ClientError::Configuration(error.to_string()))?;
    if laid_out.len() + 64 > MESSAGE_LENGTH_MAX as usize {
        return Err(ClientError::Configuration(format!(
            "the patterns take {} bytes, more than a message of {MESSAGE_LENGTH_MAX} holds",
            laid_out.len()
        )));
    }
    Ok(())
}
