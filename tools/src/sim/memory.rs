//! The memory ring of a process, mapped twice in a row as the appliance maps it, so that a slice never breaks at its end.
//!
//! ```text
//!   [ first mapping: size bytes ][ second mapping: the same bytes ]
//!               ^ position % size, and up to size bytes from there
//! ```
//!
//! Without the operating system's help the two mappings are two copies; whoever wrote says where, and the other copy
//! follows.

use relay_core::log::{LogView, LogWindow};
use relay_wire::id::Position;

/// What a byte of fresh memory is: nobody may rely on zeroes.
const GARBAGE: u8 = 0xEE;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: Vec<u8>,
    size: u64,
}

impl Memory {
    /// A ring of `size` bytes; `used` is memory of an earlier one that is not needed any more.
    pub(crate) fn new(size: u64, mut used: Vec<u8>) -> Self {
        used.resize(2 * size as usize, GARBAGE);
        Self { bytes: used, size }
    }

    /// Its memory, for the next.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn place(&self, position: Position, end: Position) -> core::ops::Range<usize> {
        let length = end.since(position);
        assert!(length <= self.size, "nobody asks for more than the ring");
        let at = (position.get() % self.size) as usize;
        at..at + length as usize
    }

    /// From the open block to the end of what may be overwritten.
    pub(crate) fn window(&mut self, start: Position, end: Position) -> LogWindow<'_> {
        let place = self.place(start, end);
        LogWindow::new(start, &mut self.bytes[place])
    }

    /// What may be read.
    pub(crate) fn view(&self, start: Position, end: Position) -> LogView<'_> {
        LogView::new(start, self.slice(start, end))
    }

    /// The bytes from `start` to `end`.
    pub(crate) fn slice(&self, start: Position, end: Position) -> &[u8] {
        &self.bytes[self.place(start, end)]
    }

    /// Bytes from `start` to `end` were written through a window: the other mapping follows.
    pub(crate) fn mirror(&mut self, start: Position, end: Position) {
        let place = self.place(start, end);
        let size = self.size as usize;
        let below = place.start..place.end.min(size);
        if !below.is_empty() {
            self.bytes.copy_within(below.clone(), below.start + size);
        }
        if place.end > size {
            let above = place.start.max(size)..place.end;
            self.bytes.copy_within(above.clone(), above.start - size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both mappings show the same. Method: write across the end through a window, read on both sides of it.
    #[test]
    fn the_two_mappings_show_the_same() {
        let mut memory = Memory::new(8, Vec::new());
        let (start, end) = (Position(14), Position(20));
        memory
            .window(start, end)
            .slice_mut(start, 6)
            .copy_from_slice(b"abcdef");
        memory.mirror(start, end);
        assert_eq!(memory.slice(Position(16), Position(20)), b"cdef");
        assert_eq!(memory.slice(Position(14), Position(20)), b"abcdef");
        assert_eq!(
            memory.view(Position(15), Position(18)).from(Position(16)),
            b"cd"
        );
    }
}
