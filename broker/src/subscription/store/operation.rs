//! Operations on subscriptions themselves: decided on the durable state, one at a time.

use std::sync::Arc;

use riverrun_proto::{TopicId, grpc::v1};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::StoreError;
use crate::subscription::{
    image::{Subscription, Subscriptions},
    record::Body,
    settings::SubscriptionSettings,
};

/// A subscription to make.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Its name.
    pub name: Arc<str>,
    /// Its topics.
    pub topic_ids: Vec<TopicId>,
    /// Its settings.
    pub settings: SubscriptionSettings,
    /// Where its partitions begin, by topic and from partition 0; others begin at offset 0.
    pub starts: Vec<(TopicId, Vec<u64>)>,
}

/// A change of a subscription; the default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionChange {
    /// Settings; absent ones stay.
    pub settings: v1::SubscriptionSettings,
    /// Topics to add; those it is on already are left alone. Delivery of them begins at offset 0.
    pub add_topics: Vec<TopicId>,
    /// Stop or continue delivery.
    pub paused: Option<bool>,
}

/// What became of an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The subscription as it is now, or was when it was deleted.
    pub subscription: Option<Arc<Subscription>>,
    /// False when nothing had to be changed.
    pub changed: bool,
}

/// An operation.
#[derive(Debug)]
pub(super) enum Operation {
    Create(Box<NewSubscription>),
    Alter { name: Arc<str>, change: Box<SubscriptionChange> },
    Delete { name: Arc<str> },
    Forget { topics: Vec<TopicId> },
}

/// One that waits for the writer.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) operation: Operation,
    pub(super) answer: oneshot::Sender<Result<Outcome, StoreError>>,
    /// Given back when it is answered.
    _room: OwnedSemaphorePermit,
}

/// What an operation comes to: the change to be stored, if any, and the answer once it is.
pub(super) type Planned = (Option<(u64, Body)>, Outcome);

impl Queued {
    pub(super) fn new(
        operation: Operation,
        room: OwnedSemaphorePermit,
    ) -> (Queued, oneshot::Receiver<Result<Outcome, StoreError>>) {
        let (sender, answer) = oneshot::channel();
        (Queued { operation, answer: sender, _room: room }, answer)
    }
}

impl Operation {
    /// Decides on the durable state.
    pub(super) fn plan(
        &self,
        state: &Subscriptions,
        (now_ms, subscriptions_max): (i64, usize),
    ) -> Result<Planned, StoreError> {
        match self {
            Operation::Create(new) => create(state, new, (now_ms, subscriptions_max)),
            Operation::Alter { name, change } => alter(find(state, name)?, change),
            Operation::Delete { name } => {
                let subscription = find(state, name)?;
                Ok((Some((subscription.number, Body::Deleted)), changed(subscription.clone())))
            }
            Operation::Forget { topics } => {
                let is_meant = |id: &TopicId| topics.contains(id);
                let on_topics = state.iter().any(|one| one.topic_ids.iter().any(is_meant));
                let cancelled = state.all_cancelled().any(|(key, _)| is_meant(&key.topic_id));
                let known = on_topics || cancelled;
                let body = known.then(|| (0, Body::TopicsForgotten(topics.clone())));
                Ok((body, Outcome { subscription: None, changed: known }))
            }
        }
    }
}

fn create(
    state: &Subscriptions,
    new: &NewSubscription,
    (now_ms, subscriptions_max): (i64, usize),
) -> Result<Planned, StoreError> {
    if let Some(there) = state.by_name(&new.name) {
        return Ok((None, Outcome { subscription: Some(there.clone()), changed: false }));
    }
    if state.count() >= subscriptions_max {
        return Err(StoreError::TooMany { max: subscriptions_max });
    }
    let mut topic_ids = Vec::new();
    add_new(&mut topic_ids, &new.topic_ids);
    let subscription = Subscription {
        number: state.next_number(),
        name: new.name.clone(),
        created_ms: now_ms,
        topic_ids,
        settings: new.settings.clone(),
        paused: false,
    };
    let starts = new.starts.iter().filter(|(id, _)| subscription.topic_ids.contains(id));
    let starts = starts.cloned().collect();
    let outcome = changed(Arc::new(subscription.clone()));
    Ok((Some((subscription.number, Body::Created { subscription, starts })), outcome))
}

fn alter(before: &Arc<Subscription>, change: &SubscriptionChange) -> Result<Planned, StoreError> {
    let mut after = Subscription::clone(before);
    after.settings = after.settings.overlaid(&change.settings)?;
    add_new(&mut after.topic_ids, &change.add_topics);
    after.paused = change.paused.unwrap_or(after.paused);
    if after == **before {
        return Ok((None, Outcome { subscription: Some(before.clone()), changed: false }));
    }
    let outcome = changed(Arc::new(after.clone()));
    Ok((Some((after.number, Body::Altered(after))), outcome))
}

fn add_new(to: &mut Vec<TopicId>, topics: &[TopicId]) {
    for id in topics {
        if !to.contains(id) {
            to.push(*id);
        }
    }
}

fn find<'a>(
    state: &'a Subscriptions,
    name: &Arc<str>,
) -> Result<&'a Arc<Subscription>, StoreError> {
    state.by_name(name).ok_or_else(|| StoreError::Unknown { name: name.clone() })
}

fn changed(subscription: Arc<Subscription>) -> Outcome {
    Outcome { subscription: Some(subscription), changed: true }
}
