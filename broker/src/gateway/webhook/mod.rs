//! Webhooks: the broker posts the records of a subscription to an endpoint.
//!
//! ```text
//!  settings of subscriptions ──▶ one endpoint each ──session──▶ delivery (who gets what, order, retries, dead letters)
//!                                       │
//!                                       ├─ post: place, head, signature, connect (guard) ──▶ the receiver
//!                                       └─ answer ──▶ ack, nack, release; breaker
//! ```
//!
//! To delivery an endpoint is a consumer like any other: it opens a session, holds as many records as its `concurrency` and its
//! [`window`] allow, and settles each by the answer's status. What may be posted to stands in [`guard`], what an answer means in
//! [`answer`], when an endpoint is left alone in [`breaker`], what it may take of what all share in [`places`] and, of the places that are not its own, [`common`].
//!
//! Invariants: nothing is kept here that a restart needs. Requests, connections and bytes are bounded, over all endpoints by what
//! each has of its own and what they have in common. A connection is gone with the request that needs it no more, whatever its
//! peer does. No redirect is followed, no proxy asked, and of an answer nothing but status and `Retry-After` is used.
//!
//! hyper's types stay in this folder and in that of the web door.

mod answer;
mod breaker;
mod common;
mod connect;
mod connection;
mod endpoint;
mod guard;
mod head;
mod names;
mod places;
mod pool;
mod post;
mod postponements;
mod shift;
mod signature;
mod standing;
mod window;

use std::{collections::HashMap, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use self::{common::Common, endpoint::Endpoint, places::Places};
use crate::{
    clock::Clock,
    config::{Config, ConfigError, WebhooksConfig},
    quota::{Quota, Room},
    service::{Services, delivery::webhook::Hooked},
    shutdown::ShutdownWatch,
    subscription::SubscriptionSettings,
};

/// Names looked up at once. Each takes a thread for as long as it lasts.
pub(crate) const LOOKUPS_MAX: usize = 8;
/// A task that broke is started anew after this.
const PAUSE: Duration = Duration::from_secs(1);

/// What posting needs to know.
#[derive(Clone, Debug)]
pub(crate) struct WebhookDoor {
    services: Services,
    config: Arc<Config>,
    clock: Clock,
    shutdown: ShutdownWatch,
    tls: Arc<ClientConfig>,
    lookups: Arc<Semaphore>,
    /// Places for requests that all endpoints have in common.
    requests: Arc<Common>,
    /// Places for connections that are kept for the next request.
    kept: Arc<Semaphore>,
}

/// A webhook that is worked on. There is one task for a subscription at a time: one whose webhook is taken away and set again
/// goes on with it.
#[derive(Debug)]
struct Running {
    /// Its settings; `None` once it is taken away.
    settings: watch::Sender<Option<Arc<SubscriptionSettings>>>,
    task: AbortHandle,
}

impl WebhookDoor {
    /// A door that trusts what `tls` says.
    pub(crate) fn new(
        services: Services,
        (config, tls): (Arc<Config>, ClientConfig),
        shutdown: ShutdownWatch,
    ) -> WebhookDoor {
        WebhookDoor {
            services,
            requests: Common::new(config.webhooks.requests_max),
            kept: Arc::new(Semaphore::new(config.webhooks.requests_max)),
            config,
            clock: Clock::real(),
            shutdown,
            tls: Arc::new(tls),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Posts until the end is announced and what is under way has had its moment.
    pub(crate) async fn serve(self) {
        if !self.config.webhooks.enabled {
            return;
        }
        let mut running = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            self.follow(&mut running, &mut tasks);
            tokio::select! {
                () = self.services.delivery.settings_changed() => {}
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a webhook broke");
                        sleep(PAUSE).await;
                    }
                }
                () = self.shutdown.begun() => break,
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Brings what runs in line with what is wanted.
    fn follow(&self, running: &mut HashMap<u64, Running>, tasks: &mut JoinSet<()>) {
        let hooked = self.services.delivery.hooked();
        let mut wanted: HashMap<u64, Hooked> =
            hooked.into_iter().map(|one| (one.number, one)).collect();
        running.retain(|number, one| {
            if one.task.is_finished() {
                return false;
            }
            let settings = wanted.remove(number).map(|hooked| hooked.settings);
            one.settings.send_if_modified(|known| {
                let is_new = *known != settings;
                *known = settings;
                is_new
            });
            true
        });
        for (number, Hooked { name, settings, .. }) in wanted {
            let (sender, settings) = watch::channel(Some(settings));
            let endpoint = Endpoint::new(self.clone(), (number, name), settings);
            let task = tasks.spawn(endpoint.run());
            running.insert(number, Running { settings: sender, task });
        }
    }

    /// What one endpoint may take: memory as a connection, and places for requests.
    fn places(&self) -> Places {
        let limits = &self.config.limits;
        let quota = |name, limit| Quota::new(name, limit, limits.quota_wait);
        let own = quota("limits.connection_bytes", limits.connection_bytes);
        let limit =
            quota("limits.read_bytes_per_connection_max", limits.read_bytes_per_connection_max);
        let room = Room::of_connection(own, limit, self.services.fetch.reading().clone());
        Places::new(self.requests.clone(), room)
    }
}

/// How connections are made sure of: by the authorities that Mozilla trusts, and those of the settings.
///
/// # Errors
/// When a file of certificates is not one.
pub(crate) fn tls(config: &WebhooksConfig) -> Result<ClientConfig, ConfigError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let (_, unusable) = roots.add_parsable_certificates(config.authorities()?);
    if unusable > 0 {
        tracing::warn!(unusable, "certificates of `webhooks.ca_files` that cannot be used");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
