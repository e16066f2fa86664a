//! The end of a broker, as those hear it who wait for something at that moment.

use std::task::Poll;

use futures_util::{StreamExt, poll};
use riverrun_proto::grpc::v1::{self, group_client::GroupClient};
use tokio::task::spawn_blocking;
use tonic::{Code, transport::Endpoint};

use crate::support::{
    broker::Stubs,
    client::in_time,
    process::Broker,
    records::{code, error, fetch},
};

fn heartbeat(epoch: i32, max_wait_ms: u32) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        member_epoch: epoch,
        subscription: (epoch == 0).then(|| v1::TopicList { topics: vec!["t".into()] }),
        max_wait_ms,
        ..v1::HeartbeatRequest::default()
    }
}

/// Nobody is told by being cut: that would come only when the time for calls in flight is over, and without
/// an error of ours.
#[tokio::test]
async fn whoever_waits_is_answered_when_the_broker_is_asked_to_end() {
    let mut broker = Broker::start_with("");
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut stubs = Stubs::new(channel.clone());
    let mut group = GroupClient::new(channel);
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let mut epoch = 0;
    // Until all is assigned and the next heartbeat has nothing to tell.
    loop {
        let reply = in_time(group.heartbeat(heartbeat(epoch, 0))).await.unwrap().into_inner();
        epoch = reply.member_epoch;
        if reply.assignment.is_none() {
            break;
        }
    }
    let watch = v1::WatchPartition { topic: "t".into(), partition: 0, all_partitions: false };
    let watch = v1::WatchRequest { partitions: vec![watch] };
    let mut states = in_time(stubs.fetch.watch(watch)).await.unwrap().into_inner();
    in_time(states.next()).await.expect("the first state").unwrap();
    let mut held = Box::pin(group.heartbeat(heartbeat(epoch, 60_000)));
    let poll = v1::FetchRequest { max_wait_ms: 60_000, ..fetch("t", 0) };
    let mut fetches = stubs.fetch.clone();
    let mut long_poll = Box::pin(fetches.fetch(poll));
    assert!(poll!(&mut held).is_pending() && poll!(&mut long_poll).is_pending());
    // Calls of one connection are taken up in order: once this is answered, the two before are being served.
    stubs.admin.get_metadata(v1::GetMetadataRequest::default()).await.unwrap();
    let Poll::Pending = poll!(&mut held) else { panic!("nothing was to be told") };
    let (broker, status) = spawn_blocking(move || {
        let status = broker.stop();
        (broker, status)
    })
    .await
    .unwrap();
    let refused = in_time(held).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused)), (Code::Unavailable, v1::ErrorCode::Unavailable));
    assert!(error(&refused).retry_after_ms > 0, "{refused}");
    let read = in_time(long_poll).await.expect("an answer").into_inner();
    assert!(read.partitions[0].records.is_empty());
    assert!(in_time(states.next()).await.is_none(), "the watch ends in order");
    assert!(status.success(), "{status}");
    assert!(!broker.stderr().contains("cut"), "{}", broker.stderr());
}
