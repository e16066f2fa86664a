use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use super::*;

const SHM: &str = "/dev/shm";

struct Home {
    dir: tempfile::TempDir,
    disk: RealDisk,
}

impl Home {
    fn on(dir: tempfile::TempDir, map_on_tmpfs: bool) -> Home {
        let disk = RealDisk::open(dir.path(), RealDiskOptions { map_on_tmpfs }).unwrap();
        Home { dir, disk }
    }

    fn new() -> Home {
        Home::on(tempfile::tempdir().unwrap(), true)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().unwrap().permissions().mode() & 0o777
    }

    /// A file of `bytes` opened for append, by its real type.
    fn append(&self, name: &str, bytes: u64, bytes_max: u64) -> Arc<dyn DiskFile> {
        let file = self.disk.open(Path::new(name), OpenMode::CreateNew).unwrap();
        file.allocate(bytes).unwrap();
        self.disk.open(Path::new(name), OpenMode::Append { bytes_max }).unwrap()
    }
}

#[test]
fn files_and_directories_are_private() {
    let home = Home::new();
    home.disk.create_dir(Path::new("d")).unwrap();
    home.disk.open(Path::new("d/f"), OpenMode::CreateNew).unwrap();
    assert_eq!((home.mode("d"), home.mode("d/f")), (0o700, 0o600));
}

#[test]
fn a_link_is_never_followed() {
    let home = Home::new();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    let written = std::process::Command::new("touch").arg(&secret).status().unwrap();
    assert!(written.success());
    symlink(&secret, home.path("file")).unwrap();
    symlink(outside.path(), home.path("dir")).unwrap();
    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::Append { bytes_max: 10 }] {
        let error = home.disk.open(Path::new("file"), mode).unwrap_err();
        assert_eq!(error.to_string(), "`file` is not a regular file");
        assert!(home.disk.open(Path::new("dir/secret"), mode).is_err());
    }
    assert!(home.disk.open(Path::new("dir/new"), OpenMode::CreateNew).is_err());
    assert!(home.disk.list(Path::new("dir")).is_err());
    assert!(home.disk.rename(Path::new("dir/secret"), Path::new("x")).is_err());
    assert!(home.disk.remove_file(Path::new("dir/secret")).is_err());
    assert!(secret.exists());
    let kinds: Vec<EntryKind> =
        home.disk.list(Path::new("")).unwrap().into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Other, EntryKind::Other]);
}

#[test]
fn a_pipe_is_refused_without_waiting() {
    let home = Home::new();
    let made = std::process::Command::new("mkfifo").arg(home.path("pipe")).status().unwrap();
    assert!(made.success());
    let error = home.disk.open(Path::new("pipe"), OpenMode::Read).unwrap_err();
    assert_eq!(error.to_string(), "`pipe` is not a regular file");
}

#[test]
fn allocated_blocks_are_real() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let file = home.append("f", 0, 1 << 20);
    file.allocate(1 << 20).unwrap();
    assert!(home.path("f").metadata().unwrap().blocks() * 512 >= 1 << 20);
}

#[test]
fn a_failed_allocation_leaves_the_old_length() {
    let home = Home::on(tempfile::tempdir_in(SHM).unwrap(), true);
    let file = home.append("f", 5000, 1 << 62);
    file.allocate(1 << 61).unwrap_err();
    assert_eq!(file.len(), 5000);
    assert_eq!(home.path("f").metadata().unwrap().len(), 5000);
    file.allocate(6000).unwrap();
}

#[test]
fn tmpfs_is_mapped_only_when_asked() {
    for map_on_tmpfs in [false, true] {
        let home = Home::on(tempfile::tempdir_in(SHM).unwrap(), map_on_tmpfs);
        home.disk.open(Path::new("f"), OpenMode::CreateNew).unwrap();
        let file = File::options().read(true).write(true).open(home.path("f")).unwrap();
        let map = home.disk.map(&file, Path::new("f"), 4096).unwrap();
        assert_eq!(map.is_some(), map_on_tmpfs);
    }
}

#[test]
fn a_file_cut_under_its_map_gives_an_error_and_poisons_only_itself() {
    for dir in [tempfile::tempdir().unwrap(), tempfile::tempdir_in(SHM).unwrap()] {
        let home = Home::on(dir, true);
        let file = home.append("cut", 1 << 16, 1 << 20);
        let other = home.append("whole", 1 << 16, 1 << 20);
        file.write_at(40_000, &[b"before"]).unwrap();
        file.sync().unwrap();
        let outside = File::options().write(true).open(home.path("cut")).unwrap();
        outside.set_len(4096).unwrap();
        let eio = Some(Errno::IO.raw_os_error());
        assert_eq!(file.read_at(40_000, &mut [0; 6]).unwrap_err().raw_os_error(), eio);
        assert_eq!(file.write_at(0, &[b"x"]).unwrap_err().raw_os_error(), eio);
        assert_eq!(file.write_at(0, &[&[1; 65_536]]).unwrap_err().raw_os_error(), eio);
        assert_eq!(file.read_at(0, &mut [0; 6]).unwrap_err().raw_os_error(), eio);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), eio);
        assert_eq!(file.allocate(1 << 17).unwrap_err().raw_os_error(), eio);
        other.write_at(0, &[b"fine"]).unwrap();
        other.sync().unwrap();
    }
}

#[test]
fn a_store_into_a_cut_file_is_an_error_too() {
    let home = Home::new();
    let file = home.append("cut", 1 << 16, 1 << 20);
    let outside = File::options().write(true).open(home.path("cut")).unwrap();
    outside.set_len(0).unwrap();
    let parts: [&[u8]; 2] = [&[7; 30_000], &[8; 30_000]];
    assert_eq!(
        file.write_at(100, &parts).unwrap_err().raw_os_error(),
        Some(Errno::IO.raw_os_error())
    );
    assert_eq!(home.path("cut").metadata().unwrap().len(), 0);
}

#[test]
fn a_flush_beside_an_allocation_does_not_take_the_file_for_cut() {
    const STEPS: u64 = 10_000;
    // In memory, where a flush takes no time: it meets as many moments of the allocation as it can.
    let home = Home::on(tempfile::tempdir_in(SHM).unwrap(), false);
    let file = home.append("f", 4096, 4096 * STEPS);
    std::thread::scope(|scope| {
        let grow = || (2..=STEPS).for_each(|step| file.allocate(4096 * step).unwrap());
        let growing = scope.spawn(grow);
        while !growing.is_finished() {
            file.sync().unwrap();
        }
    });
}
