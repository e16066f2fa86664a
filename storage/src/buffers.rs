//! Buffers that reads go into, kept when nobody holds what was read any more.
//!
//! A reader who catches up is answered with MiBs at a time. Memory for as much, asked for anew each time, comes from the kernel page by page and
//! full of zeros, and costs more than the copy into it.
//!
//! Invariants:
//! - Nothing of what a buffer held before is seen: whoever takes one hands out only what was read into it.
//! - All that is kept together is at most [`KEPT_BYTES_MAX`]; small buffers are never kept.

use std::ops::{Deref, DerefMut, Range};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are left to the allocator, which is good at them.
const KEPT_BYTES_MIN: usize = 64 << 10;
/// All that is kept together.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Those that nobody holds.
static KEPT: Mutex<Kept> = Mutex::new(Kept { buffers: Vec::new(), bytes: 0 });

#[derive(Debug)]
struct Kept {
    buffers: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Kept {
    /// The smallest that is large enough, unless that is more than twice as large.
    fn take(&mut self, len: usize) -> Option<Box<[u8]>> {
        let lengths = self.buffers.iter().map(|buffer| buffer.len()).enumerate();
        let fitting = lengths.filter(|(_, found)| (len..=len * 2).contains(found));
        let (index, _) = fitting.min_by_key(|(_, found)| *found)?;
        let buffer = self.buffers.swap_remove(index);
        self.bytes -= buffer.len();
        Some(buffer)
    }

    fn give(&mut self, buffer: Box<[u8]>) {
        let bytes = self.bytes + buffer.len();
        if buffer.len() >= KEPT_BYTES_MIN && bytes <= KEPT_BYTES_MAX {
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

/// A buffer of some length, with whatever bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// One of `len` bytes.
    pub(crate) fn of(len: usize) -> Buffer {
        if len < KEPT_BYTES_MIN {
            return Buffer { bytes: vec![0; len].into(), len };
        }
        let kept = KEPT.lock().take(len);
        let bytes = kept.unwrap_or_else(|| vec![0; len.next_multiple_of(KEPT_BYTES_MIN)].into());
        Buffer { bytes, len }
    }

    /// What was read there, to be shared. The buffer is kept once the last holder is gone; a part that would hold much more memory than it
    /// has bytes is given in memory of its own.
    pub(crate) fn into_part(self, part: Range<usize>) -> Bytes {
        if part.len() < self.bytes.len() / 4 {
            return Bytes::copy_from_slice(&self[part]);
        }
        Bytes::from_owner(self).slice(part)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() >= KEPT_BYTES_MIN {
            KEPT.lock().give(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(len: usize) -> Box<[u8]> {
        vec![0; len].into()
    }

    #[test]
    fn what_is_kept_is_bounded_and_given_out_again() {
        let mut kept = Kept { buffers: Vec::new(), bytes: 0 };
        kept.give(of(KEPT_BYTES_MIN - 1));
        assert_eq!(kept.bytes, 0);
        for _ in 0..20 {
            kept.give(of(1 << 20));
        }
        assert_eq!((kept.buffers.len(), kept.bytes), (8, KEPT_BYTES_MAX));
        let taken = kept.take(1_000_000).expect("one fits");
        assert_eq!((taken.len(), kept.bytes), (1 << 20, 7 << 20));
        kept.give(of(512 << 10));
        assert_eq!(kept.take(300 << 10).map(|one| one.len()), Some(512 << 10));
        assert!(kept.take(100 << 10).is_none(), "one that is far too large is left to others");
        assert!(kept.take(2 << 20).is_none());
    }

    #[test]
    fn a_buffer_has_the_length_asked_for_and_its_bytes_live_as_long_as_a_slice() {
        for len in [0, 1, KEPT_BYTES_MIN - 1, KEPT_BYTES_MIN, (2 << 20) + 5] {
            let mut buffer = Buffer::of(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(7);
            let part = buffer.into_part(len / 2..len);
            let mut other = Buffer::of(len);
            other.fill(9);
            assert!(part.iter().all(|byte| *byte == 7), "{len}");
        }
    }

    #[test]
    fn a_small_part_does_not_hold_the_whole_buffer() {
        for (bytes, is_alone) in [((1 << 18) - 1, true), (1 << 18, false)] {
            let buffer = Buffer::of(1 << 20);
            let whole = buffer.as_ptr_range();
            let part = buffer.into_part(0..bytes);
            assert_eq!(part.len(), bytes);
            assert_eq!(!whole.contains(&part.as_ptr()), is_alone, "{bytes}");
        }
    }
}
