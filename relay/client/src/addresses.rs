//! Where to connect to, in which order and when.
//!
//! Every address is tried once without delay, since after a failover another node already serves; then each further round
//! begins after a pause: an eighth of the time the trouble has lasted, at least 5 ms and at most a second. So a client comes
//! at most an eighth later than it could, and a relay that is gone for long is not asked for often. Each pause has a jitter of
//! half, so that many clients of a restarted relay don't come all at once.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::error::ClientError;

const PAUSE_LEAST: Duration = Duration::from_millis(5);
const PAUSE_MOST: Duration = Duration::from_secs(1);
const PART_OF_TROUBLE: u32 = 8;

/// The addresses, one of which is the present one.
#[derive(Debug)]
pub(crate) struct Addresses {
    targets: Vec<SocketAddr>,
    present: usize,
    /// Attempts since a connection held.
    attempts: usize,
}

impl Addresses {
    /// Every address behind the names (`host:port`) that can be resolved, in their order; the first one is the present one.
    /// May block.
    pub(crate) fn resolve(names: &[String]) -> Result<Self, ClientError> {
        let mut targets = Vec::new();
        let mut problem = String::from("none is given");
        for name in names {
            match name.to_socket_addrs() {
                Ok(found) => targets.extend(found),
                Err(error) => problem = format!("{name}: {error}"),
            }
        }
        targets.dedup();
        if targets.is_empty() {
            return Err(ClientError::Configuration(format!(
                "no address (host:port) of the relay can be used: {problem}"
            )));
        }
        Ok(Self {
            targets,
            present: 0,
            attempts: 1,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.targets.len()
    }

    /// The present one.
    pub(crate) fn present(&self) -> SocketAddr {
        self.targets[self.present]
    }

    /// Goes to the next one; the pause before it is to be tried. `trouble` is how long no connection has held, `random` any
    /// number.
    pub(crate) fn advance(&mut self, trouble: Duration, random: u64) -> Duration {
        let count = self.targets.len();
        let is_first_round = self.attempts < count;
        let begins_round = self.attempts.is_multiple_of(count);
        self.present = (self.present + 1) % count;
        self.attempts += 1;
        if is_first_round || !begins_round {
            return Duration::ZERO;
        }
        let whole = (trouble / PART_OF_TROUBLE).clamp(PAUSE_LEAST, PAUSE_MOST);
        let half = whole / 2;
        let jitter_ns = random % (half.as_nanos() as u64 + 1);
        half + Duration::from_nanos(jitter_ns)
    }

    /// The connection held: the next loss begins without a pause again.
    pub(crate) fn held(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn addresses(ports: &[u16]) -> Addresses {
        let names: Vec<_> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        Addresses::resolve(&names).expect("numbers need no resolving")
    }

    #[test]
    fn every_address_at_once_then_pauses_of_an_eighth_of_the_trouble() {
        let mut addresses = addresses(&[1, 2]);
        assert_eq!(addresses.present().port(), 1);
        assert_eq!(addresses.advance(MS, 9), Duration::ZERO);
        assert_eq!(addresses.present().port(), 2);
        for (round, (trouble_ms, whole_ms)) in
            (0..).zip([(1, 5), (40, 5), (400, 50), (8_000, 1_000), (99_000, 1_000)])
        {
            let pause = addresses.advance(trouble_ms * MS, round * 7_777_777);
            assert_eq!(addresses.present().port(), 1);
            assert!(pause >= whole_ms * MS / 2, "{pause:?}");
            assert!(pause <= whole_ms * MS, "{pause:?}");
            assert_eq!(addresses.advance(trouble_ms * MS, 9), Duration::ZERO);
        }
        addresses.held();
        assert_eq!(addresses.advance(MS, 9), Duration::ZERO);
        assert_eq!(addresses.present().port(), 1);
    }

    #[test]
    fn the_only_address_is_tried_again_after_a_pause_unless_it_had_held() {
        let mut addresses = addresses(&[1]);
        assert!(addresses.advance(MS, 9) >= PAUSE_LEAST / 2);
        addresses.held();
        assert_eq!(addresses.advance(MS, 9), Duration::ZERO);
        assert!(addresses.advance(MS, 9) >= PAUSE_LEAST / 2);
    }
}
