//! W4: one consumer that acknowledges each record by itself.

use super::{
    Figures, Guest, Job, Pace, Sender,
    meter::Meter,
    payload::{Payloads, Seen},
};
use crate::error::{Error, Result};

/// Fills the topic, then takes everything as a queue.
pub(crate) async fn measure(guest: &impl Guest, job: &Job) -> Result<Figures> {
    guest.make_topic(&job.topic, job.level).await?;
    let mut sender = guest.sender(&job.topic, Pace::Bulk).await?;
    let mut payloads = Payloads::new(job.bytes);
    for _ in 0..job.records {
        sender.send(payloads.next()).await?;
    }
    sender.flush().await?;
    let mut seen = Seen::new(job.records, job.bytes);
    let meter = Meter::start(&job.servers);
    guest.acknowledge(&job.topic, job.records, |payload| seen.take(payload)).await?;
    let figures = meter.moved(job.records, job.bytes);
    if seen.records() == job.records && seen.again == 0 {
        Ok(figures)
    } else {
        let (came, again) = (seen.records(), seen.again);
        Err(Error::Wrong(format!("of {} records {came} came, and {again} again", job.records)))
    }
}
