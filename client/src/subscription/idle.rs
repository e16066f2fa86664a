//! Why a subscription delivers nothing now.

use riverrun_proto::grpc::v1;

/// The exact reason why nothing is delivered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdleReason {
    /// Everything visible is settled or in a consumer's hands.
    NothingToDeliver,
    /// No session is open and nobody asks.
    NoSession,
    /// Every session has used up its credit.
    NoCredit,
    /// Every session holds as many records as it may.
    SessionLimit,
    /// The subscription holds as many open records of the partition as it may.
    InFlightLimit,
    /// The set of settled records has too many holes.
    AckStateLimit,
    /// Too many records wait for their time.
    ScheduledLimit,
    /// The key is in another consumer's hands or waits for its next try.
    KeyBlocked,
    /// The subscription is paused.
    Paused,
    /// Every session is paused or draining.
    SessionsPaused,
    /// What is left waits for its next try.
    RetryWait,
    /// What is left waits for its time of delivery.
    Scheduled,
    /// Records are being read; none matched the filter so far.
    Filter,
    /// Records are written but not durable at the topic's level yet.
    NotVisible,
    /// Records are being read from the log.
    Reading,
    /// The partition cannot be read.
    PartitionError,
    /// The state of the subscription cannot be stored.
    StateFailed,
    /// A dead letter cannot be written.
    DeadLetterBlocked,
    /// A quota of the broker is used up.
    Quota,
    /// Another session holds the subscription alone.
    Standby,
    /// A record that made its consumers crash is handed out alone.
    Isolated,
    /// The endpoint of the webhook failed too often or asked for time; it is tried again.
    WebhookWaits,
    /// One this client is too old to know.
    Unknown,
}

impl IdleReason {
    /// `None` when the broker gave no reason.
    pub(crate) fn from_wire(wire: i32) -> Option<IdleReason> {
        use v1::IdleReason as Wire;
        Some(match Wire::try_from(wire) {
            Ok(Wire::Unspecified) => return None,
            Ok(Wire::NothingToDeliver) => IdleReason::NothingToDeliver,
            Ok(Wire::NoSession) => IdleReason::NoSession,
            Ok(Wire::NoCredit) => IdleReason::NoCredit,
            Ok(Wire::SessionLimit) => IdleReason::SessionLimit,
            Ok(Wire::InFlightLimit) => IdleReason::InFlightLimit,
            Ok(Wire::AckStateLimit) => IdleReason::AckStateLimit,
            Ok(Wire::ScheduledLimit) => IdleReason::ScheduledLimit,
            Ok(Wire::KeyBlocked) => IdleReason::KeyBlocked,
            Ok(Wire::Paused) => IdleReason::Paused,
            Ok(Wire::SessionsPaused) => IdleReason::SessionsPaused,
            Ok(Wire::RetryWait) => IdleReason::RetryWait,
            Ok(Wire::Scheduled) => IdleReason::Scheduled,
            Ok(Wire::Filter) => IdleReason::Filter,
            Ok(Wire::NotVisible) => IdleReason::NotVisible,
            Ok(Wire::Reading) => IdleReason::Reading,
            Ok(Wire::PartitionError) => IdleReason::PartitionError,
            Ok(Wire::StateFailed) => IdleReason::StateFailed,
            Ok(Wire::DeadLetterBlocked) => IdleReason::DeadLetterBlocked,
            Ok(Wire::Quota) => IdleReason::Quota,
            Ok(Wire::Standby) => IdleReason::Standby,
            Ok(Wire::Isolated) => IdleReason::Isolated,
            Ok(Wire::WebhookWaits) => IdleReason::WebhookWaits,
            Err(_) => IdleReason::Unknown,
        })
    }

    /// The reason as commands write it.
    pub fn name(self) -> &'static str {
        match self {
            IdleReason::NothingToDeliver => "nothing-to-deliver",
            IdleReason::NoSession => "no-session",
            IdleReason::NoCredit => "no-credit",
            IdleReason::SessionLimit => "session-limit",
            IdleReason::InFlightLimit => "in-flight-limit",
            IdleReason::AckStateLimit => "ack-state-limit",
            IdleReason::ScheduledLimit => "scheduled-limit",
            IdleReason::KeyBlocked => "key-blocked",
            IdleReason::Paused => "paused",
            IdleReason::SessionsPaused => "sessions-paused",
            IdleReason::RetryWait => "retry-wait",
            IdleReason::Scheduled => "scheduled",
            IdleReason::Filter => "filter",
            IdleReason::NotVisible => "not-visible",
            IdleReason::Reading => "reading",
            IdleReason::PartitionError => "partition-error",
            IdleReason::StateFailed => "state-failed",
            IdleReason::DeadLetterBlocked => "dead-letter-blocked",
            IdleReason::Quota => "quota",
            IdleReason::Standby => "standby",
            IdleReason::Isolated => "isolated",
            IdleReason::WebhookWaits => "webhook-waits",
            IdleReason::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_wire_has_one_here() {
        let reasons = 1..=22;
        for wire in reasons.clone() {
            let name = v1::IdleReason::try_from(wire).unwrap().as_str_name();
            let name = name.trim_start_matches("IDLE_REASON_").replace('_', "-").to_lowercase();
            assert_eq!(IdleReason::from_wire(wire).unwrap().name(), name);
        }
        assert!(v1::IdleReason::try_from(reasons.end() + 1).is_err(), "a new one needs a place");
        assert_eq!(IdleReason::from_wire(0), None);
        assert_eq!(IdleReason::from_wire(9_999), Some(IdleReason::Unknown));
    }
}
