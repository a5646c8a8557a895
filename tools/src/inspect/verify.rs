//! `relay inspect --verify`: the whole journal read, every checksum and every rule of the log checked.
//!
//! Three judgements are put together: each block continues the one before (the reader), the fold of all blocks keeps the
//! rules of seqs, publishers, topics, epochs and times (the tables), and each record's own checksum fits, which is the
//! publisher's. Then recovery is asked what it would make of the end.

use std::path::Path;

use relay_client::wire::id::Position;
use relay_journal::block::records;
use relay_journal::reader::{Extent, JournalDir, ReaderError};
use relay_journal::segment;
use relay_journal::tables::Tables;
use serde::{Deserialize, Serialize};

use super::failed;
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, thousands};

/// What was read, and whether it is right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verification {
    pub(crate) verified: bool,
    pub(crate) blocks: u64,
    pub(crate) records: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) tail: u64,
    pub(crate) released: u64,
    /// Whether seqs, publisher sequences, topics, epochs and times were checked too; not where the journal's beginning
    /// is gone.
    pub(crate) rules_checked: bool,
    /// Checkpoints that can't be used: they cost time at a start, no data.
    pub(crate) checkpoints_unusable: u64,
    /// Whether something that was never durable lies behind the end.
    pub(crate) torn_tail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<String>,
}

/// Runs the command.
pub(super) fn run(path: &Path, journal: &JournalDir, is_json: bool) -> Result<(), Failure> {
    let found = verify(path, journal)?;
    if is_json {
        json_line(&found)?;
    } else {
        line(&found.text())?;
    }
    match found.damage {
        None => Ok(()),
        Some(damage) => Err(Failure::Damaged(format!(
            "{}: {damage}; keep the directory as it is and look for another copy",
            path.display()
        ))),
    }
}

impl Verification {
    /// One line for people.
    pub(super) fn text(&self) -> String {
        let found = self;
        format!(
            "{}: {} messages, {} records, {} blocks, {} bytes up to position {}{}{}",
            if found.verified {
                "verified"
            } else {
                "DAMAGED"
            },
            thousands(found.messages),
            thousands(found.records),
            thousands(found.blocks),
            thousands(found.bytes),
            found.tail,
            if found.torn_tail {
                "; behind it something never durable, to be cut"
            } else {
                ""
            },
            match found.checkpoints_unusable {
                0 => String::new(),
                count => format!("; {count} checkpoints can't be used (a start takes longer)"),
            }
        )
    }
}

/// Reads everything.
pub(crate) fn verify(path: &Path, journal: &JournalDir) -> Result<Verification, Failure> {
    let interrupt = Interrupt::install()?;
    let extent = journal.extent().map_err(|error| failed(path, error))?;
    let mut scan = Scan {
        found: Verification {
            verified: false,
            blocks: 0,
            records: 0,
            messages: 0,
            bytes: 0,
            tail: 0,
            released: extent.released.get(),
            rules_checked: journal.start() == Position(0),
            checkpoints_unusable: checkpoints_unusable(path, journal)?,
            torn_tail: matches!(&extent.verdict, Ok(recovered) if recovered.cut.is_some()),
            damage: None,
        },
        tables: Tables::empty(journal.superblock().stream),
    };
    let damage = scan.run(path, journal, &extent, &interrupt)?;
    let mut found = scan.found;
    found.damage = damage
        .or_else(|| gap(journal))
        .or_else(|| match &extent.verdict {
            Err(error) => Some(error.to_string()),
            Ok(_) if found.tail != extent.tail.get() => Some(format!(
                "the log read ends at position {}, recovery ends it at {}",
                found.tail, extent.tail
            )),
            Ok(_) => None,
        });
    found.verified = found.damage.is_none();
    Ok(found)
}

fn gap(journal: &JournalDir) -> Option<String> {
    let gaps = journal.gaps();
    let gap = gaps.first()?;
    let (first, last) = (segment::name(gap.first), segment::name(gap.last));
    Some(format!("segments {first} to {last} are missing"))
}

fn checkpoints_unusable(path: &Path, journal: &JournalDir) -> Result<u64, Failure> {
    let positions = journal.checkpoints().map_err(|error| failed(path, error))?;
    let unusable = positions
        .into_iter()
        .filter(|&at| journal.checkpoint(at).is_err());
    Ok(unusable.count() as u64)
}

struct Scan {
    found: Verification,
    tables: Tables,
}

impl Scan {
    /// Reads to the end or to the first damage, which it returns.
    fn run(
        &mut self,
        path: &Path,
        journal: &JournalDir,
        extent: &Extent,
        interrupt: &Interrupt,
    ) -> Result<Option<String>, Failure> {
        let start = journal.start();
        let mut blocks = journal.blocks(start).map_err(|error| failed(path, error))?;
        let bar = progress(extent.tail.get().saturating_sub(start.get()), "verifying");
        self.found.tail = start.get();
        while let Some(next) = blocks.next_block() {
            let block = match next {
                Ok(block) => block,
                Err(ReaderError::Damage(damage)) if self.is_behind_the_end(extent) => {
                    debug_assert_eq!(damage.position, extent.tail);
                    break;
                }
                Err(error @ (ReaderError::Io { .. } | ReaderError::Source(_))) => {
                    return Err(failed(path, error));
                }
                Err(error) => return Ok(Some(error.to_string())),
            };
            for record in records(block.body) {
                let at = block.header.position;
                let checked = record.and_then(|(offset, record)| {
                    self.found.messages += u64::from(record.is_data());
                    record.verify().map(|()| offset)
                });
                if let Err(error) = checked {
                    return Ok(Some(format!("in the block at position {at}: {error}")));
                }
                self.found.records += 1;
            }
            if self.found.rules_checked
                && let Err(error) = self.tables.apply_block(&block.header, block.body)
            {
                return Ok(Some(format!(
                    "the block at position {}: {error}",
                    block.header.position
                )));
            }
            self.found.blocks += 1;
            self.found.bytes += u64::from(block.header.span);
            self.found.tail = block.header.next_position().get();
            if self.found.blocks.is_multiple_of(1024) {
                bar.set_position(self.found.tail - start.get());
                interrupt.check()?;
            }
        }
        bar.finish_and_clear();
        Ok(None)
    }

    /// What is no block there is no damage: recovery knows that it was never durable.
    fn is_behind_the_end(&self, extent: &Extent) -> bool {
        extent.verdict.is_ok() && self.found.tail == extent.tail.get()
    }
}
