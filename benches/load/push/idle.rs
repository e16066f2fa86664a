//! Many sessions with nothing to do.

use std::time::Duration;

use riverrun_client::TopicSpec;
use riverrun_proto::grpc::v1::{ClientHeartbeat, push_client::PushClient, session_request::Frame};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::{Args, session::Session};
use crate::{
    broker::Setup,
    error::Result,
    process,
    report::{Measurement, Target},
};

/// Topic of the workload.
const TOPIC: &str = "idle";
/// Sessions of one subscription.
const SHARED_BY: usize = 100;
/// Time to come to rest before measuring.
const SETTLE: Duration = Duration::from_secs(5);
/// Time over which the processor is measured.
const WINDOW: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &Args, setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("sessions").await?;
    broker.client().await?.admin().create_topic(TopicSpec::new(TOPIC)).await?;
    let mut sessions = JoinSet::new();
    for connection in 0..args.connections {
        let endpoint = Endpoint::from_shared(format!("http://{}", broker.address()))?;
        let push = PushClient::new(endpoint.connect().await?);
        for number in (connection..args.sessions).step_by(args.connections) {
            let name = format!("s{}", number / SHARED_BY);
            let session = Session::open(push.clone(), (&name, TOPIC, format!("{number}")), 10);
            sessions.spawn(stay(session.await?));
        }
    }
    tokio::time::sleep(SETTLE).await;
    let share = process::processor_share(broker.pid(), WINDOW).await?;
    let memory = process::memory(broker.pid())?;
    let ended = std::iter::from_fn(|| sessions.try_join_next()).count();
    sessions.shutdown().await;
    broker.stop()?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let state = format!("{} sessions", args.sessions);
    Ok(vec![
        Measurement::new(format!("{state}: resident"), mib(memory.resident), "MiB")
            .target(Target::AtMost(300.0)),
        Measurement::new(format!("{state}: processor"), share * 100.0, "% of core")
            .target(Target::AtMost(2.0)),
        // A session that ended was not idle: then the numbers would be those of fewer.
        Measurement::new("sessions that ended", ended as f64, "").target(Target::AtMost(0.0)),
    ])
}

/// Sends signs of life and takes those of the broker.
async fn stay(mut session: Session) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(session.heartbeat_ms.max(1)));
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => session.send(Frame::Heartbeat(ClientHeartbeat {})).await?,
            frame = session.next() => drop(frame?),
        }
    }
}
