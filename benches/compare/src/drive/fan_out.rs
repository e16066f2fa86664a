//! W5: one producer, and consumers that each read everything at the same time.

use super::{
    Figures, Guest, Job, Pace, Receiver, Sender,
    meter::Meter,
    payload::{Checker, Payloads},
};
use crate::{
    case::FAN_OUT,
    error::{Error, Result},
};

/// Starts the consumers on the empty topic, then writes it: from the first send to the last arrival at the last consumer.
pub(crate) async fn measure<G: Guest>(guest: &G, job: &Job) -> Result<Figures> {
    guest.make_topic(&job.topic, job.level).await?;
    let mut sender = guest.sender(&job.topic, Pace::Bulk).await?;
    let mut readers = Vec::new();
    for _ in 0..FAN_OUT {
        let receiver = guest.receiver(&job.topic).await?;
        readers.push(tokio::spawn(read(receiver, job.records, job.bytes)));
    }
    let meter = Meter::start(&job.servers);
    let mut payloads = Payloads::new(job.bytes);
    for _ in 0..job.records {
        sender.send(payloads.next()).await?;
    }
    sender.flush().await?;
    for reader in readers {
        reader.await.map_err(Error::peer)??;
    }
    Ok(meter.moved(job.records * FAN_OUT as u64, job.bytes))
}

/// Reads and checks everything.
async fn read(mut receiver: impl Receiver, records: u64, bytes: usize) -> Result<()> {
    let mut checker = Checker::new(bytes);
    while checker.records < records {
        receiver.next(|payload| checker.take(payload)).await?;
    }
    Ok(())
}
