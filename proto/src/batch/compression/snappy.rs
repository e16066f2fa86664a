//! Snappy in xerial framing: a 16-byte head, then blocks behind their length.
//!
//! ```text
//! 82 'S' 'N' 'A' 'P' 'P' 'Y' 00 | version i32 = 1 | oldest compatible version i32 = 1
//! block: length i32 | raw snappy of up to 32 KiB
//! ```
//!
//! Bytes without the head are read as one raw block, as some clients write them. Integers are big-endian.

use std::io;

use bytes::{Buf, BufMut};
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::{Fault, make_room};

/// The head as every writer sends it.
const HEAD: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// The part of the head that tells framed from raw.
const MAGIC_BYTES: usize = 8;
/// Uncompressed bytes of one block.
const BLOCK_BYTES: usize = 32 << 10;
/// No element of the format makes more than this many bytes out of one: a copy of 64 bytes takes 3.
const RATIO_MAX: usize = 22;

/// Appends `input` to `out`, compressed.
pub(super) fn compress(encoder: &mut Encoder, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&HEAD);
    for block in input.chunks(BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + size_of::<u32>() + max_compress_len(block.len()), 0);
        let (mut length, compressed) = out[start..].split_at_mut(size_of::<u32>());
        let bytes = encoder.compress(block, compressed)?;
        length.put_u32(u32::try_from(bytes).map_err(io::Error::other)?);
        out.truncate(start + size_of::<u32>() + bytes);
    }
    Ok(())
}

/// Inflates all of `input`.
pub(super) fn inflate(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    if !input.starts_with(&HEAD[..MAGIC_BYTES]) {
        inflate_block(input, bytes_max, &mut out)?;
        return Ok(out);
    }
    let mut blocks = input.get(HEAD.len()..).ok_or(Fault::Damaged)?;
    while !blocks.is_empty() {
        let length = blocks.try_get_u32().map_err(|_| Fault::Damaged)?;
        let (block, rest) = blocks.split_at_checked(length as usize).ok_or(Fault::Damaged)?;
        inflate_block(block, bytes_max, &mut out)?;
        blocks = rest;
    }
    Ok(out)
}

/// Appends one raw block, inflated.
fn inflate_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let bytes = decompress_len(block).map_err(|_| Fault::Damaged)?;
    if bytes > block.len().saturating_mul(RATIO_MAX) {
        return Err(Fault::Damaged);
    }
    let start = out.len();
    if bytes > bytes_max - start {
        return Err(Fault::TooLarge);
    }
    make_room(out, bytes, bytes_max);
    out.resize(start + bytes, 0);
    Decoder::new().decompress(block, &mut out[start..]).map_err(|_| Fault::Damaged)?;
    Ok(())
}
