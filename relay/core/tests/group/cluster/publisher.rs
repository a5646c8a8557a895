//! The publisher of a cluster.

use relay_core::command::{ConnId, PublisherLogon, ToIngress, ToSequence};
use relay_wire::code::RecordKind;
use relay_wire::id::{Incarnation, PublisherId, PublisherSeq, TopicId};
use relay_wire::message::{Message, TopicRequest};
use relay_wire::record::{self, Fields};
use relay_wire::stride;

use super::Cluster;

/// A publisher that keeps what is not acknowledged and goes to whoever serves.
#[derive(Default)]
pub struct Publisher {
    pub(super) at: Option<(usize, u64)>,
    conn: u32,
    topic: Option<TopicId>,
    pub sent: u64,
    pub wanted: u64,
    pub acked: u64,
    /// It left a record out, and has not been told yet.
    pub leaves_gap: bool,
    is_established: bool,
}

impl Publisher {
    fn conn(&self) -> ConnId {
        ConnId {
            index: self.conn,
            generation: 0,
        }
    }
}

impl Cluster {
    pub(super) fn drive_publisher(&mut self) {
        for at in 0..self.machines.len() {
            for reply in std::mem::take(&mut self.machines[at].replies) {
                self.on_reply(at, reply);
            }
        }
        let Some(at) = self.serving() else {
            return;
        };
        let process = self.machines[at].process;
        if self.publisher.at != Some((at, process)) {
            let publisher = &mut self.publisher;
            publisher.at = Some((at, process));
            publisher.conn += 1;
            publisher.topic = None;
            publisher.is_established = false;
            let conn = publisher.conn();
            let logon = ToSequence::Logon(PublisherLogon {
                conn,
                publisher: PublisherId(1),
                incarnation: Incarnation(1),
                credential: 0,
                accepted: 0,
            });
            self.command(at, logon, &[]);
            let mut bytes = [0; 64];
            let request = Message::TopicRequest(TopicRequest {
                request: 1,
                name: b"a",
            });
            let length = request.encode(&mut bytes).unwrap() as u32;
            let ask = ToSequence::TopicRequest {
                conn,
                offset: 0,
                length,
            };
            self.command(at, ask, &bytes[..length as usize]);
        }
        let publisher = &self.publisher;
        if let (Some(topic), true) = (publisher.topic, publisher.is_established)
            && publisher.sent < publisher.wanted.min(publisher.acked + 64)
        {
            let sequence = publisher.sent + 1;
            let fields = Fields {
                topic,
                publisher: PublisherId(1),
                incarnation: Incarnation(1),
                publisher_seq: PublisherSeq(sequence),
                ..Fields::default()
            };
            let payload = sequence.to_le_bytes();
            let mut bytes = [0; 128];
            let length = record::encode(&mut bytes, RecordKind::Data, &fields, &[], &payload);
            let length = length.unwrap();
            let records = ToSequence::Records {
                conn: publisher.conn(),
                offset: 0,
                length: length as u32,
                receive_time_ns: self.now.utc_ns,
            };
            self.publisher.sent += 1;
            assert_eq!(length, stride(length));
            self.command(at, records, &bytes[..length]);
        }
    }

    fn command(&mut self, at: usize, command: ToSequence, bytes: &[u8]) {
        let done = self.with_window(at, |node, log, now| {
            node.on_command(command, bytes, now, log)
        });
        assert!(done.is_some_and(|done| done.is_done), "there is room");
    }

    fn on_reply(&mut self, at: usize, reply: ToIngress) {
        if let ToIngress::Serve { .. } | ToIngress::Withdraw = reply {
            let machine = &mut self.machines[at];
            machine.is_serving = reply != ToIngress::Withdraw;
            assert_eq!(
                machine.is_serving, machine.is_open,
                "whom ingress lets in finds the fan-out open"
            );
            return;
        }
        if let ToIngress::Vacant(is_vacant) = reply {
            self.machines[at].is_vacant = is_vacant;
            return;
        }
        let publisher = &mut self.publisher;
        let own = publisher.conn();
        match reply {
            ToIngress::Established {
                conn,
                next_expected,
                released_through,
            } if conn == own => {
                assert!(
                    released_through.get() >= publisher.acked,
                    "acknowledged and forgotten: {} of {}",
                    released_through,
                    publisher.acked
                );
                publisher.is_established = true;
                publisher.sent = next_expected.get() - 1;
                publisher.acked = released_through.get();
            }
            ToIngress::Topic { conn, topic, .. } if conn == own => publisher.topic = Some(topic),
            ToIngress::Ack {
                conn,
                publisher_seq,
                ..
            } if conn == own => publisher.acked = publisher.acked.max(publisher_seq.get()),
            ToIngress::Reject {
                conn,
                code,
                next_expected,
                ..
            } if conn == own => {
                assert!(publisher.leaves_gap, "rejected: {code:?}");
                publisher.leaves_gap = false;
                publisher.sent = next_expected.get() - 1;
            }
            _ => {}
        }
    }
}
