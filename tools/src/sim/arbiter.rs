//! The arbiter of a group: the register that ships, at a host of its own, with everything that goes wrong on the way to it.
//!
//! # Fault model
//!
//! | fault | what happens | what the node hears |
//! | --- | --- | --- |
//! | delay | a request and its answer take a time of their own each; a slow arbiter takes longer | the answer, or after [`TIMEOUT_NS`] that nothing is known |
//! | partition, or down | the request does not get there, or its answer does not get back | that it was surely not carried out, or that nothing is known; then a change may land as late as it likes |
//! | doubt | the next change, or some of all of them, is carried out, is not, or is carried out later | that nothing is known |
//!
//! Reads and swaps are linearizable: the register decides at one moment between a request and its answer.

use relay_core::arbiter::{ArbiterAnswer, ArbiterReply, ArbiterRequest, Ask, Revision};
use relay_core::register::{self, Decision, Register};
use relay_wire::membership::{Member, Members, Membership};
use relay_wire::witness::Request;

use crate::canary::Canary;
use crate::clock::{MILLISECOND, Queue};
use crate::cluster::Event;
use crate::network::{Host, Network};
use crate::random::Random;
use crate::swarm::{Parameters, STREAM};

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
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Arbiter {
    host: Host,
    canary: Option<Canary>,
    register: Register,
    /// What it was before the last change of the record.
    before: Register,
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
    /// The record it is known to hold; for checkers.
    record: Option<Membership>,
}

impl Arbiter {
    /// An arbiter that holds nothing yet.
    pub(crate) fn new(parameters: &Parameters, canary: Option<Canary>) -> Self {
        Self {
            host: parameters.cast.arbiter_host(),
            canary,
            register: Register::default(),
            before: Register::default(),
            everybody: Members::default(),
            pending: Vec::new(),
            open: Vec::new(),
            random: Random::of(parameters.seed, 4),
            down_until_ns: 0,
            slow_until_ns: 0,
            doubts: 0,
            doubt_per_million: parameters.doubt_per_million,
            late_ns: parameters.late_ns,
            record: None,
        }
    }

    /// What `relayd init-group` does.
    pub(crate) fn create(&mut self, membership: &Membership) {
        let record = register::record_value(membership);
        self.carry_out(&Request::Create { record });
        self.before = self.register;
        self.everybody = membership.members;
        assert!(self.record.is_some(), "there is a record now");
    }

    /// The record as it is now.
    pub(crate) const fn record(&self) -> Option<&Membership> {
        self.record.as_ref()
    }

    /// Everybody who is in the set, or may be at the next moment: swaps under way may still land (rules R7 and R11).
    pub(crate) fn members(&self) -> Vec<Member> {
        let held = self.register.registers();
        let Some(now) = held.and_then(|held| register::registers(STREAM, held)) else {
            return Vec::new();
        };
        let mut members = now.membership.members.as_slice().to_vec();
        for &number in &self.open {
            if let Ask::Swap { base, next, .. } = &self.pending[number].request.ask
                && *base == now.revision
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
        });
        let is_up = now_ns >= self.down_until_ns;
        let way = network.one_way(node, self.host).filter(|_| is_up);
        let Some(delay) = way else {
            if self.random.chance(500_000) {
                self.pending[number].answer = ArbiterAnswer::Unavailable;
                later(queue, REFUSED_NS, ArbiterEvent::Answer(number));
            } else {
                later(queue, TIMEOUT_NS, ArbiterEvent::Answer(number));
                self.may_land_late(number, queue);
            }
            return;
        };
        let is_doubtful = is_change(&request.ask)
            && (self.doubts > 0 || self.random.chance(self.doubt_per_million));
        if is_doubtful {
            self.doubts = self.doubts.saturating_sub(1);
            later(queue, TIMEOUT_NS, ArbiterEvent::Answer(number));
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
            self.open.retain(|open| *open != number);
        }
        match event {
            ArbiterEvent::Land(number) => {
                let request = register::request(&self.pending[number].request.ask);
                self.carry_out(&request);
                None
            }
            ArbiterEvent::Arrive(number) => {
                let pending = self.pending[number];
                let request = register::request(&pending.request.ask);
                let answer = if self.is_read_stale(&pending.request.ask) {
                    let held =
                        relay_wire::witness::Answer::Registers(self.before.registers().copied());
                    register::answer(STREAM, &held)
                } else {
                    self.carry_out(&request)
                };
                let now_ns = queue.now_ns();
                let end_ns = pending.begun_ns + TIMEOUT_NS;
                let way = network.one_way(self.host, pending.node);
                let is_in_time = way.is_some_and(|delay| now_ns + delay < end_ns);
                if is_in_time {
                    self.pending[number].answer = answer;
                }
                let at_ns = match way {
                    Some(delay) if is_in_time => now_ns + delay,
                    _ => end_ns.max(now_ns),
                };
                queue.at(at_ns, Event::Arbiter(ArbiterEvent::Answer(number)));
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

    fn carry_out(&mut self, request: &Request) -> ArbiterAnswer {
        let answer = match self.register.decide(request) {
            Decision::Answer(answer) => answer,
            Decision::Change { next, revision } => {
                if matches!(request, Request::Swap { .. }) {
                    self.before = self.register;
                }
                self.register = next;
                relay_wire::witness::Answer::Done(revision)
            }
        };
        let held = self.register.registers();
        let shown = held.and_then(|held| register::registers(STREAM, held));
        let record = shown.map(|registers| registers.membership);
        if let (Some(before), Some(after)) = (&self.record, &record)
            && before != after
        {
            assert!(after.epoch > before.epoch, "epochs rise at the arbiter");
        }
        self.record = record;
        register::answer(STREAM, &answer)
    }
}

/// Rules broken on purpose.
impl Arbiter {
    fn is_read_stale(&mut self, ask: &Ask) -> bool {
        let is_bent = self.canary == Some(Canary::StaleRecordRead) && *ask == Ask::Read;
        is_bent && self.random.chance(500_000)
    }

    /// What a node hears instead of `answer`.
    fn bent(&self, ask: &Ask, answer: ArbiterAnswer) -> ArbiterAnswer {
        let Ask::Swap { base, .. } = ask else {
            return answer;
        };
        let held = self.register.registers();
        let now = held.and_then(|held| register::registers(STREAM, held));
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

const fn is_change(ask: &Ask) -> bool {
    !matches!(ask, Ask::Read)
}

fn later(queue: &mut Queue<Event>, delay_ns: u64, event: ArbiterEvent) {
    queue.after(delay_ns, Event::Arbiter(event));
}
