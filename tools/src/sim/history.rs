//! What happened in a run: every event goes into one number, and may be shown to a person.
//!
//! The number is the run's fingerprint: two runs of the same seed have the same, or something outside the seed had a say.
//! The last notes are always kept, so that a failure can be shown with what led to it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::faults::Fault;
use crate::random::mix;

/// Notes kept for a failure.
const KEPT: usize = 60;

/// Something worth remembering. Positions, seqs and epochs are plain numbers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    Fault {
        index: usize,
        fault: Fault,
    },
    FaultEnds {
        index: usize,
    },
    Healed,
    Starting {
        node: usize,
    },
    Recovered {
        node: usize,
        tail: u64,
        next_seq: u64,
        cut: Option<u64>,
    },
    Serving {
        node: usize,
        epoch: u64,
    },
    Killed {
        node: usize,
    },
    PowerCut {
        node: usize,
    },
    Stopped {
        node: usize,
        tail: u64,
    },
    StorageFault {
        node: usize,
    },
    Halted {
        node: usize,
    },
    Write {
        node: usize,
        block: u64,
        position: u64,
        length: u32,
    },
    Written {
        node: usize,
        block: u64,
    },
    Sync {
        node: usize,
    },
    Synced {
        node: usize,
    },
    Released {
        node: usize,
        position: u64,
        next_seq: u64,
    },
    Checkpoint {
        node: usize,
        position: u64,
    },
    Prepared {
        node: usize,
        end: u64,
    },
    Damaged {
        node: usize,
        position: u64,
    },
    Mended {
        node: usize,
        position: u64,
    },
    Node {
        node: usize,
        what: relay_core::node::Note,
    },
    BeginsAgain {
        node: usize,
        reason: relay_core::group::RestartReason,
    },
    Voted {
        node: usize,
        promised: u64,
        committed: u64,
    },
    /// An operator's word.
    Promoted {
        node: usize,
        accepts_loss: bool,
    },
    Record {
        epoch: u64,
        primary: u64,
        members: relay_wire::membership::Members,
    },
    Connects {
        client: usize,
        node: usize,
    },
    LoggedOn {
        client: usize,
        next_expected: u64,
        released_through: u64,
    },
    Published {
        client: usize,
        from: u64,
        through: u64,
    },
    Acknowledged {
        client: usize,
        through: u64,
        seq: u64,
    },
    Rejected {
        client: usize,
        code: u16,
        next_expected: u64,
    },
    Subscribes {
        client: usize,
        from: u8,
        value: u64,
    },
    Delivered {
        client: usize,
        through: u64,
    },
    Ended {
        client: usize,
        code: u16,
    },
    Lost {
        client: usize,
    },
}

impl core::fmt::Display for Note {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Fault { index, fault } => write!(f, "FAULT {index}: {fault}"),
            Self::FaultEnds { index } => write!(f, "fault {index} is over"),
            Self::Healed => write!(f, "no more faults: everything must come to rest now"),
            Self::Starting { node } => write!(f, "node {node} starts"),
            Self::Recovered {
                node,
                tail,
                next_seq,
                cut,
            } => {
                write!(f, "node {node} recovered: tail {tail}, next seq {next_seq}")?;
                cut.map_or(Ok(()), |bytes| {
                    write!(f, ", {bytes} bytes to be zeroed behind it")
                })
            }
            Self::Serving { node, epoch } => write!(f, "node {node} serves in epoch {epoch}"),
            Self::Killed { node } => write!(f, "node {node}'s process is killed"),
            Self::PowerCut { node } => write!(f, "node {node} loses power"),
            Self::Stopped { node, tail } => write!(f, "node {node} stopped cleanly at {tail}"),
            Self::StorageFault { node } => write!(f, "node {node} gives up its disk"),
            Self::Halted { node } => write!(f, "node {node} halts"),
            Self::Write {
                node,
                block,
                position,
                length,
            } => {
                write!(
                    f,
                    "node {node} writes block {block}: {length} bytes at {position}"
                )
            }
            Self::Written { node, block } => write!(f, "node {node}: block {block} is written"),
            Self::Sync { node } => write!(f, "node {node} syncs"),
            Self::Synced { node } => write!(f, "node {node}: synced"),
            Self::Released {
                node,
                position,
                next_seq,
            } => {
                write!(
                    f,
                    "node {node} releases up to {position}, next seq {next_seq}"
                )
            }
            Self::Checkpoint { node, position } => {
                write!(f, "node {node} writes a checkpoint at {position}")
            }
            Self::Prepared { node, end } => write!(f, "node {node}: prepared up to {end}"),
            Self::Damaged { node, position } => {
                write!(f, "node {node} reports damage at {position}")
            }
            Self::Mended { node, position } => {
                write!(f, "node {node} has the block at {position} from a peer")
            }
            Self::Node { node, what } => write!(f, "node {node}: {what:?}"),
            Self::BeginsAgain { node, reason } => {
                write!(f, "node {node} begins again: {reason:?}")
            }
            Self::Voted {
                node,
                promised,
                committed,
            } => write!(
                f,
                "node {node} has promised epoch {promised} and knows of {committed}"
            ),
            Self::Promoted { node, accepts_loss } => {
                let how = if accepts_loss {
                    ", whatever is lost by it"
                } else {
                    ""
                };
                write!(f, "node {node} is told to lead{how}")
            }
            Self::Record {
                epoch,
                primary,
                members,
            } => {
                write!(
                    f,
                    "the arbiter: epoch {epoch}, node {primary} leads, members"
                )?;
                let members = members.as_slice().iter();
                members
                    .into_iter()
                    .try_for_each(|m| write!(f, " {}", m.node))
            }
            Self::Connects { client, node } => write!(f, "client {client} connects to node {node}"),
            Self::LoggedOn {
                client,
                next_expected,
                released_through,
            } => write!(
                f,
                "client {client} is logged on: next expected {next_expected}, released through \
                 {released_through}"
            ),
            Self::Published {
                client,
                from,
                through,
            } => {
                write!(f, "client {client} sends {from} to {through}")
            }
            Self::Acknowledged {
                client,
                through,
                seq,
            } => {
                write!(
                    f,
                    "client {client}: acknowledged through {through}, which is seq {seq}"
                )
            }
            Self::Rejected {
                client,
                code,
                next_expected,
            } => write!(
                f,
                "client {client}: rejected with code {code}, next expected {next_expected}"
            ),
            Self::Subscribes {
                client,
                from,
                value,
            } => {
                write!(
                    f,
                    "client {client} subscribes from kind {from}, value {value}"
                )
            }
            Self::Delivered { client, through } => {
                write!(f, "client {client}: delivered through seq {through}")
            }
            Self::Ended { client, code } => {
                write!(f, "client {client}: the relay ended it with code {code}")
            }
            Self::Lost { client } => write!(f, "client {client}: its connection is gone"),
        }
    }
}

/// A hash that takes words as they come; all it must do is tell two runs apart, the same way on every machine.
#[derive(Debug, Clone, Copy, Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number as u64);
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct History {
    fold: Fold,
    count: u64,
    kept: VecDeque<(u64, Note)>,
    keeps_all: bool,
}

impl History {
    /// An empty history; with `keeps_all` every note stays, otherwise the last ones.
    pub(crate) fn new(keeps_all: bool) -> Self {
        Self {
            fold: Fold::default(),
            count: 0,
            kept: VecDeque::with_capacity(KEPT + 1),
            keeps_all,
        }
    }

    /// `note` happened at the simulated time `at_ns`.
    pub(crate) fn note(&mut self, at_ns: u64, note: Note) {
        self.fold.write_u64(at_ns);
        note.hash(&mut self.fold);
        self.count += 1;
        if self.kept.len() >= KEPT && !self.keeps_all {
            self.kept.pop_front();
        }
        self.kept.push_back((at_ns, note));
    }

    /// The fingerprint of all that happened so far.
    pub(crate) fn hash(&self) -> u64 {
        self.fold.finish()
    }

    /// How many notes there were.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The notes that were kept, a line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.kept
            .iter()
            .map(|(at_ns, note)| format!("{:>12.6} s  {note}", *at_ns as f64 / 1e9))
    }
}
