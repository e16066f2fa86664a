//! What can go wrong with topics.

use riverrun_proto::TopicId;
use thiserror::Error;

use super::{
    catalog::CatalogError,
    config::{InvalidSetting, UnknownSetting},
    name::InvalidTopicName,
};
use crate::{
    partition::{AppendError, PartitionFailed, directory::OpenError, state_log::StoreError},
    quota::QuotaExceeded,
};

/// A topic or partition that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnknownTopicOrPartition {
    /// No such topic.
    #[error("topic `{}` does not exist", .topic.escape_debug())]
    Topic {
        /// Its name.
        topic: String,
    },
    /// The topic has fewer partitions.
    #[error("topic `{}` has partitions 0 to {}, found {partition}", .topic.escape_debug(), .partition_count - 1)]
    Partition {
        /// Its name.
        topic: String,
        /// What was asked for.
        partition: u32,
        /// Partitions it has.
        partition_count: u32,
    },
}

/// A topic that was deleted and created again under the same name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`topic_id` of topic `{}` is {current}, found {found}", .topic.escape_debug())]
pub struct TopicIdMismatch {
    /// Its name.
    pub topic: String,
    /// Its id now.
    pub current: TopicId,
    /// What was asked for.
    pub found: String,
}

/// A change that would make a stream something else than its own door says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "topic `{topic}` is a stream: `/v1/stream/{topic}` alone writes it, and it keeps all of it"
)]
pub struct TopicIsStream {
    /// Its name.
    pub topic: String,
}

/// A partition that cannot be found.
#[derive(Clone, Debug, Error)]
pub enum FindError {
    /// Not there.
    #[error(transparent)]
    Unknown(#[from] UnknownTopicOrPartition),
    /// Another topic of the same name.
    #[error(transparent)]
    IdMismatch(#[from] TopicIdMismatch),
    /// It could not be opened at the start.
    #[error(transparent)]
    Failed(#[from] PartitionFailed),
}

/// A field outside its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{field}` must be {expected}, found `{found}`")]
pub struct InvalidField {
    /// Name as in the message.
    pub field: &'static str,
    /// What is allowed.
    pub expected: String,
    /// What came.
    pub found: String,
}

/// A change of topics that was refused or failed.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The name is not allowed.
    #[error(transparent)]
    Name(#[from] InvalidTopicName),
    /// A setting is not allowed.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// `reset` names no setting.
    #[error(transparent)]
    UnknownSetting(#[from] UnknownSetting),
    /// A field is not allowed.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The topic exists.
    #[error("topic `{topic}` exists")]
    Exists {
        /// Its name.
        topic: String,
    },
    /// The topic does not exist.
    #[error(transparent)]
    Unknown(#[from] UnknownTopicOrPartition),
    /// Another topic of the same name.
    #[error(transparent)]
    IdMismatch(#[from] TopicIdMismatch),
    /// It is a stream.
    #[error(transparent)]
    Stream(#[from] TopicIsStream),
    /// What it begins with could not be written.
    #[error("could not write what it begins with: {0}")]
    Content(#[from] AppendError),
    /// Too many topics or partitions.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// Its directories could not be made.
    #[error("could not make a partition: {0}")]
    Open(#[from] OpenError),
    /// The change could not be stored.
    #[error("could not store the change: {0}")]
    Store(#[from] StoreError),
    /// A bug: a checked command did not fit.
    #[error("metadata command does not fit: {0}")]
    Catalog(#[from] CatalogError),
    /// The thread that worked on it died.
    #[error("the work was interrupted")]
    Interrupted,
}

/// A producer that gets no id or epoch.
#[derive(Debug, Error)]
pub enum InitProducerError {
    /// A field is not allowed.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// A newer epoch exists.
    #[error("`producer_epoch` of producer {producer_id} is {current}, found {found}")]
    Fenced {
        /// The producer.
        producer_id: i64,
        /// Its epoch.
        current: i16,
        /// What came.
        found: i32,
    },
    /// The id was never given out.
    #[error("producer {producer_id} was never given out")]
    Unknown {
        /// What came.
        producer_id: i64,
    },
    /// The change could not be stored.
    #[error("could not store the change: {0}")]
    Store(#[from] StoreError),
    /// A bug: a checked command did not fit.
    #[error("metadata command does not fit: {0}")]
    Catalog(#[from] CatalogError),
    /// The task that worked on it died.
    #[error("the work was interrupted")]
    Interrupted,
}
