//! A session being worked on: its records are posted as they come, and settled by what came back.
//!
//! While the endpoint is left alone (the breaker, or its own `Retry-After`) the session is paused, so nothing is handed out and
//! nothing fails. What had been handed out and not posted by then is given back. The same holds while the webhook is taken away
//! and requests are still under way; set again meanwhile, it goes on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use riverrun_proto::{Header, Record, batch::OffsetRecord};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    answer::{Verdict, Whose},
    breaker::Breaker,
    endpoint::Endpoint,
    post::{Job, Poster},
    postponements::{At, Postponements},
    standing::count,
    window::Window,
};
use crate::{
    delivery::{Order, Outcome, Run, SettleStatus},
    service::delivery::{
        PushError,
        session::{Amount, Delivered, Out, SessionIn},
        settle::SettleItem,
        webhook::WebhookState,
    },
    subscription::{SubscriptionSettings, Webhook, webhook::LEASE_MARGIN},
};

/// An endpoint that is gone, and whose subscription cannot be paused, is left alone for so long.
const GONE_WAIT: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is nothing more to do.
    Over,
    /// Another is opened, if there is still a webhook.
    Again,
}

/// What a session was told, and how much it had handed out by then.
pub(super) type Told = (Result<Out, PushError>, Amount);

/// A session being worked on.
pub(super) struct Shift<'a> {
    endpoint: &'a mut Endpoint,
    input: SessionIn,
    settings: Arc<SubscriptionSettings>,
    poster: Arc<Poster>,
    posts: JoinSet<Posted>,
    window: Window,
    /// The endpoint is left alone until then.
    wait: Option<Instant>,
    /// What the session was told last: whether it pauses, and how many records it may hold.
    told: Option<(bool, u32)>,
    /// The webhook is taken away.
    is_leaving: bool,
    /// The session ends, and then this.
    end: Option<End>,
}

/// A record that came back.
struct Posted {
    item: SettleItem,
    at: At,
    bytes: usize,
    /// What posted it.
    poster: Arc<Poster>,
    verdict: Verdict,
}

impl Shift<'_> {
    /// `None` when the settings have no webhook.
    pub(super) fn new(
        endpoint: &mut Endpoint,
        input: SessionIn,
        settings: Arc<SubscriptionSettings>,
    ) -> Option<Shift<'_>> {
        let poster = poster(endpoint, settings.webhook.as_ref()?);
        let window = Window::new(endpoint.door.config.limits.connection_bytes);
        let mut shift = Shift {
            endpoint,
            input,
            settings,
            poster,
            posts: JoinSet::new(),
            window,
            wait: None,
            told: None,
            is_leaving: false,
            end: None,
        };
        shift.look();
        shift.raise();
        Some(shift)
    }

    /// Works to the end of the session.
    pub(super) async fn work(
        mut self,
        mut told: impl Stream<Item = Told> + Unpin,
        changes: &mut watch::Receiver<Option<Arc<SubscriptionSettings>>>,
    ) -> End {
        loop {
            tokio::select! {
                told = told.next() => match told {
                    Some((Ok(out), taken)) => self.take(out, taken),
                    Some((Err(error), _)) => {
                        tracing::warn!(subscription = %self.endpoint.name, %error, "webhook: session ended");
                        return End::Again;
                    }
                    None => return self.end.unwrap_or(End::Again),
                },
                Some(posted) = self.posts.join_next() => match posted {
                    Ok(posted) => self.settle(posted),
                    Err(error) => tracing::error!(%error, "webhook: a request broke"),
                },
                Some(paused) = self.endpoint.pausing.join_next() => self.paused(paused.unwrap_or(false)),
                () = wake(self.wait) => self.look(),
                changed = changes.changed(), if self.end.is_none() => match changed {
                    Ok(()) => {
                        changes.mark_unchanged();
                        self.refresh();
                    }
                    Err(_) => self.leave(End::Over),
                },
            }
            if self.is_leaving && self.posts.is_empty() && self.end.is_none() {
                self.leave(End::Again);
            }
        }
    }

    /// Hands out what may be handed out now, and tells how things stand.
    fn look(&mut self) {
        let now = Instant::now();
        let open = self.endpoint.breaker.open_until(now);
        let postponed = self.endpoint.postponed.filter(|until| *until > now);
        self.endpoint.postponed = postponed;
        self.wait = open.max(postponed);
        let is_probing = self.endpoint.breaker.is_probing();
        self.steer(!self.takes(), if is_probing { 1 } else { limit(&self.settings) });
        let state = match self.wait {
            Some(until) => {
                let left = i64::try_from((until - now).as_millis()).unwrap_or(i64::MAX);
                let until_ms = self.endpoint.door.clock.wall_ms().saturating_add(left);
                match open.is_some() {
                    true => WebhookState::Broken { until_ms },
                    false => WebhookState::Postponed { until_ms },
                }
            }
            None if is_probing => WebhookState::Probing,
            None => WebhookState::Delivering,
        };
        self.endpoint.tell(state);
    }

    /// Something may be posted now.
    fn takes(&self) -> bool {
        let waits = self.wait.is_some() || !self.endpoint.pausing.is_empty();
        !waits && !self.is_leaving && self.end.is_none()
    }

    /// Tells the session what changed for it.
    fn steer(&mut self, pauses: bool, in_flight_max: u32) {
        let before = self.told.replace((pauses, in_flight_max));
        if before.is_none_or(|(_, known)| known != in_flight_max) {
            self.input.limit(in_flight_max);
        }
        if before.is_none_or(|(known, _)| known != pauses) {
            self.input.pause(pauses);
        }
    }

    /// Takes nothing more.
    fn leave(&mut self, end: End) {
        self.end = Some(end);
        self.input.drain();
    }

    /// Gives the session what credit there is.
    fn raise(&mut self) {
        if self.posts.is_empty() {
            // Also when a request broke that held something.
            self.window.clear();
        }
        let Amount { records, bytes } = self.window.credit(limit(&self.settings));
        self.input.credit(records, bytes);
    }

    fn take(&mut self, out: Out, taken: Amount) {
        // Also what was taken and did not come: it was given back, or is not in the log any more.
        self.window.take_up(taken);
        match out {
            Out::Deliver(delivered) => {
                self.deliver(delivered);
                self.raise();
            }
            Out::Heartbeat(_) | Out::Lost(..) => self.raise(),
            Out::Goaway(error, _) => {
                tracing::debug!(subscription = %self.endpoint.name, %error, "webhook: session ends");
                if matches!(error, PushError::Stopping | PushError::Deleted { .. }) {
                    self.end = Some(End::Over);
                }
            }
            // A request under way is not called back: what comes of it is refused by its lease.
            Out::Opened(_) | Out::Settled(_) | Out::Revoked(..) => {}
        }
    }

    /// Posts what was handed out, as far as it is still held for as long as a request may take: what was not had in time may be
    /// in another hand by now.
    fn deliver(&mut self, delivered: Delivered) {
        self.refresh();
        let Delivered { place, topic_id, seq, epoch, frame, counts, .. } = delivered;
        let item = |run, outcome| SettleItem {
            topic: place.topic.to_string(),
            partition: place.partition,
            run,
            epoch,
            seq,
            outcome,
        };
        if !self.takes() {
            let runs = frame.runs.iter();
            self.input.settle_now(runs.map(|run| item(*run, Some(Outcome::Release))).collect());
            return;
        }
        let webhook = self.settings.webhook.as_ref();
        let lease = webhook.map_or(Duration::ZERO, |webhook| webhook.timeout) + LEASE_MARGIN;
        let outcome = Outcome::Extend { lease: lease.max(self.settings.delivery.ack_wait) };
        let extended = frame.records.iter().map(|record| Run::one(record.offset.0));
        let extended = extended.map(|run| item(run, Some(outcome.clone()))).collect();
        let results = self.input.settle_now(extended);
        for ((record, epoch), result) in frame.records.iter().zip(frame.epochs).zip(results) {
            if result.status != SettleStatus::Ok {
                continue;
            }
            let offset = record.offset.0;
            let count = counts.iter().find(|count| count.offset == offset);
            let (attempts, failures) =
                count.map_or((1, 0), |count| (count.attempts, count.failures));
            let (topic, partition, record) = (place.topic.clone(), place.partition, copied(record));
            let job = Job { topic, topic_id, partition, epoch, record, attempts, failures };
            self.spawn(job, item(Run::one(offset), None));
        }
    }

    fn spawn(&mut self, job: Job, item: SettleItem) {
        let (poster, bytes) = (self.poster.clone(), job.bytes());
        let at = (job.topic_id, job.partition, job.record.offset.0);
        self.window.hold(bytes);
        self.posts.spawn(async move {
            let verdict = poster.post(&job).await;
            Posted { item, at, bytes, poster, verdict }
        });
    }

    /// Settles a record by its verdict. What it says of the endpoint counts first, so that nothing is handed out because of
    /// it to one that is to be left alone. What an endpoint said that the webhook has left meanwhile says nothing of the new one,
    /// also when that it has left was not told here yet.
    fn settle(&mut self, posted: Posted) {
        self.window.let_go(posted.bytes);
        self.refresh();
        let was_probing = self.endpoint.breaker.is_probing();
        let is_current = !self.is_leaving && posted.poster.is_to_same(&self.poster);
        if is_current {
            self.judge(&posted.verdict);
        }
        let outcome = self.outcome(&posted, is_current, was_probing);
        if matches!(outcome, Outcome::Ack | Outcome::Nack { .. }) {
            self.endpoint.postponements.forget(&posted.at);
        }
        let Posted { item, verdict, .. } = posted;
        let now_ms = self.endpoint.door.clock.wall_ms();
        self.raise();
        // One whose lease is gone is refused, and comes again.
        let item = SettleItem { outcome: Some(outcome), ..item };
        self.input.settle_telling(item, |standing, status| {
            count(standing, &verdict, (status, now_ms));
        });
    }

    /// What becomes of the record.
    fn outcome(&mut self, posted: &Posted, is_current: bool, was_probing: bool) -> Outcome {
        match posted.verdict.clone() {
            Verdict::Delivered => Outcome::Ack,
            Verdict::Postponed { .. } if !is_current => Outcome::Release,
            // An endpoint that is down for hours would wear out the record that it is probed with.
            Verdict::Failed { whose: Whose::Unreached, .. } if was_probing => Outcome::Release,
            Verdict::Failed { reason, delay, .. } => Outcome::Nack { delay, reason },
            Verdict::Postponed { reason, wait } => {
                match self.endpoint.postponements.wear_out(posted.at) {
                    true => Outcome::Nack { delay: Some(wait), reason },
                    false => Outcome::Release,
                }
            }
            Verdict::NoRoom | Verdict::Gone => Outcome::Release,
        }
    }

    /// What a verdict says of the endpoint.
    fn judge(&mut self, verdict: &Verdict) {
        let now = Instant::now();
        match verdict {
            Verdict::Delivered | Verdict::Failed { whose: Whose::Record, .. } => {
                self.endpoint.breaker.succeeded();
            }
            Verdict::Failed { whose: Whose::Unreached | Whose::Endpoint, .. } => {
                self.endpoint.breaker.failed(now);
            }
            Verdict::Postponed { wait, .. } => {
                self.endpoint.postponed = self.endpoint.postponed.max(Some(now + *wait));
            }
            Verdict::Gone => self.pause_subscription(),
            Verdict::NoRoom => {}
        }
        self.look();
    }

    /// The endpoint says that it is gone for good: an operator must look. To pause takes a flush.
    fn pause_subscription(&mut self) {
        if !self.endpoint.pausing.is_empty() {
            return;
        }
        let name = self.endpoint.name.clone();
        let delivery = self.endpoint.door.services.delivery.clone();
        tracing::warn!(subscription = %name, "webhook: answered 410 Gone; the subscription is paused");
        self.endpoint.pausing.spawn(async move {
            let paused = delivery.pause(&name, true).await;
            if let Err(error) = &paused {
                tracing::warn!(subscription = %name, %error, "webhook: cannot pause");
            }
            paused.is_ok()
        });
    }

    /// The subscription is paused, or could not be.
    fn paused(&mut self, is_paused: bool) {
        if !is_paused {
            let until = Instant::now() + GONE_WAIT;
            self.endpoint.postponed = self.endpoint.postponed.max(Some(until));
        }
        self.look();
    }

    /// Posts by the webhook that is set now. Whoever changes it wants to see what comes of it.
    fn begin(&mut self) {
        if let Some(webhook) = &self.settings.webhook {
            self.poster = poster(self.endpoint, webhook);
        }
        self.endpoint.breaker = Breaker::default();
        self.endpoint.postponed = None;
        self.endpoint.postponements = Postponements::default();
    }

    /// Takes in the settings that are in force now, if they are others.
    fn refresh(&mut self) {
        let settings = self.endpoint.door.services.delivery.settings_in_force(self.endpoint.number);
        if settings.as_ref().is_none_or(|settings| !Arc::ptr_eq(settings, &self.settings)) {
            self.change(settings);
        }
    }

    /// Goes on with other settings, or leaves when there is no webhook any more; requests under way end with those they had.
    fn change(&mut self, settings: Option<Arc<SubscriptionSettings>>) {
        let settings = settings.filter(|settings| settings.webhook.is_some());
        self.is_leaving = settings.is_none();
        if let Some(settings) = settings {
            let before = std::mem::replace(&mut self.settings, settings);
            if before.webhook != self.settings.webhook {
                self.begin();
            }
        }
        self.look();
        self.raise();
    }
}

fn poster(endpoint: &Endpoint, webhook: &Webhook) -> Arc<Poster> {
    Arc::new(Poster::new((&endpoint.door, &endpoint.places), &endpoint.name, webhook))
}

/// The record in memory of its own. What was handed out is a part of a batch, which may be large.
fn copied(record: &OffsetRecord) -> OffsetRecord {
    let field = |field: &Option<Bytes>| field.as_deref().map(Bytes::copy_from_slice);
    let Record { timestamp_ms, key, value, headers } = &record.record;
    let header = |header: &Header| Header {
        key: Bytes::copy_from_slice(&header.key),
        value: field(&header.value),
    };
    let record_copied = Record {
        timestamp_ms: *timestamp_ms,
        key: field(key),
        value: field(value),
        headers: headers.iter().map(header).collect(),
    };
    OffsetRecord { offset: record.offset, record: record_copied }
}

/// Records that may be under way at once.
pub(super) fn limit(settings: &SubscriptionSettings) -> u32 {
    let concurrency = settings.webhook.as_ref().map_or(1, |webhook| webhook.concurrency);
    match settings.delivery.order {
        Order::Exclusive => 1,
        Order::Unordered | Order::KeyFifo | Order::PartitionFifo => concurrency,
    }
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
