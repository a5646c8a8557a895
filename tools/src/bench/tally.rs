//! Which messages of one publisher arrived: once, twice, late or never.
//!
//! Messages are numbered from 0 and mostly come in order, so what is kept is the next number and the few ranges that were
//! jumped over.

use std::ops::Range;

/// Ranges kept; more only happens when nearly everything is lost, and then they count as lost.
const MISSING_RANGES_MAX: usize = 100_000;

/// Arrivals of one publisher's messages at one subscriber.
#[derive(Debug, Default)]
pub(super) struct Tally {
    next: u64,
    missing: Vec<Range<u64>>,
    /// Messages that arrived.
    pub(super) distinct: u64,
    /// Arrivals of a message that had arrived.
    pub(super) duplicated: u64,
    /// First arrivals after a later message.
    pub(super) disordered: u64,
}

impl Tally {
    /// Notes an arrival; whether it is the message's first.
    #[inline]
    pub(super) fn note(&mut self, index: u64) -> bool {
        if index >= self.next {
            if index > self.next && self.missing.len() < MISSING_RANGES_MAX {
                self.missing.push(self.next..index);
            }
            self.next = index + 1;
            self.distinct += 1;
            return true;
        }
        self.note_late(index)
    }

    #[cold]
    fn note_late(&mut self, index: u64) -> bool {
        let Some(at) = self.missing.iter().position(|range| range.contains(&index)) else {
            self.duplicated += 1;
            return false;
        };
        let range = self.missing.swap_remove(at);
        for part in [range.start..index, index + 1..range.end] {
            if !part.is_empty() {
                self.missing.push(part);
            }
        }
        self.distinct += 1;
        self.disordered += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_stragglers_and_losses_are_told_apart() {
        let mut tally = Tally::default();
        let firsts: Vec<_> = [0, 1, 5, 3, 3, 5, 2, 6]
            .map(|index| tally.note(index))
            .into();
        assert_eq!(firsts, [true, true, true, true, false, false, true, true]);
        assert_eq!(
            (tally.distinct, tally.duplicated, tally.disordered),
            (6, 2, 2)
        );
        assert!(tally.note(4));
        assert!(tally.missing.is_empty());
    }
}
