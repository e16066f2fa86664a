//! Streams by the web door: what the published suite cannot see, because it takes a restart, a clock or another door.

use std::{net::SocketAddr, time::Duration};

use riverrun_broker::clock::Clock;
use riverrun_storage::disk::sim::{CrashPolicy, SimDisk};

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{Head, Http, Reply, call, call_with},
    process::Broker,
};

const TEXT: &str = "content-type: text/plain";
const JSON: &str = "content-type: application/json";

async fn put(web: SocketAddr, name: &str, headers: &[&str], body: &[u8]) -> Reply {
    call_with(web, &format!("PUT /v1/stream/{name}"), headers, body).await
}

async fn post(web: SocketAddr, name: &str, headers: &[&str], body: &[u8]) -> Reply {
    call_with(web, &format!("POST /v1/stream/{name}"), headers, body).await
}

async fn get(web: SocketAddr, path: &str) -> Reply {
    call_with(web, &format!("GET /v1/stream/{path}"), &[], b"").await
}

/// The status of a stream by `HEAD`, which is no use of it.
async fn head(web: SocketAddr, name: &str) -> u16 {
    head_of(web, name).await.status
}

/// What `HEAD` says; there is no body after it.
async fn head_of(web: SocketAddr, name: &str) -> Head {
    let mut http = Http::connect(web).await;
    http.ask(&format!("HEAD /v1/stream/{name}"), &[], b"").await;
    http.head().await
}

/// The headers of a producer's turn.
fn turn(id: &str, epoch: u32, seq: u32) -> [String; 3] {
    [
        format!("producer-id: {id}"),
        format!("producer-epoch: {epoch}"),
        format!("producer-seq: {seq}"),
    ]
}

#[track_caller]
fn status(reply: &Reply, expected: u16) {
    let said = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.head.status, expected, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_of_writers_and_the_end_of_a_stream_outlive_a_crash() {
    let mut broker = Broker::start();
    let web = broker.web_address.parse().unwrap();
    status(&put(web, "s", &[TEXT, "stream-ttl: 3600"], b"a").await, 201);
    for seq in [0, 1] {
        let [id, epoch, seq] = turn("p", 3, seq);
        let headers = [TEXT, &id, &epoch, &seq];
        status(&post(web, "s", &headers, b"b").await, 200);
    }
    status(&post(web, "s", &[TEXT, "stream-seq: 07"], b"c").await, 204);
    broker.kill();
    broker.restart();
    let web = broker.web_address.parse().unwrap();
    let attempt = async |(epoch, seq): (u32, u32)| {
        let [id, epoch, seq] = turn("p", epoch, seq);
        post(web, "s", &[TEXT, &id, &epoch, &seq], b"x").await
    };
    let repeated = attempt((3, 0)).await;
    status(&repeated, 204);
    assert_eq!(repeated.header("producer-seq"), Some("1"));
    let stale = attempt((2, 0)).await;
    stale.refused((403, "PRODUCER_FENCED"), &["producer-epoch", "3", "2"]);
    let gap = attempt((3, 3)).await;
    gap.refused((409, "OUT_OF_ORDER_SEQUENCE"), &["`p`"]);
    assert_eq!(gap.header("producer-expected-seq"), Some("2"));
    let behind = post(web, "s", &[TEXT, "stream-seq: 07"], b"x").await;
    behind.refused((409, "STREAM_SEQ_CONFLICT"), &["07"]);
    let [id, epoch, seq] = turn("p", 3, 2);
    let last = [TEXT, "stream-closed: true", &id, &epoch, &seq];
    status(&post(web, "s", &last, b"d").await, 200);
    broker.kill();
    broker.restart();
    let web = broker.web_address.parse().unwrap();
    let read = get(web, "s").await;
    assert_eq!((read.body.as_slice(), read.header("stream-closed")), (&b"abbcd"[..], Some("true")));
    let known = head_of(web, "s").await;
    assert_eq!(known.header("stream-closed"), Some("true"));
    assert_eq!(known.header("stream-ttl"), Some("3600"));
    assert_eq!(known.header("stream-next-offset"), read.header("stream-next-offset"));
    status(&post(web, "s", &last, b"other").await, 204);
    let closed = post(web, "s", &[TEXT], b"x").await;
    closed.refused((409, "STREAM_CLOSED"), &["closed"]);
    assert_eq!(closed.header("stream-next-offset"), read.header("stream-next-offset"));
    assert_eq!(get(web, "s").await.body, b"abbcd");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_doors_read_a_stream_and_do_not_write_it() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    status(&put(web, "s", &[JSON], br#"[{"n": 1}, 2]"#).await, 201);
    status(&post(web, "s", &["stream-closed: true"], b"").await, 204);
    let records = call(web, "GET /v1/topics/s/partitions/0/records", b"").await.ok(200);
    let values = records["records"].as_array().unwrap();
    assert_eq!(values[0]["value"], r#"{"n": 1}"#);
    assert_eq!(values[1]["value"], "2");
    assert_eq!(values[2]["headers"][0]["key"], "stream-closed");
    assert_eq!(call(web, "GET /v1/topics/s", b"").await.ok(200)["config"]["retention_ms"], -1);
    for (line, body) in [
        ("POST /v1/topics/s/records", r#"{"value": "x"}"#),
        ("PATCH /v1/topics/s", r#"{"config": {"retention_ms": 1000}}"#),
        ("PATCH /v1/topics/s", r#"{"config": {"cleanup_policy": "compact"}}"#),
        ("PATCH /v1/topics/s", r#"{"reset": ["retention_ms"]}"#),
        ("PATCH /v1/topics/s", r#"{"config": {"durability": "os"}}"#),
        ("PATCH /v1/topics/s", r#"{"partitions": 2}"#),
        ("DELETE /v1/topics/s/partitions/0/records?before=1", ""),
    ] {
        let reply = call(web, line, body.as_bytes()).await;
        reply.refused((400, "INVALID_ARGUMENT"), &["`s` is a stream", "/v1/stream/s"]);
    }
    let harmless = call(web, "PATCH /v1/topics/s", br#"{"config": {"segment_ms": 60000}}"#).await;
    harmless.ok(200);
    status(&post(web, "s", &[JSON], b"3").await, 409);
    assert_eq!(get(web, "s").await.body, br#"[{"n": 1},2]"#);
    call(web, "DELETE /v1/topics/s", b"").await;
    assert_eq!(head(web, "s").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_of_any_topic_is_read_as_a_stream_and_has_no_end() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 2).await;
    let octets = "content-type: application/octet-stream";
    for value in ["a", "b", "c"] {
        status(&post(web, "t/1", &[octets], value.as_bytes()).await, 204);
    }
    let read = get(web, "t/1").await;
    assert_eq!(read.body, b"abc");
    assert_eq!(get(web, "t").await.body, b"", "partition 0");
    assert_eq!(head(web, "t/2").await, 404);
    for headers in [
        vec![octets, "stream-closed: true"],
        vec![octets, "stream-seq: 1"],
        vec![octets, "producer-id: p", "producer-epoch: 0", "producer-seq: 0"],
    ] {
        let reply = post(web, "t/1", &headers, b"x").await;
        reply.refused((409, "NOT_A_STREAM"), &["`t`", "not created as a stream"]);
    }
    put(web, "t", &[octets], b"").await.refused((409, "STREAM_EXISTS"), &["`t`"]);
    let fork = ["stream-forked-from: /v1/stream/t"];
    put(web, "f", &fork, b"").await.refused((409, "NOT_A_STREAM"), &["be forked"]);
    let delete = call(web, "DELETE /v1/stream/t", b"").await;
    delete.refused((409, "NOT_A_STREAM"), &["be deleted"]);
    call(web, "DELETE /v1/topics/t/partitions/1/records?before=2", b"").await.ok(200);
    assert_eq!(get(web, "t/1").await.body, b"c");
    let first = "t/1?offset=0000000000000000_0000000000000000";
    get(web, first).await.refused((410, "OFFSET_OUT_OF_RANGE"), &["2"]);
    let ahead = "t/1?offset=0000000000000000_0000000000000009";
    get(web, ahead).await.refused((400, "OFFSET_OUT_OF_RANGE"), &["9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_expires_by_the_broker_s_clock_and_its_topic_goes() {
    let (clock, hand) = Clock::manual(1_800_000_000_000);
    let disk = SimDisk::new(3);
    let broker = TestBroker::start_at((disk, clock), |_| ()).await;
    let web = broker.web_address();
    status(&put(web, "idle", &[TEXT, "stream-ttl: 10"], b"a").await, 201);
    status(&put(web, "used", &[TEXT, "stream-ttl: 10"], b"a").await, 201);
    let at = "stream-expires-at: 2027-01-15T08:00:15Z";
    status(&put(web, "fixed", &[TEXT, at], b"a").await, 201);
    hand.advance(Duration::from_secs(9));
    status(&get(web, "used").await, 200);
    status(&get(web, "fixed").await, 200);
    hand.advance(Duration::from_secs(1));
    assert_eq!((head(web, "idle").await, head(web, "used").await), (404, 200));
    status(&put(web, "idle", &[TEXT], b"b").await, 201);
    assert_eq!(get(web, "idle").await.body, b"b", "its name is free at once");
    hand.advance(Duration::from_secs(5));
    assert_eq!((head(web, "fixed").await, head(web, "used").await), (404, 200));
    // Nobody asks for it any more: the rounds of the house find it.
    hand.advance(Duration::from_secs(10));
    let gone = async {
        while call(web, "GET /v1/topics/used", b"").await.head.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the house is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_of_a_stream_is_there_after_a_power_cut() {
    let (clock, _hand) = Clock::manual(1_800_000_000_000);
    let disk = SimDisk::new(5);
    let broker = TestBroker::start_at((disk.clone(), clock.clone()), |_| ()).await;
    let web = broker.web_address();
    let whole = [TEXT, "stream-closed: true"];
    status(&put(web, "source", &whole, b"hello").await, 201);
    let fork = [
        "stream-forked-from: /v1/stream/source",
        "stream-fork-offset: 0000000000000000_0000000000000000",
        "stream-fork-sub-offset: 4",
    ];
    status(&put(web, "fork", &fork, b" is empty").await, 201);
    status(&call(web, "DELETE /v1/stream/source", b"").await, 204);
    assert_eq!(head(web, "source").await, 410);
    let left = disk.crash(CrashPolicy::lose_all());
    drop(broker);
    let broker = TestBroker::start_at((left, clock), |_| ()).await;
    let web = broker.web_address();
    assert_eq!(get(web, "fork").await.body, b"hell is empty");
    assert_eq!(head(web, "source").await, 410);
    put(web, "source", &[TEXT], b"").await.refused((409, "STREAM_EXISTS"), &["deleted"]);
    status(&put(web, "fork", &fork, b"").await, 200);
    status(&call(web, "DELETE /v1/stream/fork", b"").await, 204);
    assert_eq!(head(web, "source").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fork_is_made_at_a_place_that_a_restored_copy_of_the_data_never_had() {
    let (clock, hand) = Clock::manual(1_800_000_000_000);
    let start = async |disk: &SimDisk| {
        hand.advance(Duration::from_secs(60));
        TestBroker::start_at((disk.clone(), clock.clone()), |_| ()).await
    };
    let disk = SimDisk::new(9);
    let broker = start(&disk).await;
    status(&put(broker.web_address(), "s", &[TEXT], b"a").await, 201);
    broker.stop().await;
    let backup = disk.copy();
    let broker = start(&disk).await;
    let web = broker.web_address();
    status(&post(web, "s", &[TEXT], b"b").await, 204);
    let told = post(web, "s", &[TEXT], b"c").await;
    let place = told.header("stream-next-offset").unwrap().to_owned();
    let restored = start(&backup).await;
    let web = restored.web_address();
    for body in ["x", "y", "z"] {
        status(&post(web, "s", &[TEXT], body.as_bytes()).await, 204);
    }
    let offset = format!("stream-fork-offset: {place}");
    let fork = ["stream-forked-from: /v1/stream/s", &offset];
    put(web, "f", &fork, b"").await.refused((410, "OFFSET_TRUNCATED"), &[]);
    assert_eq!(head(web, "f").await, 404);
    // The place is sound where it was told.
    status(&put(broker.web_address(), "f", &fork, b"").await, 201);
    assert_eq!(get(broker.web_address(), "f").await.body, b"abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_of_a_live_reader_never_goes_back() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    status(&put(web, "s", &[TEXT], b"a").await, 201);
    let mut http = Http::connect(web).await;
    // From an hour to come, so that the broker moves it on by an amount of its own.
    let ahead = 10_000_000;
    let line = format!("GET /v1/stream/s?offset=-1&live=sse&cursor={ahead}");
    http.ask(&line, &[], b"").await;
    assert_eq!(http.head().await.status, 200);
    let mut last = ahead;
    for _ in 0..20 {
        let text = String::from_utf8(http.chunk().await.unwrap()).unwrap();
        let control = text.split("event: control\ndata:").nth(1).unwrap();
        let control: serde_json::Value = serde_json::from_str(control.trim()).unwrap();
        let cursor = control["streamCursor"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(cursor > ahead && cursor >= last, "{cursor} after {last}");
        last = cursor;
        status(&post(web, "s", &[TEXT], b"b").await, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_keep_no_refusal_and_nothing_that_compaction_changes() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    assert_eq!(get(web, "s").await.header("cache-control"), Some("no-store"));
    let compacted = br#"{"topic": "t", "config": {"cleanup_policy": "compact"}}"#;
    call(web, "POST /v1/topics", compacted).await.ok(201);
    create(web, "u", 1).await;
    status(&put(web, "s", &[TEXT], b"a").await, 201);
    let caching = async |name: &str| {
        let read = get(web, name).await;
        (read.header("etag").is_some(), read.header("cache-control").unwrap().to_owned())
    };
    assert_eq!(caching("t/0").await, (false, "no-store".into()));
    assert_eq!(caching("u/0").await, (true, "no-cache".into()));
    assert_eq!(caching("s").await, (true, "no-cache".into()));
    let tag = get(web, "s").await.header("etag").unwrap().to_owned();
    for known in ["*", &tag, &format!("W/{tag}")] {
        let header = format!("if-none-match: {known}");
        status(&call_with(web, "GET /v1/stream/s", &[&header], b"").await, 304);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_protocol_or_the_log_cannot_mean_is_refused_by_name() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    for line in ["PUT /v1/stream/__ds", "GET /v1/stream/__ds/subscriptions/a"] {
        call(web, line, b"").await.refused((501, "STREAM_SUBSCRIPTIONS"), &["/v1/subscriptions"]);
    }
    let refused = async |headers: &[&str], parts: &[&str]| {
        put(web, "s", headers, b"").await.refused((400, "INVALID_ARGUMENT"), parts);
    };
    refused(&["stream-ttl: 01"], &["stream-ttl", "01"]).await;
    refused(&["stream-expires-at: soon"], &["stream-expires-at", "RFC 3339"]).await;
    refused(&["content-type: text"], &["content-type", "media type"]).await;
    refused(&["stream-fork-offset: 0_0"], &["stream-fork-offset", "alone"]).await;
    refused(&["stream-forked-from: /v1/topics/t"], &["stream-forked-from", "path"]).await;
    status(&put(web, "s", &[TEXT], b"\xff").await, 201);
    let unreadable = get(web, "s?offset=-1&live=sse").await;
    let text = String::from_utf8(unreadable.body).unwrap();
    assert!(text.starts_with("event: problem\ndata:{") && text.contains("NOT_UTF8"), "{text}");
    let page = get(web, "s").await;
    assert_eq!(page.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    let long = format!("producer-id: {}", "x".repeat(257));
    let headers = [TEXT, &long, "producer-epoch: 0", "producer-seq: 0"];
    let reply = post(web, "s", &headers, b"x").await;
    reply.refused((400, "INVALID_ARGUMENT"), &["producer-id", "256"]);
    let large = vec![b'x'; 5 << 20];
    let reply = post(web, "s", &[TEXT], &large).await;
    reply.refused((413, "RECORD_TOO_LARGE"), &["message_bytes_max"]);
    assert_eq!(get(web, "s").await.body, b"\xff", "nothing of it was appended");
}
