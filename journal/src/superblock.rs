//! The superblock: what this disk is, and the few facts that must survive without the log.
//!
//! The file `superblock` holds two generations of 4 KiB each. A change is written over the older
//! one and synced; the newest intact generation is the superblock, so a torn write leaves the one
//! before.
//!
//! ```text
//!       0               4               8       10  11  12              16
//!       +-------------------------------+-------+---+---+---------------+
//!     0 | magic                         |version|wrm|flg| stream        |
//!       +-------------------------------+-------+---+---+---------------+
//!    16 | node                          | disk incarnation              |
//!       +-------------------------------+-------------------------------+
//!    32 | generation                    | created                       |
//!       +-------------------------------+---------------+---------------+
//!    48 | segment size                  | block align.  | clean checksum|
//!       +-------------------------------+---------------+---------------+
//!    64 | in-flight bytes max (W)       | clean tail                    |
//!       +-------------------------------+-------------------------------+
//!    80 | clean next seq                | promised                      |
//!       +-------------------------------+-------------------------------+
//!    96 | committed                     | committed nonce               |
//!       +-------------------------------+-------------------------------+
//!   112 | unknown tail                  | ring length                   |
//!       +-------------------------------+-------------------------------+
//!   128 | learning from                 | zero ...                      |
//!       +-------------------------------+               +---------------+
//!  4080 |                                               | checksum      |
//!       +-----------------------------------------------+---------------+
//! ```

use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, NodeId, Position, Seq, StreamId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::is_zero;
use crate::segment::{Geometry, GeometryError};

/// Bytes of one generation.
pub const GENERATION_LENGTH: usize = 4096;
/// Bytes of the file: two generations.
pub const FILE_LENGTH: usize = 2 * GENERATION_LENGTH;
/// Name of the file.
pub const FILE_NAME: &str = "superblock";
/// The first eight bytes, `RELAYSUP`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RELAYSUP");
/// The journal format this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

const CHECKSUM_AT: usize = GENERATION_LENGTH - 4;
const FLAG_CLEAN: u8 = 1;
const FLAG_UNKNOWN_TAIL: u8 = 2;
const FLAG_LEARNING: u8 = 4;

/// How writes of this journal are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WriteMethod {
    /// Each write is durable by itself (`RWF_DSYNC`).
    Dsync = 1,
    /// A data-sync covers the writes before it.
    Covering = 2,
}

impl WriteMethod {
    /// Every method, in order.
    pub const ALL: &'static [Self] = &[Self::Dsync, Self::Covering];

    /// The method with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Dsync),
            2 => Some(Self::Covering),
            _ => None,
        }
    }

    /// Its number on disk.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Where the log ended when the process stopped in order. It is removed, durably, before the next
/// write to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CleanStop {
    /// Where the next block would lie.
    pub tail: Position,
    /// Checksum of the last block; 0 when there is none.
    pub checksum: u32,
    /// The seq the next DATA record would have.
    pub next_seq: Seq,
}

/// One generation of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Superblock {
    /// Version of everything in the journal's directory.
    pub format_version: u16,
    /// The node this disk belongs to.
    pub node: NodeId,
    /// The stream it holds.
    pub stream: StreamId,
    /// Random number given when the journal was made: which copy of the node's data this is.
    pub disk_incarnation: u64,
    /// When the journal was made, ns UTC.
    pub created_ns: u64,
    /// Bytes of a segment file; see [`Geometry`].
    pub segment_size: u64,
    /// Blocks start at multiples of this many bytes; see [`Geometry`].
    pub block_alignment: u32,
    /// How writes are made durable.
    pub write_method: WriteMethod,
    /// The most bytes of the log, from the durable end to the end of the last block submitted, that
    /// may be in flight at once; a filler counts with its span. Recovery's W: at least one block,
    /// at most 1 GiB.
    pub in_flight_bytes_max: u64,
    /// Rises by one with each change.
    pub generation: u64,
    /// Present from a stop in order to the next start.
    pub clean: Option<CleanStop>,
    /// The highest epoch this node promised.
    pub promised: Epoch,
    /// The epoch of the newest membership record it read.
    pub committed: Epoch,
    /// That record's nonce.
    pub committed_nonce: u64,
    /// Where damage was cut at a start and what was lost is still unknown (the mark of rule R17).
    pub unknown_tail: Option<Position>,
    /// Bytes of the memory ring last used with this journal, 0 for not yet known.
    pub ring_length: u64,
    /// Present while this copy is outside its group's in-sync set: from here on no release rested on
    /// what it holds, though its blocks may carry released positions far ahead.
    pub learning_from: Option<Position>,
}

/// Largest W, bytes.
pub const IN_FLIGHT_BYTES_LIMIT: u64 = 1 << 30;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    magic: U64,
    version: U16,
    write_method: u8,
    flags: u8,
    stream: U32,
    node: U64,
    disk_incarnation: U64,
    generation: U64,
    created_ns: U64,
    segment_size: U64,
    block_alignment: U32,
    clean_checksum: U32,
    in_flight_bytes_max: U64,
    clean_tail: U64,
    clean_next_seq: U64,
    promised: U64,
    committed: U64,
    committed_nonce: U64,
    unknown_tail: U64,
    ring_length: U64,
    learning_from: U64,
}

const RAW_LENGTH: usize = 136;
const _: () = assert!(size_of::<RawSuperblock>() == RAW_LENGTH);

/// Why there is no superblock to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperblockError {
    /// Fewer bytes than a generation.
    Short,
    /// No generation has the magic: this is not a journal.
    NotAJournal,
    /// An intact generation of a format older than this software reads.
    OlderVersion(u16),
    /// An intact generation of a format newer than this software knows.
    NewerVersion(u16),
    /// It was a superblock, but its checksum does not fit. From [`newest`]: neither does the
    /// other's.
    Damaged,
    /// An intact generation with a field that can't be; the field.
    Inconsistent(&'static str),
    /// Sizes out of range.
    Geometry(GeometryError),
    /// The journal of another node.
    OtherNode {
        /// The node it belongs to.
        found: NodeId,
        /// The node that asked.
        wanted: NodeId,
    },
    /// The journal of another stream.
    OtherStream {
        /// The stream it holds.
        found: StreamId,
        /// The stream that was asked for.
        wanted: StreamId,
    },
}

impl core::fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => write!(f, "the superblock file is shorter than a superblock"),
            Self::NotAJournal => write!(
                f,
                "this is not a journal: the superblock file has no superblock in it; check the \
                 path, or make a journal with `relayd format`"
            ),
            Self::OlderVersion(version) => write!(
                f,
                "the journal has format version {version}, older than {FORMAT_VERSION}, the only \
                 one this software reads: replay it into a new journal with the `relay` command \
                 of a release for version {version}"
            ),
            Self::NewerVersion(version) => write!(
                f,
                "the journal has format version {version}, newer than {FORMAT_VERSION}, the only \
                 one this software reads: use the release that wrote it or a later one"
            ),
            Self::Damaged => write!(
                f,
                "both generations of the superblock are damaged: take the node's data from a peer"
            ),
            Self::Inconsistent(field) => write!(f, "the superblock's {field} can't be"),
            Self::Geometry(error) => write!(f, "the superblock can't be: {error}"),
            Self::OtherNode { found, wanted } => write!(
                f,
                "the journal belongs to node {found}, not to node {wanted}: check the path"
            ),
            Self::OtherStream { found, wanted } => write!(
                f,
                "the journal holds stream {found}, not stream {wanted}: check the path"
            ),
        }
    }
}

impl core::error::Error for SuperblockError {}

impl Superblock {
    /// The sizes of its segments and blocks.
    ///
    /// # Panics
    /// When the sizes are out of range: decoding checked them, and who makes a superblock has to.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        match Geometry::new(self.segment_size, self.block_alignment) {
            Ok(geometry) => geometry,
            Err(_) => panic!("a superblock's sizes are in range"),
        }
    }

    /// Refuses a journal that is another node's or another stream's.
    ///
    /// # Errors
    /// [`SuperblockError::OtherNode`] or [`SuperblockError::OtherStream`].
    pub fn check_identity(&self, node: NodeId, stream: StreamId) -> Result<(), SuperblockError> {
        if self.node != node {
            return Err(SuperblockError::OtherNode {
                found: self.node,
                wanted: node,
            });
        }
        if self.stream != stream {
            return Err(SuperblockError::OtherStream {
                found: self.stream,
                wanted: stream,
            });
        }
        Ok(())
    }

    /// The bytes of this generation.
    ///
    /// # Panics
    /// When a field is out of range: what can't be read back must not be written.
    #[must_use]
    pub fn encode(&self) -> [u8; GENERATION_LENGTH] {
        assert_eq!(
            self.check(),
            Ok(()),
            "a superblock is written as it can be read"
        );
        let clean = self.clean.unwrap_or(CleanStop {
            tail: Position(0),
            checksum: 0,
            next_seq: Seq(0),
        });
        let mut flags = 0;
        if self.clean.is_some() {
            flags |= FLAG_CLEAN;
        }
        if self.unknown_tail.is_some() {
            flags |= FLAG_UNKNOWN_TAIL;
        }
        if self.learning_from.is_some() {
            flags |= FLAG_LEARNING;
        }
        let raw = RawSuperblock {
            magic: MAGIC.into(),
            version: self.format_version.into(),
            write_method: self.write_method.number(),
            flags,
            stream: self.stream.get().into(),
            node: self.node.get().into(),
            disk_incarnation: self.disk_incarnation.into(),
            generation: self.generation.into(),
            created_ns: self.created_ns.into(),
            segment_size: self.segment_size.into(),
            block_alignment: self.block_alignment.into(),
            clean_checksum: clean.checksum.into(),
            in_flight_bytes_max: self.in_flight_bytes_max.into(),
            clean_tail: clean.tail.get().into(),
            clean_next_seq: clean.next_seq.get().into(),
            promised: self.promised.get().into(),
            committed: self.committed.get().into(),
            committed_nonce: self.committed_nonce.into(),
            unknown_tail: self.unknown_tail.unwrap_or_default().get().into(),
            ring_length: self.ring_length.into(),
            learning_from: self.learning_from.unwrap_or_default().get().into(),
        };
        let mut bytes = [0; GENERATION_LENGTH];
        bytes[..RAW_LENGTH].copy_from_slice(raw.as_bytes());
        let checksum = crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads one generation.
    ///
    /// # Errors
    /// Every [`SuperblockError`] but the two about identity.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let bytes = bytes
            .first_chunk::<GENERATION_LENGTH>()
            .ok_or(SuperblockError::Short)?;
        let (raw, rest) = RawSuperblock::ref_from_prefix(bytes).expect("a generation is longer");
        if raw.magic.get() != MAGIC {
            return Err(SuperblockError::NotAJournal);
        }
        if crc32c(&bytes[..CHECKSUM_AT]).to_le_bytes() != bytes[CHECKSUM_AT..] {
            return Err(SuperblockError::Damaged);
        }
        match raw.version.get() {
            FORMAT_VERSION => {}
            older if older < FORMAT_VERSION => return Err(SuperblockError::OlderVersion(older)),
            newer => return Err(SuperblockError::NewerVersion(newer)),
        }
        if !is_zero(&rest[..rest.len() - 4]) {
            return Err(SuperblockError::Inconsistent("reserved area"));
        }
        let superblock = raw.read()?;
        superblock.check()?;
        Ok(superblock)
    }

    fn check(&self) -> Result<(), SuperblockError> {
        let geometry = Geometry::new(self.segment_size, self.block_alignment)
            .map_err(SuperblockError::Geometry)?;
        if self.format_version != FORMAT_VERSION {
            return Err(SuperblockError::Inconsistent("format version"));
        }
        let in_flight = u64::from(self.block_alignment)..=IN_FLIGHT_BYTES_LIMIT;
        if !in_flight.contains(&self.in_flight_bytes_max) {
            return Err(SuperblockError::Inconsistent("in-flight limit"));
        }
        if let Some(clean) = self.clean
            && (!geometry.is_aligned(clean.tail) || clean.next_seq.0 == 0)
        {
            return Err(SuperblockError::Inconsistent("clean stop"));
        }
        if let Some(position) = self.unknown_tail
            && !geometry.is_aligned(position)
        {
            return Err(SuperblockError::Inconsistent("unknown tail"));
        }
        if let Some(position) = self.learning_from
            && !geometry.is_aligned(position)
        {
            return Err(SuperblockError::Inconsistent("learning mark"));
        }
        Ok(())
    }
}

impl RawSuperblock {
    fn read(&self) -> Result<Superblock, SuperblockError> {
        if self.flags & !(FLAG_CLEAN | FLAG_UNKNOWN_TAIL | FLAG_LEARNING) != 0 {
            return Err(SuperblockError::Inconsistent("flags"));
        }
        let is_clean = self.flags & FLAG_CLEAN != 0;
        let is_unknown = self.flags & FLAG_UNKNOWN_TAIL != 0;
        let is_learning = self.flags & FLAG_LEARNING != 0;
        let clean = CleanStop {
            tail: Position(self.clean_tail.get()),
            checksum: self.clean_checksum.get(),
            next_seq: Seq(self.clean_next_seq.get()),
        };
        if !is_clean && (clean.tail.0 != 0 || clean.checksum != 0 || clean.next_seq.0 != 0) {
            return Err(SuperblockError::Inconsistent("clean stop"));
        }
        if !is_unknown && self.unknown_tail.get() != 0 {
            return Err(SuperblockError::Inconsistent("unknown tail"));
        }
        if !is_learning && self.learning_from.get() != 0 {
            return Err(SuperblockError::Inconsistent("learning mark"));
        }
        Ok(Superblock {
            format_version: self.version.get(),
            node: NodeId(self.node.get()),
            stream: StreamId(self.stream.get()),
            disk_incarnation: self.disk_incarnation.get(),
            created_ns: self.created_ns.get(),
            segment_size: self.segment_size.get(),
            block_alignment: self.block_alignment.get(),
            write_method: WriteMethod::from_number(self.write_method)
                .ok_or(SuperblockError::Inconsistent("write method"))?,
            in_flight_bytes_max: self.in_flight_bytes_max.get(),
            generation: self.generation.get(),
            clean: is_clean.then_some(clean),
            promised: Epoch(self.promised.get()),
            committed: Epoch(self.committed.get()),
            committed_nonce: self.committed_nonce.get(),
            unknown_tail: is_unknown.then_some(Position(self.unknown_tail.get())),
            ring_length: self.ring_length.get(),
            learning_from: is_learning.then_some(Position(self.learning_from.get())),
        })
    }
}

/// The newest intact one of the two generations, and its slot (0 or 1): the next change goes to the
/// other.
///
/// An intact generation of a newer format decides alone: the older one beside it is no longer true.
///
/// # Errors
/// When neither can be used, the error that says most: a version, then what can't be, then damage,
/// then no journal.
pub fn newest(a: &[u8], b: &[u8]) -> Result<(Superblock, usize), SuperblockError> {
    match (Superblock::decode(a), Superblock::decode(b)) {
        (Err(newer @ SuperblockError::NewerVersion(_)), _)
        | (_, Err(newer @ SuperblockError::NewerVersion(_))) => Err(newer),
        (Ok(a), Ok(b)) if b.generation > a.generation => Ok((b, 1)),
        (Ok(a), _) => Ok((a, 0)),
        (Err(_), Ok(b)) => Ok((b, 1)),
        (Err(a), Err(b)) => Err(if weight(a) >= weight(b) { a } else { b }),
    }
}

const fn weight(error: SuperblockError) -> u8 {
    match error {
        SuperblockError::NewerVersion(_) => 5,
        SuperblockError::OlderVersion(_) => 4,
        SuperblockError::Inconsistent(_) | SuperblockError::Geometry(_) => 3,
        SuperblockError::Damaged => 2,
        SuperblockError::NotAJournal => 1,
        SuperblockError::Short
        | SuperblockError::OtherNode { .. }
        | SuperblockError::OtherStream { .. } => 0,
    }
}
