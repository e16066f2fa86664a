//! The stream of frames to the broker: it looks for a frame only when the connection can take one, so that
//! outcomes gather while the connection is busy and leave at once when it is not.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use riverrun_proto::grpc::v1;
use tokio::time::{Sleep, sleep_until};
use v1::session_request::Frame;

use super::{desk::Slip, shared::Shared};
use crate::clock;

/// The frames of one stream. Ends when another stream begins, and when a drain is complete.
pub(super) struct Feed {
    shared: Arc<Shared>,
    stream: u64,
    /// The first frame, until it is sent.
    open: Option<v1::OpenSession>,
    /// Empty between two looks; kept for its room.
    slips: Vec<Slip>,
    sleep: Pin<Box<Sleep>>,
}

impl Feed {
    pub(super) fn new(shared: Arc<Shared>, stream: u64, open: v1::OpenSession) -> Feed {
        let sleep = Box::pin(sleep_until(clock::now()));
        Feed { shared, stream, open: Some(open), slips: Vec::new(), sleep }
    }

    /// The next frame; otherwise when to look again, or the end.
    fn look(&mut self) -> Look {
        self.shared.desk.take(&mut self.slips);
        let mut book = self.shared.book.lock();
        book.take(&mut self.slips);
        if !book.is_current(self.stream) {
            return Look::End;
        }
        match book.next_frame(clock::now()) {
            Some(frame) => Look::Send(frame),
            None if book.may_end() => Look::End,
            None => Look::Wait(book.next_wake()),
        }
    }
}

/// What a look brought.
#[expect(clippy::large_enum_variant, reason = "moved on at once")]
enum Look {
    Send(Frame),
    Wait(Option<clock::Instant>),
    End,
}

impl Stream for Feed {
    type Item = v1::SessionRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<v1::SessionRequest>> {
        let frame = |frame| Poll::Ready(Some(v1::SessionRequest { frame: Some(frame) }));
        if let Some(open) = self.open.take() {
            return frame(Frame::Open(open));
        }
        loop {
            // Registered before the look, so that a slip handed in after it wakes this.
            self.shared.desk.register(cx.waker());
            match self.look() {
                Look::Send(found) => return frame(found),
                Look::End => return Poll::Ready(None),
                Look::Wait(None) => return Poll::Pending,
                Look::Wait(Some(at)) => self.sleep.as_mut().reset(at),
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
