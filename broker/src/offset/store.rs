//! Stored offsets and whatever else a group must not forget: one writer, group commit, durable reads.
//!
//! ```text
//!  callers ──▶ queue ──▶ writer: all that waits becomes one entry ──▶ log (durable) ──▶ memory ──▶ callers
//! ```
//!
//! Invariants:
//! - Writes take effect in the order of [`Permit::send`]; a caller that sends under a lock gets the lock's order.
//! - Memory is a fold over durable entries only. A write is answered after memory holds it.
//! - A conditional write sees every write sent before it: it opens a new entry if its group already
//!   changes in the open one.
//! - The queue is bounded in bytes; a full queue makes callers wait before they take their lock.
//! - After a failed append nothing is confirmed any more until the broker starts anew.

mod plan;
mod writer;

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use riverrun_proto::{LeaderEpoch, Offset, TopicId, grpc::state::v1::MembershipChanged};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{
    PartitionKey,
    image::{Groups, StartPolicy},
    record::RecordError,
    state_log::StateLog,
};
use crate::{clock::Clock, partition::ReadOnly};

/// Most KiB of writes waiting.
const QUEUE_KIB_MAX: u32 = 64 << 10;

/// Why nothing can be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An append failed; it may or may not have happened.
    #[error("what was stored may or may not be durable: {reason}")]
    Failed {
        /// What happened.
        reason: Arc<str>,
    },
    /// Nothing can be written.
    #[error(transparent)]
    ReadOnly(#[from] ReadOnly),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Closed,
    /// The group was never created, or was deleted.
    #[error("group `{group}` does not exist")]
    UnknownGroup {
        /// Its name.
        group: Arc<str>,
    },
    /// There are as many groups as there may be.
    #[error("the broker has `{max}` groups, the most it may have (`groups.groups_max`)")]
    TooManyGroups {
        /// The bound.
        max: usize,
    },
}

/// One offset to store.
#[derive(Clone, Debug)]
pub struct OffsetWrite {
    /// Which partition.
    pub key: PartitionKey,
    /// The next offset to read.
    pub offset: Offset,
    /// Leader epoch of the last record read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The reader's note.
    pub metadata: String,
    /// Store only if this is the stored offset now.
    pub expected: Option<Offset>,
}

/// Something to store.
#[derive(Debug)]
pub enum Write {
    /// Creates a group unless it exists.
    Create {
        /// Name of the group.
        group: Arc<str>,
        /// Where it begins.
        start: StartPolicy,
        /// Name of its assignor.
        assignor: &'static str,
    },
    /// Fixes where a group begins on a topic, on partitions that have no stored offset yet.
    Pin {
        /// Name of the group.
        group: Arc<str>,
        /// The topic, and how many partitions the start position counts for; kept if it is pinned already.
        topic: (TopicId, u32),
        /// Where to begin.
        offsets: Vec<(PartitionKey, Offset)>,
    },
    /// Stores offsets.
    Commit {
        /// Name of the group.
        group: Arc<str>,
        /// Who commits; empty when it is nobody of the group.
        member_id: Arc<str>,
        /// The offsets.
        offsets: Vec<OffsetWrite>,
    },
    /// Stores members, and offsets set by an operator together with what tells the members.
    Members {
        /// Name of the group.
        group: Arc<str>,
        /// Members and epoch.
        change: MembershipChanged,
        /// Offsets set.
        offsets: Vec<OffsetWrite>,
    },
    /// Deletes a group and its offsets.
    Delete {
        /// Name of the group.
        group: Arc<str>,
    },
    /// Forgets deleted topics in all groups.
    Forget {
        /// The topics.
        topics: Vec<TopicId>,
    },
}

/// The condition of one offset did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetConflict {
    /// Index of the offset in the write.
    pub index: usize,
    /// What is stored.
    pub stored: Option<Offset>,
}

/// Answer to a write: the offsets that were not stored.
pub type Written = Result<Vec<OffsetConflict>, StoreError>;

/// A write on its way; resolves when it is durable.
#[derive(Debug)]
pub struct Ticket {
    sequence: u64,
    written: oneshot::Receiver<Written>,
}

impl Ticket {
    /// Place of the write in the order of all writes.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Waits until the write is durable.
    ///
    /// # Errors
    /// When the log failed or the broker shuts down.
    pub async fn wait(self) -> Written {
        self.written.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// Room in the queue for one write.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    room: OwnedSemaphorePermit,
}

impl Permit {
    /// Queues a write. Never waits, so it may be called under a lock.
    pub fn send(self, write: Write) -> Ticket {
        let (answer, written) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        queue.sent += 1;
        let sequence = queue.sent;
        if !queue.closed {
            queue.waiting.push_back(Queued { write, sequence, answer, _room: self.room });
        }
        drop(queue);
        self.shared.arrived.notify_one();
        Ticket { sequence, written }
    }
}

/// The store; cheap to clone.
#[derive(Clone, Debug)]
pub struct OffsetStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Queued {
    write: Write,
    sequence: u64,
    answer: oneshot::Sender<Written>,
    /// Given back when the write is answered.
    _room: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    /// Sequence of the last write sent.
    sent: u64,
    /// No more writes are taken; what waits is still written.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    /// The durable state. Changed by the writer only.
    groups: RwLock<Groups>,
    queue: Mutex<Queue>,
    arrived: Notify,
    room: Arc<Semaphore>,
    /// Sequence of the last write that is durable and in memory.
    settled: watch::Sender<u64>,
    /// Set once, by the writer, or before it runs.
    failed: OnceLock<StoreError>,
    clock: Clock,
    /// Most groups. Constant.
    groups_max: usize,
}

impl OffsetStore {
    /// A store over the state in `groups` that writes to `log`, and its writer, to be spawned.
    pub fn new(
        groups: Groups,
        log: Arc<dyn StateLog>,
        clock: Clock,
        groups_max: usize,
    ) -> (OffsetStore, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            groups: RwLock::new(groups),
            queue: Mutex::default(),
            arrived: Notify::new(),
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)),
            settled: watch::channel(0).0,
            failed: OnceLock::new(),
            clock,
            groups_max,
        });
        (OffsetStore { shared: shared.clone() }, writer::run(shared, log))
    }

    /// The state that `entries` of the log describe.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn replay(entries: impl IntoIterator<Item = Bytes>) -> Result<Groups, RecordError> {
        let mut groups = Groups::default();
        for entry in entries {
            groups.apply(&entry)?;
        }
        Ok(groups)
    }

    /// Waits for room for a write of about `bytes`.
    ///
    /// # Errors
    /// When the log failed or the broker shuts down.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, StoreError> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(QUEUE_KIB_MAX).min(QUEUE_KIB_MAX);
        let room = self.shared.room.clone().acquire_many_owned(kib).await;
        let room = room.map_err(|_| self.error())?;
        Ok(Permit { shared: self.shared.clone(), room })
    }

    /// Stores something and waits until it is durable.
    ///
    /// # Errors
    /// When the log failed, the broker shuts down, or there are too many groups.
    pub async fn write(&self, write: Write, bytes: usize) -> Written {
        self.reserve(bytes).await?.send(write).wait().await
    }

    /// Waits until the write `sequence` and all before it are durable.
    ///
    /// # Errors
    /// When the log failed or the broker shuts down.
    pub async fn settled(&self, sequence: u64) -> Result<(), StoreError> {
        let mut settled = self.shared.settled.subscribe();
        let reached = settled.wait_for(|done| *done >= sequence || self.is_stopped()).await;
        if reached.is_ok_and(|done| *done >= sequence) { Ok(()) } else { Err(self.error()) }
    }

    /// Looks at the durable state, for a few lines.
    pub fn read<R>(&self, look: impl FnOnce(&Groups) -> R) -> R {
        look(&self.shared.groups.read())
    }

    /// Refuses every write for `reason`, from the beginning. What is stored stays readable.
    pub fn refuse(&self, reason: StoreError) {
        self.shared.failed.get_or_init(|| reason);
        self.close();
    }

    /// Takes no more writes; the writer ends after what waits is written.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.room.close();
        self.shared.arrived.notify_one();
    }

    /// Waits until the writer ended: after a failure, or once everything is written that waited when the store
    /// was closed.
    pub async fn finished(&self) {
        let mut settled = self.shared.settled.subscribe();
        // The sender lives in `self`, so this ends only when the condition holds.
        let _ = settled.wait_for(|_| self.is_stopped()).await;
    }

    fn is_stopped(&self) -> bool {
        self.shared.failed.get().is_some()
    }

    fn error(&self) -> StoreError {
        self.shared.failed.get().cloned().unwrap_or(StoreError::Closed)
    }
}

#[cfg(test)]
mod tests;
