//! The codecs of a batch, and the bound on what they inflate to.
//!
//! Each codec has the framing Kafka's clients use. Invariant: inflating stops once the output passes
//! the given bound, so a small input that inflates to gigabytes costs about the bound in memory.
//! Windows and blocks of a codec add at most its own format's limit (128 MiB of address space for zstd,
//! touched only as far as the output goes; 12 MiB for lz4).

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::{fmt, io, str::FromStr};

use super::header::COMPRESSION_MASK;
use crate::limits::INFLATED_BYTES_MAX;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Deflate in gzip framing.
    Gzip,
    /// Snappy in the framing of Java's xerial library; raw blocks are read too.
    Snappy,
    /// LZ4 in its frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The codec named by the attributes of a batch.
    pub(super) fn from_attributes(attributes: u16) -> Option<Compression> {
        Compression::ALL.get(usize::from(attributes & COMPRESSION_MASK)).copied()
    }

    /// Number of the codec in the attributes.
    pub(super) fn id(self) -> u16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// Its name in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Inflates `input`, at most to `bytes_max`.
    pub(super) fn inflate(self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let inflated = match self {
            Compression::None if input.len() > bytes_max => Err(Fault::TooLarge),
            Compression::None => Ok(input.to_vec()),
            Compression::Gzip => gzip::inflate(input, bytes_max),
            Compression::Snappy => snappy::inflate(input, bytes_max),
            Compression::Lz4 => lz4::inflate(input, bytes_max),
            Compression::Zstd => zstd::inflate(input, bytes_max),
        };
        inflated.map_err(|fault| match fault {
            Fault::Damaged => InflateError::Damaged { codec: self },
            Fault::TooLarge => InflateError::TooLarge { codec: self, limit: bytes_max },
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Compression, UnknownCompression> {
        let known = Compression::ALL.into_iter().find(|codec| codec.name() == name);
        known.ok_or_else(|| UnknownCompression { name: name.into() })
    }
}

/// A name that is no codec's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`compression` is `{name}`, known are `none`, `gzip`, `snappy`, `lz4` and `zstd`")]
pub struct UnknownCompression {
    /// What came.
    pub name: Box<str>,
}

/// Why compressed records cannot be inflated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// The bytes are not what the codec writes.
    #[error("`{codec}` data is damaged")]
    Damaged {
        /// The codec.
        codec: Compression,
    },
    /// The output is larger than allowed. Inflating stopped there.
    #[error("`{codec}` data inflates to more than `{limit}` bytes")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// Most bytes allowed.
        limit: usize,
    },
}

/// [`InflateError`] before the codec's name is known.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// See [`InflateError::Damaged`].
    Damaged,
    /// See [`InflateError::TooLarge`].
    TooLarge,
}

/// A codec ready to compress one batch after another, keeping its tables in between.
pub(super) enum Compressor {
    /// Copies.
    None,
    /// Deflates at this level.
    Gzip(u32),
    /// The tables of one encoder.
    Snappy(Box<snap::raw::Encoder>),
    /// Has no state worth keeping.
    Lz4,
    /// The tables of one encoder.
    Zstd(::zstd::bulk::Compressor<'static>),
}

impl Compressor {
    /// Sets the codec up. A level outside the codec's range is brought into it; `None` is its default.
    pub(super) fn new(compression: Compression, level: Option<i32>) -> io::Result<Compressor> {
        Ok(match compression {
            Compression::None => Compressor::None,
            Compression::Gzip => Compressor::Gzip(gzip::level(level)),
            Compression::Snappy => Compressor::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::Lz4 => Compressor::Lz4,
            Compression::Zstd => Compressor::Zstd(zstd::compressor(level)?),
        })
    }

    /// Appends `input` to `out`, compressed.
    pub(super) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Compressor::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Compressor::Gzip(level) => gzip::compress(*level, input, out),
            Compressor::Snappy(encoder) => snappy::compress(encoder, input, out),
            Compressor::Lz4 => lz4::compress(input, out),
            Compressor::Zstd(encoder) => zstd::compress(encoder, input, out),
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// Output up to here grows by doubling.
const DOUBLED_BYTES_MAX: usize = 4 << 20;

/// Makes room for `bytes` more. Large output gets the rest of the bound at once: growing by doubling would hold
/// old and new copy at the same time, while room that is set aside takes no memory before it is written.
fn make_room(out: &mut Vec<u8>, bytes: usize, bytes_max: usize) {
    // One byte past the bound is read to tell that there is more.
    let bound = bytes_max.min(INFLATED_BYTES_MAX) + 1;
    if out.len() + bytes > DOUBLED_BYTES_MAX && out.capacity() < bound {
        out.reserve_exact(bound - out.len());
    }
}

/// Reads `input` to its end, but no further than one byte past `bytes_max`.
fn read_bounded(
    input: impl io::Read,
    bytes_expected: usize,
    bytes_max: usize,
) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(bytes_expected.min(bytes_max).min(DOUBLED_BYTES_MAX));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut input = io::Read::take(input, limit);
    let beginning = DOUBLED_BYTES_MAX as u64;
    read_all(io::Read::take(&mut input, beginning), &mut out)?;
    if out.len() == DOUBLED_BYTES_MAX {
        make_room(&mut out, 1, bytes_max);
        read_all(input, &mut out)?;
    }
    if out.len() > bytes_max { Err(Fault::TooLarge) } else { Ok(out) }
}

fn read_all(mut input: impl io::Read, out: &mut Vec<u8>) -> Result<(), Fault> {
    input.read_to_end(out).map(|_| ()).map_err(|_| Fault::Damaged)
}
