//! Hangs up on everybody the moment this process is killed.
//!
//! A process that is killed gives its memory back first and its descriptors afterwards, and with a large ring the kernel is busy
//! with the former for longer than a takeover needs; for as long, peers and clients take a dead node for one that is slow. So
//! `relayd run` has a second process that shares its memory and its descriptors, and does nothing but wait for its end:
//!
//! ```text
//! relayd           works .............. SIGKILL   its threads end: another still has the memory, and there is nothing to do
//! relayd-hang-up   ppoll(pidfd) ....................... every socket is shut down | ends: memory, descriptors, locks go
//! ```
//!
//! What was inherited from whoever started relayd is left alone. A clean stop ends the second process first. Both killed at once
//! (by the kernel when memory runs out, as process 1 of a container, by name), or the second one alone, and everything is as it
//! would be without: later, not wrong. What the killed process had, its ports too, goes with the second one: some milliseconds after
//! whoever waited for the first has been told of its end. Its journal's lock goes when its last write has, too (`fixed_files.rs`).
//!
//! The second process allocates nothing, takes no lock and, while the first lives, writes to none of their memory: it is one
//! system call until then, with all signals blocked.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::arena::Pages;

const STACK: usize = 64 << 10;
/// Descriptors are given the lowest free number, so after so many free ones in a row there is most likely no further one; a
/// connection beyond ends with the descriptors.
const GAP_MAX: u32 = 4096;

/// The second process; see the module's description. It ends when this goes.
pub(crate) struct HangUp {
    process: libc::pid_t,
    /// Readable when this process has ended.
    _end: OwnedFd,
    _stack: Pages,
}

impl HangUp {
    /// Starts it.
    ///
    /// # Errors
    /// The system's, where it doesn't let a process have another one, or a descriptor of itself.
    pub(crate) fn start() -> io::Result<Self> {
        let stack = Pages::new(STACK)?;
        // SAFETY: no pointer is passed; a number that is not negative is a new descriptor of ours.
        let end = unsafe {
            let end = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
            if end < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(end as libc::c_int)
        };
        let argument = end.as_raw_fd() as usize as *mut libc::c_void;
        // SAFETY: the signal sets are plain memory that is filled before it is read. The new process runs `wait_for_the_end`
        // on a stack of its own, which lives until that process is gone (`Drop`); what it may do there stands with it. The
        // thread's signals are as before afterwards.
        let process = unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            let shared = libc::CLONE_VM | libc::CLONE_FILES;
            let top = stack.pointer(STACK).cast();
            let process = libc::clone(wait_for_the_end, top, shared, argument);
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            if process < 0 {
                return Err(error);
            }
            process
        };
        Ok(Self {
            process,
            _end: end,
            _stack: stack,
        })
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        // SAFETY: the process is a child of ours that nobody else waits for, so the number is its own until this call returns.
        unsafe {
            libc::kill(self.process, libc::SIGKILL);
            libc::waitpid(self.process, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

/// All that the second process does. It shares the first one's thread-local memory too, so nothing here may touch that: no call
/// fails while the first lives, and afterwards there is nobody to mind.
extern "C" fn wait_for_the_end(end: *mut libc::c_void) -> libc::c_int {
    let mut end = libc::pollfd {
        fd: end as usize as libc::c_int,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the name is a C string, and one structure is passed where one is announced; the others take numbers, and numbers
    // that are no descriptor or no socket are refused.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"relayd-hang-up".as_ptr());
        // Not by the library's function, which may write to the thread's memory.
        let forever = std::ptr::null::<libc::timespec>();
        let no_mask = std::ptr::null::<libc::sigset_t>();
        if libc::syscall(libc::SYS_ppoll, &raw mut end, 1, forever, no_mask, 8) != 1 {
            libc::_exit(1);
        }
        let mut gap = 0;
        for descriptor in 0.. {
            let flags = libc::fcntl(descriptor, libc::F_GETFD);
            if flags < 0 {
                gap += 1;
                if gap == GAP_MAX {
                    break;
                }
                continue;
            }
            gap = 0;
            // What this program was started with survived that, and may be others' too.
            if flags & libc::FD_CLOEXEC != 0 {
                libc::shutdown(descriptor, libc::SHUT_RDWR);
            }
        }
        libc::_exit(0)
    }
}
