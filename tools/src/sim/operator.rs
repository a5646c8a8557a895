//! The operator of a group: knows what the nodes' logs say, and says a word where only a word helps.
//!
//! What is known is what a careful person can know: the newest reign that any node's log tells of, and so which copies hold
//! everything that was released; who was taken out since; who runs and what it waits for. The rules are README's:
//! * a copy that holds everything may lead, if nobody does;
//! * where all of those are gone for long, or every process that counted is, one that says what it may lack leads
//!   with the loss accepted: of those that run the one whose log is of the newest epoch, and of these the longest;
//! * a copy that was taken out, and may not know it, is not asked;
//! * one word at a time: whoever was told something has had the time to do it, or to give it up.

use relay_core::group::{Obstacle, WordRefused};
use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::membership::{Member, Members, Membership};

use crate::clock::{MILLISECOND, SECOND};

/// How often the operator looks.
pub(crate) const LOOK_NS: u64 = 50 * MILLISECOND;
/// A group that nobody leads for so long is looked at closer.
const PATIENCE_NS: u64 = 500 * MILLISECOND;
/// Whoever is away for so long may not come back soon.
const AWAY_NS: u64 = 2 * SECOND;
/// A word that a node is to lead is done or given up after so long.
pub(crate) const PROMOTION_NS: u64 = 3_200 * MILLISECOND;
/// So is a planned switch: the primary's patience, and then the other's.
pub(crate) const SWITCH_NS: u64 = 5_200 * MILLISECOND;
/// And a change of the set by whoever leads.
pub(crate) const CHANGE_NS: u64 = 500 * MILLISECOND;

/// How a node looks to the operator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    pub(crate) member: Member,
    pub(crate) obstacle: Option<Obstacle>,
    /// The newest epoch in its log, and where that ends.
    pub(crate) log: (Epoch, Position),
}

/// What there is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Nothing,
    /// Nobody leads: see who can.
    Look {
        /// It has been so for long.
        is_long: bool,
    },
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    newest: Option<Membership>,
    /// Nodes taken out since they were last in a set.
    taken_out: Vec<NodeId>,
    idle_since_ns: Option<u64>,
    free_ns: u64,
    /// The process that was told to lead with a loss accepted.
    accepted: Option<(usize, u32)>,
}

impl Operator {
    /// A node's log says that it leads by this record.
    pub(crate) fn on_reign(&mut self, record: &Membership) {
        let epoch = self.newest.map_or(Epoch(0), |newest| newest.epoch);
        if record.epoch > epoch {
            self.newest = Some(*record);
            let is_in = |node: NodeId| record.members.as_slice().iter().any(|m| m.node == node);
            self.taken_out.retain(|&node| !is_in(node));
        }
    }

    /// Whether this copy holds everything that was released.
    pub(crate) fn holds_all(&self, member: &Member) -> bool {
        self.newest
            .is_some_and(|newest| newest.members.contains(member))
    }

    /// The copies that hold everything.
    pub(crate) fn holders(&self) -> Members {
        self.newest
            .map_or_else(Members::default, |newest| newest.members)
    }

    /// A node is being taken out: from now on it may lack something.
    pub(crate) fn on_detached(&mut self, node: usize) {
        let node = NodeId(node as u64 + 1);
        if let Some(newest) = &mut self.newest {
            newest.members = newest.members.without(node);
        }
        if !self.taken_out.contains(&node) {
            self.taken_out.push(node);
        }
    }

    /// Whether a node was taken out, and has not been in a set since: it may not know, and would lead as if it lacked nothing.
    pub(crate) fn is_taken_out(&self, node: NodeId) -> bool {
        self.taken_out.contains(&node)
    }

    /// Whether no other word is on its way.
    pub(crate) const fn is_free(&self, now_ns: u64) -> bool {
        now_ns >= self.free_ns
    }

    /// A word was said that is done or given up after `for_ns`.
    pub(crate) fn on_word(&mut self, now_ns: u64, for_ns: u64) {
        self.free_ns = self.free_ns.max(now_ns + for_ns);
    }

    /// This process was told to lead, whatever is lost by it.
    pub(crate) const fn on_accepted(&mut self, node: usize, process: u32) {
        self.accepted = Some((node, process));
    }

    /// Whether this process leads with a loss accepted.
    pub(crate) fn accepts_loss(&self, node: usize, process: u32) -> bool {
        self.accepted == Some((node, process))
    }

    /// Looks at the group: `is_led` by anybody who runs.
    pub(crate) fn look(&mut self, is_led: bool, now_ns: u64) -> Deed {
        if is_led {
            self.idle_since_ns = None;
            return Deed::Nothing;
        }
        let since_ns = *self.idle_since_ns.get_or_insert(now_ns);
        if now_ns < since_ns + PATIENCE_NS || !self.is_free(now_ns) {
            return Deed::Nothing;
        }
        Deed::Look {
            is_long: now_ns >= since_ns + AWAY_NS,
        }
    }
}

/// Whether a word was refused only because something may be lost by it.
pub(crate) const fn may_lose(refused: &Result<(), WordRefused>) -> bool {
    matches!(refused, Err(WordRefused::MayLose(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_wire::code::Policy;
    use relay_wire::id::StreamId;

    fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            incarnation: node,
            process: 0,
        }
    }

    #[test]
    fn who_was_taken_out_does_not_hold_everything() {
        let mut operator = Operator::default();
        let record = |epoch, members: &[Member]| Membership {
            stream: StreamId(1),
            epoch: Epoch(epoch),
            nonce: epoch,
            primary: NodeId(1),
            members: Members::of(members),
            min_copies: 1,
            policy: Policy::Durable,
        };
        operator.on_reign(&record(2, &[member(1), member(2)]));
        operator.on_reign(&record(1, &[member(3)]));
        assert!(operator.holds_all(&member(2)) && !operator.holds_all(&member(3)));
        operator.on_detached(1);
        assert!(!operator.holds_all(&member(2)));
        operator.on_reign(&record(3, &[member(1), member(2)]));
        assert!(operator.holds_all(&member(2)));
    }

    #[test]
    fn one_word_at_a_time_and_none_while_somebody_leads() {
        let mut operator = Operator::default();
        assert_eq!(operator.look(false, 0), Deed::Nothing);
        let is_long = false;
        assert_eq!(operator.look(false, PATIENCE_NS), Deed::Look { is_long });
        operator.on_word(PATIENCE_NS, SWITCH_NS);
        assert_eq!(operator.look(false, AWAY_NS), Deed::Nothing);
        assert_eq!(operator.look(true, 2 * SWITCH_NS), Deed::Nothing);
        assert_eq!(operator.look(false, 2 * SWITCH_NS + 1), Deed::Nothing);
    }
}
