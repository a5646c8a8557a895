//! How a node stands, and what it tells people.

use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::membership::Membership;
use relay_wire::peer::Standing;

use super::{Node, Role};
use crate::command::LogEnd;
use crate::group::{Loss, Obstacle, Vote};
use crate::links::LinkFault;

/// Something an operator may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Note {
    /// A peer's connection is proven.
    PeerJoined(NodeId),
    /// It ended.
    PeerLost(NodeId),
    /// A connection to or from a peer was refused.
    PeerRefused(LinkFault),
    /// This node follows the epoch of this record.
    Follows(Membership),
    /// This node leads with this record.
    Leads(Membership),
    /// A peer's log is continued from here.
    Mirrors(NodeId, Position),
    /// A block read for a peer is not what was written.
    Damaged(Position),
    /// A peer's copy of the block at this position is damaged; it asked for ours.
    Fetched(NodeId, Position),
    /// The planned switch did not come about in time.
    HandOverFailed,
    /// This primary reaches neither another copy that counts nor the arbiter: its clients were sent away.
    Withdrawn,
    /// It serves clients again.
    ServesAgain,
    /// No primary is heard, the named node led last, and an operator decides who leads.
    AwaitsOperator(NodeId),
    /// No primary is heard, the named node led last, and this copy is not in the set: another one of it may have gone on, or under the policy
    /// `mirrored` its process was restarted.
    NotInSet(NodeId),
    /// No primary is heard, and this node may not lead: its log ends at the first position, released is up to the second.
    EndsBelowFloor(Position, Position),
    /// No primary is heard, and this node may not lead: damage was cut from its log at this position, and no other member has answered
    /// for what lay there.
    TailUnknown(Position),
    /// This node is about to lead as the only copy there is, though damage was cut from its log at this position: nobody could answer for
    /// what lay there.
    TailUnanswered(Position),
    /// A promotion was not carried out: the arbiter gave no certain answer in time.
    PromotionLapsed,
    /// A promotion was not carried out: the record read since shows what could be lost.
    PromotionRefused(Loss),
}

/// How a node stands, for status and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// What it does.
    pub standing: Standing,
    /// The epoch it leads or follows; 0 for none.
    pub epoch: Epoch,
    /// End of what it appended or received.
    pub appended: LogEnd,
    /// End of what is on its disk.
    pub durable: LogEnd,
    /// How far it knows the log to be released.
    pub released: LogEnd,
    /// The record it goes by.
    pub membership: Option<Membership>,
    /// What it promised and knows of, durably.
    pub vote: Vote,
    /// When the arbiter last gave a certain answer, monotonic ns.
    pub arbiter_heard_ns: Option<u64>,
    /// A swap is not settled.
    pub is_changing: bool,
    /// Why it does not lead although no primary is heard.
    pub obstacle: Option<Obstacle>,
}

/// A peer, for status and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which node.
    pub node: NodeId,
    /// Whether its connection is proven.
    pub is_connected: bool,
    /// When it was last heard, monotonic ns.
    pub heard_ns: u64,
    /// What it does.
    pub standing: Standing,
    /// What is durable there, as it last said.
    pub durable: Position,
    /// What this primary counts of it; 0 on a follower.
    pub mirrored: Position,
    /// Whether this very copy is in the set.
    pub is_member: bool,
    /// How often it named a block with another checksum than this primary's.
    pub mismatches: u64,
}

impl Node {
    /// How the node stands.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let Some(group) = &self.group else {
            let Role::Primary(primary) = &self.role else {
                unreachable!("a node without a group leads")
            };
            let sequence = &primary.sequence;
            return NodeStatus {
                standing: Standing::Leading,
                epoch: Epoch(0),
                appended: sequence.sealed_end(),
                durable: sequence.durable_end(),
                released: sequence.released_end(),
                membership: None,
                vote: Vote::default(),
                arbiter_heard_ns: None,
                is_changing: false,
                obstacle: None,
            };
        };
        let (appended, durable, released) = self.positions(group);
        NodeStatus {
            standing: group.failover.standing(),
            epoch: group.failover.epoch(),
            appended,
            durable,
            released,
            membership: group.failover.membership().copied(),
            vote: *group.failover.vote(),
            arbiter_heard_ns: group.failover.arbiter_heard_ns(),
            is_changing: group.failover.is_changing(),
            obstacle: group.failover.obstacle(),
        }
    }

    /// How each peer stands, in the order of the configuration.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        let group = self.group.iter();
        group.flat_map(|group| {
            let membership = group.failover.membership();
            let views = group.failover.peers().iter().zip(&group.mirrors);
            views.map(move |(view, mirror)| PeerStatus {
                node: view.member.node,
                is_connected: view.is_connected,
                heard_ns: view.heard_ns,
                standing: view.progress.standing,
                durable: view.told.0,
                mirrored: mirror.acknowledged(),
                mismatches: mirror.mismatches(),
                is_member: membership.is_some_and(|m| m.members.contains(&view.member)),
            })
        })
    }
}
