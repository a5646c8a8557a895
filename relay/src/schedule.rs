//! When trading sessions open: days, a time of day and a time zone become a session's number and name.
//!
//! A session is named after the day it opens on, in the schedule's own time zone: number 20261130, name "2026-11-30". It lasts until the
//! next one opens, so that nothing is ever sent outside a session; on days without trading the one before goes on.
//!
//! Pure but for the table of time zones. Who asks, and what the node makes of it: [`run`].

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use relay_core::command::SessionName;

use crate::admin::{Admin, Word};

/// The schedule is looked at so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A year without a trading day has no session.
const DAYS_BACK_MAX: i32 = 366;

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    zone: TimeZone,
    opens: Time,
    days: Vec<Weekday>,
    holidays: BTreeSet<Date>,
}

/// A trading session that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Year, month and day as one decimal number.
    pub(crate) number: u64,
    pub(crate) name: SessionName,
}

impl Schedule {
    /// A schedule from what an operator wrote; what is wrong with it otherwise.
    pub(crate) fn new(
        zone: &str,
        opens: &str,
        days: &[String],
        holidays: &[String],
    ) -> Result<Self, String> {
        let zone = TimeZone::get(zone).map_err(|_| {
            format!("\"{zone}\" is no time zone: write its name, for example \"Europe/Berlin\"")
        })?;
        let opens = Time::strptime("%H:%M", opens).map_err(|_| {
            format!("\"{opens}\" is no time of day: write hours and minutes, for example \"07:30\"")
        })?;
        if days.is_empty() {
            return Err("a schedule has one trading day a week at least".to_owned());
        }
        Ok(Self {
            zone,
            opens,
            days: days
                .iter()
                .map(|day| weekday(day))
                .collect::<Result<_, _>>()?,
            holidays: holidays
                .iter()
                .map(|day| {
                    day.parse()
                        .map_err(|_| format!("\"{day}\" is no date: write it as \"2026-12-25\""))
                })
                .collect::<Result<_, _>>()?,
        })
    }

    /// The session that is open at `now`; none where no trading day came in the year before.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Due> {
        let mut date = now.to_zoned_datetime(self.zone.clone()).date();
        for _ in 0..DAYS_BACK_MAX {
            // Where the clocks are put forward over the opening, it is right after; where it comes twice, the first.
            let opening = date
                .to_datetime(self.opens)
                .to_zoned_datetime(self.zone.clone())
                .ok()?;
            if self.is_trading_day(date) && opening.timestamp() <= now {
                return Some(Due::on(date));
            }
            date = date.checked_sub(1.day()).ok()?;
        }
        None
    }

    fn is_trading_day(&self, date: Date) -> bool {
        self.days.contains(&date.weekday()) && !self.holidays.contains(&date)
    }
}

impl Due {
    fn on(date: Date) -> Self {
        let (year, month, day) = (date.year(), date.month(), date.day());
        Self {
            number: year.unsigned_abs() as u64 * 10_000 + month as u64 * 100 + day as u64,
            name: SessionName::new(&date.to_string()).expect("a date is short"),
        }
    }
}

fn weekday(name: &str) -> Result<Weekday, String> {
    Ok(match name {
        "Mon" => Weekday::Monday,
        "Tue" => Weekday::Tuesday,
        "Wed" => Weekday::Wednesday,
        "Thu" => Weekday::Thursday,
        "Fri" => Weekday::Friday,
        "Sat" => Weekday::Saturday,
        "Sun" => Weekday::Sunday,
        _ => {
            return Err(format!(
                "\"{name}\" is no day: Mon, Tue, Wed, Thu, Fri, Sat and Sun are"
            ));
        }
    })
}

/// Tells the node of every session that is due, for as long as the process lives. It is the node that decides: only a primary opens one,
/// and only one that comes after the session it is in; so every node of a group asks, and it does not matter who leads when the time
/// comes.
pub(crate) fn run(schedule: &Schedule, admin: &Admin) -> ! {
    loop {
        if let Some(due) = schedule.due(Timestamp::now()) {
            // Refused by a node that does not lead, and by one that is in this session already.
            let _ = admin.say(Word::RollSession {
                number: due.number,
                name: due.name,
            });
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKING_DAYS: [&str; 5] = ["Mon", "Tue", "Wed", "Thu", "Fri"];

    fn schedule(zone: &str, opens: &str, holidays: &[&str]) -> Result<Schedule, String> {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        Schedule::new(zone, opens, &owned(&WORKING_DAYS), &owned(holidays))
    }

    fn number_at(schedule: &Schedule, now: &str) -> u64 {
        schedule.due(now.parse().unwrap()).unwrap().number
    }

    /// Goal: the session of every moment, over a weekend, a holiday, and both changes of the clocks. The times are UTC.
    #[test]
    fn the_session_of_a_moment() {
        let berlin = schedule("Europe/Berlin", "07:30", &["2026-12-25"]).unwrap();
        for (now, number) in [
            ("2026-11-27T06:29:59Z", 20_261_126),
            ("2026-11-27T06:30:00Z", 20_261_127),
            ("2026-11-28T12:00:00Z", 20_261_127),
            ("2026-11-30T06:29:59Z", 20_261_127),
            ("2026-11-30T06:30:00Z", 20_261_130),
            ("2026-12-25T12:00:00Z", 20_261_224),
            ("2026-12-28T06:30:00Z", 20_261_228),
            // Summer time.
            ("2026-07-01T05:29:59Z", 20_260_630),
            ("2026-07-01T05:30:00Z", 20_260_701),
        ] {
            assert_eq!(number_at(&berlin, now), number, "{now}");
        }
        let due = berlin.due("2026-11-30T06:30:00Z".parse().unwrap()).unwrap();
        assert_eq!(due.name.as_str(), "2026-11-30");
    }

    /// Goal: an opening the clocks jump over comes right after the jump. On 2026-03-08 there is no 02:30 in New York.
    #[test]
    fn an_opening_that_is_jumped_over_comes_right_after() {
        let days = ["Sun".to_owned()];
        let schedule = Schedule::new("America/New_York", "02:30", &days, &[]).unwrap();
        assert_eq!(number_at(&schedule, "2026-03-08T07:29:59Z"), 20_260_301);
        assert_eq!(number_at(&schedule, "2026-03-08T07:30:00Z"), 20_260_308);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (zone, opens, holidays, part) in [
            ("Europe/Nowhere", "07:30", vec![], "no time zone"),
            ("Europe/Berlin", "25:00", vec![], "no time of day"),
            ("Europe/Berlin", "7h", vec![], "no time of day"),
            ("Europe/Berlin", "07:30", vec!["25.12.2026"], "no date"),
        ] {
            let error = schedule(zone, opens, &holidays).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = Schedule::new("UTC", "07:30", &["Monday".to_owned()], &[]).unwrap_err();
        assert!(error.contains("no day"), "{error}");
        assert!(Schedule::new("UTC", "07:30", &[], &[]).is_err());
        let never = Schedule {
            days: Vec::new(),
            ..schedule("UTC", "07:30", &[]).unwrap()
        };
        assert_eq!(never.due("2026-11-30T06:30:00Z".parse().unwrap()), None);
    }
}
