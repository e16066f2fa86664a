//! Creating a subscription: topics become ids, the start becomes a floor in every partition.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use riverrun_proto::TopicId;

use super::{DeliveryService, Shared, error::PushError, live::Live};
use crate::{
    delivery::LaneKey,
    partition::Partition,
    subscription::{
        Subscription, SubscriptionSettings,
        store::{NewSubscription, Outcome},
    },
    topic::{Topic, name::is_plain_name},
};

/// Most topics of a subscription.
pub const TOPICS_MAX: usize = 100;
/// Partitions whose beginning is looked for at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// Where a new subscription begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first offset kept.
    #[default]
    Earliest,
    /// At the first offset that is not visible.
    Latest,
    /// At the first record at or after this time.
    TimestampMs(i64),
    /// At this offset, moved into what is kept.
    Offset(u64),
    /// At the stored offsets of this consumer group.
    Group(String),
}

/// What is to be created.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Topics.
    pub topics: Vec<String>,
    /// Where it begins.
    pub start: Start,
    /// Settings.
    pub settings: SubscriptionSettings,
}

impl DeliveryService {
    /// Creates a subscription; true when it is new. One of that name, those topics and settings counts as created.
    ///
    /// # Errors
    /// When it is not allowed, a topic does not exist, or another one of that name exists.
    pub async fn create(&self, name: &str, spec: Spec) -> Result<bool, PushError> {
        let name = check_name(name)?;
        let topics = self.shared.find_topics(&spec.topics)?;
        spec.settings.check_dead_letter_topic_of(&name, &spec.topics)?;
        let (subscription, is_new) = self.shared.make(&name, &spec, &topics).await?;
        let mut wanted: Vec<TopicId> = topics.iter().map(|topic| topic.id).collect();
        let mut found = subscription.topic_ids.clone();
        wanted.sort_unstable();
        wanted.dedup();
        found.sort_unstable();
        if wanted != found || subscription.settings != spec.settings {
            return Err(PushError::Exists { subscription: name });
        }
        Ok(is_new)
    }

    /// The subscription of that name, made from `create` when it does not exist.
    pub(super) async fn find_or_create(
        &self,
        name: &str,
        create: Option<Spec>,
    ) -> Result<Arc<Live>, PushError> {
        let name = check_name(name)?;
        match (self.shared.find(&name), create) {
            (Err(PushError::UnknownSubscription { .. }), Some(spec)) => {
                let topics = self.shared.find_topics(&spec.topics)?;
                spec.settings.check_dead_letter_topic_of(&name, &spec.topics)?;
                let (subscription, _) = self.shared.make(&name, &spec, &topics).await?;
                Ok(self.shared.revive(&subscription))
            }
            (found, _) => found,
        }
    }
}

impl Shared {
    /// The topics of these names.
    pub(super) fn find_topics(&self, names: &[String]) -> Result<Vec<Arc<Topic>>, PushError> {
        if !(1..=TOPICS_MAX).contains(&names.len()) {
            let expected = format!("a list of 1 to {TOPICS_MAX}");
            return Err(PushError::field("topics", expected, names.len()));
        }
        names.iter().map(|name| self.registry.topic(name).map_err(PushError::from)).collect()
    }

    /// Stores it and brings it to life, or finds the one that is there.
    async fn make(
        self: &Arc<Self>,
        name: &Arc<str>,
        spec: &Spec,
        topics: &[Arc<Topic>],
    ) -> Result<(Arc<Subscription>, bool), PushError> {
        if let Some(there) = self.store.subscription(name) {
            return Ok((there, false));
        }
        let mut starts = Vec::with_capacity(topics.len());
        self.check_unused(&spec.start)?;
        for topic in topics {
            starts.push((topic.id, self.floors(topic, &spec.start).await?));
        }
        // Who came meanwhile may have committed what was read before.
        self.check_unused(&spec.start)?;
        let new = NewSubscription {
            name: name.clone(),
            topic_ids: topics.iter().map(|topic| topic.id).collect(),
            settings: spec.settings.clone(),
            starts,
        };
        let Outcome { subscription, changed } = self.store.create(new).await?;
        let subscription = subscription.ok_or(PushError::Interrupted)?;
        self.revive(&subscription);
        Ok((subscription, changed))
    }

    /// Refuses to begin where a group stands that has members: what they commit from now on would be handed out once more.
    pub(super) fn check_unused(&self, start: &Start) -> Result<(), PushError> {
        let Start::Group(group) = start else { return Ok(()) };
        let group: Arc<str> = group.as_str().into();
        match self.groups.look(&group, |state| state.members().len()) {
            Ok(members @ 1..) => Err(PushError::GroupNotEmpty { group, members }),
            Ok(0) | Err(_) => Ok(()),
        }
    }

    /// Where each partition of a topic begins.
    async fn floors(&self, topic: &Arc<Topic>, start: &Start) -> Result<Vec<u64>, PushError> {
        let floors = stream::iter(0..topic.partition_count()).map(|number| async move {
            let partition = topic.partition(number)?;
            self.floor(&partition, start).await
        });
        floors.buffered(LOOKUPS_AT_ONCE).try_collect().await
    }

    pub(super) async fn floor(
        &self,
        partition: &Arc<Partition>,
        start: &Start,
    ) -> Result<u64, PushError> {
        let visible = partition.visible();
        let (first, end) = (visible.log_start.0, visible.high_watermark.0);
        Ok(match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::TimestampMs(time_ms) => partition.find_by_time(*time_ms).await?.offset.0,
            Start::Offset(offset) => (*offset).clamp(first, end),
            Start::Group(group) => {
                let key = LaneKey::new(partition.topic_id(), partition.partition_id().0);
                let group: Arc<str> = group.as_str().into();
                let stored = self.groups.store().read(|groups| {
                    let image = groups.get(&group)?;
                    Some(image.offsets.get(&key).map(|stored| stored.offset.0))
                });
                let stored = stored.ok_or(PushError::UnknownGroup { group })?;
                stored.map_or(first, |offset| offset.clamp(first, end))
            }
        })
    }
}

/// Checks the name of a subscription.
pub(super) fn check_name(name: &str) -> Result<Arc<str>, PushError> {
    if is_plain_name(name) {
        return Ok(name.into());
    }
    let found: String = name.chars().take(300).flat_map(char::escape_debug).collect();
    Err(PushError::field("subscription", "1 to 249 characters of [A-Za-z0-9._-]", found))
}
