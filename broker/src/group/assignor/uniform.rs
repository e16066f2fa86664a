//! Balanced over all topics, moving only what must move.
//!
//! Three steps: keep every partition where it is if its member may still read it; give the rest to the
//! least loaded readers; then move partitions from members that hold at least two more than another
//! that may read them. Members with equal subscriptions form a class, and each class is kept ordered
//! by load, so a step costs a look at each class and not at each member.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_proto::TopicId;

use super::{Input, Target};
use crate::{group::topics::Subscription, offset::PartitionKey};

pub(super) fn assign(input: &Input<'_>) -> Target {
    if input.members.is_empty() {
        return Target::new();
    }
    let mut table = Table::new(input);
    let unassigned = table.keep(input);
    table.fill(&unassigned);
    table.level();
    table.into_target(input)
}

/// Members with one subscription.
struct Class {
    topics: BTreeSet<TopicId>,
    /// `(load, member)`, lightest first.
    by_load: BTreeSet<(usize, usize)>,
}

struct Table {
    classes: Vec<Class>,
    /// Class of each member.
    class_of: Vec<usize>,
    /// Partitions of each member.
    held: Vec<BTreeSet<PartitionKey>>,
    /// Classes that read each topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
}

impl Table {
    fn new(input: &Input<'_>) -> Table {
        let mut table = Table {
            classes: Vec::new(),
            class_of: Vec::with_capacity(input.members.len()),
            held: vec![BTreeSet::new(); input.members.len()],
            readers: BTreeMap::new(),
        };
        let mut known: BTreeMap<&Subscription, usize> = BTreeMap::new();
        for (index, member) in input.members.iter().enumerate() {
            let class = *known
                .entry(&member.subscription)
                .or_insert_with(|| table.add_class(input, &member.subscription));
            table.class_of.push(class);
            table.classes[class].by_load.insert((0, index));
        }
        table
    }

    fn add_class(&mut self, input: &Input<'_>, subscription: &Subscription) -> usize {
        let class = self.classes.len();
        let topics: BTreeSet<TopicId> = subscription
            .iter()
            .filter_map(|name| input.topics.get(name))
            .map(|topic| topic.id)
            .collect();
        for topic in &topics {
            self.readers.entry(*topic).or_default().push(class);
        }
        self.classes.push(Class { topics, by_load: BTreeSet::new() });
        class
    }

    /// Leaves partitions where they are if they may stay; returns the others.
    fn keep(&mut self, input: &Input<'_>) -> Vec<PartitionKey> {
        let mut unassigned = Vec::new();
        for topic in input.topics.values() {
            if !self.readers.contains_key(&topic.id) {
                continue;
            }
            for partition in 0..topic.partitions {
                let key = PartitionKey::new(topic.id, partition);
                let holder = input.current.get(&key).and_then(|id| {
                    input.members.binary_search_by(|member| member.id.as_ref().cmp(id)).ok()
                });
                match holder {
                    Some(member) if self.may_read(member, topic.id) => self.give(member, key),
                    Some(_) | None => unassigned.push(key),
                }
            }
        }
        unassigned
    }

    fn may_read(&self, member: usize, topic: TopicId) -> bool {
        self.classes[self.class_of[member]].topics.contains(&topic)
    }

    fn give(&mut self, member: usize, key: PartitionKey) {
        self.reload(member, |held| {
            held.insert(key);
        });
    }

    fn take(&mut self, member: usize, key: PartitionKey) {
        self.reload(member, |held| {
            held.remove(&key);
        });
    }

    fn reload(&mut self, member: usize, change: impl FnOnce(&mut BTreeSet<PartitionKey>)) {
        let by_load = &mut self.classes[self.class_of[member]].by_load;
        by_load.remove(&(self.held[member].len(), member));
        change(&mut self.held[member]);
        by_load.insert((self.held[member].len(), member));
    }

    /// Gives each partition to its least loaded reader, topics with the fewest classes of readers first.
    fn fill(&mut self, unassigned: &[PartitionKey]) {
        let mut ordered = unassigned.to_vec();
        ordered.sort_by_key(|key| self.readers[&key.topic_id].len());
        for key in ordered {
            let lightest = self.readers[&key.topic_id]
                .iter()
                .filter_map(|class| self.classes[*class].by_load.first())
                .min()
                .copied();
            let (_, member) = lightest.expect("a topic with readers has a member");
            self.give(member, key);
        }
    }

    /// Moves partitions until no member holds two more than another that may read one of them.
    fn level(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for receiver in 0..self.classes.len() {
                while let Some((from, key)) = self.surplus_for(receiver) {
                    let (_, to) = *self.classes[receiver].by_load.first().expect("not empty");
                    self.take(from, key);
                    self.give(to, key);
                    moved = true;
                }
            }
        }
    }

    /// A partition that the lightest member of the class `receiver` should take over, and its holder.
    fn surplus_for(&self, receiver: usize) -> Option<(usize, PartitionKey)> {
        let topics = &self.classes[receiver].topics;
        let (lightest, _) = *self.classes[receiver].by_load.first()?;
        let mut best: Option<(usize, usize, PartitionKey)> = None;
        for class in &self.classes {
            let heavy = class.by_load.iter().rev().take_while(|(load, _)| *load >= lightest + 2);
            for (load, member) in heavy {
                if best.is_some_and(|(top, _, _)| top >= *load) {
                    break;
                }
                let key =
                    self.held[*member].iter().rev().find(|key| topics.contains(&key.topic_id));
                if let Some(key) = key {
                    best = Some((*load, *member, *key));
                    break;
                }
            }
        }
        best.map(|(_, member, key)| (member, key))
    }

    fn into_target(self, input: &Input<'_>) -> Target {
        let mut target = Target::new();
        for (member, held) in self.held.into_iter().enumerate() {
            target.extend(held.into_iter().map(|key| (key, input.members[member].id.clone())));
        }
        target
    }
}
