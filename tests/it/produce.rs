//! Every way to append.

use riverrun_proto::{ProducerEpoch, ProducerId, batch::BuilderOptions, grpc::v1};
use tokio_stream::{StreamExt, iter};

use crate::support::{
    broker::TestBroker,
    records::{append, batch, code},
};

fn with(request: v1::AppendRequest, request_id: u64, acks: v1::Acks) -> v1::AppendRequest {
    v1::AppendRequest { request_id, acks: acks as i32, ..request }
}

#[tokio::test]
async fn a_pipeline_keeps_order_answers_each_and_survives_bad_batches() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let mut requests: Vec<_> =
        (0..3_000).map(|id| with(append("t", &[&id.to_string()]), id, v1::Acks::All)).collect();
    requests[5] = with(append("absent", &["x"]), 5, v1::Acks::All);
    requests[6] = with(append("t", &["6"]), 6, v1::Acks::None);
    requests[7].payload = Some(v1::append_request::Payload::Batch(vec![0; 100].into()));
    let replies = stubs.produce.append_pipeline(iter(requests)).await.unwrap().into_inner();
    let replies: Vec<_> = replies.map(|reply| reply.unwrap().responses).collect().await;
    assert!(replies.len() < 3_000, "receipts travel together");
    let mut receipts: Vec<_> = replies.concat();
    assert_eq!(receipts.len(), 3_000);
    receipts.sort_by_key(|receipt| receipt.request_id);
    let code_of = |id: usize| receipts[id].error.clone().map(|error| error.code());
    assert_eq!(code_of(5), Some(v1::ErrorCode::UnknownTopicOrPartition));
    assert_eq!(receipts[6], v1::AppendResponse { request_id: 6, ..Default::default() });
    assert_eq!(code_of(7), Some(v1::ErrorCode::CorruptBatch));
    let good = receipts.iter().filter(|receipt| !matches!(receipt.request_id, 5..=7));
    let mut last = None;
    for receipt in good {
        assert_eq!((receipt.error.clone(), receipt.reached()), (None, v1::Durability::Fsync));
        assert!(last < Some(receipt.base_offset), "in the order sent");
        last = Some(receipt.base_offset);
    }
    let read = stubs.read("t").await;
    let expected = (0..3_000).filter(|id| !matches!(id, 5 | 7)).map(|id| id.to_string());
    assert_eq!(read, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bulk_append_stops_at_the_first_failure_and_says_how_far_it_came() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let good = iter([append("t", &["a", "b"]), append("t", &["c"])]);
    let answer = stubs.produce.append_bulk(good).await.unwrap().into_inner();
    assert_eq!((answer.batch_count, answer.record_count, answer.error), (2, 3, None));
    let described = v1::DescribeTopicRequest { topic: "t".into() };
    let described = stubs.admin.describe_topic(described).await.unwrap().into_inner();
    assert_eq!(described.partitions[0].flushed_offset, 3);
    let bad = iter([append("t", &["d"]), append("absent", &["x"]), append("t", &["never"])]);
    let answer = stubs.produce.append_bulk(bad).await.unwrap().into_inner();
    assert_eq!((answer.batch_count, answer.record_count), (1, 1));
    assert_eq!(answer.error.unwrap().code(), v1::ErrorCode::UnknownTopicOrPartition);
    assert_eq!(stubs.read("t").await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn structured_records_come_back_as_they_were() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let header = v1::Header { key: "h".into(), value: None };
    let record = |key: Option<&'static str>, value: Option<&'static str>| v1::Record {
        offset: 99,
        timestamp_ms: 5,
        key: key.map(Into::into),
        value: value.map(Into::into),
        headers: vec![header.clone(), header.clone()],
    };
    let records =
        vec![record(Some("k"), None), record(None, Some("")), record(Some(""), Some("v"))];
    let payload = v1::append_request::Payload::Records(v1::Records { records: records.clone() });
    let request =
        v1::AppendRequest { topic: "t".into(), payload: Some(payload), ..Default::default() };
    stubs.produce.append(request).await.unwrap();
    let answer = stubs.fetch.fetch(crate::support::records::fetch("t", 0)).await.unwrap();
    let expected = (0..).zip(records).map(|(offset, record)| v1::Record { offset, ..record });
    assert_eq!(answer.into_inner().partitions[0].records, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn an_id_that_is_still_to_be_given_out_is_refused_so_its_later_owner_loses_nothing() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let init = v1::InitProducerRequest::default();
    let mine = stubs.produce.init_producer(init).await.unwrap().into_inner().producer_id;
    let request = |id: i64, value: &str| {
        let options = BuilderOptions {
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(0),
            base_sequence: 0,
            ..Default::default()
        };
        v1::AppendRequest {
            topic: "t".into(),
            payload: Some(v1::append_request::Payload::Batch(
                batch(&[value], options).into_bytes(),
            )),
            ..Default::default()
        }
    };
    for made_up in [mine + 1, mine + 999, mine + 100_000, i64::MAX] {
        let refused = stubs.produce.append(request(made_up, "made up")).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::UnknownProducerId, "{made_up}");
        assert!(refused.message().contains(&format!("`producer_id` {made_up} ")), "{refused}");
    }
    let next = stubs.produce.init_producer(init).await.unwrap().into_inner().producer_id;
    assert_eq!(next, mine + 1, "the first of those made up");
    for (id, value) in [(mine, "mine"), (next, "theirs")] {
        let receipt = stubs.produce.append(request(id, value)).await.unwrap().into_inner();
        assert!(!receipt.duplicate, "{value}");
    }
    assert_eq!(stubs.read("t").await, ["mine", "theirs"]);
}

#[tokio::test]
async fn an_idempotent_producer_is_told_of_repeats_gaps_and_fencing() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let init = v1::InitProducerRequest::default();
    let identity = stubs.produce.init_producer(init).await.unwrap().into_inner();
    let other = stubs.produce.init_producer(init).await.unwrap().into_inner();
    assert_ne!(identity.producer_id, other.producer_id);
    let request = |epoch: i32, base_sequence: i32| {
        let producer_epoch = ProducerEpoch(i16::try_from(epoch).unwrap());
        let producer_id = ProducerId(identity.producer_id);
        let options =
            BuilderOptions { producer_id, producer_epoch, base_sequence, ..Default::default() };
        let payload = batch(&["a", "b"], options).into_bytes();
        v1::AppendRequest {
            topic: "t".into(),
            payload: Some(v1::append_request::Payload::Batch(payload)),
            ..Default::default()
        }
    };
    let first = stubs.produce.append(request(0, 0)).await.unwrap().into_inner();
    let again = stubs.produce.append(request(0, 0)).await.unwrap().into_inner();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((again.base_offset, again.end_offset), (first.base_offset, first.end_offset));
    let gap = stubs.produce.append(request(0, 7)).await.unwrap_err();
    assert_eq!(code(&gap), v1::ErrorCode::OutOfOrderSequence);
    let raise = v1::InitProducerRequest {
        producer_id: Some(identity.producer_id),
        producer_epoch: Some(identity.producer_epoch),
    };
    let raised = stubs.produce.init_producer(raise).await.unwrap().into_inner();
    assert_eq!(raised.producer_epoch, identity.producer_epoch + 1);
    let fenced = stubs.produce.append(request(0, 2)).await.unwrap_err();
    assert_eq!(code(&fenced), v1::ErrorCode::ProducerFenced);
    let fenced = stubs.produce.init_producer(raise).await.unwrap_err();
    assert_eq!(code(&fenced), v1::ErrorCode::ProducerFenced);
    stubs.produce.append(request(raised.producer_epoch, 0)).await.unwrap();
    assert_eq!(stubs.read("t").await, ["a", "b", "a", "b"]);

    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = broker.stubs().await;
    let fenced = stubs.produce.append(request(0, 2)).await.unwrap_err();
    assert_eq!(code(&fenced), v1::ErrorCode::ProducerFenced, "also after a restart");
    let newer = stubs.produce.init_producer(init).await.unwrap().into_inner();
    assert!(newer.producer_id > other.producer_id, "an id is never given out again");
}
