//! The fixed part of each session message's body as it lies on the wire, in the order of the kinds' numbers (`FORMAT.md`
//! section 3 gives every offset). Names, texts and patterns follow it.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::item::MESSAGE_HEADER_LENGTH;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderLayout {
    pub(super) length: U32,
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) zero: U16,
    pub(super) checksum: U32,
    pub(super) zero_tail: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ChallengeLayout {
    pub(super) nonce: [u8; 32],
    pub(super) node: U64,
    pub(super) version_lowest: U16,
    pub(super) version_highest: U16,
    pub(super) zero: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogonLayout {
    pub(super) role: u8,
    pub(super) name_length: u8,
    pub(super) zero: U16,
    pub(super) stream: U32,
    pub(super) publisher: U64,
    pub(super) incarnation: U64,
    pub(super) zero_tail: U64,
    pub(super) nonce: [u8; 32],
    pub(super) proof: [u8; 32],
}

pub(super) const LOGON_PROOF_AT: usize = 64;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogonAckLayout {
    pub(super) proof: [u8; 32],
    pub(super) epoch: U64,
    pub(super) trading_session: U64,
    pub(super) next_expected: U64,
    pub(super) released_through: U64,
    pub(super) next_seq: U64,
    pub(super) credit: U64,
    pub(super) payload_limit: U32,
    pub(super) heartbeat_ms: U32,
    pub(super) stream: U32,
    pub(super) zero: [u8; 20],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct TerminateLayout {
    pub(super) code: U16,
    pub(super) text_length: U16,
    pub(super) zero: U32,
    pub(super) detail: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeartbeatLayout {
    pub(super) next_seq: U64,
    pub(super) epoch: U64,
    pub(super) checksum: U32,
    pub(super) held: u8,
    pub(super) zero: [u8; 11],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct TopicRequestLayout {
    pub(super) request: U32,
    pub(super) name_length: U16,
    pub(super) zero: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct TopicLayout {
    pub(super) request: U32,
    pub(super) topic: U32,
    pub(super) name_length: U16,
    pub(super) zero: [u8; 6],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AckLayout {
    pub(super) publisher_seq: U64,
    pub(super) seq: U64,
    pub(super) epoch: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RejectLayout {
    pub(super) publisher_seq: U64,
    pub(super) next_expected: U64,
    pub(super) request: U32,
    pub(super) code: U16,
    pub(super) text_length: U16,
    pub(super) zero: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SubscribeLayout {
    pub(super) from: u8,
    pub(super) flags: u8,
    pub(super) patterns: U16,
    pub(super) checksum: U32,
    pub(super) value: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SubscribedLayout {
    pub(super) start_seq: U64,
    pub(super) earliest_seq: U64,
    pub(super) next_seq: U64,
    pub(super) epoch: U64,
}

const _: () = {
    assert!(size_of::<HeaderLayout>() == MESSAGE_HEADER_LENGTH);
    assert!(size_of::<ChallengeLayout>() == 48);
    assert!(size_of::<LogonLayout>() == 96);
    assert!(size_of::<LogonAckLayout>() == 112);
    assert!(size_of::<TerminateLayout>() == 16);
    assert!(size_of::<HeartbeatLayout>() == 32);
    assert!(size_of::<TopicRequestLayout>() == 8);
    assert!(size_of::<TopicLayout>() == 16);
    assert!(size_of::<AckLayout>() == 24);
    assert!(size_of::<RejectLayout>() == 32);
    assert!(size_of::<SubscribeLayout>() == 16);
    assert!(size_of::<SubscribedLayout>() == 32);
};
