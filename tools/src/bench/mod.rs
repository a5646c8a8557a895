//! `relay bench`: what a message costs, beside what the same hops cost with nothing decided on the way.
//!
//! ```text
//! latency.rs     open loop at a rate        \   load.rs: the clients; outcome.rs: what came, stream by stream
//! throughput.rs  as much as credit allows    \  client_thread.rs: the thread they share; placement.rs: on which CPU
//! fan_out.rs     many clients                /  series.rs: lists, repeats, sweeps; pacing.rs: when what is due
//! floor.rs       the bare hops (relay-floor) /   servers.rs: relays of one's own
//! crowd.rs       the clients of fan_out.rs, all on one thread (process.rs: what relayd takes of the machine)
//! catch_up.rs    a subscriber, or a node, that comes back from far behind
//! restart.rs     a restart on a long journal
//! failover.rs    the time without delivery when a primary is lost
//!                (these three: trials.rs: what they share; flow.rs: the clients of the flow meanwhile)
//! replay.rs      a journal read by plain direct reads, and as `relay replay` reads it
//! report.rs      results as a page (machine.rs: where they come from; over_time.rs: the course of a run)
//! ```
//!
//! Latency counts from the time a message was *meant* to be sent. Every report names the machine and the settings.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;

use clap::{Args, Subcommand};
use hdrhistogram::Histogram;
use serde::Serialize;
use tempfile::TempDir;

use crate::connect::{ConnectOptions, Connection};
use crate::exit::{Failure, Interrupt};
use crate::output::thousands;
use crate::servers::{
    Background, Cluster, ClusterSettings, Idle, Mode, NodeSettings, Policy, Size, WriteMethod,
    find_relayd, scratch_directory, word,
};
use crate::verify::Judgement;

mod catch_up;
mod client_thread;
mod crowd;
mod failover;
mod fan_out;
mod floor;
mod flow;
mod interval_log;
mod latency;
mod load;
mod machine;
mod outcome;
mod over_time;
mod pacing;
mod placement;
mod process;
mod replay;
mod report;
mod restart;
mod series;
mod tally;
mod throughput;
mod trials;

use machine::MachineReport;
use over_time::Row;
use placement::{Placement, PlacementOptions};
use report::Shown;
use series::{Load, unusual, unusual_ways};

/// Most nodes of a group.
const NODES_MAX: u64 = 3;
/// Most streams of one relayd.
const STREAMS_MAX: u64 = 16;
/// Most topics of a stream.
const TOPICS_MAX: u64 = 100_000;
/// Most topics that all publishers together ask for.
const REQUESTS_MAX: u64 = 1_000_000;
/// Bytes that a message may have.
const SIZES: RangeInclusive<usize> = load::HEAD_LENGTH..=64 << 10;

const EXAMPLES: &str = "\
Examples:
  relay bench floor --rate 2000 --seconds 10
  relay bench latency --rate 2000 --seconds 10 --json
  relay bench latency --nodes 2 --policy mirrored --rate 10000
  relay bench throughput --seconds 60 --streams 2 --verify
  relay bench fan-out --subscribers 100 --topics 1000 --patterns 10 --idle park
  relay bench catch-up --node --behind 1GiB
  relay bench restart --length 10GiB
  relay bench failover --runs 20 --how freeze
  relay bench replay /var/lib/relay/orders --runs 5
  relay bench report runs.jsonl --output page.html";

/// Options of `relay bench`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct BenchOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish to subscriber at a rate, counted from the intended send
    Latency(latency::LatencyOptions),
    /// As many messages as go through, or a rate of them, counted at the subscriber
    Throughput(throughput::ThroughputOptions),
    /// The same hops without the relay: what the machine itself costs
    Floor(floor::FloorOptions),
    /// Many subscribers and publishers of a stream or several, slow ones too: latency, CPU and memory
    FanOut(fan_out::FanOutOptions),
    /// A subscriber, or a node, that catches up from far behind, and what that costs the flow
    CatchUp(catch_up::CatchUpOptions),
    /// The time until a client is served again after SIGKILL, on a long journal
    Restart(restart::RestartOptions),
    /// The time without delivery when a primary is killed, freezes or is cut off
    Failover(failover::FailoverOptions),
    /// A journal's directory read as fast as it goes, beside plain direct reads of the same files
    Replay(replay::ReplayOptions),
    /// Results of these as one page for a browser
    Report(report::ReportOptions),
}

/// Runs the command.
pub(crate) fn run(options: BenchOptions) -> Result<(), Failure> {
    match options.what {
        What::Latency(options) => latency::run(&options),
        What::Throughput(options) => throughput::run(&options),
        What::Floor(options) => floor::run(&options),
        What::FanOut(options) => fan_out::run(&options),
        What::CatchUp(options) => catch_up::run(&options),
        What::Restart(options) => restart::run(&options),
        What::Failover(options) => failover::run(&options),
        What::Replay(options) => replay::run(&options),
        What::Report(options) => report::run(&options),
    }
}

/// What is measured: a relayd of one's own, or a running one.
#[derive(Debug, Args)]
struct TargetOptions {
    /// Directory in which the journal is made and removed again; it decides which disk is measured
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Nodes that hold each message
    #[arg(long, value_name = "1|2|3", default_value_t = 1)]
    nodes: u64,
    /// Streams of the one relayd, which share the rate; publishers, subscribers and topics are those of each
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with = "connect"
    )]
    streams: u64,
    /// What a message waits for [default: local, or durable for several nodes]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// How relayd spreads its agents over threads
    #[arg(long, value_enum, default_value_t = Mode::Shared)]
    mode: Mode,
    /// What relayd's threads and the client's do when idle
    #[arg(long, value_enum, default_value_t = Idle::Yield)]
    idle: Idle,
    /// How writes are made durable
    #[arg(long, value_enum, default_value_t = WriteMethod::Auto)]
    write_method: WriteMethod,
    #[command(flatten)]
    placement: PlacementOptions,
    /// What relayd does beside the flow: seals and scrubbing
    #[arg(long, value_enum, default_value_t = Background::Usual)]
    background: Background,
    /// Space of each journal prepared before the run
    #[arg(long, value_name = "SIZE")]
    prepared: Option<Size>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Measure the running relay that the connection options name
    #[arg(long, conflicts_with_all = ["dir", "relayd", "prepared", "background", "server_cpus", "mode", "write_method", "nodes", "policy"])]
    connect: bool,
    /// With --connect: its stream's directory, for the times of the hops
    #[arg(long, value_name = "DIR", requires = "connect")]
    stream_dir: Option<PathBuf>,
    /// With --connect: the first publisher id to use
    #[arg(long, value_name = "ID", default_value_t = 1)]
    first_publisher: u64,
    #[command(flatten)]
    connection: ConnectOptions,
}

/// What the clients connect to.
struct Target {
    cluster: Option<Cluster>,
    /// Removed when the target goes, after the cluster.
    _directory: Option<TempDir>,
    running: Option<Connection>,
    /// The primary's, where it is known.
    stream_directory: Option<PathBuf>,
    /// The epoch at the start, in a group.
    epoch: u64,
    streams: usize,
    first_publisher: u64,
    policy: Policy,
    placement: Placement,
}

impl TargetOptions {
    /// Refuses what can't be started, or has too many topics for so many publishers of each stream.
    fn check(&self, publishers: u64, topics: u64) -> Result<(), Failure> {
        if !self.connect && (self.connection.is_given() || self.first_publisher != 1) {
            return Err(Failure::Usage(
                "an address, a credential and what belongs to them are those of a running relay; give --connect too, or leave them \
                 out".into(),
            ));
        }
        check_policy(self.nodes, NODES_MAX, self.policy)?;
        check_count("--streams", self.streams, 1, STREAMS_MAX)?;
        if self.streams > 1 && self.nodes > 1 {
            return Err(Failure::Usage(
                "several streams are those of one node; give --streams or --nodes, not both".into(),
            ));
        }
        check_count("--topics", topics, 1, TOPICS_MAX)?;
        if self
            .streams
            .saturating_mul(publishers)
            .saturating_mul(topics)
            > REQUESTS_MAX
        {
            return Err(Failure::Usage(format!(
                "--streams times --publishers times --topics is {} at most: each publisher asks for each topic",
                thousands(REQUESTS_MAX)
            )));
        }
        Ok(())
    }

    /// Makes or finds what is to be measured: so many publishers in each stream, so much space in all journals of a node
    /// together.
    fn open(
        &self,
        publishers: u64,
        prepared: Size,
        interrupt: &Interrupt,
    ) -> Result<Target, Failure> {
        let policy = check_policy(self.nodes, NODES_MAX, self.policy)?;
        let (nodes, streams) = (self.nodes as usize, self.streams as usize);
        let (what, places) = match streams {
            1 => ("node", nodes),
            _ => ("stream", streams),
        };
        let placement = self.placement.of(what, places, self.threads())?;
        if self.connect {
            return Ok(Target {
                cluster: None,
                _directory: None,
                running: Some(self.connection.resolve()?),
                stream_directory: self.stream_dir.clone(),
                epoch: 0,
                streams,
                first_publisher: self.first_publisher,
                policy,
                placement: placement.without_servers(),
            });
        }
        let relayd = find_relayd(self.relayd.as_deref())?;
        let directory = scratch(self.dir.as_deref())?;
        let prepared = self.prepared.unwrap_or(Size(prepared.0 / self.streams));
        check_room(directory.path(), places as u64, prepared)?;
        let settings = ClusterSettings {
            nodes,
            streams,
            cpus: (0..places)
                .map(|place| placement.node(place).to_vec())
                .collect(),
            node: NodeSettings {
                mode: self.mode,
                idle: self.idle,
                policy,
                write_method: self.write_method,
                prepared,
                background: self.background,
                publishers,
            },
            is_separable: false,
        };
        let mut cluster = Cluster::prepare(&relayd, directory.path(), &settings)?;
        cluster.start(interrupt)?;
        let (leader, epoch) = cluster.leader().unwrap_or_default();
        Ok(Target {
            stream_directory: Some(cluster.stream_directories().swap_remove(leader)),
            epoch,
            cluster: Some(cluster),
            _directory: Some(directory),
            running: None,
            streams,
            first_publisher: 1,
            policy,
            placement,
        })
    }

    /// Hot threads of a node.
    fn threads(&self) -> usize {
        match self.mode {
            Mode::Shared => 1,
            Mode::Split => 3,
        }
    }

    /// The machine, with the disk of the journals where they are made here.
    fn machine(&self) -> MachineReport {
        if self.connect {
            return MachineReport::new();
        }
        MachineReport::with_disk(&self.dir.clone().unwrap_or_else(scratch_directory))
    }

    /// What the page says of a run against this. The name tells it from runs that are no repeats of it: by the load,
    /// nodes, streams, and `more`.
    fn shown(
        &self,
        what: &'static str,
        load: &Load,
        more: &str,
        latency: &Histogram<u64>,
        over_time: Vec<Row>,
    ) -> Shown {
        let policy = self.policy.unwrap_or(match self.nodes {
            1 => Policy::Local,
            _ => Policy::Durable,
        });
        let whose = if self.connect {
            "relay, running".into()
        } else {
            format!("relay {}", word(&policy))
        };
        let usual_nodes = 1 + u64::from(policy != Policy::Local);
        let counts = unusual(&[
            (self.nodes, usual_nodes, "nodes"),
            (self.streams, 1, "streams"),
        ]);
        let at_rate = match (what, load.rate) {
            ("throughput", Some(_)) => ", throughput",
            _ => "",
        };
        let ways = unusual_ways(&[
            (self.idle == Idle::Yield, "idle", word(&self.idle)),
            (self.mode == Mode::Shared, "threads", word(&self.mode)),
            (
                self.background == Background::Usual,
                "background",
                word(&self.background),
            ),
            (
                self.write_method == WriteMethod::Auto,
                "writes",
                word(&self.write_method),
            ),
        ]);
        let places = self.placement.label();
        let name = format!("{whose}{counts}{more}{at_rate}{ways}{places}{}", load.label);
        let shown = Shown::of(what, name, load.rate, latency).over_time(over_time);
        if self.connect {
            return shown;
        }
        shown.holding(policy, self.nodes)
    }

    fn settings(&self, target: &Target) -> SettingsReport {
        let written = target.stream_directory.as_deref().and_then(|directory| {
            let journal = relay_journal::reader::JournalDir::open(directory).ok()?;
            Some(format!("{:?}", journal.superblock().write_method).to_lowercase())
        });
        let is_own = target.cluster.is_some();
        SettingsReport {
            mode: is_own.then(|| word(&self.mode)),
            idle: word(&self.idle),
            policy: is_own.then(|| word(&target.policy)),
            nodes: is_own.then_some(self.nodes),
            background: is_own.then(|| word(&self.background)),
            write_method: written,
            placement: target.placement.clone(),
        }
    }
}

impl Target {
    /// Epochs that began since the start: each a change of the primary or of the in-sync set that nobody asked for. Where nobody leads
    /// at the end, one is about to.
    fn epoch_changes(&self) -> Option<u64> {
        let leader = self.cluster.as_ref()?.leader();
        Some(leader.map_or(1, |(_, epoch)| epoch.saturating_sub(self.epoch)))
    }

    /// Stops what was started here; with `is_judged`, what the journals of each stream are then.
    fn stop(&mut self, is_judged: bool, interrupt: &Interrupt) -> Result<Option<Judged>, Failure> {
        match &mut self.cluster {
            Some(cluster) if is_judged => {
                let judged = cluster.stop_and_judge_streams(self.streams, interrupt)?;
                Ok(Some(Judged(judged)))
            }
            Some(cluster) => cluster.stop(interrupt).map(|_| None),
            None => Ok(None),
        }
    }

    /// Directories of a stream that was started here, node by node.
    fn directories_of_stream(&self, place: usize) -> Vec<PathBuf> {
        let directories = |cluster: &Cluster| cluster.directories_of_stream(place);
        self.cluster.as_ref().map(directories).unwrap_or_default()
    }

    fn publisher(&self, index: u64) -> Connection {
        match (&self.cluster, &self.running) {
            (Some(cluster), _) => cluster.publisher(index + 1),
            (None, Some(connection)) => connection.clone(),
            (None, None) => unreachable!("a target is one of the two"),
        }
    }

    /// The same client, at another of the streams that were started here.
    fn at_stream(&self, place: usize, connection: Connection) -> Connection {
        match &self.cluster {
            Some(cluster) => cluster.at_stream(place, connection),
            None => connection,
        }
    }

    fn subscriber(&self) -> Connection {
        match (&self.cluster, &self.running) {
            (Some(cluster), _) => cluster.subscriber(),
            (None, Some(connection)) => connection.clone(),
            (None, None) => unreachable!("a target is one of the two"),
        }
    }
}

/// The journals of each stream.
struct Judged(Vec<Judgement>);

impl Judged {
    /// Whether all are as they must be.
    fn is_right(&self) -> bool {
        self.0.iter().all(Judgement::is_right)
    }

    /// Bytes of log that the nodes of a group hold alike.
    fn identical_bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|of_stream| of_stream.identical_bytes)
            .sum()
    }

    /// The failure that journals are which are not right.
    fn check(&self) -> Result<(), Failure> {
        let each = self.0.iter();
        each.map(Some).try_for_each(check_journals)
    }
}

/// What a report says about how relayd ran.
#[derive(Debug, Serialize)]
struct SettingsReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    idle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_method: Option<String>,
    #[serde(flatten)]
    placement: Placement,
}

/// A directory for journals, which goes with the value: in the one given, or in the system's.
fn scratch(parent: Option<&Path>) -> Result<TempDir, Failure> {
    let parent = parent.map_or_else(scratch_directory, Path::to_owned);
    tempfile::Builder::new()
        .prefix("relay-bench-")
        .tempdir_in(&parent)
        .map_err(|error| Failure::file("making a directory in", &parent, &error))
}

/// Refuses to prepare so many journals where the disk has no room for them.
fn check_room(directory: &Path, journals: u64, prepared: Size) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(directory)
        .map_err(|error| Failure::file("asking for the room in", directory, &error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let wanted = journals.saturating_mul(prepared.0);
    if wanted <= free {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{journals} journals with {} MiB prepared in each don't fit into {}, which has {} MiB free; free some, give --dir \
         another disk, or --prepared less",
        prepared.0 >> 20,
        directory.display(),
        free >> 20
    )))
}

/// CPUs this process may use.
fn cpu_count() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The policy of so many nodes, of which `most` are possible; what makes no sense is refused.
fn check_policy(nodes: u64, most: u64, asked: Option<Policy>) -> Result<Policy, Failure> {
    if !(1..=most).contains(&nodes) {
        let text = format!("--nodes takes 1 to {most}, not {nodes}");
        return Err(Failure::Usage(text));
    }
    match (nodes, asked) {
        (1, None | Some(Policy::Local)) => Ok(Policy::Local),
        (1, Some(policy)) => Err(Failure::Usage(format!(
            "policy {} is one of several nodes; give --nodes 2, or --policy local for one",
            word(&policy)
        ))),
        (_, None) => Ok(Policy::Durable),
        (_, Some(Policy::Local)) => Err(Failure::Usage(format!(
            "policy local is one node's; with --nodes {nodes} give --policy durable or mirrored"
        ))),
        (_, Some(policy)) => Ok(policy),
    }
}

/// Refuses a number of seconds that is none.
fn check_seconds(option: &str, seconds: f64, least: f64) -> Result<(), Failure> {
    if seconds.is_finite() && (least..=86_400.0).contains(&seconds) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{option} takes {least} to 86,400 seconds, not {seconds}"
    )))
}

/// Refuses a number that is not within its bounds.
fn check_count(option: &str, count: u64, least: u64, most: u64) -> Result<(), Failure> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{option} takes {least} to {}, not {count}",
        thousands(most)
    )))
}

/// Refuses a size that can't be.
fn check_size(size: usize, possible: &RangeInclusive<usize>) -> Result<(), Failure> {
    if possible.contains(&size) {
        return Ok(());
    }
    let (least, most) = (possible.start(), possible.end());
    Err(Failure::Usage(format!(
        "--size takes {least} to {most} bytes, not {size}"
    )))
}

/// Refuses a size or number of clients that can't be.
fn check_load(size: usize, publishers: u64, subscribers: u64) -> Result<(), Failure> {
    check_size(size, &SIZES)?;
    check_clients(publishers, subscribers)
}

/// Refuses a number of clients that can't be, where each is looked at in every turn.
fn check_clients(publishers: u64, subscribers: u64) -> Result<(), Failure> {
    check_count("--publishers", publishers, 1, 64)?;
    check_count("--subscribers", subscribers, 1, 64)
}

/// What is said of the journals at the end of a line.
fn journals_text(verified: Option<bool>, identical_bytes: Option<u64>) -> String {
    match (verified, identical_bytes) {
        (None, _) => String::new(),
        (Some(false), _) => ", journals NOT RIGHT".into(),
        (Some(true), None | Some(0)) => ", journal verified".into(),
        (Some(true), Some(bytes)) => format!(
            ", journals verified and identical over {} bytes",
            thousands(bytes)
        ),
    }
}

/// The failure that journals are which are not right.
fn check_journals(journals: Option<&Judgement>) -> Result<(), Failure> {
    match journals.and_then(Judgement::fault) {
        None => Ok(()),
        Some(fault) => Err(Failure::Damaged(format!(
            "{fault}; report this with the command"
        ))),
    }
}

/// Bytes a message of `size` takes in the journal when many share a block.
fn journal_bytes(size: usize) -> u64 {
    relay_client::wire::record::encoded_stride(0, size) as u64
}
