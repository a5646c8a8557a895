//! The file of seals as whoever audits reads it: which keys signed, whether each signature fits, whether each entry follows the
//! one before. What lies in the segments is not looked at here.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use relay_wire::id::{Epoch, Position, StreamId};

use crate::reader::{JournalDir, ReaderError, at_path};
use crate::seal::{
    ChainError, Digest, ENTRY_LENGTH, Entry, EntryError, FILE_NAME, KeyId, PublicKey, Said,
    Statement, is_torn,
};

/// Most bytes of a file of seals that are read: four entries for each segment a stream can have.
const FILE_LENGTH_MAX: u64 = (ENTRY_LENGTH as u64) << 18;
/// Most findings about entries that are kept; more are counted.
const ENTRY_FINDINGS_MAX: usize = 64;

/// A key that was named in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedKey {
    /// The key.
    pub key: PublicKey,
    /// The first segment it seals.
    pub segment: u64,
    /// When it was named, ns UTC by the node's clock.
    pub time_ns: u64,
    /// Who signed for it: the key before, or itself when it is the first.
    pub signer: KeyId,
    /// Whether it is trusted: given by the caller, or signed for by a key that is trusted.
    pub is_trusted: bool,
}

/// The log was cut below what was sealed, and this node said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedCut {
    /// The first segment whose seal became void.
    pub segment: u64,
    /// Where the log was cut.
    pub position: Position,
    /// The epoch this node was in.
    pub epoch: Epoch,
    /// When, ns UTC by the node's clock.
    pub time_ns: u64,
}

/// What is wrong with an entry of the file, beyond what the report of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryFinding {
    /// Its offset in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: EntryProblem,
}

/// See [`EntryFinding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryProblem {
    /// It is damaged.
    Damaged(EntryError),
    /// It does not follow the one before: something was changed, taken away or put in.
    Chain(ChainError),
    /// A key or a cut whose signature does not fit the key it names.
    BadSignature(KeyId),
    /// A key or a cut signed by a key that is not trusted.
    UnknownKey(KeyId),
}

impl core::fmt::Display for EntryFinding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the entry at byte {} of the seals: ", self.offset)?;
        match self.what {
            EntryProblem::Damaged(error) => write!(f, "{error}"),
            EntryProblem::Chain(error) => write!(f, "{error}"),
            EntryProblem::BadSignature(key) => write!(f, "its signature is not that of key {key}"),
            EntryProblem::UnknownKey(key) => {
                write!(f, "key {key}, which signed it, is not trusted")
            }
        }
    }
}

/// What the file of seals says, and what is wrong with it in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealFile {
    /// Whether there is one; a journal written before there were seals has none.
    pub is_present: bool,
    /// Whether the caller named keys to trust. Without them the file's first key is believed: the seals then show that the
    /// segments were not changed by anyone who lacks that key, but not whose key it is.
    pub is_pinned: bool,
    /// Intact entries of every kind.
    pub entries: u64,
    /// The keys, in order.
    pub keys: Vec<NamedKey>,
    /// The cuts, in order.
    pub cuts: Vec<NamedCut>,
    /// Segment and seal hash of the newest seal that stands. The hash stands for the whole sealed log.
    pub last: Option<(u64, Digest)>,
    /// Where what is sealed ends; behind it is the unsealed tail.
    pub sealed_end: Position,
    /// Bytes at the end that are no whole entry: a seal that was being written, to be written again by the next start.
    pub torn_bytes: u64,
    /// What is wrong with entries; at most 64 are kept.
    pub findings: Vec<EntryFinding>,
    /// How many there are.
    pub finding_count: u64,
}

/// Whether a seal's signature is one to rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It fits, by the trusted key that was due.
    Well,
    /// It does not fit the key it names.
    Badly,
    /// The key it names is not trusted.
    ByUnknownKey,
    /// It fits, but by a key that was replaced before.
    ByRetiredKey,
}

/// A seal as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSeal {
    /// What it says.
    pub statement: Statement,
    /// When it was made, ns UTC by the node's clock.
    pub time_ns: u64,
    /// Who signed it.
    pub signer: KeyId,
    /// Whether to rely on that.
    pub signed: Signed,
}

impl JournalDir {
    /// The bytes of the file of seals; nothing where there is none.
    pub(super) fn read_seals(&self) -> Result<Option<Vec<u8>>, ReaderError> {
        let path = self.path.join(FILE_NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(at_path(&path))?,
        };
        let mut bytes = Vec::new();
        let read = file.take(FILE_LENGTH_MAX + 1).read_to_end(&mut bytes);
        read.map_err(at_path(&path))?;
        if bytes.len() as u64 > FILE_LENGTH_MAX {
            let error = io::Error::new(
                ErrorKind::InvalidData,
                "it is longer than the seals of any journal can be",
            );
            return Err(at_path(&path)(error));
        }
        Ok(Some(bytes))
    }
}

/// The file of seals being read.
pub(super) struct Reading {
    stream: StreamId,
    trusted: Vec<PublicKey>,
    /// The key that is due to sign.
    current: Option<KeyId>,
    seals: Vec<FoundSeal>,
    file: SealFile,
}

impl Reading {
    pub(super) fn new(stream: StreamId, trusted: &[PublicKey]) -> Self {
        Self {
            stream,
            trusted: trusted.to_vec(),
            current: None,
            seals: Vec::new(),
            file: SealFile {
                is_present: false,
                is_pinned: !trusted.is_empty(),
                entries: 0,
                keys: Vec::new(),
                cuts: Vec::new(),
                last: None,
                sealed_end: Position(0),
                torn_bytes: 0,
                findings: Vec::new(),
                finding_count: 0,
            },
        }
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        for (number, piece) in bytes.chunks(ENTRY_LENGTH).enumerate() {
            let offset = (number * ENTRY_LENGTH) as u64;
            match Entry::decode(piece) {
                Ok(entry) => self.take(offset, &entry),
                Err(error) if is_torn(&bytes[offset as usize..], error) => {
                    self.file.torn_bytes = piece.len() as u64;
                }
                Err(error) => self.find(offset, EntryProblem::Damaged(error)),
            }
        }
    }

    pub(super) fn finish(mut self, is_present: bool) -> (SealFile, Vec<FoundSeal>) {
        let last = self.seals.last().map(|seal| seal.statement);
        self.file.is_present = is_present;
        self.file.last = last.map(|statement| (statement.segment, statement.hash()));
        self.file.sealed_end = last.map_or(Position(0), |statement| statement.end);
        (self.file, self.seals)
    }

    fn find(&mut self, offset: u64, what: EntryProblem) {
        self.file.finding_count += 1;
        if self.file.findings.len() < ENTRY_FINDINGS_MAX {
            self.file.findings.push(EntryFinding { offset, what });
        }
    }

    fn take(&mut self, offset: u64, entry: &Entry) {
        self.file.entries += 1;
        if entry.stream != self.stream {
            let error = ChainError::Stream(entry.stream);
            return self.find(offset, EntryProblem::Chain(error));
        }
        match entry.said {
            Said::Seal(statement) => self.take_seal(offset, entry, statement),
            Said::Key { key, .. } => self.take_key(offset, entry, key),
            Said::Cut {
                segment,
                position,
                epoch,
                ..
            } => {
                if !self.is_good(offset, entry, self.signed(entry)) {
                    return;
                }
                let stands = self
                    .seals
                    .iter()
                    .position(|seal| seal.statement.segment >= segment);
                let Some(stands) = stands else {
                    let error = ChainError::NothingToCut(segment);
                    return self.find(offset, EntryProblem::Chain(error));
                };
                self.seals.truncate(stands);
                self.check_previous(offset, entry);
                self.file.cuts.push(NamedCut {
                    segment,
                    position,
                    epoch,
                    time_ns: entry.time_ns,
                });
            }
        }
    }

    fn take_seal(&mut self, offset: u64, entry: &Entry, statement: Statement) {
        let due = self
            .seals
            .last()
            .map_or(0, |seal| seal.statement.segment + 1);
        let found = statement.segment;
        if found != due {
            let error = ChainError::Segment { found, due };
            self.find(offset, EntryProblem::Chain(error));
        }
        if found >= due {
            let signed = self.signed(entry);
            self.seals.push(FoundSeal {
                statement,
                time_ns: entry.time_ns,
                signer: entry.signer,
                signed,
            });
        }
    }

    fn take_key(&mut self, offset: u64, entry: &Entry, key: PublicKey) {
        self.check_previous(offset, entry);
        let is_first = self.file.keys.is_empty();
        if is_first && !self.file.is_pinned {
            self.trusted.push(key);
        }
        // The first signs for itself, each later one is signed for by the one before.
        let signed = if is_first {
            self.signed_by(entry, key.id())
        } else {
            self.signed(entry)
        };
        let is_trusted = self.is_good(offset, entry, signed);
        if is_trusted && !self.trusted.contains(&key) {
            self.trusted.push(key);
        }
        self.current = Some(key.id());
        self.file.keys.push(NamedKey {
            key,
            segment: entry.said.segment(),
            time_ns: entry.time_ns,
            signer: entry.signer,
            is_trusted: self.trusted.contains(&key),
        });
    }

    /// A key or a cut names the seal it stands behind.
    fn check_previous(&mut self, offset: u64, entry: &Entry) {
        let last = self.seals.last().map(|seal| seal.statement.hash());
        let (found, due) = (entry.said.previous(), last.unwrap_or_default());
        if found != due {
            let error = ChainError::Previous { found, due };
            self.find(offset, EntryProblem::Chain(error));
        }
    }

    /// Whether a key's or cut's signature is one to rely on; where it is not, that is a finding.
    fn is_good(&mut self, offset: u64, entry: &Entry, signed: Signed) -> bool {
        match signed {
            Signed::Well => return true,
            Signed::Badly => self.find(offset, EntryProblem::BadSignature(entry.signer)),
            Signed::ByUnknownKey | Signed::ByRetiredKey => {
                self.find(offset, EntryProblem::UnknownKey(entry.signer));
            }
        }
        false
    }

    fn signed(&self, entry: &Entry) -> Signed {
        self.signed_by(entry, self.current.unwrap_or(entry.signer))
    }

    /// How an entry is signed where `due` is the key to sign.
    fn signed_by(&self, entry: &Entry, due: KeyId) -> Signed {
        let mut named = self.trusted.iter().filter(|key| key.id() == entry.signer);
        let Some(first) = named.next() else {
            return Signed::ByUnknownKey;
        };
        let is_signed = std::iter::once(first)
            .chain(named)
            .any(|key| entry.is_signed_by(key));
        match is_signed {
            false => Signed::Badly,
            true if entry.signer == due => Signed::Well,
            true => Signed::ByRetiredKey,
        }
    }
}
