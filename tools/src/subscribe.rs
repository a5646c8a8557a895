//! `relay sub`: prints messages as they are released, from any point of the stream on.
//!
//! Hashes are taken from what came out of the client library, so that whoever compares them with those of `relay pub`
//! judges everything between.

use std::fs;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use relay_client::{Delivery, Start, Subscriber, SubscriberEvent};
use serde::{Deserialize, Serialize};

use crate::connect::ConnectOptions;
use crate::exit::{Failure, Interrupt};
use crate::format;
use crate::hash_file::HashFile;
use crate::output::progress;
use crate::percentiles::{Percentiles, new_histogram, record};
use crate::publish::utc_ns;
use crate::rendering::{Rendering, RenderingOptions};
use crate::when::parse_utc_ns;

/// How often signals are looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// Output is handed on at the latest when so many bytes wait.
const OUTPUT_BYTES: usize = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  relay sub --topic 'orders.>'
  relay sub --from earliest --until-end --json
  relay sub --from 2026-01-05T09:30:00Z --topic '*.fills' -f '%o %T %t %s\\n'
  relay sub --from 1000 --count 10 --raw > messages.bin";

/// Options of `relay sub`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", format::HELP))]
pub(crate) struct SubscribeOptions {
    /// Where to start: live, earliest, a seq, or a time as 2026-01-05T09:30:00Z
    #[arg(long, value_name = "WHERE", default_value = "live")]
    from: From,
    /// Topics to take, repeatable; `*` is any one level, `>` the rest
    #[arg(long, value_name = "PATTERN", default_value = ">")]
    topic: Vec<String>,
    /// Stop after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop when the end of the stream as known by then is reached
    #[arg(long)]
    until_end: bool,
    #[command(flatten)]
    rendering: RenderingOptions,
    /// Print no messages
    #[arg(long, short, conflicts_with_all = ["json", "raw", "format"])]
    quiet: bool,
    /// Write `seq sha256(payload) topic` of each message
    #[arg(long, value_name = "FILE")]
    hash_file: Option<PathBuf>,
    /// At the end, write latencies from origin to receipt and all losses of the connection, as JSON
    #[arg(long, value_name = "FILE")]
    latency_file: Option<PathBuf>,
    /// Say on standard error what happens to the connection
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    connect: ConnectOptions,
}

/// Where a subscription starts, as the command line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct From(Start);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let start = match text {
            "live" => Start::Live,
            "earliest" => Start::Earliest,
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let seq = text.parse().ok().filter(|&seq| seq > 0);
                let seq = seq.ok_or_else(|| format!("`{text}` is no seq; they start at 1"))?;
                Start::Seq {
                    seq,
                    checksum: None,
                }
            }
            _ => Start::Time(parse_utc_ns(text).map_err(|error| {
                format!(
                    "`{text}` is none of: live, earliest, a seq, a time like 2026-01-05T09:30:00Z \
                     ({error})"
                )
            })?),
        };
        Ok(Self(start))
    }
}

/// A loss of the connection, as the subscriber saw it; times in ns UTC.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// The last message before it, 0 for none.
    pub(crate) last_message_ns: u64,
    /// When the loss was noticed.
    pub(crate) lost_ns: u64,
    /// When the subscription stood again, 0 for never.
    pub(crate) connected_ns: u64,
    /// The first message after it, 0 for none.
    pub(crate) next_message_ns: u64,
}

/// The content of the latency file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    /// Messages received.
    pub(crate) received: u64,
    /// Origin time to receipt, of the messages that carry an origin time.
    #[serde(flatten)]
    pub(crate) latency: Percentiles,
    /// Losses of the connection, in order.
    pub(crate) outages: Vec<Outage>,
}

/// Runs the command.
pub(crate) fn run(options: SubscribeOptions) -> Result<(), Failure> {
    let connection = options.connect.resolve()?;
    let out = Output {
        rendering: (!options.quiet).then(|| options.rendering.rendering(Rendering::Text)),
        stdout: BufWriter::with_capacity(OUTPUT_BYTES, io::stdout().lock()),
        hashes: options
            .hash_file
            .as_deref()
            .map(HashFile::create)
            .transpose()?,
        line: Vec::new(),
    };
    let from = connection.subscriber(options.topic.clone(), options.from.0);
    let subscriber = Subscriber::connect(from)?;
    let mut run = Run {
        subscriber,
        out,
        limit: options.count.unwrap_or(u64::MAX),
        is_until_end: options.until_end,
        is_verbose: options.verbose,
        is_timed: options.latency_file.is_some(),
        interrupt: Interrupt::install()?,
        bar: None,
        received: 0,
        last_message_ns: 0,
        latency: new_histogram(),
        outages: Vec::new(),
    };
    if options.quiet && options.until_end {
        run.bar = Some(progress(0, "receiving"));
    }
    let result = run.receive();
    if let Some(bar) = &run.bar {
        bar.finish_and_clear();
    }
    run.out.flush()?;
    if let Some(path) = &options.latency_file {
        write_latency(path, &run)?;
    }
    run.subscriber.close();
    result
}

fn write_latency(path: &Path, run: &Run) -> Result<(), Failure> {
    let summary = LatencySummary {
        received: run.received,
        latency: Percentiles::of(&run.latency),
        outages: run.outages.clone(),
    };
    let text = serde_json::to_string(&summary).expect("a report has string keys only");
    fs::write(path, text + "\n").map_err(|error| Failure::file("writing", path, &error))
}

struct Run {
    subscriber: Subscriber,
    out: Output,
    limit: u64,
    is_until_end: bool,
    is_verbose: bool,
    is_timed: bool,
    interrupt: Interrupt,
    bar: Option<ProgressBar>,
    received: u64,
    last_message_ns: u64,
    latency: Histogram<u64>,
    outages: Vec<Outage>,
}

impl Run {
    fn receive(&mut self) -> Result<(), Failure> {
        loop {
            self.interrupt.check()?;
            self.take_what_is_there()?;
            self.see_events();
            self.out.flush()?;
            if self.is_at_end() {
                return Ok(());
            }
            // Blocks without a message in hand, so that what came is written out before the wait.
            if let Some(delivery) = self.subscriber.next_within(LOOK)? {
                let now_ns = if self.is_timed { utc_ns() } else { 0 };
                self.out.message(&delivery)?;
                let origin_ns = delivery.record.header().origin_time_ns.get();
                self.count(origin_ns, now_ns);
            }
        }
    }

    fn is_at_end(&self) -> bool {
        let is_caught_up = self.is_until_end
            && self.subscriber.is_connected()
            && self.subscriber.next_seq() >= self.subscriber.tail_seq();
        self.received >= self.limit || is_caught_up
    }

    fn take_what_is_there(&mut self) -> Result<(), Failure> {
        while self.received < self.limit && !(self.is_until_end && self.is_at_end()) {
            let Some(delivery) = self.subscriber.poll()? else {
                return Ok(());
            };
            let now_ns = if self.is_timed { utc_ns() } else { 0 };
            self.out.message(&delivery)?;
            let origin_ns = delivery.record.header().origin_time_ns.get();
            self.count(origin_ns, now_ns);
            if self.received.is_multiple_of(4096) {
                self.interrupt.check()?;
                if let Some(bar) = &self.bar {
                    bar.set_length(self.subscriber.tail_seq().get());
                    bar.set_position(self.subscriber.next_seq().get());
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, origin_ns: u64, now_ns: u64) {
        self.received += 1;
        if !self.is_timed {
            return;
        }
        // A loss is told only after everything that came before it was handed over.
        self.see_events();
        if origin_ns != 0 {
            record(&mut self.latency, now_ns.saturating_sub(origin_ns));
        }
        self.last_message_ns = now_ns;
        if let Some(outage) = self.outages.last_mut()
            && outage.next_message_ns == 0
        {
            outage.next_message_ns = now_ns;
        }
    }

    fn see_events(&mut self) {
        while let Some(event) = self.subscriber.next_event() {
            let text = match event {
                SubscriberEvent::Disconnected { reason } => {
                    self.outages.push(Outage {
                        last_message_ns: self.last_message_ns,
                        lost_ns: utc_ns(),
                        ..Outage::default()
                    });
                    format!("connection lost: {reason}")
                }
                SubscriberEvent::Connected {
                    start_seq,
                    next_seq,
                    epoch,
                } => {
                    if let Some(outage) = self.outages.last_mut() {
                        outage.connected_ns = utc_ns();
                    }
                    format!("subscribed: from {start_seq}, next {next_seq}, epoch {epoch}")
                }
                _ => continue,
            };
            if self.is_verbose {
                eprintln!("relay: {text}");
            }
        }
    }
}

struct Output {
    /// Nothing with `--quiet`.
    rendering: Option<Rendering>,
    stdout: BufWriter<StdoutLock<'static>>,
    hashes: Option<HashFile>,
    line: Vec<u8>,
}

impl Output {
    fn message(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        let (seq, payload) = (delivery.record.seq(), delivery.record.payload());
        if let Some(hashes) = &mut self.hashes {
            hashes.received(seq, payload, delivery.topic)?;
        }
        let Some(rendering) = &self.rendering else {
            return Ok(());
        };
        self.line.clear();
        rendering.write(&mut self.line, delivery);
        self.stdout
            .write_all(&self.line)
            .map_err(|error| Failure::output(&error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if let Some(hashes) = &mut self.hashes {
            hashes.flush()?;
        }
        self.stdout.flush().map_err(|error| Failure::output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_live_earliest_a_seq_or_a_time() {
        assert_eq!("live".parse(), Ok(From(Start::Live)));
        assert_eq!("earliest".parse(), Ok(From(Start::Earliest)));
        assert_eq!(
            "12".parse(),
            Ok(From(Start::Seq {
                seq: 12,
                checksum: None
            }))
        );
        let time = Start::Time(1_767_605_400_000_000_000);
        assert_eq!("2026-01-05T09:30:00Z".parse(), Ok(From(time)));
        assert_eq!("2026-01-05T17:30:00+08:00".parse(), Ok(From(time)));
        let time = Start::Time(1_767_605_400_000_000_001);
        assert_eq!("2026-01-05T09:30:00.000000001Z".parse(), Ok(From(time)));
    }

    #[test]
    fn anything_else_is_no_start() {
        for bad in [
            "",
            "0",
            "-1",
            "now",
            "99999999999999999999",
            "2026-01-05",
            "1969-01-01T00:00:00Z",
        ] {
            assert!(bad.parse::<From>().is_err(), "{bad}");
        }
    }
}
