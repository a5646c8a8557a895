//! Cutting a byte stream into items: every length is within its limits, and what is known of an item from its first
//! bytes stays true when more of them arrive.

use relay_wire::item::{Front, Limits, MESSAGE_LENGTH_MAX_BEFORE_LOGON, front};
use relay_wire::{record, stride};

/// Walks `data` under the limits of both states of a connection.
pub fn run(data: &[u8]) {
    walk(data, Limits::BEFORE_LOGON);
    walk(data, Limits::after_logon(4_096));
}

fn walk(data: &[u8], limits: Limits) {
    let mut rest = data;
    loop {
        let found = front(rest, limits);
        check_starts(rest, limits);
        match found {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
            Ok(Front::Partial { needed }) => {
                assert!(
                    needed > rest.len(),
                    "an item that needs no more bytes is whole"
                );
                let most = limits.record_length_max.max(limits.message_length_max);
                assert!(
                    needed <= stride(most as usize),
                    "no more is asked for than allowed"
                );
                return;
            }
            Ok(Front::Record { length }) => {
                assert!(length >= record::HEADER_LENGTH);
                assert!(length <= limits.record_length_max as usize);
                rest = &rest[stride(length)..];
            }
            Ok(Front::Message { length }) => {
                assert!(length <= limits.message_length_max as usize);
                let is_before = limits == Limits::BEFORE_LOGON;
                assert!(!is_before || length <= MESSAGE_LENGTH_MAX_BEFORE_LOGON as usize);
                rest = &rest[stride(length)..];
            }
        }
    }
}

/// The answer for a part of an item is "partial" or the final one, and "partial" never asks for more than the whole is.
fn check_starts(bytes: &[u8], limits: Limits) {
    let whole = front(bytes, limits);
    for length in [0, 1, 4, 5, 8, 15, 16, 71, 72, bytes.len().saturating_sub(1)] {
        let Some(start) = bytes.get(..length) else {
            continue;
        };
        match (front(start, limits), whole) {
            (
                Ok(Front::Partial { needed }),
                Ok(Front::Record { length } | Front::Message { length }),
            ) => {
                assert!(
                    needed <= stride(length),
                    "a part asks for no more than the whole"
                );
            }
            (Ok(Front::Partial { .. }), _) => {}
            (early, late) => assert_eq!(early, late, "more bytes change no final answer"),
        }
    }
}
