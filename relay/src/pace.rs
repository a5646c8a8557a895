//! How fast housekeeping works: in steps small enough that a durable write beside them hardly waits, and no faster than
//! the flow needs.
//!
//! Where there is a reserve it is used first: zeroes on their way to a disk make the durable writes beside them wait, so while
//! messages flow nothing is prepared until half of what is kept ahead is gone, and the rest of it is made up for when the flow
//! is quiet.
//!
//! A write or read of 4 MiB keeps an ordinary NVMe or virtio disk busy for milliseconds, and every message released
//! meanwhile waits for it. So what is done in the background is spread: little at a time while little is wanted, more as
//! it falls behind. The rate settles where it equals the flow.

use std::time::{Duration, Instant};

/// Least bytes of one write or read: below it a disk's cost is that of the operation, not of the bytes.
pub(crate) const STEP_MIN: usize = 128 << 10;
/// Most bytes of one.
pub(crate) const STEP_MAX: usize = 4 << 20;
/// Steps follow each other no faster.
pub(crate) const STEP_PAUSE: Duration = Duration::from_millis(2);
/// Pause between two reads of a segment that is indexed again: nobody waits for that, so it is about 16 MB a second.
pub(crate) const INDEX_PAUSE: Duration = Duration::from_millis(8);
/// Least bytes of log folded at once: out of memory that costs no more a byte in small pieces, and a hot thread on the same CPU
/// waits for no more than 20 us.
const FOLD_MIN: u64 = 32 << 10;
/// A backlog of log to fold is worked off in about so many steps, if nothing is added to it.
const FOLD_STEPS: u64 = 64;
/// The full rate of preparing is reached when so much of what is wanted is missing: one part in this many where the flow is quiet.
const FULL_RATE_AT: u64 = 4;
/// And beside a flow, of what is not to be used before more is made.
const FULL_RATE_BESIDE_FLOW_AT: u64 = 8;
/// A flow is quiet that would take more than this many times as long to use what is prepared meanwhile.
const QUIET: u64 = 256;
/// However little is missing, space is prepared at this part of the full rate.
const LEAST_RATE: u64 = 64;

/// Whether a log that grows by `rate` bytes a second is quiet enough to prepare space beside it, at no more than `rate_max`.
pub(crate) const fn is_quiet(rate: u64, rate_max: u64) -> bool {
    rate < rate_max / QUIET
}

/// How the space ahead of the log stands, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserve {
    pub(crate) wanted: u64,
    /// Of a segment.
    pub(crate) segment: u64,
    /// In whole segments: only these are of any use.
    pub(crate) ahead: u64,
    /// Of the next segment, if it is begun.
    pub(crate) begun: Option<u64>,
}

/// Bytes a second at which space is prepared, at most `rate_max`; `None` where there is enough, or the flow goes first.
pub(crate) fn preparing(reserve: Reserve, rate_max: u64, is_quiet: bool) -> Option<f64> {
    let wanted = reserve.wanted;
    let (missing, full_at) = if is_quiet {
        let there = reserve.ahead + reserve.begun.unwrap_or(0);
        let missing = wanted.saturating_sub(there);
        if missing == 0 && reserve.begun.is_none() {
            return None;
        }
        (missing, FULL_RATE_AT)
    } else {
        // The next segment is begun a whole one before it is needed, however few there are.
        let enough = (wanted / 2).max(reserve.segment).min(wanted);
        let missing = enough.checked_sub(reserve.ahead).filter(|&less| less > 0)?;
        (missing, FULL_RATE_BESIDE_FLOW_AT)
    };
    let share = full_at as f64 * missing as f64 / wanted.max(1) as f64;
    let least = (rate_max / LEAST_RATE).max(STEP_MIN as u64);
    Some((rate_max as f64 * share.min(1.0)).max(least as f64))
}

/// When the next write of zeroes is due.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Due {
    at: Option<Instant>,
}

impl Due {
    /// Bytes to write now at `rate`, if a write is due, and how long until the next is. What comes late, because the write before took
    /// longer or the thread had no CPU, is made up for as far as the largest step goes.
    pub(crate) fn next(&mut self, rate: f64, now: Instant) -> (Option<usize>, Duration) {
        let at = *self.at.get_or_insert(now);
        if now < at {
            return (None, at - now);
        }
        let step = rate * (STEP_PAUSE + (now - at)).as_secs_f64();
        let step = (step.min(STEP_MAX as f64) as usize).max(STEP_MIN);
        let pause = Duration::from_secs_f64(STEP_MIN as f64 / rate).max(STEP_PAUSE);
        self.at = Some(now + pause);
        (Some(step.next_multiple_of(4096)), pause)
    }
}

/// Bytes of log to read and fold next where `backlog` bytes are released and not folded; `None` to wait for more.
pub(crate) fn folding(backlog: u64) -> Option<usize> {
    let step = backlog / FOLD_STEPS;
    let step = step.clamp(FOLD_MIN, STEP_MAX as u64) / 4096 * 4096;
    (backlog >= step).then_some(step as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: u64 = 1 << 30;
    const RATE: u64 = 256 << 20;

    const SEGMENT: u64 = 64 << 20;

    fn missing(missing: u64) -> Reserve {
        Reserve {
            wanted: WANTED,
            segment: SEGMENT,
            ahead: WANTED - missing,
            begun: None,
        }
    }

    fn rate(of: u64, is_quiet: bool) -> f64 {
        preparing(missing(of), RATE, is_quiet).unwrap_or(0.0)
    }

    #[test]
    fn preparing_speeds_up_with_what_is_missing() {
        let rates: Vec<f64> = [1 << 20, 16 << 20, 64 << 20, WANTED / 4, WANTED]
            .map(|missing| rate(missing, true))
            .to_vec();
        assert!(rates.is_sorted() && rates[0] > 0.0, "{rates:?}");
        assert_eq!(rates[3..], [RATE as f64; 2]);
        assert_eq!(rate(0, true), 0.0);
        let begun = Reserve {
            begun: Some(4096),
            ..missing(0)
        };
        assert!(
            preparing(begun, RATE, true).is_some(),
            "what is begun is finished"
        );
    }

    /// Goal: beside a flow the first half is used and nothing is prepared; at three eighths all is done that may be.
    #[test]
    fn a_flow_uses_half_of_the_reserve_first() {
        assert_eq!(rate(0, false), 0.0);
        assert_eq!(rate(WANTED / 2, false), 0.0);
        let rates: Vec<f64> = [WANTED / 2 + 1, 9 * WANTED / 16, 5 * WANTED / 8, WANTED]
            .map(|missing| rate(missing, false))
            .to_vec();
        assert!(rates.is_sorted() && rates[0] > 0.0, "{rates:?}");
        assert_eq!(rates[2..], [RATE as f64; 2]);
        assert!(is_quiet(0, RATE) && !is_quiet(RATE / 16, RATE));
    }

    /// Goal: space keeps ahead of a flow that never rests, however few segments the reserve has, also where each write takes longer than
    /// its pause, and no alarm is raised where there is more than one. Method: flows of 40 and 120 MB/s for a minute; only whole segments
    /// count.
    #[test]
    fn space_keeps_ahead_of_the_flow() {
        for segments in [1, 2, 3, 4, 5, 16] {
            for (flow, write) in [(40e6, 100), (120e6, 9_000)] {
                let begun = Instant::now();
                let write = Duration::from_micros(write);
                let (mut time, mut due) = (Duration::ZERO, Due::default());
                let mut reserve = Reserve {
                    wanted: segments * SEGMENT,
                    segment: SEGMENT,
                    ahead: segments * SEGMENT,
                    begun: None,
                };
                let (mut ahead, mut least) = (reserve.ahead as f64, f64::MAX);
                while time < Duration::from_secs(60) {
                    let step = match preparing(reserve, RATE, false) {
                        Some(rate) => due.next(rate, begun + time).0,
                        None => None,
                    };
                    let mut took = STEP_PAUSE;
                    if let Some(step) = step {
                        took = write.max(STEP_PAUSE);
                        let written = reserve.begun.unwrap_or(0) + step as u64;
                        reserve.begun = Some(written).filter(|&written| written < SEGMENT);
                        ahead += if written < SEGMENT {
                            0.0
                        } else {
                            SEGMENT as f64
                        };
                    }
                    ahead -= flow * took.as_secs_f64();
                    least = least.min(ahead);
                    assert!(ahead > 0.0, "{segments} segments, {flow} bytes a second");
                    reserve.ahead = ahead as u64;
                    time += took;
                }
                let alarm = reserve.wanted as f64 / 4.0;
                assert!(
                    segments == 1 || flow > 100e6 || least > alarm,
                    "{segments}: {least}"
                );
            }
        }
    }

    #[test]
    fn steps_of_preparing_stay_within_their_bounds() {
        let now = Instant::now();
        for rate_max in [1 << 20, RATE, 64 << 30] {
            for of in [1, STEP_MIN as u64, WANTED] {
                let rate = preparing(missing(of), rate_max, true).unwrap();
                let mut due = Due::default();
                let (step, pause) = due.next(rate, now);
                assert!((STEP_MIN..=STEP_MAX).contains(&step.unwrap()));
                assert!((STEP_PAUSE..=Duration::from_secs(1)).contains(&pause));
                assert_eq!(due.next(rate, now), (None, pause));
                let (step, _) = due.next(rate, now + Duration::from_secs(60));
                assert_eq!(step, Some(STEP_MAX), "late, and no more than that");
            }
        }
    }

    #[test]
    fn folding_waits_for_enough_and_catches_up_with_more() {
        assert_eq!(folding(0), None);
        assert_eq!(folding(FOLD_MIN - 1), None);
        assert_eq!(folding(FOLD_MIN), Some(FOLD_MIN as usize));
        assert_eq!(folding(64 << 20), Some(1 << 20));
        assert_eq!(folding(u64::MAX), Some(STEP_MAX));
    }
}
