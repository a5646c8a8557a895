//! Single blocks of a journal, read at their positions: for whoever knows where to look.
//!
//! Unlike the readers of long stretches it reads what it needs and no more, so that an answer from an index costs a few
//! reads of a page or two.

use relay_wire::id::Position;

use super::{Block, Damage, JournalDir, ReaderError};
use crate::block::{
    BlockError, BlockHeader, HEADER_LENGTH, decode_header, is_zero, verify_body, verify_padding,
};
use crate::scan::{Front, LogSource, judge};
use crate::source::DirSource;
use crate::superblock::Superblock;

/// Bytes of the first read of a block: its header, and all of a short one.
const FIRST_READ: usize = 4096;

/// Reads blocks at given positions. Memory for one block.
#[derive(Debug)]
pub struct PointReader {
    source: DirSource,
    superblock: Superblock,
    buffer: Vec<u8>,
}

impl PointReader {
    /// A reader of this journal.
    #[must_use]
    pub fn new(journal: &JournalDir) -> Self {
        Self {
            source: journal.source(),
            superblock: *journal.superblock(),
            buffer: Vec::new(),
        }
    }

    /// The intact header of the block of this stream at a position, or what lies there instead, by a read of 4 KiB. Its
    /// body is not looked at, nor whether it continues the log.
    ///
    /// # Errors
    /// [`ReaderError::Source`] when it can't be read.
    pub fn header(
        &mut self,
        position: Position,
    ) -> Result<Result<BlockHeader, Front>, ReaderError> {
        let geometry = self.superblock.geometry();
        if !geometry.is_aligned(position) {
            return Ok(Err(Front::BadHeader));
        }
        let unit = FIRST_READ.max(geometry.block_alignment() as usize);
        let left = geometry.left_in_segment(position);
        let first = unit.min(usize::try_from(left).unwrap_or(unit));
        self.fill(position, first)?;
        let header = match self.first_header() {
            Ok(header) => header,
            Err(front) => return Ok(Err(front)),
        };
        if header.stream != self.superblock.stream {
            return Ok(Err(Front::ForeignStream));
        }
        Ok(judge(&header, position, None, &geometry))
    }

    /// The intact block of this stream at a position, body and padding compared with its checksums; or what lies there
    /// instead. Whether it continues the log is not looked at.
    ///
    /// # Errors
    /// [`ReaderError::Source`] when it can't be read.
    pub fn block(&mut self, position: Position) -> Result<Result<Block<'_>, Front>, ReaderError> {
        let header = match self.header(position)? {
            Ok(header) => header,
            Err(front) => return Ok(Err(front)),
        };
        let geometry = self.superblock.geometry();
        let written = header.written_length(geometry.block_alignment()) as usize;
        if self.buffer.len() < written {
            self.fill(position, written)?;
        }
        let Some(bytes) = self.buffer.get(HEADER_LENGTH..written) else {
            return Ok(Err(Front::BadBody));
        };
        let (body, padding) = bytes.split_at(header.body_length as usize);
        if verify_body(&header, body).is_err() {
            return Ok(Err(Front::BadBody));
        }
        if verify_padding(padding).is_err() {
            return Ok(Err(Front::BadPadding));
        }
        Ok(Ok(Block { header, body }))
    }

    /// The same, where something else is an error.
    ///
    /// # Errors
    /// [`ReaderError::Damage`] and [`ReaderError::Source`].
    pub fn intact_block(&mut self, position: Position) -> Result<Block<'_>, ReaderError> {
        let geometry = self.superblock.geometry();
        self.block(position)?.map_err(|front| {
            ReaderError::Damage(Damage {
                position,
                segment: geometry.segment_of(position),
                offset: geometry.offset_of(position),
                front,
            })
        })
    }

    /// The header at the start of the buffer.
    fn first_header(&self) -> Result<BlockHeader, Front> {
        let head = self.buffer.first_chunk::<HEADER_LENGTH>();
        let head = head.ok_or(Front::Absent)?;
        decode_header(head).map_err(|error| match error {
            BlockError::Version(_) => Front::OtherVersion,
            _ if is_zero(head) => Front::Absent,
            _ => Front::BadHeader,
        })
    }

    /// Reads `length` bytes, fewer where the log ends.
    fn fill(&mut self, position: Position, length: usize) -> Result<(), ReaderError> {
        self.buffer.resize(length, 0);
        let read = self.source.read_at(position, &mut self.buffer)?;
        self.buffer.truncate(read);
        Ok(())
    }
}
