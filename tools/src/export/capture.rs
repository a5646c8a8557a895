//! Messages as the frames of a capture (`pcap/write.rs`): ports, addresses and what does not fit.

use std::path::Path;

use clap::Args;
use relay_client::Delivery;

use super::Place;
use crate::exit::Failure;
use crate::pcap::{CaptureWriter, Datagram, PAYLOAD_MAX};

/// Ports from here on are nobody's in particular: where publishers seem to send from.
const SOURCE_PORT_FIRST: u64 = 49_152;

/// How a capture is written, on the command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct CaptureOptions {
    /// In a capture, the port messages go to; without it the last level of the topic where that is one, as `--topic-per-port`
    /// makes it, else 30000
    #[arg(long, value_name = "PORT")]
    pcap_port: Option<u16>,
}

/// A capture being written.
pub(crate) struct Capture {
    writer: CaptureWriter<Place>,
    port: Option<u16>,
}

impl Capture {
    /// A capture that is to be a file at `path`.
    pub(crate) fn to_file(path: &Path, options: &CaptureOptions) -> Result<Self, Failure> {
        Self::to(Place::open(Some(path))?, options)
    }

    pub(super) fn to(place: Place, options: &CaptureOptions) -> Result<Self, Failure> {
        let writer = CaptureWriter::new(place)
            .map_err(|error| Failure::Failed(format!("writing the capture: {error}")))?;
        Ok(Self {
            writer,
            port: options.pcap_port,
        })
    }

    /// Adds a message.
    pub(crate) fn add(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        let record = &delivery.record;
        let payload = record.payload();
        if payload.len() > PAYLOAD_MAX {
            return Err(Failure::Failed(format!(
                "seq {} has {} bytes, a frame of a capture holds {PAYLOAD_MAX}; export it as JSON or \
                 CSV, or leave it out with --topic or --to",
                record.seq(),
                payload.len()
            )));
        }
        let publisher = record.publisher().get();
        let datagram = Datagram {
            time_ns: record.receive_time_ns(),
            publisher,
            topic: record.topic().get(),
            seq: record.seq().get(),
            source_port: (SOURCE_PORT_FIRST + publisher % (65_536 - SOURCE_PORT_FIRST)) as u16,
            port: self.port.unwrap_or_else(|| port_of(delivery.topic)),
            payload,
        };
        let written = self.writer.datagram(&datagram);
        written.map_err(|error| self.writer.out().failed(&error))
    }

    /// Completes it.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.writer.into_inner().finish()
    }
}

/// The port a topic names in its last level, or else 30000.
fn port_of(topic: &str) -> u16 {
    let last = topic.rsplit('.').next().unwrap_or_default();
    last.parse().ok().filter(|&port| port > 0).unwrap_or(30_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_may_name_the_port() {
        for (topic, port) in [
            ("feed.26400", 26_400),
            ("26400", 26_400),
            ("feed", 30_000),
            ("feed.0", 30_000),
            ("feed.70000", 30_000),
            ("26400.x", 30_000),
        ] {
            assert_eq!(port_of(topic), port, "{topic}");
        }
    }
}
