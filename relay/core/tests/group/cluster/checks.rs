//! What must hold in every scenario: what is released lies on enough disks and never changes.

use relay_wire::record::Record;

use super::*;

impl Cluster {
    pub fn describe(&self) -> String {
        let mut text = format!(
            "at {} ms, registers {:?}\npublisher acked {} of {}\n",
            self.now.mono_ns / MS,
            self.registers,
            self.publisher.acked,
            self.publisher.wanted
        );
        for (at, machine) in self.machines.iter().enumerate() {
            let status = machine.node.as_ref().map(Node::status);
            text += &format!(
                "machine {at}: halted {:?}, frozen {}, {status:?}\n",
                machine.halted, machine.is_frozen
            );
            if let Some(node) = &machine.node {
                for peer in node.peers() {
                    text += &format!("    {peer:?}\n");
                }
            }
        }
        text
    }

    /// Compares what is released with everything released before, and with the disks of every copy that counts.
    pub(super) fn on_released(&mut self, at: usize, position: Position) {
        let machine = &mut self.machines[at];
        machine.floor = position;
        let end = position.get() as usize;
        let node = machine.node.as_ref().unwrap();
        let status = node.status();
        let first = node.ring_start().get() as usize;
        let mut log = machine.disk.bytes[..first.min(end)].to_vec();
        log.extend_from_slice(&machine.memory[first.min(end)..end]);
        let common = log.len().min(self.ledger.len());
        assert!(
            is_same_log(&log[..common], &self.ledger[..common]),
            "two histories"
        );
        if log.len() > self.ledger.len() {
            self.ledger = log;
            let before = *self.released_by.entry(status.epoch).or_insert(at);
            assert_eq!(before, at, "two nodes release in epoch {}", status.epoch);
            if self.settings.policy == Policy::Durable {
                let ledger = &self.ledger;
                let copies = self.machines.iter();
                let copies = copies.filter(|m| is_same_log(&m.disk.bytes[..end], ledger));
                assert!(
                    copies.count() >= self.min_copies.into(),
                    "released to {end} with too few copies\n{}",
                    self.describe()
                );
            }
        }
    }

    /// What was released behind the end of this machine's log is given up: its log is the history from here on.
    pub fn accept_loss(&mut self, at: usize) {
        let node = self.machines[at].node.as_ref().unwrap();
        let tail = node.status().durable.point.position.get() as usize;
        let log = &self.machines[at].disk.bytes[..tail];
        let mut parting = 0;
        while let Ok(ours) = relay_journal::block::decode_header(&log[parting..])
            && let Some(theirs) = self.ledger.get(parting..)
            && relay_journal::block::decode_header(theirs) == Ok(ours)
        {
            parting += ours.span as usize;
        }
        self.ledger.truncate(parting);
        self.publisher.acked = 0;
        self.publisher.sent = 0;
    }

    /// Kinds of all records released.
    pub fn kinds(&self) -> Vec<RecordKind> {
        let mut kinds = Vec::new();
        self.each_record(|record| kinds.extend(record.kind()));
        kinds
    }

    /// Shows every record released.
    pub fn each_record(&self, mut show: impl FnMut(&Record<'_>)) {
        let mut at = 0;
        while at < self.ledger.len() {
            let header = relay_journal::block::decode_header(&self.ledger[at..]).unwrap();
            let body =
                &self.ledger[at + relay_journal::block::HEADER_LENGTH..at + header.body_end()];
            for record in relay_journal::block::records(body) {
                show(&record.unwrap().1);
            }
            at += header.span as usize;
        }
    }

    /// The fold of everything released.
    pub fn tables(&self) -> Tables {
        let mut disk = Disk {
            bytes: self.ledger.clone(),
            superblock: self.machines[0].disk.superblock,
        };
        disk.superblock.clean = None;
        let superblock = disk.superblock;
        let empty = Tables::empty(self.settings.stream);
        let recovered = recover(&mut disk, &superblock, empty, &mut |_| {});
        recovered.unwrap().tables
    }

    /// Folds the ledger: everything acknowledged is in it, once, in order.
    pub fn verify(&self) {
        let tables = self.tables();
        let publisher = &tables.publishers[&PublisherId(1)];
        assert!(publisher.last.get() >= self.publisher.acked);
        assert_eq!(
            tables.next_seq.get() - 1,
            publisher.last.get(),
            "each message once"
        );
    }
}

/// Whether two logs hold the same blocks; what lies behind a filler's first unit is not part of a log.
fn is_same_log(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        let (Ok(left), Ok(right)) = (
            relay_journal::block::decode_header(&a[at..]),
            relay_journal::block::decode_header(&b[at..]),
        ) else {
            return false;
        };
        if left != right || a[at..at + left.body_end()] != b[at..at + left.body_end()] {
            return false;
        }
        at += left.span as usize;
    }
    true
}
