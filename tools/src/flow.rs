//! Messages made up here: the same seed gives the same messages, on every machine.

use std::str::FromStr;

/// A fast reproducible source of numbers (xorshift64*, Vigna 2016). Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // One step of splitmix64 spreads small seeds; zero would be a fixed point.
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((state ^ (state >> 31)) | 1)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Evenly above 0, up to 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// A time to the next of independent arrivals.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }

    /// Fills `bytes`.
    #[inline]
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        let mut words = bytes.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        let rest = words.into_remainder();
        let last = self.next().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Fills `bytes` from one number: different for every number, and without one word waiting for the one before, so that
/// a load generator spends its time elsewhere.
#[inline]
pub(crate) fn spread(number: u64, bytes: &mut [u8]) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = number;
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        state = state.wrapping_add(STEP);
        word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    let rest = words.into_remainder();
    let last = state.wrapping_add(STEP).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// What kind of flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowKind {
    /// Every message of one size, a microsecond apart.
    Fixed {
        /// Bytes of each.
        size: usize,
    },
    /// Like a market-data feed: bursts with pauses between, 60 to 600 bytes, small ones mostly.
    CaptureLike,
}

impl FromStr for FlowKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "capture-like" => Ok(Self::CaptureLike),
            _ => Err(format!("`{text}` is not a flow; there is: capture-like")),
        }
    }
}

/// Mean pause between bursts and mean messages of a burst: 2,000 messages a second in all.
const PAUSE_NS_MEAN: f64 = 4_000_000.0;
const BURST_MEAN: f64 = 8.0;
/// Mean time between two messages of a burst.
const STEP_NS_MEAN: f64 = 3_000.0;
/// A feed's sizes are about log-normal.
const SIZE_MEDIAN: f64 = 120.0;
const SIZE_SIGMA: f64 = 0.6;
const SIZE_RANGE: (f64, f64) = (60.0, 600.0);

/// A generated flow.
#[derive(Debug)]
pub(crate) struct Flow {
    kind: FlowKind,
    random: Random,
    left: u64,
    time_ns: u64,
    burst_left: u64,
}

impl Flow {
    pub(crate) fn new(kind: FlowKind, count: u64, seed: u64) -> Self {
        Self {
            kind,
            random: Random::new(seed),
            left: count,
            time_ns: 0,
            burst_left: 0,
        }
    }

    /// Puts the next message into `payload`; the time it was made, ns from the flow's start. Nothing at the end.
    pub(crate) fn next(&mut self, payload: &mut Vec<u8>) -> Option<u64> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let size = match self.kind {
            FlowKind::Fixed { size } => {
                self.time_ns += 1_000;
                size
            }
            FlowKind::CaptureLike => {
                self.step();
                self.size()
            }
        };
        payload.resize(size, 0);
        self.random.fill(payload);
        Some(self.time_ns)
    }

    fn step(&mut self) {
        let mean = if self.burst_left == 0 {
            self.burst_left = 1 + self.random.exponential(BURST_MEAN - 1.0) as u64;
            PAUSE_NS_MEAN
        } else {
            STEP_NS_MEAN
        };
        self.burst_left -= 1;
        self.time_ns += self.random.exponential(mean) as u64;
    }

    fn size(&mut self) -> usize {
        // Box and Muller's way to a normal number.
        let radius = (-2.0 * self.random.unit().ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.random.unit()).cos();
        let size = SIZE_MEDIAN * (SIZE_SIGMA * normal).exp();
        size.clamp(SIZE_RANGE.0, SIZE_RANGE.1) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(kind: FlowKind, seed: u64) -> Vec<(u64, Vec<u8>)> {
        let mut flow = Flow::new(kind, 20_000, seed);
        let mut payload = Vec::new();
        std::iter::from_fn(|| flow.next(&mut payload).map(|time| (time, payload.clone()))).collect()
    }

    #[test]
    fn the_seed_decides() {
        let first = all(FlowKind::CaptureLike, 7);
        assert_eq!(first.len(), 20_000);
        assert_eq!(first, all(FlowKind::CaptureLike, 7));
        assert_ne!(first, all(FlowKind::CaptureLike, 8));
    }

    #[test]
    fn a_capture_like_flow_has_small_sizes_mostly_and_bursts() {
        let flow = all(FlowKind::CaptureLike, 1);
        assert!(
            flow.iter()
                .all(|(_, payload)| (60..=600).contains(&payload.len()))
        );
        let mut sizes: Vec<_> = flow.iter().map(|(_, payload)| payload.len()).collect();
        sizes.sort_unstable();
        assert!(
            (100..140).contains(&sizes[10_000]),
            "median {}",
            sizes[10_000]
        );
        let mut steps: Vec<_> = flow.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        steps.sort_unstable();
        assert!(
            steps[10_000] < 10_000,
            "most follow at once: {}",
            steps[10_000]
        );
        let seconds = flow[19_999].0 as f64 / 1e9;
        assert!((7.0..13.0).contains(&seconds), "{seconds} s for 20,000");
    }

    #[test]
    fn spread_bytes_differ_by_number_and_by_place() {
        let (mut first, mut second) = ([0; 30], [0; 30]);
        spread(1, &mut first);
        spread(2, &mut second);
        assert!(first.chunks(8).zip(second.chunks(8)).all(|(a, b)| a != b));
        assert_ne!(first[..8], first[8..16]);
    }

    #[test]
    fn no_seed_stands_still() {
        for seed in [0, 1, u64::MAX, 0x61c8_8646_80b5_83eb] {
            let mut random = Random::new(seed);
            assert_ne!(random.next(), random.next());
        }
    }
}
