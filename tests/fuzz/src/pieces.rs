//! Inputs of several parts, and where they are parted.
//!
//! ```text
//! part: kind u8 | length u16 (little-endian) | bytes
//! ```
//!
//! A length past the end is cut to it, so that every input has parts.

/// Cuts an input into its parts: kind and bytes.
pub(crate) fn pieces(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = input.split_at_checked(3)?;
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        input = rest;
        Some((head[0], piece))
    })
}

/// Puts a part behind `input`.
///
/// # Panics
/// When it is longer than 65,535 bytes.
pub(crate) fn push(input: &mut Vec<u8>, kind: u8, piece: &[u8]) {
    let length = u16::try_from(piece.len()).expect("a short part");
    input.push(kind);
    input.extend_from_slice(&length.to_le_bytes());
    input.extend_from_slice(piece);
}
