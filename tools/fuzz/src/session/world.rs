//! The relay around the machines, as its agents drive them, and the operations.

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

/// The turns.
impl World {
    /// One turn of the one thread: completions, sequencer, fan-out, ingress, and then the kernel.
    pub(super) fn turn(&mut self) {
        self.complete_sends();
        self.turn_sequence();
        self.turn_fanout();
        self.turn_ingress();
        self.carry_out_sends();
    }

    fn complete_sends(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let (side, now_ns) = (client.side, self.now.mono_ns);
            match (client.sending.clone(), side) {
                (Sending::Taken(length), Side::Ingress(conn)) => {
                    // A full socket is waited for here; a publisher's machine hears when there is room.
                    client.sending = if length == 0 {
                        Sending::AwaitsRoom
                    } else {
                        Sending::Nothing
                    };
                    if length > 0 {
                        self.ingress.on_sent(conn, length, now_ns);
                    }
                    self.drain_ingress();
                }
                (Sending::Taken(length), Side::Fanout(conn)) => {
                    client.sending = Sending::Nothing;
                    self.fanout.on_sent(conn, length, now_ns);
                }
                _ => {}
            }
            let client = &mut self.clients[at];
            if client.sending == Sending::AwaitsRoom && client.room > 0 {
                client.sending = Sending::Nothing;
                match client.side {
                    Side::Ingress(conn) => {
                        self.ingress.on_sent(conn, 0, now_ns);
                        self.drain_ingress();
                    }
                    Side::Fanout(conn) => self.fanout.on_writable(conn),
                    Side::Gone => {}
                }
            }
        }
    }

    fn turn_sequence(&mut self) {
        if self.has_failed {
            self.commands.clear();
            return;
        }
        self.sequence.on_prepared(self.prepared);
        let start = self.sequence.open_position();
        let end = self.floor.plus(RING).get().min(DISK as u64) as usize;
        let mut window = LogWindow::new(start, &mut self.memory[start.get() as usize..end]);
        let mut is_stalled = false;
        while let Some(command) = self.commands.front().copied() {
            let named = match command {
                ToSequence::Records {
                    conn,
                    offset,
                    length,
                    ..
                }
                | ToSequence::TopicRequest {
                    conn,
                    offset,
                    length,
                } => Some((conn, offset, length)),
                _ => None,
            };
            let bytes = named.map_or(&[][..], |(conn, offset, length)| {
                let named = self
                    .clients
                    .iter()
                    .rfind(|client| client.ingress_conn == conn);
                let buffer = &named
                    .expect("a command names a connection there was")
                    .buffer;
                &buffer[offset as usize + self.taken..(offset + length) as usize]
            });
            let progress = self
                .sequence
                .on_command(command, bytes, self.now, &mut window);
            assert!(progress.taken <= bytes.len());
            if !progress.is_done {
                self.taken += progress.taken;
                is_stalled = true;
                break;
            }
            self.taken = 0;
            self.commands.pop_front();
        }
        self.sequence.seal_if_due(self.now, &mut window);
        self.sequence.note_held(is_stalled, &window);
        self.drain_sequence();
    }

    fn drain_sequence(&mut self) {
        while let Some(effect) = self.sequence.poll_effect() {
            match effect {
                SequenceEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    let at = position.get() as usize;
                    let end = position.plus(length.into());
                    assert!(end <= self.prepared, "only prepared space is written");
                    let in_flight = end.since(self.sequence.durable().position);
                    assert!(
                        in_flight <= self.settings.in_flight_bytes_max(),
                        "W is kept"
                    );
                    let bytes = self.memory[at..at + length as usize].to_vec();
                    self.writes.push(Write { number, at, bytes });
                    assert!(self.writes.len() <= self.settings.write_depth as usize);
                }
                SequenceEffect::Sync => {
                    assert!(self.syncing.is_none(), "one sync at a time");
                    self.syncing = Some(std::mem::take(&mut self.unsynced));
                }
                SequenceEffect::Reply(reply) => self.replies.push_back(reply),
                SequenceEffect::Released(point) => self.on_released(point),
                SequenceEffect::Stopped(stop) => {
                    assert_eq!(
                        stop.tail, self.truth.tables.position,
                        "all is released by then"
                    );
                    assert_eq!(stop.checksum, self.truth.tables.previous_checksum);
                    assert_eq!(stop.next_seq, self.truth.next_seq());
                    self.stopped = Some(stop);
                    self.superblock.clean = Some(stop);
                }
            }
        }
    }

    fn on_released(&mut self, point: ReleasePoint) {
        assert!(
            point.position <= self.sequence.durable().position,
            "released <= durable"
        );
        let unsynced = self.unsynced.iter().chain(self.syncing.iter().flatten());
        let first = self
            .writes
            .iter()
            .chain(unsynced)
            .map(|write| write.at)
            .min();
        let first = first.unwrap_or(usize::MAX);
        assert!(
            point.position.get() as usize <= first,
            "released is on stable storage"
        );
        self.truth.on_released(&self.disk, point.position);
        assert_eq!(point.next_seq, self.truth.next_seq());
        assert_eq!(point.checksum, self.truth.checksum_before(point.next_seq));
        self.release = Some(point);
    }

    fn turn_fanout(&mut self) {
        let released = self.release.take();
        if let Some(point) = released {
            let view = self
                .memory
                .get(self.floor.get() as usize..point.position.get() as usize);
            let view = LogView::new(self.floor, view.expect("the floor follows the release"));
            self.fanout.on_released(point, &view);
            self.forwarded = point.position;
            assert!(self.fanout.floor() >= self.floor, "the floor only rises");
            assert!(self.fanout.floor() <= self.forwarded);
            self.floor = self.fanout.floor();
        }
        self.fanout.on_time(self.now.mono_ns);
        if self.fanout.has_work() {
            let view = &self.memory[self.floor.get() as usize..self.forwarded.get() as usize];
            let replay: Vec<&[u8]> = self.replay.iter().map(Vec::as_slice).collect();
            self.fanout
                .serve(&LogView::new(self.floor, view), &replay, self.now.mono_ns);
            assert_eq!(
                self.fanout.floor(),
                self.floor,
                "the floor moves with a release"
            );
        }
        self.drain_fanout();
    }

    fn subscriber(&mut self, conn: ConnId) -> Option<&mut Client> {
        self.clients
            .iter_mut()
            .find(|client| client.side == Side::Fanout(conn))
    }

    fn drain_fanout(&mut self) {
        while let Some(effect) = self.fanout.poll_effect() {
            match effect {
                FanoutEffect::SendLog { conn, source } => {
                    let mut bytes = Vec::new();
                    for piece in self.fanout.pieces(conn) {
                        let (at, length) = (piece.position.get() as usize, piece.length as usize);
                        let end = piece.position.plus(piece.length.into());
                        assert!(end <= self.forwarded, "nothing unreleased is sent");
                        match source {
                            Source::Ring => {
                                assert!(piece.position >= self.floor, "sent from above the floor");
                                bytes.extend_from_slice(&self.memory[at..at + length]);
                            }
                            Source::Replay { slot, start } => {
                                let at = at - start.get() as usize;
                                let buffer = &self.replay[slot as usize];
                                bytes.extend_from_slice(&buffer[at..at + length]);
                            }
                        }
                    }
                    self.begin_fanout_send(conn, bytes);
                }
                FanoutEffect::SendMessages(conn) => {
                    let bytes = self.fanout.outgoing(conn).to_vec();
                    self.begin_fanout_send(conn, bytes);
                }
                FanoutEffect::AwaitRoom(conn) => {
                    if let Some(client) = self.subscriber(conn) {
                        assert_eq!(client.sending, Sending::Nothing);
                        client.sending = Sending::AwaitsRoom;
                    }
                }
                FanoutEffect::Read {
                    slot,
                    position,
                    length,
                } => {
                    assert!(length > 0 && length <= self.settings.replay_slot_size);
                    assert!(position.get().is_multiple_of(ALIGNMENT.into()));
                    let left = SEGMENT - position.get() % SEGMENT;
                    assert!(u64::from(length) <= left, "a read lies in one segment");
                    assert!(position.plus(length.into()) <= self.forwarded);
                    assert!(
                        self.reads.iter().all(|read| read.slot != slot),
                        "one read a buffer"
                    );
                    let (at, length) = (position.get() as usize, length as usize);
                    self.reads.push(Read { slot, at, length });
                }
                FanoutEffect::Close(conn) => self.close_fanout(conn),
                FanoutEffect::Damaged(_) => {}
            }
        }
    }

    fn close_fanout(&mut self, conn: ConnId) {
        if let Some(client) = self.subscriber(conn) {
            client.side = Side::Gone;
            self.fanout.on_closed(conn);
        }
    }

    fn begin_fanout_send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        // One that was closed in this very turn has nothing to send to.
        if let Some(client) = self.subscriber(conn) {
            assert!(!bytes.is_empty(), "something is sent");
            assert_eq!(client.sending, Sending::Nothing, "one send at a time");
            client.sending = Sending::Begun(bytes);
        }
    }

    fn turn_ingress(&mut self) {
        while let Some(reply) = self.replies.pop_front() {
            self.ingress.on_reply(reply, self.now.mono_ns);
            self.drain_ingress();
        }
        self.ingress.on_time(self.now.mono_ns);
        self.drain_ingress();
    }

    fn publisher(&mut self, conn: ConnId) -> Option<usize> {
        self.clients
            .iter()
            .position(|client| client.side == Side::Ingress(conn))
    }

    fn drain_ingress(&mut self) {
        while let Some(effect) = self.ingress.poll_effect() {
            match effect {
                IngressEffect::Send(conn) => {
                    // The bytes are looked at when the kernel is entered: more may be added until then.
                    if let Some(at) = self.publisher(conn) {
                        assert_eq!(self.clients[at].sending, Sending::Nothing);
                        self.clients[at].sending = Sending::Begun(Vec::new());
                    }
                }
                IngressEffect::Close(conn) => {
                    if let Some(at) = self.publisher(conn) {
                        self.clients[at].side = Side::Gone;
                    }
                }
                IngressEffect::WidenReceive(conn) => {
                    if let Some(at) = self.publisher(conn) {
                        self.parse(at);
                    }
                }
                IngressEffect::HandOver { conn, credential } => {
                    if let Some(at) = self.publisher(conn) {
                        self.hand_over(at, credential);
                    }
                }
            }
        }
        while let Some(command) = self.ingress.poll_command() {
            self.commands.push_back(command);
        }
    }

    fn hand_over(&mut self, at: usize, credential: u32) {
        let Some(conn) = self.fanout.on_subscriber(credential, self.now.mono_ns) else {
            self.clients[at].side = Side::Gone;
            return;
        };
        let client = &mut self.clients[at];
        assert_eq!(
            client.sending,
            Sending::Nothing,
            "the answer to the logon was taken"
        );
        client.side = Side::Fanout(conn);
        self.parse(at);
    }

    /// Gives the machine what the connection received.
    fn parse(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let bytes = &client.buffer[client.parsed..];
        match client.side {
            Side::Ingress(conn) => {
                let offset = client.parsed as u32;
                let Now { utc_ns, mono_ns } = self.now;
                let parsed = self.ingress.on_bytes(conn, bytes, offset, utc_ns, mono_ns);
                assert!(parsed.consumed <= bytes.len());
                client.parsed += parsed.consumed;
                client.is_open = parsed.is_open;
            }
            Side::Fanout(conn) => {
                let consumed = self.fanout.on_bytes(conn, bytes, self.now.mono_ns);
                assert!(consumed <= bytes.len());
                client.parsed += consumed;
            }
            Side::Gone => {}
        }
    }

    /// The kernel takes as many bytes of each send as the client's socket has room for.
    fn carry_out_sends(&mut self) {
        for client in &mut self.clients {
            let Sending::Begun(bytes) = &client.sending else {
                continue;
            };
            let bytes = match client.side {
                Side::Ingress(conn) => self.ingress.outgoing(conn),
                Side::Fanout(_) => &bytes[..],
                // Closed in the turn that began it: the bytes of a socket that is shut go nowhere.
                Side::Gone => &[],
            };
            let length = bytes.len().min(client.room);
            client.room -= length;
            let taken = bytes[..length].to_vec();
            client.sending = Sending::Taken(length);
            client.on_received(&taken, &self.truth);
        }
    }
}

/// The operations.
impl World {
    pub(super) fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        let at = usize::from(operation & 3) + if operation > 27 { 4 } else { 0 };
        match operation {
            0 => self.connect(input),
            1 => self.complete_write(input.byte().into()),
            2 => self.complete_sync(),
            3 => self.complete_read(input),
            4 => self.pass_time(input.byte()),
            5 => {
                let more = self.prepared.get() + SEGMENT * u64::from(input.byte() & 1);
                self.prepared = Position(more.min(DISK as u64));
            }
            6 => self.finish_storage(),
            7 => match input.byte() {
                0..8 => self.fail(),
                8..40 => self.crash(input),
                40..60 if !self.is_stopping => {
                    self.is_stopping = true;
                    self.sequence.stop();
                }
                60..70 => {
                    self.ingress.stop(TerminateCode::Stopping, self.now.mono_ns);
                    self.fanout.stop(TerminateCode::Stopping, self.now.mono_ns);
                    self.drain_ingress();
                }
                _ => self.finish_storage(),
            },
            8 => {
                // A publisher that is there from the challenge to its first topic, as most of the time.
                self.connect(input);
                self.turn();
                self.act(self.clients.len().saturating_sub(1), 0, input);
                self.settle();
            }
            _ => self.act_of(at, input),
        }
    }

    /// An action of one of the newest clients.
    fn act_of(&mut self, back: usize, input: &mut Input<'_>) {
        let Some(at) = self.clients.len().checked_sub(back + 1) else {
            return;
        };
        let action = input.byte();
        self.act(at, action, input);
    }

    fn act(&mut self, at: usize, action: u8, input: &mut Input<'_>) {
        if self.clients.len() <= at {
            return;
        }
        match action & 15 {
            0 => {
                let choice = input.byte();
                let role = if choice & 4 == 0 {
                    Role::Publisher
                } else {
                    Role::Subscriber
                };
                let incarnation = u64::from(choice >> 4);
                self.clients[at].log_on(usize::from(choice & 3), role, incarnation);
            }
            1 | 2 => self.publish(at, input),
            3 => {
                let request = u32::from(input.byte());
                let name = NAMES[usize::from(input.byte()) % NAMES.len()];
                if request != 0 {
                    self.clients[at].ask_topic(request, name);
                }
            }
            4 => self.subscribe(at, input),
            5 => {
                let beat = Heartbeat {
                    next_seq: Seq(0),
                    epoch: Epoch(0),
                    checksum: 0,
                    held: relay_wire::code::Held::No,
                };
                self.clients[at].say(&Message::Heartbeat(beat));
            }
            6 => {
                let text = "";
                let leave = Terminate {
                    code: TerminateCode::Logout,
                    detail: 0,
                    text,
                };
                self.clients[at].say(&Message::Terminate(leave));
            }
            7 => {
                let length = usize::from(input.byte());
                let bytes = input.take(length);
                self.clients[at].outbox.extend_from_slice(bytes);
            }
            8 => self.damage(at, input),
            9 => self.clients[at].room += usize::from(input.word()),
            10 => self.clients[at].room += 1 << 24,
            11 => self.close(at),
            12 => {
                // Only a part arrives for now.
                let part = usize::from(input.byte()).min(self.clients[at].outbox.len());
                self.deliver(at, part);
                return;
            }
            13 => return,
            _ => self.clients[at].room = usize::from(input.byte()),
        }
        if action & 16 == 0 {
            let whole = self.clients[at].outbox.len();
            self.deliver(at, whole);
        }
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        self.accepted += 1;
        let nonce = [self.accepted; 32];
        let room = if input.byte() & 7 == 7 {
            usize::from(input.byte())
        } else {
            1 << 24
        };
        if let Some(conn) = self.ingress.on_accept(nonce, self.now.mono_ns) {
            assert!(self.publisher(conn).is_none(), "a place is given out once");
            self.clients.push(Client::new(conn, room));
        }
        self.drain_ingress();
    }

    fn deliver(&mut self, at: usize, length: usize) {
        let client = &mut self.clients[at];
        let bytes: Vec<u8> = client.outbox.drain(..length).collect();
        client.buffer.extend_from_slice(&bytes);
        let is_read = matches!(client.side, Side::Fanout(_)) || client.is_open;
        if is_read {
            self.parse(at);
            self.drain_ingress();
        }
    }

    fn publish(&mut self, at: usize, input: &mut Input<'_>) {
        let choice = input.byte();
        let count = 1 + usize::from(choice & 15);
        let length = match choice >> 4 & 3 {
            0 => usize::from(input.byte()),
            1 => 1_000,
            2 => usize::from(input.word()) % (PAYLOAD_LIMIT as usize + 100),
            _ => PAYLOAD_LIMIT as usize,
        };
        let client = &mut self.clients[at];
        let mut publisher_seq = client.next_publisher_seq;
        if choice & 64 != 0 {
            // A gap, or something sent before.
            publisher_seq = publisher_seq.saturating_add_signed(i64::from(input.byte() as i8) / 16);
        }
        let topic = if choice & 128 != 0 {
            input.byte().into()
        } else {
            client.topics.last().copied().unwrap_or(1)
        };
        for number in 0..count {
            let payload = vec![(publisher_seq as u8).wrapping_add(number as u8); length];
            let bytes = client.record(publisher_seq, topic, &payload);
            self.truth.on_sent(&bytes);
            client.outbox.extend_from_slice(&bytes);
            publisher_seq = publisher_seq.saturating_add(1);
        }
        client.next_publisher_seq = publisher_seq;
    }

    /// Changes a byte of what is on its way; a record may get a checksum that fits.
    fn damage(&mut self, at: usize, input: &mut Input<'_>) {
        let client = &mut self.clients[at];
        if client.outbox.is_empty() {
            return;
        }
        let place = input.below(client.outbox.len());
        client.outbox[place] ^= input.byte();
        if input.byte() & 1 == 1
            && let Ok(record) = relay_wire::record::Record::parse(&client.outbox)
        {
            let (topic, publisher_seq) = (record.topic(), record.publisher_seq());
            relay_wire::record::readdress(&mut client.outbox, topic, publisher_seq)
                .expect("it was parsed");
            self.truth.on_sent(&client.outbox);
        }
    }

    fn subscribe(&mut self, at: usize, input: &mut Input<'_>) {
        let choice = input.byte();
        let patterns = PATTERNS[usize::from(choice & 7)];
        let from = From::ALL[usize::from(choice >> 3 & 3)];
        let next = self.truth.next_seq();
        let seq = Seq(u64::from(input.word()) % (next.get() + 2));
        let value = match from {
            From::Live | From::Earliest => 0,
            From::Seq => seq.get(),
            From::Time => match self.truth.records.get(seq.get() as usize) {
                Some(record) => record.receive_time_ns + u64::from(choice >> 7),
                None => self.now.utc_ns,
            },
        };
        let checksum = match (from, choice & 32) {
            (From::Seq, 32) if (2..=next.get()).contains(&seq.get()) => {
                Some(self.truth.checksum_before(seq) ^ u32::from(choice & 64 != 0))
            }
            _ => None,
        };
        let mut laid_out = Vec::new();
        let listed = Patterns::lay_out(patterns, &mut laid_out).expect("there are a few");
        let client = &mut self.clients[at];
        client.say(&Message::Subscribe(Subscribe {
            from,
            checksum,
            value,
            patterns: listed,
        }));
        client.expect(patterns, if from == From::Time { value } else { 0 });
    }

    fn close(&mut self, at: usize) {
        match self.clients[at].side {
            Side::Ingress(conn) => {
                self.ingress.on_closed(conn);
                self.drain_ingress();
            }
            Side::Fanout(conn) => self.close_fanout(conn),
            Side::Gone => {}
        }
    }

    fn complete_write(&mut self, choice: usize) {
        if self.writes.is_empty() {
            return;
        }
        let write = self.writes.remove(choice % self.writes.len());
        let place = write.at..write.at + write.bytes.len();
        assert_eq!(
            self.memory[place], write.bytes,
            "a block under a write stays as it is"
        );
        let number = write.number;
        match self.kind.write_method() {
            WriteMethod::Dsync => self.put(&write),
            WriteMethod::Covering => self.unsynced.push(write),
        }
        if !self.has_failed {
            self.sequence.on_written(number);
            self.drain_sequence();
        }
    }

    fn put(&mut self, write: &Write) {
        self.disk[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
    }

    fn complete_sync(&mut self) {
        let Some(covered) = self.syncing.take() else {
            return;
        };
        for write in &covered {
            self.put(write);
        }
        if !self.has_failed {
            self.sequence.on_synced();
            self.drain_sequence();
        }
    }

    fn complete_read(&mut self, input: &mut Input<'_>) {
        if self.reads.is_empty() {
            return;
        }
        let choice = input.byte();
        let read = self
            .reads
            .remove(usize::from(choice & 7) % self.reads.len());
        let buffer = &mut self.replay[read.slot as usize];
        buffer[..read.length].copy_from_slice(&self.disk[read.at..read.at + read.length]);
        let mut length = Some(read.length as u32);
        match choice >> 3 {
            0 => length = None,
            1 => {
                let at = input.below(read.length);
                buffer[at] ^= input.byte();
            }
            2 => length = Some(input.below(read.length + 1) as u32),
            _ => {}
        }
        self.fanout.on_read(read.slot, length, self.now.mono_ns);
    }

    fn pass_time(&mut self, choice: u8) {
        let milliseconds = [0, 1, 11, 126, 500, 1_001, 2_001, 5_001][usize::from(choice & 7)];
        self.now.mono_ns += milliseconds * MILLISECOND;
        // The wall clock is stepped now and then.
        self.now.utc_ns = match choice >> 3 {
            0 => self.now.utc_ns.saturating_sub(5_000_000),
            1 => self.now.utc_ns + 3_600_000_000_000,
            _ => self.now.utc_ns + milliseconds * MILLISECOND,
        };
    }

    fn fail(&mut self) {
        self.has_failed = true;
        self.sequence.on_storage_fault();
        self.ingress
            .stop(TerminateCode::StorageFault, self.now.mono_ns);
        self.fanout
            .stop(TerminateCode::StorageFault, self.now.mono_ns);
        self.drain_ingress();
    }

    /// Completes whatever the disk has under way.
    fn finish_storage(&mut self) {
        while !self.writes.is_empty() {
            self.complete_write(0);
        }
        self.complete_sync();
        while !self.reads.is_empty() {
            self.complete_read(&mut Input::new(&[0xF8]));
        }
    }

    /// A few turns with a fast disk.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.turn();
            self.finish_storage();
        }
    }

    fn is_quiet(&self) -> bool {
        let is_sending = |client: &Client| {
            !matches!(client.sending, Sending::Nothing) && client.side != Side::Gone
        };
        self.writes.is_empty()
            && self.syncing.is_none()
            && self.reads.is_empty()
            && self.replies.is_empty()
            && self.release.is_none()
            && !self.fanout.has_work()
            && !self.clients.iter().any(is_sending)
    }

    /// Everything under way completes, without the clock's help: then nobody is left waiting.
    pub(super) fn finish(&mut self) {
        for at in 0..self.clients.len() {
            self.clients[at].room = 1 << 30;
            let whole = self.clients[at].outbox.len();
            self.deliver(at, whole);
        }
        self.prepared = Position(DISK as u64);
        let mut quiet = 0;
        for _ in 0..20_000 {
            self.turn();
            self.finish_storage();
            quiet = if self.is_quiet() { quiet + 1 } else { 0 };
            if quiet > 4 {
                break;
            }
        }
        assert!(quiet > 4, "the machines come to rest");
        if self.has_failed {
            return;
        }
        assert_eq!(
            self.sequence.next_seq(),
            self.truth.next_seq(),
            "all taken is released"
        );
        let room = DISK as u64 - self.sequence.open_position().get();
        let is_full = room < 2 * u64::from(self.settings.block_span_max());
        assert!(
            self.commands.is_empty() || is_full,
            "all commands are carried out"
        );
        for (at, client) in self.clients.iter().enumerate() {
            let missing = client.missing(&self.truth);
            assert_eq!(missing, 0, "client {at} is left waiting for records");
            let unacknowledged = client.unacknowledged(&self.truth);
            assert_eq!(
                unacknowledged, 0,
                "client {at} is left without an acknowledgement"
            );
        }
    }
}
