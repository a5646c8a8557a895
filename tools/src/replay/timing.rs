//! Keeping a pace: when to sleep, when to spin, and how well the gaps were held.
//!
//! A deadline is met by sleeping most of the way and spinning the rest: a sleep ends late, by tens of microseconds mostly
//! and by a millisecond at times, and how late is learnt from each one. What is learnt is forgotten slowly, so that of a
//! thousand sleeps about one or two are later than what is left for spinning; the price is a busy core for up to one and a
//! half times that before each message. Everything here is arithmetic on times that are given; who calls has the clock.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::percentiles::{new_histogram, record};

/// The least left for spinning, ns: what the shortest sleep is late by.
const MARGIN_NS_MIN: u64 = 100_000;
/// The most, ns: a machine that wakes a sleeper later than that is too busy for any pace.
const MARGIN_NS_MAX: u64 = 4_000_000;
/// With each sleep one part in so many is forgotten: half of it after 710 sleeps.
const FORGETTING: u64 = 1_024;

/// What to do until a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It is there.
    Over,
    /// It is too near for a sleep.
    Spin,
    /// Sleep so long, then ask again.
    Sleep(Duration),
}

/// Decides between sleeping and spinning.
#[derive(Debug)]
pub(super) struct Deadline {
    margin_ns: u64,
}

impl Deadline {
    pub(super) const fn new() -> Self {
        Self {
            margin_ns: 2 * MARGIN_NS_MIN,
        }
    }

    /// What to do at `now_ns` until `due_ns`.
    pub(super) const fn wait(&self, now_ns: u64, due_ns: u64) -> Wait {
        let left_ns = due_ns.saturating_sub(now_ns);
        if left_ns == 0 {
            Wait::Over
        } else if left_ns <= self.margin_ns + self.margin_ns / 2 {
            // A sleep ends about a margin early; there is no second, tiny one.
            Wait::Spin
        } else {
            Wait::Sleep(Duration::from_nanos(left_ns - self.margin_ns))
        }
    }

    /// A sleep of `asked` took `took`: twice what it was late by is left for spinning, and forgotten slowly.
    pub(super) fn slept(&mut self, asked: Duration, took: Duration) {
        let late_ns = took.saturating_sub(asked).as_nanos() as u64;
        let forgotten_ns = self.margin_ns - self.margin_ns / FORGETTING;
        let margin_ns = forgotten_ns.max(late_ns.saturating_mul(2));
        self.margin_ns = margin_ns.clamp(MARGIN_NS_MIN, MARGIN_NS_MAX);
    }
}

/// How far each gap between two messages was from the gap it should have been.
#[derive(Debug)]
pub(super) struct Gaps {
    errors_ns: Histogram<u64>,
    last: Option<(u64, u64)>,
}

impl Gaps {
    pub(super) fn new() -> Self {
        Self {
            errors_ns: new_histogram(),
            last: None,
        }
    }

    /// A message that was due at `due_ns` went out at `at_ns`.
    pub(super) fn note(&mut self, due_ns: u64, at_ns: u64) {
        if let Some((due_before_ns, at_before_ns)) = self.last {
            let wanted_ns = due_ns.saturating_sub(due_before_ns);
            let held_ns = at_ns.saturating_sub(at_before_ns);
            record(&mut self.errors_ns, held_ns.abs_diff(wanted_ns));
        }
        self.last = Some((due_ns, at_ns));
    }

    /// The distribution, ns.
    pub(super) const fn errors_ns(&self) -> &Histogram<u64> {
        &self.errors_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that only moves when somebody waits, and sleepers that wake `late` too late.
    fn run_to(deadline: &mut Deadline, mut now_ns: u64, due_ns: u64, late_ns: u64) -> (u64, u32) {
        let mut sleeps = 0;
        loop {
            match deadline.wait(now_ns, due_ns) {
                Wait::Over => return (now_ns, sleeps),
                Wait::Spin => now_ns += 50,
                Wait::Sleep(asked) => {
                    sleeps += 1;
                    let took = asked + Duration::from_nanos(late_ns);
                    now_ns += took.as_nanos() as u64;
                    deadline.slept(asked, took);
                }
            }
        }
    }

    #[test]
    fn a_deadline_is_met_though_sleepers_wake_late() {
        let mut deadline = Deadline::new();
        for late_ns in [0, 60_000, 90_000, 120_000, 180_000] {
            let (at_ns, sleeps) = run_to(&mut deadline, 0, 10_000_000, late_ns);
            assert!(at_ns - 10_000_000 < 50, "{late_ns}: {at_ns}");
            assert_eq!(sleeps, 1);
        }
        assert_eq!(run_to(&mut deadline, 500, 500, 0), (500, 0));
        assert_eq!(
            run_to(&mut deadline, 501, 500, 0),
            (501, 0),
            "never waits for the past"
        );
    }

    #[test]
    fn a_sleeper_that_wakes_very_late_is_learnt_from_once() {
        let mut deadline = Deadline::new();
        let (at_ns, _) = run_to(&mut deadline, 0, 10_000_000, 1_000_000);
        assert!(at_ns > 10_000_050, "the first one is too late");
        let (at_ns, _) = run_to(&mut deadline, 0, 10_000_000, 1_000_000);
        assert!(at_ns < 10_000_050, "the second one is not");
    }

    /// The one percent of gaps that a p99 leaves out is not used up by sleepers that wake late now and then.
    #[test]
    fn rare_late_sleeps_cost_few_gaps() {
        let mut deadline = Deadline::new();
        let (mut now_ns, mut late) = (0, 0);
        for message in 1..=20_000_u64 {
            // One sleep in 200 ends 400 us late, the others 60 us.
            let late_ns = if message % 200 == 0 { 400_000 } else { 60_000 };
            let due_ns = message * 5_000_000;
            let (at_ns, _) = run_to(&mut deadline, now_ns, due_ns, late_ns);
            late += u64::from(at_ns > due_ns + 50_000);
            now_ns = at_ns;
        }
        assert!(late <= 2, "{late} of 20,000 were late");
    }

    #[test]
    fn the_margin_stays_within_its_bounds_and_shrinks_again() {
        let mut deadline = Deadline::new();
        let second = Duration::from_secs(1);
        deadline.slept(Duration::ZERO, 3 * second);
        assert_eq!(deadline.margin_ns, MARGIN_NS_MAX);
        for _ in 0..2 * FORGETTING {
            deadline.slept(second, second);
        }
        assert!(deadline.margin_ns > MARGIN_NS_MAX / 8, "not at once");
        for _ in 0..2 * FORGETTING {
            deadline.slept(second, second);
        }
        assert_eq!(deadline.margin_ns, MARGIN_NS_MIN);
    }

    #[test]
    fn a_gap_is_held_or_not_whatever_the_lateness() {
        let mut gaps = Gaps::new();
        // All late by the same: every gap is right. Then one 20 us too short and one 30 us too long.
        for (due, at) in [
            (0, 7_000),
            (1_000, 8_000),
            (100_000, 87_000),
            (100_000, 117_000),
        ] {
            gaps.note(due, at);
        }
        assert_eq!(gaps.errors_ns().len(), 3);
        assert!((29_900..30_100).contains(&gaps.errors_ns().max()));
        assert_eq!(gaps.errors_ns().min(), 1);
        assert_eq!(gaps.errors_ns().count_between(19_900, 20_100), 1);
    }
}
