//! What is in sessions' hands, by delivery, and until when.
//!
//! A delivery is one grant. Records of it whose lease is extended move to another grant of the same delivery, which
//! keeps the first one alive.
//!
//! Invariants: a grant is here while records or later grants of its delivery are; every grant with records of its own has
//! its deadline in `deadlines`.

use std::{collections::BTreeSet, time::Duration};

use super::{entry::NONE, run::Run};

/// Records handed out together under one lease.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// Slot of the session.
    pub(super) session: u32,
    /// Index of the lane.
    pub(super) lane: u32,
    /// Number of the delivery.
    pub(super) seq: u64,
    /// Epoch of the session then.
    pub(super) epoch: u64,
    /// When it was handed out.
    pub(super) granted_at: Duration,
    /// End of the lease.
    pub(super) deadline: Duration,
    /// Its records in hands and the grants split off it.
    pub(super) left: u32,
    /// The grant it was split off, or [`NONE`].
    parent: u32,
    /// Some of its records were split off.
    pub(super) split: bool,
    /// The records handed out.
    pub(super) runs: Vec<Run>,
}

/// All grants of a subscription.
#[derive(Debug, Default)]
pub(super) struct Grants {
    slab: Vec<Option<Grant>>,
    free: Vec<u32>,
    deadlines: BTreeSet<(Duration, u32)>,
}

impl Grants {
    /// Adds a grant without records.
    pub(super) fn add(&mut self, grant: Grant) -> u32 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slab.push(None);
                u32::try_from(self.slab.len() - 1).expect("open records are bounded")
            }
        };
        self.deadlines.insert((grant.deadline, index));
        self.slab[index as usize] = Some(grant);
        index
    }

    pub(super) fn get(&self, index: u32) -> &Grant {
        self.slab[index as usize].as_ref().expect("a grant in use is here")
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Grant {
        self.slab[index as usize].as_mut().expect("a grant in use is here")
    }

    /// The first grant of the delivery that `index` belongs to.
    pub(super) fn root(&self, index: u32) -> u32 {
        match self.get(index).parent {
            NONE => index,
            parent => parent,
        }
    }

    /// Splits off `root` a grant for records whose lease ends at `deadline`.
    pub(super) fn split(&mut self, root: u32, deadline: Duration) -> u32 {
        let grant = self.get_mut(root);
        grant.left += 1;
        grant.split = true;
        let child = Grant { deadline, left: 0, parent: root, runs: Vec::new(), ..grant.clone() };
        self.add(child)
    }

    /// Moves the end of the lease.
    pub(super) fn extend(&mut self, index: u32, deadline: Duration) {
        let old = std::mem::replace(&mut self.get_mut(index).deadline, deadline);
        self.deadlines.remove(&(old, index));
        self.deadlines.insert((deadline, index));
    }

    /// `count` records left the grant. Returns the first grant of the delivery when nothing of that is left any more.
    pub(super) fn leave(&mut self, index: u32, count: u32) -> Option<Grant> {
        let grant = self.get_mut(index);
        grant.left -= count;
        if grant.left > 0 {
            return None;
        }
        let grant = self.slab[index as usize].take().expect("a grant in use is here");
        self.deadlines.remove(&(grant.deadline, index));
        self.free.push(index);
        match grant.parent {
            NONE => Some(grant),
            parent => self.leave(parent, 1),
        }
    }

    /// The first end of a lease.
    pub(super) fn first_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a grant whose lease has ended out of the deadlines; it stays until its records left it.
    pub(super) fn pop_expired(&mut self, now: Duration) -> Option<u32> {
        let (deadline, index) = *self.deadlines.first()?;
        (deadline <= now).then(|| {
            self.deadlines.remove(&(deadline, index));
            index
        })
    }
}

impl Grant {
    /// A first grant without records.
    pub(super) fn new(
        session: (u32, u64),
        lane: u32,
        seq: u64,
        lease: (Duration, Duration),
    ) -> Grant {
        let ((session, epoch), (granted_at, deadline)) = (session, lease);
        Grant {
            session,
            lane,
            seq,
            epoch,
            granted_at,
            deadline,
            left: 0,
            parent: NONE,
            split: false,
            runs: Vec::new(),
        }
    }
}
