//! Workload `push`: broker-managed delivery, each record acknowledged by itself.
//!
//! - [`throughput`]: one session with so many records in its hands, each acknowledged alone, in order and in disorder.
//! - [`turn`]: from an acknowledgement that frees credit to the arrival of the next record.
//! - [`idle`]: memory and processor of many sessions with nothing to do.
//! - [`fanout`]: processor time of the broker per record with one and with ten subscriptions at the tail.

mod fanout;
mod idle;
pub(crate) mod session;
mod throughput;
mod turn;

use bytes::Bytes;
use riverrun_client::{Client, Record, TopicSpec};

use crate::{
    broker::Setup,
    error::Result,
    report::{Measurement, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records that are acknowledged one by one
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Records in the session's hands
    #[arg(long, default_value_t = 1000)]
    in_flight: u32,
    /// Sessions with nothing to do
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Connections they are open on
    #[arg(long, default_value_t = 100)]
    connections: usize,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            records: 2_000_000,
            bytes: 1024,
            in_flight: 1000,
            sessions: 10_000,
            connections: 100,
        }
    }
}

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    progress(&format!("push: {} records of {} bytes", args.records, args.bytes));
    measurements.extend(throughput::run(args, setup).await?);
    progress("push: from acknowledgement to the next record");
    measurements.extend(turn::run(setup).await?);
    progress("push: one and ten subscriptions at the tail");
    measurements.extend(fanout::run(setup).await?);
    progress(&format!("push: {} idle sessions", args.sessions));
    measurements.extend(idle::run(args, setup).await?);
    Ok(measurements)
}

/// Keys of the records, one after another.
const KEYS: u64 = 10_000;

/// Makes a topic of one partition with so many records.
pub(crate) async fn fill(client: &Client, topic: &str, records: u64, bytes: usize) -> Result<()> {
    client.admin().create_topic(TopicSpec::new(topic)).await?;
    let producer = client.producer(topic).build().await?;
    let value = Bytes::from(vec![0x5a; bytes]);
    for number in 0..records {
        let key = (number % KEYS).to_string();
        producer.post(Record::new(value.clone()).key(key)).await?;
    }
    producer.flush().await?;
    producer.close().await?;
    Ok(())
}
