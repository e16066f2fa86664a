//! Subscriptions after a power loss.

use riverrun_proto::grpc::v1;
use riverrun_storage::disk::sim::{CrashPolicy, SimDisk};

use crate::support::{
    broker::TestBroker,
    push::{PushStubs, spec, value},
};

#[tokio::test]
async fn records_that_take_the_offsets_of_lost_ones_are_delivered() {
    let disk = SimDisk::new(7);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    let os = v1::TopicConfig {
        durability: Some(v1::Durability::Os as i32),
        ..v1::TopicConfig::default()
    };
    stubs.topics.create("t", 1, os).await;
    assert!(stubs.create("s", spec(v1::SubscriptionSettings::default())).await.unwrap());
    stubs.send_numbers(20).await;
    let mut session = stubs.session("a").await;
    let got = session.take(20).await;
    // The acknowledgements are on disk, the records are not. One is left open.
    session.ack(&got[..12]).await;
    session.ack(&got[13..]).await;

    let left = disk.crash(CrashPolicy::lose_all());
    drop((session, stubs, broker));
    for first in ["new", "newer"] {
        let broker = TestBroker::start_on(left.clone(), |_| ()).await;
        let mut stubs = PushStubs::new(&broker).await;
        let base = stubs.send(&[value(first), value("b"), value("c")]).await;
        assert!(base < 12, "the power loss took nothing: {base}");
        let mut session = stubs.session("a").await;
        let got = session.take(3).await;
        let values: Vec<&str> = got.iter().map(|one| one.value.as_str()).collect();
        assert_eq!(values, [first, "b", "c"]);
        session.ack(&got).await;
        drop((session, stubs));
        broker.stop().await;
    }
}
