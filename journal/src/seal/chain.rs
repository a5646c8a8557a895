//! The rules by which one entry follows another, and a file of them read for going on with it.

use core::fmt;

use relay_wire::id::{Position, StreamId};

use super::{Digest, ENTRY_LENGTH, Entry, EntryError, PublicKey, Said, Statement};

/// Why an entry does not follow the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainError {
    /// It is another stream's.
    Stream(StreamId),
    /// Its segment is not the one that is due.
    Segment {
        /// The one it names.
        found: u64,
        /// The one that is due.
        due: u64,
    },
    /// It names another hash as that of the seal before.
    Previous {
        /// The one it names.
        found: Digest,
        /// What the seal before hashes to.
        due: Digest,
    },
    /// A seal stands before any key.
    NoKey,
    /// A cut of a segment that was not sealed.
    NothingToCut(u64),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => write!(f, "it belongs to stream {stream}"),
            Self::Segment { found, due } => {
                write!(f, "it is about segment {found} where segment {due} is due")
            }
            Self::Previous { found, due } => {
                write!(f, "it follows a seal {found}, the one before it is {due}")
            }
            Self::NoKey => write!(f, "no key was named before it"),
            Self::NothingToCut(segment) => {
                write!(
                    f,
                    "it takes back the seal of segment {segment}, which has none"
                )
            }
        }
    }
}

impl core::error::Error for ChainError {}

/// The seals of a journal as far as they go: the fold of the entries, without a look at signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    stream: StreamId,
    key: Option<PublicKey>,
    seals: Vec<Statement>,
}

impl Chain {
    /// The chain of a journal without a seal.
    #[must_use]
    pub const fn empty(stream: StreamId) -> Self {
        Self {
            stream,
            key: None,
            seals: Vec::new(),
        }
    }

    /// Takes the next entry in; where it does not follow, nothing changes.
    ///
    /// # Errors
    /// [`ChainError`] says why it does not follow.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), ChainError> {
        if entry.stream != self.stream {
            return Err(ChainError::Stream(entry.stream));
        }
        let found = entry.said.segment();
        if let Said::Cut { segment, .. } = entry.said {
            if segment >= self.next_segment() {
                return Err(ChainError::NothingToCut(segment));
            }
        } else if found != self.next_segment() {
            let due = self.next_segment();
            return Err(ChainError::Segment { found, due });
        }
        let (found, due) = (entry.said.previous(), self.hash_before(found));
        if found != due {
            return Err(ChainError::Previous { found, due });
        }
        match entry.said {
            Said::Key { key, .. } => self.key = Some(key),
            _ if self.key.is_none() => return Err(ChainError::NoKey),
            Said::Seal(statement) => self.seals.push(statement),
            Said::Cut { segment, .. } => self.seals.truncate(segment as usize),
        }
        Ok(())
    }

    /// The segment that is to be sealed next.
    #[must_use]
    pub fn next_segment(&self) -> u64 {
        self.seals.len() as u64
    }

    /// Where the sealed part of the log ends.
    #[must_use]
    pub fn end(&self) -> Position {
        self.last().map_or(Position(0), |seal| seal.end)
    }

    /// The newest seal.
    #[must_use]
    pub fn last(&self) -> Option<&Statement> {
        self.seals.last()
    }

    /// The seals that stand, by segment.
    #[must_use]
    pub fn seals(&self) -> &[Statement] {
        &self.seals
    }

    /// The key that signs at the end.
    #[must_use]
    pub const fn key(&self) -> Option<&PublicKey> {
        self.key.as_ref()
    }

    /// What an entry about `segment` names as the seal hash before it.
    #[must_use]
    pub fn hash_before(&self, segment: u64) -> Digest {
        let before = (segment as usize).checked_sub(1);
        let before = before.and_then(|before| self.seals.get(before));
        before.map(Statement::hash).unwrap_or_default()
    }
}

/// Why a file of seals can't be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileError {
    /// Offset of the entry in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub what: FileErrorKind,
}

/// See [`FileError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileErrorKind {
    /// It is damaged, and others follow it.
    Entry(EntryError),
    /// It does not follow the one before.
    Chain(ChainError),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the entry at byte {} of the seals: ", self.offset)?;
        match self.what {
            FileErrorKind::Entry(error) => write!(f, "{error}"),
            FileErrorKind::Chain(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for FileError {}

/// Reads a file of seals for going on with it: the chain, and how many bytes of the file are whole entries. What lies behind
/// them is an entry that was being written when the process died, and is to be written over.
///
/// # Errors
/// [`FileError`] where an entry in the middle is damaged or one does not follow the one before: that is no crash's doing.
pub fn read_file(stream: StreamId, bytes: &[u8]) -> Result<(Chain, usize), FileError> {
    let mut chain = Chain::empty(stream);
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let failed = |what| FileError {
            offset: offset as u64,
            what,
        };
        let entry = match Entry::decode(rest) {
            Ok(entry) => entry,
            Err(error) if is_torn(rest, error) => break,
            Err(error) => return Err(failed(FileErrorKind::Entry(error))),
        };
        let applied = chain.apply(&entry);
        applied.map_err(|error| failed(FileErrorKind::Chain(error)))?;
        offset += ENTRY_LENGTH;
    }
    Ok((chain, offset))
}

/// Whether what is left of the file may be an entry of which only a part was written.
pub(crate) const fn is_torn(rest: &[u8], error: EntryError) -> bool {
    rest.len() <= ENTRY_LENGTH
        && matches!(
            error,
            EntryError::Short | EntryError::Magic | EntryError::Checksum
        )
}
