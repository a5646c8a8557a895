//! The bare hop floor: what the same hops cost when nothing is decided on the way.
//!
//! A publisher's socket, a durable write, a subscriber's socket: the path every message of the
//! relay takes, walked here by the least code that can walk it. A latency of the product is then
//! given as a ratio to this floor, measured in the same run on the same machine, so that a slow
//! disk or a noisy neighbour weighs on both sides of the division.
//!
//! ```text
//!   client thread                 server thread                    standby thread (two nodes)
//!   publisher socket --256 B--> input -> block --+--> disk          +--> input -> block -> disk
//!                                                +--> mirror socket-+                       |
//!   subscriber socket <-------- forward <- min(written, standby) <----- acknowledgement ----+
//!   publisher socket <--ack----
//! ```
//!
//! Invariants:
//! - it shares no code with the product: a fault or a trick of one cannot hide in the other;
//! - every message is timed from the moment it was *meant* to be sent (open loop), so a stall
//!   shows in every message it delayed;
//! - nothing is forwarded or acknowledged before the bytes are as durable as the policy says (on
//!   every node's disk, or in the memory of both), and releases are in order;
//! - every thread stops by itself, within a bound, whatever failed.
//!
//! It deliberately has no sessions, no sequence numbers, no checksums, no recovery and no wire
//! format: a message is `size` bytes that begin with a little-endian index.
//!
//! All times are nanoseconds.

mod affinity;
mod block_writer;
mod buffer;
mod client;
mod clock;
mod data_file;
mod error;
mod floor;
mod hiccups;
mod hop;
mod inbound;
mod node;
mod options;
mod outbound;
mod report;
mod ring;
mod socket;
mod tally;
mod worker;
mod write_only;

pub use error::FloorError;
pub use floor::run;
pub use hiccups::{HICCUP_NS, Hiccups};
pub use hop::{hop_only, plain_ping_pong};
pub use options::{
    Due, HopOptions, Idle, LATE_MAX_NS, Options, Policy, SIZES, WriteMode, WriteOptions,
};
pub use report::{Report, WriteReport, new_histogram};
pub use write_only::write_only;

pub use hdrhistogram::Histogram;
