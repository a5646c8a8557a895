//! Files of log that a node had and its primary had not: kept for whoever audits, and never read by the relay again.
//!
//! A set-aside file lies in the journal's directory and holds the bytes of the log from a position on as they lay in the segments:
//! blocks at the same alignment, each with its own position, ended by the end of what was written. Its name says from which
//! position, and in which epoch the group went on without it.

use relay_wire::id::{Epoch, Position};

use crate::segment::parse_hex;

const PREFIX: &str = "set-aside-";

/// File name of what was set aside from `position` on when `epoch` was joined.
#[must_use]
pub fn name(epoch: Epoch, position: Position) -> String {
    format!("{PREFIX}{:016x}-{:016x}", epoch.get(), position.get())
}

/// Epoch and position in the name of a set-aside file; nothing for every other name.
#[must_use]
pub fn parse_name(name: &str) -> Option<(Epoch, Position)> {
    let (epoch, position) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((Epoch(parse_hex(epoch)?), Position(parse_hex(position)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back() {
        let named = (Epoch(7), Position(0x0001_2000));
        assert_eq!(parse_name(&name(named.0, named.1)), Some(named));
        for odd in ["set-aside.new", "set-aside-7-8", "0000000000000007"] {
            assert_eq!(parse_name(odd), None, "{odd}");
        }
    }
}
