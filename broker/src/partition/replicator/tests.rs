use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// A replicator that commits what it is told to.
#[derive(Debug)]
pub(crate) struct Told(Arc<Mutex<Votes>>);

/// The other nodes' end of it.
#[derive(Clone, Debug)]
pub(crate) struct Others(Arc<Mutex<Votes>>);

#[derive(Debug)]
struct Votes {
    committed: Offset,
    role: Role,
    proposed: Option<Proposal>,
}

impl Told {
    /// A leader of which nothing is committed.
    pub(crate) fn leader() -> (Told, Others) {
        let votes = Votes { committed: Offset::ZERO, role: Role::Leader, proposed: None };
        let votes = Arc::new(Mutex::new(votes));
        (Told(votes.clone()), Others(votes))
    }

    pub(super) fn propose(&mut self, proposal: Proposal) {
        self.0.lock().proposed = Some(proposal);
    }

    pub(super) fn committed(&self) -> Offset {
        self.0.lock().committed
    }

    pub(super) fn role(&self) -> Role {
        self.0.lock().role
    }
}

impl Others {
    /// Commits everything below `offset`.
    pub(crate) fn commit(&self, offset: u64) {
        self.0.lock().committed = Offset(offset);
    }

    /// Elects another node, or this one again.
    pub(crate) fn elect(&self, role: Role) {
        self.0.lock().role = role;
    }

    /// The last proposal.
    pub(crate) fn proposed(&self) -> Proposal {
        self.0.lock().proposed.expect("proposed when it was opened")
    }
}

#[test]
fn a_single_node_leads_and_commits_what_it_holds() {
    let mut local = Replicator::local();
    let mut propose = |log_end, held| {
        local.propose(Proposal { log_end: Offset(log_end), held: Offset(held) });
        local.committed().0
    };
    assert_eq!(propose(5, 3), 3);
    assert_eq!(propose(7, 7), 7);
    assert_eq!(propose(9, 4), 7, "the topic asks for more now: nothing is taken back");
    assert_eq!(local.role(), Role::Leader);
}
