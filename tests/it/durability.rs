//! What a receipt is worth, on a disk that crashes, fails and fills up.

use std::time::Duration;

use riverrun_broker::clock::Clock;
use riverrun_proto::grpc::v1;
use riverrun_storage::disk::sim::{Call, CrashPolicy, Fault, FaultError, SimDisk};
use tokio::time::timeout;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::data_dir::{commit, try_commit};
use crate::support::{
    broker::{Stubs, TestBroker},
    http::call,
    records::{append, code, fetch, values},
};

const SOON: Duration = Duration::from_secs(20);

fn topic(durability: v1::Durability) -> v1::TopicConfig {
    v1::TopicConfig { durability: Some(durability as i32), ..Default::default() }
}

#[tokio::test]
async fn what_is_acknowledged_as_fsync_survives_a_power_loss() {
    let disk = SimDisk::new(3);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = broker.stubs().await;
    stubs.create("strong", 1, topic(v1::Durability::Fsync)).await;
    stubs.create("weak", 1, topic(v1::Durability::Os)).await;
    assert_eq!(stubs.append("strong", &["a"]).await.reached(), v1::Durability::Fsync);
    assert_eq!(stubs.append("weak", &["a"]).await.reached(), v1::Durability::Os);
    let stronger = v1::AppendRequest {
        durability_min: v1::Durability::Fsync as i32,
        ..append("weak", &["b"])
    };
    let reached = stubs.produce.append(stronger).await.unwrap().into_inner().reached();
    assert_eq!(reached, v1::Durability::Fsync);
    let leader = v1::AppendRequest { acks: v1::Acks::Leader as i32, ..append("strong", &["b"]) };
    stubs.produce.append(leader).await.unwrap();

    let left = disk.crash(CrashPolicy::lose_all());
    drop((stubs, broker));
    let broker = TestBroker::start_on(left, |_| ()).await;
    let mut stubs = broker.stubs().await;
    let strong = stubs.read("strong").await;
    assert!(strong == ["a"] || strong == ["a", "b"], "{strong:?}");
    assert_eq!(stubs.read("weak").await, ["a", "b"]);
    stubs.append("strong", &["c"]).await;
}

#[tokio::test]
async fn a_failed_flush_stops_one_partition_and_no_other() {
    let disk = SimDisk::new(4);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = broker.stubs().await;
    stubs.create("bad", 1, topic(v1::Durability::Fsync)).await;
    stubs.create("good", 1, topic(v1::Durability::Fsync)).await;
    stubs.append("bad", &["a"]).await;
    disk.inject(Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: false });
    let lost = stubs.produce.append(append("bad", &["b"])).await.unwrap_err();
    assert_eq!(
        (lost.code(), code(&lost)),
        (tonic::Code::Unavailable, v1::ErrorCode::Indeterminate)
    );
    disk.heal();
    let refused = stubs.produce.append(append("bad", &["c"])).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::PartitionFailed);
    assert_eq!(stubs.read("bad").await, ["a"]);
    let describe = v1::DescribeTopicRequest { topic: "bad".into() };
    let described = stubs.admin.describe_topic(describe).await.unwrap().into_inner();
    assert!(described.partitions[0].failure.is_some());
    stubs.append("good", &["a"]).await;
}

#[tokio::test]
async fn three_stopped_partitions_are_a_failed_disk_which_every_partition_names_and_health_tells() {
    let disk = SimDisk::new(4);
    // The clock stands, so that no mark is flushed where the test means a flush of records.
    let (clock, _hand) = Clock::manual(1_700_000_000_000);
    let broker = TestBroker::start_at((disk.clone(), clock.clone()), |config| {
        config.disk.housekeeping_interval = Duration::from_millis(10);
    })
    .await;
    let mut stubs = broker.stubs().await;
    let topics = ["bad0", "bad1", "bad2", "good"];
    for topic in topics {
        stubs.create(topic, 1, self::topic(v1::Durability::Fsync)).await;
        stubs.append(topic, &["a"]).await;
    }
    let fault = Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: false };
    for topic in &topics[..3] {
        assert_eq!(health(&broker, "").await, ServingStatus::Serving);
        stubs.append("good", &["b"]).await;
        disk.inject(fault);
        let lost = stubs.produce.append(append(topic, &["b"])).await.unwrap_err();
        assert_eq!(code(&lost), v1::ErrorCode::Indeterminate, "{topic}");
        disk.heal();
    }
    for topic in topics {
        let refused = stubs.produce.append(append(topic, &["c"])).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::PartitionFailed, "{topic}: {refused}");
    }
    let refused = stubs.produce.append(append("good", &["c"])).await.unwrap_err();
    for part in ["disk of data directory `simulated` has failed", "3 partitions"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    let new = v1::CreateTopicRequest { topic: "u".into(), partitions: 1, ..Default::default() };
    let refused = stubs.admin.create_topic(new).await.unwrap_err();
    assert!(refused.message().contains("disk of data directory"), "{refused}");
    let stored = try_commit(&broker, "good", 1).await;
    assert!(!matches!(stored, Ok(None)), "an offset that is not known to be there");
    let describe = v1::DescribeTopicRequest { topic: "good".into() };
    let described = stubs.admin.describe_topic(describe).await.unwrap().into_inner();
    assert!(described.partitions[0].failure.is_some());

    for topic in &topics[..3] {
        assert_eq!(stubs.read(topic).await, ["a"], "{topic}");
    }
    assert_eq!(read_all(&mut stubs, "good").await, ["a", "b", "b", "b"], "reads go on");
    let told = timeout(SOON, async {
        while health(&broker, "").await == ServingStatus::Serving {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("health tells");
    assert_eq!(health(&broker, "riverrun.v1.Produce").await, ServingStatus::NotServing);
    assert_eq!(health(&broker, "riverrun.v1.Fetch").await, ServingStatus::Serving);
    let ready = call(broker.web_address(), "GET /readyz", b"").await;
    ready.refused((503, "PARTITION_FAILED"), &["disk of data directory `simulated`"]);

    let left = disk.crash(CrashPolicy::lose_all());
    drop((stubs, broker));
    // By the same clock, or retention would take the records for years old.
    let broker = TestBroker::start_at((left, clock), |_| ()).await;
    let mut stubs = broker.stubs().await;
    assert_eq!(read_all(&mut stubs, "good").await, ["a", "b", "b", "b"]);
    stubs.append("good", &["c"]).await;
}

#[tokio::test]
async fn a_broker_whose_log_of_topics_stopped_is_not_ready_and_says_why() {
    let disk = SimDisk::new(4);
    // The clock stands, so that no mark is flushed where the test means a flush of topics.
    let (clock, _hand) = Clock::manual(1_700_000_000_000);
    let broker = TestBroker::start_at((disk.clone(), clock.clone()), |config| {
        config.disk.housekeeping_interval = Duration::from_millis(10);
    })
    .await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, topic(v1::Durability::Fsync)).await;
    call(broker.web_address(), "GET /readyz", b"").await.ok(200);
    disk.inject(Fault { call: Call::Sync, nth: 1, error: FaultError::Io, lasting: false });
    let new = v1::CreateTopicRequest { topic: "u".into(), partitions: 1, ..Default::default() };
    stubs.admin.create_topic(new.clone()).await.expect_err("nobody knows whether it is there");
    disk.heal();
    let parts = ["no topic can be created", "log of them has stopped"];
    let ready = call(broker.web_address(), "GET /readyz", b"").await;
    ready.refused((503, "PARTITION_FAILED"), &parts);
    let told = timeout(SOON, async {
        while health(&broker, "").await == ServingStatus::Serving {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("health tells");
    assert_eq!(health(&broker, "riverrun.v1.Admin").await, ServingStatus::NotServing);
    assert_eq!(health(&broker, "riverrun.v1.Produce").await, ServingStatus::Serving);
    stubs.append("t", &["a"]).await;
    assert_eq!(stubs.read("t").await, ["a"]);

    let left = disk.crash(CrashPolicy::lose_all());
    drop((stubs, broker));
    let broker = TestBroker::start_at((left, clock), |_| ()).await;
    call(broker.web_address(), "GET /readyz", b"").await.ok(200);
    assert_eq!(broker.stubs().await.read("t").await, ["a"]);
}

#[tokio::test]
async fn a_file_system_that_turns_read_only_under_the_broker_refuses_writes_by_name_and_loses_nothing()
 {
    // How the system refuses depends on what is under way: a copy, a flush, or a change of names and lengths alone.
    const NAMES: &[Call] = &[
        Call::Create,
        Call::CreateDir,
        Call::Allocate,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
        Call::SetLen,
    ];
    for (calls, is_written) in
        [(&[Call::Write, Call::Sync][..], false), (&[Call::Sync], false), (&[], true)]
    {
        let disk = SimDisk::new(8);
        let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
        let mut stubs = broker.stubs().await;
        for topic in ["t", "u"] {
            stubs.create(topic, 1, self::topic(v1::Durability::Fsync)).await;
            stubs.append(topic, &["a"]).await;
        }
        assert_eq!(commit(&broker, "t", 1).await, None);
        for call in NAMES.iter().chain(calls) {
            let (call, error) = (*call, FaultError::ReadOnly);
            disk.inject(Fault { call, nth: 1, error, lasting: true });
        }
        let mut acknowledged = vec!["a".to_owned()];
        let mut refusals = 0;
        // Room that was allocated before lasts for a while when only names and lengths are refused.
        for _ in 0..40 {
            let value = "v".repeat(60_000);
            match timeout(SOON, stubs.produce.append(append("t", &[value.as_str()])))
                .await
                .expect("answered")
            {
                Ok(_) => acknowledged.push(value),
                Err(refused) => {
                    let told = [
                        v1::ErrorCode::Indeterminate,
                        v1::ErrorCode::PartitionFailed,
                        v1::ErrorCode::ReadOnly,
                    ];
                    assert!(told.contains(&code(&refused)), "{calls:?}: {refused}");
                    assert!(
                        refused.message().contains("Read-only file system"),
                        "{calls:?}: {refused}"
                    );
                    refusals += 1;
                }
            }
        }
        assert!(refusals > 0 && is_written == (acknowledged.len() > 1), "{calls:?}: {refusals}");
        assert_eq!(read_all(&mut stubs, "t").await, acknowledged, "{calls:?}: reads go on");
        assert_eq!(stubs.read("u").await, ["a"], "{calls:?}");
        let new = v1::CreateTopicRequest { topic: "w".into(), partitions: 1, ..Default::default() };
        let refused = timeout(SOON, stubs.admin.create_topic(new)).await.expect("answered");
        let refused = refused.expect_err("a topic that cannot be made");
        assert!(refused.message().contains("Read-only file system"), "{calls:?}: {refused}");

        let left = disk.crash(CrashPolicy::lose_all());
        drop((stubs, broker));
        let broker = TestBroker::start_on(left, |_| ()).await;
        let mut stubs = broker.stubs().await;
        let found = read_all(&mut stubs, "t").await;
        assert_eq!(found[..acknowledged.len()], acknowledged, "{calls:?}: what was acknowledged");
        stubs.append("t", &["b"]).await;
        assert_eq!(stubs.read("u").await, ["a"], "{calls:?}");
    }
}

/// What the health service says of one service.
async fn health(broker: &TestBroker, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(broker.channel().await);
    let request = HealthCheckRequest { service: service.into() };
    client.check(request).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn after_the_logs_were_removed_under_a_running_broker_nothing_is_acknowledged() {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, topic(v1::Durability::Fsync)).await;
    stubs.append("t", &["a"]).await;
    assert_eq!(commit(&broker, "t", 1).await, None);
    std::fs::remove_dir_all(broker.data_dir().join("logs")).unwrap();
    for _ in 0..2 {
        let lost = timeout(SOON, stubs.produce.append(append("t", &["b"]))).await;
        let lost = lost.expect("answered").expect_err("a record that would not be there");
        let told = [v1::ErrorCode::Indeterminate, v1::ErrorCode::PartitionFailed];
        assert!(told.contains(&code(&lost)), "{lost}");
        let new = v1::CreateTopicRequest { topic: "u".into(), partitions: 1, ..Default::default() };
        let made = timeout(SOON, stubs.admin.create_topic(new)).await.expect("answered");
        made.expect_err("a topic that would not be there after a restart");
        let stored = timeout(SOON, try_commit(&broker, "t", 1)).await.expect("answered");
        assert!(!matches!(stored, Ok(None)), "an offset that would not be there after a restart");
    }
}

/// All values of partition 0, over as many fetches as it takes: one ends with its segment.
async fn read_all(stubs: &mut Stubs, topic: &str) -> Vec<String> {
    let mut read = Vec::new();
    loop {
        let offset = read.len() as u64;
        let fetched = stubs.fetch.fetch(fetch(topic, offset)).await.unwrap().into_inner();
        let found = values(&fetched.partitions[0]);
        if found.is_empty() {
            return read;
        }
        read.extend(found);
    }
}

/// Panics at the next call of this kind, under an append to one of two topics.
async fn check_panic_at(call: Call) {
    let disk = SimDisk::new(7);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = broker.stubs().await;
    stubs.create("bad", 1, topic(v1::Durability::Fsync)).await;
    stubs.create("good", 1, topic(v1::Durability::Fsync)).await;
    stubs.append("good", &["a"]).await;
    stubs.append("bad", &["a"]).await;
    disk.inject(Fault { call, nth: 1, error: FaultError::Panic, lasting: false });
    let lost = timeout(SOON, stubs.produce.append(append("bad", &["b"]))).await;
    let lost = lost.expect("answered").unwrap_err();
    assert_eq!(code(&lost), v1::ErrorCode::Indeterminate, "{call:?}: {lost}");
    let refused = stubs.produce.append(append("bad", &["c"])).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::PartitionFailed, "{call:?}: {refused}");
    let describe = v1::DescribeTopicRequest { topic: "bad".into() };
    let described = stubs.admin.describe_topic(describe).await.unwrap().into_inner();
    let failure = described.partitions[0].failure.clone().expect("it is told");
    assert!(failure.message.contains("panicked"), "{call:?}: {failure:?}");
    assert_eq!(stubs.read("bad").await, ["a"], "{call:?}");
    stubs.append("good", &["b"]).await;
    assert_eq!(commit(&broker, "good", 1).await, None, "{call:?}");
    let left = disk.crash(CrashPolicy::lose_all());
    drop((stubs, broker));
    let broker = TestBroker::start_on(left, |_| ()).await;
    let mut stubs = broker.stubs().await;
    assert_eq!(read_all(&mut stubs, "good").await, ["a", "b"], "{call:?}");
    let bad = read_all(&mut stubs, "bad").await;
    assert!(bad == ["a"] || bad == ["a", "b"], "{call:?}: {bad:?}");
    stubs.append("bad", &["c"]).await;
}

#[tokio::test]
async fn a_panic_stops_its_partition_and_a_restart_has_all_that_was_acknowledged() {
    for call in [Call::Write, Call::Sync] {
        check_panic_at(call).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_produce_alone_and_resumes_by_itself() {
    let disk = SimDisk::new(5);
    disk.set_capacity(Some(200 << 20));
    let broker = TestBroker::start_on(disk.clone(), |config| {
        config.disk.free_bytes_min = 32 << 20;
        config.disk.housekeeping_interval = Duration::from_millis(10);
    })
    .await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, topic(v1::Durability::Fsync)).await;
    stubs.append("t", &["a"]).await;
    disk.set_capacity(Some(40 << 20));
    let refused =
        timeout(Duration::from_secs(20), refusal(&mut stubs)).await.expect("refused soon");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(code(&refused), v1::ErrorCode::DiskFull);
    let read = stubs.read("t").await;
    assert_eq!(read[0], "a");
    let stored = timeout(Duration::from_secs(20), commit(&broker, "t", 1)).await;
    assert_eq!(stored.expect("offsets do not wait for room"), None);
    stubs.create("meta", 1, topic(v1::Durability::Fsync)).await;
    let delete = v1::DeleteTopicRequest { topic: "meta".into(), ..Default::default() };
    stubs.admin.delete_topic(delete).await.unwrap();
    disk.set_capacity(Some(400 << 20));
    let resumed = timeout(Duration::from_secs(20), async {
        while stubs.produce.append(append("t", &["z"])).await.is_err() {}
    });
    resumed.await.expect("resumes by itself");
    assert_eq!(stubs.read("t").await, [read, vec!["z".into()]].concat());
}

#[tokio::test]
async fn with_no_byte_left_changes_of_topics_are_refused_as_a_full_disk_and_go_on_later() {
    let disk = SimDisk::new(6);
    let broker = TestBroker::start_on(disk.clone(), |config| {
        config.disk.housekeeping_interval = Duration::from_millis(10);
    })
    .await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, topic(v1::Durability::Fsync)).await;
    stubs.append("t", &["a", "b"]).await;
    disk.set_capacity(Some(1));
    let trim = v1::DeleteRecordsRequest { topic: "t".into(), before_offset: 1, partition: 0 };
    let new = v1::CreateTopicRequest { topic: "u".into(), partitions: 1, ..Default::default() };
    for _ in 0..2 {
        let refused = stubs.admin.create_topic(new.clone()).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::DiskFull, "{refused}");
        let refused = stubs.admin.delete_records(trim.clone()).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::DiskFull, "{refused}");
        assert_eq!(stubs.read("t").await, ["a", "b"]);
    }
    disk.set_capacity(None);
    stubs.admin.create_topic(new).await.unwrap();
    let trimmed = stubs.admin.delete_records(trim).await.unwrap().into_inner();
    assert_eq!(trimmed.log_start_offset, 1);
}

async fn refusal(stubs: &mut Stubs) -> tonic::Status {
    loop {
        if let Err(refused) = stubs.produce.append(append("t", &["b"])).await {
            return refused;
        }
    }
}
