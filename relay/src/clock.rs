//! The two clocks, read once a turn.

use std::time::{Duration, Instant, SystemTime};

use relay_core::command::Now;

/// Reads the clocks. Monotonic time counts from the clock's making.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let utc = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Now {
            utc_ns: utc.as_nanos() as u64,
            mono_ns: self.start.elapsed().as_nanos() as u64,
        }
    }
}
