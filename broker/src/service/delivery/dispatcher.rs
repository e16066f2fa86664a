//! The task of a subscription that somebody consumes: follows the ends of its partitions, and looks at records when
//! delivery wants more.
//!
//! It waits for a visible end to move, for delivery to want more, or for a scan to end; it has no timer but the
//! one that ends it when nobody consumes any more.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use super::{
    live::{Live, Source, State},
    scan::{ScanError, gather},
};
use crate::{
    delivery::{LaneKey, Now, Run, Scan, ScanFailure, ScanFailureCause, Scanned, Visible},
    partition::{ReadError, TailWaiter},
};

/// Bytes of records looked at at once.
const SCAN_BYTES: u64 = 1 << 20;
/// A partition that cannot be read is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// The task ends when nobody consumed for so long.
const IDLE: Duration = Duration::from_secs(20);

impl Live {
    /// Makes sure that the task runs.
    pub(super) fn dispatch(self: &Arc<Self>) {
        if !self.dispatched.swap(true, SeqCst) {
            self.look_at_ends();
            tokio::spawn(run(self.clone()));
        }
    }

    /// Tells delivery how far its partitions reach now.
    pub(super) fn look_at_ends(&self) {
        self.event(|state, now| {
            let lanes: Vec<LaneKey> = state.sources.keys().copied().collect();
            lanes.iter().for_each(|lane| state.look_at_end(lane, now));
        });
    }

    /// Ends the task if nobody consumes.
    fn retire(&self) -> bool {
        let state = self.state.lock();
        let nobody = state.delivery.session_count() == 0 || state.gone;
        if nobody {
            self.dispatched.store(false, SeqCst);
        }
        nobody
    }
}

impl State {
    pub(super) fn look_at_end(&mut self, lane: &LaneKey, now: Now) {
        let Some(partition) = self.sources.get(lane).and_then(|one| one.partition.as_ref()) else {
            return;
        };
        let visible = partition.visible();
        let visible = Visible {
            log_start: visible.log_start.0,
            high_watermark: visible.high_watermark.0,
            log_end: partition.log_end().0,
        };
        self.delivery.set_visible(lane, visible, now);
    }
}

/// Where the task stands: on the ends of all partitions.
struct Stand {
    waiter: TailWaiter,
    /// Lanes by key of the waiter.
    lanes: Vec<LaneKey>,
    version: Option<u64>,
}

impl Stand {
    fn new() -> Stand {
        Stand { waiter: TailWaiter::for_moves(), lanes: Vec::new(), version: None }
    }

    /// Stands on the partitions as they are now, and tells delivery which ends moved.
    fn follow(&mut self, live: &Live) {
        let version = live.look(|state| state.sources_version);
        if self.version != Some(version) {
            let sources: Vec<(LaneKey, Source)> = live.look(|state| {
                state.sources.iter().map(|(lane, source)| (*lane, source.clone())).collect()
            });
            *self = Stand { version: Some(version), ..Stand::new() };
            for (lane, source) in sources {
                let Some(partition) = source.partition else { continue };
                let key = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
                self.waiter.register(partition.tail(), key);
                self.lanes.push(lane);
            }
            live.look_at_ends();
            return;
        }
        let moved = self.waiter.take_moved();
        if !moved.is_empty() {
            live.event(|state, now| {
                for key in moved {
                    state.look_at_end(&self.lanes[key as usize], now);
                }
            });
        }
    }
}

async fn run(live: Arc<Live>) {
    let mut stand = Stand::new();
    let mut scans = FuturesUnordered::new();
    let (shutdown, store) = (live.shared.shutdown.clone(), live.shared.store.clone());
    loop {
        stand.follow(&live);
        let planned: Vec<Scan> = live.state.lock().scan_queue.drain(..).collect();
        scans.extend(planned.into_iter().map(|scan| look_at(live.clone(), scan)));
        tokio::select! {
            Some(()) = scans.next(), if !scans.is_empty() => {}
            () = live.scans.notified() => {}
            () = stand.waiter.wait() => {}
            room = store.has_room(), if store.is_full() => match room {
                Ok(()) => live.event(|_, _| ()),
                Err(_) => return,
            },
            () = sleep(IDLE), if scans.is_empty() => {
                if live.retire() {
                    return;
                }
            }
            () = shutdown.begun() => return,
        }
    }
}

/// Looks at the records that delivery wants to know of.
async fn look_at(live: Arc<Live>, scan: Scan) {
    let mut found = found(&live, &scan).await;
    live.event(|state, now| {
        state.scans -= 1;
        // Under the lock: what is cancelled later is taken out of what was found.
        if let (Ok(scanned), Some(cancelled)) =
            (&mut found, live.shared.store.cancelled(&scan.lane))
        {
            scanned.records.retain(|record| !cancelled.contains(record.offset));
        }
        let error = match &found {
            Ok(scanned) => return state.delivery.scanned(&scan.lane, scanned, now),
            Err(error) => error,
        };
        let is_behind = matches!(error, ScanError::Read(ReadError::OutOfRange { .. }));
        let retry_at = now.elapsed + if is_behind { Duration::ZERO } else { RETRY };
        state.look_at_end(&scan.lane, now);
        let cause = match error {
            ScanError::Quota(_) => ScanFailureCause::Quota,
            ScanError::Read(_) | ScanError::Decode { .. } => ScanFailureCause::Partition,
        };
        let failure = ScanFailure { cause, error: error.to_string().into(), retry_at };
        state.delivery.scan_failed(&scan.lane, scan.id, failure, now);
    });
    live.read.notify_waiters();
}

async fn found(live: &Live, scan: &Scan) -> Result<Scanned, ScanError> {
    let source = live.look(|state| {
        let partition = state.sources.get(&scan.lane)?.partition.clone()?;
        Some((partition, state.settings.clone()))
    });
    let Some((partition, settings)) = source else { return Err(ReadError::Closed.into()) };
    let cache = &live.shared.cache;
    let batches = cache.read(&partition, (scan.from, scan.until), SCAN_BYTES).await?;
    let range = Run::new(scan.from, scan.until);
    let (records, next) = gather(&batches, range, &settings.filter, scan.records_max)?;
    if next == scan.from {
        return Err(ReadError::Closed.into());
    }
    Ok(Scanned { id: scan.id, from: scan.from, next, records })
}
