//! Refuses fetches of members that were replaced.

use std::sync::Arc;

use super::GroupService;
use crate::{
    group::{coordinator::CoordinatorError, error::GroupError},
    offset::PartitionKey,
    service::fetch::{FenceError, FetchFence, Member},
};

impl FetchFence for GroupService {
    fn check(&self, member: &Member, partitions: &[(&str, u32)]) -> Result<(), FenceError> {
        let unknown_group = || FenceError::UnknownGroup { group: member.group.clone() };
        // A partition that cannot be found answers for itself.
        let known: Vec<((&str, u32), PartitionKey)> = partitions
            .iter()
            .filter_map(|(topic, number)| {
                let id = self.registry.topic(topic).ok()?.id;
                Some(((*topic, *number), PartitionKey::new(id, *number)))
            })
            .collect();
        let keys: Vec<PartitionKey> = known.iter().map(|(_, key)| *key).collect();
        let group: Arc<str> = member.group.as_str().into();
        let who = (member.member_id.as_str(), member.member_epoch);
        let checked = self.groups.check(&group, who, &keys).map_err(|error| match error {
            CoordinatorError::Refused(refusal) => fence(member, ("", 0), refusal),
            CoordinatorError::UnknownGroup { .. }
            | CoordinatorError::NotEmpty { .. }
            | CoordinatorError::Store(_) => unknown_group(),
        })?;
        for ((named, _), verdict) in known.iter().zip(checked) {
            verdict.map_err(|refusal| fence(member, *named, refusal))?;
        }
        Ok(())
    }
}

fn fence(member: &Member, (topic, partition): (&str, u32), refusal: GroupError) -> FenceError {
    let (group, member_id) = (member.group.clone(), member.member_id.clone());
    match refusal {
        GroupError::FencedEpoch { epoch, current } => {
            FenceError::Fenced { member_id, current, found: epoch }
        }
        GroupError::StaleEpoch { epoch, current } => {
            FenceError::Stale { member_id, current, found: epoch }
        }
        GroupError::NotOwned => {
            FenceError::NotOwned { member_id, topic: topic.to_owned(), partition }
        }
        GroupError::UnknownMember { .. }
        | GroupError::InstanceIdInUse { .. }
        | GroupError::NotStatic
        | GroupError::NoSubscription
        | GroupError::Full { .. }
        | GroupError::EpochsUsedUp => FenceError::UnknownMember { group, member_id },
    }
}
