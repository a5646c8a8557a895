//! A node's own register, where an operator is the arbiter: a file beside its superblock, made as a witness's two pages of a
//! stream are.
//!
//! ```text
//! arbiter's thread --read, swap, floor--> register --one durable write--> file `membership`
//! keeper --a primary's record, before the vote--'
//! ```
//!
//! It is one node's alone, so it decides nothing between nodes: that one of two does not lead is the operator's to see to. What it
//! gives is that a node goes on after a restart with what it knew.
//!
//! Invariants: what is told is on disk; the page last answered for is never written over; after a write that failed nothing
//! more is told.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use relay_core::arbiter::{ArbiterAnswer, Ask};
use relay_core::register::{self, Decision, Register};
use relay_journal::registers::{self, PAGE_LENGTH, Page};
use relay_wire::id::StreamId;
use relay_wire::membership::Membership;
use relay_wire::witness::{Answer, Request};

use crate::storage;

/// Name of the file in a stream's directory.
const FILE_NAME: &str = "membership";
/// Bytes of it: two pages.
const FILE_LENGTH: usize = 2 * PAGE_LENGTH;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct OwnRegister {
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    path: PathBuf,
    stream: StreamId,
    register: Register,
    /// Of the page that holds it; 0 before the first.
    generation: u64,
    /// Which page that is (0 or 1); the next change goes to the other.
    which: usize,
    has_failed: bool,
}

impl OwnRegister {
    /// Opens the register in `directory`, or makes an empty one, and writes anew what it holds: the page cache may hold what the
    /// disk does not.
    pub(crate) fn open(directory: &Path, stream: StreamId) -> io::Result<Self> {
        let path = directory.join(FILE_NAME);
        if !path.exists() {
            make(directory, &path).map_err(|error| at(&path, &error))?;
        }
        let mut bytes = Vec::with_capacity(FILE_LENGTH);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DSYNC)
            .open(&path)
            .map_err(|error| at(&path, &error))?;
        (&file)
            .read_to_end(&mut bytes)
            .map_err(|error| at(&path, &error))?;
        let page = |which: usize| bytes[which * PAGE_LENGTH..].first_chunk::<PAGE_LENGTH>();
        let (Some(a), Some(b)) = (page(0), bytes.get(PAGE_LENGTH..).and_then(|_| page(1))) else {
            let error = "shorter than its two pages: it was cut; restore it, or replace the disk";
            return Err(at(&path, &error));
        };
        let newest = registers::newest(a, b).map_err(|error| at(&path, &error))?;
        // As the witness does with its store: what was read is on the disk before the older page is written over.
        file.write_all_at(&bytes, 0)
            .map_err(|error| at(&path, &error))?;
        let mut held = Held {
            file,
            stream,
            register: Register::default(),
            generation: 0,
            which: 1,
            has_failed: false,
            path,
        };
        if let Some((page, which)) = newest {
            if page.stream != stream {
                let error = format!("it is stream {}'s, not stream {stream}'s", page.stream);
                return Err(at(&held.path, &error));
            }
            held.register = Register::stored(Some(page.registers), page.revision_last);
            held.generation = page.generation;
            held.which = which;
            held.write(held.register).map_err(io::Error::other)?;
        }
        Ok(Self {
            held: Mutex::new(held),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what a node asks of its arbiter.
    pub(crate) fn ask(&self, ask: &Ask) -> ArbiterAnswer {
        let mut held = self.lock();
        if held.has_failed {
            // That was said when it happened.
            return ArbiterAnswer::Unknown;
        }
        match held.decide(&register::request(ask)) {
            Ok(answer) => register::answer(held.stream, &answer),
            Err(error) => {
                tracing::error!(%error, "the membership record can't be kept");
                // A change may or may not be on the disk.
                ArbiterAnswer::Unknown
            }
        }
    }

    /// Makes the first record.
    pub(crate) fn create(&self, record: &Membership) -> Result<Answer, String> {
        let record = register::record_value(record);
        self.lock().decide(&Request::Create { record })
    }

    /// Keeps the record a primary told, durably, whatever was held before.
    pub(crate) fn keep(&self, record: &Membership) -> Result<(), String> {
        let mut held = self.lock();
        let next = held.register.told(register::record_value(record));
        held.write(next)
    }
}

impl Held {
    fn decide(&mut self, request: &Request) -> Result<Answer, String> {
        if self.has_failed {
            return Err(format!("{}: a write failed before", self.path.display()));
        }
        match self.register.decide(request) {
            Decision::Answer(answer) => Ok(answer),
            Decision::Change { next, revision } => {
                self.write(next)?;
                Ok(Answer::Done(revision))
            }
        }
    }

    /// Writes the next generation durably and takes it over; the first one into both pages, so that a lone damaged one is known to
    /// be a creation nobody was told of.
    fn write(&mut self, register: Register) -> Result<(), String> {
        let is_first = self.generation == 0;
        self.write_page(register)?;
        if is_first {
            self.write_page(register)?;
        }
        Ok(())
    }

    fn write_page(&mut self, register: Register) -> Result<(), String> {
        let which = 1 - self.which;
        let page = Page {
            stream: self.stream,
            generation: self.generation + 1,
            revision_last: register.revision_last(),
            registers: *register.registers().expect("only a held record is written"),
        };
        let offset = (which * PAGE_LENGTH) as u64;
        self.file
            .write_all_at(&page.encode(), offset)
            .map_err(|error| {
                self.has_failed = true;
                at(&self.path, &error).to_string()
            })?;
        self.generation = page.generation;
        self.which = which;
        self.register = register;
        Ok(())
    }
}

/// An empty one, there as a whole or not at all.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    let fresh = directory.join("membership.new");
    std::fs::write(&fresh, [0; FILE_LENGTH])?;
    File::open(&fresh)?.sync_all()?;
    std::fs::rename(&fresh, path)?;
    storage::sync_directory(directory).map_err(io::Error::other)
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_core::arbiter::{Registers, Revision};
    use relay_wire::code::Policy;
    use relay_wire::id::{Epoch, NodeId, Position};
    use relay_wire::membership::{Floor, Member, Members};

    fn record(epoch: u64) -> Membership {
        Membership {
            stream: StreamId(7),
            epoch: Epoch(epoch),
            nonce: epoch,
            primary: NodeId(1),
            members: Members::of(&[Member {
                node: NodeId(1),
                incarnation: 9,
                process: 0,
            }]),
            min_copies: 1,
            policy: Policy::Durable,
        }
    }

    fn read(register: &OwnRegister) -> Option<Registers> {
        match register.ask(&Ask::Read) {
            ArbiterAnswer::Read(registers) => registers,
            other => panic!("{other:?}"),
        }
    }

    /// Goal: everything answered for is there after a restart, whichever page a torn write takes away on the way. Method: one change after the
    /// other, each followed by an opening of the file as it is, and of one with the older page destroyed.
    #[test]
    fn what_was_answered_for_is_there_again() {
        let home = tempfile::tempdir().unwrap();
        let open = || OwnRegister::open(home.path(), StreamId(7)).unwrap();
        assert_eq!(read(&open()), None, "made empty");
        let made = open().create(&record(1)).unwrap();
        let Answer::Done(revision) = made else {
            panic!("{made:?}");
        };
        let next = record(2);
        let swap = Ask::Swap {
            base: Revision(revision),
            floor_base: None,
            next,
        };
        let register = open();
        let ArbiterAnswer::Done(revision) = register.ask(&swap) else {
            panic!("refused");
        };
        let floor = Floor {
            epoch: Epoch(2),
            position: Position(4_096),
            checksum: 3,
        };
        let base = revision;
        let ArbiterAnswer::Done(_) = register.ask(&Ask::Floor { base, floor }) else {
            panic!("refused");
        };
        drop(register);
        let held = read(&open()).unwrap();
        assert_eq!((held.membership, held.floor), (next, Some(floor)));
        open().keep(&record(9)).unwrap();
        let path = home.path().join(FILE_NAME);
        let bytes = std::fs::read(&path).unwrap();
        let pages = [&bytes[..PAGE_LENGTH], &bytes[PAGE_LENGTH..]];
        let generation = |page: &[u8]| {
            Page::decode(page.first_chunk().unwrap())
                .unwrap()
                .generation
        };
        let older = usize::from(generation(pages[1]) < generation(pages[0]));
        let mut torn = bytes.clone();
        torn[older * PAGE_LENGTH + 70] ^= 1;
        std::fs::write(&path, torn).unwrap();
        let held = read(&open()).unwrap();
        assert_eq!(held.membership, record(9));
        assert_eq!(held.floor, None, "a floor is of a reign that is over");
        assert!(held.revision > revision);
        assert!(OwnRegister::open(home.path(), StreamId(8)).is_err());
    }
}
