//! Streams among the topics: created with what they begin with, deleted while forks stand, expired.
//!
//! A fork has its records itself, so nothing of its source is needed to read it. What the source is kept for is its
//! name: as long as a fork stands, a source that its owner deleted stays and says so, and nobody gets its name.

use std::sync::Arc;

use riverrun_proto::{
    RecordBatch, TopicId,
    grpc::{
        state::v1::{StreamDeleted, metadata_command::Command},
        v1,
    },
};

use super::{NewTopic, Registry};
use crate::{
    stream::{Stream, StreamFacts},
    topic::{catalog::id_bytes, error::TopicError, live::Topic},
};

/// A stream to create.
#[derive(Clone, Debug)]
pub struct NewStream {
    /// Its name.
    pub name: String,
    /// What it is.
    pub facts: StreamFacts,
    /// What it begins with.
    pub content: Vec<RecordBatch>,
}

impl Registry {
    /// Creates a stream. It is there with all of its content or not at all. Once begun it should not be cancelled.
    ///
    /// # Errors
    /// Names what is not allowed; nothing was created then.
    pub async fn create_stream(&self, new: NewStream) -> Result<Arc<Topic>, TopicError> {
        let NewStream { name, facts, content } = new;
        let given = v1::TopicConfig { retention_ms: Some(-1), ..v1::TopicConfig::default() };
        let topic = NewTopic { name, partition_count: 1, given, validate_only: false };
        self.create_with(topic, Some((facts, content))).await
    }

    /// Deletes a stream as its owner does: for good, or, while forks of it stand, so that its name stays taken.
    /// Sources that were kept for this one alone go with it. Once begun it should not be cancelled.
    ///
    /// # Errors
    /// When it does not exist, or the change could not be stored.
    pub async fn delete_stream(&self, topic_id: TopicId) -> Result<(), TopicError> {
        let _change = self.change.lock().await;
        let Some(topic) = self.live(topic_id) else { return Ok(()) };
        let Some(stream) = &topic.stream else { return Ok(()) };
        if self.has_forks(topic_id) {
            if stream.facts().is_deleted {
                return Ok(());
            }
            let topic_id = id_bytes(topic_id);
            self.commit(Command::StreamDeleted(StreamDeleted { topic_id })).await?;
            self.publish(marked_deleted(&topic, stream));
            return Ok(());
        }
        self.delete_locked(&topic).await?;
        self.release(stream.facts()).await
    }

    /// Deletes streams that have expired, and those that were kept for forks that are gone.
    pub async fn delete_expired_streams(&self) {
        let log = self.log.partition();
        if log.failure().is_some() || log.read_only().is_some() {
            return;
        }
        let now_ms = self.clock.steady_ms();
        let may_be_over = |topic: &Arc<Topic>| {
            let stream = topic.stream.as_ref()?;
            let is_deleted = stream.facts().is_deleted;
            (is_deleted || stream.is_expired(now_ms)).then_some((topic.id, is_deleted))
        };
        let over: Vec<_> = self.topics.read().values().filter_map(may_be_over).collect();
        for (topic_id, is_deleted) in over {
            if is_deleted && self.has_forks(topic_id) {
                continue;
            }
            if let Err(error) = self.delete_stream(topic_id).await {
                tracing::warn!(%topic_id, %error, "an expired stream is still there");
            }
        }
    }

    /// Deletes the source of a fork that is gone, when it was kept for that alone; and its source, and so on.
    async fn release(&self, gone: &StreamFacts) -> Result<(), TopicError> {
        let mut origin = gone.origin.clone();
        while let Some(source) = origin.and_then(|origin| self.live(origin.topic_id)) {
            let facts = source.stream.as_ref().map(|stream| stream.facts().clone());
            let Some(facts) = facts.filter(|facts| facts.is_deleted) else { return Ok(()) };
            if self.has_forks(source.id) {
                return Ok(());
            }
            self.delete_locked(&source).await?;
            origin = facts.origin;
        }
        Ok(())
    }

    /// A live topic by id.
    fn live(&self, topic_id: TopicId) -> Option<Arc<Topic>> {
        let name =
            self.with_catalog(|catalog| Some(catalog.topic_by_id(topic_id)?.name.clone()))?;
        self.topic(&name).ok()
    }

    /// True when a fork of this stream stands.
    fn has_forks(&self, topic_id: TopicId) -> bool {
        self.with_catalog(|catalog| {
            let mut origins =
                catalog.topics().filter_map(|topic| topic.stream.as_ref()?.origin.as_ref());
            origins.any(|origin| origin.topic_id == topic_id)
        })
    }
}

fn marked_deleted(topic: &Topic, stream: &Stream) -> Topic {
    let facts = StreamFacts { is_deleted: true, ..stream.facts().clone() };
    Topic {
        id: topic.id,
        name: topic.name.clone(),
        given: topic.given,
        config: topic.config.clone(),
        stream: Some(Arc::new(Stream::new(facts, 0))),
        partitions: topic.partitions.clone(),
    }
}
