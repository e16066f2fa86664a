use super::*;
use crate::disk::{
    OpenMode,
    sim::{Call, CrashPolicy, Fault, FaultError, SimDisk},
};

const MIB: u64 = 1 << 20;
const LIMITS: RecycleLimits =
    RecycleLimits { count_max: 2, bytes_max: 10 * MIB, file_bytes_min: MIB };

fn pool(disk: &SimDisk, limits: RecycleLimits) -> RecyclePool {
    RecyclePool::open(Arc::new(disk.clone()), limits).unwrap()
}

/// A durable file of `len` bytes that begins with `text`.
fn segment(disk: &SimDisk, path: &str, len: u64, text: &[u8]) {
    let path = Path::new(path);
    let dir = path.parent().unwrap();
    if disk.list(dir).is_err() {
        disk.create_dir(dir).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
    }
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.allocate(len).unwrap();
    file.write_at(0, &[text]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir).unwrap();
}

fn names(disk: &SimDisk, dir: &str) -> Vec<String> {
    disk.list(Path::new(dir)).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_retired_file_becomes_the_next_one() {
    let disk = SimDisk::new(1);
    let pool = pool(&disk, LIMITS);
    segment(&disk, "a/0.log", 4 * MIB, b"old");
    assert_eq!(pool.retire(Path::new("a/0.log")).unwrap(), Retired::Kept);
    assert_eq!((pool.held(), names(&disk, "a").len()), ((1, 4 * MIB), 0));
    assert!(pool.take(5 * MIB, Path::new("a/next.tmp")).unwrap());
    assert_eq!(names(&disk, "a"), ["next.tmp"]);
    let file = disk.open(Path::new("a/next.tmp"), OpenMode::Append { bytes_max: 5 * MIB }).unwrap();
    assert_eq!(file.len(), 4 * MIB);
    assert!(!pool.take(5 * MIB, Path::new("a/other.tmp")).unwrap());
}

#[test]
fn what_does_not_fit_is_removed() {
    let disk = SimDisk::new(1);
    let pool = pool(&disk, LIMITS);
    let lens = [MIB / 2, 4 * MIB, 7 * MIB, 5 * MIB, MIB];
    let expected =
        [Retired::Removed, Retired::Kept, Retired::Removed, Retired::Kept, Retired::Removed];
    for (n, (len, expected)) in lens.into_iter().zip(expected).enumerate() {
        let path = format!("a/{n}.log");
        segment(&disk, &path, len, b"");
        assert_eq!(pool.retire(Path::new(&path)).unwrap(), expected, "{n}");
    }
    assert_eq!(pool.held(), (2, 9 * MIB));
    assert!(names(&disk, "a").is_empty());
    let take = |bytes_max| pool.take(bytes_max, Path::new("a/next.tmp")).unwrap();
    assert!(!take(4 * MIB - 1), "larger than asked for");
    assert!(!take(20 * MIB + 4), "much smaller than asked for");
    assert!(take(6 * MIB));
    assert_eq!(pool.held(), (1, 4 * MIB), "the largest that fits goes first");
    pool.drain().unwrap();
    assert_eq!((pool.held(), names(&disk, RECYCLE_DIR).len()), ((0, 0), 0));
}

#[test]
fn files_of_an_earlier_life_are_removed_at_start() {
    let disk = SimDisk::new(1);
    segment(&disk, "a/0.log", 4 * MIB, b"old");
    pool(&disk, LIMITS).retire(Path::new("a/0.log")).unwrap();
    let next = disk.kill();
    assert_eq!(names(&next, RECYCLE_DIR).len(), 1);
    assert_eq!(pool(&next, LIMITS).held(), (0, 0));
    assert!(names(&next, RECYCLE_DIR).is_empty());
}

#[test]
fn a_file_whose_move_failed_is_not_handed_out() {
    for call in [Call::Rename, Call::SyncDir] {
        let disk = SimDisk::new(1);
        let pool = pool(&disk, LIMITS);
        segment(&disk, "a/0.log", 4 * MIB, b"old");
        disk.inject(Fault { call, nth: 1, error: FaultError::Io, lasting: false });
        pool.retire(Path::new("a/0.log")).unwrap_err();
        assert!(!pool.take(4 * MIB, Path::new("a/next.tmp")).unwrap());
        segment(&disk, "a/1.log", 4 * MIB, b"old");
        assert_eq!(pool.retire(Path::new("a/1.log")).unwrap(), Retired::Kept);
    }
}

#[test]
fn a_file_that_can_not_be_moved_out_is_given_up_and_another_serves() {
    let disk = SimDisk::new(1);
    let pool = pool(&disk, LIMITS);
    for (path, len) in [("a/0.log", 4 * MIB), ("a/1.log", 5 * MIB)] {
        segment(&disk, path, len, b"old");
        pool.retire(Path::new(path)).unwrap();
    }
    let once = |call| Fault { call, nth: 1, error: FaultError::Io, lasting: false };
    disk.inject(once(Call::Rename));
    assert!(pool.take(6 * MIB, Path::new("a/next.tmp")).unwrap());
    let file = disk.open(Path::new("a/next.tmp"), OpenMode::Read).unwrap();
    assert_eq!(file.len(), 4 * MIB, "not the largest, which stayed where it was");
    assert_eq!((pool.held(), names(&disk, RECYCLE_DIR).len()), ((0, 0), 0), "nothing is left over");

    segment(&disk, "a/2.log", 4 * MIB, b"old");
    pool.retire(Path::new("a/2.log")).unwrap();
    disk.inject(once(Call::Rename));
    disk.inject(once(Call::Remove));
    assert!(!pool.take(6 * MIB, Path::new("a/other.tmp")).unwrap(), "the log makes a new file");
    assert_eq!(
        (pool.held(), names(&disk, RECYCLE_DIR).len()),
        ((1, 4 * MIB), 1),
        "it is not forgotten"
    );
    assert!(!pool.take(6 * MIB, Path::new("a/other.tmp")).unwrap(), "and not handed out");
    pool.drain().unwrap();
    assert_eq!((pool.held(), names(&disk, RECYCLE_DIR).len()), ((0, 0), 0));
}

#[test]
fn a_file_that_somebody_removed_keeps_nothing_from_being_drained() {
    let disk = SimDisk::new(1);
    let pool = pool(&disk, LIMITS);
    segment(&disk, "a/0.log", 4 * MIB, b"old");
    pool.retire(Path::new("a/0.log")).unwrap();
    disk.remove_file(&name(0)).unwrap();
    pool.drain().unwrap();
    assert_eq!(pool.held(), (0, 0));
}

/// Moves a file from `a` through the pool to `b` and overwrites it there.
fn reuse(disk: &SimDisk) -> io::Result<()> {
    let pool = RecyclePool::open(Arc::new(disk.clone()), LIMITS)?;
    pool.retire(Path::new("a/0.log"))?;
    pool.take(4 * MIB, Path::new("b/next.tmp"))?;
    let file = disk.open(Path::new("b/next.tmp"), OpenMode::Append { bytes_max: 4 * MIB })?;
    file.write_at(0, &[b"new"])?;
    file.sync()?;
    disk.rename(Path::new("b/next.tmp"), Path::new("b/9.log"))?;
    disk.sync_dir(Path::new("b"))
}

#[test]
fn no_crash_leaves_one_file_under_two_names() {
    let start = |seed| {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new(RECYCLE_DIR)).unwrap();
        segment(&disk, "a/0.log", 4 * MIB, b"old");
        segment(&disk, "b/x", 0, b"");
        disk
    };
    let steps = {
        let disk = start(1);
        let before = disk.step_count();
        reuse(&disk).unwrap();
        disk.step_count() - before
    };
    for (step, seed) in (1..=steps + 1).flat_map(|step| (0..64).map(move |seed| (step, seed))) {
        let disk = start(seed);
        disk.cut_power_at(step);
        assert_eq!(reuse(&disk).is_ok(), step > steps);
        let after = disk.crash(CrashPolicy::weak(seed));
        let count: usize = ["a", RECYCLE_DIR, "b"]
            .iter()
            .map(|dir| names(&after, dir).iter().filter(|name| *name != "x").count())
            .sum();
        assert!(count <= 1, "step {step} seed {seed}: {count} names");
        if let Ok(file) = after.open(Path::new("a/0.log"), OpenMode::Read) {
            let mut text = [0; 3];
            file.read_at(0, &mut text).unwrap();
            assert_eq!(&text, b"old", "step {step} seed {seed}");
        }
    }
}
