//! The subscriptions' log on disk: a state log of its own, under a fixed id.
//!
//! Before its first entry the metadata log says that it is in use. Until then it holds nothing, so a start may make
//! it: the first one, and the first one of this version on a data directory of an earlier one. From then on it must be
//! there; from a missing one nothing is concluded.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use riverrun_storage::own_logs::SUBSCRIPTIONS_LOG;
use thiserror::Error;

use super::{
    record::RecordError,
    store::{Stored, SubscriptionStore},
};
use crate::{
    clock::Clock,
    offset::state_log::{Pending, StateLog, StateLogError},
    partition::{
        AppendError, Partition, PartitionOpener, ReadOnly,
        directory::OpenError,
        state_log::{Replay, StateLog as DiskLog, StateLogError as OpenLogError, StoreError},
    },
};

/// Subscriptions that cannot be opened. Nothing on disk was changed.
#[derive(Debug, Error)]
pub enum OpenSubscriptionsError {
    /// The log cannot be read.
    #[error("subscriptions: {0}")]
    Log(#[from] OpenLogError),
    /// An entry cannot be taken in.
    #[error("subscriptions: {0}")]
    Record(#[from] RecordError),
}

/// Makes durable that the log is in use. Called again when it failed.
pub type TakeIntoUse = Box<dyn Fn() -> TakenIntoUse + Send + Sync>;
/// Its answer.
pub type TakenIntoUse = std::pin::Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// The log on disk.
pub struct SubscriptionsLog {
    /// Missing when it was never in use and nothing can be written.
    log: Option<DiskLog>,
    take_into_use: TakeIntoUse,
    /// The metadata log is known to say so.
    is_in_use: AtomicBool,
}

impl fmt::Debug for SubscriptionsLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionsLog").field("log", &self.log).finish_non_exhaustive()
    }
}

/// What a start found of the log.
#[derive(Debug)]
pub struct Opened {
    /// The log and what it holds; missing when it was never in use as far as is known, and cannot be made.
    log: Option<(DiskLog, Replay)>,
    /// Why nothing can be written, when that is so.
    read_only: Option<ReadOnly>,
}

impl Opened {
    /// The log as a partition, where there is one.
    pub fn partition(&self) -> Option<&Arc<Partition>> {
        self.log.as_ref().map(|(log, _)| log.partition())
    }
}

/// What the metadata log says of the log.
#[derive(Debug)]
pub struct Known {
    /// It is in use.
    pub is_in_use: bool,
    /// The metadata log is only read: what is not known durable of it may say that the log is in use all the same.
    pub read_only: Option<ReadOnly>,
}

/// Opens the log. Blocks. It is made when it is certain that it is not in use yet.
///
/// # Errors
/// When it is in use and missing, damaged, or not what it should be.
pub fn open_log(opener: &PartitionOpener, known: Known) -> Result<Opened, OpenLogError> {
    let Known { is_in_use, read_only } = known;
    let is_made_here = !is_in_use && read_only.is_none();
    let open = if is_made_here { DiskLog::open } else { DiskLog::open_existing };
    match open(opener, SUBSCRIPTIONS_LOG) {
        Ok((log, replay)) => {
            let read_only = log.partition().read_only().cloned();
            Ok(Opened { log: Some((log, replay)), read_only })
        }
        Err(OpenLogError::Open(OpenError::NoRoom { path, source })) if !is_in_use => {
            let read_only = ReadOnly::NoRoom { dir: path.into(), cause: source.to_string().into() };
            tracing::error!("{read_only}");
            opener.gauge.wait_for_room(opener.disk.free_bytes().unwrap_or(0));
            Ok(Opened { log: None, read_only: Some(read_only) })
        }
        Err(OpenLogError::Open(error))
            if error.is_missing() && !is_in_use && read_only.is_some() =>
        {
            Ok(Opened { log: None, read_only })
        }
        Err(error) => Err(error),
    }
}

impl SubscriptionsLog {
    /// Brings the store back from what the log holds. Blocks. The future that comes with it writes; it must run for
    /// anything to be stored, and ends after [`SubscriptionsLog::close`].
    ///
    /// # Errors
    /// When the log was written by a newer broker, or contradicts itself.
    pub fn open(
        opened: Opened,
        take_into_use: TakeIntoUse,
        (clock, subscriptions_max): (Clock, usize),
    ) -> Result<
        (SubscriptionStore, Arc<SubscriptionsLog>, impl Future<Output = ()> + Send + 'static),
        RecordError,
    > {
        let Opened { log, read_only } = opened;
        let (log, replay) = log.unzip();
        let replay = replay.unwrap_or_default();
        let deltas = replay.deltas.into_iter().map(|(_, delta)| delta).collect();
        let stored = Stored { snapshot: replay.snapshot, deltas };
        let is_in_use = AtomicBool::new(false);
        let log = Arc::new(SubscriptionsLog { log, take_into_use, is_in_use });
        let (store, writer) =
            SubscriptionStore::open(stored, log.clone(), clock, subscriptions_max)?;
        if let Some(read_only) = read_only {
            store.refuse(read_only.into());
        }
        Ok((store, log, writer))
    }

    /// Takes nothing more, writes what waits, and closes the log. On a full disk it gives up what waits.
    pub async fn close(&self, store: &SubscriptionStore) {
        store.close();
        store.ended().await;
        let Some(log) = &self.log else { return };
        if let Err(error) = log.partition().close().await {
            tracing::warn!(%error, "log of subscriptions not closed cleanly");
        }
    }

    /// The log below.
    fn log(&self) -> Result<&DiskLog, StateLogError> {
        let reason = || "nothing can be written".into();
        self.log.as_ref().ok_or_else(|| StateLogError::Failed { reason: reason() })
    }

    async fn try_append(&self, log: &DiskLog, entry: Bytes) -> Result<(), StoreError> {
        if !self.is_in_use.load(SeqCst) {
            (self.take_into_use)().await?;
            self.is_in_use.store(true, SeqCst);
        }
        log.append(entry, |_| ()).await
    }
}

impl StateLog for SubscriptionsLog {
    fn append(&self, entry: Bytes) -> Pending<'_> {
        Box::pin(async move {
            match self.try_append(self.log()?, entry).await {
                Ok(()) => Ok(()),
                Err(StoreError::Append(
                    error @ (AppendError::DiskFull(_) | AppendError::Io { .. }),
                )) => Err(StateLogError::NoRoom { reason: error.to_string().into() }),
                Err(error) => Err(StateLogError::Failed { reason: error.to_string().into() }),
            }
        })
    }

    fn replace(&self, entries: Vec<Bytes>) -> Pending<'_> {
        Box::pin(async move {
            // The log is as good as before; should it have failed, the next append says so.
            if let Err(error) = self.log()?.snapshot(|| entries).await {
                tracing::warn!(%error, "snapshot of subscriptions not made; a later one tries again");
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
