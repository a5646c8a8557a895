//! Memory of fixed size that the kernel reads and writes: the log's ring, replay buffers, receive buffers.
//!
//! The ring is mapped twice, one copy right behind the other, so that a block or a view that crosses its end is still one
//! slice. Who may touch which part follows from positions alone:
//!
//! ```text
//!          forgotten           released                  open block        forgotten + size
//!   ... -------|-----------------|-------------------------|--------------------|--- ...
//!              | fan-out reads   |                         |                    |
//!              | the kernel writes out, from durable on    |  the sequencer fills |
//! ```
//!
//! The sequencer's window never reaches past `forgotten + size`, nor more than three quarters of a ring past the open block.
//! Forgotten is what is durable and what the fan-out's floor has passed; it publishes that before the sequencer may use what
//! lies below it. Released may be beyond durable where copies in memory count. Who has no part in this copies ([`LogRing::copy`]) and looks
//! afterwards whether it came too late ([`crate::released_log`]).

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use relay_core::log::{LogView, LogWindow};
use relay_wire::id::Position;

/// The memory ring of one stream's log.
#[derive(Debug)]
pub(crate) struct LogRing {
    base: NonNull<u8>,
    size: NonZeroUsize,
    /// The memory, as a file without a name.
    file: File,
}

// SAFETY: the ring is plain memory; who touches which part of it when is ruled by positions (see the module), each passed from
// thread to thread with release and acquire.
unsafe impl Send for LogRing {}
// SAFETY: as above.
unsafe impl Sync for LogRing {}

impl LogRing {
    /// A ring of `size` bytes, a multiple of the page size, all touched.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(size).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the name is a C string; the call has no other requirement.
        let fd = unsafe { libc::memfd_create(c"relay-log-ring".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was opened above and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        let base = Self::map_twice(file.as_raw_fd(), size)?;
        let ring = Self { base, size, file };
        // SAFETY: the first copy is `size` writable bytes that nobody else sees yet.
        unsafe { ring.base.as_ptr().write_bytes(0, size.get()) };
        Ok(ring)
    }

    fn map_twice(fd: libc::c_int, size: NonZeroUsize) -> io::Result<NonNull<u8>> {
        let bytes = size.get();
        let anywhere = std::ptr::null_mut();
        let (none, both) = (libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE);
        let hidden = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let shared = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        // SAFETY: the first call reserves 2 * size bytes of address space of our own; the other two map the memory file
        // over exactly that range, so no other mapping is touched.
        unsafe {
            if libc::ftruncate(fd, bytes as libc::off_t) != 0 {
                return Err(io::Error::last_os_error());
            }
            let base = libc::mmap(anywhere, 2 * bytes, none, hidden, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            for copy in [0, bytes] {
                let at = base.cast::<u8>().add(copy).cast();
                if libc::mmap(at, bytes, both, shared, fd, 0) == libc::MAP_FAILED {
                    let error = io::Error::last_os_error();
                    libc::munmap(base, 2 * bytes);
                    return Err(error);
                }
            }
            Ok(NonNull::new(base.cast()).expect("mmap does not map at 0"))
        }
    }

    /// Bytes of the ring.
    pub(crate) const fn size(&self) -> u64 {
        self.size.get() as u64
    }

    /// Both copies, for registration with the kernel.
    pub(crate) const fn whole(&self) -> (*mut u8, usize) {
        (self.base.as_ptr(), 2 * self.size.get())
    }

    /// Where the byte at `position` lies; at least `size` bytes can be reached from there.
    pub(crate) const fn pointer(&self, position: Position) -> *mut u8 {
        let offset = (position.get() % self.size()) as usize;
        // SAFETY: `offset` is less than `size`, within the first copy.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Copies `length` bytes from `position` on to the start of `pages`, by way of the kernel: whoever writes to the ring meanwhile
    /// may leave old and new bytes in the copy side by side, and nothing else.
    pub(crate) fn copy(
        &self,
        position: Position,
        pages: &mut Pages,
        length: usize,
    ) -> io::Result<()> {
        assert!(length as u64 <= self.size(), "no more than the ring has");
        let offset = position.get() % self.size();
        let first = length.min((self.size() - offset) as usize);
        let (front, back) = pages.all_mut()[..length].split_at_mut(first);
        self.file.read_exact_at(front, offset)?;
        self.file.read_exact_at(back, 0)
    }

    /// The window from `start` to `end`.
    ///
    /// # Safety
    /// The caller is the only one that touches these positions while the window lives: `end` is at most the fan-out's
    /// published floor plus the ring's size, and every kernel operation on the positions of one ring's length before has
    /// completed.
    pub(crate) unsafe fn window(&self, start: Position, end: Position) -> LogWindow<'_> {
        let length = end.since(start);
        assert!(length <= self.size(), "a window is no longer than the ring");
        // SAFETY: the two copies lie side by side, so `length <= size` bytes from any offset are mapped; exclusiveness is
        // the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.pointer(start), length as usize) };
        LogWindow::new(start, bytes)
    }

    /// The view from `start` to `end`.
    ///
    /// # Safety
    /// Nobody writes to these positions while the view lives: `start` is at least the floor the caller published, and `end`
    /// at most what was released to it.
    pub(crate) unsafe fn view(&self, start: Position, end: Position) -> LogView<'_> {
        let length = end.since(start);
        assert!(length <= self.size(), "a view is no longer than the ring");
        // SAFETY: as in `window`; that nobody writes is the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(self.pointer(start), length as usize) };
        LogView::new(start, bytes)
    }
}

impl Drop for LogRing {
    fn drop(&mut self) {
        // SAFETY: both copies were mapped by `new` as one range of 2 * size bytes and nobody uses them any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), 2 * self.size.get()) };
    }
}

/// Zeroed, page-aligned memory of fixed size.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: plain memory; sharing is ruled by the owner, see `Pages::slice`.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `length` bytes; the kernel supplies each page when it is first touched.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length.get(), access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap does not map at 0");
        Ok(Self { base, length })
    }

    /// Bytes of the pages.
    pub(crate) const fn length(&self) -> usize {
        self.length.get()
    }

    /// Where byte `offset` lies.
    pub(crate) fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.length.get(), "inside the pages");
        // SAFETY: `offset` is at most the length of the one mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// `length` bytes from `offset` on.
    ///
    /// # Safety
    /// Neither the kernel nor another thread writes to them while the slice lives.
    pub(crate) unsafe fn slice(&self, offset: usize, length: usize) -> &[u8] {
        assert!(offset + length <= self.length.get(), "inside the pages");
        // SAFETY: inside the mapping by the assertion; that nobody writes is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer(offset), length) }
    }

    /// All of them, for who has them to itself.
    pub(crate) fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: the one mapping, borrowed exclusively: nobody else looks at it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length.get()) }
    }

    /// Moves `length` bytes from `from` to `to`.
    ///
    /// # Safety
    /// Nobody else touches either place meanwhile.
    pub(crate) unsafe fn shift(&self, from: usize, to: usize, length: usize) {
        assert!(
            from.max(to) + length <= self.length.get(),
            "inside the pages"
        );
        // SAFETY: both places lie inside the mapping; that nobody else touches them is the caller's promise.
        unsafe { std::ptr::copy(self.pointer(from), self.pointer(to), length) };
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and used by nobody any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a slice across the ring's end is one piece. Method: write across it, read at the start.
    #[test]
    fn the_ring_has_no_end() {
        let ring = LogRing::new(8192).unwrap();
        let across = Position(8192 * 3 - 2);
        // SAFETY: one thread, and no window or view outlives its statement.
        unsafe { ring.window(across, across.plus(4)) }
            .slice_mut(across, 4)
            .copy_from_slice(b"abcd");
        // SAFETY: as above.
        let view = unsafe { ring.view(across, across.plus(4)) };
        assert_eq!(view.from(across), b"abcd");
        // SAFETY: as above; two positions a ring's length apart are the same memory.
        let start = unsafe { ring.view(Position(8192 * 3), Position(8192 * 3 + 2)) };
        assert_eq!(start.from(Position(8192 * 3)), b"cd");
    }

    #[test]
    fn pages_start_zeroed() {
        let pages = Pages::new(10_000).unwrap();
        // SAFETY: one thread, no kernel operation.
        let bytes = unsafe { pages.slice(0, 10_000) };
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
}
