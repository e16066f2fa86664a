//! Moving the stored offsets of a group.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::{Duration, SystemTime},
};

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

use crate::{
    client::Client,
    clock,
    error::{Error, Result},
};

/// Where stored offsets are moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The first offset kept.
    Earliest,
    /// The first offset not visible yet.
    Latest,
    /// The first record at or after this time.
    ToTime(SystemTime),
    /// The first record not older than this.
    Ago(Duration),
    /// Forward, or back when negative, by this many records.
    ShiftBy(i64),
    /// This offset, brought into the valid range.
    ToOffset(Offset),
    /// Where this other group stands.
    FromGroup(String),
}

impl Reset {
    fn into_wire(self) -> v1::reset_offsets_request::Target {
        use v1::reset_offsets_request::Target;
        match self {
            Reset::Earliest => Target::Earliest(true),
            Reset::Latest => Target::Latest(true),
            Reset::ToTime(time) => Target::TimestampMs(clock::timestamp_ms(time)),
            Reset::Ago(age) => {
                Target::DurationMs(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
            }
            Reset::ShiftBy(records) => Target::ShiftBy(records),
            Reset::ToOffset(offset) => Target::Offset(offset.0),
            Reset::FromGroup(group) => Target::FromGroup(group),
        }
    }
}

/// A move of stored offsets, made by awaiting it. A group that does not exist is made, when partitions or
/// topics are named.
#[derive(Debug)]
#[must_use = "nothing moves until this is awaited"]
pub struct ResetOffsets {
    client: Client,
    request: v1::ResetOffsetsRequest,
}

/// One offset moved, or, in a dry run, to be moved.
#[derive(Clone, Debug)]
pub struct OffsetReset {
    /// The partition.
    pub partition: TopicPartition,
    /// Stored offset before, when there was one.
    pub from: Option<Offset>,
    /// Stored offset after.
    pub to: Offset,
    /// Records not read yet, at the new offset.
    pub lag: u64,
    /// Why this partition could not be moved, when it could not.
    pub error: Option<Error>,
}

impl ResetOffsets {
    pub(super) fn new(client: Client, group: &str, to: Reset) -> ResetOffsets {
        let request = v1::ResetOffsetsRequest {
            group: group.to_owned(),
            target: Some(to.into_wire()),
            ..v1::ResetOffsetsRequest::default()
        };
        ResetOffsets { client, request }
    }

    /// Moves this partition. Without any partition or topic, all that the group has offsets for move.
    pub fn partition(mut self, partition: &TopicPartition) -> ResetOffsets {
        self.request.partitions.push(v1::TopicPartition {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
        });
        self
    }

    /// Moves every partition of this topic.
    pub fn topic(mut self, topic: impl Into<String>) -> ResetOffsets {
        self.request.topics.push(topic.into());
        self
    }

    /// Computes the new offsets and changes nothing.
    pub fn dry_run(mut self) -> ResetOffsets {
        self.request.dry_run = true;
        self
    }

    async fn send(self) -> Result<Vec<OffsetReset>> {
        let deadline = self.client.deadline();
        let reply = self.client.connection().reset_offsets(self.request, deadline).await?;
        let reset = |reset: v1::OffsetReset| OffsetReset {
            partition: TopicPartition::new(reset.topic, reset.partition),
            from: reset.from_offset.map(Offset),
            to: Offset(reset.to_offset),
            lag: reset.lag,
            error: reset.error.as_ref().map(Error::from_wire),
        };
        Ok(reply.resets.into_iter().map(reset).collect())
    }
}

impl IntoFuture for ResetOffsets {
    type Output = Result<Vec<OffsetReset>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
