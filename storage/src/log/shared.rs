//! What the writer, the flusher and the readers of one log share.
//!
//! Locks, each held for a few lines and never two at once except as listed:
//! `flush` (held over a whole flush) > `mark` > `tail`; `layout` (held over a rename or a removal) > `segments`;
//! `segments`, `state` and `readable` stand alone.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use riverrun_proto::Offset;

use super::{LogFlusher, LogReader, LogWriter, OpenedLog, preparer::NextSlot};
use crate::{
    Damage, IoFailure, LogFailure, LogOffsets, LogOptions, RecoveryVerdict, StorageError,
    Timestamp,
    disk::{Disk, DiskFile},
    mark::{Mark, MarkPage},
    offsets::Watermarks,
    planted::{Bug, planted},
    recovery::Recovered,
    recycle::RecyclePool,
    segment::Segment,
    state::{self, LogState},
};

/// Where the next entry goes, as the flusher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Next offset to be given.
    pub(crate) end_offset: Offset,
    /// Base offset of the active segment.
    pub(crate) segment_base: Offset,
    /// Byte position in it.
    pub(crate) pos: u64,
    /// Header crc of the entry before it.
    pub(crate) chain: u32,
    /// True while something is being written that is not published.
    pub(crate) changing: bool,
    /// True when the newest mark on the page is a clean one.
    pub(crate) clean: bool,
}

impl Tail {
    /// The mark that says everything below this tail is durable.
    pub(crate) fn mark(&self, clean: bool) -> Mark {
        Mark {
            clean,
            flushed: self.end_offset,
            segment_base: self.segment_base,
            pos: self.pos,
            chain: self.chain,
        }
    }
}

/// The shared part of one log.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The disk.
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory, relative to the disk's root.
    pub(crate) dir: PathBuf,
    /// The three offsets.
    pub(crate) watermarks: Watermarks,
    /// All segments, oldest first. The last one is active, unless the log is damaged. Changed by the writer.
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    /// The next segment's file, as far as it is made.
    pub(crate) next: Mutex<NextSlot>,
    /// Where dropped segment files go and next ones come from, when the owner of the log has one.
    pub(crate) pool: OnceLock<Arc<RecyclePool>>,
    /// Held while compaction replaces a segment's file and while the writer removes segments.
    pub(crate) layout: Mutex<()>,
    /// Changed by the writer for each entry, and by whoever writes a mark.
    pub(crate) tail: Mutex<Tail>,
    /// Held by the one flush in flight.
    pub(crate) flush: Mutex<()>,
    /// The mark page.
    pub(crate) mark: Mutex<MarkPage>,
    /// Log start and epochs as they stand on disk. Changed by the writer.
    pub(crate) state: RwLock<LogState>,
    /// Counts names made in the directory. Moved by the writer.
    pub(crate) names_made: AtomicU64,
    /// Value of `names_made` that the last directory sync covered. Moved by the flusher.
    names_synced: AtomicU64,
    /// Why the log stopped; set once.
    failure: OnceLock<LogFailure>,
    /// Ranges that recovery found damaged.
    pub(crate) damages: Vec<Damage>,
    /// Segments open for readers only, least recently opened first.
    readable: Mutex<VecDeque<Arc<Segment>>>,
    /// How many of those may be open.
    pub(crate) sealed_files_max: AtomicUsize,
}

impl Shared {
    /// Why the log stopped, if it did.
    pub(crate) fn failure(&self) -> Option<&LogFailure> {
        self.failure.get()
    }

    /// Refuses when the log stopped.
    pub(crate) fn check(&self) -> Result<(), LogFailure> {
        self.failure().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Stops the log for good; the first failure stays the reason.
    pub(crate) fn fail(&self, failure: IoFailure) -> LogFailure {
        let failure = self.failure.get_or_init(|| LogFailure::Io(failure)).clone();
        tracing::error!(dir = %self.dir.display(), %failure, "log stopped");
        failure
    }

    /// The range a reader may look at: a stopped log ends at its flushed offset.
    pub(crate) fn visible(&self) -> LogOffsets {
        let mut offsets = self.watermarks.load();
        if self.failure().is_some() {
            offsets.log_end = offsets.flushed;
        }
        offsets
    }

    /// The segment that holds `offset`, or would.
    pub(crate) fn segment_of(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.base <= offset);
        after.checked_sub(1).map(|at| segments[at].clone())
    }

    /// The file of `segment` for a reader. Files opened for it are bounded in number.
    pub(crate) fn file_of(&self, segment: &Arc<Segment>) -> Result<Arc<dyn DiskFile>, IoFailure> {
        let (file, opened) = segment.file(self.disk.as_ref())?;
        if opened {
            let mut readable = self.readable.lock();
            readable.push_back(segment.clone());
            let excess =
                readable.len().saturating_sub(self.sealed_files_max.load(Ordering::Relaxed));
            let closing: Vec<_> = readable.drain(..excess).collect();
            drop(readable);
            for segment in closing {
                segment.close();
            }
        }
        Ok(file)
    }

    /// Closes every file that is open for readers only.
    pub(crate) fn close_readable(&self) {
        let closing = std::mem::take(&mut *self.readable.lock());
        for segment in closing {
            segment.close();
        }
    }

    /// Forgets that `segments` are open for readers.
    pub(crate) fn forget_readable(&self, segments: &[Arc<Segment>]) {
        let gone = |open: &Arc<Segment>| segments.iter().any(|segment| Arc::ptr_eq(segment, open));
        self.readable.lock().retain(|open| !gone(open));
    }

    /// Takes the file of a dropped segment out of the directory; into the pool when `unread`, which says
    /// that no handle of it is open.
    pub(crate) fn remove_segment(&self, path: &Path, unread: bool) -> Result<(), StorageError> {
        if let Some(pool) = self.pool.get().filter(|_| unread) {
            match pool.retire(path).map_err(|error| IoFailure::new("recycle", path, error)) {
                Ok(_) => return Ok(()),
                Err(failure) if failure.is_disk_full() => {}
                // A failed sync of the directory may have been among it.
                Err(failure) => return Err(self.fail(failure).into()),
            }
        }
        Ok(state::remove_if_present(self.disk.as_ref(), path)?)
    }

    /// Makes the names in the directory durable, when some were made since the last time.
    pub(crate) fn sync_names(&self) -> Result<(), IoFailure> {
        let made = self.names_made.load(Ordering::Acquire);
        if self.names_synced.load(Ordering::Acquire) < made && !planted(Bug::SkipDirsync) {
            self.disk
                .sync_dir(&self.dir)
                .map_err(|error| IoFailure::new("sync", &self.dir, error))?;
            self.names_synced.store(made, Ordering::Release);
        }
        Ok(())
    }

    /// Counts a name made in the directory.
    pub(crate) fn count_name(&self) {
        self.names_made.fetch_add(1, Ordering::AcqRel);
    }

    /// Says that something durable is about to be changed: a clean mark stops being one before anything
    /// else is written, and none is written until `Tail::changing` is reset.
    pub(crate) fn begin_change(&self) -> Result<(), LogFailure> {
        let was = {
            let mut tail = self.tail.lock();
            let was = *tail;
            tail.changing = true;
            tail.clean = false;
            was
        };
        if was.clean {
            let mut page = self.mark.lock();
            let written = self.write_mark(&mut page, was.mark(false));
            written.map_err(|failure| self.fail(failure))?;
        }
        Ok(())
    }

    /// Makes `state` the log's state, durably. A failed sync stops the log.
    pub(crate) fn store_state(&self, state: LogState) -> Result<(), StorageError> {
        self.begin_change()?;
        let stored = self.store_changed_state(state);
        self.tail.lock().changing = false;
        stored
    }

    /// Stores `state` behind a mark that is not clean.
    fn store_changed_state(&self, state: LogState) -> Result<(), StorageError> {
        match state::store(self.disk.as_ref(), &self.dir, &state) {
            Ok(()) => {
                *self.state.write() = state;
                Ok(())
            }
            Err(failure) if failure.is_sync() => Err(self.fail(failure).into()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Writes a mark under the lock that the caller holds.
    pub(crate) fn write_mark(&self, page: &mut MarkPage, mark: Mark) -> Result<(), IoFailure> {
        if page.write(self.disk.as_ref(), mark)? {
            self.count_name();
        }
        Ok(())
    }
}

/// Puts an open log together from what recovery found.
pub(super) fn assemble(
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    (found, now): (Recovered, Timestamp),
) -> OpenedLog {
    // A recovery began its epoch already, and a log that was just made has its first one.
    let is_older = found.report.verdict == RecoveryVerdict::Trusted && !found.report.created;
    let next_epoch = is_older.then(|| state::epoch_of_start(found.state.epoch(), now));
    // Behind the last one that there is a log that was closed goes on in it: one more would not be read as an epoch.
    let next_epoch = next_epoch.filter(|epoch| state::is_reachable(*epoch));
    let failure = OnceLock::new();
    if let Some(damage) = found.damages.first() {
        failure.get_or_init(|| LogFailure::Damaged(damage.clone()));
    } else if found.active.is_none() {
        failure.get_or_init(|| LogFailure::ReadOnly);
    }
    let shared = Arc::new(Shared {
        disk,
        dir,
        watermarks: Watermarks::new(found.offsets),
        segments: RwLock::new(found.segments),
        next: Mutex::new(NextSlot::default()),
        pool: OnceLock::new(),
        layout: Mutex::new(()),
        tail: Mutex::new(found.tail),
        flush: Mutex::new(()),
        mark: Mutex::new(found.mark),
        state: RwLock::new(found.state),
        names_made: AtomicU64::new(0),
        names_synced: AtomicU64::new(0),
        failure,
        damages: found.damages,
        readable: Mutex::new(VecDeque::new()),
        sealed_files_max: AtomicUsize::new(options.sealed_files_max),
    });
    let flusher = LogFlusher::new(shared.clone());
    let reader = LogReader::new(shared.clone());
    let writer = LogWriter::new(shared, options, found.active, (found.producers, next_epoch));
    OpenedLog { writer, flusher, reader, report: found.report }
}
