//! The agents: they carry values between the machines of `relay-core` and the kernel, and decide nothing.
//!
//! Each has a duty cycle: completions are handed in one by one, `turn` drains what the machine wants, and the number of
//! things done is returned. They never import each other; what one tells another goes through a [`crate::link`].

pub(crate) mod egress;
pub(crate) mod ingress;
pub(crate) mod sequence;

use std::os::fd::OwnedFd;

use relay_core::command::{ReleasePoint, ToIngress, ToSequence};

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
