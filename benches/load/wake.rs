//! Workload `wake`: how soon a waiting long poll answers.
//!
//! Records come one by one at a steady rate; a reader long-polls at the end of the log. The moment a record
//! becomes visible cannot be seen from outside, but it lies before the producer hears of the
//! acknowledgement and after it sent the record. So two numbers bound it: from the acknowledgement to the
//! reader, and from sending to the reader, the latter also without a flush to disk on the way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use riverrun_client::{Durability, Producer, Record, TopicSpec};
use riverrun_proto::grpc::v1::{
    FetchPartition, FetchRequest, RecordFormat, fetch_client::FetchClient,
};
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};

use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    report::{Measurement, Target, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records per second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Seconds that are measured
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

impl Default for Args {
    fn default() -> Args {
        Args { rate: 1000, seconds: 20 }
    }
}

/// Records sent before those that count.
const WARM_UP: usize = 1000;
/// Longest time one poll is held.
const POLL_MS: u32 = 30_000;

/// When each record was sent, acknowledged and read, in nanoseconds of [`clock::now`]; 0 is never.
struct Times {
    sent: Vec<AtomicU64>,
    acknowledged: Vec<AtomicU64>,
    read: Vec<AtomicU64>,
}

impl Times {
    fn new(count: usize) -> Arc<Times> {
        let never = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Times { sent: never(), acknowledged: never(), read: never() })
    }
}

/// Notes that it happened now.
fn note(time: &AtomicU64) {
    time.store(u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Measures it at both durabilities.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("wake").await?;
    let mut measurements = Vec::new();
    for durability in [Durability::Fsync, Durability::Os] {
        progress(&format!("wake: {durability:?}"));
        let times = measure(args, &broker, durability).await?;
        let name = format!("{durability:?}").to_lowercase();
        let after_ack = differences(&times.acknowledged, &times.read)?;
        let after_send = differences(&times.sent, &times.read)?;
        for (what, histogram) in [("acknowledgement", after_ack), ("send", after_send)] {
            for quantile in [50.0, 99.0] {
                let value = histogram.value_at_percentile(quantile) as f64 / 1e6;
                let name = format!("{name}: {what} to reader, p{quantile}");
                // Without a flush, sending to reading holds everything a wake-up can cost.
                let held = what == "acknowledgement" || durability == Durability::Os;
                let target =
                    if held && quantile > 90.0 { Target::AtMost(2.0) } else { Target::None };
                measurements.push(Measurement::new(name, value, "ms").target(target));
            }
        }
    }
    broker.stop()?;
    Ok(measurements)
}

/// Sends and reads at the rate.
async fn measure(args: &Args, broker: &Broker, durability: Durability) -> Result<Arc<Times>> {
    let client = broker.client().await?;
    let topic = format!("wake-{durability:?}").to_lowercase();
    client.admin().create_topic(TopicSpec::new(&topic).durability(durability)).await?;
    let count = WARM_UP + (args.rate * args.seconds) as usize;
    let times = Times::new(count);
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address()))?.tcp_nodelay(true);
    let reader = FetchClient::new(endpoint.connect().await?);
    let reading = tokio::spawn(read(reader, topic.clone(), times.clone()));
    let producer = client.producer(&topic).build().await?;
    send(&producer, args.rate, &times).await?;
    let joined = tokio::time::timeout(Duration::from_secs(30), reading).await;
    let joined = joined.map_err(|_| Error::Wrong("the reader did not get every record".into()))?;
    joined.map_err(std::io::Error::other)??;
    Ok(times)
}

/// Sends every record at its time.
async fn send(producer: &Producer, rate: u32, times: &Arc<Times>) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let value = Bytes::from(vec![0x5a; 100]);
    for index in 0..times.sent.len() {
        ticks.tick().await;
        note(&times.sent[index]);
        let delivery = producer.send(Record::new(value.clone())).await?;
        let times = times.clone();
        tokio::spawn(async move {
            if delivery.await.is_ok() {
                note(&times.acknowledged[index]);
            }
        });
    }
    producer.flush().await?;
    // Lets the last of the tasks above note its time.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}

/// Long-polls until every record was read.
async fn read(mut client: FetchClient<Channel>, topic: String, times: Arc<Times>) -> Result<()> {
    let mut offset = 0;
    while offset < times.read.len() {
        let from = FetchPartition {
            topic: topic.clone(),
            offset: offset as u64,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            partitions: vec![from],
            max_wait_ms: POLL_MS,
            format: RecordFormat::Encoded.into(),
            ..FetchRequest::default()
        };
        let reply = client.fetch(request).await?.into_inner();
        let Some(partition) = reply.partitions.first() else { continue };
        if let Some(error) = &partition.error {
            return Err(Error::Wrong(format!("fetch: {}", error.message)));
        }
        let next = usize::try_from(partition.next_offset).unwrap_or(usize::MAX);
        for time in times.read.get(offset..next).unwrap_or_default() {
            note(time);
        }
        offset = next;
    }
    Ok(())
}

/// Distribution of the times from one moment to the other, in nanoseconds; 0 where they came the other way round.
fn differences(from: &[AtomicU64], to: &[AtomicU64]) -> Result<Histogram<u64>> {
    let wrong = |error: &dyn std::fmt::Display| Error::Wrong(error.to_string());
    let mut histogram = Histogram::new(3).map_err(|error| wrong(&error))?;
    for (from, to) in from.iter().zip(to).skip(WARM_UP) {
        let (from, to) = (from.load(Ordering::Relaxed), to.load(Ordering::Relaxed));
        if from == 0 || to == 0 {
            return Err(Error::Wrong("a record was not acknowledged or not read".into()));
        }
        histogram.record(to.saturating_sub(from)).map_err(|error| wrong(&error))?;
    }
    Ok(histogram)
}
