//! The block: records sealed together, the unit of writing, mirroring and recovery.
//!
//! ```text
//!       0               4               8       10  11  12              16
//!       +-------------------------------+-------+---+---+---------------+
//!     0 | magic                         |version|knd| 0 | stream        |
//!       +-------------------------------+-------+---+---+---------------+
//!    16 | epoch                         | block number                  |
//!       +-------------------------------+-------------------------------+
//!    32 | position                      | first seq                     |
//!       +---------------+---------------+---------------+---------------+
//!    48 | record count  | data count    | body length   | span          |
//!       +---------------+---------------+---------------+---------------+
//!    64 | sealed time                   | released position             |
//!       +---------------+---------------+---------------+---------------+
//!    80 | prev. checksum| body checksum | zero ...                      |
//!       +---------------+---------------+                               +
//!    96 |                                                               |
//!       +                                               +---------------+
//!   112 |                                               | header checks.|
//!       +-----------------------------------------------+---------------+
//!   128 | records, each padded to 8 ... zeroes up to span               |
//! ```
//!
//! The header checksum covers the body checksum and the previous block's header checksum, so it
//! stands for the whole log up to here: it is *the* checksum of a block. Whether a block continues
//! the log is not decided here but where the log is known ([`crate::tables`], [`crate::scan`]).

use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, Position, Seq, StreamId};
use relay_wire::record::{self, Record, RecordError};
use relay_wire::stride;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block's header.
pub const HEADER_LENGTH: usize = 128;
/// The first eight bytes of every block, `RELAYBLK`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RELAYBLK");
/// The block format this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;
/// Smallest block alignment, bytes.
pub const BLOCK_ALIGNMENT_MIN: u32 = 512;
/// Largest block alignment, bytes.
pub const BLOCK_ALIGNMENT_MAX: u32 = 65_536;
/// Most bytes from a records or mark block's position to the next block's: room for the longest
/// record (1 MiB of payload and its extension area) behind a block already filled to 256 KiB, twice
/// over.
pub const SPAN_MAX: u32 = 4 * 1024 * 1024;

const CHECKSUM_AT: usize = 124;
const RECORD_ALIGNMENT: u32 = relay_wire::ITEM_ALIGNMENT as u32;

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Carries records.
    Records = 1,
    /// Empty; carries a released position no other block has yet carried.
    Mark = 2,
    /// Takes up what is left of a segment.
    Filler = 3,
}

impl BlockKind {
    /// Every kind, in order.
    pub const ALL: &'static [Self] = &[Self::Records, Self::Mark, Self::Filler];

    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Records),
            2 => Some(Self::Mark),
            3 => Some(Self::Filler),
            _ => None,
        }
    }

    /// Its number on disk.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The header as it lies on disk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U64,
    version: U16,
    kind: u8,
    reserved: u8,
    stream: U32,
    epoch: U64,
    number: U64,
    position: U64,
    first_seq: U64,
    record_count: U32,
    data_count: U32,
    body_length: U32,
    span: U32,
    sealed_time_ns: U64,
    released: U64,
    previous_checksum: U32,
    body_checksum: U32,
    reserved_tail: [u8; 36],
    checksum: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LENGTH);

/// A block's header, its lengths consistent with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the block is for.
    pub kind: BlockKind,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// The epoch it was sealed in.
    pub epoch: Epoch,
    /// Its number in the log, from 1, one more than the block before.
    pub number: u64,
    /// Its own address in the log.
    pub position: Position,
    /// The seq of its first DATA record; of the next one to come when it has none.
    pub first_seq: Seq,
    /// How many records it carries, control records included.
    pub record_count: u32,
    /// How many of them are DATA records, each using up one seq.
    pub data_count: u32,
    /// Bytes of records with their padding, from byte 128 on; a multiple of 8.
    pub body_length: u32,
    /// Bytes to the next block's position; a multiple of the block alignment.
    pub span: u32,
    /// When it was sealed, ns UTC.
    pub sealed_time_ns: u64,
    /// How far the log was released when it was sealed; never past its own position.
    pub released: Position,
    /// The checksum of the block before; 0 for the first.
    pub previous_checksum: u32,
    /// CRC-32C of the body.
    pub body_checksum: u32,
    /// CRC-32C of bytes 0 to 123 of the header: the checksum of the block and of the log up to its
    /// end.
    pub checksum: u32,
}

impl BlockHeader {
    /// Where the next block lies.
    #[must_use]
    pub const fn next_position(&self) -> Position {
        self.position.plus(self.span as u64)
    }

    /// The seq the first DATA record after this block has.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        Seq(self.first_seq.0 + self.data_count as u64)
    }

    /// Whether its first seq may follow a log whose last block is of `epoch` and after which `next`
    /// is due. Where an epoch opens with an accepted loss it lies further on: what may have been
    /// released beyond that log's end had the seqs between. That the block says so the fold checks.
    #[must_use]
    pub const fn is_seq_due(&self, epoch: Epoch, next: Seq) -> bool {
        self.first_seq.0 == next.0 || (self.epoch.0 > epoch.0 && self.first_seq.0 > next.0)
    }

    /// Bytes from the block's start to the end of its records, padding to the alignment left out.
    #[must_use]
    pub const fn body_end(&self) -> usize {
        HEADER_LENGTH + self.body_length as usize
    }

    /// Bytes of the block that are ever written: all of it, but for a filler only the first
    /// alignment unit.
    #[must_use]
    pub const fn written_length(&self, block_alignment: u32) -> u32 {
        match self.kind {
            BlockKind::Records | BlockKind::Mark => self.span,
            BlockKind::Filler => block_alignment,
        }
    }

    /// Whether kind, counts and lengths can stand together; which they can't, by name.
    const fn check(&self) -> Result<(), &'static str> {
        let body = self.body_length as u64;
        if !self.body_length.is_multiple_of(RECORD_ALIGNMENT) {
            return Err("body length");
        }
        if self.span == 0 || !self.span.is_multiple_of(BLOCK_ALIGNMENT_MIN) {
            return Err("span");
        }
        if (self.span as u64) < HEADER_LENGTH as u64 + body {
            return Err("span");
        }
        if !self.position.0.is_multiple_of(BLOCK_ALIGNMENT_MIN as u64) {
            return Err("position");
        }
        if self.position.0.checked_add(self.span as u64).is_none() {
            return Err("position");
        }
        if self.number == 0 || self.number == u64::MAX {
            return Err("block number");
        }
        if self.first_seq.0 == 0
            || self
                .first_seq
                .0
                .checked_add(self.data_count as u64)
                .is_none()
        {
            return Err("first seq");
        }
        if self.data_count > self.record_count {
            return Err("data count");
        }
        if (self.record_count as u64) * (record::HEADER_LENGTH as u64) > body {
            return Err("record count");
        }
        if self.released.0 > self.position.0 {
            return Err("released position");
        }
        match self.kind {
            BlockKind::Records if self.record_count == 0 => Err("record count"),
            BlockKind::Records | BlockKind::Mark if self.span > SPAN_MAX => Err("span"),
            BlockKind::Mark | BlockKind::Filler if body != 0 => Err("body length"),
            _ => Ok(()),
        }
    }
}

/// Why bytes are not an intact block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockError {
    /// Fewer bytes than a header, or than the header says.
    Short,
    /// The first eight bytes are not the magic.
    Magic,
    /// The header checksum does not fit.
    HeaderChecksum {
        /// What the header carries.
        carried: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// An intact header of a format version this software does not read.
    Version(u16),
    /// An intact header of a kind that is not defined.
    Kind(u8),
    /// An intact header with a reserved byte that is not zero.
    NotZero,
    /// An intact header whose fields can't stand together; the field.
    Inconsistent(&'static str),
    /// The body checksum does not fit.
    BodyChecksum {
        /// What the header carries.
        carried: u32,
        /// What the body gives.
        computed: u32,
    },
    /// A byte between the records and the end of the block is not zero.
    Padding,
}

impl core::fmt::Display for BlockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => write!(f, "the bytes end before the block does"),
            Self::Magic => write!(f, "no block starts here"),
            Self::HeaderChecksum { carried, computed } => write!(
                f,
                "the header carries checksum {carried:#010x}, its bytes give {computed:#010x}"
            ),
            Self::Version(version) => write!(
                f,
                "a block of format version {version}; this software reads {FORMAT_VERSION}"
            ),
            Self::Kind(kind) => write!(f, "a block of undefined kind {kind}"),
            Self::NotZero => write!(f, "a reserved byte of the header is not zero"),
            Self::Inconsistent(field) => write!(f, "the header's {field} can't be"),
            Self::BodyChecksum { carried, computed } => write!(
                f,
                "the header carries body checksum {carried:#010x}, the body gives {computed:#010x}"
            ),
            Self::Padding => write!(f, "the padding behind the records is not zero"),
        }
    }
}

impl core::error::Error for BlockError {}

/// The span of a block with so many bytes of body: header and body, rounded up to the alignment.
///
/// # Panics
/// When the span is past [`SPAN_MAX`] or the alignment no power of two: the caller packs by these
/// limits.
#[must_use]
pub const fn span_for(body_length: u32, block_alignment: u32) -> u32 {
    assert!(
        block_alignment.is_power_of_two(),
        "the alignment is a power of two"
    );
    assert!(body_length <= SPAN_MAX, "a body fits in the longest block");
    let span = (HEADER_LENGTH as u32 + body_length).next_multiple_of(block_alignment);
    assert!(span <= SPAN_MAX, "a block stays within its limit");
    span
}

/// Completes a block whose body already lies at `block[128..128 + body_length]`: computes both
/// checksums, writes the header and zeroes the padding up to the span or the end of `block`,
/// whichever comes first.
///
/// `body_checksum` and `checksum` of `header` are ignored; the header returned has them.
///
/// # Panics
/// When `block` is shorter than header and body, or the header's fields can't stand together: both
/// are the caller's bugs, and must not reach a disk.
pub fn seal(block: &mut [u8], header: &BlockHeader) -> BlockHeader {
    if let Err(field) = header.check() {
        panic!("a block is sealed with an impossible {field}");
    }
    assert!(
        header.body_end() <= block.len(),
        "a block has room for its body"
    );
    let mut sealed = *header;
    sealed.body_checksum = crc32c(&block[HEADER_LENGTH..header.body_end()]);
    let raw = RawHeader {
        magic: MAGIC.into(),
        version: FORMAT_VERSION.into(),
        kind: sealed.kind.number(),
        reserved: 0,
        stream: sealed.stream.get().into(),
        epoch: sealed.epoch.get().into(),
        number: sealed.number.into(),
        position: sealed.position.get().into(),
        first_seq: sealed.first_seq.get().into(),
        record_count: sealed.record_count.into(),
        data_count: sealed.data_count.into(),
        body_length: sealed.body_length.into(),
        span: sealed.span.into(),
        sealed_time_ns: sealed.sealed_time_ns.into(),
        released: sealed.released.get().into(),
        previous_checksum: sealed.previous_checksum.into(),
        body_checksum: sealed.body_checksum.into(),
        reserved_tail: [0; 36],
        checksum: 0.into(),
    };
    block[..HEADER_LENGTH].copy_from_slice(raw.as_bytes());
    sealed.checksum = crc32c(&block[..CHECKSUM_AT]);
    block[CHECKSUM_AT..HEADER_LENGTH].copy_from_slice(&sealed.checksum.to_le_bytes());
    let end = block.len().min(sealed.span as usize);
    block[header.body_end()..end].fill(0);
    sealed
}

/// Reads the header at the start of `bytes`. Magic, then checksum, then version, and only then the
/// rest is believed: a version is refused only where it was really written.
///
/// # Errors
/// Every [`BlockError`] but the two about the body.
pub fn decode_header(bytes: &[u8]) -> Result<BlockHeader, BlockError> {
    let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| BlockError::Short)?;
    if raw.magic.get() != MAGIC {
        return Err(BlockError::Magic);
    }
    let carried = raw.checksum.get();
    let computed = crc32c(&bytes[..CHECKSUM_AT]);
    if carried != computed {
        return Err(BlockError::HeaderChecksum { carried, computed });
    }
    if raw.version.get() != FORMAT_VERSION {
        return Err(BlockError::Version(raw.version.get()));
    }
    if raw.reserved != 0 || raw.reserved_tail != [0; 36] {
        return Err(BlockError::NotZero);
    }
    let header = BlockHeader {
        kind: BlockKind::from_number(raw.kind).ok_or(BlockError::Kind(raw.kind))?,
        stream: StreamId(raw.stream.get()),
        epoch: Epoch(raw.epoch.get()),
        number: raw.number.get(),
        position: Position(raw.position.get()),
        first_seq: Seq(raw.first_seq.get()),
        record_count: raw.record_count.get(),
        data_count: raw.data_count.get(),
        body_length: raw.body_length.get(),
        span: raw.span.get(),
        sealed_time_ns: raw.sealed_time_ns.get(),
        released: Position(raw.released.get()),
        previous_checksum: raw.previous_checksum.get(),
        body_checksum: raw.body_checksum.get(),
        checksum: carried,
    };
    header.check().map_err(BlockError::Inconsistent)?;
    Ok(header)
}

/// Compares the body checksum with the body, which is exactly `header.body_length` bytes long.
///
/// # Errors
/// [`BlockError::Short`] for another length, else [`BlockError::BodyChecksum`].
pub fn verify_body(header: &BlockHeader, body: &[u8]) -> Result<(), BlockError> {
    if body.len() != header.body_length as usize {
        return Err(BlockError::Short);
    }
    let (carried, computed) = (header.body_checksum, crc32c(body));
    if carried == computed {
        Ok(())
    } else {
        Err(BlockError::BodyChecksum { carried, computed })
    }
}

/// Checks that what lies behind the records is zero.
///
/// # Errors
/// [`BlockError::Padding`].
pub fn verify_padding(padding: &[u8]) -> Result<(), BlockError> {
    if is_zero(padding) {
        Ok(())
    } else {
        Err(BlockError::Padding)
    }
}

/// Whether every byte is zero; 64 at a time, so that the compiler uses the widest registers.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks
        .iter()
        .all(|chunk| chunk.iter().fold(0, |all, &byte| all | byte) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

/// The records of a body, in order, each with its offset in the body.
#[must_use]
pub const fn records(body: &[u8]) -> Records<'_> {
    Records { body, offset: 0 }
}

/// Iterator over the records of a body; see [`records`]. It ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    body: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, Record<'a>), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.body.get(self.offset..)?;
        if rest.is_empty() {
            return None;
        }
        let parsed = Record::parse(rest).and_then(|record| {
            let length = record.bytes().len();
            match rest.get(length..stride(length)) {
                None => Err(RecordError::Truncated),
                Some(padding) if padding.iter().any(|&byte| byte != 0) => {
                    Err(RecordError::NotZero("padding"))
                }
                Some(_) => Ok(record),
            }
        });
        match parsed {
            Ok(record) => {
                let offset = self.offset;
                self.offset += record.stride();
                Some(Ok((offset, record)))
            }
            Err(error) => {
                self.offset = self.body.len();
                Some(Err(error))
            }
        }
    }
}
