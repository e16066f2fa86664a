use std::{collections::BTreeSet, fs::File, os::unix::process::CommandExt, process::Command};

use uuid::Uuid;

use super::*;
use crate::disk::{
    OpenMode,
    sim::{CrashPolicy, SimDisk},
};

const NEW: Meta = Meta { cluster_id: Uuid::from_u128(11), node_id: 3 };
const OTHER: Meta = Meta { cluster_id: Uuid::from_u128(22), node_id: 4 };

fn open(path: &Path) -> Result<DataDir, OpenDataDirError> {
    DataDir::open(path, NEW, RealDiskOptions::default())
}

fn refused(path: &Path) -> String {
    let error = open(path).expect_err("must be refused").to_string();
    error.replace(&path.display().to_string(), "DIR")
}

fn names(path: &Path) -> BTreeSet<String> {
    let entries = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

fn write(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = File::options().create(true).write(true).truncate(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_missing_directory_is_created_and_keeps_its_identity() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("data");
    let first = open(&path).unwrap();
    assert_eq!(first.meta(), NEW);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    drop(first);
    let second = DataDir::open(&path, OTHER, RealDiskOptions::default()).unwrap();
    assert_eq!(second.meta(), NEW);
    assert_eq!(
        names(&path),
        ["LOCK", "logs", "meta.properties", "recycle"].map(str::to_owned).into()
    );
}

#[test]
fn what_lies_in_memory_is_told_from_what_lies_on_a_disk() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let file_system = open(home.path()).unwrap().file_system();
    assert_eq!(file_system, FileSystem::Tmpfs);
    let read_only = DataDir::open_read_only(home.path(), RealDiskOptions::default()).unwrap();
    assert_eq!(read_only.file_system(), FileSystem::Tmpfs);
    assert!(file_system.caveat().expect("memory").contains("nothing survives a power cut"));
}

#[test]
fn a_second_broker_is_refused_with_the_pid_of_the_first() {
    let home = tempfile::tempdir().unwrap();
    let _first = open(home.path()).unwrap();
    let expected = format!("`DIR` is in use by process `{}`", std::process::id());
    assert_eq!(refused(home.path()), expected);
}

#[test]
fn a_directory_with_other_files_is_refused_untouched() {
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join("thesis.tex"), "");
    assert_eq!(
        refused(home.path()),
        "`DIR` is not empty (`thesis.tex`) and has no `meta.properties`"
    );
    assert_eq!(names(home.path()), ["thesis.tex".to_owned()].into());
}

#[test]
fn records_without_meta_are_not_taken_for_an_empty_directory() {
    let home = tempfile::tempdir().unwrap();
    let data = open(home.path()).unwrap();
    data.disk().create_dir(Path::new("logs/x")).unwrap();
    data.disk().remove_file(Path::new(META_FILE)).unwrap();
    drop(data);
    assert_eq!(refused(home.path()), "`DIR` is not empty (`logs`) and has no `meta.properties`");
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join(META_FILE), "format.version=99\nnew.key=1\n");
    assert_eq!(refused(home.path()), "`DIR` has format version `99`; this program reads `1`");
    assert_eq!(names(home.path()), [META_FILE.to_owned()].into());
}

#[test]
fn a_damaged_identity_is_refused() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()).unwrap());
    let path = home.path().join(META_FILE);
    let disk = RealDisk::open(home.path(), RealDiskOptions::default()).unwrap();
    let file = disk.open(Path::new(META_FILE), OpenMode::Write).unwrap();
    let mut text = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    write(&path, &text.replace("node.id=3", "node.id=4"));
    assert_eq!(
        refused(home.path()),
        "`DIR/meta.properties` is damaged: the checksum does not match"
    );
    write(&path, &text);
    open(home.path()).unwrap();
}

#[test]
fn a_missing_log_directory_is_damage_and_not_an_empty_broker() {
    let home = tempfile::tempdir().unwrap();
    let data = open(home.path()).unwrap();
    data.disk().remove_dir(Path::new(LOGS_DIR)).unwrap();
    drop(data);
    assert_eq!(refused(home.path()), "`DIR/logs` is damaged: it is missing");
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    write(&path, "");
    assert_eq!(refused(&path), "`DIR` is not a directory");
    assert!(matches!(
        open(&home.path().join("none/data")).unwrap_err(),
        OpenDataDirError::Io { op: "create", .. }
    ));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let user = rustix::process::geteuid().as_raw();
    // Root can give a directory away; anyone else finds one of root's.
    let path = if user == 0 { home.path() } else { Path::new("/usr") };
    if user == 0 {
        std::os::unix::fs::chown(path, Some(4711), None).unwrap();
    }
    let error = open(path).unwrap_err();
    assert!(matches!(error, OpenDataDirError::ForeignOwner { .. }), "{error}");
    if user == 0 {
        assert!(names(path).is_empty());
    }
}

/// Set in the child process of the test below: a directory the child's user can not write.
const CHILD: &str = "RIVERRUN_TEST_READ_ONLY_CHILD";

#[test]
fn child_opens_a_read_only_directory() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let error = open(Path::new(&path)).unwrap_err();
    assert!(matches!(error, OpenDataDirError::ReadOnly { .. }), "{error}");
}

#[test]
fn a_read_only_directory_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let (own, nobody) = (rustix::process::geteuid().as_raw(), 65_534);
    let user = if own == 0 { nobody } else { own };
    // Root may write anywhere, so a child of another user tries, from a copy it can execute.
    std::os::unix::fs::chown(home.path(), Some(user), None).unwrap();
    let bin = tempfile::tempdir().unwrap();
    for (path, mode) in [(home.path(), 0o500), (bin.path(), 0o755)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    }
    let exe = bin.path().join("exe");
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    let status = Command::new(&exe)
        .args(["--exact", "data_dir::tests::child_opens_a_read_only_directory"])
        .env(CHILD, home.path())
        .current_dir("/")
        .uid(user)
        .status()
        .unwrap();
    assert!(status.success());
    assert!(names(home.path()).is_empty());
}

#[test]
fn a_crash_anywhere_in_creation_leaves_a_directory_that_opens() {
    let steps = {
        let disk = SimDisk::new(1);
        settle(&disk, Path::new("data"), NEW).unwrap();
        disk.step_count()
    };
    for (step, seed) in (1..=steps + 1).flat_map(|step| (0..20).map(move |seed| (step, seed))) {
        let disk = SimDisk::new(seed);
        disk.cut_power_at(step);
        let first = settle(&disk, Path::new("data"), NEW);
        assert_eq!(first.is_ok(), step > steps);
        for policy in [CrashPolicy::random(seed), CrashPolicy::weak(seed), CrashPolicy::lose_all()]
        {
            let next = disk.crash(policy);
            let found = settle(&next, Path::new("data"), OTHER)
                .unwrap_or_else(|error| panic!("step {step} seed {seed} {policy:?}: {error}"));
            assert!(first.is_err() || found == NEW, "a finished creation is durable");
            assert_eq!(settle(&next.kill(), Path::new("data"), NEW).unwrap(), found);
        }
    }
}

#[test]
fn a_directory_is_opened_for_reading_only_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let read_only = || DataDir::open_read_only(home.path(), RealDiskOptions::default());
    let refused = read_only().expect_err("there is nothing to read").to_string();
    assert!(refused.contains("can not be written to"), "{refused}");
    assert_eq!(names(home.path()), BTreeSet::new());

    let first = open(home.path()).unwrap();
    let held = read_only().expect_err("somebody writes to it").to_string();
    assert!(held.contains(&std::process::id().to_string()), "{held}");
    drop(first);
    let before = names(home.path());
    for has_lock_file in [true, false] {
        if !has_lock_file {
            let disk = RealDisk::open(home.path(), RealDiskOptions::default()).unwrap();
            disk.remove_file(Path::new(LOCK_FILE)).unwrap();
        }
        let data = read_only().unwrap();
        assert_eq!(data.meta(), NEW);
        assert!(matches!(read_only(), Err(OpenDataDirError::Locked(_))));
        let disk = data.disk();
        let path = Path::new(META_FILE);
        let changes = [
            disk.open(path, OpenMode::Write).map(|_| ()),
            disk.open(path, OpenMode::Append { bytes_max: 1 << 20 }).map(|_| ()),
            disk.open(Path::new("new"), OpenMode::CreateNew).map(|_| ()),
            disk.create_dir(Path::new("new")),
            disk.rename(path, Path::new("new")),
            disk.remove_file(path),
            disk.remove_dir(Path::new(RECYCLE_DIR)),
        ];
        for change in changes {
            let code = change.expect_err("refused").raw_os_error();
            assert_eq!(code, Some(Errno::ROFS.raw_os_error()));
        }
        assert!(disk.open(path, OpenMode::Read).is_ok());
        let expected = before.iter().filter(|name| has_lock_file || *name != LOCK_FILE);
        assert_eq!(names(home.path()), expected.cloned().collect());
    }
}
