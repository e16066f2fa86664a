//! A request body whose messages are counted before they are complete.
//!
//! Every message says its length in its first five bytes. As soon as these are here the whole message is taken
//! from the room, so that no two half-received messages wait for each other's share. What is not yet taken from
//! the body stays in the window of the connection, and past that with the sender.
//!
//! ```text
//! poll the body -> small, or counted before? hand on
//!               -> room at once?             hand on
//!               -> a call that waits: keep the frame, close the gate of the connection, wait
//!               -> else, or not in time: refuse the call, naming the quota
//! ```
//!
//! Invariant: at most one body of a connection holds a frame that is not counted. While it waits the gate is
//! closed, and no other that may have to wait is polled.
//!
//! A message that has begun and does not come to its end gives way when others wait for the common room.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep, timeout},
};
use tonic::{Status, body::Body};

use super::status::status;
use crate::quota::{QuotaExceeded, Room, Share};

/// Bytes that are not counted: the decoder sets as many aside for every call, and so heartbeats, commits and
/// long polls are never refused for want of room.
const FREE_BYTES: usize = 8 << 10;
/// Bytes before a message: a flag and the length.
const PREFIX_BYTES: usize = 5;

/// What requests of one connection share.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    room: Room,
    gate: Arc<Gate>,
}

/// Closed while a body of the connection waits for room.
#[derive(Debug, Default)]
struct Gate {
    closed: AtomicBool,
    opened: Notify,
}

/// Keeps the gate closed.
struct Turn(Arc<Gate>);

/// How a call takes its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Many messages: those before are done with when the handler asks for more.
    pub(super) streams: bool,
    /// Waits for room a moment before it is refused.
    pub(super) waits: bool,
}

/// What is taken for the messages handed on; given back with the last holder.
pub(super) type Held = Arc<Mutex<Shares>>;

/// For the newest messages, and for those before that may not have been looked at yet.
#[derive(Debug, Default)]
pub(super) struct Shares {
    newest: Share,
    before: Share,
}

type Taking<T> = Pin<Box<dyn Future<Output = Result<T, QuotaExceeded>> + Send>>;

/// The counted body.
pub(super) struct Received {
    inner: Body,
    receiving: Receiving,
    kind: Kind,
    progress: Progress,
    held: Held,
    /// Something was taken; spares the lock when not.
    holds: bool,
    /// Something came.
    begun: bool,
    /// Waits for the gate.
    at_gate: Option<Taking<()>>,
    /// Waits for room.
    waiting: Option<Waiting>,
    /// Runs while a counted message is not complete.
    patience: Option<Pin<Box<Sleep>>>,
}

struct Waiting {
    frame: Frame<Bytes>,
    share: Taking<Share>,
    _turn: Turn,
}

/// Where in the sequence of messages the body stands.
#[derive(Debug)]
struct Progress {
    /// A message declared longer is refused by the decoder and never becomes whole.
    message_bytes_max: usize,
    /// The length as far as it came, and how many bytes of the prefix those are.
    length: usize,
    prefix: usize,
    /// Bytes of the current message, and how many of them are still to come.
    message: usize,
    left: usize,
}

impl Receiving {
    pub(super) fn new(room: Room) -> Receiving {
        Receiving { room, gate: Arc::default() }
    }

    fn wait(&self) -> Duration {
        self.room.shared().wait()
    }
}

impl Gate {
    fn close(self: &Arc<Self>) -> Turn {
        self.closed.store(true, Relaxed);
        Turn(self.clone())
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    async fn open(&self) {
        loop {
            // Asked for before the look, so that a turn that ends between the two is noticed.
            let opened = self.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.closed.store(false, Relaxed);
        self.0.opened.notify_waiters();
    }
}

impl Progress {
    /// Goes on by `bytes`. Returns how many bytes, received or still to come, were not known of before.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let known = self.left.min(bytes.len());
        self.left -= known;
        let mut rest = &bytes[known..];
        let fresh = rest.len();
        while let Some((byte, tail)) = rest.split_first() {
            rest = tail;
            // The flag comes first and says nothing about the length.
            self.length = if self.prefix == 0 { 0 } else { self.length << 8 | usize::from(*byte) };
            self.prefix += 1;
            if self.prefix < PREFIX_BYTES {
                continue;
            }
            self.prefix = 0;
            self.message = self.length.min(self.message_bytes_max);
            let here = self.message.min(rest.len());
            self.left = self.message - here;
            rest = &rest[here..];
        }
        if fresh == 0 { 0 } else { fresh + self.left }
    }

    /// Bytes of a message that has begun.
    fn open_bytes(&self) -> usize {
        if self.left == 0 { self.prefix } else { self.message }
    }
}

impl Received {
    /// The body, and what is held for it.
    pub(super) fn new(
        inner: Body,
        receiving: Receiving,
        kind: Kind,
        message_bytes_max: usize,
    ) -> (Received, Held) {
        let held = Held::default();
        let progress = Progress { message_bytes_max, length: 0, prefix: 0, message: 0, left: 0 };
        let received = Received {
            inner,
            receiving,
            kind,
            progress,
            held: held.clone(),
            holds: false,
            begun: false,
            at_gate: None,
            waiting: None,
            patience: None,
        };
        (received, held)
    }

    fn hold(&mut self, share: Share) {
        self.holds = true;
        self.patience = None;
        let mut held = self.held.lock();
        held.before = mem::replace(&mut held.newest, share);
    }

    /// The handler of a stream asks for more: only the message that has begun is still to be held.
    fn let_go(&mut self) {
        if !self.holds || !self.kind.streams {
            return;
        }
        let open = self.progress.open_bytes();
        let mut held = self.held.lock();
        held.before = Share::default();
        if open == 0 {
            held.newest = Share::default();
            self.holds = false;
        } else {
            held.newest.shrink(open);
        }
    }

    /// Ready when no other body of the connection waits, or this one need not care.
    fn poll_gate(&mut self, context: &mut Context<'_>) -> Poll<Result<(), QuotaExceeded>> {
        // What has begun must come to its end, or those who wait would wait for its share in vain.
        let has_begun = self.progress.left > 0 || (self.begun && !self.kind.streams);
        if !self.kind.waits || has_begun {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(gate) = &mut self.at_gate {
                let passed = ready!(gate.as_mut().poll(context));
                self.at_gate = None;
                passed?;
            }
            let Receiving { room, gate } = &self.receiving;
            if !gate.is_closed() {
                return Poll::Ready(Ok(()));
            }
            let (gate, exceeded) = (gate.clone(), room.shared().exceeded());
            let wait = self.receiving.wait();
            self.at_gate =
                Some(Box::pin(
                    async move { timeout(wait, gate.open()).await.map_err(|_| exceeded) },
                ));
        }
    }

    /// Counts a frame: hands it on, refuses the call, or keeps the frame and waits.
    fn count(&mut self, frame: Frame<Bytes>) -> Option<Result<Frame<Bytes>, Status>> {
        self.begun = true;
        let wanted = frame.data_ref().map_or(0, |bytes| self.progress.advance(bytes));
        if wanted <= FREE_BYTES {
            return Some(Ok(frame));
        }
        let Receiving { room, gate } = &self.receiving;
        match room.try_take(wanted) {
            Ok(share) => {
                self.hold(share);
                Some(Ok(frame))
            }
            Err(exceeded) if !self.kind.waits || gate.is_closed() => Some(Err(status(&exceeded))),
            Err(_) => {
                let (room, turn) = (room.clone(), gate.close());
                let share = Box::pin(async move { room.take(wanted).await });
                self.waiting = Some(Waiting { frame, share, _turn: turn });
                None
            }
        }
    }

    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), Status>>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        let taken = ready!(waiting.share.as_mut().poll(context));
        Poll::Ready(Some(taken.map(|share| self.hold(share)).map_err(|error| status(&error))))
    }

    /// Ready with a refusal when others wait for what this message holds and it has had its time.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if self.progress.left == 0 || !self.held.lock().newest.is_common() {
            self.patience = None;
            return Poll::Pending;
        }
        let (half, room) = (self.receiving.wait() / 2, &self.receiving.room);
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(half)));
        while patience.as_mut().poll(context).is_ready() {
            if room.shared().is_short() {
                *self.held.lock() = Shares::default();
                return Poll::Ready(status(&room.shared().exceeded()));
            }
            patience.as_mut().reset(Instant::now() + half / 4);
        }
        Poll::Pending
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(taken) = ready!(this.poll_waiting(context)) {
                let Waiting { frame, .. } = this.waiting.take().expect("it waited");
                return Poll::Ready(Some(taken.map(|()| frame)));
            }
            this.let_go();
            if let Err(exceeded) = ready!(this.poll_gate(context)) {
                return Poll::Ready(Some(Err(status(&exceeded))));
            }
            let frame = match Pin::new(&mut this.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Pending => return this.poll_patience(context).map(|gone| Some(Err(gone))),
                ended @ Poll::Ready(None | Some(Err(_))) => return ended,
            };
            if let Some(counted) = this.count(frame) {
                return Poll::Ready(Some(counted));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("progress", &self.progress).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
