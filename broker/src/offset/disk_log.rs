//! The groups' log on disk: a state log of its own, under a fixed id.
//!
//! One log holds all groups. Should one writer become too little, further logs take the ids of
//! [`groups_log_id`] for the shards after the first, and a group stays in the shard it was created in.

use bytes::Bytes;
use riverrun_proto::TopicId;
use riverrun_storage::own_logs;

use super::state_log::{Pending, StateLog, StateLogError};
use crate::partition::{
    AppendError,
    state_log::{Replay, StateLog as DiskLog, StoreError},
};

/// The id under which shard `shard` of the groups' log stands on disk. Never changes.
pub fn groups_log_id(shard: u8) -> TopicId {
    own_logs::groups_log(shard)
}

/// The entries that a start found, in order.
pub fn entries(replay: Replay) -> impl Iterator<Item = Bytes> {
    replay.snapshot.into_iter().chain(replay.deltas.into_iter().map(|(_, delta)| delta))
}

impl StateLog for DiskLog {
    fn append(&self, entry: Bytes) -> Pending<'_> {
        Box::pin(async move {
            match DiskLog::append(self, entry, |_| ()).await {
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
            if let Err(error) = self.snapshot(|| entries).await {
                tracing::warn!(%error, "snapshot of groups not made; a later one tries again");
            }
            Ok(())
        })
    }
}
