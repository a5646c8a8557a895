//! From the open block to its write: when it is sealed, and when it is handed to the disk.
//!
//! ```text
//!   open block --worth it, or the disk has nothing better to do--> sealed --a place among the writes--> under way
//! ```
//!
//! Where a release waits for the disk, a block is sealed only when it can be written at once: until then records share it. Where
//! it does not (copies in memory count), a busy disk holds no record up: it shares its block for a moment at most, and sealed blocks wait.

use relay_journal::block::BlockHeader;
use relay_journal::superblock::CleanStop;
use relay_wire::id::Position;

use super::{Sequence, SequenceEffect};
use crate::command::{LogEnd, Now, ReleasePoint};
use crate::log::LogWindow;

/// Most bytes of sealed blocks that wait for a place among the writes: none where a release waits for the disk.
pub(super) const UNWRITTEN_MAX: u64 = 1 << 20;
/// While the disk is busy a record waits for others to share its block with, ns: no longer than this where no release waits for the disk.
const SHARE_NS: u64 = 50_000;

/// A sealed block that is not being written yet.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Unwritten {
    number: u64,
    position: Position,
    length: u32,
    end: LogEnd,
}

impl Sequence {
    /// Seals what is worth it. Call once a turn, after the commands.
    pub fn seal_if_due(&mut self, now: Now, log: &mut LogWindow<'_>) {
        if self.is_failed {
            return;
        }
        self.open_session_if_wanted(now, log);
        if !self.can_seal() {
            return;
        }
        let length = self.packing.body_length();
        if length > 0 {
            self.last_work_ns = now.mono_ns;
            let is_eager = self.persist.in_flight() < self.settings.eager_depth as usize;
            let has_waited = || self.seal_due_ns().is_some_and(|due| now.mono_ns >= due);
            if is_eager || length >= self.settings.seal_threshold || has_waited() {
                self.seal(log, now);
            }
            return;
        }
        if self.memory_counts {
            self.unsealed_since_ns = now.mono_ns;
        }
        let is_idle = self.persist.in_flight() == 0;
        let is_unmarked = self.records_end > self.released_on_disk
            && self.released().position >= self.records_end;
        let is_due = now.mono_ns >= self.last_work_ns + self.settings.mark_after_ns;
        // A mark takes one unit, so it fits where records don't any more. Where not even that is left, a clean stop is proof
        // enough: the superblock then names the tail.
        let mark_end = self
            .packing
            .position()
            .plus(self.settings.block_alignment.into());
        let is_markable = is_unmarked && mark_end <= self.room_ends(log);
        if is_idle && is_markable && (is_due || self.stop_asked) {
            self.seal(log, now);
        } else if is_idle
            && self.stop_asked
            && !is_markable
            && !self.is_stopped
            && self.unreleased.is_empty()
        {
            self.is_stopped = true;
            self.effects.push_back(SequenceEffect::Stopped(CleanStop {
                tail: self.packing.position(),
                checksum: self.packing.previous_checksum(),
                next_seq: self.next_seq,
            }));
        }
    }

    /// Whether another block may be sealed: it is written at once, or, where no release waits for that, a little later.
    pub(super) fn can_seal(&self) -> bool {
        let is_written_at_once = self.unwritten.is_empty() && self.persist.has_room();
        is_written_at_once || (self.memory_counts && self.unwritten_bytes < UNWRITTEN_MAX)
    }

    /// When the open block is to be sealed at the latest, monotonic ns; `None` where the disk says when, or nothing is in it.
    #[must_use]
    pub fn seal_due_ns(&self) -> Option<u64> {
        let has_due = self.memory_counts && self.packing.body_length() > 0 && self.can_seal();
        has_due.then_some(self.unsealed_since_ns + SHARE_NS)
    }

    pub(super) fn seal(&mut self, log: &mut LogWindow<'_>, now: Now) {
        let sealed_ns = now.utc_ns.max(self.receive_time_ns);
        self.receive_time_ns = sealed_ns;
        let header = self
            .packing
            .seal(log, sealed_ns, self.released.point.position);
        if header.record_count > 0 {
            self.records_end = header.next_position();
        }
        self.on_sealed(&header, header.span);
        if self.memory_counts {
            self.unsealed_since_ns = now.mono_ns;
        }
    }

    pub(super) fn on_sealed(&mut self, header: &BlockHeader, length: u32) {
        self.released_on_disk = header.released;
        self.newest_block = (header.position, header.previous_checksum);
        let end = header.next_position();
        for entry in self
            .acks
            .iter_mut()
            .rev()
            .take_while(|entry| entry.end.get() == u64::MAX)
        {
            entry.end = end;
        }
        let point = ReleasePoint {
            position: end,
            next_seq: header.next_seq(),
            checksum: self.last_checksum,
        };
        let end = LogEnd {
            point,
            block_checksum: header.checksum,
        };
        self.unreleased.push_back((header.number, end));
        if self.unwritten.is_empty() && self.persist.has_room() {
            self.write(header.number, header.position, length, end);
        } else {
            self.unwritten_bytes += u64::from(length);
            self.unwritten.push_back(Unwritten {
                number: header.number,
                position: header.position,
                length,
                end,
            });
        }
    }

    /// Has a sealed block written.
    fn write(&mut self, number: u64, position: Position, length: u32, end: LogEnd) {
        self.persist.on_sealed(number, end);
        self.effects.push_back(SequenceEffect::Write {
            number,
            position,
            length,
        });
    }

    /// Has those written that waited, as many as may be under way.
    pub(super) fn write_more(&mut self) {
        while let Some(block) = self.unwritten.front().copied()
            && self.persist.has_room()
        {
            self.unwritten.pop_front();
            self.unwritten_bytes -= u64::from(block.length);
            self.write(block.number, block.position, block.length, block.end);
        }
    }
}
