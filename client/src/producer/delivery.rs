//! What became of a record: one shared cell per batch, one small future per record.
//!
//! Invariant: a cell is settled exactly once; whoever waits is woken then.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use riverrun_proto::{Offset, PartitionId};

use crate::{
    durability::Durability,
    error::{Error, Result},
};

/// Where a record came to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset. With [`crate::Acks::None`] the broker does not tell it and this is 0.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// How durable it was when the broker answered; `Accepted` with [`crate::Acks::None`].
    pub durability: Durability,
    /// True when an earlier try had already written it.
    pub duplicate: bool,
}

/// What the broker answered for a whole batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchReceipt {
    pub(super) base_offset: Offset,
    pub(super) durability: Durability,
    pub(super) duplicate: bool,
}

/// The fate of one batch.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) partition: PartitionId,
    outcome: OnceLock<Result<BatchReceipt>>,
    /// Who waits, each in a slot of its own. Emptied when settled.
    waiting: Mutex<Vec<Option<Waker>>>,
    /// Some record of it was sent without a [`Delivery`], so that `flush` must tell of a failure.
    posted: AtomicBool,
}

impl Cell {
    pub(super) fn new(partition: PartitionId) -> Arc<Cell> {
        Arc::new(Cell {
            partition,
            outcome: OnceLock::new(),
            waiting: Mutex::new(Vec::new()),
            posted: AtomicBool::new(false),
        })
    }

    /// Notes that a record was sent without a [`Delivery`].
    pub(super) fn post(&self) {
        self.posted.store(true, Ordering::Relaxed);
    }

    /// Whether some record was sent without a [`Delivery`].
    pub(super) fn is_posted(&self) -> bool {
        self.posted.load(Ordering::Relaxed)
    }

    /// Settles the batch and wakes everybody who waits.
    pub(super) fn settle(&self, outcome: Result<BatchReceipt>) {
        let first = self.outcome.set(outcome).is_ok();
        debug_assert!(first, "a batch is settled once");
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// The outcome, or a place among those who wait for it.
    fn poll(&self, slot: &mut Option<usize>, cx: &Context<'_>) -> Poll<&Result<BatchReceipt>> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let mut waiting = self.waiting.lock();
        // Settling sets the outcome before it takes this lock, so one of the two sees the other.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        match *slot {
            Some(taken) => waiting[taken] = Some(cx.waker().clone()),
            None => {
                *slot = Some(waiting.len());
                waiting.push(Some(cx.waker().clone()));
            }
        }
        Poll::Pending
    }

    fn forget(&self, slot: usize) {
        if let Some(waker) = self.waiting.lock().get_mut(slot) {
            *waker = None;
        }
    }
}

/// Waits until a batch is settled, whatever became of it.
pub(super) async fn settled(cell: Arc<Cell>) {
    let mut slot = None;
    std::future::poll_fn(|cx| cell.poll(&mut slot, cx).map(|_| ())).await;
}

/// The fate of one record. Await it for the [`Receipt`]; dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "await it to learn the record's fate, or send with `Producer::post`"]
pub struct Delivery {
    cell: Arc<Cell>,
    /// Place of the record in its batch.
    index: u32,
    timestamp_ms: i64,
    /// Where this future's waker stands in the cell, once it has waited.
    slot: Option<usize>,
}

impl Delivery {
    pub(super) fn new(cell: Arc<Cell>, index: u32, timestamp_ms: i64) -> Delivery {
        Delivery { cell, index, timestamp_ms, slot: None }
    }

    /// The partition the record went to.
    pub fn partition(&self) -> PartitionId {
        self.cell.partition
    }

    /// The result, if there is one already.
    pub fn try_receipt(&self) -> Option<Result<Receipt>> {
        self.cell.outcome.get().map(|outcome| self.receipt(outcome))
    }

    fn receipt(&self, outcome: &Result<BatchReceipt>) -> Result<Receipt> {
        let batch = outcome.as_ref().map_err(Error::clone)?;
        let index = match batch.durability {
            Durability::Accepted => 0,
            Durability::Os | Durability::Interval | Durability::Fsync => u64::from(self.index),
        };
        Ok(Receipt {
            partition: self.cell.partition,
            offset: Offset(batch.base_offset.0 + index),
            timestamp_ms: self.timestamp_ms,
            durability: batch.durability,
            duplicate: batch.duplicate,
        })
    }
}

impl Future for Delivery {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Receipt>> {
        let mut slot = self.slot;
        let result = match self.cell.poll(&mut slot, cx) {
            Poll::Ready(outcome) => Poll::Ready(self.receipt(outcome)),
            Poll::Pending => Poll::Pending,
        };
        self.slot = slot;
        result
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.cell.forget(slot);
        }
    }
}
