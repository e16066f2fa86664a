//! W6: what a server needs that has nothing to do: with many topics, then with many consumers that wait for records.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Figures, Guest, Idle, Job, Pace, Receiver, Sender, meter::Meter, payload::Payloads};
use crate::{
    error::{Error, Result},
    process,
};

/// Connections that the consumers are spread over, where a client lets them share one.
const CONNECTIONS: u64 = 100;

/// Measures the server at rest, with the topics, and with the consumers as well.
pub(crate) async fn measure<G: Guest>(guest: &G, job: &Job, idle: Idle) -> Result<Figures> {
    let mut figures = Figures::new();
    note(&mut figures, job, idle, "at_rest").await;
    let mut payloads = Payloads::new(job.bytes);
    for number in 0..idle.topics {
        let topic = format!("{}-{number}", job.topic);
        guest.make_topic(&topic, job.level).await?;
        let mut sender = guest.sender(&topic, Pace::Prompt).await?;
        sender.send(payloads.next()).await?;
        sender.flush().await?;
    }
    figures.insert("topics".into(), idle.topics as f64);
    note(&mut figures, job, idle, "with_topics").await;

    guest.make_topic(&job.topic, job.level).await?;
    let connections = CONNECTIONS.min(job.records);
    let mut waiters = JoinSet::new();
    let mut guests = Vec::new();
    for number in 0..connections {
        let guest = G::connect(job).await?;
        for _ in (number..job.records).step_by(usize::try_from(connections).unwrap_or(1)) {
            waiters.spawn(wait(guest.receiver(&job.topic).await?));
        }
        guests.push(guest);
    }
    note(&mut figures, job, idle, "with_waiters").await;
    // One that ended did not wait: then the figures would be those of fewer.
    if let Some(ended) = waiters.try_join_next() {
        let why = ended.map_err(Error::peer)?;
        return Err(Error::Wrong(format!("a consumer did not wait: {why:?}")));
    }
    let grown = |to: &str, from: &str| {
        let figure = |state: &str| figures.get(&format!("mib_{state}")).copied().unwrap_or(0.0);
        figure(to) - figure(from)
    };
    let per_waiter = grown("with_waiters", "with_topics") * 1024.0 / job.records as f64;
    figures.insert("waiters".into(), job.records as f64);
    figures.insert("kib_per_waiter".into(), per_waiter.max(0.0));
    Ok(figures)
}

/// Waits for a record that never comes.
async fn wait(mut receiver: impl Receiver) -> Result<()> {
    let mut came = false;
    while !came {
        receiver
            .next(|_| {
                came = true;
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// Lets the server come to rest, and notes its memory and processor.
async fn note(figures: &mut Figures, job: &Job, idle: Idle, state: &str) {
    tokio::time::sleep(Duration::from_millis(idle.settle_ms)).await;
    let meter = Meter::start(&job.servers);
    tokio::time::sleep(Duration::from_millis(idle.window_ms)).await;
    let span = meter.stop();
    let resident = process::resident_bytes(&job.servers) as f64 / f64::from(1 << 20);
    figures.insert(format!("mib_{state}"), resident);
    figures.insert(format!("core_percent_{state}"), span.server / span.wall * 100.0);
}
