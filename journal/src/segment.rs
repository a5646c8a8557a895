//! Segment files: their names, and which file and offset a position of the log lies at.
//!
//! A segment has no header of its own: byte P of the log is byte `P % segment_size` of the segment
//! with index `P / segment_size`. Blocks never straddle a segment's end; a filler block takes up
//! what is left.

use relay_wire::id::Position;

use crate::block::{BLOCK_ALIGNMENT_MAX, BLOCK_ALIGNMENT_MIN};

/// Name of the directory that holds the segment files.
pub const DIRECTORY: &str = "segments";
/// Smallest segment, bytes: one block of the largest alignment.
pub const SEGMENT_SIZE_MIN: u64 = BLOCK_ALIGNMENT_MAX as u64;
/// Largest segment, bytes: a filler's span must say what is left of one in 32 bits.
pub const SEGMENT_SIZE_MAX: u64 = 1 << 32;

const NAME_LENGTH: usize = 16;

/// How positions map to segments and what blocks are aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    segment_size: u64,
    block_alignment: u32,
}

/// Why two sizes are no geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeometryError {
    /// Not a power of two from 512 to 65,536.
    BlockAlignment(u32),
    /// Outside 64 KiB to 4 GiB, or not a multiple of the block alignment.
    SegmentSize(u64),
}

impl core::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BlockAlignment(bytes) => write!(
                f,
                "block alignment {bytes} is not a power of two from 512 to 65,536"
            ),
            Self::SegmentSize(bytes) => write!(
                f,
                "segment size {bytes} is not a multiple of the block alignment from 64 KiB to 4 GiB"
            ),
        }
    }
}

impl core::error::Error for GeometryError {}

impl Geometry {
    /// The geometry with these sizes, in bytes.
    ///
    /// # Errors
    /// [`GeometryError`] names the size that is out of range.
    pub const fn new(segment_size: u64, block_alignment: u32) -> Result<Self, GeometryError> {
        if !block_alignment.is_power_of_two()
            || block_alignment < BLOCK_ALIGNMENT_MIN
            || block_alignment > BLOCK_ALIGNMENT_MAX
        {
            return Err(GeometryError::BlockAlignment(block_alignment));
        }
        if segment_size < SEGMENT_SIZE_MIN
            || segment_size > SEGMENT_SIZE_MAX
            || !segment_size.is_multiple_of(block_alignment as u64)
        {
            return Err(GeometryError::SegmentSize(segment_size));
        }
        Ok(Self {
            segment_size,
            block_alignment,
        })
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Blocks start at multiples of this many bytes.
    #[must_use]
    pub const fn block_alignment(&self) -> u32 {
        self.block_alignment
    }

    /// Index of the segment a position lies in.
    #[must_use]
    pub const fn segment_of(&self, position: Position) -> u64 {
        position.0 / self.segment_size
    }

    /// Bytes from the start of its segment to a position.
    #[must_use]
    pub const fn offset_of(&self, position: Position) -> u64 {
        position.0 % self.segment_size
    }

    /// Bytes from a position to the end of its segment; never 0.
    #[must_use]
    pub const fn left_in_segment(&self, position: Position) -> u64 {
        self.segment_size - self.offset_of(position)
    }

    /// Position of a segment's first byte.
    #[must_use]
    pub const fn start_of(&self, segment: u64) -> Position {
        Position(segment * self.segment_size)
    }

    /// Whether a block may start at a position.
    #[must_use]
    pub const fn is_aligned(&self, position: Position) -> bool {
        position.0.is_multiple_of(self.block_alignment as u64)
    }
}

/// File name of a segment: its index as 16 hexadecimal digits.
#[must_use]
pub fn name(segment: u64) -> String {
    format!("{segment:016x}")
}

/// Index of the segment with this file name; nothing for every other name.
#[must_use]
pub fn parse_name(name: &str) -> Option<u64> {
    parse_hex(name)
}

/// The number that exactly 16 lower-case hexadecimal digits stand for.
pub(crate) fn parse_hex(digits: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != NAME_LENGTH || !digits.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_is_one() {
        for segment in [0, 1, 0xabcdef, u64::MAX] {
            assert_eq!(parse_name(&name(segment)), Some(segment));
        }
        for bad in [
            "",
            "1",
            "000000000000000G",
            "000000000000000A",
            "+000000000000001",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_position_lies_where_division_says() {
        let geometry = Geometry::new(1 << 20, 4096).expect("sizes in range");
        let position = Position((3 << 20) + 8192);
        assert_eq!(geometry.segment_of(position), 3);
        assert_eq!(geometry.offset_of(position), 8192);
        assert_eq!(geometry.left_in_segment(position), (1 << 20) - 8192);
        assert_eq!(geometry.left_in_segment(geometry.start_of(4)), 1 << 20);
        assert!(geometry.is_aligned(position));
        assert!(!geometry.is_aligned(position.plus(512)));
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for alignment in [0, 256, 513, 131_072] {
            assert_eq!(
                Geometry::new(1 << 20, alignment),
                Err(GeometryError::BlockAlignment(alignment))
            );
        }
        for size in [0, 4096, (1 << 20) + 512, 1 << 33] {
            assert_eq!(
                Geometry::new(size, 4096),
                Err(GeometryError::SegmentSize(size))
            );
        }
    }
}
