//! How long the journal's space lasts, and when that is worth an alarm. Pure: what it looks at are its arguments.
//!
//! Space is what is prepared and what can still be prepared, because preparing goes on by itself while the disk has room. The
//! rate it is used up at follows a rise within minutes and a fall within hours, so a quiet spell does not clear an alarm
//! that the next trading session raises again; what clears it is room. Besides, whenever little of what the configuration
//! keeps prepared is left, that is an alarm for a day: preparing is failing, or slower than the flow.
//!
//! Where several streams lie on one disk each counts all of its free room.

use std::time::Duration;

/// How long the space lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpaceAlarm {
    /// Longer than a day.
    None,
    /// Less than a day at the present rate, or little of it is prepared.
    Day,
    /// Less than an hour at the present rate.
    Hour,
    /// Not even for one more block: publishers are held.
    Gone,
}

impl SpaceAlarm {
    /// Its number among the exported counters.
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Day => 1,
            Self::Hour => 2,
            Self::Gone => 3,
        }
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpaceFacts {
    /// Bytes released since the facts before.
    pub(crate) used: u64,
    /// How long ago those were.
    pub(crate) elapsed: Duration,
    /// Bytes prepared beyond what is released.
    pub(crate) prepared: u64,
    /// Bytes that can be prepared besides; none while preparing fails.
    pub(crate) preparable: u64,
}

/// What is to be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpaceWanted {
    /// Bytes the configuration keeps prepared.
    pub(crate) prepared: u64,
    /// Most bytes of one block.
    pub(crate) block: u64,
}

/// The time in which the rate follows a rise for the most part, and a fall.
const RISE_SECONDS: f64 = 60.0;
const FALL_SECONDS: f64 = 3_600.0;
const DAY_SECONDS: f64 = 86_400.0;
const HOUR_SECONDS: f64 = 3_600.0;
/// An alarm is cleared when there is so much more than what raises it.
const EASE: f64 = 1.25;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct SpaceWatch {
    wanted: SpaceWanted,
    bytes_per_second: f64,
    alarm: SpaceAlarm,
}

impl SpaceWatch {
    pub(crate) const fn new(wanted: SpaceWanted) -> Self {
        Self {
            wanted,
            bytes_per_second: 0.0,
            alarm: SpaceAlarm::None,
        }
    }

    /// The alarm in force.
    pub(crate) const fn alarm(&self) -> SpaceAlarm {
        self.alarm
    }

    /// Takes the facts in; how many seconds the space lasts, `u64::MAX` for ever.
    pub(crate) fn look(&mut self, facts: SpaceFacts) -> u64 {
        self.follow(facts);
        let room = facts.prepared.saturating_add(facts.preparable);
        let seconds = if self.bytes_per_second < 1.0 {
            f64::INFINITY
        } else {
            room as f64 / self.bytes_per_second
        };
        let raised = self.alarm_at(seconds, facts, 1.0);
        let cleared = self.alarm_at(seconds, facts, EASE);
        self.alarm = raised.max(self.alarm.min(cleared));
        seconds as u64
    }

    fn follow(&mut self, facts: SpaceFacts) {
        let elapsed = facts.elapsed.as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        let now = facts.used as f64 / elapsed;
        let slowness = if now > self.bytes_per_second {
            RISE_SECONDS
        } else {
            FALL_SECONDS
        };
        let share = 1.0 - (-elapsed / slowness).exp();
        self.bytes_per_second += share * (now - self.bytes_per_second);
    }

    /// The alarm for `facts` where every limit is `ease` times as wide.
    fn alarm_at(&self, seconds: f64, facts: SpaceFacts, ease: f64) -> SpaceAlarm {
        let wide = |limit: u64| (limit as f64 * ease) as u64;
        let room = facts.prepared.saturating_add(facts.preparable);
        if room < wide(self.wanted.block) {
            SpaceAlarm::Gone
        } else if seconds < HOUR_SECONDS * ease {
            SpaceAlarm::Hour
        } else if seconds < DAY_SECONDS * ease || facts.prepared < wide(self.wanted.prepared / 4) {
            SpaceAlarm::Day
        } else {
            SpaceAlarm::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const WANTED: SpaceWanted = SpaceWanted {
        prepared: GIB,
        block: 1 << 18,
    };

    fn facts(used: u64, prepared: u64, preparable: u64) -> SpaceFacts {
        SpaceFacts {
            used,
            elapsed: Duration::from_secs(1),
            prepared,
            preparable,
        }
    }

    /// A watch after ten minutes of `rate` bytes a second with endless room.
    fn steady(rate: u64) -> SpaceWatch {
        let mut watch = SpaceWatch::new(WANTED);
        for _ in 0..600 {
            watch.look(facts(rate, GIB, u64::MAX / 2));
        }
        watch
    }

    /// Goal: each level is where it is said to be, and free room counts like prepared space. Method: one mebibyte a second
    /// and room for a little more and a little less than each limit.
    #[test]
    fn levels_count_what_is_prepared_and_what_can_be() {
        let rate: u64 = 1 << 20;
        for (seconds, expected) in [
            (87_000, SpaceAlarm::None),
            (86_000, SpaceAlarm::Day),
            (3_700, SpaceAlarm::Day),
            (3_500, SpaceAlarm::Hour),
            (1, SpaceAlarm::Hour),
        ] {
            let mut watch = steady(rate);
            let room = seconds * rate;
            let prepared = room.min(GIB);
            let left = watch.look(facts(rate, prepared, room - prepared));
            assert_eq!(watch.alarm(), expected, "{seconds}");
            assert!(left.abs_diff(seconds) <= 1 + seconds / 1000, "{left}");
        }
        let mut watch = steady(rate);
        watch.look(facts(0, WANTED.block - 1, 0));
        assert_eq!(watch.alarm(), SpaceAlarm::Gone);
    }

    /// Goal: without flow there is time for ever, but little prepared space is an alarm all the same.
    #[test]
    fn little_prepared_space_is_an_alarm_at_any_rate() {
        let mut watch = SpaceWatch::new(WANTED);
        assert_eq!(watch.look(facts(0, GIB, 0)), u64::MAX);
        assert_eq!(watch.alarm(), SpaceAlarm::None);
        watch.look(facts(0, GIB / 4 - 1, 100 * GIB));
        assert_eq!(watch.alarm(), SpaceAlarm::Day);
        watch.look(facts(0, GIB / 4, 100 * GIB));
        assert_eq!(
            watch.alarm(),
            SpaceAlarm::Day,
            "a little more clears nothing"
        );
        watch.look(facts(0, GIB / 3, 100 * GIB));
        assert_eq!(watch.alarm(), SpaceAlarm::None);
    }

    /// Goal: neither a quiet second nor a quiet quarter of an hour clears an alarm; a burst of a few seconds raises none that
    /// its minute does not earn.
    #[test]
    fn the_rate_is_smoothed() {
        let rate: u64 = 1 << 20;
        let mut watch = steady(rate);
        let room = 3_500 * rate;
        watch.look(facts(rate, GIB, room - GIB));
        for _ in 0..900 {
            watch.look(facts(0, GIB, room - GIB));
            assert!(watch.alarm() >= SpaceAlarm::Day);
        }
        watch.look(facts(0, GIB, 1000 * GIB));
        assert_eq!(watch.alarm(), SpaceAlarm::None, "room clears it");

        let mut watch = SpaceWatch::new(WANTED);
        for _ in 0..3 {
            watch.look(facts(rate, GIB, room - GIB));
        }
        assert_eq!(watch.alarm(), SpaceAlarm::Day, "a twentieth of the rate");
    }

    /// Goal: an alarm does not flicker at its limit. Method: room that goes up and down by one percent around an hour.
    #[test]
    fn an_alarm_does_not_flicker() {
        let rate: u64 = 1 << 20;
        let mut watch = steady(rate);
        let mut changes = 0;
        let mut last = watch.alarm();
        for step in 0..100 {
            let seconds = if step % 2 == 0 { 3_564 } else { 3_636 };
            watch.look(facts(rate, GIB, seconds * rate - GIB));
            changes += u32::from(watch.alarm() != last);
            last = watch.alarm();
        }
        assert_eq!((changes, last), (1, SpaceAlarm::Hour));
        watch.look(facts(rate, GIB, 4_600 * rate - GIB));
        assert_eq!(watch.alarm(), SpaceAlarm::Day);
    }

    /// Goal: what can't be is still answered. Method: no time gone, and room near the end of numbers.
    #[test]
    fn odd_facts_are_taken() {
        let mut watch = SpaceWatch::new(WANTED);
        let mut odd = facts(GIB, u64::MAX, u64::MAX);
        odd.elapsed = Duration::ZERO;
        assert_eq!(watch.look(odd), u64::MAX);
        assert_eq!(watch.alarm(), SpaceAlarm::None);
    }
}
