//! The client's producer against a real broker.

use std::time::{Duration, UNIX_EPOCH};

use riverrun_client::{Acks, Compression, Durability, ErrorCode, Offset, Record};

use crate::support::{
    broker::TestBroker,
    client::{Seen, address, client_with_topic, in_time, receive, restart, send_numbers, start_at},
};

#[tokio::test]
async fn records_come_back_as_they_were_sent() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let records = [
        Record::new("value").key("key").header("type", "json").header("type", "twice"),
        Record::tombstone("key").timestamp(time),
        Record::new("").key(""),
        Record::new(vec![0xff; 300_000]),
    ];
    for codec in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let producer = mq.producer("t").compression(codec).build().await.unwrap();
        for delivery in in_time(producer.send_all(records.clone())).await.unwrap() {
            assert_eq!(in_time(delivery).await.unwrap().durability, Durability::Fsync);
        }
        in_time(producer.close()).await.unwrap();
    }
    let mut consumer = mq.consumer("t").build().await.unwrap();
    let mut received = Vec::new();
    while received.len() < 5 * records.len() {
        received.extend(in_time(consumer.next_batch()).await.unwrap());
    }
    for (n, got) in received.iter().enumerate() {
        let sent = &records[n % records.len()];
        assert_eq!(got.offset, Offset(n as u64));
        assert_eq!(got.key.as_deref(), sent.key_bytes());
        assert_eq!(got.value.as_deref(), sent.value_bytes());
    }
    assert_eq!(received[0].header("type").unwrap(), "json");
    assert_eq!(received[0].headers[1].value.as_deref(), Some(&b"twice"[..]));
    assert_eq!(received[1].timestamp_ms, 1_700_000_000_123);
    assert!(received[0].timestamp_ms > 1_700_000_000_123);
}

#[tokio::test]
async fn order_is_kept_per_partition_and_every_record_comes_once() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 4).await;
    let producer = mq.producer("t").batch_bytes(4096).build().await.unwrap();
    send_numbers(&producer, 0..20_000).await;
    let mut consumer = mq.consumer("t").build().await.unwrap();
    let mut seen = Seen::default();
    receive(&mut consumer, &mut seen, 20_000).await;
    seen.check_complete(20_000);
    assert_eq!(seen.numbers.len(), 4);
}

#[tokio::test]
async fn restarts_of_the_broker_lose_and_repeat_nothing() {
    let mut broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    let producer = mq.producer("t").batch_bytes(2048).build().await.unwrap();
    let sender = producer.clone();
    let (halfway, at_half) = tokio::sync::mpsc::channel::<()>(1);
    let sending = tokio::spawn(async move {
        let mut deliveries = Vec::new();
        for n in 0..30_000_u64 {
            let record = Record::new(n.to_string()).key(format!("k{}", n % 37));
            deliveries.push(in_time(sender.send(record)).await.unwrap());
            if n % 10_000 == 5_000 {
                // The broker goes down while this goes on.
                halfway.send(()).await.unwrap();
            }
        }
        deliveries
    });
    let mut at_half = at_half;
    while in_time(at_half.recv()).await.is_some() {
        broker = restart(broker).await;
    }
    let deliveries = in_time(sending).await.unwrap();
    let mut duplicates = 0;
    for delivery in deliveries {
        duplicates += u32::from(in_time(delivery).await.unwrap().duplicate);
    }
    println!("{duplicates} records were found to be there already");
    let mut seen = Seen::default();
    receive(&mut mq.consumer("t").build().await.unwrap(), &mut seen, 30_000).await;
    seen.check_complete(30_000);
    drop(broker);
}

#[tokio::test]
async fn a_full_buffer_is_bounded_and_empties_when_the_broker_is_back() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let builder = mq.producer("t").buffer_bytes(256 << 10).batch_bytes(16 << 10);
    let producer = builder.build().await.unwrap();
    let listen = address(&broker);
    let dir = broker.stop().await.unwrap();
    let mut taken = 0;
    let error = loop {
        match producer.try_send(vec![b'x'; 1000]) {
            Ok(_delivery) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::BufferFull);
    assert!((150..=262).contains(&taken), "{taken} records of 1000 bytes in 256 KiB");
    assert!(producer.buffered_bytes() <= 256 << 10);
    let broker = start_at(dir, listen).await;
    in_time(producer.send("one more")).await.unwrap().await.unwrap();
    let topic = mq.admin().describe_topic("t").await.unwrap();
    assert_eq!(topic.partitions[0].high_watermark, Offset(taken + 1));
    drop(broker);
}

#[tokio::test]
async fn acknowledgements_tell_the_level_reached() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    for (acks, level) in [
        (Acks::None, Durability::Accepted),
        (Acks::Leader, Durability::Os),
        (Acks::All, Durability::Fsync),
    ] {
        let producer = mq.producer("t").acks(acks).build().await.unwrap();
        let receipt = in_time(producer.send("a").await.unwrap()).await.unwrap();
        assert_eq!(receipt.durability, level);
        in_time(producer.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_record_over_the_topics_limit_is_refused_and_the_next_is_not() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    let producer = mq.producer("t").build().await.unwrap();
    let error = producer.send(vec![0; 5 << 20]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RecordTooLarge, "{error}");
    let error = producer.send(Record::new("a").partition(1)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownTopicOrPartition, "{error}");
    in_time(producer.send("a").await.unwrap()).await.unwrap();
    let unknown = mq.producer("nowhere").build().await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::UnknownTopicOrPartition);
}
