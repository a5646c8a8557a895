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
/// And beside a flow so much more than half.
const FULL_RATE_BEYOND_HALF_AT: u64 = 8;
/// A flow is quiet that would take more than this many times as long to use what is prepared meanwhile.
const QUIET: u64 = 256;
/// However little is missing, a segment that was begun is finished at this part of the full rate.
const LEAST_RATE: u64 = 64;

/// Whether a log that grows by `rate` bytes a second is quiet enough to prepare space beside it, at no more than `rate_max`.
pub(crate) const fn is_quiet(rate: u64, rate_max: u64) -> bool {
    rate < rate_max / QUIET
}

/// Bytes a second at which space is prepared where `missing` of `wanted` bytes are, at most `rate_max`; `None` where the flow goes
/// first.
pub(crate) fn preparing(missing: u64, wanted: u64, rate_max: u64, is_quiet: bool) -> Option<f64> {
    let (missing, full_at) = if is_quiet {
        (missing, FULL_RATE_AT)
    } else {
        let beyond_half = missing.checked_sub(wanted / 2).filter(|&more| more > 0)?;
        (beyond_half, FULL_RATE_BEYOND_HALF_AT)
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

    fn rate(missing: u64, is_quiet: bool) -> f64 {
        preparing(missing, WANTED, RATE, is_quiet).unwrap_or(0.0)
    }

    #[test]
    fn preparing_speeds_up_with_what_is_missing() {
        let rates: Vec<f64> = [1 << 20, 16 << 20, 64 << 20, WANTED / 4, WANTED]
            .map(|missing| rate(missing, true))
            .to_vec();
        assert!(rates.is_sorted(), "{rates:?}");
        assert_eq!(rates[3..], [RATE as f64; 2]);
    }

    /// Goal: beside a flow the first half is used and nothing is prepared; at a quarter, where the alarm is, all is done that may be.
    #[test]
    fn a_flow_uses_half_of_the_reserve_first() {
        assert_eq!(preparing(0, WANTED, RATE, false), None);
        assert_eq!(preparing(WANTED / 2, WANTED, RATE, false), None);
        let rates: Vec<f64> = [WANTED / 2 + 1, 9 * WANTED / 16, 5 * WANTED / 8, WANTED]
            .map(|missing| rate(missing, false))
            .to_vec();
        assert!(rates.is_sorted() && rates[0] > 0.0, "{rates:?}");
        assert_eq!(rates[2..], [RATE as f64; 2]);
        assert!(is_quiet(0, RATE) && !is_quiet(RATE / 16, RATE));
    }

    /// Goal: what is prepared settles at what the flow takes, also where each write takes longer than its pause. Method: a flow of lone
    /// messages on a quick disk, and one of a quarter of a gigabyte on a slow one.
    #[test]
    fn preparing_settles_at_the_rate_of_the_flow() {
        for (flow, write) in [(40e6, 100), (200e6, 9_000)] {
            let begun = Instant::now();
            let write = Duration::from_micros(write);
            let mut time = Duration::ZERO;
            let mut missing = 0.0;
            let mut due = Due::default();
            while time < Duration::from_secs(60) {
                let rate = preparing(missing as u64, WANTED, RATE, false);
                let (step, pause) = match rate {
                    Some(rate) => due.next(rate, begun + time),
                    None => (None, STEP_PAUSE),
                };
                let step = step.unwrap_or(0);
                let took = if step > 0 { write.max(pause) } else { pause };
                missing = f64::max(0.0, missing + flow * took.as_secs_f64() - step as f64);
                time += took;
            }
            let half = WANTED as f64 / 2.0;
            assert!(
                missing > half && missing < 1.25 * half,
                "{flow}: {missing}: a quarter and more is left"
            );
        }
    }

    #[test]
    fn steps_of_preparing_stay_within_their_bounds() {
        let now = Instant::now();
        for rate_max in [1 << 20, RATE, 64 << 30] {
            for missing in [0, 1, STEP_MIN as u64, WANTED, u64::MAX] {
                let rate = preparing(missing, WANTED, rate_max, true).unwrap();
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
