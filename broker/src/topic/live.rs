//! One live topic: what is read of it on the hot path. Replaced as a whole by each change.

use std::sync::Arc;

use riverrun_proto::{TopicId, grpc::v1};

use super::{
    config::TopicConfig,
    error::{FindError, TopicIdMismatch, TopicIsStream, UnknownTopicOrPartition},
};
use crate::{
    partition::{Partition, PartitionFailed},
    stream::Stream,
};

/// One live topic as it is now.
#[derive(Debug)]
pub struct Topic {
    /// Identity.
    pub id: TopicId,
    /// Name.
    pub name: Arc<str>,
    /// Settings that were given.
    pub given: v1::TopicConfig,
    /// Settings in force.
    pub config: TopicConfig,
    /// Set when it is a stream.
    pub stream: Option<Arc<Stream>>,
    /// Partitions by number.
    pub partitions: Vec<Slot>,
}

/// Place of a partition in its topic.
#[derive(Clone, Debug)]
pub enum Slot {
    /// Open, though it may refuse writes.
    Open(Arc<Partition>),
    /// It could not be opened; nothing of it is served.
    Failed(PartitionFailed),
}

impl Topic {
    /// Partitions it has.
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Refuses another id than the topic's. An empty one matches.
    ///
    /// # Errors
    /// Names both ids.
    pub fn check_id(&self, topic_id: &[u8]) -> Result<(), TopicIdMismatch> {
        if topic_id.is_empty() || topic_id == self.id.0.as_bytes() {
            return Ok(());
        }
        let found = TopicId::from_slice(topic_id);
        let found = found.map_or_else(|| format!("{} bytes", topic_id.len()), |id| id.to_string());
        Err(TopicIdMismatch { topic: self.name.to_string(), current: self.id, found })
    }

    /// Refuses a change that only the stream's own door makes, when it is a stream.
    ///
    /// # Errors
    /// Names the topic.
    pub fn refuse_stream(&self) -> Result<(), TopicIsStream> {
        match &self.stream {
            None => Ok(()),
            Some(_) => Err(TopicIsStream { topic: self.name.to_string() }),
        }
    }

    /// One of its partitions.
    ///
    /// # Errors
    /// When it is not there or could not be opened.
    pub fn partition(&self, partition: u32) -> Result<Arc<Partition>, FindError> {
        match self.partitions.get(partition as usize) {
            Some(Slot::Open(open)) => Ok(open.clone()),
            Some(Slot::Failed(failure)) => Err(failure.clone().into()),
            None => Err(UnknownTopicOrPartition::Partition {
                topic: self.name.to_string(),
                partition,
                partition_count: self.partition_count(),
            }
            .into()),
        }
    }

    /// Those of its partitions that could be opened.
    pub fn open_partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().filter_map(|slot| match slot {
            Slot::Open(partition) => Some(partition),
            Slot::Failed(_) => None,
        })
    }
}
