//! What a producer's handles, its pump and its driver share.
//!
//! Locks, each held for a few instructions and never together with another, except that a lane may
//! take `Intake::spare`: a lane's state, `ready`, `identity`, `failed`, a cell's waiters.

use std::{
    collections::VecDeque,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_proto::{grpc::v1, limits::PARTITION_COUNT_MAX};
use tokio::sync::Notify;

use super::{
    identity::Identity,
    lane::{Answered, Intake, Lane, Sending, Settled},
    lanes::Lanes,
};
use crate::{
    clock,
    error::{Error, Result},
};

/// Bits of a request id that name the lane.
const LANE_BITS: u32 = PARTITION_COUNT_MAX.next_power_of_two().ilog2();

/// The settings that do not change.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) topic: String,
    pub(super) topic_id: Bytes,
    pub(super) acks: v1::Acks,
    pub(super) durability_min: v1::Durability,
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) idempotent: bool,
}

/// The pump that waits, and whose it is.
#[derive(Debug, Default)]
struct WaitingPump {
    session: u64,
    waker: Option<Waker>,
}

/// What a producer's handles, its pump and its driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) intake: Intake,
    pub(super) lanes: Lanes,
    /// Lane that takes records without a key.
    pub(super) sticky: AtomicU32,
    /// Lanes to look at, each once.
    ready: Mutex<VecDeque<u32>>,
    /// The pump that waits for one.
    pump: Mutex<WaitingPump>,
    /// The stream that may send. Set by the driver only.
    session: AtomicU64,
    /// Handles that wait for buffer space.
    pressing: AtomicUsize,
    /// New sequence numbers are wanted.
    resetting: AtomicBool,
    /// Set by the driver only.
    identity: Mutex<Identity>,
    requests: AtomicU64,
    /// Batches settled, whatever became of them: a session that settles some makes progress.
    settled: AtomicU64,
    /// Told when something may let the driver go on: a lane is stuck, the last batch is settled.
    pub(super) driver: Notify,
    /// First failure of a record sent without a `Delivery`, and how many batches failed so.
    failed: Mutex<Option<(Error, u64)>>,
    /// Why the producer ended.
    pub(super) dead: OnceLock<Error>,
}

impl Shared {
    pub(super) fn new(settings: Settings, intake: Intake, identity: Identity) -> Shared {
        Shared {
            settings,
            intake,
            lanes: Lanes::new(),
            sticky: AtomicU32::new(0),
            ready: Mutex::default(),
            pump: Mutex::default(),
            session: AtomicU64::new(0),
            pressing: AtomicUsize::new(0),
            resetting: AtomicBool::new(false),
            identity: Mutex::new(identity),
            requests: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            driver: Notify::new(),
            failed: Mutex::new(None),
            dead: OnceLock::new(),
        }
    }

    /// Puts a lane into the ready list and wakes the pump.
    pub(super) fn list(&self, lane: u32) {
        self.ready.lock().push_back(lane);
        self.wake_pump();
    }

    /// Puts a lane back without waking: the pump itself does.
    pub(super) fn relist(&self, lane: u32) {
        self.ready.lock().push_back(lane);
    }

    /// The next lane to look at.
    pub(super) fn next_ready(&self) -> Option<u32> {
        self.ready.lock().pop_front()
    }

    /// How a stream of `session` sends now.
    pub(super) fn sending(&self, session: u64) -> Sending {
        Sending {
            session,
            linger: self.settings.linger,
            pressed: self.pressing.load(Ordering::Relaxed) > 0,
            resetting: self.resetting.load(Ordering::Acquire),
            identity: *self.identity.lock(),
            now: clock::now(),
        }
    }

    /// Whether `session` sends nothing any more: another one does, or the producer is dead.
    pub(super) fn is_over(&self, session: u64) -> bool {
        self.session() != session || self.dead.get().is_some()
    }

    /// The session that sends.
    pub(super) fn session(&self) -> u64 {
        self.session.load(Ordering::Acquire)
    }

    /// Has records without a key begin at this lane.
    pub(super) fn rotate_to(&self, lane: u32) {
        self.sticky.store(lane, Ordering::Relaxed);
    }

    /// A fresh request id that names the lane.
    pub(super) fn request_id(&self, lane: u32) -> u64 {
        (self.requests.fetch_add(1, Ordering::Relaxed) << LANE_BITS) | u64::from(lane)
    }

    /// The lane named in a request id.
    pub(super) fn lane_of(&self, request_id: u64) -> Option<&Lane> {
        let lane = request_id & ((1 << LANE_BITS) - 1);
        u32::try_from(lane).ok().and_then(|lane| self.lanes.get(lane))
    }

    /// Counts a handle that waits for space until the guard is dropped, and hurries everything out.
    pub(super) fn press(&self) -> Pressing<'_> {
        self.pressing.fetch_add(1, Ordering::Relaxed);
        self.hurry();
        Pressing(self)
    }

    /// Has every lane looked at again.
    pub(super) fn hurry(&self) {
        for lane in self.lanes.iter() {
            if lane.nudge() {
                self.relist(lane.partition.0);
            }
        }
        self.wake_pump();
    }

    /// Notes the pump of `session` as waiting for a ready lane. An older pump never displaces a newer.
    pub(super) fn wait(&self, session: u64, waker: &Waker) {
        let mut pump = self.pump.lock();
        if session >= pump.session {
            pump.session = session;
            pump.waker = Some(waker.clone());
        }
    }

    fn wake_pump(&self) {
        let waker = self.pump.lock().waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Moves records without a key on to the next lane, when they went to `lane`.
    pub(super) fn rotate(&self, lane: u32) {
        let next = (lane + 1) % self.lanes.count().max(1);
        let _lost_race =
            self.sticky.compare_exchange(lane, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Begins another session: what was in flight goes again.
    pub(super) fn begin_session(&self) -> u64 {
        let session = self.session.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_pump();
        for lane in self.lanes.iter() {
            let answered = lane.begin_session(session, self.settings.idempotent);
            self.follow(lane, answered);
        }
        session
    }

    /// Passes on what followed from an answer, a deadline or a new session.
    pub(super) fn follow(&self, lane: &Lane, answered: Answered) {
        let Answered { settled, list, stuck, dead } = answered;
        self.settle(settled);
        if let Some(error) = dead {
            self.die(&error);
            return;
        }
        if stuck {
            self.resetting.store(true, Ordering::Release);
        }
        if list {
            self.list(lane.partition.0);
        }
        if stuck || self.resetting.load(Ordering::Relaxed) {
            self.driver.notify_one();
        }
    }

    /// Tells those who wait for the batches and gives their bytes back.
    pub(super) fn settle(&self, settled: Vec<Settled>) {
        for Settled { cell, outcome, reserved } in settled {
            if let (Err(error), true) = (&outcome, cell.is_posted()) {
                let mut failed = self.failed.lock();
                let batches = failed.as_ref().map_or(1, |(_, batches)| batches + 1);
                let first = failed.take().map_or_else(|| error.clone(), |(first, _)| first);
                *failed = Some((first, batches));
            }
            cell.settle(outcome);
            self.settled.fetch_add(1, Ordering::Relaxed);
            self.intake.budget.give(reserved);
        }
    }

    /// Batches settled so far.
    pub(super) fn settled_count(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// The first failure of posted records since the last call.
    pub(super) fn take_failed(&self) -> Result<()> {
        match self.failed.lock().take() {
            None => Ok(()),
            Some((error, 1)) => Err(error),
            Some((error, batches)) => {
                Err(error.within(&format!("`{batches}` batches failed, the first with")))
            }
        }
    }

    /// Whether new sequence numbers are wanted and can be given.
    pub(super) fn may_reset(&self) -> bool {
        self.resetting.load(Ordering::Acquire) && self.lanes.iter().all(Lane::is_certain)
    }

    /// The identity in use.
    pub(super) fn identity(&self) -> Identity {
        *self.identity.lock()
    }

    /// Goes on under another identity.
    pub(super) fn reset(&self, identity: Identity) {
        *self.identity.lock() = identity;
        for lane in self.lanes.iter() {
            if lane.renumber(identity) {
                self.relist(lane.partition.0);
            }
        }
        self.resetting.store(false, Ordering::Release);
        self.hurry();
    }

    /// Whether everything taken is settled.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    /// Takes no more records; what is in goes on.
    pub(super) fn close(&self, error: &Error) {
        self.lanes.iter().for_each(|lane| lane.close(error));
        self.intake.budget.close();
    }

    /// Ends the producer: everything not settled fails, and so does everything that comes.
    pub(super) fn die(&self, error: &Error) {
        if self.dead.set(error.clone()).is_err() {
            return;
        }
        self.intake.budget.close();
        for lane in self.lanes.iter() {
            let mut settled = Vec::new();
            lane.fail(error, &mut settled);
            self.settle(settled);
        }
        self.driver.notify_one();
        self.wake_pump();
    }
}

/// A handle waits for buffer space.
#[derive(Debug)]
pub(super) struct Pressing<'a>(&'a Shared);

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        self.0.pressing.fetch_sub(1, Ordering::Relaxed);
    }
}
