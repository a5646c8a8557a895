//! The relay around the machines: its memory, disk and clients; how it starts and crashes. What it does is in `turns`, what
//! happens to it in `operations`.

use std::collections::VecDeque;
use std::sync::Arc;

use relay_core::command::{ConnId, Now, ReleasePoint, ToIngress, ToSequence};
use relay_core::credential::{Credential, CredentialBook};
use relay_core::fanout::{Fanout, FanoutEffect, Source};
use relay_core::ingress::{Ingress, IngressEffect};
use relay_core::log::{LogView, LogWindow};
use relay_core::sequence::{Beginning, Sequence, SequenceEffect};
use relay_core::settings::Settings;
use relay_journal::recovery::{LogSource, SourceError, recover};
use relay_journal::superblock::{CleanStop, FORMAT_VERSION, Superblock, WriteMethod};
use relay_wire::code::{From, Policy, Role, TerminateCode};
use relay_wire::id::{Epoch, NodeId, Position, PublisherId, Seq, StreamId};
use relay_wire::message::{Heartbeat, Message, Patterns, Subscribe, Terminate};

use super::client::{Client, Sending, Side};
use super::truth::Truth;
use crate::input::Input;

mod operations;
mod turns;

pub(super) const STREAM: StreamId = StreamId(5);
const NODE: NodeId = NodeId(1);
pub(super) const PAYLOAD_LIMIT: u32 = 4_096;
const ALIGNMENT: u32 = 512;
const SEGMENT: u64 = 294_912;
const RING: u64 = 524_288;
/// Bytes of the disk: the log can get no longer.
const DISK: usize = 4 * SEGMENT as usize;
const SECTOR: usize = 512;
const CLIENTS_MAX: usize = 24;
const MILLISECOND: u64 = 1_000_000;

/// Name, publisher and secret of each credential.
pub(super) const CREDENTIALS: [(&str, u64, &[u8]); 4] = [
    ("seven", 7, b"sixteen bytes or"),
    ("eight", 8, b"so of a secret.."),
    ("nine", 9, b"one more secret."),
    ("reader", 0, b"a readers secret"),
];

const NAMES: [&str; 8] = [
    "a.x",
    "a.y",
    "b.z",
    "a.x.y",
    "bad..name",
    "c",
    "a.long.name.of.a.topic",
    "b",
];
const PATTERNS: [&[&str]; 8] = [
    &[">"],
    &["a.>"],
    &["a.x"],
    &["*.z", "a.y"],
    &["c"],
    &["a.*", "c"],
    &["not..a.pattern"],
    &["b", ">"],
];

/// What varies between inputs.
#[derive(Debug, Clone, Copy)]
struct Kind(u8);

impl Kind {
    fn write_method(self) -> WriteMethod {
        if self.0 & 1 == 0 {
            WriteMethod::Dsync
        } else {
            WriteMethod::Covering
        }
    }

    fn settings(self) -> Settings {
        let mut settings = Settings {
            node: NODE,
            stream: STREAM,
            policy: Policy::Local,
            payload_limit: PAYLOAD_LIMIT,
            credit: RING / 2,
            heartbeat_ns: 1_000 * MILLISECOND,
            logon_timeout_ns: 2_000 * MILLISECOND,
            connections_max: 5,
            unauthenticated_max: 2,
            publishers_max: 2,
            topics_max: 5,
            subscribers_max: 3,
            block_alignment: ALIGNMENT,
            block_length_max: 4_096,
            seal_threshold: if self.0 & 2 == 0 { 1 } else { 2_048 },
            eager_depth: if self.0 & 4 == 0 { 1 } else { 2 },
            write_depth: if self.0 & 8 == 0 { 4 } else { 2 },
            segment_size: SEGMENT,
            ring_size: RING,
            mark_after_ns: 10 * MILLISECOND,
            stall_limit_ns: 3_000 * MILLISECOND,
            lag_limit: if self.0 & 16 == 0 { 0 } else { 65_536 },
            replay_slots: if self.0 & 32 == 0 { 1 } else { 2 },
            replay_slot_size: 0,
        };
        settings.replay_slot_size = settings.block_span_max();
        settings
    }
}

fn credentials() -> Arc<CredentialBook> {
    let credential = |at: usize, publish: &[&str], subscribe: &[&str], rate_limit| Credential {
        name: CREDENTIALS[at].0.to_owned(),
        secret: CREDENTIALS[at].2.to_vec(),
        publisher: (CREDENTIALS[at].1 != 0).then_some(PublisherId(CREDENTIALS[at].1)),
        publish: publish.iter().map(|&pattern| pattern.to_owned()).collect(),
        subscribe: subscribe
            .iter()
            .map(|&pattern| pattern.to_owned())
            .collect(),
        rate_limit,
    };
    Arc::new(CredentialBook::new(vec![
        credential(0, &[">"], &[">"], 0),
        credential(1, &["a.>", "c"], &[], 50),
        credential(2, &[">"], &["a.>"], 0),
        credential(3, &[], &[">"], 0),
    ]))
}

fn superblock(settings: &Settings) -> Superblock {
    Superblock {
        format_version: FORMAT_VERSION,
        node: NODE,
        stream: STREAM,
        disk_incarnation: 1,
        created_ns: 1,
        segment_size: SEGMENT,
        block_alignment: ALIGNMENT,
        write_method: WriteMethod::Dsync,
        in_flight_bytes_max: settings.in_flight_bytes_max(),
        generation: 1,
        clean: None,
        promised: Epoch(0),
        committed: Epoch(0),
        committed_nonce: 0,
        unknown_tail: None,
        ring_length: RING,
        learning_from: None,
    }
}

struct Disk<'a>(&'a [u8]);

impl LogSource for Disk<'_> {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let start = (position.get() as usize).min(self.0.len());
        let end = self.0.len().min(start + buffer.len());
        buffer[..end - start].copy_from_slice(&self.0[start..end]);
        Ok(end - start)
    }
}

/// A write under way, with the bytes it had when it was begun.
struct Write {
    number: u64,
    at: usize,
    bytes: Vec<u8>,
}

/// A read under way.
struct Read {
    slot: u32,
    at: usize,
    length: usize,
}

pub(super) struct World {
    settings: Settings,
    kind: Kind,
    superblock: Superblock,
    ingress: Ingress,
    sequence: Sequence,
    fanout: Fanout,
    now: Now,
    memory: Vec<u8>,
    disk: Vec<u8>,
    prepared: Position,
    floor: Position,
    /// What the fan-out was told is released.
    forwarded: Position,
    commands: VecDeque<ToSequence>,
    /// Bytes of the first command that were taken.
    taken: usize,
    replies: VecDeque<ToIngress>,
    release: Option<ReleasePoint>,
    writes: Vec<Write>,
    /// Blocks written and not covered by a sync, and those the sync under way covers. They reach `disk` when it ends:
    /// until then nobody may count on them.
    unsynced: Vec<Write>,
    syncing: Option<Vec<Write>>,
    reads: Vec<Read>,
    replay: Vec<Vec<u8>>,
    clients: Vec<Client>,
    accepted: u8,
    is_stopping: bool,
    stopped: Option<CleanStop>,
    has_failed: bool,
    truth: Truth,
}

fn beginning<'a>(
    tables: &'a relay_journal::tables::Tables,
    superblock: &Superblock,
    prepared: Position,
    kind: Kind,
    now: Now,
) -> Beginning<'a> {
    Beginning {
        tables,
        epoch: relay_core::startup::next_epoch(tables, superblock),
        was_clean: relay_core::startup::was_clean(tables, superblock),
        write_method: kind.write_method(),
        prepared,
        now,
    }
}

impl World {
    pub(super) fn new(kind: u8) -> Self {
        let kind = Kind(kind);
        let settings = kind.settings();
        let superblock = superblock(&settings);
        let now = Now {
            utc_ns: 1_000_000_000,
            mono_ns: 1_000_000,
        };
        let truth = Truth::new(STREAM);
        let prepared = Position(SEGMENT);
        let beginning = beginning(&truth.tables, &superblock, prepared, kind, now);
        let book = credentials();
        let ingress = Ingress::new(settings.clone(), Arc::clone(&book), Epoch(1), 1, Seq(1));
        let sequence = Sequence::new(settings.clone(), Arc::clone(&book), &beginning);
        let fanout = Fanout::new(settings.clone(), book, &truth.tables, Epoch(1));
        let slots = settings.replay_slots as usize;
        let replay = vec![vec![0; settings.replay_slot_size as usize]; slots];
        let mut world = Self {
            settings,
            kind,
            superblock,
            ingress,
            sequence,
            fanout,
            now,
            memory: vec![0; DISK],
            disk: vec![0; DISK],
            prepared,
            floor: Position(0),
            forwarded: Position(0),
            commands: VecDeque::new(),
            taken: 0,
            replies: VecDeque::new(),
            release: None,
            writes: Vec::new(),
            unsynced: Vec::new(),
            syncing: None,
            reads: Vec::new(),
            replay,
            clients: Vec::new(),
            accepted: 0,
            is_stopping: false,
            stopped: None,
            has_failed: false,
            truth,
        };
        world.start();
        world
    }

    /// Opens the epoch and takes its first effects.
    fn start(&mut self) {
        let Self {
            truth,
            superblock,
            prepared,
            kind,
            now,
            ..
        } = self;
        let beginning = beginning(&truth.tables, superblock, *prepared, *kind, *now);
        let epoch = beginning.epoch;
        let start = self.sequence.open_position();
        let end = start.plus(RING).get().min(DISK as u64) as usize;
        let mut window = LogWindow::new(start, &mut self.memory[start.get() as usize..end]);
        let session = (epoch == Epoch(1)).then_some((20_261_123, "2026-11-23"));
        self.sequence.open_epoch(&beginning, session, &mut window);
        self.superblock.promised = epoch;
        self.superblock.clean = None;
        self.superblock.generation += 1;
        self.drain_sequence();
    }

    /// The process dies: writes under way reach the disk in any part, the rest is forgotten; it starts again.
    fn crash(&mut self, input: &mut Input<'_>) {
        let lost = [
            std::mem::take(&mut self.writes),
            std::mem::take(&mut self.unsynced),
        ];
        let syncing = self.syncing.take().unwrap_or_default();
        for write in lost.into_iter().flatten().chain(syncing) {
            let mut sectors = input.quad();
            for (number, sector) in write.bytes.chunks(SECTOR).enumerate() {
                if sectors & 1 == 1 {
                    let at = write.at + number * SECTOR;
                    self.disk[at..at + sector.len()].copy_from_slice(sector);
                }
                sectors = sectors.rotate_right(1);
            }
        }
        let tables = relay_journal::tables::Tables::empty(STREAM);
        let end = self.prepared.get() as usize;
        let recovered = recover(
            &mut Disk(&self.disk[..end]),
            &self.superblock,
            tables,
            &mut |_| {},
        )
        .expect("a crash is recovered from");
        assert!(
            recovered.tail >= self.truth.tables.position,
            "what was released survives"
        );
        if let Some(cut) = recovered.cut {
            assert!(self.stopped.is_none(), "a clean stop leaves no cut");
            let from = cut.position.get() as usize;
            let to = (from + cut.leftovers as usize).min(end);
            self.disk[from..to].fill(0);
        }
        // What a lone node finds on its disk counts as released.
        self.truth.on_released(&self.disk, recovered.tail);
        assert_eq!(self.truth.tables, recovered.tables);
        self.reset();
    }

    fn reset(&mut self) {
        let tail = self.truth.tables.position;
        let book = credentials();
        let tables = &self.truth.tables;
        let beginning = beginning(tables, &self.superblock, self.prepared, self.kind, self.now);
        let epoch = beginning.epoch;
        self.sequence = Sequence::new(self.settings.clone(), Arc::clone(&book), &beginning);
        let next = tables.next_seq;
        self.ingress = Ingress::new(self.settings.clone(), Arc::clone(&book), epoch, 1, next);
        self.fanout = Fanout::new(self.settings.clone(), book, tables, epoch);
        self.memory.fill(0xEE);
        self.floor = tail;
        self.forwarded = tail;
        self.commands.clear();
        self.taken = 0;
        self.replies.clear();
        self.release = None;
        self.unsynced.clear();
        self.syncing = None;
        self.reads.clear();
        self.is_stopping = false;
        self.stopped = None;
        self.has_failed = false;
        for client in &mut self.clients {
            client.side = Side::Gone;
        }
        self.start();
    }
}
