//! Sets of topics. The topics themselves are [`relay_journal::topics::Topics`]: the sequencer has one that holds every
//! definition it appended, the fan-out one that holds what is released.

use relay_wire::id::TopicId;

/// A set of topic ids, one bit each. Grows when an id is added, never when one is looked up.
#[derive(Debug, Clone, Hash, Default)]
pub struct TopicSet {
    words: Vec<u64>,
}

impl TopicSet {
    /// Adds `id`.
    pub fn insert(&mut self, id: TopicId) {
        let word = id.get() as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (id.get() % 64);
    }

    /// Whether `id` is in it.
    #[must_use]
    pub fn contains(&self, id: TopicId) -> bool {
        self.words
            .get(id.get() as usize / 64)
            .is_some_and(|word| word & (1 << (id.get() % 64)) != 0)
    }

    /// Takes all out, keeping the memory.
    pub fn clear(&mut self) {
        self.words.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut set = TopicSet::default();
        set.insert(TopicId(64));
        assert!(set.contains(TopicId(64)));
        assert!(!set.contains(TopicId(63)));
        assert!(!set.contains(TopicId(1_000_000)));
    }
}
