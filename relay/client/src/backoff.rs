//! When to try the next address.
//!
//! Every address is tried once without delay, since after a failover another node already serves. While the nodes find out which
//! of them that is, each further round begins after 5 ms; a fifth of a second later the pauses double, to 1 s. Each has a
//! jitter of half, so that many clients of a restarted relay don't come all at once.

use std::time::Duration;

const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// So many rounds begin after the first pause.
const ROUNDS_QUICK: u32 = 50;
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// Which address is next, and after what pause.
#[derive(Debug)]
pub(crate) struct Backoff {
    addresses: usize,
    next: usize,
    attempts: u32,
}

impl Backoff {
    /// For so many addresses, beginning with the first.
    pub(crate) fn new(addresses: usize) -> Self {
        assert!(addresses > 0, "there is an address");
        Self {
            addresses,
            next: 0,
            attempts: 0,
        }
    }

    /// Goes to the next attempt: the index of its address, and the pause before it. `random` is any number.
    pub(crate) fn attempt(&mut self, random: u64) -> (usize, Duration) {
        let address = self.next;
        self.next = (self.next + 1) % self.addresses;
        let round = self.attempts / u32::try_from(self.addresses).unwrap_or(u32::MAX);
        let begins_round = (self.attempts as usize).is_multiple_of(self.addresses);
        self.attempts = self.attempts.saturating_add(1);
        if round == 0 || !begins_round {
            return (address, Duration::ZERO);
        }
        let whole = PAUSE_FIRST
            .saturating_mul(1 << round.saturating_sub(ROUNDS_QUICK).min(10))
            .min(PAUSE_MOST);
        let half = whole / 2;
        let jitter_ns = random % (half.as_nanos() as u64 + 1);
        (address, half + Duration::from_nanos(jitter_ns))
    }

    /// The connection held: the next loss begins without a pause again.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_at_once_then_quick_rounds_then_doubling_pauses_up_to_a_second() {
        let mut backoff = Backoff::new(2);
        assert_eq!(backoff.attempt(9), (0, Duration::ZERO));
        assert_eq!(backoff.attempt(9), (1, Duration::ZERO));
        let mut whole_ms = 5;
        for round in 1..64 {
            let (address, pause) = backoff.attempt(round * 7_777_777);
            assert_eq!(address, 0);
            assert!(pause >= Duration::from_millis(whole_ms / 2), "{pause:?}");
            assert!(pause <= Duration::from_millis(whole_ms), "{pause:?}");
            assert_eq!(backoff.attempt(9), (1, Duration::ZERO));
            if round >= u64::from(ROUNDS_QUICK) {
                whole_ms = (whole_ms * 2).min(1_000);
            }
        }
        backoff.reset();
        assert_eq!(backoff.attempt(9).1, Duration::ZERO);
    }
}
