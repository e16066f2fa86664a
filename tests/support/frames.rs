//! A client that writes HTTP/2 frame by frame and need not keep the rules.
//!
//! What the broker sends is read by a task of its own and noted in [`Seen`], so that a flood never waits for
//! an answer. Header blocks of the broker are not decoded.

use std::{collections::BTreeSet, net::SocketAddr};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::client::in_time;

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// Flags.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// The error code of a GOAWAY for excess.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// What the broker sent so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Error code of the last GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// Streams reset, in order.
    pub(crate) resets: Vec<u32>,
    /// Streams that got headers.
    pub(crate) answered: BTreeSet<u32>,
    /// Streams that it ended in order.
    pub(crate) ended: BTreeSet<u32>,
    /// Bytes in DATA frames.
    pub(crate) data_bytes: usize,
    /// Acknowledged pings.
    pub(crate) pongs: usize,
    /// Acknowledged settings.
    pub(crate) settings_acks: usize,
    /// It sends no more.
    pub(crate) closed: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    writer: OwnedWriteHalf,
    seen: watch::Receiver<Seen>,
}

impl Wire {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: SocketAddr) -> Wire {
        let socket = in_time(TcpStream::connect(address)).await.expect("connects");
        socket.set_nodelay(true).expect("a socket");
        let (reader, writer) = socket.into_split();
        let (noted, seen) = watch::channel(Seen::default());
        tokio::spawn(read(reader, noted));
        Wire { writer, seen }
    }

    /// Connects and greets in order, with these settings.
    pub(crate) async fn greeted(address: SocketAddr, settings: &[(u16, u32)]) -> Wire {
        let mut wire = Wire::connect(address).await;
        let mut bytes = PREFACE.to_vec();
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [be16(*id).to_vec(), be32(*value).to_vec()].concat())
            .collect();
        bytes.extend(frame(SETTINGS, 0, 0, &settings));
        bytes.extend(frame(SETTINGS, ACK, 0, &[]));
        assert!(wire.send(&bytes).await, "takes a greeting");
        wire
    }

    /// Writes bytes; false once the broker has closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        !self.seen.borrow().closed && in_time(self.writer.write_all(bytes)).await.is_ok()
    }

    /// Writes the same bytes again and again, `count` times at most; false once the broker has closed.
    pub(crate) async fn repeat(&mut self, count: usize, bytes: impl Fn(usize) -> Vec<u8>) -> bool {
        // Large writes, so that the broker finds many frames at once.
        const FRAMES_PER_WRITE: usize = 500;
        for first in (0..count).step_by(FRAMES_PER_WRITE) {
            let last = count.min(first + FRAMES_PER_WRITE);
            let many: Vec<u8> = (first..last).flat_map(&bytes).collect();
            if !self.send(&many).await {
                return false;
            }
        }
        true
    }

    /// Waits until the broker has sent what `enough` asks for, or closed.
    pub(crate) async fn until(&mut self, enough: impl Fn(&Seen) -> bool) -> Seen {
        let seen = self.seen.wait_for(|seen| seen.closed || enough(seen));
        in_time(seen).await.expect("the reader notes its end").clone()
    }

    /// Waits until the broker has closed.
    pub(crate) async fn closed(&mut self) -> Seen {
        self.until(|_| false).await
    }

    /// Sends a ping and waits for its answer: true when the connection lives.
    pub(crate) async fn lives(&mut self) -> bool {
        let before = self.seen.borrow().pongs;
        self.send(&frame(PING, 0, 0, &[7; 8])).await
            && self.until(|seen| seen.pongs > before).await.pongs > before
    }
}

/// Notes every frame until the end.
async fn read(mut reader: OwnedReadHalf, noted: watch::Sender<Seen>) {
    while let Some((kind, flags, stream, payload)) = next_frame(&mut reader).await {
        noted.send_modify(|seen| seen.note(kind, flags, stream, &payload));
    }
    noted.send_modify(|seen| seen.closed = true);
}

async fn next_frame(reader: &mut OwnedReadHalf) -> Option<(u8, u8, u32, Bytes)> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let [l0, l1, l2, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; number(&[l0, l1, l2]) as usize];
    reader.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, number(&stream), payload.into()))
}

impl Seen {
    fn note(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            DATA => self.data_bytes += payload.len(),
            HEADERS => drop(self.answered.insert(stream)),
            RST_STREAM => self.resets.push(stream),
            SETTINGS if flags & ACK != 0 => self.settings_acks += 1,
            PING if flags & ACK != 0 => self.pongs += 1,
            GOAWAY => self.goaway = Some(number(&payload[4..8])),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.ended.insert(stream);
        }
    }
}

/// A big-endian number.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn be16(number: u16) -> [u8; 2] {
    [8, 0].map(|shift| u8::try_from(number >> shift & 0xff).unwrap())
}

/// A number as frames carry it.
pub(crate) fn be32(number: u32) -> [u8; 4] {
    [24, 16, 8, 0].map(|shift| u8::try_from(number >> shift & 0xff).unwrap())
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = be32(u32::try_from(payload.len()).unwrap());
    [&length[..], &[kind, flags], &be32(stream), payload].concat()
}

/// A header, literal and not indexed.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    literal(0, name, value)
}

/// A header that the broker is to keep in its table.
pub(crate) fn kept_header(name: &str, value: &str) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(form: u8, name: &str, value: &str) -> Vec<u8> {
    [&[form], &length(name)[..], name.as_bytes(), &length(value), value.as_bytes()].concat()
}

/// A string length: seven bits, then seven at a time.
fn length(text: &str) -> Vec<u8> {
    if text.len() < 127 {
        return vec![u8::try_from(text.len()).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![127], text.len() - 127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128 + 128).unwrap());
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The header block of a call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "localhost"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// A message as gRPC frames it, not compressed.
pub(crate) fn message(body: &impl prost::Message) -> Vec<u8> {
    let body = body.encode_to_vec();
    [&[0], &be32(u32::try_from(body.len()).unwrap())[..], &body].concat()
}
