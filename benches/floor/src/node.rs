//! One node's hot loop: receive, copy into a block, write and mirror, forward and acknowledge.
//!
//! The server of one node, the primary and the standby of two, and the answering side of a bare
//! hop are this loop with different wiring. A turn reaps what ended, moves everything that can
//! move, and enters the kernel once; a turn with nothing to do makes no system call (unless the
//! idle strategy is one, or the node spins: then each turn asks the sockets anew, which spares a
//! message the way through the kernel's poll).
//!
//! Operations are queued in the order they matter: sends first (a write's submission costs ten
//! times a send's), then writes, then the next receive.
//!
//! Under [`Policy::Mirrored`] a block is released from memory, and a second writer follows with
//! the same bytes; only its room is waited for.
//!
//! Invariants: blocks are released in order, and none before it is held by the standby and, under
//! [`Policy::Durable`], durable here; a full output holds the release, full blocks hold the input,
//! a full input holds the sender; at drop nothing is in flight, or its memory is given up.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::affinity::{pin, yield_cpu};
use crate::block_writer::{Block, BlockWriter, Target};
use crate::clock::Clock;
use crate::data_file::DataFile;
use crate::error::FloorError;
use crate::inbound::{Inbound, Waiting};
use crate::options::{BLOCK_BYTES_MAX, Idle, Policy, WriteMode};
use crate::outbound::Outbound;
use crate::report::{new_histogram, record};
use crate::ring::{Completion, Ring};

/// Positions in the table of registered files.
const DATA_FILE: u32 = 0;
const INPUT_FILE: u32 = 1;
const FORWARD_FILE: u32 = 2;
const MIRROR_FILE: u32 = 3;

/// User data of the node's own operations; the block writer's are higher.
const INPUT: u64 = 0;
const HOLDS: u64 = 1;
const FORWARD: u64 = 2;
const ACKNOWLEDGE: u64 = 3;
const MIRROR: u64 = 4;

/// Bytes of an acknowledgement: the index of the last message it covers.
pub(crate) const ACK_BYTES: usize = 8;

const INPUT_BYTES: usize = 256 * 1024;
const FORWARD_BYTES: usize = 256 * 1024;
const ACK_BUFFER_BYTES: usize = 16 * 1024;
/// Released blocks whose sending is timed at once; beyond it, blocks go untimed.
const STAMPS_MAX: usize = 4096;
/// Writes in flight where nobody waits for them: enough to keep the disk from idling in between.
const TRAILING_WRITES_MAX: usize = 2;
/// Longest sleep of a parked node: it looks at the stop flag that often.
const PARK: Duration = Duration::from_millis(1);
/// Bound on ending the operations in flight at drop.
const DRAIN: Duration = Duration::from_secs(5);

/// Where released messages go.
pub(crate) enum Forward {
    /// Nowhere: a standby only acknowledges.
    Nowhere,
    /// To a subscriber.
    To(TcpStream),
    /// Back where they came from: a bare hop.
    Back,
}

/// A node's sockets.
pub(crate) struct Wiring {
    /// Messages come in here.
    pub(crate) input: TcpStream,
    /// Released messages go out here.
    pub(crate) forward: Forward,
    /// True if releases are acknowledged on the input socket.
    pub(crate) acknowledge: bool,
    /// Block bodies go out and the standby's acknowledgements come in here.
    pub(crate) mirror: Option<TcpStream>,
}

/// A node's settings.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) size: usize,
    pub(crate) depth: usize,
    /// What a release waits for on the disk given; without a disk nothing is written.
    pub(crate) policy: Policy,
    pub(crate) idle: Idle,
    pub(crate) cpu: Option<usize>,
    /// Index of the first message that counts in the histograms.
    pub(crate) measured_from: u64,
    pub(crate) clock: Clock,
}

/// What a node saw. Latencies in nanoseconds, one sample per block.
pub(crate) struct NodeReport {
    pub(crate) received_to_written: Histogram<u64>,
    pub(crate) received_to_held: Histogram<u64>,
    pub(crate) written_to_sent: Histogram<u64>,
    pub(crate) blocks: u64,
    pub(crate) syncs: u64,
}

/// Runs a node on the calling thread until `stop`. `on_ready` is called when it can receive.
pub(crate) fn run_node(
    settings: Settings,
    wiring: Wiring,
    disk: Option<(&DataFile, WriteMode)>,
    stop: &AtomicBool,
    on_ready: impl FnOnce(),
) -> Result<NodeReport, FloorError> {
    pin(settings.cpu)?;
    let mut node = Node::new(settings, wiring, disk)?;
    node.arm();
    node.ring.turn()?;
    on_ready();
    while !stop.load(Ordering::Relaxed) {
        if !node.turn()? {
            node.idle()?;
        }
    }
    Ok(node.report())
}

/// A released block on its way through the forward buffer.
struct Stamp {
    /// Position in the forward buffer after its last byte.
    end: u64,
    durable_ns: u64,
}

/// Fields are dropped in order: the ring before everything the kernel may use through it.
struct Node {
    ring: Ring,
    input: Inbound,
    forward: Option<Outbound>,
    acknowledge: Option<Outbound>,
    mirror: Option<Mirror>,
    writer: BlockWriter,
    /// Writes what `writer` keeps in memory only.
    trailing: Option<BlockWriter>,
    settings: Settings,
    wiring: Wiring,
    finished: Vec<Completion>,
    /// When the input last began to fill.
    received_ns: u64,
    /// Written and not counted yet.
    written: Vec<Block>,
    stamps: VecDeque<Stamp>,
    received_to_written: Histogram<u64>,
    received_to_held: Histogram<u64>,
    written_to_sent: Histogram<u64>,
}

/// The primary's side of the mirror.
struct Mirror {
    bodies: Outbound,
    holds: Inbound,
    /// One more than the last index the standby holds.
    held_to: u64,
    /// Last index and time of receipt of the blocks it does not hold yet.
    unheld: VecDeque<(u64, u64)>,
    /// Received to held, ns, of blocks not counted yet.
    held_ns: Vec<(u64, u64)>,
}

impl Node {
    fn new(
        settings: Settings,
        wiring: Wiring,
        disk: Option<(&DataFile, WriteMode)>,
    ) -> Result<Node, FloorError> {
        let ring = Ring::new(settings.depth + 8)?;
        let forward_fd = match &wiring.forward {
            Forward::To(socket) => socket.as_raw_fd(),
            Forward::Nowhere | Forward::Back => -1,
        };
        ring.register_files(&[
            disk.map_or(-1, |(file, _)| file.fd()),
            wiring.input.as_raw_fd(),
            forward_fd,
            wiring
                .mirror
                .as_ref()
                .map_or(-1, |socket| socket.as_raw_fd()),
        ])?;
        let target = disk.map(|(file, mode)| Target::new(file, DATA_FILE, mode));
        let (target, trailing) = match settings.policy {
            Policy::Durable => (target, None),
            Policy::Mirrored => (None, target),
        };
        let writer = BlockWriter::new(&ring, settings.depth, target)?;
        let trailing = match trailing {
            Some(target) => {
                let writer = BlockWriter::new(&ring, settings.depth, Some(target))?;
                Some(writer.with_writes_at_most(TRAILING_WRITES_MAX.min(settings.depth)))
            }
            None => None,
        };
        let waiting = match settings.idle {
            Idle::Spin => Waiting::Polled,
            Idle::Yield | Idle::Park => Waiting::Kernel,
        };
        let forward = match &wiring.forward {
            Forward::Nowhere => None,
            Forward::To(_) => Some(Outbound::new(FORWARD_FILE, FORWARD, FORWARD_BYTES)?),
            Forward::Back => Some(Outbound::new(INPUT_FILE, FORWARD, FORWARD_BYTES)?),
        };
        let acknowledge = match wiring.acknowledge {
            true => Some(Outbound::new(INPUT_FILE, ACKNOWLEDGE, ACK_BUFFER_BYTES)?),
            false => None,
        };
        let mirror = match &wiring.mirror {
            Some(_) => Some(Mirror::new(settings.depth, waiting)?),
            None => None,
        };
        Ok(Node {
            input: Inbound::new(INPUT_FILE, INPUT, INPUT_BYTES, waiting)?,
            forward,
            acknowledge,
            mirror,
            writer,
            trailing,
            finished: Vec::with_capacity(2 * (settings.depth + 8)),
            received_ns: 0,
            written: Vec::with_capacity(2 * settings.depth),
            stamps: VecDeque::with_capacity(STAMPS_MAX),
            received_to_written: new_histogram(),
            received_to_held: new_histogram(),
            written_to_sent: new_histogram(),
            ring,
            settings,
            wiring,
        })
    }

    /// Does what can be done now; false if nothing had ended since the last turn.
    #[inline]
    fn turn(&mut self) -> Result<bool, FloorError> {
        self.ring.turn()?;
        self.ring.reap(&mut self.finished);
        if self.finished.is_empty() {
            return Ok(false);
        }
        let now_ns = self.settings.clock.now();
        for at in 0..self.finished.len() {
            let (user_data, result) = self.finished[at];
            self.complete(user_data, result, now_ns)?;
        }
        let taken = self.forward.as_ref().map_or(0, Outbound::taken);
        self.form_blocks();
        self.writer.settle(now_ns);
        self.release();
        self.let_go_of_written(now_ns);
        self.arm();
        self.ring.turn()?;
        self.count(taken, now_ns);
        Ok(true)
    }

    fn complete(&mut self, user_data: u64, result: i32, now_ns: u64) -> Result<(), FloorError> {
        const WIRED: &str = "a completion of a socket this node was not given";
        match user_data {
            INPUT => {
                if self.input.unread().len() < self.settings.size {
                    self.received_ns = now_ns;
                }
                self.input.complete(result);
            }
            HOLDS => {
                let mirror = self.mirror.as_mut().expect(WIRED);
                mirror.complete_holds(result, now_ns);
            }
            FORWARD => self.forward.as_mut().expect(WIRED).complete(result),
            ACKNOWLEDGE => self.acknowledge.as_mut().expect(WIRED).complete(result),
            MIRROR => self.mirror.as_mut().expect(WIRED).bodies.complete(result),
            _ if self.writer.owns(user_data) => {
                let writer = self.trailing.as_mut().unwrap_or(&mut self.writer);
                writer.complete(user_data, result)?;
            }
            _ => panic!("a completion of no operation: {user_data}"),
        }
        Ok(())
    }

    /// Puts whole messages into blocks: all that wait together into one, up to its largest size.
    #[inline]
    fn form_blocks(&mut self) {
        let size = self.settings.size;
        while self.writer.has_room() {
            let unread = self.input.unread();
            let count = (unread.len() / size).min(BLOCK_BYTES_MAX / size);
            if count == 0 {
                return;
            }
            let body = &unread[..count * size];
            let last_index = read_index(&body[(count - 1) * size..]);
            if let Some(trailing) = &mut self.trailing {
                if !trailing.has_room_for(body.len()) {
                    return;
                }
                trailing.append(body, last_index, self.received_ns);
            }
            if let Some(mirror) = &mut self.mirror {
                mirror.bodies.push(body);
                mirror.unheld.push_back((last_index, self.received_ns));
            }
            self.writer.fill(body, last_index, self.received_ns);
            let consumed = body.len();
            self.input.consume(consumed);
        }
    }

    /// Hands released messages to the outputs; one acknowledgement covers the whole step.
    #[inline]
    fn release(&mut self) {
        if self
            .acknowledge
            .as_ref()
            .is_some_and(|output| output.room() < ACK_BYTES)
        {
            return;
        }
        let mut last_index = None;
        while let Some((block, body)) = self.writer.oldest_durable() {
            if self
                .mirror
                .as_ref()
                .is_some_and(|mirror| mirror.held_to <= block.last_index)
            {
                break;
            }
            if let Some(forward) = &mut self.forward {
                if forward.room() < body.len() {
                    break;
                }
                let end = forward.push(body);
                let timed = self.settings.policy == Policy::Durable
                    && block.last_index >= self.settings.measured_from;
                if timed && self.stamps.len() < STAMPS_MAX {
                    self.stamps.push_back(Stamp {
                        end,
                        durable_ns: block.durable_ns,
                    });
                }
            }
            self.writer.release();
            if self.settings.policy == Policy::Durable {
                self.written.push(block);
            }
            last_index = Some(block.last_index);
        }
        if let (Some(index), Some(output)) = (last_index, &mut self.acknowledge) {
            output.push(&index.to_le_bytes());
        }
    }

    /// Frees what the second writer has written.
    #[inline]
    fn let_go_of_written(&mut self, now_ns: u64) {
        let Some(trailing) = &mut self.trailing else {
            return;
        };
        trailing.settle(now_ns);
        while let Some((block, _)) = trailing.oldest_durable() {
            self.written.push(block);
            trailing.release();
        }
    }

    #[inline]
    fn arm(&mut self) {
        if let Some(forward) = &mut self.forward {
            forward.arm(&mut self.ring);
        }
        if let Some(acknowledge) = &mut self.acknowledge {
            acknowledge.arm(&mut self.ring);
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.bodies.arm(&mut self.ring);
        }
        self.writer.queue(&mut self.ring);
        if let Some(trailing) = &mut self.trailing {
            trailing.queue(&mut self.ring);
        }
        self.input.arm(&mut self.ring);
        if let Some(mirror) = &mut self.mirror {
            mirror.holds.arm(&mut self.ring);
        }
    }

    /// Fills the histograms, after the turn's operations were submitted. `taken` is how far the
    /// subscriber's socket had got when the turn began, at `now_ns`.
    fn count(&mut self, taken: u64, now_ns: u64) {
        let measured_from = self.settings.measured_from;
        for block in self.written.drain(..) {
            if block.last_index >= measured_from {
                let latency_ns = block.durable_ns.saturating_sub(block.received_ns);
                record(&mut self.received_to_written, latency_ns);
            }
        }
        for (last_index, latency_ns) in self.mirror.iter_mut().flat_map(|m| m.held_ns.drain(..)) {
            if last_index >= measured_from {
                record(&mut self.received_to_held, latency_ns);
            }
        }
        while let Some(stamp) = self.stamps.front() {
            if stamp.end > taken {
                break;
            }
            record(
                &mut self.written_to_sent,
                now_ns.saturating_sub(stamp.durable_ns),
            );
            self.stamps.pop_front();
        }
    }

    fn idle(&mut self) -> Result<(), FloorError> {
        match self.settings.idle {
            // No pause hint: on a virtual machine a run of pauses may leave the guest.
            Idle::Spin => {}
            Idle::Yield => yield_cpu(),
            Idle::Park => self.ring.park(PARK)?,
        }
        Ok(())
    }

    fn report(&self) -> NodeReport {
        let on_disk = self.trailing.as_ref().unwrap_or(&self.writer);
        NodeReport {
            received_to_written: self.received_to_written.clone(),
            received_to_held: self.received_to_held.clone(),
            written_to_sent: self.written_to_sent.clone(),
            blocks: on_disk.blocks(),
            syncs: on_disk.syncs(),
        }
    }

    /// Ends what is in flight; true if nothing is left.
    fn drain(&mut self) -> bool {
        let _ = self.wiring.input.shutdown(Shutdown::Both);
        if let Forward::To(socket) = &self.wiring.forward {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(socket) = &self.wiring.mirror {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let deadline = Instant::now() + DRAIN;
        self.ring.reap(&mut self.finished);
        while self.ring.in_flight() > 0 && Instant::now() < deadline {
            if self.ring.park(PARK).is_err() {
                return false;
            }
            self.ring.reap(&mut self.finished);
        }
        self.ring.in_flight() == 0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.drain() {
            return;
        }
        self.input.abandon();
        self.writer.abandon();
        if let Some(trailing) = &mut self.trailing {
            trailing.abandon();
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.bodies.abandon();
            mirror.holds.abandon();
        }
        for output in [&mut self.forward, &mut self.acknowledge]
            .into_iter()
            .flatten()
        {
            output.abandon();
        }
    }
}

impl Mirror {
    fn new(depth: usize, waiting: Waiting) -> Result<Mirror, FloorError> {
        Ok(Mirror {
            // Every block held, and so every body unsent, fits: a push never lacks room.
            bodies: Outbound::new(MIRROR_FILE, MIRROR, depth * BLOCK_BYTES_MAX)?,
            holds: Inbound::new(MIRROR_FILE, HOLDS, ACK_BUFFER_BYTES, waiting)?,
            held_to: 0,
            unheld: VecDeque::with_capacity(depth),
            held_ns: Vec::with_capacity(depth),
        })
    }

    fn complete_holds(&mut self, result: i32, now_ns: u64) {
        self.holds.complete(result);
        let unread = self.holds.unread();
        let whole = unread.len() / ACK_BYTES * ACK_BYTES;
        if whole > 0 {
            let index = read_index(&unread[whole - ACK_BYTES..]);
            assert!(
                index >= self.held_to,
                "the standby's acknowledgements only grow"
            );
            self.held_to = index + 1;
            self.holds.consume(whole);
        }
        while let Some(&(last_index, received_ns)) = self.unheld.front()
            && last_index < self.held_to
        {
            let latency_ns = now_ns.saturating_sub(received_ns);
            self.held_ns.push((last_index, latency_ns));
            self.unheld.pop_front();
        }
    }
}

/// The index a message or an acknowledgement begins with.
#[inline]
pub(crate) fn read_index(bytes: &[u8]) -> u64 {
    let mut index = [0; 8];
    index.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(index)
}
