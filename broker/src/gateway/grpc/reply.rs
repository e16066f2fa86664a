//! A reply whose bytes are counted until the protocol stack lets go of them.
//!
//! The share travels with the bytes: the stack keeps them in its queue while the client opens no window or does
//! not read, and drops them once they are in the socket or the stream is reset. Either gives the share back.
//!
//! Large fields of what was fetched are frames of their own, which nobody copied ([`gather`]); the shares of what one poll brought travel with
//! all of its frames. Other replies are copied when they are encoded: what their fields are parts of is not counted, and must not be held.
//!
//! A call that brings its shares along was counted before it read anything (fetch, also where it answers many times) or made its reply
//! (metadata). Any other reply is small;
//! it is counted once encoded, and refused when there is no room, so that nothing waits uncounted.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use riverrun_proto::grpc::gather::{self, Part};
use tonic::{Status, body::Body, codegen::http::HeaderMap};

use super::status::status;
use crate::quota::{Room, Share};

/// Bytes of a reply that are not counted: the encoder sets as many aside for every call.
pub(super) const FREE_BYTES: usize = 8 << 10;

/// Shares that a handler took for its reply, on their way to the body by the extensions of the response. Those of a stream are put there
/// one answer after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Paid {
    shares: Arc<Mutex<Vec<Share>>>,
    /// They were taken for all that the fields of the reply keep in memory, so those need no copy.
    is_whole: bool,
}

/// The counted body.
#[derive(Debug)]
pub(super) struct Reply {
    inner: Body,
    room: Room,
    /// For the next frame past the free bytes.
    paid: Paid,
    /// Free bytes left.
    free: usize,
    /// Frames that are counted, on their way out.
    ready: VecDeque<Bytes>,
    /// Each frame becomes base64 by itself, which ends within no message.
    is_text: bool,
    /// There was no room; the trailers say so and nothing follows.
    refused: bool,
}

/// Bytes and what was taken for them.
struct Counted {
    bytes: Bytes,
    _shares: Arc<Vec<Share>>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Paid {
    /// Shares taken for all that the fields of the reply keep in memory.
    pub(super) fn whole(shares: Vec<Share>) -> Paid {
        Paid { shares: Arc::new(Mutex::new(shares)), is_whole: true }
    }

    /// Shares taken for what becomes of the reply, before it is made. Its fields may be parts of more, so they are copied.
    pub(super) fn ahead(shares: Vec<Share>) -> Paid {
        Paid { shares: Arc::new(Mutex::new(shares)), is_whole: false }
    }

    /// Adds those of a further answer, before it is handed on.
    pub(super) fn add(&self, shares: Vec<Share>) {
        self.shares.lock().extend(shares);
    }
}

impl Reply {
    pub(super) fn new(inner: Body, room: Room, paid: Paid, is_text: bool) -> Reply {
        let (free, ready) = (FREE_BYTES, VecDeque::new());
        Reply { inner, room, paid, free, ready, is_text, refused: false }
    }

    /// Counts what came, and gives the first frame of it.
    fn count(&mut self, part: Part) -> Frame<Bytes> {
        let frames = match part {
            Part::Data(frames) => frames,
            Part::Other(frame) => return frame,
        };
        let len: usize = frames.iter().map(Bytes::len).sum();
        if len <= self.free {
            self.free -= len;
            self.ready.extend(frames);
        } else {
            let mut shares = mem::take(&mut *self.paid.shares.lock());
            if shares.is_empty() {
                match self.room.try_take(len) {
                    Ok(share) => shares.push(share),
                    Err(exceeded) => {
                        self.refused = true;
                        return Frame::trailers(trailers(&status(&exceeded)));
                    }
                }
            }
            let shares = Arc::new(shares);
            let counted = |bytes| Counted { bytes, _shares: shares.clone() };
            self.ready.extend(frames.into_iter().map(|bytes| Bytes::from_owner(counted(bytes))));
        }
        Frame::data(self.ready.pop_front().unwrap_or_default())
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails only for a message that cannot be a header; ours are encoded.
    drop(status.add_header(&mut trailers));
    trailers
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(bytes) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.refused {
            return Poll::Ready(None);
        }
        let polled = match self.paid.is_whole && !self.is_text {
            true => ready!(gather::poll(Pin::new(&mut self.inner), context)),
            false => ready!(Pin::new(&mut self.inner).poll_frame(context))
                .map(|frame| frame.map(Part::from)),
        };
        Poll::Ready(polled.map(|part| part.map(|part| self.count(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && (self.refused || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.ready.is_empty() {
            true => self.inner.size_hint(),
            false => SizeHint::default(),
        }
    }
}
