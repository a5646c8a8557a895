//! The released log as the background threads read it: out of the memory ring while it is there, else from disk.
//!
//! ```text
//!         kept from          released          open + 3/4 of a ring
//!  -----------|-----------------|--------|-----------|------ ...
//!    disk     |  ring, or disk  |        open: the sequencer writes from here
//! ```
//!
//! A disk that is read beside the flow makes its writes wait, and what was released a moment ago is in memory still. Nothing
//! holds the ring for these readers: they copy, and look afterwards whether what they copied may have been overwritten
//! meanwhile. For that the sequencer says in its every turn, before it writes, from where on the ring keeps what it has, and
//! writes no more than three quarters of a ring in one turn: the last quarter is kept.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use relay_wire::id::Position;

use crate::arena::{LogRing, Pages};
use crate::link::PositionCell;
use crate::pace;
use crate::storage::Segments;

/// Most bytes taken out of memory at once. Longer pieces are asked for where the reader is behind a flow that takes all a CPU has:
/// there a copy costs what the flow needs, and a disk brings them without.
const COPY_MAX: usize = 2 * pace::STEP_MIN;

/// See the module's description.
pub(crate) struct ReleasedLog {
    pub(crate) ring: Arc<LogRing>,
    pub(crate) kept_from: PositionCell,
    pub(crate) segments: Segments,
}

/// Where a piece of the log was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Ring,
    Disk,
}

impl ReleasedLog {
    /// Reads from `position` on into `pages`, at most `length` bytes and as many as these have, and not beyond the segment's end; all
    /// of it is released and durable. Returns how many, and where they were read.
    ///
    /// # Errors
    /// The system's, of a disk that can't be read.
    pub(crate) fn read(
        &self,
        position: Position,
        pages: &mut Pages,
        length: usize,
    ) -> io::Result<(usize, Source)> {
        let geometry = self.segments.geometry();
        let wanted = (length as u64).min(geometry.left_in_segment(position));
        let wanted = wanted.min(pages.length() as u64) as usize;
        if wanted <= COPY_MAX
            && self.is_kept(position)
            && self.ring.copy(position, pages, wanted).is_ok()
        {
            // What was copied was there before this is looked at again.
            fence(Ordering::Acquire);
            if self.is_kept(position) {
                return Ok((wanted, Source::Ring));
            }
        }
        let read = self.segments.read(position, pages, wanted)?;
        Ok((read, Source::Disk))
    }

    fn is_kept(&self, position: Position) -> bool {
        position >= self.kept_from.read()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Instant;

    use relay_journal::segment::Geometry;

    use super::*;

    const UNIT: u64 = 4096;
    const RING_UNITS: u64 = 16;

    /// A log whose disk holds `on_disk`, with a ring nothing is known to be in.
    fn log(directory: &tempfile::TempDir, on_disk: &[u8]) -> ReleasedLog {
        let path = directory.path().join("segment");
        std::fs::write(&path, on_disk).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let geometry = Geometry::new(1 << 20, UNIT as u32).unwrap();
        let segments = Segments::new(geometry, file.try_clone().unwrap());
        segments.add(file, &path).unwrap();
        ReleasedLog {
            ring: Arc::new(LogRing::new((RING_UNITS * UNIT) as usize).unwrap()),
            kept_from: PositionCell::new(Position(0)),
            segments,
        }
    }

    fn write(ring: &LogRing, unit: u64, value: u64) {
        let start = Position(unit * UNIT);
        // SAFETY: one thread writes, and who reads copies.
        let mut window = unsafe { ring.window(start, start.plus(UNIT)) };
        for word in window.slice_mut(start, UNIT as usize).chunks_exact_mut(8) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn words(pages: &mut Pages, length: usize) -> impl Iterator<Item = u64> {
        pages.all_mut()[..length]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
    }

    /// Goal: what the ring keeps is not asked of the disk, and what it does not keep is. Method: other bytes here than there; a piece
    /// across the ring's end; one that ends with its segment.
    #[test]
    fn what_the_ring_keeps_is_not_asked_of_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, &[0xdd; 40 * UNIT as usize]);
        let mut pages = Pages::new(8 * UNIT as usize).unwrap();
        for unit in 10..26 {
            write(&log.ring, unit, unit);
        }
        log.kept_from.publish(Position(10 * UNIT));
        let length = 4 * UNIT as usize;
        let read = log.read(Position(14 * UNIT), &mut pages, length).unwrap();
        assert_eq!(read, (length, Source::Ring));
        let per_unit = (UNIT / 8) as usize;
        let expected = (14..18).flat_map(|unit| std::iter::repeat_n(unit, per_unit));
        assert!(words(&mut pages, length).eq(expected));

        let read = log.read(Position(9 * UNIT), &mut pages, length).unwrap();
        assert_eq!(read, (length, Source::Disk));
        let of_disk = u64::from_le_bytes([0xdd; 8]);
        assert!(words(&mut pages, length).all(|word| word == of_disk));

        let (last, all) = (Position((1 << 20) - UNIT), pages.length());
        let read = log.read(last, &mut pages, all).unwrap();
        assert_eq!(
            read,
            (UNIT as usize, Source::Ring),
            "no further than the segment"
        );
    }

    /// Goal: nothing that was overwritten while it was copied is taken for the log. Method: one thread writes round and round the ring as
    /// the sequencer does, another reads what is about to be overwritten.
    #[test]
    fn what_is_overwritten_meanwhile_is_not_taken() {
        const EACH: u64 = 100;
        let directory = tempfile::tempdir().unwrap();
        // Its disk has nothing: what is not taken out of memory is an error or empty.
        let log = log(&directory, &[]);
        let (written, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let begun = Instant::now();
        let (mut in_time, mut late) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for unit in 0.. {
                    let kept = (unit + 1_u64).saturating_sub(RING_UNITS);
                    log.kept_from.publish(Position(kept * UNIT));
                    fence(Ordering::Release);
                    write(&log.ring, unit, unit);
                    written.store(unit + 1, Ordering::Release);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let mut pages = Pages::new(4 * UNIT as usize).unwrap();
            let mut is_torn = false;
            while (in_time < EACH || late < EACH) && !is_torn && begun.elapsed().as_secs() < 60 {
                let end = written.load(Ordering::Acquire);
                let unit = (end + 1).saturating_sub(RING_UNITS);
                let position = Position(unit * UNIT);
                if end <= unit || !log.is_kept(position) {
                    continue;
                }
                match log.read(position, &mut pages, UNIT as usize) {
                    Ok((length, Source::Ring)) => {
                        is_torn = !words(&mut pages, length).all(|word| word == unit);
                        in_time += 1;
                    }
                    Ok((_, Source::Disk)) | Err(_) => late += 1,
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(!is_torn, "what was overwritten was taken for the log");
        });
        assert!(
            in_time >= EACH && late >= EACH,
            "{in_time} in time, {late} late"
        );
    }
}
