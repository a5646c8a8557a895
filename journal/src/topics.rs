//! The topics of a stream: names by id and ids by name.
//!
//! Ids are 1, 2, 3 ... in the order of definition, so names lie one behind the other in a single
//! string and an id needs no storage of its own. A hash table of ids leads from a name to them; it
//! holds no names, so 100,000 topics are rebuilt without 100,000 allocations at a start.

use relay_wire::id::TopicId;
use relay_wire::topic::{TopicError, check_name};

/// Most topics a stream may define; their names fit in 32-bit offsets.
pub const TOPICS_MAX: usize = 1 << 24;

/// Why a topic is not defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefineError {
    /// The name breaks the rules.
    Name(TopicError),
    /// The name has this id already.
    DefinedBefore(TopicId),
    /// There are [`TOPICS_MAX`] topics.
    TooMany,
}

/// The topics; see the module.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    names: String,
    /// Where each name ends in `names`, by id from 1.
    ends: Vec<u32>,
    /// Ids at the places their names hash to, or at the next free place; 0 is free. A power of two
    /// of places, at most half of them taken.
    places: Vec<u32>,
}

impl PartialEq for Topics {
    fn eq(&self, other: &Self) -> bool {
        self.ends == other.ends && self.names == other.names
    }
}

impl Eq for Topics {}

impl core::hash::Hash for Topics {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.ends.hash(state);
        self.names.hash(state);
    }
}

impl Topics {
    /// How many topics there are; also the highest id.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no topic is defined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, topic: TopicId) -> Option<&str> {
        let at = topic.get().checked_sub(1)? as usize;
        let end = *self.ends.get(at)? as usize;
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        Some(&self.names[start..end])
    }

    /// The id of a topic.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<TopicId> {
        if self.places.is_empty() {
            return None;
        }
        let place = self.place_of(name);
        let id = TopicId(self.places[place]);
        (id.get() != 0).then_some(id)
    }

    /// The id the next definition takes.
    #[must_use]
    pub fn next_id(&self) -> TopicId {
        TopicId(self.ends.len() as u32 + 1)
    }

    /// Every topic, by id.
    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &str)> {
        (1..=self.ends.len() as u32).filter_map(|id| {
            let id = TopicId(id);
            self.name(id).map(|name| (id, name))
        })
    }

    /// Makes room for so many topics in all.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.ends.reserve(count.saturating_sub(self.ends.len()));
        let places = (2 * count.max(8)).next_power_of_two();
        if places > self.places.len() {
            self.places = vec![0; places];
            for id in 1..=self.ends.len() as u32 {
                let place = self.place_of(self.name(TopicId(id)).expect("it is defined"));
                self.places[place] = id;
            }
        }
    }

    /// Defines the next topic.
    ///
    /// # Errors
    /// [`DefineError`]; nothing is changed then.
    pub fn define(&mut self, name: &[u8]) -> Result<TopicId, DefineError> {
        let name = check_name(name).map_err(DefineError::Name)?;
        if self.ends.len() == TOPICS_MAX {
            return Err(DefineError::TooMany);
        }
        if 2 * (self.ends.len() + 1) > self.places.len() {
            self.reserve(2 * (self.ends.len() + 1));
        }
        let place = self.place_of(name);
        if self.places[place] != 0 {
            return Err(DefineError::DefinedBefore(TopicId(self.places[place])));
        }
        let id = self.next_id();
        self.places[place] = id.get();
        self.names.push_str(name);
        let end = u32::try_from(self.names.len());
        self.ends
            .push(end.expect("so many names of 255 bytes fit in 32 bits"));
        Ok(id)
    }

    /// The place that holds this name's id, or the free one where it belongs.
    fn place_of(&self, name: &str) -> usize {
        let mask = self.places.len() - 1;
        let mut place = hash(name) as usize & mask;
        while self.places[place] != 0 && self.name(TopicId(self.places[place])) != Some(name) {
            place = (place + 1) & mask;
        }
        place
    }
}

/// Eight bytes at a time by multiplication, the same in every run.
fn hash(name: &str) -> u64 {
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        (product >> 64) as u64 ^ product as u64
    };
    let (words, rest) = name.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let start = 0x2545_f491_4f6c_dd1d ^ name.len() as u64;
    let body = words
        .iter()
        .fold(start, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    mix(body, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_lead_to_each_other() {
        let mut topics = Topics::default();
        assert_eq!((topics.id("a"), topics.is_empty()), (None, true));
        for number in 1..=5_000 {
            let id = topics.define(format!("t.{number}").as_bytes());
            assert_eq!(id, Ok(TopicId(number)));
        }
        for (id, name) in topics.iter() {
            assert_eq!(topics.id(name), Some(id));
            assert_eq!(name, format!("t.{id}"));
        }
        assert_eq!(topics.len(), 5_000);
        assert_eq!(topics.id("t.5001"), None);
        assert_eq!(topics.name(TopicId(0)), None);
        assert_eq!(topics.name(TopicId(5_001)), None);
        let before = topics.clone();
        let error = topics.define(b"t.77");
        assert_eq!(error, Err(DefineError::DefinedBefore(TopicId(77))));
        assert_eq!(
            topics.define(b""),
            Err(DefineError::Name(TopicError::Empty))
        );
        topics.reserve(100_000);
        assert_eq!(topics, before);
        assert_eq!(topics.id("t.4999"), Some(TopicId(4_999)));
    }

    /// Names that differ in one number only must not pile up at few places.
    #[test]
    fn similar_names_spread() {
        let mut counts = vec![0_u8; 4_096];
        for number in 0..4_096 {
            counts[hash(&format!("orders.xnas.{number:05}")) as usize & 4_095] += 1;
        }
        assert!(counts.iter().all(|&count| count < 12));
    }
}
