//! One io_uring for one thread: submissions, completions, and when to enter the kernel.
//!
//! Knows nothing of messages. An operation is named by an [`Op`]: which agent asked, what for, and a number of its own; it
//! comes back with the result. The ring is made on the thread that uses it (SINGLE_ISSUER), completions run when that
//! thread enters with GETEVENTS (DEFER_TASKRUN), and the enter is skipped when nothing is queued and the kernel has
//! announced no work.

use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};

/// Names an operation: agent, purpose, and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    /// Which agent asked.
    pub(crate) agent: u8,
    /// What for; the agent's own numbering.
    pub(crate) purpose: u8,
    /// The agent's own number.
    pub(crate) index: u32,
}

impl Op {
    const fn user_data(self) -> u64 {
        (self.agent as u64) << 56 | (self.purpose as u64) << 48 | self.index as u64
    }

    const fn from_user_data(data: u64) -> Self {
        Self { agent: (data >> 56) as u8, purpose: (data >> 48) as u8, index: data as u32 }
    }
}

/// A finished operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) op: Op,
    /// What the system call would return; errors as negative numbers.
    pub(crate) result: i32,
    /// Whether a multishot operation goes on.
    pub(crate) has_more: bool,
}

/// Why there is no ring.
#[derive(Debug)]
pub(crate) struct RingRefused(io::Error);

impl std::fmt::Display for RingRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hint = match self.0.raw_os_error() {
            Some(libc::EPERM) => {
                "the sysctl kernel.io_uring_disabled is 1 or 2 (set it to 0), or a container's \
                 seccomp profile denies io_uring_setup (allow io_uring_setup, io_uring_enter and \
                 io_uring_register)"
            }
            Some(libc::ENOSYS) => {
                "the kernel was built without io_uring or a seccomp profile hides it; a kernel of \
                 6.1 or later with CONFIG_IO_URING is needed"
            }
            Some(libc::EINVAL) => "the kernel is too old: 6.1 or later is needed",
            Some(libc::ENOMEM) => "raise the limit on locked memory (ulimit -l, LimitMEMLOCK)",
            _ => "see the error",
        };
        write!(f, "io_uring was refused ({}): {hint}", self.0)
    }
}

impl std::error::Error for RingRefused {}

/// See the module's description.
pub(crate) struct Ring {
    uring: IoUring,
    queued: usize,
    /// Operations handed to the kernel and not yet come back.
    pub(crate) in_flight: u64,
}

impl Ring {
    /// A ring with `entries` places for submissions, made by the thread that will use it.
    pub(crate) fn new(entries: u32) -> Result<Self, RingRefused> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries * 4)
            .build(entries)
            .map_err(RingRefused)?;
        Ok(Self { uring, queued: 0, in_flight: 0 })
    }

    /// Registers memory for fixed-buffer operations as buffer 0.
    ///
    /// # Safety
    /// The memory stays mapped as long as the ring lives.
    pub(crate) unsafe fn register_memory(&self, base: *mut u8, length: usize) -> io::Result<()> {
        let vector = libc::iovec { iov_base: base.cast(), iov_len: length };
        // SAFETY: that the memory outlives the ring is the caller's promise.
        unsafe { self.uring.submitter().register_buffers(&[vector]) }
    }

    /// Queues an operation; enters the kernel first if the queue is full.
    ///
    /// # Safety
    /// Memory the entry points at stays valid, and for operations that fill or read it later untouched, until the
    /// completion named `op` was reaped.
    pub(crate) unsafe fn push(&mut self, entry: Entry, op: Op) {
        let entry = entry.user_data(op.user_data());
        // SAFETY: that the entry's memory stays valid is the caller's promise.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.enter();
        }
        self.queued += 1;
        self.in_flight += 1;
    }

    /// Submits what is queued and lets the kernel finish what is ready; no system call if there is nothing of either.
    pub(crate) fn enter(&mut self) {
        let is_announced = self.uring.submission().taskrun();
        if self.queued == 0 && !is_announced {
            return;
        }
        let queued = self.uring.submission().len() as u32;
        // SAFETY: no argument structure is passed; the flag only asks to run finished work.
        let entered =
            unsafe { self.uring.submitter().enter::<()>(queued, 0, EnterFlags::GETEVENTS.bits(), None) };
        self.after_enter(entered);
    }

    /// As [`Ring::enter`], then sleeps until something completes or `timeout` has passed.
    pub(crate) fn park(&mut self, timeout: Duration) {
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        let entered = self.uring.submitter().submit_with_args(1, &arguments);
        self.after_enter(entered);
    }

    fn after_enter(&mut self, entered: io::Result<usize>) {
        self.queued = self.uring.submission().len();
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => {}
            // Interrupted, timed out, or the completion queue must be emptied first: all in the normal course.
            Err((Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => panic!("io_uring_enter failed: {error}"),
        }
    }

    /// The next finished operation.
    pub(crate) fn reap(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        let has_more = io_uring::cqueue::more(entry.flags());
        if !has_more {
            self.in_flight -= 1;
        }
        Some(Completion {
            op: Op::from_user_data(entry.user_data()),
            result: entry.result(),
            has_more,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_survives_the_kernel() {
        let op = Op { agent: 3, purpose: 7, index: u32::MAX };
        assert_eq!(Op::from_user_data(op.user_data()), op);
    }

    #[test]
    fn a_no_op_completes() {
        let mut ring = Ring::new(8).unwrap();
        let op = Op { agent: 1, purpose: 2, index: 3 };
        // SAFETY: a no-op points at no memory.
        unsafe { ring.push(io_uring::opcode::Nop::new().build(), op) };
        ring.enter();
        let completion = ring.reap().unwrap();
        assert_eq!((completion.op, completion.result), (op, 0));
        assert_eq!(ring.in_flight, 0);
        assert!(ring.reap().is_none());
    }
}
