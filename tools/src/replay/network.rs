//! Messages to a TCP or UDP address.

use std::io::{BufWriter, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use relay_client::Delivery;
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::{Failure, Interrupt};
use crate::rendering::Rendering;

/// Bytes that wait before they are written to a connection.
const BUFFER: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A receiver that keeps its end open and says nothing for so long is left; one that goes on saying something, after so long.
const SILENCE: Duration = Duration::from_secs(2);
const LEAVE_AFTER: Duration = Duration::from_secs(30);

/// How many bytes of length stand in front of what is written to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LengthPrefix {
    /// Two bytes, big-endian.
    #[value(name = "2")]
    Two,
    /// Four bytes, big-endian.
    #[value(name = "4")]
    Four,
}

impl LengthPrefix {
    /// Puts the length of what `line` has behind `start` in front of it.
    pub(super) fn put(self, line: &mut [u8], start: usize) -> Result<(), String> {
        let width = self.width();
        let length = line.len() - start - width;
        let most = (1_usize << (8 * width)) - 1;
        if length > most {
            return Err(format!(
                "{length} bytes are more than a prefix of {width} bytes can say; give \
                 --length-prefix 4, or leave it out"
            ));
        }
        let bytes = (length as u32).to_be_bytes();
        line[start..start + width].copy_from_slice(&bytes[4 - width..]);
        Ok(())
    }

    pub(super) const fn width(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

fn resolve(address: &str, option: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Failure::Usage(format!("{option} {address}: no address"))),
        Err(error) => Err(Failure::Usage(format!(
            "{option} {address}: {error}; write HOST:PORT"
        ))),
    }
}

/// Connects, without waiting for the kernel to collect small writes.
pub(super) fn connect(address: &str) -> Result<BufWriter<TcpStream>, Failure> {
    let found = resolve(address, "--to-tcp")?;
    let stream = TcpStream::connect_timeout(&found, CONNECT_TIMEOUT).map_err(|error| {
        Failure::Refused(format!(
            "connecting to {found}: {error}; see who listens there"
        ))
    })?;
    stream
        .set_nodelay(true)
        .map_err(|error| Failure::Failed(format!("setting up the connection: {error}")))?;
    Ok(BufWriter::with_capacity(BUFFER, stream))
}

/// A socket that sends one datagram for each message.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    address: SocketAddr,
    rendering: Rendering,
    datagram: Vec<u8>,
}

impl Datagrams {
    /// A socket to `address`, which may be a multicast group: then `interface` is the address of the interface it leaves by,
    /// and `ttl` says how many routers it may pass.
    pub(super) fn open(
        address: &str,
        interface: Option<Ipv4Addr>,
        ttl: Option<u32>,
        rendering: Rendering,
    ) -> Result<Self, Failure> {
        let address = resolve(address, "--to-udp")?;
        if !address.ip().is_multicast() && (interface.is_some() || ttl.is_some()) {
            return Err(Failure::Usage(format!(
                "--interface and --ttl are for multicast groups, which {address} is none of"
            )));
        }
        let socket = open_socket(address, interface, ttl)
            .map_err(|error| Failure::Failed(format!("opening a socket to {address}: {error}")))?;
        Ok(Self {
            socket,
            address,
            rendering,
            datagram: Vec::new(),
        })
    }

    pub(super) fn send(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        self.datagram.clear();
        self.rendering.write(&mut self.datagram, delivery);
        let sent = self.socket.send_to(&self.datagram, self.address);
        sent.map(drop).map_err(|error| {
            let advice = match error.raw_os_error() {
                Some(libc::EMSGSIZE) => {
                    "; it is too long for a datagram, use --to-tcp, or leave it out with --topic \
                     or --to"
                }
                Some(libc::ENETUNREACH) if self.address.ip().is_multicast() => {
                    "; no route leads to the group, give the address of the interface to use with \
                     --interface"
                }
                _ => "",
            };
            Failure::Failed(format!(
                "sending seq {} of {} bytes to {}: {error}{advice}",
                delivery.record.seq(),
                self.datagram.len(),
                self.address
            ))
        })
    }
}

fn open_socket(
    address: SocketAddr,
    interface: Option<Ipv4Addr>,
    ttl: Option<u32>,
) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // A burst goes out at once; the default holds a few hundred small datagrams.
    socket.set_send_buffer_size(4 << 20)?;
    if let IpAddr::V4(_) = address.ip()
        && address.ip().is_multicast()
    {
        socket.set_multicast_ttl_v4(ttl.unwrap_or(1))?;
        if let Some(interface) = interface {
            socket.set_multicast_if_v4(&interface)?;
        }
    }
    Ok(socket.into())
}

/// Ends a connection so that everything written arrives: to close it while something that the receiver sent was not read would throw
/// away what it has not taken. It is read until the receiver closes its end, or is left for keeping it open.
pub(super) fn finish(mut out: BufWriter<TcpStream>, interrupt: &Interrupt) -> std::io::Result<()> {
    out.flush()?;
    let mut socket = out.get_ref();
    socket.shutdown(Shutdown::Write)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut not_wanted = [0; 4096];
    let begun = Instant::now();
    while begun.elapsed() < LEAVE_AFTER && !interrupt.is_set() {
        match socket.read(&mut not_wanted) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_the_length_behind_it() {
        let mut line = b"x\0\0\0\0abc".to_vec();
        LengthPrefix::Four.put(&mut line, 1).expect("it fits");
        assert_eq!(line, b"x\0\0\0\x03abc");
        let mut line = vec![0; 2 + 65_536];
        assert!(LengthPrefix::Two.put(&mut line, 0).is_err());
        line.pop();
        LengthPrefix::Two.put(&mut line, 0).expect("it fits");
        assert_eq!(line[..2], [0xff, 0xff]);
    }

    #[test]
    fn a_group_takes_interface_and_ttl() {
        let group = "239.192.0.1:30000".parse().expect("an address");
        let socket = open_socket(group, Some(Ipv4Addr::LOCALHOST), Some(7)).expect("opened");
        assert_eq!(socket.multicast_ttl_v4().expect("asked"), 7);
        let socket = open_socket(group, None, None).expect("opened");
        assert_eq!(socket.multicast_ttl_v4().expect("asked"), 1);
        let error = Datagrams::open("127.0.0.1:9", None, Some(2), Rendering::Raw);
        assert!(matches!(error, Err(Failure::Usage(_))));
    }
}
