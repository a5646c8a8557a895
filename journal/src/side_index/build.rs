//! Making an index from the blocks of a segment, in order.

use relay_wire::code::RecordKind;
use relay_wire::id::{Position, PublisherId, Seq, StreamId};
use relay_wire::record::{Record, RecordError, trading_session_body};
use zerocopy::IntoBytes;

use super::{
    BlockRow, Head, PAGE_LENGTH, PairRow, Part, Row, RunRow, SessionRow, Table, finish_page,
    fold_key, offset_units, part_length,
};
use crate::block::{self, BlockHeader};
use crate::segment::Geometry;
use crate::tables::TradingSession;

/// Why a block is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// It is not the one that is due.
    Place {
        /// Where it lies.
        found: Position,
        /// Where the one due lies.
        expected: Position,
    },
    /// A record of it is malformed.
    Record(RecordError),
    /// It holds a record out of order: the log is broken.
    Order,
}

impl core::fmt::Display for BuildError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Place { found, expected } => {
                write!(f, "a block of position {found} where {expected} is due")
            }
            Self::Record(error) => write!(f, "{error}"),
            Self::Order => write!(f, "a message out of order"),
        }
    }
}

impl core::error::Error for BuildError {}

/// A run in the making: one incarnation of one publisher.
#[derive(Debug)]
struct Run {
    publisher: u64,
    incarnation: u64,
    first: u64,
    /// The publisher sequence that is due.
    next: u64,
    /// Its entries: publisher sequence less `first`, block.
    entries: Vec<PairRow>,
}

/// Places of a small memory of what was noted last: what repeats within a block, which is nearly everything, is noted once.
const NOTED: usize = 1024;

/// Numbers and the blocks that hold them.
#[derive(Debug)]
struct Pairs {
    /// Number in the upper half, block in the lower.
    pairs: Vec<u64>,
    noted: Vec<u64>,
}

impl Pairs {
    fn new() -> Self {
        Self {
            pairs: Vec::new(),
            noted: vec![u64::MAX; NOTED],
        }
    }

    fn note(&mut self, term: u32, block: u32) {
        let pair = u64::from(term) << 32 | u64::from(block);
        let place = term.wrapping_mul(0x9e37_79b1) >> 22;
        let noted = &mut self.noted[place as usize];
        if *noted != pair {
            *noted = pair;
            self.pairs.push(pair);
        }
    }

    fn take_rows(&mut self) -> Vec<PairRow> {
        self.pairs.sort_unstable();
        self.pairs.dedup();
        let row = |pair: &u64| PairRow {
            term: ((pair >> 32) as u32).into(),
            block: (*pair as u32).into(),
        };
        let rows = self.pairs.iter().map(row).collect();
        self.pairs.clear();
        self.noted.fill(u64::MAX);
        rows
    }
}

/// Makes the index of one segment; see the module.
#[derive(Debug)]
pub struct Builder {
    head: Head,
    /// Where the next block lies.
    position: Position,
    part_start: Position,
    blocks: Vec<BlockRow>,
    runs: Vec<Run>,
    topics: Pairs,
    keys: Pairs,
    sessions: Vec<SessionRow>,
    /// Pages that are finished and not taken yet; the first of them is `pages_taken`.
    pages: Vec<u8>,
    pages_taken: u32,
}

impl Builder {
    /// A builder for `segment`, at whose start `session` is open.
    #[must_use]
    pub fn new(
        stream: StreamId,
        geometry: Geometry,
        segment: u64,
        session: Option<&TradingSession>,
    ) -> Self {
        let start = geometry.start_of(segment);
        let row = |session: &TradingSession| {
            SessionRow::new(session.number, session.first_seq, &session.name)
        };
        Self {
            head: Head {
                stream,
                segment,
                geometry,
                pages: 1,
                first_checksum: 0,
                last_checksum: 0,
                last_position: start,
                first_seq: Seq(1),
                next_seq: Seq(1),
                first_time_ns: 0,
                last_time_ns: 0,
                sessions: Table::default(),
                parts: Vec::new(),
            },
            position: start,
            part_start: start,
            blocks: Vec::new(),
            runs: Vec::new(),
            topics: Pairs::new(),
            keys: Pairs::new(),
            sessions: session.map(row).into_iter().collect(),
            pages: Vec::new(),
            pages_taken: 1,
        }
    }

    /// The segment.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.head.segment
    }

    /// Where the next block lies.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Whether every block of the segment was taken in.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.head.geometry.segment_of(self.position) > self.head.segment
    }

    /// Takes the next block in, whose checksums were compared before.
    ///
    /// # Errors
    /// [`BuildError`]; the builder is of no use any more then.
    pub fn add_block(&mut self, header: &BlockHeader, body: &[u8]) -> Result<(), BuildError> {
        if header.position != self.position {
            return Err(BuildError::Place {
                found: header.position,
                expected: self.position,
            });
        }
        let start = self.head.geometry.start_of(self.head.segment);
        if self.position == start {
            self.head.first_checksum = header.checksum;
            self.head.first_seq = header.first_seq;
        }
        if self.position.since(self.part_start) >= part_length(self.head.geometry) {
            self.finish_part();
        }
        if header.data_count > 0 {
            self.blocks.push(BlockRow {
                offset: offset_units(self.head.geometry, header.position).into(),
                messages: header.data_count.into(),
                first_seq: header.first_seq.0.into(),
                first_time_ns: 0.into(),
            });
        }
        let mut seq = header.first_seq;
        for record in block::records(body) {
            let (_, record) = record.map_err(BuildError::Record)?;
            if record.is_data() {
                if self.blocks.is_empty() || record.seq() != seq {
                    return Err(BuildError::Order);
                }
                self.add_message(&record, seq == header.first_seq)?;
                seq = seq.next();
            } else if record.kind() == Some(RecordKind::TradingSession)
                && let Some((number, name)) = trading_session_body(record.payload())
            {
                self.sessions.push(SessionRow::new(number, seq, name));
            }
        }
        if seq != header.next_seq() {
            return Err(BuildError::Order);
        }
        self.head.next_seq = seq;
        self.head.last_checksum = header.checksum;
        self.head.last_position = header.position;
        self.position = header.next_position();
        if self.is_complete() {
            self.finish_part();
            let sessions = self.sessions.clone();
            self.head.sessions = self.append(&sessions);
        }
        Ok(())
    }

    fn add_message(&mut self, record: &Record<'_>, is_first: bool) -> Result<(), BuildError> {
        let time_ns = record.receive_time_ns();
        let block = self.blocks.len() as u32 - 1;
        if is_first {
            self.blocks[block as usize].first_time_ns = time_ns.into();
            if self.head.parts.is_empty() && block == 0 {
                self.head.first_time_ns = time_ns;
            }
        }
        if time_ns < self.head.last_time_ns {
            return Err(BuildError::Order);
        }
        self.head.last_time_ns = time_ns;
        self.topics.note(record.topic().get(), block);
        let key_hash = record.header().key_hash.get();
        if key_hash != 0 {
            self.keys.note(fold_key(key_hash), block);
        }
        self.add_to_run(record, block)
    }

    fn add_to_run(&mut self, record: &Record<'_>, block: u32) -> Result<(), BuildError> {
        let PublisherId(publisher) = record.publisher();
        let (incarnation, sequence) = (record.incarnation().get(), record.publisher_seq().get());
        let key = (publisher, incarnation);
        let found = self
            .runs
            .binary_search_by_key(&key, |run| (run.publisher, run.incarnation));
        let place = found.unwrap_or_else(|place| {
            let run = Run {
                publisher,
                incarnation,
                first: sequence,
                next: sequence,
                entries: Vec::new(),
            };
            self.runs.insert(place, run);
            place
        });
        let run = &mut self.runs[place];
        if sequence != run.next {
            return Err(BuildError::Order);
        }
        run.next = sequence.wrapping_add(1);
        if run
            .entries
            .last()
            .is_none_or(|last| last.block.get() != block)
        {
            // A part has fewer messages than 32 bits count.
            let term = u32::try_from(sequence - run.first).map_err(|_| BuildError::Order)?;
            run.entries.push(PairRow {
                term: term.into(),
                block: block.into(),
            });
        }
        Ok(())
    }

    fn finish_part(&mut self) {
        self.part_start = self.position;
        let blocks = std::mem::take(&mut self.blocks);
        let Some(first) = blocks.first() else {
            return;
        };
        let mut part = Part {
            first_seq: first.first_seq,
            first_time_ns: first.first_time_ns,
            ..Part::default()
        };
        part.blocks = self.append(&blocks);
        let runs = std::mem::take(&mut self.runs);
        let mut rows = Vec::with_capacity(runs.len());
        let mut entries = Vec::new();
        for run in runs {
            rows.push(RunRow {
                publisher: run.publisher.into(),
                incarnation: run.incarnation.into(),
                first: run.first.into(),
                entry: (entries.len() as u32).into(),
                entries: (run.entries.len() as u32).into(),
            });
            entries.extend(run.entries);
        }
        part.runs = self.append(&rows);
        part.entries = self.append(&entries);
        let topics = self.topics.take_rows();
        part.topics = self.append(&topics);
        let keys = self.keys.take_rows();
        part.keys = self.append(&keys);
        self.head.parts.push(part);
    }

    /// Lays rows out in pages behind those there are.
    fn append<R: Row>(&mut self, rows: &[R]) -> Table {
        let table = Table {
            page: self.head.pages.into(),
            rows: (rows.len() as u32).into(),
        };
        for chunk in rows.chunks(R::PER_PAGE as usize) {
            let at = self.pages.len();
            self.pages.resize(at + PAGE_LENGTH, 0);
            let page = &mut self.pages[at..];
            let bytes = chunk.as_bytes();
            page[..bytes.len()].copy_from_slice(bytes);
            finish_page(page, self.head.pages);
            self.head.pages += 1;
        }
        table
    }

    /// Takes the pages that are finished, and their offset in the file; at the end all are.
    pub fn take_pages(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.pages.is_empty() {
            return None;
        }
        let offset = u64::from(self.pages_taken) * PAGE_LENGTH as u64;
        let pages = std::mem::take(&mut self.pages);
        self.pages_taken += (pages.len() / PAGE_LENGTH) as u32;
        Some((offset, pages))
    }

    /// Page 0, which is written last: nothing before every block was taken in.
    #[must_use]
    pub fn head(&self) -> Option<Vec<u8>> {
        self.is_complete().then(|| self.head.encode())
    }

    /// The trading session that is open at the segment's end, for the builder of the next one.
    #[must_use]
    pub fn session_at_end(&self) -> Option<TradingSession> {
        self.sessions.last().map(SessionRow::session)
    }
}
