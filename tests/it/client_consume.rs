//! The client's consumer against a real broker, without a group.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt as _;
use riverrun_client::{
    ErrorCode, Offset, OutOfRange, Rebalance, Record, Seek, Start, TopicChange, TopicPartition,
    TopicSpec,
};

use crate::support::{
    broker::TestBroker,
    client::{
        Seen, address, client_with_topic, in_time, number, receive, restart, send_numbers, start_at,
    },
    damage::{first_segment, flip_first_record, partition_dir},
};

const NEVER: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_reader_at_the_end_gets_what_comes_and_nothing_before() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let producer = mq.producer("t").build().await.unwrap();
    send_numbers(&producer, 0..10).await;
    let mut tail = mq.consumer("t").start_missing(Start::Latest).build().await.unwrap();
    assert!(tail.poll(NEVER).await.unwrap().is_none());
    send_numbers(&producer, 10..12).await;
    let mut numbers = Vec::new();
    while numbers.len() < 2 {
        numbers.extend(in_time(tail.next_batch()).await.unwrap().iter().map(|r| number(&r)));
    }
    assert_eq!(numbers, [10, 11]);
    let lag = &tail.lag()[0];
    assert_eq!((lag.position, lag.high_watermark, lag.lag), (Offset(12), Offset(12), 0));
}

#[tokio::test]
async fn a_seek_goes_to_an_offset_a_time_and_both_ends() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let producer = mq.producer("t").build().await.unwrap();
    let at = |n: u64| UNIX_EPOCH + Duration::from_secs(1_000_000 + n);
    for n in 0..100 {
        producer.post(Record::new(n.to_string()).timestamp(at(n))).await.unwrap();
    }
    in_time(producer.flush()).await.unwrap();
    let t0 = TopicPartition::new("t", 0);
    let mut consumer = mq.consumer("t").build().await.unwrap();
    assert_eq!(in_time(consumer.next_batch()).await.unwrap().iter().next().unwrap().offset.0, 0);
    for (to, first) in [
        (Seek::Offset(Offset(42)), 42),
        (Seek::Earliest, 0),
        (Seek::Time(at(77)), 77),
        (Seek::Time(at(3) - Duration::from_millis(1)), 3),
    ] {
        consumer.seek(&t0, to).await.unwrap();
        assert_eq!(consumer.position(&t0), Some(Offset(first)));
        let batch = in_time(consumer.next_batch()).await.unwrap();
        assert_eq!(number(&batch.iter().next().unwrap()), first, "{to:?}");
    }
    consumer.seek(&t0, Seek::Latest).await.unwrap();
    assert_eq!(consumer.position(&t0), Some(Offset(100)));
    let elsewhere = consumer.seek(&TopicPartition::new("t", 1), Seek::Earliest).await;
    assert!(elsewhere.is_err());
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_or_a_jump_as_asked() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..100).await;
    let t0 = TopicPartition::new("t", 0);
    mq.admin().delete_records(&t0, Offset(60)).await.unwrap();

    let mut strict = mq.consumer("t").build().await.unwrap();
    receive_one(&mut strict, 60).await;
    strict.seek(&t0, Seek::Offset(Offset(5))).await.unwrap();
    let error = in_time(strict.next_batch()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(error.range(), Some(Offset(60)..Offset(100)));
    assert!(strict.poll(NEVER).await.unwrap().is_none(), "told once, then stopped");
    strict.seek(&t0, Seek::Offset(Offset(99))).await.unwrap();
    receive_one(&mut strict, 99).await;

    let jumpy = mq.consumer("t").out_of_range(OutOfRange::Earliest);
    let mut jumpy = jumpy.start_missing(Start::Latest).build().await.unwrap();
    assert!(jumpy.poll(NEVER).await.unwrap().is_none());
    jumpy.seek(&t0, Seek::Offset(Offset(5))).await.unwrap();
    receive_one(&mut jumpy, 60).await;
}

/// The next batch begins with this number.
async fn receive_one(consumer: &mut riverrun_client::Consumer, first: u64) {
    let batch = in_time(consumer.next_batch()).await.expect("a batch");
    assert_eq!(batch.iter().next().map(|record| number(&record)), Some(first));
}

#[tokio::test]
async fn reading_goes_on_over_a_restart_without_gap_or_repeat() {
    let mut broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    let producer = mq.producer("t").build().await.unwrap();
    let mut consumer = mq.consumer("t").max_wait(Duration::from_secs(1)).build().await.unwrap();
    let mut seen = Seen::default();
    for round in 0..3_u64 {
        send_numbers(&producer, round * 1000..(round + 1) * 1000).await;
        receive(&mut consumer, &mut seen, usize::try_from(round).unwrap() * 1000 + 500).await;
        broker = restart(broker).await;
    }
    receive(&mut consumer, &mut seen, 3000).await;
    seen.check_complete(3000);
    drop(broker);
}

#[tokio::test]
async fn the_stream_gives_every_record() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    send_numbers(&mq.producer("t").batch_bytes(500).build().await.unwrap(), 0..1000).await;
    let mut consumer = mq.consumer("t").max_bytes(2000, 1000).build().await.unwrap();
    let mut seen = Seen::default();
    while seen.len() < 1000 {
        seen.take(&in_time(consumer.next()).await.unwrap().unwrap());
    }
    seen.check_complete(1000);
}

#[tokio::test]
async fn a_paused_partition_is_not_received_and_goes_on_where_it_stood() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let producer = mq.producer("t").build().await.unwrap();
    let t0 = [TopicPartition::new("t", 0)];
    let mut consumer = mq.consumer("t").build().await.unwrap();
    let mut seen = Seen::default();
    send_numbers(&producer, 0..10).await;
    receive(&mut consumer, &mut seen, 10).await;
    consumer.pause(&t0);
    send_numbers(&producer, 10..20).await;
    assert!(consumer.poll(NEVER).await.unwrap().is_none());
    consumer.resume(&t0);
    receive(&mut consumer, &mut seen, 20).await;
    seen.check_complete(20);
}

#[tokio::test]
async fn damage_is_told_once_with_its_partition_and_the_others_are_read() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    let producer = mq.producer("t").build().await.unwrap();
    let (whole, damaged) = (TopicPartition::new("t", 0), TopicPartition::new("t", 2));
    let send = async |partition: u32, numbers: std::ops::Range<u64>| {
        for n in numbers {
            let record = Record::new(n.to_string()).partition(partition);
            in_time(producer.post(record)).await.unwrap();
        }
        in_time(producer.flush()).await.unwrap();
    };
    send(0, 0..50).await;
    send(2, 0..50).await;
    let id = mq.admin().topic("t").await.unwrap().topic_id.0.to_string();
    let listen = address(&broker);
    let dir = broker.stop().await.unwrap();
    flip_first_record(&first_segment(&partition_dir(&dir.path().join("data"), &id, 2)));
    let broker = start_at(dir, listen).await;

    for builder in [mq.consumer("t"), mq.consumer("t").group("g")] {
        let mut consumer = builder.build().await.unwrap();
        let (mut read, mut errors) = (0, Vec::new());
        while read < 50 || errors.is_empty() {
            match in_time(consumer.next_batch()).await {
                Ok(batch) => {
                    assert_eq!(*batch.partition(), whole);
                    read += batch.len();
                }
                Err(error) => errors.push(error),
            }
        }
        assert!(consumer.poll(NEVER).await.unwrap().is_none(), "told once");
        assert_eq!((read, errors.len()), (50, 1));
        assert_eq!(errors[0].code(), ErrorCode::DataCorrupt);
        assert_eq!(errors[0].partition(), Some(&damaged));
        assert_eq!(errors[0].range().unwrap().start, Offset(0));
        assert!(errors[0].message().contains("00000000000000000000.log"), "{:?}", errors[0]);
        in_time(consumer.close()).await.unwrap();
    }
    drop(broker);
}

#[tokio::test]
async fn a_reader_of_a_topic_sees_partitions_that_are_added() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let builder = mq.consumer("t").start_missing(Start::Latest);
    let mut consumer = builder.topics_interval(Duration::from_millis(20)).build().await.unwrap();
    let named = mq.consumer("t").assign([TopicPartition::new("t", 0)]);
    let named = named.topics_interval(Duration::from_millis(20)).build().await.unwrap();
    let mut rebalances = consumer.rebalances();
    mq.admin().alter_topic("t", TopicChange::new().partitions(3)).await.unwrap();
    let producer = mq.producer("t").build().await.unwrap();
    for n in 0..10 {
        in_time(producer.post(Record::new(n.to_string()).partition(2))).await.unwrap();
    }
    in_time(producer.flush()).await.unwrap();
    let mut seen = Seen::default();
    receive(&mut consumer, &mut seen, 10).await;
    seen.check_complete(10);
    let added = [TopicPartition::new("t", 1), TopicPartition::new("t", 2)];
    assert_eq!(in_time(rebalances.next()).await, Some(Rebalance::Assigned(added.to_vec())));
    assert_eq!(consumer.assignment().len(), 3);
    assert_eq!(named.assignment().len(), 1, "only what was named");
}

#[tokio::test]
async fn a_reader_ends_when_its_topic_is_deleted_and_never_reads_another_of_that_name() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    let hour = Duration::from_secs(3600);
    let quick = Duration::from_millis(20);
    for (again, interval) in [(true, hour), (true, quick), (false, hour), (false, quick)] {
        send_numbers(&mq.producer("t").build().await.unwrap(), 0..10).await;
        let mut consumer = mq.consumer("t").topics_interval(interval).build().await.unwrap();
        let mut stream = mq.consumer("t").topics_interval(interval).build().await.unwrap();
        let mut seen = Seen::default();
        receive(&mut consumer, &mut seen, 10).await;
        for _ in 0..10 {
            in_time(stream.next()).await.unwrap().unwrap();
        }
        mq.admin().delete_topic("t").await.unwrap();
        if again {
            mq.admin().create_topic(TopicSpec::new("t").partitions(2)).await.unwrap();
            send_numbers(&mq.producer("t").build().await.unwrap(), 0..100).await;
        }
        for _ in 0..2 {
            let error = in_time(consumer.next_batch()).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::TopicDeleted, "{error:?}");
            assert!(error.message().contains("topic `t` was deleted"), "{error:?}");
        }
        let error = in_time(stream.next()).await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::TopicDeleted);
        assert!(in_time(stream.next()).await.is_none());
        if again {
            mq.admin().delete_topic("t").await.unwrap();
        }
        mq.admin().create_topic(TopicSpec::new("t").partitions(2)).await.unwrap();
    }
}
