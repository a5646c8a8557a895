//! Carries commands to the node, its writes to the disk, its words to ingress and egress.
//!
//! What the node wants of its peers' sockets is collected for the agent that has these; what it wants of the arbiter, the
//! superblock and the fan-out of a new reign goes through [`group`].

mod group;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use io_uring::{opcode, types};
use relay_core::command::{Now, ReleasePoint, Testimony, ToIngress, ToSequence};
use relay_core::log::{LogWindow, kept_from, window_end};
use relay_core::node::{Node, NodeEffect};
use relay_journal::superblock::WriteMethod;
use relay_wire::id::Position;

pub(crate) use self::group::{GroupEnds, GroupParts};

use crate::admin::{AdminLink, Answer, Word};
use crate::arena::{LogRing, Pages};
use crate::counters::{Counter, CounterFile, Hop};
use crate::fixed_files::{FileName, FixedFiles};
use crate::link::{Parking, PositionCell};
use crate::ring::{Completion, Op, Ring};
use crate::stage::{Command, End, ForPeers, Release, Replies, push_all};
use crate::storage::Segments;

/// This agent's number in an [`Op`].
pub(crate) const AGENT: u8 = 2;
const WRITE: u8 = 1;
const SYNC: u8 = 2;
const ENTER_FILE: u8 = 3;
/// Most pieces of the log whose way is timed at once; of more than these some are left out.
const TIMED_MAX: usize = 4096;

/// What the agent exports.
#[derive(Debug)]
struct Exported {
    last_seq: Counter,
    writes: Counter,
    writes_by_number: Counter,
    bytes: Counter,
    appended: Counter,
    durable: Counter,
    released: Counter,
    next_seq: Counter,
    topics: Counter,
    trading_session: Counter,
    held: Counter,
    stalls: Counter,
    in_flight: Counter,
    received_to_sequenced: Hop,
    sequenced_to_durable: Hop,
}

impl Exported {
    fn new(file: &mut CounterFile) -> Self {
        Self {
            last_seq: file.counter("sequence.last_seq"),
            writes: file.counter("sequence.writes"),
            writes_by_number: file.counter("sequence.writes_to_registered_files"),
            bytes: file.counter("sequence.bytes_written"),
            appended: file.counter("position.appended"),
            durable: file.counter("position.durable"),
            released: file.counter("position.released"),
            next_seq: file.counter("sequence.next_seq"),
            topics: file.counter("sequence.topics"),
            trading_session: file.counter("sequence.trading_session"),
            held: file.counter("sequence.held"),
            stalls: file.counter("sequence.stalls"),
            in_flight: file.counter("sequence.writes_in_flight"),
            received_to_sequenced: file.hop("received_to_sequenced"),
            sequenced_to_durable: file.hop("sequenced_to_durable"),
        }
    }
}

/// A write under way.
#[derive(Debug, Clone, Copy, Default)]
struct Write {
    number: u64,
    length: u32,
}

/// What the kernel is to do with the disk, in order: a sync covers the writes before it.
#[derive(Debug, Clone, Copy)]
enum DiskOrder {
    Write {
        number: u64,
        position: Position,
        length: u32,
    },
    Sync,
}

/// How long the log, piece by piece, takes to get from one point of its way to another.
#[derive(Debug)]
struct Timed {
    /// Where each turn's piece ends, and when it came to the first point.
    pieces: VecDeque<(Position, u64)>,
    end: Position,
}

impl Timed {
    fn from(end: Position) -> Self {
        Self {
            pieces: VecDeque::with_capacity(TIMED_MAX),
            end,
        }
    }

    /// The log up to `end` is at the first point.
    fn ends(&mut self, end: Position, now: Now) {
        if end > self.end {
            self.end = end;
            if self.pieces.len() < TIMED_MAX {
                self.pieces.push_back((end, now.mono_ns));
            }
        }
    }

    /// What is before `end` is not to be timed.
    fn restart(&mut self, end: Position) {
        self.pieces.clear();
        self.end = end;
    }

    /// The log up to `position` is at the second.
    fn reached(&mut self, position: Position, now: Now, hop: &mut Hop) {
        while let Some(&(end, since_ns)) = self.pieces.front()
            && end <= position
        {
            self.pieces.pop_front();
            hop.record(now.mono_ns.saturating_sub(since_ns), 1);
        }
    }
}

/// Ends of the links the agent uses, and what it works on.
pub(crate) struct SequenceAgent {
    node: Node,
    admin: AdminLink,
    group: Option<GroupEnds>,
    ring: Arc<LogRing>,
    is_registered: bool,
    received: Arc<Pages>,
    receive_buffer_size: usize,
    segments: Segments,
    files: FixedFiles,
    method: WriteMethod,
    commands: rtrb::Consumer<Command>,
    testimonies: rtrb::Consumer<Testimony>,
    current: Option<(Command, usize)>,
    replies: rtrb::Producer<ToIngress>,
    pending_replies: Replies,
    releases: rtrb::Producer<Release>,
    pending_release: Option<Release>,
    floor: PositionCell,
    kept_from: PositionCell,
    released: PositionCell,
    ingress: Parking,
    egress: Parking,
    writes: Vec<Write>,
    syncs_left: u32,
    /// First segment that a sync must still cover.
    unsynced_from: Position,
    /// Writes and syncs the kernel has.
    under_way: u32,
    /// End of what was ever to be written, or lay on the disk before.
    written_end: Position,
    to_disk: VecDeque<DiskOrder>,
    /// Ends of what was sealed, or received, and is not durable.
    undurable: Timed,
    for_peers: VecDeque<ForPeers>,
    exported: Exported,
    end: Option<End>,
}

/// What [`SequenceAgent::new`] takes.
pub(crate) struct SequenceParts {
    pub(crate) node: Node,
    pub(crate) admin: AdminLink,
    /// Present on a node of a group.
    pub(crate) group: Option<GroupParts>,
    pub(crate) ring: Arc<LogRing>,
    pub(crate) received: Arc<Pages>,
    pub(crate) receive_buffer_size: usize,
    pub(crate) segments: Segments,
    pub(crate) method: WriteMethod,
    pub(crate) commands: rtrb::Consumer<Command>,
    pub(crate) testimonies: rtrb::Consumer<Testimony>,
    pub(crate) replies: rtrb::Producer<ToIngress>,
    pub(crate) releases: rtrb::Producer<Release>,
    pub(crate) floor: PositionCell,
    /// From here on the memory ring has the log, also for threads that have no part in who may write where.
    pub(crate) kept_from: PositionCell,
    pub(crate) released: PositionCell,
    pub(crate) ingress: Parking,
    pub(crate) egress: Parking,
    pub(crate) write_depth: u32,
}

impl SequenceAgent {
    pub(crate) fn new(parts: SequenceParts, counters: &mut CounterFile) -> Self {
        let depth = parts.write_depth as usize;
        let open = parts.node.open_position();
        Self {
            unsynced_from: open,
            written_end: open,
            group: parts
                .group
                .map(|group| GroupEnds::new(group, open, counters)),
            node: parts.node,
            admin: parts.admin,
            ring: parts.ring,
            is_registered: false,
            received: parts.received,
            receive_buffer_size: parts.receive_buffer_size,
            segments: parts.segments,
            files: FixedFiles::none(),
            method: parts.method,
            commands: parts.commands,
            testimonies: parts.testimonies,
            current: None,
            replies: parts.replies,
            pending_replies: VecDeque::with_capacity(4_096),
            releases: parts.releases,
            pending_release: None,
            floor: parts.floor,
            kept_from: parts.kept_from,
            released: parts.released,
            ingress: parts.ingress,
            egress: parts.egress,
            writes: vec![Write::default(); depth],
            syncs_left: 0,
            under_way: 0,
            to_disk: VecDeque::with_capacity(depth + 1),
            undurable: Timed::from(open),
            for_peers: VecDeque::with_capacity(256),
            exported: Exported::new(counters),
            end: None,
        }
    }

    /// Registers the log's memory, and a table for its files, with the ring of the thread this agent runs on. Without the
    /// memory (a limit on it being locked) the kernel pins the pages of each write anew, without the table it looks each
    /// write's file up.
    pub(crate) fn register(&mut self, ring: &Ring) -> std::io::Result<()> {
        let first = self.segments.index_of(self.node.open_position());
        if let Err(error) = self.files.register(ring, first, self.segments.lock()) {
            tracing::warn!(
                %error,
                "segment files can't be registered: writes cost a little more, and the journal's lock ends with this process, also \
                 where the kernel still has a write of it"
            );
        }
        let (base, length) = self.ring.whole();
        // SAFETY: the pipeline keeps the log ring's memory until the threads, and with them the ring, are gone.
        unsafe { ring.register_memory(base, length) }?;
        self.is_registered = true;
        Ok(())
    }

    /// The node, for the agent that has its peers' sockets.
    pub(crate) fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// The next thing to do about peers' sockets.
    pub(crate) fn poll_for_peers(&mut self) -> Option<ForPeers> {
        self.for_peers.pop_front()
    }

    /// One turn; returns how much was done. `hear` hands in what came from peers.
    pub(crate) fn turn(
        &mut self,
        now: Now,
        mut hear: impl FnMut(&mut Node, &mut LogWindow<'_>) -> usize,
    ) -> usize {
        if self.node.is_over() {
            // Nothing is written any more, so there is no window; what ingress still hands in is let pass.
            let mut nothing = LogWindow::new(self.node.open_position(), &mut []);
            let (taken, _) = self.take_commands(&mut nothing, now);
            return taken + self.drain(now);
        }
        if let Some(group) = &mut self.group {
            match group.hear(&mut self.node, now) {
                Ok(()) => {}
                Err(what) => self.fail(what),
            }
        }
        while let Ok(word) = self.admin.words.pop() {
            let answer = carry_out(&mut self.node, word, now);
            // An operator who has gone meanwhile misses the answer.
            let _ = self.admin.answers.push(answer);
        }
        self.node.on_prepared(self.segments.end());
        let start = self.node.open_position();
        let forgotten = self.node.forgettable(self.floor.read());
        let end = window_end(start, forgotten, self.ring.size());
        self.keep_from(kept_from(start, self.ring.size()));
        let log = Arc::clone(&self.ring);
        // SAFETY: this agent alone writes to the log. Everything from the open position on is unsealed, or not received
        // yet, so no kernel write points at it; up to one ring's length behind what may be forgotten nobody reads what is
        // overwritten: what may be is durable, and on a primary the fan-out's floor has passed it.
        let mut window = unsafe { log.window(start, end) };
        let mut work = hear(&mut self.node, &mut window);
        let (taken, is_stalled) = self.take_commands(&mut window, now);
        work += taken;
        while let Ok(testimony) = self.testimonies.pop() {
            self.node.on_testimony(testimony);
            work += 1;
        }
        self.node.turn(now, &mut window);
        self.node.note_held(is_stalled, now, &window);
        self.exported.stalls.add(u64::from(is_stalled));
        if self.group.is_some() {
            let (from, to) = (
                self.node.ring_start().max(forgotten),
                self.node.open_position(),
            );
            if from <= to {
                // SAFETY: the window is not used any more, nobody else writes, and what lies below the window's end by one
                // ring's length and above the ring's first position is there.
                let view = unsafe { log.view(from, to) };
                self.node.pump(now, &view);
            }
        }
        let end = self.node.open_position();
        self.undurable.ends(end, now);
        if let Some(group) = &mut self.group
            && self.node.sequence().is_some()
        {
            group.unreleased.ends(end, now);
        }
        work += self.drain(now);
        if let Some(group) = &mut self.group {
            group.export(&self.node, &self.released, now);
        }
        work
    }

    /// Says, before anything is written, from where on the ring keeps what it has. It never goes back.
    fn keep_from(&self, position: Position) {
        if position > self.kept_from.read() {
            self.kept_from.publish(position);
            // What is written from here on is not seen before that.
            fence(Ordering::Release);
        }
    }

    /// Lets the ring know the next segment by number, ahead of need.
    fn enter_file(&mut self, ring: &mut Ring) {
        let current = self.segments.index_of(self.node.open_position());
        let segments = &self.segments;
        let update = self
            .files
            .next_update(current, |index| segments.descriptor(index));
        if let Some(entry) = update {
            let op = Op {
                agent: AGENT,
                purpose: ENTER_FILE,
                index: 0,
            };
            // SAFETY: the descriptor it reads is boxed and stays as it is until the completion was handed in.
            unsafe { ring.push(entry, op) };
        }
    }

    /// How an operation names the file of `position`, and the offset in it.
    fn file_of(&self, position: Position) -> (FileName, u64) {
        let (descriptor, offset) = self
            .segments
            .place(position)
            .expect("only prepared space is written");
        let segment = self.segments.index_of(position);
        (self.files.name(segment, descriptor), offset)
    }

    fn take_commands(&mut self, window: &mut LogWindow<'_>, now: Now) -> (usize, bool) {
        let mut work = 0;
        loop {
            if self.current.is_none() {
                self.current = self.commands.pop().ok().map(|command| (command, 0));
            }
            let Some((command, taken)) = self.current else {
                return (work, false);
            };
            let range = match command.command {
                ToSequence::Records { offset, length, .. }
                | ToSequence::TopicRequest { offset, length, .. } => Some((offset, length)),
                _ => None,
            };
            let buffer = command.buffer as usize * self.receive_buffer_size;
            // SAFETY: ingress leaves the bytes a command names alone until it is told that they were taken.
            let bytes = range.map_or(&[][..], |(offset, length)| unsafe {
                let from = buffer + offset as usize + taken;
                self.received.slice(from, length as usize - taken)
            });
            let progress = self.node.on_command(command.command, bytes, now, window);
            if !progress.is_done {
                self.current = Some((command, taken + progress.taken));
                return (work, true);
            }
            self.current = None;
            work += 1;
            if let Some((offset, length)) = range {
                let waited = now.mono_ns.saturating_sub(command.passed_ns);
                self.exported.received_to_sequenced.record(waited, 1);
                if let ToSequence::Records { conn, .. } | ToSequence::TopicRequest { conn, .. } =
                    command.command
                {
                    let through = offset + length;
                    self.pending_replies
                        .push_back(ToIngress::Taken { conn, through });
                }
            }
        }
    }

    /// Gives what is due to the kernel.
    pub(crate) fn submit(&mut self, ring: &mut Ring) {
        while let Some(order) = self.to_disk.pop_front() {
            match order {
                DiskOrder::Write {
                    number,
                    position,
                    length,
                } => self.write(ring, number, position, length),
                DiskOrder::Sync => self.sync(ring),
            }
        }
        self.enter_file(ring);
    }

    fn drain(&mut self, now: Now) -> usize {
        let mut work = 0;
        while let Some(effect) = self.node.poll_effect() {
            work += 1;
            match effect {
                NodeEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    self.written_end = self.written_end.max(position.plus(length.into()));
                    self.to_disk.push_back(DiskOrder::Write {
                        number,
                        position,
                        length,
                    });
                }
                NodeEffect::Sync => self.to_disk.push_back(DiskOrder::Sync),
                NodeEffect::Reply(reply) => self.pending_replies.push_back(reply),
                NodeEffect::Released(point) => self.on_released(point, now),
                NodeEffect::Stopped(stop) => self.end_with(End::Stopped(stop)),
                NodeEffect::Link(link) => self.for_peers.push_back(ForPeers::Link(link)),
                NodeEffect::ReadLog {
                    peer,
                    purpose,
                    position,
                    length,
                } => self.for_peers.push_back(ForPeers::Read {
                    peer,
                    purpose,
                    position,
                    length,
                }),
                NodeEffect::Fetched(fetched) => self.group().fetched(fetched),
                NodeEffect::Lead(tables, epoch) => {
                    // Until its fan-out exists nobody reads the ring below here, nor moves the floor on.
                    self.floor.publish(tables.position);
                    self.group().lead(&tables, epoch);
                    self.egress.wake();
                }
                NodeEffect::Withdraw => {
                    self.group().withdraw();
                    self.egress.wake();
                }
                NodeEffect::ServeAgain => {
                    self.group().serve_again();
                    self.egress.wake();
                }
                NodeEffect::Assured { asked_ns } => self.group().assured(asked_ns),
                NodeEffect::Ask(request) => self.group().ask(request),
                NodeEffect::StoreVote(vote, record) => self.group().store(vote, record),
                NodeEffect::Note(note) => self.group().note(note),
                NodeEffect::Restart(reason, carry) => {
                    let log_end = self.written_end;
                    self.end_with(End::Restart {
                        reason,
                        carry,
                        log_end,
                    });
                }
                NodeEffect::Halt(reason) => self.end_with(End::Halt(reason)),
            }
        }
        if let Some(release) = self.pending_release.take() {
            match self.releases.push(release) {
                Ok(()) => self.egress.wake(),
                Err(rtrb::PushError::Full(release)) => self.pending_release = Some(release),
            }
        }
        self.pass_replies_on();
        work
    }

    fn pass_replies_on(&mut self) -> usize {
        let pushed = push_all(&mut self.replies, &mut self.pending_replies);
        if pushed > 0 {
            self.ingress.wake();
        }
        pushed
    }

    fn on_released(&mut self, point: ReleasePoint, now: Now) {
        match &mut self.group {
            Some(group) => group.on_released(point.position, now),
            None => self.released.publish(point.position),
        }
        self.pending_release = Some(Release {
            point,
            released_ns: now.mono_ns,
        });
        self.export();
    }

    fn group(&mut self) -> &mut GroupEnds {
        self.group
            .as_mut()
            .expect("a node without a group asks nothing of one")
    }

    fn end_with(&mut self, end: End) {
        self.end = Some(match self.end.take() {
            Some(before) => before.and(end),
            None => end,
        });
    }

    fn write(&mut self, ring: &mut Ring, number: u64, position: Position, length: u32) {
        let (file, offset) = self.file_of(position);
        let at = number as usize % self.writes.len();
        self.writes[at] = Write { number, length };
        let pointer = self.ring.pointer(position);
        let flags = match self.method {
            WriteMethod::Dsync => libc::RWF_DSYNC,
            WriteMethod::Covering => 0,
        };
        let entry = if self.is_registered {
            opcode::WriteFixed::new(file.number(), pointer, length, 0)
                .offset(offset)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Write::new(file.number(), pointer, length)
                .offset(offset)
                .rw_flags(flags)
                .build()
        };
        let op = Op {
            agent: AGENT,
            purpose: WRITE,
            index: number as u32,
        };
        // SAFETY: the blocks are sealed: nothing changes their bytes before they may be forgotten, which nothing is that is not durable
        // (`Node::forgettable`), so not before this write's completion.
        unsafe { ring.push(file.apply(entry), op) };
        self.under_way += 1;
        self.exported.writes.add(1);
        self.exported
            .writes_by_number
            .add(u64::from(file.is_fixed()));
        self.exported.bytes.add(length.into());
    }

    /// One data-sync for each segment written since the last.
    fn sync(&mut self, ring: &mut Ring) {
        let mut at = self.unsynced_from;
        let end = self.node.open_position();
        self.unsynced_from = self.node.status().durable.point.position;
        loop {
            let (file, offset) = self.file_of(at);
            let entry = opcode::Fsync::new(file.number())
                .flags(types::FsyncFlags::DATASYNC)
                .build();
            // SAFETY: a sync points at no memory.
            unsafe {
                ring.push(
                    file.apply(entry),
                    Op {
                        agent: AGENT,
                        purpose: SYNC,
                        index: 0,
                    },
                )
            };
            self.syncs_left += 1;
            self.under_way += 1;
            at = Position(at.get() - offset).plus(self.segments.segment_size());
            if at >= end {
                break;
            }
        }
    }

    /// A write or sync of this agent's completed.
    pub(crate) fn on_completion(&mut self, completion: Completion, now: Now) {
        self.under_way -= u32::from(completion.op.purpose != ENTER_FILE);
        match completion.op.purpose {
            WRITE => {
                let write = self
                    .writes
                    .iter()
                    .find(|write| write.number as u32 == completion.op.index)
                    .copied()
                    .expect("a write completes that was started");
                if completion.result == write.length as i32 {
                    self.node.on_written(write.number);
                    self.note_durable(now);
                } else {
                    let what = describe(completion.result, write.length);
                    self.fail(format!("write {} {what}", write.number));
                }
            }
            SYNC => {
                self.syncs_left -= 1;
                if completion.result < 0 {
                    self.fail(format!("a data-sync {}", describe(completion.result, 0)));
                } else if self.syncs_left == 0 && !self.has_failed() {
                    self.node.on_synced();
                    self.note_durable(now);
                }
            }
            ENTER_FILE => self.files.on_updated(completion.result),
            other => unreachable!("no such purpose: {other}"),
        }
    }

    fn note_durable(&mut self, now: Now) {
        let durable = self.node.status().durable.point.position;
        let hop = &mut self.exported.sequenced_to_durable;
        self.undurable.reached(durable, now, hop);
    }

    fn fail(&mut self, what: String) {
        self.node.on_storage_fault();
        self.end_with(End::Fault(what));
    }

    fn has_failed(&self) -> bool {
        matches!(self.end, Some(End::Fault(_)))
    }

    fn export(&self) {
        let exported = &self.exported;
        let status = self.node.status();
        exported.last_seq.set(self.node.next_seq().get() - 1);
        exported.appended.set(status.appended.point.position.get());
        exported.durable.set(status.durable.point.position.get());
        exported.released.set(status.released.point.position.get());
        exported.next_seq.set(status.released.point.next_seq.get());
        exported.trading_session.set(self.node.trading_session());
        if let Some(sequence) = self.node.sequence() {
            exported.topics.set(sequence.topic_count().into());
            exported.held.set(sequence.held().number().into());
            exported.in_flight.set(sequence.writes_in_flight() as u64);
        }
    }

    /// Takes nothing more in.
    pub(crate) fn begin_stop(&mut self, now: Now) {
        self.node.stop(now);
    }

    /// How the agent's work ended, once it has.
    pub(crate) const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether the kernel has none of its writes any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.under_way == 0 && self.to_disk.is_empty()
    }

    /// Whether nothing waits in a link for this agent, and no write or block for its time.
    pub(crate) fn is_idle(&self) -> bool {
        self.commands.is_empty()
            && self.to_disk.is_empty()
            && self.node.due_ns().is_none()
            && self.admin.words.is_empty()
            && self.testimonies.is_empty()
            && self.group.as_ref().is_none_or(GroupEnds::is_idle)
    }
}

fn carry_out(node: &mut Node, word: Word, now: Now) -> Answer {
    match word {
        Word::HandOver(to) => node.hand_over(to, now),
        Word::Detach(which) => node.detach(which, true),
        Word::Attach(which) => node.detach(which, false),
        Word::Promote { accepts_loss } => node.promote(accepts_loss, now),
        Word::RollSession { number, name } => node.roll_session(number, name),
    }
}

fn describe(result: i32, length: u32) -> String {
    if result < 0 {
        format!("failed: {}", std::io::Error::from_raw_os_error(-result))
    } else {
        format!("took only {result} of {length} bytes")
    }
}
