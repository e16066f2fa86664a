//! Lookup: finds offsets by position or time.

use std::sync::Arc;

use riverrun_proto::{LeaderEpoch, Offset};

use super::fetch::FetchPartitionError;
use crate::topic::{Registry, error::InvalidField};

/// Most questions of one request.
pub const QUERIES_MAX: usize = 10_000;

/// Which offset is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first offset kept.
    Earliest,
    /// The first offset not visible.
    Latest,
    /// The first record at or after this time, in milliseconds.
    Timestamp(i64),
}

/// One question.
#[derive(Clone, Debug)]
pub struct OffsetQuery {
    /// Name of the topic.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// Which offset.
    pub position: Position,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetFound {
    /// The offset.
    pub offset: Offset,
    /// Timestamp of the record found by time.
    pub timestamp_ms: Option<i64>,
    /// Epoch at that offset.
    pub leader_epoch: LeaderEpoch,
}

/// Finds offsets.
#[derive(Debug)]
pub struct LookupService {
    registry: Arc<Registry>,
}

impl LookupService {
    /// A service over `registry`.
    pub fn new(registry: Arc<Registry>) -> LookupService {
        LookupService { registry }
    }

    /// Answers every question, in order.
    ///
    /// # Errors
    /// When there are too many.
    pub async fn lookup(
        &self,
        queries: &[OffsetQuery],
    ) -> Result<Vec<Result<OffsetFound, FetchPartitionError>>, InvalidField> {
        if queries.len() > QUERIES_MAX {
            let expected = format!("a list of at most {QUERIES_MAX}");
            let found = queries.len().to_string();
            return Err(InvalidField { field: "queries", expected, found });
        }
        let mut answers = Vec::with_capacity(queries.len());
        for query in queries {
            answers.push(self.find(query).await);
        }
        Ok(answers)
    }

    /// Answers one question.
    ///
    /// # Errors
    /// When the partition cannot be found or read.
    pub async fn find(&self, query: &OffsetQuery) -> Result<OffsetFound, FetchPartitionError> {
        let partition = self.registry.partition(&query.topic, &[], query.partition)?;
        let visible = partition.visible();
        let (offset, timestamp_ms) = match query.position {
            Position::Earliest => (visible.log_start, None),
            Position::Latest => (visible.high_watermark, None),
            Position::Timestamp(timestamp_ms) => {
                let found = partition.find_by_time(timestamp_ms).await?;
                (found.offset, found.timestamp_ms)
            }
        };
        Ok(OffsetFound { offset, timestamp_ms, leader_epoch: partition.epoch_at(offset) })
    }
}
