//! Ids of the logs that a broker keeps for itself. They are given by hand and never change.
//!
//! The rest of storage does not tell them from other logs: what they hold is their owners' business.

use riverrun_proto::TopicId;
use uuid::Uuid;

/// Topics and their settings.
pub const METADATA_LOG: TopicId = TopicId(Uuid::from_u128(1));
/// Push subscriptions.
pub const SUBSCRIPTIONS_LOG: TopicId = TopicId(Uuid::from_u128(0x200));
/// The first shard's log of groups.
const GROUPS_LOG_BASE: u128 = 0x100;
/// Ids of topics are random; below this lie those that are given by hand.
const OWN_IDS_END: u128 = 1 << 16;

/// Groups and their stored offsets, by shard.
pub const fn groups_log(shard: u8) -> TopicId {
    TopicId(Uuid::from_u128(GROUPS_LOG_BASE + shard as u128))
}

/// What the log under `id` holds, when it is one of the broker's own.
pub fn name_of(id: TopicId) -> Option<&'static str> {
    if id == METADATA_LOG {
        Some("topics and their settings")
    } else if id == SUBSCRIPTIONS_LOG {
        Some("push subscriptions")
    } else if (0..=u8::MAX).any(|shard| id == groups_log(shard)) {
        Some("groups and their stored offsets")
    } else {
        (id.0.as_u128() < OWN_IDS_END).then_some("something of the broker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_logs_have_names_and_topics_have_none() {
        let named = [METADATA_LOG, SUBSCRIPTIONS_LOG, groups_log(0), groups_log(u8::MAX)];
        let mut names: Vec<_> = named.iter().map(|id| name_of(*id).unwrap()).collect();
        names.dedup();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(name_of(TopicId(Uuid::from_u128(0x2ff))), Some("something of the broker"));
        assert_eq!(name_of(TopicId(Uuid::new_v4())), None);
    }
}
