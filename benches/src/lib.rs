//! What the micro-benchmarks share: a stream in memory whose writes complete at once.
//!
//! The benchmarks measure single steps of the way of a message, on one core and without the kernel; what a message takes
//! end to end is measured elsewhere. `cargo bench -p relay-benches`, or one of them shortly with
//! `cargo bench -p relay-benches --bench codec -- --quick`; `-- --test` runs each once, to see that it works.

use std::sync::Arc;

use relay_core::command::{ConnId, Now, PublisherLogon, ReleasePoint, ToIngress, ToSequence};
use relay_core::credential::{Credential, CredentialBook};
use relay_core::log::LogWindow;
use relay_core::sequence::{Beginning, Sequence, SequenceEffect};
use relay_core::settings::Settings;
use relay_journal::block::{self, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_journal::superblock::WriteMethod;
use relay_journal::tables::Tables;
use relay_wire::code::{Policy, RecordKind};
use relay_wire::id::{
    Epoch, Incarnation, NodeId, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::message::{Message, TopicRequest};
use relay_wire::record::{self, Fields};

/// The stream.
pub const STREAM: StreamId = StreamId(1);
/// The one publisher's connection.
pub const CONN: ConnId = ConnId {
    index: 0,
    generation: 0,
};
const PUBLISHER: PublisherId = PublisherId(7);
const INCARNATION: Incarnation = Incarnation(1);

/// Settings as a small installation has them, with a ring of `ring_size` bytes.
#[must_use]
pub const fn settings(ring_size: u64) -> Settings {
    Settings {
        node: NodeId(1),
        stream: STREAM,
        policy: Policy::Local,
        payload_limit: 65_536,
        credit: 1 << 20,
        heartbeat_ns: 1_000_000_000,
        logon_timeout_ns: 1_000_000_000,
        connections_max: 4,
        unauthenticated_max: 4,
        publishers_max: 4,
        topics_max: 64,
        subscribers_max: 4,
        block_alignment: 4_096,
        block_length_max: 262_144,
        seal_threshold: 32_768,
        eager_depth: 1,
        write_depth: 16,
        segment_size: 1 << 30,
        ring_size,
        mark_after_ns: 10_000_000,
        stall_limit_ns: 1_000_000_000,
        lag_limit: 0,
        replay_slots: 1,
        replay_slot_size: 1 << 20,
    }
}

/// One credential that may do everything.
#[must_use]
pub fn credentials() -> Arc<CredentialBook> {
    Arc::new(CredentialBook::new(vec![Credential {
        name: "bench".to_owned(),
        secret: vec![7; 32],
        publisher: Some(PUBLISHER),
        publish: vec![">".to_owned()],
        subscribe: vec![">".to_owned()],
        rate_limit: 0,
    }]))
}

/// A DATA record of the one publisher's, whose stride is `stride` bytes.
///
/// # Panics
/// When `stride` is shorter than a record's header.
#[must_use]
pub fn data_record(publisher_seq: u64, topic: u32, stride: usize) -> Vec<u8> {
    let fields = Fields {
        topic: TopicId(topic),
        publisher: PUBLISHER,
        incarnation: INCARNATION,
        publisher_seq: PublisherSeq(publisher_seq),
        key_hash: 0,
        origin_time_ns: publisher_seq,
    };
    let payload = vec![0x5A; stride - record::HEADER_LENGTH];
    let mut bytes = vec![0; record::encoded_stride(0, payload.len())];
    record::encode(&mut bytes, RecordKind::Data, &fields, &[], &payload).expect("it has room");
    bytes
}

/// A header and, behind room for it, `body_length` bytes of records of 256 bytes.
#[must_use]
pub fn block_of(body_length: usize) -> (BlockHeader, Vec<u8>) {
    const RECORD: usize = 256;
    let records = body_length / RECORD;
    let span = block::span_for(body_length as u32, 4_096);
    let header = BlockHeader {
        kind: BlockKind::Records,
        stream: STREAM,
        epoch: Epoch(1),
        number: 2,
        position: Position(4_096),
        first_seq: Seq(1),
        record_count: records as u32,
        data_count: records as u32,
        body_length: body_length as u32,
        span,
        sealed_time_ns: 1,
        released: Position(0),
        previous_checksum: 3,
        body_checksum: 0,
        checksum: 0,
    };
    let mut bytes = vec![0; span as usize];
    for (number, place) in bytes[HEADER_LENGTH..]
        .chunks_exact_mut(RECORD)
        .take(records)
        .enumerate()
    {
        place.copy_from_slice(&data_record(number as u64 + 1, 1, RECORD));
    }
    (header, bytes)
}

/// A sequencer, its log in memory from position 0 on, and a disk that is done at once.
#[derive(Debug)]
pub struct Stream {
    /// The machine.
    pub machine: Sequence,
    /// The log's memory; positions are places in it.
    pub log: Vec<u8>,
    /// The settings it was made with.
    pub settings: Settings,
    /// How far it is released.
    pub released: ReleasePoint,
    now: Now,
}

impl Stream {
    /// A stream with `topics` topics and the publisher logged on; the log has room for `length` bytes.
    ///
    /// # Panics
    /// When `length` is too short even for that.
    #[must_use]
    pub fn new(length: usize, topics: u32) -> Self {
        let settings = settings(length as u64);
        let tables = Tables::empty(STREAM);
        let now = Now {
            utc_ns: 1,
            mono_ns: 1,
        };
        let beginning = Beginning {
            tables: &tables,
            epoch: Epoch(1),
            was_clean: false,
            write_method: WriteMethod::Dsync,
            prepared: Position(length as u64),
            now,
        };
        let machine = Sequence::new(settings.clone(), credentials(), &beginning);
        let released = ReleasePoint::default();
        let mut stream = Self {
            machine,
            log: vec![0; length],
            settings,
            released,
            now,
        };
        let mut window = LogWindow::new(Position(0), &mut stream.log);
        stream.machine.open_epoch(&beginning, None, &mut window);
        stream.complete();
        let logon = ToSequence::Logon(PublisherLogon {
            conn: CONN,
            publisher: PUBLISHER,
            incarnation: INCARNATION,
            credential: 0,
            accepted: 0,
        });
        stream.take(logon, &[]);
        for topic in 1..=topics {
            let name = format!("orders.x{topic}");
            let asked = TopicRequest {
                request: topic,
                name: name.as_bytes(),
            };
            let bytes = Message::TopicRequest(asked)
                .to_vec()
                .expect("it can be encoded");
            let length = bytes.len() as u32;
            stream.take(
                ToSequence::TopicRequest {
                    conn: CONN,
                    offset: 0,
                    length,
                },
                &bytes,
            );
        }
        stream
    }

    /// Bytes of log that are left.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.log.len() as u64 - self.machine.open_position().get()
    }

    /// Hands whole records to the sequencer, as one command.
    pub fn publish(&mut self, records: &[u8]) {
        let command = ToSequence::Records {
            conn: CONN,
            offset: 0,
            length: records.len() as u32,
            receive_time_ns: self.now.utc_ns,
        };
        self.take(command, records);
    }

    /// One turn of the sequencer's: a command, sealing, the write's completion, release and acknowledgement.
    fn take(&mut self, command: ToSequence, bytes: &[u8]) {
        self.now.utc_ns += 1;
        self.now.mono_ns += 1;
        let start = self.machine.open_position();
        let mut window = LogWindow::new(start, &mut self.log[start.get() as usize..]);
        let progress = self
            .machine
            .on_command(command, bytes, self.now, &mut window);
        assert!(progress.is_done, "the log is long enough");
        self.machine.seal_if_due(self.now, &mut window);
        self.complete();
    }

    fn complete(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                SequenceEffect::Write { number, .. } => self.machine.on_written(number),
                SequenceEffect::Released(point) => self.released = point,
                SequenceEffect::Reply(ToIngress::Reject { code, .. }) => {
                    panic!("the benchmark's record was refused: {code:?}")
                }
                SequenceEffect::Reply(ToIngress::Terminate { code, .. }) => {
                    panic!("the benchmark's publisher was sent away: {code:?}")
                }
                SequenceEffect::Sync | SequenceEffect::Reply(_) | SequenceEffect::Stopped(_) => {}
            }
        }
    }
}
