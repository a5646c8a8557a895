//! Carries bytes between the node and its peers' sockets, and pieces of the log from disk to peers that catch up.
//!
//! Runs on the thread of the sequence agent, which has the node. A connection has one receive buffer: a small one until the
//! other side has proven itself, a large one after, so that strangers cost little. What the node can't take now stays where
//! it is and is offered again, and nothing more is received until then. A place in the table is given up only when no operation
//! of the kernel's points at its buffer any more.
//!
//! Sends never wait (MSG_DONTWAIT), so they are over when the enter that submits them returns. The bytes stay in place until
//! their completion all the same, also those of a closed connection.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::Timespec;
use io_uring::{opcode, types};
use relay_core::command::Now;
use relay_core::links::{LinkEffect, LinkId, STRANGERS_MAX};
use relay_core::log::LogWindow;
use relay_core::node::{Node, ReadPurpose};
use relay_wire::id::Position;

use crate::arena::Pages;
use crate::counters::{Counter, CounterFile};
use crate::ring::{Completion, Op, Ring};
use crate::stage::ForPeers;
use crate::storage::Segments;

/// This agent's number in an [`Op`].
pub(crate) const AGENT: u8 = 4;
const ACCEPT: u8 = 1;
const CONNECT: u8 = 2;
const CONNECT_TIMEOUT: u8 = 3;
const RECEIVE: u8 = 4;
const SEND: u8 = 5;
const ROOM: u8 = 6;
const READ: u8 = 7;
const READ_FOR_REPAIR: u8 = 8;
const KNOCK: u8 = 9;

/// Bytes of a receive buffer before the proof.
const SMALL_BUFFER: usize = 1024;
/// Large buffers for each peer: one for its connection, one for another that takes its place.
const LARGE_PER_PEER: usize = 2;
/// A peer that acknowledges nothing is given up by the kernel too.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket's address as the kernel wants it.
struct Target {
    address: socket2::SockAddr,
    dialing: Option<OwnedFd>,
    knocking: Option<OwnedFd>,
    catch_up: Reading,
    repair: Reading,
}

/// Where pieces of the log are read to, and which one is under way.
struct Reading {
    pages: Pages,
    position: Option<Position>,
}

impl Reading {
    fn new(length: usize) -> std::io::Result<Self> {
        Ok(Self {
            pages: Pages::new(length)?,
            position: None,
        })
    }
}

impl Target {
    /// A new socket, unless one `is_busy`.
    fn socket(&self, is_busy: bool) -> Option<OwnedFd> {
        if is_busy {
            return None;
        }
        let made = socket2::Socket::new(self.address.domain(), socket2::Type::STREAM, None);
        made.ok().map(OwnedFd::from)
    }

    fn reading(&mut self, purpose: ReadPurpose) -> &mut Reading {
        match purpose {
            ReadPurpose::CatchUp => &mut self.catch_up,
            ReadPurpose::Repair => &mut self.repair,
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    link: LinkId,
    is_open: bool,
    /// Number among the large buffers; `None` for the small one of its own place.
    buffer: Option<u32>,
    /// Bytes received into the buffer.
    filled: usize,
    /// Bytes of them that the node is done with.
    heard: usize,
    is_receiving: bool,
    is_sending: bool,
    /// In the list of those with something to hear.
    is_listed: bool,
}

/// What [`ReplicateAgent::new`] takes.
pub(crate) struct ReplicateParts {
    pub(crate) listener: OwnedFd,
    /// In the order of the configuration.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) segments: Segments,
    /// Most bytes of a message, from the node.
    pub(crate) message_length_max: usize,
    /// Most time to reach a peer, from the node, ns.
    pub(crate) dial_patience_ns: u64,
    /// Most bytes of the log that are read at a time.
    pub(crate) read_length_max: u32,
}

struct Exported {
    accepted: Counter,
    dialed: Counter,
    dials_failed: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    full: Counter,
    stalls: Counter,
    reads: Counter,
}

/// See the module's description.
pub(crate) struct ReplicateAgent {
    listener: OwnedFd,
    is_accepting: bool,
    targets: Vec<Target>,
    table: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// Place in the table of each of the node's links.
    by_link: Vec<u32>,
    small: Pages,
    large: Pages,
    large_size: usize,
    free_large: Vec<u32>,
    message_length_max: usize,
    /// Places with bytes the node has not heard.
    to_hear: Vec<u32>,
    hearing: Vec<u32>,
    /// Places of which more may be received.
    to_receive: Vec<u32>,
    segments: Segments,
    timeout: Box<Timespec>,
    is_stopping: bool,
    exported: Exported,
}

impl ReplicateAgent {
    pub(crate) fn new(parts: ReplicateParts, counters: &mut CounterFile) -> std::io::Result<Self> {
        let links = 2 * parts.peers.len() + STRANGERS_MAX;
        // Closed connections keep their place until the kernel lets go, so there are twice as many places.
        let places = 2 * links;
        let large_size = (2 * parts.message_length_max).next_multiple_of(64 << 10);
        let large = parts.peers.len() * LARGE_PER_PEER;
        let read_length = parts.read_length_max as usize;
        let target = |address: SocketAddr| -> std::io::Result<Target> {
            Ok(Target {
                address: address.into(),
                dialing: None,
                knocking: None,
                catch_up: Reading::new(read_length)?,
                repair: Reading::new(read_length)?,
            })
        };
        Ok(Self {
            listener: parts.listener,
            is_accepting: false,
            targets: parts
                .peers
                .into_iter()
                .map(target)
                .collect::<Result<_, _>>()?,
            table: (0..places).map(|_| None).collect(),
            free: (0..places as u32).rev().collect(),
            by_link: vec![u32::MAX; links],
            small: Pages::new(places * SMALL_BUFFER)?,
            large: Pages::new(large * large_size)?,
            large_size,
            free_large: (0..large as u32).rev().collect(),
            message_length_max: parts.message_length_max,
            to_hear: Vec::with_capacity(places),
            hearing: Vec::with_capacity(places),
            to_receive: Vec::with_capacity(places),
            segments: parts.segments,
            timeout: Box::new(Timespec::from(Duration::from_nanos(parts.dial_patience_ns))),
            is_stopping: false,
            exported: Exported {
                accepted: counters.counter("mirror.accepted"),
                dialed: counters.counter("mirror.dialed"),
                dials_failed: counters.counter("mirror.dials_failed"),
                bytes_in: counters.counter("mirror.bytes_received"),
                bytes_out: counters.counter("mirror.bytes_sent"),
                full: counters.counter("mirror.sockets_full"),
                stalls: counters.counter("mirror.stalls"),
                reads: counters.counter("mirror.log_reads"),
            },
        })
    }

    /// Hands in what came from peers; returns how much that was. Within the turn of the sequence agent.
    pub(crate) fn hear(&mut self, node: &mut Node, window: &mut LogWindow<'_>, now: Now) -> usize {
        std::mem::swap(&mut self.to_hear, &mut self.hearing);
        let mut work = 0;
        while let Some(place) = self.hearing.pop() {
            work += self.hear_one(place, node, window, now);
        }
        work
    }

    fn hear_one(
        &mut self,
        place: u32,
        node: &mut Node,
        window: &mut LogWindow<'_>,
        now: Now,
    ) -> usize {
        let (pages, base, _) = self.buffer_of(place);
        let connection = self.table[place as usize]
            .as_ref()
            .expect("it is listed, so it is not given up");
        let unheard = connection.filled - connection.heard;
        let (link, is_open) = (connection.link, connection.is_open);
        let from = base + connection.heard;
        // SAFETY: these bytes were received, and a receive under way only fills those behind them.
        let bytes = unsafe { pages.slice(from, unheard) };
        let heard = if is_open {
            node.on_link_bytes(link, bytes, now, window)
        } else {
            relay_core::node::Heard {
                consumed: unheard,
                is_stalled: false,
            }
        };
        let connection = self.connection(place);
        connection.heard += heard.consumed;
        connection.is_listed = heard.is_stalled;
        let is_small = connection.buffer.is_none();
        if heard.is_stalled {
            self.to_hear.push(place);
            self.exported.stalls.add(1);
        } else if is_open {
            self.to_receive.push(place);
            if is_small && node.is_link_proven(link) && !self.widen(place) {
                // Only while earlier connections of the peer are still with the kernel: it comes back.
                node.on_link_closed(link, now);
                self.close(place);
            }
        }
        self.let_go(place);
        heard.consumed
    }

    /// One turn after the sequence agent's: goes on receiving and accepting.
    pub(crate) fn turn(&mut self, ring: &mut Ring) {
        if !self.is_accepting && !self.is_stopping && !self.free.is_empty() {
            self.is_accepting = true;
            let entry = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build();
            // SAFETY: an accept without an address buffer points at no memory.
            unsafe { ring.push(entry, op(ACCEPT, 0)) };
        }
        while let Some(place) = self.to_receive.pop() {
            self.receive(ring, place);
        }
    }

    /// Does what the node wants.
    pub(crate) fn carry_out(&mut self, ring: &mut Ring, node: &mut Node, wish: ForPeers, now: Now) {
        match wish {
            ForPeers::Link(LinkEffect::Dial(peer)) => self.dial(ring, node, peer, now),
            ForPeers::Link(LinkEffect::Knock(peer)) => self.knock(ring, peer),
            ForPeers::Link(LinkEffect::Send(link)) => self.send(ring, node, link, now),
            ForPeers::Link(LinkEffect::Close(link)) => {
                if let Some(place) = self.place_of(link) {
                    self.close(place);
                }
            }
            ForPeers::Read {
                peer,
                purpose,
                position,
                length,
            } => self.read(ring, node, (peer, purpose), (position, length), now),
        }
    }

    fn connection(&mut self, place: u32) -> &mut Connection {
        self.table[place as usize]
            .as_mut()
            .expect("the place is taken")
    }

    fn place_of(&self, link: LinkId) -> Option<u32> {
        let is_it = |connection: &Option<Connection>| {
            let connection = connection.as_ref();
            connection.is_some_and(|connection| connection.is_open && connection.link == link)
        };
        let place = self.by_link[link.index as usize];
        if self.table.get(place as usize).is_some_and(is_it) {
            return Some(place);
        }
        // The node may have given the number out again before this one's end was carried out.
        self.table.iter().position(is_it).map(|at| at as u32)
    }

    fn dial(&mut self, ring: &mut Ring, node: &mut Node, peer: u32, now: Now) {
        let target = &mut self.targets[peer as usize];
        let Some(socket) = target.socket(target.dialing.is_some()) else {
            node.on_dial_failed(peer, now);
            return;
        };
        target.dialing = Some(socket);
        self.exported.dialed.add(1);
        self.connect(ring, peer, CONNECT);
    }

    /// Where an earlier one is still under way, or there is no descriptor left, nothing is learnt.
    fn knock(&mut self, ring: &mut Ring, peer: u32) {
        let target = &mut self.targets[peer as usize];
        let Some(socket) = target.socket(target.knocking.is_some()) else {
            return;
        };
        target.knocking = Some(socket);
        self.connect(ring, peer, KNOCK);
    }

    /// Connects the socket made for it.
    fn connect(&mut self, ring: &mut Ring, peer: u32, purpose: u8) {
        let target = &self.targets[peer as usize];
        let socket = match purpose {
            KNOCK => &target.knocking,
            _ => &target.dialing,
        };
        let socket = socket.as_ref().expect("it was made before");
        let connect = opcode::Connect::new(
            types::Fd(socket.as_raw_fd()),
            target.address.as_ptr().cast(),
            target.address.len(),
        )
        .build()
        .flags(Flags::IO_LINK);
        let timeout = opcode::LinkTimeout::new(&raw const *self.timeout).build();
        // A link between two entries holds within one enter only.
        ring.make_room(2);
        // SAFETY: the address lies in the table of targets and the time in a box, both as long as the agent lives; the agent
        // outlives its ring's operations.
        unsafe {
            ring.push(connect, op(purpose, peer));
            ring.push(timeout, op(CONNECT_TIMEOUT, peer));
        }
    }

    fn on_dialed(&mut self, node: &mut Node, peer: u32, result: i32, now: Now) {
        let socket = self.targets[peer as usize].dialing.take();
        self.on_answered(node, peer, result);
        let socket = socket.filter(|socket| result == 0 && !met_itself(socket));
        let Some(socket) = socket.filter(|_| !self.is_stopping) else {
            self.exported.dials_failed.add(1);
            node.on_dial_failed(peer, now);
            return;
        };
        if !self.open(node, Some(peer), socket, now) {
            node.on_dial_failed(peer, now);
        }
    }

    fn on_knocked(&mut self, node: &mut Node, peer: u32, result: i32) {
        self.targets[peer as usize].knocking = None;
        self.on_answered(node, peer, result);
    }

    /// A refusal comes from the peer's system, which knows that nobody listens.
    fn on_answered(&self, node: &mut Node, peer: u32, result: i32) {
        if result == -libc::ECONNREFUSED && !self.is_stopping {
            node.on_peer_refused(peer);
        }
    }

    /// Takes a connection in; false where there is no place for it.
    fn open(&mut self, node: &mut Node, dialed: Option<u32>, socket: OwnedFd, now: Now) -> bool {
        let mut nonce = [0; 32];
        if let Err(error) = getrandom::fill(&mut nonce) {
            tracing::error!(%error, "no random bytes for a handshake; mirror connection refused");
            return false;
        }
        let Some(place) = self.free.pop() else {
            return false;
        };
        let Some(link) = node.on_link_opened(dialed, nonce, now) else {
            self.free.push(place);
            return false;
        };
        configure(&socket);
        self.by_link[link.index as usize] = place;
        self.table[place as usize] = Some(Connection {
            socket,
            link,
            is_open: true,
            buffer: None,
            filled: 0,
            heard: 0,
            is_receiving: false,
            is_sending: false,
            is_listed: false,
        });
        self.to_receive.push(place);
        true
    }

    fn buffer_of(&self, place: u32) -> (&Pages, usize, usize) {
        let connection = self.table[place as usize]
            .as_ref()
            .expect("the place is taken");
        match connection.buffer {
            Some(buffer) => (
                &self.large,
                buffer as usize * self.large_size,
                self.large_size,
            ),
            None => (&self.small, place as usize * SMALL_BUFFER, SMALL_BUFFER),
        }
    }

    /// Gives a proven peer its large buffer, with what it sent already; false where there is none.
    fn widen(&mut self, place: u32) -> bool {
        let Some(buffer) = self.free_large.pop() else {
            return false;
        };
        let connection = self.connection(place);
        assert!(
            !connection.is_receiving,
            "what was received is heard before more is asked for"
        );
        let (heard, rest) = (connection.heard, connection.filled - connection.heard);
        connection.buffer = Some(buffer);
        connection.filled = rest;
        connection.heard = 0;
        // SAFETY: neither buffer has an operation under way; the new one is nobody else's.
        unsafe {
            let from = place as usize * SMALL_BUFFER + heard;
            let early = self.small.slice(from, rest);
            let to = self.large.pointer(buffer as usize * self.large_size);
            std::ptr::copy_nonoverlapping(early.as_ptr(), to, rest);
        }
        true
    }

    /// Receives into what is free of the buffer, making room first where a whole message might not fit.
    fn receive(&mut self, ring: &mut Ring, place: u32) {
        let Some(connection) = &self.table[place as usize] else {
            return;
        };
        if connection.is_receiving || connection.is_listed || !connection.is_open {
            return;
        }
        let (pages, base, size) = self.buffer_of(place);
        let (heard, filled) = (connection.heard, connection.filled);
        let wanted = self.message_length_max.min(size / 2);
        let is_shifted = heard > 0 && (heard == filled || size - filled < wanted);
        if is_shifted {
            // SAFETY: no receive is under way, and nobody looks at the bytes.
            unsafe { pages.shift(base + heard, base, filled - heard) };
        }
        let start = if is_shifted { filled - heard } else { filled };
        let (pointer, room) = (pages.pointer(base + start), size - start);
        let connection = self.connection(place);
        if is_shifted {
            connection.heard = 0;
            connection.filled = start;
        }
        if room == 0 {
            return;
        }
        connection.is_receiving = true;
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Recv::new(socket, pointer, room as u32).build();
        // SAFETY: the bytes from `filled` on belong to nobody until the completion, and the pages outlive the ring.
        unsafe { ring.push(entry, op(RECEIVE, place)) };
    }

    /// An operation of this agent's completed.
    pub(crate) fn on_completion(
        &mut self,
        ring: &mut Ring,
        node: &mut Node,
        completion: Completion,
        now: Now,
    ) {
        let index = completion.op.index;
        match completion.op.purpose {
            ACCEPT => self.on_accept(node, completion, now),
            CONNECT => self.on_dialed(node, index, completion.result, now),
            KNOCK => self.on_knocked(node, index, completion.result),
            CONNECT_TIMEOUT => {}
            RECEIVE => self.on_received(node, index, completion.result, now),
            SEND => self.on_sent(ring, node, index, completion.result, now),
            ROOM => {
                let connection = self.connection(index);
                connection.is_sending = false;
                let link = connection.link;
                node.on_link_sent(link, 0);
                self.let_go(index);
            }
            READ => {
                let purpose = ReadPurpose::CatchUp;
                self.on_read(node, (index, purpose), completion.result, now);
            }
            READ_FOR_REPAIR => {
                let purpose = ReadPurpose::Repair;
                self.on_read(node, (index, purpose), completion.result, now);
            }
            other => unreachable!("no such purpose: {other}"),
        }
    }

    fn on_accept(&mut self, node: &mut Node, completion: Completion, now: Now) {
        if !completion.has_more {
            self.is_accepting = false;
        }
        if completion.result < 0 {
            return;
        }
        // SAFETY: the accept just made this descriptor and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
        self.exported.accepted.add(1);
        if !self.is_stopping {
            self.open(node, None, socket, now);
        }
    }

    fn on_received(&mut self, node: &mut Node, place: u32, result: i32, now: Now) {
        let connection = self.connection(place);
        connection.is_receiving = false;
        let (link, is_open) = (connection.link, connection.is_open);
        let is_transient = result == -libc::EINTR || result == -libc::EAGAIN;
        if is_open && result > 0 {
            connection.filled += result as usize;
            connection.is_listed = true;
            self.to_hear.push(place);
            self.exported.bytes_in.add(result as u64);
        } else if is_open && is_transient {
            self.to_receive.push(place);
        } else if is_open {
            node.on_link_closed(link, now);
            self.close(place);
        }
        self.let_go(place);
    }

    fn send(&mut self, ring: &mut Ring, node: &mut Node, link: LinkId, now: Now) {
        let Some(place) = self.place_of(link) else {
            // A farewell closes connections without the node's word. It hears of the end first: else it wants the same again.
            node.on_link_closed(link, now);
            node.on_link_sent(link, 0);
            return;
        };
        let bytes = node.link_outgoing(link);
        let (pointer, length) = (bytes.as_ptr(), bytes.len() as u32);
        let connection = self.connection(place);
        connection.is_sending = true;
        let entry = opcode::Send::new(types::Fd(connection.socket.as_raw_fd()), pointer, length)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the node keeps the bytes in place until it hears of this send, also where the connection is closed before.
        unsafe { ring.push(entry, op(SEND, place)) };
    }

    fn on_sent(&mut self, ring: &mut Ring, node: &mut Node, place: u32, result: i32, now: Now) {
        let connection = self.connection(place);
        let (link, is_open) = (connection.link, connection.is_open);
        if result == -libc::EAGAIN && is_open {
            let socket = types::Fd(connection.socket.as_raw_fd());
            self.exported.full.add(1);
            let entry = opcode::PollAdd::new(socket, libc::POLLOUT as u32).build();
            // SAFETY: a poll points at no memory.
            unsafe { ring.push(entry, op(ROOM, place)) };
            return;
        }
        connection.is_sending = false;
        let sent = usize::try_from(result);
        node.on_link_sent(link, *sent.as_ref().unwrap_or(&0));
        match sent {
            Ok(sent) => self.exported.bytes_out.add(sent as u64),
            Err(_) if is_open => {
                node.on_link_closed(link, now);
                self.close(place);
            }
            Err(_) => {}
        }
        self.let_go(place);
    }

    fn read(
        &mut self,
        ring: &mut Ring,
        node: &mut Node,
        (peer, purpose): (u32, ReadPurpose),
        (position, length): (Position, u32),
        now: Now,
    ) {
        let reading = self.targets[peer as usize].reading(purpose);
        assert!(reading.position.is_none(), "one read of a kind at a time");
        let Some((file, offset)) = self.segments.place(position) else {
            node.on_log_read(peer, purpose, position, &[], now);
            return;
        };
        reading.position = Some(position);
        let pointer = reading.pages.pointer(0);
        assert!(
            length as usize <= reading.pages.length(),
            "a piece is no longer than its buffer"
        );
        let entry = opcode::Read::new(types::Fd(file), pointer, length)
            .offset(offset)
            .build();
        let kind = match purpose {
            ReadPurpose::CatchUp => READ,
            ReadPurpose::Repair => READ_FOR_REPAIR,
        };
        // SAFETY: nobody looks at the buffer until the completion.
        unsafe { ring.push(entry, op(kind, peer)) };
        self.exported.reads.add(1);
    }

    fn on_read(
        &mut self,
        node: &mut Node,
        (peer, purpose): (u32, ReadPurpose),
        result: i32,
        now: Now,
    ) {
        let reading = self.targets[peer as usize].reading(purpose);
        let position = reading.position.take().expect("a read ends that was begun");
        let length = usize::try_from(result).unwrap_or_else(|_| {
            let error = std::io::Error::from_raw_os_error(-result);
            tracing::error!(%error, %position, "reading the journal for a peer failed");
            0
        });
        // SAFETY: the read has completed, and the next one begins only when the node has heard of this one.
        let bytes = unsafe { reading.pages.slice(0, length) };
        node.on_log_read(peer, purpose, position, bytes, now);
    }

    /// The connection is of no use any more.
    fn close(&mut self, place: u32) {
        let connection = self.table[place as usize]
            .as_mut()
            .expect("the place is taken");
        if !connection.is_open {
            return;
        }
        connection.is_open = false;
        let index = connection.link.index as usize;
        if self.by_link[index] == place {
            self.by_link[index] = u32::MAX;
        }
        // SAFETY: the descriptor is open. An error means that the peer is gone already.
        unsafe { libc::shutdown(connection.socket.as_raw_fd(), libc::SHUT_RDWR) };
        self.let_go(place);
    }

    /// Gives the place up if nothing points at it any more.
    fn let_go(&mut self, place: u32) {
        let Some(connection) = &self.table[place as usize] else {
            return;
        };
        let is_held = connection.is_receiving || connection.is_sending || connection.is_listed;
        if connection.is_open || is_held {
            return;
        }
        if let Some(buffer) = connection.buffer {
            self.free_large.push(buffer);
        }
        self.table[place as usize] = None;
        self.free.push(place);
    }

    /// Ends every connection and takes no new one.
    pub(crate) fn farewell(&mut self) {
        self.is_stopping = true;
        for place in 0..self.table.len() as u32 {
            if self.table[place as usize].is_some() {
                self.close(place);
            }
        }
    }
}

const fn op(purpose: u8, index: u32) -> Op {
    Op {
        agent: AGENT,
        purpose,
        index,
    }
}

/// A connection attempt to a free port of this machine may by chance meet itself.
fn met_itself(socket: &OwnedFd) -> bool {
    let socket = socket2::SockRef::from(socket);
    let ends = (socket.local_addr(), socket.peer_addr());
    matches!(ends, (Ok(local), Ok(peer)) if local == peer)
}

/// No delay for small segments, and a peer that acknowledges nothing is given up by the kernel too.
fn configure(socket: &OwnedFd) {
    let socket = socket2::SockRef::from(socket);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
    if let Err(error) = set {
        tracing::warn!(%error, "a mirror connection's socket options could not be set");
    }
}
