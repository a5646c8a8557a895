//! The sum over a segment's blocks that a seal is made from, and checked against.

use core::fmt;

use relay_wire::id::{Position, Seq, StreamId};

use super::{Digest, Statement};
use crate::block::{
    BlockError, BlockHeader, BlockKind, HEADER_LENGTH, decode_header, is_zero, verify_body,
    verify_padding,
};
use crate::scan::{Front, Link, judge};
use crate::segment::Geometry;

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

    /// How many bytes [`SegmentSum::take`] needs of which it takes in nothing of `bytes`: the next block's. Its header is there,
    /// and was found intact.
    #[must_use]
    pub fn wanted(&self, bytes: &[u8]) -> usize {
        decode_header(bytes).map_or(HEADER_LENGTH, |header| self.written_length(&header))
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
