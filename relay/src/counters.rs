//! The counters this process exports through a mapped file ([`relay_wire::counters`]).
//!
//! A counter is one word that one thread stores into with plain relaxed stores; whoever reads the file sees them without
//! asking. Allotted at start only.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_wire::counters::{self as layout, HEADER_LENGTH, SLOT_LENGTH};

#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: a slot is filled by its only owner before anybody has it; from then on it is only touched through aligned atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `CounterFile::create` with this length; every counter holds an Arc, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// One exported number.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    mapping: Arc<Mapping>,
    offset: usize,
}

impl Counter {
    fn word(&self) -> &AtomicU64 {
        // SAFETY: `offset` is a multiple of 128 inside the mapping, which is page-aligned and outlives `self`.
        unsafe {
            &*self
                .mapping
                .base
                .as_ptr()
                .add(self.offset)
                .cast::<AtomicU64>()
        }
    }

    pub(crate) fn set(&self, value: u64) {
        self.word().store(value, Ordering::Relaxed);
    }

    /// Adds; only one thread adds to a counter.
    pub(crate) fn add(&self, value: u64) {
        let word = self.word();
        word.store(word.load(Ordering::Relaxed) + value, Ordering::Relaxed);
    }

    /// Raises to `value` if it is higher.
    pub(crate) fn raise(&self, value: u64) {
        if value > self.word().load(Ordering::Relaxed) {
            self.set(value);
        }
    }
}

/// A distribution of durations: counts by upper bound, four bounds to each power of two from 256 ns to 17 s.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    buckets: Vec<Counter>,
}

const HOP_FIRST_POWER: u32 = 8;
const HOP_POWERS: u32 = 26;

impl Hop {
    fn bucket(duration_ns: u64) -> usize {
        let least = 1 << HOP_FIRST_POWER;
        if duration_ns < least {
            return 0;
        }
        let power = duration_ns.ilog2();
        let quarter = (duration_ns >> (power - 2)) & 3;
        let at = (power - HOP_FIRST_POWER) * 4 + quarter as u32 + 1;
        at.min(HOP_POWERS * 4) as usize
    }

    fn bound(bucket: usize) -> u64 {
        if bucket == 0 {
            return 1 << HOP_FIRST_POWER;
        }
        let (power, quarter) = (
            (bucket as u32 - 1) / 4 + HOP_FIRST_POWER,
            (bucket as u64 - 1) % 4,
        );
        (1 << power) + (quarter + 1) * (1 << (power - 2))
    }

    pub(crate) fn record(&self, duration_ns: u64, count: u64) {
        self.buckets[Self::bucket(duration_ns)].add(count);
    }
}

/// Makes the file and gives out its slots.
#[derive(Debug)]
pub(crate) struct CounterFile {
    mapping: Arc<Mapping>,
    /// Where each label's slot lies.
    labels: HashMap<String, usize>,
    next: usize,
    slots: usize,
}

/// Slots of the file: what the agents export and the hops' buckets.
const SLOTS: usize = 1024;

impl CounterFile {
    pub(crate) fn create(
        directory: &Path,
        node: u64,
        stream: u32,
        started_ns: u64,
    ) -> io::Result<Self> {
        let length = HEADER_LENGTH + SLOTS * SLOT_LENGTH;
        let fresh = directory.join("counters.new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&fresh)?;
        let pid = u64::from(std::process::id());
        file.write_all(&layout::header(SLOTS as u32, pid, node, stream, started_ns))?;
        file.set_len(length as u64)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a shared mapping of the whole file at an address of the kernel's choice; this process keeps the file's length.
        let base = unsafe {
            let nowhere = std::ptr::null_mut();
            libc::mmap(
                nowhere,
                length,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::fs::rename(&fresh, directory.join(layout::FILE_NAME))?;
        let base = NonNull::new(base.cast()).expect("mmap does not map at 0");
        let mapping = Arc::new(Mapping { base, length });
        Ok(Self {
            mapping,
            labels: HashMap::new(),
            next: HEADER_LENGTH,
            slots: SLOTS,
        })
    }

    /// The slot with this label; the next free one gets it where there is none yet.
    pub(crate) fn counter(&mut self, label: &str) -> Counter {
        if let Some(&offset) = self.labels.get(label) {
            return Counter {
                mapping: Arc::clone(&self.mapping),
                offset,
            };
        }
        assert!(
            self.next < HEADER_LENGTH + self.slots * SLOT_LENGTH,
            "the file has room for all"
        );
        let bytes = layout::slot(label);
        // SAFETY: the slot lies inside the mapping, by the assertion, and was given to nobody else.
        unsafe {
            let slot = self.mapping.base.as_ptr().add(self.next);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), slot, SLOT_LENGTH);
        }
        let counter = Counter {
            mapping: Arc::clone(&self.mapping),
            offset: self.next,
        };
        self.labels.insert(label.to_owned(), self.next);
        self.next += SLOT_LENGTH;
        counter
    }

    /// The slots of a distribution.
    pub(crate) fn hop(&mut self, name: &str) -> Hop {
        let buckets = (0..=HOP_POWERS as usize * 4)
            .map(|bucket| self.counter(&format!("hop.{name}_ns.{}", Hop::bound(bucket))))
            .collect();
        Hop { buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_below_its_bound() {
        for duration in (0..40).flat_map(|power| {
            let base = 1_u64 << power;
            [base - 1, base, base + base / 3]
        }) {
            let bucket = Hop::bucket(duration);
            if bucket < HOP_POWERS as usize * 4 {
                assert!(duration < Hop::bound(bucket), "{duration} in {bucket}");
            }
            assert!(
                bucket == 0 || duration >= Hop::bound(bucket - 1),
                "{duration} in {bucket}"
            );
        }
    }

    #[test]
    fn what_is_counted_is_read_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = CounterFile::create(directory.path(), 1, 2, 3).unwrap();
        file.counter("records").add(5);
        let bytes = std::fs::read(directory.path().join(layout::FILE_NAME)).unwrap();
        let view = layout::read(&bytes).unwrap();
        assert_eq!(view.counters().next(), Some(("records", 5)));
    }
}
