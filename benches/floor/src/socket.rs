//! Loopback TCP: connected pairs, and sends and receives that never wait.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::error::FloorError;

/// Bound on connecting over loopback.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Two ends of one TCP connection on 127.0.0.1, both without Nagle's delay.
pub(crate) struct Pair {
    /// The end that connected.
    pub(crate) near: TcpStream,
    /// The end that accepted.
    pub(crate) far: TcpStream,
}

/// Connects a pair.
pub(crate) fn connected_pair() -> Result<Pair, FloorError> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(at("create"))?;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener
        .bind(&SockAddr::from(any_port))
        .map_err(at("bind 127.0.0.1"))?;
    listener.listen(1).map_err(at("listen"))?;
    let address = listener.local_addr().map_err(at("local address"))?;
    let near = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(at("create"))?;
    near.connect_timeout(&address, CONNECT_WAIT)
        .map_err(at("connect"))?;
    listener
        .set_read_timeout(Some(CONNECT_WAIT))
        .map_err(at("accept timeout"))?;
    let (far, peer) = listener.accept().map_err(at("accept"))?;
    let expected = near.local_addr().map_err(at("local address"))?;
    if peer.as_socket() != expected.as_socket() {
        let stranger = io::Error::other("another process connected first");
        return Err(FloorError::Socket {
            stage: "accept",
            source: stranger,
        });
    }
    for end in [&near, &far] {
        end.set_tcp_nodelay(true).map_err(at("TCP_NODELAY"))?;
    }
    Ok(Pair {
        near: near.into(),
        far: far.into(),
    })
}

/// Sends what the socket takes now. `None` if it takes nothing.
#[inline]
pub(crate) fn send_now(socket: &TcpStream, bytes: &[u8]) -> Result<Option<usize>, FloorError> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and length are those of a live slice, only read during the call.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    };
    outcome(sent, "send")
}

/// Receives what the socket has now. `None` if it has nothing, `Some(0)` at its end.
#[inline]
pub(crate) fn receive_now(
    socket: &TcpStream,
    bytes: &mut [u8],
) -> Result<Option<usize>, FloorError> {
    // SAFETY: the pointer and length are those of a live slice borrowed mutably for the call.
    let got = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT,
        )
    };
    outcome(got, "receive")
}

/// Sleeps until one of `sockets` is readable or `timeout_ns` passed.
pub(crate) fn wait_readable<const N: usize>(sockets: [RawFd; N], timeout_ns: u64) {
    let mut polled = sockets.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    // An interrupted or refused wait is only a shorter one: the caller looks again either way.
    // SAFETY: the array and the timespec live through the call; no signal mask is given.
    unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            N as libc::nfds_t,
            &timeout,
            std::ptr::null(),
        )
    };
}

fn outcome(result: isize, stage: &'static str) -> Result<Option<usize>, FloorError> {
    if result >= 0 {
        return Ok(Some(result as usize));
    }
    let source = io::Error::last_os_error();
    match source.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
        _ => Err(FloorError::Socket { stage, source }),
    }
}

fn at(stage: &'static str) -> impl Fn(io::Error) -> FloorError {
    move |source| FloorError::Socket { stage, source }
}
