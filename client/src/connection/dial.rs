//! Opens one socket and makes a tonic channel of it that never opens another.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    codegen::Service,
    transport::{Channel, Endpoint, Uri},
};

use super::{ConnectionOptions, stranger::FirstByte};

/// Largest HTTP/2 frame. With the windows below it doubles the throughput of the defaults.
pub(super) const FRAME_BYTES: u32 = 1 << 20;
/// Bytes in flight on one stream before the receiver must read.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes in flight on the connection before the receiver must read.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Connects within the dial timeout. `lost` is cancelled when the socket closes; `first` takes what comes first.
pub(super) async fn dial(
    options: &ConnectionOptions,
    lost: CancellationToken,
    first: FirstByte,
) -> Result<Channel, String> {
    let authority = options.address.authority();
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| format!("address `{authority}` is not usable: {error}"))?
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true);
    let dialer = Dialer { authority, used: Arc::default(), lost, first };
    match timeout(options.dial_timeout, endpoint.connect_with_connector(dialer)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(deepest_cause(&error)),
        Err(_) => Err(format!("no answer within {} ms", options.dial_timeout.as_millis())),
    }
}

/// The innermost error says what the network said.
fn deepest_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Opens the socket once.
struct Dialer {
    authority: String,
    /// Set by the first call. Shared because a channel may clone its connector.
    used: Arc<AtomicBool>,
    lost: CancellationToken,
    first: FirstByte,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Socket>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Socket>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let used = self.used.swap(true, Ordering::Relaxed);
        let authority = self.authority.clone();
        let (lost, first) = (self.lost.clone(), self.first.clone());
        Box::pin(async move {
            if used {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection was lost"));
            }
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(Socket { stream, first, _lost: lost.drop_guard() }))
        })
    }
}

/// A TCP stream that says when it is dropped, and ends at the first byte of somebody who is no broker.
struct Socket {
    stream: TcpStream,
    first: FirstByte,
    _lost: DropGuard,
}

impl Socket {
    /// What a write came to. A failed one is told of once the first byte of the other side was looked for: who hangs up
    /// may have said why before, and nobody reads after a failed write.
    fn told(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(_)) = &written
            && !self.first.came()
        {
            let mut byte = [0];
            let mut last_words = ReadBuf::new(&mut byte);
            // It is read, or over, as soon as the write has failed, so this waits for the system's word of it alone.
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut last_words)).is_ok() {
                self.first.note(last_words.filled());
            }
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.first.note(&buf.filled()[before..]);
        match self.first.stranger() {
            Some(who) => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, who))),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.told(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.told(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
