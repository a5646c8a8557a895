//! Rules broken in what a process hears, says and reports: see [`crate::canary`].

use relay_core::command::ToIngress;
use relay_wire::id::{Epoch, Position, PublisherSeq};
use relay_wire::peer::{self, Envelope, PeerMessage};

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
        (
            ToIngress::Established {
                conn,
                next_expected,
                ..
            },
            Some(Canary::LogonCountsAppended),
        ) => ToIngress::Established {
            conn,
            next_expected,
            released_through: PublisherSeq(next_expected.get() - 1),
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

    /// What of the log the ring may forget.
    pub(super) fn forgettable(&self, canary: Option<Canary>) -> Position {
        let is_bent = canary == Some(Canary::RingSlotReused) && self.machine.sequence().is_none();
        if is_bent && !self.machine.is_over() {
            return self.machine.open_position();
        }
        self.machine.forgettable(self.floor)
    }

    /// Rewrites what a peer says before this node's machine hears it.
    pub(super) fn bend_words(&self, inbox: &mut [u8], canary: Option<Canary>) {
        let bends = matches!(
            canary,
            Some(
                Canary::ReleaseBeforePeer
                    | Canary::ChecksumIgnored
                    | Canary::PromiseBlocksGroup
                    | Canary::StaleEpochAccepted
            )
        );
        let Some(canary) = canary.filter(|_| bends) else {
            return;
        };
        let longest = self.machine.link_message_length_max();
        let mut rest = inbox;
        while let Ok(Some(length)) = peer::front(rest, longest) {
            let (message, behind) = rest.split_at_mut(length);
            rest = behind;
            let said = message.to_vec();
            let Ok((mut envelope, mut decoded)) = PeerMessage::decode(&said) else {
                continue;
            };
            if self.bend(&mut envelope, &mut decoded, canary) {
                let bent = decoded.encode(&envelope, message);
                bent.expect("it is as long as before");
            }
        }
    }

    /// Bends one message; whether it is another one now.
    fn bend(&self, envelope: &mut Envelope, message: &mut PeerMessage<'_>, canary: Canary) -> bool {
        if canary == Canary::StaleEpochAccepted {
            return self.bend_epoch(envelope, message);
        }
        let (Some(sequence), PeerMessage::Progress(progress)) = (self.machine.sequence(), message)
        else {
            return false;
        };
        if canary == Canary::PromiseBlocksGroup {
            progress.lowest_join = Epoch(0);
            return true;
        }
        let end = if canary == Canary::ReleaseBeforePeer {
            Some(sequence.sealed_end())
        } else {
            sequence.end_at(progress.durable)
        };
        if let Some(end) = end {
            progress.durable = end.point.position;
            progress.durable_checksum = end.block_checksum;
        }
        end.is_some()
    }

    /// Whatever epoch a peer speaks in counts as the present one, and who asks to be followed asks for one that is not promised
    /// away.
    fn bend_epoch(&self, envelope: &mut Envelope, message: &mut PeerMessage<'_>) -> bool {
        let status = self.machine.status();
        if let PeerMessage::Open(membership) = message
            && self.machine.sequence().is_none()
        {
            let lowest = status.vote.promised.max(status.vote.committed);
            membership.epoch = membership.epoch.max(lowest.next());
            envelope.epoch = membership.epoch;
            return true;
        }
        if envelope.epoch == Epoch(0) || status.epoch == Epoch(0) {
            return false;
        }
        envelope.epoch = status.epoch;
        true
    }
}
