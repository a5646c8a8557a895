//! `relay pub`: lines, files, captures and generated flows, at a given pace, into a stream.
//!
//! ```text
//! source.rs -> due? -> hash file -> client's window -> relay
//! ```
//!
//! The hash of a message is written before the client library sees the message, so that a fault of the library can't hide
//! itself. The time of origin is when the message was *due*: a message that waited says so in its latency.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::ProgressBar;
use relay_client::{OutMessage, Publisher, PublisherEvent, TopicId, TrySendError};
use serde::Serialize;

use crate::connect::ConnectOptions;
use crate::exit::{Failure, Interrupt};
use crate::flow::FlowKind;
use crate::hash_file::HashFile;
use crate::output::{json_line, line, progress, spinner, thousands};
use crate::pace::{Pace, Pacer};

mod source;

use source::{Next, Source};

/// Most messages queued before they are written to the socket.
const BATCH_MAX: usize = 64;
/// Longest sleep: heartbeats, signals and lines from elsewhere are looked at that often.
const NAP_MAX: Duration = Duration::from_millis(5);
/// How long an interrupted publisher waits for what it sent to be released.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  echo 'buy 100' | relay pub --publisher 1 --topic orders.new
  relay pub --publisher 1 --topic feed --topic-per-port --pcap day.pcap --pace x10
  relay pub --publisher 1 --topic load --count 100000 --size 256 --rate 5000 --json";

/// Options of `relay pub`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PublishOptions {
    /// Id of the publisher
    #[arg(long, value_name = "ID")]
    publisher: u64,
    /// Topic of the messages
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// Files, each line a message; `-` or none is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take each file as one message
    #[arg(long, requires = "files")]
    whole: bool,
    /// Publish the UDP and TCP payloads of a pcap or pcapng file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "generate", "size"])]
    pcap: Option<PathBuf>,
    /// Add the destination port to the topic: TOPIC.PORT
    #[arg(long, requires = "pcap")]
    topic_per_port: bool,
    /// Generate messages like a feed's: capture-like
    #[arg(long, value_name = "KIND", conflicts_with = "files")]
    generate: Option<FlowKind>,
    /// Stop after so many messages; with --size or --generate, generate so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Generate messages of so many bytes
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["files", "generate"])]
    size: Option<usize>,
    /// Seed of what is generated
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// How fast: original (as captured), xN (N times as fast), max
    #[arg(long, value_name = "PACE", conflicts_with = "rate")]
    pace: Option<Pace>,
    /// Messages per second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Write `sha256(payload) topic` of each message, before the client library gets it
    #[arg(long, value_name = "FILE")]
    hash_file: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// Say on standard error what happens to the connection
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    connect: ConnectOptions,
}

/// What `relay pub` did.
#[derive(Debug, Serialize)]
struct Summary {
    published: u64,
    acknowledged: u64,
    rejected: u64,
    bytes: u64,
    seconds: f64,
    rate: f64,
    connections_lost: u64,
    incarnation: u64,
}

/// Runs the command.
pub(crate) fn run(options: PublishOptions) -> Result<(), Failure> {
    let connection = options.connect.resolve()?;
    let pace = options.pace()?;
    let source = options.source()?;
    let hashes = options
        .hash_file
        .as_deref()
        .map(HashFile::create)
        .transpose()?;
    if options.publisher == 0 {
        return Err(Failure::Usage(
            "publisher ids start at 1; give --publisher 1 or more".into(),
        ));
    }
    let publisher = Publisher::connect(connection.publisher(options.publisher))?;
    let bar = match source.length() {
        Some(length) => progress(length, "publishing"),
        None if options.pcap.is_some() => spinner("publishing"),
        None => ProgressBar::hidden(),
    };
    let mut run = Run {
        publisher,
        source,
        pacer: Pacer::new(pace),
        hashes,
        topic_prefix: options.topic.clone(),
        topics: HashMap::new(),
        limit: options.count.unwrap_or(u64::MAX),
        is_verbose: options.verbose,
        interrupt: Interrupt::install()?,
        bar,
        begun: Instant::now(),
        begun_ns: utc_ns(),
        published: 0,
        bytes: 0,
        rejected: 0,
        lost_connections: 0,
    };
    let result = run.publish();
    run.bar.finish_and_clear();
    let summary = run.finish(result.is_err())?;
    print(&options, &summary)?;
    result?;
    if summary.rejected > 0 {
        return Err(Failure::Failed(format!(
            "the relay refused {} messages for good; run with --verbose to see why",
            summary.rejected
        )));
    }
    if summary.acknowledged < summary.published {
        let missing = summary.published - summary.acknowledged;
        return Err(Failure::Damaged(format!(
            "{missing} messages were not acknowledged; look whether they are in the stream before \
             sending them again"
        )));
    }
    Ok(())
}

impl PublishOptions {
    fn pace(&self) -> Result<Pace, Failure> {
        match (self.pace, self.rate) {
            (_, Some(rate)) if rate.is_finite() && (1e-3..=1e9).contains(&rate) => {
                Ok(Pace::Rate(rate))
            }
            (_, Some(rate)) => Err(Failure::Usage(format!(
                "{rate} messages per second can't be kept; give --rate a number from 0.001 to 1e9"
            ))),
            (Some(pace), None) => Ok(pace),
            (None, None) if self.generate.is_some() => Ok(Pace::Original { speed: 1.0 }),
            (None, None) => Ok(Pace::Max),
        }
    }

    fn source(&self) -> Result<Source, Failure> {
        if let Some(path) = &self.pcap {
            return Source::capture(path, self.topic_per_port);
        }
        let kind = self
            .generate
            .or(self.size.map(|size| FlowKind::Fixed { size }));
        match (kind, self.count) {
            (Some(kind), Some(count)) => Ok(Source::flow(kind, count, self.seed)),
            (Some(_), None) => Err(Failure::Usage(
                "generated messages need --count; say how many".into(),
            )),
            (None, _) if self.whole => Ok(Source::whole(self.files.clone())),
            (None, _) => Source::lines(self.files.clone()),
        }
    }
}

fn print(options: &PublishOptions, summary: &Summary) -> Result<(), Failure> {
    if options.json {
        return json_line(summary);
    }
    line(&format!(
        "published {}, acknowledged {}, {:.3} s, {} msg/s",
        thousands(summary.published),
        thousands(summary.acknowledged),
        summary.seconds,
        thousands(summary.rate as u64)
    ))
}

/// UTC now, ns.
pub(crate) fn utc_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// A message that was hashed and now has to be taken by the client library.
struct Pending {
    topic: TopicId,
    payload: Vec<u8>,
    due_ns: u64,
}

struct Run {
    publisher: Publisher,
    source: Source,
    pacer: Pacer,
    hashes: Option<HashFile>,
    topic_prefix: String,
    topics: HashMap<Option<u16>, (TopicId, String)>,
    limit: u64,
    is_verbose: bool,
    interrupt: Interrupt,
    bar: ProgressBar,
    begun: Instant,
    begun_ns: u64,
    published: u64,
    bytes: u64,
    rejected: u64,
    lost_connections: u64,
}

/// What a turn ended with.
enum Turn {
    Busy,
    /// Nothing to do for so long.
    Idle(Duration),
    /// The window is full.
    Full,
    End,
}

impl Run {
    fn publish(&mut self) -> Result<(), Failure> {
        let mut pending = Pending {
            topic: TopicId(0),
            payload: Vec::new(),
            due_ns: 0,
        };
        let mut is_pending = false;
        loop {
            self.interrupt.check()?;
            let turn = self.queue(&mut pending, &mut is_pending)?;
            self.publisher.poll()?;
            self.see_events();
            self.bar.set_position(self.published);
            match turn {
                Turn::Busy => {}
                Turn::End => break,
                Turn::Full => {
                    self.publisher.wait_released(Duration::from_micros(200))?;
                }
                Turn::Idle(nap) if self.publisher.unacknowledged() > 0 => {
                    self.publisher.wait_released(nap)?;
                }
                Turn::Idle(nap) => self.publisher.wait(nap),
            }
        }
        while !self.publisher.wait_released(Duration::from_millis(100))? {
            self.interrupt.check()?;
            self.see_events();
        }
        Ok(())
    }

    /// Queues what is due, a batch at most.
    fn queue(&mut self, pending: &mut Pending, is_pending: &mut bool) -> Result<Turn, Failure> {
        for _ in 0..BATCH_MAX {
            if !*is_pending {
                if self.published == self.limit {
                    return Ok(Turn::End);
                }
                match self.take(pending)? {
                    Next::Message { .. } => *is_pending = true,
                    Next::NotYet => return Ok(Turn::Idle(Duration::from_millis(1))),
                    Next::End => return Ok(Turn::End),
                }
            }
            let now_ns = self.begun.elapsed().as_nanos() as u64;
            if pending.due_ns > now_ns {
                let left = Duration::from_nanos(pending.due_ns - now_ns);
                return Ok(Turn::Idle(left.min(NAP_MAX)));
            }
            let mut message = OutMessage::new(pending.topic, &pending.payload);
            let origin_ns = if pending.due_ns == 0 {
                now_ns
            } else {
                pending.due_ns
            };
            message.origin_time_ns = self.begun_ns + origin_ns;
            match self.publisher.try_send(&message) {
                Ok(_) => {
                    *is_pending = false;
                    self.published += 1;
                    self.bytes += pending.payload.len() as u64;
                }
                Err(TrySendError::Full) => return Ok(Turn::Full),
                Err(TrySendError::Closed(error)) => return Err(error.into()),
                Err(error) => {
                    return Err(Failure::Failed(format!(
                        "message {} of {} bytes: {error}",
                        self.published + 1,
                        pending.payload.len()
                    )));
                }
            }
        }
        Ok(Turn::Busy)
    }

    /// Takes the next message out of the source and writes its hash.
    fn take(&mut self, pending: &mut Pending) -> Result<Next, Failure> {
        let next = self.source.next(&mut pending.payload)?;
        let Next::Message { time_ns, port } = next else {
            return Ok(next);
        };
        pending.due_ns = self.pacer.due_ns(time_ns);
        if !self.topics.contains_key(&port) {
            let name = match port {
                Some(port) => format!("{}.{port}", self.topic_prefix),
                None => self.topic_prefix.clone(),
            };
            let topic = self.publisher.topic(&name)?;
            self.topics.insert(port, (topic, name));
        }
        let (topic, name) = &self.topics[&port];
        pending.topic = *topic;
        if let Some(hashes) = &mut self.hashes {
            hashes.sent(&pending.payload, name)?;
        }
        Ok(next)
    }

    fn see_events(&mut self) {
        while let Some(event) = self.publisher.next_event() {
            match event {
                PublisherEvent::Rejected {
                    publisher_seq,
                    code,
                    text,
                } => {
                    self.rejected += 1;
                    self.say(&format!(
                        "message {publisher_seq} refused: {code:?}: {text}"
                    ));
                }
                PublisherEvent::Disconnected { reason } => {
                    self.lost_connections += 1;
                    self.say(&format!("connection lost: {reason}"));
                }
                PublisherEvent::Connected {
                    epoch,
                    next_expected,
                    released_through,
                    ..
                } => {
                    self.say(&format!(
                        "connected: epoch {epoch}, released through {released_through}, \
                         next {next_expected}"
                    ));
                }
                PublisherEvent::Held(held) => self.say(&format!("held: {held:?}")),
                _ => {}
            }
        }
    }

    fn say(&self, text: &str) {
        if self.is_verbose {
            self.bar.suspend(|| eprintln!("relay: {text}"));
        }
    }

    /// Closes hash file and session; what was done.
    fn finish(mut self, has_failed: bool) -> Result<Summary, Failure> {
        if let Some(hashes) = &mut self.hashes {
            hashes.flush()?;
        }
        if has_failed {
            // The first error is the one that is told.
            let _ = self.publisher.wait_released(INTERRUPTED_WAIT);
        }
        self.see_events();
        let seconds = self.begun.elapsed().as_secs_f64();
        let acknowledged = self.publisher.acked_through().get();
        let summary = Summary {
            published: self.published,
            acknowledged,
            rejected: self.rejected,
            bytes: self.bytes,
            seconds,
            rate: acknowledged as f64 / seconds,
            connections_lost: self.lost_connections,
            incarnation: self.publisher.incarnation().get(),
        };
        if !has_failed {
            self.publisher.close()?;
        }
        Ok(summary)
    }
}
