//! One process of a node: the machines that ship, driven as the appliance's agents drive them.
//!
//! ```text
//!   inbound (what the kernel completed) -> sequence -> fan-out -> ingress -> sends
//! ```
//!
//! A turn does the same in the same order as `relayd`'s thread in shared mode: completions, the sequencer's turn, the
//! fan-out's, ingress's, and then the sends, as the kernel takes them when it is entered. It goes round until nothing is
//! left to do. A process may die in the middle of it, after any single effect.
//!
//! The process of a group's node has its peers' sockets, the vote in the superblock and the arbiter besides (`group.rs`,
//! `peers.rs`); it may also end to begin again from its disk.

mod bent;
mod disk;
mod ending;
mod fanout;
mod group;
mod house;
mod peers;
mod sockets;

use std::collections::VecDeque;
use std::sync::Arc;

use relay_core::arbiter::ArbiterReply;
use relay_core::command::{ConnId, Now, ReleasePoint, ToIngress, ToSequence};
use relay_core::fanout::Fanout;
use relay_core::group::{Carry, HaltReason, RestartReason};
use relay_core::ingress::Ingress;
use relay_core::log::window_end;
use relay_core::node::{Node as Machine, NodeEffect};
use relay_core::sequence::{Beginning, Sequence};
use relay_core::settings::Settings;
use relay_journal::superblock::{CleanStop, Superblock, WriteMethod};
use relay_journal::tables::Tables;
use relay_wire::checksum::crc32c;
use relay_wire::code::Policy;
use relay_wire::id::{Epoch, Position};

use self::disk::DiskOrder;
use self::ending::Ending;
use self::group::Group;
use self::sockets::Socket;
use crate::arbiter::Arbiter;
use crate::canary::Canary;
use crate::clock::Queue;
use crate::cluster::Event;
use crate::disk::{Completion, Disk, What, Zone};
use crate::history::{History, Note};
use crate::holding::Holding;
use crate::ledger::{Ledger, Reign};
use crate::memory::Memory;
use crate::network::{EndId, Network, Signal};
use crate::node::Node;
use crate::operator::Operator;
use crate::swarm::Parameters;

/// Commands that may wait in the link to the sequencer, as in the appliance.
const COMMANDS_MAX: usize = 1 << 14;
/// Rounds of one turn; the rest is left to the next.
const ROUNDS_MAX: usize = 16;
/// Effects of one turn; more means that a machine wants the same again and again.
const EFFECTS_MAX: u32 = 100_000;

/// What lies around a process.
pub(crate) struct Surroundings<'a> {
    pub(crate) parameters: &'a Parameters,
    pub(crate) queue: &'a mut Queue<Event>,
    pub(crate) network: &'a mut Network,
    pub(crate) history: &'a mut History,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) disk: &'a mut Disk,
    /// Disks of the nodes before and after this one.
    pub(crate) others: [&'a [Disk]; 2],
    /// And those nodes.
    pub(crate) peers: [&'a [Node]; 2],
    pub(crate) arbiter: &'a mut Arbiter,
    pub(crate) operator: &'a mut Operator,
    pub(crate) canary: Option<Canary>,
    /// Damage that processes have reported so far.
    pub(crate) reported: &'a mut u64,
    pub(crate) now: Now,
}

impl Surroundings<'_> {
    /// Something worth remembering happened now.
    pub(crate) fn note(&mut self, note: Note) {
        self.history.note(self.queue.now_ns(), note);
    }
}

/// The disk of a node, of all disks as one node sees them.
fn disk_of<'a>(own: &'a Disk, others: [&'a [Disk]; 2], node: usize) -> &'a Disk {
    let [before, after] = others;
    match node.checked_sub(before.len()) {
        None => &before[node],
        Some(0) => own,
        Some(behind) => &after[behind - 1],
    }
}

/// What the kernel has completed.
#[derive(Debug, Clone, Copy)]
enum Inbound {
    Incoming(EndId),
    Signal(EndId, Signal),
    Disk(Completion),
    IngressSent(ConnId, usize),
    FanoutSent(ConnId, usize),
    Arbiter(ArbiterReply),
}

/// The death of a process in the middle of a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fuse {
    /// It dies before it carries out this one, counted down to 0.
    pub(crate) effects: u32,
    pub(crate) cuts_power: bool,
    /// Seed of what its death draws.
    pub(crate) seed: u64,
}

/// A write under way.
#[derive(Debug, Clone, Copy)]
struct Write {
    number: u64,
    position: Position,
    end: Position,
    /// Of its bytes when it was begun.
    checksum: u32,
    /// The machine heard of its end before it came.
    is_reported: bool,
}

/// How a process ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As asked; with the clean stop to be recorded where everything accepted is released.
    Stopped(Option<CleanStop>),
    /// Its disk failed.
    Fault,
    /// The node begins again from its disk.
    Restart {
        reason: RestartReason,
        carry: Carry,
        /// End of what was ever written.
        log_end: Position,
    },
    /// There is no way on without an operator.
    Halt(HaltReason),
}

/// See the module's description.
pub(crate) struct Process {
    node: usize,
    number: u32,
    settings: Settings,
    epoch: Epoch,
    method: WriteMethod,
    ingress: Ingress,
    machine: Machine,
    /// Of a group's node only once it leads.
    fanout: Option<Fanout>,
    group: Option<Group>,
    memory: Memory,
    /// What the fan-out has published: the sequencer may overwrite what lies below.
    floor: Position,
    /// What the fan-out was told is released.
    forwarded: Position,
    commands: VecDeque<(ToSequence, u32)>,
    /// Bytes of the first command that were taken.
    taken: usize,
    replies: VecDeque<ToIngress>,
    release: Option<ReleasePoint>,
    inbound: VecDeque<Inbound>,
    sockets: Vec<Option<Socket>>,
    free: Vec<u32>,
    ingress_sends: Vec<ConnId>,
    to_disk: VecDeque<DiskOrder>,
    /// When it takes a turn for a write that is not due yet.
    disk_turn_ns: u64,
    writes: VecDeque<Write>,
    is_syncing: bool,
    reads: Vec<Option<(Position, u32)>>,
    replay: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    /// Housekeeping's fold of the released log, for checkpoints.
    fold: Tables,
    checkpoint_at: Position,
    has_fold_failed: bool,
    ending: Ending,
    end: Option<Exit>,
    /// End of what was ever written, or lay on the disk before.
    written_end: Position,
    /// End of what it had appended or received when its machine last did something.
    received: Position,
    is_turn_due: bool,
    /// Effects of this turn so far.
    effects: u32,
    fuse: Option<Fuse>,
    nonces: u64,
    had_work_after: bool,
}

/// What a start leaves for its process.
pub(crate) struct Opening {
    pub(crate) node: usize,
    pub(crate) number: u32,
    pub(crate) tables: Tables,
    pub(crate) epoch: Epoch,
    pub(crate) was_clean: bool,
    /// Memory of the process before.
    pub(crate) memory: Vec<u8>,
    pub(crate) nonce_seed: u64,
    /// The newest superblock and the slot it lies in.
    pub(crate) superblock: (Superblock, usize),
    /// What an earlier process of a group's node left, where only the log was rebuilt.
    pub(crate) carry: Option<Carry>,
    /// The highest epoch its disk promised when the process began.
    pub(crate) promised: Epoch,
}

/// What a group's machine needs besides its log.
struct Life {
    superblock: (Superblock, usize),
    carry: Option<Carry>,
    number: u32,
    promised: Epoch,
}

/// The machines of a process.
struct Machines {
    machine: Machine,
    ingress: Ingress,
    fanout: Option<Fanout>,
    group: Option<Group>,
}

/// The machines of a node without a group; its epoch is being opened.
fn alone(
    settings: &Settings,
    tables: &Tables,
    epoch: Epoch,
    was_clean: bool,
    memory: &mut Memory,
    around: &Surroundings<'_>,
) -> Machines {
    let book = around.parameters.credentials();
    let beginning = Beginning {
        tables,
        epoch,
        was_clean,
        write_method: around.parameters.write_method,
        prepared: Position(around.disk.prepared()),
        now: around.now,
    };
    let tail = tables.position;
    let mut sequence = Sequence::new(settings.clone(), Arc::clone(&book), &beginning);
    let session = (tables.trading_session.is_none()).then_some((20_261_123, "2026-11-23"));
    let end = tail.plus(settings.ring_size);
    sequence.open_epoch(&beginning, session, &mut memory.window(tail, end));
    memory.mirror(tail, sequence.open_position());
    let ingress = Ingress::new(
        settings.clone(),
        Arc::clone(&book),
        epoch,
        20_261_123,
        tables.next_seq,
    );
    let fanout = Fanout::new(settings.clone(), Arc::clone(&book), tables, epoch);
    Machines {
        machine: Machine::alone(settings.clone(), book, sequence),
        ingress,
        fanout: Some(fanout),
        group: None,
    }
}

impl Process {
    /// The process that goes on from what recovery found.
    pub(crate) fn open(opening: Opening, around: &mut Surroundings<'_>) -> Self {
        let settings = around.parameters.settings_of(opening.node);
        let mut memory = Memory::new(settings.ring_size, opening.memory);
        let (nonce_seed, number) = (opening.nonce_seed, opening.number);
        let (node, epoch) = (opening.node, opening.epoch);
        let method = around.parameters.write_method;
        let tail = opening.tables.position;
        let fold = opening.tables.clone();
        let life = Life {
            superblock: opening.superblock,
            carry: opening.carry,
            number,
            promised: opening.promised,
        };
        let machines = if around.parameters.cast.nodes == 1 {
            let (epoch, was_clean) = (opening.epoch, opening.was_clean);
            alone(
                &settings,
                &opening.tables,
                epoch,
                was_clean,
                &mut memory,
                around,
            )
        } else {
            group::of_group(&settings, opening.tables, &life, around)
        };
        let slots = settings.replay_slots as usize;
        let places = 2 * (settings.connections_max + settings.subscribers_max);
        let mut process = Self {
            node,
            number,
            epoch,
            method,
            ingress: machines.ingress,
            machine: machines.machine,
            fanout: machines.fanout,
            group: machines.group,
            memory,
            floor: tail,
            forwarded: tail,
            commands: VecDeque::new(),
            taken: 0,
            replies: VecDeque::new(),
            release: None,
            inbound: VecDeque::new(),
            sockets: (0..places).map(|_| None).collect(),
            free: (0..places).rev().collect(),
            ingress_sends: Vec::new(),
            to_disk: VecDeque::new(),
            disk_turn_ns: 0,
            writes: VecDeque::new(),
            is_syncing: false,
            reads: vec![None; slots],
            replay: vec![vec![0; settings.replay_slot_size as usize]; slots],
            scratch: Vec::new(),
            checkpoint_at: tail,
            fold,
            has_fold_failed: false,
            ending: Ending::No,
            end: None,
            written_end: tail,
            received: tail,
            is_turn_due: false,
            effects: 0,
            fuse: None,
            nonces: nonce_seed,
            settings,
            had_work_after: false,
        };
        process.drain_machine(around);
        process
    }

    /// Its number among the node's processes.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Its memory, for the next process.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.memory.into_bytes()
    }

    /// It will die in the middle of a turn.
    pub(crate) const fn light(&mut self, fuse: Fuse) {
        self.fuse = Some(fuse);
    }

    /// It will not.
    pub(crate) const fn put_out(&mut self) {
        self.fuse = None;
    }

    /// How it died, if it did so in the middle of a turn.
    pub(crate) fn burnt(&self) -> Option<Fuse> {
        self.fuse.filter(|fuse| fuse.effects == 0)
    }

    /// Counts an effect: those of a turn come to an end.
    fn count_effect(&mut self) {
        self.effects += 1;
        assert!(
            self.effects <= EFFECTS_MAX,
            "the effects of node {}'s turn come to no end",
            self.node
        );
    }

    /// Counts an effect; false where the process is dead before it.
    fn burns_on(&mut self) -> bool {
        self.count_effect();
        let Some(fuse) = &mut self.fuse else {
            return true;
        };
        fuse.effects = fuse.effects.saturating_sub(1);
        fuse.effects > 0
    }

    fn is_burnt(&self) -> bool {
        self.burnt().is_some()
    }

    /// Somebody asks it to stop in order.
    pub(crate) fn ask_to_stop(&mut self, now: Now) {
        if self.ending == Ending::No {
            self.ending = Ending::Asked;
            self.machine.stop(now);
        }
    }

    /// Somebody connects.
    pub(crate) fn on_incoming(&mut self, end: EndId) {
        self.inbound.push_back(Inbound::Incoming(end));
    }

    /// The network has word about a connection of its.
    pub(crate) fn on_signal(&mut self, end: EndId, signal: Signal) {
        self.inbound.push_back(Inbound::Signal(end, signal));
    }

    /// An operation of its on the disk ended.
    pub(crate) fn on_disk(&mut self, completion: Completion) {
        self.inbound.push_back(Inbound::Disk(completion));
    }

    /// Whether a turn must still be asked for; asks for it.
    pub(crate) fn wants_turn(&mut self) -> bool {
        !std::mem::replace(&mut self.is_turn_due, true)
    }

    /// Does what there is to do; says how it ended, if it did.
    pub(crate) fn turn(&mut self, around: &mut Surroundings<'_>) -> Option<Exit> {
        self.is_turn_due = false;
        self.effects = 0;
        self.had_work_after = true;
        for _ in 0..ROUNDS_MAX {
            let mut work = self.reap(around);
            work += self.turn_machine(around);
            work += self.turn_fanout(around);
            work += self.turn_ingress(around);
            if self.is_burnt() {
                return None;
            }
            self.attend_to_ending(around);
            self.check(around);
            if work == 0 {
                self.had_work_after = false;
                break;
            }
        }
        self.exit(around.now.mono_ns)
    }

    /// Whether the last turn left something to do.
    pub(crate) const fn has_work_left(&self) -> bool {
        self.had_work_after
    }

    fn reap(&mut self, around: &mut Surroundings<'_>) -> usize {
        let count = self.inbound.len();
        for _ in 0..count {
            let inbound = self.inbound.pop_front().expect("counted just now");
            match inbound {
                Inbound::Incoming(end) => self.accept(end, around),
                Inbound::Signal(end, signal) => self.on_socket(end, signal, around),
                Inbound::Disk(completion) => self.on_completion(completion, around),
                Inbound::IngressSent(conn, length) => self.on_ingress_sent(conn, length, around),
                Inbound::FanoutSent(conn, length) => {
                    if let Some(fanout) = &mut self.fanout {
                        fanout.on_sent(conn, length, around.now.mono_ns);
                    }
                }
                Inbound::Arbiter(reply) => self.machine.on_arbiter(&reply, around.now),
            }
            if self.is_burnt() {
                break;
            }
        }
        count
    }

    fn on_completion(&mut self, completion: Completion, around: &mut Surroundings<'_>) {
        let Completion { what, tag, is_ok } = completion;
        match what {
            What::Write(Zone::Log) => {
                let at = self.writes.iter().position(|write| write.number == tag);
                let write = self.writes.remove(at.expect("a write ends that was begun"));
                let write = write.expect("found just now");
                self.check_untouched(&write);
                let is_ok = is_ok || around.canary == Some(Canary::WriteErrorRetried);
                around.note(Note::Written {
                    node: self.node,
                    block: tag,
                });
                if !is_ok {
                    self.fail(around);
                } else if !write.is_reported {
                    self.machine.on_written(tag);
                }
            }
            What::Sync(Zone::Log) => {
                self.is_syncing = false;
                around.note(Note::Synced { node: self.node });
                if is_ok || around.canary == Some(Canary::SyncErrorRetried) {
                    self.machine.on_synced();
                } else {
                    self.fail(around);
                }
            }
            What::Read if tag >= group::READS => self.on_peer_read(tag, is_ok, around),
            What::Read => self.on_read(tag as u32, is_ok, around),
            What::Write(Zone::Superblock) | What::Sync(Zone::Superblock) => {
                self.on_vote_step(what, is_ok, around);
            }
        }
    }

    /// The memory under a write stayed as it was: the disk may look at it until the write has ended.
    fn check_untouched(&self, write: &Write) {
        let bytes = self.memory.slice(write.position, write.end);
        assert_eq!(
            crc32c(bytes),
            write.checksum,
            "block {} was changed while it was being written",
            write.number
        );
    }

    fn fail(&mut self, around: &mut Surroundings<'_>) {
        if self.end != Some(Exit::Fault) {
            around.note(Note::StorageFault { node: self.node });
            self.machine.on_storage_fault();
            // Whatever was decided before, a disk that failed is not gone on with.
            if !matches!(self.end, Some(Exit::Halt(_))) {
                self.end = Some(Exit::Fault);
            }
        }
    }

    /// A group's node whose machine has come to its end does nothing more.
    const fn is_over(&self) -> bool {
        self.machine.is_over()
    }

    fn turn_machine(&mut self, around: &mut Surroundings<'_>) -> usize {
        if self.is_over() {
            self.let_commands_go();
            return self.drain_machine(around);
        }
        self.machine.on_prepared(Position(around.disk.prepared()));
        let start = self.machine.open_position();
        let forgotten = self.forgettable(around.canary);
        let end = window_end(start, forgotten, self.settings.ring_size);
        let mut work = self.hear_peers(start, end, around);
        let mut is_stalled = false;
        let mut window = self.memory.window(start, end);
        while let Some(&(command, place)) = self.commands.front() {
            let named = named(command);
            let bytes = named.map_or(&[][..], |(_, offset, length)| {
                let socket = self.sockets[place as usize].as_ref();
                let buffer = &socket.expect("a command holds its socket's place").buffer;
                &buffer[offset as usize + self.taken..(offset + length) as usize]
            });
            let progress = self
                .machine
                .on_command(command, bytes, around.now, &mut window);
            assert!(
                progress.taken <= bytes.len(),
                "no more is taken than there is"
            );
            if !progress.is_done {
                self.taken += progress.taken;
                is_stalled = true;
                break;
            }
            self.taken = 0;
            self.commands.pop_front();
            work += 1;
            if let Some((conn, offset, length)) = named {
                let through = offset + length;
                self.replies.push_back(ToIngress::Taken { conn, through });
            }
        }
        let heard = self.machine.open_position();
        self.machine.turn(around.now, &mut window);
        self.machine.note_held(is_stalled, around.now, &window);
        let span = u64::from(self.settings.block_span_max());
        let appended = self.machine.open_position().max(heard);
        let written = appended.plus(span).min(end);
        // Records come by commands and blocks of peers; all else that is written moves the open position.
        let is_written = work > 0 || is_stalled || self.machine.open_position() != start;
        if is_written && written > start {
            self.memory.mirror(start, written);
        }
        if self.group.is_some() {
            let from = self.machine.ring_start().max(forgotten);
            let to = self.machine.open_position();
            if from <= to {
                self.machine.pump(around.now, &self.memory.view(from, to));
            }
        }
        work + self.drain_machine(around)
    }

    /// Nobody takes what waits any more; its bytes may go.
    fn let_commands_go(&mut self) {
        while let Some((command, _)) = self.commands.pop_front() {
            if let Some((conn, offset, length)) = named(command) {
                let through = offset + length;
                self.replies.push_back(ToIngress::Taken { conn, through });
            }
        }
    }

    fn drain_machine(&mut self, around: &mut Surroundings<'_>) -> usize {
        let mut work = 0;
        while let Some(effect) = self.machine.poll_effect() {
            if !self.burns_on() {
                return work;
            }
            work += 1;
            match effect {
                NodeEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    let end = position.plus(length.into());
                    self.written_end = self.written_end.max(end);
                    self.to_disk.push_back(DiskOrder::Write {
                        number,
                        position,
                        length,
                    });
                }
                NodeEffect::Sync => self.to_disk.push_back(DiskOrder::Sync),
                NodeEffect::Reply(reply) => {
                    self.replies.push_back(bent::reply(reply, around.canary));
                }
                NodeEffect::Released(point) => self.on_released(point, around),
                NodeEffect::Stopped(stop) => {
                    if let (Some(stop), Some(sequence)) = (stop, self.machine.sequence()) {
                        let released = sequence.released();
                        assert_eq!(stop.tail, released.position, "all is released by then");
                        assert_eq!(stop.next_seq, released.next_seq, "all is released by then");
                    }
                    self.end.get_or_insert(Exit::Stopped(stop));
                }
                other => self.carry_out(other, around),
            }
        }
        self.submit(around);
        work
    }

    fn on_released(&mut self, point: ReleasePoint, around: &mut Surroundings<'_>) {
        around.note(Note::Released {
            node: self.node,
            position: point.position.get(),
            next_seq: point.next_seq.get(),
        });
        let reign = Reign {
            node: self.node,
            process: self.number,
        };
        if self.group.is_some() {
            self.claim_release(reign, &point, around);
        } else {
            let epoch = self.epoch.get();
            let own = Holding::of_disk(around.disk);
            around.ledger.on_released(reign, epoch, &point, &own);
        }
        self.release = Some(point);
    }

    fn report_damage(&self, position: Position, around: &mut Surroundings<'_>) {
        *around.reported += 1;
        around.note(Note::Damaged {
            node: self.node,
            position: position.get(),
        });
    }

    /// What must hold after every turn.
    fn check(&mut self, around: &Surroundings<'_>) {
        assert!(
            self.commands.len() <= COMMANDS_MAX,
            "too many commands wait"
        );
        if self.is_over() {
            return;
        }
        let (released, durable, sealed) = self.positions();
        self.received = sealed;
        assert!(durable <= sealed, "durable passes sealed");
        assert!(
            sealed.get() <= around.disk.prepared(),
            "the log leaves the prepared space"
        );
        let is_memory_enough = self.settings.policy == Policy::Mirrored;
        assert!(
            released <= durable || is_memory_enough,
            "released passes durable"
        );
        let held = sealed.since(self.forgettable(around.canary));
        assert!(
            held <= self.settings.ring_size,
            "the ring holds more than it can"
        );
        if self.group.is_none() {
            assert!(self.forwarded <= released, "readers pass released");
        }
        assert!(
            self.floor <= self.forwarded,
            "the floor passes what is forwarded"
        );
    }

    /// Ends of what is released, durable and appended.
    fn positions(&self) -> (Position, Position, Position) {
        let status = self.machine.status();
        (
            status.released.point.position,
            status.durable.point.position,
            self.machine.open_position(),
        )
    }
}

/// The bytes a command names: whose, where they start, and how many.
const fn named(command: ToSequence) -> Option<(ConnId, u32, u32)> {
    match command {
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
        ToSequence::Logon(_) | ToSequence::Closed { .. } => None,
    }
}
