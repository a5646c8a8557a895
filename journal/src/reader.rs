//! A journal on disk as tools see it: read only, verified, bounded in memory, and honest about
//! damage.
//!
//! A running relay never comes here. Nothing is ever written; a damaged place is reported with
//! position, segment and offset. What a record reader hands out is only what is provably released:
//! what the blocks and marks themselves say was released, or all of it when the relay stopped in
//! order.

pub mod point;
pub mod seals;
pub mod set_aside;
pub mod side_index;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use relay_wire::id::{Position, Seq};
use relay_wire::record::{Record, RecordError};

use self::point::PointReader;
use self::side_index::{IndexFault, SideIndex};
use crate::block::{BlockHeader, decode_header};
use crate::checkpoint::{self, CheckpointError, Glance};
use crate::read_ahead::ReadAhead;
use crate::recovery::{Beyond, Decision, Finding, Recovered, RecoveryError, Start, recover};
use crate::scan::{Front, Link, LogSource, SourceError, Window};
use crate::segment;
use crate::set_aside::parse_name;
use crate::source::{self, DirSource};
use crate::superblock::{self, GENERATION_LENGTH, Superblock, SuperblockError};
use crate::tables::Tables;

/// Why a journal can't be read, or not further.
#[derive(Debug)]
pub enum ReaderError {
    /// The system refused; what and why.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// There is no usable superblock.
    Superblock(SuperblockError),
    /// A checkpoint can't be used.
    Checkpoint(CheckpointError),
    /// The log is damaged.
    Damage(Damage),
    /// The log ends in a way it must not.
    Recovery(RecoveryError),
    /// A read failed.
    Source(SourceError),
    /// An intact block holds a malformed record: whoever wrote it was wrong.
    Record {
        /// Position of the block.
        position: Position,
        /// Offset of the record in the block's body.
        offset: usize,
        /// What is wrong.
        error: RecordError,
    },
}

/// A place of the log that is not the block it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Its position.
    pub position: Position,
    /// The segment file it lies in.
    pub segment: u64,
    /// Its offset there.
    pub offset: u64,
    /// What lies there.
    pub front: Front,
}

impl core::fmt::Display for ReaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Superblock(error) => write!(f, "{error}"),
            Self::Checkpoint(error) => write!(f, "{error}"),
            Self::Damage(damage) => write!(
                f,
                "{} at position {} (segment {}, offset {})",
                damage.front,
                damage.position,
                segment::name(damage.segment),
                damage.offset
            ),
            Self::Recovery(error) => write!(f, "{error}"),
            Self::Source(error) => write!(f, "{error}"),
            Self::Record {
                position,
                offset,
                error,
            } => write!(
                f,
                "the intact block at position {position} holds a bad record at byte {offset} of \
                 its body: {error}"
            ),
        }
    }
}

impl core::error::Error for ReaderError {}

impl From<SourceError> for ReaderError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

fn at_path(path: &Path) -> impl FnOnce(io::Error) -> ReaderError {
    let path = path.to_owned();
    move |source| ReaderError::Io { path, source }
}

/// Segments that are missing between two that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Index of the first one missing.
    pub first: u64,
    /// Index of the last one missing.
    pub last: u64,
}

/// How far a journal goes.
#[derive(Debug)]
pub struct Extent {
    /// The fold of the log up to `tail`.
    pub tables: Tables,
    /// Where the intact log ends.
    pub tail: Position,
    /// How much of it is provably released; never past `tail`.
    pub released: Position,
    /// What recovery would say; an error means that the log goes on, damaged.
    pub verdict: Result<Recovered, RecoveryError>,
}

/// A journal's directory, opened for reading.
#[derive(Debug)]
pub struct JournalDir {
    path: PathBuf,
    superblock: Superblock,
    segments: Vec<u64>,
}

impl JournalDir {
    /// Opens the journal in a directory.
    ///
    /// # Errors
    /// [`ReaderError::Io`] and [`ReaderError::Superblock`].
    pub fn open(path: &Path) -> Result<Self, ReaderError> {
        let file = path.join(superblock::FILE_NAME);
        let bytes = fs::read(&file).map_err(at_path(&file))?;
        let (first, second) = bytes.split_at(GENERATION_LENGTH.min(bytes.len()));
        let (superblock, _) = superblock::newest(first, second).map_err(ReaderError::Superblock)?;
        Ok(Self {
            path: path.to_owned(),
            superblock,
            segments: source::segment_indices(path).map_err(at_path(path))?,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The superblock.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The indices of the segments, in order.
    #[must_use]
    pub fn segments(&self) -> &[u64] {
        &self.segments
    }

    /// Bytes of a segment's file now; [`segment::Geometry::segment_size`] when it is whole.
    ///
    /// # Errors
    /// [`ReaderError::Io`].
    pub fn segment_length(&self, index: u64) -> Result<u64, ReaderError> {
        source::segment_length(&self.path, index).map_err(at_path(&self.path))
    }

    /// Segments that are missing.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self.segments.windows(2);
        pairs
            .filter(|pair| pair[1] != pair[0] + 1)
            .map(|pair| Gap {
                first: pair[0] + 1,
                last: pair[1] - 1,
            })
            .collect()
    }

    /// Where the journal's first segment starts.
    #[must_use]
    pub fn start(&self) -> Position {
        let first = self.segments.first().copied().unwrap_or(0);
        self.superblock.geometry().start_of(first)
    }

    /// The log as a source.
    #[must_use]
    pub fn source(&self) -> DirSource {
        let last = self.segments.last().copied();
        DirSource::with_last(&self.path, self.superblock.geometry(), last)
    }

    /// The log as a source that is read ahead, up to `end`.
    ///
    /// # Errors
    /// [`ReaderError::Io`].
    pub fn read_ahead(&self, end: Position) -> Result<ReadAhead, ReaderError> {
        ReadAhead::new(&self.path, self.superblock.geometry(), end).map_err(at_path(&self.path))
    }

    /// Opens the index of a segment.
    ///
    /// # Errors
    /// [`IndexFault`]: the segment is to be scanned then.
    pub fn side_index(&self, segment: u64) -> Result<SideIndex, IndexFault> {
        SideIndex::open(&self.path, &self.superblock, segment)
    }

    /// Positions of the checkpoint files, newest first.
    ///
    /// # Errors
    /// [`ReaderError::Io`].
    pub fn checkpoints(&self) -> Result<Vec<Position>, ReaderError> {
        let mut positions = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(at_path(&self.path))? {
            let name = entry.map_err(at_path(&self.path))?.file_name();
            positions.extend(name.to_str().and_then(checkpoint::parse_name));
        }
        positions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(positions)
    }

    /// Names of the set-aside files, by epoch and position.
    ///
    /// # Errors
    /// [`ReaderError::Io`].
    pub fn set_aside(&self) -> Result<Vec<String>, ReaderError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(at_path(&self.path))? {
            let name = entry.map_err(at_path(&self.path))?.file_name();
            let name = name.to_str().filter(|name| parse_name(name).is_some());
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The tables of one checkpoint.
    ///
    /// # Errors
    /// [`ReaderError::Io`] and [`ReaderError::Checkpoint`].
    pub fn checkpoint(&self, position: Position) -> Result<Tables, ReaderError> {
        let file = self.path.join(checkpoint::name(position));
        let bytes = fs::read(&file).map_err(at_path(&file))?;
        let tables = checkpoint::decode(&bytes).map_err(ReaderError::Checkpoint)?;
        let is_ours = tables.stream == self.superblock.stream && tables.position == position;
        let error = CheckpointError::Inconsistent("stream or position");
        is_ours
            .then_some(tables)
            .ok_or(ReaderError::Checkpoint(error))
    }

    /// The newest checkpoint that can be used, for single facts.
    ///
    /// # Errors
    /// [`ReaderError::Io`] when the directory can't be listed.
    pub fn glance(&self) -> Result<Option<Glance>, ReaderError> {
        let usable = self.checkpoints()?.into_iter().find_map(|position| {
            let bytes = fs::read(self.path.join(checkpoint::name(position))).ok()?;
            let glance = Glance::new(bytes).ok()?;
            let is_ours = glance.stream == self.superblock.stream && glance.position == position;
            is_ours.then_some(glance)
        });
        Ok(usable)
    }

    /// The tables of the newest checkpoint that can be used, else those of an empty log.
    ///
    /// # Errors
    /// [`ReaderError::Io`] when the directory can't be listed.
    pub fn newest_tables(&self) -> Result<Tables, ReaderError> {
        let newest = self.usable_checkpoints()?.next();
        Ok(newest.unwrap_or_else(|| Tables::empty(self.superblock.stream)))
    }

    fn usable_checkpoints(&self) -> Result<impl Iterator<Item = Tables> + '_, ReaderError> {
        let positions = self.checkpoints()?.into_iter();
        Ok(positions.filter_map(|position| self.checkpoint(position).ok()))
    }

    /// What recovery starts from: the newest checkpoint that can be used and that the log leads up to.
    ///
    /// # Errors
    /// [`ReaderError`] when the directory or the log can't be read.
    pub fn recovery_start(&self) -> Result<Start, ReaderError> {
        let mut source = self.source();
        let checkpoints = self.usable_checkpoints()?;
        Start::choose(&mut source, &self.superblock, checkpoints).map_err(|error| match error {
            RecoveryError::Source(error) => error.into(),
            error => ReaderError::Recovery(error),
        })
    }

    /// Finds where the log ends and what of it is provably released.
    ///
    /// A relay may be writing meanwhile. What was read of the log's end and what was read behind it are then of different
    /// moments, and blocks that came in between look like the far side of a hole, or like another end. So a hole that is gone
    /// when looked at again is none, and neither is an end that moves damage.
    ///
    /// # Errors
    /// [`ReaderError`] when the log can't be read; damage is part of the answer.
    pub fn extent(&self) -> Result<Extent, ReaderError> {
        let start = self.recovery_start()?;
        let mut source = self.source();
        let verdict = recover(&mut source, &self.superblock, start.clone(), &mut |_| {});
        let start = start.tables().clone();
        match verdict {
            Ok(recovered) => {
                let clean = self
                    .superblock
                    .clean
                    .filter(|clean| clean.tail == recovered.tail);
                let released = clean.map_or(recovered.tables.released, |clean| clean.tail);
                Ok(Extent {
                    tables: recovered.tables.clone(),
                    tail: recovered.tail,
                    released,
                    verdict: Ok(recovered),
                })
            }
            Err(RecoveryError::Source(error)) => Err(error.into()),
            Err(RecoveryError::Unsteady { .. }) => Ok(self.extent_of_growing(start)),
            Err(RecoveryError::Rotten(finding)) if self.has_grown(&finding)? => {
                Ok(self.extent_of_growing(start))
            }
            Err(error) => self.extent_up_to_damage(start, error),
        }
    }

    /// Whether the block that was missed is there by now: a relay writes this log just now, and what was read behind the
    /// place was newer than what was read at it.
    fn has_grown(&self, finding: &Finding) -> Result<bool, ReaderError> {
        let mut log = PointReader::new(self);
        let found = log.block(finding.position)?;
        Ok(found.is_ok_and(|block| block.header.previous_checksum == finding.previous_checksum))
    }

    /// The extent of a log that grows while it is read: nothing behind its end tells anything.
    fn extent_of_growing(&self, start: Tables) -> Extent {
        let (tables, _) = self.fold_to_the_end(start);
        let recovered = Recovered {
            tail: tables.position,
            previous_checksum: tables.previous_checksum,
            next_block_number: tables.next_block_number,
            tables: tables.clone(),
            decision: Decision::End,
            cut: None,
            blocks_scanned: 0,
            bytes_scanned: 0,
        };
        Extent {
            tail: tables.position,
            released: tables.released,
            tables,
            verdict: Ok(recovered),
        }
    }

    /// Folds what continues the log, to the first place that does not.
    fn fold_to_the_end(&self, mut tables: Tables) -> (Tables, BlockReader) {
        let mut blocks = self.blocks_after(&tables);
        while let Some(Ok(block)) = blocks.next_block() {
            let before = (tables.position, tables.released);
            if tables.apply_block(&block.header, block.body).is_err() {
                (tables.position, tables.released) = before;
                break;
            }
        }
        (tables, blocks)
    }

    fn extent_up_to_damage(
        &self,
        tables: Tables,
        error: RecoveryError,
    ) -> Result<Extent, ReaderError> {
        let (tables, mut blocks) = self.fold_to_the_end(tables);
        let mut released = tables.released;
        if let RecoveryError::Rotten(finding) = &error
            && let Some(witness) = finding.witness
            && finding.evidence.beyond != Beyond::Checkpoint
        {
            let bytes = blocks.window.probe(witness)?;
            released =
                decode_header(bytes).map_or(released, |header| released.max(header.released));
        }
        Ok(Extent {
            tail: tables.position,
            released: released.min(tables.position),
            tables,
            verdict: Err(error),
        })
    }

    /// Reads blocks from a position on, to the first place that is none.
    ///
    /// # Panics
    /// When the position is not aligned.
    #[must_use]
    pub fn blocks(&self, from: Position) -> BlockReader {
        self.blocks_of(Box::new(self.source()), from, Position(u64::MAX))
    }

    /// Reads blocks from a position on up to `until`, where every block is due, with large reads ahead of what is asked for.
    /// With `until` at the end of all positions it ends as [`JournalDir::blocks`] does.
    ///
    /// # Errors
    /// [`ReaderError::Io`].
    ///
    /// # Panics
    /// When the position is not aligned.
    pub fn blocks_ahead(
        &self,
        from: Position,
        until: Position,
    ) -> Result<BlockReader, ReaderError> {
        Ok(self.blocks_of(Box::new(self.read_ahead(until)?), from, until))
    }

    fn blocks_of(
        &self,
        source: Box<dyn LogSource + Send>,
        from: Position,
        until: Position,
    ) -> BlockReader {
        assert!(
            self.superblock.geometry().is_aligned(from),
            "blocks start aligned"
        );
        let is_first = from == Position(0);
        BlockReader {
            window: Window::new(source, self.superblock.geometry()),
            superblock: self.superblock,
            position: from,
            link: is_first.then(|| Link::after_tables(&Tables::empty(self.superblock.stream))),
            until,
            is_over: false,
        }
    }

    fn blocks_after(&self, tables: &Tables) -> BlockReader {
        let mut blocks = self.blocks(tables.position);
        blocks.link = Some(Link::after_tables(tables));
        blocks
    }

    /// Reads released records from a place on.
    ///
    /// # Errors
    /// [`ReaderError`] when the log can't be read.
    pub fn records(&self, from: ReadFrom) -> Result<RecordReader, ReaderError> {
        let extent = self.extent()?;
        let index = &extent.tables.index;
        let position = match from {
            ReadFrom::Start => self.start(),
            ReadFrom::Seq(seq) => index.find_seq(seq),
            ReadFrom::Time(time_ns) => index.find_time(time_ns),
        };
        let blocks = self.blocks_ahead(position.max(self.start()), extent.released)?;
        Ok(RecordReader {
            blocks,
            from,
            current: None,
            extent,
        })
    }
}

/// Where to start reading records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first record there is.
    Start,
    /// At the DATA record with this seq, with the control records directly before it.
    Seq(Seq),
    /// At the first record received at or after this time, ns UTC.
    Time(u64),
}

/// A verified block.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Its header.
    pub header: BlockHeader,
    /// Its records.
    pub body: &'a [u8],
}

/// Reads verified blocks, each continuing the one before.
#[derive(Debug)]
pub struct BlockReader {
    window: Window<'static>,
    superblock: Superblock,
    position: Position,
    link: Option<Link>,
    until: Position,
    is_over: bool,
}

impl BlockReader {
    /// The same reader, ending before `until`: up to there every block is due, and a place that is none is damage.
    #[must_use]
    pub const fn up_to(mut self, until: Position) -> Self {
        self.until = until;
        self
    }

    /// Where the next block lies.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The next block; nothing at the end of the log; the damage, once, where there is some.
    pub fn next_block(&mut self) -> Option<Result<Block<'_>, ReaderError>> {
        match self.step() {
            Ok(Some(header)) => Some(self.block(header)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn block(&mut self, header: BlockHeader) -> Result<Block<'_>, ReaderError> {
        let body = self.window.body(&header)?;
        Ok(Block { header, body })
    }

    /// Moves past the next block.
    fn step(&mut self) -> Result<Option<BlockHeader>, ReaderError> {
        if self.is_over || self.position >= self.until {
            return Ok(None);
        }
        let stream = self.superblock.stream;
        let found = self
            .window
            .examine(self.position, stream, self.link.as_ref());
        let front = match found {
            Ok(Ok(header)) => {
                self.position = header.next_position();
                self.link = Some(Link::after_block(&header));
                return Ok(Some(header));
            }
            Ok(Err(front)) => front,
            Err(error) => {
                self.is_over = true;
                return Err(error.into());
            }
        };
        self.is_over = true;
        // Up to a bound that was proven every block is due; without one a blank place is the end.
        if front == Front::Absent && self.until == Position(u64::MAX) {
            return Ok(None);
        }
        let geometry = self.superblock.geometry();
        Err(ReaderError::Damage(Damage {
            position: self.position,
            segment: geometry.segment_of(self.position),
            offset: geometry.offset_of(self.position),
            front,
        }))
    }
}

/// A record and the block it lies in.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The block's header.
    pub block: BlockHeader,
    /// Offset of the record in the block's body.
    pub offset: usize,
    /// The record.
    pub record: Record<'a>,
}

/// Reads released records in order.
#[derive(Debug)]
pub struct RecordReader {
    blocks: BlockReader,
    from: ReadFrom,
    current: Option<(BlockHeader, usize)>,
    extent: Extent,
}

impl RecordReader {
    /// How far the journal goes, and what recovery says of its end.
    #[must_use]
    pub const fn extent(&self) -> &Extent {
        &self.extent
    }

    /// The next record; nothing at the end of what is released; the damage, once, where there is
    /// some.
    pub fn next_record(&mut self) -> Option<Result<Found<'_>, ReaderError>> {
        let (block, offset) = match self.seek() {
            Ok(found) => found?,
            Err(error) => return Some(Err(error)),
        };
        Some(
            self.blocks
                .window
                .body(&block)
                .map_err(ReaderError::from)
                .and_then(|body| {
                    let record =
                        Record::parse(&body[offset..]).map_err(|error| ReaderError::Record {
                            position: block.position,
                            offset,
                            error,
                        })?;
                    Ok(Found {
                        block,
                        offset,
                        record,
                    })
                }),
        )
    }

    /// Where the next block to be read lies.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.blocks.position()
    }

    /// The next whole block, for who takes many records at once: of the first one, records may lie before the place asked for.
    /// Records of a block that [`RecordReader::next_record`] has begun are passed over.
    pub fn next_block(&mut self) -> Option<Result<Block<'_>, ReaderError>> {
        self.current = None;
        self.blocks.next_block()
    }

    /// Finds the next record that is wanted and moves past it.
    fn seek(&mut self) -> Result<Option<(BlockHeader, usize)>, ReaderError> {
        loop {
            let Some((block, offset)) = self.current else {
                match self.blocks.step()? {
                    Some(header) => self.current = Some((header, 0)),
                    None => return Ok(None),
                }
                continue;
            };
            if offset >= block.body_length as usize {
                self.current = None;
                continue;
            }
            let body = self.blocks.window.body(&block)?;
            let record = match Record::parse(&body[offset..]) {
                Ok(record) => record,
                Err(error) => {
                    self.current = None;
                    return Err(ReaderError::Record {
                        position: block.position,
                        offset,
                        error,
                    });
                }
            };
            self.current = Some((block, offset + record.stride()));
            let is_wanted = match self.from {
                ReadFrom::Start => true,
                ReadFrom::Seq(seq) => record.seq() >= seq,
                ReadFrom::Time(time_ns) => record.receive_time_ns() >= time_ns,
            };
            if is_wanted {
                return Ok(Some((block, offset)));
            }
        }
    }
}
