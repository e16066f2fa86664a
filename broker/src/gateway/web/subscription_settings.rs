//! Settings of a subscription as JSON, by the names of the protocol.

use riverrun_proto::grpc::v1::{self, header_filter::Condition};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

use super::{
    object::Object,
    problem::Problem,
    subscription_json::{TextIn, enum_name, text_or_base64},
};

/// Settings as they come; what is absent stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub(super) struct SubscriptionSettingsIn {
    order: Option<OrderIn>,
    ack_wait_ms: Option<u64>,
    max_lease_ms: Option<u64>,
    max_failures: Option<u32>,
    backoff_min_ms: Option<u64>,
    backoff_max_ms: Option<u64>,
    max_open: Option<u32>,
    max_ack_state_bytes: Option<u64>,
    dead_letter_topic: Option<String>,
    key_pipeline: Option<u32>,
    filter: Option<Object<FilterIn>>,
    webhook: Option<Object<WebhookIn>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
struct WebhookIn {
    url: Option<String>,
    secrets: Option<SecretsIn>,
    concurrency: Option<u32>,
    timeout_ms: Option<u64>,
}

/// Secrets as they come. Never written out, not even what is wrong with them.
struct SecretsIn(Vec<String>);

impl<'de> Deserialize<'de> for SecretsIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretsIn, D::Error> {
        let secrets = serde_json::from_value(Value::deserialize(deserializer)?);
        // The error tells what it met.
        secrets.map(SecretsIn).map_err(|_| D::Error::custom("`secrets` must be a list of texts"))
    }
}

impl std::fmt::Debug for SecretsIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretsIn").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OrderIn {
    Unordered,
    KeyFifo,
    PartitionFifo,
    Exclusive,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
struct FilterIn {
    key_equals: Option<TextIn>,
    key_prefix: Option<TextIn>,
    headers: Vec<Object<HeaderFilterIn>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct HeaderFilterIn {
    name: String,
    #[serde(default)]
    equals: Option<TextIn>,
    #[serde(default)]
    prefix: Option<TextIn>,
}

impl SubscriptionSettingsIn {
    /// As the services take them.
    pub(super) fn given(self) -> Result<v1::SubscriptionSettings, Problem> {
        let order = self.order.map(|order| match order {
            OrderIn::Unordered => v1::DeliveryOrder::Unordered as i32,
            OrderIn::KeyFifo => v1::DeliveryOrder::KeyFifo as i32,
            OrderIn::PartitionFifo => v1::DeliveryOrder::PartitionFifo as i32,
            OrderIn::Exclusive => v1::DeliveryOrder::Exclusive as i32,
        });
        Ok(v1::SubscriptionSettings {
            order,
            ack_wait_ms: self.ack_wait_ms,
            max_lease_ms: self.max_lease_ms,
            max_failures: self.max_failures,
            backoff_min_ms: self.backoff_min_ms,
            backoff_max_ms: self.backoff_max_ms,
            max_open: self.max_open,
            max_ack_state_bytes: self.max_ack_state_bytes,
            dead_letter_topic: self.dead_letter_topic,
            key_pipeline: self.key_pipeline,
            filter: self.filter.map(|Object(filter)| filter.given()).transpose()?,
            webhook: self.webhook.map(|Object(webhook)| webhook.given()),
        })
    }
}

impl WebhookIn {
    fn given(self) -> v1::WebhookSettings {
        v1::WebhookSettings {
            url: self.url,
            secrets: self.secrets.map(|SecretsIn(secrets)| v1::WebhookSecrets { secrets }),
            concurrency: self.concurrency,
            timeout_ms: self.timeout_ms,
            secret_count: 0,
        }
    }
}

impl FilterIn {
    fn given(self) -> Result<v1::SubscriptionFilter, Problem> {
        let text =
            |field: &str, text: Option<TextIn>| text.map(|text| text.bytes(field)).transpose();
        Ok(v1::SubscriptionFilter {
            key_equals: text("settings.filter.key_equals", self.key_equals)?,
            key_prefix: text("settings.filter.key_prefix", self.key_prefix)?,
            headers: self
                .headers
                .into_iter()
                .map(|Object(header)| header.given())
                .collect::<Result<_, _>>()?,
        })
    }
}

impl HeaderFilterIn {
    fn given(self) -> Result<v1::HeaderFilter, Problem> {
        let condition = match (self.equals, self.prefix) {
            (None, None) => None,
            (Some(text), None) => Some(Condition::Equals(text.bytes("headers.equals")?)),
            (None, Some(text)) => Some(Condition::Prefix(text.bytes("headers.prefix")?)),
            (Some(_), Some(_)) => {
                let expected = "one of `equals` and `prefix`";
                return Err(Problem::field("settings.filter.headers", expected, "both"));
            }
        };
        Ok(v1::HeaderFilter { name: self.name, condition })
    }
}

/// Every setting as JSON.
pub(super) fn settings(settings: &v1::SubscriptionSettings) -> Value {
    json!({
        "order": enum_name(settings.order().as_str_name(), "DELIVERY_ORDER_"),
        "ack_wait_ms": settings.ack_wait_ms,
        "max_lease_ms": settings.max_lease_ms,
        "max_failures": settings.max_failures,
        "backoff_min_ms": settings.backoff_min_ms,
        "backoff_max_ms": settings.backoff_max_ms,
        "max_open": settings.max_open,
        "max_ack_state_bytes": settings.max_ack_state_bytes,
        "dead_letter_topic": settings.dead_letter_topic,
        "key_pipeline": settings.key_pipeline,
        "filter": settings.filter.as_ref().map(filter),
        "webhook": settings.webhook.as_ref().map(webhook),
    })
}

fn webhook(webhook: &v1::WebhookSettings) -> Value {
    json!({
        "url": webhook.url,
        "secret_count": webhook.secret_count,
        "concurrency": webhook.concurrency,
        "timeout_ms": webhook.timeout_ms,
    })
}

fn filter(filter: &v1::SubscriptionFilter) -> Value {
    let headers = filter.headers.iter().map(|header| match &header.condition {
        None => json!({"name": header.name}),
        Some(Condition::Equals(to)) => json!({"name": header.name, "equals": text_or_base64(to)}),
        Some(Condition::Prefix(to)) => json!({"name": header.name, "prefix": text_or_base64(to)}),
    });
    let headers: Vec<Value> = headers.collect();
    json!({
        "key_equals": filter.key_equals.as_deref().map(text_or_base64),
        "key_prefix": filter.key_prefix.as_deref().map(text_or_base64),
        "headers": headers,
    })
}
