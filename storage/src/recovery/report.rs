//! What an open found and did, for operators and tests.

use std::path::PathBuf;

use riverrun_proto::{LeaderEpoch, Offset};

use crate::{Damage, LogOffsets};

/// How the end of the log was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryVerdict {
    /// The newest mark was clean and everything fitted it; nothing was changed.
    Trusted,
    /// The log ended where it was last written.
    CleanEnd,
    /// Bytes that were never acknowledged as durable followed the end; they are set aside.
    TornTail,
    /// Bytes known durable are missing or wrong; nothing was changed and the log refuses writes.
    Damaged,
}

/// What an open found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// True when the log was not there and was created.
    pub created: bool,
    /// How the end was judged.
    pub verdict: RecoveryVerdict,
    /// Where the watermarks stand after the open.
    pub offsets: LogOffsets,
    /// Epoch in force after the open.
    pub leader_epoch: LeaderEpoch,
    /// Records from here to the log end were copied because they were not known durable.
    pub copied_from: Offset,
    /// Bytes set aside.
    pub torn_bytes: u64,
    /// Files that hold them.
    pub torn_files: Vec<PathBuf>,
    /// Bytes of segments that were scanned.
    pub scanned_bytes: u64,
    /// Damaged ranges.
    pub damages: Vec<Damage>,
}
