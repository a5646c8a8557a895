//! Messages into another relay: published again, each with the identity it was recorded with.
//!
//! The other relay gives a message its own seq and this publisher's numbers. Who sent it first, in which incarnation, with
//! which numbers and when, goes along in the record's extension area (ORIGINAL), so that a test system can tell the
//! messages of a production day apart as production did. A message that carries one already, because it was replayed
//! before, keeps it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relay_client::wire::extension::Original;
use relay_client::{Delivery, OutMessage, Publisher, PublisherEvent, TopicId, TrySendError};

use crate::connect::ConnectOptions;
use crate::exit::{Failure, Interrupt};

/// How long to wait for room at a time.
const PAUSE: Duration = Duration::from_millis(1);
/// How long to wait for the last releases before signals are looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// The other relay, on the command line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Another relay")]
pub(super) struct IntoOptions {
    /// Publish into the relay at this address; several for several nodes
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        group = "target"
    )]
    into: Vec<String>,
    /// Name of the credential there [env: RELAY_INTO_CREDENTIAL]
    #[arg(long, value_name = "NAME", requires = "into")]
    into_credential: Option<String>,
    /// File that holds that credential's secret in hexadecimal; without it from the environment [env: RELAY_INTO_SECRET]
    #[arg(long, value_name = "FILE", requires = "into")]
    into_secret_file: Option<PathBuf>,
    /// Id of the publisher to be there
    #[arg(long, value_name = "ID", requires = "into", default_value_t = 1)]
    into_publisher: u64,
    /// Put this in front of each topic: PREFIX.TOPIC
    #[arg(long, value_name = "PREFIX", requires = "into")]
    into_prefix: Option<String>,
}

impl IntoOptions {
    /// Whether another relay was named.
    pub(super) const fn is_asked(&self) -> bool {
        !self.into.is_empty()
    }

    /// Logs on there.
    pub(super) fn connect(
        &self,
        give_up_after: f64,
        is_verbose: bool,
    ) -> Result<OtherRelay, Failure> {
        let from_environment = |name: &str| std::env::var(name).ok();
        let options = ConnectOptions {
            address: self.into.clone(),
            credential: self
                .into_credential
                .clone()
                .or_else(|| from_environment("RELAY_INTO_CREDENTIAL")),
            secret: match &self.into_secret_file {
                Some(_) => None,
                None => from_environment("RELAY_INTO_SECRET"),
            },
            secret_file: self.into_secret_file.clone(),
            stream: 0,
            give_up_after,
        };
        if options.credential.is_none() {
            return missing(
                "a credential",
                "--into-credential NAME",
                "RELAY_INTO_CREDENTIAL",
            );
        }
        if options.secret.is_none() && options.secret_file.is_none() {
            return missing("a secret", "--into-secret-file FILE", "RELAY_INTO_SECRET");
        }
        if self.into_publisher == 0 {
            let text = "publisher ids start at 1; give --into-publisher 1 or more";
            return Err(Failure::Usage(text.into()));
        }
        let config = options.resolve()?.publisher(self.into_publisher);
        Ok(OtherRelay {
            publisher: Publisher::connect(config)?,
            prefix: self.into_prefix.clone(),
            topics: HashMap::new(),
            extension: Vec::new(),
            sent: 0,
            rejected: 0,
            is_verbose,
        })
    }
}

fn missing(what: &str, option: &str, variable: &str) -> Result<OtherRelay, Failure> {
    Err(Failure::Usage(format!(
        "{what} for the other relay is needed; give {option} or set {variable}"
    )))
}

/// A publisher of the other relay.
pub(super) struct OtherRelay {
    publisher: Publisher,
    prefix: Option<String>,
    topics: HashMap<String, TopicId>,
    extension: Vec<u8>,
    sent: u64,
    rejected: u64,
    is_verbose: bool,
}

impl OtherRelay {
    /// Queues a message, and waits for room if there is none.
    pub(super) fn send(
        &mut self,
        delivery: &Delivery<'_>,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let record = &delivery.record;
        let topic = match self.topics.get(delivery.topic) {
            Some(topic) => *topic,
            None => self.topic(delivery.topic)?,
        };
        self.extension.clear();
        self.extension.extend_from_slice(record.extension());
        if Original::find(record.extension()).is_none()
            && !Original::here(record).push(&mut self.extension)
        {
            return Err(Failure::Failed(format!(
                "seq {} has no room for its identity beside its other extensions; leave it out with \
                 --topic or --to",
                record.seq()
            )));
        }
        let mut message = OutMessage::new(topic, record.payload());
        message.key_hash = record.header().key_hash.get();
        message.origin_time_ns = record.header().origin_time_ns.get();
        message.extension = &self.extension;
        loop {
            match self.publisher.try_send(&message) {
                Ok(_) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err(TrySendError::Full) => {
                    interrupt.check()?;
                    self.publisher.wait_released(PAUSE)?;
                    see_events(&mut self.publisher, &mut self.rejected, self.is_verbose);
                }
                Err(TrySendError::Closed(error)) => return Err(error.into()),
                Err(error) => {
                    return Err(Failure::Failed(format!(
                        "seq {} of {} bytes: {error}",
                        record.seq(),
                        record.payload().len()
                    )));
                }
            }
        }
    }

    fn topic(&mut self, name: &str) -> Result<TopicId, Failure> {
        let there = match &self.prefix {
            Some(prefix) => format!("{prefix}.{name}"),
            None => name.to_owned(),
        };
        let topic = self.publisher.topic(&there)?;
        self.topics.insert(name.to_owned(), topic);
        Ok(topic)
    }

    /// Writes what is queued, reads what came, answers heartbeats.
    pub(super) fn poll(&mut self) -> Result<(), Failure> {
        self.publisher.poll()?;
        see_events(&mut self.publisher, &mut self.rejected, self.is_verbose);
        Ok(())
    }

    /// Waits until everything is released there.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        while !self.publisher.wait_released(LOOK)? {
            interrupt.check()?;
            see_events(&mut self.publisher, &mut self.rejected, self.is_verbose);
        }
        see_events(&mut self.publisher, &mut self.rejected, self.is_verbose);
        let released = self.publisher.acked_through().get();
        self.publisher.close()?;
        if self.rejected > 0 {
            return Err(Failure::Failed(format!(
                "the other relay refused {} of {} messages for good, {released} are released there; run \
                 with --verbose to see why",
                self.rejected, self.sent
            )));
        }
        Ok(())
    }
}

fn see_events(publisher: &mut Publisher, rejected: &mut u64, is_verbose: bool) {
    while let Some(event) = publisher.next_event() {
        let text = match event {
            PublisherEvent::Rejected {
                publisher_seq,
                code,
                text,
            } => {
                *rejected += 1;
                format!("message {publisher_seq} refused: {code:?}: {text}")
            }
            PublisherEvent::Disconnected { reason } => format!("connection lost: {reason}"),
            PublisherEvent::Held(held) => format!("held: {held:?}"),
            _ => continue,
        };
        if is_verbose {
            eprintln!("relay: the other relay: {text}");
        }
    }
}
