//! Zstandard. Frames one after another are read as one stream.

use std::io;

use zstd::{bulk::Compressor, stream::read::Decoder, zstd_safe};

use super::{Fault, read_bounded};

/// A compressor at the level, brought into the codec's range.
pub(super) fn compressor(level: Option<i32>) -> io::Result<Compressor<'static>> {
    let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
    let range = zstd::compression_level_range();
    Compressor::new(level.clamp(*range.start(), *range.end()))
}

/// Appends `input` to `out`, compressed.
pub(super) fn compress(
    encoder: &mut Compressor<'static>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let start = out.len();
    out.resize(start + zstd_safe::compress_bound(input.len()), 0);
    let bytes = encoder.compress_to_buffer(input, &mut out[start..])?;
    out.truncate(start + bytes);
    Ok(())
}

/// Inflates all of `input`.
pub(super) fn inflate(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let decoder = Decoder::with_buffer(input).map_err(|_| Fault::Damaged)?;
    read_bounded(decoder, input.len().saturating_mul(4), bytes_max)
}
