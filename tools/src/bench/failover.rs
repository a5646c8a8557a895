//! `relay bench failover`: how long a subscriber gets nothing when a primary is lost, again and again.
//!
//! ```text
//!   flow runs -> the primary is struck -> the other leads, the flow is back    = the outage
//!             -> the struck node comes back and is in sync again -> the next run strikes the other one
//! ```
//!
//! The outage is the longest time between two messages at the subscriber from the strike until the flow is back, on one
//! process's monotonic clock; clients have their default settings. A kill resets every connection of the node at once; the
//! loss of a host does not, and is what `cut` is: every connection of the node goes silent, and nobody answers there
//! (`servers/gates.rs`). `freeze` stops the process, while its kernel still answers for it. At the end everything sent is
//! counted, and the journals are verified and compared.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::flow::{Counts, Flow};
use super::{MachineReport, check_journals, check_load, check_policy, journals_text, scratch};
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, thousands};
use crate::percentiles::{new_histogram, record, write_hgrm};
use crate::servers::{
    Background, Cluster, ClusterSettings, Idle, Mode, NodeSettings, Policy, Size, WriteMethod,
    find_relayd, word,
};
use crate::verify::Judgement;

/// Messages that have to flow before a node is struck, and after the other leads, a tenth of a second's at least.
const STEADY_MESSAGES: u64 = 50;
/// Journal prepared for a run: a lone message takes a block of 4 KiB.
const PREPARED: Size = Size(256 << 20);
/// Bounds of the histogram's rows, ms.
const BOUNDS_MS: [u64; 12] = [10, 20, 30, 50, 75, 100, 150, 200, 250, 300, 500, 1_000];
/// Widest bar of the histogram.
const BAR_MAX: u64 = 40;

const EXAMPLES: &str = "\
Examples:
  relay bench failover --runs 20
  relay bench failover --runs 50 --how cut --json
  relay bench failover --runs 10 --how freeze --nodes 3 --policy mirrored";

/// How a primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// SIGKILL: its connections are reset at once.
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
    /// Messages per second
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    rate: f64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    size: usize,
    /// Nodes of the group
    #[arg(long, value_name = "2|3", default_value_t = 2)]
    nodes: u64,
    /// What a message waits for [default: durable]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// What relayd's threads do when idle
    #[arg(long, value_enum, default_value_t = Idle::Park)]
    idle: Idle,
    /// How relayd spreads its agents over threads
    #[arg(long, value_enum, default_value_t = Mode::Shared)]
    mode: Mode,
    /// How writes are made durable
    #[arg(long, value_enum, default_value_t = WriteMethod::Auto)]
    write_method: WriteMethod,
    /// Directory in which the journals are made and removed again
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Write the outages' distribution in HdrHistogram's percentile format
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// As the latency of the same nodes is named, so that they stand together on a page.
    name: String,
    how: String,
    runs: u64,
    outage_ms_p50: f64,
    outage_ms_p99: f64,
    outage_ms_max: f64,
    sent: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    disordered: u64,
    /// Each run's.
    outages_ms: Vec<f64>,
    /// Each run's time until another node led, looked at every 2 ms once the strike is done.
    led_after_ms: Vec<f64>,
    /// Changes of the primary that no strike explains.
    unasked_takeovers: u64,
    /// Strikes at a primary that had just dropped another node, so that nobody could take over.
    strikes_repeated: u64,
    verified: bool,
    identical_bytes: u64,
    rate: f64,
    size: usize,
    nodes: u64,
    policy: String,
    mode: String,
    idle: String,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &FailoverOptions) -> Result<(), Failure> {
    let policy = options.check()?;
    let relayd = find_relayd(options.relayd.as_deref())?;
    let directory = scratch(options.dir.as_deref())?;
    let interrupt = Interrupt::install()?;
    let nodes = options.nodes as usize;
    let settings = ClusterSettings {
        nodes,
        streams: 1,
        cpus: Vec::new(),
        node: NodeSettings {
            mode: options.mode,
            idle: options.idle,
            policy,
            write_method: options.write_method,
            prepared: PREPARED,
            background: Background::Usual,
            publishers: 1,
        },
        is_separable: options.how == How::Cut,
    };
    let mut cluster = Cluster::prepare(&relayd, directory.path(), &settings)?;
    cluster.start(&interrupt)?;
    let flow = Flow::start(&cluster, options.rate, options.size)?;
    let mut trial = Trial {
        how: options.how,
        steady: STEADY_MESSAGES.max((options.rate / 10.0) as u64),
        cluster,
        flow,
        interrupt: &interrupt,
        leader: None,
        outages: Vec::new(),
        unasked_takeovers: 0,
        strikes_repeated: 0,
    };
    let bar = progress(options.runs, "losing primaries");
    for run in 0..options.runs {
        bar.set_position(run);
        trial.lose_one()?;
    }
    bar.finish_and_clear();
    let found = trial.finish()?;
    let report = Report::new(options, policy, &found);
    if let Some(path) = &options.hgrm {
        write_hgrm(path, &histogram(&found.outages))?;
    }
    report.print(options.json)?;
    if report.lost + report.duplicated + report.disordered > 0 {
        return Err(Failure::Damaged(format!(
            "{} messages lost, {} duplicated, {} out of order",
            report.lost, report.duplicated, report.disordered
        )));
    }
    check_journals(Some(&found.journals))
}

impl FailoverOptions {
    fn check(&self) -> Result<Policy, Failure> {
        check_load(self.size, 1, 1)?;
        if !(self.rate.is_finite() && (10.0..=100_000.0).contains(&self.rate)) {
            return Err(Failure::Usage(format!(
                "--rate takes 10 to 100,000, not {}: an outage is seen by the messages that miss",
                self.rate
            )));
        }
        if !(1..=100_000).contains(&self.runs) {
            let text = format!("--runs takes 1 to 100,000, not {}", self.runs);
            return Err(Failure::Usage(text));
        }
        if self.nodes == 1 {
            let text = "one node has nobody to take over; give --nodes 2 or 3";
            return Err(Failure::Usage(text.into()));
        }
        check_policy(self.nodes, super::NODES_MAX, self.policy)
    }
}

/// The group, its flow, and what was seen so far.
struct Trial<'a> {
    how: How,
    /// Messages that show a steady flow.
    steady: u64,
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
                self.flow.await_more(self.steady, self.interrupt)?;
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
    fn new(options: &FailoverOptions, policy: Policy, found: &Found) -> Self {
        let outages_ms: Vec<_> = found.outages.iter().map(|run| ms(run.silence)).collect();
        let led_after_ms = found.outages.iter().map(|run| ms(run.led_after)).collect();
        let counts = found.counts;
        Self {
            name: format!("relay {}", word(&policy)),
            how: word(&options.how),
            runs: options.runs,
            outage_ms_p50: quantile(&outages_ms, 0.5),
            outage_ms_p99: quantile(&outages_ms, 0.99),
            outage_ms_max: quantile(&outages_ms, 1.0),
            sent: counts.sent,
            received: counts.received,
            lost: counts.lost,
            duplicated: counts.duplicated,
            disordered: counts.disordered,
            outages_ms,
            led_after_ms,
            unasked_takeovers: found.unasked_takeovers,
            strikes_repeated: found.strikes_repeated,
            verified: found.journals.is_right(),
            identical_bytes: found.journals.identical_bytes,
            rate: options.rate,
            size: options.size,
            nodes: options.nodes,
            policy: word(&policy),
            mode: word(&options.mode),
            idle: word(&options.idle),
            machine: MachineReport::with_disk(
                &options.dir.clone().unwrap_or_else(std::env::temp_dir),
            ),
        }
    }

    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line(&self.machine.text())?;
        line(&format!(
            "{} primaries lost by {} at {} msg/s: {} nodes, {}, idle {}",
            self.runs, self.how, self.rate, self.nodes, self.policy, self.idle
        ))?;
        for row in rows(&self.outages_ms) {
            line(&row)?;
        }
        line(&format!(
            "time without delivery: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.outage_ms_p50, self.outage_ms_p99, self.outage_ms_max
        ))?;
        if let Some((run, silence_ms)) = slowest(&self.outages_ms) {
            line(&format!(
                "the slowest was run {}: another node led after {:.1} ms, messages came after {silence_ms:.1} ms",
                run + 1,
                self.led_after_ms[run],
            ))?;
        }
        line(&format!(
            "sent {}, received {}, lost {}, duplicated {}, out of order {}, takeovers nobody asked for {}, struck again {}{}",
            thousands(self.sent),
            thousands(self.received),
            self.lost,
            self.duplicated,
            self.disordered,
            self.unasked_takeovers,
            self.strikes_repeated,
            journals_text(Some(self.verified), Some(self.identical_bytes))
        ))
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
