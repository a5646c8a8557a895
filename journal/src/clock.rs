//! What the clock was worth over a log: the fold of its CLOCK records, one trading session at a time.
//!
//! The node that leads has journalled how far its clock may be from UTC, every minute and at a change. Auditors ask the worst of it
//! for each session, and whether there was a message for which it had not been said. Memory is for one session: a finished one
//! is handed out.

use relay_wire::code::{ClockDiscipline, RecordKind};
use relay_wire::id::{NodeId, Seq};
use relay_wire::record::{
    ClockBody, ERROR_UNBOUNDED, Record, clock_body, epoch_membership, trading_session_body,
};

/// The worst a statement said, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstClock {
    /// The clock was within so many ns of UTC.
    pub error_bound_ns: u64,
    /// When that was measured, ns UTC by that clock.
    pub measured_ns: u64,
    /// Whose clock it was.
    pub node: NodeId,
}

/// What the clock was worth in one trading session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionClock {
    /// The session's number and name; nothing for what lies before the first session.
    pub session: Option<(u64, Box<str>)>,
    /// Seq of its first message, if it has one.
    pub first_seq: Option<Seq>,
    /// Seq of its last message, if it has one.
    pub last_seq: Option<Seq>,
    /// Messages in it.
    pub messages: u64,
    /// Statements about the clock that hold in it: those made in it, and the one in force when it began.
    pub statements: u64,
    /// How many of them bound nothing: the clock followed no source, or one that bounds nothing.
    pub unbounded: u64,
    /// The largest bound of the others.
    pub worst: Option<WorstClock>,
    /// The furthest a clock was estimated to be from its source, either way, ns.
    pub offset_ns_max: u64,
    /// How old the statement in force was at most when a message was received, ns.
    pub age_ns_max: u64,
    /// Messages before which the node that stamped them had said nothing about its clock.
    pub messages_unstated: u64,
    /// By what the clock was kept right, each that occurred, as bit 1 << number of [`ClockDiscipline`].
    pub disciplines: u8,
}

impl SessionClock {
    /// By what the clock was kept right, each that occurred.
    pub fn disciplines(&self) -> impl Iterator<Item = ClockDiscipline> + '_ {
        let all = ClockDiscipline::ALL.iter().copied();
        all.filter(|discipline| self.disciplines & 1 << discipline.number() != 0)
    }

    fn take(&mut self, body: &ClockBody) {
        self.statements += 1;
        if let Some(discipline) = ClockDiscipline::from_number(body.discipline) {
            self.disciplines |= 1 << discipline.number();
        }
        self.offset_ns_max = self.offset_ns_max.max(body.offset_ns.get().unsigned_abs());
        let bound = body.error_bound_ns.get();
        if bound == ERROR_UNBOUNDED {
            self.unbounded += 1;
        } else if self.worst.is_none_or(|worst| bound > worst.error_bound_ns) {
            self.worst = Some(WorstClock {
                error_bound_ns: bound,
                measured_ns: body.measured_ns.get(),
                node: NodeId(body.node.get()),
            });
        }
    }
}

/// The fold. Hand it every record, in order.
#[derive(Debug, Clone, Default)]
pub struct ClockFold {
    current: SessionClock,
    is_begun: bool,
    /// The statement in force, and when it was journalled.
    in_force: Option<(ClockBody, u64)>,
}

impl ClockFold {
    /// Takes the next record in. Where it opens a trading session, the one before is handed out, finished.
    pub fn apply(&mut self, record: &Record<'_>) -> Option<SessionClock> {
        match record.kind() {
            Some(RecordKind::Data) => self.on_message(record),
            Some(RecordKind::Clock) => {
                if let Some((body, _)) = clock_body(record.payload()) {
                    self.is_begun = true;
                    self.in_force = Some((*body, record.receive_time_ns()));
                    self.current.take(body);
                }
            }
            Some(RecordKind::Epoch) => {
                // Another node's clock stamps from here on, or that of a process that has not said anything yet.
                let leads = epoch_membership(record.payload()).map(|record| record.primary.get());
                let stays = self
                    .in_force
                    .filter(|(body, _)| leads == Some(body.node.get()));
                self.in_force = stays;
            }
            Some(RecordKind::TradingSession) => {
                let (number, name) = trading_session_body(record.payload())?;
                return self.begin(number, name);
            }
            _ => {}
        }
        None
    }

    /// The session the log ends in; nothing where there was neither a session nor a message nor a statement.
    #[must_use]
    pub fn finish(self) -> Option<SessionClock> {
        self.is_begun.then_some(self.current)
    }

    fn begin(&mut self, number: u64, name: &str) -> Option<SessionClock> {
        let next = SessionClock {
            session: Some((number, name.into())),
            ..SessionClock::default()
        };
        let before = std::mem::replace(&mut self.current, next);
        let was_begun = std::mem::replace(&mut self.is_begun, true);
        if let Some((body, _)) = &self.in_force {
            self.current.take(body);
        }
        was_begun.then_some(before)
    }

    fn on_message(&mut self, record: &Record<'_>) {
        self.is_begun = true;
        let current = &mut self.current;
        current.messages += 1;
        current.first_seq.get_or_insert(record.seq());
        current.last_seq = Some(record.seq());
        match &self.in_force {
            None => current.messages_unstated += 1,
            Some((_, since_ns)) => {
                let age = record.receive_time_ns().saturating_sub(*since_ns);
                current.age_ns_max = current.age_ns_max.max(age);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_wire::record::{EpochBody, Fields, encode, encoded_stride, stamp};
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    struct Log {
        fold: ClockFold,
        seq: u64,
        finished: Vec<SessionClock>,
    }

    impl Log {
        fn new() -> Self {
            Self {
                fold: ClockFold::default(),
                seq: 1,
                finished: Vec::new(),
            }
        }

        fn push(&mut self, kind: RecordKind, payload: &[u8], second: u64) {
            let mut bytes = vec![0; encoded_stride(0, payload.len())];
            encode(&mut bytes, kind, &Fields::default(), &[], payload).expect("it has room");
            stamp(&mut bytes, Seq(self.seq), second * SECOND);
            self.seq += u64::from(kind == RecordKind::Data);
            let record = Record::parse(&bytes).expect("it was made just now");
            self.finished.extend(self.fold.apply(&record));
        }

        fn clock(&mut self, node: u64, bound: u64, offset: i64, second: u64) {
            let body = ClockBody {
                node: node.into(),
                measured_ns: (second * SECOND).into(),
                error_bound_ns: bound.into(),
                offset_ns: offset.into(),
                kernel_error_ns: 0.into(),
                kernel_error_ns_max: 0.into(),
                frequency_ppt: 0.into(),
                state: 0,
                discipline: u8::from(bound != ERROR_UNBOUNDED),
                reserved: [0; 6],
            };
            let payload = [body.as_bytes(), b"tsc"].concat();
            self.push(RecordKind::Clock, &payload, second);
        }

        fn session(&mut self, number: u64, second: u64) {
            let payload = [&number.to_le_bytes()[..], b"day"].concat();
            self.push(RecordKind::TradingSession, &payload, second);
        }
    }

    #[test]
    fn each_session_has_its_worst() {
        let mut log = Log::new();
        log.session(1, 10);
        log.clock(1, 500, -40, 11);
        log.push(RecordKind::Data, b"a", 12);
        log.clock(1, 900, 3, 70);
        log.clock(1, 700, 3, 130);
        log.push(RecordKind::Data, b"b", 150);
        log.session(2, 200);
        log.push(RecordKind::Data, b"c", 201);
        log.clock(1, ERROR_UNBOUNDED, 0, 202);
        assert_eq!(log.finished.len(), 1);
        let first = &log.finished[0];
        assert_eq!(first.session, Some((1, "day".into())));
        let worst = first.worst.expect("it was said");
        assert_eq!(
            (worst.error_bound_ns, worst.measured_ns),
            (900, 70 * SECOND)
        );
        assert_eq!(
            (first.statements, first.messages, first.unbounded),
            (3, 2, 0)
        );
        assert_eq!(
            (first.first_seq, first.last_seq),
            (Some(Seq(1)), Some(Seq(2)))
        );
        assert_eq!((first.offset_ns_max, first.age_ns_max), (40, 20 * SECOND));
        assert_eq!(first.messages_unstated, 0);
        let second = log.fold.finish().expect("it is open");
        // The statement in force when it began holds in it too.
        assert_eq!(second.worst.expect("it was said").error_bound_ns, 700);
        assert_eq!((second.statements, second.unbounded), (2, 1));
        assert_eq!(second.age_ns_max, 71 * SECOND);
        let both = [ClockDiscipline::None, ClockDiscipline::Chrony];
        assert_eq!(second.disciplines().collect::<Vec<_>>(), both);
    }

    #[test]
    fn another_clock_has_to_speak_for_itself() {
        let mut log = Log::new();
        log.clock(1, 500, 0, 1);
        log.push(RecordKind::Data, b"a", 2);
        log.push(RecordKind::Epoch, EpochBody::new_zeroed().as_bytes(), 3);
        log.push(RecordKind::Data, b"b", 4);
        log.push(RecordKind::Data, b"c", 4);
        log.clock(2, 600, 0, 5);
        log.push(RecordKind::Data, b"d", 6);
        let all = log.fold.finish().expect("there were messages");
        assert_eq!(all.session, None);
        assert_eq!((all.messages, all.messages_unstated), (4, 2));
        assert_eq!(all.worst.expect("it was said").node, NodeId(2));
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(ClockFold::default().finish(), None);
        let mut log = Log::new();
        log.push(RecordKind::Clock, b"short", 1);
        log.push(RecordKind::TradingSession, b"short", 1);
        assert_eq!(log.fold.finish(), None);
    }
}
