//! Bounds of memory and connections hold, and give way again.

use std::{io::Read, net::TcpStream, time::Duration};

use riverrun_proto::grpc::v1;
use tokio::time::timeout;

use crate::support::{
    broker::TestBroker,
    records::{append, code, error, fetch},
};

#[tokio::test]
async fn connections_past_the_cap_are_closed_and_places_are_given_back() {
    let broker = TestBroker::start_with(|config| config.grpc.connections_max = 2).await;
    let mut first = broker.stubs().await;
    let second = broker.stubs().await;
    first.create("t", 1, v1::TopicConfig::default()).await;
    let address = broker.inside().address();
    let closed = tokio::task::spawn_blocking(move || {
        let mut third = TcpStream::connect(address).unwrap();
        third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        third.read(&mut [0; 1]).unwrap_or(0)
    });
    assert_eq!(closed.await.unwrap(), 0, "closed on arrival");
    drop(second);
    let back = timeout(Duration::from_secs(20), async { while !can_append(&broker).await {} });
    back.await.expect("the place is given back");
}

/// True when a connection of its own gets an append through.
async fn can_append(broker: &TestBroker) -> bool {
    let endpoint = tonic::transport::Endpoint::from_shared(broker.url()).expect("an address");
    let Ok(channel) = endpoint.connect().await else { return false };
    let mut stubs = crate::support::broker::Stubs::new(channel);
    stubs.produce.append(append("t", &["a"])).await.is_ok()
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let soon = Duration::from_millis(50);
    let broker = TestBroker::start_with(|config| config.grpc.handshake_timeout = soon).await;
    let address = broker.inside().address();
    let closed = tokio::task::spawn_blocking(move || {
        let mut silent = TcpStream::connect(address).unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = Vec::new();
        // The door's own greeting may come first; what counts is that it ends.
        silent.read_to_end(&mut bytes).is_ok_and(|count| count < 1_000)
    });
    assert!(closed.await.unwrap());
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
}

#[tokio::test]
async fn long_polls_past_the_bound_are_refused_with_a_time_to_come_back() {
    let broker = TestBroker::start_with(|config| config.limits.waiters_max = 1).await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    let poll = v1::FetchRequest { max_wait_ms: 60_000, ..fetch("t", 0) };
    let (mut reader, first) = (stubs.clone(), poll.clone());
    let waiting = tokio::spawn(async move { reader.fetch.fetch(first).await });
    let tail = broker.inside().registry().partition("t", &[], 0).unwrap().tail().clone();
    while tail.waiter_count() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = stubs.fetch.fetch(poll).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(code(&refused), v1::ErrorCode::QuotaExceeded);
    assert!(error(&refused).retry_after_ms > 0);
    stubs.append("t", &["a"]).await;
    waiting.await.unwrap().expect("the first was served");
}

#[tokio::test]
async fn a_second_broker_on_the_directory_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let first = TestBroker::start_in(dir, |_| ()).await;
    let second = tokio::task::spawn_blocking(move || {
        riverrun_broker::Broker::start(crate::support::broker::config(&path))
            .unwrap_err()
            .to_string()
    });
    let refused = second.await.unwrap();
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
    first.stop().await;
}
