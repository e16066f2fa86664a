//! Ranges of each topic over the sorted members: co-partitioned topics land on the same member.

use super::{Candidate, Input, Target};
use crate::offset::PartitionKey;

pub(super) fn assign(input: &Input<'_>) -> Target {
    let mut ranked: Vec<&Candidate> = input.members.iter().collect();
    ranked.sort_by(|a, b| (&a.rank, &a.id).cmp(&(&b.rank, &b.id)));
    let mut target = Target::new();
    for (name, topic) in input.topics {
        let readers: Vec<&Candidate> =
            ranked.iter().copied().filter(|member| member.subscription.contains(name)).collect();
        let mut first = 0;
        for (place, reader) in readers.iter().enumerate() {
            let end = range_end(topic.partitions, readers.len(), place);
            for partition in first..end {
                target.insert(PartitionKey::new(topic.id, partition), reader.id.clone());
            }
            first = end;
        }
    }
    target
}

/// End of the range of reader `place` of `readers`: the first `partitions % readers` take one more.
fn range_end(partitions: u32, readers: usize, place: usize) -> u32 {
    let readers = u32::try_from(readers).expect("members are bounded");
    let count = u32::try_from(place).expect("members are bounded") + 1;
    partitions / readers * count + count.min(partitions % readers)
}
