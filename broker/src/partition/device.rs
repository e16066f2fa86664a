//! The disk under all partitions, as their failures tell of it.
//!
//! A partition whose write or flush failed stops, and its neighbours go on: the file may have been the trouble. When
//! [`STOPPED_MAX`] of them stopped so, the disk is. What it says of any flush from then on is worth nothing, so every
//! partition on it, the broker's own logs included, refuses appends and names the disk, until the broker is started again.
//!
//! Damaged bytes, panics and files that somebody removed are not the disk's word about writes: they are not counted.
//! A broker has one data directory, so it knows one disk.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::PartitionFailed;

/// So many partitions stopped by failed writes or flushes make a failed disk.
const STOPPED_MAX: usize = 3;

/// One disk.
#[derive(Debug)]
pub struct Device {
    /// What people call it. Constant.
    name: String,
    /// Partitions that it stopped.
    stopped: AtomicUsize,
    /// Why nothing on it is written any more. Set once.
    failure: OnceLock<PartitionFailed>,
}

impl Device {
    /// A disk that has done nothing wrong.
    pub fn new(name: String) -> Device {
        Device { name, stopped: AtomicUsize::new(0), failure: OnceLock::new() }
    }

    /// Why nothing on it is written any more, if that is so.
    pub fn failure(&self) -> Option<&PartitionFailed> {
        self.failure.get()
    }

    /// Enters that one more partition stopped because the disk failed to write for `reason`.
    pub(super) fn note_stopped(&self, reason: &str) {
        let stopped = self.stopped.fetch_add(1, SeqCst) + 1;
        if stopped != STOPPED_MAX {
            return;
        }
        let reason = format!(
            "the disk of {} has failed: {stopped} partitions stopped on it, the last one because {reason}",
            self.name
        );
        tracing::error!("{reason}; every append is refused until the broker is started again");
        self.failure.get_or_init(|| PartitionFailed::because(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_stopped_partitions_make_a_failed_disk_and_the_reason_stays() {
        let device = Device::new("data directory `x`".into());
        for _ in 1..STOPPED_MAX {
            device.note_stopped("early");
            assert!(device.failure().is_none());
        }
        device.note_stopped("it said no");
        device.note_stopped("late");
        let reason = device.failure().expect("failed").reason.to_string();
        assert!(reason.contains("data directory `x`") && reason.contains("it said no"), "{reason}");
        assert!(reason.contains("3 partitions"), "{reason}");
    }
}
