//! `relay inspect`: a journal on disk, looked at without a relay, never written to.
//!
//! What is damaged is named by position, segment and offset, and ends the command with status 3; everything before it
//! was printed. Whether all of a journal is right `relay verify` says.

use std::path::{Path, PathBuf};

use clap::Args;
use relay_client::wire::id::{Position, Seq};
use relay_journal::block::{BlockHeader, BlockKind};
use relay_journal::reader::{Damage, Extent, Found, JournalDir, ReadFrom, ReaderError};
use relay_journal::segment;
use relay_journal::topics::Topics;
use serde::Serialize;

use self::control::Said;
use crate::exit::{Failure, Interrupt};
use crate::output::{Lines, escape, hex, json_line, line, thousands};
use crate::verify::{failed, open};

mod control;
mod set_aside;

const EXAMPLES: &str = "\
Examples:
  relay inspect /var/lib/relay/orders
  relay inspect /var/lib/relay/orders --records --from-seq 1000 --limit 10
  relay inspect /var/lib/relay/orders --blocks --from-position 1048576 --json
  relay inspect /var/lib/relay/orders/set-aside-0000000000000007-0000000000412000 --records";

/// Bytes of a payload that a record's line shows.
const PAYLOAD_SHOWN: usize = 64;

/// Options of `relay inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectOptions {
    /// The stream's directory, which holds `superblock` and `segments`; or a set-aside file in it
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// List the segments
    #[arg(long, group = "what")]
    segments: bool,
    /// List the blocks
    #[arg(long, group = "what")]
    blocks: bool,
    /// List the released records
    #[arg(long, group = "what")]
    records: bool,
    /// Start at this position, which must be a block's
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["from_seq", "records"])]
    from_position: Option<u64>,
    /// Start at this seq
    #[arg(long, value_name = "SEQ")]
    from_seq: Option<u64>,
    /// Stop after so many lines
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(options: &InspectOptions) -> Result<(), Failure> {
    if set_aside::is_one(&options.path) {
        return set_aside::run(options);
    }
    let journal = open(&options.path)?;
    let interrupt = Interrupt::install()?;
    if options.segments {
        options.print_segments(&journal)
    } else if options.blocks {
        options.print_blocks(&journal, &interrupt)
    } else if options.records {
        options.print_records(&journal, &interrupt)
    } else {
        options.print_summary(&journal)
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    path: &'a Path,
    node: u64,
    stream: u32,
    created_ns: u64,
    format_version: u16,
    disk_incarnation: u64,
    segment_size: u64,
    block_alignment: u32,
    write_method: String,
    stopped_cleanly: bool,
    segments: usize,
    missing_segments: u64,
    checkpoints: usize,
    /// Names of files that hold tails the group went on without.
    set_aside: Vec<String>,
    start: u64,
    tail: u64,
    released: u64,
    next_seq: u64,
    epoch: u64,
    topics: usize,
    publishers: usize,
    trading_session: Option<&'a str>,
    /// The public key that signs seals, the newest that they name.
    seal_key: Option<String>,
    sealed_segments: u64,
    /// Where what is sealed ends: what is released behind it is not sealed yet.
    sealed: u64,
    /// Hash of the newest seal; it stands for everything sealed, on every node.
    seal_hash: Option<String>,
    verdict: String,
}

#[derive(Serialize)]
struct SegmentLine {
    segment: String,
    index: u64,
    position: u64,
    bytes: u64,
    is_whole: bool,
}

#[derive(Serialize)]
struct BlockLine {
    position: u64,
    number: u64,
    kind: String,
    epoch: u64,
    first_seq: u64,
    records: u32,
    messages: u32,
    body_bytes: u32,
    span: u32,
    released: u64,
    sealed_time_ns: u64,
    checksum: u32,
}

#[derive(Serialize)]
struct RecordLine<'a> {
    position: u64,
    offset: usize,
    kind: String,
    seq: u64,
    topic: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_name: Option<&'a str>,
    publisher: u64,
    incarnation: u64,
    publisher_seq: u64,
    key_hash: u64,
    origin_time_ns: u64,
    receive_time_ns: u64,
    checksum: u32,
    is_intact: bool,
    bytes: usize,
    payload_hex: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    said: Option<Said<'a>>,
}

impl InspectOptions {
    fn print_summary(&self, journal: &JournalDir) -> Result<(), Failure> {
        let extent = journal
            .extent()
            .map_err(|error| failed(&self.path, error))?;
        let superblock = journal.superblock();
        let verdict = match &extent.verdict {
            Ok(recovered) => match &recovered.cut {
                Some(cut) => format!("intact; {} behind the end, to be cut", cut.front),
                None => "intact".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        let tables = &extent.tables;
        // What the seals say; `relay verify` holds it against the segments.
        let seals = journal
            .check_seals(&[], Position(0))
            .map_err(|error| failed(&self.path, error))?;
        let seals = seals.file();
        let summary = Summary {
            path: &self.path,
            node: superblock.node.get(),
            stream: superblock.stream.get(),
            created_ns: superblock.created_ns,
            format_version: superblock.format_version,
            disk_incarnation: superblock.disk_incarnation,
            segment_size: superblock.segment_size,
            block_alignment: superblock.block_alignment,
            write_method: format!("{:?}", superblock.write_method).to_lowercase(),
            stopped_cleanly: superblock
                .clean
                .is_some_and(|clean| clean.tail == extent.tail),
            segments: journal.segments().len(),
            missing_segments: journal
                .gaps()
                .iter()
                .map(|gap| gap.last - gap.first + 1)
                .sum(),
            checkpoints: journal
                .checkpoints()
                .map_err(|error| failed(&self.path, error))?
                .len(),
            set_aside: journal
                .set_aside()
                .map_err(|error| failed(&self.path, error))?,
            start: journal.start().get(),
            tail: extent.tail.get(),
            released: extent.released.get(),
            next_seq: tables.next_seq.get(),
            epoch: tables.epoch.get(),
            topics: tables.topics.len(),
            publishers: tables.publishers.len(),
            trading_session: tables
                .trading_session
                .as_ref()
                .map(|session| &*session.name),
            seal_key: seals.keys.last().map(|named| named.key.to_string()),
            sealed_segments: seals.last.map_or(0, |(segment, _)| segment + 1),
            sealed: seals.sealed_end.get(),
            seal_hash: seals.last.map(|(_, hash)| hash.to_string()),
            verdict,
        };
        if self.json {
            json_line(&summary)?;
        } else {
            print_fields(&summary)?;
        }
        self.judge(journal, &extent)
    }

    /// The failure that damage or a gap is.
    fn judge(&self, journal: &JournalDir, extent: &Extent) -> Result<(), Failure> {
        if let Some(gap) = journal.gaps().first() {
            return Err(Failure::Damaged(format!(
                "segments {} to {} are missing; fetch them from another copy",
                segment::name(gap.first),
                segment::name(gap.last)
            )));
        }
        match &extent.verdict {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Damaged(format!(
                "{}: {error}",
                self.path.display()
            ))),
        }
    }

    fn print_segments(&self, journal: &JournalDir) -> Result<(), Failure> {
        let geometry = journal.superblock().geometry();
        let mut lines = Lines::new();
        let limit = usize::try_from(self.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let mut short = None;
        for &index in journal.segments().iter().take(limit) {
            let bytes = journal.segment_length(index);
            let bytes = bytes.map_err(|error| failed(&self.path, error))?;
            let segment = SegmentLine {
                segment: segment::name(index),
                index,
                position: geometry.start_of(index).get(),
                bytes,
                is_whole: bytes == geometry.segment_size(),
            };
            if !segment.is_whole {
                short.get_or_insert_with(|| segment.segment.clone());
            }
            if self.json {
                lines.json(&segment)?;
            } else {
                let note = if segment.is_whole {
                    ""
                } else {
                    "  shorter than a segment"
                };
                let SegmentLine {
                    segment,
                    position,
                    bytes,
                    ..
                } = &segment;
                lines.text(&format!(
                    "{segment}  position {position:>14}  {bytes:>11} bytes{note}"
                ))?;
            }
        }
        lines.finish()?;
        match (journal.gaps().first(), short) {
            (None, None) => Ok(()),
            (None, Some(short)) => Err(Failure::Damaged(format!(
                "segment {short} is shorter than a segment; fetch it from another copy"
            ))),
            (Some(gap), _) => Err(Failure::Damaged(format!(
                "segments {} to {} are missing; fetch them from another copy",
                segment::name(gap.first),
                segment::name(gap.last)
            ))),
        }
    }

    fn print_blocks(&self, journal: &JournalDir, interrupt: &Interrupt) -> Result<(), Failure> {
        let extent = journal
            .extent()
            .map_err(|error| failed(&self.path, error))?;
        let from = self.first_position(journal, &extent)?;
        let mut blocks = journal.blocks(from);
        let mut lines = Lines::new();
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut at = from;
        while left > 0
            && let Some(block) = blocks.next_block()
        {
            let header = match block {
                Ok(block) => block.header,
                Err(ReaderError::Damage(damage)) => {
                    lines.finish()?;
                    return self.judge_damage(&damage, &extent);
                }
                Err(error) => {
                    lines.finish()?;
                    return Err(failed(&self.path, error));
                }
            };
            at = header.next_position();
            let is_wanted = self
                .from_seq
                .is_none_or(|seq| header.first_seq.get() + u64::from(header.data_count) > seq);
            if is_wanted {
                self.print_block(&mut lines, &header)?;
                left -= 1;
            }
            interrupt.check()?;
        }
        lines.finish()?;
        if left == 0 {
            return Ok(());
        }
        // A blank place is the end only where nothing is known to lie behind it.
        let problem = match &extent.verdict {
            Err(error) => error.to_string(),
            Ok(_) if at < extent.tail => format!(
                "nothing lies at position {at}, and the log goes on up to {}; look for another copy",
                extent.tail
            ),
            Ok(_) => return Ok(()),
        };
        let path = self.path.display();
        Err(Failure::Damaged(format!("{path}: {problem}")))
    }

    fn print_block(&self, lines: &mut Lines, header: &BlockHeader) -> Result<(), Failure> {
        let block = BlockLine {
            position: header.position.get(),
            number: header.number,
            kind: kind_name(header.kind),
            epoch: header.epoch.get(),
            first_seq: header.first_seq.get(),
            records: header.record_count,
            messages: header.data_count,
            body_bytes: header.body_length,
            span: header.span,
            released: header.released.get(),
            sealed_time_ns: header.sealed_time_ns,
            checksum: header.checksum,
        };
        if self.json {
            return lines.json(&block);
        }
        lines.text(&format!(
            "{:>14}  block {:<9} {:<7} epoch {} seq {:<11} records {:<5} span {:<7} released {:<14} {:08x}",
            block.position,
            block.number,
            block.kind,
            block.epoch,
            block.first_seq,
            block.records,
            block.span,
            block.released,
            block.checksum
        ))
    }

    /// What lies behind the end of an intact log is no damage: it was never durable, and the next start cuts it.
    fn judge_damage(&self, damage: &Damage, extent: &Extent) -> Result<(), Failure> {
        if extent.verdict.is_ok() && damage.position >= extent.tail {
            if !self.json {
                line(&format!(
                    "{} at position {}: the log ends here",
                    damage.front, damage.position
                ))?;
            }
            return Ok(());
        }
        Err(failed(&self.path, ReaderError::Damage(*damage)))
    }

    fn first_position(&self, journal: &JournalDir, extent: &Extent) -> Result<Position, Failure> {
        let Some(position) = self.from_position else {
            let found = self
                .from_seq
                .map(|seq| extent.tables.index.find_seq(Seq(seq)));
            return Ok(found.unwrap_or_default().max(journal.start()));
        };
        let geometry = journal.superblock().geometry();
        if !geometry.is_aligned(Position(position)) {
            return Err(Failure::Usage(format!(
                "blocks start at multiples of {}, {position} is none; see --blocks for positions",
                geometry.block_alignment()
            )));
        }
        Ok(Position(position))
    }

    fn print_records(&self, journal: &JournalDir, interrupt: &Interrupt) -> Result<(), Failure> {
        let from = self
            .from_seq
            .map_or(ReadFrom::Start, |seq| ReadFrom::Seq(Seq(seq)));
        let mut records = journal
            .records(from)
            .map_err(|error| failed(&self.path, error))?;
        let topics = records.extent().tables.topics.clone();
        let mut lines = Lines::new();
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(found) = records.next_record()
        {
            match found {
                Ok(found) => self.print_record(&mut lines, &found, &topics)?,
                Err(error) => {
                    lines.finish()?;
                    return Err(failed(&self.path, error));
                }
            }
            left -= 1;
            interrupt.check()?;
        }
        lines.finish()?;
        if left == 0 {
            Ok(())
        } else {
            self.judge(journal, records.extent())
        }
    }

    fn print_record(
        &self,
        lines: &mut Lines,
        found: &Found<'_>,
        topics: &Topics,
    ) -> Result<(), Failure> {
        let record = &found.record;
        let header = record.header();
        let kind = match record.kind() {
            Some(kind) => format!("{kind:?}").to_lowercase(),
            None => format!("kind-{}", header.kind),
        };
        let name = topics.name(record.topic());
        if self.json {
            return lines.json(&RecordLine {
                position: found.block.position.get(),
                offset: found.offset,
                kind,
                seq: record.seq().get(),
                topic: record.topic().get(),
                topic_name: name,
                publisher: record.publisher().get(),
                incarnation: record.incarnation().get(),
                publisher_seq: record.publisher_seq().get(),
                key_hash: header.key_hash.get(),
                origin_time_ns: header.origin_time_ns.get(),
                receive_time_ns: record.receive_time_ns(),
                checksum: record.checksum(),
                is_intact: record.verify().is_ok(),
                bytes: record.payload().len(),
                payload_hex: hex(record.payload()),
                said: Said::of(record),
            });
        }
        let payload = record.payload();
        let mut shown = Vec::new();
        escape(&mut shown, &payload[..payload.len().min(PAYLOAD_SHOWN)]);
        let more = if payload.len() > PAYLOAD_SHOWN {
            "..."
        } else {
            ""
        };
        let shown = match Said::of(record) {
            Some(said) => said.text(),
            None => String::from_utf8_lossy(&shown).into_owned() + more,
        };
        let damage = if record.verify().is_ok() {
            ""
        } else {
            "  CHECKSUM DOES NOT FIT"
        };
        lines.text(&format!(
            "{:>14}+{:<6} {kind} seq {} {} publisher {}/{} {} bytes: {shown}{damage}",
            found.block.position.get(),
            found.offset,
            record.seq(),
            name.unwrap_or("-"),
            record.publisher(),
            record.publisher_seq(),
            payload.len(),
        ))
    }
}

fn kind_name(kind: BlockKind) -> String {
    format!("{kind:?}").to_lowercase()
}

/// Prints a value's fields one per line.
fn print_fields(value: &impl Serialize) -> Result<(), Failure> {
    let value = serde_json::to_value(value).expect("a report has string keys only");
    let fields = value.as_object().expect("a report is an object");
    for (name, value) in fields {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(number) => match number.as_u64() {
                Some(number) if !name.ends_with("incarnation") => thousands(number),
                _ => number.to_string(),
            },
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::Array(values) if values.is_empty() => "-".to_owned(),
            serde_json::Value::Array(values) => {
                let names = values.iter().filter_map(serde_json::Value::as_str);
                names.collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        };
        line(&format!("{:<18} {text}", name.replace('_', " ")))?;
    }
    Ok(())
}
