//! Reads batches out of one segment: find the entry, check it, and hand out payloads without the entry
//! headers between them.
//!
//! A run is read with one call into one buffer. The first payload stays where it is, and the others move up to it inside the buffer: one copy
//! from the disk or map, one short move in cache.
//!
//! Damage met on the way to the wanted offset is stepped over; damage at it is an error that names the
//! offsets up to the next valid entry. A file that was cut off is read to its real end; from the first entry
//! that is not whole on it is damaged.

use riverrun_proto::{LeaderEpoch, Offset};

use crate::{
    Damage, DamageReason, IoFailure, ReadError,
    buffers::Buffer,
    disk::DiskFile,
    format::{ENTRY_BYTES, EntryHeader, EntryKind},
    log::{ReadRun, shared::Shared},
    scan::{ChunkReader, Scanned, payload_holds},
    segment::Segment,
};

/// Bytes read past what was asked for, so that entry headers and a start a little early fit in.
const SLACK_BYTES: usize = 4096;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// First offset wanted.
    pub(crate) from: Offset,
    /// No record at or past this.
    pub(crate) limit: Offset,
    /// Bytes of batches wanted at most, the first one excepted.
    pub(crate) bytes_max: usize,
}

/// The entry of `segment` that holds `offset`, or the first after it; `None` past the last.
///
/// # Errors
/// When the entry is damaged or the disk refuses.
pub(crate) fn locate(
    shared: &Shared,
    segment: &Segment,
    file: &dyn DiskFile,
    offset: Offset,
) -> Result<Option<Scanned>, ReadError> {
    let failed = |error| IoFailure::new("read", &segment.path, error);
    let (mut pos, mut expected) =
        segment.with_index(shared.disk.as_ref(), file, |index| index.floor(offset))?;
    let end_pos = segment.end_pos();
    let mut reader = ChunkReader::new(file, end_pos);
    while pos < end_pos {
        let found = match reader.entry_of(pos, segment.salt, expected).map_err(failed)? {
            Some((header, crc)) => Scanned { pos, header, crc },
            None => {
                let damage = damage_at(shared, segment, file, pos)?;
                if offset < damage.offsets.end {
                    return Err(naming(offset, damage).into());
                }
                let goes_on = damage.offsets.end;
                let next =
                    reader.find_entry_from(pos + 1, segment.salt, goes_on).map_err(failed)?;
                let Some(next) = next else { return Ok(None) };
                next
            }
        };
        if found.header.end_offset() > offset {
            return Ok(Some(found));
        }
        pos = found.pos + found.header.stride();
        expected = found.header.end_offset();
    }
    Ok(None)
}

/// The damage at `pos`, where no valid entry begins. It may begin before: an index tells of entries that are
/// not there any more.
pub(crate) fn damage_at(
    shared: &Shared,
    segment: &Segment,
    file: &dyn DiskFile,
    pos: u64,
) -> Result<Damage, IoFailure> {
    let failed = |error| IoFailure::new("read", &segment.path, error);
    let end_pos = segment.end_pos();
    let mut reader = ChunkReader::new(file, end_pos);
    // The handle it is written through knows the length it had.
    let len = segment.reopen(shared.disk.as_ref())?.map_or_else(|| file.len(), |anew| anew.len());
    // What lies before is walked from the nearest point, so that the first damaged offset is known.
    let known = pos.min(len);
    let floor = |index: &crate::index::SparseIndex| index.floor_of_pos(known);
    let (mut at, mut start) = segment.with_index(shared.disk.as_ref(), file, floor)?;
    while at < pos {
        if let Some((header, _)) = reader.entry_of(at, segment.salt, start).map_err(failed)? {
            start = header.end_offset();
            at += header.stride();
            continue;
        }
        let next = reader.find_entry_from(at + 1, segment.salt, behind(start)).map_err(failed)?;
        let Some(next) = next.filter(|next| next.pos <= pos) else { break };
        (at, start) = (next.pos, next.header.base_offset);
    }
    let next = reader.find_entry_from(pos + 1, segment.salt, behind(start)).map_err(failed)?;
    let last = || segment.end_offset().min(shared.visible().log_end);
    let end = next.map_or_else(last, |next| next.header.base_offset);
    let reason = if next.is_none() && len < end_pos {
        DamageReason::CutOff { len, expected: end_pos }
    } else {
        DamageReason::Entry
    };
    Ok(Damage { offsets: start..end.max(start), path: segment.path.clone(), pos: at, reason })
}

/// First offset behind a lost entry that began with `start`. A header that says `start` elsewhere is the lost one's, which a write
/// to a wrong place brought there: nothing goes on with it.
pub(crate) fn behind(start: Offset) -> Offset {
    Offset(start.0.saturating_add(1))
}

/// The damage with `offset` in it, for which it was met: whoever asks must learn that this one cannot be had, or it asks for ever.
fn naming(offset: Offset, damage: Damage) -> Damage {
    let offsets = damage.offsets.start.min(offset)..damage.offsets.end.max(behind(offset));
    Damage { offsets, ..damage }
}

/// The damage of an entry at `pos` whose header holds and whose payload does not.
pub(crate) fn payload_damage(segment: &Segment, pos: u64, header: &EntryHeader) -> Damage {
    Damage {
        offsets: header.base_offset..header.end_offset(),
        path: segment.path.clone(),
        pos,
        reason: DamageReason::Payload,
    }
}

/// Reads what `request` wants from `segment`.
///
/// # Errors
/// When the first entry wanted is damaged, or the disk refuses.
pub(crate) fn read(
    shared: &Shared,
    segment: &Segment,
    file: &dyn DiskFile,
    request: Request,
) -> Result<ReadRun, ReadError> {
    let disk = shared.disk.as_ref();
    let (pos, base) = segment.with_index(disk, file, |index| index.floor(request.from))?;
    let mut run = Run::new(segment, file, request);
    run.expected = base;
    run.fill(pos, 0)?;
    loop {
        match run.step()? {
            Step::Next => {}
            Step::End => return Ok(run.finish()),
            // What is wrong behind them is for the next read to tell.
            Step::Bad if run.is_begun() || run.has_moved() => return Ok(run.finish()),
            Step::Bad => {
                let found = locate(shared, segment, file, request.from)?;
                // Damage before the wanted entry: go on at the entry.
                let found = found.filter(|found| found.pos > run.pos());
                let Some(found) = found else {
                    let damage = damage_at(shared, segment, file, run.pos())?;
                    if request.from >= segment.end_offset() {
                        // What is wanted lies behind it, and not in this segment.
                        return Ok(run.finish());
                    }
                    return Err(naming(request.from, damage).into());
                };
                run.expected = found.header.base_offset;
                run.fill(found.pos, 0)?;
            }
        }
    }
}

/// What one step over an entry came to.
enum Step {
    /// On to the next entry.
    Next,
    /// The run is complete.
    End,
    /// No valid entry begins here.
    Bad,
}

/// A run being read.
struct Run<'a> {
    /// The segment.
    segment: &'a Segment,
    /// Its file.
    file: &'a dyn DiskFile,
    /// What is wanted.
    request: Request,
    /// Position where published entries end.
    end_pos: u64,
    /// Where the file ends, when that is before: nothing at or past it can be read.
    file_end: u64,
    /// Bytes of the file from `start`; `taken` of them from `front` on are payloads moved together.
    buffer: Buffer,
    /// Position of the buffer's first byte.
    start: u64,
    /// Place in the buffer of the entry looked at.
    at: usize,
    /// Offset that the entry looked at must begin with.
    expected: Offset,
    /// Place in the buffer of the first payload.
    front: usize,
    /// Payload bytes collected there.
    taken: usize,
    /// What is said about them.
    run: ReadRun,
}

impl<'a> Run<'a> {
    /// A run without bytes.
    fn new(segment: &'a Segment, file: &'a dyn DiskFile, request: Request) -> Run<'a> {
        let run =
            ReadRun { base_offset: request.from, next_offset: request.from, ..ReadRun::default() };
        let end_pos = segment.end_pos();
        let file_end = end_pos.min(file.len());
        let (buffer, expected) = (Buffer::default(), segment.base);
        let (start, at, front, taken) = (0, 0, 0, 0);
        Run {
            segment,
            file,
            request,
            end_pos,
            file_end,
            buffer,
            start,
            at,
            expected,
            front,
            taken,
            run,
        }
    }

    /// Position of the entry looked at.
    fn pos(&self) -> u64 {
        self.start + self.at as u64
    }

    /// True when a batch was collected.
    fn is_begun(&self) -> bool {
        self.taken > 0
    }

    /// True when offsets without records were passed.
    fn has_moved(&self) -> bool {
        self.run.next_offset > self.request.from
    }

    /// Reads on at `pos`, at least `needed` bytes. Only before anything was collected.
    fn fill(&mut self, pos: u64, needed: usize) -> Result<(), ReadError> {
        let left = usize::try_from(self.file_end.saturating_sub(pos)).unwrap_or(usize::MAX);
        let len = needed.max(self.request.bytes_max.saturating_add(SLACK_BYTES)).min(left);
        self.buffer = Buffer::of(len);
        (self.start, self.at) = (pos, 0);
        if len == 0 {
            return Ok(());
        }
        self.file
            .read_at(pos, &mut self.buffer)
            .map_err(|error| IoFailure::new("read", &self.segment.path, error).into())
    }

    /// Makes sure that `needed` bytes from the entry are in the buffer. False when they are not and the run
    /// ends before them.
    fn has(&mut self, needed: usize) -> Result<bool, ReadError> {
        if self.buffer.len() - self.at.min(self.buffer.len()) >= needed {
            return Ok(true);
        }
        if self.is_begun() || self.pos() + needed as u64 > self.file_end {
            return Ok(false);
        }
        self.fill(self.pos(), needed)?;
        Ok(true)
    }

    /// Looks at one entry.
    fn step(&mut self) -> Result<Step, ReadError> {
        if !self.has(ENTRY_BYTES)? {
            return Ok(if self.pos() < self.end_pos { Step::Bad } else { Step::End });
        }
        let block = self.buffer[self.at..self.at + ENTRY_BYTES].try_into().expect("96 bytes");
        let decoded = EntryHeader::decode(block);
        // One that is cut off is none: what is counted as the segment's end may lie before its own.
        let whole = |header: &EntryHeader| {
            self.pos() + ENTRY_BYTES as u64 + u64::from(header.length) <= self.file_end
        };
        let belongs = |header: &EntryHeader| {
            header.salt == self.segment.salt && header.base_offset == self.expected && whole(header)
        };
        let Some((header, _)) = decoded.filter(|(header, _)| belongs(header)) else {
            return Ok(Step::Bad);
        };
        let end = header.end_offset();
        let segment_end = self.segment.end_offset();
        if header.base_offset < segment_end && end > segment_end {
            // No entry reaches past what its segment holds: its header is not what was written.
            return Ok(Step::Bad);
        }
        if end > self.request.limit {
            return Ok(Step::End);
        }
        if end > self.request.from && header.kind == EntryKind::Records {
            return self.take(&header);
        }
        self.run.next_offset = self.run.next_offset.max(end);
        self.skip(&header);
        Ok(Step::Next)
    }

    /// Collects the batch of the entry looked at, when it fits.
    fn take(&mut self, header: &EntryHeader) -> Result<Step, ReadError> {
        let length = usize::try_from(header.length).expect("a length fits memory");
        let full = self.is_begun() && self.taken + length > self.request.bytes_max;
        if full || !self.has(ENTRY_BYTES + length)? {
            return Ok(if self.is_begun() { Step::End } else { Step::Bad });
        }
        let payload = self.at + ENTRY_BYTES..self.at + ENTRY_BYTES + length;
        if !payload_holds(header, &self.buffer[payload.clone()]) {
            if self.is_begun() {
                return Ok(Step::End);
            }
            return Err(payload_damage(self.segment, self.pos(), header).into());
        }
        if self.is_begun() {
            self.buffer.copy_within(payload, self.front + self.taken);
        } else {
            self.front = payload.start;
            self.run.base_offset = header.base_offset;
        }
        self.run.next_offset = header.end_offset();
        self.run.leader_epoch = header.leader_epoch;
        self.run.record_count += u64::from(header.count);
        self.taken += length;
        self.skip(header);
        Ok(Step::Next)
    }

    /// Goes past the entry looked at.
    fn skip(&mut self, header: &EntryHeader) {
        let stride = usize::try_from(header.stride()).expect("an entry fits memory");
        self.at += stride;
        self.expected = header.end_offset();
    }

    /// What was collected.
    fn finish(mut self) -> ReadRun {
        if self.taken == 0 {
            self.run.base_offset = self.run.next_offset;
            self.run.leader_epoch = LeaderEpoch::default();
        }
        self.run.bytes = self.buffer.into_part(self.front..self.front + self.taken);
        self.run
    }
}
