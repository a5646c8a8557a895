//! The log's memory as the machines see it: plain slices with the position of their first byte.
//!
//! The caller keeps the memory ring (and maps it so that a slice never breaks at its end); the machines only ever ask by
//! position.

use relay_wire::id::Position;

/// Of a ring, what a turn leaves as it is behind the open block: one part in this many.
const KEPT: u64 = 4;

/// End of a turn's window from `open` on, in a ring of `ring_size` bytes that may forget what lies before `forgettable`.
#[must_use]
pub fn window_end(open: Position, forgettable: Position, ring_size: u64) -> Position {
    let most = open.plus(ring_size - ring_size / KEPT);
    forgettable.plus(ring_size).min(most)
}

/// What the ring had from here on when a turn began, with the open block at `open`, it still has when the turn is over: who has no
/// part in who may write where can copy it, and look afterwards whether a later turn has begun.
#[must_use]
pub const fn kept_from(open: Position, ring_size: u64) -> Position {
    Position(open.get().saturating_sub(ring_size / KEPT))
}

/// The free part of the ring, from the open block on. Only the sequencer has one.
#[derive(Debug)]
pub struct LogWindow<'a> {
    start: Position,
    bytes: &'a mut [u8],
}

impl<'a> LogWindow<'a> {
    /// The window of `bytes` whose first has position `start`.
    #[must_use]
    pub const fn new(start: Position, bytes: &'a mut [u8]) -> Self {
        Self { start, bytes }
    }

    /// End of the window.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.start.plus(self.bytes.len() as u64)
    }

    /// `length` bytes from `position` on.
    ///
    /// # Panics
    /// Outside the window, which is a bug: whoever writes asked for room before.
    pub fn slice_mut(&mut self, position: Position, length: usize) -> &mut [u8] {
        let offset = position.since(self.start) as usize;
        &mut self.bytes[offset..offset + length]
    }
}

/// The released part of the ring that may still be read.
#[derive(Debug, Clone, Copy)]
pub struct LogView<'a> {
    start: Position,
    bytes: &'a [u8],
}

impl<'a> LogView<'a> {
    /// The view of `bytes` whose first has position `start`.
    #[must_use]
    pub const fn new(start: Position, bytes: &'a [u8]) -> Self {
        Self { start, bytes }
    }

    /// First position that can be read.
    #[must_use]
    pub const fn start(&self) -> Position {
        self.start
    }

    /// End of what can be read.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.start.plus(self.bytes.len() as u64)
    }

    /// Everything from `position` to the end of the view.
    ///
    /// # Panics
    /// When `position` lies outside the view.
    #[must_use]
    pub fn from(&self, position: Position) -> &'a [u8] {
        &self.bytes[position.since(self.start) as usize..]
    }
}
