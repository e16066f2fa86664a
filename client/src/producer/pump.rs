//! The stream of requests: it looks for a batch only when the connection can take one, so that batches
//! grow while the connection is busy.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use riverrun_proto::grpc::v1;
use tokio::time::{Sleep, sleep_until};

use super::{
    lane::{Choice, Encoded, Encoding, Lane},
    shared::Shared,
};
use crate::clock::{self, Instant};

/// The requests of one session. Ends when another session begins or the producer is dead; the connection holds it until then, and its
/// stream with it.
pub(super) struct Pump {
    shared: Arc<Shared>,
    session: u64,
    timers: Timers,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared>, session: u64) -> Pump {
        let timers = Timers {
            by_lane: HashMap::new(),
            by_time: BTreeSet::new(),
            sleep: Box::pin(sleep_until(clock::now())),
        };
        Pump { shared, session, timers }
    }

    /// Looks at ready lanes until one has a batch to send.
    fn next(&mut self) -> Option<v1::AppendRequest> {
        while let Some(index) = self.shared.next_ready() {
            let shared = self.shared.clone();
            let Some(lane) = shared.lanes.get(index) else { continue };
            let sending = shared.sending(self.session);
            let sent = match lane.choose(&sending, shared.request_id(index)) {
                Choice::Send { request_id, batch } => {
                    shared.relist(index);
                    Some((request_id, batch))
                }
                Choice::Encode(encoding) => {
                    shared.relist(index);
                    self.encode(lane, encoding)
                }
                Choice::Wait(until) => {
                    self.timers.arm(index, until);
                    None
                }
                Choice::Nothing => None,
                Choice::Stale => {
                    shared.list(index);
                    return None;
                }
            };
            if let Some((request_id, batch)) = sent {
                return Some(self.request(lane, request_id, batch));
            }
        }
        None
    }

    /// Makes the batch: checksum and compression happen here, outside of every lock.
    fn encode(&self, lane: &Lane, encoding: Encoding) -> Option<(u64, Bytes)> {
        let Encoding { request_id, mut builder, surplus } = encoding;
        let encoded = builder.build();
        self.shared.intake.budget.give(surplus);
        self.shared.intake.keep(builder);
        self.shared.rotate(lane.partition.0);
        match lane.encoded(request_id, self.session, encoded) {
            Encoded::Send(batch) => return Some((request_id, batch)),
            Encoded::List => self.shared.list(lane.partition.0),
            Encoded::Failed(settled) => self.shared.settle(vec![settled]),
            Encoded::Gone => {}
        }
        None
    }

    fn request(&self, lane: &Lane, request_id: u64, batch: Bytes) -> v1::AppendRequest {
        let settings = &self.shared.settings;
        v1::AppendRequest {
            request_id,
            topic: settings.topic.clone(),
            topic_id: settings.topic_id.clone(),
            partition: lane.partition.0,
            acks: settings.acks.into(),
            durability_min: settings.durability_min.into(),
            payload: Some(v1::append_request::Payload::Batch(batch)),
        }
    }
}

impl Stream for Pump {
    type Item = v1::AppendRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<v1::AppendRequest>> {
        loop {
            if self.shared.is_over(self.session) {
                return Poll::Ready(None);
            }
            if let Some(request) = self.next() {
                return Poll::Ready(Some(request));
            }
            // Registered before the last look, so that a lane listed or an end in between wakes this.
            self.shared.wait(self.session, cx.waker());
            if self.shared.is_over(self.session) {
                return Poll::Ready(None);
            }
            if let Some(request) = self.next() {
                return Poll::Ready(Some(request));
            }
            let Poll::Ready(lane) = self.timers.poll_due(cx) else {
                return Poll::Pending;
            };
            self.shared.relist(lane);
        }
    }
}

/// When to look at a lane again: at most one time per lane.
struct Timers {
    by_lane: HashMap<u32, Instant>,
    by_time: BTreeSet<(Instant, u32)>,
    sleep: Pin<Box<Sleep>>,
}

impl Timers {
    fn arm(&mut self, lane: u32, until: Instant) {
        if self.by_lane.get(&lane).is_some_and(|armed| *armed <= until) {
            return;
        }
        if let Some(later) = self.by_lane.insert(lane, until) {
            self.by_time.remove(&(later, lane));
        }
        self.by_time.insert((until, lane));
    }

    /// A lane whose time has come.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<u32> {
        let Some(&(until, lane)) = self.by_time.first() else {
            return Poll::Pending;
        };
        if self.sleep.deadline() != until {
            self.sleep.as_mut().reset(until);
        }
        match self.sleep.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.by_time.remove(&(until, lane));
                self.by_lane.remove(&lane);
                Poll::Ready(lane)
            }
        }
    }
}
