//! From a configuration to running threads: the one place that sees both.
//!
//! A thread of its own looks after each stream: it waits for the end of a life ([`life`]), and begins the next one where a node
//! of a group has to begin again from its disk.

mod journal;
mod life;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay_core::credential::CredentialBook;
use relay_core::group::{Carry, RestartReason};
use relay_wire::id::{Epoch, Position};

use self::journal::Cut;
use self::life::{Again, Ground, Life};
use crate::admin::Admin;
use crate::arena::LogRing;
use crate::clock::Clock;
use crate::config::StreamConfig;
use crate::counters::CounterFile;
use crate::pipeline::Ending;
use crate::schedule;
use crate::stage::End;

/// An error for the operator; the text says what to do.
pub(crate) type StartError = Box<dyn std::error::Error + Send + Sync>;

/// A stream that runs.
pub(crate) struct RunningStream {
    pub(crate) id: u32,
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    attendant: JoinHandle<Result<(), StartError>>,
    stop: Arc<Stop>,
}

/// The wish to stop, and the life it is about.
#[derive(Default)]
struct Stop {
    state: Mutex<(bool, Option<Arc<Ending>>)>,
}

impl Stop {
    fn ask(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(ending) = &state.1 {
            ending.ask();
        }
    }

    /// Another life goes on from here.
    fn watch(&self, ending: &Arc<Ending>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = Some(Arc::clone(ending));
        if state.0 {
            ending.ask();
        }
    }

    fn is_asked(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0
    }
}

/// How long a port may still be held by a process that was killed: the kernel ends the operations of its ring, and with
/// them its sockets, only after the process itself is gone.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const PORT_PAUSE: Duration = Duration::from_millis(5);

/// Listens on `address`; `key` is what the configuration calls it.
fn listen(address: SocketAddr, key: &str) -> Result<(OwnedFd, SocketAddr), StartError> {
    let bind = || -> std::io::Result<(OwnedFd, SocketAddr)> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket.into(), bound))
    };
    let begun = Instant::now();
    loop {
        let error = match bind() {
            Ok(bound) => return Ok(bound),
            Err(error) => error,
        };
        let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
        if is_taken && begun.elapsed() < PORT_PATIENCE {
            std::thread::sleep(PORT_PAUSE);
            continue;
        }
        let hint = if is_taken {
            "another process has it; stop that, or change it"
        } else {
            "correct it"
        };
        return Err(format!(
            "listening on {address} failed ({error}): {hint} (`{key}` in the configuration)"
        )
        .into());
    }
}

/// Starts a stream; it accepts when this returns.
pub(crate) fn start(config: StreamConfig) -> Result<RunningStream, StartError> {
    let settings = &config.settings;
    let (id, directory) = (settings.stream.get(), config.directory.clone());
    let storage = journal::open(&config)?;
    let (listener, address) = listen(config.listen, "listen")?;
    let mirror_listener = match &config.group {
        None => None,
        Some(group) => Some(listen(group.mirror_listen, "mirror_listen")?.0),
    };
    let clock = Clock::new();
    let started_ns = clock.now().utc_ns;
    let node = settings.node.get();
    let counters = CounterFile::create(&directory, node, id, started_ns).map_err(|error| {
        let directory = directory.display();
        format!("{directory}: the counters file can't be made ({error}); is the disk full?")
    })?;
    let admin = Admin::start(&directory, settings.node, id)?;
    if let Some(schedule) = config.schedule.clone() {
        let admin = admin.clone();
        std::thread::Builder::new()
            .name(format!("schedule-{id}"))
            .spawn(move || schedule::run(&schedule, &admin))?;
    }
    let mut ground = Ground {
        admin,
        listener: Some(listener),
        address,
        mirror_listener,
        credentials: Arc::new(CredentialBook::new(config.credentials.clone())),
        ring: Arc::new(LogRing::new(settings.ring_size as usize)?),
        clock,
        counters,
        config,
    };
    let first = Life::begin(&mut ground, storage, None)?;
    let stop = Arc::new(Stop::default());
    let watched = Arc::clone(&stop);
    let attendant = std::thread::Builder::new()
        .name(format!("stream-{id}"))
        .spawn(move || attend(ground, first, &watched))?;
    Ok(RunningStream {
        id,
        address,
        directory,
        attendant,
        stop,
    })
}

/// Waits for the end of each life, and begins the next one where there is to be one.
fn attend(mut ground: Ground, first: Life, stop: &Stop) -> Result<(), StartError> {
    let mut life = first;
    loop {
        stop.watch(&life.ending);
        let (end, mut storage) = life.finish()?;
        let directory = ground.config.directory.display();
        match end {
            Some(End::Stopped(clean)) => {
                if let Some(clean) = clean {
                    storage.update(|next| next.clean = Some(clean))?;
                }
                let stream = ground.config.settings.stream.get();
                tracing::info!(stream, is_clean = clean.is_some(), "stopped");
                return Ok(());
            }
            Some(End::Restart { .. }) if stop.is_asked() => return Ok(()),
            Some(End::Restart {
                reason,
                carry,
                log_end,
            }) => {
                let again = begin_again(&reason, carry, log_end);
                // A client that comes now is refused at once and tries another node; in the queue of a socket that is kept
                // open it would wait until this one is back.
                drop(ground.listener.take());
                life = Life::begin(&mut ground, storage, Some(again))?;
            }
            Some(End::Halt(reason)) => {
                return Err(format!("{directory}: the node halted: {reason}").into());
            }
            Some(End::Fault(what)) => {
                return Err(format!(
                    "{directory}: {what}. Nothing was acknowledged that is not on disk. This disk is \
                     not used any more by this process: look at the kernel's log, replace the disk \
                     or restore the journal, then start again"
                )
                .into());
            }
            None => return Err(format!("{directory}: the stream ended without saying how").into()),
        }
    }
}

/// Says why the node begins again, and what for.
fn begin_again(reason: &RestartReason, carry: Carry, log_end: Position) -> Again {
    let joined = carry.joined.map_or(Epoch(0), |joined| joined.epoch);
    let cut = match *reason {
        RestartReason::Superseded(epoch) => {
            tracing::warn!(
                %epoch,
                "another node leads a later epoch: this one begins again from its disk and follows. \
                 What it had not released yet is sent again by its publishers"
            );
            None
        }
        RestartReason::Cut(position) => Some(Cut {
            position,
            log_end,
            epoch: joined,
        }),
        RestartReason::Rejoin => {
            tracing::info!("this node begins again from what is durable here");
            None
        }
    };
    Again { carry, cut }
}

impl RunningStream {
    /// Asks for a clean stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.ask();
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.attendant.is_finished()
    }

    /// Where its journal lies.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until it has stopped.
    pub(crate) fn finish(self) -> Result<(), StartError> {
        let ended = self.attendant.join();
        ended.map_err(|_| "the stream's own thread ended in a panic; see the log")?
    }
}
