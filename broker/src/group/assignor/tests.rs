//! Tables and random checks of both assignors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use riverrun_proto::TopicId;
use uuid::Uuid;

use super::*;
use crate::{group::topics::TopicView, test_random::Random};

type Topics = BTreeMap<Arc<str>, TopicView>;

fn topics(counts: &[u32]) -> Topics {
    let topic = |(index, partitions): (usize, &u32)| {
        let id = TopicId(Uuid::from_u128(index as u128));
        (Arc::from(format!("t{index}")), TopicView { id, partitions: *partitions })
    };
    counts.iter().enumerate().map(topic).collect()
}

fn candidate(id: &str, wanted: &[usize]) -> Candidate {
    let subscription = wanted.iter().map(|index| Arc::from(format!("t{index}"))).collect();
    Candidate { id: id.into(), rank: id.into(), subscription: Arc::new(subscription) }
}

fn loads(target: &Target, members: &[Candidate]) -> Vec<usize> {
    let load = |member: &Candidate| target.values().filter(|id| **id == member.id).count();
    members.iter().map(load).collect()
}

fn moves(before: &Target, after: &Target) -> usize {
    before.iter().filter(|(key, id)| after.get(key).is_some_and(|now| now != *id)).count()
}

#[test]
fn range_gives_equal_numbers_to_the_same_member() {
    let topics = topics(&[5, 5, 2]);
    let members = [candidate("a", &[0, 1, 2]), candidate("b", &[0, 1]), candidate("c", &[0, 1, 2])];
    let none = Target::new();
    let input = Input { members: &members, topics: &topics, current: &none };
    let target = Assignor::Range.assign(&input);
    let text: Vec<String> = target.values().map(|id| id.to_string()).collect();
    assert_eq!(text.join(""), "aabbcaabbcac");
}

#[test]
fn names_of_assignors_are_read_back() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        assert_eq!(Assignor::from_name(assignor.name()), Some(assignor));
    }
    assert_eq!(Assignor::from_name(""), Some(Assignor::Uniform));
    assert_eq!(Assignor::from_name("fair"), None);
}

/// Members of equal subscriptions come and go: balance within one, and exactly the moves that balance needs.
#[test]
fn uniform_moves_no_more_than_balance_needs() {
    Random::each(200, |random| {
        let topics = topics(&[
            u32::try_from(random.below(30)).unwrap(),
            u32::try_from(random.below(30)).unwrap(),
        ]);
        let total: usize = topics.values().map(|topic| topic.partitions as usize).sum();
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut current = Target::new();
        for _ in 0..12 {
            let name = format!("m{}", random.below(9));
            if !names.remove(&name) {
                names.insert(name);
            }
            let members: Vec<_> = names.iter().map(|name| candidate(name, &[0, 1])).collect();
            let input = Input { members: &members, topics: &topics, current: &current };
            let next = Assignor::Uniform.assign(&input);
            if members.is_empty() {
                assert!(next.is_empty());
            } else {
                let (floor, rest) = (total / members.len(), total % members.len());
                let mut kept = loads(&current, &members);
                kept.sort_unstable_by(|a, b| b.cmp(a));
                let quota = |place: usize| floor + usize::from(place < rest);
                let needed: usize =
                    kept.iter().enumerate().map(|(at, load)| load.saturating_sub(quota(at))).sum();
                let stayed: BTreeSet<&str> = members.iter().map(|member| &*member.id).collect();
                let before: Target = current
                    .iter()
                    .filter(|(_, id)| stayed.contains(&***id))
                    .map(|(key, id)| (*key, id.clone()))
                    .collect();
                assert_eq!(next.len(), total);
                assert_eq!(moves(&before, &next), needed);
            }
            current = next;
        }
    });
}

/// Any subscriptions: complete, allowed, balanced among equals, and at rest.
#[test]
fn uniform_is_fair_among_members_with_equal_subscriptions() {
    Random::each(200, |random| {
        let mut current = Target::new();
        let counts: Vec<u32> = (0..4).map(|_| u32::try_from(random.below(12)).unwrap()).collect();
        let topics = topics(&counts);
        for _ in 0..6 {
            let members: Vec<Candidate> = (0..=random.below(7))
                .map(|index| {
                    let wanted: Vec<usize> = (0..4).filter(|_| random.below(2) == 0).collect();
                    candidate(&format!("m{index}"), &wanted)
                })
                .collect();
            let next = Assignor::Uniform.assign(&Input {
                members: &members,
                topics: &topics,
                current: &current,
            });
            check_fair(&members, &topics, &next);
            let again = Assignor::Uniform.assign(&Input {
                members: &members,
                topics: &topics,
                current: &next,
            });
            assert_eq!(next, again, "nothing changed, so nothing may move");
            current = next;
        }
    });
}

fn check_fair(members: &[Candidate], topics: &Topics, target: &Target) {
    for (name, topic) in topics {
        let wanted = members.iter().any(|member| member.subscription.contains(name));
        for partition in 0..topic.partitions {
            let owner = target.get(&PartitionKey::new(topic.id, partition));
            assert_eq!(owner.is_some(), wanted);
            if let Some(owner) = owner {
                let owner = members.iter().find(|member| member.id == *owner).unwrap();
                assert!(owner.subscription.contains(name));
            }
        }
    }
    let loads = loads(target, members);
    for (a, left) in members.iter().zip(&loads) {
        for (b, right) in members.iter().zip(&loads) {
            assert!(a.subscription != b.subscription || left.abs_diff(*right) <= 1);
        }
    }
}
