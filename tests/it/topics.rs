//! Topics and their records live through restarts.

use std::{path::Path, time::Duration};

use futures_util::{StreamExt, stream};

use riverrun_broker::Config;
use riverrun_proto::grpc::v1;
use riverrun_storage::disk::{
    Disk,
    sim::{Call, Fault, FaultError, SimDisk},
};

use crate::support::{
    broker::{Stubs, TestBroker},
    client::in_time,
    records::{append, code, error, fetch, values},
};

#[tokio::test]
async fn a_record_comes_back_before_and_after_a_restart() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("orders", 3, v1::TopicConfig::default()).await;
    let receipt = stubs.append("orders", &["a", "b"]).await;
    assert_eq!((receipt.base_offset, receipt.end_offset), (0, 2));
    assert_eq!(receipt.reached(), v1::Durability::Fsync);
    assert_eq!(stubs.read("orders").await, ["a", "b"]);
    let metadata = stubs.admin.get_metadata(v1::GetMetadataRequest::default());
    let before = metadata.await.unwrap().into_inner();

    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = broker.stubs().await;
    let metadata = stubs.admin.get_metadata(v1::GetMetadataRequest::default());
    assert_eq!(metadata.await.unwrap().into_inner(), before);
    assert_eq!(stubs.read("orders").await, ["a", "b"]);
    assert_eq!(stubs.append("orders", &["c"]).await.base_offset, 2);
    assert_eq!(stubs.read("orders").await, ["a", "b", "c"]);
}

#[tokio::test]
async fn topics_are_created_altered_described_and_deleted() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    let config = v1::TopicConfig { segment_ms: Some(5_000), ..Default::default() };
    let create = v1::CreateTopicRequest {
        topic: "t".into(),
        partitions: 2,
        config: Some(config),
        validate_only: true,
    };
    let checked = stubs.admin.create_topic(create.clone()).await.unwrap().into_inner();
    assert_eq!(checked.topic.unwrap().partitions.len(), 2);
    let absent = stubs.admin.describe_topic(v1::DescribeTopicRequest { topic: "t".into() });
    assert_eq!(code(&absent.await.unwrap_err()), v1::ErrorCode::UnknownTopicOrPartition);

    let create = v1::CreateTopicRequest { validate_only: false, ..create };
    let created =
        stubs.admin.create_topic(create.clone()).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(created.overrides, Some(config));
    assert_eq!(created.config.unwrap().segment_bytes, Some(256 << 20));
    let again = stubs.admin.create_topic(create.clone()).await.unwrap_err();
    assert_eq!(
        (again.code(), code(&again)),
        (tonic::Code::AlreadyExists, v1::ErrorCode::TopicExists)
    );

    let alter = v1::AlterTopicRequest {
        topic: "t".into(),
        partitions: 4,
        config: Some(v1::TopicConfig { retention_ms: Some(-1), ..Default::default() }),
        reset: vec!["segment_ms".into()],
        validate_only: false,
    };
    let altered = stubs.admin.alter_topic(alter).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(altered.partitions.len(), 4);
    let overrides = altered.overrides.unwrap();
    assert_eq!((overrides.retention_ms, overrides.segment_ms), (Some(-1), None));
    let fewer = v1::AlterTopicRequest { topic: "t".into(), partitions: 3, ..Default::default() };
    let fewer = stubs.admin.alter_topic(fewer).await.unwrap_err();
    assert!(fewer.message().contains("`partitions` must be 4 to 10000, found `3`"), "{fewer}");

    stubs.append("t", &["a", "b"]).await;
    let described = stubs.admin.describe_topic(v1::DescribeTopicRequest { topic: "t".into() });
    let described = described.await.unwrap().into_inner();
    let first = &described.partitions[0];
    assert_eq!((first.high_watermark, first.flushed_offset, first.log_end_offset), (2, 2, 2));
    assert!(first.size_bytes > 0 && first.segment_count == 1);

    let wrong = v1::DeleteTopicRequest { topic: "t".into(), topic_id: vec![9; 16].into() };
    let wrong = stubs.admin.delete_topic(wrong).await.unwrap_err();
    assert_eq!(code(&wrong), v1::ErrorCode::TopicIdMismatch);
    let delete = v1::DeleteTopicRequest { topic: "t".into(), topic_id: created.topic_id.clone() };
    stubs.admin.delete_topic(delete.clone()).await.unwrap();
    assert_eq!(
        code(&stubs.admin.delete_topic(delete).await.unwrap_err()),
        v1::ErrorCode::UnknownTopicOrPartition
    );
    let gone = stubs.produce.append(append("t", &["x"])).await.unwrap_err();
    assert_eq!(code(&gone), v1::ErrorCode::UnknownTopicOrPartition);

    let anew = stubs.admin.create_topic(create).await.unwrap().into_inner().topic.unwrap();
    assert_ne!(anew.topic_id, created.topic_id);
    assert_eq!(stubs.read("t").await, Vec::<String>::new());
    let mut stale = append("t", &["x"]);
    stale.topic_id = created.topic_id;
    let stale = stubs.produce.append(stale).await.unwrap_err();
    assert_eq!(code(&stale), v1::ErrorCode::TopicIdMismatch);
}

#[tokio::test]
async fn deleted_records_are_out_of_range_with_the_range() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["a", "b", "c"]).await;
    let delete = v1::DeleteRecordsRequest { topic: "t".into(), partition: 0, before_offset: 2 };
    let deleted = stubs.admin.delete_records(delete).await.unwrap().into_inner();
    assert_eq!(deleted.log_start_offset, 2);
    for offset in [0, 4] {
        let response = stubs.fetch.fetch(fetch("t", offset)).await.unwrap().into_inner();
        let partition = &response.partitions[0];
        let error = partition.error.clone().unwrap();
        assert_eq!(error.code(), v1::ErrorCode::OffsetOutOfRange);
        assert_eq!(error.range, Some(v1::OffsetRange { start_offset: 2, end_offset: 3 }));
    }
    let response = stubs.fetch.fetch(fetch("t", 2)).await.unwrap().into_inner();
    assert_eq!(values(&response.partitions[0]), ["c"]);
    let past = v1::DeleteRecordsRequest { topic: "t".into(), partition: 0, before_offset: 4 };
    let past = stubs.admin.delete_records(past).await.unwrap_err();
    assert_eq!(error(&past).code(), v1::ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn files_that_other_work_kept_from_going_go_while_the_broker_runs() {
    let disk = SimDisk::new(1);
    let quick = |config: &mut Config| config.disk.housekeeping_interval = Duration::from_millis(10);
    let broker = TestBroker::start_on(disk.clone(), quick).await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 2, v1::TopicConfig::default()).await;
    stubs.append("t", &["a"]).await;
    let topic_id = broker.inside().registry().topic("t").unwrap().id;
    let dir = Path::new("logs").join(topic_id.to_string());
    // As when a compaction makes a file in a directory that was just emptied.
    disk.inject(Fault { call: Call::Remove, nth: 1, error: FaultError::Io, lasting: true });
    let delete = v1::DeleteTopicRequest { topic: "t".into(), ..Default::default() };
    stubs.admin.delete_topic(delete).await.expect("deleted, though files are left");
    assert!(disk.list(&dir).is_ok());
    disk.heal();
    in_time(async {
        while disk.list(&dir).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Creates `count` topics, many at once.
async fn create_many(stubs: &Stubs, count: usize) {
    let created = stream::iter(0..count).for_each_concurrent(64, |number| {
        let mut stubs = stubs.clone();
        async move { stubs.create(&format!("t{number}"), 1, v1::TopicConfig::default()).await }
    });
    created.await;
}

#[tokio::test]
async fn two_thousand_topics_are_made_and_found_again() {
    const COUNT: usize = 2_000;
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    create_many(&stubs, COUNT).await;
    stubs.append("t7", &["a"]).await;
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = broker.stubs().await;
    let all = stubs.admin.get_metadata(v1::GetMetadataRequest::default()).await.unwrap();
    let topics = all.into_inner().topics;
    assert_eq!(topics.len(), COUNT);
    assert!(topics.iter().all(|topic| topic.error.is_none() && topic.partitions.len() == 1));
    assert_eq!(stubs.read("t7").await, ["a"]);
    assert_eq!(stubs.append("t1999", &["b"]).await.base_offset, 0);
    broker.stop().await;
}
