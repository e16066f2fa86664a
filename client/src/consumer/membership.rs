//! The task that keeps a consumer in its group.
//!
//! ```text
//! join (epoch 0) -> heartbeat, held by the broker until the assignment changes -> heartbeat ...
//!    ^                   |
//!    |                   +-- less assigned: stop handing out, wait for commits (at most the grace),
//!    |                   |   forget the partitions, then say so with `owned`
//!    +-- fenced, unknown, or silent for the session timeout: everything is lost at once
//! ```
//!
//! Invariants: a partition leaves the book before the broker is told that it was given up, so nothing of
//! it can be received afterwards; and when the broker may have removed this member for its silence, the
//! book is emptied first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use riverrun_proto::{TopicId, TopicPartition, grpc::v1};
use tokio::time::{sleep, sleep_until, timeout};

use super::{
    Start,
    book::Added,
    shared::{GroupSettings, Rebalance, Shared},
};
use crate::{
    backoff::Backoff,
    clock::{self, Instant},
    error::{Error, ErrorCode, Result},
};

/// Epochs with a meaning of their own.
const JOIN: i32 = 0;
const LEAVE: i32 = -1;
const PAUSE: i32 = -2;
/// Longest time for the last words to the broker.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time for an answer beyond the time it may be held.
const ANSWER: Duration = Duration::from_secs(5);
/// Between tries after a refusal that may end only when somebody acts.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// The task that keeps a consumer in its group.
pub(super) struct MembershipTask {
    shared: Arc<Shared>,
    settings: GroupSettings,
    epoch: i32,
    /// When the last heartbeat that was answered had been sent.
    heard: Instant,
    /// The next heartbeat is sent at this time at the latest.
    next: Instant,
    backoff: Backoff,
}

/// What ends a wait.
enum Turn {
    Answer(Result<v1::HeartbeatResponse>),
    /// Partitions can be let go, or the broker may have forgotten us.
    Look,
}

impl MembershipTask {
    pub(super) fn new(shared: Arc<Shared>, settings: GroupSettings) -> MembershipTask {
        let backoff = shared.client.connection().backoff();
        let now = clock::now();
        MembershipTask { shared, settings, epoch: JOIN, heard: now, next: now, backoff }
    }

    pub(super) async fn run(mut self) {
        let closing = self.shared.closing.clone();
        tokio::select! {
            () = self.stay() => {}
            () = closing.cancelled() => {}
        }
        if self.epoch != JOIN {
            self.leave().await;
        }
    }

    /// Heartbeats for ever.
    async fn stay(&mut self) {
        loop {
            let sent = clock::now();
            match self.beat().await {
                Turn::Answer(Ok(reply)) => self.accept(&reply, sent),
                Turn::Answer(Err(error)) => self.refused(&error).await,
                Turn::Look => {}
            }
            self.look();
            self.rest().await;
        }
    }

    /// Sends one heartbeat and waits for the answer, unless there is something to do before.
    async fn beat(&mut self) -> Turn {
        let shared = self.shared.clone();
        let quiet = !shared.book.lock().is_giving_up();
        let held = if self.epoch == JOIN || !quiet {
            Duration::ZERO
        } else {
            self.settings.session_timeout / 3
        };
        let request = self.request(self.epoch, held);
        let deadline = clock::now() + held + ANSWER;
        let mut answer = std::pin::pin!(shared.client.connection().heartbeat(request, deadline));
        loop {
            tokio::select! {
                reply = &mut answer => return Turn::Answer(reply),
                () = self.something_to_do() => {}
            }
            if self.is_over() || *shared.suspect.lock() || self.can_release() {
                return Turn::Look;
            }
        }
    }

    fn request(&self, epoch: i32, held: Duration) -> v1::HeartbeatRequest {
        let joining = epoch == JOIN;
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let book = self.shared.book.lock();
        let owned = book.partitions.keys().map(|partition| v1::TopicPartition {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
        });
        let topics = self.shared.settings.topics.clone();
        v1::HeartbeatRequest {
            group: self.settings.group.clone(),
            member_id: self.shared.membership.borrow().member_id.clone(),
            member_epoch: epoch,
            instance_id: self.settings.instance_id.clone(),
            client_id: self.shared.client.client_id().to_owned(),
            subscription: joining.then_some(v1::TopicList { topics }),
            owned: Some(v1::PartitionList { partitions: owned.collect() }),
            rebalance_timeout_ms: ms(self.settings.rebalance_timeout),
            session_timeout_ms: ms(self.settings.session_timeout),
            max_wait_ms: ms(held),
            start: Some(self.shared.settings.start.to_wire()),
            assignor: String::new(),
        }
    }

    /// Takes an answer: a new epoch, perhaps a new assignment, perhaps moved offsets.
    fn accept(&mut self, reply: &v1::HeartbeatResponse, sent: Instant) {
        self.backoff.reset();
        self.heard = sent;
        self.epoch = reply.member_epoch;
        let interval = Duration::from_millis(u64::from(reply.heartbeat_interval_ms));
        let is_reset = reply.reset.as_ref().is_some_and(|reset| !reset.partitions.is_empty());
        let news = reply.assignment.is_some() || is_reset;
        // A change is confirmed at once; else the broker held the answer, and if it did not, wait.
        self.next = if news {
            clock::now()
        } else {
            sent + interval.min(self.settings.session_timeout / 3)
        };
        if let Some(assignment) = &reply.assignment {
            self.assign(&identified(assignment, &reply.topics));
        }
        if let Some(reset) = &reply.reset {
            let reset: Vec<_> = named(reset).into_iter().collect();
            self.shared.book.lock().resolve_again(&reset);
        }
        // Last: whoever commits with this epoch finds in the book what came with it.
        self.shared.membership.send_modify(|membership| membership.epoch = reply.member_epoch);
        if news {
            self.shared.fetcher.notify_one();
            self.shared.committer.notify_one();
        }
    }

    /// Compares what is assigned with what is held.
    fn assign(&self, assigned: &BTreeMap<TopicPartition, Option<TopicId>>) {
        let until = clock::now() + self.settings.revoke_grace;
        let added = |(partition, topic_id): (&TopicPartition, &Option<TopicId>)| Added {
            topic_id: *topic_id,
            ..Added::from(partition.clone())
        };
        let mut book = self.shared.book.lock();
        let is_new = |partition: &TopicPartition| !book.partitions.contains_key(partition);
        let is_other = |partition: &TopicPartition, id: Option<TopicId>| {
            let held = book.partitions.get(partition).and_then(|part| part.topic_id);
            held.is_some() && id.is_some() && held != id
        };
        let new: Vec<Added> =
            assigned.iter().filter(|(partition, _)| is_new(partition)).map(added).collect();
        let replaced: Vec<Added> =
            assigned.iter().filter(|(name, id)| is_other(name, **id)).map(added).collect();
        let held = book.partitions.keys();
        let revoked: BTreeSet<TopicPartition> =
            held.filter(|partition| !assigned.contains_key(partition)).cloned().collect();
        book.take_back(assigned.keys());
        book.assign(new.iter().cloned());
        book.replace(replaced.iter().cloned());
        let newly: BTreeSet<_> = book.revoke(&revoked, until);
        drop(book);
        let names = |list: &[Added]| list.iter().map(|one| one.partition.clone()).collect();
        self.shared.announce(Rebalance::Replaced, &names(&replaced));
        self.shared.announce(Rebalance::Revoking, &newly);
        self.shared.announce(Rebalance::Assigned, &names(&new));
    }

    /// Lets go what may go, and drops everything when the broker may have given it to others.
    fn look(&mut self) {
        if self.is_over() || std::mem::take(&mut *self.shared.suspect.lock()) {
            self.lose_everything();
        }
        let released = self.shared.book.lock().released(clock::now());
        if !released.is_empty() {
            self.shared.book.lock().let_go(&released);
            self.shared.announce(Rebalance::Revoked, &released);
            self.shared.fetcher.notify_one();
            self.next = clock::now();
        }
    }

    /// Whether the broker may have removed us for our silence.
    fn is_over(&self) -> bool {
        self.epoch != JOIN && self.heard + self.settings.session_timeout <= clock::now()
    }

    fn can_release(&self) -> bool {
        !self.shared.book.lock().released(clock::now()).is_empty()
    }

    /// Forgets every partition and joins again.
    fn lose_everything(&mut self) {
        let mut book = self.shared.book.lock();
        let lost: BTreeSet<_> = book.partitions.keys().cloned().collect();
        book.let_go(&lost);
        drop(book);
        self.shared.announce(Rebalance::Lost, &lost);
        self.shared.fetcher.notify_one();
        self.epoch = JOIN;
        self.next = clock::now();
        self.shared.membership.send_modify(|membership| membership.epoch = JOIN);
    }

    /// A heartbeat was refused or got no answer.
    async fn refused(&mut self, error: &Error) {
        tracing::debug!(group = self.settings.group, %error, "heartbeat failed");
        let code = error.code();
        if matches!(code, ErrorCode::UnknownMember | ErrorCode::FencedMemberEpoch) {
            self.lose_everything();
        } else if !error.is_retriable() {
            self.shared.book.lock().tell(error.clone());
            sleep(REFUSED_WAIT).await;
        }
        self.next = clock::now() + self.backoff.next_wait();
    }

    /// Waits for the next heartbeat, or for something to do before.
    async fn rest(&self) {
        while clock::now() < self.next && !self.is_over() && !self.can_release() {
            if *self.shared.suspect.lock() {
                return;
            }
            tokio::select! {
                () = sleep_until(self.next) => {}
                () = self.something_to_do() => {}
            }
        }
    }

    /// Resolves when a look is worth while.
    async fn something_to_do(&self) {
        let release = self.shared.book.lock().next_release();
        let over = (self.epoch != JOIN).then(|| self.heard + self.settings.session_timeout);
        match [release, over].into_iter().flatten().min() {
            None => self.shared.member.notified().await,
            Some(at) => tokio::select! {
                () = self.shared.member.notified() => {}
                () = sleep_until(at) => {}
            },
        }
    }

    /// Says good-bye, so that others need not wait for the session timeout.
    async fn leave(&self) {
        let _lost_offsets = timeout(FAREWELL, self.shared.commit_rest()).await;
        let everything: BTreeSet<_> = self.shared.book.lock().partitions.keys().cloned().collect();
        self.shared.book.lock().let_go(&everything);
        let epoch = if self.settings.instance_id.is_some() { PAUSE } else { LEAVE };
        let request = self.request(epoch, Duration::ZERO);
        let deadline = clock::now() + FAREWELL;
        if let Err(error) = self.shared.client.connection().heartbeat(request, deadline).await {
            tracing::debug!(group = self.settings.group, %error, "left without a word");
        }
    }
}

impl Start {
    fn to_wire(self) -> v1::StartPosition {
        use v1::start_position::Position;
        let position = match self {
            Start::Earliest => Position::Earliest(true),
            Start::Latest => Position::Latest(true),
            Start::Time(time) => Position::TimestampMs(clock::timestamp_ms(time)),
            Start::Fail => Position::Fail(true),
        };
        v1::StartPosition { position: Some(position) }
    }
}

/// An assignment with the ids of its topics, where the broker told them.
fn identified(
    list: &v1::PartitionList,
    topics: &[v1::TopicIdentity],
) -> BTreeMap<TopicPartition, Option<TopicId>> {
    let ids: BTreeMap<&str, TopicId> = topics
        .iter()
        .filter_map(|one| Some((one.topic.as_str(), TopicId::from_slice(&one.topic_id)?)))
        .collect();
    let id = |partition: &TopicPartition| ids.get(&*partition.topic).copied();
    named(list).into_iter().map(|partition| (partition.clone(), id(&partition))).collect()
}

fn named(list: &v1::PartitionList) -> BTreeSet<TopicPartition> {
    list.partitions
        .iter()
        .map(|one| TopicPartition::new(one.topic.as_str(), one.partition))
        .collect()
}

#[cfg(test)]
mod tests {
    use riverrun_proto::Offset;
    use uuid::Uuid;

    use super::*;
    use crate::{client::Client, consumer::book::Phase};

    const OLD: TopicId = TopicId(Uuid::from_u128(1));
    const NEW: TopicId = TopicId(Uuid::from_u128(2));

    fn partition(number: u32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    /// A member that reads both partitions of the old topic from offset 7.
    fn member() -> MembershipTask {
        let client = Client::builder().connect_lazy("127.0.0.1:1").unwrap();
        let builder = client.consumer("t").group("g");
        let shared = Shared::new(client, builder.settings().clone(), "m".to_owned());
        let task = MembershipTask::new(Arc::new(shared), builder.group_settings().unwrap());
        task.assign(&assignment(&[(0, OLD), (1, OLD)]));
        let mut book = task.shared.book.lock();
        book.partitions.values_mut().for_each(|part| part.start_at(Offset(7)));
        drop(book);
        task
    }

    fn assignment(of: &[(u32, TopicId)]) -> BTreeMap<TopicPartition, Option<TopicId>> {
        of.iter().map(|(number, id)| (partition(*number), Some(*id))).collect()
    }

    fn phase(task: &MembershipTask, number: u32) -> Option<Phase> {
        task.shared.book.lock().partitions.get(&partition(number)).map(|part| part.phase.clone())
    }

    #[tokio::test]
    async fn a_topic_created_anew_is_read_anew() {
        let task = member();
        let mut rebalances = task.shared.rebalances.subscribe();
        task.assign(&assignment(&[(0, OLD), (1, OLD)]));
        assert_eq!(phase(&task, 0), Some(Phase::Active), "nothing changed");
        task.assign(&assignment(&[(0, NEW)]));
        assert_eq!(phase(&task, 0), Some(Phase::Resolving), "its position is looked up");
        assert!(matches!(phase(&task, 1), Some(Phase::Revoking { .. })));
        let told = [rebalances.try_recv().unwrap(), rebalances.try_recv().unwrap()];
        assert_eq!(told[0], Rebalance::Replaced(vec![partition(0)]));
        assert_eq!(told[1], Rebalance::Revoking(vec![partition(1)]));
        assert!(rebalances.try_recv().is_err());
        let kept = task.shared.book.lock().partitions[&partition(0)].topic_id;
        assert_eq!(kept, Some(NEW));
    }
}
