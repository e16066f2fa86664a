//! Re-reads the sealed segments of a log that is in use, and says where they are not what was written.
//!
//! ```text
//! next sealed segment --> its file, by a handle of its own --> header block --> entries, piece by piece --> its end
//!         ^                                                         |                  |                      |
//!         `---- the log does not hold it any more <-----------------+------------------+----------------------'
//! ```
//!
//! Invariants:
//! - It changes nothing on disk, and closes no file that readers have open.
//! - One step reads about as much as it was asked to; only behind damage it reads on to the next valid entry.
//! - A segment that retention removed or compaction replaced meanwhile is left, and never called damaged.
//! - Damaged offsets are named as a read of them is told. A header block that is damaged and an end that is not the
//!   seal's are named too: readers do without them, the next start does not.
//!
//! It does not look at the active segment, which readers and recovery read, nor at side files, which are derived
//! or read at each start; and it decides nothing.

use std::sync::Arc;

use riverrun_proto::Offset;

use crate::{
    Damage, DamageReason, IoFailure, ReadError,
    disk::{DiskFile, OpenMode},
    format::{HEADER_BLOCK_BYTES, SegmentHeader},
    log::shared::Shared,
    scan::{ChunkReader, Place, Scanner},
    segment::Segment,
    segment_read::{damage_at, payload_damage},
};

/// What one step came to.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Bytes read, those that were passed over behind damage included.
    pub bytes: u64,
    /// Damage that was met: [`ReadError::Corrupt`], or [`ReadError::Io`] where the disk refused, which ends the look
    /// at that segment.
    pub found: Vec<ReadError>,
    /// True when every segment that is sealed by now was looked at. The next step begins anew.
    pub is_complete: bool,
}

/// Re-reads the sealed segments of one log, oldest first.
#[derive(Debug)]
pub struct LogScrubber {
    /// The log.
    shared: Arc<Shared>,
    /// Segments that begin before this were looked at.
    next_base: Offset,
    /// The segment in hand.
    open: Option<OpenSegment>,
}

/// A segment being looked at.
#[derive(Debug)]
struct OpenSegment {
    /// Its file. Goes before `segment`: a file whose segment nobody holds may be written anew.
    file: Arc<dyn DiskFile>,
    /// The segment.
    segment: Arc<Segment>,
    /// What the next entry must continue.
    place: Place,
}

impl LogScrubber {
    /// A scrubber of `shared` that has looked at nothing.
    pub(crate) fn new(shared: Arc<Shared>) -> LogScrubber {
        LogScrubber { shared, next_base: Offset::ZERO, open: None }
    }

    /// True when a sealed segment is left to be looked at. Costs no read.
    pub fn has_more(&self) -> bool {
        self.open.is_some() || self.next_segment().is_some()
    }

    /// Looks at the next `bytes_max` bytes or a little more.
    pub fn step(&mut self, bytes_max: u64) -> Scrubbed {
        let mut done = Scrubbed::default();
        while done.bytes < bytes_max {
            let kept = self.open.take().filter(|open| self.is_held(&open.segment));
            let Some(open) = kept.or_else(|| self.open_next(&mut done)) else {
                self.next_base = Offset::ZERO;
                done.is_complete = true;
                break;
            };
            self.look(open, bytes_max.saturating_sub(done.bytes), &mut done);
        }
        done
    }

    /// Looks at a piece of `open`, and keeps it when something of it is left.
    fn look(&mut self, mut open: OpenSegment, bytes_max: u64, done: &mut Scrubbed) {
        let mut found = Vec::new();
        let looked = open.look(&self.shared, bytes_max, (&mut found, &mut done.bytes));
        let is_finished = looked.unwrap_or_else(|failure| {
            found.push(failure.into());
            true
        });
        if is_finished {
            self.next_base = Offset(open.segment.base.0.saturating_add(1));
        }
        self.tell(&open.segment, found, done);
        if !is_finished {
            self.open = Some(open);
        }
    }

    /// Takes up the first segment that is due.
    fn open_next(&mut self, done: &mut Scrubbed) -> Option<OpenSegment> {
        while let Some(segment) = self.next_segment() {
            match self.open(&segment, done) {
                Ok(open) if self.is_held(&segment) => return Some(open),
                Err(failure) if self.is_held(&segment) => {
                    self.next_base = Offset(segment.base.0.saturating_add(1));
                    self.tell(&segment, vec![failure.into()], done);
                }
                // The log holds another one in its place, or none.
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    /// The first sealed segment that was not looked at. One that has bytes to be flushed is not sealed for good.
    fn next_segment(&self) -> Option<Arc<Segment>> {
        let segments = self.shared.segments.read();
        let is_sealed = |segment: &&Arc<Segment>| {
            segment.is_sealed() && segment.flushed_pos() >= segment.end_pos()
        };
        let mut sealed = segments.iter().take_while(is_sealed);
        sealed.find(|segment| segment.base >= self.next_base).cloned()
    }

    /// Opens the file of `segment` and checks its header block.
    fn open(&self, segment: &Arc<Segment>, done: &mut Scrubbed) -> Result<OpenSegment, IoFailure> {
        let failed = |op| move |error| IoFailure::new(op, &segment.path, error);
        let opened = self.shared.disk.open(&segment.path, OpenMode::ReadUncached);
        let file = opened.map_err(failed("open"))?;
        let place = segment.first_place();
        let mut block = Box::new([0; HEADER_BLOCK_BYTES]);
        let is_whole = file.len() >= HEADER_BLOCK_BYTES as u64;
        if is_whole {
            file.read_at(0, &mut block[..]).map_err(failed("read"))?;
            done.bytes += HEADER_BLOCK_BYTES as u64;
        }
        let header = SegmentHeader::decode(&block, &segment.path).ok().flatten();
        if header.is_none_or(|(_, crc)| crc != segment.header_crc) {
            let damage = whole(segment, 0, DamageReason::SegmentHeader);
            self.tell(segment, vec![damage.into()], done);
        }
        Ok(OpenSegment { file, segment: segment.clone(), place })
    }

    /// Tells what was `found` in `segment`, unless the log does not hold it any more or those records were dropped.
    fn tell(&self, segment: &Arc<Segment>, mut found: Vec<ReadError>, done: &mut Scrubbed) {
        if found.is_empty() || !self.is_held(segment) {
            return;
        }
        let log_start = self.shared.visible().log_start;
        found.retain(|error| match error {
            ReadError::Corrupt(damage) => damage.offsets.end > log_start,
            ReadError::Io(_) | ReadError::OutOfRange { .. } | ReadError::Failed(_) => true,
        });
        done.found.append(&mut found);
    }

    /// True while `segment` is one of the log. Waits for whoever is taking it out: from when its name goes until the
    /// list says so, its file may be another one's.
    fn is_held(&self, segment: &Arc<Segment>) -> bool {
        let _layout = self.shared.layout.lock();
        self.shared.segments.read().iter().any(|held| Arc::ptr_eq(held, segment))
    }
}

impl OpenSegment {
    /// Looks at entries until about `bytes_max` more bytes were read. True at the end of the segment.
    fn look(
        &mut self,
        shared: &Shared,
        bytes_max: u64,
        (found, bytes): (&mut Vec<ReadError>, &mut u64),
    ) -> Result<bool, IoFailure> {
        let (segment, file) = (&*self.segment, self.file.as_ref());
        let failed = |error| IoFailure::new("read", &segment.path, error);
        let piece_end = self.place.pos.saturating_add(bytes_max);
        while self.place.pos < piece_end.min(segment.end_pos()) {
            let reader = ChunkReader::new(file, segment.end_pos());
            let mut scanner = Scanner::new(reader, segment.salt, self.place);
            let mut is_broken = false;
            while !is_broken && scanner.place().pos < piece_end.min(segment.end_pos()) {
                is_broken = scanner.next().map_err(failed)?.is_none();
            }
            *bytes += scanner.reader.fetched();
            self.place = scanner.place();
            if is_broken {
                let (damage, next) = step_over(shared, (segment, file), scanner)?;
                found.push(damage.into());
                let goes_on = next.map_or(segment.end_pos(), |next| next.pos);
                *bytes += goes_on - self.place.pos;
                let Some(next) = next else { return Ok(true) };
                self.place = next;
            }
        }
        if self.place.pos < segment.end_pos() {
            return Ok(false);
        }
        let ends_as_sealed =
            self.place.offset == segment.end_offset() && self.place.chain == segment.chain();
        if !ends_as_sealed && found.is_empty() {
            found.push(whole(segment, self.place.pos, DamageReason::Seal).into());
        }
        Ok(true)
    }
}

/// The damage at the place where `scanner` stopped, and where entries go on behind it.
fn step_over(
    shared: &Shared,
    (segment, file): (&Segment, &dyn DiskFile),
    mut scanner: Scanner<'_>,
) -> Result<(Damage, Option<Place>), IoFailure> {
    let failed = |error| IoFailure::new("read", &segment.path, error);
    let Place { pos, offset, chain } = scanner.place();
    let reader = &mut scanner.reader;
    let header = reader.entry_of(pos, segment.salt, offset).map_err(failed)?;
    if let Some((header, crc)) = header.filter(|(header, _)| header.previous_crc == chain) {
        let next = Place { pos: pos + header.stride(), offset: header.end_offset(), chain: crc };
        return Ok((payload_damage(segment, pos, &header), Some(next)));
    }
    let damage = damage_at(shared, segment, file, pos)?;
    let next = reader.find_entry_from(pos + 1, segment.salt, damage.offsets.end).map_err(failed)?;
    let place = next.map(|next| Place {
        pos: next.pos,
        offset: next.header.base_offset,
        chain: next.header.previous_crc,
    });
    Ok((damage, place))
}

/// Damage at `pos` that concerns `segment` as a whole.
fn whole(segment: &Segment, pos: u64, reason: DamageReason) -> Damage {
    let offsets = segment.base..segment.end_offset();
    Damage { offsets, path: segment.path.clone(), pos, reason }
}

#[cfg(test)]
mod tests;
