//! A process at its disk: what its machine wants written is handed over after its turn, and a turn comes when something is due, as in the
//! appliance.

use relay_journal::superblock::WriteMethod;
use relay_wire::checksum::crc32c;
use relay_wire::id::Position;

use super::{Process, Surroundings, Write};
use crate::cluster::Event;
use crate::disk::{Ticket, Zone};
use crate::history::Note;

/// One thing to be done with the disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum DiskOrder {
    Write {
        number: u64,
        position: Position,
        length: u32,
    },
    Sync,
}

impl Process {
    /// Gives what the machine asked for to the disk.
    pub(super) fn submit(&mut self, around: &mut Surroundings<'_>) {
        while let Some(order) = self.to_disk.pop_front() {
            match order {
                DiskOrder::Write {
                    number,
                    position,
                    length,
                } => self.write(number, position, length, around),
                DiskOrder::Sync => self.sync(around),
            }
        }
        if let Some(due_ns) = self.machine.due_ns()
            && due_ns != self.disk_turn_ns
        {
            self.disk_turn_ns = due_ns;
            let (node, process) = (self.node, self.number);
            // A turn comes after its time, whatever the node's clock makes of it.
            let delay = due_ns.saturating_sub(around.now.mono_ns) + around.parameters.turn_ns;
            around.queue.after(delay, Event::Turn { node, process });
        }
    }

    fn sync(&mut self, around: &mut Surroundings<'_>) {
        assert!(!self.is_syncing, "one sync at a time");
        self.is_syncing = true;
        around.note(Note::Sync { node: self.node });
        let now_ns = around.queue.now_ns();
        let ticket = around.disk.begin_sync(Zone::Log, 0, now_ns);
        self.await_disk(ticket, around);
    }

    pub(super) fn await_disk(&self, ticket: Ticket, around: &mut Surroundings<'_>) {
        let event = Event::Disk {
            node: self.node,
            op: ticket.op,
        };
        around.queue.at(ticket.at_ns, event);
    }

    fn write(
        &mut self,
        number: u64,
        position: Position,
        length: u32,
        around: &mut Surroundings<'_>,
    ) {
        let end = position.plus(length.into());
        assert!(
            end.get() <= around.disk.prepared(),
            "only prepared space is written"
        );
        let durable = self.machine.status().durable.point.position;
        // A machine that has come to its end since it asked for the write does not say what is durable.
        assert!(
            self.is_over() || end.since(durable) <= self.settings.in_flight_bytes_max(),
            "more is in flight than recovery reckons with"
        );
        let unreported = self.writes.iter().filter(|write| !write.is_reported);
        assert!(
            unreported.count() < self.settings.write_depth as usize,
            "more writes are in flight than allowed"
        );
        around.note(Note::Write {
            node: self.node,
            block: number,
            position: position.get(),
            length,
        });
        let is_reported = self.reports_early(around.canary);
        let is_durable = self.method == WriteMethod::Dsync;
        let bytes = self.memory.slice(position, end);
        self.writes.push_back(Write {
            number,
            position,
            end,
            checksum: crc32c(bytes),
            is_reported,
        });
        let now_ns = around.queue.now_ns();
        let at = position.get();
        let ticket = around
            .disk
            .begin_write(Zone::Log, at, bytes, is_durable, number, now_ns);
        self.await_disk(ticket, around);
        if is_reported {
            self.machine.on_written(number);
        }
    }
}
