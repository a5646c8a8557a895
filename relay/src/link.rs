//! Links between threads: single-producer queues, positions, and waking who sleeps.
//!
//! A queue is `rtrb`'s ring; a position is one atomic word that only grows. A thread that is about to sleep announces it and
//! looks once more; whoever puts something in looks whether the other side announced it and only then pays for a
//! wake-up. Both sides fence between their write and their look, so that at least one of them sees the other
//! (`tests/loom.rs` explores every interleaving).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use relay_wire::id::Position;

pub(crate) use crate::parking_flag::ParkingFlag;

/// The sleeping place of one thread.
#[derive(Debug, Clone)]
pub(crate) struct Parking {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    flag: ParkingFlag,
    event: OwnedFd,
}

impl Parking {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `event` was just opened and is nobody else's.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Self {
            shared: Arc::new(Shared {
                flag: ParkingFlag::new(),
                event,
            }),
        })
    }

    /// The descriptor that becomes readable when the thread is woken.
    pub(crate) fn event(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// Announces sleep; false when `is_idle` then says that something has come.
    pub(crate) fn announce(&self, is_idle: impl Fn() -> bool) -> bool {
        self.shared.flag.announce();
        is_idle()
    }

    /// Takes the announcement back.
    pub(crate) fn leave(&self) {
        self.shared.flag.leave();
    }

    /// Wakes the thread if it announced sleep. Call after putting something in one of its links.
    pub(crate) fn wake(&self) {
        if self.shared.flag.is_announced() {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: eight readable bytes are passed. The counter never comes near its end: the sleeper empties it.
            unsafe { libc::write(self.event(), one.as_ptr().cast(), one.len()) };
        }
    }
}

/// Raised by a thread that has answered, taken by the hot thread that asked.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    flag: Arc<AtomicBool>,
    asker: Parking,
}

impl Answered {
    /// For the thread that sleeps in `asker`.
    pub(crate) fn new(asker: Parking) -> Self {
        Self {
            flag: Arc::default(),
            asker,
        }
    }

    /// Call after putting the answer where the asker finds it.
    pub(crate) fn raise(&self) {
        self.flag.store(true, Ordering::Release);
        self.asker.wake();
    }

    /// Whether something was answered since the last call.
    pub(crate) fn take(&self) -> bool {
        self.is_raised() && self.flag.swap(false, Ordering::Acquire)
    }

    /// Whether an answer waits.
    pub(crate) fn is_raised(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// A position one thread moves on and others read.
#[derive(Debug, Clone, Default)]
pub(crate) struct PositionCell {
    cell: Arc<Padded>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl PositionCell {
    pub(crate) fn new(position: Position) -> Self {
        Self {
            cell: Arc::new(Padded(AtomicU64::new(position.get()))),
        }
    }

    /// Everything done before is visible to who reads the position.
    pub(crate) fn publish(&self, position: Position) {
        self.cell.0.store(position.get(), Ordering::Release);
    }

    pub(crate) fn read(&self) -> Position {
        Position(self.cell.0.load(Ordering::Acquire))
    }
}
