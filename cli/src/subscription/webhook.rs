//! The webhook of a subscription on the command line, and how it stands.
//!
//! Secrets come from a file or standard input, never from an argument: arguments stand in the list of processes and in the
//! shell's history.

use std::{io::Read as _, path::PathBuf};

use clap::Args;
use riverrun_client::{Webhook, WebhookStanding};
use serde_json::{Value, json};

use super::settings::as_ms;
use crate::{time, units};

/// Most bytes of a file of secrets.
const SECRETS_BYTES_MAX: u64 = 16 << 10;

/// Settings of a webhook to give to a subscription.
#[derive(Debug, Default, Args)]
pub(crate) struct WebhookArgs {
    /// Post each record to this address, `http://` or `https://`
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// File of the secrets that sign what is posted, one a line, or `-` for standard input; an empty one takes them away
    #[arg(long, value_name = "FILE")]
    webhook_secrets: Option<PathBuf>,
    /// Requests at once, 1 to 1,000
    #[arg(long, value_name = "N")]
    webhook_concurrency: Option<u32>,
    /// Longest time of a request, such as 10s
    #[arg(long, value_name = "TIME", value_parser = units::parse_millis)]
    webhook_timeout: Option<u64>,
    /// Post no more: takes the webhook away
    #[arg(long)]
    #[arg(conflicts_with_all = ["webhook_url", "webhook_secrets", "webhook_concurrency", "webhook_timeout"])]
    no_webhook: bool,
}

impl WebhookArgs {
    /// The webhook that is given, if something of it is.
    pub(super) fn parse(&self) -> Result<Option<Webhook>, String> {
        if self.no_webhook {
            return Ok(Some(Webhook::to("")));
        }
        let webhook = Webhook {
            url: self.webhook_url.clone(),
            secrets: self.webhook_secrets.as_ref().map(secrets).transpose()?,
            concurrency: self.webhook_concurrency,
            timeout: self.webhook_timeout.map(std::time::Duration::from_millis),
            secret_count: 0,
        };
        Ok(Some(webhook).filter(|webhook| *webhook != Webhook::default()))
    }
}

/// The secrets of a file. What is in it is never told, not even when it is wrong.
fn secrets(path: &PathBuf) -> Result<Vec<String>, String> {
    let wrong = |why: std::io::Error| format!("`--webhook-secrets {}`: {why}", path.display());
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(SECRETS_BYTES_MAX).read_to_string(&mut text).map_err(wrong)?;
    } else {
        #[expect(clippy::disallowed_methods, reason = "a file that the user named")]
        let file = std::fs::File::open(path).map_err(wrong)?;
        file.take(SECRETS_BYTES_MAX).read_to_string(&mut text).map_err(wrong)?;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// A webhook in force, as rows of settings.
pub(super) fn rows(webhook: &Webhook) -> Vec<(&'static str, String)> {
    let secrets = match webhook.secret_count {
        0 => "none".to_owned(),
        count => format!("{count} set"),
    };
    let values = [
        ("webhook_url", webhook.url.clone()),
        ("webhook_secrets", Some(secrets)),
        ("webhook_concurrency", webhook.concurrency.map(|count| units::count(count.into()))),
        ("webhook_timeout", webhook.timeout.map(|time| units::millis(as_ms(time)))),
    ];
    values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// A webhook in force.
pub(super) fn to_json(webhook: &Webhook) -> Value {
    json!({
        "url": webhook.url,
        "secret_count": webhook.secret_count,
        "concurrency": webhook.concurrency,
        "timeout_ms": webhook.timeout.map(as_ms),
    })
}

/// How it stands, in one line.
pub(super) fn standing_text(standing: &WebhookStanding) -> String {
    let mut text = format!(
        "webhook {}: {} delivered, {} failed, {} postponed",
        standing.state.name(),
        units::count(standing.delivered),
        units::count(standing.failed),
        units::count(standing.postponed),
    );
    if standing.no_room > 0 {
        text.push_str(&format!(", {} without room", units::count(standing.no_room)));
    }
    if let Some(until_ms) = standing.until_ms {
        text.push_str(&format!("; tried again at {}", time::format(until_ms)));
    }
    if let Some((failure, at_ms)) = &standing.last_failure {
        text.push_str(&format!("; last failure at {}: {failure}", time::format(*at_ms)));
    }
    text.push('\n');
    text
}

/// How it stands.
pub(super) fn standing_json(standing: &WebhookStanding) -> Value {
    json!({
        "state": standing.state.name(),
        "until": standing.until_ms.map(time::format),
        "delivered": standing.delivered,
        "failed": standing.failed,
        "postponed": standing.postponed,
        "no_room": standing.no_room,
        "failures_in_row": standing.failures_in_row,
        "last_failure": standing.last_failure.as_ref().map(|(failure, _)| failure),
        "last_failure_at": standing.last_failure.as_ref().map(|(_, at_ms)| time::format(*at_ms)),
    })
}
