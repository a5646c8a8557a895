//! `relay bench restart`: how long until clients are served again after SIGKILL, on a long journal.
//!
//! The journal is laid out block by block, as a relay that ran long would have left it: lone messages, 100,000 topics, 1,000
//! publishers, the newest checkpoint 64 MiB before the end. Then relayd is started and killed some times; what is measured goes
//! from the start of the process to the moment a publisher is logged on. After the last start it is asked for a message in the
//! middle of the log (seek), and takes messages one at a time (append).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use relay_client::{OutMessage, Publisher, Start, Subscriber};
use relay_journal::block::{self, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_journal::tables::Tables;
use relay_journal::{checkpoint, segment};
use relay_wire::code::{Policy as WirePolicy, RecordKind};
use relay_wire::id::{
    Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::record::{self, EpochBody, Fields};
use serde::Serialize;
use zerocopy::IntoBytes;

use super::MachineReport;
use super::process::ProcessUse;
use super::series::Spread;
use super::trials::{Outcome, OwnOptions, Wanted};
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::output::{progress, thousands};
use crate::percentiles::{Percentiles, new_histogram, record as note};
use crate::servers::{Cluster, Policy, Size, WriteMethod, word};

const TOPICS: u32 = 100_000;
const PUBLISHERS: u64 = 1_000;
/// As the configuration has it by default.
const SEGMENT: u64 = 64 << 20;
const UNIT: usize = 4096;
/// Topic definitions that fill blocks of a few units.
const TOPICS_PER_BLOCK: u32 = 24;
const CHECKPOINT_BEFORE_END: u64 = 64 << 20;
const PAYLOAD: usize = 256;
/// Topics, publishers and what lies behind the checkpoint.
const LENGTH_LEAST: u64 = 96 << 20;
/// Journal prepared beyond what is laid out.
const PREPARED_SPARE: u64 = 256 << 20;
/// Messages that are appended, one at a time.
const APPENDS: u32 = 2_000;
/// Bound on an answer.
const PATIENCE: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  relay bench restart --length 10GiB
  relay bench restart --length 1GiB --runs 3 --dir /mnt/journal --json
  relay bench restart --length 1GiB,5GiB,20GiB --report page.html

--hgrm is the distribution of the times until a publisher is logged on.";

/// Options of `relay bench restart`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestartOptions {
    /// Length of the log; several, as in 1GiB,5GiB, are measured in turn
    #[arg(
        long,
        value_name = "SIZE,...",
        value_delimiter = ',',
        default_value = "10GiB"
    )]
    length: Vec<Size>,
    /// Restarts of each
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u64,
    #[command(flatten)]
    own: OwnOptions,
}

/// One length's result.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    what: &'static str,
    blocks: u64,
    length_bytes: u64,
    topics: u32,
    publishers: u64,
    runs: u64,
    ready_seconds_min: f64,
    ready_seconds_median: f64,
    ready_seconds_max: f64,
    /// Each restart's time until a publisher was logged on.
    outages_ms: Vec<f64>,
    /// From the start of a connection to a message in the middle of the log.
    seek_ms: f64,
    /// From sending a lone message to its acknowledgement.
    append: Percentiles,
    /// Relayd's CPU time for each of them; counted in hundredths of a second on most machines.
    cpu_us_per_message: Option<f64>,
    /// The most memory that was resident, bytes.
    resident_peak: Option<u64>,
    mode: String,
    idle: String,
    write_method: String,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &RestartOptions) -> Result<(), Failure> {
    let is_short = |length: &Size| length.0 < LENGTH_LEAST;
    if options.length.iter().any(is_short) || !(1..=1_000).contains(&options.runs) {
        let text = "--length takes 96MiB or more, --runs 1 to 1,000";
        return Err(Failure::Usage(text.into()));
    }
    let interrupt = Interrupt::install()?;
    options.own.collect(options.length.len(), |results| {
        for &length in &options.length {
            let (report, ready) = options.measure(length, &interrupt)?;
            results.write_hgrm(&ready)?;
            results.note(report)?;
        }
        Ok(())
    })
}

impl RestartOptions {
    /// What a log so long gives, and the times until a publisher was logged on.
    fn measure(
        &self,
        length: Size,
        interrupt: &Interrupt,
    ) -> Result<(Report, Histogram<u64>), Failure> {
        let write_method = self.own.write_method.unwrap_or(WriteMethod::Dsync);
        let (_directory, mut cluster) = self.own.prepare(&Wanted {
            nodes: 1,
            policy: Policy::Local,
            write_method,
            prepared: Size(length.0 + PREPARED_SPARE),
            publishers: PUBLISHERS,
            is_separable: false,
        })?;
        let mut log = Log::new(&cluster.stream_directories().swap_remove(0));
        log.lay_out(length.0, interrupt)?;
        let mut ready = new_histogram();
        let mut seconds = Vec::new();
        cluster.start_node(0)?;
        for _ in 0..self.runs {
            interrupt.check()?;
            cluster.kill(0);
            let begun = Instant::now();
            cluster.start_node(0)?;
            let publisher = Publisher::connect(cluster.publisher(1).publisher(1))?;
            let took = begun.elapsed();
            drop(publisher);
            note(&mut ready, took.as_nanos() as u64);
            seconds.push(took.as_secs_f64());
        }
        let spread = Spread::of(seconds.iter().copied());
        let seek_ms = seek(&cluster, log.tables.next_seq.get() / 2)?;
        let pid = Counters::read(&cluster.stream_directories().swap_remove(0))?.pid;
        let before = ProcessUse::read(pid);
        let append = append(&cluster)?;
        let after = ProcessUse::read(pid);
        let taken = before.zip(after);
        let taken = taken.map(|(before, after)| after.cpu_seconds - before.cpu_seconds);
        let report = Report {
            name: format!("restart {length}{}", self.own.label()),
            what: "restart",
            blocks: log.tables.next_block_number - 1,
            length_bytes: log.tables.position.get(),
            topics: TOPICS,
            publishers: PUBLISHERS,
            runs: self.runs,
            ready_seconds_min: spread.least,
            ready_seconds_median: spread.median,
            ready_seconds_max: spread.most,
            outages_ms: seconds.iter().map(|seconds| seconds * 1e3).collect(),
            seek_ms,
            append,
            cpu_us_per_message: taken.map(|seconds| seconds * 1e6 / f64::from(APPENDS)),
            resident_peak: after.map(|used| used.resident_peak),
            mode: word(&self.own.mode),
            idle: word(&self.own.idle),
            write_method: word(&write_method),
            machine: self.own.machine(),
        };
        cluster.stop(interrupt)?;
        Ok((report, ready))
    }
}

fn topic_name(topic: u32) -> String {
    format!("orders.{topic:06}")
}

/// The topic of the message with this index, from 0: its seq is one more.
fn topic_of(index: u64) -> u32 {
    (index % u64::from(TOPICS)) as u32 + 1
}

/// Milliseconds until a subscriber has the message `seq`.
fn seek(cluster: &Cluster, seq: u64) -> Result<f64, Failure> {
    let start = Start::Seq {
        seq,
        checksum: None,
    };
    let patterns = vec![topic_name(topic_of(seq - 1))];
    let begun = Instant::now();
    let mut subscriber = Subscriber::connect(cluster.subscriber().subscriber(patterns, start))?;
    let found = subscriber.next_within(PATIENCE)?;
    let took = begun.elapsed();
    match found {
        Some(delivery) if delivery.record.seq() == Seq(seq) => Ok(took.as_secs_f64() * 1e3),
        other => {
            let seen = other.map(|delivery| delivery.record.seq());
            let text = format!("asked for seq {seq}, received {seen:?}");
            Err(Failure::Damaged(text))
        }
    }
}

/// How long lone messages take to be acknowledged.
fn append(cluster: &Cluster) -> Result<Percentiles, Failure> {
    let mut publisher = Publisher::connect(cluster.publisher(1).publisher(1))?;
    let topic = publisher.topic(&topic_name(1))?;
    let payload = [0; PAYLOAD];
    let mut took = new_histogram();
    for _ in 0..APPENDS {
        let begun = Instant::now();
        publisher.send(&OutMessage::new(topic, &payload))?;
        if !publisher.wait_released(PATIENCE)? {
            return Err(Failure::Failed("a message was never released".into()));
        }
        note(&mut took, begun.elapsed().as_nanos() as u64);
    }
    Ok(Percentiles::of(&took))
}

impl Outcome for Report {
    fn text(&self) -> Vec<String> {
        let laid_out = format!(
            "{} blocks, {} bytes, {} topics, {} publishers, {} restarts",
            thousands(self.blocks),
            thousands(self.length_bytes),
            thousands(self.topics.into()),
            thousands(self.publishers),
            self.runs
        );
        let ready = format!(
            "a publisher is logged on {:.2} s after the start, median (least..most {:.2}..{:.2}); a message in the middle \
             is there after {:.1} ms",
            self.ready_seconds_median, self.ready_seconds_min, self.ready_seconds_max, self.seek_ms
        );
        vec![
            self.machine.text(),
            laid_out,
            ready,
            Percentiles::HEAD.into(),
            self.append.row("append us"),
        ]
    }

    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A log being laid out block by block, with the fold of what is there.
struct Log {
    directory: PathBuf,
    tables: Tables,
    /// Blocks of the present segment that are not written yet, and where they start.
    pending: Vec<u8>,
    pending_at: Position,
    time_ns: u64,
}

/// What stands in a block.
type Records = [(RecordKind, Fields, Vec<u8>)];

impl Log {
    fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            tables: Tables::empty(StreamId(1)),
            pending: Vec::with_capacity(SEGMENT as usize),
            pending_at: Position(0),
            time_ns: 1_700_000_000_000_000_000,
        }
    }

    fn lay_out(&mut self, bytes: u64, interrupt: &Interrupt) -> Result<(), Failure> {
        self.open()?;
        let bar = progress(bytes, "laying out the log");
        let mut is_checkpointed = false;
        for index in 0_u64.. {
            let position = self.tables.position.get();
            if position >= bytes {
                break;
            }
            if index.is_multiple_of(4096) {
                interrupt.check()?;
                bar.set_position(position);
            }
            let fields = Fields {
                topic: TopicId(topic_of(index)),
                publisher: PublisherId(index % PUBLISHERS + 1),
                incarnation: Incarnation(1),
                publisher_seq: PublisherSeq(index / PUBLISHERS + 1),
                ..Fields::default()
            };
            self.block(&[(RecordKind::Data, fields, vec![index as u8; PAYLOAD])])?;
            if !is_checkpointed && position + CHECKPOINT_BEFORE_END >= bytes {
                is_checkpointed = true;
                let name = checkpoint::name(self.tables.position);
                let path = self.directory.join(name);
                fs::write(&path, checkpoint::encode(&self.tables))
                    .map_err(|error| Failure::file("writing", &path, &error))?;
            }
        }
        bar.finish_and_clear();
        self.flush()
    }

    /// The epoch, the topics, the publishers.
    fn open(&mut self) -> Result<(), Failure> {
        let opening = EpochBody {
            epoch: 1.into(),
            start_position: 0.into(),
            previous_checksum: 0.into(),
            copies: 1,
            policy: WirePolicy::Local.number(),
            reserved: [0; 2],
            clean: 0,
            reserved_tail: [0; 15],
        };
        let opening = opening.as_bytes().to_vec();
        self.block(&[(RecordKind::Epoch, Fields::default(), opening)])?;
        for first in (1..=TOPICS).step_by(TOPICS_PER_BLOCK as usize) {
            let topics = first..(first + TOPICS_PER_BLOCK).min(TOPICS + 1);
            let records: Vec<_> = topics
                .map(|topic| {
                    let fields = Fields {
                        topic: TopicId(topic),
                        ..Fields::default()
                    };
                    (RecordKind::Topic, fields, topic_name(topic).into_bytes())
                })
                .collect();
            self.block(&records)?;
        }
        for publisher in 1..=PUBLISHERS {
            let fields = Fields {
                publisher: PublisherId(publisher),
                incarnation: Incarnation(1),
                ..Fields::default()
            };
            self.block(&[(RecordKind::PublisherSession, fields, Vec::new())])?;
        }
        Ok(())
    }

    fn block(&mut self, records: &Records) -> Result<(), Failure> {
        self.time_ns += 1_000;
        let mut bytes = [0; 2 * UNIT];
        let mut end = HEADER_LENGTH;
        let mut data_count = 0;
        for (kind, fields, payload) in records {
            let stride = record::encode(&mut bytes[end..], *kind, fields, &[], payload)
                .map_err(|error| Failure::Failed(format!("laying out a record: {error:?}")))?;
            let seq = Seq(self.tables.next_seq.get() + u64::from(data_count));
            record::stamp(&mut bytes[end..], seq, self.time_ns);
            data_count += u32::from(*kind == RecordKind::Data);
            end += stride;
        }
        let body_length = (end - HEADER_LENGTH) as u32;
        let position = self.tables.position;
        let span = block::span_for(body_length, UNIT as u32);
        let header = BlockHeader {
            kind: BlockKind::Records,
            stream: StreamId(1),
            epoch: Epoch(1),
            number: self.tables.next_block_number,
            position,
            first_seq: self.tables.next_seq,
            record_count: records.len() as u32,
            data_count,
            body_length,
            span,
            sealed_time_ns: self.time_ns,
            released: position,
            previous_checksum: self.tables.previous_checksum,
            body_checksum: 0,
            checksum: 0,
        };
        let sealed = block::seal(&mut bytes[..span as usize], &header);
        self.tables
            .apply_block(&sealed, &bytes[HEADER_LENGTH..end])
            .map_err(|error| Failure::Failed(format!("laying out a block: {error}")))?;
        self.pending.extend_from_slice(&bytes[..span as usize]);
        if self.tables.position.get().is_multiple_of(SEGMENT) {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is pending into the segment it belongs to, which was prepared before.
    fn flush(&mut self) -> Result<(), Failure> {
        let index = self.pending_at.get() / SEGMENT;
        let path = self.directory.join(segment::DIRECTORY);
        let path = path.join(segment::name(index));
        let write = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(&self.pending, self.pending_at.get() % SEGMENT)?;
            file.sync_all()
        };
        write().map_err(|error| Failure::file("writing", &path, &error))?;
        self.pending.clear();
        self.pending_at = self.tables.position;
        Ok(())
    }
}
