//! The faults of a disk, as they are asked for.

use super::{Disk, Image, SECTOR, take};
use crate::random::Random;

/// The faults.
impl Disk {
    /// Nothing ends before `until_ns` but what is on its way already.
    pub(crate) fn stall(&mut self, until_ns: u64) {
        self.stalled_until_ns = self.stalled_until_ns.max(until_ns);
    }

    /// Whether it is stalled now.
    pub(crate) const fn is_stalled(&self, now_ns: u64) -> bool {
        now_ns < self.stalled_until_ns
    }

    /// Promises of durability are empty until then.
    pub(crate) fn lie(&mut self, until_ns: u64) {
        self.is_doubtful = true;
        self.lies_until_ns = self.lies_until_ns.max(until_ns);
    }

    /// The next write fails.
    pub(crate) const fn fail_write(&mut self) {
        self.writes_to_fail += 1;
    }

    /// The next sync fails.
    pub(crate) const fn fail_sync(&mut self) {
        self.syncs_to_fail += 1;
    }

    /// The next read fails.
    pub(crate) const fn fail_read(&mut self) {
        self.reads_to_fail += 1;
    }

    /// Whether a read now would fail; used up by asking.
    pub(crate) fn takes_read_failure(&mut self) -> bool {
        take(&mut self.reads_to_fail)
    }

    /// The next write to the log is lost.
    pub(crate) const fn lose_write(&mut self) {
        self.writes_to_lose += 1;
    }

    /// The next write to the log goes astray.
    pub(crate) const fn misdirect_write(&mut self) {
        self.writes_to_misdirect += 1;
    }

    /// The next read of the log is stale.
    pub(crate) const fn age_read(&mut self) {
        self.reads_to_age += 1;
    }

    /// Remembers from now on what stale reads see.
    pub(crate) const fn keep_recent(&mut self) {
        self.keeps_recent = true;
    }

    /// Turns a bit over in the sector of the log that holds `at`.
    pub(crate) fn rot(&mut self, at: u64, random: &mut Random) {
        let start = at - at % SECTOR as u64;
        let mut sector = [0; SECTOR];
        self.log.read(start, &mut sector);
        sector[random.below(SECTOR as u64) as usize] ^= 1 << random.below(8);
        self.log.pretend(start, &sector);
    }

    /// Damages the newest checkpoint, or removes it.
    pub(crate) fn damage_checkpoint(&mut self, random: &mut Random) {
        let Some((_, bytes)) = self.checkpoints.last_mut() else {
            return;
        };
        if random.chance(500_000) {
            self.checkpoints.pop();
        } else {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }

    /// No fault that was asked for and has not struck will.
    pub(crate) const fn disarm(&mut self) {
        self.writes_to_fail = 0;
        self.syncs_to_fail = 0;
        self.reads_to_fail = 0;
        self.writes_to_lose = 0;
        self.writes_to_misdirect = 0;
        self.reads_to_age = 0;
        self.stalled_until_ns = 0;
        self.lies_until_ns = 0;
    }

    /// A copy of everything on it.
    pub(crate) fn image(&self) -> Image {
        Image {
            log: self.log.clone(),
            superblock: self.superblock.clone(),
            checkpoints: self.checkpoints.clone(),
            prepared: self.prepared,
            incarnation: self.incarnation,
        }
    }

    /// The disk is the one of `image`; its process is not running.
    pub(crate) fn restore(&mut self, image: Image) {
        self.log = image.log;
        self.superblock = image.superblock;
        self.checkpoints = image.checkpoints;
        self.prepared = image.prepared;
        self.incarnation = image.incarnation;
        self.is_doubtful = true;
        self.recent.clear();
    }
}
