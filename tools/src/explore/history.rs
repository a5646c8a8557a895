//! What was released and acknowledged, by anyone, since the beginning: what must never change any more.

use relay_wire::code::RecordKind;
use relay_wire::id::Position;

use crate::bounds::PAGE;
use crate::log::{Log, Page};

/// See the module's description.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct History {
    /// Everything released, page for page.
    pub(crate) ledger: Log,
    /// The epoch in which it last grew.
    pub(crate) grown_in: u64,
    /// The publisher's messages in it.
    messages: u64,
    /// Who released in which epoch.
    releases: Vec<(u64, u8)>,
    /// The publisher was told that everything up to this message is released.
    acknowledged: u64,
    /// The newest epoch the publisher heard of.
    seen: u64,
    /// What disks held that were replaced, or what rotted.
    lost: Vec<Log>,
}

impl History {
    /// Node `at` released `log` in `epoch`.
    pub(crate) fn on_released(&mut self, at: u8, epoch: u64, log: &[Page]) -> Result<(), String> {
        match self
            .releases
            .iter()
            .find(|(released, _)| *released == epoch)
        {
            Some((_, before)) if *before != at => {
                return Err(format!(
                    "nodes {} and {} both release in epoch {epoch}",
                    before + 1,
                    at + 1
                ));
            }
            Some(_) => {}
            None => self.releases.push((epoch, at)),
        }
        let held = self.ledger.pages();
        let common = held.len().min(log.len());
        if held[..common] != log[..common] {
            let parting = (0..common).find(|page| held[*page] != log[*page]);
            return Err(format!(
                "node {} releases other bytes at position {} than were released before",
                at + 1,
                parting.unwrap_or_default() * PAGE
            ));
        }
        if log.len() > held.len() {
            let from = held.len();
            self.grown_in = epoch;
            self.ledger
                .put(Position((from * PAGE) as u64), &log[from..]);
            self.count(from)?;
        }
        Ok(())
    }

    /// The messages of the ledger from a page on are the publisher's next ones.
    fn count(&mut self, from: usize) -> Result<(), String> {
        for (header, body) in Log::blocks(&self.ledger.pages()[from..]) {
            let mut seq = header.first_seq.get();
            for record in relay_journal::block::records(&body) {
                let (_, record) = record.map_err(|error| error.to_string())?;
                if record.kind() != Some(RecordKind::Data) {
                    continue;
                }
                let (found, wanted) = (record.publisher_seq().get(), self.messages + 1);
                if found != wanted || record.seq().get() != wanted || seq != wanted {
                    return Err(format!(
                        "message {found} is released with seq {} where {wanted} is next",
                        record.seq()
                    ));
                }
                seq += 1;
                self.messages = wanted;
            }
        }
        Ok(())
    }

    /// The publisher was told that everything up to `through` is released.
    pub(crate) fn on_acknowledged(&mut self, through: u64) -> Result<(), String> {
        if through > self.messages {
            return Err(format!(
                "message {through} is acknowledged, {} are released",
                self.messages
            ));
        }
        self.acknowledged = self.acknowledged.max(through);
        Ok(())
    }

    /// The publisher logged on and was told what is wanted next, and what is released. It does not stay with a node whose epoch
    /// is older than one it has seen: that one does not know yet that another serves.
    pub(crate) fn on_established(
        &mut self,
        epoch: u64,
        next: u64,
        released: u64,
    ) -> Result<(), String> {
        if epoch < self.seen {
            return Ok(());
        }
        self.seen = epoch;
        if released < self.acknowledged || next <= released {
            return Err(format!(
                "message {} was acknowledged; a logon hears that {released} are released and \
                 {next} is next",
                self.acknowledged
            ));
        }
        self.on_acknowledged(released)
    }

    /// A disk is gone that held this.
    pub(crate) fn on_disk_lost(&mut self, log: &Log) {
        if log.len() > 0 && !self.lost.contains(log) {
            self.lost.push(log.clone());
        }
    }

    /// Disks that held these pages and are gone.
    pub(crate) fn lost_with(&self, pages: &[Page]) -> usize {
        self.lost
            .iter()
            .filter(|log| log.starts_with(pages))
            .count()
    }

    pub(crate) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}
