//! One and ten subscriptions at the tail of the same partition.
//!
//! What ten cost more than one is what they cannot share: copying to ten sockets and keeping ten states.

use std::time::Duration;

use bytes::Bytes;
use riverrun_client::{Client, Record, StartAt, Subscriber, TopicSpec};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    broker::{Broker, Setup},
    error::{Error, Result},
    process,
    report::Measurement,
};

/// Records per second.
const RATE: u32 = 10_000;
/// Records sent.
const RECORDS: u32 = 100_000;
/// Records sent at one moment.
const BURST: u32 = 100;

pub(super) async fn run(setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("fanout").await?;
    let client = broker.client().await?;
    let mut micros = Vec::new();
    for count in [0, 1, 10] {
        micros.push(cost(&broker, &client, count).await?);
    }
    broker.stop()?;
    Ok(vec![
        Measurement::new("tail, no subscription: broker per record", micros[0], "µs"),
        Measurement::new("tail, 1 subscription: broker per record", micros[1], "µs"),
        Measurement::new("tail, 10 subscriptions: broker per record", micros[2], "µs"),
    ])
}

/// Processor time of the broker per record, in microseconds, with `count` subscriptions that follow.
async fn cost(broker: &Broker, client: &Client, count: u32) -> Result<f64> {
    let topic = format!("fanout-{count}");
    client.admin().create_topic(TopicSpec::new(&topic)).await?;
    let mut subscribers = JoinSet::new();
    for number in 0..count {
        let name = format!("{topic}-{number}");
        let own = broker.client().await?;
        let jobs = own.subscribe(&topic).name(name).start(StartAt::Earliest).open().await?;
        subscribers.spawn(follow(jobs));
    }
    let producer = client.producer(&topic).build().await?;
    let value = Bytes::from(vec![0x5a; 1024]);
    let before = process::processor_seconds(broker.pid())?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * BURST / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..RECORDS / BURST {
        ticks.tick().await;
        for _ in 0..BURST {
            producer.post(Record::new(value.clone())).await?;
        }
    }
    producer.flush().await?;
    while let Some(ended) = subscribers.join_next().await {
        ended.map_err(std::io::Error::other)??;
    }
    let busy = process::processor_seconds(broker.pid())? - before;
    Ok(busy * 1e6 / f64::from(RECORDS))
}

async fn follow(mut jobs: Subscriber) -> Result<()> {
    for _ in 0..RECORDS {
        let job = jobs.next().await.ok_or_else(|| Error::Wrong("the session ended".into()))??;
        job.ack();
    }
    jobs.close().await?;
    Ok(())
}
