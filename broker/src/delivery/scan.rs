//! Reading the log for a lane: what is asked for and what came.

use std::{sync::Arc, time::Duration};

use super::lane_key::LaneKey;

/// What to read from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Lane.
    pub lane: LaneKey,
    /// Number of the scan; the answer repeats it.
    pub id: u64,
    /// First offset to look at.
    pub from: u64,
    /// Look at nothing at or past it. It is never past the high watermark.
    pub until: u64,
    /// Records to be delivered after which to stop; more do no harm.
    pub records_max: usize,
}

/// A record to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: u64,
    /// Hash of its key, when it has one.
    pub key: Option<u64>,
    /// Bytes of key, value and headers.
    pub bytes: u32,
    /// Not to be delivered before, in milliseconds since 1970-01-01 UTC.
    pub not_before_ms: Option<i64>,
}

/// What a scan found. Every offset in `[from, next)` that is not among the records is not to be delivered: it was
/// filtered, cancelled, compacted away or is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The scan it answers.
    pub id: u64,
    /// As asked.
    pub from: u64,
    /// First offset that was not looked at.
    pub next: u64,
    /// Records to be delivered, by offset.
    pub records: Vec<Found>,
}

/// A scan that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFailure {
    /// What was in the way.
    pub cause: ScanFailureCause,
    /// The same in words.
    pub error: Arc<str>,
    /// When it is tried again.
    pub retry_at: Duration,
}

/// What keeps records from being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanFailureCause {
    /// The partition.
    Partition,
    /// Too much is being read at once; nothing is wrong with the partition.
    Quota,
}
