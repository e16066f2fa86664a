//! Settings of a subscription.

use std::time::Duration;

use riverrun_proto::grpc::v1;

use super::{Mode, SubscriptionFilter, Webhook};

/// Settings of a subscription. `None` has the default when creating, and keeps its value when altering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// Order of delivery; cannot be changed while sessions are open. Default `Unordered`.
    pub mode: Option<Mode>,
    /// Lease of a delivery: 1 s to 12 h. Default 30 s.
    pub ack_wait: Option<Duration>,
    /// Longest lease with all extensions: up to 12 h. Default 1 h.
    pub max_lease: Option<Duration>,
    /// Failures after which a record becomes a dead letter: 1 to 1,000; 0 is never. Default 10.
    pub max_failures: Option<u32>,
    /// Delay before the first retry; doubles with every failure. Default 1 s.
    pub backoff_min: Option<Duration>,
    /// Longest delay before a retry. Default 5 min.
    pub backoff_max: Option<Duration>,
    /// Most open records per partition: delivered, waiting for a retry or for their key. Default 10,000.
    pub max_open: Option<u32>,
    /// Most bytes of memory for the settled records of one partition. Default 1 MiB.
    pub max_ack_state_bytes: Option<u64>,
    /// Topic for dead letters, made when it does not exist. Default is the subscription's name and `.dead`.
    pub dead_letter: Option<String>,
    /// Records of one key that one session may hold at a time with `KeyFifo`: 1 to 1,000. Default 1.
    pub key_pipeline: Option<u32>,
    /// Which records are delivered; an empty filter is all. Default all.
    pub filter: Option<SubscriptionFilter>,
    /// Where the broker posts the records by itself. Default nowhere.
    pub webhook: Option<Webhook>,
}

impl SubscriptionSettings {
    pub(crate) fn from_wire(wire: v1::SubscriptionSettings) -> SubscriptionSettings {
        SubscriptionSettings {
            mode: wire.order.map(Mode::from_wire),
            ack_wait: wire.ack_wait_ms.map(Duration::from_millis),
            max_lease: wire.max_lease_ms.map(Duration::from_millis),
            max_failures: wire.max_failures,
            backoff_min: wire.backoff_min_ms.map(Duration::from_millis),
            backoff_max: wire.backoff_max_ms.map(Duration::from_millis),
            max_open: wire.max_open,
            max_ack_state_bytes: wire.max_ack_state_bytes,
            dead_letter: wire.dead_letter_topic,
            key_pipeline: wire.key_pipeline,
            filter: wire.filter.map(SubscriptionFilter::from_wire),
            webhook: wire.webhook.map(Webhook::from_wire),
        }
    }

    pub(crate) fn to_wire(&self) -> v1::SubscriptionSettings {
        v1::SubscriptionSettings {
            order: self.mode.map(|mode| mode.to_wire().into()),
            ack_wait_ms: self.ack_wait.map(millis),
            max_lease_ms: self.max_lease.map(millis),
            max_failures: self.max_failures,
            backoff_min_ms: self.backoff_min.map(millis),
            backoff_max_ms: self.backoff_max.map(millis),
            max_open: self.max_open,
            max_ack_state_bytes: self.max_ack_state_bytes,
            dead_letter_topic: self.dead_letter.clone(),
            key_pipeline: self.key_pipeline,
            filter: self.filter.as_ref().map(SubscriptionFilter::to_wire),
            webhook: self.webhook.as_ref().map(Webhook::to_wire),
        }
    }
}

/// Whole milliseconds, rounded up so that a time that was set is never sent as zero.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeaderTest;

    #[test]
    fn settings_survive_the_wire() {
        let settings = SubscriptionSettings {
            mode: Some(Mode::KeyFifo),
            ack_wait: Some(Duration::from_secs(5)),
            max_lease: Some(Duration::from_secs(60)),
            max_failures: Some(0),
            backoff_min: Some(Duration::from_micros(1)),
            backoff_max: Some(Duration::from_secs(9)),
            max_open: Some(7),
            max_ack_state_bytes: Some(1 << 20),
            dead_letter: Some("orders.dead".into()),
            key_pipeline: Some(4),
            filter: Some(
                SubscriptionFilter::new()
                    .key_equals("k")
                    .key_prefix("")
                    .header("a", HeaderTest::Present)
                    .header("b", HeaderTest::Prefix("x".into()))
                    .header_equals("c", "y"),
            ),
            webhook: Some(Webhook {
                secrets: Some(vec!["whsec_c2VjcmV0".into()]),
                concurrency: Some(3),
                timeout: Some(Duration::from_secs(4)),
                secret_count: 1,
                ..Webhook::to("https://example.org/in")
            }),
        };
        assert!(!format!("{settings:?}").contains("whsec_"), "{settings:?}");
        let back = SubscriptionSettings::from_wire(settings.to_wire());
        let rounded = Some(Duration::from_millis(1));
        assert_eq!(back, SubscriptionSettings { backoff_min: rounded, ..settings });
        let empty = SubscriptionSettings::default();
        assert_eq!(SubscriptionSettings::from_wire(empty.to_wire()), empty);
    }

    #[test]
    fn modes_survive_the_wire() {
        for mode in [Mode::Unordered, Mode::KeyFifo, Mode::PartitionFifo, Mode::Exclusive] {
            assert_eq!(Mode::from_wire(mode.to_wire().into()), mode, "{}", mode.name());
        }
    }
}
