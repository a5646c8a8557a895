//! Where a replay goes: one closed set, each told message by message.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::net::TcpStream;

use relay_client::Delivery;

use super::into::OtherRelay;
use super::network::{self, Datagrams, LengthPrefix};
use crate::exit::{Failure, Interrupt};
use crate::export::Capture;
use crate::rendering::Rendering;

/// A place; see the module.
pub(super) enum Target {
    /// Standard output.
    Stdout(BufWriter<StdoutLock<'static>>, Lines),
    /// A connection to an address.
    Tcp(BufWriter<TcpStream>, Lines),
    /// A UDP address or group.
    Udp(Datagrams),
    /// Another relay.
    Into(Box<OtherRelay>),
    /// A pcap file.
    Capture(Box<Capture>),
    /// Nowhere: only counted.
    Nowhere,
}

/// How messages are laid out one behind the other.
pub(super) struct Lines {
    rendering: Rendering,
    prefix: Option<LengthPrefix>,
    line: Vec<u8>,
}

impl Lines {
    pub(super) const fn new(rendering: Rendering, prefix: Option<LengthPrefix>) -> Self {
        Self {
            rendering,
            prefix,
            line: Vec::new(),
        }
    }

    fn lay_out(&mut self, delivery: &Delivery<'_>) -> Result<&[u8], Failure> {
        self.line.clear();
        let width = self.prefix.map_or(0, LengthPrefix::width);
        self.line.resize(width, 0);
        self.rendering.write(&mut self.line, delivery);
        if let Some(prefix) = self.prefix {
            prefix.put(&mut self.line, 0).map_err(|error| {
                Failure::Failed(format!("seq {}: {error}", delivery.record.seq()))
            })?;
        }
        Ok(&self.line)
    }
}

fn connection_lost(error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "the connection of --to-tcp is lost: {error}; see why its other end closed it"
    ))
}

impl Target {
    /// Takes a message; it may wait here until [`Target::flush`].
    pub(super) fn send(
        &mut self,
        delivery: &Delivery<'_>,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        match self {
            Self::Stdout(out, lines) => out
                .write_all(lines.lay_out(delivery)?)
                .map_err(|error| Failure::output(&error)),
            Self::Tcp(out, lines) => out
                .write_all(lines.lay_out(delivery)?)
                .map_err(|error| connection_lost(&error)),
            Self::Udp(datagrams) => datagrams.send(delivery),
            Self::Into(other) => other.send(delivery, interrupt),
            Self::Capture(capture) => capture.add(delivery),
            Self::Nowhere => Ok(()),
        }
    }

    /// Sends off what waits.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Stdout(out, _) => out.flush().map_err(|error| Failure::output(&error)),
            Self::Tcp(out, _) => out.flush().map_err(|error| connection_lost(&error)),
            Self::Into(other) => other.poll(),
            Self::Udp(_) | Self::Capture(_) | Self::Nowhere => Ok(()),
        }
    }

    /// Does what must be done while nothing is due.
    pub(super) fn idle(&mut self) -> Result<(), Failure> {
        match self {
            Self::Into(other) => other.poll(),
            _ => Ok(()),
        }
    }

    /// Whether messages go to standard output.
    pub(super) const fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout(..))
    }

    /// Ends it after a failure: what it took is sent off as far as that goes, a capture is not left half.
    pub(super) fn abandon(mut self, interrupt: &Interrupt) {
        // The failure that led here is the one that is told.
        let _ = match self {
            Self::Into(other) => other.finish(interrupt),
            _ => self.flush(),
        };
    }

    /// Brings it to its end.
    pub(super) fn finish(self, interrupt: &Interrupt) -> Result<(), Failure> {
        match self {
            Self::Stdout(mut out, _) => out.flush().map_err(|error| Failure::output(&error)),
            Self::Tcp(out, _) => {
                network::finish(out, interrupt).map_err(|error| connection_lost(&error))
            }
            Self::Into(other) => other.finish(interrupt),
            Self::Capture(capture) => capture.finish(),
            Self::Udp(_) | Self::Nowhere => Ok(()),
        }
    }
}
