//! The side index of each segment, made behind the flow on housekeeping's thread.
//!
//! ```text
//! fold of the released log ------blocks--> live    --.
//!                                                     |--pages--> index/SEGMENT.new, synced, then renamed
//! segments without an index --small reads--> backlog --'
//! ```
//!
//! The fold that housekeeping does anyway hands on its blocks, so the segment at hand costs no read of its own. A segment
//! whose beginning the fold did not see (the one a start falls into, or those of an older journal) is read again, a little at
//! a time ([`crate::pace`]). Neither waits for the other. What fails is counted and costs whoever searches the time to scan
//! a segment; nothing here touches the flow. Only what is released is ever folded, so an index never has to be taken back.
//! Memory: two indexes in the making, and the pages of two that wait to be written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use relay_journal::block::{self, BlockHeader, HEADER_LENGTH};
use relay_journal::reader::side_index::SideIndex;
use relay_journal::segment::Geometry;
use relay_journal::side_index::{self, Builder};
use relay_journal::superblock::Superblock;
use relay_journal::tables::TradingSession;
use relay_wire::id::Position;

use crate::arena::Pages;
use crate::counters::{Counter, CounterFile};
use crate::pace::{INDEX_PAUSE, STEP_MAX, STEP_MIN};
use crate::storage::{Segments, sync_directory};

/// Pause after something could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// Whole indexes that wait to be written; one more is left to the backlog.
const FINISHED_MAX: usize = 2;

/// An index in the making, and the pages of it that are not written yet.
#[derive(Debug)]
struct Making {
    builder: Builder,
    /// Pages with their offset in the file.
    pieces: VecDeque<(u64, Vec<u8>)>,
    /// Bytes of the first piece that are written.
    written: usize,
    file: Option<File>,
}

impl Making {
    fn new(superblock: &Superblock, segment: u64, session: Option<&TradingSession>) -> Self {
        let (stream, geometry) = (superblock.stream, superblock.geometry());
        Self {
            builder: Builder::new(stream, geometry, segment, session),
            pieces: VecDeque::new(),
            written: 0,
            file: None,
        }
    }

    /// Takes the next block in; an error says why this segment can't be indexed.
    fn add(&mut self, header: &BlockHeader, body: &[u8]) -> Result<(), String> {
        let added = self.builder.add_block(header, body);
        added.map_err(|error| error.to_string())?;
        self.pieces.extend(self.builder.take_pages());
        // The head makes it an index, so it comes last.
        self.pieces
            .extend(self.builder.head().map(|head| (0, head)));
        Ok(())
    }

    /// Writes a little, durably; true once the index is in its place.
    fn write(&mut self, directory: &Path) -> io::Result<bool> {
        let place = directory.join(side_index::name(self.builder.segment()));
        let fresh = place.with_extension("new");
        let Some((offset, piece)) = self.pieces.front() else {
            if !self.builder.is_complete() {
                return Ok(false);
            }
            std::fs::rename(&fresh, &place)?;
            sync_directory(directory).map_err(io::Error::other)?;
            return Ok(true);
        };
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&fresh)?,
        };
        let end = piece.len().min(self.written + STEP_MIN);
        file.write_all_at(&piece[self.written..end], offset + self.written as u64)?;
        file.sync_data()?;
        self.file = Some(file);
        self.written = end;
        if end == piece.len() {
            self.pieces.pop_front();
            self.written = 0;
        }
        Ok(false)
    }

    fn has_pages(&self) -> bool {
        !self.pieces.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Indexer {
    journal: PathBuf,
    directory: PathBuf,
    superblock: Superblock,
    geometry: Geometry,
    segments: Segments,
    /// Of the segment the fold is in, if it saw its beginning.
    live: Option<Making>,
    /// Whole, and on their way to the disk.
    finished: VecDeque<Making>,
    /// Of a segment that is read again.
    backlog: Option<Making>,
    /// The segment the backlog looks at next: those before have an index, or can't have one.
    next: u64,
    /// The trading session open at the start of that segment, if one is; nothing where that can't be told: then none is made.
    session: Option<Option<TradingSession>>,
    read_at: Instant,
    retry_at: Option<Instant>,
    /// Bytes of the finished segments that were not looked at, or are being indexed.
    lag: Counter,
    made: Counter,
    failures: Counter,
}

impl Indexer {
    pub(crate) fn new(
        journal: &Path,
        superblock: Superblock,
        segments: Segments,
        counters: &mut CounterFile,
    ) -> Self {
        let now = Instant::now();
        Self {
            journal: journal.to_owned(),
            directory: journal.join(side_index::DIRECTORY),
            geometry: superblock.geometry(),
            superblock,
            segments,
            live: None,
            finished: VecDeque::new(),
            backlog: None,
            next: 0,
            session: Some(None),
            read_at: now,
            retry_at: None,
            lag: counters.counter("index.lag_bytes"),
            made: counters.counter("index.segments_made"),
            failures: counters.counter("index.failures"),
        }
    }

    /// Takes a released block in, whose checksums were compared; `session` is the trading session open before it.
    pub(crate) fn take(
        &mut self,
        header: &BlockHeader,
        body: &[u8],
        session: Option<&TradingSession>,
    ) {
        if self.geometry.offset_of(header.position) == 0 {
            let segment = self.geometry.segment_of(header.position);
            self.live = Some(Making::new(&self.superblock, segment, session));
        }
        let Some(live) = &mut self.live else {
            return;
        };
        if let Err(what) = live.add(header, body) {
            self.fail(header.position, &what);
            self.live = None;
            return;
        }
        if live.builder.is_complete() {
            let whole = self.live.take();
            if self.finished.len() < FINISHED_MAX {
                self.finished.extend(whole);
            }
        }
    }

    /// Does a little of what there is to do, where the log was folded up to `folded`; whether there is more.
    pub(crate) fn step(&mut self, folded: Position, pages: &mut Pages) -> bool {
        let due = self.geometry.segment_of(folded);
        let behind = due.saturating_sub(self.next) * self.geometry.segment_size();
        self.lag.set(behind);
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        self.retry_at = None;
        if self.write() {
            return true;
        }
        if self.next >= due || now < self.read_at {
            return false;
        }
        self.read_at = now + INDEX_PAUSE;
        self.read_again(pages);
        true
    }

    /// Writes some pages, if there are any.
    fn write(&mut self) -> bool {
        let makings = [
            self.finished.front_mut(),
            self.backlog.as_mut(),
            self.live.as_mut(),
        ];
        let making = makings
            .into_iter()
            .flatten()
            .find(|making| making.has_pages() || making.builder.is_complete());
        let Some(making) = making else {
            return false;
        };
        let segment = making.builder.segment();
        let written = make_directory(&self.journal, &self.directory)
            .and_then(|()| making.write(&self.directory));
        match written {
            Ok(false) => {}
            Ok(true) => {
                self.made.add(1);
                self.finished
                    .retain(|making| making.builder.segment() != segment);
                if self
                    .backlog
                    .as_ref()
                    .is_some_and(|making| making.builder.segment() == segment)
                {
                    let whole = self.backlog.take();
                    self.session = whole.map(|making| making.builder.session_at_end());
                    self.next += 1;
                }
            }
            Err(error) => {
                self.fail(self.geometry.start_of(segment), &error.to_string());
                self.retry_at = Some(Instant::now() + RETRY_PAUSE);
                self.live = None;
                self.backlog = None;
                self.finished.clear();
            }
        }
        true
    }

    /// Looks whether the next segment has its index, or reads a little of it to make one.
    fn read_again(&mut self, pages: &mut Pages) {
        let segment = self.next;
        if self
            .finished
            .iter()
            .any(|making| making.builder.segment() == segment)
        {
            return;
        }
        if self.backlog.is_none() {
            if let Some(session) = self.session_of_intact(segment, pages) {
                self.session = Some(session);
                self.next += 1;
                return;
            }
            let Some(session) = &self.session else {
                // Behind a break: `relay index` makes it once what is damaged is mended.
                self.next += 1;
                return;
            };
            self.backlog = Some(Making::new(&self.superblock, segment, session.as_ref()));
        }
        if let Err(what) = self.read_step(pages) {
            let position = self.geometry.start_of(segment);
            self.fail(position, &what);
            self.backlog = None;
            self.session = None;
            self.next += 1;
        }
    }

    /// The trading session at the end of a segment that has an index of what it holds now.
    fn session_of_intact(&self, segment: u64, pages: &mut Pages) -> Option<Option<TradingSession>> {
        let mut index = SideIndex::open(&self.journal, &self.superblock, segment).ok()?;
        let last = index.head().last_position;
        let length = self.segments.read(last, pages, STEP_MIN).ok()?;
        // SAFETY: the read has completed and nobody else has the pages.
        let bytes = unsafe { pages.slice(0, length) };
        let header = block::decode_header(bytes).ok()?;
        if header.checksum != index.head().last_checksum {
            return None;
        }
        index.session_at_end().ok()
    }

    /// Reads some blocks into the index of the backlog.
    fn read_step(&mut self, pages: &mut Pages) -> Result<(), String> {
        let Some(making) = &mut self.backlog else {
            return Ok(());
        };
        let segment = making.builder.segment();
        let mut length = STEP_MIN;
        loop {
            let start = making.builder.position();
            let read = self.segments.read(start, pages, length);
            let read = read.map_err(|error| error.to_string())?;
            // SAFETY: the read has completed and nobody else has the pages.
            let bytes = unsafe { pages.slice(0, read) };
            let mut taken = 0;
            while making.builder.position() < self.geometry.start_of(segment + 1)
                && let Some(rest) = bytes
                    .get(taken..)
                    .filter(|rest| rest.len() >= HEADER_LENGTH)
            {
                let header = block::decode_header(rest).map_err(|error| error.to_string())?;
                if rest.len() < header.body_end() {
                    break;
                }
                let body = &rest[HEADER_LENGTH..header.body_end()];
                block::verify_body(&header, body).map_err(|error| error.to_string())?;
                making.add(&header, body)?;
                taken += header.span as usize;
            }
            if taken > 0 {
                return Ok(());
            }
            if length == STEP_MAX {
                return Err("a block ends too early".to_owned());
            }
            // The block at hand is longer than a step: all of it, once.
            length = STEP_MAX;
        }
    }

    fn fail(&self, position: Position, what: &str) {
        self.failures.add(1);
        tracing::warn!(
            %position,
            what,
            "a segment of the journal could not be indexed: searching it takes longer. `relay index` makes what is missing"
        );
    }
}

fn make_directory(journal: &Path, directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::create_dir(directory)?;
    sync_directory(journal).map_err(io::Error::other)
}
