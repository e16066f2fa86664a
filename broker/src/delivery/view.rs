//! How a subscription stands, for operators.

use std::{sync::Arc, time::Duration};

use super::open::SessionRef;

/// Counts of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Every offset below is settled.
    pub floor: u64,
    /// First offset that is not visible.
    pub high_watermark: u64,
    /// Offsets that are not settled among those visible; some may not be records to be delivered.
    pub lag: u64,
    /// Records that may be handed out at once.
    pub ready: u64,
    /// Records in hands.
    pub in_flight: u64,
    /// Records that wait for their next try.
    pub retrying: u64,
    /// Records that wait for an earlier one of their key.
    pub blocked: u64,
    /// Records that wait for their time.
    pub scheduled: u64,
    /// Dead letters written.
    pub dead: u64,
    /// Records to become dead letters.
    pub dead_pending: u64,
    /// Bytes of memory for what is settled.
    pub ack_state_bytes: u64,
}

impl Counts {
    /// Adds what another lane counts. Offsets have no sum and stay.
    pub fn add(&mut self, other: &Counts) {
        self.lag += other.lag;
        self.ready += other.ready;
        self.in_flight += other.in_flight;
        self.retrying += other.retrying;
        self.blocked += other.blocked;
        self.scheduled += other.scheduled;
        self.dead += other.dead;
        self.dead_pending += other.dead_pending;
        self.ack_state_bytes += other.ack_state_bytes;
    }
}

/// Where a record that is not settled stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Not looked at yet, or put off with its key.
    Unread,
    /// May be handed out.
    Ready,
    /// In hands.
    InFlight,
    /// Waits for its next try.
    RetryWait,
    /// Waits for an earlier record of its key.
    Blocked,
    /// Waits for its time.
    Scheduled,
    /// To become a dead letter.
    DeadPending,
}

/// A record that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Its offset.
    pub offset: u64,
    /// Where it stands.
    pub state: RecordState,
    /// Times handed out since the broker started.
    pub attempts: u32,
    /// Failures.
    pub failures: u32,
    /// Id of the session that holds it.
    pub session: Option<Arc<str>>,
    /// End of the lease, next try, or time of delivery, in milliseconds since 1970-01-01 UTC.
    pub until_ms: Option<i64>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its name.
    pub session: SessionRef,
    /// Its id.
    pub id: Arc<str>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Address it came from.
    pub host: Arc<str>,
    /// Records in its hands.
    pub in_flight: u32,
    /// Records it may still get on its credit.
    pub credit_records: u64,
    /// Bytes it may still get on its credit.
    pub credit_bytes: u64,
    /// Records delivered to it since it was opened.
    pub delivered: u64,
    /// The stream is gone; it may be resumed until then.
    pub detached_until: Option<Duration>,
    /// It asked for no further records.
    pub draining: bool,
    /// It paused.
    pub paused: bool,
    /// By unary calls.
    pub unary: bool,
}
