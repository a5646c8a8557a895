//! `relay replay`: what was recorded, sent again at the pace it came, or at another.
//!
//! ```text
//! recorded.rs (a thread reads and selects) -> due? (timing.rs) -> target.rs: stdout, TCP, UDP, a capture, another relay
//! ```
//!
//! A message's due time is its receive time, as an offset from the first one's: what was held up catches up, so the pace does
//! not drift. Messages go to standard output, everything that is said about them to standard error.

use std::io::{self, BufRead, BufWriter, IsTerminal};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use relay_client::Delivery;
use serde::Serialize;

use crate::exit::{Failure, Interrupt};
use crate::export::{Capture, CaptureOptions};
use crate::format;
use crate::hash_file::HashFile;
use crate::output::{json_line, line, progress, thousands};
use crate::pace::{Pace, Pacer};
use crate::percentiles::{Percentiles, write_hgrm};
use crate::recorded::{Batch, Next, Recorded, SelectionOptions, SourceOptions};
use crate::rendering::{Rendering, RenderingOptions};
use crate::when::utc_text;

mod into;
mod network;
mod target;
mod timing;

use into::IntoOptions;
use network::{Datagrams, LengthPrefix};
use target::{Lines, Target};
use timing::{Deadline, Gaps, Wait};

/// Longest sleep: signals, heartbeats and the bar are looked at that often.
const NAP_MAX: Duration = Duration::from_millis(20);
/// The bar is drawn when there is that much time for it, or when it was not for [`BAR_EVERY`].
const BAR_TIME: Duration = Duration::from_millis(3);
const BAR_EVERY: Duration = Duration::from_millis(500);
/// Bytes that wait before they are written to standard output.
const OUTPUT_BYTES: usize = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  relay replay /var/lib/relay/orders --from 2026-01-05T09:30:00Z --to 2026-01-05T09:35:00Z
  relay replay /var/lib/relay/orders --topic 'orders.>' --pace x10 --to-udp 239.192.0.1:30000 --interface 10.0.0.5
  relay replay /var/lib/relay/orders --dry-run --json
  relay replay --address 10.0.0.1:7400 --from 1000 --to 2000 --pace max --json
  relay replay /var/lib/relay/orders --into 127.0.0.1:7400 --into-credential desk --into-secret-file desk.key
  relay replay /var/lib/relay/orders --to-pcap day.pcap";

/// Options of `relay replay`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", format::HELP))]
pub(crate) struct ReplayOptions {
    /// How fast: original (as received), xN (N times as fast), max, or step (one for each Enter) [default: original; with
    /// --to-pcap max]
    #[arg(long, value_name = "PACE")]
    pace: Option<ReplayPace>,
    /// Count what would be sent, and send nothing; with --json as JSON
    #[arg(long, group = "target")]
    dry_run: bool,
    /// Send to a TCP address
    #[arg(long, value_name = "HOST:PORT", group = "target")]
    to_tcp: Option<String>,
    /// With --to-tcp, put the length in front of each message: 2 or 4 bytes, big-endian
    #[arg(long, value_name = "BYTES", requires = "to_tcp")]
    length_prefix: Option<LengthPrefix>,
    /// Send to a UDP address or multicast group, a datagram each
    #[arg(long, value_name = "HOST:PORT", group = "target")]
    to_udp: Option<String>,
    /// Address of the interface that multicast leaves by
    #[arg(long, value_name = "IP", requires = "to_udp")]
    interface: Option<Ipv4Addr>,
    /// How many routers multicast may pass [default: 1]
    #[arg(long, value_name = "N", requires = "to_udp")]
    ttl: Option<u32>,
    /// Write a pcap file, with the receive times
    #[arg(long, value_name = "FILE", group = "target")]
    to_pcap: Option<PathBuf>,
    #[command(flatten)]
    capture: CaptureOptions,
    #[command(flatten)]
    rendering: RenderingOptions,
    /// Write `seq sha256(payload) topic` of each message
    #[arg(long, value_name = "FILE")]
    hash_file: Option<PathBuf>,
    /// Write what was sent and how well the pace was held, as JSON
    #[arg(long, value_name = "FILE")]
    summary_file: Option<PathBuf>,
    /// Write the distribution of gap errors in HdrHistogram's format
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Say on standard error what happens to the connection to another relay
    #[arg(long, short)]
    verbose: bool,
    // Those with a heading of their own come last: what follows would stand under it.
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    into: IntoOptions,
    #[command(flatten)]
    source: SourceOptions,
}

/// [`Pace`], or one message at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ReplayPace {
    By(Pace),
    Step,
}

impl FromStr for ReplayPace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "step" => Ok(Self::Step),
            _ => text
                .parse()
                .map(Self::By)
                .map_err(|error: String| format!("{error}, step")),
        }
    }
}

/// What was sent, or would be.
#[derive(Debug, Default, Serialize)]
struct Summary {
    messages: u64,
    /// Of payload.
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    first_receive_time_ns: u64,
    last_receive_time_ns: u64,
    seconds: f64,
    /// Of the gaps between messages, how far each was from what it should have been; only where a pace is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_error: Option<Percentiles>,
    /// How long a core was kept busy so that messages went out when they were due; only where a pace is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    spun_seconds: Option<f64>,
}

/// Runs the command.
pub(crate) fn run(options: &ReplayOptions) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    let selection = options.selection.check()?;
    let recorded = options.source.open(selection)?;
    let target = options.target()?;
    let span = recorded.span();
    let is_on_screen = target.is_stdout() && io::stdout().is_terminal();
    let bar = if is_on_screen {
        ProgressBar::hidden()
    } else {
        progress(span.next.get() - span.first.get(), "replaying")
    };
    let pace = options.pace();
    let mut run = Run {
        target,
        steps: (pace == ReplayPace::Step).then(Steps::listen).transpose()?,
        pacer: match pace {
            ReplayPace::By(pace @ Pace::Original { .. }) => Some(Pacer::new(pace)),
            ReplayPace::By(_) | ReplayPace::Step => None,
        },
        deadline: Deadline::new(),
        gaps: Gaps::new(),
        hashes: options
            .hash_file
            .as_deref()
            .map(HashFile::create)
            .transpose()?,
        interrupt,
        bar,
        bar_drawn: Instant::now(),
        first_seq: span.first.get(),
        begun: Instant::now(),
        spun_ns: 0,
        summary: Summary::default(),
    };
    let result = run.replay(&recorded);
    run.bar.finish_and_clear();
    options.finish(run, result)
}

impl ReplayOptions {
    fn pace(&self) -> ReplayPace {
        let is_timeless = self.to_pcap.is_some() || self.dry_run;
        let usual = if is_timeless {
            Pace::Max
        } else {
            Pace::Original { speed: 1.0 }
        };
        match self.pace {
            // Counting takes no time, whatever the pace would be.
            Some(_) if self.dry_run => ReplayPace::By(Pace::Max),
            Some(pace) => pace,
            None => ReplayPace::By(usual),
        }
    }

    fn target(&self) -> Result<Target, Failure> {
        if self.dry_run {
            return Ok(Target::Nowhere);
        }
        let payload = || self.rendering.rendering(Rendering::Raw);
        if let Some(address) = &self.to_tcp {
            let lines = Lines::new(payload(), self.length_prefix);
            return Ok(Target::Tcp(network::connect(address)?, lines));
        }
        if let Some(address) = &self.to_udp {
            let datagrams = Datagrams::open(address, self.interface, self.ttl, payload())?;
            return Ok(Target::Udp(datagrams));
        }
        if let Some(path) = &self.to_pcap {
            let capture = Capture::to_file(path, &self.capture)?;
            return Ok(Target::Capture(Box::new(capture)));
        }
        if self.into.is_asked() {
            let give_up_after = self.source.give_up_after();
            let other = self.into.connect(give_up_after, self.verbose)?;
            return Ok(Target::Into(Box::new(other)));
        }
        let out = BufWriter::with_capacity(OUTPUT_BYTES, io::stdout().lock());
        let lines = Lines::new(self.rendering.rendering(Rendering::Text), None);
        Ok(Target::Stdout(out, lines))
    }

    /// Brings the target to its end and says what was done; the first error is the one that counts.
    fn finish(&self, run: Run, result: Result<(), Failure>) -> Result<(), Failure> {
        let Run {
            target,
            gaps,
            hashes,
            interrupt,
            begun,
            spun_ns,
            mut summary,
            ..
        } = run;
        if let Some(mut hashes) = hashes {
            hashes.flush()?;
        }
        summary.seconds = begun.elapsed().as_secs_f64();
        if let Err(failure) = result {
            target.abandon(&interrupt);
            if !matches!(failure, Failure::OutputClosed) && !self.dry_run && summary.messages > 0 {
                eprintln!("relay: {}", summary.text("sent"));
            }
            return Err(failure);
        }
        target.finish(&interrupt)?;
        let is_paced = !gaps.errors_ns().is_empty();
        summary.gap_error = is_paced.then(|| Percentiles::of(gaps.errors_ns()));
        summary.spun_seconds = is_paced.then_some(spun_ns as f64 / 1e9);
        if let Some(path) = &self.hgrm {
            write_hgrm(path, gaps.errors_ns())?;
        }
        if let Some(path) = &self.summary_file {
            let text = serde_json::to_string(&summary).expect("a report has string keys only");
            std::fs::write(path, text + "\n")
                .map_err(|error| Failure::file("writing", path, &error))?;
        }
        if self.dry_run && self.rendering.is_json() {
            return json_line(&summary);
        }
        if self.dry_run {
            return line(&summary.text("would send"));
        }
        eprintln!("relay: {}", summary.text("sent"));
        if let Some(errors) = &summary.gap_error {
            eprintln!("{}\n{}", Percentiles::HEAD, errors.row("error of gaps, us"));
            let spun = summary.spun_seconds.unwrap_or_default();
            let share = 100.0 * spun / summary.seconds.max(1e-9);
            eprintln!("a core was busy waiting for {spun:.3} s of it, {share:.0}%");
        }
        Ok(())
    }
}

impl Summary {
    fn add(&mut self, delivery: &Delivery<'_>) {
        let record = &delivery.record;
        if self.messages == 0 {
            self.first_seq = record.seq().get();
            self.first_receive_time_ns = record.receive_time_ns();
        }
        self.messages += 1;
        self.bytes += record.payload().len() as u64;
        self.last_seq = record.seq().get();
        self.last_receive_time_ns = record.receive_time_ns();
    }

    fn text(&self, what: &str) -> String {
        if self.messages == 0 {
            return format!("{what} nothing: no released message is selected");
        }
        let lasted_ns = self.last_receive_time_ns - self.first_receive_time_ns;
        format!(
            "{what} {} messages, {} bytes of payload, seq {} to {}, received {} to {} ({:.3} s), in \
             {:.3} s",
            thousands(self.messages),
            thousands(self.bytes),
            self.first_seq,
            self.last_seq,
            utc_text(self.first_receive_time_ns),
            utc_text(self.last_receive_time_ns),
            lasted_ns as f64 / 1e9,
            self.seconds
        )
    }
}

/// Lines of standard input, each of which lets one message go.
struct Steps(Receiver<()>);

impl Steps {
    fn listen() -> Result<Self, Failure> {
        let (send, steps) = sync_channel(16);
        let read = move || {
            for line in io::stdin().lock().lines() {
                if line.is_err() || send.send(()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("relay-steps".into())
            .spawn(read)
            .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;
        Ok(Self(steps))
    }
}

struct Run {
    target: Target,
    steps: Option<Steps>,
    /// Nothing where no pace is kept.
    pacer: Option<Pacer>,
    deadline: Deadline,
    gaps: Gaps,
    hashes: Option<HashFile>,
    interrupt: Interrupt,
    bar: ProgressBar,
    bar_drawn: Instant,
    first_seq: u64,
    begun: Instant,
    spun_ns: u64,
    summary: Summary,
}

impl Run {
    fn replay(&mut self, recorded: &Recorded) -> Result<(), Failure> {
        loop {
            self.interrupt.check()?;
            match recorded.next_within(NAP_MAX)? {
                Next::Batch(batch) => {
                    let goes_on = self.send_all(&batch)?;
                    self.draw(batch.through().get() + 1);
                    recorded.give_back(batch);
                    if !goes_on {
                        return Ok(());
                    }
                }
                Next::NotYet => {
                    self.target.flush()?;
                    self.target.idle()?;
                }
                Next::End => return Ok(()),
            }
        }
    }

    /// Sends a batch; false when whoever steps has had enough.
    fn send_all(&mut self, batch: &Batch) -> Result<bool, Failure> {
        for delivery in batch.iter() {
            if self.summary.messages == 0 {
                self.begun = Instant::now();
            }
            if self.steps.is_some() && !self.step()? {
                return Ok(false);
            }
            if let Some(pacer) = &mut self.pacer {
                let due_ns = pacer.due_ns(delivery.record.receive_time_ns());
                let at_ns = self.wait(due_ns, delivery.record.seq().get())?;
                self.gaps.note(due_ns, at_ns);
            }
            if let Some(hashes) = &mut self.hashes {
                let record = &delivery.record;
                hashes.received(record.seq(), record.payload(), delivery.topic)?;
            }
            self.target.send(&delivery, &self.interrupt)?;
            self.summary.add(&delivery);
        }
        self.interrupt.check()?;
        if self.pacer.is_some() || self.steps.is_some() {
            // The next batch may be long in coming.
            self.target.flush()?;
        }
        Ok(true)
    }

    fn now_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Waits until a message is due; the time then, ns from the start.
    fn wait(&mut self, due_ns: u64, seq: u64) -> Result<u64, Failure> {
        let mut is_flushed = false;
        let mut spun_from_ns = None;
        loop {
            let now_ns = self.now_ns();
            let wait = self.deadline.wait(now_ns, due_ns);
            if wait != Wait::Over && !is_flushed {
                self.target.flush()?;
                is_flushed = true;
                continue;
            }
            match wait {
                Wait::Over => {
                    self.spun_ns += now_ns - spun_from_ns.unwrap_or(now_ns);
                    return Ok(now_ns);
                }
                Wait::Spin => {
                    spun_from_ns.get_or_insert(now_ns);
                    std::hint::spin_loop();
                }
                Wait::Sleep(left) => {
                    self.interrupt.check()?;
                    self.target.idle()?;
                    if left >= BAR_TIME {
                        self.draw(seq);
                    }
                    let asked = left.min(NAP_MAX);
                    let slept = Instant::now();
                    thread::sleep(asked);
                    self.deadline.slept(asked, slept.elapsed());
                }
            }
        }
    }

    /// Waits for a line; false when there will be none.
    fn step(&mut self) -> Result<bool, Failure> {
        loop {
            self.interrupt.check()?;
            self.target.flush()?;
            self.target.idle()?;
            let Some(Steps(steps)) = &self.steps else {
                return Ok(true);
            };
            match steps.recv_timeout(NAP_MAX) {
                Ok(()) => return Ok(true),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    fn draw(&mut self, seq: u64) {
        if self.pacer.is_none() || self.bar_drawn.elapsed() >= BAR_EVERY {
            self.bar.set_position(seq.saturating_sub(self.first_seq));
            self.bar_drawn = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paces_are_read() {
        assert_eq!("step".parse(), Ok(ReplayPace::Step));
        assert_eq!("max".parse(), Ok(ReplayPace::By(Pace::Max)));
        let tenfold = ReplayPace::By(Pace::Original { speed: 10.0 });
        assert_eq!("x10".parse(), Ok(tenfold));
        let error = "fast".parse::<ReplayPace>().expect_err("unknown");
        assert!(error.contains("step"), "{error}");
    }
}
