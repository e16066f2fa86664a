//! The one writer: takes what waits, makes it durable, then lets everybody see it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_proto::TopicId;

use super::{
    Outcome, Shared, StoreError,
    operation::{Planned, Queued},
    pending::Taken,
};
use crate::{
    offset::state_log::{StateLog, StateLogError},
    partition::state_log::PAYLOAD_BYTES_MAX,
    subscription::{
        image::Subscriptions,
        record::{Body, EntryWriter},
    },
};

/// An entry is closed once it has this many bytes.
const ENTRY_BYTES: usize = 1 << 20;
/// An entry of a snapshot is closed once it has this many.
const SNAPSHOT_ENTRY_BYTES: usize = 4 << 20;
/// The log is replaced by a snapshot after this many bytes of entries, or more when the snapshot is large.
const SNAPSHOT_AFTER_BYTES: usize = 4 << 20;

/// Wait between tries while the disk is full.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// Writes until the store is closed and empty, or the log fails.
pub(super) async fn run(
    shared: Arc<Shared>,
    log: Arc<dyn StateLog>,
    (mut snapshot_bytes, mut since_snapshot): (usize, usize),
) {
    while let Some(taken) = next(&shared).await {
        match write(&shared, &*log, taken).await {
            Ok(bytes) => since_snapshot += bytes,
            Err(error) => return fail(&shared, &error),
        }
        if since_snapshot >= SNAPSHOT_AFTER_BYTES.max(2 * snapshot_bytes) {
            since_snapshot = 0;
            match snapshot(&shared, &*log).await {
                Ok(bytes) => snapshot_bytes = bytes,
                Err(error) => return fail(&shared, &error),
            }
        }
    }
    // Whoever waits for what was handed in after the end wakes and finds the store closed.
    shared.ended.get_or_init(|| StoreError::Closed);
    shared.durable.send_modify(|_| {});
}

/// Waits for something to write; `None` when the store is closed and everything is written.
async fn next(shared: &Shared) -> Option<Taken> {
    let durable = *shared.durable.borrow();
    loop {
        let arrived = shared.arrived.notified();
        {
            let mut pending = shared.pending.lock();
            if let Some(taken) = pending.take(durable) {
                shared.pending_bytes.store(0, std::sync::atomic::Ordering::Relaxed);
                return Some(taken);
            }
            if pending.closed {
                return None;
            }
        }
        arrived.await;
    }
}

/// Writes what was taken; returns how many bytes that took.
async fn write(shared: &Shared, log: &dyn StateLog, taken: Taken) -> Result<usize, StateLogError> {
    let mut bytes = 0;
    let sequence = taken.sequence;
    let mut taken = taken;
    if let Some(queued) = taken.operation.take() {
        bytes += operate(shared, log, queued).await?;
    }
    let bodies = bodies(&shared.state.read(), taken);
    let mut writer = EntryWriter::new(ENTRY_BYTES);
    bodies.iter().for_each(|(number, body)| writer.push(*number, body));
    for entry in writer.finish() {
        bytes += entry.len();
        append(shared, log, entry).await?;
    }
    apply(shared, &bodies);
    shared.durable.send_replace(sequence);
    Ok(bytes)
}

/// Adds an entry. While there is no room it is tried again, because live subscriptions are ahead of the log.
async fn append(shared: &Shared, log: &dyn StateLog, entry: Bytes) -> Result<(), StateLogError> {
    loop {
        match log.append(entry.clone()).await {
            Err(error @ StateLogError::NoRoom { .. }) if !shared.pending.lock().closed => {
                tracing::warn!(%error, "what subscriptions settled waits for room");
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

/// Decides and writes an operation, and answers it.
async fn operate(
    shared: &Shared,
    log: &dyn StateLog,
    queued: Queued,
) -> Result<usize, StateLogError> {
    let bounds = (shared.clock.wall_ms(), shared.subscriptions_max);
    let planned = queued.operation.plan(&shared.state.read(), bounds);
    let written = match planned {
        Ok(planned) => write_planned(shared, log, planned).await,
        Err(error) => Ok((0, Err(error))),
    };
    let (bytes, answer) = match written {
        Ok(written) => written,
        Err(error) => {
            // Nobody listens any more: the caller went away.
            let _ = queued.answer.send(Err(StoreError::from(&error)));
            return Err(error);
        }
    };
    let _ = queued.answer.send(answer);
    Ok(bytes)
}

async fn write_planned(
    shared: &Shared,
    log: &dyn StateLog,
    (body, outcome): Planned,
) -> Result<(usize, Result<Outcome, StoreError>), StateLogError> {
    let Some((number, body)) = body else { return Ok((0, Ok(outcome))) };
    let mut writer = EntryWriter::new(ENTRY_BYTES);
    writer.push(number, &body);
    let mut bytes = 0;
    for entry in writer.finish() {
        bytes += entry.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Ok((0, Err(StoreError::TooLarge { bytes, max: PAYLOAD_BYTES_MAX })));
        }
        append(shared, log, entry).await?;
    }
    apply(shared, &[(number, body)]);
    Ok((bytes, Ok(outcome)))
}

/// What was taken, as changes of the state; without what is about something that is not there any more.
fn bodies(state: &Subscriptions, taken: Taken) -> Vec<(u64, Body)> {
    let is_there = |number: u64, topic_id: TopicId| {
        state.get(number).is_some_and(|one| one.topic_ids.contains(&topic_id))
    };
    let cancelled = taken.cancelled.into_iter().map(|(key, (forget_below, offsets))| {
        let pieces = offsets.pieces().collect();
        (0, Body::Cancelled { key, forget_below, pieces })
    });
    let lanes =
        taken.lanes.into_iter().filter(|((number, key), _)| is_there(*number, key.topic_id));
    let lanes = lanes.map(|((number, key), deltas)| {
        let parts = deltas.into_iter().flat_map(|delta| delta.into_parts()).collect();
        (number, Body::Lane { key, parts })
    });
    cancelled.chain(lanes).collect()
}

/// Takes changes that are durable into the state.
fn apply(shared: &Shared, bodies: &[(u64, Body)]) {
    let mut state = shared.state.write();
    for (number, body) in bodies {
        let before = state.get(*number).cloned();
        state.apply_body(*number, body).expect("the changes were planned against this state");
        match body {
            Body::Lane { .. } | Body::LaneBegun { .. } => {}
            Body::Created { .. } | Body::Altered(_) | Body::Deleted => {
                let mut names = shared.names.write();
                if let Some(before) = before {
                    names.remove(&before.name);
                }
                if let Some(after) = state.get(*number) {
                    names.insert(after.name.clone(), after.clone());
                }
            }
            Body::Cancelled { key, .. } => {
                let offsets = state.cancelled(key).cloned().unwrap_or_default();
                shared.cancelled.write().insert(*key, Arc::new(offsets));
            }
            Body::TopicsForgotten(topics) => {
                let names = state.iter().map(|one| (one.name.clone(), one.clone())).collect();
                *shared.names.write() = names;
                shared.cancelled.write().retain(|key, _| !topics.contains(&key.topic_id));
            }
            Body::SnapshotBegun { .. } => {}
        }
    }
}

/// Replaces the log by a snapshot; returns its bytes.
async fn snapshot(shared: &Arc<Shared>, log: &dyn StateLog) -> Result<usize, StateLogError> {
    // A large state takes a while to write down, and others share this thread.
    let from = shared.clone();
    let made = move || from.state.read().snapshot(SNAPSHOT_ENTRY_BYTES);
    let entries = crate::blocking::run(made).await;
    let entries =
        entries.map_err(|_| StateLogError::Failed { reason: "a snapshot panicked".into() })?;
    let bytes = entries.iter().map(Bytes::len).sum();
    log.replace(entries).await?;
    Ok(bytes)
}

/// Refuses everything from here on.
fn fail(shared: &Shared, error: &StateLogError) {
    tracing::error!(%error, "subscriptions are refused until the broker starts anew");
    let failed = StoreError::from(error);
    let failed = shared.ended.get_or_init(|| failed).clone();
    shared.room.close();
    let waiting = {
        let mut pending = shared.pending.lock();
        pending.closed = true;
        let _ = pending.take(0);
        std::mem::take(&mut pending.operations)
    };
    for queued in waiting {
        let _ = queued.answer.send(Err(failed.clone()));
    }
    shared.durable.send_modify(|_| {});
}
