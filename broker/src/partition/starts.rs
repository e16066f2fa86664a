//! What opening the logs took, added up: a start says it in one line, however many logs there are.

use std::{path::PathBuf, time::Duration};

use parking_lot::Mutex;
use riverrun_storage::{RecoveryReport, RecoveryVerdict};

/// The sums so far.
#[derive(Debug, Default)]
pub struct Starts {
    sums: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    /// Logs opened.
    opened: usize,
    /// Those whose end was checked and moved to a new segment.
    recovered: usize,
    /// Those with damaged records.
    damaged: usize,
    /// Bytes checked.
    checked_bytes: u64,
    /// Bytes set aside.
    torn_bytes: u64,
    /// The log that took longest.
    slowest: Option<(Duration, PathBuf)>,
}

impl Starts {
    /// Adds the log in `dir`, whose opening took `time`.
    pub(super) fn add(&self, dir: PathBuf, report: &RecoveryReport, time: Duration) {
        let mut sums = self.sums.lock();
        sums.opened += 1;
        match report.verdict {
            RecoveryVerdict::Trusted => {}
            RecoveryVerdict::CleanEnd | RecoveryVerdict::TornTail => sums.recovered += 1,
            RecoveryVerdict::Damaged => sums.damaged += 1,
        }
        sums.checked_bytes += report.scanned_bytes;
        sums.torn_bytes += report.torn_bytes;
        if sums.slowest.as_ref().is_none_or(|(longest, _)| time > *longest) {
            sums.slowest = Some((time, dir));
        }
    }

    /// Says what was added, when any of the logs was not closed cleanly.
    pub fn tell(&self) {
        let Sums { opened, recovered, damaged, checked_bytes, torn_bytes, slowest } =
            std::mem::take(&mut *self.sums.lock());
        let (time, dir) = slowest.unwrap_or_default();
        let (slowest, slowest_ms) = (dir.display(), time.as_millis());
        if recovered + damaged == 0 {
            return tracing::debug!(opened, checked_bytes, %slowest, slowest_ms, "logs opened");
        }
        tracing::info!(
            opened, recovered, damaged, checked_bytes, torn_bytes, %slowest, slowest_ms,
            "logs opened after an unclean stop"
        );
    }
}
