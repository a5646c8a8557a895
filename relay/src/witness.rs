//! `relayd witness`: a durable compare-and-swap register in a process of its own, which decides who leads a group.
//!
//! ```text
//! nodes --frames--> server: one thread a connection --one lock--> store --one durable write--> registers
//! ```
//!
//! * [`config`]: what an operator writes;
//! * [`server`]: connections, logon, limits;
//! * [`store`]: the file.
//!
//! It keeps no clock, lease or lock of anybody's: nothing here expires, so nothing here can be wrong about time.

pub(crate) mod config;
pub(crate) mod server;
pub(crate) mod store;
