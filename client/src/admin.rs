//! Administration: topics, groups, records and offsets.
//!
//! - [`config`]: settings of a topic. [`topic`]: topics to create, change and describe.
//! - [`group`]: groups, their members and lag. [`reset`]: moving stored offsets. [`watch`]: what moved.
//! - [`subscription`]: subscriptions, their dead letters and scheduled records.

mod config;
mod group;
mod reset;
mod subscription;
mod topic;
mod watch;

use std::time::SystemTime;

use riverrun_proto::{Offset, TopicPartition, grpc::v1};

pub use self::{
    config::{CleanupPolicy, Limit, TopicConfig},
    group::{GroupDescription, GroupPartition, GroupState, GroupSummary, MemberDescription},
    reset::{OffsetReset, Reset, ResetOffsets},
    subscription::{
        Explanation, PeekedRecord, PositionMoved, RecordState, Redrive, Redriven, SeekSubscription,
        SubscriptionDescription, SubscriptionPartition, SubscriptionSession, SubscriptionSummary,
        WebhookStanding, WebhookState,
    },
    topic::{
        ClusterInfo, DamagedOffsets, PartitionDescription, PartitionInfo, TopicChange,
        TopicDescription, TopicInfo, TopicSpec,
    },
    watch::{PartitionState, Watch},
};
use crate::{
    client::Client,
    clock,
    error::{Error, ErrorCode, Result},
};

/// Administration of a broker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

/// Which offset of a partition is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first offset kept.
    Earliest,
    /// The first offset not visible yet.
    Latest,
    /// The first record whose timestamp is at or after this; the end when there is none.
    Time(SystemTime),
}

impl OffsetAt {
    fn to_wire(self) -> v1::offset_query::Position {
        use v1::offset_query::Position;
        match self {
            OffsetAt::Earliest => Position::Earliest(true),
            OffsetAt::Latest => Position::Latest(true),
            OffsetAt::Time(time) => Position::TimestampMs(clock::timestamp_ms(time)),
        }
    }
}

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        Admin { client }
    }

    /// Describes the cluster: its id, nodes, version and every topic.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        let request = v1::GetMetadataRequest::default();
        let reply = self.client.connection().get_metadata(request, self.client.deadline()).await?;
        ClusterInfo::from_wire(reply)
    }

    /// Every topic, by name.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn list_topics(&self) -> Result<Vec<TopicInfo>> {
        Ok(self.cluster().await?.topics)
    }

    /// One topic with its partitions and settings.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub async fn topic(&self, topic: &str) -> Result<TopicInfo> {
        let request = v1::GetMetadataRequest { topics: vec![topic.to_owned()] };
        let reply = self.client.connection().get_metadata(request, self.client.deadline()).await?;
        match reply.topics.into_iter().find(|found| found.topic == topic) {
            Some(found) => TopicInfo::from_wire(found),
            None => Err(missing("topic")),
        }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// `TopicExists`; `InvalidArgument` naming the field and its limit.
    pub async fn create_topic(&self, spec: TopicSpec) -> Result<TopicInfo> {
        let deadline = self.client.deadline();
        let reply = self.client.connection().create_topic(spec.into_wire(), deadline).await?;
        TopicInfo::from_wire(reply.topic.ok_or_else(|| missing("topic"))?)
    }

    /// Changes settings of a topic while it runs, or adds partitions.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidArgument` naming the field and its limit.
    pub async fn alter_topic(&self, topic: &str, change: TopicChange) -> Result<TopicInfo> {
        let request = change.into_wire(topic);
        let reply = self.client.connection().alter_topic(request, self.client.deadline()).await?;
        TopicInfo::from_wire(reply.topic.ok_or_else(|| missing("topic"))?)
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let request =
            v1::DeleteTopicRequest { topic: topic.to_owned(), topic_id: Default::default() };
        self.client.connection().delete_topic(request, self.client.deadline()).await?;
        Ok(())
    }

    /// One topic with sizes and offsets of its partitions.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicDescription> {
        let request = v1::DescribeTopicRequest { topic: topic.to_owned() };
        let reply =
            self.client.connection().describe_topic(request, self.client.deadline()).await?;
        TopicDescription::from_wire(reply)
    }

    /// Drops the records of a partition below `before`; whole segments are freed. Returns the first
    /// offset kept now.
    ///
    /// # Errors
    /// `OffsetOutOfRange` past the high watermark; `UnknownTopicOrPartition`.
    pub async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset> {
        let request = v1::DeleteRecordsRequest {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
            before_offset: before.0,
        };
        let reply =
            self.client.connection().delete_records(request, self.client.deadline()).await?;
        Ok(Offset(reply.log_start_offset))
    }

    /// Finds one offset of each partition. A partition that cannot answer has its own error.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn lookup_offsets(
        &self,
        partitions: &[TopicPartition],
        at: OffsetAt,
    ) -> Result<Vec<(TopicPartition, Result<Offset>)>> {
        let queries = partitions.iter().map(|partition| v1::OffsetQuery {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
            position: Some(at.to_wire()),
        });
        let request = v1::LookupOffsetsRequest { queries: queries.collect() };
        let reply =
            self.client.connection().lookup_offsets(request, self.client.deadline()).await?;
        if reply.answers.len() != partitions.len() {
            return Err(missing("answer to every question"));
        }
        let answer = |answer: v1::OffsetAnswer| match answer.error {
            Some(error) => Err(Error::from_wire(&error)),
            None => Ok(Offset(answer.offset)),
        };
        Ok(partitions.iter().cloned().zip(reply.answers.into_iter().map(answer)).collect())
    }

    /// Every group, by name.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn list_groups(&self) -> Result<Vec<GroupSummary>> {
        let request = v1::ListGroupsRequest {};
        let reply = self.client.connection().list_groups(request, self.client.deadline()).await?;
        Ok(reply.groups.into_iter().map(GroupSummary::from_wire).collect())
    }

    /// One group: members, assignment, stored offsets and lag.
    ///
    /// # Errors
    /// `UnknownGroup`.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let request = v1::DescribeGroupRequest { group: group.to_owned() };
        let reply =
            self.client.connection().describe_group(request, self.client.deadline()).await?;
        Ok(GroupDescription::from_wire(reply))
    }

    /// Lag of a group on each of its partitions.
    ///
    /// # Errors
    /// `UnknownGroup`.
    pub async fn lag(&self, group: &str) -> Result<Vec<GroupPartition>> {
        Ok(self.describe_group(group).await?.partitions)
    }

    /// Moves the stored offsets of a group, also while it has members. Await the result to do it, or
    /// call [`ResetOffsets::dry_run`] first to only see it.
    pub fn reset_offsets(&self, group: &str, to: Reset) -> ResetOffsets {
        ResetOffsets::new(self.client.clone(), group, to)
    }

    /// Deletes a group without members, and its stored offsets.
    ///
    /// # Errors
    /// `UnknownGroup`; `GroupNotEmpty`.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = v1::DeleteGroupRequest { group: group.to_owned() };
        self.client.connection().delete_group(request, self.client.deadline()).await?;
        Ok(())
    }

    /// Follows the visible range of every partition of `topics` without reading records. It starts
    /// with the state of each and goes on over reconnects.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub async fn watch<T: AsRef<str>>(&self, topics: impl IntoIterator<Item = T>) -> Result<Watch> {
        let mut partitions = Vec::new();
        for topic in topics {
            let topic = self.topic(topic.as_ref()).await?.topic;
            partitions.push(v1::WatchPartition { topic, partition: 0, all_partitions: true });
        }
        Watch::open(self.client.clone(), partitions).await
    }

    /// Follows single partitions, as [`Admin::watch`]. One that is not there says so in its first state.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn watch_partitions(&self, partitions: &[TopicPartition]) -> Result<Watch> {
        let partitions = partitions.iter().map(|partition| v1::WatchPartition {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
            all_partitions: false,
        });
        Watch::open(self.client.clone(), partitions.collect()).await
    }
}

/// The reply left out `what`, which the protocol requires.
fn missing(what: &str) -> Error {
    Error::new(ErrorCode::Protocol, format!("the broker's reply has no {what}"))
}
