//! The arbiter of a scenario: one register, and what becomes of each request.

use super::*;

impl Cluster {
    pub(super) fn answer(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        let Some(node) = &mut machine.node else {
            return;
        };
        if !machine.holds_writes {
            for (number, position, bytes) in machine.writes.drain(..) {
                let from = position.get() as usize;
                machine.disk.bytes[from..from + bytes.len()].copy_from_slice(&bytes);
                node.on_written(number);
            }
        }
        for (peer, purpose, position, length) in machine.reads.drain(..) {
            let from = position.get() as usize;
            let bytes = machine.disk.bytes[from..from + length as usize].to_vec();
            node.on_log_read(peer, purpose, position, &bytes, now);
        }
        while !machine.holds_votes
            && let Some((vote, record)) = machine.votes.pop_front()
        {
            machine.store(&vote, record);
            if let Some(node) = &mut machine.node {
                node.on_vote_stored();
            }
        }
        if self.mute_arbiter.contains(&at) {
            return;
        }
        while let Some(request) = self.machines[at].asks.pop_front() {
            let is_swap = matches!(request.ask, Ask::Swap { .. });
            if is_swap && self.late_swaps.contains(&at) {
                self.swaps_kept.push_back((at, request));
                self.reply(at, request.id, ArbiterAnswer::Unknown);
                continue;
            }
            if self.no_arbiter.contains(&at) {
                self.reply(at, request.id, ArbiterAnswer::Unavailable);
                continue;
            }
            let answer = if self.is_manual {
                arbitrate_in(&mut self.machines[at].register, &request.ask)
            } else {
                self.arbitrate(&request.ask)
            };
            if is_swap && self.late_answers.contains(&at) {
                self.answers_kept.push_back((at, request.id, answer));
                continue;
            }
            let is_hidden = is_swap && self.unknown_swaps.contains(&at);
            let answer = if is_hidden {
                ArbiterAnswer::Unknown
            } else {
                answer
            };
            self.reply(at, request.id, answer);
        }
    }

    pub(super) fn reply(&mut self, at: usize, id: u64, answer: ArbiterAnswer) {
        let now = self.now;
        if let Some(node) = &mut self.machines[at].node {
            node.on_arbiter(&ArbiterReply { id, answer }, now);
        }
    }

    /// Answers that were kept back arrive.
    pub fn tell_late_answers(&mut self) {
        while let Some((at, id, answer)) = self.answers_kept.pop_front() {
            self.reply(at, id, answer);
        }
    }

    /// The register itself.
    pub fn arbitrate(&mut self, ask: &Ask) -> ArbiterAnswer {
        arbitrate_in(&mut self.registers, ask)
    }
}

/// A register's answer, and what becomes of it.
fn arbitrate_in(register: &mut Option<Registers>, ask: &Ask) -> ArbiterAnswer {
    let Some(registers) = register else {
        return ArbiterAnswer::Read(None);
    };
    match ask {
        Ask::Read => ArbiterAnswer::Read(Some(*registers)),
        Ask::Swap {
            base,
            floor_base,
            next,
        } => {
            let floor_fits = floor_base.is_none_or(|base| base == registers.floor_revision);
            if *base != registers.revision || !floor_fits {
                return ArbiterAnswer::Refused(Some(*registers));
            }
            assert!(next.epoch > registers.membership.epoch, "epochs rise");
            registers.membership = *next;
            registers.revision.0 += 1;
            ArbiterAnswer::Done(registers.revision)
        }
        Ask::Floor { base, floor } => {
            if *base != registers.revision {
                return ArbiterAnswer::Refused(Some(*registers));
            }
            registers.floor = Some(*floor);
            registers.floor_revision.0 += 1;
            ArbiterAnswer::Done(registers.floor_revision)
        }
    }
}
