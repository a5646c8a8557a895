//! A state of the whole group, and what becomes of it by an action.
//!
//! The network keeps the order of a connection and delays without bound; a partition or a frozen node is nothing but actions
//! that do not come. What was on its way when a connection broke may arrive or not, up to any message. Requests to the
//! arbiter are carried out at one moment and answered at a later one.

mod choices;

use relay_core::arbiter::{ArbiterAnswer, Registers};
use relay_wire::id::Position;

use crate::action::Action;
use crate::arbiter::{can_land, carry_out, first_registers, is_change};
use crate::bounds::{BEAT_NS, Bounds, Budget, Kind, LAPSE_NS, NODES_MAX, PAGE};
use crate::history::History;
use crate::log::page_of;
use crate::machine::{Input, Machine, Output};
use crate::store::Store;

/// Most pairs of nodes.
const PAIRS_MAX: usize = NODES_MAX * (NODES_MAX - 1) / 2;
/// Most messages on their way in one direction: what five bits hold.
const QUEUE_MAX: usize = 31;

/// Why a state must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

/// See the module's description. Numbers are those of the [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) machines: [u32; NODES_MAX],
    /// What the arbiter answers, where it carried out what a node asked.
    pub(crate) answers: [u32; NODES_MAX],
    pub(crate) registers: u32,
    pub(crate) history: u32,
    pub(crate) budget: Budget,
    /// Which ends of each pair's connection are there, a bit each.
    ends: [u8; PAIRS_MAX],
    /// Messages on their way: for each pair from the first to the second, then back.
    queues: [Vec<u32>; 2 * PAIRS_MAX],
    /// What may still be carried out although its asker gave it up.
    late: Vec<u32>,
}

/// The pair of two nodes, and which of its two ends is the first's.
const fn pair_of(a: usize, b: usize) -> (usize, usize) {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    (low + high - 1, if a < b { 0 } else { 1 })
}

impl World {
    /// A group of which nothing runs yet.
    pub(crate) fn new(store: &Store) -> Self {
        let bounds = &store.bounds;
        let machines: Vec<Machine> = (0..bounds.nodes)
            .map(|at| Machine::new(bounds, at))
            .collect();
        let mut numbers = [0; NODES_MAX];
        for (number, machine) in numbers.iter_mut().zip(&machines) {
            *number = store.machines.intern(machine);
        }
        Self {
            machines: numbers,
            answers: [0; NODES_MAX],
            registers: store.registers.intern(&first_registers(bounds, &machines)),
            history: store.histories.intern(&History::default()),
            budget: Budget::default(),
            ends: [0; PAIRS_MAX],
            queues: Default::default(),
            late: Vec::new(),
        }
    }

    /// Appends the state as numbers.
    pub(crate) fn encode(&self, bounds: &Bounds, words: &mut Vec<u32>) {
        let pairs = bounds.nodes * (bounds.nodes - 1) / 2;
        words.extend_from_slice(&self.machines[..bounds.nodes]);
        words.extend_from_slice(&self.answers[..bounds.nodes]);
        words.extend([self.registers, self.history]);
        words.extend(self.budget.words());
        let mut ends = 0;
        let mut lengths = 0;
        for pair in 0..pairs {
            ends |= u32::from(self.ends[pair]) << (2 * pair);
        }
        for (at, queue) in self.queues[..2 * pairs].iter().enumerate() {
            assert!(queue.len() <= QUEUE_MAX, "few messages are on their way");
            lengths |= (queue.len() as u32) << (5 * at);
        }
        words.extend([ends, lengths]);
        for queue in &self.queues[..2 * pairs] {
            words.extend_from_slice(queue);
        }
        words.extend_from_slice(&self.late);
    }

    /// The state that [`World::encode`] laid out.
    pub(crate) fn decode(bounds: &Bounds, words: &[u32]) -> Self {
        let (nodes, pairs) = (bounds.nodes, bounds.nodes * (bounds.nodes - 1) / 2);
        let mut world = Self {
            machines: [0; NODES_MAX],
            answers: [0; NODES_MAX],
            registers: words[2 * nodes],
            history: words[2 * nodes + 1],
            budget: Budget::from_words([words[2 * nodes + 2], words[2 * nodes + 3]]),
            ends: [0; PAIRS_MAX],
            queues: Default::default(),
            late: Vec::new(),
        };
        world.machines[..nodes].copy_from_slice(&words[..nodes]);
        world.answers[..nodes].copy_from_slice(&words[nodes..2 * nodes]);
        let (ends, lengths) = (words[2 * nodes + 4], words[2 * nodes + 5]);
        for pair in 0..pairs {
            world.ends[pair] = (ends >> (2 * pair) & 3) as u8;
        }
        let mut rest = &words[2 * nodes + 6..];
        for at in 0..2 * pairs {
            let (queue, behind) = rest.split_at((lengths >> (5 * at) & 31) as usize);
            world.queues[at].extend_from_slice(queue);
            rest = behind;
        }
        world.late.extend_from_slice(rest);
        world
    }

    /// The same state with the numbers of another store.
    pub(crate) fn moved(&self, from: &Store, to: &Store) -> Self {
        let mut world = self.clone();
        for at in 0..from.bounds.nodes {
            world.machines[at] = to.machines.intern(&from.machines.get(self.machines[at]));
            if self.answers[at] != 0 {
                world.answers[at] = to.answers.intern(&from.answers.get(self.answers[at]));
            }
        }
        world.registers = to.registers.intern(&from.registers.get(self.registers));
        world.history = to.histories.intern(&from.histories.get(self.history));
        for queue in &mut world.queues {
            for message in queue {
                *message = to.message(&from.messages.get(*message));
            }
        }
        for ask in &mut world.late {
            *ask = to.asks.intern(&from.asks.get(*ask));
        }
        world.late.sort_unstable();
        world
    }

    fn queue(&mut self, from: usize, to: usize) -> &mut Vec<u32> {
        let (pair, end) = pair_of(from, to);
        &mut self.queues[2 * pair + end]
    }

    fn has_end(&self, at: usize, peer: usize) -> bool {
        let (pair, end) = pair_of(at, peer);
        self.ends[pair] >> end & 1 == 1
    }

    fn drop_end(&mut self, at: usize, peer: usize) {
        let (pair, end) = pair_of(at, peer);
        self.ends[pair] &= !(1 << end);
        self.queue(peer, at).clear();
    }

    /// What becomes of the group by `action`, which is one of its [`World::choices`].
    pub(crate) fn apply(&self, store: &Store, action: Action) -> Result<Self, Violation> {
        let mut world = self.clone();
        world.act(store, action)?;
        Ok(world)
    }

    fn act(&mut self, store: &Store, action: Action) -> Result<(), Violation> {
        match action {
            Action::Hear(from, to) => return self.hear(store, from.into(), to.into()),
            Action::Lost(at, peer) => return self.lose_link(store, at.into(), peer.into()),
            Action::Close(at, peer) => {
                self.budget.spend(Kind::Close);
                return self.lose_link(store, at.into(), peer.into());
            }
            Action::Connect(a, b) => return self.connect(store, a.into(), b.into()),
            Action::Write(at, place) => return self.give(store, at.into(), &Input::Written(place)),
            Action::Vote(at) => return self.give(store, at.into(), &Input::VoteStored),
            Action::Rebuild(at) => {
                self.give_up_asking(store, at.into());
                return self.give(store, at.into(), &Input::Rebuild);
            }
            Action::Carry(at) => return self.carry(store, at.into()),
            Action::Answer(at) => {
                let answer = std::mem::take(&mut self.answers[usize::from(at)]);
                let answer = *store.answers.get(answer);
                return self.give(store, at.into(), &Input::Answer(answer));
            }
            Action::Lose(at) | Action::Late(at) | Action::Forget(at) => {
                self.budget.spend(Kind::Unknown);
                if matches!(action, Action::Late(_)) {
                    self.give_up_asking(store, at.into());
                }
                self.answers[usize::from(at)] = 0;
                let answer = Input::Answer(ArbiterAnswer::Unknown);
                return self.give(store, at.into(), &answer);
            }
            Action::Refuse(at) => {
                self.budget.spend(Kind::Unavailable);
                let answer = Input::Answer(ArbiterAnswer::Unavailable);
                return self.give(store, at.into(), &answer);
            }
            Action::Land(place) => return self.land(store, place.into()),
            Action::Publish(at) => return self.give(store, at.into(), &Input::Publish),
            Action::Beat(at) => {
                self.budget.spend(Kind::Beat);
                return self.give(store, at.into(), &Input::Pass(BEAT_NS));
            }
            Action::Lapse(at) => {
                self.budget.spend(Kind::Lapse);
                return self.give(store, at.into(), &Input::Pass(LAPSE_NS));
            }
            Action::Crash(at, loss) => {
                self.budget.spend(Kind::Crash);
                self.give_up_asking(store, at.into());
                self.answers[usize::from(at)] = 0;
                for peer in store.bounds.peers_of(at.into()) {
                    self.drop_end(at.into(), peer);
                }
                return self.give(store, at.into(), &Input::Crash(loss));
            }
            Action::Start(at) => return self.give(store, at.into(), &Input::Start),
            Action::Rot(at, rot) => {
                self.budget.spend(Kind::Damage);
                return self.give(store, at.into(), &Input::Rot(rot));
            }
            Action::Blank(at) => {
                self.budget.spend(Kind::Blank);
                return self.give(store, at.into(), &Input::Blank);
            }
            Action::HandOver(at) => {
                self.budget.spend(Kind::HandOver);
                self.give(store, at.into(), &Input::HandOver)?;
            }
        }
        Ok(())
    }

    /// Gives any input to a node, outside the budget: for the part in which no faults happen any more.
    pub(crate) fn give(
        &mut self,
        store: &Store,
        at: usize,
        input: &Input,
    ) -> Result<(), Violation> {
        let step = store.step(self.machines[at], input);
        self.machines[at] = step.machine;
        let mut is_news = false;
        for output in &step.outputs {
            is_news |= self.on_output(store, at, output)?;
        }
        if is_news {
            self.check_leaders(store)
        } else {
            Ok(())
        }
    }

    /// Notes what a node did; whether leaders have to be looked at.
    fn on_output(&mut self, store: &Store, at: usize, output: &Output) -> Result<bool, Violation> {
        let violation = |text: String| Violation(format!("node {}: {text}", at + 1));
        match output {
            Output::Said(place, message) => {
                let peer = Bounds::node_at(at, usize::from(*place));
                if self.has_end(at, peer) && self.has_end(peer, at) {
                    self.queue(at, peer).push(message.id);
                }
            }
            Output::Closed(place) => self.drop_end(at, Bounds::node_at(at, usize::from(*place))),
            Output::Leads | Output::Serves => return Ok(true),
            Output::Released { end, epoch, copies } => {
                self.on_released(store, at, *end, epoch.get(), *copies)
                    .map_err(violation)?;
                return Ok(true);
            }
            Output::Acknowledged(through) => self
                .change_history(store, |history| history.on_acknowledged(*through))
                .map_err(violation)?,
            Output::Established {
                epoch,
                next,
                released,
            } => self
                .change_history(store, |history| {
                    history.on_established(epoch.get(), *next, *released)
                })
                .map_err(violation)?,
            Output::DiskLost(log) => self
                .change_history(store, |history| {
                    history.on_disk_lost(log);
                    Ok(())
                })
                .map_err(violation)?,
            Output::Halted(reason) => return Err(violation(format!("it halts: {reason}"))),
            Output::Rotten(text) if store.bounds.budget.of(Kind::Damage) == 0 => {
                return Err(violation(format!("no disk is damaged, and yet {text}")));
            }
            Output::Rotten(_) => {}
            Output::Wrong(text) => return Err(violation(text.clone())),
        }
        Ok(false)
    }

    fn change_history(
        &mut self,
        store: &Store,
        change: impl FnOnce(&mut History) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut history = store.histories.get(self.history).as_ref().clone();
        change(&mut history)?;
        self.history = store.histories.intern(&history);
        Ok(())
    }

    /// Compares a release with everything released before, and with the disks.
    fn on_released(
        &mut self,
        store: &Store,
        at: usize,
        end: Position,
        epoch: u64,
        copies: u8,
    ) -> Result<(), String> {
        let machine = store.machines.get(self.machines[at]);
        let log = machine.log.front(end);
        if log.len() != page_of(end) {
            return Err(format!(
                "it releases up to {end}, its log ends at {}",
                log.len() * PAGE
            ));
        }
        self.change_history(store, |history| history.on_released(at as u8, epoch, log))?;
        let held = (0..store.bounds.nodes)
            .filter(|other| store.machines.get(self.machines[*other]).has_durable(log))
            .count();
        let held = held + store.histories.get(self.history).lost_with(log);
        if held < copies.into() {
            return Err(format!(
                "it releases up to {end} in epoch {epoch} with {held} of {copies} copies"
            ));
        }
        Ok(())
    }

    /// Whoever leads since the last release, or later, holds everything released.
    fn check_leaders(&self, store: &Store) -> Result<(), Violation> {
        let history = store.histories.get(self.history);
        for at in 0..store.bounds.nodes {
            let machine = store.machines.get(self.machines[at]);
            let Some(epoch) = machine
                .reign()
                .filter(|epoch| epoch.get() >= history.grown_in)
            else {
                continue;
            };
            if !machine.log.starts_with(history.ledger.pages()) {
                return Err(Violation(format!(
                    "node {} leads epoch {epoch} without everything that was released",
                    at + 1
                )));
            }
        }
        Ok(())
    }

    fn hear(&mut self, store: &Store, from: usize, to: usize) -> Result<(), Violation> {
        let message = store.messages.get(self.queue(from, to).remove(0));
        let place = Bounds::place_of(to, from) as u8;
        self.give(store, to, &Input::Hear(place, message.as_ref().clone()))
    }

    fn lose_link(&mut self, store: &Store, at: usize, peer: usize) -> Result<(), Violation> {
        self.drop_end(at, peer);
        self.give(store, at, &Input::Lost(Bounds::place_of(at, peer) as u8))
    }

    /// The node with the higher number dials; both prove themselves.
    fn connect(&mut self, store: &Store, a: usize, b: usize) -> Result<(), Violation> {
        let (acceptor, dialer) = (a.min(b), a.max(b));
        let (pair, _) = pair_of(a, b);
        self.queue(a, b).clear();
        self.queue(b, a).clear();
        self.ends[pair] = 3;
        let place = |at, peer| Bounds::place_of(at, peer) as u8;
        self.give(store, dialer, &Input::Opened(place(dialer, acceptor), true))?;
        self.give(
            store,
            acceptor,
            &Input::Opened(place(acceptor, dialer), false),
        )?;
        // HELLO, and PROOF once the other's HELLO is there.
        for _ in 0..2 {
            self.hear(store, dialer, acceptor)?;
            self.hear(store, acceptor, dialer)?;
        }
        Ok(())
    }

    fn carry(&mut self, store: &Store, at: usize) -> Result<(), Violation> {
        let ask = store
            .machines
            .get(self.machines[at])
            .ask
            .expect("something is asked")
            .ask;
        let answer = self.carry_out(store, &ask)?;
        self.answers[at] = store.answers.intern(&answer);
        Ok(())
    }

    fn land(&mut self, store: &Store, place: usize) -> Result<(), Violation> {
        let ask = self.late.remove(place);
        self.carry_out(store, &store.asks.get(ask)).map(drop)
    }

    fn carry_out(
        &mut self,
        store: &Store,
        ask: &relay_core::arbiter::Ask,
    ) -> Result<ArbiterAnswer, Violation> {
        let before = *store.registers.get(self.registers);
        let mut registers = before;
        let answer = carry_out(&mut registers, ask);
        if registers != before {
            if registers.membership.epoch < before.membership.epoch {
                return Err(Violation("a swap takes the epoch back".to_owned()));
            }
            self.registers = store.registers.intern(&registers);
            self.late
                .retain(|ask| can_land(&registers, &store.asks.get(*ask)));
        }
        Ok(answer)
    }

    /// Whatever a node asked and was not carried out may still be.
    fn give_up_asking(&mut self, store: &Store, at: usize) {
        let is_open = self.answers[at] == 0;
        let request = store
            .machines
            .get(self.machines[at])
            .ask
            .filter(|_| is_open);
        let registers = store.registers.get(self.registers);
        if let Some(request) = request
            && is_change(&request.ask)
            && can_land(&registers, &request.ask)
        {
            let ask = store.asks.intern(&request.ask);
            if !self.late.contains(&ask) {
                self.late.push(ask);
                self.late.sort_unstable();
            }
        }
        self.answers[at] = 0;
    }

    /// What the arbiter holds.
    pub(crate) fn registers_in(&self, store: &Store) -> Registers {
        *store.registers.get(self.registers)
    }

    /// The next message on the way between two nodes.
    pub(crate) fn next_message(&self, from: usize, to: usize) -> Option<u32> {
        let (pair, end) = pair_of(from, to);
        self.queues[2 * pair + end].first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_three() {
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| pair_of(a, b));
        assert_eq!(pairs, [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(pair_of(2, 1), (2, 1));
    }

    #[test]
    fn a_world_comes_back_from_its_numbers() {
        let bounds = Bounds::new(3, 2, 1, Budget::default());
        let store = Store::new(bounds.clone());
        let mut world = World::new(&store);
        world.ends = [3, 1, 2];
        world.queue(0, 1).extend([5, 6]);
        world.queue(2, 1).push(7);
        world.late = vec![3, 4];
        world.answers[1] = 9;
        let mut words = Vec::new();
        world.encode(&bounds, &mut words);
        assert_eq!(World::decode(&bounds, &words), world);
    }
}
