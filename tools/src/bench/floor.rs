//! `relay bench floor`: the same hops, sockets and durable writes with nothing decided on the way.
//!
//! The measuring itself is `relay-floor`, which shares no code with the product; this only gives it the options of
//! `relay bench latency`, the times at which messages are due among them, and prints its result under the same keys, so that
//! the two can be divided. What is placed on which CPU is the same for both, as `placement.rs` decides.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use hdrhistogram::Histogram;
use relay_floor::{Due, FloorError, HopOptions, Options, WriteMode, WriteOptions};
use serde::Serialize;

use super::client_thread::OwnDelays;
use super::interval_log::Intervals;
use super::pacing::{Schedule, Shape};
use super::placement::{Placement, PlacementOptions};
use super::series::{Limits, Load, Order, Run, SeriesOptions, Terms, share_in_time, unusual_ways};
use super::{MachineReport, Shown, check_policy};
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, spinner, thousands};
use crate::percentiles::{AckPercentiles, Percentiles};
use crate::servers::{Idle, Policy, WriteMethod, scratch_directory, word};

/// Bytes of a lone write.
const WRITE_SIZE: usize = 4096;

const EXAMPLES: &str = "\
Examples:
  relay bench floor --rate 2000 --seconds 10
  relay bench floor --nodes 2 --rate 10000 --json
  relay bench floor --nodes 2 --policy mirrored
  relay bench floor --rate 500,2000,10000 --repeat 5 --seconds 4 --report page.html
  relay bench floor --pacing bursts:32 --rate 10000 --hlog floor.hlog
  relay bench floor --write-only --dir /mnt/journal
  relay bench floor --hop-only";

/// Options of `relay bench floor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FloorOptions {
    /// Messages per second; several, as in 500,2000, are measured in turn
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "2000"
    )]
    rate: Vec<f64>,
    /// Seconds measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of the same load before them, left out
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    warmup: f64,
    /// Nodes that hold each message
    #[arg(long, value_name = "1|2", default_value_t = 1)]
    nodes: usize,
    /// What a message waits for: with two nodes both writes, or when mirrored the receipt at the second [default: local,
    /// or durable for two nodes]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// How writes are made durable
    #[arg(long, value_enum, default_value_t = WriteMethod::Auto)]
    write_method: WriteMethod,
    /// What the threads do when idle
    #[arg(long, value_enum, default_value_t = Idle::Yield)]
    idle: Idle,
    /// Directory of the data files: it decides which disk is measured
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    placement: PlacementOptions,
    /// Only durable writes of 4 KiB, one at a time
    #[arg(long, conflicts_with_all = ["hop_only", "size", "rate", "pacing", "sweep", "hlog", "nodes", "policy"])]
    write_only: bool,
    /// Only a message there and back over loopback TCP
    #[arg(long, conflicts_with_all = ["rate", "pacing", "sweep", "hlog", "nodes", "policy", "dir", "write_method"])]
    hop_only: bool,
    #[command(flatten)]
    series: SeriesOptions,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    shown: Shown,
    #[serde(flatten)]
    latency: Percentiles,
    offered: u64,
    achieved: f64,
    received: u64,
    unsent: u64,
    lost: u64,
    duplicated: u64,
    disordered: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    acks: Option<AckPercentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_to_written: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_to_held: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_to_sent: Option<Percentiles>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    own: Option<OwnDelays>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plain_p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plain_p99_us: Option<f64>,
    write_method: Option<&'static str>,
    rate: Option<f64>,
    seconds: f64,
    warmup: f64,
    #[serde(flatten)]
    terms: Terms,
    size: usize,
    nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(flatten)]
    placement: Placement,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &FloorOptions) -> Result<(), Failure> {
    let is_part = options.write_only || options.hop_only;
    options.series.check(&Limits {
        rates: &options.rate,
        seconds: options.seconds,
        warmup: options.warmup,
        sizes: relay_floor::SIZES,
        logs: 1,
    })?;
    let series = match options.write_only {
        true => &options.series.with_size(WRITE_SIZE),
        false => &options.series,
    };
    let rates = if is_part { &[][..] } else { &options.rate };
    let interrupt = Interrupt::install()?;
    series.run(rates, |load| {
        let found = options.measure(load, &interrupt)?;
        interrupt.check().map(|()| found)
    })
}

/// What one measurement found.
struct Found {
    report: Report,
    /// Where there are some.
    acks: Option<Percentiles>,
    /// How much of what was due came in time: 1 is all of it.
    share: f64,
}

impl Found {
    /// Of operations done one after the other, which nothing can be late for.
    fn of_part(load: &Load, report: Report, latency: &Histogram<u64>) -> Result<Self, Failure> {
        load.write_logs(latency, [], SystemTime::now())?;
        Ok(Self {
            report,
            acks: None,
            share: 1.0,
        })
    }
}

impl FloorOptions {
    fn measure(&self, load: &Load, interrupt: &Interrupt) -> Result<(Run, Report), Failure> {
        let found = if self.write_only {
            self.writes(load)?
        } else if self.hop_only {
            self.hops(load)?
        } else {
            self.whole(load, interrupt)?
        };
        let report = found.report;
        if self.series.json {
            json_line(&report)?;
        } else {
            report.print(found.acks.as_ref())?;
        }
        let run = Run {
            latency: report.latency,
            achieved: report.achieved,
            share: found.share,
            unsent: report.unsent,
            order: Order {
                lost: report.lost,
                duplicated: report.duplicated,
                disordered: report.disordered,
            },
            connections_lost: Vec::new(),
            damage: None,
        };
        Ok((run, report))
    }

    fn whole(&self, load: &Load, interrupt: &Interrupt) -> Result<Found, Failure> {
        let rate = load.rate.expect("there is a default");
        let policy = check_policy(self.nodes as u64, 2, self.policy)?;
        let placement = self.placement.of("node", self.nodes, 1)?;
        let cpu = |node: usize| placement.server_cpus.get(node).copied();
        let options = Options {
            dir: self.dir(),
            rate,
            due: due(load, rate),
            seconds: self.seconds,
            warmup: self.warmup,
            size: load.size,
            by_second: load.is_logged(),
            nodes: self.nodes,
            policy: match policy {
                Policy::Durable | Policy::Local => relay_floor::Policy::Durable,
                Policy::Mirrored => relay_floor::Policy::Mirrored,
            },
            write_mode: self.write_mode(),
            server_cpu: cpu(0),
            client_cpu: placement.client_cpu,
            standby_cpu: cpu(1),
            server_idle: self.idle(),
            client_idle: self.idle(),
            ..Options::default()
        };
        let bar = progress(1_000, "measuring the floor");
        let found = relay_floor::run(&options, &mut |fraction| {
            bar.set_position((fraction * 1_000.0) as u64);
            !interrupt.is_set()
        });
        bar.finish_and_clear();
        let found = found.map_err(failed)?;
        interrupt.check()?;
        let intervals = Intervals::from(found.by_second);
        load.write_logs(&found.latency, [&intervals], found.measured_at)?;
        let acks = Percentiles::of(&found.ack_latency);
        let name = format!("floor {}{}{}", word(&policy), self.label(), load.label);
        let hop = |found: &Histogram<u64>| (!found.is_empty()).then(|| Percentiles::of(found));
        let report = Report {
            offered: found.offered,
            achieved: found.achieved_rate,
            received: found.received,
            unsent: found.unsent,
            lost: found.lost,
            duplicated: found.duplicated,
            disordered: found.out_of_order,
            acks: Some(acks.of_acks()),
            received_to_written: hop(&found.received_to_written),
            received_to_held: hop(&found.received_to_held),
            written_to_sent: hop(&found.written_to_sent),
            own: Some(OwnDelays::of(&found.send_lateness, &found.hiccups)),
            write_method: Some(found.write_mode.name()),
            rate: Some(rate),
            policy: Some(word(&policy)),
            shown: Shown::of("floor", name, Some(rate), &found.latency)
                .holding(policy, self.nodes as u64),
            ..self.report("floor", load, &found.latency, placement)
        };
        let received = found.received as f64 / found.offered as f64;
        Ok(Found {
            share: share_in_time(received, self.seconds, found.late_ns),
            report,
            acks: Some(acks),
        })
    }

    fn writes(&self, load: &Load) -> Result<Found, Failure> {
        let placement = self.placement.of("node", 1, 1)?;
        let options = WriteOptions {
            dir: self.dir(),
            write_mode: self.write_mode(),
            idle: self.idle(),
            cpu: placement.node(0).first().copied(),
            seconds: self.seconds,
            warmup: self.warmup,
            ..WriteOptions::default()
        };
        let bar = spinner("measuring writes");
        let found = relay_floor::write_only(&options);
        bar.finish_and_clear();
        let found = found.map_err(failed)?;
        let report = Report {
            write_method: Some(found.write_mode.name()),
            ..self.report("write", load, &found.latency, placement)
        };
        Found::of_part(load, report, &found.latency)
    }

    fn hops(&self, load: &Load) -> Result<Found, Failure> {
        let placement = self.placement.of("node", 1, 1)?;
        let options = HopOptions {
            size: load.size,
            seconds: self.seconds,
            warmup: self.warmup,
            server_cpu: placement.node(0).first().copied(),
            client_cpu: placement.client_cpu,
            idle: self.idle(),
        };
        let bar = spinner("measuring hops");
        let found = relay_floor::hop_only(&options)
            .and_then(|ring| relay_floor::plain_ping_pong(&options).map(|plain| (ring, plain)));
        bar.finish_and_clear();
        let (latency, plain) = found.map_err(failed)?;
        let plain = Percentiles::of(&plain);
        let report = Report {
            plain_p50_us: Some(plain.p50_us),
            plain_p99_us: Some(plain.p99_us),
            ..self.report("hop", load, &latency, placement)
        };
        Found::of_part(load, report, &latency)
    }

    /// A report of operations done one after the other: each offered when the one before was done.
    fn report(
        &self,
        what: &'static str,
        load: &Load,
        latency: &Histogram<u64>,
        placement: Placement,
    ) -> Report {
        // A lone write has one size only.
        let size = if self.hop_only { &load.label } else { "" };
        let name = format!("floor: {what}{}{size}", self.label());
        Report {
            shown: Shown::of(what, name, None, latency),
            latency: Percentiles::of(latency),
            offered: latency.len(),
            achieved: latency.len() as f64 / self.seconds,
            received: latency.len(),
            unsent: 0,
            lost: 0,
            duplicated: 0,
            disordered: 0,
            acks: None,
            received_to_written: None,
            received_to_held: None,
            written_to_sent: None,
            own: None,
            plain_p50_us: None,
            plain_p99_us: None,
            write_method: None,
            rate: None,
            seconds: self.seconds,
            warmup: self.warmup,
            terms: load.terms.clone(),
            size: load.size,
            nodes: self.nodes,
            policy: None,
            placement,
            machine: MachineReport::with_disk(&self.dir()),
        }
    }

    /// What tells a run from others of the same load.
    fn label(&self) -> String {
        let ways = unusual_ways(&[
            (self.idle == Idle::Yield, "idle", word(&self.idle)),
            (
                self.write_method == WriteMethod::Auto,
                "writes",
                word(&self.write_method),
            ),
        ]);
        ways + &self.placement.label()
    }

    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(scratch_directory)
    }

    fn write_mode(&self) -> WriteMode {
        match self.write_method {
            WriteMethod::Auto => WriteMode::Auto,
            WriteMethod::Dsync => WriteMode::Dsync,
            WriteMethod::Covering => WriteMode::Covering,
        }
    }

    fn idle(&self) -> relay_floor::Idle {
        match self.idle {
            Idle::Spin => relay_floor::Idle::Spin,
            Idle::Yield => relay_floor::Idle::Yield,
            Idle::Park => relay_floor::Idle::Park,
        }
    }
}

/// When what is due, where that is not evenly: nanoseconds after the first message.
fn due(load: &Load, rate: f64) -> Option<Due> {
    if matches!(load.shape, Shape::Even) {
        return None;
    }
    let schedule = Schedule::new(0, rate, load.shape.clone());
    Some(Due::new(move |index| schedule.due_ns(index)))
}

fn failed(error: FloorError) -> Failure {
    match error {
        FloorError::Invalid { .. } => Failure::Usage(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    }
}

impl Report {
    fn print(&self, acks: Option<&Percentiles>) -> Result<(), Failure> {
        line(&self.machine.text())?;
        line(&self.placement.text())?;
        line(Percentiles::HEAD)?;
        line(&self.latency.row(match self.shown.what {
            "write" => "durable write us",
            "hop" => "there and back us",
            _ => "publish to subscriber us",
        }))?;
        if let Some(acks) = acks {
            line(&acks.row("publish to ack us"))?;
        }
        for (hop, found) in [
            ("  received to written us", &self.received_to_written),
            ("  received to held us", &self.received_to_held),
            ("  written to sent us", &self.written_to_sent),
        ] {
            if let Some(found) = found {
                line(&found.row(hop))?;
            }
        }
        if let (Some(p50), Some(p99)) = (self.plain_p50_us, self.plain_p99_us) {
            line(&format!(
                "plain ping-pong of two busy loops: p50 {p50:.1} us, p99 {p99:.1} us"
            ))?;
        }
        if let Some(text) = self.own.as_ref().and_then(OwnDelays::text) {
            line(&text)?;
        }
        line(&format!(
            "offered {}, received {}, achieved {:.1} per s, not sent {}, lost {}, writes {}",
            thousands(self.offered),
            thousands(self.received),
            self.achieved,
            thousands(self.unsent),
            self.lost,
            self.write_method.unwrap_or("none")
        ))
    }
}
