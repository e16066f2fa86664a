//! Members that crash, lag, repeat themselves and are heard out of order, against the state machine.
//!
//! Every client keeps what a real one would: its epoch, what it works on, what it still has to finish, and
//! from which stored position it works. Requests may be lost, repeated and reordered; replies may be lost.
//! After every step:
//! - a partition never has two members that pass fencing, and owners, held and revoking agree;
//! - two clients work on one partition only if the earlier one was silent or slow past its time, or joined anew;
//! - who passes fencing works from the newest stored position of the right topic;
//! - no epoch falls.
//!
//! At rest (everybody behaves) every subscribed partition is owned, balanced, and known to its owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use riverrun_proto::{
    TopicId, TopicPartition,
    grpc::state::v1::{GroupCreated, group_change::Change},
};
use uuid::Uuid;

use super::*;
use crate::{
    group::{event::ProfileUpdate, image, topics::TopicView},
    offset::{image::Groups, record},
    test_random::Random,
};

const NAMES: [&str; 3] = ["t0", "t1", "t2"];

/// Where a client works on a partition from: topic id, and how often its offset had been moved.
type Position = (TopicId, u64);

#[derive(Default)]
struct Client {
    id: String,
    instance: Option<String>,
    up: bool,
    epoch: i32,
    subscription: BTreeSet<Arc<str>>,
    /// The subscription in the last heartbeat with one that was answered.
    told: BTreeSet<Arc<str>>,
    /// The last answer was "stale": learn the assignment before telling a subscription.
    stands_aside: bool,
    working: BTreeMap<TopicPartition, Position>,
    /// Revoked and not finished.
    finishing: BTreeMap<TopicPartition, Position>,
    /// The broker had reason to take partitions away: silence, slowness, or a fresh join.
    excused: bool,
    /// Every heartbeat of this life, to be repeated.
    sent: Vec<Heartbeat>,
}

struct World {
    state: GroupState,
    topics: BTreeMap<Arc<str>, TopicView>,
    stored: Groups,
    moved: BTreeMap<PartitionKey, u64>,
    clients: Vec<Client>,
    now: Duration,
    next_id: u128,
    group_epoch: i32,
    member_epochs: BTreeMap<MemberId, i32>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            state: GroupState::new(Assignor::Uniform, 0, 100),
            topics: BTreeMap::new(),
            stored: Groups::default(),
            moved: BTreeMap::new(),
            clients: Vec::new(),
            now: Duration::ZERO,
            next_id: 1,
            group_epoch: 0,
            member_epochs: BTreeMap::new(),
        };
        let created = Change::Created(GroupCreated::default());
        world.stored.apply(&record::encode(vec![record::change("g", created)])).unwrap();
        world.create("t0", 4);
        for index in 0..5 {
            let instance = (index >= 3).then(|| format!("i{index}"));
            let subscription = [Arc::from(NAMES[0])].into();
            let id = format!("c{index}");
            world.clients.push(Client { id, instance, subscription, ..Client::default() });
        }
        world
    }

    fn create(&mut self, name: &str, partitions: u32) {
        let id = TopicId(Uuid::from_u128(self.next_id));
        self.next_id += 1;
        self.topics.insert(name.into(), TopicView { id, partitions });
    }

    fn step(&mut self, random: &mut Random) {
        let at = usize::try_from(random.below(5)).unwrap();
        match random.below(100) {
            0..45 => self.send(at, random),
            45..65 => self.repeat(at, random),
            65..70 => self.finish_some(at, random),
            70..76 => self.stop(at, random),
            76..80 => self.resubscribe(at, random),
            80..84 => self.change_topics(random),
            84..88 => self.reset(random),
            88..91 => self.restart_broker(),
            _ => self.pass_time(random),
        }
        self.check();
    }

    /// Sends the next heartbeat; it may be lost, and so may its reply.
    fn send(&mut self, at: usize, random: &mut Random) {
        let client = &mut self.clients[at];
        if !client.up {
            client.up = true;
            client.epoch = EPOCH_JOIN;
            if client.instance.is_some() {
                self.next_id += 1;
                client.id = format!("{}-{}", client.instance.as_deref().unwrap(), self.next_id);
            }
        }
        let heartbeat = client.next(random);
        client.sent.push(heartbeat.clone());
        if !random.chance(8) {
            self.arrive(at, &heartbeat, !random.chance(6));
        }
    }

    /// An earlier heartbeat arrives again; its reply reaches nobody.
    fn repeat(&mut self, at: usize, random: &mut Random) {
        if self.clients[at].sent.is_empty() {
            return;
        }
        let heartbeat = random.pick(&self.clients[at].sent).clone();
        // A repeated join cannot be told from a fresh one once its answer was used.
        let repeats_join = heartbeat.epoch == EPOCH_JOIN
            && self.state.members().get(&heartbeat.member_id).is_some_and(|m| m.confirmed);
        if !repeats_join || random.chance(4) {
            self.arrive(at, &heartbeat, false);
        }
    }

    fn arrive(&mut self, at: usize, heartbeat: &Heartbeat, answered: bool) {
        let known = self.state.members().contains_key(&heartbeat.member_id);
        if heartbeat.epoch == EPOCH_JOIN && known {
            self.clients[at].excused = true;
        }
        let before = self.state.epoch();
        let result = self.state.heartbeat(heartbeat, &self.topics, self.now);
        if result.is_err() {
            assert_eq!(before, self.state.epoch(), "a refusal changes nothing");
        }
        let current = heartbeat.member_id.as_ref() == self.clients[at].id;
        if answered && current && self.clients[at].up {
            self.take(at, heartbeat, result);
        }
    }

    fn take(&mut self, at: usize, sent: &Heartbeat, result: Result<Reply, GroupError>) {
        let (state, moved) = (&self.state, &self.moved);
        let client = &mut self.clients[at];
        if sent.epoch != client.epoch {
            return;
        }
        let reply = match result {
            Ok(reply) => reply,
            Err(GroupError::StaleEpoch { .. }) => {
                // Learn the assignment first, then tell the subscription again.
                client.stands_aside = true;
                return;
            }
            Err(GroupError::InstanceIdInUse { .. } | GroupError::Full { .. }) => return,
            Err(GroupError::UnknownMember { .. } | GroupError::FencedEpoch { .. }) => {
                client.lose_everything();
                return;
            }
            Err(error) => panic!("unexpected {error}"),
        };
        assert!(reply.member_epoch >= client.epoch);
        client.stands_aside = false;
        if let Some(subscription) = &sent.profile.subscription {
            client.told = subscription.clone();
        }
        client.epoch = reply.member_epoch;
        let Some(assignment) = reply.assignment else { return };
        let name = |key: &PartitionKey| {
            let topic = state.topics().name(key.topic_id).expect("live topics only").clone();
            TopicPartition::new(topic, key.partition)
        };
        let position = |key: &PartitionKey| (key.topic_id, moved.get(key).copied().unwrap_or(0));
        let reset: BTreeSet<PartitionKey> = reply.reset.into_iter().collect();
        let wanted: BTreeMap<_, _> = assignment.iter().map(|key| (name(key), *key)).collect();
        for (tp, position) in std::mem::take(&mut client.working) {
            if !wanted.contains_key(&tp) {
                client.finishing.insert(tp, position);
            } else {
                client.working.insert(tp, position);
            }
        }
        for key in &reset {
            client.finishing.remove(&name(key));
        }
        for (tp, key) in wanted {
            client.finishing.remove(&tp);
            if !client.working.contains_key(&tp) || reset.contains(&key) {
                client.working.insert(tp, position(&key));
            }
        }
    }

    fn finish_some(&mut self, at: usize, random: &mut Random) {
        self.clients[at].finishing.retain(|_, _| random.chance(2));
    }

    /// Crashes, leaves, or leaves for a while.
    fn stop(&mut self, at: usize, random: &mut Random) {
        let kind = random.below(3);
        let client = &mut self.clients[at];
        if !client.up {
            return;
        }
        client.lose_everything();
        client.up = false;
        // What a stopped process sent may still be on its way, but a leave is its last word.
        client.sent.clear();
        let epoch = match (kind, &client.instance) {
            (0, _) => return,
            (1, Some(_)) => EPOCH_PAUSE,
            _ => EPOCH_LEAVE,
        };
        let member_id = client.id.as_str().into();
        let heartbeat = Heartbeat { member_id, epoch, ..Heartbeat::default() };
        let _ = self.state.heartbeat(&heartbeat, &self.topics, self.now);
    }

    fn resubscribe(&mut self, at: usize, random: &mut Random) {
        let wanted: BTreeSet<Arc<str>> =
            NAMES.iter().filter(|_| random.chance(2)).map(|name| Arc::from(*name)).collect();
        self.clients[at].subscription = wanted;
    }

    fn change_topics(&mut self, random: &mut Random) {
        let name = *random.pick(&NAMES);
        match self.topics.get_mut(name) {
            Some(view) if random.chance(2) => view.partitions += 1,
            Some(_) => {
                self.topics.remove(name);
            }
            None => self.create(name, 1 + u32::try_from(random.below(6)).unwrap()),
        }
        self.state.topics_changed(&self.topics);
    }

    fn reset(&mut self, random: &mut Random) {
        let name = *random.pick(&NAMES);
        if let Some(view) = self.topics.get(name) {
            let partition = u32::try_from(random.below(view.partitions.into())).unwrap();
            let key = PartitionKey::new(view.id, partition);
            *self.moved.entry(key).or_default() += 1;
            self.state.reset(&[key]);
        }
    }

    /// The state comes back from what the effects said to store.
    fn restart_broker(&mut self) {
        let image = self.stored.get("g").unwrap();
        let state = image::restore(image, 100, &self.topics, self.now).unwrap();
        assert_eq!(state.epoch(), self.state.epoch());
        assert_eq!(state.owners(), self.state.owners());
        assert_eq!(state.members().len(), self.state.members().len());
        for (id, member) in self.state.members() {
            let again = &state.members()[id];
            let lists = |member: &Member| {
                let revoking: Vec<_> =
                    member.revoking.iter().map(|(key, one)| (*key, one.owner_epoch)).collect();
                let resets = (member.reset_pending.clone(), member.reset_told.clone());
                (member.held.clone(), revoking, resets)
            };
            let epochs = |member: &Member| (member.epoch, member.previous_epoch, member.away);
            assert_eq!(again.profile, member.profile);
            assert_eq!(epochs(again), epochs(member));
            assert_eq!(lists(again), lists(member));
        }
        self.state = state;
    }

    /// Stores what the last event changed, as the coordinator does.
    fn store(&mut self) {
        let effects = self.state.take_effects();
        if effects.must_store() {
            let change = Change::Membership(image::membership(&self.state, &effects));
            self.stored.apply(&record::encode(vec![record::change("g", change)])).unwrap();
        }
    }

    fn pass_time(&mut self, random: &mut Random) {
        self.now += Duration::from_secs(random.below(12));
        self.tick();
    }

    fn tick(&mut self) {
        for client in &mut self.clients {
            let member = self.state.members().get(&*client.id);
            let late = member.is_some_and(|member| {
                let slow = member.revoking.values().any(|revoking| revoking.deadline <= self.now);
                member.session_deadline <= self.now || slow
            });
            client.excused |= late;
        }
        self.state.tick(self.now);
    }

    fn check(&mut self) {
        self.store();
        self.check_owners();
        self.forgive();
        self.check_work();
        assert!(self.state.epoch() >= self.group_epoch);
        self.group_epoch = self.state.epoch();
        for (id, member) in self.state.members() {
            assert!(member.epoch <= self.state.epoch());
            let last = self.member_epochs.insert(id.clone(), member.epoch);
            assert!(last.is_none_or(|last| last <= member.epoch));
        }
    }

    /// A client that works on nothing but its own is as good as any.
    fn forgive(&mut self) {
        for client in &mut self.clients {
            let owns = |(tp, position): (&TopicPartition, &Position)| {
                let key = PartitionKey::new(position.0, tp.partition.0);
                self.state.owners().get(&key).is_some_and(|owner| **owner == *client.id)
            };
            if client.working.iter().chain(&client.finishing).all(owns) {
                client.excused = false;
            }
        }
    }

    fn check_owners(&self) {
        let mut owned = BTreeMap::new();
        for (id, member) in self.state.members() {
            assert!(member.held.keys().all(|key| !member.revoking.contains_key(key)));
            for key in member.owned() {
                assert_eq!(owned.insert(key, id.clone()), None, "two owners of {key}");
            }
        }
        assert_eq!(owned, *self.state.owners());
    }

    fn check_work(&self) {
        let mut workers: BTreeMap<PartitionKey, &str> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.up) {
            for (tp, position) in client.working.iter().chain(&client.finishing) {
                let key = PartitionKey::new(position.0, tp.partition.0);
                if !client.excused {
                    let other = workers.insert(key, &client.id);
                    assert!(other.is_none(), "{other:?} and {} work on {key}", client.id);
                }
                let named = self.topics.get(&tp.topic).map(|view| view.id);
                let Some(named) = named.map(|id| PartitionKey::new(id, tp.partition.0)) else {
                    continue;
                };
                if self.state.check(&client.id, client.epoch, &named).is_ok() {
                    assert_eq!(
                        *position,
                        (named.topic_id, self.moved.get(&named).copied().unwrap_or(0))
                    );
                }
            }
        }
    }

    /// Everybody who is up behaves, nobody else comes back: the group comes to rest.
    fn settle(&mut self, random: &mut Random) {
        for round in 0..40 {
            self.now += Duration::from_secs(5);
            self.tick();
            for at in 0..self.clients.len() {
                self.clients[at].finishing.clear();
                if self.clients[at].up {
                    let heartbeat = self.clients[at].next(random);
                    self.arrive(at, &heartbeat, true);
                    self.check();
                }
            }
            if round > 30 {
                assert_ne!(self.state.phase(), Phase::Reconciling, "the group must come to rest");
            }
        }
        self.check_rest();
    }

    fn check_rest(&self) {
        let up: Vec<&Client> = self.clients.iter().filter(|client| client.up).collect();
        assert_eq!(self.state.members().len(), up.len());
        for (name, view) in &self.topics {
            let wanted = up.iter().any(|client| client.subscription.contains(name));
            for partition in 0..view.partitions {
                let owner = self.state.owners().get(&PartitionKey::new(view.id, partition));
                assert_eq!(owner.is_some(), wanted, "{name}-{partition}");
            }
        }
        for client in &up {
            let member = &self.state.members()[&*client.id];
            assert_eq!(*member.profile.subscription, client.subscription);
            let held: BTreeSet<PartitionKey> = member.held.keys().copied().collect();
            let working: BTreeSet<PartitionKey> = client
                .working
                .iter()
                .map(|(tp, position)| PartitionKey::new(position.0, tp.partition.0))
                .collect();
            assert_eq!(held, working, "{} knows what it holds", client.id);
            for other in &up {
                let load = self.state.members()[&*other.id].held.len();
                assert!(
                    client.subscription != other.subscription || load.abs_diff(held.len()) <= 1
                );
            }
        }
    }
}

impl Client {
    fn next(&mut self, random: &mut Random) -> Heartbeat {
        let joins = self.epoch == EPOCH_JOIN;
        let news = self.told != self.subscription || random.chance(9);
        let tells = joins || (news && !self.stands_aside);
        let reports = !joins && random.chance(2);
        let owned = self.working.keys().chain(self.finishing.keys()).cloned().collect();
        Heartbeat {
            member_id: self.id.as_str().into(),
            epoch: self.epoch,
            owned: reports.then_some(owned),
            profile: ProfileUpdate {
                instance_id: self.instance.as_deref().map(Arc::from),
                subscription: tells.then(|| self.subscription.clone()),
                session_timeout: Some(Duration::from_secs(20)),
                rebalance_timeout: Some(Duration::from_secs(15)),
                ..ProfileUpdate::default()
            },
        }
    }

    fn lose_everything(&mut self) {
        self.working.clear();
        self.finishing.clear();
        self.epoch = EPOCH_JOIN;
        self.excused = false;
    }
}

#[test]
fn whatever_happens_a_partition_has_one_owner_and_everybody_gets_a_share() {
    Random::each(150, |random| {
        let mut world = World::new();
        for _ in 0..3 {
            for _ in 0..60 {
                world.step(random);
            }
            world.settle(random);
        }
    });
}
