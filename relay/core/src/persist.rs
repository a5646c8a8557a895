//! From writes that complete in any order to one durable position.
//!
//! ```text
//!   sealed ----> [ in flight, several, any order ] ----> durable (contiguous prefix)
//! ```
//!
//! With [`WriteMethod::Dsync`] a completed write is on stable storage. With [`WriteMethod::Covering`] it is so once a
//! data-sync that was started after its completion has completed; one sync is under way at a time and covers all it can.
//! An error is final: the machine stops releasing and never tries again.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use relay_journal::superblock::WriteMethod;

use crate::command::LogEnd;

/// A sealed block on its way to the disk.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    number: u64,
    end: LogEnd,
    is_written: bool,
}

/// Numbers only tell blocks in flight apart, and those are consecutive: where they begin is no part of what a state is.
impl Hash for InFlight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.end, self.is_written).hash(state);
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Persist {
    method: WriteMethod,
    depth: usize,
    in_flight: VecDeque<InFlight>,
    /// While a sync is under way: the number after the last block it covers.
    sync_covers: Option<u64>,
    durable: LogEnd,
}

impl Hash for Persist {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = self.in_flight.front().map_or(0, |block| block.number);
        let covered = self.sync_covers.map(|covers| covers.wrapping_sub(first));
        (
            self.method,
            self.depth,
            &self.in_flight,
            covered,
            self.durable,
        )
            .hash(state);
    }
}

impl Persist {
    pub(crate) fn new(method: WriteMethod, depth: u32, durable: LogEnd) -> Self {
        Self {
            method,
            depth: depth as usize,
            in_flight: VecDeque::with_capacity(depth as usize),
            sync_covers: None,
            durable,
        }
    }

    /// Blocks that are being written, or not durable yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.len() < self.depth
    }

    /// Block `number`, which ends at `end`, is to be written now.
    pub(crate) fn on_sealed(&mut self, number: u64, end: LogEnd) {
        assert!(self.has_room(), "no block is sealed beyond the depth");
        if let Some(last) = self.in_flight.back() {
            assert_eq!(last.number + 1, number, "blocks are sealed in order");
        }
        self.in_flight.push_back(InFlight {
            number,
            end,
            is_written: false,
        });
    }

    /// The write of block `number` completed.
    pub(crate) fn on_written(&mut self, number: u64) {
        let first = self
            .in_flight
            .front()
            .expect("a write completes that was started")
            .number;
        let block = &mut self.in_flight[(number - first) as usize];
        assert!(!block.is_written, "a write completes once");
        block.is_written = true;
        if self.method == WriteMethod::Dsync {
            let covered = self.written_through();
            self.advance(covered);
        }
    }

    /// Starts a sync if one is worth it; the caller carries it out.
    pub(crate) fn start_sync(&mut self) -> bool {
        if self.method == WriteMethod::Dsync || self.sync_covers.is_some() {
            return false;
        }
        let covers = self.written_through();
        let is_worth = self
            .in_flight
            .front()
            .is_some_and(|block| block.number < covers);
        if is_worth {
            self.sync_covers = Some(covers);
        }
        is_worth
    }

    /// The sync completed.
    pub(crate) fn on_synced(&mut self) {
        let covers = self
            .sync_covers
            .take()
            .expect("a sync completes that was started");
        self.advance(covers);
    }

    /// End of the contiguous blocks that are durable.
    pub(crate) const fn durable(&self) -> LogEnd {
        self.durable
    }

    /// The number after the last of the contiguous written blocks.
    fn written_through(&self) -> u64 {
        let written = self
            .in_flight
            .iter()
            .take_while(|block| block.is_written)
            .count();
        self.in_flight
            .front()
            .map_or(0, |first| first.number + written as u64)
    }

    fn advance(&mut self, covered: u64) {
        while self
            .in_flight
            .front()
            .is_some_and(|block| block.number < covered)
        {
            let block = self.in_flight.pop_front().expect("looked at just now");
            assert!(
                block.end.point.position > self.durable.point.position,
                "durable only grows"
            );
            self.durable = block.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_wire::id::{Position, Seq};

    use super::*;
    use crate::command::ReleasePoint;

    fn point(n: u64) -> LogEnd {
        let point = ReleasePoint {
            position: Position(n * 4096),
            next_seq: Seq(n),
            checksum: 0,
        };
        LogEnd {
            point,
            block_checksum: n as u32,
        }
    }

    fn with_three(method: WriteMethod) -> Persist {
        let mut persist = Persist::new(method, 4, point(0));
        for n in 1..=3 {
            persist.on_sealed(n, point(n));
        }
        persist
    }

    /// Goal: durable is the contiguous prefix. Method: complete writes out of order.
    #[test]
    fn durable_is_the_contiguous_prefix() {
        let mut persist = with_three(WriteMethod::Dsync);
        persist.on_written(2);
        assert_eq!(persist.durable(), point(0));
        persist.on_written(1);
        assert_eq!(persist.durable(), point(2));
        persist.on_written(3);
        assert_eq!(persist.durable(), point(3));
        assert_eq!(persist.in_flight(), 0);
    }

    /// Goal: a sync covers only what was written before it started.
    #[test]
    fn a_sync_covers_what_was_written_before_it() {
        let mut persist = with_three(WriteMethod::Covering);
        assert!(!persist.start_sync());
        persist.on_written(1);
        assert!(persist.start_sync());
        persist.on_written(2);
        assert!(!persist.start_sync(), "one at a time");
        persist.on_synced();
        assert_eq!(persist.durable(), point(1));
        assert!(persist.start_sync());
        persist.on_synced();
        assert_eq!(persist.durable(), point(2));
        assert!(!persist.start_sync());
    }
}
