//! Seals: what a journal's segments were when they were full and released, chained and signed.
//!
//! The file `seals` in the journal's directory is a row of entries of 256 bytes, appended one at a time and synced. A SEAL
//! says what one segment holds and what its bytes hash to; a KEY names the key that signs from there on, signed by the one
//! before (the first by itself); a CUT says that the log was cut below what was sealed, so that seals from there on are
//! void. Two kinds of statement are kept apart on purpose:
//!
//! * what follows from the log alone (bytes 0 to 159 of a SEAL). Its BLAKE3 hash is the *seal hash*, which the next seal
//!   names: the same log gives the same seal hashes on every node, and one of them stands for all the log before it;
//! * what is this node's own: when, with which key, the signature.
//!
//! ```text
//!       0               4               8       10  11  12              16
//!       +-------------------------------+-------+---+---+---------------+
//!     0 | magic                         |version|knd| 0 | stream        |
//!       +-------------------------------+-------+---+---+---------------+
//!    16 | segment                       | start position                |
//!       +-------------------------------+-------------------------------+
//!    32 | end position                  | first seq                     |
//!       +-------------------------------+-------------------------------+
//!    48 | last seq                      | record count                  |
//!       +-------------------------------+-------------------------------+
//!    64 | next block number             | epoch                         |
//!       +---------------+---------------+-------------------------------+
//!    80 | log checksum  | zero                                          |
//!       +---------------+-----------------------------------------------+
//!    96 | hash of the seal before (32)                                  |
//!       +---------------------------------------------------------------+
//!   128 | root of the segment; in a KEY the public key (32)             |
//!       +-------------------------------+-------------------------------+
//!   160 | time                          | key id of the signer          |
//!       +-------------------------------+-------------------------------+
//!   176 | ed25519 signature over bytes 0 to 175 (64)                    |
//!       +-----------------------------------------------+---------------+
//!   240 | zero                                          | checksum      |
//!       +-----------------------------------------------+---------------+
//! ```
//!
//! Here is the layout; beside it the sum over a segment's blocks that a seal is made from ([`SegmentSum`]), and the rules by
//! which one entry follows another ([`Chain`]). Files are read in [`crate::reader::seals`]; whoever seals writes them.

mod chain;
mod key;
mod sum;

use core::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, Position, Seq, StreamId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) use self::chain::is_torn;
pub use self::chain::{Chain, ChainError, FileError, FileErrorKind, read_file};
pub use self::key::{Digest, KeyId, NotHex, PublicKey, SigningKey};
pub use self::sum::{SegmentSum, SumError};
use crate::scan::Link;

/// Name of the file.
pub const FILE_NAME: &str = "seals";
/// Bytes of an entry.
pub const ENTRY_LENGTH: usize = 256;
/// The first eight bytes of every entry, `RELAYSEL`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RELAYSEL");
/// The version of entries this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

const KIND_SEAL: u8 = 1;
const KIND_KEY: u8 = 2;
const KIND_CUT: u8 = 3;
/// What the seal hash is over.
const STATEMENT_LENGTH: usize = 160;
/// What is signed.
const SIGNED_LENGTH: usize = 176;
const CHECKSUM_AT: usize = ENTRY_LENGTH - 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    magic: U64,
    version: U16,
    kind: u8,
    reserved: u8,
    stream: U32,
    segment: U64,
    start: U64,
    end: U64,
    first_seq: U64,
    last_seq: U64,
    record_count: U64,
    next_block_number: U64,
    epoch: U64,
    log_checksum: U32,
    reserved_middle: [u8; 12],
    previous: [u8; 32],
    root: [u8; 32],
    time_ns: U64,
    signer: U64,
    signature: [u8; 64],
    reserved_tail: [u8; 12],
    checksum: U32,
}

const _: () = assert!(size_of::<RawEntry>() == ENTRY_LENGTH);

/// What a seal says of a segment: it follows from the log alone, and is the same on every node that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The stream.
    pub stream: StreamId,
    /// Index of the segment.
    pub segment: u64,
    /// Position of its first byte.
    pub start: Position,
    /// Position behind its last byte.
    pub end: Position,
    /// Seq of its first DATA record; of the next one to come when it has none.
    pub first_seq: Seq,
    /// One less than the seq that is due behind the segment: the seq of its last DATA record when it has some.
    pub last_seq: Seq,
    /// Records in it, control records included.
    pub record_count: u64,
    /// Number of the block that follows.
    pub next_block_number: u64,
    /// Epoch of its last block.
    pub epoch: Epoch,
    /// Header checksum of its last block: the checksum of the whole log up to here.
    pub log_checksum: u32,
    /// Seal hash of the segment before; zeroes where there is none.
    pub previous: Digest,
    /// BLAKE3 of the segment's bytes; what lies behind a filler's first alignment unit counts as zeroes.
    pub root: Digest,
}

impl Statement {
    /// The seal hash.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let raw = raw_of(&Said::Seal(*self), self.stream);
        Digest(*blake3::hash(&raw.as_bytes()[..STATEMENT_LENGTH]).as_bytes())
    }

    /// What the block behind the segment must be.
    #[must_use]
    pub const fn link(&self) -> Link {
        Link {
            number: self.next_block_number,
            previous_checksum: self.log_checksum,
            epoch: self.epoch,
            first_seq: Seq(self.last_seq.0 + 1),
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// What a segment holds.
    Seal(Statement),
    /// From this segment on another key signs.
    Key {
        /// The first segment it seals.
        segment: u64,
        /// Seal hash of the segment before; zeroes where there is none.
        previous: Digest,
        /// The key.
        key: PublicKey,
    },
    /// The log was cut below what was sealed: seals of this segment and of those behind it are void.
    Cut {
        /// The first segment whose seal is void.
        segment: u64,
        /// Where the log was cut.
        position: Position,
        /// The epoch this node was in.
        epoch: Epoch,
        /// Seal hash of the segment before; zeroes where there is none.
        previous: Digest,
    },
}

impl Said {
    /// The segment it is about.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        match self {
            Self::Seal(Statement { segment, .. })
            | Self::Key { segment, .. }
            | Self::Cut { segment, .. } => *segment,
        }
    }

    /// The seal hash it says the segment before has.
    #[must_use]
    pub const fn previous(&self) -> Digest {
        match self {
            Self::Seal(Statement { previous, .. })
            | Self::Key { previous, .. }
            | Self::Cut { previous, .. } => *previous,
        }
    }
}

/// One entry of the file. Whether its signature fits is another question ([`Entry::is_signed_by`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The stream.
    pub stream: StreamId,
    /// What it says.
    pub said: Said,
    /// When it was made, ns UTC by this node's clock.
    pub time_ns: u64,
    /// Who signed it.
    pub signer: KeyId,
    /// The signature.
    pub signature: [u8; 64],
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryError {
    /// Fewer bytes than an entry.
    Short,
    /// The first eight bytes are not the magic.
    Magic,
    /// The checksum does not fit.
    Checksum,
    /// An intact entry of another version.
    Version(u16),
    /// An intact entry of a kind that is not defined.
    Kind(u8),
    /// An intact entry with a field that can't be; the field.
    Inconsistent(&'static str),
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "the bytes end before the entry does"),
            Self::Magic => write!(f, "no entry starts here"),
            Self::Checksum => write!(f, "its checksum does not fit"),
            Self::Version(version) => write!(
                f,
                "it has format version {version}; this software reads {FORMAT_VERSION}"
            ),
            Self::Kind(kind) => write!(f, "it is of undefined kind {kind}"),
            Self::Inconsistent(field) => write!(f, "its {field} can't be"),
        }
    }
}

impl core::error::Error for EntryError {}

fn raw_of(said: &Said, stream: StreamId) -> RawEntry {
    let mut raw = RawEntry {
        magic: MAGIC.into(),
        version: FORMAT_VERSION.into(),
        kind: KIND_SEAL,
        reserved: 0,
        stream: stream.get().into(),
        segment: said.segment().into(),
        start: 0.into(),
        end: 0.into(),
        first_seq: 0.into(),
        last_seq: 0.into(),
        record_count: 0.into(),
        next_block_number: 0.into(),
        epoch: 0.into(),
        log_checksum: 0.into(),
        reserved_middle: [0; 12],
        previous: said.previous().0,
        root: [0; 32],
        time_ns: 0.into(),
        signer: 0.into(),
        signature: [0; 64],
        reserved_tail: [0; 12],
        checksum: 0.into(),
    };
    match said {
        Said::Seal(statement) => {
            raw.start = statement.start.get().into();
            raw.end = statement.end.get().into();
            raw.first_seq = statement.first_seq.get().into();
            raw.last_seq = statement.last_seq.get().into();
            raw.record_count = statement.record_count.into();
            raw.next_block_number = statement.next_block_number.into();
            raw.epoch = statement.epoch.get().into();
            raw.log_checksum = statement.log_checksum.into();
            raw.root = statement.root.0;
        }
        Said::Key { key, .. } => {
            raw.kind = KIND_KEY;
            raw.root = key.0;
        }
        Said::Cut {
            position, epoch, ..
        } => {
            raw.kind = KIND_CUT;
            raw.start = position.get().into();
            raw.epoch = epoch.get().into();
        }
    }
    raw
}

impl Entry {
    /// Says something, signed with `key`.
    #[must_use]
    pub fn sign(said: Said, stream: StreamId, time_ns: u64, key: &SigningKey) -> Self {
        let mut entry = Self {
            stream,
            said,
            time_ns,
            signer: key.public().id(),
            signature: [0; 64],
        };
        entry.signature = key.sign(&entry.encode()[..SIGNED_LENGTH]);
        entry
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LENGTH] {
        let mut raw = raw_of(&self.said, self.stream);
        raw.time_ns = self.time_ns.into();
        raw.signer = self.signer.0.into();
        raw.signature = self.signature;
        let mut bytes = [0; ENTRY_LENGTH];
        bytes.copy_from_slice(raw.as_bytes());
        let checksum = crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the entry at the start of `bytes`. An entry that is read is, byte for byte, the one [`Entry::encode`] gives.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let bytes = bytes
            .first_chunk::<ENTRY_LENGTH>()
            .ok_or(EntryError::Short)?;
        let raw = RawEntry::ref_from_bytes(bytes).expect("an entry has its length");
        if raw.magic.get() != MAGIC {
            return Err(EntryError::Magic);
        }
        if crc32c(&bytes[..CHECKSUM_AT]) != raw.checksum.get() {
            return Err(EntryError::Checksum);
        }
        if raw.version.get() != FORMAT_VERSION {
            return Err(EntryError::Version(raw.version.get()));
        }
        let entry = Self {
            stream: StreamId(raw.stream.get()),
            said: raw.said()?,
            time_ns: raw.time_ns.get(),
            signer: KeyId(raw.signer.get()),
            signature: raw.signature,
        };
        // Every byte that the kind does not use is zero.
        if entry.encode() != *bytes {
            return Err(EntryError::Inconsistent("reserved bytes"));
        }
        Ok(entry)
    }

    /// Whether this key made the signature.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
            key.verify_strict(&self.encode()[..SIGNED_LENGTH], &signature)
                .is_ok()
        })
    }
}

impl RawEntry {
    fn said(&self) -> Result<Said, EntryError> {
        let segment = self.segment.get();
        let previous = Digest(self.previous);
        match self.kind {
            KIND_SEAL => self.statement().map(Said::Seal),
            KIND_KEY => Ok(Said::Key {
                segment,
                previous,
                key: PublicKey(self.root),
            }),
            KIND_CUT => Ok(Said::Cut {
                segment,
                position: Position(self.start.get()),
                epoch: Epoch(self.epoch.get()),
                previous,
            }),
            kind => Err(EntryError::Kind(kind)),
        }
    }

    fn statement(&self) -> Result<Statement, EntryError> {
        let statement = Statement {
            stream: StreamId(self.stream.get()),
            segment: self.segment.get(),
            start: Position(self.start.get()),
            end: Position(self.end.get()),
            first_seq: Seq(self.first_seq.get()),
            last_seq: Seq(self.last_seq.get()),
            record_count: self.record_count.get(),
            next_block_number: self.next_block_number.get(),
            epoch: Epoch(self.epoch.get()),
            log_checksum: self.log_checksum.get(),
            previous: Digest(self.previous),
            root: Digest(self.root),
        };
        let length = statement.end.get().checked_sub(statement.start.get());
        let is_placed = length.is_some_and(|length| {
            length > 0 && statement.segment.checked_mul(length) == Some(statement.start.get())
        });
        if !is_placed {
            return Err(EntryError::Inconsistent("positions"));
        }
        // One may follow, and a segment without messages ends with the seq before its first.
        let is_numbered = statement.first_seq.get() > 0
            && statement.last_seq.get() < u64::MAX
            && statement.last_seq.get() >= statement.first_seq.get() - 1;
        if !is_numbered {
            return Err(EntryError::Inconsistent("seqs"));
        }
        Ok(statement)
    }
}
