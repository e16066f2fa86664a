//! What has been appended, what is flushed, what is visible, and who waits for which: the decisions of
//! one partition's writer, without threads, clocks or files.
//!
//! ```text
//! log start <= flushed <= log end          high watermark <= log end
//!              |  appended, maybe lost  |
//! ```
//!
//! Invariants:
//! - With durability `fsync` this node *holds* what is flushed, otherwise what is appended. What it holds goes
//!   to the [`Replicator`], and what that says is committed is the high watermark. It never goes back, also
//!   not when the durability is changed.
//! - One flush is in flight at most; appends go on meanwhile and form the next group.
//! - A ticket resolves once: at its append when the page cache is enough, else when its batch is committed and
//!   flushed as far as was asked, else when the partition failed or lost its role.
//! - After a failure nothing is proposed and nothing is resolved any more.

use std::{collections::VecDeque, mem};

use riverrun_proto::Offset;
use riverrun_storage::planted::{Bug, planted};

use super::{
    Durability,
    replicator::{Proposal, Replicator, Role},
};

/// At so many bytes since the last flush began one is asked for, whatever the durability: what a start after
/// a crash has to copy, because nothing says that it is on disk, stays bounded.
const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;

/// The ledger of one partition. `T` stands for whoever waits.
#[derive(Debug)]
pub(crate) struct Ledger<T> {
    durability: Durability,
    /// Decides what is committed.
    replicator: Replicator,
    /// Next offset to be given.
    log_end: Offset,
    /// Everything below is on disk.
    flushed: Offset,
    /// Everything below is to be flushed without anybody asking again.
    flush_target: Offset,
    /// Bytes appended since the start.
    bytes_appended: u64,
    /// Bytes of them that are visible.
    bytes_visible: u64,
    /// `bytes_appended` when the last flush began.
    bytes_flush_begun: u64,
    /// Appends that are not visible, in the order they were made.
    hidden: VecDeque<Hidden>,
    /// Who waits, in the order of the appends.
    pending: VecDeque<Pending<T>>,
    /// A flush is on its way.
    flushing: bool,
    /// Somebody or something asked for a flush since the last one began.
    flush_wanted: bool,
    failed: bool,
}

#[derive(Debug)]
struct Hidden {
    end_offset: Offset,
    /// `bytes_appended` after this append.
    bytes_appended: u64,
}

#[derive(Debug)]
struct Pending<T> {
    end_offset: Offset,
    needs: Needs,
    ticket: T,
}

/// What a ticket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing but the append.
    Append,
    /// That it is committed.
    Commit,
    /// That it is committed, and on the disk of this node.
    CommitAndFlush,
}

/// One append that was made.
#[derive(Debug)]
pub(crate) struct AppendFacts {
    /// First offset past the batch.
    pub(crate) end_offset: Offset,
    /// Bytes it added to the log; 0 for a duplicate.
    pub(crate) bytes: u64,
    /// What the ticket waits for.
    pub(crate) needs: Needs,
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
    /// The ledger of a log that was just opened, flushed up to the first and ending at the second of `ends`.
    pub(crate) fn new(
        durability: Durability,
        (flushed, log_end): (Offset, Offset),
        replicator: Replicator,
    ) -> Ledger<T> {
        assert!(flushed <= log_end, "flushed {flushed} past log end {log_end}");
        let mut ledger = Ledger {
            durability,
            replicator,
            log_end,
            flushed,
            flush_target: flushed,
            bytes_appended: 0,
            bytes_visible: 0,
            bytes_flush_begun: 0,
            hidden: VecDeque::new(),
            pending: VecDeque::new(),
            flushing: false,
            flush_wanted: false,
            failed: false,
        };
        ledger.propose();
        ledger
    }

    /// The durability in force.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// What this node may do with the partition.
    pub(crate) fn role(&self) -> Role {
        self.replicator.role()
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
        Visible { high_watermark: self.committed(), bytes: self.bytes_visible }
    }

    /// Enters an append. Returns the ticket when it may resolve at once.
    pub(crate) fn appended(&mut self, facts: AppendFacts, ticket: Option<T>) -> Option<T> {
        assert!(!self.failed, "append to a failed partition");
        let AppendFacts { end_offset, bytes, needs } = facts;
        self.log_end = self.log_end.max(end_offset);
        if bytes > 0 {
            self.bytes_appended += bytes;
            let bytes_appended = self.bytes_appended;
            self.hidden.push_back(Hidden { end_offset, bytes_appended });
        }
        // Not so when a flush that was on its way took this append along and ended before it was entered here.
        let unflushed = end_offset > self.flushed;
        let shown_by_flush = self.durability == Durability::Fsync && bytes > 0;
        if unflushed && (needs == Needs::CommitAndFlush || shown_by_flush) {
            self.flush_target = self.flush_target.max(end_offset);
            self.flush_wanted = true;
        }
        self.flush_wanted |= self.bytes_appended - self.bytes_flush_begun >= UNFLUSHED_BYTES_MAX;
        self.propose();
        if self.is_met(end_offset, needs) {
            return ticket;
        }
        let pending = ticket.map(|ticket| Pending { end_offset, needs, ticket });
        self.pending.extend(pending);
        None
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
        let asked_again = self.flush_wanted && self.is_dirty();
        self.flush_wanted = self.flush_target > self.flushed || asked_again;
        self.settle()
    }

    /// Changes the durability. Returns the tickets that resolve by it.
    pub(crate) fn set_durability(&mut self, durability: Durability) -> Vec<T> {
        self.durability = durability;
        if durability == Durability::Fsync {
            self.want_flush();
        }
        self.settle()
    }

    /// Proposes what this node holds and looks what is committed. Returns the tickets that resolve by it.
    pub(crate) fn settle(&mut self) -> Vec<T> {
        let mut resolved = Vec::new();
        if self.failed {
            return resolved;
        }
        self.propose();
        while self.pending.front().is_some_and(|next| self.is_met(next.end_offset, next.needs)) {
            resolved.extend(self.pending.pop_front().map(|pending| pending.ticket));
        }
        resolved
    }

    /// Enters a failure. Returns the tickets that will never resolve.
    pub(crate) fn fail(&mut self) -> Vec<T> {
        self.failed = true;
        self.flushing = false;
        self.give_up()
    }

    /// Tickets that will never resolve because this node does not lead any more: nothing here can tell what
    /// becomes of their batches.
    pub(crate) fn orphaned(&mut self) -> Vec<T> {
        match self.role() {
            Role::Leader => Vec::new(),
            Role::Follower => self.give_up(),
        }
    }

    fn give_up(&mut self) -> Vec<T> {
        mem::take(&mut self.pending).into_iter().map(|pending| pending.ticket).collect()
    }

    /// First offset that is not committed, or not in this log.
    fn committed(&self) -> Offset {
        self.replicator.committed().min(self.log_end)
    }

    fn is_met(&self, end_offset: Offset, needs: Needs) -> bool {
        match needs {
            Needs::Append => true,
            Needs::Commit => end_offset <= self.committed(),
            Needs::CommitAndFlush if planted(Bug::AckBeforeSync) => true,
            Needs::CommitAndFlush => end_offset <= self.committed().min(self.flushed),
        }
    }

    /// Proposes what this node holds, and counts what became visible.
    fn propose(&mut self) {
        let log_end = self.log_end;
        let hides = self.durability == Durability::Fsync && !planted(Bug::AckBeforeSync);
        let held = if hides { self.flushed } else { log_end };
        self.replicator.propose(Proposal { log_end, held });
        let committed = self.committed();
        while let Some(shown) = self.hidden.pop_front_if(|next| next.end_offset <= committed) {
            self.bytes_visible = shown.bytes_appended;
        }
    }
}

#[cfg(test)]
mod tests;
