//! Tables of events and replies. Time is in seconds; topic `t` has three partitions and others are named
//! with theirs (`u0`). `-` is a reply without an assignment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use riverrun_proto::{TopicId, TopicPartition};
use uuid::Uuid;

use super::*;
use crate::group::{event::ProfileUpdate, topics::TopicView};

#[derive(Default)]
struct Client {
    epoch: i32,
    previous: i32,
    assignment: Vec<String>,
}

struct Bench {
    state: GroupState,
    topics: BTreeMap<Arc<str>, TopicView>,
    clients: BTreeMap<String, Client>,
    next_topic: u128,
    now: Duration,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench {
            state: GroupState::new(Assignor::Uniform, 0, 100),
            topics: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_topic: 1,
            now: Duration::ZERO,
        };
        bench.create("t", 3);
        bench
    }

    fn create(&mut self, name: &str, partitions: u32) {
        let id = TopicId(Uuid::from_u128(self.next_topic));
        self.next_topic += 1;
        self.topics.insert(name.into(), TopicView { id, partitions });
        self.state.topics_changed(&self.topics);
    }

    fn key(&self, partition: &str) -> PartitionKey {
        let tp = parse(partition);
        PartitionKey::new(self.topics[&tp.topic].id, tp.partition.0)
    }

    fn run(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        match words[0] {
            "join" => self.beat(words[1], 0, words.get(2).or(Some(&"t")).copied(), None),
            "beat" => self.beat(words[1], self.epoch(words[1]), words.get(2).copied(), None),
            "old" => self.beat(words[1], self.previous(words[1]), words.get(2).copied(), None),
            "ack" => self.acknowledge(words[1], self.epoch(words[1]), words.get(2..).unwrap()),
            "old-ack" => self.acknowledge(words[1], self.previous(words[1]), &[]),
            "first-beat" => self.beat(words[1], 1, None, None),
            "future-beat" => self.beat(words[1], self.epoch(words[1]) + 1, None, None),
            "leave" => self.beat(words[1], EPOCH_LEAVE, None, None),
            "pause" => self.beat(words[1], EPOCH_PAUSE, None, None),
            "commit" => self.commit(words[1], self.epoch(words[1]), words[2]),
            "old-commit" => self.commit(words[1], self.previous(words[1]), words[2]),
            "first-commit" => self.commit(words[1], 1, words[2]),
            "wait" => {
                self.now += Duration::from_secs(number(1).into());
                self.state.tick(self.now);
                String::new()
            }
            "create" => {
                self.create(words[1], number(2));
                String::new()
            }
            "grow" => {
                self.topics.get_mut(words[1]).unwrap().partitions = number(2);
                self.state.topics_changed(&self.topics);
                String::new()
            }
            "delete" => {
                self.topics.remove(words[1]);
                self.state.topics_changed(&self.topics);
                String::new()
            }
            "reset" => {
                let key = self.key(words[1]);
                self.state.reset(&[key]);
                String::new()
            }
            "restart" => self.restart(),
            "phase" => format!("{:?}", self.state.phase()).to_lowercase(),
            other => panic!("no such step `{other}`"),
        }
    }

    fn epoch(&self, client: &str) -> i32 {
        self.clients[client.split('@').next().unwrap()].epoch
    }

    fn previous(&self, client: &str) -> i32 {
        self.clients[client.split('@').next().unwrap()].previous
    }

    fn acknowledge(&mut self, client: &str, epoch: i32, also: &[&str]) -> String {
        let mut owned: BTreeSet<_> =
            self.clients[client].assignment.iter().map(|one| parse(one)).collect();
        owned.extend(also.iter().map(|one| parse(one)));
        self.beat(client, epoch, None, Some(owned))
    }

    fn beat(
        &mut self,
        client: &str,
        epoch: i32,
        subscription: Option<&str>,
        owned: Option<BTreeSet<TopicPartition>>,
    ) -> String {
        let (id, instance_id) = match client.split_once('@') {
            Some((id, instance)) => (id, Some(Arc::from(instance))),
            None => (client, None),
        };
        let subscription = subscription.map(|list| list.split(',').map(Arc::from).collect());
        let profile = ProfileUpdate { instance_id, subscription, ..ProfileUpdate::default() };
        let heartbeat = Heartbeat { member_id: id.into(), epoch, owned, profile };
        match self.state.heartbeat(&heartbeat, &self.topics, self.now) {
            Ok(reply) => self.take(id, reply),
            Err(error) => name(&error).to_owned(),
        }
    }

    fn take(&mut self, id: &str, reply: Reply) -> String {
        let reset = self.names(&reply.reset);
        let assignment = reply.assignment.map(|keys| self.names(&keys));
        let client = self.clients.entry(id.to_owned()).or_default();
        if reply.member_epoch > 0 && reply.member_epoch != client.epoch {
            client.previous = std::mem::replace(&mut client.epoch, reply.member_epoch);
        }
        let Some(assignment) = assignment else { return "-".to_owned() };
        let mut text = format!("[{}]", assignment.join(" "));
        client.assignment = assignment;
        if !reset.is_empty() {
            text = format!("{text} reset [{}]", reset.join(" "));
        }
        text
    }

    fn names(&self, keys: &[PartitionKey]) -> Vec<String> {
        let name = |key: &PartitionKey| match &**self.state.topics().name(key.topic_id).unwrap() {
            "t" => key.partition.to_string(),
            other => format!("{other}{}", key.partition),
        };
        keys.iter().map(name).collect()
    }

    fn commit(&self, client: &str, epoch: i32, partition: &str) -> String {
        match self.state.check(client, epoch, &self.key(partition)) {
            Ok(()) => "ok".to_owned(),
            Err(error) => name(&error).to_owned(),
        }
    }

    fn restart(&mut self) -> String {
        let members = self.state.members().values().cloned().collect();
        let mut state = GroupState::new(self.state.assignor(), self.state.epoch(), 100);
        state.restore(members, &self.topics, self.now).unwrap();
        self.state = state;
        String::new()
    }
}

fn parse(partition: &str) -> TopicPartition {
    let digits = partition.find(|c: char| c.is_ascii_digit()).unwrap();
    let topic = if digits == 0 { "t" } else { &partition[..digits] };
    TopicPartition::new(topic, partition[digits..].parse().unwrap())
}

fn name(error: &GroupError) -> &'static str {
    match error {
        GroupError::UnknownMember { .. } => "unknown",
        GroupError::FencedEpoch { .. } => "fenced",
        GroupError::StaleEpoch { .. } => "stale",
        GroupError::NotOwned => "not-owned",
        GroupError::InstanceIdInUse { .. } => "in-use",
        GroupError::NotStatic => "not-static",
        GroupError::NoSubscription => "no-subscription",
        GroupError::Full { .. } => "full",
        GroupError::EpochsUsedUp => "epochs",
    }
}

#[track_caller]
fn check(script: &str) {
    let mut bench = Bench::new();
    for step in script.split('/') {
        let (step, expected) = match step.split_once("->") {
            Some((step, expected)) => (step, Some(expected.trim())),
            None => (step, None),
        };
        let got = bench.run(step.trim());
        if let Some(expected) = expected {
            assert_eq!(got, expected, "at `{}` of `{script}`", step.trim());
        }
    }
}

#[test]
fn the_first_member_gets_everything() {
    check("join a -> [0 1 2] / beat a -> - / phase -> stable");
}

#[test]
fn a_partition_waits_for_its_old_owner() {
    check(
        "join a -> [0 1 2] / join b -> [] / phase -> reconciling / beat b -> -
         / beat a -> [0 1] / beat b -> - / commit a 2 -> ok / commit b 2 -> not-owned
         / ack a 2 -> - / beat b -> - / ack a -> - / beat b -> [2] / phase -> stable
         / commit a 2 -> not-owned / commit b 2 -> ok",
    );
}

#[test]
fn only_a_heartbeat_that_knows_of_the_revocation_finishes_it() {
    check(
        "join a -> [0 1 2] / beat a / join b -> [] / beat a -> [0 1]
         / old-ack a -> [0 1] / beat b -> - / commit a 2 -> ok / ack a -> - / beat b -> [2]",
    );
}

#[test]
fn a_lost_reply_is_told_again() {
    check("join a / join b / beat a -> [0 1] / old a -> [0 1] / old a -> [0 1] / beat a -> -");
}

#[test]
fn leaving_frees_at_once() {
    check("join a / join b / beat a / ack a / beat b -> [2] / leave a -> - / beat b -> [0 1 2]");
    check("join a / leave a / leave a -> - / phase -> empty / join b -> [0 1 2]");
}

#[test]
fn a_silent_member_is_removed_after_its_session_timeout() {
    check(
        "join a / wait 10 / join b -> [] / wait 19 / commit a 0 -> ok / wait 1
         / commit a 0 -> unknown / beat b -> [0 1 2] / beat a -> unknown / join a -> []",
    );
}

#[test]
fn a_partition_not_given_up_is_taken_after_the_rebalance_timeout() {
    check(
        "join a / join b -> [] / beat a -> [0 1] / wait 25 / beat a / beat b -> - / wait 25
         / beat a / beat b -> - / commit a 2 -> ok / wait 10 / commit a 2 -> not-owned
         / beat b -> [2] / commit a 0 -> ok / beat a -> -",
    );
}

#[test]
fn joining_again_loses_everything_held() {
    check(
        "join a -> [0 1 2] / beat a / join a -> [0 1 2] / first-commit a 0 -> fenced
         / old-commit a 0 -> fenced / commit a 0 -> ok",
    );
    // A join repeated because its answer was lost is the same join.
    check(
        "join a -> [0 1 2] / join a -> [0 1 2] / old-commit a 0 -> unknown / first-commit a 0 -> ok",
    );
}

#[test]
fn a_revoked_and_regained_partition_refuses_commits_from_before() {
    check(
        "join a -> [0 1 2] / beat a / join b / beat a -> [0 1] / ack a / beat b -> [2] / leave b
         / beat a -> [0 1 2] / first-commit a 0 -> ok / first-commit a 2 -> fenced
         / old-commit a 2 -> stale / commit a 2 -> ok",
    );
}

#[test]
fn epochs_from_elsewhere_are_fenced() {
    check(
        "join a / beat a / join b / beat a / ack a / beat b / leave b / beat a / old a -> [0 1 2]
         / first-beat a -> fenced / future-beat a -> fenced / first-commit a 2 -> fenced",
    );
    check("join a / leave a / beat a -> unknown / commit a 0 -> unknown");
}

#[test]
fn subscriptions_change_while_running() {
    check(
        "create u 2 / join a -> [0 1 2] / beat a t,u -> [0 1 2 u0 u1] / beat a u -> [u0 u1]
         / commit a 0 -> ok / ack a -> - / commit a 0 -> not-owned / old a t -> stale / old a u -> [u0 u1]",
    );
}

#[test]
fn topics_come_grow_and_go() {
    check(
        "join a t,u -> [0 1 2] / create u 2 / beat a -> [0 1 2 u0 u1] / grow t 4 / beat a -> [0 1 2 3 u0 u1]",
    );
    check("join a / delete t / beat a -> [] / create t 1 / beat a -> [0] / phase -> stable");
    // Same name, other topic, and the member was never without it: it must not use its old position.
    check(
        "join a -> [0 1 2] / delete t / create t 3 / beat a -> [0 1 2] reset [0 1 2] / beat a -> -",
    );
    // Nobody is waited for once the topic is gone.
    check(
        "join a / join b / beat a -> [0 1] / delete t / create t 2 / beat b -> [1] / beat a -> [0] reset [0]",
    );
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    check(
        "join a@i -> [0 1 2] / join b -> [] / beat a / ack a / beat b -> [2] / pause a -> -
         / commit a 0 -> unknown / beat a -> unknown / beat b -> - / wait 20 / beat b -> -
         / join c@i -> [0 1] / commit c 0 -> ok / commit a 0 -> unknown / beat b -> -",
    );
    check("join a@i / pause a / join a@i -> [0 1 2] / old-commit a 0 -> fenced / commit a 0 -> ok");
    check("join a@i / join b / beat a / pause a / beat b -> [2] / wait 30 / join c@i -> [0 1 2]");
    check("join a@i / pause a / wait 29 / join b -> [] / wait 1 / beat b -> [0 1 2]");
    check("join a / pause a -> not-static / pause z -> unknown");
}

#[test]
fn a_live_holder_of_an_instance_id_stays() {
    check(
        "join a@i / join b@i -> in-use / commit a 0 -> ok / wait 30 / join b@i -> [0 1 2]
         / beat a -> unknown / join a@i -> in-use",
    );
}

#[test]
fn a_reset_is_told_and_fences_older_commits() {
    check(
        "join a -> [0 1 2] / beat a / reset 1 / commit a 0 -> ok / commit a 1 -> stale
         / beat a -> [0 1 2] reset [1] / commit a 1 -> ok / old-commit a 1 -> stale
         / old a -> [0 1 2] reset [1] / beat a -> - / old-commit a 0 -> ok",
    );
}

#[test]
fn a_restart_of_the_broker_changes_nothing_for_its_members() {
    check(
        "join a / join b / beat a -> [0 1] / restart / commit a 2 -> ok / old a -> [0 1] / beat b -> -
         / ack a -> - / restart / beat b -> [2] / restart / beat a -> - / beat b -> - / phase -> stable",
    );
    check(
        "join a / reset 0 / restart / beat a -> [0 1 2] reset [0] / restart / old a -> [0 1 2] reset [0] / beat a -> - / old a -> [0 1 2]",
    );
    check("join a / join b / restart / wait 30 / beat a -> unknown / join c -> [0 1 2]");
    check("join a@i / pause a / restart / join b@i -> [0 1 2]");
}

#[test]
fn a_group_has_a_most_of_members() {
    let mut bench = Bench::new();
    bench.state = GroupState::new(Assignor::Uniform, 0, 2);
    let steps = ["join a", "join b", "join c", "join a", "leave b", "join c"];
    let got: Vec<String> = steps.iter().map(|step| bench.run(step)).collect();
    assert_eq!(got, ["[0 1 2]", "[]", "full", "[0 1 2]", "-", "[]"]);
}
