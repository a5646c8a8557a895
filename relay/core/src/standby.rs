//! A follower's log: blocks come in as the primary sealed them and go to the same place in memory and on disk.
//!
//! ```text
//!   primary's block --checked against the block before--> memory ring --> write --> durable --> acknowledged
//!                    `--folded into the tables, so that this node can lead at once
//! ```
//!
//! Nothing is stamped, packed or decided here: a block is taken whole or refused (rules R3, R4). Writes follow the device as on a
//! primary: with few in flight each block is written at once, with more only when what has gathered is worth it, so a
//! follower that catches up writes long runs.
//!
//! Invariants: `durable <= submitted <= received`, and only blocks that continue the log, checksum by checksum, are ever
//! received; the tables are the fold of everything received.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use relay_journal::block::{self, BlockError, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_journal::segment::Geometry;
use relay_journal::superblock::WriteMethod;
use relay_journal::tables::{FoldError, Tables};
use relay_wire::id::Position;

use crate::command::{LogEnd, ReleasePoint};
use crate::log::LogWindow;
use crate::persist::Persist;
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

/// A write to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StandbyWrite {
    pub(crate) number: u64,
    pub(crate) position: Position,
    pub(crate) length: u32,
}

/// Tells writes apart, however many blocks went with each, so it is no part of what a state is.
#[derive(Debug, Clone, Copy)]
struct WriteNumber(u64);

impl Hash for WriteNumber {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A block received and not submitted.
#[derive(Debug, Clone, Copy, Hash)]
struct Waiting {
    position: Position,
    /// Bytes that go to disk.
    length: u32,
    end: LogEnd,
}

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Standby {
    geometry: Geometry,
    eager_depth: usize,
    run_worth: u32,
    run_max: u32,
    tables: Tables,
    persist: Persist,
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    writes: WriteNumber,
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
        let blocks_max = settings.ring_size / u64::from(settings.block_alignment);
        Self {
            geometry,
            eager_depth: settings.eager_depth as usize,
            run_worth: settings.seal_threshold,
            run_max: settings.block_length_max,
            tables,
            persist: Persist::new(method, settings.write_depth, end),
            waiting: VecDeque::with_capacity(blocks_max as usize),
            waiting_bytes: 0,
            writes: WriteNumber(0),
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
        self.waiting.is_empty() && self.persist.in_flight() == 0
    }

    pub(crate) fn on_prepared(&mut self, end: Position) {
        self.prepared = end;
    }

    /// Takes the block `bytes`, header and body. An error leaves the log as it was, but for [`IntakeError::Fold`], after which
    /// the tables are of no use any more.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
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
        self.waiting_bytes += u64::from(length);
        self.waiting.push_back(Waiting {
            position: header.position,
            length,
            end: self.received,
        });
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

    /// The next write, if the device can use one.
    pub(crate) fn next_write(&mut self) -> Option<StandbyWrite> {
        let first = *self.waiting.front()?;
        let is_eager = self.persist.in_flight() < self.eager_depth;
        let is_worth = is_eager || self.waiting_bytes >= u64::from(self.run_worth);
        if self.is_failed || !is_worth || !self.persist.has_room() {
            return None;
        }
        let mut length = 0;
        let mut end = first.end;
        while let Some(block) = self.waiting.front() {
            let continues = block.position == first.position.plus(u64::from(length));
            // By the room it takes in the log, not by what is written: a filler's is longer, and what is in flight is
            // reckoned in that.
            let span = block.end.point.position.since(first.position);
            let fits = length == 0 || span <= u64::from(self.run_max);
            let segment = self.geometry.segment_of(block.position);
            if !continues || !fits || segment != self.geometry.segment_of(first.position) {
                break;
            }
            length += block.length;
            end = block.end;
            self.waiting_bytes -= u64::from(block.length);
            self.waiting.pop_front();
        }
        self.writes.0 += 1;
        let number = self.writes.0;
        self.persist.on_sealed(number, end);
        Some(StandbyWrite {
            number,
            position: first.position,
            length,
        })
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
    use relay_wire::code::Policy;
    use relay_wire::id::{Epoch, NodeId, StreamId};

    const UNIT: u32 = 512;
    const SEGMENT: u64 = 1 << 16;

    fn settings() -> Settings {
        Settings {
            node: NodeId(2),
            stream: StreamId(1),
            policy: Policy::Durable,
            payload_limit: 64,
            credit: 1 << 16,
            heartbeat_ns: 1_000_000_000,
            logon_timeout_ns: 1_000_000_000,
            connections_max: 8,
            unauthenticated_max: 4,
            publishers_max: 4,
            topics_max: 8,
            subscribers_max: 8,
            block_alignment: UNIT,
            block_length_max: UNIT,
            seal_threshold: UNIT,
            eager_depth: 1,
            write_depth: 4,
            segment_size: SEGMENT,
            ring_size: SEGMENT,
            mark_after_ns: 10_000_000,
            stall_limit_ns: 1_000_000_000,
            lag_limit: 0,
            replay_slots: 1,
            replay_slot_size: UNIT,
        }
    }

    /// Goal: the window never ends within a block that was taken. Found by the simulator. Method: a filler, of which only the first unit is
    /// written, and a ring with room for that and not for all of it.
    #[test]
    fn a_filler_waits_for_room_for_all_of_it() {
        let settings = settings();
        let tables = Tables::empty(settings.stream);
        let mut packing = Packing::new(
            &settings,
            Epoch(1),
            tables.position,
            tables.next_block_number,
            tables.previous_checksum,
            tables.next_seq,
        );
        let mut memory = vec![0; SEGMENT as usize];
        let mut log = LogWindow::new(Position(0), &mut memory);
        packing.seal_filler(&mut log, 1, Position(0));
        let filler = memory[..HEADER_LENGTH].to_vec();

        let prepared = Position(2 * SEGMENT);
        let mut standby = Standby::new(&settings, tables, WriteMethod::Dsync, prepared);
        let short = (SEGMENT - u64::from(UNIT)) as usize;
        let mut log = LogWindow::new(Position(0), &mut memory[..short]);
        assert_eq!(standby.take(&filler, &mut log), Ok(Intake::NoRoom));
        assert_eq!(standby.received().point.position, Position(0));
        let mut log = LogWindow::new(Position(0), &mut memory);
        assert_eq!(standby.take(&filler, &mut log), Ok(Intake::Taken));
        assert_eq!(standby.received().point.position, Position(SEGMENT));
    }
}
