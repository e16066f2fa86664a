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
//! A log that a broker is writing can be looked at; its newest entries may then look torn.

mod walk;

use std::{
    fmt,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use riverrun_proto::{LeaderEpoch, Offset, PartitionId, TopicId};

use self::walk::{Break, WalkedSegment};
use crate::{
    Damage, DamageReason, IoFailure, StorageError, Timestamp,
    data_dir::LOGS_DIR,
    disk::{Disk, EntryKind, RealDisk, RealDiskOptions},
    format,
    mark::MarkPage,
    paths::{self, FileName},
    state::{self, StoredState},
};

/// What one entry of a segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InspectedKind {
    /// One record batch.
    Records,
    /// The end of a sealed segment.
    Seal,
    /// Something of the replicated log.
    Control,
    /// Offsets whose records compaction removed.
    Gap,
}

impl From<format::EntryKind> for InspectedKind {
    fn from(kind: format::EntryKind) -> InspectedKind {
        match kind {
            format::EntryKind::Records => InspectedKind::Records,
            format::EntryKind::Seal => InspectedKind::Seal,
            format::EntryKind::Control => InspectedKind::Control,
            format::EntryKind::Gap => InspectedKind::Gap,
        }
    }
}

/// One valid entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectedEntry<'a> {
    /// The segment file.
    pub path: &'a Path,
    /// Byte position of the entry header in it.
    pub pos: u64,
    /// What the payload is.
    pub kind: InspectedKind,
    /// First offset covered.
    pub base_offset: Offset,
    /// First offset past it; the base offset for a seal.
    pub end_offset: Offset,
    /// Epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Offset known flushed when it was written.
    pub durable_upto: Offset,
    /// When it was appended.
    pub append_time: Timestamp,
    /// Largest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// Checksum of the entry header.
    pub header_crc: u32,
    /// Checksum of the payload.
    pub payload_crc: u32,
    /// The payload: a record batch in an entry of records.
    pub payload: &'a [u8],
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedSegment {
    /// The file.
    pub path: PathBuf,
    /// First offset, by its name.
    pub base_offset: Offset,
    /// First offset past its last valid entry.
    pub end_offset: Offset,
    /// Position behind its last valid entry.
    pub end_pos: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// True when it ends with a seal.
    pub is_sealed: bool,
    /// True when compaction wrote it anew.
    pub is_compacted: bool,
    /// Valid entries, the seal not counted.
    pub entry_count: u64,
    /// Offsets covered by record batches.
    pub record_count: u64,
    /// Offsets whose records compaction removed.
    pub gap_count: u64,
    /// When the file was made.
    pub created: Option<Timestamp>,
    /// Largest timestamp of its records.
    pub max_timestamp: Option<Timestamp>,
}

/// Something worth telling about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Durable bytes are not what was written.
    Damage(Damage),
    /// Bytes that a crash left behind the last durable entry; a start sets them aside.
    Torn {
        /// The segment file.
        path: PathBuf,
        /// Where they begin.
        pos: u64,
        /// Offset the first of them would have.
        offset: Offset,
        /// Bytes up to the last that is not zero.
        bytes: u64,
    },
    /// A file that an interrupted step left; a start removes it.
    Leftover {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not the broker's.
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Damage(damage) => damage.fmt(f),
            Finding::Torn { path, pos, offset, bytes } => {
                write!(f, "`{bytes}` bytes at `{pos}` of `{}` are torn: ", path.display())?;
                write!(f, "a crash left them behind offset `{offset}`, never known durable")
            }
            Finding::Leftover { path } => {
                write!(f, "`{}` was left by an interrupted step", path.display())
            }
            Finding::Foreign { path } => write!(f, "`{}` is not a broker's file", path.display()),
        }
    }
}

/// One partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedLog {
    /// Its directory, relative to the one inspected.
    pub dir: PathBuf,
    /// The topic, by the first valid segment header.
    pub topic_id: Option<TopicId>,
    /// The partition, by the first valid segment header.
    pub partition: Option<PartitionId>,
    /// First offset kept, when the state file is valid.
    pub log_start: Option<Offset>,
    /// First offset past the last valid entry.
    pub log_end: Offset,
    /// Everything below is known durable.
    pub known_durable: Offset,
    /// True when the newest mark says that the log was closed.
    pub is_clean: bool,
    /// Segments, oldest first.
    pub segments: Vec<InspectedSegment>,
    /// What is wrong or strange, in the order of the log.
    pub findings: Vec<Finding>,
}

impl InspectedLog {
    /// The damage among the findings.
    pub fn damages(&self) -> impl Iterator<Item = &Damage> {
        self.findings.iter().filter_map(|finding| match finding {
            Finding::Damage(damage) => Some(damage),
            Finding::Torn { .. } | Finding::Leftover { .. } | Finding::Foreign { .. } => None,
        })
    }

    /// True when nothing durable is damaged.
    pub fn is_sound(&self) -> bool {
        self.damages().next().is_none()
    }
}

/// Looks at the logs below one directory.
#[derive(Clone, Debug)]
pub struct Inspector {
    disk: Arc<dyn Disk>,
}

impl Inspector {
    /// Inspects the directory `path`: a partition's, or a data directory.
    ///
    /// # Errors
    /// When it can not be opened.
    pub fn open(path: &Path) -> Result<Inspector, StorageError> {
        let disk = RealDisk::open(path, RealDiskOptions::default())
            .map_err(|error| IoFailure::new("open", path, error))?;
        Ok(Inspector::new(Arc::new(disk)))
    }

    /// Inspects the root of `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Inspector {
        Inspector { disk }
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
        let log = Walked { dir, log_start, known_durable, segments: &segments };
        if stored == StoredState::Invalid || (log_start.is_none() && !segments.is_empty()) {
            findings.push(log.state_damage());
        }
        findings.extend(log.judge());
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

/// What was read, before it is judged.
struct Walked<'a> {
    dir: &'a Path,
    log_start: Option<Offset>,
    known_durable: Offset,
    segments: &'a [WalkedSegment],
}

impl Walked<'_> {
    fn state_damage(&self) -> Finding {
        let first = self.segments.first().map_or(Offset::ZERO, |first| first.base);
        let path = self.dir.join(paths::STATE);
        let offsets = first..first.max(self.known_durable);
        Finding::Damage(Damage { offsets, path, pos: 0, reason: DamageReason::State })
    }

    /// Says what the breaks within and between segments are.
    fn judge(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let first = self.segments.first();
        let log_start = self.log_start.unwrap_or_default();
        if let Some(first) = first.filter(|first| first.base > log_start) {
            findings.push(damage(log_start..first.base, &first.path, 0, DamageReason::Missing));
        } else if first.is_none() && self.known_durable > log_start {
            let path = self.dir.join(paths::segment(Path::new(""), log_start));
            let offsets = log_start..self.known_durable;
            findings.push(damage(offsets, &path, 0, DamageReason::Missing));
        }
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1);
            // What retention dropped may still lie there; nobody reads it.
            if next.is_some_and(|next| next.base <= log_start) {
                continue;
            }
            let judge = |found| self.judge_break(segment, found, next.is_none());
            let judged = segment.breaks.iter().filter_map(judge);
            findings.extend(judged);
            findings.extend(self.judge_link(segment, next));
        }
        findings
    }

    fn judge_break(
        &self,
        segment: &WalkedSegment,
        found: &Break,
        is_last_segment: bool,
    ) -> Option<Finding> {
        if found.offsets.start < self.known_durable {
            let to_the_end = found.is_last && is_last_segment;
            let end = if to_the_end { self.known_durable } else { found.offsets.end };
            let offsets = found.offsets.start..end.max(found.offsets.start);
            return Some(damage(offsets, &segment.path, found.pos, found.reason));
        }
        (found.bytes > 0).then(|| Finding::Torn {
            path: segment.path.clone(),
            pos: found.pos,
            offset: found.offsets.start,
            bytes: found.bytes,
        })
    }

    /// Whether `segment` ends as `next` says.
    fn judge_link(&self, segment: &WalkedSegment, next: Option<&WalkedSegment>) -> Option<Finding> {
        let next = next?;
        let end = segment.facts.end_offset;
        if next.base > self.known_durable || segment.breaks.iter().any(|found| found.is_last) {
            return None;
        }
        if end != next.base {
            let offsets = end.min(next.base)..end.max(next.base);
            let reason = if end < next.base { DamageReason::Missing } else { DamageReason::Seal };
            return Some(damage(offsets, &segment.path, segment.end.pos, reason));
        }
        // A segment with a break inside can not match, which is told already.
        let agrees = !segment.breaks.is_empty()
            || next.header.is_none_or(|header| {
                header.previous.is_some_and(|previous| segment.ends_as(&previous))
            });
        let offsets = segment.base..next.base;
        (!agrees).then(|| damage(offsets, &segment.path, segment.end.pos, DamageReason::Seal))
    }
}

fn damage(offsets: Range<Offset>, path: &Path, pos: u64, reason: DamageReason) -> Finding {
    Finding::Damage(Damage { offsets, path: path.to_owned(), pos, reason })
}

#[cfg(test)]
mod tests;
