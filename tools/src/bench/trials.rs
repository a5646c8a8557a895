//! What catch-up, restart and failover have in common: relays of their own that are lost and come back, measured point by
//! point.
//!
//! ```text
//! OwnOptions    relays and where they run; where results go    all three
//! FlowOptions   the flow meanwhile (flow.rs)                   catch-up, failover
//! ```
//!
//! Every point starts from relays of its own, so none inherits another's journal. Each prints its result; what is said of
//! repeats comes behind them.

use std::path::PathBuf;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tempfile::TempDir;

use super::flow::{Counts, FlowLoad};
use super::pacing::{Pacing, Shape};
use super::series::{REPORT, SIZE_USUAL, check_output, label, numbered, unusual_ways};
use super::{
    MachineReport, check_journals, check_load, check_policy, check_room, journals_text, report,
    scratch,
};
use crate::exit::Failure;
use crate::output::{json_line, line};
use crate::percentiles::write_hgrm;
use crate::servers::{
    Background, Cluster, ClusterSettings, Idle, Mode, NodeSettings, Policy, Size, WriteMethod,
    find_relayd, scratch_directory, word,
};
use crate::verify::Judgement;

/// Options of all three.
#[derive(Debug, Args)]
pub(super) struct OwnOptions {
    /// How relayd spreads its agents over threads
    #[arg(long, value_enum, default_value_t = Mode::Shared)]
    pub(super) mode: Mode,
    /// What relayd's threads do when idle
    #[arg(long, value_enum, default_value_t = Idle::Park)]
    pub(super) idle: Idle,
    /// How writes are made durable [default: auto, of a restart dsync]
    #[arg(long, value_enum)]
    pub(super) write_method: Option<WriteMethod>,
    /// Directory in which the journals are made and removed again
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Write what is measured as a distribution in HdrHistogram's percentile format; of several results, FILE.1, FILE.2, ...
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write all results as one page for a browser
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print each result as JSON
    #[arg(long)]
    json: bool,
}

/// The relays that a point needs.
pub(super) struct Wanted {
    pub(super) nodes: u64,
    pub(super) policy: Policy,
    pub(super) write_method: WriteMethod,
    /// Journal of each node.
    pub(super) prepared: Size,
    pub(super) publishers: u64,
    /// Whether nodes are to be cut off.
    pub(super) is_separable: bool,
}

impl OwnOptions {
    /// Relays that are not started yet, and the directory that has to outlive them.
    pub(super) fn prepare(&self, wanted: &Wanted) -> Result<(TempDir, Cluster), Failure> {
        let relayd = find_relayd(self.relayd.as_deref())?;
        let directory = scratch(self.dir.as_deref())?;
        check_room(directory.path(), wanted.nodes, wanted.prepared)?;
        let settings = ClusterSettings {
            nodes: wanted.nodes as usize,
            streams: 1,
            cpus: Vec::new(),
            node: NodeSettings {
                mode: self.mode,
                idle: self.idle,
                policy: wanted.policy,
                write_method: wanted.write_method,
                prepared: wanted.prepared,
                background: Background::Usual,
                publishers: wanted.publishers,
            },
            is_separable: wanted.is_separable,
        };
        let cluster = Cluster::prepare(&relayd, directory.path(), &settings)?;
        Ok((directory, cluster))
    }

    /// The machine, with the disk of the journals.
    pub(super) fn machine(&self) -> MachineReport {
        MachineReport::with_disk(&self.dir.clone().unwrap_or_else(scratch_directory))
    }

    /// What tells a result's name from one of relays that run as usual, with a comma before each.
    pub(super) fn label(&self) -> String {
        let mut label = unusual_ways(&[
            (self.idle == Idle::Park, "idle", word(&self.idle)),
            (self.mode == Mode::Shared, "threads", word(&self.mode)),
        ]);
        if let Some(method) = &self.write_method {
            label += &format!(", writes {}", word(method));
        }
        label
    }

    /// Measures, and makes the page of what was found, also of what came before a failure. `count` is how many results
    /// there will be.
    pub(super) fn collect<R: Outcome>(
        &self,
        count: usize,
        measure: impl FnOnce(&mut Results<'_, R>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for (option, path) in [("--hgrm", &self.hgrm), (REPORT, &self.report)] {
            path.as_deref()
                .map_or(Ok(()), |path| check_output(option, path))?;
        }
        let mut results = Results {
            own: self,
            is_one: count == 1,
            all: Vec::new(),
        };
        let outcome = measure(&mut results);
        if let Some(path) = &self.report
            && !results.all.is_empty()
        {
            report::write(path, &results.all, &[])?;
        }
        outcome
    }
}

/// A result.
pub(super) trait Outcome: Serialize {
    /// For people.
    fn text(&self) -> Vec<String>;

    /// The failure that it is, where something was lost.
    fn check(&self) -> Result<(), Failure>;
}

/// The results so far.
pub(super) struct Results<'a, R> {
    own: &'a OwnOptions,
    is_one: bool,
    pub(super) all: Vec<R>,
}

impl<R: Outcome> Results<'_, R> {
    /// The file for the next result.
    fn file(&self, path: Option<&PathBuf>) -> Option<PathBuf> {
        let of_next = |path: &PathBuf| match self.is_one {
            true => path.clone(),
            false => numbered(path, self.all.len() as u32 + 1),
        };
        path.map(of_next)
    }

    /// Writes the distribution of the next result, where that is wanted.
    pub(super) fn write_hgrm(&self, histogram: &Histogram<u64>) -> Result<(), Failure> {
        match self.file(self.own.hgrm.as_ref()) {
            Some(path) => write_hgrm(&path, histogram),
            None => Ok(()),
        }
    }

    /// Prints a result and keeps it, whether it is good or not.
    pub(super) fn note(&mut self, result: R) -> Result<(), Failure> {
        self.say(&result, &result.text())?;
        self.all.push(result);
        self.all[self.all.len() - 1].check()
    }

    /// Prints what is no result itself.
    pub(super) fn say(&self, value: &impl Serialize, text: &[String]) -> Result<(), Failure> {
        if self.own.json {
            return json_line(value);
        }
        text.iter().try_for_each(|text| line(text))
    }
}

/// Options of those in which messages flow meanwhile.
#[derive(Debug, Args)]
pub(super) struct FlowOptions {
    /// Messages per second of the flow; several, as in 500,2000, are measured in turn
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1000"
    )]
    rate: Vec<f64>,
    /// Bytes of a message; several are measured in turn
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', default_values_t = [SIZE_USUAL])]
    size: Vec<usize>,
    /// How messages are spread over time at the same mean rate: steady, poisson, bursts:N (N at once, then a pause), or
    /// recorded:FILE.pcap (the gaps of a capture)
    #[arg(long, value_name = "PACING", default_value = "steady")]
    pacing: Pacing,
    /// Seed of what is random: payloads, and the gaps of poisson
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Write an HdrHistogram interval log of the whole flow, an interval a second; of several results, numbered likewise
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// What a message waits for [default: durable, or local for one node]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
}

impl FlowOptions {
    /// Refuses what can't be measured; the policy, and when messages are due. `gap_s_max` is the longest time without a
    /// message that the flow may have.
    pub(super) fn check(&self, nodes: u64, gap_s_max: f64) -> Result<(Policy, Shape), Failure> {
        for &size in &self.size {
            check_load(size, 1, 1)?;
        }
        for rate in &self.rate {
            if !(rate.is_finite() && (10.0..=100_000.0).contains(rate)) {
                return Err(Failure::Usage(format!(
                    "--rate takes 10 to 100,000, not {rate}: an outage is seen by the messages that miss"
                )));
            }
        }
        let hlog = self.hlog.as_deref();
        hlog.map_or(Ok(()), |path| check_output("--hlog", path))?;
        let policy = check_policy(nodes, super::NODES_MAX, self.policy)?;
        let shape = Shape::of(&self.pacing, self.seed)?;
        for rate in &self.rate {
            let gap_s = shape.gap_max() / rate;
            if gap_s > gap_s_max {
                return Err(Failure::Usage(format!(
                    "--pacing {} leaves {:.0} ms without a message at --rate {rate}, where {:.0} ms are the most; give a \
                     higher rate or another pacing",
                    self.pacing,
                    gap_s * 1e3,
                    gap_s_max * 1e3
                )));
            }
        }
        Ok((policy, shape))
    }

    /// Each size and rate.
    pub(super) fn loads(&self, shape: &Shape) -> Vec<FlowLoad> {
        let of_size = |&size| {
            self.rate.iter().map(move |&rate| FlowLoad {
                rate,
                size,
                shape: shape.clone(),
                seed: self.seed,
                hlog: None,
            })
        };
        self.size.iter().flat_map(of_size).collect()
    }

    /// The load with the interval log of the next result.
    pub(super) fn next<R: Outcome>(&self, load: &FlowLoad, results: &Results<'_, R>) -> FlowLoad {
        FlowLoad {
            hlog: results.file(self.hlog.as_ref()),
            ..load.clone()
        }
    }

    /// The end of a result's name.
    pub(super) fn label(&self, size: usize) -> String {
        label(size, &self.pacing)
    }
}

/// What the results with a flow say alike.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    #[serde(flatten)]
    counts: Counts,
    verified: bool,
    identical_bytes: u64,
    rate: f64,
    pacing: String,
    seed: u64,
    /// Longest time without a message that the flow itself has.
    flow_gap_ms_max: f64,
    size: usize,
    nodes: u64,
    policy: String,
    mode: String,
    idle: String,
    /// As asked for; without it, what preparing the journals found to be fastest.
    write_method: String,
    machine: MachineReport,
    #[serde(skip)]
    journals: Judgement,
}

impl Conditions {
    pub(super) fn new(
        own: &OwnOptions,
        flow: &FlowOptions,
        load: &FlowLoad,
        (nodes, policy): (u64, Policy),
        (counts, journals): (Counts, Judgement),
    ) -> Self {
        Self {
            counts,
            verified: journals.is_right(),
            identical_bytes: journals.identical_bytes,
            rate: load.rate,
            pacing: flow.pacing.to_string(),
            seed: flow.seed,
            flow_gap_ms_max: load.shape.gap_max() * 1e3 / load.rate,
            size: load.size,
            nodes,
            policy: word(&policy),
            mode: word(&own.mode),
            idle: word(&own.idle),
            write_method: own.write_method.as_ref().map_or("auto".into(), word),
            machine: own.machine(),
            journals,
        }
    }

    /// The machine, and the head of a result.
    pub(super) fn head(&self, what: &str) -> [String; 2] {
        let head = format!(
            "{what} {} msg/s of {} bytes, {}: {} nodes, {}, idle {}",
            self.rate, self.size, self.pacing, self.nodes, self.policy, self.idle
        );
        [self.machine.text(), head]
    }

    /// What became of the messages and the journals.
    pub(super) fn tail(&self) -> String {
        let journals = journals_text(Some(self.verified), Some(self.identical_bytes));
        format!("{}{journals}", self.counts.text())
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        self.counts.check()?;
        check_journals(Some(&self.journals))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flow {
        #[command(flatten)]
        options: FlowOptions,
    }

    fn flow(arguments: &[&str]) -> FlowOptions {
        let arguments = [&["flow"], arguments].concat();
        Flow::try_parse_from(arguments).expect("options").options
    }

    #[test]
    fn every_size_flows_at_every_rate() {
        let flow = flow(&["--size", "64,256", "--rate", "500,2000.5"]);
        let (policy, shape) = flow.check(2, 1.0).expect("possible");
        assert_eq!(policy, Policy::Durable);
        let loads = flow.loads(&shape);
        let found: Vec<_> = loads.iter().map(|load| (load.size, load.rate)).collect();
        assert_eq!(
            found,
            [(64, 500.0), (64, 2000.5), (256, 500.0), (256, 2000.5)]
        );
        assert_eq!(
            (flow.label(64), flow.label(256)),
            (", 64 bytes".into(), String::new())
        );
    }

    #[test]
    fn pauses_are_held_against_the_lowest_rate() {
        let flow = flow(&["--pacing", "bursts:100", "--rate", "1000,500"]);
        assert!(flow.check(1, 0.2).is_ok());
        let refusal = flow.check(1, 0.1).expect_err("too long").to_string();
        assert!(
            refusal.contains("200 ms without a message at --rate 500"),
            "{refusal}"
        );
        assert_eq!(flow.label(256), ", bursts:100");
    }
}
