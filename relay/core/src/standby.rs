//! A follower's log: blocks come in as the primary sealed them and go to the same place in memory and on disk.
//!
//! ```text
//!   primary's block --checked against the block before--> memory ring --> write --> durable --> acknowledged
//!                    `--folded into the tables, so that this node can lead at once
//! ```
//!
//! Nothing is stamped, packed or decided here: a block is taken whole or refused (rules R3, R4). With at most `eager_depth`
//! writes in flight each block is written at once, with more only when what has gathered is worth it, so a follower that catches
//! up writes long runs; where copies in memory count, a block waits as on the primary.
//!
//! Invariants: `durable <= submitted <= received`, and only blocks that continue the log, checksum by checksum, are ever
//! received; the tables are the fold of everything received.

use relay_journal::block::{self, BlockError, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_journal::segment::Geometry;
use relay_journal::superblock::WriteMethod;
use relay_journal::tables::{FoldError, Tables};
use relay_wire::code::Policy;
use relay_wire::id::Position;

use crate::command::{LogEnd, Now, ReleasePoint};
use crate::log::LogWindow;
use crate::persist::{Patience, Persist, RunWrite};
use crate::settings::Settings;

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    Taken,
    /// No room in memory or no prepared space: offer it again later.
    NoRoom,
}

/// Why a block is not one to continue this log with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntakeError {
    /// It is damaged.
    Block(BlockError),
    /// It does not continue the log; the field that does not fit.
    Chain(&'static str),
    /// It breaks a rule of its content.
    Fold(FoldError),
}

impl core::fmt::Display for IntakeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Block(error) => write!(f, "a block from the primary is damaged: {error}"),
            Self::Chain(field) => write!(
                f,
                "a block from the primary does not continue this node's log: its {field} differs"
            ),
            Self::Fold(error) => write!(f, "a block from the primary breaks a rule: {error}"),
        }
    }
}

impl core::error::Error for IntakeError {}

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Standby {
    geometry: Geometry,
    patience: Patience,
    tables: Tables,
    persist: Persist,
    received: LogEnd,
    prepared: Position,
    is_failed: bool,
}

impl Standby {
    /// A follower whose log on disk, all of it durable, folds to `tables`.
    pub(crate) fn new(
        settings: &Settings,
        mut tables: Tables,
        method: WriteMethod,
        prepared: Position,
    ) -> Self {
        tables.index.reserve_all();
        let end = LogEnd {
            point: ReleasePoint {
                position: tables.position,
                next_seq: tables.next_seq,
                checksum: tables.last_checksum,
            },
            block_checksum: tables.previous_checksum,
        };
        let geometry = Geometry::new(settings.segment_size, settings.block_alignment)
            .expect("the journal was made with these sizes");
        Self {
            geometry,
            patience: match settings.policy {
                Policy::Mirrored => Patience::Idle,
                Policy::Local | Policy::Durable => Patience::Gather,
            },
            tables,
            persist: Persist::new(settings, method, end),
            received: end,
            prepared,
            is_failed: false,
        }
    }

    /// The fold of everything received.
    pub(crate) const fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn into_tables(self) -> Tables {
        self.tables
    }

    pub(crate) const fn received(&self) -> LogEnd {
        self.received
    }

    pub(crate) const fn durable(&self) -> LogEnd {
        self.persist.durable()
    }

    pub(crate) fn writes_in_flight(&self) -> usize {
        self.persist.in_flight()
    }

    /// Whether everything received is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.persist.is_settled()
    }

    pub(crate) fn on_prepared(&mut self, end: Position) {
        self.prepared = end;
    }

    /// Takes the block `bytes`, header and body. An error leaves the log as it was, but for [`IntakeError::Fold`], after which
    /// the tables are of no use any more.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Result<Intake, IntakeError> {
        let header = block::decode_header(bytes).map_err(IntakeError::Block)?;
        self.check(&header, bytes)?;
        let length = header.written_length(self.geometry.block_alignment());
        let end = header.next_position();
        // A filler is written with its first bytes only, but the next block stands behind all of it.
        let fits = end <= self.prepared && end <= log.end();
        if !fits || self.is_failed {
            return Ok(Intake::NoRoom);
        }
        let body = &bytes[HEADER_LENGTH..];
        block::verify_body(&header, body).map_err(IntakeError::Block)?;
        self.tables
            .apply_block(&header, body)
            .map_err(IntakeError::Fold)?;
        let place = log.slice_mut(header.position, length as usize);
        place[..bytes.len()].copy_from_slice(bytes);
        place[bytes.len()..].fill(0);
        self.received = LogEnd {
            point: ReleasePoint {
                position: end,
                next_seq: header.next_seq(),
                checksum: self.tables.last_checksum,
            },
            block_checksum: header.checksum,
        };
        self.persist
            .take(header.position, length, self.received, now);
        Ok(Intake::Taken)
    }

    fn check(&self, header: &BlockHeader, bytes: &[u8]) -> Result<(), IntakeError> {
        let tables = &self.tables;
        let left = self.geometry.left_in_segment(header.position);
        let is_at_home = match header.kind {
            BlockKind::Filler => u64::from(header.span) == left,
            BlockKind::Records | BlockKind::Mark => u64::from(header.span) <= left,
        };
        let field = if header.stream != tables.stream {
            "stream"
        } else if header.position != tables.position {
            "position"
        } else if header.number != tables.next_block_number {
            "number"
        } else if header.previous_checksum != tables.previous_checksum {
            "previous checksum"
        } else if header.epoch < tables.epoch {
            "epoch"
        } else if !header.is_seq_due(tables.epoch, tables.next_seq) {
            "first seq"
        } else if !is_at_home || !header.span.is_multiple_of(self.geometry.block_alignment()) {
            "span"
        } else if header.body_end() != bytes.len() {
            "body length"
        } else {
            return Ok(());
        };
        Err(IntakeError::Chain(field))
    }

    /// The next write, if the device can use one. `hurries`: somebody waits for the disk after all.
    pub(crate) fn next_write(&mut self, hurries: bool, now: Now) -> Option<RunWrite> {
        if self.is_failed {
            return None;
        }
        let patience = if hurries {
            Patience::None
        } else {
            self.patience
        };
        self.persist.next_write(patience, now)
    }

    /// When [`Standby::next_write`] has one though nothing happens until then, monotonic ns.
    pub(crate) fn write_due_ns(&self) -> Option<u64> {
        if self.is_failed {
            return None;
        }
        self.persist.write_due_ns(self.patience)
    }

    pub(crate) fn on_written(&mut self, number: u64) {
        if !self.is_failed {
            self.persist.on_written(number);
        }
    }

    /// Whether a data-sync is to be started now.
    pub(crate) fn start_sync(&mut self) -> bool {
        !self.is_failed && self.persist.start_sync()
    }

    pub(crate) fn on_synced(&mut self) {
        if !self.is_failed {
            self.persist.on_synced();
        }
    }

    /// A write or sync failed: nothing is acknowledged any more.
    pub(crate) fn on_storage_fault(&mut self) {
        self.is_failed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Packing;
    use crate::settings::small;
    use relay_wire::id::Epoch;

    /// Goal: the window never ends within a block that was taken. Found by the simulator. Method: a filler, of which only the first unit is
    /// written, and a ring with room for that and not for all of it.
    #[test]
    fn a_filler_waits_for_room_for_all_of_it() {
        let settings = small();
        let segment = settings.segment_size;
        let now = Now::default();
        let tables = Tables::empty(settings.stream);
        let mut packing = Packing::new(
            &settings,
            Epoch(1),
            tables.position,
            tables.next_block_number,
            tables.previous_checksum,
            tables.next_seq,
        );
        let mut memory = vec![0; segment as usize];
        let mut log = LogWindow::new(Position(0), &mut memory);
        packing.seal_filler(&mut log, 1, Position(0));
        let filler = memory[..HEADER_LENGTH].to_vec();

        let prepared = Position(2 * segment);
        let mut standby = Standby::new(&settings, tables, WriteMethod::Dsync, prepared);
        let short = (segment - u64::from(settings.block_alignment)) as usize;
        let mut log = LogWindow::new(Position(0), &mut memory[..short]);
        assert_eq!(standby.take(&filler, now, &mut log), Ok(Intake::NoRoom));
        assert_eq!(standby.received().point.position, Position(0));
        let mut log = LogWindow::new(Position(0), &mut memory);
        assert_eq!(standby.take(&filler, now, &mut log), Ok(Intake::Taken));
        assert_eq!(standby.received().point.position, Position(segment));
    }
}
