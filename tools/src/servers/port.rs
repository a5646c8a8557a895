//! Addresses on loopback that are known before the one that will listen there is started.

use std::net::SocketAddr;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::exit::Failure;

/// A port that is kept for whoever is started to listen on it, again and again, as long as this lives.
///
/// It is bound here and never listened on. With `SO_REUSEADDR` on both sides, as relayd has it, the kernel lets another
/// socket listen there, and gives the port to nobody who asks for any: neither to another listener nor to an outgoing
/// connection, which could otherwise meet itself while the relay restarts.
#[derive(Debug)]
pub(super) struct KeptPort {
    _bound: Socket,
    address: SocketAddr,
}

impl KeptPort {
    /// Takes a port that nobody has.
    pub(super) fn any() -> Result<Self, Failure> {
        let bind = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
            socket.bind(&SockAddr::from(any_port))?;
            let address = socket.local_addr()?.as_socket();
            Ok((socket, address.expect("it was bound to one")))
        };
        let (bound, address) = bind().map_err(|error: std::io::Error| {
            Failure::Failed(format!("finding a free port: {error}"))
        })?;
        Ok(Self {
            _bound: bound,
            address,
        })
    }

    /// Where to listen.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn one_listens_on_a_kept_port_again_and_again() {
        let kept = KeptPort::any().expect("a port");
        for _ in 0..3 {
            // The standard library sets SO_REUSEADDR.
            let listener = TcpListener::bind(kept.address()).expect("the port is ours");
            let client = TcpStream::connect(kept.address()).expect("somebody listens");
            let (server, _) = listener.accept().expect("a client");
            drop((listener, server, client));
            TcpStream::connect(kept.address()).expect_err("nobody listens");
        }
    }

    #[test]
    fn nobody_else_is_given_it() {
        let kept: Vec<_> = (0..64).map(|_| KeptPort::any().expect("a port")).collect();
        let mut addresses: Vec<_> = kept.iter().map(KeptPort::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), kept.len());
    }
}
