//! Sets of places in a table, one bit each.
//!
//! What a machine does at every release or every few milliseconds must cost what is there and not what there is room for; so it goes
//! over the places that are taken by such a set, 64 of them in a word.

/// A set of places below the number it was made for. Never grows.
#[derive(Debug, Clone)]
pub(crate) struct PlaceSet {
    words: Vec<u64>,
}

impl PlaceSet {
    /// The empty set of a table with `places` places.
    pub(crate) fn new(places: u32) -> Self {
        Self {
            words: vec![0; words_for(places)],
        }
    }

    pub(crate) fn insert(&mut self, place: u32) {
        self.words[place as usize / 64] |= 1 << (place % 64);
    }

    pub(crate) fn remove(&mut self, place: u32) {
        self.words[place as usize / 64] &= !(1 << (place % 64));
    }

    pub(crate) fn contains(&self, place: u32) -> bool {
        self.words[place as usize / 64] & (1 << (place % 64)) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds the places whose bits are set in `words`, as many words as [`words_for`] says.
    pub(crate) fn add_all(&mut self, words: &[u64]) {
        for (mine, other) in self.words.iter_mut().zip(words) {
            *mine |= other;
        }
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The first place from `from` on, for going over a set while it changes.
    pub(crate) fn next_from(&self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        let mut word = self.words.get(first)? & (u64::MAX << (from % 64));
        let mut at = first;
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some(at as u32 * 64 + word.trailing_zeros())
    }
}

/// Words that hold a bit for each of so many places.
pub(crate) const fn words_for(places: u32) -> usize {
    places.div_ceil(64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_gone_over_in_order() {
        let mut set = PlaceSet::new(130);
        assert!(set.is_empty());
        for place in [129, 0, 63, 64] {
            set.insert(place);
        }
        set.remove(63);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(place) = set.next_from(from) {
            found.push(place);
            from = place + 1;
        }
        assert_eq!(found, [0, 64, 129]);
        assert!(set.contains(64) && !set.contains(63));
        assert_eq!(set.next_from(130), None);
        set.clear();
        assert!(set.is_empty());
        assert_eq!(PlaceSet::new(0).next_from(0), None);
    }
}
