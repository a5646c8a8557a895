//! Bytes on their way in from one socket: a receive buffer and the one receive in flight.
//!
//! ```text
//!   0 ...... start ======== end ------------- capacity
//!            unread bytes    the receive in flight writes here
//! ```
//!
//! Invariants: at most one receive is in flight; while it is, only bytes before `end` are touched
//! and nothing moves. When the buffer is full no receive is armed, so TCP holds the sender back.

use io_uring::{opcode, types};

use crate::buffer::Buffer;
use crate::error::FloorError;
use crate::ring::Ring;

/// io_uring's IORING_RECVSEND_POLL_FIRST: wait for readiness before the first attempt.
const POLL_FIRST: u16 = 1;

/// How a receive that finds nothing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It waits in the kernel until there is something: nothing to do meanwhile.
    Kernel,
    /// It ends, and is asked for anew with the next turn: for a thread that spins anyway, and so is spared the kernel's way
    /// from the waiting socket back to the ring.
    Polled,
}

/// The receiving half of a socket.
pub(crate) struct Inbound {
    buffer: Buffer,
    file: u32,
    user_data: u64,
    waiting: Waiting,
    start: usize,
    end: usize,
    armed: bool,
    ended: bool,
}

impl Inbound {
    /// Receives from registered file `file`; completions carry `user_data`.
    pub(crate) fn new(
        file: u32,
        user_data: u64,
        capacity: usize,
        waiting: Waiting,
    ) -> Result<Self, FloorError> {
        Ok(Inbound {
            buffer: Buffer::new(capacity)?,
            file,
            user_data,
            waiting,
            start: 0,
            end: 0,
            armed: false,
            ended: false,
        })
    }

    /// The bytes received and not consumed.
    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        self.buffer.slice(self.start..self.end)
    }

    /// Forgets the first `len` unread bytes.
    #[inline]
    pub(crate) fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "more consumed than received");
        self.start += len;
    }

    /// Queues a receive if none is in flight and there is room.
    #[inline]
    pub(crate) fn arm(&mut self, ring: &mut Ring) {
        if self.armed || self.ended {
            return;
        }
        self.make_room();
        let room = self.buffer.len() - self.end;
        if room == 0 {
            return;
        }
        let address = self.buffer.address(self.end);
        let receive = opcode::Recv::new(types::Fixed(self.file), address, room as u32);
        let receive = match self.waiting {
            Waiting::Kernel => receive.ioprio(POLL_FIRST),
            Waiting::Polled => receive.flags(libc::MSG_DONTWAIT),
        };
        let entry = receive.build().user_data(self.user_data);
        // SAFETY: the range from `end` to the capacity is left alone until `complete`, and the
        // buffer outlives the ring or is abandoned.
        unsafe { ring.push(&entry) };
        self.armed = true;
    }

    /// Takes the result of the receive. A socket that ended or failed is not read again.
    #[inline]
    pub(crate) fn complete(&mut self, result: i32) {
        assert!(self.armed, "a receive ended that was never armed");
        self.armed = false;
        match result {
            1.. => {
                self.end += result as usize;
                assert!(self.end <= self.buffer.len(), "received past the buffer");
            }
            _ if result == -libc::EINTR || result == -libc::EAGAIN => {}
            _ => self.ended = true,
        }
    }

    /// See [`Buffer::abandon`].
    pub(crate) fn abandon(&mut self) {
        self.buffer.abandon();
    }

    /// Moves the unread bytes to the front when little room is left behind them.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < self.start {
            let unread = self.end - self.start;
            self.buffer
                .slice_mut(0..self.end)
                .copy_within(self.start.., 0);
            (self.start, self.end) = (0, unread);
        }
    }
}
