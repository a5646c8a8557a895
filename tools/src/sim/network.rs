//! Byte streams between hosts, with everything that networks do wrong.
//!
//! # Fault model
//!
//! A connection is TCP as its users see it: two streams of bytes in order, each with a window; bytes are cut anywhere on
//! the way; nothing is altered, doubled or overtaken within a stream. What goes wrong:
//!
//! | fault | what happens |
//! | --- | --- |
//! | delay | each piece takes a time of its own; a clogged link takes longer still |
//! | partition | one direction between two hosts carries nothing until it heals. What was sent then goes on; new connections fail; word that the receiver has read (and so room) does not get through either |
//! | loss of a connection | one end, or both, hear that it is over; what was under way is lost |
//! | half-open connection | one end is gone and the other does not hear of it: after a power cut, or when the farewell falls into a partition. It hears when it sends to a host that is up again, or when what it sent before is sent once more |
//! | late delivery | an old connection that its user gave up still delivers what is under way when a partition heals |
//!
//! Bytes for an earlier process never reach a later one: a connection ends with the process that had it.

use crate::clock::{MILLISECOND, Queue};
use crate::cluster::Event;
use crate::random::Random;

/// A machine on the network.
pub(crate) type Host = usize;

/// A connection attempt that gets no answer is given up after so long, where whoever makes it does not say.
const CONNECT_TIMEOUT_NS: u64 = 500 * MILLISECOND;
/// What was not acknowledged is sent again after so long.
const SENT_AGAIN_NS: u64 = 200 * MILLISECOND;

/// Names one end of one connection; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndId {
    connection: u32,
    generation: u32,
    end: u8,
}

impl EndId {
    /// A number for it.
    pub(crate) const fn number(self) -> u32 {
        self.connection.rotate_left(16) ^ self.generation << 1 ^ self.end as u32
    }

    const fn other(self) -> Self {
        Self {
            end: 1 - self.end,
            ..self
        }
    }
}

/// Who has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody any more.
    Nobody,
    /// The process of a node; it counts its processes.
    Node { node: usize, process: u32 },
    /// A client; it counts its connections.
    Client { client: usize, session: u32 },
}

/// What somebody connects to at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// Where clients are served.
    Clients,
    /// Where a group's nodes reach each other.
    Mirror,
}

/// What an end's owner hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The connection it asked for is made.
    Connected,
    /// Nobody listens where it asked for a connection.
    Refused,
    /// The connection it asked for was not made in time.
    Unanswered,
    /// Somebody connects to it.
    Incoming,
    /// There are bytes to read.
    Readable,
    /// There is room to write again.
    Writable,
    /// All that the other side sent has come, and nothing more will. Read what is left first.
    Ended,
    /// The connection is over; what was under way is lost.
    Broken,
}

/// What happens on the network.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NetworkEvent {
    Arrive {
        to: EndId,
        length: u32,
    },
    Finish {
        to: EndId,
    },
    Tell {
        to: EndId,
        signal: Signal,
    },
    /// A connection attempt has waited long enough.
    Expire {
        to: EndId,
    },
    /// The connection is no more; its owner hears that it broke.
    Orphaned {
        end: EndId,
        owner: Owner,
    },
}

/// How long pieces take, and how much is under way at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conduct {
    /// The least a piece takes.
    pub(crate) least_ns: u64,
    /// The mean above that.
    pub(crate) jitter_ns: u64,
    /// Bytes written and not read, at most.
    pub(crate) window: usize,
    /// How many of a million writes are cut in two on the way.
    pub(crate) cut_per_million: u32,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    /// Everything written and not read; the reader may have the first `arrived` of it.
    bytes: Vec<u8>,
    /// Bytes at the front that were read already.
    read: usize,
    arrived: usize,
    /// Bytes that wait for a partition to heal.
    parked: usize,
    /// Room the writer has not heard of because of a partition.
    withheld: usize,
    last_arrival_ns: u64,
    is_finish_parked: bool,
    has_finished: bool,
}

impl Pipe {
    const fn unread(&self) -> usize {
        self.bytes.len() - self.read
    }
}

#[derive(Debug)]
struct End {
    host: Host,
    owner: Owner,
    is_open: bool,
    is_shut: bool,
    awaits_room: bool,
}

#[derive(Debug)]
struct Connection {
    generation: u32,
    is_free: bool,
    is_made: bool,
    port: Port,
    ends: [End; 2],
    /// `pipes[0]` leads from end 0 to end 1.
    pipes: [Pipe; 2],
}

impl Connection {
    /// Whether what is sent to `end` means anything there: whoever connects hears nothing before it knows that it is connected.
    const fn is_heard_at(&self, end: EndId) -> bool {
        self.is_made || end.end == 1
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    blocked: u32,
    extra_ns: u64,
}

/// The network. See the module's description.
#[derive(Debug)]
pub(crate) struct Network {
    conduct: Conduct,
    random: Random,
    hosts: usize,
    links: Vec<Link>,
    is_up: Vec<bool>,
    connections: Vec<Connection>,
    free: Vec<u32>,
}

impl Network {
    /// A network of so many hosts, all up.
    pub(crate) fn new(conduct: Conduct, hosts: usize, random: Random) -> Self {
        Self {
            conduct,
            random,
            hosts,
            links: vec![Link::default(); hosts * hosts],
            is_up: vec![true; hosts],
            connections: Vec::new(),
            free: Vec::new(),
        }
    }

    fn link(&mut self, from: Host, to: Host) -> &mut Link {
        &mut self.links[from * self.hosts + to]
    }

    fn is_blocked(&self, from: Host, to: Host) -> bool {
        self.links[from * self.hosts + to].blocked > 0
    }

    fn delay(&mut self, from: Host, to: Host) -> u64 {
        let extra = self.link(from, to).extra_ns;
        self.conduct.least_ns + self.random.tailed(self.conduct.jitter_ns) + extra
    }

    fn connection(&mut self, end: EndId) -> Option<&mut Connection> {
        let found = &mut self.connections[end.connection as usize];
        (found.generation == end.generation && !found.is_free).then_some(found)
    }

    fn end(&mut self, end: EndId) -> Option<&mut End> {
        self.connection(end).map(|c| &mut c.ends[end.end as usize])
    }

    /// Hosts at this end and at the other.
    fn hosts_of(&mut self, end: EndId) -> Option<(Host, Host)> {
        let connection = self.connection(end)?;
        let this = end.end as usize;
        Some((connection.ends[this].host, connection.ends[1 - this].host))
    }

    /// Begins to connect; the owner hears [`Signal::Connected`], [`Signal::Refused`] or [`Signal::Unanswered`].
    pub(crate) fn connect(
        &mut self,
        owner: Owner,
        from: Host,
        to: Host,
        port: Port,
        queue: &mut Queue<Event>,
    ) -> EndId {
        self.connect_within(CONNECT_TIMEOUT_NS, owner, from, to, port, queue)
    }

    /// The same, given up after `patience_ns`.
    pub(crate) fn connect_within(
        &mut self,
        patience_ns: u64,
        owner: Owner,
        from: Host,
        to: Host,
        port: Port,
        queue: &mut Queue<Event>,
    ) -> EndId {
        let index = self.free.pop().unwrap_or(self.connections.len() as u32);
        let end = |host, owner| End {
            host,
            owner,
            is_open: true,
            is_shut: false,
            awaits_room: false,
        };
        let ends = [end(from, owner), end(to, Owner::Nobody)];
        let pipes = <[Pipe; 2]>::default();
        let generation = match self.connections.get_mut(index as usize) {
            Some(before) => {
                before.generation = before.generation.wrapping_add(1);
                before.is_free = false;
                before.is_made = false;
                before.port = port;
                before.ends = ends;
                before.pipes = pipes;
                before.generation
            }
            None => {
                self.connections.push(Connection {
                    generation: 0,
                    is_free: false,
                    is_made: false,
                    port,
                    ends,
                    pipes,
                });
                0
            }
        };
        let id = EndId {
            connection: index,
            generation,
            end: 0,
        };
        let delay = self.delay(from, to);
        let expiry = NetworkEvent::Expire { to: id };
        queue.after(patience_ns, Event::Network(expiry));
        if !self.is_blocked(from, to) && !self.is_blocked(to, from) && self.is_up[to] {
            self.tell(id.other(), Signal::Incoming, delay, queue);
        }
        id
    }

    fn tell(&self, to: EndId, signal: Signal, delay_ns: u64, queue: &mut Queue<Event>) {
        queue.after(delay_ns, Event::Network(NetworkEvent::Tell { to, signal }));
    }

    /// Somebody listens at the host that `end` connects to.
    pub(crate) fn accept(&mut self, end: EndId, owner: Owner, queue: &mut Queue<Event>) {
        let Some((here, there)) = self.hosts_of(end) else {
            return;
        };
        let delay = self.delay(here, there);
        if let Some(connection) = self.connection(end) {
            connection.ends[end.end as usize].owner = owner;
            // Nothing overtakes the handshake.
            connection.pipes[end.end as usize].last_arrival_ns = queue.now_ns() + delay;
        }
        self.tell(end.other(), Signal::Connected, delay, queue);
    }

    /// Nobody listens there.
    pub(crate) fn refuse(&mut self, end: EndId, queue: &mut Queue<Event>) {
        let Some((here, there)) = self.hosts_of(end) else {
            return;
        };
        if let Some(end) = self.end(end) {
            end.is_open = false;
        }
        let delay = self.delay(here, there);
        self.tell(end.other(), Signal::Refused, delay, queue);
    }

    /// Something happens; says who hears what. [`Signal::Incoming`] names no owner yet but the host.
    pub(crate) fn on_event(
        &mut self,
        event: NetworkEvent,
        queue: &mut Queue<Event>,
    ) -> Option<(EndId, Owner, Signal)> {
        match event {
            NetworkEvent::Arrive { to, length } => self.on_arrival(to, length as usize, queue),
            NetworkEvent::Finish { to } => self.on_finish(to),
            NetworkEvent::Orphaned { end, owner } => Some((end, owner, Signal::Broken)),
            NetworkEvent::Expire { to } => {
                let is_made = self.connection(to)?.is_made;
                let end = self.end(to).filter(|end| end.is_open && !is_made)?;
                let owner = end.owner;
                self.drop_end(to);
                Some((to, owner, Signal::Unanswered))
            }
            NetworkEvent::Tell { to, signal } => {
                let (here, there) = self.hosts_of(to)?;
                let needs_way = matches!(signal, Signal::Broken | Signal::Connected);
                if needs_way && self.is_blocked(there, here) {
                    // A handshake that fails so expires; the other side believes that it is connected.
                    if signal == Signal::Broken && self.has_unheard(to) {
                        self.tell(to, signal, SENT_AGAIN_NS, queue);
                    }
                    return None;
                }
                let end = self.end(to)?;
                if !end.is_open && signal != Signal::Refused {
                    return None;
                }
                let owner = end.owner;
                if signal == Signal::Connected {
                    self.connection(to)?.is_made = true;
                }
                if matches!(signal, Signal::Broken | Signal::Refused) {
                    self.drop_end(to);
                }
                Some((to, owner, signal))
            }
        }
    }

    fn on_arrival(
        &mut self,
        to: EndId,
        length: usize,
        queue: &mut Queue<Event>,
    ) -> Option<(EndId, Owner, Signal)> {
        let (here, there) = self.hosts_of(to)?;
        let is_blocked = self.is_blocked(there, here);
        let is_up = self.is_up[here];
        let connection = self.connection(to)?;
        let is_heard = connection.is_heard_at(to);
        let pipe = &mut connection.pipes[1 - to.end as usize];
        if is_blocked || !is_heard {
            pipe.parked += length;
            return None;
        }
        pipe.arrived += length;
        let end = &connection.ends[to.end as usize];
        if !end.is_open {
            if is_up {
                let delay = self.delay(here, there);
                self.tell(to.other(), Signal::Broken, delay, queue);
            }
            return None;
        }
        Some((to, end.owner, Signal::Readable))
    }

    fn on_finish(&mut self, to: EndId) -> Option<(EndId, Owner, Signal)> {
        let (here, there) = self.hosts_of(to)?;
        let is_blocked = self.is_blocked(there, here);
        let connection = self.connection(to)?;
        let is_heard = connection.is_heard_at(to);
        let pipe = &mut connection.pipes[1 - to.end as usize];
        if is_blocked || !is_heard || pipe.parked > 0 {
            pipe.is_finish_parked = true;
            return None;
        }
        pipe.has_finished = true;
        let end = &connection.ends[to.end as usize];
        end.is_open.then_some((to, end.owner, Signal::Ended))
    }

    /// Whether the other side has said its last word and all of it was read.
    pub(crate) fn has_ended(&mut self, end: EndId) -> bool {
        self.connection(end).is_none_or(|connection| {
            let pipe = &connection.pipes[1 - end.end as usize];
            !connection.ends[end.end as usize].is_open || (pipe.has_finished && pipe.unread() == 0)
        })
    }

    /// What has arrived and was not read.
    pub(crate) fn readable(&self, end: EndId) -> &[u8] {
        let connection = &self.connections[end.connection as usize];
        if connection.generation != end.generation || connection.is_free {
            return &[];
        }
        let pipe = &connection.pipes[1 - end.end as usize];
        &pipe.bytes[pipe.read..pipe.read + pipe.arrived]
    }

    /// The reader takes the first `length` bytes of what has arrived.
    pub(crate) fn consume(&mut self, end: EndId, length: usize, queue: &mut Queue<Event>) {
        let Some((here, there)) = self.hosts_of(end) else {
            return;
        };
        let is_blocked = self.is_blocked(here, there);
        let delay = self.delay(here, there);
        let connection = self.connection(end).expect("looked at just now");
        let pipe = &mut connection.pipes[1 - end.end as usize];
        assert!(length <= pipe.arrived, "no more is read than has arrived");
        pipe.read += length;
        pipe.arrived -= length;
        if pipe.read == pipe.bytes.len() {
            pipe.bytes.clear();
            pipe.read = 0;
        } else if pipe.read > 64 << 10 {
            pipe.bytes.drain(..pipe.read);
            pipe.read = 0;
        }
        if is_blocked {
            pipe.withheld += length;
            return;
        }
        let writer = &mut connection.ends[1 - end.end as usize];
        if std::mem::take(&mut writer.awaits_room) {
            self.tell(end.other(), Signal::Writable, delay, queue);
        }
    }

    /// Bytes that can be written now; nothing where the connection is over.
    pub(crate) fn room(&mut self, end: EndId) -> Option<usize> {
        let window = self.conduct.window;
        let connection = self.connection(end)?;
        let this = end.end as usize;
        if !connection.ends[this].is_open || connection.ends[this].is_shut {
            return None;
        }
        let pipe = &connection.pipes[this];
        Some(window.saturating_sub(pipe.unread() + pipe.withheld))
    }

    /// Writes as much of `bytes` as there is room for; nothing where the connection is over.
    pub(crate) fn write(
        &mut self,
        end: EndId,
        bytes: &[u8],
        queue: &mut Queue<Event>,
    ) -> Option<usize> {
        let length = self.room(end)?.min(bytes.len());
        if length == 0 {
            return Some(0);
        }
        let (here, there) = self.hosts_of(end)?;
        let is_blocked = self.is_blocked(here, there);
        let is_cut = length > 1 && self.random.chance(self.conduct.cut_per_million);
        let first = if is_cut {
            self.random.within(1, length as u64 - 1) as usize
        } else {
            length
        };
        let connection = self.connection(end)?;
        let pipe = &mut connection.pipes[end.end as usize];
        pipe.bytes.extend_from_slice(&bytes[..length]);
        if is_blocked {
            pipe.parked += length;
            return Some(length);
        }
        for part in [first, length - first] {
            if part > 0 {
                self.send(end, part, queue);
            }
        }
        Some(length)
    }

    fn send(&mut self, from: EndId, length: usize, queue: &mut Queue<Event>) {
        let Some((here, there)) = self.hosts_of(from) else {
            return;
        };
        let at = queue.now_ns() + self.delay(here, there);
        let Some(connection) = self.connection(from) else {
            return;
        };
        let pipe = &mut connection.pipes[from.end as usize];
        pipe.last_arrival_ns = pipe.last_arrival_ns.max(at);
        let event = NetworkEvent::Arrive {
            to: from.other(),
            length: length as u32,
        };
        queue.at(pipe.last_arrival_ns, Event::Network(event));
    }

    /// The owner wants to hear when there is room.
    pub(crate) fn await_room(&mut self, end: EndId, queue: &mut Queue<Event>) {
        if self.room(end).is_some_and(|room| room > 0) {
            self.tell(end, Signal::Writable, 0, queue);
        } else if let Some(end) = self.end(end) {
            end.awaits_room = true;
        }
    }

    /// The owner writes nothing more, but goes on reading.
    pub(crate) fn shut_write(&mut self, end: EndId, queue: &mut Queue<Event>) {
        let Some((here, there)) = self.hosts_of(end) else {
            return;
        };
        let at = queue.now_ns() + self.delay(here, there);
        let Some(connection) = self.connection(end) else {
            return;
        };
        if std::mem::replace(&mut connection.ends[end.end as usize].is_shut, true) {
            return;
        }
        let pipe = &mut connection.pipes[end.end as usize];
        pipe.last_arrival_ns = pipe.last_arrival_ns.max(at);
        let event = NetworkEvent::Finish { to: end.other() };
        queue.at(pipe.last_arrival_ns, Event::Network(event));
    }

    /// The owner is done with it. With unread bytes the other side hears that it broke, as a kernel has it.
    pub(crate) fn close(&mut self, end: EndId, queue: &mut Queue<Event>) {
        let Some((here, there)) = self.hosts_of(end) else {
            return;
        };
        if self.readable(end).is_empty() {
            self.shut_write(end, queue);
        } else {
            let delay = self.delay(here, there);
            self.tell(end.other(), Signal::Broken, delay, queue);
        }
        self.drop_end(end);
    }

    fn drop_end(&mut self, end: EndId) {
        let Some(connection) = self.connection(end) else {
            return;
        };
        let this = &mut connection.ends[end.end as usize];
        this.is_open = false;
        this.owner = Owner::Nobody;
        // What is under way to the other side still arrives; with nobody there either, the connection is no more.
        if connection.ends.iter().all(|end| !end.is_open) {
            connection.is_free = true;
            connection.pipes = <[Pipe; 2]>::default();
            self.free.push(end.connection);
        }
    }

    /// What `end` belongs to a connection to.
    pub(crate) fn port_of(&mut self, end: EndId) -> Option<Port> {
        self.connection(end).map(|connection| connection.port)
    }

    /// How long a word takes that is no part of a connection; nothing where it does not get through.
    pub(crate) fn one_way(&mut self, from: Host, to: Host) -> Option<u64> {
        (!self.is_blocked(from, to)).then(|| self.delay(from, to))
    }

    /// The host that `end` is at.
    pub(crate) fn host_of(&mut self, end: EndId) -> Option<Host> {
        self.end(end).map(|end| end.host)
    }
}

/// The faults.
impl Network {
    /// A process is gone and its kernel is not: the other sides hear of it, mostly in order.
    pub(crate) fn on_killed(&mut self, owner: Owner, queue: &mut Queue<Event>) {
        for end in self.ends_of(owner) {
            if self.random.chance(300_000) {
                let Some((here, there)) = self.hosts_of(end) else {
                    continue;
                };
                let delay = self.delay(here, there);
                self.tell(end.other(), Signal::Broken, delay, queue);
                self.drop_end(end);
            } else {
                self.close(end, queue);
            }
        }
    }

    /// A host is off: nobody hears of it.
    pub(crate) fn on_power_cut(&mut self, host: Host) {
        self.is_up[host] = false;
        for connection in 0..self.connections.len() {
            for end in 0..2 {
                let found = &mut self.connections[connection];
                if found.is_free || found.ends[end].host != host || !found.ends[end].is_open {
                    continue;
                }
                found.pipes[end].parked = 0;
                let id = EndId {
                    connection: connection as u32,
                    generation: found.generation,
                    end: end as u8,
                };
                self.drop_end(id);
            }
        }
    }

    /// The host is on again, and knows nothing of the connections it had: who waits for its word sends again, and hears so.
    pub(crate) fn on_power_up(&mut self, host: Host, queue: &mut Queue<Event>) {
        if std::mem::replace(&mut self.is_up[host], true) {
            return;
        }
        for index in 0..self.connections.len() {
            for end in 0..2 {
                let found = &self.connections[index];
                let (here, there) = (&found.ends[end], &found.ends[1 - end]);
                let is_half = !found.is_free && there.host == host && !there.is_open;
                if !is_half || !here.is_open {
                    continue;
                }
                let id = EndId {
                    connection: index as u32,
                    generation: found.generation,
                    end: end as u8,
                };
                if self.has_unheard(id) {
                    self.tell(id, Signal::Broken, SENT_AGAIN_NS, queue);
                }
            }
        }
    }

    /// Whether the other side has not taken all that was sent from `end`.
    fn has_unheard(&mut self, end: EndId) -> bool {
        let connection = self.connection(end);
        connection.is_some_and(|found| found.pipes[end.end as usize].unread() > 0)
    }

    /// Every end that `owner` has.
    fn ends_of(&self, owner: Owner) -> Vec<EndId> {
        let mut ends = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            for (end, found) in connection.ends.iter().enumerate() {
                if !connection.is_free && found.is_open && found.owner == owner {
                    ends.push(EndId {
                        connection: index as u32,
                        generation: connection.generation,
                        end: end as u8,
                    });
                }
            }
        }
        ends
    }

    /// Every connection ends at once, with all that is under way on it.
    pub(crate) fn break_everything(&mut self, queue: &mut Queue<Event>) {
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if connection.is_free {
                continue;
            }
            for (end, found) in connection.ends.iter_mut().enumerate() {
                let id = EndId {
                    connection: index as u32,
                    generation: connection.generation,
                    end: end as u8,
                };
                let owner = std::mem::replace(&mut found.owner, Owner::Nobody);
                queue.after(0, Event::Network(NetworkEvent::Orphaned { end: id, owner }));
            }
            connection.is_free = true;
            connection.pipes = <[Pipe; 2]>::default();
            self.free.push(index as u32);
        }
    }

    /// A connection is lost: one end or both hear of it at once, or later, or only by silence.
    pub(crate) fn lose_a_connection(
        &mut self,
        random: &mut Random,
        queue: &mut Queue<Event>,
    ) -> bool {
        let is_live = |c: &&Connection| !c.is_free && c.ends.iter().any(|end| end.is_open);
        let count = self.connections.iter().filter(is_live).count() as u64;
        if count == 0 {
            return false;
        }
        let chosen = random.below(count) as usize;
        let index = (0..self.connections.len())
            .filter(|&index| is_live(&&self.connections[index]))
            .nth(chosen)
            .expect("counted just now");
        let id = EndId {
            connection: index as u32,
            generation: self.connections[index].generation,
            end: random.below(2) as u8,
        };
        self.tell(id, Signal::Broken, 0, queue);
        if random.chance(800_000) {
            let later = random.tailed(50 * MILLISECOND);
            self.tell(id.other(), Signal::Broken, later, queue);
        }
        true
    }

    /// One direction between two hosts carries nothing any more.
    pub(crate) fn block(&mut self, from: Host, to: Host) {
        self.link(from, to).blocked += 1;
    }

    /// A direction that was blocked carries again, unless it was blocked twice.
    pub(crate) fn unblock(&mut self, from: Host, to: Host, queue: &mut Queue<Event>) {
        let link = self.link(from, to);
        link.blocked -= 1;
        if link.blocked > 0 {
            return;
        }
        for index in 0..self.connections.len() {
            for end in 0..2 {
                let found = &self.connections[index];
                if found.is_free || found.ends[end].host != from || found.ends[1 - end].host != to {
                    continue;
                }
                let id = EndId {
                    connection: index as u32,
                    generation: found.generation,
                    end: end as u8,
                };
                self.resume(id, queue);
            }
        }
    }

    /// What waited at `from` goes on, and what it heard of room on the other pipe.
    fn resume(&mut self, from: EndId, queue: &mut Queue<Event>) {
        let this = from.end as usize;
        let Some(connection) = self.connection(from) else {
            return;
        };
        let pipe = &mut connection.pipes[this];
        let parked = std::mem::take(&mut pipe.parked);
        let has_finish = std::mem::take(&mut pipe.is_finish_parked);
        let back = &mut connection.pipes[1 - this];
        let has_room = std::mem::take(&mut back.withheld) > 0
            && std::mem::take(&mut connection.ends[1 - this].awaits_room);
        if parked > 0 {
            self.send(from, parked, queue);
        }
        if has_finish {
            let at = match self.connection(from) {
                Some(connection) => connection.pipes[this].last_arrival_ns,
                None => return,
            };
            let event = NetworkEvent::Finish { to: from.other() };
            queue.at(at.max(queue.now_ns()), Event::Network(event));
        }
        if has_room {
            self.tell(from.other(), Signal::Writable, 0, queue);
        }
    }

    /// A direction takes longer by so much; with `is_over` no longer.
    pub(crate) fn clog(&mut self, from: Host, to: Host, extra_ns: u64, is_over: bool) {
        let link = self.link(from, to);
        if is_over {
            link.extra_ns -= extra_ns;
        } else {
            link.extra_ns += extra_ns;
        }
    }
}

#[cfg(test)]
mod tests;
