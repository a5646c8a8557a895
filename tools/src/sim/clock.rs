//! Simulated time: the queue of what happens next, and each node's own idea of what time it is.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use relay_core::command::Now;

/// One millisecond in nanoseconds.
pub(crate) const MILLISECOND: u64 = 1_000_000;
/// One second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Where every run's calendar begins, ns UTC.
const CALENDAR_START: u64 = 1_790_000_000 * SECOND;

#[derive(Debug)]
struct Entry<E> {
    at_ns: u64,
    order: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest; of two at one time, the one that was asked for first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.order).cmp(&(self.at_ns, self.order))
    }
}

/// What happens, in order of time; what happens at one time, in the order in which it was asked for.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    now_ns: u64,
    order: u64,
}

impl<E> Queue<E> {
    /// An empty queue at time 0.
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(1024),
            now_ns: 0,
            order: 0,
        }
    }

    /// Simulated time, ns from the start of the run.
    pub(crate) const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Has `event` happen `delay_ns` from now.
    pub(crate) fn after(&mut self, delay_ns: u64, event: E) {
        self.at(self.now_ns + delay_ns, event);
    }

    /// Has `event` happen at a time that is not past.
    pub(crate) fn at(&mut self, at_ns: u64, event: E) {
        assert!(at_ns >= self.now_ns, "nothing happens in the past");
        self.order += 1;
        self.heap.push(Entry {
            at_ns,
            order: self.order,
            event,
        });
    }

    /// Moves time on to the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now_ns = entry.at_ns;
        Some(entry.event)
    }

    /// Events to come.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

/// A node's clocks: the calendar may be wrong, drift and be stepped; the monotonic one drifts and begins anywhere.
#[derive(Debug, Clone)]
pub(crate) struct NodeClock {
    /// Parts per million by which a second of this node is longer or shorter.
    drift_ppm: i64,
    utc_offset_ns: i64,
    mono_start_ns: u64,
}

impl NodeClock {
    /// Clocks that go wrong by so much.
    pub(crate) const fn new(drift_ppm: i64, utc_offset_ns: i64, mono_start_ns: u64) -> Self {
        Self {
            drift_ppm,
            utc_offset_ns,
            mono_start_ns,
        }
    }

    /// What the clocks show at the simulated time `at_ns`.
    pub(crate) const fn read(&self, at_ns: u64) -> Now {
        let drift = at_ns as i64 / 1_000_000 * self.drift_ppm;
        let elapsed = at_ns.saturating_add_signed(drift);
        Now {
            utc_ns: (CALENDAR_START + elapsed).saturating_add_signed(self.utc_offset_ns),
            mono_ns: self.mono_start_ns + elapsed,
        }
    }

    /// Somebody sets the calendar.
    pub(crate) const fn step(&mut self, by_ns: i64) {
        self.utc_offset_ns = self.utc_offset_ns.saturating_add(by_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_at_one_time_happens_in_the_order_asked_for() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.at(at, event);
        }
        let order: String = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, "abcd");
        assert_eq!(queue.now_ns(), 5);
    }

    #[test]
    fn a_step_moves_the_calendar_and_nothing_else() {
        let mut clock = NodeClock::new(100, -5, 77);
        let before = clock.read(10 * SECOND);
        clock.step(-3_600 * SECOND as i64);
        let after = clock.read(10 * SECOND);
        assert_eq!(before.mono_ns, after.mono_ns);
        assert_eq!(before.utc_ns - after.utc_ns, 3_600 * SECOND);
        assert_eq!(before.mono_ns, 77 + 10 * SECOND + MILLISECOND);
    }
}
