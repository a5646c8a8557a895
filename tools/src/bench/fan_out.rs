//! `relay bench fan-out`: a stream, or several of one relayd, and many clients: what a delivery costs, and what slow subscribers do to fast ones.
//!
//! Open loop, as `relay bench latency`; the clients are a [`crowd`](super::crowd) on one thread. Beside the latency stand relayd's
//! CPU time and memory, read from `/proc`: CPU says something only with `--idle park`, since a thread that spins or yields
//! takes all there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::crowd::{Counts, Crowd, Plan, Progress, Shape};
use super::load::{self, Clock};
use super::process::ProcessUse;
use super::{MachineReport, SettingsReport, Target, TargetOptions, check_load, check_seconds};
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, thousands};
use crate::percentiles::{AckPercentiles, Percentiles, new_histogram};
use crate::servers::Size;

/// Journals prepared for a run, all streams' together: as many streams as there may be have a small segment each.
const PREPARED: Size = Size(256 << 20);
const STREAMS_MOST: usize = 16;
/// Between everybody being connected and the first message.
const LEAD_NS: u64 = 100_000_000;
/// What one stream takes of each by default.
const SUBSCRIBERS_MOST: usize = 512;
const PUBLISHERS_MOST: usize = 10_000;
const TOPICS_MOST: usize = 100_000;
/// Longest SUBSCRIBE by far: 64 KiB.
const PATTERNS_MOST: usize = 2_000;
/// Topics are asked for on each publisher's connection.
const REQUESTS_MOST: usize = 1_000_000;

const EXAMPLES: &str = "\
Examples:
  relay bench fan-out --subscribers 100 --rate 1000 --idle park
  relay bench fan-out --subscribers 100 --topics 1000 --patterns 10
  relay bench fan-out --subscribers 10 --topics 1000 --patterns 1000 --matching 10
  relay bench fan-out --subscribers 20 --slow 2 --rate 2000
  relay bench fan-out --publishers 1000 --subscribers 1 --idle park --json
  relay bench fan-out --streams 4 --subscribers 1 --idle park

With --patterns P the subscriber at place S, from 0, names the topics from S x P on, one pattern each, around the end of the
list and on from its start; with --matching M the first M patterns do, and to the others nothing is ever published.";

/// Options of `relay bench fan-out`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FanOutOptions {
    /// Streams of the one relayd, which share the rate; clients and topics are those of each
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with = "connect"
    )]
    streams: usize,
    /// Subscribers of the stream
    #[arg(long, value_name = "N", default_value_t = 10)]
    subscribers: usize,
    /// Of them, so many that take only a part of what they want
    #[arg(long, value_name = "K", default_value_t = 0)]
    slow: usize,
    /// The part that a slow one takes
    #[arg(long, value_name = "PART", default_value_t = 0.1)]
    slow_share: f64,
    /// Patterns of each subscriber; without it each takes everything, unfiltered
    #[arg(long, value_name = "P")]
    patterns: Option<usize>,
    /// Of its patterns, so many that select a topic [default: all]
    #[arg(long, value_name = "M", requires = "patterns")]
    matching: Option<usize>,
    /// One of the patterns selects all topics, so that everybody filters and receives everything
    #[arg(long, requires = "patterns", conflicts_with = "matching")]
    wildcard: bool,
    /// Topics, over which messages are spread evenly
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: usize,
    /// Publishers, each with a connection; they take turns
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: usize,
    /// Messages per second of all publishers and streams together
    #[arg(long, value_name = "N", default_value_t = 500.0)]
    rate: f64,
    /// Seconds measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same load before them, left out
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    size: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetOptions,
}

/// The last line of `--json`. CPU and memory are relayd's, of the primary in a group; they are missing where its process is not known.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    latency: Percentiles,
    /// Of the stream where it is most.
    stream_p99_us_max: f64,
    #[serde(flatten)]
    acks: AckPercentiles,
    lateness_p99_us: f64,
    offered: u64,
    /// Of measured messages to subscribers that are not slow.
    deliveries: u64,
    deliveries_per_s: f64,
    /// Of them, by stream.
    stream_deliveries: Vec<u64>,
    lost: u64,
    repeated: u64,
    connections_lost: Vec<String>,
    epoch_changes: u64,
    /// Of one CPU.
    cpu_share: Option<f64>,
    cpu_us_per_message: Option<f64>,
    /// Before the load, after it, and the most.
    resident_before: Option<u64>,
    resident: Option<u64>,
    resident_peak: Option<u64>,
    slow_wanted: u64,
    slow_received: u64,
    /// These share the rate; clients and topics are those of each.
    streams: usize,
    subscribers: usize,
    slow: usize,
    patterns: Option<usize>,
    matching: Option<usize>,
    wildcard: bool,
    topics: usize,
    publishers: usize,
    rate: f64,
    seconds: f64,
    size: usize,
    settings: SettingsReport,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &FanOutOptions) -> Result<(), Failure> {
    options.check()?;
    let interrupt = Interrupt::install()?;
    let mut target = options.target.open(
        options.streams,
        options.publishers as u64,
        Size(PREPARED.0 / options.streams as u64),
        &interrupt,
    )?;
    let shared = Arc::new(Progress::default());
    let plan = options.plan();
    let crowd = Crowd::connect(&target, options.shape(), plan, Arc::clone(&shared))?;
    let cpu = target.placement.client_cpu;
    let worker = thread::Builder::new().name("bench-client".into());
    let worker = worker
        .spawn(move || {
            let mut crowd = crowd;
            load::pin(cpu)?;
            crowd.start_at(plan.clock.now_ns() + LEAD_NS);
            crowd.run().map(|()| crowd)
        })
        .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;

    let mut watch = Watch::new(&target);
    let bar = progress(plan.total, "measuring");
    while !worker.is_finished() {
        thread::sleep(Duration::from_millis(5));
        if interrupt.is_set() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let sent = shared.sent.load(Ordering::Relaxed);
        bar.set_position(sent);
        watch.look(sent, &plan);
    }
    bar.finish_and_clear();
    let mut crowd = worker
        .join()
        .map_err(|_| Failure::Failed("the client panicked".into()))??;
    interrupt.check()?;
    let settings = options.target.settings(&target);
    let mut report = options.report(&mut crowd, &watch, settings);
    report.epoch_changes = target.epoch_changes();
    drop(crowd);
    target.stop(false, &interrupt)?;
    report.print(options.json)?;
    if report.lost + report.repeated > 0 {
        return Err(Failure::Damaged(format!(
            "{} deliveries lost, {} repeated or out of order; connections lost: {:?}",
            report.lost, report.repeated, report.connections_lost
        )));
    }
    Ok(())
}

/// Refuses what is not within its bounds.
fn check_count(option: &str, count: usize, least: usize, most: usize) -> Result<(), Failure> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{option} takes {least} to {}, not {count}",
        thousands(most as u64)
    )))
}

impl FanOutOptions {
    fn check(&self) -> Result<(), Failure> {
        check_seconds("--seconds", self.seconds, 0.01)?;
        check_seconds("--warmup", self.warmup, 0.0)?;
        check_load(self.size, 1, 1)?;
        check_count("--streams", self.streams, 1, STREAMS_MOST)?;
        if self.streams > 1 && self.target.nodes > 1 {
            return Err(Failure::Usage(
                "several streams are those of one node; give --streams or --nodes, not both".into(),
            ));
        }
        check_count("--subscribers", self.subscribers, 1, SUBSCRIBERS_MOST)?;
        check_count("--slow", self.slow, 0, self.subscribers - 1)?;
        check_count("--publishers", self.publishers, 1, PUBLISHERS_MOST)?;
        check_count("--topics", self.topics, 1, TOPICS_MOST)?;
        let patterns = self.patterns.unwrap_or(1);
        check_count("--patterns", patterns, 1, PATTERNS_MOST)?;
        check_count("--matching", self.matching.unwrap_or(1), 1, patterns)?;
        if self.streams * self.publishers * self.topics > REQUESTS_MOST {
            return Err(Failure::Usage(format!(
                "--streams times --publishers times --topics is {} at most: each publisher asks for each topic",
                thousands(REQUESTS_MOST as u64)
            )));
        }
        if !(self.rate.is_finite() && (1.0..=1e7).contains(&self.rate)) {
            return Err(Failure::Usage(format!(
                "--rate takes 1 to 1e7, not {}",
                self.rate
            )));
        }
        if !(0.0001..=1.0).contains(&self.slow_share) {
            return Err(Failure::Usage(format!(
                "--slow-share takes 0.0001 to 1, not {}",
                self.slow_share
            )));
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape {
            streams: self.streams,
            publishers: self.streams * self.publishers,
            topics: self.topics,
            subscribers: self.streams * self.subscribers,
            slow: self.streams * self.slow,
            slow_share: self.slow_share,
            patterns: self.patterns,
            matching: self.matching.or(self.patterns).unwrap_or(0),
            has_wildcard: self.wildcard,
        }
    }

    /// Patterns of each that select something.
    fn matching(&self) -> Option<usize> {
        let patterns = self.patterns?;
        let usual = if self.wildcard { 1 } else { patterns };
        Some(self.matching.unwrap_or(usual))
    }

    fn plan(&self) -> Plan {
        let measured_from = (self.rate * self.warmup).round() as u64;
        let measured = ((self.rate * self.seconds).round() as u64).max(1);
        Plan {
            clock: Clock::new(),
            start_ns: 0,
            interval_ns: 1e9 / self.rate,
            total: measured_from + measured,
            measured_from,
            size: self.size,
            idle: self.target.idle,
        }
    }

    fn report(&self, crowd: &mut Crowd, watch: &Watch, settings: SettingsReport) -> Report {
        let Counts {
            lost,
            repeated,
            slow_wanted,
            slow_received,
        } = crowd.counts();
        let span_s = crowd.seen.last_ns.saturating_sub(crowd.measured_from_ns()) as f64 / 1e9;
        let seen = &crowd.seen;
        let mut latency = new_histogram();
        for of_stream in &seen.latency {
            latency.add(of_stream).expect("all have the same bounds");
        }
        let p99_us = seen.latency.iter().map(|it| Percentiles::of(it).p99_us);
        Report {
            latency: Percentiles::of(&latency),
            stream_p99_us_max: p99_us.fold(0.0, f64::max),
            acks: Percentiles::of(&seen.ack_latency).of_acks(),
            lateness_p99_us: Percentiles::of(&seen.lateness).p99_us,
            offered: (self.rate * self.seconds).round() as u64,
            deliveries: latency.len(),
            deliveries_per_s: latency.len() as f64 / span_s.max(1e-9),
            stream_deliveries: seen.latency.iter().map(Histogram::len).collect(),
            lost,
            repeated,
            connections_lost: crowd.losses(),
            epoch_changes: 0,
            cpu_share: watch.cpu_share(),
            cpu_us_per_message: watch.cpu_us_per_message(),
            resident_before: watch.before.map(|used| used.resident),
            resident: watch.last.map(|(_, _, used)| used.resident),
            resident_peak: watch.last.map(|(_, _, used)| used.resident_peak),
            slow_wanted,
            slow_received,
            streams: self.streams,
            subscribers: self.subscribers,
            slow: self.slow,
            patterns: self.patterns,
            matching: self.matching(),
            wildcard: self.wildcard,
            topics: self.topics,
            publishers: self.publishers,
            rate: self.rate,
            seconds: self.seconds,
            size: self.size,
            settings,
            machine: MachineReport::new(),
        }
    }
}

/// A moment, the messages sent by then, and what relayd had taken.
type Reading = (Instant, u64, ProcessUse);

/// Looks at relayd while it is measured.
struct Watch {
    pid: Option<u64>,
    before: Option<ProcessUse>,
    first: Option<Reading>,
    last: Option<Reading>,
    is_over: bool,
}

impl Watch {
    fn new(target: &Target) -> Self {
        let counters = target.stream_directory.as_deref().map(Counters::read);
        let pid = counters.and_then(Result::ok).map(|counters| counters.pid);
        Self {
            pid,
            before: pid.and_then(ProcessUse::read),
            first: None,
            last: None,
            is_over: false,
        }
    }

    /// Reads at the first measured message, and again until the last is sent.
    fn look(&mut self, sent: u64, plan: &Plan) {
        if sent < plan.measured_from || self.is_over {
            return;
        }
        let Some(used) = self.pid.and_then(ProcessUse::read) else {
            return;
        };
        let reading = (Instant::now(), sent, used);
        self.first.get_or_insert(reading);
        self.last = Some(reading);
        self.is_over = sent == plan.total;
    }

    fn cpu_share(&self) -> Option<f64> {
        let (from, _, before) = self.first?;
        let (to, _, after) = self.last?;
        let wall = to.duration_since(from).as_secs_f64();
        (wall > 0.0).then(|| (after.cpu_seconds - before.cpu_seconds) / wall)
    }

    fn cpu_us_per_message(&self) -> Option<f64> {
        let (_, first, before) = self.first?;
        let (_, last, after) = self.last?;
        let taken = after.cpu_seconds - before.cpu_seconds;
        (last > first).then(|| taken * 1e6 / (last - first) as f64)
    }
}

impl Report {
    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line(&self.machine.text())?;
        line(&self.settings.placement.text())?;
        let filter = self.patterns.map_or("unfiltered".into(), |patterns| {
            format!(
                "{patterns} patterns each, {} of which select",
                self.matching.unwrap_or(0)
            )
        });
        line(&format!(
            "{} msg/s of {} bytes for {} s, {} streams, each {} publishers, {} topics, {} subscribers ({} slow), {filter}, idle {}",
            self.rate,
            self.size,
            self.seconds,
            self.streams,
            self.publishers,
            self.topics,
            self.subscribers,
            self.slow,
            self.settings.idle
        ))?;
        line(Percentiles::HEAD)?;
        line(&self.latency.row("publish to subscriber us"))?;
        line(&format!(
            "{} deliveries, {} a second, lost {}, repeated or out of order {}",
            thousands(self.deliveries),
            thousands(self.deliveries_per_s as u64),
            self.lost,
            self.repeated
        ))?;
        if self.streams > 1 {
            let p99_us = self.stream_p99_us_max;
            line(&format!("p99 of the worst stream {p99_us:.1} us"))?;
        }
        if self.slow > 0 {
            line(&format!(
                "slow subscribers took {} of {} messages",
                thousands(self.slow_received),
                thousands(self.slow_wanted)
            ))?;
        }
        let (Some(share), Some(message), Some(before), Some(resident), Some(peak)) = (
            self.cpu_share,
            self.cpu_us_per_message,
            self.resident_before,
            self.resident,
            self.resident_peak,
        ) else {
            return Ok(());
        };
        line(&format!(
            "relayd: {:.1} % of a CPU, {message:.1} us a message; resident {} MiB before, {} after, {} at most",
            100.0 * share,
            before >> 20,
            resident >> 20,
            peak >> 20
        ))
    }
}
