//! The announcement of a thread that is about to sleep. A file of its own so that loom can explore it.

#[cfg(relay_loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(relay_loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Set from the announcement until the thread is awake again.
#[derive(Debug)]
pub(crate) struct ParkingFlag {
    announced: AtomicBool,
}

impl ParkingFlag {
    /// Nobody sleeps.
    #[must_use]
    #[allow(clippy::new_without_default)] // loom's atomics have no const or default making
    pub(crate) fn new() -> Self {
        Self {
            announced: AtomicBool::new(false),
        }
    }

    /// The thread will sleep; it looks at its links once more after this.
    pub(crate) fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread is awake.
    pub(crate) fn leave(&self) {
        self.announced.store(false, Ordering::Relaxed);
    }

    /// Whether the thread announced sleep; asked after something was put in a link.
    #[must_use]
    pub(crate) fn is_announced(&self) -> bool {
        fence(Ordering::SeqCst);
        self.announced.load(Ordering::Relaxed)
    }
}
