//! Cutting a byte stream into items (`FORMAT.md` section 1).
//!
//! First step of everything received: it trusts nothing but the length and kind, and those only within [`Limits`]. It
//! holds no bytes itself; the caller keeps the buffer and calls again with more.

use crate::{record, stride};

/// Lengths an item may have on a connection in its present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a record; 0 where records are not allowed.
    pub record_length_max: u32,
    /// Most bytes of a session message.
    pub message_length_max: u32,
}

/// Bytes of a session message's header.
pub const MESSAGE_HEADER_LENGTH: usize = 16;
/// Most bytes of a session message before logon.
pub const MESSAGE_LENGTH_MAX_BEFORE_LOGON: u32 = 512;
/// Most bytes of a session message after logon.
pub const MESSAGE_LENGTH_MAX: u32 = 262_144;
/// Largest payload limit that can be configured, in bytes.
pub const PAYLOAD_LIMIT_MAX: u32 = 1 << 20;
/// Kinds from here on are session messages.
pub const FIRST_MESSAGE_KIND: u8 = 128;

impl Limits {
    /// Before logon: short session messages only.
    pub const BEFORE_LOGON: Self = Self {
        record_length_max: 0,
        message_length_max: MESSAGE_LENGTH_MAX_BEFORE_LOGON,
    };

    /// After logon, with records of up to `payload_limit` bytes of payload.
    #[must_use]
    pub const fn after_logon(payload_limit: u32) -> Self {
        Self {
            record_length_max: record::length_max(payload_limit),
            message_length_max: MESSAGE_LENGTH_MAX,
        }
    }
}

/// What the front of a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// An item that is not there as a whole; at least so many bytes are needed from its start.
    Partial {
        /// Bytes from the start of the item.
        needed: usize,
    },
    /// A whole record of `length` bytes, padding there too.
    Record {
        /// Bytes without padding.
        length: usize,
    },
    /// A whole session message of `length` bytes, padding there too.
    Message {
        /// Bytes without padding.
        length: usize,
    },
}

/// Why the front of a buffer can't be an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemError {
    /// The kind is 0.
    KindZero,
    /// Shorter than the header its kind has.
    TooShort {
        /// The length it claims.
        length: u32,
    },
    /// Longer than allowed now.
    TooLong {
        /// The length it claims.
        length: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// The bytes after the item, up to the next multiple of 8, are not zero.
    Padding,
}

impl core::fmt::Display for ItemError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::KindZero => write!(f, "an item has kind 0: the byte stream is out of step"),
            Self::TooShort { length } => {
                write!(f, "an item claims {length} bytes, less than its header")
            }
            Self::TooLong { length, limit } => {
                write!(
                    f,
                    "an item claims {length} bytes, more than the {limit} allowed here"
                )
            }
            Self::Padding => write!(f, "the padding after an item is not zero"),
        }
    }
}

impl core::error::Error for ItemError {}

/// Looks at the item at the start of `buffer`.
///
/// # Errors
/// [`ItemError`] as soon as the bytes there are enough to know.
pub fn front(buffer: &[u8], limits: Limits) -> Result<Front, ItemError> {
    let [l0, l1, l2, l3, kind, ..] = *buffer else {
        return Ok(Front::Partial {
            needed: MESSAGE_HEADER_LENGTH,
        });
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let is_message = kind >= FIRST_MESSAGE_KIND;
    let (least, most) = match kind {
        0 => return Err(ItemError::KindZero),
        _ if is_message => (MESSAGE_HEADER_LENGTH as u32, limits.message_length_max),
        _ => (record::HEADER_LENGTH as u32, limits.record_length_max),
    };
    if length > most {
        return Err(ItemError::TooLong {
            length,
            limit: most,
        });
    }
    if length < least {
        return Err(ItemError::TooShort { length });
    }
    let length = length as usize;
    let whole = stride(length);
    if buffer.len() < whole {
        return Ok(Front::Partial { needed: whole });
    }
    if buffer[length..whole].iter().any(|&byte| byte != 0) {
        return Err(ItemError::Padding);
    }
    Ok(if is_message {
        Front::Message { length }
    } else {
        Front::Record { length }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits::after_logon(65_536);

    #[test]
    fn lengths_of_zero_and_four_gibibytes_are_refused() {
        for kind in [1, 200] {
            assert_eq!(
                front(&[0, 0, 0, 0, kind, 0, 0, 0], LIMITS),
                Err(ItemError::TooShort { length: 0 })
            );
            assert!(matches!(
                front(&[255, 255, 255, 255, kind], LIMITS),
                Err(ItemError::TooLong {
                    length: u32::MAX,
                    ..
                })
            ));
        }
    }

    #[test]
    fn records_are_refused_before_logon() {
        assert!(matches!(
            front(&[72, 0, 0, 0, 1], Limits::BEFORE_LOGON),
            Err(ItemError::TooLong {
                length: 72,
                limit: 0
            })
        ));
    }

    #[test]
    fn padding_must_be_zero() {
        let mut item = vec![0; 24];
        item[0] = 17;
        item[4] = 132;
        assert_eq!(front(&item, LIMITS), Ok(Front::Message { length: 17 }));
        item[23] = 1;
        assert_eq!(front(&item, LIMITS), Err(ItemError::Padding));
        assert_eq!(
            front(&item[..23], LIMITS),
            Ok(Front::Partial { needed: 24 })
        );
    }
}
