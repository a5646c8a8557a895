//! The thread of each stream that keeps zeroed space ahead of the log, and that space out of the page cache, where it would make
//! the log's direct writes slow.
//!
//! It runs at low priority and in small steps, long before the space is needed and at the flow's quiet times as far as there are any
//! ([`crate::pace`]). Where the disk is full it tries again every second, so that flow goes on by itself once there is room. It is a
//! thread of its own so that space never waits for what [`crate::housekeeping`] reckons: behind a flow that takes all a CPU has, that
//! may fall far behind, and this may not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_wire::id::Position;

use crate::counters::{Counter, CounterFile};
use crate::housekeeping::lower_priority;
use crate::link::PositionCell;
use crate::pace::{self, Due, Reserve};
use crate::space::{SpaceAlarm, SpaceFacts, SpaceWanted, SpaceWatch};
use crate::storage::{Preparing, Segments, StorageError, available_bytes};

/// It is looked so often whether there is something to do.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Pause before a failed preparation is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The room on the disk is looked at so often.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// What the thread works on.
pub(crate) struct PreparationParts {
    pub(crate) directory: PathBuf,
    pub(crate) segments: Segments,
    pub(crate) released: PositionCell,
    /// Bytes wanted ahead.
    pub(crate) ahead: u64,
    /// Most bytes a second.
    pub(crate) rate_max: u64,
    /// Most bytes a block needs.
    pub(crate) block_room: u64,
    pub(crate) stop: Arc<AtomicBool>,
}

/// See the module's description.
pub(crate) struct Preparation {
    parts: PreparationParts,
    segment: Option<Preparing>,
    due: Due,
    retry_at: Option<Instant>,
    space: SpaceWatch,
    /// When the space was looked at, and how far the log was released then.
    seen: (Instant, Position),
    /// Whether little was released in the second before.
    is_quiet: bool,
    prepared: Counter,
    seconds_left: Counter,
    alarm: Counter,
    failures: Counter,
}

impl Preparation {
    pub(crate) fn new(parts: PreparationParts, counters: &mut CounterFile) -> Self {
        Self {
            segment: None,
            due: Due::default(),
            retry_at: None,
            space: SpaceWatch::new(SpaceWanted {
                prepared: parts.ahead,
                block: parts.block_room,
            }),
            seen: (Instant::now(), parts.released.read()),
            is_quiet: false,
            prepared: counters.counter("journal.prepared_bytes_ahead"),
            seconds_left: counters.counter("journal.space_seconds_left"),
            alarm: counters.counter("journal.space_alarm"),
            failures: counters.counter("journal.prepare_failures"),
            parts,
        }
    }

    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        lower_priority();
        while !self.parts.stop.load(Ordering::Acquire) {
            let pause = self.prepare().unwrap_or(LOOK_PAUSE);
            let released = self.parts.released.read();
            self.parts.segments.forget_cached(released);
            self.watch_space();
            std::thread::sleep(pause.min(LOOK_PAUSE));
        }
    }

    /// One step towards enough space, if it is due; how long until the next is, if any.
    fn prepare(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let segments = &self.parts.segments;
        let reserve = Reserve {
            wanted: self.parts.ahead,
            segment: segments.segment_size(),
            ahead: segments.end().since(self.parts.released.read()),
            begun: self.segment.as_ref().map(Preparing::written),
        };
        let Some(rate) = pace::preparing(reserve, self.parts.rate_max, self.is_quiet) else {
            self.due = Due::default();
            // Nothing is failing that nobody tries.
            self.retry_at = None;
            return None;
        };
        let (step, pause) = self.due.next(rate, now);
        if let Some(step) = step {
            match self.step(step) {
                Ok(()) => self.retry_at = None,
                Err(error) => self.fail(&error, now),
            }
        }
        Some(pause.saturating_sub(now.elapsed()))
    }

    fn step(&mut self, length: usize) -> Result<(), StorageError> {
        let (directory, segments) = (&self.parts.directory, &self.parts.segments);
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => Preparing::start(directory, segments)?,
        };
        if !segment.step(directory, segments, length)? {
            self.segment = Some(segment);
        }
        Ok(())
    }

    fn fail(&mut self, error: &StorageError, now: Instant) {
        self.segment = None;
        self.failures.add(1);
        if self.retry_at.is_none() {
            tracing::error!(
                %error,
                "no journal space can be prepared: free some room on the disk. What is prepared is \
                 still used; after that publishers are held and nothing is lost"
            );
        }
        self.retry_at = Some(now + RETRY_PAUSE);
    }

    /// Exports how much is prepared and how long the space lasts; raises and clears the alarm about it.
    fn watch_space(&mut self) {
        let released = self.parts.released.read();
        let prepared = self.parts.segments.end().since(released);
        self.prepared.set(prepared);
        let (since, from) = self.seen;
        let elapsed = since.elapsed();
        if elapsed < SPACE_INTERVAL {
            return;
        }
        self.seen = (Instant::now(), released);
        let flow = released.since(from) as f64 / elapsed.as_secs_f64();
        self.is_quiet = pace::is_quiet(flow as u64, self.parts.rate_max);
        let before = self.space.alarm();
        let seconds = self.space.look(SpaceFacts {
            used: released.since(from),
            elapsed,
            prepared,
            preparable: self.preparable(),
        });
        self.seconds_left.set(seconds);
        let alarm = self.space.alarm();
        self.alarm.set(alarm.number());
        if alarm > before {
            warn_of_space(alarm, seconds, prepared);
        } else if alarm < before {
            tracing::info!(
                ?alarm,
                seconds_left = seconds,
                "there is more journal space again"
            );
        }
    }

    /// Bytes that can be prepared besides what is: whole segments, as far as the disk and the journal have room for them.
    fn preparable(&self) -> u64 {
        if self.retry_at.is_some() {
            return 0;
        }
        let segments = &self.parts.segments;
        let size = segments.segment_size();
        let on_disk = available_bytes(&self.parts.directory).unwrap_or(0) / size;
        on_disk.min(segments.places_left()) * size
    }
}

fn warn_of_space(alarm: SpaceAlarm, seconds_left: u64, prepared: u64) {
    let text = match alarm {
        SpaceAlarm::None => return,
        SpaceAlarm::Day => {
            "journal space lasts less than a day at the present rate, or little of it is prepared: \
             free or add room on the disk, and see that journal.prepare_rate is above the flow"
        }
        SpaceAlarm::Hour => {
            "journal space lasts less than an hour at the present rate: free or add room on the disk \
             now; publishers are held when it is gone"
        }
        SpaceAlarm::Gone => {
            "journal space is gone: publishers are held (NO_SPACE) and nothing is lost. Free or add \
             room on the disk; flow goes on by itself"
        }
    };
    if alarm == SpaceAlarm::Day {
        tracing::warn!(seconds_left, prepared_bytes = prepared, "{text}");
    } else {
        tracing::error!(seconds_left, prepared_bytes = prepared, "{text}");
    }
}
