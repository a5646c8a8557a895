//! The state machines of the relay: every decision, and nothing that touches the world.
//!
//! No clock, file, socket, thread or randomness lives here. Time and nonces are arguments; inputs are `on_*` calls, outputs
//! are values from closed enums that the caller polls. There are two callers: the appliance, which carries the
//! values to io_uring, and the simulator. The way of a message:
//!
//! ```text
//! ingress::Ingress --ToSequence--> node::Node --ReleasePoint--> fanout::Fanout
//!        ^                             |  Write/Sync effects, peers, arbiter
//!        +---------ToIngress-----------+
//! ```
//!
//! * [`ingress`]: connections, logon, what a publisher may send;
//! * [`sequence`]: the one order: sequence numbers, duplicate check, blocks, durability, release, acknowledgement;
//! * [`fanout`]: subscribers, each a cursor over what is released;
//! * [`node`]: a node of a group, which follows or leads: it holds [`sequence`] or [`standby`], the links to the peers, a mirror
//!   for each of them, and the failover decisions;
//! * [`arbiter`]: what is asked of whoever keeps the membership record;
//! * [`register`]: the arbiter's side of a stream: records changed by compare-and-swap;
//! * [`startup`]: from what recovery found to the machines above.
#![forbid(unsafe_code)]

pub mod arbiter;
pub mod command;
pub mod credential;
mod failover;
pub mod fanout;
pub mod group;
mod history;
pub mod ingress;
pub mod links;
pub mod log;
mod mirror;
pub mod node;
mod outgoing;
mod packing;
mod persist;
mod places;
mod publishers;
pub mod register;
pub mod sequence;
pub mod settings;
pub mod standby;
pub mod startup;
pub mod topics;
