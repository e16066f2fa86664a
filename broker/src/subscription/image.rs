//! The remembered state of all subscriptions: a fold over the entries of their log.
//!
//! Applying a change reads no clock and no randomness. A snapshot is a run of ordinary entries that begins with
//! [`Body::SnapshotBegun`], so it is read by the same code.
//!
//! Invariants: numbers and names of subscriptions are unique, numbers are smaller than `next_number`; a lane belongs
//! to a topic of its subscription. A partition without a lane begins at offset 0.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use riverrun_proto::TopicId;

use super::{
    lane::{LanePart, RememberedLane},
    record::{self, Body, EntryWriter, RecordError},
    settings::SubscriptionSettings,
};
use crate::{
    delivery::{LaneKey, OffsetSet},
    offset::PartitionKey,
};

/// A subscription, without what happened on its lanes.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Its number, never used again.
    pub number: u64,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// Its topics.
    pub topic_ids: Vec<TopicId>,
    /// Its settings in force.
    pub settings: SubscriptionSettings,
    /// Delivery is stopped.
    pub paused: bool,
}

/// All subscriptions.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscriptions {
    next_number: u64,
    entries: BTreeMap<u64, Entry>,
    numbers: BTreeMap<Arc<str>, u64>,
    cancelled: BTreeMap<PartitionKey, OffsetSet>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    subscription: Arc<Subscription>,
    lanes: BTreeMap<LaneKey, RememberedLane>,
}

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        Subscriptions {
            next_number: 1,
            entries: BTreeMap::new(),
            numbers: BTreeMap::new(),
            cancelled: BTreeMap::new(),
        }
    }
}

impl Subscriptions {
    /// The subscription `name`.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Subscription>> {
        self.get(*self.numbers.get(name)?)
    }

    /// The subscription of that number.
    pub fn get(&self, number: u64) -> Option<&Arc<Subscription>> {
        self.entries.get(&number).map(|entry| &entry.subscription)
    }

    /// Every subscription, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.numbers.values().filter_map(|number| self.get(*number))
    }

    /// Number of subscriptions.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Number that the next subscription gets.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// A lane; `None` when nothing is known of it, so that it begins at offset 0.
    pub fn lane(&self, number: u64, key: &LaneKey) -> Option<&RememberedLane> {
        self.entries.get(&number)?.lanes.get(key)
    }

    /// Cancelled records of a partition.
    pub fn cancelled(&self, key: &PartitionKey) -> Option<&OffsetSet> {
        self.cancelled.get(key)
    }

    /// Every partition with cancelled records.
    pub fn all_cancelled(&self) -> impl Iterator<Item = (&PartitionKey, &OffsetSet)> {
        self.cancelled.iter()
    }

    /// Takes in one entry of the log.
    ///
    /// # Errors
    /// When the entry cannot be read or contradicts the state.
    pub fn apply(&mut self, entry: &[u8]) -> Result<(), RecordError> {
        for (number, body) in record::decode(entry)? {
            self.apply_body(number, &body)?;
        }
        Ok(())
    }

    /// Takes in one change.
    ///
    /// # Errors
    /// When it contradicts the state, which is unchanged then.
    pub fn apply_body(&mut self, number: u64, body: &Body) -> Result<(), RecordError> {
        match body {
            Body::SnapshotBegun { next_number } => {
                *self = Subscriptions { next_number: *next_number, ..Subscriptions::default() };
            }
            Body::TopicsForgotten(topics) => self.forget(topics),
            Body::Cancelled { key, forget_below, pieces } => {
                let offsets = self.cancelled.entry(*key).or_default();
                for piece in pieces {
                    for run in piece.runs() {
                        offsets.insert(run);
                    }
                }
                offsets.remove_below(*forget_below);
                if offsets.is_empty() {
                    self.cancelled.remove(key);
                }
            }
            Body::Created { subscription, starts } => self.create(subscription, starts)?,
            Body::Deleted => {
                let entry = self.entry(number, body)?;
                let name = entry.subscription.name.clone();
                self.entries.remove(&number);
                self.numbers.remove(&name);
            }
            Body::Altered(after) => {
                let subscription = Arc::make_mut(&mut self.entry(number, body)?.subscription);
                subscription.topic_ids.clone_from(&after.topic_ids);
                subscription.settings.clone_from(&after.settings);
                subscription.paused = after.paused;
                let topics = &after.topic_ids;
                let lanes = &mut self.entry(number, body)?.lanes;
                lanes.retain(|key, _| topics.contains(&key.topic_id));
            }
            Body::LaneBegun { key, floor, dead_count } => {
                let lane = self.entry(number, body)?.lane(key)?;
                *lane = RememberedLane::at(*floor);
                lane.image.dead_count = *dead_count;
            }
            Body::Lane { key, parts } => {
                let lane = self.entry(number, body)?.lane(key)?;
                parts.iter().for_each(|part| lane.apply(part));
            }
        }
        Ok(())
    }

    fn create(
        &mut self,
        subscription: &Subscription,
        starts: &[(TopicId, Vec<u64>)],
    ) -> Result<(), RecordError> {
        let Subscription { number, name, .. } = subscription;
        let is_new = !self.entries.contains_key(number) && !self.numbers.contains_key(name);
        if *number == 0 || *number == u64::MAX || !is_new {
            return Err(RecordError::Exists { number: *number, name: name.to_string() });
        }
        let subscription = Arc::new(subscription.clone());
        let mut entry = Entry { subscription, lanes: BTreeMap::new() };
        for (topic_id, floors) in starts {
            for (partition, floor) in (0..).zip(floors).filter(|(_, floor)| **floor > 0) {
                *entry.lane(&PartitionKey::new(*topic_id, partition))? = RememberedLane::at(*floor);
            }
        }
        self.numbers.insert(name.clone(), *number);
        self.entries.insert(*number, entry);
        self.next_number = self.next_number.max(*number + 1);
        Ok(())
    }

    fn forget(&mut self, topics: &[TopicId]) {
        for entry in self.entries.values_mut() {
            if entry.subscription.topic_ids.iter().any(|id| topics.contains(id)) {
                let subscription = Arc::make_mut(&mut entry.subscription);
                subscription.topic_ids.retain(|id| !topics.contains(id));
            }
            entry.lanes.retain(|key, _| !topics.contains(&key.topic_id));
        }
        self.cancelled.retain(|key, _| !topics.contains(&key.topic_id));
    }

    fn entry(&mut self, number: u64, body: &Body) -> Result<&mut Entry, RecordError> {
        let unknown = RecordError::UnknownSubscription { number, kind: body.kind() };
        self.entries.get_mut(&number).ok_or(unknown)
    }

    /// Entries of about `entry_bytes` that describe the whole state.
    pub fn snapshot(&self, entry_bytes: usize) -> Vec<Bytes> {
        let mut writer = EntryWriter::new(entry_bytes);
        writer.push(0, &Body::SnapshotBegun { next_number: self.next_number });
        for (number, entry) in &self.entries {
            let subscription = (*entry.subscription).clone();
            writer.push(*number, &Body::Created { subscription, starts: Vec::new() });
            for (key, lane) in &entry.lanes {
                let (key, floor, dead_count) = (*key, lane.image.floor, lane.image.dead_count);
                writer.push(*number, &Body::LaneBegun { key, floor, dead_count });
                let parts: Vec<LanePart> = lane.parts().collect();
                writer.push(*number, &Body::Lane { key, parts });
            }
        }
        for (key, offsets) in &self.cancelled {
            let (key, forget_below, pieces) = (*key, 0, offsets.pieces().collect());
            writer.push(0, &Body::Cancelled { key, forget_below, pieces });
        }
        writer.finish()
    }
}

impl Entry {
    /// A lane, made where there is none.
    fn lane(&mut self, key: &LaneKey) -> Result<&mut RememberedLane, RecordError> {
        let Subscription { number, topic_ids, .. } = &*self.subscription;
        if !topic_ids.contains(&key.topic_id) {
            let (number, topic_id) = (*number, key.topic_id);
            return Err(RecordError::UnknownTopic { number, topic_id });
        }
        Ok(self.lanes.entry(*key).or_default())
    }
}

#[cfg(test)]
mod tests;
