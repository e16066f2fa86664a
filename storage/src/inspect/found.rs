//! What an inspection finds: logs, segments, entries, and what is wrong with them.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use riverrun_proto::{LeaderEpoch, Offset, PartitionId, TopicId};

use crate::{Damage, Timestamp, format, lock::Holder};

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
    /// Offsets whose records were lost, and which a repair gave up.
    Lost,
}

impl From<format::EntryKind> for InspectedKind {
    fn from(kind: format::EntryKind) -> InspectedKind {
        match kind {
            format::EntryKind::Records => InspectedKind::Records,
            format::EntryKind::Seal => InspectedKind::Seal,
            format::EntryKind::Control => InspectedKind::Control,
            format::EntryKind::Gap => InspectedKind::Gap,
            format::EntryKind::Lost => InspectedKind::Lost,
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
    /// Offsets without records: compaction removed them, or a repair gave them up.
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
    /// Records that were damaged, and that a repair gave up: no damage any more.
    Lost {
        /// The segment file that says so.
        path: PathBuf,
        /// Where it says so.
        pos: u64,
        /// Their offsets.
        offsets: Range<Offset>,
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

impl Finding {
    /// True for what a process that uses the log may be working on.
    pub(super) fn is_of_work_under_way(&self) -> bool {
        match self {
            Finding::Torn { .. } | Finding::Leftover { .. } => true,
            Finding::Damage(_) | Finding::Lost { .. } | Finding::Foreign { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Damage(damage) => damage.fmt(f),
            Finding::Torn { path, pos, offset, bytes } => {
                write!(f, "`{bytes}` bytes at `{pos}` of `{}` are torn: ", path.display())?;
                write!(f, "a crash left them behind offset `{offset}`, never known durable")
            }
            Finding::Lost { path, pos, offsets } => {
                write!(
                    f,
                    "offsets `{}..{}` were lost and given up by ",
                    offsets.start, offsets.end
                )?;
                write!(f, "a repair, which noted it at byte `{pos}` of `{}`", path.display())
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
    /// The process that used it meanwhile: what it was working on is not among the findings.
    pub holder: Option<Holder>,
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
            Finding::Torn { .. }
            | Finding::Lost { .. }
            | Finding::Leftover { .. }
            | Finding::Foreign { .. } => None,
        })
    }

    /// True when nothing durable is damaged.
    pub fn is_sound(&self) -> bool {
        self.damages().next().is_none()
    }
}
