//! Looks at logs offline: for `riverrun log dump` and `riverrun log verify`. Opens files for reading
//! only, changes nothing, takes no lock.
//!
//! A directory is a partition's own, or a data directory, whose partitions are then found below it.
//! Every entry header and payload is checked, along the chain; where it breaks, the walk goes on at the
//! next valid entry, so one damaged place hides nothing behind it.
//!
//! What a break means is judged as recovery does: below the highest offset known durable (mark page,
//! log start, every `durable_upto`) it is damage; at or above it is what a crash leaves.
//!
//! A log that a broker is writing can be looked at. What it is working on (temporary files, the newest
//! entries) is then not judged.

mod found;
mod judge;
mod walk;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use riverrun_proto::Offset;

pub use self::found::{Finding, InspectedEntry, InspectedKind, InspectedLog, InspectedSegment};
use self::{judge::Walked, walk::WalkedSegment};
use crate::{
    IoFailure, StorageError,
    data_dir::LOGS_DIR,
    disk::{Disk, EntryKind, RealDisk, RealDiskOptions},
    lock::{Holder, holder_of},
    mark::MarkPage,
    paths::FileName,
    state::{self, StoredState},
};

/// Looks at the logs below one directory.
#[derive(Clone, Debug)]
pub struct Inspector {
    disk: Arc<dyn Disk>,
    /// The directory, when it is one of the operating system's.
    path: Option<PathBuf>,
}

impl Inspector {
    /// Inspects the directory `path`: a partition's, or a data directory.
    ///
    /// # Errors
    /// When it can not be opened.
    pub fn open(path: &Path) -> Result<Inspector, StorageError> {
        let disk = RealDisk::open(path, RealDiskOptions::default())
            .map_err(|error| IoFailure::new("open", path, error))?;
        Ok(Inspector { disk: Arc::new(disk), path: Some(path.to_owned()) })
    }

    /// Inspects the root of `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Inspector {
        Inspector { disk, path: None }
    }

    /// The process that uses the data directory now, as far as can be told without disturbing it.
    pub fn holder(&self) -> Option<Holder> {
        self.path.as_deref().and_then(holder_of)
    }

    /// Directories of all logs found, relative to the one inspected: itself (empty) when it holds
    /// segments, else `logs/<topic>/<partition>`.
    ///
    /// # Errors
    /// When a directory can not be listed.
    pub fn logs(&self) -> Result<Vec<PathBuf>, StorageError> {
        let root = Path::new("");
        let entries = self.list(root)?;
        let is_log = |name: &str| {
            matches!(FileName::parse(name), FileName::Segment(_) | FileName::State | FileName::Mark)
        };
        if entries.iter().any(|entry| entry.kind == EntryKind::File && is_log(&entry.name)) {
            return Ok(vec![root.to_owned()]);
        }
        let has_logs = entries.iter().any(|entry| entry.name == LOGS_DIR);
        let start = if has_logs { Path::new(LOGS_DIR) } else { root };
        let mut logs = Vec::new();
        for topic in self.directories(start)? {
            logs.extend(self.directories(&topic)?);
        }
        // Partitions in the order of their numbers.
        logs.sort_by_key(|dir| {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            (dir.parent().map(Path::to_owned), name.len(), name.to_owned())
        });
        Ok(logs)
    }

    /// Checks every byte of the log in `dir`, one of [`Inspector::logs`].
    ///
    /// # Errors
    /// When a file can not be read, or a newer version wrote it. Damage is no error: it is found.
    pub fn verify(&self, dir: &Path) -> Result<InspectedLog, StorageError> {
        self.walk(dir, &mut |_| ControlFlow::Continue(()))
    }

    /// Hands every valid entry of the log in `dir`, in order, to `visit`, until it breaks off.
    ///
    /// # Errors
    /// As [`Inspector::verify`].
    pub fn dump(
        &self,
        dir: &Path,
        visit: &mut dyn FnMut(InspectedEntry<'_>) -> ControlFlow<()>,
    ) -> Result<InspectedLog, StorageError> {
        self.walk(dir, visit)
    }

    fn walk(
        &self,
        dir: &Path,
        visit: &mut dyn FnMut(InspectedEntry<'_>) -> ControlFlow<()>,
    ) -> Result<InspectedLog, StorageError> {
        let disk = self.disk.as_ref();
        let was_held = self.holder();
        let stored = state::load(disk, dir)?;
        let mark = MarkPage::load(disk, dir)?.newest();
        let mut findings = Vec::new();
        let mut bases = Vec::new();
        for entry in self.list(dir)? {
            let path = dir.join(&entry.name);
            match FileName::parse(&entry.name) {
                FileName::Segment(base) => bases.push(base),
                FileName::Temporary => findings.push(Finding::Leftover { path }),
                FileName::Foreign => findings.push(Finding::Foreign { path }),
                FileName::Index(_)
                | FileName::Producers(_)
                | FileName::State
                | FileName::Mark
                | FileName::Cleaned
                | FileName::Torn(_) => {}
            }
        }
        bases.sort_unstable();
        let log_start = match &stored {
            StoredState::Valid(state) => Some(state.log_start),
            StoredState::Missing | StoredState::Invalid => None,
        };
        let segments = walk::walk_segments(disk, dir, &bases, visit)?;
        let marked = mark.map_or(Offset::ZERO, |mark| mark.flushed);
        let proven = segments.iter().map(|segment| segment.durable_upto).max().unwrap_or_default();
        let known_durable = marked.max(proven).max(log_start.unwrap_or_default());
        let log = Walked { dir, log_start, known_durable, mark, segments: &segments };
        if stored == StoredState::Invalid || (log_start.is_none() && !segments.is_empty()) {
            findings.push(log.state_damage());
        }
        findings.extend(log.judge());
        let holder = self.holder().or(was_held);
        if holder.is_some() {
            findings.retain(|finding| !finding.is_of_work_under_way());
        }
        let header = segments.iter().find_map(|segment| segment.header);
        Ok(InspectedLog {
            dir: dir.to_owned(),
            topic_id: header.map(|header| header.topic_id),
            partition: header.map(|header| header.partition),
            log_start,
            log_end: segments
                .last()
                .map_or(log_start.unwrap_or_default(), |last| last.facts.end_offset),
            known_durable,
            is_clean: mark.is_some_and(|mark| mark.clean),
            holder,
            segments: segments.into_iter().map(WalkedSegment::into_inspected).collect(),
            findings,
        })
    }

    fn list(&self, dir: &Path) -> Result<Vec<crate::disk::DirEntry>, IoFailure> {
        self.disk.list(dir).map_err(|error| IoFailure::new("list", dir, error))
    }

    fn directories(&self, dir: &Path) -> Result<Vec<PathBuf>, IoFailure> {
        let entries = self.list(dir)?.into_iter();
        let directories = entries.filter(|entry| entry.kind == EntryKind::Directory);
        Ok(directories.map(|entry| dir.join(entry.name)).collect())
    }
}

#[cfg(test)]
mod tests;
