//! Clients: they know the wire format and nothing of the relay's insides, and believe nothing they are told.
//!
//! A client lives through the whole run; connections come and go. What it hears it compares with its own memory and with the
//! ledger, so that whatever is wrong with any answer ends the run there and then.

pub(crate) mod publisher;
pub(crate) mod session;
pub(crate) mod stranger;
pub(crate) mod subscriber;

use self::publisher::Publisher;
use self::subscriber::Subscriber;
use crate::clock::Queue;
use crate::cluster::Event;
use crate::faults::Fault;
use crate::history::{History, Note};
use crate::ledger::Ledger;
use crate::network::{EndId, Network, Signal};
use crate::swarm::Parameters;

/// What lies around a client.
pub(crate) struct Scene<'a> {
    pub(crate) parameters: &'a Parameters,
    pub(crate) queue: &'a mut Queue<Event>,
    pub(crate) network: &'a mut Network,
    pub(crate) history: &'a mut History,
    pub(crate) ledger: &'a Ledger,
    /// Something may be lost, beyond the promise or as an operator accepted.
    pub(crate) may_alarm: bool,
    /// Set by a client that was told of a loss, where something may be lost.
    pub(crate) alarm: &'a mut Option<String>,
}

impl Scene<'_> {
    /// Simulated time.
    pub(crate) const fn now_ns(&self) -> u64 {
        self.queue.now_ns()
    }

    /// Something worth remembering happened now.
    pub(crate) fn note(&mut self, note: Note) {
        self.history.note(self.queue.now_ns(), note);
    }

    /// Whether a node leads an epoch below one the client has seen already: it is the primary of before, and does not know.
    pub(crate) const fn is_behind(&self, epoch: u64, seen: u64) -> bool {
        self.parameters.cast.nodes > 1 && epoch < seen
    }

    /// A client knows of something that was released and is not there any more. Within the promise that is the end of the
    /// run; beyond it, it is the alarm that has to be raised.
    pub(crate) fn raise(&mut self, what: String) {
        assert!(self.may_alarm, "{what}");
        self.alarm.get_or_insert(what);
    }
}

/// A client of either kind.
#[derive(Debug)]
pub(crate) enum Client {
    Publisher(Publisher),
    Subscriber(Subscriber),
}

impl Client {
    /// The network has word about a connection of its.
    pub(crate) fn on_signal(
        &mut self,
        end: EndId,
        session: u32,
        signal: Signal,
        scene: &mut Scene<'_>,
    ) {
        match self {
            Self::Publisher(publisher) => publisher.on_signal(end, session, signal, scene),
            Self::Subscriber(subscriber) => subscriber.on_signal(end, session, signal, scene),
        }
    }

    /// The time it waited for has come; `token` says which wait it was.
    pub(crate) fn on_time(&mut self, token: u32, scene: &mut Scene<'_>) {
        match self {
            Self::Publisher(publisher) => publisher.on_time(token, scene),
            Self::Subscriber(subscriber) => subscriber.on_time(token, scene),
        }
    }

    /// Something goes wrong with it.
    pub(crate) fn on_fault(&mut self, fault: Fault, scene: &mut Scene<'_>) {
        match self {
            Self::Publisher(publisher) => publisher.on_fault(fault, scene),
            Self::Subscriber(subscriber) => subscriber.on_fault(fault, scene),
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&mut self, scene: &mut Scene<'_>) {
        match self {
            Self::Publisher(publisher) => publisher.heal(scene),
            Self::Subscriber(subscriber) => subscriber.heal(scene),
        }
    }

    /// What it still waits for; nothing once it is content.
    pub(crate) fn waits_for(&self, ledger: &Ledger) -> Option<String> {
        match self {
            Self::Publisher(publisher) => publisher.waits_for(),
            Self::Subscriber(subscriber) => subscriber.waits_for(ledger),
        }
    }
}
