//! One subscriber's state: what it wants, where it stands, what is under way to it.

use relay_wire::code::{Held, TerminateCode};
use relay_wire::id::{Epoch, Position, Seq};
use relay_wire::message::{Heartbeat, Message};

use super::RUNS_MAX;
use super::cursor::{Cursor, Run, Selection, Skip};
use super::patterns::PatternSet;
use crate::command::{ConnId, ReleasePoint};
use crate::outgoing::Outgoing;

/// Bytes for session messages to a subscriber: some dozens of topic names.
const OUTGOING: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    AwaitSubscribe,
    Active,
    /// It saw what this log does not hold: whether this node still leads is asked before that is an alarm.
    Doubted {
        code: TerminateCode,
        detail: u64,
        since_ns: u64,
    },
    Closing {
        since_ns: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Nothing,
    Messages,
    Log,
}

#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) conn: ConnId,
    pub(super) credential: u32,
    pub(super) state: State,
    pub(super) selection: Option<Selection>,
    /// Where it stands, unless it is among those at the tail: then everything released was looked at for it.
    pub(super) cursor: Cursor,
    /// What is left of a run that a full socket cut short.
    pub(super) rest: Option<Run>,
    /// Runs of the send under way.
    pub(super) runs: Vec<Run>,
    pub(super) sending: Sending,
    pub(super) slot: Option<u32>,
    pub(super) is_waiting: bool,
    pub(super) is_queued: bool,
    pub(super) was_at_tail: bool,
    /// Topics, or patterns that are names of topics, that were looked at to be told, of so many.
    pub(super) topics_told: u32,
    pub(super) topics_to_tell: u32,
    pub(super) outgoing: Outgoing,
    pub(super) blocked_since_ns: Option<u64>,
    pub(super) heard_ns: u64,
    pub(super) said_ns: u64,
    pub(super) taken_ns: u64,
    pub(super) heartbeat_ns: u64,
}

impl Subscriber {
    pub(super) fn new(conn: ConnId, credential: u32, now_ns: u64) -> Self {
        Self {
            conn,
            credential,
            state: State::AwaitSubscribe,
            selection: None,
            cursor: Cursor {
                block: Position(0),
                offset: 0,
                next_seq: Seq(0),
                checksum: None,
            },
            rest: None,
            runs: Vec::with_capacity(RUNS_MAX + 1),
            sending: Sending::Nothing,
            slot: None,
            is_waiting: false,
            is_queued: false,
            was_at_tail: false,
            topics_told: 0,
            topics_to_tell: 0,
            outgoing: Outgoing::with_capacity(OUTGOING),
            blocked_since_ns: None,
            heard_ns: now_ns,
            said_ns: now_ns,
            taken_ns: now_ns,
            heartbeat_ns: now_ns,
        }
    }

    pub(super) fn begin(
        &mut self,
        cursor: Cursor,
        skip: Skip,
        patterns: PatternSet,
        topics_to_tell: u32,
    ) {
        self.state = State::Active;
        self.cursor = cursor;
        self.topics_to_tell = topics_to_tell;
        let from_ns = match skip {
            Skip::Time(from_ns) => Some(from_ns),
            _ => None,
        };
        self.selection = Some(Selection {
            patterns,
            skip,
            from_ns,
        });
    }

    /// Whether its patterns select only some topics.
    pub(super) fn is_filtered(&self) -> bool {
        let selection = self.selection.as_ref();
        selection.is_some_and(|selection| !selection.patterns.is_everything())
    }

    /// Queues a message; one that does not fit is left out, which only a peer that reads nothing ever sees.
    pub(super) fn say(&mut self, message: &Message<'_>, now_ns: u64) {
        if self.outgoing.push(message).is_ok() {
            self.said_ns = now_ns;
        }
    }

    /// Says how far the flow was looked at; where that is not known, only that this node is there.
    pub(super) fn beat(
        &mut self,
        is_at_tail: bool,
        tail: &ReleasePoint,
        epoch: Epoch,
        now_ns: u64,
    ) {
        let (next_seq, checksum) = match self.cursor.checksum {
            _ if is_at_tail => (tail.next_seq, tail.checksum),
            Some(checksum) => (self.cursor.next_seq, checksum),
            None => (Seq(0), 0),
        };
        // What is queued or under way lies before the cursor; the heartbeat goes out after it.
        if self.rest.is_some() || self.sending != Sending::Nothing {
            return;
        }
        self.heartbeat_ns = now_ns;
        let heartbeat = Heartbeat {
            next_seq,
            epoch,
            checksum,
            held: Held::No,
        };
        self.say(&Message::Heartbeat(heartbeat), now_ns);
    }

    /// Takes account of `length` bytes sent of the runs under way; true when that is all of them.
    pub(super) fn on_log_sent(&mut self, length: usize) -> bool {
        let mut left = length as u64;
        self.rest = None;
        for at in 0..self.runs.len() {
            let run = self.runs[at];
            if left >= u64::from(run.length) {
                left -= u64::from(run.length);
                continue;
            }
            // Stand where this run's bytes end up; what comes after it is walked again.
            let position = run.position.plus(left);
            self.rest = Some(Run {
                position,
                length: run.length - left as u32,
                ..run
            });
            self.cursor = run.after;
            self.runs.clear();
            if run.awaits_time
                && let Some(selection) = &mut self.selection
                && let Some(from_ns) = selection.from_ns
            {
                // The walk may have met it behind this run.
                selection.skip = Skip::Time(from_ns);
            }
            return false;
        }
        assert_eq!(left, 0, "no more can be sent than was asked for");
        self.runs.clear();
        true
    }
}
