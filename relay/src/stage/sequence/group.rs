//! What the sequence agent of a group's node has besides: the ways to the keeper of the vote, to the arbiter and to the fan-out
//! of a new reign, and the counters that say how the group stands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_core::arbiter::ArbiterRequest;
use relay_core::command::Now;
use relay_core::credential::CredentialBook;
use relay_core::fanout::Fanout;
use relay_core::group::Vote;
use relay_core::node::{Fetched, Node, Note};
use relay_core::settings::Settings;
use relay_journal::tables::Tables;
use relay_wire::id::{Epoch, NodeId, Position};
use relay_wire::membership::Membership;

use super::Timed;
use crate::arbiter::ArbiterHandle;
use crate::counters::{Counter, CounterFile, Hop};
use crate::keeper::KeeperLink;
use crate::link::{Answered, PositionCell};
use crate::scrubber::ScrubEnd;
use crate::stage::{Doubts, ToEgress};

/// How the group stands is exported so often.
const EXPORT_NS: u64 = 5_000_000;

/// What [`GroupEnds::new`] takes.
pub(crate) struct GroupParts {
    pub(crate) settings: Settings,
    pub(crate) credentials: Arc<CredentialBook>,
    pub(crate) to_egress: rtrb::Producer<ToEgress>,
    pub(crate) doubts: Doubts,
    pub(crate) keeper: KeeperLink,
    pub(crate) arbiter: ArbiterHandle,
    /// Raised when the arbiter has answered.
    pub(crate) arbiter_answered: Answered,
    /// In the order of the configuration.
    pub(crate) peers: Vec<NodeId>,
    /// What the scrubber asks the peers.
    pub(crate) scrub: ScrubEnd,
}

/// See the module's description.
pub(crate) struct GroupEnds {
    parts: GroupParts,
    exported: GroupExported,
    exported_ns: u64,
    /// What housekeeping was told to be released.
    released_told: Position,
    /// What this node sealed as the primary and did not release.
    pub(super) unreleased: Timed,
}

#[derive(Debug)]
struct GroupExported {
    standing: Counter,
    epoch: Counter,
    primary: Counter,
    members: Counter,
    min_copies: Counter,
    promised: Counter,
    is_changing: Counter,
    is_tail_unknown: Counter,
    obstacle: Counter,
    takeovers: Counter,
    arbiter_heard: Counter,
    appended: Counter,
    durable: Counter,
    released: Counter,
    trading_session: Counter,
    sequenced_to_released: Hop,
    peers: Vec<PeerExported>,
}

#[derive(Debug)]
struct PeerExported {
    is_connected: Counter,
    is_member: Counter,
    standing: Counter,
    mirrored: Counter,
    durable: Counter,
    lag: Counter,
    mismatches: Counter,
}

impl GroupEnds {
    pub(super) fn new(parts: GroupParts, tail: Position, file: &mut CounterFile) -> Self {
        let peer = |node: &NodeId, file: &mut CounterFile| {
            let mut counter = |what: &str| file.counter(&format!("peer.{node}.{what}"));
            PeerExported {
                is_connected: counter("is_connected"),
                is_member: counter("is_member"),
                standing: counter("standing"),
                mirrored: counter("mirrored"),
                durable: counter("durable"),
                lag: counter("lag_bytes"),
                mismatches: counter("mismatches"),
            }
        };
        Self {
            exported: GroupExported {
                standing: file.counter("group.standing"),
                epoch: file.counter("group.epoch"),
                primary: file.counter("group.primary"),
                members: file.counter("group.members"),
                min_copies: file.counter("group.min_copies"),
                promised: file.counter("group.promised"),
                is_changing: file.counter("group.is_changing"),
                is_tail_unknown: file.counter("group.is_tail_unknown"),
                obstacle: file.counter("group.obstacle"),
                takeovers: file.counter("group.takeovers"),
                arbiter_heard: file.counter("group.arbiter_heard_ns"),
                appended: file.counter("position.appended"),
                durable: file.counter("position.durable"),
                released: file.counter("position.released"),
                trading_session: file.counter("sequence.trading_session"),
                sequenced_to_released: file.hop("sequenced_to_released"),
                peers: parts.peers.iter().map(|node| peer(node, file)).collect(),
            },
            parts,
            exported_ns: 0,
            released_told: tail,
            unreleased: Timed::from(tail),
        }
    }

    /// The primary has released the log up to `position`: every copy that was waited for is there.
    pub(super) fn on_released(&mut self, position: Position, now: Now) {
        let hop = &mut self.exported.sequenced_to_released;
        self.unreleased.reached(position, now, hop);
    }

    /// Hands in what the keeper and the arbiter have answered. An error is a fault of the disk.
    pub(super) fn hear(&mut self, node: &mut Node, now: Now) -> Result<(), String> {
        if self.parts.arbiter_answered.take() {
            while let Some(reply) = self.parts.arbiter.poll() {
                node.on_arbiter(&reply, now);
            }
        }
        let doubts = &self.parts.doubts;
        if doubts.raised.take() {
            node.on_doubt(doubts.raised_ns.load(Ordering::Acquire));
        }
        while let Some(stored) = self.parts.keeper.poll() {
            stored?;
            node.on_vote_stored();
        }
        while let Ok((peer, place)) = self.parts.scrub.questions.pop() {
            if !node.fetch(peer, place) {
                // The scrubber may have given up waiting.
                let _ = self.parts.scrub.answers.push(None);
            }
        }
        Ok(())
    }

    /// A peer answered what the scrubber asked.
    pub(super) fn fetched(&mut self, fetched: Box<Fetched>) {
        let _ = self.parts.scrub.answers.push(Some(fetched));
    }

    pub(super) fn ask(&self, request: ArbiterRequest) {
        let asked = self.parts.arbiter.ask(request);
        assert!(asked.is_ok(), "one request is under way at a time");
    }

    pub(super) fn store(&mut self, vote: Vote, record: Option<Membership>) {
        self.parts.keeper.store(vote, record);
    }

    pub(super) fn note(&mut self, note: Note) {
        self.parts.keeper.note(note);
    }

    /// A reign begins: its subscribers get a fan-out over the log as it is.
    pub(super) fn lead(&mut self, tables: &Tables, epoch: Epoch) {
        self.unreleased.restart(tables.position);
        self.exported.takeovers.add(1);
        let settings = self.parts.settings.clone();
        let credentials = Arc::clone(&self.parts.credentials);
        let mut fanout = Box::new(Fanout::new(settings, credentials, tables, epoch));
        fanout.ask_before_alarm();
        self.say(ToEgress::Reign(fanout));
    }

    /// This node led still when egress doubted it.
    pub(super) fn assured(&self, asked_ns: u64) {
        let doubts = &self.parts.doubts;
        doubts.asked_ns.store(asked_ns, Ordering::Release);
        doubts.settled.raise();
    }

    /// Subscribers are to look for another node.
    pub(super) fn withdraw(&mut self) {
        let end = self.unreleased.end;
        self.unreleased.restart(end);
        self.say(ToEgress::Withdraw);
    }

    /// Subscribers may come again.
    pub(super) fn serve_again(&mut self) {
        self.say(ToEgress::ServeAgain);
    }

    fn say(&mut self, word: ToEgress) {
        // Words come at the pace of elections; egress takes them in its every turn.
        let passed = self.parts.to_egress.push(word);
        assert!(passed.is_ok(), "egress takes the few words there are");
    }

    /// Whether nothing waits for this agent.
    pub(super) fn is_idle(&self) -> bool {
        !self.parts.arbiter_answered.is_raised()
            && !self.parts.doubts.raised.is_raised()
            && self.parts.keeper.is_idle()
            && self.parts.scrub.questions.is_empty()
    }

    /// Exports how the group stands, now and then, and lets housekeeping know how far the log on this disk is released.
    pub(super) fn export(&mut self, node: &Node, released: &PositionCell, now: Now) {
        if now.mono_ns < self.exported_ns + EXPORT_NS {
            return;
        }
        self.exported_ns = now.mono_ns;
        let status = node.status();
        // Where copies in memory count, release may be ahead of this disk, and a follower may know of more than it has.
        let known = status.released.point.position;
        let known = known.min(status.durable.point.position);
        if known > self.released_told {
            self.released_told = known;
            released.publish(known);
        }
        let exported = &self.exported;
        let appended = status.appended.point.position;
        exported.standing.set(status.standing as u64);
        exported.epoch.set(status.epoch.get());
        exported.promised.set(status.vote.promised.get());
        exported.is_changing.set(status.is_changing.into());
        let is_tail_unknown = status.vote.unknown_tail.is_some();
        exported.is_tail_unknown.set(is_tail_unknown.into());
        let obstacle = status.obstacle.map_or(0, |obstacle| obstacle as u64);
        exported.obstacle.set(obstacle);
        exported.appended.set(appended.get());
        exported.durable.set(status.durable.point.position.get());
        exported.released.set(status.released.point.position.get());
        exported.trading_session.set(node.trading_session());
        if let Some(membership) = &status.membership {
            exported.primary.set(membership.primary.get());
            exported.members.set(membership.members.len() as u64);
            exported.min_copies.set(membership.min_copies.into());
        }
        if let Some(heard_ns) = status.arbiter_heard_ns {
            let ago_ns = now.mono_ns.saturating_sub(heard_ns);
            exported
                .arbiter_heard
                .set(now.utc_ns.saturating_sub(ago_ns));
        }
        for (peer, exported) in node.peers().zip(&exported.peers) {
            exported.is_connected.set(peer.is_connected.into());
            exported.is_member.set(peer.is_member.into());
            exported.standing.set(peer.standing as u64);
            exported.mirrored.set(peer.mirrored.get());
            exported.durable.set(peer.durable.get());
            let lag = appended.get().saturating_sub(peer.durable.get());
            exported.lag.set(lag);
            exported.mismatches.set(peer.mismatches);
        }
    }
}
