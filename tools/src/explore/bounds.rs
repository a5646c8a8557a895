//! How small the world is: sizes, times, and how much of each fault there is.
//!
//! The clock of a node stands still but for the actions that move it. Times are chosen so that what does not need time never
//! waits for it: a closed connection is suspicion at once, a retry needs no pause, a learner is taken in as soon as it has
//! caught up. What does need time happens by three actions: [`BEAT_NS`] passes at one node (a heartbeat is due),
//! [`LAPSE_NS`] passes at one node (everybody has been silent for too long, deadlines are over), and
//! [`REDIAL_NS`] before a connection is made again.

use std::sync::Arc;

use relay_core::credential::{Credential, CredentialBook};
use relay_core::group::{GroupSettings, PeerSettings};
use relay_core::settings::Settings;
use relay_wire::code::Policy;
use relay_wire::id::{NodeId, PublisherId, StreamId};
use relay_wire::membership::Member;

/// Most nodes.
pub(crate) const NODES_MAX: usize = 3;
/// The alignment of blocks: nearly every block is one page.
pub(crate) const PAGE: usize = 1024;
/// Bytes of log a node can hold, in memory and on its disk: two segments. A record can be 66 KiB long, and there has to be room
/// for two.
pub(crate) const MEMORY: usize = 256 << 10;
const SEGMENT: u64 = 128 << 10;
/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;

pub(crate) const MS: u64 = 1_000_000;
/// One heartbeat.
pub(crate) const BEAT_NS: u64 = 500 * MS;
/// Longer than any patience.
pub(crate) const LAPSE_NS: u64 = 2_000 * MS;
/// The pause before a node dials again.
pub(crate) const REDIAL_NS: u64 = 20 * MS;
/// Where the clocks begin: far from zero, so that nothing is young.
pub(crate) const CLOCK_START_NS: u64 = 1_000_000 * MS;
/// A time that never comes.
const NEVER_NS: u64 = 1 << 60;

/// The kinds of faults and other events that are counted out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A process dies, at any moment and with any of its writes done or not.
    Crash,
    /// A connection breaks.
    Close,
    /// The answer to a swap is lost, before or after it was carried out, or it is carried out later.
    Unknown,
    /// The arbiter is not reached.
    Unavailable,
    /// A heartbeat's time passes at a node.
    Beat,
    /// A long time passes at a node, in which it hears nothing.
    Lapse,
    /// The last block on the disk of a stopped node rots.
    Damage,
    /// The disk of a stopped node is replaced by a blank one.
    Blank,
    /// An operator asks for a switch.
    HandOver,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Crash,
        Self::Close,
        Self::Unknown,
        Self::Unavailable,
        Self::Beat,
        Self::Lapse,
        Self::Damage,
        Self::Blank,
        Self::HandOver,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Close => "close",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
            Self::Beat => "beat",
            Self::Lapse => "lapse",
            Self::Damage => "damage",
            Self::Blank => "blank",
            Self::HandOver => "hand-over",
        }
    }
}

/// How much is left of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget([u8; Kind::ALL.len()]);

impl Budget {
    pub(crate) const fn of(&self, kind: Kind) -> u8 {
        self.0[kind as usize]
    }

    pub(crate) const fn set(&mut self, kind: Kind, count: u8) {
        self.0[kind as usize] = count;
    }

    pub(crate) fn spend(&mut self, kind: Kind) {
        let left = &mut self.0[kind as usize];
        *left = left.checked_sub(1).expect("looked at before");
    }

    /// Four bits each, as three words at most.
    pub(crate) fn words(&self) -> [u32; 2] {
        let mut packed = 0_u64;
        for (at, count) in self.0.iter().enumerate() {
            packed |= u64::from(*count) << (4 * at);
        }
        [packed as u32, (packed >> 32) as u32]
    }

    pub(crate) fn from_words(words: [u32; 2]) -> Self {
        let packed = u64::from(words[0]) | u64::from(words[1]) << 32;
        let mut budget = Self::default();
        for (at, count) in budget.0.iter_mut().enumerate() {
            *count = (packed >> (4 * at) & 15) as u8;
        }
        budget
    }
}

/// What does not change during a search.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) nodes: usize,
    pub(crate) min_copies: u8,
    /// Messages the publisher has.
    pub(crate) messages: u64,
    pub(crate) budget: Budget,
    pub(crate) book: Arc<CredentialBook>,
}

impl Bounds {
    pub(crate) fn new(nodes: usize, min_copies: u8, messages: u64, budget: Budget) -> Self {
        let credential = Credential {
            name: "one".to_owned(),
            secret: b"0123456789abcdef".to_vec(),
            publisher: Some(PublisherId(1)),
            publish: vec![">".to_owned()],
            subscribe: vec![">".to_owned()],
            rate_limit: 0,
        };
        Self {
            nodes,
            min_copies,
            messages,
            budget,
            book: Arc::new(CredentialBook::new(vec![credential])),
        }
    }

    /// The others of node `at`, in the order of its configuration.
    pub(crate) fn peers_of(&self, at: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes).filter(move |other| *other != at)
    }

    /// The place of node `other` among the peers of node `at`.
    pub(crate) const fn place_of(at: usize, other: usize) -> usize {
        if other > at { other - 1 } else { other }
    }

    /// The node at a place among the peers of node `at`.
    pub(crate) const fn node_at(at: usize, place: usize) -> usize {
        if place >= at { place + 1 } else { place }
    }

    pub(crate) fn settings(&self, at: usize) -> Settings {
        Settings {
            node: NodeId(at as u64 + 1),
            stream: StreamId(1),
            policy: Policy::Durable,
            payload_limit: 512,
            credit: 1 << 18,
            heartbeat_ns: NEVER_NS,
            logon_timeout_ns: NEVER_NS,
            connections_max: 2,
            unauthenticated_max: 1,
            publishers_max: 2,
            topics_max: 2,
            subscribers_max: 1,
            block_alignment: PAGE as u32,
            block_length_max: 2048,
            seal_threshold: 1024,
            eager_depth: 1,
            write_depth: 3,
            segment_size: SEGMENT,
            ring_size: MEMORY as u64,
            mark_after_ns: 1_000 * MS,
            stall_limit_ns: NEVER_NS,
            lag_limit: 0,
            replay_slots: 1,
            replay_slot_size: 4096,
        }
    }

    pub(crate) fn group(&self, at: usize, member: Member, life: u64) -> GroupSettings {
        let peers = self.peers_of(at).map(|other| PeerSettings {
            node: NodeId(other as u64 + 1),
            is_observer: false,
        });
        GroupSettings {
            identity: member,
            process: life,
            seed: life,
            logged_span_max: 0,
            is_observer: false,
            peers: peers.collect(),
            secret: b"the group's secret".to_vec(),
            policy: Policy::Durable,
            min_copies: self.min_copies,
            is_manual: false,
            heartbeat_ns: BEAT_NS,
            suspect_ns: 1_200 * MS,
            suspect_closed_ns: 0,
            head_start_ns: 0,
            start_wait_ns: 0,
            ack_deadline_ns: 1_000 * MS,
            readmit_after_ns: 0,
            disk_stall_ns: 1_500 * MS,
            retry_ns: 0,
            floor_every_ns: NEVER_NS,
            catch_up_rate: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_fits_two_words() {
        let mut budget = Budget::default();
        for (count, kind) in (1..).zip(Kind::ALL) {
            budget.set(kind, count);
        }
        assert_eq!(Budget::from_words(budget.words()), budget);
    }

    #[test]
    fn places_and_nodes() {
        for at in 0..3 {
            for place in 0..2 {
                let node = Bounds::node_at(at, place);
                assert_eq!(Bounds::place_of(at, node), place);
                assert_ne!(node, at);
            }
        }
    }
}
