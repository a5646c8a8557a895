//! What is journalled about the node itself while it leads: the key that signs its seals, what its clock is worth.
//!
//! Others find it out and hand it in, whatever the node is at the time. Here is decided when it is stamped: never by a standby; at
//! the start of a reign, as it was last told, so that every reign says whose key and clock it had; and then with each new word.

use relay_wire::record::{ClockBody, SealKeyBody};

use super::{Node, Role};
use crate::command::{ClockSources, Now, Testimony};
use crate::log::LogWindow;

/// The newest word of each kind, and whether the log is still to say it.
#[derive(Debug, Clone, Copy, Hash, Default)]
pub(super) struct Testimonies {
    seal_key: Option<SealKeyBody>,
    clock: Option<(ClockBody, ClockSources)>,
    is_key_due: bool,
    is_clock_due: bool,
}

impl Testimonies {
    /// A reign begins: what is known is to be said in it.
    pub(super) fn on_reign(&mut self) {
        self.is_key_due = true;
        self.is_clock_due = true;
    }

    /// What is to be said next.
    fn due(&self) -> Option<Testimony> {
        let key = self.seal_key.filter(|_| self.is_key_due);
        let clock = self.clock.filter(|_| self.is_clock_due);
        key.map(Testimony::SealKey)
            .or_else(|| clock.map(|(body, sources)| Testimony::Clock(body, sources)))
    }
}

impl Node {
    /// Something was found out about this node. A word that was not journalled yet gives way to a newer one of its kind.
    pub fn on_testimony(&mut self, testimony: Testimony) {
        let known = &mut self.testimonies;
        match testimony {
            Testimony::SealKey(body) => {
                known.seal_key = Some(body);
                known.is_key_due = true;
            }
            Testimony::Clock(body, sources) => {
                known.clock = Some((body, sources));
                known.is_clock_due = true;
            }
        }
    }

    /// Journals what is due, where this node leads an epoch that is open.
    pub(super) fn testify(&mut self, now: Now, log: &mut LogWindow<'_>) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        if !primary.is_stamping() {
            return;
        }
        while let Some(testimony) = self.testimonies.due() {
            if !primary.sequence.testify(&testimony, now, log) {
                return;
            }
            match testimony {
                Testimony::SealKey(_) => self.testimonies.is_key_due = false,
                Testimony::Clock(..) => self.testimonies.is_clock_due = false,
            }
        }
    }
}
