//! What the machines of a group need to know of its configuration, and the values they share.

use relay_wire::code::Policy;
use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::membership::{Member, Membership};

use crate::standby::IntakeError;

/// Another node of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerSettings {
    /// Its number.
    pub node: NodeId,
    /// It keeps a copy and is never counted on, nor leads unless an operator says so.
    pub is_observer: bool,
}

/// Settings of a group as one node sees it. Times are nanoseconds.
#[derive(Debug, Clone, Hash)]
pub struct GroupSettings {
    /// This very copy: node, disk, and under the policy `mirrored` the process too.
    pub identity: Member,
    /// Random number of this process.
    pub process: u64,
    /// Where the random numbers of membership records come from.
    pub seed: u64,
    /// This node keeps a copy and is never counted on.
    pub is_observer: bool,
    /// The others.
    pub peers: Vec<PeerSettings>,
    /// What all of them know.
    pub secret: Vec<u8>,
    /// When a message may be released.
    pub policy: Policy,
    /// With fewer copies nothing is released.
    pub min_copies: u8,
    /// Nobody is dropped and nobody takes over unless an operator says so. The record lies on each node: a primary swaps its
    /// own, a follower keeps the one it joins beside its vote ([`crate::node::NodeEffect::StoreVote`]).
    pub is_manual: bool,
    /// Each side of a link says something at least so often.
    pub heartbeat_ns: u64,
    /// A primary silent for so long is suspected; a member a head start earlier.
    pub suspect_ns: u64,
    /// A primary whose connection ended and did not come back within so long is suspected; a member after half of it; either at
    /// once where a connection is refused.
    pub suspect_closed_ns: u64,
    /// How much earlier a primary suspects a member than the member suspects it; more than two heartbeats, or the two may
    /// suspect each other in the wrong order.
    pub head_start_ns: u64,
    /// A node that starts waits so long for the other members before it goes on without them.
    pub start_wait_ns: u64,
    /// A member that lets something wait for its acknowledgement for longer is taken out, also where it acknowledges earlier things
    /// meanwhile.
    pub ack_deadline_ns: u64,
    /// A learner that has kept up for so long is taken in.
    pub readmit_after_ns: u64,
    /// Longest block that a log may hold from when its nodes had other limits, bytes: what peers send each other may be as long.
    pub logged_span_max: u32,
    /// A disk on which nothing becomes durable for so long, though something is under way, is not to be counted on.
    pub disk_stall_ns: u64,
    /// An arbiter that gave no certain answer is asked again after so long.
    pub retry_ns: u64,
    /// The released floor is written so often.
    pub floor_every_ns: u64,
    /// Most bytes a second read from disk for one node that catches up.
    pub catch_up_rate: u64,
}

impl GroupSettings {
    /// Most time to reach a peer that does not answer, and as much again for its HELLO and PROOF, ns: from 50 ms to 1 s. A node that
    /// starts waits for [`Self::start_wait_ns`] to be dialled, and what hangs at the process or the machine it was before must
    /// not take up all of that.
    #[must_use]
    pub fn dial_patience_ns(&self) -> u64 {
        (self.start_wait_ns / 4).clamp(50_000_000, 1_000_000_000)
    }
}

/// What a node must never forget: it lies in the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Vote {
    /// The highest epoch promised.
    pub promised: Epoch,
    /// Epoch of the newest membership record known.
    pub committed: Epoch,
    /// That record's nonce.
    pub nonce: u64,
    /// Where damage was cut at a start, until somebody has answered for it.
    pub unknown_tail: Option<Position>,
    /// While this copy is outside the set it follows: where its log ended before, from where on nothing rested on it.
    pub learning_from: Option<Position>,
}

/// Why an operator's word is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordRefused {
    /// This node does not lead.
    NotPrimary,
    /// It leads already.
    IsPrimary,
    /// This node leads, and is heard.
    IsLed(NodeId),
    /// The node named is none of the group's, or this one.
    NotAPeer,
    /// Too few copies would be left.
    TooFewCopies,
    /// The node named is not in the set, or not connected.
    NotInSync,
    /// A planned switch is under way.
    UnderWay,
    /// The trading session named does not come after this one, which is open.
    SessionNotNewer(u64),
    /// Something that was released may be missing here; only with the loss accepted.
    MayLose(Loss),
}

/// What a promotion may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Loss {
    /// This copy is not in the set the newest known record names.
    NotInSet = 1,
    /// The log is shorter than what is known to be released.
    BelowFloor = 2,
    /// Damage was cut at the start and nobody has answered for it.
    TailUnknown = 3,
    /// The record could not be read from the arbiter.
    NoRecord = 4,
    /// No arbiter tells, and this process has not followed a primary yet: others may have gone on without this copy.
    NotFollowed = 5,
    /// The loss was accepted already, and nothing of the reign that was to begin with it is in the log.
    NotOpened = 6,
}

/// Why a node that hears no primary does not lead either, where only an operator, or another node, can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Obstacle {
    /// An operator decides who leads.
    Operator = 1,
    /// The log is shorter than what is known to be released.
    BelowFloor = 2,
    /// This copy is not in the set the newest known record names.
    NotInSet = 3,
    /// Damage was cut from this copy's end, and no other member has answered for it (rule R17).
    TailUnknown = 4,
}

impl core::fmt::Display for Loss {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotInSet => {
                "this copy is not in the in-sync set: what was released since is missing"
            }
            Self::BelowFloor => "this copy ends before what is known to be released",
            Self::TailUnknown => {
                "this copy cut damage when it started, and no other has answered for it"
            }
            Self::NoRecord => {
                "the membership record can't be read: whether this copy is whole is not known"
            }
            Self::NotFollowed => {
                "this node has followed no primary since it started: whether others went on without \
                 it is not known"
            }
            Self::NotOpened => {
                "a loss was accepted, and nothing of the reign that was to begin with it is in this log"
            }
        })
    }
}

impl core::fmt::Display for WordRefused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotPrimary => write!(f, "this node does not lead: ask the primary"),
            Self::IsPrimary => write!(f, "this node leads already"),
            Self::IsLed(node) => write!(
                f,
                "node {node} leads and is heard: say `relay hand-over` there"
            ),
            Self::NotAPeer => write!(f, "no other node of the group has this number"),
            Self::TooFewCopies => write!(
                f,
                "fewer copies than min_copies would be left, and nothing would be released"
            ),
            Self::NotInSync => write!(
                f,
                "that node is not in the in-sync set now: wait until it has caught up, see status"
            ),
            Self::UnderWay => write!(f, "a switch is under way already"),
            Self::SessionNotNewer(open) => write!(
                f,
                "trading session {open} is open or about to be: the next one has a higher number"
            ),
            Self::MayLose(loss) => write!(
                f,
                "it could lose messages that were acknowledged: {loss}. Bring another copy back, or \
                 accept the loss with `relay promote --accept-loss` and this node's number"
            ),
        }
    }
}

impl core::error::Error for WordRefused {}

/// Why a node can't go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HaltReason {
    /// The arbiter has no record of the stream.
    NoRecord,
    /// The arbiter shows an older record than this node has seen: it was restored from a backup, or is another one.
    ArbiterWentBack {
        /// What this node saw.
        committed: Epoch,
        /// What the arbiter shows.
        shown: Epoch,
    },
    /// The arbiter shows another record of an epoch than this node has seen.
    TwoRecords(Epoch),
    /// What the arbiter holds is no record of this stream.
    Garbled,
    /// The record, or a promise, is of the last epoch there is: none can follow.
    LastEpoch,
    /// Two different logs exist in one epoch.
    TwoHistories(Epoch),
    /// The primary's log parts from this node's before what is known to be released.
    CutBelowReleased {
        /// Where they part.
        parting: Position,
        /// What is released.
        released: Position,
    },
    /// The primary sent a block that can't continue this node's log.
    Diverged(IntakeError),
}

impl core::fmt::Display for HaltReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoRecord => write!(
                f,
                "the arbiter has no membership record of this stream: make one with `relayd \
                 init-group`, once for each stream; if there was one, the arbiter has lost it: \
                 restore it"
            ),
            Self::ArbiterWentBack { committed, shown } => write!(
                f,
                "the arbiter shows epoch {shown}, this node has seen {committed}: the arbiter was \
                 restored from an old backup, or is another one. Bring the newest record back"
            ),
            Self::TwoRecords(epoch) => write!(
                f,
                "the arbiter shows another record of epoch {epoch} than this node has seen: it was \
                 restored from a backup, or is another one. Bring the newest record back"
            ),
            Self::Garbled => write!(
                f,
                "what the arbiter holds is no membership record of this stream: check its address, \
                 key prefix and version"
            ),
            Self::LastEpoch => write!(
                f,
                "no epoch can follow {}, which no group reaches by itself: what the arbiter or a \
                 node holds was not written by the relay. Bring the right record back",
                Epoch::LAST
            ),
            Self::TwoHistories(epoch) => write!(
                f,
                "two different logs exist in epoch {epoch}: an operator has to find out which \
                 is right; keep both"
            ),
            Self::CutBelowReleased { parting, released } => write!(
                f,
                "the primary's log parts from this node's at position {parting}, but everything up \
                 to {released} was released: an operator has to find out which log is right; \
                 keep both"
            ),
            Self::Diverged(error) => write!(f, "{error}; keep both journals and report it"),
        }
    }
}

impl core::error::Error for HaltReason {}

/// Why a node gives up what it does and begins again from its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestartReason {
    /// Another node leads a later epoch.
    Superseded(Epoch),
    /// The new primary's log parts from this node's here: what lies behind is set aside and cut.
    Cut(Position),
    /// Another connection's primary had to be followed before the log was whole; begin again from what is durable.
    Rejoin,
}

/// What a node knows that outlives its log being rebuilt within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Carry {
    /// The highest epoch promised when the process started: rule R26 asks for a higher one.
    pub start_promised: Epoch,
    /// The epoch joined, with its record.
    pub joined: Option<Membership>,
    /// When the process started, monotonic ns.
    pub started_ns: u64,
    /// The highest epoch of a record that somebody else is known to have.
    pub superseded: Epoch,
}
