//! The arbiter of a group: the register that ships, at a host of its own, with everything that goes wrong on the way to it.
//!
//! # Fault model
//!
//! | fault | what happens | what the node hears |
//! | --- | --- | --- |
//! | delay | a request and its answer take a time of their own each; a slow arbiter takes longer | the answer, or after [`TIMEOUT_NS`] that nothing is known |
//! | partition, or down | the request does not get there, or its answer does not get back | that it was surely not carried out, or that nothing is known; then a change may land as late as it likes |
//! | doubt | the next change, or some of all of them, is carried out, is not, or is carried out later | that nothing is known |
//! | restored | the register is as it was when somebody made a backup of it; what was on its way to the one before never arrives. Its later revisions are new ones | of what was on its way, that nothing is known |
//!
//! Reads and swaps are linearizable: the register decides at one moment between a request and its answer.
//!
//! Where an operator is the arbiter each node asks a register of its own, on its own machine: there is no way to it that could
//! be cut, and a process that dies has had what it asked for carried out by then, or never will.

use relay_core::arbiter::{ArbiterAnswer, ArbiterReply, ArbiterRequest, Ask, Registers, Revision};
use relay_core::register::{self, Decision, Register};
use relay_wire::id::Epoch;
use relay_wire::membership::{Member, Members, Membership};
use relay_wire::witness::Request;

use crate::canary::Canary;
use crate::clock::{MILLISECOND, Queue};
use crate::cluster::Event;
use crate::network::{Host, Network};
use crate::random::Random;
use crate::swarm::{Parameters, STREAM};
use crate::theme::Theme;

/// A node waits so long for an answer.
const TIMEOUT_NS: u64 = 300 * MILLISECOND;
/// A request that can't be sent fails after so long.
const REFUSED_NS: u64 = 20 * MILLISECOND;

/// Something that happens at the arbiter or on the way from it; the number names the request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ArbiterEvent {
    /// A request arrives.
    Arrive(usize),
    /// A request arrives that its node has given up already.
    Land(usize),
    /// A node hears the answer.
    Answer(usize),
}

/// A request and what became of it.
#[derive(Debug, Clone, Copy)]
struct Pending {
    node: usize,
    process: u32,
    request: ArbiterRequest,
    begun_ns: u64,
    answer: ArbiterAnswer,
    /// When the node hears it is settled.
    is_answered: bool,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Arbiter {
    host: Host,
    canary: Option<Canary>,
    /// The one, or each node's own.
    registers: Vec<Register>,
    is_manual: bool,
    /// What it was before the last change of the record.
    before: Register,
    backup: Option<Register>,
    /// What it was before it came back with an older record.
    forgotten: Option<Register>,
    /// Every node's first copy.
    everybody: Members,
    pending: Vec<Pending>,
    /// Numbers of those that may still be carried out.
    open: Vec<usize>,
    random: Random,
    down_until_ns: u64,
    slow_until_ns: u64,
    /// Changes whose outcome nobody will hear.
    doubts: u32,
    /// How many of a million others are like that too.
    doubt_per_million: u32,
    /// Mean time after which a request lands that was given up.
    late_ns: u64,
    /// Time an own register takes.
    own_ns: u64,
    /// The record it is known to hold; for checkers.
    record: Option<Membership>,
    /// The record with the highest epoch there ever was.
    newest: Option<Membership>,
}

impl Arbiter {
    /// An arbiter that holds nothing yet.
    pub(crate) fn new(parameters: &Parameters, canary: Option<Canary>) -> Self {
        Self {
            host: parameters.cast.arbiter_host(),
            canary,
            registers: match parameters.theme {
                Theme::Manual => vec![Register::default(); parameters.cast.nodes],
                _ => vec![Register::default()],
            },
            is_manual: parameters.theme == Theme::Manual,
            before: Register::default(),
            backup: None,
            forgotten: None,
            everybody: Members::default(),
            pending: Vec::new(),
            open: Vec::new(),
            random: Random::of(parameters.seed, 4),
            down_until_ns: 0,
            slow_until_ns: 0,
            doubts: 0,
            doubt_per_million: parameters.doubt_per_million,
            late_ns: parameters.late_ns,
            own_ns: parameters.latencies.least_ns + parameters.latencies.write_ns,
            record: None,
            newest: None,
        }
    }

    /// What `relayd init-group` does.
    pub(crate) fn create(&mut self, membership: &Membership) {
        let record = register::record_value(membership);
        self.carry_out(0, &Request::Create { record });
        self.before = self.registers[0];
        self.everybody = membership.members;
        assert!(self.record.is_some(), "there is a record now");
    }

    /// Where a node's requests go.
    const fn place(&self, node: usize) -> usize {
        if self.is_manual { node } else { 0 }
    }

    /// Where an operator is the arbiter: a node keeps what its primary tells.
    pub(crate) fn keep(&mut self, node: usize, membership: &Membership) {
        let told = register::record_value(membership);
        self.registers[node] = self.registers[node].told(told);
        self.look();
    }

    /// Whether another node than this one was ever elected in a later epoch.
    pub(crate) fn has_superseded(&self, node: usize, epoch: Epoch) -> bool {
        self.newest
            .is_some_and(|newest| newest.epoch > epoch && newest.primary.get() != node as u64 + 1)
    }

    /// The record as it is now, the newest where each node has its own.
    pub(crate) const fn record(&self) -> Option<&Membership> {
        self.record.as_ref()
    }

    /// Everybody who is in the set, or may be at the next moment: swaps under way may still land (rules R7 and R11).
    /// Where an operator is the arbiter each primary's own record is all there is.
    pub(crate) fn members(&self) -> Vec<Member> {
        let truth = self.forgotten.as_ref().unwrap_or(&self.registers[0]);
        let Some(now) = held_by(truth).filter(|_| !self.is_manual) else {
            return Vec::new();
        };
        let mut members = now.membership.members.as_slice().to_vec();
        for &number in &self.open {
            if let Ask::Swap { base, next, .. } = &self.pending[number].request.ask
                && *base == now.revision
                && self.forgotten.is_none()
            {
                members.extend_from_slice(next.members.as_slice());
            }
        }
        members
    }

    /// A node asks.
    pub(crate) fn ask(
        &mut self,
        node: usize,
        process: u32,
        mut request: ArbiterRequest,
        network: &mut Network,
        queue: &mut Queue<Event>,
    ) {
        if let (Ask::Swap { next, .. }, Some(Canary::AdmittedEarly)) =
            (&mut request.ask, self.canary)
        {
            next.members = self.everybody;
        }
        let now_ns = queue.now_ns();
        let number = self.pending.len();
        self.pending.push(Pending {
            node,
            process,
            request,
            begun_ns: now_ns,
            answer: ArbiterAnswer::Unknown,
            is_answered: false,
        });
        if self.is_manual {
            self.open.push(number);
            later(queue, self.own_ns, ArbiterEvent::Arrive(number));
            return;
        }
        if self.canary == Some(Canary::ShrinkNotAwaited) && self.is_shrink(&request.ask) {
            let revision = self.registers[0].revision_last() + 1;
            self.pending[number].answer = ArbiterAnswer::Done(Revision(revision));
            self.answer_at(number, now_ns, queue);
        }
        let is_up = now_ns >= self.down_until_ns;
        let way = network.one_way(node, self.host).filter(|_| is_up);
        let Some(delay) = way else {
            if self.random.chance(500_000) {
                self.pending[number].answer = ArbiterAnswer::Unavailable;
                self.answer_at(number, now_ns + REFUSED_NS, queue);
            } else {
                self.answer_at(number, now_ns + TIMEOUT_NS, queue);
                self.may_land_late(number, queue);
            }
            return;
        };
        let is_doubtful = is_change(&request.ask)
            && (self.doubts > 0 || self.random.chance(self.doubt_per_million));
        if is_doubtful {
            self.doubts = self.doubts.saturating_sub(1);
            self.answer_at(number, now_ns + TIMEOUT_NS, queue);
            match self.random.below(3) {
                0 => self.land(number, delay, queue),
                1 => {}
                _ => self.may_land_late(number, queue),
            }
            return;
        }
        self.open.push(number);
        let delay = delay + self.slowness(now_ns);
        later(queue, delay, ArbiterEvent::Arrive(number));
    }

    /// The node hears the answer then, unless it has heard one.
    fn answer_at(&mut self, number: usize, at_ns: u64, queue: &mut Queue<Event>) {
        if !std::mem::replace(&mut self.pending[number].is_answered, true) {
            queue.at(at_ns, Event::Arbiter(ArbiterEvent::Answer(number)));
        }
    }

    fn slowness(&mut self, now_ns: u64) -> u64 {
        if now_ns < self.slow_until_ns {
            self.random.tailed(150 * MILLISECOND)
        } else {
            0
        }
    }

    fn may_land_late(&mut self, number: usize, queue: &mut Queue<Event>) {
        if self.random.chance(500_000) {
            let delay = self.random.tailed(self.late_ns);
            self.land(number, delay, queue);
        }
    }

    fn land(&mut self, number: usize, delay_ns: u64, queue: &mut Queue<Event>) {
        self.open.push(number);
        later(queue, delay_ns, ArbiterEvent::Land(number));
    }

    /// Something happens; says which process of which node hears what.
    pub(crate) fn on_event(
        &mut self,
        event: ArbiterEvent,
        network: &mut Network,
        queue: &mut Queue<Event>,
    ) -> Option<(usize, u32, ArbiterReply)> {
        if let ArbiterEvent::Land(number) | ArbiterEvent::Arrive(number) = event {
            let at = self.open.iter().position(|open| *open == number)?;
            self.open.remove(at);
        }
        match event {
            ArbiterEvent::Land(number) => {
                self.carry_out_open(number);
                None
            }
            ArbiterEvent::Arrive(number) => {
                let pending = self.pending[number];
                let answer = if self.is_read_stale(&pending.request.ask) {
                    let held =
                        relay_wire::witness::Answer::Registers(self.before.registers().copied());
                    register::answer(STREAM, &held)
                } else {
                    self.carry_out_open(number)
                };
                let now_ns = queue.now_ns();
                let end_ns = pending.begun_ns + TIMEOUT_NS;
                let way = match self.is_manual {
                    true => Some(0),
                    false => network.one_way(self.host, pending.node),
                };
                let is_in_time = way.is_some_and(|delay| now_ns + delay < end_ns);
                if is_in_time && !pending.is_answered {
                    self.pending[number].answer = answer;
                }
                let at_ns = match way {
                    Some(delay) if is_in_time => now_ns + delay,
                    _ => end_ns.max(now_ns),
                };
                self.answer_at(number, at_ns, queue);
                None
            }
            ArbiterEvent::Answer(number) => {
                let pending = &self.pending[number];
                let reply = ArbiterReply {
                    id: pending.request.id,
                    answer: self.bent(&pending.request.ask, pending.answer),
                };
                Some((pending.node, pending.process, reply))
            }
        }
    }

    fn carry_out_open(&mut self, number: usize) -> ArbiterAnswer {
        let pending = self.pending[number];
        let place = self.place(pending.node);
        self.carry_out(place, &register::request(&pending.request.ask))
    }

    fn carry_out(&mut self, place: usize, request: &Request) -> ArbiterAnswer {
        let before = held_by(&self.registers[place]).map(|held| held.membership);
        let answer = match self.registers[place].decide(request) {
            Decision::Answer(answer) => answer,
            Decision::Change { next, revision } => {
                if matches!(request, Request::Swap { .. }) {
                    self.before = self.registers[place];
                }
                self.registers[place] = next;
                relay_wire::witness::Answer::Done(revision)
            }
        };
        let after = held_by(&self.registers[place]).map(|held| held.membership);
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            assert!(after.epoch > before.epoch, "epochs rise at the arbiter");
        }
        self.look();
        register::answer(STREAM, &answer)
    }

    /// Sees what it holds now.
    fn look(&mut self) {
        let records = self.registers.iter().filter_map(held_by);
        let records = records.map(|held| held.membership);
        self.record = records.max_by_key(|record| record.epoch);
        let epoch = self.newest.map(|newest| newest.epoch);
        self.newest = self
            .record
            .filter(|record| Some(record.epoch) > epoch)
            .or(self.newest);
    }

    /// A process of a node is gone. What it asked its own register for is done by now, or never will be.
    pub(crate) fn on_killed(&mut self, node: usize, random: &mut Random) {
        if !self.is_manual {
            return;
        }
        for number in std::mem::take(&mut self.open) {
            if self.pending[number].node != node {
                self.open.push(number);
            } else if random.chance(500_000) {
                self.carry_out_open(number);
            }
        }
    }
}

/// Backups.
impl Arbiter {
    /// Somebody makes a backup.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.registers[0]);
    }

    /// The record that would come back, if there is a backup.
    pub(crate) fn backup(&self) -> Option<Membership> {
        let held = self.backup.as_ref().and_then(held_by);
        held.map(|held| held.membership)
    }

    /// It comes back from the backup. Nobody hears of what was on its way to it.
    pub(crate) fn restore(&mut self, random: &mut Random, queue: &mut Queue<Event>) {
        let Some(backup) = self.backup else {
            return;
        };
        for number in std::mem::take(&mut self.open) {
            let end_ns = self.pending[number].begun_ns + TIMEOUT_NS;
            self.answer_at(number, end_ns.max(queue.now_ns()), queue);
        }
        let before = self.registers[0];
        self.registers[0] = backup.skipping(random.within(1 << 20, 1 << 30) as u32);
        self.look();
        let epoch = |record: Option<Membership>| record.map(|record| record.epoch);
        if epoch(self.record) < epoch(self.newest) {
            self.forgotten.get_or_insert(before);
        }
    }

    /// Whether it holds an older record than it once did.
    pub(crate) const fn has_gone_back(&self) -> bool {
        self.forgotten.is_some()
    }

    /// Whether it keeps anybody waiting.
    pub(crate) const fn is_disturbed(&self, now_ns: u64) -> bool {
        now_ns < self.down_until_ns || now_ns < self.slow_until_ns || self.doubts > 0
    }
}

/// Rules broken on purpose.
impl Arbiter {
    fn is_read_stale(&mut self, ask: &Ask) -> bool {
        let is_bent = self.canary == Some(Canary::StaleRecordRead) && *ask == Ask::Read;
        is_bent && self.random.chance(500_000)
    }

    /// Whether a change takes somebody out.
    fn is_shrink(&self, ask: &Ask) -> bool {
        let Ask::Swap { next, .. } = ask else {
            return false;
        };
        self.record
            .is_some_and(|record| next.members.len() < record.members.len())
    }

    /// What a node hears instead of `answer`.
    fn bent(&self, ask: &Ask, answer: ArbiterAnswer) -> ArbiterAnswer {
        let Ask::Swap { base, .. } = ask else {
            return answer;
        };
        let now = held_by(&self.registers[0]);
        match (self.canary, answer) {
            (Some(Canary::LostSwapGoesOn), ArbiterAnswer::Refused(Some(shown))) => {
                ArbiterAnswer::Done(shown.revision)
            }
            (Some(Canary::UnknownSwapCountsAsDone), ArbiterAnswer::Unknown) => {
                ArbiterAnswer::Done(Revision(base.0 + 1))
            }
            (Some(Canary::UnknownSwapCountsAsLost), ArbiterAnswer::Unknown) => {
                ArbiterAnswer::Unavailable
            }
            (Some(Canary::LateSwapHidden), ArbiterAnswer::Unknown) => ArbiterAnswer::Refused(now),
            _ => answer,
        }
    }
}

/// The faults.
impl Arbiter {
    /// Nobody reaches it before then.
    pub(crate) fn go_down(&mut self, until_ns: u64) {
        self.down_until_ns = self.down_until_ns.max(until_ns);
    }

    /// It takes its time until then.
    pub(crate) fn slow_down(&mut self, until_ns: u64) {
        self.slow_until_ns = self.slow_until_ns.max(until_ns);
    }

    /// Nobody hears what came of the next change.
    pub(crate) const fn doubt(&mut self) {
        self.doubts += 1;
    }

    /// It works.
    pub(crate) const fn heal(&mut self) {
        self.down_until_ns = 0;
        self.slow_until_ns = 0;
        self.doubts = 0;
        self.doubt_per_million = 0;
    }
}

/// What a register says.
fn held_by(register: &Register) -> Option<Registers> {
    let held = register.registers()?;
    register::registers(STREAM, held)
}

const fn is_change(ask: &Ask) -> bool {
    !matches!(ask, Ask::Read)
}

fn later(queue: &mut Queue<Event>, delay_ns: u64, event: ArbiterEvent) {
    queue.after(delay_ns, Event::Arbiter(event));
}
