//! A heartbeat as it comes in, and its bounds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use riverrun_proto::{TopicPartition, limits::WAIT_MS_MAX};

use super::{check_count, check_group, out_of_bounds, shown};
use crate::{
    group::{
        assignor::Assignor,
        event::{EPOCH_PAUSE, Heartbeat, ProfileUpdate},
    },
    offset::StartPolicy,
    topic::{error::InvalidField, name::check_topic_name},
};

/// Longest member id and instance id, in bytes.
const ID_BYTES_MAX: usize = 249;
/// Longest client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 1024;
/// Most topics of one subscription.
const SUBSCRIPTION_MAX: usize = 1_000;
/// Most partitions in `owned`.
const OWNED_MAX: usize = 100_000;

/// A sign of life.
#[derive(Clone, Debug, Default)]
pub struct HeartbeatRequest {
    /// Name of the group.
    pub group: String,
    /// Who sends it.
    pub member_id: String,
    /// Its epoch, or 0, -1, -2 to join, leave, leave for a while.
    pub member_epoch: i32,
    /// Static name.
    pub instance_id: Option<String>,
    /// Free text shown to operators.
    pub client_id: String,
    /// Address it comes from.
    pub host: String,
    /// Topics it wants.
    pub subscription: Option<Vec<String>>,
    /// Partitions it holds.
    pub owned: Option<Vec<TopicPartition>>,
    /// Time to give up partitions in; 0 leaves it.
    pub rebalance_timeout_ms: u32,
    /// Silence after which it is removed; 0 leaves it.
    pub session_timeout_ms: u32,
    /// How long the answer may be held.
    pub max_wait_ms: u32,
    /// Where a new group begins.
    pub start: StartPolicy,
    /// Name of a new group's assignor; empty for the default.
    pub assignor: String,
}

impl HeartbeatRequest {
    /// The assignor of a new group.
    pub(super) fn assignor(&self) -> Result<Assignor, InvalidField> {
        Assignor::from_name(&self.assignor)
            .ok_or_else(|| out_of_bounds("assignor", "`uniform` or `range`", shown(&self.assignor)))
    }

    /// How long the answer may be held.
    pub(super) fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms.into())
    }

    /// The heartbeat, if every field is in its bounds.
    pub(crate) fn check(self) -> Result<(Arc<str>, Heartbeat), InvalidField> {
        let group = check_group(&self.group)?;
        check_id("member_id", &self.member_id)?;
        if let Some(instance_id) = &self.instance_id {
            check_id("instance_id", instance_id)?;
        }
        if self.client_id.len() > CLIENT_ID_BYTES_MAX {
            let expected = format!("at most {CLIENT_ID_BYTES_MAX} bytes");
            let found = format!("{} bytes", self.client_id.len());
            return Err(out_of_bounds("client_id", &expected, found));
        }
        if self.member_epoch < EPOCH_PAUSE {
            let found = self.member_epoch.to_string();
            return Err(out_of_bounds("member_epoch", "at least -2", found));
        }
        if self.max_wait_ms > WAIT_MS_MAX {
            let expected = format!("at most {WAIT_MS_MAX}");
            return Err(out_of_bounds("max_wait_ms", &expected, self.max_wait_ms.to_string()));
        }
        let rebalance = ("rebalance_timeout_ms", self.rebalance_timeout_ms, 3_600_000);
        let session = ("session_timeout_ms", self.session_timeout_ms, 600_000);
        let profile = ProfileUpdate {
            instance_id: self.instance_id.as_deref().map(Arc::from),
            client_id: self.client_id.into(),
            host: self.host.into(),
            subscription: self.subscription.map(check_subscription).transpose()?,
            session_timeout: check_timeout(session)?,
            rebalance_timeout: check_timeout(rebalance)?,
        };
        check_count("owned", self.owned.as_ref().map_or(0, Vec::len), OWNED_MAX)?;
        let (member_id, epoch) = (self.member_id.into(), self.member_epoch);
        let owned = self.owned.map(|owned| owned.into_iter().collect());
        Ok((group, Heartbeat { member_id, epoch, owned, profile }))
    }
}

/// Checks a name that a member gives itself.
pub(in crate::service) fn check_id(field: &'static str, id: &str) -> Result<(), InvalidField> {
    if (1..=ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    let expected = format!("1 to {ID_BYTES_MAX} bytes without control characters");
    Err(out_of_bounds(field, &expected, shown(id)))
}

fn check_subscription(topics: Vec<String>) -> Result<BTreeSet<Arc<str>>, InvalidField> {
    check_count("subscription", topics.len(), SUBSCRIPTION_MAX)?;
    for topic in &topics {
        check_topic_name(topic).map_err(|_| {
            out_of_bounds("subscription", "names that topics may have", shown(topic))
        })?;
    }
    Ok(topics.into_iter().map(Arc::from).collect())
}

fn check_timeout(
    (field, ms, max): (&'static str, u32, u32),
) -> Result<Option<Duration>, InvalidField> {
    match ms {
        0 => Ok(None),
        ms if (1_000..=max).contains(&ms) => Ok(Some(Duration::from_millis(ms.into()))),
        ms => Err(out_of_bounds(field, &format!("0 or 1,000 to {max}"), ms.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(field: &str, change: impl Fn(&mut HeartbeatRequest)) {
        let mut request = HeartbeatRequest {
            group: "g".into(),
            member_id: "m".into(),
            subscription: Some(vec!["t".into()]),
            ..HeartbeatRequest::default()
        };
        assert!(request.clone().check().is_ok());
        change(&mut request);
        assert_eq!(request.check().unwrap_err().field, field);
    }

    #[test]
    fn every_field_has_its_bounds() {
        refuses("group", |request| request.group = "a b".into());
        refuses("group", |request| request.group = "g".repeat(250));
        refuses("member_id", |request| request.member_id.clear());
        refuses("member_id", |request| request.member_id = "m".repeat(250));
        refuses("member_id", |request| request.member_id = "a\nb".into());
        refuses("instance_id", |request| request.instance_id = Some(String::new()));
        refuses("client_id", |request| request.client_id = "c".repeat(1025));
        refuses("member_epoch", |request| request.member_epoch = -3);
        refuses("max_wait_ms", |request| request.max_wait_ms = 60_001);
        refuses("session_timeout_ms", |request| request.session_timeout_ms = 999);
        refuses("session_timeout_ms", |request| request.session_timeout_ms = 600_001);
        refuses("rebalance_timeout_ms", |request| request.rebalance_timeout_ms = 3_600_001);
        refuses("subscription", |request| request.subscription = Some(vec!["a/b".into()]));
        refuses("subscription", |request| request.subscription = Some(vec!["t".into(); 1_001]));
        refuses("owned", |request| {
            request.owned = Some(vec![TopicPartition::new("t", 0); 100_001]);
        });
        let request = HeartbeatRequest { assignor: "fair".into(), ..HeartbeatRequest::default() };
        assert_eq!(request.assignor().unwrap_err().field, "assignor");
    }
}
