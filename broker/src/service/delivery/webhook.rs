//! Subscriptions whose records the broker posts: which they are, and how their endpoints stand.
//!
//! Who posts them is a door like any other: it opens a session, and tells here what it meets. Nothing of it is stored.

use std::{sync::Arc, time::Duration};

use super::{
    DeliveryService,
    error::PushError,
    session::{SessionIn, SessionOut},
};
use crate::{
    delivery::{Open, Reason},
    service::fetch::Format,
    subscription::SubscriptionSettings,
};

/// What the ids of sessions that post begin with.
pub(super) const WEBHOOK_ID_PREFIX: &str = "webhook-";

/// A subscription with a webhook.
#[derive(Clone, Debug)]
pub struct Hooked {
    /// Its number, never used twice.
    pub number: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its settings in force, which have a webhook.
    pub settings: Arc<SubscriptionSettings>,
}

/// How an endpoint stands. Counts begin when the broker starts, and go on when the webhook changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookStanding {
    /// What is done now.
    pub state: WebhookState,
    /// Records that were taken.
    pub delivered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that the endpoint put off.
    pub postponed: u64,
    /// Requests that found no place or no memory in time, and were not sent.
    pub no_room: u64,
    /// Failures of the endpoint in a row.
    pub failures_in_row: u32,
    /// The latest failure, and when it was in milliseconds since 1970-01-01 UTC.
    pub last_failure: Option<(Arc<str>, i64)>,
}

/// What is done with an endpoint now. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookState {
    /// Nothing yet.
    #[default]
    Idle,
    /// Records are posted as they come.
    Delivering,
    /// It failed too often in a row and is left alone.
    Broken {
        /// Until then.
        until_ms: i64,
    },
    /// One record at a time, until one is taken.
    Probing,
    /// It asked for time.
    Postponed {
        /// Until then.
        until_ms: i64,
    },
}

impl WebhookState {
    /// When it is tried again, while it is not.
    pub fn until_ms(&self) -> Option<i64> {
        match self {
            WebhookState::Broken { until_ms } | WebhookState::Postponed { until_ms } => {
                Some(*until_ms)
            }
            WebhookState::Idle | WebhookState::Delivering | WebhookState::Probing => None,
        }
    }
}

impl WebhookStanding {
    /// The reason of the sessions, where it is that this endpoint is left alone.
    pub(super) fn reason(&self, reason: Reason) -> Reason {
        match (reason, self.state.until_ms()) {
            (Reason::SessionsPaused, Some(until_ms)) => {
                let error = self.last_failure.as_ref().map(|(error, _)| error.clone());
                Reason::WebhookWaits { error: error.unwrap_or_else(|| "".into()), until_ms }
            }
            (reason, _) => reason,
        }
    }
}

impl DeliveryService {
    /// Every subscription with a webhook.
    pub fn hooked(&self) -> Vec<Hooked> {
        let stored = self.shared.store.subscriptions();
        let hooked = stored.iter().filter(|one| one.settings.webhook.is_some()).map(|one| Hooked {
            number: one.number,
            name: one.name.clone(),
            settings: Arc::new(one.settings.clone()),
        });
        hooked.collect()
    }

    /// The settings in force of the subscription of this number; `None` once it is gone.
    pub fn settings_in_force(&self, number: u64) -> Option<Arc<SubscriptionSettings>> {
        let live = self.shared.live_by_number(number)?;
        let settings = live.state.lock().settings.clone();
        Some(settings)
    }

    /// Opens the session that posts for a subscription: the one of this number, whatever has its name by now.
    ///
    /// # Errors
    /// What is not allowed, or that it is gone.
    pub fn open_webhook(
        &self,
        (number, name): (u64, &Arc<str>),
        host: &str,
        in_flight_max: u32,
    ) -> Result<(SessionIn, SessionOut), PushError> {
        if self.shared.shutdown.has_begun() {
            return Err(PushError::Stopping);
        }
        let gone = || PushError::UnknownSubscription { subscription: name.clone() };
        let live = self.shared.live_by_number(number).ok_or_else(gone)?;
        let open = Open {
            // Of its own, so that no client takes its place.
            id: format!("{WEBHOOK_ID_PREFIX}{}", uuid::Uuid::new_v4().simple()).into(),
            client_id: "webhook".into(),
            host: host.into(),
            in_flight_max,
            in_flight_bytes_max: u64::MAX,
            // What was under way when a session is lost comes back and has not failed.
            reports_started: true,
            resume: None,
        };
        self.open_on(&live, open, Format::Structured)
    }

    /// Waits until settings changed, or a subscription came or went, since it was called last. For one caller.
    pub async fn settings_changed(&self) {
        self.shared.resettled.notified().await;
    }

    /// Lets whoever posts for a subscription tell how its endpoint stands.
    pub fn tell_webhook(&self, number: u64, tell: impl FnOnce(&mut WebhookStanding)) {
        if let Some(live) = self.shared.live_by_number(number) {
            tell(&mut live.state.lock().webhook);
        }
    }

    /// How long requests took.
    pub fn webhook_durations(&self) -> &crate::metrics::Histogram {
        &self.shared.webhook_durations
    }

    /// Counts one more request that took so long.
    pub fn observe_webhook(&self, took: Duration) {
        self.shared.webhook_durations.observe_time(took);
    }
}
