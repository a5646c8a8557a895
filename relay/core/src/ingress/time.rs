//! What time brings: overdue logons, silent publishers, heartbeats, and the word that publishers are held.

use relay_wire::code::{Held, TerminateCode};
use relay_wire::message::{Heartbeat, Message};

use super::words::{LOGON_TIME_TEXT, SILENT_TEXT};
use super::{Ingress, State};

/// A farewell that can't be delivered within this time is given up.
const FAREWELL_NS: u64 = 1_000_000_000;
/// How often connections are looked after in a heartbeat interval.
const ROUNDS_PER_HEARTBEAT: u64 = 8;
/// Connections looked after in one turn: heartbeats for a thousand publishers at once would be a pause of milliseconds.
const LOOKED_AFTER_MAX: usize = 64;

/// A round over the connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The place to go on from.
    next: u32,
    /// Every publisher is told whether it is held.
    tells_held: bool,
}

impl Ingress {
    /// Time passed: overdue logons, silent publishers, heartbeats. Looks at everything a few times per heartbeat, at some of it in
    /// each call.
    pub fn on_time(&mut self, now_ns: u64) {
        let Some(mut round) = self.round.take().or_else(|| self.begin_round(now_ns)) else {
            return;
        };
        for _ in 0..LOOKED_AFTER_MAX {
            let Some(index) = self.taken.next_from(round.next) else {
                return;
            };
            round.next = index + 1;
            self.look_after(index, round.tells_held, now_ns);
        }
        self.round = Some(round);
    }

    /// A round, if one is due. Publishers are told at most once in a heartbeat interval that they are held, or no longer: with the
    /// log at its limit that changes from turn to turn.
    fn begin_round(&mut self, now_ns: u64) -> Option<Round> {
        let interval = self.settings.heartbeat_ns;
        let was_told = self
            .held_told_ns
            .is_some_and(|told_ns| now_ns < told_ns + interval);
        let tells_held = self.held != self.held_told && !was_told;
        if !tells_held && now_ns < self.checked_ns + interval / ROUNDS_PER_HEARTBEAT {
            return None;
        }
        self.checked_ns = now_ns;
        if tells_held {
            self.held_told = self.held;
            self.held_told_ns = Some(now_ns);
        }
        Some(Round {
            next: 0,
            tells_held,
        })
    }

    fn look_after(&mut self, index: u32, tells_held: bool, now_ns: u64) {
        let interval = self.settings.heartbeat_ns;
        let silent_ns = self.settings.client_silence_ns();
        let conn = self.conn_at(index);
        let slot = &self.slots[index as usize];
        match slot.state {
            State::Free => {}
            State::AwaitLogon { since_ns } => {
                if now_ns >= since_ns + self.settings.logon_timeout_ns {
                    self.end(
                        conn,
                        TerminateCode::LogonTimeout,
                        0,
                        LOGON_TIME_TEXT,
                        now_ns,
                    );
                }
            }
            State::AwaitPrimary { since_ns, .. } => {
                if now_ns >= since_ns + self.settings.logon_timeout_ns {
                    self.send_on(conn, now_ns);
                }
            }
            State::Closing { since_ns } => {
                if now_ns >= since_ns + FAREWELL_NS {
                    self.abandon(conn);
                }
            }
            State::AwaitEstablished { .. } | State::HandingOver | State::Publisher => {
                // Of a publisher that is held nothing more is received, so it can't be heard.
                let heard_ns = slot.heard_ns.max(self.held_since_ns);
                let is_silent = now_ns >= heard_ns + silent_ns;
                let is_held = slot.state == State::Publisher && self.held != Held::No;
                if is_silent && !is_held {
                    self.end(conn, TerminateCode::Silent, 0, SILENT_TEXT, now_ns);
                } else if slot.state == State::Publisher
                    && (tells_held || now_ns >= slot.said_ns + interval && slot.outgoing.is_empty())
                {
                    self.say(conn, &Message::Heartbeat(self.heartbeat()), now_ns);
                }
            }
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            next_seq: self.next_seq,
            epoch: self.epoch,
            checksum: 0,
            held: self.held,
        }
    }
}
