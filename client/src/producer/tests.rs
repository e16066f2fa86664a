#![expect(clippy::cast_possible_truncation, reason = "test logs are short")]

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use riverrun_proto::{Compression, Offset, grpc::v1};

use super::*;
use crate::{
    backoff::Randomness,
    durability::Durability,
    testing::{FakeBroker, Fault},
};

/// A test that hangs is a failed one.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("done in time")
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| Randomness::from_system().next());
    println!("SEED={seed}");
    seed
}

#[tokio::test]
async fn records_arrive_in_order_with_their_offsets() {
    let broker = FakeBroker::start(3).await;
    let producer = broker.client().await.producer("t").build().await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..1000_u32 {
        let record = Record::new(n.to_string()).key(format!("k{}", n % 10));
        deliveries.push(producer.send(record).await.unwrap());
    }
    for (n, delivery) in deliveries.into_iter().enumerate() {
        let receipt = in_time(delivery).await.unwrap();
        let model = broker.model.lock();
        let log = &model.logs[receipt.partition.0 as usize];
        assert_eq!(log[receipt.offset.0 as usize], n.to_string());
        assert_eq!(receipt.durability, Durability::Fsync);
    }
    let model = broker.model.lock();
    assert_eq!(model.logs.iter().map(Vec::len).sum::<usize>(), 1000);
    for log in &model.logs {
        let numbers: Vec<u32> =
            log.iter().map(|v| std::str::from_utf8(v).unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted());
    }
}

#[tokio::test]
async fn records_without_a_key_spread_over_partitions() {
    let broker = FakeBroker::start(4).await;
    let producer = broker.client().await.producer("t").batch_bytes(1000).build().await.unwrap();
    for _ in 0..500 {
        producer.post(Record::new(vec![7; 100])).await.unwrap();
    }
    in_time(producer.flush()).await.unwrap();
    let lengths: Vec<usize> = broker.model.lock().logs.iter().map(Vec::len).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 500);
    assert!(lengths.iter().all(|length| *length > 50), "{lengths:?}");
}

#[tokio::test]
async fn compressed_batches_arrive_whole() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let broker = FakeBroker::start(1).await;
        let client = broker.client().await;
        let producer = client.producer("t").compression(codec).build().await.unwrap();
        for n in 0..200_u32 {
            producer.post(Record::new(format!("{n} a rather repetitive text"))).await.unwrap();
        }
        in_time(producer.close()).await.unwrap();
        assert_eq!(broker.model.lock().logs[0].len(), 200, "{codec}");
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_one_copy_and_the_first_offset() {
    let broker = FakeBroker::start(1).await;
    let producer = broker.client().await.producer("t").build().await.unwrap();
    broker.model.lock().script = [None, Some(Fault::BreakAfter)].into();
    let first = in_time(producer.send("a").await.unwrap()).await.unwrap();
    assert_eq!((first.offset, first.duplicate), (Offset(0), false));
    let second = in_time(producer.send("b").await.unwrap()).await.unwrap();
    assert_eq!((second.offset, second.duplicate), (Offset(1), true));
    assert_eq!(broker.model.lock().logs[0], ["a", "b"]);
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_fails_as_indeterminate_and_nothing_is_sent_again() {
    let broker = FakeBroker::start(1).await;
    let producer = broker.client().await.producer("t").idempotent(false).build().await.unwrap();
    broker.model.lock().script = [Some(Fault::BreakAfter)].into();
    let error = in_time(producer.send("a").await.unwrap()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Indeterminate);
    let after = in_time(producer.send("b").await.unwrap()).await.unwrap();
    assert_eq!(after.offset, Offset(1));
    assert_eq!(broker.model.lock().logs[0], ["a", "b"]);
}

#[tokio::test]
async fn a_batch_refused_for_good_fails_alone() {
    let broker = FakeBroker::start(1).await;
    let producer =
        broker.client().await.producer("t").linger(Duration::ZERO).build().await.unwrap();
    broker.model.lock().batch_bytes_max = Some(500);
    broker.model.lock().stalled = true;
    let mut deliveries = Vec::new();
    for n in 0..20 {
        let value = if n == 7 { vec![b'x'; 1000] } else { n.to_string().into_bytes() };
        deliveries.push(producer.send(value).await.unwrap());
        // Each record in a batch of its own, so that the ones behind find a gap.
        let (_, list) = producer.shared.lanes.get(0).unwrap().flush(&producer.shared.intake);
        if list {
            producer.shared.list(0);
        }
    }
    broker.model.lock().stalled = false;
    for (n, delivery) in deliveries.into_iter().enumerate() {
        let result = in_time(delivery).await;
        match n {
            7 => assert_eq!(result.unwrap_err().code(), ErrorCode::RecordTooLarge),
            _ => assert!(result.is_ok(), "{n}: {result:?}"),
        }
    }
    let expected: Vec<Bytes> = (0..20).filter(|n| *n != 7).map(|n| n.to_string().into()).collect();
    assert_eq!(broker.model.lock().logs[0], expected);
}

#[tokio::test]
async fn a_fenced_producer_ends() {
    let broker = FakeBroker::start(1).await;
    let producer = broker.client().await.producer("t").build().await.unwrap();
    broker.model.lock().script = [Some(Fault::Refuse(v1::ErrorCode::ProducerFenced))].into();
    let error = in_time(producer.send("a").await.unwrap()).await.unwrap_err();
    assert!(error.is_fenced());
    assert!(producer.send("b").await.unwrap_err().is_fenced());
    assert_eq!(broker.model.lock().logs[0].len(), 0);
}

#[tokio::test]
async fn a_lost_answer_to_a_new_epoch_does_not_end_the_producer() {
    let broker = FakeBroker::start(1).await;
    let producer = broker.client().await.producer("t").build().await.unwrap();
    in_time(producer.send("a").await.unwrap()).await.unwrap();
    {
        let mut model = broker.model.lock();
        model.script = [Some(Fault::Forget)].into();
        model.loses_raise = true;
    }
    let delivery = in_time(producer.send("b").await.unwrap()).await.unwrap();
    assert_eq!(delivery.offset, Offset(1));
    let model = broker.model.lock();
    assert!(!model.loses_raise, "an epoch was asked for");
    assert_eq!(model.logs[0], ["a", "b"]);
}

#[tokio::test]
async fn posted_failures_are_told_by_flush_once() {
    let broker = FakeBroker::start(1).await;
    let producer = broker.client().await.producer("t").build().await.unwrap();
    broker.model.lock().script = [Some(Fault::Refuse(v1::ErrorCode::InvalidArgument))].into();
    producer.post("a").await.unwrap();
    let error = in_time(producer.flush()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    producer.post("b").await.unwrap();
    in_time(producer.flush()).await.unwrap();
    assert_eq!(broker.model.lock().logs[0], ["b"]);
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_and_never_grows() {
    let broker = FakeBroker::start(2).await;
    broker.model.lock().stalled = true;
    let builder = broker.client().await.producer("t").buffer_bytes(64 << 10).batch_bytes(4 << 10);
    let producer = builder.build().await.unwrap();
    let value = Bytes::from(vec![1; 1000]);
    let mut taken = 0;
    while producer.try_send(value.clone()).is_ok() {
        taken += 1;
        assert!(taken < 66, "more taken than there is room for");
    }
    assert!(taken > 40, "only {taken} taken");
    assert!(producer.buffered_bytes() <= 64 << 10);
    let mut waiting = Box::pin(producer.send(value.clone()));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    broker.model.lock().stalled = false;
    in_time(in_time(waiting).await.unwrap()).await.unwrap();
    in_time(producer.flush()).await.unwrap();
    let total: usize = broker.model.lock().logs.iter().map(Vec::len).sum();
    assert_eq!(total, taken + 1);
    assert_eq!(producer.buffered_bytes(), 0);
    let huge = producer.send(vec![0; 65 << 10]).await.unwrap_err();
    assert_eq!(huge.code(), ErrorCode::RecordTooLarge);
}

#[tokio::test]
async fn what_was_sent_is_delivered_after_the_last_handle_is_dropped() {
    let broker = FakeBroker::start(1).await;
    let producer = broker.client().await.producer("t").build().await.unwrap();
    let delivery = producer.send("a").await.unwrap();
    drop(producer);
    assert_eq!(in_time(delivery).await.unwrap().offset, Offset(0));
}

#[tokio::test]
async fn a_producer_outlives_its_broker() {
    let broker = FakeBroker::start(1).await;
    let client = broker.client().await;
    let producer = client.producer("t").build().await.unwrap();
    in_time(producer.send("a").await.unwrap()).await.unwrap();
    broker.stop();
    let broker = broker.restart().await;
    let delivery = producer.send("b").await.unwrap();
    assert_eq!(in_time(delivery).await.unwrap().offset, Offset(1));
    assert_eq!(broker.model.lock().logs[0], ["a", "b"]);
}

#[tokio::test]
async fn an_unwritten_record_fails_at_its_deadline() {
    let broker = FakeBroker::start(1).await;
    broker.model.lock().stalled = true;
    let builder = broker.client().await.producer("t").delivery_timeout(Duration::from_millis(300));
    let producer = builder.build().await.unwrap();
    let first = producer.send("in flight").await.unwrap();
    let error = in_time(first).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Indeterminate, "{error}");
    broker.model.lock().stalled = false;
    in_time(producer.flush()).await.unwrap();
    let after = in_time(producer.send("after").await.unwrap()).await.unwrap();
    assert_eq!(after.offset, Offset(1));
}

/// Sends records while faults strike; checks that acknowledged records lie once, at their offset, in
/// order, that nothing lies twice, and that only doubt makes a record fail.
async fn survive(seed: u64, faults: Vec<Fault>, may_fail: bool) {
    let broker = FakeBroker::start(3).await;
    broker.model.lock().chaos = Some((Randomness::seeded(seed), 8, faults));
    let mut randomness = Randomness::seeded(seed ^ 0xabcd);
    let builder = broker.client().await.producer("t").batch_bytes(600).linger(Duration::ZERO);
    let producer = builder.build().await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..1500_u32 {
        let record = Record::new(format!("{n:06}")).partition(n % 3);
        deliveries.push(producer.send(record).await.unwrap());
        if randomness.next().is_multiple_of(20) {
            tokio::task::yield_now().await;
        }
        if randomness.next().is_multiple_of(100) {
            in_time(producer.flush()).await.unwrap();
        }
    }
    let mut acknowledged = HashMap::new();
    for (n, delivery) in deliveries.into_iter().enumerate() {
        match in_time(delivery).await {
            Ok(receipt) => {
                acknowledged.insert(format!("{n:06}"), (receipt.partition, receipt.offset));
            }
            Err(error) => {
                assert!(may_fail, "record {n} failed: {error}");
                assert_eq!(error.code(), ErrorCode::Indeterminate, "{error}");
            }
        }
    }
    let model = broker.model.lock();
    println!("batches {} faults {}", model.received, model.struck);
    assert!(model.struck > 0);
    for log in &model.logs {
        assert!(log.is_sorted_by(|a, b| a < b), "in order and nothing twice");
    }
    for (value, (partition, offset)) in acknowledged {
        assert_eq!(model.logs[partition.0 as usize][offset.0 as usize], value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_streams_and_refusals_lose_and_repeat_nothing() {
    let faults = vec![
        Fault::BreakBefore,
        Fault::BreakAfter,
        Fault::Refuse(v1::ErrorCode::DiskFull),
        Fault::Refuse(v1::ErrorCode::Indeterminate),
        Fault::WriteAndFail(v1::ErrorCode::Indeterminate),
        Fault::WriteAndFail(v1::ErrorCode::Internal),
    ];
    survive(seed(), faults, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgetful_broker_repeats_nothing() {
    let faults = vec![Fault::BreakBefore, Fault::BreakAfter, Fault::Forget];
    survive(seed(), faults, true).await;
}
