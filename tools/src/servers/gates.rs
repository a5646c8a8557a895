//! Proxies on every way into and out of each node, so that a node can be cut off as the loss of its host would do it.
//!
//! ```text
//!   clients ---> gate ---> node 1        node 1 ---> gate ---> node 2's mirror port
//!                                        node 1 ---> gate ---> witness
//! ```
//!
//! A gate that is shut takes nothing from either side any more and resets nothing: who sends sees no error, who waits hears
//! nothing, and who connects gets no answer, not even from the kernel. What was on its way waits, as it would for a
//! retransmission, and goes on when the gate opens again; connections that were given up meanwhile are closed then. So all
//! that tells a node's peers and clients of the loss is silence.
//!
//! It deliberately has no delays, losses or limits of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::exit::Failure;

/// Bytes handed on at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// A queue of connections that takes no more for so long is full.
const FULL_AFTER: Duration = Duration::from_millis(20);
/// Most attempts to fill one: the thread that accepts holds one connection, the shortest queue there is one or two.
const FILLERS_MAX: usize = 8;
/// How long that thread may take to get there.
const HELD_WAIT: Duration = Duration::from_secs(10);

/// All gates of a cluster.
#[derive(Debug, Default)]
pub(super) struct Gates(Vec<Gate>);

/// One proxy.
#[derive(Debug)]
struct Gate {
    /// Nodes at its two ends, by place; `None` for clients and the witness, which are never cut off.
    ends: [Option<usize>; 2],
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Connections that keep the queue full while it is shut.
    fillers: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    listener: Socket,
    upstream: SocketAddr,
    is_open: Mutex<bool>,
    opened: Condvar,
    /// The thread that accepts holds a connection and waits until the gate is open.
    is_held: Mutex<bool>,
    held: Condvar,
    is_over: AtomicBool,
}

impl Gates {
    /// Adds a gate to `upstream`; where it listens.
    pub(super) fn add(
        &mut self,
        ends: [Option<usize>; 2],
        upstream: SocketAddr,
    ) -> Result<SocketAddr, Failure> {
        let gate = Gate::new(ends, upstream)
            .map_err(|error| Failure::Failed(format!("making a proxy: {error}")))?;
        let address = gate.address;
        self.0.push(gate);
        Ok(address)
    }

    /// Shuts every gate of the node at `place`.
    pub(super) fn cut(&mut self, place: usize) {
        let of_node = |gate: &&mut Gate| gate.ends.contains(&Some(place));
        // First of all nothing passes any more, then nobody connects any more.
        for gate in self.0.iter_mut().filter(of_node) {
            *gate.shared.is_open() = false;
        }
        for gate in self.0.iter_mut().filter(of_node) {
            gate.fill();
        }
    }

    /// Opens them again.
    pub(super) fn heal(&mut self, place: usize) {
        for gate in &mut self.0 {
            if gate.ends.contains(&Some(place)) {
                gate.open();
            }
        }
    }
}

impl Gate {
    fn new(ends: [Option<usize>; 2], upstream: SocketAddr) -> std::io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        listener.bind(&SockAddr::from(any_port))?;
        listener.listen(BACKLOG)?;
        let address = listener.local_addr()?.as_socket();
        let address = address.expect("it was bound to one");
        let shared = Arc::new(Shared {
            listener,
            upstream,
            is_open: Mutex::new(true),
            opened: Condvar::new(),
            is_held: Mutex::new(false),
            held: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("gate".into())
            .spawn(move || accepting.accept())?;
        Ok(Self {
            ends,
            address,
            shared,
            fillers: Vec::new(),
        })
    }

    /// Leaves no room in the queue, so that the kernel drops whoever else wants to connect.
    fn fill(&mut self) {
        // A refusal only means that connections are answered, and then not served.
        let _ = self.shared.listener.listen(0);
        for _ in 0..FILLERS_MAX {
            match TcpStream::connect_timeout(&self.address, FULL_AFTER) {
                Ok(filler) => self.fillers.push(filler),
                // No more is taken out of the queue now, so it stays full.
                Err(_) if self.shared.is_held() => return,
                Err(_) => {}
            }
            self.shared.wait_until_held();
        }
    }

    fn open(&mut self) {
        self.fillers.clear();
        let _ = self.shared.listener.listen(BACKLOG);
        *self.shared.is_open() = true;
        self.shared.opened.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.open();
        // Wakes the thread that accepts; if that fails, it ends with the process.
        let _ = TcpStream::connect_timeout(&self.address, FULL_AFTER);
    }
}

impl Shared {
    fn is_open(&self) -> MutexGuard<'_, bool> {
        self.is_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_open(&self) {
        let mut is_open = self.is_open();
        while !*is_open {
            is_open = self
                .opened
                .wait(is_open)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_held(&self) -> bool {
        *self.is_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_held(&self, is_held: bool) {
        *self.is_held.lock().unwrap_or_else(PoisonError::into_inner) = is_held;
        self.held.notify_all();
    }

    fn wait_until_held(&self) {
        let is_held = self.is_held.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |is_held: &mut bool| !*is_held;
        // Where it takes longer the gate is shut all the same, and answers without serving.
        drop(self.held.wait_timeout_while(is_held, HELD_WAIT, waiting));
    }

    fn accept(self: Arc<Self>) {
        loop {
            let accepted = self.listener.accept();
            if !*self.is_open() {
                self.set_held(true);
                self.wait_until_open();
                self.set_held(false);
            }
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            if let Ok((client, _)) = accepted {
                self.connect(client.into());
            }
        }
    }

    /// Joins a client with a connection of its own to the other side. Where there is none, the client is let go.
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.upstream) else {
            return;
        };
        let both = [&client, &server].map(|socket| {
            let _ = socket.set_nodelay(true);
            socket.try_clone()
        });
        let [Ok(client_again), Ok(server_again)] = both else {
            return;
        };
        for (from, to) in [(client, server), (server_again, client_again)] {
            let shared = Arc::clone(self);
            let pumping = thread::Builder::new().name("gate-pump".into());
            // Without a thread both ends are dropped, which closes the connection.
            let _ = pumping.spawn(move || shared.pump(from, to));
        }
    }

    /// Hands on what comes, while the gate is open; in the end the end.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = from.read(&mut piece);
            self.wait_until_open();
            let (length, ended) = match read {
                Ok(0) => (0, Some(Shutdown::Write)),
                Ok(length) => (length, None),
                Err(_) => (0, Some(Shutdown::Both)),
            };
            if let Some(how) = ended {
                // It may be closed already.
                let _ = to.shutdown(how);
                return;
            }
            if to.write_all(&piece[..length]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// A test that nothing happens can only wait for a while.
    const A_WHILE: Duration = Duration::from_millis(100);

    fn read(socket: &mut TcpStream, wait: Duration) -> Result<Vec<u8>, ErrorKind> {
        socket.set_read_timeout(Some(wait)).expect("a time");
        let mut bytes = [0; 64];
        let read = socket.read(&mut bytes);
        read.map(|length| bytes[..length].to_vec())
            .map_err(|error| error.kind())
    }

    /// Shut, it lets nothing through and says nothing; open again, all that was sent arrives.
    #[test]
    fn a_node_that_is_cut_off_is_silent_and_nothing_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut gates = Gates::default();
        let upstream = listener.local_addr().expect("an address");
        let address = gates.add([None, Some(1)], upstream).expect("a gate");
        let mut client = TcpStream::connect(address).expect("a connection");
        let (mut server, _) = listener.accept().expect("a connection");
        client.write_all(b"before").expect("written");
        assert_eq!(read(&mut server, PATIENCE), Ok(b"before".to_vec()));

        gates.cut(0);
        client.write_all(b"another node").expect("written");
        assert_eq!(read(&mut server, PATIENCE), Ok(b"another node".to_vec()));

        gates.cut(1);
        client.write_all(b"lost?").expect("written");
        server.write_all(b"answer").expect("written");
        assert_eq!(read(&mut server, A_WHILE), Err(ErrorKind::WouldBlock));
        assert_eq!(read(&mut client, A_WHILE), Err(ErrorKind::WouldBlock));
        let attempt = TcpStream::connect_timeout(&address, A_WHILE);
        assert_eq!(attempt.expect_err("no answer").kind(), ErrorKind::TimedOut);

        gates.heal(1);
        assert_eq!(read(&mut server, PATIENCE), Ok(b"lost?".to_vec()));
        assert_eq!(read(&mut client, PATIENCE), Ok(b"answer".to_vec()));
        assert!(TcpStream::connect_timeout(&address, PATIENCE).is_ok());
        drop(client);
        assert_eq!(read(&mut server, PATIENCE), Ok(Vec::new()));
    }
}
