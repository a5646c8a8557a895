//! From what recovery found to the machines: which epoch opens, and which trading session is on.

use relay_journal::superblock::Superblock;
use relay_journal::tables::Tables;
use relay_wire::id::Epoch;

/// The epoch a starting node opens: above every epoch in its log and above every promise it gave.
///
/// A process that starts never goes on in an epoch, because another one may have written in it since.
#[must_use]
pub fn next_epoch(tables: &Tables, superblock: &Superblock) -> Epoch {
    let in_log = tables.epochs.last().map_or(Epoch(0), |entry| entry.epoch);
    in_log
        .max(superblock.promised)
        .max(superblock.committed)
        .next()
}

/// Whether the log ends exactly where the clean stop before said it would.
#[must_use]
pub fn was_clean(tables: &Tables, superblock: &Superblock) -> bool {
    superblock.clean.is_some_and(|clean| {
        clean.tail == tables.position && clean.checksum == tables.previous_checksum
    })
}
