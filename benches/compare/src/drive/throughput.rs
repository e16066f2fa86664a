//! W1 and W2: as many records as possible in, and out again.

use super::{
    Figures, Guest, Job, Pace, Receiver, Sender,
    meter::Meter,
    payload::{Checker, Payloads},
};
use crate::error::Result;

/// Writes the records of the warm-up, then those that count: from the first send to the last acknowledgement.
pub(crate) async fn produce(guest: &impl Guest, job: &Job) -> Result<Figures> {
    guest.make_topic(&job.topic, job.level).await?;
    let mut sender = guest.sender(&job.topic, Pace::Bulk).await?;
    let mut payloads = Payloads::new(job.bytes);
    for _ in 0..job.warm_up {
        sender.send(payloads.next()).await?;
    }
    sender.flush().await?;
    let meter = Meter::start(&job.servers);
    for _ in 0..job.records {
        sender.send(payloads.next()).await?;
    }
    sender.flush().await?;
    Ok(meter.moved(job.records, job.bytes))
}

/// Reads everything that was written, the warm-up included, and checks every record.
pub(crate) async fn consume(guest: &impl Guest, job: &Job) -> Result<Figures> {
    let records = job.warm_up + job.records;
    let meter = Meter::start(&job.servers);
    let mut receiver = guest.receiver(&job.topic).await?;
    let mut checker = Checker::new(job.bytes);
    while checker.records < records {
        receiver.next(|payload| checker.take(payload)).await?;
    }
    Ok(meter.moved(records, job.bytes))
}
