//! The witness's connections: logon, limits, one thread each.
//!
//! Clients are few, the nodes and now and then a tool, and each asks one thing at a time, so a blocking thread a connection is the
//! least there is to get wrong. A stranger costs a thread with a small stack and a frame's buffer until the logon
//! timeout, and there are never more strangers than the limit: the oldest gives way.
//!
//! Invariants: nothing is decided for a connection whose logon did not prove the secret; decisions are taken one at a time,
//! under one lock that is held until the change is durable; once a write failed nobody is told anything any more.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use relay_wire::code::WitnessCode;
use relay_wire::id::{NodeId, StreamId};
use relay_wire::proof::Nonce;
use relay_wire::witness::{
    Answer, Challenge, FRAME_LENGTH_MAX, Frame, LOGON_LENGTH_MAX, Message, Request, Status,
    Welcome, WitnessError, front,
};

use crate::clock::Clock;
use crate::startup::StartError;
use crate::witness::config::WitnessConfig;
use crate::witness::store::{Store, StoreError};

/// A connection's thread does little.
const STACK_BYTES: usize = 256 << 10;
/// Pause after an accept that failed, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the main thread looks whether to stop.
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// How long one that is told to leave may take, before the newcomer is turned away instead.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
/// A connection's peer has this long to read the farewell.
const LINGER: Duration = Duration::from_millis(500);
/// Strangers are complained about no more often than this.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// What stands behind the lock.
enum State {
    Open(Box<Store>),
    Stopping,
    Failed,
}

/// A connection, as others see it.
struct Guest {
    socket: TcpStream,
    is_logged_on: bool,
    is_leaving: bool,
}

#[derive(Default)]
struct Roster {
    /// By the number of their arrival.
    guests: BTreeMap<u64, Guest>,
    arrivals: u64,
}

/// What all threads share.
struct Shared {
    config: WitnessConfig,
    state: Mutex<State>,
    fault: SyncSender<StoreError>,
    roster: Mutex<Roster>,
    left: Condvar,
    complained: Mutex<Option<Instant>>,
    started_ns: u64,
}

/// Why a connection ends.
enum End {
    /// The peer went, or the network did.
    Lost,
    /// It is told why.
    Said(WitnessCode),
    /// Nothing may be said: the outcome is unknown.
    Silence,
}

impl From<WitnessError> for End {
    fn from(error: WitnessError) -> Self {
        Self::Said(error.code())
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Lost
    }
}

/// Serves until `stop`, or until the disk fails.
pub(crate) fn run(config: &WitnessConfig, stop: &AtomicBool) -> Result<(), StartError> {
    let mut skip = [0; 4];
    getrandom::fill(&mut skip)?;
    let store = Store::open(&config.directory, u32::from_le_bytes(skip) >> 2)?;
    let listener = listen(config.listen)?;
    let address = listener.local_addr()?;
    let (fault, faults) = mpsc::sync_channel(1);
    tracing::info!(
        %address,
        directory = %config.directory.display(),
        streams = store.streams(),
        "the witness serves"
    );
    let shared = Arc::new(Shared {
        config: config.clone(),
        state: Mutex::new(State::Open(Box::new(store))),
        fault,
        roster: Mutex::default(),
        left: Condvar::new(),
        complained: Mutex::new(None),
        started_ns: Clock::new().now().utc_ns,
    });
    {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("witness-accept".to_owned())
            .spawn(move || accept(&shared, &listener))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready witness listen={address}")?;
    out.flush()?;
    drop(out);
    loop {
        if stop.load(Ordering::Acquire) {
            // What is under way is finished first; after that nothing is decided any more.
            *lock(&shared.state) = State::Stopping;
            tracing::info!("the witness stopped cleanly");
            return Ok(());
        }
        match faults.recv_timeout(STOP_PAUSE) {
            Ok(error) => {
                return Err(format!(
                    "{error}. Nothing was answered that is not on disk. The witness stops for good: \
                     look at the kernel's log, replace the disk or make room, then start it again; \
                     meanwhile the nodes serve on, and only membership cannot change"
                )
                .into());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the sender is shared state"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with the lock")
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|error| {
        let hint = if error.kind() == ErrorKind::AddrInUse {
            "another process has it; stop that, or change `listen` in the configuration"
        } else {
            "correct `listen` in the configuration"
        };
        format!("listening on {address} failed ({error}): {hint}").into()
    })
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let (socket, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                complain(
                    shared,
                    || tracing::warn!(%error, "a connection could not be accepted"),
                );
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Some(number) = admit(shared, &socket) else {
            complain(
                shared,
                || tracing::warn!(%address, "no place for another connection"),
            );
            let _ = socket.set_nonblocking(true);
            let _ = say(&socket, &Frame::of(Message::Terminate(WitnessCode::Full)));
            continue;
        };
        let guest = Arc::clone(shared);
        let spawned = std::thread::Builder::new()
            .name(format!("witness-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                serve(&guest, number, &socket, address);
                leave(&guest, number);
            });
        if let Err(error) = spawned {
            complain(
                shared,
                || tracing::warn!(%error, "a thread could not be started"),
            );
            leave(shared, number);
        }
    }
}

fn complain(shared: &Shared, about: impl FnOnce()) {
    let mut complained = lock(&shared.complained);
    if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
        *complained = Some(Instant::now());
        about();
    }
}

/// Finds a place for a new connection, at the cost of the oldest one that has not logged on. Its number.
fn admit(shared: &Shared, socket: &TcpStream) -> Option<u64> {
    let begun = Instant::now();
    let mut roster = lock(&shared.roster);
    loop {
        let strangers = roster.guests.values().filter(|g| !g.is_logged_on).count();
        let is_room = roster.guests.len() < shared.config.connections
            && strangers < shared.config.unauthenticated;
        if is_room {
            break;
        }
        let is_any_leaving = roster.guests.values().any(|guest| guest.is_leaving);
        if !is_any_leaving {
            let oldest = roster
                .guests
                .values_mut()
                .find(|guest| !guest.is_logged_on)?;
            oldest.is_leaving = true;
            // Its thread waits for bytes, and finds the end.
            let _ = oldest.socket.shutdown(Shutdown::Both);
        }
        let patience = LEAVE_PATIENCE.checked_sub(begun.elapsed())?;
        let waited = shared.left.wait_timeout(roster, patience);
        roster = waited.expect("no thread panics with the lock").0;
    }
    let guest = Guest {
        socket: socket.try_clone().ok()?,
        is_logged_on: false,
        is_leaving: false,
    };
    roster.arrivals += 1;
    let number = roster.arrivals;
    roster.guests.insert(number, guest);
    Some(number)
}

fn leave(shared: &Shared, number: u64) {
    lock(&shared.roster).guests.remove(&number);
    shared.left.notify_all();
}

fn serve(shared: &Shared, number: u64, socket: &TcpStream, address: SocketAddr) {
    let mut inbox = Inbox::new(socket);
    let end = match log_on(shared, number, &mut inbox) {
        Ok(node) => {
            tracing::info!(%node, %address, "logged on");
            let end = answer_all(shared, &mut inbox);
            tracing::info!(%node, %address, "gone");
            end
        }
        Err(end) => {
            if matches!(end, End::Said(WitnessCode::Authentication)) {
                complain(shared, || {
                    tracing::warn!(%address, "a logon with another secret than the group's");
                });
            }
            end
        }
    };
    if let End::Said(code) = end
        && say(socket, &Frame::of(Message::Terminate(code))).is_ok()
    {
        // Closing with bytes unread would destroy the farewell on its way.
        let _ = socket.shutdown(Shutdown::Write);
        inbox.drain(Instant::now() + LINGER);
    }
}

fn prepare(shared: &Shared, socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(shared.config.logon_timeout))?;
    let socket = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1))
        .with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(shared.config.idle_timeout))
}

/// Challenge, logon, welcome. Which node it is.
fn log_on(shared: &Shared, number: u64, inbox: &mut Inbox<'_>) -> Result<NodeId, End> {
    prepare(shared, inbox.socket)?;
    let deadline = Instant::now() + shared.config.logon_timeout;
    let mut nonce: Nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| End::Silence)?;
    let challenge = Message::Challenge(Challenge::new(nonce));
    say(inbox.socket, &Frame::of(challenge))?;
    let frame = inbox.next(
        LOGON_LENGTH_MAX,
        deadline,
        Duration::MAX,
        WitnessCode::TooSlow,
    )?;
    let Message::Logon(logon) = frame.message else {
        return Err(End::Said(WitnessCode::Protocol));
    };
    if !logon.proof_holds(&shared.config.secret, &nonce) {
        return Err(End::Said(WitnessCode::Authentication));
    }
    // Before it is told: who was welcomed does not give way any more.
    if let Some(guest) = lock(&shared.roster).guests.get_mut(&number) {
        guest.is_logged_on = true;
    }
    let welcome = Welcome::new(&shared.config.secret, &logon.nonce, &nonce);
    say(inbox.socket, &Frame::of(Message::Welcome(welcome)))?;
    Ok(logon.node)
}

fn answer_all(shared: &Shared, inbox: &mut Inbox<'_>) -> End {
    loop {
        if let Err(end) = answer_one(shared, inbox) {
            return end;
        }
    }
}

fn answer_one(shared: &Shared, inbox: &mut Inbox<'_>) -> Result<(), End> {
    let idle = Instant::now() + shared.config.idle_timeout;
    let whole_within = shared.config.logon_timeout;
    let frame = inbox.next(FRAME_LENGTH_MAX, idle, whole_within, WitnessCode::Silent)?;
    let Message::Request(request) = frame.message else {
        return Err(End::Said(WitnessCode::Protocol));
    };
    let answer = decide(shared, frame.stream, &request)?;
    let message = Message::Answer(answer);
    say(inbox.socket, &Frame { message, ..frame })?;
    Ok(())
}

fn decide(shared: &Shared, stream: StreamId, request: &Request) -> Result<Answer, End> {
    let mut state = lock(&shared.state);
    let store = match &mut *state {
        State::Open(store) => store,
        State::Stopping => return Err(End::Said(WitnessCode::Stopping)),
        State::Failed => return Err(End::Said(WitnessCode::StorageFault)),
    };
    if *request == Request::Status {
        let (streams, changes) = (store.streams() as u32, store.changes());
        drop(state);
        let roster = lock(&shared.roster);
        let connections = roster.guests.values().filter(|g| g.is_logged_on).count();
        return Ok(Answer::Status(Status {
            started_ns: shared.started_ns,
            changes,
            streams,
            connections: connections as u32,
        }));
    }
    match store.decide(stream, request) {
        Ok(answer) => {
            drop(state);
            if let (Answer::Done(revision), Request::Swap { .. } | Request::Create { .. }) =
                (&answer, request)
            {
                tracing::info!(%stream, revision, "the membership record changed");
            }
            Ok(answer)
        }
        Err(error) => {
            *state = State::Failed;
            // One place is enough: only the first failure finds the store open.
            let _ = shared.fault.try_send(error);
            Err(End::Silence)
        }
    }
}

fn say(mut socket: &TcpStream, frame: &Frame) -> std::io::Result<()> {
    let mut bytes = [0; FRAME_LENGTH_MAX];
    let length = frame.encode(&mut bytes);
    socket.write_all(&bytes[..length])
}

/// What has come on a connection and is not used up.
struct Inbox<'a> {
    socket: &'a TcpStream,
    bytes: [u8; FRAME_LENGTH_MAX],
    filled: usize,
}

impl<'a> Inbox<'a> {
    const fn new(socket: &'a TcpStream) -> Self {
        Self {
            socket,
            bytes: [0; FRAME_LENGTH_MAX],
            filled: 0,
        }
    }

    /// The next frame of at most `limit` bytes: its first byte by `first_by`, or the connection ends for the reason
    /// `if_silent`; all of it within `whole_within` from there.
    fn next(
        &mut self,
        limit: usize,
        first_by: Instant,
        whole_within: Duration,
        if_silent: WitnessCode,
    ) -> Result<Frame, End> {
        let mut deadline = first_by;
        let mut has_begun = false;
        loop {
            if let Some(length) = front(&self.bytes[..self.filled], limit)?
                && length <= self.filled
            {
                let frame = Frame::decode(&self.bytes[..length])?;
                self.bytes.copy_within(length..self.filled, 0);
                self.filled -= length;
                return Ok(frame);
            }
            if self.filled > 0 && !has_begun {
                has_begun = true;
                if let Some(whole_by) = Instant::now().checked_add(whole_within) {
                    deadline = whole_by;
                }
            }
            let code = if has_begun {
                WitnessCode::TooSlow
            } else {
                if_silent
            };
            self.filled += self.receive(deadline)?.ok_or(End::Said(code))?;
        }
    }

    /// Bytes that came by `deadline`; `None` when none did.
    fn receive(&mut self, deadline: Instant) -> Result<Option<usize>, End> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut socket = self.socket;
            match socket.read(&mut self.bytes[self.filled..]) {
                Ok(0) => return Err(End::Lost),
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(_) => return Err(End::Lost),
            }
        }
    }

    /// Throws away what still comes, until the peer closes or `deadline`.
    fn drain(&mut self, deadline: Instant) {
        self.filled = 0;
        while let Ok(Some(_)) = self.receive(deadline) {}
    }
}
