//! One accepted socket: counted against the caps, with its own share of the in-flight bytes, and cut when it
//! does not begin to speak in time.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::received::Receiving;
use crate::{
    gateway::{caps::Place, turn::Turn},
    quota::{Quota, Room},
};

/// Bytes of the HTTP/2 connection preface.
const PREFACE_BYTES: usize = 24;

/// An accepted socket.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    caller: Caller,
    /// Runs out unless the preface came before. `None` once it did.
    handshake: Option<Handshake>,
    turn: Turn,
    _place: Place,
}

#[derive(Debug)]
struct Handshake {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Address of the other end.
    pub(crate) address: SocketAddr,
    /// Share of the in-flight bytes of this connection.
    pub(crate) in_flight: Quota,
    /// Batches of its pipelines on their way.
    pub(super) pipeline_slots: Arc<Semaphore>,
    /// Room for its requests.
    pub(super) receiving: Receiving,
    /// Room for its replies.
    pub(super) replies: Room,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        caller: Caller,
        handshake_timeout: Duration,
        place: Place,
    ) -> Connection {
        tracing::debug!(address = %caller.address, "connection accepted");
        let deadline = Box::pin(sleep(handshake_timeout));
        let handshake = Some(Handshake { deadline, bytes_left: PREFACE_BYTES });
        Connection { socket, caller, handshake, turn: Turn::default(), _place: place }
    }

    /// Ends the wait for the preface once it came, and the connection when it did not.
    fn check_handshake(&mut self, read: usize, context: &mut Context<'_>) -> io::Result<()> {
        let Some(handshake) = &mut self.handshake else { return Ok(()) };
        handshake.bytes_left = handshake.bytes_left.saturating_sub(read);
        if handshake.bytes_left == 0 {
            self.handshake = None;
        } else if handshake.deadline.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn.is_over(context) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        let polled = self.turn.note_read(polled);
        let read = buffer.filled().len() - before;
        if let Err(error) = self.check_handshake(read, context) {
            return Poll::Ready(Err(error));
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
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
