//! Makes the directory of a new log, and removes that of a deleted one.
//!
//! Order of creation: directory, first segment, mark page, directory sync, then the state file. So a state
//! file means that the first segment was made; a directory without one and without records is an unfinished
//! creation, which is begun again. Segment and mark are not synced: what a power loss leaves of them is
//! what an unfinished roll leaves, and is recovered as that.

use std::{io::ErrorKind, path::Path};

use riverrun_proto::{LeaderEpoch, Offset};

use crate::{
    IoFailure, LogOptions, StorageError, Timestamp,
    disk::{Disk, EntryKind},
    format::{HEADER_BLOCK_BYTES, SegmentHeader},
    mark::{Mark, MarkPage},
    paths::{self, FileName},
    planted::{Bug, planted},
    segment_file,
    state::{self, LogState, StoredState},
};

/// Creates the log in `dir` unless there is one. True when it did.
pub(super) fn create_if_absent(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
    now: Timestamp,
) -> Result<bool, StorageError> {
    create_dirs(disk, dir)?;
    if !is_absent(disk, dir)? {
        return Ok(false);
    }
    let epoch = LeaderEpoch(1);
    let header = SegmentHeader {
        topic_id: options.topic_id,
        partition: options.partition,
        leader_epoch: epoch,
        base: Offset::ZERO,
        created: now,
        durable_upto: Offset::ZERO,
        previous: None,
        stands_for: None,
        recycled: false,
    };
    state::write_new(disk, &dir.join(paths::NEXT_SEGMENT), &header.encode().0[..], false)?;
    disk.rename(&dir.join(paths::NEXT_SEGMENT), &paths::segment(dir, Offset::ZERO))
        .map_err(|error| IoFailure::new("rename", dir, error))?;
    let mark = Mark {
        clean: true,
        flushed: Offset::ZERO,
        segment_base: Offset::ZERO,
        pos: HEADER_BLOCK_BYTES as u64,
        chain: header.encode().1,
    };
    let mut page = MarkPage::load(disk, dir)?;
    page.write(disk, mark)?;
    disk.sync_dir(dir).map_err(|error| IoFailure::new("sync", dir, error))?;
    state::store(disk, dir, &LogState::new(Offset::ZERO, epoch))?;
    Ok(true)
}

/// True when `dir` holds no log: nothing, or what an unfinished creation leaves.
pub(crate) fn is_absent(disk: &dyn Disk, dir: &Path) -> Result<bool, StorageError> {
    Ok(state::load(disk, dir)? == StoredState::Missing && !holds_records(disk, dir)?)
}

/// True when the directory without a state file may hold records: a mark that says so, a later
/// segment, or a first segment with anything behind its header block.
fn holds_records(disk: &dyn Disk, dir: &Path) -> Result<bool, StorageError> {
    for entry in list(disk, dir)? {
        match FileName::parse(&entry.name) {
            FileName::Segment(base) if base > Offset::ZERO => return Ok(true),
            FileName::Segment(_) if !segment_file::is_blank(disk, &dir.join(&entry.name))? => {
                return Ok(true);
            }
            FileName::Mark => {
                let mark = MarkPage::load(disk, dir)?.newest();
                if mark.is_some_and(|mark| mark.flushed > Offset::ZERO) {
                    return Ok(true);
                }
            }
            FileName::Producers(_) | FileName::Torn(_) => return Ok(true),
            FileName::Segment(_)
            | FileName::Index(_)
            | FileName::State
            | FileName::Cleaned
            | FileName::Temporary
            | FileName::Foreign => {}
        }
    }
    Ok(false)
}

/// The entries of `dir`.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<crate::disk::DirEntry>, IoFailure> {
    disk.list(dir).map_err(|error| IoFailure::new("list", dir, error))
}

/// Creates `dir` and the directories above it that are missing, durably.
pub(crate) fn create_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), IoFailure> {
    let mut ancestors: Vec<_> = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for dir in ancestors {
        match disk.create_dir(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(IoFailure::new("create", dir, error)),
        }
        if planted(Bug::SkipDirsync) {
            continue;
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        disk.sync_dir(parent).map_err(|error| IoFailure::new("sync", parent, error))?;
    }
    Ok(())
}

/// Removes the files of the log in `dir`, the state file first, and the directory.
pub(super) fn remove(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IoFailure::new("list", dir, error).into()),
    };
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        state::remove_if_present(disk, &dir.join(&entry.name))?;
    }
    disk.remove_dir(dir).map_err(|error| IoFailure::new("remove", dir, error))?;
    let parent = dir.parent().unwrap_or(Path::new(""));
    disk.sync_dir(parent).map_err(|error| IoFailure::new("sync", parent, error).into())
}
