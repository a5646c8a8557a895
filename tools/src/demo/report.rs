//! What the demonstration found, and whether it all held.

use serde::Serialize;

use crate::exit::Failure;
use crate::output::{json_line, line, thousands};
use crate::percentiles::Percentiles;
use crate::verify::Judgement;

/// The last line of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) messages: u64,
    pub(super) source: String,
    pub(super) seconds: f64,
    pub(super) received_live: u64,
    pub(super) received_replayed: u64,
    pub(super) reordered: u64,
    #[serde(flatten)]
    pub(super) latency: Option<Percentiles>,
    pub(super) compared_by: String,
    pub(super) journals: Judgement,
    pub(super) nodes: usize,
    /// Time without delivery after each kill.
    pub(super) outages_ms: Vec<f64>,
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    /// Of the subscriber that received fewest.
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) altered: u64,
    /// The longest.
    pub(super) outage_ms: f64,
    pub(super) verified: bool,
}

impl Report {
    /// Prints it.
    pub(super) fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line("")?;
        for (what, number) in [
            ("published", self.published),
            ("acknowledged", self.acknowledged),
            ("received by the live subscriber", self.received_live),
            (
                "received by the one that joined later",
                self.received_replayed,
            ),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("altered", self.altered),
        ] {
            line(&format!("{what:<40} {:>10}", thousands(number)))?;
        }
        for (number, outage_ms) in (1..).zip(&self.outages_ms) {
            let what = format!("time without delivery, kill {number}");
            line(&format!("{what:<40} {outage_ms:>10.0} ms"))?;
        }
        line(&format!(
            "{:<40} {:>10}",
            "hashes compared by", self.compared_by
        ))?;
        for (number, journal) in (1..).zip(&self.journals.journals) {
            let what = format!("journal of node {number}");
            line(&format!(
                "{what:<40} {:>10}: {} messages in {} blocks",
                if journal.verified {
                    "verified"
                } else {
                    "NOT RIGHT"
                },
                thousands(journal.messages),
                thousands(journal.blocks)
            ))?;
        }
        if self.nodes > 1 {
            line(&format!(
                "{:<40} {:>10}: {} bytes of log",
                "journals compared with each other",
                if self.journals.difference.is_none() {
                    "identical"
                } else {
                    "DIFFERENT"
                },
                thousands(self.journals.identical_bytes)
            ))?;
        }
        let Some(latency) = &self.latency else {
            return Ok(());
        };
        line("")?;
        line(Percentiles::HEAD)?;
        line(&latency.row("publish to subscriber us"))?;
        line("(counted from when each message was due, so it contains the kills)")
    }

    /// Whether it all held.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let faults = self.lost + self.duplicated + self.reordered + self.altered;
        let is_complete = self.published == self.messages
            && self.acknowledged == self.published
            && self.received == self.published;
        if faults == 0 && is_complete && self.verified {
            return Ok(());
        }
        let damage = self.journals.fault().unwrap_or_default();
        Err(Failure::Damaged(format!(
            "the promise was broken, see above; run again with --keep DIR and keep that directory {damage}"
        )))
    }
}
