//! Every byte layout two parties share, and nothing else.
//!
//! The way of a message starts and ends here: a publisher lays a [`record::Record`] out once, and those bytes are what the
//! journal stores, a mirror holds and a subscriber reads. `FORMAT.md` beside this crate describes all of it byte by
//! byte; the golden vectors in `tools/fixtures/wire` tie the two together.
//!
//! Invariants: decoding never panics and never reads outside the slice it was given; a length is compared with a limit
//! before it is used; what is encoded here decodes here to the same value. This crate has no clock, file, socket or
//! thread.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod code;
pub mod counters;
pub mod extension;
pub mod id;
pub mod item;
pub mod membership;
pub mod message;
pub mod peer;
pub mod proof;
pub mod record;
pub mod topic;
pub mod witness;

/// Version of the session messages this crate speaks (`FORMAT.md` section 3).
pub const PROTOCOL_VERSION: u8 = 1;

/// Items start at multiples of this many bytes.
pub const ITEM_ALIGNMENT: usize = 8;

/// Bytes an item of `length` takes with the padding behind it.
#[must_use]
pub const fn stride(length: usize) -> usize {
    length.next_multiple_of(ITEM_ALIGNMENT)
}
