//! The housekeeping thread of a process: space ahead of the log, and checkpoints behind it.

use relay_wire::id::Position;

use super::{Process, Surroundings};
use crate::clock::MILLISECOND;
use crate::disk::Zone;
use crate::history::Note;

impl Process {
    /// One step of the housekeeping thread.
    pub(crate) fn keep_house(&mut self, is_space_left: bool, around: &mut Surroundings<'_>) {
        if self.is_over() {
            return;
        }
        let released = self.released_on_disk().get();
        let segment = self.settings.segment_size;
        let wanted = released + around.parameters.prepared_ahead * segment;
        if is_space_left && around.disk.prepared() < wanted {
            around.disk.prepare(segment);
            let end = around.disk.prepared();
            around.note(Note::Prepared {
                node: self.node,
                end,
            });
        }
        let behind = released.saturating_sub(self.checkpoint_at.get());
        if behind >= around.parameters.checkpoint_every && !self.has_fold_failed {
            self.fold_and_save(around);
        }
    }

    /// Time between two steps of housekeeping.
    pub(crate) const HOUSEKEEPING_NS: u64 = 20 * MILLISECOND;

    /// What is released and can be read back: where copies in memory count the disk follows.
    fn released_on_disk(&self) -> Position {
        let (released, durable, _) = self.positions();
        released.min(durable)
    }

    fn fold_and_save(&mut self, around: &mut Surroundings<'_>) {
        use relay_journal::block::{self, HEADER_LENGTH};
        let (start, end) = (self.fold.position, self.released_on_disk());
        let mut bytes = vec![0; end.since(start) as usize];
        around.disk.read(Zone::Log, start.get(), &mut bytes);
        while self.fold.position < end {
            let rest = &bytes[self.fold.position.since(start) as usize..];
            let folded = block::decode_header(rest).ok().and_then(|header| {
                let body = rest.get(HEADER_LENGTH..header.body_end())?;
                block::verify_body(&header, body).ok()?;
                self.fold.apply_block(&header, body).ok()
            });
            if folded.is_none() {
                // The appliance says so and writes no more checkpoints; a restart reads more of the log then.
                self.has_fold_failed = true;
                self.report_damage(self.fold.position, around);
                return;
            }
        }
        self.checkpoint_at = end;
        let encoded = relay_journal::checkpoint::encode(&self.fold);
        around.disk.store_checkpoint(end, encoded);
        around.note(Note::Checkpoint {
            node: self.node,
            position: end.get(),
        });
    }
}
