//! Workload `web`: the web door as browsers use it, beside the gRPC door with the same records in the same run.
//!
//! Three parts: a reader at the tail by each way, and how late each record comes; many readers of one topic by server-sent events, and what
//! each record costs the broker; very many readers that wait for nothing.

mod events;
mod readers;

use std::time::Duration;

use bytes::Bytes;
use riverrun_client::{Client, Durability, Record, TopicSpec};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use self::{
    events::Events,
    readers::{Latency, Way},
};
use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    process,
    report::{Measurement, Target, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records per second at the tail
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Readers of one topic by server-sent events
    #[arg(long, default_value_t = 1_000)]
    readers: u32,
    /// Records per second that all of them get
    #[arg(long, default_value_t = 100)]
    readers_rate: u32,
    /// Readers that wait
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
}

impl Default for Args {
    fn default() -> Args {
        Args { rate: 10_000, seconds: 10, readers: 1_000, readers_rate: 100, idle: 10_000 }
    }
}

/// More connections than the readers that wait.
const SETTINGS: &str = "[http]\nconnections_max = 20000\n";
/// Bytes of a value.
const VALUE_BYTES: usize = 100;

/// Measures all three.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start_as("web", SETTINGS, &[]).await?;
    let mut measurements = Vec::new();
    for way in [Way::Grpc, Way::Events, Way::Socket] {
        progress(&format!("web: {} records/s by {}", args.rate, way.name()));
        measurements.extend(at_the_tail(args, &broker, way).await?);
    }
    progress(&format!("web: {} readers of one topic", args.readers));
    measurements.extend(many(args, &broker).await?);
    broker.stop()?;
    let broker = setup.start_as("web-idle", SETTINGS, &[]).await?;
    progress(&format!("web: {} readers that wait", args.idle));
    measurements.extend(idle(args, &broker).await?);
    broker.stop()?;
    Ok(measurements)
}

async fn topic(client: &Client, name: &str) -> Result<()> {
    // Without a flush on the way, so that the time from sending to receiving holds what a door costs and little else.
    client.admin().create_topic(TopicSpec::new(name).durability(Durability::Os)).await?;
    Ok(())
}

async fn at_the_tail(args: &Args, broker: &Broker, way: Way) -> Result<Vec<Measurement>> {
    let client = broker.client().await?;
    let name = format!("tail-{}", way.name().replace(' ', "-"));
    topic(&client, &name).await?;
    let records = args.rate * (args.seconds + 1);
    let reading = tokio::spawn(readers::read(way, broker.doors(), name.clone(), records));
    readers::settle().await;
    let busy = process::processor_seconds(broker.pid())?;
    send(&client, &name, args.rate, records).await?;
    let latency: Latency = reading.await.map_err(std::io::Error::other)??;
    let busy = process::processor_seconds(broker.pid())? - busy;
    let figure = |quantile: f64| {
        let value = latency.value_at_percentile(quantile) as f64 / 1e6;
        let target =
            if quantile == 99.0 && way != Way::Grpc { Target::AtMost(5.0) } else { Target::None };
        let what = format!("{}: due to received, p{quantile}", way.name());
        Measurement::new(what, value, "ms").target(target)
    };
    let mut measurements: Vec<Measurement> = [50.0, 99.0].map(figure).into();
    let each = busy * 1e6 / f64::from(records);
    measurements.push(Measurement::new(format!("{}: broker", way.name()), each, "µs/record"));
    Ok(measurements)
}

/// Sends records that hold when they were due.
async fn send(client: &Client, topic: &str, rate: u32, records: u32) -> Result<()> {
    let producer = client.producer(topic).build().await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..records {
        let age = clock::since(ticks.tick().await);
        let due = clock::now().saturating_sub(age).as_nanos();
        // Digits, so that every door gives them as they are.
        let value = format!("{due:0VALUE_BYTES$}");
        producer.post(Record::new(Bytes::from(value))).await?;
    }
    producer.close().await?;
    Ok(())
}

async fn many(args: &Args, broker: &Broker) -> Result<Vec<Measurement>> {
    let client = broker.client().await?;
    topic(&client, "many").await?;
    let records = args.readers_rate * args.seconds;
    let mut reading = JoinSet::new();
    for _ in 0..args.readers {
        let events = Events::open(&broker.doors().web, "many").await?;
        reading.spawn(readers::by_events(events, records, 0));
    }
    readers::settle().await;
    let (busy, start) = (process::processor_seconds(broker.pid())?, clock::now());
    send(&client, "many", args.readers_rate, records).await?;
    while let Some(read) = reading.join_next().await {
        read.map_err(std::io::Error::other)??;
    }
    let seconds = clock::seconds_since(start);
    let busy = process::processor_seconds(broker.pid())? - busy;
    let name = format!("{} readers by events at {}/s", args.readers, args.readers_rate);
    let delivered = f64::from(args.readers) * f64::from(records);
    Ok(vec![
        Measurement::new(format!("{name}: broker"), busy / seconds, "cores")
            .target(Target::AtMost(1.0)),
        Measurement::new(format!("{name}: broker"), busy * 1e6 / delivered, "µs/delivery"),
    ])
}

async fn idle(args: &Args, broker: &Broker) -> Result<Vec<Measurement>> {
    const WINDOW: Duration = Duration::from_secs(20);
    topic(&broker.client().await?, "idle").await?;
    let mut waiting = Vec::new();
    for _ in 0..args.idle {
        waiting.push(Events::open(&broker.doors().web, "idle").await?);
    }
    readers::settle().await;
    let share = process::processor_share(broker.pid(), WINDOW).await?;
    let memory = process::memory(broker.pid())?.resident as f64 / f64::from(1 << 20);
    let name = format!("{} waiting by events", waiting.len());
    for events in &mut waiting {
        if !events.is_open() {
            return Err(Error::Wrong("a reader that should wait was cut".into()));
        }
    }
    Ok(vec![
        Measurement::new(format!("{name}: resident"), memory, "MiB").target(Target::AtMost(400.0)),
        Measurement::new(format!("{name}: processor"), share * 100.0, "% of core")
            .target(Target::AtMost(2.0)),
    ])
}
