//! Rules broken in what a process hears, says and reports: see [`crate::canary`].

use relay_core::command::ToIngress;
use relay_wire::peer::{self, PeerMessage};

use super::Process;
use crate::canary::Canary;

/// What ingress is told.
pub(super) fn reply(reply: ToIngress, canary: Option<Canary>) -> ToIngress {
    match (reply, canary) {
        (
            ToIngress::Ack {
                conn,
                publisher_seq,
                seq,
            },
            Some(Canary::AcknowledgedTooFar),
        ) => ToIngress::Ack {
            conn,
            publisher_seq: publisher_seq.next(),
            seq: seq.next(),
        },
        _ => reply,
    }
}

impl Process {
    /// Whether a write is reported as ended the moment it is begun.
    pub(super) fn reports_early(&self, canary: Option<Canary>) -> bool {
        match canary {
            Some(Canary::ReleaseBeforeDurable) => true,
            Some(Canary::StandbyAcknowledgesEarly) => self.machine.sequence().is_none(),
            _ => false,
        }
    }

    /// Rewrites what peers say of their progress before this node's machine hears it.
    pub(super) fn bend_progress(&self, inbox: &mut [u8], canary: Option<Canary>) {
        let is_bent = matches!(
            canary,
            Some(Canary::ReleaseBeforePeer | Canary::ChecksumIgnored)
        );
        let Some(sequence) = self.machine.sequence().filter(|_| is_bent) else {
            return;
        };
        let longest = self.machine.link_message_length_max();
        let mut rest = inbox;
        while let Ok(Some(length)) = peer::front(rest, longest) {
            let (message, behind) = rest.split_at_mut(length);
            rest = behind;
            let Ok((envelope, PeerMessage::Progress(mut progress))) = PeerMessage::decode(message)
            else {
                continue;
            };
            let end = if canary == Some(Canary::ReleaseBeforePeer) {
                Some(sequence.sealed_end())
            } else {
                sequence.end_at(progress.durable)
            };
            if let Some(end) = end {
                progress.durable = end.point.position;
                progress.durable_checksum = end.block_checksum;
                let said = PeerMessage::Progress(progress).encode(&envelope, message);
                said.expect("it is as long as before");
            }
        }
    }
}
