//! Receivers that fail, slow and die: every record is delivered, or in the dead-letter topic with its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_proto::grpc::v1::{self, settle_item::Outcome};
use riverrun_storage::disk::sim::{CrashPolicy, SimDisk};
use tokio::sync::Semaphore;

use super::{
    allow_loopback, bodies, broker, broker_in, dead, hook, hooked, settled, standing_until,
};
use crate::support::{
    broker::TestBroker,
    client::in_time,
    push::{PushStubs, item, keyed, open, spec, value},
    receiver::{Answer, Hook, Receiver, status},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_delivered_or_dead_with_its_reason() {
    // Fails by what is asked for: some for ever, some once.
    let mut once = BTreeSet::new();
    let plan = move |hook: &Hook| {
        let text = hook.text();
        let is_first = once.insert(text.clone());
        match text.as_str() {
            "poison" => status(422),
            "5" if is_first => status(500),
            "6" if is_first => Answer::Cut,
            "7" if is_first => Answer::Silence,
            "8" => Answer::HalfBody(200),
            _ => status(204),
        }
    };
    let receiver = Receiver::start(plan).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(4), ..hooked(&receiver) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.alter(hook(v1::WebhookSettings { timeout_ms: Some(500), ..Default::default() })).await;
    stubs.send_numbers(10).await;
    stubs.send(&[value("poison")]).await;
    settled(&mut stubs).await;
    assert_eq!(
        dead(&mut stubs).await,
        [("poison".into(), "answered 422 Unprocessable Entity".into())]
    );
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).chain(["poison".into()]).collect();
    assert_eq!(bodies(&receiver.came()), expected);

    // It dies; the broker is started again meanwhile; it comes back.
    let address = receiver.die().await;
    stubs.send_numbers(20).await;
    standing_until(&mut stubs, |standing| standing.failed > 5).await;
    let dir = broker.stop().await.unwrap();
    let broker = broker_in(dir).await;
    let mut stubs = PushStubs::new(&broker).await;
    standing_until(&mut stubs, |standing| standing.failed > 0).await;
    let receiver = Receiver::start_at(address, |_| status(200)).await;
    settled(&mut stubs).await;
    let expected: BTreeSet<String> = (0..20).map(|n| n.to_string()).collect();
    let letters = dead(&mut stubs).await;
    for (text, reason) in letters.iter().filter(|(text, _)| text != "poison") {
        assert!(expected.contains(text) && reason.contains("cannot connect"), "{text}: {reason}");
    }
    let mut found: BTreeSet<String> = bodies(&receiver.came()).into_iter().collect();
    found.extend(letters.into_iter().map(|(text, _)| text).filter(|text| text != "poison"));
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_goes_on_once_there_is_room_to_read_again() {
    let gate = Arc::new(Semaphore::new(0));
    let opens = gate.clone();
    let receiver = Receiver::start(move |_| Answer::When(opens.clone(), 204)).await;
    let broker = TestBroker::start_with(|config| {
        allow_loopback(config);
        // Every look at a record takes of what may be read at once.
        config.subscriptions.cache_bytes_max = 0;
        config.limits.quota_wait = Duration::from_millis(20);
    })
    .await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    stubs.alter(hook(v1::WebhookSettings { concurrency: Some(1), ..Default::default() })).await;
    stubs.send_numbers(20).await;
    stubs.lane_until(|lane| lane.ready >= 10 && lane.in_flight > 0).await;
    let reading = broker.inside().services().fetch.reading().clone();
    let held = reading.take(reading.limit()).await.unwrap();
    gate.add_permits(100);
    // Long enough to be refused more often than there is credit.
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(held);
    settled(&mut stubs).await;
    let expected: BTreeSet<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&receiver.came()).into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_wears_out_no_records_and_gets_all_when_it_is_back() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    stubs.alter(hook(v1::WebhookSettings { concurrency: Some(1), ..Default::default() })).await;
    let address = receiver.die().await;
    stubs.send_numbers(30).await;
    standing_until(&mut stubs, |standing| standing.state() == v1::WebhookState::Broken).await;
    let told = stubs.explain().await;
    assert_eq!(told.reason(), v1::IdleReason::WebhookWaits, "{told:?}");
    assert!(told.message.contains("cannot connect") && told.until_ms.is_some(), "{told:?}");
    // Five failures open the breaker; the probes behind them count against nobody.
    standing_until(&mut stubs, |standing| standing.failures_in_row >= 7).await;
    let receiver = Receiver::start_at(address, |_| status(200)).await;
    let lane = settled(&mut stubs).await;
    assert_eq!(lane.dead, 0);
    let hooks = receiver.came();
    assert_eq!(bodies(&hooks).len(), 30);
    let failures = hooks.iter().map(|hook| hook.header("riverrun-failures").unwrap());
    assert_eq!(failures.map(|text| text.parse::<u32>().unwrap()).sum::<u32>(), 5);
    let standing = super::standing(&mut stubs).await;
    assert_eq!((standing.state(), standing.failures_in_row), (v1::WebhookState::Delivering, 0));
    assert_eq!(standing.delivered, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lasts_for_as_long_as_a_request_may_take() {
    let receiver = Receiver::start(|_| Answer::Silence).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { ack_wait_ms: Some(1_000), ..hooked(&receiver) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let minute = v1::WebhookSettings { timeout_ms: Some(60_000), ..Default::default() };
    stubs.alter(hook(minute)).await;
    let before_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    stubs.send(&[value("slow")]).await;
    receiver.count(1).await;
    let peek = v1::PeekSubscriptionRequest { subscription: "s".into(), max_records: 1 };
    let peeked = in_time(stubs.subscriptions.peek_subscription(peek)).await.unwrap().into_inner();
    let until_ms = peeked.records[0].until_ms.expect("a lease");
    assert!(i128::from(until_ms) >= i128::try_from(before_ms).unwrap() + 60_000, "{until_ms}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_always_refused_by_a_sick_receiver_is_dead_in_the_end_and_holds_up_its_partition_no_longer()
 {
    let plan = |hook: &Hook| status(if hook.text() == "poison" { 500 } else { 200 });
    let receiver = Receiver::start(plan).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings {
        order: Some(v1::DeliveryOrder::PartitionFifo as i32),
        max_failures: Some(6),
        ..hooked(&receiver)
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("poison"), value("next")]).await;
    settled(&mut stubs).await;
    let reason = "answered 500 Internal Server Error";
    assert_eq!(dead(&mut stubs).await, [("poison".into(), reason.into())]);
    let came: Vec<String> = receiver.came().iter().map(Hook::text).collect();
    assert_eq!(came, ["poison", "poison", "poison", "poison", "poison", "poison", "next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_time_gets_it_and_no_record_fails() {
    let mut first = true;
    let plan = move |_: &Hook| match std::mem::take(&mut first) {
        true => Answer::Head(503, vec!["retry-after: 1".into()]),
        false => status(200),
    };
    let receiver = Receiver::start(plan).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(1), ..hooked(&receiver) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.alter(hook(v1::WebhookSettings { concurrency: Some(1), ..Default::default() })).await;
    stubs.send_numbers(3).await;
    receiver.count(1).await;
    let told = standing_until(&mut stubs, |standing| standing.postponed == 1).await;
    assert_eq!(told.last_failure, "answered 503 Service Unavailable");
    let lane = settled(&mut stubs).await;
    assert_eq!(lane.dead, 0, "a single failure would have been the end of it");
    let hooks = receiver.came();
    assert_eq!(hooks.len(), 4);
    let told = |hook: &Hook| {
        let header = |name| hook.header(name).unwrap().to_owned();
        (hook.text(), header("riverrun-attempts"), header("riverrun-failures"))
    };
    assert_eq!(told(&hooks[1]), ("0".into(), "2".into(), "0".into()), "{hooks:?}");
    assert_eq!(hooks[0].header("webhook-id"), hooks[1].header("webhook-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_time_for_ever_wears_a_record_out() {
    // A date that is over asks for the least time there is.
    let past = "retry-after: Thu, 01 Jan 1970 00:00:00 GMT";
    let receiver = Receiver::start(move |_| Answer::Head(429, vec![past.into()])).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(1), ..hooked(&receiver) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("late")]).await;
    settled(&mut stubs).await;
    let reason = "answered 429 Too Many Requests";
    assert_eq!(dead(&mut stubs).await, [("late".into(), reason.into())]);
    assert_eq!(receiver.came().len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_pauses_its_subscription() {
    let receiver = Receiver::start(|_| status(410)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    stubs.alter(hook(v1::WebhookSettings { concurrency: Some(1), ..Default::default() })).await;
    stubs.send_numbers(3).await;
    // What is stored counts a moment later.
    in_time(async { while stubs.explain().await.reason() != v1::IdleReason::Paused {} }).await;
    assert!(stubs.describe().await.paused);
    assert_eq!(super::standing(&mut stubs).await.last_failure, "answered 410 Gone");
    assert_eq!(receiver.came().len(), 1);
    // After somebody looked it goes on with nothing lost and nothing counted.
    receiver.plan(|_| status(200));
    let resume = v1::ResumeSubscriptionRequest { subscription: "s".into() };
    in_time(stubs.subscriptions.resume_subscription(resume)).await.unwrap();
    settled(&mut stubs).await;
    assert_eq!(bodies(&receiver.came()), ["0", "1", "2"]);
    assert!(receiver.came().iter().all(|hook| hook.header("riverrun-failures") == Some("0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_key_come_one_after_another_also_under_failures() {
    let taken: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
    let book = taken.clone();
    let mut tries: BTreeMap<String, u32> = BTreeMap::new();
    let plan = move |hook: &Hook| {
        let tried = tries.entry(hook.text()).or_default();
        *tried += 1;
        // Every third record fails twice.
        let number: u32 = hook.text().parse().unwrap();
        if number.is_multiple_of(3) && *tried <= 2 {
            return status(if number.is_multiple_of(2) { 400 } else { 500 });
        }
        let key = hook.header("riverrun-key").unwrap().to_owned();
        book.lock().entry(key).or_default().push(hook.text());
        status(200)
    };
    let receiver = Receiver::start(plan).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings {
        order: Some(v1::DeliveryOrder::KeyFifo as i32),
        ..hooked(&receiver)
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let records: Vec<_> = (0..60).map(|n| keyed(&format!("k{}", n % 4), &n.to_string())).collect();
    stubs.send(&records).await;
    settled(&mut stubs).await;
    let taken = taken.lock().clone();
    let expected = (0..4).map(|key| {
        let texts = (0..60).filter(|n| n % 4 == key).map(|n| n.to_string());
        (format!("k{key}"), texts.collect::<Vec<_>>())
    });
    assert_eq!(taken, expected.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_requests_are_under_way_and_no_more() {
    let permits = Arc::new(Semaphore::new(0));
    let held = permits.clone();
    let receiver = Receiver::start(move |_| Answer::When(held.clone(), 200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    let three = v1::WebhookSettings {
        concurrency: Some(3),
        timeout_ms: Some(60_000),
        ..Default::default()
    };
    stubs.alter(hook(three)).await;
    stubs.send_numbers(9).await;
    receiver.count(3).await;
    let lane = stubs.lane().await;
    assert_eq!((lane.in_flight, lane.ready), (3, 6), "{lane:?}");
    permits.add_permits(1);
    receiver.count(4).await;
    assert_eq!(receiver.came().len(), 4);
    let five = v1::WebhookSettings { concurrency: Some(5), ..Default::default() };
    stubs.alter(hook(five)).await;
    receiver.count(6).await;
    permits.add_permits(100);
    settled(&mut stubs).await;
    assert_eq!(receiver.came().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_outs_that_were_given_back_are_no_answers_that_asked_for_time() {
    let mut first = true;
    let plan = move |_: &Hook| match std::mem::take(&mut first) {
        true => Answer::Head(503, vec!["retry-after: 1".into()]),
        false => status(200),
    };
    let receiver = Receiver::start(plan).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(1), ..Default::default() };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("patient")]).await;
    let mut session = stubs.session_with(open("w")).await.unwrap();
    session.grant(25, 1 << 20).await;
    for _ in 0..25 {
        let got = session.one().await;
        let released = session.settle_one(item(&got, Outcome::Release(v1::Release {}))).await;
        assert_eq!(released, v1::SettleStatus::Ok);
    }
    stubs.alter(hooked(&receiver)).await;
    let lane = settled(&mut stubs).await;
    assert_eq!(lane.dead, 0, "it was put off once");
    assert_eq!(receiver.came()[1].header("riverrun-attempts"), Some("27"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_lease_ended_before_it_was_read_is_not_posted() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = TestBroker::start_with(|config| {
        super::allow_loopback(config);
        // Every look at a record takes of what may be read at once.
        config.subscriptions.cache_bytes_max = 0;
        config.limits.quota_wait = Duration::from_secs(60);
    })
    .await;
    let settings = v1::SubscriptionSettings {
        ack_wait_ms: Some(1_000),
        backoff_min_ms: Some(600_000),
        backoff_max_ms: Some(600_000),
        ..Default::default()
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("late")]).await;
    // It is found for somebody who does not want it yet.
    let _idle = stubs.session_with(open("idle")).await.unwrap();
    stubs.lane_until(|lane| lane.ready == 1).await;
    let reading = broker.inside().services().fetch.reading().clone();
    let held = reading.take(reading.limit()).await.unwrap();
    let webhook = v1::WebhookSettings { url: Some(receiver.url()), ..Default::default() };
    stubs.alter(hook(webhook)).await;
    stubs.lane_until(|lane| lane.retrying == 1).await;
    drop(held);
    // What comes behind it shows that it was looked at.
    stubs.send(&[value("next")]).await;
    standing_until(&mut stubs, |standing| standing.delivered >= 1).await;
    receiver.until(|hooks| hooks.iter().any(|hook| hook.text() == "next")).await;
    assert_eq!(bodies(&receiver.came()), ["next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_the_place_of_one_that_a_power_loss_took_has_another_id() {
    let receiver = Receiver::start(|_| status(200)).await;
    let disk = SimDisk::new(7);
    let broker = TestBroker::start_on(disk.clone(), super::allow_loopback).await;
    let mut stubs = PushStubs::new(&broker).await;
    let config =
        v1::TopicConfig { durability: Some(v1::Durability::Os as i32), ..Default::default() };
    stubs.topics.create("t", 1, config).await;
    assert!(stubs.create("s", spec(hooked(&receiver))).await.unwrap());
    stubs.send(&[value("lost")]).await;
    let lost = receiver.count(1).await.remove(0);
    let left = disk.crash(CrashPolicy::lose_all());
    drop(broker);
    let broker = TestBroker::start_on(left, super::allow_loopback).await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.send(&[value("new")]).await;
    let is_new = |hook: &Hook| hook.text() == "new";
    let hooks = receiver.until(|hooks| hooks.iter().any(is_new)).await;
    let new = hooks.iter().find(|hook| is_new(hook)).unwrap();
    assert_eq!(new.header("riverrun-offset"), lost.header("riverrun-offset"));
    assert_ne!(new.header("webhook-id"), lost.header("webhook-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_at_the_end_of_the_broker_is_repeated_under_its_id() {
    let receiver = Receiver::start(|_| Answer::Silence).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(1), ..hooked(&receiver) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("once")]).await;
    let first = receiver.count(1).await.remove(0);
    let dir = broker.stop().await.unwrap();
    receiver.plan(|_| status(200));
    let broker = broker_in(dir).await;
    let mut stubs = PushStubs::new(&broker).await;
    let lane = settled(&mut stubs).await;
    assert_eq!(lane.dead, 0, "the end of the broker is no failure of the record");
    let second = receiver.count(2).await.remove(1);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!((second.text(), second.header("riverrun-failures")), ("once".into(), Some("0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_while_the_broker_stops_counts() {
    let permits = Arc::new(Semaphore::new(0));
    let held = permits.clone();
    let receiver = Receiver::start(move |_| Answer::When(held.clone(), 200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    stubs.send(&[value("last")]).await;
    receiver.count(1).await;
    let mut watching = stubs.session_with(crate::support::push::open("watch")).await.unwrap();
    let stopping = tokio::spawn(broker.stop());
    // The end was announced once another session hears of it; then the answer comes.
    while watching.goaway.is_none() {
        assert!(watching.pump().await, "{watching:?}");
    }
    permits.add_permits(1);
    let dir = in_time(stopping).await.unwrap().unwrap();
    let broker = broker_in(dir).await;
    let mut stubs = PushStubs::new(&broker).await;
    assert_eq!(stubs.lane().await.lag, 0);
    assert_eq!(receiver.came().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_empty_records_arrive_as_they_are() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    let large: Vec<u8> = (0..900_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let tombstone = riverrun_proto::Record { key: Some("k".into()), ..Default::default() };
    let large_record = riverrun_proto::Record {
        value: Some(Bytes::from(large.clone())),
        key: Some(Bytes::from(vec![b'k'; 30_000])),
        ..Default::default()
    };
    stubs.send(&[large_record, tombstone, value("")]).await;
    settled(&mut stubs).await;
    let mut hooks = receiver.came();
    hooks.sort_by_key(|hook| hook.header("riverrun-offset").unwrap().parse::<u64>().unwrap());
    assert!(hooks[0].body == large, "every byte");
    assert_eq!(
        (hooks[0].header("riverrun-key"), hooks[0].header("riverrun-headers-omitted")),
        (None, Some("1"))
    );
    assert_eq!((hooks[1].body.len(), hooks[1].header("riverrun-tombstone")), (0, Some("true")));
    assert_eq!((hooks[2].body.len(), hooks[2].header("riverrun-tombstone")), (0, None));
}
