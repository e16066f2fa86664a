//! Groups over a log in memory and a clock that is moved by hand.

use std::collections::BTreeSet;

use riverrun_proto::TopicPartition;
use uuid::Uuid;

use super::{change::set, *};
use crate::{
    clock::ClockHand,
    group::{
        event::{EPOCH_JOIN, EPOCH_LEAVE, Heartbeat, ProfileUpdate},
        topics::TopicView,
    },
    offset::state_log::memory::MemoryLog,
};

struct House {
    log: Arc<MemoryLog>,
    clock: Clock,
    hand: ClockHand,
    groups: Coordinator,
}

fn topics(list: &[(&str, u128, u32)]) -> AllTopics {
    let view = |(name, id, partitions): &(&str, u128, u32)| {
        let id = TopicId(Uuid::from_u128(*id));
        (Arc::from(*name), TopicView { id, partitions: *partitions })
    };
    list.iter().map(view).collect()
}

fn start(log: &Arc<MemoryLog>, clock: &Clock) -> Coordinator {
    let entries = log.durable.lock().clone();
    let stored = OffsetStore::replay(entries).unwrap();
    let (store, writer) = OffsetStore::new(stored, log.clone(), clock.clone(), 100);
    tokio::spawn(writer);
    Coordinator::new(store, topics(&[("t", 1, 3)]), clock.clone(), 100).unwrap()
}

impl House {
    async fn new() -> House {
        let (clock, hand) = Clock::manual(5_000);
        let log = MemoryLog::open(Vec::new());
        let groups = start(&log, &clock);
        groups.create(&"g".into(), StartPolicy::Earliest, Assignor::Uniform).await.unwrap();
        House { log, clock, hand, groups }
    }

    async fn restart(&mut self) {
        self.groups.release();
        self.groups.store().close();
        let entries = self.log.durable.lock().clone();
        self.log = MemoryLog::open(entries);
        self.groups = start(&self.log, &self.clock);
    }

    async fn beat(&self, member: &str, epoch: i32) -> Result<Answer, CoordinatorError> {
        self.groups.heartbeat(&"g".into(), &sign(member, epoch, None), Duration::ZERO).await
    }

    async fn acknowledge(&self, member: &str, epoch: i32, owned: &[u32]) -> Answer {
        let owned = owned.iter().map(|number| TopicPartition::new("t", *number)).collect();
        let sign = sign(member, epoch, Some(owned));
        self.groups.heartbeat(&"g".into(), &sign, Duration::ZERO).await.unwrap()
    }

    /// Holds a heartbeat in a task of its own, and waits until it is held.
    async fn hold(&self, member: &str, epoch: i32) -> tokio::task::JoinHandle<Answer> {
        let (groups, sign) = (self.groups.clone(), sign(member, epoch, None));
        let held = tokio::spawn(async move {
            groups.heartbeat(&"g".into(), &sign, Duration::from_secs(60)).await.unwrap()
        });
        rest().await;
        held
    }

    async fn commit(&self, who: Option<(&str, i32)>, partition: u32, offset: u64) -> CommitOutcome {
        self.try_commit(who, partition, offset).await.unwrap().remove(0)
    }

    async fn try_commit(
        &self,
        who: Option<(&str, i32)>,
        partition: u32,
        offset: u64,
    ) -> Result<Vec<CommitOutcome>, CoordinatorError> {
        let member = who.map(|(id, epoch)| (id.into(), epoch));
        let caller = Caller { group: "g".into(), member };
        self.groups.commit(&caller, vec![set((key(partition), Offset(offset)))]).await
    }

    fn stored(&self, partition: u32) -> Option<u64> {
        let offset = |image: &crate::offset::GroupImage| {
            image.offsets.get(&key(partition)).map(|stored| stored.offset.0)
        };
        self.groups.store().read(|groups| groups.get("g").and_then(offset))
    }

    fn held(&self) -> usize {
        self.groups.find("g").unwrap().live.lock().waiters.count()
    }

    async fn pass(&self, seconds: u64) {
        self.hand.advance(Duration::from_secs(seconds));
        self.groups.tick().await.unwrap();
        rest().await;
    }
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId(Uuid::from_u128(1)), partition)
}

fn sign(member: &str, epoch: i32, owned: Option<BTreeSet<TopicPartition>>) -> Heartbeat {
    let subscription = (epoch == EPOCH_JOIN).then(|| [Arc::from("t")].into());
    let profile = ProfileUpdate { subscription, ..ProfileUpdate::default() };
    Heartbeat { member_id: member.into(), epoch, owned, profile }
}

fn numbers(answer: &Answer) -> Option<Vec<u32>> {
    answer.assignment.as_ref().map(|list| list.iter().map(|tp| tp.partition.0).collect())
}

async fn rest() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn refused(result: Result<Answer, CoordinatorError>) -> GroupError {
    match result {
        Err(CoordinatorError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_held_heartbeat_answers_when_the_assignment_changes() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    assert_eq!(numbers(&a), Some(vec![0, 1, 2]));
    let held = house.hold("a", a.member_epoch).await;
    assert!(!held.is_finished());
    house.beat("b", 0).await.unwrap();
    let told = held.await.unwrap();
    assert_eq!(numbers(&told), Some(vec![0, 1]));
    assert_eq!(house.held(), 0);
}

#[tokio::test]
async fn a_held_heartbeat_answers_with_nothing_when_its_time_is_over() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    let held = house.hold("a", a.member_epoch).await;
    house.pass(9).await;
    assert!(!held.is_finished());
    // A third of the session timeout, whatever was asked for.
    house.pass(1).await;
    let told = held.await.unwrap();
    assert_eq!((told.member_epoch, numbers(&told)), (a.member_epoch, None));
}

#[tokio::test]
async fn a_member_holds_one_heartbeat_and_a_caller_that_went_away_none() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    let first = house.hold("a", a.member_epoch).await;
    let second = house.hold("a", a.member_epoch).await;
    assert!(first.is_finished());
    assert_eq!(house.held(), 1);
    second.abort();
    rest().await;
    assert_eq!(house.held(), 0);
    house.pass(10).await;
    assert_eq!(house.groups.shared.schedule.first(), Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn silence_ends_a_membership_and_wakes_who_inherits() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    house.pass(20).await;
    let b = house.beat("b", 0).await.unwrap();
    assert_eq!(numbers(&b), Some(vec![]));
    let held = house.hold("b", b.member_epoch).await;
    house.pass(10).await;
    assert_eq!(numbers(&held.await.unwrap()), Some(vec![0, 1, 2]));
    let zombie = refused(house.beat("a", a.member_epoch).await);
    assert_eq!(zombie, GroupError::UnknownMember { member: "a".into() });
}

#[tokio::test]
async fn an_assignment_is_told_when_it_is_durable() {
    let house = House::new().await;
    house.log.gate.forget_permits(1_000_000);
    let groups = house.groups.clone();
    let joins = tokio::spawn(async move {
        groups.heartbeat(&"g".into(), &sign("a", 0, None), Duration::ZERO).await.unwrap()
    });
    rest().await;
    assert!(!joins.is_finished());
    house.log.gate.add_permits(1);
    assert_eq!(numbers(&joins.await.unwrap()), Some(vec![0, 1, 2]));
}

#[tokio::test]
async fn the_next_owner_finds_every_commit_of_the_one_before() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    let b = house.beat("b", 0).await.unwrap();
    let a = house.beat("a", a.member_epoch).await.unwrap();
    let who = Some(("a", a.member_epoch));
    assert_eq!(house.commit(who, 2, 70).await, CommitOutcome::Stored);
    house.acknowledge("a", a.member_epoch, &[0, 1]).await;
    assert_eq!(house.commit(who, 2, 80).await, CommitOutcome::Refused(GroupError::NotOwned));
    let b = house.beat("b", b.member_epoch).await.unwrap();
    assert_eq!(numbers(&b), Some(vec![2]));
    assert_eq!(house.stored(2), Some(70));
    assert_eq!(house.commit(Some(("b", b.member_epoch)), 2, 90).await, CommitOutcome::Stored);
    assert_eq!(house.stored(2), Some(90));
}

#[tokio::test]
async fn somebody_outside_commits_only_while_nobody_is_inside() {
    let house = House::new().await;
    assert_eq!(house.commit(None, 0, 5).await, CommitOutcome::Stored);
    house.beat("a", 0).await.unwrap();
    let refusal = house.try_commit(None, 0, 6).await;
    assert_eq!(refusal, Err(CoordinatorError::NotEmpty { group: "g".into(), members: 1 }));
    house.beat("a", EPOCH_LEAVE).await.unwrap();
    assert_eq!(house.commit(None, 0, 7).await, CommitOutcome::Stored);
    assert_eq!(house.stored(0), Some(7));
}

#[tokio::test]
async fn a_reset_is_told_at_once_and_what_was_on_its_way_is_refused() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    let who = Some(("a", a.member_epoch));
    assert_eq!(house.commit(who, 1, 50).await, CommitOutcome::Stored);
    let held = house.hold("a", a.member_epoch).await;
    house.groups.reset(&"g".into(), vec![(key(1), Offset(3))]).await.unwrap();
    let stale = house.commit(who, 1, 51).await;
    assert!(matches!(stale, CommitOutcome::Refused(GroupError::StaleEpoch { .. })));
    assert_eq!(house.stored(1), Some(3));
    let told = held.await.unwrap();
    assert_eq!(told.reset, [TopicPartition::new("t", 1)]);
    assert!(told.member_epoch > a.member_epoch);
    assert_eq!(house.commit(Some(("a", told.member_epoch)), 1, 4).await, CommitOutcome::Stored);
}

#[tokio::test]
async fn members_go_on_after_a_restart() {
    let mut house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    let b = house.beat("b", 0).await.unwrap();
    let a = house.beat("a", a.member_epoch).await.unwrap();
    house.commit(Some(("a", a.member_epoch)), 2, 70).await;
    let epoch = house.groups.look(&"g".into(), GroupState::epoch).unwrap();
    house.restart().await;
    assert_eq!(house.groups.look(&"g".into(), GroupState::epoch).unwrap(), epoch);
    let again = house.beat("a", a.member_epoch).await.unwrap();
    assert_eq!((again.member_epoch, numbers(&again)), (a.member_epoch, None));
    assert_eq!(house.commit(Some(("a", a.member_epoch)), 0, 1).await, CommitOutcome::Stored);
    house.acknowledge("a", a.member_epoch, &[0, 1]).await;
    house.restart().await;
    assert_eq!(numbers(&house.beat("b", b.member_epoch).await.unwrap()), Some(vec![2]));
    assert_eq!((house.stored(2), house.stored(0)), (Some(70), Some(1)));
    // Whoever is silent after the restart is removed as ever.
    house.pass(30).await;
    assert_eq!(house.groups.look(&"g".into(), |state| state.members().len()).unwrap(), 0);
}

#[tokio::test]
async fn a_deleted_group_comes_back_empty() {
    let house = House::new().await;
    house.beat("a", 0).await.unwrap();
    let refusal = house.groups.delete(&"g".into()).await;
    assert_eq!(refusal, Err(CoordinatorError::NotEmpty { group: "g".into(), members: 1 }));
    house.beat("a", EPOCH_LEAVE).await.unwrap();
    house.commit(None, 0, 5).await;
    house.groups.delete(&"g".into()).await.unwrap();
    let unknown = CoordinatorError::UnknownGroup { group: "g".into() };
    assert_eq!(house.groups.delete(&"g".into()).await, Err(unknown.clone()));
    assert_eq!(house.beat("a", 0).await, Err(unknown));
    assert!(matches!(refused(house.beat("a", 7).await), GroupError::UnknownMember { .. }));
    assert_eq!(house.beat("a", EPOCH_LEAVE).await.unwrap().member_epoch, EPOCH_LEAVE);
    house.groups.create(&"g".into(), StartPolicy::Latest, Assignor::Range).await.unwrap();
    assert_eq!(house.stored(0), None);
    assert_eq!(house.groups.look(&"g".into(), GroupState::assignor).unwrap(), Assignor::Range);
}

#[tokio::test]
async fn offsets_of_deleted_topics_are_forgotten() {
    let house = House::new().await;
    house.commit(None, 0, 5).await;
    let a = house.beat("a", 0).await.unwrap();
    let held = house.hold("a", a.member_epoch).await;
    // A topic that was created after these were gathered is not taken for a deleted one.
    let young = PartitionKey::new(TopicId(Uuid::from_u128(9)), 0);
    house.groups.pin(&"g".into(), (young.topic_id, 1), vec![(young, Offset(4))]).await.unwrap();
    house.groups.set_topics(topics(&[("t", 2, 1)])).await.unwrap();
    assert_eq!(house.stored(0), None);
    let told = held.await.unwrap();
    assert_eq!((numbers(&told), told.reset.len()), (Some(vec![0]), 1));
    let offsets = house.groups.store().read(|groups| groups.get("g").unwrap().offsets.len());
    assert_eq!(offsets, 1);
    house.groups.forget_deleted_topics().await.unwrap();
    let offsets = house.groups.store().read(|groups| groups.get("g").unwrap().offsets.len());
    assert_eq!(offsets, 0);
}

#[tokio::test]
async fn a_failed_log_refuses_everything() {
    let house = House::new().await;
    let a = house.beat("a", 0).await.unwrap();
    *house.log.fails_at.lock() = Some((3, true));
    let failed = StoreError::Failed { reason: "made to fail".into() };
    let who = Some(("a", a.member_epoch));
    assert_eq!(house.try_commit(who, 0, 1).await, Err(CoordinatorError::Store(failed.clone())));
    let refusal = house.beat("a", a.member_epoch).await;
    assert_eq!(refusal, Err(CoordinatorError::Store(failed)));
}

#[tokio::test(start_paused = true)]
async fn the_watch_over_deadlines_sleeps_until_the_first_one() {
    let house = House::new().await;
    let watch = tokio::spawn(house.groups.clone().run());
    house.beat("a", 0).await.unwrap();
    house.hand.advance(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(house.groups.look(&"g".into(), |state| state.members().len()).unwrap(), 0);
    watch.abort();
}
