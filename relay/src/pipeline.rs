//! The threads of one stream: which agents each runs, in which order, and how they stop.
//!
//! ```text
//! shared:  [ ingress, sequence, egress ]            one ring, one thread
//! split:   [ ingress ]  [ sequence ]  [ egress ]    a ring and a thread each
//! ```
//!
//! A turn: enter the kernel, read the clocks, hand in what completed, let each agent drain its machine. What a turn queues
//! goes to the kernel with the next turn's enter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use io_uring::{opcode, types};
use relay_core::command::Now;
use relay_journal::superblock::CleanStop;
use relay_wire::code::TerminateCode;

use crate::allocations;
use crate::clock::Clock;
use crate::counters::Counter;
use crate::idle::{Idle, IdleStrategy};
use crate::link::Parking;
use crate::ring::{Op, Ring, RingRefused};
use crate::stage::egress::{self, EgressAgent};
use crate::stage::ingress::{self, IngressAgent};
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

/// What the threads of a stream tell each other, and the process, about stopping.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    asked: AtomicBool,
    has_stopped: AtomicBool,
    has_failed: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
}

/// How a stream ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Everything accepted is released.
    Clean(CleanStop),
    /// The disk failed.
    Fault(String),
}

impl Ending {
    /// Asks for a clean stop.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether the disk failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// How it ended, once the threads are joined.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn settle(&self, outcome: Outcome) {
        let is_fault = matches!(outcome, Outcome::Fault(_));
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        let flag = if is_fault {
            &self.has_failed
        } else {
            &self.has_stopped
        };
        flag.store(true, Ordering::Release);
    }
}

/// The agents of one thread.
#[derive(Default)]
pub(crate) struct Agents {
    pub(crate) ingress: Option<IngressAgent>,
    pub(crate) sequence: Option<SequenceAgent>,
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
    parts: ThreadParts,
    agents: Agents,
    ring: Ring,
    idle: Idle,
    is_stop_begun: bool,
    /// When the stop or fault was seen.
    ended_ns: Option<u64>,
    is_farewell_said: bool,
    woken: Box<u64>,
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
            ended_ns: None,
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
                egress,
            } = &mut self.agents;
            if let Some(sequence) = sequence {
                work += sequence.turn(&mut self.ring, now);
            }
            if let Some(egress) = egress {
                work += egress.turn(&mut self.ring, now);
            }
            if let Some(ingress) = ingress {
                work += ingress.turn(&mut self.ring, now);
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
            && self.ended_ns.is_none()
        {
            if let Some(fault) = sequence.fault() {
                ending.settle(Outcome::Fault(fault.what.clone()));
            } else if let Some(stop) = sequence.stopped() {
                ending.settle(Outcome::Clean(stop));
            }
        }
        if !self.is_stop_begun && ending.asked.load(Ordering::Relaxed) {
            self.is_stop_begun = true;
            if let Some(ingress) = &mut self.agents.ingress {
                ingress.begin_stop();
            }
            if let Some(sequence) = &mut self.agents.sequence {
                sequence.begin_stop();
            }
        }
        let has_failed = ending.has_failed();
        if !has_failed && !ending.has_stopped.load(Ordering::Acquire) {
            return;
        }
        let since_ns = *self.ended_ns.get_or_insert(now.mono_ns);
        let is_patient = !has_failed && now.mono_ns < since_ns + CATCH_UP_NS;
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
        let code = if has_failed {
            TerminateCode::StorageFault
        } else {
            TerminateCode::Stopping
        };
        if let Some(ingress) = &mut self.agents.ingress {
            ingress.farewell(code, now);
        }
        if let Some(egress) = &mut self.agents.egress {
            egress.farewell(code, now);
        }
    }

    fn is_over(&self) -> bool {
        let Some(since_ns) = self.ended_ns else {
            return false;
        };
        if !self.is_farewell_said {
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
        is_empty || self.parts.clock.now().mono_ns > since_ns + CATCH_UP_NS + FAREWELL_NS
    }
}

impl Agents {
    /// Whether nothing waits in a link for any of them.
    fn is_idle(&self) -> bool {
        self.ingress.as_ref().is_none_or(IngressAgent::is_idle)
            && self.sequence.as_ref().is_none_or(SequenceAgent::is_idle)
            && self.egress.as_ref().is_none_or(EgressAgent::is_idle)
    }
}
