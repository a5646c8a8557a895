//! The thread of each stream that does what must not be done on a hot one: write checkpoints, index, and what
//! [`crate::evidence`] is about. Space ahead of the log is another's ([`crate::preparation`]).
//!
//! It runs at low priority and in small steps, and rests as long as it works ([`crate::pace`]): a hot thread that yields gives way
//! to this one too, and behind a flow that takes all a CPU has that cost the flow a fifth. Checkpoints are the fold of the
//! released log, a little behind the flow and out of memory where that still has it ([`crate::released_log`]): nothing is done
//! for them on the hot path, and one that is late costs a restart time, not data. What was read also makes the side index
//! ([`crate::indexer`]) and the seals ([`crate::sealing`]). That the disk gives back what was written is for the scrubber to
//! see ([`crate::scrubber`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::checkpoint;
use relay_journal::superblock::Superblock;
use relay_journal::tables::Tables;
use relay_wire::id::Position;

use crate::arena::Pages;
use crate::counters::{Counter, CounterFile};
use crate::evidence::Evidence;
use crate::indexer::Indexer;
use crate::link::PositionCell;
use crate::pace::{self, STEP_MAX, STEP_PAUSE};
use crate::released_log::{ReleasedLog, Source};
use crate::storage::{StorageError, sync_directory};

/// Pause before what could not be folded is read again: the scrubber or an operator may have mended it.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(10);
/// Pause when there was nothing to do.
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// A checkpoint is written at least so often while the log grows.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// Checkpoints kept.
const CHECKPOINTS_KEPT: usize = 2;

/// What the thread works on.
pub(crate) struct HousekeepingParts {
    pub(crate) directory: PathBuf,
    pub(crate) superblock: Superblock,
    pub(crate) log: ReleasedLog,
    pub(crate) tables: Tables,
    pub(crate) released: PositionCell,
    pub(crate) checkpoint_every: u64,
    pub(crate) evidence: Evidence,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Whether the log is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    GoesOn,
    /// What comes next could not be read; tried again then.
    Waits(Instant),
    /// What comes next can't be: nothing is folded any more.
    Ended,
}

/// Why a step of the fold did not succeed. Nothing was taken in of the block concerned.
enum FoldStop {
    /// The block is not there as it was written.
    Unreadable(String),
    /// It is, and breaks the rules of the log.
    Wrong(String),
}

/// See the module's description.
pub(crate) struct Housekeeping {
    parts: HousekeepingParts,
    pages: Pages,
    checkpoint_at: Position,
    checkpoint_time: Instant,
    fold: Fold,
    indexer: Indexer,
    checkpointed: Counter,
    read_back: Counter,
}

impl Housekeeping {
    pub(crate) fn new(
        parts: HousekeepingParts,
        counters: &mut CounterFile,
    ) -> std::io::Result<Self> {
        let housekeeping = Self {
            pages: Pages::new(STEP_MAX)?,
            checkpoint_at: parts.tables.position,
            checkpoint_time: Instant::now(),
            fold: Fold::GoesOn,
            indexer: Indexer::new(
                &parts.directory,
                parts.superblock,
                parts.log.segments.clone(),
                counters,
            ),
            checkpointed: counters.counter("journal.checkpoint_position"),
            read_back: counters.counter("journal.read_back_bytes"),
            parts,
        };
        housekeeping
            .checkpointed
            .set(housekeeping.checkpoint_at.get());
        Ok(housekeeping)
    }

    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        lower_priority();
        while !self.parts.stop.load(Ordering::Acquire) {
            let begun = Instant::now();
            let was_busy = self.index() | self.fold() | self.testify();
            std::thread::sleep(if was_busy {
                begun.elapsed().clamp(STEP_PAUSE, IDLE_PAUSE)
            } else {
                IDLE_PAUSE
            });
        }
    }

    /// Seals, and says what the clock is worth.
    fn testify(&mut self) -> bool {
        let released = self.parts.released.read();
        // Where the fold stands still nobody offers any more.
        let folded = match self.fold {
            Fold::GoesOn => self.parts.tables.position,
            Fold::Waits(_) | Fold::Ended => released,
        };
        let evidence = &mut self.parts.evidence;
        evidence.step(released, folded, &mut self.pages)
    }

    /// Folds some more of the released log; writes a checkpoint when one is due.
    fn fold(&mut self) -> bool {
        match self.fold {
            Fold::Ended => return false,
            Fold::Waits(until) if Instant::now() < until => return false,
            Fold::Waits(_) | Fold::GoesOn => {}
        }
        let released = self.parts.released.read();
        let behind = released.since(self.checkpoint_at);
        let is_due = behind >= self.parts.checkpoint_every
            || (behind > 0 && self.checkpoint_time.elapsed() >= CHECKPOINT_INTERVAL);
        let backlog = released.since(self.parts.tables.position);
        // What is left of the log when a checkpoint is due is folded too, however little.
        let last = (is_due && backlog > 0).then_some(backlog.min(pace::STEP_MIN as u64) as usize);
        let step = pace::folding(backlog).or(last);
        if let Some(step) = step {
            let done = self.fold_step(released, step);
            if !self.note_fold(done) {
                return false;
            }
        }
        let folded = self.parts.tables.position;
        if is_due
            && (folded >= released
                || folded.since(self.checkpoint_at) >= self.parts.checkpoint_every)
        {
            self.write_checkpoint();
        }
        is_due || step.is_some()
    }

    /// Whether the fold goes on.
    fn note_fold(&mut self, done: Result<(), FoldStop>) -> bool {
        let position = self.parts.tables.position;
        match done {
            Ok(()) => self.fold = Fold::GoesOn,
            Err(FoldStop::Unreadable(what)) => {
                if self.fold == Fold::GoesOn {
                    tracing::error!(
                        %position,
                        what,
                        "the journal can't be read back here; no checkpoints until it can: see `relay verify`"
                    );
                }
                self.fold = Fold::Waits(Instant::now() + UNREADABLE_PAUSE);
            }
            Err(FoldStop::Wrong(what)) => {
                tracing::error!(%position, what, "the journal breaks its own rules; no checkpoints");
                self.fold = Fold::Ended;
            }
        }
        self.fold == Fold::GoesOn
    }

    /// A little of what there is to index.
    fn index(&mut self) -> bool {
        self.indexer
            .step(self.parts.tables.position, &mut self.pages)
    }

    /// Reads and folds about `length` bytes of what lies before `target`, and at least one block.
    fn fold_step(&mut self, target: Position, length: usize) -> Result<(), FoldStop> {
        let unreadable = |what: String| FoldStop::Unreadable(what);
        let start = self.parts.tables.position;
        // The padding of a block is needed too: its seal covers that.
        let alignment = self.parts.superblock.block_alignment as usize;
        let wanted = (target.since(start) as usize).min(length.next_multiple_of(alignment));
        let read = self.parts.log.read(start, &mut self.pages, wanted);
        let (length, source) = read.map_err(|error| unreadable(error.to_string()))?;
        if source == Source::Disk {
            self.read_back.add(length as u64);
        }
        // SAFETY: the read has completed and nobody else has the pages.
        let bytes = unsafe { self.pages.slice(0, length) };
        self.parts.evidence.offer(start, bytes, target);
        loop {
            let offset = self.parts.tables.position.since(start) as usize;
            if offset >= length || self.parts.tables.position >= target {
                return Ok(());
            }
            let rest = &bytes[offset..];
            let header =
                block::decode_header(rest).map_err(|error| unreadable(error.to_string()))?;
            if rest.len() < header.body_end() {
                // It goes on beyond what was read. The next step starts with it, or reads all of it now.
                let span = header.body_end().next_multiple_of(4096);
                return if offset > 0 {
                    Ok(())
                } else if length < span && span <= STEP_MAX {
                    self.fold_step(target, span)
                } else {
                    Err(unreadable("a block ends too early".to_owned()))
                };
            }
            let body = &rest[HEADER_LENGTH..header.body_end()];
            block::verify_body(&header, body).map_err(|error| unreadable(error.to_string()))?;
            let session = self.parts.tables.trading_session.as_ref();
            self.indexer.take(&header, body, session);
            let applied = self.parts.tables.apply_block(&header, body);
            applied.map_err(|error| FoldStop::Wrong(error.to_string()))?;
        }
    }

    fn write_checkpoint(&mut self) {
        let position = self.parts.tables.position;
        self.checkpoint_at = position;
        self.checkpoint_time = Instant::now();
        match save_checkpoint(&self.parts.directory, &self.parts.tables) {
            Ok(()) => self.checkpointed.set(position.get()),
            Err(error) => tracing::warn!(
                %error,
                "a checkpoint could not be written: a restart reads more of the log"
            ),
        }
    }
}

/// Writes a checkpoint durably under its final name and removes old ones.
pub(crate) fn save_checkpoint(
    directory: &std::path::Path,
    tables: &Tables,
) -> Result<(), StorageError> {
    let io = |stage, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| StorageError::Io {
            stage,
            path,
            source,
        }
    };
    let path = directory.join(checkpoint::name(tables.position));
    let fresh = directory.join("checkpoint.new");
    std::fs::File::create(&fresh)
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, &checkpoint::encode(tables))?;
            file.sync_all()
        })
        .map_err(io("writing a checkpoint", &fresh))?;
    std::fs::rename(&fresh, &path).map_err(io("naming a checkpoint", &path))?;
    sync_directory(directory)?;
    let mut positions: Vec<Position> = std::fs::read_dir(directory)
        .map_err(io("listing checkpoints", directory))?
        .filter_map(|entry| checkpoint::parse_name(entry.ok()?.file_name().to_str()?))
        .collect();
    positions.sort_unstable();
    let old = positions.len().saturating_sub(CHECKPOINTS_KEPT);
    for &position in &positions[..old] {
        let path = directory.join(checkpoint::name(position));
        std::fs::remove_file(&path).map_err(io("removing an old checkpoint", &path))?;
    }
    Ok(())
}

/// Housekeeping gives way to everything else on its CPU.
pub(crate) fn lower_priority() {
    // SAFETY: plain numbers are passed; on Linux 0 means the calling thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } != 0;
    if refused {
        tracing::warn!("housekeeping keeps its priority: it could not be lowered");
    }
}
