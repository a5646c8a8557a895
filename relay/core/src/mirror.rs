//! A primary's view of one peer's copy: what it was sent, what it holds, what it gets next (rules R5, R6, R23, R24).
//!
//! ```text
//!   OPEN --> HISTORY --> FROM(parting) --> BLOCK, BLOCK, BLOCK ...      acknowledged <= received <= cursor <= sealed
//! ```
//!
//! Blocks go out as soon as they are sealed, beside this node's own write. A peer near the tail is served from the memory
//! ring; one further back from disk, a piece at a time and at a limited rate, until it has come near. What it acknowledges
//! counts only in the present epoch and only with the checksum of the very block it names.

use std::hash::{Hash, Hasher};

use relay_journal::block::{self, BlockKind, HEADER_LENGTH};
use relay_wire::id::Position;
use relay_wire::peer::{Envelope, PeerMessage, Progress};

use crate::command::LogEnd;
use crate::links::Links;
use crate::log::LogView;
use crate::sequence::Sequence;

/// A peer that does not answer an OPEN is asked again after so long, ns.
const ASK_AGAIN_NS: u64 = 100_000_000;
/// A block that can't be read is tried again after so long, ns.
const DAMAGE_PAUSE_NS: u64 = 1_000_000_000;
/// A peer that holds what was released so long ago is near, ns.
const NEAR_NS: u64 = 50_000_000;
/// Bytes read from disk at a time for a peer that catches up, where the longest block is not longer.
const READ_LENGTH: u32 = 1 << 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// Not connected, or not asked yet.
    Idle,
    /// Asked to follow the epoch, and again where it said nothing.
    Asked { since_ns: u64, again_ns: u64 },
    /// Its log continues ours; blocks go out from the cursor.
    Streaming,
}

/// A piece of the log to be read for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) position: Position,
    pub(crate) length: u32,
}

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Mirror {
    peer: u32,
    phase: Phase,
    cursor: Position,
    acknowledged: Position,
    received: Position,
    /// What was released at the time beside it; the next one is set when it holds that.
    milestone: Position,
    milestone_ns: u64,
    /// The end of what was sealed at the time beside it; the next one is set when it has acknowledged that.
    awaited: Position,
    awaited_ns: u64,
    is_reading: bool,
    read_length: u32,
    /// Of the block at the cursor, where it is longer than what is read at a time.
    long_block: u32,
    logged_span_max: u32,
    budget: Budget,
    rate: u64,
    segment_size: u64,
    /// A block of ours that is to go to it can't be read: not tried again before this time.
    paused_until_ns: u64,
    mismatches: Mismatches,
}

/// Counted for people: no part of what a state is.
#[derive(Debug, Clone, Copy)]
struct Mismatches(u64);

impl Hash for Mismatches {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Bytes that may be sent from disk by now.
#[derive(Debug, Clone, Copy)]
struct Budget {
    bytes: u64,
    at_ns: u64,
    /// With so many the next piece may be read.
    enough: u64,
}

/// How much more than enough there is holds nothing back before so much was sent.
impl Hash for Budget {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let short = (self.bytes < self.enough).then_some((self.bytes, self.at_ns));
        short.hash(state);
    }
}

impl Mirror {
    /// For blocks of up to so many bytes, and longer ones that are in the log from another time.
    pub(crate) fn new(
        peer: u32,
        (block_span_max, logged_span_max): (u32, u32),
        segment_size: u64,
        rate: u64,
    ) -> Self {
        Self {
            segment_size,
            paused_until_ns: 0,
            peer,
            phase: Phase::Idle,
            cursor: Position(0),
            acknowledged: Position(0),
            received: Position(0),
            milestone: Position(0),
            milestone_ns: 0,
            awaited: Position(0),
            awaited_ns: 0,
            is_reading: false,
            read_length: READ_LENGTH.max(block_span_max),
            long_block: 0,
            logged_span_max,
            budget: Budget {
                bytes: 0,
                at_ns: 0,
                enough: u64::from(READ_LENGTH.max(block_span_max)),
            },
            rate,
            mismatches: Mismatches(0),
        }
    }

    /// The connection is gone, or another epoch begins: nothing it said before counts any more.
    pub(crate) fn reset(&mut self) {
        self.phase = Phase::Idle;
        self.acknowledged = Position(0);
        self.received = Position(0);
    }

    pub(crate) const fn peer(&self) -> u32 {
        self.peer
    }

    /// Whether it is to be asked to follow now.
    pub(crate) fn wants_open(&self, now_ns: u64) -> bool {
        match self.phase {
            Phase::Idle => true,
            Phase::Asked { again_ns, .. } => now_ns >= again_ns,
            Phase::Streaming => false,
        }
    }

    pub(crate) fn on_open_said(&mut self, now_ns: u64) {
        let since_ns = match self.phase {
            Phase::Asked { since_ns, .. } => since_ns,
            Phase::Idle | Phase::Streaming => now_ns,
        };
        self.phase = Phase::Asked {
            since_ns,
            again_ns: now_ns + ASK_AGAIN_NS,
        };
    }

    /// Its log parts from ours at `parting`; it gets everything from there on.
    pub(crate) fn start(&mut self, parting: Position, now_ns: u64) {
        self.phase = Phase::Streaming;
        self.cursor = parting;
        self.acknowledged = Position(0);
        self.received = Position(0);
        self.awaited = parting;
        self.awaited_ns = now_ns;
    }

    pub(crate) fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming
    }

    pub(crate) const fn acknowledged(&self) -> Position {
        self.acknowledged
    }

    pub(crate) const fn received(&self) -> Position {
        self.received
    }

    /// How often it named a block with another checksum than ours.
    pub(crate) const fn mismatches(&self) -> u64 {
        self.mismatches.0
    }

    /// It said, in the present epoch, what it holds.
    pub(crate) fn on_progress(&mut self, progress: &Progress, sequence: &Sequence) {
        if !self.is_streaming() {
            return;
        }
        let released = sequence.released().position;
        let mut counts = |position: Position, checksum: u32, before: Position| {
            let ours = sequence.end_at(position);
            match ours {
                Some(end) if end.block_checksum == checksum => position.max(before),
                // What lies before the release counts for catching up only; the chain was checked block by block.
                None if position < released => position.max(before),
                _ => {
                    self.mismatches.0 += 1;
                    before
                }
            }
        };
        let acknowledged = counts(
            progress.durable,
            progress.durable_checksum,
            self.acknowledged,
        );
        let received = counts(progress.received, progress.received_checksum, self.received);
        self.acknowledged = acknowledged;
        self.received = received.max(acknowledged);
    }

    /// Whether something has waited for its acknowledgement for longer than `deadline_ns` (rule R24): found out before it has
    /// waited for twice as long. A peer that acknowledges all the time, and ever later, is overdue too; otherwise the whole
    /// flow would go at its pace. So is one that does not say where its log ends, whatever else it says: its disk may never take
    /// the vote it needs for that.
    pub(crate) fn is_overdue(&mut self, sealed: Position, deadline_ns: u64, now_ns: u64) -> bool {
        if self.acknowledged >= self.awaited {
            self.awaited = sealed;
            self.awaited_ns = now_ns;
        }
        let since_ns = match self.phase {
            Phase::Idle => return false,
            Phase::Asked { since_ns, .. } => since_ns,
            Phase::Streaming => self.awaited_ns,
        };
        now_ns >= since_ns + deadline_ns
    }

    /// Whether it follows the release at a short distance: what was released a moment ago it holds by now.
    pub(crate) fn is_near(&mut self, released: Position, now_ns: u64) -> bool {
        if self.acknowledged >= self.milestone {
            self.milestone = released;
            self.milestone_ns = now_ns;
        }
        self.is_streaming() && now_ns < self.milestone_ns + NEAR_NS
    }

    /// Sends what is sealed, from the ring where it lies there; else says what to read from disk.
    pub(crate) fn pump(
        &mut self,
        sealed: LogEnd,
        durable: Position,
        ring: &LogView<'_>,
        links: &mut Links,
        envelope: &Envelope,
        now_ns: u64,
    ) -> Option<Piece> {
        if !self.is_streaming() || self.is_reading || now_ns < self.paused_until_ns {
            return None;
        }
        while self.cursor < sealed.point.position && self.cursor >= ring.start() {
            if !self.send_block(ring.from(self.cursor), links, envelope) {
                return None;
            }
        }
        if self.cursor >= sealed.point.position || self.cursor >= durable {
            return None;
        }
        self.refill(now_ns);
        let read_length = self.read_length.max(self.long_block);
        let is_room = links.has_room_for(self.peer, read_length as usize);
        if !is_room || self.budget.bytes < self.budget.enough {
            return None;
        }
        self.is_reading = true;
        let left = self.segment_size - self.cursor.get() % self.segment_size;
        let wanted = durable.since(self.cursor).min(left);
        let length = wanted.min(read_length.into()) as u32;
        Some(Piece {
            position: self.cursor,
            length,
        })
    }

    fn refill(&mut self, now_ns: u64) {
        let budget = &mut self.budget;
        let passed_ns = now_ns.saturating_sub(budget.at_ns).min(1_000_000_000);
        let earned = (u128::from(passed_ns) * u128::from(self.rate) / 1_000_000_000) as u64;
        if earned > 0 {
            budget.bytes = (budget.bytes + earned).min(2 * budget.enough);
            budget.at_ns = now_ns;
        }
    }

    /// Frames the block at the start of `bytes`; false when there is no room for it, or it is not all there.
    fn send_block(&mut self, bytes: &[u8], links: &mut Links, envelope: &Envelope) -> bool {
        let Ok(header) = block::decode_header(bytes) else {
            return false;
        };
        let length = match header.kind {
            BlockKind::Records => header.body_end(),
            BlockKind::Mark | BlockKind::Filler => HEADER_LENGTH,
        };
        let is_ours = header.position == self.cursor && bytes.len() >= length;
        if !is_ours || !links.has_room_for(self.peer, length) {
            return false;
        }
        let block = PeerMessage::Block(&bytes[..length]);
        if links.say(self.peer, envelope, &block).is_err() {
            return false;
        }
        self.cursor = header.next_position();
        true
    }

    /// What was asked for was read. `bytes` start at `position`; empty where the read failed.
    pub(crate) fn on_read(
        &mut self,
        position: Position,
        bytes: &[u8],
        links: &mut Links,
        envelope: &Envelope,
        now_ns: u64,
    ) -> ReadOutcome {
        self.is_reading = false;
        if !self.is_streaming() || self.cursor != position {
            return ReadOutcome::Stale;
        }
        let mut is_intact = true;
        loop {
            let at = self.cursor.since(position) as usize;
            if at >= bytes.len() && at > 0 {
                break;
            }
            is_intact = self.is_intact(&bytes[at..]);
            if !is_intact || !self.send_block(&bytes[at..], links, envelope) {
                break;
            }
        }
        let sent = self.cursor.since(position);
        self.budget.bytes = self.budget.bytes.saturating_sub(sent);
        let asked = self.read_length.max(self.long_block);
        self.long_block = 0;
        if sent > 0 {
            ReadOutcome::Sent
        } else if is_intact {
            ReadOutcome::NotYet
        } else if let Some(length) = self.length_of_longer(bytes, asked) {
            self.long_block = length;
            ReadOutcome::NotYet
        } else {
            self.paused_until_ns = now_ns + DAMAGE_PAUSE_NS;
            ReadOutcome::Damaged
        }
    }

    /// The length of the block at the cursor, where it is more than what was asked for.
    fn length_of_longer(&self, bytes: &[u8], asked: u32) -> Option<u32> {
        let header = block::decode_header(bytes).ok()?;
        let is_longer = header.span > asked && header.span <= self.logged_span_max;
        (header.position == self.cursor && is_longer).then_some(header.span)
    }

    /// Whether a block read from disk is what was written there.
    fn is_intact(&self, bytes: &[u8]) -> bool {
        let Ok(header) = block::decode_header(bytes) else {
            return false;
        };
        let body = bytes.get(HEADER_LENGTH..header.body_end());
        header.position == self.cursor
            && body.is_some_and(|body| block::verify_body(&header, body).is_ok())
    }
}

/// What came of a read for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Sent,
    /// The peer is elsewhere by now.
    Stale,
    /// The way to the peer has no room for the first block now, or is gone, or the block is longer than what was read: it is read
    /// again.
    NotYet,
    /// The first block read is not intact.
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const DEADLINE: u64 = 100 * MS;

    /// When it is overdue first, ms, where 4096 bytes a millisecond are sealed and so many acknowledged, from `late` ms on.
    fn overdue_at(acknowledged_per_ms: u64, late: u64) -> Option<u64> {
        let mut mirror = Mirror::new(0, (4096, 4096), 1 << 20, 1 << 20);
        mirror.start(Position(0), 0);
        (0..2_000).find(|&ms| {
            let sealed = Position(4096 * ms);
            let acknowledged = acknowledged_per_ms * ms.saturating_sub(late);
            mirror.acknowledged = Position(acknowledged.min(sealed.get()));
            mirror.is_overdue(sealed, DEADLINE, ms * MS)
        })
    }

    #[test]
    fn a_peer_that_keeps_up_a_little_late_is_never_overdue() {
        assert_eq!(overdue_at(4096, 0), None);
        assert_eq!(overdue_at(4096, 40), None);
    }

    #[test]
    fn a_peer_that_says_nothing_is_overdue_at_the_deadline() {
        let found = overdue_at(0, 0).expect("it is");
        assert!((100..=201).contains(&found), "{found}");
    }

    #[test]
    fn a_peer_that_never_answers_is_overdue_at_the_deadline_though_it_is_asked_again() {
        let mut mirror = Mirror::new(0, (4096, 4096), 1 << 20, 1 << 20);
        let mut asked = 0;
        let found = (0..2_000).find(|&ms| {
            let now_ns = ms * MS;
            if mirror.wants_open(now_ns) {
                mirror.on_open_said(now_ns);
                asked += 1;
            }
            mirror.is_overdue(Position(0), 5 * ASK_AGAIN_NS, now_ns)
        });
        assert_eq!((found, asked), (Some(500), 6));
        // Over a new connection it is asked anew.
        mirror.reset();
        assert!(!mirror.is_overdue(Position(0), 1, 500 * MS));
    }

    #[test]
    fn a_peer_that_acknowledges_all_the_time_and_ever_later_is_overdue() {
        let found = overdue_at(4096 / 10, 0).expect("it is");
        assert!(found <= 250, "{found}");
        assert!(
            overdue_at(4096, 150).is_some(),
            "always later than the deadline"
        );
    }
}
