//! What a start does: folds the metadata log and opens every partition.

use std::{collections::HashMap, sync::Arc};

use prost::Message;
use riverrun_proto::{
    PartitionId, TopicId,
    grpc::state::v1::{MetadataCommand, MetadataSnapshot},
};

use crate::{
    partition::{PartitionFailed, PartitionOpener, files::TooFewFiles, state_log::Replay},
    stream::Stream,
    topic::{
        catalog::{Catalog, CatalogError, TopicEntry},
        live::{Slot, Topic},
        settings::partition_settings,
    },
};

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
        source: CatalogError,
    },
    /// There are more partitions than this process can open.
    #[error(transparent)]
    OpenFiles(#[from] TooFewFiles),
}

pub(super) fn fold(replay: &Replay) -> Result<Catalog, RegistryError> {
    let whole: Vec<u8> = replay.snapshot.concat();
    let snapshot = MetadataSnapshot::decode(whole.as_slice())
        .map_err(|source| RegistryError::Malformed { offset: 0, source })?;
    let mut catalog = Catalog::from_snapshot(&snapshot)
        .map_err(|source| RegistryError::Contradiction { offset: 0, source })?;
    for (offset, delta) in &replay.deltas {
        let offset = offset.0;
        let command = MetadataCommand::decode(&delta[..])
            .map_err(|source| RegistryError::Malformed { offset, source })?;
        catalog
            .apply(&command)
            .map_err(|source| RegistryError::Contradiction { offset, source })?;
    }
    Ok(catalog)
}

/// Whether the metadata says that a log of the broker's own is in use, so that it must be there.
///
/// # Errors
/// When the metadata log contradicts itself.
pub fn is_log_in_use(replay: &Replay, log_id: TopicId) -> Result<bool, RegistryError> {
    Ok(fold(replay)?.is_log_in_use(log_id))
}

/// Directories that belong to no topic are named and left alone.
pub(super) fn warn_of_strangers(opener: &PartitionOpener, catalog: &Catalog) {
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
pub(super) fn open_topics(
    opener: &PartitionOpener,
    catalog: &Catalog,
) -> HashMap<Arc<str>, Arc<Topic>> {
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

fn open_topic(opener: &PartitionOpener, entry: &TopicEntry) -> Topic {
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
    let now_ms = opener.clock.steady_ms();
    let stream = entry.stream.clone().map(|facts| Arc::new(Stream::new(facts, now_ms)));
    Topic { id, name, given, config: entry.config.clone(), stream, partitions }
}
