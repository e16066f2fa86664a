//! The client's subscriber and receiver against a real broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_client::{
    Client, ErrorCode, Job, Mode, Offset, Outcome, Record, Seek, StartAt, Subscriber,
    SubscriberEvent, SubscriptionSettings, SubscriptionSpec, TopicPartition,
};

use crate::support::{
    broker::TestBroker,
    client::{client_with_topic, in_time, number, restart, send_numbers},
};

/// Failures are tried again almost at once.
fn quick() -> SubscriptionSettings {
    SubscriptionSettings {
        backoff_min: Some(Duration::from_millis(1)),
        backoff_max: Some(Duration::from_millis(1)),
        ..SubscriptionSettings::default()
    }
}

async fn next(jobs: &mut Subscriber) -> Job {
    in_time(jobs.next()).await.expect("not over").expect("no error")
}

/// Records not settled and dead letters, over all partitions.
async fn lag_and_dead(mq: &Client) -> (u64, u64) {
    let described = mq.admin().describe_subscription("s").await.unwrap();
    let partitions = described.partitions.iter();
    partitions.fold((0, 0), |(lag, dead), one| (lag + one.lag, dead + one.dead))
}

#[tokio::test]
async fn several_subscribers_share_the_records_and_lose_none() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..3_000).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut runs = Vec::new();
    let mut stops = Vec::new();
    for _ in 0..4 {
        let jobs = mq.subscribe("t").name("s").credit(50, 1 << 20).open().await.unwrap();
        stops.push(jobs.stopper());
        let seen = seen.clone();
        runs.push(tokio::spawn(jobs.run(8, move |job| {
            let seen = seen.clone();
            async move { seen.lock().push(number(job.record())) }
        })));
    }
    while lag_and_dead(&mq).await.0 > 0 {
        tokio::task::yield_now().await;
    }
    stops.iter().for_each(riverrun_client::Stopper::stop);
    for run in runs {
        in_time(run).await.unwrap().unwrap();
    }
    let mut seen = std::mem::take(&mut *seen.lock());
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..3_000), "every record once");
}

#[tokio::test]
async fn a_stop_in_the_middle_of_work_ends_the_session_and_opens_no_other() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..3_000).await;
    for _ in 0..10 {
        let jobs = mq.subscribe("t").name("s").open().await.unwrap();
        let (mut events, stop) = (jobs.events(), jobs.stopper());
        let done = Arc::new(tokio::sync::Semaphore::new(0));
        let handled = done.clone();
        let run = tokio::spawn(jobs.run(16, move |_| {
            let handled = handled.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                handled.add_permits(1);
            }
        }));
        drop(in_time(done.acquire_many(40)).await.unwrap());
        stop.stop();
        in_time(run).await.unwrap().unwrap();
        drop(stop);
        while let Some(event) = in_time(events.next()).await {
            let broke = matches!(event, SubscriberEvent::Disconnected(_));
            assert!(!broke, "after a stop: {event:?}");
        }
    }
}

#[tokio::test]
async fn every_outcome_means_what_it_says() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..5).await;
    let settings = SubscriptionSettings { max_failures: Some(2), ..quick() };
    let mut jobs = mq.subscribe("t").name("s").settings(settings).open().await.unwrap();
    let mut history: BTreeMap<u64, Vec<(u32, u32)>> = BTreeMap::new();
    // 0 is done, 1 fails once, 2 fails for ever, 3 is given back once, 4 is rejected.
    for _ in 0..8 {
        let job = next(&mut jobs).await;
        let n = number(job.record());
        let tries = history.entry(n).or_default();
        tries.push((job.attempts(), job.failures()));
        match (n, tries.len()) {
            (1, 1) => job.nack("once"),
            (2, _) => job.nack("for ever"),
            (3, 1) => job.release(),
            (4, _) => job.reject("never"),
            _ => in_time(job.ack_sync()).await.unwrap(),
        }
    }
    in_time(jobs.close()).await.unwrap();
    let twice_failing = vec![(1, 0), (2, 1)];
    let expected = BTreeMap::from([
        (0, vec![(1, 0)]),
        (1, twice_failing.clone()),
        (2, twice_failing),
        (3, vec![(1, 0), (2, 0)]),
        (4, vec![(1, 0)]),
    ]);
    assert_eq!(history, expected);
    while lag_and_dead(&mq).await != (0, 2) {
        tokio::task::yield_now().await;
    }
    let mut dead = mq.consumer("s.dead").build().await.unwrap();
    let mut reasons = BTreeMap::new();
    while reasons.len() < 2 {
        for record in &in_time(dead.next_batch()).await.unwrap() {
            let text = |name| String::from_utf8_lossy(record.header(name).unwrap()).into_owned();
            reasons.insert(
                number(&record),
                (text("riverrun-dead-reason"), text("riverrun-dead-detail")),
            );
        }
    }
    assert_eq!(reasons[&2], ("max-failures".into(), "for ever".into()));
    assert_eq!(reasons[&4], ("rejected".into(), "never".into()));

    let counted = mq.admin().redrive("s").dry_run().await.unwrap();
    assert_eq!((counted.matched, counted.redriven), (2, 0));
    let redriven = mq.admin().redrive("s").await.unwrap();
    assert_eq!((redriven.redriven, redriven.failed), (2, 0));
    assert_eq!(mq.admin().redrive("s").await.unwrap().redriven, 0, "each only once");
    let mut jobs = mq.subscription("s").open().await.unwrap();
    let again = [next(&mut jobs).await, next(&mut jobs).await];
    let numbers: BTreeSet<u64> = again.iter().map(|job| number(job.record())).collect();
    assert_eq!(numbers, BTreeSet::from([2, 4]));
}

#[tokio::test]
async fn keys_keep_their_order_while_handlers_run_at_once_and_fail() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    // 37 keys, as `send_numbers` gives them.
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..1_500).await;
    let done: Arc<Mutex<BTreeMap<u64, Vec<u64>>>> = Arc::default();
    let busy: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let builder = mq.subscribe("t").name("s").settings(quick()).mode(Mode::KeyFifo);
    let jobs = builder.open().await.unwrap();
    let stop = jobs.stopper();
    let seen = done.clone();
    let run = tokio::spawn(jobs.run(16, move |job| {
        let (done, busy) = (seen.clone(), busy.clone());
        async move {
            let n = number(job.record());
            assert!(busy.lock().insert(n % 37), "a key in two hands");
            tokio::task::yield_now().await;
            assert!(busy.lock().remove(&(n % 37)));
            if n.is_multiple_of(5) && job.failures() == 0 {
                return Err("not yet");
            }
            done.lock().entry(n % 37).or_default().push(n);
            Ok(())
        }
    }));
    while lag_and_dead(&mq).await.0 > 0 {
        tokio::task::yield_now().await;
    }
    stop.stop();
    in_time(run).await.unwrap().unwrap();
    for (key, numbers) in &*done.lock() {
        let expected = (0..1_500).filter(|n| n % 37 == *key);
        assert!(numbers.iter().copied().eq(expected), "key {key}: {numbers:?}");
    }
}

#[tokio::test]
async fn a_restart_of_the_broker_loses_no_outcome() {
    let mut broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..600).await;
    let mut jobs = mq.subscribe("t").name("s").credit(100, 1 << 20).open().await.unwrap();
    let mut acked = BTreeSet::new();
    for until in [100, 200, 300, 600] {
        while acked.len() < until {
            let job = next(&mut jobs).await;
            let n = number(job.record());
            // What was in hand over a restart may come again; what was confirmed never does.
            if in_time(job.ack_sync()).await.is_ok() {
                assert!(acked.insert(n), "{n} was durable and came again");
            }
        }
        broker = restart(broker).await;
    }
    in_time(jobs.close()).await.unwrap();
    assert_eq!(lag_and_dead(&mq).await, (0, 0));
    drop(broker);
}

#[tokio::test]
async fn pushing_and_asking_are_one_subscription() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..60).await;
    let mut seen = Vec::new();
    let mut pushed = mq.subscribe("t").name("s").credit(10, 1 << 20).open().await.unwrap();
    for _ in 0..20 {
        let job = next(&mut pushed).await;
        seen.push(number(job.record()));
        job.ack();
    }
    in_time(pushed.close()).await.unwrap();
    let mut asking = mq.subscription("s").receiver().unwrap();
    while seen.len() < 40 {
        for job in in_time(asking.receive(7, Duration::from_secs(5))).await.unwrap() {
            seen.push(number(job.record()));
            job.ack();
        }
    }
    in_time(asking.close()).await.unwrap();
    let mut pushed = mq.subscription("s").open().await.unwrap();
    while seen.len() < 60 {
        let job = next(&mut pushed).await;
        seen.push(number(job.record()));
        in_time(job.ack_sync()).await.unwrap();
    }
    assert!(seen.into_iter().eq(0..60), "nothing lost, nothing twice");
    assert_eq!(lag_and_dead(&mq).await, (0, 0));
}

#[tokio::test]
async fn what_waits_too_long_comes_back_without_a_failure_and_what_runs_is_extended() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..2).await;
    let settings = SubscriptionSettings { ack_wait: Some(Duration::from_secs(1)), ..quick() };
    let jobs = mq.subscribe("t").name("s").settings(settings).open().await.unwrap();
    let stop = jobs.stopper();
    let tries: Arc<Mutex<Vec<(u64, u32)>>> = Arc::default();
    let seen = tries.clone();
    // One at a time: the second record waits in the client while the first runs for three leases.
    let run = tokio::spawn(jobs.run(1, move |job| {
        let seen = seen.clone();
        async move {
            seen.lock().push((number(job.record()), job.failures()));
            if number(job.record()) == 0 {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            Outcome::Done
        }
    }));
    while lag_and_dead(&mq).await.0 > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.stop();
    in_time(run).await.unwrap().unwrap();
    assert_eq!(*tries.lock(), [(0, 0), (1, 0)]);
}

#[tokio::test]
async fn operators_move_a_subscription_under_its_consumers() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let admin = mq.admin();
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..10).await;
    assert!(admin.create_subscription("s", &SubscriptionSpec::new("t")).await.unwrap());
    assert!(!admin.create_subscription("s", &SubscriptionSpec::new("t")).await.unwrap());
    let mut jobs = mq.subscription("s").credit(2, 1 << 20).open().await.unwrap();
    let mut events = jobs.events();
    let held = next(&mut jobs).await;
    assert_eq!(number(held.record()), 0);
    let moved = admin.seek_subscription("s", Seek::Offset(Offset(7))).await.unwrap();
    assert_eq!((moved[0].from, moved[0].to), (Offset(0), Offset(7)));
    let revoked = async {
        loop {
            if let Some(SubscriberEvent::Revoked { .. }) = events.next().await {
                return;
            }
        }
    };
    in_time(revoked).await;
    assert!(held.is_revoked());
    drop(held);
    let job = next(&mut jobs).await;
    assert_eq!(number(job.record()), 7);
    job.ack();

    // A subscription read by pull keeps its position.
    in_time(jobs.close()).await.unwrap();
    let t0 = TopicPartition::new("t", 0);
    assert_eq!(admin.advance_subscription("s", &t0, Offset(9)).await.unwrap(), Offset(9));
    let peeked = admin.peek_subscription("s", 10).await.unwrap();
    assert_eq!(peeked.iter().map(|one| number(&one.record)).collect::<Vec<_>>(), [9]);

    let mut jobs = mq.subscription("s").open().await.unwrap();
    in_time(next(&mut jobs).await.ack_sync()).await.unwrap();
    let refused = admin.delete_subscription("s", false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SubscriptionInUse);
    admin.delete_subscription("s", true).await.unwrap();
    let end = in_time(jobs.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), ErrorCode::UnknownSubscription);
    assert!(jobs.next().await.is_none());
}

#[tokio::test]
async fn a_session_refused_for_its_mode_leaves_nothing_behind() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..3).await;
    let admin = mq.admin();
    assert!(admin.create_subscription("s", &SubscriptionSpec::new("t")).await.unwrap());
    let opening = mq.subscribe("t").name("s").mode(Mode::Exclusive).open();
    let refused = in_time(opening).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SubscriptionExists);
    admin.delete_subscription("s", false).await.expect("nobody uses it");
}

/// Acknowledges pushed records until `seen` has this many.
async fn settle_until(mq: &Client, seen: &mut BTreeSet<u64>, count: usize) {
    let mut jobs = mq.subscription("s").credit(10, 1 << 20).open().await.unwrap();
    while seen.len() < count {
        let job = next(&mut jobs).await;
        assert!(seen.insert(number(job.record())), "repeated: {:?}", job.record());
        in_time(job.ack_sync()).await.unwrap();
    }
    in_time(jobs.close()).await.unwrap();
}

#[tokio::test]
async fn a_pull_group_becomes_a_subscription_that_is_pulled_and_pushed_again() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    let admin = mq.admin();
    let producer = mq.producer("t").build().await.unwrap();
    send_numbers(&producer, 0..200).await;
    let mut seen = BTreeSet::new();
    let mut group = mq.consumer("t").group("g").max_records(20).build().await.unwrap();
    while seen.len() < 100 {
        let batch = in_time(group.next_batch()).await.unwrap();
        seen.extend(batch.iter().map(|record| number(&record)));
        in_time(group.commit(&batch)).await.unwrap();
    }
    in_time(group.close()).await.unwrap();
    let pulled = seen.clone();
    let spec = SubscriptionSpec::new("t").start(StartAt::Group("g".into()));
    assert!(admin.create_subscription("s", &spec).await.unwrap());
    settle_until(&mq, &mut seen, 200).await;
    assert!(seen.iter().copied().eq(0..200), "the rest came, and nothing of {pulled:?}");
    assert_eq!(lag_and_dead(&mq).await, (0, 0));

    // By pull from where the subscription stands, which is told how far the reader came.
    send_numbers(&producer, 200..300).await;
    let described = admin.describe_subscription("s").await.unwrap();
    for lane in &described.partitions {
        let builder = mq.consumer("t").assign([lane.partition.clone()]).max_records(10);
        let mut pull = builder.build().await.unwrap();
        pull.seek(&lane.partition, Seek::Offset(lane.floor)).await.unwrap();
        let batch = in_time(pull.next_batch()).await.unwrap();
        for record in &batch {
            assert!(seen.insert(number(&record)), "pulled again: {record:?}");
        }
        let next = batch.next_offset();
        let stored = admin.advance_subscription("s", &lane.partition, next).await.unwrap();
        assert_eq!(stored, next);
        in_time(pull.close()).await.unwrap();
    }
    assert!(seen.len() > 200 && seen.len() < 300, "{} records", seen.len());
    settle_until(&mq, &mut seen, 300).await;
    assert!(seen.into_iter().eq(0..300));
    assert_eq!(lag_and_dead(&mq).await, (0, 0));
}

#[tokio::test]
async fn scheduled_records_are_withheld_and_can_be_cancelled() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let producer = mq.producer("t").build().await.unwrap();
    let hour = Duration::from_secs(3600);
    let later = producer.send(Record::new("1").deliver_after(hour)).await.unwrap();
    let later = in_time(later).await.unwrap();
    send_numbers(&producer, 2..3).await;
    let mut jobs = mq.subscribe("t").name("s").open().await.unwrap();
    let job = next(&mut jobs).await;
    assert_eq!(number(job.record()), 2);
    in_time(job.ack_sync()).await.unwrap();
    assert_eq!(lag_and_dead(&mq).await.0, 1);
    let t0 = TopicPartition::new("t", 0);
    assert!(mq.admin().cancel_scheduled(&t0, later.offset).await.unwrap());
    assert_eq!(lag_and_dead(&mq).await.0, 0);
    assert!(!mq.admin().cancel_scheduled(&t0, Offset(1)).await.is_ok_and(|in_time| in_time));
}
