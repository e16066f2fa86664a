//! Messages of push sessions and subscriptions to domain values and back.

use std::{sync::Arc, time::Duration};

use riverrun_proto::grpc::v1::{
    self, settle_item::Outcome as WireOutcome, subscription_start::Position,
};

use super::{convert::wire_record, reason_convert::idle_reason};
use crate::{
    delivery::{self, Outcome, Peeked, RecordState, RevokeReason, Run, SessionView, SettleStatus},
    service::{
        delivery::{
            PushError, SettleOutcome, Settled,
            admin::{Description, Listing, PartitionDescription},
            create::{Spec, Start},
            peek::PeekedRecord,
            session::{Amount, Delivered, Heartbeat, Opened, Place},
            settle::{ITEMS_MAX, SettleItem},
            webhook::{WebhookStanding, WebhookState},
        },
        fetch::Format,
    },
    subscription::{SubscriptionSettings, settings::order_message},
    topic::error::InvalidField,
};

/// Largest total of credit.
pub(crate) const CREDIT_MAX: u64 = 1 << 62;

fn invalid(field: &'static str, expected: impl Into<String>, found: impl ToString) -> PushError {
    InvalidField { field, expected: expected.into(), found: found.to_string() }.into()
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn format(wire: i32) -> Result<Format, PushError> {
    match v1::RecordFormat::try_from(wire) {
        Ok(v1::RecordFormat::Unspecified | v1::RecordFormat::Encoded) => Ok(Format::Encoded),
        Ok(v1::RecordFormat::Structured) => Ok(Format::Structured),
        Err(_) => Err(invalid("format", "ENCODED or STRUCTURED", wire)),
    }
}

pub(super) fn spec(wire: v1::SubscriptionSpec) -> Result<Spec, PushError> {
    let settings = SubscriptionSettings::from_given(&wire.settings.unwrap_or_default())?;
    let position = wire.start.and_then(|start| start.position);
    let start = match position {
        None | Some(Position::Earliest(_)) => Start::Earliest,
        Some(Position::Latest(_)) => Start::Latest,
        Some(Position::TimestampMs(time_ms)) => Start::TimestampMs(time_ms),
        Some(Position::Offset(offset)) => Start::Offset(offset),
        Some(Position::Group(group)) => Start::Group(group),
    };
    Ok(Spec { topics: wire.topics, start, settings })
}

pub(crate) fn credit(wire: v1::Credit) -> Result<(u64, u64), PushError> {
    let within = |field, total: u64| match total <= CREDIT_MAX {
        true => Ok(total),
        false => Err(invalid(field, format!("at most {CREDIT_MAX}"), total)),
    };
    let records_total = within("messages_total", wire.messages_total)?;
    Ok((records_total, within("bytes_total", wire.bytes_total)?))
}

pub(crate) fn settle_frame(
    wire: v1::SettleFrame,
) -> Result<(u64, Vec<SettleItem>, bool), PushError> {
    let v1::SettleFrame { settle_id, items, sync } = wire;
    if sync && settle_id == 0 {
        return Err(invalid("settle_id", "set together with `sync`", settle_id));
    }
    if items.len() > ITEMS_MAX {
        return Err(invalid("items", format!("a list of at most {ITEMS_MAX}"), items.len()));
    }
    Ok((settle_id, items.into_iter().map(settle_item).collect(), sync))
}

pub(super) fn settle_item(wire: v1::SettleItem) -> SettleItem {
    SettleItem {
        topic: wire.topic,
        partition: wire.partition,
        run: Run::new(wire.start_offset, wire.end_offset),
        epoch: wire.session_epoch,
        seq: wire.delivery_seq,
        outcome: wire.outcome.map(outcome),
    }
}

pub(crate) fn outcome(wire: WireOutcome) -> Outcome {
    let kept = |reason: &str| -> Arc<str> {
        reason[..reason.floor_char_boundary(delivery::change::REASON_BYTES_MAX)].into()
    };
    match wire {
        WireOutcome::Ack(_) => Outcome::Ack,
        WireOutcome::Nack(nack) => Outcome::Nack {
            delay: nack.delay_ms.map(Duration::from_millis),
            reason: kept(&nack.reason),
        },
        WireOutcome::Release(_) => Outcome::Release,
        WireOutcome::Reject(reject) => Outcome::Reject { reason: kept(&reject.reason) },
        WireOutcome::Extend(extend) => {
            Outcome::Extend { lease: Duration::from_millis(extend.lease_ms) }
        }
        WireOutcome::Started(_) => Outcome::Started,
    }
}

pub(crate) fn settle_result((item, outcome): (u32, SettleOutcome)) -> v1::SettleResult {
    let (status, run) = match outcome {
        SettleOutcome::Indeterminate => (v1::SettleStatus::Indeterminate, None),
        SettleOutcome::Decided(result) => {
            let status = match result.status {
                SettleStatus::Ok => v1::SettleStatus::Ok,
                SettleStatus::AlreadySettled => v1::SettleStatus::AlreadySettled,
                SettleStatus::LeaseLimit => v1::SettleStatus::LeaseLimit,
                SettleStatus::StaleLease => v1::SettleStatus::StaleLease,
                SettleStatus::NotDelivered => v1::SettleStatus::NotDelivered,
                SettleStatus::UnknownPartition => v1::SettleStatus::UnknownPartition,
                SettleStatus::Invalid => v1::SettleStatus::Invalid,
            };
            (status, result.run)
        }
    };
    v1::SettleResult { item, status: status as i32, range: run.map(range) }
}

pub(super) fn settled(told: Settled) -> v1::Settled {
    let results = told.results.into_iter().map(settle_result).collect();
    v1::Settled { settle_id: told.settle_id, results }
}

fn range(run: Run) -> v1::OffsetRange {
    v1::OffsetRange { start_offset: run.start, end_offset: run.end }
}

fn ranges(runs: &[Run]) -> Vec<v1::OffsetRange> {
    runs.iter().copied().map(range).collect()
}

pub(crate) fn opened(told: &Opened) -> v1::Opened {
    v1::Opened {
        session_epoch: told.epoch,
        resumed: told.resumed,
        heartbeat_interval_ms: u32::try_from(ms(told.heartbeat_interval)).unwrap_or(u32::MAX),
        ack_wait_ms: ms(told.ack_wait),
        max_lease_ms: ms(told.lease_max),
        max_in_flight: told.in_flight_max,
        order: order_message(told.order) as i32,
        credit_used: Some(credit_used(told.credit_used)),
    }
}

fn credit_used(amount: Amount) -> v1::CreditUsed {
    v1::CreditUsed { messages_total: amount.records, bytes_total: amount.bytes }
}

pub(super) fn delivered(told: Delivered) -> v1::Deliver {
    let count = |count: delivery::DeliveryCount| v1::DeliveryCount {
        offset: count.offset,
        attempts: count.attempts,
        failures: count.failures,
    };
    v1::Deliver {
        topic: told.place.topic.to_string(),
        partition: told.place.partition,
        delivery_seq: told.seq,
        ranges: ranges(&told.frame.runs),
        batches: told.frame.batches,
        records: told.frame.records.into_iter().map(wire_record).collect(),
        counts: told.counts.into_iter().map(count).collect(),
        replayed: told.replayed,
        session_epoch: told.epoch,
    }
}

pub(crate) fn revoked(place: &Place, runs: &[Run], reason: RevokeReason) -> v1::Revoked {
    let reason = match reason {
        RevokeReason::LeaseExpired => v1::RevokeReason::LeaseExpired,
        RevokeReason::SettledElsewhere => v1::RevokeReason::SettledElsewhere,
        RevokeReason::Seek => v1::RevokeReason::Seek,
        RevokeReason::Order => v1::RevokeReason::Order,
    };
    v1::Revoked {
        topic: place.topic.to_string(),
        partition: place.partition,
        ranges: ranges(runs),
        reason: reason as i32,
    }
}

pub(crate) fn lost(place: &Place, runs: &[Run]) -> v1::Lost {
    v1::Lost { topic: place.topic.to_string(), partition: place.partition, ranges: ranges(runs) }
}

pub(crate) fn heartbeat(told: &Heartbeat) -> v1::BrokerHeartbeat {
    v1::BrokerHeartbeat {
        lag: told.lag,
        oldest_unsettled_ms: told.oldest_unsettled_ms,
        idle_reason: told.idle.as_ref().map_or(0, |reason| idle_reason(reason) as i32),
        credit_used: Some(credit_used(told.credit_used)),
    }
}

pub(crate) fn listing(told: Listing) -> v1::SubscriptionListing {
    v1::SubscriptionListing {
        subscription: told.name.to_string(),
        topics: told.topics.iter().map(|topic| topic.to_string()).collect(),
        order: order_message(told.order) as i32,
        sessions: u32::try_from(told.sessions).unwrap_or(u32::MAX),
        lag: told.lag,
        paused: told.paused,
    }
}

pub(crate) fn description(told: Description) -> v1::DescribeSubscriptionResponse {
    let Description { stored, topics, partitions, sessions, webhook } = told;
    v1::DescribeSubscriptionResponse {
        subscription: stored.name.to_string(),
        topics: topics.iter().map(|topic| topic.to_string()).collect(),
        settings: Some(stored.settings.to_shown()),
        paused: stored.paused,
        created_ms: stored.created_ms,
        partitions: partitions.into_iter().map(partition).collect(),
        sessions: sessions.into_iter().map(session).collect(),
        webhook: webhook.map(webhook_standing),
    }
}

fn webhook_standing(told: WebhookStanding) -> v1::WebhookStanding {
    let state = match told.state {
        WebhookState::Idle => v1::WebhookState::Unspecified,
        WebhookState::Delivering => v1::WebhookState::Delivering,
        WebhookState::Broken { .. } => v1::WebhookState::Broken,
        WebhookState::Probing => v1::WebhookState::Probing,
        WebhookState::Postponed { .. } => v1::WebhookState::Postponed,
    };
    let (last_failure, last_failure_ms) = told.last_failure.unwrap_or_else(|| ("".into(), 0));
    v1::WebhookStanding {
        state: state as i32,
        until_ms: told.state.until_ms(),
        delivered: told.delivered,
        failed: told.failed,
        postponed: told.postponed,
        failures_in_row: told.failures_in_row,
        last_failure: last_failure.to_string(),
        last_failure_ms,
        no_room: told.no_room,
    }
}

fn partition(told: PartitionDescription) -> v1::SubscriptionPartition {
    let PartitionDescription { place, counts, oldest_unsettled_ms } = told;
    v1::SubscriptionPartition {
        topic: place.topic.to_string(),
        partition: place.partition,
        floor: counts.floor,
        high_watermark: counts.high_watermark,
        lag: counts.lag,
        ready: counts.ready,
        in_flight: counts.in_flight,
        retrying: counts.retrying,
        blocked: counts.blocked,
        scheduled: counts.scheduled,
        dead: counts.dead,
        dead_pending: counts.dead_pending,
        oldest_unsettled_ms,
        ack_state_bytes: counts.ack_state_bytes,
    }
}

fn session(view: SessionView) -> v1::SubscriptionSession {
    v1::SubscriptionSession {
        session_id: view.id.to_string(),
        client_id: view.client_id.to_string(),
        host: view.host.to_string(),
        in_flight: u64::from(view.in_flight),
        credit_messages: view.credit_records,
        credit_bytes: view.credit_bytes,
        delivered: view.delivered,
        detached: view.detached_until.is_some(),
        draining: view.draining,
        paused: view.paused,
        unary: view.unary,
    }
}

pub(super) fn peeked(told: PeekedRecord) -> v1::PeekedRecord {
    let PeekedRecord { place, record, peeked } = told;
    let Peeked { state, attempts, failures, session, until_ms, offset: _ } = peeked;
    let state = match state {
        RecordState::Unread => v1::RecordState::Unspecified,
        RecordState::Ready => v1::RecordState::Ready,
        RecordState::InFlight => v1::RecordState::InFlight,
        RecordState::RetryWait => v1::RecordState::RetryWait,
        RecordState::Blocked => v1::RecordState::Blocked,
        RecordState::Scheduled => v1::RecordState::Scheduled,
        RecordState::DeadPending => v1::RecordState::DeadPending,
    };
    v1::PeekedRecord {
        topic: place.topic.to_string(),
        partition: place.partition,
        record: Some(wire_record(record)),
        state: state as i32,
        attempts,
        failures,
        session_id: session.map(|id| id.to_string()),
        until_ms,
    }
}
