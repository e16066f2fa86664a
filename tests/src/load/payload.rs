//! Values that say who they are and prove it.
//!
//! ```text
//! 0 value u64 | 8 length u32 | 12 hash u32 over all else | 16 filler that follows from the value
//! ```

use crate::{history::Value, random::Random};

const HEAD: usize = 16;
/// Lengths that most values have.
const SHORT: [usize; 6] = [16, 17, 100, 100, 300, 1000];
/// Lengths around a page.
const PAGES: [usize; 3] = [4095, 4096, 4097];
const LONG: usize = 65_536;

/// The bytes of a value.
pub(super) fn bytes_of(value: Value) -> Vec<u8> {
    let mut random = Random::new(value.0);
    let pick = usize::try_from(random.below(300)).unwrap_or(0);
    let length = match pick {
        0 => LONG,
        1..=15 => PAGES[pick % PAGES.len()],
        _ => SHORT[pick % SHORT.len()],
    };
    let mut bytes = vec![0; length];
    for chunk in bytes[HEAD..].chunks_mut(8) {
        let filler = random.draw().to_le_bytes();
        chunk.copy_from_slice(&filler[..chunk.len()]);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..8].copy_from_slice(&value.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    let hash = hash(&bytes);
    bytes[12..16].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// The value of these bytes; [`Value::WRONG`] when they do not prove it.
pub fn value_of(bytes: &[u8]) -> Value {
    let Some(head) = bytes.get(..8) else { return Value::WRONG };
    let mut number = [0; 8];
    number.copy_from_slice(head);
    let value = Value(u64::from_le_bytes(number));
    if bytes_of(value) == bytes { value } else { Value::WRONG }
}

/// FNV-1a over everything but the hash.
fn hash(bytes: &[u8]) -> u32 {
    let rest = bytes[..12].iter().chain(&bytes[HEAD..]);
    rest.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
