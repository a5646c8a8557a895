//! The watchdog over a node's own disk (rule R8).

use std::hash::Hash;

use relay_wire::id::Position;

/// A node that did not look for so long, ns, stood still, where that is more than half of what a disk is given.
const AWAY_NS: u64 = 50_000_000;

/// Since when the disk owes the node something.
///
/// What counts is the durable end of the log: later writes that end while the oldest hangs move nothing. And only time counts in
/// which the node was awake: one that stood still, itself or its machine, had nobody to take notice of what the disk had done.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct DiskWatch {
    durable: Position,
    /// When what is durable was last seen to have grown, or nothing to be under way.
    moved_ns: u64,
    looked_ns: u64,
}

impl DiskWatch {
    pub(super) const fn new(now_ns: u64) -> Self {
        Self {
            durable: Position(0),
            moved_ns: now_ns,
            looked_ns: now_ns,
        }
    }

    /// Once a turn, after completions: so far the log is durable, and so many writes are under way.
    pub(super) fn look(&mut self, durable: Position, in_flight: usize, stall_ns: u64, now_ns: u64) {
        let was_away = now_ns >= self.looked_ns + AWAY_NS.max(stall_ns / 2);
        if was_away || in_flight == 0 || durable > self.durable {
            self.durable = durable;
            self.moved_ns = now_ns;
        }
        self.looked_ns = now_ns;
    }

    /// Whether nothing became durable for `stall_ns` or more though something is under way, as of the last look.
    pub(super) const fn is_stalled(&self, stall_ns: u64) -> bool {
        self.looked_ns >= self.moved_ns + stall_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const STALL: u64 = 300;

    /// When it is stalled first, where `durable` and `in_flight` are so at each of the times looked at.
    fn stalled_at(looks: impl Iterator<Item = (u64, u64, usize)>) -> Option<u64> {
        let mut watch = DiskWatch::new(0);
        for (now_ms, durable, in_flight) in looks {
            watch.look(Position(durable), in_flight, STALL * MS, now_ms * MS);
            if watch.is_stalled(STALL * MS) {
                return Some(now_ms);
            }
        }
        None
    }

    #[test]
    fn a_disk_with_nothing_to_do_or_that_goes_on_is_not_stalled() {
        assert_eq!(stalled_at((0..5_000).map(|now| (now, 0, 0))), None);
        let slow = (0..5_000).map(|now| (now, now / 250, 4));
        assert_eq!(stalled_at(slow), None);
    }

    #[test]
    fn the_oldest_write_counts_however_many_later_ones_end() {
        // All but the oldest come and go: the durable end stays.
        let busy = (0..5_000).map(|now| (now, 7, 1 + now as usize % 4));
        assert_eq!(stalled_at(busy), Some(STALL));
    }

    #[test]
    fn time_the_node_was_not_awake_does_not_count() {
        let paused = (0..5_000).filter(|now| !(100..2_000).contains(now));
        let found = stalled_at(paused.map(|now| (now, 7, 1)));
        assert_eq!(found, Some(2_000 + STALL), "nor does it end the watch");
    }
}
