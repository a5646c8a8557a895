//! A subscriber: follows the flow through all its connections, and knows at each moment what must come next.
//!
//! Whatever it is sent is compared with the ledger, and whatever is left out too: a message it skips must be one that its
//! patterns do not select.

use relay_wire::code::{From, RecordKind, TerminateCode};
use relay_wire::id::Seq;
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{Heartbeat, Message, Patterns, Subscribe, Subscribed, Terminate};
use relay_wire::record::Record;
use relay_wire::{stride, topic};

use super::Scene;
use super::session::{Identity, Session};
use crate::clock::MILLISECOND;
use crate::cluster::Event;
use crate::faults::Fault;
use crate::history::Note;
use crate::ledger::{Ledger, Released};
use crate::network::{EndId, Signal};
use crate::random::Random;
use crate::swarm::READER;

const PATTERNS: [&[&str]; 5] = [
    &[">"],
    &["orders.>"],
    &["*.xnas.>", "book.xlon.*.top"],
    &["orders.*.n1"],
    &["book.>", "orders.xetr.n4"],
];

/// Where the next subscription is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Live,
    Earliest,
    Time(u64),
    /// Where it left off, or somewhere in the past.
    Seq {
        next: u64,
        checksum: Option<u32>,
    },
    /// Behind everything there is: an alarm must come.
    BeyondTail,
    /// With a checksum that is not that of the message before: an alarm must come.
    WrongHistory {
        next: u64,
        checksum: u32,
    },
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Subscriber {
    client: usize,
    random: Random,
    patterns: &'static [&'static str],
    is_everything: bool,
    plan: Plan,
    /// What was asked for on this connection and not yet answered.
    asked: Option<Plan>,
    /// Whether the subscription of this connection was answered.
    is_subscribed: bool,
    /// Everything before this seq has come, or is not wanted.
    next: u64,
    /// Messages received before this time are not wanted.
    from_time_ns: u64,
    epoch: u64,
    /// Which topic ids its patterns select, as far as they were looked up.
    selected: Vec<Option<bool>>,
    /// Topics told on this connection.
    told: Vec<bool>,
    session: Option<Session>,
    sessions: u32,
    connect_ns: u64,
    paused_until_ns: u64,
    /// Most bytes read at a time, and the pause after that.
    chunk: usize,
    chunk_pause_ns: u64,
    has_ended: bool,
    node: usize,
    token: u32,
    wakes_ns: u64,
}

impl Subscriber {
    /// A subscriber that is about to connect.
    pub(crate) fn new(client: usize, seed: u64) -> Self {
        let mut random = Random::of(seed, 1_000 + client as u64);
        let patterns = if random.chance(500_000) {
            PATTERNS[0]
        } else {
            random.pick(&PATTERNS)
        };
        let is_slow = random.chance(250_000);
        let plan = random.pick(&[Plan::Live, Plan::Earliest, Plan::Earliest]);
        Self {
            client,
            patterns,
            is_everything: patterns.contains(&">"),
            plan,
            asked: None,
            is_subscribed: false,
            next: 1,
            from_time_ns: 0,
            epoch: 0,
            selected: Vec::new(),
            told: Vec::new(),
            session: None,
            sessions: 0,
            connect_ns: 0,
            paused_until_ns: 0,
            chunk: if is_slow {
                random.within(100, 20_000) as usize
            } else {
                usize::MAX
            },
            chunk_pause_ns: random.within(1, 30) * MILLISECOND,
            has_ended: false,
            node: 0,
            token: 0,
            wakes_ns: u64::MAX,
            random,
        }
    }

    /// Epochs only rise.
    fn note_epoch(&mut self, epoch: u64, scene: &mut Scene<'_>) {
        if epoch < self.epoch && scene.parameters.cast.nodes == 1 {
            scene.raise(format!(
                "client {} is told epoch {epoch} after epoch {}",
                self.client, self.epoch
            ));
        }
        self.epoch = self.epoch.max(epoch);
    }

    /// Waits for the next thing it has to do by itself.
    pub(crate) fn sleep(&mut self, scene: &mut Scene<'_>) {
        let mut at_ns = match &self.session {
            Some(session) => session.next_time_ns(),
            None => self.connect_ns,
        };
        let now_ns = scene.now_ns();
        if self.session.is_some() && self.paused_until_ns > now_ns {
            at_ns = at_ns.min(self.paused_until_ns);
        }
        let at_ns = at_ns.max(now_ns);
        if self.wakes_ns <= at_ns && self.wakes_ns > now_ns {
            return;
        }
        self.token += 1;
        self.wakes_ns = at_ns;
        let event = Event::Client {
            client: self.client,
            token: self.token,
        };
        scene.queue.at(at_ns, event);
    }

    pub(super) fn on_time(&mut self, token: u32, scene: &mut Scene<'_>) {
        if token != self.token {
            return;
        }
        self.wakes_ns = u64::MAX;
        let now_ns = scene.now_ns();
        if self.session.is_none() && now_ns >= self.connect_ns {
            self.sessions += 1;
            self.node = self.sessions as usize % scene.parameters.cast.nodes;
            let session = Session::connect(self.client, self.sessions, self.node, scene);
            self.session = Some(session);
            self.is_subscribed = false;
            self.has_ended = false;
            self.asked = None;
            self.told.clear();
        }
        self.receive(scene);
        // Who reads nothing must not conclude that nothing is said.
        let is_reading = now_ns >= self.paused_until_ns;
        let is_lost =
            |session: &Session| (is_reading || !session.is_open()) && session.is_given_up(now_ns);
        if self.session.as_ref().is_some_and(is_lost) {
            self.lose(scene);
        }
        if let Some(session) = &mut self.session {
            session.beat(scene);
            if !is_reading {
                session.heard_ns = now_ns;
            }
        }
        self.sleep(scene);
    }

    pub(super) fn on_signal(
        &mut self,
        end: EndId,
        number: u32,
        signal: Signal,
        scene: &mut Scene<'_>,
    ) {
        if self.session.as_ref().is_none_or(|s| s.number != number) {
            if matches!(signal, Signal::Ended | Signal::Broken) {
                scene.network.close(end, scene.queue);
            }
            return;
        }
        match signal {
            Signal::Connected => {
                if let Some(session) = &mut self.session {
                    session.on_connected();
                }
            }
            Signal::Readable => self.receive(scene),
            Signal::Writable => {
                if let Some(session) = &mut self.session {
                    session.flush(scene);
                }
            }
            Signal::Ended => {
                self.has_ended = true;
                self.receive(scene);
            }
            Signal::Broken | Signal::Refused | Signal::Unanswered => self.lose(scene),
            Signal::Incoming => unreachable!("nobody connects to a client"),
        }
        self.sleep(scene);
    }

    fn lose(&mut self, scene: &mut Scene<'_>) {
        if let Some(session) = self.session.take() {
            scene.network.close(session.end, scene.queue);
            scene.note(Note::Lost {
                client: self.client,
            });
            let pause = self.random.tailed(30 * MILLISECOND) + MILLISECOND;
            self.connect_ns = self.connect_ns.max(scene.now_ns() + pause);
        }
    }

    fn receive(&mut self, scene: &mut Scene<'_>) {
        let now_ns = scene.now_ns();
        let Some(session) = &mut self.session else {
            return;
        };
        if now_ns < self.paused_until_ns {
            return;
        }
        let has_more = session.receive(self.chunk, scene);
        if has_more && self.chunk != usize::MAX {
            self.paused_until_ns = now_ns + self.chunk_pause_ns;
        }
        let inbox = std::mem::take(&mut session.inbox);
        let number = session.number;
        let before = self.next;
        let mut rest = &inbox[..];
        loop {
            let limits = Limits::after_logon(scene.parameters.settings.payload_limit);
            match item::front(rest, limits).expect("the relay sends whole items") {
                Front::Partial { .. } => break,
                Front::Record { length } => {
                    self.on_record(&rest[..length], scene.ledger);
                    rest = &rest[stride(length)..];
                }
                Front::Message { length } => {
                    let message = Message::decode(&rest[..length]);
                    self.on_message(&message.expect("the relay says it right"), scene);
                    rest = &rest[stride(length)..];
                    if self.session.as_ref().is_none_or(|s| s.number != number) {
                        return;
                    }
                }
            }
        }
        let rest = rest.to_vec();
        if let Some(session) = &mut self.session {
            session.inbox = rest;
            let is_drained = scene.network.has_ended(session.end);
            if self.next > before {
                let through = self.next - 1;
                let client = self.client;
                scene.note(Note::Delivered { client, through });
            }
            if self.has_ended && is_drained {
                self.lose(scene);
            }
        }
    }

    fn on_message(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) {
        let session = self.session.as_mut().expect("it is being read");
        match message {
            Message::Terminate(terminate) => self.on_terminate(terminate, scene),
            message if !session.is_open() => {
                let identity = Identity {
                    name: READER,
                    publisher: None,
                };
                if let Some(ack) = session.on_message(message, identity, scene) {
                    if scene.is_behind(ack.epoch.get(), self.epoch) {
                        self.lose(scene);
                        return;
                    }
                    self.note_epoch(ack.epoch.get(), scene);
                    self.subscribe(scene);
                }
            }
            Message::Subscribed(subscribed) => self.on_subscribed(subscribed, scene),
            Message::Topic(told) => self.on_topic(told.topic.get(), told.name, scene.ledger),
            Message::Heartbeat(beat) => self.on_heartbeat(beat, scene),
            other => panic!("not for a subscriber: {other:?}"),
        }
    }

    fn subscribe(&mut self, scene: &mut Scene<'_>) {
        let (from, value, checksum) = match self.plan {
            Plan::Live => (From::Live, 0, None),
            Plan::Earliest => (From::Earliest, 0, None),
            Plan::Time(time_ns) => (From::Time, time_ns, None),
            Plan::Seq { next, checksum } => (From::Seq, next, checksum),
            Plan::BeyondTail => (From::Seq, 1 << 60, None),
            Plan::WrongHistory { next, checksum } => (From::Seq, next, Some(checksum)),
        };
        self.asked = Some(self.plan);
        scene.note(Note::Subscribes {
            client: self.client,
            from: from.number(),
            value,
        });
        let mut laid_out = Vec::new();
        let patterns = Patterns::lay_out(self.patterns, &mut laid_out).expect("there are a few");
        let subscribe = Subscribe {
            from,
            checksum,
            value,
            patterns,
        };
        if let Some(session) = &mut self.session {
            session.say(&Message::Subscribe(subscribe), scene);
        }
    }

    fn on_subscribed(&mut self, subscribed: &Subscribed, scene: &mut Scene<'_>) {
        let plan = self.asked.take().expect("it asked, once");
        assert!(
            subscribed.next_seq <= scene.ledger.next_seq(),
            "a subscription names a next seq that is not released"
        );
        assert!(
            subscribed.start_seq <= subscribed.next_seq,
            "a start lies before the tail"
        );
        let start = subscribed.start_seq.get();
        self.from_time_ns = 0;
        match plan {
            Plan::Live => {
                // From here on it knows where it is, and goes on from there after whatever happens.
                self.plan = Plan::Seq {
                    next: start,
                    checksum: None,
                };
            }
            Plan::Earliest => assert_eq!(start, 1, "the journal begins with seq 1"),
            Plan::Time(time_ns) => self.from_time_ns = time_ns,
            // Behind an accepted loss there may be nothing with just this seq.
            Plan::Seq { next, .. } => {
                let from = scene.ledger.following(next);
                assert!(
                    start == next || start == from,
                    "it starts where it was asked to"
                );
            }
            Plan::BeyondTail | Plan::WrongHistory { .. } => {
                // The answer comes before the history is looked at; the alarm must follow it.
            }
        }
        self.next = start;
        self.is_subscribed = true;
    }

    fn on_terminate(&mut self, terminate: &Terminate<'_>, scene: &mut Scene<'_>) {
        let code = terminate.code;
        scene.note(Note::Ended {
            client: self.client,
            code: code.number(),
        });
        let is_alarm = matches!(
            code,
            TerminateCode::BeyondTail | TerminateCode::WrongHistory
        );
        match self.plan {
            Plan::BeyondTail if code == TerminateCode::BeyondTail => self.plan = Plan::Earliest,
            Plan::WrongHistory { .. } if code == TerminateCode::WrongHistory => {
                self.plan = Plan::Earliest;
            }
            _ if is_alarm => scene.raise(format!(
                "client {} resumes at {} and is told {code:?}, detail {}",
                self.client, self.next, terminate.detail
            )),
            _ => assert!(
                code.is_worth_a_reconnect() || code == TerminateCode::Logout,
                "client {} is sent away: {terminate:?}",
                self.client
            ),
        }
        self.lose(scene);
    }

    fn selects(&mut self, topic: u32, ledger: &Ledger) -> bool {
        let at = topic as usize;
        if self.selected.len() <= at {
            self.selected.resize(at + 1, None);
        }
        let patterns = self.patterns;
        *self.selected[at].get_or_insert_with(|| {
            let id = relay_wire::id::TopicId(topic);
            let name = ledger.tables().topics.name(id).expect("it is released");
            patterns.iter().any(|pattern| topic::matches(pattern, name))
        })
    }

    fn wants(&mut self, released: &Released, ledger: &Ledger) -> bool {
        released.receive_time_ns >= self.from_time_ns && self.selects(released.topic, ledger)
    }

    /// Nothing that is wanted lies before `next`.
    fn pass(&mut self, next: u64, ledger: &Ledger) {
        while self.next < next {
            let Some(released) = ledger.get(Seq(self.next)).copied() else {
                let following = ledger.following(self.next);
                assert!(
                    following > self.next,
                    "seq {} is passed and not released",
                    self.next
                );
                self.next = following.min(next);
                continue;
            };
            assert!(
                !self.wants(&released, ledger),
                "client {}: the message with seq {} was left out",
                self.client,
                self.next
            );
            self.next += 1;
        }
    }

    fn on_record(&mut self, bytes: &[u8], ledger: &Ledger) {
        let record = Record::parse(bytes).expect("what is delivered is a record");
        assert!(self.is_subscribed, "records follow SUBSCRIBED");
        let is_wrong = matches!(self.plan, Plan::BeyondTail | Plan::WrongHistory { .. });
        assert!(!is_wrong, "a wrong question gets no records");
        if !record.is_data() {
            let name = core::str::from_utf8(record.payload());
            match record.kind() {
                Some(RecordKind::Topic) => {
                    self.on_topic(record.topic().get(), name.expect("a name is text"), ledger);
                }
                _ => assert!(
                    self.is_everything,
                    "a filtered flow has no other control records"
                ),
            }
            return;
        }
        let seq = record.seq().get();
        assert!(
            seq >= self.next,
            "client {}: seq {seq} comes after all before {} came",
            self.client,
            self.next
        );
        self.pass(seq, ledger);
        let released = ledger.check_delivered(&record);
        assert!(self.wants(&released, ledger), "a message nobody asked for");
        let is_told = self.told.get(released.topic as usize).copied();
        assert_eq!(is_told, Some(true), "topics are told before");
        self.next = seq + 1;
        self.plan = Plan::Seq {
            next: self.next,
            checksum: Some(record.checksum()),
        };
    }

    fn on_topic(&mut self, topic: u32, name: &str, ledger: &Ledger) {
        ledger.check_topic(topic, name);
        assert!(self.selects(topic, ledger), "a topic nobody asked for");
        let at = topic as usize;
        if self.told.len() <= at {
            self.told.resize(at + 1, false);
        }
        self.told[at] = true;
    }

    fn on_heartbeat(&mut self, beat: &Heartbeat, scene: &mut Scene<'_>) {
        let ledger = scene.ledger;
        assert!(
            beat.next_seq <= ledger.next_seq(),
            "a heartbeat names a next seq that is not released"
        );
        self.note_epoch(beat.epoch.get(), scene);
        if beat.next_seq.get() == 0 {
            return;
        }
        assert_eq!(
            beat.checksum,
            ledger.checksum_before(beat.next_seq),
            "a heartbeat names another message"
        );
        self.pass(beat.next_seq.get(), ledger);
        let is_settled = matches!(self.plan, Plan::Seq { .. } | Plan::Earliest);
        if is_settled && beat.next_seq.get() == self.next {
            self.plan = Plan::Seq {
                next: self.next,
                checksum: (beat.checksum != 0).then_some(beat.checksum),
            };
        }
    }

    pub(super) fn on_fault(&mut self, fault: Fault, scene: &mut Scene<'_>) {
        let now_ns = scene.now_ns();
        match fault {
            Fault::Pause { for_ns, .. } => self.paused_until_ns = now_ns + for_ns,
            Fault::Silence { for_ns, .. } => {
                // It says nothing because it has said something just now, as far as it knows.
                if let Some(session) = &mut self.session {
                    session.said_ns = now_ns + for_ns;
                }
            }
            Fault::Leave { for_ns, .. } => {
                self.lose(scene);
                self.connect_ns = now_ns + for_ns;
            }
            Fault::StartAnew { .. } => {
                self.lose(scene);
                self.plan = self.draw_plan(scene.ledger);
            }
            Fault::AskWrongly { .. } => {
                self.lose(scene);
                let tail = scene.ledger.count() + 1;
                self.plan = if tail < 3 || self.random.chance(500_000) {
                    Plan::BeyondTail
                } else {
                    let next = scene.ledger.seq_at(self.random.within(2, tail) - 1);
                    let right = scene.ledger.checksum_before(Seq(next));
                    Plan::WrongHistory {
                        next,
                        checksum: right ^ 1,
                    }
                };
            }
            other => unreachable!("not a subscriber's fault: {other}"),
        }
        self.sleep(scene);
    }

    fn draw_plan(&mut self, ledger: &Ledger) -> Plan {
        let tail = ledger.count() + 1;
        let next = ledger.seq_at(self.random.within(1, tail) - 1);
        match self.random.below(5) {
            0 => Plan::Live,
            1 => Plan::Earliest,
            2 => match ledger.get(Seq(next)) {
                Some(released) => Plan::Time(released.receive_time_ns + self.random.below(2)),
                None => Plan::Live,
            },
            3 => Plan::Seq {
                next,
                checksum: None,
            },
            _ => {
                let checksum = ledger.checksum_before(Seq(next));
                Plan::Seq {
                    next,
                    checksum: (next > 1).then_some(checksum),
                }
            }
        }
    }

    pub(super) fn heal(&mut self, scene: &mut Scene<'_>) {
        self.paused_until_ns = 0;
        self.chunk = usize::MAX;
        if let Some(session) = &mut self.session {
            session.said_ns = session.said_ns.min(scene.now_ns());
        }
        self.connect_ns = self.connect_ns.min(scene.now_ns() + MILLISECOND);
        self.receive(scene);
        self.sleep(scene);
    }

    pub(super) fn waits_for(&self, ledger: &Ledger) -> Option<String> {
        let tail = ledger.next_seq().get();
        (!self.is_subscribed || self.next != tail).then(|| {
            format!(
                "client {} subscribed to {:?}: it has everything before {}, the tail is {tail}; \
                 session {:?}, plan {:?}",
                self.client,
                self.patterns,
                self.next,
                self.session.as_ref().map(Session::is_open),
                self.plan
            )
        })
    }
}
