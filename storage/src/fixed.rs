//! Little-endian fields at fixed places of a byte block. The one spelling of every side file's codec.
//!
//! Out-of-range places are bugs of the caller and panic; the blocks have constant sizes.

/// The four bytes at `at`.
pub(crate) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("a slice of four bytes"))
}

/// The eight bytes at `at`.
pub(crate) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("a slice of eight bytes"))
}

/// The eight bytes at `at`, signed.
pub(crate) fn i64_at(block: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(block[at..at + 8].try_into().expect("a slice of eight bytes"))
}

/// Puts `bytes` at `at`.
pub(crate) fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// CRC-32 of `bytes`, as every side file and header uses it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
