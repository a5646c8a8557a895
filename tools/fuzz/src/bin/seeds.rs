//! Writes the seed corpora: a handful of small inputs for each target, made from the codecs. Run it in `tools/fuzz`:
//! `cargo run --bin seeds`.

use std::path::Path;

use relay_wire::code::{From, Held, RecordKind, RejectCode, Role, TerminateCode};
use relay_wire::id::{
    Epoch, Incarnation, NodeId, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::message::{
    Ack, Challenge, Heartbeat, Logon, LogonAck, Message, Patterns, Reject, Subscribe, Subscribed,
    Terminate, Topic, TopicRequest,
};
use relay_wire::record::{Fields, encode, encoded_stride};

fn main() {
    let messages = messages();
    for (name, bytes) in &messages {
        write("message", name, &bytes[..unpadded(bytes)]);
    }
    let records = [
        ("empty", record(RecordKind::Data, &[], b"")),
        (
            "data",
            record(RecordKind::Data, &[], b"a message of some length"),
        ),
        (
            "extended",
            record(
                RecordKind::Data,
                &[9, 0, 3, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0],
                b"x",
            ),
        ),
        ("epoch", record(RecordKind::Epoch, &[], &[1; 40])),
        (
            "trading_session",
            record(RecordKind::TradingSession, &[], b"\x01\0\0\0\0\0\0\x002026"),
        ),
    ];
    for (name, bytes) in &records {
        write("record", name, bytes);
    }
    let all: Vec<u8> = messages
        .iter()
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    write("frame", "messages", &all);
    let run: Vec<u8> = records
        .iter()
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    write("frame", "records", &run);
    let mixed = [
        &messages[4].1[..],
        &records[1].1,
        &messages[5].1,
        &records[2].1,
    ]
    .concat();
    write("frame", "mixed", &mixed);
    journal();
    sessions();
    config();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new("corpus").join(target);
    std::fs::create_dir_all(&directory).expect("the corpus can be written");
    std::fs::write(directory.join(name), bytes).expect("the corpus can be written");
}

fn unpadded(bytes: &[u8]) -> usize {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

fn record(kind: RecordKind, extension: &[u8], payload: &[u8]) -> Vec<u8> {
    let fields = Fields {
        topic: TopicId(1),
        publisher: PublisherId(7),
        incarnation: Incarnation(1),
        publisher_seq: PublisherSeq(1),
        key_hash: 2,
        origin_time_ns: 3,
    };
    let mut bytes = vec![0; encoded_stride(extension.len(), payload.len())];
    encode(&mut bytes, kind, &fields, extension, payload).expect("it has room");
    bytes
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let mut laid_out = Vec::new();
    let patterns = Patterns::lay_out(&[">", "a.*", "b.>"], &mut laid_out).expect("there are some");
    let (seq, epoch) = (Seq(9), Epoch(2));
    let logon = Logon {
        role: Role::Publisher,
        stream: StreamId(5),
        publisher: PublisherId(7),
        incarnation: Incarnation(1),
        nonce: [1; 32],
        proof: [2; 32],
        name: "gateway",
    };
    let ack = LogonAck {
        proof: [3; 32],
        epoch,
        trading_session: 20_261_123,
        next_expected: PublisherSeq(1),
        released_through: PublisherSeq(0),
        next_seq: seq,
        credit: 1 << 20,
        payload_limit: 65_536,
        heartbeat_ms: 1_000,
        stream: StreamId(5),
    };
    let challenge = Challenge {
        nonce: [4; 32],
        node: NodeId(1),
        version_lowest: 1,
        version_highest: 1,
    };
    let terminate = Terminate {
        code: TerminateCode::Full,
        detail: 3,
        text: "come back later",
    };
    let heartbeat = Heartbeat {
        next_seq: seq,
        epoch,
        checksum: 5,
        held: Held::Busy,
    };
    let reject = Reject {
        publisher_seq: PublisherSeq(4),
        next_expected: PublisherSeq(3),
        request: 0,
        code: RejectCode::Gap,
        text: "send again",
    };
    let topic = Topic {
        request: 0,
        topic: TopicId(3),
        name: "orders.xnas.ABC",
    };
    let subscribe = Subscribe {
        from: From::Seq,
        checksum: Some(1),
        value: 9,
        patterns,
    };
    let subscribed = Subscribed {
        start_seq: seq,
        earliest_seq: Seq(1),
        next_seq: seq,
        epoch,
    };
    let acknowledged = Ack {
        publisher_seq: PublisherSeq(4),
        seq,
        epoch,
    };
    [
        ("challenge", Message::Challenge(challenge)),
        ("logon", Message::Logon(logon)),
        ("logon_ack", Message::LogonAck(ack)),
        ("terminate", Message::Terminate(terminate)),
        ("heartbeat", Message::Heartbeat(heartbeat)),
        (
            "topic_request",
            Message::TopicRequest(TopicRequest {
                request: 1,
                name: b"orders",
            }),
        ),
        ("topic", Message::Topic(topic)),
        ("ack", Message::Ack(acknowledged)),
        ("reject", Message::Reject(reject)),
        ("subscribe", Message::Subscribe(subscribe)),
        ("subscribed", Message::Subscribed(subscribed)),
    ]
    .map(|(name, message)| (name, message.to_vec().expect("it can be encoded")))
    .to_vec()
}

/// First byte: 0 raw, 1 log, 2 checkpoint, 3 superblock; see the target.
fn journal() {
    write("journal_scan", "raw_zeroes", &[0; 1_025]);
    for number in 0..4 {
        write("journal_scan", &format!("log_{number}"), &[1, number]);
        write(
            "journal_scan",
            &format!("torn_{number}"),
            &[1, number, 8, 1, 0, 0, 2, 0, 0, 1],
        );
    }
    write("journal_scan", "lying_header", &[1, 1, 5, 3, 54, 7]);
    write("journal_scan", "lying_body", &[1, 2, 6, 3, 80, 0, 0, 0, 7]);
    write("journal_scan", "clean_stop", &[1, 1, 7, 255, 4, 5]);
    write(
        "journal_scan",
        "copied",
        &[1, 3, 2, 9, 0, 0, 0, 40, 0, 0, 0, 7],
    );
    write("journal_scan", "checkpoint", &[2, 3, 60, 49, 0, 0, 0, 1]);
    write("journal_scan", "superblock", &[3, 0, 50, 1, 72, 8]);
}

/// A session's operations; see the target for the numbers.
#[derive(Default)]
struct Script(Vec<u8>);

/// The newest client, and those before it.
const NEWEST: u8 = 12;
const BEFORE: u8 = 13;
/// Everything under way on the disk completes.
const DISK: &[u8] = &[6];
const EVERYTHING_FROM_EARLIEST: u8 = 8;

impl Script {
    fn with(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A publisher in an incarnation, with the topic of this number.
    fn publisher(self, credential: u8, incarnation: u8, topic: u8) -> Self {
        self.then(&[8, 0, credential | incarnation << 4])
            .then(&[NEWEST, 3, 1, topic])
            .then(DISK)
            .then(DISK)
    }

    fn subscriber(self, credential: u8, choice: u8, seq: u8) -> Self {
        self.then(&[8, 0, credential | 4])
            .then(&[NEWEST, 4, choice, seq, 0])
            .then(DISK)
    }

    fn save(self, name: &str) {
        write("session", name, &self.0);
    }
}

fn sessions() {
    Script::with(0)
        .publisher(0, 1, 0)
        .subscriber(3, 0, 0)
        .then(&[BEFORE, 1, 4, 20])
        .then(DISK)
        .then(DISK)
        .save("publish_live");
    Script::with(1)
        .publisher(0, 1, 0)
        .then(&[NEWEST, 1, 9, 30])
        .then(&[1, 1, 1, 0, 2])
        .subscriber(3, EVERYTHING_FROM_EARLIEST | 1, 0)
        .save("covering_filtered");
    let mut long = Script::with(32).publisher(0, 1, 0);
    for _ in 0..14 {
        long = long.then(&[NEWEST, 1, 0x3F]).then(DISK).then(DISK);
    }
    // Two subscribers behind the ring share the buffers; one of them reads in small pieces.
    long.subscriber(3, EVERYTHING_FROM_EARLIEST, 0)
        .then(&[NEWEST, 15, 200])
        .subscriber(0, EVERYTHING_FROM_EARLIEST | 1, 0)
        .then(&[3, 0xF8, 3, 0xF8, BEFORE, 9, 0, 9, 3, 0xF8])
        .then(DISK)
        .save("replay");
    let mut over = Script::with(0).publisher(0, 1, 0);
    for _ in 0..12 {
        over = over.then(&[NEWEST, 1, 0x3F]).then(DISK).then(&[5, 1]);
    }
    over.save("more_than_the_ring");
    Script::with(0)
        .publisher(0, 1, 0)
        .then(&[NEWEST, 1, 3, 9])
        .then(&[NEWEST, 1, 3, 9])
        .then(&[7, 10, 0x55, 0x33, 0x11, 0x77, 1, 2, 3, 4])
        .publisher(0, 1, 0)
        .then(&[NEWEST, 1, 0x42, 9, 0xC0])
        .then(DISK)
        .then(&[7, 50, 6, 6])
        .then(&[7, 10])
        .subscriber(3, EVERYTHING_FROM_EARLIEST, 0)
        .save("crash_resend_stop");
    Script::with(16)
        .publisher(0, 1, 0)
        .publisher(1, 2, 1)
        .publisher(0, 3, 3)
        .then(&[NEWEST, 1, 2, 1, BEFORE, 1, 2, 1])
        .then(&[4, 3, 4, 5, 4, 7])
        .save("supersede_and_time");
    Script::with(0)
        .then(&[0, 0, NEWEST, 7, 8, 16, 0, 0, 0, 132, 1, 0, 0])
        .then(&[0, 0, 0, 0, 0, 0, 4, 6])
        .then(&[0x88, 7, 50, 0x92, 0x18, 20, 1, 0x8C, 12, 10])
        .save("strangers");
}

fn config() {
    let good = r#"node = 1
[[stream]]
id = 1
name = "orders"
listen = "127.0.0.1:7400"
directory = "/tmp/orders"
policy = "local"
[stream.threads]
mode = "split"
idle = "park"
cpus = [1, 2, 3]
[stream.limits]
ring = "64MiB"
payload = "64KiB"
[stream.journal]
segment_size = "64MiB"
write_method = "covering"
[stream.trading_session]
number = 20261123
name = "day"
[[stream.credential]]
name = "gateway"
secret = "000102030405060708090a0b0c0d0e0f"
publisher = 7
publish = ["orders.>"]
subscribe = [">"]
"#;
    write("config", "good", good.as_bytes());
    write(
        "config",
        "bad_size",
        good.replace("64MiB", "64MB").as_bytes(),
    );
    write(
        "config",
        "bad_pattern",
        good.replace("orders.>", "orders.>.x").as_bytes(),
    );
    write(
        "config",
        "bad_key",
        good.replace("payload", "speed").as_bytes(),
    );
    write("config", "empty", b"");
}
