//! The directory of a log with any files: opened, recovered, read, appended to, crashed, opened again.
//!
//! An input is parts, one file each. The low bits of a part's kind say which file, [`MEND`] puts its checksums right, [`LINK`] makes
//! it fit the segment before it. A segment is given without the unused bytes of its header block, and without the zeros behind it.

use std::sync::Arc;

use riverrun_storage::{OpenedLog, RecoveryVerdict, disk::sim::SimDisk, inspect::Inspector};

use crate::{
    Taken,
    layout::{self, BLOCK_BYTES, BLOCK_USED_BYTES, End},
    log::{self, Files, Read},
    pieces::pieces,
};

/// Bit of a kind: checksums are put right.
pub(crate) const MEND: u8 = 0x80;
/// Bit of a kind: it says of the segment before it what is true.
pub(crate) const LINK: u8 = 0x40;
/// Kinds of files.
pub(crate) const SEGMENT: u8 = 0;
pub(crate) const MARK: u8 = 1;
pub(crate) const STATE: u8 = 2;
pub(crate) const INDEX: u8 = 3;
pub(crate) const PRODUCERS: u8 = 4;
/// A segment without zeros behind it.
pub(crate) const CUT_SEGMENT: u8 = 5;
/// What compaction noted, and what an interrupted step left.
const CLEANED: u8 = 6;
const TEMPORARY: u8 = 7;

pub(crate) fn run(input: &[u8]) -> Taken {
    let files = files(input);
    if files.is_empty() {
        return Taken::Refused;
    }
    let disk = log::disk_of(&files);
    look_offline(&disk);
    let read_only = log::open_read_only(&disk.copy());
    let shown = read_only.ok().map(|log| checked(&log, &files));
    let opened = match log::open(&disk) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(log::files_of(&disk), files, "a log that does not open is left as it was");
            return Taken::Refused;
        }
    };
    let read = checked(&opened, &files);
    if let Some(shown) = shown {
        let same = |(offset, value)| read.records.get(offset).is_none_or(|other| other == value);
        assert!(shown.records.iter().all(same), "{shown:?} was shown, then {read:?}");
    }
    if opened.report.verdict == RecoveryVerdict::Damaged {
        drop(opened);
        assert_eq!(log::files_of(&disk), files, "a damaged log is left as it was");
        return Taken::Refused;
    }
    assert!(!read.stuck, "a sound log says what is at every offset: {read:?}");
    survives(&disk, opened, &read);
    Taken::Accepted
}

/// What a start serves is durable before it is served, and what is appended behind it is there too.
fn survives(disk: &SimDisk, mut opened: OpenedLog, read: &Read) {
    let after = log::crashed(&disk.copy());
    let again = log::open(&after).expect("it opened before the power went");
    assert_eq!(&log::read(&again.reader), read, "the power took what had been served");
    drop(again);

    let appended = opened.writer.append(&log::plain_batch(), log::NOW);
    let Ok(appended) = appended else { return };
    opened.flusher.flush().expect("no fault is planned");
    assert_eq!(appended.base_offset.0, read.range.1);
    let more = log::read(&opened.reader);
    assert_eq!(more.records.len(), read.records.len() + 1);
    assert!(read.records.iter().all(|(offset, value)| more.records.get(offset) == Some(value)));
    opened.writer.close().expect("no fault is planned");
    drop(opened.reader);
    let again = log::open(&log::crashed(disk)).expect("it was closed");
    let report = &again.report;
    // The first start may have trusted an index that passes over a damaged batch. If the power took that index, this start meets the damage.
    let met = report.verdict == RecoveryVerdict::Damaged && !read.damaged.is_empty();
    assert!(met || report.verdict == RecoveryVerdict::Trusted, "it was closed: {report:?}");
    assert_eq!(log::read(&again.reader), more);
}

/// Reads a log; whatever it gives stands in its files.
fn checked(log: &OpenedLog, files: &Files) -> Read {
    let read = log::read(&log.reader);
    for batch in &read.batches {
        let stands = |file: &Vec<u8>| file.windows(batch.len()).any(|window| window == &batch[..]);
        assert!(files.values().any(stands), "a batch that was in no file: {batch:?}");
    }
    read
}

/// `log verify` says something of any directory.
fn look_offline(disk: &SimDisk) {
    let before = log::files_of(disk);
    let inspector = Inspector::new(Arc::new(disk.copy()));
    let Ok(logs) = inspector.logs() else { return };
    for dir in logs {
        if let Ok(found) = inspector.verify(&dir) {
            assert!(found.findings.iter().all(|finding| !finding.to_string().is_empty()));
        }
    }
    assert_eq!(log::files_of(disk), before);
}

/// The files that an input describes.
fn files(input: &[u8]) -> Files {
    let mut files = Files::new();
    let mut before: Option<End> = None;
    for (kind, piece) in pieces(input) {
        let (mend, link) = (kind & MEND != 0, kind & LINK != 0);
        let linked = before.filter(|_| link);
        match kind & 0x0f {
            SEGMENT | CUT_SEGMENT => {
                let mut file = expanded(piece, kind & 0x0f == SEGMENT);
                if mend {
                    before = layout::mend_segment(&mut file, linked.as_ref()).or(before);
                }
                let base = file.get(40..48).map_or(0, |_| layout::u64_at(&file, 40));
                files.insert(log::name(base, "log"), file);
            }
            MARK => side(&mut files, "mark".into(), piece, |file| {
                if mend {
                    layout::mend_mark(file, linked.as_ref());
                }
            }),
            STATE => side(&mut files, "state".into(), piece, |file| {
                if mend {
                    layout::mend_side(file, layout::STATE.0, layout::STATE.1);
                }
            }),
            INDEX => {
                let base = before.map_or(0, |end| end.base);
                side(&mut files, log::name(base, "index"), piece, |file| {
                    if let Some(end) = &linked {
                        layout::link_index(file, end);
                    }
                    if mend {
                        layout::mend_side(file, layout::INDEX.0, layout::INDEX.1);
                    }
                });
            }
            PRODUCERS => {
                let as_of = piece.get(16..24).map_or(0, |_| layout::u64_at(piece, 16));
                side(&mut files, log::name(as_of, "producers"), piece, |file| {
                    if mend {
                        layout::mend_side(file, layout::PRODUCERS.0, layout::PRODUCERS.1);
                    }
                });
            }
            CLEANED => side(&mut files, "cleaned".into(), piece, |_| ()),
            TEMPORARY => side(&mut files, "next.tmp".into(), piece, |_| ()),
            _ => {}
        }
    }
    files
}

fn side(files: &mut Files, name: String, piece: &[u8], mend: impl FnOnce(&mut [u8])) {
    let mut file = piece.to_vec();
    mend(&mut file);
    files.insert(name, file);
}

/// The file of a segment: the header block whole, and zeros up to the next 4 KiB when it is one that is written to.
fn expanded(piece: &[u8], padded: bool) -> Vec<u8> {
    let Some((block, entries)) = piece.split_at_checked(BLOCK_USED_BYTES) else {
        return piece.to_vec();
    };
    let mut file = block.to_vec();
    file.resize(BLOCK_BYTES, 0);
    file.extend_from_slice(entries);
    if padded {
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    file
}

/// The part that [`expanded`] makes this file of.
pub(crate) fn compact(file: &[u8]) -> Vec<u8> {
    let end = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let end = end.max(BLOCK_BYTES).next_multiple_of(8).min(file.len());
    [&file[..BLOCK_USED_BYTES], &file[BLOCK_BYTES..end]].concat()
}
