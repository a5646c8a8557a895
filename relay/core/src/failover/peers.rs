//! What is known of the peers: what the links and the mirrors report, what a peer says of itself, and which of them is well.

use std::hash::{Hash, Hasher};

use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::membership::Member;
use relay_wire::peer::{Progress, Standing};

use super::Failover;
use crate::group::PeerSettings;
use crate::links::Identity;

/// A peer as the primary's mirror sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct MirrorFacts {
    /// It holds the epoch's opening record and follows the release at a short distance.
    pub(crate) is_near: bool,
    /// Its durable end has reached what is released this very moment, too.
    pub(crate) is_caught_up: bool,
    /// Something waits for its acknowledgement for longer than the deadline.
    pub(crate) is_overdue: bool,
}

/// A peer as heard of.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct PeerView {
    pub(crate) member: Member,
    pub(crate) is_observer: bool,
    pub(crate) is_connected: bool,
    /// When its connection last ended; none where there was none since the log was read.
    pub(crate) ended_ns: Option<u64>,
    /// A connection was refused since then, so its process is gone.
    pub(crate) is_gone: bool,
    /// When it last said something.
    pub(crate) heard_ns: u64,
    /// The epoch it stands in.
    pub(crate) epoch: Epoch,
    /// What it said, as far as something may be decided by it later.
    pub(crate) progress: Progress,
    /// It said something over this connection.
    pub(super) has_spoken: bool,
    pub(crate) told: ToldDurable,
    pub(crate) mirror: MirrorFacts,
    /// Since when it has been near without a break.
    pub(crate) caught_up_ns: Option<u64>,
    /// When it was last let into an epoch it demanded, or asked for its end.
    pub(crate) obliged_ns: u64,
    /// What it was asked to promise.
    pub(crate) asked: Epoch,
    /// An operator took it out; it stays out until it is told otherwise.
    pub(crate) is_detached: bool,
    /// It was told to take over, and has not come to follow anew since: it may still do so.
    pub(crate) is_called: bool,
}

/// End of what is durable at a peer as it last said, for people: no part of what a state is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ToldDurable(pub(crate) Position);

impl Hash for ToldDurable {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Failover {
    /// A peer proved who it is.
    pub(crate) fn on_peer_joined(&mut self, peer: u32, identity: Identity, now_ns: u64) {
        let counts_process = self.settings.identity.process != 0;
        let view = &mut self.peers[peer as usize];
        view.member.incarnation = identity.incarnation;
        view.member.process = if counts_process { identity.process } else { 0 };
        view.is_connected = true;
        view.is_gone = false;
        view.heard_ns = now_ns;
        view.epoch = Epoch(0);
        view.progress = Progress::default();
        view.has_spoken = false;
        view.told = ToldDurable::default();
        view.caught_up_ns = None;
        view.mirror = MirrorFacts::default();
    }

    pub(crate) fn on_peer_lost(&mut self, peer: u32, now_ns: u64) {
        let view = &mut self.peers[peer as usize];
        view.is_connected = false;
        view.ended_ns = Some(now_ns);
        view.is_gone = false;
        view.caught_up_ns = None;
        view.asked = Epoch(0);
    }

    /// Nobody listens at a peer's address.
    pub(crate) fn on_peer_refused(&mut self, peer: u32) {
        let view = &mut self.peers[peer as usize];
        view.is_gone = !view.is_connected;
    }

    /// A peer said something.
    pub(crate) fn on_heard(&mut self, peer: u32, now_ns: u64) {
        self.peers[peer as usize].heard_ns = now_ns;
    }

    /// A peer said where it stands.
    pub(crate) fn on_progress(&mut self, peer: u32, epoch: Epoch, progress: &Progress) {
        let mine = self.epoch();
        let view = &mut self.peers[peer as usize];
        view.epoch = epoch;
        view.has_spoken = true;
        view.told = ToldDurable(progress.durable);
        view.progress = if self.reign.is_some() {
            // What it holds its mirror keeps, as far as that counts; who leads looks for no other primary.
            Progress {
                lowest_join: progress.lowest_join,
                standing: progress.standing,
                is_disk_stalled: progress.is_disk_stalled,
                ..Progress::default()
            }
        } else {
            Progress {
                committed: Epoch(0),
                received: Position(0),
                received_checksum: 0,
                durable_checksum: 0,
                released: Position(0),
                ..*progress
            }
        };
        // Somebody knows of a later record, or leads beside us: the arbiter says what holds.
        let is_news = progress.committed > self.wanted.committed
            || (progress.standing == Standing::Leading && epoch > mine);
        if is_news && self.reign.is_some() {
            self.is_read_wanted = true;
        }
        if self.settings.is_manual && progress.committed > self.superseded {
            self.superseded = progress.committed;
            let is_over = self.superseded > self.wanted.committed && self.reign.is_some();
            if is_over && !self.is_halted {
                // No arbiter tells, but a later record is there: somebody was made primary since.
                self.step_down(self.superseded);
            }
        }
    }

    pub(crate) fn on_mirror_facts(&mut self, peer: u32, facts: MirrorFacts, now_ns: u64) {
        let view = &mut self.peers[peer as usize];
        view.mirror = facts;
        if !facts.is_near {
            view.caught_up_ns = None;
        } else if view.caught_up_ns.is_none() {
            view.caught_up_ns = Some(now_ns);
        }
    }

    /// Whether a node leads and is heard of, this one's primary or a later one.
    pub(super) fn is_primary_heard(&self, now_ns: u64) -> bool {
        self.primary_heard(now_ns).is_some()
    }

    pub(super) fn primary_heard(&self, now_ns: u64) -> Option<NodeId> {
        let known = self.membership().map_or(Epoch(0), |record| record.epoch);
        let leads = |view: &&PeerView| {
            view.is_connected
                && view.progress.standing == Standing::Leading
                && view.epoch >= known
                && !view.progress.is_disk_stalled
                && now_ns < view.heard_ns + self.settings.suspect_ns
        };
        self.peers.iter().find(leads).map(|view| view.member.node)
    }

    /// Whether a peer can be counted on now: connected, heard lately, its disk working.
    pub(super) fn is_well(&self, view: &PeerView, within_ns: u64, now_ns: u64) -> bool {
        view.is_connected && now_ns < view.heard_ns + within_ns && !view.progress.is_disk_stalled
    }

    pub(super) fn view_of(&self, member: &Member) -> Option<&PeerView> {
        self.peers.iter().find(|view| view.member == *member)
    }
}

impl PeerView {
    /// A peer that was never heard of.
    pub(super) fn new(peer: &PeerSettings) -> Self {
        Self {
            member: Member {
                node: peer.node,
                ..Member::default()
            },
            is_observer: peer.is_observer,
            is_connected: false,
            ended_ns: None,
            is_gone: false,
            heard_ns: 0,
            epoch: Epoch(0),
            progress: Progress::default(),
            has_spoken: false,
            told: ToldDurable::default(),
            mirror: MirrorFacts::default(),
            caught_up_ns: None,
            obliged_ns: 0,
            asked: Epoch(0),
            is_detached: false,
            is_called: false,
        }
    }

    /// End of its durable log as it last said.
    pub(super) const fn durable(&self) -> Position {
        self.progress.durable
    }
}
