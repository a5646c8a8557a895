//! `relay demo`: everything at work at once, and a judgement on it that does not come from the product.
//!
//! ```text
//! relay pub --hash-file  ->  primary, standby   ->  relay sub --hash-file   live from the start
//!                            (and a witness)    ->  relay sub --hash-file   joins in the middle, from the first message
//!
//! the primary is killed -> the standby takes over -> the killed one comes back, catches up, is in sync
//! the new primary is killed -> the first one takes over -> ...
//!
//! compare_hashes.py: published against received      journals: verified, and compared with each other
//! ```
//!
//! Publisher and subscribers are processes of their own, as a user would start them. Nobody is told of a kill; they
//! notice it and go on by themselves. With `--nodes 1` there is one relay, which is killed and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::compare::{Comparison, compare_files};
use crate::exit::{Failure, Interrupt};
use crate::output::{line, progress};
use crate::publish::utc_ns;
use crate::servers::{
    Background, Cluster, ClusterSettings, Idle, Mode, NodeSettings, Policy, Size, WriteMethod,
    find_relayd, scratch_directory,
};
use crate::subscribe::LatencySummary;

mod child;
mod report;
mod source;

use child::Running;
use report::Report;
use source::Source;

/// How long the publishing takes.
const SECONDS: f64 = 9.0;
/// When the second subscriber joins, as a part of it.
const JOIN_AT: f64 = 0.25;
/// When a primary is killed, as a part of it: the only one, or one after the other.
const KILLS_ALONE: [f64; 1] = [0.55];
const KILLS_IN_TURN: [f64; 2] = [0.4, 0.7];
/// Bounds on what should be over soon.
const PUBLISH_WAIT: Duration = Duration::from_secs(40);
const CATCH_UP_WAIT: Duration = Duration::from_secs(20);
const READY_WAIT: Duration = Duration::from_secs(20);
/// Everything has arrived, but a duplicate might follow: so long it is waited for.
const GRACE: Duration = Duration::from_millis(500);
/// Journal prepared for the demonstration.
const PREPARED: Size = Size(256 << 20);

const EXAMPLES: &str = "\
Examples:
  relay demo
  relay demo --pcap capture.pcap --keep /tmp/demo
  relay demo --messages 50000 --json
  relay demo --nodes 1";

/// Options of `relay demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoOptions {
    /// Publish the UDP and TCP payloads of this capture, instead of a generated flow
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Messages to generate
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20_000,
        conflicts_with = "pcap"
    )]
    messages: u64,
    /// Seed of the generated flow
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Nodes: a primary and a standby, or one relay alone
    #[arg(long, value_name = "1|2", default_value_t = 2)]
    nodes: usize,
    /// Keep journals, hashes and logs in this directory, which must be empty or new
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Script that compares the hashes, scripts/compare_hashes.py; without it the comparison is built in
    #[arg(long, value_name = "SCRIPT")]
    compare: Option<PathBuf>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(options: &DemoOptions) -> Result<(), Failure> {
    if !(1..=2).contains(&options.nodes) {
        let text = format!("--nodes takes 1 or 2, not {}", options.nodes);
        return Err(Failure::Usage(text));
    }
    let relayd = find_relayd(options.relayd.as_deref())?;
    let directory = Directory::make(options.keep.as_deref())?;
    let flow = Source::of(
        options.pcap.as_deref(),
        options.messages,
        options.seed,
        SECONDS,
    )?;
    let interrupt = Interrupt::install()?;
    let settings = ClusterSettings {
        nodes: options.nodes,
        streams: 1,
        cpus: Vec::new(),
        node: NodeSettings {
            mode: Mode::Shared,
            idle: Idle::Park,
            policy: match options.nodes {
                1 => Policy::Local,
                _ => Policy::Durable,
            },
            write_method: WriteMethod::Auto,
            prepared: PREPARED,
            background: Background::Usual,
            publishers: 1,
        },
        is_separable: false,
    };
    let mut cluster = Cluster::prepare(&relayd, directory.path(), &settings)?;
    cluster.start(&interrupt)?;
    let mut stage = Stage {
        options,
        directory: directory.path(),
        interrupt: &interrupt,
        bar: progress((SECONDS * 10.0) as u64, "publishing"),
    };
    stage.say(&format!(
        "{} on {}; publishing {}",
        match options.nodes {
            1 => "relayd runs",
            _ => "a primary, a standby and their witness run",
        },
        cluster.addresses().join(" and "),
        flow.text
    ))?;
    let outcome = stage.play(&mut cluster, &flow)?;
    stage.bar.finish_and_clear();
    let report = stage.judge(&mut cluster, &flow, outcome)?;
    report.print(options.json)?;
    report.verdict()
}

/// Where everything lies; removed at the end unless it is to be kept.
enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn make(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = keep else {
            return tempfile::Builder::new()
                .prefix("relay-demo-")
                .tempdir_in(scratch_directory())
                .map(Self::Temporary)
                .map_err(|error| Failure::Failed(format!("making a directory: {error}")));
        };
        fs::create_dir_all(path).map_err(|error| Failure::file("making", path, &error))?;
        let mut entries =
            fs::read_dir(path).map_err(|error| Failure::file("reading", path, &error))?;
        if entries.next().is_some() {
            return Err(Failure::Usage(format!(
                "{} is not empty; give --keep a new directory",
                path.display()
            )));
        }
        let path = path.canonicalize();
        let path = path.map_err(|error| Failure::Failed(format!("--keep: {error}")))?;
        Ok(Self::Kept(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}

/// What the publisher said at its end; the fields that matter here.
#[derive(Debug, serde::Deserialize)]
struct PublisherSummary {
    published: u64,
    acknowledged: u64,
    seconds: f64,
}

/// What the play left behind.
struct Outcome {
    publisher: PublisherSummary,
    /// When each primary was killed, UTC.
    killed_ns: Vec<u64>,
}

/// The run itself.
struct Stage<'a> {
    options: &'a DemoOptions,
    directory: &'a Path,
    interrupt: &'a Interrupt,
    bar: ProgressBar,
}

impl Stage<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn play(&mut self, cluster: &mut Cluster, source: &Source) -> Result<Outcome, Failure> {
        let mut live = self.subscribe(cluster, "live", "live")?;
        live.wait_for("subscribed", READY_WAIT, self.interrupt)?;
        let mut publisher = self.publish(cluster, source)?;
        let begun = Instant::now();

        self.wait_until(begun, JOIN_AT, &mut publisher)?;
        let mut replay = self.subscribe(cluster, "replay", "earliest")?;
        let kills: &[f64] = match cluster.size() {
            1 => &KILLS_ALONE,
            _ => &KILLS_IN_TURN,
        };
        let mut killed_ns = Vec::new();
        for &at in kills {
            self.wait_until(begun, at, &mut publisher)?;
            killed_ns.push(self.kill_primary(cluster)?);
        }
        self.wait_until(begun, 1.0, &mut publisher)?;

        let output = publisher.finish(PUBLISH_WAIT, self.interrupt)?;
        let summary = output.lines().last().unwrap_or_default();
        let summary: PublisherSummary = serde_json::from_str(summary)
            .map_err(|error| Failure::Failed(format!("the publisher's summary: {error}")))?;
        self.catch_up(source, &mut live, "live")?;
        self.catch_up(source, &mut replay, "replay")?;
        thread::sleep(GRACE);
        live.stop(self.interrupt)?;
        replay.stop(self.interrupt)?;
        Ok(Outcome {
            publisher: summary,
            killed_ns,
        })
    }

    /// Kills the primary, and starts it again once another leads (or at once, where there is none); when it was killed.
    ///
    /// On a machine with too much to do a primary may drop the other node, and where it had by the moment it was killed nobody
    /// may lead: then it comes back, and is killed again.
    fn kill_primary(&self, cluster: &mut Cluster) -> Result<u64, Failure> {
        if cluster.size() == 1 {
            let killed_ns = utc_ns();
            cluster.kill(0);
            self.say("killed relayd with SIGKILL; starting it again")?;
            cluster.start_node(0)?;
            return Ok(killed_ns);
        }
        let (victim, leader, killed_ns) = loop {
            cluster.await_in_sync(self.interrupt)?;
            let (victim, epoch) = cluster.await_leader(0, self.interrupt)?;
            let killed_ns = utc_ns();
            cluster.kill(victim);
            if let Some(leader) = cluster.await_successor(victim, epoch, self.interrupt)? {
                break (victim, leader, killed_ns);
            }
            self.say(
                "the primary had dropped the other node, which may not lead; starting it again",
            )?;
            cluster.start_node(victim)?;
        };
        let epoch = cluster.leader().map_or(0, |(_, epoch)| epoch);
        self.say(&format!(
            "killed node {}, the primary, with SIGKILL: node {} leads epoch {epoch}; starting node {0} again",
            victim + 1,
            leader + 1
        ))?;
        cluster.start_node(victim)?;
        cluster.await_in_sync(self.interrupt)?;
        self.say(&format!("node {} has caught up and is in sync", victim + 1))?;
        Ok(killed_ns)
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.options.json {
            return Ok(());
        }
        self.bar.suspend(|| line(text))
    }

    /// This program with what every client of the demonstration needs.
    fn command(&self, cluster: &Cluster, action: &str) -> Result<Command, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("finding this program: {error}")))?;
        let connection = if action == "pub" {
            cluster.publisher(1)
        } else {
            cluster.subscriber()
        };
        let mut command = Command::new(own);
        command
            .arg(action)
            .args(["--verbose", "--give-up-after", "30", "--address"])
            .arg(connection.addresses.join(","))
            .env_remove("RELAY_ADDRESS")
            .env("RELAY_CREDENTIAL", &connection.credential.name)
            .env(
                "RELAY_SECRET",
                crate::output::hex(&connection.credential.secret),
            );
        Ok(command)
    }

    fn subscribe(&self, cluster: &Cluster, name: &str, from: &str) -> Result<Running, Failure> {
        let mut command = self.command(cluster, "sub")?;
        command
            .args(["--quiet", "--from", from, "--hash-file"])
            .arg(self.file(&format!("{name}.hashes")))
            .arg("--latency-file")
            .arg(self.file(&format!("{name}.json")));
        Running::start(command, name, self.directory)
    }

    fn publish(&self, cluster: &Cluster, source: &Source) -> Result<Running, Failure> {
        let mut command = self.command(cluster, "pub")?;
        command
            .args(["--publisher", "1", "--json", "--hash-file"])
            .arg(self.file("published.hashes"))
            .args(&source.arguments);
        Running::start(command, "publisher", self.directory)
    }

    /// Waits until a part of the publishing is over, by the clock or because it really is.
    fn wait_until(
        &self,
        begun: Instant,
        part: f64,
        publisher: &mut Running,
    ) -> Result<(), Failure> {
        let until = Duration::from_secs_f64(SECONDS * part);
        while begun.elapsed() < until && publisher.is_running()? {
            self.interrupt.check()?;
            thread::sleep(Duration::from_millis(10));
            self.bar
                .set_position((begun.elapsed().as_secs_f64() * 10.0) as u64);
        }
        Ok(())
    }

    /// Waits until a subscriber has as many messages as were published; that some are missing shows later.
    fn catch_up(&self, source: &Source, child: &mut Running, name: &str) -> Result<(), Failure> {
        let hashes = self.file(&format!("{name}.hashes"));
        let begun = Instant::now();
        while begun.elapsed() < CATCH_UP_WAIT && child.is_running()? {
            let text = fs::read(&hashes).unwrap_or_default();
            if text.iter().filter(|&&byte| byte == b'\n').count() as u64 >= source.messages {
                break;
            }
            self.interrupt.check()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Compares, verifies and puts it all together.
    fn judge(
        &self,
        cluster: &mut Cluster,
        source: &Source,
        outcome: Outcome,
    ) -> Result<Report, Failure> {
        let journals = cluster.stop_and_judge(self.interrupt)?;
        let (comparison, compared_by) = self.compare()?;
        let live: Option<LatencySummary> = fs::read(self.file("live.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let outages_ms: Vec<_> = outcome
            .killed_ns
            .iter()
            .map(|&killed_ns| live.as_ref().map_or(0.0, |live| outage_ms(live, killed_ns)))
            .collect();
        let [first, second] = &comparison.subscribers[..] else {
            return Err(Failure::Failed(
                "the comparison is not of two subscribers".into(),
            ));
        };
        let published = outcome.publisher.published;
        let is_all_journalled = journals
            .journals
            .iter()
            .all(|journal| journal.messages == published);
        Ok(Report {
            messages: source.messages,
            source: source.text.clone(),
            seconds: outcome.publisher.seconds,
            received_live: first.received,
            received_replayed: second.received,
            reordered: first.reordered + second.reordered + first.seq_breaks + second.seq_breaks,
            latency: live.map(|live| live.latency),
            compared_by,
            verified: journals.is_right() && is_all_journalled,
            journals,
            nodes: cluster.size(),
            published,
            acknowledged: outcome.publisher.acknowledged,
            received: first.received.min(second.received),
            lost: first.lost + second.lost,
            duplicated: first.duplicated + second.duplicated,
            altered: first.altered + second.altered,
            outage_ms: outages_ms.iter().copied().fold(0.0, f64::max),
            outages_ms,
        })
    }

    fn compare(&self) -> Result<(Comparison, String), Failure> {
        let published = self.file("published.hashes");
        let received = [self.file("live.hashes"), self.file("replay.hashes")];
        if let Some(script) = &self.options.compare {
            if !script.is_file() {
                return Err(Failure::Usage(format!(
                    "{} is not there; name the script with --compare",
                    script.display()
                )));
            }
            let output = Command::new("python3")
                .arg(script)
                .arg(&published)
                .args(&received)
                .output();
            if let Ok(output) = output {
                let comparison = serde_json::from_slice(&output.stdout).map_err(|error| {
                    let said = String::from_utf8_lossy(&output.stderr);
                    Failure::Failed(format!("{}: {error}; it said: {said}", script.display()))
                })?;
                let name = script.file_name().unwrap_or(script.as_os_str());
                return Ok((comparison, name.to_string_lossy().into_owned()));
            }
        }
        let [live, replay] = &received;
        let comparison = compare_files(&published, &[live, replay])?;
        Ok((comparison, "relay demo".into()))
    }
}

/// From the last message before a kill to the first after it, as a subscriber had them.
fn outage_ms(seen: &LatencySummary, killed_ns: u64) -> f64 {
    let outages = seen.outages.iter();
    let mut after = outages.filter(|outage| outage.next_message_ns > killed_ns);
    after.next().map_or(0.0, |outage| {
        let outage_ns = outage
            .next_message_ns
            .saturating_sub(outage.last_message_ns);
        outage_ns as f64 / 1e6
    })
}
