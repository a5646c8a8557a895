//! The threads of one stream: which agents each runs, in which order, and how they stop.
//!
//! ```text
//! shared:  [ ingress, sequence (replicate), egress ]            one ring, one thread
//! split:   [ ingress ]  [ sequence (replicate) ]  [ egress ]    a ring and a thread each
//! ```
//!
//! On a node of a group the agent of the peers' sockets runs with the sequence agent, which has the node. What is sealed goes to
//! the peers first and to the disk right after: of the two ways to a release the one over another machine is longer.
//!
//! A turn: enter the kernel, read the clocks, hand in what completed, let each agent drain its machine. What a turn queues
//! goes to the kernel with the next turn's enter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use io_uring::{opcode, types};
use relay_core::command::Now;
use relay_wire::code::TerminateCode;

use crate::allocations;
use crate::clock::Clock;
use crate::counters::Counter;
use crate::idle::{Idle, IdleStrategy};
use crate::link::Parking;
use crate::ring::{Op, Ring, RingRefused};
use crate::stage::End;
use crate::stage::egress::{self, EgressAgent};
use crate::stage::ingress::{self, IngressAgent};
use crate::stage::replicate::{self, ReplicateAgent};
use crate::stage::sequence::{self, SequenceAgent};

/// The thread itself, as an agent of its ring.
const AGENT: u8 = 0;
/// Places for submissions of a thread's ring.
const RING_ENTRIES: u32 = 2048;
/// Completions handed in before the agents get their turn.
const COMPLETIONS_PER_TURN: usize = 1024;
/// Subscribers have this long to take the rest at a stop.
const CATCH_UP_NS: u64 = 2_000_000_000;
/// Farewells have this long to be taken.
const FAREWELL_NS: u64 = 2_000_000_000;
/// And this long where the node begins again from its disk: it is to be back soon.
const FAREWELL_BEFORE_RESTART_NS: u64 = 20_000_000;

/// What the threads of a stream tell each other, and the process, about stopping.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    asked: AtomicBool,
    has_ended: AtomicBool,
    outcome: Mutex<Option<End>>,
}

impl Ending {
    /// Asks for a clean stop.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// How it ended, once it has.
    pub(crate) fn outcome(&self) -> Option<End> {
        self.outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    fn settle(&self, end: End) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.has_ended.store(true, Ordering::Release);
    }
}

/// The agents of one thread.
#[derive(Default)]
pub(crate) struct Agents {
    pub(crate) ingress: Option<IngressAgent>,
    pub(crate) sequence: Option<SequenceAgent>,
    /// With the sequence agent, on a node of a group.
    pub(crate) replicate: Option<ReplicateAgent>,
    pub(crate) egress: Option<EgressAgent>,
}

/// What a thread needs besides its agents.
pub(crate) struct ThreadParts {
    pub(crate) name: String,
    pub(crate) cpu: Option<usize>,
    pub(crate) idle: IdleStrategy,
    pub(crate) parking: Parking,
    pub(crate) clock: Clock,
    pub(crate) ending: Arc<Ending>,
    pub(crate) turn_ns_max: Counter,
    pub(crate) allocations: Counter,
}

/// Starts the thread and waits until it has its ring.
pub(crate) fn spawn(parts: ThreadParts, agents: Agents) -> Result<JoinHandle<()>, SpawnError> {
    let (ready, answer) = mpsc::channel();
    let builder = std::thread::Builder::new().name(parts.name.clone());
    let handle = builder
        .spawn(move || {
            block_signals();
            // The crate's set holds 1,024 CPUs and panics beyond.
            if let Some(cpu) = parts.cpu
                && (cpu >= 1024
                    || !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }))
            {
                let _ = ready.send(Err(SpawnError::Cpu(cpu)));
                return;
            }
            match Ring::new(RING_ENTRIES) {
                Ok(ring) => {
                    let _ = ready.send(Ok(()));
                    HotThread::new(parts, agents, ring).run();
                }
                Err(error) => {
                    let _ = ready.send(Err(SpawnError::Ring(error)));
                }
            }
        })
        .map_err(SpawnError::Thread)?;
    answer
        .recv()
        .unwrap_or(Err(SpawnError::Died))
        .map(|()| handle)
}

/// Leaves the process's signals to its other threads. Where one reached a hot thread it would interrupt it, and before Linux
/// 6.2 it could make the kernel give up a write for which the ring was just starting a worker.
fn block_signals() {
    // SAFETY: the set is filled before it is used, lives until the call is over, and belongs to this thread alone. What a fault
    // of this thread's own raises stays unblocked.
    let refused = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        for own in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
        ] {
            libc::sigdelset(&raw mut set, own);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    assert_eq!(refused, 0, "the set is a valid one");
}

/// Why a hot thread did not start.
#[derive(Debug)]
pub(crate) enum SpawnError {
    Ring(RingRefused),
    Cpu(usize),
    Thread(std::io::Error),
    Died,
}

impl std::fmt::Display for SpawnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Cpu(cpu) => write!(
                f,
                "CPU {cpu} can't be used: it does not exist or this process may not run there; \
                 correct threads.cpus in the configuration"
            ),
            Self::Thread(error) => write!(f, "a thread could not be made: {error}"),
            Self::Died => write!(f, "a thread ended before it began"),
        }
    }
}

impl std::error::Error for SpawnError {}

struct HotThread {
    // Quiet before it is dropped (`Ring::quiesce`): until then the kernel may fill the agents' buffers. A panic ends the process, as
    // the profile for a release says; elsewhere the ring at least goes first.
    ring: Ring,
    parts: ThreadParts,
    agents: Agents,
    idle: Idle,
    is_stop_begun: bool,
    /// How and when it was seen to have ended.
    ended: Option<Ended>,
    is_farewell_said: bool,
    woken: Box<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    since_ns: u64,
    code: TerminateCode,
    /// What is released is still delivered.
    is_patient: bool,
    farewell_ns: u64,
    is_fault: bool,
}

impl Ended {
    fn new(end: &End, now: Now) -> Self {
        let (code, is_patient, farewell_ns) = match end {
            End::Stopped(_) => (TerminateCode::Stopping, true, FAREWELL_NS),
            End::Fault(_) => (TerminateCode::StorageFault, false, FAREWELL_NS),
            End::Restart { .. } => (TerminateCode::NotPrimary, false, FAREWELL_BEFORE_RESTART_NS),
            End::Halt(_) => (TerminateCode::NotPrimary, false, FAREWELL_NS),
        };
        Self {
            since_ns: now.mono_ns,
            code,
            is_patient,
            farewell_ns,
            is_fault: matches!(end, End::Fault(_)),
        }
    }
}

impl HotThread {
    fn new(parts: ThreadParts, mut agents: Agents, ring: Ring) -> Self {
        if let Some(sequence) = &mut agents.sequence
            && let Err(error) = sequence.register(&ring)
        {
            tracing::warn!(
                %error,
                "the log's memory could not be registered: writes cost a little more. Raise the \
                 limit on locked memory (LimitMEMLOCK)"
            );
        }
        Self {
            idle: Idle::new(parts.idle),
            parts,
            agents,
            ring,
            is_stop_begun: false,
            ended: None,
            is_farewell_said: false,
            woken: Box::new(0),
        }
    }

    fn run(mut self) {
        if self.parts.idle == IdleStrategy::Park {
            self.await_wake();
        }
        allocations::declare_hot();
        while !self.is_over() {
            self.ring.enter();
            let now = self.parts.clock.now();
            let mut work = self.reap(now);
            let Agents {
                ingress,
                sequence,
                replicate,
                egress,
            } = &mut self.agents;
            if let Some(sequence) = sequence {
                work += sequence_turn(&mut self.ring, sequence, replicate.as_mut(), now);
            }
            if let Some(egress) = egress {
                work += egress.turn(&mut self.ring, now);
            }
            if let Some(ingress) = ingress {
                work += ingress.turn(&mut self.ring, now);
            }
            if let Some(replicate) = replicate {
                replicate.turn(&mut self.ring);
            }
            if work > 0 {
                let took = self.parts.clock.now().mono_ns - now.mono_ns;
                self.parts.turn_ns_max.raise(took);
                self.parts.allocations.set(allocations::of_this_thread());
            }
            self.attend_to_ending(now);
            let agents = &self.agents;
            self.idle
                .after_turn(work, &mut self.ring, &self.parts.parking, || {
                    agents.is_idle()
                });
        }
        if !self.ring.quiesce(Duration::from_nanos(FAREWELL_NS)) {
            // A disk that never answers: what the kernel may still use stays where it is until the process ends.
            std::mem::forget(self.agents);
        }
    }

    fn reap(&mut self, now: Now) -> usize {
        for done in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.ring.reap() else {
                return done;
            };
            let Agents {
                ingress,
                sequence,
                replicate,
                egress,
            } = &mut self.agents;
            match completion.op.agent {
                AGENT => self.await_wake(),
                ingress::AGENT => {
                    let agent = ingress.as_mut().expect("its own operation completes");
                    agent.on_completion(&mut self.ring, completion, now);
                }
                sequence::AGENT => {
                    let agent = sequence.as_mut().expect("its own operation completes");
                    agent.on_completion(completion, now);
                }
                replicate::AGENT => {
                    let agent = replicate.as_mut().expect("its own operation completes");
                    let sequence = sequence.as_mut().expect("they run together");
                    agent.on_completion(&mut self.ring, sequence.node(), completion, now);
                }
                egress::AGENT => {
                    let agent = egress.as_mut().expect("its own operation completes");
                    agent.on_completion(&mut self.ring, completion, now);
                }
                other => unreachable!("no agent {other}"),
            }
        }
        COMPLETIONS_PER_TURN
    }

    /// Lets a wake-up by another thread complete an operation of this ring.
    fn await_wake(&mut self) {
        let event = types::Fd(self.parts.parking.event());
        let to = std::ptr::from_mut(&mut *self.woken).cast();
        let entry = opcode::Read::new(event, to, 8).build();
        // SAFETY: the eight bytes are boxed, live as long as this thread's loop, and are never looked at.
        unsafe {
            self.ring.push(
                entry,
                Op {
                    agent: AGENT,
                    purpose: 0,
                    index: 0,
                },
            )
        };
    }

    fn attend_to_ending(&mut self, now: Now) {
        let ending = Arc::clone(&self.parts.ending);
        if let Some(sequence) = &self.agents.sequence
            && let Some(end) = sequence.end()
        {
            let is_fault = matches!(end, End::Fault(_));
            let is_known = self.ended.as_mut().is_some_and(|ended| {
                // The disk may fail after all was decided.
                std::mem::replace(&mut ended.is_fault, is_fault) == is_fault
            });
            if !is_known {
                ending.settle(end.clone());
            }
        }
        if !self.is_stop_begun && ending.asked.load(Ordering::Relaxed) {
            self.is_stop_begun = true;
            if let Some(ingress) = &mut self.agents.ingress {
                ingress.begin_stop();
            }
            if let Some(sequence) = &mut self.agents.sequence {
                sequence.begin_stop(now);
            }
        }
        if !ending.has_ended() {
            return;
        }
        let ended = match self.ended {
            Some(ended) => ended,
            None => {
                let end = ending.outcome().expect("it is settled before it is told");
                *self.ended.insert(Ended::new(&end, now))
            }
        };
        let is_patient = ended.is_patient && now.mono_ns < ended.since_ns + CATCH_UP_NS;
        let is_waiting = self
            .agents
            .egress
            .as_ref()
            .is_some_and(|egress| !egress.is_caught_up())
            || self
                .agents
                .ingress
                .as_ref()
                .is_some_and(|ingress| !ingress.is_idle());
        if self.is_farewell_said || (is_patient && is_waiting) {
            return;
        }
        self.is_farewell_said = true;
        // What this turn queued may point at buffers that a farewell gives back: the kernel takes it first.
        self.ring.enter();
        if let Some(ingress) = &mut self.agents.ingress {
            ingress.farewell(ended.code, now);
        }
        if let Some(egress) = &mut self.agents.egress {
            egress.farewell(ended.code, now);
        }
        if let Some(replicate) = &mut self.agents.replicate {
            replicate.farewell();
        }
    }

    fn is_over(&self) -> bool {
        let Some(ended) = self.ended else {
            return false;
        };
        let is_settled = self.agents.sequence.as_ref().is_none_or(|sequence| {
            // A disk that failed owes no completion.
            matches!(sequence.end(), Some(End::Fault(_))) || sequence.is_settled()
        });
        if !self.is_farewell_said || !is_settled {
            return false;
        }
        let is_empty = self
            .agents
            .ingress
            .as_ref()
            .is_none_or(IngressAgent::is_empty)
            && self
                .agents
                .egress
                .as_ref()
                .is_none_or(EgressAgent::is_empty);
        let patience_ns = if ended.is_patient { CATCH_UP_NS } else { 0 } + ended.farewell_ns;
        is_empty || self.parts.clock.now().mono_ns > ended.since_ns + patience_ns
    }
}

/// The turn of the sequence agent, and of the one that has its peers' sockets.
fn sequence_turn(
    ring: &mut Ring,
    sequence: &mut SequenceAgent,
    replicate: Option<&mut ReplicateAgent>,
    now: Now,
) -> usize {
    let Some(replicate) = replicate else {
        let work = sequence.turn(now, |_, _| 0);
        sequence.submit(ring);
        return work;
    };
    let work = sequence.turn(now, |node, window| replicate.hear(node, window, now));
    while let Some(wish) = sequence.poll_for_peers() {
        replicate.carry_out(ring, sequence.node(), wish, now);
    }
    sequence.submit(ring);
    work
}

impl Agents {
    /// Whether nothing waits in a link for any of them.
    fn is_idle(&self) -> bool {
        self.ingress.as_ref().is_none_or(IngressAgent::is_idle)
            && self.sequence.as_ref().is_none_or(SequenceAgent::is_idle)
            && self.egress.as_ref().is_none_or(EgressAgent::is_idle)
    }
}
