//! `relay bench`: what a message costs, beside what the same hops cost with nothing decided on the way.
//!
//! ```text
//! latency.rs     open loop at a rate        \
//! throughput.rs  as much as credit allows    > load.rs: clients on one pinned thread; server.rs: a relayd of one's own
//! floor.rs       the bare hops (relay-floor)
//! ```
//!
//! Latency counts from the time a message was *meant* to be sent. Every report names the machine and the settings.

use std::fs;
use std::path::PathBuf;
use std::thread;

use clap::{Args, Subcommand};
use serde::Serialize;
use tempfile::TempDir;

use crate::connect::{ConnectOptions, Connection};
use crate::exit::Failure;

mod floor;
mod latency;
mod load;
mod placement;
pub(crate) mod server;
mod tally;
mod throughput;

use placement::{Placement, PlacementOptions};
use server::{Idle, Mode, Policy, Server, ServerSettings, Size, WriteMethod, find_relayd, word};

/// Most nodes of a group.
const NODES_MAX: u64 = 3;

const EXAMPLES: &str = "\
Examples:
  relay bench floor --rate 2000 --seconds 10
  relay bench latency --rate 2000 --seconds 10 --json
  relay bench throughput --seconds 60 --verify";

/// Options of `relay bench`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct BenchOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish to subscriber at a steady rate, counted from the intended send
    Latency(latency::LatencyOptions),
    /// As many messages as go through, counted at the subscriber
    Throughput(throughput::ThroughputOptions),
    /// The same hops without the relay: what the machine itself costs
    Floor(floor::FloorOptions),
}

/// Runs the command.
pub(crate) fn run(options: BenchOptions) -> Result<(), Failure> {
    match options.what {
        What::Latency(options) => latency::run(&options),
        What::Throughput(options) => throughput::run(&options),
        What::Floor(options) => floor::run(&options),
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
    /// Space of the journal prepared before the run
    #[arg(long, value_name = "SIZE")]
    prepared: Option<Size>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Measure the running relay that the connection options name
    #[arg(long, conflicts_with_all = ["dir", "relayd", "prepared", "server_cpus"])]
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
    server: Option<Server>,
    /// Removed when the target goes.
    _directory: Option<TempDir>,
    running: Option<Connection>,
    stream_directory: Option<PathBuf>,
    first_publisher: u64,
    policy: Policy,
    placement: Placement,
}

impl TargetOptions {
    /// Makes or finds what is to be measured.
    fn open(&self, publishers: u64, prepared: Size) -> Result<Target, Failure> {
        let policy = check_policy(self.nodes, NODES_MAX, self.policy)?;
        let placement = self.placement.of(self.nodes as usize, self.threads())?;
        if self.connect {
            return Ok(Target {
                server: None,
                _directory: None,
                running: Some(self.connection.resolve()?),
                stream_directory: self.stream_dir.clone(),
                first_publisher: self.first_publisher,
                policy,
                placement,
            });
        }
        if self.nodes > 1 {
            return Err(Failure::Usage(format!(
                "--nodes {} needs a group: not in this version; give --nodes 1",
                self.nodes
            )));
        }
        let relayd = find_relayd(self.relayd.as_deref())?;
        let directory = self.directory()?;
        let settings = ServerSettings {
            mode: self.mode,
            idle: self.idle,
            cpus: placement.node(0).to_vec(),
            policy,
            write_method: self.write_method,
            prepared: self.prepared.unwrap_or(prepared),
            publishers,
        };
        let mut server = Server::prepare(relayd, directory.path(), settings)?;
        server.start()?;
        Ok(Target {
            stream_directory: Some(server.stream_directory()),
            server: Some(server),
            _directory: Some(directory),
            running: None,
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

    fn directory(&self) -> Result<TempDir, Failure> {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        tempfile::Builder::new()
            .prefix("relay-bench-")
            .tempdir_in(&parent)
            .map_err(|error| Failure::file("making a directory in", &parent, &error))
    }

    fn settings(&self, target: &Target) -> SettingsReport {
        let written = target.stream_directory.as_deref().and_then(|directory| {
            let journal = relay_journal::reader::JournalDir::open(directory).ok()?;
            Some(format!("{:?}", journal.superblock().write_method).to_lowercase())
        });
        let is_own = target.server.is_some();
        SettingsReport {
            mode: is_own.then(|| word(&self.mode)),
            idle: word(&self.idle),
            policy: is_own.then(|| word(&target.policy)),
            nodes: self.nodes,
            write_method: written,
            placement: target.placement.clone(),
        }
    }
}

impl Target {
    fn publisher(&self, index: u64) -> Connection {
        match (&self.server, &self.running) {
            (Some(server), _) => server.publisher(index + 1),
            (None, Some(connection)) => connection.clone(),
            (None, None) => unreachable!("a target is one of the two"),
        }
    }

    fn subscriber(&self) -> Connection {
        match (&self.server, &self.running) {
            (Some(server), _) => server.subscriber(),
            (None, Some(connection)) => connection.clone(),
            (None, None) => unreachable!("a target is one of the two"),
        }
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
    nodes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_method: Option<String>,
    #[serde(flatten)]
    placement: Placement,
}

/// What a report says about where it comes from.
#[derive(Debug, Serialize)]
struct MachineReport {
    cpu: String,
    cpus: usize,
    kernel: String,
    command: String,
}

impl MachineReport {
    fn new() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model
                .unwrap_or_default()
                .trim_start_matches([' ', '\t', ':'])
                .to_owned(),
            cpus: cpu_count(),
            kernel: kernel.trim().to_owned(),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }

    /// One line for people.
    fn text(&self) -> String {
        format!("{}, {} CPUs, Linux {}", self.cpu, self.cpus, self.kernel)
    }
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

/// Refuses a size or number of clients that can't be.
fn check_load(size: usize, publishers: u64, subscribers: u64) -> Result<(), Failure> {
    let (least, most) = (load::HEAD_LENGTH, 1 << 20);
    if !(least..=most).contains(&size) {
        return Err(Failure::Usage(format!(
            "--size takes {least} to {most} bytes, not {size}"
        )));
    }
    for (option, count) in [("--publishers", publishers), ("--subscribers", subscribers)] {
        if !(1..=64).contains(&count) {
            return Err(Failure::Usage(format!(
                "{option} takes 1 to 64, not {count}"
            )));
        }
    }
    Ok(())
}

/// Bytes a message of `size` takes in the journal when many share a block.
fn journal_bytes(size: usize) -> u64 {
    relay_client::wire::record::encoded_stride(0, size) as u64
}
