//! Counts what hot threads allocate, so that a test can hold them to nothing.
//!
//! The system's allocator with a count in front. A thread that declares itself hot has its allocations counted; all others cost
//! one look at a thread-local flag. Each thread's count is exported.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocations of this thread since it declared itself hot; `None` before.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The system's allocator, counting.
pub(crate) struct Counting;

fn count() {
    // A thread being torn down has no locals any more; it is not hot.
    let _ = COUNT.try_with(|count| count.set(count.get().map(|number| number + 1)));
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; counting touches only a
// constant-initialised thread-local and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Counts this thread's allocations from here on.
pub(crate) fn declare_hot() {
    COUNT.with(|count| count.set(Some(0)));
}

/// Allocations of this hot thread.
pub(crate) fn of_this_thread() -> u64 {
    COUNT.with(Cell::get).unwrap_or(0)
}
