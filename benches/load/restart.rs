//! Workload `restart`: the time from exec to the first answer.
//!
//! Writes a log whose last segments are not sealed, kills the broker, and starts it again: it has to scan
//! what is not sealed. Then once more after a clean stop, when there is nothing to scan.

use bytes::Bytes;
use riverrun_client::{Client, Durability, Record, TopicConfig, TopicSpec};

use crate::{
    broker::Setup,
    error::{Error, Result},
    report::{Measurement, Target, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// GiB in segments that are not sealed, one partition for each
    #[arg(long, default_value_t = 1)]
    unsealed_gib: u32,
    /// GiB in sealed segments, which should not matter
    #[arg(long, default_value_t = 1)]
    sealed_gib: u32,
}

impl Default for Args {
    fn default() -> Args {
        Args { unsealed_gib: 1, sealed_gib: 1 }
    }
}

/// Bytes of a record's value.
const VALUE_BYTES: u64 = 1024;
/// Part of a segment of one GiB that is filled, so that it stays open.
const UNSEALED_BYTES: u64 = 960 << 20;

/// Measures it at both durabilities: what was flushed is only scanned, what was not is written anew.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for durability in [Durability::Fsync, Durability::Os] {
        measurements.extend(measure(args, setup, durability).await?);
    }
    Ok(measurements)
}

async fn measure(args: &Args, setup: &Setup, durability: Durability) -> Result<Vec<Measurement>> {
    let level = format!("{durability:?}").to_lowercase();
    let data = format!("restart-{level}");
    let broker = setup.start(&data).await?;
    let empty_seconds = broker.ready_seconds;
    let client = broker.client().await?;
    progress(&format!(
        "restart, {level}: {} GiB sealed, {} GiB not",
        args.sealed_gib, args.unsealed_gib
    ));
    let sealed_bytes = u64::from(args.sealed_gib) << 30;
    let unsealed_bytes = u64::from(args.unsealed_gib) * UNSEALED_BYTES;
    let spec = |topic, segment_bytes| {
        let config = TopicConfig { segment_bytes: Some(segment_bytes), ..TopicConfig::default() };
        TopicSpec::new(topic).config(config).durability(durability)
    };
    fill(&client, "sealed", spec("sealed", 16 << 20), (1, sealed_bytes)).await?;
    let unsealed = spec("unsealed", 1 << 30).partitions(args.unsealed_gib.max(1));
    fill(&client, "unsealed", unsealed, (args.unsealed_gib, unsealed_bytes)).await?;
    client.close();
    broker.kill()?;

    progress(&format!("restart, {level}: after SIGKILL"));
    let broker = setup.start(&data).await?;
    let killed_seconds = broker.ready_seconds;
    check(&broker.client().await?, "sealed", sealed_bytes).await?;
    check(&broker.client().await?, "unsealed", unsealed_bytes).await?;
    let stop_seconds = broker.stop()?;

    progress(&format!("restart, {level}: after a clean stop"));
    let broker = setup.start(&data).await?;
    let clean_seconds = broker.ready_seconds;
    broker.stop()?;
    let unsealed_gib = unsealed_bytes as f64 / f64::from(1 << 30);
    let per_gib = killed_seconds / unsealed_gib.max(1e-9);
    let seconds = |what: &str, value: f64| Measurement::new(format!("{level}: {what}"), value, "s");
    let at_most_one = Target::AtMost(1.0);
    Ok(vec![
        seconds("start on an empty directory", empty_seconds).target(at_most_one),
        Measurement::new(format!("{level}: unsealed log"), unsealed_gib, "GiB"),
        seconds("start after SIGKILL", killed_seconds),
        Measurement::new(format!("{level}: the same per unsealed GiB"), per_gib, "s/GiB")
            .target(Target::AtMost(2.0)),
        seconds("clean stop", stop_seconds),
        seconds("start after a clean stop", clean_seconds).target(at_most_one),
    ])
}

/// Creates a topic and writes that many bytes of values into it, spread over so many partitions.
async fn fill(
    client: &Client,
    topic: &str,
    spec: TopicSpec,
    (partitions, bytes): (u32, u64),
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    client.admin().create_topic(spec).await?;
    let producer = client.producer(topic).build().await?;
    let value = Bytes::from(vec![0x5a; 1024]);
    for number in 0..bytes / VALUE_BYTES {
        let partition = u32::try_from(number % u64::from(partitions)).unwrap_or(0);
        producer.post(Record::new(value.clone()).partition(partition)).await?;
    }
    producer.close().await?;
    Ok(())
}

/// Every record is still there.
async fn check(client: &Client, topic: &str, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let found = client.admin().describe_topic(topic).await?;
    let records: u64 = found.partitions.iter().map(|partition| partition.log_end.0).sum();
    if records == bytes / VALUE_BYTES {
        Ok(())
    } else {
        let wanted = bytes / VALUE_BYTES;
        Err(Error::Wrong(format!("`{topic}` has {records} records after the kill, not {wanted}")))
    }
}
