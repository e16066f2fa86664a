//! Whether one who reads old records off the disk slows those at the tail.

use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use riverrun_client::{Client, Consumer, Record, Start};
use tokio::time::MissedTickBehavior;

use super::{
    Args,
    writing::{TOPIC, Writing},
};
use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    files,
    report::{Measurement, progress},
};

/// Records per second at the tail.
const RATE: u32 = 1_000;
/// Seconds at the tail that count, after one that does not.
const SECONDS: u32 = 10;
/// Name of the data directory.
const DATA: &str = "behind-cold";

pub(super) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start(DATA).await?;
    let client = broker.client().await?;
    progress(&format!("scale: {} GiB to be behind", args.stored_gib));
    Writing { mib: args.stored_gib << 10, ..Writing::of(args) }.fill(&client).await?;
    let mut measurements = Vec::new();
    for (who, behind) in [("alone", false), ("beside one who is behind", true)] {
        progress(&format!("scale: a reader at the tail {who}"));
        // What the kernel holds of the log is forgotten, so that it comes off the disk.
        files::evict(&setup.dir().join(DATA))?;
        let reading = behind.then(|| tokio::spawn(catch_up(client.clone())));
        let latency = tail(&broker).await?;
        for quantile in [50.0, 99.0, 99.9] {
            let value = latency.value_at_percentile(quantile) as f64 / 1e6;
            measurements.push(Measurement::new(format!("tail {who}, p{quantile}"), value, "ms"));
        }
        if let Some(reading) = reading {
            reading.abort();
            let read = reading.await;
            if let Ok(ended) = read {
                ended?;
                return Err(Error::Wrong(
                    "it caught up before the measurement was over: store more".into(),
                ));
            }
        }
    }
    broker.stop()?;
    Ok(measurements)
}

async fn catch_up(client: Client) -> Result<()> {
    let mut consumer = client.consumer(TOPIC).build().await?;
    let end = client.admin().describe_topic(TOPIC).await?.partitions[0].log_end;
    loop {
        let batch = consumer.next_batch().await?;
        if batch.into_iter().any(|record| record.offset.0 + 1 >= end.0) {
            return Ok(());
        }
    }
}

/// Time from when a record was due to its arrival, in nanoseconds.
async fn tail(broker: &Broker) -> Result<Histogram<u64>> {
    let client = broker.client().await?;
    let consumer = client.consumer(TOPIC).start_missing(Start::Latest).build().await?;
    let count = RATE * (SECONDS + 1);
    let reading = tokio::spawn(follow(consumer, count));
    let producer = client.producer(TOPIC).build().await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..count {
        let due = ticks.tick().await;
        let age = clock::since(due);
        let at = u64::try_from((clock::now().saturating_sub(age)).as_nanos()).unwrap_or(0);
        let mut value = vec![0x5a; 1024];
        value[..8].copy_from_slice(&at.to_le_bytes());
        producer.post(Record::new(Bytes::from(value))).await?;
    }
    producer.flush().await?;
    reading.await.map_err(std::io::Error::other)?
}

async fn follow(mut consumer: Consumer, count: u32) -> Result<Histogram<u64>> {
    let wrong = |error: &dyn std::fmt::Display| Error::Wrong(error.to_string());
    let mut histogram = Histogram::new(3).map_err(|error| wrong(&error))?;
    let mut seen = 0;
    while seen < count {
        for record in consumer.next_batch().await? {
            seen += 1;
            let value = record.value.unwrap_or_default();
            let at = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let now = u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX);
            if seen > RATE {
                histogram.record(now.saturating_sub(at)).map_err(|error| wrong(&error))?;
            }
        }
    }
    Ok(histogram)
}
