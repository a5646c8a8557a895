//! Rules broken in what a start finds on its disk: see [`crate::canary`].

use relay_journal::recovery::{Beyond, Cut, Front, Recovered, recover};
use relay_journal::superblock::Superblock;
use relay_journal::tables::Tables;

use super::Halt;
use crate::disk::{Disk, LogReader};
use crate::swarm::STREAM;

/// What recovery would find if the log ended at `end`, or in the block before.
pub(super) fn cut_short(
    found: &Recovered,
    end: u64,
    superblock: &Superblock,
    disk: &mut Disk,
) -> Result<Recovered, Halt> {
    let reader = &mut LogReader { disk, end };
    let tables = Tables::empty(STREAM);
    let mut bent = recover(reader, superblock, tables, &mut |_| {}).map_err(Halt::Recovery)?;
    let behind = found.cut.map_or(0, |cut| cut.leftovers);
    bent.cut = Some(Cut {
        position: bent.tail,
        front: Front::BadBody,
        beyond: Beyond::Nothing,
        leftovers: found.tail.since(bent.tail) + behind,
    });
    Ok(bent)
}
