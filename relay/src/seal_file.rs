//! The file of seals as the process goes on with it: opened where it stands, one signed entry appended after the other.
//!
//! Entries are appended and synced one at a time, so a crash leaves at most one that is not whole, at the end; the next one is
//! written over it. Nothing that was ever whole is written over or cut off: where the log was cut below what was sealed, that is
//! said by an entry of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use relay_journal::scan::Link;
use relay_journal::seal::{
    self, Digest, ENTRY_LENGTH, Entry, PublicKey, Said, SigningKey, Statement,
};
use relay_journal::segment::Geometry;
use relay_journal::tables::Tables;
use relay_wire::id::{Epoch, Position, StreamId};

use crate::seal_key;
use crate::storage::{StorageError, sync_directory};

/// Longest file that is read: four entries for each segment a stream can have.
const FILE_LENGTH_MAX: u64 = (ENTRY_LENGTH as u64) << 18;

/// What the log is when its seals are opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogFacts {
    pub(crate) stream: StreamId,
    pub(crate) geometry: Geometry,
    /// Where it ends: seals of what lies beyond were made before it was cut.
    pub(crate) tail: Position,
    /// Epoch of its last block.
    pub(crate) epoch: Epoch,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct SealFile {
    path: PathBuf,
    file: File,
    /// Where the next entry goes.
    length: u64,
    key_file: PathBuf,
    key: SigningKey,
    stream: StreamId,
    next_segment: u64,
    end: Position,
    /// Seal hash of the newest seal.
    previous: Digest,
    /// How the block behind it must go on.
    link: Link,
}

impl SealFile {
    /// Opens the seals in `directory`, which are signed with the key in `key_file`; both are made where there are none yet.
    pub(crate) fn open(
        directory: &Path,
        key_file: &Path,
        log: &LogFacts,
        time_ns: u64,
    ) -> Result<Self, StorageError> {
        let path = directory.join(seal::FILE_NAME);
        let opening = "opening the seals";
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(opening, &path))?;
        let mut bytes = Vec::new();
        let read = (&file).take(FILE_LENGTH_MAX + 1).read_to_end(&mut bytes);
        read.map_err(at("reading the seals", &path))?;
        if bytes.len() as u64 > FILE_LENGTH_MAX {
            return Err(refuse(
                &path,
                "they are longer than those of any journal can be",
            ));
        }
        let (chain, whole) = seal::read_file(log.stream, &bytes).map_err(|error| {
            refuse(
                &path,
                &format!(
                    "{error}. Keep the file for whoever audits, and move it away: everything is then sealed anew, and \
                     the same log gets the same seal hashes"
                ),
            )
        })?;
        let key = the_key(key_file, chain.key())?;
        let empty = Link::after_tables(&Tables::empty(log.stream));
        let mut seals = Self {
            length: whole as u64,
            key_file: key_file.to_owned(),
            key,
            stream: log.stream,
            next_segment: chain.next_segment(),
            end: chain.end(),
            previous: chain.hash_before(chain.next_segment()),
            link: chain.last().map_or(empty, Statement::link),
            path,
            file,
        };
        if whole == 0 {
            // The name must not be lost with the power either.
            sync_directory(directory)?;
            seals.name_key(time_ns)?;
        }
        if seals.end > log.tail {
            let segment = log.geometry.segment_of(log.tail);
            let standing = &chain.seals()[..segment as usize];
            seals.take_back(standing, segment, log, time_ns)?;
        }
        Ok(seals)
    }

    /// Appends what is said, signed, and syncs it.
    fn append(&mut self, said: Said, time_ns: u64) -> Result<(), StorageError> {
        let entry = Entry::sign(said, self.stream, time_ns, &self.key);
        self.file
            .write_all_at(&entry.encode(), self.length)
            .and_then(|()| self.file.sync_data())
            .map_err(at("writing a seal", &self.path))?;
        self.length += ENTRY_LENGTH as u64;
        Ok(())
    }

    /// The first entry: the key, which signs for itself.
    fn name_key(&mut self, time_ns: u64) -> Result<(), StorageError> {
        let key = self.key.public();
        let said = Said::Key {
            segment: self.next_segment,
            previous: self.previous,
            key,
        };
        self.append(said, time_ns)
    }

    /// The log was cut below what was sealed: only the seals `standing` before `segment` still count.
    fn take_back(
        &mut self,
        standing: &[Statement],
        segment: u64,
        log: &LogFacts,
        time_ns: u64,
    ) -> Result<(), StorageError> {
        let last = standing.last();
        let previous = last.map(Statement::hash).unwrap_or_default();
        let said = Said::Cut {
            segment,
            position: log.tail,
            epoch: log.epoch,
            previous,
        };
        self.append(said, time_ns)?;
        tracing::error!(
            position = %log.tail,
            sealed = %self.end,
            segment,
            "the log ends before what was sealed of it: it was cut. The seals behind it were taken back, in writing; keep the \
             set-aside file for whoever audits"
        );
        self.next_segment = segment;
        self.end = last.map_or(Position(0), |seal| seal.end);
        self.previous = previous;
        let empty = Link::after_tables(&Tables::empty(log.stream));
        self.link = last.map_or(empty, Statement::link);
        Ok(())
    }

    /// Appends the seal of the next segment.
    pub(crate) fn seal(&mut self, statement: Statement, time_ns: u64) -> Result<(), StorageError> {
        assert_eq!(
            statement.segment, self.next_segment,
            "segments are sealed in order"
        );
        assert_eq!(statement.previous, self.previous, "seals are chained");
        self.append(Said::Seal(statement), time_ns)?;
        self.next_segment += 1;
        self.end = statement.end;
        self.previous = statement.hash();
        self.link = statement.link();
        Ok(())
    }

    /// Where a successor of the key lies beside it: the old key vouches for it, and it takes the old one's place. The key that
    /// was replaced, if one was.
    pub(crate) fn rotate(&mut self, time_ns: u64) -> Result<Option<PublicKey>, StorageError> {
        let next_path = seal_key::next_path(&self.key_file);
        let Some(next) = seal_key::load(&next_path)? else {
            return Ok(None);
        };
        let before = self.key.public();
        if next.public() != before {
            let said = Said::Key {
                segment: self.next_segment,
                previous: self.previous,
                key: next.public(),
            };
            self.append(said, time_ns)?;
            self.key = next;
        }
        seal_key::take_next(&self.key_file)?;
        Ok(Some(before))
    }

    /// The key that signs.
    pub(crate) fn key(&self) -> PublicKey {
        self.key.public()
    }

    /// The segment that is to be sealed next.
    pub(crate) const fn next_segment(&self) -> u64 {
        self.next_segment
    }

    /// Where what is sealed ends.
    pub(crate) const fn end(&self) -> Position {
        self.end
    }

    /// What the next seal names as the one before.
    pub(crate) const fn previous(&self) -> Digest {
        self.previous
    }

    /// What the next segment's first block must be.
    pub(crate) const fn link(&self) -> Link {
        self.link
    }
}

/// The key to sign with: the one the seals name last, if they name any.
fn the_key(key_file: &Path, named: Option<&PublicKey>) -> Result<SigningKey, StorageError> {
    let key = seal_key::load(key_file)?;
    let Some(named) = named else {
        return match key {
            Some(key) => Ok(key),
            None => {
                let key = seal_key::make(key_file)?;
                tracing::info!(
                    key = %key.public(),
                    file = %key_file.display(),
                    "made the key that signs seals; give the public key to whoever verifies the journal"
                );
                Ok(key)
            }
        };
    };
    match key {
        Some(key) if key.public() == *named => return Ok(key),
        _ => {}
    }
    // A crash may have come between the entry that names a successor and its taking the old key's place.
    let next_path = seal_key::next_path(key_file);
    if let Some(next) = seal_key::load(&next_path)?
        && next.public() == *named
    {
        seal_key::take_next(key_file)?;
        return Ok(next);
    }
    Err(refuse(
        key_file,
        &format!(
            "this is not the key {named} that the seals name last: put that one back. A key is replaced with \
             `relayd rotate-key`, so that the old one can vouch for the new"
        ),
    ))
}

fn refuse(path: &Path, what: &str) -> StorageError {
    StorageError::Mismatch(path.to_owned(), what.to_owned())
}

fn at(stage: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io {
        stage,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use relay_journal::seal::{Chain, read_file};
    use relay_wire::id::Seq;

    use super::*;

    const SEGMENT: u64 = 1 << 20;
    const STREAM: StreamId = StreamId(3);

    fn facts(tail: u64) -> LogFacts {
        LogFacts {
            stream: STREAM,
            geometry: Geometry::new(SEGMENT, 4096).expect("sizes in range"),
            tail: Position(tail),
            epoch: Epoch(2),
        }
    }

    fn open(home: &Path, tail: u64) -> Result<SealFile, StorageError> {
        SealFile::open(home, &home.join("seal-key"), &facts(tail), 7)
    }

    fn seal_next(seals: &mut SealFile) {
        let segment = seals.next_segment();
        let statement = Statement {
            stream: STREAM,
            segment,
            start: Position(segment * SEGMENT),
            end: Position((segment + 1) * SEGMENT),
            first_seq: seals.link().first_seq,
            last_seq: Seq(seals.link().first_seq.get() + 9),
            record_count: 10,
            next_block_number: seals.link().number + 5,
            epoch: Epoch(1),
            log_checksum: segment as u32,
            previous: seals.previous(),
            root: Digest([segment as u8; 32]),
        };
        seals.seal(statement, 8).expect("it is written");
    }

    fn chain(home: &Path) -> Chain {
        let bytes = std::fs::read(home.join(seal::FILE_NAME)).expect("it is there");
        let (chain, whole) = read_file(STREAM, &bytes).expect("it is a chain");
        assert_eq!(whole, bytes.len());
        chain
    }

    #[test]
    fn it_goes_on_where_it_stands() {
        let home = tempfile::tempdir().expect("a directory");
        let mut seals = open(home.path(), 9 * SEGMENT).expect("it is made");
        seal_next(&mut seals);
        seal_next(&mut seals);
        let mut again = open(home.path(), 9 * SEGMENT).expect("it is opened");
        assert_eq!(
            (again.next_segment(), again.end()),
            (2, Position(2 * SEGMENT))
        );
        assert_eq!(
            (again.previous(), again.link()),
            (seals.previous(), seals.link())
        );
        assert_eq!(again.key(), seals.key());
        seal_next(&mut again);
        assert_eq!(chain(home.path()).next_segment(), 3);
    }

    /// A crash leaves any part of the entry that was being written.
    #[test]
    fn a_torn_entry_is_written_over() {
        let home = tempfile::tempdir().expect("a directory");
        let mut seals = open(home.path(), 9 * SEGMENT).expect("it is made");
        for _ in 0..2 {
            seal_next(&mut seals);
        }
        let path = home.path().join(seal::FILE_NAME);
        let good = std::fs::read(&path).expect("it is there");
        for length in (1..=good.len()).step_by(97) {
            std::fs::write(&path, &good[..length]).expect("it is written");
            let mut again = open(home.path(), 9 * SEGMENT).expect("it is opened");
            let sealed = (length / ENTRY_LENGTH).saturating_sub(1) as u64;
            assert_eq!(again.next_segment(), sealed, "{length}");
            while again.next_segment() < 3 {
                seal_next(&mut again);
            }
            // The same log has the same hashes; the signatures are the same because key and times are.
            assert_eq!(chain(home.path()).next_segment(), 3);
            let now = std::fs::read(&path).expect("it is there");
            assert_eq!(
                now[ENTRY_LENGTH..good.len()],
                good[ENTRY_LENGTH..],
                "{length}"
            );
        }
    }

    #[test]
    fn seals_behind_a_cut_are_taken_back_in_writing() {
        let home = tempfile::tempdir().expect("a directory");
        let mut seals = open(home.path(), 9 * SEGMENT).expect("it is made");
        for _ in 0..3 {
            seal_next(&mut seals);
        }
        let before = chain(home.path());
        // Cut in the middle of segment 1.
        let tail = SEGMENT + 4096;
        let mut again = open(home.path(), tail).expect("it is opened");
        assert_eq!((again.next_segment(), again.end()), (1, Position(SEGMENT)));
        assert_eq!(again.previous(), before.hash_before(1));
        assert_eq!(again.link(), before.seals()[0].link());
        let entries = std::fs::read(home.path().join(seal::FILE_NAME)).expect("it is there");
        assert_eq!(entries.len(), 5 * ENTRY_LENGTH);
        let cut = Entry::decode(&entries[4 * ENTRY_LENGTH..]).expect("it is whole");
        assert_eq!(
            cut.said,
            Said::Cut {
                segment: 1,
                position: Position(tail),
                epoch: Epoch(2),
                previous: before.hash_before(1),
            }
        );
        // Once is enough, and the log may grow again.
        let unchanged = open(home.path(), tail).expect("it is opened");
        assert_eq!(unchanged.next_segment(), 1);
        seal_next(&mut again);
        assert_eq!(chain(home.path()).next_segment(), 2);
        // Nothing is left of it where the log begins anew.
        let none = open(home.path(), 0).expect("it is opened");
        assert_eq!((none.next_segment(), none.end()), (0, Position(0)));
        assert_eq!(none.previous(), Digest::default());
    }

    #[test]
    fn a_key_is_replaced_whatever_the_crash_left() {
        let home = tempfile::tempdir().expect("a directory");
        let key_file = home.path().join("seal-key");
        let mut seals = open(home.path(), 9 * SEGMENT).expect("it is made");
        seal_next(&mut seals);
        let first = seals.key();
        assert_eq!(seals.rotate(9).expect("nothing is wrong"), None);
        let next = seal_key::make(&seal_key::next_path(&key_file)).expect("it is made");
        let old = std::fs::read(&key_file).expect("it is there");
        assert_eq!(seals.rotate(9).expect("it is replaced"), Some(first));
        assert_eq!(seals.key(), next.public());
        // The crash came before the old key was replaced.
        std::fs::rename(&key_file, seal_key::next_path(&key_file)).expect("it is there");
        std::fs::write(&key_file, &old).expect("it is written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key_file, mode).expect("it is ours");
        let mut again = open(home.path(), 9 * SEGMENT).expect("it is opened");
        assert_eq!(again.key(), next.public());
        assert!(!seal_key::next_path(&key_file).exists());
        seal_next(&mut again);
        assert_eq!(chain(home.path()).key(), Some(&next.public()));
        // A key that nobody vouches for is refused.
        std::fs::write(&key_file, &old).expect("it is written");
        let error = open(home.path(), 9 * SEGMENT)
            .expect_err("it is another")
            .to_string();
        assert!(error.contains("rotate-key"), "{error}");
    }
}
