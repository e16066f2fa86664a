//! Who shall read what: pure, deterministic, the same input gives the same answer.
//!
//! - `uniform` (default): balanced over all topics and sticky. Members with the same subscription
//!   differ by at most one partition, and nothing moves that need not.
//! - `range`: partition `n` of every topic tends to the same member, by ranges over the sorted members.
//!   Not sticky: it follows the order of members (instance id, else member id).
//!
//! Invariants: every partition of a topic that somebody subscribes to is assigned to exactly one member,
//! and only to one that subscribes to the topic.

mod range;
mod uniform;

use std::collections::BTreeMap;

use super::topics::{MemberId, Subscription, TopicView};
use crate::offset::PartitionKey;

/// The rule by which partitions are given out; fixed when a group is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// Balanced and sticky.
    #[default]
    Uniform,
    /// Ranges of each topic over the sorted members.
    Range,
}

impl Assignor {
    /// The name on the wire and on disk.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor called `name`; empty means the default.
    pub fn from_name(name: &str) -> Option<Assignor> {
        match name {
            "" | "uniform" => Some(Assignor::Uniform),
            "range" => Some(Assignor::Range),
            _ => None,
        }
    }

    /// Gives every partition to a member.
    pub fn assign(self, input: &Input<'_>) -> Target {
        match self {
            Assignor::Uniform => uniform::assign(input),
            Assignor::Range => range::assign(input),
        }
    }
}

/// One member to give partitions to.
#[derive(Debug)]
pub struct Candidate {
    /// Its id.
    pub id: MemberId,
    /// What the order of members goes by: the instance id, else the member id.
    pub rank: MemberId,
    /// Topics it wants.
    pub subscription: Subscription,
}

/// Everything an assignor looks at.
#[derive(Debug)]
pub struct Input<'a> {
    /// Members, sorted by id.
    pub members: &'a [Candidate],
    /// Topics that exist, by name.
    pub topics: &'a BTreeMap<std::sync::Arc<str>, TopicView>,
    /// Who shall have each partition now; entries of unknown members or partitions are ignored.
    pub current: &'a Target,
}

/// Who shall have each partition.
pub type Target = BTreeMap<PartitionKey, MemberId>;

#[cfg(test)]
mod tests;
