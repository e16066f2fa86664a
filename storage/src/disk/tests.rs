//! The contract of [`Disk`], checked for every implementation by the same functions.

use std::path::Path;

use super::{sim::SimDisk, *};

/// Runs each check on a mapped real disk, an unmapped one and the simulated one.
macro_rules! for_each_disk {
    ($($check:ident),* $(,)?) => {
        mod real_mapped {
            $(#[test] fn $check() {
                let dir = tempfile::tempdir().unwrap();
                let options = RealDiskOptions { map_on_tmpfs: true };
                super::$check(&RealDisk::open(dir.path(), options).unwrap());
            })*
            use super::*;
        }
        mod real_unmapped {
            $(#[test] fn $check() {
                let dir = tempfile::tempdir_in("/dev/shm").unwrap();
                super::$check(&RealDisk::open(dir.path(), RealDiskOptions::default()).unwrap());
            })*
            use super::*;
        }
        mod simulated {
            $(#[test] fn $check() { super::$check(&super::SimDisk::new(7)); })*
        }
    };
}

for_each_disk!(
    a_new_file_is_empty_and_its_name_taken,
    what_is_written_is_read,
    writes_and_reads_past_the_length_are_refused,
    parts_are_written_one_after_another_also_large_ones,
    a_file_open_for_append_keeps_its_limit_and_length,
    a_read_handle_follows_the_writer_and_can_not_write,
    allocated_bytes_read_as_zeros,
    cutting_and_extending_zeroes_what_was_cut,
    a_removed_file_stays_readable_through_its_handle,
    a_rename_replaces_and_moves_between_directories,
    directories_list_sorted_and_are_removed_only_when_empty,
    paths_that_leave_the_root_are_refused,
    what_is_missing_is_not_found,
);

#[track_caller]
fn check_kind<T: Debug>(result: io::Result<T>, kind: io::ErrorKind) {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{error}");
}

fn file(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::CreateNew).unwrap();
    file.allocate(bytes.len() as u64).unwrap();
    file.write_at(0, &[bytes]).unwrap();
    file
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn listed(disk: &dyn Disk, dir: &str) -> Vec<String> {
    disk.list(Path::new(dir)).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn a_new_file_is_empty_and_its_name_taken(disk: &dyn Disk) {
    let new = disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
    assert_eq!((new.len(), new.is_empty()), (0, true));
    check_kind(disk.open(Path::new("a"), OpenMode::CreateNew), io::ErrorKind::AlreadyExists);
}

fn what_is_written_is_read(disk: &dyn Disk) {
    for mode in [OpenMode::Write, OpenMode::Append { bytes_max: 10_000 }] {
        let path = format!("{mode:?}");
        file(disk, &path, &[]);
        let file = disk.open(Path::new(&path), mode).unwrap();
        file.allocate(9000).unwrap();
        file.write_at(4090, &[b"across a page"]).unwrap();
        file.sync().unwrap();
        let mut read = [0; 15];
        file.read_at(4089, &mut read).unwrap();
        assert_eq!(&read, b"\0across a page\0");
        file.read_at(9000, &mut []).unwrap();
    }
}

fn writes_and_reads_past_the_length_are_refused(disk: &dyn Disk) {
    file(disk, "a", &[1; 100]);
    for mode in [OpenMode::Write, OpenMode::Append { bytes_max: 1000 }] {
        let file = disk.open(Path::new("a"), mode).unwrap();
        check_kind(file.write_at(90, &[&[2; 5], &[2; 6]]), io::ErrorKind::InvalidInput);
        check_kind(file.write_at(u64::MAX, &[&[2; 5]]), io::ErrorKind::InvalidInput);
        check_kind(file.read_at(90, &mut [0; 11]), io::ErrorKind::UnexpectedEof);
        check_kind(file.read_at(1000, &mut [0; 1]), io::ErrorKind::UnexpectedEof);
        assert_eq!(content(&*file), [1; 100]);
    }
}

fn parts_are_written_one_after_another_also_large_ones(disk: &dyn Disk) {
    file(disk, "a", &[]);
    let file = disk.open(Path::new("a"), OpenMode::Append { bytes_max: 1 << 20 }).unwrap();
    file.allocate(1 << 20).unwrap();
    let parts: Vec<Vec<u8>> = (0..2000_u32).map(|n| n.to_le_bytes().repeat(50)).collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    file.write_at(333, &slices).unwrap();
    let small: Vec<&[u8]> = vec![b"x", b"", b"yz"];
    file.write_at(330, &small).unwrap();
    let mut read = vec![0; 400_003];
    file.read_at(330, &mut read).unwrap();
    assert_eq!(&read[..3], b"xyz");
    assert_eq!(read[3..], parts.concat());
}

fn a_file_open_for_append_keeps_its_limit_and_length(disk: &dyn Disk) {
    file(disk, "a", &[1; 100]);
    check_kind(
        disk.open(Path::new("a"), OpenMode::Append { bytes_max: 99 }),
        io::ErrorKind::InvalidInput,
    );
    let file = disk.open(Path::new("a"), OpenMode::Append { bytes_max: 5000 }).unwrap();
    file.allocate(5000).unwrap();
    check_kind(file.allocate(5001), io::ErrorKind::InvalidInput);
    check_kind(file.set_len(10), io::ErrorKind::InvalidInput);
    file.allocate(10).unwrap();
    assert_eq!(file.len(), 5000);
}

fn a_read_handle_follows_the_writer_and_can_not_write(disk: &dyn Disk) {
    file(disk, "a", &[]);
    let modes = [OpenMode::Read, OpenMode::ReadUncached];
    let readers = modes.map(|mode| disk.open(Path::new("a"), mode).unwrap());
    let writer = disk.open(Path::new("a"), OpenMode::Append { bytes_max: 1 << 16 }).unwrap();
    writer.allocate(8192).unwrap();
    writer.write_at(8000, &[b"new"]).unwrap();
    for reader in readers {
        assert_eq!(reader.len(), 8192);
        assert_eq!(&content(&*reader)[8000..8004], b"new\0");
        reader.read_at(8192, &mut []).unwrap();
        check_kind(reader.read_at(8190, &mut [0; 3]), io::ErrorKind::UnexpectedEof);
        check_kind(reader.write_at(0, &[b"x"]), io::ErrorKind::PermissionDenied);
        check_kind(reader.allocate(9000), io::ErrorKind::PermissionDenied);
        check_kind(reader.set_len(0), io::ErrorKind::PermissionDenied);
    }
}

fn allocated_bytes_read_as_zeros(disk: &dyn Disk) {
    let file = file(disk, "a", b"old");
    file.allocate(10_000).unwrap();
    let bytes = content(&*file);
    assert_eq!(bytes.len(), 10_000);
    assert_eq!(&bytes[..3], b"old");
    assert!(bytes[3..].iter().all(|byte| *byte == 0));
}

fn cutting_and_extending_zeroes_what_was_cut(disk: &dyn Disk) {
    let file = file(disk, "a", &[7; 2000]);
    file.set_len(700).unwrap();
    file.set_len(2000).unwrap();
    let mut expected = vec![7; 700];
    expected.resize(2000, 0);
    assert_eq!(content(&*file), expected);
}

fn a_removed_file_stays_readable_through_its_handle(disk: &dyn Disk) {
    let file = file(disk, "a", b"kept");
    disk.remove_file(Path::new("a")).unwrap();
    assert!(listed(disk, "").is_empty());
    assert_eq!(content(&*file), b"kept");
    assert!(!file.has_name().unwrap());
}

fn a_rename_replaces_and_moves_between_directories(disk: &dyn Disk) {
    disk.create_dir(Path::new("d")).unwrap();
    let old = file(disk, "d/x", b"old");
    file(disk, "new", b"new");
    disk.rename(Path::new("new"), Path::new("d/x")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    let found = disk.open(Path::new("d/x"), OpenMode::Read).unwrap();
    assert_eq!(content(&*found), b"new");
    assert_eq!(content(&*old), b"old");
    assert_eq!(listed(disk, ""), ["d"]);
    disk.create_dir(Path::new("e")).unwrap();
    check_kind(disk.rename(Path::new("d/x"), Path::new("e")), io::ErrorKind::IsADirectory);
    check_kind(disk.rename(Path::new("none"), Path::new("b")), io::ErrorKind::NotFound);
}

fn directories_list_sorted_and_are_removed_only_when_empty(disk: &dyn Disk) {
    disk.create_dir(Path::new("d")).unwrap();
    check_kind(disk.create_dir(Path::new("d")), io::ErrorKind::AlreadyExists);
    check_kind(disk.create_dir(Path::new("none/d")), io::ErrorKind::NotFound);
    file(disk, "d/b", &[0; 5]);
    file(disk, "d/a", &[0; 3]);
    disk.create_dir(Path::new("d/c")).unwrap();
    let entry = |name: &str, kind, len| DirEntry { name: name.to_owned(), kind, len };
    let expected = [
        entry("a", EntryKind::File, 3),
        entry("b", EntryKind::File, 5),
        entry("c", EntryKind::Directory, 0),
    ];
    assert_eq!(disk.list(Path::new("d")).unwrap(), expected);
    check_kind(disk.remove_dir(Path::new("d")), io::ErrorKind::DirectoryNotEmpty);
    disk.remove_dir(Path::new("d/c")).unwrap();
    disk.remove_file(Path::new("d/a")).unwrap();
    disk.remove_file(Path::new("d/b")).unwrap();
    disk.remove_dir(Path::new("d")).unwrap();
    assert!(listed(disk, "").is_empty());
}

fn paths_that_leave_the_root_are_refused(disk: &dyn Disk) {
    for path in ["../a", "/a", "d/../../a", "./a", ""] {
        check_kind(disk.open(Path::new(path), OpenMode::CreateNew), io::ErrorKind::InvalidInput);
    }
}

fn what_is_missing_is_not_found(disk: &dyn Disk) {
    let none = Path::new("none");
    check_kind(disk.open(none, OpenMode::Read), io::ErrorKind::NotFound);
    check_kind(disk.list(none), io::ErrorKind::NotFound);
    check_kind(disk.remove_file(none), io::ErrorKind::NotFound);
    check_kind(disk.remove_dir(none), io::ErrorKind::NotFound);
    check_kind(disk.sync_dir(none), io::ErrorKind::NotFound);
    file(disk, "f", &[]);
    check_kind(disk.open(Path::new("f/x"), OpenMode::Read), io::ErrorKind::NotADirectory);
    assert!(disk.free_bytes().unwrap() > 0);
}
