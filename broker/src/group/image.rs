//! A group's members as they are stored, and back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use riverrun_proto::grpc::state::v1::{
    MemberAssignment, MemberImage, MemberProfile, MembershipChanged,
};

use super::{
    assignor::Assignor,
    event::Effects,
    member::{Member, Profile, Revoking},
    state::GroupState,
    topics::TopicLookup,
};
use crate::offset::{
    GroupImage, PartitionKey,
    record::{RecordError, expand, runs},
};

/// What must be stored after an event that had `effects`.
pub fn membership(state: &GroupState, effects: &Effects) -> MembershipChanged {
    let mut members: BTreeMap<&Arc<str>, MemberImage> = BTreeMap::new();
    for id in effects.profiles.iter().chain(&effects.changed) {
        if let Some(member) = state.members().get(id) {
            let image = members.entry(id).or_default();
            image.member_id = id.to_string();
            if effects.profiles.contains(id) {
                image.profile = Some(profile_to_wire(&member.profile));
            }
            if effects.changed.contains(id) {
                image.assignment = Some(assignment_to_wire(member));
            }
        }
    }
    MembershipChanged {
        group_epoch: state.epoch(),
        members: members.into_values().collect(),
        removed: effects.removed.iter().map(ToString::to_string).collect(),
        // What follows from the members that are gone is the fold's business.
        once_wanted: Vec::new(),
    }
}

/// The group that `image` remembers.
///
/// # Errors
/// When the image contradicts itself.
pub fn restore(
    image: &GroupImage,
    members_max: usize,
    topics: &dyn TopicLookup,
    now: Duration,
) -> Result<GroupState, RecordError> {
    let assignor = Assignor::from_name(&image.assignor).ok_or_else(|| RecordError::Malformed {
        reason: format!("the assignor `{}` is not known to this broker", image.assignor),
    })?;
    let members =
        image.members.values().map(member).collect::<Result<Vec<Member>, RecordError>>()?;
    let mut state = GroupState::new(assignor, image.epoch, members_max);
    let twice = |key: PartitionKey| RecordError::Malformed {
        reason: format!("two members own partition `{key}`"),
    };
    state.restore(members, topics, now).map_err(twice)?;
    Ok(state)
}

fn profile_to_wire(profile: &Profile) -> MemberProfile {
    MemberProfile {
        instance_id: profile.instance_id.as_deref().map(str::to_owned),
        client_id: profile.client_id.to_string(),
        host: profile.host.to_string(),
        subscription: profile.subscription.iter().map(ToString::to_string).collect(),
        session_timeout_ms: millis(profile.session_timeout),
        rebalance_timeout_ms: millis(profile.rebalance_timeout),
    }
}

fn assignment_to_wire(member: &Member) -> MemberAssignment {
    let plain = |key: &PartitionKey| (*key, 0);
    MemberAssignment {
        epoch: member.epoch,
        previous_epoch: member.previous_epoch,
        away: member.away,
        held: runs(member.held.iter().map(|(key, epoch)| (*key, *epoch))),
        revoking: runs(member.revoking.iter().map(|(key, one)| (*key, one.owner_epoch))),
        reset_pending: runs(member.reset_pending.iter().map(plain)),
        reset_told: runs(member.reset_told.iter().map(plain)),
    }
}

fn member(image: &MemberImage) -> Result<Member, RecordError> {
    let (Some(profile), Some(told)) = (&image.profile, &image.assignment) else {
        let reason = format!("member `{}` has no profile or no assignment", image.member_id);
        return Err(RecordError::Malformed { reason });
    };
    let mut member = Member::new(image.member_id.as_str().into(), profile_of(profile), told.epoch);
    member.previous_epoch = told.previous_epoch;
    member.away = told.away;
    member.held = expand(&told.held)?.into_iter().collect();
    for (key, owner_epoch) in expand(&told.revoking)? {
        member.revoking.insert(key, Revoking { owner_epoch, deadline: Duration::ZERO });
    }
    member.reset_pending = expand(&told.reset_pending)?.into_iter().map(|(key, _)| key).collect();
    member.reset_told = expand(&told.reset_told)?.into_iter().map(|(key, _)| key).collect();
    Ok(member)
}

fn profile_of(profile: &MemberProfile) -> Profile {
    Profile {
        instance_id: profile.instance_id.as_deref().map(Arc::from),
        client_id: profile.client_id.as_str().into(),
        host: profile.host.as_str().into(),
        subscription: Arc::new(
            profile.subscription.iter().map(|name| name.as_str().into()).collect(),
        ),
        session_timeout: Duration::from_millis(profile.session_timeout_ms.into()),
        rebalance_timeout: Duration::from_millis(profile.rebalance_timeout_ms.into()),
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
