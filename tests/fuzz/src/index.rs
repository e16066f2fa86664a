//! Derived files of a sound log: an index, a snapshot of producers. They may be missing, wrong or lie: what is read is what was written.
//!
//! The first byte: bit 0 puts the checksum right, bit 1 takes the snapshot instead of an index, bits 2 and 3 choose the segment, bit 4
//! lets an index keep the segment it says it describes.

use std::sync::LazyLock;

use crate::{
    Taken,
    layout::{self, End},
    log::{self, Files, Read},
};

pub(crate) const MEND: u8 = 1;
pub(crate) const PRODUCERS: u8 = 2;

/// A closed log, what it holds, and where its segments end.
struct Fixture {
    files: Files,
    read: Read,
    ends: Vec<End>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let files = log::made(true);
    let opened = log::open(&log::disk_of(&files)).expect("a closed log");
    let read = log::read(&opened.reader);
    let ends = files.iter().filter(|(name, _)| name.ends_with(".log")).filter_map(|(_, file)| {
        let mut file = file.clone();
        layout::mend_segment(&mut file, None)
    });
    Fixture { ends: ends.collect(), read, files }
});

pub(crate) fn run(input: &[u8]) -> Taken {
    let Some((flags, piece)) = input.split_first() else { return Taken::Refused };
    let Fixture { files, read, ends } = &*FIXTURE;
    let mut files = files.clone();
    let mut file = piece.to_vec();
    let mend = flags & MEND != 0;
    let end = ends[usize::from(flags >> 2 & 3) % ends.len()];
    if flags & PRODUCERS != 0 {
        let as_of = file.get(16..24).map_or(0, |_| layout::u64_at(&file, 16));
        if mend {
            layout::mend_side(&mut file, layout::PRODUCERS.0, layout::PRODUCERS.1);
        }
        files.retain(|name, _| !name.ends_with(".producers"));
        files.insert(log::name(as_of, "producers"), file);
    } else {
        if flags & 0x10 == 0 {
            layout::link_index(&mut file, &end);
        }
        if mend {
            layout::mend_side(&mut file, layout::INDEX.0, layout::INDEX.1);
        }
        files.insert(log::name(end.base, "index"), file);
    }
    let opened = log::open(&log::disk_of(&files)).expect("derived files never keep a log shut");
    let found = log::read(&opened.reader);
    if mend && flags & PRODUCERS == 0 {
        // One that lies under a right checksum may hide records; it makes none up.
        let same = |(offset, value)| read.records.get(offset) == Some(value);
        assert!(found.records.iter().all(same), "{found:?}");
        return Taken::Accepted;
    }
    assert_eq!(&found, read, "derived files say nothing of their own");
    Taken::Accepted
}

/// An index and a snapshot as a broker wrote them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let files = &FIXTURE.files;
    let indexes = files.iter().filter(|(name, _)| name.ends_with(".index"));
    let indexes =
        indexes.zip(0_u8..).map(|((_, file), number)| [&[MEND | number << 2], &file[..]].concat());
    let tables = files.iter().filter(|(name, _)| name.ends_with(".producers"));
    let tables = tables.map(|(_, file)| [&[MEND | PRODUCERS], &file[..]].concat());
    indexes.chain(tables).collect()
}
