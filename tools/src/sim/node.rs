//! A node's place in the cluster: its disk and clocks, which outlive every process, and the process there is now.
//!
//! ```text
//!   down -> starting -> serving -> down ...
//!               |           |
//!               +-> halted  +-> down (killed, power cut, stopped, disk failed)
//! ```
//!
//! A start does what `relayd` does, in the same order, each step an operation of its own on the disk, so that a crash can
//! come between any two: read the superblock, take the newest checkpoint that the log leads up to, recover, zero what was
//! cut (from the far end), make the tail durable, write down the epoch that is promised, open it. A group's node writes
//! down first that it cut damage, promises nothing by itself, and ends its start with its machine as a follower. When that
//! machine begins again, the node starts again within its process, after cutting what the machine says.

mod bent;
mod repair;

use relay_core::group::{Carry, HaltReason, RestartReason};
use relay_core::startup;
use relay_journal::checkpoint;
use relay_journal::recovery::{Decision, Recovered, RecoveryError, Start, recover};
use relay_journal::superblock::{
    self, CleanStop, FORMAT_VERSION, GENERATION_LENGTH, Superblock, SuperblockError,
};
use relay_journal::tables::Tables;
use relay_journal::topics::Topics;
use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::membership::Member;

use self::bent::cut_short;
use self::repair::Repair;
use crate::canary::Canary;
use crate::clock::NodeClock;
use crate::cluster::Event;
use crate::disk::{Completion, Disk, LogReader, SECTOR, Ticket, Zone};
use crate::history::Note;
use crate::holding::Held;
use crate::ledger::Match;
use crate::process::{Exit, Fuse, Opening, Process, Surroundings};
use crate::random::{Random, mix};
use crate::swarm::{Parameters, STREAM};

/// Bytes zeroed by one write behind a cut.
const ZERO_STEP: u64 = 64 << 10;

/// Why a node will not start again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    Superblock(SuperblockError),
    Recovery(RecoveryError),
    /// Its machine says that an operator has to help.
    Group(HaltReason),
    /// Its disk showed it old bytes as if they were the newest. No node standing alone can know; the run ends here.
    OtherHistory,
}

impl core::fmt::Display for Halt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Superblock(error) => error.fmt(f),
            Self::Recovery(error) => error.fmt(f),
            Self::Group(reason) => reason.fmt(f),
            Self::OtherHistory => write!(f, "the disk showed another history than it holds"),
        }
    }
}

/// The next step of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The generation that was read is made durable before the other one is written over.
    SyncingGeneration,
    /// A group's node cut damage: the superblock says so before anything is overwritten.
    WritingMark,
    SyncingMark,
    /// Zeroes behind the cut, down from `end`.
    Zeroing {
        end: Position,
    },
    SyncingLog,
    WritingSuperblock,
    SyncingSuperblock,
}

/// A start under way.
struct Starting {
    recovered: Recovered,
    superblock: Superblock,
    slot: usize,
    epoch: Epoch,
    was_clean: bool,
    step: Step,
}

/// What a group's machine wants cut from the log before it begins again: zeroes down from `end`.
struct Cutting {
    position: Position,
    end: Position,
}

/// A stop in order whose superblock is being written.
struct Stopping {
    is_synced: bool,
}

enum Phase {
    Down,
    Cutting(Cutting),
    Repairing(Box<Repair>),
    Starting(Box<Starting>),
    Serving(Box<Process>),
    Stopping(Stopping),
    Halted(Halt),
}

/// See the module's description.
pub(crate) struct Node {
    index: usize,
    pub(crate) clock: NodeClock,
    phase: Phase,
    /// Processes there were.
    processes: u32,
    /// Its next start ends in the middle.
    start_fuse: Option<Fuse>,
    frozen_until_ns: u64,
    is_space_left: bool,
    random: Random,
    memory: Vec<u8>,
    superblock: Option<(Superblock, usize)>,
    /// What its machine left where it begins again within its process.
    carry: Option<Carry>,
    /// The highest epoch its disk promised when the process began.
    promised: Epoch,
    /// Nobody starts it before then.
    off_until_ns: u64,
    /// What earlier processes had received when they went, by their numbers as a set names them.
    fallen: Vec<(u64, Position)>,
    /// Topics of a log that was cut, where a rule is broken so.
    kept_topics: Option<Topics>,
}

/// The superblock that `relayd format` writes.
fn formatted(parameters: &Parameters, node: usize, incarnation: u64) -> Superblock {
    let settings = parameters.settings_of(node);
    Superblock {
        format_version: FORMAT_VERSION,
        node: NodeId(node as u64 + 1),
        stream: STREAM,
        disk_incarnation: incarnation,
        created_ns: 1,
        segment_size: settings.segment_size,
        block_alignment: settings.block_alignment,
        write_method: parameters.write_method,
        in_flight_bytes_max: settings.in_flight_bytes_max(),
        generation: 1,
        clean: None,
        promised: Epoch(0),
        committed: Epoch(0),
        committed_nonce: 0,
        unknown_tail: None,
        ring_length: settings.ring_size,
        learning_from: None,
    }
}

impl Node {
    /// A node that is down.
    pub(crate) fn new(index: usize, parameters: &Parameters) -> Self {
        let mut random = Random::of(parameters.seed, 100 + index as u64);
        let drift = random.within(0, 2 * parameters.drift_ppm) as i64 - parameters.drift_ppm as i64;
        let offset = random.below(2_000_000) as i64 - 1_000_000;
        Self {
            index,
            clock: NodeClock::new(drift, offset, random.below(1 << 40)),
            phase: Phase::Down,
            processes: 0,
            start_fuse: None,
            frozen_until_ns: 0,
            is_space_left: true,
            random,
            memory: Vec::new(),
            superblock: None,
            carry: None,
            promised: Epoch(0),
            off_until_ns: 0,
            fallen: Vec::new(),
            kept_topics: None,
        }
    }

    /// Its disk is blank, and made a journal anew.
    pub(crate) fn format(&mut self, disk: &mut Disk, parameters: &Parameters) {
        let incarnation = self.random.next();
        self.format_as(incarnation, disk, parameters);
    }

    /// The same, as the disk of that name.
    pub(crate) fn format_as(&self, incarnation: u64, disk: &mut Disk, parameters: &Parameters) {
        let first = formatted(parameters, self.index, incarnation);
        let second = Superblock {
            generation: 2,
            ..first
        };
        disk.format(incarnation, [first.encode(), second.encode()]);
        for _ in 0..parameters.prepared_ahead {
            disk.prepare(parameters.settings.segment_size);
        }
    }

    /// The process that serves, if one does.
    pub(crate) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.phase {
            Phase::Serving(process) => Some(process),
            _ => None,
        }
    }

    /// How it stands, for a person.
    pub(crate) fn describe(&mut self) -> String {
        match &mut self.phase {
            Phase::Down => "is down".to_owned(),
            Phase::Cutting(_) | Phase::Starting(_) => "starts".to_owned(),
            Phase::Repairing(repair) => repair.describe(),
            Phase::Stopping(_) => "stops".to_owned(),
            Phase::Halted(halt) => format!("halted: {halt}"),
            Phase::Serving(process) => {
                let machine = process.machine();
                let peers: Vec<_> = machine.peers().collect();
                format!("is {:?}, peers {peers:?}", machine.status())
            }
        }
    }

    /// The number of the newest process.
    pub(crate) const fn process_number(&self) -> u32 {
        self.processes
    }

    /// Whether it neither runs nor is on its way to.
    pub(crate) const fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down)
    }

    /// Whether a process of it is on its way to serve, or to its end.
    pub(crate) const fn is_under_way(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Down | Phase::Serving(_) | Phase::Halted(_)
        )
    }

    /// What the copy holds that a set names, of a node with this disk, where copies in memory count. `None`: it never was.
    pub(crate) fn held<'a>(&'a self, member: &Member, disk: &'a Disk) -> Option<Held<'a>> {
        if let Phase::Serving(process) = &self.phase
            && process.is_copy(member)
            && let Some(holding) = process.holding(disk)
        {
            return Some(Held::Now(holding));
        }
        let fallen = self.fallen.iter().rev();
        let mut fallen = fallen.filter(|(process, _)| *process == member.process);
        fallen.next().map(|(_, end)| Held::Once(*end))
    }

    /// Whether the process runs that a set names.
    pub(crate) fn runs_as(&self, member: &Member) -> bool {
        matches!(&self.phase, Phase::Serving(process) if process.is_copy(member))
    }

    /// Why it halted, if it did.
    pub(crate) const fn halt(&self) -> Option<&Halt> {
        match &self.phase {
            Phase::Halted(halt) => Some(halt),
            _ => None,
        }
    }

    /// Space can be prepared, or can't.
    pub(crate) const fn set_space_left(&mut self, is_space_left: bool) {
        self.is_space_left = is_space_left;
    }

    /// Whether space can be prepared.
    pub(crate) const fn is_space_left(&self) -> bool {
        self.is_space_left
    }

    /// Nothing of it runs before then.
    pub(crate) fn freeze(&mut self, until_ns: u64) {
        self.frozen_until_ns = self.frozen_until_ns.max(until_ns);
    }

    /// Until when it is frozen.
    pub(crate) const fn frozen_until_ns(&self) -> u64 {
        self.frozen_until_ns
    }

    /// It runs again.
    pub(crate) const fn thaw(&mut self) {
        self.frozen_until_ns = 0;
    }

    /// Nobody starts it before then.
    pub(crate) fn stay_off(&mut self, until_ns: u64) {
        self.off_until_ns = self.off_until_ns.max(until_ns);
    }

    /// Until when nobody starts it.
    pub(crate) const fn off_until_ns(&self) -> u64 {
        self.off_until_ns
    }

    /// Its next start will end in the middle, once so many steps were begun.
    pub(crate) const fn light_start(&mut self, fuse: Fuse) {
        self.start_fuse = Some(fuse);
    }

    /// How a start ended in the middle, if one just did.
    pub(crate) fn take_burnt_start(&mut self) -> Option<Fuse> {
        self.start_fuse.take_if(|fuse| fuse.effects == 0)
    }

    /// The process is gone, whatever it was doing; its disk operations and memory with it.
    pub(crate) fn die(
        &mut self,
        cuts_power: bool,
        random: &mut Random,
        around: &mut Surroundings<'_>,
    ) {
        if cuts_power {
            around.disk.cut_power(random, around.queue.now_ns());
        } else {
            around.disk.kill(random);
        }
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Serving(process) => self.bury(*process),
            Phase::Halted(halt) => self.phase = Phase::Halted(halt),
            Phase::Down
            | Phase::Cutting(_)
            | Phase::Repairing(_)
            | Phase::Starting(_)
            | Phase::Stopping(_) => {}
        }
        self.carry = None;
        self.processes += 1;
        self.thaw();
    }

    /// What is left of a process: its memory, and how far it had come.
    fn bury(&mut self, process: Process) {
        self.fallen.extend(process.last_received());
        self.memory = process.into_memory();
    }

    /// Somebody starts it; does nothing where it is up already.
    pub(crate) fn start(&mut self, around: &mut Surroundings<'_>) {
        if !self.is_down() {
            return;
        }
        self.processes += 1;
        around.note(Note::Starting { node: self.index });
        self.begin(around);
    }

    /// From the disk to the machines, in a process that is there.
    fn begin(&mut self, around: &mut Surroundings<'_>) {
        self.phase = Phase::Down;
        match self.recover(around) {
            Ok(starting) => {
                let cut = starting.recovered.cut;
                around.note(Note::Recovered {
                    node: self.index,
                    tail: starting.recovered.tail.get(),
                    next_seq: starting.recovered.tables.next_seq.get(),
                    cut: cut.map(|cut| cut.leftovers),
                });
                self.phase = Phase::Starting(Box::new(starting));
                self.go_on(around);
            }
            Err(Halt::Recovery(RecoveryError::Source(_) | RecoveryError::Unsteady { .. })) => {
                // The disk could not be read, or read one thing and then another: whoever looks after it tries again.
                self.carry = None;
                let delay = self.random.tailed(around.parameters.restart_ns);
                self.ask_for_start(delay, around);
            }
            Err(Halt::Recovery(RecoveryError::Rotten(finding)))
                if around.parameters.cast.nodes > 1 =>
            {
                self.begin_repair(finding, around);
            }
            Err(halt) => {
                around.note(Note::Halted { node: self.index });
                self.phase = Phase::Halted(halt);
            }
        }
    }

    fn ask_for_start(&self, delay_ns: u64, around: &mut Surroundings<'_>) {
        let event = Event::Start {
            node: self.index,
            process: self.processes,
        };
        around.queue.after(delay_ns, event);
    }

    fn recover(&mut self, around: &mut Surroundings<'_>) -> Result<Starting, Halt> {
        let [a, b] = around.disk.superblocks();
        let (superblock, slot) = superblock::newest(&a, &b).map_err(Halt::Superblock)?;
        superblock
            .check_identity(NodeId(self.index as u64 + 1), STREAM)
            .map_err(Halt::Superblock)?;
        if self.carry.is_none() {
            self.promised = superblock.promised;
        }
        let checkpoints: Vec<Tables> = around
            .disk
            .checkpoints()
            .filter_map(|bytes| checkpoint::decode(bytes).ok())
            .collect();
        let end = around.disk.prepared();
        let disk = &mut *around.disk;
        let reader = &mut LogReader { disk, end };
        let mut recovered = Start::choose(reader, &superblock, checkpoints)
            .and_then(|start| recover(reader, &superblock, start, &mut |_| {}))
            .map_err(Halt::Recovery)?;
        let end = match around.canary {
            Some(Canary::CutTooFar) => recovered.tail.get().saturating_sub(SECTOR as u64),
            Some(Canary::CutAtOwnWatermark) => recovered.tables.released.get(),
            _ => u64::MAX,
        };
        if end < recovered.tail.get() {
            recovered = cut_short(&recovered, end, &superblock, around.disk)?;
        }
        let was_clean = startup::was_clean(&recovered.tables, &superblock);
        let mut epoch = startup::next_epoch(&recovered.tables, &superblock);
        if around.canary == Some(Canary::OldEpochGoesOn) && epoch > Epoch(1) {
            epoch = Epoch(epoch.get() - 1);
        }
        let is_group = around.parameters.cast.nodes > 1;
        let step = if around.canary == Some(Canary::UnsyncedSuperblockTrusted) {
            after_generation(&recovered, is_group)
        } else {
            Step::SyncingGeneration
        };
        Ok(Starting {
            superblock,
            slot,
            epoch,
            was_clean,
            step,
            recovered,
        })
    }

    /// Begins the next step of a start.
    fn go_on(&mut self, around: &mut Surroundings<'_>) {
        let Phase::Starting(starting) = &mut self.phase else {
            return;
        };
        if let Some(fuse) = &mut self.start_fuse {
            fuse.effects = fuse.effects.saturating_sub(1);
        }
        let now_ns = around.queue.now_ns();
        let ticket = match starting.step {
            Step::Zeroing { end } => {
                let from = starting.recovered.tail;
                if end <= from {
                    starting.step = after_zeroing(around);
                    return self.go_on(around);
                }
                let length = end.since(from).min(ZERO_STEP);
                let end = Position(end.get() - length);
                starting.step = Step::Zeroing { end };
                let zeroes = vec![0; length as usize];
                around
                    .disk
                    .begin_write(Zone::Log, end.get(), &zeroes, true, 0, now_ns)
            }
            Step::SyncingLog => around.disk.begin_sync(Zone::Log, 0, now_ns),
            Step::SyncingGeneration | Step::SyncingMark | Step::SyncingSuperblock => {
                around.disk.begin_sync(Zone::Superblock, 0, now_ns)
            }
            Step::WritingMark | Step::WritingSuperblock => {
                let mut next = starting.superblock;
                next.generation += 1;
                if around.canary == Some(Canary::TornCountsAsAbsent) {
                    next.clean = None;
                } else if starting.step == Step::WritingMark {
                    next.unknown_tail.get_or_insert(starting.recovered.tail);
                } else {
                    next.clean = None;
                    if around.parameters.cast.nodes == 1 {
                        next.promised = starting.epoch;
                    }
                }
                starting.superblock = next;
                starting.slot = 1 - starting.slot;
                write_superblock(around, starting.slot, &next)
            }
        };
        self.await_disk(ticket, around);
    }

    fn await_disk(&self, ticket: Ticket, around: &mut Surroundings<'_>) {
        let event = Event::Disk {
            node: self.index,
            op: ticket.op,
        };
        around.queue.at(ticket.at_ns, event);
    }

    /// An operation of the start, the stop or the process ended. True when the process has a turn to take.
    pub(crate) fn on_disk(
        &mut self,
        completion: Completion,
        around: &mut Surroundings<'_>,
    ) -> bool {
        match &mut self.phase {
            Phase::Serving(process) => {
                process.on_disk(completion);
                true
            }
            Phase::Repairing(_) => {
                self.on_repair_step(completion, around);
                false
            }
            Phase::Cutting(_) => {
                self.on_cut(completion, around);
                false
            }
            Phase::Starting(_) => {
                self.on_start_step(completion, around);
                false
            }
            Phase::Stopping(stopping) => {
                if stopping.is_synced || !completion.is_ok {
                    self.phase = Phase::Down;
                    self.restart_later(around);
                } else {
                    stopping.is_synced = true;
                    let now_ns = around.queue.now_ns();
                    let ticket = around.disk.begin_sync(Zone::Superblock, 0, now_ns);
                    self.await_disk(ticket, around);
                }
                false
            }
            Phase::Down | Phase::Halted(_) => false,
        }
    }

    fn on_start_step(&mut self, completion: Completion, around: &mut Surroundings<'_>) {
        let Phase::Starting(starting) = &mut self.phase else {
            unreachable!("only a start has steps");
        };
        if !completion.is_ok {
            // The start fails and says why; somebody tries again.
            self.give_up(around);
            return;
        }
        let is_group = around.parameters.cast.nodes > 1;
        starting.step = match starting.step {
            Step::SyncingGeneration => after_generation(&starting.recovered, is_group),
            Step::WritingMark => Step::SyncingMark,
            Step::SyncingMark => zeroing(&starting.recovered),
            step @ Step::Zeroing { .. } => step,
            Step::SyncingLog => Step::WritingSuperblock,
            Step::WritingSuperblock => Step::SyncingSuperblock,
            Step::SyncingSuperblock => return self.serve(around),
        };
        self.go_on(around);
    }

    /// A start failed because of the disk.
    fn give_up(&mut self, around: &mut Surroundings<'_>) {
        around.note(Note::StorageFault { node: self.index });
        self.phase = Phase::Down;
        self.carry = None;
        self.restart_later(around);
    }

    /// Its machine begins again: what is to be cut is set aside first, then zeroed from the far end.
    fn begin_again(&mut self, cut: Option<Cutting>, around: &mut Surroundings<'_>) {
        if let Some(cut) = &cut {
            around.disk.drop_checkpoints_after(cut.position);
        }
        match cut.filter(|cut| cut.end > cut.position) {
            Some(cut) => {
                around.disk.set_aside(cut.position, cut.end);
                self.phase = Phase::Cutting(cut);
                self.go_on_cutting(around);
            }
            None => self.begin(around),
        }
    }

    fn go_on_cutting(&mut self, around: &mut Surroundings<'_>) {
        let Phase::Cutting(cut) = &mut self.phase else {
            return;
        };
        if cut.end <= cut.position {
            self.begin(around);
            return;
        }
        let length = cut.end.since(cut.position).min(ZERO_STEP);
        cut.end = Position(cut.end.get() - length);
        let (at, zeroes) = (cut.end.get(), vec![0; length as usize]);
        let now_ns = around.queue.now_ns();
        let ticket = around
            .disk
            .begin_write(Zone::Log, at, &zeroes, true, 0, now_ns);
        self.await_disk(ticket, around);
    }

    fn on_cut(&mut self, completion: Completion, around: &mut Surroundings<'_>) {
        if completion.is_ok {
            self.go_on_cutting(around);
        } else {
            self.give_up(around);
        }
    }

    /// Somebody starts it again after a while.
    pub(crate) fn restart_later(&mut self, around: &mut Surroundings<'_>) {
        let delay = self.random.tailed(around.parameters.restart_ns);
        let off = self.off_until_ns.saturating_sub(around.queue.now_ns());
        self.ask_for_start(delay.max(off), around);
    }

    fn serve(&mut self, around: &mut Surroundings<'_>) {
        let Phase::Starting(starting) = std::mem::replace(&mut self.phase, Phase::Down) else {
            unreachable!("only a start ends in serving");
        };
        let mut tables = starting.recovered.tables;
        let may_lose = around.parameters.may_lose();
        let found = if around.parameters.cast.nodes > 1 {
            // What is released, and whether this log is a part of it, its machine finds out.
            Match::Whole
        } else {
            let (ledger, disk) = (&mut *around.ledger, &*around.disk);
            ledger.on_recovered(self.index, &tables, disk, may_lose)
        };
        match found {
            Match::Whole => {}
            // What is still under way to clients is of the history that is lost; it would only blur what follows.
            Match::Shorter => around.network.break_everything(around.queue),
            Match::Other => {
                self.phase = Phase::Halted(Halt::OtherHistory);
                return;
            }
        }
        if around.canary == Some(Canary::DuplicatesForgotten) {
            for publisher in tables.publishers.values_mut() {
                publisher.last.0 = publisher.last.0.saturating_sub(3);
            }
        }
        if let Some(topics) = self.kept_topics.take() {
            tables.topics = topics;
        }
        around.note(Note::Serving {
            node: self.index,
            epoch: starting.epoch.get(),
        });
        self.superblock = Some((starting.superblock, starting.slot));
        let opening = Opening {
            node: self.index,
            number: self.processes,
            tables,
            epoch: starting.epoch,
            was_clean: starting.was_clean,
            memory: std::mem::take(&mut self.memory),
            nonce_seed: mix(around.parameters.seed ^ u64::from(self.processes)),
            superblock: (starting.superblock, starting.slot),
            carry: self.carry.take(),
            promised: self.promised,
        };
        let process = Process::open(opening, around);
        self.phase = Phase::Serving(Box::new(process));
        let process = self.processes;
        let (node, now_ns) = (self.index, around.queue.now_ns());
        around.queue.at(now_ns, Event::Turn { node, process });
        around.queue.at(now_ns, Event::Tick { node, process });
        let housekeeping = Event::Housekeeping { node, process };
        around.queue.after(Process::HOUSEKEEPING_NS, housekeeping);
    }

    /// The process has come to its end by itself.
    pub(crate) fn on_exit(&mut self, exit: Exit, around: &mut Surroundings<'_>) {
        let Phase::Serving(process) = std::mem::replace(&mut self.phase, Phase::Down) else {
            unreachable!("only a process ends");
        };
        self.superblock = process.superblock().or(self.superblock);
        self.bury(*process);
        self.processes += 1;
        // A read for a subscriber may still be under way, and after a fault anything.
        let mut random = Random::of(self.random.next(), 0);
        around.disk.kill(&mut random);
        match exit {
            Exit::Stopped(Some(stop)) => self.record_stop(stop, around),
            Exit::Stopped(None) | Exit::Fault => self.restart_later(around),
            Exit::Restart {
                reason,
                carry,
                log_end,
            } => {
                self.carry = Some(carry);
                if around.canary == Some(Canary::TopicsKeptAcrossCut) {
                    let before = Self::fold_from_start(around.disk).ok();
                    self.kept_topics = before.map(|recovered| recovered.tables.topics);
                }
                let forgets = around.canary == Some(Canary::CutForgotten);
                let cut = match reason {
                    RestartReason::Cut(position) if !forgets => Some(Cutting {
                        position,
                        end: log_end,
                    }),
                    RestartReason::Cut(_)
                    | RestartReason::Superseded(_)
                    | RestartReason::Rejoin => None,
                };
                self.begin_again(cut, around);
            }
            Exit::Halt(reason) => {
                around.note(Note::Halted { node: self.index });
                self.phase = Phase::Halted(Halt::Group(reason));
            }
        }
    }

    fn record_stop(&mut self, stop: CleanStop, around: &mut Surroundings<'_>) {
        around.note(Note::Stopped {
            node: self.index,
            tail: stop.tail.get(),
        });
        let (superblock, slot) = self.superblock.expect("it was written at the start");
        let next = Superblock {
            generation: superblock.generation + 1,
            clean: Some(stop),
            ..superblock
        };
        let ticket = write_superblock(around, 1 - slot, &next);
        self.await_disk(ticket, around);
        self.phase = Phase::Stopping(Stopping { is_synced: false });
    }

    /// What a restart would find now: the fold of the whole log, read without a checkpoint.
    pub(crate) fn fold_from_start(disk: &mut Disk) -> Result<Recovered, Halt> {
        let [a, b] = disk.superblocks();
        let (superblock, _) = superblock::newest(&a, &b).map_err(Halt::Superblock)?;
        let end = disk.prepared();
        let tables = Tables::empty(STREAM);
        recover(
            &mut LogReader { disk, end },
            &superblock,
            tables,
            &mut |_| {},
        )
        .map_err(Halt::Recovery)
    }
}

/// Where the log was cut, what lies behind is zeroed.
fn after_generation(recovered: &Recovered, is_group: bool) -> Step {
    if is_group && recovered.decision == Decision::CutTorn {
        Step::WritingMark
    } else {
        zeroing(recovered)
    }
}

fn zeroing(recovered: &Recovered) -> Step {
    Step::Zeroing {
        end: recovered
            .cut
            .map_or(recovered.tail, |cut| cut.position.plus(cut.leftovers)),
    }
}

/// What is on the disk may be there only until power is lost: before it counts it is made durable.
fn after_zeroing(around: &Surroundings<'_>) -> Step {
    if around.canary == Some(Canary::UnsyncedTailTrusted) {
        Step::WritingSuperblock
    } else {
        Step::SyncingLog
    }
}

fn write_superblock(around: &mut Surroundings<'_>, slot: usize, next: &Superblock) -> Ticket {
    let at = (slot * GENERATION_LENGTH) as u64;
    let now_ns = around.queue.now_ns();
    let bytes = next.encode();
    around
        .disk
        .begin_write(Zone::Superblock, at, &bytes, false, 0, now_ns)
}
