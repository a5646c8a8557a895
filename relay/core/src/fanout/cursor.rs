//! Where a subscriber stands in the log, and the next bytes it is to get.
//!
//! Stateless walking: given the log's bytes from a block on, [`Walk`] yields runs of bytes that lie together and may be sent as
//! they are. Unfiltered, a run is a block's body; filtered, it is as many matching records as stand side by side.

use relay_journal::block::{self, BlockError, BlockHeader, HEADER_LENGTH};
use relay_wire::code::RecordKind;
use relay_wire::id::{Position, Seq};
use relay_wire::record::Record;

use super::interest::Interest;
use super::patterns::PatternSet;
use crate::command::ReleasePoint;

/// A subscriber's place: the next byte it has not been given, and what it has seen by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Start of the block it stands in.
    pub(super) block: Position,
    /// Bytes from the start of that block; 0 when nothing of it was looked at.
    pub(super) offset: u32,
    /// Every DATA record before this seq was looked at.
    pub(super) next_seq: Seq,
    /// Checksum of the DATA record before `next_seq`, where it is known.
    pub(super) checksum: Option<u32>,
}

impl Cursor {
    /// At the end of what is released.
    pub(super) const fn at(tail: &ReleasePoint) -> Self {
        Self {
            block: tail.position,
            offset: 0,
            next_seq: tail.next_seq,
            checksum: Some(tail.checksum),
        }
    }
}

/// Bytes of the log that lie together and are to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// The block they lie in.
    pub(super) block: Position,
    pub(super) position: Position,
    pub(super) length: u32,
    /// Where the subscriber stands once they are sent.
    pub(super) after: Cursor,
    /// The time a subscription starts from is not met in them.
    pub(super) awaits_time: bool,
}

/// What comes before the first record that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    Nothing,
    /// Records before `until`. The last message before it must have this checksum, if given, and be the one with the seq before,
    /// unless `until` is itself the first after seqs that were skipped.
    Seq {
        until: Seq,
        checksum: Option<u32>,
        /// The last message that was passed.
        passed: Option<Passed>,
    },
    /// Records received before this time, ns UTC.
    Time(u64),
}

/// A message that was passed on the way to the first one wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    seq: Seq,
    checksum: u32,
}

/// What a subscriber wants. Which of the defined topics its patterns select stands in [`Interest`].
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) patterns: PatternSet,
    pub(super) skip: Skip,
    /// The time it starts from, ns UTC, where it starts from one.
    pub(super) from_ns: Option<u64>,
}

impl Selection {
    /// Whether whole bodies go out unlooked at.
    const fn is_plain(&self) -> bool {
        self.patterns.is_everything() && matches!(self.skip, Skip::Nothing)
    }
}

/// Who asks for which topics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) interest: &'a Interest,
    pub(super) place: u32,
}

/// Why a walk stopped for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkError {
    /// The record before the wanted seq has another checksum than the subscriber says.
    WrongHistory(Seq),
    /// The block at this position is damaged.
    Damaged(Position),
}

impl From<(Position, BlockError)> for WalkError {
    fn from(at: (Position, BlockError)) -> Self {
        Self::Damaged(at.0)
    }
}

/// Limits of one step, so that no subscriber holds up the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) runs: usize,
    pub(super) bytes: u32,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkEnd {
    /// The budget is used up.
    Budget,
    /// The given bytes end before the block at the cursor does.
    OutOfBytes,
    /// The cursor is at the end of what may be looked at.
    AtEnd,
}

/// Bytes of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    /// They start at the cursor's block.
    pub(super) bytes: &'a [u8],
    /// They are this node's own memory; otherwise each block is verified when it is entered.
    pub(super) is_trusted: bool,
}

/// The header of the block at `at`, with which `bytes` start; `None` where they end before it does.
pub(super) fn enter(
    bytes: &[u8],
    at: Position,
    verifies: bool,
) -> Result<Option<BlockHeader>, WalkError> {
    if bytes.len() < HEADER_LENGTH {
        return Ok(None);
    }
    let header = block::decode_header(bytes).map_err(|e| WalkError::from((at, e)))?;
    if header.position != at {
        return Err(WalkError::Damaged(at));
    }
    let Some(body) = bytes.get(HEADER_LENGTH..header.body_end()) else {
        return Ok(None);
    };
    if verifies {
        block::verify_body(&header, body).map_err(|e| WalkError::from((at, e)))?;
    }
    Ok(Some(header))
}

/// Collects runs from `cursor` on into `runs`, advancing it.
pub(super) fn walk(
    cursor: &mut Cursor,
    selection: &mut Selection,
    wanted: Wanted<'_>,
    Stretch { bytes, is_trusted }: Stretch<'_>,
    end: Position,
    budget: Budget,
    runs: &mut Vec<Run>,
) -> Result<WalkEnd, WalkError> {
    let base = cursor.block;
    let mut looked_at = 0_u32;
    let mut verified = base;
    loop {
        if cursor.block >= end {
            return Ok(WalkEnd::AtEnd);
        }
        if runs.len() >= budget.runs || looked_at >= budget.bytes {
            return Ok(WalkEnd::Budget);
        }
        let at = cursor.block;
        let Some(rest) = bytes.get(at.since(base) as usize..) else {
            return Ok(WalkEnd::OutOfBytes);
        };
        let verifies = !is_trusted && verified <= at;
        let Some(header) = enter(rest, at, verifies)? else {
            return Ok(WalkEnd::OutOfBytes);
        };
        let body = &rest[HEADER_LENGTH..header.body_end()];
        if verifies {
            verified = header.next_position();
        }
        if selection.is_plain() && is_trusted {
            // Whole bodies from memory cost next to nothing; the number of runs is limit enough.
            looked_at += 64;
        } else {
            looked_at += header.body_length.max(64);
        }
        if selection.is_plain() {
            take_body(cursor, &header, runs);
        } else {
            take_records(cursor, selection, wanted, &header, body, budget, runs)?;
        }
    }
}

/// The whole rest of a body as one run.
fn take_body(cursor: &mut Cursor, header: &BlockHeader, runs: &mut Vec<Run>) {
    let from = cursor.offset.max(HEADER_LENGTH as u32);
    let length = header.body_end() as u32 - from;
    let known = if header.data_count == 0 {
        cursor.checksum
    } else {
        None
    };
    *cursor = Cursor {
        block: header.next_position(),
        offset: 0,
        next_seq: header.next_seq(),
        checksum: known,
    };
    if length > 0 {
        let position = header.position.plus(from.into());
        runs.push(Run {
            block: header.position,
            position,
            length,
            after: *cursor,
            awaits_time: false,
        });
    }
}

/// The matching records of a body, side by side ones in one run.
fn take_records(
    cursor: &mut Cursor,
    selection: &mut Selection,
    wanted: Wanted<'_>,
    header: &BlockHeader,
    body: &[u8],
    budget: Budget,
    runs: &mut Vec<Run>,
) -> Result<(), WalkError> {
    let block = header.position;
    let mut offset = cursor.offset.max(HEADER_LENGTH as u32);
    let mut is_open = false;
    while (offset as usize) < header.body_end() {
        let Ok(record) = Record::parse(&body[offset as usize - HEADER_LENGTH..]) else {
            return Err(WalkError::Damaged(block));
        };
        let is_wanted = look_at(cursor, selection, wanted, &record)?;
        let stride = record.stride() as u32;
        if is_wanted && !is_open && runs.len() >= budget.runs {
            return Ok(());
        }
        offset += stride;
        let is_last = offset as usize >= header.body_end();
        let (next_block, next_offset) = if is_last {
            (header.next_position(), 0)
        } else {
            (block, offset)
        };
        let seen = if record.is_data() {
            (record.seq().next(), Some(record.checksum()))
        } else {
            (cursor.next_seq, cursor.checksum)
        };
        *cursor = Cursor {
            block: next_block,
            offset: next_offset,
            next_seq: seen.0,
            checksum: seen.1,
        };
        match (is_wanted, is_open, runs.last_mut()) {
            (true, true, Some(run)) => {
                run.length += stride;
                run.after = *cursor;
                run.awaits_time = matches!(selection.skip, Skip::Time(_));
            }
            (true, _, _) => {
                let position = block.plus(u64::from(offset - stride));
                runs.push(Run {
                    block,
                    position,
                    length: stride,
                    after: *cursor,
                    awaits_time: matches!(selection.skip, Skip::Time(_)),
                });
            }
            (false, _, _) => {}
        }
        is_open = is_wanted;
    }
    if offset as usize >= header.body_end() {
        cursor.block = header.next_position();
        cursor.offset = 0;
    }
    Ok(())
}

/// Whether the record is to be sent; ends the skipping at the first that is past it.
fn look_at(
    cursor: &Cursor,
    selection: &mut Selection,
    wanted: Wanted<'_>,
    record: &Record<'_>,
) -> Result<bool, WalkError> {
    let is_data = record.is_data();
    match selection.skip {
        Skip::Nothing => {}
        Skip::Seq {
            until,
            checksum,
            passed,
        } => {
            if record.seq() < until {
                let this = Passed {
                    seq: record.seq(),
                    checksum: record.checksum(),
                };
                let passed = if is_data { Some(this) } else { passed };
                selection.skip = Skip::Seq {
                    until,
                    checksum,
                    passed,
                };
                return Ok(false);
            }
            if let Some(passed) = passed
                && checksum.is_some_and(|expected| expected != passed.checksum)
            {
                return Err(WalkError::WrongHistory(passed.seq));
            }
            let is_met = passed.is_some_and(|passed| passed.seq.next() == until);
            if record.seq() > until && !is_met {
                // Seqs were skipped here, with an accepted loss: whoever saw this one saw what was lost.
                return Err(WalkError::WrongHistory(Seq(until.get() - 1)));
            }
            selection.skip = Skip::Nothing;
        }
        Skip::Time(from_ns) => {
            if is_data && record.receive_time_ns() >= from_ns {
                selection.skip = Skip::Nothing;
            } else if record.kind() != Some(RecordKind::Topic) {
                return Ok(false);
            }
            // A topic defined while the time is awaited must be told: the first record may be of it.
        }
    }
    debug_assert!(
        !is_data || record.seq() >= cursor.next_seq,
        "a walk goes forward"
    );
    Ok(match record.kind() {
        _ if selection.patterns.is_everything() => true,
        Some(RecordKind::Data | RecordKind::Topic) => {
            wanted.interest.holds(record.topic(), wanted.place)
        }
        _ => false,
    })
}
