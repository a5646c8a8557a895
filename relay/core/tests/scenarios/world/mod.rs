//! The three machines driven in memory: a disk that is a vector, sockets that are vectors, a clock that stands still until
//! it is moved. Everything a scenario needs and nothing else.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses its own part

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use relay_core::command::{ConnId, Now, ToIngress, ToSequence};
use relay_core::credential::{Credential, CredentialBook};
use relay_core::fanout::{Fanout, FanoutEffect, Source};
use relay_core::ingress::{Ingress, IngressEffect};
use relay_core::log::{LogView, LogWindow};
use relay_core::sequence::{Beginning, Sequence, SequenceEffect};
use relay_core::settings::Settings;
use relay_core::startup;
use relay_journal::recovery::{Recovered, recover};
use relay_journal::scan::{LogSource, SourceError};
use relay_journal::superblock::{CleanStop, FORMAT_VERSION, Superblock, WriteMethod};
use relay_journal::tables::Tables;
use relay_wire::code::{Policy, RecordKind, Role};
use relay_wire::id::{
    Epoch, Incarnation, NodeId, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{Logon, Message};
use relay_wire::record::{self, Fields, Record};
use relay_wire::stride;

pub const SECRET: &[u8] = b"0123456789abcdef";
pub const RING: u64 = 1 << 20;
pub const SEGMENT: u64 = 4 << 20;

pub fn settings() -> Settings {
    Settings {
        node: NodeId(1),
        stream: StreamId(1),
        policy: Policy::Local,
        payload_limit: 1024,
        credit: 1 << 18,
        heartbeat_ns: 1_000_000_000,
        logon_timeout_ns: 5_000_000_000,
        connections_max: 16,
        unauthenticated_max: 4,
        publishers_max: 4,
        topics_max: 8,
        subscribers_max: 8,
        block_alignment: 4096,
        block_length_max: 16 << 10,
        seal_threshold: 4 << 10,
        eager_depth: 1,
        write_depth: 4,
        segment_size: SEGMENT,
        ring_size: RING,
        mark_after_ns: 10_000_000,
        stall_limit_ns: 2_000_000_000,
        lag_limit: 0,
        replay_slots: 2,
        replay_slot_size: 128 << 10,
    }
}

pub fn book() -> CredentialBook {
    let credential = |name: &str, publisher, rate_limit| Credential {
        name: name.to_owned(),
        secret: SECRET.to_vec(),
        publisher: Some(PublisherId(publisher)),
        publish: vec!["a.>".to_owned(), "b".to_owned()],
        subscribe: vec![">".to_owned()],
        rate_limit,
    };
    CredentialBook::new(vec![
        credential("one", 1, 0),
        credential("two", 2, 0),
        credential("slow", 3, 10),
    ])
}

/// The disk: bytes of the whole log.
#[derive(Clone)]
pub struct Disk {
    pub bytes: Vec<u8>,
}

impl LogSource for Disk {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let rest = self.bytes.get(position.get() as usize..).unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// What a client received, cut into items.
#[derive(Default)]
pub struct Client {
    pub inbox: Vec<u8>,
    pub is_closed: bool,
    /// Bytes its socket still takes; unlimited where `None`.
    pub room: Option<usize>,
    pub awaits_room: bool,
    /// What it received before it was handed over.
    logon: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    Record(Vec<u8>),
    Message(Vec<u8>),
}

fn items(bytes: &[u8]) -> Vec<Got> {
    let mut at = 0;
    let mut items = Vec::new();
    loop {
        match item::front(&bytes[at..], Limits::after_logon(1 << 20)).unwrap() {
            Front::Partial { .. } => return items,
            Front::Record { length } => {
                items.push(Got::Record(bytes[at..at + length].to_vec()));
                at += stride(length);
            }
            Front::Message { length } => {
                items.push(Got::Message(bytes[at..at + length].to_vec()));
                at += stride(length);
            }
        }
    }
}

impl Client {
    /// Everything received so far, whole items only.
    pub fn items(&self) -> Vec<Got> {
        items(&self.inbox)
    }

    /// The longest payload that it was told at its logon.
    pub fn payload_limit(&self) -> Option<u32> {
        let logon = items(&self.logon).into_iter().chain(self.items());
        logon.into_iter().find_map(|item| match item {
            Got::Message(bytes) => match Message::decode(&bytes).unwrap() {
                Message::LogonAck(ack) => Some(ack.payload_limit),
                _ => None,
            },
            Got::Record(_) => None,
        })
    }

    /// The messages among them, shown as text.
    pub fn messages(&self) -> Vec<String> {
        let shown = |item| match item {
            Got::Message(bytes) => Some(format!("{:?}", Message::decode(&bytes).unwrap())),
            Got::Record(_) => None,
        };
        self.items().into_iter().filter_map(shown).collect()
    }

    /// Seqs of the DATA records among them; each record is verified.
    pub fn seqs(&self) -> Vec<u64> {
        self.data()
            .iter()
            .map(|bytes| Record::parse(bytes).unwrap().seq().get())
            .collect()
    }

    pub fn data(&self) -> Vec<Vec<u8>> {
        let data = |item| match item {
            Got::Record(bytes) => {
                let record = Record::parse(&bytes).unwrap();
                record.verify().unwrap();
                record.is_data().then(|| bytes.clone())
            }
            Got::Message(_) => None,
        };
        self.items().into_iter().filter_map(data).collect()
    }

    pub fn has(&self, part: &str) -> bool {
        self.messages().iter().any(|message| message.contains(part))
    }
}

pub struct World {
    pub settings: Settings,
    pub ingress: Ingress,
    pub sequence: Sequence,
    pub fanout: Fanout,
    pub now: Now,
    pub ring: Vec<u8>,
    pub disk: Disk,
    pub superblock: Superblock,
    pub prepared: u64,
    /// Writes not yet carried out: block number, position, bytes.
    pub writes: VecDeque<(u64, Position, Vec<u8>)>,
    pub holds_writes: bool,
    /// Reads into replay buffers that are not carried out yet: buffer, position, length.
    pub reads: VecDeque<(u32, Position, u32)>,
    pub holds_reads: bool,
    pub clients: BTreeMap<(bool, ConnIdKey), Client>,
    /// Receive buffer of each connection, with a command that stalled.
    buffers: BTreeMap<ConnIdKey, Vec<u8>>,
    stalled: Option<(ToSequence, usize)>,
    commands: VecDeque<ToSequence>,
    /// How many there were.
    pub commands_made: usize,
    replay: Vec<Vec<u8>>,
    replay_starts: Vec<Position>,
    pub stopped: Option<CleanStop>,
    pub damaged: Vec<Position>,
    /// How often the fan-out asked whether this node still leads.
    pub doubts: usize,
    handed_over: Option<ConnId>,
    pub acked: Vec<(ConnId, PublisherSeq, Seq)>,
}

pub type ConnIdKey = (u32, u32);

pub fn key(conn: ConnId) -> ConnIdKey {
    (conn.index, conn.generation)
}

impl World {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        let disk = Disk {
            bytes: vec![0; 2 * SEGMENT as usize],
        };
        let superblock = Superblock {
            format_version: FORMAT_VERSION,
            node: settings.node,
            stream: settings.stream,
            disk_incarnation: 7,
            created_ns: 1,
            segment_size: settings.segment_size,
            block_alignment: settings.block_alignment,
            write_method: WriteMethod::Dsync,
            in_flight_bytes_max: settings.in_flight_bytes_max(),
            generation: 1,
            clean: None,
            promised: Epoch(0),
            committed: Epoch(0),
            committed_nonce: 0,
            unknown_tail: None,
            ring_length: settings.ring_size,
            learning_from: None,
        };
        Self::start(settings, disk, superblock, 2 * SEGMENT).0
    }

    /// Recovers what is on `disk` and starts the machines on it.
    pub fn start(
        settings: Settings,
        mut disk: Disk,
        mut superblock: Superblock,
        prepared: u64,
    ) -> (Self, Recovered) {
        let empty = Tables::empty(settings.stream);
        let recovered = recover(&mut disk, &superblock, empty, &mut |_| {}).unwrap();
        if let Some(cut) = &recovered.cut {
            let from = cut.position.get() as usize;
            disk.bytes[from..from + cut.leftovers as usize].fill(0);
        }
        let epoch = startup::next_epoch(&recovered.tables, &superblock);
        let was_clean = startup::was_clean(&recovered.tables, &superblock);
        superblock.promised = epoch;
        superblock.clean = None;
        let now = Now {
            utc_ns: 1_000_000_000_000,
            mono_ns: 1_000_000_000,
        };
        let beginning = Beginning {
            tables: &recovered.tables,
            epoch,
            was_clean,
            write_method: superblock.write_method,
            prepared: Position(prepared),
            now,
        };
        let book = Arc::new(book());
        let mut sequence = Sequence::new(settings.clone(), Arc::clone(&book), &beginning);
        let mut ring = vec![0; 2 * RING as usize];
        let start = recovered.tail;
        with_window(&mut ring, start, start.plus(RING), |log| {
            sequence.open_epoch(&beginning, Some((20_261_123, "day")), log);
        });
        let ingress = Ingress::new(
            settings.clone(),
            Arc::clone(&book),
            epoch,
            0,
            recovered.tables.next_seq,
        );
        let fanout = Fanout::new(settings.clone(), book, &recovered.tables, epoch);
        let replay =
            vec![vec![0; settings.replay_slot_size as usize]; settings.replay_slots as usize];
        let world = Self {
            replay_starts: vec![Position(0); replay.len()],
            replay,
            settings,
            ingress,
            sequence,
            fanout,
            now,
            ring,
            disk,
            superblock,
            prepared,
            writes: VecDeque::new(),
            holds_writes: false,
            reads: VecDeque::new(),
            holds_reads: false,
            clients: BTreeMap::new(),
            buffers: BTreeMap::new(),
            stalled: None,
            commands: VecDeque::new(),
            commands_made: 0,
            stopped: None,
            damaged: Vec::new(),
            doubts: 0,
            handed_over: None,
            acked: Vec::new(),
        };
        (world, recovered)
    }

    /// The process dies: what was written is on disk, the rest is gone. A new process starts.
    pub fn crash(self) -> (Self, Recovered) {
        Self::start(self.settings, self.disk, self.superblock, self.prepared)
    }

    pub fn pass(&mut self, duration_ns: u64) {
        self.now.utc_ns += duration_ns;
        self.now.mono_ns += duration_ns;
        self.run();
    }

    /// Runs everything until nothing moves.
    pub fn run(&mut self) {
        loop {
            let before = self.steps();
            self.ingress.on_time(self.now.mono_ns);
            self.fanout.on_time(self.now.mono_ns);
            self.step();
            if self.steps() == before && self.step() == 0 {
                return;
            }
        }
    }

    fn steps(&self) -> (usize, Position, usize) {
        let received = self.clients.values().map(|client| client.inbox.len()).sum();
        (
            received,
            self.sequence.released().position,
            self.commands.len(),
        )
    }

    fn step(&mut self) -> usize {
        let mut work = 0;
        while let Some(command) = self.ingress.poll_command() {
            self.commands.push_back(command);
            self.commands_made += 1;
        }
        work += self.sequence_turn();
        work += self.fanout_turn();
        work += self.ingress_effects();
        if !self.holds_writes {
            while !self.writes.is_empty() {
                self.complete_write(0);
                work += 1;
            }
        }
        work
    }

    fn sequence_turn(&mut self) -> usize {
        let mut work = 0;
        let mut ring = std::mem::take(&mut self.ring);
        let start = self.sequence.open_position();
        let durable = self.sequence.durable().position;
        let end = self.fanout.floor().min(durable).plus(RING);
        self.sequence.on_prepared(Position(self.prepared));
        with_window(&mut ring, start, end, |log| {
            let mut is_stalled = false;
            while let Some((command, taken)) = self
                .stalled
                .take()
                .or_else(|| self.commands.pop_front().map(|c| (c, 0)))
            {
                let (range, conn) = match command {
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
                    } => (offset as usize..(offset + length) as usize, Some(conn)),
                    _ => (0..0, None),
                };
                let bytes = conn.map_or(&[][..], |conn| {
                    &self.buffers[&key(conn)][range.clone()][taken..]
                });
                let progress = self.sequence.on_command(command, bytes, self.now, log);
                if !progress.is_done {
                    self.stalled = Some((command, taken + progress.taken));
                    is_stalled = true;
                    break;
                }
                work += 1;
            }
            self.sequence.seal_if_due(self.now, log);
            self.sequence.note_held(is_stalled, self.now, log);
        });
        self.ring = ring;
        while let Some(effect) = self.sequence.poll_effect() {
            match effect {
                SequenceEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    let end = position.plus(length.into());
                    let bytes = (position.get()..end.get())
                        .map(|p| self.ring[(p % RING) as usize])
                        .collect();
                    self.writes.push_back((number, position, bytes));
                }
                SequenceEffect::Sync => self.sequence.on_synced(),
                SequenceEffect::Reply(reply) => {
                    if let ToIngress::Ack {
                        conn,
                        publisher_seq,
                        seq,
                    } = reply
                    {
                        self.acked.push((conn, publisher_seq, seq));
                    }
                    self.ingress.on_reply(reply, self.now.mono_ns);
                }
                SequenceEffect::Released(_) => {}
                SequenceEffect::Stopped(stop) => self.stopped = Some(stop),
            }
        }
        work
    }

    /// Carries out the write at `at` in the queue.
    pub fn complete_write(&mut self, at: usize) {
        let (number, position, bytes) = self.writes.remove(at).unwrap();
        let from = position.get() as usize;
        if self.disk.bytes.len() < from + bytes.len() {
            self.disk.bytes.resize(from + bytes.len(), 0);
        }
        self.disk.bytes[from..from + bytes.len()].copy_from_slice(&bytes);
        self.sequence.on_written(number);
    }

    fn view(&self) -> (Position, Vec<u8>) {
        let start = self.fanout.floor();
        let end = self.sequence.released().position;
        let bytes = (start.get()..end.get())
            .map(|p| self.ring[(p % RING) as usize])
            .collect();
        (start, bytes)
    }

    fn fanout_turn(&mut self) -> usize {
        let mut work = 0;
        let (start, bytes) = self.view();
        let view = LogView::new(start, &bytes);
        self.fanout.on_released(self.sequence.released(), &view);
        let replay: Vec<&[u8]> = self.replay.iter().map(Vec::as_slice).collect();
        self.fanout.serve(&view, &replay, self.now.mono_ns);
        while let Some(effect) = self.fanout.poll_effect() {
            work += 1;
            match effect {
                FanoutEffect::SendLog { conn, source } => {
                    let mut out = Vec::new();
                    for piece in self.fanout.pieces(conn) {
                        let length = piece.length as usize;
                        let from = match source {
                            Source::Ring => &bytes[piece.position.since(start) as usize..],
                            Source::Replay { slot, start } => {
                                &self.replay[slot as usize][piece.position.since(start) as usize..]
                            }
                        };
                        out.extend_from_slice(&from[..length]);
                    }
                    self.deliver_to_subscriber(conn, &out);
                }
                FanoutEffect::SendMessages(conn) => {
                    let out = self.fanout.outgoing(conn).to_vec();
                    self.deliver_to_subscriber(conn, &out);
                }
                FanoutEffect::AwaitRoom(conn) => {
                    self.clients
                        .get_mut(&(true, key(conn)))
                        .unwrap()
                        .awaits_room = true;
                }
                FanoutEffect::Read {
                    slot,
                    position,
                    length,
                } => self.reads.push_back((slot, position, length)),
                FanoutEffect::Close(conn) => {
                    self.clients.get_mut(&(true, key(conn))).unwrap().is_closed = true;
                    self.fanout.on_closed(conn);
                }
                FanoutEffect::Damaged(position) => self.damaged.push(position),
                FanoutEffect::Doubt => self.doubts += 1,
            }
        }
        if !self.holds_reads {
            while !self.reads.is_empty() {
                self.complete_read();
            }
        }
        work
    }

    /// Carries out the oldest read.
    pub fn complete_read(&mut self) {
        let (slot, position, length) = self.reads.pop_front().unwrap();
        let from = position.get() as usize;
        // Prepared space is zero until it is written.
        let end = self.disk.bytes.len().min(from + length as usize);
        let written = self.disk.bytes.get(from..end).unwrap_or(&[]);
        let buffer = &mut self.replay[slot as usize][..length as usize];
        buffer.fill(0);
        buffer[..written.len()].copy_from_slice(written);
        self.fanout.on_read(slot, Some(length), self.now.mono_ns);
    }

    fn deliver_to_subscriber(&mut self, conn: ConnId, bytes: &[u8]) {
        let client = self.clients.get_mut(&(true, key(conn))).unwrap();
        let taken = client
            .room
            .map_or(bytes.len(), |room| room.min(bytes.len()));
        client.inbox.extend_from_slice(&bytes[..taken]);
        client.room = client.room.map(|room| room - taken);
        self.fanout.on_sent(conn, taken, self.now.mono_ns);
    }

    /// The subscriber's socket takes `room` bytes more.
    pub fn give_room(&mut self, conn: ConnId, room: Option<usize>) {
        let client = self.clients.get_mut(&(true, key(conn))).unwrap();
        client.room = room;
        if std::mem::take(&mut client.awaits_room) {
            self.fanout.on_writable(conn);
        }
        self.run();
    }

    fn ingress_effects(&mut self) -> usize {
        let mut work = 0;
        while let Some(effect) = self.ingress.poll_effect() {
            work += 1;
            match effect {
                IngressEffect::Send(conn) => {
                    let out = self.ingress.outgoing(conn).to_vec();
                    let client = self.clients.get_mut(&(false, key(conn))).unwrap();
                    let taken = client.room.map_or(out.len(), |room| room.min(out.len()));
                    client.inbox.extend_from_slice(&out[..taken]);
                    if taken > 0 {
                        self.ingress.on_sent(conn, taken, self.now.mono_ns);
                    }
                }
                IngressEffect::Close(conn) => {
                    self.clients.get_mut(&(false, key(conn))).unwrap().is_closed = true;
                }
                IngressEffect::WidenReceive(_) => {}
                IngressEffect::HandOver { conn, credential } => {
                    let to = self
                        .fanout
                        .on_subscriber(credential, self.now.mono_ns)
                        .unwrap();
                    let client = self.clients.remove(&(false, key(conn))).unwrap();
                    let kept = Client {
                        inbox: Vec::new(),
                        logon: client.inbox,
                        ..client
                    };
                    self.clients.insert((true, key(to)), kept);
                    self.handed_over = Some(to);
                }
            }
        }
        work
    }
}

impl World {
    pub fn connect(&mut self) -> ConnId {
        let nonce = [self.now.mono_ns as u8; 32];
        let conn = self
            .ingress
            .on_accept(nonce, self.now.mono_ns)
            .expect("there is a place");
        self.clients.insert((false, key(conn)), Client::default());
        self.buffers.insert(key(conn), Vec::new());
        self.run();
        conn
    }

    /// Bytes arrive from a client that is not (yet) a subscriber.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        let buffer = self.buffers.get_mut(&key(conn)).unwrap();
        let offset = buffer.len();
        buffer.extend_from_slice(bytes);
        let (utc, mono) = (self.now.utc_ns, self.now.mono_ns);
        let parsed = self.ingress.on_bytes(conn, bytes, offset as u32, utc, mono);
        if parsed.is_open {
            assert_eq!(parsed.consumed, bytes.len(), "scenarios send whole items");
        }
        self.run();
    }

    /// The node says something to ingress.
    pub fn reply(&mut self, reply: ToIngress) {
        self.ingress.on_reply(reply, self.now.mono_ns);
        self.run();
    }

    pub fn client(&self, conn: ConnId) -> &Client {
        &self.clients[&(false, key(conn))]
    }

    pub fn subscriber_client(&self, conn: ConnId) -> &Client {
        &self.clients[&(true, key(conn))]
    }

    pub fn logon(&mut self, name: &str, role: Role, publisher: u64, incarnation: u64) -> ConnId {
        let conn = self.connect();
        self.logon_on(conn, name, role, publisher, incarnation, SECRET);
        conn
    }

    pub fn logon_on(
        &mut self,
        conn: ConnId,
        name: &str,
        role: Role,
        publisher: u64,
        incarnation: u64,
        secret: &[u8],
    ) {
        let Got::Message(first) = self.client(conn).items().remove(0) else {
            panic!("a challenge comes first");
        };
        let Message::Challenge(challenge) = Message::decode(&first).unwrap() else {
            panic!("a challenge comes first");
        };
        let logon = Logon {
            role,
            stream: StreamId(0),
            publisher: PublisherId(publisher),
            incarnation: Incarnation(incarnation),
            nonce: [9; 32],
            proof: [0; 32],
            name,
        };
        let logon = logon.with_proof(secret, &challenge.nonce).unwrap();
        let bytes = Message::Logon(logon).to_vec().unwrap();
        self.send(conn, &bytes);
    }

    /// A logged-on publisher with the topic `a.x`, whose id is returned.
    pub fn publisher(&mut self, name: &str, id: u64, incarnation: u64) -> (ConnId, TopicId) {
        let conn = self.logon(name, Role::Publisher, id, incarnation);
        let topic = self.topic(conn, "a.x").expect("the topic is told");
        (conn, topic)
    }

    pub fn request_topic(&mut self, conn: ConnId, name: &str) {
        let request = relay_wire::message::TopicRequest {
            request: 5,
            name: name.as_bytes(),
        };
        let bytes = Message::TopicRequest(request).to_vec().unwrap();
        self.send(conn, &bytes);
    }

    pub fn topic(&mut self, conn: ConnId, name: &str) -> Option<TopicId> {
        self.request_topic(conn, name);
        self.client(conn)
            .items()
            .iter()
            .rev()
            .find_map(|item| match item {
                Got::Message(bytes) => match Message::decode(bytes).unwrap() {
                    Message::Topic(topic) => Some(topic.topic),
                    _ => None,
                },
                Got::Record(_) => None,
            })
    }

    pub fn publish(
        &mut self,
        conn: ConnId,
        identity: (u64, u64),
        topic: TopicId,
        publisher_seqs: impl IntoIterator<Item = u64>,
    ) {
        let mut bytes = Vec::new();
        for publisher_seq in publisher_seqs {
            bytes.extend_from_slice(&message(identity, topic, publisher_seq));
        }
        self.send(conn, &bytes);
    }

    /// A subscriber from `subscribe` on; returns its connection in the fan-out.
    pub fn subscribe(
        &mut self,
        from: relay_wire::code::From,
        value: u64,
        checksum: Option<u32>,
        patterns: &[&str],
    ) -> ConnId {
        self.subscribe_with_room(from, value, checksum, patterns, None)
    }

    /// [`World::subscribe`], with a socket that takes so many bytes.
    pub fn subscribe_with_room(
        &mut self,
        from: relay_wire::code::From,
        value: u64,
        checksum: Option<u32>,
        patterns: &[&str],
        room: Option<usize>,
    ) -> ConnId {
        let conn = self.logon("one", Role::Subscriber, 0, 0);
        assert!(
            !self.clients.contains_key(&(false, key(conn))),
            "it was handed over"
        );
        let conn = self.handed_over.take().expect("it was handed over");
        self.clients.get_mut(&(true, key(conn))).unwrap().room = room;
        let mut laid_out = Vec::new();
        let patterns = relay_wire::message::Patterns::lay_out(patterns, &mut laid_out).unwrap();
        let subscribe = relay_wire::message::Subscribe {
            from,
            checksum,
            value,
            patterns,
        };
        let bytes = Message::Subscribe(subscribe).to_vec().unwrap();
        assert_eq!(
            self.fanout.on_bytes(conn, &bytes, self.now.mono_ns),
            bytes.len()
        );
        self.run();
        conn
    }
}

/// A message whose payload tells its publisher sequence; 200 bytes.
pub fn message(identity: (u64, u64), topic: TopicId, publisher_seq: u64) -> Vec<u8> {
    let fields = Fields {
        topic,
        publisher: PublisherId(identity.0),
        incarnation: Incarnation(identity.1),
        publisher_seq: PublisherSeq(publisher_seq),
        ..Fields::default()
    };
    let mut payload = vec![identity.0 as u8; 200];
    payload[..8].copy_from_slice(&publisher_seq.to_le_bytes());
    let mut bytes = vec![0; record::encoded_stride(0, payload.len())];
    record::encode(&mut bytes, RecordKind::Data, &fields, &[], &payload).unwrap();
    bytes
}

/// The ring as the appliance maps it: a slice that never breaks at its end.
fn with_window(
    ring: &mut [u8],
    start: Position,
    end: Position,
    work: impl FnOnce(&mut LogWindow<'_>),
) {
    let size = RING as usize;
    let at = (start.get() % RING) as usize;
    let length = end.since(start) as usize;
    assert!(length <= size, "a window is no longer than the ring");
    ring.copy_within(0..size, size);
    work(&mut LogWindow::new(start, &mut ring[at..at + length]));
    if at + length > size {
        ring.copy_within(size..at + length, 0);
    }
}

impl World {
    /// Asks for a clean stop and runs until it is done.
    pub fn stop(&mut self) {
        self.sequence.stop();
        self.run();
        self.run();
    }
}
