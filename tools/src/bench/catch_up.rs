//! `relay bench catch-up`: how fast one comes back that was away for long, and what those pay who were not.
//!
//! ```text
//! subscriber   backlog written | flow: before | flow, and a subscriber reads all from the first message | live
//! --node       flow: before | a follower killed, backlog written | flow: alone | the node started ... in sync
//! ```
//!
//! The flow is open loop and steady all along, and its subscriber live; its p99 while the other catches up stands against that
//! before. A backlog is written as fast as it goes by a second publisher, outside what is measured.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use relay_client::{OutMessage, Publisher, Start, Subscriber};
use serde::Serialize;

use super::flow::{Counts, Flow};
use super::{
    MachineReport, check_journals, check_load, check_policy, check_seconds, journal_bytes, scratch,
};
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::flow::{Random, spread};
use crate::output::{json_line, line, spinner, thousands};
use crate::percentiles::Percentiles;
use crate::servers::{
    Background, Cluster, ClusterSettings, Idle, Mode, NodeSettings, Policy, Size, WriteMethod,
    find_relayd, word,
};

/// Topic of the backlog.
const TOPIC: &str = "bench.backlog";
/// Journal prepared beyond the backlog.
const PREPARED_SPARE: u64 = 512 << 20;
/// A message this young when it is received came live.
const LIVE_AGE: Duration = Duration::from_millis(50);
/// One look at the clock in so many messages.
const MESSAGES_PER_CLOCK_READING: u64 = 16;
/// Bound on a subscriber's catching up, and on the release of the backlog.
const PATIENCE: Duration = Duration::from_secs(600);

const EXAMPLES: &str = "\
Examples:
  relay bench catch-up --behind 1GiB
  relay bench catch-up --node --behind 1GiB --rate 2000
  relay bench catch-up --node --nodes 3 --json

Flow, backlog and whoever catches up share the machine: where there are no CPUs to spare for the latter, a part of what the
flow pays is theirs and not the relay's.";

/// Options of `relay bench catch-up`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CatchUpOptions {
    /// A node of a group catches up, not a subscriber
    #[arg(long)]
    node: bool,
    /// Log that it lacks
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    behind: Size,
    /// Messages per second of the flow
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    rate: f64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    size: usize,
    /// Seconds of the flow that are measured before
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Nodes of the group [default: 1, with --node 2]
    #[arg(long, value_name = "1|2|3")]
    nodes: Option<u64>,
    /// What a message waits for [default: local, or durable for several nodes]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// How relayd spreads its agents over threads
    #[arg(long, value_enum, default_value_t = Mode::Shared)]
    mode: Mode,
    /// What relayd's threads do when idle
    #[arg(long, value_enum, default_value_t = Idle::Park)]
    idle: Idle,
    /// How writes are made durable
    #[arg(long, value_enum, default_value_t = WriteMethod::Auto)]
    write_method: WriteMethod,
    /// Directory in which the journals are made and removed again
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    who: &'static str,
    behind_bytes: u64,
    seconds: f64,
    bytes_per_s: f64,
    /// Of a subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    msgs_per_s: Option<f64>,
    before: Percentiles,
    /// With the lost node away.
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<Percentiles>,
    meanwhile: Percentiles,
    /// Of the p99 meanwhile to that before.
    p99_ratio: f64,
    sent: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    disordered: u64,
    verified: bool,
    rate: f64,
    size: usize,
    nodes: u64,
    policy: String,
    idle: String,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &CatchUpOptions) -> Result<(), Failure> {
    let (nodes, policy) = options.check()?;
    let relayd = find_relayd(options.relayd.as_deref())?;
    let directory = scratch(options.dir.as_deref())?;
    let interrupt = Interrupt::install()?;
    let settings = ClusterSettings {
        nodes: nodes as usize,
        streams: 1,
        cpus: Vec::new(),
        node: NodeSettings {
            mode: options.mode,
            idle: options.idle,
            policy,
            write_method: options.write_method,
            prepared: Size(options.behind.0 + PREPARED_SPARE),
            background: Background::Usual,
            publishers: 2,
        },
        is_separable: false,
    };
    let mut cluster = Cluster::prepare(&relayd, directory.path(), &settings)?;
    cluster.start(&interrupt)?;
    let trial = Trial {
        options,
        interrupt: &interrupt,
    };
    let (found, counts) = if options.node {
        trial.of_a_node(&mut cluster)?
    } else {
        trial.of_a_subscriber(&cluster)?
    };
    let journals = cluster.stop_and_judge(&interrupt)?;
    let report = Report {
        who: if options.node { "node" } else { "subscriber" },
        behind_bytes: found.bytes,
        seconds: found.took.as_secs_f64(),
        bytes_per_s: found.bytes as f64 / found.took.as_secs_f64(),
        msgs_per_s: found
            .messages
            .map(|messages| messages as f64 / found.took.as_secs_f64()),
        p99_ratio: found.meanwhile.p99_us / found.before.p99_us,
        before: found.before,
        alone: found.alone,
        meanwhile: found.meanwhile,
        sent: counts.sent,
        received: counts.received,
        lost: counts.lost,
        duplicated: counts.duplicated,
        disordered: counts.disordered,
        verified: journals.is_right(),
        rate: options.rate,
        size: options.size,
        nodes,
        policy: word(&policy),
        idle: word(&options.idle),
        machine: MachineReport::new(),
    };
    report.print(options.json)?;
    if report.lost + report.duplicated + report.disordered > 0 {
        return Err(Failure::Damaged(format!(
            "{} messages lost, {} duplicated, {} out of order",
            report.lost, report.duplicated, report.disordered
        )));
    }
    check_journals(Some(&journals))
}

impl CatchUpOptions {
    fn check(&self) -> Result<(u64, Policy), Failure> {
        check_load(self.size, 1, 1)?;
        check_seconds("--seconds", self.seconds, 0.1)?;
        if !(self.rate.is_finite() && (10.0..=100_000.0).contains(&self.rate)) {
            let text = format!("--rate takes 10 to 100,000, not {}", self.rate);
            return Err(Failure::Usage(text));
        }
        let nodes = self.nodes.unwrap_or(1 + u64::from(self.node));
        if self.node && nodes == 1 {
            let text = "one node has nobody to catch up with; give --nodes 2 or 3";
            return Err(Failure::Usage(text.into()));
        }
        let policy = check_policy(nodes, super::NODES_MAX, self.policy)?;
        Ok((nodes, policy))
    }
}

/// What a trial found.
struct Found {
    bytes: u64,
    messages: Option<u64>,
    took: Duration,
    before: Percentiles,
    alone: Option<Percentiles>,
    meanwhile: Percentiles,
}

struct Trial<'a> {
    options: &'a CatchUpOptions,
    interrupt: &'a Interrupt,
}

impl Trial<'_> {
    fn of_a_subscriber(&self, cluster: &Cluster) -> Result<(Found, Counts), Failure> {
        self.write_backlog(cluster)?;
        let flow = Flow::start(cluster, self.options.rate, self.options.size)?;
        let before = self.steady(&flow)?;
        let config = cluster
            .subscriber()
            .subscriber(vec![">".into()], Start::Earliest);
        let reader = thread::Builder::new()
            .name("catching-up".into())
            .spawn(move || read_until_live(Subscriber::connect(config)?))
            .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;
        let bar = spinner("a subscriber catches up");
        let read = reader.join();
        let meanwhile = Percentiles::of(&flow.take_latency());
        bar.finish_and_clear();
        let read = read.map_err(|_| Failure::Failed("the subscriber panicked".into()))??;
        let found = Found {
            bytes: read.bytes,
            messages: Some(read.messages),
            took: read.took,
            before,
            alone: None,
            meanwhile,
        };
        Ok((found, flow.finish()?))
    }

    fn of_a_node(&self, cluster: &mut Cluster) -> Result<(Found, Counts), Failure> {
        let flow = Flow::start(cluster, self.options.rate, self.options.size)?;
        let before = self.steady(&flow)?;
        let (leader, _) = cluster.await_leader(0, self.interrupt)?;
        let victim = (leader + 1) % cluster.size();
        cluster.kill(victim);
        let stands = position(cluster, victim, "durable")?;
        self.write_backlog(cluster)?;
        let alone = self.steady(&flow)?;
        let (leader, _) = cluster.await_leader(0, self.interrupt)?;
        let released = position(cluster, leader, "released")?;
        let bar = spinner("a node catches up");
        let begun = Instant::now();
        cluster.start_node(victim)?;
        cluster.await_in_sync(self.interrupt)?;
        let took = begun.elapsed();
        let meanwhile = Percentiles::of(&flow.take_latency());
        bar.finish_and_clear();
        let found = Found {
            bytes: released.saturating_sub(stands),
            messages: None,
            took,
            before,
            alone: Some(alone),
            meanwhile,
        };
        Ok((found, flow.finish()?))
    }

    /// The flow by itself for a while, after a second that is left out.
    fn steady(&self, flow: &Flow) -> Result<Percentiles, Failure> {
        flow.await_more(self.options.rate as u64 + 1, self.interrupt)?;
        flow.take_latency();
        let messages = (self.options.rate * self.options.seconds) as u64 + 1;
        flow.await_more(messages, self.interrupt)?;
        Ok(Percentiles::of(&flow.take_latency()))
    }

    /// Publishes until the log is longer by what was asked for, and waits until it is released.
    fn write_backlog(&self, cluster: &Cluster) -> Result<(), Failure> {
        let bar = spinner("writing a backlog");
        let mut publisher = Publisher::connect(cluster.publisher(2).publisher(2))?;
        let topic = publisher.topic(TOPIC)?;
        let mut payload = vec![0; self.options.size];
        let mut random = Random::new(2);
        let messages = self
            .options
            .behind
            .0
            .div_ceil(journal_bytes(self.options.size));
        for number in 0..messages {
            if number.is_multiple_of(4096) {
                self.interrupt.check()?;
                spread(random.next(), &mut payload);
            }
            publisher.send(&OutMessage::new(topic, &payload))?;
        }
        if !publisher.wait_released(PATIENCE)? {
            return Err(Failure::Failed("the backlog was never released".into()));
        }
        publisher.close()?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// What a node's counters say, running or not.
fn position(cluster: &Cluster, place: usize, what: &str) -> Result<u64, Failure> {
    let directory = cluster.stream_directories().swap_remove(place);
    let counters = Counters::read(&directory)?;
    let label = format!("position.{what}");
    counters
        .value(&label)
        .ok_or_else(|| Failure::Failed(format!("{label} is not among the counters")))
}

/// What a subscriber read until it was live.
struct Read {
    messages: u64,
    bytes: u64,
    took: Duration,
}

fn read_until_live(mut subscriber: Subscriber) -> Result<Read, Failure> {
    let begun = Instant::now();
    let (mut messages, mut bytes) = (0, 0);
    while begun.elapsed() < PATIENCE {
        let Some(delivery) = subscriber.next_within(LIVE_AGE)? else {
            continue;
        };
        messages += 1;
        bytes += delivery.record.stride() as u64;
        if messages % MESSAGES_PER_CLOCK_READING > 0 {
            continue;
        }
        let received = Duration::from_nanos(delivery.record.receive_time_ns());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        if now.unwrap_or_default().saturating_sub(received) < LIVE_AGE {
            return Ok(Read {
                messages,
                bytes,
                took: begun.elapsed(),
            });
        }
    }
    let text = format!(
        "the subscriber was not live within {} s",
        PATIENCE.as_secs()
    );
    Err(Failure::Failed(text))
}

impl Report {
    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line(&self.machine.text())?;
        line(&format!(
            "a {} that lacks {} bytes, beside {} msg/s of {} bytes: {} nodes, {}, idle {}",
            self.who,
            thousands(self.behind_bytes),
            self.rate,
            self.size,
            self.nodes,
            self.policy,
            self.idle
        ))?;
        let messages = self.msgs_per_s.map_or(String::new(), |rate| {
            format!(", {} msg/s", thousands(rate as u64))
        });
        line(&format!(
            "caught up in {:.2} s: {:.1} MB/s{messages}",
            self.seconds,
            self.bytes_per_s / 1e6
        ))?;
        line(Percentiles::HEAD)?;
        line(&self.before.row("flow before us"))?;
        if let Some(alone) = &self.alone {
            line(&alone.row("flow without the node us"))?;
        }
        line(&self.meanwhile.row("flow meanwhile us"))?;
        line(&format!(
            "p99 meanwhile is {:.2} of that before; sent {}, received {}, lost {}, duplicated {}, out of order {}, {}",
            self.p99_ratio,
            thousands(self.sent),
            thousands(self.received),
            self.lost,
            self.duplicated,
            self.disordered,
            if self.verified {
                "journals verified"
            } else {
                "journals NOT RIGHT"
            }
        ))
    }
}
