//! The ends and beginnings of a node, and what happens to its disk while it is stopped.

use relay_core::group::{Carry, RestartReason, Vote};
use relay_core::node::{Node, Start};
use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::recovery::{Decision, RecoveryError, recover};
use relay_journal::superblock::WriteMethod;
use relay_journal::tables::Tables;
use relay_wire::id::{Epoch, Position, StreamId};

use super::{Halt, Loss, Machine, Output, Rot, Session, Write};
use crate::bounds::{Bounds, MEMORY, NODES_MAX, PAGE, SECTOR};
use crate::log::{Log, Page, page_of};

/// Where a block header's checksum lies.
const HEADER_CHECKSUM_AT: usize = HEADER_LENGTH - 4;

impl Machine {
    /// The process dies.
    pub(super) fn crash(&mut self, loss: Loss) {
        let last = (loss.kept != 0).then(|| 7 - loss.kept.leading_zeros() as usize);
        for (at, write) in std::mem::take(&mut self.writes).iter().enumerate() {
            if loss.kept >> at & 1 == 1 {
                let is_torn = loss.is_torn && last == Some(at);
                let pages = if is_torn { torn(write) } else { None };
                self.disk
                    .put(write.position, pages.as_ref().unwrap_or(&write.pages));
            }
        }
        if let (Some(vote), true) = (self.vote, loss.keeps_vote) {
            self.store(vote);
        }
        if let Some((RestartReason::Cut(position), _)) = self.restart {
            let left = self.disk.len().saturating_sub(loss.cut.into());
            self.disk
                .cut(left.max(page_of(position).min(self.disk.len())));
        }
        self.forget();
    }

    /// Nothing is left of the process.
    pub(super) fn forget(&mut self) {
        self.node = None;
        self.log = Log::default();
        self.writes.clear();
        self.vote = None;
        self.ask = None;
        self.links = [None; NODES_MAX - 1];
        self.stale = [None; NODES_MAX - 1];
        self.dials = [false; NODES_MAX - 1];
        self.restart = None;
        self.is_serving = false;
        self.is_handing_over = false;
        self.session = Session::default();
        self.floor = Position(0);
    }

    /// What a crash now can leave.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        let mut losses = Vec::new();
        let cuts = match self.restart {
            Some((RestartReason::Cut(position), _)) if self.writes.is_empty() => {
                (self.disk.len() - page_of(position).min(self.disk.len())) as u8
            }
            _ => 0,
        };
        for keeps_vote in [false, true] {
            if keeps_vote && self.vote.is_none() {
                continue;
            }
            for kept in 0..1_u8 << self.writes.len() {
                let whole = Loss {
                    kept,
                    is_torn: false,
                    keeps_vote,
                    cut: 0,
                };
                losses.push(whole);
                let last = self
                    .writes
                    .get(7_usize.wrapping_sub(kept.leading_zeros() as usize));
                if last.is_some_and(|write| torn(write).is_some()) {
                    losses.push(Loss {
                        is_torn: true,
                        ..whole
                    });
                }
            }
            for cut in 1..=cuts {
                losses.push(Loss {
                    kept: 0,
                    is_torn: false,
                    keeps_vote,
                    cut,
                });
            }
        }
        losses
    }

    /// The vote is in the superblock.
    pub(super) const fn store(&mut self, vote: Vote) {
        self.superblock.promised = vote.promised;
        self.superblock.committed = vote.committed;
        self.superblock.committed_nonce = vote.nonce;
        self.superblock.unknown_tail = vote.unknown_tail;
        self.superblock.learning_from = vote.learning_from;
    }

    /// The node asked to begin again from its disk: what lies behind the parting is set aside and cut.
    pub(super) fn rebuild(&mut self, bounds: &Bounds, outputs: &mut Vec<Output>) {
        let (reason, carry) = self.restart.expect("it was asked for");
        if let RestartReason::Cut(position) = reason {
            self.disk.cut(page_of(position));
        }
        self.forget();
        self.start(bounds, Some(carry), outputs);
    }

    /// A node begins from what recovery finds on the disk.
    pub(super) fn start(
        &mut self,
        bounds: &Bounds,
        carry: Option<Carry>,
        outputs: &mut Vec<Output>,
    ) {
        let settings = bounds.settings(self.at.into());
        let empty = Tables::empty(StreamId(1));
        let mut source = &self.disk;
        let recovered = match recover(&mut source, &self.superblock, empty, &mut |_| {}) {
            Ok(recovered) => recovered,
            Err(error @ RecoveryError::Rotten(_)) => {
                self.halt = Some(Halt::Rotten);
                outputs.push(Output::Rotten(error.to_string()));
                return;
            }
            Err(error) => {
                outputs.push(Output::Wrong(format!("its log is refused: {error}")));
                return;
            }
        };
        if self.rotten.is_some() {
            outputs.push(Output::DiskLost(self.disk_before_rot()));
            self.rotten = None;
        }
        if recovered.decision == Decision::CutTorn {
            self.superblock.unknown_tail.get_or_insert(recovered.tail);
        }
        if let Some(cut) = &recovered.cut {
            let zeroes = vec![Page::default(); cut.leftovers as usize / PAGE];
            self.disk.put(cut.position, &zeroes);
        }
        self.lives += 1;
        self.floor = recovered.tail;
        self.log = self.disk.clone();
        self.log.cut(page_of(recovered.tail));
        let life = (u64::from(self.at) + 1) * 1_000 + u64::from(self.lives);
        let start = Start {
            tables: recovered.tables,
            vote: Vote {
                promised: self.superblock.promised,
                committed: self.superblock.committed,
                nonce: self.superblock.committed_nonce,
                unknown_tail: self.superblock.unknown_tail,
                learning_from: self.superblock.learning_from,
            },
            carry,
            write_method: WriteMethod::Dsync,
            prepared: Position(MEMORY as u64),
            session: None,
            now: self.now(),
        };
        let group = bounds.group(self.at.into(), self.member(), life);
        let node = Node::of_group(settings, group, bounds.book.clone(), start);
        self.node = Some(Box::new(node));
    }

    /// The last block on the disk rots.
    pub(super) fn rot(&mut self, rot: Rot) {
        let at = self.disk.len() - 1;
        let before = self.disk.pages()[at].clone();
        let mut bytes = *before.bytes();
        let is_block = block::decode_header(&bytes).is_ok();
        let place = match rot {
            Rot::Header if is_block => HEADER_CHECKSUM_AT,
            Rot::Header | Rot::Body => HEADER_LENGTH + 8,
        };
        bytes[place] ^= 1;
        let position = Position((at * PAGE) as u64);
        self.disk.put(position, &[Page::of(&bytes)]);
        self.rotten = Some((at as u16, before));
    }

    /// A blank disk takes the place of this one.
    pub(super) fn replace_disk(&mut self, outputs: &mut Vec<Output>) {
        outputs.push(Output::DiskLost(self.disk_before_rot()));
        self.disk = Log::default();
        self.rotten = None;
        self.halt = None;
        self.superblock.disk_incarnation += 1;
        self.superblock.promised = Epoch(0);
        self.superblock.committed = Epoch(0);
        self.superblock.committed_nonce = 0;
        self.superblock.unknown_tail = None;
        self.superblock.learning_from = None;
    }

    fn disk_before_rot(&self) -> Log {
        let mut disk = self.disk.clone();
        if let Some((at, before)) = &self.rotten {
            let position = Position(u64::from(*at) * PAGE as u64);
            disk.put(position, std::slice::from_ref(before));
        }
        disk
    }
}

/// A write without its last sector; none where it has only one.
fn torn(write: &Write) -> Option<Vec<Page>> {
    let last = write.pages.iter().rposition(|page| !page.is_zero())?;
    let mut bytes = *write.pages[last].bytes();
    let sectors = bytes.chunks(SECTOR);
    let sector = sectors
        .into_iter()
        .rposition(|sector| !block::is_zero(sector))?;
    if last == 0 && sector == 0 {
        return None;
    }
    bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
    let mut pages = write.pages.clone();
    pages[last] = Page::of(&bytes);
    Some(pages)
}
