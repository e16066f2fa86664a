//! Puts files out of harm's way: copies of those that are about to be replaced, and those from elsewhere themselves.
//!
//! A name in the quarantine is that of the file, with a number behind it when it is taken. A copy gets its name when it is whole and
//! durable, and a repair that is begun again finds the copy it made. Nothing in the quarantine is ever changed.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::super::Site;
use crate::{
    IoFailure,
    disk::{Disk, DiskFile, OpenMode},
    log::create::{create_dirs, list},
    paths,
    state::remove_if_present,
};

/// Bytes copied at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// Sets `files` of the log aside; `strangers` among them leave the log's directory.
pub(super) fn set_aside(
    site: Site<'_>,
    quarantine: &Path,
    files: &[PathBuf],
    strangers: &[PathBuf],
) -> Result<(), IoFailure> {
    create_dirs(site.disk, quarantine)?;
    let (moved, copied): (Vec<_>, Vec<_>) = files.iter().partition(|path| strangers.contains(path));
    for path in copied {
        copy(site.disk, quarantine, path)?;
    }
    for path in moved {
        let to = free_name(site.disk, quarantine, path)?;
        let file = site.disk.open(path, OpenMode::Read);
        let synced = file.and_then(|file| file.sync());
        synced.map_err(|error| IoFailure::new("sync", path, error))?;
        let renamed = site.disk.rename(path, &to);
        renamed.map_err(|error| IoFailure::new("rename", path, error))?;
    }
    for dir in [quarantine, site.dir] {
        site.disk.sync_dir(dir).map_err(|error| IoFailure::new("sync", dir, error))?;
    }
    Ok(())
}

/// Copies the file at `path`, unless a copy of it is there.
fn copy(disk: &dyn Disk, quarantine: &Path, path: &Path) -> Result<(), IoFailure> {
    let open = |path: &Path| {
        disk.open(path, OpenMode::Read).map_err(|error| IoFailure::new("open", path, error))
    };
    let old = open(path)?;
    for held in names(path).map(|name| quarantine.join(name)) {
        match disk.open(&held, OpenMode::Read) {
            Ok(copy) if is_equal((old.as_ref(), path), (copy.as_ref(), &held))? => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(IoFailure::new("open", &held, error)),
        }
    }
    let to = free_name(disk, quarantine, path)?;
    let temporary = quarantine.join(format!("copy{}", paths::TEMPORARY));
    remove_if_present(disk, &temporary)?;
    let copied = write_copy(disk, (old.as_ref(), path), &temporary).and_then(|()| {
        disk.rename(&temporary, &to).map_err(|error| IoFailure::new("rename", &temporary, error))
    });
    if copied.is_err() {
        // On a full disk others need the room.
        let _ = disk.remove_file(&temporary);
    }
    copied
}

/// Writes the bytes of `old` to a new file at `path`, durably.
fn write_copy(disk: &dyn Disk, old: (&dyn DiskFile, &Path), path: &Path) -> Result<(), IoFailure> {
    let at = |op| move |error| IoFailure::new(op, path, error);
    let new = disk.open(path, OpenMode::CreateNew).map_err(at("create"))?;
    new.allocate(old.0.len()).map_err(at("allocate"))?;
    let mut pos = 0;
    while let Some(bytes) = chunk(old, pos)? {
        new.write_at(pos, &[&bytes]).map_err(at("write"))?;
        pos += bytes.len() as u64;
    }
    new.sync().map_err(at("sync"))
}

/// The bytes of a file from `pos` on; `None` at its end.
fn chunk((file, path): (&dyn DiskFile, &Path), pos: u64) -> Result<Option<Vec<u8>>, IoFailure> {
    let left = file.len().saturating_sub(pos).min(CHUNK_BYTES);
    let mut bytes = vec![0; usize::try_from(left).expect("at most 1 MiB")];
    file.read_at(pos, &mut bytes).map_err(|error| IoFailure::new("read", path, error))?;
    Ok((left > 0).then_some(bytes))
}

fn is_equal(a: (&dyn DiskFile, &Path), b: (&dyn DiskFile, &Path)) -> Result<bool, IoFailure> {
    let mut pos = 0;
    loop {
        let (of_a, of_b) = (chunk(a, pos)?, chunk(b, pos)?);
        if of_a != of_b {
            return Ok(false);
        }
        let Some(bytes) = of_a else { return Ok(true) };
        pos += bytes.len() as u64;
    }
}

/// Names for the file at `path`, in the order they are tried.
fn names(path: &Path) -> impl Iterator<Item = String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    (1_u64..).map(move |n| if n == 1 { name.clone() } else { format!("{name}.{n}") })
}

fn free_name(disk: &dyn Disk, quarantine: &Path, path: &Path) -> Result<PathBuf, IoFailure> {
    let taken = list(disk, quarantine)?;
    let mut names = names(path).filter(|name| !taken.iter().any(|entry| entry.name == *name));
    Ok(quarantine.join(names.next().expect("names without end")))
}
