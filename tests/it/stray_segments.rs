//! Segment files that do not belong where they lie, and copies of a directory that is written to: the partition says
//! what is wrong by name, others serve on, nothing is deleted, and no wrong byte is read.

use std::{
    fs,
    io::ErrorKind,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use riverrun_proto::grpc::v1;
use tempfile::TempDir;

use super::data_dir::{copy_tree, tree};
use crate::support::{
    broker::{Stubs, TestBroker},
    records::{append, code, fetch},
};

/// Segments are as small as they may be.
fn small_segments() -> v1::TopicConfig {
    let (segment_bytes, message_bytes_max) = (Some(1 << 20), Some(1_000_000));
    v1::TopicConfig { segment_bytes, message_bytes_max, ..v1::TopicConfig::default() }
}

/// The value of the record at `offset`, of about this many bytes.
fn value(offset: u64, bytes: usize) -> String {
    format!("{offset:020}").repeat(bytes / 20)
}

/// Appends the records from offset `from` to `to` of `hit`, one by one.
async fn fill(stubs: &mut Stubs, topic: &str, from: u64, to: u64, bytes: usize) {
    for offset in from..to {
        let receipt = stubs.append(topic, &[&value(offset, bytes)]).await;
        assert_eq!(receipt.base_offset, offset);
    }
}

fn segment(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Two topics of several segments each, and the directories of their partitions.
struct Left {
    dir: TempDir,
    hit: PathBuf,
    other: PathBuf,
    /// Segments of `hit` from a history that parted from this one: it has one that begins at 9.
    parted: PathBuf,
    /// As `parted`, of a history that parted earlier than the last segment of `hit` was made: it has one at 11.
    older: PathBuf,
    _copies: [TempDir; 2],
}

impl Left {
    /// `hit` has segments at 0, 2, 4, 6, 8 and 10, and `other` one for each of its three records.
    async fn new() -> Left {
        let broker = TestBroker::start().await;
        let mut stubs = broker.stubs().await;
        stubs.create("hit", 1, small_segments()).await;
        stubs.create("other", 1, small_segments()).await;
        fill(&mut stubs, "hit", 0, 7, 400_000).await;
        fill(&mut stubs, "other", 0, 3, 900_000).await;
        let id = |name| broker.inside().registry().topic(name).unwrap().id.to_string();
        let (hit, other) = (id("hit"), id("other"));
        let dir = broker.stop().await.unwrap();
        let copies = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for copy in &copies {
            copy_tree(&dir.path().join("data"), &copy.path().join("data"));
        }
        let [parted, older] = copies;
        let older = Left::go_on(older, 7..12, 900_000).await;
        // Each start begins a higher epoch, so the second one's is above that of `older` also within a second.
        let dir = Left::go_on(dir, 7..9, 400_000).await;
        let dir = Left::go_on(dir, 9..11, 400_000).await;
        let parted = Left::go_on(parted, 7..10, 900_000).await;
        let at = |dir: &TempDir, id: &str| dir.path().join("data/logs").join(id).join("0");
        let copies = [parted, older];
        let [parted, older] = copies.each_ref().map(|copy| at(copy, &hit));
        let (hit, other) = (at(&dir, &hit), at(&dir, &other));
        for (dir, base) in [(&hit, 8), (&hit, 10), (&other, 1), (&parted, 9), (&older, 11)] {
            assert!(segment(dir, base).exists(), "{base}: {:?}", tree(dir).len());
        }
        Left { dir, hit, other, parted, older, _copies: copies }
    }

    /// Starts on `dir`, appends the records of `hit` at `offsets`, and stops.
    async fn go_on(dir: TempDir, offsets: Range<u64>, bytes: usize) -> TempDir {
        let broker = TestBroker::start_in(dir, |_| ()).await;
        fill(&mut broker.stubs().await, "hit", offsets.start, offsets.end, bytes).await;
        broker.stop().await.unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

/// Makes the segment at `path` one of the next format version, with a header block that is valid.
fn write_newer_version(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 0).unwrap();
    block[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let covered = block[8..12].iter().chain(&block[16..]);
    let crc = !covered.fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&block, 0).unwrap();
}

/// What was done, how, and what of it is named.
type Plant = (&'static str, fn(&Left), &'static str);

#[tokio::test]
async fn segments_that_do_not_belong_are_named_and_left_alone() {
    let plants: [Plant; 7] = [
        (
            "a segment of another history overlaps",
            |left| copy(&segment(&left.parted, 9), &segment(&left.hit, 9)),
            "00000000000000000008.log",
        ),
        (
            "a segment of an older history follows",
            |left| copy(&segment(&left.older, 11), &segment(&left.hit, 11)),
            "00000000000000000011.log",
        ),
        (
            "a segment of another partition, beside",
            |left| copy(&segment(&left.other, 1), &segment(&left.hit, 1)),
            "belongs to partition",
        ),
        (
            "a segment of another partition, in place",
            |left| copy(&segment(&left.other, 2), &segment(&left.hit, 2)),
            "belongs to partition",
        ),
        (
            "a newer format",
            |left| write_newer_version(&segment(&left.hit, 4)),
            "has format version `2`; this program reads `1`",
        ),
        (
            "an empty file between segments",
            |left| fs::write(segment(&left.hit, 5), b"").unwrap(),
            "00000000000000000005.log",
        ),
        (
            "a segment that lost its contents",
            |left| fs::write(segment(&left.hit, 6), b"").unwrap(),
            "00000000000000000006.log",
        ),
    ];
    for (what, plant, named) in plants {
        let left = Left::new().await;
        plant(&left);
        let (hit, before) = (left.hit.clone(), tree(&left.hit));
        let broker = TestBroker::start_in(left.dir, |_| ()).await;
        let mut stubs = broker.stubs().await;
        let refused = stubs.produce.append(append("hit", &["c"])).await.unwrap_err();
        assert_eq!(code(&refused), v1::ErrorCode::PartitionFailed, "{what}: {refused}");
        assert!(refused.message().contains(named), "{what}: {}", refused.message());
        fill(&mut stubs, "other", 3, 4, 900_000).await;
        check_no_wrong_bytes(&mut stubs, "hit", 400_000).await;
        let _dir = broker.stop().await;
        assert!(tree(&hit) == before, "{what}: something was changed");
    }
}

/// Reads `topic` from each of its offsets: what comes is what was appended there. Returns how many came.
async fn check_no_wrong_bytes(stubs: &mut Stubs, topic: &str, bytes: usize) -> u64 {
    let mut count = 0;
    for offset in 0.. {
        let fetched = stubs.fetch.fetch(fetch(topic, offset)).await.unwrap().into_inner();
        let Some(read) = fetched.partitions.first() else { break };
        for record in &read.records {
            let found = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
            assert!(found == value(record.offset, bytes), "wrong bytes at {}", record.offset);
        }
        count += u64::from(read.records.first().is_some_and(|record| record.offset == offset));
        let is_past = offset >= read.high_watermark;
        if is_past && (read.error.is_some() || read.records.is_empty()) {
            break;
        }
    }
    count
}

/// Copies a directory that somebody writes to; what is gone when its turn comes is left out.
fn copy_running(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_running(&from, &to);
        } else if let Err(error) = fs::copy(from, to) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_holds_what_was_acknowledged_or_says_what_is_wrong() {
    const BYTES: usize = 90_000;
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("idle", 1, small_segments()).await;
    stubs.create("busy", 1, small_segments()).await;
    fill(&mut stubs, "idle", 0, 40, BYTES).await;
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let load = {
        let (mut stubs, acknowledged, stop) = (stubs.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move {
            let mut offset = 0;
            while !stop.load(SeqCst) {
                fill(&mut stubs, "busy", offset, offset + 1, BYTES).await;
                offset += 1;
                acknowledged.store(offset, SeqCst);
            }
        })
    };
    for round in 1..=4 {
        while acknowledged.load(SeqCst) < round * 40 {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.load(SeqCst);
        let copy = tempfile::tempdir().unwrap();
        let (from, to) = (broker.data_dir(), copy.path().join("data"));
        tokio::task::spawn_blocking(move || copy_running(&from, &to)).await.unwrap();
        let other = TestBroker::start_in(copy, |_| ()).await;
        let mut others = other.stubs().await;
        assert_eq!(check_no_wrong_bytes(&mut others, "idle", BYTES).await, 40);
        let read = check_no_wrong_bytes(&mut others, "busy", BYTES).await;
        match others.produce.append(append("busy", &["x"])).await {
            Ok(receipt) => {
                let end = receipt.into_inner().base_offset;
                assert!(end >= before && read >= before, "{read} of {before} are there, end {end}");
            }
            Err(refused) => {
                assert_eq!(code(&refused), v1::ErrorCode::PartitionFailed, "{refused}");
                assert!(refused.message().contains("logs/"), "{refused}");
            }
        }
    }
    stop.store(true, SeqCst);
    load.await.unwrap();
}
