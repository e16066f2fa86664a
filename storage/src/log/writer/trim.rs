//! Takes records off the front of the log: by retention, or because somebody said so.
//!
//! Segments leave the list first and the disk then, oldest first, so that no reader comes by one that is gone.

use std::sync::Arc;

use riverrun_proto::Offset;

use super::LogWriter;
use crate::{
    AppendError, IoFailure, RetentionPolicy, StorageError, Timestamp, paths,
    retention::{self, SegmentAge},
    segment::Segment,
    state,
};

/// What a trim dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Whole segments removed.
    pub segment_count: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// First offset kept.
    pub log_start: Offset,
}

impl LogWriter {
    /// Drops what `policy` does not keep: whole segments, oldest first. An active segment that has expired
    /// as a whole is sealed first. Whoever reads in a dropped segment now may finish.
    ///
    /// # Errors
    /// When the log has stopped or the disk refuses; some segments may have been dropped.
    pub fn apply_retention(
        &mut self,
        now: Timestamp,
        policy: &RetentionPolicy,
    ) -> Result<Dropped, StorageError> {
        self.shared.check()?;
        self.forget_producers(now, self.options.producer_count_max);
        self.remove_below(self.shared.watermarks.load().log_start)?;
        if self.active_has_expired(now, policy) {
            self.roll(now).map_err(storage_error)?;
        }
        let segments = self.shared.segments.read().clone();
        let Some((active, sealed)) = segments.split_last() else { return self.dropped(&[]) };
        let ages: Vec<_> = sealed.iter().map(age_of).collect();
        let count = retention::segments_to_drop(&ages, active.end_pos(), policy, now);
        let Some(last) = count.checked_sub(1).map(|last| &sealed[last]) else {
            return self.dropped(&[]);
        };
        let end = last.end_offset();
        // Held segments count as being read.
        drop(segments);
        self.drop_before(end)
    }

    /// Moves the log start up to `offset` and removes the segments below it. Records below it are not
    /// readable any more when this returns; an offset below the log start changes nothing.
    ///
    /// # Errors
    /// When `offset` is past the log end, the log has stopped or the disk refuses.
    pub fn drop_before(&mut self, offset: Offset) -> Result<Dropped, StorageError> {
        self.shared.check()?;
        let offsets = self.shared.watermarks.load();
        if offset > offsets.log_end {
            return Err(StorageError::OutOfRange {
                requested: offset,
                log_start: offsets.log_start,
                log_end: offsets.log_end,
            });
        }
        if offset <= offsets.log_start {
            return self.dropped(&[]);
        }
        if offset > offsets.flushed {
            self.flusher().flush()?;
        }
        let mut state = self.shared.state.read().clone();
        state.set_log_start(offset);
        self.shared.store_state(state)?;
        self.shared.watermarks.set_log_start(offset);
        let dropped = self.remove_below(offset)?;
        self.dropped(&dropped)
    }

    /// True when the newest entry of a non-empty active segment is older than `policy` keeps.
    fn active_has_expired(&self, now: Timestamp, policy: &RetentionPolicy) -> bool {
        let active = self.active.as_ref().expect("a log that did not stop has an active segment");
        !active.is_empty() && retention::is_expired(&age_of(&active.segment), policy, now)
    }

    /// Takes the segments that lie below `offset` as a whole out of the list. The active one stays.
    fn take_segments_below(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let mut segments = self.shared.segments.write();
        let sealed = segments.len().saturating_sub(1);
        let count = segments[..sealed].partition_point(|segment| segment.end_offset() <= offset);
        segments.drain(..count).collect()
    }

    /// Takes out and removes the segments that lie below `offset` as a whole.
    fn remove_below(&self, offset: Offset) -> Result<Vec<Arc<Segment>>, StorageError> {
        let _layout = self.shared.layout.lock();
        let mut dropped = self.take_segments_below(offset);
        self.remove(&mut dropped)?;
        Ok(dropped)
    }

    /// Removes the files of `dropped`, oldest first, and makes that durable.
    fn remove(&self, dropped: &mut Vec<Arc<Segment>>) -> Result<(), StorageError> {
        if dropped.is_empty() {
            return Ok(());
        }
        let (disk, dir) = (self.shared.disk.as_ref(), &self.shared.dir);
        self.shared.forget_readable(dropped);
        for segment in dropped {
            segment.close();
            // Nobody can come by it any more, so whoever holds it now is all there will ever be.
            let unread = Arc::get_mut(segment).is_some();
            self.shared.remove_segment(&segment.path, unread)?;
            state::remove_if_present(disk, &paths::index(dir, segment.base))?;
        }
        disk.sync_dir(dir).map_err(|error| self.shared.fail(IoFailure::new("sync", dir, error)))?;
        Ok(())
    }

    /// The receipt for `dropped`.
    fn dropped(&self, dropped: &[Arc<Segment>]) -> Result<Dropped, StorageError> {
        Ok(Dropped {
            segment_count: dropped.len(),
            bytes: dropped.iter().map(|segment| segment.end_pos()).sum(),
            log_start: self.shared.watermarks.load().log_start,
        })
    }
}

/// A refused roll as the error of a trim.
pub(super) fn storage_error(error: AppendError) -> StorageError {
    match error {
        AppendError::DiskFull(failure) | AppendError::Io(failure) => StorageError::Io(failure),
        AppendError::Failed(failure) => StorageError::Failed(failure),
        AppendError::BatchTooLarge { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::Fenced { .. }
        | AppendError::UnknownProducer { .. }
        | AppendError::InvalidProducer { .. }
        | AppendError::OffsetsExhausted { .. } => unreachable!("a roll appends no batch"),
    }
}

/// What retention looks at in `segment`.
fn age_of(segment: &Arc<Segment>) -> SegmentAge {
    SegmentAge { bytes: segment.end_pos(), last_append_time: segment.last_append_time() }
}
