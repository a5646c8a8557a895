//! A sparse index of a log: where to start reading for a seq or a time.
//!
//! An entry stands for a block and says what came before it, so that looking up needs no more than
//! the last entry that is not past the wish; the reader scans from there. Entries lie at least a
//! spacing apart (1 MiB at first); when there are too many, every other one goes and the spacing
//! doubles. So memory is bounded, whatever the log's length.

use relay_wire::id::{Position, Seq};

/// Bytes of log between two entries at first.
pub const SPACING_MIN: u64 = 1024 * 1024;
/// Most entries kept.
pub const ENTRIES_MAX: usize = 65_536;

/// One block of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where the block lies.
    pub position: Position,
    /// The seq of its first DATA record, or of the next one to come.
    pub first_seq: Seq,
    /// The latest receive time of any record before the block, ns UTC; 0 when there is none.
    pub time_before_ns: u64,
    /// When the block was sealed, ns UTC.
    pub sealed_time_ns: u64,
}

/// The sparse index; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionIndex {
    entries: Vec<IndexEntry>,
    spacing: u64,
}

impl Default for PositionIndex {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            spacing: SPACING_MIN,
        }
    }
}

impl PositionIndex {
    /// An index of these entries, if their positions and seqs and times don't go backwards and lie
    /// `spacing` apart.
    #[must_use]
    pub fn from_entries(entries: Vec<IndexEntry>, spacing: u64) -> Option<Self> {
        let in_order = entries.windows(2).all(|pair| {
            pair[0]
                .position
                .0
                .checked_add(spacing)
                .is_some_and(|least| pair[1].position.0 >= least)
                && pair[0].first_seq <= pair[1].first_seq
                && pair[0].time_before_ns <= pair[1].time_before_ns
        });
        let fits = entries.len() <= ENTRIES_MAX && spacing >= SPACING_MIN;
        (in_order && fits).then_some(Self { entries, spacing })
    }

    /// Every entry, in order.
    #[must_use]
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Bytes of log between two entries now.
    #[must_use]
    pub const fn spacing(&self) -> u64 {
        self.spacing
    }

    /// Where to start reading to find the DATA record with this seq: the last entry that does not
    /// start after it, or the start of the log when there is none.
    #[must_use]
    pub fn find_seq(&self, seq: Seq) -> Position {
        self.last_before(|entry| entry.first_seq <= seq)
    }

    /// Where to start reading to pass a DATA record before the one with this seq, whether or not the seqs between them were
    /// skipped: an entry further back, with another seq.
    #[must_use]
    pub fn find_before(&self, seq: Seq) -> Position {
        let count = self.entries.partition_point(|entry| entry.first_seq <= seq);
        let Some(entry) = self.entries.get(count.saturating_sub(1)) else {
            return Position(0);
        };
        self.last_before(|earlier| earlier.first_seq < entry.first_seq)
    }

    /// Where to start reading to find the first record received at or after a time (ns UTC): every
    /// record before the returned position was received earlier.
    #[must_use]
    pub fn find_time(&self, time_ns: u64) -> Position {
        self.last_before(|entry| entry.time_before_ns < time_ns)
    }

    fn last_before(&self, is_before: impl Fn(&IndexEntry) -> bool) -> Position {
        let count = self.entries.partition_point(is_before);
        let entry = self.entries.get(count.saturating_sub(1));
        entry.map_or(Position(0), |entry| entry.position)
    }

    /// Takes the memory of all the entries there can be, so that offering blocks never does.
    pub fn reserve_all(&mut self) {
        self.entries
            .reserve(ENTRIES_MAX + 1 - self.entries.len().min(ENTRIES_MAX));
    }

    /// Takes a block in, if it lies far enough behind the last entry. Blocks come in order.
    pub fn offer(&mut self, entry: IndexEntry) {
        if let Some(last) = self.entries.last()
            && entry.position.since(last.position) < self.spacing
        {
            return;
        }
        if self.entries.len() == ENTRIES_MAX {
            self.thin();
            self.offer(entry);
            return;
        }
        self.entries.push(entry);
    }

    /// Doubles the spacing and drops what is now too near to its predecessor.
    fn thin(&mut self) {
        self.spacing *= 2;
        let spacing = self.spacing;
        let mut kept: Option<Position> = None;
        self.entries.retain(|entry| {
            let keep = kept.is_none_or(|last| entry.position.since(last) >= spacing);
            if keep {
                kept = Some(entry.position);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> IndexEntry {
        IndexEntry {
            position: Position(number * SPACING_MIN),
            first_seq: Seq(1 + number * 10),
            time_before_ns: number * 100,
            sealed_time_ns: number * 100 + 50,
        }
    }

    #[test]
    fn finds_the_last_entry_not_past_the_wish() {
        let mut index = PositionIndex::default();
        assert_eq!(index.find_seq(Seq(5)), Position(0));
        for number in 0..4 {
            index.offer(entry(number));
        }
        for (seq, number) in [(1, 0), (10, 0), (11, 1), (30, 2), (31, 3), (99, 3)] {
            assert_eq!(
                index.find_seq(Seq(seq)),
                entry(number).position,
                "seq {seq}"
            );
        }
        // Everything before entry 2 was received at 200 or earlier: a record of time 200 may lie
        // before it.
        for (time, number) in [
            (0, 0),
            (1, 0),
            (100, 0),
            (101, 1),
            (200, 1),
            (201, 2),
            (999, 3),
        ] {
            assert_eq!(index.find_time(time), entry(number).position, "time {time}");
        }
    }

    #[test]
    fn entries_keep_their_distance_and_stay_bounded() {
        let mut index = PositionIndex::default();
        for number in 0..3 * ENTRIES_MAX as u64 {
            index.offer(entry(number));
            let near = IndexEntry {
                position: Position(number * SPACING_MIN + 4096),
                ..entry(number)
            };
            index.offer(near);
        }
        assert_eq!(index.spacing(), 4 * SPACING_MIN);
        assert!(index.entries().len() <= ENTRIES_MAX);
        let again = PositionIndex::from_entries(index.entries().to_vec(), index.spacing());
        assert_eq!(again, Some(index));
    }
}
