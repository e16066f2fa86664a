//! Housekeeping of a running broker drops what retention does not keep, and nothing else.

use std::time::Duration;

use riverrun_broker::clock::{Clock, ClockHand};
use riverrun_proto::{
    Record,
    batch::{BatchBuilder, BuilderOptions, Compression},
    grpc::v1,
};
use riverrun_storage::disk::sim::SimDisk;

use crate::support::{
    broker::{Stubs, TestBroker},
    client::in_time,
    records::append,
};

const DAY_MS: i64 = 86_400_000;
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A broker whose rounds are quick and whose time the test moves.
async fn house() -> (TestBroker, ClockHand) {
    let (clock, hand) = Clock::manual(1_700_000_000_000);
    let broker = TestBroker::start_at((SimDisk::new(1), clock), |config| {
        config.disk.housekeeping_interval = Duration::from_millis(1);
    });
    (broker.await, hand)
}

fn keeping(retention_ms: i64, policy: v1::CleanupPolicy) -> v1::TopicConfig {
    let cleanup_policy = Some(policy as i32);
    v1::TopicConfig { retention_ms: Some(retention_ms), cleanup_policy, ..Default::default() }
}

async fn alter(stubs: &mut Stubs, topic: &str, config: v1::TopicConfig) {
    let config = Some(config);
    let request = v1::AlterTopicRequest { topic: topic.into(), config, ..Default::default() };
    stubs.admin.alter_topic(request).await.expect("altered");
}

/// First offset kept and first not visible.
async fn kept(stubs: &mut Stubs, topic: &str) -> (u64, u64) {
    let request = v1::DescribeTopicRequest { topic: topic.into() };
    let described = stubs.admin.describe_topic(request).await.expect("described").into_inner();
    let partition = &described.partitions[0];
    (partition.log_start_offset, partition.high_watermark)
}

/// Waits until all records of a topic are dropped.
async fn emptied(stubs: &mut Stubs, topic: &str) {
    in_time(async {
        loop {
            let (start, end) = kept(stubs, topic).await;
            if start == end {
                return;
            }
        }
    })
    .await;
}

/// Appends a record with a key.
async fn put(stubs: &mut Stubs, topic: &str, (key, value): (&'static str, &'static str)) {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    let record = Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() };
    builder.push(&record).expect("allowed");
    let batch = builder.build().expect("not empty").into_bytes();
    let payload = Some(v1::append_request::Payload::Batch(batch));
    let request = v1::AppendRequest { payload, ..append(topic, &["unused"]) };
    stubs.produce.append(request).await.expect("appended");
}

#[tokio::test]
async fn old_records_go_and_those_of_a_compacted_topic_stay() {
    let (broker, hand) = house().await;
    let mut stubs = broker.stubs().await;
    let topics = [
        ("compacted", v1::CleanupPolicy::Compact),
        ("both", v1::CleanupPolicy::CompactDelete),
        ("dropped", v1::CleanupPolicy::Delete),
    ];
    for (topic, policy) in topics {
        stubs.create(topic, 1, keeping(DAY_MS, policy)).await;
        put(&mut stubs, topic, ("k", "v")).await;
    }
    // In the second round all topics have been looked at since the time moved.
    for _ in 0..2 {
        hand.advance(MONTH);
        emptied(&mut stubs, "both").await;
        emptied(&mut stubs, "dropped").await;
        put(&mut stubs, "both", ("k", "v")).await;
        put(&mut stubs, "dropped", ("k", "v")).await;
    }
    assert_eq!(stubs.read("compacted").await, ["v"]);
    broker.stop().await;
}

#[tokio::test]
async fn retention_is_altered_while_the_broker_runs() {
    let (broker, hand) = house().await;
    let mut stubs = broker.stubs().await;
    let for_ever = v1::TopicConfig {
        segment_bytes: Some(1 << 20),
        message_bytes_max: Some(1_000_000),
        ..keeping(-1, v1::CleanupPolicy::Delete)
    };
    stubs.create("t", 1, for_ever).await;
    stubs.create("sentinel", 1, keeping(DAY_MS, v1::CleanupPolicy::Delete)).await;
    let value = "v".repeat(700_000);
    for _ in 0..4 {
        stubs.append("t", &[&value]).await;
    }
    for _ in 0..2 {
        stubs.append("sentinel", &["a"]).await;
        hand.advance(MONTH);
        emptied(&mut stubs, "sentinel").await;
    }
    assert_eq!(kept(&mut stubs, "t").await, (0, 4), "nothing goes by default here");
    let small = v1::TopicConfig { retention_bytes: Some(1_500_000), ..Default::default() };
    alter(&mut stubs, "t", small).await;
    in_time(async { while kept(&mut stubs, "t").await.0 == 0 {} }).await;
    assert_eq!(kept(&mut stubs, "t").await, (1, 4), "as much as is wanted stays");
    alter(&mut stubs, "t", keeping(DAY_MS, v1::CleanupPolicy::Delete)).await;
    emptied(&mut stubs, "t").await;
    broker.stop().await;
}

#[tokio::test]
async fn a_compacted_topic_that_went_quiet_is_compacted() {
    let (broker, hand) = house().await;
    let mut stubs = broker.stubs().await;
    let aging =
        v1::TopicConfig { segment_ms: Some(1_000), ..keeping(-1, v1::CleanupPolicy::Compact) };
    stubs.create("t", 1, aging).await;
    put(&mut stubs, "t", ("k", "old")).await;
    put(&mut stubs, "t", ("k", "new")).await;
    assert_eq!(stubs.read("t").await, ["old", "new"]);
    hand.advance(Duration::from_secs(1));
    in_time(async { while stubs.read("t").await != ["new"] {} }).await;
    broker.stop().await;
}
