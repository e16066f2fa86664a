//! The state machine of one subscription.
//!
//! ```text
//!        scanned ──▶ READY ◀────────────── time came ───────── RETRY_WAIT
//!                    ▲   │ dispatch: credit, limits, key free      ▲
//!            release │   ▼                                        │ fewer failures than allowed
//!                    └─ IN_FLIGHT ── nack, lease ended, crash ────┤
//!                        │ ack    └── reject ──┐                  │ as many
//!                        ▼                     ▼                  ▼
//!                       DONE ◀── dead letter durable ──────── DEAD_PENDING
//! ```
//!
//! With an order, READY has a sibling BLOCKED: an earlier record of the same key is open. Every event ends with a
//! dispatch, so what became possible happens at once; nothing waits for a timer but what is about time.
//!
//! Invariants:
//! - A record is in at most one session's hands. With an order, all records in hands of one key are in the same.
//! - A record that failed is not handed out again before the failure is stored.
//! - A session is given no more than its credit and its limit allow, but for one record too large for any credit.
//! - Everything that settles, fails or dies is in the changes; what is in hands never is.

mod dispatch;
mod explain;
mod hands;
mod look;
mod scanning;
mod sessions;
mod settling;
mod steering;
mod time;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::dispatch::Building;
pub use self::{scanning::Visible, steering::SettingsError};
use super::{
    effects::Effects, grants::Grants, lane_key::LaneKey, lanes::Lanes, late::LateDeliveries,
    now::Now, sessions::Sessions, settings::Settings, tally::Tally,
};

/// One subscription: its lanes and sessions, and everything between them.
#[derive(Debug)]
pub struct Delivery {
    settings: Arc<Settings>,
    paused: bool,
    state_failed: bool,
    /// Failures so far that are to be stored.
    failures: u64,
    /// So many of them are stored. A record is not tried again before, so that nobody sees a failure that is forgotten.
    failures_stored: u64,
    lanes: Lanes,
    sessions: Sessions,
    grants: Grants,
    late: LateDeliveries,
    /// The next session's epoch.
    next_epoch: u64,
    /// The next delivery's number.
    next_seq: u64,
    /// Lane that was served last.
    lane_turn: u32,
    /// Lane that was read last.
    scan_turn: u32,
    /// Session that was served last.
    session_turn: u32,
    /// Deliveries being put together, by session and lane. Empty between events.
    round: BTreeMap<(u32, u32), Building>,
    /// Sessions kept free for a record that is to be handed out alone.
    kept: BTreeMap<(u32, u64), u32>,
    effects: Effects,
    tally: Tally,
}

impl Delivery {
    /// A subscription without lanes and sessions. Its first session gets `first_epoch`, which is to be larger than any
    /// epoch an earlier run of the broker gave, so that tokens of then are told from those of now: the wall time in
    /// milliseconds does.
    pub fn new(settings: Arc<Settings>, first_epoch: u64) -> Delivery {
        Delivery {
            settings,
            paused: false,
            state_failed: false,
            failures: 0,
            failures_stored: u64::MAX,
            lanes: Lanes::default(),
            sessions: Sessions::default(),
            grants: Grants::default(),
            late: LateDeliveries::default(),
            next_epoch: first_epoch.max(1),
            next_seq: 1,
            lane_turn: 0,
            scan_turn: 0,
            session_turn: 0,
            round: BTreeMap::new(),
            kept: BTreeMap::new(),
            effects: Effects::default(),
            tally: Tally::default(),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Failures so far that are to be stored, those among the effects not taken yet included.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The first `count` failures are stored. Until this is first called all are taken as stored at once.
    pub fn set_failures_stored(&mut self, count: u64) {
        self.failures_stored = count;
    }

    /// Everything that happened since this was last called.
    pub fn take_effects(&mut self) -> Effects {
        let mut effects = std::mem::take(&mut self.effects);
        while let Some(index) = self.lanes.pop_dirty() {
            let lane = self.lanes.get_mut(index);
            lane.memory.take(lane.key, &mut effects.changes);
        }
        effects
    }

    /// When [`Delivery::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let lease = self.grants.first_deadline();
        let times = [lease, self.lanes.first_wake(), self.sessions.first_timer()];
        times.into_iter().flatten().min()
    }

    /// The lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneKey> {
        self.lanes.keys()
    }

    /// The end of every event: sessions that drained end, and what became possible is done.
    fn conclude(&mut self, now: Now) {
        self.end_drained(now);
        self.dispatch(now);
    }

    fn refresh_lane(&mut self, index: u32, now: Now) {
        self.lanes.refresh(index, &mut self.sessions, &self.settings, now);
    }
}
