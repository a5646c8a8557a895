//! The side index of one finished segment: which blocks hold a seq, a time, a publisher's sequence, a topic, a key.
//!
//! It is made from the released log behind the flow, one file per segment, and says nothing that the log does not say: a
//! missing or damaged one costs the time to scan its segment, not an answer. The same log gives the same bytes on every
//! node. Everything in it leads to blocks; which record of a block is meant the block itself says.
//!
//! ```text
//! page 0     head: what it is of, then one row for each part
//! page 1 ..  part 1: blocks | runs | run entries | topics | keys
//!            part 2 ...
//!            trading sessions
//! ```
//!
//! Every page is 4 KiB and carries its number and checksum, so that a lookup reads and trusts a handful of pages and not the
//! file. A part covers at most 64 MiB of log, so that making one takes bounded memory: at most about 40 bytes for each
//! message of 64 MiB, which is 32 MB for the shortest messages there can be.
//!
//! ```text
//! block, 24 bytes    offset in the segment / 512 (4), messages (4), first seq (8), first receive time (8)
//! run, 32 bytes      publisher (8), incarnation (8), first publisher sequence (8), first entry (4), entries (4)
//! entry, 8 bytes     publisher sequence - the run's first (4), block's number in the part (4)
//! topic, 8 bytes     topic (4), block's number (4)
//! key, 8 bytes       key hash folded to 32 bits (4), block's number (4)
//! session, 272 bytes number (8), first seq (8), length of the name (1), name, zeroes
//! ```
//!
//! [`Builder`] is fed with blocks in order and gives pages to append and, at the end, the head. Files are not its business:
//! they are read in [`crate::reader::side_index`].

mod build;

use core::ops::Range;

use relay_wire::checksum::crc32c;
use relay_wire::id::{Position, Seq, StreamId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::build::{BuildError, Builder};
use crate::block::{BLOCK_ALIGNMENT_MIN, is_zero};
use crate::segment::{Geometry, parse_hex};
use crate::tables::{TRADING_SESSION_NAME_LENGTH_MAX, TradingSession};

/// Name of the directory, beside the segments', that holds the index files.
pub const DIRECTORY: &str = "index";
/// The first eight bytes of an index file, `RELAYIDX`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RELAYIDX");
/// The index format this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a page.
pub const PAGE_LENGTH: usize = 4096;
/// Bytes of a page that hold rows; the page's number and checksum follow.
pub const PAGE_ROOM: usize = PAGE_LENGTH - 8;
/// Most parts of a file.
pub const PARTS_MAX: usize = 64;
/// Most bytes of log in a part, in segments up to 4 GiB.
pub const PART_LENGTH_MAX: u64 = 64 << 20;

const NUMBER_AT: usize = PAGE_ROOM;
const CHECKSUM_AT: usize = PAGE_LENGTH - 4;
const HEAD_LENGTH: usize = 128;

/// File name of a segment's index: the segment's own.
#[must_use]
pub fn name(segment: u64) -> String {
    crate::segment::name(segment)
}

/// Segment of the index with this file name; nothing for every other name.
#[must_use]
pub fn parse_name(name: &str) -> Option<u64> {
    parse_hex(name)
}

/// What a key's hash is indexed by. Other keys may fold to the same: whoever finds a block looks into it.
#[must_use]
pub const fn fold_key(key_hash: u64) -> u32 {
    (key_hash ^ (key_hash >> 32)) as u32
}

/// Why bytes are no index, or not the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexError {
    /// Fewer bytes than a page.
    Short,
    /// The first eight bytes are not the magic.
    Magic,
    /// An intact head of a format version this software does not read.
    Version(u16),
    /// A page's number or checksum does not fit; the page.
    Page(u32),
    /// A field that can't be; the field.
    Inconsistent(&'static str),
    /// It is the index of another log, or of what the segment held before; what does not fit.
    OtherLog(&'static str),
}

impl core::fmt::Display for IndexError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => write!(f, "the index is shorter than a page"),
            Self::Magic => write!(f, "the file is no index"),
            Self::Version(version) => write!(
                f,
                "an index of format version {version}; this software reads {FORMAT_VERSION}"
            ),
            Self::Page(page) => write!(f, "page {page} of the index is damaged"),
            Self::Inconsistent(field) => write!(f, "the index can't be: {field}"),
            Self::OtherLog(field) => write!(f, "the index is of another log: {field}"),
        }
    }
}

impl core::error::Error for IndexError {}

/// A row of one of the tables, of which as many as fit lie in a page, without gaps.
pub trait Row: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    /// Rows in a full page.
    const PER_PAGE: u32 = (PAGE_ROOM / size_of::<Self>()) as u32;
}

/// A block with messages.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct BlockRow {
    /// Its offset in the segment, in units of 512 bytes.
    pub offset: U32,
    /// How many messages it holds.
    pub messages: U32,
    /// Seq of the first.
    pub first_seq: U64,
    /// When that one was received, ns UTC.
    pub first_time_ns: U64,
}

/// A publisher's incarnation within a part.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RunRow {
    /// The publisher.
    pub publisher: U64,
    /// Its incarnation.
    pub incarnation: U64,
    /// The first of its sequences here.
    pub first: U64,
    /// Where its entries begin, as a number among all of the part.
    pub entry: U32,
    /// How many they are.
    pub entries: U32,
}

/// A number and a block that holds it: an entry of a run, a topic or a key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PairRow {
    /// The number.
    pub term: U32,
    /// The block's number in the part, from 0.
    pub block: U32,
}

/// A trading session.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SessionRow {
    /// Its number.
    pub number: U64,
    /// Seq of its first message.
    pub first_seq: U64,
    name_length: u8,
    name: [u8; TRADING_SESSION_NAME_LENGTH_MAX],
}

impl Row for BlockRow {}
impl Row for RunRow {}
impl Row for PairRow {}
impl Row for SessionRow {}

const _: () = assert!(size_of::<BlockRow>() == 24);
const _: () = assert!(size_of::<RunRow>() == 32);
const _: () = assert!(size_of::<PairRow>() == 8);
const _: () = assert!(size_of::<SessionRow>() == 272);

impl SessionRow {
    /// The row of a session; its name is at most 255 bytes, or cut there.
    fn new(number: u64, first_seq: Seq, name: &str) -> Self {
        let length = name.len().min(TRADING_SESSION_NAME_LENGTH_MAX);
        let mut row = Self {
            number: number.into(),
            first_seq: first_seq.0.into(),
            name_length: length as u8,
            name: [0; TRADING_SESSION_NAME_LENGTH_MAX],
        };
        row.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        row
    }

    /// The session it stands for.
    #[must_use]
    pub fn session(&self) -> TradingSession {
        let name = &self.name[..usize::from(self.name_length)];
        TradingSession {
            number: self.number.get(),
            name: String::from_utf8_lossy(name).into(),
            first_seq: Seq(self.first_seq.get()),
        }
    }
}

/// Where a table lies: its first page, and how many rows it has.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Table {
    /// Its first page.
    pub page: U32,
    /// Its rows.
    pub rows: U32,
}

impl Table {
    /// Pages it takes.
    #[must_use]
    pub const fn pages<R: Row>(self) -> u32 {
        self.rows.get().div_ceil(R::PER_PAGE)
    }

    /// Page and offset in it of a row.
    #[must_use]
    pub const fn place<R: Row>(self, row: u32) -> (u32, usize) {
        let page = self.page.get() + row / R::PER_PAGE;
        (page, (row % R::PER_PAGE) as usize * size_of::<R>())
    }
}

/// A part: up to 64 MiB of log.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Part {
    /// Seq of its first message.
    pub first_seq: U64,
    /// When that one was received, ns UTC.
    pub first_time_ns: U64,
    /// [`BlockRow`]s, in the order of the log.
    pub blocks: Table,
    /// [`RunRow`]s, by publisher and incarnation.
    pub runs: Table,
    /// [`PairRow`]s: the runs' entries, in the order of the runs, then of the log.
    pub entries: Table,
    /// [`PairRow`]s of topics, by topic, then block.
    pub topics: Table,
    /// [`PairRow`]s of keys, by folded hash, then block.
    pub keys: Table,
}

const _: () = assert!(size_of::<Part>() == 56);
const _: () = assert!(HEAD_LENGTH + PARTS_MAX * size_of::<Part>() <= PAGE_ROOM);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    magic: U64,
    version: U16,
    parts: U16,
    stream: U32,
    segment: U64,
    segment_size: U64,
    block_alignment: U32,
    pages: U32,
    first_checksum: U32,
    last_checksum: U32,
    last_position: U64,
    first_seq: U64,
    next_seq: U64,
    first_time_ns: U64,
    last_time_ns: U64,
    sessions: Table,
    reserved: [u8; 32],
}

const _: () = assert!(size_of::<RawHead>() == HEAD_LENGTH);

/// What an index says of its segment as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The stream.
    pub stream: StreamId,
    /// The segment.
    pub segment: u64,
    /// Sizes of segments and blocks.
    pub geometry: Geometry,
    /// Pages of the file.
    pub pages: u32,
    /// Checksum of the segment's first block.
    pub first_checksum: u32,
    /// Checksum of its last block: of the whole log up to the segment's end.
    pub last_checksum: u32,
    /// Position of that block.
    pub last_position: Position,
    /// Seq of the first message, or of the next to come where there is none.
    pub first_seq: Seq,
    /// The seq after the last message.
    pub next_seq: Seq,
    /// When the first message was received, ns UTC; 0 where there is none.
    pub first_time_ns: u64,
    /// When the last one was.
    pub last_time_ns: u64,
    /// [`SessionRow`]s: the trading session open at the segment's start, if there was one, and those opened in it.
    pub sessions: Table,
    /// The parts that have messages, in order.
    pub parts: Vec<Part>,
}

impl Head {
    /// Reads page 0.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn decode(page: &[u8]) -> Result<Self, IndexError> {
        let page: &[u8; PAGE_LENGTH] = page.first_chunk().ok_or(IndexError::Short)?;
        let (raw, rest) = RawHead::ref_from_prefix(page).map_err(|_| IndexError::Short)?;
        if raw.magic.get() != MAGIC {
            return Err(IndexError::Magic);
        }
        check_page(page, 0)?;
        if raw.version.get() != FORMAT_VERSION {
            return Err(IndexError::Version(raw.version.get()));
        }
        let demand = |holds: bool, what| holds.then_some(()).ok_or(IndexError::Inconsistent(what));
        let geometry = Geometry::new(raw.segment_size.get(), raw.block_alignment.get());
        let geometry = geometry.map_err(|_| IndexError::Inconsistent("sizes"))?;
        let count = usize::from(raw.parts.get());
        demand(count <= PARTS_MAX, "number of parts")?;
        let (parts, rest) = <[Part]>::ref_from_prefix_with_elems(rest, count)
            .map_err(|_| IndexError::Inconsistent("number of parts"))?;
        demand(
            is_zero(&raw.reserved)
                && is_zero(&rest[..PAGE_ROOM - HEAD_LENGTH - size_of_val(parts)]),
            "reserved area",
        )?;
        let head = Self {
            stream: StreamId(raw.stream.get()),
            segment: raw.segment.get(),
            geometry,
            pages: raw.pages.get(),
            first_checksum: raw.first_checksum.get(),
            last_checksum: raw.last_checksum.get(),
            last_position: Position(raw.last_position.get()),
            first_seq: Seq(raw.first_seq.get()),
            next_seq: Seq(raw.next_seq.get()),
            first_time_ns: raw.first_time_ns.get(),
            last_time_ns: raw.last_time_ns.get(),
            sessions: raw.sessions,
            parts: parts.to_vec(),
        };
        demand(
            geometry.segment_of(head.last_position) == head.segment
                && geometry.is_aligned(head.last_position),
            "last block",
        )?;
        demand(head.first_seq <= head.next_seq, "seqs")?;
        head.check_tables()?;
        Ok(head)
    }

    /// Every table lies within the file, and parts follow each other.
    fn check_tables(&self) -> Result<(), IndexError> {
        let within = |table: &Table, pages: u32| {
            let end = table.page.get().checked_add(pages);
            table.page.get() >= 1 && end.is_some_and(|end| end <= self.pages)
        };
        let whole = |part: &Part| {
            within(&part.blocks, part.blocks.pages::<BlockRow>())
                && within(&part.runs, part.runs.pages::<RunRow>())
                && [&part.entries, &part.topics, &part.keys]
                    .into_iter()
                    .all(|table| within(table, table.pages::<PairRow>()))
                && part.blocks.rows.get() > 0
        };
        let sessions = within(&self.sessions, self.sessions.pages::<SessionRow>());
        if !sessions || !self.parts.iter().all(whole) {
            return Err(IndexError::Inconsistent("tables"));
        }
        let in_order = self.parts.windows(2).all(|pair| {
            pair[0].first_seq.get() < pair[1].first_seq.get()
                && pair[0].first_time_ns.get() <= pair[1].first_time_ns.get()
        });
        in_order
            .then_some(())
            .ok_or(IndexError::Inconsistent("order of parts"))
    }

    /// Page 0.
    fn encode(&self) -> Vec<u8> {
        let raw = RawHead {
            magic: MAGIC.into(),
            version: FORMAT_VERSION.into(),
            parts: (self.parts.len() as u16).into(),
            stream: self.stream.get().into(),
            segment: self.segment.into(),
            segment_size: self.geometry.segment_size().into(),
            block_alignment: self.geometry.block_alignment().into(),
            pages: self.pages.into(),
            first_checksum: self.first_checksum.into(),
            last_checksum: self.last_checksum.into(),
            last_position: self.last_position.0.into(),
            first_seq: self.first_seq.0.into(),
            next_seq: self.next_seq.0.into(),
            first_time_ns: self.first_time_ns.into(),
            last_time_ns: self.last_time_ns.into(),
            sessions: self.sessions,
            reserved: [0; 32],
        };
        let mut page = vec![0; PAGE_LENGTH];
        page[..HEAD_LENGTH].copy_from_slice(raw.as_bytes());
        let parts = self.parts.as_bytes();
        page[HEAD_LENGTH..HEAD_LENGTH + parts.len()].copy_from_slice(parts);
        finish_page(&mut page, 0);
        page
    }

    /// Whether this can be the index of `segment` of a log.
    ///
    /// # Errors
    /// [`IndexError::OtherLog`].
    pub fn check_place(
        &self,
        stream: StreamId,
        geometry: Geometry,
        segment: u64,
    ) -> Result<(), IndexError> {
        let other = if self.stream != stream {
            "stream"
        } else if self.geometry != geometry {
            "sizes"
        } else if self.segment != segment {
            "segment"
        } else {
            return Ok(());
        };
        Err(IndexError::OtherLog(other))
    }

    /// The parts that may hold messages with these seqs, received in these times (ns UTC, both ends included).
    #[must_use]
    pub fn parts_of(&self, seqs: (Seq, Seq), times_ns: (u64, u64)) -> Range<usize> {
        let last_not_after = |is_after: &dyn Fn(&Part) -> bool| {
            let count = self.parts.partition_point(|part| !is_after(part));
            count.saturating_sub(1)
        };
        // A part may begin with messages of the very time the one before ends with.
        let from_seq = last_not_after(&|part| part.first_seq.get() > seqs.0.0);
        let from_time = last_not_after(&|part| part.first_time_ns.get() >= times_ns.0);
        let end = self.parts.partition_point(|part| {
            part.first_seq.get() <= seqs.1.0 && part.first_time_ns.get() <= times_ns.1
        });
        let start = from_seq.max(from_time).min(end);
        start..end
    }
}

/// Bytes of log in each part.
const fn part_length(geometry: Geometry) -> u64 {
    let least = geometry.segment_size().div_ceil(PARTS_MAX as u64);
    if least > PART_LENGTH_MAX {
        least
    } else {
        PART_LENGTH_MAX
    }
}

/// Offset of a block in its segment, as a row has it.
const fn offset_units(geometry: Geometry, position: Position) -> u32 {
    (geometry.offset_of(position) / BLOCK_ALIGNMENT_MIN as u64) as u32
}

impl BlockRow {
    /// Its position, in this segment.
    #[must_use]
    pub const fn position(&self, geometry: Geometry, segment: u64) -> Position {
        let offset = self.offset.get() as u64 * BLOCK_ALIGNMENT_MIN as u64;
        geometry.start_of(segment).plus(offset)
    }
}

/// Checks number and checksum of a page.
///
/// # Errors
/// [`IndexError::Page`].
pub fn check_page(page: &[u8; PAGE_LENGTH], number: u32) -> Result<(), IndexError> {
    let word = |at: usize| U32::from_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    let is_right =
        word(NUMBER_AT).get() == number && word(CHECKSUM_AT).get() == crc32c(&page[..CHECKSUM_AT]);
    is_right.then_some(()).ok_or(IndexError::Page(number))
}

fn finish_page(page: &mut [u8], number: u32) {
    page[NUMBER_AT..CHECKSUM_AT].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c(&page[..CHECKSUM_AT]);
    page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
}
