//! One HTTP/1.1 connection to an endpoint.
//!
//! It lives as long as whoever holds it: dropped it is closed at once, whatever is under way on it and whether or not its peer
//! reads. So no endpoint keeps a socket, or the record that was being sent to it, for longer than a request may take.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};
use tokio_util::task::AbortOnDropHandle;

/// Largest head of an answer, and headers in it.
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 100;
/// Bytes of an answer's body that are read, so that its connection can be used again; of more of them it is closed.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What is sent.
pub(super) type Post = Request<Full<Bytes>>;

/// A connection that is open, or was closed by its peer.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Moves its bytes.
    driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Over a socket that is connected.
    pub(super) async fn over(
        socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> hyper::Result<Connection> {
        let mut builder = http1::Builder::new();
        // Written from where it lies: with a copy, what is not sent yet would look as if it were.
        builder.writev(true).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(socket)).await?;
        // What goes wrong is told to whoever sends.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, driver: AbortOnDropHandle::new(driver) })
    }

    /// Another request can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Ends it from elsewhere.
    pub(super) fn ender(&self) -> AbortHandle {
        self.driver.abort_handle()
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// With the request when nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        post: Post,
    ) -> Result<Response<Incoming>, Box<TrySendError<Post>>> {
        self.sender.try_send_request(post).await.map_err(Box::new)
    }

    /// Waits for the end of an exchange: the answer's body is read away, as far as it is bounded, and the request was taken. The
    /// connection comes back when it can be used again.
    pub(super) async fn finished(mut self, mut body: Incoming) -> Option<Connection> {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.ok()?.data_ref().map_or(0, Bytes::len);
            if bytes > BODY_BYTES_MAX {
                return None;
            }
        }
        self.sender.ready().await.ok()?;
        Some(self)
    }
}
