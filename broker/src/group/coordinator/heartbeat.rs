//! Heartbeats: answered once what they changed is durable, held while there is nothing to tell.

use std::{sync::Arc, time::Duration};

use super::{
    Answer, Coordinator, CoordinatorError, MEMBERSHIP_BYTES,
    live::{Group, Held},
};
use crate::group::{
    error::GroupError,
    event::{EPOCH_JOIN, EPOCH_LEAVE, Heartbeat},
};

impl Coordinator {
    /// Takes a sign of life, and holds the answer up to `max_wait` until there is something to tell.
    ///
    /// # Errors
    /// The refusal, or that it could not be stored.
    pub async fn heartbeat(
        &self,
        name: &Arc<str>,
        heartbeat: &Heartbeat,
        max_wait: Duration,
    ) -> Result<Answer, CoordinatorError> {
        let Some(group) = self.find(name) else { return not_there(name, heartbeat) };
        let permit = self.shared.store.reserve(MEMBERSHIP_BYTES).await?;
        let (answer, sequence, held) = {
            let mut live = group.live.lock();
            if live.gone {
                return not_there(name, heartbeat);
            }
            let now = self.shared.clock.elapsed();
            let topics = self.shared.topics.read().clone();
            let reply = live.state.heartbeat(heartbeat, &*topics, now);
            self.finish(&group, &mut live, permit);
            let reply = reply?;
            let held = live.hold(&group, heartbeat, &reply, (now, max_wait));
            self.reschedule(&group, &mut live);
            (live.answer(&reply), live.sequence, held)
        };
        let (answer, sequence) = match held {
            Some(held) => self.wait(&group, heartbeat, held).await?,
            None => (answer, sequence),
        };
        self.shared.store.settled(sequence).await?;
        Ok(answer)
    }

    /// Waits for a held heartbeat and asks again.
    async fn wait(
        &self,
        group: &Arc<Group>,
        heartbeat: &Heartbeat,
        mut held: Held,
    ) -> Result<(Answer, u64), CoordinatorError> {
        // An error means woken as well: the other end is dropped to wake.
        let _ = (&mut held.woken).await;
        let permit = self.shared.store.reserve(MEMBERSHIP_BYTES).await?;
        let mut live = group.live.lock();
        let now = self.shared.clock.elapsed();
        let reply = live.state.poll(&heartbeat.member_id, heartbeat.epoch, now);
        self.finish(group, &mut live, permit);
        Ok((live.answer(&reply?), live.sequence))
    }
}

/// A sign of life for a group that does not exist: leaving is done already, staying is not possible.
fn not_there(name: &Arc<str>, heartbeat: &Heartbeat) -> Result<Answer, CoordinatorError> {
    match heartbeat.epoch {
        EPOCH_JOIN => Err(CoordinatorError::UnknownGroup { group: name.clone() }),
        EPOCH_LEAVE => Ok(Answer {
            member_epoch: EPOCH_LEAVE,
            heartbeat_interval: Duration::ZERO,
            assignment: None,
            topics: Vec::new(),
            reset: Vec::new(),
            group_epoch: 0,
        }),
        _ => Err(GroupError::UnknownMember { member: heartbeat.member_id.clone() }.into()),
    }
}
