//! One accepted socket: its room in the quotas of all, and cut when its client takes nothing of what is there.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::WebDoor;
use crate::{
    gateway::caps::Place,
    quota::{Quota, Room},
};

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Address of the other end.
    pub(super) address: SocketAddr,
    /// Share of the in-flight bytes of this connection.
    pub(super) in_flight: Quota,
    /// Room for its requests.
    pub(super) receiving: Room,
    /// Room for its replies.
    pub(super) replies: Room,
}

impl Caller {
    /// A new connection from `address`, with its room in the quotas of all.
    pub(super) fn new(address: SocketAddr, door: &WebDoor) -> Caller {
        let limits = &door.config.limits;
        let quota = |name, limit| Quota::new(name, limit, limits.quota_wait);
        let own = || quota("limits.connection_bytes", limits.connection_bytes);
        let in_flight = || {
            let limit = limits.in_flight_bytes_per_connection_max;
            quota("limits.in_flight_bytes_per_connection_max", limit)
        };
        let replies =
            quota("limits.read_bytes_per_connection_max", limits.read_bytes_per_connection_max);
        let reading = door.services.fetch.reading().clone();
        Caller {
            address,
            in_flight: in_flight(),
            receiving: Room::of_connection(own(), in_flight(), door.receiving.clone()),
            replies: Room::of_connection(own(), replies, reading),
        }
    }
}

/// An accepted socket.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    /// Longest time that a write may stand still.
    write_timeout: Duration,
    /// Runs while a write stands still.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Connection {
    /// A socket that holds its place until it ends.
    pub(super) fn new(socket: TcpStream, write_timeout: Duration, place: Place) -> Connection {
        Connection { socket, write_timeout, stalled: None, _place: place }
    }

    /// Ends the connection when a write has stood still for too long.
    fn watch_write<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.watch_write(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.watch_write(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
