//! The journal's directory as the process owns it: lock, superblock, prepared segments.
//!
//! Segments are prepared by writing zeroes, never by allocation alone: a first write into an unwritten extent costs a
//! metadata change at the worst moment. A segment gets its name only when all of it, and the directory entry, is on
//! stable storage. Every error names the path, the stage and what to do.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use relay_journal::checkpoint;
use relay_journal::segment::{self, Geometry};
use relay_journal::set_aside;
use relay_journal::superblock::{self, GENERATION_LENGTH, Superblock, SuperblockError};
use relay_wire::id::{Epoch, Position};

use crate::arena::Pages;
use crate::pace::STEP_MAX;

/// Most segments of a stream.
const SEGMENTS_MAX: usize = 1 << 16;

/// What went wrong with the disk, where, and what to do.
#[derive(Debug)]
pub(crate) enum StorageError {
    /// A system call failed.
    Io {
        stage: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Another process has the journal.
    Locked(PathBuf),
    /// There is a journal already.
    Exists(PathBuf),
    /// The directory holds no journal.
    NotFormatted(PathBuf),
    /// The superblock is not one to go on with.
    Superblock(PathBuf, SuperblockError),
    /// The filesystem has no direct I/O.
    NoDirect(PathBuf),
    /// Not enough room for what the configuration asks to prepare.
    NoSpace {
        path: PathBuf,
        needed: u64,
        available: u64,
    },
    /// The configuration and the journal disagree.
    Mismatch(PathBuf, String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                stage,
                path,
                source,
            } => {
                write!(f, "{stage} failed on {}: {source}", path.display())
            }
            Self::Locked(path) => write!(
                f,
                "{}: another relayd has this journal open, or what is left of one that was killed \
                 (relayd-hang-up, or its last writes, which wait for the disk); stop it first, or give each its own directory",
                path.display()
            ),
            Self::Exists(path) => write!(
                f,
                "{}: there is a journal already; `relayd run` goes on with it. To begin anew, move \
                 the directory away first",
                path.display()
            ),
            Self::NotFormatted(path) => write!(
                f,
                "{}: no journal here; make one with `relayd format --config FILE`",
                path.display()
            ),
            Self::Superblock(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoDirect(path) => write!(
                f,
                "{}: this filesystem has no direct I/O (O_DIRECT) to a disk, as tmpfs and some \
                 overlays have none; put the directory on ext4 or XFS on a block device",
                path.display()
            ),
            Self::NoSpace {
                path,
                needed,
                available,
            } => write!(
                f,
                "{}: {needed} bytes are to be prepared, {available} are available; free some, or \
                 lower journal.prepared in the configuration",
                path.display()
            ),
            Self::Mismatch(path, what) => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for StorageError {}

fn at(stage: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io {
        stage,
        path,
        source,
    }
}

/// A journal directory this process has locked.
#[derive(Debug)]
pub(crate) struct Storage {
    directory: PathBuf,
    superblock_file: File,
    superblock: Superblock,
    slot: usize,
}

impl Storage {
    /// Makes the directory and its superblock, without segments.
    pub(crate) fn create(directory: &Path, first: &Superblock) -> Result<Self, StorageError> {
        check_filesystem(directory)?;
        std::fs::create_dir_all(directory.join(segment::DIRECTORY))
            .map_err(at("making the directory", directory))?;
        let path = directory.join(superblock::FILE_NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StorageError::Exists(directory.to_owned()));
            }
            other => other.map_err(at("making the superblock", &path))?,
        };
        lock(&file, directory)?;
        let mut storage = Self {
            directory: directory.to_owned(),
            superblock_file: file,
            superblock: *first,
            slot: 1,
        };
        storage.store(*first)?;
        storage.store(Superblock {
            generation: first.generation + 1,
            ..*first
        })?;
        sync_directory(directory)?;
        Ok(storage)
    }

    /// Opens and locks the journal in `directory`.
    pub(crate) fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(superblock::FILE_NAME);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StorageError::NotFormatted(directory.to_owned()));
            }
            other => other.map_err(at("opening the superblock", &path))?,
        };
        lock(&file, directory)?;
        check_filesystem(directory)?;
        // A process that was killed between writing a generation and syncing it left it in a cache: it must be on the disk
        // before the other one is written over, or a loss of power then could take both.
        file.sync_all()
            .map_err(at("syncing the superblock", &path))?;
        let mut both = [0; 2 * GENERATION_LENGTH];
        let length = file
            .metadata()
            .map_err(at("reading the superblock", &path))?
            .len();
        let length = both.len().min(length as usize);
        file.read_exact_at(&mut both[..length], 0)
            .map_err(at("reading the superblock", &path))?;
        let (a, b) = both.split_at(GENERATION_LENGTH);
        let (superblock, slot) = superblock::newest(a, b)
            .map_err(|error| StorageError::Superblock(directory.to_owned(), error))?;
        Ok(Self {
            directory: directory.to_owned(),
            superblock_file: file,
            superblock,
            slot,
        })
    }

    /// The superblock in force.
    pub(crate) const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Makes `next` the superblock in force, durably, leaving the one before intact.
    pub(crate) fn store(&mut self, next: Superblock) -> Result<(), StorageError> {
        let path = self.directory.join(superblock::FILE_NAME);
        let slot = 1 - self.slot;
        let at_byte = (slot * GENERATION_LENGTH) as u64;
        self.superblock_file
            .write_all_at(&next.encode(), at_byte)
            // The file's space and length stay, so the data is all there is to sync. Its times are left out: they would have to
            // wait for the filesystem's journal, in the middle of a failover and behind whatever else changes there.
            .and_then(|()| self.superblock_file.sync_data())
            .map_err(at("writing the superblock", &path))?;
        self.superblock = next;
        self.slot = slot;
        Ok(())
    }

    /// Stores what `change` makes of the superblock, as the next generation.
    pub(crate) fn update(
        &mut self,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), StorageError> {
        let mut next = self.superblock;
        change(&mut next);
        next.generation = self.superblock.generation + 1;
        self.store(next)
    }

    /// Opens every whole segment there is, in order from the first; one missing in the middle is an error.
    pub(crate) fn open_segments(&self) -> Result<Segments, StorageError> {
        let geometry = self.superblock.geometry();
        let listed = relay_journal::source::list_segments(&self.directory)
            .map_err(at("listing the segments", &self.directory))?;
        let path = self.directory.join(superblock::FILE_NAME);
        let lock = self.superblock_file.try_clone();
        let segments = Segments::new(geometry, lock.map_err(at("holding the lock of", &path))?);
        for (expected, found) in listed.iter().enumerate() {
            let path = segment_path(&self.directory, found.index);
            if found.index != expected as u64 {
                let missing = segment_path(&self.directory, expected as u64);
                let what = format!("segment {} is missing; restore it", missing.display());
                return Err(StorageError::Mismatch(self.directory.clone(), what));
            }
            if found.length != geometry.segment_size() {
                let what = format!(
                    "is {} bytes long instead of {}: the disk lost what was synced. Restore it; or, where a peer \
                     has the log, format this disk anew and fetch it from a peer",
                    found.length,
                    geometry.segment_size()
                );
                return Err(StorageError::Mismatch(path, what));
            }
            segments.add(open_direct(&path)?, &path)?;
        }
        Ok(segments)
    }

    /// Makes durable what lies before `tail`. A process that was killed may have left complete blocks that no sync had
    /// covered: recovery counts them in, so they must not be lost with the power afterwards. Nothing further back than what
    /// may be in flight can be meant.
    pub(crate) fn settle(&self, tail: Position) -> Result<(), StorageError> {
        let geometry = self.superblock.geometry();
        let from = tail
            .get()
            .saturating_sub(self.superblock.in_flight_bytes_max);
        let last = geometry.segment_of(Position(tail.get().saturating_sub(1)));
        for index in geometry.segment_of(Position(from))..=last {
            let path = segment_path(&self.directory, index);
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => opened
                    .and_then(|file| file.sync_data())
                    .map_err(at("syncing a segment", &path))?,
            }
        }
        Ok(())
    }

    /// Overwrites `length` bytes of the log from `position` on with zeroes, durably, from the far end towards
    /// `position`: a crash on the way must not leave an old block behind a hole, which would look like rot.
    pub(crate) fn zero(&self, position: Position, length: u64) -> Result<(), StorageError> {
        let geometry = self.superblock.geometry();
        let zeroes = vec![0; 64 << 10];
        let mut end = position.plus(length);
        while end > position {
            let index = geometry.segment_of(Position(end.get() - 1));
            let from = geometry.start_of(index).max(position);
            let path = segment_path(&self.directory, index);
            let opened = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_DSYNC)
                .open(&path);
            let file = match opened {
                // Nothing is prepared there, so nothing is left over there either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    end = from;
                    continue;
                }
                other => other.map_err(at("opening a segment", &path))?,
            };
            while end > from {
                let step = end.since(from).min(zeroes.len() as u64);
                end = Position(end.get() - step);
                file.write_all_at(&zeroes[..step as usize], geometry.offset_of(end))
                    .map_err(at("zeroing leftovers", &path))?;
            }
        }
        Ok(())
    }

    /// Writes a good block over a damaged one, durably.
    pub(crate) fn mend(&self, position: Position, bytes: &[u8]) -> Result<(), StorageError> {
        mend_block(
            &self.directory,
            &self.superblock.geometry(),
            position,
            bytes,
        )
    }

    /// The end of what lies in the prepared space from `position` on, at a multiple of the block alignment: behind it all is
    /// zero.
    pub(crate) fn written_end(&self, position: Position) -> Result<Position, StorageError> {
        let geometry = self.superblock.geometry();
        let unit = u64::from(geometry.block_alignment());
        let listed = relay_journal::source::list_segments(&self.directory)
            .map_err(at("listing the segments", &self.directory))?;
        let mut bytes = vec![0; 1 << 20];
        for segment in listed.iter().rev() {
            let start = geometry.start_of(segment.index);
            let path = segment_path(&self.directory, segment.index);
            let file = File::open(&path).map_err(at("opening a segment", &path))?;
            let mut end = segment.length;
            while end > 0 {
                let step = end.min(bytes.len() as u64);
                end -= step;
                let piece = &mut bytes[..step as usize];
                file.read_exact_at(piece, end)
                    .map_err(at("looking for the log's end", &path))?;
                if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
                    let found = start.plus((end + last as u64 + 1).next_multiple_of(unit));
                    return Ok(found.max(position));
                }
            }
            if start <= position {
                break;
            }
        }
        Ok(position)
    }

    /// Copies `length` bytes of the log from `position` on into a file of its own, durably; its path. A file that is there
    /// already stays: an attempt before made it, when more of the log was left.
    pub(crate) fn set_aside(
        &self,
        epoch: Epoch,
        position: Position,
        length: u64,
    ) -> Result<PathBuf, StorageError> {
        let geometry = self.superblock.geometry();
        let path = self.directory.join(set_aside::name(epoch, position));
        if path.exists() {
            return Ok(path);
        }
        let fresh = self.directory.join("set-aside.new");
        let mut aside = File::create(&fresh).map_err(at("making the file", &fresh))?;
        let mut bytes = vec![0; 1 << 20];
        let (mut from, end) = (position, position.plus(length));
        while from < end {
            let segment = segment_path(&self.directory, geometry.segment_of(from));
            let left = geometry.left_in_segment(from).min(end.since(from));
            let step = left.min(bytes.len() as u64) as usize;
            File::open(&segment)
                .and_then(|file| file.read_exact_at(&mut bytes[..step], geometry.offset_of(from)))
                .map_err(at("reading the log", &segment))?;
            aside
                .write_all(&bytes[..step])
                .map_err(at("setting aside", &fresh))?;
            from = from.plus(step as u64);
        }
        aside.sync_all().map_err(at("setting aside", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(at("naming the file", &path))?;
        sync_directory(&self.directory)?;
        Ok(path)
    }

    /// Removes every checkpoint of more than the log up to `position`, durably.
    pub(crate) fn remove_checkpoints_behind(&self, position: Position) -> Result<(), StorageError> {
        let directory = &self.directory;
        let entries = std::fs::read_dir(directory).map_err(at("listing checkpoints", directory))?;
        for entry in entries.flatten() {
            let found = entry.file_name().to_str().and_then(checkpoint::parse_name);
            if found.is_some_and(|found| found > position) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(at("removing a checkpoint", &path))?;
            }
        }
        sync_directory(directory)
    }
}

/// How long a process that was killed may still have the lock: it goes with its memory, which is a matter of some ten
/// milliseconds (`hang_up.rs`), and with its last write.
const GONE_PATIENCE: Duration = Duration::from_millis(300);
const GONE_PAUSE: Duration = Duration::from_millis(2);

fn lock(file: &File, directory: &Path) -> Result<(), StorageError> {
    let begun = Instant::now();
    loop {
        // SAFETY: the descriptor is open for as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(StorageError::Io {
                stage: "locking",
                path: directory.to_owned(),
                source: error,
            });
        }
        if begun.elapsed() >= GONE_PATIENCE {
            return Err(StorageError::Locked(directory.to_owned()));
        }
        std::thread::sleep(GONE_PAUSE);
    }
}

/// Makes names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StorageError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(at("syncing the directory", directory))
}

fn segment_path(directory: &Path, index: u64) -> PathBuf {
    directory
        .join(segment::DIRECTORY)
        .join(segment::name(index))
}

/// Opens an existing file for direct reads and writes.
pub(crate) fn open_direct(path: &Path) -> Result<File, StorageError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    match file {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(StorageError::NoDirect(path.to_owned()))
        }
        other => other.map_err(at("opening a segment", path)),
    }
}

/// Bytes available to this process on the filesystem of `path`.
pub(crate) fn available_bytes(path: &Path) -> Result<u64, StorageError> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| at("looking for room", path)(io::ErrorKind::InvalidInput.into()))?;
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a C string and room for the answer are passed.
    if unsafe { libc::statvfs(name.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(at("looking for room", path)(io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded, so it filled the structure.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_bavail * facts.f_frsize)
}

/// Refuses filesystems that live in memory. Newer kernels accept O_DIRECT on them and keep nothing all the same.
pub(crate) fn check_filesystem(directory: &Path) -> Result<(), StorageError> {
    use std::os::unix::ffi::OsStrExt;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    let name = std::ffi::CString::new(directory.as_os_str().as_bytes()).map_err(|_| {
        at("looking at the filesystem", directory)(io::ErrorKind::InvalidInput.into())
    })?;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a C string and room for the answer are passed.
    if unsafe { libc::statfs(name.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(at("looking at the filesystem", directory)(
            io::Error::last_os_error(),
        ));
    }
    // SAFETY: the call succeeded, so it filled the structure.
    let kind = unsafe { facts.assume_init() }.f_type;
    if kind == libc::TMPFS_MAGIC || kind == RAMFS_MAGIC {
        return Err(StorageError::NoDirect(directory.to_owned()));
    }
    Ok(())
}

/// Refuses where `bytes` more don't fit, before anything is written.
pub(crate) fn check_space(directory: &Path, bytes: u64) -> Result<(), StorageError> {
    let available = available_bytes(directory)?;
    if available < bytes {
        let path = directory.to_owned();
        return Err(StorageError::NoSpace {
            path,
            needed: bytes,
            available,
        });
    }
    Ok(())
}

/// Writes a good block over a damaged one, durably.
pub(crate) fn mend_block(
    directory: &Path,
    geometry: &Geometry,
    position: Position,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let path = segment_path(directory, geometry.segment_of(position));
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(&path)
        .and_then(|file| file.write_all_at(bytes, geometry.offset_of(position)))
        .map_err(at("mending a block", &path))
}

/// The open segments of a stream, from the first on. Segments are added by one thread and used by all without a lock.
#[derive(Debug, Clone)]
pub(crate) struct Segments {
    geometry: Geometry,
    files: Arc<[OnceLock<File>]>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    /// The journal's lock: as long as anybody may write here.
    lock: Arc<File>,
}

impl Segments {
    pub(crate) fn new(geometry: Geometry, lock: File) -> Self {
        Self {
            geometry,
            lock: Arc::new(lock),
            files: (0..SEGMENTS_MAX).map(|_| OnceLock::new()).collect(),
            count: Arc::default(),
        }
    }

    pub(crate) fn add(&self, file: File, path: &Path) -> Result<(), StorageError> {
        let index = self.count();
        let Some(place) = self.files.get(index) else {
            let what = format!("a stream has at most {SEGMENTS_MAX} segments; use larger ones");
            return Err(StorageError::Mismatch(path.to_owned(), what));
        };
        assert!(place.set(file).is_ok(), "one thread adds segments");
        self.count
            .store(index + 1, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// How positions map to them.
    pub(crate) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The file that has the journal's lock.
    pub(crate) fn lock(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(std::sync::atomic::Ordering::Acquire)
    }

    /// How many more a stream can have.
    pub(crate) fn places_left(&self) -> u64 {
        (SEGMENTS_MAX - self.count()) as u64
    }

    /// Bytes of each.
    pub(crate) const fn segment_size(&self) -> u64 {
        self.geometry.segment_size()
    }

    /// Reads from `position` on into `pages`, at most `length` bytes and as many as these have, and not beyond the segment's end.
    pub(crate) fn read(
        &self,
        position: Position,
        pages: &mut Pages,
        length: usize,
    ) -> io::Result<usize> {
        let index = self.geometry.segment_of(position) as usize;
        let file = self
            .files
            .get(index)
            .and_then(OnceLock::get)
            .ok_or(io::ErrorKind::NotFound)?;
        let length = length.min(self.geometry.left_in_segment(position) as usize);
        let length = length.min(pages.length());
        let buffer = &mut pages.all_mut()[..length];
        file.read_at(buffer, self.geometry.offset_of(position))
    }

    /// Where the last one ends.
    pub(crate) fn end(&self) -> Position {
        self.geometry.start_of(self.count() as u64)
    }

    /// Number of the segment `position` lies in.
    pub(crate) fn index_of(&self, position: Position) -> u64 {
        self.geometry.segment_of(position)
    }

    /// Drops what the page cache holds of the segment `position` lies in and of the next one, as far as it is clean.
    ///
    /// A direct write where a page is cached has to take that out first, for which the kernel may have to wait: io_uring then has
    /// another thread do the write, which makes it later by that thread's waking. Whoever reads the files in the ordinary way leaves
    /// such pages: recovery, which looks through some 20 MiB behind the log's end, a backup, `relay verify`.
    pub(crate) fn forget_cached(&self, position: Position) {
        let index = self.index_of(position);
        for file in (index..index + 2).filter_map(|index| self.descriptor(index)) {
            // SAFETY: a descriptor and numbers are passed.
            let error = unsafe { libc::posix_fadvise(file, 0, 0, libc::POSIX_FADV_DONTNEED) };
            // It is advice: a file that is open can't refuse it, and writes without it are only slower.
            debug_assert_eq!(error, 0, "a segment's file takes advice");
        }
    }

    /// The descriptor of segment `index`; `None` while it is not prepared.
    pub(crate) fn descriptor(&self, index: u64) -> Option<RawFd> {
        let file = self.files.get(usize::try_from(index).ok()?)?.get()?;
        Some(file.as_raw_fd())
    }

    /// The descriptor and the offset in it of `position`; `None` where nothing is prepared.
    pub(crate) fn place(&self, position: Position) -> Option<(RawFd, u64)> {
        let descriptor = self.descriptor(self.index_of(position))?;
        Some((descriptor, self.geometry.offset_of(position)))
    }
}

/// Prepares the next segment step by step, so that the caller sets the pace.
#[derive(Debug)]
pub(crate) struct Preparing {
    file: File,
    path: PathBuf,
    written: u64,
    zeroes: Pages,
}

impl Preparing {
    /// Starts on the segment after the last of `segments`.
    pub(crate) fn start(directory: &Path, segments: &Segments) -> Result<Self, StorageError> {
        let final_path = segment_path(directory, segments.count() as u64);
        let path = final_path.with_extension("preparing");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let file = match file {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(StorageError::NoDirect(directory.to_owned()));
            }
            other => other.map_err(at("making a segment", &path))?,
        };
        // Room first, so that a full disk shows before any time is spent; the zeroes follow.
        let size = segments.geometry.segment_size();
        // SAFETY: a descriptor and two lengths are passed.
        let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size as libc::off_t) };
        if reserved != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
                drop(file);
                let _ = std::fs::remove_file(&path);
                return Err(at("reserving a segment", &path)(error));
            }
        }
        let zeroes = Pages::new(STEP_MAX).map_err(at("getting memory for", &path))?;
        Ok(Self {
            file,
            path,
            written: 0,
            zeroes,
        })
    }

    /// Bytes of the segment that are zeroed already.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// Writes the next `length` zeroes, [`STEP_MAX`] at most and a multiple of 4 KiB; true when the segment is finished and
    /// part of `segments`.
    pub(crate) fn step(
        &mut self,
        directory: &Path,
        segments: &Segments,
        length: usize,
    ) -> Result<bool, StorageError> {
        let size = segments.geometry.segment_size();
        let left = (size - self.written).min(length as u64) as usize;
        if left > 0 {
            // SAFETY: nobody ever writes to these pages.
            let zeroes = unsafe { self.zeroes.slice(0, left) };
            self.file
                .write_all_at(zeroes, self.written)
                .map_err(at("zeroing a segment", &self.path))?;
            self.written += left as u64;
            return Ok(false);
        }
        self.file
            .sync_all()
            .map_err(at("syncing a segment", &self.path))?;
        let final_path = segment_path(directory, segments.count() as u64);
        std::fs::rename(&self.path, &final_path).map_err(at("naming a segment", &final_path))?;
        sync_directory(&directory.join(segment::DIRECTORY))?;
        segments.add(open_direct(&final_path)?, &final_path)?;
        Ok(true)
    }
}
