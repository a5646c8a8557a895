//! Connections between the nodes of a group: from the dial to the proof, and what waits to be sent on each.
//!
//! Of two nodes the one with the higher number dials; the other only knocks when a connection ended, to learn whether anybody is
//! still there. Both say HELLO at once, both prove the group's secret over both HELLOs,
//! and only then is anything else said or believed. A newer connection of a peer takes the place of the one before. Before
//! its proof a connection costs a table entry and [`OUTGOING_BEFORE_PROOF`] bytes, there are at most
//! [`STRANGERS_MAX`] of them, and the oldest gives way.

use std::hash::{Hash, Hasher};

use relay_wire::id::{NodeId, StreamId};
use relay_wire::peer::{
    self, Envelope, HELLO_LENGTH, Hello, LENGTH_MAX_BEFORE_PROOF, PeerError, PeerMessage, prove,
};
use relay_wire::proof::{Nonce, is_same};

use crate::outgoing::{Full, Outgoing};

/// Most connections that have not proven themselves.
pub const STRANGERS_MAX: usize = 8;
/// Bytes for messages to one of them: a HELLO and a PROOF.
pub const OUTGOING_BEFORE_PROOF: usize = 256;
/// Bytes for messages to a proven peer, where two of the longest messages are not longer.
const OUTGOING_PROVEN: usize = 4 << 20;
/// Bytes of them that blocks leave free, so that control messages always have room.
const OUTGOING_RESERVE: usize = 2 * peer::CONTROL_LENGTH_MAX;
/// Time for HELLO and PROOF of whoever dialled this node.
const HANDSHAKE_NS: u64 = 2_000_000_000;
/// Pause between two attempts to reach a peer.
const REDIAL_NS: u64 = 20_000_000;

/// A connection to a peer: a place and how often it was given out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkId {
    /// Place in the table.
    pub index: u32,
    /// How many connections had this place before.
    pub generation: u32,
}

/// The generation only tells a connection from earlier ones at its place, whose names nobody keeps once their end was told: how
/// many there were is no part of what a state is.
impl Hash for LinkId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

/// What the caller is to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkEffect {
    /// Connect to this peer (its place among the configured ones) and report how it went.
    Dial(u32),
    /// Connect to this peer and close the connection again: only whether it is refused is of interest
    /// ([`crate::node::Node::on_peer_refused`]).
    Knock(u32),
    /// Send [`crate::node::Node::link_outgoing`] and report with [`crate::node::Node::on_link_sent`]. Where there is no such
    /// connection any more, report its end with [`crate::node::Node::on_link_closed`] first, or the same is wanted again.
    Send(LinkId),
    /// Close the socket; the place is free again.
    Close(LinkId),
}

/// Who a proven peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) incarnation: u64,
    pub(crate) process: u64,
}

/// What the front of received bytes is.
pub(crate) enum Received<'a> {
    /// Not a whole message yet, or the connection is gone.
    Nothing,
    /// Part of the handshake, `length` bytes; `joined` once it is complete.
    Handshake {
        length: usize,
        joined: Option<(u32, Identity)>,
    },
    /// A message of a proven peer.
    Message {
        length: usize,
        peer: u32,
        envelope: Envelope,
        message: PeerMessage<'a>,
    },
    /// Something that is not allowed; the connection is being closed.
    Broken(LinkFault),
}

/// Why a connection to a peer was closed from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkFault {
    /// Not a message of the protocol.
    Message(PeerError),
    /// Something else than HELLO and PROOF came first.
    Order,
    /// Not one of the configured peers, or not the one that was dialled.
    Stranger(NodeId),
    /// The proof does not fit: another secret.
    Secret,
    /// Another stream.
    Stream(StreamId),
}

impl core::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Message(error) => write!(f, "{error}"),
            Self::Order => write!(f, "a peer spoke before it had proven the group's secret"),
            Self::Stranger(node) => write!(
                f,
                "node {node} is not a peer of this one: compare the groups in both configurations"
            ),
            Self::Secret => write!(
                f,
                "a peer could not prove the group's secret: use the same secret on all nodes"
            ),
            Self::Stream(stream) => write!(
                f,
                "the peer's address serves stream {stream}: compare the mirror addresses"
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Free,
    AwaitHello,
    AwaitProof,
    Proven(u32),
}

#[derive(Debug, Clone)]
struct Slot {
    generation: u32,
    phase: Phase,
    dialed: Option<u32>,
    since_ns: u64,
    ours: [u8; HELLO_LENGTH],
    theirs: [u8; HELLO_LENGTH],
    hello: Option<(Envelope, Hello)>,
    outgoing: Outgoing,
}

/// Once a connection is proven nobody looks at the handshake again, which says in which epoch and when it was made.
impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.phase, self.dialed, &self.outgoing).hash(state);
        if self.is_stranger() {
            (self.since_ns, self.ours, self.theirs, self.hello).hash(state);
        }
    }
}

#[derive(Debug, Clone, Copy, Hash)]
struct PeerEntry {
    node: NodeId,
    link: Option<LinkId>,
    is_dialing: bool,
    redial_ns: u64,
}

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Links {
    me: NodeId,
    process: u64,
    secret: Vec<u8>,
    dial_patience_ns: u64,
    outgoing_length: usize,
    message_length_max: usize,
    slots: Vec<Slot>,
    peers: Vec<PeerEntry>,
    /// Buffers of closed connections whose last send has not been reported: the kernel may still read them.
    dying: Vec<(LinkId, Outgoing)>,
    effects: std::collections::VecDeque<LinkEffect>,
}

impl Links {
    pub(crate) fn new(
        me: NodeId,
        process: u64,
        secret: Vec<u8>,
        peers: &[NodeId],
        block_span_max: u32,
        dial_patience_ns: u64,
    ) -> Self {
        let places = 2 * peers.len() + STRANGERS_MAX;
        let message_length_max =
            peer::CONTROL_LENGTH_MAX.max(peer::BLOCK_OVERHEAD + block_span_max as usize);
        Self {
            me,
            process,
            secret,
            dial_patience_ns,
            outgoing_length: OUTGOING_PROVEN.max(2 * message_length_max),
            message_length_max,
            slots: (0..places).map(|_| Slot::new(0)).collect(),
            peers: peers
                .iter()
                .map(|&node| PeerEntry {
                    node,
                    link: None,
                    is_dialing: false,
                    redial_ns: 0,
                })
                .collect(),
            dying: Vec::with_capacity(places),
            effects: std::collections::VecDeque::with_capacity(4 * places),
        }
    }

    /// Most time to reach a peer, and then for its HELLO and PROOF, ns.
    pub(crate) const fn dial_patience_ns(&self) -> u64 {
        self.dial_patience_ns
    }

    /// Most bytes of one message: what a receive buffer must hold at least.
    pub(crate) const fn message_length_max(&self) -> usize {
        self.message_length_max
    }

    /// A connection is there, dialled to the peer at place `dialed` or accepted. `nonce` is 32 random bytes. `None`: close it.
    pub(crate) fn on_opened(
        &mut self,
        dialed: Option<u32>,
        envelope: &Envelope,
        nonce: Nonce,
        now_ns: u64,
    ) -> Option<LinkId> {
        if let Some(peer) = dialed {
            self.peers[peer as usize].is_dialing = false;
        }
        let strangers = self.slots.iter().filter(|slot| slot.is_stranger()).count();
        if strangers >= STRANGERS_MAX {
            let oldest = (0..self.slots.len())
                .filter(|&at| self.slots[at].is_stranger())
                .min_by_key(|&at| self.slots[at].since_ns)?;
            self.close(self.id_of(oldest));
        }
        let at = self.slots.iter().position(|s| s.phase == Phase::Free)?;
        let id = self.id_of(at);
        let hello = Hello {
            nonce,
            node: self.me,
            process: self.process,
        };
        let slot = &mut self.slots[at];
        slot.phase = Phase::AwaitHello;
        slot.dialed = dialed;
        slot.since_ns = now_ns;
        slot.outgoing = Outgoing::with_capacity(OUTGOING_BEFORE_PROOF);
        let message = PeerMessage::Hello(hello);
        message
            .encode(envelope, &mut slot.ours)
            .expect("a HELLO has its length");
        let _ = slot
            .outgoing
            .push_with(|place| message.encode(envelope, place));
        self.start_send(id);
        Some(id)
    }

    /// The peer could not be reached.
    pub(crate) fn on_dial_failed(&mut self, peer: u32, now_ns: u64) {
        let entry = &mut self.peers[peer as usize];
        entry.is_dialing = false;
        entry.redial_ns = now_ns + REDIAL_NS;
    }

    fn id_of(&self, at: usize) -> LinkId {
        LinkId {
            index: at as u32,
            generation: self.slots[at].generation,
        }
    }

    fn slot(&mut self, link: LinkId) -> Option<&mut Slot> {
        self.slots
            .get_mut(link.index as usize)
            .filter(|slot| slot.generation == link.generation && slot.phase != Phase::Free)
    }

    /// Looks at the start of received bytes. The handshake is dealt with here.
    pub(crate) fn receive<'a>(
        &mut self,
        link: LinkId,
        bytes: &'a [u8],
        envelope: &Envelope,
    ) -> Received<'a> {
        let length_max = self.message_length_max;
        let Some(slot) = self.slot(link) else {
            return Received::Nothing;
        };
        let limit = match slot.phase {
            Phase::Proven(_) => length_max,
            _ => LENGTH_MAX_BEFORE_PROOF,
        };
        let phase = slot.phase;
        let length = match peer::front(bytes, limit) {
            Ok(Some(length)) => length,
            Ok(None) => return Received::Nothing,
            Err(error) => return self.fault(link, LinkFault::Message(error)),
        };
        let (theirs, message) = match PeerMessage::decode(&bytes[..length]) {
            Ok(decoded) => decoded,
            Err(error) => return self.fault(link, LinkFault::Message(error)),
        };
        if theirs.stream != envelope.stream {
            return self.fault(link, LinkFault::Stream(theirs.stream));
        }
        let joined = match (phase, message) {
            (Phase::Proven(peer), message) => {
                return Received::Message {
                    length,
                    peer,
                    envelope: theirs,
                    message,
                };
            }
            (Phase::AwaitHello, PeerMessage::Hello(hello)) => self
                .on_hello(link, &bytes[..length], theirs, hello, envelope)
                .map(|()| None),
            (Phase::AwaitProof, PeerMessage::Proof(proof)) => self.on_proof(link, &proof).map(Some),
            _ => Err(LinkFault::Order),
        };
        match joined {
            Ok(joined) => Received::Handshake { length, joined },
            Err(fault) => self.fault(link, fault),
        }
    }

    fn on_hello(
        &mut self,
        link: LinkId,
        bytes: &[u8],
        theirs: Envelope,
        hello: Hello,
        envelope: &Envelope,
    ) -> Result<(), LinkFault> {
        let peer = self.peers.iter().position(|peer| peer.node == hello.node);
        let secret = std::mem::take(&mut self.secret);
        let slot = &mut self.slots[link.index as usize];
        let is_expected = match (peer, slot.dialed) {
            (Some(peer), Some(dialed)) => peer as u32 == dialed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_expected {
            slot.theirs.copy_from_slice(bytes);
            slot.hello = Some((theirs, hello));
            slot.phase = Phase::AwaitProof;
            let proof = PeerMessage::Proof(slot.proof_of(&secret, slot.dialed.is_some()));
            let _ = slot
                .outgoing
                .push_with(|place| proof.encode(envelope, place));
        }
        self.secret = secret;
        if !is_expected {
            return Err(LinkFault::Stranger(hello.node));
        }
        self.start_send(link);
        Ok(())
    }

    fn on_proof(
        &mut self,
        link: LinkId,
        proof: &relay_wire::proof::Proof,
    ) -> Result<(u32, Identity), LinkFault> {
        let slot = &self.slots[link.index as usize];
        let expected = slot.proof_of(&self.secret, slot.dialed.is_none());
        let Some((envelope, hello)) = slot.hello else {
            return Err(LinkFault::Order);
        };
        if !is_same(&expected, proof) {
            return Err(LinkFault::Secret);
        }
        let place = self.peers.iter().position(|peer| peer.node == hello.node);
        let peer = place.ok_or(LinkFault::Stranger(hello.node))?;
        if let Some(before) = self.peers[peer].link.replace(link) {
            self.close_slot(before);
        }
        self.slots[link.index as usize].phase = Phase::Proven(peer as u32);
        let identity = Identity {
            incarnation: envelope.incarnation,
            process: hello.process,
        };
        Ok((peer as u32, identity))
    }

    fn fault(&mut self, link: LinkId, fault: LinkFault) -> Received<'static> {
        self.close(link);
        Received::Broken(fault)
    }

    /// Queues a message to a peer; `Full` when it does not fit now or there is no connection.
    pub(crate) fn say(
        &mut self,
        peer: u32,
        envelope: &Envelope,
        message: &PeerMessage<'_>,
    ) -> Result<(), Full> {
        let link = self.peers[peer as usize].link.ok_or(Full)?;
        let slot = &mut self.slots[link.index as usize];
        slot.outgoing
            .push_with(|place| message.encode(envelope, place))?;
        self.start_send(link);
        Ok(())
    }

    /// Whether the peer's buffer takes a block of `length` bytes and leaves room for control messages.
    pub(crate) fn has_room_for(&self, peer: u32, length: usize) -> bool {
        let link = self.peers[peer as usize].link;
        link.is_some_and(|link| {
            let outgoing = &self.slots[link.index as usize].outgoing;
            length + peer::BLOCK_OVERHEAD + OUTGOING_RESERVE <= outgoing.room()
        })
    }

    fn start_send(&mut self, link: LinkId) {
        let slot = &mut self.slots[link.index as usize];
        if slot.outgoing.wants_send() {
            slot.outgoing.begin_send();
            self.effects.push_back(LinkEffect::Send(link));
        }
    }

    /// The bytes a [`LinkEffect::Send`] is about. They stay in place until [`Links::on_sent`].
    pub(crate) fn outgoing(&self, link: LinkId) -> &[u8] {
        let slot = &self.slots[link.index as usize];
        if slot.generation == link.generation {
            return slot.outgoing.front();
        }
        let dying = self.dying.iter().find(|(dying, _)| *dying == link);
        dying.map_or(&[], |(_, outgoing)| outgoing.front())
    }

    /// A send took `length` bytes. To be reported for every send asked for, also where the connection was closed since.
    pub(crate) fn on_sent(&mut self, link: LinkId, length: usize) {
        self.dying.retain(|(dying, _)| *dying != link);
        let wanted = self.outgoing_length;
        let Some(slot) = self.slot(link) else {
            return;
        };
        slot.outgoing.end_send(length);
        if matches!(slot.phase, Phase::Proven(_)) && slot.outgoing.capacity() < wanted {
            slot.outgoing.grow(wanted);
        }
        self.start_send(link);
    }

    /// The connection ended. Returns the peer it belonged to, if it was the peer's present one.
    pub(crate) fn on_closed(&mut self, link: LinkId) -> Option<u32> {
        let slot = self.slot(link)?;
        let (dialed, phase, since_ns) = (slot.dialed, slot.phase, slot.since_ns);
        self.free(link);
        if let Some(peer) = dialed {
            // At once, if it lasted: whether the peer is still there decides whether it is suspected.
            self.peers[peer as usize].redial_ns = since_ns + REDIAL_NS;
        }
        let Phase::Proven(peer) = phase else {
            return None;
        };
        let entry = &mut self.peers[peer as usize];
        if entry.link != Some(link) {
            return None;
        }
        entry.link = None;
        if entry.node > self.me {
            self.effects.push_back(LinkEffect::Knock(peer));
        }
        Some(peer)
    }

    /// Closes a peer's connection; a new one will be made.
    pub(crate) fn close_peer(&mut self, peer: u32) {
        if let Some(link) = self.peers[peer as usize].link.take() {
            self.close_slot(link);
        }
    }

    /// Closes every connection, proven or not. What still waits on them is not sent.
    pub(crate) fn close_all(&mut self) {
        for entry in &mut self.peers {
            entry.link = None;
        }
        for at in 0..self.slots.len() {
            self.close_slot(self.id_of(at));
        }
    }

    pub(crate) fn is_proven(&self, link: LinkId) -> bool {
        let slot = self.slots.get(link.index as usize);
        slot.is_some_and(|slot| {
            slot.generation == link.generation && matches!(slot.phase, Phase::Proven(_))
        })
    }

    pub(crate) fn is_connected(&self, peer: u32) -> bool {
        self.peers[peer as usize].link.is_some()
    }

    fn close(&mut self, link: LinkId) {
        if let Some(Phase::Proven(peer)) = self.slot(link).map(|slot| slot.phase) {
            let entry = &mut self.peers[peer as usize];
            if entry.link == Some(link) {
                entry.link = None;
            }
        }
        self.close_slot(link);
    }

    fn close_slot(&mut self, link: LinkId) {
        if self.slot(link).is_some() {
            self.free(link);
            self.effects.push_back(LinkEffect::Close(link));
        }
    }

    fn free(&mut self, link: LinkId) {
        let slot = &mut self.slots[link.index as usize];
        let generation = slot.generation.wrapping_add(1);
        let before = std::mem::replace(slot, Slot::new(generation));
        if before.outgoing.is_sending() {
            self.dying.push((link, before.outgoing));
        }
    }

    /// Time passed: peers to dial, handshakes that take too long.
    pub(crate) fn on_time(&mut self, now_ns: u64) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let patience_ns = match slot.dialed {
                Some(_) => self.dial_patience_ns,
                None => HANDSHAKE_NS,
            };
            if slot.is_stranger() && now_ns >= slot.since_ns + patience_ns {
                self.close(self.id_of(at));
            }
        }
        for peer in 0..self.peers.len() {
            let has_stranger = self
                .slots
                .iter()
                .any(|slot| slot.is_stranger() && slot.dialed == Some(peer as u32));
            let entry = &mut self.peers[peer];
            let is_due = entry.link.is_none() && !entry.is_dialing && now_ns >= entry.redial_ns;
            if is_due && !has_stranger && entry.node < self.me {
                entry.is_dialing = true;
                entry.redial_ns = now_ns + REDIAL_NS;
                self.effects.push_back(LinkEffect::Dial(peer as u32));
            }
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<LinkEffect> {
        self.effects.pop_front()
    }
}

impl Slot {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            phase: Phase::Free,
            dialed: None,
            since_ns: 0,
            ours: [0; HELLO_LENGTH],
            theirs: [0; HELLO_LENGTH],
            hello: None,
            outgoing: Outgoing::default(),
        }
    }

    const fn is_stranger(&self) -> bool {
        matches!(self.phase, Phase::AwaitHello | Phase::AwaitProof)
    }

    /// The proof of the dialler or the acceptor of this connection.
    fn proof_of(&self, secret: &[u8], is_dialer: bool) -> relay_wire::proof::Proof {
        let (dialer, acceptor) = if self.dialed.is_some() {
            (&self.ours, &self.theirs)
        } else {
            (&self.theirs, &self.ours)
        };
        prove(secret, is_dialer, dialer, acceptor)
    }
}
