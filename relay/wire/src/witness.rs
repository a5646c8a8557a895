//! Frames between a witness and the nodes whose membership records it keeps (`FORMAT.md` section 6).
//!
//! A witness is a durable compare-and-swap register in a third process. A connection begins with a challenge and a logon,
//! in which either side shows that it knows the group's secret; then the node asks, one request at a time, and each answer
//! carries the id of its request. What the registers hold is opaque here: [`membership`](crate::membership) gives it
//! a meaning.
//!
//! ```text
//!       0               4       5       6       8              12              16
//!       +---------------+-------+-------+-------+---------------+---------------+
//!     0 | length        | kind  | vers  | zero  | checksum      | stream        |
//!       +---------------+-------+-------+-------+---------------+---------------+
//!    16 | id                                    | body ...
//!       +---------------------------------------+
//! ```
//!
//! Invariants: [`Frame::encode`] and [`Frame::decode`] are each other's inverse; no frame is longer than
//! [`FRAME_LENGTH_MAX`], none before the logon longer than [`LOGON_LENGTH_MAX`], and [`front`] checks that before a byte of
//! the body is waited for.

mod layout;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc32c, crc32c_append};
use crate::code::{WitnessCode, WitnessKind};
use crate::id::{NodeId, StreamId};
use crate::proof::{self, Nonce, Proof};

use self::layout::{
    ChallengeLayout, DoneLayout, HeaderLayout, LogonLayout, RegistersLayout, StatusLayout,
    SwapLayout, TerminateLayout, ValueLayout, WelcomeLayout,
};

/// Version of these frames.
pub const WITNESS_VERSION: u8 = 1;
/// Most bytes a register holds: room for records of later versions, which a witness need not understand.
pub const VALUE_LENGTH_MAX: usize = 256;
/// Bytes of a frame without its body.
pub const FRAME_HEADER_LENGTH: usize = 24;
/// Most bytes of a frame.
pub const FRAME_LENGTH_MAX: usize =
    FRAME_HEADER_LENGTH + size_of::<RegistersLayout>() + 2 * VALUE_LENGTH_MAX;
/// Most bytes of a frame before the logon.
pub const LOGON_LENGTH_MAX: usize = FRAME_HEADER_LENGTH + size_of::<LogonLayout>();

const LOGON_LABEL: &[u8] = b"relay-witness-logon-v1";
const WELCOME_LABEL: &[u8] = b"relay-witness-welcome-v1";

/// What a register holds: 1 to [`VALUE_LENGTH_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value {
    length: u16,
    bytes: [u8; VALUE_LENGTH_MAX],
}

impl Value {
    /// The value with these bytes; `None` with none, or more than [`VALUE_LENGTH_MAX`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > VALUE_LENGTH_MAX {
            return None;
        }
        let mut value = Self {
            length: bytes.len() as u16,
            bytes: [0; VALUE_LENGTH_MAX],
        };
        value.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(value)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }
}

impl core::fmt::Debug for Value {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Value(")?;
        for byte in self.as_slice() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}

/// One register in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Names this state; never 0, never used again for another.
    pub revision: u64,
    /// What it holds.
    pub value: Value,
}

/// The registers of a stream. There is no floor without a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The membership record.
    pub record: Cell,
    /// The released floor, once one was written.
    pub floor: Option<Cell>,
}

/// The witness's first frame on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// The witness's nonce.
    pub nonce: Nonce,
    /// Lowest version spoken.
    pub version_lowest: u16,
    /// Highest version spoken.
    pub version_highest: u16,
}

/// A client's logon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logon {
    /// The client's nonce.
    pub nonce: Nonce,
    /// Proof of the secret.
    pub proof: Proof,
    /// Which node it is, for the log; 0 for a tool.
    pub node: NodeId,
}

/// The witness's answer to a logon it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Proof of the secret.
    pub proof: Proof,
}

/// What can be asked about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The registers.
    Read,
    /// Makes the first record; refused when there is one.
    Create {
        /// The record.
        record: Value,
    },
    /// Replaces the record with revision `base`.
    Swap {
        /// The record's revision it rests on.
        base: u64,
        /// The floor's revision it rests on, 0 for no floor; `None`: whatever it is.
        floor_base: Option<u64>,
        /// The new record.
        next: Value,
    },
    /// Replaces the floor, if the record has revision `base`.
    Floor {
        /// The record's revision it rests on.
        base: u64,
        /// The new floor.
        floor: Value,
    },
    /// How the witness is: what a client asks to see whether the connection holds.
    Status,
}

/// What can come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The registers, for a read; `None`: there is no record of this stream.
    Registers(Option<Registers>),
    /// It happened, durably; the register's new revision.
    Done(u64),
    /// It did not and never will; the registers as they are.
    Refused(Option<Registers>),
    /// It did not: there is no place for another stream.
    NoRoom,
    /// How the witness is.
    Status(Status),
}

/// How a witness is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// When it was started, ns UTC.
    pub started_ns: u64,
    /// Changes made durable since then.
    pub changes: u64,
    /// Streams it keeps.
    pub streams: u32,
    /// Connections logged on.
    pub connections: u32,
}

/// What a frame says.
///
/// Values are held in place and not behind a pointer, so that nothing is allocated for a peer: hence the size.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is documented at its type
pub enum Message {
    Challenge(Challenge),
    Logon(Logon),
    Welcome(Welcome),
    Terminate(WitnessCode),
    Request(Request),
    Answer(Answer),
}

/// A message with its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The stream it is about; 0 outside requests and answers.
    pub stream: StreamId,
    /// The client's number for the request; 0 outside requests and answers.
    pub id: u64,
    /// What it says.
    pub message: Message,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WitnessError {
    /// A length outside what is allowed here.
    Length(u32),
    /// A kind this version does not know.
    Kind(u8),
    /// A version other than [`WITNESS_VERSION`].
    Version(u8),
    /// The checksum does not fit.
    Checksum,
    /// The length is not what the kind and its fields say.
    Size,
    /// A field that must be zero is not.
    NotZero,
    /// A field that can't be; which.
    Inconsistent(&'static str),
}

impl core::fmt::Display for WitnessError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a frame claims {length} bytes, not allowed here"),
            Self::Kind(kind) => write!(f, "no witness frame has kind {kind}"),
            Self::Version(version) => write!(
                f,
                "witness frames of version {version} are not spoken, only {WITNESS_VERSION}"
            ),
            Self::Checksum => write!(f, "a witness frame's checksum does not fit"),
            Self::Size => write!(f, "a witness frame's length is not what its fields say"),
            Self::NotZero => write!(f, "a witness frame has a reserved field that is not zero"),
            Self::Inconsistent(field) => write!(f, "a witness frame's {field} can't be"),
        }
    }
}

impl core::error::Error for WitnessError {}

impl WitnessError {
    /// The code a connection ends with over it.
    #[must_use]
    pub const fn code(self) -> WitnessCode {
        match self {
            Self::Checksum => WitnessCode::Checksum,
            Self::Version(_) => WitnessCode::Version,
            _ => WitnessCode::Protocol,
        }
    }
}

/// Length of the frame at the start of `buffer`, or `None` while that can't be told; `limit` is the most allowed now.
///
/// # Errors
/// [`WitnessError::Length`] as soon as it is known.
pub fn front(buffer: &[u8], limit: usize) -> Result<Option<usize>, WitnessError> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length);
    if (FRAME_HEADER_LENGTH..=limit).contains(&(length as usize)) {
        Ok(Some(length as usize))
    } else {
        Err(WitnessError::Length(length))
    }
}

impl Challenge {
    /// A challenge with this nonce, in this software's version.
    #[must_use]
    pub const fn new(nonce: Nonce) -> Self {
        Self {
            nonce,
            version_lowest: WITNESS_VERSION as u16,
            version_highest: WITNESS_VERSION as u16,
        }
    }
}

impl Logon {
    /// The logon of `node`, with the proof for the witness whose nonce is given.
    #[must_use]
    pub fn new(secret: &[u8], witness: &Nonce, nonce: Nonce, node: NodeId) -> Self {
        let mut logon = Self {
            nonce,
            proof: [0; 32],
            node,
        };
        let body = logon.without_proof();
        logon.proof = proof::over(secret, &[LOGON_LABEL, witness, body.as_bytes()]);
        logon
    }

    /// Whether its proof shows that the sender knows `secret`.
    #[must_use]
    pub fn proof_holds(&self, secret: &[u8], witness: &Nonce) -> bool {
        let body = self.without_proof();
        let parts = [LOGON_LABEL, witness, body.as_bytes()];
        proof::over_holds(secret, &parts, &self.proof)
    }

    fn without_proof(&self) -> LogonLayout {
        LogonLayout {
            nonce: self.nonce,
            proof: [0; 32],
            node: self.node.get().into(),
        }
    }
}

impl Welcome {
    /// The welcome with the proof for the client whose nonce is given.
    #[must_use]
    pub fn new(secret: &[u8], client: &Nonce, witness: &Nonce) -> Self {
        Self {
            proof: proof::over(secret, &[WELCOME_LABEL, client, witness]),
        }
    }

    /// Whether its proof shows that the witness knows `secret`.
    #[must_use]
    pub fn proof_holds(&self, secret: &[u8], client: &Nonce, witness: &Nonce) -> bool {
        proof::over_holds(secret, &[WELCOME_LABEL, client, witness], &self.proof)
    }
}

fn checksum_of(frame: &[u8]) -> u32 {
    crc32c_append(crc32c(&frame[..8]), &frame[12..])
}

fn exact<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    body: &[u8],
) -> Result<&T, WitnessError> {
    T::ref_from_bytes(body).map_err(|_| WitnessError::Size)
}

fn prefix<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    body: &[u8],
) -> Result<(&T, &[u8]), WitnessError> {
    T::ref_from_prefix(body).map_err(|_| WitnessError::Size)
}

fn zero(is_zero: bool) -> Result<(), WitnessError> {
    if is_zero {
        Ok(())
    } else {
        Err(WitnessError::NotZero)
    }
}

fn value(bytes: &[u8], length: u16) -> Result<Value, WitnessError> {
    if bytes.len() != usize::from(length) {
        return Err(WitnessError::Size);
    }
    Value::new(bytes).ok_or(WitnessError::Inconsistent("value's length"))
}

fn decode_value(body: &[u8]) -> Result<(u64, Value), WitnessError> {
    let (layout, rest) = prefix::<ValueLayout>(body)?;
    zero(layout.zero == [0; 6])?;
    Ok((layout.base.get(), value(rest, layout.length.get())?))
}

fn decode_swap(body: &[u8]) -> Result<Request, WitnessError> {
    let (layout, rest) = prefix::<SwapLayout>(body)?;
    zero(layout.zero == [0; 5])?;
    let floor_base = layout.floor_base.get();
    let floor_base = match layout.rests_on_floor {
        0 if floor_base == 0 => None,
        1 => Some(floor_base),
        _ => return Err(WitnessError::Inconsistent("floor base")),
    };
    Ok(Request::Swap {
        base: layout.base.get(),
        floor_base,
        next: value(rest, layout.length.get())?,
    })
}

fn cell(bytes: &[u8], revision: u64, length: u16) -> Result<Option<Cell>, WitnessError> {
    match (revision, length) {
        (0, 0) if bytes.is_empty() => Ok(None),
        (0, _) => Err(WitnessError::Inconsistent("revision")),
        (revision, length) => Ok(Some(Cell {
            revision,
            value: value(bytes, length)?,
        })),
    }
}

fn decode_registers(body: &[u8]) -> Result<Option<Registers>, WitnessError> {
    let (layout, rest) = prefix::<RegistersLayout>(body)?;
    zero(layout.zero.get() == 0)?;
    let record_length = layout.record_length.get();
    let (record, floor) = rest
        .split_at_checked(record_length.into())
        .ok_or(WitnessError::Size)?;
    let record = cell(record, layout.record_revision.get(), record_length)?;
    let floor = cell(
        floor,
        layout.floor_revision.get(),
        layout.floor_length.get(),
    )?;
    match (record, floor) {
        (Some(record), floor) => Ok(Some(Registers { record, floor })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(WitnessError::Inconsistent("floor without a record")),
    }
}

fn decode_body(kind: WitnessKind, body: &[u8]) -> Result<Message, WitnessError> {
    let request = |request| Ok(Message::Request(request));
    let answer = |answer| Ok(Message::Answer(answer));
    let empty = || {
        if body.is_empty() {
            Ok(())
        } else {
            Err(WitnessError::Size)
        }
    };
    match kind {
        WitnessKind::Challenge => {
            let layout = exact::<ChallengeLayout>(body)?;
            zero(layout.zero.get() == 0)?;
            Ok(Message::Challenge(Challenge {
                nonce: layout.nonce,
                version_lowest: layout.version_lowest.get(),
                version_highest: layout.version_highest.get(),
            }))
        }
        WitnessKind::Logon => {
            let layout = exact::<LogonLayout>(body)?;
            Ok(Message::Logon(Logon {
                nonce: layout.nonce,
                proof: layout.proof,
                node: NodeId(layout.node.get()),
            }))
        }
        WitnessKind::Welcome => {
            let proof = exact::<WelcomeLayout>(body)?.proof;
            Ok(Message::Welcome(Welcome { proof }))
        }
        WitnessKind::Terminate => {
            let layout = exact::<TerminateLayout>(body)?;
            zero(layout.zero == [0; 6])?;
            WitnessCode::from_number(layout.code.get())
                .map(Message::Terminate)
                .ok_or(WitnessError::Inconsistent("code"))
        }
        WitnessKind::Read => empty().and_then(|()| request(Request::Read)),
        WitnessKind::Status => empty().and_then(|()| request(Request::Status)),
        WitnessKind::Swap => request(decode_swap(body)?),
        WitnessKind::Floor => {
            let (base, floor) = decode_value(body)?;
            request(Request::Floor { base, floor })
        }
        WitnessKind::Create => match decode_value(body)? {
            (0, record) => request(Request::Create { record }),
            _ => Err(WitnessError::NotZero),
        },
        WitnessKind::Registers => answer(Answer::Registers(decode_registers(body)?)),
        WitnessKind::Refused => answer(Answer::Refused(decode_registers(body)?)),
        WitnessKind::Done => match exact::<DoneLayout>(body)?.revision.get() {
            0 => Err(WitnessError::Inconsistent("revision")),
            revision => answer(Answer::Done(revision)),
        },
        WitnessKind::NoRoom => empty().and_then(|()| answer(Answer::NoRoom)),
        WitnessKind::StatusReport => {
            let layout = exact::<StatusLayout>(body)?;
            answer(Answer::Status(Status {
                started_ns: layout.started_ns.get(),
                changes: layout.changes.get(),
                streams: layout.streams.get(),
                connections: layout.connections.get(),
            }))
        }
    }
}

/// Fills a frame's bytes from the front.
struct Writer<'a> {
    out: &'a mut [u8; FRAME_LENGTH_MAX],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn put_value(&mut self, base: u64, value: &Value) {
        let layout = ValueLayout {
            base: base.into(),
            length: value.length.into(),
            zero: [0; 6],
        };
        self.put(layout.as_bytes());
        self.put(value.as_slice());
    }

    fn put_registers(&mut self, registers: Option<&Registers>) {
        let record = registers.map(|r| &r.record);
        let floor = registers.and_then(|r| r.floor.as_ref());
        let length = |cell: Option<&Cell>| cell.map_or(0, |cell| cell.value.length);
        let revision = |cell: Option<&Cell>| cell.map_or(0, |cell| cell.revision);
        let layout = RegistersLayout {
            record_revision: revision(record).into(),
            floor_revision: revision(floor).into(),
            record_length: length(record).into(),
            floor_length: length(floor).into(),
            zero: 0.into(),
        };
        self.put(layout.as_bytes());
        for cell in [record, floor].into_iter().flatten() {
            self.put(cell.value.as_slice());
        }
    }

    fn put_request(&mut self, request: &Request) -> WitnessKind {
        match request {
            Request::Read => WitnessKind::Read,
            Request::Status => WitnessKind::Status,
            Request::Create { record } => {
                self.put_value(0, record);
                WitnessKind::Create
            }
            Request::Swap {
                base,
                floor_base,
                next,
            } => {
                let layout = SwapLayout {
                    base: (*base).into(),
                    floor_base: floor_base.unwrap_or(0).into(),
                    length: next.length.into(),
                    rests_on_floor: u8::from(floor_base.is_some()),
                    zero: [0; 5],
                };
                self.put(layout.as_bytes());
                self.put(next.as_slice());
                WitnessKind::Swap
            }
            Request::Floor { base, floor } => {
                self.put_value(*base, floor);
                WitnessKind::Floor
            }
        }
    }

    fn put_answer(&mut self, answer: &Answer) -> WitnessKind {
        match answer {
            Answer::Registers(registers) => {
                self.put_registers(registers.as_ref());
                WitnessKind::Registers
            }
            Answer::Refused(registers) => {
                self.put_registers(registers.as_ref());
                WitnessKind::Refused
            }
            Answer::Done(revision) => {
                assert_ne!(*revision, 0, "0 names no state of a register");
                let revision = (*revision).into();
                self.put(DoneLayout { revision }.as_bytes());
                WitnessKind::Done
            }
            Answer::NoRoom => WitnessKind::NoRoom,
            Answer::Status(status) => {
                let layout = StatusLayout {
                    started_ns: status.started_ns.into(),
                    changes: status.changes.into(),
                    streams: status.streams.into(),
                    connections: status.connections.into(),
                };
                self.put(layout.as_bytes());
                WitnessKind::StatusReport
            }
        }
    }

    fn put_message(&mut self, message: &Message) -> WitnessKind {
        match message {
            Message::Challenge(challenge) => {
                let layout = ChallengeLayout {
                    nonce: challenge.nonce,
                    version_lowest: challenge.version_lowest.into(),
                    version_highest: challenge.version_highest.into(),
                    zero: 0.into(),
                };
                self.put(layout.as_bytes());
                WitnessKind::Challenge
            }
            Message::Logon(logon) => {
                let layout = LogonLayout {
                    proof: logon.proof,
                    ..logon.without_proof()
                };
                self.put(layout.as_bytes());
                WitnessKind::Logon
            }
            Message::Welcome(welcome) => {
                self.put(&welcome.proof);
                WitnessKind::Welcome
            }
            Message::Terminate(code) => {
                let layout = TerminateLayout {
                    code: code.number().into(),
                    zero: [0; 6],
                };
                self.put(layout.as_bytes());
                WitnessKind::Terminate
            }
            Message::Request(request) => self.put_request(request),
            Message::Answer(answer) => self.put_answer(answer),
        }
    }
}

impl Frame {
    /// A frame outside requests and answers.
    #[must_use]
    pub const fn of(message: Message) -> Self {
        Self {
            stream: StreamId(0),
            id: 0,
            message,
        }
    }

    /// Lays the frame out in `out` and returns its length.
    ///
    /// # Panics
    /// When a revision is 0 where something happened: that must not reach a node.
    pub fn encode(&self, out: &mut [u8; FRAME_LENGTH_MAX]) -> usize {
        let mut writer = Writer {
            out,
            length: FRAME_HEADER_LENGTH,
        };
        let kind = writer.put_message(&self.message);
        let length = writer.length;
        let header = HeaderLayout {
            length: (length as u32).into(),
            kind: kind.number(),
            version: WITNESS_VERSION,
            zero: 0.into(),
            checksum: 0.into(),
            stream: self.stream.get().into(),
            id: self.id.into(),
        };
        out[..FRAME_HEADER_LENGTH].copy_from_slice(header.as_bytes());
        let checksum = checksum_of(&out[..length]);
        out[8..12].copy_from_slice(&checksum.to_le_bytes());
        length
    }

    /// Decodes a frame from exactly its bytes.
    ///
    /// # Errors
    /// [`WitnessError`] names the rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, WitnessError> {
        let (header, body) = prefix::<HeaderLayout>(bytes)?;
        if header.length.get() as usize != bytes.len() || bytes.len() > FRAME_LENGTH_MAX {
            return Err(WitnessError::Size);
        }
        if header.version != WITNESS_VERSION {
            return Err(WitnessError::Version(header.version));
        }
        if header.checksum.get() != checksum_of(bytes) {
            return Err(WitnessError::Checksum);
        }
        zero(header.zero.get() == 0)?;
        let kind = WitnessKind::from_number(header.kind).ok_or(WitnessError::Kind(header.kind))?;
        let frame = Self {
            stream: StreamId(header.stream.get()),
            id: header.id.get(),
            message: decode_body(kind, body)?,
        };
        let is_addressed = matches!(frame.message, Message::Request(_) | Message::Answer(_));
        zero(is_addressed || (frame.stream.get() == 0 && frame.id == 0))?;
        Ok(frame)
    }
}
