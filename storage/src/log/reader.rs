//! Reads what is published. Never waits for the writer, and changes nothing on disk.
//!
//! Every batch that leaves here was checked against its entry header and its checksum. Where that fails
//! the damaged offsets are named; records before and behind them stay readable.

use std::{io::ErrorKind, sync::Arc};

use bytes::Bytes;
use riverrun_proto::{LeaderEpoch, Offset, RecordBatch, limits::INFLATED_BYTES_MAX};

use super::shared::Shared;
use crate::{
    IoFailure, LogFailure, LogOffsets, LogScrubber, ReadError, Timestamp,
    disk::DiskFile,
    format::{ENTRY_BYTES, EntryHeader, EntryKind},
    scan::ChunkReader,
    segment::Segment,
    segment_read::{self, Request},
};

/// Whole record batches, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRun {
    /// The batches. The first may begin before the offset asked for.
    pub bytes: Bytes,
    /// Offset of the first record in `bytes`; `next_offset` when there is none.
    pub base_offset: Offset,
    /// Where to read on. Past records that compaction removed, so it may rise with no bytes.
    pub next_offset: Offset,
    /// Leader epoch of the last batch; 0 when there is none.
    pub leader_epoch: LeaderEpoch,
    /// Records in the batches, those before the offset asked for included.
    pub record_count: u64,
}

/// Reads one log. Cheap to clone; all clones may read at once.
#[derive(Clone, Debug)]
pub struct LogReader {
    /// The log.
    shared: Arc<Shared>,
}

impl LogReader {
    /// A reader of `shared`.
    pub(super) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// The range of the log now. A log that stopped ends at its flushed offset.
    pub fn offsets(&self) -> LogOffsets {
        self.shared.visible()
    }

    /// Why the log stopped, if it did.
    pub fn failure(&self) -> Option<LogFailure> {
        self.shared.failure().cloned()
    }

    /// Reads batches from the one that holds `from`, as many as fit `bytes_max` and end at or before
    /// `limit`; the first one is given even when it is larger. Empty when nothing at or past `from` is
    /// below `limit` yet. A run may end earlier, at the end of a segment.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &self,
        from: Offset,
        limit: Offset,
        bytes_max: usize,
    ) -> Result<ReadRun, ReadError> {
        let limit = limit.min(self.check(from)?.log_end);
        let mut request = Request { from, limit, bytes_max };
        while request.from < limit {
            let Some(segment) = self.shared.segment_of(request.from) else { break };
            let run = self.in_segment(&segment, request.from, |file| {
                segment_read::read(&self.shared, &segment, file, request)
            })?;
            if !run.bytes.is_empty() {
                return Ok(run);
            }
            if run.next_offset <= request.from {
                break;
            }
            request.from = run.next_offset;
        }
        let next = request.from;
        let mut damages = self.shared.damages.iter();
        match damages.rfind(|damage| next < limit && damage.offsets.contains(&next)) {
            Some(damage) => Err(damage.clone().into()),
            None => Ok(ReadRun { base_offset: next, next_offset: next, ..ReadRun::default() }),
        }
    }

    /// The first record at or past the log start and below `limit` whose timestamp is `timestamp` or later,
    /// with its own timestamp. Timestamps need not rise.
    ///
    /// # Errors
    /// See [`ReadError`]; damage on the way is one.
    pub fn find_by_time(
        &self,
        timestamp: Timestamp,
        limit: Offset,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let offsets = self.shared.visible();
        let limit = limit.min(offsets.log_end);
        let segments = self.shared.segments.read().clone();
        for segment in &segments {
            if segment.base >= limit {
                break;
            }
            if segment.max_timestamp() < timestamp {
                continue;
            }
            let search = TimeSearch { timestamp, from: offsets.log_start, limit };
            let found = self.in_segment(segment, segment.base, |file| {
                self.find_in_segment(segment, file, search)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// When the record at `offset` was appended; `None` when nothing is there yet.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn append_time(&self, offset: Offset) -> Result<Option<Timestamp>, ReadError> {
        if offset >= self.check(offset)?.log_end {
            return Ok(None);
        }
        let Some(segment) = self.shared.segment_of(offset) else { return Ok(None) };
        self.in_segment(&segment, offset, |file| {
            let entry = segment_read::locate(&self.shared, &segment, file, offset)?;
            Ok(entry.map(|entry| entry.header.append_time))
        })
    }

    /// The newest epoch not after `epoch` and the first offset past it. For an epoch older than all that
    /// are remembered: that epoch and the first offset of the oldest.
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let log_end = self.shared.visible().log_end;
        self.shared.state.read().epoch_end(epoch, log_end)
    }

    /// Where the history of a reader parts from this one, when the record before `from` was of `epoch` there: the newest epoch
    /// that both can have, and its end. `None` when nothing says that they part before `from`.
    pub fn parting(&self, from: Offset, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let log_end = self.shared.visible().log_end;
        self.shared.state.read().parting((from, epoch), log_end)
    }

    /// The epoch that `offset` was, or would be, appended in.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.shared.state.read().epoch_at(offset)
    }

    /// Bytes of all segments, headers included.
    pub fn size_bytes(&self) -> u64 {
        self.shared.segments.read().iter().map(|segment| segment.end_pos()).sum()
    }

    /// Segments kept.
    pub fn segment_count(&self) -> usize {
        self.shared.segments.read().len()
    }

    /// Whoever re-reads the sealed segments of this log. Each goes its own way.
    pub fn scrubber(&self) -> LogScrubber {
        LogScrubber::new(self.shared.clone())
    }

    /// Bytes of memory that indexes hold.
    pub fn index_memory_bytes(&self) -> usize {
        self.shared.segments.read().iter().map(|segment| segment.memory_bytes()).sum()
    }

    /// Closes sealed files that were opened for reading. To be called when nobody reads for a while.
    pub fn close_idle_files(&self) {
        self.shared.close_readable();
    }

    /// The range of the log, when `from` lies in it.
    fn check(&self, from: Offset) -> Result<LogOffsets, ReadError> {
        let offsets = self.shared.visible();
        let LogOffsets { log_start, log_end, .. } = offsets;
        if (log_start..=log_end).contains(&from) {
            return Ok(offsets);
        }
        match self.shared.failure() {
            Some(failure) if from > log_end => Err(failure.clone().into()),
            _ => Err(ReadError::OutOfRange { requested: from, log_start, log_end }),
        }
    }

    /// Calls `act` with the file of `segment`. A file that retention removed meanwhile means that `from` is
    /// out of range now. One that is being written and was cut from outside can not be read through the
    /// writer's handle any more: what is left of it is read through another.
    fn in_segment<T>(
        &self,
        segment: &Arc<Segment>,
        from: Offset,
        act: impl Fn(&dyn DiskFile) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        match self.shared.file_of(segment) {
            Ok(file) => match act(file.as_ref()) {
                Err(ReadError::Io(failure)) => match segment.reopen(self.shared.disk.as_ref())? {
                    Some(file) => act(file.as_ref()),
                    None => Err(failure.into()),
                },
                done => done,
            },
            Err(failure) if failure.source.kind() == ErrorKind::NotFound => {
                self.check(from)?;
                Err(failure.into())
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The first record of one segment that `search` is for.
    fn find_in_segment(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        search: TimeSearch,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let (start, mut expected) =
            segment.with_index(self.shared.disk.as_ref(), file, |index| {
                index.floor_of_time(search.timestamp)
            })?;
        let failed = |error| IoFailure::new("read", &segment.path, error);
        let end_pos = segment.end_pos();
        let mut reader = ChunkReader::new(file, end_pos);
        let mut pos = start;
        while pos < end_pos {
            let found = reader.entry_of(pos, segment.salt, expected).map_err(failed)?;
            let Some((header, _)) = found else {
                let damage = segment_read::damage_at(&self.shared, segment, file, pos)?;
                // Of a file that lost no more than its seal every record is there.
                return if damage.offsets.is_empty() { Ok(None) } else { Err(damage.into()) };
            };
            if header.base_offset >= search.limit {
                break;
            }
            let candidate = header.kind == EntryKind::Records
                && header.max_timestamp >= search.timestamp
                && header.end_offset() > search.from;
            if candidate
                && let Some(found) = search.in_batch(segment, &mut reader, (pos, header))?
            {
                return Ok(Some(found).filter(|(offset, _)| *offset < search.limit));
            }
            pos += header.stride();
            expected = header.end_offset();
        }
        Ok(None)
    }
}

/// What a lookup by time is for.
#[derive(Clone, Copy, Debug)]
struct TimeSearch {
    /// The record's timestamp is this or later.
    timestamp: Timestamp,
    /// Its offset is this or later.
    from: Offset,
    /// Its offset is smaller.
    limit: Offset,
}

impl TimeSearch {
    /// The first such record of the batch in the entry at `pos`.
    fn in_batch(
        &self,
        segment: &Segment,
        reader: &mut ChunkReader<'_>,
        (pos, header): (u64, EntryHeader),
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let len = usize::try_from(header.length).expect("a length fits memory");
        let payload = reader
            .bytes(pos + ENTRY_BYTES as u64, len)
            .map_err(|error| IoFailure::new("read", &segment.path, error))?;
        let damage = || segment_read::payload_damage(segment, pos, &header);
        let payload = Bytes::copy_from_slice(payload.ok_or_else(damage)?);
        let batch = RecordBatch::decode(payload).map_err(|_| damage())?;
        let records = batch.records(INFLATED_BYTES_MAX).map_err(|_| damage())?;
        for record in records {
            let record = record.map_err(|_| damage())?;
            let timestamp = Timestamp(record.record.timestamp_ms);
            if timestamp >= self.timestamp && record.offset >= self.from {
                return Ok(Some((record.offset, timestamp)));
            }
        }
        Ok(None)
    }
}
