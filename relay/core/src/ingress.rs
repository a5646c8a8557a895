//! Connections: from the accept to the logon, and a publisher's for as long as it lasts.
//!
//! Stands between the sockets and the sequencer. It cuts what arrives into items, answers the logon, checks each record by
//! itself (structure, checksum, that it carries the identity proven at logon) and passes whole runs of records on by
//! reference; whether a record comes in sequence, and whether its topic may be written, the sequencer decides. A
//! subscriber is handed over to the fan-out once it is logged on.
//!
//! Before a logon a connection costs one table entry and [`OUTGOING_BEFORE_LOGON`] bytes; whoever holds one too long, or
//! holds the oldest when there are too many, loses it. While this node may be about to lead, whoever proved who it is waits for
//! the answer: asking every few milliseconds, it would be there some milliseconds too late.

mod logon;
mod time;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;

use relay_wire::code::{Held, TerminateCode};
use relay_wire::id::{Epoch, Incarnation, PublisherId, PublisherSeq, Seq};
use relay_wire::item::{self, Front, Limits};
use relay_wire::message::{Ack, Challenge, Message, MessageError, Reject, Terminate, Topic};
use relay_wire::proof::Nonce;
use relay_wire::record::{self, RecordError};
use relay_wire::{PROTOCOL_VERSION, stride};

use self::time::Round;
pub(crate) use self::words::terminate_text;
use self::words::{FULL_TEXT, MALFORMED_TEXT, NOT_HERE_TEXT, item_error, reject_text};
use crate::command::{ConnId, ToIngress, ToSequence};
use crate::credential::CredentialBook;
use crate::outgoing::Outgoing;
use crate::places::PlaceSet;
use crate::settings::Settings;

/// Bytes for messages to a client that has not logged on: a challenge and a farewell.
pub const OUTGOING_BEFORE_LOGON: usize = 640;
/// Bytes for messages to a publisher: 256 unread answers to topic requests, each with the longest text that a refusal has, and
/// acknowledgements.
pub const OUTGOING_PUBLISHER: usize = 32 * 1024;

/// What the caller is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngressEffect {
    /// Send [`Ingress::outgoing`] and report with [`Ingress::on_sent`].
    Send(ConnId),
    /// Close the socket; the place is free again.
    Close(ConnId),
    /// Give the connection the receive buffer of a publisher, with what it sent meanwhile, and receive again.
    WidenReceive(ConnId),
    /// The subscriber is logged on: give its socket, and what it sent meanwhile, to the fan-out. The place is free again.
    HandOver {
        /// Which connection.
        conn: ConnId,
        /// Its credential.
        credential: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    AwaitLogon {
        since_ns: u64,
    },
    /// It proved who it is, and waits for this node to lead.
    AwaitPrimary {
        since_ns: u64,
        client_nonce: Nonce,
    },
    AwaitEstablished {
        client_nonce: Nonce,
    },
    Publisher,
    HandingOver,
    Closing {
        since_ns: u64,
    },
}

#[derive(Debug, Clone)]
struct Slot {
    generation: u32,
    /// Its number among all that were accepted.
    accepted: u64,
    state: State,
    nonce: Nonce,
    credential: u32,
    publisher: PublisherId,
    incarnation: Incarnation,
    outgoing: Outgoing,
    ack_pending: Option<(PublisherSeq, Seq)>,
    heard_ns: u64,
    said_ns: u64,
    close_sent: bool,
}

/// What became of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Bytes from the start that were whole items.
    pub consumed: usize,
    /// How many commands name bytes among them; each comes back as [`ToIngress::Taken`].
    pub commands: u32,
    /// Whether more is to be received now; after a logon not before the answer to it.
    pub is_open: bool,
}

/// The machine. See the module's description.
#[derive(Debug, Clone)]
pub struct Ingress {
    settings: Settings,
    credentials: Arc<CredentialBook>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Places that are not free.
    taken: PlaceSet,
    unauthenticated: VecDeque<ConnId>,
    /// Those that wait for this node to lead.
    waiting: VecDeque<ConnId>,
    /// Connections accepted so far.
    accepted: u64,
    effects: VecDeque<IngressEffect>,
    commands: VecDeque<ToSequence>,
    epoch: Epoch,
    trading_session: u64,
    next_seq: Seq,
    held: Held,
    /// When that changed last.
    held_since_ns: u64,
    /// What publishers were told of it, and when.
    held_told: Held,
    held_told_ns: Option<u64>,
    /// When the last round over the connections began, and what is left of it.
    checked_ns: u64,
    round: Option<Round>,
    is_stopping: bool,
    /// False on a node of a group that does not lead, or leads and has not released what it began with.
    is_serving: bool,
    /// Meanwhile: this node may be about to lead.
    is_vacant: bool,
    refused: u64,
}

impl Ingress {
    /// A machine without connections.
    #[must_use]
    pub fn new(
        settings: Settings,
        credentials: Arc<CredentialBook>,
        epoch: Epoch,
        trading_session: u64,
        next_seq: Seq,
    ) -> Self {
        let places = settings.connections_max;
        let slots = (0..places).map(|_| Slot::new()).collect();
        Self {
            slots,
            free: (0..places).rev().collect(),
            taken: PlaceSet::new(places),
            unauthenticated: VecDeque::with_capacity(settings.unauthenticated_max as usize + 1),
            waiting: VecDeque::with_capacity(places as usize),
            accepted: 0,
            effects: VecDeque::with_capacity(4 * places as usize),
            commands: VecDeque::with_capacity(1024),
            settings,
            credentials,
            epoch,
            trading_session,
            next_seq,
            held: Held::No,
            held_since_ns: 0,
            held_told: Held::No,
            held_told_ns: None,
            checked_ns: 0,
            round: None,
            is_stopping: false,
            is_serving: true,
            is_vacant: false,
            refused: 0,
        }
    }

    /// Sends every client on to another node until the sequencer says [`ToIngress::Serve`], or [`ToIngress::Vacant`].
    pub fn stand_by(&mut self) {
        self.is_serving = false;
    }

    /// A connection was made; `nonce` is 32 random bytes. `None` when there is no place: close it at once.
    pub fn on_accept(&mut self, nonce: Nonce, now_ns: u64) -> Option<ConnId> {
        if self.is_stopping {
            return None;
        }
        while self.unauthenticated.len() >= self.settings.unauthenticated_max as usize {
            let oldest = self.unauthenticated.front().copied()?;
            self.refused += 1;
            self.end(oldest, TerminateCode::Full, 0, FULL_TEXT, now_ns);
        }
        let Some(index) = self.free.pop() else {
            self.refused += 1;
            return None;
        };
        self.taken.insert(index);
        let conn = self.conn_at(index);
        let slot = &mut self.slots[index as usize];
        self.accepted += 1;
        slot.accepted = self.accepted;
        slot.state = State::AwaitLogon { since_ns: now_ns };
        slot.nonce = nonce;
        slot.heard_ns = now_ns;
        slot.outgoing = Outgoing::with_capacity(OUTGOING_BEFORE_LOGON);
        slot.ack_pending = None;
        slot.close_sent = false;
        self.unauthenticated.push_back(conn);
        let challenge = Challenge {
            nonce,
            node: self.settings.node,
            version_lowest: PROTOCOL_VERSION.into(),
            version_highest: PROTOCOL_VERSION.into(),
        };
        self.say(conn, &Message::Challenge(challenge), now_ns);
        Some(conn)
    }

    /// `bytes` lie at `offset` of the connection's receive buffer and start an item; they were received at
    /// `receive_time_ns` (UTC).
    pub fn on_bytes(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        offset: u32,
        receive_time_ns: u64,
        now_ns: u64,
    ) -> Parsed {
        let mut parsed = Parsed {
            consumed: 0,
            commands: 0,
            is_open: false,
        };
        if !self.is_current(conn) {
            return parsed;
        }
        self.slots[conn.index as usize].heard_ns = now_ns;
        let mut run_start = 0;
        loop {
            let limits = match self.slots[conn.index as usize].state {
                State::AwaitLogon { .. } => Limits::BEFORE_LOGON,
                State::Publisher => Limits::after_logon(self.settings.payload_limit),
                State::AwaitPrimary { .. }
                | State::AwaitEstablished { .. }
                | State::HandingOver
                | State::Closing { .. }
                | State::Free => break,
            };
            let rest = &bytes[parsed.consumed..];
            match item::front(rest, limits) {
                Ok(Front::Partial { .. }) => break,
                Ok(Front::Record { length }) => {
                    if let Err(end) = self.check_record(conn, &rest[..length]) {
                        self.pass_records(
                            conn,
                            offset,
                            &mut run_start,
                            &mut parsed,
                            receive_time_ns,
                        );
                        self.end(conn, end.0, 0, end.1, now_ns);
                        break;
                    }
                    parsed.consumed += stride(length);
                    continue;
                }
                Ok(Front::Message { length }) => {
                    self.pass_records(conn, offset, &mut run_start, &mut parsed, receive_time_ns);
                    let start = parsed.consumed;
                    parsed.consumed += stride(length);
                    let at = (offset + start as u32, stride(length) as u32);
                    if self.on_message(conn, &rest[..length], at, now_ns) {
                        parsed.commands += 1;
                    }
                    run_start = parsed.consumed;
                    continue;
                }
                Err(error) => {
                    self.pass_records(conn, offset, &mut run_start, &mut parsed, receive_time_ns);
                    let (code, detail, text) = item_error(error);
                    self.end(conn, code, detail, text, now_ns);
                    break;
                }
            }
        }
        self.pass_records(conn, offset, &mut run_start, &mut parsed, receive_time_ns);
        parsed.is_open = matches!(
            self.slots[conn.index as usize].state,
            State::AwaitLogon { .. } | State::Publisher
        );
        parsed
    }

    /// Passes the records between `run_start` and what is consumed on to the sequencer.
    fn pass_records(
        &mut self,
        conn: ConnId,
        offset: u32,
        run_start: &mut usize,
        parsed: &mut Parsed,
        receive_time_ns: u64,
    ) {
        if parsed.consumed > *run_start {
            parsed.commands += 1;
            self.commands.push_back(ToSequence::Records {
                conn,
                offset: offset + *run_start as u32,
                length: (parsed.consumed - *run_start) as u32,
                receive_time_ns,
            });
            *run_start = parsed.consumed;
        }
    }

    fn check_record(
        &self,
        conn: ConnId,
        bytes: &[u8],
    ) -> Result<(), (TerminateCode, &'static str)> {
        let record = record::check_published(bytes).map_err(|error| match error {
            RecordError::Checksum { .. } => (
                TerminateCode::Checksum,
                "a record's checksum does not fit; send it again",
            ),
            _ => (
                TerminateCode::Protocol,
                "a malformed record; see the wire format, section 2",
            ),
        })?;
        let slot = &self.slots[conn.index as usize];
        if record.publisher() != slot.publisher || record.incarnation() != slot.incarnation {
            return Err((
                TerminateCode::Protocol,
                "a record carries another publisher or incarnation than the logon",
            ));
        }
        if record.publisher_seq().get() == 0 {
            return Err((TerminateCode::Protocol, "publisher sequences start at 1"));
        }
        Ok(())
    }

    /// Handles a session message that lies at `at` (offset, bytes) of the receive buffer; true when a command names it.
    fn on_message(&mut self, conn: ConnId, item: &[u8], at: (u32, u32), now_ns: u64) -> bool {
        let message = match Message::decode(item) {
            Ok(message) => message,
            Err(error) => {
                let (code, detail) = match error {
                    MessageError::Version(_) => (TerminateCode::Version, PROTOCOL_VERSION.into()),
                    MessageError::Checksum => (TerminateCode::Checksum, 0),
                    _ => (TerminateCode::Protocol, 0),
                };
                self.end(conn, code, detail, MALFORMED_TEXT, now_ns);
                return false;
            }
        };
        let state = self.slots[conn.index as usize].state;
        match (state, message) {
            (State::AwaitLogon { .. }, Message::Logon(logon)) => {
                self.on_logon(conn, &logon, now_ns);
            }
            (State::Publisher, Message::TopicRequest(_)) => {
                self.commands.push_back(ToSequence::TopicRequest {
                    conn,
                    offset: at.0,
                    length: at.1,
                });
                return true;
            }
            (_, Message::Heartbeat(_)) => {}
            (_, Message::Terminate(_)) => {
                self.end(conn, TerminateCode::Logout, 0, "as you wish", now_ns);
            }
            _ => self.end(conn, TerminateCode::Protocol, 0, NOT_HERE_TEXT, now_ns),
        }
        false
    }

    /// The sequencer's word.
    pub fn on_reply(&mut self, reply: ToIngress, now_ns: u64) {
        match reply {
            ToIngress::Established {
                conn,
                next_expected,
                released_through,
            } => {
                if self.is_current(conn) {
                    self.establish(conn, next_expected, released_through, now_ns);
                }
            }
            ToIngress::Ack {
                conn,
                publisher_seq,
                seq,
            } => {
                if self.is_current(conn) {
                    self.slots[conn.index as usize].ack_pending = Some((publisher_seq, seq));
                    self.say_ack(conn, now_ns);
                }
            }
            ToIngress::Topic {
                conn,
                request,
                topic,
            } => {
                let topic = Topic {
                    request,
                    topic,
                    name: "",
                };
                self.say_if_current(conn, &Message::Topic(topic), now_ns);
            }
            ToIngress::Reject {
                conn,
                publisher_seq,
                next_expected,
                request,
                code,
            } => {
                let text = reject_text(code);
                let reject = Reject {
                    publisher_seq,
                    next_expected,
                    request,
                    code,
                    text,
                };
                self.say_if_current(conn, &Message::Reject(reject), now_ns);
            }
            ToIngress::Terminate { conn, code, detail } => {
                if self.is_current(conn) {
                    self.end(conn, code, detail, terminate_text(code), now_ns);
                }
            }
            ToIngress::Progress { next_seq, held } => {
                self.next_seq = next_seq;
                if self.held != held {
                    self.held = held;
                    self.held_since_ns = now_ns;
                }
            }
            ToIngress::Serve {
                epoch,
                trading_session,
                next_seq,
            } => {
                self.is_serving = true;
                self.epoch = epoch;
                self.trading_session = trading_session;
                self.next_seq = next_seq;
                while let Some(conn) = self.waiting.pop_front() {
                    self.proceed(conn, now_ns);
                }
            }
            ToIngress::Session { number } => self.trading_session = number,
            ToIngress::Withdraw => {
                self.is_serving = false;
                self.end_all(TerminateCode::NotPrimary, now_ns);
            }
            ToIngress::Vacant(is_vacant) => {
                self.is_vacant = is_vacant;
                while let Some(&conn) = self.waiting.front().filter(|_| !is_vacant) {
                    self.send_on(conn, now_ns);
                }
            }
            ToIngress::Taken { .. } => {}
        }
    }

    fn say_if_current(&mut self, conn: ConnId, message: &Message<'_>, now_ns: u64) {
        if self.is_current(conn) && self.slots[conn.index as usize].state == State::Publisher {
            self.say(conn, message, now_ns);
        }
    }

    fn say_ack(&mut self, conn: ConnId, now_ns: u64) {
        let epoch = self.epoch;
        let slot = &mut self.slots[conn.index as usize];
        let Some((publisher_seq, seq)) = slot.ack_pending else {
            return;
        };
        let ack = Ack {
            publisher_seq,
            seq,
            epoch,
        };
        // A later acknowledgement covers this one, so a full buffer only delays it.
        if slot.state == State::Publisher && slot.outgoing.push(&Message::Ack(ack)).is_ok() {
            slot.ack_pending = None;
            slot.said_ns = now_ns;
            self.start_send(conn);
        }
    }

    fn conn_at(&self, index: u32) -> ConnId {
        ConnId {
            index,
            generation: self.slots[index as usize].generation,
        }
    }

    /// Queues `message`; a client that reads so little that it does not fit is let go.
    fn say(&mut self, conn: ConnId, message: &Message<'_>, now_ns: u64) {
        let slot = &mut self.slots[conn.index as usize];
        if slot.outgoing.push(message).is_err() {
            self.abandon(conn);
            return;
        }
        slot.said_ns = now_ns;
        self.start_send(conn);
    }

    fn start_send(&mut self, conn: ConnId) {
        let slot = &mut self.slots[conn.index as usize];
        if slot.outgoing.wants_send() {
            slot.outgoing.begin_send();
            self.effects.push_back(IngressEffect::Send(conn));
        }
    }

    /// The bytes an [`IngressEffect::Send`] is about. They stay in place until [`Ingress::on_sent`].
    #[must_use]
    pub fn outgoing(&self, conn: ConnId) -> &[u8] {
        self.slots[conn.index as usize].outgoing.front()
    }

    /// A send took `length` bytes; 0 when the socket had no room, in which case the caller reports again once it has.
    pub fn on_sent(&mut self, conn: ConnId, length: usize, now_ns: u64) {
        if !self.is_current(conn) {
            return;
        }
        let slot = &mut self.slots[conn.index as usize];
        slot.outgoing.end_send(length);
        if slot.ack_pending.is_some() {
            self.say_ack(conn, now_ns);
        }
        self.start_send(conn);
        let slot = &mut self.slots[conn.index as usize];
        if !slot.outgoing.is_empty() {
            return;
        }
        match slot.state {
            State::HandingOver => {
                let credential = slot.credential;
                self.release_slot(conn);
                self.effects
                    .push_back(IngressEffect::HandOver { conn, credential });
            }
            State::Closing { .. } => self.abandon(conn),
            State::Publisher if slot.outgoing.capacity() < OUTGOING_PUBLISHER => {
                slot.outgoing.grow(OUTGOING_PUBLISHER);
            }
            _ => {}
        }
    }

    /// The peer closed, or the socket failed.
    pub fn on_closed(&mut self, conn: ConnId) {
        if self.is_current(conn) {
            self.abandon(conn);
        }
    }

    /// Accept nobody any more and take leave of everyone.
    pub fn stop(&mut self, code: TerminateCode, now_ns: u64) {
        self.is_stopping = true;
        self.end_all(code, now_ns);
    }

    fn end_all(&mut self, code: TerminateCode, now_ns: u64) {
        let mut from = 0;
        while let Some(index) = self.taken.next_from(from) {
            from = index + 1;
            let conn = self.conn_at(index);
            self.end(conn, code, 0, terminate_text(code), now_ns);
        }
    }

    /// Whether no connection is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Says farewell and closes once that is sent.
    fn end(&mut self, conn: ConnId, code: TerminateCode, detail: u64, text: &str, now_ns: u64) {
        let slot = &mut self.slots[conn.index as usize];
        if matches!(slot.state, State::Closing { .. } | State::Free) {
            return;
        }
        // Whom the sequencer never heard of it need not hear the end of either.
        let is_to_tell = slot.is_known_publisher() && !slot.close_sent;
        slot.close_sent = true;
        slot.state = State::Closing { since_ns: now_ns };
        slot.ack_pending = None;
        let terminate = Terminate { code, detail, text };
        let fits = slot.outgoing.push(&Message::Terminate(terminate)).is_ok();
        self.forget(conn);
        if is_to_tell {
            self.commands.push_back(ToSequence::Closed { conn });
        }
        if fits {
            self.start_send(conn);
        } else {
            self.abandon(conn);
        }
    }

    /// It waits for nothing any more.
    fn forget(&mut self, conn: ConnId) {
        self.unauthenticated.retain(|&other| other != conn);
        self.waiting.retain(|&other| other != conn);
    }

    /// Closes without another word.
    fn abandon(&mut self, conn: ConnId) {
        let slot = &self.slots[conn.index as usize];
        if slot.is_known_publisher() && !slot.close_sent {
            self.commands.push_back(ToSequence::Closed { conn });
        }
        self.forget(conn);
        self.release_slot(conn);
        self.effects.push_back(IngressEffect::Close(conn));
    }

    fn release_slot(&mut self, conn: ConnId) {
        let slot = &mut self.slots[conn.index as usize];
        let generation = slot.generation.wrapping_add(1);
        *slot = Slot {
            generation,
            ..Slot::new()
        };
        self.free.push(conn.index);
        self.taken.remove(conn.index);
    }

    fn is_current(&self, conn: ConnId) -> bool {
        let slot = &self.slots[conn.index as usize];
        slot.generation == conn.generation && slot.state != State::Free
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<IngressEffect> {
        self.effects.pop_front()
    }

    /// The next command for the sequencer.
    pub fn poll_command(&mut self) -> Option<ToSequence> {
        self.commands.pop_front()
    }

    /// Connections turned away for want of a place.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Connections in the table.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            generation: 0,
            accepted: 0,
            state: State::Free,
            nonce: [0; 32],
            credential: 0,
            publisher: PublisherId(0),
            incarnation: Incarnation(0),
            outgoing: Outgoing::default(),
            ack_pending: None,
            heard_ns: 0,
            said_ns: 0,
            close_sent: false,
        }
    }

    /// Whether the sequencer heard of it.
    const fn is_known_publisher(&self) -> bool {
        let is_unknown = matches!(
            self.state,
            State::AwaitLogon { .. } | State::AwaitPrimary { .. }
        );
        self.publisher.get() != 0 && !is_unknown
    }
}
