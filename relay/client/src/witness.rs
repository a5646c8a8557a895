//! A blocking client of a witness: one connection, one request at a time.
//!
//! `relayd`'s arbiter thread and the tools share it. It makes no second attempt and no second connection: whoever uses it
//! decides, since only they know what an unknown outcome means to them. After any failure the connection is given up, so that an
//! answer that comes too late is never taken for that of a later request.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use relay_client::witness::WitnessClient;
//! use relay_client::wire::{id::{NodeId, StreamId}, witness::Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let deadline = Instant::now() + Duration::from_secs(1);
//! let address = "10.0.0.3:7500".parse()?;
//! let mut witness = WitnessClient::connect(address, b"the group's secret", NodeId(0), deadline)?;
//! let answer = witness.ask(StreamId(1), &Request::Read, deadline)?;
//! # Ok(()) }
//! ```

use core::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use relay_wire::code::WitnessCode;
use relay_wire::id::{NodeId, StreamId};
use relay_wire::proof::Nonce;
use relay_wire::witness::{
    Answer, FRAME_LENGTH_MAX, Frame, Logon, Message, Request, WITNESS_VERSION, WitnessError, front,
};

/// An idle connection whose peer's machine is gone is noticed by the kernel within about ten seconds.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// Why a witness could not be reached or did not answer.
#[derive(Debug)]
pub enum WitnessFailure {
    /// The connection could not be made or broke.
    Connection(io::Error),
    /// The witness closed it.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// It could not prove that it knows the secret.
    Unproven,
    /// It speaks other versions of the frames.
    Version {
        /// Its lowest.
        lowest: u16,
        /// Its highest.
        highest: u16,
    },
    /// It ended the connection.
    Terminated(WitnessCode),
    /// What came is no frame.
    Frame(WitnessError),
    /// A frame that was not due.
    OutOfTurn,
}

impl fmt::Display for WitnessFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "no connection: {error}"),
            Self::Closed => write!(f, "the witness closed the connection"),
            Self::TimedOut => write!(f, "no answer in time"),
            Self::Unproven => write!(
                f,
                "whoever answers there does not know the group's secret; check the address, and the \
                 secret on both sides"
            ),
            Self::Version { lowest, highest } => write!(
                f,
                "the witness speaks versions {lowest} to {highest}, this client {WITNESS_VERSION}; \
                 update the older of the two"
            ),
            Self::Terminated(WitnessCode::Authentication) => write!(
                f,
                "the witness has another secret; give both the group's (secret_file)"
            ),
            Self::Terminated(WitnessCode::StorageFault) => {
                write!(f, "the witness's disk failed; see its log")
            }
            Self::Terminated(code) => write!(f, "the witness ended the connection: {code:?}"),
            Self::Frame(error) => write!(f, "what came from there is no witness's: {error}"),
            Self::OutOfTurn => write!(f, "the witness sent a frame that was not due"),
        }
    }
}

impl std::error::Error for WitnessFailure {}

impl From<WitnessError> for WitnessFailure {
    fn from(error: WitnessError) -> Self {
        Self::Frame(error)
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// Whether all of the request left: then it may have been carried out, and may still be. Otherwise it surely never
    /// will be.
    pub was_sent: bool,
    /// What went wrong.
    pub reason: WitnessFailure,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.was_sent {
            "the outcome is unknown"
        } else {
            "nothing was asked"
        };
        write!(f, "{} ({what})", self.reason)
    }
}

impl std::error::Error for NoAnswer {}

/// See the module's description.
#[derive(Debug)]
pub struct WitnessClient {
    socket: TcpStream,
    bytes: [u8; FRAME_LENGTH_MAX],
    filled: usize,
    asked: u64,
    is_broken: bool,
}

impl WitnessClient {
    /// Connects and logs on as `node` (0 for a tool), by `deadline`. When this returns either side has proved to the
    /// other that it knows `secret`.
    ///
    /// # Errors
    /// [`WitnessFailure`] says what went wrong.
    pub fn connect(
        address: SocketAddr,
        secret: &[u8],
        node: NodeId,
        deadline: Instant,
    ) -> Result<Self, WitnessFailure> {
        let socket = TcpStream::connect_timeout(&address, left(deadline)?).map_err(failed)?;
        prepare(&socket).map_err(WitnessFailure::Connection)?;
        let mut client = Self {
            socket,
            bytes: [0; FRAME_LENGTH_MAX],
            filled: 0,
            asked: 0,
            is_broken: false,
        };
        let Message::Challenge(challenge) = client.next(deadline)?.message else {
            return Err(WitnessFailure::OutOfTurn);
        };
        let (lowest, highest) = (challenge.version_lowest, challenge.version_highest);
        if !(lowest..=highest).contains(&WITNESS_VERSION.into()) {
            return Err(WitnessFailure::Version { lowest, highest });
        }
        let mut nonce: Nonce = [0; 32];
        getrandom::fill(&mut nonce)
            .map_err(|error| WitnessFailure::Connection(io::Error::other(error)))?;
        let logon = Logon::new(secret, &challenge.nonce, nonce, node);
        client.send(&Frame::of(Message::Logon(logon)), deadline)?;
        let Message::Welcome(welcome) = client.next(deadline)?.message else {
            return Err(WitnessFailure::OutOfTurn);
        };
        if !welcome.proof_holds(secret, &nonce, &challenge.nonce) {
            return Err(WitnessFailure::Unproven);
        }
        Ok(client)
    }

    /// Asks about `stream` and waits for the answer until `deadline`.
    ///
    /// # Errors
    /// [`NoAnswer`] says whether the request may have been carried out. This client is of no more use then.
    pub fn ask(
        &mut self,
        stream: StreamId,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, NoAnswer> {
        let unsent = |reason| NoAnswer {
            was_sent: false,
            reason,
        };
        if self.is_broken {
            return Err(unsent(WitnessFailure::Closed));
        }
        self.is_broken = true;
        self.asked += 1;
        let frame = Frame {
            stream,
            id: self.asked,
            message: Message::Request(*request),
        };
        self.send(&frame, deadline).map_err(unsent)?;
        let sent = |reason| NoAnswer {
            was_sent: true,
            reason,
        };
        let answered = self.next(deadline).map_err(sent)?;
        let is_due = (answered.stream, answered.id) == (frame.stream, frame.id);
        match answered.message {
            Message::Answer(answer) if is_due && fits(request, &answer) => {
                self.is_broken = false;
                Ok(answer)
            }
            _ => Err(sent(WitnessFailure::OutOfTurn)),
        }
    }

    /// Whether the connection seems to hold: it is whole, and nothing has come that nobody asked for, the end included.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if self.is_broken || self.filled > 0 || self.socket.set_nonblocking(true).is_err() {
            return false;
        }
        let peeked = self.socket.peek(&mut [0]);
        let is_quiet = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).is_ok() && is_quiet
    }

    /// Hands all of a frame to the kernel. After an error the witness has less than a frame, which it never carries out.
    fn send(&mut self, frame: &Frame, deadline: Instant) -> Result<(), WitnessFailure> {
        let mut bytes = [0; FRAME_LENGTH_MAX];
        let length = frame.encode(&mut bytes);
        let mut rest = &bytes[..length];
        while !rest.is_empty() {
            let timeout = Some(left(deadline)?);
            self.socket.set_write_timeout(timeout).map_err(failed)?;
            match self.socket.write(rest) {
                Ok(0) => return Err(WitnessFailure::Closed),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// The next frame; a farewell is an error.
    fn next(&mut self, deadline: Instant) -> Result<Frame, WitnessFailure> {
        loop {
            if let Some(length) = front(&self.bytes[..self.filled], FRAME_LENGTH_MAX)?
                && length <= self.filled
            {
                let frame = Frame::decode(&self.bytes[..length])?;
                self.bytes.copy_within(length..self.filled, 0);
                self.filled -= length;
                return match frame.message {
                    Message::Terminate(code) => Err(WitnessFailure::Terminated(code)),
                    _ => Ok(frame),
                };
            }
            let timeout = Some(left(deadline)?);
            self.socket.set_read_timeout(timeout).map_err(failed)?;
            match self.socket.read(&mut self.bytes[self.filled..]) {
                Ok(0) => return Err(WitnessFailure::Closed),
                Ok(length) => self.filled += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// Whether `answer` is of a kind that `request` may have.
const fn fits(request: &Request, answer: &Answer) -> bool {
    matches!(
        (request, answer),
        (Request::Read, Answer::Registers(_))
            | (Request::Status, Answer::Status(_))
            | (Request::Create { .. }, Answer::NoRoom)
            | (
                Request::Create { .. } | Request::Swap { .. } | Request::Floor { .. },
                Answer::Done(_) | Answer::Refused(_)
            )
    )
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(4 * KEEPALIVE))
}

/// Time left; a timeout of zero would mean none at all.
fn left(deadline: Instant) -> Result<Duration, WitnessFailure> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(WitnessFailure::TimedOut);
    }
    Ok(left)
}

fn failed(error: io::Error) -> WitnessFailure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => WitnessFailure::TimedOut,
        _ => WitnessFailure::Connection(error),
    }
}
