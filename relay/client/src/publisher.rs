//! The publisher: takes messages, keeps them until they are released, sends them again after every loss.
//!
//! ```text
//! Down -- logon --> Resolving -- every topic answered --> Ready
//!   ^_________________|_____________________________________|   connection lost
//! ```
//!
//! Messages are taken in every phase while the window has room; they are written in Ready only, since a record carries a
//! topic id that is valid on the present connection alone.
//!
//! Invariants: publisher sequences on the wire have no gap; nothing is forgotten before the relay called it released;
//! unreleased bytes on their way never exceed the relay's credit.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_wire::code::{Held, RejectCode, Role, TerminateCode};
use relay_wire::id::{Epoch, Incarnation, PublisherId, PublisherSeq, Seq, StreamId, TopicId};
use relay_wire::message::{Ack, LogonAck, Message, TopicRequest};
use relay_wire::record::{Fields, encoded_stride};
use relay_wire::topic::check_name;

use crate::config::{OutMessage, PublisherConfig};
use crate::connection::{Failure, Identity, Inbound, Item, Link, Rejection};
use crate::error::{ClientError, DisconnectReason, TrySendError};
use crate::events::Events;
use crate::patience::Patience;
use crate::resend::{Refusal, Window};
use crate::topics::{Answer, PublisherTopics};

/// Pause before what was throttled is sent again.
const THROTTLE_PAUSE: Duration = Duration::from_millis(5);
/// Topic requests wait while so many bytes of them are not written yet.
const REQUEST_BYTES_MAX: usize = 32 << 10;
/// Blocking calls look around at least so often.
const WAIT_MOST: Duration = Duration::from_secs(1);

/// What happened to a publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublisherEvent {
    /// Everything up to here is released. Not told where [`Publisher::on_ack`] set a callback. Acknowledgements that
    /// nobody fetched in between become one.
    Acked {
        /// Through this one.
        publisher_seq: PublisherSeq,
        /// Its seq in the stream; 0 where the relay does not know it any more.
        seq: Seq,
    },
    /// The relay refused a message for good; it was dropped. Every message behind it now has a number one lower.
    Rejected {
        /// Its number at that moment.
        publisher_seq: PublisherSeq,
        /// Why.
        code: RejectCode,
        /// The relay's own words.
        text: String,
    },
    /// The connection is lost; the next one is being made.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
    /// Logged on, topics resolved, unreleased messages being sent again.
    Connected {
        /// The relay's epoch.
        epoch: Epoch,
        /// The publisher sequence the relay wanted next: from there it is sent again.
        next_expected: PublisherSeq,
        /// The highest publisher sequence released, 0 for none.
        released_through: PublisherSeq,
        /// The seq the next released message of the stream will have.
        next_seq: Seq,
        /// Most bytes on their way unreleased.
        credit: u64,
        /// Most bytes of a payload.
        payload_limit: u32,
    },
    /// The relay holds publishers back, or no longer.
    Held(Held),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Resolving,
    Ready,
}

/// What the newest LOGON_ACK said.
#[derive(Clone, Copy, Default)]
struct Terms {
    next_expected: PublisherSeq,
    released_through: PublisherSeq,
    next_seq: Seq,
    credit: u64,
    payload_limit: u32,
}

/// Called with each acknowledgement: the publisher sequence through which all is released, and that one's seq.
type AckCallback = Box<dyn FnMut(PublisherSeq, Seq) + Send>;

/// A publisher of one stream, with one connection.
///
/// Call [`Publisher::poll`] (or a blocking call) several times within a heartbeat interval, or the relay takes the
/// publisher for dead; nothing is lost by that, since the next call connects again.
///
/// Dropping it closes the connection at once, whatever is unreleased; [`Publisher::close`] does not.
pub struct Publisher {
    link: Link,
    window: Window,
    topics: PublisherTopics,
    publisher: PublisherId,
    incarnation: Incarnation,
    phase: Phase,
    terms: Terms,
    epoch: Epoch,
    held: Held,
    paused_until: Option<Instant>,
    asking_paused_until: Option<Instant>,
    events: Events<PublisherEvent>,
    ack_callback: Option<AckCallback>,
    dead: Option<ClientError>,
}

impl Publisher {
    /// Connects and logs on; blocks until that is through.
    ///
    /// # Errors
    /// [`ClientError::Configuration`]; whatever the relay refuses for good; [`ClientError::GaveUp`] when
    /// `give_up_after` is set and over.
    pub fn connect(config: PublisherConfig) -> Result<Self, ClientError> {
        let incarnation = config.incarnation.unwrap_or_else(utc_ns);
        if config.publisher == 0 || incarnation == 0 {
            return Err(ClientError::Configuration(
                "publisher id and incarnation must not be 0".into(),
            ));
        }
        let identity = Identity {
            role: Role::Publisher,
            stream: StreamId(config.stream),
            publisher: PublisherId(config.publisher),
            incarnation: Incarnation(incarnation),
            credential: config.credential,
        };
        let patience = Patience::new(
            config.connect_timeout,
            config.attempt_timeout,
            config.silent_intervals,
        )?;
        let link = Link::new(identity, &config.addresses, patience, config.give_up_after)?;
        let mut publisher = Self {
            link,
            window: Window::new(config.window_bytes),
            topics: PublisherTopics::default(),
            publisher: PublisherId(config.publisher),
            incarnation: Incarnation(incarnation),
            phase: Phase::Down,
            terms: Terms::default(),
            epoch: Epoch(0),
            held: Held::No,
            paused_until: None,
            asking_paused_until: None,
            events: Events::new(),
            ack_callback: None,
            dead: None,
        };
        while !publisher.is_connected() {
            publisher.poll()?;
            if !publisher.is_connected() {
                publisher.wait(WAIT_MOST);
            }
        }
        Ok(publisher)
    }

    /// The handle of a topic, which is defined if it is new. Blocks for the relay's answer the first time; afterwards
    /// the handle is known, and holds across connections. It is not the id the relay gives.
    ///
    /// # Errors
    /// [`ClientError::TopicRefused`], also for a name that breaks the rules; otherwise as [`Publisher::poll`].
    pub fn topic(&mut self, name: &str) -> Result<TopicId, ClientError> {
        let handle = self.ask_for(name)?;
        self.answer_of(handle, name)
    }

    /// The handles of many topics, in the order of `names`: as [`Publisher::topic`], but all are asked for before the first answer
    /// is waited for, so that a thousand of them take little longer than one.
    ///
    /// # Errors
    /// As [`Publisher::topic`], for the first name that is refused; the others are defined all the same.
    pub fn topics<S: AsRef<str>>(&mut self, names: &[S]) -> Result<Vec<TopicId>, ClientError> {
        let asked = names.iter().map(|name| self.ask_for(name.as_ref()));
        let handles = asked.collect::<Result<Vec<_>, _>>()?;
        let answers = handles.into_iter().zip(names);
        answers
            .map(|(handle, name)| self.answer_of(handle, name.as_ref()))
            .collect()
    }

    fn ask_for(&mut self, name: &str) -> Result<u32, ClientError> {
        self.alive()?;
        if let Err(error) = check_name(name.as_bytes()) {
            return Err(ClientError::TopicRefused {
                name: name.to_owned(),
                code: RejectCode::BadTopic,
                text: error.to_string(),
            });
        }
        Ok(self.topics.ask(name))
    }

    /// Blocks until a topic that was asked for is answered.
    fn answer_of(&mut self, handle: u32, name: &str) -> Result<TopicId, ClientError> {
        loop {
            if self.topics.id(TopicId(handle)).is_some() {
                return Ok(TopicId(handle));
            }
            if let Answer::Refused(code, text) = self.topics.answer(handle) {
                return Err(ClientError::TopicRefused {
                    name: name.to_owned(),
                    code: *code,
                    text: text.clone(),
                });
            }
            if self.poll()? == 0 {
                self.wait(WAIT_MOST);
            }
        }
    }

    /// Queues a message; no system call. It goes out with the next [`Publisher::flush`] or [`Publisher::poll`].
    ///
    /// # Errors
    /// [`TrySendError`] says why it was not queued.
    pub fn try_send(&mut self, message: &OutMessage<'_>) -> Result<PublisherSeq, TrySendError> {
        if let Some(error) = &self.dead {
            return Err(TrySendError::Closed(error.clone()));
        }
        let stride = encoded_stride(message.extension.len(), message.payload.len());
        if message.payload.len() > self.terms.payload_limit as usize
            || stride as u64 > self.terms.credit
        {
            return Err(TrySendError::TooLarge);
        }
        let Some(topic) = self.topics.id(message.topic) else {
            return Err(TrySendError::UnknownTopic);
        };
        let fields = Fields {
            topic,
            publisher: self.publisher,
            incarnation: self.incarnation,
            publisher_seq: PublisherSeq(0),
            key_hash: message.key_hash,
            origin_time_ns: message.origin_time_ns,
        };
        self.window
            .push(fields, message.extension, message.payload)
            .map_err(|refusal| match refusal {
                Refusal::Full => TrySendError::Full,
                Refusal::TooLarge => TrySendError::TooLarge,
                Refusal::Extension => TrySendError::Extension,
            })
    }

    /// Queues a message and writes what the socket takes; blocks while the window is full.
    ///
    /// # Errors
    /// Why the message can't be sent, otherwise as [`Publisher::poll`].
    pub fn send(&mut self, message: &OutMessage<'_>) -> Result<PublisherSeq, ClientError> {
        loop {
            match self.try_send(message) {
                Ok(publisher_seq) => {
                    self.poll()?;
                    return Ok(publisher_seq);
                }
                Err(TrySendError::Full) => {
                    if self.poll()? == 0 {
                        self.wait(WAIT_MOST);
                    }
                }
                Err(TrySendError::TooLarge) => {
                    return Err(ClientError::TooLarge {
                        payload: message.payload.len(),
                        limit: self.terms.payload_limit,
                    });
                }
                Err(TrySendError::UnknownTopic) => return Err(ClientError::UnknownTopic),
                Err(TrySendError::Extension) => return Err(ClientError::Extension),
                Err(TrySendError::Closed(error)) => return Err(error),
            }
        }
    }

    /// Writes what is queued, as far as socket and credit allow; at most one system call, none with nothing queued.
    ///
    /// # Errors
    /// The error that ended the publisher. A lost connection is none; [`Publisher::poll`] sees to that.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.alive()?;
        if self.phase == Phase::Ready && !self.window.is_written() {
            self.write(Instant::now());
        }
        Ok(())
    }

    /// Does what there is to do: writes, reads, answers heartbeats, connects again. Never blocks; one system call
    /// where nothing is to do. Returns how much was done, 0 for nothing.
    ///
    /// # Errors
    /// What ends the publisher ([`ClientError::is_final`]). A lost connection is no error, but an event.
    pub fn poll(&mut self) -> Result<usize, ClientError> {
        self.alive()?;
        let now = Instant::now();
        let error = match self.turn(now) {
            Ok(work) => return Ok(work),
            Err(Failure::Connection(reason)) => match self.on_lost(reason, now) {
                Ok(()) => return Ok(1),
                Err(error) => error,
            },
            Err(Failure::Client(error)) => error,
        };
        let is_lost_here = matches!(error, ClientError::SequenceLost { .. });
        if is_lost_here && !self.window.is_within_record() {
            self.link
                .say(TerminateCode::SequenceLost, "what is expected is not kept");
        }
        self.link.let_go();
        self.phase = Phase::Down;
        self.dead = Some(error.clone());
        Err(error)
    }

    /// Blocks until [`Publisher::poll`] may have something to do, at most for `limit`: bytes came, there is room for what is
    /// queued, or a lost connection's next step or a heartbeat is due. It may return early; it does nothing itself.
    ///
    /// A thread that polls in between sees an acknowledgement, or that its relay is gone, as soon as it is there, where one that
    /// sleeps sees each step of the next connection after another sleep.
    ///
    /// Where the publisher has ended with an error there is nothing more to do: it sleeps.
    pub fn wait(&self, limit: Duration) {
        if self.dead.is_some() {
            std::thread::sleep(limit);
            return;
        }
        let pause_end = [self.paused_until, self.asking_paused_until]
            .into_iter()
            .flatten()
            .min();
        let limit = match pause_end {
            Some(until) => until.saturating_duration_since(Instant::now()).min(limit),
            None => limit,
        };
        let has_records = self.may_write_records()
            && !self.window.is_written()
            && !self.window.queued(self.terms.credit).0.is_empty();
        self.link.wait(has_records, limit);
    }

    /// The oldest event that was not fetched yet.
    pub fn next_event(&mut self) -> Option<PublisherEvent> {
        self.events.pop()
    }

    /// Events that gave way because nobody fetched them.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// Has `callback` called with each acknowledgement, instead of the event: the publisher sequence through which all
    /// is released, and that message's seq (0 where the relay does not know it any more).
    pub fn on_ack(&mut self, callback: Box<dyn FnMut(PublisherSeq, Seq) + Send>) {
        self.ack_callback = Some(callback);
    }

    /// Blocks until everything sent is released, at most for `timeout`; whether it is.
    ///
    /// # Errors
    /// As [`Publisher::poll`].
    pub fn wait_released(&mut self, timeout: Duration) -> Result<bool, ClientError> {
        let begun = Instant::now();
        loop {
            let work = self.poll()?;
            if self.window.len() == 0 {
                return Ok(true);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            if work == 0 {
                self.wait(left);
            }
        }
    }

    /// Everything up to here is released; 0 for nothing.
    #[must_use]
    pub fn acked_through(&self) -> PublisherSeq {
        PublisherSeq(self.window.first().get() - 1)
    }

    /// The number the next message gets.
    #[must_use]
    pub fn next_publisher_seq(&self) -> PublisherSeq {
        self.window.next()
    }

    /// Messages kept because they are not released yet.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.window.len()
    }

    /// Their bytes, headers and padding included.
    #[must_use]
    pub fn unacknowledged_bytes(&self) -> usize {
        self.window.kept_bytes()
    }

    /// Whether it is logged on with every topic resolved.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// The newest epoch the relay told.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The incarnation in use.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Most bytes of a payload.
    #[must_use]
    pub fn payload_limit(&self) -> u32 {
        self.terms.payload_limit
    }

    /// Whether the relay holds publishers back, as its newest heartbeat says.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held
    }

    /// The socket, where there is one: for waiting until one of many publishers has something to do. It is another one after
    /// each loss of the connection.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link.socket()
    }

    /// Why the last connection ended or the last attempt failed, if one did.
    #[must_use]
    pub fn last_failure(&self) -> Option<&DisconnectReason> {
        self.link.last_failure()
    }

    /// Blocks until everything sent is released, then logs out.
    ///
    /// # Errors
    /// As [`Publisher::poll`]; what is unreleased then is lost with this object.
    pub fn close(mut self) -> Result<(), ClientError> {
        while !self.wait_released(WAIT_MOST)? {}
        self.link.log_out();
        Ok(())
    }

    fn alive(&self) -> Result<(), ClientError> {
        match &self.dead {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    fn turn(&mut self, now: Instant) -> Result<usize, Failure> {
        let mut work = 0;
        if !self.link.is_up() {
            let Some(answer) = self.link.log_on(self.epoch, now)? else {
                return Ok(0);
            };
            self.on_logon(&answer)?;
            work += 1 + self.take_items(now)?;
        }
        self.end_pauses(now);
        self.ask_for_topics();
        self.link.keep_alive(now);
        work += usize::from(self.write(now));
        if self.link.fill(now)? > 0 {
            work += 1 + self.take_items(now)?;
            self.write(now);
        }
        Ok(work)
    }

    fn take_items(&mut self, now: Instant) -> Result<usize, Failure> {
        let mut taken = 0;
        while let Some(item) = self.link.next_item()? {
            let Item::Message(message) = item else {
                return Err(DisconnectReason::malformed("a record for a publisher").into());
            };
            self.on_message(message, now)?;
            taken += 1;
        }
        Ok(taken)
    }

    fn may_write_records(&self) -> bool {
        self.phase == Phase::Ready && self.paused_until.is_none()
    }

    /// One write of session messages and records; whether records went out.
    fn write(&mut self, now: Instant) -> bool {
        let records: (&[u8], &[u8]) = if self.may_write_records() && !self.window.is_written() {
            self.window.queued(self.terms.credit)
        } else {
            (&[], &[])
        };
        let within_record = self.window.is_within_record();
        let written = self.link.write(records, within_record, now);
        self.window.wrote(written);
        written > 0
    }

    fn end_pauses(&mut self, now: Instant) {
        for pause in [&mut self.paused_until, &mut self.asking_paused_until] {
            if pause.is_some_and(|until| until <= now) {
                *pause = None;
            }
        }
    }

    fn ask_for_topics(&mut self) {
        while self.asking_paused_until.is_none() && self.link.queued_bytes() < REQUEST_BYTES_MAX {
            let Some((request, name)) = self.topics.next_to_ask() else {
                return;
            };
            let name = name.as_bytes();
            self.link
                .queue(&Message::TopicRequest(TopicRequest { request, name }));
        }
    }

    fn on_lost(&mut self, reason: DisconnectReason, now: Instant) -> Result<(), ClientError> {
        self.phase = Phase::Down;
        (self.paused_until, self.asking_paused_until) = (None, None);
        self.link.lost(reason.clone(), now)?;
        self.events.push(PublisherEvent::Disconnected { reason });
        Ok(())
    }

    fn on_logon(&mut self, answer: &LogonAck) -> Result<(), Failure> {
        self.epoch = answer.epoch;
        self.terms = Terms {
            next_expected: answer.next_expected,
            released_through: answer.released_through,
            next_seq: answer.next_seq,
            credit: answer.credit,
            payload_limit: answer.payload_limit,
        };
        if answer.released_through >= answer.next_expected {
            let what = "more publisher sequences are released than were taken";
            return Err(DisconnectReason::malformed(what).into());
        }
        self.check_expected(answer.next_expected)?;
        self.window.rewind(answer.next_expected);
        self.release(answer.released_through, Seq(0));
        self.topics.on_connection();
        self.link.flows();
        self.phase = Phase::Resolving;
        self.settle_topics();
        Ok(())
    }

    /// The relay must want something that is kept here or comes next.
    fn check_expected(&self, next_expected: PublisherSeq) -> Result<(), ClientError> {
        let kept_from = self.window.first();
        let sent_to = self.window.sent_to();
        if next_expected < kept_from || next_expected > sent_to {
            return Err(ClientError::SequenceLost {
                next_expected,
                kept_from,
                sent_to,
            });
        }
        Ok(())
    }

    fn on_message(&mut self, message: Inbound, now: Instant) -> Result<(), Failure> {
        match message {
            Inbound::Ack(ack) => self.on_ack_message(&ack),
            Inbound::Heartbeat(heartbeat) => {
                self.epoch = self.epoch.max(heartbeat.epoch);
                if self.held != heartbeat.held {
                    self.held = heartbeat.held;
                    self.events.push(PublisherEvent::Held(heartbeat.held));
                }
                Ok(())
            }
            Inbound::Topic { request: 0, .. } => Ok(()),
            Inbound::Topic {
                request,
                topic,
                name,
            } => {
                if topic.get() == 0 {
                    return Err(DisconnectReason::malformed("a topic has id 0").into());
                }
                self.on_topic_answer(request, Some(&name), Answer::Given(topic))
            }
            Inbound::Reject(rejection) => self.on_reject(rejection, now),
            Inbound::Challenge(_) | Inbound::LogonAck(_) | Inbound::Subscribed(_) => {
                Err(DisconnectReason::malformed("a message out of turn").into())
            }
        }
    }

    fn on_ack_message(&mut self, ack: &Ack) -> Result<(), Failure> {
        if ack.publisher_seq >= self.window.cursor() {
            let what = "a publisher sequence is acknowledged that was not sent";
            return Err(DisconnectReason::malformed(what).into());
        }
        self.epoch = self.epoch.max(ack.epoch);
        self.release(ack.publisher_seq, ack.seq);
        Ok(())
    }

    fn release(&mut self, publisher_seq: PublisherSeq, seq: Seq) {
        if !self.window.release(publisher_seq) {
            return;
        }
        if let Some(callback) = &mut self.ack_callback {
            callback(publisher_seq, seq);
        } else if let Some(PublisherEvent::Acked {
            publisher_seq: through,
            seq: last,
        }) = self.events.newest_mut()
        {
            (*through, *last) = (publisher_seq, seq);
        } else {
            self.events
                .push(PublisherEvent::Acked { publisher_seq, seq });
        }
    }

    fn on_topic_answer(
        &mut self,
        request: u32,
        name: Option<&str>,
        answer: Answer,
    ) -> Result<(), Failure> {
        if !self.topics.on_answer(request, name, answer) {
            return Err(DisconnectReason::malformed("an answer to no topic request").into());
        }
        if self.phase == Phase::Ready {
            self.topics.settle_one(request);
        } else {
            self.settle_topics();
        }
        Ok(())
    }

    /// Lets the topics' ids take effect once all of them are known, and records flow.
    fn settle_topics(&mut self) {
        if !self.topics.is_settled() {
            return;
        }
        let changes = self.topics.settle();
        if !changes.is_empty() {
            let next_expected = self.terms.next_expected;
            self.window.forget_sent_from(next_expected);
            let events = &mut self.events;
            self.window
                .rewrite(self.window.first(), |publisher_seq, topic| {
                    match changes.get(&topic) {
                        None => Some(topic),
                        Some(Ok(id)) => Some(*id),
                        // The relay has it already; its topic does not matter any more.
                        Some(Err(_)) if publisher_seq < next_expected => Some(topic),
                        Some(Err((code, text))) => {
                            events.push(PublisherEvent::Rejected {
                                publisher_seq,
                                code: *code,
                                text: text.clone(),
                            });
                            None
                        }
                    }
                });
        }
        self.phase = Phase::Ready;
        self.events.push(PublisherEvent::Connected {
            epoch: self.epoch,
            next_expected: self.terms.next_expected,
            released_through: self.terms.released_through,
            next_seq: self.terms.next_seq,
            credit: self.terms.credit,
            payload_limit: self.terms.payload_limit,
        });
    }

    fn on_reject(&mut self, rejection: Rejection, now: Instant) -> Result<(), Failure> {
        if rejection.code == RejectCode::NotPrimary {
            return Err(DisconnectReason::NotPrimary.into());
        }
        if rejection.request != 0 {
            if rejection.code == RejectCode::Throttled {
                self.topics.ask_again(rejection.request);
                self.asking_paused_until = Some(now + THROTTLE_PAUSE);
                return Ok(());
            }
            let answer = Answer::Refused(rejection.code, rejection.text);
            return self.on_topic_answer(rejection.request, None, answer);
        }
        self.check_expected(rejection.next_expected)?;
        if rejection.next_expected > self.window.cursor() {
            let what = "a publisher sequence is expected that was not sent";
            return Err(DisconnectReason::malformed(what).into());
        }
        self.send_again_from(rejection.next_expected);
        match rejection.code {
            RejectCode::Gap => {}
            RejectCode::Throttled => self.paused_until = Some(now + THROTTLE_PAUSE),
            _ => self.drop_rejected(rejection)?,
        }
        Ok(())
    }

    /// Goes back; a record that is half on its way is completed first, as it was.
    fn send_again_from(&mut self, publisher_seq: PublisherSeq) {
        self.link.queue_rest_of_record(self.window.rest_of_record());
        self.window.rewind(publisher_seq);
    }

    fn drop_rejected(&mut self, rejection: Rejection) -> Result<(), DisconnectReason> {
        let dropped = rejection.publisher_seq;
        if dropped < rejection.next_expected || dropped >= self.window.sent_to() {
            let what = "a publisher sequence is refused that was taken, or not sent";
            return Err(DisconnectReason::malformed(what));
        }
        self.window.forget_sent_from(rejection.next_expected);
        let mut is_dropped = false;
        self.window.rewrite(dropped, |_, topic| {
            let keep = is_dropped;
            is_dropped = true;
            keep.then_some(topic)
        });
        self.events.push(PublisherEvent::Rejected {
            publisher_seq: dropped,
            code: rejection.code,
            text: rejection.text,
        });
        Ok(())
    }
}

/// Now in UTC nanoseconds: higher than at every start before, as long as the clock goes right.
fn utc_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
