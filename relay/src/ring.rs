//! One io_uring for one thread: submissions, completions, and when to enter the kernel.
//!
//! Knows nothing of messages. An operation is named by an [`Op`]: which agent asked, what for, and a number of its own; it
//! comes back with the result. The ring is made on the thread that uses it (SINGLE_ISSUER), completions run when that
//! thread enters with GETEVENTS (DEFER_TASKRUN), and the enter is skipped when nothing is queued and the kernel has
//! announced no work.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, opcode};

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
        Self {
            agent: (data >> 56) as u8,
            purpose: (data >> 48) as u8,
            index: data as u32,
        }
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
    // Dropped in this order: the views before what they view.
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    submitter: Submitter<'static>,
    _uring: Owned,
    /// Operations handed to the kernel and not yet come back.
    pub(crate) in_flight: u64,
}

/// The ring the views of [`Ring`] point at; freed after them.
struct Owned(NonNull<IoUring>);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` in `Ring::new` and is freed only here, after the views.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
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
        let owned = Owned(NonNull::from(Box::leak(Box::new(uring))));
        // SAFETY: the box is freed by `owned`, which is dropped after the views; nobody else has a reference to it.
        let (mut submitter, submissions, completions) = unsafe { (*owned.0.as_ptr()).split() };
        // Saves a file look-up at each enter; a kernel that refuses it only loses that.
        let _ = submitter.register_ring_fd();
        Ok(Self {
            submissions,
            completions,
            submitter,
            _uring: owned,
            in_flight: 0,
        })
    }

    /// Registers memory for fixed-buffer operations as buffer 0.
    ///
    /// # Safety
    /// The memory stays mapped as long as the ring lives.
    pub(crate) unsafe fn register_memory(&self, base: *mut u8, length: usize) -> io::Result<()> {
        let vector = libc::iovec {
            iov_base: base.cast(),
            iov_len: length,
        };
        // SAFETY: that the memory outlives the ring is the caller's promise.
        unsafe { self.submitter.register_buffers(&[vector]) }
    }

    /// Makes a table of `slots` files, all empty, for operations that name a file by its number in it.
    pub(crate) fn register_file_slots(&self, slots: u32) -> io::Result<()> {
        self.submitter.register_files_sparse(slots)
    }

    /// Has the ring hold on to `file` in an empty slot of that table: it stays open, whoever else closes it, until the kernel has
    /// nothing of this ring's any more. Also where the process is killed while a write is under way.
    pub(crate) fn hold(&self, slot: u32, file: RawFd) -> io::Result<()> {
        self.submitter.register_files_update(slot, &[file])?;
        Ok(())
    }

    /// Makes sure that the next `entries` operations go to the kernel with one enter.
    pub(crate) fn make_room(&mut self, entries: usize) {
        if self.submissions.capacity() - self.submissions.len() < entries {
            self.enter();
        }
    }

    /// Queues an operation; enters the kernel first if the queue is full.
    ///
    /// # Safety
    /// Memory the entry points at stays valid, and for operations that fill or read it later untouched, until the
    /// completion named `op` was reaped.
    pub(crate) unsafe fn push(&mut self, entry: Entry, op: Op) {
        let entry = entry.user_data(op.user_data());
        // SAFETY: that the entry's memory stays valid is the caller's promise.
        while unsafe { self.submissions.push(&entry) }.is_err() {
            self.enter();
        }
        self.in_flight += 1;
    }

    /// Submits what is queued and lets the kernel finish what is ready; no system call if there is nothing of either.
    ///
    /// A turn that finds nothing only reads the shared flags and stores nothing: the queues' positions lie in the same cache
    /// line, which the processor that delivers the next packet has to win to raise the flag.
    pub(crate) fn enter(&mut self) {
        if self.submissions.is_empty() && !self.submissions.taskrun() {
            return;
        }
        self.submissions.sync();
        let queued = self.submissions.len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument structure is passed; the flag only asks to run finished work.
        let entered = unsafe { self.submitter.enter::<()>(queued, 0, flags, None) };
        self.after_enter(entered);
    }

    /// As [`Ring::enter`], then sleeps until something completes or `timeout` has passed.
    pub(crate) fn park(&mut self, timeout: Duration) {
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        self.submissions.sync();
        let entered = self.submitter.submit_with_args(1, &arguments);
        self.after_enter(entered);
    }

    fn after_enter(&mut self, entered: io::Result<usize>) {
        self.submissions.sync();
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => {}
            // Interrupted, timed out, or the completion queue must be emptied first: all in the normal course.
            Err((Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => panic!("io_uring_enter failed: {error}"),
        }
    }

    /// Cancels what is in flight and waits until the kernel has let go of all of it, at most for `limit`; whether it has. After
    /// that nothing points at anybody's memory any more. What completes meanwhile is thrown away.
    pub(crate) fn quiesce(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        let all = CancelBuilder::any();
        let entry = opcode::AsyncCancel2::new(all).build();
        let op = Op {
            agent: u8::MAX,
            purpose: 0,
            index: 0,
        };
        // SAFETY: a cancellation points at no memory.
        unsafe { self.push(entry, op) };
        while self.in_flight > 0 && begun.elapsed() < limit {
            self.park(Duration::from_millis(10));
            while self.reap().is_some() {}
        }
        self.in_flight == 0
    }

    /// The next finished operation.
    ///
    /// Linux before 6.2 posts what a worker of its finished without being entered and without raising the flag, so the
    /// queue itself is looked at: one load of a line that [`Ring::enter`] reads anyway.
    pub(crate) fn reap(&mut self) -> Option<Completion> {
        let entry = match self.completions.next() {
            Some(entry) => entry,
            None => {
                // SAFETY: the status is gone before the ring is.
                if unsafe { self.completions.status() }.is_empty() {
                    return None;
                }
                self.completions.sync();
                self.completions.next()?
            }
        };
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
        let op = Op {
            agent: 3,
            purpose: 7,
            index: u32::MAX,
        };
        assert_eq!(Op::from_user_data(op.user_data()), op);
    }

    /// Goal: after the ring is quiet no operation points at memory any more. Method: receives that nobody will ever answer.
    #[test]
    fn what_waits_for_ever_is_let_go() {
        let mut ring = Ring::new(8).unwrap();
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut buffer = [0; 16];
        for index in 0..4 {
            let op = Op {
                agent: 1,
                purpose: 1,
                index,
            };
            let socket = io_uring::types::Fd(std::os::fd::AsRawFd::as_raw_fd(&near));
            let entry = opcode::Recv::new(socket, buffer.as_mut_ptr(), 16).build();
            // SAFETY: the buffer outlives the ring's quiet below and is not looked at.
            unsafe { ring.push(entry, op) };
        }
        ring.enter();
        assert_eq!(ring.in_flight, 4);
        assert!(ring.quiesce(Duration::from_secs(60)));
        assert_eq!(ring.in_flight, 0);
    }

    #[test]
    fn a_no_op_completes() {
        let mut ring = Ring::new(8).unwrap();
        let op = Op {
            agent: 1,
            purpose: 2,
            index: 3,
        };
        // SAFETY: a no-op points at no memory.
        unsafe { ring.push(io_uring::opcode::Nop::new().build(), op) };
        ring.enter();
        let completion = ring.reap().unwrap();
        assert_eq!((completion.op, completion.result), (op, 0));
        assert_eq!(ring.in_flight, 0);
        assert!(ring.reap().is_none());
    }
}
