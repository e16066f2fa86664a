//! What must be refused, by name, with nothing acknowledged changed and the connection alive.

use bytes::Bytes;
use riverrun_proto::{batch::BuilderOptions, grpc::v1};

use crate::support::{
    broker::{Stubs, TestBroker},
    records::{append, batch, code, error, fetch},
};

fn with_batch(bytes: impl Into<Bytes>) -> v1::AppendRequest {
    let payload = Some(v1::append_request::Payload::Batch(bytes.into()));
    v1::AppendRequest { payload, ..append("t", &["unused"]) }
}

async fn check_append(
    stubs: &mut Stubs,
    request: v1::AppendRequest,
    expected: v1::ErrorCode,
    text: &str,
) {
    let refused = stubs.produce.append(request).await.unwrap_err();
    assert_eq!(code(&refused), expected, "{refused}");
    assert!(refused.message().contains(text), "{refused}");
    assert_eq!(error(&refused).message, refused.message());
}

#[tokio::test]
async fn bad_batches_are_refused_and_nothing_is_appended() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["before"]).await;
    let good = batch(&["a"], BuilderOptions::default()).into_bytes().to_vec();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        with_batch(bytes)
    };
    let corrupt = v1::ErrorCode::CorruptBatch;
    for at in 0..good.len() {
        // Base offset and leader epoch lie outside the checksum: the broker stamps them.
        if !(0..8).contains(&at) && !(12..16).contains(&at) {
            check_append(&mut stubs, flipped(at), corrupt, "").await;
        }
    }
    check_append(&mut stubs, with_batch(Bytes::new()), corrupt, "cut").await;
    check_append(&mut stubs, with_batch(good[..40].to_vec()), corrupt, "cut").await;
    let twice = [good.clone(), good.clone()].concat();
    check_append(&mut stubs, with_batch(twice), corrupt, "follow the batch").await;
    let invalid = v1::ErrorCode::InvalidArgument;
    let nothing = v1::AppendRequest { payload: None, ..append("t", &["a"]) };
    check_append(&mut stubs, nothing, invalid, "`payload`").await;
    let empty = v1::append_request::Payload::Records(v1::Records::default());
    let empty = v1::AppendRequest { payload: Some(empty), ..append("t", &["a"]) };
    check_append(&mut stubs, empty, invalid, "no records").await;
    let acks = v1::AppendRequest { acks: 17, ..append("t", &["a"]) };
    check_append(&mut stubs, acks, invalid, "`acks` must be NONE, LEADER or ALL, found `17`").await;
    let level = v1::AppendRequest { durability_min: -4, ..append("t", &["a"]) };
    check_append(&mut stubs, level, invalid, "`durability_min`").await;
    let partition = v1::AppendRequest { partition: 4, ..append("t", &["a"]) };
    let unknown = v1::ErrorCode::UnknownTopicOrPartition;
    check_append(&mut stubs, partition, unknown, "has partitions 0 to 0, found 4").await;
    check_append(&mut stubs, append("", &["a"]), unknown, "``").await;
    check_append(&mut stubs, append("a\n\u{7f}", &["a"]), unknown, "`a\\n\\u{7f}`").await;
    assert_eq!(stubs.read("t").await, ["before"]);
}

#[tokio::test]
async fn batches_and_messages_past_their_limits_are_refused() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    let config = v1::TopicConfig { message_bytes_max: Some(100_000), ..Default::default() };
    stubs.create("t", 1, config).await;
    let too_large = v1::ErrorCode::RecordTooLarge;
    let large = "x".repeat(100_001);
    check_append(
        &mut stubs,
        append("t", &[&large]),
        too_large,
        "`message_bytes_max` of the topic is 100000",
    )
    .await;
    let record = v1::Record { value: Some(vec![1; 100_001].into()), ..Default::default() };
    let payload = v1::append_request::Payload::Records(v1::Records { records: vec![record] });
    let structured = v1::AppendRequest { payload: Some(payload), ..append("t", &["a"]) };
    check_append(&mut stubs, structured, too_large, "100000").await;

    let beyond = append("t", &[&"x".repeat(17 << 20)]);
    let refused = stubs.produce.append(beyond).await.unwrap_err();
    assert!(refused.message().contains("limit"), "the message limit: {refused}");
    stubs.append("t", &["after"]).await;
    assert_eq!(stubs.read("t").await, ["after"]);
}

#[tokio::test]
async fn bad_reads_are_refused() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let part = fetch("t", 0).partitions[0].clone();
    let invalid = |request: v1::FetchRequest, text: &'static str| {
        let mut stubs = stubs.clone();
        async move {
            let refused = stubs.fetch.fetch(request).await.unwrap_err();
            assert_eq!(code(&refused), v1::ErrorCode::InvalidArgument);
            assert!(refused.message().contains(text), "{refused}");
        }
    };
    invalid(v1::FetchRequest { partitions: vec![], ..fetch("t", 0) }, "`partitions` must be").await;
    let many = vec![part; 10_001];
    invalid(v1::FetchRequest { partitions: many, ..fetch("t", 0) }, "found `10001`").await;
    invalid(v1::FetchRequest { max_wait_ms: 60_001, ..fetch("t", 0) }, "`max_wait_ms`").await;
    invalid(v1::FetchRequest { format: 9, ..fetch("t", 0) }, "`format`").await;
    let huge = stubs.fetch.fetch(fetch("t", u64::MAX)).await.unwrap().into_inner();
    let error = huge.partitions[0].error.clone().unwrap();
    assert_eq!(error.code(), v1::ErrorCode::OffsetOutOfRange);
    let member = v1::GroupMember { group: "g".into(), member_id: "m".into(), member_epoch: 1 };
    let foreign = v1::FetchRequest { member: Some(member), ..fetch("t", 0) };
    let refused = stubs.fetch.fetch(foreign).await.unwrap_err();
    assert!(matches!(code(&refused), v1::ErrorCode::UnknownGroup | v1::ErrorCode::UnknownMember));
    let empty = v1::WatchRequest { partitions: vec![] };
    let refused = stubs.fetch.watch(empty).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn bad_topics_are_refused() {
    let broker = TestBroker::start_with(|config| config.limits.partitions_max = 12).await;
    let mut stubs = broker.stubs().await;
    let create = |topic: &str, partitions, config: v1::TopicConfig| v1::CreateTopicRequest {
        topic: topic.into(),
        partitions,
        config: Some(config),
        validate_only: false,
    };
    let none = v1::TopicConfig::default();
    let bad_segment = v1::TopicConfig { segment_bytes: Some(5), ..none };
    for (request, text) in [
        (create("", 1, none), "topic name"),
        (create("..", 1, none), "topic name"),
        (create("../../etc", 1, none), "topic name"),
        (create("__state", 1, none), "topic name"),
        (create("a b\0", 1, none), "topic name"),
        (create(&"x".repeat(250), 1, none), "topic name"),
        (create("t", 10_001, none), "`partitions` must be 1 to 10000, found `10001`"),
        (create("t", 1, bad_segment), "`config.segment_bytes` must be"),
    ] {
        let refused = stubs.admin.create_topic(request).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::InvalidArgument, "{refused}");
        assert!(refused.message().contains(text), "{refused}");
    }
    stubs.create("t", 10, none).await;
    let refused = stubs.admin.create_topic(create("u", 3, none)).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::QuotaExceeded);
    assert!(refused.message().contains("`limits.partitions_max` of 12"), "{refused}");
    let reset = v1::AlterTopicRequest {
        topic: "t".into(),
        reset: vec!["colour".into()],
        ..Default::default()
    };
    let refused = stubs.admin.alter_topic(reset).await.unwrap_err();
    assert!(refused.message().contains("found `colour`"), "{refused}");
}
