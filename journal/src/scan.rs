//! Reading a log forwards: big reads, and the judgement on what lies at one position.
//!
//! [`Window`] turns a [`LogSource`] into slices of the log, however blocks fall on reads.
//! [`Window::examine`] says whether the bytes at a position are the block that continues the log
//! there, and otherwise in which of a closed set of ways they are not ([`Front`]). Recovery and the
//! offline reader both stand on it, so that there is one judgement. What to do about it is decided
//! elsewhere ([`crate::recovery::decide`]).

use relay_wire::id::{Epoch, Position, Seq, StreamId};

use crate::block::{
    BlockError, BlockHeader, BlockKind, HEADER_LENGTH, SPAN_MAX, decode_header, is_zero,
    verify_body, verify_padding,
};
use crate::segment::Geometry;
use crate::tables::Tables;

/// A log that can be read at any position.
pub trait LogSource {
    /// Fills `buffer` with the log's bytes from `position` on and returns how many there are: fewer
    /// than the buffer holds only where the prepared space ends. Positions and lengths asked for
    /// are multiples of the block alignment.
    ///
    /// # Errors
    /// [`SourceError`] when the bytes exist and can't be read.
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError>;

    /// What is read from now on comes from the device, whatever was read before and is still in some memory.
    fn forget(&mut self) {}

    /// Whether the source reads ahead into memory of its own, where [`LogSource::hold`] finds most of what is asked for.
    fn is_ahead(&self) -> bool {
        false
    }

    /// Moves to `position`; whether the `length` bytes from there on lie in one piece in the source's own memory, where
    /// [`LogSource::held`] shows them without a copy. They are still to be read: a read from `position` gives them too.
    ///
    /// # Errors
    /// [`SourceError`] when the bytes exist and can't be read.
    fn hold(&mut self, position: Position, length: usize) -> Result<bool, SourceError> {
        let _ = (position, length);
        Ok(false)
    }

    /// What [`LogSource::hold`] just found, with the same length.
    fn held(&self, length: usize) -> &[u8] {
        unreachable!("a source that holds nothing was asked for {length} bytes")
    }
}

impl<S: LogSource + ?Sized> LogSource for &mut S {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        (**self).read_at(position, buffer)
    }

    fn forget(&mut self) {
        (**self).forget();
    }

    fn is_ahead(&self) -> bool {
        (**self).is_ahead()
    }

    fn hold(&mut self, position: Position, length: usize) -> Result<bool, SourceError> {
        (**self).hold(position, length)
    }

    fn held(&self, length: usize) -> &[u8] {
        (**self).held(length)
    }
}

/// A read that failed. It is final: storage faults are not retried into success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// Where the read began.
    pub position: Position,
    /// What the system said.
    pub cause: String,
}

impl core::fmt::Display for SourceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "reading the log at position {}: {}",
            self.position, self.cause
        )
    }
}

impl core::error::Error for SourceError {}

/// What lies where the next block of a log should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Front {
    /// Nothing, and nothing within the window behind it: the header's place and all that follows is
    /// zero, or the prepared space ends here.
    Absent,
    /// The header's place is zero, but something lies behind it.
    Zeroed,
    /// No intact header.
    BadHeader,
    /// An intact header whose body does not fit it.
    BadBody,
    /// Intact header and body, but the padding is not zero.
    BadPadding,
    /// An intact block of the epoch at hand (or of none that could follow) that does not continue
    /// this log.
    ChainBroken,
    /// An intact block of a later epoch that does not continue this log: the node crashed between
    /// cutting its log and writing the first block after the cut, with later ones already written.
    LaterEpoch,
    /// An intact block of a lower epoch or with a lower number: left over from before a cut.
    StaleEarlier,
    /// An intact block of another stream.
    ForeignStream,
    /// An intact header of another format version.
    OtherVersion,
}

impl Front {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Absent,
        Self::Zeroed,
        Self::BadHeader,
        Self::BadBody,
        Self::BadPadding,
        Self::ChainBroken,
        Self::LaterEpoch,
        Self::StaleEarlier,
        Self::ForeignStream,
        Self::OtherVersion,
    ];
}

impl core::fmt::Display for Front {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Absent => "nothing",
            Self::Zeroed => "zeroes with something behind them",
            Self::BadHeader => "a damaged block header",
            Self::BadBody => "a block with a damaged body",
            Self::BadPadding => "a block with damaged padding",
            Self::ChainBroken => "an intact block that does not continue the log",
            Self::LaterEpoch => "an intact block of a later epoch that does not continue the log",
            Self::StaleEarlier => "a block left over from before a cut",
            Self::ForeignStream => "a block of another stream",
            Self::OtherVersion => "a block of another format version",
        })
    }
}

/// What the next block must be to continue a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The number it must have.
    pub number: u64,
    /// The checksum it must name as its predecessor's.
    pub previous_checksum: u32,
    /// The least epoch it may have.
    pub epoch: Epoch,
    /// The first seq it must have; see [`BlockHeader::is_seq_due`].
    pub first_seq: Seq,
}

impl Link {
    /// What must follow the log these tables are the fold of.
    #[must_use]
    pub const fn after_tables(tables: &Tables) -> Self {
        Self {
            number: tables.next_block_number,
            previous_checksum: tables.previous_checksum,
            epoch: tables.epoch,
            first_seq: tables.next_seq,
        }
    }

    /// What must follow this block.
    #[must_use]
    pub const fn after_block(header: &BlockHeader) -> Self {
        Self {
            number: header.number + 1,
            previous_checksum: header.checksum,
            epoch: header.epoch,
            first_seq: header.next_seq(),
        }
    }
}

/// Whether an intact block at `position` may stand there at all: its own address, and within its
/// segment.
#[must_use]
pub(crate) fn is_at_home(header: &BlockHeader, position: Position, geometry: &Geometry) -> bool {
    let left = geometry.left_in_segment(position);
    let span = u64::from(header.span);
    header.position == position
        && span.is_multiple_of(u64::from(geometry.block_alignment()))
        && match header.kind {
            BlockKind::Records | BlockKind::Mark => span <= left,
            BlockKind::Filler => span == left,
        }
}

/// Bytes kept of the log. Twice the longest block, so that at most every second read begins again
/// inside a block.
const BUFFER_LENGTH: usize = 2 * SPAN_MAX as usize;

/// A part of the log in memory, moved forwards as it is asked for. Where the source has the bytes in memory of its own they
/// are shown as they lie there, and only what falls on two of its reads is copied.
pub struct Window<'s> {
    source: Box<dyn LogSource + Send + 's>,
    buffer: Vec<u8>,
    start: Position,
    length: usize,
    geometry: Geometry,
    bytes_read: u64,
}

impl core::fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Window")
            .field("start", &self.start)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl<'s> Window<'s> {
    /// A window on a log, empty so far; it takes 8 MiB.
    #[must_use]
    pub fn new(source: Box<dyn LogSource + Send + 's>, geometry: Geometry) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER_LENGTH],
            start: Position(0),
            length: 0,
            geometry,
            bytes_read: 0,
        }
    }

    /// Bytes copied from the source so far.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The log's bytes from an aligned position on: `length` of them, or fewer where the prepared
    /// space ends.
    ///
    /// # Errors
    /// [`SourceError`].
    ///
    /// # Panics
    /// When `length` is more than 4 MiB or the position is not aligned.
    pub fn bytes(&mut self, position: Position, length: usize) -> Result<&[u8], SourceError> {
        assert!(
            length <= SPAN_MAX as usize,
            "a window is asked for one block"
        );
        assert!(self.geometry.is_aligned(position), "reads are aligned");
        let has = |start: Position, held: usize| {
            start <= position && position.since(start) + length as u64 <= held as u64
        };
        if !has(self.start, self.length) {
            let end = self.start.plus(self.length as u64);
            let is_inside = self.start <= position && position < end;
            if !is_inside && self.source.hold(position, length)? {
                return Ok(self.source.held(length));
            }
            self.refill(position, length)?;
        }
        let offset = position.since(self.start) as usize;
        let end = self.length.min(offset + length);
        Ok(&self.buffer[offset.min(end)..end])
    }

    /// Everything asked for from now on is read anew, and from the device.
    pub(crate) fn forget(&mut self) {
        self.length = 0;
        self.source.forget();
    }

    /// Makes `position` the window's start, keeping what is already there, and reads at least `length` bytes from there on.
    fn refill(&mut self, position: Position, length: usize) -> Result<(), SourceError> {
        let alignment = self.geometry.block_alignment() as usize;
        let end = self.start.plus(self.length as u64);
        let mut kept = 0;
        if self.start <= position && position < end {
            let offset = position.since(self.start) as usize;
            // A short read ends anywhere; only whole aligned units are kept.
            kept = (self.length - offset) / alignment * alignment;
            self.buffer.copy_within(offset..offset + kept, 0);
        }
        self.start = position;
        self.length = kept;
        // What a source that reads ahead has beyond it is looked at where it lies.
        let end = if self.source.is_ahead() {
            length.next_multiple_of(alignment).max(kept)
        } else {
            self.buffer.len()
        };
        let read = self
            .source
            .read_at(position.plus(kept as u64), &mut self.buffer[kept..end])?;
        assert!(
            read <= end - kept,
            "a source fills no more than it was given"
        );
        self.length += read;
        self.bytes_read += read as u64;
        Ok(())
    }

    /// One aligned unit of the log from outside the window, which stays where it is.
    pub(crate) fn probe(&mut self, position: Position) -> Result<&[u8], SourceError> {
        let alignment = self.geometry.block_alignment() as usize;
        // The probe goes to the end of the buffer, and what it displaces is forgotten.
        let at = self.buffer.len() - alignment;
        self.length = self.length.min(at);
        let read = self.source.read_at(position, &mut self.buffer[at..])?;
        self.bytes_read += read as u64;
        Ok(&self.buffer[at..at + read])
    }

    /// The bytes of an intact block's body.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn body(&mut self, header: &BlockHeader) -> Result<&[u8], SourceError> {
        let bytes = self.bytes(header.position, header.body_end())?;
        Ok(&bytes[HEADER_LENGTH..])
    }

    /// Whether the block that `link` demands lies at `position`; without a link any intact block of
    /// the stream that says it lies there. Front [`Front::Absent`] means here only that the
    /// header's place is zero or past the end: what lies behind is for the caller to look at.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn examine(
        &mut self,
        position: Position,
        stream: StreamId,
        link: Option<&Link>,
    ) -> Result<Result<BlockHeader, Front>, SourceError> {
        let bytes = self.bytes(position, self.geometry.block_alignment() as usize)?;
        let Some(head) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Ok(Err(Front::Absent));
        };
        let header = match decode_header(head) {
            Ok(header) => header,
            Err(BlockError::Version(_)) => return Ok(Err(Front::OtherVersion)),
            Err(_) if is_zero(head) => return Ok(Err(Front::Absent)),
            Err(_) => return Ok(Err(Front::BadHeader)),
        };
        if header.stream != stream {
            return Ok(Err(Front::ForeignStream));
        }
        if let Err(error) = self.verify(position, &header)? {
            return Ok(Err(match error {
                BlockError::Padding => Front::BadPadding,
                _ => Front::BadBody,
            }));
        }
        Ok(judge(&header, position, link, &self.geometry))
    }

    /// Compares body and padding of the block whose header lies at `position`.
    pub(crate) fn verify(
        &mut self,
        position: Position,
        header: &BlockHeader,
    ) -> Result<Result<(), BlockError>, SourceError> {
        let length = header.written_length(self.geometry.block_alignment()) as usize;
        let bytes = self.bytes(position, length)?;
        if bytes.len() < length {
            return Ok(Err(BlockError::Short));
        }
        let (body, padding) = bytes[HEADER_LENGTH..].split_at(header.body_length as usize);
        Ok(verify_body(header, body).and_then(|()| verify_padding(padding)))
    }
}

/// Judges an intact block of our stream at `position`.
pub(crate) fn judge(
    header: &BlockHeader,
    position: Position,
    link: Option<&Link>,
    geometry: &Geometry,
) -> Result<BlockHeader, Front> {
    let Some(link) = link else {
        let at_home = is_at_home(header, position, geometry);
        return if at_home {
            Ok(*header)
        } else {
            Err(Front::ChainBroken)
        };
    };
    if header.epoch < link.epoch || header.number < link.number {
        return Err(Front::StaleEarlier);
    }
    let continues = header.number == link.number
        && header.previous_checksum == link.previous_checksum
        && header.is_seq_due(link.epoch, link.first_seq);
    if continues && is_at_home(header, position, geometry) {
        return Ok(*header);
    }
    if header.epoch > link.epoch && header.position == position {
        return Err(Front::LaterEpoch);
    }
    Err(Front::ChainBroken)
}
