//! What can go wrong, and what to do about it.
//!
//! A [`ClientError`] ends the client or refuses a call; a [`DisconnectReason`] only ends a connection, and the client
//! makes the next one by itself.

use core::fmt;
use std::io;
use std::time::Duration;

use relay_wire::code::{RejectCode, TerminateCode};
use relay_wire::id::{PublisherSeq, Seq};

/// Why a client ended, or why it refuses a call.
///
/// After one of the kinds for which [`ClientError::is_final`] holds, every later call gives the same error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting can't be used; the text says which and why.
    Configuration(String),
    /// The relay could not prove that it knows the credential's secret.
    RelayUnproven {
        /// Where it was reached.
        address: String,
    },
    /// The relay speaks other versions of the protocol.
    Version {
        /// Its lowest.
        lowest: u16,
        /// Its highest.
        highest: u16,
    },
    /// The relay ended the session for a reason that a new connection does not mend.
    Terminated {
        /// Why.
        code: TerminateCode,
        /// What the code says it is, or 0.
        detail: u64,
        /// The relay's own words.
        text: String,
    },
    /// What the relay expects next and what this publisher can send do not meet.
    SequenceLost {
        /// The publisher sequence the relay wants.
        next_expected: PublisherSeq,
        /// The first one that is still kept here.
        kept_from: PublisherSeq,
        /// One past the last that was ever sent from here.
        sent_to: PublisherSeq,
    },
    /// A record came out of the order of the stream, or the history differs from the one seen before.
    WrongHistory {
        /// The seq that was due.
        expected: Seq,
        /// What came instead.
        found: Seq,
        /// What exactly does not fit.
        what: &'static str,
    },
    /// A record's checksum does not fit its bytes.
    Corrupt {
        /// The seq the damaged record claims.
        seq: Seq,
        /// What its bytes give and what it carries.
        text: String,
    },
    /// The relay no longer has the first record that was asked for.
    NotKept {
        /// The seq asked for.
        asked: Seq,
        /// Where it would start instead.
        start: Seq,
    },
    /// No connection could be made for as long as the configuration allows.
    GaveUp {
        /// How long it was tried.
        after: Duration,
        /// Why the last attempt failed.
        reason: DisconnectReason,
    },
    /// The relay refused a topic.
    TopicRefused {
        /// Its name.
        name: String,
        /// Why.
        code: RejectCode,
        /// The relay's own words.
        text: String,
    },
    /// The payload is over the limit, or the record larger than the window or the credit.
    TooLarge {
        /// Bytes of the payload.
        payload: usize,
        /// Most bytes of one.
        limit: u32,
    },
    /// The topic is not one that this publisher's `topic` gave, or the relay refuses it now.
    UnknownTopic,
    /// The extension area is not laid out as `FORMAT.md` says.
    Extension,
}

impl ClientError {
    /// Whether the client has ended; otherwise only the one call was refused.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::TopicRefused { .. }
                | Self::TooLarge { .. }
                | Self::UnknownTopic
                | Self::Extension
        )
    }
}

const fn advice(code: TerminateCode) -> &'static str {
    match code {
        TerminateCode::Logout => "the relay logged this session out; ask its operator why",
        TerminateCode::Protocol => "client and relay disagree about the protocol; update the older",
        TerminateCode::Version => "use a client of the relay's protocol version",
        TerminateCode::Authentication => {
            "check name, secret, role and publisher id against the relay's credentials"
        }
        TerminateCode::NotEntitled => "ask for patterns the credential may read",
        TerminateCode::Superseded => "the same publisher runs elsewhere; let only one run",
        TerminateCode::OldIncarnation => {
            "take a higher incarnation (is this machine's clock right?)"
        }
        TerminateCode::SequenceLost => {
            "messages may be lost; an operator decides how to go on, with a new incarnation"
        }
        TerminateCode::WrongHistory => {
            "alarm: two histories exist; stop and have an operator compare the nodes' journals"
        }
        TerminateCode::BeyondTail => {
            "alarm: the relay lacks records seen before; have an operator look at the journals"
        }
        TerminateCode::TooLong => "send smaller messages or raise the relay's payload limit",
        TerminateCode::UnknownStream => "check the stream id against the relay's configuration",
        _ => "connect again later",
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(text) => write!(f, "configuration: {text}"),
            Self::RelayUnproven { address } => write!(
                f,
                "the relay at {address} does not know this credential's secret; check the address, \
                 and the secret on both sides"
            ),
            Self::Version { lowest, highest } => write!(
                f,
                "the relay speaks protocol versions {lowest} to {highest}, this client {}; \
                 update the older of the two",
                relay_wire::PROTOCOL_VERSION
            ),
            Self::Terminated { code, detail, text } => write!(
                f,
                "the relay ended the session: {code:?} ({}, detail {detail}): {text}; {}",
                code.number(),
                advice(*code)
            ),
            Self::SequenceLost {
                next_expected,
                kept_from,
                sent_to,
            } => write!(
                f,
                "the relay expects publisher sequence {next_expected}, this publisher can send from \
                 {kept_from} on and sent up to {sent_to}; messages may be lost: an operator decides how \
                 to go on, with a new incarnation"
            ),
            Self::WrongHistory {
                expected,
                found,
                what,
            } => write!(
                f,
                "alarm: {what} (seq {found} where {expected} was due); stop and have an operator \
                 compare the nodes' journals"
            ),
            Self::Corrupt { seq, text } => write!(
                f,
                "the record that claims seq {seq} is damaged: {text}; it was not handed over. Subscribe \
                 again from the resume point; if it stays, check the relay's journal"
            ),
            Self::NotKept { asked, start } => write!(
                f,
                "seq {asked} was asked for, the relay's journal begins at {start}; fetch the rest from \
                 an archive, or start at the earliest"
            ),
            Self::GaveUp { after, reason } => {
                write!(f, "no connection within {after:?}; last: {reason}")
            }
            Self::TopicRefused { name, code, text } => {
                write!(f, "the relay refuses topic {name}: {code:?}: {text}")
            }
            Self::TooLarge { payload, limit } => write!(
                f,
                "a payload of {payload} bytes does not go through: the relay takes up to {limit} bytes, \
                 and a record must fit into window and credit"
            ),
            Self::UnknownTopic => {
                write!(
                    f,
                    "the topic id is not one this publisher resolved; call topic() first"
                )
            }
            Self::Extension => write!(f, "the extension area is not laid out as FORMAT.md says"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Why a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrySendError {
    /// The window is full of records that are not released yet; `poll` and try again.
    Full,
    /// The payload is over the relay's limit, or the record larger than window or credit.
    TooLarge,
    /// The topic is not one that this publisher's `topic` gave, or the relay refuses it now.
    UnknownTopic,
    /// The extension area is not laid out as `FORMAT.md` says.
    Extension,
    /// The client has ended.
    Closed(ClientError),
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(
                f,
                "the window is full of unreleased records; poll, then try again"
            ),
            Self::TooLarge => write!(
                f,
                "the message is larger than payload limit, window or credit"
            ),
            Self::UnknownTopic => ClientError::UnknownTopic.fmt(f),
            Self::Extension => ClientError::Extension.fmt(f),
            Self::Closed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TrySendError {}

/// Why a connection ended or an attempt failed. The client goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The operating system says so.
    Io {
        /// Its kind.
        kind: io::ErrorKind,
        /// What was being done, and the system's words.
        text: String,
    },
    /// The relay closed the connection without a word.
    Closed,
    /// No connection and logon within the time for it.
    ConnectTimeout,
    /// Nothing heard for `silent_intervals` of the relay's heartbeat intervals.
    Silent,
    /// The relay sent something that breaks the protocol.
    Malformed(String),
    /// The relay ended the session for a reason that passes.
    Terminated {
        /// Why.
        code: TerminateCode,
        /// The relay's own words.
        text: String,
    },
    /// The relay refused a record or topic because another node serves, or is of an epoch older than one seen.
    NotPrimary,
}

impl DisconnectReason {
    pub(crate) fn io(doing: &str, error: &io::Error) -> Self {
        Self::Io {
            kind: error.kind(),
            text: format!("{doing}: {error}"),
        }
    }

    pub(crate) fn malformed(what: impl fmt::Display) -> Self {
        Self::Malformed(what.to_string())
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { text, .. } => f.write_str(text),
            Self::Closed => write!(f, "the relay closed the connection"),
            Self::ConnectTimeout => write!(f, "no logon within the time for one attempt"),
            Self::Silent => write!(f, "nothing heard for too many heartbeat intervals"),
            Self::Malformed(what) => write!(f, "the relay broke the protocol: {what}"),
            Self::Terminated { code, text } => {
                write!(f, "the relay ended the session: {code:?}: {text}")
            }
            Self::NotPrimary => write!(f, "another node serves"),
        }
    }
}
