//! W7: how soon a server that was killed gives the first record again, and whether all are there.

use std::time::Duration;

use super::{Figures, Guest, Job, Receiver, payload::Checker};
use crate::{
    clock,
    error::{Error, Result},
};

/// Name of the figure that is the time of the first record, as [`clock::nanos`] gave it.
pub(crate) const FIRST_RECORD_AT: &str = "first_record_at";
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// Longest time of one try.
const TRY: Duration = Duration::from_secs(2);
/// Longest silence before the end of a topic is believed.
const SILENCE: Duration = Duration::from_secs(10);

/// Looks for the server until it takes connections, then tries to read until a record came.
pub(crate) async fn first_record<G: Guest>(job: &Job) -> Result<Figures> {
    while tokio::net::TcpStream::connect(&job.address).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
    loop {
        // What takes connections may not be ready to serve, and may forget whom it took too early; the harness ends this when it never is.
        match tokio::time::timeout(TRY, first::<G>(job)).await {
            Ok(Ok(at)) => return Ok(Figures::from([(FIRST_RECORD_AT.to_owned(), at as f64)])),
            Ok(Err(Error::Peer(_))) => tokio::time::sleep(LOOK).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
}

async fn first<G: Guest>(job: &Job) -> Result<u64> {
    let guest = G::connect(job).await?;
    let mut receiver = guest.receiver(&job.topic).await?;
    let mut at = None;
    while at.is_none() {
        receiver
            .next(|_| {
                at.get_or_insert_with(clock::nanos);
                Ok(())
            })
            .await?;
    }
    at.ok_or_else(|| Error::Peer("no record".into()))
}

/// Reads until all records came, or none any more. Those that came must be the first ones, whole and in order.
pub(crate) async fn count(guest: &impl Guest, job: &Job) -> Result<Figures> {
    let mut receiver = guest.receiver(&job.topic).await?;
    let mut checker = Checker::new(job.bytes);
    while checker.records < job.records {
        let next = receiver.next(|payload| checker.take(payload));
        match tokio::time::timeout(SILENCE, next).await {
            Ok(taken) => taken?,
            Err(_) => break,
        }
    }
    Ok(Figures::from([
        ("records".to_owned(), job.records as f64),
        ("found".to_owned(), checker.records as f64),
        ("lost".to_owned(), (job.records - checker.records) as f64),
    ]))
}
