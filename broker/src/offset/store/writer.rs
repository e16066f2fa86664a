//! The one writer: gathers what waits, makes it durable with one append, then lets everybody see it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use riverrun_proto::grpc::state::v1::GroupChange;

use super::{Queued, Shared, StoreError, Written, plan::Touch};
use crate::offset::{
    record,
    state_log::{StateLog, StateLogError},
};

/// An entry is closed once it has this many bytes; one large write may exceed it.
const ENTRY_BYTES: usize = 512 << 10;
/// The log is replaced by a snapshot after this many bytes of entries, or more when the snapshot is large.
const SNAPSHOT_AFTER_BYTES: usize = 4 << 20;

/// Wait between tries while the disk is full.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// Writes that become one entry.
#[derive(Default)]
struct Batch {
    changes: Vec<GroupChange>,
    answers: Vec<(Queued, Written)>,
    touched: BTreeMap<Arc<str>, Touch>,
    bytes: usize,
}

/// Writes until the store is closed and empty, or the log fails. A full disk only makes it wait, unless the
/// store is closed: the end of the broker waits for no disk.
pub(super) async fn run(shared: Arc<Shared>, log: Arc<dyn StateLog>) {
    let mut since_snapshot = 0;
    let mut snapshot_bytes = 0;
    while let Some(batch) = next_batch(&shared).await {
        since_snapshot += batch.bytes;
        if let Err(error) = write(&shared, &*log, batch).await {
            fail(&shared, &error);
            return;
        }
        if since_snapshot >= SNAPSHOT_AFTER_BYTES.max(2 * snapshot_bytes) {
            let entries = shared.groups.read().snapshot(ENTRY_BYTES);
            snapshot_bytes = entries.iter().map(Bytes::len).sum();
            since_snapshot = 0;
            if let Err(error) = log.replace(entries).await {
                fail(&shared, &error);
                return;
            }
        }
    }
    // Whoever waits for a write that was never sent wakes and finds the store closed.
    shared.failed.get_or_init(|| StoreError::Closed);
    shared.settled.send_modify(|_| {});
}

/// Waits for writes; `None` when the store is closed and everything is written.
async fn next_batch(shared: &Shared) -> Option<Batch> {
    loop {
        let arrived = shared.arrived.notified();
        let batch = gather(shared);
        if !batch.answers.is_empty() {
            return Some(batch);
        }
        if shared.queue.lock().closed {
            return None;
        }
        arrived.await;
    }
}

fn gather(shared: &Shared) -> Batch {
    let now_ms = shared.clock.wall_ms();
    let groups = shared.groups.read();
    let mut queue = shared.queue.lock();
    let mut batch = Batch::default();
    while batch.bytes < ENTRY_BYTES
        && queue.waiting.front().is_some_and(|next| !next.write.must_wait(&batch.touched))
        && let Some(mut next) = queue.waiting.pop_front()
    {
        batch.touched.extend(next.write.touch());
        let write = std::mem::replace(&mut next.write, super::Write::Forget { topics: Vec::new() });
        let (changes, written) = write.plan(&groups, (now_ms, shared.groups_max));
        batch.bytes += changes.iter().map(Message::encoded_len).sum::<usize>();
        batch.changes.extend(changes);
        batch.answers.push((next, written));
    }
    batch
}

async fn write(shared: &Shared, log: &dyn StateLog, batch: Batch) -> Result<(), StateLogError> {
    let mut answers = batch.answers;
    if !batch.changes.is_empty() {
        let entry = record::encode(batch.changes);
        if let Err(error) = append(shared, log, &entry).await {
            let refused = StoreError::from(&error);
            for (queued, _) in answers {
                let _ = queued.answer.send(Err(refused.clone()));
            }
            return Err(error);
        }
        let mut groups = shared.groups.write();
        groups.apply(&entry).expect("the changes were planned against this state");
    }
    let last = answers.last().map_or(0, |(queued, _)| queued.sequence);
    shared.settled.send_replace(last);
    for (queued, written) in answers.drain(..) {
        // Nobody listens any more: the caller went away, the write counts all the same.
        let _ = queued.answer.send(written);
    }
    Ok(())
}

/// Adds an entry. While there is no room it is tried again, because what groups live by is ahead of the log.
async fn append(shared: &Shared, log: &dyn StateLog, entry: &Bytes) -> Result<(), StateLogError> {
    loop {
        match log.append(entry.clone()).await {
            Err(error @ StateLogError::NoRoom { .. }) if !shared.queue.lock().closed => {
                tracing::warn!(%error, "stored offsets wait for room");
                tokio::time::sleep(FULL_DISK_PAUSE).await;
            }
            done => return done,
        }
    }
}

impl From<&StateLogError> for StoreError {
    fn from(error: &StateLogError) -> StoreError {
        match error {
            // Told only once the store is closed, and then nothing was written.
            StateLogError::NoRoom { .. } => StoreError::Closed,
            StateLogError::Failed { reason } => StoreError::Failed { reason: reason.clone() },
        }
    }
}

/// Refuses everything from here on.
fn fail(shared: &Shared, error: &StateLogError) {
    tracing::error!(%error, "groups and stored offsets are refused until the broker starts anew");
    let failed = StoreError::from(error);
    let failed = shared.failed.get_or_init(|| failed).clone();
    shared.room.close();
    let waiting = {
        let mut queue = shared.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.waiting)
    };
    for queued in waiting {
        let _ = queued.answer.send(Err(failed.clone()));
    }
    shared.settled.send_modify(|_| {});
}
