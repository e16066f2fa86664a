//! Follows the topics: partitions that are added become lanes, topics that are deleted go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use riverrun_proto::TopicId;

use super::{
    DeliveryService, Shared,
    error::PushError,
    live::{Live, Source, State},
};
use crate::{
    delivery::{LaneImage, LaneKey, Now},
    topic::{Slot, Topic},
};

impl DeliveryService {
    /// Follows every change of topics. Does not end.
    pub(super) async fn follow_topics(&self) {
        let mut changes = self.shared.registry.changes();
        loop {
            changes.mark_unchanged();
            self.look_at_topics().await;
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn look_at_topics(&self) {
        // Subscriptions first: a topic they name that is not there then was deleted, not made meanwhile.
        let stored = self.shared.store.subscriptions();
        let topics = self.shared.topics_by_id();
        let mut deleted: Vec<TopicId> = Vec::new();
        for subscription in stored {
            if let Some(live) = self.shared.live_by_number(subscription.number) {
                live.follow_among(&topics);
            }
            deleted.extend(subscription.topic_ids.iter().filter(|id| !topics.contains_key(id)));
        }
        deleted.sort_unstable();
        deleted.dedup();
        if !deleted.is_empty()
            && let Err(error) = self.shared.store.forget_topics(deleted).await
        {
            tracing::warn!(%error, "what subscriptions know of deleted topics is kept for now");
        }
    }
}

impl Shared {
    pub(super) fn topics_by_id(&self) -> HashMap<TopicId, Arc<Topic>> {
        self.registry.topics().into_iter().map(|topic| (topic.id, topic)).collect()
    }
}

impl Live {
    /// Brings the lanes in line with the topics.
    pub(super) fn follow(&self) {
        self.follow_among(&HashMap::new());
    }

    /// The same; `known` are topics as they were a moment ago, and looked at anew when one is not among them.
    fn follow_among(&self, known: &HashMap<TopicId, Arc<Topic>>) {
        let _turn = self.following.lock();
        let stored = self.shared.store.subscription(&self.name);
        let Some(stored) = stored.filter(|stored| stored.number == self.number) else { return };
        let fresh;
        let topics = if stored.topic_ids.iter().all(|id| known.contains_key(id)) {
            known
        } else {
            fresh = self.shared.topics_by_id();
            &fresh
        };
        let mut wanted: BTreeMap<LaneKey, Source> = BTreeMap::new();
        for topic in stored.topic_ids.iter().filter_map(|id| topics.get(id)) {
            for (number, slot) in (0..).zip(&topic.partitions) {
                let partition = match slot {
                    Slot::Open(partition) => Some(partition.clone()),
                    Slot::Failed(_) => None,
                };
                let source = Source { topic: topic.name.clone(), partition };
                wanted.insert(LaneKey::new(topic.id, number), source);
            }
        }
        let orphaned = wanted.is_empty();
        let is_same =
            self.look(|state| state.sources.keys().eq(wanted.keys()) && state.orphaned == orphaned);
        if is_same {
            return;
        }
        self.event(|state, now| {
            state.orphaned = orphaned;
            state.follow(wanted, (self, now));
        });
        self.scans.notify_one();
        if orphaned {
            // Another topic of that name is another one.
            self.end_all(&PushError::TopicsDeleted { subscription: self.name.clone() }, true);
        }
    }
}

impl State {
    fn follow(&mut self, wanted: BTreeMap<LaneKey, Source>, (live, now): (&Live, Now)) {
        for lane in self.sources.keys().filter(|lane| !wanted.contains_key(lane)) {
            self.delivery.remove_lane(lane, now);
        }
        for lane in wanted.keys() {
            if self.sources.contains_key(lane) {
                continue;
            }
            let remembered = live.shared.store.lane(live.number, lane);
            let image = remembered.map_or_else(|| LaneImage::at(0), |known| known.image);
            let log_end = wanted[lane].partition.as_ref().map(|partition| partition.log_end().0);
            let back_to = log_end.and_then(|end| position_within(&image, end));
            self.delivery.add_lane(*lane, image, now);
            if let Some(offset) = back_to {
                tracing::warn!(
                    subscription = %live.name, lane = ?lane, offset,
                    "the log ends before what was settled: delivery goes on from here"
                );
                self.delivery.seek(lane, offset, now);
            }
        }
        let ids = wanted.iter().map(|(lane, source)| (source.topic.clone(), lane.topic_id));
        self.topic_ids = ids.collect();
        self.sources = wanted;
        self.sources_version += 1;
        let lanes: Vec<LaneKey> = self.sources.keys().copied().collect();
        lanes.iter().for_each(|lane| self.look_at_end(lane, now));
    }
}

/// Where delivery must go on when the log ends before what is remembered of it: a power loss took its unflushed end, and
/// other records will get those offsets. They must not count as settled; so something before them may come again.
fn position_within(image: &LaneImage, log_end: u64) -> Option<u64> {
    let is_past = |offset: Option<&u64>| offset.is_some_and(|offset| *offset >= log_end);
    let reaches_past = image.floor > log_end
        || image.done.next_in(log_end).is_some()
        || is_past(image.failures.keys().next_back())
        || is_past(image.dead.keys().next_back())
        || image.far.values().any(|offsets| offsets.next_in(log_end).is_some());
    reaches_past.then(|| image.floor.min(log_end))
}
