//! `relay bench failover`: how long a subscriber gets nothing when a primary is lost, again and again.
//!
//! ```text
//!   flow runs -> the primary is struck -> the other leads, the flow is back    = the outage
//!             -> the struck node comes back and is in sync again -> the next run strikes the other one
//! ```
//!
//! The outage is the longest time between two messages at the subscriber from the strike until the flow is back, on one
//! process's monotonic clock; clients have their default settings. A kill ends every connection of the node at once; the
//! loss of a host does not, and is what `cut` is: every connection of the node goes silent, and nobody answers there
//! (`servers/gates.rs`). `freeze` stops the process, while its kernel still answers for it. At the end everything sent is
//! counted, and the journals are verified and compared.

use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::flow::{Counts, Flow, FlowLoad};
use super::series::unusual;
use super::trials::{Conditions, FlowOptions, Outcome, OwnOptions, Wanted};
use crate::exit::{Failure, Interrupt};
use crate::output::progress;
use crate::percentiles::{new_histogram, record};
use crate::servers::{Cluster, Policy, Size, WriteMethod, word};
use crate::verify::Judgement;

/// Messages that have to flow before a node is struck, a tenth of a second's at least.
const STEADY_MESSAGES: u64 = 50;
/// Journal prepared for a run: a lone message takes a block of 4 KiB.
const PREPARED: Size = Size(256 << 20);
/// Longest time without a message that the flow may have, where an outage is seen by the messages that miss.
const GAP_S_MAX: f64 = 0.1;
/// Messages a second unless said otherwise; outages at another rate are named after it.
const RATE_USUAL: f64 = 1000.0;
/// Seconds behind an outage that belong to it unless said otherwise.
const AFTER_S: f64 = 1.0;
/// Bounds of the histogram's rows, ms.
const BOUNDS_MS: [u64; 12] = [10, 20, 30, 50, 75, 100, 150, 200, 250, 300, 500, 1_000];
/// Widest bar of the histogram.
const BAR_MAX: u64 = 40;

const EXAMPLES: &str = "\
Examples:
  relay bench failover --runs 20
  relay bench failover --runs 50 --how cut --json
  relay bench failover --runs 10 --how freeze --nodes 3 --policy mirrored
  relay bench failover --runs 20 --rate 500,1000,10000 --report page.html
  relay bench failover --runs 20 --pacing poisson --hlog flow.hlog

--hgrm is the distribution of the outages. An outage cannot be told from a pause of the flow that is as long: results say how
long those are (flow_gap_ms_max).";

/// How a primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// SIGKILL: its connections end at once.
    Kill,
    /// SIGSTOP: nothing comes from it any more; later SIGCONT.
    Freeze,
    /// Its packets vanish, and nobody answers there; later they pass again.
    Cut,
}

/// Options of `relay bench failover`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FailoverOptions {
    /// Primaries lost
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: u64,
    /// How they are lost
    #[arg(long, value_enum, default_value_t = How::Kill)]
    how: How,
    /// Nodes of the group
    #[arg(long, value_name = "2|3", default_value_t = 2)]
    nodes: u64,
    /// Seconds of flow after it is back in which another silence counts as the outage too
    #[arg(long, value_name = "SECONDS", default_value_t = AFTER_S)]
    after: f64,
    #[command(flatten)]
    flow: FlowOptions,
    #[command(flatten)]
    own: OwnOptions,
}

/// One result.
#[derive(Debug, Serialize)]
struct Report {
    /// As the latency of the same nodes is named, so that they stand together on a page.
    name: String,
    what: &'static str,
    how: String,
    runs: u64,
    /// Seconds of flow behind it that belong to an outage.
    after: f64,
    outage_ms_min: f64,
    outage_ms_p50: f64,
    outage_ms_p99: f64,
    outage_ms_max: f64,
    /// Each run's.
    outages_ms: Vec<f64>,
    /// Each run's time until another node led, looked at every 2 ms once the strike is done.
    led_after_ms: Vec<f64>,
    /// Changes of the primary that no strike explains.
    unasked_takeovers: u64,
    /// Strikes at a primary that had just dropped another node, so that nobody could take over.
    strikes_repeated: u64,
    #[serde(flatten)]
    conditions: Conditions,
}

/// Runs the command.
pub(super) fn run(options: &FailoverOptions) -> Result<(), Failure> {
    let (policy, loads) = options.check()?;
    let interrupt = Interrupt::install()?;
    options.own.collect(loads.len(), |results| {
        for load in &loads {
            let load = options.flow.next(load, results);
            let found = options.measure(policy, &load, &interrupt)?;
            results.write_hgrm(&histogram(&found.outages))?;
            results.note(Report::new(options, policy, &load, found))?;
        }
        Ok(())
    })
}

impl FailoverOptions {
    fn check(&self) -> Result<(Policy, Vec<FlowLoad>), Failure> {
        if !(1..=100_000).contains(&self.runs) {
            let text = format!("--runs takes 1 to 100,000, not {}", self.runs);
            return Err(Failure::Usage(text));
        }
        if self.nodes == 1 {
            let text = "one node has nobody to take over; give --nodes 2 or 3";
            return Err(Failure::Usage(text.into()));
        }
        if !(0.0..=60.0).contains(&self.after) {
            let text = format!("--after takes 0 to 60 seconds, not {}", self.after);
            return Err(Failure::Usage(text));
        }
        let (policy, shape) = self.flow.check(self.nodes, GAP_S_MAX)?;
        Ok((policy, self.flow.loads(&shape)))
    }

    /// Loses as many primaries as are asked for.
    fn measure(
        &self,
        policy: Policy,
        load: &FlowLoad,
        interrupt: &Interrupt,
    ) -> Result<Found, Failure> {
        let (_directory, mut cluster) = self.own.prepare(&Wanted {
            nodes: self.nodes,
            policy,
            write_method: self.own.write_method.unwrap_or(WriteMethod::Auto),
            prepared: PREPARED,
            publishers: 1,
            is_separable: self.how == How::Cut,
        })?;
        cluster.start(interrupt)?;
        let flow = Flow::start(&cluster, load.clone())?;
        let mut trial = Trial {
            how: self.how,
            steady: STEADY_MESSAGES.max((load.rate / 10.0) as u64),
            after: Duration::from_secs_f64(self.after),
            cluster,
            flow,
            interrupt,
            leader: None,
            outages: Vec::new(),
            unasked_takeovers: 0,
            strikes_repeated: 0,
        };
        let bar = progress(self.runs, "losing primaries");
        for run in 0..self.runs {
            bar.set_position(run);
            trial.lose_one()?;
        }
        bar.finish_and_clear();
        trial.finish()
    }

    /// The name of a result: what is no repeat of a usual one has another.
    fn name(&self, policy: Policy, load: &FlowLoad) -> String {
        let mut name = format!("relay {}", word(&policy));
        name += &unusual(&[(self.nodes, 2, "nodes")]);
        if self.how != How::Kill {
            name += &format!(", {}", word(&self.how));
        }
        if load.rate != RATE_USUAL {
            name += &format!(", {} msg/s", load.rate);
        }
        if self.after != AFTER_S {
            name += &format!(", {} s after", self.after);
        }
        name + &self.own.label() + &self.flow.label(load.size)
    }
}

/// The group, its flow, and what was seen so far.
struct Trial<'a> {
    how: How,
    /// Messages that show a steady flow.
    steady: u64,
    /// Flow after an outage that belongs to it.
    after: Duration,
    cluster: Cluster,
    flow: Flow,
    interrupt: &'a Interrupt,
    /// Who leads since the last strike.
    leader: Option<usize>,
    outages: Vec<Outage>,
    unasked_takeovers: u64,
    strikes_repeated: u64,
}

/// What the loss of one primary cost.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// Longest time between two messages at the subscriber.
    silence: Duration,
    /// From the strike until another node led.
    led_after: Duration,
}

/// What a trial found.
struct Found {
    counts: Counts,
    outages: Vec<Outage>,
    unasked_takeovers: u64,
    strikes_repeated: u64,
    journals: Judgement,
}

impl Trial<'_> {
    /// Loses the primary, waits for the flow, and brings the lost node back into the set.
    ///
    /// Where the primary had dropped another node by the moment it was struck, nobody may lead, and no outage is measured: it is
    /// brought back, and struck again.
    fn lose_one(&mut self) -> Result<(), Failure> {
        loop {
            self.flow.await_more(self.steady, self.interrupt)?;
            let (victim, epoch) = self.cluster.await_leader(0, self.interrupt)?;
            if self.leader.is_some_and(|leader| leader != victim) {
                self.unasked_takeovers += 1;
            }
            self.flow.take_gap();
            let struck = Instant::now();
            self.strike(victim)?;
            let successor = self
                .cluster
                .await_successor(victim, epoch, self.interrupt)?;
            if let Some(leader) = successor {
                let led_after = struck.elapsed();
                self.flow.await_due(self.after, self.interrupt)?;
                self.outages.push(Outage {
                    silence: self.flow.take_gap(),
                    led_after,
                });
                self.leader = Some(leader);
                self.bring_back(victim)?;
                return self.cluster.await_in_sync(self.interrupt);
            }
            self.strikes_repeated += 1;
            self.bring_back(victim)?;
            self.cluster.await_in_sync(self.interrupt)?;
            self.leader = None;
        }
    }

    fn strike(&mut self, victim: usize) -> Result<(), Failure> {
        match self.how {
            How::Kill => self.cluster.kill(victim),
            How::Freeze => self.cluster.freeze(victim)?,
            How::Cut => self.cluster.cut(victim),
        }
        Ok(())
    }

    fn bring_back(&mut self, victim: usize) -> Result<(), Failure> {
        match self.how {
            How::Kill => self.cluster.start_node(victim),
            How::Freeze => self.cluster.thaw(victim),
            How::Cut => {
                self.cluster.heal(victim);
                Ok(())
            }
        }
    }

    fn finish(mut self) -> Result<Found, Failure> {
        let counts = self.flow.finish()?;
        let journals = self.cluster.stop_and_judge(self.interrupt)?;
        Ok(Found {
            counts,
            outages: self.outages,
            unasked_takeovers: self.unasked_takeovers,
            strikes_repeated: self.strikes_repeated,
            journals,
        })
    }
}

impl Report {
    fn new(options: &FailoverOptions, policy: Policy, load: &FlowLoad, found: Found) -> Self {
        let outages_ms: Vec<_> = found.outages.iter().map(|run| ms(run.silence)).collect();
        let led_after_ms = found.outages.iter().map(|run| ms(run.led_after)).collect();
        Self {
            name: options.name(policy, load),
            what: "failover",
            how: word(&options.how),
            runs: options.runs,
            after: options.after,
            outage_ms_min: quantile(&outages_ms, 0.0),
            outage_ms_p50: quantile(&outages_ms, 0.5),
            outage_ms_p99: quantile(&outages_ms, 0.99),
            outage_ms_max: quantile(&outages_ms, 1.0),
            outages_ms,
            led_after_ms,
            unasked_takeovers: found.unasked_takeovers,
            strikes_repeated: found.strikes_repeated,
            conditions: Conditions::new(
                &options.own,
                &options.flow,
                load,
                (options.nodes, policy),
                (found.counts, found.journals),
            ),
        }
    }
}

impl Outcome for Report {
    fn text(&self) -> Vec<String> {
        let head = format!("{} primaries lost by {} at", self.runs, self.how);
        let mut lines = Vec::from(self.conditions.head(&head));
        lines.extend(rows(&self.outages_ms));
        lines.push(format!(
            "time without delivery: median (least..most) {:.1} ({:.1}..{:.1}) ms, p99 {:.1} ms",
            self.outage_ms_p50, self.outage_ms_min, self.outage_ms_max, self.outage_ms_p99
        ));
        if let Some((run, silence_ms)) = slowest(&self.outages_ms) {
            lines.push(format!(
                "the slowest was run {}: another node led after {:.1} ms, messages came after {silence_ms:.1} ms",
                run + 1,
                self.led_after_ms[run],
            ));
        }
        lines.push(format!(
            "takeovers nobody asked for {}, struck again {}; {}",
            self.unasked_takeovers,
            self.strikes_repeated,
            self.conditions.tail()
        ));
        lines
    }

    fn check(&self) -> Result<(), Failure> {
        self.conditions.check()
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 1e2
}

/// The smallest value that so large a part of all does not exceed.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() as f64 * part).ceil() as usize).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// The run with the longest outage, from 0, and how long that was.
fn slowest(outages_ms: &[f64]) -> Option<(usize, f64)> {
    let runs = outages_ms.iter().copied().enumerate();
    runs.max_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn histogram(outages: &[Outage]) -> Histogram<u64> {
    let mut histogram = new_histogram();
    for outage in outages {
        record(&mut histogram, outage.silence.as_nanos() as u64);
    }
    histogram
}

/// The histogram's rows, the empty ones at both ends left out.
fn rows(outages_ms: &[f64]) -> Vec<String> {
    let mut counts = [0u64; BOUNDS_MS.len() + 1];
    for &outage_ms in outages_ms {
        counts[BOUNDS_MS.partition_point(|&bound| outage_ms > bound as f64)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
    (first..=last)
        .map(|row| {
            let bound = match BOUNDS_MS.get(row) {
                Some(bound) => format!("up to {bound} ms"),
                None => "more".to_owned(),
            };
            let count = counts[row];
            let bar = "#".repeat((count * BAR_MAX).div_ceil(most) as usize);
            format!("{bound:>14} {count:>6} {bar}")
                .trim_end()
                .to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<_> = (1..=50).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 25.0);
        assert_eq!(quantile(&values, 0.99), 50.0);
        assert_eq!(quantile(&values, 1.0), 50.0);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn rows_cover_what_was_seen() {
        let rows = rows(&[45.0, 50.0, 51.0, 5_000.0]);
        assert_eq!(rows[0].split_whitespace().nth(4), Some("2"), "{rows:?}");
        assert!(rows[0].starts_with("   up to 50 ms"), "{rows:?}");
        assert!(rows.last().is_some_and(|row| row.contains("more      1")));
    }
}
