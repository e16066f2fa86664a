//! Who is at work: senders, a reader, members, workers.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use riverrun_client::{
    Client, Commit, Durability, Error, Mode, Record, Subscriber, TopicPartition,
};
use tokio::task::JoinSet;

use super::{
    GROUP, MAX_FAILURES, PARTITIONS, SUBSCRIPTION, Shared,
    payload::{bytes_of, value_of},
    topic,
};
use crate::{
    history::{Delivered, Level, Operation, Outcome, Part, Value},
    random::Random,
};

/// Sends of one sender that are not answered yet.
const OPEN_MAX: usize = 32;
/// Records a worker may hold.
const WINDOW: u32 = 64;
/// Lease of a record.
const ACK_WAIT: Duration = Duration::from_secs(3);

/// The level of a receipt.
fn level_of(durability: Durability) -> Level {
    match durability {
        Durability::Accepted => Level::None,
        Durability::Os => Level::Os,
        Durability::Interval => Level::Interval,
        Durability::Fsync => Level::Fsync,
    }
}

fn text(error: Error) -> String {
    format!("{error:?}")
}

/// The partition in histories.
fn part(partition: &TopicPartition) -> Part {
    let number = partition.topic.trim_start_matches('p').parse().unwrap_or(u16::MAX);
    Part(number, partition.partition.0)
}

/// Sends to all partitions until told to stop. One process in the history for each topic.
pub(super) async fn send(shared: Shared, number: u64) -> Result<(), String> {
    let mut senders = JoinSet::new();
    for (topic, level) in (0..).zip(shared.options.levels.clone()) {
        senders.spawn(send_to(shared.clone(), topic, level, number));
    }
    while let Some(ended) = senders.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn send_to(shared: Shared, number: u16, level: Level, seed: u64) -> Result<(), String> {
    let mq = Client::connect(&shared.address).await.map_err(text)?;
    // An `interval` topic acknowledges what is in the page cache.
    let level = if level == Level::Interval { Level::Os } else { level };
    let producer = mq
        .producer(topic(number))
        .delivery_timeout(Duration::from_secs(40))
        .build()
        .await
        .map_err(text)?;
    let proc = shared.recorder.proc();
    let mut random = Random::new(shared.options.seed ^ (seed << 32) ^ u64::from(number));
    let mut open = JoinSet::new();
    let mut counter = 0_u64;
    while !shared.stop.load(Relaxed) {
        let value = Value((u64::from(proc) << 40) | counter);
        counter += 1;
        let partition = u32::try_from(random.below(u64::from(PARTITIONS))).unwrap_or(0);
        let key = u32::try_from(random.below(50)).unwrap_or(0);
        let at = Part(number, partition);
        let begun = Operation::Send {
            at,
            values: vec![value],
            keys: vec![key],
            level,
            offset: None,
            reached: None,
        };
        shared.recorder.invoke(proc, begun.clone());
        let record = Record::new(bytes_of(value)).key(key.to_string()).partition(partition);
        match producer.send(record).await {
            Err(error) => shared.recorder.info(proc, begun, text(error)),
            Ok(delivery) => {
                let recorder = shared.recorder.clone();
                open.spawn(async move {
                    match delivery.await {
                        Ok(receipt) => {
                            let offset = Some(receipt.offset.0);
                            let reached = Some(level_of(receipt.durability));
                            let (values, keys) = (vec![value], vec![key]);
                            let done = Operation::Send { at, values, keys, level, offset, reached };
                            recorder.ok(proc, done);
                        }
                        Err(error) => recorder.info(proc, begun, text(error)),
                    }
                });
            }
        }
        while open.len() >= OPEN_MAX {
            open.join_next().await;
        }
        tokio::time::sleep(shared.options.pause).await;
    }
    while open.join_next().await.is_some() {}
    Ok(())
}

/// Polls every partition of every topic; one process in the history for each.
pub(super) async fn read(shared: Shared) -> Result<(), String> {
    let mq = Client::connect(&shared.address).await.map_err(text)?;
    let mut readers = JoinSet::new();
    for number in (0..).take(shared.options.levels.len()) {
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(topic(number), partition);
            readers.spawn(read_one(shared.clone(), mq.clone(), at));
        }
    }
    while let Some(ended) = readers.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn read_one(shared: Shared, mq: Client, from: TopicPartition) -> Result<(), String> {
    let builder = mq.consumer(from.topic.to_string()).assign([from.clone()]);
    let mut consumer = builder.commit(Commit::Manual).build().await.map_err(text)?;
    let proc = shared.recorder.proc();
    let at = part(&from);
    let mut next = 0;
    while !shared.stop.load(Relaxed) {
        let asked = Operation::Poll { at, from: next, records: Vec::new(), end: None };
        // Before it is asked: what was asked before a power cut and comes after it may be of the time before.
        shared.recorder.invoke(proc, asked.clone());
        match consumer.poll(Duration::from_millis(100)).await {
            Ok(None) => shared.recorder.info(proc, asked, "nothing yet"),
            Ok(Some(batch)) => {
                let records = batch.iter().map(|record| {
                    (record.offset.0, value_of(record.value.as_deref().unwrap_or_default()))
                });
                let records = records.collect();
                let got = Operation::Poll { at, from: next, records, end: None };
                next = batch.next_offset().0;
                shared.recorder.ok(proc, got);
            }
            // A suffix that was never promised may be taken by a power cut; the reader is told.
            Err(error) if error.epoch_end().is_some() => {
                let end = error.epoch_end().map_or(0, |(_, end)| end.0);
                shared.recorder.info(proc, asked, text(error));
                shared.recorder.ok(proc, Operation::Seek { at, to: end });
                next = end;
                let to = riverrun_client::Seek::Offset(riverrun_client::Offset(end));
                consumer.seek(&from, to).await.map_err(text)?;
            }
            Err(error) => return Err(format!("a reader of {from}: {}", text(error))),
        }
    }
    Ok(())
}

/// A member of the group, on the first topic.
pub(super) async fn be_member(shared: Shared) -> Result<(), String> {
    let mq = Client::connect(&shared.address).await.map_err(text)?;
    let builder = mq.consumer(topic(0)).group("g").session_timeout(Duration::from_secs(5));
    let mut consumer = builder.build().await.map_err(text)?;
    let proc = shared.recorder.proc();
    while !shared.stop.load(Relaxed) {
        let Some(batch) = consumer.poll(Duration::from_millis(100)).await.map_err(text)? else {
            continue;
        };
        let at = part(batch.partition());
        let offset = batch.next_offset().0;
        let commit = Operation::Commit { group: GROUP, at, offset, epoch: 0 };
        shared.recorder.invoke(proc, commit.clone());
        match tokio::time::timeout(Duration::from_secs(10), consumer.commit(&batch)).await {
            Ok(Ok(())) => shared.recorder.ok(proc, commit),
            Ok(Err(error)) if error.is_fenced() => shared.recorder.fail(proc, commit, text(error)),
            Ok(Err(error)) => shared.recorder.info(proc, commit, text(error)),
            Err(_) => shared.recorder.info(proc, commit, "no answer"),
        }
    }
    let _left = tokio::time::timeout(Duration::from_secs(10), consumer.close()).await;
    Ok(())
}

/// A worker of the subscription, on the first topic.
pub(super) async fn work(shared: Shared) -> Result<(), String> {
    let mq = Client::connect(&shared.address).await.map_err(text)?;
    let builder = mq
        .subscribe(topic(0))
        .name("w")
        .mode(Mode::Unordered)
        .credit(WINDOW, 8 << 20)
        .ack_wait(ACK_WAIT)
        .max_failures(MAX_FAILURES)
        .backoff(Duration::from_millis(20), Duration::from_millis(100));
    let mut jobs: Subscriber = builder.open().await.map_err(text)?;
    let proc = shared.recorder.proc();
    let ack_wait_ms = 3_000;
    let open = Operation::Open { subscription: SUBSCRIPTION, window: WINDOW, ack_wait_ms };
    shared.recorder.invoke(proc, open.clone());
    shared.recorder.ok(proc, open);
    let mut settling = JoinSet::new();
    while !shared.stop.load(Relaxed) {
        let next = tokio::time::timeout(Duration::from_millis(100), jobs.next()).await;
        let Ok(Some(job)) = next else { continue };
        let job = job.map_err(text)?;
        let (at, offset) = (part(&job.record().partition), job.record().offset.0);
        let value = value_of(job.record().value.as_deref().unwrap_or_default());
        let delivered = Delivered {
            offset,
            value,
            attempts: job.attempts(),
            failures: job.failures(),
            key: None,
        };
        let records = vec![delivered];
        shared.recorder.ok(proc, Operation::Deliver { subscription: SUBSCRIPTION, at, records });
        // One in forty fails for good, one in eight once.
        let fails = value.0 % 40 == 7 || value.0 % 8 == 3 && job.failures() == 0;
        let outcome = if fails { Outcome::Nack } else { Outcome::Ack };
        let settlement = move |confirmed| Operation::Settle {
            subscription: SUBSCRIPTION,
            at,
            offsets: vec![offset],
            outcome,
            confirmed,
        };
        let settle = settlement(false);
        shared.recorder.invoke(proc, settle.clone());
        if fails {
            job.nack("it fails");
            shared.recorder.ok(proc, settle);
            continue;
        }
        let recorder = shared.recorder.clone();
        settling.spawn(async move {
            let done = tokio::time::timeout(Duration::from_secs(20), job.ack_sync()).await;
            match done {
                Ok(Ok(())) => recorder.ok(proc, settlement(true)),
                Ok(Err(error)) => recorder.info(proc, settle, text(error)),
                Err(_) => recorder.info(proc, settle, "no answer"),
            }
        });
    }
    while settling.join_next().await.is_some() {}
    let _closed = tokio::time::timeout(Duration::from_secs(10), jobs.close()).await;
    shared.recorder.ok(proc, Operation::Close { subscription: SUBSCRIPTION });
    Ok(())
}
