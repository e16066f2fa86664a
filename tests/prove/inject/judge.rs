//! What must hold of a topic after everything was healed.

use super::load::Seen;

/// Everything acknowledged or seen lies where it was, and nothing that nobody sent lies anywhere.
pub(super) fn check(topic: &str, seen: &Seen, found: &[(u64, u64)]) -> Result<(), String> {
    for (kind, map) in [("acknowledged", &seen.acked), ("read", &seen.read)] {
        for (offset, value) in map {
            let there = usize::try_from(*offset).ok().and_then(|at| found.get(at));
            if there != Some(&(*offset, *value)) {
                let end = found.len();
                return Err(format!(
                    "`{topic}`: value {value} was {kind} at {offset}, where {there:?} lies now (end {end})"
                ));
            }
        }
    }
    // One sender, one at a time: values rise, each comes at most once.
    if !found.is_sorted_by(|one, other| one.1 < other.1) {
        return Err(format!("`{topic}`: values come twice or in a wrong order: {found:?}"));
    }
    match found.last() {
        Some((_, value)) if *value >= seen.sent => {
            Err(format!("`{topic}`: value {value} was never sent"))
        }
        _ => Ok(()),
    }
}
