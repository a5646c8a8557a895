//! One connection to one of the nodes: the socket, the way to a logon, cutting what arrives into items.
//!
//! ```text
//! Waiting -> Connecting -> Connected -> LogonSent -> Up
//!    ^____________|___________|____________|________|   lost: the next address, after a pause (addresses.rs)
//! ```
//!
//! Shared by publisher and subscriber, who own a [`Link`] and decide what the items mean. Every call but [`Link::wait`]
//! returns at once. The buffers outlive the connections; what was in them does not.
//!
//! Invariants: nothing but LOGON is written before the relay has proved that it knows the secret; an item is handed out
//! only as a whole; a session message is written only between records.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use relay_wire::PROTOCOL_VERSION;
use relay_wire::code::{Held, RejectCode, Role, TerminateCode};
use relay_wire::id::{Epoch, Incarnation, PublisherId, PublisherSeq, Seq, StreamId, TopicId};
use relay_wire::item::{self, Front, Limits, MESSAGE_LENGTH_MAX, PAYLOAD_LIMIT_MAX};
use relay_wire::message::{
    Ack, CREDENTIAL_NAME_LENGTH_MAX, Challenge, Heartbeat, Logon, LogonAck, Message, MessageError,
    Subscribed, Terminate, client_interval_ms,
};
use relay_wire::proof::Nonce;
use relay_wire::stride;
use socket2::{Domain, Protocol, Socket, Type};

use crate::addresses::Addresses;
use crate::config::Credential;
use crate::error::{ClientError, DisconnectReason};
use crate::patience::{LONGEST, Patience};
use crate::wait;

/// Bytes of the receive buffer, unless one record needs more. Also the longest session message.
const RECEIVE_BYTES: usize = 256 << 10;
const _: () = assert!(RECEIVE_BYTES >= MESSAGE_LENGTH_MAX as usize);
/// Room for session messages on their way out, unless a subscription needs more.
const CONTROL_BYTES: usize = 64 << 10;
/// A connection that held for so long starts the pauses between attempts anew.
const STEADY: Duration = Duration::from_millis(100);
/// A node with an epoch older than one seen does not know yet that another serves; one that says so for so long is believed,
/// so that what its journal lacks is found out.
const OLDER_EPOCH_LONGEST: Duration = Duration::from_secs(5);
/// How long an orderly end waits for the relay to close its side.
const LINGER: Duration = Duration::from_millis(100);

/// Who logs on.
pub(crate) struct Identity {
    pub(crate) role: Role,
    pub(crate) stream: StreamId,
    pub(crate) publisher: PublisherId,
    pub(crate) incarnation: Incarnation,
    pub(crate) credential: Credential,
}

/// Why a step did not succeed: the connection is lost, or the client is.
pub(crate) enum Failure {
    Connection(DisconnectReason),
    Client(ClientError),
}

impl From<DisconnectReason> for Failure {
    fn from(reason: DisconnectReason) -> Self {
        Self::Connection(reason)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// A session message of the relay's, on its own.
pub(crate) enum Inbound {
    Challenge(Challenge),
    LogonAck(LogonAck),
    Heartbeat(Heartbeat),
    Topic {
        request: u32,
        topic: TopicId,
        name: String,
    },
    Ack(Ack),
    Reject(Rejection),
    Subscribed(Subscribed),
}

/// A REJECT on its own.
pub(crate) struct Rejection {
    pub(crate) publisher_seq: PublisherSeq,
    pub(crate) next_expected: PublisherSeq,
    pub(crate) request: u32,
    pub(crate) code: RejectCode,
    pub(crate) text: String,
}

/// One item, taken out of the receive buffer.
pub(crate) enum Item {
    /// A record; its bytes stay where they are until the next [`Link::fill`].
    Record(Range<usize>),
    Message(Inbound),
}

enum State {
    Waiting {
        until: Instant,
    },
    Connecting {
        deadline: Instant,
    },
    Connected {
        deadline: Instant,
    },
    LogonSent {
        deadline: Instant,
        relay: Nonce,
        client: Nonce,
        /// How long the CHALLENGE took.
        challenged_after: Duration,
    },
    Up {
        since: Instant,
    },
}

/// See the module's head.
pub(crate) struct Link {
    identity: Identity,
    addresses: Addresses,
    patience: Patience,
    give_up_after: Option<Duration>,
    state: State,
    /// When the last connection with a logon ended.
    down_since: Instant,
    /// When the last one ended that had held for a while.
    trouble_since: Instant,
    attempt_at: Instant,
    last_failure: Option<DisconnectReason>,
    socket: Option<TcpStream>,
    /// Kept back until everything received was looked at: a TERMINATE that says why may be there.
    write_error: Option<DisconnectReason>,
    limits: Limits,
    heartbeat: Duration,
    /// The relay speaks every `heartbeat` from now on.
    is_flowing: bool,
    heard_at: Instant,
    sent_at: Instant,
    received: Box<[u8]>,
    start: usize,
    end: usize,
    control: Vec<u8>,
    control_written: usize,
}

impl Link {
    /// A link that will try `addresses` in turn. Resolves names, which may block.
    pub(crate) fn new(
        identity: Identity,
        addresses: &[String],
        mut patience: Patience,
        give_up_after: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let name_length = identity.credential.name.len();
        if name_length == 0 || name_length > CREDENTIAL_NAME_LENGTH_MAX {
            return Err(ClientError::Configuration(format!(
                "a credential's name has 1 to {CREDENTIAL_NAME_LENGTH_MAX} bytes, not {name_length}"
            )));
        }
        let addresses = Addresses::resolve(addresses)?;
        let now = Instant::now();
        patience.choose_among(addresses.count());
        Ok(Self {
            identity,
            patience,
            addresses,
            give_up_after: give_up_after.map(|after| after.min(LONGEST)),
            state: State::Waiting { until: now },
            down_since: now,
            trouble_since: now,
            attempt_at: now,
            last_failure: None,
            socket: None,
            write_error: None,
            limits: Limits::BEFORE_LOGON,
            heartbeat: Duration::from_secs(1),
            is_flowing: false,
            heard_at: now,
            sent_at: now,
            received: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            control: Vec::with_capacity(CONTROL_BYTES),
            control_written: 0,
        })
    }

    /// Whether logon is through.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Why the last connection ended or the last attempt failed.
    pub(crate) fn last_failure(&self) -> Option<&DisconnectReason> {
        self.last_failure.as_ref()
    }

    /// Goes on towards a logon; the relay's answer once it is through. `seen` is the newest epoch any relay told.
    ///
    /// # Errors
    /// What no further attempt mends. Failed attempts lead to the next one.
    pub(crate) fn log_on(
        &mut self,
        seen: Epoch,
        now: Instant,
    ) -> Result<Option<LogonAck>, ClientError> {
        match self.step(seen, now) {
            Ok(answer) => Ok(answer),
            Err(Failure::Client(error)) => Err(error),
            Err(Failure::Connection(reason)) => {
                self.lost(reason, now)?;
                Ok(None)
            }
        }
    }

    /// Everything is agreed: from now on the relay says something every heartbeat interval.
    pub(crate) fn flows(&mut self) {
        self.is_flowing = true;
    }

    /// The connection is of no use any more: lets go of it and plans the next.
    ///
    /// # Errors
    /// [`ClientError::GaveUp`] when the time for trying is over.
    pub(crate) fn lost(
        &mut self,
        reason: DisconnectReason,
        now: Instant,
    ) -> Result<(), ClientError> {
        self.let_go();
        if let State::Up { since } = self.state {
            // One that is lost again at once does not end the time for which nothing went on.
            if now.duration_since(since) >= STEADY {
                self.down_since = now;
                self.trouble_since = now;
                self.addresses.held();
            }
        }
        self.last_failure = Some(reason.clone());
        self.check_patience(reason, now)?;
        let mut random = [0; 8];
        let pause_random = match getrandom::fill(&mut random) {
            Ok(()) => u64::from_le_bytes(random),
            Err(_) => 0, // a pause without jitter does no harm
        };
        let trouble = now.duration_since(self.trouble_since);
        let pause = self.addresses.advance(trouble, pause_random);
        self.state = State::Waiting { until: now + pause };
        Ok(())
    }

    /// Closes without a word and forgets what was in the buffers.
    pub(crate) fn let_go(&mut self) {
        self.socket = None;
        self.write_error = None;
        self.limits = Limits::BEFORE_LOGON;
        self.is_flowing = false;
        (self.start, self.end) = (0, 0);
        self.control.clear();
        self.control_written = 0;
    }

    fn check_patience(&self, reason: DisconnectReason, now: Instant) -> Result<(), ClientError> {
        match self.give_up_after {
            Some(after) if now.duration_since(self.down_since) >= after => {
                Err(ClientError::GaveUp { after, reason })
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, seen: Epoch, now: Instant) -> Result<Option<LogonAck>, Failure> {
        match self.state {
            State::Waiting { until } if now < until => {
                if let Some(reason) = self.last_failure.clone() {
                    self.check_patience(reason, now)?;
                }
                Ok(None)
            }
            State::Waiting { .. } => {
                self.begin_connect(now)?;
                Ok(None)
            }
            State::Connecting { deadline } => {
                if self.is_connected()? {
                    self.state = State::Connected { deadline };
                    return self.step(seen, now);
                }
                in_time(deadline, now)?;
                Ok(None)
            }
            State::Connected { .. } | State::LogonSent { .. } => {
                self.write((&[], &[]), false, now);
                self.fill(now)?;
                while let Some(item) = self.next_item()? {
                    if let Some(answer) = self.on_logon_item(item, seen, now)? {
                        return Ok(Some(answer));
                    }
                }
                if let State::Connected { deadline } | State::LogonSent { deadline, .. } =
                    self.state
                {
                    in_time(deadline, now)?;
                }
                Ok(None)
            }
            State::Up { .. } => Ok(None),
        }
    }

    fn begin_connect(&mut self, now: Instant) -> Result<(), Failure> {
        let target = self.addresses.present();
        let connecting =
            |error: &io::Error| DisconnectReason::io(&format!("connecting to {target}"), error);
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            Ok(socket)
        })
        .map_err(|error| connecting(&error))?;
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error)
                if error.raw_os_error() == Some(libc::EINPROGRESS)
                    || error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(connecting(&error).into()),
        }
        self.socket = Some(socket.into());
        let down = now.duration_since(self.down_since);
        self.attempt_at = now;
        self.state = State::Connecting {
            deadline: self.deadline(self.patience.attempt(down)),
        };
        (self.heard_at, self.sent_at) = (now, now);
        Ok(())
    }

    /// When an attempt that gets so long has had it, or the time for trying is over.
    fn deadline(&self, attempt: Duration) -> Instant {
        let given_up = self.give_up_after.map(|after| self.down_since + after);
        let deadline = self.attempt_at + attempt;
        given_up.map_or(deadline, |end| end.max(self.attempt_at).min(deadline))
    }

    /// Whether the connection that was begun is there.
    fn is_connected(&self) -> Result<bool, DisconnectReason> {
        let target = self.addresses.present();
        let socket = self
            .socket
            .as_ref()
            .expect("a connecting link has a socket");
        let doing = || format!("connecting to {target}");
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(DisconnectReason::io(&doing(), &error)),
        }
        match socket.peer_addr() {
            // A connection attempt to a free port of this machine may by chance meet itself.
            Ok(peer) if socket.local_addr().is_ok_and(|local| local == peer) => {
                let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                Err(DisconnectReason::io(&doing(), &error))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(DisconnectReason::io(&doing(), &error)),
        }
    }

    fn on_logon_item(
        &mut self,
        item: Item,
        seen: Epoch,
        now: Instant,
    ) -> Result<Option<LogonAck>, Failure> {
        match (&self.state, item) {
            (State::Connected { .. }, Item::Message(Inbound::Challenge(challenge))) => {
                let client = self.send_logon(&challenge)?;
                let down = now.duration_since(self.down_since);
                let deadline = self.deadline(self.patience.answer(down));
                self.state = State::LogonSent {
                    deadline,
                    relay: challenge.nonce,
                    client,
                    challenged_after: now.duration_since(self.attempt_at),
                };
                self.write((&[], &[]), false, now);
                Ok(None)
            }
            (
                State::LogonSent {
                    relay,
                    client,
                    challenged_after,
                    ..
                },
                Item::Message(Inbound::LogonAck(answer)),
            ) => {
                let challenged_after = *challenged_after;
                if !answer.proof_holds(&self.identity.credential.secret, client, relay) {
                    let address = self.addresses.present().to_string();
                    self.let_go();
                    return Err(ClientError::RelayUnproven { address }.into());
                }
                let down = now.duration_since(self.down_since);
                let has_others = self.addresses.count() > 1;
                if answer.epoch < seen && has_others && down < OLDER_EPOCH_LONGEST {
                    return Err(DisconnectReason::NotPrimary.into());
                }
                self.accept(&answer)?;
                self.patience.learn(challenged_after);
                self.state = State::Up { since: now };
                Ok(Some(answer))
            }
            _ => Err(DisconnectReason::malformed("something else than a logon needs").into()),
        }
    }

    fn send_logon(&mut self, challenge: &Challenge) -> Result<Nonce, Failure> {
        let version = u16::from(PROTOCOL_VERSION);
        if version < challenge.version_lowest || version > challenge.version_highest {
            return Err(ClientError::Version {
                lowest: challenge.version_lowest,
                highest: challenge.version_highest,
            }
            .into());
        }
        let mut client = [0; 32];
        getrandom::fill(&mut client).map_err(|error| {
            ClientError::Configuration(format!("no random numbers from the system: {error}"))
        })?;
        let unsigned = Logon {
            role: self.identity.role,
            stream: self.identity.stream,
            publisher: self.identity.publisher,
            incarnation: self.identity.incarnation,
            nonce: client,
            proof: [0; 32],
            name: &self.identity.credential.name,
        };
        let logon = Message::Logon(
            unsigned
                .with_proof(&self.identity.credential.secret, &challenge.nonce)
                .expect("the name's length was checked at the start"),
        );
        queue(&mut self.control, &logon);
        Ok(client)
    }

    /// Takes over what a proved LOGON_ACK says about the connection.
    fn accept(&mut self, answer: &LogonAck) -> Result<(), DisconnectReason> {
        if answer.payload_limit > PAYLOAD_LIMIT_MAX || answer.heartbeat_ms == 0 {
            return Err(DisconnectReason::malformed(
                "payload limit or heartbeat interval out of range",
            ));
        }
        let wanted = self.identity.stream;
        if wanted.get() != 0 && wanted != answer.stream {
            return Err(DisconnectReason::Malformed(format!(
                "stream {wanted} was asked for, {} is served",
                answer.stream
            )));
        }
        self.heartbeat = Duration::from_millis(answer.heartbeat_ms.into());
        self.limits = match self.identity.role {
            Role::Subscriber => Limits::after_logon(answer.payload_limit),
            Role::Publisher => Limits {
                record_length_max: 0,
                ..Limits::after_logon(0)
            },
        };
        Ok(())
    }

    /// One read into the receive buffer; bytes read. Takes room from items handed out before.
    ///
    /// # Errors
    /// The connection is lost, or silent for too long.
    pub(crate) fn fill(&mut self, now: Instant) -> Result<usize, DisconnectReason> {
        if self.start > 0 {
            self.received.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.received.len() {
            // A part of one item, which is not longer than the limits allow.
            let mut larger = vec![0; 2 * self.end].into_boxed_slice();
            larger[..self.end].copy_from_slice(&self.received);
            self.received = larger;
        }
        let room = &mut self.received[self.end..];
        let Some(socket) = self.socket.as_mut() else {
            return Err(DisconnectReason::Closed);
        };
        match socket.read(room) {
            Ok(0) => Err(self.write_error.take().unwrap_or(DisconnectReason::Closed)),
            Ok(count) => {
                self.end += count;
                self.heard_at = now;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(reason) = self.write_error.take() {
                    return Err(reason);
                }
                let silence = now.duration_since(self.heard_at);
                if self.is_up() && silence > self.silence_most() {
                    return Err(DisconnectReason::Silent);
                }
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(DisconnectReason::io("reading", &error)),
        }
    }

    /// The next whole item received, if there is one.
    ///
    /// # Errors
    /// What is there is no item, or a TERMINATE.
    pub(crate) fn next_item(&mut self) -> Result<Option<Item>, Failure> {
        let unread = &self.received[self.start..self.end];
        let front = item::front(unread, self.limits).map_err(DisconnectReason::malformed)?;
        match front {
            Front::Partial { .. } => Ok(None),
            Front::Record { length } => {
                let at = self.start;
                self.start += stride(length);
                Ok(Some(Item::Record(at..at + length)))
            }
            Front::Message { length } => {
                let message =
                    Message::decode(&unread[..length]).map_err(DisconnectReason::malformed)?;
                let inbound = inbound(message)?;
                self.start += stride(length);
                Ok(Some(Item::Message(inbound)))
            }
        }
    }

    /// The bytes of an item handed out.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.received[range]
    }

    /// Queues a session message.
    pub(crate) fn queue(&mut self, message: &Message<'_>) {
        queue(&mut self.control, message);
    }

    /// Bytes of session messages not written yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.control.len() - self.control_written
    }

    /// Queues the rest of a record ahead of all else, since the record will not be written on from where it lies.
    pub(crate) fn queue_rest_of_record(&mut self, rest: &[u8]) {
        let at = self.control_written;
        self.control.splice(at..at, rest.iter().copied());
    }

    fn silence_most(&self) -> Duration {
        self.patience.silence(self.heartbeat, self.is_flowing)
    }

    /// How often the relay wants to hear something.
    fn speak_every(&self) -> Duration {
        let told_ms = u32::try_from(self.heartbeat.as_millis()).unwrap_or(u32::MAX);
        Duration::from_millis(client_interval_ms(told_ms).into())
    }

    /// Queues a heartbeat if nothing was sent for an interval.
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        let is_due = now.duration_since(self.sent_at) >= self.speak_every();
        if is_due && self.is_up() && self.queued_bytes() == 0 {
            self.queue(&Message::Heartbeat(Heartbeat {
                next_seq: Seq(0),
                epoch: Epoch(0),
                checksum: 0,
                held: Held::No,
            }));
        }
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Writes what is queued and `records`, in one system call; returns how much of the records went out.
    ///
    /// `within_record`: the first of the records was begun before, so session messages come behind them.
    pub(crate) fn write(
        &mut self,
        records: (&[u8], &[u8]),
        within_record: bool,
        now: Instant,
    ) -> usize {
        let control = &self.control[self.control_written..];
        let nothing = control.is_empty() && records.0.is_empty();
        let Some(socket) = self.socket.as_mut() else {
            return 0;
        };
        if nothing || self.write_error.is_some() {
            return 0;
        }
        let result = if control.is_empty() && records.1.is_empty() {
            socket.write(records.0)
        } else if within_record {
            let pieces = [records.0, records.1, control].map(IoSlice::new);
            socket.write_vectored(&pieces)
        } else {
            let pieces = [control, records.0, records.1].map(IoSlice::new);
            socket.write_vectored(&pieces)
        };
        let written = match result {
            Ok(written) => written,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return 0;
            }
            Err(error) => {
                self.write_error = Some(DisconnectReason::io("writing", &error));
                return 0;
            }
        };
        self.sent_at = now;
        let records_length = records.0.len() + records.1.len();
        let of_records = if within_record {
            written.min(records_length)
        } else {
            written - written.min(control.len())
        };
        self.control_written += written - of_records;
        if self.control_written == self.control.len() {
            self.control.clear();
            self.control_written = 0;
        }
        of_records
    }

    /// Tells the relay why this connection will be closed, as far as that goes out at once.
    pub(crate) fn say(&mut self, code: TerminateCode, text: &str) {
        if self.is_up() {
            self.queue(&Message::Terminate(Terminate {
                code,
                detail: 0,
                text,
            }));
            self.write((&[], &[]), false, Instant::now());
        }
    }

    /// Logs out and closes. Blocks a moment for the relay to take note: a close with bytes unread would reset the
    /// connection and might take the farewell with it.
    pub(crate) fn log_out(mut self) {
        self.say(TerminateCode::Logout, "");
        let Some(socket) = self.socket.as_mut() else {
            return;
        };
        if socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let until = Instant::now() + LINGER;
        loop {
            match socket.read(&mut self.received) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    wait::wait(Some(socket.as_fd()), false, left);
                }
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                _ => {}
            }
        }
    }

    /// Blocks until there may be something to do, at most for `limit`. `has_records`: some wait for room to be written.
    pub(crate) fn wait(&self, has_records: bool, limit: Duration) {
        let now = Instant::now();
        let (until, for_room) = match self.state {
            State::Waiting { until } => (until, false),
            State::Connecting { deadline } => (deadline, true),
            State::Connected { deadline } | State::LogonSent { deadline, .. } => {
                (deadline, self.queued_bytes() > 0)
            }
            State::Up { .. } => {
                let silent_at = self.heard_at + self.silence_most();
                let has_queued = self.queued_bytes() > 0;
                let heartbeat_at = self.sent_at + self.speak_every();
                let due = if has_queued {
                    silent_at
                } else {
                    heartbeat_at.min(silent_at)
                };
                (due, has_records || has_queued)
            }
        };
        let timeout = until.saturating_duration_since(now).min(limit);
        if timeout.is_zero() || self.write_error.is_some() {
            return;
        }
        wait::wait(self.socket(), for_room, timeout);
    }
}

fn in_time(deadline: Instant, now: Instant) -> Result<(), DisconnectReason> {
    if now < deadline {
        Ok(())
    } else {
        Err(DisconnectReason::ConnectTimeout)
    }
}

fn queue(control: &mut Vec<u8>, message: &Message<'_>) {
    let at = control.len();
    let mut room = 512;
    loop {
        control.resize(at + room, 0);
        match message.encode(&mut control[at..]) {
            Ok(taken) => {
                control.truncate(at + taken);
                return;
            }
            Err(MessageError::NoRoom(needed)) => room = needed,
            Err(error) => panic!("the parts of a message are checked before: {error}"),
        }
    }
}

/// Takes a message over; a TERMINATE is a failure.
fn inbound(message: Message<'_>) -> Result<Inbound, Failure> {
    Ok(match message {
        Message::Challenge(m) => Inbound::Challenge(m),
        Message::LogonAck(m) => Inbound::LogonAck(m),
        Message::Heartbeat(m) => Inbound::Heartbeat(m),
        Message::Ack(m) => Inbound::Ack(m),
        Message::Subscribed(m) => Inbound::Subscribed(m),
        Message::Topic(m) => Inbound::Topic {
            request: m.request,
            topic: m.topic,
            name: m.name.to_owned(),
        },
        Message::Reject(m) => Inbound::Reject(Rejection {
            publisher_seq: m.publisher_seq,
            next_expected: m.next_expected,
            request: m.request,
            code: m.code,
            text: m.text.to_owned(),
        }),
        Message::Terminate(m) if m.code.is_worth_a_reconnect() => {
            return Err(DisconnectReason::Terminated {
                code: m.code,
                text: m.text.to_owned(),
            }
            .into());
        }
        Message::Terminate(m) => {
            return Err(ClientError::Terminated {
                code: m.code,
                detail: m.detail,
                text: m.text.to_owned(),
            }
            .into());
        }
        Message::Logon(_) | Message::TopicRequest(_) | Message::Subscribe(_) => {
            return Err(DisconnectReason::malformed("a relay does not send that").into());
        }
    })
}
