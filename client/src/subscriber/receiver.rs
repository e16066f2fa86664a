//! The receiver: asks for records when the program wants some, under the same leases as a subscriber.
//!
//! It keeps the same book as a subscriber; outcomes go out in calls of their own, one at a time, so they
//! gather while a call is under way.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use riverrun_proto::{grpc::v1, limits::WAIT_MS_MAX};
use uuid::Uuid;
use v1::session_request::Frame;

use super::{
    SubscriberBuilder,
    desk::Slip,
    job::Job,
    parcel::{Arrival, Place},
    shared::{Shared, Stage},
};
use crate::{
    backoff::Backoff,
    clock,
    error::{Error, Result},
    subscription::IdleReason,
};

/// Asks for jobs by call instead of having them pushed: the same subscription, leases and outcomes.
///
/// A job that is dropped unsettled comes again when its lease runs out, as a failure.
///
/// ```no_run
/// # async fn work(_: &riverrun_client::Received) {}
/// # async fn example(mq: riverrun_client::Client) -> Result<(), riverrun_client::Error> {
/// let mut jobs = mq.subscribe("orders").name("workers").receiver()?;
/// for job in jobs.receive(10, std::time::Duration::from_secs(20)).await? {
///     work(job.record()).await;
///     job.ack();
/// }
/// jobs.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    /// Number of the next delivery.
    serial: u64,
    /// The try under way or given up. It is named again until it was answered, so that records whose
    /// reply was lost come with the next call.
    attempt: Option<String>,
    idle: Option<IdleReason>,
}

impl SubscriberBuilder {
    /// Makes a [`Receiver`]. Nothing is sent before its first call; `mode` is used for creation only.
    ///
    /// # Errors
    /// `InvalidArgument` without a name.
    pub fn receiver(self) -> Result<Receiver> {
        self.check()?;
        let client = self.client.clone();
        let mut settings = self.into_settings();
        // A session of calls is never lost, so marks would say nothing.
        settings.book.marks_started = false;
        let shared = Arc::new(Shared::new(client, settings));
        tokio::spawn(settle(shared.clone()));
        Ok(Receiver { shared, serial: 0, attempt: None, idle: None })
    }
}

impl Receiver {
    /// Waits up to `wait` (60 s at most) for the first record; up to `max` records (10,000 at most) that
    /// are there, none when the wait is over.
    ///
    /// # Errors
    /// `UnknownSubscription` when it does not exist and is not created; those of the connection.
    pub async fn receive(&mut self, max: u32, wait: Duration) -> Result<Vec<Job>> {
        let settings = &self.shared.settings;
        let bytes_max = u32::try_from(settings.book.bytes_window).unwrap_or(u32::MAX);
        let made_up = || Uuid::new_v4().simple().to_string();
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).min(WAIT_MS_MAX);
        let request = v1::ReceiveRequest {
            subscription: settings.subscription.clone(),
            session_id: settings.session_id.clone(),
            max_records: max,
            max_bytes: bytes_max,
            max_wait_ms: wait_ms,
            format: v1::RecordFormat::Encoded.into(),
            create: settings.create.clone(),
            attempt_id: self.attempt.get_or_insert_with(made_up).clone(),
        };
        let deadline = self.shared.client.deadline() + Duration::from_millis(wait_ms.into());
        let reply = self.shared.client.connection().receive(request, deadline).await?;
        self.attempt = None;
        self.idle = IdleReason::from_wire(reply.idle_reason);
        self.open(&reply);
        let mut jobs = Vec::new();
        for delivery in reply.deliveries {
            self.take(delivery, &mut jobs)?;
        }
        self.shared.desk.wake();
        Ok(jobs)
    }

    /// A reply under another epoch is one of another session: the leases before it are over.
    fn open(&self, reply: &v1::ReceiveResponse) {
        let mut book = self.shared.book.lock();
        if book.epoch() != Some(reply.session_epoch) {
            book.opened(&v1::Opened {
                session_epoch: reply.session_epoch,
                ack_wait_ms: reply.ack_wait_ms,
                ..v1::Opened::default()
            });
        }
    }

    fn take(&mut self, mut delivery: v1::Deliver, jobs: &mut Vec<Job>) -> Result<()> {
        if !self.shared.book.lock().is_news(&mut delivery) {
            return Ok(());
        }
        self.serial += 1;
        let epoch = self.shared.book.lock().epoch().unwrap_or_default();
        let place =
            Place { desk: &self.shared.desk, serial: self.serial, epoch, now: clock::now() };
        let arrival = Arrival::decode(delivery, &place)?;
        let parcel = self.shared.book.lock().arrive(arrival);
        jobs.extend(
            parcel.into_iter().flat_map(|mut parcel| std::iter::from_fn(move || parcel.next_job())),
        );
        Ok(())
    }

    /// Why the last call brought nothing, when it did.
    pub fn idle(&self) -> Option<IdleReason> {
        self.idle
    }

    /// The id under which records are received.
    pub fn session_id(&self) -> &str {
        &self.shared.settings.session_id
    }

    /// Waits until every job in hand is settled or dropped and every outcome is durable at the broker.
    ///
    /// # Errors
    /// When outcomes could not be told.
    pub async fn close(self) -> Result<()> {
        self.end();
        let mut stage = self.shared.stage.subscribe();
        let over = stage.wait_for(|stage| matches!(stage, Stage::Over(_))).await;
        match over.as_deref() {
            Ok(Stage::Over(Some(error))) => Err(error.clone()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn end(&self) {
        self.shared.closing.cancel();
        self.shared.drain();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends outcomes until the receiver is closed and there are none.
async fn settle(shared: Arc<Shared>) {
    let mut slips = Vec::new();
    let mut backoff = shared.client.connection().backoff();
    let mut ended = Ok(());
    while let Some(frame) = next_frame(&shared, &mut slips).await {
        if let Err(error) = send(&shared, frame, &mut backoff).await {
            ended = Err(error);
            break;
        }
    }
    shared.finish(ended);
}

/// Waits for outcomes to send; `None` at the end.
async fn next_frame(shared: &Shared, slips: &mut Vec<Slip>) -> Option<v1::SettleFrame> {
    poll_fn(|cx| {
        shared.desk.register(cx.waker());
        shared.desk.take(slips);
        let mut book = shared.book.lock();
        book.take(slips);
        loop {
            match book.next_frame(clock::now()) {
                Some(Frame::Settle(frame)) => return Poll::Ready(Some(frame)),
                // Calls need no credit and no signs of life.
                Some(_) => {}
                None if book.is_drained() => return Poll::Ready(None),
                None => return Poll::Pending,
            }
        }
    })
    .await
}

/// Sends outcomes once; what failed for now goes out again with the next frame.
async fn send(shared: &Shared, frame: v1::SettleFrame, backoff: &mut Backoff) -> Result<()> {
    let request = v1::SettleRequest {
        subscription: shared.settings.subscription.clone(),
        session_id: shared.settings.session_id.clone(),
        items: frame.items,
        sync: frame.sync,
    };
    let settled = shared.client.connection().settle(request, shared.client.deadline()).await;
    match settled {
        Ok(v1::SettleResponse { results }) => {
            backoff.reset();
            let answer = v1::Settled { settle_id: frame.settle_id, results };
            let refused = shared.book.lock().settled(&answer);
            shared.tell(refused);
        }
        Err(error) if shared.closing.is_cancelled() || gives_up(&error) => return Err(error),
        Err(error) if error.is_retriable() => {
            shared.book.lock().tell_again();
            tokio::time::sleep(backoff.next_wait()).await;
        }
        Err(error) => shared.book.lock().fail_outcomes(&error),
    }
    Ok(())
}

/// Whether no further call can succeed.
fn gives_up(error: &Error) -> bool {
    error.code() == crate::error::ErrorCode::Closed
}
