//! The webhook of a subscription: where its records are posted, and what signs them.
//!
//! A secret is `whsec_` and 24 to 64 bytes as base64, as [Standard Webhooks](https://www.standardwebhooks.com) has it.
//! It is kept, for it must sign; it is never told to anybody, nor written to a log line.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Uri;
use riverrun_proto::grpc::v1;

use super::settings::{InvalidSetting, invalid, ms, set};
use crate::delivery::Settings;

/// What a lease has beyond the longest time of a request: for the wait before it, and for what comes after.
pub const LEASE_MARGIN: Duration = Duration::from_secs(20);

const URL_BYTES_MAX: usize = 2_048;
const SECRETS_MAX: usize = 4;
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const CONCURRENCY_DEFAULT: u32 = 10;
const TIMEOUT_MS_DEFAULT: u64 = 10_000;

/// A webhook with every setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where records are posted: an `http` or `https` address with a host.
    pub url: Arc<str>,
    /// What signs them, each by itself.
    pub secrets: Vec<Secret>,
    /// Requests at once.
    pub concurrency: u32,
    /// Longest time from a request to the head of its answer.
    pub timeout: Duration,
}

/// Bytes that sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn parse(text: &str) -> Option<Secret> {
        Secret::decoded(text).filter(|secret| SECRET_BYTES.contains(&secret.0.len()))
    }

    fn decoded(text: &str) -> Option<Secret> {
        let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
        Some(Secret(bytes.into()))
    }

    fn text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").finish_non_exhaustive()
    }
}

impl Webhook {
    /// `before` with what is given laid over it; `None` when it is taken away.
    ///
    /// # Errors
    /// The first setting outside its bounds. What came is not repeated of a secret.
    pub(super) fn overlaid(
        before: Option<&Webhook>,
        given: &v1::WebhookSettings,
    ) -> Result<Option<Webhook>, InvalidSetting> {
        let url: Arc<str> = match (given.url.as_deref(), before) {
            (Some(""), _) => return Ok(None),
            (Some(url), _) => checked(url)?,
            (None, Some(before)) => before.url.clone(),
            (None, None) => {
                let expected = "given, for there is no webhook to change";
                return Err(invalid("webhook.url", expected.to_owned(), "nothing"));
            }
        };
        let mut concurrency = before.map_or(CONCURRENCY_DEFAULT, |webhook| webhook.concurrency);
        set(&mut concurrency, "webhook.concurrency", given.concurrency, 1..=1_000)?;
        let mut timeout_ms = before.map_or(TIMEOUT_MS_DEFAULT, |webhook| ms(webhook.timeout));
        set(&mut timeout_ms, "webhook.timeout_ms", given.timeout_ms, 100..=600_000)?;
        let secrets = match (&given.secrets, before) {
            (Some(given), _) => secrets(&given.secrets)?,
            (None, Some(before)) => before.secrets.clone(),
            (None, None) => Vec::new(),
        };
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Some(Webhook { url, secrets, concurrency, timeout }))
    }

    /// As the log has it.
    pub(super) fn from_stored(stored: &v1::WebhookSettings) -> Webhook {
        let secrets = stored.secrets.iter().flat_map(|stored| &stored.secrets);
        Webhook {
            url: stored.url.as_deref().unwrap_or_default().into(),
            secrets: secrets.filter_map(|text| Secret::decoded(text)).collect(),
            concurrency: stored.concurrency.unwrap_or(CONCURRENCY_DEFAULT),
            timeout: Duration::from_millis(stored.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT)),
        }
    }

    /// Its address; `None` where what the log has is none by now.
    pub fn uri(&self) -> Option<Uri> {
        checked(&self.url).ok()?.parse().ok()
    }

    /// Checks it against what delivery decides by.
    pub(super) fn check_with(&self, delivery: &Settings) -> Result<(), InvalidSetting> {
        let longest = delivery.lease_max.saturating_sub(LEASE_MARGIN);
        if self.timeout > longest {
            let margin = ms(LEASE_MARGIN);
            let expected =
                format!("at most `max_lease_ms` less {margin}, which is {}", ms(longest));
            return Err(invalid("webhook.timeout_ms", expected, ms(self.timeout)));
        }
        if delivery.key_pipeline != 1 {
            let expected = "1 with a webhook".to_owned();
            return Err(invalid("key_pipeline", expected, delivery.key_pipeline));
        }
        Ok(())
    }

    /// As the log keeps it.
    pub(super) fn to_message(&self) -> v1::WebhookSettings {
        let secrets = self.secrets.iter().map(Secret::text).collect();
        v1::WebhookSettings {
            secrets: Some(v1::WebhookSecrets { secrets }),
            secret_count: 0,
            ..self.to_shown()
        }
    }

    /// As it is told.
    pub(super) fn to_shown(&self) -> v1::WebhookSettings {
        v1::WebhookSettings {
            url: Some(self.url.to_string()),
            secrets: None,
            concurrency: Some(self.concurrency),
            timeout_ms: Some(ms(self.timeout)),
            secret_count: u32::try_from(self.secrets.len()).unwrap_or(u32::MAX),
        }
    }
}

/// The address, when records can be posted there.
fn checked(url: &str) -> Result<Arc<str>, InvalidSetting> {
    let refused = |expected: &str| Err(invalid("webhook.url", expected.to_owned(), url));
    if url.len() > URL_BYTES_MAX {
        let expected = format!("at most {URL_BYTES_MAX} bytes");
        return Err(invalid("webhook.url", expected, format!("{} bytes", url.len())));
    }
    let uri = url.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            // What is written as a port and is none would be posted to the port of the scheme.
            && uri.authority().is_some_and(|one| one.as_str() == one.host() || one.port().is_some() || one.as_str().contains('@'))
    });
    let Some(uri) = uri else {
        return refused("an address that begins with `http://` or `https://` and a host");
    };
    // A fragment is dropped when an address is parsed, so the text itself is looked at.
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if has_user || url.contains('#') {
        let expected = "an address without user, password and fragment";
        return Err(invalid("webhook.url", expected.to_owned(), "one with them"));
    }
    Ok(url.into())
}

fn secrets(given: &[String]) -> Result<Vec<Secret>, InvalidSetting> {
    if given.len() > SECRETS_MAX {
        let expected = format!("a list of at most {SECRETS_MAX}");
        return Err(invalid("webhook.secrets", expected, given.len()));
    }
    let parsed = given.iter().map(|text| {
        Secret::parse(text).ok_or_else(|| {
            let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            let expected = format!("`{SECRET_PREFIX}` and {least} to {most} bytes as base64");
            invalid("webhook.secrets", expected, format!("{} characters", text.chars().count()))
        })
    });
    parsed.collect()
}
