//! Looking for messages in a journal: by its index where a segment has one, else by reading it.
//!
//! Segments are narrowed down by their first blocks, then each is asked its index for blocks, and each block for the
//! messages. What lies in a finished segment with an index costs a few small reads; only what reaches the end of the log,
//! or a segment without an index, is scanned.

use std::cell::OnceCell;
use std::path::Path;

use relay_client::wire::id::{Position, TopicId};
use relay_client::wire::record::Record;
use relay_journal::block::{BlockHeader, records};
use relay_journal::checkpoint::Glance;
use relay_journal::reader::point::PointReader;
use relay_journal::reader::side_index::{IndexFault, SideIndex};
use relay_journal::reader::{Block, BlockReader, Extent, JournalDir, ReaderError};
use relay_journal::scan::Front;
use relay_journal::segment;

use super::query::Query;
use crate::exit::{Failure, Interrupt};
use crate::verify::failed;

/// Where reading blocks one by one is no better than reading all between them, bytes a block.
const DENSE: u64 = 256 << 10;
/// Most blocks at the start of a segment that are looked at for its first message.
const FIRST_BLOCKS_MAX: usize = 64;

/// A message that was found, and the block it lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) block: BlockHeader,
    /// Offset of the record in the block's body.
    pub(super) offset: usize,
    pub(super) record: Record<'a>,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Enough,
}

/// How far a journal goes, found out where it is needed first: that takes reading the end of the log.
pub(super) struct Ends<'a> {
    pub(super) journal: &'a JournalDir,
    extent: OnceCell<Extent>,
    glance: OnceCell<Option<Glance>>,
}

impl<'a> Ends<'a> {
    pub(super) const fn new(journal: &'a JournalDir) -> Self {
        Self {
            journal,
            extent: OnceCell::new(),
            glance: OnceCell::new(),
        }
    }

    /// The newest checkpoint, which knows most of the log at the price of one read.
    pub(super) fn glance(&self) -> Result<Option<&Glance>, Failure> {
        if let Some(glance) = self.glance.get() {
            return Ok(glance.as_ref());
        }
        let glance = self.journal.glance();
        let glance = glance.map_err(|error| failed(self.journal.path(), error))?;
        Ok(self.glance.get_or_init(|| glance).as_ref())
    }

    /// How far it goes.
    pub(super) fn extent(&self) -> Result<&Extent, Failure> {
        if let Some(extent) = self.extent.get() {
            return Ok(extent);
        }
        let extent = self.journal.extent();
        let extent = extent.map_err(|error| failed(self.journal.path(), error))?;
        Ok(self.extent.get_or_init(|| extent))
    }
}

/// A search in one journal.
pub(super) struct Search<'a> {
    journal: &'a JournalDir,
    ends: &'a Ends<'a>,
    query: &'a Query,
    /// The topics meant, where topics matter.
    topics: Option<Vec<TopicId>>,
    /// Whether what is not released is looked at too.
    is_unreleased: bool,
    points: PointReader,
    interrupt: &'a Interrupt,
    /// Nothing was written from this segment on.
    unwritten_from: Option<u64>,
    /// Segments that were scanned, and why.
    pub(super) scanned: Vec<(u64, String)>,
    /// Segments that were looked into by their index.
    pub(super) indexed: u64,
    /// Blocks read.
    pub(super) blocks: u64,
    /// What was damaged on the way.
    pub(super) damage: Vec<String>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        ends: &'a Ends<'a>,
        query: &'a Query,
        is_unreleased: bool,
        interrupt: &'a Interrupt,
    ) -> Result<Self, Failure> {
        let journal = ends.journal;
        let topics = if query.topics.is_empty() {
            None
        } else {
            query.topic_ids(&ends.extent()?.tables.topics)
        };
        Ok(Self {
            journal,
            ends,
            query,
            topics,
            is_unreleased,
            points: PointReader::new(journal),
            interrupt,
            unwritten_from: None,
            scanned: Vec::new(),
            indexed: 0,
            blocks: 0,
            damage: Vec::new(),
        })
    }

    fn path(&self) -> &'a Path {
        self.journal.path()
    }

    /// Hands every message that is meant to `take`, in order, until it has enough.
    pub(super) fn run(
        &mut self,
        take: &mut dyn FnMut(&Hit<'_>) -> Result<Flow, Failure>,
    ) -> Result<(), Failure> {
        let segments = self.journal.segments();
        let (first, last) = self.narrow(segments)?;
        for place in first..last {
            self.interrupt.check()?;
            self.look_before(segments, place)?;
            if self.search_segment(segments[place], take)? == Flow::Enough {
                return Ok(());
            }
        }
        if last < segments.len() {
            self.look_before(segments, last)?;
        }
        Ok(())
    }

    /// Notes what is missing before a segment of the list, where it may hold what is looked for.
    fn look_before(&mut self, segments: &[u64], place: usize) -> Result<(), Failure> {
        let segment = segments[place];
        let missing = match place.checked_sub(1) {
            None => 0..segment,
            Some(before) => segments[before] + 1..segment,
        };
        if missing.is_empty() {
            return Ok(());
        }
        let (next_seq, passed_ns) = match place.checked_sub(1) {
            None => (1, 0),
            Some(before) => self.end_of(segments[before])?,
        };
        let end_seq = self.first_seq(segment)?.unwrap_or(u64::MAX);
        let end_ns = self.first_time(segment)?.unwrap_or(u64::MAX);
        let (first_seq, last_seq) = self.query.seqs;
        let (from_ns, to_ns) = self.query.times_ns;
        let may_hold_seq = first_seq.get() < end_seq && last_seq.get() >= next_seq;
        if may_hold_seq && from_ns <= end_ns && to_ns >= passed_ns {
            self.damage.push(format!(
                "segments {} to {} are missing",
                segment::name(missing.start),
                segment::name(missing.end - 1)
            ));
        }
        Ok(())
    }

    /// The seq that is due behind what can be read of a segment, and when the last message in it was received.
    fn end_of(&mut self, segment: u64) -> Result<(u64, u64), Failure> {
        let geometry = self.journal.superblock().geometry();
        let end = geometry.start_of(segment + 1);
        let mut blocks = self.journal.blocks(geometry.start_of(segment)).up_to(end);
        let mut found = (0, 0);
        while let Some(Ok(block)) = blocks.next_block() {
            found.0 = block.header.next_seq().get();
            for (_, record) in records(block.body).map_while(Result::ok) {
                found.1 = record.receive_time_ns();
            }
            self.interrupt.check()?;
        }
        Ok(found)
    }

    /// The segments that may hold what is looked for, as places in the list.
    fn narrow(&mut self, segments: &[u64]) -> Result<(usize, usize), Failure> {
        let mut low = 0;
        let mut high = segments.len();
        let (first_seq, last_seq) = self.query.seqs;
        let guess = |position: Option<Position>| {
            let segment = position.map(|position| {
                let geometry = self.journal.superblock().geometry();
                geometry.segment_of(position)
            });
            segment.map(|segment| segments.partition_point(|&index| index < segment))
        };
        let glance = self.ends.glance()?;
        let at_seq = |seq| guess(glance.map(|glance| glance.index.find_seq(seq)));
        let at_time = |time_ns| guess(glance.map(|glance| glance.index.find_time(time_ns)));
        let seq_guesses = (at_seq(first_seq), at_seq(last_seq));
        let (from_ns, to_ns) = self.query.times_ns;
        let time_guesses = (at_time(from_ns), at_time(to_ns.saturating_add(1)));
        if first_seq.get() > 1 || last_seq.get() < u64::MAX {
            let after = self.partition(segments, seq_guesses.0, |search, segment| {
                Ok(search.first_seq(segment)?.map(|seq| seq <= first_seq.get()))
            })?;
            low = low.max(after.map_or(0, |after| after.saturating_sub(1)));
            let end = self.partition(segments, seq_guesses.1, |search, segment| {
                Ok(search.first_seq(segment)?.map(|seq| seq <= last_seq.get()))
            })?;
            high = high.min(end.unwrap_or(high));
        }
        if from_ns > 0 || to_ns < u64::MAX {
            let after = self.partition(segments, time_guesses.0, |search, segment| {
                Ok(search.first_time(segment)?.map(|time| time < from_ns))
            })?;
            low = low.max(after.map_or(0, |after| after.saturating_sub(1)));
            let end = self.partition(segments, time_guesses.1, |search, segment| {
                Ok(search.first_time(segment)?.map(|time| time <= to_ns))
            })?;
            high = high.min(end.unwrap_or(high));
        }
        Ok((low.min(high), high))
    }

    /// Where the segments end of which `is_before` holds; nothing where one of those asked can't tell. Each that is asked
    /// costs a read or two, so where it is `guess`ed that the last of them lies, that one and the next are asked first.
    fn partition(
        &mut self,
        segments: &[u64],
        guess: Option<usize>,
        is_before: impl Fn(&mut Self, u64) -> Result<Option<bool>, Failure>,
    ) -> Result<Option<usize>, Failure> {
        let (mut low, mut high) = (0, segments.len());
        let mut guesses = guess.into_iter().flat_map(|guess| [guess, guess + 1]);
        while low < high {
            let guess = guesses.find(|guess| (low..high).contains(guess));
            let middle = guess.unwrap_or_else(|| usize::midpoint(low, high));
            match is_before(self, segments[middle])? {
                Some(true) => low = middle + 1,
                Some(false) => high = middle,
                None => return Ok(None),
            }
        }
        Ok(Some(low))
    }

    /// The seq a segment begins with; past everything where nothing was written yet, nothing where it can't be told.
    fn first_seq(&mut self, segment: u64) -> Result<Option<u64>, Failure> {
        let start = self.journal.superblock().geometry().start_of(segment);
        Ok(match self.points.header(start) {
            Ok(Ok(header)) => Some(header.first_seq.get()),
            Ok(Err(Front::Absent)) => self.is_end(start)?.then_some(u64::MAX),
            Ok(Err(_)) | Err(ReaderError::Source(_)) => None,
            Err(error) => return Err(failed(self.path(), error)),
        })
    }

    /// Whether a blank place is where the log ends, for all that can be seen at the price of a few reads: not where a checkpoint lies
    /// behind it, nor where a later segment was written to.
    fn is_end(&mut self, blank: Position) -> Result<bool, Failure> {
        let geometry = self.journal.superblock().geometry();
        let segment = geometry.segment_of(blank);
        if self.unwritten_from.is_some_and(|from| segment >= from) {
            return Ok(true);
        }
        let glance = self.ends.glance()?;
        if glance.is_some_and(|glance| blank < glance.position) {
            return Ok(false);
        }
        let segments = self.journal.segments();
        for &later in &segments[segments.partition_point(|&index| index <= segment)..] {
            match self.points.header(geometry.start_of(later)) {
                Ok(Err(Front::Absent)) => {}
                Ok(_) | Err(ReaderError::Source(_)) => return Ok(false),
                Err(error) => return Err(failed(self.path(), error)),
            }
        }
        self.unwritten_from = Some(segment + 1);
        Ok(true)
    }

    /// When the first message of a segment was received; in the same way.
    fn first_time(&mut self, segment: u64) -> Result<Option<u64>, Failure> {
        let geometry = self.journal.superblock().geometry();
        let mut position = geometry.start_of(segment);
        if let Ok(index) = self.journal.side_index(segment)
            && let Some(part) = index.head().parts.first()
            && let Ok(Ok(first)) = self.points.header(position)
            // Else it is of what lay here before the log was cut.
            && first.checksum == index.head().first_checksum
        {
            return Ok(Some(part.first_time_ns.get()));
        }
        for _ in 0..FIRST_BLOCKS_MAX {
            match self.points.block(position) {
                Ok(Ok(block)) => {
                    let mut messages = records(block.body).map_while(Result::ok);
                    if let Some((_, first)) = messages.next() {
                        return Ok(Some(first.receive_time_ns()));
                    }
                    position = block.header.next_position();
                }
                Ok(Err(Front::Absent)) => return Ok(self.is_end(position)?.then_some(u64::MAX)),
                Ok(Err(_)) | Err(ReaderError::Source(_)) => return Ok(None),
                Err(error) => return Err(failed(self.path(), error)),
            }
        }
        Ok(None)
    }

    fn search_segment(
        &mut self,
        segment: u64,
        take: &mut dyn FnMut(&Hit<'_>) -> Result<Flow, Failure>,
    ) -> Result<Flow, Failure> {
        match self.index_of(segment)? {
            Ok(mut index) => match self.by_index(&mut index, take)? {
                Ok(flow) => Ok(flow),
                Err(fault) => self.scan(segment, &fault, take),
            },
            Err(fault) => self.scan(segment, &fault, take),
        }
    }

    /// The index of a segment, if it is that of what the segment holds now.
    fn index_of(&mut self, segment: u64) -> Result<Result<SideIndex, IndexFault>, Failure> {
        let index = match self.journal.side_index(segment) {
            Ok(index) => index,
            Err(fault) => return Ok(Err(fault)),
        };
        match index.check_log(&mut self.points) {
            Ok(Ok(())) => Ok(Ok(index)),
            Ok(Err(fault)) => Ok(Err(fault)),
            Err(ReaderError::Source(error)) => {
                Ok(Err(IndexFault::Io(std::io::Error::other(error))))
            }
            Err(error) => Err(failed(self.path(), error)),
        }
    }

    /// Looks into the blocks an index names. A damaged index is told before anything was taken from it.
    fn by_index(
        &mut self,
        index: &mut SideIndex,
        take: &mut dyn FnMut(&Hit<'_>) -> Result<Flow, Failure>,
    ) -> Result<Result<Flow, IndexFault>, Failure> {
        let topics = self.topics.clone();
        let wanted = self.query.wanted(topics.as_deref());
        let mut blocks = Vec::new();
        for part in index.head().parts_of(wanted.seqs, wanted.times_ns) {
            match index.blocks(part, &wanted) {
                Ok(found) => blocks.extend(found),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        self.indexed += 1;
        let (geometry, segment) = (index.head().geometry, index.head().segment);
        let positions: Vec<Position> = blocks
            .iter()
            .map(|row| row.position(geometry, segment))
            .collect();
        let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else {
            return Ok(Ok(Flow::On));
        };
        let is_dense = positions.len() > 1 && last.since(first) / DENSE <= positions.len() as u64;
        if is_dense && positions.len() > 32 {
            let blocks = self.journal.blocks(first).up_to(last.plus(1));
            return self.read_on(blocks, take).map(Ok);
        }
        for position in positions {
            self.blocks += 1;
            let flow = match self.points.intact_block(position) {
                Ok(block) => look_into(self.query, topics.as_deref(), &block, take)?,
                Err(error @ (ReaderError::Damage(_) | ReaderError::Source(_))) => {
                    self.damage.push(error.to_string());
                    Flow::On
                }
                Err(error) => return Err(failed(self.journal.path(), error)),
            };
            if flow == Flow::Enough {
                return Ok(Ok(Flow::Enough));
            }
        }
        Ok(Ok(Flow::On))
    }

    /// Reads a segment, as far as the log goes.
    fn scan(
        &mut self,
        segment: u64,
        fault: &IndexFault,
        take: &mut dyn FnMut(&Hit<'_>) -> Result<Flow, Failure>,
    ) -> Result<Flow, Failure> {
        let geometry = self.journal.superblock().geometry();
        let start = geometry.start_of(segment);
        let extent = self.ends.extent()?;
        let limit = if self.is_unreleased {
            extent.tail
        } else {
            extent.released
        };
        let end = geometry.start_of(segment + 1);
        if let Err(error) = &extent.verdict
            && extent.tail < end
            && self.damage.is_empty()
        {
            // What is looked for may lie behind the place.
            self.damage.push(error.to_string());
        }
        if start >= limit {
            return Ok(Flow::Enough);
        }
        let is_finished = end <= extent.released;
        if is_finished {
            self.scanned.push((segment, fault.to_string()));
        }
        let blocks = self.journal.blocks(start).up_to(end.min(limit));
        self.read_on(blocks, take)
    }

    fn read_on(
        &mut self,
        mut blocks: BlockReader,
        take: &mut dyn FnMut(&Hit<'_>) -> Result<Flow, Failure>,
    ) -> Result<Flow, Failure> {
        while let Some(next) = blocks.next_block() {
            match next {
                Ok(block) => {
                    self.blocks += 1;
                    if look_into(self.query, self.topics.as_deref(), &block, take)? == Flow::Enough
                    {
                        return Ok(Flow::Enough);
                    }
                    if self.blocks.is_multiple_of(1024) {
                        self.interrupt.check()?;
                    }
                }
                Err(error @ (ReaderError::Damage(_) | ReaderError::Source(_))) => {
                    self.damage.push(error.to_string());
                    return Ok(Flow::On);
                }
                Err(error) => return Err(failed(self.path(), error)),
            }
        }
        Ok(Flow::On)
    }

    /// What was scanned for want of an index, on one line; nothing where every finished segment had one.
    pub(super) fn note(&self) -> Option<String> {
        let (first, why) = self.scanned.first()?;
        Some(format!(
            "{} segments were scanned, which takes longer: {why} of segment {}; `relay index {}` makes what is missing",
            self.scanned.len(),
            segment::name(*first),
            self.path().display()
        ))
    }
}

/// Hands on what is meant of a block.
fn look_into(
    query: &Query,
    topics: Option<&[TopicId]>,
    block: &Block<'_>,
    take: &mut dyn FnMut(&Hit<'_>) -> Result<Flow, Failure>,
) -> Result<Flow, Failure> {
    for (offset, record) in records(block.body).map_while(Result::ok) {
        if query.is_past(&record) {
            return Ok(Flow::Enough);
        }
        let is_on_topic = topics.is_none_or(|topics| topics.binary_search(&record.topic()).is_ok());
        if is_on_topic && query.matches(&record) {
            let hit = Hit {
                block: block.header,
                offset,
                record,
            };
            if take(&hit)? == Flow::Enough {
                return Ok(Flow::Enough);
            }
        }
    }
    Ok(Flow::On)
}
