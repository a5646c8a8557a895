//! Publisher and subscriber of the relay, for programs that hand it messages or take them from it.
//!
//! ```no_run
//! use relay_client::{Credential, OutMessage, Publisher, PublisherConfig};
//!
//! # fn main() -> Result<(), relay_client::ClientError> {
//! let credential = Credential { name: "gateway".into(), secret: b"a long secret".to_vec() };
//! let mut publisher = Publisher::connect(PublisherConfig::new(
//!     vec!["10.0.0.1:7400".into(), "10.0.0.2:7400".into()],
//!     credential,
//!     17,
//! ))?;
//! let topic = publisher.topic("orders.xnas")?;
//! publisher.send(&OutMessage::new(topic, b"buy 100"))?;
//! publisher.close()
//! # }
//! ```
//!
//! # How it works
//! One object, one connection, one thread: nothing runs in the background. Whoever owns a [`Publisher`] or a
//! [`Subscriber`] calls its `poll` often (several times a second, or the relay takes it for dead after five; the more often,
//! the sooner a lost relay is noticed); that call writes, reads, answers heartbeats, and connects again after a loss, and it never blocks. The calls that do
//! block say so; between two polls [`Publisher::wait`] does, until there is something to do.
//!
//! ```text
//! try_send -> [ resend window: each record laid out once ] -- flush/poll --> socket      publisher.rs, resend.rs
//!                 ^ released by ACK                                                        connection.rs
//! poll/next_within <- [ receive buffer: records viewed in place ] <-- one read -- socket  subscriber.rs
//! ```
//!
//! # What is promised
//! - A record accepted by [`Publisher::try_send`] is kept until the relay says that it is released, and sent again after
//!   every loss of the connection until then; the relay stores it once.
//! - Records reach the subscriber in the order of seq, each once, each with its checksum verified. Whatever breaks that
//!   is an error, and the record is not handed over.
//! - The relay proves that it knows the credential's secret before a record is sent to it or taken from it.
//! - After start, sending and receiving allocate nothing; the buffers have their size from the configuration and from
//!   what the relay says at logon.
//!
//! What it does not do: it does not write to disk. A publisher process that dies forgets what was not released yet; its next
//! incarnation starts numbering anew, and whether to send again is the application's decision.
//!
//! [`witness`] is apart from all this: a client of the process that keeps a group's membership record, for `relayd` and
//! tools.
//!
//! The bytes on the wire are `relay-wire`'s; `FORMAT.md` there describes them.
#![deny(unsafe_code)] // but for one call in `wait`

mod addresses;
mod config;
mod connection;
mod error;
mod events;
mod patience;
mod publisher;
mod resend;
mod subscriber;
mod topics;
mod wait;
pub mod witness;

pub use config::{Credential, OutMessage, PublisherConfig, Start, SubscriberConfig};
pub use error::{ClientError, DisconnectReason, TrySendError};
pub use publisher::{Publisher, PublisherEvent};
pub use relay_wire as wire;
pub use relay_wire::code::{Held, RejectCode, TerminateCode};
pub use relay_wire::id::{Epoch, Incarnation, PublisherId, PublisherSeq, Seq, StreamId, TopicId};
pub use subscriber::{Delivery, Message, ResumePoint, Subscriber, SubscriberEvent};
