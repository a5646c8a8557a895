//! One io_uring of one thread, with its operations counted.
//!
//! Set up as the product's hot threads set theirs up: one issuer, completions deferred until that
//! issuer asks, and a flag in shared memory that says when asking is worth a system call. So an
//! idle turn makes no system call at all.
//!
//! It knows no message. Invariant: `in_flight` is the number of operations whose buffers the
//! kernel may still use; their owners free nothing until it is zero.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, squeue, types};

use crate::error::FloorError;

/// A finished operation: its user data and its result.
pub(crate) type Completion = (u64, i32);

/// A ring owned by the thread that made it.
///
/// The three halves borrow the ring for the life of this struct, which saves building them anew
/// in every turn and lets the submitter remember its registered descriptor.
pub(crate) struct Ring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    in_flight: usize,
    /// An enter came after the last reap. Completions appear only in an enter (deferred task
    /// runs), so without one there is nothing to look for.
    entered: bool,
    /// Never read: the last field, so that it outlives the halves.
    _uring: Borrowed,
}

impl Ring {
    /// A ring for at most `entries` operations at a time.
    pub(crate) fn new(entries: usize) -> Result<Ring, FloorError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_taskrun_flag()
            .build(entries.next_power_of_two() as u32)
            .map_err(|source| FloorError::RingRefused { source })?;
        let uring = Borrowed(NonNull::from(Box::leak(Box::new(uring))));
        // SAFETY: the box was just leaked and has no other reference; it is freed only by
        // `Borrowed`, which is dropped after the halves made here.
        let (mut submitter, submissions, completions) = unsafe { (*uring.0.as_ptr()).split() };
        // Saves a file lookup per enter; a kernel that refuses it only loses that.
        let _ = submitter.register_ring_fd();
        Ok(Ring {
            submitter,
            submissions,
            completions,
            in_flight: 0,
            entered: false,
            _uring: uring,
        })
    }

    /// Registers files by position; -1 leaves a position empty.
    pub(crate) fn register_files(&self, files: &[RawFd]) -> Result<(), FloorError> {
        self.submitter
            .register_files(files)
            .map_err(|source| FloorError::Ring {
                stage: "register files",
                source,
            })
    }

    /// Registers one buffer, as number zero.
    ///
    /// # Safety
    /// The memory must stay mapped until the ring is dropped.
    pub(crate) unsafe fn register_buffer(
        &self,
        address: *mut u8,
        len: usize,
    ) -> Result<(), FloorError> {
        let iovec = libc::iovec {
            iov_base: address.cast(),
            iov_len: len,
        };
        // SAFETY: the caller keeps the memory mapped for the ring's life.
        unsafe { self.submitter.register_buffers(&[iovec]) }.map_err(|source| FloorError::Ring {
            stage: "register buffers (is ulimit -l too low?)",
            source,
        })
    }

    /// Queues an operation for the next [`Ring::turn`].
    ///
    /// # Safety
    /// What the entry points to must stay valid, and untouched as the operation demands, until
    /// its completion was reaped.
    #[inline]
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: forwarded to the caller.
        let pushed = unsafe { self.submissions.push(entry) };
        assert!(
            pushed.is_ok(),
            "the ring is sized for every operation its owner can have"
        );
        self.in_flight += 1;
    }

    /// Operations not yet reaped.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Submits what is queued and runs what is pending; no system call if there is neither.
    ///
    /// A turn that finds nothing only reads the shared flags and stores nothing: the queues'
    /// positions lie in the same cache line, and the processor that delivers the next message
    /// has to win that line to raise the flag.
    #[inline]
    pub(crate) fn turn(&mut self) -> Result<(), FloorError> {
        if self.submissions.is_empty() && !self.submissions.taskrun() {
            return Ok(());
        }
        self.submissions.sync();
        let entered = self.submitter.submit();
        self.entered(entered)
    }

    /// Submits what is queued and sleeps until a completion or the timeout.
    pub(crate) fn park(&mut self, timeout: Duration) -> Result<(), FloorError> {
        let timespec = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timespec);
        self.submissions.sync();
        let entered = self.submitter.submit_with_args(1, &args);
        self.entered(entered)
    }

    /// Moves finished operations into `into`, which is emptied first.
    #[inline]
    pub(crate) fn reap(&mut self, into: &mut Vec<Completion>) {
        into.clear();
        if !self.entered {
            return;
        }
        self.entered = false;
        self.completions.sync();
        for entry in &mut self.completions {
            into.push((entry.user_data(), entry.result()));
        }
        self.completions.sync();
        self.in_flight -= into.len();
    }

    /// A timed out, interrupted or busy enter is an ordinary turn; entries stay queued.
    #[inline]
    fn entered(&mut self, entered: io::Result<usize>) -> Result<(), FloorError> {
        self.entered = true;
        self.submissions.sync();
        let Err(source) = entered else { return Ok(()) };
        match source.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(FloorError::Ring {
                stage: "enter",
                source,
            }),
        }
    }
}

/// The boxed ring the halves borrow. Declared after them, so dropped after them.
struct Borrowed(NonNull<IoUring>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        // SAFETY: the pointer is the box leaked in `Ring::new`, freed once, here.
        unsafe { drop(Box::from_raw(self.0.as_ptr())) };
    }
}
