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

use super::{MachineReport, scratch};
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, thousands};
use crate::percentiles::{Percentiles, new_histogram, record as note};
use crate::servers::{
    Background, Cluster, ClusterSettings, Idle, Mode, NodeSettings, Policy, Size, WriteMethod,
    find_relayd,
};

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
const APPENDS: u32 = 500;
/// Bound on an answer.
const PATIENCE: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  relay bench restart --length 10GiB
  relay bench restart --length 1GiB --runs 3 --dir /mnt/journal --json";

/// Options of `relay bench restart`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestartOptions {
    /// Length of the log
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    length: Size,
    /// Restarts
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u64,
    /// Directory in which the journal is made and removed again
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    blocks: u64,
    length_bytes: u64,
    topics: u32,
    publishers: u64,
    runs: u64,
    ready_seconds_median: f64,
    ready_seconds_max: f64,
    /// From the start of a connection to a message in the middle of the log.
    seek_ms: f64,
    /// From sending a lone message to its acknowledgement.
    append: Percentiles,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &RestartOptions) -> Result<(), Failure> {
    let bytes = options.length.0;
    if bytes < LENGTH_LEAST || !(1..=1_000).contains(&options.runs) {
        let text = "--length takes 96MiB or more, --runs 1 to 1,000";
        return Err(Failure::Usage(text.into()));
    }
    let relayd = find_relayd(options.relayd.as_deref())?;
    let directory = scratch(options.dir.as_deref())?;
    let interrupt = Interrupt::install()?;
    let mut cluster = Cluster::prepare(&relayd, directory.path(), &settings(bytes))?;
    let mut log = Log::new(&cluster.stream_directories().swap_remove(0));
    log.lay_out(bytes, &interrupt)?;
    let mut seconds = Vec::new();
    for run in 0..options.runs {
        interrupt.check()?;
        if run > 0 {
            cluster.kill(0);
        }
        let begun = Instant::now();
        cluster.start_node(0)?;
        let publisher = Publisher::connect(cluster.publisher(1).publisher(1))?;
        seconds.push(begun.elapsed().as_secs_f64());
        drop(publisher);
    }
    seconds.sort_by(f64::total_cmp);
    let report = Report {
        blocks: log.tables.next_block_number - 1,
        length_bytes: log.tables.position.get(),
        topics: TOPICS,
        publishers: PUBLISHERS,
        runs: options.runs,
        ready_seconds_median: seconds[seconds.len() / 2],
        ready_seconds_max: seconds[seconds.len() - 1],
        seek_ms: seek(&cluster, log.tables.next_seq.get() / 2)?,
        append: append(&cluster)?,
        machine: MachineReport::new(),
    };
    cluster.stop(&interrupt)?;
    report.print(options.json)
}

fn settings(bytes: u64) -> ClusterSettings {
    ClusterSettings {
        nodes: 1,
        streams: 1,
        cpus: Vec::new(),
        node: NodeSettings {
            mode: Mode::Shared,
            idle: Idle::Park,
            policy: Policy::Local,
            write_method: WriteMethod::Dsync,
            prepared: Size(bytes + PREPARED_SPARE),
            background: Background::Usual,
            publishers: PUBLISHERS,
        },
        is_separable: false,
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

impl Report {
    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line(&self.machine.text())?;
        line(&format!(
            "{} blocks, {} bytes, {} topics, {} publishers, {} restarts",
            thousands(self.blocks),
            thousands(self.length_bytes),
            thousands(self.topics.into()),
            thousands(self.publishers),
            self.runs
        ))?;
        line(&format!(
            "a publisher is logged on {:.2} s after the start in the median, {:.2} s at most; a message in the middle is \
             there after {:.1} ms",
            self.ready_seconds_median, self.ready_seconds_max, self.seek_ms
        ))?;
        line(Percentiles::HEAD)?;
        line(&self.append.row("append us"))
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
