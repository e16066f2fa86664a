//! Admin: describes and changes topics.
//!
//! A change runs in a task of its own, so that a caller who goes away does not leave it half done.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use riverrun_proto::Offset;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    partition::{MaintainError, PartitionFailed},
    service::group::check_count,
    topic::{
        Registry, Topic,
        error::{FindError, InvalidField, TopicError, TopicIsStream, UnknownTopicOrPartition},
        registry::{NewTopic, TopicChange},
    },
};

/// Most topics that one request for metadata may name.
pub const TOPICS_MAX: usize = 10_000;

/// The cluster, as its one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Id made when the data directory was created.
    pub cluster_id: Uuid,
    /// Id of this node.
    pub node_id: u32,
}

/// Records that were not deleted.
#[derive(Debug, Error)]
pub enum DeleteRecordsError {
    /// The partition cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The topic is a stream.
    #[error(transparent)]
    Stream(#[from] TopicIsStream),
    /// The partition refused.
    #[error(transparent)]
    Maintain(#[from] MaintainError),
}

/// What there is under a name, and the name.
pub type NamedTopic = (Result<Arc<Topic>, UnknownTopicOrPartition>, String);

/// Describes and changes topics.
#[derive(Debug)]
pub struct AdminService {
    registry: Arc<Registry>,
    cluster: ClusterInfo,
}

impl AdminService {
    /// A service over `registry`.
    pub fn new(registry: Arc<Registry>, cluster: ClusterInfo) -> AdminService {
        AdminService { registry, cluster }
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterInfo {
        &self.cluster
    }

    /// Why the broker is not what it should be until it is started again, when that is so.
    pub fn failure(&self) -> Option<PartitionFailed> {
        self.registry.failure()
    }

    /// A topic.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>, UnknownTopicOrPartition> {
        self.registry.topic(name)
    }

    /// The topics of these names, each once however often it is named, in the order of the first time. With its name each, also where
    /// there is none.
    ///
    /// # Errors
    /// When there are too many names.
    pub fn named_topics(&self, mut names: Vec<String>) -> Result<Vec<NamedTopic>, InvalidField> {
        check_count("topics", names.len(), TOPICS_MAX)?;
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        Ok(names.into_iter().map(|name| (self.topic(&name), name)).collect())
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.registry.topics()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// Names what is not allowed.
    pub async fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, TopicError> {
        let registry = self.registry.clone();
        to_its_end(async move { registry.create(new).await }).await
    }

    /// Changes a topic.
    ///
    /// # Errors
    /// Names what is not allowed.
    pub async fn alter_topic(&self, change: TopicChange) -> Result<Arc<Topic>, TopicError> {
        let registry = self.registry.clone();
        to_its_end(async move { registry.alter(change).await }).await
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// When it does not exist or its deletion cannot be stored.
    pub async fn delete_topic(&self, name: String, topic_id: Vec<u8>) -> Result<(), TopicError> {
        let registry = self.registry.clone();
        to_its_end(async move { registry.delete(&name, &topic_id).await }).await
    }

    /// Deletes the records of a partition before an offset. Returns the first offset kept.
    ///
    /// # Errors
    /// When the partition cannot be found, or the offset is past its visible end.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: u32,
        before: Offset,
    ) -> Result<Offset, DeleteRecordsError> {
        let topic = self.registry.topic(topic).map_err(FindError::from)?;
        topic.refuse_stream()?;
        let partition = topic.partition(partition)?;
        Ok(partition.drop_before(before).await?)
    }
}

/// Runs `change` to its end even when the caller goes away.
pub(super) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, TopicError>> + Send + 'static,
) -> Result<T, TopicError> {
    tokio::spawn(change).await.unwrap_or(Err(TopicError::Interrupted))
}
