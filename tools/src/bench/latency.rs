//! `relay bench latency`: publish to subscriber at a rate, open loop.
//!
//! Message `i` is due at a time that the rate and the pacing fix before the run (`pacing.rs`) and its latency counts from
//! then, whenever it was really sent; a stall shows in every message it delayed. One thread sends what is due with one flush,
//! takes what came, and looks for acknowledgements, exactly as the client of the floor does, so that the two may be divided.
//! Publishers take turns, and so several streams do: message `i` is stream `i % S`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use relay_client::{OutMessage, TrySendError};
use relay_floor::Hiccups;
use serde::Serialize;

use super::client_thread::{ClientThread, OwnDelays, Progress};
use super::load::{self, Clock, LATE_MAX_NS, Measured, Receiver, Sender};
use super::outcome::{Outcome, StreamOutcome, print_streams};
use super::pacing::Schedule;
use super::series::{Limits, Load, Order, Run, SeriesOptions, Terms, share_in_time, unusual};
use super::{
    Judged, MachineReport, SIZES, SettingsReport, Shown, Target, TargetOptions, check_clients,
    journal_bytes, journals_text,
};
use crate::counters::{Counters, HopSummary};
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, thousands};
use crate::percentiles::{AckPercentiles, Percentiles, new_histogram, record};
use crate::servers::{Idle, Size};

/// Acknowledgements are looked for whenever messages came, and every so many turns besides.
const ACK_TURNS: u64 = 8;
/// Between the clients being ready and the first message.
const LEAD_NS: u64 = 20_000_000;
/// Most messages taken from one subscriber in a turn.
const TAKE_MAX: u32 = 1024;
/// Most messages sent in a turn.
const SEND_MAX: usize = 256;
/// How often the thread that watches looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for more of what was sent after the last that came; what is missing then is lost.
const DRAIN_NS: u64 = 10_000_000_000;
/// Journal prepared for a run beyond what it takes: as much again, since a node uses half before it prepares more, up to so much;
const PREPARED_AGAIN: u64 = 1 << 30;
/// and so much in any case.
const PREPARED_SPARE: u64 = 256 << 20;
/// Blocks a second that a node writes at most where each message comes alone, and what each takes.
const LONE_RATE: f64 = 20_000.0;
const LONE_BYTES: f64 = 4096.0;

const EXAMPLES: &str = "\
Examples:
  relay bench latency --rate 2000 --seconds 10
  relay bench latency --rate 10000 --size 256 --dir /mnt/journal --hgrm latency.hgrm --json
  relay bench latency --nodes 2 --policy durable --rate 2000 --verify
  relay bench latency --rate 500,2000,10000 --size 64,256 --repeat 5 --seconds 4
  relay bench latency --sweep --p99-under 1000 --rate 2000 --seconds 4
  relay bench latency --pacing bursts:32 --rate 10000 --hlog latency.hlog
  relay bench latency --pacing recorded:feed.pcap --rate 5000 --topics 100
  relay bench latency --streams 2 --rate 2000,10000 --verify --report page.html
  relay bench latency --connect --address 10.0.0.1:7400 --credential bench --secret-file bench.key";

/// Options of `relay bench latency`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LatencyOptions {
    /// Messages per second, of all publishers and streams together; several, as in 500,2000, are measured in turn
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
    /// Publishers of each stream, which take turns
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: u64,
    /// Subscribers of each stream, each of which gets every message of it
    #[arg(long, value_name = "N", default_value_t = 1)]
    subscribers: u64,
    /// Topics, which messages go round
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: u64,
    /// Afterwards stop the relay, verify its journals and compare them with each other
    #[arg(long, conflicts_with = "connect")]
    verify: bool,
    #[command(flatten)]
    series: SeriesOptions,
    #[command(flatten)]
    target: TargetOptions,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    latency: Percentiles,
    offered: u64,
    achieved: f64,
    received: u64,
    /// What was due and could not be sent until the run was given up.
    unsent: u64,
    lost: u64,
    duplicated: u64,
    disordered: u64,
    /// Why connections were lost during the run.
    connections_lost: Vec<String>,
    /// Changes of the primary or of the in-sync set, which nobody asked for; none where a running relay is measured.
    epoch_changes: Option<u64>,
    #[serde(flatten)]
    acks: AckPercentiles,
    #[serde(flatten)]
    own: OwnDelays,
    rate: f64,
    seconds: f64,
    warmup: f64,
    #[serde(flatten)]
    terms: Terms,
    size: usize,
    publishers: u64,
    subscribers: u64,
    topics: u64,
    streams: u64,
    by_stream: Vec<StreamOutcome>,
    /// Of the first stream.
    hops: BTreeMap<String, HopSummary>,
    verified: Option<bool>,
    identical_bytes: Option<u64>,
    settings: SettingsReport,
    machine: MachineReport,
    #[serde(flatten)]
    shown: Shown,
}

/// Runs the command.
pub(super) fn run(options: &LatencyOptions) -> Result<(), Failure> {
    let streams = options.target.streams;
    options.series.check(&Limits {
        rates: &options.rate,
        seconds: options.seconds,
        warmup: options.warmup,
        sizes: SIZES,
        logs: options.subscribers * streams,
    })?;
    check_clients(options.publishers, options.subscribers)?;
    options.target.check(options.publishers, options.topics)?;
    let interrupt = Interrupt::install()?;
    options
        .series
        .run(&options.rate, |load| measure(options, load, &interrupt))
}

/// Measures one rate and size.
fn measure(
    options: &LatencyOptions,
    load: &Load,
    interrupt: &Interrupt,
) -> Result<(Run, Report), Failure> {
    let rate = load.rate.expect("there is a default");
    let bytes_per_s = rate * journal_bytes(load.size) as f64 + rate.min(LONE_RATE) * LONE_BYTES;
    let taken = bytes_per_s * (options.seconds + options.warmup);
    let taken = taken as u64;
    let prepared = Size(taken + taken.min(PREPARED_AGAIN) + PREPARED_SPARE);
    let target = options
        .target
        .open(options.publishers, prepared, interrupt)?;
    let progress = Arc::new(Progress::default());
    let senders = load::senders(&target, options.publishers, options.topics, None)?;
    let logged = load.is_logged().then_some(options.seconds);
    let receivers = load::receivers(&target, options.subscribers, &senders, logged)?;
    let plan = Plan::new(options, load, rate);
    let streams = target.streams;
    let client = Client::new(plan.clone(), senders, receivers, streams, progress.clone());
    let thread = ClientThread {
        cpu: target.placement.client_cpu,
        progress,
        total: plan.total,
        look_every: LOOK_EVERY,
        interrupt,
    };
    let is_without_warmup = plan.measured_from == 0;
    let mut before = is_without_warmup.then(|| counters(&target)).flatten();
    let client = thread.run(client, Client::run, |sent| {
        // Once all is sent there is nothing left to tell from what came before.
        if before.is_none() && (plan.measured_from..plan.total).contains(&sent) {
            before = counters(&target);
        }
    })?;
    conclude(
        options,
        load,
        &plan,
        client,
        target,
        before.as_ref(),
        interrupt,
    )
}

/// Those of the first stream, where they can be read.
fn counters(target: &Target) -> Option<Counters> {
    let directory = target.stream_directory.as_deref()?;
    Counters::read(directory).ok()
}

/// Stops what was started, and tells what was found.
fn conclude(
    options: &LatencyOptions,
    load: &Load,
    plan: &Plan,
    client: Client,
    mut target: Target,
    before: Option<&Counters>,
    interrupt: &Interrupt,
) -> Result<(Run, Report), Failure> {
    let after = counters(&target);
    let hops = after.map(|after| after.hops(before)).unwrap_or_default();
    let settings = options.target.settings(&target);
    let epoch_changes = target.epoch_changes();
    let Client {
        mut senders,
        mut receivers,
        next: sent,
        ack_latency,
        lateness,
        hiccups,
        ..
    } = client;
    let connections_lost = load::losses(&mut senders, &mut receivers);
    let shares = load::shares(sent, options.target.streams as usize);
    let result = Outcome::of(&receivers, &shares);
    let over_time = load::over_time(&receivers);
    let clients = unusual(&[
        (options.publishers, 1, "publishers"),
        (options.subscribers, 1, "subscribers"),
        (options.topics, 1, "topics"),
    ]);
    let shown = options
        .target
        .shown("latency", load, &clients, &result.latency, over_time);
    let from = plan.clock.wall(plan.measured().from_ns);
    load.write_logs(&result.latency, load::intervals(&receivers), from)?;
    drop((senders, receivers));
    let acks = Percentiles::of(&ack_latency);
    let journals = target.stop(options.verify, interrupt)?;
    let report = Report {
        latency: Percentiles::of(&result.latency),
        offered: plan.total - plan.measured_from,
        achieved: result.achieved,
        received: result.received,
        unsent: plan.total - sent,
        lost: result.order.lost,
        duplicated: result.order.duplicated,
        disordered: result.order.disordered,
        connections_lost,
        epoch_changes,
        acks: acks.of_acks(),
        own: OwnDelays::of(&lateness, &hiccups),
        rate: plan.rate,
        seconds: options.seconds,
        warmup: options.warmup,
        terms: load.terms.clone(),
        size: load.size,
        publishers: options.publishers,
        subscribers: options.subscribers,
        topics: options.topics,
        streams: options.target.streams,
        by_stream: result.streams,
        hops,
        verified: journals.as_ref().map(Judged::is_right),
        identical_bytes: journals.as_ref().map(Judged::identical_bytes),
        settings,
        machine: options.target.machine(),
        shown,
    };
    report.print(options.series.json, &acks)?;
    let judged = journals.as_ref().map_or(Ok(()), Judged::check);
    let late_ns = result
        .last_receipt_ns
        .saturating_sub(plan.due_ns(plan.total - 1));
    let run = Run {
        damage: judged.err().map(|failure| failure.to_string()),
        ..report.as_run(result.order, late_ns)
    };
    Ok((run, report))
}

impl Report {
    /// For the series; the last message came `late_ns` after it was due.
    fn as_run(&self, order: Order, late_ns: u64) -> Run {
        let received = self.received as f64 / self.offered as f64;
        Run {
            latency: self.latency,
            achieved: self.achieved,
            share: share_in_time(received, self.seconds, late_ns),
            unsent: self.unsent,
            order,
            connections_lost: self.connections_lost.clone(),
            damage: None,
        }
    }

    fn print(&self, is_json: bool, acks: &Percentiles) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        let settings = &self.settings;
        line(&self.machine.text())?;
        line(&self.settings.placement.text())?;
        line(&format!(
            "{} msg/s of {} bytes for {} s, {} streams, each {} publishers, {} subscribers, idle {}, writes {}",
            self.rate,
            self.size,
            self.seconds,
            self.streams,
            self.publishers,
            self.subscribers,
            settings.idle,
            settings.write_method.as_deref().unwrap_or("unknown"),
        ))?;
        line(Percentiles::HEAD)?;
        line(&self.latency.row("publish to subscriber us"))?;
        line(&acks.row("publish to ack us"))?;
        for (name, hop) in &self.hops {
            line(&format!(
                "{:<24} {:>10.1} {:>10} {:>10.1} {:>10} {:>10.1}",
                format!("  {name} us"),
                hop.p50_us,
                "",
                hop.p99_us,
                "",
                hop.max_us
            ))?;
        }
        if self.streams > 1 && !self.hops.is_empty() {
            line("  these are the first stream's")?;
        }
        print_streams(&self.by_stream)?;
        self.own.text().map_or(Ok(()), |text| line(&text))?;
        line(&format!(
            "offered {}, received {}, achieved {:.1} msg/s, not sent {}, lost {}, duplicated {}, out of order {}{}",
            thousands(self.offered),
            thousands(self.received),
            self.achieved,
            thousands(self.unsent),
            self.lost,
            self.duplicated,
            self.disordered,
            journals_text(self.verified, self.identical_bytes)
        ))
    }
}

/// When what is due.
#[derive(Debug, Clone)]
struct Plan {
    clock: Clock,
    schedule: Schedule,
    rate: f64,
    /// Messages of the run, warm-up included.
    total: u64,
    /// Index of the first measured one.
    measured_from: u64,
    size: usize,
    idle: Idle,
}

impl Plan {
    /// A run that begins soon.
    fn new(options: &LatencyOptions, load: &Load, rate: f64) -> Self {
        let clock = Clock::new();
        let start_ns = clock.now_ns() + LEAD_NS;
        let schedule = Schedule::new(start_ns, rate, load.shape.clone());
        let measured_from = schedule.warmup(options.warmup);
        let measured = ((rate * options.seconds).round() as u64).max(1);
        Self {
            clock,
            schedule,
            rate,
            total: measured_from + measured,
            measured_from,
            size: load.size,
            idle: options.target.idle,
        }
    }

    #[inline]
    fn due_ns(&self, index: u64) -> u64 {
        self.schedule.due_ns(index)
    }

    fn measured(&self) -> Measured {
        Measured {
            from_ns: self.due_ns(self.measured_from),
            to_ns: self.schedule.end_ns(self.measured_from, self.total),
        }
    }
}

struct Client {
    plan: Plan,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    progress: Arc<Progress>,
    /// Messages of each stream.
    shares: Vec<u64>,
    next: u64,
    /// How many are to be sent.
    last: u64,
    turns: u64,
    payload: Vec<u8>,
    /// The highest publisher sequence acknowledged, by publisher.
    acked: Vec<Arc<AtomicU64>>,
    /// The same as it was when it was looked at.
    acked_before: Vec<u64>,
    ack_latency: Histogram<u64>,
    lateness: Histogram<u64>,
    hiccups: Hiccups,
}

impl Client {
    fn new(
        plan: Plan,
        mut senders: Vec<Sender>,
        mut receivers: Vec<Receiver>,
        streams: usize,
        progress: Arc<Progress>,
    ) -> Self {
        for receiver in &mut receivers {
            receiver.receipts.measure(plan.measured());
        }
        let mut acked = Vec::new();
        for sender in &mut senders {
            let seen = Arc::new(AtomicU64::new(0));
            acked.push(seen.clone());
            sender.publisher.on_ack(Box::new(move |publisher_seq, _| {
                seen.store(publisher_seq.get(), Ordering::Relaxed);
            }));
        }
        Self {
            hiccups: Hiccups::since(plan.measured().from_ns),
            payload: vec![0; plan.size],
            shares: load::shares(plan.total, streams),
            last: plan.total,
            plan,
            senders,
            receivers,
            progress,
            next: 0,
            turns: 0,
            acked_before: vec![0; acked.len()],
            acked,
            ack_latency: new_histogram(),
            lateness: new_histogram(),
        }
    }

    fn run(&mut self) -> Result<(), Failure> {
        let give_up_ns = self.plan.due_ns(self.plan.total) + LATE_MAX_NS;
        loop {
            let now_ns = self.plan.clock.now_ns();
            self.hiccups.note(now_ns);
            if now_ns > give_up_ns && self.next < self.last {
                self.last = self.next;
                self.shares = load::shares(self.last, self.shares.len());
            }
            let is_busy = self.turn(now_ns)?;
            let is_stopped = self.progress.stop.load(Ordering::Relaxed);
            if self.is_finished()
                || now_ns > self.last_receipt_ns().max(give_up_ns) + DRAIN_NS
                || is_stopped
            {
                return Ok(());
            }
            if !is_busy {
                let is_done = self.next == self.last;
                let due_ns = if is_done {
                    u64::MAX
                } else {
                    self.plan.due_ns(self.next)
                };
                let (senders, receivers) = (&self.senders, &self.receivers);
                load::idle(self.plan.idle, self.plan.clock, due_ns, senders, receivers)?;
                if self.plan.idle == Idle::Park {
                    self.take_acks()?;
                }
            }
        }
    }

    fn last_receipt_ns(&self) -> u64 {
        let each = self.receivers.iter().map(|it| it.receipts.last_receipt_ns);
        each.max().unwrap_or(0)
    }

    fn is_finished(&self) -> bool {
        self.next == self.last
            && self
                .receivers
                .iter()
                .all(|it| it.receipts.distinct() >= self.shares[it.stream])
            && self
                .senders
                .iter()
                .all(|sender| sender.publisher.unacknowledged() == 0)
    }

    /// Sends and receives what can be; false if nothing moved.
    fn turn(&mut self, now_ns: u64) -> Result<bool, Failure> {
        let is_sent = self.send(now_ns)?;
        let mut is_received = false;
        for receiver in &mut self.receivers {
            is_received |= receiver.take(self.plan.clock, TAKE_MAX, 1)? > 0;
        }
        self.turns += 1;
        if is_received || self.turns.is_multiple_of(ACK_TURNS) {
            self.take_acks()?;
        }
        Ok(is_sent || is_received)
    }

    fn send(&mut self, now_ns: u64) -> Result<bool, Failure> {
        let count = self.senders.len() as u64;
        let first = self.next;
        for _ in 0..SEND_MAX {
            if self.next == self.last {
                break;
            }
            let due_ns = self.plan.due_ns(self.next);
            if due_ns > now_ns {
                break;
            }
            let sender = &mut self.senders[(self.next % count) as usize];
            load::write_head(&mut self.payload, sender.next, due_ns);
            match sender
                .publisher
                .try_send(&OutMessage::new(sender.topic(), &self.payload))
            {
                Ok(_) => {}
                Err(TrySendError::Full) => break,
                Err(error) => return Err(Failure::Failed(format!("sending: {error}"))),
            }
            if self.next >= self.plan.measured_from {
                record(&mut self.lateness, now_ns - due_ns);
            }
            sender.advance();
            self.next += 1;
        }
        for index in first..self.next.min(first + count) {
            self.senders[(index % count) as usize].publisher.flush()?;
        }
        self.progress.done.store(self.next, Ordering::Relaxed);
        Ok(self.next > first)
    }

    fn take_acks(&mut self) -> Result<(), Failure> {
        let count = self.senders.len() as u64;
        for (place, sender) in (0..).zip(&mut self.senders) {
            sender.publisher.poll()?;
            let acked = self.acked[place as usize].load(Ordering::Relaxed);
            let before = std::mem::replace(&mut self.acked_before[place as usize], acked);
            if acked == before {
                continue;
            }
            let now_ns = self.plan.clock.now_ns();
            // An acknowledgement covers all before it, which waited for it too.
            for publisher_seq in before + 1..=acked {
                let index = (publisher_seq - 1) * count + place;
                if index >= self.plan.measured_from {
                    let due_ns = self.plan.due_ns(index);
                    record(&mut self.ack_latency, now_ns.saturating_sub(due_ns));
                }
            }
        }
        Ok(())
    }
}
