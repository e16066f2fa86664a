//! Settings of a subscription: defaults, bounds, and how given ones are laid over them.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use riverrun_proto::grpc::v1;
use thiserror::Error;

use super::{filter::Filter, webhook::Webhook};
use crate::{
    delivery::{Order, Settings},
    topic::name::check_topic_name,
};

/// Longest lease, and longest delay of a retry, in milliseconds: 12 hours.
pub const LEASE_MS_MAX: u64 = 43_200_000;
/// What is put behind a subscription's name to name its dead-letter topic.
pub const DEAD_LETTER_SUFFIX: &str = ".dead";

/// Every setting with its value in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// What delivery decides by.
    pub delivery: Settings,
    /// Topic for dead letters; without one it is the subscription's name and [`DEAD_LETTER_SUFFIX`].
    pub dead_letter_topic: Option<Arc<str>>,
    /// Which records are delivered.
    pub filter: Filter,
    /// Where the broker posts them.
    pub webhook: Option<Webhook>,
}

/// A setting that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`settings.{setting}` must be {expected}, found `{}`", .found.escape_debug())]
pub struct InvalidSetting {
    /// Name as in the message.
    pub setting: &'static str,
    /// What is allowed.
    pub expected: String,
    /// What came.
    pub found: String,
}

impl SubscriptionSettings {
    /// The settings in force of a new subscription for which `given` are given.
    ///
    /// # Errors
    /// The first setting outside its bounds.
    pub fn from_given(
        given: &v1::SubscriptionSettings,
    ) -> Result<SubscriptionSettings, InvalidSetting> {
        SubscriptionSettings::default().overlaid(given)
    }

    /// The settings that the log has, written by this version or another. An address is not judged by what is allowed by now: a
    /// webhook that cannot be posted to any more is no reason for the broker not to start.
    ///
    /// # Errors
    /// The first other setting outside its bounds.
    pub(super) fn from_stored(
        stored: &v1::SubscriptionSettings,
    ) -> Result<SubscriptionSettings, InvalidSetting> {
        let others = v1::SubscriptionSettings { webhook: None, ..stored.clone() };
        let settings = SubscriptionSettings::from_given(&others)?;
        let webhook = stored.webhook.as_ref().map(Webhook::from_stored);
        Ok(SubscriptionSettings { webhook, ..settings })
    }

    /// These settings with those that are given laid over them. An empty `dead_letter_topic` is the default, a
    /// filter replaces the whole filter, an empty `webhook.url` takes the webhook away.
    ///
    /// # Errors
    /// The first setting outside its bounds.
    pub fn overlaid(
        &self,
        given: &v1::SubscriptionSettings,
    ) -> Result<SubscriptionSettings, InvalidSetting> {
        let mut next = self.clone();
        let to = &mut next.delivery;
        if let Some(number) = given.order {
            to.order = order(number)?;
        }
        set_ms(&mut to.ack_wait, "ack_wait_ms", given.ack_wait_ms, 1_000)?;
        set_ms(&mut to.lease_max, "max_lease_ms", given.max_lease_ms, 1_000)?;
        set_ms(&mut to.backoff_min, "backoff_min_ms", given.backoff_min_ms, 0)?;
        set_ms(&mut to.backoff_max, "backoff_max_ms", given.backoff_max_ms, 0)?;
        set(&mut to.failures_max, "max_failures", given.max_failures, 0..=1_000)?;
        set(&mut to.open_max, "max_open", given.max_open, 1..=1_000_000)?;
        set(&mut to.key_pipeline, "key_pipeline", given.key_pipeline, 1..=1_000)?;
        let state = 4_096..=64 << 20;
        set(&mut to.ack_state_bytes_max, "max_ack_state_bytes", given.max_ack_state_bytes, state)?;
        if let Some(topic) = &given.dead_letter_topic {
            next.dead_letter_topic = dead_letter_topic(topic)?;
        }
        if let Some(filter) = &given.filter {
            next.filter = Filter::from_given(filter)?;
        }
        if let Some(webhook) = &given.webhook {
            next.webhook = Webhook::overlaid(self.webhook.as_ref(), webhook)?;
        }
        next.check_together()
    }

    fn check_together(self) -> Result<SubscriptionSettings, InvalidSetting> {
        let Settings { ack_wait, lease_max, backoff_min, backoff_max, .. } = self.delivery;
        if lease_max < ack_wait {
            let expected = format!("at least `ack_wait_ms`, which is {}", ms(ack_wait));
            return Err(invalid("max_lease_ms", expected, ms(lease_max)));
        }
        if backoff_max < backoff_min {
            let expected = format!("at least `backoff_min_ms`, which is {}", ms(backoff_min));
            return Err(invalid("backoff_max_ms", expected, ms(backoff_max)));
        }
        if let Some(webhook) = &self.webhook {
            webhook.check_with(&self.delivery)?;
        }
        Ok(self)
    }

    /// Name of the dead-letter topic of the subscription `name`.
    pub fn dead_letter_topic_of(&self, name: &str) -> Arc<str> {
        match &self.dead_letter_topic {
            Some(topic) => topic.clone(),
            None => format!("{name}{DEAD_LETTER_SUFFIX}").into(),
        }
    }

    /// Checks that the dead-letter topic of the subscription `name`, which reads `topics`, may exist.
    ///
    /// # Errors
    /// When its name would not be allowed, for instance because it is too long, or the subscription reads it: each dead letter would
    /// come back, fail, and be written once more, without end.
    pub fn check_dead_letter_topic_of(
        &self,
        name: &str,
        topics: &[String],
    ) -> Result<(), InvalidSetting> {
        let target = dead_letter_topic(&self.dead_letter_topic_of(name))?.unwrap_or_default();
        if topics.iter().any(|topic| **topic == *target) {
            let expected = "a topic that the subscription does not read".to_owned();
            return Err(invalid("dead_letter_topic", expected, target));
        }
        Ok(())
    }

    /// Every setting as the log keeps it, secrets included; an empty `dead_letter_topic` is the default.
    pub fn to_message(&self) -> v1::SubscriptionSettings {
        let webhook = self.webhook.as_ref().map(Webhook::to_message);
        v1::SubscriptionSettings { webhook, ..self.to_shown() }
    }

    /// Every setting as it is told to whoever asks: of secrets, how many there are.
    pub fn to_shown(&self) -> v1::SubscriptionSettings {
        let from = &self.delivery;
        v1::SubscriptionSettings {
            order: Some(order_message(from.order) as i32),
            ack_wait_ms: Some(ms(from.ack_wait)),
            max_lease_ms: Some(ms(from.lease_max)),
            max_failures: Some(from.failures_max),
            backoff_min_ms: Some(ms(from.backoff_min)),
            backoff_max_ms: Some(ms(from.backoff_max)),
            max_open: Some(from.open_max),
            max_ack_state_bytes: Some(from.ack_state_bytes_max),
            dead_letter_topic: Some(self.dead_letter_topic.as_deref().unwrap_or("").to_owned()),
            key_pipeline: Some(from.key_pipeline),
            filter: Some(self.filter.to_message()),
            webhook: self.webhook.as_ref().map(Webhook::to_shown),
        }
    }
}

/// The order that a message names.
fn order(number: i32) -> Result<Order, InvalidSetting> {
    let expected = || "a value of DeliveryOrder".to_owned();
    match v1::DeliveryOrder::try_from(number) {
        Ok(v1::DeliveryOrder::Unspecified | v1::DeliveryOrder::Unordered) => Ok(Order::Unordered),
        Ok(v1::DeliveryOrder::KeyFifo) => Ok(Order::KeyFifo),
        Ok(v1::DeliveryOrder::PartitionFifo) => Ok(Order::PartitionFifo),
        Ok(v1::DeliveryOrder::Exclusive) => Ok(Order::Exclusive),
        Err(_) => Err(invalid("order", expected(), number)),
    }
}

/// As the message names it.
pub fn order_message(order: Order) -> v1::DeliveryOrder {
    match order {
        Order::Unordered => v1::DeliveryOrder::Unordered,
        Order::KeyFifo => v1::DeliveryOrder::KeyFifo,
        Order::PartitionFifo => v1::DeliveryOrder::PartitionFifo,
        Order::Exclusive => v1::DeliveryOrder::Exclusive,
    }
}

fn dead_letter_topic(topic: &str) -> Result<Option<Arc<str>>, InvalidSetting> {
    if topic.is_empty() {
        return Ok(None);
    }
    check_topic_name(topic).map_err(|error| {
        let expected = "a topic name: 1 to 249 characters of [A-Za-z0-9._-], not `.` or `..`, not beginning \
                        with `__`";
        invalid("dead_letter_topic", expected.to_owned(), error.name)
    })?;
    Ok(Some(topic.into()))
}

pub(super) fn set<T: Copy + PartialOrd + std::fmt::Display>(
    to: &mut T,
    setting: &'static str,
    given: Option<T>,
    bounds: RangeInclusive<T>,
) -> Result<(), InvalidSetting> {
    let Some(given) = given else { return Ok(()) };
    if !bounds.contains(&given) {
        let expected = format!("{} to {}", bounds.start(), bounds.end());
        return Err(invalid(setting, expected, given));
    }
    *to = given;
    Ok(())
}

fn set_ms(
    to: &mut Duration,
    setting: &'static str,
    given: Option<u64>,
    least: u64,
) -> Result<(), InvalidSetting> {
    let mut value = ms(*to);
    set(&mut value, setting, given, least..=LEASE_MS_MAX)?;
    *to = Duration::from_millis(value);
    Ok(())
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn invalid(
    setting: &'static str,
    expected: String,
    found: impl ToString,
) -> InvalidSetting {
    InvalidSetting { setting, expected, found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use bytes::Bytes;

    use super::*;

    type Given = v1::SubscriptionSettings;

    #[track_caller]
    fn refused(given: Given, text: &str) {
        let error = SubscriptionSettings::from_given(&given).unwrap_err();
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn what_is_absent_stays_as_it_was() {
        let first = Given {
            order: Some(v1::DeliveryOrder::KeyFifo as i32),
            max_open: Some(7),
            dead_letter_topic: Some("graves".into()),
            filter: Some(v1::SubscriptionFilter {
                key_prefix: Some(Bytes::from_static(b"eu-")),
                ..v1::SubscriptionFilter::default()
            }),
            ..Given::default()
        };
        let first = SubscriptionSettings::from_given(&first).unwrap();
        assert_eq!(first.delivery.ack_wait, Duration::from_secs(30));
        let second = first.overlaid(&Given { ack_wait_ms: Some(5_000), ..Given::default() });
        let second = second.unwrap();
        assert_eq!((second.delivery.order, second.delivery.open_max), (Order::KeyFifo, 7));
        assert_eq!(second.delivery.ack_wait, Duration::from_secs(5));
        assert_eq!(
            (&second.filter, &second.dead_letter_topic),
            (&first.filter, &first.dead_letter_topic)
        );
        let reset = Given {
            dead_letter_topic: Some(String::new()),
            filter: Some(v1::SubscriptionFilter::default()),
            ..Given::default()
        };
        let third = second.overlaid(&reset).unwrap();
        assert_eq!(&*third.dead_letter_topic_of("s"), "s.dead");
        assert!(third.filter.is_empty());
    }

    #[test]
    fn a_stored_webhook_is_taken_as_it_is() {
        let secrets = vec![format!("whsec_{}", STANDARD.encode("short"))];
        let webhook = v1::WebhookSettings {
            url: Some("http://host:99999/".into()),
            secrets: Some(v1::WebhookSecrets { secrets }),
            concurrency: Some(5_000),
            timeout_ms: Some(1),
            secret_count: 0,
        };
        let stored = Given { webhook: Some(webhook.clone()), ..Given::default() };
        assert!(SubscriptionSettings::from_given(&stored).is_err());
        let settings = SubscriptionSettings::from_stored(&stored).unwrap();
        assert_eq!(settings.to_message().webhook, Some(webhook));
        assert_eq!(settings.webhook.unwrap().uri(), None);
    }

    #[test]
    fn settings_come_back_from_their_message() {
        let given = Given {
            order: Some(v1::DeliveryOrder::Exclusive as i32),
            ack_wait_ms: Some(1_000),
            max_lease_ms: Some(43_200_000),
            max_failures: Some(0),
            backoff_min_ms: Some(0),
            backoff_max_ms: Some(9),
            max_open: Some(1_000_000),
            max_ack_state_bytes: Some(4_096),
            dead_letter_topic: Some("graves".into()),
            key_pipeline: Some(1_000),
            filter: Some(v1::SubscriptionFilter {
                key_equals: Some(Bytes::from_static(b"k")),
                key_prefix: None,
                headers: vec![header(1, None)],
            }),
            webhook: Some(v1::WebhookSettings {
                url: Some("https://example.org/in".into()),
                secrets: Some(v1::WebhookSecrets { secrets: vec![secret(7)] }),
                concurrency: Some(3),
                timeout_ms: Some(1_000),
                secret_count: 0,
            }),
        };
        // The one setting that a webhook has no use for.
        let given = Given { key_pipeline: Some(1), ..given };
        let settings = SubscriptionSettings::from_given(&given).unwrap();
        assert_eq!(settings.to_message(), given);
        let default = SubscriptionSettings::default();
        assert_eq!(SubscriptionSettings::from_given(&default.to_message()), Ok(default));
    }

    fn secret(byte: u8) -> String {
        format!("whsec_{}", STANDARD.encode([byte; 32]))
    }

    fn hook(webhook: v1::WebhookSettings) -> Given {
        Given { webhook: Some(webhook), ..Given::default() }
    }

    fn url(url: &str) -> v1::WebhookSettings {
        v1::WebhookSettings { url: Some(url.into()), ..v1::WebhookSettings::default() }
    }

    #[test]
    fn a_webhook_is_given_changed_and_taken_away() {
        let secrets = v1::WebhookSecrets { secrets: vec![secret(1), secret(2)] };
        let with = v1::WebhookSettings { secrets: Some(secrets), ..url("http://h.test/") };
        let first = SubscriptionSettings::from_given(&hook(with)).unwrap();
        let webhook = first.webhook.clone().unwrap();
        assert_eq!((webhook.concurrency, webhook.secrets.len()), (10, 2));
        let change = v1::WebhookSettings { concurrency: Some(2), ..Default::default() };
        let second = first.overlaid(&hook(change.clone())).unwrap();
        assert_eq!(second.webhook, Some(Webhook { concurrency: 2, ..webhook }));
        let other = second.overlaid(&Given { max_open: Some(5), ..Given::default() }).unwrap();
        assert_eq!(other.webhook, second.webhook, "what is absent stays");
        let third = second.overlaid(&hook(url(""))).unwrap();
        assert_eq!(third.webhook, None);
        let error = third.overlaid(&hook(change)).unwrap_err().to_string();
        assert!(error.starts_with("`settings.webhook.url` must be given"), "{error}");
    }

    #[test]
    fn secrets_are_kept_and_never_shown() {
        let secrets = v1::WebhookSecrets { secrets: vec![secret(1)] };
        let with = v1::WebhookSettings { secrets: Some(secrets), ..url("http://h.test/") };
        let settings = SubscriptionSettings::from_given(&hook(with)).unwrap();
        let kept = SubscriptionSettings::from_given(&settings.to_message());
        assert_eq!(kept.as_ref(), Ok(&settings));
        let shown = settings.to_shown().webhook.unwrap();
        assert_eq!((shown.secrets, shown.secret_count), (None, 1));
        let text = format!("{settings:?}");
        assert!(!text.contains("[1, 1") && !text.contains(&secret(1)), "{text}");
    }

    #[test]
    fn a_webhook_out_of_bounds_is_named_and_a_wrong_secret_is_not_repeated() {
        for (bad, part) in [
            ("ftp://h/", "an address that begins"),
            ("http:///x", "an address that begins"),
            ("http://u:p@h/", "without user"),
            ("http://h/#x", "without user"),
            ("https://h:99999/", "and a host"),
            ("http://h:8080x/", "and a host"),
            ("h", "an address that begins"),
            ("http://h/ x", "an address that begins"),
        ] {
            let error = SubscriptionSettings::from_given(&hook(url(bad))).unwrap_err().to_string();
            assert!(error.contains("webhook.url") && error.contains(part), "{bad}: {error}");
        }
        let with = |change: fn(&mut v1::WebhookSettings)| {
            let mut given = url("http://h/");
            change(&mut given);
            hook(given)
        };
        refused(
            with(|hook| hook.concurrency = Some(0)),
            "`settings.webhook.concurrency` must be 1 to 1000, found `0`",
        );
        refused(
            with(|hook| hook.timeout_ms = Some(99)),
            "`settings.webhook.timeout_ms` must be 100 to 600000, found `99`",
        );
        refused(
            Given { max_lease_ms: Some(30_000), ..with(|hook| hook.timeout_ms = Some(10_001)) },
            "`settings.webhook.timeout_ms` must be at most `max_lease_ms` less 20000, which is 10000, found `10001`",
        );
        refused(
            Given { key_pipeline: Some(2), ..with(|_| ()) },
            "`settings.key_pipeline` must be 1 with a webhook, found `2`",
        );
        for bad in ["password", "whsec_!", "whsec_c2hvcnQ="] {
            let mut given = url("http://h/");
            given.secrets = Some(v1::WebhookSecrets { secrets: vec![bad.into()] });
            let error = SubscriptionSettings::from_given(&hook(given)).unwrap_err().to_string();
            assert!(error.contains("`settings.webhook.secrets` must be"), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
        let many = v1::WebhookSecrets { secrets: vec![secret(1); 5] };
        let given = v1::WebhookSettings { secrets: Some(many), ..url("http://h/") };
        refused(hook(given), "`settings.webhook.secrets` must be a list of at most 4, found `5`");
    }

    fn header(bytes: usize, condition: Option<v1::header_filter::Condition>) -> v1::HeaderFilter {
        v1::HeaderFilter { name: "h".repeat(bytes), condition }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let none = Given::default;
        let limits = "`settings.ack_wait_ms` must be 1000 to 43200000, found";
        refused(Given { ack_wait_ms: Some(999), ..none() }, &format!("{limits} `999`"));
        refused(
            Given { ack_wait_ms: Some(u64::MAX), ..none() },
            &format!("{limits} `{}`", u64::MAX),
        );
        refused(
            Given { ack_wait_ms: Some(7_200_000), ..none() },
            "`settings.max_lease_ms` must be at least `ack_wait_ms`, which is 7200000, found `3600000`",
        );
        refused(
            Given { backoff_max_ms: Some(10), ..none() },
            "`settings.backoff_max_ms` must be at least `backoff_min_ms`, which is 1000, found `10`",
        );
        refused(
            Given { max_failures: Some(1_001), ..none() },
            "`settings.max_failures` must be 0 to 1000, found `1001`",
        );
        refused(
            Given { max_open: Some(0), ..none() },
            "`settings.max_open` must be 1 to 1000000, found `0`",
        );
        refused(
            Given { key_pipeline: Some(0), ..none() },
            "`settings.key_pipeline` must be 1 to 1000, found `0`",
        );
        refused(
            Given { max_ack_state_bytes: Some(1 << 30), ..none() },
            "`settings.max_ack_state_bytes` must be 4096 to 67108864, found `1073741824`",
        );
        refused(
            Given { order: Some(9), ..none() },
            "`settings.order` must be a value of DeliveryOrder, found `9`",
        );
        let graves = Given { dead_letter_topic: Some("a\nb".into()), ..none() };
        let text = SubscriptionSettings::from_given(&graves).unwrap_err().to_string();
        assert!(text.starts_with("`settings.dead_letter_topic` must be a topic name"), "{text}");
        assert!(text.ends_with("found `a\\nb`"), "{text}");
        let long = "s".repeat(249);
        assert!(SubscriptionSettings::default().check_dead_letter_topic_of(&long, &[]).is_err());
    }

    #[test]
    fn a_filter_is_bounded() {
        let with = |headers| {
            let filter = v1::SubscriptionFilter { headers, ..v1::SubscriptionFilter::default() };
            Given { filter: Some(filter), ..Given::default() }
        };
        refused(
            with(vec![header(1, None); 17]),
            "`settings.filter.headers` must be a list of at most 16, found `17`",
        );
        refused(
            with(vec![header(0, None)]),
            "`settings.filter.headers.name` must be 1 to 1024 bytes, found `0 bytes`",
        );
        let large = v1::header_filter::Condition::Prefix(vec![0; (64 << 10) + 1].into());
        refused(
            with(vec![header(1, Some(large))]),
            "`settings.filter.headers.prefix` must be at most 65536 bytes, found `65537 bytes`",
        );
        let key = v1::SubscriptionFilter {
            key_equals: Some(vec![0; (64 << 10) + 1].into()),
            ..v1::SubscriptionFilter::default()
        };
        refused(
            Given { filter: Some(key), ..Given::default() },
            "`settings.filter.key_equals` must be at most 65536 bytes, found `65537 bytes`",
        );
    }
}
