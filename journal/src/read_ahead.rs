//! The segment files of a directory read ahead, for who goes through a log from one end to the other.
//!
//! ```text
//! files --.-- thread 1: chunks 0, 2, 4 ... by direct reads of 4 MiB --> one waits --.
//!         '-- thread 2: chunks 1, 3, 5 ...                          --> one waits --'--> read_at, held
//! ```
//!
//! Two threads, so that the device has the next read at hand while it ends one. They start with the first read and read on
//! from there; a read from elsewhere starts them anew. Reads are direct where the filesystem has that, so that a journal of
//! any length neither fills the page cache nor is limited by the kernel's own read-ahead; a relay's writes are direct too,
//! so both see the same bytes. Memory: at most 24 MiB (of each thread one chunk being filled, one waiting, one being used),
//! whatever the length of the log. Nothing is read behind the end that was named.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use relay_wire::id::Position;

use crate::scan::{LogSource, SourceError};
use crate::segment::{self, Geometry};
use crate::source::segment_indices;

/// Bytes of one read.
pub const CHUNK_LENGTH: usize = 4 << 20;
/// Threads that read, each with one read in flight.
const READERS: usize = 2;
/// Chunks of each thread that wait to be taken.
const CHUNKS_WAITING: usize = 1;
/// A reader that leaves out no more than this (the rest of a segment, mostly) goes on with what is read already.
const SKIP_MAX: u64 = 2 * CHUNK_LENGTH as u64;
/// What direct reads are aligned to, in the file and in memory: enough for every block device in use.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Memory for one read, aligned as direct reads need it.
#[derive(Debug)]
pub struct DirectBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl DirectBuffer {
    /// Memory for `length` bytes.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + DIRECT_ALIGNMENT];
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGNMENT);
        Self {
            bytes,
            start,
            length,
        }
    }

    /// The memory.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }

    /// The memory, to be looked at.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

/// A file opened for direct reads where that is possible.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    path: PathBuf,
    is_direct: bool,
}

impl DirectFile {
    /// Opens the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        let (file, is_direct) = match opened {
            Err(error) if error.kind() == ErrorKind::InvalidInput => (File::open(path)?, false),
            other => (other?, true),
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            is_direct,
        })
    }

    /// Whether reads pass by the page cache.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Fills `part` from `offset` on; fewer bytes where the file ends. Both are multiples of [`DIRECT_ALIGNMENT`].
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&mut self, offset: u64, part: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < part.len() {
            match self
                .file
                .read_at(&mut part[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not aligned enough for this disk, or the file ends in the middle of a unit.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.is_direct => {
                    self.file = File::open(&self.path)?;
                    self.is_direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A piece of the log.
struct Chunk {
    buffer: DirectBuffer,
    /// Bytes that were asked for.
    wanted: usize,
    /// Bytes of them that are there.
    length: usize,
}

type Read = Result<Chunk, SourceError>;

/// The near end of a thread that reads.
struct Lane {
    chunks: Receiver<Read>,
    /// Takes back what was used up.
    spent: Sender<DirectBuffer>,
}

struct Running {
    lanes: Vec<Lane>,
    /// The lane that the chunk at hand came from, or the next one will.
    lane: usize,
    /// Position of the next byte that is handed over.
    next: Position,
    chunk: Option<Chunk>,
    /// Bytes of the chunk that were handed over, or are not wanted.
    used: usize,
    is_over: bool,
    /// A read that failed, and was not told yet.
    failed: Option<SourceError>,
}

/// See the module's description.
pub struct ReadAhead {
    directory: PathBuf,
    geometry: Geometry,
    /// Index of the last segment there was when the source was made.
    last: Option<u64>,
    end: Position,
    running: Option<Running>,
}

impl core::fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReadAhead")
            .field("directory", &self.directory)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl ReadAhead {
    /// The log in the journal directory `journal`, as far as the segments go now, and not past `end` but for the rest of its
    /// aligned unit.
    ///
    /// # Errors
    /// What the system says when the segments can't be listed.
    pub fn new(journal: &Path, geometry: Geometry, end: Position) -> io::Result<Self> {
        let last = segment_indices(journal)?.last().copied();
        Ok(Self {
            directory: journal.join(segment::DIRECTORY),
            geometry,
            last,
            end,
            running: None,
        })
    }

    fn start(&self, position: Position) -> Result<Running, SourceError> {
        let unit = DIRECT_ALIGNMENT as u64;
        let first = Position(position.get() / unit * unit);
        let mut lanes = Vec::with_capacity(READERS);
        for number in 0..READERS {
            let (send, chunks) = sync_channel(CHUNKS_WAITING);
            let (spent, free) = channel();
            let mut reader = Reader {
                directory: self.directory.clone(),
                geometry: self.geometry,
                last: self.last,
                end: Position(self.end.get().div_ceil(unit).saturating_mul(unit)),
                position: first,
                open: None,
                free,
            };
            reader.pass_over(number);
            thread::Builder::new()
                .name("read-ahead".to_owned())
                .spawn(move || reader.run(&send))
                .map_err(|error| SourceError {
                    position,
                    cause: format!("starting a thread: {error}"),
                })?;
            lanes.push(Lane { chunks, spent });
        }
        Ok(Running {
            lanes,
            lane: 0,
            next: position,
            chunk: None,
            used: position.since(first) as usize,
            is_over: false,
            failed: None,
        })
    }

    /// What reads on from `position`.
    fn running(&mut self, position: Position) -> Result<&mut Running, SourceError> {
        let goes_on = self.running.as_mut().is_some_and(|running| {
            let next = running.next;
            // What failed on the way to the place is of no interest to who asks for the place.
            next <= position
                && position.since(next) <= SKIP_MAX
                && (next == position || running.skip_to(position).is_ok())
        });
        if !goes_on {
            self.running = Some(self.start(position)?);
        }
        Ok(self.running.as_mut().expect("it runs now"))
    }
}

impl LogSource for ReadAhead {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        self.running(position)?.fill(buffer)
    }

    fn is_ahead(&self) -> bool {
        true
    }

    fn hold(&mut self, position: Position, length: usize) -> Result<bool, SourceError> {
        let running = self.running(position)?;
        Ok(running.has_chunk()? && running.part(length).len() == length)
    }

    fn held(&self, length: usize) -> &[u8] {
        let running = self.running.as_ref().expect("it was held just now");
        running.part(length)
    }
}

impl Running {
    /// Leaves out what lies before `position`.
    fn skip_to(&mut self, position: Position) -> Result<(), SourceError> {
        while self.next < position && self.has_chunk()? {
            let left = position.since(self.next);
            let part = self.part(usize::try_from(left).unwrap_or(usize::MAX));
            let count = part.len();
            self.moved(count);
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.has_chunk() {
                Ok(true) => {}
                Ok(false) => break,
                // What was read before stands by itself; the error is told to who asks for more.
                Err(error) if filled > 0 => {
                    self.failed = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
            let part = self.part(buffer.len() - filled);
            let count = part.len();
            buffer[filled..filled + count].copy_from_slice(part);
            filled += count;
            self.moved(count);
        }
        Ok(filled)
    }

    /// Takes the next chunk if there is none at hand; false at the end.
    fn has_chunk(&mut self) -> Result<bool, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.chunk.is_none() && !self.is_over {
            match self.lanes[self.lane].chunks.recv() {
                Ok(chunk) => self.chunk = Some(chunk?),
                Err(_) => self.is_over = true,
            }
        }
        Ok(self.chunk.is_some())
    }

    /// At most `length` bytes of the chunk at hand.
    fn part(&self, length: usize) -> &[u8] {
        let chunk = self.chunk.as_ref().expect("a chunk is at hand");
        let from = self.used.min(chunk.length);
        let end = chunk.length.min(from.saturating_add(length));
        &chunk.buffer.bytes()[from..end]
    }

    /// Moves past `count` bytes of the chunk at hand, and gives it back when it is used up.
    fn moved(&mut self, count: usize) {
        self.used += count;
        self.next = self.next.plus(count as u64);
        let chunk = self.chunk.take_if(|chunk| self.used >= chunk.length);
        if let Some(chunk) = chunk {
            self.used = 0;
            self.is_over = chunk.length < chunk.wanted;
            // The thread may be done and gone.
            let _ = self.lanes[self.lane].spent.send(chunk.buffer);
            self.lane = (self.lane + 1) % READERS;
        }
    }
}

/// A thread's part: every [`READERS`]th chunk.
struct Reader {
    directory: PathBuf,
    geometry: Geometry,
    last: Option<u64>,
    end: Position,
    position: Position,
    open: Option<(u64, DirectFile)>,
    free: Receiver<DirectBuffer>,
}

impl Reader {
    fn run(mut self, out: &SyncSender<Read>) {
        while self.position < self.end {
            let index = self.geometry.segment_of(self.position);
            if self.last.is_none_or(|last| index > last) {
                return;
            }
            let read = self.chunk(index);
            let is_last = read
                .as_ref()
                .map_or(true, |chunk| chunk.length < chunk.wanted);
            if out.send(read).is_err() || is_last {
                return;
            }
            self.pass_over(READERS);
        }
    }

    /// Leaves out chunks, which are another thread's but for the first.
    fn pass_over(&mut self, chunks: usize) {
        for _ in 0..chunks {
            self.position = self.position.plus(self.wanted() as u64);
        }
    }

    /// Bytes of the next chunk: none behind the end.
    fn wanted(&self) -> usize {
        let left = self.geometry.left_in_segment(self.position);
        let left = left.min(self.end.get().saturating_sub(self.position.get()));
        left.min(CHUNK_LENGTH as u64) as usize
    }

    fn chunk(&mut self, index: u64) -> Read {
        let position = self.position;
        let failed = |cause: String| SourceError {
            position,
            cause: format!("segment {}: {cause}", segment::name(index)),
        };
        let buffer = self.free.try_recv();
        let mut buffer = buffer.unwrap_or_else(|_| DirectBuffer::new(CHUNK_LENGTH));
        let wanted = self.wanted();
        let offset = self.geometry.offset_of(position);
        let length = self
            .file(index)
            .and_then(|file| file.read_at(offset, &mut buffer.bytes_mut()[..wanted]))
            .map_err(|error| failed(error.to_string()))?;
        if length < wanted && self.last != Some(index) {
            return Err(failed("the file is shorter than a segment".to_owned()));
        }
        Ok(Chunk {
            buffer,
            wanted,
            length,
        })
    }

    fn file(&mut self, index: u64) -> io::Result<&mut DirectFile> {
        let is_open = self.open.as_ref().is_some_and(|(open, _)| *open == index);
        if !is_open {
            let path = self.directory.join(segment::name(index));
            self.open = Some((index, DirectFile::open(&path)?));
        }
        let (_, file) = self.open.as_mut().expect("it was opened just now");
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::DirSource;

    const SEGMENT: u64 = 6 << 20;

    fn directory(lengths: &[u64]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let segments = directory.path().join(segment::DIRECTORY);
        fs::create_dir(&segments).expect("made");
        for (index, length) in lengths.iter().enumerate() {
            let words = (0..*length / 8).map(|word| ((index as u64) << 32) | word);
            let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            fs::write(segments.join(segment::name(index as u64)), bytes).expect("written");
        }
        directory
    }

    fn read_all(source: &mut dyn LogSource, from: u64, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut part = vec![0; step];
        loop {
            let at = Position(from + all.len() as u64);
            let read = source.read_at(at, &mut part).expect("readable");
            all.extend_from_slice(&part[..read]);
            if read < step {
                return all;
            }
        }
    }

    #[test]
    fn the_same_bytes_come_as_from_plain_reads() {
        let directory = directory(&[SEGMENT, SEGMENT, SEGMENT / 2]);
        let geometry = Geometry::new(SEGMENT, 512).expect("in range");
        let mut plain = DirSource::new(directory.path(), geometry).expect("listed");
        for (from, step) in [(0, 1 << 20), (512, 5 << 20), (SEGMENT + 1536, 8 << 20)] {
            let end = Position(u64::MAX - (1 << 20));
            let mut ahead = ReadAhead::new(directory.path(), geometry, end).expect("listed");
            let expected = read_all(&mut plain, from, step);
            assert!(
                read_all(&mut ahead, from, step) == expected,
                "from {from} in steps of {step}"
            );
            assert_eq!(expected.len() as u64, 2 * SEGMENT + SEGMENT / 2 - from);
        }
    }

    #[test]
    fn a_jump_starts_anew_and_the_end_is_kept() {
        let directory = directory(&[SEGMENT, SEGMENT]);
        let geometry = Geometry::new(SEGMENT, 4096).expect("in range");
        let end = Position(SEGMENT + 8192);
        let mut ahead = ReadAhead::new(directory.path(), geometry, end).expect("listed");
        let mut part = [0; 4096];
        for at in [8192, SEGMENT, 4096, 8192] {
            assert_eq!(ahead.read_at(Position(at), &mut part), Ok(4096));
            let word = u64::from_le_bytes(part[..8].try_into().expect("eight bytes"));
            assert_eq!(word, ((at / SEGMENT) << 32) | (at % SEGMENT / 8), "at {at}");
        }
        let all = read_all(&mut ahead, 0, 1 << 20);
        assert_eq!(all.len() as u64, SEGMENT + 8192);
    }

    #[test]
    fn a_short_or_missing_segment_in_the_middle_is_an_error() {
        let directory = directory(&[SEGMENT, SEGMENT - 4096, SEGMENT]);
        let geometry = Geometry::new(SEGMENT, 4096).expect("in range");
        let path = directory
            .path()
            .join(segment::DIRECTORY)
            .join(segment::name(0));
        for expected in ["shorter than a segment", "No such file"] {
            let end = Position(u64::MAX - (1 << 20));
            let mut ahead = ReadAhead::new(directory.path(), geometry, end).expect("listed");
            let mut part = vec![0; 2 * SEGMENT as usize];
            // What lies before it is handed out first.
            let mut at = 0;
            let error = loop {
                match ahead.read_at(Position(at), &mut part) {
                    Ok(read) => {
                        assert!(read > 0 && at < SEGMENT, "it does not end in silence");
                        at += read as u64;
                    }
                    Err(error) => break error,
                }
            };
            assert!(error.to_string().contains(expected), "{error}");
            let _ = fs::remove_file(&path);
        }
    }
}
