//! gRPC-Web: the messages of gRPC in plain requests, written and read here byte for byte.

#![expect(clippy::big_endian_bytes, reason = "gRPC counts a message in network order")]

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use riverrun_proto::grpc::v1;

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{Http, Reply, call_with},
    openmetrics::Scrape,
    records::{append, fetch, values},
};

const BINARY: &str = "content-type: application/grpc-web+proto";
const TEXT: &str = "content-type: application/grpc-web-text+proto";
/// Marks the trailers among the messages.
const TRAILERS: u8 = 0x80;

/// A message as gRPC wraps it.
fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &body].concat()
}

/// The messages of a reply, and the trailers behind them.
fn unframed(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let (frame, rest) = rest.split_at(length);
        if head[0] == TRAILERS {
            assert!(rest.is_empty(), "the trailers come last");
            return (messages, String::from_utf8(frame.to_vec()).unwrap().to_lowercase());
        }
        messages.push(frame.to_vec());
        body = rest;
    }
    panic!("no trailers behind {} messages", messages.len());
}

/// Calls with one message, and gives the one that came back.
async fn ask<R: Message + Default>(web: SocketAddr, path: &str, message: &impl Message) -> R {
    let reply = call_with(web, &format!("POST {path}"), &[BINARY], &framed(message)).await;
    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/grpc-web+proto"));
    let (messages, trailers) = unframed(&reply.body);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    assert_eq!(messages.len(), 1);
    R::decode(&messages[0][..]).unwrap()
}

/// What a reply in base64 says, and how much of it stands before each padding: pieces are padded by themselves.
fn from_text(reply: &Reply) -> (Vec<u8>, Vec<usize>) {
    let (mut body, mut padded) = (Vec::new(), Vec::new());
    for quad in reply.body.chunks(4) {
        body.extend(STANDARD.decode(quad).unwrap());
        if quad.ends_with(b"=") {
            padded.push(body.len());
        }
    }
    (body, padded)
}

/// How a refused call ended: in the headers, when there was nothing else to say, or in the trailers.
fn refusal(reply: &Reply) -> (String, String) {
    let trailers = match reply.header("grpc-status") {
        Some(_) => String::new(),
        None => unframed(&reply.body).1,
    };
    let find = |name: &str| {
        let in_trailers = trailers.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        let found = reply.header(name).or(in_trailers).unwrap_or_default();
        found.trim().replace("%20", " ").replace("%60", "`")
    };
    (find("grpc-status"), find("grpc-message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_in_and_come_out() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let done: v1::AppendResponse =
        ask(web, "/riverrun.v1.Produce/Append", &append("t", &["a", "b"])).await;
    assert_eq!((done.base_offset, done.end_offset), (0, 2));
    let read: v1::FetchResponse = ask(web, "/riverrun.v1.Fetch/Fetch", &fetch("t", 0)).await;
    assert_eq!(values(&read.partitions[0]), ["a", "b"]);
    // A type may have parameters, which say nothing here.
    let header = "content-type: application/grpc-web+proto; charset=utf-8";
    let body = framed(&fetch("t", 1));
    let reply = call_with(web, "POST /riverrun.v1.Fetch/Fetch", &[header], &body).await;
    let read = v1::FetchResponse::decode(&unframed(&reply.body).0[0][..]).unwrap();
    assert_eq!(values(&read.partitions[0]), ["b"]);
    let health: tonic_health::pb::HealthCheckResponse = ask(
        web,
        "/grpc.health.v1.Health/Check",
        &tonic_health::pb::HealthCheckRequest { service: "riverrun.v1.Fetch".into() },
    )
    .await;
    assert_eq!(health.status, 1, "it serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_send_and_read_text() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 3).await;
    let asked = v1::GetMetadataRequest { topics: vec!["t".into()] };
    let body = STANDARD.encode(framed(&asked));
    let line = "POST /riverrun.v1.Admin/GetMetadata";
    let reply =
        call_with(web, line, &[TEXT, "accept: application/grpc-web-text+proto"], body.as_bytes());
    let reply = reply.await;
    assert_eq!(reply.head.status, 200);
    let (body, _) = from_text(&reply);
    let (messages, trailers) = unframed(&body);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    let metadata = v1::GetMetadataResponse::decode(&messages[0][..]).unwrap();
    assert_eq!(metadata.topics[0].partitions.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_padded_behind_messages_and_not_within() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "tt", 1).await;
    // What stands before the large field is no multiple of three bytes.
    let large = "x".repeat(20_000);
    let _: v1::AppendResponse =
        ask(web, "/riverrun.v1.Produce/Append", &append("tt", &[&large])).await;
    let body = STANDARD.encode(framed(&fetch("tt", 0)));
    let headers = [TEXT, "accept: application/grpc-web-text+proto"];
    let line = "POST /riverrun.v1.Fetch/Fetch";
    let reply = call_with(web, line, &headers, body.as_bytes()).await;
    let (body, padded) = from_text(&reply);
    let (messages, _) = unframed(&body);
    let read = v1::FetchResponse::decode(&messages[0][..]).unwrap();
    assert_eq!(values(&read.partitions[0]), [large]);
    let end = 5 + messages[0].len();
    assert!(padded.iter().all(|at| *at >= end), "{padded:?}, and the message ends at {end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_replies_comes_while_it_is_open() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let watch = v1::WatchPartition { topic: "t".into(), partition: 0, all_partitions: false };
    let mut http = Http::connect(web).await;
    let body = framed(&v1::WatchRequest { partitions: vec![watch] });
    http.ask("POST /riverrun.v1.Fetch/Watch", &[BINARY], &body).await;
    assert_eq!(http.head().await.status, 200);
    let high_watermark = |chunk: Vec<u8>| {
        let told = v1::WatchResponse::decode(&chunk[5..]).unwrap();
        told.partitions[0].high_watermark
    };
    assert_eq!(high_watermark(http.chunk().await.unwrap()), 0);
    let _: v1::AppendResponse = ask(web, "/riverrun.v1.Produce/Append", &append("t", &["a"])).await;
    assert_eq!(high_watermark(http.chunk().await.unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_status_of_grpc_and_calls_are_counted() {
    let broker = TestBroker::start_with(|config| config.grpc.message_bytes_max = 64 << 10).await;
    let web = broker.web_address();
    let post = async |path: &str, header: &str, body: &[u8]| {
        call_with(web, &format!("POST {path}"), &[header], body).await
    };
    let unknown = framed(&v1::DescribeTopicRequest { topic: "none".into() });
    let reply = post("/riverrun.v1.Admin/DescribeTopic", BINARY, &unknown).await;
    let (status, message) = refusal(&reply);
    assert_eq!((reply.head.status, status.as_str()), (200, "5"), "{message}");
    assert!(message.contains("none"), "{message}");
    let (status, _) = refusal(&post("/riverrun.v1.Admin/Nothing", BINARY, &unknown).await);
    assert_eq!(status, "12");
    let large = framed(&append("t", &[&"x".repeat(65 << 10)]));
    let (status, message) = refusal(&post("/riverrun.v1.Produce/Append", BINARY, &large).await);
    assert_eq!(status, "3", "{message}");
    assert!(message.contains("65536"), "{message}");
    let (status, message) = refusal(&post("/riverrun.v1.Admin/GetMetadata", BINARY, b"\0\0").await);
    assert!(status != "0" && !message.is_empty(), "{status} {message}");

    let plain = "content-type: application/grpc";
    let reply = post("/riverrun.v1.Admin/GetMetadata", plain, &unknown).await;
    reply.refused((415, "UNSUPPORTED_MEDIA_TYPE"), &["application/grpc-web+proto"]);
    let reply = call_with(web, "GET /riverrun.v1.Admin/GetMetadata", &[], b"").await;
    reply.refused((405, "METHOD_NOT_ALLOWED"), &["GetMetadata"]);
    post("/riverrun.v1.Nobody/Nothing", BINARY, b"").await.refused((404, "NOT_FOUND"), &["Nobody"]);

    let scraped = call_with(web, "GET /metrics", &[], b"").await;
    let scraped = Scrape::parse(std::str::from_utf8(&scraped.body).unwrap());
    let labels = [("door", "grpc"), ("api", "Produce/Append")];
    assert!(scraped.value("riverrun_request_duration_seconds_count", &labels) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_falls_silent_ends_the_call() {
    let broker = TestBroker::start_with(|config| {
        config.http.body_timeout = Duration::from_millis(100);
    })
    .await;
    let mut http = Http::connect(broker.web_address()).await;
    let line = "POST /riverrun.v1.Admin/GetMetadata HTTP/1.1\r\nhost: localhost";
    http.send(format!("{line}\r\n{BINARY}\r\ncontent-length: 50\r\n\r\n\0\0")).await;
    let (status, message) = refusal(&http.reply().await);
    assert!(status != "0" && message.contains("http.body_timeout"), "{status} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_sites_may_read_how_a_call_ended() {
    let broker = TestBroker::start_with(|config| {
        config.http.cors_origins = vec!["https://shop.test".into()];
    })
    .await;
    let web = broker.web_address();
    let line = "POST /riverrun.v1.Admin/GetMetadata";
    let body = framed(&v1::GetMetadataRequest::default());
    let allowed = call_with(web, line, &[BINARY, "origin: https://shop.test"], &body).await;
    assert_eq!(allowed.head.status, 200);
    let exposed = allowed.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("grpc-message"), "{exposed}");
    let refused = call_with(web, line, &[BINARY, "origin: https://evil.test"], &body).await;
    refused.refused((403, "ORIGIN_NOT_ALLOWED"), &["evil"]);
}
