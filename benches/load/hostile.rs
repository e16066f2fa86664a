//! Workload `hostile`: how long calls of a client that behaves take while another one attacks the gRPC door.
//!
//! One client appends a record, flushed before the answer, and reads it back, one call after the other, at most so many a second: a stall
//! counts once, however many calls it held up. Its times beside each attack stand
//! against the mean of those just before and just after it. An attack has a thread of the lowest priority, so that it works as fast as
//! one processor lets it and takes the broker next to none: as if it came from another machine.

mod attacker;
mod attacks;
mod wire;

use std::time::Duration;

use hdrhistogram::Histogram;
use riverrun_client::TopicSpec;
use riverrun_proto::grpc::v1::{
    AppendRequest, FetchPartition, FetchRequest, Record, Records, append_request::Payload,
    fetch_client::FetchClient, produce_client::ProduceClient,
};
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};

use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    files,
    report::{Measurement, Target, progress},
};

use attacker::Sent;

/// Topic of the workload.
const TOPIC: &str = "hostile";
/// Bytes of each value.
const BYTES: usize = 100;
/// A healthy client's calls may take so many times as long.
const SLOWER_MAX: f64 = 2.0;
/// An attack that began has so long before it is measured.
const LEAD: Duration = Duration::from_millis(500);

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records per second of the client that behaves
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Seconds beside each attack, and between two
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Only attacks with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

impl Default for Args {
    fn default() -> Args {
        Args { rate: 200, seconds: 8, only: None }
    }
}

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("hostile").await?;
    broker.client().await?.admin().create_topic(TopicSpec::new(TOPIC)).await?;
    let mut healthy = Healthy::connect(&broker).await?;
    progress("hostile: without an attack");
    // The first one warms both sides and counts for nothing.
    healthy.measure(args).await?;
    let mut before = healthy.measure(args).await?;
    let mut measurements = Vec::new();
    let only = args.only.as_deref().unwrap_or_default();
    for attack in attacks::all()?.into_iter().filter(|attack| attack.name.contains(only)) {
        let name = attack.name;
        progress(&format!("hostile: {name}"));
        let lines = lines_said(setup)?;
        let under_way = attacker::begin(attack, broker.address())?;
        tokio::time::sleep(LEAD).await;
        let beside = healthy.measure(args).await?;
        let sent = under_way.end()?;
        let after = healthy.measure(args).await?;
        measurements.extend(compare(name, &[&before, &beside, &after], sent));
        let lines = lines_said(setup)? - lines;
        measurements.push(
            Measurement::new(format!("{name}: lines that the broker logs"), lines as f64, "")
                .target(Target::AtMost(f64::from(args.seconds))),
        );
        before = after;
    }
    broker.stop()?;
    Ok(measurements)
}

/// Lines that the broker has logged.
fn lines_said(setup: &Setup) -> Result<usize> {
    Ok(files::read_text(setup.dir().join("hostile.stderr"))?.lines().count())
}

/// The client that behaves.
struct Healthy {
    produce: ProduceClient<Channel>,
    fetch: FetchClient<Channel>,
}

impl Healthy {
    async fn connect(broker: &Broker) -> Result<Healthy> {
        let endpoint = Endpoint::from_shared(format!("http://{}", broker.address()))?;
        let channel = endpoint.tcp_nodelay(true).connect().await?;
        let (produce, fetch) = (ProduceClient::new(channel.clone()), FetchClient::new(channel));
        Ok(Healthy { produce, fetch })
    }

    /// Times of both calls together, in nanoseconds.
    async fn measure(&mut self, args: &Args) -> Result<Histogram<u64>> {
        let wrong = |error: &dyn std::fmt::Display| Error::Wrong(error.to_string());
        let mut times = Histogram::new(3).map_err(|error| wrong(&error))?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / args.rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..args.rate * args.seconds {
            ticks.tick().await;
            let start = clock::now();
            self.append_and_read().await?;
            let time = clock::now().saturating_sub(start);
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            times.record(time).map_err(|error| wrong(&error))?;
        }
        Ok(times)
    }

    /// A record in and out.
    async fn append_and_read(&mut self) -> Result<()> {
        let record = Record { value: Some(vec![0x5a; BYTES].into()), ..Record::default() };
        let payload = Some(Payload::Records(Records { records: vec![record] }));
        let request = AppendRequest { topic: TOPIC.into(), payload, ..AppendRequest::default() };
        let receipt = self.produce.append(request).await?.into_inner();
        let offset = receipt.base_offset;
        let from = FetchPartition { topic: TOPIC.into(), offset, ..FetchPartition::default() };
        let request =
            FetchRequest { partitions: vec![from], max_records: 1, ..FetchRequest::default() };
        let reply = self.fetch.fetch(request).await?.into_inner();
        let is_there = reply.partitions.first().is_some_and(|part| part.next_offset > offset);
        if is_there { Ok(()) } else { Err(Error::Wrong(format!("offset {offset} was not read"))) }
    }
}

/// What one attack did to the times: before it, beside it, after it.
fn compare(name: &str, times: &[&Histogram<u64>; 3], sent: Sent) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    for quantile in [50.0, 99.0] {
        let [before, beside, after] =
            times.map(|times| times.value_at_percentile(quantile) as f64 / 1e6);
        let alone = f64::midpoint(before, after);
        measurements.extend([
            Measurement::new(format!("{name}: p{quantile} without"), alone, "ms"),
            Measurement::new(format!("{name}: p{quantile} beside it"), beside, "ms")
                .target(Target::AtMost(alone * SLOWER_MAX)),
        ]);
    }
    let connections = format!("{name}: its connections");
    measurements.extend([
        Measurement::new(connections, sent.connections as f64, ""),
        Measurement::new(format!("{name}: sent"), sent.bytes as f64 / 1e6, "MB"),
    ]);
    measurements
}
