//! A primary's changes of its set: who is dropped, who is taken in, and the released floor (rules R9, R12, R21, R22, R23,
//! R24).

use relay_wire::id::Epoch;
use relay_wire::membership::{Floor, Members, Membership};

use super::seek::REFRESH_NS;
use super::{Facts, Failover, PeerView, Proposal, What};
use crate::arbiter::Ask;

/// A learner that demands a higher epoch is obliged so often.
const OBLIGE_LEARNER_NS: u64 = 1_000_000_000;

impl Failover {
    pub(super) fn lead(&mut self, facts: &Facts, now_ns: u64) {
        if !self.can_ask(now_ns) {
            return;
        }
        if let Some(proposal) = self.proposal {
            self.ask_swap(proposal, now_ns);
            return;
        }
        let (Some(reign), Some(registers)) = (self.reign, self.registers) else {
            return;
        };
        if let Some(promotion) = self.promotion {
            self.follow_word(promotion, &registers, facts, now_ns);
            return;
        }
        if self.is_read_wanted {
            self.ask(What::Read, Ask::Read, now_ns);
            return;
        }
        self.is_confirmed |= self.settings.is_manual && self.is_followed_by_all(&reign);
        let members = self.set_to_keep(&reign, now_ns);
        let demanded = self.demanded(&reign, facts.successor, now_ns);
        let min_copies = self.min_copies_for(&reign, members);
        let is_same = members == reign.members && min_copies == reign.min_copies;
        if is_same && demanded <= reign.epoch {
            // Where a member is missed and can't be dropped, since too few copies would be left, no swap shows that another one
            // leads by now, and that one may be cut off from here: the record is read, lest clients are held for ever.
            let is_due = now_ns >= self.read_ns + REFRESH_NS;
            if is_due && self.misses_anyone(&reign, now_ns) {
                self.ask(What::Read, Ask::Read, now_ns);
            } else {
                self.write_floor(facts, now_ns);
            }
            return;
        }
        let above = Epoch(reign.epoch.get().max(demanded.get().saturating_sub(1)));
        let Some(epoch) = self.promise(above) else {
            return;
        };
        for view in &mut self.peers {
            if view.progress.lowest_join > reign.epoch {
                view.obliged_ns = now_ns;
            }
        }
        let proposal = Proposal {
            next: Membership {
                epoch,
                nonce: self.nonce(),
                members,
                min_copies,
                policy: self.settings.policy,
                ..reign
            },
            base: registers.revision,
            floor_base: None,
            is_open: false,
        };
        self.ask_swap(proposal, now_ns);
    }

    fn misses_anyone(&self, reign: &Membership, now_ns: u64) -> bool {
        let others = reign.members.as_slice().iter();
        others
            .filter(|member| **member != self.settings.identity)
            .any(|member| {
                self.view_of(member)
                    .is_none_or(|view| self.is_lost(view, now_ns))
            })
    }

    /// Whether every other copy of the set holds the opening of this epoch; not where there is none.
    fn is_followed_by_all(&self, reign: &Membership) -> bool {
        let me = self.settings.identity;
        let mut others = reign.members.as_slice().iter().filter(|m| **m != me);
        reign.members.len() > 1
            && others.all(|m| self.view_of(m).is_some_and(|view| view.mirror.is_near))
    }

    /// The set as it should be: without members that can't be counted on, as long as enough stay, and with learners that have
    /// kept up for a while.
    fn set_to_keep(&self, reign: &Membership, now_ns: u64) -> Members {
        let me = self.settings.identity;
        let mut set = reign.members;
        // An observer goes first where somebody waits for its place, though too few copies are left for that moment.
        let is_ready = |view: &PeerView| view.mirror.is_caught_up && self.has_kept_up(view, now_ns);
        let is_place_wanted = self
            .peers
            .iter()
            .any(|view| !reign.members.has_place_for(view.member.node) && is_ready(view));
        for member in reign.members.as_slice() {
            let view = self.peers.iter().find(|v| v.member.node == member.node);
            let is_lost = *member != me
                && view.is_none_or(|view| {
                    let is_gone = view.member != *member || self.is_lost(view, now_ns);
                    // An observer is in it only after it was made to lead. Who may take over where no arbiter decides is not let
                    // go: it would lead without what was released meanwhile.
                    let may_lead = self.settings.is_manual && view.is_called;
                    let is_out = (view.is_detached || view.is_observer) && !may_lead;
                    is_out || (is_gone && !self.settings.is_manual)
                });
            let is_in_the_way = is_place_wanted && view.is_some_and(|view| view.is_observer);
            if is_lost && (set.len() > self.settings.min_copies.into() || is_in_the_way) {
                set = set.without(member.node);
            }
        }
        // Until the change is settled a release waits for everybody in either set.
        let mut union = reign.members;
        for view in &self.peers {
            let has_place = union.has_place_for(view.member.node);
            if has_place && !set.contains(&view.member) && is_ready(view) {
                union = union.with(view.member);
                set = set.with(view.member);
            }
        }
        set
    }

    /// Whether a peer that is not in the set, or not any more, is to be in it as soon as it holds everything.
    pub(super) fn has_kept_up(&self, view: &PeerView, now_ns: u64) -> bool {
        let readmit_after_ns = self.settings.readmit_after_ns;
        let has_kept_up = view
            .caught_up_ns
            .is_some_and(|since| now_ns >= since + readmit_after_ns);
        has_kept_up && !view.is_observer && !view.is_detached && !self.is_lost(view, now_ns)
    }

    /// A forced reign may have begun with fewer copies than the configuration asks for; as soon as there are enough, it holds
    /// again.
    fn min_copies_for(&self, reign: &Membership, members: Members) -> u8 {
        let wanted = self.settings.min_copies;
        if members.len() >= wanted.into() {
            wanted
        } else {
            reign.min_copies
        }
    }

    /// Whether a member is to be dropped, a head start before it would give up on this primary.
    fn is_lost(&self, view: &PeerView, now_ns: u64) -> bool {
        let settings = &self.settings;
        if !view.is_connected {
            let patience_ns = settings.suspect_closed_ns / 2;
            let has_waited = |ended| now_ns >= ended + patience_ns;
            return view.is_gone || view.ended_ns.is_none_or(has_waited);
        }
        let patience_ns = settings.suspect_ns.saturating_sub(settings.head_start_ns);
        // Who waits for an epoch it may join has answered: it waits for this node.
        let reign = self.reign.map_or(Epoch(0), |reign| reign.epoch);
        let is_overdue = view.mirror.is_overdue && view.progress.lowest_join <= reign;
        is_overdue || !self.is_well(view, patience_ns, now_ns)
    }

    /// The highest epoch a node demands to be let in, members at once and learners now and then. A successor's promise is for the
    /// epoch it is to lead: opened here, it would be the one to come second.
    fn demanded(&self, reign: &Membership, successor: Option<u32>, now_ns: u64) -> Epoch {
        let mut demanded = Epoch(0);
        let others = (0..)
            .zip(&self.peers)
            .filter(|(at, view)| view.is_connected && successor != Some(*at));
        for (_, view) in others {
            let is_member = reign.members.contains(&view.member);
            let is_due = is_member || now_ns >= view.obliged_ns + OBLIGE_LEARNER_NS;
            if is_due {
                demanded = demanded.max(view.progress.lowest_join);
            }
        }
        demanded
    }

    /// About once a second, where release has moved on (rule R22).
    fn write_floor(&mut self, facts: &Facts, now_ns: u64) {
        let released = facts.released;
        let (Some(reign), Some(registers)) = (self.reign, self.registers) else {
            return;
        };
        let known = registers.floor.unwrap_or_default();
        // The first of a reign replaces the one before whatever it says: after a forced reign that may have been further on.
        let is_news = released.point.position > known.position
            || (known.epoch != reign.epoch && released.point.position != known.position);
        // Before the first release of a reign the checksum at the released end is not at hand.
        let is_due = now_ns >= self.floor_due_ns && released.block_checksum != 0 && is_news;
        if !is_due {
            return;
        }
        self.floor_due_ns = now_ns + self.settings.floor_every_ns;
        self.floor_written = Floor {
            epoch: reign.epoch,
            position: released.point.position,
            checksum: released.block_checksum,
        };
        let ask = Ask::Floor {
            base: registers.revision,
            floor: self.floor_written,
        };
        self.ask(What::Floor, ask, now_ns);
    }
}
