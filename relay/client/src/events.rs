//! Events waiting to be fetched: bounded, since a caller may never fetch them.

use std::collections::VecDeque;

/// Events kept; with more, the oldest give way.
const EVENTS_MAX: usize = 1024;

/// A queue of events.
pub(crate) struct Events<E> {
    queue: VecDeque<E>,
    dropped: u64,
}

impl<E> Events<E> {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(EVENTS_MAX),
            dropped: 0,
        }
    }

    /// Adds one.
    pub(crate) fn push(&mut self, event: E) {
        if self.queue.len() >= EVENTS_MAX {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(event);
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<E> {
        self.queue.pop_front()
    }

    /// The newest, to be brought up to date.
    pub(crate) fn newest_mut(&mut self) -> Option<&mut E> {
        self.queue.back_mut()
    }

    /// How many gave way.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}
