//! Page-aligned memory that the kernel may be reading or writing.
//!
//! A buffer is a private mapping, so that it is aligned for direct writes, is resident from the
//! start, and can be abandoned to the kernel (`abandon`) when an operation on it never ended.
//!
//! Invariant kept by the callers: a range handed to the kernel is not touched until its
//! completion was reaped. That is why ranges are borrowed one at a time and never as a whole.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::error::FloorError;

/// Owned, zeroed, page-aligned memory.
pub(crate) struct Buffer {
    base: NonNull<u8>,
    len: usize,
    abandoned: bool,
}

// SAFETY: the mapping has one owner and no thread affinity; moving it moves the only pointer.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Maps `len` bytes (more than zero).
    pub(crate) fn new(len: usize) -> Result<Buffer, FloorError> {
        assert!(len > 0, "an empty mapping");
        // SAFETY: a fresh anonymous private mapping aliases nothing; the result is checked below.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(FloorError::Memory {
                bytes: len,
                source: io::Error::last_os_error(),
            });
        }
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never maps address zero");
        Ok(Buffer {
            base,
            len,
            abandoned: false,
        })
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of byte `at`, for the kernel.
    pub(crate) fn address(&self, at: usize) -> *mut u8 {
        assert!(
            at <= self.len,
            "address {at} outside a buffer of {}",
            self.len
        );
        // SAFETY: `at` is within the mapping or one past its end (asserted above).
        unsafe { self.base.as_ptr().add(at) }
    }

    /// Reads a range that no operation in flight is writing.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
        // SAFETY: in bounds (asserted), initialised (mappings are zeroed), and by the module's
        // invariant not being written by the kernel.
        unsafe { std::slice::from_raw_parts(self.address(range.start), range.len()) }
    }

    /// Writes a range that no operation in flight is using.
    pub(crate) fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
        // SAFETY: as for `slice`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.address(range.start), range.len()) }
    }

    /// Leaves the memory mapped for ever: the kernel may still write to it.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.abandoned {
            // SAFETY: the mapping made in `new`, unmapped once; nothing borrows it any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_writable() {
        let mut buffer = Buffer::new(8192).expect("8 KiB of memory");
        assert_eq!(buffer.address(0) as usize % 4096, 0);
        assert!(buffer.slice(0..8192).iter().all(|&byte| byte == 0));
        buffer.slice_mut(100..103).copy_from_slice(b"abc");
        assert_eq!(buffer.slice(99..104), b"\0abc\0");
    }
}
