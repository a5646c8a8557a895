//! One machine of the group: the real node, its disk, and what is under way between them.
//!
//! [`react`] gives a machine one input and lets the node turn until it comes to rest. What the machine then is, and what it
//! said to the others, follows from the machine and the input alone. So each such step is worked out once, however many
//! states of the group it occurs in (`store.rs`).

mod life;
mod run;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use relay_core::arbiter::{ArbiterAnswer, ArbiterRequest};
use relay_core::group::{Carry, HaltReason, RestartReason, Vote};
use relay_core::links::LinkId;
use relay_core::node::Node;
use relay_journal::superblock::{FORMAT_VERSION, Superblock, WriteMethod};
use relay_wire::id::{Epoch, NodeId, Position, StreamId, TopicId};
use relay_wire::membership::Member;

pub(crate) use self::run::react;
use crate::bounds::{Bounds, CLOCK_START_NS, NODES_MAX, PAGE};
use crate::digest::digest_of;
use crate::log::{Log, Page};

/// A message between nodes.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its number in the store; 0 before it has one.
    pub(crate) id: u32,
    pub(crate) digest: u64,
    pub(crate) bytes: Arc<[u8]>,
}

impl Message {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            id: 0,
            digest: digest_of(&bytes),
            bytes: bytes.into(),
        }
    }
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// What is lost and what is kept when a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Loss {
    /// Which of the writes under way are on the disk, a bit each.
    pub(crate) kept: u8,
    /// The last of them but for its last sector.
    pub(crate) is_torn: bool,
    /// A vote under way is in the superblock.
    pub(crate) keeps_vote: bool,
    /// Pages that a cut which was under way has taken from the log's end.
    pub(crate) cut: u8,
}

/// How the last block on a disk rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rot {
    Header,
    Body,
}

/// What can happen to a machine.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Input {
    /// A message of a peer arrives.
    Hear(u8, Message),
    /// The connection to a peer is gone.
    Lost(u8),
    /// A connection to a peer is there; whether this machine dialled.
    Opened(u8, bool),
    /// Time passes, nanoseconds.
    Pass(u64),
    /// One of the writes under way completes.
    Written(u8),
    VoteStored,
    Answer(ArbiterAnswer),
    /// The publisher logs on, where it is not.
    Logon,
    /// The publisher sends its next message.
    Publish,
    HandOver,
    Crash(Loss),
    Start,
    /// The node asked to begin again from its disk.
    Rebuild,
    Rot(Rot),
    Blank,
}

/// What a machine did that others notice.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    Said(u8, Message),
    /// It closed the connection to a peer.
    Closed(u8),
    Leads,
    Serves,
    /// It let everything up to here be read, in this epoch, which asks for so many copies.
    Released {
        end: Position,
        epoch: Epoch,
        copies: u8,
    },
    /// The publisher was told that everything up to this sequence is released.
    Acknowledged(u64),
    /// The publisher logged on and was told what is wanted next, and what is released.
    Established {
        epoch: Epoch,
        next: u64,
        released: u64,
    },
    Halted(HaltReason),
    /// Its disk is damaged where the log was durable once.
    Rotten(String),
    /// The disk that was replaced held this.
    DiskLost(Log),
    /// Something that must never be.
    Wrong(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) position: Position,
    pub(crate) pages: Vec<Page>,
}

/// The number only names it for the node; of the writes under way each has a place of its own.
impl Hash for Write {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.position, &self.pages).hash(state);
    }
}

/// The publisher's connection to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Session {
    pub(crate) generation: u32,
    pub(crate) is_logon_taken: bool,
    pub(crate) is_request_taken: bool,
    pub(crate) is_established: bool,
    pub(crate) topic: Option<TopicId>,
    /// The last sequence it sent here.
    pub(crate) sent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Halt {
    Reason(HaltReason),
    Rotten,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) at: u8,
    pub(crate) node: Option<Box<Node>>,
    pub(crate) halt: Option<Halt>,
    pub(crate) clock_ns: u64,
    pub(crate) superblock: Superblock,
    pub(crate) disk: Log,
    /// A page of the disk that rotted, as it was.
    pub(crate) rotten: Option<(u16, Page)>,
    /// What the node appended or received.
    pub(crate) log: Log,
    pub(crate) writes: Vec<Write>,
    pub(crate) vote: Option<Vote>,
    pub(crate) ask: Option<ArbiterRequest>,
    pub(crate) links: [Option<LinkId>; NODES_MAX - 1],
    /// One that a newer connection is about to take the place of.
    stale: [Option<LinkId>; NODES_MAX - 1],
    pub(crate) dials: [bool; NODES_MAX - 1],
    pub(crate) restart: Option<(RestartReason, Carry)>,
    pub(crate) is_serving: bool,
    /// A planned switch is under way: nothing is taken.
    pub(crate) is_handing_over: bool,
    pub(crate) session: Session,
    /// How often a node began here: no two have the same random numbers.
    pub(crate) lives: u32,
    floor: Position,
}

/// Everything but what only names things: a request's number is its asker's alone.
impl Hash for Machine {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.at, &self.node, self.halt, self.clock_ns).hash(state);
        (self.superblock, &self.disk, &self.rotten, &self.log).hash(state);
        (&self.writes, self.vote, self.ask.map(|request| request.ask)).hash(state);
        (self.links, self.stale, self.dials, self.restart).hash(state);
        (self.is_serving, self.is_handing_over).hash(state);
        (self.session, self.lives, self.floor).hash(state);
    }
}

impl Machine {
    /// A machine with a blank disk that nothing runs on.
    pub(crate) fn new(bounds: &Bounds, at: usize) -> Self {
        let settings = bounds.settings(at);
        Self {
            at: at as u8,
            node: None,
            halt: None,
            clock_ns: CLOCK_START_NS,
            superblock: Superblock {
                format_version: FORMAT_VERSION,
                node: settings.node,
                stream: StreamId(1),
                disk_incarnation: (at as u64 + 1) * 100,
                created_ns: 1,
                segment_size: settings.segment_size,
                block_alignment: PAGE as u32,
                write_method: WriteMethod::Dsync,
                in_flight_bytes_max: settings.in_flight_bytes_max(),
                generation: 1,
                clean: None,
                promised: Epoch(0),
                committed: Epoch(0),
                committed_nonce: 0,
                unknown_tail: None,
                ring_length: settings.ring_size,
                learning_from: None,
            },
            disk: Log::default(),
            rotten: None,
            log: Log::default(),
            writes: Vec::new(),
            vote: None,
            ask: None,
            links: [None; NODES_MAX - 1],
            stale: [None; NODES_MAX - 1],
            dials: [false; NODES_MAX - 1],
            restart: None,
            is_serving: false,
            is_handing_over: false,
            session: Session::default(),
            lives: 0,
            floor: Position(0),
        }
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            node: NodeId(u64::from(self.at) + 1),
            incarnation: self.superblock.disk_incarnation,
            process: 0,
        }
    }

    /// Whether a node runs here that has not given up.
    pub(crate) const fn is_up(&self) -> bool {
        self.node.is_some() && self.restart.is_none()
    }

    /// The epoch it leads, if it does.
    pub(crate) fn reign(&self) -> Option<Epoch> {
        let node = self
            .node
            .as_ref()
            .filter(|node| node.sequence().is_some())?;
        Some(node.status().epoch)
    }

    /// Whether the publisher can send a message here now.
    pub(crate) fn takes_messages(&self, messages: u64) -> bool {
        let session = &self.session;
        let is_ready = self.is_up() && self.is_serving && session.is_established;
        is_ready && session.topic.is_some() && session.sent < messages
    }

    /// Whether the disk holds these pages, or did before it rotted.
    pub(crate) fn has_durable(&self, pages: &[Page]) -> bool {
        let Some((at, before)) = &self.rotten else {
            return self.disk.starts_with(pages);
        };
        let mut disk = self.disk.clone();
        disk.put(
            Position(u64::from(*at) * PAGE as u64),
            std::slice::from_ref(before),
        );
        disk.starts_with(pages)
    }
}
