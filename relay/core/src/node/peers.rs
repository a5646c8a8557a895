//! What peers say, and what is said to them.

use relay_journal::block;
use relay_wire::id::{Epoch, Position};
use relay_wire::membership::Membership;
use relay_wire::peer::{Envelope, History, HistoryEntry, PeerMessage, Progress};
use relay_wire::proof::Nonce;

use super::{Group, Node, NodeEffect, Note, ReadPurpose, Role};
use crate::command::Now;
use crate::group::{HaltReason, RestartReason};
use crate::history::{Parting, Tail, part};
use crate::links::{LinkId, Received};
use crate::log::LogWindow;
use crate::mirror::ReadOutcome;
use crate::standby::{Intake, IntakeError};

/// What became of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Bytes from the start that are done with.
    pub consumed: usize,
    /// A block could not be taken for want of room: offer the rest again next turn, and receive no more until then.
    pub is_stalled: bool,
}

impl Node {
    /// A connection to a peer is there: dialled to the one at place `dialed`, or accepted. `nonce` is 32 random bytes. `None`:
    /// close it.
    pub fn on_link_opened(
        &mut self,
        dialed: Option<u32>,
        nonce: Nonce,
        now: Now,
    ) -> Option<LinkId> {
        if matches!(self.role, Role::Over) {
            return None;
        }
        let group = self.group.as_mut()?;
        let envelope = group.envelope(&self.settings);
        group.links.on_opened(dialed, &envelope, nonce, now.mono_ns)
    }

    /// A peer could not be reached.
    pub fn on_dial_failed(&mut self, peer: u32, now: Now) {
        if let Some(group) = &mut self.group {
            group.links.on_dial_failed(peer, now.mono_ns);
        }
    }

    /// The system at a peer's address refused a connection: nobody listens there, so its process is gone. Where the connection was
    /// dialled, [`Self::on_dial_failed`] is to be reported too.
    pub fn on_peer_refused(&mut self, peer: u32) {
        if let Some(group) = &mut self.group {
            group.failover.on_peer_refused(peer);
        }
    }

    /// The connection ended.
    pub fn on_link_closed(&mut self, link: LinkId, now: Now) {
        let Some(mut group) = self.group.take() else {
            return;
        };
        if let Some(peer) = group.links.on_closed(link) {
            self.lose(&mut group, peer, now);
        }
        self.group = Some(group);
    }

    fn lose(&mut self, group: &mut Group, peer: u32, now: Now) {
        group.failover.on_peer_lost(peer, now.mono_ns);
        group.mirrors[peer as usize].reset();
        if group.source == Some(peer) {
            group.source = None;
        }
        let node = group.failover.peers()[peer as usize].member.node;
        self.effects
            .push_back(NodeEffect::Note(Note::PeerLost(node)));
    }

    /// The bytes a `Send` is about. They stay in place until [`Node::on_link_sent`].
    #[must_use]
    pub fn link_outgoing(&self, link: LinkId) -> &[u8] {
        self.group
            .as_ref()
            .map_or(&[], |group| group.links.outgoing(link))
    }

    /// A send took `length` bytes; 0 when the socket had no room, in which case the caller reports once it has.
    pub fn on_link_sent(&mut self, link: LinkId, length: usize) {
        if let Some(group) = &mut self.group {
            group.links.on_sent(link, length);
        }
    }

    /// Most time to reach a peer that is to be dialled, ns: then report [`Self::on_dial_failed`].
    #[must_use]
    pub fn link_dial_patience_ns(&self) -> u64 {
        self.group
            .as_ref()
            .map_or(0, |group| group.links.dial_patience_ns())
    }

    /// Most bytes of one message of a peer: a receive buffer holds at least as many.
    #[must_use]
    pub fn link_message_length_max(&self) -> usize {
        self.group
            .as_ref()
            .map_or(0, |group| group.links.message_length_max())
    }

    /// Whether the other side of a connection has proven itself: from now on its messages may be long.
    #[must_use]
    pub fn is_link_proven(&self, link: LinkId) -> bool {
        self.group
            .as_ref()
            .is_some_and(|group| group.links.is_proven(link))
    }

    /// Bytes arrived; they start with a message.
    pub fn on_link_bytes(
        &mut self,
        link: LinkId,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Heard {
        let mut heard = Heard {
            consumed: 0,
            is_stalled: false,
        };
        let Some(mut group) = self.group.take() else {
            return heard;
        };
        while !matches!(self.role, Role::Over) {
            let envelope = group.envelope(&self.settings);
            let rest = &bytes[heard.consumed..];
            match group.links.receive(link, rest, &envelope) {
                Received::Nothing => break,
                Received::Handshake { length, joined } => {
                    heard.consumed += length;
                    if let Some((peer, identity)) = joined {
                        self.lose_quietly(&mut group, peer);
                        group.failover.on_peer_joined(peer, identity, now.mono_ns);
                        let node = group.failover.peers()[peer as usize].member.node;
                        self.effects
                            .push_back(NodeEffect::Note(Note::PeerJoined(node)));
                        group.is_telling = true;
                    }
                }
                Received::Message {
                    length,
                    peer,
                    envelope,
                    message,
                } => {
                    if !self.on_message(&mut group, peer, &envelope, &message, now, log) {
                        heard.is_stalled = true;
                        break;
                    }
                    heard.consumed += length;
                }
                Received::Broken(fault) => {
                    self.effects
                        .push_back(NodeEffect::Note(Note::PeerRefused(fault)));
                    break;
                }
            }
        }
        self.group = Some(group);
        heard
    }

    /// A peer is back over a new connection: what was under way over the old one is forgotten.
    fn lose_quietly(&mut self, group: &mut Group, peer: u32) {
        group.mirrors[peer as usize].reset();
        if group.source == Some(peer) {
            group.source = None;
        }
    }

    /// Handles a message of a proven peer; false when it can't be taken now.
    fn on_message(
        &mut self,
        group: &mut Group,
        peer: u32,
        envelope: &Envelope,
        message: &PeerMessage<'_>,
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> bool {
        let incarnation = group.failover.peers()[peer as usize].member.incarnation;
        if envelope.incarnation != incarnation {
            return true;
        }
        group.failover.on_heard(peer, now.mono_ns);
        match message {
            PeerMessage::Progress(progress) => {
                self.on_progress(group, peer, envelope.epoch, progress);
            }
            PeerMessage::Open(membership) => {
                let before = group.failover.joined().map(|joined| joined.epoch);
                let durable = self.positions(group).1.point.position;
                group
                    .failover
                    .on_open(peer, membership, durable, now.mono_ns);
                let after = group.failover.joined().map(|joined| joined.epoch);
                // Who is refused, a primary of the past, does not part this node from the one it follows.
                if after.is_none() || after != before {
                    group.source = None;
                }
            }
            PeerMessage::History(history) => {
                self.on_history(group, peer, envelope.epoch, history, now);
            }
            PeerMessage::From(parting) => self.on_from(group, peer, envelope.epoch, *parting, now),
            PeerMessage::Block(block) => {
                return self.on_block(group, peer, envelope.epoch, block, now, log);
            }
            PeerMessage::AskEnd(epoch) => {
                let durable = self.positions(group).1.point.position;
                let failover = &mut group.failover;
                failover.on_ask_end(peer, *epoch, durable, now.mono_ns);
            }
            PeerMessage::HandOver => {
                group
                    .failover
                    .on_hand_over(peer, envelope.epoch, now.mono_ns);
            }
            PeerMessage::Fetch(place) => self.on_fetch(group, peer, *place),
            PeerMessage::Fetched(place, outcome, block) => {
                self.on_fetched(group, peer, *place, *outcome, block);
            }
            PeerMessage::Hello(_) | PeerMessage::Proof(_) => group.links.close_peer(peer),
        }
        true
    }

    fn on_progress(&mut self, group: &mut Group, peer: u32, epoch: Epoch, progress: &Progress) {
        group.failover.on_progress(peer, epoch, progress);
        let is_present = epoch == group.failover.epoch() && epoch.get() > 0;
        match &mut self.role {
            Role::Primary(primary) => {
                let mirror = &mut group.mirrors[peer as usize];
                if is_present {
                    mirror.on_progress(progress, &primary.sequence);
                } else if mirror.is_streaming() {
                    // It left the epoch after it had told its log: it has to be asked again.
                    mirror.reset();
                }
            }
            // Only once this log is known to go on as the primary's does: before, what is released there says nothing of what
            // lies at these positions here.
            Role::Follower(_) if is_present && group.source == Some(peer) => {
                group.note_released(progress.released);
            }
            _ => {}
        }
    }

    /// The vote for an epoch is durable: this node's log is told to its primary.
    pub(super) fn join(&mut self, group: &mut Group, membership: &Membership) {
        let Role::Follower(standby) = &mut self.role else {
            return;
        };
        let views = group.failover.peers();
        let primary = membership.primary;
        let Some(peer) = views.iter().position(|view| view.member.node == primary) else {
            return;
        };
        if group.source == Some(peer as u32) {
            // It asked twice, and has been answered.
            return;
        }
        let tables = standby.tables();
        let entries = tables.epochs.iter().map(|entry| HistoryEntry {
            epoch: entry.epoch,
            start: entry.start,
            previous_checksum: entry.previous_checksum,
        });
        let mut laid_out = Vec::new();
        let history = History::lay_out(
            tables.position,
            tables.previous_checksum,
            entries,
            &mut laid_out,
        );
        let envelope = group.envelope(&self.settings);
        group.source = None;
        let said = group
            .links
            .say(peer as u32, &envelope, &PeerMessage::History(history));
        if said.is_ok() {
            self.effects
                .push_back(NodeEffect::Note(Note::Follows(*membership)));
        }
        group.is_telling = true;
    }

    /// A follower tells its log: where it parts from ours is where it goes on (rule R16).
    fn on_history(
        &mut self,
        group: &mut Group,
        peer: u32,
        epoch: Epoch,
        history: &History<'_>,
        now: Now,
    ) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        // Who is streamed to has been answered: this is the answer to an OPEN that was said twice. Answered again, it would send
        // the follower back to where its log ended when it said this, behind what it has acknowledged since.
        if epoch != group.failover.epoch() || group.mirrors[peer as usize].is_streaming() {
            return;
        }
        let sealed = primary.sequence.sealed_end();
        let ours = Tail {
            position: sealed.point.position,
            checksum: sealed.block_checksum,
        };
        let theirs = Tail {
            position: history.tail,
            checksum: history.checksum,
        };
        let entries: Vec<HistoryEntry> = history.entries().collect();
        let parting = match part(&primary.epochs, ours, &entries, theirs) {
            Parting::At(parting) => parting,
            Parting::TwoHistories(epoch) => {
                group.failover.halt(HaltReason::TwoHistories(epoch));
                return;
            }
        };
        let envelope = group.envelope(&self.settings);
        let from = PeerMessage::From(parting);
        if group.links.say(peer, &envelope, &from).is_ok() {
            group.mirrors[peer as usize].start(parting, now.mono_ns);
            group.failover.on_followed(peer);
            let node = group.failover.peers()[peer as usize].member.node;
            self.effects
                .push_back(NodeEffect::Note(Note::Mirrors(node, parting)));
        }
    }

    /// The primary says where the logs part.
    fn on_from(&mut self, group: &mut Group, peer: u32, epoch: Epoch, parting: Position, now: Now) {
        let Role::Follower(standby) = &mut self.role else {
            return;
        };
        let is_ours = group.failover.joined().is_some_and(|joined| {
            let node = group.failover.peers()[peer as usize].member.node;
            joined.epoch == epoch && joined.primary == node
        });
        if !is_ours {
            return;
        }
        let tail = standby.received().point.position;
        if parting == tail {
            group.source = Some(peer);
        } else if parting < group.carry_released {
            let released = group.carry_released;
            group
                .failover
                .halt(HaltReason::CutBelowReleased { parting, released });
        } else if parting < tail {
            // Cut only when no own write is in flight: the restart waits for them.
            self.end(group, RestartReason::Cut(parting), now);
        } else {
            group.links.close_peer(peer);
        }
    }

    fn on_block(
        &mut self,
        group: &mut Group,
        peer: u32,
        epoch: Epoch,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> bool {
        let Role::Follower(standby) = &mut self.role else {
            return true;
        };
        let is_ours = group.source == Some(peer)
            && group
                .failover
                .joined()
                .is_some_and(|joined| joined.epoch == epoch);
        if !is_ours {
            return true;
        }
        // Else it would go on for as long as blocks come. Let pass, a block is not acknowledged, and this connection ends with the node.
        if group.stop_asked_ns.is_some() {
            return true;
        }
        match standby.take(bytes, now, log) {
            Ok(Intake::Taken) => {
                let released =
                    block::decode_header(bytes).map_or(Position(0), |header| header.released);
                group.note_released(released);
                group.has_received = true;
                true
            }
            Ok(Intake::NoRoom) => false,
            Err(IntakeError::Block(_)) => {
                // Damaged on the way: over a new connection it is sent again.
                group.source = None;
                group.links.close_peer(peer);
                true
            }
            Err(error) => {
                group.failover.halt(HaltReason::Diverged(error));
                true
            }
        }
    }

    /// What was asked for with [`NodeEffect::ReadLog`] was read: `bytes` start at `position`, and are empty where it failed.
    pub fn on_log_read(
        &mut self,
        peer: u32,
        purpose: ReadPurpose,
        position: Position,
        bytes: &[u8],
        now: Now,
    ) {
        let Some(mut group) = self.group.take() else {
            return;
        };
        if purpose == ReadPurpose::Repair {
            self.answer_fetch(&mut group, peer, position, bytes);
            self.group = Some(group);
            return;
        }
        let envelope = group.envelope(&self.settings);
        let mirror = &mut group.mirrors[peer as usize];
        let outcome = mirror.on_read(position, bytes, &mut group.links, &envelope, now.mono_ns);
        if outcome == ReadOutcome::Damaged {
            self.effects
                .push_back(NodeEffect::Note(Note::Damaged(position)));
        }
        self.group = Some(group);
    }

    pub(super) fn ask_end(&mut self, group: &mut Group, peer: u32, epoch: Epoch) {
        let envelope = group.envelope(&self.settings);
        // Where it does not fit now the machine asks again.
        let _ = group
            .links
            .say(peer, &envelope, &PeerMessage::AskEnd(epoch));
    }

    /// Says where this node stands: when there is something new, and otherwise now and then.
    pub(super) fn speak(&mut self, group: &mut Group, now: Now) {
        let (appended, durable, released) = self.positions(group);
        let is_follower = matches!(self.role, Role::Follower(_));
        let has_moved = is_follower
            && (durable.point.position != group.said_durable
                || (group.has_received
                    && self.settings.policy == relay_wire::code::Policy::Mirrored));
        let is_due = now.mono_ns >= group.said_ns + group.settings.heartbeat_ns;
        if matches!(self.role, Role::Over) || !(group.is_telling || has_moved || is_due) {
            return;
        }
        let facts = self.facts(group);
        let vote = *group.failover.vote();
        let progress = Progress {
            promised: vote.promised,
            lowest_join: group.failover.lowest_join(),
            committed: vote.committed,
            durable: durable.point.position,
            received: appended.point.position,
            released: released.point.position,
            durable_checksum: durable.block_checksum,
            received_checksum: appended.block_checksum,
            standing: group.failover.standing(),
            is_disk_stalled: facts.is_disk_stalled,
            is_tail_unknown: vote.unknown_tail.is_some(),
        };
        let envelope = group.envelope(&self.settings);
        for peer in 0..group.mirrors.len() {
            if group.links.is_connected(peer as u32) {
                // Where it does not fit, bytes are on their way: sign of life enough.
                let _ = group
                    .links
                    .say(peer as u32, &envelope, &PeerMessage::Progress(progress));
            }
        }
        group.said_ns = now.mono_ns;
        group.is_telling = false;
        group.has_received = false;
        // Only a follower looks at it again.
        group.said_durable = match is_follower {
            true => durable.point.position,
            false => Position(0),
        };
    }
}

impl Group {
    fn note_released(&mut self, released: Position) {
        self.carry_released = self.carry_released.max(released);
    }
}
