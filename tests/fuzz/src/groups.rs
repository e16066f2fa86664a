//! Entries of the groups' log: stored offsets, members, pinned topics. An input is parts; each is one entry.

use riverrun_broker::offset::{image::Groups, record};
use riverrun_proto::grpc::state::v1::MemberImage;

use crate::{Taken, pieces::pieces};

/// Partitions of runs that are counted out; one run of a few bytes may rightly stand for thousands.
const EXPANDED_MAX: u64 = 10_000;
/// Bytes of an entry of a snapshot: so few that every change is one.
const ENTRY_BYTES: usize = 64;

pub(crate) fn run(input: &[u8]) -> Taken {
    let mut groups = Groups::default();
    let mut taken = Taken::Refused;
    for (_, bytes) in pieces(input) {
        if let Err(error) = groups.apply(bytes) {
            assert!(!error.to_string().is_empty());
            break;
        }
        taken = Taken::Accepted;
    }
    for entry_bytes in [ENTRY_BYTES, usize::MAX] {
        let mut again = Groups::default();
        for entry in groups.snapshot(entry_bytes) {
            again.apply(&entry).expect("a snapshot of what was taken in");
        }
        assert_eq!(again, groups, "a snapshot is the state");
    }
    for (_, group) in groups.iter() {
        group.members.values().for_each(check_member);
    }
    taken
}

fn check_member(member: &MemberImage) {
    let Some(assignment) = &member.assignment else { return };
    for runs in [&assignment.held, &assignment.revoking] {
        let count: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        if count > EXPANDED_MAX {
            continue;
        }
        let Ok(partitions) = record::expand(runs) else { continue };
        let again = record::expand(&record::runs(partitions.iter().copied()));
        assert_eq!(again, Ok(partitions), "runs are what they stand for");
    }
}
