//! Everything that can happen next.

use super::World;
use crate::action::Action;
use crate::arbiter::is_change;
use crate::bounds::Kind;
use crate::machine::{Machine, Rot};
use crate::store::Store;

impl World {
    /// Every action that is possible now.
    pub(crate) fn choices(&self, store: &Store, actions: &mut Vec<Action>) {
        actions.clear();
        for at in 0..store.bounds.nodes {
            let machine = store.machines.get(self.machines[at]);
            if machine.node.is_some() {
                self.choices_of_running(store, &machine, actions);
            } else {
                self.choices_of_stopped(&machine, actions);
            }
        }
        for a in 0..store.bounds.nodes {
            for b in a + 1..store.bounds.nodes {
                self.choices_of_pair(store, a, b, actions);
            }
        }
        actions.extend((0..self.late.len()).map(|place| Action::Land(place as u8)));
    }

    fn choices_of_running(&self, store: &Store, machine: &Machine, actions: &mut Vec<Action>) {
        let at = machine.at;
        let left = |kind| self.budget.of(kind) > 0;
        actions.extend((0..machine.writes.len()).map(|place| Action::Write(at, place as u8)));
        if machine.vote.is_some() {
            actions.push(Action::Vote(at));
        }
        let is_settled = machine.writes.is_empty() && machine.vote.is_none();
        if machine.restart.is_some() && is_settled {
            actions.push(Action::Rebuild(at));
        }
        if let Some(request) = &machine.ask {
            let is_open = self.answers[usize::from(at)] == 0;
            let can_be_unknown = is_change(&request.ask) && machine.is_up() && left(Kind::Unknown);
            if is_open {
                actions.push(Action::Carry(at));
                if can_be_unknown {
                    actions.extend([Action::Lose(at), Action::Late(at)]);
                }
                if machine.is_up() && left(Kind::Unavailable) {
                    actions.push(Action::Refuse(at));
                }
            } else if machine.is_up() {
                actions.push(Action::Answer(at));
                if can_be_unknown {
                    actions.push(Action::Forget(at));
                }
            }
        }
        if machine.takes_messages(store.bounds.messages) {
            actions.push(Action::Publish(at));
        }
        if left(Kind::Crash) {
            actions.extend(
                machine
                    .losses()
                    .into_iter()
                    .map(|loss| Action::Crash(at, loss)),
            );
        }
        if machine.is_up() && left(Kind::Beat) {
            actions.push(Action::Beat(at));
        }
        if machine.is_up() && left(Kind::Lapse) {
            actions.push(Action::Lapse(at));
        }
        if machine.reign().is_some() && left(Kind::HandOver) {
            actions.push(Action::HandOver(at));
        }
    }

    fn choices_of_stopped(&self, machine: &Machine, actions: &mut Vec<Action>) {
        let at = machine.at;
        if machine.halt.is_none() {
            actions.push(Action::Start(at));
        }
        let can_rot = machine.disk.len() > 0 && machine.rotten.is_none();
        if self.budget.of(Kind::Damage) > 0 && can_rot {
            actions.extend([Action::Rot(at, Rot::Header), Action::Rot(at, Rot::Body)]);
        }
        if self.budget.of(Kind::Blank) > 0 {
            actions.push(Action::Blank(at));
        }
    }

    fn choices_of_pair(&self, store: &Store, a: usize, b: usize, actions: &mut Vec<Action>) {
        let (first, second) = (a as u8, b as u8);
        let ends = (self.has_end(a, b), self.has_end(b, a));
        for (from, to) in [(a, b), (b, a)] {
            if self.has_end(to, from) && self.next_message(from, to).is_some() {
                actions.push(Action::Hear(from as u8, to as u8));
            }
        }
        match ends {
            (true, true) if self.budget.of(Kind::Close) > 0 => {
                actions.extend([Action::Close(first, second), Action::Close(second, first)]);
            }
            (true, false) => actions.push(Action::Lost(first, second)),
            (false, true) => actions.push(Action::Lost(second, first)),
            _ => {}
        }
        // The node with the higher number dials, once it knows that the connection before is gone.
        let is_up = |at: usize| store.machines.get(self.machines[at]).is_up();
        if !ends.1 && is_up(a) && is_up(b) {
            actions.push(Action::Connect(first, second));
        }
    }
}
