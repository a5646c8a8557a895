//! One connection: the client's knowledge, the bytes in both directions, and what the relay's agent keeps of it.

use std::collections::HashMap;

use relay_core::command::ConnId;
use relay_wire::code::{RecordKind, RejectCode, Role};
use relay_wire::id::{Incarnation, PublisherId, PublisherSeq, Seq, StreamId, TopicId};
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{Logon, Message};
use relay_wire::proof::Nonce;
use relay_wire::record::{self, Fields};
use relay_wire::stride;

use super::truth::{Expected, Truth};
use super::world::{CREDENTIALS, PAYLOAD_LIMIT, STREAM};

/// Who serves the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ingress(ConnId),
    Fanout(ConnId),
    Gone,
}

/// A send the machine began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sending {
    Nothing,
    /// Handed to the kernel, to be carried out when the turn ends.
    Begun(Vec<u8>),
    /// Carried out: so many bytes were taken.
    Taken(usize),
    /// The socket is full: the machine hears when it has room.
    AwaitsRoom,
}

#[derive(Debug)]
pub(super) struct Client {
    // The relay's side.
    pub(super) side: Side,
    /// What it was known as to ingress, for as long as commands name its bytes.
    pub(super) ingress_conn: ConnId,
    pub(super) buffer: Vec<u8>,
    pub(super) parsed: usize,
    pub(super) is_open: bool,
    pub(super) sending: Sending,
    // The network.
    pub(super) outbox: Vec<u8>,
    /// Bytes the client's socket still takes.
    pub(super) room: usize,
    // The client's side.
    inbox: Vec<u8>,
    pub(super) nonce: Option<Nonce>,
    pub(super) logon: Option<Own>,
    pub(super) is_established: bool,
    is_ended: bool,
    pub(super) next_publisher_seq: u64,
    acknowledged: u64,
    requests: HashMap<u32, String>,
    pub(super) topics: Vec<u32>,
    asked: Option<Expected>,
    pub(super) expected: Option<Expected>,
}

/// What a client said it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) credential: usize,
    pub(super) role: Role,
    pub(super) publisher: u64,
    pub(super) incarnation: u64,
    nonce: Nonce,
}

impl Client {
    pub(super) fn new(conn: ConnId, room: usize) -> Self {
        Self {
            side: Side::Ingress(conn),
            ingress_conn: conn,
            buffer: Vec::new(),
            parsed: 0,
            is_open: true,
            sending: Sending::Nothing,
            outbox: Vec::new(),
            room,
            inbox: Vec::new(),
            nonce: None,
            logon: None,
            is_established: false,
            is_ended: false,
            next_publisher_seq: 1,
            acknowledged: 0,
            requests: HashMap::new(),
            topics: Vec::new(),
            asked: None,
            expected: None,
        }
    }

    pub(super) fn say(&mut self, message: &Message<'_>) {
        let bytes = message.to_vec().expect("a client's message can be encoded");
        self.outbox.extend_from_slice(&bytes);
    }

    /// Logs on with a proof that holds, once the challenge is there.
    pub(super) fn log_on(&mut self, credential: usize, role: Role, incarnation: u64) {
        let Some(relay) = self.nonce else {
            return;
        };
        let (name, publisher, secret) = CREDENTIALS[credential];
        let publisher = if role == Role::Publisher {
            publisher
        } else {
            0
        };
        let incarnation = if role == Role::Publisher {
            incarnation
        } else {
            0
        };
        let own = Own {
            credential,
            role,
            publisher,
            incarnation,
            nonce: [incarnation as u8; 32],
        };
        let logon = Logon {
            role,
            stream: StreamId(0),
            publisher: PublisherId(publisher),
            incarnation: Incarnation(incarnation),
            nonce: own.nonce,
            proof: [0; 32],
            name,
        };
        let logon = logon
            .with_proof(secret, &relay)
            .expect("the name has a length that goes");
        self.say(&Message::Logon(logon));
        self.logon.get_or_insert(own);
    }

    /// A DATA record of this publisher's.
    pub(super) fn record(&self, publisher_seq: u64, topic: u32, payload: &[u8]) -> Vec<u8> {
        let (publisher, incarnation) = self.logon.map_or((7, 1), |l| (l.publisher, l.incarnation));
        let fields = Fields {
            topic: TopicId(topic),
            publisher: PublisherId(publisher),
            incarnation: Incarnation(incarnation),
            publisher_seq: PublisherSeq(publisher_seq),
            key_hash: publisher_seq,
            origin_time_ns: 3,
        };
        let mut bytes = vec![0; record::encoded_stride(0, payload.len())];
        record::encode(&mut bytes, RecordKind::Data, &fields, &[], payload).expect("it has room");
        bytes
    }

    pub(super) fn ask_topic(&mut self, request: u32, name: &str) {
        if self.requests.contains_key(&request) {
            return;
        }
        let asked = relay_wire::message::TopicRequest {
            request,
            name: name.as_bytes(),
        };
        self.say(&Message::TopicRequest(asked));
        self.requests.insert(request, name.to_owned());
    }

    /// Remembers what a SUBSCRIBE asked for; the answer says where it starts.
    pub(super) fn expect(&mut self, patterns: &[&str], from_time_ns: u64) {
        if self.asked.is_none() {
            self.asked = Some(Expected {
                patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
                from_time_ns,
                next: Seq(1),
                told: HashMap::new(),
            });
        }
    }

    /// Bytes of the relay's arrive.
    pub(super) fn on_received(&mut self, bytes: &[u8], truth: &Truth) {
        self.inbox.extend_from_slice(bytes);
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        loop {
            let front = item::front(rest, Limits::after_logon(PAYLOAD_LIMIT));
            let (length, is_record) = match front.expect("the relay sends whole items") {
                Front::Partial { .. } => break,
                Front::Record { length } => (length, true),
                Front::Message { length } => (length, false),
            };
            assert!(!self.is_ended, "nothing follows the last word");
            if is_record {
                let expected = self.expected.as_mut().expect("records follow SUBSCRIBED");
                expected.on_record(&rest[..length], truth);
            } else {
                let message = Message::decode(&rest[..length]).expect("the relay says it right");
                self.on_message(&message, truth);
            }
            rest = &rest[stride(length)..];
        }
        self.inbox = rest.to_vec();
    }

    fn on_message(&mut self, message: &Message<'_>, truth: &Truth) {
        match message {
            Message::Challenge(challenge) => {
                assert!(
                    self.nonce.replace(challenge.nonce).is_none(),
                    "challenged once"
                );
            }
            Message::Terminate(_) => self.is_ended = true,
            Message::LogonAck(ack) => {
                let own = self.logon.expect("it logged on");
                let relay = self.nonce.expect("it was challenged");
                let secret = CREDENTIALS[own.credential].2;
                assert!(ack.proof_holds(secret, &own.nonce, &relay));
                assert_eq!(ack.stream, STREAM);
                assert!(
                    ack.next_seq <= truth.next_seq(),
                    "a next seq is that of the release"
                );
                assert!(!self.is_established, "established once");
                self.is_established = true;
                if own.role == Role::Publisher {
                    let released = truth.released_through(own.publisher, own.incarnation);
                    assert!(ack.released_through.get() <= released);
                    assert!(ack.next_expected > ack.released_through);
                    self.acknowledged = ack.released_through.get();
                    self.next_publisher_seq = ack.next_expected.get();
                }
            }
            Message::Subscribed(subscribed) => {
                let mut expected = self.asked.take().expect("it subscribed");
                assert!(subscribed.next_seq <= truth.next_seq());
                assert!(subscribed.start_seq <= subscribed.next_seq);
                expected.next = subscribed.start_seq;
                assert!(self.expected.replace(expected).is_none(), "subscribed once");
            }
            message => match &mut self.expected {
                Some(expected) => expected.on_message(message, truth),
                None => self.on_publisher_message(message, truth),
            },
        }
    }

    fn on_publisher_message(&mut self, message: &Message<'_>, truth: &Truth) {
        let own = self.logon.expect("it logged on");
        let released = truth.released_through(own.publisher, own.incarnation);
        match message {
            Message::Ack(ack) => {
                let acknowledged = ack.publisher_seq.get();
                assert!(
                    acknowledged <= released,
                    "nothing is acknowledged before its release"
                );
                assert!(
                    acknowledged >= self.acknowledged,
                    "acknowledgements don't go back"
                );
                self.acknowledged = acknowledged;
                let key = (own.publisher, own.incarnation, acknowledged);
                assert_eq!(
                    truth.get(ack.seq).key,
                    key,
                    "an acknowledgement names its record"
                );
            }
            Message::Topic(told) => {
                let name = self.requests.get(&told.request).expect("it asked");
                assert_eq!(truth.tables.topics.name(told.topic), Some(name.as_str()));
                self.topics.push(told.topic.get());
            }
            Message::Reject(reject) => {
                assert_eq!(reject.publisher_seq.get() == 0, reject.request != 0);
                if matches!(reject.code, RejectCode::Gap | RejectCode::Throttled) {
                    self.next_publisher_seq = reject.next_expected.get();
                }
            }
            Message::Heartbeat(beat) => assert!(beat.next_seq <= truth.next_seq()),
            other => panic!("not for a publisher: {other:?}"),
        }
    }

    /// Whether everything released that it asked for has come, as far as it is a subscriber that may still get it.
    pub(super) fn missing(&self, truth: &Truth) -> usize {
        match (&self.expected, self.side) {
            (Some(expected), Side::Fanout(_)) if !self.is_ended => expected.missing(truth),
            _ => 0,
        }
    }

    /// The newest publisher sequence acknowledged, where all that is released should be.
    pub(super) fn unacknowledged(&self, truth: &Truth) -> u64 {
        match (self.logon, self.side) {
            (Some(own), Side::Ingress(_)) if self.is_established && !self.is_ended => {
                truth.released_through(own.publisher, own.incarnation) - self.acknowledged
            }
            _ => 0,
        }
    }
}
