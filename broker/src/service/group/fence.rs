//! Refuses fetches of members that were replaced.

use std::sync::Arc;

use super::GroupService;
use crate::{
    group::{coordinator::CoordinatorError, error::GroupError},
    offset::PartitionKey,
    service::fetch::{FenceError, FetchFence, Member},
};

impl FetchFence for GroupService {
    fn check(
        &self,
        member: &Member,
        partitions: &[(&str, u32)],
    ) -> Result<Vec<Option<FenceError>>, FenceError> {
        // A partition that cannot be found answers for itself.
        let known = |(place, (topic, number)): (usize, &(&str, u32))| {
            let id = self.registry.topic(topic).ok()?.id;
            Some((place, PartitionKey::new(id, *number)))
        };
        let (places, keys): (Vec<usize>, Vec<PartitionKey>) =
            partitions.iter().enumerate().filter_map(known).unzip();
        let group: Arc<str> = member.group.as_str().into();
        let who = (member.member_id.as_str(), member.member_epoch);
        let checked = self.groups.check(&group, who, &keys).map_err(|error| match error {
            CoordinatorError::Refused(refusal) => fence(member, ("", 0), refusal),
            CoordinatorError::UnknownGroup { .. }
            | CoordinatorError::NotEmpty { .. }
            | CoordinatorError::Store(_) => {
                FenceError::UnknownGroup { group: member.group.clone() }
            }
        })?;
        let mut refused = vec![None; partitions.len()];
        for (place, verdict) in places.into_iter().zip(checked) {
            match verdict.map_err(|refusal| fence(member, partitions[place], refusal)) {
                Ok(()) => {}
                Err(outsider @ FenceError::UnknownMember { .. }) => return Err(outsider),
                Err(refusal) => refused[place] = Some(refusal),
            }
        }
        Ok(refused)
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
