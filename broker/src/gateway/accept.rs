//! A listener of a door: accepts sockets within the caps and hands them to the serving threads in turn.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::sleep,
};

use super::caps::{Caps, Place};
use crate::shutdown::ShutdownWatch;

/// Accepted sockets that wait for a serving thread.
const HANDOVER_SLOTS: usize = 64;
/// Time to wait when the system has no descriptor left for a socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket on its way to a serving thread.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The socket, not yet of any runtime.
    pub(super) socket: std::net::TcpStream,
    /// Address of the other end.
    pub(super) address: SocketAddr,
    /// Its place among the connections of the door.
    pub(super) place: Place,
}

/// The serving thread's end of the handover.
pub(crate) type Arrivals = mpsc::Receiver<Handover>;

/// A bound listener and the threads it hands sockets to.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    caps: Arc<Caps>,
    threads: Vec<mpsc::Sender<Handover>>,
}

impl Acceptor {
    /// Hands sockets of `listener` to `thread_count` threads, whose ends are returned.
    pub(crate) fn new(
        listener: TcpListener,
        caps: Arc<Caps>,
        thread_count: usize,
    ) -> (Acceptor, Vec<Arrivals>) {
        let (threads, arrivals) = (0..thread_count).map(|_| mpsc::channel(HANDOVER_SLOTS)).unzip();
        (Acceptor { listener, caps, threads }, arrivals)
    }

    /// Accepts until the end is announced.
    pub(crate) async fn run(self, shutdown: ShutdownWatch) {
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.begun() => return,
            };
            match accepted.and_then(|(socket, address)| self.admit(socket, address)) {
                Ok(Some(handover)) => {
                    next = (next + 1) % self.threads.len();
                    if self.threads[next].send(handover).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, socket: TcpStream, address: SocketAddr) -> io::Result<Option<Handover>> {
        let Some(place) = self.caps.take(address.ip()) else {
            tracing::debug!(%address, "connection refused: too many");
            return Ok(None);
        };
        // A socket that is gone already is no fault of the listener.
        drop(socket.set_nodelay(true));
        Ok(Some(Handover { socket: socket.into_std()?, address, place }))
    }
}
