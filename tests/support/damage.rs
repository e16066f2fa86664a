//! Harm done to the files of a broker.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A partition's directory.
pub(crate) fn partition_dir(data_dir: &Path, topic_id: &str, partition: u32) -> PathBuf {
    data_dir.join("logs").join(topic_id).join(partition.to_string())
}

/// Flips a bit in the first record of a segment, however many share its batch.
pub(crate) fn flip_first_record(segment: &Path) {
    // Behind the header block, the first entry's header and its batch's header.
    flip_bit(segment, 4096 + 96 + 61 + 8);
}

/// Flips a bit of the byte at `pos` of a file.
pub(crate) fn flip_bit(path: &Path, pos: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[pos] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Cuts a segment file, whoever uses it.
pub(crate) fn cut_to(segment: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    assert!(file.metadata().unwrap().len() > len);
    file.set_len(len).unwrap();
}

/// Cuts the second half of a segment file off. Its length then.
pub(crate) fn cut_in_half(segment: &Path) -> u64 {
    let len = segment.metadata().unwrap().len() / 2;
    cut_to(segment, len);
    len
}

/// The first segment of a log that was never trimmed.
pub(crate) fn first_segment(partition_dir: &Path) -> PathBuf {
    partition_dir.join("00000000000000000000.log")
}
