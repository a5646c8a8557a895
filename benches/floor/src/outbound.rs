//! Bytes on their way out to one socket: a circular buffer and the one send in flight.
//!
//! Positions count bytes since the start and never wrap. `head` is what the socket has taken,
//! `tail` what was pushed. An empty buffer begins again at its front, where the cache is warm.
//!
//! Invariants: at most one send (or, when the socket is full, one wait for room) is in flight;
//! bytes from `head` to `tail` are not overwritten; the owner asks for [`Outbound::room`] before it
//! pushes, so nothing is ever dropped here except after the socket failed.

use io_uring::{opcode, types};

use crate::buffer::Buffer;
use crate::error::FloorError;
use crate::ring::Ring;

/// What the socket is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A send is in flight.
    Sending,
    /// The last send found the socket full.
    Full,
    /// A wait for room is in flight.
    Waiting,
    /// The socket failed or the peer closed; pushes are discarded.
    Closed,
}

/// The sending half of a socket.
pub(crate) struct Outbound {
    buffer: Buffer,
    file: u32,
    user_data: u64,
    head: u64,
    tail: u64,
    /// The position that lies at the front of the buffer.
    front: u64,
    state: State,
}

impl Outbound {
    /// Sends to registered file `file`; completions carry `user_data`.
    pub(crate) fn new(file: u32, user_data: u64, capacity: usize) -> Result<Self, FloorError> {
        Ok(Outbound {
            buffer: Buffer::new(capacity)?,
            file,
            user_data,
            head: 0,
            tail: 0,
            front: 0,
            state: State::Idle,
        })
    }

    /// Bytes that may be pushed now.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.buffer.len() - (self.tail - self.head) as usize
    }

    /// Position after everything the socket has taken.
    #[inline]
    pub(crate) fn taken(&self) -> u64 {
        self.head
    }

    /// Appends bytes for which there is room; returns the position after them.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> u64 {
        if self.state == State::Closed {
            return self.tail;
        }
        assert!(bytes.len() <= self.room(), "pushed past the room");
        if self.head == self.tail {
            self.front = self.tail;
        }
        let at = self.place(self.tail);
        let first = bytes.len().min(self.buffer.len() - at);
        self.buffer
            .slice_mut(at..at + first)
            .copy_from_slice(&bytes[..first]);
        let rest = bytes.len() - first;
        self.buffer
            .slice_mut(0..rest)
            .copy_from_slice(&bytes[first..]);
        self.tail += bytes.len() as u64;
        self.tail
    }

    /// Queues a send of what is there, or a wait if the socket was full.
    #[inline]
    pub(crate) fn arm(&mut self, ring: &mut Ring) {
        let file = types::Fixed(self.file);
        let entry = match self.state {
            State::Idle if self.head < self.tail => {
                let at = self.place(self.head);
                let len = ((self.tail - self.head) as usize).min(self.buffer.len() - at);
                self.state = State::Sending;
                opcode::Send::new(file, self.buffer.address(at), len as u32)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    .build()
            }
            State::Full => {
                self.state = State::Waiting;
                opcode::PollAdd::new(file, libc::POLLOUT as u32).build()
            }
            _ => return,
        };
        // SAFETY: the bytes sent lie between `head` and `tail`, which nothing overwrites before
        // `complete` moves `head`; the buffer outlives the ring or is abandoned.
        unsafe { ring.push(&entry.user_data(self.user_data)) };
    }

    /// Takes the result of the send or of the wait.
    #[inline]
    pub(crate) fn complete(&mut self, result: i32) {
        self.state = match (self.state, result) {
            (State::Sending, 1..) => {
                self.head += result as u64;
                assert!(self.head <= self.tail, "sent more than was pushed");
                State::Idle
            }
            (State::Sending, _) if result == -libc::EAGAIN => State::Full,
            (State::Sending, _) if result == -libc::EINTR => State::Idle,
            (State::Waiting, 0..) => State::Idle,
            (State::Sending | State::Waiting, _) => {
                self.head = self.tail;
                State::Closed
            }
            (state, _) => panic!("a completion while {state:?}"),
        };
    }

    /// See [`Buffer::abandon`].
    pub(crate) fn abandon(&mut self) {
        self.buffer.abandon();
    }

    fn place(&self, position: u64) -> usize {
        ((position - self.front) % self.buffer.len() as u64) as usize
    }
}
