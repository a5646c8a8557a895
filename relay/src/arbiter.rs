//! The way to the arbiter: a housekeeping thread that asks for the failover machine and tells what came of it.
//!
//! ```text
//! machine --ArbiterRequest--> thread --> witness or etcd
//!    ^-----ArbiterReply + wake--'
//! ```
//!
//! The connection is made ahead of need and tried every second, since a failover has no time for a handshake. Each request
//! has a deadline, counted from when it was asked: one whose bytes never left is [`ArbiterAnswer::Unavailable`], a change
//! that left and was not answered is [`ArbiterAnswer::Unknown`]. A read is asked again while its deadline lasts; a change that left
//! never is, for only the machine knows what a second one would mean.
//!
//! Invariants: an answer belongs to the request it names (a connection that failed is never used again); whether a change may have
//! happened is never guessed in the cheaper direction; the thread decides nothing about membership.
//!
//! * [`config`]: what an operator writes;
//! * `witness`, `etcd`: one connection each;
//! * `manual`: no connection, a register of the node's own.

pub mod config;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(not(feature = "etcd"))]
#[path = "arbiter/etcd_absent.rs"]
mod etcd;
mod manual;
mod witness;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay_core::arbiter::{ArbiterAnswer, ArbiterReply, ArbiterRequest, Ask, Registers, Revision};
use relay_core::register;
use relay_wire::membership::Membership;
use relay_wire::witness::Answer;

use self::config::{ArbiterConfig, Kind};
use self::etcd::EtcdBackend;
pub(crate) use self::manual::OwnRegister;
use self::witness::WitnessBackend;

/// Requests that may wait; the machine has one under way at a time.
const REQUESTS_MAX: usize = 8;
/// How often an idle connection is tried.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MOST: Duration = Duration::from_millis(100);

/// Reasons of failed attempts are told no more often than this.
const TELL_PAUSE: Duration = Duration::from_secs(10);

/// How far something is that takes its time.
#[cfg_attr(not(feature = "etcd"), expect(dead_code))]
enum Progress {
    Done,
    /// Under way; to be asked about again.
    Pending,
    /// Why not.
    Failed(String),
}

/// A request without an answer.
struct Lost {
    /// Whether it may have been carried out, or may still be.
    was_sent: bool,
    why: String,
}

/// What can come of making the first record.
enum Created {
    Done(Revision),
    /// There is one; `None` when it can't be read.
    Exists(Option<Registers>),
    NoRoom,
}

/// Whatever keeps the record.
enum Backend {
    Witness(Box<WitnessBackend>),
    Etcd(Box<EtcdBackend>),
}

impl Backend {
    /// `None` where an operator is the arbiter: there is nothing to reach.
    fn new(config: &ArbiterConfig) -> io::Result<Option<Self>> {
        Ok(match &config.kind {
            Kind::Witness { address, secret } => {
                let witness = WitnessBackend::new(config, *address, secret.clone());
                Some(Self::Witness(Box::new(witness)))
            }
            Kind::Etcd(etcd) => Some(Self::Etcd(Box::new(EtcdBackend::new(config, etcd)?))),
            Kind::Manual { .. } => None,
        })
    }

    /// Whether a request can be sent right away.
    fn is_ready(&mut self) -> bool {
        match self {
            Self::Witness(witness) => witness.is_ready(),
            Self::Etcd(etcd) => etcd.is_ready(),
        }
    }

    /// Goes on with making a connection, at most until `until`.
    fn connect(&mut self, until: Instant) -> Progress {
        match self {
            Self::Witness(witness) => witness.connect(until),
            Self::Etcd(etcd) => etcd.connect(until),
        }
    }

    /// Goes on with trying the connection, at most until `until`.
    fn ping(&mut self, until: Instant) -> Progress {
        match self {
            Self::Witness(witness) => witness.ping(until),
            Self::Etcd(etcd) => etcd.ping(until),
        }
    }

    fn disconnect(&mut self) {
        match self {
            Self::Witness(witness) => witness.disconnect(),
            Self::Etcd(etcd) => etcd.disconnect(),
        }
    }

    fn ask(&mut self, ask: &Ask, deadline: Instant) -> Result<ArbiterAnswer, Lost> {
        match self {
            Self::Witness(witness) => witness.ask(ask, deadline),
            Self::Etcd(etcd) => etcd.ask(ask, deadline),
        }
    }

    fn create(&mut self, record: &Membership, deadline: Instant) -> Result<Created, Lost> {
        match self {
            Self::Witness(witness) => witness.create(record, deadline),
            Self::Etcd(etcd) => etcd.create(record, deadline),
        }
    }

    /// Longest time an attempt to connect or to ping may keep requests waiting.
    fn slice(&self, deadline: Duration) -> Duration {
        match self {
            Self::Witness(_) => deadline,
            Self::Etcd(_) => etcd::SLICE,
        }
    }
}

/// How the way to the arbiter is, for status and metrics.
#[derive(Debug, Default)]
struct Health {
    is_connected: AtomicBool,
    round_trip_us: AtomicU64,
    connections: AtomicU64,
    losses: AtomicU64,
    unavailable: AtomicU64,
    unknown: AtomicU64,
}

/// A snapshot of how the way to the arbiter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArbiterHealth {
    /// Whether there is a connection that held when it was last used or tried.
    pub is_connected: bool,
    /// Time of the last answer, microseconds; 0 before the first.
    pub round_trip_us: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections lost.
    pub losses: u64,
    /// Requests answered with [`ArbiterAnswer::Unavailable`].
    pub unavailable: u64,
    /// Requests answered with [`ArbiterAnswer::Unknown`].
    pub unknown: u64,
}

/// A connection and what is known about it.
struct Session {
    backend: Backend,
    health: Arc<Health>,
    deadline: Duration,
    is_up: bool,
    retry_at: Instant,
    pause: Duration,
    ping_at: Instant,
    is_pending: bool,
    failure: Option<String>,
    told_at: Option<Instant>,
}

impl Session {
    fn new(backend: Backend, deadline: Duration, health: Arc<Health>) -> Self {
        Self {
            backend,
            health,
            deadline,
            is_up: false,
            retry_at: Instant::now(),
            pause: PAUSE_FIRST,
            ping_at: Instant::now(),
            is_pending: false,
            failure: None,
            told_at: None,
        }
    }

    fn up(&mut self) {
        self.is_up = true;
        self.is_pending = false;
        self.pause = PAUSE_FIRST;
        self.failure = None;
        self.told_at = None;
        self.ping_at = Instant::now() + PING_INTERVAL;
        self.health.is_connected.store(true, Ordering::Release);
        self.health.connections.fetch_add(1, Ordering::Relaxed);
        tracing::info!("the arbiter is reached");
    }

    /// The connection, or the attempt to make one, failed: the next attempt comes after a pause.
    fn down(&mut self, why: String) {
        if self.is_up {
            self.health.losses.fetch_add(1, Ordering::Relaxed);
        }
        // Not with every attempt: a reason is told once, and several that take turns now and then.
        let is_new = self.failure.as_ref() != Some(&why)
            && self.told_at.is_none_or(|at| at.elapsed() >= TELL_PAUSE);
        if self.is_up || is_new {
            self.told_at = Some(Instant::now());
            tracing::warn!(why, "the arbiter is not reached");
        }
        self.backend.disconnect();
        self.is_up = false;
        self.is_pending = false;
        self.failure = Some(why);
        self.health.is_connected.store(false, Ordering::Release);
        self.retry_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
    }

    fn answered(&mut self, begun: Instant) {
        let us = begun.elapsed().as_micros() as u64;
        self.health
            .round_trip_us
            .store(us.max(1), Ordering::Relaxed);
        self.ping_at = Instant::now() + PING_INTERVAL;
    }

    fn is_ready(&mut self) -> bool {
        if self.is_up && !self.backend.is_ready() {
            // Lost while nobody looked: the first new attempt needs no pause.
            self.down("the connection was closed".to_owned());
            self.retry_at = Instant::now();
        }
        self.is_up
    }

    /// Makes a connection by `deadline`, if there is none.
    fn reach(&mut self, deadline: Instant) -> bool {
        while !self.is_ready() {
            let start = self.retry_at.min(deadline);
            std::thread::sleep(start.saturating_duration_since(Instant::now()));
            if Instant::now() >= deadline {
                return false;
            }
            match self.backend.connect(deadline) {
                Progress::Done => self.up(),
                Progress::Pending => self.is_pending = true,
                Progress::Failed(why) => self.down(why),
            }
        }
        true
    }

    fn carry_out(&mut self, ask: &Ask, deadline: Instant) -> ArbiterAnswer {
        while self.reach(deadline) {
            let begun = Instant::now();
            match self.backend.ask(ask, deadline) {
                Ok(answer) => {
                    self.answered(begun);
                    return answer;
                }
                Err(lost) => {
                    self.down(lost.why);
                    if lost.was_sent && *ask != Ask::Read {
                        return ArbiterAnswer::Unknown;
                    }
                }
            }
        }
        ArbiterAnswer::Unavailable
    }

    /// How long until [`Session::keep`] has something to do.
    fn idle(&self) -> Duration {
        let due = match (self.is_pending, self.is_up) {
            (true, _) => return Duration::ZERO,
            (false, true) => self.ping_at,
            (false, false) => self.retry_at,
        };
        due.saturating_duration_since(Instant::now())
    }

    /// Keeps a connection open ahead of need; to be called when [`Session::idle`] is over.
    fn keep(&mut self) {
        let until = Instant::now() + self.backend.slice(self.deadline);
        let was_up = self.is_ready();
        let progress = if was_up {
            self.backend.ping(until)
        } else {
            self.backend.connect(until)
        };
        self.is_pending = matches!(progress, Progress::Pending);
        match progress {
            Progress::Done if was_up => self.ping_at = Instant::now() + PING_INTERVAL,
            Progress::Done => self.up(),
            Progress::Pending => {}
            Progress::Failed(why) => self.down(why),
        }
    }
}

/// The queue to the thread is full: the machine asked more than one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The thread's other end; it stops when this is dropped.
pub struct ArbiterHandle {
    requests: Option<SyncSender<(ArbiterRequest, Instant)>>,
    replies: Receiver<ArbiterReply>,
    health: Arc<Health>,
    /// Where an operator is the arbiter.
    own: Option<Arc<OwnRegister>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for ArbiterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArbiterHandle")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Starts the thread; `wake` is called after each reply.
///
/// # Errors
/// When the thread, or the runtime that etcd's client needs, can't be had.
pub fn start(
    config: &ArbiterConfig,
    wake: impl Fn() + Send + 'static,
) -> io::Result<ArbiterHandle> {
    let health = Arc::new(Health::default());
    let own = match config.own_register() {
        Some(directory) => Some(Arc::new(OwnRegister::open(directory, config.stream)?)),
        None => None,
    };
    let source = match (Backend::new(config)?, &own) {
        (Some(backend), _) => {
            let session = Session::new(backend, config.deadline, Arc::clone(&health));
            Source::Session(Box::new(session))
        }
        (None, Some(own)) => {
            health.is_connected.store(true, Ordering::Release);
            Source::Own(Arc::clone(own))
        }
        (None, None) => unreachable!("every arbiter is reached or is here"),
    };
    let count = Arc::clone(&health);
    let (requests, asked) = mpsc::sync_channel(REQUESTS_MAX);
    // Room for the reply to every request that can be on its way, so that the thread never waits for the machine.
    let (replies, told) = mpsc::sync_channel(2 * REQUESTS_MAX);
    let thread = std::thread::Builder::new()
        .name(format!("arbiter-{}", config.stream))
        .spawn(move || run(source, &count, &asked, &replies, &wake))?;
    Ok(ArbiterHandle {
        requests: Some(requests),
        replies: told,
        health,
        own,
        thread: Some(thread),
    })
}

/// Where the record is.
enum Source {
    Session(Box<Session>),
    Own(Arc<OwnRegister>),
}

fn run(
    mut source: Source,
    health: &Health,
    requests: &Receiver<(ArbiterRequest, Instant)>,
    replies: &SyncSender<ArbiterReply>,
    wake: &dyn Fn(),
) {
    loop {
        let pause = match &source {
            Source::Session(session) => session.idle(),
            Source::Own(_) => PING_INTERVAL,
        };
        let (request, asked_at) = match requests.recv_timeout(pause) {
            Ok(asked) => asked,
            Err(RecvTimeoutError::Timeout) => {
                if let Source::Session(session) = &mut source {
                    session.keep();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let answer = match &mut source {
            Source::Session(session) => {
                session.carry_out(&request.ask, asked_at + session.deadline)
            }
            Source::Own(own) => own.ask(&request.ask),
        };
        match answer {
            ArbiterAnswer::Unavailable => health.unavailable.fetch_add(1, Ordering::Relaxed),
            ArbiterAnswer::Unknown => health.unknown.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let reply = ArbiterReply {
            id: request.id,
            answer,
        };
        if replies.send(reply).is_err() {
            return;
        }
        wake();
    }
}

impl ArbiterHandle {
    /// Hands a request over; its deadline runs from now on.
    ///
    /// # Errors
    /// [`Full`] when too many wait.
    ///
    /// # Panics
    /// When the thread is gone: it ends only with this handle, or in a panic of its own.
    pub fn ask(&self, request: ArbiterRequest) -> Result<(), Full> {
        let requests = self.requests.as_ref().expect("gone only while dropped");
        match requests.try_send((request, Instant::now())) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Full),
            Err(TrySendError::Disconnected(_)) => panic!("the arbiter's thread is gone"),
        }
    }

    /// The next reply, if there is one; never waits.
    pub fn poll(&self) -> Option<ArbiterReply> {
        self.replies.try_recv().ok()
    }

    /// The node's own register, where an operator is the arbiter.
    pub(crate) fn own_register(&self) -> Option<Arc<OwnRegister>> {
        self.own.clone()
    }

    /// How the way to the arbiter is.
    #[must_use]
    pub fn health(&self) -> ArbiterHealth {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ArbiterHealth {
            is_connected: self.health.is_connected.load(Ordering::Acquire),
            round_trip_us: count(&self.health.round_trip_us),
            connections: count(&self.health.connections),
            losses: count(&self.health.losses),
            unavailable: count(&self.health.unavailable),
            unknown: count(&self.health.unknown),
        }
    }
}

impl Drop for ArbiterHandle {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It sees the closed queue within one deadline. A panic of its was told by its own message.
            let _ = thread.join();
        }
    }
}

/// Why a group's first record was not made.
#[derive(Debug)]
pub enum InitError {
    /// There is one already.
    Exists(Box<Registers>),
    /// There is something already that is no record of this stream.
    Garbled,
    /// The witness keeps as many streams as it can.
    NoRoom,
    /// The arbiter was not reached; nothing was made.
    Unreachable(String),
    /// It may have been made or not.
    Unknown(String),
    /// The thread's means can't be had.
    Io(io::Error),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(registers) => write!(
                f,
                "the group has a record already: epoch {}, primary node {}, {} members; it is never \
                 made twice",
                registers.membership.epoch,
                registers.membership.primary,
                registers.membership.members.len()
            ),
            Self::Garbled => write!(
                f,
                "the arbiter holds something there that is no record of this stream: check the \
                 arbiter's address and prefix"
            ),
            Self::NoRoom => write!(
                f,
                "the witness keeps as many streams as it can; run another one for this group"
            ),
            Self::Unreachable(why) => write!(
                f,
                "the arbiter was not reached ({why}); nothing was made. Check its address and that it \
                 runs, then try again"
            ),
            Self::Unknown(why) => write!(
                f,
                "the arbiter did not answer in time ({why}); the record may be there or not. Try \
                 again: if it is there, that says so"
            ),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for InitError {}

/// Makes a group's first record through the configured arbiter and waits for it: what `init-group` does. A record that is
/// there already and equal to `membership`, nonce included, is this one: an attempt before was carried out unheard.
///
/// # Errors
/// [`InitError`] says what is there instead, or what to do.
pub fn init(
    config: &ArbiterConfig,
    membership: &Membership,
    patience: Duration,
) -> Result<Revision, InitError> {
    let Some(backend) = Backend::new(config).map_err(InitError::Io)? else {
        return init_own(config, membership);
    };
    let mut session = Session::new(backend, config.deadline, Arc::default());
    let deadline = Instant::now() + patience;
    let mut may_be_there = false;
    while session.reach(deadline) {
        match session.backend.create(membership, deadline) {
            Ok(Created::Done(revision)) => return Ok(revision),
            Ok(Created::Exists(Some(found))) if found.membership == *membership => {
                return Ok(found.revision);
            }
            Ok(Created::Exists(Some(found))) => return Err(InitError::Exists(Box::new(found))),
            Ok(Created::Exists(None)) => return Err(InitError::Garbled),
            Ok(Created::NoRoom) => return Err(InitError::NoRoom),
            Err(lost) => {
                may_be_there |= lost.was_sent;
                session.down(lost.why);
            }
        }
    }
    let why = session
        .failure
        .unwrap_or_else(|| "no connection in time".to_owned());
    Err(if may_be_there {
        InitError::Unknown(why)
    } else {
        InitError::Unreachable(why)
    })
}

/// The first record in the node's own register.
fn init_own(config: &ArbiterConfig, membership: &Membership) -> Result<Revision, InitError> {
    let directory = config.own_register().expect("nothing is to be reached");
    let register = OwnRegister::open(directory, config.stream).map_err(InitError::Io)?;
    let answer = register.create(membership);
    match answer.map_err(|error| InitError::Io(io::Error::other(error)))? {
        Answer::Done(revision) => Ok(Revision(revision)),
        Answer::Refused(Some(held)) => match register::registers(config.stream, &held) {
            Some(found) => Err(InitError::Exists(Box::new(found))),
            None => Err(InitError::Garbled),
        },
        _ => Err(InitError::Garbled),
    }
}
