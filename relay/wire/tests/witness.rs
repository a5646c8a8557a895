//! Goal: what is encoded as a witness frame decodes to the same, whatever decodes encodes to the same bytes again, no bytes
//! make the decoder panic, and the layout is that of `FORMAT.md` section 6. Method: random frames, random bytes, encoded
//! frames with some bytes changed (the checksum mended or not), and one frame of each shape laid out by hand.

use proptest::prelude::*;
use relay_wire::checksum::{crc32c, crc32c_append};
use relay_wire::code::{WitnessCode, WitnessKind};
use relay_wire::id::{NodeId, StreamId};
use relay_wire::witness::{
    Answer, Cell, Challenge, FRAME_LENGTH_MAX, Frame, LOGON_LENGTH_MAX, Logon, Message, Registers,
    Request, Status, VALUE_LENGTH_MAX, Value, Welcome, WitnessError, front,
};

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = [0; FRAME_LENGTH_MAX];
    let length = frame.encode(&mut bytes);
    bytes[..length].to_vec()
}

fn mend(bytes: &mut [u8]) {
    let checksum = crc32c_append(crc32c(&bytes[..8]), &bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
}

fn value() -> impl Strategy<Value = Value> {
    proptest::collection::vec(any::<u8>(), 1..=VALUE_LENGTH_MAX)
        .prop_map(|bytes| Value::new(&bytes).unwrap())
}

fn cell() -> impl Strategy<Value = Cell> {
    (1..=u64::MAX, value()).prop_map(|(revision, value)| Cell { revision, value })
}

fn registers() -> impl Strategy<Value = Option<Registers>> {
    let held = (cell(), proptest::option::of(cell()));
    proptest::option::of(held.prop_map(|(record, floor)| Registers { record, floor }))
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Read),
        Just(Request::Status),
        value().prop_map(|record| Request::Create { record }),
        (any::<u64>(), proptest::option::of(any::<u64>()), value()).prop_map(
            |(base, floor_base, next)| Request::Swap {
                base,
                floor_base,
                next
            }
        ),
        (any::<u64>(), value()).prop_map(|(base, floor)| Request::Floor { base, floor }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        registers().prop_map(Answer::Registers),
        registers().prop_map(Answer::Refused),
        (1..=u64::MAX).prop_map(Answer::Done),
        Just(Answer::NoRoom),
        any::<(u64, u64, u32, u32)>().prop_map(|(started_ns, changes, streams, connections)| {
            Answer::Status(Status {
                started_ns,
                changes,
                streams,
                connections,
            })
        }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let nonces = any::<([u8; 32], [u8; 32], u64)>();
    let addressed = (any::<u32>(), any::<u64>());
    prop_oneof![
        nonces.prop_map(|(nonce, ..)| Frame::of(Message::Challenge(Challenge::new(nonce)))),
        nonces.prop_map(|(nonce, proof, node)| {
            let node = NodeId(node);
            Frame::of(Message::Logon(Logon { nonce, proof, node }))
        }),
        nonces.prop_map(|(_, proof, _)| Frame::of(Message::Welcome(Welcome { proof }))),
        proptest::sample::select(WitnessCode::ALL)
            .prop_map(|code| Frame::of(Message::Terminate(code))),
        (addressed, request()).prop_map(|((stream, id), request)| Frame {
            stream: StreamId(stream),
            id,
            message: Message::Request(request),
        }),
        (addressed, answer()).prop_map(|((stream, id), answer)| Frame {
            stream: StreamId(stream),
            id,
            message: Message::Answer(answer),
        }),
    ]
}

proptest! {
    #[test]
    fn frames_come_back(frame in frame()) {
        let bytes = encoded(&frame);
        prop_assert_eq!(front(&bytes, FRAME_LENGTH_MAX), Ok(Some(bytes.len())));
        prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
    }

    #[test]
    fn changed_frames_are_refused_or_mean_what_they_say(
        frame in frame(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
        is_mended: bool,
    ) {
        let mut bytes = encoded(&frame);
        let before = bytes.clone();
        for (index, flip) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= flip;
        }
        prop_assume!(bytes != before);
        if is_mended {
            mend(&mut bytes);
        }
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(is_mended, "the checksum finds it");
            prop_assert_eq!(encoded(&frame), bytes, "one meaning, one layout");
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = front(&bytes, FRAME_LENGTH_MAX);
        let _ = Frame::decode(&bytes);
    }

    #[test]
    fn cut_frames_are_refused(frame in frame(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&frame);
        prop_assert!(Frame::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    /// Goal: a proof holds for its secret, its nonces and its sender alone.
    #[test]
    fn proofs_name_both_nonces(secret: [u8; 16], witness: [u8; 32], client: [u8; 32], node: u64) {
        let logon = Logon::new(&secret, &witness, client, NodeId(node));
        let welcome = Welcome::new(&secret, &client, &witness);
        prop_assert!(logon.proof_holds(&secret, &witness));
        prop_assert!(welcome.proof_holds(&secret, &client, &witness));
        let other = |nonce: &[u8; 32]| {
            let mut other = *nonce;
            other[31] ^= 1;
            other
        };
        let mut unlike = secret;
        unlike[15] ^= 1;
        prop_assert!(!logon.proof_holds(&secret, &other(&witness)));
        prop_assert!(!logon.proof_holds(&unlike, &witness));
        let renonced = Logon { nonce: other(&client), ..logon };
        prop_assert!(!renonced.proof_holds(&secret, &witness));
        let renamed = Logon { node: NodeId(!node), ..logon };
        prop_assert!(!renamed.proof_holds(&secret, &witness));
        prop_assert!(!welcome.proof_holds(&secret, &other(&client), &witness));
        prop_assert!(!welcome.proof_holds(&secret, &client, &other(&witness)));
        prop_assert!(!welcome.proof_holds(&unlike, &client, &witness));
        prop_assert_ne!(logon.proof, welcome.proof);
    }
}

#[test]
fn lengths_are_checked_before_the_body_is_there() {
    let limit = LOGON_LENGTH_MAX;
    for (bytes, expected) in [
        (&[24, 0, 0][..], Ok(None)),
        (&[24, 0, 0, 0], Ok(Some(24))),
        (&[23, 0, 0, 0], Err(WitnessError::Length(23))),
        (&[96, 0, 0, 0], Ok(Some(96))),
        (&[97, 0, 0, 0], Err(WitnessError::Length(97))),
        (&[255; 4], Err(WitnessError::Length(u32::MAX))),
    ] {
        assert_eq!(front(bytes, limit), expected, "{bytes:?}");
    }
    assert_eq!((FRAME_LENGTH_MAX, LOGON_LENGTH_MAX), (560, 96));
    assert!(Value::new(&[]).is_none() && Value::new(&[0; VALUE_LENGTH_MAX + 1]).is_none());
}

/// A frame as `FORMAT.md` describes it: kind, stream, id, and the body's bytes.
fn by_hand(kind: u8, stream: u32, id: u64, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[4] = kind;
    bytes[5] = 1;
    bytes[12..16].copy_from_slice(&stream.to_le_bytes());
    bytes[16..].copy_from_slice(&id.to_le_bytes());
    for part in body {
        bytes.extend_from_slice(part);
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    mend(&mut bytes);
    bytes
}

#[test]
fn frames_lie_as_the_format_says() {
    let eight = |number: u64| number.to_le_bytes();
    let value = |bytes: &[u8]| Value::new(bytes).unwrap();
    let held = Registers {
        record: Cell {
            revision: 3,
            value: value(b"rec"),
        },
        floor: Some(Cell {
            revision: 4,
            value: value(b"floor"),
        }),
    };
    let held_body: [&[u8]; 5] = [
        &eight(3),
        &eight(4),
        &[3, 0, 5, 0, 0, 0, 0, 0],
        b"rec",
        b"floor",
    ];
    let request = |request| Frame {
        stream: StreamId(9),
        id: 77,
        message: Message::Request(request),
    };
    let answer = |answer| Frame {
        stream: StreamId(9),
        id: 77,
        message: Message::Answer(answer),
    };
    let status = Status {
        started_ns: 1,
        changes: 2,
        streams: 3,
        connections: 4,
    };
    let swap = |floor_base| {
        request(Request::Swap {
            base: 3,
            floor_base,
            next: value(b"next"),
        })
    };
    let logon = Logon {
        nonce: [1; 32],
        proof: [2; 32],
        node: NodeId(3),
    };
    for (frame, bytes) in [
        (
            Frame::of(Message::Challenge(Challenge::new([5; 32]))),
            by_hand(1, 0, 0, &[&[5; 32], &[1, 0, 1, 0, 0, 0, 0, 0]]),
        ),
        (
            Frame::of(Message::Logon(logon)),
            by_hand(2, 0, 0, &[&[1; 32], &[2; 32], &eight(3)]),
        ),
        (
            Frame::of(Message::Welcome(Welcome { proof: [6; 32] })),
            by_hand(3, 0, 0, &[&[6; 32]]),
        ),
        (
            Frame::of(Message::Terminate(WitnessCode::Full)),
            by_hand(4, 0, 0, &[&eight(7)]),
        ),
        (request(Request::Read), by_hand(16, 9, 77, &[])),
        (
            swap(Some(0)),
            by_hand(
                17,
                9,
                77,
                &[&eight(3), &eight(0), &[4, 0, 1, 0, 0, 0, 0, 0], b"next"],
            ),
        ),
        (
            swap(None),
            by_hand(
                17,
                9,
                77,
                &[&eight(3), &eight(0), &[4, 0, 0, 0, 0, 0, 0, 0], b"next"],
            ),
        ),
        (
            request(Request::Floor {
                base: 3,
                floor: value(b"f"),
            }),
            by_hand(18, 9, 77, &[&eight(3), &eight(1), b"f"]),
        ),
        (
            request(Request::Create {
                record: value(b"first"),
            }),
            by_hand(19, 9, 77, &[&eight(0), &eight(5), b"first"]),
        ),
        (request(Request::Status), by_hand(20, 9, 77, &[])),
        (
            answer(Answer::Registers(None)),
            by_hand(32, 9, 77, &[&[0; 24]]),
        ),
        (
            answer(Answer::Registers(Some(held))),
            by_hand(32, 9, 77, &held_body),
        ),
        (answer(Answer::Done(5)), by_hand(33, 9, 77, &[&eight(5)])),
        (
            answer(Answer::Refused(Some(held))),
            by_hand(34, 9, 77, &held_body),
        ),
        (answer(Answer::NoRoom), by_hand(35, 9, 77, &[])),
        (
            answer(Answer::Status(status)),
            by_hand(
                36,
                9,
                77,
                &[&eight(1), &eight(2), &[3, 0, 0, 0, 4, 0, 0, 0]],
            ),
        ),
    ] {
        assert_eq!(encoded(&frame), bytes, "{frame:?}");
        assert_eq!(Frame::decode(&bytes), Ok(frame));
    }
}

/// Goal: what can't be is refused by name. Method: frames laid out by hand, each with one thing wrong.
#[test]
fn what_cannot_be_is_refused() {
    let eight = |number: u64| number.to_le_bytes();
    let inconsistent = |field| Err(WitnessError::Inconsistent(field));
    for (bytes, expected) in [
        (by_hand(5, 0, 0, &[]), Err(WitnessError::Kind(5))),
        (by_hand(16, 9, 77, &[&[0]]), Err(WitnessError::Size)),
        (by_hand(3, 1, 0, &[&[6; 32]]), Err(WitnessError::NotZero)),
        (by_hand(3, 0, 1, &[&[6; 32]]), Err(WitnessError::NotZero)),
        (
            by_hand(
                17,
                9,
                1,
                &[&eight(3), &eight(4), &[1, 0, 0, 0, 0, 0, 0, 0], b"n"],
            ),
            inconsistent("floor base"),
        ),
        (
            by_hand(
                17,
                9,
                1,
                &[&eight(3), &eight(4), &[1, 0, 2, 0, 0, 0, 0, 0], b"n"],
            ),
            inconsistent("floor base"),
        ),
        (
            by_hand(18, 9, 1, &[&eight(3), &eight(0)]),
            inconsistent("value's length"),
        ),
        (
            by_hand(18, 9, 1, &[&eight(3), &eight(257), &[1; 257]]),
            inconsistent("value's length"),
        ),
        (
            by_hand(19, 9, 1, &[&eight(3), &eight(1), b"n"]),
            Err(WitnessError::NotZero),
        ),
        (by_hand(33, 9, 1, &[&eight(0)]), inconsistent("revision")),
        (
            by_hand(32, 9, 1, &[&eight(0), &eight(2), &eight(1 << 16), b"f"]),
            inconsistent("floor without a record"),
        ),
        (
            by_hand(32, 9, 1, &[&eight(0), &eight(0), &eight(1), b"r"]),
            inconsistent("revision"),
        ),
        (
            by_hand(32, 9, 1, &[&eight(1), &eight(0), &eight(0)]),
            inconsistent("value's length"),
        ),
        (by_hand(4, 0, 0, &[&eight(99)]), inconsistent("code")),
    ] {
        assert_eq!(Frame::decode(&bytes), expected, "{bytes:?}");
    }
    let mut old = by_hand(16, 9, 77, &[]);
    old[5] = 2;
    mend(&mut old);
    assert_eq!(Frame::decode(&old), Err(WitnessError::Version(2)));
    assert_eq!(WitnessError::Version(2).code(), WitnessCode::Version);
    assert_eq!(WitnessError::Checksum.code(), WitnessCode::Checksum);
    assert_eq!(WitnessError::Size.code(), WitnessCode::Protocol);
    for &kind in WitnessKind::ALL {
        assert_eq!(WitnessKind::from_number(kind.number()), Some(kind));
    }
}
