//! What a thread does when its agents had nothing to do.

use std::time::Duration;

use serde::Deserialize;

use crate::link::Parking;
use crate::ring::Ring;

/// How a hot thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IdleStrategy {
    /// Look again at once: lowest latency, takes a whole CPU.
    Spin,
    /// Let another thread of this CPU run first.
    #[default]
    Yield,
    /// Sleep in the kernel until something completes.
    Park,
}

/// Turns without work before a thread parks.
const TURNS_BEFORE_PARK: u32 = 64;
/// Longest sleep, so that deadlines are met.
const PARK_MAX: Duration = Duration::from_millis(1);

/// Carries out a strategy; counts the idle turns.
#[derive(Debug)]
pub(crate) struct Idle {
    strategy: IdleStrategy,
    idle_turns: u32,
}

impl Idle {
    pub(crate) const fn new(strategy: IdleStrategy) -> Self {
        Self {
            strategy,
            idle_turns: 0,
        }
    }

    /// After a turn that did `work` things. `is_idle` looks once more whether nothing waits in a link.
    pub(crate) fn after_turn(
        &mut self,
        work: usize,
        ring: &mut Ring,
        parking: &Parking,
        is_idle: impl Fn() -> bool,
    ) {
        if work > 0 {
            self.idle_turns = 0;
            return;
        }
        self.idle_turns = self.idle_turns.saturating_add(1);
        match self.strategy {
            IdleStrategy::Spin => std::hint::spin_loop(),
            IdleStrategy::Yield => std::thread::yield_now(),
            IdleStrategy::Park if self.idle_turns < TURNS_BEFORE_PARK => std::hint::spin_loop(),
            IdleStrategy::Park => {
                if parking.announce(is_idle) {
                    ring.park(PARK_MAX);
                }
                parking.leave();
            }
        }
    }
}
