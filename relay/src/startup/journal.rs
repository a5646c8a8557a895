//! The journal before a start: recovery, and what a node of a group cuts from its log first.

use std::time::{Duration, Instant};

use relay_core::startup as decide;
use relay_journal::reader::JournalDir;
use relay_journal::recovery::{Decision, Finding, Recovered, RecoveryError, recover};
use relay_journal::superblock::Superblock;
use relay_wire::id::{Epoch, Position};
use relay_wire::peer::Envelope;

use super::StartError;
use crate::config::{GroupConfig, StreamConfig};
use crate::repair::{self, Asker, Remedy};
use crate::storage::{Segments, Storage, StorageError};

/// Most blocks fetched from peers at one start; more are a reason to replace the disk.
const REPAIRS_MAX: u32 = 1_000;

/// How long the lock may still be held on behalf of a process that was killed: by the one that hangs up for it, until the memory is
/// gone, which with the largest ring takes seconds; and while it starts chrony's program, that one has all its files too.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What recovery leaves for the start.
pub(super) struct Ready {
    pub(super) segments: Segments,
    /// What the disk is; fields that change while it runs are those of the start.
    pub(super) superblock: Superblock,
    pub(super) recovered: Recovered,
    /// The epoch a node without a group opens.
    pub(super) epoch: Epoch,
    pub(super) was_clean: bool,
}

/// What a node's log is cut to because the primary's goes on otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) position: Position,
    /// End of what was ever written.
    pub(super) log_end: Position,
    /// The epoch that goes on otherwise.
    pub(super) epoch: Epoch,
}

/// Locks the journal and sees that it is the one the configuration is about.
pub(super) fn open(config: &StreamConfig) -> Result<Storage, StartError> {
    let begun = Instant::now();
    let storage = loop {
        match Storage::open(&config.directory) {
            Err(StorageError::Locked(_)) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => break opened?,
        }
    };
    check_fit(config, &storage)?;
    Ok(storage)
}

/// Recovers the journal for writing. A node without a group promises its next epoch; what a node of a group promised stays as it
/// is, since its machine decides about that.
pub(super) fn recover_for_writing(
    config: &StreamConfig,
    storage: &mut Storage,
) -> Result<Ready, StartError> {
    let begun = Instant::now();
    let recovered = recover_or_repair(config, storage)?;
    let superblock = *storage.superblock();
    let was_clean = decide::was_clean(&recovered.tables, &superblock);
    let is_torn = recovered.decision == Decision::CutTorn;
    if is_torn && config.group.is_some() {
        // Before anything is overwritten: what was cut may have been acknowledged, and somebody has to answer for it.
        storage.update(|next| {
            next.unknown_tail.get_or_insert(recovered.tail);
        })?;
    }
    if let Some(cut) = &recovered.cut {
        tell_cut(config, cut.position, cut.leftovers);
        storage.zero(cut.position, cut.leftovers)?;
    }
    storage.settle(recovered.tail)?;
    let segments = storage.open_segments()?;
    let epoch = decide::next_epoch(&recovered.tables, &superblock);
    let in_flight = config.settings.in_flight_bytes_max();
    storage.update(|next| {
        if config.group.is_none() {
            next.promised = epoch;
        }
        next.clean = None;
        next.in_flight_bytes_max = next.in_flight_bytes_max.max(in_flight);
        next.ring_length = config.settings.ring_size;
    })?;
    tracing::info!(
        stream = config.name,
        tail = %recovered.tail,
        next_seq = %recovered.tables.next_seq,
        epoch = %if config.group.is_none() { epoch } else { recovered.tables.epoch },
        was_clean,
        blocks_scanned = recovered.blocks_scanned,
        milliseconds = begun.elapsed().as_millis() as u64,
        "journal recovered"
    );
    Ok(Ready {
        segments,
        superblock,
        recovered,
        epoch,
        was_clean,
    })
}

/// Reads the log; where a node of a group finds it damaged, its peers are asked for what is missing, block by block.
fn recover_or_repair(
    config: &StreamConfig,
    storage: &mut Storage,
) -> Result<Recovered, StartError> {
    let mut repaired = 0;
    loop {
        let superblock = *storage.superblock();
        let journal = JournalDir::open(&config.directory)?;
        let start = journal.recovery_start()?;
        let mut source = journal.source();
        let error = match recover(&mut source, &superblock, start, &mut |_| {}) {
            Ok(recovered) => return Ok(recovered),
            Err(error) => error,
        };
        let (Some(group), RecoveryError::Rotten(finding)) = (&config.group, &error) else {
            return Err(error.into());
        };
        if repaired >= REPAIRS_MAX {
            return Err(format!(
                "{error}. {repaired} blocks were fetched from peers already: this disk is not to be \
                 trusted. Replace it, make a journal with `relayd format` and start again"
            )
            .into());
        }
        repaired += 1;
        repair(config, group, storage, finding).map_err(|said| {
            format!("{error}. No peer could help: {said}. Start this node again when one can")
        })?;
    }
}

/// Mends the damaged place from a peer, or cuts the log there where the node that leads goes on otherwise.
fn repair(
    config: &StreamConfig,
    group: &GroupConfig,
    storage: &mut Storage,
    finding: &Finding,
) -> Result<(), StartError> {
    let superblock = *storage.superblock();
    let mut process = [0; 8];
    getrandom::fill(&mut process)?;
    let peers: Vec<_> = group
        .peers
        .iter()
        .map(|(peer, address)| (peer.node, *address))
        .collect();
    let asker = Asker {
        envelope: Envelope {
            stream: superblock.stream,
            epoch: Epoch(0),
            incarnation: superblock.disk_incarnation,
        },
        node: superblock.node,
        process: u64::from_le_bytes(process),
        secret: &group.secret,
        peers: &peers,
        committed: superblock.committed,
    };
    match repair::remedy(&asker, finding, superblock.block_alignment) {
        Remedy::Write { from, bytes } => {
            storage.mend(finding.position, &bytes)?;
            tracing::warn!(
                stream = config.name,
                position = %finding.position,
                bytes = bytes.len(),
                %from,
                "a damaged block was fetched from a peer and written in its place"
            );
            Ok(())
        }
        Remedy::Cut(leader) => {
            tracing::warn!(
                stream = config.name,
                position = %finding.position,
                %leader,
                "the log is damaged here and the primary has no such block"
            );
            storage.update(|next| {
                next.unknown_tail.get_or_insert(finding.position);
                next.clean = None;
            })?;
            let log_end = storage.written_end(finding.position)?;
            cut(
                config,
                storage,
                &Cut {
                    position: finding.position,
                    log_end,
                    epoch: superblock.committed,
                },
            )
        }
        Remedy::None(said) => Err(said.into()),
    }
}

fn tell_cut(config: &StreamConfig, position: Position, bytes: u64) {
    if config.group.is_none() {
        tracing::warn!(
            %position,
            bytes,
            "the log's torn end was cut: it was never released"
        );
    } else {
        tracing::warn!(
            %position,
            bytes,
            "the log's torn end was cut; where another member is there, this node leads only once it has answered for that"
        );
    }
}

/// Sets what lies behind the cut aside for the auditor, then takes it from the log. A crash on the way leaves a log that is only
/// shorter, and the file as it was made first.
pub(super) fn cut(
    config: &StreamConfig,
    storage: &mut Storage,
    cut: &Cut,
) -> Result<(), StartError> {
    let length = cut.log_end.get().saturating_sub(cut.position.get());
    if length == 0 {
        // A checkpoint may know of more than there is left of the log.
        storage.remove_checkpoints_behind(cut.position)?;
        return Ok(());
    }
    let file = storage.set_aside(cut.epoch, cut.position, length)?;
    tracing::warn!(
        stream = config.name,
        position = %cut.position,
        bytes = length,
        epoch = %cut.epoch,
        file = %file.display(),
        "the primary's log goes on otherwise from here: what this node had behind it, never released, \
         was set aside in this file and is cut. `relay inspect` reads it"
    );
    storage.remove_checkpoints_behind(cut.position)?;
    storage.zero(cut.position, length)?;
    Ok(())
}

/// Refuses a journal made for something else than the configuration says.
fn check_fit(config: &StreamConfig, storage: &Storage) -> Result<(), StartError> {
    let superblock = storage.superblock();
    let settings = &config.settings;
    superblock
        .check_identity(settings.node, settings.stream)
        .map_err(|error| format!("{}: {error}", config.directory.display()))?;
    let wanted = (settings.segment_size, settings.block_alignment);
    let found = (superblock.segment_size, superblock.block_alignment);
    if wanted != found {
        return Err(format!(
            "{}: the journal was made with segment_size {} and block_alignment {}; write these into \
             the configuration",
            config.directory.display(),
            found.0,
            found.1
        )
        .into());
    }
    Ok(())
}
