//! What has been appended, what is flushed, what is visible, and who waits for which: the decisions of
//! one partition's writer, without threads, clocks or files.
//!
//! ```text
//! log start <= flushed <= log end          high watermark <= log end
//!              |  appended, maybe lost  |
//! ```
//!
//! Invariants:
//! - With durability `fsync` the high watermark is the flushed offset, otherwise the log end. It never
//!   goes back, also not when the durability is changed.
//! - One flush is in flight at most; appends go on meanwhile and form the next group.
//! - A ticket resolves once: at its append when the page cache is enough, else when the flushed offset
//!   reached its end, else when the partition failed.
//! - After a failure nothing is resolved as flushed any more.

use std::{collections::VecDeque, mem};

use riverrun_proto::Offset;

use super::Durability;

/// At so many bytes since the last flush began one is asked for, whatever the durability: what a start after
/// a crash has to copy, because nothing says that it is on disk, stays bounded.
const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;

/// The ledger of one partition. `T` stands for whoever waits.
#[derive(Debug)]
pub(crate) struct Ledger<T> {
    durability: Durability,
    /// Next offset to be given.
    log_end: Offset,
    /// Everything below is on disk.
    flushed: Offset,
    /// Everything below is visible.
    high_watermark: Offset,
    /// Bytes appended since the start.
    bytes_appended: u64,
    /// Bytes of them that are visible.
    bytes_visible: u64,
    /// `bytes_appended` when the last flush began.
    bytes_flush_begun: u64,
    /// Appends that something still depends on, in the order they were made.
    pending: VecDeque<Pending<T>>,
    /// A flush is on its way.
    flushing: bool,
    /// Somebody or something asked for a flush since the last one began.
    flush_wanted: bool,
    failed: bool,
}

#[derive(Debug)]
struct Pending<T> {
    end_offset: Offset,
    /// `bytes_appended` after this append.
    bytes_appended: u64,
    ticket: Option<T>,
}

/// One append that was made.
#[derive(Debug)]
pub(crate) struct AppendFacts {
    /// First offset past the batch.
    pub(crate) end_offset: Offset,
    /// Bytes it added to the log; 0 for a duplicate.
    pub(crate) bytes: u64,
    /// The ticket waits for the flush.
    pub(crate) needs_flush: bool,
}

/// What the world may see now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    /// First offset not visible.
    pub(crate) high_watermark: Offset,
    /// Bytes that became visible since the start.
    pub(crate) bytes: u64,
}

impl<T> Ledger<T> {
    /// The ledger of a log that was just opened; all of it may be seen.
    pub(crate) fn new(durability: Durability, flushed: Offset, log_end: Offset) -> Ledger<T> {
        assert!(flushed <= log_end, "flushed {flushed} past log end {log_end}");
        Ledger {
            durability,
            log_end,
            flushed,
            high_watermark: if durability == Durability::Fsync { flushed } else { log_end },
            bytes_appended: 0,
            bytes_visible: 0,
            bytes_flush_begun: 0,
            pending: VecDeque::new(),
            flushing: false,
            flush_wanted: false,
            failed: false,
        }
    }

    /// The durability in force.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Everything below is on disk.
    pub(crate) fn flushed(&self) -> Offset {
        self.flushed
    }

    /// True when bytes were appended that are not on disk.
    pub(crate) fn is_dirty(&self) -> bool {
        self.flushed < self.log_end
    }

    /// True once the partition failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// What the world may see now.
    pub(crate) fn visible(&self) -> Visible {
        Visible { high_watermark: self.high_watermark, bytes: self.bytes_visible }
    }

    /// Enters an append. Returns the ticket when it may resolve at once.
    pub(crate) fn appended(&mut self, facts: AppendFacts, ticket: Option<T>) -> Option<T> {
        assert!(!self.failed, "append to a failed partition");
        self.log_end = self.log_end.max(facts.end_offset);
        self.bytes_appended += facts.bytes;
        let waits = facts.needs_flush && facts.end_offset > self.flushed;
        let (held, resolved) = if waits { (ticket, None) } else { (None, ticket) };
        let settled = facts.end_offset <= self.flushed;
        if settled {
            // A flush that was on its way took this append along and ended before it was entered here.
            self.bytes_visible = self.bytes_visible.max(self.bytes_appended);
        }
        let hidden = self.durability == Durability::Fsync && facts.bytes > 0 && !settled;
        if waits || hidden {
            let (end_offset, bytes_appended) = (facts.end_offset, self.bytes_appended);
            self.pending.push_back(Pending { end_offset, bytes_appended, ticket: held });
            self.flush_wanted = true;
        }
        self.flush_wanted |= self.bytes_appended - self.bytes_flush_begun >= UNFLUSHED_BYTES_MAX;
        self.show();
        resolved
    }

    /// Asks for a flush of what was appended so far.
    pub(crate) fn want_flush(&mut self) {
        self.flush_wanted |= self.is_dirty();
    }

    /// True, once, when a flush is to be started now; its end comes by [`Ledger::flushed_to`] or
    /// [`Ledger::fail`].
    pub(crate) fn begin_flush(&mut self) -> bool {
        let begin = self.flush_wanted && !self.flushing && !self.failed;
        if begin {
            self.flush_wanted = false;
            self.flushing = true;
            self.bytes_flush_begun = self.bytes_appended;
        }
        begin
    }

    /// Enters the end of a flush: everything below `flushed` is on disk. Returns the tickets it resolves.
    pub(crate) fn flushed_to(&mut self, flushed: Offset) -> Vec<T> {
        self.flushing = false;
        if self.failed {
            return Vec::new();
        }
        self.flushed = self.flushed.max(flushed);
        self.log_end = self.log_end.max(flushed);
        let mut resolved = Vec::new();
        while let Some(pending) = self.pending.pop_front_if(|next| next.end_offset <= flushed) {
            self.bytes_visible = self.bytes_visible.max(pending.bytes_appended);
            resolved.extend(pending.ticket);
        }
        self.flush_wanted = !self.pending.is_empty() || (self.flush_wanted && self.is_dirty());
        self.show();
        resolved
    }

    /// Enters a failure. Returns the tickets that will never resolve.
    pub(crate) fn fail(&mut self) -> Vec<T> {
        self.failed = true;
        self.flushing = false;
        mem::take(&mut self.pending).into_iter().filter_map(|pending| pending.ticket).collect()
    }

    /// Changes the durability.
    pub(crate) fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        if durability == Durability::Fsync {
            self.want_flush();
        }
        self.show();
    }

    /// Moves the high watermark to where the durability allows it.
    fn show(&mut self) {
        if self.failed {
            return;
        }
        if self.durability == Durability::Fsync {
            self.high_watermark = self.high_watermark.max(self.flushed);
        } else {
            self.high_watermark = self.log_end;
            self.bytes_visible = self.bytes_appended;
        }
    }
}

#[cfg(test)]
mod tests;
