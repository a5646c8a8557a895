//! What a node holds of the log at one moment, for the ledger: the bytes on its disk that stay whatever happens, and where
//! copies in memory count what its process received besides.

use relay_wire::id::Position;

use crate::disk::Disk;
use crate::memory::Memory;

/// See the module's description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding<'a> {
    disk: &'a Disk,
    /// The process's memory, from the end of what counts of its disk to the end of what it received.
    memory: Option<(&'a Memory, Position, Position)>,
}

impl<'a> Holding<'a> {
    /// What is on a disk, and nothing else.
    pub(crate) const fn of_disk(disk: &'a Disk) -> Self {
        Self { disk, memory: None }
    }

    /// What is on a disk before `from`, and in memory from there to `end`.
    pub(crate) const fn with_memory(
        disk: &'a Disk,
        memory: &'a Memory,
        from: Position,
        end: Position,
    ) -> Self {
        let memory = Some((memory, from, end));
        Self { disk, memory }
    }

    /// All before this is held for sure.
    pub(crate) fn end(&self) -> u64 {
        match self.memory {
            None => self.disk.durable_end(),
            Some((_, from, end)) if self.disk.durable_end() >= from.get() => end.get(),
            Some(_) => self.disk.durable_end(),
        }
    }

    /// The bytes from `at` on, as they were written.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) {
        let Some((memory, from, end)) = self.memory else {
            self.disk.read_pristine(at, into);
            return;
        };
        let on_disk = from.get().saturating_sub(at).min(into.len() as u64) as usize;
        let (front, rest) = into.split_at_mut(on_disk);
        self.disk.read_pristine(at, front);
        let start = Position(at + on_disk as u64);
        let held = end.get().saturating_sub(start.get()).min(rest.len() as u64) as usize;
        let (held, behind) = rest.split_at_mut(held);
        if !held.is_empty() {
            held.copy_from_slice(memory.slice(start, start.plus(held.len() as u64)));
        }
        behind.fill(0);
    }
}

/// What the copy that a set names holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held<'a> {
    /// It is there.
    Now(Holding<'a>),
    /// Its process is gone. Before it went it had received everything before this.
    Once(Position),
}
