//! One point of an axis that varies what is written.

use bytes::Bytes;
use riverrun_client::{Client, Record, TopicSpec};
use tokio::task::JoinSet;

use super::Args;
use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    process,
    series::Figures,
};

/// Topic of the workload.
pub(super) const TOPIC: &str = "scale";
/// One part in so many is written before the measurement.
const WARM_UP_PART: u64 = 10;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    /// Each on a connection of its own.
    pub(super) producers: u32,
    /// Written in turn, record by record.
    pub(super) partitions: u32,
    /// Of a record's value.
    pub(super) bytes: usize,
    /// Over all.
    pub(super) mib: u64,
}

impl Writing {
    /// One of each, and records of 1 KiB.
    pub(super) fn of(args: &Args) -> Writing {
        Writing { producers: 1, partitions: 1, bytes: 1024, mib: args.mib }
    }

    /// Records over all producers.
    pub(super) fn records(self) -> u64 {
        let each = (self.mib << 20) / self.bytes as u64 / u64::from(self.producers);
        each.max(1) * u64::from(self.producers)
    }

    /// Writes to a new broker.
    pub(super) async fn measure(self, setup: &Setup, name: &str) -> Result<Figures> {
        let broker =
            setup.start(&format!("{name}-{self:?}").replace([' ', '{', '}', ':', ','], "")).await?;
        let client = broker.client().await?;
        client.admin().create_topic(TopicSpec::new(TOPIC).partitions(self.partitions)).await?;
        self.write(&broker, self.records() / WARM_UP_PART).await?;
        let busy = process::processor_seconds(broker.pid())?;
        let seconds = self.write(&broker, self.records()).await?;
        let busy = process::processor_seconds(broker.pid())? - busy;
        let memory = process::memory(broker.pid())?.anonymous as f64 / f64::from(1 << 20);
        let records = self.records() as f64;
        broker.stop()?;
        Ok(vec![
            ("written", "MB/s", records * self.bytes as f64 / 1e6 / seconds),
            ("records", "records/s", records / seconds),
            ("broker", "µs/record", busy * 1e6 / records),
            ("broker heap", "MiB", memory),
        ])
    }

    /// Makes the topic and writes everything with one producer.
    pub(super) async fn fill(self, client: &Client) -> Result<()> {
        client.admin().create_topic(TopicSpec::new(TOPIC)).await?;
        send(client.clone(), self, self.records()).await
    }

    /// Writes everything with one producer to the topic that is there.
    pub(super) async fn more(self, client: &Client) -> Result<()> {
        send(client.clone(), self, (self.mib << 20) / self.bytes as u64).await
    }

    /// Writes so many records over all producers. Gives the time in seconds.
    async fn write(self, broker: &Broker, records: u64) -> Result<f64> {
        let each = records / u64::from(self.producers);
        let mut clients = Vec::new();
        for _ in 0..self.producers {
            clients.push(broker.client().await?);
        }
        let start = clock::now();
        let mut senders = JoinSet::new();
        for client in clients {
            senders.spawn(send(client, self, each));
        }
        while let Some(sent) = senders.join_next().await {
            sent.map_err(std::io::Error::other)??;
        }
        Ok(clock::seconds_since(start))
    }
}

async fn send(client: Client, writing: Writing, records: u64) -> Result<()> {
    let producer = client.producer(TOPIC).build().await?;
    let value = Bytes::from(vec![0x5a; writing.bytes]);
    for number in 0..records {
        let partition = number % u64::from(writing.partitions);
        let partition =
            u32::try_from(partition).map_err(|error| Error::Wrong(error.to_string()))?;
        producer.post(Record::new(value.clone()).partition(partition)).await?;
    }
    producer.close().await?;
    Ok(())
}
