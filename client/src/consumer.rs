//! The consumer: reads partitions from stored offsets, alone or as a member of a group.
//!
//! ```text
//! broker -- fetch, one ahead --> queue (bounded) -- next_batch --> program -- commit --> broker
//!              ^                                                               |
//!              +--------- membership: assigned, revoked, reset <---------------+
//! ```
//!
//! - [`batch`]: what is received. [`book`]: which partitions there are and where they are read; pure.
//! - [`fetcher`]: reads ahead. [`membership`]: stays in the group. [`commit`]: stores offsets.
//! - [`topics`]: without a group, finds partitions that are added and topics that are deleted.
//! - [`tracker`], [`prefix`]: completion in any order.
//!
//! Not here: deliveries with acknowledgements and retries, which the broker manages for subscriptions.

mod batch;
mod book;
mod builder;
mod commit;
mod fetcher;
mod membership;
mod prefix;
mod reading;
mod shared;
mod topics;
mod tracker;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use riverrun_proto::{Offset, TopicPartition};
use tokio::sync::broadcast;

pub use self::{
    batch::{Batch, BatchRecords, Received},
    builder::{Commit, ConsumerBuilder, OutOfRange, Start},
    commit::OffsetToCommit,
    shared::Rebalance,
    tracker::Tracker,
};
use self::{book::Progress, shared::Shared};
use crate::{
    admin::OffsetAt,
    clock,
    error::{Error, ErrorCode, Result},
};

/// Reads records. Batches come from [`Consumer::next_batch`], single records from its [`Stream`].
///
/// Dropping it leaves the group in the background; [`Consumer::close`] waits for that.
///
/// ```no_run
/// # async fn example(mq: riverrun_client::Client) -> Result<(), riverrun_client::Error> {
/// let mut orders = mq.consumer("orders").group("billing").build().await?;
/// loop {
///     let batch = orders.next_batch().await?;
///     for record in &batch {
///         println!("{} {:?}", record.offset, record.value);
///     }
///     orders.commit(&batch).await?; // confirmed means durable
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    /// What was handed out last and counts as processed when more is asked for.
    last: Option<Progress>,
    /// What the stream is giving out.
    current: Option<BatchRecords>,
    /// What `current` comes to.
    current_next: Offset,
    /// The stream gave the error that ends it.
    over: bool,
}

/// Where to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// At this offset.
    Offset(Offset),
    /// At the first offset kept.
    Earliest,
    /// At the first offset not visible yet.
    Latest,
    /// At the first record at or after this time.
    Time(SystemTime),
    /// At the first record not older than this, by this machine's clock.
    Ago(Duration),
}

/// How far a consumer is behind on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: TopicPartition,
    /// Next offset to be received.
    pub position: Offset,
    /// First offset not visible yet, when the broker was last asked.
    pub high_watermark: Offset,
    /// Records between the two.
    pub lag: u64,
}

impl Consumer {
    fn new(shared: Arc<Shared>) -> Consumer {
        Consumer { shared, last: None, current: None, current_next: Offset::ZERO, over: false }
    }

    /// Waits for the next records: those of one partition, in order.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `OffsetTruncated`, `DataCorrupt` and the like for one partition, told once and
    /// named by [`Error::partition`] and [`Error::range`]: it waits for a [`Consumer::seek`] (or a reset of
    /// its group) while the others go on, so who calls again receives their records. Of the whole consumer:
    /// `InstanceIdInUse`, `Closed`; without a group `TopicDeleted`, after which nothing more of that topic comes,
    /// and, when it was the last, the same error for ever. A broken connection is no error: the call waits until it is back.
    pub async fn next_batch(&mut self) -> Result<Batch> {
        std::future::poll_fn(|cx| self.poll_batch(cx)).await
    }

    /// As [`Consumer::next_batch`], for at most `wait`; `None` when nothing came.
    ///
    /// # Errors
    /// As [`Consumer::next_batch`].
    pub async fn poll(&mut self, wait: Duration) -> Result<Option<Batch>> {
        match tokio::time::timeout(wait, self.next_batch()).await {
            Ok(batch) => batch.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// As [`Consumer::next_batch`], for hand-written futures.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Batch>> {
        self.went_on();
        let open_max = self.shared.settings.open_max;
        let Some(taken) = self.shared.book.lock().take(cx.waker(), open_max) else {
            return Poll::Pending;
        };
        self.shared.fetcher.notify_one();
        if let Ok(batch) = &taken {
            self.last = Some(progress(batch, batch.next_offset()));
        }
        Poll::Ready(taken)
    }

    /// What was handed out last was processed: more is asked for.
    fn went_on(&mut self) {
        if let Some(Progress { partition, life, offset }) = self.last.take()
            && self.shared.settings.commit != Commit::Manual
        {
            self.shared.book.lock().processed(&partition, life, offset);
            self.shared.committer.notify_one();
        }
    }

    /// Commits a batch: the group goes on after it. Confirmed means durable. Committing what lies behind
    /// the last commit of the partition changes nothing.
    ///
    /// # Errors
    /// A fenced error when the partition was given up since; `InvalidArgument` without a group; those of
    /// the connection.
    pub async fn commit(&self, batch: &Batch) -> Result<()> {
        self.shared.commit_progress(vec![progress(batch, batch.next_offset())]).await
    }

    /// Commits up to and with this record.
    ///
    /// # Errors
    /// As [`Consumer::commit`].
    pub async fn commit_record(&self, record: &Received) -> Result<()> {
        let partition = record.partition.clone();
        let offset = Offset(record.offset.0 + 1);
        self.shared.commit_progress(vec![Progress { partition, life: record.life, offset }]).await
    }

    /// Commits offsets as given, also backwards. Each is the next offset to read. What was received of a
    /// partition is better committed with [`OffsetToCommit::received_in`].
    ///
    /// # Errors
    /// The first that was refused; the others are stored.
    pub async fn commit_offsets(&self, offsets: &[OffsetToCommit]) -> Result<()> {
        self.shared.commit_offsets(offsets).await
    }

    /// Goes on reading a partition elsewhere. What was fetched of it is dropped. Nothing is committed.
    ///
    /// # Errors
    /// `PartitionNotOwned` when this consumer does not read it; those of the connection.
    pub async fn seek(&mut self, partition: &TopicPartition, to: Seek) -> Result<()> {
        let at = match to {
            Seek::Offset(offset) => return self.seek_to(partition, offset),
            Seek::Earliest => OffsetAt::Earliest,
            Seek::Latest => OffsetAt::Latest,
            Seek::Time(time) => OffsetAt::Time(time),
            Seek::Ago(age) => OffsetAt::Time(clock::ago(age)),
        };
        let admin = self.shared.client.admin();
        let found = admin.lookup_offsets(std::slice::from_ref(partition), at).await?;
        let offset = found.into_iter().next().map(|(_, offset)| offset);
        let missing = || Err(Error::new(ErrorCode::Protocol, "the broker gave no offset"));
        self.seek_to(partition, offset.unwrap_or_else(missing)?)
    }

    fn seek_to(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.last.take_if(|last| last.partition == *partition);
        if !self.shared.book.lock().seek(partition, offset) {
            let message = format!("partition `{partition}` is not read by this consumer");
            return Err(Error::new(ErrorCode::PartitionNotOwned, message));
        }
        self.shared.fetcher.notify_one();
        Ok(())
    }

    /// Stops receiving these partitions without giving them up. Others are not read here.
    pub fn pause(&self, partitions: &[TopicPartition]) {
        self.set_paused(partitions, true);
    }

    /// Goes on receiving these partitions.
    pub fn resume(&self, partitions: &[TopicPartition]) {
        self.set_paused(partitions, false);
    }

    fn set_paused(&self, partitions: &[TopicPartition], paused: bool) {
        let mut book = self.shared.book.lock();
        partitions.iter().for_each(|partition| book.pause(partition, paused));
        drop(book);
        self.shared.fetcher.notify_one();
    }

    /// The next offset to be received, when the partition is read here and its position is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.shared.book.lock().position(partition)
    }

    /// How far behind this consumer is, for each partition of which an answer came, also one without records.
    pub fn lag(&self) -> Vec<PartitionLag> {
        self.shared.book.lock().lag()
    }

    /// The partitions that are read here now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.book.lock().assignment()
    }

    /// Changes of the assignment from now on.
    pub fn rebalances(&self) -> Rebalances {
        Rebalances(self.shared.rebalances.subscribe())
    }

    /// Follows the completion of single records from now on; call it before the first batch.
    pub fn tracker(&self) -> Tracker {
        self.shared.book.lock().tracking = true;
        Tracker { shared: self.shared.clone() }
    }

    /// The id of this member in its group.
    pub fn member_id(&self) -> String {
        self.shared.membership.borrow().member_id.clone()
    }

    /// Commits what is due (never what was only received), leaves the group, and waits for both.
    ///
    /// # Errors
    /// When the last commit failed.
    pub async fn close(self) -> Result<()> {
        let committed = match self.shared.settings.group.is_some() {
            true => self.shared.commit_rest().await,
            false => Ok(()),
        };
        self.shared.closing.cancel();
        self.shared.ended.cancelled().await;
        committed
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl Stream for Consumer {
    type Item = Result<Received>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Received>>> {
        loop {
            if let Some(record) = self.next_of_current() {
                return Poll::Ready(Some(Ok(record)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.poll_batch(cx)) {
                Ok(batch) => {
                    self.last = None;
                    self.current_next = batch.next_offset();
                    self.current = Some(batch.into_iter());
                }
                Err(error) if error.code() == ErrorCode::Closed => return Poll::Ready(None),
                Err(error) => {
                    let ended = self.shared.book.lock().has_ended();
                    self.over = ended;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Consumer {
    /// The next record of the batch the stream is giving out, unless its partition was given up.
    fn next_of_current(&mut self) -> Option<Received> {
        self.went_on();
        let current = self.current.as_mut()?;
        if !self.shared.book.lock().hands_out(&current.partition, current.life) {
            self.current = None;
            return None;
        }
        let Some(record) = current.next() else {
            let (partition, life) = (current.partition.clone(), current.life);
            self.last = Some(Progress { partition, life, offset: self.current_next });
            self.current = None;
            self.went_on();
            return None;
        };
        let (partition, life) = (record.partition.clone(), record.life);
        self.last = Some(Progress { partition, life, offset: Offset(record.offset.0 + 1) });
        Some(record)
    }
}

/// Changes of a consumer's assignment.
#[derive(Debug)]
pub struct Rebalances(broadcast::Receiver<Rebalance>);

impl Rebalances {
    /// The next change; `None` when the consumer is gone. Who is more than 64 behind misses the oldest.
    pub async fn next(&mut self) -> Option<Rebalance> {
        loop {
            match self.0.recv().await {
                Ok(change) => return Some(change),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn progress(batch: &Batch, offset: Offset) -> Progress {
    Progress { partition: batch.partition.clone(), life: batch.life, offset }
}
