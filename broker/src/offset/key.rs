//! The name of a partition in everything that is stored: topic id and number.
//!
//! A topic created anew under the same name has another id, so nothing stored for the old one is ever
//! taken for the new one.

use std::fmt;

use riverrun_proto::TopicId;

/// One partition, by topic id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// Id of the topic.
    pub topic_id: TopicId,
    /// Partition number.
    pub partition: u32,
}

impl PartitionKey {
    /// Partition `partition` of the topic `topic_id`.
    pub fn new(topic_id: TopicId, partition: u32) -> PartitionKey {
        PartitionKey { topic_id, partition }
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}
