//! What the writers of a stream did, read from its records when somebody needs it for the first time after a start.
//!
//! The first who needs it begins, in a task of its own that holds `writers` for writing; all others wait for that lock. The
//! task goes on when those who wait leave, and what it took in stays when it ends early: the next one goes on from
//! there. What it reads is the broker's own doing, so it is counted against the room of all, not of a caller.

use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{Found, Position, StreamError, StreamService};
use crate::{
    quota::Room,
    stream::{Fold, Stream},
};

/// Bytes of records that are read at once.
const STEP_BYTES: u32 = 1 << 20;

impl StreamService {
    /// What the writers did, to the end: nobody else appends while it is held.
    pub(super) async fn alone(
        &self,
        found: &Found,
        stream: &Stream,
    ) -> Result<OwnedRwLockWriteGuard<Fold>, StreamError> {
        let held = stream.writers.clone().write_owned().await;
        if held.writers().is_some() {
            return Ok(held);
        }
        let (service, found) = (self.clone(), found.clone());
        let folding = tokio::spawn(async move { service.fold(&found, held).await });
        folding.await.unwrap_or(Err(StreamError::Interrupted))
    }

    /// What the writers did, to the end: nobody appends with a turn, or the last, while it is held.
    pub(super) async fn together(
        &self,
        found: &Found,
        stream: &Stream,
    ) -> Result<OwnedRwLockReadGuard<Fold>, StreamError> {
        let held = stream.writers.clone().read_owned().await;
        if held.writers().is_some() {
            return Ok(held);
        }
        drop(held);
        Ok(self.alone(found, stream).await?.downgrade())
    }

    /// Takes in every record that is missing.
    async fn fold(
        &self,
        found: &Found,
        mut held: OwnedRwLockWriteGuard<Fold>,
    ) -> Result<OwnedRwLockWriteGuard<Fold>, StreamError> {
        let visible = found.topic.partition(found.partition)?.visible();
        // What is not visible yet has no mark: marks are appended by whoever holds the lock, until they are visible.
        let end = visible.high_watermark.0;
        let room = Room::common(self.fetch.reading().clone());
        while held.next() < end {
            let from = held.next().max(visible.log_start.0);
            let at = Position { epoch: 0, offset: from };
            let read = self.read_log(found, at, (Duration::ZERO, STEP_BYTES), &room).await?;
            let next = read.records.next_offset.0;
            if next <= from {
                return Err(StreamError::Interrupted);
            }
            held.take_in(&read.records.records, next);
        }
        held.complete();
        Ok(held)
    }
}
