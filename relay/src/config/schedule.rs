//! The schedule of a stream's trading sessions, as an operator writes it.

use serde::Deserialize;

use crate::schedule::Schedule;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleSection {
    time_zone: String,
    opens: String,
    #[serde(default = "working_days")]
    days: Vec<String>,
    #[serde(default)]
    holidays: Vec<String>,
}

fn working_days() -> Vec<String> {
    ["Mon", "Tue", "Wed", "Thu", "Fri"]
        .map(str::to_owned)
        .to_vec()
}

impl ScheduleSection {
    /// What is wrong with it otherwise.
    pub(super) fn schedule(&self) -> Result<Schedule, String> {
        Schedule::new(&self.time_zone, &self.opens, &self.days, &self.holidays)
    }
}
