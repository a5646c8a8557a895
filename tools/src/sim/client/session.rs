//! One connection of a client, from the first byte to the last: connecting, logon, heartbeats.

use relay_wire::code::{Held, Role};
use relay_wire::id::{Epoch, Incarnation, PublisherId, Seq, StreamId};
use relay_wire::message::{Heartbeat, Logon, LogonAck, Message, SILENT_INTERVALS};
use relay_wire::proof::Nonce;

use super::Scene;
use crate::clock::{MILLISECOND, SECOND};
use crate::history::Note;
use crate::network::{EndId, Owner, Port};
use crate::random::mix;
use crate::swarm::{SECRET, STREAM};

/// A logon that gets no answer is given up after so long.
const LOGON_PATIENCE_NS: u64 = 2 * SECOND;
/// Bytes waiting to be written above which nothing is added.
pub(super) const OUTBOX_ENOUGH: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    AwaitChallenge,
    AwaitAck { own: Nonce, relay: Nonce },
    Open,
}

/// Who logs on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) name: &'a str,
    /// Publisher and incarnation; `None` for a subscriber.
    pub(super) publisher: Option<(u64, u64)>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) end: EndId,
    pub(super) number: u32,
    client: usize,
    phase: Phase,
    pub(super) inbox: Vec<u8>,
    pub(super) outbox: Vec<u8>,
    begun_ns: u64,
    pub(super) heard_ns: u64,
    pub(super) said_ns: u64,
    interval_ns: u64,
}

impl Session {
    /// Begins to connect to `node`.
    pub(super) fn connect(client: usize, number: u32, node: usize, scene: &mut Scene<'_>) -> Self {
        let owner = Owner::Client {
            client,
            session: number,
        };
        let host = scene.parameters.cast.client_host(client);
        let end = scene
            .network
            .connect(owner, host, node, Port::Clients, scene.queue);
        scene.note(Note::Connects { client, node });
        let now_ns = scene.now_ns();
        Self {
            end,
            number,
            client,
            phase: Phase::Connecting,
            inbox: Vec::new(),
            outbox: Vec::new(),
            begun_ns: now_ns,
            heard_ns: now_ns,
            said_ns: now_ns,
            interval_ns: SECOND,
        }
    }

    /// The connection is made; the relay speaks first.
    pub(super) fn on_connected(&mut self) {
        self.phase = Phase::AwaitChallenge;
    }

    /// Whether it is logged on.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Takes up to `limit` bytes of what has arrived into the inbox; false where there was nothing.
    pub(super) fn receive(&mut self, limit: usize, scene: &mut Scene<'_>) -> bool {
        let arrived = scene.network.readable(self.end);
        let length = arrived.len().min(limit);
        if length == 0 {
            return false;
        }
        self.inbox.extend_from_slice(&arrived[..length]);
        scene.network.consume(self.end, length, scene.queue);
        self.heard_ns = scene.now_ns();
        true
    }

    /// A message that belongs to the logon; hands back the answer that opens the session.
    pub(super) fn on_message(
        &mut self,
        message: &Message<'_>,
        identity: Identity<'_>,
        scene: &mut Scene<'_>,
    ) -> Option<LogonAck> {
        match (self.phase, message) {
            (Phase::AwaitChallenge, Message::Challenge(challenge)) => {
                let word = mix(u64::from(self.number) << 32 | self.client as u64).to_le_bytes();
                let own: Nonce = core::array::from_fn(|index| word[index % 8] ^ index as u8);
                let (publisher, incarnation) = identity.publisher.unwrap_or((0, 0));
                let is_publisher = identity.publisher.is_some();
                let logon = Logon {
                    role: if is_publisher {
                        Role::Publisher
                    } else {
                        Role::Subscriber
                    },
                    stream: StreamId(0),
                    publisher: PublisherId(publisher),
                    incarnation: Incarnation(incarnation),
                    nonce: own,
                    proof: [0; 32],
                    name: identity.name,
                };
                let relay = challenge.nonce;
                let logon = logon.with_proof(SECRET, &relay).expect("the name is short");
                self.phase = Phase::AwaitAck { own, relay };
                self.say(&Message::Logon(logon), scene);
                None
            }
            (Phase::AwaitAck { own, relay }, Message::LogonAck(ack)) => {
                assert!(
                    ack.proof_holds(SECRET, &own, &relay),
                    "the relay proves itself"
                );
                assert_eq!(ack.stream, STREAM);
                assert!(
                    ack.next_seq <= scene.ledger.next_seq(),
                    "a logon names a next seq that is not released"
                );
                self.interval_ns = u64::from(ack.heartbeat_ms) * MILLISECOND;
                self.phase = Phase::Open;
                Some(*ack)
            }
            (phase, message) => panic!("{message:?} is not expected in {phase:?}"),
        }
    }

    /// Queues a message and writes what the socket takes.
    pub(super) fn say(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) {
        let bytes = message.to_vec().expect("clients build what can be encoded");
        self.outbox.extend_from_slice(&bytes);
        self.flush(scene);
    }

    /// Writes what the socket takes of the outbox.
    pub(super) fn flush(&mut self, scene: &mut Scene<'_>) {
        if self.outbox.is_empty() || self.phase == Phase::Connecting {
            return;
        }
        // A connection that is over is heard of by its own signal.
        let written = scene
            .network
            .write(self.end, &self.outbox, scene.queue)
            .unwrap_or(self.outbox.len());
        if written > 0 {
            self.said_ns = scene.now_ns();
        }
        if written == self.outbox.len() {
            self.outbox.clear();
        } else {
            self.outbox.drain(..written);
            scene.network.await_room(self.end, scene.queue);
        }
    }

    /// Says that it is alive, where it is time to.
    pub(super) fn beat(&mut self, scene: &mut Scene<'_>) {
        let is_due = scene.now_ns() >= self.said_ns + self.interval_ns;
        if self.is_open() && is_due && self.outbox.is_empty() {
            let heartbeat = Heartbeat {
                next_seq: Seq(0),
                epoch: Epoch(0),
                checksum: 0,
                held: Held::No,
            };
            self.say(&Message::Heartbeat(heartbeat), scene);
        }
    }

    /// Whether the relay has been silent for too long.
    pub(super) fn is_given_up(&self, now_ns: u64) -> bool {
        now_ns >= self.silent_ns()
    }

    const fn silent_ns(&self) -> u64 {
        match self.phase {
            Phase::Open => self.heard_ns + self.interval_ns * SILENT_INTERVALS as u64,
            _ => self.begun_ns + LOGON_PATIENCE_NS,
        }
    }

    /// When it has something to do by itself.
    pub(super) fn next_time_ns(&self) -> u64 {
        match self.phase {
            // With bytes still to write there is nothing to add.
            Phase::Open if self.outbox.is_empty() => {
                self.silent_ns().min(self.said_ns + self.interval_ns)
            }
            _ => self.silent_ns(),
        }
    }
}
