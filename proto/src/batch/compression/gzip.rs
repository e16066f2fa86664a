//! Deflate in gzip framing. Members one after another are read as one stream, as Java does.

use std::io::{self, Write};

use flate2::{bufread::MultiGzDecoder, write::GzEncoder};

use super::{Fault, read_bounded};

/// The level in the codec's range.
pub(super) fn level(level: Option<i32>) -> u32 {
    level.map_or(flate2::Compression::default().level(), |level| level.clamp(0, 9).cast_unsigned())
}

/// Appends `input` to `out`, compressed.
pub(super) fn compress(level: u32, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out, flate2::Compression::new(level));
    encoder.write_all(input)?;
    encoder.finish().map(|_| ())
}

/// Inflates all of `input`.
pub(super) fn inflate(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    read_bounded(MultiGzDecoder::new(input), input.len().saturating_mul(3), bytes_max)
}
