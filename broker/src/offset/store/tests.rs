//! The store over a log in memory: order, conditions, group commit, restart, failure.

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use super::*;
use crate::{
    offset::{StoredOffset, state_log::memory::MemoryLog},
    test_random::Random,
};

const GROUPS_MAX: usize = 20;

fn key(topic: u128, partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId(Uuid::from_u128(topic)), partition)
}

fn commit(group: &str, key: PartitionKey, offset: u64, expected: Option<u64>) -> Write {
    let one = OffsetWrite {
        key,
        offset: Offset(offset),
        leader_epoch: None,
        metadata: format!("note {offset}"),
        expected: expected.map(Offset),
    };
    Write::Commit { group: group.into(), member_id: "m".into(), offsets: vec![one] }
}

fn create(group: &str) -> Write {
    Write::Create { group: group.into(), start: StartPolicy::Latest, assignor: "uniform" }
}

fn open(log: &Arc<MemoryLog>) -> OffsetStore {
    let (clock, _) = Clock::manual(1_000);
    let entries = log.durable.lock().clone();
    let groups = OffsetStore::replay(entries).unwrap();
    let (store, writer) = OffsetStore::new(groups, log.clone(), clock, GROUPS_MAX);
    tokio::spawn(writer);
    store
}

fn offset(store: &OffsetStore, group: &str, key: PartitionKey) -> Option<u64> {
    store.read(|groups| Some(groups.get(group)?.offsets.get(&key)?.offset.0))
}

/// Lets every task that can run do so.
async fn rest() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_offset_is_seen_once_it_is_durable() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    log.gate.forget_permits(1_000_000);
    let ticket = store.reserve(0).await.unwrap().send(commit("g", key(1, 0), 5, None));
    rest().await;
    assert_eq!(offset(&store, "g", key(1, 0)), None);
    log.gate.add_permits(1);
    assert_eq!(ticket.wait().await, Ok(Vec::new()));
    assert_eq!(offset(&store, "g", key(1, 0)), Some(5));
}

#[tokio::test]
async fn many_commits_are_one_append() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    log.gate.forget_permits(1_000_000);
    let mut tickets = Vec::new();
    for partition in 0..1_000 {
        let permit = store.reserve(0).await.unwrap();
        tickets.push(permit.send(commit("g", key(1, partition), 1, None)));
    }
    rest().await;
    log.gate.add_permits(1_000_000);
    for ticket in tickets {
        ticket.wait().await.unwrap();
    }
    assert!(*log.appends.lock() <= 3, "{} appends", log.appends.lock());
}

#[tokio::test]
async fn a_condition_sees_every_write_sent_before() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let writes = [
        create("g"),
        commit("g", key(1, 0), 5, None),
        commit("g", key(1, 0), 6, Some(5)),
        commit("g", key(1, 0), 7, Some(5)),
        commit("g", key(1, 1), 1, Some(0)),
        Write::Delete { group: "g".into() },
        commit("g", key(1, 0), 8, None),
        create("g"),
        commit("g", key(1, 0), 9, Some(6)),
    ];
    let mut tickets = Vec::new();
    for write in writes {
        tickets.push(store.reserve(0).await.unwrap().send(write));
    }
    let mut answers = Vec::new();
    for ticket in tickets {
        answers.push(ticket.wait().await);
    }
    let conflict =
        |stored: Option<u64>| Ok(vec![OffsetConflict { index: 0, stored: stored.map(Offset) }]);
    let fine = || Ok(Vec::new());
    let gone = || Err(StoreError::UnknownGroup { group: "g".into() });
    let (six, none) = (conflict(Some(6)), conflict(None));
    let expected = [fine(), fine(), fine(), six, none.clone(), fine(), gone(), fine(), none];
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn a_position_is_pinned_once() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    store.write(commit("g", key(1, 0), 40, None), 0).await.unwrap();
    for (count, offset) in [(2, 10), (3, 20)] {
        let offsets = (0..count).map(|partition| (key(1, partition), Offset(offset))).collect();
        let pin = Write::Pin { group: "g".into(), topic: (key(1, 0).topic_id, count), offsets };
        store.write(pin, 0).await.unwrap();
    }
    let stored: Vec<_> = (0..3).map(|partition| offset(&store, "g", key(1, partition))).collect();
    assert_eq!(stored, [Some(40), Some(10), Some(20)]);
    let store = open(&log);
    assert_eq!(store.read(|groups| groups.get("g").unwrap().pinned[&key(1, 0).topic_id]), 2);
}

#[tokio::test]
async fn nothing_is_confirmed_after_a_failed_append() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    *log.fails_at.lock() = Some((2, false));
    let lost = store.reserve(0).await.unwrap().send(commit("g", key(1, 0), 5, None));
    let sequence = lost.sequence();
    let failed = StoreError::Failed { reason: "made to fail".into() };
    assert_eq!(lost.wait().await, Err(failed.clone()));
    assert_eq!(store.settled(sequence).await, Err(failed.clone()));
    assert_eq!(store.write(commit("g", key(1, 0), 6, None), 0).await, Err(failed));
    assert_eq!(offset(&store, "g", key(1, 0)), None);
}

#[tokio::test]
async fn closing_writes_what_waits_and_refuses_the_rest() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let permit = store.reserve(0).await.unwrap();
    let waiting = store.reserve(0).await.unwrap().send(create("g"));
    store.close();
    let late = permit.send(create("h"));
    assert_eq!(waiting.wait().await, Ok(Vec::new()));
    assert_eq!(late.wait().await, Err(StoreError::Closed));
    assert_eq!(store.settled(99).await, Err(StoreError::Closed));
    assert!(matches!(store.reserve(0).await, Err(StoreError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn commits_wait_while_the_disk_is_full_and_go_on_when_it_is_not() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    *log.is_full.lock() = true;
    let ticket = store.reserve(0).await.unwrap().send(commit("g", key(1, 0), 5, None));
    while *log.refused.lock() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(offset(&store, "g", key(1, 0)), None);
    *log.is_full.lock() = false;
    assert_eq!(ticket.wait().await, Ok(Vec::new()));
    assert_eq!(offset(&store, "g", key(1, 0)), Some(5));
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_room_on_the_disk() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    *log.is_full.lock() = true;
    let first = store.reserve(0).await.unwrap().send(commit("g", key(1, 0), 5, None));
    while *log.refused.lock() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = store.reserve(0).await.unwrap().send(commit("g", key(1, 0), 6, None));
    store.close();
    let hour = Duration::from_secs(3_600);
    tokio::time::timeout(hour, store.finished()).await.expect("the writer ended");
    assert_eq!(first.wait().await, Err(StoreError::Closed));
    assert_eq!(second.wait().await, Err(StoreError::Closed));
    let anew = open(&log);
    assert_eq!(offset(&anew, "g", key(1, 0)), None, "nobody was told that it is stored");
}

#[tokio::test]
async fn there_is_a_most_of_groups() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    for index in 0..GROUPS_MAX {
        store.write(create(&index.to_string()), 0).await.unwrap();
    }
    assert_eq!(
        store.write(create("one more"), 0).await,
        Err(StoreError::TooManyGroups { max: GROUPS_MAX })
    );
    assert_eq!(store.write(create("7"), 0).await, Ok(Vec::new()), "it exists");
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let all = store.reserve(usize::MAX).await.unwrap();
    let waited = tokio::time::timeout(Duration::ZERO, store.reserve(0)).await;
    assert!(waited.is_err(), "the queue is full");
    drop(all);
    store.reserve(0).await.unwrap();
}

/// Random writes, crashes and snapshots against a plain map: what was confirmed is there, nothing else is
/// except the writes whose append was interrupted.
#[test]
fn what_was_confirmed_is_there_after_a_crash() {
    Random::each(60, |random| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut log = MemoryLog::open(Vec::new());
            let mut model: BTreeMap<(String, PartitionKey), u64> = BTreeMap::new();
            for _ in 0..6 {
                let entries = log.durable.lock().clone();
                log = MemoryLog::open(entries);
                let happened = random.chance(2);
                *log.fails_at.lock() =
                    Some((1 + usize::try_from(random.below(60)).unwrap(), happened));
                let store = open(&log);
                check_same(&store, &model);
                let doubtful = live(&store, random, &mut model).await;
                store.close();
                if happened && let Some(write) = doubtful {
                    settle(&mut model, write);
                }
            }
        });
    });
}

/// A write of the model: a stored offset, or a deleted group or topic.
enum Model {
    Nothing,
    Stored(String, PartitionKey, u64),
    Deleted(String),
    Forgotten(TopicId),
}

fn settle(model: &mut BTreeMap<(String, PartitionKey), u64>, write: Model) {
    match write {
        Model::Nothing => {}
        Model::Stored(group, key, offset) => {
            model.insert((group, key), offset);
        }
        Model::Deleted(name) => model.retain(|(group, _), _| *group != name),
        Model::Forgotten(topic) => model.retain(|(_, key), _| key.topic_id != topic),
    }
}

/// Writes one after another until the log fails; returns the write of which nobody knows.
async fn live(
    store: &OffsetStore,
    random: &mut Random,
    model: &mut BTreeMap<(String, PartitionKey), u64>,
) -> Option<Model> {
    loop {
        let group = format!("g{}", random.below(3));
        let key = key(random.below(2).into(), u32::try_from(random.below(3)).unwrap());
        let offset = random.below(1_000);
        let stored = model.get(&(group.clone(), key)).copied();
        let (write, effect) = match random.below(20) {
            0 => (Write::Delete { group: group.as_str().into() }, Model::Deleted(group)),
            1 => (Write::Forget { topics: vec![key.topic_id] }, Model::Forgotten(key.topic_id)),
            2..6 => (create(&group), Model::Nothing),
            6..10 => (commit(&group, key, offset, stored), Model::Stored(group, key, offset)),
            10..12 => (commit(&group, key, offset, Some(1_000)), Model::Nothing),
            _ => (commit(&group, key, offset, None), Model::Stored(group, key, offset)),
        };
        match store.write(write, 0).await {
            Ok(_) => settle(model, effect),
            Err(StoreError::UnknownGroup { .. }) => {}
            Err(StoreError::Failed { .. }) => return Some(effect),
            Err(error) => panic!("unexpected {error}"),
        }
    }
}

fn check_same(store: &OffsetStore, model: &BTreeMap<(String, PartitionKey), u64>) {
    store.read(|groups| {
        let stored: BTreeMap<(String, PartitionKey), u64> = groups
            .iter()
            .flat_map(|(name, group)| {
                let offsets = group.offsets.iter();
                offsets.map(move |(key, one)| ((name.to_string(), *key), one.offset.0))
            })
            .collect();
        assert_eq!(stored, *model);
        for entry_bytes in [1, 200, 1 << 20] {
            let again = OffsetStore::replay(groups.snapshot(entry_bytes)).unwrap();
            assert_eq!(again, *groups, "a snapshot describes everything");
        }
    });
}

#[tokio::test]
async fn the_log_is_replaced_before_it_grows_long() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    store.write(create("g"), 0).await.unwrap();
    let note = "n".repeat(4096);
    for round in 0..3_000 {
        let one = OffsetWrite {
            key: key(1, round % 10),
            offset: Offset(round.into()),
            leader_epoch: Some(LeaderEpoch(3)),
            metadata: note.clone(),
            expected: None,
        };
        let offsets = vec![one];
        let write = Write::Commit { group: "g".into(), member_id: "m".into(), offsets };
        store.write(write, 4096).await.unwrap();
    }
    assert!(*log.replaced.lock() >= 2);
    let bytes: usize = log.durable.lock().iter().map(Bytes::len).sum();
    assert!(bytes < 5 << 20, "{bytes} bytes to replay");
    let store = open(&log);
    let stored = store.read(|groups| groups.get("g").unwrap().offsets[&key(1, 9)].clone());
    let expected = StoredOffset {
        offset: Offset(2_999),
        leader_epoch: Some(LeaderEpoch(3)),
        metadata: note.into(),
        commit_time_ms: 1_000,
        member_id: "m".into(),
    };
    assert_eq!(stored, expected);
}
