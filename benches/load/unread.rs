//! Workload `unread`: sessions that grant all the credit there is and read nothing.
//!
//! - Memory: many of them, beside some that are there already. The broker keeps as little as it can of what sessions
//!   share, the records read lately and memory that is free but not given back, so that it counts for none.
//! - Throughput: some beside one that works, on the same subscription, before and after the same without them. What they
//!   hold stays below the most that may be open, so what is measured is their cost, not the limit.

use std::{ops::Range, time::Duration};

use riverrun_client::{Client, SubscriptionSettings};
use riverrun_proto::grpc::v1::push_client::PushClient;
use tonic::transport::Endpoint;

use crate::{
    broker::{Broker, Setup},
    clock,
    error::{Error, Result},
    process,
    push::{fill, session::Session},
    report::{Measurement, Target, progress},
};

/// Topic of the workload.
const TOPIC: &str = "unread";
/// Sessions that read nothing beside one that works.
const FEW: u32 = 4;
/// Most that one session holds.
const HELD_EACH: u32 = 1_000;
/// Records read lately are hardly kept.
const SETTINGS: &str = "[subscriptions]\ncache_bytes_max = \"1MiB\"\n";
/// Free memory is given back at once.
const VARIABLES: [(&str, &str); 1] = [("MIMALLOC_PURGE_DELAY", "0")];
/// What a client's stream takes before it must be read: the window of HTTP/2 unless a client asks for another.
const WINDOW: u32 = 65_535;
/// What the broker may keep for one beyond that.
const KEPT_MAX: f64 = 262_144.0;
/// Time to come to rest before measuring; shorter than the silence that ends a session.
const REST: Duration = Duration::from_secs(5);

/// Settings of the workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Records that are worked off beside them
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Sessions that read nothing when memory is measured, each on a connection of its own
    #[arg(long, default_value_t = 50)]
    sessions: u32,
}

impl Default for Args {
    fn default() -> Args {
        Args { records: 2_000_000, bytes: 1024, sessions: 50 }
    }
}

/// Measures it.
pub(crate) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    progress("unread: memory of sessions that are not read");
    let each = memory_of_each(args, setup).await? / 1024.0;
    progress("unread: records worked off beside them");
    let broker = setup.start("unread").await?;
    let client = broker.client().await?;
    fill(&client, TOPIC, args.records, args.bytes).await?;
    // The first pass warms both sides and counts for nothing.
    drain(args, &client, "warm").await?;
    let before = drain(args, &client, "before").await?;
    let unread = open(&broker, "beside", 0..FEW).await?;
    let beside = drain(args, &client, "beside").await?;
    check(&client, "beside", FEW).await?;
    drop(unread);
    let after = drain(args, &client, "after").await?;
    broker.stop()?;
    let alone = f64::midpoint(before, after);
    Ok(vec![
        Measurement::new(
            format!("{} unread sessions: broker's memory for each", args.sessions),
            each,
            "KiB",
        )
        .target(Target::AtMost((f64::from(WINDOW) + KEPT_MAX) / 1024.0)),
        Measurement::new("without unread sessions, before", before, "records/s"),
        Measurement::new(format!("beside {FEW} unread sessions"), beside, "records/s")
            .target(Target::AtLeast(alone * 0.9)),
        Measurement::new("without unread sessions, after", after, "records/s"),
    ])
}

async fn memory_of_each(args: &Args, setup: &Setup) -> Result<f64> {
    let broker = setup.start_as("unread-memory", SETTINGS, &VARIABLES).await?;
    let client = broker.client().await?;
    let all = FEW + args.sessions;
    fill(&client, TOPIC, u64::from((all + 1) * HELD_EACH), args.bytes).await?;
    let max_open = Some(all * HELD_EACH * 2);
    let settings = SubscriptionSettings { max_open, ..SubscriptionSettings::default() };
    let builder = client.subscribe(TOPIC).name("many").settings(settings);
    builder.credit(1, 1).open().await?.close().await?;
    let first = open(&broker, "many", 0..FEW).await?;
    tokio::time::sleep(REST).await;
    let before = process::memory(broker.pid())?.anonymous;
    let rest = open(&broker, "many", FEW..all).await?;
    tokio::time::sleep(REST).await;
    let grown = process::memory(broker.pid())?.anonymous.saturating_sub(before);
    check(&client, "many", all).await?;
    drop((first, rest));
    broker.stop()?;
    Ok(grown as f64 / f64::from(args.sessions))
}

/// Opens sessions whose answers nobody reads from then on.
async fn open(broker: &Broker, name: &str, numbers: Range<u32>) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for number in numbers {
        let endpoint = Endpoint::from_shared(format!("http://{}", broker.address()))?;
        let endpoint = endpoint.initial_stream_window_size(WINDOW);
        let push = PushClient::new(endpoint.connect().await?);
        let id = format!("unread-{number}");
        sessions.push(Session::open(push, (name, TOPIC, id), 1 << 40).await?);
    }
    Ok(sessions)
}

/// All of them still stand, and hold what a session may hold: otherwise less was measured.
async fn check(client: &Client, name: &str, count: u32) -> Result<()> {
    let described = client.admin().describe_subscription(name).await?;
    let full =
        |session: &&riverrun_client::SubscriptionSession| session.in_flight == u64::from(HELD_EACH);
    let standing = described.sessions.iter().filter(full).count();
    if standing >= count as usize {
        Ok(())
    } else {
        Err(Error::Wrong(format!("{standing} of {count} unread sessions hold records")))
    }
}

/// Works off all that no other session may hold. Gives records per second.
async fn drain(args: &Args, client: &Client, name: &str) -> Result<f64> {
    let credit = u64::from(HELD_EACH) * (args.bytes as u64 + 64);
    let builder = client.subscribe(TOPIC).name(name).credit(HELD_EACH, credit);
    let start = clock::now();
    let mut jobs = builder.open().await?;
    let wanted = args.records.saturating_sub(u64::from(FEW * HELD_EACH));
    for _ in 0..wanted {
        jobs.next().await.ok_or_else(|| Error::Wrong("the session ended".into()))??.ack();
    }
    let seconds = clock::seconds_since(start);
    jobs.close().await?;
    Ok(wanted as f64 / seconds)
}
