//! Makes a log durable: one flush at a time, while appends go on.
//!
//! Order within a flush: data of every segment with unflushed bytes, oldest first; names in the directory;
//! in the first flush after a clean mark, the mark page, which says by then that the log is not clean; the
//! flushed offset; the mark page (not synced). The first error is final: the log stops, the flushed
//! offset stays, and no later flush is tried.

use std::{io, sync::Arc};

use riverrun_proto::Offset;

use super::shared::{Shared, Tail};
use crate::{
    IoFailure, LogFailure, StorageError,
    failpoint::{Place, passes},
    planted::{Bug, planted},
    segment::Segment,
};

/// Flushes one log. Clones share the work; a second caller waits for the first.
#[derive(Clone, Debug)]
pub struct LogFlusher {
    /// The log.
    shared: Arc<Shared>,
}

impl LogFlusher {
    /// A flusher of `shared`.
    pub(crate) fn new(shared: Arc<Shared>) -> LogFlusher {
        LogFlusher { shared }
    }

    /// Makes durable everything that was appended before the call. Returns the flushed offset:
    /// everything below it survives a power loss.
    ///
    /// # Errors
    /// When the disk refused, now or earlier: the log has stopped, and whether anything above the flushed
    /// offset is on disk is unknown.
    pub fn flush(&self) -> Result<Offset, StorageError> {
        let _one_at_a_time = self.shared.flush.lock();
        self.shared.check()?;
        let tail = *self.shared.tail.lock();
        self.flush_to(tail).map_err(|failure| self.shared.fail(failure))?;
        Ok(tail.end_offset)
    }

    /// Flushes, and makes the mark page durable and clean unless an append came in between. To be called
    /// when the log was idle for a moment: a start after that trusts the log.
    ///
    /// # Errors
    /// As [`LogFlusher::flush`].
    pub fn sync_mark(&self) -> Result<(), StorageError> {
        let _one_at_a_time = self.shared.flush.lock();
        self.shared.check()?;
        let tail = *self.shared.tail.lock();
        self.flush_to(tail)
            .and_then(|()| self.write_clean_mark(tail))
            .map_err(|failure| self.shared.fail(failure))?;
        Ok(())
    }

    /// True when something was appended that is not flushed.
    pub fn is_behind(&self) -> bool {
        let offsets = self.shared.watermarks.load();
        offsets.flushed < offsets.log_end
    }

    /// Stops the log when it holds records that are not flushed and somebody removed the file that they are in: they are
    /// gone at the next start, and so would be all that follow. Costs a call that reads nothing; of a log that stopped
    /// earlier or is only read nothing is asked.
    ///
    /// # Errors
    /// When the log stopped now.
    pub fn check_file(&self) -> Result<(), StorageError> {
        if self.shared.failure().is_some() {
            return Ok(());
        }
        let active = |shared: &Shared| shared.segments.read().last().cloned();
        let Some(segment) = active(&self.shared).filter(|_| self.is_behind()) else {
            return Ok(());
        };
        let failed = |error| IoFailure::new("sync", &segment.path, error);
        let Some(file) = segment.writable() else { return Ok(()) };
        let has_name = file.has_name().map_err(failed)?;
        // One that is not active any more may have been dropped for good reason.
        let is_active = active(&self.shared).is_some_and(|last| Arc::ptr_eq(&last, &segment));
        if !has_name && is_active {
            return Err(self.shared.fail(failed(removed())).into());
        }
        Ok(())
    }

    /// Why the log stopped, if it did.
    pub fn failure(&self) -> Option<LogFailure> {
        self.shared.failure().cloned()
    }

    /// Flushes everything below `tail`.
    fn flush_to(&self, tail: Tail) -> Result<(), IoFailure> {
        let shared = &self.shared;
        let mut synced = false;
        for segment in self.unflushed(tail) {
            synced |= flush_segment(&segment, self.must_have_name(&segment, tail))?;
        }
        shared.sync_names()?;
        // Before anybody hears of this flush: a start must not take a clean mark of before it at its word.
        shared.mark.lock().sync_if_clean_may_return()?;
        shared.watermarks.set_flushed(tail.end_offset);
        if synced {
            let mut page = shared.mark.lock();
            passes(Place::BeforeMark);
            shared.write_mark(&mut page, tail.mark(false))?;
            passes(Place::AfterMark);
        }
        Ok(())
    }

    /// True for the tail's segment while it holds records above the flushed offset: no trim and no roll takes
    /// its name away before this flush ends, so whoever did was not the log.
    fn must_have_name(&self, segment: &Segment, tail: Tail) -> bool {
        let flushed = self.shared.watermarks.load().flushed;
        segment.base == tail.segment_base && tail.end_offset > segment.base.max(flushed)
    }

    /// Segments up to the tail's with bytes that are not flushed, oldest first.
    fn unflushed(&self, tail: Tail) -> Vec<Arc<Segment>> {
        let segments = self.shared.segments.read();
        let newest = segments.iter().rev();
        let mut found: Vec<_> = newest
            .skip_while(|segment| segment.base > tail.segment_base)
            .take_while(|segment| segment.flushed_pos() < segment.end_pos())
            .cloned()
            .collect();
        found.reverse();
        found
    }

    /// Writes a clean mark when the tail still is the `flushed` one, and syncs the page.
    fn write_clean_mark(&self, flushed: Tail) -> Result<(), IoFailure> {
        let shared = &self.shared;
        let mut page = shared.mark.lock();
        let clean = {
            let mut tail = shared.tail.lock();
            let idle = !tail.changing && *tail == flushed && !tail.clean;
            tail.clean |= idle;
            idle.then_some(*tail)
        };
        if let Some(tail) = clean {
            shared.write_mark(&mut page, tail.mark(true))?;
            passes(Place::CleanMark);
        }
        page.sync()?;
        drop(page);
        shared.sync_names()
    }
}

/// Flushes one segment. False when nothing was to be done.
fn flush_segment(segment: &Segment, must_have_name: bool) -> Result<bool, IoFailure> {
    let end = segment.end_pos();
    let Some(file) = segment.writable() else { return Ok(false) };
    let failed = |error| IoFailure::new("sync", &segment.path, error);
    let sync = || if planted(Bug::SkipSync) { Ok(()) } else { file.sync() };
    passes(Place::BeforeSync);
    let synced = match sync() {
        Err(_) if planted(Bug::RetrySync) => sync(),
        synced => synced,
    };
    synced.map_err(failed)?;
    passes(Place::AfterSync);
    if must_have_name && !file.has_name().map_err(failed)? {
        return Err(failed(removed()));
    }
    segment.set_flushed_pos(end);
    segment.close();
    Ok(true)
}

fn removed() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the file was removed while the log was open")
}
