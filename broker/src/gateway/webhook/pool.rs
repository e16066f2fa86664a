//! The connections of one endpoint: makes them, and keeps some for the requests that come next.
//!
//! Bounded twice: those that one endpoint keeps, and those that all keep together.

use std::{sync::Arc, time::Duration};

use http::Response;
use hyper::body::Incoming;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    connect::{ConnectError, Connector},
    connection::{Connection, Post},
};

/// Time for which a connection is kept. Less than servers wait for the next request, commonly 5 s: one that they close just
/// when it is used again costs the record a failure.
const KEPT: Duration = Duration::from_secs(4);
/// Connections that one endpoint keeps.
const KEPT_MAX: usize = 32;

/// Why a request has no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What went wrong with it.
    #[error(transparent)]
    Exchange(#[from] hyper::Error),
}

/// Connections of one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    /// Places for connections that are kept, over all endpoints.
    places: Arc<Semaphore>,
    /// The one used last is the last.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    /// Closes it when its time is over.
    _closing: AbortOnDropHandle<()>,
}

impl Pool {
    pub(super) fn new(connector: Connector, places: Arc<Semaphore>) -> Pool {
        Pool { connector, places, kept: Mutex::default() }
    }

    /// Sends a request, by a connection that was kept or a new one, and waits for the head of its answer.
    ///
    /// # Errors
    /// What went wrong. Dropped before, all of it is gone at once.
    pub(super) async fn send(
        &self,
        mut post: Post,
    ) -> Result<(Connection, Response<Incoming>), SendError> {
        while let Some(mut connection) = self.take() {
            match connection.send(post).await {
                Ok(answer) => return Ok((connection, answer)),
                // Closed by the endpoint before anything of the request was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => post = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.connector.connect().await?;
        let answer = connection.send(post).await.map_err(|error| error.into_error())?;
        Ok((connection, answer))
    }

    /// Keeps a connection that can be used again, if there is a place.
    pub(super) fn keep(&self, connection: Connection) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let ender = connection.ender();
        let closing = tokio::spawn(async move {
            sleep(KEPT).await;
            ender.abort();
            drop(place);
        });
        let kept = Kept { connection, _closing: AbortOnDropHandle::new(closing) };
        let mut all = self.kept.lock();
        all.retain(|one| one.connection.is_ready());
        if all.len() < KEPT_MAX {
            all.push(kept);
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut all = self.kept.lock();
        loop {
            let Kept { connection, _closing } = all.pop()?;
            if connection.is_ready() {
                return Some(connection);
            }
        }
    }
}
