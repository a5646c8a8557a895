//! What an auditor gets besides the log itself: the seals of its segments, and what the clock that stamped it was worth.
//!
//! A part of housekeeping. What the log is to say about either is handed to the hot thread as a value, and the node there decides
//! when it is stamped.

use relay_core::command::Testimony;
use relay_wire::id::Position;

use crate::arena::Pages;
use crate::clock_watch::ClockWatch;
use crate::link::Parking;
use crate::sealing::Sealing;

/// Words on their way to the hot thread at most; it takes them in its every turn.
pub(crate) const TESTIMONIES_MAX: usize = 8;

/// See the module's description.
pub(crate) struct Evidence {
    pub(crate) sealing: Option<Sealing>,
    pub(crate) clock: ClockWatch,
    pub(crate) testimonies: rtrb::Producer<Testimony>,
    /// Where the thread sleeps that takes them.
    pub(crate) hot: Parking,
}

impl Evidence {
    /// Takes in what was read of the released log at `position`.
    pub(crate) fn offer(&mut self, position: Position, bytes: &[u8], released: Position) {
        if let Some(sealing) = &mut self.sealing {
            sealing.offer(position, bytes, released);
        }
    }

    /// Does a little; whether there was something to do. The log was offered up to `folded`.
    pub(crate) fn step(&mut self, released: Position, folded: Position, pages: &mut Pages) -> bool {
        // A word is only asked for where there is a place for it.
        if self.testimonies.slots() >= 2 {
            let key = self.sealing.as_mut().and_then(Sealing::take_testimony);
            let words = [key, self.clock.step()];
            let mut was_said = false;
            for word in words.into_iter().flatten() {
                was_said |= self.testimonies.push(word).is_ok();
            }
            if was_said {
                self.hot.wake();
            }
        }
        self.sealing
            .as_mut()
            .is_some_and(|sealing| sealing.step(released, folded, pages))
    }
}
