//! Data directories as operators, backups and accidents leave them: only what is affected refuses, by name, and
//! nothing that was acknowledged is taken for absent.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use riverrun_broker::{Broker, Config, broker::StartError, clock::Clock};
use riverrun_client::ErrorCode;
use riverrun_proto::grpc::v1::{self, group_client::GroupClient};
use riverrun_storage::disk::{Disk, sim::SimDisk};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::support::{
    broker::{Stubs, TestBroker, config},
    client::{client, in_time},
    records::{append, code, fetch},
};

/// Directory of the broker's own log of topics.
const METADATA_DIR: &str = "00000000-0000-0000-0000-000000000001";
/// Directory of the broker's own log of groups.
const GROUPS_DIR: &str = "00000000-0000-0000-0000-000000000100";
/// The first segment of a log.
const SEGMENT: &str = "00000000000000000000.log";
/// Its index.
const INDEX: &str = "00000000000000000000.index";

/// A data directory that a broker left with the records `a` and `b` in each of the topics `hit` and `other`.
struct Left {
    dir: TempDir,
    /// Directory of the one partition of `hit`.
    hit: PathBuf,
}

impl Left {
    async fn new() -> Left {
        let broker = TestBroker::start().await;
        let mut stubs = broker.stubs().await;
        for topic in ["hit", "other"] {
            stubs.create(topic, 1, v1::TopicConfig::default()).await;
            stubs.append(topic, &["a", "b"]).await;
        }
        let hit = broker.inside().registry().topic("hit").unwrap().id.to_string();
        let dir = broker.stop().await.unwrap();
        let hit = logs(&dir).join(hit).join("0");
        Left { dir, hit }
    }

    /// Starts a broker on it.
    async fn start(self) -> (TestBroker, Stubs) {
        let broker = TestBroker::start_in(self.dir, |_| ()).await;
        let stubs = broker.stubs().await;
        (broker, stubs)
    }
}

fn logs(dir: &TempDir) -> PathBuf {
    dir.path().join("data/logs")
}

/// Why a broker does not start on `dir`.
pub(super) async fn refusal(dir: &TempDir) -> StartError {
    let config = config(&dir.path().join("data"));
    spawn_blocking(move || Broker::start(config).expect_err("refused")).await.unwrap()
}

/// Every file below `dir` with its bytes.
pub(crate) fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(tree(&path));
        }
        let bytes = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push((path, bytes));
    }
    found.sort();
    found
}

/// The error of a fetch of `hit` from the first offset, and its message.
async fn fetch_error(stubs: &mut Stubs, offset: u64) -> v1::Error {
    let fetched = stubs.fetch.fetch(fetch("hit", offset)).await.unwrap().into_inner();
    fetched.partitions[0].error.clone().expect("an error, never silence")
}

/// `hit` refuses writes and says why; `other` goes on.
async fn check_only_hit_refuses(stubs: &mut Stubs, reason: &str) {
    let refused = stubs.produce.append(append("hit", &["c"])).await.unwrap_err();
    assert_eq!(code(&refused), v1::ErrorCode::PartitionFailed, "{refused}");
    assert!(refused.message().contains(reason), "`{reason}` is not in `{}`", refused.message());
    stubs.append("other", &["c"]).await;
    assert_eq!(stubs.read("other").await, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_emptied_partition_is_lost_and_not_empty() {
    let damages: [fn(&Path); 3] = [
        |hit| fs::remove_dir_all(hit).unwrap(),
        |hit| {
            fs::remove_dir_all(hit).unwrap();
            fs::create_dir(hit).unwrap();
        },
        // Names without contents, as some restores leave them.
        |hit| {
            fs::remove_file(hit.join("state")).unwrap();
            for name in [SEGMENT, "mark"] {
                fs::write(hit.join(name), b"").unwrap();
            }
        },
    ];
    for damage in damages {
        let left = Left::new().await;
        damage(&left.hit);
        let hit = left.hit.clone();
        let before = hit.exists().then(|| tree(&hit));
        let (_broker, mut stubs) = left.start().await;
        check_only_hit_refuses(&mut stubs, "its records are lost").await;
        assert_eq!(fetch_error(&mut stubs, 0).await.code(), v1::ErrorCode::PartitionFailed);
        assert_eq!(hit.exists().then(|| tree(&hit)), before, "nothing is made in its place");
    }
}

#[tokio::test]
async fn a_lost_log_of_the_broker_is_not_taken_for_a_new_broker() {
    for name in [METADATA_DIR, GROUPS_DIR] {
        for emptied in [false, true] {
            let left = Left::new().await;
            let lost = logs(&left.dir).join(name);
            fs::remove_dir_all(&lost).unwrap();
            if emptied {
                fs::create_dir_all(lost.join("0")).unwrap();
            }
            let before = tree(&logs(&left.dir));
            let refused = refusal(&left.dir).await.to_string();
            assert!(refused.contains(name) && refused.contains("are lost"), "{refused}");
            assert_eq!(tree(&logs(&left.dir)), before, "nothing is changed");
        }
    }
}

#[tokio::test]
async fn files_without_contents_never_hide_records() {
    // What only helps is made again.
    for name in [INDEX, "mark", "00000000000000000002.producers"] {
        let left = Left::new().await;
        assert!(left.hit.join(name).exists(), "{name}");
        fs::write(left.hit.join(name), b"").unwrap();
        let (_broker, mut stubs) = left.start().await;
        assert_eq!(stubs.read("hit").await, ["a", "b"], "{name}");
        assert_eq!(stubs.append("hit", &["c"]).await.base_offset, 2, "{name}");
    }
    for (name, reason) in [(SEGMENT, SEGMENT), ("state", "state file")] {
        let left = Left::new().await;
        fs::write(left.hit.join(name), b"").unwrap();
        let (hit, before) = (left.hit.clone(), tree(&left.hit));
        let (_broker, mut stubs) = left.start().await;
        check_only_hit_refuses(&mut stubs, reason).await;
        assert_eq!(tree(&hit), before, "{name}");
        if name == SEGMENT {
            assert_eq!(fetch_error(&mut stubs, 0).await.code(), v1::ErrorCode::DataCorrupt);
        } else {
            assert_eq!(stubs.read("hit").await, ["a", "b"], "what is there stays readable");
        }
    }
}

#[tokio::test]
async fn what_is_no_file_under_a_segments_name_is_refused() {
    let plants: [fn(&Path); 3] = [
        |path| symlink("/dev/zero", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        },
    ];
    for plant in plants {
        for (name, replaces) in [(SEGMENT, true), ("00000000000000000001.log", false)] {
            let left = Left::new().await;
            if replaces {
                fs::remove_file(left.hit.join(name)).unwrap();
            }
            plant(&left.hit.join(name));
            let (hit, before) = (left.hit.clone(), tree(&left.hit));
            let (_broker, mut stubs) = left.start().await;
            check_only_hit_refuses(&mut stubs, name).await;
            assert_eq!(tree(&hit), before);
        }
    }
}

/// Copies the directory `from` with everything in it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Stores `offset` of partition 0 for the group `g`.
pub(super) async fn commit(broker: &TestBroker, topic: &str, offset: u64) -> Option<v1::Error> {
    try_commit(broker, topic, offset).await.unwrap()
}

/// As [`commit`], where the call as a whole may be refused.
pub(super) async fn try_commit(
    broker: &TestBroker,
    topic: &str,
    offset: u64,
) -> Result<Option<v1::Error>, Status> {
    let member = v1::GroupMember { group: "g".into(), member_epoch: -1, ..Default::default() };
    let one = v1::OffsetCommit { topic: topic.into(), offset, ..Default::default() };
    let request = v1::CommitOffsetsRequest { member: Some(member), offsets: vec![one] };
    let mut groups = GroupClient::new(broker.channel().await);
    Ok(groups.commit_offsets(request).await?.into_inner().results[0].error.clone())
}

#[tokio::test]
async fn a_copy_made_while_the_broker_runs_holds_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["a", "b"]).await;
    assert_eq!(commit(&broker, "t", 1).await, None);
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&broker.data_dir(), &copy.path().join("data"));
    stubs.append("t", &["c"]).await;
    let other = TestBroker::start_in(copy, |_| ()).await;
    let mut others = other.stubs().await;
    assert_eq!(others.read("t").await, ["a", "b"]);
    assert_eq!(others.append("t", &["x"]).await.base_offset, 2);
    assert_eq!(stubs.read("t").await, ["a", "b", "c"], "the first broker is not disturbed");
}

#[tokio::test]
async fn readers_ahead_of_a_restored_partition_are_told() {
    let left = Left::new().await;
    let backup = tempfile::tempdir().unwrap();
    copy_tree(&left.hit, &backup.path().join("0"));
    let hit = left.hit.clone();
    let (broker, mut stubs) = left.start().await;
    stubs.append("hit", &["c", "d", "e"]).await;
    assert_eq!(commit(&broker, "hit", 5).await, None);
    let dir = broker.stop().await.unwrap();
    fs::remove_dir_all(&hit).unwrap();
    copy_tree(&backup.path().join("0"), &hit);

    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mut stubs = broker.stubs().await;
    assert_eq!(stubs.read("hit").await, ["a", "b"]);
    for (leader_epoch, expected) in
        [(None, v1::ErrorCode::OffsetOutOfRange), (Some(1), v1::ErrorCode::OffsetTruncated)]
    {
        let mut request = fetch("hit", 5);
        request.partitions[0].leader_epoch = leader_epoch;
        request.max_wait_ms = 60_000;
        let fetched = stubs.fetch.fetch(request).await.unwrap().into_inner();
        let error = fetched.partitions[0].error.clone().expect("told at once");
        assert_eq!(error.code(), expected);
    }
    let refused = commit(&broker, "hit", 5).await.expect("past the end");
    assert_eq!(refused.code(), v1::ErrorCode::OffsetOutOfRange, "{refused:?}");
    let request = v1::DescribeGroupRequest { group: "g".into() };
    let described = stubs.admin.describe_group(request).await.unwrap().into_inner();
    let found = &described.partitions[0];
    assert_eq!((found.committed_offset, found.high_watermark, found.lag), (Some(5), 2, 0));
}

#[tokio::test]
async fn readers_of_the_history_after_a_backup_are_told_also_when_the_restored_one_grew_longer() {
    let (clock, hand) = Clock::manual(1_800_000_000_000);
    let start = async |disk: &SimDisk| {
        hand.advance(Duration::from_secs(60));
        TestBroker::start_at((disk.clone(), clock.clone()), |_| ()).await
    };
    for clean in [true, false] {
        let disk = SimDisk::new(9);
        let mut broker = start(&disk).await;
        let mut stubs = broker.stubs().await;
        stubs.create("t", 1, v1::TopicConfig::default()).await;
        stubs.append("t", &["a", "b"]).await;
        if clean {
            broker.stop().await;
        }
        let backup = disk.copy();
        if clean {
            broker = start(&disk).await;
            stubs = broker.stubs().await;
        }
        stubs.append("t", &["c", "d", "e"]).await;
        let fetched = stubs.fetch.fetch(fetch("t", 2)).await.unwrap().into_inner();
        let read = &fetched.partitions[0];
        let (next, epoch) = (read.next_offset, read.leader_epoch);
        assert_eq!(next, 5);

        let restored = start(&backup).await;
        let mut stubs = restored.stubs().await;
        for values in [&[][..], &["v", "w", "x", "y", "z"]] {
            if !values.is_empty() {
                assert_eq!(stubs.append("t", values).await.base_offset, 2);
            }
            let mut request = fetch("t", next);
            request.partitions[0].leader_epoch = Some(epoch);
            let fetched = stubs.fetch.fetch(request).await.unwrap().into_inner();
            let error = fetched.partitions[0].error.clone().expect("never silence");
            assert_eq!(error.code(), v1::ErrorCode::OffsetTruncated, "clean {clean}");
            assert_eq!(error.epoch_end.unwrap().end_offset, 2, "clean {clean}");
        }
        // What both have in common is a position in either.
        let mut request = fetch("t", 2);
        request.partitions[0].leader_epoch = Some(1);
        let fetched = stubs.fetch.fetch(request).await.unwrap().into_inner();
        let read = &fetched.partitions[0];
        assert_eq!((read.error.as_ref(), read.next_offset), (None, 7));
    }
}

#[tokio::test]
async fn a_group_ahead_of_a_restored_partition_stops_with_the_reason() {
    let left = Left::new().await;
    let backup = tempfile::tempdir().unwrap();
    copy_tree(&left.hit, &backup.path().join("0"));
    let hit = left.hit.clone();
    let (broker, mut stubs) = left.start().await;
    stubs.append("hit", &["c", "d", "e"]).await;
    // Stored without an epoch, as most readers do: the broker knows which record lies before it.
    assert_eq!(commit(&broker, "hit", 5).await, None);
    let dir = broker.stop().await.unwrap();
    fs::remove_dir_all(&hit).unwrap();
    copy_tree(&backup.path().join("0"), &hit);

    let broker = TestBroker::start_in(dir, |_| ()).await;
    let mq = client(&broker).await;
    let mut consumer = mq.consumer("hit").group("g").build().await.unwrap();
    let error = in_time(consumer.next_batch()).await.map(|_| ()).expect_err("never silence");
    assert_eq!(error.code(), ErrorCode::OffsetTruncated, "{error}");
    assert_eq!(error.epoch_end().map(|(_, end)| end.0), Some(2), "{error}");
}

/// Leaves no byte free on `disk`.
fn fill_up(disk: &SimDisk) {
    const LARGE: u64 = 1 << 40;
    disk.set_capacity(Some(LARGE));
    disk.set_capacity(Some(LARGE - disk.free_bytes().unwrap()));
    assert_eq!(disk.free_bytes().unwrap(), 0);
}

#[tokio::test]
async fn a_broker_starts_on_a_full_disk_serves_reads_and_stores_offsets() {
    for clean in [true, false] {
        let disk = SimDisk::new(7);
        let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
        let mut stubs = broker.stubs().await;
        stubs.create("t", 1, v1::TopicConfig::default()).await;
        stubs.append("t", &["a", "b"]).await;
        let disk = if clean {
            broker.stop().await;
            disk
        } else {
            disk.kill()
        };
        fill_up(&disk);
        let broker = TestBroker::start_on(disk.clone(), |config| {
            config.disk.free_bytes_min = 64 << 20;
        })
        .await;
        let mut stubs = broker.stubs().await;
        assert_eq!(stubs.read("t").await, ["a", "b"]);
        assert_eq!(commit(&broker, "t", 2).await, None);
        let refused = stubs.produce.append(append("t", &["c"])).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::DiskFull);
    }
}

#[tokio::test]
async fn without_room_to_recover_what_is_durable_is_read_until_there_is_room() {
    let disk = SimDisk::new(8);
    let broker = TestBroker::start_on(disk.clone(), |_| ()).await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    stubs.append("t", &["a", "b"]).await;
    assert_eq!(commit(&broker, "t", 1).await, None);
    let disk = disk.kill();
    disk.remove_file(Path::new("ballast")).unwrap();
    fill_up(&disk);
    let often = |config: &mut Config| {
        config.disk.housekeeping_interval = Duration::from_millis(10);
    };
    let broker = TestBroker::start_on(disk.clone(), often).await;
    assert!(broker.inside().waits_for_room());
    let mut stubs = broker.stubs().await;
    for _ in 0..2 {
        assert_eq!(stubs.read("t").await, ["a", "b"]);
        let refused = stubs.produce.append(append("t", &["c"])).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::DiskFull, "{refused}");
        let refused = try_commit(&broker, "t", 2).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::DiskFull, "{refused}");
        assert!(refused.message().contains("until there is room"), "{refused}");
        let new = v1::CreateTopicRequest { topic: "u".into(), ..Default::default() };
        let refused = stubs.admin.create_topic(new).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::DiskFull, "{refused}");
    }
    assert!(!broker.inside().has_room_to_recover(), "nothing came free");
    disk.set_capacity(None);
    in_time(async {
        while !broker.inside().has_room_to_recover() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    broker.stop().await;
    let broker = TestBroker::start_on(disk, |_| ()).await;
    assert!(!broker.inside().waits_for_room());
    let mut stubs = broker.stubs().await;
    assert_eq!(stubs.read("t").await, ["a", "b"]);
    assert_eq!(stubs.append("t", &["c"]).await.base_offset, 2);
    assert_eq!(commit(&broker, "t", 3).await, None);
}
