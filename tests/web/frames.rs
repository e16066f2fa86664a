//! WebSockets frame by frame, by a client of its own: what breaks the protocol is answered by the code that RFC 6455 has for it.
//!
//! The yardstick asks an echo for the same; this asks the socket that works.

#![expect(clippy::big_endian_bytes, reason = "frames are in the order of the network")]

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::timeout,
};

use crate::support::{broker::TestBroker, http::Http};

/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(20);
/// Most bytes of a message.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// A masked frame as a client sends it; the mask is zero, so that the payload is as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, payload.len() as u64).as_slice(), payload].concat()
}

/// The header of a masked frame.
fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend(&length.to_be_bytes()[6..]);
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// What asks for a socket.
const UPGRADE: [&str; 5] = [
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-extensions: permessage-deflate; client_max_window_bits",
];

/// A socket that is open. Its client would compress; the door never agrees to that.
async fn open(web: SocketAddr) -> Http {
    let mut http = Http::connect(web).await;
    http.ask("GET /v1/ws", &UPGRADE, b"").await;
    let head = http.head().await;
    assert_eq!((head.status, head.header("sec-websocket-extensions")), (101, None));
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    http
}

/// The next frame: its first byte and its payload.
async fn next(from: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    let reading = async {
        let (first, second) = (from.read_u8().await?, from.read_u8().await?);
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let length = match second {
            127 => from.read_u64().await?,
            126 => u64::from(from.read_u16().await?),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>((first, payload))
    };
    timeout(DEADLINE, reading).await.expect("something in time").expect("a whole frame")
}

/// The payload of the close frame, before which there may be pings.
async fn closed(http: &mut Http) -> Vec<u8> {
    loop {
        let (first, payload) = next(&mut http.socket).await;
        match first {
            first if first == FIN | CLOSE => return payload,
            first if first == FIN | PING => {}
            other => panic!("{other:#x} {payload:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_closes_the_socket_with_the_code_for_it() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let unmasked = vec![FIN | TEXT, 2, b'{', b'}'];
    let fragments =
        |first: &[u8], next: u8, second: &[u8]| [frame(TEXT, first), frame(next, second)].concat();
    let many = || {
        let first = frame(TEXT, &[b' '; 1024]);
        let rest = (0..MESSAGE_BYTES_MAX / 1024).map(|_| frame(CONTINUATION, &[b' '; 1024]));
        [first].into_iter().chain(rest).flatten().collect::<Vec<u8>>()
    };
    for (name, sent, code) in [
        ("first reserved bit, which says compressed", frame(FIN | 0x40 | TEXT, b"{}"), 1002),
        ("second reserved bit", frame(FIN | 0x20 | TEXT, b"{}"), 1002),
        ("third reserved bit", frame(FIN | 0x10 | PING, b""), 1002),
        ("reserved kind of data", frame(FIN | 0x3, b""), 1002),
        ("reserved kind of control", frame(FIN | 0xb, b""), 1002),
        ("no mask", unmasked, 1002),
        ("fragmented ping", frame(PING, b""), 1002),
        ("ping of 126 bytes", frame(FIN | PING, &[0; 126]), 1002),
        ("nothing to continue", frame(FIN | CONTINUATION, b""), 1002),
        ("a message within another", fragments(b"{", FIN | TEXT, b"}"), 1002),
        ("text that is no UTF-8", frame(FIN | TEXT, b"\xff"), 1007),
        ("text that ends within a letter", fragments(b"\xc3", FIN | CONTINUATION, b""), 1007),
        ("text with a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("a close of one byte", frame(FIN | CLOSE, b"\x03"), 1002),
        ("a reason that is no UTF-8", close(1000, b"\xff"), 1007),
        ("a close of 126 bytes", close(1000, &[b'x'; 124]), 1002),
        ("a code of nobody", close(999, b""), 1002),
        ("a code that is never sent", close(1006, b""), 1002),
        ("a code that is reserved", close(1016, b""), 1002),
        ("a code past all", close(5000, b""), 1002),
        ("a good close", close(1000, b"bye"), 1000),
        ("a close with a code of one's own", close(4000, b""), 4000),
        ("a frame past the bound", header(FIN | TEXT, MESSAGE_BYTES_MAX as u64 + 1), 1009),
        ("a frame of 2^62 bytes", header(FIN | BINARY, 1 << 62), 1009),
        ("a frame of 2^64 - 1 bytes", header(FIN | BINARY, u64::MAX), 1009),
        ("a message past the bound in fragments", many(), 1009),
    ] {
        let mut http = open(web).await;
        http.send(&sent).await;
        let told = closed(&mut http).await;
        let found = told.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        assert_eq!(found, Some(code), "{name}: {}", String::from_utf8_lossy(&told));
        assert!(std::str::from_utf8(&told[2..]).is_ok(), "{name}");
        assert!(http.rest().await.is_empty(), "{name}: something came behind the close");
    }
    let mut http = open(web).await;
    http.send(frame(FIN | CLOSE, b"")).await;
    assert!(closed(&mut http).await.is_empty(), "no code is answered by none");
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_within_a_message_and_a_flood_of_them_holds_nothing_up() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let mut http = open(web).await;
    http.send([frame(TEXT, b"{\"op\":"), frame(FIN | PING, b"here?")].concat()).await;
    let pong = loop {
        match next(&mut http.socket).await {
            (first, payload) if first == FIN | PONG => break payload,
            (first, _) => assert_eq!(first, FIN | PING),
        }
    };
    assert_eq!(pong, b"here?");
    http.send(frame(FIN | CONTINUATION, b"\"dance\"}")).await;
    let (mut from, mut to) = split(http.socket);
    let flood = tokio::spawn(async move {
        let ping = frame(FIN | PING, &[7; 125]);
        for _ in 0..10_000 {
            to.write_all(&ping).await.unwrap();
        }
        to.write_all(&frame(FIN | TEXT, b"{\"op\":\"done\"}")).await.unwrap();
        to
    });
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let (first, payload) = next(&mut from).await;
        if first == FIN | TEXT {
            answers.push(String::from_utf8(payload).unwrap());
        }
    }
    assert!(answers[0].contains("dance") && answers[1].contains("done"), "{answers:?}");
    drop(flood.await.unwrap());
}
