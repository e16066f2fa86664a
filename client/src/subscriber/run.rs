//! Handlers at work: each record is given to a handler, its lease extended while that runs, and settled by
//! what it returns.

use std::{
    any::Any, future::Future, ops::Deref, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{
    Subscriber,
    job::{Job, Outcome, Ticket},
    shared::Shared,
};
use crate::{
    clock::{self, Instant},
    error::Result,
};

/// A job in a handler's hands: what the handler returns settles it.
#[derive(Debug)]
pub struct Work(Job);

impl Deref for Work {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.disown();
    }
}

/// What owes the outcome of a record: without one it counts as dropped.
struct Owed(Option<Ticket>);

impl Owed {
    fn settle(mut self, outcome: Outcome) {
        if let Some(ticket) = self.0.take() {
            ticket.settle(outcome);
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.drop_unsettled();
        }
    }
}

/// A record in a handler's hands.
#[derive(Debug)]
struct Running {
    ticket: Ticket,
    /// When it was last extended, or received.
    renewed: Instant,
}

/// What workers share.
struct Workshop<H> {
    source: tokio::sync::Mutex<Subscriber>,
    handler: H,
    shared: Arc<Shared>,
    /// One per worker. Held for a look.
    benches: Vec<Mutex<Option<Running>>>,
}

impl Subscriber {
    /// Gives every record to `handler`, up to `concurrency` at a time, and settles it by what that returns:
    /// an [`Outcome`], or a `Result` whose error means another try. A panic means another try as well.
    /// Leases are extended while a handler runs, up to the subscription's longest lease. A record that was handed
    /// out before is given to the handler once the broker has noted that handling begins: so a record that kills its
    /// consumers at once wears out, however fast it kills.
    ///
    /// Ends when [`Subscriber::stopper`] says so, after the handlers under way came to their end and every
    /// outcome is durable; or when the session cannot go on.
    ///
    /// ```no_run
    /// # async fn work(_: &riverrun_client::Received) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(mq: riverrun_client::Client) -> Result<(), riverrun_client::Error> {
    /// let jobs = mq.subscribe("orders").name("workers").open().await?;
    /// jobs.run(16, |job| async move { work(job.record()).await }).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why the session cannot go on; when outcomes could not be told before the end.
    pub async fn run<H, F, O>(self, concurrency: usize, handler: H) -> Result<()>
    where
        H: Fn(Work) -> F + Send + Sync + 'static,
        F: Future<Output = O> + Send + 'static,
        O: Into<Outcome>,
    {
        let count = concurrency.max(1);
        let workshop = Arc::new(Workshop {
            shared: self.shared.clone(),
            source: tokio::sync::Mutex::new(self),
            handler,
            benches: (0..count).map(|_| Mutex::new(None)).collect(),
        });
        let mut workers = JoinSet::new();
        for number in 0..count {
            let workshop = workshop.clone();
            workers.spawn(async move { workshop.work(number).await });
        }
        let ended = tokio::select! {
            ended = join(&mut workers) => ended,
            () = workshop.extend() => Ok(()),
        };
        drop(workers);
        match Arc::into_inner(workshop) {
            Some(workshop) => ended.and(workshop.source.into_inner().close().await),
            None => ended,
        }
    }
}

/// Waits for all workers; the first error.
async fn join(workers: &mut JoinSet<Result<()>>) -> Result<()> {
    let mut ended = Ok(());
    while let Some(worker) = workers.join_next().await {
        // Handlers cannot make a worker panic, and nobody aborts one that is joined.
        ended = ended.and(worker.unwrap_or(Ok(())));
    }
    ended
}

impl<H, F, O> Workshop<H>
where
    H: Fn(Work) -> F,
    F: Future<Output = O>,
    O: Into<Outcome>,
{
    async fn work(&self, number: usize) -> Result<()> {
        while let Some(job) = self.next_job().await {
            let job = job?;
            if job.attempts() > 1 {
                // Its last consumer may have died of it before a mark of the start came through; a second time must count.
                if job.confirm_started().await.is_err() {
                    continue;
                }
            } else if !self.shared.settings.book.marks_started {
                job.started();
            }
            let ticket = job.ticket();
            let owed = Owed(ticket.clone());
            let renewed = clock::now();
            *self.benches[number].lock() = ticket.map(|ticket| Running { ticket, renewed });
            let handled = AssertUnwindSafe(async { (self.handler)(Work(job)).await.into() });
            let outcome = handled.catch_unwind().await.unwrap_or_else(|panic| panicked(&*panic));
            *self.benches[number].lock() = None;
            owed.settle(outcome);
        }
        Ok(())
    }

    async fn next_job(&self) -> Option<Result<Job>> {
        self.source.lock().await.next().await
    }
}

impl<H> Workshop<H> {
    /// Extends the leases of what is being handled. Never returns.
    async fn extend(&self) {
        loop {
            let (ack_wait, max_lease) = self.shared.book.lock().leases();
            tokio::time::sleep(ack_wait / 4).await;
            let now = clock::now();
            for bench in &self.benches {
                if let Some(running) = bench.lock().as_mut() {
                    running.renew(now, ack_wait, max_lease);
                }
            }
        }
    }
}

impl Running {
    /// Asks for another `ack_wait` when the last one is half over and the longest lease is not reached.
    fn renew(&mut self, now: Instant, ack_wait: Duration, max_lease: Duration) {
        let received = self.ticket.lease.received;
        if self.renewed + ack_wait / 4 <= now && now < received + max_lease {
            self.ticket.extend(ack_wait);
            self.renewed = now;
        }
    }
}

/// What a handler's panic comes to.
fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Outcome::retry(format!("the handler panicked: {}", words.unwrap_or("no words")))
}
