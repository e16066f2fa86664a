//! The attacks: what is sent, by how many connections, and how fast.

use std::time::Duration;

use prost::Message;
use riverrun_proto::{
    BatchBuilder, BuilderOptions, Compression,
    batch::EncodeError,
    grpc::v1::{AppendRequest, FetchPartition, FetchRequest, append_request::Payload},
};

use super::{
    TOPIC,
    wire::{
        CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, call,
        frame, greeting, header, number, whole_call,
    },
};
use crate::error::{Error, Result};

const APPEND: &str = "/riverrun.v1.Produce/Append";
const PIPELINE: &str = "/riverrun.v1.Produce/AppendPipeline";
const FETCH: &str = "/riverrun.v1.Fetch/Fetch";
/// The window of a client that wants to read.
const WINDOW: u32 = 1 << 20;
/// Records of 1 MiB of zeros in a bomb; a broker inflates up to 64 MiB.
const BOMB_RECORDS: usize = 60;

/// One attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) connections: usize,
    /// What a connection begins with.
    pub(super) opening: Vec<u8>,
    pub(super) then: Then,
}

/// What the nth piece of a flood is.
type Piece = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// What a connection does once it has begun.
pub(super) enum Then {
    /// It sends the pieces without a pause, and reads what comes.
    Floods(Piece),
    /// It sends this again and again, with a pause, and reads nothing.
    Trickles(Vec<u8>, Duration),
    /// It waits until the broker closes, and comes again.
    Returns,
    /// Nothing; it reads nothing either.
    Waits,
}

/// All of them.
pub(super) fn all() -> Result<Vec<Attack>> {
    let bomb = bomb()?;
    let mut attacks = vec![
        flood("streams opened and reset", |nth| {
            [open(nth, &[]), frame(RST_STREAM, 0, stream(nth), &number(8))].concat()
        }),
        flood("streams that the broker must reset", |nth| {
            let overflow = frame(WINDOW_UPDATE, 0, stream(nth), &number(0x7fff_ffff));
            [open(nth, &[]), overflow].concat()
        }),
        flood("header lists past the limit", |nth| {
            // Kept in the broker's table once, and named again and again.
            let kept = [&[0x40, 1, b'x', 120][..], "y".repeat(120).as_bytes()].concat();
            open(nth, &[kept, vec![0x80 | 62; 1_000]].concat())
        }),
        flood("pings", |_| frame(PING, 0, 0, &[1; 8])),
        flood("settings", |_| frame(SETTINGS, 0, 0, &[])),
        flood("messages that are none", |nth| whole_call(APPEND, stream(nth), &[0xff; 64])),
        flood("messages of 4 GiB announced", |nth| {
            let announced = frame(DATA, 0, stream(nth), &[0, 0xff, 0xff, 0xff, 0xff]);
            [open(nth, &[]), announced].concat()
        }),
        flood("batches that inflate a thousandfold", move |nth| {
            whole_call(APPEND, stream(nth), &bomb)
        }),
    ];
    attacks.extend(begun());
    Ok(attacks)
}

/// Those that begin with more than a greeting.
fn begun() -> [Attack; 6] {
    let headers = frame(HEADERS, 0, 1, &call(APPEND));
    let endless = header("x", &"y".repeat(100));
    let pipeline = frame(HEADERS, END_HEADERS, 1, &call(PIPELINE));
    let read = read();
    let reads = (0..16).map(|nth| whole_call(FETCH, stream(nth), &read)).collect::<Vec<_>>();
    let after = |greeting: Vec<u8>, more: &[u8]| [&greeting, more].concat();
    let attack = |name, connections, opening, then| Attack { name, connections, opening, then };
    [
        attack(
            "a header block without end",
            1,
            after(greeting(WINDOW), &headers),
            Then::Floods(Box::new(move |_| frame(CONTINUATION, 0, 1, &endless))),
        ),
        attack(
            "empty data",
            1,
            after(greeting(WINDOW), &pipeline),
            Then::Floods(Box::new(|_| frame(DATA, 0, 1, &[]))),
        ),
        attack("reads without a window", 100, after(greeting(0), &reads.concat()), Then::Waits),
        attack(
            "calls byte by byte",
            1_000,
            after(greeting(WINDOW), &pipeline),
            Then::Trickles(frame(DATA, 0, 1, &[0]), Duration::from_millis(100)),
        ),
        attack("idle connections", 9_000, greeting(WINDOW), Then::Waits),
        attack(
            "connections opened and closed",
            1,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Then::Returns,
        ),
    ]
}

fn flood(name: &'static str, piece: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Attack {
    let then = Then::Floods(Box::new(piece));
    Attack { name, connections: 1, opening: greeting(WINDOW), then }
}

/// The nth stream of a client.
fn stream(nth: u32) -> u32 {
    nth * 2 + 1
}

/// The beginning of the nth call of a client, an append with these headers as well.
fn open(nth: u32, headers: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream(nth), &[&call(APPEND), headers].concat())
}

/// A read from the beginning.
fn read() -> Vec<u8> {
    let from = FetchPartition { topic: TOPIC.into(), ..FetchPartition::default() };
    let request = FetchRequest { partitions: vec![from], ..FetchRequest::default() };
    request.encode_to_vec()
}

/// An append of a batch of zeros, about as many as a broker inflates.
fn bomb() -> Result<Vec<u8>> {
    let wrong = |error: EncodeError| Error::Wrong(error.to_string());
    let mut builder = BatchBuilder::new(Compression::Gzip, BuilderOptions::default());
    let zeros = vec![0; 1 << 20];
    for _ in 0..BOMB_RECORDS {
        builder.push_parts(1_700_000_000_000, None, Some(&zeros), &[]).map_err(wrong)?;
    }
    let batch = builder.build().map_err(wrong)?.into_bytes();
    let payload = Some(Payload::Batch(batch));
    let request = AppendRequest { topic: TOPIC.into(), payload, ..AppendRequest::default() };
    Ok(request.encode_to_vec())
}
