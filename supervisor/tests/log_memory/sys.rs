//! Counts what is allocated.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes that are held now, as a malloc with a header of 8 bytes and steps of 16 holds them.
pub static HELD: AtomicUsize = AtomicUsize::new(0);

fn held(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

/// The system's, counted.
pub struct Counting;

// WHY UNSAFE: an allocator is an unsafe trait.
// SAFETY: every call is handed to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(held(layout), Ordering::Relaxed);
        // WHY UNSAFE: the system's allocator is called by raw memory.
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(held(layout), Ordering::Relaxed);
        // WHY UNSAFE: the system's allocator is called by raw memory.
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(pointer, layout) }
    }
}
