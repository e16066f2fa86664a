//! Dead letters: what they tell, that there is one of each, and the way back.

use std::time::Duration;

use bytes::Bytes;
use riverrun_broker::service::delivery::{
    error::PushError,
    redrive::{RedriveRequest, Redriven},
};
use riverrun_proto::{
    Header, Record,
    grpc::v1::{self, SettleStatus, settle_item::Outcome},
};
use riverrun_storage::disk::sim::{FlushHold, SimDisk};
use tokio::task::JoinHandle;

use crate::support::{
    broker::TestBroker,
    client::in_time,
    push::{Got, PushStubs, item, keyed, nack, open, spec, value},
    records::{fetch, values as values_of},
};

fn impatient() -> v1::SubscriptionSettings {
    v1::SubscriptionSettings {
        max_failures: Some(1),
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..v1::SubscriptionSettings::default()
    }
}

fn reject(got: &Got) -> v1::SettleItem {
    item(got, Outcome::Reject(v1::Reject { reason: "never".into() }))
}

async fn records(stubs: &mut PushStubs, topic: &str) -> Vec<v1::Record> {
    let read = stubs.topics.fetch.fetch(fetch(topic, 0)).await.unwrap().into_inner();
    read.partitions.into_iter().next().unwrap().records
}

fn header(record: &v1::Record, name: &str) -> Option<String> {
    let header = record.headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8(header.value.clone()?.to_vec()).unwrap())
}

async fn redrive(stubs: &mut PushStubs, request: v1::RedriveRequest) -> (u64, u64, u64) {
    let request = v1::RedriveRequest { subscription: "s".into(), ..request };
    let told = in_time(stubs.subscriptions.redrive(request)).await.unwrap().into_inner();
    (told.matched, told.redriven, told.failed)
}

#[tokio::test]
async fn a_dead_letter_tells_why_it_died_and_where_it_came_from() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, impatient()).await;
    let mut first = keyed("k", "poison");
    first.timestamp_ms = 1_700_000_000_000;
    first.headers =
        vec![Header { key: Bytes::from_static(b"mine"), value: Some(Bytes::from_static(b"1")) }];
    stubs.send(&[first, value("rejected")]).await;
    let mut session = stubs.session("w").await;
    let got = session.take(2).await;
    let statuses = session.settle(vec![nack(&got[0], 0), reject(&got[1])]).await;
    assert_eq!(statuses, [SettleStatus::Ok; 2]);
    stubs.lane_until(|lane| lane.dead == 2).await;
    let mut letters = records(&mut stubs, "s.dead").await;
    letters.sort_by_key(|letter| header(letter, "riverrun-dead-offset"));
    let letter = &letters[0];
    assert_eq!(letter.value.as_deref(), Some(&b"poison"[..]));
    assert_eq!(letter.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(letter.timestamp_ms, 1_700_000_000_000);
    for (name, expected) in [
        ("mine", "1"),
        ("riverrun-dead-reason", "max-failures"),
        ("riverrun-dead-detail", "no"),
        ("riverrun-dead-subscription", "s"),
        ("riverrun-dead-topic", "t"),
        ("riverrun-dead-partition", "0"),
        ("riverrun-dead-offset", "0"),
        ("riverrun-dead-failures", "1"),
    ] {
        assert_eq!(header(letter, name).as_deref(), Some(expected), "{name}");
    }
    let history = header(letter, "riverrun-dead-history").unwrap();
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    assert_eq!((&history[0]["cause"], &history[0]["session"]), (&"nack".into(), &"w".into()));
    assert_eq!(header(&letters[1], "riverrun-dead-reason").as_deref(), Some("rejected"));
    assert_eq!(header(&letters[1], "riverrun-dead-detail").as_deref(), Some("never"));
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_holds_up_nobody_and_is_written_later() {
    let broker = TestBroker::start().await;
    let settings = v1::SubscriptionSettings {
        dead_letter_topic: Some("graves".into()),
        order: Some(v1::DeliveryOrder::KeyFifo as i32),
        ..impatient()
    };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    // Too small for the letter: its headers alone are larger.
    let small = v1::TopicConfig { message_bytes_max: Some(1_024), ..Default::default() };
    stubs.topics.create("graves", 1, small).await;
    stubs.send(&[keyed("k", &"x".repeat(2_000)), keyed("k", "next")]).await;
    let mut session = stubs.session("w").await;
    let got = session.one().await;
    session.settle_one(nack(&got, 0)).await;
    let next = session.one().await;
    assert_eq!(next.value, "next", "its key goes on");
    session.ack(&[next]).await;
    let lane = stubs.lane().await;
    assert_eq!((lane.dead_pending, lane.dead, lane.floor), (1, 0, 0));
    let blocked = v1::IdleReason::DeadLetterBlocked;
    in_time(async { while stubs.explain().await.reason() != blocked {} }).await;
    let explained = stubs.explain().await;
    assert_eq!(explained.offset, Some(0));
    assert!(explained.message.contains("dead letter"), "{}", explained.message);
    let large = v1::AlterTopicRequest {
        topic: "graves".into(),
        config: Some(v1::TopicConfig { message_bytes_max: Some(1 << 20), ..Default::default() }),
        ..Default::default()
    };
    stubs.topics.admin.alter_topic(large).await.unwrap();
    stubs.lane_until(|lane| lane.dead == 1 && lane.dead_pending == 0).await;
    assert_eq!(records(&mut stubs, "graves").await.len(), 1);
    assert_eq!(stubs.lane().await.floor, 2);
}

#[tokio::test]
async fn a_letter_that_was_not_written_before_a_restart_is_written_once_after_it() {
    let broker = TestBroker::start().await;
    let settings =
        v1::SubscriptionSettings { dead_letter_topic: Some("graves".into()), ..impatient() };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    let small = v1::TopicConfig { message_bytes_max: Some(1_024), ..Default::default() };
    stubs.topics.create("graves", 1, small).await;
    stubs.send(&[value(&"x".repeat(2_000))]).await;
    let mut session = stubs.session("w").await;
    let got = session.one().await;
    session.settle_one(nack(&got, 0)).await;
    let blocked = v1::IdleReason::DeadLetterBlocked;
    in_time(async { while stubs.explain().await.reason() != blocked {} }).await;
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let large = v1::AlterTopicRequest {
        topic: "graves".into(),
        config: Some(v1::TopicConfig { message_bytes_max: Some(1 << 20), ..Default::default() }),
        ..Default::default()
    };
    stubs.topics.admin.alter_topic(large).await.unwrap();
    // Nobody consumes; it is written all the same.
    stubs.lane_until(|lane| lane.dead == 1).await;
    assert_eq!(records(&mut stubs, "graves").await.len(), 1);
}

#[tokio::test]
async fn dead_letters_come_back_once_and_by_choice() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, impatient()).await;
    let letters = [keyed("a", "0"), keyed("b", "1"), keyed("a", "2"), keyed("c", "3")];
    stubs.send(&letters).await;
    let mut session = stubs.session_with(open("w")).await.unwrap();
    session.grant(4, 1_000).await;
    let got = session.take(4).await;
    session.settle(got.iter().map(reject).collect()).await;
    stubs.lane_until(|lane| lane.dead == 4).await;
    let none = v1::RedriveRequest::default;
    let dry = v1::RedriveRequest { dry_run: true, ..none() };
    assert_eq!(redrive(&mut stubs, dry).await, (4, 0, 0));
    let mut times: Vec<i64> = records(&mut stubs, "s.dead").await.iter().map(died_ms).collect();
    times.sort_unstable();
    for (from_ms, until_ms, matched) in [
        (Some(times[0]), Some(times[3] + 1), 4),
        (None, Some(times[3] + 1), 4),
        (Some(times[0]), None, 4),
        (None, Some(times[0]), 0),
        (Some(times[3] + 1), None, 0),
    ] {
        let dry = v1::RedriveRequest { dry_run: true, from_ms, until_ms, ..none() };
        assert_eq!(redrive(&mut stubs, dry).await, (matched, 0, 0), "{from_ms:?} {until_ms:?}");
    }
    let by_key = v1::RedriveRequest { key: Some(Bytes::from_static(b"a")), ..none() };
    assert_eq!(redrive(&mut stubs, by_key.clone()).await, (2, 2, 0));
    assert_eq!(redrive(&mut stubs, by_key).await, (0, 0, 0), "a second call repeats nothing");
    let too_late = v1::RedriveRequest { from_ms: Some(i64::MAX), ..none() };
    assert_eq!(redrive(&mut stubs, too_late).await, (0, 0, 0));
    let too_early = v1::RedriveRequest { until_ms: Some(1), ..none() };
    assert_eq!(redrive(&mut stubs, too_early).await, (0, 0, 0));
    session.grant(10, 1_000).await;
    let back = session.take(2).await;
    let values: Vec<&str> = back.iter().map(|got| got.value.as_str()).collect();
    assert_eq!(values, ["0", "2"]);
    assert!(back.iter().all(|got| got.failures == 0 && got.offset >= 4));
    let revived = records(&mut stubs, "t").await.pop().unwrap();
    assert_eq!(header(&revived, "riverrun-redriven").as_deref(), Some("1"));
    assert_eq!(header(&revived, "riverrun-dead-reason"), None);
    session.ack(&back).await;
    // The rest, after a restart, elsewhere.
    session.half_close();
    session.until_ended().await.unwrap();
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.topics.create("other", 1, Default::default()).await;
    let elsewhere = v1::RedriveRequest { to_topic: "other".into(), max_records: 1, ..none() };
    assert_eq!(redrive(&mut stubs, elsewhere.clone()).await, (1, 1, 0));
    let rest = v1::RedriveRequest { max_records: 0, ..elsewhere };
    assert_eq!(redrive(&mut stubs, rest.clone()).await, (1, 1, 0));
    assert_eq!(redrive(&mut stubs, rest).await, (0, 0, 0));
    assert_eq!(stubs.topics.read("other").await, ["1", "3"]);
    let listed = stubs.subscriptions.list_subscriptions(v1::ListSubscriptionsRequest {}).await;
    let listed = listed.unwrap().into_inner().subscriptions;
    assert_eq!(listed.len(), 1, "what remembers it is nobody's subscription");
}

/// When the record of a letter died.
fn died_ms(letter: &v1::Record) -> i64 {
    header(letter, "riverrun-dead-time-ms").unwrap().parse().unwrap()
}

#[tokio::test]
async fn letters_of_a_later_time_come_back_and_earlier_ones_stay() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_subscription(&broker, impatient()).await;
    let mut session = stubs.session("w").await;
    let mut died = Vec::new();
    // Until two of them died at times that can be told apart.
    while died.len() < 2 || died.first() == died.last() {
        let number = died.len().to_string();
        stubs.send(&[keyed("k", &number)]).await;
        let got = session.one().await;
        session.settle_one(reject(&got)).await;
        stubs.lane_until(|lane| lane.dead > died.len() as u64).await;
        died = records(&mut stubs, "s.dead").await.iter().map(died_ms).collect();
    }
    let last_ms = died.pop().unwrap();
    let earlier = died.iter().filter(|time| **time < last_ms).count() as u64;
    assert_eq!(earlier, died.len() as u64, "{died:?} {last_ms}");
    let before =
        v1::RedriveRequest { until_ms: Some(last_ms), dry_run: true, ..Default::default() };
    assert_eq!(redrive(&mut stubs, before).await, (earlier, 0, 0));
    let later = v1::RedriveRequest { from_ms: Some(last_ms), ..Default::default() };
    assert_eq!(redrive(&mut stubs, later).await, (1, 1, 0));
    assert_eq!(session.one().await.value, earlier.to_string());
    assert_eq!(redrive(&mut stubs, Default::default()).await, (earlier, earlier, 0), "were left");
}

#[tokio::test]
async fn letters_of_a_topic_that_is_gone_fail_by_name() {
    let broker = TestBroker::start().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    stubs.topics.create("u", 1, Default::default()).await;
    let topics = vec!["t".to_owned(), "u".to_owned()];
    stubs.create("s", v1::SubscriptionSpec { topics, ..spec(impatient()) }).await.unwrap();
    stubs.send_to("u", 0, &[value("gone")]).await;
    let mut session = stubs.session("w").await;
    let got = session.one().await;
    session.settle_one(reject(&got)).await;
    in_time(async { while stubs.describe().await.partitions.iter().all(|lane| lane.dead == 0) {} })
        .await;
    let delete = v1::DeleteTopicRequest { topic: "u".into(), ..Default::default() };
    stubs.topics.admin.delete_topic(delete).await.unwrap();
    assert_eq!(redrive(&mut stubs, Default::default()).await, (1, 0, 1));
    stubs.topics.create("u", 1, Default::default()).await;
    assert_eq!(redrive(&mut stubs, Default::default()).await, (1, 1, 0));
}

/// Letters of a redrive that is cut short.
const LETTERS: usize = 300;

/// A redrive of many letters, held at a moment at which one is written to `t` and not durable.
struct HeldRedrive {
    stubs: PushStubs,
    asked: JoinHandle<Result<Redriven, PushError>>,
    held: FlushHold,
}

impl HeldRedrive {
    async fn begin(broker: &TestBroker, disk: &SimDisk) -> HeldRedrive {
        let mut stubs = PushStubs::with_subscription(broker, impatient()).await;
        stubs.send_numbers(LETTERS as u64).await;
        let mut session = stubs.session("w").await;
        let got = session.take(LETTERS).await;
        session.settle(got.iter().map(reject).collect()).await;
        stubs.lane_until(|lane| lane.dead == LETTERS as u64).await;
        drop(session);
        let delivery = broker.inside().services().delivery.clone();
        let request = RedriveRequest { subscription: "s".into(), ..RedriveRequest::default() };
        let asked = tokio::spawn(async move { delivery.redrive(request).await });
        let partition = broker.inside().registry().topic("t").unwrap().partition(0).unwrap();
        loop {
            let held = disk.hold_flushes();
            let is_written = || partition.log_end() > partition.visible().high_watermark;
            // What is stored before a letter is written may be what is held.
            for _ in 0..100 {
                if is_written() {
                    return HeldRedrive { stubs, asked, held };
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!asked.is_finished(), "no letter was on its way");
            drop(held);
            tokio::task::yield_now().await;
        }
    }
}

/// Each record came, and came back once.
async fn check_back_once(stubs: &mut PushStubs) {
    let mut values = Vec::new();
    // An answer may end with a segment, and a start after a kill begins one.
    loop {
        let next = fetch("t", values.len() as u64);
        let read = stubs.topics.fetch.fetch(next).await.unwrap().into_inner();
        let more = values_of(&read.partitions[0]);
        if more.is_empty() {
            break;
        }
        values.extend(more);
    }
    values.sort_unstable();
    let mut twice: Vec<String> =
        (0..LETTERS).flat_map(|number| [number.to_string(), number.to_string()]).collect();
    twice.sort_unstable();
    assert_eq!(values, twice);
}

#[tokio::test]
async fn a_letter_comes_back_once_also_when_who_asked_for_it_goes_away() {
    let disk = SimDisk::new(14);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let HeldRedrive { mut stubs, asked, held } = HeldRedrive::begin(&broker, &disk).await;
    asked.abort();
    assert!(asked.await.is_err(), "nothing was answered");
    drop(held);
    redrive(&mut stubs, Default::default()).await;
    check_back_once(&mut stubs).await;
}

#[tokio::test]
async fn a_letter_that_was_being_brought_back_when_the_broker_was_killed_comes_back_once() {
    let disk = SimDisk::new(15);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let HeldRedrive { stubs, asked, held } = HeldRedrive::begin(&broker, &disk).await;
    let left = disk.kill();
    asked.abort();
    drop((held, stubs, broker));
    let broker = TestBroker::start_on(left, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let (matched, redriven, failed) = redrive(&mut stubs, Default::default()).await;
    assert_eq!((redriven, failed), (matched, 0));
    check_back_once(&mut stubs).await;
}

#[tokio::test]
async fn a_letter_that_was_written_is_not_written_to_another_topic_too() {
    let broker = TestBroker::start().await;
    let to = |topic: &str| v1::SubscriptionSettings {
        dead_letter_topic: Some(topic.into()),
        ..impatient()
    };
    let mut stubs = PushStubs::with_subscription(&broker, to("graves")).await;
    stubs.topics.create("graves", 1, Default::default()).await;
    stubs.topics.create("others", 1, Default::default()).await;
    stubs.send(&[value("first"), value(&"x".repeat(2_000))]).await;
    let mut session = stubs.session("w").await;
    let got = session.take(2).await;
    session.settle_one(reject(&got[0])).await;
    stubs.lane_until(|lane| lane.dead == 1).await;
    let small = v1::AlterTopicRequest {
        topic: "graves".into(),
        config: Some(v1::TopicConfig { message_bytes_max: Some(1_024), ..Default::default() }),
        ..Default::default()
    };
    stubs.topics.admin.alter_topic(small).await.unwrap();
    session.settle_one(reject(&got[1])).await;
    let blocked = v1::IdleReason::DeadLetterBlocked;
    in_time(async { while stubs.explain().await.reason() != blocked {} }).await;
    // As if an append of which nobody could say what became had written it.
    let first = records(&mut stubs, "graves").await.remove(0);
    let id = header(&first, "riverrun-dead-id").unwrap();
    let id = format!("{}1", id.strip_suffix('0').unwrap());
    let id = Header { key: Bytes::from_static(b"riverrun-dead-id"), value: Some(id.into()) };
    stubs.send_to("graves", 0, &[Record { headers: vec![id], ..value("second") }]).await;
    stubs.alter(to("others")).await;
    stubs.lane_until(|lane| lane.dead == 2 && lane.dead_pending == 0).await;
    assert_eq!(stubs.topics.read("graves").await, ["first", "second"]);
    assert_eq!(records(&mut stubs, "others").await, []);
}
