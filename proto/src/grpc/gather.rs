//! Large fields of messages go to the stream as they are: a message is written without them, and they travel as frames of their own.
//!
//! ```text
//! message ──encode──▶ [prefix|small fields]    the run of bytes that tonic makes of messages ──┐
//!            └──────▶ large fields, each with its place                                        ├▶ frames: [prefix, put right|…] [large] […] [large]
//!                                                                                              ┘
//! ```
//!
//! Both halves meet on one thread: tonic encodes inside `poll_frame` of the body that it makes of messages. [`poll`] opens a list before it polls
//! such a body, and takes it afterwards; the encoder adds to the list that is open, and copies everything while none is.
//!
//! Invariants: the frames joined are what the message is without all this. A list never outlives the poll that opened it. What is no run of
//! messages by [`super::codec::ExactCodec`] is passed on as it came.

#![expect(
    unsafe_code,
    reason = "the trait of buffers that prost writes into is unsafe to implement"
)]

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::UninitSlice};
use http_body::{Body, Frame};
use prost::Message;
use tonic::codec::EncodeBuf;

/// Fields from this size on are large: a copy of one costs more than a frame.
const LARGE_BYTES: usize = 16 << 10;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The large fields of one message, each with its place among the other bytes.
type Aside = Vec<(usize, Bytes)>;

thread_local! {
    /// What is put aside by the poll that is under way, message by message.
    static LIST: RefCell<Option<Vec<Aside>>> = const { RefCell::new(None) };
}

/// A list that is open. What was open before is open again once it is gone.
struct Opened {
    outer: Option<Vec<Aside>>,
}

impl Opened {
    fn new() -> Opened {
        Opened { outer: LIST.replace(Some(Vec::new())) }
    }

    /// What was put aside.
    fn take(self) -> Vec<Aside> {
        LIST.take().unwrap_or_default()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        LIST.set(self.outer.take());
    }
}

/// What a body came with.
#[derive(Debug)]
pub enum Part {
    /// Bytes, in frames one after another. At least one.
    Data(Vec<Bytes>),
    /// What is no data.
    Other(Frame<Bytes>),
}

impl From<Frame<Bytes>> for Part {
    fn from(frame: Frame<Bytes>) -> Part {
        match frame.into_data() {
            Ok(bytes) => Part::Data(vec![bytes]),
            Err(other) => Part::Other(other),
        }
    }
}

/// The next part of a body of encoded messages, its large fields uncopied. Such a field keeps in memory what it is a part of. What tonic
/// encodes in one poll does not end with large fields: a source that may have many of them ready gives one message to a poll.
///
/// # Errors
/// Those of the body.
pub fn poll<B: Body<Data = Bytes>>(
    body: Pin<&mut B>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Part, B::Error>>> {
    let opened = Opened::new();
    let polled = body.poll_frame(context);
    let aside = opened.take();
    let Some(frame) = ready!(polled) else { return Poll::Ready(None) };
    Poll::Ready(Some(frame.map(|frame| match frame.into_data() {
        Ok(bytes) if aside.iter().any(|fields| !fields.is_empty()) => {
            Part::Data(join(&bytes, aside))
        }
        Ok(bytes) => Part::Data(vec![bytes]),
        Err(other) => Part::Other(other),
    })))
}

/// A field that is a part of something larger, in memory of its own if it is one that is not copied on its way out.
pub fn alone(field: Bytes) -> Bytes {
    match field.len() < LARGE_BYTES {
        true => field,
        false => Bytes::copy_from_slice(&field),
    }
}

/// Puts back what was put aside of the messages in `bytes`.
///
/// # Panics
/// When these are other messages: what was encoded in a poll is what the poll brings.
fn join(bytes: &[u8], aside: Vec<Aside>) -> Vec<Bytes> {
    let (mut frames, mut small, mut rest) = (Vec::new(), BytesMut::new(), bytes);
    for fields in aside {
        let (prefix, after) = rest.split_at(PREFIX_BYTES);
        assert_eq!(prefix[0], 0, "a message that is compressed");
        let (message, after) = after.split_at((&prefix[1..]).get_u32() as usize);
        rest = after;
        let whole = message.len() + fields.iter().map(|(_, field)| field.len()).sum::<usize>();
        small.put_u8(0);
        small.put_u32(u32::try_from(whole).expect("a message of ours is below 4 GiB"));
        let mut taken = 0;
        for (place, field) in fields {
            small.put_slice(&message[taken..place]);
            taken = place;
            frames.push(small.split().freeze());
            frames.push(field);
        }
        small.put_slice(&message[taken..]);
    }
    small.put_slice(rest);
    if !small.is_empty() {
        frames.push(small.freeze());
    }
    frames
}

/// Writes a message into room made for exactly what is written.
pub(super) fn encode<T: Message>(message: &T, buf: &mut EncodeBuf<'_>) {
    let len = message.encoded_len();
    let is_open = LIST.with_borrow(Option::is_some);
    if !is_open {
        buf.reserve(len);
        return message.encode_raw(buf);
    }
    let mut aside = Aside::new();
    if len < LARGE_BYTES {
        buf.reserve(len);
        message.encode_raw(buf);
    } else {
        let mut measure = Gather { inner: Measure::default(), small: 0, aside: Vec::new() };
        message.encode_raw(&mut measure);
        buf.reserve(measure.small);
        let mut gather = Gather { inner: &mut *buf, small: 0, aside };
        message.encode_raw(&mut gather);
        aside = gather.aside;
    }
    LIST.with_borrow_mut(|list| list.get_or_insert_default().push(aside));
}

/// Writes all but large fields into another buffer.
struct Gather<B> {
    inner: B,
    /// Bytes written there.
    small: usize,
    aside: Aside,
}

// SAFETY: memory is that of the buffer inside, which is told of every byte that was written into it; a field that is put aside is
// written nowhere.
unsafe impl<B: BufMut> BufMut for Gather<B> {
    fn remaining_mut(&self) -> usize {
        self.inner.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        self.small += count;
        // SAFETY: the caller wrote as many bytes into the chunk, which is that of the buffer inside.
        unsafe { self.inner.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.inner.chunk_mut()
    }

    fn put<S: Buf>(&mut self, mut field: S) {
        let len = field.remaining();
        if len >= LARGE_BYTES {
            self.aside.push((self.small, field.copy_to_bytes(len)));
        } else {
            self.small += len;
            self.inner.put(field);
        }
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.small += bytes.len();
        self.inner.put_slice(bytes);
    }
}

/// A buffer that keeps nothing.
#[derive(Default)]
struct Measure([u8; 32]);

// SAFETY: the chunk is memory of its own, and nothing is ever read from it.
unsafe impl BufMut for Measure {
    fn remaining_mut(&self) -> usize {
        usize::MAX
    }

    unsafe fn advance_mut(&mut self, _count: usize) {}

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        UninitSlice::new(&mut self.0)
    }

    fn put<S: Buf>(&mut self, _field: S) {}

    fn put_slice(&mut self, _bytes: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use http_body::Body;
    use tonic::{
        Status,
        body::Body as TonicBody,
        codec::{Codec, EncodeBody, SingleMessageCompressionOverride},
    };

    use super::*;
    use crate::grpc::{codec::ExactCodec, v1};

    fn answer(sizes: &[usize]) -> v1::FetchResponse {
        let partition = |(number, size): (usize, &usize)| v1::FetchedPartition {
            topic: "t".to_owned(),
            partition: u32::try_from(number).expect("few"),
            batches: (0..*size).map(|at| u8::try_from(at % 251).expect("small")).collect(),
            next_offset: 7,
            ..v1::FetchedPartition::default()
        };
        v1::FetchResponse { partitions: sizes.iter().enumerate().map(partition).collect() }
    }

    fn body(answers: Vec<v1::FetchResponse>) -> TonicBody {
        let encoder = ExactCodec::<v1::FetchResponse, v1::FetchRequest>::default().encoder();
        let answers = answers.into_iter().map(Ok::<_, Status>);
        let source = tonic::codegen::tokio_stream::iter(answers);
        let none = SingleMessageCompressionOverride::Disable;
        TonicBody::new(EncodeBody::new_server(encoder, source, None, none, None))
    }

    fn expected(answers: &[v1::FetchResponse]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for answer in answers {
            let message = answer.encode_to_vec();
            bytes.push(0);
            bytes.put_u32(u32::try_from(message.len()).expect("small"));
            bytes.extend(message);
        }
        bytes
    }

    /// All frames of data of a body.
    fn frames(mut body: TonicBody) -> Vec<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut frames = Vec::new();
        loop {
            match poll(Pin::new(&mut body), &mut context) {
                Poll::Ready(Some(Ok(Part::Data(data)))) => frames.extend(data),
                Poll::Ready(Some(Ok(Part::Other(frame)))) => assert!(frame.is_trailers()),
                Poll::Ready(None) => return frames,
                other @ Poll::Pending | other @ Poll::Ready(Some(Err(_))) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_frames_joined_are_the_messages() {
        let large = LARGE_BYTES;
        let rows: [&[&[usize]]; 8] = [
            &[&[]],
            &[&[10]],
            &[&[large]],
            &[&[large - 1], &[large]],
            &[&[large, 0, large + 1, 5]],
            &[&[3], &[large], &[large, large], &[4], &[1 << 20, 1]],
            &[&[1; 40], &[large], &[1; 40]],
            &[&[large - 1, large - 1, large - 1], &[large * 3]],
        ];
        for row in rows {
            let answers: Vec<v1::FetchResponse> = row.iter().map(|sizes| answer(sizes)).collect();
            let fields = row.iter().flat_map(|sizes| sizes.iter()).filter(|size| **size >= large);
            let frames = frames(body(answers.clone()));
            assert_eq!(frames.concat(), expected(&answers), "{row:?}");
            let whole = frames.iter().filter(|frame| frame.len() >= large).count();
            assert!(whole >= fields.count(), "{row:?}");
        }
    }

    #[test]
    fn a_large_field_is_not_copied() {
        let answer = answer(&[10, 1 << 20]);
        let field = answer.partitions[1].batches.clone();
        let frames = frames(body(vec![answer]));
        let same = |frame: &&Bytes| frame.as_ptr() == field.as_ptr() && frame.len() == field.len();
        assert_eq!(frames.iter().filter(same).count(), 1);
        assert!(frames.iter().all(|frame| frame.len() < 200 || frame.len() == field.len()));
    }

    #[test]
    fn without_a_list_a_message_is_one_run_of_bytes() {
        let answers = vec![answer(&[1 << 20])];
        let mut body = body(answers.clone());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let frame = match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("data"),
            other @ Poll::Pending | other @ Poll::Ready(_) => panic!("{other:?}"),
        };
        assert_eq!(frame, expected(&answers));
        // Nor after one was closed.
        assert_eq!(frames(self::body(answers.clone())).concat(), expected(&answers));
        assert!(LIST.with_borrow(Option::is_none));
    }
}
