//! W3: records that are due at a steady rate, from the moment each was *due* to its arrival at a consumer.
//!
//! The producer has a thread of its own that sleeps until the next record is due. When it is late, because of itself or of the client, all that
//! fell due meanwhile is sent at once, and its being late counts: no omission is coordinated with a slow server.

use hdrhistogram::Histogram;

use super::{
    Figures, Guest, Job, Pace, Receiver, Sender,
    meter::Meter,
    payload::{Checker, Payloads, due},
};
use crate::{
    clock,
    error::{Error, Result},
};

/// Time from the start of the producer to its first record.
const LEAD_NANOS: u64 = 50_000_000;

/// Writes and reads at the same time.
pub(crate) async fn measure<G: Guest>(guest: &G, job: &Job, rate: u64) -> Result<Figures> {
    guest.make_topic(&job.topic, job.level).await?;
    let sender = guest.sender(&job.topic, Pace::Prompt).await?;
    let receiver = guest.receiver(&job.topic).await?;
    let records = job.warm_up + job.records;
    let bytes = job.bytes;
    let meter = Meter::start(&job.servers);
    let runtime = tokio::runtime::Handle::current();
    let producer = tokio::task::spawn_blocking(move || {
        let pace = 1_000_000_000 / rate;
        runtime.block_on(send(sender, records, bytes, pace))
    });
    let reader = tokio::spawn(read(receiver, job.warm_up, records, bytes));
    let late = producer.await.map_err(Error::peer)??;
    let latency = reader.await.map_err(Error::peer)??;
    let mut figures = meter.moved(records, bytes);
    let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
    figures.extend([
        ("p50_us".to_owned(), us(0.5)),
        ("p99_us".to_owned(), us(0.99)),
        ("p999_us".to_owned(), us(0.999)),
        ("max_us".to_owned(), latency.max() as f64 / 1e3),
        ("sent_late_p99_us".to_owned(), late.value_at_quantile(0.99) as f64 / 1e3),
    ]);
    Ok(figures)
}

/// Sends every record when it is due. Gives how late each call began.
async fn send(
    mut sender: impl Sender,
    records: u64,
    bytes: usize,
    pace: u64,
) -> Result<Histogram<u64>> {
    let mut payloads = Payloads::new(bytes);
    let mut late = Histogram::new(3).map_err(Error::peer)?;
    let start = clock::nanos() + LEAD_NANOS;
    for index in 0..records {
        let due = start + index * pace;
        if clock::nanos() < due {
            // This thread is the producer's alone, so that sleeping on it holds up nobody.
            clock::sleep_until(due);
        }
        late.record(clock::nanos().saturating_sub(due)).map_err(Error::peer)?;
        sender.send(payloads.next_due(due)).await?;
    }
    sender.flush().await?;
    Ok(late)
}

/// Notes how long after its time each record came, those of the warm-up left out.
async fn read(
    mut receiver: impl Receiver,
    warm_up: u64,
    records: u64,
    bytes: usize,
) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new(3).map_err(Error::peer)?;
    let mut checker = Checker::new(bytes);
    while checker.records < records {
        receiver
            .next(|payload| {
                checker.take(payload)?;
                let time = clock::nanos().saturating_sub(due(payload)?);
                if checker.records > warm_up {
                    latency.record(time).map_err(Error::peer)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(latency)
}
