//! Who may append to a partition and what of it is committed: the seam that replication goes under.
//!
//! ```text
//! log start <= committed <= log end
//!              |  proposed: in this node's log, may still be taken back  |
//! ```
//!
//! The ledger *proposes* with every append and every flush, and takes *committed* as the high watermark:
//! readers stop there, and who waits for more than the page cache waits for it. The partition refuses
//! appends unless the *role* is leader. Neither is decided anywhere else.
//!
//! Invariants, for every kind of replicator:
//! - What is committed is never taken back, so the committed offset only grows.
//! - A replicator that moves by itself (a vote of another node came, another node was elected) is followed by
//!   [`Partition::settle`](super::Partition::settle): that is how readers, producers and the role learn of it.
//!
//! An enum and not a trait object: it is asked once per append, and one broker may hold partitions of several
//! kinds. It moves no bytes: they are in the log before they are proposed, and whoever replicates reads them there.

use riverrun_proto::Offset;

/// What this node may do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It appends; everybody else follows.
    Leader,
    /// It takes what the leader sends and refuses producers.
    Follower,
}

/// What this node's own log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// Next offset to be given: what is to be committed.
    pub(crate) log_end: Offset,
    /// Everything below is as safe on this node as the topic's durability asks. At most the log end.
    pub(crate) held: Offset,
}

/// Decides what is committed.
#[derive(Debug)]
pub(crate) enum Replicator {
    /// This node alone.
    Local(Local),
    /// As many nodes as a test says.
    #[cfg(test)]
    Told(tests::Told),
}

/// A single node: it leads for ever, and what it holds is committed.
#[derive(Debug, Default)]
pub(crate) struct Local {
    committed: Offset,
}

impl Replicator {
    /// A replicator for a partition that lies on this node only.
    pub(crate) fn local() -> Replicator {
        Replicator::Local(Local::default())
    }

    /// Takes note of what this node's log holds now, and has it committed.
    pub(crate) fn propose(&mut self, proposal: Proposal) {
        match self {
            Replicator::Local(local) => local.propose(proposal),
            #[cfg(test)]
            Replicator::Told(told) => told.propose(proposal),
        }
    }

    /// First offset not committed, as far as this node knows; it may be past what its log holds.
    pub(crate) fn committed(&self) -> Offset {
        match self {
            Replicator::Local(local) => local.committed,
            #[cfg(test)]
            Replicator::Told(told) => told.committed(),
        }
    }

    /// What this node may do now.
    pub(crate) fn role(&self) -> Role {
        match self {
            Replicator::Local(_) => Role::Leader,
            #[cfg(test)]
            Replicator::Told(told) => told.role(),
        }
    }
}

impl Local {
    fn propose(&mut self, proposal: Proposal) {
        // What was shown stays shown when the topic asks for more durability later.
        self.committed = self.committed.max(proposal.held);
    }
}

#[cfg(test)]
pub(crate) mod tests;
