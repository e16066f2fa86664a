//! What the routes of subscriptions share: bytes, positions and descriptions as JSON.
//!
//! Bytes are a string when they are UTF-8, and `{"base64": "..."}` when they are not.

use std::str;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use riverrun_proto::grpc::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    object::Object,
    problem::Problem,
    subscription_settings::{SubscriptionSettingsIn, settings},
};
use crate::{
    service::delivery::create::{Spec, Start, TOPICS_MAX},
    subscription::SubscriptionSettings,
};

/// Bytes as they come.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an object with `base64`")]
pub(super) enum TextIn {
    Text(String),
    Base64(Object<Base64In>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Base64In {
    base64: String,
}

impl TextIn {
    pub(super) fn bytes(self, field: &str) -> Result<Bytes, Problem> {
        match self {
            TextIn::Text(text) => Ok(text.into()),
            TextIn::Base64(Object(Base64In { base64 })) => {
                let decoded = STANDARD.decode(&base64);
                decoded.map(Bytes::from).map_err(|_| Problem::field(field, "base64", base64))
            }
        }
    }
}

/// Bytes as they are told.
pub(super) fn text_or_base64(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// `"earliest"`, `"latest"`, or an object with one field.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StartIn {
    #[default]
    Earliest,
    Latest,
    TimestampMs(i64),
    Offset(u64),
    Group(String),
}

impl StartIn {
    /// As the services take it.
    pub(super) fn start(self) -> Start {
        match self {
            StartIn::Earliest => Start::Earliest,
            StartIn::Latest => Start::Latest,
            StartIn::TimestampMs(time_ms) => Start::TimestampMs(time_ms),
            StartIn::Offset(offset) => Start::Offset(offset),
            StartIn::Group(group) => Start::Group(group),
        }
    }
}

/// What a subscription is made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SpecIn {
    pub(super) topics: Vec<String>,
    #[serde(default)]
    pub(super) start: StartIn,
    #[serde(default)]
    pub(super) settings: Object<SubscriptionSettingsIn>,
}

impl SpecIn {
    /// As the services take it.
    pub(super) fn into_spec(self) -> Result<Spec, Problem> {
        // Also where it turns out not to be needed.
        if !(1..=TOPICS_MAX).contains(&self.topics.len()) {
            let expected = format!("a list of 1 to {TOPICS_MAX}");
            return Err(Problem::field("topics", &expected, self.topics.len()));
        }
        let settings = SubscriptionSettings::from_given(&self.settings.0.given()?);
        let settings = settings.map_err(crate::service::delivery::PushError::from)?;
        Ok(Spec { topics: self.topics, start: self.start.start(), settings })
    }
}

/// The name of a value as JSON tells it: without the prefix, in lower case.
pub(super) fn enum_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Puts the fields of a non-empty object to the end of the object that was written last.
pub(super) fn add_fields(more: &Value, to: &mut Vec<u8>) {
    let more = more.to_string();
    let closing = to.pop();
    debug_assert_eq!(closing, Some(b'}'));
    to.push(b',');
    to.extend_from_slice(&more.as_bytes()[1..]);
}

/// A subscription in short.
pub(super) fn listing(told: &v1::SubscriptionListing) -> Value {
    json!({
        "subscription": told.subscription,
        "topics": told.topics,
        "order": enum_name(told.order().as_str_name(), "DELIVERY_ORDER_"),
        "sessions": told.sessions,
        "lag": told.lag,
        "paused": told.paused,
    })
}

/// A subscription as it stands.
pub(super) fn description(told: v1::DescribeSubscriptionResponse) -> Value {
    let partitions: Vec<Value> = told.partitions.iter().map(partition).collect();
    let sessions: Vec<Value> = told.sessions.iter().map(session).collect();
    json!({
        "subscription": told.subscription,
        "topics": told.topics,
        "settings": settings(&told.settings.unwrap_or_default()),
        "paused": told.paused,
        "created_ms": told.created_ms,
        "partitions": partitions,
        "sessions": sessions,
        "webhook": told.webhook.as_ref().map(webhook),
    })
}

fn webhook(told: &v1::WebhookStanding) -> Value {
    let failure = json!({"message": told.last_failure, "time_ms": told.last_failure_ms});
    json!({
        "state": enum_name(told.state().as_str_name(), "WEBHOOK_STATE_"),
        "until_ms": told.until_ms,
        "delivered": told.delivered,
        "failed": told.failed,
        "postponed": told.postponed,
        "no_room": told.no_room,
        "failures_in_row": told.failures_in_row,
        "last_failure": (!told.last_failure.is_empty()).then_some(failure),
    })
}

fn partition(told: &v1::SubscriptionPartition) -> Value {
    json!({
        "topic": told.topic,
        "partition": told.partition,
        "floor": told.floor,
        "high_watermark": told.high_watermark,
        "lag": told.lag,
        "ready": told.ready,
        "in_flight": told.in_flight,
        "retrying": told.retrying,
        "blocked": told.blocked,
        "scheduled": told.scheduled,
        "dead": told.dead,
        "dead_pending": told.dead_pending,
        "oldest_unsettled_ms": told.oldest_unsettled_ms,
        "ack_state_bytes": told.ack_state_bytes,
    })
}

fn session(told: &v1::SubscriptionSession) -> Value {
    json!({
        "session_id": told.session_id,
        "client_id": told.client_id,
        "host": told.host,
        "in_flight": told.in_flight,
        "credit_messages": told.credit_messages,
        "credit_bytes": told.credit_bytes,
        "delivered": told.delivered,
        "detached": told.detached,
        "draining": told.draining,
        "paused": told.paused,
        "unary": told.unary,
    })
}
