//! Sessions that do nothing cost next to nothing.

use riverrun_proto::grpc::v1;
use tonic::transport::Endpoint;

use crate::support::{
    client::in_time,
    process::Broker,
    push::{PushStubs, open, spec},
};

const CONNECTIONS: usize = 10;
const SESSIONS_EACH: usize = 200;
/// Memory that one idle session may cost, its stream included.
const BYTES_EACH: usize = 30 << 10;

async fn stubs(broker: &Broker) -> PushStubs {
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap();
    PushStubs::on(in_time(endpoint.connect()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_take_little_memory_and_later_ones_beat_more_slowly() {
    let broker = Broker::start();
    let mut first = stubs(&broker).await;
    first.topics.create("t", 4, v1::TopicConfig::default()).await;
    first.create("s", spec(Default::default())).await.unwrap();
    let before = broker.peak_bytes();
    let mut sessions = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut stubs = stubs(&broker).await;
        for number in 0..SESSIONS_EACH {
            let id = format!("w-{connection}-{number}");
            let mut session = stubs.session_with(open(&id)).await.unwrap();
            session.grant(10, 1 << 20).await;
            sessions.push(session);
        }
    }
    let grown = broker.peak_bytes() - before;
    let each = grown / sessions.len();
    assert!(each <= BYTES_EACH, "{each} bytes for each of {} sessions", sessions.len());
    let intervals: Vec<u32> =
        sessions.iter().map(|session| session.opened.heartbeat_interval_ms).collect();
    assert!(intervals.is_sorted());
    assert_eq!((intervals.first(), intervals.last()), (Some(&5_000), Some(&20_000)));
    first.send_numbers(1).await;
    let lane = first.lane_until(|lane| lane.in_flight == 1).await;
    assert_eq!(lane.lag, 1, "one of them got it");
}
