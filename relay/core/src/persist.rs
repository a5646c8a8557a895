//! From blocks that stand in memory to one durable position.
//!
//! ```text
//!   block --> waiting --a run of them, when the device can use it--> [ in flight, several, any order ] --> durable (contiguous prefix)
//! ```
//!
//! Blocks that wait go to disk together, as one write, where they lie side by side in one segment. What they wait for is the
//! caller's to say ([`Patience`]).
//!
//! With [`WriteMethod::Dsync`] a completed write is on stable storage. With [`WriteMethod::Covering`] it is so once a
//! data-sync that was started after its completion has completed; one sync is under way at a time and covers all it can.
//! An error is final: the machine stops releasing and never tries again.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use relay_journal::segment::Geometry;
use relay_journal::superblock::WriteMethod;
use relay_wire::id::Position;

use crate::command::{LogEnd, Now};
use crate::settings::Settings;

/// Where no release waits for a disk, a block waits so long for its write, ns: handing a write over costs the CPU more than a
/// peer's answer takes (20 us on a virtual machine, where the device is told by leaving the guest), and that time is the
/// message's as long as it is on its way.
pub(crate) const WRITE_AFTER_NS: u64 = 50_000;

/// What blocks wait for before they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Patience {
    /// For a place among the writes only.
    None,
    /// While the device is busy, until enough has gathered. The primary paces what comes by its own writes, and those here end a
    /// little later than the ones there: one more than there is no busy device.
    Gather,
    /// The first of them [`WRITE_AFTER_NS`] at least; while the device does anything, until there is as much as goes into one
    /// write: no release waits for it, and each write takes time of the CPU that releases do wait for.
    Idle,
}

/// A write to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunWrite {
    pub(crate) number: u64,
    pub(crate) position: Position,
    pub(crate) length: u32,
}

/// A block that stands in memory and is not being written.
#[derive(Debug, Clone, Copy, Hash)]
struct Waiting {
    position: Position,
    /// Bytes that go to disk.
    length: u32,
    end: LogEnd,
}

/// A run of blocks on its way to the disk.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    number: u64,
    end: LogEnd,
    is_written: bool,
}

/// Numbers only tell writes in flight apart, and those are consecutive: where they begin is no part of what a state is.
impl Hash for InFlight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.end, self.is_written).hash(state);
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Persist {
    method: WriteMethod,
    geometry: Geometry,
    depth: usize,
    eager_depth: usize,
    /// Bytes worth a write while the device is busy.
    run_worth: u32,
    /// Most bytes of log in one write, but for a block that is longer.
    run_max: u32,
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    /// Since when the first of them waits, monotonic ns.
    waiting_since_ns: u64,
    in_flight: VecDeque<InFlight>,
    /// Number of the newest write.
    newest: u64,
    /// While a sync is under way: the number after the last write it covers.
    sync_covers: Option<u64>,
    durable: LogEnd,
}

impl Hash for Persist {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = self.in_flight.front().map_or(0, |run| run.number);
        let covered = self.sync_covers.map(|covers| covers.wrapping_sub(first));
        let since_ns = (!self.waiting.is_empty()).then_some(self.waiting_since_ns);
        (
            &self.waiting,
            since_ns,
            &self.in_flight,
            covered,
            self.durable,
        )
            .hash(state);
    }
}

impl Persist {
    /// Everything up to `durable` is.
    pub(crate) fn new(settings: &Settings, method: WriteMethod, durable: LogEnd) -> Self {
        let blocks_max = settings.ring_size / u64::from(settings.block_alignment);
        Self {
            method,
            geometry: Geometry::new(settings.segment_size, settings.block_alignment)
                .expect("the journal was made with these sizes"),
            depth: settings.write_depth as usize,
            eager_depth: settings.eager_depth as usize,
            run_worth: settings.seal_threshold,
            run_max: settings.block_length_max,
            waiting: VecDeque::with_capacity(blocks_max as usize),
            waiting_bytes: 0,
            waiting_since_ns: 0,
            in_flight: VecDeque::with_capacity(settings.write_depth as usize),
            newest: 0,
            sync_covers: None,
            durable,
        }
    }

    /// Writes that are under way, or not durable yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether everything it was given is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Places among the writes that are taken, with one for each block that waits.
    fn taken(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// Whether the device has so little to do that the smallest block is worth a write, where somebody waits for it.
    pub(crate) fn is_eager(&self) -> bool {
        self.taken() < self.eager_depth
    }

    /// Whether another block is sure of a place among the writes.
    pub(crate) fn has_room(&self) -> bool {
        self.taken() < self.depth
    }

    /// Bytes of the blocks that wait.
    pub(crate) const fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// A block of which `length` bytes are to be written at `position`, and behind which the log goes on at `end`.
    pub(crate) fn take(&mut self, position: Position, length: u32, end: LogEnd, now: Now) {
        if self.waiting.is_empty() {
            self.waiting_since_ns = now.mono_ns;
        }
        self.waiting_bytes += u64::from(length);
        self.waiting.push_back(Waiting {
            position,
            length,
            end,
        });
    }

    /// When blocks that wait are written though nothing else happens, monotonic ns; `None` where none waits, or a completion has to
    /// come first.
    pub(crate) fn write_due_ns(&self, patience: Patience) -> Option<u64> {
        let is_worth = match patience {
            Patience::None => true,
            Patience::Gather => {
                self.in_flight.len() <= self.eager_depth
                    || self.waiting_bytes >= self.run_worth.into()
            }
            Patience::Idle => {
                self.in_flight.is_empty() || self.waiting_bytes >= self.run_max.into()
            }
        };
        let is_possible = !self.waiting.is_empty() && self.in_flight.len() < self.depth;
        let due_ns = match patience {
            Patience::None | Patience::Gather => 0,
            Patience::Idle => self.waiting_since_ns + WRITE_AFTER_NS,
        };
        (is_possible && is_worth).then_some(due_ns)
    }

    /// The next write, if one is due.
    pub(crate) fn next_write(&mut self, patience: Patience, now: Now) -> Option<RunWrite> {
        if self.waiting.is_empty() || self.write_due_ns(patience)? > now.mono_ns {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let mut length = first.length;
        let mut end = first.end;
        while let Some(block) = self.waiting.front() {
            let continues = block.position == first.position.plus(u64::from(length));
            // By the room it takes in the log, not by what is written: a filler's is longer, and what is in flight is
            // reckoned in that.
            let span = block.end.point.position.since(first.position);
            let segment = self.geometry.segment_of(block.position);
            if !continues
                || span > u64::from(self.run_max)
                || segment != self.geometry.segment_of(first.position)
            {
                break;
            }
            length += block.length;
            end = block.end;
            self.waiting.pop_front();
        }
        self.waiting_bytes -= u64::from(length);
        self.newest += 1;
        self.in_flight.push_back(InFlight {
            number: self.newest,
            end,
            is_written: false,
        });
        Some(RunWrite {
            number: self.newest,
            position: first.position,
            length,
        })
    }

    /// Write `number` completed.
    pub(crate) fn on_written(&mut self, number: u64) {
        let first = self
            .in_flight
            .front()
            .expect("a write completes that was started")
            .number;
        let run = &mut self.in_flight[(number - first) as usize];
        assert!(!run.is_written, "a write completes once");
        run.is_written = true;
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
            .is_some_and(|run| run.number < covers);
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

    /// End of the contiguous runs that are durable.
    pub(crate) const fn durable(&self) -> LogEnd {
        self.durable
    }

    /// The number after the last of the contiguous written runs.
    fn written_through(&self) -> u64 {
        let written = self
            .in_flight
            .iter()
            .take_while(|run| run.is_written)
            .count();
        self.in_flight
            .front()
            .map_or(0, |first| first.number + written as u64)
    }

    fn advance(&mut self, covered: u64) {
        while self
            .in_flight
            .front()
            .is_some_and(|run| run.number < covered)
        {
            let run = self.in_flight.pop_front().expect("looked at just now");
            assert!(
                run.end.point.position > self.durable.point.position,
                "durable only grows"
            );
            self.durable = run.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_wire::id::Seq;

    use super::*;
    use crate::command::ReleasePoint;
    use crate::settings::small;

    const UNIT: u32 = 4096;

    fn point(n: u64) -> LogEnd {
        let point = ReleasePoint {
            position: Position(n * u64::from(UNIT)),
            next_seq: Seq(n),
            checksum: 0,
        };
        LogEnd {
            point,
            block_checksum: n as u32,
        }
    }

    const AT: Now = Now {
        utc_ns: 0,
        mono_ns: WRITE_AFTER_NS,
    };

    fn of_units(method: WriteMethod) -> Persist {
        let mut settings = small();
        settings.block_alignment = UNIT;
        settings.block_length_max = 4 * UNIT;
        settings.seal_threshold = 2 * UNIT;
        settings.segment_size = 16 * u64::from(UNIT);
        Persist::new(&settings, method, point(0))
    }

    /// The block `n`, one unit long, as the first is number 1.
    fn take(persist: &mut Persist, n: u64, mono_ns: u64) {
        let position = point(n - 1).point.position;
        let now = Now { utc_ns: 0, mono_ns };
        persist.take(position, UNIT, point(n), now);
    }

    /// Blocks in the next write.
    fn next(persist: &mut Persist, patience: Patience, now: Now) -> Option<u32> {
        let write = persist.next_write(patience, now)?;
        Some(write.length / UNIT)
    }

    fn with_three(method: WriteMethod) -> Persist {
        let mut persist = of_units(method);
        for n in 1..=3 {
            take(&mut persist, n, 0);
            assert_eq!(next(&mut persist, Patience::None, AT), Some(1));
        }
        persist
    }

    /// Goal: what waits goes together, as far as it lies in one place and one write may be long, and no longer than that. Method: blocks up to the
    /// longest run, to the segment's end, and behind a filler.
    #[test]
    fn a_run_ends_with_its_length_its_segment_and_at_a_filler() {
        let mut persist = of_units(WriteMethod::Dsync);
        for n in 1..=5 {
            take(&mut persist, n, 0);
        }
        assert_eq!(next(&mut persist, Patience::None, AT), Some(4));
        assert_eq!(next(&mut persist, Patience::None, AT), Some(1));
        assert_eq!(persist.waiting_bytes(), 0);
        assert_eq!(next(&mut persist, Patience::None, AT), None);

        let mut persist = of_units(WriteMethod::Dsync);
        for n in 14..=17 {
            take(&mut persist, n, 0);
        }
        assert_eq!(next(&mut persist, Patience::None, AT), Some(3));
        assert_eq!(next(&mut persist, Patience::None, AT), Some(1));

        let mut persist = of_units(WriteMethod::Dsync);
        take(&mut persist, 13, 0);
        // Takes what is left of the segment, and of it the first unit is written.
        persist.take(point(13).point.position, UNIT, point(16), AT);
        take(&mut persist, 17, 0);
        assert_eq!(next(&mut persist, Patience::None, AT), Some(2));
        assert_eq!(next(&mut persist, Patience::None, AT), Some(1));
    }

    /// Goal: each patience waits for what it says and for nothing else. Method: with a device that is busy and one that is not.
    #[test]
    fn a_block_waits_as_long_as_its_patience_says() {
        let before = Now {
            utc_ns: 0,
            mono_ns: WRITE_AFTER_NS - 1,
        };
        let mut persist = of_units(WriteMethod::Dsync);
        take(&mut persist, 1, 0);
        assert_eq!(persist.write_due_ns(Patience::Idle), Some(WRITE_AFTER_NS));
        assert_eq!(next(&mut persist, Patience::Idle, before), None);
        assert_eq!(next(&mut persist, Patience::Idle, AT), Some(1));

        // One is under way, and no more than that are eager; on a follower one more.
        take(&mut persist, 2, 0);
        assert!(!persist.is_eager());
        assert_eq!(persist.write_due_ns(Patience::Idle), None);
        assert_eq!(next(&mut persist, Patience::Idle, AT), None);
        assert_eq!(next(&mut persist, Patience::Gather, AT), Some(1));
        take(&mut persist, 3, 0);
        assert_eq!(persist.write_due_ns(Patience::Gather), None);
        assert_eq!(next(&mut persist, Patience::Gather, AT), None);
        take(&mut persist, 4, 0);
        assert_eq!(persist.write_due_ns(Patience::Idle), None);
        assert_eq!(next(&mut persist, Patience::Gather, AT), Some(2));
        for n in 5..=8 {
            take(&mut persist, n, 0);
        }
        assert_eq!(next(&mut persist, Patience::Idle, AT), Some(4));
        take(&mut persist, 9, 0);
        assert!(!persist.is_settled());
        for number in 1..=4 {
            persist.on_written(number);
        }
        assert_eq!(persist.durable(), point(8));
        assert_eq!(next(&mut persist, Patience::Gather, AT), Some(1));
    }

    /// Goal: no more writes are under way than the depth, however little patience there is. Method: a block more.
    #[test]
    fn the_depth_is_kept() {
        let mut persist = with_three(WriteMethod::Dsync);
        take(&mut persist, 4, 0);
        assert!(!persist.has_room());
        assert_eq!(next(&mut persist, Patience::None, AT), Some(1));
        take(&mut persist, 5, 0);
        assert_eq!(persist.write_due_ns(Patience::None), None);
        assert_eq!(next(&mut persist, Patience::None, AT), None);
        persist.on_written(1);
        assert_eq!(next(&mut persist, Patience::None, AT), Some(1));
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
