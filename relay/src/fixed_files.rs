//! The segment files a ring knows by number, so that a write or a sync needs no look-up of a descriptor.
//!
//! ```text
//! segment   ..  9  10  11 | 12  13  14  15  16 ..     12: the one being written
//! slot          1   2   3 |  4   5   6   7   0        segment modulo the number of slots
//! ```
//!
//! A slot changes hands by an operation of the ring itself: the hot thread makes no system call of its own for it and
//! allocates nothing. Until that has completed, and wherever the kernel refuses, the descriptor is named instead; a kernel
//! operation that was started on the slot's former file keeps that file.
//!
//! One slot more holds the journal's lock. A process that is killed leaves its writes to the kernel, which may carry them out when the
//! next one has read the log already; so the lock goes with the ring, which goes with the last of them.

use std::io;
use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

use crate::ring::Ring;

/// Slots of the table. Segments are written one after the other, so a few ahead of the one being written are enough.
const SLOTS: u64 = 16;
/// How many segments beyond the one being written are entered.
const AHEAD: u64 = SLOTS / 2;

/// How an operation names its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileName {
    number: i32,
    is_fixed: bool,
}

impl FileName {
    /// What an operation's constructor takes; [`FileName::apply`] says which kind of number it is.
    pub(crate) const fn number(self) -> types::Fd {
        types::Fd(self.number)
    }

    /// Completes an operation made with [`FileName::number`].
    pub(crate) fn apply(self, entry: Entry) -> Entry {
        if self.is_fixed {
            entry.flags(Flags::FIXED_FILE)
        } else {
            entry
        }
    }

    /// Whether the ring knows the file by number.
    pub(crate) const fn is_fixed(self) -> bool {
        self.is_fixed
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct FixedFiles {
    /// The segment each slot holds.
    slots: [Option<u64>; SLOTS as usize],
    /// The next segment to enter.
    next: u64,
    /// What the update under way enters; boxed, because the kernel reads it.
    descriptor: Box<RawFd>,
    is_updating: bool,
    is_usable: bool,
}

impl FixedFiles {
    /// No file is known by number.
    pub(crate) fn none() -> Self {
        Self {
            slots: [None; SLOTS as usize],
            next: 0,
            descriptor: Box::new(-1),
            is_updating: false,
            is_usable: false,
        }
    }

    /// Gives `ring` a table with nothing but the journal's lock; segments are entered from `first` on.
    pub(crate) fn register(&mut self, ring: &Ring, first: u64, lock: RawFd) -> io::Result<()> {
        ring.register_file_slots(SLOTS as u32 + 1)?;
        ring.hold(SLOTS as u32, lock)?;
        self.next = first;
        self.is_usable = true;
        Ok(())
    }

    /// How to name `segment`, open as `descriptor`.
    pub(crate) fn name(&self, segment: u64, descriptor: RawFd) -> FileName {
        let slot = segment % SLOTS;
        let is_fixed = self.slots[slot as usize] == Some(segment);
        FileName {
            number: if is_fixed { slot as i32 } else { descriptor },
            is_fixed,
        }
    }

    /// The operation that enters the next segment, if one is to be entered while `current` is being written. Its completion
    /// goes to [`FixedFiles::on_updated`]. Nothing of it changes or goes away before that.
    pub(crate) fn next_update(
        &mut self,
        current: u64,
        descriptor: impl FnOnce(u64) -> Option<RawFd>,
    ) -> Option<Entry> {
        if self.is_updating || !self.is_usable {
            return None;
        }
        self.next = self.next.max(current);
        if self.next > current + AHEAD {
            return None;
        }
        *self.descriptor = descriptor(self.next)?;
        let slot = self.next % SLOTS;
        // From now on nobody may be told that the slot holds its former segment.
        self.slots[slot as usize] = None;
        self.is_updating = true;
        let from = std::ptr::from_ref(&*self.descriptor);
        let update = opcode::FilesUpdate::new(from, 1).offset(slot as i32);
        Some(update.build())
    }

    /// The update under way completed; one that was refused is the last that is tried.
    pub(crate) fn on_updated(&mut self, result: i32) {
        assert!(self.is_updating, "an update completes that was started");
        self.is_updating = false;
        if result == 1 {
            self.slots[(self.next % SLOTS) as usize] = Some(self.next);
            self.next += 1;
        } else {
            self.is_usable = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Op;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    const OP: Op = Op {
        agent: 1,
        purpose: 1,
        index: 0,
    };

    fn finish(ring: &mut Ring, entry: Entry) -> i32 {
        // SAFETY: what the tests' entries point at outlives the wait for their completion here.
        unsafe { ring.push(entry, OP) };
        loop {
            ring.enter();
            if let Some(completion) = ring.reap() {
                return completion.result;
            }
            std::thread::yield_now();
        }
    }

    fn enter_all(ring: &mut Ring, fixed: &mut FixedFiles, current: u64, files: &[File]) {
        let descriptor = |segment: u64| files.get(segment as usize).map(AsRawFd::as_raw_fd);
        while let Some(entry) = fixed.next_update(current, descriptor) {
            let result = finish(ring, entry);
            fixed.on_updated(result);
        }
    }

    fn lock(directory: &tempfile::TempDir) -> File {
        File::create(directory.path().join("lock")).unwrap()
    }

    /// Goal: the lock is held as long as the kernel may have a write of the ring's. Method: the file that has it is closed while the ring
    /// is there, and another one tries; the ring is another thread's, since it goes with that too.
    #[test]
    fn the_lock_goes_with_the_ring() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(&directory);
        held.lock().unwrap();
        let (closed, is_closed) = std::sync::mpsc::channel();
        let (end, is_to_end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let ring = Ring::new(8).unwrap();
            FixedFiles::none()
                .register(&ring, 0, held.as_raw_fd())
                .unwrap();
            drop(held);
            closed.send(()).unwrap();
            is_to_end.recv().unwrap();
        });
        is_closed.recv().unwrap();
        let other = lock(&directory);
        assert!(other.try_lock().is_err(), "the ring has it");
        end.send(()).unwrap();
        thread.join().unwrap();
        // The kernel gives a ring's files back in its own time.
        other.lock().unwrap();
    }

    /// Goal: a number always means the very segment, also after its slot changed hands, and old segments are named by
    /// descriptor. Method: more files than slots, one byte written into each under the name given, all read back.
    #[test]
    fn a_number_names_its_segment_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut ring = Ring::new(8).unwrap();
        let mut fixed = FixedFiles::none();
        fixed
            .register(&ring, 0, lock(&directory).as_raw_fd())
            .unwrap();
        let open = |number: u64| {
            let path = directory.path().join(number.to_string());
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)
                .unwrap()
        };
        let files: Vec<File> = (0..3 * SLOTS).map(open).collect();
        for (number, file) in (0..).zip(&files) {
            enter_all(&mut ring, &mut fixed, number, &files);
            let name = fixed.name(number, file.as_raw_fd());
            assert!(name.is_fixed(), "segment {number}");
            let byte = [number as u8];
            let write = opcode::Write::new(name.number(), byte.as_ptr(), 1).build();
            assert_eq!(finish(&mut ring, name.apply(write)), 1);
        }
        for (number, file) in (0..).zip(&files) {
            let mut byte = [0];
            std::os::unix::fs::FileExt::read_exact_at(file, &mut byte, 0).unwrap();
            assert_eq!(u64::from(byte[0]), number);
        }
        let old = fixed.name(0, 77);
        assert!(!old.is_fixed() && old.number().0 == 77);
    }

    /// Goal: where the kernel refuses a file, descriptors go on being named. Method: enter a descriptor that is not open.
    #[test]
    fn a_refused_file_leaves_descriptors() {
        let mut ring = Ring::new(8).unwrap();
        let mut fixed = FixedFiles::none();
        assert!(fixed.next_update(0, |_| Some(0)).is_none(), "no table yet");
        let directory = tempfile::tempdir().unwrap();
        fixed
            .register(&ring, 3, lock(&directory).as_raw_fd())
            .unwrap();
        let entry = fixed.next_update(3, |_| Some(i32::MAX)).unwrap();
        assert!(fixed.next_update(3, |_| Some(0)).is_none(), "one at a time");
        let result = finish(&mut ring, entry);
        assert!(result < 0);
        fixed.on_updated(result);
        assert!(!fixed.name(3, 5).is_fixed());
        assert!(fixed.next_update(4, |_| Some(0)).is_none(), "the last try");
    }
}
