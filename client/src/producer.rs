//! The producer: records in, batches out, receipts back.
//!
//! ```text
//! send -> lane of the partition (open batch) -> pump (pulled by the connection) -> broker
//!                                                                                   |
//! Delivery <- cell of the batch <----------------- driver <------------- answers ---+
//! ```
//!
//! A record is encoded into its batch as it is sent; a batch leaves when it is full, when at most one
//! other of its partition is in flight, or when it has waited for `linger`. So batches are small while
//! the broker keeps up, and grow by themselves under load. After a reconnect batches go again with
//! their sequence numbers, and the broker tells the second copy from a new one.
//!
//! - [`record`]: what is sent. [`delivery`]: what became of it. [`lane`]: one partition's way out.
//! - [`pump`]: the stream of requests. [`driver`]: the task behind it all. [`shared`]: what they share.
//!
//! Not here: transactions, and partitioners other than by key, explicit, and sticky.

mod budget;
mod builder;
mod delivery;
mod driver;
mod identity;
mod lane;
mod lanes;
mod pump;
mod record;
mod shared;

#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
};

use riverrun_proto::partitioner::partition_for_key;
use tokio_util::sync::DropGuard;

pub use self::{
    builder::{Acks, ProducerBuilder},
    delivery::{Delivery, Receipt},
    record::Record,
};
use self::{
    lane::{Lane, Take, needed_alone},
    shared::Shared,
};
use crate::{
    clock,
    error::{Error, ErrorCode, Result},
};

/// Sends records to one topic. Clones share buffer, batches and order. When the last clone is dropped,
/// what was sent is still delivered in the background; [`Producer::close`] waits for it.
///
/// ```no_run
/// # async fn example(mq: riverrun_client::Client) -> Result<(), riverrun_client::Error> {
/// use riverrun_client::Record;
/// let orders = mq.producer("orders").build().await?;
/// let delivery = orders.send(Record::new("12 apples").key("customer-7")).await?; // waits for space
/// let receipt = delivery.await?; // waits for the acknowledgement
/// println!("partition {} offset {}", receipt.partition, receipt.offset);
/// orders.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    /// Tells the driver when the last handle is gone.
    _finish_on_drop: Arc<DropGuard>,
}

/// A record was taken, or there was no space for it.
enum Taken {
    Yes(Option<Delivery>),
    NoSpace,
}

impl Producer {
    /// Puts a record into its batch, waiting for buffer space, and returns its [`Delivery`]. Records
    /// sent one after another to one partition keep their order.
    ///
    /// # Errors
    /// `RecordTooLarge`, `InvalidArgument` for a record that no batch can hold or a partition that does
    /// not exist; `Closed`; the error that ended the producer.
    pub async fn send(&self, record: impl Into<Record>) -> Result<Delivery> {
        let delivery = self.put(record.into(), true).await?;
        Ok(delivery.expect("a wanted delivery is made"))
    }

    /// As [`Producer::send`] without a [`Delivery`]: the fastest way. A failure is told by the next
    /// [`Producer::flush`] or [`Producer::close`].
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn post(&self, record: impl Into<Record>) -> Result<()> {
        self.put(record.into(), false).await.map(|_| ())
    }

    /// As [`Producer::send`] for many records.
    ///
    /// # Errors
    /// As [`Producer::send`], for the first record that was not taken; those before it are on their way.
    pub async fn send_all<R: Into<Record>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Vec<Delivery>> {
        let records = records.into_iter();
        let mut deliveries = Vec::with_capacity(records.size_hint().0);
        for record in records {
            deliveries.push(self.send(record).await?);
        }
        Ok(deliveries)
    }

    /// As [`Producer::send`] without waiting.
    ///
    /// # Errors
    /// `BufferFull` when there is no space now; otherwise as [`Producer::send`].
    pub fn try_send(&self, record: impl Into<Record>) -> Result<Delivery> {
        match self.take(&record.into(), Take::free(true))? {
            Taken::Yes(delivery) => Ok(delivery.expect("a wanted delivery is made")),
            Taken::NoSpace => {
                let bytes = self.shared.intake.budget.bytes();
                let message = format!("the buffer of `{bytes}` bytes is full");
                Err(Error::new(ErrorCode::BufferFull, message))
            }
        }
    }

    /// Waits until everything sent before is settled.
    ///
    /// # Errors
    /// The first failure of a record that was sent with [`Producer::post`] since the last call.
    /// Failures of others are told by their [`Delivery`] alone.
    pub async fn flush(&self) -> Result<()> {
        let mut cells = Vec::new();
        for lane in self.shared.lanes.iter() {
            let (unsettled, list) = lane.flush(&self.shared.intake);
            cells.extend(unsettled);
            if list {
                self.shared.list(lane.partition.0);
            }
        }
        for cell in cells {
            delivery::settled(cell).await;
        }
        self.shared.take_failed()
    }

    /// Takes no more records on any clone, and waits until everything is settled.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<()> {
        self.shared.close(&Error::new(ErrorCode::Closed, "the producer is closed"));
        self.flush().await
    }

    /// Why records wait although the broker is there: its last refusal "for now", for instance that the
    /// disk is full. They are sent again until it takes them or their delivery timeout is over.
    pub fn refusal(&self) -> Option<Error> {
        self.shared.lanes.iter().find_map(Lane::refusal)
    }

    /// Partitions of the topic, as far as this producer knows.
    pub fn partition_count(&self) -> u32 {
        self.shared.lanes.count()
    }

    /// Bytes of the buffer that are in use.
    pub fn buffered_bytes(&self) -> usize {
        let budget = &self.shared.intake.budget;
        budget.bytes().saturating_sub(budget.left())
    }

    #[inline]
    async fn put(&self, record: Record, wanted: bool) -> Result<Option<Delivery>> {
        // A loop of sends that never waits would keep the connection's task from running. Yielding
        // comes first, so that a send given up here has sent nothing.
        tokio::task::coop::consume_budget().await;
        match self.take(&record, Take::free(wanted))? {
            Taken::Yes(delivery) => Ok(delivery),
            Taken::NoSpace => Box::pin(self.wait_and_take(record, wanted)).await,
        }
    }

    /// Waits in line for space.
    async fn wait_and_take(&self, record: Record, wanted: bool) -> Result<Option<Delivery>> {
        let _pressing = self.shared.press();
        let needed = needed_alone(&record);
        let budget = &self.shared.intake.budget;
        if needed > budget.bytes() {
            let message =
                format!("record needs `{needed}` bytes, the buffer has `{}`", budget.bytes());
            return Err(Error::new(ErrorCode::RecordTooLarge, message));
        }
        let Some(space) = budget.take(needed).await else {
            return Err(self.ended());
        };
        // From here on the bytes belong to the lane.
        space.forget();
        match self.take(&record, Take { granted: needed, wanted })? {
            Taken::Yes(delivery) => Ok(delivery),
            Taken::NoSpace => unreachable!("the bytes were granted"),
        }
    }

    #[inline]
    fn take(&self, record: &Record, take: Take) -> Result<Taken> {
        let shared = &*self.shared;
        let index = self.partition_of(record);
        let Some(lane) = shared.lanes.get(index) else {
            shared.intake.budget.give(take.granted);
            return Err(self.no_partition(index));
        };
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(clock::wall_ms);
        let Some(appended) = lane.append(record, timestamp_ms, take, &shared.intake)? else {
            return Ok(Taken::NoSpace);
        };
        if appended.sealed {
            shared.rotate(index);
        }
        if appended.list {
            shared.list(index);
        }
        Ok(Taken::Yes(appended.delivery))
    }

    #[inline]
    fn partition_of(&self, record: &Record) -> u32 {
        if let Some(partition) = record.partition {
            return partition.0;
        }
        match (&record.key, NonZeroU32::new(self.shared.lanes.count())) {
            (Some(key), Some(count)) => partition_for_key(key, count).0,
            (Some(_) | None, _) => self.shared.sticky.load(Ordering::Relaxed),
        }
    }

    fn no_partition(&self, index: u32) -> Error {
        let count = self.shared.lanes.count();
        let topic = &self.shared.settings.topic;
        let message = format!("partition `{index}` does not exist: topic `{topic}` has `{count}`");
        Error::new(ErrorCode::UnknownTopicOrPartition, message)
    }

    /// Why the producer takes nothing any more.
    fn ended(&self) -> Error {
        match self.shared.dead.get() {
            Some(error) => error.clone(),
            None => Error::new(ErrorCode::Closed, "the producer is closed"),
        }
    }
}
