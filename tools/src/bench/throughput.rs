//! `relay bench throughput`: as many messages as go through, counted where they come out.
//!
//! Publishers send distinct payloads as fast as the relay's credit lets them, or at `--rate`; one thread drives all of
//! them and the subscribers, so that the figure is what two cores do with everything on them. `--verify` compares
//! checksums of all payloads sent with those in the journal, publisher by publisher, and reads the whole journal back;
//! of several streams each one's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use relay_client::wire::checksum::crc32c_append;
use relay_client::{OutMessage, TrySendError};
use relay_journal::reader::{JournalDir, ReadFrom};
use serde::Serialize;

use super::client_thread::{ClientThread, Progress};
use super::load::{
    self, Clock, HEAD_LENGTH, LATE_MAX_NS, MESSAGES_PER_CLOCK_READING, Measured, Receiver, Sender,
};
use super::outcome::{Outcome, StreamOutcome, print_streams};
use super::pacing::Schedule;
use super::series::{Limits, Load, Run, SeriesOptions, Terms, unusual};
use super::{
    Judged, MachineReport, SIZES, SettingsReport, Shown, Target, TargetOptions, check_clients,
    journal_bytes, journals_text,
};
use crate::exit::{Failure, Interrupt};
use crate::flow::{Random, spread};
use crate::output::{json_line, line, progress, thousands};
use crate::percentiles::Percentiles;
use crate::servers::{Idle, Size};

/// Most messages of one publisher in a turn: what one write to the socket takes well.
const SEND_MAX: u32 = 256;
/// Most messages taken from one subscriber in a turn.
const TAKE_MAX: u32 = 4096;
/// Between the clients being ready and the first message.
const LEAD_NS: u64 = 20_000_000;
/// How often the thread that watches looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for the last messages; what is missing then is lost.
const DRAIN_NS: u64 = 30_000_000_000;
/// Messages per second that the journal is prepared for when no rate is given.
const RATE_EXPECTED: f64 = 1_200_000.0;
/// Bytes that a publisher keeps unreleased, and messages that are ahead of a subscriber, unless said otherwise.
const WINDOW_USUAL: u64 = 1 << 20;
const AHEAD_USUAL: u64 = 65_536;
/// Most bytes that a publisher may keep unreleased: they lie in memory.
const WINDOW_MOST: u64 = 1 << 30;
/// Journal prepared beyond what the messages take.
const PREPARED_SPARE: u64 = 256 << 20;

const EXAMPLES: &str = "\
Examples:
  relay bench throughput --seconds 10
  relay bench throughput --seconds 60 --publishers 4 --rate 1000000 --verify --json
  relay bench throughput --nodes 2 --policy durable --verify
  relay bench throughput --size 64,256,1024 --repeat 5
  relay bench throughput --streams 2 --publishers 2 --verify
  relay bench throughput --sweep --p99-under 5000 --rate 50000 --seconds 5";

/// Options of `relay bench throughput`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ThroughputOptions {
    /// Seconds measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of the same load before them, left out
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// Publishers of each stream
    #[arg(long, value_name = "N", default_value_t = 4)]
    publishers: u64,
    /// Subscribers of each stream, each of which gets every message of it
    #[arg(long, value_name = "N", default_value_t = 1)]
    subscribers: u64,
    /// Topics, which messages go round
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: u64,
    /// Messages per second of all publishers and streams together, several in turn; without it, as many as go through
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    rate: Vec<f64>,
    /// Bytes each publisher keeps unreleased at most: more of them, more latency
    #[arg(long, value_name = "SIZE", default_value_t = Size(WINDOW_USUAL))]
    window: Size,
    /// Messages sent ahead of the slowest subscriber (of each stream, together) at most; 0 for no limit. Without one a subscriber that is slower
    /// than the publishers is soon read from disk, and the figure is the disk's
    #[arg(long, value_name = "N", default_value_t = AHEAD_USUAL)]
    ahead: u64,
    /// Afterwards stop the relay, verify its journals, and compare them with each other and with what was sent
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
    msgs_per_s: f64,
    mb_per_s: f64,
    /// Over the whole run, warm-up included, as all counts here.
    sent: u64,
    /// At a rate: what was due and was not sent, since more was due than went through.
    unsent: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    disordered: u64,
    /// Why connections were lost during the run.
    connections_lost: Vec<String>,
    /// Changes of the primary or of the in-sync set, which nobody asked for; none where a running relay is measured.
    epoch_changes: Option<u64>,
    #[serde(flatten)]
    latency: Percentiles,
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
    rate: Option<f64>,
    window: u64,
    ahead: u64,
    verified: Option<bool>,
    identical_bytes: Option<u64>,
    settings: SettingsReport,
    machine: MachineReport,
    #[serde(flatten)]
    shown: Shown,
}

/// Runs the command.
pub(super) fn run(options: &ThroughputOptions) -> Result<(), Failure> {
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
    options: &ThroughputOptions,
    load: &Load,
    interrupt: &Interrupt,
) -> Result<(Run, Report), Failure> {
    if !(journal_bytes(load.size)..=WINDOW_MOST).contains(&options.window.0) {
        let text = format!(
            "--window takes {} bytes, which is one message, to 1GiB",
            journal_bytes(load.size)
        );
        return Err(Failure::Usage(text));
    }
    let prepared = options.prepared(load);
    let mut target = options
        .target
        .open(options.publishers, prepared, interrupt)?;
    let progress = Arc::new(Progress::default());
    let window = Some(options.window.0 as usize);
    let senders = load::senders(&target, options.publishers, options.topics, window)?;
    let logged = load.is_logged().then_some(options.seconds);
    let receivers = load::receivers(&target, options.subscribers, &senders, logged)?;
    let client = Client::new(options, load, senders, receivers, progress.clone());
    let thread = ClientThread {
        cpu: target.placement.client_cpu,
        progress,
        total: client.end_ns - client.start_ns,
        look_every: LOOK_EVERY,
        interrupt,
    };
    let client = thread.run(client, Client::run, |_| {})?;
    let settings = options.target.settings(&target);
    let sums = client.sums();
    let (mut found, mut run) = result(options, load, client, settings)?;
    found.epoch_changes = target.epoch_changes();
    let journals = target.stop(options.verify, interrupt)?;
    if let Some(journals) = &journals {
        let is_right = journals.is_right() && are_whole(&target, &sums, interrupt)?;
        found.verified = Some(is_right);
        found.identical_bytes = Some(journals.identical_bytes());
    }
    found.print(options.series.json)?;
    let judged = journals.as_ref().map_or(Ok(()), Judged::check);
    run.damage = judged.err().map(|failure| failure.to_string());
    if found.verified == Some(false) {
        let text = "a journal does not hold what was sent; keep it and report this";
        run.damage.get_or_insert_with(|| text.into());
    }
    Ok((run, found))
}

/// Whether every journal of each stream holds what its publishers sent.
fn are_whole(target: &Target, sums: &[Vec<Sum>], interrupt: &Interrupt) -> Result<bool, Failure> {
    let mut is_whole = true;
    for (stream, sums) in sums.iter().enumerate() {
        for directory in target.directories_of_stream(stream) {
            is_whole &= holds(&directory, sums, interrupt)?;
        }
    }
    Ok(is_whole)
}

impl ThroughputOptions {
    /// What the run will write, as far as that can be told.
    fn prepared(&self, load: &Load) -> Size {
        let rate = load.rate.unwrap_or(RATE_EXPECTED);
        let messages = rate * (self.seconds + self.warmup);
        Size((messages * journal_bytes(load.size) as f64) as u64 + PREPARED_SPARE)
    }
}

fn result(
    options: &ThroughputOptions,
    load: &Load,
    mut client: Client,
    settings: SettingsReport,
) -> Result<(Report, Run), Failure> {
    let outcome = Outcome::of(&client.receivers, &client.sent_by_stream);
    let from = client.clock.wall(client.from_ns);
    load.write_logs(&outcome.latency, load::intervals(&client.receivers), from)?;
    let msgs_per_s = outcome.in_time as f64 / options.seconds;
    let over_time = load::over_time(&client.receivers);
    let mut clients = unusual(&[
        (options.publishers, 4, "publishers"),
        (options.subscribers, 1, "subscribers"),
        (options.topics, 1, "topics"),
        (options.ahead, AHEAD_USUAL, "ahead"),
    ]);
    if options.window.0 != WINDOW_USUAL {
        clients += &format!(", window {}", options.window);
    }
    let shown = options
        .target
        .shown("throughput", load, &clients, &outcome.latency, over_time);
    let report = Report {
        msgs_per_s,
        mb_per_s: msgs_per_s * load.size as f64 / 1e6,
        sent: client.sent,
        unsent: client.owed.saturating_sub(client.sent),
        received: outcome.distinct,
        lost: outcome.order.lost,
        duplicated: outcome.order.duplicated,
        disordered: outcome.order.disordered,
        connections_lost: load::losses(&mut client.senders, &mut client.receivers),
        epoch_changes: None,
        latency: Percentiles::of(&outcome.latency),
        seconds: options.seconds,
        warmup: options.warmup,
        terms: load.terms.clone(),
        size: load.size,
        publishers: options.publishers,
        subscribers: options.subscribers,
        topics: options.topics,
        streams: options.target.streams,
        by_stream: outcome.streams,
        rate: load.rate,
        window: options.window.0,
        ahead: options.ahead,
        verified: None,
        identical_bytes: None,
        settings,
        machine: options.target.machine(),
        shown,
    };
    let schedule = client.schedule.as_ref();
    let in_warmup = schedule.map_or(0, |schedule| schedule.due_until(client.from_ns));
    let offered = client.owed - in_warmup;
    let run = Run {
        latency: report.latency,
        achieved: msgs_per_s,
        share: match load.rate {
            Some(_) => outcome.in_time as f64 / offered.max(1) as f64,
            None => 1.0,
        },
        unsent: report.unsent,
        order: outcome.order,
        connections_lost: report.connections_lost.clone(),
        damage: None,
    };
    Ok((report, run))
}

impl Report {
    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line(&self.machine.text())?;
        line(&self.settings.placement.text())?;
        line(&format!(
            "{} msg/s, {:.1} MB/s of payload: {} bytes, {} streams, each {} publishers, {} subscribers, {} s",
            thousands(self.msgs_per_s as u64),
            self.mb_per_s,
            self.size,
            self.streams,
            self.publishers,
            self.subscribers,
            self.seconds
        ))?;
        line(Percentiles::HEAD)?;
        line(&self.latency.row("send to subscriber us"))?;
        print_streams(&self.by_stream)?;
        line(&format!(
            "sent {}, not sent {}, received {}, lost {}, duplicated {}, out of order {}{}",
            thousands(self.sent),
            thousands(self.unsent),
            thousands(self.received),
            self.lost,
            self.duplicated,
            self.disordered,
            journals_text(self.verified, self.identical_bytes)
        ))
    }
}

/// Count and running checksum of one publisher's payloads, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    messages: u64,
    checksum: u32,
}

impl Sum {
    #[inline]
    fn add(&mut self, payload: &[u8]) {
        self.messages += 1;
        self.checksum = crc32c_append(self.checksum, payload);
    }
}

struct Client {
    clock: Clock,
    start_ns: u64,
    /// The measured time.
    from_ns: u64,
    end_ns: u64,
    /// When what is due, at a rate.
    schedule: Option<Schedule>,
    /// How many messages are due in all, at a rate.
    owed: u64,
    ahead: u64,
    idle: Idle,
    is_summed: bool,
    senders: Vec<Sender>,
    sums: Vec<Sum>,
    receivers: Vec<Receiver>,
    progress: Arc<Progress>,
    payload: Vec<u8>,
    random: Random,
    sent: u64,
    sent_by_stream: Vec<u64>,
    /// The publisher this turn begins with.
    first: usize,
}

impl Client {
    fn new(
        options: &ThroughputOptions,
        load: &Load,
        senders: Vec<Sender>,
        mut receivers: Vec<Receiver>,
        progress: Arc<Progress>,
    ) -> Self {
        let clock = Clock::new();
        let start_ns = clock.now_ns() + LEAD_NS;
        let from_ns = start_ns + (options.warmup * 1e9) as u64;
        let end_ns = from_ns + (options.seconds * 1e9) as u64;
        for receiver in &mut receivers {
            receiver.receipts.measure(Measured {
                from_ns,
                to_ns: end_ns,
            });
        }
        let schedule = load
            .rate
            .map(|rate| Schedule::new(start_ns, rate, load.shape.clone()));
        Self {
            clock,
            start_ns,
            from_ns,
            end_ns,
            owed: schedule.as_ref().map_or(0, |it| it.due_until(end_ns)),
            schedule,
            ahead: if options.ahead == 0 {
                u64::MAX
            } else {
                options.ahead
            },
            idle: options.target.idle,
            is_summed: options.verify,
            sums: vec![Sum::default(); senders.len()],
            senders,
            receivers,
            progress,
            payload: vec![0; load.size],
            random: Random::new(options.series.seed),
            sent: 0,
            sent_by_stream: vec![0; options.target.streams as usize],
            first: 0,
        }
    }

    fn run(&mut self) -> Result<(), Failure> {
        loop {
            let now_ns = self.clock.now_ns();
            let mut is_busy = false;
            // What is due is sent, however late; only far too much of it is not.
            let is_owed = self.sent < self.owed && now_ns < self.end_ns + LATE_MAX_NS;
            if now_ns < self.end_ns || is_owed {
                is_busy |= self.send(now_ns)?;
            } else if self.is_finished() || now_ns > self.end_ns + LATE_MAX_NS + DRAIN_NS {
                return Ok(());
            }
            for receiver in &mut self.receivers {
                is_busy |= receiver.take(self.clock, TAKE_MAX, MESSAGES_PER_CLOCK_READING)? > 0;
            }
            for sender in &mut self.senders {
                is_busy |= sender.publisher.poll()? > 0;
            }
            let elapsed_ns = now_ns.saturating_sub(self.start_ns);
            self.progress.done.store(elapsed_ns, Ordering::Relaxed);
            if self.progress.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !is_busy {
                let schedule = self.schedule.as_ref();
                let due_ns = schedule.map_or(u64::MAX, |schedule| schedule.due_ns(self.sent));
                let (senders, receivers) = (&self.senders, &self.receivers);
                load::idle(self.idle, self.clock, due_ns, senders, receivers)?;
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.receivers
            .iter()
            .all(|it| it.receipts.distinct() >= self.sent_by_stream[it.stream])
            && self
                .senders
                .iter()
                .all(|sender| sender.publisher.unacknowledged() == 0)
    }

    /// What the publishers of each stream sent, by their ids.
    fn sums(&self) -> Vec<Vec<Sum>> {
        let mut sums = vec![Vec::new(); self.sent_by_stream.len()];
        for (sender, sum) in self.senders.iter().zip(&self.sums) {
            sums[sender.stream].push(*sum);
        }
        sums
    }

    /// Messages at the slowest subscriber of each stream.
    fn received(&self) -> u64 {
        let of_stream = |stream| {
            let own = self.receivers.iter().filter(|it| it.stream == stream);
            own.map(|it| it.receipts.distinct()).min().unwrap_or(0)
        };
        (0..self.sent_by_stream.len()).map(of_stream).sum()
    }

    /// Sends what may go now; whether that was anything.
    fn send(&mut self, now_ns: u64) -> Result<bool, Failure> {
        let before = self.sent;
        if now_ns < self.start_ns {
            return Ok(false);
        }
        let allowed = self.received().saturating_add(self.ahead);
        let (count, begin) = (self.senders.len(), self.first);
        for offset in 0..count {
            let place = (begin + offset) % count;
            let sender = &mut self.senders[place];
            let first = sender.next;
            for _ in 0..SEND_MAX {
                if self.sent >= allowed {
                    break;
                }
                let intended_ns = match &self.schedule {
                    None => now_ns,
                    Some(schedule) => schedule.due_ns(self.sent),
                };
                if intended_ns > now_ns || intended_ns >= self.end_ns {
                    break;
                }
                load::write_head(&mut self.payload, sender.next, intended_ns);
                spread(self.random.next(), &mut self.payload[HEAD_LENGTH..]);
                match sender
                    .publisher
                    .try_send(&OutMessage::new(sender.topic(), &self.payload))
                {
                    Ok(_) => {}
                    Err(TrySendError::Full) => break,
                    Err(error) => return Err(Failure::Failed(format!("sending: {error}"))),
                }
                if self.is_summed {
                    self.sums[place].add(&self.payload);
                }
                sender.advance();
                self.sent += 1;
                self.sent_by_stream[sender.stream] += 1;
            }
            if sender.next > first {
                sender.publisher.flush()?;
                // The next turn begins behind who sent last: neither a limit nor a low rate leaves anybody out.
                self.first = (place + 1) % count;
            }
        }
        Ok(self.sent > before)
    }
}

/// Reads a whole journal back; whether it holds what was sent.
fn holds(stream_directory: &Path, sent: &[Sum], interrupt: &Interrupt) -> Result<bool, Failure> {
    let damaged = |error: relay_journal::reader::ReaderError| {
        Failure::Damaged(format!(
            "the journal in {}: {error}",
            stream_directory.display()
        ))
    };
    let journal = JournalDir::open(stream_directory).map_err(damaged)?;
    let mut records = journal.records(ReadFrom::Start).map_err(damaged)?;
    let extent = records.extent();
    if let Err(error) = &extent.verdict {
        return Err(Failure::Damaged(error.to_string()));
    }
    let bar = progress(extent.released.get(), "verifying");
    let mut found = vec![Sum::default(); sent.len()];
    let mut seen = 0u64;
    while let Some(next) = records.next_record() {
        let next = next.map_err(damaged)?;
        if next.record.is_data() {
            next.record.verify().map_err(|error| {
                Failure::Damaged(format!(
                    "the record with seq {}: {error}",
                    next.record.seq()
                ))
            })?;
            let place = next.record.publisher().get().wrapping_sub(1) as usize;
            let Some(sum) = found.get_mut(place) else {
                return Ok(false);
            };
            sum.add(next.record.payload());
        }
        seen += 1;
        if seen.is_multiple_of(65_536) {
            bar.set_position(next.block.position.get());
            interrupt.check()?;
        }
    }
    bar.finish_and_clear();
    Ok(found == sent)
}
