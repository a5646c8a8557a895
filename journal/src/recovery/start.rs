//! What recovery starts from: the newest checkpoint that the log leads up to.
//!
//! A checkpoint and the log are different files, and a disk that lied about what is durable can keep the one and lose the
//! other. So the log before a checkpoint's position is read first: from its last index entry on, or from the start of the
//! segment if that is nearer, its blocks must be intact, continue one another, and end in the very block that the
//! checkpoint names. That is about as much as lies between two index entries, whatever the length of the log; rot further
//! back is the scrubber's to find.
//!
//! A checkpoint that the log does not lead up to is not started from, and not forgotten either: it was made when all
//! before its position was durable here and released. So if the log, read from an older checkpoint, ends before that
//! position, what is missing is damage and never a torn write.

use super::RecoveryError;
use crate::scan::{Link, LogSource, Window};
use crate::superblock::Superblock;
use crate::tables::Tables;
use relay_wire::id::Position;

/// The tables to read on from, and what the checkpoints that were passed over still say.
#[derive(Debug, Clone)]
pub struct Start {
    pub(super) tables: Tables,
    /// Position and last checksum of the newest checkpoint that the log does not lead up to.
    pub(super) passed_over: Option<(Position, u32)>,
}

impl From<Tables> for Start {
    /// Tables that are the fold of this log beyond doubt, or empty ones.
    fn from(tables: Tables) -> Self {
        Self {
            tables,
            passed_over: None,
        }
    }
}

impl Start {
    /// The first of `checkpoints` (newest first, of this journal) that the log leads up to, else the log's first byte.
    ///
    /// # Errors
    /// [`RecoveryError::Source`] where the log can't be read, [`RecoveryError::Start`] where a checkpoint is of
    /// another journal.
    pub fn choose(
        source: &mut (dyn LogSource + Send),
        superblock: &Superblock,
        checkpoints: impl IntoIterator<Item = Tables>,
    ) -> Result<Self, RecoveryError> {
        let mut window = Window::new(Box::new(source), superblock.geometry());
        let mut passed_over = None;
        for tables in checkpoints {
            check_fit(&tables, superblock)?;
            if leads_to(&mut window, superblock, &tables)? {
                return Ok(Self {
                    tables,
                    passed_over,
                });
            }
            passed_over.get_or_insert((tables.position, tables.previous_checksum));
        }
        Ok(Self {
            tables: Tables::empty(superblock.stream),
            passed_over,
        })
    }

    /// The tables to read on from.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }
}

/// Refuses tables of another stream or geometry.
pub(super) fn check_fit(tables: &Tables, superblock: &Superblock) -> Result<(), RecoveryError> {
    if tables.stream != superblock.stream {
        return Err(RecoveryError::Start("it is of another stream"));
    }
    if !superblock.geometry().is_aligned(tables.position) {
        return Err(RecoveryError::Start("its position is not aligned"));
    }
    Ok(())
}

/// Whether the last blocks before the position of `tables` are there, down to the one they name as their last.
fn leads_to(
    window: &mut Window<'_>,
    superblock: &Superblock,
    tables: &Tables,
) -> Result<bool, RecoveryError> {
    let mut position = look_from(tables, superblock);
    let mut link = None;
    while position < tables.position {
        let Ok(header) = window.examine(position, superblock.stream, link.as_ref())? else {
            return Ok(false);
        };
        position = header.next_position();
        link = Some(Link::after_block(&header));
    }
    let is_read = position == tables.position;
    Ok(is_read && link.is_none_or(|link| link == Link::after_tables(tables)))
}

/// Start of a block before the position of `tables`: both an index entry and the start of a segment are.
fn look_from(tables: &Tables, superblock: &Superblock) -> Position {
    let Some(last_byte) = tables.position.get().checked_sub(1) else {
        return tables.position;
    };
    let geometry = superblock.geometry();
    let segment = geometry.start_of(geometry.segment_of(Position(last_byte)));
    let entries = tables.index.entries().iter().rev();
    let entry = entries
        .map(|entry| entry.position)
        .find(|&position| position < tables.position && geometry.is_aligned(position));
    entry.unwrap_or_default().max(segment)
}
