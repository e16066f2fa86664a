//! The watermarks of one log and the only code that moves them.
//!
//! Invariants, asserted on every move, in release too:
//! - log start <= flushed <= log end;
//! - each of the three only rises.
//!
//! The log end is published after the bytes below it (Release) and loaded before them (Acquire): who
//! sees an offset sees its bytes. All ranges are half-open.

use riverrun_proto::Offset;

use super::atomics::{AtomicU64, Ordering};

/// The range of a log at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOffsets {
    /// First offset kept.
    pub log_start: Offset,
    /// Everything below is on disk.
    pub flushed: Offset,
    /// Next offset to be given.
    pub log_end: Offset,
}

/// The watermarks as their owner and readers share them.
#[derive(Debug)]
pub(crate) struct Watermarks {
    /// First offset kept. Moved by the writer.
    log_start: AtomicU64,
    /// Everything below is on disk. Moved by the flusher, one at a time.
    flushed: AtomicU64,
    /// Next offset to be given. Moved by the writer.
    log_end: AtomicU64,
}

impl Watermarks {
    /// Watermarks that stand at `offsets`.
    pub(crate) fn new(offsets: LogOffsets) -> Watermarks {
        assert!(offsets.log_start <= offsets.flushed && offsets.flushed <= offsets.log_end);
        Watermarks {
            log_start: AtomicU64::new(offsets.log_start.0),
            flushed: AtomicU64::new(offsets.flushed.0),
            log_end: AtomicU64::new(offsets.log_end.0),
        }
    }

    /// Where they stand. Loaded from low to high, so that their order holds for whoever looks.
    pub(crate) fn load(&self) -> LogOffsets {
        let log_start = Offset(self.log_start.load(Ordering::Acquire));
        let flushed = Offset(self.flushed.load(Ordering::Acquire));
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        LogOffsets { log_start, flushed, log_end }
    }

    /// Moves the log start up to `to`.
    pub(crate) fn set_log_start(&self, to: Offset) {
        self.set(&self.log_start, to);
    }

    /// Moves the flushed offset up to `to`.
    pub(crate) fn set_flushed(&self, to: Offset) {
        self.set(&self.flushed, to);
    }

    /// Publishes `to` as the log end; every byte below it is written.
    pub(crate) fn set_log_end(&self, to: Offset) {
        self.set(&self.log_end, to);
    }

    /// The one setter.
    fn set(&self, mark: &AtomicU64, to: Offset) {
        let from = mark.swap(to.0, Ordering::AcqRel);
        let now = self.load();
        let ordered = now.log_start <= now.flushed && now.flushed <= now.log_end;
        assert!(from <= to.0 && ordered, "watermark moved from {from} to {to}: {now:?}");
    }
}
