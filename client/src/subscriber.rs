//! The subscriber: records that the broker hands out under a lease, retries and, in the end, buries.
//!
//! ```text
//! broker --deliver--> driver --parcels--> Subscriber (a stream) --Job--> any task
//!    ^                   |                                                 |
//!    +------ feed <------+----------------- desk <--- ack, nack, ... ------+
//! ```
//!
//! - [`job`]: a record and its handle. [`lease`]: one delivery. [`parcel`]: its records. [`desk`]: where
//!   outcomes are handed in.
//! - [`book`]: the state of a session; pure. [`credit`]: how much the broker may send; pure.
//! - [`receiver`]: the same by call. [`driver`]: opens sessions and takes what comes. [`feed`]: what is sent. [`run`]: handlers at work.
//!
//! An acknowledgement costs its job a push under a short lock; everything behind it is done for many at
//! once. Outcomes leave when the connection can take them: no timer, no linger.

mod bits;
mod book;
mod builder;
mod credit;
mod desk;
mod driver;
mod event;
mod feed;
mod job;
mod lease;
mod parcel;
mod receiver;
mod run;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::broadcast;

pub use self::{
    builder::SubscriberBuilder,
    event::{RevokeReason, Standing, SubscriberEvent},
    job::{Job, Outcome},
    receiver::Receiver,
    run::Work,
};
use self::{
    parcel::Parcel,
    shared::{Shared, Stage},
};
use crate::error::Result;

/// Receives jobs: a stream of records to work on, each with the handle that settles it.
///
/// It reconnects for ever and resumes its session, so leases outlive a broken connection. Jobs may be
/// settled from any task, also after the subscriber is closed or dropped: its session lives on until the
/// last of them is settled or dropped. A job that is dropped unsettled is released when the session
/// closes; until then it keeps its place in the credit, and counts as failed when its lease runs out.
/// Jobs that wait here for three quarters of their lease without being asked for are given back, which
/// is no failure.
///
/// ```no_run
/// # async fn work(_: &riverrun_client::Received) -> Result<(), String> { Ok(()) }
/// # async fn example(mq: riverrun_client::Client) -> Result<(), riverrun_client::Error> {
/// use riverrun_client::Mode;
/// let mut jobs = mq.subscribe("orders").name("workers").mode(Mode::KeyFifo).open().await?;
/// while let Some(job) = jobs.next().await {
///     let job = job?;
///     tokio::spawn(async move {
///         match work(job.record()).await {
///             Ok(()) => job.ack(),
///             Err(reason) => job.nack(reason),
///         }
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    /// What is being given out.
    current: Option<Parcel>,
    /// The end was told.
    is_over: bool,
}

impl Subscriber {
    fn new(shared: Arc<Shared>) -> Subscriber {
        Subscriber { shared, current: None, is_over: false }
    }

    /// Waits for the next job; `None` once the subscriber is stopped.
    ///
    /// # Errors
    /// Once, when the session cannot go on: the subscription was deleted, somebody else opened the same
    /// session id, the client was closed. A broken connection is none.
    pub async fn next(&mut self) -> Option<Result<Job>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// What happens beyond jobs, from now on.
    pub fn events(&self) -> SubscriberEvents {
        SubscriberEvents(self.shared.events.subscribe())
    }

    /// How the subscription stood when the broker last told; it does when there is nothing else to send.
    pub fn standing(&self) -> Option<Standing> {
        *self.shared.standing.borrow()
    }

    /// The id of the session.
    pub fn session_id(&self) -> &str {
        &self.shared.settings.session_id
    }

    /// Asks the broker for nothing more until [`Subscriber::resume`]. What it sent already still comes.
    pub fn pause(&self) {
        self.shared.book.lock().pause(true);
        self.shared.desk.wake();
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.shared.book.lock().pause(false);
        self.shared.desk.wake();
    }

    /// A handle that stops this subscriber from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.clone())
    }

    /// Takes no further jobs, gives back what was not received, and waits until every job in hand is
    /// settled or dropped and every outcome is durable at the broker.
    ///
    /// # Errors
    /// When the connection is lost and does not come back within the client's call timeout.
    pub async fn close(self) -> Result<()> {
        self.shared.closing.cancel();
        let mut stage = self.shared.stage.subscribe();
        let over = stage.wait_for(|stage| matches!(stage, Stage::Over(_))).await;
        match over.as_deref() {
            Ok(Stage::Over(Some(error))) => Err(error.clone()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The end, once nothing more will come.
    fn end(&mut self) -> Option<Option<Result<Job>>> {
        let error = match &*self.shared.stage.borrow() {
            Stage::Over(error) => error.clone(),
            Stage::Opening(_) | Stage::Open if self.shared.closing.is_cancelled() => None,
            Stage::Opening(_) | Stage::Open => return None,
        };
        let first = !std::mem::replace(&mut self.is_over, true);
        Some(error.filter(|_| first).map(Err))
    }

    fn take(&mut self) -> Option<Job> {
        loop {
            if self.current.is_none() {
                self.current = Some(self.shared.next_parcel()?);
            }
            if let Some(job) = self.current.as_mut().and_then(Parcel::next_job) {
                self.shared.desk.touch();
                return Some(job);
            }
            self.current = None;
            // The session learns from it that there is nothing left to take.
            self.shared.desk.touch();
        }
    }
}

impl Stream for Subscriber {
    type Item = Result<Job>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Job>>> {
        if let Some(job) = self.take() {
            return Poll::Ready(Some(Ok(job)));
        }
        self.shared.register_reader(cx.waker());
        if let Some(job) = self.take() {
            return Poll::Ready(Some(Ok(job)));
        }
        match self.end() {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

/// Stops a [`Subscriber`] from elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// No further jobs are given out; those in hand may still be settled.
    pub fn stop(&self) {
        self.0.closing.cancel();
    }
}

/// What happens to a subscriber beyond its jobs.
#[derive(Debug)]
pub struct SubscriberEvents(broadcast::Receiver<SubscriberEvent>);

impl SubscriberEvents {
    /// The next event; `None` when the session is over. Who is more than 256 behind misses the oldest.
    pub async fn next(&mut self) -> Option<SubscriberEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
