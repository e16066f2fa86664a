//! One session, each record acknowledged alone.

use std::collections::VecDeque;

use riverrun_client::{Client, Job, Mode};

use super::Args;
use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    process,
    report::{Measurement, Target},
};

/// Topic of the workload.
const TOPIC: &str = "push";
/// Of so many jobs in hand one is kept back for a while, so that acknowledgements come in disorder.
const KEPT_BACK: usize = 16;

pub(super) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("push").await?;
    let client = broker.client().await?;
    super::fill(&client, TOPIC, args.records, args.bytes).await?;
    let mut measurements = Vec::new();
    for (order, mode, held_to) in [
        ("in order", Mode::Unordered, Target::AtLeast(500_000.0)),
        ("in disorder", Mode::Unordered, Target::AtLeast(500_000.0)),
        ("key-fifo", Mode::KeyFifo, Target::None),
    ] {
        let name = order.replace(' ', "-");
        let (seconds, busy) = drain(args, &broker, &client, (&name, mode)).await?;
        let rate = args.records as f64 / seconds;
        measurements.push(
            Measurement::new(format!("acked alone, {order}"), rate, "records/s").target(held_to),
        );
        measurements.push(Measurement::new(
            format!("{order}: broker's cores"),
            busy / seconds,
            "cores",
        ));
    }
    let memory = process::memory(broker.pid())?;
    let mib = memory.anonymous as f64 / f64::from(1 << 20);
    measurements.push(Measurement::new("broker heap after it", mib, "MiB"));
    broker.stop()?;
    Ok(measurements)
}

/// Works all records off. Gives the time, and the broker's processor time, in seconds.
async fn drain(
    args: &Args,
    broker: &Broker,
    client: &Client,
    (name, mode): (&str, Mode),
) -> Result<(f64, f64)> {
    let busy_before = process::processor_seconds(broker.pid())?;
    let start = clock::now();
    let credit = u64::from(args.in_flight) * (args.bytes as u64 + 64);
    let builder = client.subscribe(TOPIC).name(name).mode(mode).credit(args.in_flight, credit);
    let mut jobs = builder.open().await?;
    let in_disorder = name == "in-disorder";
    let (mut taken, mut bytes) = (0, 0);
    let mut kept: VecDeque<Job> = VecDeque::new();
    while taken < args.records {
        let job = jobs.next().await.ok_or_else(|| Error::Wrong("the session ended".into()))??;
        taken += 1;
        bytes += job.record().value.as_ref().map_or(0, |value| value.len() as u64);
        if in_disorder && taken % 3 == 0 {
            kept.push_back(job);
            if kept.len() > KEPT_BACK
                && let Some(job) = kept.pop_front()
            {
                job.ack();
            }
        } else {
            job.ack();
        }
    }
    kept.into_iter().for_each(Job::ack);
    // Ends once every acknowledgement is durable.
    jobs.close().await?;
    let seconds = clock::seconds_since(start);
    let busy = process::processor_seconds(broker.pid())? - busy_before;
    if bytes == args.records * args.bytes as u64 {
        Ok((seconds, busy))
    } else {
        Err(Error::Wrong(format!("{bytes} bytes came for {taken} records")))
    }
}
