//! A group in memory: real machines, disks that are vectors, connections that are vectors, an arbiter that is one value, a clock
//! that moves a millisecond a step. Scenarios cut, freeze, hold and restart; every release is compared with every disk.

mod arbiter;
mod checks;
mod publisher;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use relay_core::arbiter::{ArbiterAnswer, ArbiterReply, ArbiterRequest, Ask, Registers, Revision};
use relay_core::command::{Now, ToIngress};
use relay_core::credential::{Credential, CredentialBook};
use relay_core::group::{Carry, GroupSettings, HaltReason, PeerSettings, RestartReason, Vote};
use relay_core::links::{LinkEffect, LinkId};
use relay_core::log::{LogView, LogWindow};
use relay_core::node::{Fetched, Node, NodeEffect, Note, ReadPurpose, Start};
use relay_core::settings::Settings;
use relay_journal::recovery::{RecoveryError, recover};
use relay_journal::scan::{LogSource, SourceError};
use relay_journal::superblock::{FORMAT_VERSION, Superblock, WriteMethod};
use relay_journal::tables::Tables;
use relay_wire::code::{Policy, RecordKind};
use relay_wire::id::{Epoch, NodeId, Position, PublisherId, StreamId};
use relay_wire::membership::{Member, Members, Membership};
use relay_wire::peer::Standing;

pub use self::publisher::Publisher;

pub const MS: u64 = 1_000_000;
const MEMORY: usize = 8 << 20;
const RING: u64 = 1 << 20;
const SECRET: &[u8] = b"the group's secret";

#[derive(Clone)]
pub struct Disk {
    pub bytes: Vec<u8>,
    pub superblock: Superblock,
}

impl LogSource for Disk {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let rest = self.bytes.get(position.get() as usize..).unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

pub struct Machine {
    pub node: Option<Node>,
    pub disk: Disk,
    memory: Vec<u8>,
    process: u64,
    floor: Position,
    writes: VecDeque<(u64, Position, Vec<u8>)>,
    reads: VecDeque<(u32, ReadPurpose, Position, u32)>,
    votes: VecDeque<(Vote, Option<Membership>)>,
    asks: VecDeque<ArbiterRequest>,
    restart: Option<(RestartReason, Carry)>,
    replies: Vec<ToIngress>,
    /// Its own register, where an operator is the arbiter.
    pub register: Option<Registers>,
    pub notes: Vec<Note>,
    pub fetched: Vec<Fetched>,
    /// When the arbiter was asked each time it was sure to lead still after a doubt, ns.
    pub assurances: Vec<u64>,
    /// Its fan-out takes subscribers.
    is_open: bool,
    pub halted: Option<HaltReason>,
    pub set_aside: Vec<(Position, Vec<u8>)>,
    pub is_frozen: bool,
    pub holds_writes: bool,
    pub holds_votes: bool,
    pub is_serving: bool,
    /// Clients wait here for a primary.
    pub is_vacant: bool,
    pub has_stopped: bool,
    pub reigns: Vec<Epoch>,
}

/// A connection between two machines; the first dialled.
struct Wire {
    ends: [usize; 2],
    links: [Option<LinkId>; 2],
    /// Bytes on their way to each end.
    bytes: [Vec<u8>; 2],
}

pub struct Cluster {
    pub settings: Settings,
    pub machines: Vec<Machine>,
    wires: Vec<Wire>,
    pub registers: Option<Registers>,
    /// An operator is the arbiter: each machine has a register of its own.
    pub is_manual: bool,
    pub now: Now,
    /// Pairs whose bytes don't arrive, from the first to the second.
    pub cut: BTreeSet<(usize, usize)>,
    /// Hosts that go with their processes: nobody is left to refuse a connection.
    pub go_dark: BTreeSet<usize>,
    pub no_arbiter: BTreeSet<usize>,
    /// The arbiter does not answer these machines.
    pub mute_arbiter: BTreeSet<usize>,
    /// Swaps of these machines are carried out but answered as unknown.
    pub unknown_swaps: BTreeSet<usize>,
    /// Swaps of these machines are kept back, to land when told.
    pub late_swaps: BTreeSet<usize>,
    pub swaps_kept: VecDeque<(usize, ArbiterRequest)>,
    /// Swaps of these machines are carried out, and answered when told.
    pub late_answers: BTreeSet<usize>,
    pub answers_kept: VecDeque<(usize, u64, ArbiterAnswer)>,
    pub min_copies: u8,
    /// The last machine is an observer.
    pub has_observer: bool,
    /// Everything ever released, byte for byte.
    pub ledger: Vec<u8>,
    /// Who released in which epoch.
    pub released_by: BTreeMap<Epoch, usize>,
    pub publisher: Publisher,
}

fn settings(node: u64, policy: Policy) -> Settings {
    Settings {
        node: NodeId(node),
        stream: StreamId(1),
        policy,
        payload_limit: 1024,
        credit: 1 << 18,
        heartbeat_ns: 1_000 * MS,
        logon_timeout_ns: 5_000 * MS,
        connections_max: 4096,
        unauthenticated_max: 4,
        publishers_max: 4,
        topics_max: 8,
        subscribers_max: 8,
        block_alignment: 4096,
        block_length_max: 16 << 10,
        seal_threshold: 4 << 10,
        eager_depth: 1,
        write_depth: 4,
        segment_size: 1 << 20,
        ring_size: RING,
        mark_after_ns: 10 * MS,
        stall_limit_ns: 2_000 * MS,
        lag_limit: 0,
        replay_slots: 2,
        replay_slot_size: 128 << 10,
    }
}

fn group(
    settings: &Settings,
    nodes: u64,
    min_copies: u8,
    is_manual: bool,
    member: Member,
    process: u64,
) -> GroupSettings {
    let others = (1..=nodes).filter(|node| *node != settings.node.get());
    GroupSettings {
        identity: member,
        process,
        seed: process ^ 0x5eed,
        logged_span_max: 0,
        is_observer: false,
        peers: others
            .map(|node| PeerSettings {
                node: NodeId(node),
                is_observer: false,
            })
            .collect(),
        secret: SECRET.to_vec(),
        policy: settings.policy,
        min_copies,
        is_manual,
        heartbeat_ns: 10 * MS,
        suspect_ns: 200 * MS,
        suspect_closed_ns: 40 * MS,
        head_start_ns: 40 * MS,
        start_wait_ns: 1_000 * MS,
        ack_deadline_ns: 1_000 * MS,
        readmit_after_ns: 100 * MS,
        disk_stall_ns: 300 * MS,
        retry_ns: 20 * MS,
        floor_every_ns: 1_000 * MS,
        catch_up_rate: 1 << 30,
    }
}

pub fn book() -> Arc<CredentialBook> {
    Arc::new(CredentialBook::new(vec![Credential {
        name: "one".to_owned(),
        secret: b"0123456789abcdef".to_vec(),
        publisher: Some(PublisherId(1)),
        publish: vec![">".to_owned()],
        subscribe: vec![">".to_owned()],
        rate_limit: 0,
    }]))
}

impl Cluster {
    /// A group whose members are all of `nodes`, led by the first; nobody runs yet.
    pub fn new(nodes: u64, min_copies: u8) -> Self {
        Self::with_policy(nodes, min_copies, Policy::Durable)
    }

    pub fn with_policy(nodes: u64, min_copies: u8, policy: Policy) -> Self {
        let settings = settings(1, policy);
        let machines = (1..=nodes).map(|node| Machine::new(&settings, node, node * 100));
        let machines: Vec<Machine> = machines.collect();
        let members: Vec<Member> = machines
            .iter()
            .map(|machine| machine.member(policy))
            .collect();
        let membership = Membership {
            stream: StreamId(1),
            epoch: Epoch(1),
            nonce: 42,
            primary: NodeId(1),
            members: Members::of(&members),
            min_copies,
            policy,
        };
        Self {
            settings,
            machines,
            wires: Vec::new(),
            registers: Some(Registers {
                membership,
                revision: Revision(1),
                floor: None,
                floor_revision: Revision(0),
            }),
            is_manual: false,
            now: Now {
                utc_ns: 1_000_000_000_000,
                mono_ns: 1_000 * MS,
            },
            cut: BTreeSet::new(),
            go_dark: BTreeSet::new(),
            no_arbiter: BTreeSet::new(),
            mute_arbiter: BTreeSet::new(),
            unknown_swaps: BTreeSet::new(),
            late_swaps: BTreeSet::new(),
            swaps_kept: VecDeque::new(),
            late_answers: BTreeSet::new(),
            answers_kept: VecDeque::new(),
            min_copies,
            has_observer: false,
            ledger: Vec::new(),
            released_by: BTreeMap::new(),
            publisher: Publisher::default(),
        }
    }

    /// A group that runs, with everything in sync.
    pub fn running(nodes: u64, min_copies: u8) -> Self {
        let mut cluster = Self::new(nodes, min_copies);
        cluster.run();
        cluster
    }

    /// A group that runs without an arbiter. Its record was made on the first machine; the others are told by it.
    pub fn running_by_hand(nodes: u64) -> Self {
        let mut cluster = Self::new(nodes, 1);
        cluster.is_manual = true;
        cluster.machines[0].register = cluster.registers.take();
        cluster.run();
        cluster
    }

    /// A group that runs, with everything in sync and one observer more.
    pub fn running_with_observer(nodes: u64, min_copies: u8) -> Self {
        let mut cluster = Self::new(nodes, min_copies);
        let node = nodes + 1;
        let observer = Machine::new(&cluster.settings, node, node * 100);
        cluster.machines.push(observer);
        cluster.has_observer = true;
        cluster.run();
        cluster
    }

    fn run(&mut self) {
        let nodes = self.machines.len();
        for at in 0..nodes {
            self.start(at);
        }
        let members = nodes - usize::from(self.has_observer);
        self.until("somebody serves and all are in sync", |cluster| {
            cluster.serving().is_some() && cluster.in_sync() == members
        });
    }

    pub fn start(&mut self, at: usize) {
        self.start_with(at, None).unwrap();
    }

    pub fn start_with(&mut self, at: usize, carry: Option<Carry>) -> Result<(), RecoveryError> {
        let (nodes, min_copies, now) = (self.machines.len() as u64, self.min_copies, self.now);
        let is_manual = self.is_manual;
        let settings = Settings {
            node: NodeId(at as u64 + 1),
            ..self.settings.clone()
        };
        let machine = &mut self.machines[at];
        let empty = Tables::empty(settings.stream);
        let superblock = machine.disk.superblock;
        let recovered = recover(&mut machine.disk, &superblock, empty, &mut |_| {})?;
        if let Some(cut) = &recovered.cut {
            let from = cut.position.get() as usize;
            machine.disk.bytes[from..from + cut.leftovers as usize].fill(0);
            machine.disk.superblock.unknown_tail = Some(cut.position);
        }
        if carry.is_none() {
            machine.process += 1;
        }
        let member = machine.member(settings.policy);
        let process = machine.process;
        let mut group = group(&settings, nodes, min_copies, is_manual, member, process);
        if self.has_observer {
            group.is_observer = at as u64 + 1 == nodes;
            for peer in &mut group.peers {
                peer.is_observer = peer.node.get() == nodes;
            }
        }
        let superblock = &machine.disk.superblock;
        let start = Start {
            vote: Vote {
                promised: superblock.promised,
                committed: superblock.committed,
                nonce: superblock.committed_nonce,
                unknown_tail: superblock.unknown_tail,
                learning_from: superblock.learning_from,
            },
            carry,
            write_method: WriteMethod::Dsync,
            prepared: Position(MEMORY as u64),
            session: Some((20_261_124, "day".to_owned())),
            now,
            tables: recovered.tables,
        };
        machine.floor = start.tables.position;
        machine.memory.fill(0xee);
        machine.node = Some(Node::of_group(settings, group, book(), start));
        Ok(())
    }

    /// The process dies. What was written is on disk; of writes under way the first `kept` are too.
    pub fn kill(&mut self, at: usize, kept: usize) {
        let machine = &mut self.machines[at];
        for (_, position, bytes) in machine.writes.drain(..).take(kept) {
            let from = position.get() as usize;
            machine.disk.bytes[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        self.forget(at);
    }

    /// How many writes this machine's disk has not completed.
    pub fn writes_under_way(&self, at: usize) -> usize {
        self.machines[at].writes.len()
    }

    /// The process dies, and of its writes under way all but the first are on disk.
    pub fn kill_torn(&mut self, at: usize) {
        self.machines[at].writes.pop_front();
        self.kill(at, usize::MAX);
    }

    fn forget(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        machine.node = None;
        machine.writes.clear();
        machine.reads.clear();
        machine.votes.clear();
        machine.asks.clear();
        machine.replies.clear();
        machine.restart = None;
        machine.is_serving = false;
        machine.is_vacant = false;
        machine.is_frozen = false;
        for wire in &mut self.wires {
            for end in 0..2 {
                if wire.ends[end] == at {
                    wire.links[end] = None;
                }
            }
        }
        if self.publisher.at.is_some_and(|(there, _)| there == at) {
            self.publisher.at = None;
        }
    }

    /// The index of the machine that serves clients.
    pub fn serving(&self) -> Option<usize> {
        let is_on = |machine: &Machine| machine.is_serving && !machine.is_frozen;
        self.machines.iter().position(is_on)
    }

    /// The newest record there is.
    pub fn record(&self) -> Option<Membership> {
        let registers = self.machines.iter().map(|machine| &machine.register);
        let registers = registers.chain([&self.registers]).flatten();
        let records = registers.map(|registers| registers.membership);
        records.max_by_key(|record| record.epoch)
    }

    pub fn in_sync(&self) -> usize {
        self.record().map_or(0, |record| record.members.len())
    }

    /// Whether this machine ever told its log that.
    pub fn has_noted(&self, at: usize, note: Note) -> bool {
        self.machines[at].notes.contains(&note)
    }

    pub fn standing(&self, at: usize) -> Standing {
        let node = self.machines[at].node.as_ref();
        node.map_or(Standing::Seeking, |node| node.status().standing)
    }

    /// Steps until `is_so`, at most 30 simulated seconds.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..30_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("never: {what}\n{}", self.describe());
    }

    /// A machine doubts that it leads still; when, monotonic ns.
    pub fn doubt(&mut self, at: usize) -> u64 {
        let now_ns = self.now.mono_ns;
        let node = self.machines[at].node.as_mut().unwrap();
        node.on_doubt(now_ns);
        now_ns
    }

    /// Steps for so many milliseconds, during which `never` does not become true.
    pub fn pass(&mut self, milliseconds: u64, never: impl Fn(&Self) -> bool) {
        for _ in 0..milliseconds {
            assert!(!never(self), "what must not be\n{}", self.describe());
            self.step();
        }
    }

    /// Publishes so many more messages and steps until all are acknowledged.
    pub fn publish(&mut self, count: u64) {
        self.publisher.wanted += count;
        self.until("everything is acknowledged", |cluster| {
            cluster.publisher.acked == cluster.publisher.wanted
        });
    }

    pub fn step(&mut self) {
        self.now.utc_ns += MS;
        self.now.mono_ns += MS;
        for at in 0..self.machines.len() {
            if self.machines[at].is_frozen {
                continue;
            }
            self.deliver(at);
            self.answer(at);
            self.turn(at);
            self.drain(at);
            self.restart(at);
        }
        self.close_broken();
        self.drive_publisher();
    }

    fn with_window<R>(
        &mut self,
        at: usize,
        with: impl FnOnce(&mut Node, &mut LogWindow<'_>, Now) -> R,
    ) -> Option<R> {
        let now = self.now;
        let machine = &mut self.machines[at];
        let node = machine.node.as_mut()?;
        let start = node.open_position();
        let end = node.forgettable(machine.floor).plus(RING);
        let bytes = &mut machine.memory[start.get() as usize..end.get() as usize];
        let mut window = LogWindow::new(start, bytes);
        Some(with(node, &mut window, now))
    }

    fn deliver(&mut self, at: usize) {
        for wire in 0..self.wires.len() {
            for end in 0..2 {
                let from = self.wires[wire].ends[1 - end];
                if self.wires[wire].ends[end] != at || self.cut.contains(&(from, at)) {
                    continue;
                }
                let Some(link) = self.wires[wire].links[end] else {
                    continue;
                };
                let bytes = std::mem::take(&mut self.wires[wire].bytes[end]);
                let heard = self.with_window(at, |node, log, now| {
                    node.on_link_bytes(link, &bytes, now, log)
                });
                if let Some(heard) = heard {
                    let mut rest = bytes[heard.consumed..].to_vec();
                    rest.append(&mut self.wires[wire].bytes[end]);
                    self.wires[wire].bytes[end] = rest;
                }
            }
        }
    }

    fn turn(&mut self, at: usize) {
        self.with_window(at, |node, log, now| node.turn(now, log));
        let now = self.now;
        let machine = &mut self.machines[at];
        let Some(node) = &mut machine.node else {
            return;
        };
        let end = node.open_position();
        let oldest = end.get().saturating_sub(RING / 2);
        let start = node.ring_start().max(Position(oldest)).min(end);
        // The oldest block's start is not known here; a view may begin inside a block, where no cursor ever stands.
        let bytes = &machine.memory[start.get() as usize..end.get() as usize];
        node.pump(now, &LogView::new(start, bytes));
    }

    fn drain(&mut self, at: usize) {
        while let Some(effect) = self.machines[at].node.as_mut().and_then(Node::poll_effect) {
            let machine = &mut self.machines[at];
            match effect {
                NodeEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    let from = position.get() as usize;
                    let bytes = machine.memory[from..from + length as usize].to_vec();
                    machine.writes.push_back((number, position, bytes));
                }
                NodeEffect::Sync => {}
                NodeEffect::Withdraw => machine.is_open = false,
                NodeEffect::ServeAgain => machine.is_open = true,
                NodeEffect::Assured { asked_ns } => machine.assurances.push(asked_ns),
                NodeEffect::Stopped(_) => {
                    machine.has_stopped = true;
                    machine.is_serving = false;
                }
                NodeEffect::Reply(reply) => machine.replies.push(reply),
                NodeEffect::Released(point) => self.on_released(at, point.position),
                NodeEffect::Link(effect) => self.on_link(at, effect),
                NodeEffect::Ask(request) => machine.asks.push_back(request),
                NodeEffect::StoreVote(vote, record) => machine.votes.push_back((vote, record)),
                NodeEffect::ReadLog {
                    peer,
                    purpose,
                    position,
                    length,
                } => machine.reads.push_back((peer, purpose, position, length)),
                NodeEffect::Fetched(fetched) => machine.fetched.push(*fetched),
                NodeEffect::Lead(tables, epoch) => {
                    machine.floor = tables.position;
                    machine.reigns.push(epoch);
                    machine.is_open = true;
                }
                NodeEffect::Restart(reason, carry) => machine.restart = Some((reason, carry)),
                NodeEffect::Halt(reason) => machine.halted = Some(reason),
                NodeEffect::Note(Note::PeerRefused(fault)) => panic!("{fault}"),
                NodeEffect::Note(note) => machine.notes.push(note),
            }
        }
    }

    fn on_link(&mut self, at: usize, effect: LinkEffect) {
        let now = self.now;
        match effect {
            LinkEffect::Dial(peer) => {
                let to = self.peer(at, peer);
                let is_there = self.is_there(at, to);
                let is_refused = self.is_refused(at, to);
                let nonce = [self.now.mono_ns as u8; 32];
                let node = self.machines[at].node.as_mut().unwrap();
                if !is_there {
                    if is_refused {
                        node.on_peer_refused(peer);
                    }
                    node.on_dial_failed(peer, now);
                    return;
                }
                let dialer = node.on_link_opened(Some(peer), nonce, now);
                let acceptor = self.machines[to].node.as_mut().unwrap();
                let acceptor = acceptor.on_link_opened(None, [9; 32], now);
                self.wires.push(Wire {
                    ends: [at, to],
                    links: [dialer, acceptor],
                    bytes: [Vec::new(), Vec::new()],
                });
            }
            LinkEffect::Knock(peer) => {
                if self.is_refused(at, self.peer(at, peer)) {
                    let node = self.machines[at].node.as_mut().unwrap();
                    node.on_peer_refused(peer);
                }
            }
            LinkEffect::Send(link) => {
                let node = self.machines[at].node.as_mut().unwrap();
                let bytes = node.link_outgoing(link).to_vec();
                node.on_link_sent(link, bytes.len());
                if let Some((wire, end)) = self.wire_of(at, link) {
                    self.wires[wire].bytes[1 - end].extend_from_slice(&bytes);
                }
            }
            LinkEffect::Close(link) => {
                if let Some((wire, end)) = self.wire_of(at, link) {
                    self.wires[wire].links[end] = None;
                }
            }
        }
    }

    /// The machine that is this peer of another's.
    fn peer(&self, at: usize, peer: u32) -> usize {
        let mut others = (0..self.machines.len()).filter(|other| *other != at);
        others.nth(peer as usize).unwrap()
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from))
    }

    fn is_there(&self, from: usize, to: usize) -> bool {
        self.machines[to].node.is_some() && self.reaches(from, to)
    }

    fn is_refused(&self, from: usize, to: usize) -> bool {
        self.machines[to].node.is_none() && self.reaches(from, to) && !self.go_dark.contains(&to)
    }

    fn wire_of(&self, at: usize, link: LinkId) -> Option<(usize, usize)> {
        self.wires.iter().enumerate().find_map(|(place, wire)| {
            let end = (0..2).find(|&e| wire.ends[e] == at && wire.links[e] == Some(link))?;
            Some((place, end))
        })
    }

    /// The connections between two machines end, with what is on its way; they connect anew.
    pub fn disconnect(&mut self, a: usize, b: usize) {
        let now = self.now;
        for wire in &mut self.wires {
            if wire.ends != [a, b] && wire.ends != [b, a] {
                continue;
            }
            for end in 0..2 {
                wire.bytes[end].clear();
                if let Some(link) = wire.links[end].take()
                    && let Some(node) = &mut self.machines[wire.ends[end]].node
                {
                    node.on_link_closed(link, now);
                }
            }
        }
    }

    /// An end whose other end is gone is told, unless the way is cut: then it hears nothing.
    fn close_broken(&mut self) {
        let now = self.now;
        let mut at = 0;
        while at < self.wires.len() {
            let wire = &mut self.wires[at];
            for end in 0..2 {
                let way = (wire.ends[1 - end], wire.ends[end]);
                let is_told = wire.links[1 - end].is_none() && !self.cut.contains(&way);
                let is_awake = !self.machines[wire.ends[end]].is_frozen;
                if is_told
                    && is_awake
                    && wire.bytes[end].is_empty()
                    && let Some(link) = wire.links[end].take()
                    && let Some(node) = &mut self.machines[wire.ends[end]].node
                {
                    node.on_link_closed(link, now);
                }
            }
            if wire.links == [None, None] {
                self.wires.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// A stream that gave up begins again from its disk, once its writes have completed.
    fn restart(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.halted.is_some() {
            self.forget(at);
            return;
        }
        if machine.holds_writes {
            return;
        }
        let Some((reason, carry)) = machine.restart.take() else {
            return;
        };
        for (_, position, bytes) in machine.writes.drain(..) {
            let from = position.get() as usize;
            machine.disk.bytes[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        for (vote, record) in std::mem::take(&mut machine.votes) {
            machine.store(&vote, record);
        }
        if let RestartReason::Cut(position) = reason {
            let behind = &mut machine.disk.bytes[position.get() as usize..];
            machine.set_aside.push((position, behind.to_vec()));
            behind.fill(0);
        }
        self.forget(at);
        self.start_with(at, Some(carry)).unwrap();
    }
}

impl Machine {
    pub fn new(settings: &Settings, node: u64, incarnation: u64) -> Self {
        Self {
            node: None,
            disk: Disk {
                bytes: vec![0; MEMORY],
                superblock: Superblock {
                    format_version: FORMAT_VERSION,
                    node: NodeId(node),
                    stream: settings.stream,
                    disk_incarnation: incarnation,
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
                },
            },
            memory: vec![0; MEMORY],
            process: node * 1_000,
            floor: Position(0),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            votes: VecDeque::new(),
            asks: VecDeque::new(),
            restart: None,
            replies: Vec::new(),
            register: None,
            notes: Vec::new(),
            fetched: Vec::new(),
            assurances: Vec::new(),
            is_open: false,
            halted: None,
            set_aside: Vec::new(),
            is_frozen: false,
            holds_writes: false,
            holds_votes: false,
            is_serving: false,
            is_vacant: false,
            has_stopped: false,
            reigns: Vec::new(),
        }
    }

    /// The vote is durable, and before it the record that came with it.
    fn store(&mut self, vote: &Vote, record: Option<Membership>) {
        if let Some(membership) = record {
            let revision = self.register.map_or(0, |held| held.revision.0);
            self.register = Some(Registers {
                membership,
                revision: Revision(revision + 1),
                floor: None,
                floor_revision: Revision(0),
            });
        }
        let superblock = &mut self.disk.superblock;
        assert!(vote.committed >= superblock.committed, "rule R2");
        superblock.promised = vote.promised;
        superblock.committed = vote.committed;
        superblock.committed_nonce = vote.nonce;
        superblock.unknown_tail = vote.unknown_tail;
        superblock.learning_from = vote.learning_from;
    }

    fn member(&self, policy: Policy) -> Member {
        Member {
            node: self.disk.superblock.node,
            incarnation: self.disk.superblock.disk_incarnation,
            process: if policy == Policy::Mirrored {
                self.process
            } else {
                0
            },
        }
    }
}
