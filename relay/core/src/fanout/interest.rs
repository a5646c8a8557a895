//! Which subscriber wants which topic: a row of bits for each topic, with a bit for each subscriber's place.
//!
//! ```text
//!              place 0 1 2 3 ...            a release with records of topics 2 and 3 is of interest to the places in
//!     topic 1        1 . . 1                row 2 | row 3; nobody else is looked at
//!     topic 2        . 1 . .
//!     topic 3        . 1 1 .
//! ```
//!
//! Patterns are held against a name once, when the topic is defined or the subscription begins; after that a record costs one row
//! (64 bytes for 512 places), however many subscribers and patterns there are. The memory is fixed: places times the most
//! topics, in bits, of which only the pages of rows that somebody's interest was noted in are ever touched.

use relay_wire::id::TopicId;

use crate::places::words_for;

/// Rows that are looked at in one step when a place is given up.
const SWEEP_ROWS: u32 = 4_096;

/// The table; see the module's description.
#[derive(Debug, Clone)]
pub(super) struct Interest {
    rows: Vec<u64>,
    /// Words of a row.
    words: usize,
}

impl Interest {
    /// Nobody wants anything; for `places` subscribers and `topics` topics.
    pub(super) fn new(places: u32, topics: u32) -> Self {
        let words = words_for(places);
        Self {
            rows: vec![0; words * (topics as usize + 1)],
            words,
        }
    }

    /// Makes sure that there is a row for `topic`. There is one already, unless the log comes from a node that allows more topics.
    pub(super) fn reach(&mut self, topic: TopicId) {
        let end = (topic.get() as usize + 1) * self.words;
        if self.rows.len() < end {
            self.rows.resize(end, 0);
        }
    }

    pub(super) fn insert(&mut self, topic: TopicId, place: u32) {
        let word = topic.get() as usize * self.words + place as usize / 64;
        self.rows[word] |= 1 << (place % 64);
    }

    /// Whether the subscriber at `place` wants `topic`.
    #[inline]
    pub(super) fn holds(&self, topic: TopicId, place: u32) -> bool {
        let word = topic.get() as usize * self.words + place as usize / 64;
        let row = self.rows.get(word);
        row.is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// Who wants `topic`, as the words of a set of places; empty where the topic is not defined.
    #[inline]
    pub(super) fn row(&self, topic: TopicId) -> &[u64] {
        let start = topic.get() as usize * self.words;
        self.rows.get(start..start + self.words).unwrap_or(&[])
    }

    /// Takes what was noted for `place` out of some rows, from that of `next` on and up to that of `last`; the row to go on
    /// with, if there are more.
    pub(super) fn sweep(&mut self, place: u32, next: TopicId, last: TopicId) -> Option<TopicId> {
        let end = last.get().min(next.get() + SWEEP_ROWS - 1);
        for topic in next.get()..=end {
            let word = topic as usize * self.words + place as usize / 64;
            // A page that nobody wrote to stays one that takes no memory.
            if self.rows[word] & (1 << (place % 64)) != 0 {
                self.rows[word] &= !(1 << (place % 64));
            }
        }
        (end < last.get()).then_some(TopicId(end + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_swept_and_the_others_stay() {
        let topics = 2 * SWEEP_ROWS + 5;
        let mut interest = Interest::new(70, topics - 1);
        interest.reach(TopicId(topics));
        for topic in 1..=topics {
            interest.insert(TopicId(topic), 69);
            interest.insert(TopicId(topic), 68);
        }
        assert_eq!(interest.row(TopicId(7)), [0, 1 << 5 | 1 << 4]);
        assert!(interest.row(TopicId(topics + 1)).is_empty());
        assert!(!interest.holds(TopicId(topics + 1), 69));
        let (mut steps, mut next) = (0, Some(TopicId(1)));
        while let Some(topic) = next {
            next = interest.sweep(69, topic, TopicId(topics));
            steps += 1;
        }
        assert_eq!(steps, 3);
        for topic in 1..=topics {
            assert!(!interest.holds(TopicId(topic), 69) && interest.holds(TopicId(topic), 68));
        }
    }
}
