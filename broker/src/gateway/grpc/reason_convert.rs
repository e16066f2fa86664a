//! Why nothing is delivered, as the wire tells it: a code, what it is about, and one sentence.

use riverrun_proto::grpc::v1;

use crate::{delivery::Reason, service::delivery::admin::Explanation};

pub(crate) fn idle_reason(reason: &Reason) -> v1::IdleReason {
    match reason {
        Reason::Nothing => v1::IdleReason::NothingToDeliver,
        Reason::NoSession => v1::IdleReason::NoSession,
        Reason::NoCredit => v1::IdleReason::NoCredit,
        Reason::SessionLimit => v1::IdleReason::SessionLimit,
        Reason::OpenLimit => v1::IdleReason::InFlightLimit,
        Reason::AckStateLimit => v1::IdleReason::AckStateLimit,
        Reason::ScheduledLimit => v1::IdleReason::ScheduledLimit,
        Reason::KeyBlocked { .. } => v1::IdleReason::KeyBlocked,
        Reason::Paused => v1::IdleReason::Paused,
        Reason::SessionsPaused => v1::IdleReason::SessionsPaused,
        Reason::RetryWait { .. } => v1::IdleReason::RetryWait,
        Reason::Scheduled { .. } => v1::IdleReason::Scheduled,
        Reason::Filter => v1::IdleReason::Filter,
        Reason::NotVisible => v1::IdleReason::NotVisible,
        Reason::Reading => v1::IdleReason::Reading,
        Reason::PartitionError { .. } => v1::IdleReason::PartitionError,
        Reason::Quota { .. } => v1::IdleReason::Quota,
        Reason::DeadLetterBlocked { .. } => v1::IdleReason::DeadLetterBlocked,
        Reason::StateFailed => v1::IdleReason::StateFailed,
        Reason::Standby { .. } => v1::IdleReason::Standby,
        Reason::Isolated { .. } => v1::IdleReason::Isolated,
        Reason::WebhookWaits { .. } => v1::IdleReason::WebhookWaits,
    }
}

pub(crate) fn explanation(told: Explanation) -> v1::Explanation {
    let Explanation { place, reason, key } = told;
    let (offset, session, until_ms) = match &reason {
        Reason::KeyBlocked { offset, session, until_ms } => {
            (Some(*offset), session.clone(), Some(*until_ms))
        }
        Reason::RetryWait { offset, until_ms } | Reason::Scheduled { offset, until_ms } => {
            (Some(*offset), None, Some(*until_ms))
        }
        Reason::PartitionError { until_ms, .. } => (None, None, *until_ms),
        Reason::Quota { until_ms, .. } | Reason::WebhookWaits { until_ms, .. } => {
            (None, None, Some(*until_ms))
        }
        Reason::DeadLetterBlocked { offset, .. } => (Some(*offset), None, None),
        Reason::Standby { session } => (None, Some(session.clone()), None),
        Reason::Isolated { offset, session } => (Some(*offset), session.clone(), None),
        Reason::Nothing
        | Reason::NoSession
        | Reason::NoCredit
        | Reason::SessionLimit
        | Reason::OpenLimit
        | Reason::AckStateLimit
        | Reason::ScheduledLimit
        | Reason::Paused
        | Reason::SessionsPaused
        | Reason::Filter
        | Reason::NotVisible
        | Reason::Reading
        | Reason::StateFailed => (None, None, None),
    };
    v1::Explanation {
        topic: place.topic.to_string(),
        partition: place.partition,
        reason: idle_reason(&reason) as i32,
        message: sentence(&reason),
        offset,
        key,
        session_id: session.map(|id| id.to_string()),
        until_ms,
    }
}

/// The reason in one sentence.
fn sentence(reason: &Reason) -> String {
    match reason {
        Reason::Nothing => "everything visible is settled or in consumers' hands".into(),
        Reason::NoSession => "no session is open and nobody asks".into(),
        Reason::NoCredit => "every session has used up its credit".into(),
        Reason::SessionLimit => {
            "every session holds `max_in_flight` records or all bytes it may, or does not read what it was sent".into()
        }
        Reason::OpenLimit => "as many records are open as `max_open` allows".into(),
        Reason::AckStateLimit => {
            "the set of settled records has too many holes for `max_ack_state_bytes`".into()
        }
        Reason::ScheduledLimit => "too many records wait for their time".into(),
        Reason::KeyBlocked { offset, session: Some(session), until_ms } => format!(
            "the next record waits for offset {offset} of its key, held by session `{session}` until {until_ms}"
        ),
        Reason::KeyBlocked { offset, session: None, until_ms } => format!(
            "the next record waits for offset {offset} of its key, which is tried again at {until_ms}"
        ),
        Reason::Paused => "the subscription is paused".into(),
        Reason::SessionsPaused => "every session is paused, drains, or lost its stream".into(),
        Reason::RetryWait { offset, until_ms } => {
            format!("offset {offset} is tried again at {until_ms}")
        }
        Reason::Scheduled { offset, until_ms } => {
            format!("offset {offset} is to be delivered at {until_ms}")
        }
        Reason::Filter => "records are being read; none of the last ones matched the filter".into(),
        Reason::NotVisible => "records are written but not durable yet".into(),
        Reason::Reading => "records are being read from the log".into(),
        Reason::PartitionError { error, until_ms: Some(until_ms) } => {
            format!("the partition cannot be read until {until_ms}: {error}")
        }
        Reason::PartitionError { error, until_ms: None } => {
            format!(
                "everything readable is settled or in consumers' hands, and nothing more comes: {error}"
            )
        }
        Reason::Quota { error, until_ms } => {
            format!("records are read again at {until_ms}: {error}")
        }
        Reason::DeadLetterBlocked { offset, error } => {
            format!("the dead letter of offset {offset} cannot be written: {error}")
        }
        Reason::StateFailed => "what was settled cannot be stored until the broker restarts".into(),
        Reason::Standby { session } => format!("session `{session}` holds the subscription alone"),
        Reason::Isolated { offset, session: Some(session) } => format!(
            "offset {offset}, whose consumers crashed, is handed out alone to session `{session}`"
        ),
        Reason::Isolated { offset, session: None } => format!(
            "offset {offset}, whose consumers crashed, waits for a session that holds nothing else"
        ),
        Reason::WebhookWaits { error, until_ms } => {
            format!("the webhook is tried again at {until_ms}: {error}")
        }
    }
}

#[cfg(test)]
mod tests;
