use std::future::poll_fn;

use futures_util::poll;
use tokio::sync::mpsc;

use super::*;
use crate::quota::Quota;

const MESSAGE_MAX: usize = 1 << 20;
const WAIT: Duration = Duration::from_millis(400);
const PIPELINE: Kind = Kind { streams: true, waits: true };
const APPEND: Kind = Kind { streams: false, waits: true };
const COMMIT: Kind = Kind { streams: false, waits: false };

/// A body whose frames the test sends.
struct Frames(mpsc::UnboundedReceiver<Bytes>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Quotas of a broker with one connection.
struct House {
    common: Quota,
    receiving: Receiving,
}

struct Call {
    sender: mpsc::UnboundedSender<Bytes>,
    body: Received,
    _held: Held,
}

fn house() -> House {
    let quota = |name, limit| Quota::new(name, limit, WAIT);
    let common = quota("common", 200_000);
    let room = Room::of_connection(quota("own", 10_000), quota("limit", 150_000), common.clone());
    House { common, receiving: Receiving::new(room) }
}

impl House {
    fn call(&self, kind: Kind) -> Call {
        #[expect(clippy::disallowed_methods, reason = "a test sends a handful of frames")]
        let (sender, frames) = mpsc::unbounded_channel();
        let body = Body::new(Frames(frames));
        let (body, held) = Received::new(body, self.receiving.clone(), kind, MESSAGE_MAX);
        Call { sender, body, _held: held }
    }
}

impl Call {
    fn send(&self, bytes: &[u8]) {
        self.sender.send(Bytes::copy_from_slice(bytes)).unwrap();
    }

    async fn next(&mut self) -> Option<Result<usize, Status>> {
        let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap().len()))
    }

    async fn takes(&mut self, bytes: usize) {
        assert_eq!(self.next().await.unwrap().unwrap(), bytes);
    }

    async fn is_refused(&mut self, quota: &str) {
        let refused = self.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains(quota), "{refused}");
    }

    async fn waits(&mut self) {
        assert!(poll!(Box::pin(self.next())).is_pending());
    }
}

/// A message of so many bytes, with its prefix.
fn message(bytes: usize) -> Vec<u8> {
    let mut message = vec![0; bytes + PREFIX_BYTES];
    for (place, byte) in message[1..PREFIX_BYTES].iter_mut().enumerate() {
        *byte = u8::try_from(bytes >> (8 * (3 - place)) & 0xff).unwrap();
    }
    message
}

#[test]
fn messages_are_found_however_they_are_cut() {
    let lengths = [0, 1, 300, 70_000, 5, 0, 0, 9_000];
    let stream: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
    for step in [1, 2, 3, 5, 7, 64, 999, 65_536, stream.len()] {
        let mut progress =
            Progress { message_bytes_max: MESSAGE_MAX, length: 0, prefix: 0, message: 0, left: 0 };
        let (mut known, mut came) = (0, 0);
        for piece in stream.chunks(step) {
            known += progress.advance(piece);
            came += piece.len();
            assert_eq!(known, came + progress.left, "in steps of {step}");
        }
        assert_eq!((known, progress.left, progress.prefix), (stream.len(), 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_counted_whole_at_its_first_bytes_and_given_back_after_it() {
    let house = house();
    let mut call = house.call(PIPELINE);
    let bytes = message(100_000);
    call.send(&bytes[..10]);
    call.takes(10).await;
    assert_eq!(house.common.used(), 100_005);
    call.send(&bytes[10..]);
    call.takes(99_995).await;
    assert_eq!(house.common.used(), 100_000, "the handler may still look at it");
    call.waits().await;
    assert_eq!(house.common.used(), 0, "the handler asked for more");
    // Two in one frame, and the beginning of a third.
    call.send(&[message(20_000), message(30_000), message(40_000)[..5].to_vec()].concat());
    call.takes(50_015).await;
    assert_eq!(house.common.used(), 90_015);
    call.waits().await;
    assert_eq!(house.common.used(), 40_000, "the third");
    drop(call);
    assert_eq!(house.common.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_holds_its_message_until_it_is_answered() {
    let house = house();
    let mut call = house.call(APPEND);
    call.send(&message(50_000));
    call.takes(50_005).await;
    call.waits().await;
    let Call { body, _held: held, .. } = call;
    drop(body);
    assert_eq!(house.common.used(), 50_005);
    drop(held);
    assert_eq!(house.common.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_room_one_body_waits_and_others_are_not_polled() {
    let house = house();
    let (mut first, mut second, mut third) =
        (house.call(APPEND), house.call(APPEND), house.call(APPEND));
    first.send(&message(140_000));
    first.takes(140_005).await;
    second.send(&message(20_000));
    second.waits().await;
    third.send(&message(20_000));
    third.waits().await;
    assert!(second.body.waiting.is_some() && third.body.waiting.is_none(), "at the gate");
    // Small ones and those that do not wait pass, or are refused at once.
    let (mut commit, mut large) = (house.call(COMMIT), house.call(COMMIT));
    commit.send(&message(8_000));
    commit.takes(8_005).await;
    large.send(&message(20_000));
    large.is_refused("`limit` of 150000").await;
    drop(first);
    second.takes(20_005).await;
    third.takes(20_005).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused_and_the_gate_opens() {
    let house = house();
    let (mut first, mut second, mut third) =
        (house.call(APPEND), house.call(APPEND), house.call(APPEND));
    first.send(&message(140_000));
    first.takes(140_005).await;
    second.send(&message(20_000));
    third.send(&message(9_000));
    second.waits().await;
    second.is_refused("`limit` of 150000").await;
    // Fits the connection's own part.
    third.takes(9_005).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_gives_way_to_those_who_wait() {
    let house = house();
    let mut stuck = house.call(APPEND);
    stuck.send(&message(140_000)[..100]);
    stuck.takes(100).await;
    tokio::time::sleep(WAIT * 10).await;
    stuck.waits().await;
    let other = Room::common(house.common.clone());
    let waiting = tokio::spawn(async move { other.take(100_000).await.map(drop) });
    stuck.is_refused("`common` of 200000").await;
    waiting.await.unwrap().expect("in time");
}
