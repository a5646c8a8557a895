//! The relay's end of a connection, played by a test: real sockets on loopback, the real codecs, no behaviour of its own.
//!
//! Everything runs on the test's one thread (but for the first logon, which blocks): whenever this end waits for the client,
//! it calls `drive`, which polls the client. So a test says exactly what has arrived when, and waits for nothing by
//! sleeping.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use relay_client::wire::code::{Held, Role};
use relay_client::wire::id::NodeId;
use relay_client::wire::item::{self, Front, Limits};
use relay_client::wire::message::{
    Ack, Challenge, Heartbeat, LogonAck, Message, Reject, Subscribed, Terminate, Topic,
};
use relay_client::wire::record::{self, Fields, Record};
use relay_client::wire::{code::RecordKind, stride};
use relay_client::{
    ClientError, Credential, Epoch, Incarnation, OutMessage, Publisher, PublisherConfig,
    PublisherEvent, PublisherId, PublisherSeq, RejectCode, Seq, Start, StreamId, Subscriber,
    SubscriberConfig, TerminateCode, TopicId,
};

pub const SECRET: &[u8] = b"a secret of the tests";
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PUBLISHER: u64 = 17;
pub const INCARNATION: u64 = 1_000;

const RELAY_NONCE: [u8; 32] = [7; 32];

pub fn credential() -> Credential {
    Credential {
        name: "tester".into(),
        secret: SECRET.to_vec(),
    }
}

/// Drives until `done`, and not for ever.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what} did not happen within {PATIENCE:?}"
        );
        std::thread::yield_now();
    }
}

/// A listening relay.
pub struct Relay {
    listener: TcpListener,
}

/// What a LOGON_ACK says.
#[derive(Clone, Copy)]
pub struct Terms {
    pub next_expected: u64,
    pub released_through: u64,
    pub credit: u64,
    pub payload_limit: u32,
    pub heartbeat_ms: u32,
    pub epoch: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            next_expected: 1,
            released_through: 0,
            credit: 1 << 20,
            payload_limit: 65_536,
            heartbeat_ms: 60_000,
            epoch: 1,
        }
    }
}

impl Relay {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub fn publisher_config(&self) -> PublisherConfig {
        PublisherConfig {
            incarnation: Some(INCARNATION),
            connect_timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            window_bytes: 1 << 16,
            ..PublisherConfig::new(vec![self.address()], credential(), PUBLISHER)
        }
    }

    pub fn subscriber_config(&self, pattern: &str, start: Start) -> SubscriberConfig {
        SubscriberConfig {
            connect_timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            ..SubscriberConfig::new(
                vec![self.address()],
                credential(),
                vec![pattern.into()],
                start,
            )
        }
    }

    /// The next connection.
    pub fn accept(&self, mut drive: impl FnMut()) -> Session {
        let mut session = None;
        until("a connection", || {
            session = self.try_accept();
            drive();
            session.is_some()
        });
        session.unwrap()
    }

    /// The next connection, if it is there.
    pub fn try_accept(&self) -> Option<Session> {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                return None;
            }
        };
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        Some(Session {
            socket,
            received: Vec::new(),
            is_closed: false,
        })
    }

    /// A publisher logged on under `terms`, with topic `a.b` as id 1.
    pub fn publisher(
        &self,
        config: PublisherConfig,
        terms: Terms,
    ) -> (Publisher, Session, TopicId) {
        std::thread::scope(|scope| {
            let relay = scope.spawn(|| {
                let mut session = self.accept(|| {});
                session.log_on(Role::Publisher, &terms, || {});
                session.answer_topic("a.b", 1, || {});
                session
            });
            let mut publisher = Publisher::connect(config).unwrap();
            let topic = publisher.topic("a.b").unwrap();
            (publisher, relay.join().unwrap(), topic)
        })
    }

    /// A subscriber to whom SUBSCRIBED told `start_seq` and `next_seq`; and what it asked for.
    pub fn subscriber(
        &self,
        config: SubscriberConfig,
        start_seq: u64,
        next_seq: u64,
    ) -> (Subscriber, Session, Asked) {
        std::thread::scope(|scope| {
            let relay = scope.spawn(|| {
                let mut session = self.accept(|| {});
                session.log_on(Role::Subscriber, &Terms::default(), || {});
                let asked = session.subscription(|| {});
                session.subscribed(start_seq, next_seq);
                (session, asked)
            });
            let subscriber = Subscriber::connect(config).unwrap();
            let (session, asked) = relay.join().unwrap();
            (subscriber, session, asked)
        })
    }
}

/// A SUBSCRIBE on its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub from: u8,
    pub value: u64,
    pub checksum: Option<u32>,
    pub patterns: Vec<String>,
}

/// One connection.
pub struct Session {
    socket: TcpStream,
    received: Vec<u8>,
    is_closed: bool,
}

impl Session {
    /// Reads what is there.
    fn read(&mut self) {
        let mut room = [0; 65_536];
        match self.socket.read(&mut room) {
            Ok(0) => self.is_closed = true,
            Ok(count) => self.received.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.is_closed = true,
        }
    }

    /// Takes a whole item, if one was received.
    pub fn try_item(&mut self) -> Option<Vec<u8>> {
        self.read();
        match item::front(&self.received, Limits::after_logon(1 << 20)).unwrap() {
            Front::Partial { .. } => None,
            Front::Record { length } | Front::Message { length } => {
                let item = self.received[..length].to_vec();
                self.received.drain(..stride(length));
                Some(item)
            }
        }
    }

    /// The client's next item.
    pub fn item(&mut self, mut drive: impl FnMut()) -> Vec<u8> {
        let mut item = None;
        until("an item of the client's", || {
            item = self.try_item();
            if item.is_none() {
                assert!(
                    !self.is_closed,
                    "the client closed instead of sending an item"
                );
                drive();
            }
            item.is_some()
        });
        item.unwrap()
    }

    /// The client's next items, all records, checked as a relay checks them: publisher sequence, topic and payload.
    pub fn records(&mut self, count: usize, mut drive: impl FnMut()) -> Vec<(u64, u32, Vec<u8>)> {
        (0..count).map(|_| parts(&self.item(&mut drive))).collect()
    }

    /// Bytes received from the client so far that are not taken yet, once at least `count` are there.
    pub fn bytes(&mut self, count: usize, mut drive: impl FnMut()) -> usize {
        until("bytes of the client's", || {
            drive();
            self.read();
            self.received.len() >= count
        });
        self.received.len()
    }

    /// Waits until the client has closed.
    pub fn closed(&mut self, mut drive: impl FnMut()) {
        until("the client's close", || {
            drive();
            self.read();
            self.is_closed
        });
    }

    /// What the client said and left unread here.
    pub fn last_words(&mut self, drive: impl FnMut()) -> Option<(TerminateCode, String)> {
        self.closed(drive);
        let item = self.try_item()?;
        match Message::decode(&item).unwrap() {
            Message::Terminate(terminate) => Some((terminate.code, terminate.text.into())),
            other => panic!("{other:?} instead of TERMINATE"),
        }
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        until("writing to the client", || {
            match self.socket.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            rest.is_empty()
        });
    }

    pub fn send(&mut self, message: &Message<'_>) {
        self.send_bytes(&message.to_vec().unwrap());
    }

    pub fn challenge(&mut self) {
        self.send(&challenge());
    }

    /// Reads a LOGON, checks its proof, and gives what an answer needs.
    pub fn logon(&mut self, role: Role, mut drive: impl FnMut()) -> [u8; 32] {
        let item = self.item(&mut drive);
        let Message::Logon(logon) = Message::decode(&item).unwrap() else {
            panic!("no LOGON");
        };
        assert!(logon.proof_holds(SECRET, &RELAY_NONCE));
        assert_eq!((logon.role, logon.name), (role, "tester"));
        if role == Role::Publisher {
            assert_eq!(logon.publisher, PublisherId(PUBLISHER));
            assert_eq!(logon.incarnation, Incarnation(INCARNATION));
        }
        logon.nonce
    }

    /// As [`Session::log_on`], and holds the connection; ends when the client gives it up, or it `is_over`.
    pub fn try_log_on(&mut self, role: Role, terms: &Terms, is_over: impl Fn() -> bool) {
        self.challenge();
        while !self.is_closed && !is_over() {
            let Some(item) = self.try_item() else {
                std::thread::yield_now();
                continue;
            };
            if let Ok(Message::Logon(logon)) = Message::decode(&item) {
                assert_eq!(logon.role, role);
                let answer = accept(terms, &logon.nonce, SECRET);
                // Fails where the client has just given up.
                let _ = self.socket.write(&answer.to_vec().unwrap());
            }
        }
    }

    pub fn log_on(&mut self, role: Role, terms: &Terms, mut drive: impl FnMut()) {
        self.challenge();
        let nonce = self.logon(role, &mut drive);
        self.send(&accept(terms, &nonce, SECRET));
    }

    /// Reads a TOPIC_REQUEST for `name` and gives it `id`.
    pub fn answer_topic(&mut self, name: &str, id: u32, mut drive: impl FnMut()) {
        let request = self.topic_request(name, &mut drive);
        self.send(&Message::Topic(Topic {
            request,
            topic: TopicId(id),
            name: "",
        }));
    }

    /// Reads a TOPIC_REQUEST for `name`; its number.
    pub fn topic_request(&mut self, name: &str, drive: impl FnMut()) -> u32 {
        let item = self.item(drive);
        let Message::TopicRequest(asked) = Message::decode(&item).unwrap() else {
            panic!("no TOPIC_REQUEST");
        };
        assert_eq!(asked.name, name.as_bytes());
        asked.request
    }

    /// Logs a publisher on again, its topic `a.b` as `id`.
    pub fn log_on_again(&mut self, terms: &Terms, id: u32, mut drive: impl FnMut()) {
        self.log_on(Role::Publisher, terms, &mut drive);
        self.answer_topic("a.b", id, &mut drive);
    }

    pub fn ack(&mut self, publisher_seq: u64, seq: u64) {
        self.send(&Message::Ack(Ack {
            publisher_seq: PublisherSeq(publisher_seq),
            seq: Seq(seq),
            epoch: Epoch(1),
        }));
    }

    pub fn reject(&mut self, publisher_seq: u64, next_expected: u64, code: RejectCode) {
        self.send(&Message::Reject(Reject {
            publisher_seq: PublisherSeq(publisher_seq),
            next_expected: PublisherSeq(next_expected),
            request: 0,
            code,
            text: "the test says so",
        }));
    }

    pub fn terminate(mut self, code: TerminateCode) {
        self.send(&Message::Terminate(Terminate {
            code,
            detail: 3,
            text: "the test ends it",
        }));
    }

    /// Reads a SUBSCRIBE.
    pub fn subscription(&mut self, drive: impl FnMut()) -> Asked {
        let item = self.item(drive);
        let Message::Subscribe(subscribe) = Message::decode(&item).unwrap() else {
            panic!("no SUBSCRIBE");
        };
        let patterns = subscribe.patterns.iter();
        Asked {
            from: subscribe.from.number(),
            value: subscribe.value,
            checksum: subscribe.checksum,
            patterns: patterns
                .map(|p| String::from_utf8(p.into()).unwrap())
                .collect(),
        }
    }

    pub fn subscribed(&mut self, start_seq: u64, next_seq: u64) {
        self.send(&Message::Subscribed(Subscribed {
            start_seq: Seq(start_seq),
            earliest_seq: Seq(1),
            next_seq: Seq(next_seq),
            epoch: Epoch(1),
        }));
    }

    pub fn heartbeat(&mut self, next_seq: u64, checksum: u32, held: Held) {
        self.send(&Message::Heartbeat(Heartbeat {
            next_seq: Seq(next_seq),
            epoch: Epoch(1),
            checksum,
            held,
        }));
    }
}

pub fn challenge() -> Message<'static> {
    Message::Challenge(Challenge {
        nonce: RELAY_NONCE,
        node: NodeId(1),
        version_lowest: 1,
        version_highest: 1,
    })
}

/// A LOGON_ACK for the client with `nonce`.
pub fn accept(terms: &Terms, nonce: &[u8; 32], secret: &[u8]) -> Message<'static> {
    let answer = LogonAck {
        proof: [0; 32],
        epoch: Epoch(terms.epoch),
        trading_session: 1,
        next_expected: PublisherSeq(terms.next_expected),
        released_through: PublisherSeq(terms.released_through),
        next_seq: Seq(1),
        credit: terms.credit,
        payload_limit: terms.payload_limit,
        heartbeat_ms: terms.heartbeat_ms,
        stream: StreamId(1),
    };
    Message::LogonAck(answer.with_proof(secret, nonce, &RELAY_NONCE))
}

/// Publisher sequence, topic and payload of a record, checked as a relay checks it.
pub fn parts(item: &[u8]) -> (u64, u32, Vec<u8>) {
    let record = record::check_published(item).unwrap();
    assert_eq!(record.publisher(), PublisherId(PUBLISHER));
    assert_eq!(record.incarnation(), Incarnation(INCARNATION));
    (
        record.publisher_seq().get(),
        record.topic().get(),
        record.payload().to_vec(),
    )
}

/// A record as it comes to a subscriber, with padding.
pub fn released(kind: RecordKind, topic: u32, seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; record::encoded_stride(0, payload.len())];
    let fields = Fields {
        topic: TopicId(topic),
        publisher: PublisherId(3),
        incarnation: Incarnation(4),
        publisher_seq: PublisherSeq(seq),
        key_hash: 5,
        origin_time_ns: 6,
    };
    record::encode(&mut out, kind, &fields, &[], payload).unwrap();
    record::stamp(&mut out, Seq(seq), 99);
    out
}

pub fn data(topic: u32, seq: u64) -> Vec<u8> {
    released(
        RecordKind::Data,
        topic,
        seq,
        format!("message {seq}").as_bytes(),
    )
}

pub fn defined(topic: u32, seq: u64, name: &str) -> Vec<u8> {
    released(RecordKind::Topic, topic, seq, name.as_bytes())
}

pub fn checksum(record: &[u8]) -> u32 {
    Record::parse(record).unwrap().checksum()
}

pub fn payload(number: u64) -> Vec<u8> {
    format!("message {number}").into_bytes()
}

pub fn queue(publisher: &mut Publisher, topic: TopicId, number: u64) -> PublisherSeq {
    let payload = payload(number);
    publisher
        .try_send(&OutMessage::new(topic, &payload))
        .unwrap()
}

/// What the relay receives of messages `numbers`, numbered from `seq` on.
pub fn expected(
    seq: u64,
    id: u32,
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<(u64, u32, Vec<u8>)> {
    (seq..)
        .zip(numbers)
        .map(|(seq, number)| (seq, id, payload(number)))
        .collect()
}

pub fn events(publisher: &mut Publisher) -> Vec<PublisherEvent> {
    std::iter::from_fn(|| publisher.next_event()).collect()
}

/// Polls until the publisher ends; its error.
pub fn final_error(publisher: &mut Publisher) -> ClientError {
    let mut error = None;
    until("an error", || {
        error = publisher.poll().err();
        error.is_some()
    });
    error.unwrap()
}
