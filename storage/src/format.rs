//! The bytes of a segment file: one header block, then chained entries. docs/storage-format.md draws them.
//!
//! - [`entry`]: the 96-byte header before every payload.
//! - [`segment_header`]: the first 4,096 bytes of a file.
//! - [`facts`]: what a finished segment holds, in its seal and in its successor's header.
//!
//! Only encoding and decoding; no file is touched here.

pub(crate) mod entry;
pub(crate) mod facts;
pub(crate) mod segment_header;

pub(crate) use entry::{ENTRY_BYTES, EntryHeader, EntryKind};
pub(crate) use facts::{SEAL_BYTES, SegmentFacts};
pub(crate) use segment_header::{HEADER_BLOCK_BYTES, Previous, SegmentHeader};

/// Version of the format written, and the newest one read.
pub(crate) const FORMAT_VERSION: u32 = 1;
