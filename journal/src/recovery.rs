//! Where the log ends after a stop of any kind, and whether it may be believed: one decision table.
//!
//! The log is read from a checkpoint on while each block continues the one before. Where one does
//! not, the evidence is gathered (what lies here, what lies beyond, what the superblock says) and
//! [`decide`] answers from that alone.
//!
//! What the answer rests on. At most W bytes of the log are in flight at once
//! ([`Superblock::in_flight_bytes_max`]); a crash leaves any subset of their sectors. So damage is
//! *torn* if nothing intact shows that it was durable once: an intact block later on that knows of
//! a release beyond the damage's start, or that ends more than W behind it and so was not submitted
//! before the damaged place was durable, or a clean stop beyond it. Where one of these is found the
//! damage is *rotten*: the bytes were good, may have been acknowledged, and must come from a peer.
//!
//! A damaged block is unknown, not absent. Cutting it is right only because nothing proves that it
//! was released; on a node of a group the cut is remembered until a peer answers for it. **The one
//! undecidable case**: on a node standing alone, rot of the very last block, no later mark on disk
//! yet, looks like a torn write, and is cut.
//!
//! A copy that catches up gets blocks that tell of releases far ahead of it, and none of these rested
//! on it: from the superblock's learning mark on ([`Superblock::learning_from`]) a released position
//! proves nothing about this disk. What was submitted more than W later still does. It is the same in an epoch whose
//! releases rest on copies in memory: there the disk follows the release.
//!
//! Recovery starts from a checkpoint that the log leads up to ([`Start::choose`]). One that it does not lead up to proves
//! that what is missing before it was durable.
//!
//! The end is read twice, from the last block on: a disk, or one half of a mirror, that gives bytes of earlier can make
//! a log look shorter, or an end that was cut long ago look like the log. Two answers are an error, not a guess.
//!
//! What a cut demands of its caller: whatever lies between the cut and the end of the leftovers is
//! zeroed (from the far end towards the cut, so that a crash in between leaves a log that is only
//! shorter) before a block is written there.

mod start;

use relay_wire::code::Policy;
use relay_wire::id::{Epoch, Position};

pub use self::start::Start;
use self::start::check_fit;

use crate::block::{BlockHeader, SPAN_MAX, decode_header, is_zero};
pub use crate::scan::{Front, LogSource, SourceError};
use crate::scan::{Link, Window, is_at_home};
use crate::segment;
use crate::superblock::Superblock;
use crate::tables::{FoldError, Tables};

/// The strongest evidence found behind the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Beyond {
    /// No intact block of this log.
    Nothing,
    /// An intact block, but none that shows the front was ever durable.
    IntactNotReleasing,
    /// An intact block that knows of a release past the front's start (where this copy counted
    /// there), or that ends more than W behind it.
    IntactReleasingBeyond,
    /// A checkpoint of more of this log than there is: what it was made of was durable here.
    Checkpoint,
}

impl Beyond {
    /// Every value, weakest first.
    pub const ALL: &'static [Self] = &[
        Self::Nothing,
        Self::IntactNotReleasing,
        Self::IntactReleasingBeyond,
        Self::Checkpoint,
    ];
}

/// What the superblock says about the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clean {
    /// Nothing, or a clean stop the log has passed since.
    None,
    /// A clean stop exactly here, after the very block found last.
    TailHere,
    /// A clean stop further on, or here but after another block.
    TailBeyond,
}

impl Clean {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[Self::None, Self::TailHere, Self::TailBeyond];
}

/// All that the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// What lies where the next block should.
    pub front: Front,
    /// What lies behind it.
    pub beyond: Beyond,
    /// What the superblock says.
    pub clean: Clean,
}

/// What the evidence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The log ends here, nothing is missing.
    End,
    /// Something was being written here and nothing shows it was ever durable: the log is cut here.
    CutTorn,
    /// What was durable here is damaged or gone: fetch it from a peer, or halt.
    Rotten,
    /// What lies here is not ours to judge: halt.
    Refuse,
}

/// The decision table. The first row that matches decides:
///
/// | front | beyond | clean stop | decision |
/// | --- | --- | --- | --- |
/// | foreign stream, other version | any | any | refuse |
/// | any | any | further on | rotten |
/// | any | releasing, checkpoint | any | rotten |
/// | chain broken | any | any | rotten |
/// | absent, stale | nothing | none, here | end |
/// | any | nothing, not releasing | none, here | cut |
#[must_use]
pub const fn decide(evidence: &Evidence) -> Decision {
    match (evidence.front, evidence.beyond, evidence.clean) {
        (Front::ForeignStream | Front::OtherVersion, _, _) => Decision::Refuse,
        (_, _, Clean::TailBeyond) => Decision::Rotten,
        (_, Beyond::IntactReleasingBeyond | Beyond::Checkpoint, _) => Decision::Rotten,
        (Front::ChainBroken, _, _) => Decision::Rotten,
        (Front::Absent | Front::StaleEarlier, Beyond::Nothing, _) => Decision::End,
        (_, Beyond::Nothing | Beyond::IntactNotReleasing, _) => Decision::CutTorn,
    }
}

/// Where and why a log can't be used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Position of the block in question.
    pub position: Position,
    /// Index of the segment file it lies in.
    pub segment: u64,
    /// Its offset in that file.
    pub offset: u64,
    /// Checksum of the block before: with the position it names the block that belongs there.
    pub previous_checksum: u32,
    /// What was decided from.
    pub evidence: Evidence,
    /// What gave the evidence further on: the intact block that lies here, or the checkpoint of this position.
    pub witness: Option<Position>,
}

impl core::fmt::Display for Finding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} at position {} (segment {}, offset {})",
            self.evidence.front,
            self.position,
            segment::name(self.segment),
            self.offset
        )?;
        if let Some(witness) = self.witness {
            if self.evidence.beyond == Beyond::Checkpoint {
                write!(
                    f,
                    ", while a checkpoint was made of the log up to position {witness}"
                )?;
            } else {
                write!(f, ", while an intact block lies at position {witness}")?;
            }
        }
        if matches!(self.evidence.clean, Clean::TailBeyond) {
            write!(f, ", while the superblock names a clean stop further on")?;
        }
        Ok(())
    }
}

/// Why there is no log to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryError {
    /// What was durable is damaged or gone.
    Rotten(Finding),
    /// A block of another stream or format version lies where the log goes on.
    Refused(Finding),
    /// An intact block that continues the log breaks a rule of its content: whoever wrote it was
    /// wrong.
    Fold {
        /// Position of the block.
        position: Position,
        /// The rule.
        error: FoldError,
    },
    /// The log's end was read twice, and the second time it was another.
    Unsteady {
        /// Position of the block that was another.
        position: Position,
    },
    /// The log can't be read.
    Source(SourceError),
    /// The tables to start from are not of this journal; what does not fit.
    Start(&'static str),
}

impl core::fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Rotten(finding) => write!(
                f,
                "the journal is damaged: {finding}. It was durable and may have been acknowledged, \
                 so it is not cut: fetch it from a peer"
            ),
            Self::Refused(finding) => write!(
                f,
                "the journal can't be used: {finding}. Check that the disk is the right one"
            ),
            Self::Fold { position, error } => write!(
                f,
                "the intact block at position {position} breaks a rule: {error}. This is a bug of \
                 the software that wrote it: keep the journal and report it"
            ),
            Self::Unsteady { position } => write!(
                f,
                "the disk gave two answers for position {position} of the log, one after the other: it returns bytes of \
                 earlier. Find out which disk, or which half of a mirror, does; take it out, and start again"
            ),
            Self::Source(error) => write!(f, "{error}"),
            Self::Start(what) => {
                write!(
                    f,
                    "the checkpoint is not of this journal: {what}. Remove it"
                )
            }
        }
    }
}

impl core::error::Error for RecoveryError {}

impl From<SourceError> for RecoveryError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// What lies behind the end of the log and does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Where the log was cut: its tail.
    pub position: Position,
    /// What lay there.
    pub front: Front,
    /// What lay behind.
    pub beyond: Beyond,
    /// Bytes from the cut on that must be zeroed before anything is written there; a multiple of
    /// the alignment.
    pub leftovers: u64,
}

/// A log that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The fold of the whole log.
    pub tables: Tables,
    /// Where the log ends.
    pub tail: Position,
    /// Checksum of its last block; 0 when there is none.
    pub previous_checksum: u32,
    /// The number the next block has.
    pub next_block_number: u64,
    /// [`Decision::End`] or [`Decision::CutTorn`].
    pub decision: Decision,
    /// What was left behind the tail, if anything was.
    pub cut: Option<Cut>,
    /// Blocks taken in since the checkpoint.
    pub blocks_scanned: u64,
    /// Bytes read, the search behind the tail included.
    pub bytes_scanned: u64,
}

/// Most segments whose first block is looked for behind the window.
const SEGMENTS_PROBED_MAX: u64 = 1024;

/// Finds the end of a log and the tables that belong to it. `start` is what [`Start::choose`] found, or empty tables;
/// `progress` is called with a position now and then.
///
/// # Errors
/// [`RecoveryError`]: the log must not be written to then.
pub fn recover(
    source: &mut (dyn LogSource + Send),
    superblock: &Superblock,
    start: impl Into<Start>,
    progress: &mut dyn FnMut(Position),
) -> Result<Recovered, RecoveryError> {
    let Start {
        mut tables,
        passed_over,
    } = start.into();
    check_fit(&tables, superblock)?;
    let mut window = Window::new(Box::new(source), superblock.geometry());
    let mut blocks_scanned = 0;
    let mut bytes_reported = 0;
    let mut last = None;
    let front = loop {
        let link = Link::after_tables(&tables);
        let header = match window.examine(tables.position, superblock.stream, Some(&link))? {
            Ok(header) => header,
            Err(front) => break front,
        };
        let applied = tables.apply_block(&header, window.body(&header)?);
        applied.map_err(|error| RecoveryError::Fold {
            position: header.position,
            error,
        })?;
        last = Some((header.position, link));
        blocks_scanned += 1;
        if window.bytes_read() != bytes_reported {
            bytes_reported = window.bytes_read();
            progress(tables.position);
        }
    };
    confirm(&mut window, &tables, last, front)?;
    let mut seen = look_beyond(&mut window, superblock, &tables, front)?;
    if let Some((position, checksum)) = passed_over
        && (position, checksum) != (tables.position, tables.previous_checksum)
        && position >= tables.position
    {
        seen.note(Beyond::Checkpoint, position);
    }
    conclude(
        superblock,
        tables,
        &seen,
        blocks_scanned,
        window.bytes_read(),
    )
}

/// Reads the end once more: the last block, with the link that led to it, and what lies behind it. What is looked at from here on
/// is of the second reading.
fn confirm(
    window: &mut Window<'_>,
    tables: &Tables,
    last: Option<(Position, Link)>,
    front: Front,
) -> Result<(), RecoveryError> {
    window.forget();
    if let Some((position, link)) = last {
        let again = window.examine(position, tables.stream, Some(&link))?;
        if again.map(|header| header.checksum) != Ok(tables.previous_checksum) {
            return Err(RecoveryError::Unsteady { position });
        }
    }
    let position = tables.position;
    let link = Link::after_tables(tables);
    match window.examine(position, tables.stream, Some(&link))? {
        Err(again) if again == front => Ok(()),
        _ => Err(RecoveryError::Unsteady { position }),
    }
}

/// What lies at and behind the front.
struct Seen {
    front: Front,
    beyond: Beyond,
    witness: Option<Position>,
    /// Bytes from the front to the end of the last aligned unit in the window that is not zero.
    leftovers: u64,
}

impl Seen {
    fn note(&mut self, beyond: Beyond, position: Position) {
        if beyond > self.beyond {
            self.beyond = beyond;
            self.witness = Some(position);
        }
    }
}

fn conclude(
    superblock: &Superblock,
    tables: Tables,
    seen: &Seen,
    blocks_scanned: u64,
    bytes_scanned: u64,
) -> Result<Recovered, RecoveryError> {
    let tail = tables.position;
    let evidence = Evidence {
        front: seen.front,
        beyond: seen.beyond,
        clean: clean_stop(superblock, &tables),
    };
    let geometry = superblock.geometry();
    let finding = Finding {
        position: tail,
        segment: geometry.segment_of(tail),
        offset: geometry.offset_of(tail),
        previous_checksum: tables.previous_checksum,
        evidence,
        witness: seen.witness,
    };
    let decision = decide(&evidence);
    match decision {
        Decision::Refuse => return Err(RecoveryError::Refused(finding)),
        Decision::Rotten => return Err(RecoveryError::Rotten(finding)),
        Decision::End | Decision::CutTorn => {}
    }
    Ok(Recovered {
        tail,
        previous_checksum: tables.previous_checksum,
        next_block_number: tables.next_block_number,
        tables,
        decision,
        cut: (seen.front != Front::Absent).then_some(Cut {
            position: tail,
            front: seen.front,
            beyond: seen.beyond,
            leftovers: seen.leftovers,
        }),
        blocks_scanned,
        bytes_scanned,
    })
}

fn clean_stop(superblock: &Superblock, tables: &Tables) -> Clean {
    match superblock.clean {
        Some(clean) if clean.tail > tables.position => Clean::TailBeyond,
        Some(clean) if clean.tail == tables.position => {
            let is_ours =
                clean.checksum == tables.previous_checksum && clean.next_seq == tables.next_seq;
            if is_ours {
                Clean::TailHere
            } else {
                Clean::TailBeyond
            }
        }
        Some(_) | None => Clean::None,
    }
}

/// Searches every aligned address a crash can have left something at: W for what was in flight, W
/// again for what such a crash had cut before, and one block.
fn look_beyond(
    window: &mut Window<'_>,
    superblock: &Superblock,
    tables: &Tables,
    front: Front,
) -> Result<Seen, RecoveryError> {
    let alignment = superblock.block_alignment;
    let tail = tables.position;
    let mut seen = Seen {
        front,
        beyond: Beyond::Nothing,
        witness: None,
        leftovers: 0,
    };
    let link = Link::after_tables(tables);
    let reach = 2 * superblock.in_flight_bytes_max + u64::from(SPAN_MAX);
    let limit = tail.plus(reach.next_multiple_of(u64::from(alignment)));
    let mut position = tail;
    while position < limit {
        let bytes = window.bytes(position, alignment as usize)?;
        if bytes.is_empty() {
            break;
        }
        let mut step = u64::from(alignment);
        if !is_zero(bytes) {
            let header = decode_header(bytes).ok();
            if let Some(header) = header
                && position == tail
                && continues(&header, position, &link)
            {
                // The damaged block itself: its body is payload, which may look like anything.
                step = u64::from(header.written_length(alignment));
            } else if let Some(header) =
                header.filter(|header| belongs(header, position, superblock))
            {
                if position > tail && is_later(&header, &link) {
                    let beyond = weigh(&header, tables, superblock);
                    seen.note(beyond, position);
                }
                // What lies inside an intact block is payload, which may look like anything.
                if window.verify(position, &header)?.is_ok() {
                    step = u64::from(header.written_length(alignment));
                }
            }
            seen.leftovers = position.plus(step).since(tail);
        }
        position = position.plus(step);
    }
    probe_segments(window, superblock, tables, limit, &mut seen)?;
    if front == Front::Absent && (seen.leftovers != 0 || seen.beyond != Beyond::Nothing) {
        seen.front = Front::Zeroed;
    }
    Ok(seen)
}

/// Looks at the first block of the segments behind the window, for a hole longer than a crash can
/// make.
fn probe_segments(
    window: &mut Window<'_>,
    superblock: &Superblock,
    tables: &Tables,
    limit: Position,
    seen: &mut Seen,
) -> Result<(), RecoveryError> {
    let link = Link::after_tables(tables);
    let geometry = superblock.geometry();
    let first = geometry.segment_of(limit) + 1;
    for segment in first..first + SEGMENTS_PROBED_MAX {
        let position = geometry.start_of(segment);
        let bytes = window.probe(position)?;
        if bytes.is_empty() {
            break;
        }
        let header = decode_header(bytes).ok();
        let header = header.filter(|header| belongs(header, position, superblock));
        if let Some(header) = header
            && is_later(&header, &link)
        {
            seen.note(weigh(&header, tables, superblock), position);
        }
    }
    Ok(())
}

fn belongs(header: &BlockHeader, position: Position, superblock: &Superblock) -> bool {
    header.stream == superblock.stream && is_at_home(header, position, &superblock.geometry())
}

/// Whether an intact header is that of the very block that is due.
fn continues(header: &BlockHeader, position: Position, link: &Link) -> bool {
    header.position == position
        && header.number == link.number
        && header.previous_checksum == link.previous_checksum
}

/// Whether an intact block was written after the one that is missing; else it is left over from
/// before a cut.
fn is_later(header: &BlockHeader, link: &Link) -> bool {
    header.number > link.number && header.epoch >= link.epoch.max(Epoch(1))
}

/// What an intact later block says about the place where the log of `tables` ends.
fn weigh(header: &BlockHeader, tables: &Tables, superblock: &Superblock) -> Beyond {
    let tail = tables.position;
    let written = header.written_length(superblock.block_alignment);
    let end = header.position.plus(u64::from(written));
    let is_learner = superblock.learning_from.is_some_and(|from| tail >= from);
    let rests_on_disk = !is_learner && !rests_on_memory(tables);
    let is_released = rests_on_disk && header.released > tail;
    if is_released || end.since(tail) > superblock.in_flight_bytes_max {
        Beyond::IntactReleasingBeyond
    } else {
        Beyond::IntactNotReleasing
    }
}

/// Whether the log ends in an epoch whose releases rest on copies in memory: with one copy there is none but the disk's.
fn rests_on_memory(tables: &Tables) -> bool {
    let last = tables.epochs.last();
    last.is_some_and(|last| last.policy == Policy::Mirrored && last.copies > 1)
}
