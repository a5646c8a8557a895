//! The seals of a journal checked against its segments, by whoever audits.
//!
//! [`SealCheck`] first reads the file of seals: which keys signed, whether each signature fits, whether each entry follows the
//! one before ([`SealFile`]). Then it goes through the segments, sealed and unsealed, one after the other and a few megabytes a
//! step: each is read once, every block of it checked and handed to the caller, its bytes hashed and held against its seal
//! ([`SegmentReport`]). Memory is bounded: two of the longest blocks, and about 250 bytes for each seal.
//!
//! What is proven: a segment whose report has no finding is, byte for byte, what the holder of the key sealed, and so is every
//! sealed segment before it. What is not: that nobody had the key who should not; and seals taken from the *end* of the file,
//! with the log they were about, are not missed: compare [`SealFile::last`] with one noted earlier, or with another node's,
//! whose seal hashes are the same.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use relay_wire::id::{Epoch, Position, StreamId};

use super::{JournalDir, ReaderError, at_path};
use crate::block::{BlockHeader, SPAN_MAX};
use crate::scan::Link;
use crate::seal::{
    ChainError, Digest, ENTRY_LENGTH, Entry, EntryError, FILE_NAME, KeyId, PublicKey, Said,
    SegmentSum, Statement, SumError, is_torn,
};
use crate::segment::{self, Geometry};
use crate::tables::Tables;

/// Most bytes of a file of seals that are read: four entries for each segment a stream can have.
const FILE_LENGTH_MAX: u64 = (ENTRY_LENGTH as u64) << 18;
/// Most findings about entries that are kept; more are counted.
const ENTRY_FINDINGS_MAX: usize = 64;
/// Bytes read at a time.
const READ_LENGTH: usize = SPAN_MAX as usize;

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
    segments: PathBuf,
    geometry: Geometry,
    stream: StreamId,
    file: SealFile,
    /// What is left to look at, the next one last.
    due: Vec<(u64, Option<FoundSeal>)>,
    /// What the next segment's seal must name as the one before, and how its first block must go on; of which segment.
    follows: Option<Follows>,
    current: Option<Pass>,
    buffer: Vec<u8>,
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
    file: File,
    /// Bytes of the file that were read.
    offset: u64,
    /// Bytes of the buffer that are not taken in yet, at its start.
    held: usize,
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
        let listed = crate::source::list_segments(&self.path).map_err(at_path(&self.path))?;
        let unsealed: Vec<_> = listed
            .iter()
            .filter(|found| {
                geometry.start_of(found.index + 1) <= released && !is_sealed(found.index)
            })
            .map(|found| (found.index, None))
            .collect();
        due.extend(unsealed);
        due.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Ok(SealCheck {
            segments: self.path.join(segment::DIRECTORY),
            geometry,
            stream,
            file,
            due,
            follows: None,
            current: None,
            buffer: vec![0; 2 * READ_LENGTH],
        })
    }

    /// The bytes of the file of seals; nothing where there is none.
    fn read_seals(&self) -> Result<Option<Vec<u8>>, ReaderError> {
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

    /// Does a little: reads at most 4 MiB and takes it in, or comes to the verdict on a segment. Each block that is right is
    /// handed to `visit`, in order, header and body; where a segment is damaged the rest of it is not.
    ///
    /// # Errors
    /// [`ReaderError::Io`] when a segment can't be read.
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
        let path = self.segments.join(segment::name(pass.sum.segment()));
        pass.fill(&mut self.buffer, self.geometry.segment_size())
            .map_err(at_path(&path))?;
        match pass.sum.take(&self.buffer[..pass.held], visit) {
            Ok(taken) => {
                self.buffer.copy_within(taken..pass.held, 0);
                pass.held -= taken;
                let position = pass.sum.position();
                self.current = Some(pass);
                Ok(SealStep::Read(position))
            }
            Err(error) => {
                let tampering = Tampering::Block(error);
                Ok(SealStep::Segment(self.conclude(
                    pass.seal,
                    pass.sum.segment(),
                    pass.previous,
                    Err(Some(tampering)),
                )))
            }
        }
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
        let path = self.segments.join(segment::name(segment));
        let opened = File::open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        let (file, length) = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(SealStep::Segment(self.conclude(
                    seal,
                    segment,
                    previous,
                    Err(None),
                )));
            }
            other => other.map_err(at_path(&path))?,
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
            file,
            offset: 0,
            held: 0,
        });
        Ok(SealStep::Read(position))
    }

    /// Looks at what lies behind the last block, and comes to the verdict.
    fn finish(&mut self, mut pass: Pass) -> Result<SegmentReport, ReaderError> {
        let segment = pass.sum.segment();
        let path = self.segments.join(segment::name(segment));
        let size = self.geometry.segment_size();
        let start = self.geometry.start_of(segment);
        loop {
            let from = pass.offset - pass.held as u64;
            let foreign = self.buffer[..pass.held].iter().position(|&byte| byte != 0);
            if let Some(at) = foreign {
                let position = start.plus(from + at as u64);
                let tampering = Tampering::Leftover { position };
                let report = self.conclude(pass.seal, segment, pass.previous, Err(Some(tampering)));
                return Ok(report);
            }
            if pass.offset == size {
                break;
            }
            pass.held = 0;
            pass.fill(&mut self.buffer, size).map_err(at_path(&path))?;
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

impl Pass {
    /// Reads on, to the end of the segment at most.
    fn fill(&mut self, buffer: &mut [u8], segment_size: u64) -> io::Result<()> {
        let left = segment_size - self.offset;
        let wanted = left.min(READ_LENGTH as u64) as usize;
        let wanted = wanted.min(buffer.len() - self.held);
        let place = &mut buffer[self.held..self.held + wanted];
        self.file.read_exact_at(place, self.offset)?;
        self.held += wanted;
        self.offset += wanted as u64;
        Ok(())
    }
}

/// The file of seals being read.
struct Reading {
    stream: StreamId,
    trusted: Vec<PublicKey>,
    /// The key that is due to sign.
    current: Option<KeyId>,
    seals: Vec<FoundSeal>,
    file: SealFile,
}

impl Reading {
    fn new(stream: StreamId, trusted: &[PublicKey]) -> Self {
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

    fn read(&mut self, bytes: &[u8]) {
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

    fn finish(mut self, is_present: bool) -> (SealFile, Vec<FoundSeal>) {
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
