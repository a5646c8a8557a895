//! Where every choice of a run comes from: xoshiro256++ (Blackman and Vigna), seeded by splitmix64.
//!
//! Each actor has a stream of its own, split from the seed by a label, so that leaving out one fault does not
//! change what an unconcerned actor draws. All arithmetic is on integers: the same seed gives the same run on every machine.

/// A stream of numbers that only the seed determines.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: [u64; 4],
}

/// Splitmix64's output function: a bijection of 64 bits that leaves no pattern.
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of `seed` for the actor `label`.
    pub(crate) const fn of(seed: u64, label: u64) -> Self {
        let base = mix(seed) ^ mix(label ^ 0x5851_f42d_4c95_7f2d);
        Self {
            state: [
                mix(base),
                mix(base.wrapping_add(1)),
                mix(base.wrapping_add(2)),
                mix(base.wrapping_add(3)),
            ],
        }
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 where that is 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `least` to `most`, both included.
    pub(crate) const fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True `part` times in a million.
    pub(crate) const fn chance(&mut self, part: u32) -> bool {
        self.below(1_000_000) < part as u64
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number with a long tail and this mean: half of all lie below two thirds of it.
    pub(crate) const fn tailed(&mut self, mean: u64) -> u64 {
        let bits = self.next();
        let doublings = (bits >> 16).leading_zeros() - 16;
        let scaled = ((doublings as u64) << 16) + (bits & 0xffff);
        ((mean as u128 * scaled as u128) / (3 << 15)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a seed means the same for ever. Method: values computed by another program.
    #[test]
    fn the_stream_of_a_seed_stays_what_it_is() {
        let mut random = Random::of(1, 2);
        let expected = [
            0xbebe_fc4a_de34_1e73,
            0xab9c_7389_4746_053d,
            0xfda3_ff8b_a257_7069,
        ];
        assert_eq!([random.next(), random.next(), random.next()], expected);
        assert_ne!(expected[0], Random::of(1, 3).next());
        assert_ne!(expected[0], Random::of(2, 2).next());
    }

    #[test]
    fn the_tailed_numbers_have_their_mean() {
        let mut random = Random::of(7, 0);
        let sum: u64 = (0..100_000).map(|_| random.tailed(1_000)).sum();
        assert!((970..1_030).contains(&(sum / 100_000)), "{}", sum / 100_000);
    }
}
