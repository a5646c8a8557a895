//! How long a client waits for one node before it tries another.
//!
//! A node that was killed says so: its connections are reset. One that hangs, or whose network is gone, says nothing at all, and
//! neither does an attempt to connect to it. Where there are other addresses, waiting for such a node costs exactly what a
//! failover was to save; so silence is short there, and so is an attempt, growing with the time the client has been down:
//! whatever the distance, and however slow a node that is just taking over, an attempt in the end gets the time it needs.
//! A node that has sent its CHALLENGE is alive. It may be about to take over, and answers the LOGON when it does: to go away then
//! would be to come back too late.

use std::time::Duration;

use crate::error::ClientError;

/// Longer settings mean this, so that a deadline can be reckoned with: ten years.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// An attempt gets so long before any has shown how soon a node answers, and one to which a node has answered at least so long.
const ATTEMPT_UNKNOWN: Duration = Duration::from_millis(250);
/// And so many times what it takes until the CHALLENGE is there, which is smoothed as TCP does with its round trips (RFC 6298,
/// section 2, with a quarter): one late answer says little, a machine that has no time to spare says it each time.
const CHALLENGES: u32 = 4;
/// What the newest one counts.
const PART_OF_NEWEST: u32 = 4;
/// An attempt gets at least this part of the time that the client has been down.
const PART_OF_DOWN: u32 = 4;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Patience {
    connect_timeout: Duration,
    attempt_timeout: Duration,
    silent_intervals: u32,
    has_others: bool,
    challenge: Option<Duration>,
}

impl Patience {
    /// As configured. Until it is told otherwise there is but one address.
    ///
    /// # Errors
    /// A setting that can't work.
    pub(crate) fn new(
        connect_timeout: Duration,
        attempt_timeout: Duration,
        silent_intervals: u32,
    ) -> Result<Self, ClientError> {
        if silent_intervals < 2 {
            return Err(ClientError::Configuration(format!(
                "silent_intervals is 2 or more, not {silent_intervals}: a heartbeat may be late"
            )));
        }
        Ok(Self {
            connect_timeout: connect_timeout.min(LONGEST),
            attempt_timeout,
            silent_intervals,
            has_others: false,
            challenge: None,
        })
    }

    /// There are so many addresses.
    pub(crate) fn choose_among(&mut self, addresses: usize) {
        self.has_others = addresses > 1;
    }

    /// A logon succeeded whose CHALLENGE came so long after the attempt had begun.
    pub(crate) fn learn(&mut self, took: Duration) {
        let before = self.challenge.unwrap_or(took);
        self.challenge = Some(before - before / PART_OF_NEWEST + took / PART_OF_NEWEST);
    }

    /// Most time until the CHALLENGE of the attempt that begins when the client has been down for so long.
    pub(crate) fn attempt(&self, down: Duration) -> Duration {
        if !self.has_others {
            return self.connect_timeout;
        }
        let usual = match self.challenge {
            None => ATTEMPT_UNKNOWN,
            Some(took) => took.saturating_mul(CHALLENGES),
        };
        usual
            .max(self.attempt_timeout)
            .max(down / PART_OF_DOWN)
            .min(self.connect_timeout)
    }

    /// Most time for all of an attempt to which the node has sent its CHALLENGE, when the client has been down for so long.
    pub(crate) fn answer(&self, down: Duration) -> Duration {
        let least = ATTEMPT_UNKNOWN.min(self.connect_timeout);
        self.attempt(down).max(least)
    }

    /// Most silence on a connection whose relay speaks every `heartbeat`; before it does (`is_flowing`), the time for one
    /// attempt counts.
    pub(crate) fn silence(&self, heartbeat: Duration, is_flowing: bool) -> Duration {
        let silence = heartbeat.saturating_mul(self.silent_intervals);
        let silence = silence.min(LONGEST);
        if is_flowing {
            silence
        } else {
            silence.max(self.connect_timeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn patience(addresses: usize) -> Patience {
        let mut patience = Patience::new(2_000 * MS, 20 * MS, 4).expect("it can work");
        patience.choose_among(addresses);
        patience
    }

    #[test]
    fn an_attempt_beside_others_is_short_and_grows_with_the_outage() {
        let mut patience = patience(2);
        assert_eq!(patience.attempt(Duration::ZERO), 250 * MS);
        patience.learn(MS);
        for (down_ms, attempt_ms) in [(0, 20), (80, 20), (100, 25), (4_000, 1_000), (9_000, 2_000)]
        {
            assert_eq!(patience.attempt(down_ms * MS), attempt_ms * MS, "{down_ms}");
        }
    }

    #[test]
    fn a_node_that_has_spoken_is_waited_for_longer() {
        let mut patience = patience(2);
        patience.learn(MS);
        for (down_ms, answer_ms) in [(0, 250), (800, 250), (4_000, 1_000), (9_000, 2_000)] {
            assert_eq!(patience.answer(down_ms * MS), answer_ms * MS, "{down_ms}");
        }
    }

    #[test]
    fn one_slow_answer_says_little_and_many_say_it() {
        let mut patience = patience(2);
        patience.learn(2 * MS);
        patience.learn(22 * MS);
        assert_eq!(patience.attempt(Duration::ZERO), 28 * MS);
        for _ in 0..20 {
            patience.learn(40 * MS);
        }
        let attempt = patience.attempt(Duration::ZERO);
        assert!((155 * MS..=160 * MS).contains(&attempt), "{attempt:?}");
        for _ in 0..40 {
            patience.learn(3_000 * MS);
        }
        assert_eq!(patience.attempt(Duration::ZERO), 2_000 * MS);
    }

    #[test]
    fn the_only_address_gets_all_the_time() {
        let mut patience = patience(1);
        patience.learn(MS);
        assert_eq!(patience.attempt(Duration::ZERO), 2_000 * MS);
    }

    #[test]
    fn silence_is_counted_in_heartbeats_once_they_come() {
        let patience = patience(2);
        assert_eq!(patience.silence(50 * MS, true), 200 * MS);
        assert_eq!(patience.silence(50 * MS, false), 2_000 * MS);
        assert_eq!(patience.silence(1_000 * MS, false), 4_000 * MS);
    }
}
