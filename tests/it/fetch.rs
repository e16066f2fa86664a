//! Every way to read.

use std::time::{Duration, Instant};

use riverrun_proto::{
    RecordBatch,
    grpc::v1::{self, group_client::GroupClient, push_client::PushClient},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::support::{
    broker::{Stubs, TestBroker},
    push::spec,
    records::{fetch, values},
};

const SOON: Duration = Duration::from_secs(20);

fn long(request: v1::FetchRequest, max_wait_ms: u32, min_bytes: u32) -> v1::FetchRequest {
    v1::FetchRequest { max_wait_ms, min_bytes, ..request }
}

fn waiters(broker: &TestBroker, topic: &str) -> usize {
    let topic = broker.inside().registry().topic(topic).unwrap();
    topic.open_partitions().map(|partition| partition.tail().waiter_count()).sum()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_long_poll_over_partitions_wakes_for_any_and_leaves_nothing_behind() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 3, v1::TopicConfig::default()).await;
    let mut request = long(fetch("t", 0), 60_000, 1);
    let part = request.partitions[0].clone();
    request.partitions =
        (0..3).map(|partition| v1::FetchPartition { partition, ..part.clone() }).collect();
    let mut reader = stubs.clone();
    let waiting = tokio::spawn(async move { reader.fetch.fetch(request).await });
    until("the poll waits", || waiters(&broker, "t") == 3).await;
    let mut append = crate::support::records::append("t", &["a"]);
    append.partition = 2;
    stubs.produce.append(append).await.unwrap();
    let answer = timeout(SOON, waiting).await.expect("woken").unwrap().unwrap().into_inner();
    assert_eq!(answer.partitions.len(), 1, "only what has records");
    assert_eq!(
        (answer.partitions[0].partition, values(&answer.partitions[0])),
        (2, vec!["a".into()])
    );
    assert_eq!(waiters(&broker, "t"), 0);
}

/// A call of `request` whose deadline comes before the wait it asks for is over.
fn hurried<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(2));
    request
}

/// True when one of a few calls is answered: on a busy machine an answer may need longer than it is given.
async fn is_answered<T, F>(mut call: impl FnMut() -> F) -> bool
where
    F: Future<Output = Result<T, tonic::Status>>,
{
    for _ in 0..4 {
        if call().await.is_ok() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_long_poll_is_answered_before_the_deadline_of_its_call() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let poll = || {
        let mut reader = stubs.fetch.clone();
        async move {
            let answer = reader.fetch(hurried(long(fetch("t", 0), 60_000, 1))).await?;
            let partition = &answer.into_inner().partitions[0];
            assert_eq!((partition.records.len(), &partition.error), (0, &None));
            Ok(())
        }
    };
    assert!(is_answered(poll).await, "a long poll");

    let create = Some(spec(v1::SubscriptionSettings::default()));
    let receive = v1::ReceiveRequest {
        subscription: "s".into(),
        session_id: "w".into(),
        max_wait_ms: 60_000,
        create,
        ..v1::ReceiveRequest::default()
    };
    let channel = broker.channel().await;
    let receives = || {
        let (mut push, receive) = (PushClient::new(channel.clone()), receive.clone());
        async move { push.receive(hurried(receive)).await }
    };
    assert!(is_answered(receives).await, "a receive");

    let mut join = v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        subscription: Some(v1::TopicList { topics: vec!["t".into()] }),
        ..v1::HeartbeatRequest::default()
    };
    let joined = GroupClient::new(channel.clone()).heartbeat(join.clone()).await.unwrap();
    join.member_epoch = joined.into_inner().member_epoch;
    join.owned = Some(v1::PartitionList {
        partitions: vec![v1::TopicPartition { topic: "t".into(), partition: 0 }],
    });
    let beats = || {
        let beat = v1::HeartbeatRequest { max_wait_ms: 60_000, subscription: None, ..join.clone() };
        let mut group = GroupClient::new(channel.clone());
        async move { group.heartbeat(hurried(beat)).await }
    };
    assert!(is_answered(beats).await, "a heartbeat");
}

#[tokio::test]
async fn a_cancelled_long_poll_leaves_no_waiter() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let polls: Vec<_> = (0..50)
        .map(|_| {
            let mut reader = stubs.clone();
            tokio::spawn(async move { reader.fetch.fetch(long(fetch("t", 0), 60_000, 1)).await })
        })
        .collect();
    until("all wait", || waiters(&broker, "t") == 50).await;
    for poll in &polls {
        poll.abort();
    }
    until("all are gone", || waiters(&broker, "t") == 0).await;
}

#[tokio::test]
async fn a_poll_answers_when_there_is_enough_or_the_wait_is_over() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let empty = stubs.fetch.fetch(long(fetch("t", 0), 20, 1)).await.unwrap().into_inner();
    assert_eq!(empty.partitions.len(), 1, "a timeout is an empty answer");
    assert_eq!((empty.partitions[0].next_offset, empty.partitions[0].error.clone()), (0, None));
    stubs.append("t", &["a"]).await;
    let mut reader = stubs.clone();
    let mut request = long(fetch("t", 0), 60_000, 250);
    request.format = v1::RecordFormat::Encoded as i32;
    let waiting = tokio::spawn(async move { reader.fetch.fetch(request).await });
    until("too little", || waiters(&broker, "t") == 1).await;
    let mut sent = 1;
    while !waiting.is_finished() {
        stubs.append("t", &["b"]).await;
        sent += 1;
        assert!(sent < 1_000, "enough was there long ago");
    }
    let answer = waiting.await.unwrap().unwrap().into_inner();
    assert!(answer.partitions[0].batches.len() >= 250);
}

#[tokio::test]
async fn bounds_of_records_and_bytes_are_kept() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    for _ in 0..10 {
        stubs.append("t", &["x", "y", "z"]).await;
    }
    let request = v1::FetchRequest { max_records: 7, ..fetch("t", 1) };
    let answer = stubs.fetch.fetch(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.partitions[0].records.len(), answer.partitions[0].next_offset), (7, 8));
    let encoded = v1::FetchRequest { format: v1::RecordFormat::Encoded as i32, ..request };
    let answer = stubs.fetch.fetch(encoded.clone()).await.unwrap().into_inner();
    let batches = RecordBatch::split(&answer.partitions[0].batches).count();
    assert_eq!((batches, answer.partitions[0].next_offset), (3, 8));
    let one_byte = v1::FetchRequest { max_records: 0, max_bytes: 1, ..encoded };
    let answer = stubs.fetch.fetch(one_byte).await.unwrap().into_inner();
    let batches = RecordBatch::split(&answer.partitions[0].batches).count();
    assert_eq!((batches, answer.partitions[0].next_offset), (1, 3), "the first batch always comes");
}

#[tokio::test]
async fn a_partition_with_an_error_does_not_hide_the_others() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["a"]).await;
    let mut request = fetch("t", 0);
    let part = request.partitions[0].clone();
    request.partitions.push(v1::FetchPartition { topic: "absent".into(), ..part.clone() });
    request.partitions.push(v1::FetchPartition { partition: 1, ..part.clone() });
    request.partitions.push(v1::FetchPartition { leader_epoch: Some(1), offset: 9, ..part });
    let answer = stubs.fetch.fetch(request).await.unwrap().into_inner();
    assert_eq!(values(&answer.partitions[0]), ["a"]);
    let codes: Vec<_> =
        answer.partitions[1..].iter().map(|part| part.error.clone().unwrap().code()).collect();
    let unknown = v1::ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [unknown, unknown, v1::ErrorCode::OffsetTruncated]);
}

#[tokio::test]
async fn a_reader_of_an_epoch_that_never_was_is_told_that_its_history_is_another() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["a", "b", "c"]).await;
    for (offset, parting) in [(0, None), (1, Some(0)), (3, Some(0)), (4, Some(3))] {
        let mut request = fetch("t", offset);
        request.partitions[0].leader_epoch = Some(u32::MAX);
        let answer = stubs.fetch.fetch(request).await.unwrap().into_inner();
        let error = answer.partitions[0].error.clone();
        let code = error.as_ref().map(v1::Error::code);
        assert_eq!(code, parting.map(|_| v1::ErrorCode::OffsetTruncated), "{offset}");
        let end = error.and_then(|error| error.epoch_end).map(|end| end.end_offset);
        assert_eq!(end, parting, "{offset}");
    }
}

#[tokio::test]
async fn offsets_are_found_by_position_and_time() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["a", "b"]).await;
    use v1::offset_query::Position::{Earliest, Latest, TimestampMs};
    let query =
        |position| v1::OffsetQuery { topic: "t".into(), partition: 0, position: Some(position) };
    let positions =
        [Earliest(true), Latest(true), TimestampMs(1_700_000_000_000), TimestampMs(i64::MAX)];
    let request = v1::LookupOffsetsRequest { queries: positions.map(query).to_vec() };
    let answer = stubs.fetch.lookup_offsets(request).await.unwrap().into_inner();
    let found: Vec<_> =
        answer.answers.iter().map(|answer| (answer.offset, answer.timestamp_ms)).collect();
    assert_eq!(found, [(0, None), (2, None), (0, Some(1_700_000_000_000)), (2, None)]);
}

#[tokio::test]
async fn a_watch_tells_what_moved_and_of_partitions_added_later() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 2, v1::TopicConfig::default()).await;
    let all = v1::WatchPartition { topic: "t".into(), partition: 0, all_partitions: true };
    let request = v1::WatchRequest { partitions: vec![all] };
    let mut watch = stubs.fetch.watch(request).await.unwrap().into_inner();
    let mut next = async || timeout(SOON, watch.next()).await.expect("soon").unwrap().unwrap();
    let first: Vec<_> = next().await.partitions.iter().map(|part| part.partition).collect();
    assert_eq!(first, [0, 1]);
    stubs.append("t", &["a", "b"]).await;
    let moved = next().await.partitions;
    assert_eq!((moved.len(), moved[0].partition, moved[0].high_watermark), (1, 0, 2));
    let alter = v1::AlterTopicRequest { topic: "t".into(), partitions: 3, ..Default::default() };
    stubs.admin.alter_topic(alter).await.unwrap();
    let added = next().await.partitions;
    assert_eq!((added.len(), added[0].partition), (1, 2));
    let delete = v1::DeleteTopicRequest { topic: "t".into(), ..Default::default() };
    stubs.admin.delete_topic(delete).await.unwrap();
    let gone = next().await.partitions;
    assert!(gone.iter().all(|part| part.error.is_some()), "{gone:?}");
}

#[tokio::test]
async fn a_watch_tells_of_topics_made_later_and_made_again() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    let all = v1::WatchPartition { topic: "t".into(), partition: 0, all_partitions: true };
    let request = v1::WatchRequest { partitions: vec![all] };
    let mut watch = stubs.fetch.watch(request).await.unwrap().into_inner();
    let mut next = async || timeout(SOON, watch.next()).await.expect("soon").unwrap().unwrap();
    let missing = next().await.partitions;
    assert!(missing.iter().all(|part| part.error.is_some()), "{missing:?}");
    for made in 1..4 {
        stubs.create("t", 2, v1::TopicConfig::default()).await;
        stubs.append("t", &vec!["a"; made]).await;
        // What is told close together comes as one, or one after the other.
        let mut ends = [None; 2];
        while ends != [Some(made as u64), Some(0)] {
            for part in next().await.partitions.iter().filter(|part| part.error.is_none()) {
                ends[part.partition as usize] = Some(part.high_watermark);
            }
        }
        let delete = v1::DeleteTopicRequest { topic: "t".into(), ..Default::default() };
        stubs.admin.delete_topic(delete).await.unwrap();
        let mut gone = [false; 2];
        while gone != [true; 2] {
            for part in next().await.partitions {
                gone[part.partition as usize] |= part.error.is_some();
            }
        }
    }
}

/// A fetch pipeline, by hand.
struct Pipeline {
    asks: mpsc::Sender<v1::FetchPipelineRequest>,
    answers: tonic::Streaming<v1::FetchResponse>,
}

impl Pipeline {
    async fn open(stubs: &mut Stubs, first: v1::FetchPipelineRequest) -> Pipeline {
        let (asks, feed) = mpsc::channel(8);
        asks.send(first).await.unwrap();
        let answers = stubs.fetch.fetch_pipeline(ReceiverStream::new(feed)).await.unwrap();
        Pipeline { asks, answers: answers.into_inner() }
    }

    async fn begin(stubs: &mut Stubs, request: v1::FetchRequest) -> Pipeline {
        Pipeline::open(stubs, v1::FetchPipelineRequest { begin: Some(request) }).await
    }

    async fn ask(&self) {
        // One that the broker has ended takes none, which the next answer tells.
        drop(self.asks.send(v1::FetchPipelineRequest { begin: None }).await);
    }

    async fn next(&mut self) -> Result<Option<v1::FetchedPartition>, tonic::Status> {
        let answer = timeout(SOON, self.answers.message()).await.expect("soon")?;
        Ok(answer.map(|mut answer| answer.partitions.remove(0)))
    }
}

#[tokio::test]
async fn a_pipeline_answers_each_ask_from_where_the_last_answer_ended() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    for value in ["a", "b", "c"] {
        stubs.append("t", &[value]).await;
    }
    // One batch at a time.
    let request = v1::FetchRequest { max_bytes: 1, ..long(fetch("t", 0), 60_000, 1) };
    let mut pipeline = Pipeline::begin(&mut stubs, request).await;
    for _ in 0..3 {
        pipeline.ask().await;
    }
    for (value, next_offset) in [("a", 1), ("b", 2), ("c", 3)] {
        let answer = pipeline.next().await.unwrap().expect("an answer");
        assert_eq!((values(&answer), answer.next_offset), (vec![value.to_owned()], next_offset));
    }
    until("the fourth waits", || waiters(&broker, "t") == 1).await;
    stubs.append("t", &["d"]).await;
    let answer = pipeline.next().await.unwrap().expect("woken without a call");
    assert_eq!((values(&answer), answer.next_offset), (vec!["d".to_owned()], 4));
    // Nothing is answered that nobody asked for.
    stubs.append("t", &["e"]).await;
    assert_eq!(waiters(&broker, "t"), 0);
    let Pipeline { asks, mut answers } = pipeline;
    drop(asks);
    assert!(timeout(SOON, answers.message()).await.expect("soon").unwrap().is_none());
}

#[tokio::test]
async fn a_pipeline_ends_after_an_error_of_a_partition_and_with_its_reader() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let mut pipeline = Pipeline::begin(&mut stubs, fetch("t", 7)).await;
    pipeline.ask().await;
    let answer = pipeline.next().await.unwrap().expect("an answer");
    assert_eq!(answer.error.unwrap().code(), v1::ErrorCode::OffsetOutOfRange);
    assert_eq!(pipeline.next().await.unwrap(), None);

    let waiting = Pipeline::begin(&mut stubs, long(fetch("t", 0), 60_000, 1)).await;
    until("it waits", || waiters(&broker, "t") == 1).await;
    drop(waiting);
    until("it is gone", || waiters(&broker, "t") == 0).await;
}

#[tokio::test]
async fn a_pipeline_says_once_what_it_reads() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let nothing = v1::FetchPipelineRequest { begin: None };
    let refused = Pipeline::open(&mut stubs, nothing).await.next().await.unwrap_err();
    assert!(refused.message().contains("`begin`"), "{refused}");

    let mut twice = Pipeline::begin(&mut stubs, fetch("t", 0)).await;
    twice.next().await.unwrap().expect("an answer");
    let again = v1::FetchPipelineRequest { begin: Some(fetch("t", 0)) };
    twice.asks.send(again).await.unwrap();
    let refused = twice.next().await.unwrap_err();
    assert!(refused.message().contains("`begin`"), "{refused}");
}

#[tokio::test]
async fn waiting_calls_end_with_the_broker() {
    let broker = TestBroker::start().await;
    let mut stubs: Stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let mut reader = stubs.clone();
    let waiting =
        tokio::spawn(async move { reader.fetch.fetch(long(fetch("t", 0), 60_000, 1)).await });
    until("the poll waits", || waiters(&broker, "t") == 1).await;
    timeout(SOON, broker.stop()).await.expect("stops soon");
    let answer = timeout(SOON, waiting).await.expect("answered").unwrap().unwrap().into_inner();
    assert_eq!(answer.partitions[0].error, None, "an empty answer, not an error");
}
