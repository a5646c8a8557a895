//! From the open block to its write: when it is sealed, and when it is handed to the disk.
//!
//! ```text
//!   open block --worth it, or the disk has nothing better to do--> sealed --alone or with those beside it--> under way
//! ```
//!
//! Where a release waits for the disk, a block is sealed only when it can be written at once: until then records share it. Where
//! it does not (copies in memory count), no record waits for a disk, and sealed blocks wait until they can be written together.
//! While some do, one that is not worth a write is sealed [`SHARE_NS`] after the one before at the soonest: each takes a unit of the
//! disk, however little is in it.

use relay_journal::block::BlockHeader;
use relay_journal::superblock::CleanStop;

use super::{Sequence, SequenceEffect};
use crate::command::{LogEnd, Now, ReleasePoint};
use crate::log::LogWindow;
use crate::persist::Patience;

/// So many bytes of sealed blocks may wait for their write, or as many as go into one: where no release waits for the disk.
const UNWRITTEN_MAX: u64 = 1 << 20;
/// Where no release waits for the disk, a small block is sealed so long after the one before while that is not on disk, ns; records
/// that come in between share it.
const SHARE_NS: u64 = 50_000;

impl Sequence {
    /// Seals what is worth it, and has written what is due. Call once a turn, after the commands.
    pub fn seal_if_due(&mut self, now: Now, log: &mut LogWindow<'_>) {
        if !self.is_failed {
            self.seal_what_is_due(now, log);
            self.write_what_is_due(self.patience(), now);
        }
    }

    fn seal_what_is_due(&mut self, now: Now, log: &mut LogWindow<'_>) {
        self.open_session_if_wanted(now, log);
        if !self.can_seal() {
            return;
        }
        let length = self.packing.body_length();
        if length > 0 {
            self.last_work_ns = now.mono_ns;
            let is_due = if self.memory_counts {
                self.seal_due_ns().is_some_and(|due| now.mono_ns >= due)
            } else {
                self.persist.is_eager()
            };
            if is_due || length >= self.settings.seal_threshold {
                self.seal(log, now);
            }
            return;
        }
        let is_idle = self.persist.is_settled();
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
        if !self.memory_counts {
            return self.persist.has_room();
        }
        let span_max = u64::from(self.settings.block_span_max());
        let end = self.packing.position().plus(span_max);
        let unwritten_max = UNWRITTEN_MAX.max(self.settings.block_length_max.into());
        end.since(self.durable().position) <= self.settings.kept_in_memory()
            && self.persist.waiting_bytes() < unwritten_max
    }

    const fn patience(&self) -> Patience {
        if self.memory_counts {
            Patience::Idle
        } else {
            Patience::None
        }
    }

    /// When [`Sequence::seal_if_due`] has something to do though nothing happens until then, monotonic ns.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        if self.is_failed {
            return None;
        }
        let write_due_ns = self.persist.write_due_ns(self.patience());
        [self.seal_due_ns(), write_due_ns]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the open block is to be sealed at the latest, monotonic ns; `None` where the disk says when, or nothing is in it.
    fn seal_due_ns(&self) -> Option<u64> {
        let has_due = self.memory_counts && self.packing.body_length() > 0 && self.can_seal();
        let is_busy = !self.persist.is_settled();
        has_due.then_some(if is_busy {
            self.sealed_ns + SHARE_NS
        } else {
            0
        })
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
        self.on_sealed(&header, header.span, now);
        self.sealed_ns = now.mono_ns;
    }

    pub(super) fn on_sealed(&mut self, header: &BlockHeader, length: u32, now: Now) {
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
        self.persist.take(header.position, length, end, now);
    }

    /// Has those written that have waited long enough, as many as may be under way.
    fn write_what_is_due(&mut self, patience: Patience, now: Now) {
        while let Some(write) = self.persist.next_write(patience, now) {
            self.effects.push_back(SequenceEffect::Write {
                number: write.number,
                position: write.position,
                length: write.length,
            });
        }
    }

    /// Has written what waits, as far as it may be under way, without waiting for what is worth it: nothing more will come.
    pub fn write_what_waits(&mut self, now: Now) {
        if !self.is_failed {
            self.write_what_is_due(Patience::None, now);
        }
    }
}
