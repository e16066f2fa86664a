//! Subscriptions as the broker describes them.

use std::time::Duration;

use bytes::Bytes;
use riverrun_proto::{Header, Offset, Record, TopicPartition, batch::OffsetRecord, grpc::v1};

use crate::{
    consumer::Received,
    subscription::{IdleReason, Mode, SubscriptionSettings},
};

/// One subscription in short.
#[derive(Clone, Debug)]
pub struct SubscriptionSummary {
    /// Its name.
    pub subscription: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Its order.
    pub mode: Mode,
    /// Open sessions.
    pub session_count: u32,
    /// Records not settled.
    pub lag: u64,
    /// Delivery is stopped.
    pub is_paused: bool,
}

impl SubscriptionSummary {
    pub(super) fn from_wire(wire: v1::SubscriptionListing) -> SubscriptionSummary {
        SubscriptionSummary {
            subscription: wire.subscription,
            topics: wire.topics,
            mode: Mode::from_wire(wire.order),
            session_count: wire.sessions,
            lag: wire.lag,
            is_paused: wire.paused,
        }
    }
}

/// One subscription in detail.
#[derive(Clone, Debug)]
pub struct SubscriptionDescription {
    /// Its name.
    pub subscription: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Every setting with its value in force.
    pub settings: SubscriptionSettings,
    /// Delivery is stopped.
    pub is_paused: bool,
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// One per partition.
    pub partitions: Vec<SubscriptionPartition>,
    /// Open sessions.
    pub sessions: Vec<SubscriptionSession>,
    /// How its webhook stands, when it has one.
    pub webhook: Option<WebhookStanding>,
}

impl SubscriptionDescription {
    pub(super) fn from_wire(wire: v1::DescribeSubscriptionResponse) -> SubscriptionDescription {
        SubscriptionDescription {
            subscription: wire.subscription,
            topics: wire.topics,
            settings: SubscriptionSettings::from_wire(wire.settings.unwrap_or_default()),
            is_paused: wire.paused,
            created_ms: wire.created_ms,
            partitions: wire.partitions.into_iter().map(SubscriptionPartition::from_wire).collect(),
            sessions: wire.sessions.into_iter().map(SubscriptionSession::from_wire).collect(),
            webhook: wire.webhook.map(WebhookStanding::from_wire),
        }
    }
}

/// A subscription on one partition.
#[derive(Clone, Debug)]
pub struct SubscriptionPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// Everything below is settled.
    pub floor: Offset,
    /// First offset not visible yet.
    pub high_watermark: Offset,
    /// Records not settled; an upper bound where a filter did not look at them yet.
    pub lag: u64,
    /// Records that could be delivered at once.
    pub ready: u64,
    /// Records in consumers' hands.
    pub in_flight: u64,
    /// Records waiting for their next try.
    pub retrying: u64,
    /// Records waiting for an earlier one of their key.
    pub blocked: u64,
    /// Records waiting for their time of delivery.
    pub scheduled: u64,
    /// Dead letters written since the subscription was created.
    pub dead: u64,
    /// Records that will be dead letters and are not written yet.
    pub dead_pending: u64,
    /// Age of the oldest record not settled; zero when there is none.
    pub oldest_unsettled: Duration,
    /// Memory of the set of settled records.
    pub ack_state_bytes: u64,
}

impl SubscriptionPartition {
    fn from_wire(wire: v1::SubscriptionPartition) -> SubscriptionPartition {
        SubscriptionPartition {
            partition: TopicPartition::new(wire.topic, wire.partition),
            floor: Offset(wire.floor),
            high_watermark: Offset(wire.high_watermark),
            lag: wire.lag,
            ready: wire.ready,
            in_flight: wire.in_flight,
            retrying: wire.retrying,
            blocked: wire.blocked,
            scheduled: wire.scheduled,
            dead: wire.dead,
            dead_pending: wire.dead_pending,
            oldest_unsettled: Duration::from_millis(wire.oldest_unsettled_ms),
            ack_state_bytes: wire.ack_state_bytes,
        }
    }
}

/// An open session.
#[derive(Clone, Debug)]
pub struct SubscriptionSession {
    /// Its id.
    pub session_id: String,
    /// What the client calls itself.
    pub client_id: String,
    /// Address it came from.
    pub host: String,
    /// Records in its hands.
    pub in_flight: u64,
    /// Records it may still get.
    pub credit_records: u64,
    /// Bytes it may still get.
    pub credit_bytes: u64,
    /// Records delivered to it since it was opened.
    pub delivered: u64,
    /// The stream is gone and the session may resume.
    pub is_detached: bool,
    /// It asked for no further records.
    pub is_draining: bool,
    /// It paused.
    pub is_paused: bool,
    /// It is one of calls that ask, not of a stream.
    pub is_unary: bool,
}

impl SubscriptionSession {
    fn from_wire(wire: v1::SubscriptionSession) -> SubscriptionSession {
        SubscriptionSession {
            session_id: wire.session_id,
            client_id: wire.client_id,
            host: wire.host,
            in_flight: wire.in_flight,
            credit_records: wire.credit_messages,
            credit_bytes: wire.credit_bytes,
            delivered: wire.delivered,
            is_detached: wire.detached,
            is_draining: wire.draining,
            is_paused: wire.paused,
            is_unary: wire.unary,
        }
    }
}

/// How a webhook stands. Counts begin when the broker starts.
#[derive(Clone, Debug)]
pub struct WebhookStanding {
    /// What it does now.
    pub state: WebhookState,
    /// When the endpoint is tried again, in milliseconds since 1970-01-01 UTC, while it is not.
    pub until_ms: Option<i64>,
    /// Records that the endpoint took.
    pub delivered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that the endpoint put off.
    pub postponed: u64,
    /// Requests that found no place or no memory in time and were not sent.
    pub no_room: u64,
    /// Failures of the endpoint in a row.
    pub failures_in_row: u32,
    /// The latest failure, and when it was in milliseconds since 1970-01-01 UTC.
    pub last_failure: Option<(String, i64)>,
}

/// What a webhook does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookState {
    /// Nothing: the broker starts, or posts nothing.
    Idle,
    /// Posts what comes.
    Delivering,
    /// The endpoint failed too often in a row and is left alone.
    Broken,
    /// One record at a time, until the endpoint takes one.
    Probing,
    /// The endpoint asked for time.
    Postponed,
}

impl WebhookState {
    /// The state as commands write it.
    pub fn name(self) -> &'static str {
        match self {
            WebhookState::Idle => "idle",
            WebhookState::Delivering => "delivering",
            WebhookState::Broken => "broken",
            WebhookState::Probing => "probing",
            WebhookState::Postponed => "postponed",
        }
    }
}

impl WebhookStanding {
    fn from_wire(wire: v1::WebhookStanding) -> WebhookStanding {
        let state = match wire.state() {
            v1::WebhookState::Unspecified => WebhookState::Idle,
            v1::WebhookState::Delivering => WebhookState::Delivering,
            v1::WebhookState::Broken => WebhookState::Broken,
            v1::WebhookState::Probing => WebhookState::Probing,
            v1::WebhookState::Postponed => WebhookState::Postponed,
        };
        let failure = (wire.last_failure, wire.last_failure_ms);
        WebhookStanding {
            state,
            until_ms: wire.until_ms,
            delivered: wire.delivered,
            failed: wire.failed,
            postponed: wire.postponed,
            no_room: wire.no_room,
            failures_in_row: wire.failures_in_row,
            last_failure: Some(failure).filter(|(text, _)| !text.is_empty()),
        }
    }
}

/// Why nothing is delivered from one partition now.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The partition.
    pub partition: TopicPartition,
    /// The reason; `None` when the broker names none.
    pub reason: Option<IdleReason>,
    /// The same in one sentence, with names and numbers.
    pub message: String,
    /// The record that holds things up, where there is one.
    pub offset: Option<Offset>,
    /// Its key, where there is one; at most 256 bytes of it.
    pub key: Option<Bytes>,
    /// The session that holds it.
    pub session_id: Option<String>,
    /// Until when at most, in milliseconds since 1970-01-01 UTC.
    pub until_ms: Option<i64>,
}

impl Explanation {
    pub(super) fn from_wire(wire: v1::Explanation) -> Explanation {
        Explanation {
            partition: TopicPartition::new(wire.topic, wire.partition),
            reason: IdleReason::from_wire(wire.reason),
            message: wire.message,
            offset: wire.offset.map(Offset),
            key: wire.key,
            session_id: wire.session_id,
            until_ms: wire.until_ms,
        }
    }
}

/// Where a record stands in a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordState {
    /// Not looked at yet.
    Unread,
    /// May be delivered.
    Ready,
    /// In a consumer's hands.
    InFlight,
    /// Waits for its next try.
    RetryWait,
    /// Waits for an earlier record of its key.
    Blocked,
    /// Waits for its time of delivery.
    Scheduled,
    /// Will be a dead letter.
    DeadPending,
}

impl RecordState {
    fn from_wire(wire: i32) -> RecordState {
        match v1::RecordState::try_from(wire) {
            Ok(v1::RecordState::Ready) => RecordState::Ready,
            Ok(v1::RecordState::InFlight) => RecordState::InFlight,
            Ok(v1::RecordState::RetryWait) => RecordState::RetryWait,
            Ok(v1::RecordState::Blocked) => RecordState::Blocked,
            Ok(v1::RecordState::Scheduled) => RecordState::Scheduled,
            Ok(v1::RecordState::DeadPending) => RecordState::DeadPending,
            Ok(v1::RecordState::Unspecified) | Err(_) => RecordState::Unread,
        }
    }

    /// The state as commands write it.
    pub fn name(self) -> &'static str {
        match self {
            RecordState::Unread => "unread",
            RecordState::Ready => "ready",
            RecordState::InFlight => "in-flight",
            RecordState::RetryWait => "retry-wait",
            RecordState::Blocked => "blocked",
            RecordState::Scheduled => "scheduled",
            RecordState::DeadPending => "dead-pending",
        }
    }
}

/// A record not settled.
#[derive(Clone, Debug)]
pub struct PeekedRecord {
    /// The record.
    pub record: Received,
    /// Where it stands.
    pub state: RecordState,
    /// Times handed out since the broker started.
    pub attempts: u32,
    /// Failures.
    pub failures: u32,
    /// Session that holds it.
    pub session_id: Option<String>,
    /// End of the lease, next try, or time of delivery, in milliseconds since 1970-01-01 UTC.
    pub until_ms: Option<i64>,
}

impl PeekedRecord {
    /// `None` when the broker sent no record.
    pub(super) fn from_wire(wire: v1::PeekedRecord) -> Option<PeekedRecord> {
        let v1::Record { offset, timestamp_ms, key, value, headers } = wire.record?;
        let header = |header: v1::Header| Header { key: header.key.into(), value: header.value };
        let headers = headers.into_iter().map(header).collect();
        let record = OffsetRecord {
            offset: Offset(offset),
            record: Record { timestamp_ms, key, value, headers },
        };
        let partition = TopicPartition::new(wire.topic, wire.partition);
        Some(PeekedRecord {
            record: Received::delivered(partition, record),
            state: RecordState::from_wire(wire.state),
            attempts: wire.attempts,
            failures: wire.failures,
            session_id: wire.session_id,
            until_ms: wire.until_ms,
        })
    }
}
