//! Connections to an endpoint: the name is looked up, every address judged, one of those judged is connected to, and behind
//! `https` the endpoint must prove who it is. All of that together has one limit.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use ipnet::IpNet;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{WebhookDoor, connection::Connection, guard, names::Names};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why there is no connection. Whoever sets a webhook reads it, so it tells no address that the system knows for a name.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// The name has no address.
    #[error("`{host}` cannot be resolved: {source}")]
    Lookup {
        /// The name.
        host: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// No address of the name may be posted to.
    #[error("`{host}` is {kind} and not in `webhooks.allow_networks`")]
    Refused {
        /// The name.
        host: Arc<str>,
        /// What kind of address its first one is.
        kind: &'static str,
    },
    /// Nothing listens, or nothing answers.
    #[error("cannot connect to `{host}`: {source}")]
    Connect {
        /// The name.
        host: Arc<str>,
        /// Why, at the last address tried.
        source: io::Error,
    },
    /// It did not prove who it is, or speaks no TLS.
    #[error("no TLS with `{host}`: {source}")]
    Tls {
        /// The name.
        host: Arc<str>,
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

/// Makes connections to one endpoint.
#[derive(Debug)]
pub(super) struct Connector {
    /// A name, or an address without brackets.
    host: Arc<str>,
    port: u16,
    /// Whom to trust, when the endpoint is behind `https`.
    tls: Option<Arc<ClientConfig>>,
    names: Names,
    /// Networks that may be posted to although they are not public.
    allowed: Vec<IpNet>,
    /// Longest time for all of it.
    limit: Duration,
}

impl Connector {
    /// To the host of `uri`.
    pub(super) fn new(door: &WebhookDoor, uri: &Uri, limit: Duration) -> Connector {
        let is_tls = uri.scheme_str() == Some("https");
        Connector {
            host: uri.host().unwrap_or_default().trim_matches(['[', ']']).into(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            tls: is_tls.then(|| door.tls.clone()),
            names: Names::new(door.lookups.clone()),
            allowed: door.config.webhooks.allow_networks.clone(),
            limit,
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none, within the limit.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectError> {
        let limit = self.limit;
        let connected = timeout(limit, self.connect_at_leisure()).await;
        connected.unwrap_or(Err(ConnectError::Slow { limit }))
    }

    async fn connect_at_leisure(&self) -> Result<Connection, ConnectError> {
        let socket = self.socket().await?;
        let connection = match &self.tls {
            None => Connection::over(socket).await,
            Some(tls) => {
                let failed = |source| ConnectError::Tls { host: self.host.clone(), source };
                let name = ServerName::try_from(self.host.to_string());
                let name = name.map_err(|error| failed(io::Error::other(error)))?;
                let tls = TlsConnector::from(tls.clone());
                Connection::over(tls.connect(name, socket).await.map_err(failed)?).await
            }
        };
        connection.map_err(|error| self.failed(io::Error::other(error)))
    }

    async fn socket(&self) -> Result<TcpStream, ConnectError> {
        let addresses = self.judged().await?;
        let each = self.limit / u32::try_from(addresses.len()).unwrap_or(1);
        let mut last = io::ErrorKind::NotFound.into();
        for address in addresses {
            let connected = timeout(each, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(socket) => {
                    // A socket that is gone already is found out by the request.
                    drop(socket.set_nodelay(true));
                    return Ok(socket);
                }
                Err(source) => last = source,
            }
        }
        Err(self.failed(last))
    }

    /// The addresses of the host that may be posted to; at least one.
    async fn judged(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let lookup = |source| ConnectError::Lookup { host: self.host.clone(), source };
        let mut judged = Vec::new();
        let mut refused = None;
        for address in self.found().await.map_err(lookup)? {
            match guard::refusal(address.ip(), &self.allowed) {
                None if judged.len() < ADDRESSES_MAX => judged.push(address),
                None => {}
                Some(kind) => refused = refused.or(Some(kind)),
            }
        }
        match refused {
            _ if !judged.is_empty() => Ok(judged),
            Some(kind) => Err(ConnectError::Refused { host: self.host.clone(), kind }),
            None => Err(lookup(io::ErrorKind::NotFound.into())),
        }
    }

    async fn found(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (self.host.clone(), self.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        self.names.addresses(move || Ok((&*host, port).to_socket_addrs()?.collect())).await
    }

    fn failed(&self, source: io::Error) -> ConnectError {
        ConnectError::Connect { host: self.host.clone(), source }
    }
}
