//! An operator's words, and what only an operator can decide: who is to lead where no rule says so, what may be lost by it, and
//! what keeps a node from leading by itself (rules R18, R19, R20).

use relay_wire::id::{Epoch, NodeId};
use relay_wire::membership::{Member, Membership};
use relay_wire::record::UncleanBody;

use super::{Facts, Failover, Order, Promotion};
use crate::group::{Loss, Obstacle, WordRefused};
use crate::node::Note;

impl Failover {
    /// What an operator accepted with this reign; told once.
    pub(crate) fn take_unclean(&mut self) -> Option<UncleanBody> {
        self.unclean.take()
    }

    /// An operator takes a node out of the set, or lets it in again.
    ///
    /// # Errors
    /// [`WordRefused`] says why not.
    pub(crate) fn detach(&mut self, node: NodeId, is_detached: bool) -> Result<(), WordRefused> {
        let reign = self.reign.as_ref().ok_or(WordRefused::NotPrimary)?;
        let set = reign.members.without(node);
        let is_member = set.len() < reign.members.len();
        if is_detached && is_member && set.len() < self.settings.min_copies.into() {
            return Err(WordRefused::TooFewCopies);
        }
        if is_detached && is_member && self.is_doubtful() {
            return Err(WordRefused::MayLose(Loss::NotFollowed));
        }
        let view = self.peers.iter_mut().find(|view| view.member.node == node);
        let view = view.ok_or(WordRefused::NotAPeer)?;
        if is_detached && self.settings.is_manual && view.is_called {
            return Err(WordRefused::UnderWay);
        }
        view.is_detached = is_detached;
        Ok(())
    }

    /// A peer is told to take over.
    pub(crate) fn on_called(&mut self, peer: u32) {
        self.peers[peer as usize].is_called = true;
    }

    /// A peer answered an OPEN, and forgot with it whatever it had been told before.
    pub(crate) fn on_followed(&mut self, peer: u32) {
        self.peers[peer as usize].is_called = false;
    }

    /// An operator wants this node to lead.
    ///
    /// # Errors
    /// [`WordRefused`] says why not, and what could be lost.
    pub(crate) fn promote(
        &mut self,
        accepts_loss: bool,
        facts: &Facts,
        now_ns: u64,
    ) -> Result<(), WordRefused> {
        if self.reign.is_some() && !self.is_doubtful() {
            return Err(WordRefused::IsPrimary);
        }
        if let Some(primary) = self.primary_heard(now_ns) {
            return Err(WordRefused::IsLed(primary));
        }
        match self.loss(facts) {
            Some(loss) if !accepts_loss || loss == Loss::NoRecord => {
                Err(WordRefused::MayLose(loss))
            }
            _ => {
                self.promotion = Some(Promotion {
                    asked_ns: now_ns,
                    accepts_loss,
                });
                Ok(())
            }
        }
    }

    /// Whether this very copy is in the record's set. The first record of all names disks and no processes: whoever made it knew
    /// none, and nothing was released under it, so under the policy `mirrored` too its members are those whose disks it names.
    pub(super) fn is_in(&self, record: &Membership) -> bool {
        let me = self.settings.identity;
        let first = Member { process: 0, ..me };
        record.members.contains(&me)
            || (record.epoch == Epoch(1) && record.members.contains(&first))
    }

    /// What may be lost if this node leads, as far as is known.
    pub(super) fn loss(&self, facts: &Facts) -> Option<Loss> {
        let Some(registers) = &self.registers else {
            return Some(Loss::NoRecord);
        };
        let floor = registers.floor.unwrap_or_default().position;
        if !self.is_in(&registers.membership) {
            Some(Loss::NotInSet)
        } else if facts.durable.point.position < floor {
            Some(Loss::BelowFloor)
        } else if self.wanted.unknown_tail.is_some() {
            Some(Loss::TailUnknown)
        } else if self.is_doubtful() && !self.has_joined {
            Some(Loss::NotFollowed)
        } else {
            None
        }
    }

    /// Whether the record here may be an old one, because no arbiter tells and nobody has followed it in this process.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.settings.is_manual && !self.is_confirmed
    }

    /// Why this node does not lead although no primary is heard.
    pub(crate) const fn obstacle(&self) -> Option<Obstacle> {
        self.told.obstacle
    }

    /// Says once what keeps this node from leading.
    pub(super) fn is_kept_by(&mut self, obstacle: Obstacle, note: Note) {
        if self.told.obstacle.replace(obstacle) != Some(obstacle) {
            self.orders.push_back(Order::Say(note));
        }
    }
}
