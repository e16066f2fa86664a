//! How long appends and flushes take, and how much goes into one flush.

use super::histogram::{Histogram, RECORDS, SECONDS};

/// What the writing side of all partitions measures.
#[derive(Debug)]
pub struct WriteMeter {
    /// From the queue of a partition to the receipt, one observation for each batch of a topic.
    pub append_duration: Histogram,
    /// One flush of a log, the broker's own logs included.
    pub flush_duration: Histogram,
    /// Records that became durable by one flush of a topic's partition.
    pub group_commit_records: Histogram,
}

impl Default for WriteMeter {
    fn default() -> WriteMeter {
        WriteMeter {
            append_duration: Histogram::new(&SECONDS),
            flush_duration: Histogram::new(&SECONDS),
            group_commit_records: Histogram::new(&RECORDS),
        }
    }
}
