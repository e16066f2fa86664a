//! A test for each row of the decision table, and one flipped bit in every place.

mod cuts;
mod flips;
mod fuzzed;
mod repairs;
mod rows;
mod unwritten;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use riverrun_proto::Offset;

use crate::{
    OpenedLog, ReadError, Timestamp,
    disk::{
        Disk, DiskFile, OpenMode,
        sim::{CrashPolicy, SimDisk},
    },
    format::{ENTRY_BYTES, EntryHeader, HEADER_BLOCK_BYTES},
    log::tests::filled,
    paths,
    testing::*,
};

/// The segment file that begins at `base`.
fn segment_path(base: u64) -> PathBuf {
    paths::segment(Path::new(DIR), Offset(base))
}

/// A file of the log.
fn file(disk: &SimDisk, path: &Path) -> Arc<dyn DiskFile> {
    disk.open(path, OpenMode::Write).unwrap()
}

/// All bytes of a file.
fn bytes_of(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Every file with its bytes.
fn directory(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.name.clone(), bytes_of(disk, &Path::new(DIR).join(entry.name))))
        .collect()
}

/// Positions and headers of the entries in a segment file.
fn entries(disk: &SimDisk, path: &Path) -> Vec<(u64, EntryHeader)> {
    let bytes = bytes_of(disk, path);
    let mut pos = HEADER_BLOCK_BYTES;
    let mut entries = Vec::new();
    while let Some(block) = bytes.get(pos..pos + ENTRY_BYTES) {
        let Some((header, _)) = EntryHeader::decode(block.try_into().unwrap()) else { break };
        entries.push((pos as u64, header));
        pos += usize::try_from(header.stride()).unwrap();
    }
    entries
}

/// Position of the entry that begins at `offset`.
fn entry_pos(disk: &SimDisk, path: &Path, offset: u64) -> u64 {
    let entries = entries(disk, path);
    entries.iter().find(|(_, header)| header.base_offset.0 == offset).unwrap().0
}

/// Files whose name has this ending or beginning.
fn named(disk: &SimDisk, part: &str) -> Vec<String> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.into_iter().map(|entry| entry.name).filter(|name| name.contains(part)).collect()
}

/// Reads record by record: each is what [`filled`] says, or damaged with a range that names it.
/// Returns the damaged offsets.
#[track_caller]
fn read_around_damage(log: &OpenedLog, end: u64) -> Vec<u64> {
    let start = log.reader.offsets().log_start.0;
    let mut damaged = Vec::new();
    for offset in start..end {
        match log.reader.read(Offset(offset), Offset(end), 1) {
            Ok(run) => {
                assert!(run.base_offset.0 <= offset && run.next_offset.0 > offset, "{run:?}");
                let next = run.next_offset;
                let records = read_range(&log.reader, Offset(offset), next, 1).unwrap();
                assert_eq!(records, filled(offset, next.0));
            }
            Err(ReadError::Corrupt(damage)) => {
                assert!(damage.offsets.contains(&Offset(offset)), "{offset}: {damage}");
                damaged.push(offset);
            }
            Err(other) => panic!("{offset}: {other}"),
        }
    }
    damaged
}
