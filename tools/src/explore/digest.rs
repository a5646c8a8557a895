//! A 64-bit digest of a state, fast enough to take a million times a second.
//!
//! Two different states with one digest would be taken for the same: with n states that happens with a probability of
//! about n * n / 2^65, one in 370,000 for ten million.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

const FIRST: u64 = 0xa076_1d64_78bd_642f;
const SECOND: u64 = 0xe703_7ed1_a0b4_28db;
const THIRD: u64 = 0x8ebc_6af0_9c88_c6e3;

/// Mixes numbers by long multiplication.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(THIRD)
    }
}

/// The digest of one value.
pub(crate) fn digest_of(value: &impl Hash) -> u64 {
    let mut digest = Digest::default();
    value.hash(&mut digest);
    digest.finish()
}

/// The digest of numbers.
pub(crate) fn digest_of_words(words: &[u32]) -> u64 {
    let mut digest = Digest::default();
    for pair in words.chunks(2) {
        let high = pair
            .get(1)
            .map_or(u64::from(u32::MAX), |word| u64::from(*word));
        digest.write_u64(u64::from(pair[0]) | high << 32);
    }
    digest.write_u64(words.len() as u64);
    digest.finish()
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        fold(self.0 ^ FIRST, SECOND)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = fold(self.0 ^ number ^ FIRST, self.0.rotate_left(29) ^ SECOND);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// Takes a number that is a digest already as its own hash.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only digests are looked up")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Values by digest.
pub(crate) type DigestMap<V> = HashMap<u64, V, BuildHasherDefault<Same>>;
/// Digests.
pub(crate) type DigestSet = HashSet<u64, BuildHasherDefault<Same>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_content_count() {
        let digests = [
            digest_of_words(&[]),
            digest_of_words(&[0]),
            digest_of_words(&[0, 0]),
            digest_of_words(&[1, 2]),
            digest_of_words(&[2, 1]),
            digest_of(&(1_u32, 2_u32)),
            digest_of(&"ab"),
            digest_of(&"ba"),
        ];
        let different: DigestSet = digests.into_iter().collect();
        assert_eq!(different.len(), digests.len());
    }
}
