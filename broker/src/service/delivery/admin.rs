//! Describes, lists, explains, alters, pauses and deletes subscriptions.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use riverrun_proto::grpc::v1;
use tokio::{sync::OwnedMutexGuard, task};

use super::{
    DeliveryService,
    create::{TOPICS_MAX, check_name},
    error::{Closing, PushError},
    heartbeat::oldest_of,
    live::{Live, State},
    session::Place,
    webhook::WebhookStanding,
};
use crate::{
    delivery::{Counts, LaneKey, Order, Reason, SessionView},
    partition::Partition,
    subscription::{Subscription, store::SubscriptionChange},
};

/// Partitions whose oldest record is looked at at once.
const LOOKUPS_AT_ONCE: usize = 16;
/// Bytes of a key that are shown.
const KEY_BYTES_SHOWN: usize = 256;

/// A subscription in short.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Its name.
    pub name: Arc<str>,
    /// Names of its topics.
    pub topics: Vec<Arc<str>>,
    /// Its order.
    pub order: Order,
    /// Open sessions.
    pub sessions: usize,
    /// Records not settled.
    pub lag: u64,
    /// Delivery is stopped.
    pub paused: bool,
}

/// A subscription as it stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// As it is stored.
    pub stored: Arc<Subscription>,
    /// Names of its topics.
    pub topics: Vec<Arc<str>>,
    /// One per partition.
    pub partitions: Vec<PartitionDescription>,
    /// Its sessions.
    pub sessions: Vec<SessionView>,
    /// How its webhook stands, when it has one.
    pub webhook: Option<WebhookStanding>,
}

/// One partition of a subscription.
#[derive(Clone, Debug)]
pub struct PartitionDescription {
    /// Which.
    pub place: Place,
    /// What stands where.
    pub counts: Counts,
    /// Age of the oldest record that is not settled, in milliseconds.
    pub oldest_unsettled_ms: u64,
}

/// Why nothing is delivered of a partition.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Which.
    pub place: Place,
    /// Why.
    pub reason: Reason,
    /// Key of the record that holds things up, as far as it is shown.
    pub key: Option<bytes::Bytes>,
}

/// A subscription that nobody else changes meanwhile.
struct Turn {
    live: Arc<Live>,
    _alone: OwnedMutexGuard<()>,
}

/// The reason, where delivery cannot know it: nothing is left to deliver of a partition that stopped, and nothing more comes.
fn with_fault(reason: Reason, partition: Option<&Partition>) -> Reason {
    match (&reason, partition.and_then(Partition::failure)) {
        (Reason::Nothing | Reason::NotVisible, Some(failed)) => {
            Reason::PartitionError { error: failed.to_string().into(), until_ms: None }
        }
        (_, _) => reason,
    }
}

impl DeliveryService {
    /// The live subscription of that name.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Live>, PushError> {
        self.shared.find(&check_name(name)?)
    }

    /// Every subscription, by name.
    pub fn list(&self) -> Vec<Listing> {
        let listing = |live: &Arc<Live>| {
            live.look_at_ends();
            live.look(|state| Listing {
                name: live.name.clone(),
                topics: state.topic_ids.keys().cloned().collect(),
                order: state.settings.delivery.order,
                sessions: state.open_sessions(),
                lag: state.lag(),
                paused: state.paused,
            })
        };
        self.shared.all_live().iter().map(listing).collect()
    }

    /// A subscription as it stands.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn describe(&self, name: &str) -> Result<Description, PushError> {
        let live = self.find(name)?;
        live.look_at_ends();
        let unknown = || PushError::UnknownSubscription { subscription: live.name.clone() };
        let stored = self.shared.store.subscription(&live.name).ok_or_else(unknown)?;
        let (topics, lanes, sessions, webhook) = live.look(|state| {
            let topics = state.topic_ids.keys().cloned().collect();
            (topics, state.counted(), state.delivery.sessions(), state.webhook.clone())
        });
        let webhook = stored.settings.webhook.is_some().then_some(webhook);
        let now_ms = self.shared.clock.wall_ms();
        let partitions = stream::iter(lanes).map(|(place, counts, partition)| async move {
            let oldest = match partition.filter(|_| counts.lag > 0) {
                Some(partition) => oldest_of(partition, counts.floor).await,
                None => None,
            };
            let age = oldest.map_or(0, |oldest| u64::try_from(now_ms - oldest).unwrap_or(0));
            PartitionDescription { place, counts, oldest_unsettled_ms: age }
        });
        let partitions = partitions.buffered(LOOKUPS_AT_ONCE).collect().await;
        Ok(Description { stored, topics, partitions, sessions, webhook })
    }

    /// Why nothing is delivered now, by partition.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn explain(&self, name: &str) -> Result<Vec<Explanation>, PushError> {
        let live = self.find(name)?;
        live.look_at_ends();
        let now = self.shared.now();
        let reasons: Vec<(LaneKey, Reason)> = live.look(|state| {
            let reason = |lane: &LaneKey| {
                let reason = state.delivery.explain(lane, now)?;
                Some((*lane, state.webhook.reason(reason)))
            };
            state.sources.keys().filter_map(reason).collect()
        });
        let mut explained = Vec::with_capacity(reasons.len());
        for (lane, reason) in reasons {
            let Some((place, partition)) = live.source(&lane) else { continue };
            let reason = with_fault(reason, partition.as_deref());
            let key = match (&reason, partition) {
                (Reason::KeyBlocked { offset, .. }, Some(partition)) => {
                    self.key_at(&partition, *offset).await
                }
                (_, _) => None,
            };
            explained.push(Explanation { place, reason, key });
        }
        Ok(explained)
    }

    async fn key_at(&self, partition: &Arc<Partition>, offset: u64) -> Option<bytes::Bytes> {
        let record = super::peek::record_at(&self.shared.cache, partition, offset).await.ok()??;
        let key = record.record.key?;
        Some(key.slice(..key.len().min(KEY_BYTES_SHOWN)))
    }

    /// Changes settings, adds topics. Once begun it goes on when the caller goes away.
    ///
    /// # Errors
    /// What is not allowed; nothing changed then.
    pub async fn alter(
        &self,
        name: &str,
        settings: v1::SubscriptionSettings,
        add_topics: Vec<String>,
    ) -> Result<(), PushError> {
        let turn = self.turn(name).await?;
        let live = &turn.live;
        let mut topics = live.look(|state| -> Vec<String> {
            state.topic_ids.keys().map(|name| name.to_string()).collect()
        });
        topics.extend_from_slice(&add_topics);
        let add_topics = match add_topics.as_slice() {
            [] => Vec::new(),
            names => self.shared.find_topics(names)?.iter().map(|topic| topic.id).collect(),
        };
        let known = live.look(|state| state.topic_ids.len());
        if known + add_topics.len() > TOPICS_MAX {
            let expected = format!("at most {TOPICS_MAX} topics in all");
            return Err(PushError::field("add_topics", expected, known + add_topics.len()));
        }
        let next = live.look(|state| state.settings.overlaid(&settings))?;
        next.check_dead_letter_topic_of(&live.name, &topics)?;
        let change = SubscriptionChange { settings, add_topics, paused: None };
        self.change(turn, change, next.delivery.order).await
    }

    /// Stops delivery to all sessions, or continues it. Answers when that is durable.
    ///
    /// # Errors
    /// When it does not exist or cannot be stored.
    pub async fn pause(&self, name: &str, paused: bool) -> Result<(), PushError> {
        let turn = self.turn(name).await?;
        let change = SubscriptionChange { paused: Some(paused), ..SubscriptionChange::default() };
        let order = turn.live.look(|state| state.settings.delivery.order);
        self.change(turn, change, order).await
    }

    /// Waits until nobody else changes the subscription.
    async fn turn(&self, name: &str) -> Result<Turn, PushError> {
        let live = self.find(name)?;
        let alone = live.changing.clone().lock_owned().await;
        if live.look(|state| state.gone) {
            return Err(PushError::UnknownSubscription { subscription: live.name.clone() });
        }
        Ok(Turn { live, _alone: alone })
    }

    async fn change(
        &self,
        turn: Turn,
        change: SubscriptionChange,
        order: Order,
    ) -> Result<(), PushError> {
        let reorders = turn.live.close_to_reorder(order)?;
        let shared = self.shared.clone();
        let changed = task::spawn(async move {
            // All of it, so that the turn lasts as long as this task.
            let Turn { live, _alone } = turn;
            let changed = shared.store.alter(&live.name, change).await;
            let result = match changed {
                Ok(outcome) => {
                    if let Some(stored) = outcome.subscription {
                        live.take_in(&stored);
                    }
                    Ok(())
                }
                Err(error) => Err(PushError::from(error)),
            };
            if reorders {
                live.event(|state, _| state.closed = None);
            }
            result
        });
        changed.await.unwrap_or(Err(PushError::Interrupted))
    }

    /// Deletes a subscription and what it remembers. With `force` also while sessions are open.
    ///
    /// # Errors
    /// When it does not exist, is in use, or the deletion cannot be stored.
    pub async fn delete(&self, name: &str, force: bool) -> Result<(), PushError> {
        let turn = self.turn(name).await?;
        let live = &turn.live;
        live.event(|state, _| {
            let sessions = state.open_sessions();
            if sessions > 0 && !force {
                return Err(PushError::InUse { subscription: live.name.clone(), sessions });
            }
            state.closed = Some(Closing::Deleted);
            Ok(())
        })?;
        let shared = self.shared.clone();
        let deleted = task::spawn(async move {
            // All of it, so that the turn lasts as long as this task.
            let Turn { live, _alone } = turn;
            if let Err(error) = shared.store.delete(&live.name).await {
                live.event(|state, _| state.closed = None);
                return Err(PushError::from(error));
            }
            shared.bury(&live);
            live.event(|state, _| state.gone = true);
            live.end_all(&PushError::Deleted { subscription: live.name.clone() }, true);
            live.scans.notify_one();
            Ok(())
        });
        deleted.await.unwrap_or(Err(PushError::Interrupted))
    }
}

impl Live {
    /// Lets nobody come while the order is changed; true when it is to be changed.
    fn close_to_reorder(&self, order: Order) -> Result<bool, PushError> {
        self.event(|state, _| {
            if state.settings.delivery.order == order {
                return Ok(false);
            }
            let sessions = state.open_sessions();
            if sessions > 0 {
                return Err(PushError::InUse { subscription: self.name.clone(), sessions });
            }
            state.closed = Some(Closing::Reordered);
            Ok(true)
        })
    }

    /// Takes in what was stored.
    fn take_in(&self, stored: &Subscription) {
        self.event(|state, now| {
            state.settings = Arc::new(stored.settings.clone());
            let delivery = Arc::new(stored.settings.delivery.clone());
            if let Err(error) = state.delivery.set_settings(delivery, now) {
                tracing::warn!(subscription = %self.name, %error, "settings count after a restart");
            }
            state.paused = stored.paused;
            state.delivery.set_paused(stored.paused, now);
        });
        self.follow();
        self.shared.resettled.notify_one();
    }
}

impl State {
    /// Sessions that are there, or may come back.
    pub(super) fn open_sessions(&self) -> usize {
        self.delivery.session_count()
    }

    pub(super) fn counted(&self) -> Vec<(Place, Counts, Option<Arc<crate::partition::Partition>>)> {
        let counted = |(lane, source): (&LaneKey, &super::live::Source)| {
            let place = Place { topic: source.topic.clone(), partition: lane.partition };
            Some((place, self.delivery.counts(lane)?, source.partition.clone()))
        };
        self.sources.iter().filter_map(counted).collect()
    }
}
