//! A checkpoint: the tables at one position as a file, so that a start reads the end of the log
//! only.
//!
//! ```text
//!       0               4               8       10      12              16
//!       +-------------------------------+-------+-------+---------------+
//!     0 | magic                         |version|name l.| stream        |
//!       +-------------------------------+-------+-------+---------------+
//!    16 | position                      | length of the whole           |
//!       +-------------------------------+-------------------------------+
//!    32 | next block number             | epoch                         |
//!       +-------------------------------+-------------------------------+
//!    48 | next seq                      | earliest seq                  |
//!       +-------------------------------+-------------------------------+
//!    64 | last receive time             | released position             |
//!       +---------------+---------------+-------------------------------+
//!    80 | prev. checksum| last checksum | index spacing                 |
//!       +---------------+---------------+---------------+---------------+
//!    96 | topics        | publishers    | epochs        | index entries |
//!       +---------------+---------------+---------------+---------------+
//!   112 | trading session number        | its first seq, 0 for none     |
//!       +-------------------------------+-------------------------------+
//!   128 | zero                                                          |
//!       +                                               +---------------+
//!   144 |                                               | checksum      |
//!       +-----------------------------------------------+---------------+
//!   160 | name of the trading session, then topics: length (1), name; zeroes to a multiple of 8
//!       | publishers, 40 bytes each, by id
//!       | epochs, 32 bytes each, oldest first
//!       | index entries, 32 bytes each, in order
//! ```
//!
//! The checksum covers every other byte. A damaged checkpoint costs the time to read more of the
//! log, never data; so decoding is strict, and a count is believed only as far as the bytes behind
//! it go.

use std::sync::Arc;

use relay_wire::checksum::{crc32c, crc32c_append};
use relay_wire::code::Policy;
use relay_wire::id::{
    Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::{BLOCK_ALIGNMENT_MIN, is_zero};
use crate::position_index::{IndexEntry, PositionIndex};
use crate::segment;
use crate::tables::{
    EpochEntry, Publisher, Publishers, TRADING_SESSION_NAME_LENGTH_MAX, Tables, TradingSession,
};
use crate::topics::Topics;

/// The first eight bytes of a checkpoint, `RELAYCHK`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RELAYCHK");
/// The checkpoint format this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LENGTH: usize = 160;

const CHECKSUM_AT: usize = HEADER_LENGTH - 4;
const NAME_PREFIX: &str = "checkpoint-";
/// No count or position of a real log comes near; what is above would overflow on the way.
const NUMBER_MAX: u64 = 1 << 62;

/// File name of the checkpoint at a position: `checkpoint-` and 16 hexadecimal digits.
#[must_use]
pub fn name(position: Position) -> String {
    format!("{NAME_PREFIX}{:016x}", position.0)
}

/// Position of the checkpoint with this file name; nothing for every other name.
#[must_use]
pub fn parse_name(name: &str) -> Option<Position> {
    segment::parse_hex(name.strip_prefix(NAME_PREFIX)?).map(Position)
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U64,
    version: U16,
    session_name_length: U16,
    stream: U32,
    position: U64,
    length: U64,
    next_block_number: U64,
    epoch: U64,
    next_seq: U64,
    earliest_seq: U64,
    last_time_ns: U64,
    released: U64,
    previous_checksum: U32,
    last_checksum: U32,
    index_spacing: U64,
    topics: U32,
    publishers: U32,
    epochs: U32,
    index_entries: U32,
    session_number: U64,
    session_first_seq: U64,
    reserved: [u8; 28],
    checksum: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LENGTH);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPublisher {
    publisher: U64,
    incarnation: U64,
    last: U64,
    last_seq: U64,
    last_checksum: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEpoch {
    epoch: U64,
    start: U64,
    first_seq: U64,
    previous_checksum: U32,
    copies: u8,
    policy: u8,
    clean: u8,
    unclean: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndexEntry {
    position: U64,
    first_seq: U64,
    time_before_ns: U64,
    sealed_time_ns: U64,
}

const _: () = assert!(size_of::<RawPublisher>() == 40);
const _: () = assert!(size_of::<RawEpoch>() == 32);
const _: () = assert!(size_of::<RawIndexEntry>() == 32);

/// Why bytes are not a checkpoint. Every one of them means: use the one before, or read the log
/// from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointError {
    /// Fewer bytes than a header.
    Short,
    /// The first eight bytes are not the magic.
    Magic,
    /// The header's length is not that of the bytes.
    Length {
        /// What the header says.
        stated: u64,
        /// How many there are.
        found: u64,
    },
    /// The checksum does not fit.
    Checksum {
        /// What the header carries.
        carried: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A format version this software does not read.
    Version(u16),
    /// A field or a section can't be; which.
    Inconsistent(&'static str),
}

impl core::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => write!(f, "the checkpoint is shorter than its header"),
            Self::Magic => write!(f, "this is not a checkpoint"),
            Self::Length { stated, found } => {
                write!(
                    f,
                    "the checkpoint says it has {stated} bytes, it has {found}"
                )
            }
            Self::Checksum { carried, computed } => write!(
                f,
                "the checkpoint carries checksum {carried:#010x}, its bytes give {computed:#010x}"
            ),
            Self::Version(version) => write!(
                f,
                "a checkpoint of format version {version}; this software reads {FORMAT_VERSION}"
            ),
            Self::Inconsistent(part) => write!(f, "the checkpoint's {part} can't be"),
        }
    }
}

impl core::error::Error for CheckpointError {}

/// The bytes of a checkpoint with these tables. The same tables give the same bytes.
///
/// # Panics
/// When a table has more than 2^32 - 1 rows, far past what the fold admits.
#[must_use]
pub fn encode(tables: &Tables) -> Vec<u8> {
    let count = |rows: usize| U32::new(u32::try_from(rows).expect("rows are counted in 32 bits"));
    let index = &tables.index;
    let session = tables.trading_session.as_ref();
    let rows = tables.publishers.len() * size_of::<RawPublisher>()
        + (tables.epochs.len() + index.entries().len()) * size_of::<RawEpoch>();
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + 32 * tables.topics.len() + rows + 264);
    bytes.resize(HEADER_LENGTH, 0);
    put_names(&mut bytes, tables);
    put_rows(&mut bytes, tables);
    let raw = RawHeader {
        magic: MAGIC.into(),
        version: FORMAT_VERSION.into(),
        session_name_length: (session.map_or(0, |session| session.name.len()) as u16).into(),
        stream: tables.stream.get().into(),
        position: tables.position.get().into(),
        length: (bytes.len() as u64).into(),
        next_block_number: tables.next_block_number.into(),
        epoch: tables.epoch.get().into(),
        next_seq: tables.next_seq.get().into(),
        earliest_seq: tables.earliest_seq.get().into(),
        last_time_ns: tables.last_time_ns.into(),
        released: tables.released.get().into(),
        previous_checksum: tables.previous_checksum.into(),
        last_checksum: tables.last_checksum.into(),
        index_spacing: index.spacing().into(),
        topics: count(tables.topics.len()),
        publishers: count(tables.publishers.len()),
        epochs: count(tables.epochs.len()),
        index_entries: count(index.entries().len()),
        session_number: session.map_or(0, |session| session.number).into(),
        session_first_seq: session.map_or(0, |session| session.first_seq.get()).into(),
        reserved: [0; 28],
        checksum: 0.into(),
    };
    bytes[..HEADER_LENGTH].copy_from_slice(raw.as_bytes());
    let checksum = checksum_of(&bytes);
    bytes[CHECKSUM_AT..HEADER_LENGTH].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn checksum_of(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CHECKSUM_AT]), &bytes[HEADER_LENGTH..])
}

fn put_names(bytes: &mut Vec<u8>, tables: &Tables) {
    if let Some(session) = &tables.trading_session {
        bytes.extend_from_slice(session.name.as_bytes());
    }
    for (_, name) in tables.topics.iter() {
        bytes.push(u8::try_from(name.len()).expect("a topic's name has at most 255 bytes"));
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

fn put_rows(bytes: &mut Vec<u8>, tables: &Tables) {
    let mut publishers: Vec<_> = tables.publishers.iter().collect();
    publishers.sort_unstable_by_key(|(publisher, _)| **publisher);
    for (publisher, row) in publishers {
        let raw = RawPublisher {
            publisher: publisher.get().into(),
            incarnation: row.incarnation.get().into(),
            last: row.last.get().into(),
            last_seq: row.last_seq.get().into(),
            last_checksum: row.last_checksum.into(),
            reserved: 0.into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    for row in &tables.epochs {
        let raw = RawEpoch {
            epoch: row.epoch.get().into(),
            start: row.start.get().into(),
            first_seq: row.first_seq.get().into(),
            previous_checksum: row.previous_checksum.into(),
            copies: row.copies,
            policy: row.policy.number(),
            clean: row.clean.into(),
            unclean: row.unclean.into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    for row in tables.index.entries() {
        let raw = RawIndexEntry {
            position: row.position.get().into(),
            first_seq: row.first_seq.get().into(),
            time_before_ns: row.time_before_ns.into(),
            sealed_time_ns: row.sealed_time_ns.into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
}

/// Reads a checkpoint: magic, length and checksum first, then every row.
///
/// # Errors
/// [`CheckpointError`]; nothing of the checkpoint is to be used then.
pub fn decode(bytes: &[u8]) -> Result<Tables, CheckpointError> {
    let (raw, body) = check(bytes)?;
    let mut reader = Sections { rest: body };
    let tables = Tables {
        stream: StreamId(raw.stream.get()),
        position: Position(raw.position.get()),
        next_block_number: raw.next_block_number.get(),
        previous_checksum: raw.previous_checksum.get(),
        epoch: Epoch(raw.epoch.get()),
        next_seq: Seq(raw.next_seq.get()),
        last_checksum: raw.last_checksum.get(),
        earliest_seq: Seq(raw.earliest_seq.get()),
        last_time_ns: raw.last_time_ns.get(),
        released: Position(raw.released.get()),
        trading_session: reader.session(raw)?,
        topics: reader.topics(raw.topics.get() as usize)?,
        publishers: reader.publishers(raw)?,
        epochs: reader.epochs(raw)?,
        index: reader.index(raw)?,
    };
    if reader.rest.is_empty() {
        Ok(tables)
    } else {
        Err(CheckpointError::Inconsistent("length"))
    }
}

/// An intact checkpoint of which single facts are looked up, in a fraction of the time that decoding all of it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// The stream.
    pub stream: StreamId,
    /// Where the checkpoint stands.
    pub position: Position,
    /// The epochs, oldest first.
    pub epochs: Vec<EpochEntry>,
    /// Where to start reading for a seq or a time.
    pub index: PositionIndex,
    bytes: Vec<u8>,
    /// Offset of the first topic's name.
    topics_at: usize,
    topics: u32,
}

impl Glance {
    /// Takes the bytes of a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        let (raw, body) = check(&bytes)?;
        let mut reader = Sections { rest: body };
        reader.session(raw)?;
        let topics_at = bytes.len() - reader.rest.len();
        let topics = raw.topics.get();
        for _ in 0..topics {
            reader.name()?;
        }
        reader.take(reader.rest.len() % 8, "topics")?;
        let _: &[RawPublisher] = reader.rows(raw.publishers.get(), "publishers")?;
        Ok(Self {
            stream: StreamId(raw.stream.get()),
            position: Position(raw.position.get()),
            epochs: reader.epochs(raw)?,
            index: reader.index(raw)?,
            topics_at,
            topics,
            bytes,
        })
    }

    /// The name of a topic, if it is defined.
    #[must_use]
    pub fn topic_name(&self, topic: TopicId) -> Option<&str> {
        let before = topic.get().checked_sub(1)?;
        if before >= self.topics {
            return None;
        }
        let mut reader = Sections {
            rest: &self.bytes[self.topics_at..],
        };
        for _ in 0..before {
            reader.name().ok()?;
        }
        core::str::from_utf8(reader.name().ok()?).ok()
    }
}

/// Header and body of an intact checkpoint of this version.
fn check(bytes: &[u8]) -> Result<(&RawHeader, &[u8]), CheckpointError> {
    let (raw, body) = RawHeader::ref_from_prefix(bytes).map_err(|_| CheckpointError::Short)?;
    if raw.magic.get() != MAGIC {
        return Err(CheckpointError::Magic);
    }
    let (stated, found) = (raw.length.get(), bytes.len() as u64);
    if stated != found {
        return Err(CheckpointError::Length { stated, found });
    }
    let (carried, computed) = (raw.checksum.get(), checksum_of(bytes));
    if carried != computed {
        return Err(CheckpointError::Checksum { carried, computed });
    }
    if raw.version.get() != FORMAT_VERSION {
        return Err(CheckpointError::Version(raw.version.get()));
    }
    raw.check()?;
    Ok((raw, body))
}

/// Names the part when it can't be.
const fn demand(holds: bool, part: &'static str) -> Result<(), CheckpointError> {
    if holds {
        Ok(())
    } else {
        Err(CheckpointError::Inconsistent(part))
    }
}

impl RawHeader {
    fn check(&self) -> Result<(), CheckpointError> {
        let position = self.position.get();
        let alignment = u64::from(BLOCK_ALIGNMENT_MIN);
        demand(self.reserved == [0; 28], "reserved area")?;
        demand(
            position <= NUMBER_MAX && position.is_multiple_of(alignment),
            "position",
        )?;
        let number = self.next_block_number.get();
        demand((1..=NUMBER_MAX).contains(&number), "block number")?;
        demand((number == 1) == (position == 0), "block number")?;
        demand((1..=NUMBER_MAX).contains(&self.next_seq.get()), "next seq")?;
        let earliest = 1..=self.next_seq.get();
        demand(earliest.contains(&self.earliest_seq.get()), "earliest seq")?;
        demand(self.released.get() <= position, "released position")?;
        let spacing = self.index_spacing.get();
        demand(spacing <= NUMBER_MAX, "index spacing")
    }
}

/// What is left of the body.
struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], CheckpointError> {
        let split = self.rest.split_at_checked(length);
        let (taken, rest) = split.ok_or(CheckpointError::Inconsistent(part))?;
        self.rest = rest;
        Ok(taken)
    }

    /// So many rows, if the bytes are there.
    fn rows<T>(&mut self, count: u32, part: &'static str) -> Result<&'a [T], CheckpointError>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        let split = <[T]>::ref_from_prefix_with_elems(self.rest, count as usize);
        let (rows, rest) = split.map_err(|_| CheckpointError::Inconsistent(part))?;
        self.rest = rest;
        Ok(rows)
    }

    fn session(&mut self, raw: &RawHeader) -> Result<Option<TradingSession>, CheckpointError> {
        let part = "trading session";
        let length = usize::from(raw.session_name_length.get());
        let first_seq = raw.session_first_seq.get();
        demand(length <= TRADING_SESSION_NAME_LENGTH_MAX, part)?;
        demand(first_seq <= raw.next_seq.get(), part)?;
        if first_seq == 0 {
            demand(length == 0 && raw.session_number.get() == 0, part)?;
            return Ok(None);
        }
        let name = core::str::from_utf8(self.take(length, part)?);
        Ok(Some(TradingSession {
            number: raw.session_number.get(),
            name: Arc::from(name.map_err(|_| CheckpointError::Inconsistent(part))?),
            first_seq: Seq(first_seq),
        }))
    }

    /// The name of a topic.
    fn name(&mut self) -> Result<&'a [u8], CheckpointError> {
        let length = self.take(1, "topics")?[0];
        self.take(usize::from(length), "topics")
    }

    /// The topics, and the zeroes behind all names.
    fn topics(&mut self, count: usize) -> Result<Topics, CheckpointError> {
        let part = "topics";
        // A topic takes two bytes at least, so a count can't ask for more memory than the bytes
        // justify.
        demand(count <= self.rest.len() / 2, part)?;
        let mut topics = Topics::default();
        topics.reserve(count);
        for _ in 0..count {
            let defined = topics.define(self.name()?);
            defined.map_err(|_| CheckpointError::Inconsistent(part))?;
        }
        let padding = self.take(self.rest.len() % 8, part)?;
        demand(is_zero(padding), part)?;
        Ok(topics)
    }

    fn publishers(&mut self, raw: &RawHeader) -> Result<Publishers, CheckpointError> {
        let part = "publishers";
        let rows: &[RawPublisher] = self.rows(raw.publishers.get(), part)?;
        let mut publishers = Publishers::default();
        publishers.reserve(rows.len());
        let mut before = 0;
        for row in rows {
            let publisher = row.publisher.get();
            demand(publisher > before && row.reserved.get() == 0, part)?;
            demand(
                row.incarnation.get() != 0 && row.last.get() <= NUMBER_MAX,
                part,
            )?;
            demand(row.last_seq.get() < raw.next_seq.get(), part)?;
            before = publisher;
            let row = Publisher {
                incarnation: Incarnation(row.incarnation.get()),
                last: PublisherSeq(row.last.get()),
                last_seq: Seq(row.last_seq.get()),
                last_checksum: row.last_checksum.get(),
            };
            publishers.insert(PublisherId(publisher), row);
        }
        Ok(publishers)
    }

    fn epochs(&mut self, raw: &RawHeader) -> Result<Vec<EpochEntry>, CheckpointError> {
        let part = "epochs";
        let rows: &[RawEpoch] = self.rows(raw.epochs.get(), part)?;
        let mut epochs: Vec<EpochEntry> = Vec::with_capacity(rows.len());
        for row in rows {
            let policy = Policy::from_number(row.policy);
            let entry = EpochEntry {
                epoch: Epoch(row.epoch.get()),
                start: Position(row.start.get()),
                previous_checksum: row.previous_checksum.get(),
                first_seq: Seq(row.first_seq.get()),
                copies: row.copies,
                policy: policy.ok_or(CheckpointError::Inconsistent(part))?,
                clean: row.clean == 1,
                unclean: row.unclean == 1,
            };
            demand(row.clean <= 1 && row.unclean <= 1 && row.copies != 0, part)?;
            let follows = match epochs.last() {
                Some(last) => last.epoch < entry.epoch && last.start < entry.start,
                None => entry.epoch.0 != 0,
            };
            demand(follows && entry.start.0 < raw.position.get(), part)?;
            demand((1..=raw.next_seq.get()).contains(&entry.first_seq.0), part)?;
            epochs.push(entry);
        }
        let last = epochs.last().map_or(0, |last| last.epoch.0);
        demand(last <= raw.epoch.get(), part)?;
        Ok(epochs)
    }

    fn index(&mut self, raw: &RawHeader) -> Result<PositionIndex, CheckpointError> {
        let part = "index";
        let rows: &[RawIndexEntry] = self.rows(raw.index_entries.get(), part)?;
        let entries: Vec<_> = rows
            .iter()
            .map(|row| IndexEntry {
                position: Position(row.position.get()),
                first_seq: Seq(row.first_seq.get()),
                time_before_ns: row.time_before_ns.get(),
                sealed_time_ns: row.sealed_time_ns.get(),
            })
            .collect();
        if let Some(last) = entries.last() {
            demand(last.position.0 < raw.position.get(), part)?;
            demand(last.first_seq.0 <= raw.next_seq.get(), part)?;
        }
        let index = PositionIndex::from_entries(entries, raw.index_spacing.get());
        index.ok_or(CheckpointError::Inconsistent(part))
    }
}
