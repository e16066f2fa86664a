//! One webhook: opens a session of its subscription again and again, as long as there is a webhook, and keeps what is known of
//! its endpoint between them.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::stream;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    WebhookDoor,
    breaker::Breaker,
    places::Places,
    postponements::Postponements,
    shift::{End, Shift, limit},
};
use crate::{
    service::delivery::{
        PushError,
        session::{SessionIn, SessionOut},
        webhook::WebhookState,
    },
    subscription::SubscriptionSettings,
};

/// A session that could not be opened, or was ended, is opened again after this.
const RETRY: Duration = Duration::from_secs(1);

/// One webhook.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) door: WebhookDoor,
    pub(super) number: u64,
    pub(super) name: Arc<str>,
    /// `None` once the webhook is taken away.
    pub(super) settings: watch::Receiver<Option<Arc<SubscriptionSettings>>>,
    pub(super) breaker: Breaker,
    /// The endpoint asked to be left alone until then.
    pub(super) postponed: Option<Instant>,
    pub(super) postponements: Postponements,
    /// The subscription of an endpoint that is gone is being paused; false when that failed. The endpoint is left alone meanwhile.
    pub(super) pausing: JoinSet<bool>,
    pub(super) places: Places,
    /// That there is no session was said.
    is_warned: bool,
}

impl Endpoint {
    pub(super) fn new(
        door: WebhookDoor,
        (number, name): (u64, Arc<str>),
        settings: watch::Receiver<Option<Arc<SubscriptionSettings>>>,
    ) -> Endpoint {
        Endpoint {
            places: door.places(),
            door,
            number,
            name,
            settings,
            breaker: Breaker::default(),
            postponed: None,
            postponements: Postponements::default(),
            pausing: JoinSet::new(),
            is_warned: false,
        }
    }

    /// Works until the webhook is taken away or the broker stops.
    pub(super) async fn run(mut self) {
        let shutdown = self.door.shutdown.clone();
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let Some(settings) = settings else { break };
            if self.work(settings).await == End::Over {
                break;
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                changed = self.settings.changed() => if changed.is_err() { break },
                () = shutdown.begun() => break,
            }
        }
        self.tell(WebhookState::Idle);
    }

    /// Opens a session and works on it to its end.
    async fn work(&mut self, settings: Arc<SubscriptionSettings>) -> End {
        let (input, output) = match self.open(&settings) {
            Ok(halves) => halves,
            Err(end) => return end,
        };
        let told = stream::unfold(output, |mut output| async {
            let told = output.next().await?;
            let taken = output.taken();
            Some(((told, taken), output))
        });
        let mut changes = self.settings.clone();
        let Some(shift) = Shift::new(self, input, settings) else { return End::Again };
        shift.work(pin!(told), &mut changes).await
    }

    fn open(&mut self, settings: &SubscriptionSettings) -> Result<(SessionIn, SessionOut), End> {
        let host = settings.webhook.as_ref().map(|webhook| host(&webhook.url)).unwrap_or_default();
        let opened = self.door.services.delivery.open_webhook(
            (self.number, &self.name),
            &host,
            limit(settings),
        );
        match opened {
            Ok(halves) => {
                self.is_warned = false;
                Ok(halves)
            }
            Err(PushError::Stopping) => Err(End::Over),
            // It is gone; that its webhook is, is told as well.
            Err(PushError::UnknownSubscription { .. } | PushError::Deleted { .. }) => {
                Err(End::Again)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(subscription = %self.name, %error, "webhook: no session; tried again every second");
                }
                Err(End::Again)
            }
        }
    }

    /// Tells how the endpoint stands.
    pub(super) fn tell(&self, state: WebhookState) {
        let failures = self.breaker.failures();
        self.door.services.delivery.tell_webhook(self.number, |standing| {
            standing.state = state;
            standing.failures_in_row = failures;
        });
    }
}

/// Host and port of an address.
fn host(url: &str) -> String {
    let uri = url.parse::<http::Uri>().ok();
    uri.and_then(|uri| Some(uri.authority()?.to_string())).unwrap_or_default()
}
