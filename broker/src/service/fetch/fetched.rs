//! What was read, and why not.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_proto::{LeaderEpoch, Offset, batch::OffsetRecord};
use thiserror::Error;

use super::FenceError;
use crate::{
    partition::{ReadError, VisibleRange},
    quota::{QuotaExceeded, Share},
    topic::error::{FindError, InvalidField},
};

/// What was read from one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Name of the topic.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// What may be read; absent when the partition cannot be found.
    pub visible: Option<VisibleRange>,
    /// The records, or why there are none.
    pub records: Result<FetchedRecords, FetchPartitionError>,
}

/// What was read, and the room it takes until the last byte of the reply is sent.
#[derive(Debug)]
pub struct Answer {
    /// Partitions that have something, in the order of the request.
    pub partitions: Vec<Fetched>,
    /// What was taken for their records.
    pub shares: Vec<Share>,
}

/// Records of one partition.
#[derive(Clone, Debug, Default)]
pub struct FetchedRecords {
    /// Whole batches, with [`super::Format::Encoded`].
    pub batches: Bytes,
    /// Records, with [`super::Format::Structured`].
    pub records: Vec<OffsetRecord>,
    /// Where to read on.
    pub next_offset: Offset,
    /// Epoch of the last record.
    pub leader_epoch: LeaderEpoch,
    /// Records at or past the offset asked for; counted when the request bounds records or wants them decoded.
    pub record_count: usize,
}

/// Why one partition was not read.
#[derive(Clone, Debug, Error)]
pub enum FetchPartitionError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The member may not read it.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// It cannot be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its records cannot be decoded.
    #[error("record batch at offset {offset} cannot be decoded: {reason}")]
    Decode {
        /// Where.
        offset: Offset,
        /// Why.
        reason: Arc<str>,
    },
}

/// A fetch that was refused as a whole.
#[derive(Clone, Debug, Error)]
pub enum FetchError {
    /// A field is out of bounds.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The caller is no member.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// Too many wait or read.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

impl FetchedRecords {
    /// Bytes they take in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes() + self.records.len() * size_of::<OffsetRecord>()
    }

    /// Bytes of the records.
    pub(super) fn bytes(&self) -> usize {
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let record =
            |record: &OffsetRecord| 16 + field(&record.record.key) + field(&record.record.value);
        self.batches.len() + self.records.iter().map(record).sum::<usize>()
    }
}
