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
//! Here a group's machine takes the place of [`Sequence`]: it hears the same completions, and its further effects join
//! [`Process::drain_sequence`].

mod fanout;
mod sockets;

use std::collections::VecDeque;
use std::sync::Arc;

use relay_core::command::{ConnId, Now, ReleasePoint, ToIngress, ToSequence};
use relay_core::fanout::Fanout;
use relay_core::ingress::Ingress;
use relay_core::sequence::{Beginning, Sequence, SequenceEffect};
use relay_core::settings::Settings;
use relay_journal::superblock::{CleanStop, WriteMethod};
use relay_journal::tables::Tables;
use relay_wire::checksum::crc32c;
use relay_wire::code::TerminateCode;
use relay_wire::id::{Epoch, Position};

use self::sockets::Socket;
use crate::canary::Canary;
use crate::clock::{MILLISECOND, Queue, SECOND};
use crate::cluster::Event;
use crate::disk::{Completion, Disk, Ticket, What, Zone};
use crate::history::{History, Note};
use crate::ledger::{Ledger, Reign};
use crate::memory::Memory;
use crate::network::{EndId, Network, Signal};
use crate::swarm::Parameters;

/// Commands that may wait in the link to the sequencer, as in the appliance.
const COMMANDS_MAX: usize = 1 << 14;
/// Rounds of one turn; the rest is left to the next.
const ROUNDS_MAX: usize = 16;
/// A stopping process waits so long for subscribers, and so long for farewells.
const CATCH_UP_NS: u64 = 2 * SECOND;

/// What lies around a process.
pub(crate) struct Surroundings<'a> {
    pub(crate) parameters: &'a Parameters,
    pub(crate) queue: &'a mut Queue<Event>,
    pub(crate) network: &'a mut Network,
    pub(crate) history: &'a mut History,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) disk: &'a mut Disk,
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

/// What the kernel has completed.
#[derive(Debug, Clone, Copy)]
enum Inbound {
    Incoming(EndId),
    Signal(EndId, Signal),
    Disk(Completion),
    IngressSent(ConnId, usize),
    FanoutSent(ConnId, usize),
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
}

/// Where the process is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Asked,
    /// Everything is released, or nothing more will be.
    Over {
        since_ns: u64,
        is_farewell_said: bool,
    },
}

/// How a process ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything accepted is released.
    Clean(CleanStop),
    /// Its disk failed.
    Fault,
}

/// See the module's description.
pub(crate) struct Process {
    node: usize,
    number: u32,
    settings: Settings,
    epoch: Epoch,
    method: WriteMethod,
    ingress: Ingress,
    sequence: Sequence,
    fanout: Fanout,
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
    has_failed: bool,
    stopped: Option<CleanStop>,
    is_turn_due: bool,
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
}

impl Process {
    /// The process that goes on from what recovery found; its epoch is being opened.
    pub(crate) fn open(opening: Opening, around: &mut Surroundings<'_>) -> Self {
        let settings = around.parameters.settings_of(opening.node);
        let book = around.parameters.credentials();
        let tables = opening.tables;
        let method = around.parameters.write_method;
        let beginning = Beginning {
            tables: &tables,
            epoch: opening.epoch,
            was_clean: opening.was_clean,
            write_method: method,
            prepared: Position(around.disk.prepared()),
            now: around.now,
        };
        let tail = tables.position;
        let mut memory = Memory::new(settings.ring_size, opening.memory);
        let mut sequence = Sequence::new(settings.clone(), Arc::clone(&book), &beginning);
        let session = (tables.trading_session.is_none()).then_some((20_261_123, "2026-11-23"));
        let end = tail.plus(settings.ring_size);
        sequence.open_epoch(&beginning, session, &mut memory.window(tail, end));
        memory.mirror(tail, sequence.open_position());
        let epoch = opening.epoch;
        let ingress = Ingress::new(
            settings.clone(),
            Arc::clone(&book),
            epoch,
            20_261_123,
            tables.next_seq,
        );
        let fanout = Fanout::new(settings.clone(), book, &tables, epoch);
        let slots = settings.replay_slots as usize;
        let places = 2 * (settings.connections_max + settings.subscribers_max);
        let mut process = Self {
            node: opening.node,
            number: opening.number,
            epoch,
            method,
            ingress,
            sequence,
            fanout,
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
            writes: VecDeque::new(),
            is_syncing: false,
            reads: vec![None; slots],
            replay: vec![vec![0; settings.replay_slot_size as usize]; slots],
            scratch: Vec::new(),
            checkpoint_at: tail,
            fold: tables,
            has_fold_failed: false,
            ending: Ending::No,
            has_failed: false,
            stopped: None,
            is_turn_due: false,
            fuse: None,
            nonces: opening.nonce_seed,
            settings,
            had_work_after: false,
        };
        process.drain_sequence(around);
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

    /// How it died, if it did so in the middle of a turn.
    pub(crate) fn burnt(&self) -> Option<Fuse> {
        self.fuse.filter(|fuse| fuse.effects == 0)
    }

    /// Counts an effect; false where the process is dead before it.
    fn burns_on(&mut self) -> bool {
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
    pub(crate) fn ask_to_stop(&mut self) {
        if self.ending == Ending::No {
            self.ending = Ending::Asked;
            self.sequence.stop();
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
        self.had_work_after = true;
        for _ in 0..ROUNDS_MAX {
            let mut work = self.reap(around);
            work += self.turn_sequence(around);
            work += self.turn_fanout(around);
            work += self.turn_ingress(around);
            if self.is_burnt() {
                return None;
            }
            self.attend_to_ending(around);
            self.check(around.disk);
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
                    self.fanout.on_sent(conn, length, around.now.mono_ns);
                }
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
                self.check_untouched(&write.expect("found just now"));
                let is_ok = is_ok || around.canary == Some(Canary::WriteErrorRetried);
                around.note(Note::Written {
                    node: self.node,
                    block: tag,
                });
                if !is_ok {
                    self.fail(around);
                } else if around.canary != Some(Canary::ReleaseBeforeDurable) {
                    self.sequence.on_written(tag);
                }
            }
            What::Sync(Zone::Log) => {
                self.is_syncing = false;
                around.note(Note::Synced { node: self.node });
                if is_ok || around.canary == Some(Canary::SyncErrorRetried) {
                    self.sequence.on_synced();
                } else {
                    self.fail(around);
                }
            }
            What::Read => self.on_read(tag as u32, is_ok, around),
            What::Write(Zone::Superblock) | What::Sync(Zone::Superblock) => {
                unreachable!("only starts and stops write the superblock")
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
        if !self.has_failed {
            self.has_failed = true;
            around.note(Note::StorageFault { node: self.node });
            self.sequence.on_storage_fault();
        }
    }

    fn turn_sequence(&mut self, around: &mut Surroundings<'_>) -> usize {
        self.sequence.on_prepared(Position(around.disk.prepared()));
        let start = self.sequence.open_position();
        let end = self.floor.plus(self.settings.ring_size);
        let mut work = 0;
        let mut is_stalled = false;
        let mut window = self.memory.window(start, end);
        while let Some(&(command, place)) = self.commands.front() {
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
                ToSequence::Logon { .. } | ToSequence::Closed { .. } => None,
            };
            let bytes = named.map_or(&[][..], |(_, offset, length)| {
                let socket = self.sockets[place as usize].as_ref();
                let buffer = &socket.expect("a command holds its socket's place").buffer;
                &buffer[offset as usize + self.taken..(offset + length) as usize]
            });
            let progress = self
                .sequence
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
        self.sequence.seal_if_due(around.now, &mut window);
        self.sequence.note_held(is_stalled, &window);
        let span = u64::from(self.settings.block_span_max());
        let written = self.sequence.open_position().plus(span).min(end);
        self.memory.mirror(start, written);
        work + self.drain_sequence(around)
    }

    fn drain_sequence(&mut self, around: &mut Surroundings<'_>) -> usize {
        let mut work = 0;
        while let Some(effect) = self.sequence.poll_effect() {
            if !self.burns_on() {
                return work;
            }
            work += 1;
            match effect {
                SequenceEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    self.write(number, position, length, around);
                }
                SequenceEffect::Sync => {
                    assert!(!self.is_syncing, "one sync at a time");
                    self.is_syncing = true;
                    around.note(Note::Sync { node: self.node });
                    let now_ns = around.queue.now_ns();
                    let ticket = around.disk.begin_sync(Zone::Log, 0, now_ns);
                    self.await_disk(ticket, around);
                }
                SequenceEffect::Reply(reply) => self.replies.push_back(self.bent(reply, around)),
                SequenceEffect::Released(point) => self.on_released(point, around),
                SequenceEffect::Stopped(stop) => {
                    let released = self.sequence.released();
                    assert_eq!(stop.tail, released.position, "all is released by then");
                    assert_eq!(stop.next_seq, released.next_seq, "all is released by then");
                    self.stopped = Some(stop);
                }
            }
        }
        work
    }

    fn bent(&self, reply: ToIngress, around: &Surroundings<'_>) -> ToIngress {
        match (reply, around.canary) {
            (
                ToIngress::Ack {
                    conn,
                    publisher_seq,
                    seq,
                },
                Some(Canary::AcknowledgedTooFar),
            ) => ToIngress::Ack {
                conn,
                publisher_seq: publisher_seq.next(),
                seq: seq.next(),
            },
            _ => reply,
        }
    }

    fn await_disk(&self, ticket: Ticket, around: &mut Surroundings<'_>) {
        let event = Event::Disk {
            node: self.node,
            op: ticket.op,
        };
        around.queue.at(ticket.at_ns, event);
    }

    fn write(
        &mut self,
        number: u64,
        position: Position,
        length: u32,
        around: &mut Surroundings<'_>,
    ) {
        let end = position.plus(length.into());
        assert!(
            end.get() <= around.disk.prepared(),
            "only prepared space is written"
        );
        let in_flight = end.since(self.sequence.durable().position);
        assert!(
            in_flight <= self.settings.in_flight_bytes_max(),
            "more is in flight than recovery reckons with"
        );
        assert!(
            self.writes.len() < self.settings.write_depth as usize,
            "more writes are in flight than allowed"
        );
        around.note(Note::Write {
            node: self.node,
            block: number,
            position: position.get(),
            length,
        });
        let is_durable = self.method == WriteMethod::Dsync;
        let bytes = self.memory.slice(position, end);
        self.writes.push_back(Write {
            number,
            position,
            end,
            checksum: crc32c(bytes),
        });
        let now_ns = around.queue.now_ns();
        let at = position.get();
        let ticket = around
            .disk
            .begin_write(Zone::Log, at, bytes, is_durable, number, now_ns);
        self.await_disk(ticket, around);
        if around.canary == Some(Canary::ReleaseBeforeDurable) {
            self.sequence.on_written(number);
        }
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
        around
            .ledger
            .on_released(reign, self.epoch.get(), &point, around.disk);
        self.release = Some(point);
    }

    fn attend_to_ending(&mut self, around: &mut Surroundings<'_>) {
        let now_ns = around.now.mono_ns;
        let is_over = self.has_failed || self.stopped.is_some();
        if is_over && !matches!(self.ending, Ending::Over { .. }) {
            self.ending = Ending::Over {
                since_ns: now_ns,
                is_farewell_said: false,
            };
        }
        let Ending::Over {
            since_ns,
            is_farewell_said,
        } = self.ending
        else {
            return;
        };
        let is_patient = !self.has_failed && now_ns < since_ns + CATCH_UP_NS;
        let is_waiting =
            self.release.is_some() || !self.fanout.is_caught_up() || !self.replies.is_empty();
        if is_farewell_said || (is_patient && is_waiting) {
            return;
        }
        let code = if self.has_failed {
            TerminateCode::StorageFault
        } else {
            TerminateCode::Stopping
        };
        self.ending = Ending::Over {
            since_ns,
            is_farewell_said: true,
        };
        self.ingress.stop(code, now_ns);
        self.fanout.stop(code, now_ns);
        self.drain_ingress(around);
    }

    fn exit(&self, now_ns: u64) -> Option<Exit> {
        let Ending::Over {
            since_ns,
            is_farewell_said: true,
        } = self.ending
        else {
            return None;
        };
        let is_empty = self.ingress.is_empty()
            && self.fanout.is_empty()
            && self.sockets.iter().all(Option::is_none);
        let is_late = now_ns > since_ns + 2 * CATCH_UP_NS;
        if !is_empty && !is_late {
            return None;
        }
        Some(match self.stopped {
            Some(stop) if !self.has_failed => Exit::Clean(stop),
            _ => Exit::Fault,
        })
    }

    fn report_damage(&self, position: Position, around: &mut Surroundings<'_>) {
        *around.reported += 1;
        around.note(Note::Damaged {
            node: self.node,
            position: position.get(),
        });
    }

    /// What must hold after every turn.
    fn check(&self, disk: &Disk) {
        let released = self.sequence.released().position;
        let durable = self.sequence.durable().position;
        let sealed = self.sequence.open_position();
        assert!(released <= durable, "released passes durable");
        assert!(durable <= sealed, "durable passes sealed");
        assert!(
            sealed.get() <= disk.prepared(),
            "the log leaves the prepared space"
        );
        assert!(
            self.floor <= self.forwarded,
            "the floor passes what is forwarded"
        );
        assert!(self.forwarded <= released, "readers pass released");
        let held = sealed.since(self.floor);
        assert!(
            held <= self.settings.ring_size,
            "the ring holds more than it can"
        );
        assert!(
            self.commands.len() <= COMMANDS_MAX,
            "too many commands wait"
        );
    }
}

/// Housekeeping: space and checkpoints.
impl Process {
    /// One step of the housekeeping thread.
    pub(crate) fn keep_house(&mut self, is_space_left: bool, around: &mut Surroundings<'_>) {
        let released = self.sequence.released().position.get();
        let segment = self.settings.segment_size;
        let wanted = released + around.parameters.prepared_ahead * segment;
        if is_space_left && around.disk.prepared() < wanted {
            around.disk.prepare(segment);
            let end = around.disk.prepared();
            around.note(Note::Prepared {
                node: self.node,
                end,
            });
        }
        let behind = released - self.checkpoint_at.get();
        if behind >= around.parameters.checkpoint_every && !self.has_fold_failed {
            self.fold_and_save(around);
        }
    }

    /// Time between two steps of housekeeping.
    pub(crate) const HOUSEKEEPING_NS: u64 = 20 * MILLISECOND;

    fn fold_and_save(&mut self, around: &mut Surroundings<'_>) {
        use relay_journal::block::{self, HEADER_LENGTH};
        let (start, end) = (self.fold.position, self.sequence.released().position);
        let mut bytes = vec![0; end.since(start) as usize];
        around.disk.read(Zone::Log, start.get(), &mut bytes);
        while self.fold.position < end {
            let rest = &bytes[self.fold.position.since(start) as usize..];
            let folded = block::decode_header(rest).ok().and_then(|header| {
                let body = rest.get(HEADER_LENGTH..header.body_end())?;
                block::verify_body(&header, body).ok()?;
                self.fold.apply_block(&header, body).ok()
            });
            if folded.is_none() {
                // The appliance says so and writes no more checkpoints; a restart reads more of the log then.
                self.has_fold_failed = true;
                self.report_damage(self.fold.position, around);
                return;
            }
        }
        self.checkpoint_at = end;
        let encoded = relay_journal::checkpoint::encode(&self.fold);
        around.disk.store_checkpoint(end, encoded);
        around.note(Note::Checkpoint {
            node: self.node,
            position: end.get(),
        });
    }
}
