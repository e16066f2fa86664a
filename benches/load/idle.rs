//! Workload `idle`: what a broker costs that has nothing to do.
//!
//! First with many topics and nobody there, then with many long polls waiting on a few connections.

use std::time::Duration;

use riverrun_client::TopicSpec;
use riverrun_proto::grpc::v1::{FetchPartition, FetchRequest, fetch_client::FetchClient};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::{
    broker::{Broker, Setup},
    error::Result,
    process,
    report::{Measurement, Target, progress},
};

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Topics, of one partition each
    #[arg(long, default_value_t = 1000)]
    topics: usize,
    /// Long polls that wait
    #[arg(long, default_value_t = 10_000)]
    polls: usize,
    /// Connections they wait on
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Seconds over which the processor is measured
    #[arg(long, default_value_t = 20)]
    window: u64,
}

impl Default for Args {
    fn default() -> Args {
        Args { topics: 1000, polls: 10_000, connections: 100, window: 20 }
    }
}

/// Time to come to rest before measuring.
const SETTLE: Duration = Duration::from_secs(5);
/// Longest time a poll is held; longer than the settling and the window together.
const POLL_MS: u32 = 60_000;

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("idle").await?;
    let mut measurements = Vec::new();
    progress(&format!("idle: creating {} topics", args.topics));
    {
        let admin = broker.client().await?.admin();
        for topic in 0..args.topics {
            admin.create_topic(TopicSpec::new(topic_name(topic))).await?;
        }
    }
    let state = format!("{} topics", args.topics);
    measurements.extend(measure(&broker, &state, args.window, 60.0).await?);

    progress(&format!("idle: {} polls on {} connections", args.polls, args.connections));
    let mut polls = JoinSet::new();
    for connection in 0..args.connections {
        let endpoint = Endpoint::from_shared(format!("http://{}", broker.address()))?;
        let client = FetchClient::new(endpoint.connect().await?);
        let share = (connection..args.polls).step_by(args.connections);
        for poll in share {
            let topic = topic_name(poll % args.topics.max(1));
            polls.spawn(wait(client.clone(), topic));
        }
    }
    let state = format!("{} polls", args.polls);
    measurements.extend(measure(&broker, &state, args.window, 200.0).await?);
    // A poll that ended did not wait: then the numbers would be those of fewer.
    let ended = std::iter::from_fn(|| polls.try_join_next()).count();
    measurements.push(
        Measurement::new("polls that did not wait", ended as f64, "").target(Target::AtMost(0.0)),
    );
    polls.shutdown().await;
    broker.stop()?;
    Ok(measurements)
}

fn topic_name(topic: usize) -> String {
    format!("idle-{topic:05}")
}

/// One poll at the end of an empty topic.
async fn wait(mut client: FetchClient<Channel>, topic: String) -> Result<()> {
    let partitions = vec![FetchPartition { topic, ..FetchPartition::default() }];
    let request = FetchRequest { partitions, max_wait_ms: POLL_MS, ..FetchRequest::default() };
    client.fetch(request).await?;
    Ok(())
}

/// Memory and processor once the broker has come to rest.
async fn measure(
    broker: &Broker,
    state: &str,
    window: u64,
    mib_max: f64,
) -> Result<[Measurement; 3]> {
    tokio::time::sleep(SETTLE).await;
    let share = process::processor_share(broker.pid(), Duration::from_secs(window)).await?;
    let memory = process::memory(broker.pid())?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok([
        Measurement::new(format!("{state}: resident"), mib(memory.resident), "MiB")
            .target(Target::AtMost(mib_max)),
        Measurement::new(format!("{state}: of it heap"), mib(memory.anonymous), "MiB"),
        Measurement::new(format!("{state}: processor"), share * 100.0, "% of core")
            .target(Target::AtMost(0.5)),
    ])
}
