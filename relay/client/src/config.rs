//! What a client is told by the program that uses it.

use std::time::Duration;

use relay_wire::id::TopicId;

/// Size of the resend window unless said otherwise, in bytes.
pub(crate) const WINDOW_BYTES_DEFAULT: usize = 8 << 20;
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// A logon on a local network takes well under a millisecond.
const ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(20);
/// A group's nodes speak every 50 ms unless configured otherwise: a silent one is left after 200 ms, about when another takes
/// over. A node left in vain costs one more connection, no message.
const SILENT_INTERVALS_DEFAULT: u32 = 4;

/// A name the relay knows and the secret it shares with it. The secret itself never travels.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// 1 to 64 bytes.
    pub name: String,
    /// The shared secret; 16 random bytes or more are sensible.
    pub secret: Vec<u8>,
}

/// The secret stays out of logs.
impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Credential")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Settings of a publisher.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// `host:port` of every node, tried in turn. Names are resolved once, in `connect`.
    pub addresses: Vec<String>,
    /// Who logs on.
    pub credential: Credential,
    /// Id of the stream, or 0 for the one the address serves.
    pub stream: u32,
    /// Id of the publisher, not 0; the credential must allow it.
    pub publisher: u64,
    /// The life of this publisher, higher than every one before; `None` takes the present UTC time in nanoseconds.
    pub incarnation: Option<u64>,
    /// Bytes kept for sending again until they are released, rounded up to a power of two. What is on its way is
    /// bounded by the relay's credit too.
    pub window_bytes: usize,
    /// Most time for one attempt to connect and log on.
    pub connect_timeout: Duration,
    /// Where there are several addresses, an attempt gets this much, or four times what it takes until a node answers if that is more
    /// (250 ms before any has), and the more the longer the client is down: a node that does not answer must not keep the client
    /// from the one that does. One that has answered gets 250 ms at least, since it may be about to lead.
    pub attempt_timeout: Duration,
    /// A connection is left after so many of the relay's heartbeat intervals in silence, 2 or more.
    pub silent_intervals: u32,
    /// How long to try in vain before it is an error; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

impl PublisherConfig {
    /// Settings with a window of 8 MiB, 2 s per attempt, 4 silent intervals, and no end of trying.
    #[must_use]
    pub fn new(addresses: Vec<String>, credential: Credential, publisher: u64) -> Self {
        Self {
            addresses,
            credential,
            stream: 0,
            publisher,
            incarnation: None,
            window_bytes: WINDOW_BYTES_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            attempt_timeout: ATTEMPT_TIMEOUT_DEFAULT,
            silent_intervals: SILENT_INTERVALS_DEFAULT,
            give_up_after: None,
        }
    }
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The next record that is released.
    Live,
    /// The first record in the journal.
    Earliest,
    /// A seq, from 1.
    Seq {
        /// The first seq wanted.
        seq: u64,
        /// Checksum of the DATA record before it, where it is known: the relay then checks that its history is ours.
        checksum: Option<u32>,
    },
    /// The first record received at or after this time, ns UTC.
    Time(u64),
}

/// Settings of a subscriber.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// `host:port` of every node, tried in turn. Names are resolved once, in `connect`.
    pub addresses: Vec<String>,
    /// Who logs on.
    pub credential: Credential,
    /// Id of the stream, or 0 for the one the address serves.
    pub stream: u32,
    /// 1 to 1,000 topic names, in which a level may be `*` and the last one `>`.
    pub patterns: Vec<String>,
    /// Where to start; after a loss of the connection it goes on where it was.
    pub start: Start,
    /// Most time for one attempt to connect, log on and subscribe.
    pub connect_timeout: Duration,
    /// Where there are several addresses, connecting and logging on get this much, or four times what it takes until a node answers
    /// if that is more (250 ms before any has), and the more the longer the client is down: a node that does not answer must not
    /// keep the client from the one that does. One that has answered gets 250 ms at least, since it may be about to lead.
    pub attempt_timeout: Duration,
    /// A connection is left after so many of the relay's heartbeat intervals in silence, 2 or more.
    pub silent_intervals: u32,
    /// How long to try in vain before it is an error; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

impl SubscriberConfig {
    /// Settings with 2 s per attempt, 4 silent intervals, and no end of trying.
    #[must_use]
    pub fn new(
        addresses: Vec<String>,
        credential: Credential,
        patterns: Vec<String>,
        start: Start,
    ) -> Self {
        Self {
            addresses,
            credential,
            stream: 0,
            patterns,
            start,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            attempt_timeout: ATTEMPT_TIMEOUT_DEFAULT,
            silent_intervals: SILENT_INTERVALS_DEFAULT,
            give_up_after: None,
        }
    }
}

/// A message to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutMessage<'a> {
    /// What [`Publisher::topic`](crate::Publisher::topic) gave for the topic's name.
    pub topic: TopicId,
    /// Hash of the message's key, 0 for none; opaque to the relay.
    pub key_hash: u64,
    /// When it was made, ns UTC; opaque to the relay.
    pub origin_time_ns: u64,
    /// Extension area as `FORMAT.md` section 2 lays it out; empty for none.
    pub extension: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> OutMessage<'a> {
    /// A message without key, time of origin and extensions.
    #[must_use]
    pub const fn new(topic: TopicId, payload: &'a [u8]) -> Self {
        Self {
            topic,
            key_hash: 0,
            origin_time_ns: 0,
            extension: &[],
            payload,
        }
    }
}
