//! The agents: they carry values between the machines of `relay-core` and the kernel, and decide nothing.
//!
//! Each has a duty cycle: completions are handed in one by one, `turn` drains what the machine wants, and the number of
//! things done is returned. They never import each other; what one tells another goes through a [`crate::link`].

pub(crate) mod egress;
pub(crate) mod ingress;
pub(crate) mod replicate;
pub(crate) mod sequence;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use relay_core::command::{ReleasePoint, ToIngress, ToSequence};
use relay_core::fanout::Fanout;
use relay_core::group::{Carry, HaltReason, RestartReason};
use relay_core::links::LinkEffect;
use relay_core::node::ReadPurpose;
use relay_journal::superblock::CleanStop;
use relay_wire::id::Position;

use crate::link::Answered;

/// A command to the sequencer, with the receive buffer its bytes lie in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    pub(crate) command: ToSequence,
    /// Number of the receive buffer among those all publishers share.
    pub(crate) buffer: u32,
    /// When it was passed on, monotonic ns.
    pub(crate) passed_ns: u64,
}

/// A logged-on subscriber on its way to the fan-out.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) socket: OwnedFd,
    pub(crate) credential: u32,
    /// What it sent after its logon.
    pub(crate) early: Vec<u8>,
}

/// How far is released, and when that was found out, monotonic ns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) point: ReleasePoint,
    pub(crate) released_ns: u64,
}

/// What the node wants of its peers' sockets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ForPeers {
    /// Something about a connection.
    Link(LinkEffect),
    /// Read a piece of the log from disk.
    Read {
        peer: u32,
        purpose: ReadPurpose,
        position: Position,
        length: u32,
    },
}

/// From the sequence agent to egress, on a node of a group.
#[derive(Debug)]
pub(crate) enum ToEgress {
    /// This node leads: subscribers are served by this machine.
    Reign(Box<Fanout>),
    /// Every subscriber is sent to another node, and those that come.
    Withdraw,
    /// Subscribers are taken again.
    ServeAgain,
}

/// Between egress and the sequence agent of a group's node: whether this node still leads, asked before an alarm is raised.
#[derive(Debug, Clone)]
pub(crate) struct Doubts {
    /// Raised by egress.
    pub(crate) raised: Answered,
    /// When it last did, monotonic ns.
    pub(crate) raised_ns: Arc<AtomicU64>,
    /// Raised by the sequence agent where it does.
    pub(crate) settled: Answered,
    /// When the arbiter was asked that last said so, monotonic ns.
    pub(crate) asked_ns: Arc<AtomicU64>,
}

/// How a stream's work ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// As asked; with the clean stop to be recorded where everything accepted is released.
    Stopped(Option<CleanStop>),
    /// A write or sync failed, which is final for the disk.
    Fault(String),
    /// The node begins again from its disk.
    Restart {
        reason: RestartReason,
        carry: Carry,
        /// End of what was ever written.
        log_end: Position,
    },
    /// There is no way on without an operator.
    Halt(HaltReason),
}

impl End {
    /// What counts where `later` comes too: the first, but that a disk which failed is not gone on with, whatever was decided before.
    pub(crate) fn and(self, later: Self) -> Self {
        match (&self, &later) {
            (Self::Stopped(_) | Self::Restart { .. }, Self::Fault(_)) => later,
            _ => self,
        }
    }
}

/// Sends into a link, keeping what does not fit for the next turn.
pub(crate) fn push_all<T>(
    link: &mut rtrb::Producer<T>,
    pending: &mut std::collections::VecDeque<T>,
) -> usize {
    let mut pushed = 0;
    while let Some(value) = pending.pop_front() {
        if let Err(rtrb::PushError::Full(value)) = link.push(value) {
            pending.push_front(value);
            break;
        }
        pushed += 1;
    }
    pushed
}

/// Replies in the order given.
pub(crate) type Replies = std::collections::VecDeque<ToIngress>;

#[cfg(test)]
mod tests {
    use relay_wire::id::Epoch;

    use super::*;

    /// Goal: no order of what ends a node's work makes it go on with a disk that failed.
    #[test]
    fn a_fault_counts_whatever_came_before() {
        let fault = || End::Fault("a write failed".into());
        assert!(matches!(End::Stopped(None).and(fault()), End::Fault(_)));
        assert!(matches!(fault().and(End::Stopped(None)), End::Fault(_)));
        let superseded = End::Restart {
            reason: RestartReason::Superseded(Epoch(2)),
            carry: Carry {
                start_promised: Epoch(1),
                joined: None,
                started_ns: 0,
                superseded: Epoch(0),
            },
            log_end: Position(0),
        };
        assert!(matches!(superseded.clone().and(fault()), End::Fault(_)));
        let stop = superseded.and(End::Stopped(None));
        assert!(matches!(stop, End::Restart { .. }), "else the first counts");
        let halt = End::Halt(HaltReason::TwoHistories(Epoch(2)));
        assert!(matches!(halt.and(fault()), End::Halt(_)));
    }
}
