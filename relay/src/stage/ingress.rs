//! Carries bytes between publishers' sockets and the ingress machine, and its commands to the sequencer.
//!
//! A connection has one receive buffer: a small one before its logon, one of its publisher's share after. Received bytes stay
//! where they are until the sequencer took them; then the place is used again. A place in the agent's own table is given
//! up only when no operation of the kernel's points at its buffer any more.
//!
//! Each receive is asked for anew rather than multishot on buffers that connections share: in the floor's measurements both
//! cost the same within noise, and a buffer of its own lets the sequencer copy records from where they arrived, while
//! not asking is all it takes to hold a publisher back. Sockets are named by descriptor: registered ones measured the same
//! in the floor (1.09 of a plain ping-pong against 1.09), and would have to be entered and taken out with every connection.
//! Nor are they polled with each turn as the floor does when it spins, which saves 0.5 to 1 us of a hop there: here that
//! would cost a receive for every connection and turn.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, types};
use relay_core::command::{ConnId, Now, ToIngress};
use relay_core::ingress::{Ingress, IngressEffect};
use relay_wire::code::TerminateCode;

use crate::arena::Pages;
use crate::counters::{Counter, CounterFile};
use crate::link::Parking;
use crate::ring::{Completion, Op, Ring};
use crate::stage::{Arrival, Command, push_all};

/// This agent's number in an [`Op`].
pub(crate) const AGENT: u8 = 1;
const ACCEPT: u8 = 1;
const RECEIVE: u8 = 2;
const SEND: u8 = 3;
const ROOM: u8 = 4;

/// Bytes of a receive buffer before the logon.
pub(crate) const SMALL_BUFFER: usize = 1024;
/// A closed connection's peer has this long to read the farewell.
const LINGER_NS: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Farewell said; what still comes is thrown away until the peer closes too.
    Lingering {
        since_ns: u64,
    },
    /// Waits for the kernel and the sequencer to let go.
    Closed,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    conn: ConnId,
    life: Life,
    /// Number among the publishers' buffers; `None` for the small one of its own place.
    buffer: Option<u32>,
    /// Bytes received into the buffer.
    filled: usize,
    /// Bytes of them that were cut into items.
    parsed: usize,
    /// Bytes of them that the sequencer took.
    taken: usize,
    /// Commands that name bytes of the buffer and were not taken.
    outstanding: u32,
    is_receiving: bool,
    /// Stands in the agent's list of those that are to receive.
    is_to_receive: bool,
    is_sending: bool,
    wants_more: bool,
}

/// What [`IngressAgent::new`] takes.
pub(crate) struct IngressParts {
    pub(crate) machine: Ingress,
    pub(crate) listener: OwnedFd,
    pub(crate) received: Arc<Pages>,
    pub(crate) receive_buffer_size: usize,
    pub(crate) receive_buffers: u32,
    pub(crate) connections: u32,
    pub(crate) commands: rtrb::Producer<Command>,
    pub(crate) replies: rtrb::Consumer<ToIngress>,
    pub(crate) arrivals: rtrb::Producer<Arrival>,
    pub(crate) sequence: Parking,
    pub(crate) egress: Parking,
}

/// See the module's description.
pub(crate) struct IngressAgent {
    machine: Ingress,
    listener: OwnedFd,
    is_accepting: bool,
    table: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// Place in the table of each of the machine's connections.
    by_conn: Vec<u32>,
    small: Pages,
    received: Arc<Pages>,
    receive_buffer_size: usize,
    free_buffers: Vec<u32>,
    commands: rtrb::Producer<Command>,
    pending_commands: VecDeque<Command>,
    replies: rtrb::Consumer<ToIngress>,
    arrivals: rtrb::Producer<Arrival>,
    pending_arrivals: VecDeque<Arrival>,
    sends: Vec<ConnId>,
    /// Places that receive on once this turn's words are with the kernel.
    to_receive: Vec<u32>,
    lingering: u32,
    /// Connections that began to linger, oldest first; some have gone since.
    lingerers: VecDeque<(u32, ConnId)>,
    sequence: Parking,
    egress: Parking,
    is_stopping: bool,
    accepted: Counter,
    refused: Counter,
    connections: Counter,
    bytes: Counter,
}

impl IngressAgent {
    pub(crate) fn new(parts: IngressParts, counters: &mut CounterFile) -> std::io::Result<Self> {
        // Closed connections keep their place a little while, so there are twice as many places.
        let places = parts.connections * 2;
        Ok(Self {
            machine: parts.machine,
            listener: parts.listener,
            is_accepting: false,
            table: (0..places).map(|_| None).collect(),
            free: (0..places).rev().collect(),
            by_conn: vec![u32::MAX; parts.connections as usize],
            small: Pages::new(places as usize * SMALL_BUFFER)?,
            received: parts.received,
            receive_buffer_size: parts.receive_buffer_size,
            free_buffers: (0..parts.receive_buffers).rev().collect(),
            commands: parts.commands,
            pending_commands: VecDeque::with_capacity(4_096),
            replies: parts.replies,
            arrivals: parts.arrivals,
            pending_arrivals: VecDeque::new(),
            sends: Vec::with_capacity(places as usize),
            to_receive: Vec::with_capacity(2 * places as usize),
            lingering: 0,
            lingerers: VecDeque::with_capacity(places as usize),
            sequence: parts.sequence,
            egress: parts.egress,
            is_stopping: false,
            accepted: counters.counter("ingress.accepted"),
            refused: counters.counter("ingress.refused"),
            connections: counters.counter("ingress.connections"),
            bytes: counters.counter("ingress.bytes_received"),
        })
    }

    /// One turn after the others' turns: their words are carried out. Returns how much was done.
    pub(crate) fn turn(&mut self, ring: &mut Ring, now: Now) -> usize {
        if !self.is_accepting && !self.is_stopping && !self.free.is_empty() {
            self.is_accepting = true;
            let entry = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build();
            // SAFETY: an accept without an address buffer points at no memory.
            unsafe {
                ring.push(
                    entry,
                    Op {
                        agent: AGENT,
                        purpose: ACCEPT,
                        index: 0,
                    },
                )
            };
        }
        let mut work = 0;
        while let Ok(reply) = self.replies.pop() {
            work += 1;
            if let ToIngress::Taken { conn, through } = reply {
                self.on_taken(conn, through);
            } else {
                self.machine.on_reply(reply, now.mono_ns);
            }
            self.drain(now);
        }
        self.machine.on_time(now.mono_ns);
        self.drain(now);
        self.end_lingering(now);
        work + self.flush(ring)
    }

    /// Passes commands and arrivals on, and starts the sends, right before the kernel is entered.
    fn flush(&mut self, ring: &mut Ring) -> usize {
        let mut work = push_all(&mut self.arrivals, &mut self.pending_arrivals);
        if work > 0 {
            self.egress.wake();
        }
        while let Some(conn) = self.sends.pop() {
            work += 1;
            self.send(ring, conn);
        }
        while let Some(place) = self.to_receive.pop() {
            if let Some(connection) = &mut self.table[place as usize] {
                connection.is_to_receive = false;
                self.receive(ring, place);
            }
        }
        work
    }

    /// Receives at this place when the turn is over: what others wait for goes first.
    fn receive_later(&mut self, place: u32) {
        let connection = self.connection(place);
        if !connection.is_to_receive {
            connection.is_to_receive = true;
            self.to_receive.push(place);
        }
    }

    fn place_of(&self, conn: ConnId) -> Option<u32> {
        let place = self.by_conn[conn.index as usize];
        let connection = self.table.get(place as usize)?.as_ref()?;
        (connection.conn == conn).then_some(place)
    }

    fn connection(&mut self, place: u32) -> &mut Connection {
        self.table[place as usize]
            .as_mut()
            .expect("the place is taken")
    }

    /// An operation of this agent's completed.
    pub(crate) fn on_completion(&mut self, ring: &mut Ring, completion: Completion, now: Now) {
        let place = completion.op.index;
        match completion.op.purpose {
            ACCEPT => self.on_accept(ring, completion, now),
            RECEIVE => self.on_received(place, completion.result, now),
            SEND => {
                let connection = self.connection(place);
                connection.is_sending = false;
                let conn = connection.conn;
                match completion.result {
                    sent if sent >= 0 => self.machine.on_sent(conn, sent as usize, now.mono_ns),
                    error if error == -libc::EAGAIN => {
                        self.await_room(ring, place);
                        return;
                    }
                    _ => self.machine.on_closed(conn),
                }
                self.let_go(place);
            }
            ROOM => {
                let connection = self.connection(place);
                connection.is_sending = false;
                let conn = connection.conn;
                self.machine.on_sent(conn, 0, now.mono_ns);
                self.let_go(place);
            }
            other => unreachable!("no such purpose: {other}"),
        }
        self.drain(now);
    }

    fn on_accept(&mut self, ring: &mut Ring, completion: Completion, now: Now) {
        if !completion.has_more {
            self.is_accepting = false;
        }
        if completion.result < 0 {
            return;
        }
        // SAFETY: the accept just made this descriptor and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
        self.accepted.add(1);
        let nonce = match random_nonce() {
            Ok(nonce) => nonce,
            Err(error) => {
                tracing::error!(%error, "no random bytes for a challenge; connection refused");
                return;
            }
        };
        let Some(place) = self.free.pop() else {
            return;
        };
        let welcomed = self.machine.on_accept(nonce, now.mono_ns);
        self.refused.set(self.machine.refused());
        let Some(conn) = welcomed else {
            self.free.push(place);
            return;
        };
        configure(&socket);
        self.by_conn[conn.index as usize] = place;
        self.table[place as usize] = Some(Connection {
            socket,
            conn,
            life: Life::Open,
            buffer: None,
            filled: 0,
            parsed: 0,
            taken: 0,
            outstanding: 0,
            is_receiving: false,
            is_to_receive: false,
            is_sending: false,
            wants_more: true,
        });
        self.connections.set(self.machine.connections() as u64);
        self.receive(ring, place);
    }

    fn buffer_of(&self, place: u32) -> (&Pages, usize, usize) {
        let connection = self.table[place as usize]
            .as_ref()
            .expect("the place is taken");
        match connection.buffer {
            Some(buffer) => {
                let size = self.receive_buffer_size;
                (&self.received, buffer as usize * size, size)
            }
            None => (&self.small, place as usize * SMALL_BUFFER, SMALL_BUFFER),
        }
    }

    /// Receives into what is free of the buffer, making room first where that can be done.
    fn receive(&mut self, ring: &mut Ring, place: u32) {
        let (_, base, size) = self.buffer_of(place);
        let connection = self.connection(place);
        if connection.is_receiving || connection.life == Life::Closed {
            return;
        }
        let is_untouched = connection.outstanding == 0;
        if connection.life == Life::Open && is_untouched {
            connection.taken = connection.parsed;
        }
        let (from, rest) = (connection.taken, connection.filled - connection.taken);
        let is_short = size - connection.filled < size / 4;
        if is_untouched && from > 0 && (rest == 0 || is_short) {
            connection.parsed -= from;
            connection.filled = rest;
            connection.taken = 0;
            let (pages, ..) = self.buffer_of(place);
            // SAFETY: no receive is under way, and no command names bytes of this buffer.
            unsafe { pages.shift(base + from, base, rest) };
        }
        let connection = self.connection(place);
        let room = size - connection.filled;
        if room == 0 {
            // A whole buffer the sequencer has not taken: go on when it has.
            return;
        }
        connection.is_receiving = true;
        let (filled, socket) = (connection.filled, connection.socket.as_raw_fd());
        let (pages, ..) = self.buffer_of(place);
        let pointer = pages.pointer(base + filled);
        let entry = opcode::Recv::new(types::Fd(socket), pointer, room as u32).build();
        // SAFETY: the bytes from `filled` on belong to nobody until the completion, and the pages outlive the ring.
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

    fn on_received(&mut self, place: u32, result: i32, now: Now) {
        let connection = self.connection(place);
        connection.is_receiving = false;
        let conn = connection.conn;
        match (connection.life, result) {
            (Life::Closed, _) => self.let_go(place),
            (Life::Lingering { .. }, result) if result > 0 => self.receive_later(place),
            (Life::Lingering { .. }, _) => self.close_for_good(place),
            (Life::Open, result) if result > 0 => {
                connection.filled += result as usize;
                self.bytes.add(result as u64);
                self.parse(place, now);
            }
            (Life::Open, error) if error == -libc::EINTR || error == -libc::EAGAIN => {
                self.receive_later(place);
            }
            (Life::Open, _) => self.machine.on_closed(conn),
        }
    }

    fn parse(&mut self, place: u32, now: Now) {
        if self.is_stopping {
            return;
        }
        let (_, base, _) = self.buffer_of(place);
        let connection = self.table[place as usize]
            .as_ref()
            .expect("the place is taken");
        let (conn, parsed, filled) = (connection.conn, connection.parsed, connection.filled);
        let buffer = connection.buffer;
        let pages = if buffer.is_some() {
            &*self.received
        } else {
            &self.small
        };
        // SAFETY: the kernel has filled these bytes and no receive points at them now; the sequencer only reads them.
        let bytes = unsafe { pages.slice(base + parsed, filled - parsed) };
        let done = self
            .machine
            .on_bytes(conn, bytes, parsed as u32, now.utc_ns, now.mono_ns);
        let connection = self.connection(place);
        connection.parsed += done.consumed;
        connection.outstanding += done.commands;
        connection.wants_more = done.is_open;
        self.collect_commands(buffer.unwrap_or(0), now);
        if done.is_open {
            self.receive_later(place);
        }
    }

    /// Takes the machine's commands; those that name bytes are all about `buffer`.
    fn collect_commands(&mut self, buffer: u32, now: Now) {
        while let Some(command) = self.machine.poll_command() {
            let passed_ns = now.mono_ns;
            self.pending_commands.push_back(Command {
                command,
                buffer,
                passed_ns,
            });
        }
        if push_all(&mut self.commands, &mut self.pending_commands) > 0 {
            self.sequence.wake();
        }
    }

    fn on_taken(&mut self, conn: ConnId, through: u32) {
        // The connection may be closed and its number given out again: look for the very one.
        let place = self.place_of(conn).or_else(|| {
            self.table
                .iter()
                .position(|c| c.as_ref().is_some_and(|c| c.conn == conn))
                .map(|place| place as u32)
        });
        let Some(place) = place else {
            return;
        };
        let connection = self.connection(place);
        connection.outstanding -= 1;
        connection.taken = through as usize;
        let is_waiting = !connection.is_receiving && connection.wants_more;
        match connection.life {
            Life::Open if is_waiting => self.receive_later(place),
            Life::Open | Life::Lingering { .. } => {}
            Life::Closed => self.let_go(place),
        }
    }

    fn drain(&mut self, now: Now) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                IngressEffect::Send(conn) => self.sends.push(conn),
                IngressEffect::Close(conn) => {
                    if let Some(place) = self.place_of(conn) {
                        self.close(place, now);
                    }
                }
                IngressEffect::WidenReceive(conn) => {
                    if let Some(place) = self.place_of(conn) {
                        self.widen(place, now);
                    }
                }
                IngressEffect::HandOver { conn, credential } => {
                    if let Some(place) = self.place_of(conn) {
                        self.hand_over(place, credential);
                    }
                }
            }
        }
        self.collect_commands(0, now);
    }

    /// Gives a publisher its receive buffer, with what it sent before it had one.
    fn widen(&mut self, place: u32, now: Now) {
        let Some(buffer) = self.free_buffers.pop() else {
            // Only while connections of publishers that logged on anew still linger: the client comes back.
            let conn = self.connection(place).conn;
            self.machine.on_closed(conn);
            return;
        };
        let connection = self.connection(place);
        assert!(
            !connection.is_receiving,
            "nothing is received between logon and answer"
        );
        let (parsed, filled) = (connection.parsed, connection.filled);
        connection.buffer = Some(buffer);
        connection.filled = filled - parsed;
        connection.parsed = 0;
        connection.taken = 0;
        let small = place as usize * SMALL_BUFFER;
        // SAFETY: neither buffer has an operation under way; the new one is nobody else's.
        unsafe {
            let early = self.small.slice(small + parsed, filled - parsed);
            let to = self
                .received
                .pointer(buffer as usize * self.receive_buffer_size);
            std::ptr::copy_nonoverlapping(early.as_ptr(), to, early.len());
        }
        self.parse(place, now);
    }

    fn hand_over(&mut self, place: u32, credential: u32) {
        let connection = self.table[place as usize]
            .take()
            .expect("the place is taken");
        assert!(
            !connection.is_receiving && !connection.is_sending,
            "the kernel let go of it"
        );
        let from = place as usize * SMALL_BUFFER + connection.parsed;
        // SAFETY: no receive is under way.
        let early = unsafe {
            self.small
                .slice(from, connection.filled - connection.parsed)
        };
        self.pending_arrivals.push_back(Arrival {
            early: early.to_vec(),
            socket: connection.socket,
            credential,
        });
        self.by_conn[connection.conn.index as usize] = u32::MAX;
        self.free.push(place);
    }

    fn send(&mut self, ring: &mut Ring, conn: ConnId) {
        let Some(place) = self.place_of(conn) else {
            return;
        };
        let bytes = self.machine.outgoing(conn);
        let (pointer, length) = (bytes.as_ptr(), bytes.len() as u32);
        let connection = self.connection(place);
        connection.is_sending = true;
        let entry = opcode::Send::new(types::Fd(connection.socket.as_raw_fd()), pointer, length)
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

    fn await_room(&mut self, ring: &mut Ring, place: u32) {
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

    /// The machine is done with the connection: no more is sent, what still comes is thrown away until the peer has read
    /// the farewell and closes too.
    fn close(&mut self, place: u32, now: Now) {
        let connection = self.connection(place);
        let conn = connection.conn;
        connection.life = Life::Lingering {
            since_ns: now.mono_ns,
        };
        connection.wants_more = false;
        shut_down(&connection.socket, libc::SHUT_WR);
        self.by_conn[conn.index as usize] = u32::MAX;
        self.lingering += 1;
        if self.lingerers.len() == self.lingerers.capacity() {
            // Where very many come and go; those that still linger are no more than there are places.
            let table = &self.table;
            self.lingerers.retain(|&(place, conn)| {
                let connection = table[place as usize].as_ref();
                connection.is_some_and(|c| c.conn == conn)
            });
        }
        self.lingerers.push_back((place, conn));
        self.receive_later(place);
        self.connections.set(self.machine.connections() as u64);
    }

    /// Gives up who has lingered long enough; the oldest stand first, so that a turn looks at no more of them.
    fn end_lingering(&mut self, now: Now) {
        while let Some(&(place, conn)) = self.lingerers.front() {
            let connection = self.table[place as usize].as_ref();
            let life = connection.filter(|c| c.conn == conn).map(|c| c.life);
            if let Some(Life::Lingering { since_ns }) = life {
                if now.mono_ns < since_ns + LINGER_NS {
                    return;
                }
                self.close_for_good(place);
            }
            self.lingerers.pop_front();
        }
    }

    fn close_for_good(&mut self, place: u32) {
        let connection = self.connection(place);
        connection.life = Life::Closed;
        shut_down(&connection.socket, libc::SHUT_RDWR);
        self.lingering -= 1;
        self.let_go(place);
    }

    /// Gives the place up if nothing points at it any more.
    fn let_go(&mut self, place: u32) {
        let Some(connection) = &self.table[place as usize] else {
            return;
        };
        let is_held = connection.is_receiving || connection.is_sending;
        if connection.life == Life::Closed && !is_held && connection.outstanding == 0 {
            if let Some(buffer) = connection.buffer {
                self.free_buffers.push(buffer);
            }
            self.table[place as usize] = None;
            self.free.push(place);
        }
    }

    /// Takes nothing more in.
    pub(crate) const fn begin_stop(&mut self) {
        self.is_stopping = true;
    }

    /// Takes leave of everyone.
    pub(crate) fn farewell(&mut self, code: TerminateCode, now: Now) {
        self.is_stopping = true;
        self.machine.stop(code, now.mono_ns);
    }

    /// Whether everyone has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.machine.is_empty() && self.lingering == 0
    }

    /// Whether nothing waits in a link for this agent.
    pub(crate) fn is_idle(&self) -> bool {
        self.replies.is_empty()
    }
}

fn random_nonce() -> Result<[u8; 32], getrandom::Error> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

fn shut_down(socket: &OwnedFd, how: libc::c_int) {
    // SAFETY: the descriptor is open. An error means that the peer is gone already.
    unsafe { libc::shutdown(socket.as_raw_fd(), how) };
}

/// No delay for small segments, and a peer that acknowledges nothing is given up by the kernel too.
fn configure(socket: &OwnedFd) {
    let socket = socket2::SockRef::from(socket);
    let user_timeout = std::time::Duration::from_secs(10);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(user_timeout)));
    if let Err(error) = set {
        tracing::warn!(%error, "a connection's socket options could not be set");
    }
}
