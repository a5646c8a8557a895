//! Carries released log to subscribers' sockets, from the memory ring or through replay buffers from disk.
//!
//! On a node of a group there is nothing to forward before it leads: the fan-out comes over a link when a reign begins.
//!
//! Sends never wait (MSG_DONTWAIT), so no socket can hold on to the ring: they are over when the enter that submits them returns,
//! which is the next one but where the kernel has no memory for it. Until its completion a send has its connection's headers to
//! itself; one whose connection was closed meanwhile finds the socket shut down, and looks at nothing it points to but these.
//! A place in the agent's table is given up only when no operation of the kernel's belongs to it any more.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use io_uring::{opcode, types};
use relay_core::command::{ConnId, Now};
use relay_core::fanout::{Fanout, FanoutEffect, RUNS_MAX, Source};
use relay_wire::code::TerminateCode;
use relay_wire::id::Position;

use crate::arena::{LogRing, Pages};
use crate::counters::{Counter, CounterFile, Hop};
use crate::link::PositionCell;
use crate::ring::{Completion, Op, Ring};
use crate::stage::{Arrival, Doubts, Release, ToEgress};
use crate::storage::Segments;

/// This agent's number in an [`Op`].
pub(crate) const AGENT: u8 = 3;
const RECEIVE: u8 = 1;
const SEND: u8 = 2;
const ROOM: u8 = 3;
const READ: u8 = 4;

/// Bytes of a subscriber's receive buffer; a longer SUBSCRIBE is collected beside it.
const RECEIVE_BUFFER: usize = 4096;
/// How often subscribers are counted for the counters: a census looks at each of them.
const EXPORT_EVERY_NS: u64 = 10_000_000;

struct Connection {
    socket: OwnedFd,
    conn: ConnId,
    is_open: bool,
    /// Bytes received that are not yet a whole item.
    inbox: Vec<u8>,
    is_receiving: bool,
    is_sending: bool,
    /// Headers of the send under way.
    vectors: Box<Vectors>,
    /// When the release was that the last send from the ring was timed for: each is timed once, by the first send after it.
    timed_ns: u64,
    /// Whether the send under way is timed.
    is_timed: bool,
}

/// Headers of one vectored send; they must stay until it has completed.
struct Vectors {
    message: libc::msghdr,
    pieces: [libc::iovec; RUNS_MAX + 1],
}

/// What [`EgressAgent::new`] takes.
pub(crate) struct EgressParts {
    /// `None` on a node of a group, until it leads.
    pub(crate) machine: Option<Fanout>,
    pub(crate) words: Option<rtrb::Consumer<ToEgress>>,
    /// On a node of a group.
    pub(crate) doubts: Option<Doubts>,
    pub(crate) ring: Arc<LogRing>,
    pub(crate) segments: Segments,
    pub(crate) arrivals: rtrb::Consumer<Arrival>,
    pub(crate) releases: rtrb::Consumer<Release>,
    pub(crate) floor: PositionCell,
    pub(crate) released: Position,
    pub(crate) subscribers: u32,
    pub(crate) replay_slots: u32,
    pub(crate) replay_slot_size: u32,
}

/// See the module's description.
pub(crate) struct EgressAgent {
    machine: Option<Fanout>,
    words: Option<rtrb::Consumer<ToEgress>>,
    doubts: Option<Doubts>,
    ring: Arc<LogRing>,
    segments: Segments,
    arrivals: rtrb::Consumer<Arrival>,
    releases: rtrb::Consumer<Release>,
    floor: PositionCell,
    released: Position,
    released_ns: u64,
    table: Vec<Option<Connection>>,
    free: Vec<u32>,
    by_conn: Vec<u32>,
    received: Pages,
    replay: Vec<Pages>,
    replay_slot_size: usize,
    /// By buffer: the kernel is reading into it.
    is_reading: Vec<bool>,
    is_stopping: bool,
    exported: Exported,
    exported_ns: u64,
}

struct Exported {
    subscribers: Counter,
    behind: Counter,
    lag: Counter,
    bytes: Counter,
    sends: Counter,
    full: Counter,
    damaged: Counter,
    reads: Counter,
    released_to_sent: Hop,
}

impl EgressAgent {
    pub(crate) fn new(parts: EgressParts, counters: &mut CounterFile) -> std::io::Result<Self> {
        let places = parts.subscribers * 2;
        let slot_size = parts.replay_slot_size as usize;
        let replay = (0..parts.replay_slots).map(|_| Pages::new(slot_size));
        Ok(Self {
            machine: parts.machine,
            words: parts.words,
            doubts: parts.doubts,
            ring: parts.ring,
            segments: parts.segments,
            arrivals: parts.arrivals,
            releases: parts.releases,
            floor: parts.floor,
            released: parts.released,
            released_ns: 0,
            table: (0..places).map(|_| None).collect(),
            free: (0..places).rev().collect(),
            by_conn: vec![u32::MAX; parts.subscribers as usize],
            received: Pages::new(places as usize * RECEIVE_BUFFER)?,
            replay: replay.collect::<Result<_, _>>()?,
            replay_slot_size: slot_size,
            is_reading: vec![false; parts.replay_slots as usize],
            is_stopping: false,
            exported: Exported {
                subscribers: counters.counter("egress.subscribers"),
                behind: counters.counter("egress.subscribers_behind"),
                lag: counters.counter("egress.lag_bytes_max"),
                bytes: counters.counter("egress.bytes_sent"),
                sends: counters.counter("egress.sends"),
                full: counters.counter("egress.sockets_full"),
                damaged: counters.counter("egress.damaged_reads"),
                reads: counters.counter("egress.replay_reads"),
                released_to_sent: counters.hop("released_to_sent"),
            },
            exported_ns: 0,
        })
    }

    /// One turn; returns how much was done.
    pub(crate) fn turn(&mut self, ring: &mut Ring, now: Now) -> usize {
        let mut work = 0;
        work += self.take_words(now);
        if self.machine.is_none() {
            return work;
        }
        while let Ok(arrival) = self.arrivals.pop() {
            work += 1;
            self.welcome(ring, arrival, now);
        }
        let mut newest = None;
        while let Ok(release) = self.releases.pop() {
            newest = Some(release);
        }
        if let Some(release) = newest {
            work += 1;
            let machine = serving(&mut self.machine);
            let start = machine.floor();
            // SAFETY: from the floor this agent published up to the release the sequencer passed on nobody writes.
            let view = unsafe { self.ring.view(start, release.point.position) };
            machine.on_released(release.point, &view);
            self.floor.publish(machine.floor());
            self.released = release.point.position;
            self.released_ns = release.released_ns;
        }
        let machine = serving(&mut self.machine);
        if let Some(doubts) = &self.doubts
            && doubts.settled.take()
        {
            work += 1;
            let asked_ns = doubts.asked_ns.load(Ordering::Acquire);
            machine.on_assured(asked_ns, now.mono_ns);
        }
        machine.on_time(now.mono_ns);
        if machine.has_work() {
            work += 1;
            self.serve(now);
        }
        work += self.drain(ring, now);
        self.export(now);
        work
    }

    /// Takes what the sequence agent of a group's node has to say.
    fn take_words(&mut self, now: Now) -> usize {
        let mut taken = 0;
        while let Some(word) = self.words.as_mut().and_then(|words| words.pop().ok()) {
            taken += 1;
            match word {
                ToEgress::Reign(machine) => {
                    self.released = machine.floor();
                    self.machine = Some(*machine);
                }
                ToEgress::Withdraw => {
                    if let Some(machine) = &mut self.machine {
                        machine.withdraw(now.mono_ns);
                    }
                }
                ToEgress::ServeAgain => {
                    if let Some(machine) = &mut self.machine {
                        machine.serve_again();
                    }
                }
            }
        }
        taken
    }

    fn serve(&mut self, now: Now) {
        let machine = serving(&mut self.machine);
        let start = machine.floor();
        // SAFETY: as in `turn`.
        let view = unsafe { self.ring.view(start, self.released) };
        let mut replay: [&[u8]; 64] = [&[]; 64];
        for ((slot, pages), is_reading) in replay.iter_mut().zip(&self.replay).zip(&self.is_reading)
        {
            if !is_reading {
                // SAFETY: the kernel writes to it only while a read is under way, and nobody else does.
                *slot = unsafe { pages.slice(0, self.replay_slot_size) };
            }
        }
        machine.serve(&view, &replay[..self.replay.len()], now.mono_ns);
    }

    fn welcome(&mut self, ring: &mut Ring, arrival: Arrival, now: Now) {
        let Some(place) = self.free.pop() else {
            return;
        };
        let Some(conn) = serving(&mut self.machine).on_subscriber(arrival.credential, now.mono_ns)
        else {
            // The machine has no place: dropping the socket tells the client to come back.
            tracing::warn!("a subscriber was turned away: limits.subscribers is reached");
            self.free.push(place);
            return;
        };
        self.by_conn[conn.index as usize] = place;
        self.table[place as usize] = Some(Connection {
            socket: arrival.socket,
            conn,
            is_open: true,
            inbox: arrival.early,
            is_receiving: false,
            is_sending: false,
            vectors: Box::new(Vectors::new()),
            timed_ns: self.released_ns,
            is_timed: false,
        });
        self.consume_inbox(place, now);
        self.receive(ring, place);
    }

    fn connection(&mut self, place: u32) -> &mut Connection {
        self.table[place as usize]
            .as_mut()
            .expect("the place is taken")
    }

    fn place_of(&self, conn: ConnId) -> Option<u32> {
        let place = self.by_conn[conn.index as usize];
        let connection = self.table.get(place as usize)?.as_ref()?;
        (connection.conn == conn).then_some(place)
    }

    fn receive(&mut self, ring: &mut Ring, place: u32) {
        let pointer = self.received.pointer(place as usize * RECEIVE_BUFFER);
        let connection = self.connection(place);
        if connection.is_receiving || !connection.is_open {
            return;
        }
        connection.is_receiving = true;
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Recv::new(socket, pointer, RECEIVE_BUFFER as u32).build();
        // SAFETY: the buffer is this place's own and is looked at only after the completion.
        unsafe {
            ring.push(
                entry,
                Op {
                    agent: AGENT,
                    purpose: RECEIVE,
                    index: place,
                },
            )
        };
    }

    fn consume_inbox(&mut self, place: u32, now: Now) {
        let connection = self.connection(place);
        let conn = connection.conn;
        let inbox = std::mem::take(&mut connection.inbox);
        let consumed = serving(&mut self.machine).on_bytes(conn, &inbox, now.mono_ns);
        let mut rest = inbox;
        rest.drain(..consumed);
        if rest.is_empty() {
            // A long SUBSCRIBE's memory is given back.
            rest = Vec::new();
        }
        self.connection(place).inbox = rest;
    }

    /// An operation of this agent's completed.
    pub(crate) fn on_completion(&mut self, ring: &mut Ring, completion: Completion, now: Now) {
        let index = completion.op.index;
        match completion.op.purpose {
            RECEIVE => self.on_received(ring, index, completion.result, now),
            SEND => self.on_sent(index, completion.result, now),
            ROOM => {
                let connection = self.connection(index);
                connection.is_sending = false;
                let conn = connection.conn;
                serving(&mut self.machine).on_writable(conn);
                self.let_go(index);
            }
            READ => {
                self.is_reading[index as usize] = false;
                let length = u32::try_from(completion.result).ok();
                if length.is_none() {
                    let error = std::io::Error::from_raw_os_error(-completion.result);
                    tracing::error!(%error, "a replay's read of the journal failed");
                }
                serving(&mut self.machine).on_read(index, length, now.mono_ns);
            }
            other => unreachable!("no such purpose: {other}"),
        }
    }

    fn on_received(&mut self, ring: &mut Ring, place: u32, result: i32, now: Now) {
        let connection = self.connection(place);
        connection.is_receiving = false;
        let (conn, is_open) = (connection.conn, connection.is_open);
        match result {
            _ if !is_open => self.let_go(place),
            error if error == -libc::EINTR || error == -libc::EAGAIN => self.receive(ring, place),
            received if received > 0 => {
                let from = place as usize * RECEIVE_BUFFER;
                // SAFETY: the receive into this buffer has completed.
                let bytes = unsafe { self.received.slice(from, received as usize) };
                let connection = self.table[place as usize]
                    .as_mut()
                    .expect("looked at above");
                connection.inbox.extend_from_slice(bytes);
                self.consume_inbox(place, now);
                self.receive(ring, place);
            }
            _ => self.close(conn),
        }
    }

    fn on_sent(&mut self, place: u32, result: i32, now: Now) {
        let connection = self.connection(place);
        connection.is_sending = false;
        let (conn, timed_ns) = (connection.conn, connection.timed_ns);
        let is_timed = std::mem::take(&mut connection.is_timed);
        match result {
            sent if sent >= 0 => {
                self.exported.bytes.add(sent as u64);
                if is_timed {
                    let took = now.mono_ns.saturating_sub(timed_ns);
                    self.exported.released_to_sent.record(took, 1);
                }
                serving(&mut self.machine).on_sent(conn, sent as usize, now.mono_ns);
            }
            error if error == -libc::EAGAIN => {
                self.exported.full.add(1);
                serving(&mut self.machine).on_sent(conn, 0, now.mono_ns);
            }
            _ => self.close(conn),
        }
        self.let_go(place);
    }

    fn drain(&mut self, ring: &mut Ring, now: Now) -> usize {
        let mut work = 0;
        while let Some(effect) = serving(&mut self.machine).poll_effect() {
            work += 1;
            match effect {
                FanoutEffect::SendLog { conn, source } => self.send_log(ring, conn, source),
                FanoutEffect::SendMessages(conn) => self.send_messages(ring, conn),
                FanoutEffect::AwaitRoom(conn) => self.await_room(ring, conn),
                FanoutEffect::Read {
                    slot,
                    position,
                    length,
                } => {
                    self.read(ring, slot, position, length, now);
                }
                FanoutEffect::Close(conn) => self.close(conn),
                FanoutEffect::Doubt => {
                    if let Some(doubts) = &self.doubts {
                        doubts.raised_ns.store(now.mono_ns, Ordering::Release);
                        doubts.raised.raise();
                    }
                }
                FanoutEffect::Damaged(position) => {
                    self.exported.damaged.add(1);
                    tracing::error!(%position, "the journal is damaged here: see `relay verify`");
                }
            }
        }
        work
    }

    fn send_log(&mut self, ring: &mut Ring, conn: ConnId, source: Source) {
        let Some(place) = self.place_of(conn) else {
            return;
        };
        let released_ns = self.released_ns;
        let connection = self.table[place as usize]
            .as_mut()
            .expect("the place is taken");
        assert!(!connection.is_sending, "one send at a time");
        let vectors = &mut connection.vectors;
        let mut count = 0;
        for piece in serving(&mut self.machine).pieces(conn) {
            let from = match source {
                Source::Ring => self.ring.pointer(piece.position),
                Source::Replay { slot, start } => {
                    self.replay[slot as usize].pointer(piece.position.since(start) as usize)
                }
            };
            let vector = libc::iovec {
                iov_base: from.cast(),
                iov_len: piece.length as usize,
            };
            vectors.pieces[count] = vector;
            count += 1;
        }
        vectors.message.msg_iov = vectors.pieces.as_mut_ptr();
        vectors.message.msg_iovlen = count;
        let message = std::ptr::from_ref(&vectors.message);
        connection.is_sending = true;
        connection.is_timed = source == Source::Ring && connection.timed_ns != released_ns;
        connection.timed_ns = released_ns;
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::SendMsg::new(socket, message)
            .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
            .build();
        // SAFETY: the headers are this connection's, which has no other send under way and keeps its place until this one has
        // completed. What they point at lies between the published floor and the release, or in a replay buffer, which the
        // machine leaves alone until it hears of this send; where the connection is closed before, nothing of it is read.
        unsafe {
            ring.push(
                entry,
                Op {
                    agent: AGENT,
                    purpose: SEND,
                    index: place,
                },
            )
        };
        self.exported.sends.add(1);
    }

    fn send_messages(&mut self, ring: &mut Ring, conn: ConnId) {
        let Some(place) = self.place_of(conn) else {
            return;
        };
        let bytes = serving(&mut self.machine).outgoing(conn);
        let (pointer, length) = (bytes.as_ptr(), bytes.len() as u32);
        let connection = self.connection(place);
        connection.is_sending = true;
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Send::new(socket, pointer, length)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the machine keeps the bytes in place until it hears of this send; where the connection is closed before, the socket is
        // shut down, and nothing is read.
        unsafe {
            ring.push(
                entry,
                Op {
                    agent: AGENT,
                    purpose: SEND,
                    index: place,
                },
            )
        };
    }

    fn await_room(&mut self, ring: &mut Ring, conn: ConnId) {
        let Some(place) = self.place_of(conn) else {
            return;
        };
        let connection = self.connection(place);
        connection.is_sending = true;
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::PollAdd::new(socket, libc::POLLOUT as u32).build();
        // SAFETY: a poll points at no memory.
        unsafe {
            ring.push(
                entry,
                Op {
                    agent: AGENT,
                    purpose: ROOM,
                    index: place,
                },
            )
        };
    }

    fn read(&mut self, ring: &mut Ring, slot: u32, position: Position, length: u32, now: Now) {
        let Some((file, offset)) = self.segments.place(position) else {
            serving(&mut self.machine).on_read(slot, None, now.mono_ns);
            return;
        };
        let pages = &self.replay[slot as usize];
        assert!(
            length as usize <= pages.length(),
            "a piece is no longer than its buffer"
        );
        let pointer = pages.pointer(0);
        self.is_reading[slot as usize] = true;
        let entry = opcode::Read::new(types::Fd(file), pointer, length)
            .offset(offset)
            .build();
        // SAFETY: the machine leaves the buffer alone until it hears of this read.
        unsafe {
            ring.push(
                entry,
                Op {
                    agent: AGENT,
                    purpose: READ,
                    index: slot,
                },
            )
        };
        self.exported.reads.add(1);
    }

    fn close(&mut self, conn: ConnId) {
        let Some(place) = self.place_of(conn) else {
            return;
        };
        serving(&mut self.machine).on_closed(conn);
        self.by_conn[conn.index as usize] = u32::MAX;
        let connection = self.connection(place);
        connection.is_open = false;
        // SAFETY: the descriptor is open. An error means that the peer is gone already.
        unsafe { libc::shutdown(connection.socket.as_raw_fd(), libc::SHUT_RDWR) };
        self.let_go(place);
    }

    /// Gives the place up if nothing points at it any more.
    fn let_go(&mut self, place: u32) {
        let Some(connection) = &self.table[place as usize] else {
            return;
        };
        if !connection.is_open && !connection.is_receiving && !connection.is_sending {
            self.table[place as usize] = None;
            self.free.push(place);
        }
    }

    fn export(&mut self, now: Now) {
        let Some(machine) = &self.machine else {
            return;
        };
        if now.mono_ns < self.exported_ns + EXPORT_EVERY_NS {
            return;
        }
        self.exported_ns = now.mono_ns;
        let (subscribers, behind, lag) = machine.census();
        self.exported.subscribers.set(subscribers.into());
        self.exported.behind.set(behind.into());
        self.exported.lag.set(lag);
    }

    /// Takes leave of everyone.
    pub(crate) fn farewell(&mut self, code: TerminateCode, now: Now) {
        if let Some(machine) = &mut self.machine
            && !self.is_stopping
        {
            self.is_stopping = true;
            machine.stop(code, now.mono_ns);
        }
    }

    /// Whether everyone has everything that is released.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.releases.is_empty() && self.machine.as_ref().is_none_or(Fanout::is_caught_up)
    }

    /// Whether everyone has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.machine.as_ref().is_none_or(Fanout::is_empty)
    }

    /// Whether nothing waits in a link for this agent.
    pub(crate) fn is_idle(&self) -> bool {
        if self.words.as_ref().is_some_and(|words| !words.is_empty()) {
            return false;
        }
        let Some(machine) = &self.machine else {
            return true;
        };
        if self.doubts.as_ref().is_some_and(|d| d.settled.is_raised()) {
            return false;
        }
        self.arrivals.is_empty() && self.releases.is_empty() && !machine.has_work()
    }
}

/// The fan-out, where there must be one: who calls this was told by it, or looked.
fn serving(machine: &mut Option<Fanout>) -> &mut Fanout {
    machine.as_mut().expect("a reign has begun")
}

// SAFETY: the pointers in it are only used between two calls of one agent, on whichever thread has that agent.
unsafe impl Send for Vectors {}

impl Vectors {
    const fn new() -> Self {
        let nothing = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: a message header of all zeroes has no name, no pieces, no control data.
        let message = unsafe { std::mem::zeroed() };
        Self {
            message,
            pieces: [nothing; RUNS_MAX + 1],
        }
    }
}
