//! What the disk is to do, and when each part of it is handed over.
//!
//! ```text
//!   node --Write, Sync--> [ in order, each no sooner than it is due ] --> io_uring, or the simulator's disk
//! ```
//!
//! Nothing overtakes: a sync covers the writes before it, so it waits for them to be handed over.
//!
//! Where a release waits for the disk, everything is due at once. Where it does not (copies in memory count), a write is held
//! back for [`WRITE_AFTER_NS`]: handing it over costs the CPU more than a peer's answer takes (20 us on a virtual machine,
//! where the device is told by leaving the guest), and that time is the message's as long as it is on its way.

use std::collections::VecDeque;

use relay_wire::id::Position;

use crate::command::Now;

/// Where a release waits for no disk, a write is handed over this long after its block was sealed, ns.
pub const WRITE_AFTER_NS: u64 = 50_000;

/// One thing to be done with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOrder {
    /// Write a block.
    Write {
        /// For the report.
        number: u64,
        /// First byte.
        position: Position,
        /// Bytes, a multiple of the block alignment.
        length: u32,
        /// When it was sealed, on the clock that is never stepped.
        sealed_ns: u64,
    },
    /// Make durable what was written before.
    Sync,
}

/// See the module's description.
#[derive(Debug)]
pub struct DiskQueue {
    orders: VecDeque<DiskOrder>,
}

impl DiskQueue {
    /// An empty queue, with room for as many writes as may be under way, and a sync.
    #[must_use]
    pub fn new(write_depth: u32) -> Self {
        Self {
            orders: VecDeque::with_capacity(write_depth as usize + 1),
        }
    }

    /// A block was sealed just now.
    pub fn write(&mut self, number: u64, position: Position, length: u32, now: Now) {
        self.orders.push_back(DiskOrder::Write {
            number,
            position,
            length,
            sealed_ns: now.mono_ns,
        });
    }

    /// What was written so far is to be made durable.
    pub fn sync(&mut self) {
        self.orders.push_back(DiskOrder::Sync);
    }

    /// The next order that is due. `can_wait`: no release waits for the disk, and the node is not about to end.
    pub fn next_due(&mut self, can_wait: bool, now: Now) -> Option<DiskOrder> {
        let is_due = !can_wait || self.due_ns()? <= now.mono_ns;
        if is_due {
            self.orders.pop_front()
        } else {
            None
        }
    }

    /// When the next order is due at the latest, on the clock that is never stepped; 0 for at once, nothing where there is none.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        self.orders.front().map(|order| match order {
            DiskOrder::Write { sealed_ns, .. } => sealed_ns + WRITE_AFTER_NS,
            DiskOrder::Sync => 0,
        })
    }

    /// Whether everything was handed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ns: u64) -> Now {
        Now { utc_ns: 0, mono_ns }
    }

    fn number(order: Option<DiskOrder>) -> Option<u64> {
        order.map(|order| match order {
            DiskOrder::Write { number, .. } => number,
            DiskOrder::Sync => 0,
        })
    }

    /// Goal: a write waits only where no release waits for it, and nothing overtakes it. Method: two blocks and a sync.
    #[test]
    fn a_write_that_nobody_waits_for_is_handed_over_later() {
        let mut queue = DiskQueue::new(4);
        queue.write(1, Position(0), 4096, at(100));
        queue.sync();
        queue.write(2, Position(4096), 4096, at(200));
        let due = 100 + WRITE_AFTER_NS;
        assert_eq!(queue.due_ns(), Some(due));
        assert_eq!(number(queue.next_due(true, at(due - 1))), None);
        assert_eq!(number(queue.next_due(true, at(due))), Some(1));
        assert_eq!(number(queue.next_due(true, at(due))), Some(0));
        assert_eq!(number(queue.next_due(true, at(due))), None);
        assert_eq!(number(queue.next_due(false, at(due))), Some(2));
        assert!(queue.is_empty() && queue.due_ns().is_none());
    }
}
