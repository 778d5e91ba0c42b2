//! An allocator that counts.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALL: AtomicUsize = AtomicUsize::new(0);
static OF_NUMBERS: AtomicUsize = AtomicUsize::new(0);

/// Allocations so far.
#[allow(dead_code)] // each test takes one of the counts
pub(crate) fn all() -> usize {
    ALL.load(Ordering::Relaxed)
}

/// Those of what is made of floats, integers and pointers, and lies on less than 128 bytes.
#[allow(dead_code)]
pub(crate) fn of_numbers() -> usize {
    OF_NUMBERS.load(Ordering::Relaxed)
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALL.fetch_add(1, Ordering::Relaxed);
        if (2..128).contains(&layout.align()) {
            OF_NUMBERS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
