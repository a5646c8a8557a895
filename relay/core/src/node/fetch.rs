//! A block that is damaged in one copy is had from another: asking a peer, and answering one.
//!
//! Asked for by a scrubber that found the damage while the node runs; a start that finds its journal damaged asks over a
//! connection of its own, before there is a node. A block is believed because its own checksums fit, it stands where the asker's
//! log wants it, and whoever gives it knows it to be released: of the blocks that may follow the one before, in whatever epoch, one
//! is released, and a copy that nobody counted on is not given.

use relay_journal::block::{self, BlockHeader, HEADER_LENGTH};
use relay_wire::id::{NodeId, Position};
use relay_wire::peer::{FetchOutcome, PeerMessage, Place};

use super::{Group, Node, NodeEffect, Note, ReadPurpose};

/// What a peer answered to [`Node::fetch`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fetched {
    /// Who was asked.
    pub peer: NodeId,
    /// What for.
    pub place: Place,
    /// What it has there.
    pub outcome: FetchOutcome,
    /// With [`FetchOutcome::Here`] the block, header and body: intact, and the one that stands at the place.
    pub block: Box<[u8]>,
}

impl Node {
    /// Asks a peer for its copy of the block at a place where this node's is damaged; the answer comes as
    /// [`NodeEffect::Fetched`]. False where the peer is not connected. One question is open at a time: a new one takes the place of
    /// the one before, whose answer is then not told any more.
    pub fn fetch(&mut self, peer: NodeId, place: Place) -> bool {
        let Some(group) = &mut self.group else {
            return false;
        };
        let views = group.failover.peers();
        let Some(at) = views.iter().position(|view| view.member.node == peer) else {
            return false;
        };
        let envelope = group.envelope(&self.settings);
        let question = PeerMessage::Fetch(place);
        let is_asked = group.links.say(at as u32, &envelope, &question).is_ok();
        group.asked = is_asked.then_some((at as u32, place));
        is_asked
    }

    /// A peer's answer to what [`Node::fetch`] asked.
    pub(super) fn on_fetched(
        &mut self,
        group: &mut Group,
        peer: u32,
        place: Place,
        outcome: FetchOutcome,
        block: &[u8],
    ) {
        if group.asked != Some((peer, place)) {
            return;
        }
        group.asked = None;
        let is_it = intact(block, place.position)
            .is_some_and(|header| header.previous_checksum == place.previous_checksum);
        let outcome = match outcome {
            FetchOutcome::Here if !is_it => FetchOutcome::Damaged,
            outcome => outcome,
        };
        let block = if outcome == FetchOutcome::Here {
            block.into()
        } else {
            Box::default()
        };
        let peer = group.failover.peers()[peer as usize].member.node;
        let fetched = Fetched {
            peer,
            place,
            outcome,
            block,
        };
        self.effects
            .push_back(NodeEffect::Fetched(Box::new(fetched)));
    }

    /// A peer's copy of a block is damaged: ours is read from disk, not from memory, so that it is known to be good there.
    pub(super) fn on_fetch(&mut self, group: &mut Group, peer: u32, place: Place) {
        let (_, durable, released) = self.positions(group);
        let end = released.point.position.min(durable.point.position);
        let alignment = u64::from(self.settings.block_alignment);
        let is_there = place.position < end && place.position.get().is_multiple_of(alignment);
        if !is_there {
            self.say_fetched(group, peer, place, FetchOutcome::Otherwise, &[]);
            return;
        }
        if group.fetches[peer as usize].replace(place).is_some() {
            // A read for an earlier question is under way; after it this one is read.
            return;
        }
        let position = place.position;
        let left = self.settings.segment_size - position.get() % self.settings.segment_size;
        let span_max = self.settings.block_span_max();
        let span_max = span_max.max(group.settings.logged_span_max);
        let length = end.since(position).min(left).min(span_max.into());
        self.effects.push_back(NodeEffect::ReadLog {
            peer,
            purpose: ReadPurpose::Repair,
            position,
            length: length as u32,
        });
    }

    pub(super) fn answer_fetch(
        &mut self,
        group: &mut Group,
        peer: u32,
        position: Position,
        bytes: &[u8],
    ) {
        let Some(place) = group.fetches[peer as usize].take() else {
            return;
        };
        if place.position != position {
            // Asked for while this was read. What there is may be another by now.
            self.on_fetch(group, peer, place);
            return;
        }
        let (outcome, length) = match intact(bytes, place.position) {
            None => (FetchOutcome::Damaged, 0),
            Some(header) if header.previous_checksum == place.previous_checksum => {
                (FetchOutcome::Here, header.body_end())
            }
            Some(_) => (FetchOutcome::Otherwise, 0),
        };
        self.say_fetched(group, peer, place, outcome, &bytes[..length]);
        if outcome == FetchOutcome::Here {
            let node = group.failover.peers()[peer as usize].member.node;
            let note = Note::Fetched(node, place.position);
            self.effects.push_back(NodeEffect::Note(note));
        }
    }

    fn say_fetched(
        &mut self,
        group: &mut Group,
        peer: u32,
        place: Place,
        outcome: FetchOutcome,
        block: &[u8],
    ) {
        let envelope = group.envelope(&self.settings);
        let answer = PeerMessage::Fetched(place, outcome, block);
        // Where it does not fit, the asker asks again.
        let _ = group.links.say(peer, &envelope, &answer);
    }
}

/// The header of the intact block that `bytes` start with, if it says that it stands at `position`.
fn intact(bytes: &[u8], position: Position) -> Option<BlockHeader> {
    let header = block::decode_header(bytes).ok()?;
    let body = bytes.get(HEADER_LENGTH..header.body_end())?;
    let is_whole = header.position == position && block::verify_body(&header, body).is_ok();
    is_whole.then_some(header)
}
