//! Why bytes are not a message.

use super::PATTERNS_MAX;
use crate::PROTOCOL_VERSION;

/// Why bytes are not a session message, or a message can't be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// A kind this version does not know.
    Kind(u8),
    /// A version other than [`PROTOCOL_VERSION`].
    Version(u8),
    /// The checksum does not fit.
    Checksum,
    /// The length is not what the kind and its fields say.
    Length,
    /// A field that must be zero is not.
    NotZero,
    /// A field has a number that means nothing.
    Number(&'static str),
    /// A text is not UTF-8.
    NotUtf8,
    /// A list of patterns that is empty, too long or does not add up.
    Patterns,
    /// The buffer is too short; so many bytes are needed.
    NoRoom(usize),
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "no session message has kind {kind}"),
            Self::Version(version) => {
                write!(
                    f,
                    "protocol version {version} is not spoken, only {PROTOCOL_VERSION}"
                )
            }
            Self::Checksum => write!(f, "a session message's checksum does not fit"),
            Self::Length => write!(f, "a session message's length is not what its fields say"),
            Self::NotZero => write!(f, "a session message has a reserved field that is not zero"),
            Self::Number(field) => write!(f, "a session message's {field} has no meaning"),
            Self::NotUtf8 => write!(f, "a session message's text is not UTF-8"),
            Self::Patterns => write!(f, "a subscription needs 1 to {PATTERNS_MAX} patterns"),
            Self::NoRoom(needed) => write!(f, "a session message needs {needed} bytes"),
        }
    }
}

impl core::error::Error for MessageError {}
