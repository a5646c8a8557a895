//! Which messages arrived: once, twice, late or never.
//!
//! One bit per message of the run, so that a duplicate is told from a straggler.

/// Arrival counts of a run whose messages are numbered from zero.
pub(crate) struct Tally {
    seen: Vec<u64>,
    total: u64,
    next: u64,
    /// Distinct messages received.
    pub(crate) distinct: u64,
    /// Receipts of a message already received.
    pub(crate) duplicated: u64,
    /// First receipts that came after a higher index.
    pub(crate) out_of_order: u64,
    /// Indexes that this run never sent.
    pub(crate) foreign: u64,
}

impl Tally {
    /// A tally of `total` messages, none received.
    pub(crate) fn new(total: u64) -> Tally {
        let words = total.div_ceil(64) as usize;
        Tally {
            seen: vec![0; words],
            total,
            next: 0,
            distinct: 0,
            duplicated: 0,
            out_of_order: 0,
            foreign: 0,
        }
    }

    /// Notes a receipt; true if it is this message's first.
    #[inline]
    pub(crate) fn note(&mut self, index: u64) -> bool {
        if index >= self.total {
            self.foreign += 1;
            return false;
        }
        let (word, bit) = ((index / 64) as usize, 1u64 << (index % 64));
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return false;
        }
        self.seen[word] |= bit;
        self.distinct += 1;
        if index < self.next {
            self.out_of_order += 1;
        } else {
            self.next = index + 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_stragglers_and_strangers_are_told_apart() {
        let mut tally = Tally::new(5);
        let firsts: Vec<bool> = [0, 1, 3, 2, 3, 9].iter().map(|&i| tally.note(i)).collect();
        assert_eq!(firsts, [true, true, true, true, false, false]);
        assert_eq!((tally.distinct, tally.duplicated), (4, 1));
        assert_eq!((tally.out_of_order, tally.foreign), (1, 1));
        assert!(tally.note(4));
        assert_eq!(tally.distinct, 5);
    }
}
