//! Goal: what is encoded decodes to the same, whatever decodes is encoded to the same bytes again, and no bytes make a decoder
//! panic. Method: random values, random bytes, and encoded values with some bytes changed, the checksum mended or not.

use proptest::prelude::*;
use relay_wire::checksum::{crc32c, crc32c_append};
use relay_wire::code::{From, Held, RecordKind, RejectCode, Role, TerminateCode};
use relay_wire::id::{
    Epoch, Incarnation, NodeId, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{
    Ack, Challenge, Heartbeat, Logon, LogonAck, Message, MessageError, Patterns, Reject, Subscribe,
    Subscribed, Terminate, Topic, TopicRequest,
};
use relay_wire::record::{
    self, EncodeError, Fields, HEADER_LENGTH, Record, encode, encoded_stride,
};
use relay_wire::{stride, topic};

/// Numbers with the edges among them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0_u64..300, Just(u64::MAX), Just(1 << 32)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0_u32..300, Just(u32::MAX)]
}

fn one_of<T: Copy + core::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn flips() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

/// The parts of a message, from which [`Parts::with`] makes one of any kind.
#[derive(Debug, Clone)]
struct Parts {
    which: u8,
    numbers: [u64; 6],
    words: [u32; 4],
    nonce: [u8; 32],
    proof: [u8; 32],
    name: String,
    text: String,
    bytes: Vec<u8>,
    patterns: Vec<String>,
    role: Role,
    terminate: TerminateCode,
    reject: RejectCode,
    held: Held,
    from: From,
    has_checksum: bool,
}

fn parts() -> impl Strategy<Value = Parts> {
    let codes = (
        one_of(Role::ALL),
        one_of(TerminateCode::ALL),
        one_of(RejectCode::ALL),
        one_of(Held::ALL),
        one_of(From::ALL),
    );
    let texts = (
        "[a-z\u{e4}.]{1,30}",
        "\\PC{0,90}",
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec("\\PC{0,40}", 1..20),
    );
    let blobs = (
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
        any::<bool>(),
        0_u8..11,
    );
    let numbers = (
        proptest::array::uniform6(number()),
        proptest::array::uniform4(small()),
    );
    (codes, texts, blobs, numbers).prop_map(|(codes, texts, blobs, numbers)| Parts {
        which: blobs.3,
        numbers: numbers.0,
        words: numbers.1,
        nonce: blobs.0,
        proof: blobs.1,
        name: texts.0,
        text: texts.1,
        bytes: texts.2,
        patterns: texts.3,
        role: codes.0,
        terminate: codes.1,
        reject: codes.2,
        held: codes.3,
        from: codes.4,
        has_checksum: blobs.2,
    })
}

impl Parts {
    fn with<R>(&self, act: impl FnOnce(&Message<'_>) -> R) -> R {
        let n = self.numbers;
        let w = self.words;
        let mut laid_out = Vec::new();
        let message = match self.which {
            0 => Message::Challenge(Challenge {
                nonce: self.nonce,
                node: NodeId(n[0]),
                version_lowest: w[0] as u16,
                version_highest: w[1] as u16,
            }),
            1 => Message::Logon(Logon {
                role: self.role,
                stream: StreamId(w[0]),
                publisher: PublisherId(n[0]),
                incarnation: Incarnation(n[1]),
                nonce: self.nonce,
                proof: self.proof,
                name: &self.name,
            }),
            2 => Message::LogonAck(LogonAck {
                proof: self.proof,
                epoch: Epoch(n[0]),
                trading_session: n[1],
                next_expected: PublisherSeq(n[2]),
                released_through: PublisherSeq(n[3]),
                next_seq: Seq(n[4]),
                credit: n[5],
                payload_limit: w[0],
                heartbeat_ms: w[1],
                stream: StreamId(w[2]),
            }),
            3 => Message::Terminate(Terminate {
                code: self.terminate,
                detail: n[0],
                text: &self.text,
            }),
            4 => Message::Heartbeat(Heartbeat {
                next_seq: Seq(n[0]),
                epoch: Epoch(n[1]),
                checksum: w[0],
                held: self.held,
            }),
            5 => Message::TopicRequest(TopicRequest {
                request: w[0].max(1),
                name: &self.bytes,
            }),
            6 => Message::Topic(Topic {
                request: w[0],
                topic: TopicId(w[1]),
                name: &self.name,
            }),
            7 => Message::Ack(Ack {
                publisher_seq: PublisherSeq(n[0]),
                seq: Seq(n[1]),
                epoch: Epoch(n[2]),
            }),
            8 => Message::Reject(Reject {
                publisher_seq: PublisherSeq(n[0]),
                next_expected: PublisherSeq(n[1]),
                request: w[0],
                code: self.reject,
                text: &self.text,
            }),
            9 => Message::Subscribe(Subscribe {
                from: self.from,
                checksum: self.has_checksum.then_some(w[0]),
                value: n[0],
                patterns: Patterns::lay_out(&self.patterns, &mut laid_out).unwrap(),
            }),
            _ => Message::Subscribed(Subscribed {
                start_seq: Seq(n[0]),
                earliest_seq: Seq(n[1]),
                next_seq: Seq(n[2]),
                epoch: Epoch(n[3]),
            }),
        };
        act(&message)
    }
}

/// Length of the item at the start of `bytes`, as far as there are bytes for it.
fn length_in(bytes: &[u8]) -> usize {
    let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    length.min(bytes.len())
}

/// Makes a message's checksum right again.
fn mend_message(item: &mut [u8]) {
    if item.len() >= 16 {
        let checksum = crc32c_append(crc32c(&item[..8]), &item[12..]);
        item[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn mend_record(item: &mut [u8]) {
    if item.len() >= HEADER_LENGTH {
        let head = crc32c_append(crc32c(&item[..12]), &item[16..56]);
        let checksum = crc32c_append(head, &item[HEADER_LENGTH..]);
        item[12..16].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Everything there is to ask of bytes that claim to be an item.
fn look_at(bytes: &[u8]) {
    for limits in [
        Limits::BEFORE_LOGON,
        Limits::after_logon(0),
        Limits::after_logon(item::PAYLOAD_LIMIT_MAX),
    ] {
        match item::front(bytes, limits) {
            Ok(Front::Partial { needed }) => assert!(needed > bytes.len()),
            Ok(Front::Record { length } | Front::Message { length }) => {
                assert!(stride(length) <= bytes.len());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Err(error) = Message::decode(bytes) {
        assert!(!error.to_string().is_empty());
    }
    match Record::parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(found) => {
            let whole = HEADER_LENGTH + found.extension().len() + found.payload().len();
            assert_eq!(whole, found.bytes().len());
            let _ = (found.verify(), found.kind(), found.stride());
            let _ = record::epoch_body(found.payload());
            let _ = record::trading_session_body(found.payload());
        }
    }
    let _ = record::check_published(bytes);
    let _ = record::readdress(&mut bytes.to_vec(), TopicId(1), PublisherSeq(2));
    let _ = (topic::check_name(bytes), topic::check_pattern(bytes));
}

/// A chain of extension entries.
fn extension() -> impl Strategy<Value = Vec<u8>> {
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    proptest::collection::vec((any::<u16>(), value), 0..4).prop_map(|entries| {
        let mut area = Vec::new();
        for (kind, value) in entries {
            area.extend_from_slice(&kind.to_le_bytes());
            area.extend_from_slice(&(value.len() as u16).to_le_bytes());
            area.extend_from_slice(&[0; 4]);
            area.extend_from_slice(&value);
            area.resize(stride(area.len()), 0);
        }
        area
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    (small(), proptest::array::uniform5(number())).prop_map(|(topic, n)| Fields {
        topic: TopicId(topic),
        publisher: PublisherId(n[0]),
        incarnation: Incarnation(n[1]),
        publisher_seq: PublisherSeq(n[2]),
        key_hash: n[3],
        origin_time_ns: n[4],
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn messages_come_back_as_they_were(parts in parts()) {
        parts.with(|message| {
            let bytes = message.to_vec().unwrap();
            let length = length_in(&bytes);
            assert_eq!(bytes.len(), stride(length));
            assert_eq!(Message::decode(&bytes[..length]).as_ref(), Ok(message));
            let limits = Limits::after_logon(0);
            assert_eq!(item::front(&bytes, limits), Ok(Front::Message { length }));
            for end in 0..bytes.len() {
                let front = item::front(&bytes[..end], limits);
                assert!(matches!(front, Ok(Front::Partial { .. })), "{end} bytes: {front:?}");
            }
            let mut short = vec![0; bytes.len() - 1];
            assert_eq!(message.encode(&mut short), Err(MessageError::NoRoom(bytes.len())));
        });
    }

    /// With a right checksum, whatever decodes has one form of bytes only.
    #[test]
    fn changed_messages_are_refused_or_mean_their_bytes(parts in parts(), flips in flips()) {
        parts.with(|message| {
            let whole = message.to_vec().unwrap();
            let mut bytes = whole.clone();
            for (at, value) in &flips {
                *at.get_mut(&mut bytes) = *value;
            }
            look_at(&bytes);
            let length = length_in(&bytes);
            if bytes[..length] != whole[..length] {
                // One chance in four thousand million, for which these cases are too few.
                assert!(Message::decode(&bytes[..length]).is_err());
            }
            mend_message(&mut bytes[..length]);
            look_at(&bytes[..length]);
            if let Ok(decoded) = Message::decode(&bytes[..length]) {
                assert_eq!(decoded.to_vec().unwrap()[..length], bytes[..length]);
            }
        });
    }

    #[test]
    fn records_come_back_as_they_were(
        kind in one_of(RecordKind::ALL),
        fields in fields(),
        extension in extension(),
        payload in payload(),
        stamps in (number(), number()),
    ) {
        let needed = encoded_stride(extension.len(), payload.len());
        let mut out = vec![0xEE; needed];
        let encoded = encode(&mut out, kind, &fields, &extension, &payload);
        prop_assert_eq!(encoded, Ok(needed));
        let checksum = Record::parse(&out).unwrap().checksum();
        record::stamp(&mut out, Seq(stamps.0), stamps.1);
        let found = Record::parse(&out).unwrap();
        prop_assert_eq!(found.verify(), Ok(()));
        prop_assert_eq!(found.checksum(), checksum, "stamps are outside the checksum");
        prop_assert_eq!(found.kind(), Some(kind));
        prop_assert_eq!(found.stride(), needed);
        prop_assert_eq!(found.extension(), &extension[..]);
        prop_assert_eq!(found.payload(), &payload[..]);
        prop_assert_eq!((found.seq(), found.receive_time_ns()), (Seq(stamps.0), stamps.1));
        let header = found.header();
        let back = Fields {
            topic: found.topic(),
            publisher: found.publisher(),
            incarnation: found.incarnation(),
            publisher_seq: found.publisher_seq(),
            key_hash: header.key_hash.get(),
            origin_time_ns: header.origin_time_ns.get(),
        };
        prop_assert_eq!(back, fields);
        let may_be_published = kind == RecordKind::Data && stamps == (0, 0);
        prop_assert_eq!(record::check_published(&out).is_ok(), may_be_published);
        let mut short = vec![0; needed - 1];
        let refused = encode(&mut short, kind, &fields, &extension, &payload);
        prop_assert_eq!(refused, Err(EncodeError::NoRoom(needed)));
    }

    #[test]
    fn changed_records_are_refused_or_outside_the_checksum(
        fields in fields(),
        extension in extension(),
        payload in payload(),
        flips in flips(),
    ) {
        let mut out = vec![0; encoded_stride(extension.len(), payload.len())];
        encode(&mut out, RecordKind::Data, &fields, &extension, &payload).unwrap();
        let mut changed = out.clone();
        for (at, value) in &flips {
            *at.get_mut(&mut changed) = *value;
        }
        look_at(&changed);
        if let Ok(found) = Record::parse(&changed) {
            let length = found.bytes().len();
            let is_covered = |at: &usize| !(56..HEADER_LENGTH).contains(at) && *at < length;
            let differs = (0..out.len()).filter(is_covered).any(|at| out[at] != changed[at]);
            if found.verify().is_ok() {
                prop_assert!(!differs, "a change went unnoticed");
            }
        }
        let length = length_in(&changed);
        mend_record(&mut changed[..length]);
        look_at(&changed[..length]);
    }

    #[test]
    fn readdressing_equals_encoding_anew(
        fields in fields(),
        extension in extension(),
        payload in payload(),
        topic in small(),
        publisher_seq in number(),
    ) {
        let mut out = vec![0; encoded_stride(extension.len(), payload.len())];
        encode(&mut out, RecordKind::Data, &fields, &extension, &payload).unwrap();
        record::readdress(&mut out, TopicId(topic), PublisherSeq(publisher_seq)).unwrap();
        let mut anew = vec![0; out.len()];
        let fields = Fields {
            topic: TopicId(topic),
            publisher_seq: PublisherSeq(publisher_seq),
            ..fields
        };
        encode(&mut anew, RecordKind::Data, &fields, &extension, &payload).unwrap();
        prop_assert_eq!(out, anew);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        look_at(&bytes);
        // The same with a length, version and checksum that let the decoder look further.
        if bytes.len() >= 16 {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            bytes[5..8].copy_from_slice(&[1, 0, 0]);
            bytes[12..16].fill(0);
            for kind in 128..=139 {
                bytes[4] = kind;
                mend_message(&mut bytes);
                look_at(&bytes);
            }
            for kind in 0..7 {
                bytes[4] = kind;
                bytes[5] = 0;
                mend_record(&mut bytes);
                look_at(&bytes);
            }
        }
    }

    /// A pattern that covers another one matches all that the other matches.
    #[test]
    fn covering_patterns_match_more(
        outer in "([ab*]\\.){0,2}[ab*>]",
        inner in "([ab*]\\.){0,2}[ab*>]",
        name in "([ab]\\.){0,3}[ab]",
    ) {
        let outer = topic::check_pattern(outer.as_bytes()).unwrap();
        let inner = topic::check_pattern(inner.as_bytes()).unwrap();
        topic::check_name(name.as_bytes()).unwrap();
        if topic::covers(outer, inner) && topic::matches(inner, &name) {
            prop_assert!(topic::matches(outer, &name));
        }
        prop_assert!(topic::covers(">", inner));
        prop_assert!(topic::matches(&name, &name));
    }
}
