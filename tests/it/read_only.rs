//! A data directory that cannot be written to: reads are served, every write is refused by name, and nothing
//! changes.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use riverrun_proto::grpc::v1::{self, group_client::GroupClient};
use tonic::Status;

use super::data_dir::{commit, copy_tree, tree};
use crate::support::{
    broker::{Stubs, TestBroker},
    client::in_time,
    mount::TestMount,
    process::Broker,
    records::{append, error},
};

/// The refusals of everything that would change something.
async fn refusals(broker: &TestBroker, stubs: &mut Stubs) -> Vec<(&'static str, v1::Error)> {
    let mut groups = GroupClient::new(broker.channel().await);
    let topic = || "t".to_owned();
    let config = v1::TopicConfig { retention_ms: Some(1_000), ..v1::TopicConfig::default() };
    let subscription = Some(v1::TopicList { topics: vec![topic()] });
    let (create, alter) = (
        v1::CreateTopicRequest { topic: "new".into(), ..Default::default() },
        v1::AlterTopicRequest {
            topic: topic(),
            partitions: 3,
            config: Some(config),
            ..Default::default()
        },
    );
    let delete = v1::DeleteTopicRequest { topic: topic(), ..Default::default() };
    let trim = v1::DeleteRecordsRequest { topic: topic(), partition: 0, before_offset: 1 };
    let reset = v1::ResetOffsetsRequest {
        group: "g".into(),
        target: Some(v1::reset_offsets_request::Target::Earliest(true)),
        ..Default::default()
    };
    let join = v1::HeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        subscription,
        ..Default::default()
    };
    let refused = |what, status: Option<Status>| (what, error(&status.expect(what)));
    let mut found = vec![
        refused("produce", stubs.produce.append(append("t", &["c"])).await.err()),
        refused(
            "init",
            stubs.produce.init_producer(v1::InitProducerRequest::default()).await.err(),
        ),
        refused("create", stubs.admin.create_topic(create).await.err()),
        refused("alter", stubs.admin.alter_topic(alter).await.err()),
        refused("delete", stubs.admin.delete_topic(delete).await.err()),
        refused("trim", stubs.admin.delete_records(trim).await.err()),
        refused("reset", stubs.admin.reset_offsets(reset).await.err()),
        refused(
            "delete group",
            stubs.admin.delete_group(v1::DeleteGroupRequest { group: "g".into() }).await.err(),
        ),
        refused("join", groups.heartbeat(join).await.err()),
    ];
    let member = v1::GroupMember { group: "g".into(), member_epoch: -1, ..Default::default() };
    let one = v1::OffsetCommit { topic: topic(), offset: 2, ..Default::default() };
    let committing = v1::CommitOffsetsRequest { member: Some(member), offsets: vec![one] };
    match groups.commit_offsets(committing).await {
        Ok(answer) => {
            let told = answer.into_inner().results[0].error.clone();
            found.push(("commit", told.expect("refused")));
        }
        Err(status) => found.push(("commit", error(&status))),
    }
    found
}

/// Reads in every way there is.
async fn check_reads(broker: &TestBroker, stubs: &mut Stubs) {
    assert_eq!(stubs.read("t").await, ["a", "b"]);
    let one = v1::WatchPartition { topic: "t".into(), ..Default::default() };
    let watch = v1::WatchRequest { partitions: vec![one] };
    let mut watched = stubs.fetch.watch(watch).await.unwrap().into_inner();
    let first = in_time(watched.message()).await.unwrap().unwrap();
    assert_eq!((first.partitions[0].high_watermark, &first.partitions[0].error), (2, &None));
    let position = Some(v1::offset_query::Position::Latest(true));
    let query = v1::OffsetQuery { topic: "t".into(), partition: 0, position };
    let queries = v1::LookupOffsetsRequest { queries: vec![query] };
    let found = stubs.fetch.lookup_offsets(queries).await.unwrap().into_inner();
    assert_eq!(found.answers[0].offset, 2);
    let request = v1::DescribeTopicRequest { topic: "t".into() };
    let described = stubs.admin.describe_topic(request).await.unwrap().into_inner();
    assert_eq!(
        (described.partitions[0].log_end_offset, &described.partitions[0].failure),
        (2, &None)
    );
    let listed = stubs.admin.list_groups(v1::ListGroupsRequest {}).await.unwrap().into_inner();
    assert_eq!((listed.groups[0].group.as_str(), listed.groups[0].lag), ("g", 1));
    let topics = stubs.admin.get_metadata(v1::GetMetadataRequest::default()).await.unwrap();
    assert_eq!(topics.into_inner().topics.len(), 1);
    let asked = vec![v1::TopicPartition { topic: "t".into(), partition: 0 }];
    let stored = v1::GetOffsetsRequest { group: "g".into(), partitions: asked, member: None };
    let mut groups = GroupClient::new(broker.channel().await);
    let stored = groups.get_offsets(stored).await.unwrap().into_inner();
    assert_eq!(stored.offsets[0].offset, Some(1));
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_is_served_for_reading_and_left_as_it_is() {
    for clean in [true, false] {
        let broker = TestBroker::start().await;
        let mut stubs = broker.stubs().await;
        stubs.create("t", 1, v1::TopicConfig::default()).await;
        assert_eq!(stubs.append("t", &["a", "b"]).await.base_offset, 0);
        assert_eq!(commit(&broker, "t", 1).await, None);
        let dir = if clean {
            broker.stop().await.unwrap()
        } else {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(&broker.data_dir(), &copy.path().join("data"));
            copy
        };
        let data = dir.path().join("data");
        let before = tree(&data);
        let Some(mounted) = TestMount::read_only(data.clone()) else { return };
        let broker = TestBroker::start_in(dir, |_| ()).await;
        let reason = broker.inside().read_only().expect("it says so").to_string();
        assert!(reason.contains("Read-only file system"), "{reason}");
        let mut stubs = broker.stubs().await;
        check_reads(&broker, &mut stubs).await;
        for (what, refused) in refusals(&broker, &mut stubs).await {
            assert_eq!(refused.code(), v1::ErrorCode::ReadOnly, "{what}: {refused:?}");
            assert!(refused.message.contains(data.to_str().unwrap()), "{what}: {refused:?}");
        }
        check_reads(&broker, &mut stubs).await;
        let dir = broker.stop().await.unwrap();
        assert_eq!(tree(&data), before, "clean {clean}");
        drop(mounted);
        let broker = TestBroker::start_in(dir, |_| ()).await;
        assert_eq!(broker.inside().read_only(), None);
        let mut stubs = broker.stubs().await;
        assert_eq!(stubs.append("t", &["c"]).await.base_offset, 2, "clean {clean}");
    }
}

#[tokio::test]
async fn a_directory_that_is_no_data_directory_is_not_served_for_reading() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let Some(_mounted) = TestMount::read_only(dir.path().join("data")) else { return };
    let refused = super::data_dir::refusal(&dir).await.to_string();
    assert!(refused.contains("can not be written to"), "{refused}");
}

#[test]
fn serve_says_loudly_that_it_only_reads() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t"], b"a\n").ok();
    broker.stop();
    let Some(_mounted) = TestMount::read_only(broker.data_dir()) else { return };
    broker.restart();
    let told = broker.stderr();
    assert!(told.contains("is read-only") && told.contains("Read-only file system"), "{told}");
    assert_eq!(broker.call(&["consume", "t", "--no-follow"]).ok().text(), "a\n");
    broker.run(&["produce", "t"], b"b\n").refused(4, &["is read-only"]);
    broker.call(&["topic", "create", "u"]).refused(4, &["is read-only"]);
    broker.call(&["topic", "describe", "t"]).ok();
    assert!(broker.stop().success(), "{}", broker.stderr());
}

/// Takes every byte that is left beside `data`.
fn fill_up(data: &Path) -> PathBuf {
    let path = data.join("filler");
    let mut filler = fs::File::create(&path).unwrap();
    let page = [7; 4096];
    let full = loop {
        if let Err(error) = filler.write_all(&page) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    path
}

#[test]
fn after_a_kill_on_a_full_disk_serve_reads_and_goes_on_once_there_is_room() {
    let settings = "[disk]\nfree_bytes_min = \"1MiB\"\nhousekeeping_interval = \"100ms\"\n";
    let mut broker = Broker::start_with(settings);
    broker.stop();
    fs::remove_dir_all(broker.data_dir()).unwrap();
    fs::create_dir(broker.data_dir()).unwrap();
    let Some(_mounted) = TestMount::small(broker.data_dir(), 48) else { return };
    broker.restart();
    broker.call(&["topic", "create", "t"]).ok();
    let records: String = (0..2_000).map(|n| format!("{n:>500}\n")).collect();
    // What comes after the first half was acknowledged says that it is durable; of the second half nothing need say so.
    let (first, second) = records.split_at(records.len() / 2);
    for half in [first, second] {
        broker.run(&["produce", "t"], half.as_bytes()).ok();
    }
    let commit = ["consume", "t", "--group", "g", "--no-follow", "--max", "10"];
    broker.call(&commit).ok();
    broker.kill();
    fs::remove_file(broker.data_dir().join("ballast")).unwrap();
    // As a power cut may leave them: nothing says that the logs were idle.
    for log in logs(&broker.data_dir()) {
        fs::write(log.join("mark"), b"").unwrap();
    }
    let filler = fill_up(&broker.data_dir());
    broker.restart();
    assert!(broker.stderr().contains("until there is room"), "{}", broker.stderr());
    for _ in 0..2 {
        let read = broker.call(&["consume", "t", "--no-follow"]).ok().text();
        assert!(records.starts_with(&read) && read.len() >= first.len(), "{} bytes", read.len());
    }
    fs::remove_file(filler).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "it did not go on: {}", broker.stderr());
        let done = broker.run(&["produce", "t"], b"more\n");
        if done.code == Some(0) {
            break;
        }
        // The broker is being replaced, or has not been yet.
        assert!(matches!(done.code, Some(3 | 4)), "{done:?}");
    }
    let read = broker.call(&["consume", "t", "--no-follow"]).ok().text();
    assert_eq!(read, records + "more\n");
    assert!(broker.stop().success(), "{}", broker.stderr());
}

/// Directories of all partitions.
fn logs(data: &Path) -> Vec<PathBuf> {
    let below = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below(data.join("logs")).flat_map(below).collect()
}
