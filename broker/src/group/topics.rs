//! What a group needs to know of topics: id and number of partitions by name.
//!
//! The group room does not import the topic room; whoever starts it hands in a [`TopicLookup`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use riverrun_proto::TopicId;

/// A topic as a group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its id; a topic created anew under the same name has another.
    pub id: TopicId,
    /// Number of its partitions; never falls for one id.
    pub partitions: u32,
}

/// Finds topics, as they are now.
pub trait TopicLookup {
    /// The topic `name`, or `None` when there is none.
    fn find(&self, name: &str) -> Option<TopicView>;

    /// The name of the topic `id`, or `None` when there is none.
    fn name(&self, id: TopicId) -> Option<Arc<str>>;
}

impl TopicLookup for BTreeMap<Arc<str>, TopicView> {
    fn find(&self, name: &str) -> Option<TopicView> {
        self.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<Arc<str>> {
        self.iter().find(|(_, view)| view.id == id).map(|(name, _)| name.clone())
    }
}

/// All live topics at one moment.
#[derive(Clone, Debug, Default)]
pub struct AllTopics {
    by_name: BTreeMap<Arc<str>, TopicView>,
    by_id: BTreeMap<TopicId, Arc<str>>,
}

impl AllTopics {
    /// Whether the topic `id` exists.
    pub fn contains(&self, id: TopicId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether there is no topic at all.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl FromIterator<(Arc<str>, TopicView)> for AllTopics {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, TopicView)>>(topics: I) -> AllTopics {
        let by_name: BTreeMap<Arc<str>, TopicView> = topics.into_iter().collect();
        let by_id = by_name.iter().map(|(name, view)| (view.id, name.clone())).collect();
        AllTopics { by_name, by_id }
    }
}

impl TopicLookup for AllTopics {
    fn find(&self, name: &str) -> Option<TopicView> {
        self.by_name.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<Arc<str>> {
        self.by_id.get(&id).cloned()
    }
}

/// Names of topics a member wants; equal sets of one group share one allocation.
pub type Subscription = Arc<BTreeSet<Arc<str>>>;

/// Id of a member, chosen by itself.
pub type MemberId = Arc<str>;

/// The topics one group deals with: subscribed by somebody, or still owned by somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupTopics {
    by_name: BTreeMap<Arc<str>, TopicView>,
    by_id: BTreeMap<TopicId, Arc<str>>,
}

impl GroupTopics {
    /// Looks up `names`.
    pub fn look_up(names: &BTreeSet<Arc<str>>, topics: &dyn TopicLookup) -> GroupTopics {
        let mut found = GroupTopics::default();
        for name in names {
            if let Some(view) = topics.find(name) {
                found.by_name.insert(name.clone(), view);
                found.by_id.insert(view.id, name.clone());
            }
        }
        found
    }

    /// The topics that exist, by name.
    pub fn by_name(&self) -> &BTreeMap<Arc<str>, TopicView> {
        &self.by_name
    }

    /// Id of the topic `name`, if it exists.
    pub fn id(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name).map(|view| view.id)
    }

    /// Name of the topic `id`, if it exists.
    pub fn name(&self, id: TopicId) -> Option<&Arc<str>> {
        self.by_id.get(&id)
    }
}
