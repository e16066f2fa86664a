//! Every number that bounds input. Gateways, services and the client refuse with these names.

/// Longest name of a topic or a group, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// Most partitions of one topic.
pub const PARTITION_COUNT_MAX: u32 = 10_000;
/// Largest record batch a topic may allow.
pub const BATCH_BYTES_MAX: u32 = 64 << 20;
/// Largest record batch by default.
pub const BATCH_BYTES_DEFAULT: u32 = 4 << 20;
/// Largest key of a record.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Most headers on one record.
pub const HEADER_COUNT_MAX: usize = 256;
/// Longest name of a header.
pub const HEADER_KEY_BYTES_MAX: usize = 1024;
/// Most bytes a batch may inflate to.
pub const INFLATED_BYTES_MAX: usize = 64 << 20;
/// Longest note stored with a committed offset.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;
/// Longest time a fetch or heartbeat may be held, in milliseconds.
pub const WAIT_MS_MAX: u32 = 60_000;
