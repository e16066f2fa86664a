//! Workload `sdk`: records per second in and out through the client, one partition.

use crate::{
    broker::Setup,
    clock,
    error::{Error, Result},
    process,
    report::{Measurement, Target, progress},
};
use bytes::Bytes;
use riverrun_client::{Client, Durability, Record, TopicSpec};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records that are measured
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Keep the log in the page cache only, in place of the default durability
    #[arg(long)]
    os: bool,
}

impl Default for Args {
    fn default() -> Args {
        Args { records: 2_000_000, bytes: 1024, os: false }
    }
}

/// Topic of the workload.
const TOPIC: &str = "sdk";
/// Records sent before those that count: connections, buffers and the first segment are then in place.
const WARM_UP: u64 = 100_000;

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("sdk").await?;
    let client = broker.client().await?;
    let durability = if args.os { Durability::Os } else { Durability::Fsync };
    client.admin().create_topic(TopicSpec::new(TOPIC).durability(durability)).await?;

    progress(&format!("sdk: {} records of {} bytes in", args.records, args.bytes));
    let busy_before = process::processor_seconds(broker.pid())?;
    let in_seconds = send(&client, args).await?;
    let busy_in = process::processor_seconds(broker.pid())? - busy_before;
    progress("sdk: and out");
    let busy_before = process::processor_seconds(broker.pid())?;
    let out_seconds = receive(&client, args).await?;
    let busy_out = process::processor_seconds(broker.pid())? - busy_before;
    let memory = process::memory(broker.pid())?;
    broker.stop()?;

    // Everything is read back, the records of the warm-up included.
    let (sent, received) = (args.records as f64, (WARM_UP + args.records) as f64);
    let megabytes = args.bytes as f64 / 1e6;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let level = format!("{durability:?}").to_lowercase();
    Ok(vec![
        Measurement::new(format!("in, {level}"), sent / in_seconds, "records/s")
            .target(Target::AtLeast(800_000.0)),
        Measurement::new(format!("in, {level}"), sent * megabytes / in_seconds, "MB/s"),
        Measurement::new("in: broker's cores", busy_in / in_seconds, "cores"),
        Measurement::new("out", received / out_seconds, "records/s")
            .target(Target::AtLeast(1_500_000.0)),
        Measurement::new("out", received * megabytes / out_seconds, "MB/s"),
        Measurement::new("out: broker's cores", busy_out / out_seconds, "cores"),
        Measurement::new("broker heap after it", mib(memory.anonymous), "MiB"),
    ])
}

/// Sends the records. Gives the time from the first to the acknowledgement of the last, in seconds.
async fn send(client: &Client, args: &Args) -> Result<f64> {
    let producer = client.producer(TOPIC).build().await?;
    let value = Bytes::from(vec![0x5a; args.bytes]);
    for _ in 0..WARM_UP {
        producer.post(Record::new(value.clone())).await?;
    }
    producer.flush().await?;
    let start = clock::now();
    for _ in 0..args.records {
        producer.post(Record::new(value.clone())).await?;
    }
    producer.flush().await?;
    let seconds = clock::seconds_since(start);
    producer.close().await?;
    Ok(seconds)
}

/// Reads everything back, each record owned. Gives the time in seconds.
async fn receive(client: &Client, args: &Args) -> Result<f64> {
    let start = clock::now();
    let mut consumer = client.consumer(TOPIC).build().await?;
    let (mut records, mut bytes) = (0, 0);
    while records < WARM_UP + args.records {
        for record in consumer.next_batch().await? {
            records += 1;
            bytes += record.value.map_or(0, |value| value.len() as u64);
        }
    }
    let seconds = clock::seconds_since(start);
    consumer.close().await?;
    let wanted = (WARM_UP + args.records) * args.bytes as u64;
    if bytes == wanted {
        Ok(seconds)
    } else {
        Err(Error::Wrong(format!("{bytes} bytes came back, not {wanted}")))
    }
}
