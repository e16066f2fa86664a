//! One webhook: a session of its subscription whose records are posted as they come, and settled by what came back.
//!
//! While the endpoint is left alone (the breaker, or its own `Retry-After`) the session is paused, so nothing is handed out and
//! nothing fails. What had been handed out and not posted by then is given back.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    WebhookDoor,
    answer::{Verdict, Whose},
    breaker::Breaker,
    post::{Job, Poster},
};
use crate::{
    delivery::{Order, Outcome, Run, SettleStatus},
    gateway::grpc::push_convert::CREDIT_MAX,
    service::{
        delivery::{
            PushError,
            open::OpenRequest,
            session::{Delivered, Out, SessionIn},
            settle::SettleItem,
            webhook::WebhookState,
        },
        fetch::Format,
    },
    subscription::{SubscriptionSettings, webhook::LEASE_MARGIN},
};

/// A session that could not be opened, or was ended, is opened again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Times that a record is put off without a failure. One that is put off for ever would never be dead-lettered.
const POSTPONED_MAX: u32 = 20;

/// One webhook.
#[derive(Debug)]
pub(super) struct Endpoint {
    door: WebhookDoor,
    number: u64,
    name: Arc<str>,
    settings: watch::Receiver<Arc<SubscriptionSettings>>,
    breaker: Breaker,
    /// The endpoint asked to be left alone until then.
    postponed: Option<Instant>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There is nothing more to do.
    Over,
    /// Another is opened.
    Again,
}

impl Endpoint {
    pub(super) fn new(
        door: WebhookDoor,
        (number, name): (u64, Arc<str>),
        settings: watch::Receiver<Arc<SubscriptionSettings>>,
    ) -> Endpoint {
        Endpoint { door, number, name, settings, breaker: Breaker::default(), postponed: None }
    }

    /// Works until the webhook is taken away or the broker stops.
    pub(super) async fn run(mut self) {
        let shutdown = self.door.shutdown.clone();
        while self.work().await == End::Again {
            let mut settings = self.settings.clone();
            tokio::select! {
                () = sleep(RETRY) => {}
                changed = settings.changed() => if changed.is_err() { break },
                () = shutdown.begun() => break,
            }
        }
        self.tell(WebhookState::Idle);
    }

    /// Opens a session and works on it to its end.
    async fn work(&mut self) -> End {
        let settings = self.settings.borrow_and_update().clone();
        let Some(webhook) = &settings.webhook else { return End::Over };
        let request = OpenRequest {
            subscription: self.name.to_string(),
            // Of its own, so that no client takes its place.
            session_id: format!("webhook-{}", uuid::Uuid::new_v4().simple()),
            resume: None,
            in_flight_max: limit(&settings),
            format: Format::Structured,
            client_id: "webhook".into(),
            host: host(&webhook.url),
            create: None,
            // What was under way when a session is lost comes back and has not failed.
            reports_started: true,
        };
        let (input, output) = match self.door.services.delivery.open_session(request).await {
            Ok(halves) => halves,
            Err(PushError::Stopping) => return End::Over,
            Err(error) => {
                tracing::warn!(subscription = %self.name, %error, "webhook: no session");
                return End::Again;
            }
        };
        let told = stream::unfold(output, |mut output| async {
            output.next().await.map(|told| (told, output))
        });
        let mut told = pin!(told);
        let mut changes = self.settings.clone();
        let mut shift = Shift::new(self, input, settings);
        loop {
            tokio::select! {
                out = told.next() => match out {
                    Some(Ok(out)) => shift.take(out),
                    Some(Err(error)) => {
                        tracing::warn!(subscription = %shift.endpoint.name, %error, "webhook: session ended");
                        return End::Again;
                    }
                    None => return shift.end,
                },
                Some(posted) = shift.posts.join_next() => match posted {
                    Ok(posted) => shift.settle(posted),
                    Err(error) => tracing::error!(%error, "webhook: a request broke"),
                },
                () = wake(shift.wait) => shift.look(),
                changed = changes.changed(), if shift.end == End::Again => match changed {
                    Ok(()) => shift.change(changes.borrow_and_update().clone()),
                    Err(_) => shift.leave(),
                },
            }
        }
    }

    fn tell(&self, state: WebhookState) {
        let failures = self.breaker.failures();
        self.door.services.delivery.tell_webhook(self.number, |standing| {
            standing.state = state;
            standing.failures_in_row = failures;
        });
    }
}

/// A session being worked on.
struct Shift<'a> {
    endpoint: &'a mut Endpoint,
    input: SessionIn,
    settings: Arc<SubscriptionSettings>,
    poster: Arc<Poster>,
    /// Of the endpoint that `poster` posts to.
    url: Arc<str>,
    posts: JoinSet<Posted>,
    /// The endpoint is left alone until then.
    wait: Option<Instant>,
    /// What the session was told last: whether it pauses, and how many records it may hold.
    told: Option<(bool, u32)>,
    end: End,
}

/// A record that came back.
struct Posted {
    item: SettleItem,
    /// Where it was posted.
    url: Arc<str>,
    /// Times it was handed out without failing.
    unfailed: u32,
    verdict: Verdict,
}

impl Shift<'_> {
    fn new(
        endpoint: &mut Endpoint,
        input: SessionIn,
        settings: Arc<SubscriptionSettings>,
    ) -> Shift<'_> {
        let webhook = settings.webhook.as_ref().expect("looked at before the session was opened");
        let poster = Arc::new(Poster::new(&endpoint.door, &endpoint.name, webhook));
        let url = webhook.url.clone();
        let (posts, wait, told) = (JoinSet::new(), None, None);
        let end = End::Again;
        let mut shift = Shift { endpoint, input, settings, poster, url, posts, wait, told, end };
        shift.look();
        shift.input.credit(CREDIT_MAX, CREDIT_MAX);
        shift
    }

    /// Hands out what may be handed out now, and tells how things stand.
    fn look(&mut self) {
        let now = Instant::now();
        let open = self.endpoint.breaker.open_until(now);
        let postponed = self.endpoint.postponed.filter(|until| *until > now);
        self.endpoint.postponed = postponed;
        self.wait = open.max(postponed);
        let is_probing = self.endpoint.breaker.is_probing();
        self.steer(self.wait.is_some(), if is_probing { 1 } else { limit(&self.settings) });
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

    fn take(&mut self, out: Out) {
        match out {
            Out::Deliver(delivered) => self.deliver(delivered),
            Out::Goaway(error, _) => {
                tracing::debug!(subscription = %self.endpoint.name, %error, "webhook: session ends");
                if matches!(error, PushError::Stopping | PushError::Deleted { .. }) {
                    self.end = End::Over;
                }
            }
            // A request under way is not called back: what comes of it is refused by its lease.
            Out::Opened(_)
            | Out::Settled(_)
            | Out::Revoked(..)
            | Out::Lost(..)
            | Out::Heartbeat(_) => {}
        }
    }

    /// Posts what was handed out, as far as it is still held for as long as a request may take: what was not had in time may be
    /// in another hand by now.
    fn deliver(&mut self, delivered: Delivered) {
        let item = |run, outcome| SettleItem {
            topic: delivered.place.topic.to_string(),
            partition: delivered.place.partition,
            run,
            epoch: delivered.epoch,
            seq: delivered.seq,
            outcome,
        };
        if self.wait.is_some() || self.end == End::Over {
            let runs = delivered.frame.runs.iter();
            self.input.settle_now(runs.map(|run| item(*run, Some(Outcome::Release))).collect());
            return;
        }
        let webhook = self.settings.webhook.as_ref();
        let lease = webhook.map_or(Duration::ZERO, |webhook| webhook.timeout) + LEASE_MARGIN;
        let outcome = Outcome::Extend { lease: lease.max(self.settings.delivery.ack_wait) };
        let records = &delivered.frame.records;
        let extended = records.iter().map(|record| Run::one(record.offset.0));
        let extended = extended.map(|run| item(run, Some(outcome.clone()))).collect();
        for (record, result) in records.iter().zip(self.input.settle_now(extended)) {
            if result.status != SettleStatus::Ok {
                continue;
            }
            let offset = record.offset.0;
            let count = delivered.counts.iter().find(|count| count.offset == offset);
            let (attempts, failures) =
                count.map_or((1, 0), |count| (count.attempts, count.failures));
            let job = Job {
                topic: delivered.place.topic.clone(),
                topic_id: delivered.topic_id,
                partition: delivered.place.partition,
                record: record.clone(),
                attempts,
                failures,
            };
            let (poster, item) = (self.poster.clone(), item(Run::one(offset), None));
            let (url, unfailed) = (self.url.clone(), attempts.saturating_sub(failures));
            self.posts.spawn(async move {
                Posted { item, url, unfailed, verdict: poster.post(&job).await }
            });
        }
    }

    /// Settles a record by its verdict. What it says of the endpoint counts first, so that nothing is handed out because of
    /// it to one that is to be left alone. What an endpoint said that the webhook has left meanwhile says nothing of the new one.
    fn settle(&mut self, Posted { mut item, url, unfailed, verdict }: Posted) {
        let was_probing = self.endpoint.breaker.is_probing();
        let is_current = url == self.url;
        if is_current {
            self.judge(&verdict);
        } else {
            self.count(&verdict);
        }
        let outcome = match verdict {
            Verdict::Delivered => Outcome::Ack,
            Verdict::Gone | Verdict::Postponed { .. } if !is_current => Outcome::Release,
            // An endpoint that is down for hours would wear out the record that it is probed with.
            Verdict::Failed { whose: Whose::Unreached, .. } if was_probing => Outcome::Release,
            Verdict::Failed { reason, delay, .. } => Outcome::Nack { delay, reason },
            Verdict::Postponed { reason, wait } if unfailed > POSTPONED_MAX => {
                Outcome::Nack { delay: Some(wait), reason }
            }
            Verdict::Postponed { .. } | Verdict::NoRoom => Outcome::Release,
            Verdict::Gone => {
                self.pause_subscription();
                Outcome::Release
            }
        };
        item.outcome = Some(outcome);
        // One whose lease is gone is refused, and comes again.
        self.input.settle_now(vec![item]);
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
            // Until the subscription is paused, which takes a flush.
            Verdict::Gone => {
                self.endpoint.postponed = self.endpoint.postponed.max(Some(now + RETRY));
            }
            Verdict::NoRoom => {}
        }
        self.count(verdict);
        self.look();
    }

    fn count(&self, verdict: &Verdict) {
        let now_ms = self.endpoint.door.clock.wall_ms();
        let delivery = &self.endpoint.door.services.delivery;
        delivery.tell_webhook(self.endpoint.number, |standing| match verdict {
            Verdict::Delivered => standing.delivered += 1,
            Verdict::Failed { reason, .. } => {
                standing.failed += 1;
                standing.last_failure = Some((reason.clone(), now_ms));
            }
            Verdict::Postponed { reason, .. } => {
                standing.postponed += 1;
                standing.last_failure = Some((reason.clone(), now_ms));
            }
            Verdict::Gone => {
                standing.failed += 1;
                standing.last_failure = Some(("answered 410 Gone".into(), now_ms));
            }
            Verdict::NoRoom => {}
        });
    }

    /// The endpoint says that it is gone for good: an operator must look.
    fn pause_subscription(&self) {
        let name = self.endpoint.name.clone();
        let delivery = self.endpoint.door.services.delivery.clone();
        tracing::warn!(subscription = %name, "webhook: answered 410 Gone; the subscription is paused");
        tokio::spawn(async move {
            if let Err(error) = delivery.pause(&name, true).await {
                tracing::warn!(subscription = %name, %error, "webhook: cannot pause");
            }
        });
    }

    /// Goes on with other settings; requests under way end with those they had.
    fn change(&mut self, settings: Arc<SubscriptionSettings>) {
        let Some(webhook) = &settings.webhook else { return self.leave() };
        if self.settings.webhook.as_ref() != Some(webhook) {
            let Endpoint { door, name, breaker, postponed, .. } = &mut *self.endpoint;
            self.poster = Arc::new(Poster::new(door, name, webhook));
            self.url = webhook.url.clone();
            // Whoever changes it wants to see what comes of it.
            (*breaker, *postponed) = (Breaker::default(), None);
        }
        self.settings = settings;
        self.look();
    }

    /// The webhook is taken away: what is under way ends, nothing more is taken.
    fn leave(&mut self) {
        self.end = End::Over;
        self.input.drain();
    }
}

/// Records that may be under way at once.
fn limit(settings: &SubscriptionSettings) -> u32 {
    let concurrency = settings.webhook.as_ref().map_or(1, |webhook| webhook.concurrency);
    match settings.delivery.order {
        Order::Exclusive => 1,
        Order::Unordered | Order::KeyFifo | Order::PartitionFifo => concurrency,
    }
}

/// Host and port of an address.
fn host(url: &str) -> String {
    let uri = url.parse::<http::Uri>().ok();
    uri.and_then(|uri| Some(uri.authority()?.to_string())).unwrap_or_default()
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
