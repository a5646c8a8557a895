//! Session messages: everything on a connection that is not a record (`FORMAT.md` section 3).
//!
//! Each has a fixed body layout below, in the order of its kind number, and some a text or names behind it. The header:
//!
//! ```text
//!       0               4       5       6       8              12              16
//!       +---------------+-------+-------+-------+---------------+---------------+
//!     0 | length        | kind  | vers  | zero  | checksum      | zero          |
//!       +---------------+-------+-------+-------+---------------+---------------+
//!    16 | body ...
//! ```
//!
//! [`Message::encode`] and [`Message::decode`] are each other's inverse. A decoded message borrows from its bytes.

mod error;
mod layout;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc32c, crc32c_append};
use crate::code::{From, Held, MessageKind, RejectCode, Role, TerminateCode};
use crate::id::{Epoch, Incarnation, NodeId, PublisherId, PublisherSeq, Seq, StreamId, TopicId};
use crate::item::MESSAGE_HEADER_LENGTH;
use crate::proof::{self, Nonce, Proof};
use crate::{PROTOCOL_VERSION, stride};

pub use self::error::MessageError;
use self::layout::{
    AckLayout, ChallengeLayout, HeaderLayout, HeartbeatLayout, LOGON_PROOF_AT, LogonAckLayout,
    LogonLayout, RejectLayout, SubscribeLayout, SubscribedLayout, TerminateLayout, TopicLayout,
    TopicRequestLayout,
};

/// Most bytes of a credential's name.
pub const CREDENTIAL_NAME_LENGTH_MAX: usize = 64;
/// Most patterns of a subscription.
pub const PATTERNS_MAX: usize = 1_000;
/// Most bytes of an explaining text; longer ones are cut.
pub const TEXT_LENGTH_MAX: usize = 400;
/// A relay gives a client up after so many of the client's intervals in silence.
pub const SILENT_INTERVALS: u32 = 5;
/// A client need not say something more often than this, however short the relay's own interval.
pub const CLIENT_INTERVAL_MS_LEAST: u32 = 1_000;

/// A client says something at least so often, ms, where the relay does every `heartbeat_ms`.
#[must_use]
pub const fn client_interval_ms(heartbeat_ms: u32) -> u32 {
    if heartbeat_ms < CLIENT_INTERVAL_MS_LEAST {
        CLIENT_INTERVAL_MS_LEAST
    } else {
        heartbeat_ms
    }
}

/// The relay's first message on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// The relay's nonce.
    pub nonce: Nonce,
    /// The relay's node.
    pub node: NodeId,
    /// Lowest protocol version spoken.
    pub version_lowest: u16,
    /// Highest protocol version spoken.
    pub version_highest: u16,
}

/// A client's logon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logon<'a> {
    /// What it comes for.
    pub role: Role,
    /// The stream it wants; 0 for whichever this address serves.
    pub stream: StreamId,
    /// Publisher id; 0 for a subscriber.
    pub publisher: PublisherId,
    /// The publisher's incarnation; 0 for a subscriber.
    pub incarnation: Incarnation,
    /// The client's nonce.
    pub nonce: Nonce,
    /// Proof of the secret, see [`Logon::with_proof`].
    pub proof: Proof,
    /// The credential's name.
    pub name: &'a str,
}

/// The relay's answer to a logon it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogonAck {
    /// Proof of the secret, see [`LogonAck::with_proof`].
    pub proof: Proof,
    /// Present epoch.
    pub epoch: Epoch,
    /// Number of the present trading session.
    pub trading_session: u64,
    /// The publisher sequence wanted next.
    pub next_expected: PublisherSeq,
    /// The highest publisher sequence released, 0 for none.
    pub released_through: PublisherSeq,
    /// The seq the next released message will have.
    pub next_seq: Seq,
    /// Most unacknowledged bytes.
    pub credit: u64,
    /// Most bytes of a payload.
    pub payload_limit: u32,
    /// The relay says something at least so often, ms.
    pub heartbeat_ms: u32,
    /// The stream.
    pub stream: StreamId,
}

/// The last message of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminate<'a> {
    /// Why.
    pub code: TerminateCode,
    /// What the code says it is, or 0.
    pub detail: u64,
    /// For people.
    pub text: &'a str,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// To a subscriber: all before was examined. To a publisher: the next to be released. From a client: 0.
    pub next_seq: Seq,
    /// Present epoch; from a client 0.
    pub epoch: Epoch,
    /// Checksum of the DATA record before `next_seq`; 0 for none.
    pub checksum: u32,
    /// Whether publishers are held.
    pub held: Held,
}

/// Asks for a topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicRequest<'a> {
    /// The client's number for it, not 0.
    pub request: u32,
    /// The name; checked by whoever answers, so that the answer can say what is wrong.
    pub name: &'a [u8],
}

/// Tells a topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic<'a> {
    /// The request it answers, or 0.
    pub request: u32,
    /// The id.
    pub topic: TopicId,
    /// The name.
    pub name: &'a str,
}

/// Acknowledges everything of an incarnation up to a publisher sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Through here.
    pub publisher_seq: PublisherSeq,
    /// The seq that record has; 0 where forgotten.
    pub seq: Seq,
    /// Present epoch.
    pub epoch: Epoch,
}

/// Refuses a record or a topic request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject<'a> {
    /// The record, or 0.
    pub publisher_seq: PublisherSeq,
    /// The publisher sequence wanted next.
    pub next_expected: PublisherSeq,
    /// The topic request, or 0.
    pub request: u32,
    /// Why.
    pub code: RejectCode,
    /// For people.
    pub text: &'a str,
}

/// What a subscriber wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Where to start.
    pub from: From,
    /// Checksum of the last DATA record before seq `value`, where the subscriber knows it.
    pub checksum: Option<u32>,
    /// A seq or a time, ns UTC, as `from` says; else 0.
    pub value: u64,
    /// Which topics.
    pub patterns: Patterns<'a>,
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Delivery starts at the first match from here on.
    pub start_seq: Seq,
    /// The first in the journal.
    pub earliest_seq: Seq,
    /// The next to be released.
    pub next_seq: Seq,
    /// Present epoch.
    pub epoch: Epoch,
}

/// A list of patterns, as it lies on the wire: each a length (2 bytes) and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patterns<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Patterns<'a> {
    /// Lays `patterns` out in `out` and views them there.
    ///
    /// # Errors
    /// [`MessageError::Patterns`] with none, more than [`PATTERNS_MAX`], or one too long for its length field.
    pub fn lay_out<S: AsRef<str>>(
        patterns: &[S],
        out: &'a mut Vec<u8>,
    ) -> Result<Self, MessageError> {
        if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
            return Err(MessageError::Patterns);
        }
        out.clear();
        for pattern in patterns {
            let bytes = pattern.as_ref().as_bytes();
            let length = u16::try_from(bytes.len()).map_err(|_| MessageError::Patterns)?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Ok(Self {
            count: patterns.len() as u16,
            bytes: out,
        })
    }

    /// Each pattern's bytes, unchecked.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (pattern, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = after;
            Some(pattern)
        })
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Never: a subscription has at least one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Any session message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is documented at its type
pub enum Message<'a> {
    Challenge(Challenge),
    Logon(Logon<'a>),
    LogonAck(LogonAck),
    Terminate(Terminate<'a>),
    Heartbeat(Heartbeat),
    TopicRequest(TopicRequest<'a>),
    Topic(Topic<'a>),
    Ack(Ack),
    Reject(Reject<'a>),
    Subscribe(Subscribe<'a>),
    Subscribed(Subscribed),
}

fn checksum_of(item: &[u8]) -> u32 {
    crc32c_append(crc32c(&item[..8]), &item[12..])
}

fn prefix<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    body: &[u8],
) -> Result<(&T, &[u8]), MessageError> {
    T::ref_from_prefix(body).map_err(|_| MessageError::Length)
}

fn exact<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    body: &[u8],
) -> Result<&T, MessageError> {
    T::ref_from_bytes(body).map_err(|_| MessageError::Length)
}

fn sized(rest: &[u8], length: usize) -> Result<&[u8], MessageError> {
    if rest.len() == length {
        Ok(rest)
    } else {
        Err(MessageError::Length)
    }
}

fn text(rest: &[u8], length: usize) -> Result<&str, MessageError> {
    if length > TEXT_LENGTH_MAX {
        return Err(MessageError::Length);
    }
    core::str::from_utf8(sized(rest, length)?).map_err(|_| MessageError::NotUtf8)
}

fn zero(is_zero: bool) -> Result<(), MessageError> {
    if is_zero {
        Ok(())
    } else {
        Err(MessageError::NotZero)
    }
}

/// The longest start of `text` that fits a text field and ends between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LENGTH_MAX)]
}

impl<'a> Message<'a> {
    /// Decodes one item, without the padding behind it.
    ///
    /// # Errors
    /// [`MessageError`] names the rule that is broken.
    pub fn decode(item: &'a [u8]) -> Result<Self, MessageError> {
        let (header, body) = prefix::<HeaderLayout>(item)?;
        if header.length.get() as usize != item.len() {
            return Err(MessageError::Length);
        }
        if header.version != PROTOCOL_VERSION {
            return Err(MessageError::Version(header.version));
        }
        zero(header.zero.get() == 0 && header.zero_tail.get() == 0)?;
        if header.checksum.get() != checksum_of(item) {
            return Err(MessageError::Checksum);
        }
        let kind = MessageKind::from_number(header.kind).ok_or(MessageError::Kind(header.kind))?;
        Self::decode_body(kind, body)
    }

    fn decode_body(kind: MessageKind, body: &'a [u8]) -> Result<Self, MessageError> {
        match kind {
            MessageKind::Challenge => {
                let layout = exact::<ChallengeLayout>(body)?;
                zero(layout.zero.get() == 0)?;
                Ok(Self::Challenge(Challenge {
                    nonce: layout.nonce,
                    node: NodeId(layout.node.get()),
                    version_lowest: layout.version_lowest.get(),
                    version_highest: layout.version_highest.get(),
                }))
            }
            MessageKind::Logon => decode_logon(body),
            MessageKind::LogonAck => decode_logon_ack(body),
            MessageKind::Terminate => {
                let (layout, rest) = prefix::<TerminateLayout>(body)?;
                zero(layout.zero.get() == 0)?;
                Ok(Self::Terminate(Terminate {
                    code: TerminateCode::from_number(layout.code.get())
                        .ok_or(MessageError::Number("code"))?,
                    detail: layout.detail.get(),
                    text: text(rest, layout.text_length.get().into())?,
                }))
            }
            MessageKind::Heartbeat => {
                let layout = exact::<HeartbeatLayout>(body)?;
                zero(layout.zero == [0; 11])?;
                Ok(Self::Heartbeat(Heartbeat {
                    next_seq: Seq(layout.next_seq.get()),
                    epoch: Epoch(layout.epoch.get()),
                    checksum: layout.checksum.get(),
                    held: Held::from_number(layout.held).ok_or(MessageError::Number("held"))?,
                }))
            }
            MessageKind::TopicRequest => {
                let (layout, rest) = prefix::<TopicRequestLayout>(body)?;
                zero(layout.zero.get() == 0)?;
                if layout.request.get() == 0 {
                    return Err(MessageError::Number("request"));
                }
                Ok(Self::TopicRequest(TopicRequest {
                    request: layout.request.get(),
                    name: sized(rest, layout.name_length.get().into())?,
                }))
            }
            MessageKind::Topic => {
                let (layout, rest) = prefix::<TopicLayout>(body)?;
                zero(layout.zero == [0; 6])?;
                Ok(Self::Topic(Topic {
                    request: layout.request.get(),
                    topic: TopicId(layout.topic.get()),
                    name: text(rest, layout.name_length.get().into())?,
                }))
            }
            MessageKind::Ack => {
                let layout = exact::<AckLayout>(body)?;
                Ok(Self::Ack(Ack {
                    publisher_seq: PublisherSeq(layout.publisher_seq.get()),
                    seq: Seq(layout.seq.get()),
                    epoch: Epoch(layout.epoch.get()),
                }))
            }
            MessageKind::Reject => decode_reject(body),
            MessageKind::Subscribe => decode_subscribe(body),
            MessageKind::Subscribed => {
                let layout = exact::<SubscribedLayout>(body)?;
                Ok(Self::Subscribed(Subscribed {
                    start_seq: Seq(layout.start_seq.get()),
                    earliest_seq: Seq(layout.earliest_seq.get()),
                    next_seq: Seq(layout.next_seq.get()),
                    epoch: Epoch(layout.epoch.get()),
                }))
            }
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Challenge(_) => MessageKind::Challenge,
            Self::Logon(_) => MessageKind::Logon,
            Self::LogonAck(_) => MessageKind::LogonAck,
            Self::Terminate(_) => MessageKind::Terminate,
            Self::Heartbeat(_) => MessageKind::Heartbeat,
            Self::TopicRequest(_) => MessageKind::TopicRequest,
            Self::Topic(_) => MessageKind::Topic,
            Self::Ack(_) => MessageKind::Ack,
            Self::Reject(_) => MessageKind::Reject,
            Self::Subscribe(_) => MessageKind::Subscribe,
            Self::Subscribed(_) => MessageKind::Subscribed,
        }
    }

    /// Writes the message and its padding to the start of `out`; returns the bytes taken, padding included.
    ///
    /// # Errors
    /// [`MessageError::NoRoom`]; [`MessageError::Length`] where a name does not fit its length field.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, MessageError> {
        let mut fixed = [0_u8; 112];
        let mut tail: &[u8] = &[];
        let fixed_length = self.encode_body(&mut fixed, &mut tail)?;
        let length = MESSAGE_HEADER_LENGTH + fixed_length + tail.len();
        let whole = stride(length);
        let out = out.get_mut(..whole).ok_or(MessageError::NoRoom(whole))?;
        let header = HeaderLayout {
            length: (length as u32).into(),
            kind: self.kind().number(),
            version: PROTOCOL_VERSION,
            zero: 0.into(),
            checksum: 0.into(),
            zero_tail: 0.into(),
        };
        out[..MESSAGE_HEADER_LENGTH].copy_from_slice(header.as_bytes());
        let body_end = MESSAGE_HEADER_LENGTH + fixed_length;
        out[MESSAGE_HEADER_LENGTH..body_end].copy_from_slice(&fixed[..fixed_length]);
        out[body_end..length].copy_from_slice(tail);
        out[length..].fill(0);
        let checksum = checksum_of(&out[..length]);
        out[8..12].copy_from_slice(&checksum.to_le_bytes());
        Ok(whole)
    }

    /// The message and its padding as bytes of their own.
    ///
    /// # Errors
    /// [`MessageError::Length`] where a name does not fit its length field.
    pub fn to_vec(&self) -> Result<Vec<u8>, MessageError> {
        let mut out = vec![0; 1024];
        match self.encode(&mut out) {
            Err(MessageError::NoRoom(needed)) => {
                out.resize(needed, 0);
                self.encode(&mut out)?;
            }
            Ok(taken) => out.truncate(taken),
            Err(error) => return Err(error),
        }
        Ok(out)
    }

    /// Writes the fixed part of the body and names the variable part; returns the fixed part's length.
    fn encode_body(
        &self,
        fixed: &mut [u8; 112],
        tail: &mut &'a [u8],
    ) -> Result<usize, MessageError> {
        fn put<T: IntoBytes + Immutable>(fixed: &mut [u8; 112], layout: &T) -> usize {
            let bytes = layout.as_bytes();
            fixed[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }
        Ok(match self {
            Self::Challenge(m) => put(
                fixed,
                &ChallengeLayout {
                    nonce: m.nonce,
                    node: m.node.get().into(),
                    version_lowest: m.version_lowest.into(),
                    version_highest: m.version_highest.into(),
                    zero: 0.into(),
                },
            ),
            Self::Logon(m) => {
                *tail = m.name.as_bytes();
                put(fixed, &m.layout()?)
            }
            Self::LogonAck(m) => put(fixed, &m.layout()),
            Self::Terminate(m) => {
                let text = cut(m.text);
                *tail = text.as_bytes();
                put(
                    fixed,
                    &TerminateLayout {
                        code: m.code.number().into(),
                        text_length: (text.len() as u16).into(),
                        zero: 0.into(),
                        detail: m.detail.into(),
                    },
                )
            }
            Self::Heartbeat(m) => put(
                fixed,
                &HeartbeatLayout {
                    next_seq: m.next_seq.get().into(),
                    epoch: m.epoch.get().into(),
                    checksum: m.checksum.into(),
                    held: m.held.number(),
                    zero: [0; 11],
                },
            ),
            Self::TopicRequest(m) => {
                *tail = m.name;
                put(
                    fixed,
                    &TopicRequestLayout {
                        request: m.request.into(),
                        name_length: length_field(m.name)?,
                        zero: 0.into(),
                    },
                )
            }
            Self::Topic(m) => {
                *tail = m.name.as_bytes();
                put(
                    fixed,
                    &TopicLayout {
                        request: m.request.into(),
                        topic: m.topic.get().into(),
                        name_length: length_field(m.name.as_bytes())?,
                        zero: [0; 6],
                    },
                )
            }
            Self::Ack(m) => put(
                fixed,
                &AckLayout {
                    publisher_seq: m.publisher_seq.get().into(),
                    seq: m.seq.get().into(),
                    epoch: m.epoch.get().into(),
                },
            ),
            Self::Reject(m) => {
                let text = cut(m.text);
                *tail = text.as_bytes();
                put(
                    fixed,
                    &RejectLayout {
                        publisher_seq: m.publisher_seq.get().into(),
                        next_expected: m.next_expected.get().into(),
                        request: m.request.into(),
                        code: m.code.number().into(),
                        text_length: (text.len() as u16).into(),
                        zero: 0.into(),
                    },
                )
            }
            Self::Subscribe(m) => {
                *tail = m.patterns.bytes;
                put(
                    fixed,
                    &SubscribeLayout {
                        from: m.from.number(),
                        flags: u8::from(m.checksum.is_some()),
                        patterns: m.patterns.count.into(),
                        checksum: m.checksum.unwrap_or(0).into(),
                        value: m.value.into(),
                    },
                )
            }
            Self::Subscribed(m) => put(
                fixed,
                &SubscribedLayout {
                    start_seq: m.start_seq.get().into(),
                    earliest_seq: m.earliest_seq.get().into(),
                    next_seq: m.next_seq.get().into(),
                    epoch: m.epoch.get().into(),
                },
            ),
        })
    }
}

fn length_field(bytes: &[u8]) -> Result<U16, MessageError> {
    u16::try_from(bytes.len())
        .map(U16::from)
        .map_err(|_| MessageError::Length)
}

fn decode_logon(body: &[u8]) -> Result<Message<'_>, MessageError> {
    let (layout, rest) = prefix::<LogonLayout>(body)?;
    zero(layout.zero.get() == 0 && layout.zero_tail.get() == 0)?;
    let name_length = usize::from(layout.name_length);
    if name_length == 0 || name_length > CREDENTIAL_NAME_LENGTH_MAX {
        return Err(MessageError::Number("name length"));
    }
    Ok(Message::Logon(Logon {
        role: Role::from_number(layout.role).ok_or(MessageError::Number("role"))?,
        stream: StreamId(layout.stream.get()),
        publisher: PublisherId(layout.publisher.get()),
        incarnation: Incarnation(layout.incarnation.get()),
        nonce: layout.nonce,
        proof: layout.proof,
        name: text(rest, name_length)?,
    }))
}

fn decode_logon_ack(body: &[u8]) -> Result<Message<'_>, MessageError> {
    let layout = exact::<LogonAckLayout>(body)?;
    zero(layout.zero == [0; 20])?;
    Ok(Message::LogonAck(LogonAck {
        proof: layout.proof,
        epoch: Epoch(layout.epoch.get()),
        trading_session: layout.trading_session.get(),
        next_expected: PublisherSeq(layout.next_expected.get()),
        released_through: PublisherSeq(layout.released_through.get()),
        next_seq: Seq(layout.next_seq.get()),
        credit: layout.credit.get(),
        payload_limit: layout.payload_limit.get(),
        heartbeat_ms: layout.heartbeat_ms.get(),
        stream: StreamId(layout.stream.get()),
    }))
}

fn decode_reject(body: &[u8]) -> Result<Message<'_>, MessageError> {
    let (layout, rest) = prefix::<RejectLayout>(body)?;
    zero(layout.zero.get() == 0)?;
    Ok(Message::Reject(Reject {
        publisher_seq: PublisherSeq(layout.publisher_seq.get()),
        next_expected: PublisherSeq(layout.next_expected.get()),
        request: layout.request.get(),
        code: RejectCode::from_number(layout.code.get()).ok_or(MessageError::Number("code"))?,
        text: text(rest, layout.text_length.get().into())?,
    }))
}

fn decode_subscribe(body: &[u8]) -> Result<Message<'_>, MessageError> {
    let (layout, rest) = prefix::<SubscribeLayout>(body)?;
    if layout.flags > 1 {
        return Err(MessageError::Number("flags"));
    }
    zero(layout.flags == 1 || layout.checksum.get() == 0)?;
    let patterns = Patterns {
        count: layout.patterns.get(),
        bytes: rest,
    };
    let counted = patterns.iter().count();
    let laid_out: usize = patterns.iter().map(|pattern| 2 + pattern.len()).sum();
    if counted == 0 || counted > PATTERNS_MAX || counted != patterns.len() || laid_out != rest.len()
    {
        return Err(MessageError::Patterns);
    }
    Ok(Message::Subscribe(Subscribe {
        from: From::from_number(layout.from).ok_or(MessageError::Number("from"))?,
        checksum: (layout.flags == 1).then_some(layout.checksum.get()),
        value: layout.value.get(),
        patterns,
    }))
}

impl Logon<'_> {
    fn layout(&self) -> Result<LogonLayout, MessageError> {
        if self.name.is_empty() || self.name.len() > CREDENTIAL_NAME_LENGTH_MAX {
            return Err(MessageError::Number("name length"));
        }
        Ok(LogonLayout {
            role: self.role.number(),
            name_length: self.name.len() as u8,
            zero: 0.into(),
            stream: self.stream.get().into(),
            publisher: self.publisher.get().into(),
            incarnation: self.incarnation.get().into(),
            zero_tail: 0.into(),
            nonce: self.nonce,
            proof: self.proof,
        })
    }

    fn body_without_proof(&self) -> Result<Vec<u8>, MessageError> {
        let mut layout = self.layout()?;
        layout.proof.zero();
        let mut body = layout.as_bytes().to_vec();
        debug_assert_eq!(body[LOGON_PROOF_AT..], [0; 32]);
        body.extend_from_slice(self.name.as_bytes());
        Ok(body)
    }

    /// This logon with the proof that its sender knows `secret`, for the relay whose nonce is given.
    ///
    /// # Errors
    /// [`MessageError::Number`] when the name is empty or too long.
    pub fn with_proof(mut self, secret: &[u8], relay: &Nonce) -> Result<Self, MessageError> {
        self.proof = proof::logon(secret, relay, &self.body_without_proof()?);
        Ok(self)
    }

    /// Whether its proof shows that the sender knows `secret`.
    #[must_use]
    pub fn proof_holds(&self, secret: &[u8], relay: &Nonce) -> bool {
        self.body_without_proof()
            .is_ok_and(|body| proof::logon_holds(secret, relay, &body, &self.proof))
    }
}

impl LogonAck {
    fn layout(&self) -> LogonAckLayout {
        LogonAckLayout {
            proof: self.proof,
            epoch: self.epoch.get().into(),
            trading_session: self.trading_session.into(),
            next_expected: self.next_expected.get().into(),
            released_through: self.released_through.get().into(),
            next_seq: self.next_seq.get().into(),
            credit: self.credit.into(),
            payload_limit: self.payload_limit.into(),
            heartbeat_ms: self.heartbeat_ms.into(),
            stream: self.stream.get().into(),
            zero: [0; 20],
        }
    }

    fn layout_without_proof(&self) -> LogonAckLayout {
        LogonAckLayout {
            proof: [0; 32],
            ..self.layout()
        }
    }

    /// This answer with the proof that the relay knows `secret`.
    #[must_use]
    pub fn with_proof(mut self, secret: &[u8], client: &Nonce, relay: &Nonce) -> Self {
        let layout = self.layout_without_proof();
        self.proof = proof::accept(secret, client, relay, layout.as_bytes());
        self
    }

    /// Whether its proof shows that the relay knows `secret`.
    #[must_use]
    pub fn proof_holds(&self, secret: &[u8], client: &Nonce, relay: &Nonce) -> bool {
        let layout = self.layout_without_proof();
        proof::accept_holds(secret, client, relay, layout.as_bytes(), &self.proof)
    }
}
