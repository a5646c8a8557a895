//! Publishes message after message, and sets a mark in the write log each time more of them are acknowledged.

use std::time::{Duration, Instant};

use clap::Args;
use relay_client::{Credential, OutMessage, Publisher, PublisherConfig};

use super::{MARK, Outcome, payload, run as run_program};

/// How long the relay may take for everything.
const LIMIT: Duration = Duration::from_secs(300);

/// Options of `power-cut load`.
#[derive(Debug, Args)]
pub(super) struct LoadOptions {
    /// Where the relay listens
    #[arg(long)]
    address: String,
    /// Name of the publisher's credential, with id 1
    #[arg(long)]
    name: String,
    /// Its secret
    #[arg(long)]
    secret: String,
    /// Name of the dm-log-writes device
    #[arg(long)]
    device: String,
    /// Messages
    #[arg(long)]
    count: u64,
    /// Most messages that are not acknowledged
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 256)]
    size: usize,
}

/// Runs the command.
pub(super) fn run(options: &LoadOptions) -> Outcome<()> {
    let secret = options.secret.clone().into_bytes();
    let name = options.name.clone();
    let credential = Credential { name, secret };
    let config = PublisherConfig::new(vec![options.address.clone()], credential, 1);
    let mut publisher = Publisher::connect(config).map_err(|error| error.to_string())?;
    let topic = publisher
        .topic("power.cut")
        .map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let (mut sent, mut marked) = (0, 0);
    while marked < options.count {
        if sent < options.count && publisher.unacknowledged() < options.window {
            let bytes = payload(sent + 1, options.size);
            match publisher.try_send(&OutMessage::new(topic, &bytes)) {
                Ok(_) => sent += 1,
                Err(error) => return Err(format!("message {}: {error:?}", sent + 1)),
            }
        }
        publisher.poll().map_err(|error| error.to_string())?;
        while publisher.next_event().is_some() {}
        let acknowledged = publisher.acked_through().get();
        if acknowledged > marked {
            marked = acknowledged;
            let mark = format!("{MARK}{marked}");
            run_program("dmsetup", &["message", &options.device, "0", "mark", &mark])?;
        }
        if begun.elapsed() > LIMIT {
            return Err(format!(
                "{marked} of {} messages are acknowledged",
                options.count
            ));
        }
    }
    println!("{marked} messages acknowledged");
    Ok(())
}
