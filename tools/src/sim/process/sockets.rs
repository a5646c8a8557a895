//! The ingress agent's part of a process, and the table of its sockets.
//!
//! A connection has one receive buffer: a small one before its logon, one of a publisher's share after. Bytes stay where
//! they are until the sequencer took them.

use relay_core::command::{ConnId, ToIngress};
use relay_core::ingress::IngressEffect;

use super::{Inbound, Process, Surroundings};
use crate::clock::SECOND;
use crate::network::{EndId, Port, Signal};
use crate::random::mix;

/// Bytes of a receive buffer before the logon.
const SMALL_BUFFER: usize = 1024;
/// Bytes a subscriber's socket reads at a time.
const SUBSCRIBER_BUFFER: usize = 4096;
/// A closed connection's peer has this long to read the farewell.
const LINGER_NS: u64 = SECOND;

/// Which machine has a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ingress(ConnId),
    Fanout(ConnId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Farewell said; what still comes is thrown away until the peer closes too.
    Lingering {
        since_ns: u64,
    },
    /// Waits for the sequencer to let go of its bytes.
    Closed,
}

/// A socket and its receive buffer.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) end: EndId,
    side: Side,
    life: Life,
    pub(super) buffer: Vec<u8>,
    /// Bytes the buffer may hold.
    capacity: usize,
    /// Bytes of it that were cut into items.
    parsed: usize,
    /// Bytes of it that the sequencer took.
    taken: usize,
    /// Commands that name bytes of the buffer and were not taken.
    outstanding: u32,
    wants_more: bool,
    awaits_room: bool,
}

impl Process {
    pub(super) fn place_of(&self, side: Side) -> Option<u32> {
        let is_it = |socket: &Option<Socket>| {
            socket
                .as_ref()
                .is_some_and(|socket| socket.side == side && socket.life == Life::Open)
        };
        self.sockets
            .iter()
            .position(is_it)
            .map(|place| place as u32)
    }

    pub(super) fn socket(&mut self, place: u32) -> &mut Socket {
        self.sockets[place as usize]
            .as_mut()
            .expect("the place is taken")
    }

    pub(super) fn accept(&mut self, end: EndId, around: &mut Surroundings<'_>) {
        if around.network.port_of(end) == Some(Port::Mirror) {
            self.accept_peer(end, around);
            return;
        }
        self.nonces += 1;
        let word = mix(self.nonces).to_le_bytes();
        let nonce = core::array::from_fn(|index| word[index % 8] ^ index as u8);
        let accepted = match self.free.is_empty() {
            false => self.ingress.on_accept(nonce, around.now.mono_ns),
            true => None,
        };
        if let Some(conn) = accepted {
            let place = self.free.pop().expect("looked at just now");
            self.sockets[place as usize] = Some(Socket {
                end,
                side: Side::Ingress(conn),
                life: Life::Open,
                buffer: Vec::new(),
                capacity: SMALL_BUFFER,
                parsed: 0,
                taken: 0,
                outstanding: 0,
                wants_more: true,
                awaits_room: false,
            });
            self.receive(place, around);
        } else {
            around.network.close(end, around.queue);
        }
        self.drain_ingress(around);
    }

    pub(super) fn on_socket(&mut self, end: EndId, signal: Signal, around: &mut Surroundings<'_>) {
        let is_it = |socket: &Option<Socket>| socket.as_ref().is_some_and(|s| s.end == end);
        let Some(place) = self.sockets.iter().position(is_it) else {
            self.on_peer_signal(end, signal, around);
            return;
        };
        let place = place as u32;
        match signal {
            Signal::Readable | Signal::Ended => self.receive(place, around),
            Signal::Writable => self.on_writable(place, around),
            Signal::Broken => self.on_broken(place, around),
            Signal::Connected | Signal::Refused | Signal::Unanswered | Signal::Incoming => {
                unreachable!("a node opens no connections to clients")
            }
        }
        self.drain_ingress(around);
    }

    fn on_writable(&mut self, place: u32, around: &mut Surroundings<'_>) {
        let now_ns = around.now.mono_ns;
        let socket = self.socket(place);
        match socket.side {
            Side::Ingress(conn) => {
                if std::mem::take(&mut socket.awaits_room) && socket.life == Life::Open {
                    self.ingress.on_sent(conn, 0, now_ns);
                }
            }
            Side::Fanout(conn) => self.serving().on_writable(conn),
        }
    }

    fn on_broken(&mut self, place: u32, around: &mut Surroundings<'_>) {
        let socket = self.socket(place);
        match (socket.side, socket.life) {
            (Side::Fanout(conn), _) => self.close_subscriber(conn, around),
            (Side::Ingress(conn), Life::Open) => self.ingress.on_closed(conn),
            (Side::Ingress(_), Life::Lingering { .. }) => self.close_for_good(place, around),
            (Side::Ingress(_), Life::Closed) => {}
        }
    }

    /// Reads what has come, as far as the machine wants it and the buffer has room.
    fn receive(&mut self, place: u32, around: &mut Surroundings<'_>) {
        if let Side::Fanout(conn) = self.socket(place).side {
            self.receive_of_subscriber(place, conn, around);
            return;
        }
        loop {
            let socket = self.socket(place);
            let end = socket.end;
            match socket.life {
                Life::Closed => return,
                Life::Lingering { .. } => {
                    let length = around.network.readable(end).len();
                    around.network.consume(end, length, around.queue);
                    if around.network.has_ended(end) {
                        self.close_for_good(place, around);
                    }
                    return;
                }
                Life::Open if !socket.wants_more => return,
                Life::Open => {}
            }
            socket.make_room();
            let room = socket.capacity - socket.buffer.len();
            let arrived = around.network.readable(end);
            let length = arrived.len().min(room);
            if length == 0 {
                if room > 0 && around.network.has_ended(end) {
                    let Side::Ingress(conn) = self.socket(place).side else {
                        return;
                    };
                    self.ingress.on_closed(conn);
                }
                return;
            }
            socket.buffer.extend_from_slice(&arrived[..length]);
            around.network.consume(end, length, around.queue);
            self.parse(place, around);
        }
    }

    fn parse(&mut self, place: u32, around: &mut Surroundings<'_>) {
        if self.ending != super::Ending::No {
            return;
        }
        let socket = self.sockets[place as usize]
            .as_mut()
            .expect("the place is taken");
        let Side::Ingress(conn) = socket.side else {
            return;
        };
        let bytes = &socket.buffer[socket.parsed..];
        let (utc_ns, mono_ns) = (around.now.utc_ns, around.now.mono_ns);
        let offset = socket.parsed as u32;
        let done = self.ingress.on_bytes(conn, bytes, offset, utc_ns, mono_ns);
        assert!(
            done.consumed <= bytes.len(),
            "no more is consumed than there is"
        );
        socket.parsed += done.consumed;
        socket.outstanding += done.commands;
        socket.wants_more = done.is_open;
        self.collect_commands(place);
    }

    /// Takes the machine's commands; those that name bytes are all about the buffer at `place`.
    fn collect_commands(&mut self, place: u32) {
        while let Some(command) = self.ingress.poll_command() {
            self.commands.push_back((command, place));
        }
    }

    fn receive_of_subscriber(&mut self, place: u32, conn: ConnId, around: &mut Surroundings<'_>) {
        loop {
            let socket = self.socket(place);
            let end = socket.end;
            let arrived = around.network.readable(end);
            let length = arrived.len().min(SUBSCRIBER_BUFFER);
            socket.buffer.extend_from_slice(&arrived[..length]);
            around.network.consume(end, length, around.queue);
            let consumed = self.consume_inbox(place, conn, around.now.mono_ns);
            if length == 0 && !consumed {
                break;
            }
        }
        let end = self.socket(place).end;
        if around.network.has_ended(end) {
            self.close_subscriber(conn, around);
        }
    }

    fn consume_inbox(&mut self, place: u32, conn: ConnId, now_ns: u64) -> bool {
        let socket = self.sockets[place as usize]
            .as_mut()
            .expect("the place is taken");
        if socket.buffer.is_empty() {
            return false;
        }
        let fanout = self.fanout.as_mut().expect("it has subscribers");
        let consumed = fanout.on_bytes(conn, &socket.buffer, now_ns);
        socket.buffer.drain(..consumed);
        consumed > 0
    }

    fn on_taken(&mut self, conn: ConnId, through: u32, around: &mut Surroundings<'_>) {
        // The connection may be closed already; its bytes were not given away.
        let is_it = |socket: &Option<Socket>| {
            socket
                .as_ref()
                .is_some_and(|s| s.side == Side::Ingress(conn) && s.outstanding > 0)
        };
        let Some(place) = self.sockets.iter().position(is_it) else {
            return;
        };
        let place = place as u32;
        let socket = self.socket(place);
        socket.outstanding -= 1;
        socket.taken = through as usize;
        if socket.life == Life::Open {
            self.receive(place, around);
        } else {
            self.let_go(place);
        }
    }

    pub(super) fn turn_ingress(&mut self, around: &mut Surroundings<'_>) -> usize {
        let mut work = 0;
        while let Some(reply) = self.replies.pop_front() {
            work += 1;
            if let ToIngress::Taken { conn, through } = reply {
                self.on_taken(conn, through, around);
            } else {
                self.ingress.on_reply(reply, around.now.mono_ns);
            }
            self.drain_ingress(around);
            if self.is_burnt() {
                return work;
            }
        }
        self.ingress.on_time(around.now.mono_ns);
        self.drain_ingress(around);
        self.end_lingering(around);
        while let Some(conn) = self.ingress_sends.pop() {
            if !self.burns_on() {
                return work;
            }
            work += 1;
            self.send(conn, around);
        }
        work
    }

    pub(super) fn drain_ingress(&mut self, around: &mut Surroundings<'_>) {
        while let Some(effect) = self.ingress.poll_effect() {
            self.count_effect();
            match effect {
                IngressEffect::Send(conn) => self.ingress_sends.push(conn),
                IngressEffect::Close(conn) => {
                    if let Some(place) = self.place_of(Side::Ingress(conn)) {
                        let since_ns = around.now.mono_ns;
                        let socket = self.socket(place);
                        socket.life = Life::Lingering { since_ns };
                        socket.wants_more = false;
                        let end = socket.end;
                        around.network.shut_write(end, around.queue);
                        self.receive(place, around);
                    }
                }
                IngressEffect::WidenReceive(conn) => {
                    if let Some(place) = self.place_of(Side::Ingress(conn)) {
                        let capacity = 2 * self.settings.record_stride_max();
                        let socket = self.socket(place);
                        let parsed = std::mem::take(&mut socket.parsed);
                        socket.buffer.drain(..parsed);
                        socket.taken = 0;
                        socket.capacity = capacity.max(socket.buffer.len());
                        self.parse(place, around);
                        self.receive(place, around);
                    }
                }
                IngressEffect::HandOver { conn, credential } => {
                    if let Some(place) = self.place_of(Side::Ingress(conn)) {
                        self.hand_over(place, credential, around);
                    }
                }
            }
        }
        self.collect_commands(u32::MAX);
    }

    fn hand_over(&mut self, place: u32, credential: u32, around: &mut Surroundings<'_>) {
        let now_ns = around.now.mono_ns;
        let fanout = self.fanout.as_mut();
        let taken = fanout.and_then(|fanout| fanout.on_subscriber(credential, now_ns));
        let Some(conn) = taken else {
            let socket = self.sockets[place as usize].take().expect("it is taken");
            around.network.close(socket.end, around.queue);
            self.free.push(place);
            return;
        };
        let socket = self.socket(place);
        socket.side = Side::Fanout(conn);
        let parsed = std::mem::take(&mut socket.parsed);
        socket.buffer.drain(..parsed);
        self.consume_inbox(place, conn, around.now.mono_ns);
        self.receive_of_subscriber(place, conn, around);
    }

    fn send(&mut self, conn: ConnId, around: &mut Surroundings<'_>) {
        let Some(place) = self.place_of(Side::Ingress(conn)) else {
            return;
        };
        let end = self.socket(place).end;
        let bytes = self.ingress.outgoing(conn);
        assert!(!bytes.is_empty(), "something is sent");
        match around.network.write(end, bytes, around.queue) {
            Some(0) | None => {
                // A broken connection is heard of by itself.
                self.socket(place).awaits_room = true;
                around.network.await_room(end, around.queue);
            }
            Some(sent) => self.inbound.push_back(Inbound::IngressSent(conn, sent)),
        }
    }

    pub(super) fn on_ingress_sent(
        &mut self,
        conn: ConnId,
        length: usize,
        around: &mut Surroundings<'_>,
    ) {
        self.ingress.on_sent(conn, length, around.now.mono_ns);
        self.drain_ingress(around);
    }

    fn end_lingering(&mut self, around: &mut Surroundings<'_>) {
        let now_ns = around.now.mono_ns;
        for place in 0..self.sockets.len() as u32 {
            if let Some(socket) = &self.sockets[place as usize]
                && let Life::Lingering { since_ns } = socket.life
                && now_ns >= since_ns + LINGER_NS
            {
                self.close_for_good(place, around);
            }
        }
    }

    fn close_for_good(&mut self, place: u32, around: &mut Surroundings<'_>) {
        let socket = self.socket(place);
        socket.life = Life::Closed;
        let end = socket.end;
        around.network.close(end, around.queue);
        self.let_go(place);
    }

    /// Gives the place up if nothing points at it any more.
    fn let_go(&mut self, place: u32) {
        let socket = self.socket(place);
        if socket.life == Life::Closed && socket.outstanding == 0 {
            self.sockets[place as usize] = None;
            self.free.push(place);
        }
    }
}

impl Socket {
    /// Moves what was not taken to the front where that gains much and nothing points at it.
    fn make_room(&mut self) {
        if self.outstanding > 0 {
            return;
        }
        self.taken = self.parsed;
        let rest = self.buffer.len() - self.taken;
        let is_short = self.capacity - self.buffer.len() < self.capacity / 4;
        if self.taken > 0 && (rest == 0 || is_short) {
            self.buffer.drain(..self.taken);
            self.parsed -= self.taken;
            self.taken = 0;
        }
    }
}
