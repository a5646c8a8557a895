//! Goal: no layout changes unnoticed, and other languages have something to compare with. Method: items made from fixed values
//! are compared, bytes and fields, with the vectors in `tools/fixtures/wire/vectors.json`, and decoded back.
//!
//! A change of the format that is meant: run with `RELAY_WRITE_VECTORS=1`, look at the difference, commit both.

use std::path::PathBuf;

use relay_wire::code::{
    ClockDiscipline, From, Held, Policy, RecordKind, RejectCode, Role, TerminateCode,
};
use relay_wire::id::{
    Epoch, Incarnation, NodeId, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::membership::{MEMBERSHIP_LENGTH_MAX, Member, Members, Membership};
use relay_wire::message::{
    Ack, Challenge, Heartbeat, Logon, LogonAck, Message, Patterns, Reject, Subscribe, Subscribed,
    Terminate, Topic, TopicRequest,
};
use relay_wire::record::{
    ClockBody, EpochBody, Fields, Record, SealKeyBody, UncleanBody, clock_body, encode,
    encoded_stride, epoch_body, epoch_membership, seal_key_body, stamp, trading_session_body,
};
use serde_json::{Value, json};
use zerocopy::FromBytes;

const SECRET: &[u8] = b"not a secret any more";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tools/fixtures/wire/vectors.json")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// 32 bytes that count up from `first`.
fn thirty_two(first: u8) -> [u8; 32] {
    core::array::from_fn(|index| first.wrapping_add(index as u8))
}

fn message(name: &str, message: &Message<'_>) -> Value {
    let bytes = message.to_vec().unwrap();
    let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(
        Message::decode(&bytes[..length]).as_ref(),
        Ok(message),
        "{name}"
    );
    json!({
        "name": name,
        "item": "message",
        "kind": message.kind().number(),
        "hex": hex(&bytes),
        "fields": fields_of(message),
    })
}

fn fields_of(message: &Message<'_>) -> Value {
    match message {
        Message::Challenge(m) => json!({
            "nonce": hex(&m.nonce),
            "node": m.node.get(),
            "version_lowest": m.version_lowest,
            "version_highest": m.version_highest,
        }),
        Message::Logon(m) => json!({
            "role": m.role.number(),
            "stream": m.stream.get(),
            "publisher": m.publisher.get(),
            "incarnation": m.incarnation.get(),
            "nonce": hex(&m.nonce),
            "proof": hex(&m.proof),
            "name": m.name,
        }),
        Message::LogonAck(m) => json!({
            "proof": hex(&m.proof),
            "epoch": m.epoch.get(),
            "trading_session": m.trading_session,
            "next_expected": m.next_expected.get(),
            "released_through": m.released_through.get(),
            "next_seq": m.next_seq.get(),
            "credit": m.credit,
            "payload_limit": m.payload_limit,
            "heartbeat_interval": m.heartbeat_ms,
            "stream": m.stream.get(),
        }),
        Message::Terminate(m) => json!({
            "code": m.code.number(),
            "detail": m.detail,
            "text": m.text,
        }),
        Message::Heartbeat(m) => json!({
            "next_seq": m.next_seq.get(),
            "epoch": m.epoch.get(),
            "checksum": m.checksum,
            "held": m.held.number(),
        }),
        Message::TopicRequest(m) => json!({
            "request": m.request,
            "name": core::str::from_utf8(m.name).unwrap(),
        }),
        Message::Topic(m) => json!({
            "request": m.request,
            "topic": m.topic.get(),
            "name": m.name,
        }),
        Message::Ack(m) => json!({
            "publisher_sequence": m.publisher_seq.get(),
            "seq": m.seq.get(),
            "epoch": m.epoch.get(),
        }),
        Message::Reject(m) => json!({
            "publisher_sequence": m.publisher_seq.get(),
            "next_expected": m.next_expected.get(),
            "request": m.request,
            "code": m.code.number(),
            "text": m.text,
        }),
        Message::Subscribe(m) => json!({
            "from": m.from.number(),
            "flags": u8::from(m.checksum.is_some()),
            "checksum": m.checksum.unwrap_or(0),
            "value": m.value,
            "patterns": m.patterns.iter()
                .map(|pattern| core::str::from_utf8(pattern).unwrap())
                .collect::<Vec<_>>(),
        }),
        Message::Subscribed(m) => json!({
            "start_seq": m.start_seq.get(),
            "earliest_seq": m.earliest_seq.get(),
            "next_seq": m.next_seq.get(),
            "epoch": m.epoch.get(),
        }),
    }
}

fn session_messages() -> Vec<Value> {
    let relay = thirty_two(0);
    let client = thirty_two(100);
    let mut vectors = vec![message(
        "challenge",
        &Message::Challenge(Challenge {
            nonce: relay,
            node: NodeId(3),
            version_lowest: 1,
            version_highest: 2,
        }),
    )];
    vectors.extend(logons(&relay, &client));
    for &code in TerminateCode::ALL {
        let terminate = Terminate {
            code,
            detail: 1 << 40,
            text: "what happened and what to do",
        };
        vectors.push(message(
            &format!("terminate {code:?}"),
            &Message::Terminate(terminate),
        ));
    }
    let silent = Terminate {
        code: TerminateCode::Logout,
        detail: 0,
        text: "",
    };
    vectors.push(message(
        "terminate without text",
        &Message::Terminate(silent),
    ));
    for &held in Held::ALL {
        let heartbeat = Heartbeat {
            next_seq: Seq(1_000_001),
            epoch: Epoch(7),
            checksum: 0xE306_9283,
            held,
        };
        vectors.push(message(
            &format!("heartbeat held {held:?}"),
            &Message::Heartbeat(heartbeat),
        ));
    }
    let of_client = Heartbeat {
        next_seq: Seq(0),
        epoch: Epoch(0),
        checksum: 0,
        held: Held::No,
    };
    vectors.push(message(
        "heartbeat of a client",
        &Message::Heartbeat(of_client),
    ));
    vectors.push(message(
        "topic request",
        &Message::TopicRequest(TopicRequest {
            request: 9,
            name: b"orders.xnas.ABC",
        }),
    ));
    vectors.push(message(
        "topic as an answer",
        &Message::Topic(Topic {
            request: 9,
            topic: TopicId(12),
            name: "",
        }),
    ));
    vectors.push(message(
        "topic told",
        &Message::Topic(Topic {
            request: 0,
            topic: TopicId(12),
            name: "orders.xnas.\u{c4}BC",
        }),
    ));
    let acknowledged = Ack {
        publisher_seq: PublisherSeq(4_000),
        seq: Seq(1_000_000),
        epoch: Epoch(7),
    };
    vectors.push(message("ack", &Message::Ack(acknowledged)));
    for &code in RejectCode::ALL {
        let reject = Reject {
            publisher_seq: PublisherSeq(4_002),
            next_expected: PublisherSeq(4_001),
            request: 0,
            code,
            text: "why",
        };
        vectors.push(message(
            &format!("reject {code:?}"),
            &Message::Reject(reject),
        ));
    }
    vectors.extend(subscriptions());
    vectors
}

/// The two messages with a proof, and what the proofs are made of.
fn logons(relay: &[u8; 32], client: &[u8; 32]) -> Vec<Value> {
    let logon = |name, role, publisher, incarnation| {
        let logon = Logon {
            role,
            stream: StreamId(5),
            publisher: PublisherId(publisher),
            incarnation: Incarnation(incarnation),
            nonce: *client,
            proof: [0; 32],
            name,
        };
        logon.with_proof(SECRET, relay).unwrap()
    };
    let publisher = logon("gateway-1", Role::Publisher, 17, 1_700_000_000_123_456_789);
    let subscriber = logon("risk", Role::Subscriber, 0, 0);
    let answer = LogonAck {
        proof: [0; 32],
        epoch: Epoch(7),
        trading_session: 20_260_105,
        next_expected: PublisherSeq(4_001),
        released_through: PublisherSeq(3_990),
        next_seq: Seq(1_000_001),
        credit: 8 << 20,
        payload_limit: 65_536,
        heartbeat_ms: 1_000,
        stream: StreamId(5),
    };
    let answer = answer.with_proof(SECRET, client, relay);
    let proof = json!({
        "secret": hex(SECRET),
        "relay_nonce": hex(relay),
        "client_nonce": hex(client),
    });
    [
        message("logon publisher", &Message::Logon(publisher)),
        message("logon subscriber", &Message::Logon(subscriber)),
        message("logon ack", &Message::LogonAck(answer)),
    ]
    .into_iter()
    .map(|mut vector| {
        vector["proof_from"] = proof.clone();
        vector
    })
    .collect()
}

fn subscriptions() -> Vec<Value> {
    let mut vectors = Vec::new();
    for (&from, checksum, value, patterns) in [
        (&From::Live, None, 0, vec![">"]),
        (&From::Earliest, None, 0, vec!["orders.*.ABC", "trades.>"]),
        (&From::Seq, Some(0xE306_9283), 1_000_001, vec![">"]),
        (&From::Seq, None, 1, vec!["a"]),
        (
            &From::Time,
            None,
            1_700_000_000_123_456_789,
            vec!["\u{fc}ber.*"],
        ),
    ] {
        let mut laid_out = Vec::new();
        let subscribe = Subscribe {
            from,
            checksum,
            value,
            patterns: Patterns::lay_out(&patterns, &mut laid_out).unwrap(),
        };
        let name = format!(
            "subscribe from {from:?}{}",
            if checksum.is_some() {
                " with checksum"
            } else {
                ""
            }
        );
        vectors.push(message(&name, &Message::Subscribe(subscribe)));
    }
    let subscribed = Subscribed {
        start_seq: Seq(500),
        earliest_seq: Seq(1),
        next_seq: Seq(1_000_001),
        epoch: Epoch(7),
    };
    vectors.push(message("subscribed", &Message::Subscribed(subscribed)));
    vectors
}

/// An entry of an extension area.
fn entry(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

const ENTRIES: [(u16, &[u8]); 3] = [(1, b"key"), (0xFFFF, b""), (7, b"eight by")];

fn record(
    name: &str,
    kind: RecordKind,
    has_extension: bool,
    stamped: Option<(u64, u64)>,
    payload: &[u8],
) -> Value {
    let area: Vec<u8> = if has_extension {
        ENTRIES
            .iter()
            .flat_map(|(kind, value)| entry(*kind, value))
            .collect()
    } else {
        Vec::new()
    };
    let is_of_publisher = matches!(kind, RecordKind::Data | RecordKind::PublisherSession);
    let is_data = kind == RecordKind::Data;
    let fields = Fields {
        topic: TopicId(if is_data || kind == RecordKind::Topic {
            12
        } else {
            0
        }),
        publisher: PublisherId(if is_of_publisher { 17 } else { 0 }),
        incarnation: Incarnation(if is_of_publisher {
            1_700_000_000_123_456_789
        } else {
            0
        }),
        publisher_seq: PublisherSeq(if is_data { 4_001 } else { 0 }),
        key_hash: if is_data { 0x0123_4567_89AB_CDEF } else { 0 },
        origin_time_ns: if is_data {
            1_700_000_001_000_000_001
        } else {
            0
        },
    };
    let mut bytes = vec![0xEE; encoded_stride(area.len(), payload.len())];
    encode(&mut bytes, kind, &fields, &area, payload).unwrap();
    if let Some((seq, time)) = stamped {
        stamp(&mut bytes, Seq(seq), time);
    }
    let decoded = Record::parse(&bytes).unwrap();
    decoded.verify().unwrap();
    assert_eq!(
        (decoded.kind(), decoded.payload()),
        (Some(kind), payload),
        "{name}"
    );
    assert_eq!(decoded.extension(), area, "{name}");
    let header = decoded.header();
    let extension = if has_extension { &ENTRIES[..] } else { &[] };
    json!({
        "name": name,
        "item": "record",
        "kind": kind.number(),
        "hex": hex(&bytes),
        "fields": {
            "flags": header.flags,
            "topic": header.topic.get(),
            "checksum": header.checksum.get(),
            "publisher": header.publisher.get(),
            "incarnation": header.incarnation.get(),
            "publisher_sequence": header.publisher_seq.get(),
            "key_hash": header.key_hash.get(),
            "origin_time": header.origin_time_ns.get(),
            "seq": header.seq.get(),
            "receive_time": header.receive_time_ns.get(),
            "extension": extension.iter()
                .map(|(kind, value)| json!({ "type": kind, "value": hex(value) }))
                .collect::<Vec<_>>(),
            "payload": hex(payload),
        },
        "body": body_of(kind, payload),
    })
}

/// What a control record's payload says.
fn body_of(kind: RecordKind, payload: &[u8]) -> Value {
    match kind {
        RecordKind::Data | RecordKind::PublisherSession => Value::Null,
        RecordKind::Topic => json!({ "name": core::str::from_utf8(payload).unwrap() }),
        RecordKind::Epoch => {
            let body = epoch_body(payload).unwrap();
            json!({
                "epoch": body.epoch.get(),
                "start_position": body.start_position.get(),
                "previous_checksum": body.previous_checksum.get(),
                "copies": body.copies,
                "policy": body.policy,
                "clean": body.clean,
                "membership": epoch_membership(payload).map(membership_of),
            })
        }
        RecordKind::Unclean => {
            let body = UncleanBody::ref_from_bytes(payload).unwrap();
            json!({
                "epoch_before": body.epoch_before.get(),
                "primary_before": body.primary_before.get(),
                "floor": body.floor.get(),
                "tail": body.tail.get(),
                "loss": body.loss,
            })
        }
        RecordKind::TradingSession => {
            let (number, name) = trading_session_body(payload).unwrap();
            json!({ "number": number, "name": name })
        }
        RecordKind::SealKey => {
            let body = seal_key_body(payload).unwrap();
            json!({
                "node": body.node.get(),
                "key": hex(&body.key),
                "replaced": hex(&body.replaced),
            })
        }
        RecordKind::Clock => {
            let (body, sources) = clock_body(payload).unwrap();
            json!({
                "node": body.node.get(),
                "measured": body.measured_ns.get(),
                "error_bound": body.error_bound_ns.get(),
                "offset": body.offset_ns.get(),
                "kernel_error": body.kernel_error_ns.get(),
                "kernel_error_max": body.kernel_error_ns_max.get(),
                "frequency": body.frequency_ppt.get(),
                "state": body.state,
                "discipline": body.discipline,
                "sources": sources,
            })
        }
    }
}

fn membership_of(record: Membership) -> Value {
    let members = record.members.as_slice().iter();
    json!({
        "stream": record.stream.get(),
        "epoch": record.epoch.get(),
        "nonce": record.nonce,
        "primary": record.primary.get(),
        "min_copies": record.min_copies,
        "policy": record.policy.number(),
        "members": members
            .map(|m| json!({ "node": m.node.get(), "incarnation": m.incarnation, "process": m.process }))
            .collect::<Vec<_>>(),
    })
}

fn records() -> Vec<Value> {
    use zerocopy::IntoBytes;
    let stamped = Some((1_000_000, 1_700_000_001_000_050_000));
    let epoch = EpochBody {
        epoch: 7.into(),
        start_position: 0x0010_0000_1000_u64.into(),
        previous_checksum: 0xE306_9283_u32.into(),
        copies: 2,
        policy: 3,
        reserved: [0; 2],
        clean: 1,
        reserved_tail: [0; 15],
    };
    let session = [
        &20_260_105_u64.to_le_bytes()[..],
        "Monday \u{2014} day".as_bytes(),
    ]
    .concat();
    let member = |node, incarnation| Member {
        node: NodeId(node),
        incarnation,
        process: 0,
    };
    let membership = Membership {
        stream: StreamId(1),
        epoch: Epoch(7),
        nonce: 0x0123_4567_89ab_cdef,
        primary: NodeId(2),
        members: Members::of(&[member(1, 0xa1), member(2, 0xb2)]),
        min_copies: 2,
        policy: Policy::Durable,
    };
    let mut group_epoch = epoch.as_bytes().to_vec();
    let mut record_bytes = [0; MEMBERSHIP_LENGTH_MAX];
    let length = membership.encode(&mut record_bytes);
    group_epoch.extend_from_slice(&record_bytes[..length]);
    let unclean = UncleanBody {
        epoch_before: 6.into(),
        primary_before: 1.into(),
        floor: 0x2000.into(),
        tail: 0x1000.into(),
        loss: 2,
        reserved: [0; 7],
    };
    let seal_key = SealKeyBody {
        node: 2.into(),
        key: thirty_two(0x20),
        replaced: thirty_two(0x60),
    };
    let clock = ClockBody {
        node: 2.into(),
        measured_ns: 1_700_000_001_000_040_000_u64.into(),
        error_bound_ns: 41_000.into(),
        offset_ns: (-1_234_i64).into(),
        kernel_error_ns: 9_000.into(),
        kernel_error_ns_max: 120_000.into(),
        frequency_ppt: (-7_654_321_i64).into(),
        state: 0,
        discipline: ClockDiscipline::Chrony.number(),
        reserved: [0; 6],
    };
    let clock = [clock.as_bytes(), "tsc, chrony 192.0.2.1".as_bytes()].concat();
    let data = RecordKind::Data;
    let mut vectors = vec![
        record(
            "data as a publisher sends it",
            data,
            false,
            None,
            b"buy 100",
        ),
        record("data without payload", data, false, None, b""),
        record(
            "data of a multiple of eight",
            data,
            false,
            stamped,
            b"12345678",
        ),
    ];
    for (kind, payload) in [
        (RecordKind::Data, &b"sell 200 ABC"[..]),
        (RecordKind::Topic, "orders.xnas.\u{c4}BC".as_bytes()),
        (RecordKind::PublisherSession, b""),
        (RecordKind::Epoch, epoch.as_bytes()),
        (RecordKind::TradingSession, &session),
        (RecordKind::Unclean, unclean.as_bytes()),
        (RecordKind::SealKey, seal_key.as_bytes()),
        (RecordKind::Clock, &clock),
    ] {
        for has_extension in [false, true] {
            let with = if has_extension { "with" } else { "without" };
            let name = format!("{kind:?} {with} extension, stamped");
            vectors.push(record(&name, kind, has_extension, stamped, payload));
        }
    }
    let name = "Epoch of a group, stamped";
    vectors.push(record(
        name,
        RecordKind::Epoch,
        false,
        stamped,
        &group_epoch,
    ));
    vectors
}

#[test]
fn bytes_and_fields_are_the_committed_ones() {
    let mut made = session_messages();
    made.extend(records());
    if std::env::var_os("RELAY_WRITE_VECTORS").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&json!({ "vectors": made })).unwrap();
        std::fs::write(path(), text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(path()).expect("tools/fixtures/wire/vectors.json is there");
    let committed: Value = serde_json::from_str(&text).unwrap();
    let committed = committed["vectors"].as_array().unwrap();
    for (made, committed) in made.iter().zip(committed) {
        assert_eq!(
            made, committed,
            "{} changed; see this test's head",
            made["name"]
        );
    }
    assert_eq!(made.len(), committed.len(), "vectors were added or removed");
}

/// The committed bytes decode, whatever the values above are.
#[test]
fn the_committed_bytes_decode() {
    let text = std::fs::read_to_string(path()).expect("tools/fixtures/wire/vectors.json is there");
    let committed: Value = serde_json::from_str(&text).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for vector in committed["vectors"].as_array().unwrap() {
        let bytes = unhex(vector["hex"].as_str().unwrap());
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), relay_wire::stride(length));
        kinds.insert(vector["kind"].as_u64().unwrap());
        if vector["item"] == "record" {
            let decoded = Record::parse(&bytes).unwrap();
            decoded.verify().unwrap();
            assert_eq!(decoded.stride(), bytes.len());
        } else {
            let decoded = Message::decode(&bytes[..length]).unwrap();
            assert_eq!(fields_of(&decoded), vector["fields"]);
            assert_eq!(decoded.to_vec().unwrap(), bytes);
        }
    }
    let records = record_kinds();
    let all: std::collections::BTreeSet<u64> = records.chain(128..=138).collect();
    assert_eq!(kinds, all, "every kind has a vector");
}

fn record_kinds() -> impl Iterator<Item = u64> {
    RecordKind::ALL.iter().map(|kind| kind.number().into())
}

/// The proofs of the vectors hold for their secret and for no other.
#[test]
fn proofs_hold() {
    let logons = logons(&thirty_two(0), &thirty_two(100));
    for vector in &logons {
        let bytes = unhex(vector["hex"].as_str().unwrap());
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let holds = |secret: &[u8]| match Message::decode(&bytes[..length]).unwrap() {
            Message::Logon(logon) => logon.proof_holds(secret, &thirty_two(0)),
            Message::LogonAck(answer) => {
                answer.proof_holds(secret, &thirty_two(100), &thirty_two(0))
            }
            other => panic!("{other:?}"),
        };
        assert!(holds(SECRET));
        assert!(!holds(b"another"));
    }
}
