//! Looks at the rooms.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use riverrun_proto::Offset;
use tokio::task::yield_now;

use super::MetricsService;
use crate::{
    partition::{Partition, PartitionFacts},
    service::{
        delivery::measure::Measured,
        group_admin::{Lag, Standing},
    },
    topic::live::{Slot, Topic},
};

/// Ages that are looked up for groups, and as many for subscriptions. Each costs some tens of microseconds when
/// the index is in memory.
const LOOKUPS_MAX: usize = 5_000;
/// Ages that are looked up at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// Everything at about one moment.
pub(super) struct Seen {
    pub(super) topics: Vec<TopicSeen>,
    pub(super) groups: Vec<GroupSeen>,
    pub(super) subscriptions: Vec<SubscriptionSeen>,
    /// Ages that were not looked up.
    pub(super) skipped: usize,
}

/// One topic.
pub(super) struct TopicSeen {
    pub(super) topic: Arc<Topic>,
    pub(super) partitions: Vec<PartitionSeen>,
}

/// One partition.
pub(super) struct PartitionSeen {
    pub(super) number: u32,
    pub(super) failed: bool,
    /// Absent when it could not be opened.
    pub(super) open: Option<(Arc<Partition>, PartitionFacts)>,
}

/// One group.
pub(super) struct GroupSeen {
    pub(super) group: Arc<str>,
    pub(super) members: usize,
    /// Partitions with a stored offset, by name.
    pub(super) partitions: Vec<GroupPartitionSeen>,
}

/// One partition as a group sees it.
pub(super) struct GroupPartitionSeen {
    pub(super) topic: Arc<str>,
    pub(super) number: u32,
    pub(super) committed: Option<Offset>,
    pub(super) lag: Lag,
    /// Age of the oldest record that was not read, in seconds; absent when it is not known.
    pub(super) age: Option<f64>,
    oldest: (Arc<Partition>, Offset),
}

/// One subscription.
pub(super) struct SubscriptionSeen {
    pub(super) measured: Measured,
    /// Age of the oldest record that is not settled, in seconds; absent when it is not known.
    pub(super) age: Option<f64>,
}

impl MetricsService {
    /// Looks at everything.
    pub(super) async fn gather(&self) -> Seen {
        let mut topics = Vec::new();
        for topic in self.rooms.registry.topics() {
            topics.push(see_topic(topic));
            yield_now().await;
        }
        let mut groups = Vec::new();
        for group in self.rooms.groups.groups.names() {
            groups.extend(self.see_group(group));
            yield_now().await;
        }
        let behind = self.find_group_ages(&mut groups).await;
        let measured = self.rooms.delivery.measure().await;
        let (subscriptions, unsettled) = self.find_subscription_ages(measured).await;
        Seen { topics, groups, subscriptions, skipped: behind + unsettled }
    }

    /// `None` when it was deleted meanwhile.
    fn see_group(&self, group: Arc<str>) -> Option<GroupSeen> {
        let service = &self.rooms.groups;
        let members = service.groups.look(&group, |state| state.members().len()).ok()?;
        let stored = service.stored_partitions(&group).into_iter();
        let partitions = stored.filter_map(|(topic, key)| {
            let Standing { stored, lag, partition, first_unread } =
                service.standing(&group, &topic, key.partition).ok()?;
            let committed = stored.map(|stored| stored.offset);
            let (number, oldest) = (key.partition, (partition, first_unread));
            Some(GroupPartitionSeen { topic, number, committed, lag, age: Some(0.0), oldest })
        });
        let partitions = partitions.collect();
        Some(GroupSeen { group, members, partitions })
    }

    /// Looks up the ages of groups that are behind. Returns how many were left out.
    async fn find_group_ages(&self, groups: &mut [GroupSeen]) -> usize {
        let mut behind: Vec<&mut GroupPartitionSeen> = groups
            .iter_mut()
            .flat_map(|group| &mut group.partitions)
            .filter(|one| one.lag.records > 0)
            .collect();
        let wanted: Vec<_> = behind.iter().map(|one| one.oldest.clone()).collect();
        let skipped = wanted.len().saturating_sub(LOOKUPS_MAX);
        let ages = self.ages(wanted).await;
        for (index, one) in behind.iter_mut().enumerate() {
            one.age = ages.get(index).copied().flatten();
        }
        skipped
    }

    async fn find_subscription_ages(
        &self,
        measured: Vec<Measured>,
    ) -> (Vec<SubscriptionSeen>, usize) {
        let wanted: Vec<_> = measured.iter().flat_map(|one| one.unsettled.clone()).collect();
        let skipped = wanted.len().saturating_sub(LOOKUPS_MAX);
        let mut ages = self.ages(wanted).await.into_iter();
        let seen = measured.into_iter().map(|measured| {
            let ages: Vec<_> = ages.by_ref().take(measured.unsettled.len()).collect();
            let is_whole = ages.len() == measured.unsettled.len();
            let oldest = ages.into_iter().flatten().max_by(f64::total_cmp);
            let age = match measured.counts.lag {
                0 => Some(0.0),
                _ => oldest.filter(|_| is_whole),
            };
            SubscriptionSeen { measured, age }
        });
        (seen.collect(), skipped)
    }

    /// How long ago the records at these offsets were appended, for the first [`LOOKUPS_MAX`]; `None` where nobody
    /// can say.
    async fn ages(&self, wanted: Vec<(Arc<Partition>, Offset)>) -> Vec<Option<f64>> {
        let times = stream::iter(wanted.into_iter().take(LOOKUPS_MAX))
            .map(|(partition, offset)| async move { partition.append_time_ms(offset).await })
            .buffered(LOOKUPS_AT_ONCE);
        let times: Vec<_> = times.collect().await;
        let now_ms = self.clock.wall_ms();
        let age = |time_ms: i64| now_ms.saturating_sub(time_ms).max(0) as f64 / 1e3;
        times.into_iter().map(|time| time.ok().flatten().map(age)).collect()
    }
}

fn see_topic(topic: Arc<Topic>) -> TopicSeen {
    let partitions = (0..).zip(&topic.partitions).map(|(number, slot)| match slot {
        Slot::Open(partition) => PartitionSeen {
            number,
            failed: partition.failure().is_some(),
            open: Some((partition.clone(), partition.facts())),
        },
        Slot::Failed(_) => PartitionSeen { number, failed: true, open: None },
    });
    TopicSeen { partitions: partitions.collect(), topic }
}
