//! The seals of a journal checked against its segments, by whoever audits.
//!
//! [`SealCheck`] first reads the file of seals: which keys signed, whether each signature fits, whether each entry follows the
//! one before ([`SealFile`]). Then it goes through the segments, sealed and unsealed, one after the other and a few megabytes a
//! step: each is read once, every block of it checked and handed to the caller, its bytes hashed and held against its seal
//! ([`SegmentReport`]). Segments are read ahead, past the page cache ([`crate::read_ahead`]), and hashed where the read put them.
//! Memory is bounded: 32 MiB, and about 250 bytes for each seal.
//!
//! What is proven: a segment whose report has no finding is, byte for byte, what the holder of the key sealed, and so is every
//! sealed segment before it. What is not: that nobody had the key who should not; and seals taken from the *end* of the file,
//! with the log they were about, are not missed: compare [`SealFile::last`] with one noted earlier, or with another node's,
//! whose seal hashes are the same.

mod file;

use std::io::ErrorKind;
use std::path::PathBuf;

use relay_wire::id::{Position, StreamId};

use self::file::Reading;
pub use self::file::{EntryFinding, EntryProblem, FoundSeal, NamedCut, NamedKey, SealFile, Signed};
use super::{JournalDir, ReaderError, at_path};
use crate::block::{BlockHeader, SPAN_MAX};
use crate::read_ahead::{CHUNK_LENGTH, ReadAhead};
use crate::scan::{Link, SourceError, Window};
use crate::seal::{Digest, KeyId, PublicKey, SegmentSum, Statement, SumError};
use crate::segment::Geometry;
use crate::source::{segment_indices, segment_length};
use crate::tables::Tables;

// What is asked for in one piece is a whole read, or a block.
const _: () = assert!(CHUNK_LENGTH <= SPAN_MAX as usize);

/// How a segment's bytes are not those that were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// A block is damaged, or does not continue the one before: the place is given to the block.
    Block(SumError),
    /// A byte behind the last block's written part, which is no part of the log, is not zero.
    Leftover {
        /// Its position.
        position: Position,
    },
    /// Every block fits in itself and the next, but the root is another: the segment was rewritten.
    Rewritten,
    /// The file is not as long as a segment.
    Length {
        /// Bytes it has.
        found: u64,
    },
}

/// What is wrong with a segment or its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealFinding {
    /// The segment is not what was sealed; where there is no seal, it is damaged.
    Tampered(Tampering),
    /// The seal's signature does not fit the key it names: the seal was changed, or forged.
    BadSignature(KeyId),
    /// The seal's key is not trusted.
    UnknownKey(KeyId),
    /// The seal's key was replaced before.
    RetiredKey(KeyId),
    /// The seal does not follow the one before.
    ChainBroken {
        /// The hash it names.
        found: Digest,
        /// What the seal before hashes to.
        due: Digest,
    },
    /// The segment is what was sealed, but the seal says something else about it; the field.
    Untrue(&'static str),
    /// The segment is full and released, and has no seal. Where no later one has one either, relayd was not yet so far, or
    /// seals were taken from the end of the file.
    MissingSeal,
    /// There is a seal, but no segment.
    MissingSegment,
}

impl core::fmt::Display for SealFinding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Tampered(Tampering::Block(error)) => write!(f, "tampered: {error}"),
            Self::Tampered(Tampering::Leftover { position }) => write!(
                f,
                "tampered: the byte at position {position}, behind the last block, is not zero"
            ),
            Self::Tampered(Tampering::Rewritten) => write!(
                f,
                "tampered: every block fits, but the segment's bytes are not those that were sealed"
            ),
            Self::Tampered(Tampering::Length { found }) => {
                write!(f, "tampered: the file has {found} bytes")
            }
            Self::BadSignature(key) => write!(f, "the seal's signature is not that of key {key}"),
            Self::UnknownKey(key) => write!(f, "the seal is by key {key}, which is not trusted"),
            Self::RetiredKey(key) => {
                write!(f, "the seal is by key {key}, which was replaced before")
            }
            Self::ChainBroken { found, due } => {
                write!(
                    f,
                    "the seal follows a seal {found}, the one before it is {due}"
                )
            }
            Self::Untrue(field) => write!(f, "the seal's {field} is not the segment's"),
            Self::MissingSeal => write!(f, "it has no seal"),
            Self::MissingSegment => write!(f, "it is sealed, but missing"),
        }
    }
}

/// The verdict on one segment, the gravest of its findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SealOutcome {
    /// It is what was sealed.
    Intact,
    /// It is full and released, and has no seal.
    MissingSeal,
    /// Its seal's key is not trusted, or was replaced before.
    UnknownKey,
    /// Its seal does not follow the one before, or says something untrue.
    ChainBroken,
    /// Its seal's signature does not fit.
    BadSignature,
    /// It is sealed, but not there.
    MissingSegment,
    /// It is not what was sealed.
    Tampered,
}

/// What was found about one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its index.
    pub segment: u64,
    /// Position of its first byte.
    pub start: Position,
    /// Position behind its last.
    pub end: Position,
    /// Its seal, if it has one.
    pub seal: Option<FoundSeal>,
    /// What its blocks add up to, where every one of them is right.
    pub sum: Option<Statement>,
    /// What is wrong, in the order it was looked for; empty when nothing is.
    pub findings: Vec<SealFinding>,
}

impl SegmentReport {
    /// The gravest of the findings.
    #[must_use]
    pub fn outcome(&self) -> SealOutcome {
        let outcomes = self.findings.iter().map(|finding| match finding {
            SealFinding::Tampered(_) => SealOutcome::Tampered,
            SealFinding::BadSignature(_) => SealOutcome::BadSignature,
            SealFinding::UnknownKey(_) | SealFinding::RetiredKey(_) => SealOutcome::UnknownKey,
            SealFinding::ChainBroken { .. } | SealFinding::Untrue(_) => SealOutcome::ChainBroken,
            SealFinding::MissingSeal => SealOutcome::MissingSeal,
            SealFinding::MissingSegment => SealOutcome::MissingSegment,
        });
        outcomes.max().unwrap_or(SealOutcome::Intact)
    }
}

/// What [`SealCheck::step`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a step reads megabytes, and its report is kept"
)]
pub enum SealStep {
    /// It read on; up to here everything was looked at.
    Read(Position),
    /// It came to the end of a segment.
    Segment(SegmentReport),
    /// There is nothing more.
    Over,
}

/// The check under way. See the module's description.
#[derive(Debug)]
pub struct SealCheck {
    journal: PathBuf,
    geometry: Geometry,
    stream: StreamId,
    file: SealFile,
    /// What is left to look at, the next one last.
    due: Vec<(u64, Option<FoundSeal>)>,
    /// What the next segment's seal must name as the one before, and how its first block must go on; of which segment.
    follows: Option<Follows>,
    current: Option<Pass>,
    log: Window<'static>,
}

/// How the segment behind `segment` must begin.
#[derive(Debug, Clone, Copy)]
struct Follows {
    segment: u64,
    hash: Digest,
    link: Link,
}

/// One segment being read.
#[derive(Debug)]
struct Pass {
    seal: Option<FoundSeal>,
    /// The hash its seal must name; `None` where what came before is not known.
    previous: Option<Digest>,
    sum: SegmentSum,
    /// Up to here the segment was looked at.
    at: Position,
}

impl JournalDir {
    /// Begins a check of the seals against the segments. `trusted` are the public keys the caller relies on; with none the
    /// file's first key is taken as it stands ([`SealFile::is_pinned`]). Segments that end at or before `released`
    /// ([`super::Extent::released`]) are due to be sealed, or nearly so.
    ///
    /// # Errors
    /// [`ReaderError::Io`].
    pub fn check_seals(
        &self,
        trusted: &[PublicKey],
        released: Position,
    ) -> Result<SealCheck, ReaderError> {
        let geometry = self.superblock.geometry();
        let stream = self.superblock.stream;
        let bytes = self.read_seals()?;
        let mut reading = Reading::new(stream, trusted);
        if let Some(bytes) = &bytes {
            reading.read(bytes);
        }
        let (file, seals) = reading.finish(bytes.is_some());
        let mut due: Vec<(u64, Option<FoundSeal>)> = seals
            .into_iter()
            .map(|seal| (seal.statement.segment, Some(seal)))
            .collect();
        let is_sealed = |index: u64| {
            due.binary_search_by_key(&index, |(segment, _)| *segment)
                .is_ok()
        };
        // Listed again: on a live journal a segment may have come since it was opened.
        let listed = segment_indices(&self.path).map_err(at_path(&self.path))?;
        let unsealed: Vec<_> = listed
            .into_iter()
            .filter(|&index| geometry.start_of(index + 1) <= released && !is_sealed(index))
            .map(|index| (index, None))
            .collect();
        due.extend(unsealed);
        due.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        let end = due
            .first()
            .map_or(Position(0), |(segment, _)| geometry.start_of(segment + 1));
        let log = ReadAhead::new(&self.path, geometry, end).map_err(at_path(&self.path))?;
        Ok(SealCheck {
            journal: self.path.clone(),
            geometry,
            stream,
            file,
            due,
            follows: None,
            current: None,
            log: Window::new(Box::new(log), geometry),
        })
    }
}

impl SealCheck {
    /// What the file of seals says.
    #[must_use]
    pub const fn file(&self) -> &SealFile {
        &self.file
    }

    /// Segments that are still to be looked at, the one under way not counted.
    #[must_use]
    pub fn segments_left(&self) -> usize {
        self.due.len()
    }

    /// Does a little: takes in at most 4 MiB, or comes to the verdict on a segment. Each block that is right is handed to
    /// `visit`, in order, header and body; where a segment is damaged the rest of it is not.
    ///
    /// # Errors
    /// [`ReaderError::Io`] and [`ReaderError::Source`] when a segment can't be read.
    pub fn step(
        &mut self,
        visit: &mut dyn FnMut(&BlockHeader, &[u8]),
    ) -> Result<SealStep, ReaderError> {
        let Some(mut pass) = self.current.take() else {
            return self.begin();
        };
        if pass.sum.is_complete() {
            return self.finish(pass).map(SealStep::Segment);
        }
        match self.take_in(&mut pass, visit)? {
            Ok(()) => {
                let position = pass.sum.position();
                self.current = Some(pass);
                Ok(SealStep::Read(position))
            }
            Err(error) => {
                let tampering = Err(Some(Tampering::Block(error)));
                let segment = pass.sum.segment();
                let report = self.conclude(pass.seal, segment, pass.previous, tampering);
                Ok(SealStep::Segment(report))
            }
        }
    }

    /// Takes in the blocks that lie in one piece in memory, and one at least.
    fn take_in(
        &mut self,
        pass: &mut Pass,
        visit: &mut dyn FnMut(&BlockHeader, &[u8]),
    ) -> Result<Result<(), SumError>, ReaderError> {
        let mut length = self.piece(pass.at);
        loop {
            let bytes = bytes_of(&mut self.log, pass.at, length)?;
            match pass.sum.take(bytes, visit) {
                // The block goes on in the next read.
                Ok(0) => length = pass.sum.wanted(bytes),
                Ok(taken) => {
                    pass.at = pass.at.plus(taken as u64);
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Bytes from a position on that come in one read.
    fn piece(&self, position: Position) -> usize {
        let left = self.geometry.left_in_segment(position);
        let read = CHUNK_LENGTH as u64;
        left.min(read - self.geometry.offset_of(position) % read) as usize
    }

    /// Opens the next segment.
    fn begin(&mut self) -> Result<SealStep, ReaderError> {
        let Some((segment, seal)) = self.due.pop() else {
            return Ok(SealStep::Over);
        };
        let before = self
            .follows
            .filter(|follows| follows.segment + 1 == segment);
        let (link, previous) = match before {
            Some(follows) => (Some(follows.link), Some(follows.hash)),
            None if segment == 0 => {
                let link = Link::after_tables(&Tables::empty(self.stream));
                (Some(link), Some(Digest::default()))
            }
            None => (None, None),
        };
        let length = match segment_length(&self.journal, segment) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let report = self.conclude(seal, segment, previous, Err(None));
                return Ok(SealStep::Segment(report));
            }
            found => found.map_err(at_path(&self.journal))?,
        };
        if length != self.geometry.segment_size() {
            let tampering = Tampering::Length { found: length };
            let report = self.conclude(seal, segment, previous, Err(Some(tampering)));
            return Ok(SealStep::Segment(report));
        }
        let named = previous.or(seal.map(|seal| seal.statement.previous));
        let hash = named.unwrap_or_default();
        let sum = SegmentSum::new(self.geometry, self.stream, segment, link, hash);
        let position = sum.position();
        self.current = Some(Pass {
            seal,
            previous,
            sum,
            at: position,
        });
        Ok(SealStep::Read(position))
    }

    /// Looks at what lies behind the last block, and comes to the verdict.
    fn finish(&mut self, mut pass: Pass) -> Result<SegmentReport, ReaderError> {
        let segment = pass.sum.segment();
        let end = self.geometry.start_of(segment + 1);
        while pass.at < end {
            let length = self.piece(pass.at);
            let bytes = bytes_of(&mut self.log, pass.at, length)?;
            if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
                let position = pass.at.plus(at as u64);
                let tampering = Err(Some(Tampering::Leftover { position }));
                return Ok(self.conclude(pass.seal, segment, pass.previous, tampering));
            }
            pass.at = pass.at.plus(bytes.len() as u64);
        }
        let sum = pass.sum.statement().expect("a whole segment adds up");
        Ok(self.conclude(pass.seal, segment, pass.previous, Ok(sum)))
    }

    /// The verdict on a segment: its sum, or how it was tampered with, or nothing where it is missing.
    fn conclude(
        &mut self,
        seal: Option<FoundSeal>,
        segment: u64,
        previous: Option<Digest>,
        sum: Result<Statement, Option<Tampering>>,
    ) -> SegmentReport {
        let mut findings = Vec::new();
        match (&seal, &sum) {
            (_, Err(Some(tampering))) => findings.push(SealFinding::Tampered(*tampering)),
            (_, Err(None)) => findings.push(SealFinding::MissingSegment),
            (Some(seal), Ok(sum)) => findings.extend(compare(seal, sum)),
            (None, Ok(_)) => {}
        }
        match &seal {
            None => findings.push(SealFinding::MissingSeal),
            Some(seal) => {
                findings.extend(match seal.signed {
                    Signed::Well => None,
                    Signed::Badly => Some(SealFinding::BadSignature(seal.signer)),
                    Signed::ByUnknownKey => Some(SealFinding::UnknownKey(seal.signer)),
                    Signed::ByRetiredKey => Some(SealFinding::RetiredKey(seal.signer)),
                });
                let found = seal.statement.previous;
                let broken = previous.filter(|due| *due != found);
                findings.extend(broken.map(|due| SealFinding::ChainBroken { found, due }));
            }
        }
        // What is well signed says itself how the log goes on; else what was read has to.
        let signed = seal.filter(|seal| seal.signed == Signed::Well);
        let known = signed.map(|seal| seal.statement).or(sum.ok());
        self.follows = known.map(|statement| Follows {
            segment,
            hash: statement.hash(),
            link: statement.link(),
        });
        SegmentReport {
            segment,
            start: self.geometry.start_of(segment),
            end: self.geometry.start_of(segment + 1),
            seal,
            sum: sum.ok(),
            findings,
        }
    }
}

/// What a seal says that the segment does not bear out. A seal that is not well signed accuses nobody.
fn compare(seal: &FoundSeal, sum: &Statement) -> Option<SealFinding> {
    let said = &seal.statement;
    if said.root != sum.root {
        let is_proof = seal.signed == Signed::Well;
        return is_proof.then_some(SealFinding::Tampered(Tampering::Rewritten));
    }
    let fields = [
        ("end position", said.end == sum.end),
        ("first seq", said.first_seq == sum.first_seq),
        ("last seq", said.last_seq == sum.last_seq),
        ("record count", said.record_count == sum.record_count),
        (
            "block number",
            said.next_block_number == sum.next_block_number,
        ),
        ("epoch", said.epoch == sum.epoch),
        ("log checksum", said.log_checksum == sum.log_checksum),
    ];
    let untrue = fields.into_iter().find(|(_, is_true)| !is_true);
    untrue.map(|(field, _)| SealFinding::Untrue(field))
}

/// The `length` bytes of the log from a position on, all of which must be there.
fn bytes_of<'w>(
    log: &'w mut Window<'static>,
    position: Position,
    length: usize,
) -> Result<&'w [u8], ReaderError> {
    let bytes = log.bytes(position, length)?;
    if bytes.len() < length {
        let cause = "the file became shorter while it was read".to_owned();
        return Err(SourceError { position, cause }.into());
    }
    Ok(bytes)
}
