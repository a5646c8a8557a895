//! A publisher: keeps what is not released, sends it again, and tells no lies but the ones that faults make it tell.
//!
//! What it keeps needs no memory: a message is a function of its number (`content.rs`). Of each incarnation it knows how
//! many it has made, how many it has sent on this connection, and up to where they are acknowledged. Its own rules:
//! an acknowledgement is of a released message with the seq it names; what was acknowledged once is never asked for again.

use relay_wire::code::{RejectCode, TerminateCode};
use relay_wire::id::{PublisherSeq, TopicId};
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{Ack, LogonAck, Message, Reject, Terminate, TopicRequest};
use relay_wire::stride;

use super::Scene;
use super::session::{Identity, OUTBOX_ENOUGH, Session};
use crate::clock::MILLISECOND;
use crate::cluster::Event;
use crate::content::{Key, topic_name};
use crate::faults::Fault;
use crate::history::Note;
use crate::network::{EndId, Signal};
use crate::random::Random;
use crate::swarm::publisher_name;

/// Old connections that are kept open and forgotten.
const GHOSTS_MAX: usize = 3;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Publisher {
    client: usize,
    id: u64,
    name: String,
    random: Random,
    incarnation: u64,
    /// Messages made in this incarnation, and in all.
    made: u64,
    made_in_all: u64,
    /// The last one sent on this connection.
    sent: u64,
    acknowledged: u64,
    unacknowledged_bytes: u64,
    credit: u64,
    epoch: u64,
    session: Option<Session>,
    sessions: u32,
    ghosts: Vec<EndId>,
    /// Ids told on this connection, by topic number.
    topics: Vec<Option<TopicId>>,
    topics_asked: u32,
    next_burst_ns: u64,
    connect_ns: u64,
    silent_until_ns: u64,
    node: usize,
    token: u32,
    wakes_ns: u64,
    payload: Vec<u8>,
}

impl Publisher {
    /// A publisher that is about to connect.
    pub(crate) fn new(client: usize, seed: u64) -> Self {
        Self {
            client,
            id: client as u64 + 1,
            name: publisher_name(client),
            random: Random::of(seed, 1_000 + client as u64),
            incarnation: 1,
            made: 0,
            made_in_all: 0,
            sent: 0,
            acknowledged: 0,
            unacknowledged_bytes: 0,
            credit: 0,
            epoch: 0,
            session: None,
            sessions: 0,
            ghosts: Vec::new(),
            topics: Vec::new(),
            topics_asked: 0,
            next_burst_ns: 0,
            connect_ns: 0,
            silent_until_ns: 0,
            node: 0,
            token: 0,
            wakes_ns: u64::MAX,
            payload: Vec::new(),
        }
    }

    const fn key(&self, publisher_seq: u64) -> Key {
        Key {
            publisher: self.id,
            incarnation: self.incarnation,
            publisher_seq,
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
        let mut at_ns = u64::MAX;
        if self.made_in_all < scene.parameters.quota {
            at_ns = at_ns.min(self.next_burst_ns);
        }
        match &self.session {
            Some(session) => at_ns = at_ns.min(session.next_time_ns().max(self.silent_until_ns)),
            None => at_ns = at_ns.min(self.connect_ns),
        }
        let at_ns = at_ns.max(scene.now_ns());
        // A wake-up that comes too early costs less than one too many in the queue.
        if self.wakes_ns <= at_ns && self.wakes_ns > scene.now_ns() {
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
        if now_ns >= self.next_burst_ns && self.made_in_all < scene.parameters.quota {
            let left = scene.parameters.quota - self.made_in_all;
            let burst = self.random.within(1, scene.parameters.burst_max).min(left);
            self.made += burst;
            self.made_in_all += burst;
            self.next_burst_ns = now_ns + self.random.tailed(scene.parameters.burst_pause_ns) + 1;
        }
        if self.session.is_none() && now_ns >= self.connect_ns {
            self.connect(scene);
        }
        if self.session.as_ref().is_some_and(|s| s.is_given_up(now_ns)) {
            self.give_up(scene);
        }
        self.pump(scene);
        if now_ns >= self.silent_until_ns
            && let Some(session) = &mut self.session
        {
            session.beat(scene);
        }
        self.sleep(scene);
    }

    fn connect(&mut self, scene: &mut Scene<'_>) {
        self.sessions += 1;
        self.node = self.sessions as usize % scene.parameters.cast.nodes;
        let session = Session::connect(self.client, self.sessions, self.node, scene);
        self.session = Some(session);
        self.topics.clear();
    }

    /// The relay is silent: whatever is under way on this connection may still arrive some day.
    fn give_up(&mut self, scene: &mut Scene<'_>) {
        if let Some(session) = self.session.take() {
            scene.note(Note::Lost {
                client: self.client,
            });
            if self.random.chance(500_000) {
                self.forget(session.end, scene);
            } else {
                scene.network.close(session.end, scene.queue);
            }
        }
        self.come_back_later(scene);
    }

    /// Keeps an old connection open without ever looking at it again.
    fn forget(&mut self, end: EndId, scene: &mut Scene<'_>) {
        self.ghosts.push(end);
        if self.ghosts.len() > GHOSTS_MAX {
            let oldest = self.ghosts.remove(0);
            scene.network.close(oldest, scene.queue);
        }
    }

    fn come_back_later(&mut self, scene: &mut Scene<'_>) {
        let pause = self.random.tailed(30 * MILLISECOND) + MILLISECOND;
        self.connect_ns = self.connect_ns.max(scene.now_ns() + pause);
    }

    pub(super) fn on_signal(
        &mut self,
        end: EndId,
        number: u32,
        signal: Signal,
        scene: &mut Scene<'_>,
    ) {
        let is_current = self.session.as_ref().is_some_and(|s| s.number == number);
        if !is_current {
            if matches!(signal, Signal::Ended | Signal::Broken) {
                self.ghosts.retain(|&ghost| ghost != end);
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
            Signal::Writable => self.pump(scene),
            Signal::Ended => {
                self.receive(scene);
                self.lose(scene);
            }
            Signal::Broken | Signal::Refused | Signal::Unanswered => self.lose(scene),
            Signal::Incoming => unreachable!("nobody connects to a client"),
        }
        self.sleep(scene);
    }

    /// The connection is over.
    fn lose(&mut self, scene: &mut Scene<'_>) {
        if let Some(session) = self.session.take() {
            scene.network.close(session.end, scene.queue);
            scene.note(Note::Lost {
                client: self.client,
            });
            self.come_back_later(scene);
        }
    }

    fn receive(&mut self, scene: &mut Scene<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.receive(usize::MAX, scene);
        let inbox = std::mem::take(&mut session.inbox);
        let number = session.number;
        let mut rest = &inbox[..];
        loop {
            let limits = Limits::after_logon(0);
            let front = item::front(rest, limits).expect("the relay sends whole items");
            let Front::Message { length } = front else {
                assert!(
                    matches!(front, Front::Partial { .. }),
                    "a publisher is sent no records"
                );
                break;
            };
            let message = Message::decode(&rest[..length]).expect("the relay says it right");
            self.on_message(&message, scene);
            rest = &rest[stride(length)..];
            if self.session.as_ref().is_none_or(|s| s.number != number) {
                return;
            }
        }
        let rest = rest.to_vec();
        if let Some(session) = &mut self.session {
            session.inbox = rest;
        }
        self.pump(scene);
    }

    fn on_message(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) {
        let session = self.session.as_mut().expect("it is being read");
        match message {
            Message::Terminate(terminate) => self.on_terminate(terminate, scene),
            message if !session.is_open() => {
                let identity = Identity {
                    name: &self.name,
                    publisher: Some((self.id, self.incarnation)),
                };
                if let Some(ack) = session.on_message(message, identity, scene) {
                    self.on_logged_on(&ack, scene);
                }
            }
            Message::Ack(ack) => self.on_ack(ack, scene),
            Message::Topic(topic) => {
                let number = topic.request - 1;
                scene
                    .ledger
                    .check_topic(topic.topic.get(), &topic_name(number));
                self.topics[number as usize] = Some(topic.topic);
            }
            Message::Reject(reject) => self.on_reject(reject, scene),
            Message::Heartbeat(beat) => {
                assert!(
                    beat.next_seq <= scene.ledger.next_seq(),
                    "a heartbeat names a next seq that is not released"
                );
            }
            other => panic!("not for a publisher: {other:?}"),
        }
    }

    fn on_terminate(&mut self, terminate: &Terminate<'_>, scene: &mut Scene<'_>) {
        scene.note(Note::Ended {
            client: self.client,
            code: terminate.code.number(),
        });
        assert!(
            terminate.code.is_worth_a_reconnect()
                || terminate.code == TerminateCode::Superseded
                || terminate.code == TerminateCode::Logout,
            "publisher {} is sent away: {terminate:?}",
            self.id
        );
        self.lose(scene);
    }

    fn on_logged_on(&mut self, ack: &LogonAck, scene: &mut Scene<'_>) {
        let (next, released) = (ack.next_expected.get(), ack.released_through.get());
        scene.note(Note::LoggedOn {
            client: self.client,
            next_expected: next,
            released_through: released,
        });
        let truth = scene.ledger.released_through(self.id, self.incarnation);
        assert!(released <= truth, "a logon calls released what is not");
        assert!(next > released, "what is released is not expected again");
        assert!(
            next <= self.made + 1,
            "nothing is expected that was never made"
        );
        if scene.is_behind(ack.epoch.get(), self.epoch) {
            self.lose(scene);
            return;
        }
        self.note_epoch(ack.epoch.get(), scene);
        if released < self.acknowledged {
            scene.raise(format!(
                "publisher {}: {} was acknowledged; now {released} is the last released",
                self.id, self.acknowledged
            ));
            return;
        }
        self.acknowledged = released;
        self.sent = next - 1;
        self.credit = ack.credit;
        self.unacknowledged_bytes = (released + 1..=self.sent)
            .map(|seq| scene.parameters.contents.stride(self.key(seq)) as u64)
            .sum();
        self.topics = vec![None; scene.parameters.topics as usize];
        self.topics_asked = 0;
        self.pump(scene);
    }

    fn on_ack(&mut self, ack: &Ack, scene: &mut Scene<'_>) {
        let through = ack.publisher_seq.get();
        let truth = scene.ledger.released_through(self.id, self.incarnation);
        assert!(
            through <= truth,
            "publisher {}: {through} is acknowledged, only {truth} is released",
            self.id
        );
        assert!(
            through >= self.acknowledged,
            "acknowledgements don't go back"
        );
        self.note_epoch(ack.epoch.get(), scene);
        if ack.seq.get() != 0 {
            let named = scene.ledger.get(ack.seq).map(|released| released.key);
            assert_eq!(
                named,
                Some(self.key(through)),
                "an acknowledgement names its message"
            );
        }
        scene.note(Note::Acknowledged {
            client: self.client,
            through,
            seq: ack.seq.get(),
        });
        for seq in self.acknowledged + 1..=through.min(self.sent) {
            let stride = scene.parameters.contents.stride(self.key(seq)) as u64;
            self.unacknowledged_bytes -= stride;
        }
        self.acknowledged = through;
    }

    fn on_reject(&mut self, reject: &Reject<'_>, scene: &mut Scene<'_>) {
        scene.note(Note::Rejected {
            client: self.client,
            code: reject.code.number(),
            next_expected: reject.next_expected.get(),
        });
        if reject.code == RejectCode::NotPrimary && scene.parameters.cast.nodes > 1 {
            self.lose(scene);
            return;
        }
        assert_eq!(
            reject.code,
            RejectCode::Gap,
            "publisher {} follows the rules and is rejected: {reject:?}",
            self.id
        );
        let PublisherSeq(next) = reject.next_expected;
        self.go_back_to(next - 1, scene);
    }

    /// What was sent after `last` is sent again.
    fn go_back_to(&mut self, last: u64, scene: &Scene<'_>) {
        for seq in (last + 1).max(self.acknowledged + 1)..=self.sent {
            let stride = scene.parameters.contents.stride(self.key(seq)) as u64;
            self.unacknowledged_bytes -= stride;
        }
        self.sent = self.sent.min(last);
    }

    /// Sends what may be sent.
    fn pump(&mut self, scene: &mut Scene<'_>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let is_silent = scene.now_ns() < self.silent_until_ns || scene.alarm.is_some();
        if !session.is_open() || is_silent {
            return;
        }
        while self.topics_asked < scene.parameters.topics {
            self.topics_asked += 1;
            let name = topic_name(self.topics_asked - 1);
            let request = TopicRequest {
                request: self.topics_asked,
                name: name.as_bytes(),
            };
            session.say(&Message::TopicRequest(request), scene);
        }
        let first = self.sent + 1;
        let contents = scene.parameters.contents;
        while self.sent < self.made && session.outbox.len() < OUTBOX_ENOUGH {
            let key = Key {
                publisher: self.id,
                incarnation: self.incarnation,
                publisher_seq: self.sent + 1,
            };
            let stride = contents.stride(key) as u64;
            let topic = self.topics[contents.topic(key) as usize];
            let is_counted = key.publisher_seq > self.acknowledged;
            let is_over = is_counted && self.unacknowledged_bytes + stride > self.credit;
            let Some(topic) = topic.filter(|_| !is_over) else {
                break;
            };
            contents.encode(key, topic, &mut self.payload, &mut session.outbox);
            self.unacknowledged_bytes += if is_counted { stride } else { 0 };
            self.sent += 1;
        }
        session.flush(scene);
        if self.sent >= first {
            let (client, through) = (self.client, self.sent);
            scene.note(Note::Published {
                client,
                from: first,
                through,
            });
        }
    }

    pub(super) fn on_fault(&mut self, fault: Fault, scene: &mut Scene<'_>) {
        match fault {
            Fault::Silence { for_ns, .. } => self.silent_until_ns = scene.now_ns() + for_ns,
            Fault::NewIncarnation { .. } => {
                if let Some(session) = self.session.take() {
                    self.forget(session.end, scene);
                }
                self.incarnation += 1;
                self.made = 0;
                self.sent = 0;
                self.acknowledged = 0;
                self.unacknowledged_bytes = 0;
                self.connect_ns = scene.now_ns();
            }
            Fault::SecondConnection { .. } => {
                self.pump(scene);
                if let Some(session) = self.session.take() {
                    self.forget(session.end, scene);
                }
                self.connect(scene);
            }
            Fault::GoBack { by, .. } => {
                if self.session.as_ref().is_some_and(Session::is_open) {
                    self.go_back_to(self.sent.saturating_sub(by.into()), scene);
                    self.pump(scene);
                }
            }
            Fault::Leave { for_ns, .. } => {
                if let Some(mut session) = self.session.take() {
                    let leave = Terminate {
                        code: TerminateCode::Logout,
                        detail: 0,
                        text: "",
                    };
                    if session.is_open() && session.outbox.is_empty() {
                        session.say(&Message::Terminate(leave), scene);
                    }
                    scene.network.close(session.end, scene.queue);
                }
                self.connect_ns = scene.now_ns() + for_ns;
            }
            other => unreachable!("not a publisher's fault: {other}"),
        }
        self.sleep(scene);
    }

    pub(super) fn heal(&mut self, scene: &mut Scene<'_>) {
        self.silent_until_ns = 0;
        self.connect_ns = self.connect_ns.min(scene.now_ns() + MILLISECOND);
        self.sleep(scene);
    }

    pub(super) fn waits_for(&self) -> Option<String> {
        let is_done = self.acknowledged == self.made;
        (!is_done).then(|| {
            format!(
                "publisher {} in incarnation {}: {} made, {} sent, {} acknowledged; session {:?}",
                self.id,
                self.incarnation,
                self.made,
                self.sent,
                self.acknowledged,
                self.session.as_ref().map(|s| s.is_open()),
            )
        })
    }

    /// Whether it still makes messages.
    pub(crate) const fn is_making(&self, quota: u64) -> bool {
        self.made_in_all < quota
    }
}
