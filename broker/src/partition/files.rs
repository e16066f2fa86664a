//! How many partitions the open files of this process are enough for.
//!
//! A partition whose file cannot be opened stops, and so does everything else without one. So new partitions are refused
//! before files run out, and a broker with more partitions than it can open does not start.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use thiserror::Error;

use crate::quota::QuotaExceeded;

/// Files that a partition keeps open once it was written: its active segment and its mark page.
const FILES_PER_PARTITION: u64 = 2;
/// One in so many files is kept for connections, readers of old segments, and files that are open for a moment.
const KEPT_SHARE: u64 = 8;
/// Files that are kept at least.
const KEPT_MIN: u64 = 128;

/// A broker whose partitions need more open files than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{partitions} partitions need at least {needed} open files, and the system lets this process have {max}: raise the \
     limit (`ulimit -n`, `LimitNOFILE` in systemd)"
)]
pub struct TooFewFiles {
    /// Partitions that there are.
    pub partitions: u64,
    /// Files without which they cannot be served.
    pub needed: u64,
    /// The limit of the process.
    pub max: u64,
}

/// The open files that partitions may take.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    /// False for partitions on a disk that takes none.
    is_bounded: bool,
}

impl OpenFiles {
    /// Without a bound, for disks in memory.
    pub fn unbounded() -> OpenFiles {
        OpenFiles { is_bounded: false }
    }

    /// Those of this process.
    pub fn of_process() -> OpenFiles {
        OpenFiles { is_bounded: true }
    }

    /// Most files at once, as the system has it now; `None` without a limit.
    fn max(self) -> Option<u64> {
        getrlimit(Resource::Nofile).current.filter(|_| self.is_bounded)
    }

    /// Refuses to have so many partitions, when files could run out with them.
    ///
    /// # Errors
    /// How many there may be.
    pub fn check(self, partitions: u64) -> Result<(), QuotaExceeded> {
        let Some(limit) = self.max().map(partitions_max).filter(|limit| partitions > *limit) else {
            return Ok(());
        };
        Err(QuotaExceeded {
            quota: "partitions by the limit of open files (LimitNOFILE)",
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            retry_after: Duration::ZERO,
        })
    }

    /// Refuses to open so many partitions, when not even one file for each is left.
    ///
    /// # Errors
    /// What they need.
    pub fn check_start(self, partitions: u64) -> Result<(), TooFewFiles> {
        let Some(max) = self.max() else { return Ok(()) };
        let needed = partitions + KEPT_MIN;
        // The few that a broker without topics begins with fit any limit that a process can begin with.
        if partitions > 0 && needed > max {
            return Err(TooFewFiles { partitions, needed, max });
        }
        if partitions > partitions_max(max) {
            tracing::warn!(
                partitions,
                limit = max,
                "open files may run out, and what cannot open one stops: raise the limit (LimitNOFILE)"
            );
        }
        Ok(())
    }
}

/// Most partitions that so many files are enough for.
fn partitions_max(files_max: u64) -> u64 {
    let kept = (files_max / KEPT_SHARE).max(KEPT_MIN);
    files_max.saturating_sub(kept) / FILES_PER_PARTITION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_files_is_kept_for_others() {
        let enough_for = [0, 128, 256, 1_024, 20_000, 524_288].map(partitions_max);
        assert_eq!(enough_for, [0, 0, 64, 448, 8_750, 229_376]);
    }

    #[test]
    fn a_disk_in_memory_takes_none() {
        assert!(OpenFiles::unbounded().check(u64::MAX).is_ok());
        assert!(OpenFiles::unbounded().check_start(u64::MAX).is_ok());
    }
}
