//! The connection to the broker: the only module that knows tonic.
//!
//! One HTTP/2 connection carries everything a [`crate::Client`] does. A supervisor task dials, hands
//! the link to all callers, notices at once when the socket closes, and dials again:
//!
//! ```text
//! Connecting --dialled--> Connected --socket closed, or a caller saw it broken--> Reconnecting --dialled--> Connected
//!                                                                                      | ^
//!                                                                        at once, then  \_/  50 ms doubling to 5 s, full jitter
//! ```
//!
//! Invariants: a link is used for one socket only and never dials again behind the supervisor's back;
//! generations rise by one per link. Callers wait for a link until their own deadline; there is no last try.
//!
//! - [`address`]: what the user writes. [`dial`]: the socket. [`status`]: gRPC status to [`Error`].
//! - [`rpc`]: every call, with its deadline and its rule for trying again.

mod address;
mod dial;
mod rpc;
mod status;
mod stranger;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use self::stranger::FirstByte;
pub(crate) use self::{address::Address, rpc::Replies};
use crate::{
    backoff::{Backoff, Randomness},
    clock::{self, Instant},
    error::{Error, ErrorCode, Result},
};

/// What the connection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The first connection is being made.
    Connecting,
    /// There is a connection.
    Connected,
    /// The connection is lost; tries go on for ever.
    Reconnecting {
        /// Tries since it was lost.
        tries: u32,
        /// Why the last one failed.
        reason: String,
    },
    /// The client is closed.
    Closed,
}

/// How to connect. Set by [`crate::ClientBuilder`].
#[derive(Clone, Debug)]
pub(crate) struct ConnectionOptions {
    /// Where the broker is.
    pub(crate) address: Address,
    /// Longest time for one try to dial.
    pub(crate) dial_timeout: Duration,
    /// Silence on the connection after which it is pinged.
    pub(crate) keepalive_interval: Duration,
    /// Time for the answer to a ping before the connection counts as lost.
    pub(crate) keepalive_timeout: Duration,
    /// Largest message taken or sent.
    pub(crate) message_bytes_max: usize,
    /// Where jitter comes from.
    pub(crate) randomness: Randomness,
}

/// A shared connection. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    options: ConnectionOptions,
    /// Set by the supervisor only.
    state: watch::Receiver<ConnectionState>,
    /// The link in use; `None` while there is none. Set by the supervisor only.
    link: watch::Receiver<Option<Link>>,
    /// Highest generation that a caller saw broken. Raised by callers.
    broken: watch::Sender<u64>,
    /// Ends the supervisor.
    closing: CancellationToken,
    _close_on_drop: DropGuard,
}

/// One connection to the broker.
#[derive(Clone)]
pub(crate) struct Link {
    /// Rises with every link.
    pub(crate) generation: u64,
    channel: Channel,
    /// What the other side began with.
    first: FirstByte,
}

impl Connection {
    /// Starts to connect in the background, on the current tokio runtime.
    pub(crate) fn start(options: ConnectionOptions) -> Connection {
        let (state_tx, state) = watch::channel(ConnectionState::Connecting);
        let (link_tx, link) = watch::channel(None);
        let (broken, broken_rx) = watch::channel(0);
        let closing = CancellationToken::new();
        let supervisor = Supervisor {
            backoff: Backoff::new(options.randomness.clone()),
            options: options.clone(),
            state: state_tx,
            link: link_tx,
            broken: broken_rx,
        };
        let stop = closing.clone();
        tokio::spawn(async move { supervisor.run(stop).await });
        let _close_on_drop = closing.clone().drop_guard();
        Connection(Arc::new(Shared { options, state, link, broken, closing, _close_on_drop }))
    }

    /// Where the state can be watched.
    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.0.state.clone()
    }

    /// Closes the connection; calls fail with [`ErrorCode::Closed`] from now on.
    pub(crate) fn close(&self) {
        self.0.closing.cancel();
    }

    /// A fresh chain of waits.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(Randomness::from_system())
    }

    /// The link in use, waiting for one until `deadline`.
    pub(crate) async fn link(&self, deadline: Instant) -> Result<Link> {
        let mut link = self.0.link.clone();
        let found = tokio::select! {
            found = timeout_at(deadline, link.wait_for(Option::is_some)) => found,
            () = self.0.closing.cancelled() => return Err(closed()),
        };
        match found {
            Ok(Ok(link)) => link.clone().ok_or_else(closed),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(self.unreachable()),
        }
    }

    /// Tells the supervisor that the link of `generation` does not work.
    pub(crate) fn suspect(&self, generation: u64) {
        self.0.broken.send_if_modified(|broken| {
            let newer = generation > *broken;
            *broken = generation.max(*broken);
            newer
        });
    }

    /// Why there is no connection.
    fn unreachable(&self) -> Error {
        let address = &self.0.options.address;
        let reason = match &*self.0.state.borrow() {
            ConnectionState::Reconnecting { reason, .. } => format!(": {reason}"),
            ConnectionState::Connecting | ConnectionState::Connected | ConnectionState::Closed => {
                String::new()
            }
        };
        Error::new(ErrorCode::Unreachable, format!("no connection to `{address}`{reason}"))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.0.options.address).finish()
    }
}

fn closed() -> Error {
    Error::new(ErrorCode::Closed, "the client is closed")
}

/// The task that keeps a link alive.
struct Supervisor {
    options: ConnectionOptions,
    backoff: Backoff,
    state: watch::Sender<ConnectionState>,
    link: watch::Sender<Option<Link>>,
    broken: watch::Receiver<u64>,
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.keep_connected() => {}
            () = stop.cancelled() => {}
        }
        self.link.send_replace(None);
        self.state.send_replace(ConnectionState::Closed);
    }

    /// Dials for ever. Never returns.
    async fn keep_connected(&mut self) {
        let mut generation = 0;
        loop {
            tokio::time::sleep(self.backoff.next_wait()).await;
            let (lost, first) = (CancellationToken::new(), FirstByte::default());
            match dial::dial(&self.options, lost.clone(), first.clone()).await {
                Ok(channel) => {
                    generation += 1;
                    let since = clock::now();
                    let link = Link { generation, channel, first: first.clone() };
                    self.link.send_replace(Some(link));
                    self.state.send_replace(ConnectionState::Connected);
                    tracing::debug!(address = %self.options.address, generation, "connected");
                    self.until_lost(generation, &lost).await;
                    self.link.send_replace(None);
                    // A broker that accepts and hangs up at once must not be dialled in a tight loop.
                    if since.elapsed() > self.options.dial_timeout {
                        self.backoff.reset();
                    }
                    let reason = first.stranger().unwrap_or("the connection was lost");
                    self.reconnecting(reason.to_owned());
                }
                Err(reason) => self.reconnecting(reason),
            }
        }
    }

    /// Waits until the socket closes or a caller reports the link broken.
    async fn until_lost(&mut self, generation: u64, lost: &CancellationToken) {
        tokio::select! {
            () = lost.cancelled() => {}
            _ = self.broken.wait_for(|broken| *broken >= generation) => {}
        }
    }

    fn reconnecting(&self, reason: String) {
        tracing::debug!(address = %self.options.address, reason, "not connected");
        let tries = self.backoff.tries();
        self.state.send_replace(ConnectionState::Reconnecting { tries, reason });
    }
}
