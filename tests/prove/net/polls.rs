//! Long polls that are given up, by the call and by the connection, leave nobody waiting at the broker (G16).
//!
//! The broker takes 50 waiters. Were some left, those that come later would be refused.

use std::time::Duration;

use riverrun_client::TopicSpec;
use riverrun_proto::grpc::v1::{self, fetch_client::FetchClient};
use riverrun_tests::proxy::{Dice, Proxy};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Channel;

use super::{
    crowd::{connect, in_time},
    server::{Server, text},
    town::{Place, Town},
};

const SETTINGS: &str = "insecure = true\n[limits]\nwaiters_max = 50\n";
const WAITERS_MAX: usize = 50;
/// Polls begun at once.
const AT_ONCE: usize = 40;
/// A poll that was not answered for so long waits.
const WAITS: Duration = Duration::from_millis(60);
/// Of each poll, in milliseconds: far longer than the harness.
const WAIT_MS: u32 = 60_000;

/// Gives up so many polls; tells how many were.
pub(super) async fn run(town: Option<&Town>, seed: u64, polls: usize) -> Result<usize, String> {
    let server = Server::start(town, SETTINGS)?;
    let direct = server.address(town.map(|town| town.broker(Place::Client)));
    let mq = connect(direct).await?;
    mq.admin().create_topic(TopicSpec::new("t")).await.map_err(text)?;
    let proxy = Proxy::start(direct, seed).map_err(text)?;
    let mut dice = Dice::seeded(seed);
    let mut given_up = 0;
    while given_up < polls {
        let stub = dial(&proxy).await?;
        let waiting = waiting(&stub, AT_ONCE, "aborted polls still wait").await?;
        given_up += waiting.len();
        if dice.hits(30) {
            proxy.reset_all();
        }
        drop(waiting);
    }
    // All places are free, and there are no more of them.
    let stub = dial(&proxy).await?;
    let all = waiting(&stub, WAITERS_MAX, "places of aborted polls are not free").await?;
    let (further, refused) = begin(&stub, 1).await;
    if refused == 0 {
        return Err("the broker has no limit for waiters: nothing was proved".to_owned());
    }
    drop((all, further));
    Ok(given_up)
}

async fn dial(proxy: &Proxy) -> Result<FetchClient<Channel>, String> {
    let url = format!("http://{}", proxy.address());
    let endpoint = Channel::from_shared(url).map_err(text)?;
    let channel = in_time("a connection", endpoint.connect()).await?.map_err(text)?;
    Ok(FetchClient::new(channel))
}

/// Begins polls until all of so many wait.
async fn waiting(
    stub: &FetchClient<Channel>,
    count: usize,
    what: &str,
) -> Result<JoinSet<bool>, String> {
    for _ in 0..50 {
        let (polls, refused) = begin(stub, count).await;
        if refused == 0 {
            return Ok(polls);
        }
        drop(polls);
        // The broker learns of an aborted call a moment later.
        tokio::time::sleep(WAITS).await;
    }
    Err(what.to_owned())
}

/// Begins polls; gives those that wait, and how many were refused.
async fn begin(stub: &FetchClient<Channel>, count: usize) -> (JoinSet<bool>, usize) {
    let mut polls = JoinSet::new();
    for _ in 0..count {
        let mut stub = stub.clone();
        polls.spawn(async move {
            let from = v1::FetchPartition { topic: "t".to_owned(), ..Default::default() };
            let request = v1::FetchRequest {
                partitions: vec![from],
                max_wait_ms: WAIT_MS,
                ..Default::default()
            };
            stub.fetch(request).await.is_err()
        });
    }
    let mut refused = 0;
    while let Ok(Some(ended)) = timeout(WAITS, polls.join_next()).await {
        refused += usize::from(ended.unwrap_or(true));
    }
    (polls, refused)
}
