//! The end of a process: subscribers are brought to the end of what is released, farewells are said, and then it goes.

use relay_core::fanout::Fanout;
use relay_wire::code::TerminateCode;

use super::group::Group;
use super::{Exit, Process, Surroundings};
use crate::clock::{MILLISECOND, SECOND};

/// A stopping process waits so long for subscribers, and so long for farewells.
const CATCH_UP_NS: u64 = 2 * SECOND;
/// A process that begins again waits so long for farewells.
const FAREWELL_BEFORE_RESTART_NS: u64 = 20 * MILLISECOND;

/// Where the process is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    Asked,
    /// Everything is released, or nothing more will be.
    Over {
        since_ns: u64,
        is_farewell_said: bool,
    },
}

impl Process {
    pub(super) fn attend_to_ending(&mut self, around: &mut Surroundings<'_>) {
        let now_ns = around.now.mono_ns;
        if self.end.is_some() && !matches!(self.ending, Ending::Over { .. }) {
            self.ending = Ending::Over {
                since_ns: now_ns,
                is_farewell_said: false,
            };
        }
        let Ending::Over {
            since_ns,
            is_farewell_said,
        } = self.ending
        else {
            return;
        };
        let is_patient = matches!(self.end, Some(Exit::Stopped(_)));
        let is_patient = is_patient && now_ns < since_ns + CATCH_UP_NS;
        let is_caught_up = self.fanout.as_ref().is_none_or(Fanout::is_caught_up);
        let is_waiting = self.release.is_some() || !is_caught_up || !self.replies.is_empty();
        if is_farewell_said || (is_patient && is_waiting) {
            return;
        }
        let code = match self.end {
            Some(Exit::Fault) => TerminateCode::StorageFault,
            Some(Exit::Restart { .. } | Exit::Halt(_)) => TerminateCode::NotPrimary,
            Some(Exit::Stopped(_)) | None => TerminateCode::Stopping,
        };
        self.ending = Ending::Over {
            since_ns,
            is_farewell_said: true,
        };
        self.ingress.stop(code, now_ns);
        if let Some(fanout) = &mut self.fanout {
            fanout.stop(code, now_ns);
        }
        self.drain_ingress(around);
    }

    pub(super) fn exit(&self, now_ns: u64) -> Option<Exit> {
        let Ending::Over {
            since_ns,
            is_farewell_said: true,
        } = self.ending
        else {
            return None;
        };
        let is_empty = self.ingress.is_empty()
            && self.fanout.as_ref().is_none_or(Fanout::is_empty)
            && self.sockets.iter().all(Option::is_none);
        let is_restart = matches!(self.end, Some(Exit::Restart { .. }));
        let patience_ns = if is_restart {
            FAREWELL_BEFORE_RESTART_NS
        } else {
            2 * CATCH_UP_NS
        };
        let is_late = now_ns > since_ns + patience_ns;
        // A disk that failed owes no completion; whoever begins again waits for its own writes.
        let is_settled = !is_restart || self.is_settled();
        (is_settled && (is_empty || is_late)).then_some(self.end)?
    }

    /// Whether the disk has none of its operations any more.
    fn is_settled(&self) -> bool {
        let has_group_settled = self.group.as_ref().is_none_or(Group::is_settled);
        let has_read = self.reads.iter().all(Option::is_none);
        let has_disk_settled =
            self.to_disk.is_empty() && self.writes.is_empty() && !self.is_syncing;
        has_disk_settled && has_read && has_group_settled
    }
}
