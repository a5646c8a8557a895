//! The logon: who is let in, who waits for this node to lead, who is sent on.

use relay_wire::code::TerminateCode;
use relay_wire::id::PublisherSeq;
use relay_wire::item::PAYLOAD_LIMIT_MAX;
use relay_wire::message::{Logon, LogonAck, Message};

use super::words::{AUTHENTICATION_TEXT, STREAM_TEXT, terminate_text};
use super::{Ingress, IngressEffect, State};
use crate::command::{ConnId, PublisherLogon, ToSequence};

impl Ingress {
    pub(super) fn on_logon(&mut self, conn: ConnId, logon: &Logon<'_>, now_ns: u64) {
        let nonce = self.slots[conn.index as usize].nonce;
        if logon.stream.get() != 0 && logon.stream != self.settings.stream {
            let detail = self.settings.stream.get().into();
            self.end(
                conn,
                TerminateCode::UnknownStream,
                detail,
                STREAM_TEXT,
                now_ns,
            );
            return;
        }
        let Some(credential) = self.credentials.admit(logon, &nonce) else {
            self.end(
                conn,
                TerminateCode::Authentication,
                0,
                AUTHENTICATION_TEXT,
                now_ns,
            );
            return;
        };
        if !self.is_serving && !self.is_vacant {
            self.send_on(conn, now_ns);
            return;
        }
        self.unauthenticated.retain(|&other| other != conn);
        let slot = &mut self.slots[conn.index as usize];
        slot.credential = credential;
        slot.publisher = logon.publisher;
        slot.incarnation = logon.incarnation;
        slot.state = State::AwaitPrimary {
            since_ns: now_ns,
            client_nonce: logon.nonce,
        };
        if self.is_serving {
            self.proceed(conn, now_ns);
        } else {
            self.waiting.push_back(conn);
            self.end_left_by(conn, now_ns);
        }
    }

    /// A publisher that logs on anew has left the connection on which it waited: nothing is received there, so nobody knows. Which
    /// of the two is the newer one its life and the accepts tell; a LOGON may be late.
    fn end_left_by(&mut self, conn: ConnId, now_ns: u64) {
        let publisher = self.slots[conn.index as usize].publisher;
        let slot = |conn: &ConnId| &self.slots[conn.index as usize];
        let waiting = self.waiting.iter().copied();
        let its = waiting.filter(|conn| slot(conn).publisher == publisher);
        if publisher.get() == 0 || its.clone().count() < 2 {
            return;
        }
        let left = its.min_by_key(|conn| (slot(conn).incarnation, slot(conn).accepted));
        if let Some(left) = left {
            let text = terminate_text(TerminateCode::Superseded);
            self.end(left, TerminateCode::Superseded, 0, text, now_ns);
        }
    }

    /// A client that proved who it is is served by this node: a publisher once the sequencer knows it, a subscriber at once.
    pub(super) fn proceed(&mut self, conn: ConnId, now_ns: u64) {
        let slot = &mut self.slots[conn.index as usize];
        let State::AwaitPrimary { client_nonce, .. } = slot.state else {
            return;
        };
        slot.state = State::AwaitEstablished { client_nonce };
        slot.heard_ns = now_ns;
        if slot.publisher.get() == 0 {
            self.establish(conn, PublisherSeq(0), PublisherSeq(0), now_ns);
        } else {
            self.commands.push_back(ToSequence::Logon(PublisherLogon {
                conn,
                publisher: slot.publisher,
                incarnation: slot.incarnation,
                credential: slot.credential,
                accepted: slot.accepted,
            }));
        }
    }

    /// Another node serves, or may.
    pub(super) fn send_on(&mut self, conn: ConnId, now_ns: u64) {
        let text = terminate_text(TerminateCode::NotPrimary);
        self.end(conn, TerminateCode::NotPrimary, 0, text, now_ns);
    }

    /// Sends LOGON_ACK and lets the client go on.
    pub(super) fn establish(
        &mut self,
        conn: ConnId,
        next_expected: PublisherSeq,
        released_through: PublisherSeq,
        now_ns: u64,
    ) {
        let slot = &mut self.slots[conn.index as usize];
        let State::AwaitEstablished { client_nonce } = slot.state else {
            return;
        };
        let is_publisher = slot.publisher.get() != 0;
        let ack = LogonAck {
            proof: [0; 32],
            epoch: self.epoch,
            trading_session: self.trading_session,
            next_expected,
            released_through,
            next_seq: self.next_seq,
            credit: if is_publisher {
                self.settings.credit
            } else {
                0
            },
            // Records of the past may be longer than what is taken now.
            payload_limit: if is_publisher {
                self.settings.payload_limit
            } else {
                PAYLOAD_LIMIT_MAX
            },
            heartbeat_ms: self.settings.heartbeat_ms(),
            stream: self.settings.stream,
        };
        let secret = &self.credentials.get(slot.credential).secret;
        let ack = ack.with_proof(secret, &client_nonce, &slot.nonce);
        slot.state = if is_publisher {
            State::Publisher
        } else {
            State::HandingOver
        };
        if is_publisher {
            self.effects.push_back(IngressEffect::WidenReceive(conn));
        }
        self.say(conn, &Message::LogonAck(ack), now_ns);
    }
}
