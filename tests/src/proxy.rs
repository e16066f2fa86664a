//! A small TCP proxy that is a bad network: one [`Fault`] at a time for the connections a seed picks, switched while it runs.
//!
//! ```text
//!   client ──▶ listener on loopback ──▶ pump up   ──▶ broker
//!          ◀──                      ◀── pump down ◀──
//! ```
//!
//! Every connection has two pumps. A pump takes a chunk, asks what the fault does with it, and hands it on: whole, later, in
//! crumbs, or not at all. It never changes bytes: that is for the storage's harnesses.
//!
//! The proxy runs on a thread of its own and lives in the network namespace of the thread that started it.

mod dice;
mod fault;
mod pump;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

pub use self::{
    dice::Dice,
    fault::{Fault, Way},
};
use self::{fault::Weather, pump::Connection};

/// Longest wait for the broker to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What the proxy did so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections cut in the middle, in any way.
    pub cuts: AtomicU64,
    /// Replies that came back and were not handed on.
    pub replies_dropped: AtomicU64,
    /// Bytes that a half-open connection swallowed.
    pub bytes_swallowed: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A bad network between clients and one broker.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one before `broker`, on a free port of loopback. Without a fault it hands everything on at once.
    ///
    /// # Errors
    /// Those of the socket and of the thread.
    pub fn start(broker: SocketAddr, seed: u64) -> io::Result<Proxy> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (weather, watched) = watch::channel(Weather::default());
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::new(Counts::default());
        let door = Door { broker, seed, weather: watched, counts: counts.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = door.serve(listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Proxy { address, weather, counts, stop: Some(stop), thread: Some(thread) })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it did so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From here on `fault` befalls so many of a hundred connections; the others are well.
    pub fn set(&self, fault: Fault, percent: u8) {
        self.weather.send_modify(|weather| weather.change(fault, percent));
    }

    /// From here on everything is well. Connections whose bytes were swallowed are cut, since what is missing never comes.
    pub fn heal(&self) {
        self.set(Fault::None, 0);
    }

    /// Cuts every connection by a reset.
    pub fn reset_all(&self) {
        self.weather.send_modify(Weather::reset);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Takes connections.
struct Door {
    broker: SocketAddr,
    seed: u64,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
}

impl Door {
    async fn serve(self, listener: std::net::TcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let mut serial = 0;
        loop {
            // A client that is gone before it was taken is no reason to end.
            let Ok((client, _)) = listener.accept().await else { continue };
            serial += 1;
            Counts::add(&self.counts.connections, 1);
            let connection = Connection {
                dice: Dice::seeded(self.seed).throw(serial),
                weather: self.weather.clone(),
                counts: self.counts.clone(),
            };
            tokio::spawn(join(client, self.broker, connection));
        }
    }
}

/// Joins a client with the broker; both hear a reset when the broker cannot be reached.
async fn join(client: TcpStream, broker: SocketAddr, connection: Connection) {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(broker)).await {
        Ok(Ok(broker)) => connection.run(client, broker).await,
        Ok(Err(_)) | Err(_) => {
            client.set_zero_linger().ok();
        }
    }
}

#[cfg(test)]
mod tests;
