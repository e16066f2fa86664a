//! The store over a log in memory: group commit, order, bounds, failure and restart.

use riverrun_proto::grpc::v1;

use super::*;
use crate::{
    delivery::Run,
    offset::state_log::memory::MemoryLog,
    subscription::{
        model::{Model, Step, key, topic},
        settings::SubscriptionSettings,
    },
    test_random::Random,
};

const SUBSCRIPTIONS_MAX: usize = 5;

fn open(log: &Arc<MemoryLog>) -> SubscriptionStore {
    let (clock, _) = Clock::manual(1_000);
    let stored = Stored { snapshot: Vec::new(), deltas: log.durable.lock().clone() };
    let (store, writer) =
        SubscriptionStore::open(stored, log.clone(), clock, SUBSCRIPTIONS_MAX).unwrap();
    tokio::spawn(writer);
    store
}

fn new(name: &str) -> NewSubscription {
    NewSubscription {
        name: name.into(),
        topic_ids: vec![topic(3), topic(3)],
        settings: SubscriptionSettings::default(),
        starts: vec![(topic(3), vec![0, 40])],
    }
}

async fn create(store: &SubscriptionStore, name: &str) -> u64 {
    store.create(new(name)).await.unwrap().subscription.unwrap().number
}

fn done(partition: u32, start: u64, end: u64) -> Change {
    Change::Done { lane: key(3, partition), run: Run::new(start, end) }
}

fn floor(store: &SubscriptionStore, number: u64, partition: u32) -> u64 {
    store.lane(number, &key(3, partition)).map_or(0, |lane| lane.image.floor)
}

/// Lets every task that can run do so.
async fn rest() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Handed in before the writer runs again: all of it is one append.
#[tokio::test]
async fn what_comes_while_a_flush_runs_is_one_append() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let number = create(&store, "s").await;
    log.gate.forget_permits(1_000_000);
    let first = store.record(number, [done(0, 0, 1)]);
    rest().await;
    let mut last = 0;
    for offset in 1..10_000 {
        last = store.record(number, [done(0, offset, offset + 1), done(1, offset, offset + 1)]);
    }
    assert_eq!((floor(&store, number, 0), store.durable() < first), (0, true));
    log.gate.add_permits(2);
    store.settled(last).await.unwrap();
    assert_eq!((floor(&store, number, 0), floor(&store, number, 1)), (10_000, 10_000));
    let bytes: Vec<usize> = log.durable.lock().iter().map(Bytes::len).collect();
    assert!(bytes.len() == 3 && bytes[2] < 200, "{bytes:?}: one run costs a few bytes");
}

#[tokio::test]
async fn subscriptions_are_created_once_and_changed_as_asked() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let first = store.create(new("s")).await.unwrap();
    let made = first.subscription.unwrap();
    assert_eq!((made.number, &made.topic_ids, first.changed), (1, &vec![topic(3)], true));
    assert_eq!((made.created_ms, floor(&store, 1, 1)), (1_000, 40));
    let again = store.create(new("s")).await.unwrap();
    assert_eq!(again, Outcome { subscription: Some(made), changed: false });
    let settings = v1::SubscriptionSettings { max_open: Some(7), ..Default::default() };
    let change = SubscriptionChange { settings, add_topics: vec![topic(4)], paused: Some(true) };
    let altered = store.alter("s", change.clone()).await.unwrap();
    assert!(altered.changed && !store.alter("s", change).await.unwrap().changed);
    let seen = store.subscription("s").unwrap();
    assert_eq!(altered.subscription, Some(seen.clone()));
    assert_eq!((seen.settings.delivery.open_max, seen.paused), (7, true));
    assert_eq!(seen.topic_ids, [topic(3), topic(4)]);
    let settings = v1::SubscriptionSettings { max_open: Some(0), ..Default::default() };
    let bad = SubscriptionChange { settings, ..Default::default() };
    assert!(matches!(store.alter("s", bad).await, Err(StoreError::Setting(_))));
    let unknown = store.alter("t", SubscriptionChange::default()).await;
    assert_eq!(unknown, Err(StoreError::Unknown { name: "t".into() }));
    assert_eq!(open(&log).subscriptions(), [seen]);
    for name in ["a", "b", "c", "d"] {
        create(&store, name).await;
    }
    let one_more = store.create(new("e")).await;
    assert_eq!(one_more, Err(StoreError::TooMany { max: SUBSCRIPTIONS_MAX }));
    assert!(!store.create(new("d")).await.unwrap().changed, "it exists");
}

#[tokio::test]
async fn what_is_about_something_deleted_is_dropped() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let (one, two) = (create(&store, "one").await, create(&store, "two").await);
    log.gate.forget_permits(1_000_000);
    store.record(one, [done(0, 0, 5)]);
    store.record(two, [done(0, 0, 5)]);
    let deletion = store.clone();
    let deletion = tokio::spawn(async move { deletion.delete("one").await });
    rest().await;
    let last = store.record(one, [done(0, 5, 9)]);
    let last = store.record(two, [done(0, 5, 9)]).max(last);
    log.gate.add_permits(1_000_000);
    store.settled(last).await.unwrap();
    deletion.await.unwrap().unwrap();
    assert_eq!((store.subscription("one"), floor(&store, two, 0)), (None, 9));
    assert!(create(&store, "one").await > two, "numbers are not used again");
    assert!(store.forget_topics(vec![topic(3)]).await.unwrap().changed);
    assert!(!store.forget_topics(vec![topic(3)]).await.unwrap().changed);
    let last = store.record(two, [done(0, 9, 12)]);
    store.settled(last).await.unwrap();
    let again = open(&log);
    assert_eq!(again.lane(two, &key(3, 0)), None);
    assert_eq!(again.subscription("two").unwrap().topic_ids, []);
}

#[tokio::test]
async fn a_full_store_says_so_and_drops_nothing() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let number = create(&store, "s").await;
    log.gate.forget_permits(1_000_000);
    store.record(number, [done(0, 0, 1)]);
    rest().await;
    let mut count = 0;
    while !store.is_full() {
        let start = 1_024 * count + 3;
        store.record(number, [done(0, start, start + 1)]);
        count += 1;
        assert!(count < 1_000_000, "it never gets full");
    }
    let waited = tokio::time::timeout(std::time::Duration::ZERO, store.has_room()).await;
    assert!(waited.is_err(), "there is no room");
    let last = store.record(number, [done(0, 1, 2)]);
    log.gate.add_permits(1_000_000);
    store.has_room().await.unwrap();
    store.settled(last).await.unwrap();
    let image = open(&log).lane(number, &key(3, 0)).unwrap().image;
    assert_eq!((image.floor, image.done.len()), (2, count));
}

#[tokio::test]
async fn nothing_is_settled_after_a_failed_append() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let number = create(&store, "s").await;
    *log.fails_at.lock() = Some((2, false));
    let lost = store.record(number, [done(0, 0, 5)]);
    let failed = StoreError::Failed { reason: "made to fail".into() };
    assert_eq!(store.settled(lost).await, Err(failed.clone()));
    assert_eq!((store.ended().await, store.failure()), (failed.clone(), Some(failed.clone())));
    let late = store.record(number, [done(0, 5, 6)]);
    assert_eq!(store.settled(late).await, Err(failed.clone()));
    assert_eq!(store.delete("s").await, Err(failed.clone()));
    assert_eq!(store.has_room().await, Err(failed));
    assert!(store.subscription("s").is_some() && floor(&store, number, 0) == 0);
}

#[tokio::test]
async fn closing_writes_what_was_handed_in_and_settles_nothing_later() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let number = create(&store, "s").await;
    let before = store.record(number, [done(0, 0, 5)]);
    store.close();
    let after = store.record(number, [done(0, 5, 9)]);
    assert_eq!(store.settled(before).await, Ok(()));
    assert_eq!(store.settled(after).await, Err(StoreError::Closed));
    assert_eq!(store.create(new("t")).await, Err(StoreError::Closed));
    assert_eq!(floor(&open(&log), number, 0), 5);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_makes_settled_records_wait() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let number = create(&store, "s").await;
    *log.is_full.lock() = true;
    let waiting = store.record(number, [done(0, 0, 5)]);
    while *log.refused.lock() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    *log.is_full.lock() = false;
    assert_eq!(store.settled(waiting).await, Ok(()));
    *log.is_full.lock() = true;
    let given_up = store.record(number, [done(0, 5, 6)]);
    rest().await;
    store.close();
    assert_eq!(store.settled(given_up).await, Err(StoreError::Closed));
    assert_eq!(floor(&open(&log), number, 0), 5);
}

#[tokio::test]
async fn cancelled_records_are_remembered_for_all_and_bounded() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let last = store.cancel_scheduled(key(3, 0), 8, 0).unwrap();
    store.settled(last).await.unwrap();
    let last = store.cancel_scheduled(key(3, 0), 30, 9).unwrap();
    store.settled(last).await.unwrap();
    let runs = |store: &SubscriptionStore| {
        store.cancelled(&key(3, 0)).map(|offsets| offsets.runs().collect::<Vec<_>>())
    };
    assert_eq!((runs(&store), runs(&open(&log))), (Some(vec![30..31; 1]), Some(vec![30..31; 1])));
    let mut count = 1;
    let refused = loop {
        match store.cancel_scheduled(key(3, 0), 1_024 * count, 0) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::TooManyCancelled { .. }), "{refused}");
    assert!((1_000..10_000).contains(&count), "{count}");
}

#[tokio::test]
async fn the_log_is_replaced_before_it_grows_long() {
    let log = MemoryLog::open(Vec::new());
    let store = open(&log);
    let number = create(&store, "s").await;
    let attempt = crate::delivery::Attempt {
        time_ms: 1,
        cause: crate::delivery::FailureCause::Nack,
        session: "s".into(),
        reason: "r".repeat(256).into(),
    };
    let lane = key(3, 0);
    for round in 0..200 {
        let failed = (1_000..1_100).map(|offset| Change::Failed {
            lane,
            offset,
            failures: round,
            not_before_ms: 0,
            attempt: attempt.clone(),
        });
        let last = store.record(number, failed);
        store.settled(last).await.unwrap();
    }
    assert!(*log.replaced.lock() >= 1);
    let bytes: usize = log.durable.lock().iter().map(Bytes::len).sum();
    assert!(bytes < 5 << 20, "{bytes} bytes to replay");
    assert_eq!(open(&log).lane(number, &lane), store.lane(number, &lane));
    assert_eq!(store.lane(number, &lane).unwrap().image.failures[&1_050].failures, 199);
}

/// Random changes of lanes and crashes: what the next start finds is what had happened up to some moment, and that
/// moment is not before the last one that was confirmed.
#[test]
fn what_was_settled_is_there_after_a_crash() {
    Random::each(40, |random| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut log = MemoryLog::open(Vec::new());
            create(&open(&log), "s").await;
            let mut now = [Model::at(0), Model::at(40)];
            for _ in 0..5 {
                let entries = log.durable.lock().clone();
                log = MemoryLog::open(entries);
                let happened = random.chance(2);
                let fails_at = 1 + usize::try_from(random.below(8)).unwrap();
                *log.fails_at.lock() = Some((fails_at, happened));
                let store = open(&log);
                let moments = live(&store, random, &now).await;
                let entries = log.durable.lock().clone();
                let found = open(&MemoryLog::open(entries));
                let found = [0, 1].map(|partition| {
                    Model::of(&found.lane(1, &key(3, partition)).unwrap_or_default())
                });
                let moment = moments
                    .iter()
                    .rev()
                    .find(|moment| moment.each_ref().map(Model::bounded) == found);
                now =
                    moment.expect("the state of some moment since the last confirmed one").clone();
            }
        });
    });
}

/// Hands in random changes until the log fails; returns the states since the last confirmed one.
async fn live(
    store: &SubscriptionStore,
    random: &mut Random,
    from: &[Model; 2],
) -> Vec<[Model; 2]> {
    let mut moments = vec![from.clone()];
    let mut confirmed = 0;
    let mut sequences = vec![store.durable()];
    loop {
        let mut now = moments.last().unwrap().clone();
        let lane = random.below(2);
        let key = key(3, u32::try_from(lane).unwrap());
        let step = Step::random(key, random);
        let model = &mut now[usize::try_from(lane).unwrap()];
        if !model.allows(&step) {
            continue;
        }
        model.apply(&step);
        let sequence = match step {
            Step::Change(change) => store.record(1, [change]),
            Step::Intend(offset, intent) => store.intend(1, key, offset, intent),
        };
        moments.push(now);
        sequences.push(sequence);
        if random.chance(8) {
            rest().await;
        }
        if random.chance(12) {
            match store.settled(sequence).await {
                Ok(()) => confirmed = moments.len() - 1,
                Err(StoreError::Failed { .. }) => return moments.split_off(confirmed),
                Err(error) => panic!("unexpected {error}"),
            }
        }
    }
}
