//! Connections to endpoints: the name is looked up, every address judged, and one of those judged is connected to.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use thiserror::Error;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};
use tower_service::Service;

use super::guard;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// The name has no address.
    #[error("`{host}` cannot be resolved: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No address of the name may be posted to.
    #[error("`{host}` is {address}, which is {kind} and not in `webhooks.allow_networks`")]
    Refused {
        /// The name.
        host: String,
        /// Its first address.
        address: IpAddr,
        /// What kind of address that is.
        kind: &'static str,
    },
    /// Nothing listens, or nothing answers.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("no connection within {} ms", .limit.as_millis())]
    Slow {
        /// The time it had.
        limit: Duration,
    },
}

/// Makes connections of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// Networks that may be posted to although they are not public.
    pub(super) allowed: Arc<[IpNet]>,
    /// Names looked up at once, over all endpoints: each look-up takes a thread.
    pub(super) lookups: Arc<Semaphore>,
    /// Longest time for all of it.
    pub(super) limit: Duration,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let limit = self.limit;
        let connected = timeout(limit, self.connect_at_leisure(&uri)).await;
        connected.unwrap_or(Err(ConnectError::Slow { limit }))
    }

    async fn connect_at_leisure(&self, uri: &Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = self.judged(host, port).await?;
        let each = self.limit / u32::try_from(addresses.len()).unwrap_or(1);
        let mut last = None;
        for address in addresses {
            let connected = timeout(each, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(socket) => {
                    // A socket that is gone already is found out by the request.
                    drop(socket.set_nodelay(true));
                    return Ok(TokioIo::new(socket));
                }
                Err(source) => last = Some(ConnectError::Connect { address, source }),
            }
        }
        Err(last.expect("there is an address, or `judged` had refused"))
    }

    /// The addresses of a host that may be posted to; at least one.
    async fn judged(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let lookup = |source| ConnectError::Lookup { host: host.to_owned(), source };
        let permit = self.lookups.acquire().await;
        let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(lookup)?.collect();
        drop(permit);
        let mut judged = Vec::new();
        let mut refused = None;
        for address in found {
            match guard::refusal(address.ip(), &self.allowed) {
                None if judged.len() < ADDRESSES_MAX => judged.push(address),
                None => {}
                Some(kind) => refused = refused.or(Some((address.ip(), kind))),
            }
        }
        match refused {
            _ if !judged.is_empty() => Ok(judged),
            Some((address, kind)) => {
                Err(ConnectError::Refused { host: host.to_owned(), address, kind })
            }
            None => Err(lookup(io::ErrorKind::NotFound.into())),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
