//! The one writer of the subscriptions' log, with group commit.
//!
//! ```text
//!  live subscriptions ──▶ merged changes ─┐
//!  callers ──▶ operations ────────────────┴▶ writer: all that waits ──▶ log (durable) ──▶ state ──▶ callers
//! ```
//!
//! What happened on lanes counts for its live subscription at once and is written as soon as the flush before is over;
//! whoever must know that it is durable waits for its sequence number. Operations on subscriptions themselves count
//! once they are durable.
//!
//! Invariants:
//! - The state is a fold over durable entries only.
//! - A sequence number is settled when everything handed in up to it is durable, or has nothing left to be about
//!   because its subscription or topic was deleted.
//! - Changes of a lane are written in the order they were handed in.
//! - Nothing is ever dropped for want of room: [`SubscriptionStore::is_full`] tells callers to hand out no more, and
//!   what is in consumers' hands already is bounded.
//! - After a failed append nothing is settled any more until the broker starts anew.

mod operation;
mod pending;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use riverrun_proto::TopicId;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, watch};

pub use self::operation::{NewSubscription, Outcome, SubscriptionChange};
use self::{
    operation::{Operation, Queued},
    pending::Pending,
};
use super::{
    image::{Subscription, Subscriptions},
    lane::{DeadIntent, RememberedLane},
    record::RecordError,
    settings::InvalidSetting,
};
use crate::{
    clock::Clock,
    delivery::{Change, LaneKey, OffsetSet},
    offset::{PartitionKey, state_log::StateLog},
    partition::ReadOnly,
};

/// Bytes of changes waiting from which on callers should hand out nothing more.
const PENDING_BYTES_MAX: usize = 32 << 20;
/// Operations waiting.
const OPERATIONS_MAX: usize = 1_000;
/// Most memory for the cancelled records of one partition.
const CANCELLED_BYTES_MAX: usize = 1 << 20;

/// Why something cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// An append failed; what was not settled may or may not have happened.
    #[error("what was stored may or may not be durable: {reason}")]
    Failed {
        /// What happened.
        reason: Arc<str>,
    },
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Closed,
    /// Nothing can be written.
    #[error(transparent)]
    ReadOnly(#[from] ReadOnly),
    /// There is no such subscription.
    #[error("subscription `{}` does not exist", .name.escape_debug())]
    Unknown {
        /// Its name.
        name: Arc<str>,
    },
    /// There are as many subscriptions as there may be.
    #[error(
        "the broker has `{max}` subscriptions, the most it may have (`subscriptions.subscriptions_max`)"
    )]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// A setting is not allowed.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// A subscription that takes too much room in one piece.
    #[error(
        "the subscription takes `{bytes}` bytes to remember, at most `{max}` are allowed: name fewer topics"
    )]
    TooLarge {
        /// Bytes of it.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Too many records of one partition are cancelled.
    #[error(
        "cancelled records of one partition take `{bytes}` bytes to remember, at most `{max}` are allowed"
    )]
    TooManyCancelled {
        /// Bytes of them.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// What a start found in the log.
#[derive(Debug, Default)]
pub struct Stored {
    /// Entries of the newest snapshot.
    pub snapshot: Vec<Bytes>,
    /// Entries behind it.
    pub deltas: Vec<Bytes>,
}

/// The writer's other end; cheap to clone.
#[derive(Clone, Debug)]
pub struct SubscriptionStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The fold over what is durable. Written by the writer only.
    state: RwLock<Subscriptions>,
    /// Subscriptions by name, as in `state`, so that nobody waits for lanes being applied.
    names: RwLock<BTreeMap<Arc<str>, Arc<Subscription>>>,
    /// Cancelled records, as in `state`.
    cancelled: RwLock<HashMap<PartitionKey, Arc<OffsetSet>>>,
    /// What waits for the writer.
    pending: Mutex<Pending>,
    /// Bytes of changes in `pending`.
    pending_bytes: AtomicUsize,
    /// Something was handed in, or the store was closed.
    arrived: Notify,
    /// Room for operations.
    room: Arc<Semaphore>,
    /// Everything up to this sequence number is durable. Also changes when the writer ends.
    durable: watch::Sender<u64>,
    /// Why the writer ended, or may write nothing.
    ended: OnceLock<StoreError>,
    clock: Clock,
    subscriptions_max: usize,
}

impl SubscriptionStore {
    /// A store over what `stored` says, and its writer, to be spawned, which writes to `log`.
    ///
    /// # Errors
    /// When an entry cannot be read or contradicts those before it.
    pub fn open(
        stored: Stored,
        log: Arc<dyn StateLog>,
        clock: Clock,
        subscriptions_max: usize,
    ) -> Result<(SubscriptionStore, impl Future<Output = ()> + Send + 'static), RecordError> {
        let mut state = Subscriptions::default();
        let bytes = stored.bytes();
        for entry in stored.snapshot.iter().chain(&stored.deltas) {
            state.apply(entry)?;
        }
        let names = state.iter().map(|one| (one.name.clone(), one.clone())).collect();
        let cancelled = state.all_cancelled();
        let cancelled = cancelled.map(|(key, offsets)| (*key, Arc::new(offsets.clone()))).collect();
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            names: RwLock::new(names),
            cancelled: RwLock::new(cancelled),
            pending: Mutex::default(),
            pending_bytes: AtomicUsize::new(0),
            arrived: Notify::new(),
            room: Arc::new(Semaphore::new(OPERATIONS_MAX)),
            durable: watch::channel(0).0,
            ended: OnceLock::new(),
            clock,
            subscriptions_max,
        });
        drop(stored);
        let writer = writer::run(shared.clone(), log, bytes);
        Ok((SubscriptionStore { shared }, writer))
    }

    /// The subscription `name`, as it is durable.
    pub fn subscription(&self, name: &str) -> Option<Arc<Subscription>> {
        self.shared.names.read().get(name).cloned()
    }

    /// Every subscription, by name.
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        self.shared.names.read().values().cloned().collect()
    }

    /// What is durable of a lane; `None` when nothing is, so that it begins at offset 0. Changes handed in and not
    /// settled are not in it.
    pub fn lane(&self, number: u64, key: &LaneKey) -> Option<RememberedLane> {
        self.shared.state.read().lane(number, key).cloned()
    }

    /// Records of a partition that were cancelled before their time.
    pub fn cancelled(&self, key: &PartitionKey) -> Option<Arc<OffsetSet>> {
        self.shared.cancelled.read().get(key).cloned()
    }

    /// Creates a subscription, and answers when it is durable. One of the same name is left as it is and answered.
    ///
    /// # Errors
    /// When there are too many, it is too large, or it cannot be stored.
    pub async fn create(&self, new: NewSubscription) -> Result<Outcome, StoreError> {
        self.operate(Operation::Create(Box::new(new))).await
    }

    /// Changes a subscription, and answers when that is durable.
    ///
    /// # Errors
    /// When it does not exist, a setting is out of bounds, or the change cannot be stored.
    pub async fn alter(
        &self,
        name: &str,
        change: SubscriptionChange,
    ) -> Result<Outcome, StoreError> {
        self.operate(Operation::Alter { name: name.into(), change: Box::new(change) }).await
    }

    /// Deletes a subscription and all that is remembered of it, and answers when that is durable. What its lanes
    /// hand in meanwhile is dropped.
    ///
    /// # Errors
    /// When it does not exist or the deletion cannot be stored.
    pub async fn delete(&self, name: &str) -> Result<Outcome, StoreError> {
        self.operate(Operation::Delete { name: name.into() }).await
    }

    /// Forgets deleted topics in all subscriptions, and answers when that is durable.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn forget_topics(&self, topics: Vec<TopicId>) -> Result<Outcome, StoreError> {
        self.operate(Operation::Forget { topics }).await
    }

    /// Hands in what happened on lanes of the subscription `number`; returns the sequence number to wait for. Never
    /// waits.
    pub fn record(&self, number: u64, changes: impl IntoIterator<Item = Change>) -> u64 {
        self.hand_in(|pending| {
            changes.into_iter().for_each(|change| pending.change(number, change));
        })
    }

    /// Hands in that the dead letter of a record is about to be written; it may be once the sequence number that
    /// comes back is settled.
    pub fn intend(&self, number: u64, key: LaneKey, offset: u64, intent: DeadIntent) -> u64 {
        self.hand_in(|pending| pending.intend(number, key, offset, intent))
    }

    /// Hands in that a scheduled record is cancelled, for all subscriptions. What was cancelled below `log_start` is
    /// forgotten.
    ///
    /// # Errors
    /// When too many records of the partition are cancelled.
    pub fn cancel_scheduled(
        &self,
        key: PartitionKey,
        offset: u64,
        log_start: u64,
    ) -> Result<u64, StoreError> {
        let bytes = self.cancelled(&key).map_or(0, |offsets| offsets.state_bytes());
        let bytes = bytes + self.shared.pending.lock().cancelled_bytes(&key);
        if bytes > CANCELLED_BYTES_MAX {
            return Err(StoreError::TooManyCancelled { bytes, max: CANCELLED_BYTES_MAX });
        }
        Ok(self.hand_in(|pending| pending.cancel(key, offset, log_start)))
    }

    /// So much waits to be written that nothing more should be handed out.
    pub fn is_full(&self) -> bool {
        self.shared.pending_bytes.load(Relaxed) >= PENDING_BYTES_MAX
    }

    /// Waits until the store is not full.
    ///
    /// # Errors
    /// When the log failed or the store is closed.
    pub async fn has_room(&self) -> Result<(), StoreError> {
        let mut durable = self.shared.durable.subscribe();
        let waited = durable.wait_for(|_| !self.is_full() || self.is_ended()).await;
        if waited.is_ok() && !self.is_ended() { Ok(()) } else { Err(self.error()) }
    }

    /// The sequence number of what was handed in last.
    pub fn handed_in(&self) -> u64 {
        self.shared.pending.lock().sequence
    }

    /// The sequence number up to which everything is durable.
    pub fn durable(&self) -> u64 {
        *self.shared.durable.borrow()
    }

    /// Waits until everything handed in up to `sequence` is durable.
    ///
    /// # Errors
    /// When the log failed or the store is closed.
    pub async fn settled(&self, sequence: u64) -> Result<(), StoreError> {
        let mut durable = self.shared.durable.subscribe();
        let reached = durable.wait_for(|done| *done >= sequence || self.is_ended()).await;
        if reached.is_ok_and(|done| *done >= sequence) { Ok(()) } else { Err(self.error()) }
    }

    /// Why nothing is stored any more.
    pub fn failure(&self) -> Option<StoreError> {
        self.shared.ended.get().cloned()
    }

    /// Refuses everything for `reason`, from the beginning. What is stored stays readable.
    pub fn refuse(&self, reason: StoreError) {
        self.shared.ended.get_or_init(|| reason);
        self.close();
    }

    /// Takes nothing more; the writer ends after what waits is written.
    pub fn close(&self) {
        self.shared.pending.lock().closed = true;
        self.shared.room.close();
        self.shared.arrived.notify_one();
    }

    /// Waits until the writer ended, and says why: after a failure, or once everything is written that was handed in
    /// before the store was closed.
    pub async fn ended(&self) -> StoreError {
        let mut durable = self.shared.durable.subscribe();
        // The sender lives in `self`, so this ends only when the condition holds.
        let _ = durable.wait_for(|_| self.is_ended()).await;
        self.error()
    }

    fn hand_in(&self, add: impl FnOnce(&mut Pending)) -> u64 {
        let mut pending = self.shared.pending.lock();
        if pending.closed {
            // A number that is never settled.
            return pending.sequence + 1;
        }
        pending.sequence += 1;
        add(&mut pending);
        self.shared.pending_bytes.store(pending.bytes(), Relaxed);
        let sequence = pending.sequence;
        drop(pending);
        self.shared.arrived.notify_one();
        sequence
    }

    async fn operate(&self, operation: Operation) -> Result<Outcome, StoreError> {
        let room = self.shared.room.clone().acquire_owned().await.map_err(|_| self.error())?;
        let (queued, answer) = Queued::new(operation, room);
        {
            let mut pending = self.shared.pending.lock();
            if pending.closed {
                return Err(self.error());
            }
            pending.operations.push_back(queued);
        }
        self.shared.arrived.notify_one();
        answer.await.unwrap_or_else(|_| Err(self.error()))
    }

    fn is_ended(&self) -> bool {
        self.shared.ended.get().is_some()
    }

    fn error(&self) -> StoreError {
        self.shared.ended.get().cloned().unwrap_or(StoreError::Closed)
    }
}

impl Stored {
    /// Bytes of the snapshot, and of what stands behind it.
    fn bytes(&self) -> (usize, usize) {
        let sum = |entries: &[Bytes]| entries.iter().map(Bytes::len).sum();
        (sum(&self.snapshot), sum(&self.deltas))
    }
}

#[cfg(test)]
mod tests;
