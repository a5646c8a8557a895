//! Seals segments that are full and released: part of what housekeeping does, off the hot path.
//!
//! ```text
//! released log -- read for housekeeping's fold --> sum over a segment's blocks --> seal, signed, appended to `seals`
//! ```
//!
//! What the fold reads is taken in as it comes, so that the log is read once for both. What lies behind that, after a start or a
//! failure, is read here.
//!
//! Only what is released and on this disk is taken in, so no cut of the tail ever touches a sealed segment. It goes on where
//! the file stands, whatever ended the process before: a segment that was half summed is read again. The pace is that of
//! folding ([`crate::pace`]): little at a time, more as it falls behind.
//!
//! What goes wrong here costs evidence and no flow: it is said once, counted, and tried again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use relay_core::command::Testimony;
use relay_journal::seal::{PublicKey, SegmentSum};
use relay_wire::id::{NodeId, Position};
use relay_wire::record::SealKeyBody;

use crate::arena::Pages;
use crate::clock::Clock;
use crate::counters::{Counter, CounterFile};
use crate::pace::{self, STEP_MAX};
use crate::seal_file::{LogFacts, SealFile};
use crate::storage::Segments;

/// A successor of the key is looked for so often.
const KEY_INTERVAL: Duration = Duration::from_secs(1);
/// What failed is tried again so often.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// What is sealed, and with what.
pub(crate) struct SealingParts {
    pub(crate) directory: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) segments: Segments,
    pub(crate) log: LogFacts,
    pub(crate) node: NodeId,
    /// How far the log is known to be released at the start.
    pub(crate) released: Position,
    pub(crate) clock: Clock,
}

/// See the module's description.
pub(crate) struct Sealing {
    parts: SealingParts,
    /// `None` where the file can't be gone on with.
    state: Option<State>,
    is_failing: bool,
    retry_at: Option<Instant>,
    key_looked_at: Instant,
    testimony: Option<Testimony>,
    exported: Exported,
}

struct State {
    file: SealFile,
    sum: SegmentSum,
}

struct Exported {
    position: Counter,
    segments: Counter,
    lag: Counter,
    failures: Counter,
}

impl Sealing {
    /// Opens the seals and goes on where they stand. What is wrong with them is said, and no reason not to start.
    pub(crate) fn new(parts: SealingParts, counters: &mut CounterFile) -> Self {
        let exported = Exported {
            position: counters.counter("seals.position"),
            segments: counters.counter("seals.segments"),
            lag: counters.counter("seals.lag_bytes"),
            failures: counters.counter("seals.failures"),
        };
        let time_ns = parts.clock.now().utc_ns;
        let opened = SealFile::open(&parts.directory, &parts.key_file, &parts.log, time_ns);
        let mut sealing = Self {
            state: None,
            is_failing: false,
            retry_at: None,
            key_looked_at: Instant::now(),
            testimony: None,
            exported,
            parts,
        };
        match opened {
            Ok(file) => {
                sealing.testimony = Some(testimony(sealing.parts.node, file.key(), None));
                let sum = next_sum(&sealing.parts.log, &file);
                sealing.state = Some(State { file, sum });
                sealing.export(sealing.parts.released);
            }
            Err(error) => sealing.fail(&error),
        }
        sealing
    }

    /// What the log is to say about the key, once after each change.
    pub(crate) fn take_testimony(&mut self) -> Option<Testimony> {
        self.testimony.take()
    }

    /// Takes in `bytes`, which were read of the log at `position`, if they are what comes next here.
    pub(crate) fn offer(&mut self, position: Position, bytes: &[u8], released: Position) {
        let released = self.limit(released);
        let Some(state) = self.state.as_mut().filter(|_| self.retry_at.is_none()) else {
            return;
        };
        if state.sum.position() != position || released <= position {
            return;
        }
        let length = bytes.len().min(released.since(position) as usize);
        let taken = state.sum.take(&bytes[..length], &mut |_, _| {});
        let sealed = taken.map_err(Problem::from);
        let sealed = sealed.and_then(|_| self.seal_if_complete());
        self.settle(sealed.map(|()| true), Instant::now());
    }

    /// Does a little, where there is something to do; whether there was. `released` is how far the log is released now, `folded` how
    /// far it was offered.
    pub(crate) fn step(&mut self, released: Position, folded: Position, pages: &mut Pages) -> bool {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        let released = self.limit(released);
        let was_busy = self
            .look_for_key(now)
            .and_then(|()| self.advance(released, folded, pages));
        let was_busy = self.settle(was_busy, now);
        self.export(released);
        was_busy
    }

    /// Says what went wrong, or that nothing does any more; whether something was done.
    fn settle(&mut self, was_busy: Result<bool, Problem>, now: Instant) -> bool {
        match was_busy {
            Ok(was_busy) => {
                if was_busy && std::mem::take(&mut self.is_failing) {
                    tracing::info!("segments are sealed again");
                }
                self.retry_at = None;
                was_busy
            }
            Err(error) => {
                self.fail(&error);
                self.retry_at = Some(now + RETRY_PAUSE);
                false
            }
        }
    }

    /// Up to here the log is released. What was known at the start counts until release has moved past the log as it was then:
    /// before that, the end of the log is what is published.
    fn limit(&self, released: Position) -> Position {
        if released > self.parts.log.tail {
            released
        } else {
            self.parts.released
        }
    }

    /// Where an operator put a successor beside the key, the old one vouches for it.
    fn look_for_key(&mut self, now: Instant) -> Result<(), Problem> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        if now.duration_since(self.key_looked_at) < KEY_INTERVAL {
            return Ok(());
        }
        self.key_looked_at = now;
        let time_ns = self.parts.clock.now().utc_ns;
        if let Some(replaced) = state.file.rotate(time_ns)? {
            let key = state.file.key();
            tracing::warn!(%key, %replaced, "seals are signed with another key from here on");
            self.testimony = Some(testimony(self.parts.node, key, Some(replaced)));
        }
        Ok(())
    }

    /// Takes some more in of what was folded before it could be offered here.
    fn advance(
        &mut self,
        released: Position,
        folded: Position,
        pages: &mut Pages,
    ) -> Result<bool, Problem> {
        // What could not be written before.
        self.seal_if_complete()?;
        let Some(state) = &mut self.state else {
            return Ok(false);
        };
        let end = self.parts.log.geometry.start_of(state.sum.segment() + 1);
        let start = state.sum.position();
        // The end of a segment is not waited for where the fold waits for more. One that is behind brings it by itself.
        let waits = pace::folding(released.get().saturating_sub(folded.get())).is_none();
        let target = if released >= end && waits {
            end
        } else {
            folded.min(released)
        };
        let backlog = target.get().saturating_sub(start.get());
        if backlog == 0 {
            return Ok(false);
        }
        let step = pace::folding(released.since(start)).map_or(backlog, |step| step as u64);
        let step = step.min(backlog);
        take(&self.parts.segments, &mut state.sum, step, backlog, pages)?;
        assert!(
            state.sum.position() <= released,
            "only what is released is sealed"
        );
        self.seal_if_complete()?;
        Ok(true)
    }

    /// Seals the segment if its last block was taken in.
    fn seal_if_complete(&mut self) -> Result<(), Problem> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        if let Some(statement) = state.sum.statement() {
            let segment = state.sum.segment();
            let time_ns = self.parts.clock.now().utc_ns;
            state.file.seal(statement, time_ns)?;
            state.sum = next_sum(&self.parts.log, &state.file);
            tracing::debug!(segment, root = %statement.root, "sealed a segment");
        }
        Ok(())
    }

    fn fail(&mut self, error: &impl std::fmt::Display) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(
                %error,
                "segments are not sealed: the flow goes on, and what is missing is sealed once this is mended"
            );
        }
        self.exported.failures.add(1);
    }

    fn export(&self, released: Position) {
        let Some(state) = &self.state else {
            return;
        };
        let full = self.parts.log.geometry.segment_of(released);
        let full = self.parts.log.geometry.start_of(full);
        let sealed = state.file.end();
        self.exported.segments.set(state.file.next_segment());
        let lag = full.get().saturating_sub(sealed.get());
        self.exported.lag.set(lag);
        self.exported.position.set(sealed.get());
    }
}

/// What a step can't go on with.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// The sum of the segment that is to be sealed next, nothing taken in.
fn next_sum(log: &LogFacts, file: &SealFile) -> SegmentSum {
    let (segment, link) = (file.next_segment(), Some(file.link()));
    SegmentSum::new(log.geometry, log.stream, segment, link, file.previous())
}

fn testimony(node: NodeId, key: PublicKey, replaced: Option<PublicKey>) -> Testimony {
    Testimony::SealKey(SealKeyBody {
        node: node.get().into(),
        key: key.0,
        replaced: replaced.map_or([0; 32], |key| key.0),
    })
}

/// Takes about `length` of the `backlog` bytes behind the sum in, and at least one block.
fn take(
    segments: &Segments,
    sum: &mut SegmentSum,
    length: u64,
    backlog: u64,
    pages: &mut Pages,
) -> Result<(), Problem> {
    let position = sum.position();
    let mut wanted = length as usize;
    loop {
        let read = segments.read(position, pages, wanted)?;
        // SAFETY: the read has completed and nobody else has the pages.
        let bytes = unsafe { pages.slice(0, read) };
        let taken = sum.take(bytes, &mut |_, _| {})?;
        if taken > 0 {
            return Ok(());
        }
        // A block longer than the step: it is released, so all of it is there.
        let most = backlog.min(STEP_MAX as u64) as usize;
        if wanted >= most {
            let what = format!("the block at position {position} ends too early");
            return Err(what.into());
        }
        wanted = most;
    }
}
