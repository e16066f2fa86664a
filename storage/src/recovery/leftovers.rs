//! What an interrupted recovery left, told from segments of another history (rows 9 and 10).
//!
//! A recovery writes records anew, in a segment of a higher epoch, or sets them aside, and only then removes the
//! segments they came from. So of a leftover every record stands in the segment before it, or its bytes in a file
//! set aside. A segment of which that is not true was never looked at by a recovery of this log: it is somebody
//! else's, and removing it would take what nobody has copied.

use riverrun_proto::Offset;

use super::{
    Site,
    survey::{FoundSegment, Survey},
};
use crate::{
    Damage, DamageReason, IoFailure,
    disk::{DiskFile, OpenMode},
    format::{ENTRY_BYTES, EntryHeader, HEADER_BLOCK_BYTES, entry::ENTRY_ALIGN},
    scan::{ChunkReader, Scanned},
};

/// Segments of a lower epoch than one before them that no recovery has replaced.
pub(super) fn strays(site: Site<'_>, survey: &Survey) -> Result<Vec<Damage>, IoFailure> {
    let mut strays = Vec::new();
    for left in &survey.superseded {
        let is_before = |kept: &&FoundSegment| kept.base < left.base;
        let before =
            survey.segments.iter().rfind(is_before).expect("a higher epoch stands before it");
        if !(holds_all(site, before, left)? || is_set_aside(site, survey, left)?) {
            // Which of its offsets are not this log's nobody can tell; those of the log are read as ever.
            let at = left.base.min(survey.known_durable());
            let (path, reason) = (left.path.clone(), DamageReason::Stray);
            strays.push(Damage { offsets: at..at, path, pos: 0, reason });
        }
    }
    Ok(strays)
}

/// True when every record of `left` stands in `kept` too.
fn holds_all(site: Site<'_>, kept: &FoundSegment, left: &FoundSegment) -> Result<bool, IoFailure> {
    let files = (open(site, kept)?, open(site, left)?);
    let mut of_kept = RecordEntries::new(files.0.as_ref(), kept);
    let mut of_left = RecordEntries::new(files.1.as_ref(), left);
    let read = |found: &FoundSegment| {
        let path = found.path.clone();
        move |error| IoFailure::new("read", &path, error)
    };
    let mut ahead = of_kept.next().map_err(read(kept))?;
    while let Some(entry) = of_left.next().map_err(read(left))? {
        while ahead.is_some_and(|ahead| ahead.header.base_offset < entry.header.base_offset) {
            ahead = of_kept.next().map_err(read(kept))?;
        }
        if !ahead.is_some_and(|ahead| is_copy(&ahead, &entry)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True when a recovery wrote one of the two from the other.
fn is_copy(one: &Scanned, other: &Scanned) -> bool {
    let told = |entry: &Scanned| {
        let header = &entry.header;
        let offsets: (Offset, u32) = (header.base_offset, header.count);
        (header.kind, offsets, header.leader_epoch, header.append_time, header.payload_crc)
    };
    told(one) == told(other)
}

/// True when a recovery has set bytes of `left` aside: an entry with its salt stands in a file made for its base.
fn is_set_aside(site: Site<'_>, survey: &Survey, left: &FoundSegment) -> Result<bool, IoFailure> {
    let Some((header, _)) = left.header else { return Ok(false) };
    for (_, path) in survey.torn.iter().filter(|(base, _)| *base == left.base) {
        let at = |op| move |error| IoFailure::new(op, path, error);
        let file = site.disk.open(path, OpenMode::Read).map_err(at("open"))?;
        let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
        let mut pos = 0;
        while pos < reader.end() {
            if begins_with(&mut reader, pos, header.salt()).map_err(at("read"))? {
                return Ok(true);
            }
            pos += ENTRY_ALIGN;
        }
    }
    Ok(false)
}

/// True when the header of an entry with `salt` stands at `pos`. Behind the file's end are zeros: a recovery does not set trailing ones aside,
/// also not those within a header.
fn begins_with(reader: &mut ChunkReader<'_>, pos: u64, salt: u64) -> std::io::Result<bool> {
    let left = usize::try_from(reader.end() - pos).unwrap_or(usize::MAX).min(ENTRY_BYTES);
    let mut block = [0; ENTRY_BYTES];
    block[..left].copy_from_slice(reader.bytes(pos, left)?.expect("cut to the end"));
    Ok(EntryHeader::decode(&block).is_some_and(|(header, _)| header.salt == salt))
}

fn open(site: Site<'_>, found: &FoundSegment) -> Result<std::sync::Arc<dyn DiskFile>, IoFailure> {
    let opened = site.disk.open(&found.path, OpenMode::Read);
    opened.map_err(|error| IoFailure::new("open", &found.path, error))
}

/// The entries of a segment that cover offsets, wherever they stand.
struct RecordEntries<'a> {
    reader: ChunkReader<'a>,
    /// Where to look on; the end of the file in a segment without a valid header.
    pos: u64,
    salt: u64,
}

impl<'a> RecordEntries<'a> {
    fn new(file: &'a dyn DiskFile, found: &FoundSegment) -> RecordEntries<'a> {
        let reader = ChunkReader::new(file, u64::MAX);
        let (pos, salt) = match found.header {
            Some((header, _)) => (HEADER_BLOCK_BYTES as u64, header.salt()),
            None => (reader.end(), 0),
        };
        RecordEntries { reader, pos, salt }
    }

    fn next(&mut self) -> std::io::Result<Option<Scanned>> {
        while let Some(entry) = self.reader.find_entry(self.pos, self.salt)? {
            self.pos = entry.pos + entry.header.stride();
            if entry.header.count > 0 {
                return Ok(Some(entry));
            }
        }
        self.pos = self.reader.end();
        Ok(None)
    }
}
