//! What partitions need now and then: retention, the end of segments that grew old, files that nobody reads, free room on the disk.
//!
//! There is one round for all partitions, never a timer for each. A round looks at a share of them, so
//! that a thousand idle partitions cost nothing worth counting.

use std::{io, sync::Arc};

use riverrun_storage::{
    ballast::Ballast,
    disk::Disk,
    recycle::RecyclePool,
    space::{Space, SpaceState},
};

use super::{DiskGauge, Partition};
use crate::clock::Clock;

/// Rounds in which every partition is looked at once.
const ROUNDS: usize = 10;
/// Partitions looked at in each round, when there are so many.
const PER_ROUND_MIN: usize = 64;

/// Does the rounds.
#[derive(Debug)]
pub struct Housekeeper {
    clock: Clock,
    disk: Arc<dyn Disk>,
    space: Space,
    gauge: Arc<DiskGauge>,
    pool: Arc<RecyclePool>,
    /// Where the next round begins among the partitions.
    next: usize,
}

impl Housekeeper {
    /// A housekeeper of the data directory on `disk`.
    ///
    /// # Errors
    /// When the ballast file cannot be opened or made.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Clock,
        (gauge, pool): (Arc<DiskGauge>, Arc<RecyclePool>),
        free_bytes_min: u64,
    ) -> io::Result<Housekeeper> {
        let ballast = Ballast::open(disk.as_ref())?;
        let space = Space::new(disk.clone(), ballast, free_bytes_min);
        let mut housekeeper = Housekeeper { clock, disk, space, gauge, pool, next: 0 };
        housekeeper.look_at_space();
        Ok(housekeeper)
    }

    /// Looks how much room the disk has; produce is refused or admitted accordingly.
    pub fn look_at_space(&mut self) {
        let looked = self.space.refresh().and_then(|state| Ok((state, self.disk.free_bytes()?)));
        match looked {
            Ok((state, free_bytes)) => {
                let full = state == SpaceState::Low;
                if full {
                    self.drain_pool();
                }
                let needed_bytes = self.space.needed_bytes();
                if self.gauge.set(full, free_bytes, needed_bytes) {
                    tracing::warn!(free_bytes, full, needed_bytes, "room on the disk changed");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot tell how much room the disk has"),
        }
    }

    /// True once the disk failed: nothing is written until the next start.
    pub fn has_disk_failed(&self) -> bool {
        self.gauge.device().failure().is_some()
    }

    /// Gives back the files that wait to be used again; what cannot be removed now is tried again next time.
    fn drain_pool(&self) {
        if let Err(error) = self.pool.drain() {
            tracing::warn!(%error, "files kept for recycling could not be removed");
        }
    }

    /// Looks at the next share of `partitions`.
    pub async fn round(&mut self, partitions: &[Arc<Partition>]) {
        let now_ms = self.clock.steady_ms();
        let share = partitions.len().div_ceil(ROUNDS).max(PER_ROUND_MIN).min(partitions.len());
        for index in 0..share {
            let partition = &partitions[(self.next + index) % partitions.len()];
            look_after(partition, now_ms).await;
        }
        self.next = (self.next + share) % partitions.len().max(1);
    }
}

/// Makes a compaction pass over each of `partitions` that needs one, one after another.
pub async fn compact(partitions: &[Arc<Partition>], clock: &Clock) {
    let compacted = |partition: &&Arc<Partition>| {
        let is_stopped = partition.failure().is_some() || partition.read_only().is_some();
        partition.has_compaction() && !is_stopped
    };
    for partition in partitions.iter().filter(compacted) {
        match partition.compact(clock.steady_ms()).await {
            Ok((0, _)) => {}
            Ok((record_count, has_more)) => {
                tracing::info!(partition = %partition.name(), record_count, has_more, "keys compacted");
            }
            Err(error) if partition.is_news(&error.to_string()) => {
                tracing::warn!(partition = %partition.name(), %error, "compaction ended early");
            }
            Err(_) => {}
        }
    }
}

async fn look_after(partition: &Arc<Partition>, now_ms: i64) {
    partition.close_idle_files();
    partition.check_file();
    let facts = partition.facts();
    let is_empty = facts.visible.log_start == facts.log_end;
    let is_stopped = partition.failure().is_some() || partition.read_only().is_some();
    if is_empty || is_stopped || !partition.is_trimmed() {
        return;
    }
    match partition.maintain(now_ms).await {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(partition = %partition.name(), bytes, "old segments dropped"),
        Err(error) if partition.is_news(&error.to_string()) => {
            tracing::warn!(partition = %partition.name(), %error, "retention failed");
        }
        Err(_) => {}
    }
}
