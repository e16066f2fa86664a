//! Name to partitions: the live topics, and the one place where they change.
//!
//! A change is decided here, logged as a command, and only then applied; one change at a time. What is
//! read on the hot path is a [`Topic`], replaced as a whole by each change.
//!
//! Order of a creation: `prepared` is logged, the directories are made, `created` is logged, the topic can
//! be found. Of a deletion: `deleted` is logged, the topic cannot be found, its partitions are closed, the
//! directories go, `purged` is logged. A crash anywhere leaves an id that the next start removes, or
//! nothing; directories that other work keeps from going are tried again while the broker runs; directories
//! that no command dooms are never removed.
//!
//! Memory is what the log says: what fails after a command was logged undoes nothing of it.

mod change;
mod start;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message;
use riverrun_proto::{
    TopicId,
    grpc::state::v1::{LogTakenIntoUse, MetadataCommand, metadata_command::Command},
};
use tokio::sync::{Mutex, watch};

pub use self::{
    change::{NewTopic, TopicChange},
    start::{RegistryError, is_log_in_use},
    streams::NewStream,
};
use super::{
    catalog::{Catalog, CatalogError, id_bytes},
    error::{FindError, TopicError, UnknownTopicOrPartition},
    live::Topic,
};
use crate::{
    clock::Clock,
    partition::{
        Partition, PartitionFailed, PartitionOpener, StateLog,
        state_log::{PAYLOAD_BYTES_MAX, Replay, StoreError},
    },
};

/// A snapshot is made after so many commands.
const COMMANDS_PER_SNAPSHOT: u64 = 1_000;

/// Bounds of all topics.
#[derive(Clone, Copy, Debug)]
pub struct RegistryLimits {
    /// Most topics.
    pub topics_max: u32,
    /// Most partitions over all topics.
    pub partitions_max: u32,
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
    /// Producer ids below were given out, or never will be.
    producer_ids_end: AtomicI64,
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
    /// When the metadata log contradicts itself, or there are more partitions than files may be open. A partition that cannot be opened is no error: it is
    /// served as failed, the others as ever.
    pub fn open(
        (log, replay): (StateLog, Replay),
        opener: PartitionOpener,
        limits: RegistryLimits,
    ) -> Result<Registry, RegistryError> {
        let catalog = start::fold(&replay)?;
        opener.gauge.files().check_start(catalog.partition_count())?;
        start::warn_of_strangers(&opener, &catalog);
        let topics = start::open_topics(&opener, &catalog);
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
            producer_ids_end: AtomicI64::new(next),
        })
    }

    /// Why nothing at all is appended any more, when the disk failed.
    pub fn disk_failure(&self) -> Option<&PartitionFailed> {
        self.opener.gauge.device().failure()
    }

    /// Why the broker is not what it should be until it is started again: the disk failed, or the log of topics has
    /// stopped, so that none can be created, changed or deleted.
    pub fn failure(&self) -> Option<PartitionFailed> {
        if let Some(disk) = self.disk_failure() {
            return Some(disk.clone());
        }
        let PartitionFailed { reason, .. } = self.log.partition().failure()?;
        Some(PartitionFailed::because(format!(
            "no topic can be created, changed or deleted, because the broker's log of them has stopped: {reason}"
        )))
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

    /// Logs a command and applies it.
    pub(super) async fn commit(&self, command: Command) -> Result<(), TopicError> {
        self.log_command(command).await??;
        if self.log.deltas_since_snapshot().0 >= COMMANDS_PER_SNAPSHOT
            && let Err(error) = self.snapshot().await
        {
            tracing::warn!(%error, "metadata snapshot not made; the next command tries again");
        }
        Ok(())
    }

    async fn log_command(&self, command: Command) -> Result<Result<(), CatalogError>, StoreError> {
        let command = MetadataCommand { time_ms: self.clock.wall_ms(), command: Some(command) };
        let bytes = Bytes::from(command.encode_to_vec());
        self.log.append(bytes, |_| self.catalog.write().apply(&command)).await
    }

    /// Makes durable that a log of the broker's own is in use, so that from then on it must be there. Once is enough.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn take_log_into_use(&self, log_id: TopicId) -> Result<(), StoreError> {
        let _change = self.change.lock().await;
        if self.with_catalog(|catalog| catalog.is_log_in_use(log_id)) {
            return Ok(());
        }
        let command = Command::LogTakenIntoUse(LogTakenIntoUse { log_id: id_bytes(log_id) });
        self.log_command(command).await?.expect("an id of 16 bytes contradicts nothing");
        Ok(())
    }

    /// Holds up every change until what it gives is dropped.
    #[cfg(test)]
    pub(crate) async fn hold_changes(&self) -> impl Sized {
        self.change.lock().await
    }

    /// Reads the catalog.
    pub(super) fn with_catalog<T>(&self, read: impl FnOnce(&Catalog) -> T) -> T {
        read(&self.catalog.read())
    }

    /// Some producer epoch was raised.
    pub(super) fn any_producer_epoch(&self) -> &AtomicBool {
        &self.any_producer_epoch
    }

    /// Producer ids below were given out, or never will be.
    pub(super) fn producer_ids_end(&self) -> &AtomicI64 {
        &self.producer_ids_end
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
