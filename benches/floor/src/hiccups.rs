//! Moments in which a thread that should run stood still: the machine ran something else there, or nothing.
//!
//! The idea, and the name, are those of Gil Tene's jHiccup: who reads the clock again and again sees from a gap that it could not.
//! Latencies tell of such a gap as if the server had made it; this tells whose it was.

/// A longer gap is a hiccup, in nanoseconds: twice the longest sleep of a parked client, and more than a full turn of one takes.
pub const HICCUP_NS: u64 = 2_000_000;

/// The hiccups of one thread from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hiccups {
    from_ns: u64,
    last_ns: u64,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub longest_ns: u64,
}

impl Hiccups {
    /// None so far. What is over before `from_ns` does not count.
    pub fn since(from_ns: u64) -> Self {
        Self {
            from_ns,
            last_ns: u64::MAX,
            count: 0,
            total_ns: 0,
            longest_ns: 0,
        }
    }

    /// Notes that the thread runs, at the beginning of each of its turns; times never fall.
    #[inline]
    pub fn note(&mut self, now_ns: u64) {
        let gap_ns = now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns));
        if gap_ns > HICCUP_NS && now_ns > self.from_ns {
            self.count += 1;
            self.total_ns += gap_ns;
            self.longest_ns = self.longest_ns.max(gap_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_gaps_in_the_measured_time_are_hiccups() {
        let mut hiccups = Hiccups::since(10_000_000);
        let turns = [
            0, 9_000_000, // before the measured time
            10_000_001, 12_000_001, // 2 ms are none
            15_000_001, 15_000_002, 25_000_002,
        ];
        turns.into_iter().for_each(|now_ns| hiccups.note(now_ns));
        let found = (hiccups.count, hiccups.total_ns, hiccups.longest_ns);
        assert_eq!(found, (2, 13_000_000, 10_000_000));
    }
}
