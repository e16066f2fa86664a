//! What joins delivery to the rest of the house: reading the log for it, frames for its sessions, its timers, its
//! dead letters.
//!
//! - [`scan`], [`scan_cache`]: finding records, their keys and times, once for all subscriptions.
//! - [`frame`]: from offsets handed out to bytes for a consumer.
//! - `live`: one subscription behind its lock; `dispatcher`: its task; `deadlines`: the timers of all.
//! - [`session`], `mailbox`, [`settle`]: push sessions. [`receive`]: the unary twin.
//! - [`create`], [`admin`], [`peek`], [`seek`]: operating subscriptions. [`measure`]: their numbers.
//! - [`webhook`]: which subscriptions the broker posts itself, and how their endpoints stand.
//! - `bury`, [`redrive`]: dead letters, there and back. [`cancel`]: scheduled records.
//!
//! Lock order: a turn to change a subscription, then the map of live subscriptions, then one subscription, then the store's queue or the deadlines.

pub mod admin;
mod bury;
pub mod cancel;
pub mod create;
mod deadlines;
mod dispatcher;
pub mod error;
pub mod frame;
mod heartbeat;
mod letter;
mod live;
mod mailbox;
pub mod measure;
pub mod open;
pub mod peek;
pub mod receive;
pub mod redrive;
pub mod scan;
pub mod scan_cache;
pub mod seek;
pub mod session;
pub mod settle;
mod topics;
pub mod webhook;

#[cfg(test)]
mod scan_tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::RwLock;
use tokio::sync::Notify;

use self::{
    deadlines::Deadlines,
    live::{Live, State},
    scan_cache::ScanCache,
};
pub use self::{
    error::PushError,
    mailbox::{SettleOutcome, Settled},
};
use crate::{
    clock::Clock,
    config::SubscriptionsConfig,
    delivery::{Delivery, Now},
    group::coordinator::Coordinator,
    metrics::{Histogram, histogram::SECONDS},
    quota::Quota,
    shutdown::ShutdownWatch,
    subscription::{Subscription, SubscriptionStore, disk_log::SubscriptionsLog},
    topic::Registry,
};

/// Deadlines are looked at no more often than this.
const TICK_MIN: Duration = Duration::from_millis(1);
/// Longest wait of a start for what it found out to be stored. Only a disk that is full, broken or very slow takes so long.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything about push subscriptions; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeliveryService {
    shared: Arc<Shared>,
}

/// What all live subscriptions share.
#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    clock: Clock,
    store: SubscriptionStore,
    /// The log below the store, to be closed with it.
    log: Arc<SubscriptionsLog>,
    cache: ScanCache,
    /// Stored offsets of groups, where a subscription may begin.
    groups: Coordinator,
    deadlines: Deadlines,
    sessions: Quota,
    shutdown: ShutdownWatch,
    /// What the start handed in to the store.
    begun: OnceLock<u64>,
    /// Held over a redrive.
    redriving: Arc<tokio::sync::Mutex<()>>,
    /// Settings changed, or a subscription came or went.
    resettled: Notify,
    /// Requests of webhooks.
    webhook_durations: Histogram,
    live: RwLock<Lives>,
}

/// Live subscriptions by name and number.
#[derive(Debug, Default)]
struct Lives {
    by_name: BTreeMap<Arc<str>, Arc<Live>>,
    by_number: HashMap<u64, Arc<Live>>,
}

impl Shared {
    /// Both clocks.
    fn now(&self) -> Now {
        Now { elapsed: self.clock.elapsed(), wall_ms: self.clock.wall_ms() }
    }
}

impl DeliveryService {
    /// The service over what is stored. The future that comes with it drives `writer` and does all work in the background;
    /// it must run for anything to be stored, and ends after [`DeliveryService::close`].
    pub fn new(
        (store, log, writer): OpenedStore<impl Future<Output = ()> + Send + 'static>,
        registry: Arc<Registry>,
        groups: Coordinator,
        Surroundings { clock, config, reading, shutdown, quota_wait }: Surroundings<'_>,
    ) -> (DeliveryService, impl Future<Output = ()> + Send + 'static) {
        let sessions_max = config.sessions_max as usize;
        let shared = Shared {
            registry,
            clock,
            store,
            log,
            cache: ScanCache::new(config.cache_bytes_max, reading),
            groups,
            deadlines: Deadlines::default(),
            sessions: Quota::new("subscriptions.sessions_max", sessions_max, quota_wait),
            shutdown,
            begun: OnceLock::new(),
            redriving: Arc::default(),
            resettled: Notify::new(),
            webhook_durations: Histogram::new(&SECONDS),
            live: RwLock::default(),
        };
        let service = DeliveryService { shared: Arc::new(shared) };
        // Before anything is appended: what is remembered is compared with where the logs end.
        for subscription in service.shared.store.subscriptions() {
            if !redrive::is_internal(&subscription.name) {
                service.shared.revive(&subscription);
            }
        }
        service.shared.begun.get_or_init(|| service.shared.store.handed_in());
        let background = service.clone();
        let background = async move {
            // What was found to be a dead letter above had nobody to write it yet.
            background.shared.all_live().iter().for_each(|live| live.start_burying());
            tokio::select! {
                () = writer => {}
                () = background.work() => {}
            }
            background.fail_all();
        };
        (service, background)
    }

    /// Waits until what the start found out is stored: where delivery goes on after a power loss that took the end of a log. Nothing
    /// may be appended before, or the next start would take new records for settled ones. Ends too when nothing can be stored.
    pub async fn begun(&self) {
        let sequence = self.shared.begun.get().copied().unwrap_or_default();
        let settled =
            tokio::time::timeout(BEGIN_TIMEOUT, self.shared.store.settled(sequence)).await;
        if !matches!(settled, Ok(Ok(()))) {
            tracing::warn!("where delivery goes on could not be stored yet");
        }
    }

    /// Takes nothing more, writes what waits, and closes the log.
    pub async fn close(&self) {
        self.shared.log.close(&self.shared.store).await;
    }

    /// Watches all deadlines and the topics. Does not end.
    async fn work(&self) {
        tokio::join!(self.watch_deadlines(), self.follow_topics());
    }

    async fn watch_deadlines(&self) {
        let shared = &self.shared;
        loop {
            let first = shared.deadlines.first();
            let wait = first.map(|first| first.saturating_sub(shared.clock.elapsed()));
            let sleep = tokio::time::sleep(wait.unwrap_or(Duration::MAX).max(TICK_MIN));
            tokio::select! {
                () = sleep => {}
                () = shared.deadlines.closer() => continue,
            }
            for number in shared.deadlines.due(shared.clock.elapsed()) {
                if let Some(live) = shared.live_by_number(number) {
                    live.tick();
                }
            }
        }
    }

    /// Nothing can be stored any more: tells every subscription, unless the broker stops.
    fn fail_all(&self) {
        if self.shared.shutdown.has_begun() {
            return;
        }
        for live in self.shared.all_live() {
            live.fail();
        }
    }
}

impl Shared {
    fn live_by_name(&self, name: &str) -> Option<Arc<Live>> {
        self.live.read().by_name.get(name).cloned()
    }

    fn live_by_number(&self, number: u64) -> Option<Arc<Live>> {
        self.live.read().by_number.get(&number).cloned()
    }

    /// Every live subscription, by name.
    fn all_live(&self) -> Vec<Arc<Live>> {
        self.live.read().by_name.values().cloned().collect()
    }

    /// The subscription of that name, brought to life when only the store knows it.
    fn find(self: &Arc<Self>, name: &str) -> Result<Arc<Live>, PushError> {
        if let Some(live) = self.live_by_name(name) {
            return Ok(live);
        }
        let stored = self.store.subscription(name);
        let unknown = || PushError::UnknownSubscription { subscription: name.into() };
        Ok(self.revive(&stored.ok_or_else(unknown)?))
    }

    /// Brings a stored subscription to life, unless it lives.
    fn revive(self: &Arc<Self>, stored: &Arc<Subscription>) -> Arc<Live> {
        let mut lives = self.live.write();
        if let Some(live) = lives.by_number.get(&stored.number) {
            return live.clone();
        }
        let settings = Arc::new(stored.settings.clone());
        let first_epoch = u64::try_from(self.clock.wall_ms()).unwrap_or(1);
        let mut delivery = Delivery::new(Arc::new(settings.delivery.clone()), first_epoch);
        delivery.set_paused(stored.paused, self.now());
        let state = State::new(delivery, settings, stored.paused);
        let live = Live::new((stored.name.clone(), stored.number), self.clone(), state);
        lives.by_name.insert(stored.name.clone(), live.clone());
        lives.by_number.insert(stored.number, live.clone());
        drop(lives);
        live.follow();
        self.resettled.notify_one();
        live
    }

    /// Forgets a deleted subscription.
    fn bury(&self, live: &Live) {
        let mut lives = self.live.write();
        lives.by_number.remove(&live.number);
        if lives.by_name.get(&live.name).is_some_and(|known| known.number == live.number) {
            lives.by_name.remove(&live.name);
        }
        drop(lives);
        self.resettled.notify_one();
    }
}

/// What the service stands on.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Time.
    pub clock: Clock,
    /// Bounds.
    pub config: &'a SubscriptionsConfig,
    /// Bytes being read, over all readers of the broker.
    pub reading: Quota,
    /// Hears of the end.
    pub shutdown: ShutdownWatch,
    /// Longest wait for a share of a bound.
    pub quota_wait: Duration,
}

/// What is stored of subscriptions: the store, the log below it, and its writer.
pub type OpenedStore<Writer> = (SubscriptionStore, Arc<SubscriptionsLog>, Writer);
