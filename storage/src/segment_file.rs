//! Makes and inspects segment files as a whole: before they have a base offset, and before they are open.

use std::{path::Path, sync::Arc};

use crate::{
    IoFailure, LogOptions, StorageError,
    disk::{Disk, DiskFile, OpenMode},
    format::{ENTRY_BYTES, HEADER_BLOCK_BYTES, SEAL_BYTES, SegmentHeader, entry::stride},
    scan::ChunkReader,
    state::remove_if_present,
};

/// The most bytes a segment file may grow to: its limit, or one entry of the largest size, and a seal.
pub(crate) fn bytes_max(options: &LogOptions) -> u64 {
    let one = HEADER_BLOCK_BYTES as u64 + stride(u64::from(options.batch_bytes_max)) + SEAL_BYTES;
    one.max(u64::from(options.segment_bytes_max)).next_multiple_of(4096)
}

/// Makes an empty file at `path`, ready to be written up to `bytes_max`. It is written through this
/// handle only, so that no write-back error of it is missed.
pub(crate) fn prepare(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: u64,
) -> Result<Arc<dyn DiskFile>, IoFailure> {
    remove_if_present(disk, path)?;
    let at = |op| move |error| IoFailure::new(op, path, error);
    let file = disk.open(path, OpenMode::CreateNew).map_err(at("create"))?;
    file.allocate(HEADER_BLOCK_BYTES as u64).map_err(at("allocate"))?;
    drop(file);
    disk.open(path, OpenMode::Append { bytes_max }).map_err(at("open"))
}

/// The header block of the segment file at `path`, `None` when it is not a valid one of this log.
///
/// # Errors
/// Besides the disk's: the file is of another partition or a newer version.
pub(crate) fn read_header(
    disk: &dyn Disk,
    path: &Path,
    options: &LogOptions,
) -> Result<Option<(SegmentHeader, u32)>, StorageError> {
    let file =
        disk.open(path, OpenMode::Read).map_err(|error| IoFailure::new("open", path, error))?;
    let mut block = Box::new([0; HEADER_BLOCK_BYTES]);
    if file.len() < HEADER_BLOCK_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(0, &mut block[..]).map_err(|error| IoFailure::new("read", path, error))?;
    let Some((header, crc)) = SegmentHeader::decode(&block, path)? else { return Ok(None) };
    if (header.topic_id, header.partition) != (options.topic_id, options.partition) {
        return Err(StorageError::Foreign {
            path: path.to_owned(),
            found: header.identity(),
            expected: format!("{}-{}", options.topic_id, options.partition),
        });
    }
    Ok(Some((header, crc)))
}

/// True when nothing but zeros stands behind the header block of the file at `path`.
pub(crate) fn is_blank(disk: &dyn Disk, path: &Path) -> Result<bool, IoFailure> {
    let at = |op| move |error| IoFailure::new(op, path, error);
    let file = disk.open(path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
    reader.is_zero_from(HEADER_BLOCK_BYTES as u64).map_err(at("read"))
}

/// Smallest segment that options may ask for: one entry fits.
pub(crate) const SEGMENT_BYTES_MIN: u32 = {
    let bytes = HEADER_BLOCK_BYTES + ENTRY_BYTES + 1024;
    assert!(bytes < 8192, "tests roll at 8 KiB");
    8192
};
