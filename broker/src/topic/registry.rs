//! Name to partitions: the live topics, and the one place where they change.
//!
//! A change is decided here, logged as a command, and only then applied; one change at a time. What is
//! read on the hot path is a [`Topic`], replaced as a whole by each change.
//!
//! Order of a creation: `prepared` is logged, the directories are made, `created` is logged, the topic can
//! be found. Of a deletion: `deleted` is logged, the topic cannot be found, its partitions are closed, the
//! directories go, `purged` is logged. A crash anywhere leaves an id that the next start removes, or
//! nothing; directories that no command dooms are never removed.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message;
use riverrun_proto::{
    PartitionId, TopicId,
    grpc::{
        state::v1::{
            MetadataCommand, MetadataSnapshot, TopicAltered, TopicCreated, TopicDeleted,
            TopicPrepared, TopicPurged, metadata_command::Command,
        },
        v1,
    },
    limits::PARTITION_COUNT_MAX,
};
use tokio::{
    sync::{Mutex, watch},
    task,
};
use uuid::Uuid;

use super::{
    catalog::{Catalog, id_bytes},
    config::{TopicConfig, forget, overlaid},
    error::{FindError, InvalidField, TopicError, TopicIdMismatch, UnknownTopicOrPartition},
    name::check_topic_name,
    settings::partition_settings,
};
use crate::{
    clock::Clock,
    partition::{
        Partition, PartitionFailed, PartitionOpener, StateLog,
        directory::OpenError,
        state_log::{PAYLOAD_BYTES_MAX, Replay, StoreError},
    },
    quota::QuotaExceeded,
};

/// A snapshot is made after so many commands.
const COMMANDS_PER_SNAPSHOT: u64 = 1_000;

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

/// Bounds of all topics.
#[derive(Clone, Copy, Debug)]
pub struct RegistryLimits {
    /// Most topics.
    pub topics_max: u32,
    /// Most partitions over all topics.
    pub partitions_max: u32,
}

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

/// The live topics.
#[derive(Debug)]
pub struct Registry {
    log: StateLog,
    opener: PartitionOpener,
    clock: Clock,
    limits: RegistryLimits,
    /// All metadata. Changed under `change`.
    catalog: RwLock<Catalog>,
    /// Live topics by name. Changed under `change`.
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    /// Held for the length of one change.
    pub(super) change: Mutex<ReservedIds>,
    /// Counts changes of topics.
    version: watch::Sender<u64>,
    /// Some producer epoch was raised: the catalog must be asked.
    any_producer_epoch: AtomicBool,
}

/// Producer ids that are logged as handed out and are not yet.
#[derive(Debug, Default)]
pub(super) struct ReservedIds {
    /// Next to hand out.
    pub(super) next: i64,
    /// First that is not reserved.
    pub(super) end: i64,
}

impl Registry {
    /// Folds the metadata log and opens every partition. Blocks.
    ///
    /// # Errors
    /// When the metadata log contradicts itself. A partition that cannot be opened is no error: it is
    /// served as failed, the others as ever.
    pub fn open(
        (log, replay): (StateLog, Replay),
        opener: PartitionOpener,
        limits: RegistryLimits,
    ) -> Result<Registry, RegistryError> {
        let catalog = fold(replay)?;
        warn_of_strangers(&opener, &catalog);
        let topics = open_topics(&opener, &catalog);
        let next = catalog.next_producer_id();
        let raised = !catalog.to_snapshot().producer_epochs.is_empty();
        Ok(Registry {
            log,
            clock: opener.clock.clone(),
            opener,
            limits,
            catalog: RwLock::new(catalog),
            topics: RwLock::new(topics),
            change: Mutex::new(ReservedIds { next, end: next }),
            version: watch::Sender::new(0),
            any_producer_epoch: AtomicBool::new(raised),
        })
    }

    /// Removes the directories that logged commands doomed: what a crash interrupted.
    pub async fn remove_doomed(&self) {
        let _change = self.change.lock().await;
        let doomed: Vec<_> = self.catalog.read().doomed().collect();
        for topic_id in doomed {
            self.purge(topic_id).await;
        }
    }

    /// A live topic.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>, UnknownTopicOrPartition> {
        let unknown = || UnknownTopicOrPartition::Topic { topic: name.chars().take(300).collect() };
        self.topics.read().get(name).cloned().ok_or_else(unknown)
    }

    /// Every live topic, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.topics.read().values().cloned().collect();
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        topics
    }

    /// One partition. An empty `topic_id` matches any.
    ///
    /// # Errors
    /// When it is not there, not the one meant, or could not be opened.
    pub fn partition(
        &self,
        name: &str,
        topic_id: &[u8],
        partition: u32,
    ) -> Result<Arc<Partition>, FindError> {
        let topic = self.topic(name)?;
        topic.check_id(topic_id)?;
        topic.partition(partition)
    }

    /// Every open partition, of topics and of the broker itself.
    pub fn open_partitions(&self) -> Vec<Arc<Partition>> {
        let topics = self.topics.read();
        topics.values().flat_map(|topic| topic.open_partitions().cloned()).collect()
    }

    /// Counts changes of topics; a receiver sees that something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The log below, for shutdown.
    pub fn log(&self) -> &StateLog {
        &self.log
    }

    /// Creates a topic. Once begun it should not be cancelled; run it in a task of its own.
    ///
    /// # Errors
    /// Names what is not allowed; nothing was created then.
    pub async fn create(&self, new: NewTopic) -> Result<Arc<Topic>, TopicError> {
        let _change = self.change.lock().await;
        let entry = self.check_new(&new)?;
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
        });
        let slots = match self.open_new(&entry, 0).await {
            Ok(slots) => slots,
            Err(error) => {
                self.purge(entry.id).await;
                return Err(error);
            }
        };
        // Where nobody can say whether this was stored, the next start finds the directories or removes them.
        self.commit(created).await?;
        Ok(self.publish(entry.into_topic(slots)))
    }

    /// Changes a topic while it runs. Once begun it should not be cancelled.
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
        let added = self.open_new(&entry, topic.partition_count()).await?;
        let altered = Command::TopicAltered(TopicAltered {
            topic_id: id_bytes(topic.id),
            partitions: entry.partition_count,
            overrides: Some(entry.given),
        });
        self.commit(altered).await?;
        for partition in topic.open_partitions() {
            let id = partition.partition_id();
            partition.reconfigure(partition_settings(topic.id, id, &entry.config)).await?;
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
        self.commit(Command::TopicDeleted(TopicDeleted { topic_id: id_bytes(topic.id) })).await?;
        self.topics.write().remove(&topic.name);
        self.changed();
        for partition in topic.open_partitions() {
            if let Err(error) = partition.close().await {
                tracing::info!(partition = %partition.name(), %error, "closed for deletion");
            }
        }
        self.purge(topic.id).await;
        Ok(())
    }

    /// Logs a command and applies it.
    pub(super) async fn commit(&self, command: Command) -> Result<(), TopicError> {
        let command = MetadataCommand { time_ms: self.clock.wall_ms(), command: Some(command) };
        let bytes = Bytes::from(command.encode_to_vec());
        self.log.append(bytes, |_| self.catalog.write().apply(&command)).await??;
        if self.log.deltas_since_snapshot().0 >= COMMANDS_PER_SNAPSHOT
            && let Err(error) = self.snapshot().await
        {
            tracing::warn!(%error, "metadata snapshot not made; the next command tries again");
        }
        Ok(())
    }

    /// Reads the catalog.
    pub(super) fn with_catalog<T>(&self, read: impl FnOnce(&Catalog) -> T) -> T {
        read(&self.catalog.read())
    }

    /// Some producer epoch was raised.
    pub(super) fn any_producer_epoch(&self) -> &AtomicBool {
        &self.any_producer_epoch
    }

    /// Stores a snapshot of the metadata, so that the next start reads little.
    ///
    /// # Errors
    /// When it could not be stored; the log is as good as before.
    pub async fn snapshot(&self) -> Result<(), StoreError> {
        let make = || {
            let whole = Bytes::from(self.catalog.read().to_snapshot().encode_to_vec());
            (0..whole.len().max(1))
                .step_by(PAYLOAD_BYTES_MAX)
                .map(|start| whole.slice(start..whole.len().min(start + PAYLOAD_BYTES_MAX)))
                .collect()
        };
        self.log.snapshot(make).await
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
            id: TopicId(Uuid::new_v4()),
            name: new.name.as_str().into(),
            partition_count,
            given: new.given,
            config,
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
        self.check_room(0, partition_count - now)?;
        Ok(Entry { id: topic.id, name: topic.name.clone(), partition_count, given, config })
    }

    fn check_room(&self, topics: usize, partitions: u32) -> Result<(), QuotaExceeded> {
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
        Ok(())
    }

    /// Makes the partitions from number `first` on.
    async fn open_new(&self, entry: &Entry, first: u32) -> Result<Vec<Slot>, TopicError> {
        let opener = self.opener.clone();
        let (id, config, count) = (entry.id, entry.config.clone(), entry.partition_count);
        let opened = task::spawn_blocking(move || {
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

    /// Removes the directories of a doomed topic. What cannot be removed now goes at the next start.
    async fn purge(&self, topic_id: TopicId) {
        let opener = self.opener.clone();
        let removed = task::spawn_blocking(move || opener.remove_topic(topic_id)).await;
        match removed {
            Ok(Ok(())) => {
                let purged = TopicPurged { topic_id: id_bytes(topic_id) };
                if let Err(error) = self.commit(Command::TopicPurged(purged)).await {
                    tracing::warn!(%topic_id, %error, "removal of a topic not logged");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%topic_id, %error, "files of a deleted topic are left")
            }
            Err(_) => tracing::warn!(%topic_id, "removal of a deleted topic was interrupted"),
        }
    }

    fn publish(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        self.topics.write().insert(topic.name.clone(), topic.clone());
        self.changed();
        topic
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
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
}

impl Entry {
    fn into_topic(self, partitions: Vec<Slot>) -> Topic {
        let Entry { id, name, partition_count: _, given, config } = self;
        Topic { id, name, given, config, partitions }
    }
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

/// Metadata that cannot be folded. The broker does not start, and changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A record is not a command.
    #[error("metadata log: record at offset {offset} is not a command: {source}")]
    Malformed {
        /// Where; 0 for the snapshot.
        offset: u64,
        /// Why.
        source: prost::DecodeError,
    },
    /// A command contradicts those before it.
    #[error("metadata log: at offset {offset}: {source}")]
    Contradiction {
        /// Where; 0 for the snapshot.
        offset: u64,
        /// Why.
        source: super::catalog::CatalogError,
    },
}

fn fold(replay: Replay) -> Result<Catalog, RegistryError> {
    let whole: Vec<u8> = replay.snapshot.concat();
    let snapshot = MetadataSnapshot::decode(whole.as_slice())
        .map_err(|source| RegistryError::Malformed { offset: 0, source })?;
    let mut catalog = Catalog::from_snapshot(&snapshot)
        .map_err(|source| RegistryError::Contradiction { offset: 0, source })?;
    for (offset, delta) in replay.deltas {
        let offset = offset.0;
        let command = MetadataCommand::decode(delta)
            .map_err(|source| RegistryError::Malformed { offset, source })?;
        catalog
            .apply(&command)
            .map_err(|source| RegistryError::Contradiction { offset, source })?;
    }
    Ok(catalog)
}

/// Directories that belong to no topic are named and left alone.
fn warn_of_strangers(opener: &PartitionOpener, catalog: &Catalog) {
    let doomed: Vec<_> = catalog.doomed().collect();
    for topic_id in opener.topic_dirs().unwrap_or_default() {
        let is_internal = topic_id.0.as_u128() < 1 << 16;
        let known = catalog.topic_by_id(topic_id).is_some() || doomed.contains(&topic_id);
        if !is_internal && !known {
            tracing::warn!(%topic_id, "directory in `logs` belongs to no topic; it is left alone");
        }
    }
}

/// Opens all partitions, several at once.
fn open_topics(opener: &PartitionOpener, catalog: &Catalog) -> HashMap<Arc<str>, Arc<Topic>> {
    let entries: Vec<_> = catalog.topics().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) * 2;
    let share = entries.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = entries
            .chunks(share)
            .map(|entries| {
                scope.spawn(|| {
                    entries.iter().map(|entry| open_topic(opener, entry)).collect::<Vec<_>>()
                })
            })
            .collect();
        let opened =
            workers.into_iter().flat_map(|worker| worker.join().expect("opening does not panic"));
        opened.map(|topic| (topic.name.clone(), Arc::new(topic))).collect()
    })
}

fn open_topic(opener: &PartitionOpener, entry: &super::catalog::TopicEntry) -> Topic {
    let partitions = (0..entry.partition_count).map(|number| {
        let settings = partition_settings(entry.id, PartitionId(number), &entry.config);
        match opener.open_existing(settings) {
            Ok(partition) => Slot::Open(partition),
            Err(error) => {
                tracing::error!(topic = %entry.name, partition = number, %error, "partition not opened");
                Slot::Failed(PartitionFailed { reason: error.to_string().into(), damaged: None })
            }
        }
    });
    let partitions = partitions.collect();
    let (id, name, given) = (entry.id, entry.name.clone(), entry.given);
    Topic { id, name, given, config: entry.config.clone(), partitions }
}

fn check_partition_count(count: u32, min: u32) -> Result<(), InvalidField> {
    if (min..=PARTITION_COUNT_MAX).contains(&count) {
        return Ok(());
    }
    let expected = format!("{min} to {PARTITION_COUNT_MAX}");
    Err(InvalidField { field: "partitions", expected, found: count.to_string() })
}
