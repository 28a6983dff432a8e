//! Counts what is allocated.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are allocated now, in the whole process.
pub fn held_bytes() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// The system's allocator, counted.
pub struct Counting;

// WHY UNSAFE: an allocator cannot be written otherwise.
// SAFETY: all of it is the system allocator's; the counter touches no memory that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // WHY UNSAFE: as above.
        // SAFETY: the caller keeps the contract of `alloc`, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // WHY UNSAFE: as above.
        // SAFETY: `ptr` came from `alloc` above with this layout, hence from the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}
