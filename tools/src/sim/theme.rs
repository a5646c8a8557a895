//! What a group's run is about besides its faults. Most have durable copies and an arbiter that remembers; some are about one
//! thing that needs a world of its own, and rules of its own for what may come of it.
//!
//! | theme | the world | how it must end |
//! | --- | --- | --- |
//! | plain | policy `durable`, an arbiter that keeps its record | everything acknowledged, delivered, the same on all disks |
//! | mirrored | policy `mirrored`: copies in memory count, and a process that starts is another copy | the same; where every copy of the set is gone an operator accepts the loss, the seqs go on behind all that were used, and whoever knows more raises the alarm |
//! | manual | an operator is the arbiter, each node keeps its own record | the same |
//! | restored | the arbiter comes back from a backup | the same where the record is the newest; otherwise a halt that says that the arbiter went back, and no other |
//! | forgetful | one disk forgets without a trace; beyond the promise all do | as plain; beyond the promise a halt, an alarm, or nobody that leads below the floor |

use crate::random::Random;

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Theme {
    /// Durable copies, an arbiter that remembers.
    Plain,
    /// The policy is `mirrored`.
    Mirrored,
    /// An operator is the arbiter.
    Manual,
    /// The arbiter comes back from a backup.
    Restored,
    /// Disks forget.
    Forgetful,
}

impl Theme {
    /// The theme of a group's run.
    pub(crate) const fn draw(random: &mut Random) -> Self {
        match random.below(100) {
            0..60 => Self::Plain,
            60..72 => Self::Mirrored,
            72..84 => Self::Manual,
            84..92 => Self::Restored,
            _ => Self::Forgetful,
        }
    }

    /// Whether somebody watches over the group and says a word where only an operator can.
    pub(crate) const fn has_operator(self) -> bool {
        matches!(self, Self::Mirrored | Self::Manual)
    }

    /// Whether the outcome of a change at the arbiter may stay unknown. An own register answers its own node; and where a copy
    /// is lost without a trace nothing else may keep the others from going on with theirs.
    pub(crate) const fn has_doubts(self) -> bool {
        !matches!(self, Self::Manual | Self::Forgetful)
    }

    /// Whether some groups have an observer: where a node that is not counted on changes nothing about what may come of the run.
    pub(crate) const fn has_observers(self) -> bool {
        matches!(self, Self::Plain | Self::Mirrored | Self::Manual)
    }
}
