//! The memory of the broker stays under its bound, whatever clients begin and do not end.
//!
//! The broker runs in a process of its own, so that the peak is its own. Every flood asks for many times the
//! bound; a client that behaves works on meanwhile.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use riverrun_proto::{
    Record,
    batch::{BatchBuilder, BuilderOptions, Compression, HEADER_BYTES},
    grpc::v1,
};
use tokio::{
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};
use tonic::{Code, codegen::http};

use crate::support::{
    broker::Stubs,
    client::in_time,
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Wire, be32, call, frame, message},
    process::Broker,
    raw_call,
    records::{append, batch_around, fetch},
};

const MIB: usize = 1 << 20;
/// By these settings requests and replies take at most 16 + 32 MiB, and 3 MiB for each connection:
/// 1 of window, 2 of its own, and as little as calls take themselves.
const SETTINGS: &str = r#"
[grpc]
message_bytes_max = "4MiB"
window_bytes = "1MiB"
[limits]
in_flight_bytes_per_connection_max = "8MiB"
receive_bytes_max = "16MiB"
read_bytes_max = "32MiB"
read_bytes_per_connection_max = "16MiB"
connection_bytes = "1MiB"
quota_wait = "300ms"
[threads]
io = 2
readers = 2
"#;
/// What a flood may add to the peak: the bound, and something for a build without optimisation.
const GROWTH_MAX: usize = 128 * MIB;
/// What bombs may add: what each of the threads that inflate may hold.
const BOMB_GROWTH_MAX: usize = 512 * MIB;

/// A broker with a topic `t`, and a client that behaves.
async fn house() -> (Broker, Stubs) {
    let broker = Broker::start_with(SETTINGS);
    let mut stubs = Stubs::connect(&broker.address).await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    check_well(&mut stubs).await;
    (broker, stubs)
}

fn address(broker: &Broker) -> SocketAddr {
    broker.address.parse().unwrap()
}

/// Checks that appends and reads of the healthy client go on, with more than is free of charge.
async fn check_well(stubs: &mut Stubs) {
    let value = "v".repeat(100_000);
    for _ in 0..5 {
        let receipt = in_time(stubs.append("t", &[&value])).await;
        let read = v1::FetchRequest { max_records: 1, ..fetch("t", receipt.base_offset) };
        let read = in_time(stubs.fetch.fetch(read)).await.expect("read").into_inner();
        assert_eq!(read.partitions[0].records[0].value.as_ref().unwrap().len(), value.len());
    }
}

/// A call that sends all of `body` and does not end. Ends when all is sent, or the broker answered.
async fn begin(
    sender: h2::client::SendRequest<Bytes>,
    path: &'static str,
    mut body: Bytes,
) -> Option<h2::SendStream<Bytes>> {
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut sender = sender.ready().await.ok()?;
    let (response, mut stream) = sender.send_request(request, false).ok()?;
    let sending = async {
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let capacity = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
            let Some(Ok(count)) = capacity else { return None };
            stream.send_data(body.split_to(count.min(body.len())), false).ok()?;
        }
        Some(())
    };
    tokio::select! {
        sent = sending => sent?,
        _ = response => return None,
    }
    Some(stream)
}

/// A connection whose calls have begun, and which of them were taken up to their last byte.
struct Begun {
    driver: JoinHandle<Result<(), h2::Error>>,
    taken: Vec<h2::SendStream<Bytes>>,
}

async fn begin_many(address: SocketAddr, calls: usize, path: &'static str, body: &Bytes) -> Begun {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.max_send_buffer_size(16 * MIB);
    let (sender, connection) = builder.handshake::<_, Bytes>(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let begun = (0..calls).map(|_| begin(sender.clone(), path, body.clone()));
    let taken = in_time(join_all(begun)).await.into_iter().flatten().collect();
    Begun { driver, taken }
}

#[tokio::test]
async fn half_received_requests_keep_the_bound() {
    const CONNECTIONS: usize = 8;
    const CALLS: usize = 32;
    const SENT: usize = 3 * MIB;
    for path in ["/riverrun.v1.Produce/Append", "/riverrun.v1.Produce/AppendPipeline"] {
        let (broker, mut healthy) = house().await;
        let before = broker.peak_bytes();
        let declared = u32::try_from(4 * MIB).unwrap();
        let body: Bytes = [&[0], &be32(declared)[..], &vec![7; SENT]].concat().into();
        let mut flood = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (address, body) = (address(&broker), body.clone());
            flood.spawn(async move { begin_many(address, CALLS, path, &body).await });
        }
        for _ in 0..3 {
            check_well(&mut healthy).await;
        }
        let begun: Vec<Begun> = flood.join_all().await;
        check_well(&mut healthy).await;
        let growth = broker.peak_bytes() - before;
        let taken: usize = begun.iter().map(|begun| begun.taken.len()).sum();
        assert!(growth < GROWTH_MAX, "{growth} bytes more for {taken} calls of {path}");
        begun.iter().for_each(|begun| begun.driver.abort());
    }
}

/// Fills the topic, so that every fetch has its 4 MiB.
async fn fill(stubs: &mut Stubs) {
    let value = "v".repeat(900_000);
    for _ in 0..5 {
        stubs.append("t", &[&value]).await;
    }
    let all = v1::FetchRequest { max_bytes: 8 << 20, ..fetch("t", 0) };
    in_time(stubs.fetch.fetch(all)).await.expect("read");
}

#[tokio::test]
async fn replies_that_nobody_reads_keep_the_bound() {
    const CONNECTIONS: usize = 8;
    const CALLS: usize = 32;
    /// The setting of the first window of a stream.
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const FETCH: &str = "/riverrun.v1.Fetch/Fetch";
    const PIPELINE: &str = "/riverrun.v1.Fetch/FetchPipeline";
    // Without a window the broker cannot begin to send; with one byte it can.
    for (window, format, path) in [
        (0, v1::RecordFormat::Encoded, FETCH),
        (1, v1::RecordFormat::Encoded, FETCH),
        (1, v1::RecordFormat::Structured, FETCH),
        (1, v1::RecordFormat::Encoded, PIPELINE),
    ] {
        let (broker, mut healthy) = house().await;
        fill(&mut healthy).await;
        let before = broker.peak_bytes();
        let mut large = v1::FetchRequest { max_bytes: 4 << 20, ..fetch("t", 0) };
        large.partitions[0].max_bytes = 4 << 20;
        large.format = format as i32;
        let asked = match path {
            FETCH => message(&large),
            _ => {
                let begin = message(&v1::FetchPipelineRequest { begin: Some(large) });
                let more = message(&v1::FetchPipelineRequest { begin: None });
                [begin, more.repeat(7)].concat()
            }
        };
        let mut wires = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut wire = Wire::greeted(address(&broker), &[(INITIAL_WINDOW_SIZE, window)]).await;
            for nth in 0..CALLS {
                let stream = u32::try_from(nth * 2 + 1).unwrap();
                let head = frame(HEADERS, END_HEADERS, stream, &call(path));
                let body = frame(DATA, END_STREAM, stream, &asked);
                assert!(wire.send(&[head, body].concat()).await);
            }
            wires.push(wire);
        }
        check_well(&mut healthy).await;
        for wire in &mut wires {
            let seen = wire.until(|seen| seen.answered.len() == CALLS).await;
            assert!(!seen.closed, "{seen:?}");
        }
        check_well(&mut healthy).await;
        let growth = broker.peak_bytes() - before;
        assert!(growth < GROWTH_MAX, "{growth} bytes more, {path}, {format:?}, window {window}");
    }
}

/// The records of a batch with 1 MiB of zeros, compressed.
fn zeros(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec, BuilderOptions::default());
    let value = Some(Bytes::from(vec![0; MIB]));
    builder.push(&Record { value, ..Record::default() }).expect("allowed");
    builder.build().expect("not empty").into_bytes().slice(HEADER_BYTES..)
}

/// Little that inflates to very much: what may be repeated of a stream, repeated.
fn bomb(codec: Compression) -> Vec<u8> {
    let piece = zeros(codec);
    match codec {
        Compression::None => panic!("does not inflate"),
        // Members and frames may follow each other.
        Compression::Gzip | Compression::Zstd => piece.repeat(1_024),
        // It shrinks zeros only to a twentieth.
        Compression::Snappy => [&piece[..16], &piece[16..].repeat(80)].concat(),
        // Magic, descriptor and its checksum take 7 bytes, the end mark 4.
        Compression::Lz4 => {
            let (head, rest) = piece.split_at(7);
            let (blocks, end) = rest.split_at(rest.len() - 4);
            [head, &blocks.repeat(900), end].concat()
        }
    }
}

#[tokio::test]
async fn bombs_are_refused_and_keep_the_bound() {
    const AT_ONCE: usize = 8;
    let (broker, mut healthy) = house().await;
    let before = broker.peak_bytes();
    for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
        let batch = batch_around(codec, &bomb(codec));
        assert!(batch.len() < 4 * MIB, "{codec} has {} bytes", batch.len());
        let payload = Some(v1::append_request::Payload::Batch(batch));
        let request = message(&v1::AppendRequest { payload, ..append("t", &["unused"]) });
        let calls = (0..AT_ONCE).map(|_| {
            let request = request.clone();
            raw_call::call(address(&broker), "/riverrun.v1.Produce/Append", &[], request)
        });
        for answer in join_all(calls).await {
            if answer.status.code() == Code::ResourceExhausted {
                // There was no room for it beside the others.
                continue;
            }
            let text = format!("`{codec}` data inflates to more than `{}` bytes", 64 * MIB);
            answer.check_refused(Code::InvalidArgument, v1::ErrorCode::CorruptBatch, &text);
        }
    }
    // The same as a compressed message, which no call takes.
    let mut message = bomb(Compression::Gzip);
    let length = u32::try_from(message.len()).unwrap();
    message.splice(..0, [&[1], &be32(length)[..]].concat());
    for path in ["/riverrun.v1.Produce/Append", "/riverrun.v1.Produce/AppendPipeline"] {
        let headers = [("grpc-encoding", "gzip")];
        let answer = raw_call::call(address(&broker), path, &headers, message.clone()).await;
        answer.check_refused(Code::Unimplemented, v1::ErrorCode::InvalidArgument, "gzip");
    }
    check_well(&mut healthy).await;
    let growth = broker.peak_bytes() - before;
    assert!(growth < BOMB_GROWTH_MAX, "{growth} bytes more");
}

#[tokio::test]
async fn metadata_of_one_large_topic_named_often_keeps_the_bound() {
    const PARTITIONS: u32 = 1_000;
    let (broker, mut healthy) = house().await;
    healthy.create("large", PARTITIONS, v1::TopicConfig::default()).await;
    let before = broker.peak_bytes();
    let named = |count| v1::GetMetadataRequest { topics: vec!["large".into(); count] };
    let described = in_time(healthy.admin.get_metadata(named(10_000))).await.expect("described");
    let topics = described.into_inner().topics;
    assert_eq!(topics.len(), 1, "named often, described once");
    assert_eq!(topics[0].partitions.len(), PARTITIONS as usize);
    let refused = in_time(healthy.admin.get_metadata(named(10_001))).await.unwrap_err();
    assert_eq!(refused.message(), "`topics` must be a list of at most 10000, found `10001`");
    check_well(&mut healthy).await;
    let growth = broker.peak_bytes() - before;
    assert!(growth < GROWTH_MAX, "{growth} bytes more");
}
