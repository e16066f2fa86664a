//! Makes delivery frames of offsets that were handed out.
//!
//! A stored batch goes out as it lies on disk when at least half of its bytes were handed out and it is not
//! very large; the reader skips what is not his. Otherwise the records handed out are cut out of it into a
//! batch of their own. Batches that lie side by side go out as one slice of what was read, without a copy.
//!
//! A frame ends once it holds about [`FRAME_BYTES`]; one record always fits. That is somewhat more than delivery hands out
//! at once, so a delivery is one frame, unless its records share batches with many others; and no more than that, because
//! a session that is not read holds two frames for as long as it is open.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use riverrun_proto::{LeaderEpoch, Offset, batch::OffsetRecord};

use super::{
    scan::{ScanError, ScannedBatch, Slice},
    scan_cache::ScanCache,
};
use crate::{
    delivery::Run,
    partition::{Partition, ReadError},
    service::fetch::Format,
};

/// Bytes after which a frame ends; larger batches never go out whole.
pub const FRAME_BYTES: usize = 128 << 10;

/// Records of one partition on their way to a consumer.
#[derive(Debug, Default)]
pub struct Frame {
    /// Offsets in it.
    pub runs: Vec<Run>,
    /// Whole batches, with [`Format::Encoded`].
    pub batches: Bytes,
    /// The records, with [`Format::Structured`].
    pub records: Vec<OffsetRecord>,
    /// For each of them the epoch under which it was appended.
    pub epochs: Vec<LeaderEpoch>,
    /// Offsets handed out that are not in the log any more.
    pub missing: Vec<Run>,
}

/// A frame that grows.
#[derive(Debug)]
struct Building {
    format: Format,
    frame: Frame,
    parts: Vec<Part>,
    bytes: usize,
}

#[derive(Debug)]
enum Part {
    /// Batches as they were read.
    Slice(Slice),
    /// Records cut out of a batch.
    Cut(Bytes),
}

/// Makes the next frame of `runs`, which are sorted; what is in it, or missing, is taken off them.
///
/// # Errors
/// When the first records cannot be read; nothing is taken off then.
pub async fn next_frame(
    cache: &ScanCache,
    partition: &Arc<Partition>,
    runs: &mut VecDeque<Run>,
    format: Format,
) -> Result<Frame, ScanError> {
    let mut building = Building::new(format);
    while let Some(first) = runs.front().copied()
        && building.bytes < FRAME_BYTES
    {
        let last = runs.back().map_or(first.end, |run| run.end);
        let bytes_max = (FRAME_BYTES - building.bytes) as u64;
        let batches = match cache.read(partition, (first.start, last), bytes_max).await {
            Ok(batches) => batches,
            Err(ScanError::Read(ReadError::OutOfRange { log_start, .. }))
                if first.start < log_start.0 =>
            {
                building.miss(runs, log_start);
                continue;
            }
            Err(_) if !building.frame.is_empty() => break,
            Err(error) => return Err(error),
        };
        if batches.is_empty() {
            // Not visible any more: the log lost its end.
            building.miss(runs, Offset(first.end));
        }
        for batch in &batches {
            if building.bytes >= FRAME_BYTES {
                break;
            }
            building.add(batch, runs)?;
        }
    }
    Ok(building.finish())
}

impl Frame {
    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.missing.is_empty()
    }
}

impl Building {
    fn new(format: Format) -> Building {
        Building { format, frame: Frame::default(), parts: Vec::new(), bytes: 0 }
    }

    /// Takes everything below `end` off `runs` as missing.
    fn miss(&mut self, runs: &mut VecDeque<Run>, end: Offset) {
        while let Some(run) = take_below(runs, end.0) {
            Run::push(&mut self.frame.missing, run);
        }
    }

    /// Adds what was handed out of `batch`, as far as it fits.
    fn add(&mut self, batch: &ScannedBatch, runs: &mut VecDeque<Run>) -> Result<(), ScanError> {
        let wanted = Wanted::of(batch, runs);
        let Some(slice) = batch.slice().filter(|_| !wanted.rows.is_empty()) else {
            self.miss(runs, Offset(batch.covers().end));
            return Ok(());
        };
        let is_whole = self.format == Format::Encoded
            && slice.len() <= FRAME_BYTES
            && wanted.bytes * 2 >= batch.record_bytes();
        if is_whole {
            self.bytes += slice.len();
            self.push_slice(slice);
            self.take(&wanted.rows, runs, batch.covers().end);
            return Ok(());
        }
        let rows = wanted.fitting(FRAME_BYTES.saturating_sub(self.bytes));
        self.cut(batch, &rows)?;
        let is_all = rows.len() == wanted.rows.len();
        let end = rows.last().map_or(batch.covers().end, |(offset, _)| offset + 1);
        self.take(&rows, runs, if is_all { batch.covers().end } else { end });
        Ok(())
    }

    /// Copies the records in `rows`.
    fn cut(&mut self, batch: &ScannedBatch, rows: &[(u64, u32)]) -> Result<(), ScanError> {
        let Some((first, _)) = rows.first() else { return Ok(()) };
        let Some((stored, records)) = batch.stored_from(*first) else { return Ok(()) };
        let malformed = |error: riverrun_proto::batch::DecodeError| ScanError::Decode {
            offset: stored.base_offset(),
            reason: error.to_string().into(),
        };
        let mut wanted = rows.iter().map(|(offset, _)| Offset(*offset)).peekable();
        match self.format {
            Format::Encoded => {
                let cut = stored.pick(&records, wanted).map_err(malformed)?;
                let bytes = cut.map(riverrun_proto::RecordBatch::into_bytes).unwrap_or_default();
                self.bytes += bytes.len();
                self.parts.push(Part::Cut(bytes));
            }
            Format::Structured => {
                for record in records {
                    if wanted.peek().is_none() {
                        break;
                    }
                    let record = record.map_err(malformed)?;
                    if wanted.next_if_eq(&record.offset).is_some() {
                        self.frame.records.push(record);
                        self.frame.epochs.push(stored.header().leader_epoch);
                    }
                }
                self.bytes += rows.iter().map(|(_, bytes)| *bytes as usize).sum::<usize>();
            }
        }
        Ok(())
    }

    fn push_slice(&mut self, slice: Slice) {
        if let Some(Part::Slice(last)) = self.parts.last_mut()
            && last.join(&slice)
        {
            return;
        }
        self.parts.push(Part::Slice(slice));
    }

    /// Takes everything below `end` off `runs`: `rows` are in the frame, the rest is missing.
    fn take(&mut self, rows: &[(u64, u32)], runs: &mut VecDeque<Run>, end: u64) {
        let mut rows = rows.iter().map(|(offset, _)| *offset).peekable();
        while let Some(run) = take_below(runs, end) {
            for offset in run.offsets() {
                let is_there = rows.next_if_eq(&offset).is_some();
                let into = if is_there { &mut self.frame.runs } else { &mut self.frame.missing };
                Run::push(into, Run::one(offset));
            }
        }
    }

    fn finish(self) -> Frame {
        let mut frame = self.frame;
        frame.batches = joined(self.parts);
        frame
    }
}

/// The rows of a batch that were handed out.
struct Wanted {
    rows: Vec<(u64, u32)>,
    bytes: u64,
}

impl Wanted {
    fn of(batch: &ScannedBatch, runs: &VecDeque<Run>) -> Wanted {
        let mut wanted = Wanted { rows: Vec::new(), bytes: 0 };
        for run in runs {
            if run.start >= batch.covers().end {
                break;
            }
            for (offset, bytes) in batch.rows(*run) {
                wanted.rows.push((offset, bytes));
                wanted.bytes += u64::from(bytes);
            }
        }
        wanted
    }

    /// The first rows that fit `bytes_max`; at least one.
    fn fitting(&self, bytes_max: usize) -> Vec<(u64, u32)> {
        let mut bytes = 0;
        let fits = |row: &&(u64, u32)| {
            let fits = bytes < bytes_max;
            bytes += row.1 as usize;
            fits
        };
        let count = self.rows.iter().take_while(fits).count();
        self.rows[..count.max(1)].to_vec()
    }
}

/// Takes the first run off, as far as it lies below `end`.
fn take_below(runs: &mut VecDeque<Run>, end: u64) -> Option<Run> {
    let first = runs.front_mut()?;
    if first.start >= end {
        return None;
    }
    let taken = Run::new(first.start, first.end.min(end));
    first.start = taken.end;
    if first.is_empty() {
        runs.pop_front();
    }
    Some(taken)
}

fn joined(mut parts: Vec<Part>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().map(Part::into_bytes).unwrap_or_default();
    }
    let parts: Vec<Bytes> = parts.into_iter().map(Part::into_bytes).collect();
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        all.extend_from_slice(&part);
    }
    all.freeze()
}

impl Part {
    fn into_bytes(self) -> Bytes {
        match self {
            Part::Slice(slice) => slice.into_bytes(),
            Part::Cut(bytes) => bytes,
        }
    }
}
