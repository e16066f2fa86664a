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

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use riverrun_proto::{TopicPartition, grpc::v1};
use tokio::time::{sleep, sleep_until, timeout};

use super::{
    Start,
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
            self.assign(&named(assignment));
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
    fn assign(&self, assigned: &BTreeSet<TopicPartition>) {
        let until = clock::now() + self.settings.revoke_grace;
        let mut book = self.shared.book.lock();
        let held: BTreeSet<TopicPartition> = book.partitions.keys().cloned().collect();
        let added: BTreeSet<_> = assigned.difference(&held).cloned().collect();
        let revoked: BTreeSet<_> = held.difference(assigned).cloned().collect();
        book.take_back(assigned);
        book.assign(added.iter().cloned());
        let newly: BTreeSet<_> = book.revoke(&revoked, until);
        drop(book);
        self.shared.announce(Rebalance::Revoking, &newly);
        self.shared.announce(Rebalance::Assigned, &added);
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

fn named(list: &v1::PartitionList) -> BTreeSet<TopicPartition> {
    list.partitions
        .iter()
        .map(|one| TopicPartition::new(one.topic.as_str(), one.partition))
        .collect()
}
