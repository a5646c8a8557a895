//! `relay import`: a journal made of a capture, of JSON lines or of generated messages, without a relay.
//!
//! ```text
//! source.rs -> journal.rs (the relay's own sequencer) -> a directory that relayd starts on and every tool reads
//! ```
//!
//! For tests and benches, and to look at a capture with the same tools as at a day of production. Messages keep the time
//! they carry as their receive time, so that a replay in the original pace is that of the capture.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use relay_journal::segment::Geometry;
use serde::Serialize;

use crate::exit::{Failure, Interrupt};
use crate::flow::{Flow, FlowKind};
use crate::hash_file::HashFile;
use crate::output::{json_line, line, progress, spinner, thousands};
use crate::publish::utc_ns;
use crate::servers::Size;

mod journal;
mod source;

use journal::{JournalWriter, Shape};
use source::{CaptureTerms, Incoming, Source};

/// A look at signals and the bar once in so many messages.
const LOOK_EVERY: u64 = 4_096;

const EXAMPLES: &str = "\
Examples:
  relay import day --pcap day.pcap --topic feed --topic-per-port
  relay import quotes --pcap day.pcap --port 26400 --port 26401
  relay export /var/lib/relay/orders --format json | relay import copy --jsonl -
  relay import big --size 256 --count 30000000 --json";

/// Options of `relay import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportOptions {
    /// Directory of the journal to make; not there yet, or empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Take the UDP and TCP payloads of a pcap or pcapng file
    #[arg(long, value_name = "FILE", group = "from")]
    pcap: Option<PathBuf>,
    /// Take JSON lines as `relay export --format json` writes them; `-` is standard input
    #[arg(long, value_name = "FILE", group = "from")]
    jsonl: Option<PathBuf>,
    /// Generate messages like a feed's: capture-like
    #[arg(long, value_name = "KIND", group = "from", requires = "count")]
    generate: Option<FlowKind>,
    /// Generate messages of so many bytes
    #[arg(long, value_name = "BYTES", group = "from", requires = "count")]
    size: Option<usize>,
    /// Of the capture, only what comes from or goes to this port; repeatable
    #[arg(long, value_name = "PORT", requires = "pcap")]
    port: Vec<u16>,
    /// Topic of the messages; JSON lines have their own
    #[arg(long, value_name = "NAME", default_value = "import")]
    topic: String,
    /// Add the destination port to the topic: TOPIC.PORT
    #[arg(long, requires = "pcap")]
    topic_per_port: bool,
    /// Publisher of messages that don't name one
    #[arg(long, value_name = "ID", default_value_t = 1)]
    publisher: u64,
    /// Stop after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Seed of what is generated
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Give each message a block of its own, as they lie where little is going on
    #[arg(long)]
    lone: bool,
    /// Number of the node the journal is to be of
    #[arg(long, value_name = "ID", default_value_t = 1)]
    node: u64,
    /// Id of the stream
    #[arg(long, value_name = "ID", default_value_t = 1)]
    stream: u32,
    /// Bytes of a segment file
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    segment_size: Size,
    /// Unit of writing, a power of two from 512 to 65,536
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    block_alignment: u32,
    /// Write `sha256(payload) topic` of each message
    #[arg(long, value_name = "FILE")]
    hash_file: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What `relay import` made.
#[derive(Debug, Serialize)]
struct Summary {
    messages: u64,
    /// Of payload.
    bytes: u64,
    last_seq: u64,
    log_bytes: u64,
    blocks: u64,
    seconds: f64,
}

/// Runs the command.
pub(crate) fn run(options: &ImportOptions) -> Result<(), Failure> {
    let begun = Instant::now();
    let interrupt = Interrupt::install()?;
    let shape = options.shape()?;
    let mut source = options.source()?;
    let mut hashes = options
        .hash_file
        .as_deref()
        .map(HashFile::create)
        .transpose()?;
    let limit = options.count.unwrap_or(u64::MAX);
    let bar = match options.count {
        Some(count) => progress(count, "importing"),
        None => spinner("importing"),
    };
    let mut incoming = Incoming::default();
    let (mut messages, mut bytes) = (0, 0);
    // The journal begins with the first message's time.
    let mut is_there = limit > 0 && source.next(&mut incoming)?;
    let first_ns = if incoming.time_ns == 0 {
        utc_ns()
    } else {
        incoming.time_ns
    };
    let mut writer = JournalWriter::create(&options.directory, shape, first_ns)?;
    while is_there {
        if let Some(hashes) = &mut hashes {
            hashes.sent(&incoming.payload, &incoming.topic)?;
        }
        writer.add(&incoming)?;
        messages += 1;
        bytes += incoming.payload.len() as u64;
        if messages % LOOK_EVERY == 0 {
            interrupt.check()?;
            bar.set_position(messages);
        }
        is_there = messages < limit && source.next(&mut incoming)?;
    }
    let made = writer.finish()?;
    if let Some(hashes) = &mut hashes {
        hashes.flush()?;
    }
    bar.finish_and_clear();
    let summary = Summary {
        messages,
        bytes,
        last_seq: made.last_seq.get(),
        log_bytes: made.bytes,
        blocks: made.blocks,
        seconds: begun.elapsed().as_secs_f64(),
    };
    if options.json {
        return json_line(&summary);
    }
    line(&format!(
        "imported {} messages, {} bytes of payload, as {} blocks of {} bytes of log, {:.3} s",
        thousands(summary.messages),
        thousands(summary.bytes),
        thousands(summary.blocks),
        thousands(summary.log_bytes),
        summary.seconds
    ))
}

impl ImportOptions {
    fn shape(&self) -> Result<Shape, Failure> {
        if self.node == 0 || self.stream == 0 || self.publisher == 0 {
            let text = "--node, --stream and --publisher are numbers from 1";
            return Err(Failure::Usage(text.into()));
        }
        let geometry = Geometry::new(self.segment_size.0, self.block_alignment)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        // As relayd wants it: a segment holds four of the longest blocks.
        if geometry.segment_size() < SEGMENT_SIZE_MIN {
            return Err(Failure::Usage(format!(
                "--segment-size is at least {SEGMENT_SIZE_MIN} bytes, as relayd wants it"
            )));
        }
        Ok(Shape {
            node: self.node,
            stream: self.stream,
            geometry,
            is_lone: self.lone,
        })
    }

    fn source(&self) -> Result<Source, Failure> {
        if let Some(path) = &self.pcap {
            let terms = CaptureTerms {
                topic: self.topic.clone(),
                is_per_port: self.topic_per_port,
                ports: self.port.clone(),
                publisher: self.publisher,
            };
            return Source::capture(path, terms);
        }
        if let Some(path) = &self.jsonl {
            return Source::lines(path, self.publisher);
        }
        let kind = self
            .generate
            .or(self.size.map(|size| FlowKind::Fixed { size }));
        let (Some(kind), Some(count)) = (kind, self.count) else {
            return Err(Failure::Usage(
                "nothing to import; give --pcap FILE, --jsonl FILE, or --size BYTES --count N"
                    .into(),
            ));
        };
        Ok(Source::Generated {
            flow: Flow::new(kind, count, self.seed),
            begun_ns: utc_ns(),
            topic: self.topic.clone(),
            publisher: self.publisher,
        })
    }
}

/// The least segment size that a relay's configuration may name.
const SEGMENT_SIZE_MIN: u64 = 4 << 20;
