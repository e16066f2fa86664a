//! Hashing of numbers: prints of keys and numbers of chunks.
//!
//! One multiplication spreads neighbours over the table. It is no defence against numbers chosen to collide; what bounds
//! the search then is the table itself, which holds no more than the open records of one lane.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds hashers for maps from numbers.
pub(super) type NumberHasher = BuildHasherDefault<Spread>;

/// The hasher.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
    }
}
