//! Where partitions lie on the disk; opens and removes them.
//!
//! Nothing here decides whether a directory may be removed: the metadata log does.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use riverrun_proto::{PartitionId, TopicId};
use riverrun_storage::{
    IoFailure, Log, LogOptions, OpenedLog, StorageError, Timestamp, data_dir::LOGS_DIR, disk::Disk,
    recycle::RecyclePool,
};
use thiserror::Error;

use super::{
    DiskGauge, Partition, PartitionSettings, ReadOnly, Starts, Workers, replicator::Replicator,
};
use crate::clock::Clock;

/// Directory of one topic.
fn topic_dir(topic_id: TopicId) -> PathBuf {
    Path::new(LOGS_DIR).join(topic_id.to_string())
}

/// Directory of one partition, relative to the data directory.
pub fn partition_dir(topic_id: TopicId, partition: PartitionId) -> PathBuf {
    topic_dir(topic_id).join(partition.to_string())
}

/// A partition that could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its directory should be there and is not.
    #[error("`{}` is missing: its records are lost", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("no room to make `{}`: free some room on the disk ({source})", path.display())]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: IoFailure,
    },
    /// Storage refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The operating system refused.
    #[error("could not {op} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    /// The disk has no room for it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            OpenError::NoRoom { .. } => true,
            OpenError::Storage(error) => error.is_disk_full(),
            OpenError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            OpenError::Missing { .. } => false,
        }
    }

    /// There is no log where one should be.
    pub fn is_missing(&self) -> bool {
        matches!(self, OpenError::Missing { .. } | OpenError::Storage(StorageError::Missing { .. }))
    }
}

/// Opens partitions.
#[derive(Clone, Debug)]
pub struct PartitionOpener {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Time for new files.
    pub clock: Clock,
    /// Room on the disk.
    pub gauge: Arc<DiskGauge>,
    /// Segment files to be written again.
    pub pool: Arc<RecyclePool>,
    /// Threads that will write it.
    pub workers: Arc<Workers>,
    /// Set when the data directory is only read: no partition is made or recovered.
    pub read_only: Option<ReadOnly>,
    /// What opening took, for the one line that a start says about it.
    pub starts: Arc<Starts>,
}

impl PartitionOpener {
    /// Opens a partition that must exist. Blocks.
    ///
    /// # Errors
    /// Also when its directory is not there or was emptied: an empty partition is never made in place of a lost one.
    pub fn open_existing(&self, settings: PartitionSettings) -> Result<Arc<Partition>, OpenError> {
        let path = partition_dir(settings.log.topic_id, settings.log.partition);
        match self.disk.list(&path) {
            Ok(_) => self.open_with(settings, Log::open_existing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(OpenError::Missing { path })
            }
            Err(source) => Err(OpenError::Io { op: "list", path, source }),
        }
    }

    /// Opens a partition, and makes it when it is not there. Blocks.
    ///
    /// # Errors
    /// When storage refuses.
    pub fn open(&self, settings: PartitionSettings) -> Result<Arc<Partition>, OpenError> {
        self.open_with(settings, Log::open)
    }

    fn open_with(
        &self,
        settings: PartitionSettings,
        open: impl Fn(Arc<dyn Disk>, PathBuf, LogOptions, Timestamp) -> Result<OpenedLog, StorageError>,
    ) -> Result<Arc<Partition>, OpenError> {
        let path = partition_dir(settings.log.topic_id, settings.log.partition);
        let (now, began) = (Timestamp(self.clock.wall_ms()), self.clock.elapsed());
        let (disk, options) = (self.disk.clone(), settings.log.clone());
        let opened = match self.read_only {
            Some(_) => Log::open_read_only(disk, path.clone(), options, now),
            None => open(disk, path.clone(), options, now),
        };
        let (opened, read_only) = match opened {
            Err(StorageError::Io(source)) if source.is_disk_full() => {
                let (opened, read_only) =
                    self.open_without_room(&settings, path.clone(), source)?;
                (opened, Some(read_only))
            }
            opened => (opened?, self.read_only.clone()),
        };
        self.starts.add(path, &opened.report, self.clock.elapsed().saturating_sub(began));
        opened.writer.recycle_through(self.pool.clone());
        let shard = self.workers.shard();
        let limits = (self.gauge.clone(), read_only);
        Ok(Partition::new(opened, settings, shard, limits, Replicator::local()))
    }

    /// Opens a log for reading that cannot be recovered for want of room. One that was never made is refused.
    fn open_without_room(
        &self,
        settings: &PartitionSettings,
        path: PathBuf,
        source: IoFailure,
    ) -> Result<(OpenedLog, ReadOnly), OpenError> {
        let now = Timestamp(self.clock.wall_ms());
        let (disk, options) = (self.disk.clone(), settings.log.clone());
        let Ok(opened) = Log::open_read_only(disk, path.clone(), options, now) else {
            return Err(OpenError::NoRoom { path, source });
        };
        let cause = source.to_string().into();
        let read_only = ReadOnly::NoRoom { dir: path.into(), cause };
        tracing::error!("{read_only}");
        self.gauge.wait_for_room(self.disk.free_bytes().unwrap_or(0));
        Ok((opened, read_only))
    }

    /// Removes everything of a topic whose partitions are closed. Blocks. Removing it twice is harmless.
    ///
    /// # Errors
    /// When the disk refuses; removing again goes on.
    pub fn remove_topic(&self, topic_id: TopicId) -> Result<(), OpenError> {
        let dir = topic_dir(topic_id);
        let partitions = match self.disk.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(OpenError::Io { op: "list", path: dir, source }),
        };
        for partition in partitions {
            Log::remove(self.disk.as_ref(), &dir.join(partition.name))?;
        }
        let failed = |op| {
            let path = dir.clone();
            move |source| OpenError::Io { op, path, source }
        };
        self.disk.remove_dir(&dir).map_err(failed("remove"))?;
        self.disk.sync_dir(Path::new(LOGS_DIR)).map_err(failed("sync"))
    }

    /// Topic directories on the disk, whoever they belong to. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn topic_dirs(&self) -> Result<Vec<TopicId>, OpenError> {
        let path = PathBuf::from(LOGS_DIR);
        match self.disk.list(&path) {
            Ok(entries) => Ok(entries.iter().filter_map(|entry| topic_of(&entry.name)).collect()),
            Err(source) => Err(OpenError::Io { op: "list", path, source }),
        }
    }
}

fn topic_of(name: &str) -> Option<TopicId> {
    uuid::Uuid::try_parse(name).ok().map(TopicId)
}
