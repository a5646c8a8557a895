//! The operator's part in a run: see [`crate::operator`].

use relay_core::group::{Obstacle, WordRefused};
use relay_wire::peer::Standing;

use super::{Cluster, Event};
use crate::clock::SECOND;
use crate::faults::Fault;
use crate::history::Note;
use crate::node::Node;
use crate::operator::{CHANGE_NS, Deed, LOOK_NS, PROMOTION_NS, SWITCH_NS, Sight, may_lose};
use crate::theme::Theme;

/// Nodes that were away when a loss was accepted come back so long after that and after the last fault.
const RETURN_NS: u64 = SECOND;

impl Cluster<'_> {
    /// The operator looks at the group, and does what there is to be done.
    pub(super) fn operate(&mut self) {
        self.queue.after(LOOK_NS, Event::Operator);
        let is_led = (0..self.nodes.len()).any(|node| self.leads(node));
        let Deed::Look { is_long } = self.operator.look(is_led, self.queue.now_ns()) else {
            return;
        };
        let sights: Vec<(usize, Sight)> = (0..self.nodes.len())
            .filter_map(|node| Some((node, self.sight(node)?)))
            .collect();
        match self.parameters.theme {
            Theme::Mirrored => self.save_what_is_left(&sights, is_long),
            Theme::Manual => self.promote_a_holder(&sights, is_long),
            Theme::Plain | Theme::Restored | Theme::Forgetful => {}
        }
    }

    /// A node as the operator sees it; none that is down, frozen or on its way.
    fn sight(&mut self, node: usize) -> Option<Sight> {
        let is_frozen = self.nodes[node].frozen_until_ns() > self.queue.now_ns();
        let process = self.nodes[node].process().filter(|_| !is_frozen)?;
        let machine = process.machine();
        let status = machine.status();
        let obstacle = status.obstacle.filter(|_| !machine.is_over());
        let member = process.copy()?;
        let durable = status.durable.point.position;
        // Who may have to lead is looked at closer, with the tool that reads a journal.
        let epoch = obstacle.and_then(|_| {
            let recovered = Node::fold_from_start(&mut self.disks[node]).ok()?;
            recovered.tables.epochs.last().map(|entry| entry.epoch)
        });
        Some(Sight {
            member,
            obstacle,
            log: (epoch.unwrap_or_default(), durable),
        })
    }

    /// Where copies in memory count and every process of the set is gone: the newest and longest log goes on, with the loss accepted.
    /// Who is away for long is not waited for.
    fn save_what_is_left(&mut self, sights: &[(usize, Sight)], is_long: bool) {
        let cast = self.parameters.cast;
        let waits = |(node, sight): &(usize, Sight)| {
            let obstacle = match cast.is_observer(*node) {
                true => Obstacle::Operator,
                false => Obstacle::NotInSet,
            };
            sight.obstacle == Some(obstacle)
        };
        let is_anyone_away = sights.len() < self.nodes.len();
        if (is_anyone_away && !is_long) || !sights.iter().all(waits) {
            return;
        }
        let members = self.arbiter.record().map(|record| record.members);
        let is_alive = |node: usize| {
            members.is_some_and(|members| {
                let mut members = members.as_slice().iter();
                members.any(|member| self.nodes[node].runs_as(member))
            })
        };
        if (0..self.nodes.len()).any(is_alive) {
            return;
        }
        let longest = sights.iter().max_by_key(|(_, sight)| sight.log);
        if let Some((node, _)) = longest {
            self.accept_loss(*node);
        }
    }

    /// Where an operator is the arbiter: a copy that holds everything leads, and where none comes back, one that may not.
    fn promote_a_holder(&mut self, sights: &[(usize, Sight)], is_long: bool) {
        let mut waiting: Vec<(usize, Sight)> = sights
            .iter()
            .filter(|(_, sight)| sight.obstacle == Some(Obstacle::Operator))
            .copied()
            .collect();
        waiting.sort_by_key(|(_, sight)| core::cmp::Reverse(sight.log));
        let mut unsure = Vec::new();
        for (node, sight) in waiting {
            if !self.operator.holds_all(&sight.member) {
                if !self.operator.is_taken_out(sight.member.node) {
                    unsure.push(node);
                }
                continue;
            }
            let said = self.promote(node, false);
            if said.is_ok() {
                return;
            }
            if may_lose(&said) {
                unsure.push(node);
            }
        }
        let is_calm = self.lasting == 0 && self.nodes.iter().all(|node| !node.is_under_way());
        // In the end nothing else brings the group back.
        let accepts_loss = self.parameters.accepts_loss || self.is_healed;
        if !is_long || !is_calm || !accepts_loss || self.is_holder_coming(&unsure) {
            return;
        }
        for node in unsure {
            // Who knows of nothing that it may lack would not write the loss down.
            if may_lose(&self.promote(node, false)) {
                self.accept_loss(node);
                return;
            }
        }
    }

    /// Whether a copy that holds everything runs, and has something else to wait for than a word.
    fn is_holder_coming(&self, unsure: &[usize]) -> bool {
        let holders = self.operator.holders();
        holders.as_slice().iter().any(|member| {
            let node = member.node.get() as usize - 1;
            !unsure.contains(&node) && self.nodes[node].runs_as(member)
        })
    }

    fn promote(&mut self, node: usize, accepts_loss: bool) -> Result<(), WordRefused> {
        let now_ns = self.queue.now_ns();
        let now = self.nodes[node].clock.read(now_ns);
        let process = self.nodes[node].process().expect("it was seen");
        let said = process.promote(accepts_loss, now);
        if said.is_ok() {
            self.operator.on_word(now_ns, PROMOTION_NS);
            let note = Note::Promoted { node, accepts_loss };
            self.history.note(now_ns, note);
            self.ask_for_turn(node);
        }
        said
    }

    /// A node leads whatever is lost by it. Where an operator is the arbiter nothing else goes wrong from then on, and who was
    /// away comes back when all are reached: it would go on by itself, where it hears of nobody.
    fn accept_loss(&mut self, node: usize) {
        if self.promote(node, true).is_err() {
            return;
        }
        let process = self.nodes[node].process_number();
        self.operator.on_accepted(node, process);
        self.ledger.on_accepted(node);
        if self.parameters.theme != Theme::Manual {
            return;
        }
        self.is_calm = true;
        let until_ns = self.parameters.duration_ns.max(self.queue.now_ns()) + RETURN_NS;
        for (other, away) in self.nodes.iter_mut().enumerate() {
            if other != node && away.is_down() {
                away.stay_off(until_ns);
            }
        }
    }

    /// Whether the operator may say this now: one word at a time, where nothing but words decides.
    pub(super) fn may_say(&mut self, fault: Fault) -> bool {
        let is_word = match fault {
            Fault::HandOver { .. } | Fault::Detach { .. } => true,
            Fault::Stop { node } => self.leads(node),
            _ => false,
        };
        !is_word || self.operator.is_free(self.queue.now_ns())
    }

    /// Whether a node runs and leads.
    pub(super) fn leads(&mut self, node: usize) -> bool {
        let is_frozen = self.nodes[node].frozen_until_ns() > self.queue.now_ns();
        let process = self.nodes[node].process().filter(|_| !is_frozen);
        process.is_some_and(|process| process.machine().status().standing == Standing::Leading)
    }

    /// An operator wants another node than this one to lead.
    pub(super) fn hand_over(&mut self, node: usize) {
        let now_ns = self.queue.now_ns();
        let now = self.nodes[node].clock.read(now_ns);
        self.excuse(node, now_ns + SWITCH_NS);
        if let Some(process) = self.nodes[node].process() {
            if process.ask_to_hand_over(now) {
                self.operator.on_word(now_ns, SWITCH_NS);
            }
            self.ask_for_turn(node);
        }
    }

    /// An operator tells whoever leads to take a node out, or to let it in again.
    pub(super) fn detach(&mut self, node: usize, is_detached: bool) {
        for other in 0..self.nodes.len() {
            let Some(process) = self.nodes[other].process() else {
                continue;
            };
            if process.detach(node, is_detached) && is_detached {
                self.operator.on_detached(node);
                self.operator.on_word(self.queue.now_ns(), CHANGE_NS);
            }
            self.ask_for_turn(other);
        }
    }
}
