//! What the machines tell each other, as small values that fit a single-producer link.
//!
//! Bytes never travel in a command: a command names where they lie (the connection's receive buffer or the log), and who
//! reads them says when they are no longer needed.

use relay_wire::code::{Held, RejectCode, TerminateCode};
use relay_wire::id::{Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, TopicId};
use relay_wire::record::{CLOCK_SOURCE_LENGTH_MAX, ClockBody, SealKeyBody};

/// A connection: a place in a table and how often that place was given out before, so that a late word about an
/// earlier connection is not taken for the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Place in the table.
    pub index: u32,
    /// How many connections had this place before.
    pub generation: u32,
}

/// A publisher that proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublisherLogon {
    /// Its connection.
    pub conn: ConnId,
    /// Its id.
    pub publisher: PublisherId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Place of its credential in the book.
    pub credential: u32,
    /// Its number among all connections that were accepted: what a client said on one that it left may come late.
    pub accepted: u64,
}

/// From ingress to the sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToSequence {
    /// A publisher proved who it is.
    Logon(PublisherLogon),
    /// Whole records, checked each by itself, in the connection's receive buffer.
    Records {
        /// Whose.
        conn: ConnId,
        /// Where they start in the buffer.
        offset: u32,
        /// Bytes, a whole number of records with their padding.
        length: u32,
        /// When they were received, ns UTC.
        receive_time_ns: u64,
    },
    /// A TOPIC_REQUEST, checked by itself, in the connection's receive buffer.
    TopicRequest {
        /// Whose.
        conn: ConnId,
        /// Where it starts in the buffer.
        offset: u32,
        /// Bytes with padding.
        length: u32,
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
    },
}

/// What was found out about this node, and is to be journalled where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Testimony {
    /// The key that signs its seals.
    SealKey(SealKeyBody),
    /// What its clock is worth.
    Clock(ClockBody, ClockSources),
}

/// Names of what a clock is kept right by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockSources {
    bytes: [u8; CLOCK_SOURCE_LENGTH_MAX],
    length: u8,
}

impl ClockSources {
    /// This text, or as much of its beginning as a CLOCK record holds.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(CLOCK_SOURCE_LENGTH_MAX)];
        let mut bytes = [0; CLOCK_SOURCE_LENGTH_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self {
            bytes,
            length: text.len() as u8,
        }
    }

    /// The text's bytes, UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// From the sequencer to ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToIngress {
    /// The publisher may start.
    Established {
        /// Its connection.
        conn: ConnId,
        /// The publisher sequence wanted next.
        next_expected: PublisherSeq,
        /// The highest one released.
        released_through: PublisherSeq,
    },
    /// One [`ToSequence::Records`] or [`ToSequence::TopicRequest`] was taken; its bytes may go.
    Taken {
        /// Whose.
        conn: ConnId,
        /// End of the bytes in the receive buffer.
        through: u32,
    },
    /// Everything up to a publisher sequence is released.
    Ack {
        /// Whose.
        conn: ConnId,
        /// Through here.
        publisher_seq: PublisherSeq,
        /// The seq of that record.
        seq: Seq,
    },
    /// A topic's id.
    Topic {
        /// Who asked.
        conn: ConnId,
        /// Its number for the question.
        request: u32,
        /// The id.
        topic: TopicId,
    },
    /// A record or topic request is refused.
    Reject {
        /// Whose.
        conn: ConnId,
        /// The record, or 0.
        publisher_seq: PublisherSeq,
        /// The publisher sequence wanted next.
        next_expected: PublisherSeq,
        /// The topic request, or 0.
        request: u32,
        /// Why.
        code: RejectCode,
    },
    /// The connection is to be ended.
    Terminate {
        /// Which.
        conn: ConnId,
        /// Why.
        code: TerminateCode,
        /// See [`TerminateCode`].
        detail: u64,
    },
    /// This node leads now and what it begins with is released: clients may log on.
    Serve {
        /// The epoch.
        epoch: Epoch,
        /// Number of the trading session.
        trading_session: u64,
        /// The next seq to be released.
        next_seq: Seq,
    },
    /// Another trading session is open, and its record is released.
    Session {
        /// Its number.
        number: u64,
    },
    /// This node leads but reaches neither its standbys nor the arbiter: clients are to try elsewhere until it serves again.
    Withdraw,
    /// Whether this node may be about to lead, because nobody is known to or its primary asked for it: a client that logs on
    /// meanwhile waits here for [`ToIngress::Serve`]. Before the first such word, and after `false`, clients are sent on.
    Vacant(bool),
    /// Release moved on, or publishers are held or let go.
    Progress {
        /// The next seq to be released.
        next_seq: Seq,
        /// Whether publishers are held.
        held: Held,
    },
}

/// Most bytes of a trading session's name.
pub const SESSION_NAME_LENGTH_MAX: usize = 64;

/// Name of a trading session, 1 to [`SESSION_NAME_LENGTH_MAX`] bytes of UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionName {
    bytes: [u8; SESSION_NAME_LENGTH_MAX],
    length: u8,
}

impl SessionName {
    /// `None` for a name that is empty or too long.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if !(1..=SESSION_NAME_LENGTH_MAX).contains(&name.len()) {
            return None;
        }
        let mut bytes = [0; SESSION_NAME_LENGTH_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let length = name.len() as u8;
        Some(Self { bytes, length })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        core::str::from_utf8(bytes).expect("it was made of text")
    }
}

impl core::fmt::Debug for SessionName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("SessionName").field(&self.as_str()).finish()
    }
}

/// The end of a block: what it releases, and the checksum that stands for the whole log up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogEnd {
    /// Where a reader stands who has read everything up to here.
    pub point: ReleasePoint,
    /// Header checksum of the block that ends here; 0 at the start of the log.
    pub block_checksum: u32,
}

/// The two clocks, read once a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Now {
    /// Nanoseconds UTC, for stamps. May be stepped.
    pub utc_ns: u64,
    /// Nanoseconds from some start, for intervals. Never stepped.
    pub mono_ns: u64,
}

/// How far the log may be read, forwarded and acknowledged, and what a subscriber at that point has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ReleasePoint {
    /// End of the released blocks.
    pub position: Position,
    /// The seq the next released message will have.
    pub next_seq: Seq,
    /// Checksum of the DATA record before `next_seq`, 0 for none.
    pub checksum: u32,
}
