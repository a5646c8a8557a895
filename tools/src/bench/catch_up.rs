//! `relay bench catch-up`: how fast one comes back that was away for long, and what those pay who were not.
//!
//! ```text
//! subscriber   backlog written | flow: before | flow, and a subscriber reads all from the first message | live
//! --node       flow: before | a follower killed, backlog written | flow: alone | the node started ... in sync
//! ```
//!
//! The flow is open loop all along, and its subscriber live; its p99 while the other catches up stands against that
//! before. A backlog is written as fast as it goes by a second publisher, outside what is measured.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use hdrhistogram::Histogram;
use relay_client::{OutMessage, Publisher, Start, Subscriber};
use serde::Serialize;

use super::flow::{Counts, Flow, FlowLoad};
use super::series::{SUMMARY, Spread, unusual};
use super::trials::{Conditions, FlowOptions, Outcome, OwnOptions, Wanted};
use super::{Shown, check_seconds, journal_bytes};
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::flow::{Random, spread};
use crate::output::{spinner, thousands};
use crate::percentiles::Percentiles;
use crate::servers::{Cluster, Policy, Size, WriteMethod, word};

/// Topic of the backlog.
const TOPIC: &str = "bench.backlog";
/// Journal prepared beyond the backlog.
const PREPARED_SPARE: u64 = 512 << 20;
/// A message this young when it is received came live.
const LIVE_AGE: Duration = Duration::from_millis(50);
/// How often a reader is looked at: less than its flow is measured in.
const LOOK: Duration = Duration::from_millis(1);
/// One look at the clock in so many messages.
const MESSAGES_PER_CLOCK_READING: u64 = 16;
/// Bound on a subscriber's catching up, and on the release of the backlog.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest time without a message that the flow may have.
const GAP_S_MAX: f64 = 10.0;

const EXAMPLES: &str = "\
Examples:
  relay bench catch-up --behind 1GiB
  relay bench catch-up --node --behind 1GiB --rate 2000
  relay bench catch-up --node --nodes 3 --json
  relay bench catch-up --behind 256MiB,1GiB --rate 500,2000 --repeat 5 --report page.html

Flow, backlog and whoever catches up share the machine: where there are no CPUs to spare for the latter, a part of what the
flow pays is theirs and not the relay's. The page, --hgrm and the percentiles of the result are of the flow meanwhile.";

/// Options of `relay bench catch-up`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CatchUpOptions {
    /// A node of a group catches up, not a subscriber
    #[arg(long)]
    node: bool,
    /// Log that it lacks; several are measured in turn
    #[arg(
        long,
        value_name = "SIZE,...",
        value_delimiter = ',',
        default_value = "512MiB"
    )]
    behind: Vec<Size>,
    /// Seconds of the flow that are measured before
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Measure each so many times; the object behind them has medians with the least and the most
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: usize,
    /// Nodes of the group [default: 1, with --node 2]
    #[arg(long, value_name = "1|2|3")]
    nodes: Option<u64>,
    #[command(flatten)]
    flow: FlowOptions,
    #[command(flatten)]
    own: OwnOptions,
}

/// One result.
#[derive(Debug, Serialize)]
struct Report {
    who: &'static str,
    behind_bytes: u64,
    seconds: f64,
    bytes_per_s: f64,
    /// Of a subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog_msgs_per_s: Option<f64>,
    before: Percentiles,
    /// With the lost node away.
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<Percentiles>,
    meanwhile: Percentiles,
    /// Messages that these are of.
    meanwhile_count: u64,
    /// Of the p99 meanwhile to that before.
    p99_ratio: f64,
    #[serde(flatten)]
    conditions: Conditions,
    /// The flow meanwhile, as a page takes it.
    #[serde(flatten)]
    latency: Percentiles,
    #[serde(flatten)]
    shown: Shown,
}

/// What the repeats of one point found.
#[derive(Debug, Serialize)]
struct Summary {
    what: &'static str,
    who: &'static str,
    /// As asked for, bytes.
    behind: u64,
    rate: f64,
    size: usize,
    runs: usize,
    seconds: Spread,
    bytes_per_s: Spread,
    p99_ratio: Spread,
}

/// Runs the command.
pub(super) fn run(options: &CatchUpOptions) -> Result<(), Failure> {
    let (nodes, policy, loads) = options.check()?;
    let interrupt = Interrupt::install()?;
    let count = options.behind.len() * loads.len() * options.repeat;
    options.own.collect(count, |results| {
        for &behind in &options.behind {
            for load in &loads {
                let first = results.all.len();
                for _ in 0..options.repeat {
                    let point = Point {
                        options,
                        nodes,
                        policy,
                        behind,
                        load: options.flow.next(load, results),
                        interrupt: &interrupt,
                    };
                    let (report, meanwhile) = point.measure()?;
                    results.write_hgrm(&meanwhile)?;
                    results.note(report)?;
                }
                if options.repeat > 1 {
                    let summary = Summary::of(behind, load, &results.all[first..]);
                    results.say(&summary, &[summary.text()])?;
                }
            }
        }
        Ok(())
    })
}

impl CatchUpOptions {
    fn check(&self) -> Result<(u64, Policy, Vec<FlowLoad>), Failure> {
        check_seconds("--seconds", self.seconds, 0.1)?;
        if !(1..=1_000).contains(&self.repeat) {
            let text = format!("--repeat takes 1 to 1,000, not {}", self.repeat);
            return Err(Failure::Usage(text));
        }
        let nodes = self.nodes.unwrap_or(1 + u64::from(self.node));
        if self.node && nodes == 1 {
            let text = "one node has nobody to catch up with; give --nodes 2 or 3";
            return Err(Failure::Usage(text.into()));
        }
        let (policy, shape) = self.flow.check(nodes, GAP_S_MAX)?;
        Ok((nodes, policy, self.flow.loads(&shape)))
    }

    fn who(&self) -> &'static str {
        if self.node { "node" } else { "subscriber" }
    }
}

/// One measurement to be made.
struct Point<'a> {
    options: &'a CatchUpOptions,
    nodes: u64,
    policy: Policy,
    behind: Size,
    load: FlowLoad,
    interrupt: &'a Interrupt,
}

/// What was found about it.
struct Found {
    bytes: u64,
    messages: Option<u64>,
    took: Duration,
    before: Percentiles,
    alone: Option<Percentiles>,
    meanwhile: Histogram<u64>,
}

impl Point<'_> {
    /// The result, and how long messages took meanwhile.
    fn measure(&self) -> Result<(Report, Histogram<u64>), Failure> {
        let options = self.options;
        let (_directory, mut cluster) = options.own.prepare(&Wanted {
            nodes: self.nodes,
            policy: self.policy,
            write_method: options.own.write_method.unwrap_or(WriteMethod::Auto),
            prepared: Size(self.behind.0 + PREPARED_SPARE),
            publishers: 2,
            is_separable: false,
        })?;
        cluster.start(self.interrupt)?;
        let (found, counts) = if options.node {
            self.of_a_node(&mut cluster)?
        } else {
            self.of_a_subscriber(&cluster)?
        };
        let journals = cluster.stop_and_judge(self.interrupt)?;
        let per_s = |count: u64| count as f64 / found.took.as_secs_f64();
        let meanwhile = Percentiles::of(&found.meanwhile);
        let report = Report {
            who: options.who(),
            behind_bytes: found.bytes,
            seconds: found.took.as_secs_f64(),
            bytes_per_s: per_s(found.bytes),
            backlog_msgs_per_s: found.messages.map(per_s),
            p99_ratio: meanwhile.p99_us / found.before.p99_us,
            before: found.before,
            alone: found.alone,
            meanwhile,
            meanwhile_count: found.meanwhile.len(),
            conditions: Conditions::new(
                &options.own,
                &options.flow,
                &self.load,
                (self.nodes, self.policy),
                (counts, journals),
            ),
            latency: meanwhile,
            shown: self.shown(&found.meanwhile),
        };
        Ok((report, found.meanwhile))
    }

    fn shown(&self, meanwhile: &Histogram<u64>) -> Shown {
        let usual_nodes = 1 + u64::from(self.policy != Policy::Local);
        let name = format!(
            "relay {}{}, a {} {} behind{}{}",
            word(&self.policy),
            unusual(&[(self.nodes, usual_nodes, "nodes")]),
            self.options.who(),
            self.behind,
            self.options.own.label(),
            self.options.flow.label(self.load.size)
        );
        Shown::of("catch-up", name, Some(self.load.rate), meanwhile)
            .holding(self.policy, self.nodes)
    }

    fn of_a_subscriber(&self, cluster: &Cluster) -> Result<(Found, Counts), Failure> {
        self.write_backlog(cluster)?;
        let mut flow = Flow::start(cluster, self.load.clone())?;
        let before = self.steady(&mut flow)?;
        let config = cluster
            .subscriber()
            .subscriber(vec![">".into()], Start::Earliest);
        let reader = thread::Builder::new()
            .name("catching-up".into())
            .spawn(move || read_until_live(Subscriber::connect(config)?))
            .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;
        let bar = spinner("a subscriber catches up");
        while !reader.is_finished() {
            self.interrupt.check()?;
            thread::sleep(LOOK);
        }
        let read = reader.join();
        bar.finish_and_clear();
        let read = read.map_err(|_| Failure::Failed("the subscriber panicked".into()))??;
        flow.await_due(Duration::ZERO, self.interrupt)?;
        let meanwhile = flow.take_latency();
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
        let mut flow = Flow::start(cluster, self.load.clone())?;
        let before = self.steady(&mut flow)?;
        let (leader, _) = cluster.await_leader(0, self.interrupt)?;
        let victim = (leader + 1) % cluster.size();
        cluster.kill(victim);
        let stands = position(cluster, victim, "durable")?;
        self.write_backlog(cluster)?;
        let alone = self.steady(&mut flow)?;
        let (leader, _) = cluster.await_leader(0, self.interrupt)?;
        let released = position(cluster, leader, "released")?;
        let bar = spinner("a node catches up");
        let begun = Instant::now();
        cluster.start_node(victim)?;
        cluster.await_in_sync(self.interrupt)?;
        let took = begun.elapsed();
        flow.await_due(Duration::ZERO, self.interrupt)?;
        let meanwhile = flow.take_latency();
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
    fn steady(&self, flow: &mut Flow) -> Result<Percentiles, Failure> {
        flow.await_more(self.load.rate as u64 + 1, self.interrupt)?;
        flow.take_latency();
        let messages = (self.load.rate * self.options.seconds) as u64 + 1;
        flow.await_more(messages, self.interrupt)?;
        Ok(Percentiles::of(&flow.take_latency()))
    }

    /// Publishes until the log is longer by what was asked for, and waits until it is released.
    fn write_backlog(&self, cluster: &Cluster) -> Result<(), Failure> {
        let bar = spinner("writing a backlog");
        let mut publisher = Publisher::connect(cluster.publisher(2).publisher(2))?;
        let topic = publisher.topic(TOPIC)?;
        let mut payload = vec![0; self.load.size];
        let mut random = Random::new(2);
        let messages = self.behind.0.div_ceil(journal_bytes(self.load.size));
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
    let mut has_waited = false;
    while begun.elapsed() < PATIENCE {
        let Some(delivery) = subscriber.next_within(LIVE_AGE)? else {
            has_waited = true;
            continue;
        };
        messages += 1;
        bytes += delivery.record.stride() as u64;
        // Whoever had to wait for a message has read all that was there.
        if messages % MESSAGES_PER_CLOCK_READING > 0 && !has_waited {
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

impl Outcome for Report {
    fn text(&self) -> Vec<String> {
        let head = format!(
            "a {} that lacks {} bytes, beside",
            self.who,
            thousands(self.behind_bytes)
        );
        let messages = self.backlog_msgs_per_s.map_or(String::new(), |rate| {
            format!(", {} msg/s", thousands(rate as u64))
        });
        let mut lines = Vec::from(self.conditions.head(&head));
        lines.push(format!(
            "caught up in {:.2} s: {:.1} MB/s{messages}",
            self.seconds,
            self.bytes_per_s / 1e6
        ));
        lines.push(Percentiles::HEAD.into());
        lines.push(self.before.row("flow before us"));
        if let Some(alone) = &self.alone {
            lines.push(alone.row("flow without the node us"));
        }
        lines.push(self.meanwhile.row("flow meanwhile us"));
        lines.push(format!(
            "p99 meanwhile is {:.2} of that before, over {} messages; {}",
            self.p99_ratio,
            thousands(self.meanwhile_count),
            self.conditions.tail()
        ));
        lines
    }

    fn check(&self) -> Result<(), Failure> {
        self.conditions.check()
    }
}

impl Summary {
    fn of(behind: Size, load: &FlowLoad, runs: &[Report]) -> Self {
        let spread = |value: fn(&Report) -> f64| Spread::of(runs.iter().map(value));
        Self {
            what: SUMMARY,
            who: runs[0].who,
            behind: behind.0,
            rate: load.rate,
            size: load.size,
            runs: runs.len(),
            seconds: spread(|run| run.seconds),
            bytes_per_s: spread(|run| run.bytes_per_s),
            p99_ratio: spread(|run| run.p99_ratio),
        }
    }

    fn text(&self) -> String {
        let text = |spread: Spread, unit: f64| {
            let of = |value: f64| format!("{:.2}", value / unit);
            format!(
                "{} ({}..{})",
                of(spread.median),
                of(spread.least),
                of(spread.most)
            )
        };
        format!(
            "a {} {} bytes behind, beside {} msg/s of {} bytes, median (least..most) of {}: caught up in {} s, {} MB/s, p99 \
             meanwhile {} of that before",
            self.who,
            thousands(self.behind),
            self.rate,
            self.size,
            self.runs,
            text(self.seconds, 1.0),
            text(self.bytes_per_s, 1e6),
            text(self.p99_ratio, 1.0)
        )
    }
}
