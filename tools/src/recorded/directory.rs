//! Messages out of a journal's directory.
//!
//! Where to begin comes from the journal's index; the log before is not read. A relay may be writing meanwhile.

use std::path::Path;

use relay_client::Seq;
use relay_client::wire::id::TopicId;
use relay_client::wire::record::Record;
use relay_journal::block::records;
use relay_journal::reader::{Extent, JournalDir, ReadFrom, RecordReader};
use relay_journal::segment;
use relay_journal::tables::Tables;
use relay_journal::topics::Topics;

use super::selection::Bound;
use super::{Feed, Selection, Span, Stop, check_range, outside};
use crate::exit::Failure;
use crate::verify::{failed, open};
use crate::when::utc_text;

/// Reads what is selected.
pub(super) fn read(path: &Path, selection: &Selection, feed: &mut Feed) -> Result<(), Stop> {
    let journal = open(path)?;
    let from = match selection.from {
        Bound::Start => ReadFrom::Start,
        Bound::Seq(seq) => ReadFrom::Seq(Seq(seq)),
        Bound::Time(time_ns) => ReadFrom::Time(time_ns),
        // Only what is known to be behind everything.
        Bound::End => ReadFrom::Time(u64::MAX),
    };
    check_beginning(path, &journal, selection)?;
    let mut records = journal.records(from).map_err(|error| {
        check_segments(path, &journal, 0, u64::MAX)
            .err()
            .unwrap_or_else(|| failed(path, error))
    })?;
    let begin = records.position();
    let extent = records.extent();
    let tables = &extent.tables;
    let mut reading = Reading {
        path,
        selection,
        wanted: tables
            .topics
            .iter()
            .map(|(_, name)| selection.wants_topic(name))
            .collect(),
        names: tables.topics.clone(),
        last: None,
        last_time_ns: 0,
    };
    let span = span(selection, tables);
    let earliest = earliest(&journal, tables);
    check_range(selection, earliest, tables.next_seq)?;
    check_segments(path, &journal, begin.get(), extent.released.get())?;
    feed.opened(span)?;
    if selection.from == Bound::End {
        return Ok(());
    }
    let is_over = reading.read_blocks(&mut records, feed)?;
    if !is_over {
        reading.judge_end(records.extent(), earliest)?;
    }
    Ok(())
}

struct Reading<'s> {
    path: &'s Path,
    selection: &'s Selection,
    /// By topic id, from 1.
    wanted: Vec<bool>,
    names: Topics,
    /// The last message before the range's end.
    last: Option<Seq>,
    last_time_ns: u64,
}

impl Reading<'_> {
    /// Reads to the end of the range, which is then over, or of what is released.
    fn read_blocks(&mut self, blocks: &mut RecordReader, feed: &mut Feed) -> Result<bool, Stop> {
        while let Some(block) = blocks.next_block() {
            let block = block.map_err(|error| failed(self.path, error))?;
            for record in records(block.body) {
                let (_, record) = record.map_err(|error| {
                    Failure::Damaged(format!(
                        "{}: the block at position {} holds a bad record: {error}; look for another \
                         copy",
                        self.path.display(),
                        block.header.position
                    ))
                })?;
                if !record.is_data() || self.is_before(&record) {
                    continue;
                }
                if self.selection.is_past(&record) {
                    return Ok(true);
                }
                self.last = Some(record.seq());
                self.last_time_ns = record.receive_time_ns();
                self.take(&record, feed)?;
            }
        }
        Ok(false)
    }

    fn is_before(&self, record: &Record<'_>) -> bool {
        match self.selection.from {
            Bound::Seq(seq) => record.seq().get() < seq,
            Bound::Time(time_ns) => record.receive_time_ns() < time_ns,
            Bound::Start | Bound::End => false,
        }
    }

    fn take(&self, record: &Record<'_>, feed: &mut Feed) -> Result<(), Stop> {
        let topic: TopicId = record.topic();
        let place = (topic.get() as usize).wrapping_sub(1);
        if self.wanted.get(place).copied().unwrap_or(false) && self.selection.wants(record) {
            let name = self.names.name(topic).expect("it was looked at just now");
            feed.batch.push(record, name);
        }
        feed.batch.note(record.seq());
        Ok(feed.flush_if_full()?)
    }

    /// The released log ended before the range did: right where `end` was asked for, else a reason to say so.
    fn judge_end(&self, extent: &Extent, earliest: Seq) -> Result<(), Failure> {
        if let Err(error) = &extent.verdict {
            return Err(Failure::Damaged(format!(
                "{}: {error}; everything before it was read, look for another copy",
                self.path.display()
            )));
        }
        let next = self.last.map_or(earliest, Seq::next);
        match (self.selection.to, self.selection.from) {
            (Bound::Seq(to), _) if next.get() <= to => Err(Failure::Failed(format!(
                "seq {to} (--to) is in the journal, but it is not proven that it was released; the \
                 last one that is has seq {}",
                next.get() - 1
            ))),
            (_, Bound::Time(time_ns)) if self.last.is_none() => Err(outside(
                &format!("{} (--from)", utc_text(time_ns)),
                earliest,
                extent.tables.next_seq,
            )),
            _ => Ok(()),
        }
    }
}

/// The first seq there is, also where the journal's beginning is gone.
fn earliest(journal: &JournalDir, tables: &Tables) -> Seq {
    let start = journal.start();
    let entries = tables.index.entries();
    let kept = entries.iter().find(|entry| entry.position >= start);
    kept.map_or(tables.earliest_seq, |entry| {
        entry.first_seq.max(tables.earliest_seq)
    })
}

/// About which seqs will come: exact for seqs, to the index's spacing for times.
fn span(selection: &Selection, tables: &Tables) -> Span {
    let entries = tables.index.entries();
    let at_time = |time_ns: u64| {
        let later = entries.partition_point(|entry| entry.time_before_ns < time_ns);
        entries
            .get(later)
            .map_or(tables.next_seq, |entry| entry.first_seq)
    };
    let first = match selection.from {
        Bound::Start => tables.earliest_seq,
        Bound::End => tables.next_seq,
        Bound::Seq(seq) => Seq(seq),
        Bound::Time(time_ns) => {
            let earlier = entries.partition_point(|entry| entry.time_before_ns < time_ns);
            let entry = entries.get(earlier.saturating_sub(1));
            entry.map_or(tables.earliest_seq, |entry| entry.first_seq)
        }
    };
    let next = match selection.to {
        Bound::Seq(seq) => Seq(seq + 1),
        Bound::Time(time_ns) => at_time(time_ns.saturating_add(1)),
        Bound::Start | Bound::End => tables.next_seq,
    };
    Span {
        first,
        next: next.max(first),
    }
}

/// A segment that is missing or short between two positions is damage, not an end.
fn check_segments(path: &Path, journal: &JournalDir, from: u64, to: u64) -> Result<(), Failure> {
    let geometry = journal.superblock().geometry();
    let damaged = |what: String| {
        let path = path.display();
        Failure::Damaged(format!("{path}: {what}; fetch it from another copy"))
    };
    for gap in journal.gaps() {
        let (start, end) = (
            geometry.start_of(gap.first),
            geometry.start_of(gap.last + 1),
        );
        if end.get() > from && start.get() < to {
            let (first, last) = (segment::name(gap.first), segment::name(gap.last));
            return Err(damaged(format!(
                "of segments {first} to {last} each is missing"
            )));
        }
    }
    for &index in journal.segments() {
        let start = geometry.start_of(index).get();
        if start + geometry.segment_size() <= from || start >= to {
            continue;
        }
        let length = journal.segment_length(index);
        let length = length.map_err(|error| failed(path, error))?;
        if length < geometry.segment_size() {
            return Err(damaged(format!(
                "segment {} has {length} bytes instead of {}",
                segment::name(index),
                geometry.segment_size()
            )));
        }
    }
    Ok(())
}

/// Where the first segments are gone, what is left is read only by who says where to begin.
fn check_beginning(
    path: &Path,
    journal: &JournalDir,
    selection: &Selection,
) -> Result<(), Failure> {
    let first = journal.segments().first().copied().unwrap_or(0);
    let is_missed = match selection.from {
        _ if first == 0 => false,
        Bound::Start => true,
        // What was received before the first message that is here may be missing.
        Bound::Time(time_ns) => first_time(journal).is_none_or(|first_ns| time_ns <= first_ns),
        Bound::Seq(_) | Bound::End => false,
    };
    if !is_missed {
        return Ok(());
    }
    Err(Failure::Damaged(format!(
        "{}: the segments before {} are missing; fetch them from another copy, or give --from SEQ to \
         begin with what is there",
        path.display(),
        segment::name(first)
    )))
}

/// When the first message that is here was received, ns UTC.
fn first_time(journal: &JournalDir) -> Option<u64> {
    let mut blocks = journal.blocks(journal.start());
    while let Some(Ok(block)) = blocks.next_block() {
        let mut messages = records(block.body).map_while(Result::ok);
        let found = messages.find(|(_, record)| record.is_data());
        if let Some((_, record)) = found {
            return Some(record.receive_time_ns());
        }
    }
    None
}
