//! Subscriptions after a power loss.

use std::{path::Path, sync::Arc, time::Duration};

use riverrun_broker::{
    broker::{Ground, simulated::Simulated},
    clock::Clock,
};
use riverrun_proto::grpc::v1;
use riverrun_storage::{
    data_dir::Meta,
    disk::sim::{CrashPolicy, SimDisk},
};
use uuid::Uuid;

use super::schedule::{at, cancel, now_ms};
use crate::support::{
    broker::{TestBroker, config},
    push::{Got, PushStubs, Session, spec, value},
};

/// Records are acknowledged from the page cache.
fn os() -> v1::TopicConfig {
    v1::TopicConfig { durability: Some(v1::Durability::Os as i32), ..v1::TopicConfig::default() }
}

/// A broker whose records in `t` were delivered and are not on the disk yet.
struct Delivered {
    broker: TestBroker,
    stubs: PushStubs,
    session: Session,
    got: Vec<Got>,
}

impl Delivered {
    async fn of(disk: &SimDisk, count: usize) -> Delivered {
        let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
        let mut stubs = PushStubs::new(&broker).await;
        stubs.topics.create("t", 1, os()).await;
        assert!(stubs.create("s", spec(v1::SubscriptionSettings::default())).await.unwrap());
        stubs.send_numbers(count as u64).await;
        let mut session = stubs.session("a").await;
        let got = session.take(count).await;
        Delivered { broker, stubs, session, got }
    }
}

#[tokio::test]
async fn records_that_take_the_offsets_of_lost_ones_are_delivered() {
    let disk = SimDisk::new(7);
    let Delivered { broker, stubs, mut session, got } = Delivered::of(&disk, 20).await;
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

#[tokio::test]
async fn a_record_in_the_place_of_a_lost_one_is_not_cancelled_with_it() {
    let disk = SimDisk::new(11);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.topics.create("t", 1, os()).await;
    let far = now_ms() + 3_600_000;
    stubs.send(&[value("a"), at(far, "cancelled"), value("c")]).await;
    assert!(cancel(&mut stubs, 1).await.unwrap());
    let left = disk.crash(CrashPolicy::lose_all());
    drop((stubs, broker));

    let broker = TestBroker::start_on(left, |_| ()).await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.send(&[value("x"), value("y"), value("z")]).await;
    assert!(stubs.create("s", spec(v1::SubscriptionSettings::default())).await.unwrap());
    let mut session = stubs.session("a").await;
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "z") {
        got.push(session.one().await.value);
    }
    assert_eq!(got[got.len() - 3..], ["x", "y", "z"]);
}

#[tokio::test]
async fn nothing_is_appended_before_it_is_stored_where_delivery_goes_on() {
    let disk = SimDisk::new(13);
    let Delivered { broker, stubs, mut session, got } = Delivered::of(&disk, 3).await;
    session.ack(&got).await;
    let (killed, cut) = (disk.kill(), disk.crash(CrashPolicy::lose_all()));
    drop((session, stubs, broker));

    for (disk, is_there) in [(killed, true), (cut, false)] {
        let ground = Ground {
            disk: Arc::new(disk),
            meta: Meta { cluster_id: Uuid::from_u128(5), node_id: 0 },
            clock: Clock::real(),
            data_dir: None,
        };
        // Nobody runs the writer of its store.
        let broker = Simulated::open(config(Path::new("simulated")), &ground).unwrap();
        let begun =
            tokio::time::timeout(Duration::from_millis(50), broker.services().delivery.begun());
        assert_eq!(begun.await.is_ok(), is_there);
    }
}
