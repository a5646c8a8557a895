//! The witness's file as the process owns it: lock, places of the streams, durable changes.
//!
//! A change is one write of one page with O_DSYNC into a file whose space was written before, so that it is one
//! write of the device and no metadata. Only when it has returned does the state in memory change and the answer go out.
//!
//! Invariants: what is told was written by this process; the page last answered for is never written over; after a write
//! that failed nothing more is told or written, since nobody can know what the disk holds.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use relay_core::register::{Decision, Register};
use relay_journal::registers::{
    self, FILE_LENGTH, FILE_NAME, PAGE_LENGTH, Page, RegistersError, STREAMS_MAX,
};
use relay_wire::id::StreamId;
use relay_wire::witness::{Answer, Request};

use crate::storage::{self, StorageError};

/// What went wrong with the witness's disk, where, and what to do.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// A system call failed.
    Io {
        stage: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Another process has the directory.
    Locked(PathBuf),
    /// There is a store already.
    Exists(PathBuf),
    /// There is none.
    NotFormatted(PathBuf),
    /// The file is shorter than a store.
    Short(PathBuf),
    /// A page is not one to go on with.
    Page {
        path: PathBuf,
        offset: u64,
        error: RegistersError,
    },
    /// The disk is none to keep anything on.
    Disk(StorageError),
    /// A write failed before.
    Failed,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                stage,
                path,
                source,
            } => write!(f, "{stage} failed on {}: {source}", path.display()),
            Self::Locked(path) => write!(
                f,
                "{}: another witness has this directory open; stop it first, or give each its own",
                path.display()
            ),
            Self::Exists(path) => write!(
                f,
                "{}: there is a witness's store already; `relayd witness` goes on with it. To begin \
                 anew, which makes the groups it serves halt, move the directory away first",
                path.display()
            ),
            Self::NotFormatted(path) => write!(
                f,
                "{}: no witness's store here; make one with `relayd format --config FILE`",
                path.display()
            ),
            Self::Short(path) => write!(
                f,
                "{}: shorter than the {FILE_LENGTH} bytes of a witness's store: it was cut, or is \
                 something else; check the path, or restore it",
                path.display()
            ),
            Self::Page {
                path,
                offset,
                error,
            } => write!(f, "{} at byte {offset}: {error}", path.display()),
            Self::Disk(error) => error.fmt(f),
            Self::Failed => write!(f, "the witness's disk failed before"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        Self::Disk(error)
    }
}

fn at(stage: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        stage,
        path,
        source,
    }
}

/// A stream's place in the file.
#[derive(Debug)]
struct Place {
    stream: StreamId,
    register: Register,
    generation: u64,
    /// The page (0 or 1) that holds it; the next change goes to the other.
    which: usize,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Store {
    file: File,
    path: PathBuf,
    /// In the order of the file; `None` for a free place.
    places: Vec<Option<Place>>,
    changes: u64,
    has_failed: bool,
    /// Random, so that revisions given to what an older copy of the file forgot are not given again.
    skip: u32,
    _lock: File,
}

impl Store {
    /// Makes an empty store in `directory`.
    pub(crate) fn create(directory: &Path, created_ns: u64) -> Result<(), StoreError> {
        std::fs::create_dir_all(directory).map_err(at("making the directory", directory))?;
        storage::check_filesystem(directory)?;
        let _lock = lock(directory)?;
        let path = directory.join(FILE_NAME);
        if path.exists() {
            return Err(StoreError::Exists(directory.to_owned()));
        }
        // Written whole under another name, so that a store is there as a whole or not at all.
        let fresh = directory.join("registers.new");
        let mut bytes = vec![0; FILE_LENGTH];
        for head in bytes.chunks_exact_mut(PAGE_LENGTH).take(2) {
            head.copy_from_slice(&registers::encode_head(created_ns));
        }
        File::create(&fresh)
            .and_then(|file| {
                file.write_all_at(&bytes, 0)?;
                file.sync_all()
            })
            .map_err(at("writing the store", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(at("naming the store", &path))?;
        storage::sync_directory(directory)?;
        Ok(())
    }

    /// Opens and locks the store in `directory` and writes every stream's state anew; `skip` is a random number.
    pub(crate) fn open(directory: &Path, skip: u32) -> Result<Self, StoreError> {
        if !directory.join(FILE_NAME).exists() {
            return Err(StoreError::NotFormatted(directory.to_owned()));
        }
        let lock = lock(directory)?;
        let (path, bytes) = read(directory)?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DSYNC)
            .open(&path)
            .map_err(at("opening the store", &path))?;
        let places = places_in(&path, &bytes)?;
        // What was read may be in the page cache alone: a page whose write failed is clean there. The next write goes over the
        // older page, so the newer one has to be on the disk before; written over itself it can't be torn where it is there.
        file.write_all_at(&bytes, 0)
            .map_err(at("writing the store back", &path))?;
        let mut store = Self {
            file,
            path,
            places,
            changes: 0,
            has_failed: false,
            skip,
            _lock: lock,
        };
        store.write_anew()?;
        Ok(store)
    }

    /// The page cache may hold what the disk does not: a write cut short by a kill, or one that failed and was then taken
    /// for clean. Before anyone is told of a state it is written by this process.
    fn write_anew(&mut self) -> Result<(), StoreError> {
        for place in 0..self.places.len() {
            let Some(held) = &self.places[place] else {
                continue;
            };
            let (stream, register) = (held.stream, held.register.skipping(self.skip));
            self.write(place, stream, register)?;
        }
        self.changes = 0;
        Ok(())
    }

    /// Decides about a request for `stream`. When this returns, what the answer says is durable.
    ///
    /// # Errors
    /// After a write that failed, this time or before: it may or may not have reached the disk.
    pub(crate) fn decide(
        &mut self,
        stream: StreamId,
        request: &Request,
    ) -> Result<Answer, StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        let known = self
            .places
            .iter()
            .position(|place| place.as_ref().is_some_and(|held| held.stream == stream));
        let held = known.and_then(|place| self.places[place].as_ref());
        let register = match held {
            Some(held) => held.register,
            None => Register::default().skipping(self.skip),
        };
        let (next, revision) = match register.decide(request) {
            Decision::Answer(answer) => return Ok(answer),
            Decision::Change { next, revision } => (next, revision),
        };
        match known {
            Some(place) => self.write(place, stream, next)?,
            None => {
                let Some(place) = self.places.iter().position(Option::is_none) else {
                    return Ok(Answer::NoRoom);
                };
                // Both pages, so that a lone damaged one is known to be a creation nobody was told of.
                self.write(place, stream, next)?;
                self.write(place, stream, next)?;
                self.changes -= 1;
            }
        }
        Ok(Answer::Done(revision))
    }

    /// Writes a stream's next generation durably and takes it over.
    fn write(
        &mut self,
        place: usize,
        stream: StreamId,
        register: Register,
    ) -> Result<(), StoreError> {
        let (generation, which) = match &self.places[place] {
            Some(held) => (held.generation + 1, 1 - held.which),
            None => (1, 0),
        };
        let page = Page {
            stream,
            generation,
            revision_last: register.revision_last(),
            registers: *register.registers().expect("only a held record is written"),
        };
        self.file
            .write_all_at(&page.encode(), registers::offset_of(place, which))
            .map_err(|error| {
                self.has_failed = true;
                at("writing the store", &self.path)(error)
            })?;
        self.changes += 1;
        self.places[place] = Some(Place {
            stream,
            register,
            generation,
            which,
        });
        Ok(())
    }

    /// How many streams it keeps.
    pub(crate) fn streams(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// Changes answered for since it was opened.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }
}

/// Says what a store holds, for `relayd check`.
pub(crate) fn describe(directory: &Path) -> Result<String, StoreError> {
    let _lock = lock(directory)?;
    let (path, bytes) = read(directory)?;
    let count = places_in(&path, &bytes)?.iter().flatten().count();
    Ok(format!(
        "{}: a witness's store with {count} of {STREAMS_MAX} streams",
        directory.display()
    ))
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let file = File::open(directory).map_err(at("opening the directory", directory))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(at("locking", directory)(error)),
    }
}

fn read(directory: &Path) -> Result<(PathBuf, Vec<u8>), StoreError> {
    let path = directory.join(FILE_NAME);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NotFormatted(directory.to_owned()));
        }
        other => other.map_err(at("reading the store", &path))?,
    };
    if bytes.len() < FILE_LENGTH {
        return Err(StoreError::Short(path));
    }
    Ok((path, bytes))
}

fn page(bytes: &[u8], offset: u64) -> &[u8; PAGE_LENGTH] {
    bytes[offset as usize..]
        .first_chunk()
        .expect("the length was checked")
}

fn places_in(path: &Path, bytes: &[u8]) -> Result<Vec<Option<Place>>, StoreError> {
    let refuse = |offset, error| StoreError::Page {
        path: path.to_owned(),
        offset,
        error,
    };
    registers::decode_heads(page(bytes, 0), page(bytes, PAGE_LENGTH as u64))
        .map_err(|error| refuse(0, error))?;
    let mut places: Vec<Option<Place>> = Vec::with_capacity(STREAMS_MAX);
    for place in 0..STREAMS_MAX {
        let offset = registers::offset_of(place, 0);
        let (a, b) = (
            page(bytes, offset),
            page(bytes, registers::offset_of(place, 1)),
        );
        let held = registers::newest(a, b).map_err(|error| refuse(offset, error))?;
        let Some((page, which)) = held else {
            places.push(None);
            continue;
        };
        if places.iter().flatten().any(|p| p.stream == page.stream) {
            let error = RegistersError::Inconsistent("stream, which has two places,");
            return Err(refuse(offset, error));
        }
        places.push(Some(Place {
            stream: page.stream,
            register: Register::stored(Some(page.registers), page.revision_last),
            generation: page.generation,
            which,
        }));
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
