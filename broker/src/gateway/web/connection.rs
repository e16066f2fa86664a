//! One accepted socket: its room in the quotas of all, and cut when its client takes nothing, or next to nothing, of what is there,
//! or is not there any more.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::{WebDoor, pace::Pace};
use crate::{
    gateway::{caps::Place, turn::Turn},
    quota::{Quota, Room},
};

/// A client that says nothing is asked whether it lives after so long, and then every so often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Least time in which a client must confirm what it was sent: a lost packet is sent again within it, and several questions are.
const SILENCE_MIN: Duration = Duration::from_secs(60);

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
    writes: Writes,
    turn: Turn,
    _place: Place,
}

/// How writes go.
#[derive(Debug)]
struct Writes {
    /// How long one may stand still.
    pace: Pace,
    /// Since when one stands still, and what then runs out.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When one last went on.
    moved_at: Instant,
}

impl Connection {
    /// A socket that holds its place until it ends.
    pub(super) fn new(socket: TcpStream, write_timeout: Duration, place: Place) -> Connection {
        // A socket that is gone already is found to be so.
        let _ = keep_alive(&socket, write_timeout);
        Connection {
            socket,
            writes: Writes::new(write_timeout),
            turn: Turn::default(),
            _place: place,
        }
    }
}

/// Asks an idle client now and then whether it lives, and gives up one that confirms nothing for as long as it may take nothing.
fn keep_alive(socket: &TcpStream, write_timeout: Duration) -> rustix::io::Result<()> {
    let silence = write_timeout.max(SILENCE_MIN);
    let silence_ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(socket, silence_ms)?;
    sockopt::set_socket_keepalive(socket, true)
}

impl Writes {
    fn new(write_timeout: Duration) -> Writes {
        Writes { pace: Pace::new(write_timeout), stalled: None, moved_at: Instant::now() }
    }

    /// Ends the connection when writes have stood still for too long.
    fn watch(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &polled {
            let bytes = written.as_ref().map_or(0, |bytes| *bytes);
            let waited = match self.stalled.take() {
                Some((since, _)) => {
                    self.moved_at = Instant::now();
                    since.elapsed()
                }
                None => Duration::ZERO,
            };
            self.pace.moved(waited, bytes);
            return polled;
        }
        let Writes { pace, stalled, moved_at } = self;
        let (_, end) = stalled.get_or_insert_with(|| {
            pace.kept_up(moved_at.elapsed());
            (Instant::now(), Box::pin(sleep(pace.left())))
        });
        match end.as_mut().poll(context) {
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
        if self.turn.is_over(context) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        self.turn.note_read(polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.writes.watch(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.writes.watch(polled, context)
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::{net::TcpListener, time::advance};

    use super::*;

    #[tokio::test]
    async fn a_client_that_is_not_there_any_more_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (socket, _) = accepted.unwrap();
        keep_alive(&socket, Duration::from_secs(90)).unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 90_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_cut_and_one_that_keeps_up_is_not() {
        for (bytes, is_cut) in [(1, true), (30 << 14, false)] {
            let mut writes = Writes::new(Duration::from_secs(30));
            let mut context = Context::from_waker(Waker::noop());
            let mut cut = false;
            for _ in 0..10 {
                cut |= writes.watch(Poll::Pending, &mut context).is_ready();
                advance(Duration::from_secs(29)).await;
                cut |= writes.watch(Poll::Pending, &mut context).is_ready();
                let moved = writes.watch(Poll::Ready(Ok(bytes)), &mut context);
                assert!(moved.is_ready());
            }
            assert_eq!(cut, is_cut, "{bytes}");
        }
    }
}
