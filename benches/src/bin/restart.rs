//! How long a restart takes on a long journal: `cargo run --release -p relay-benches --bin restart -- DIR [GIB]`.
//!
//! Lays out a journal of lone-message blocks in DIR (10 GiB unless said otherwise) with 100,000 topics and 1,000 publishers,
//! as a relay that ran long would leave it, the newest checkpoint 64 MiB before the end. Then it starts `relayd` (from beside this
//! program), kills it with SIGKILL, and measures five times from the start of the process to the moment a client is
//! logged on. Prints one JSON object. DIR must not exist; it is left for inspection.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use relay_journal::block::{self, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_journal::tables::Tables;
use relay_journal::{checkpoint, segment};
use relay_wire::code::{Policy, RecordKind, Role};
use relay_wire::id::{
    Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::message::{Logon, Message};
use relay_wire::record::{self, EpochBody, Fields};
use zerocopy::IntoBytes;

type Failure = Box<dyn std::error::Error>;

const TOPICS: u32 = 100_000;
const PUBLISHERS: u64 = 1_000;
const SEGMENT: u64 = 64 << 20;
const UNIT: usize = 4096;
const CHECKPOINT_BEFORE_END: u64 = 64 << 20;
const RUNS: usize = 5;
const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: restart DIR [GIB]")?);
    let gib: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    std::fs::create_dir(&directory)?;
    let config = directory.join("relayd.toml");
    std::fs::write(&config, configuration(&directory, gib << 30))?;
    let status = Command::new(relayd()?)
        .arg("format")
        .arg("--config")
        .arg(&config)
        .status()?;
    if !status.success() {
        return Err("relayd format failed".into());
    }
    let mut log = Log::new(&directory.join("stream"));
    log.lay_out(gib << 30)?;
    let blocks = log.tables.next_block_number - 1;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        seconds.push(restart(&config)?);
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "{{\"blocks\":{blocks},\"gib\":{gib},\"topics\":{TOPICS},\"publishers\":{PUBLISHERS},\
         \"ready_seconds_median\":{:.3},\"ready_seconds_max\":{:.3}}}",
        seconds[RUNS / 2],
        seconds[RUNS - 1]
    );
    Ok(())
}

fn relayd() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name("relayd"))
}

fn configuration(directory: &Path, prepared: u64) -> String {
    let stream = directory.join("stream");
    format!(
        "node = 1\n[[stream]]\nid = 1\nname = \"long\"\nlisten = \"127.0.0.1:0\"\n\
         directory = \"{}\"\n[stream.threads]\nidle = \"park\"\n[stream.journal]\n\
         segment_size = \"64MiB\"\nprepared = \"{}\"\nwrite_method = \"dsync\"\n\
         [stream.limits]\npublishers = 1100\ntopics = 110000\n[[stream.credential]]\n\
         name = \"p\"\nsecret = \"{SECRET}\"\npublisher = 1\npublish = [\">\"]\n",
        stream.display(),
        prepared + (256 << 20),
    )
}

/// Starts, waits for a logon, kills; the seconds from start to logon.
fn restart(config: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut child = Command::new(relayd()?)
        .arg("run")
        .arg("--config")
        .arg(config)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let address = line
        .trim()
        .split("listen=")
        .nth(1)
        .ok_or("relayd did not start")?;
    log_on(address)?;
    let seconds = begun.elapsed().as_secs_f64();
    child.kill()?;
    child.wait()?;
    Ok(seconds)
}

/// A publisher's logon with a new incarnation, answered once its record is in the log.
fn log_on(address: &str) -> Result<(), Failure> {
    use std::io::Read;
    let mut socket = std::net::TcpStream::connect(address)?;
    let mut item = [0; 64];
    socket.read_exact(&mut item)?;
    let Message::Challenge(challenge) = Message::decode(&item)? else {
        return Err("no challenge".into());
    };
    let incarnation = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)?
        .as_nanos() as u64;
    let logon = Logon {
        role: Role::Publisher,
        stream: StreamId(1),
        publisher: PublisherId(1),
        incarnation: Incarnation(incarnation),
        nonce: [1; 32],
        proof: [0; 32],
        name: "p",
    };
    let secret: Vec<u8> = (0..16).collect();
    socket.write_all(&Message::Logon(logon.with_proof(&secret, &challenge.nonce)?).to_vec()?)?;
    let mut item = [0; 128];
    socket.read_exact(&mut item)?;
    match Message::decode(&item)? {
        Message::LogonAck(_) => Ok(()),
        other => Err(format!("not logged on: {other:?}").into()),
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

    fn lay_out(&mut self, bytes: u64) -> Result<(), Failure> {
        let opening = EpochBody {
            epoch: 1.into(),
            start_position: 0.into(),
            previous_checksum: 0.into(),
            copies: 1,
            policy: Policy::Local.number(),
            reserved: [0; 2],
            clean: 0,
            reserved_tail: [0; 15],
        };
        self.block(&[(
            RecordKind::Epoch,
            Fields::default(),
            opening.as_bytes().to_vec(),
        )])?;
        for first in (1..=TOPICS).step_by(24) {
            let records: Vec<_> = (first..first + 24)
                .filter(|topic| *topic <= TOPICS)
                .map(|topic| {
                    let fields = Fields {
                        topic: TopicId(topic),
                        ..Fields::default()
                    };
                    (
                        RecordKind::Topic,
                        fields,
                        format!("orders.{topic:06}").into_bytes(),
                    )
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
        let mut is_checkpointed = false;
        let mut number = 0_u64;
        while self.tables.position.get() < bytes {
            let fields = Fields {
                topic: TopicId((number % u64::from(TOPICS)) as u32 + 1),
                publisher: PublisherId(number % PUBLISHERS + 1),
                incarnation: Incarnation(1),
                publisher_seq: PublisherSeq(number / PUBLISHERS + 1),
                ..Fields::default()
            };
            self.block(&[(RecordKind::Data, fields, vec![number as u8; 256])])?;
            number += 1;
            if !is_checkpointed && self.tables.position.get() + CHECKPOINT_BEFORE_END >= bytes {
                is_checkpointed = true;
                let path = self.directory.join(checkpoint::name(self.tables.position));
                std::fs::write(path, checkpoint::encode(&self.tables))?;
            }
        }
        self.flush()
    }

    fn block(&mut self, records: &[(RecordKind, Fields, Vec<u8>)]) -> Result<(), Failure> {
        self.time_ns += 1_000;
        let mut bytes = vec![0; 16 * UNIT];
        let mut end = HEADER_LENGTH;
        let mut data_count = 0;
        for (kind, fields, payload) in records {
            let stride = record::encode(&mut bytes[end..], *kind, fields, &[], payload)
                .map_err(|error| format!("{error:?}"))?;
            let seq = Seq(self.tables.next_seq.get() + u64::from(data_count));
            record::stamp(&mut bytes[end..], seq, self.time_ns);
            data_count += u32::from(*kind == RecordKind::Data);
            end += stride;
        }
        let body_length = (end - HEADER_LENGTH) as u32;
        let span = block::span_for(body_length, UNIT as u32);
        let position = self.tables.position;
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
            .map_err(|error| error.to_string())?;
        self.pending.extend_from_slice(&bytes[..span as usize]);
        if self.tables.position.get().is_multiple_of(SEGMENT) {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let index = self.pending_at.get() / SEGMENT;
        let path = self
            .directory
            .join(segment::DIRECTORY)
            .join(segment::name(index));
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&self.pending, self.pending_at.get() % SEGMENT)?;
        file.sync_all()?;
        self.pending.clear();
        self.pending_at = self.tables.position;
        Ok(())
    }
}
