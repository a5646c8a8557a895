//! `relay bench fan-out`: a stream, or several of one relayd, and many clients: what a delivery costs, and what slow subscribers do to fast ones.
//!
//! Open loop, as `relay bench latency`; the clients are a [`crowd`](super::crowd) on one thread. Beside the latency stand relayd's
//! CPU time and memory, read from `/proc`: CPU says something only with `--idle park`, since a thread that spins or yields
//! takes all there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::client_thread::{ClientThread, Progress};
use super::crowd::{Counts, Crowd, Plan, Shape};
use super::load::Clock;
use super::over_time::OverTime;
use super::pacing::Schedule;
use super::process::ProcessUse;
use super::series::{Limits, Load, Order, Run, SeriesOptions, Terms, share_in_time, unusual};
use super::{MachineReport, SIZES, SettingsReport, Shown, Target, TargetOptions, check_count};
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, thousands};
use crate::percentiles::{AckPercentiles, Percentiles, new_histogram};
use crate::servers::Size;

/// Journals prepared for a run, all streams' together: as many streams as there may be have a small segment each.
const PREPARED: Size = Size(256 << 20);
/// How often relayd is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between everybody being connected and the first message.
const LEAD_NS: u64 = 100_000_000;
/// What one stream takes of each by default.
const SUBSCRIBERS_MOST: u64 = 512;
const PUBLISHERS_MOST: u64 = 10_000;
/// Of one subscription.
const PATTERNS_MOST: u64 = 1_000;

const EXAMPLES: &str = "\
Examples:
  relay bench fan-out --subscribers 100 --rate 1000 --idle park
  relay bench fan-out --subscribers 100 --topics 1000 --patterns 10
  relay bench fan-out --subscribers 10 --topics 1000 --patterns 1000 --matching 10
  relay bench fan-out --subscribers 20 --slow 2 --rate 2000
  relay bench fan-out --publishers 1000 --subscribers 1 --idle park --json
  relay bench fan-out --streams 4 --subscribers 1 --idle park
  relay bench fan-out --subscribers 100 --rate 100,1000 --repeat 3 --report page.html

With --patterns P the subscriber at place S, from 0, names the topics from S x P on, one pattern each, around the end of the
list and on from its start; with --matching M the first M patterns do, and to the others nothing is ever published.";

/// Options of `relay bench fan-out`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FanOutOptions {
    /// Subscribers of each stream
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
    /// Topics of each stream, over which messages are spread evenly
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: usize,
    /// Publishers of each stream, each with a connection; they take turns
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: usize,
    /// Messages per second of all publishers and streams together; several, as in 500,2000, are measured in turn
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "500"
    )]
    rate: Vec<f64>,
    /// Seconds measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same load before them, left out
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    #[command(flatten)]
    series: SeriesOptions,
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
    /// Messages a second, of which all that want them count as much as they got.
    achieved: f64,
    /// Of measured messages to subscribers that are not slow.
    deliveries: u64,
    deliveries_per_s: f64,
    /// Deliveries of what could not be sent.
    #[serde(skip)]
    undelivered: u64,
    /// Of them, by stream.
    stream_deliveries: Vec<u64>,
    /// What was due and could not be sent until the run was given up.
    unsent: u64,
    lost: u64,
    repeated: u64,
    connections_lost: Vec<String>,
    epoch_changes: Option<u64>,
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
    streams: u64,
    subscribers: usize,
    slow: usize,
    patterns: Option<usize>,
    matching: Option<usize>,
    wildcard: bool,
    topics: usize,
    publishers: usize,
    rate: f64,
    seconds: f64,
    warmup: f64,
    #[serde(flatten)]
    terms: Terms,
    size: usize,
    settings: SettingsReport,
    machine: MachineReport,
    #[serde(flatten)]
    shown: Shown,
}

/// Runs the command.
pub(super) fn run(options: &FanOutOptions) -> Result<(), Failure> {
    options.check()?;
    let interrupt = Interrupt::install()?;
    options
        .series
        .run(&options.rate, |load| options.measure(load, &interrupt))
}

impl FanOutOptions {
    fn check(&self) -> Result<(), Failure> {
        self.series.check(&Limits {
            rates: &self.rate,
            seconds: self.seconds,
            warmup: self.warmup,
            sizes: SIZES,
            // All subscribers share one for each second: they have one thread.
            logs: 1,
        })?;
        let publishers = self.publishers as u64;
        self.target.check(publishers, self.topics as u64)?;
        let subscribers = self.subscribers as u64;
        check_count("--subscribers", subscribers, 1, SUBSCRIBERS_MOST)?;
        check_count("--slow", self.slow as u64, 0, subscribers - 1)?;
        check_count("--publishers", publishers, 1, PUBLISHERS_MOST)?;
        let patterns = self.patterns.unwrap_or(1) as u64;
        check_count("--patterns", patterns, 1, PATTERNS_MOST)?;
        let matching = self.matching.unwrap_or(1) as u64;
        check_count("--matching", matching, 1, patterns)?;
        if !(0.0001..=1.0).contains(&self.slow_share) {
            return Err(Failure::Usage(format!(
                "--slow-share takes 0.0001 to 1, not {}",
                self.slow_share
            )));
        }
        Ok(())
    }

    /// Measures one rate and size.
    fn measure(&self, load: &Load, interrupt: &Interrupt) -> Result<(Run, Report), Failure> {
        let publishers = self.publishers as u64;
        let mut target = self.target.open(publishers, PREPARED, interrupt)?;
        let progress = Arc::new(Progress::default());
        let plan = self.plan(load);
        let crowd = Crowd::connect(&target, self.shape(), plan.clone(), progress.clone())?;
        let thread = ClientThread {
            cpu: target.placement.client_cpu,
            progress,
            total: plan.total,
            look_every: LOOK_EVERY,
            interrupt,
        };
        let mut watch = Watch::new(&target);
        let clock = plan.clock;
        let run = move |crowd: &mut Crowd| {
            crowd.start_at(clock.now_ns() + LEAD_NS);
            crowd.run()
        };
        let mut crowd = thread.run(crowd, run, |sent| watch.look(sent, &plan))?;
        let settings = self.target.settings(&target);
        let mut report = self.report(load, &plan, &mut crowd, &watch, settings)?;
        report.epoch_changes = target.epoch_changes();
        let last_due_ns = crowd.last_due_ns();
        let late_ns = crowd.seen.last_ns.saturating_sub(last_due_ns);
        drop(crowd);
        target.stop(false, interrupt)?;
        report.print(self.series.json)?;
        let damage = (report.repeated > 0).then(|| {
            format!(
                "{} deliveries repeated or out of order, {} lost; connections lost: {:?}",
                report.repeated, report.lost, report.connections_lost
            )
        });
        let run = Run {
            latency: report.latency,
            achieved: report.achieved,
            share: share_in_time(report.delivered_share(), self.seconds, late_ns),
            unsent: report.unsent,
            order: Order {
                lost: report.lost,
                ..Order::default()
            },
            connections_lost: report.connections_lost.clone(),
            damage,
        };
        Ok((run, report))
    }

    fn shape(&self) -> Shape {
        let streams = self.target.streams as usize;
        Shape {
            streams,
            publishers: streams * self.publishers,
            topics: self.topics,
            subscribers: streams * self.subscribers,
            slow: streams * self.slow,
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

    fn plan(&self, load: &Load) -> Plan {
        let rate = load.rate.expect("there is a default");
        let schedule = Schedule::new(0, rate, load.shape.clone());
        let measured_from = schedule.warmup(self.warmup);
        let measured = ((rate * self.seconds).round() as u64).max(1);
        Plan {
            clock: Clock::new(),
            schedule,
            total: measured_from + measured,
            measured_from,
            size: load.size,
            idle: self.target.idle,
            logged: load.is_logged().then_some(self.seconds),
        }
    }

    /// What tells a run from others against the same relay: who receives, and how.
    fn label(&self) -> String {
        let mut label = format!(", {} subscribers", self.subscribers);
        label += &unusual(&[
            (self.slow as u64, 0, "slow"),
            (self.publishers as u64, 1, "publishers"),
            (self.topics as u64, 1, "topics"),
            (self.patterns.unwrap_or(0) as u64, 0, "patterns"),
        ]);
        if let Some(matching) = self.matching {
            label += &format!(", {} of them matching", matching.min(self.topics));
        }
        if self.wildcard {
            label += ", one of them for all";
        }
        if self.slow > 0 {
            label += &format!(", slow ones taking {}", self.slow_share);
        }
        label
    }

    fn report(
        &self,
        load: &Load,
        plan: &Plan,
        crowd: &mut Crowd,
        watch: &Watch,
        settings: SettingsReport,
    ) -> Result<Report, Failure> {
        let Counts {
            unsent: undelivered,
            lost,
            repeated,
            slow_wanted,
            slow_received,
        } = crowd.counts();
        let from_ns = crowd.measured_from_ns;
        let (measured, last_ns) = (crowd.measured(), crowd.seen.last_ns);
        let seen = &crowd.seen;
        let mut latency = new_histogram();
        for of_stream in &seen.latency {
            latency.add(of_stream).expect("all have the same bounds");
        }
        load.write_logs(&latency, &seen.intervals, plan.clock.wall(from_ns))?;
        let over_time = OverTime::rows([&seen.over_time]);
        let shown = self
            .target
            .shown("fan-out", load, &self.label(), &latency, over_time);
        let p99_us = seen.latency.iter().map(|it| Percentiles::of(it).p99_us);
        let mut report = Report {
            latency: Percentiles::of(&latency),
            stream_p99_us_max: p99_us.fold(0.0, f64::max),
            acks: Percentiles::of(&seen.ack_latency).of_acks(),
            lateness_p99_us: Percentiles::of(&seen.lateness).p99_us,
            offered: plan.total - plan.measured_from,
            achieved: 0.0,
            deliveries: latency.len(),
            deliveries_per_s: measured.rate(latency.len(), last_ns),
            undelivered,
            stream_deliveries: seen.latency.iter().map(Histogram::len).collect(),
            unsent: crowd.unsent(),
            lost,
            repeated,
            connections_lost: crowd.losses(),
            epoch_changes: None,
            cpu_share: watch.cpu_share(),
            cpu_us_per_message: watch.cpu_us_per_message(),
            resident_before: watch.before.map(|used| used.resident),
            resident: watch.last.map(|(_, _, used)| used.resident),
            resident_peak: watch.last.map(|(_, _, used)| used.resident_peak),
            slow_wanted,
            slow_received,
            streams: self.target.streams,
            subscribers: self.subscribers,
            slow: self.slow,
            patterns: self.patterns,
            matching: self.matching(),
            wildcard: self.wildcard,
            topics: self.topics,
            publishers: self.publishers,
            rate: load.rate.expect("there is a default"),
            seconds: self.seconds,
            warmup: self.warmup,
            terms: load.terms.clone(),
            size: load.size,
            settings,
            machine: self.target.machine(),
            shown,
        };
        report.achieved = measured.rate(report.offered, last_ns) * report.delivered_share();
        Ok(report)
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
    /// How much of what was to be delivered that was; what was lost of the load before counts too.
    fn delivered_share(&self) -> f64 {
        match (self.deliveries, self.lost + self.undelivered) {
            (0, _) => 0.0,
            (deliveries, missing) => deliveries as f64 / (deliveries + missing) as f64,
        }
    }

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
            "{} deliveries, {} a second, unsent {}, lost {}, repeated or out of order {}",
            thousands(self.deliveries),
            thousands(self.deliveries_per_s as u64),
            self.unsent,
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
