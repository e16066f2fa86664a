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
    quota::Share,
    stream::{Stream, StreamFacts},
    topic::{catalog::id_bytes, error::TopicError, live::Topic, name::check_topic_name},
};

/// A stream to create.
#[derive(Debug)]
pub struct NewStream {
    /// Its name.
    pub name: String,
    /// What it is.
    pub facts: StreamFacts,
    /// Largest batch of it in bytes, when it is not the default.
    pub message_bytes_max: Option<u32>,
    /// What it begins with; what was taken for a batch is given back once it is in the log.
    pub content: Vec<(RecordBatch, Share)>,
}

impl Registry {
    /// Creates a stream. It is there with all of its content or not at all. Once begun it should not be cancelled.
    ///
    /// # Errors
    /// Names what is not allowed; nothing was created then.
    pub async fn create_stream(&self, new: NewStream) -> Result<Arc<Topic>, TopicError> {
        let NewStream { name, facts, message_bytes_max, content } = new;
        let given = v1::TopicConfig {
            retention_ms: Some(-1),
            message_bytes_max,
            ..v1::TopicConfig::default()
        };
        let topic = NewTopic { name, partition_count: 1, given, validate_only: false };
        self.create_with(topic, Some((facts, content))).await
    }

    /// Refuses a stream for which there is no name or no room, before anything is read for it.
    ///
    /// # Errors
    /// Names what is not allowed.
    pub fn check_new_stream(&self, name: &str) -> Result<(), TopicError> {
        check_topic_name(name)?;
        Ok(self.check_room(1, 1)?)
    }

    /// Deletes a stream as its owner does: for good, or, while forks of it stand, so that its name stays taken.
    /// Sources that were kept for this one alone go with it. Once begun it should not be cancelled.
    ///
    /// # Errors
    /// When the change could not be stored.
    pub async fn delete_stream(&self, topic_id: TopicId) -> Result<(), TopicError> {
        let _change = self.change.lock().await;
        match self.live(topic_id) {
            Some(topic) => self.delete_stream_locked(&topic).await,
            None => Ok(()),
        }
    }

    /// Streams that may go: their time is over, or they were kept for forks that are gone.
    pub fn streams_over(&self) -> Vec<TopicId> {
        let log = self.log.partition();
        if log.failure().is_some() || log.read_only().is_some() {
            return Vec::new();
        }
        let now_ms = self.clock.steady_ms();
        let may_be_over = |topic: &Arc<Topic>| {
            let stream = topic.stream.as_ref()?;
            let is_deleted = stream.facts().is_deleted;
            (is_deleted || stream.is_expired(now_ms)).then_some((topic.id, is_deleted))
        };
        let mut over: Vec<_> = self.topics.read().values().filter_map(may_be_over).collect();
        over.retain(|(topic_id, is_deleted)| !(*is_deleted && self.has_forks(*topic_id)));
        over.into_iter().map(|(topic_id, _)| topic_id).collect()
    }

    /// Removes one of [`Registry::streams_over`], unless somebody uses it. Once begun it should not be cancelled.
    ///
    /// # Errors
    /// When the change could not be stored.
    pub async fn remove_stream(&self, topic_id: TopicId) -> Result<(), TopicError> {
        let _change = self.change.lock().await;
        match self.live(topic_id) {
            Some(topic) => self.remove_over(&topic).await,
            None => Ok(()),
        }
    }

    /// Removes a stream whose time is over while `change` is held: as its owner would delete it.
    pub(super) async fn remove_over(&self, topic: &Topic) -> Result<(), TopicError> {
        let Some(stream) = &topic.stream else { return Ok(()) };
        if !stream.facts().is_deleted && !stream.end(self.clock.steady_ms()) {
            return Ok(());
        }
        let removed = self.delete_stream_locked(topic).await;
        if removed.is_err() {
            stream.revive();
        }
        removed
    }

    async fn delete_stream_locked(&self, topic: &Topic) -> Result<(), TopicError> {
        let Some(stream) = &topic.stream else { return Ok(()) };
        if !self.has_forks(topic.id) {
            self.delete_locked(topic).await?;
            self.release(stream.facts()).await;
            return Ok(());
        }
        if !stream.facts().is_deleted {
            let topic_id = id_bytes(topic.id);
            self.commit(Command::StreamDeleted(StreamDeleted { topic_id })).await?;
            self.publish(marked_deleted(topic, stream));
        }
        Ok(())
    }

    /// Deletes the source of a fork that is gone, when it was kept for that alone; and its source, and so on. What
    /// cannot be deleted now is among the [`Registry::streams_over`].
    async fn release(&self, gone: &StreamFacts) {
        let mut origin = gone.origin.clone();
        while let Some(source) = origin.and_then(|origin| self.live(origin.topic_id)) {
            let facts = source.stream.as_ref().map(|stream| stream.facts().clone());
            let Some(facts) = facts.filter(|facts| facts.is_deleted) else { return };
            if self.has_forks(source.id) {
                return;
            }
            if let Err(error) = self.delete_locked(&source).await {
                return tracing::warn!(topic = %source.name, %error, "a source without forks is left");
            }
            origin = facts.origin;
        }
    }

    /// A live topic by id.
    fn live(&self, topic_id: TopicId) -> Option<Arc<Topic>> {
        let name =
            self.with_catalog(|catalog| Some(catalog.topic_by_id(topic_id)?.name.clone()))?;
        self.topic(&name).ok()
    }

    /// True when a fork of this stream stands.
    pub fn has_forks(&self, topic_id: TopicId) -> bool {
        self.with_catalog(|catalog| catalog.has_forks(topic_id))
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
