//! The seals of a journal held against its segments: what was signed when a segment was full is what it must still be.
//!
//! ```text
//! thread: read a segment, check its blocks, hash them --blocks--> rules and records' checksums --> findings
//!                                                      --report-->
//! ```
//!
//! Each finished segment is read once; hashing it and checking the rules go on side by side. What differs only in a block's
//! checksums is damage, as a disk does it; what fits in itself and not its seal was changed on purpose.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use relay_client::wire::id::Position;
use relay_journal::reader::ReaderError;
use relay_journal::reader::seals::{
    EntryFinding, EntryProblem, SealCheck, SealFinding, SealStep, SegmentReport, Signed, Tampering,
};
use relay_journal::scan::Front;
use relay_journal::seal::{EntryError, PublicKey};
use relay_journal::segment;
use serde::{Deserialize, Serialize};

use super::ahead::{Blocks, WAITING};
use super::failed;
use super::finding::{Finding, Kind};
use super::journal::Scan;
use crate::exit::Failure;
use crate::output::thousands;
use crate::when::utc_text;

/// What a journal's seals say.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seals {
    /// Whether the public key was given by whoever audits; else the first key named in the file is believed.
    pub(crate) is_key_given: bool,
    pub(crate) keys: Vec<KeyLine>,
    /// Places where the log was cut below what was sealed, as the node itself signed.
    pub(crate) cuts: Vec<CutLine>,
    /// Segments that are what was sealed.
    pub(crate) intact_segments: u64,
    /// Full segments behind the last seal: relayd was not yet so far, or seals were taken from the end of the file.
    pub(crate) unsealed_segments: u64,
    /// Where what is sealed ends.
    pub(crate) sealed_to: u64,
    /// The newest seal's segment and hash. It stands for all the sealed log, on every node.
    pub(crate) newest: Option<(u64, String)>,
    /// Every seal, for the report.
    #[serde(skip)]
    pub(crate) roots: Vec<RootLine>,
}

impl Seals {
    /// One line for people.
    pub(super) fn text(&self) -> String {
        if self.intact_segments == 0 && self.newest.is_none() && self.unsealed_segments == 0 {
            return "no segment is full yet, so none is sealed".to_owned();
        }
        let mut text = format!(
            "{} segments are what was sealed, up to position {}",
            thousands(self.intact_segments),
            self.sealed_to
        );
        if self.unsealed_segments > 0 {
            let count = thousands(self.unsealed_segments);
            text.push_str(&format!("; {count} full ones behind are not sealed"));
        }
        if let Some((segment, hash)) = &self.newest {
            text.push_str(&format!(
                "; the newest seal, of segment {}, is {hash}",
                segment::name(*segment)
            ));
        }
        if !self.is_key_given {
            text.push_str("; give --public-key to know whose they are");
        }
        text
    }
}

/// A key that the file names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyLine {
    pub(crate) public_key: String,
    pub(crate) id: String,
    /// The first segment it seals.
    pub(crate) segment: u64,
    pub(crate) time_ns: u64,
    pub(crate) is_trusted: bool,
}

/// A cut below what was sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CutLine {
    pub(crate) segment: u64,
    pub(crate) position: u64,
    pub(crate) epoch: u64,
    pub(crate) time_ns: u64,
}

impl CutLine {
    /// For people.
    pub(super) fn text(&self) -> String {
        format!(
            "at {} this node signed that its log was cut at position {} (epoch {}), below what it had sealed: the seals \
             from segment {} on that it had made before are void",
            utc_text(self.time_ns),
            self.position,
            self.epoch,
            segment::name(self.segment)
        )
    }
}

/// A seal as it was found.
#[derive(Debug, Clone)]
pub(crate) struct RootLine {
    pub(crate) segment: u64,
    pub(crate) root: String,
    pub(crate) hash: String,
    pub(crate) signer: String,
    pub(crate) time_ns: u64,
    pub(crate) verdict: String,
}

/// What the thread that reads and hashes hands on, in the order of the log. A piece of blocks has at most 8 MiB.
enum Piece {
    Blocks(Blocks),
    Segment(Box<SegmentReport>),
}

/// Reads and hashes every finished segment, while what was read is checked by the rules elsewhere.
fn hash_segments(
    mut check: SealCheck,
    out: &SyncSender<Result<Piece, ReaderError>>,
    empty: &Receiver<Blocks>,
) {
    loop {
        let mut blocks = Blocks::reused(empty);
        let step = check.step(&mut |header, body| blocks.push(header, body));
        // What came before a fault is handed on before it.
        if !blocks.is_empty() && out.send(Ok(Piece::Blocks(blocks))).is_err() {
            return;
        }
        let piece = match step {
            Ok(SealStep::Read(_)) => continue,
            Ok(SealStep::Segment(report)) => Ok(Piece::Segment(Box::new(report))),
            Ok(SealStep::Over) => return,
            Err(error) => Err(error),
        };
        let is_over = piece.is_err();
        if out.send(piece).is_err() || is_over {
            return;
        }
    }
}

impl Scan<'_> {
    /// Goes through every finished segment. Where reading by blocks goes on then: nothing where there are no seals.
    pub(super) fn check_seals(
        &mut self,
        trusted: &[PublicKey],
        released: Position,
    ) -> Result<Option<Position>, Failure> {
        let path = self.journal.path();
        let check = self.journal.check_seals(trusted, released);
        let check = check.map_err(|error| failed(path, error))?;
        if !check.file().is_present {
            if !trusted.is_empty() {
                let text = "there are no seals: nothing can be held against the public key";
                self.add(Finding::new(Kind::MissingSeal, &self.found.directory, text));
            }
            return Ok(None);
        }
        self.take_file(&check);
        let mut seals = self.found.seals.take().unwrap_or_default();
        let mut end = self.journal.start();
        let mut unsealed = Vec::new();
        thread::scope(|scope| {
            let (out, pieces) = sync_channel(WAITING);
            let (spent, empty) = channel();
            scope.spawn(move || hash_segments(check, &out, &empty));
            for piece in pieces {
                match piece.map_err(|error| failed(path, error))? {
                    Piece::Blocks(blocks) => {
                        self.take_blocks(&blocks)?;
                        // The thread may be done and gone.
                        let _ = spent.send(blocks);
                    }
                    Piece::Segment(report) => {
                        end = end.max(report.end);
                        if report.seal.is_none() && report.findings == [SealFinding::MissingSeal] {
                            unsealed.push(report.segment);
                        } else {
                            self.take_report(&report, &mut seals)?;
                        }
                    }
                }
                self.interrupt.check()?;
            }
            Ok::<(), Failure>(())
        })?;
        self.take_unsealed(&unsealed, !trusted.is_empty(), &mut seals);
        self.found.seals = Some(seals);
        Ok(Some(end))
    }

    fn take_blocks(&mut self, blocks: &Blocks) -> Result<(), Failure> {
        for (header, body) in blocks.iter() {
            if header.position.get() != self.found.tail {
                self.lose_track();
            }
            self.take(header, body)?;
        }
        Ok(())
    }

    /// What the file says in itself.
    fn take_file(&mut self, check: &SealCheck) {
        let file = check.file();
        let keys = file.keys.iter().map(|named| KeyLine {
            public_key: named.key.to_string(),
            id: named.key.id().to_string(),
            segment: named.segment,
            time_ns: named.time_ns,
            is_trusted: named.is_trusted,
        });
        let cuts = file.cuts.iter().map(|cut| CutLine {
            segment: cut.segment,
            position: cut.position.get(),
            epoch: cut.epoch.get(),
            time_ns: cut.time_ns,
        });
        self.found.seals = Some(Seals {
            is_key_given: file.is_pinned,
            keys: keys.collect(),
            cuts: cuts.collect(),
            sealed_to: file.sealed_end.get(),
            newest: file.last.map(|(segment, hash)| (segment, hash.to_string())),
            ..Seals::default()
        });
        for finding in &file.findings {
            self.add(entry_finding(finding, &self.found.directory));
        }
    }

    fn take_report(&mut self, report: &SegmentReport, seals: &mut Seals) -> Result<(), Failure> {
        let geometry = self.journal.superblock().geometry();
        let mut resume = None;
        for found in &report.findings {
            let position = match found {
                SealFinding::Tampered(Tampering::Block(error)) => {
                    resume = Some((error.position, error.front));
                    error.position
                }
                SealFinding::Tampered(Tampering::Leftover { position }) => *position,
                _ => report.start,
            };
            let is_told =
                matches!(found, SealFinding::MissingSegment) && self.is_gap(report.segment);
            if !is_told {
                let finding = Finding::new(kind_of(found), &self.found.directory, text_of(found));
                let finding = finding.at(geometry, position);
                let seq = self.link.map(|link| link.first_seq.get());
                self.add(Finding { seq, ..finding });
            }
        }
        if let Some(seal) = &report.seal {
            let mut verdicts: Vec<String> = report.findings.iter().map(text_of).collect();
            if verdicts.is_empty() {
                seals.intact_segments += 1;
                verdicts.push("intact".to_owned());
            }
            seals.roots.push(RootLine {
                segment: report.segment,
                root: seal.statement.root.to_string(),
                hash: seal.statement.hash().to_string(),
                signer: seal.signer.to_string(),
                time_ns: seal.time_ns,
                verdict: verdicts.join("; "),
            });
            debug_assert!(seal.signed == Signed::Well || !report.findings.is_empty());
        }
        // The rest of a damaged segment is not handed on by the library.
        if let Some((position, front)) = resume {
            let is_whole = matches!(
                front,
                Front::ChainBroken | Front::LaterEpoch | Front::StaleEarlier
            );
            self.lose_track();
            let from = if is_whole {
                position
            } else {
                self.find_next(position, report.end)?
            };
            self.read(from, report.end, None)?;
        }
        Ok(())
    }

    fn is_gap(&self, segment: u64) -> bool {
        let gaps = self.journal.gaps();
        gaps.iter()
            .any(|gap| (gap.first..=gap.last).contains(&segment))
    }

    /// Full segments without a seal: before a sealed one a seal was taken away; behind the last one nobody can tell.
    fn take_unsealed(&mut self, unsealed: &[u64], is_wanted: bool, seals: &mut Seals) {
        let geometry = self.journal.superblock().geometry();
        let newest = seals.newest.as_ref().map(|(segment, _)| *segment);
        for &segment in unsealed {
            let is_hole = newest.is_some_and(|newest| segment < newest);
            if !is_hole {
                seals.unsealed_segments += 1;
            }
            if is_hole || (is_wanted && !self.found.is_live) {
                let text = format!(
                    "segment {} is full and has no seal: relayd was not yet so far, or it was taken away",
                    segment::name(segment)
                );
                let finding = Finding::new(Kind::MissingSeal, &self.found.directory, text);
                self.add(finding.at(geometry, geometry.start_of(segment)));
            }
        }
    }
}

fn entry_finding(finding: &EntryFinding, directory: &str) -> Finding {
    let kind = match finding.what {
        EntryProblem::Damaged(EntryError::Short) => Kind::MissingSeal,
        EntryProblem::Damaged(_) => Kind::SealEntry,
        EntryProblem::Chain(_) | EntryProblem::BadSignature(_) | EntryProblem::UnknownKey(_) => {
            Kind::Seal
        }
    };
    Finding::new(kind, directory, finding.to_string())
}

const fn kind_of(finding: &SealFinding) -> Kind {
    match finding {
        SealFinding::Tampered(Tampering::Block(error)) => match error.front {
            Front::ChainBroken | Front::LaterEpoch | Front::StaleEarlier | Front::ForeignStream => {
                Kind::Rewritten
            }
            _ => Kind::Block,
        },
        SealFinding::Tampered(Tampering::Leftover { .. }) => Kind::Block,
        SealFinding::Tampered(Tampering::Rewritten) => Kind::Rewritten,
        SealFinding::Tampered(Tampering::Length { .. }) | SealFinding::MissingSegment => {
            Kind::MissingSegment
        }
        SealFinding::MissingSeal => Kind::MissingSeal,
        SealFinding::BadSignature(_)
        | SealFinding::UnknownKey(_)
        | SealFinding::RetiredKey(_)
        | SealFinding::ChainBroken { .. }
        | SealFinding::Untrue(_) => Kind::Seal,
    }
}

fn text_of(finding: &SealFinding) -> String {
    match finding {
        SealFinding::Tampered(Tampering::Block(error)) => error.front.to_string(),
        SealFinding::Tampered(Tampering::Leftover { .. }) => {
            "a byte behind the last block, which is no part of the log, is not zero".to_owned()
        }
        SealFinding::Tampered(Tampering::Rewritten) => {
            "every block fits, but the segment is not what was sealed: it was rewritten".to_owned()
        }
        SealFinding::Tampered(Tampering::Length { found }) => {
            format!("the segment's file has {found} bytes and is sealed")
        }
        other => other.to_string(),
    }
}
