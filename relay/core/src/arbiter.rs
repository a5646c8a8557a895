//! What a node asks of the arbiter, and what it may hear: values between the failover machine and whatever keeps the record.
//!
//! Three arbiters answer these: the witness (a durable compare-and-swap register in a third process), etcd, and an operator.
//! One request is under way at a time, and each answer names the request it is about. An answer is either certain or says that
//! it is not: [`ArbiterAnswer::Unknown`] for a change that may or may not have happened, and may still happen.

use relay_wire::membership::{Floor, Membership};

/// Names one state of a register at the arbiter; never used again for another. 0 names "nothing there".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// The registers of a stream as a linearizable read shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Registers {
    /// The membership record.
    pub membership: Membership,
    /// Its revision.
    pub revision: Revision,
    /// The released floor; `None` before the first was written.
    pub floor: Option<Floor>,
    /// Its revision; 0 where there is none.
    pub floor_revision: Revision,
}

/// A request. `id` comes back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArbiterRequest {
    /// The asker's number for it, rising.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// A linearizable read of both registers.
    Read,
    /// Puts `next` in the place of the record with revision `base`, if the floor still has revision `floor_base`.
    Swap {
        /// The record's revision it rests on.
        base: Revision,
        /// The floor's revision it rests on; `None`: whatever the floor is (a primary's own change).
        floor_base: Option<Revision>,
        /// The new record.
        next: Membership,
    },
    /// Writes the floor, if the record still has revision `base`.
    Floor {
        /// The record's revision it rests on.
        base: Revision,
        /// The new floor.
        floor: Floor,
    },
}

/// An answer to the request `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArbiterReply {
    /// Which request.
    pub id: u64,
    /// What came of it.
    pub answer: ArbiterAnswer,
}

/// What can come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArbiterAnswer {
    /// The registers, for a read. `None`: there is no record of this stream.
    Read(Option<Registers>),
    /// The swap or write happened; the register's new revision.
    Done(Revision),
    /// It did not and never will: a revision had moved on. The registers now.
    Refused(Option<Registers>),
    /// The arbiter was not reached and the request has surely not been carried out.
    Unavailable,
    /// The request may have been carried out, may not have, and may still be.
    Unknown,
    /// What the arbiter holds can't be read as this stream's registers: someone else's key, damage, another version.
    Garbled,
}
