//! Sleeping until a socket is ready or time is up, for the calls that block.
//!
//! The only unsafe code of the crate. The standard library can wait for bytes to read, but not for room to write, nor for
//! either of the two with one deadline; `ppoll` can, and takes times below a millisecond.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Sleeps until `socket` has something to read, or room to write where `for_room`, at most for `timeout`.
///
/// Without a socket it just sleeps. It may return early; callers look again.
pub(crate) fn wait(socket: Option<BorrowedFd<'_>>, for_room: bool, timeout: Duration) {
    let Some(socket) = socket else {
        std::thread::sleep(timeout);
        return;
    };
    let mut events = libc::POLLIN;
    if for_room {
        events |= libc::POLLOUT;
    }
    let mut entry = libc::pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: `entry` is one initialised pollfd and the count says one; `time` is a valid timespec; a null signal mask
    // leaves the mask alone. Both live to the end of the call, which keeps no pointer. The descriptor is borrowed, so
    // open. The result is not needed: readiness, time-out and interruption all make the caller look again.
    unsafe {
        libc::ppoll(&raw mut entry, 1, &raw const time, core::ptr::null());
    }
}
