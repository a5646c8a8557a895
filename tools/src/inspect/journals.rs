//! Several journals of one stream, whose nodes don't run: each verified, and all compared with each other.
//!
//! Two nodes hold the same bytes at the same positions, as far as that was released; beyond it a copy that was cut off may hold
//! what nobody ever acknowledged. What lies behind a filler's first unit is not part of the log: nobody writes it.

use std::path::PathBuf;

use relay_client::wire::id::Position;
use relay_journal::reader::{JournalDir, ReaderError};
use relay_journal::scan::LogSource;
use serde::{Deserialize, Serialize};

use super::verify::{Verification, verify};
use super::{failed, open};
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, thousands};

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// Each journal by itself, in the order of the nodes.
    pub(crate) journals: Vec<Verification>,
    /// Bytes of log that all of them hold alike: what was released, or as much of it as the shortest one has; 0 for one
    /// journal.
    pub(crate) identical_bytes: u64,
    /// Where they part, and whether one is shorter than what was released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<String>,
}

impl Judgement {
    /// Whether everything is as it must be.
    pub(crate) fn is_right(&self) -> bool {
        self.difference.is_none() && self.journals.iter().all(|journal| journal.verified)
    }

    /// What is wrong, for people.
    pub(crate) fn fault(&self) -> Option<&str> {
        let damages = self.journals.iter();
        let damages = damages.filter_map(|journal| journal.damage.as_deref());
        damages.chain(self.difference.as_deref()).next()
    }
}

/// Runs the command.
pub(super) fn run(directories: &[PathBuf], is_json: bool) -> Result<(), Failure> {
    let judgement = judge(directories, 0, &Interrupt::install()?)?;
    if is_json {
        json_line(&judgement)?;
    } else {
        for (directory, journal) in directories.iter().zip(&judgement.journals) {
            line(&format!("{}: {}", directory.display(), journal.text()))?;
        }
        if judgement.difference.is_none() {
            let bytes = thousands(judgement.identical_bytes);
            line(&format!("identical over {bytes} bytes of log"))?;
        }
    }
    match judgement.fault() {
        None => Ok(()),
        Some(fault) => Err(Failure::Damaged(format!(
            "{fault}; keep all of them as they are"
        ))),
    }
}

/// Verifies the journals in these directories and compares them over what was released. Each must reach `least` at least.
pub(crate) fn judge(
    directories: &[PathBuf],
    least: u64,
    interrupt: &Interrupt,
) -> Result<Judgement, Failure> {
    let journals: Vec<_> = directories
        .iter()
        .map(|directory| open(directory))
        .collect::<Result<_, _>>()?;
    let verified = directories.iter().zip(&journals);
    let verified: Vec<_> = verified
        .map(|(directory, journal)| verify(directory, journal))
        .collect::<Result<_, _>>()?;
    let shortest = verified.iter().map(|journal| journal.tail).min();
    let shortest = shortest.unwrap_or_default();
    let released = verified.iter().map(|journal| journal.released).max();
    let released = released.unwrap_or_default().max(least);
    let mut judgement = Judgement {
        journals: verified,
        identical_bytes: 0,
        difference: None,
    };
    if shortest < least {
        judgement.difference = Some(format!(
            "up to position {least} was released, and one journal ends at {shortest}"
        ));
        return Ok(judgement);
    }
    let [first, others @ ..] = &journals[..] else {
        return Ok(judgement);
    };
    let end = shortest.min(released);
    for (journal, directory) in others.iter().zip(&directories[1..]) {
        let found = compare(first, journal, Position(end), interrupt);
        if let Some(position) = found.map_err(|error| failed(directory, error))? {
            let (one, other) = (directories[0].display(), directory.display());
            judgement.difference = Some(format!(
                "the block at position {position} in {one} is not the one in {other}"
            ));
            return Ok(judgement);
        }
    }
    interrupt.check()?;
    if !others.is_empty() {
        judgement.identical_bytes = end;
    }
    Ok(judgement)
}

/// Compares two journals up to `end`, block by block as the first has them; where they first differ.
fn compare(
    one: &JournalDir,
    other: &JournalDir,
    end: Position,
    interrupt: &Interrupt,
) -> Result<Option<Position>, ReaderError> {
    let alignment = one.superblock().block_alignment;
    if one.superblock().geometry() != other.superblock().geometry() {
        return Ok(Some(Position(0)));
    }
    let start = one.start().max(other.start());
    let mut blocks = one.blocks(start)?;
    let (mut from_one, mut from_other) = (one.source()?, other.source()?);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let bar = progress(end.get().saturating_sub(start.get()), "comparing");
    let mut compared = 0u64;
    while blocks.position() < end {
        let Some(block) = blocks.next_block() else {
            break;
        };
        let header = block?.header;
        let length = header.written_length(alignment) as usize;
        for (source, bytes) in [(&mut from_one, &mut ours), (&mut from_other, &mut theirs)] {
            bytes.clear();
            bytes.resize(length, 0);
            let read = source.read_at(header.position, bytes)?;
            bytes.truncate(read);
        }
        if ours.len() < length || ours != theirs {
            return Ok(Some(header.position));
        }
        compared += 1;
        if compared.is_multiple_of(1024) {
            bar.set_position(header.position.get().saturating_sub(start.get()));
            if interrupt.is_set() {
                return Ok(None);
            }
        }
    }
    bar.finish_and_clear();
    Ok(None)
}
