//! The one layout of a message: publisher's wire, journal, mirror and subscriber's wire (`FORMAT.md` section 2).
//!
//! ```text
//!       0               4       5       6       8              12              16
//!       +---------------+-------+-------+-------+---------------+---------------+
//!     0 | length        | kind  | flags | ext   | topic         | checksum      |
//!       +---------------+-------+-------+-------+---------------+---------------+
//!    16 | publisher                             | incarnation                   |
//!       +---------------------------------------+-------------------------------+
//!    32 | publisher sequence                    | key hash                      |
//!       +---------------------------------------+-------------------------------+
//!    48 | origin time                           | seq                 (stamped) |
//!       +---------------------------------------+-------------------------------+
//!    64 | receive time                (stamped) | extension area, payload ...
//!       +---------------------------------------+
//! ```
//!
//! The publisher fills everything but the two stamped fields; the sequencer stamps them where the record lies
//! ([`stamp`]). The checksum leaves them out, so it is computed once and holds for the record's whole life.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc32c, crc32c_append};
use crate::code::RecordKind;
use crate::id::{Incarnation, PublisherId, PublisherSeq, Seq, TopicId};
use crate::membership::Membership;
use crate::stride;

/// Bytes of a record's header.
pub const HEADER_LENGTH: usize = 72;
/// Most bytes of the extension area.
pub const EXTENSION_LENGTH_MAX: u32 = 65_528;

/// Most bytes of a record with at most `payload_limit` bytes of payload.
#[must_use]
pub const fn length_max(payload_limit: u32) -> u32 {
    HEADER_LENGTH as u32 + EXTENSION_LENGTH_MAX + payload_limit
}

/// The header as it lies in memory, on the wire and on disk.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Bytes of header, extension area and payload.
    pub length: U32,
    /// See [`RecordKind`].
    pub kind: u8,
    /// Zero.
    pub flags: u8,
    /// Bytes of the extension area.
    pub extension_length: U16,
    /// Topic id.
    pub topic: U32,
    /// The publisher's checksum.
    pub checksum: U32,
    /// Who sent it.
    pub publisher: U64,
    /// Which life of the publisher's.
    pub incarnation: U64,
    /// The publisher's numbering.
    pub publisher_seq: U64,
    /// Hash of the key, or 0.
    pub key_hash: U64,
    /// When the publisher made it, ns UTC.
    pub origin_time_ns: U64,
    /// Stamped: number in the stream.
    pub seq: U64,
    /// Stamped: when the relay received it, ns UTC.
    pub receive_time_ns: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_LENGTH);
const SEQ_AT: usize = 56;
const CHECKSUM_AT: usize = 12;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordError {
    /// Fewer bytes than the header or than the length says.
    Truncated,
    /// `flags` is not zero.
    Flags(u8),
    /// The extension area does not fit in, or is not a chain of entries.
    Extension,
    /// The checksum does not fit.
    Checksum {
        /// What the record carries.
        carried: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A field that must be zero here is not.
    NotZero(&'static str),
    /// A kind that is not allowed here.
    Kind(u8),
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "a record is shorter than it says"),
            Self::Flags(flags) => write!(f, "a record has flags {flags:#x}; none is defined"),
            Self::Extension => write!(f, "a record's extension area is malformed"),
            Self::Checksum { carried, computed } => write!(
                f,
                "a record carries checksum {carried:#010x}, its bytes give {computed:#010x}"
            ),
            Self::NotZero(field) => write!(f, "a record's {field} must be zero here"),
            Self::Kind(kind) => write!(f, "a record of kind {kind} is not allowed here"),
        }
    }
}

impl core::error::Error for RecordError {}

/// A record whose structure was checked, as a view of its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
    header: &'a Header,
}

impl<'a> Record<'a> {
    /// Views the record at the start of `bytes`; what follows it is left out. The checksum is not looked at.
    ///
    /// # Errors
    /// Every [`RecordError`] but a checksum's.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| RecordError::Truncated)?;
        let length = header.length.get() as usize;
        if length < HEADER_LENGTH || length > bytes.len() {
            return Err(RecordError::Truncated);
        }
        if header.flags != 0 {
            return Err(RecordError::Flags(header.flags));
        }
        let record = Self {
            bytes: &bytes[..length],
            header,
        };
        let extension = usize::from(header.extension_length.get());
        if extension != 0 {
            if HEADER_LENGTH + extension > length {
                return Err(RecordError::Extension);
            }
            check_extension(&record.bytes[HEADER_LENGTH..HEADER_LENGTH + extension])?;
        }
        Ok(record)
    }

    /// Compares the checksum with the bytes.
    ///
    /// # Errors
    /// [`RecordError::Checksum`].
    pub fn verify(&self) -> Result<(), RecordError> {
        let computed = checksum_of(self.bytes);
        let carried = self.header.checksum.get();
        if computed == carried {
            Ok(())
        } else {
            Err(RecordError::Checksum { carried, computed })
        }
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a Header {
        self.header
    }

    /// The kind, if it is one this version knows.
    #[must_use]
    pub const fn kind(&self) -> Option<RecordKind> {
        RecordKind::from_number(self.header.kind)
    }

    /// Whether it is a message rather than a control record.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.header.kind == RecordKind::Data.number()
    }

    /// Header, extension area and payload.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes with the padding that follows.
    #[must_use]
    pub const fn stride(&self) -> usize {
        stride(self.bytes.len())
    }

    /// The extension area.
    #[must_use]
    pub fn extension(&self) -> &'a [u8] {
        &self.bytes[HEADER_LENGTH..HEADER_LENGTH + usize::from(self.header.extension_length.get())]
    }

    /// The message.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LENGTH + usize::from(self.header.extension_length.get())..]
    }

    /// Its seq; for a control record the one the next DATA record has.
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq(self.header.seq.get())
    }

    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> TopicId {
        TopicId(self.header.topic.get())
    }

    /// Its publisher.
    #[must_use]
    pub fn publisher(&self) -> PublisherId {
        PublisherId(self.header.publisher.get())
    }

    /// Its publisher's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.header.incarnation.get())
    }

    /// Its publisher sequence.
    #[must_use]
    pub fn publisher_seq(&self) -> PublisherSeq {
        PublisherSeq(self.header.publisher_seq.get())
    }

    /// Its checksum, which covers all but the stamped fields.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.header.checksum.get()
    }

    /// When the relay received it, ns UTC.
    #[must_use]
    pub fn receive_time_ns(&self) -> u64 {
        self.header.receive_time_ns.get()
    }
}

fn check_extension(mut area: &[u8]) -> Result<(), RecordError> {
    while !area.is_empty() {
        let [_, _, l0, l1, z0, z1, z2, z3, rest @ ..] = area else {
            return Err(RecordError::Extension);
        };
        let value = usize::from(u16::from_le_bytes([*l0, *l1]));
        let padded = stride(value);
        if [*z0, *z1, *z2, *z3] != [0; 4] || padded > rest.len() {
            return Err(RecordError::Extension);
        }
        if rest[value..padded].iter().any(|&byte| byte != 0) {
            return Err(RecordError::Extension);
        }
        area = &rest[padded..];
    }
    Ok(())
}

/// The checksum of a whole record: everything but the checksum itself and the stamped fields.
fn checksum_of(bytes: &[u8]) -> u32 {
    let head = crc32c(&bytes[..CHECKSUM_AT]);
    let set = crc32c_append(head, &bytes[CHECKSUM_AT + 4..SEQ_AT]);
    crc32c_append(set, &bytes[HEADER_LENGTH..])
}

/// What a record says besides its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// Topic id.
    pub topic: TopicId,
    /// Who sends it.
    pub publisher: PublisherId,
    /// Which life of the publisher's.
    pub incarnation: Incarnation,
    /// The publisher's numbering.
    pub publisher_seq: PublisherSeq,
    /// Hash of the key, or 0.
    pub key_hash: u64,
    /// When it was made, ns UTC.
    pub origin_time_ns: u64,
}

/// Why a record can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// The buffer is shorter than the record with its padding; so many bytes are needed.
    NoRoom(usize),
    /// Extension area not a multiple of 8, or over its limit.
    Extension,
    /// Longer than a length field can say.
    TooLong,
}

/// Bytes a record with these parts takes with padding.
#[must_use]
pub const fn encoded_stride(extension_length: usize, payload_length: usize) -> usize {
    stride(HEADER_LENGTH + extension_length + payload_length)
}

/// Writes a record with unstamped fields zero, checksum and padding to the start of `out`; returns its stride.
///
/// # Errors
/// [`EncodeError`]; nothing useful is in `out` then.
pub fn encode(
    out: &mut [u8],
    kind: RecordKind,
    fields: &Fields,
    extension: &[u8],
    payload: &[u8],
) -> Result<usize, EncodeError> {
    if !extension.len().is_multiple_of(8) || extension.len() > EXTENSION_LENGTH_MAX as usize {
        return Err(EncodeError::Extension);
    }
    let length = HEADER_LENGTH + extension.len() + payload.len();
    let length_field = u32::try_from(length).map_err(|_| EncodeError::TooLong)?;
    let whole = stride(length);
    let Some(out) = out.get_mut(..whole) else {
        return Err(EncodeError::NoRoom(whole));
    };
    let header = Header {
        length: length_field.into(),
        kind: kind.number(),
        flags: 0,
        extension_length: (extension.len() as u16).into(),
        topic: fields.topic.get().into(),
        checksum: 0.into(),
        publisher: fields.publisher.get().into(),
        incarnation: fields.incarnation.get().into(),
        publisher_seq: fields.publisher_seq.get().into(),
        key_hash: fields.key_hash.into(),
        origin_time_ns: fields.origin_time_ns.into(),
        seq: 0.into(),
        receive_time_ns: 0.into(),
    };
    out[..HEADER_LENGTH].copy_from_slice(header.as_bytes());
    out[HEADER_LENGTH..HEADER_LENGTH + extension.len()].copy_from_slice(extension);
    out[HEADER_LENGTH + extension.len()..length].copy_from_slice(payload);
    out[length..].fill(0);
    let checksum = checksum_of(&out[..length]);
    out[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    Ok(whole)
}

/// Checks what a publisher may send: a DATA record, stamped fields zero, checksum right.
///
/// # Errors
/// [`RecordError`] says which rule is broken.
pub fn check_published(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let record = Record::parse(bytes)?;
    if !record.is_data() {
        return Err(RecordError::Kind(record.header.kind));
    }
    if record.header.seq.get() != 0 {
        return Err(RecordError::NotZero("seq"));
    }
    if record.header.receive_time_ns.get() != 0 {
        return Err(RecordError::NotZero("receive time"));
    }
    record.verify()?;
    Ok(record)
}

/// Fills the two stamped fields of the record at the start of `bytes`.
///
/// # Panics
/// When `bytes` is shorter than a header: the caller just copied a record there.
pub fn stamp(bytes: &mut [u8], seq: Seq, receive_time_ns: u64) {
    bytes[SEQ_AT..SEQ_AT + 8].copy_from_slice(&seq.get().to_le_bytes());
    bytes[SEQ_AT + 8..SEQ_AT + 16].copy_from_slice(&receive_time_ns.to_le_bytes());
}

/// Gives an unstamped record another topic or publisher sequence and computes its checksum again.
///
/// For a publisher that resolves its topics again after a reconnect, or closes the gap a rejected record leaves.
///
/// # Errors
/// [`RecordError`] when `bytes` is not a record.
pub fn readdress(
    bytes: &mut [u8],
    topic: TopicId,
    publisher_seq: PublisherSeq,
) -> Result<(), RecordError> {
    let length = Record::parse(bytes)?.bytes().len();
    bytes[8..12].copy_from_slice(&topic.get().to_le_bytes());
    bytes[32..40].copy_from_slice(&publisher_seq.get().to_le_bytes());
    let checksum = checksum_of(&bytes[..length]);
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// Body of an EPOCH record.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct EpochBody {
    /// The epoch it opens.
    pub epoch: U64,
    /// Position of the block that carries it.
    pub start_position: U64,
    /// Header checksum of the block before, 0 for none.
    pub previous_checksum: U32,
    /// Copies each release counts on.
    pub copies: u8,
    /// See [`crate::code::Policy`].
    pub policy: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// 1 when the process before was stopped cleanly.
    pub clean: u8,
    /// Zero.
    pub reserved_tail: [u8; 15],
}

const _: () = assert!(size_of::<EpochBody>() == 40);

/// What the body of an EPOCH record of a group has behind [`EpochBody`]: the membership record it was won with
/// ([`crate::membership::Membership::encode`] gives its bytes).
#[must_use]
pub fn epoch_membership(payload: &[u8]) -> Option<Membership> {
    let bytes = payload.get(size_of::<EpochBody>()..)?;
    Membership::decode(bytes).ok()
}

/// Views the body of an EPOCH record.
#[must_use]
pub fn epoch_body(payload: &[u8]) -> Option<&EpochBody> {
    EpochBody::ref_from_prefix(payload)
        .ok()
        .map(|(body, _)| body)
}

/// Body of an UNCLEAN record: what an operator accepted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Hash,
)]
#[repr(C)]
pub struct UncleanBody {
    /// The epoch before, as the record showed it.
    pub epoch_before: U64,
    /// Who led it.
    pub primary_before: U64,
    /// How far the log was known to be released, at least.
    pub floor: U64,
    /// Where the forced node's log ended: what lies between is lost here.
    pub tail: U64,
    /// Why something may be missing: 1 not in the set, 2 below the floor, 3 damage was cut, 5 it followed no primary since it started, 6 a
    /// loss was accepted before, and nothing of the reign that was to begin with it is in the log.
    pub loss: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<UncleanBody>() == 40);

/// Body of a SEAL_KEY record: with which key the node that leads signs the seals of its journal. It is journalled at the start of a
/// reign and when the key is replaced.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Hash,
)]
#[repr(C)]
pub struct SealKeyBody {
    /// The node that leads.
    pub node: U64,
    /// Its ed25519 public key from here on.
    pub key: [u8; 32],
    /// The key this one replaced since the process started; zeroes for none.
    pub replaced: [u8; 32],
}

const _: () = assert!(size_of::<SealKeyBody>() == 72);

/// Views the body of a SEAL_KEY record.
#[must_use]
pub fn seal_key_body(payload: &[u8]) -> Option<&SealKeyBody> {
    SealKeyBody::ref_from_bytes(payload).ok()
}

/// [`ClockBody::error_bound_ns`] where nothing bounds the error.
pub const ERROR_UNBOUNDED: u64 = u64::MAX;
/// Most bytes of the text behind a [`ClockBody`].
pub const CLOCK_SOURCE_LENGTH_MAX: usize = 96;

/// Body of a CLOCK record: what the clock of the node that leads is worth. A text in UTF-8 follows it that names the sources, of at
/// most [`CLOCK_SOURCE_LENGTH_MAX`] bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Hash,
)]
#[repr(C)]
pub struct ClockBody {
    /// The node whose clock it is.
    pub node: U64,
    /// When it was measured, ns UTC by that clock.
    pub measured_ns: U64,
    /// The clock lies within so many ns of UTC, as far as its source knows; [`ERROR_UNBOUNDED`] where it follows none, or
    /// one that bounds nothing.
    pub error_bound_ns: U64,
    /// The kernel's or the daemon's estimate of how far the clock is from its source, ns; positive when the clock is ahead.
    pub offset_ns: I64,
    /// The kernel's estimated error, ns.
    pub kernel_error_ns: U64,
    /// The kernel's maximum error, ns.
    pub kernel_error_ns_max: U64,
    /// By how much the kernel corrects the clock's rate, parts in 10^12.
    pub frequency_ppt: I64,
    /// What adjtimex answered: 0 ok, 1 to 4 about a leap second, 5 not synchronised.
    pub state: u8,
    /// See [`crate::code::ClockDiscipline`].
    pub discipline: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<ClockBody>() == 64);

/// Views the body of a CLOCK record: the figures and the names of the sources.
#[must_use]
pub fn clock_body(payload: &[u8]) -> Option<(&ClockBody, &str)> {
    let (body, sources) = ClockBody::ref_from_prefix(payload).ok()?;
    Some((body, core::str::from_utf8(sources).ok()?))
}

/// Views the body of a TRADING_SESSION record: its number and name.
#[must_use]
pub fn trading_session_body(payload: &[u8]) -> Option<(u64, &str)> {
    let (number, name) = payload.split_first_chunk::<8>()?;
    Some((
        u64::from_le_bytes(*number),
        core::str::from_utf8(name).ok()?,
    ))
}
