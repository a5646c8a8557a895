//! When each message of a source is due.
//!
//! Due times are offsets from the start of the run, so they do not depend on how the run goes: a source that was held up
//! catches up, and the delay shows in the latency of every message that waited.

use std::str::FromStr;

/// How fast to go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as the relay takes it.
    Max,
    /// As captured, so many times as fast.
    Original {
        /// 1 is as captured, 2 twice as fast.
        speed: f64,
    },
    /// Messages per second, evenly.
    Rate(f64),
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            "original" => Ok(Self::Original { speed: 1.0 }),
            _ => text
                .strip_prefix('x')
                .and_then(|number| number.parse().ok())
                .filter(|speed| (1e-6..=1e9).contains(speed))
                .map(|speed| Self::Original { speed })
                .ok_or_else(|| {
                    format!("`{text}` is none of: original, max, xN with N the times as fast")
                }),
        }
    }
}

/// Gives each message its due time.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    index: u64,
    first_ns: Option<u64>,
    last_due_ns: u64,
}

impl Pacer {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            index: 0,
            first_ns: None,
            last_due_ns: 0,
        }
    }

    /// When the next message is due, ns from the start; `time_ns` is the source's own time of it.
    ///
    /// Never goes back, even where a capture's times do.
    pub(crate) fn due_ns(&mut self, time_ns: u64) -> u64 {
        let due_ns = match self.pace {
            Pace::Max => 0,
            Pace::Rate(rate) => (self.index as f64 * 1e9 / rate) as u64,
            Pace::Original { speed } => {
                let first_ns = *self.first_ns.get_or_insert(time_ns);
                (time_ns.saturating_sub(first_ns) as f64 / speed) as u64
            }
        };
        self.index += 1;
        self.last_due_ns = self.last_due_ns.max(due_ns);
        self.last_due_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_paces_are_read() {
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("original".parse(), Ok(Pace::Original { speed: 1.0 }));
        assert_eq!("x2.5".parse(), Ok(Pace::Original { speed: 2.5 }));
        for bad in ["", "x", "x0", "x-1", "xNaN", "xinf", "fast", "2"] {
            assert!(bad.parse::<Pace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_even_and_does_not_drift() {
        let mut pacer = Pacer::new(Pace::Rate(3.0));
        let due: Vec<_> = (0..4).map(|_| pacer.due_ns(7)).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn captured_times_are_kept_scaled_and_never_go_back() {
        let mut pacer = Pacer::new(Pace::Original { speed: 2.0 });
        let due: Vec<_> = [1_000, 3_000, 2_000, 5_000].map(|t| pacer.due_ns(t)).into();
        assert_eq!(due, [0, 1_000, 1_000, 2_000]);
    }

    #[test]
    fn as_fast_as_possible_is_due_at_once() {
        let mut pacer = Pacer::new(Pace::Max);
        assert_eq!([pacer.due_ns(5), pacer.due_ns(u64::MAX)], [0, 0]);
    }
}
