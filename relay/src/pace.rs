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

use std::time::Duration;

/// Least bytes of one write or read: below it a disk's cost is that of the operation, not of the bytes.
pub(crate) const STEP_MIN: usize = 128 << 10;
/// Most bytes of one.
pub(crate) const STEP_MAX: usize = 4 << 20;
/// Steps follow each other no faster.
pub(crate) const STEP_PAUSE: Duration = Duration::from_millis(2);
/// Pause between two reads of a segment that is indexed again: nobody waits for that, so it is about 16 MB a second.
pub(crate) const INDEX_PAUSE: Duration = Duration::from_millis(8);
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

/// Bytes of the next write of zeroes, and the pause from its start to the next one's, where `missing` of `wanted` bytes
/// are to be prepared at no more than `rate_max` bytes a second; `None` where the flow goes first.
pub(crate) fn preparing(
    missing: u64,
    wanted: u64,
    rate_max: u64,
    is_quiet: bool,
) -> Option<(usize, Duration)> {
    let (missing, full_at) = if is_quiet {
        (missing, FULL_RATE_AT)
    } else {
        (
            missing.checked_sub(wanted / 2).filter(|&more| more > 0)?,
            FULL_RATE_BEYOND_HALF_AT,
        )
    };
    let share = full_at as f64 * missing as f64 / wanted.max(1) as f64;
    let least = (rate_max / LEAST_RATE).max(STEP_MIN as u64);
    let rate = (rate_max as f64 * share.min(1.0)).max(least as f64);
    let step = (rate * STEP_PAUSE.as_secs_f64()) as usize;
    let step = step.clamp(STEP_MIN, STEP_MAX).next_multiple_of(4096);
    Some((step, Duration::from_secs_f64(step as f64 / rate)))
}

/// Bytes of log to read and fold next where `backlog` bytes are released and not folded; `None` to wait for more.
pub(crate) fn folding(backlog: u64) -> Option<usize> {
    let step = backlog / FOLD_STEPS;
    let step = step.clamp(STEP_MIN as u64, STEP_MAX as u64) / 4096 * 4096;
    (backlog >= step).then_some(step as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: u64 = 1 << 30;
    const RATE: u64 = 256 << 20;

    fn rate(missing: u64, is_quiet: bool) -> f64 {
        preparing(missing, WANTED, RATE, is_quiet)
            .map_or(0.0, |(step, pause)| step as f64 / pause.as_secs_f64())
    }

    // A pause is whole nanoseconds.
    fn is_full(rate: f64) -> bool {
        (rate / RATE as f64 - 1.0).abs() < 1e-6
    }

    #[test]
    fn preparing_speeds_up_with_what_is_missing() {
        let rates: Vec<f64> = [1 << 20, 16 << 20, 64 << 20, WANTED / 4, WANTED]
            .map(|missing| rate(missing, true))
            .to_vec();
        assert!(rates.is_sorted(), "{rates:?}");
        assert!(is_full(rates[3]) && is_full(rates[4]), "{rates:?}");
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
        assert!(is_full(rates[2]) && is_full(rates[3]), "{rates:?}");
        assert!(is_quiet(0, RATE) && !is_quiet(RATE / 16, RATE));
    }

    #[test]
    fn preparing_settles_at_the_rate_of_the_flow() {
        // A lone message of 4 KiB, 10,000 times a second.
        let flow = 40e6;
        let mut missing = 0.0;
        let mut seconds = 0.0;
        while seconds < 60.0 {
            let next = preparing(missing as u64, WANTED, RATE, false);
            let (step, pause) = next.unwrap_or((0, STEP_PAUSE));
            assert!(step <= 256 << 10, "steps stay small: {step}");
            missing = f64::max(0.0, missing + flow * pause.as_secs_f64() - step as f64);
            seconds += pause.as_secs_f64();
        }
        assert!(
            missing < 9.0 / 16.0 * WANTED as f64,
            "{missing}: less than a quarter is not left, by far"
        );
    }

    #[test]
    fn steps_of_preparing_stay_within_their_bounds() {
        for rate_max in [1 << 20, RATE, 64 << 30] {
            for missing in [0, 1, STEP_MIN as u64, WANTED, u64::MAX] {
                let (step, pause) = preparing(missing, WANTED, rate_max, true).unwrap();
                assert!((STEP_MIN..=STEP_MAX).contains(&step));
                assert!(pause <= Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn folding_waits_for_enough_and_catches_up_with_more() {
        assert_eq!(folding(0), None);
        assert_eq!(folding(STEP_MIN as u64 - 1), None);
        assert_eq!(folding(STEP_MIN as u64), Some(STEP_MIN));
        assert_eq!(folding(64 << 20), Some(1 << 20));
        assert_eq!(folding(u64::MAX), Some(STEP_MAX));
    }
}
