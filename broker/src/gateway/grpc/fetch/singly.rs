//! A stream that gives one answer to each poll of its reader.
//!
//! Who encodes answers takes them as long as there are some, until enough is written; large fields, which are not copied, do not count
//! there. With this in between it sends each answer before it asks for the next.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

/// The stream.
#[derive(Debug)]
pub(super) struct Singly<S> {
    inner: S,
    /// One was given since the reader was told to wait.
    is_given: bool,
}

impl<S> Singly<S> {
    pub(super) fn new(inner: S) -> Singly<S> {
        Singly { inner, is_given: false }
    }
}

impl<S: Stream + Unpin> Stream for Singly<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if std::mem::take(&mut self.is_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.inner).poll_next(context);
        self.is_given = polled.is_ready();
        polled
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use riverrun_proto::grpc::{
        codec::ExactCodec,
        gather::{self, Part},
        v1,
    };
    use tonic::{
        Status,
        body::Body,
        codec::{Codec, EncodeBody, SingleMessageCompressionOverride},
    };

    use super::*;

    /// Bytes that one poll of the body brings.
    fn of_one_poll(
        answers: impl Stream<Item = v1::FetchResponse> + Send + Unpin + 'static,
    ) -> usize {
        let encoder = ExactCodec::<v1::FetchResponse, v1::FetchRequest>::default().encoder();
        let none = SingleMessageCompressionOverride::Disable;
        let answers = futures_util::StreamExt::map(answers, Ok::<_, Status>);
        let mut body = Body::new(EncodeBody::new_server(encoder, answers, None, none, None));
        let mut context = Context::from_waker(std::task::Waker::noop());
        match gather::poll(Pin::new(&mut body), &mut context) {
            Poll::Ready(Some(Ok(Part::Data(frames)))) => frames.iter().map(Bytes::len).sum(),
            other @ Poll::Ready(_) | other @ Poll::Pending => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_poll_takes_one_answer_however_many_are_ready() {
        let batches = Bytes::from(vec![7; 1 << 20]);
        let partition = v1::FetchedPartition { batches, ..v1::FetchedPartition::default() };
        let answer = v1::FetchResponse { partitions: vec![partition] };
        let answers = stream::iter(vec![answer; 20]);
        assert!(of_one_poll(Singly::new(answers.clone())) < 2 << 20);
        // Which is what it is for.
        assert!(of_one_poll(answers) > 10 << 20);
    }
}
