//! The bodies of witness frames as they lie on the wire; values follow them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderLayout {
    pub(super) length: U32,
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) zero: U16,
    pub(super) checksum: U32,
    pub(super) stream: U32,
    pub(super) id: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ChallengeLayout {
    pub(super) nonce: [u8; 32],
    pub(super) version_lowest: U16,
    pub(super) version_highest: U16,
    pub(super) zero: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogonLayout {
    pub(super) nonce: [u8; 32],
    pub(super) proof: [u8; 32],
    pub(super) node: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WelcomeLayout {
    pub(super) proof: [u8; 32],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct TerminateLayout {
    pub(super) code: U16,
    pub(super) zero: [u8; 6],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ValueLayout {
    pub(super) base: U64,
    pub(super) length: U16,
    pub(super) zero: [u8; 6],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SwapLayout {
    pub(super) base: U64,
    pub(super) floor_base: U64,
    pub(super) length: U16,
    pub(super) rests_on_floor: u8,
    pub(super) zero: [u8; 5],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegistersLayout {
    pub(super) record_revision: U64,
    pub(super) floor_revision: U64,
    pub(super) record_length: U16,
    pub(super) floor_length: U16,
    pub(super) zero: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DoneLayout {
    pub(super) revision: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StatusLayout {
    pub(super) started_ns: U64,
    pub(super) changes: U64,
    pub(super) streams: U32,
    pub(super) connections: U32,
}

const _: () = {
    assert!(size_of::<HeaderLayout>() == super::FRAME_HEADER_LENGTH);
    assert!(size_of::<ChallengeLayout>() == 40);
    assert!(size_of::<LogonLayout>() == 72);
    assert!(size_of::<WelcomeLayout>() == 32);
    assert!(size_of::<TerminateLayout>() == 8);
    assert!(size_of::<ValueLayout>() == 16);
    assert!(size_of::<SwapLayout>() == 24);
    assert!(size_of::<RegistersLayout>() == 24);
    assert!(size_of::<DoneLayout>() == 8);
    assert!(size_of::<StatusLayout>() == 24);
};
