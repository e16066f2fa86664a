//! The metadata of the broker as a fold over its commands.
//!
//! Applying a command reads no clock and no randomness, so every replica and every start arrives at the
//! same state. The catalog does not decide whether a command is wanted (`registry.rs` does that before it
//! is logged); it refuses commands that contradict the state, which means the log is damaged or was
//! written by a newer broker.
//!
//! Life of a topic id; directories exist at most from *prepared* to *purged*:
//!
//! ```text
//! (unknown) --prepared--> doomed --created--> live --deleted--> doomed --purged--> (unknown)
//! ```
//!
//! Invariant: only ids that stand in `doomed` may have their directories removed. A directory that is
//! merely missing from the catalog is left alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use riverrun_proto::{
    TopicId,
    grpc::{
        state::v1::{
            MetadataCommand, MetadataSnapshot, ProducerEpochRaised, TopicAltered, TopicCreated,
            metadata_command::Command,
        },
        v1,
    },
    limits::PARTITION_COUNT_MAX,
};
use thiserror::Error;

use super::{
    config::{InvalidSetting, TopicConfig},
    producer_epochs::ProducerEpochs,
};
use crate::stream::StreamFacts;

/// One topic as the catalog knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicEntry {
    /// Identity.
    pub id: TopicId,
    /// Name.
    pub name: Arc<str>,
    /// Partitions.
    pub partition_count: u32,
    /// Settings that were given.
    pub given: v1::TopicConfig,
    /// Settings in force.
    pub config: TopicConfig,
    /// Set when it is a stream.
    pub stream: Option<StreamFacts>,
}

/// A command that does not fit the state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// The command has no content this version knows.
    #[error("unknown kind of metadata command; it was written by a newer version")]
    UnknownCommand,
    /// A topic id that is not 16 bytes.
    #[error("topic id of {0} bytes in a metadata command, expected 16")]
    TopicIdBytes(usize),
    /// A command about a topic that does not exist.
    #[error("metadata command for topic `{0}`, which does not exist")]
    UnknownTopic(TopicId),
    /// A command about a stream that is none.
    #[error("metadata command for topic `{0}` as a stream, which it is not")]
    NoStream(TopicId),
    /// A topic created twice.
    #[error("metadata command creates topic `{name}` ({id}), which exists")]
    TopicExists {
        /// Its name.
        name: String,
        /// Its id.
        id: TopicId,
    },
    /// Settings outside their bounds.
    #[error("metadata command with settings out of bounds: {0}")]
    Setting(#[from] InvalidSetting),
    /// More partitions than a topic may have. So a number in a command never asks for more memory than a topic does.
    #[error("metadata command with {found} partitions, a topic has at most {PARTITION_COUNT_MAX}")]
    Partitions {
        /// What came.
        found: u32,
    },
    /// A number that may only grow got smaller.
    #[error("`{what}` in a metadata command must be at least {floor}, found {found}")]
    Shrunk {
        /// Which number.
        what: &'static str,
        /// What it was.
        floor: i64,
        /// What came.
        found: i64,
    },
}

/// All metadata.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Live topics by id.
    topics: HashMap<TopicId, TopicEntry>,
    /// Ids of live topics by name.
    ids: BTreeMap<Arc<str>, TopicId>,
    /// How many forks stand of a stream, by its id; the stream itself may be gone.
    forks: HashMap<TopicId, usize>,
    /// Ids whose directories are to be removed.
    doomed: BTreeSet<TopicId>,
    /// Logs of the broker's own that are in use.
    logs_in_use: BTreeSet<TopicId>,
    /// First producer id not reserved.
    next_producer_id: i64,
    /// Producer epochs above 0.
    producer_epochs: ProducerEpochs,
}

impl Catalog {
    /// Applies one command.
    ///
    /// # Errors
    /// When the command contradicts the state; the state is unchanged then.
    pub fn apply(&mut self, command: &MetadataCommand) -> Result<(), CatalogError> {
        match command.command.as_ref().ok_or(CatalogError::UnknownCommand)? {
            Command::TopicPrepared(prepared) => {
                self.doom(topic_id(&prepared.topic_id)?)?;
            }
            Command::TopicCreated(created) => self.create(created)?,
            Command::TopicAltered(altered) => self.alter(altered)?,
            Command::TopicDeleted(deleted) => self.delete(topic_id(&deleted.topic_id)?)?,
            Command::TopicPurged(purged) => {
                self.doomed.remove(&topic_id(&purged.topic_id)?);
            }
            Command::ProducerIdsReserved(reserved) => {
                self.reserve_producer_ids(reserved.next_producer_id)?;
            }
            Command::ProducerEpochRaised(raised) => self.raise_producer_epoch(raised)?,
            Command::LogTakenIntoUse(taken) => {
                self.logs_in_use.insert(topic_id(&taken.log_id)?);
            }
            Command::StreamDeleted(deleted) => self.delete_stream(topic_id(&deleted.topic_id)?)?,
            Command::Snapshot(snapshot) => *self = Catalog::from_snapshot(snapshot)?,
        }
        Ok(())
    }

    /// The state that `snapshot` describes.
    ///
    /// # Errors
    /// When it contradicts itself.
    pub fn from_snapshot(snapshot: &MetadataSnapshot) -> Result<Catalog, CatalogError> {
        let mut catalog = Catalog::default();
        for created in &snapshot.topics {
            catalog.create(created)?;
        }
        for doomed in &snapshot.doomed_topic_ids {
            catalog.doom(topic_id(doomed)?)?;
        }
        catalog.reserve_producer_ids(snapshot.next_producer_id)?;
        for raised in &snapshot.producer_epochs {
            catalog.raise_producer_epoch(raised)?;
        }
        for log_id in &snapshot.logs_in_use {
            catalog.logs_in_use.insert(topic_id(log_id)?);
        }
        Ok(catalog)
    }

    /// The whole state as one message.
    pub fn to_snapshot(&self) -> MetadataSnapshot {
        let topics = self.topics().map(|topic| TopicCreated {
            topic_id: id_bytes(topic.id),
            topic: topic.name.to_string(),
            partitions: topic.partition_count,
            overrides: Some(topic.given),
            stream: topic.stream.as_ref().map(StreamFacts::to_message),
        });
        let producer_epochs = self.producer_epochs.oldest_first().map(|(producer_id, epoch)| {
            ProducerEpochRaised { producer_id, producer_epoch: i32::from(epoch) }
        });
        MetadataSnapshot {
            topics: topics.collect(),
            next_producer_id: self.next_producer_id,
            doomed_topic_ids: self.doomed.iter().map(|id| id_bytes(*id)).collect(),
            producer_epochs: producer_epochs.collect(),
            logs_in_use: self.logs_in_use.iter().map(|id| id_bytes(*id)).collect(),
        }
    }

    /// Live topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &TopicEntry> {
        self.ids.values().filter_map(|id| self.topics.get(id))
    }

    /// A live topic by name.
    pub fn topic(&self, name: &str) -> Option<&TopicEntry> {
        self.topics.get(self.ids.get(name)?)
    }

    /// A live topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicEntry> {
        self.topics.get(&id)
    }

    /// Live topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Partitions over all live topics.
    pub fn partition_count(&self) -> u64 {
        self.topics.values().map(|topic| u64::from(topic.partition_count)).sum()
    }

    /// True when a fork of this stream stands.
    pub fn has_forks(&self, id: TopicId) -> bool {
        self.forks.contains_key(&id)
    }

    /// Ids whose directories are to be removed.
    pub fn doomed(&self) -> impl Iterator<Item = TopicId> {
        self.doomed.iter().copied()
    }

    /// Whether a log of the broker's own is in use, so that it must be there.
    pub fn is_log_in_use(&self, log_id: TopicId) -> bool {
        self.logs_in_use.contains(&log_id)
    }

    /// First producer id not reserved.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The raised epoch of a producer id; `None` when it was never raised, or so long ago that it is forgotten.
    pub fn producer_epoch(&self, producer_id: i64) -> Option<i16> {
        self.producer_epochs.get(producer_id)
    }

    /// The directories of `id` may be removed, and so it must not be a live topic.
    fn doom(&mut self, id: TopicId) -> Result<(), CatalogError> {
        if let Some(live) = self.topics.get(&id) {
            return Err(CatalogError::TopicExists { name: live.name.to_string(), id });
        }
        self.doomed.insert(id);
        Ok(())
    }

    fn create(&mut self, created: &TopicCreated) -> Result<(), CatalogError> {
        let id = topic_id(&created.topic_id)?;
        if self.topics.contains_key(&id) || self.ids.contains_key(created.topic.as_str()) {
            return Err(CatalogError::TopicExists { name: created.topic.clone(), id });
        }
        let given = created.overrides.unwrap_or_default();
        let config = TopicConfig::from_given(&given)?;
        check_partitions(created.partitions)?;
        let stream = created.stream.as_ref().map(StreamFacts::from_message).transpose();
        let stream = stream.map_err(CatalogError::TopicIdBytes)?;
        let name: Arc<str> = created.topic.as_str().into();
        let partition_count = created.partitions;
        if let Some(source) = source_of(stream.as_ref()) {
            *self.forks.entry(source).or_default() += 1;
        }
        self.doomed.remove(&id);
        self.ids.insert(name.clone(), id);
        self.topics.insert(id, TopicEntry { id, name, partition_count, given, config, stream });
        Ok(())
    }

    fn alter(&mut self, altered: &TopicAltered) -> Result<(), CatalogError> {
        let id = topic_id(&altered.topic_id)?;
        let topic = self.topics.get_mut(&id).ok_or(CatalogError::UnknownTopic(id))?;
        let given = altered.overrides.unwrap_or_default();
        let config = TopicConfig::from_given(&given)?;
        check_partitions(altered.partitions)?;
        if altered.partitions < topic.partition_count {
            return Err(CatalogError::Shrunk {
                what: "partitions",
                floor: i64::from(topic.partition_count),
                found: i64::from(altered.partitions),
            });
        }
        topic.partition_count = altered.partitions;
        topic.given = given;
        topic.config = config;
        Ok(())
    }

    fn delete(&mut self, id: TopicId) -> Result<(), CatalogError> {
        let topic = self.topics.remove(&id).ok_or(CatalogError::UnknownTopic(id))?;
        if let Some(source) = source_of(topic.stream.as_ref())
            && let Entry::Occupied(mut forks) = self.forks.entry(source)
        {
            *forks.get_mut() -= 1;
            if *forks.get() == 0 {
                forks.remove();
            }
        }
        self.ids.remove(&topic.name);
        self.doomed.insert(id);
        Ok(())
    }

    /// Its owner deleted a stream of which forks stand.
    fn delete_stream(&mut self, id: TopicId) -> Result<(), CatalogError> {
        let topic = self.topics.get_mut(&id).ok_or(CatalogError::UnknownTopic(id))?;
        let stream = topic.stream.as_mut().ok_or(CatalogError::NoStream(id))?;
        stream.is_deleted = true;
        Ok(())
    }

    fn reserve_producer_ids(&mut self, next_producer_id: i64) -> Result<(), CatalogError> {
        if next_producer_id < self.next_producer_id {
            return Err(CatalogError::Shrunk {
                what: "next_producer_id",
                floor: self.next_producer_id,
                found: next_producer_id,
            });
        }
        self.next_producer_id = next_producer_id;
        Ok(())
    }

    fn raise_producer_epoch(&mut self, raised: &ProducerEpochRaised) -> Result<(), CatalogError> {
        let floor = self.producer_epoch(raised.producer_id).map_or(1, |epoch| i32::from(epoch) + 1);
        let shrunk = || CatalogError::Shrunk {
            what: "producer_epoch",
            floor: i64::from(floor),
            found: i64::from(raised.producer_epoch),
        };
        let epoch = i16::try_from(raised.producer_epoch).map_err(|_| shrunk())?;
        if i32::from(epoch) < floor {
            return Err(shrunk());
        }
        self.producer_epochs.raise(raised.producer_id, epoch);
        Ok(())
    }
}

/// The id in the form messages carry it.
pub fn id_bytes(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

/// What a stream was forked from.
fn source_of(stream: Option<&StreamFacts>) -> Option<TopicId> {
    Some(stream?.origin.as_ref()?.topic_id)
}

fn check_partitions(found: u32) -> Result<(), CatalogError> {
    if found <= PARTITION_COUNT_MAX { Ok(()) } else { Err(CatalogError::Partitions { found }) }
}

fn topic_id(bytes: &[u8]) -> Result<TopicId, CatalogError> {
    TopicId::from_slice(bytes).ok_or(CatalogError::TopicIdBytes(bytes.len()))
}

#[cfg(test)]
mod tests;
