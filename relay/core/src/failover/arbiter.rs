//! What the arbiter is asked, and what its answers mean (rules R1 to R3, R25).

use relay_wire::membership::Membership;

use super::{Asked, Failover, Order, Proposal, What, seek};
use crate::arbiter::{ArbiterAnswer, ArbiterReply, ArbiterRequest, Ask, Registers};
use crate::group::HaltReason;

impl Failover {
    pub(super) fn ask(&mut self, what: What, ask: Ask, now_ns: u64) {
        let id = self.next_id;
        self.next_id.0 += 1;
        self.asked = Some(Asked {
            id,
            what,
            sent_ns: now_ns,
            committed: self.stored.committed,
            nonce: self.stored.nonce,
        });
        self.orders
            .push_back(Order::Ask(ArbiterRequest { id: id.0, ask }));
    }

    pub(super) fn can_ask(&self, now_ns: u64) -> bool {
        self.asked.is_none() && now_ns >= self.ask_after_ns
    }

    /// Asks for a swap, or again for the one that is not settled.
    pub(super) fn ask_swap(&mut self, proposal: Proposal, now_ns: u64) {
        assert!(
            self.stored.promised >= proposal.next.epoch,
            "a swap rests on a durable promise"
        );
        self.proposal = Some(proposal);
        let ask = Ask::Swap {
            base: proposal.base,
            floor_base: proposal.floor_base,
            next: proposal.next,
        };
        self.ask(What::Swap, ask, now_ns);
    }

    /// The arbiter's answer.
    pub(crate) fn on_arbiter(&mut self, reply: &ArbiterReply, now_ns: u64) {
        let Some(asked) = self.asked.filter(|asked| asked.id.0 == reply.id) else {
            return;
        };
        self.asked = None;
        if self.is_halted {
            return;
        }
        self.is_arbiter_gone = matches!(
            reply.answer,
            ArbiterAnswer::Unavailable | ArbiterAnswer::Unknown
        );
        if !self.is_arbiter_gone {
            self.told.arbiter_heard_ns = Some(now_ns);
        }
        match (asked.what, reply.answer) {
            (_, ArbiterAnswer::Garbled) => self.halt(HaltReason::Garbled),
            // A node whose own register is empty waits for a primary that tells it the record.
            (What::Read, ArbiterAnswer::Read(None)) if self.settings.is_manual => {
                self.ask_after_ns = now_ns + seek::REFRESH_NS;
            }
            (_, ArbiterAnswer::Read(None) | ArbiterAnswer::Refused(None)) => {
                self.halt(HaltReason::NoRecord);
            }
            (_, ArbiterAnswer::Read(Some(registers))) => self.take(registers, &asked, now_ns),
            (What::Swap, ArbiterAnswer::Refused(Some(registers))) => {
                let proposal = self.proposal.take().expect("a swap was asked for");
                if registers.membership == proposal.next {
                    self.on_won(registers, now_ns);
                } else {
                    self.take(registers, &asked, now_ns);
                }
            }
            (_, ArbiterAnswer::Refused(Some(registers))) => self.take(registers, &asked, now_ns),
            (What::Swap, ArbiterAnswer::Done(revision)) => {
                let proposal = self.proposal.take().expect("a swap was asked for");
                let before = self.registers.expect("a swap rests on a read");
                let registers = Registers {
                    membership: proposal.next,
                    revision,
                    ..before
                };
                self.on_won(registers, now_ns);
            }
            (What::Swap, ArbiterAnswer::Unknown) => {
                if let Some(proposal) = &mut self.proposal {
                    proposal.is_open = true;
                }
                self.ask_after_ns = now_ns + self.settings.retry_ns;
            }
            (What::Swap, ArbiterAnswer::Unavailable) => {
                // This asking was not carried out; an earlier one may still be.
                self.proposal = self.proposal.filter(|proposal| proposal.is_open);
                self.ask_after_ns = now_ns + self.settings.retry_ns;
            }
            (What::Floor, ArbiterAnswer::Done(revision)) => {
                if let Some(registers) = &mut self.registers {
                    registers.floor_revision = revision;
                    registers.floor = Some(self.floor_written);
                }
            }
            (_, ArbiterAnswer::Unavailable | ArbiterAnswer::Unknown | ArbiterAnswer::Done(_)) => {
                self.ask_after_ns = now_ns + self.settings.retry_ns;
            }
        }
    }

    /// Takes what the arbiter shows (rule R2).
    fn take(&mut self, registers: Registers, asked: &Asked, now_ns: u64) {
        let shown = &registers.membership;
        let held = (asked.committed, asked.nonce);
        if shown.epoch < held.0 {
            self.halt(HaltReason::ArbiterWentBack {
                committed: held.0,
                shown: shown.epoch,
            });
            return;
        }
        if shown.epoch == held.0 && shown.nonce != held.1 {
            self.halt(HaltReason::TwoRecords(shown.epoch));
            return;
        }
        if let Some(proposal) = self.proposal
            && shown.epoch == proposal.next.epoch
            && shown.nonce == proposal.next.nonce
        {
            self.proposal = None;
            self.on_won(registers, now_ns);
            return;
        }
        if let Some(proposal) = self.proposal
            && registers.revision != proposal.base
        {
            // The record moved on under the swap: it can't land any more.
            self.proposal = None;
        }
        self.note_committed(shown);
        self.registers = Some(registers);
        self.read_ns = asked.sent_ns;
        self.is_read_wanted = self.doubt_ns.is_some_and(|since| asked.sent_ns < since);
        if let Some(reign) = self.reign
            && (shown.epoch, shown.nonce) != (reign.epoch, reign.nonce)
        {
            self.step_down(shown.epoch);
        } else if self.doubt_ns.is_some() {
            let asked_ns = asked.sent_ns;
            self.doubt_ns = self.doubt_ns.filter(|_| self.is_read_wanted);
            self.orders.push_back(Order::Assure { asked_ns });
        }
    }

    /// A client said at `at_ns` what can't be, unless another node leads by now: the record is read. A reading asked for before
    /// then says nothing about it.
    pub(crate) fn doubt(&mut self, at_ns: u64) {
        if self.reign.is_some() && self.doubt_ns.is_none_or(|newest| newest < at_ns) {
            self.doubt_ns = Some(at_ns);
            self.is_read_wanted = true;
        }
    }

    /// The newest record known never goes back, whatever is shown later (rule R2).
    pub(super) fn note_committed(&mut self, shown: &Membership) {
        if shown.epoch > self.wanted.committed {
            self.wanted.committed = shown.epoch;
            self.wanted.nonce = shown.nonce;
        }
    }

    /// An own swap succeeded.
    fn on_won(&mut self, registers: Registers, now_ns: u64) {
        let won = registers.membership;
        assert!(
            self.stored.promised >= won.epoch,
            "a promise is durable before its swap is asked for"
        );
        self.note_committed(&won);
        self.registers = Some(registers);
        self.read_ns = now_ns;
        self.joined = None;
        self.joining = None;
        self.handed_over_ns = None;
        self.is_confirmed |= self.promotion.take().is_some();
        self.told.obstacle = None;
        let order = if self.reign.replace(won).is_some() {
            Order::Reopen(won)
        } else {
            Order::Lead(won)
        };
        for view in &mut self.peers {
            view.caught_up_ns = None;
        }
        self.orders.push_back(order);
    }
}
