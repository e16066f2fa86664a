//! Counts the memory that one thread holds, so that a target can bound it.
//!
//! The counter stands before the system's allocator. A request that would lead a watched thread past [`HELD_BYTES_MAX`] is refused,
//! which ends the process: memory that nobody touches is never seen by the system, and so by no bound on resident memory.
//!
//! It counts bytes asked for, not what the allocator rounds them to, and nothing that a C library takes for itself.

#![expect(unsafe_code, reason = "an allocator is unsafe to be, and only hands on what it is given")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Most bytes that a watched thread gets.
pub const HELD_BYTES_MAX: isize = 1 << 30;

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

#[derive(Clone, Copy)]
struct Count {
    /// Bytes taken and not given back since the watch began; what came from before may be given back meanwhile.
    held: isize,
    peak: isize,
    watched: bool,
}

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { held: 0, peak: 0, watched: false }) };
}

/// Runs `work`, and gives the most bytes that this thread held at once meanwhile, beyond what it held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    COUNT.set(Count { held: 0, peak: 0, watched: true });
    let done = work();
    let count = COUNT.replace(Count { held: 0, peak: 0, watched: false });
    (done, count.peak.unsigned_abs())
}

/// Counts a change; false when it must not be.
fn change(bytes: isize) -> bool {
    // A thread that ends has no counter any more.
    let counted = COUNT.try_with(|cell| {
        let mut count = cell.get();
        let held = count.held.saturating_add(bytes);
        if count.watched && bytes > 0 && held > HELD_BYTES_MAX {
            return false;
        }
        count.held = held;
        count.peak = count.peak.max(held);
        cell.set(count);
        true
    });
    counted.unwrap_or(true)
}

/// No layout is larger than `isize::MAX`.
fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every call is handed on to the system's allocator as it came, or refused with a null pointer.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !change(signed(layout.size())) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of this very call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !change(signed(layout.size())) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of this very call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        change(-signed(layout.size()));
        // SAFETY: the caller keeps the contract of this very call.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the bytes are moved.
        if !change(signed(size)) {
            return std::ptr::null_mut();
        }
        change(-signed(layout.size()));
        // SAFETY: the caller keeps the contract of this very call.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_is_counted() {
        let ((), peak) = peak(|| {
            drop(vec![1_u8; 5_000]);
            let kept = vec![0_u8; 3_000];
            drop(vec![1_u8; 4_000]);
            drop(kept);
        });
        assert_eq!(peak, 7_000);
    }
}
