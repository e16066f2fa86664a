//! What is done to a broker before its directory is kept, what clients see of it, and how they go on afterwards.

use std::{fmt::Write as _, time::Duration};

use riverrun_broker::clock::ClockHand;
use riverrun_proto::{
    Header, ProducerEpoch, ProducerId, Record, RecordBatch,
    batch::{BatchBuilder, BuilderOptions, Compression},
    grpc::v1::{self, group_client::GroupClient},
};
use serde_json::{Value, json};

use crate::support::{
    broker::{Stubs, TestBroker},
    client::in_time,
    push::{PushStubs, ack, keyed, nack, spec},
    records::batch,
};

/// Topics and their partitions.
const TOPICS: [(&str, u32); 4] = [("once", 1), ("orders", 2), ("prices", 1), ("t", 1)];
/// How batches of `orders` are compressed, one after another.
const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];
/// Records of `t`, whose values are their numbers; the subscription settled these, and failed the one at 3.
const COUNT: u64 = 20;
const SETTLED: [u64; 5] = [0, 1, 2, 4, 6];
const FAILED: u64 = 3;

/// An idempotent producer of `once`.
pub(super) struct Producer {
    id: i64,
    epoch: i16,
}

impl Producer {
    /// A batch of it that begins with this sequence number.
    fn batch(&self, sequence: i32, values: &[&str]) -> v1::AppendRequest {
        let options = BuilderOptions {
            producer_id: ProducerId(self.id),
            producer_epoch: ProducerEpoch(self.epoch),
            base_sequence: sequence,
            ..BuilderOptions::default()
        };
        request("once", 0, batch(values, options))
    }
}

/// The producer of a story that was seen.
pub(super) fn producer_in(seen: &Value) -> Producer {
    let number = |name: &str| seen["producer"][name].as_i64().unwrap();
    Producer { id: number("id"), epoch: i16::try_from(number("epoch")).unwrap() }
}

fn request(topic: &str, partition: u32, batch: RecordBatch) -> v1::AppendRequest {
    let payload = Some(v1::append_request::Payload::Batch(batch.into_bytes()));
    v1::AppendRequest { topic: topic.into(), partition, payload, ..v1::AppendRequest::default() }
}

async fn send(stubs: &mut Stubs, request: v1::AppendRequest) -> v1::AppendResponse {
    in_time(stubs.produce.append(request)).await.expect("appended").into_inner()
}

/// Does everything that leaves something on disk.
pub(super) async fn tell(broker: &TestBroker, hand: &ClockHand) -> Producer {
    let mut push = PushStubs::new(broker).await;
    for (topic, partitions) in TOPICS {
        let segment_ms = (topic == "prices").then_some(1_000);
        let config = v1::TopicConfig { segment_ms, ..v1::TopicConfig::default() };
        push.topics.create(topic, partitions, config).await;
    }
    for (number, codec) in (0..).zip(CODECS) {
        send(&mut push.topics, request("orders", number % 2, order(number, codec))).await;
    }
    let identity = v1::InitProducerRequest::default();
    let identity = push.topics.produce.init_producer(identity).await.unwrap().into_inner();
    let epoch = i16::try_from(identity.producer_epoch).unwrap();
    let producer = Producer { id: identity.producer_id, epoch };
    send(&mut push.topics, producer.batch(0, &["first", "second"])).await;
    send(&mut push.topics, producer.batch(2, &["third"])).await;
    compact(&mut push, hand).await;
    commit(broker).await;
    settle(&mut push).await;
    producer
}

/// A batch with everything that a record may have.
fn order(number: u32, codec: Compression) -> RecordBatch {
    let mut builder = BatchBuilder::new(codec, BuilderOptions::default());
    for part in 0..3 {
        let text = |what: &str| format!("{what} {number}.{part}").into_bytes().into();
        let record = Record {
            timestamp_ms: super::BEGINNING_MS + i64::from(number),
            key: (part > 0).then(|| text("key")),
            value: (part > 1).then(|| text("value")),
            headers: vec![Header { key: "codec".into(), value: Some(text("header")) }],
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

/// Writes keys of `prices` again and again, has them compacted, and then no more.
async fn compact(push: &mut PushStubs, hand: &ClockHand) {
    for round in 0..4 {
        for key in ["a", "b", "c"] {
            push.send_to("prices", 0, &[keyed(key, &format!("{key} costs {round}"))]).await;
        }
        hand.advance(Duration::from_secs(2));
    }
    push.send_to("prices", 0, &[keyed("d", "d is new")]).await;
    // Only now, so that one pass sees all of it.
    clean_up(push, v1::CleanupPolicy::Compact).await;
    in_time(async {
        // The newest record of each key.
        while count(&partition_of(&mut push.topics, "prices", 0).await) > 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    clean_up(push, v1::CleanupPolicy::Delete).await;
}

/// Changes what is done with old records of `prices`.
async fn clean_up(push: &mut PushStubs, policy: v1::CleanupPolicy) {
    let config = v1::TopicConfig { cleanup_policy: Some(policy as i32), ..Default::default() };
    let alter = v1::AlterTopicRequest {
        topic: "prices".into(),
        config: Some(config),
        ..v1::AlterTopicRequest::default()
    };
    push.topics.admin.alter_topic(alter).await.unwrap();
}

/// Stores offsets of group `g`, which a member made.
async fn commit(broker: &TestBroker) {
    let mut groups = GroupClient::new(broker.channel().await);
    let join = v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        subscription: Some(v1::TopicList { topics: vec!["orders".into(), "t".into()] }),
        ..v1::HeartbeatRequest::default()
    };
    groups.heartbeat(join.clone()).await.unwrap();
    groups.heartbeat(v1::HeartbeatRequest { member_epoch: -1, ..join }).await.unwrap();
    let one = |topic: &str, partition, offset| v1::OffsetCommit {
        topic: topic.into(),
        partition,
        offset,
        metadata: format!("up to {offset}"),
        ..v1::OffsetCommit::default()
    };
    let request = v1::CommitOffsetsRequest {
        member: Some(v1::GroupMember { group: "g".into(), member_epoch: -1, ..Default::default() }),
        offsets: vec![one("orders", 0, 6), one("orders", 1, 2)],
    };
    let committed = groups.commit_offsets(request).await.unwrap().into_inner();
    assert!(committed.results.iter().all(|result| result.error.is_none()), "{committed:?}");
}

/// Settles some records of subscription `s`, and fails one.
async fn settle(push: &mut PushStubs) {
    let settings =
        v1::SubscriptionSettings { max_failures: Some(9), ..v1::SubscriptionSettings::default() };
    assert!(push.create("s", spec(settings)).await.unwrap());
    push.send_numbers(COUNT).await;
    let mut session = push.session("a").await;
    let got = session.take(usize::try_from(COUNT).unwrap()).await;
    let settled: Vec<_> = got.iter().filter(|one| SETTLED.contains(&one.offset)).cloned().collect();
    session.ack(&settled).await;
    let failed = got.iter().find(|one| one.offset == FAILED).unwrap();
    assert_eq!(session.settle_one(nack(failed, 3_600_000)).await, v1::SettleStatus::Ok);
}

/// Everything that clients can see, the same before and after a start.
pub(super) async fn look(broker: &TestBroker, producer: &Producer) -> Value {
    let mut push = PushStubs::new(broker).await;
    let mut topics = Vec::new();
    for (topic, partitions) in TOPICS {
        let describe = v1::DescribeTopicRequest { topic: topic.into() };
        let described = push.topics.admin.describe_topic(describe).await.unwrap().into_inner();
        let told = described.topic.unwrap();
        let config = told.config.unwrap();
        let mut seen = Vec::new();
        for partition in 0..partitions {
            seen.push(partition_of(&mut push.topics, topic, partition).await);
        }
        topics.push(json!({
            "topic": topic,
            "id": hex(&told.topic_id),
            "cleanup_policy": config.cleanup_policy().as_str_name(),
            "segment_ms": config.segment_ms,
            "partitions": seen,
        }));
    }
    let lane = push.lane().await;
    let settings = push.describe().await.settings.unwrap();
    json!({
        "topics": topics,
        "group": offsets(broker).await,
        "subscription": {
            "max_failures": settings.max_failures,
            "floor": lane.floor,
            "lag": lane.lag,
            "dead": lane.dead,
        },
        "producer": { "id": producer.id, "epoch": producer.epoch },
    })
}

/// A partition's ends, and its batches byte for byte.
async fn partition_of(stubs: &mut Stubs, topic: &str, partition: u32) -> Value {
    let (mut offset, mut batches) = (0, Vec::new());
    loop {
        let one =
            v1::FetchPartition { topic: topic.into(), partition, offset, ..Default::default() };
        let request = v1::FetchRequest {
            partitions: vec![one],
            format: v1::RecordFormat::Encoded as i32,
            ..v1::FetchRequest::default()
        };
        let read = stubs.fetch.fetch(request).await.unwrap().into_inner().partitions.remove(0);
        assert_eq!(read.error, None);
        batches.extend(
            RecordBatch::split(&read.batches).map(|batch| hex(&batch.unwrap().into_bytes())),
        );
        if read.next_offset == read.high_watermark {
            let (start, end) = (read.log_start_offset, read.high_watermark);
            return json!({ "log_start": start, "high_watermark": end, "batches": batches });
        }
        offset = read.next_offset;
    }
}

/// Batches of a partition that was looked at; each holds one record where only those were sent.
fn count(partition: &Value) -> usize {
    partition["batches"].as_array().unwrap().len()
}

/// What group `g` stored.
async fn offsets(broker: &TestBroker) -> Value {
    let mut groups = GroupClient::new(broker.channel().await);
    let request = v1::GetOffsetsRequest { group: "g".into(), ..v1::GetOffsetsRequest::default() };
    let mut stored = groups.get_offsets(request).await.unwrap().into_inner().offsets;
    stored.sort_by_key(|one| (one.topic.clone(), one.partition));
    let shown = stored.iter().map(|one| {
        assert_eq!(one.error, None);
        json!({
            "topic": one.topic,
            "partition": one.partition,
            "offset": one.offset,
            "leader_epoch": one.leader_epoch,
            "metadata": one.metadata,
            "commit_time_ms": one.commit_time_ms,
        })
    });
    shown.collect()
}

/// Works on where the story ended: nothing settled comes again, failures are remembered, what a producer repeats is
/// known, offsets go on.
pub(super) async fn go_on(broker: &TestBroker, producer: &Producer, what: &str) {
    let mut push = PushStubs::new(broker).await;
    let mut session = push.session("b").await;
    let open: Vec<u64> = (0..COUNT).filter(|offset| !SETTLED.contains(offset)).collect();
    let mut got = session.take(open.len()).await;
    session.rest().await;
    got.extend(session.came());
    got.sort_by_key(|one| one.offset);
    let came: Vec<_> =
        got.iter().map(|one| (one.offset, one.value.clone(), one.failures)).collect();
    let expected =
        open.iter().map(|offset| (*offset, offset.to_string(), u32::from(*offset == FAILED)));
    assert_eq!(came, expected.collect::<Vec<_>>(), "{what}");
    let statuses = session.settle(got.iter().map(ack).collect()).await;
    assert!(statuses.iter().all(|one| *one == v1::SettleStatus::Ok), "{what}: {statuses:?}");

    let again = send(&mut push.topics, producer.batch(2, &["third"])).await;
    assert_eq!((again.base_offset, again.duplicate), (2, true), "{what}");
    let next = send(&mut push.topics, producer.batch(3, &["fourth"])).await;
    assert_eq!((next.base_offset, next.duplicate), (3, false), "{what}");
    let fresh = send(&mut push.topics, request("orders", 1, order(9, Compression::Zstd))).await;
    assert_eq!(fresh.base_offset, 6, "{what}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
