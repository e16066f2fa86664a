//! Changes of topics: checked, logged as a command, then applied.

use std::{sync::Arc, time::Duration};

use crate::blocking::new_uuid;
use riverrun_proto::{
    PartitionId, RecordBatch, TopicId,
    grpc::{
        state::v1::{
            TopicAltered, TopicCreated, TopicDeleted, TopicPrepared, TopicPurged,
            metadata_command::Command,
        },
        v1,
    },
    limits::PARTITION_COUNT_MAX,
};

use super::Registry;
use crate::{
    partition::{
        Append, AppendError, Completer, Durability, WaitFor, directory::OpenError,
        state_log::StoreError,
    },
    quota::{QuotaExceeded, Share},
    stream::{Stream, StreamFacts},
    topic::{
        catalog::id_bytes,
        config::{CleanupPolicy, TopicConfig, forget, overlaid},
        error::{InvalidField, TopicError},
        live::{Slot, Topic},
        name::check_topic_name,
        settings::partition_settings,
    },
};

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Partitions; 0 means 1.
    pub partition_count: u32,
    /// Settings that differ from the defaults.
    pub given: v1::TopicConfig,
    /// Check everything and create nothing.
    pub validate_only: bool,
}

/// A change of a topic.
#[derive(Clone, Debug)]
pub struct TopicChange {
    /// Its name.
    pub name: String,
    /// Partitions from now on; 0 leaves them.
    pub partition_count: u32,
    /// Settings to change.
    pub given: v1::TopicConfig,
    /// Settings to put back to their defaults.
    pub reset: Vec<String>,
    /// Check everything and change nothing.
    pub validate_only: bool,
}

impl Registry {
    /// Creates a topic. Once begun it should not be cancelled; run it in a task of its own.
    ///
    /// # Errors
    /// Names what is not allowed; nothing was created then.
    pub async fn create(&self, new: NewTopic) -> Result<Arc<Topic>, TopicError> {
        self.create_with(new, None).await
    }

    /// Creates a topic, or a stream with what it begins with: it is there with all of that or not at all.
    pub(super) async fn create_with(
        &self,
        new: NewTopic,
        stream: Option<(StreamFacts, Vec<(RecordBatch, Share)>)>,
    ) -> Result<Arc<Topic>, TopicError> {
        let _change = self.change.lock().await;
        // A stream whose time is over has no name any more.
        if !new.validate_only
            && let Ok(over) = self.topic(&new.name)
        {
            self.remove_over(&over).await?;
        }
        let mut entry = self.check_new(&new)?;
        let (facts, content) = stream.unzip();
        let message = facts.as_ref().map(StreamFacts::to_message);
        let now_ms = self.clock.steady_ms();
        entry.stream = facts.map(|facts| Arc::new(Stream::new(facts, now_ms)));
        if new.validate_only {
            return Ok(Arc::new(entry.into_topic(Vec::new())));
        }
        let topic_id = id_bytes(entry.id);
        self.commit(Command::TopicPrepared(TopicPrepared { topic_id: topic_id.clone() })).await?;
        let created = Command::TopicCreated(TopicCreated {
            topic_id,
            topic: new.name,
            partitions: entry.partition_count,
            overrides: Some(entry.given),
            stream: message,
        });
        let slots = match self.open_new(&entry, 0).await {
            Ok(slots) => slots,
            Err(error) => {
                self.remove_now(entry.id).await;
                return Err(error);
            }
        };
        if let Err(error) = fill(&slots, content.unwrap_or_default()).await {
            close(&slots).await;
            self.remove_now(entry.id).await;
            return Err(error.into());
        }
        // Where nobody can say whether this was stored, the next start finds the directories or removes them.
        self.commit(created).await?;
        Ok(self.publish(entry.into_topic(slots)))
    }

    /// Changes a topic while it runs. Once begun it should not be cancelled.
    ///
    /// The topic is changed once the command is logged, whatever its partitions say: one that does not take
    /// the new settings has stopped or is closed, and has them when it is opened again.
    ///
    /// # Errors
    /// Names what is not allowed; nothing was changed then.
    pub async fn alter(&self, change: TopicChange) -> Result<Arc<Topic>, TopicError> {
        let _change = self.change.lock().await;
        let topic = self.topic(&change.name)?;
        let entry = self.check_change(&topic, &change)?;
        if change.validate_only {
            return Ok(Arc::new(entry.into_topic(topic.partitions.clone())));
        }
        self.log.partition().check_writable().map_err(StoreError::from)?;
        let added = self.open_new(&entry, topic.partition_count()).await?;
        let altered = Command::TopicAltered(TopicAltered {
            topic_id: id_bytes(topic.id),
            partitions: entry.partition_count,
            overrides: Some(entry.given),
        });
        self.commit(altered).await?;
        for partition in topic.open_partitions() {
            let id = partition.partition_id();
            let settings = partition_settings(topic.id, id, &entry.config);
            if let Err(error) = partition.reconfigure(settings).await {
                tracing::warn!(partition = %partition.name(), %error, "new settings not in force");
            }
        }
        let slots = topic.partitions.iter().cloned().chain(added).collect();
        Ok(self.publish(entry.into_topic(slots)))
    }

    /// Deletes a topic and its records. Once begun it should not be cancelled.
    ///
    /// # Errors
    /// When it does not exist, or its deletion could not be stored; nothing was deleted then.
    pub async fn delete(&self, name: &str, topic_id: &[u8]) -> Result<(), TopicError> {
        let _change = self.change.lock().await;
        let topic = self.topic(name)?;
        topic.check_id(topic_id)?;
        self.delete_locked(&topic).await
    }

    /// Deletes a topic while `change` is held.
    pub(super) async fn delete_locked(&self, topic: &Topic) -> Result<(), TopicError> {
        self.commit(Command::TopicDeleted(TopicDeleted { topic_id: id_bytes(topic.id) })).await?;
        self.topics.write().remove(&topic.name);
        self.changed();
        close(&topic.partitions).await;
        self.remove_now(topic.id).await;
        Ok(())
    }

    /// Removes the directories that logged commands doomed and that are still there: a crash interrupted
    /// their removal, or other work on the files (a compaction, a flush) that has ended since. Costs nothing
    /// when there are none.
    pub async fn remove_doomed(&self) {
        if self.catalog.read().doomed().next().is_none() {
            return;
        }
        let _change = self.change.lock().await;
        let log = self.log.partition();
        if log.failure().is_some() || log.read_only().is_some() {
            // The last command may be in the log though nobody was told: what it created must stay.
            return;
        }
        let doomed: Vec<_> = self.catalog.read().doomed().collect();
        for topic_id in doomed {
            if let Err(error) = self.purge(topic_id).await {
                tracing::debug!(%topic_id, %error, "files of a deleted topic are still left");
            }
        }
    }

    /// Removes the directories of a doomed topic. What cannot be removed now goes by [`Registry::remove_doomed`].
    async fn remove_now(&self, topic_id: TopicId) {
        if let Err(error) = self.purge(topic_id).await {
            tracing::warn!(%topic_id, %error, "files of a deleted topic are left for now");
        }
    }

    fn check_new(&self, new: &NewTopic) -> Result<Entry, TopicError> {
        check_topic_name(&new.name)?;
        let partition_count = new.partition_count.max(1);
        check_partition_count(partition_count, 1)?;
        let config = TopicConfig::from_given(&new.given)?;
        if self.topics.read().contains_key(new.name.as_str()) {
            return Err(TopicError::Exists { topic: new.name.clone() });
        }
        self.check_room(1, partition_count)?;
        Ok(Entry {
            id: TopicId(new_uuid()),
            name: new.name.as_str().into(),
            partition_count,
            given: new.given,
            config,
            stream: None,
        })
    }

    fn check_change(&self, topic: &Topic, change: &TopicChange) -> Result<Entry, TopicError> {
        let mut given = topic.given;
        for name in &change.reset {
            forget(&mut given, name)?;
        }
        let given = overlaid(&given, &change.given);
        let config = TopicConfig::from_given(&given)?;
        let now = topic.partition_count();
        let partition_count =
            if change.partition_count == 0 { now } else { change.partition_count };
        check_partition_count(partition_count, now)?;
        let forgets = config.retention.is_some()
            || config.retention_bytes.is_some()
            || config.cleanup_policy != CleanupPolicy::Delete
            || config.durability != Durability::Fsync;
        if forgets || partition_count != now {
            topic.refuse_stream()?;
        }
        self.check_room(0, partition_count - now)?;
        let (id, name, stream) = (topic.id, topic.name.clone(), topic.stream.clone());
        Ok(Entry { id, name, partition_count, given, config, stream })
    }

    pub(super) fn check_room(&self, topics: usize, partitions: u32) -> Result<(), QuotaExceeded> {
        let catalog = self.catalog.read();
        let exceeded = |quota, limit: u32| QuotaExceeded {
            quota,
            limit: limit as usize,
            retry_after: Duration::ZERO,
        };
        if catalog.topic_count() + topics > self.limits.topics_max as usize {
            return Err(exceeded("limits.topics_max", self.limits.topics_max));
        }
        if catalog.partition_count() + u64::from(partitions) > u64::from(self.limits.partitions_max)
        {
            return Err(exceeded("limits.partitions_max", self.limits.partitions_max));
        }
        if partitions > 0 {
            let count = catalog.partition_count() + u64::from(partitions);
            self.opener.gauge.files().check(count)?;
        }
        Ok(())
    }

    /// Makes the partitions from number `first` on.
    async fn open_new(&self, entry: &Entry, first: u32) -> Result<Vec<Slot>, TopicError> {
        let opener = self.opener.clone();
        let (id, config, count) = (entry.id, entry.config.clone(), entry.partition_count);
        let opened = crate::blocking::run(move || {
            (first..count)
                .map(|number| {
                    opener
                        .open(partition_settings(id, PartitionId(number), &config))
                        .map(Slot::Open)
                })
                .collect::<Result<Vec<_>, OpenError>>()
        });
        Ok(opened.await.map_err(|_| TopicError::Interrupted)??)
    }

    /// Removes the directories of a doomed topic and logs that they are gone.
    async fn purge(&self, topic_id: TopicId) -> Result<(), TopicError> {
        let opener = self.opener.clone();
        let removed = crate::blocking::run(move || opener.remove_topic(topic_id)).await;
        removed.map_err(|_| TopicError::Interrupted)??;
        self.commit(Command::TopicPurged(TopicPurged { topic_id: id_bytes(topic_id) })).await
    }
}

/// A topic that is checked and not made yet.
#[derive(Debug)]
struct Entry {
    id: TopicId,
    name: Arc<str>,
    partition_count: u32,
    given: v1::TopicConfig,
    config: TopicConfig,
    stream: Option<Arc<Stream>>,
}

impl Entry {
    fn into_topic(self, partitions: Vec<Slot>) -> Topic {
        let Entry { id, name, partition_count: _, given, config, stream } = self;
        Topic { id, name, given, config, stream, partitions }
    }
}

/// Writes what a new topic begins with; it is on disk then, by one flush or few.
async fn fill(slots: &[Slot], content: Vec<(RecordBatch, Share)>) -> Result<(), AppendError> {
    let Some(Slot::Open(partition)) = slots.first() else { return Ok(()) };
    let wait = WaitFor::AtLeast(Durability::Fsync);
    let mut tickets = Vec::with_capacity(content.len());
    for (batch, share) in content {
        let (completer, ticket) = Completer::ticket();
        partition.append(Append { batch, wait, completer, share }).await;
        tickets.push(ticket);
    }
    for ticket in tickets {
        ticket.wait().await?;
    }
    Ok(())
}

/// Closes partitions that are to be removed.
async fn close(slots: &[Slot]) {
    for slot in slots {
        if let Slot::Open(partition) = slot
            && let Err(error) = partition.close().await
        {
            tracing::info!(partition = %partition.name(), %error, "closed for deletion");
        }
    }
}

fn check_partition_count(count: u32, min: u32) -> Result<(), InvalidField> {
    if (min..=PARTITION_COUNT_MAX).contains(&count) {
        return Ok(());
    }
    let expected = format!("{min} to {PARTITION_COUNT_MAX}");
    Err(InvalidField { field: "partitions", expected, found: count.to_string() })
}
