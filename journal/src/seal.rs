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
//! Here are the layout, the sum over a segment's blocks that a seal is made from ([`SegmentSum`]), and the rules by which one
//! entry follows another ([`Chain`]). Files are read in [`crate::reader::seals`]; whoever seals writes them.

use core::fmt;

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, Position, Seq, StreamId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::{
    BlockError, BlockHeader, BlockKind, HEADER_LENGTH, decode_header, is_zero, verify_body,
    verify_padding,
};
use crate::scan::{Front, Link, judge};
use crate::segment::Geometry;

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

/// A BLAKE3 hash: of a segment (its root), or of a seal. It is shown, and read back, as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// An ed25519 public key. It is shown, and read back, as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Names a public key in a seal: the first eight bytes of its BLAKE3 hash, shown as 16 hexadecimal digits. It says which key
/// to try, and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u64);

/// A signing key. Its secret is never shown, and overwritten in memory when it is dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let text = text.as_bytes();
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl core::str::FromStr for Digest {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self).ok_or(NotHex)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl core::str::FromStr for PublicKey {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self).ok_or(NotHex)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHex;

impl fmt::Display for NotHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("64 hexadecimal digits are wanted")
    }
}

impl core::error::Error for NotHex {}

impl PublicKey {
    /// Its name in seals.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = blake3::hash(&self.0);
        let (front, _) = digest
            .as_bytes()
            .split_first_chunk()
            .expect("a hash is 32 bytes");
        KeyId(u64::from_le_bytes(*front))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// The key with this secret, 32 random bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret))
    }

    /// The key others check its signatures with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

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
        let signature = key.0.sign(&entry.encode()[..SIGNED_LENGTH]);
        entry.signature = signature.to_bytes();
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

/// Why an entry does not follow the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainError {
    /// It is another stream's.
    Stream(StreamId),
    /// Its segment is not the one that is due.
    Segment {
        /// The one it names.
        found: u64,
        /// The one that is due.
        due: u64,
    },
    /// It names another hash as that of the seal before.
    Previous {
        /// The one it names.
        found: Digest,
        /// What the seal before hashes to.
        due: Digest,
    },
    /// A seal stands before any key.
    NoKey,
    /// A cut of a segment that was not sealed.
    NothingToCut(u64),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => write!(f, "it belongs to stream {stream}"),
            Self::Segment { found, due } => {
                write!(f, "it is about segment {found} where segment {due} is due")
            }
            Self::Previous { found, due } => {
                write!(f, "it follows a seal {found}, the one before it is {due}")
            }
            Self::NoKey => write!(f, "no key was named before it"),
            Self::NothingToCut(segment) => {
                write!(
                    f,
                    "it takes back the seal of segment {segment}, which has none"
                )
            }
        }
    }
}

impl core::error::Error for ChainError {}

/// The seals of a journal as far as they go: the fold of the entries, without a look at signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    stream: StreamId,
    key: Option<PublicKey>,
    seals: Vec<Statement>,
}

impl Chain {
    /// The chain of a journal without a seal.
    #[must_use]
    pub const fn empty(stream: StreamId) -> Self {
        Self {
            stream,
            key: None,
            seals: Vec::new(),
        }
    }

    /// Takes the next entry in; where it does not follow, nothing changes.
    ///
    /// # Errors
    /// [`ChainError`] says why it does not follow.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), ChainError> {
        if entry.stream != self.stream {
            return Err(ChainError::Stream(entry.stream));
        }
        let found = entry.said.segment();
        if let Said::Cut { segment, .. } = entry.said {
            if segment >= self.next_segment() {
                return Err(ChainError::NothingToCut(segment));
            }
        } else if found != self.next_segment() {
            let due = self.next_segment();
            return Err(ChainError::Segment { found, due });
        }
        let (found, due) = (entry.said.previous(), self.hash_before(found));
        if found != due {
            return Err(ChainError::Previous { found, due });
        }
        match entry.said {
            Said::Key { key, .. } => self.key = Some(key),
            _ if self.key.is_none() => return Err(ChainError::NoKey),
            Said::Seal(statement) => self.seals.push(statement),
            Said::Cut { segment, .. } => self.seals.truncate(segment as usize),
        }
        Ok(())
    }

    /// The segment that is to be sealed next.
    #[must_use]
    pub fn next_segment(&self) -> u64 {
        self.seals.len() as u64
    }

    /// Where the sealed part of the log ends.
    #[must_use]
    pub fn end(&self) -> Position {
        self.last().map_or(Position(0), |seal| seal.end)
    }

    /// The newest seal.
    #[must_use]
    pub fn last(&self) -> Option<&Statement> {
        self.seals.last()
    }

    /// The seals that stand, by segment.
    #[must_use]
    pub fn seals(&self) -> &[Statement] {
        &self.seals
    }

    /// The key that signs at the end.
    #[must_use]
    pub const fn key(&self) -> Option<&PublicKey> {
        self.key.as_ref()
    }

    /// What an entry about `segment` names as the seal hash before it.
    #[must_use]
    pub fn hash_before(&self, segment: u64) -> Digest {
        let before = (segment as usize).checked_sub(1);
        let before = before.and_then(|before| self.seals.get(before));
        before.map(Statement::hash).unwrap_or_default()
    }
}

/// Why a file of seals can't be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileError {
    /// Offset of the entry in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub what: FileErrorKind,
}

/// See [`FileError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileErrorKind {
    /// It is damaged, and others follow it.
    Entry(EntryError),
    /// It does not follow the one before.
    Chain(ChainError),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the entry at byte {} of the seals: ", self.offset)?;
        match self.what {
            FileErrorKind::Entry(error) => write!(f, "{error}"),
            FileErrorKind::Chain(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for FileError {}

/// Reads a file of seals for going on with it: the chain, and how many bytes of the file are whole entries. What lies behind
/// them is an entry that was being written when the process died, and is to be written over.
///
/// # Errors
/// [`FileError`] where an entry in the middle is damaged or one does not follow the one before: that is no crash's doing.
pub fn read_file(stream: StreamId, bytes: &[u8]) -> Result<(Chain, usize), FileError> {
    let mut chain = Chain::empty(stream);
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let failed = |what| FileError {
            offset: offset as u64,
            what,
        };
        let entry = match Entry::decode(rest) {
            Ok(entry) => entry,
            Err(error) if is_torn(rest, error) => break,
            Err(error) => return Err(failed(FileErrorKind::Entry(error))),
        };
        let applied = chain.apply(&entry);
        applied.map_err(|error| failed(FileErrorKind::Chain(error)))?;
        offset += ENTRY_LENGTH;
    }
    Ok((chain, offset))
}

/// Whether what is left of the file may be an entry of which only a part was written.
pub(crate) const fn is_torn(rest: &[u8], error: EntryError) -> bool {
    rest.len() <= ENTRY_LENGTH
        && matches!(
            error,
            EntryError::Short | EntryError::Magic | EntryError::Checksum
        )
}

/// The first place of a segment that is not the log it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumError {
    /// Position of the block.
    pub position: Position,
    /// What lies there.
    pub front: Front,
}

impl fmt::Display for SumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at position {}", self.front, self.position)
    }
}

impl core::error::Error for SumError {}

/// Zeroes that stand for what lies behind a filler's first unit.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The sum over one segment's blocks, taken in as they are read; at its end, what a seal says.
#[derive(Debug, Clone)]
pub struct SegmentSum {
    geometry: Geometry,
    stream: StreamId,
    segment: u64,
    previous: Digest,
    position: Position,
    link: Option<Link>,
    first_seq: Seq,
    message_count: u64,
    record_count: u64,
    last: Option<BlockHeader>,
    hasher: blake3::Hasher,
}

impl SegmentSum {
    /// The sum of `segment`, nothing taken in. `link` is what its first block must be, where that is known; `previous` the
    /// seal hash of the segment before, zeroes where there is none.
    #[must_use]
    pub fn new(
        geometry: Geometry,
        stream: StreamId,
        segment: u64,
        link: Option<Link>,
        previous: Digest,
    ) -> Self {
        Self {
            geometry,
            stream,
            segment,
            previous,
            position: geometry.start_of(segment),
            link,
            first_seq: Seq(0),
            message_count: 0,
            record_count: 0,
            last: None,
            hasher: blake3::Hasher::new(),
        }
    }

    /// The position of the next block.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// What the next block must be, where that is known.
    #[must_use]
    pub const fn link(&self) -> Option<Link> {
        self.link
    }

    /// The segment it is the sum of.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// Whether the segment's last block was taken in.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.position.since(self.geometry.start_of(self.segment)) >= self.geometry.segment_size()
    }

    /// Takes in the whole blocks at the start of `bytes`, which lie at [`SegmentSum::position`]; returns how many bytes they
    /// take, of a filler only those that are written. Each block that is right is handed to `visit`. With
    /// [`crate::block::SPAN_MAX`] bytes, or the rest of the segment, at least one block is taken in.
    ///
    /// # Errors
    /// [`SumError`] at the first block that is damaged or does not continue the log; those before it were taken in.
    pub fn take(
        &mut self,
        bytes: &[u8],
        visit: &mut dyn FnMut(&BlockHeader, &[u8]),
    ) -> Result<usize, SumError> {
        let mut taken = 0;
        let mut filled = 0;
        let mut error = None;
        while !self.is_complete() {
            match self.examine(&bytes[taken..]) {
                Ok(Some(header)) => {
                    let rest = &bytes[taken..];
                    visit(&header, &rest[HEADER_LENGTH..header.body_end()]);
                    taken += self.written_length(&header);
                    filled = self.add(&header);
                }
                Ok(None) => break,
                Err(front) => {
                    error = Some(front);
                    break;
                }
            }
        }
        // In one piece: the hash is several times faster over long stretches.
        self.hasher.update(&bytes[..taken]);
        while filled > 0 {
            let step = filled.min(ZEROES.len());
            self.hasher.update(&ZEROES[..step]);
            filled -= step;
        }
        match error {
            None => Ok(taken),
            Some(front) => Err(SumError {
                position: self.position,
                front,
            }),
        }
    }

    fn written_length(&self, header: &BlockHeader) -> usize {
        header.written_length(self.geometry.block_alignment()) as usize
    }

    /// The next block, if it lies whole at the start of `bytes`.
    fn examine(&self, bytes: &[u8]) -> Result<Option<BlockHeader>, Front> {
        let Some(head) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let header = match decode_header(head) {
            Ok(header) => header,
            Err(BlockError::Version(_)) => return Err(Front::OtherVersion),
            Err(_) if is_zero(head) => return Err(Front::Absent),
            Err(_) => return Err(Front::BadHeader),
        };
        if header.stream != self.stream {
            return Err(Front::ForeignStream);
        }
        let header = judge(&header, self.position, self.link.as_ref(), &self.geometry)?;
        let Some(written) = bytes.get(HEADER_LENGTH..self.written_length(&header)) else {
            return Ok(None);
        };
        let (body, padding) = written.split_at(header.body_length as usize);
        verify_body(&header, body).map_err(|_| Front::BadBody)?;
        verify_padding(padding).map_err(|_| Front::BadPadding)?;
        Ok(Some(header))
    }

    /// Moves past a block; how many zeroes follow what is written of it.
    fn add(&mut self, header: &BlockHeader) -> usize {
        // As long as there is no message, a block may still skip seqs: a loss was accepted.
        if self.message_count == 0 {
            self.first_seq = header.first_seq;
        }
        self.message_count += u64::from(header.data_count);
        self.record_count += u64::from(header.record_count);
        self.position = header.next_position();
        self.link = Some(Link::after_block(header));
        self.last = Some(*header);
        if header.kind == BlockKind::Filler {
            header.span as usize - self.written_length(header)
        } else {
            0
        }
    }

    /// What the seal of the segment says, once it is complete.
    #[must_use]
    pub fn statement(&self) -> Option<Statement> {
        let last = self.last.filter(|_| self.is_complete())?;
        Some(Statement {
            stream: self.stream,
            segment: self.segment,
            start: self.geometry.start_of(self.segment),
            end: self.position,
            first_seq: self.first_seq,
            last_seq: Seq(last.next_seq().get() - 1),
            record_count: self.record_count,
            next_block_number: last.number + 1,
            epoch: last.epoch,
            log_checksum: last.checksum,
            previous: self.previous,
            root: Digest(*self.hasher.finalize().as_bytes()),
        })
    }
}
