//! A webhook: the broker posts the records of a subscription to an endpoint.

use std::{fmt, time::Duration};

use riverrun_proto::grpc::v1;

use super::millis;

/// Settings of a webhook. `None` has the default when a webhook is made, and keeps its value when it is altered.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Webhook {
    /// Where to: an `http` or `https` address. Empty takes the webhook away.
    pub url: Option<String>,
    /// Secrets that sign, at most 4, each `whsec_` and 24 to 64 bytes as base64; they replace all. A broker never tells them.
    pub secrets: Option<Vec<String>>,
    /// Requests at once: 1 to 1,000. Default 10.
    pub concurrency: Option<u32>,
    /// Longest time from a request to the head of its answer: 100 ms to 10 min. Default 10 s.
    pub timeout: Option<Duration>,
    /// Secrets that are set. Told by a broker, and never taken by one.
    pub secret_count: u32,
}

impl Webhook {
    /// A webhook that posts to `url`, unsigned and with defaults.
    pub fn to(url: impl Into<String>) -> Webhook {
        Webhook { url: Some(url.into()), ..Webhook::default() }
    }

    pub(crate) fn from_wire(wire: v1::WebhookSettings) -> Webhook {
        Webhook {
            url: wire.url,
            secrets: wire.secrets.map(|given| given.secrets),
            concurrency: wire.concurrency,
            timeout: wire.timeout_ms.map(Duration::from_millis),
            secret_count: wire.secret_count,
        }
    }

    pub(crate) fn to_wire(&self) -> v1::WebhookSettings {
        v1::WebhookSettings {
            url: self.url.clone(),
            secrets: self.secrets.clone().map(|secrets| v1::WebhookSecrets { secrets }),
            concurrency: self.concurrency,
            timeout_ms: self.timeout.map(millis),
            secret_count: self.secret_count,
        }
    }
}

/// Tells of secrets only how many there are.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("secrets", &self.secrets.as_ref().map(Vec::len))
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .field("secret_count", &self.secret_count)
            .finish()
    }
}
