//! What publishers send: a function of who sends it and which number it has, so that everybody who sees a message can say
//! whether it was altered, without having kept it.

use relay_wire::code::RecordKind;
use relay_wire::id::{Incarnation, PublisherId, PublisherSeq, TopicId};
use relay_wire::record::{self, Fields};

use crate::random::{Random, mix};

/// A publisher's record: publisher, incarnation, publisher sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) publisher: u64,
    pub(crate) incarnation: u64,
    pub(crate) publisher_seq: u64,
}

/// The rule by which messages of a run are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contents {
    seed: u64,
    /// Topics there are.
    topics: u32,
    /// Most bytes of a payload.
    payload_max: u32,
}

/// Names of the topics of a run, by number.
pub(crate) fn topic_name(number: u32) -> String {
    const MARKETS: [&str; 3] = ["xnas", "xetr", "xlon"];
    let market = MARKETS[number as usize % MARKETS.len()];
    match number % 4 {
        3 => format!("book.{market}.n{number}.top"),
        _ => format!("orders.{market}.n{number}"),
    }
}

impl Contents {
    /// The rule of a seed.
    pub(crate) const fn new(seed: u64, topics: u32, payload_max: u32) -> Self {
        Self {
            seed,
            topics,
            payload_max,
        }
    }

    const fn word(&self, key: Key) -> u64 {
        let who = mix(self.seed ^ key.publisher) ^ key.incarnation;
        mix(mix(who) ^ key.publisher_seq)
    }

    /// The number of the topic it goes to.
    pub(crate) const fn topic(&self, key: Key) -> u32 {
        (self.word(key) >> 40) as u32 % self.topics
    }

    /// Bytes of its payload.
    pub(crate) const fn length(&self, key: Key) -> usize {
        let word = self.word(key);
        let most = self.payload_max as u64;
        // Most are small, some as long as allowed.
        (match word & 15 {
            0 => most,
            1 => word >> 4 & 7,
            _ => (word >> 8 & 0xffff) % (most / 8 + 1),
        }) as usize
    }

    /// Bytes of the record with its padding.
    pub(crate) const fn stride(&self, key: Key) -> usize {
        record::encoded_stride(0, self.length(key))
    }

    /// Appends the record, unstamped, with the topic's id.
    pub(crate) fn encode(
        &self,
        key: Key,
        topic: TopicId,
        payload: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let word = self.word(key);
        let length = self.length(key);
        let mut random = Random::of(word, 0);
        payload.clear();
        while payload.len() < length {
            payload.extend_from_slice(&random.next().to_le_bytes());
        }
        let fields = Fields {
            topic,
            publisher: PublisherId(key.publisher),
            incarnation: Incarnation(key.incarnation),
            publisher_seq: PublisherSeq(key.publisher_seq),
            key_hash: word,
            origin_time_ns: word >> 1,
        };
        let start = out.len();
        out.resize(start + self.stride(key), 0);
        record::encode(
            &mut out[start..],
            RecordKind::Data,
            &fields,
            &[],
            &payload[..length],
        )
        .expect("the place is as long as the record");
    }
}
