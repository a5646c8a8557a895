//! What is said to people on the other side: for each code one sentence of what happened and what to do.

use relay_wire::code::{RejectCode, TerminateCode};
use relay_wire::item::ItemError;

pub(super) const FULL_TEXT: &str = "no place for another connection now; come back later, or raise \
                         limits.connections in the relay's configuration";

pub(super) const MALFORMED_TEXT: &str =
    "a malformed session message; see the wire format, section 3";

pub(super) const NOT_HERE_TEXT: &str =
    "a session message that is not allowed here; see the wire format";

pub(super) const STREAM_TEXT: &str = "this address serves another stream, named in the detail";

pub(super) const AUTHENTICATION_TEXT: &str = "name, secret, role or publisher do not go together; compare \
                                   them with [[credential]] in the relay's configuration";

pub(super) const LOGON_TIME_TEXT: &str = "no logon came in time";

pub(super) const SILENT_TEXT: &str = "nothing was heard for five intervals";

pub(super) fn item_error(error: ItemError) -> (TerminateCode, u64, &'static str) {
    match error {
        ItemError::TooLong { length, .. } => (
            TerminateCode::TooLong,
            length.into(),
            "an item longer than allowed here",
        ),
        ItemError::TooShort { .. } => (
            TerminateCode::Protocol,
            0,
            "an item shorter than its header",
        ),
        ItemError::KindZero => (TerminateCode::Protocol, 0, "an item of kind 0"),
        ItemError::Padding => (TerminateCode::Protocol, 0, "padding that is not zero"),
    }
}

pub(super) const fn reject_text(code: RejectCode) -> &'static str {
    match code {
        RejectCode::NotEntitled => "the credential may not publish to this topic",
        RejectCode::TooLarge => "the payload is over the limit in LOGON_ACK",
        RejectCode::Gap => "a publisher sequence is missing; send again from the next expected",
        RejectCode::Throttled => "over the credential's rate_limit; send again a little later",
        RejectCode::NotPrimary => "another node serves; log on at another address",
        RejectCode::UnknownTopic => "no such topic was told on this connection; ask for it",
        RejectCode::BadTopic => "a topic is 1 to 8 levels of printable UTF-8, 255 bytes at most",
        RejectCode::TooManyTopics => "limits.topics of the relay's configuration is reached",
    }
}

/// What an operator or developer on the other side should know about `code`.
pub(crate) const fn terminate_text(code: TerminateCode) -> &'static str {
    match code {
        TerminateCode::Logout => "as you wish",
        TerminateCode::Stopping => "the relay is being stopped; what was accepted is released",
        TerminateCode::Protocol => "something that is not allowed here",
        TerminateCode::Checksum => "a checksum does not fit",
        TerminateCode::Version => "protocol version not spoken",
        TerminateCode::Authentication => AUTHENTICATION_TEXT,
        TerminateCode::LogonTimeout => LOGON_TIME_TEXT,
        TerminateCode::Silent => SILENT_TEXT,
        TerminateCode::NotEntitled => "the credential may not read this pattern",
        TerminateCode::Superseded => "the same publisher logged on over another connection",
        TerminateCode::OldIncarnation => "a later incarnation of this publisher was here",
        TerminateCode::SequenceLost => "what is expected next can't be supplied any more",
        TerminateCode::TooSlow => "too slow, or too far behind, for too long; come back and resume",
        TerminateCode::WrongHistory => {
            "the record before this seq is another one here than you saw: two histories exist; \
             stop and call the operator"
        }
        TerminateCode::BeyondTail => {
            "this seq lies beyond all that was ever released here; stop and call the operator"
        }
        TerminateCode::Full => FULL_TEXT,
        TerminateCode::NotPrimary => "another node serves",
        TerminateCode::StorageFault => "the node's disk failed; it serves no more",
        TerminateCode::TooLong => "an item longer than allowed here",
        TerminateCode::UnknownStream => STREAM_TEXT,
    }
}
