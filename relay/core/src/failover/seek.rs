//! A node without an epoch of its own: waits for a primary, and when there is none becomes a candidate (rules R9, R10, R17,
//! R18, R19, R20, R22).

use relay_wire::id::Epoch;
use relay_wire::membership::{Members, Membership};
use relay_wire::record::UncleanBody;

use super::{Facts, Failover, Order, PeerView, Promotion, Proposal, What};
use crate::arbiter::{Ask, Registers};
use crate::group::{Loss, Obstacle};
use crate::history::{EPOCHS_OF_A_FORCED_REIGN, losses};
use crate::node::Note;

/// The record is looked at so often where nothing is heard of it otherwise.
pub(super) const REFRESH_NS: u64 = 500_000_000;
/// Where an operator is the arbiter, his word opens the next epoch that is a multiple of this: above whatever a primary he has
/// given up opens by itself, so that when they meet again it is that one which steps down.
const EPOCHS_OF_A_WORD: u64 = 1 << 20;
/// A peer is asked for a promise so often.
const ASK_END_NS: u64 = 200_000_000;

/// Whether the record is that of a reign that was to begin with an accepted loss, and this node, which is its only member, stopped before
/// it led: its log has nothing of it. Nobody else is taken in before it holds the first block.
fn is_forced_and_unopened(record: &Membership, facts: &Facts) -> bool {
    record.members.len() == 1 && losses(record.epoch) > losses(facts.log_epoch)
}

/// What the log is to say about a forced reign.
fn unclean(registers: &Registers, facts: &Facts, loss: Loss) -> UncleanBody {
    let record = &registers.membership;
    UncleanBody {
        epoch_before: record.epoch.get().into(),
        primary_before: record.primary.get().into(),
        floor: registers.floor.unwrap_or_default().position.get().into(),
        tail: facts.durable.point.position.get().into(),
        loss: loss as u8,
        reserved: [0; 7],
    }
}

impl Failover {
    pub(super) fn seek(&mut self, facts: &Facts, now_ns: u64) {
        if !self.can_ask(now_ns) {
            return;
        }
        if let Some(proposal) = self.proposal {
            self.ask_swap(proposal, now_ns);
            return;
        }
        let Some(registers) = self.registers else {
            self.ask(What::Read, Ask::Read, now_ns);
            return;
        };
        if self.is_primary_heard(now_ns) && self.handed_over_ns.is_none() {
            return;
        }
        // A primary's OPEN told of a later record than the arbiter was read to show: this node may be in it by now.
        let is_behind = registers.membership.epoch < self.wanted.committed;
        if is_behind || self.is_read_wanted || now_ns >= self.read_ns + REFRESH_NS {
            self.ask(What::Read, Ask::Read, now_ns);
            return;
        }
        if let Some(promotion) = self.promotion {
            self.follow_word(promotion, &registers, facts, now_ns);
            return;
        }
        let record = registers.membership;
        if !self.may_lead_by_itself(&record, facts) {
            self.await_operator(&record, now_ns);
            return;
        }
        let Some(suspected_ns) = self.suspected_since(&record, facts, now_ns) else {
            return;
        };
        if self.read_ns < suspected_ns {
            self.ask(What::Read, Ask::Read, now_ns);
            return;
        }
        if facts.is_disk_stalled {
            return;
        }
        if !self.is_tail_answered(&record, facts, now_ns) {
            if self.settings.is_manual {
                self.await_operator(&record, now_ns);
            } else {
                self.await_an_answer(suspected_ns, now_ns);
            }
            return;
        }
        let floor = registers.floor.unwrap_or_default().position;
        let end = facts.durable.point.position;
        if end < floor {
            // Something released is missing here: another member has it, or an operator has to decide.
            self.is_kept_by(Obstacle::BelowFloor, Note::EndsBelowFloor(end, floor));
            return;
        }
        // Where an operator decides, a primary that comes back drops nobody: it releases nothing before all are back.
        let members = if self.settings.is_manual && self.handed_over_ns.is_none() {
            record.members
        } else {
            self.set_to_lead(&record, now_ns)
        };
        // The loss was accepted, and nothing of that reign is in the log: it begins now.
        let is_unopened = is_forced_and_unopened(&record, facts);
        self.unclean = is_unopened.then(|| unclean(&registers, facts, Loss::NotOpened));
        self.stand(&registers, members, self.settings.min_copies, now_ns);
    }

    /// Whether this node may lead without an operator's word: a member, and where an operator is the arbiter only the primary
    /// itself after its own restart, and whom a primary hands over to. Where he had said that this node is to lead, and it stopped
    /// before it did, he has to say so again: by itself it would open an epoch above that word, over a log that may lack what
    /// others released.
    fn may_lead_by_itself(&self, record: &Membership, facts: &Facts) -> bool {
        let is_its_primary = record.primary == self.settings.identity.node;
        if self.settings.is_manual {
            let word = |epoch: Epoch| epoch.get() / EPOCHS_OF_A_WORD;
            let is_told = word(self.wanted.promised) > word(record.epoch)
                || is_forced_and_unopened(record, facts);
            let is_called = self.handed_over_ns.is_some() || (is_its_primary && !is_told);
            self.is_in(record) && is_called && record.epoch >= self.superseded
        } else {
            self.is_in(record) && !self.settings.is_observer
        }
    }

    /// Says why this node does not lead, once a primary would be suspected.
    fn await_operator(&mut self, record: &Membership, now_ns: u64) {
        let settings = &self.settings;
        let due_ns = self.leaderless_ns + settings.suspect_ns;
        let is_due = now_ns >= due_ns.max(self.started_ns + settings.start_wait_ns);
        if !is_due {
            return;
        }
        if settings.is_manual || settings.is_observer {
            self.is_kept_by(Obstacle::Operator, Note::AwaitsOperator(record.primary));
        } else {
            self.is_kept_by(Obstacle::NotInSet, Note::NotInSet(record.primary));
        }
    }

    /// Says why this node does not lead where the other members have had time to answer for its tail and none did: they are gone, or
    /// their disks are.
    fn await_an_answer(&mut self, suspected_ns: u64, now_ns: u64) {
        let patience_ns = self.settings.start_wait_ns.max(self.settings.suspect_ns);
        if let Some(position) = self.wanted.unknown_tail
            && now_ns >= suspected_ns + patience_ns
        {
            self.is_kept_by(Obstacle::TailUnknown, Note::TailUnknown(position));
        }
    }

    /// An operator said that this node is to lead.
    pub(super) fn follow_word(
        &mut self,
        promotion: Promotion,
        registers: &Registers,
        facts: &Facts,
        now_ns: u64,
    ) {
        if self.read_ns < promotion.asked_ns {
            self.ask(What::Read, Ask::Read, now_ns);
            return;
        }
        let loss = self.loss(facts);
        if let (Some(loss), false) = (loss, promotion.accepts_loss) {
            // The record read since shows what was not known when the word was given.
            self.promotion = None;
            self.orders
                .push_back(Order::Say(Note::PromotionRefused(loss)));
            return;
        }
        let (members, min_copies) = if loss.is_some() {
            self.wanted.unknown_tail = None;
            (Members::of(&[self.settings.identity]), 1)
        } else {
            let members = self.set_to_lead(&registers.membership, now_ns);
            (members, self.settings.min_copies)
        };
        // Nothing more is lost by leading at last with a loss that was accepted before; it is written down all the same.
        let is_unopened = is_forced_and_unopened(&registers.membership, facts);
        let told = loss.or(is_unopened.then_some(Loss::NotOpened));
        self.unclean = told.map(|loss| unclean(registers, facts, loss));
        self.stand(registers, members, min_copies, now_ns);
    }

    /// Promises, then proposes itself.
    fn stand(&mut self, registers: &Registers, members: Members, min_copies: u8, now_ns: u64) {
        let record = &registers.membership;
        self.joined = None;
        self.joining = None;
        self.wanted.learning_from = None;
        let is_restart = record.primary == self.settings.identity.node && self.promotion.is_none();
        let newest = record.epoch.max(self.superseded).get();
        let below_next = |step: u64| Epoch((newest / step + 1) * step - 1);
        let above = if self.unclean.is_some() {
            below_next(EPOCHS_OF_A_FORCED_REIGN)
        } else if self.settings.is_manual && !is_restart {
            below_next(EPOCHS_OF_A_WORD)
        } else {
            record.epoch
        };
        let Some(epoch) = self.promise(above) else {
            return;
        };
        let proposal = Proposal {
            next: Membership {
                epoch,
                nonce: self.nonce(),
                primary: self.settings.identity.node,
                members,
                min_copies,
                policy: self.settings.policy,
                ..*record
            },
            base: registers.revision,
            floor_base: Some(registers.floor_revision),
            is_open: false,
        };
        if let Some(position) = self.wanted.unknown_tail {
            self.orders
                .push_back(Order::Say(Note::TailUnanswered(position)));
        }
        self.ask_swap(proposal, now_ns);
    }

    /// The members that can be counted on; all of them, holding release, where these are too few.
    fn set_to_lead(&self, record: &Membership, now_ns: u64) -> Members {
        let me = self.settings.identity;
        let mut set = Members::of(&[me]);
        for member in record.members.as_slice() {
            let is_well = self
                .view_of(member)
                .is_some_and(|view| self.is_well(view, self.settings.suspect_ns, now_ns));
            if *member != me && is_well {
                set = set.with(*member);
            }
        }
        if set.len() >= self.settings.min_copies.into() {
            set
        } else {
            record.members.with(me)
        }
    }

    /// Since when this member may stand, if it may by now.
    fn suspected_since(&self, record: &Membership, facts: &Facts, now_ns: u64) -> Option<u64> {
        let settings = &self.settings;
        if self.handed_over_ns.is_some() {
            return self.handed_over_ns;
        }
        let mut due_ns = self.leaderless_ns;
        if record.primary != settings.identity.node {
            let primary = self
                .peers
                .iter()
                .find(|view| view.member.node == record.primary);
            due_ns = match primary {
                Some(view) if view.is_connected && view.progress.is_disk_stalled => view.heard_ns,
                // Over a new connection it has yet to say what it does: one that comes late, as after a loss of power that its kernel
                // was slow to notice, is not taken over from the moment it is there.
                Some(view) if view.is_connected && !view.has_spoken => {
                    view.heard_ns + settings.suspect_ns
                }
                Some(view) if view.is_connected => {
                    view.heard_ns.min(self.leaderless_ns) + settings.suspect_ns
                }
                // One that ended says something; one that was never made since this log was read does not.
                _ => {
                    let closed_ns = primary.and_then(|view| {
                        let patience_ns = if view.is_gone {
                            0
                        } else {
                            settings.suspect_closed_ns
                        };
                        view.ended_ns.map(|ended| ended + patience_ns)
                    });
                    let silent_ns = self.leaderless_ns + settings.suspect_ns;
                    closed_ns.map_or(silent_ns, |closed| closed.min(silent_ns))
                }
            };
        }
        let others = record
            .members
            .as_slice()
            .iter()
            .filter(|member| member.node != settings.identity.node);
        let (mut better, mut missing) = (0, 0);
        for member in others {
            match self.view_of(member).filter(|view| view.is_connected) {
                Some(view) => better += u64::from(self.is_better(view, record, facts)),
                None => missing += 1,
            }
        }
        if settings.is_manual {
            // The record here may be an old one: whoever an operator made lead meanwhile is to be heard first, member or not.
            let is_unheard = |view: &&PeerView| !view.is_connected || !view.has_spoken;
            missing = self.peers.iter().filter(is_unheard).count();
        }
        // A process that just started first gives the others the time to start too (R18).
        let is_cold = !self.has_joined;
        if is_cold && missing > 0 {
            due_ns = due_ns.max(self.started_ns + settings.start_wait_ns);
        }
        let stagger_ns = if is_cold {
            settings.suspect_ns
        } else {
            settings.head_start_ns
        };
        due_ns += better * stagger_ns;
        (now_ns >= due_ns).then_some(due_ns)
    }

    /// Whether a connected member should stand rather than this one: with the longer intact log, or in the order everyone
    /// agrees on.
    fn is_better(&self, view: &PeerView, record: &Membership, facts: &Facts) -> bool {
        let mine = self.wanted.unknown_tail.is_some();
        if view.progress.is_tail_unknown != mine {
            return mine;
        }
        let (theirs, ours) = (view.durable(), facts.durable.point.position);
        if theirs != ours {
            return theirs > ours;
        }
        let node = self.settings.identity.node;
        if node == record.primary {
            return false;
        }
        view.member.node == record.primary || view.member.node < node
    }

    /// Whether nothing is in doubt about this node's tail, or another member has answered for it (rule R17).
    fn is_tail_answered(&mut self, record: &Membership, facts: &Facts, now_ns: u64) -> bool {
        if self.wanted.unknown_tail.is_none() {
            return true;
        }
        let epoch = record.epoch.next();
        let mut is_anyone_there = false;
        for at in 0..self.peers.len() {
            let view = self.peers[at];
            let is_member = record.members.contains(&view.member);
            if !is_member || !self.is_well(&view, self.settings.suspect_ns, now_ns) {
                continue;
            }
            is_anyone_there = true;
            let has_promised =
                view.asked > Epoch(0) && view.progress.promised >= epoch && view.epoch == Epoch(0);
            if has_promised && view.durable() <= facts.durable.point.position {
                self.wanted.unknown_tail = None;
                return true;
            }
            if now_ns >= view.obliged_ns + ASK_END_NS {
                self.peers[at].obliged_ns = now_ns;
                self.peers[at].asked = epoch;
                let peer = at as u32;
                self.orders.push_back(Order::AskEnd { peer, epoch });
            }
        }
        // Alone where one copy is enough: the operator chose to go on (and is told); where he is the arbiter, he is asked.
        !is_anyone_there && self.settings.min_copies == 1 && !self.settings.is_manual
    }
}
