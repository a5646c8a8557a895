//! An index file, page by page: which blocks of its segment to look into.
//!
//! A handful of pages is kept; what is read is compared with its checksum first. Nothing here is an answer: it says where
//! one may be, and the block itself says whether it is.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use relay_wire::id::{Incarnation, PublisherId, PublisherSeq, Seq, TopicId};

use super::ReaderError;
use super::point::PointReader;
use crate::side_index::{
    BlockRow, DIRECTORY, Head, IndexError, PAGE_LENGTH, PairRow, Part, Row, RunRow, SessionRow,
    Table, check_page, fold_key, name,
};
use crate::superblock::Superblock;
use crate::tables::TradingSession;

/// Why an index is of no use. The segment is then scanned instead.
#[derive(Debug)]
pub enum IndexFault {
    /// There is none.
    Missing,
    /// The system refused.
    Io(io::Error),
    /// It is damaged, or of another log.
    Bad(IndexError),
}

impl core::fmt::Display for IndexFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing => write!(f, "there is no index"),
            Self::Io(error) => write!(f, "reading the index: {error}"),
            Self::Bad(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for IndexFault {}

impl From<IndexError> for IndexFault {
    fn from(error: IndexError) -> Self {
        Self::Bad(error)
    }
}

/// What blocks are wanted for. Every condition must hold of a message, so a block is named that may hold one of which all do.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// First and last seq.
    pub seqs: (Seq, Seq),
    /// First and last receive time, ns UTC.
    pub times_ns: (u64, u64),
    /// The publisher.
    pub publisher: Option<PublisherId>,
    /// Its incarnation.
    pub incarnation: Option<Incarnation>,
    /// Its sequence; of no meaning without the publisher.
    pub publisher_seq: Option<PublisherSeq>,
    /// Topics, by id.
    pub topics: Option<&'a [TopicId]>,
    /// Hash of the key, not 0.
    pub key_hash: Option<u64>,
}

impl Wanted<'_> {
    /// Every message.
    pub const ALL: Self = Self {
        seqs: (Seq(0), Seq(u64::MAX)),
        times_ns: (0, u64::MAX),
        publisher: None,
        incarnation: None,
        publisher_seq: None,
        topics: None,
        key_hash: None,
    };
}

/// Pages kept.
const PAGES_KEPT: usize = 16;

#[derive(Debug)]
struct Page {
    number: u32,
    bytes: Box<[u8; PAGE_LENGTH]>,
}

/// One index file, open.
#[derive(Debug)]
pub struct SideIndex {
    file: File,
    head: Head,
    kept: Vec<Page>,
}

impl SideIndex {
    /// Opens the index of a segment of the journal in `directory`.
    ///
    /// # Errors
    /// [`IndexFault`].
    pub fn open(
        directory: &Path,
        superblock: &Superblock,
        segment: u64,
    ) -> Result<Self, IndexFault> {
        let path = directory.join(DIRECTORY).join(name(segment));
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => IndexFault::Missing,
            _ => IndexFault::Io(error),
        })?;
        let mut page = [0; PAGE_LENGTH];
        read_page(&file, 0, &mut page)?;
        let head = Head::decode(&page)?;
        head.check_place(superblock.stream, superblock.geometry(), segment)?;
        Ok(Self {
            file,
            head,
            kept: Vec::new(),
        })
    }

    /// What it says of the segment as a whole.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Whether the segment is still the one that was indexed: its first and its last block, whose checksum stands for all
    /// before.
    ///
    /// # Errors
    /// [`IndexFault::Bad`] where they are others; [`ReaderError`] inside where the log can't be read.
    pub fn check_log(&self, log: &mut PointReader) -> Result<Result<(), IndexFault>, ReaderError> {
        let start = self.head.geometry.start_of(self.head.segment);
        let ends = [
            (start, self.head.first_checksum, "first block"),
            (
                self.head.last_position,
                self.head.last_checksum,
                "last block",
            ),
        ];
        for (position, checksum, what) in ends {
            let found = log.header(position)?;
            let is_same = found.is_ok_and(|header| header.checksum == checksum);
            if !is_same {
                return Ok(Err(IndexError::OtherLog(what).into()));
            }
        }
        Ok(Ok(()))
    }

    /// Reads every page: whether all of the index is intact.
    ///
    /// # Errors
    /// [`IndexFault`].
    pub fn check_all(&self) -> Result<(), IndexFault> {
        let mut page = [0; PAGE_LENGTH];
        for number in 0..self.head.pages {
            read_page(&self.file, number, &mut page)?;
            check_page(&page, number)?;
        }
        Ok(())
    }

    /// The blocks to look into, in the order of the log, of one of the parts that [`Head::parts_of`] names.
    ///
    /// # Errors
    /// [`IndexFault`].
    ///
    /// # Panics
    /// When there is no such part.
    pub fn blocks(
        &mut self,
        part: usize,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<BlockRow>, IndexFault> {
        let part = self.head.parts[part];
        let (low, high) = self.range(&part, wanted)?;
        let mut chosen: Option<Vec<u32>> = None;
        let mut narrow = |mut found: Vec<u32>| {
            found.retain(|block| (low..high).contains(block));
            found.sort_unstable();
            found.dedup();
            chosen = Some(match chosen.take() {
                None => found,
                Some(before) => {
                    found.retain(|block| before.binary_search(block).is_ok());
                    found
                }
            });
        };
        if let Some(publisher) = wanted.publisher {
            narrow(self.of_publisher(&part, publisher, wanted)?);
        }
        if let Some(topics) = wanted.topics {
            narrow(self.of_topics(&part, topics)?);
        }
        if let Some(key_hash) = wanted.key_hash {
            narrow(self.of_term(part.keys, fold_key(key_hash))?);
        }
        let blocks = chosen.unwrap_or_else(|| (low..high).collect());
        blocks
            .into_iter()
            .map(|block| self.row(part.blocks, block))
            .collect()
    }

    /// Numbers of the blocks that may lie within seqs and times, the end excluded.
    fn range(&mut self, part: &Part, wanted: &Wanted<'_>) -> Result<(u32, u32), IndexFault> {
        let blocks = part.blocks;
        // A block that begins before the wish may hold it; where times are equal the one before may too.
        let after_seq = self.partition_point(blocks, |row: &BlockRow| {
            row.first_seq.get() <= wanted.seqs.0.0
        })?;
        let after_time = self.partition_point(blocks, |row: &BlockRow| {
            row.first_time_ns.get() < wanted.times_ns.0
        })?;
        let low = after_seq
            .saturating_sub(1)
            .max(after_time.saturating_sub(1));
        let high = self.partition_point(blocks, |row: &BlockRow| {
            row.first_seq.get() <= wanted.seqs.1.0 && row.first_time_ns.get() <= wanted.times_ns.1
        })?;
        Ok((low, high.max(low)))
    }

    fn of_publisher(
        &mut self,
        part: &Part,
        PublisherId(publisher): PublisherId,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<u32>, IndexFault> {
        let mut found = Vec::new();
        let first =
            self.partition_point(part.runs, |run: &RunRow| run.publisher.get() < publisher)?;
        for number in first..part.runs.rows.get() {
            let run: RunRow = self.row(part.runs, number)?;
            if run.publisher.get() != publisher {
                break;
            }
            let is_other = |incarnation: Incarnation| run.incarnation.get() != incarnation.0;
            if wanted.incarnation.is_some_and(is_other) {
                continue;
            }
            let start = run.entry.get();
            let end = start.checked_add(run.entries.get());
            let end = end.filter(|&end| end <= part.entries.rows.get());
            let end = end.ok_or(IndexError::Inconsistent("a run's entries"))?;
            let Some(PublisherSeq(sequence)) = wanted.publisher_seq else {
                for entry in start..end {
                    let entry: PairRow = self.row(part.entries, entry)?;
                    found.push(entry.block.get());
                }
                continue;
            };
            let Some(term) = sequence.checked_sub(run.first.get()) else {
                continue;
            };
            let after = self.partition_within(part.entries, (start, end), |row: &PairRow| {
                u64::from(row.term.get()) <= term
            })?;
            if after > start {
                let entry: PairRow = self.row(part.entries, after - 1)?;
                found.push(entry.block.get());
            }
        }
        Ok(found)
    }

    fn of_topics(&mut self, part: &Part, topics: &[TopicId]) -> Result<Vec<u32>, IndexFault> {
        // Many topics are looked for in one pass, few of them one by one.
        let rows = part.topics.rows.get();
        if topics.len() as u64 * 16 < u64::from(rows) {
            let mut found = Vec::new();
            for topic in topics {
                found.extend(self.of_term(part.topics, topic.get())?);
            }
            return Ok(found);
        }
        let mut sorted: Vec<u32> = topics.iter().map(|topic| topic.get()).collect();
        sorted.sort_unstable();
        let mut found = Vec::new();
        for number in 0..rows {
            let row: PairRow = self.row(part.topics, number)?;
            if sorted.binary_search(&row.term.get()).is_ok() {
                found.push(row.block.get());
            }
        }
        Ok(found)
    }

    /// The blocks of one number.
    fn of_term(&mut self, table: Table, term: u32) -> Result<Vec<u32>, IndexFault> {
        let mut found = Vec::new();
        let first = self.partition_point(table, |row: &PairRow| row.term.get() < term)?;
        for number in first..table.rows.get() {
            let row: PairRow = self.row(table, number)?;
            if row.term.get() != term {
                break;
            }
            found.push(row.block.get());
        }
        Ok(found)
    }

    /// The trading session that the message with this seq of this segment belongs to.
    ///
    /// # Errors
    /// [`IndexFault`].
    pub fn session_of(&mut self, seq: Seq) -> Result<Option<TradingSession>, IndexFault> {
        let sessions = self.head.sessions;
        let after =
            self.partition_point(sessions, |row: &SessionRow| row.first_seq.get() <= seq.0)?;
        let Some(number) = after.checked_sub(1) else {
            return Ok(None);
        };
        let row: SessionRow = self.row(sessions, number)?;
        Ok(Some(row.session()))
    }

    /// The trading session that is open at the segment's end.
    ///
    /// # Errors
    /// [`IndexFault`].
    pub fn session_at_end(&mut self) -> Result<Option<TradingSession>, IndexFault> {
        self.session_of(Seq(u64::MAX))
    }

    fn partition_point<R: Row>(
        &mut self,
        table: Table,
        is_before: impl Fn(&R) -> bool,
    ) -> Result<u32, IndexFault> {
        self.partition_within(table, (0, table.rows.get()), is_before)
    }

    fn partition_within<R: Row>(
        &mut self,
        table: Table,
        (mut low, mut high): (u32, u32),
        is_before: impl Fn(&R) -> bool,
    ) -> Result<u32, IndexFault> {
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(&self.row(table, middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn row<R: Row>(&mut self, table: Table, number: u32) -> Result<R, IndexFault> {
        if number >= table.rows.get() {
            return Err(IndexError::Inconsistent("a block's number").into());
        }
        let (page, offset) = table.place::<R>(number);
        let bytes = &self.page(page)?[offset..];
        let (row, _) = R::read_from_prefix(bytes).map_err(|_| IndexError::Short)?;
        Ok(row)
    }

    fn page(&mut self, number: u32) -> Result<&[u8; PAGE_LENGTH], IndexFault> {
        let place = self.kept.iter().position(|page| page.number == number);
        let place = match place {
            Some(place) => place,
            None => {
                let mut bytes = if self.kept.len() < PAGES_KEPT {
                    Box::new([0; PAGE_LENGTH])
                } else {
                    self.kept.remove(0).bytes
                };
                read_page(&self.file, number, &mut bytes)?;
                check_page(&bytes, number)?;
                self.kept.push(Page { number, bytes });
                self.kept.len() - 1
            }
        };
        Ok(&self.kept[place].bytes)
    }
}

fn read_page(file: &File, number: u32, page: &mut [u8; PAGE_LENGTH]) -> Result<(), IndexFault> {
    let offset = u64::from(number) * PAGE_LENGTH as u64;
    file.read_exact_at(page, offset)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => IndexFault::Bad(IndexError::Page(number)),
            _ => IndexFault::Io(error),
        })
}
