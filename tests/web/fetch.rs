//! Records out of a partition by the web door.

use serde_json::{Value, json};

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{Http, call, call_with},
};

const RECORDS: &str = "/v1/topics/t/partitions/0/records";

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_where_it_stopped() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let body: Vec<_> = (0..10).map(|n| json!({"value": n})).collect();
    call(web, "POST /v1/topics/t/records", Value::from(body).to_string().as_bytes()).await.ok(200);
    let (mut next, mut seen) = (0, Vec::new());
    while next < 10 {
        let line = format!("GET {RECORDS}?offset={next}&max_records=3");
        let reply = call(web, &line, b"").await;
        let read = reply.ok(200);
        next = read["next_offset"].as_u64().unwrap();
        assert_eq!(reply.header("riverrun-next-offset"), Some(next.to_string().as_str()));
        let records = read["records"].as_array().unwrap();
        seen.extend(records.iter().map(|record| record["offset"].as_u64().unwrap()));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    let end = call(web, &format!("GET {RECORDS}?offset=latest&max_wait=10ms"), b"").await.ok(200);
    assert_eq!((&end["records"], &end["next_offset"]), (&json!([]), &json!(10)));
    let past = call(web, &format!("GET {RECORDS}?offset=11"), b"").await;
    past.refused((416, "OFFSET_OUT_OF_RANGE"), &["11"]);
    assert_eq!(past.json()["range"], json!({"start_offset": 0, "end_offset": 10}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_by_the_record_it_waits_for() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut waiting = Http::connect(web).await;
    waiting.ask(&format!("GET {RECORDS}?max_wait=20s"), &[], b"").await;
    while broker.inside().services().fetch.waiter_count() == 0 {
        tokio::task::yield_now().await;
    }
    call(web, "POST /v1/topics/t/records", br#"{"value":"news"}"#).await.ok(200);
    assert_eq!(waiting.reply().await.ok(200)["records"][0]["value"], "news");
    waiting.ask(&format!("GET {RECORDS}?offset=1&max_wait=60s"), &[], b"").await;
    while broker.inside().services().fetch.waiter_count() == 0 {
        tokio::task::yield_now().await;
    }
    broker.stop().await;
    assert_eq!(waiting.reply().await.ok(200)["records"], json!([]), "the end answers who waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_no_longer_waits() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut waiting = Http::connect(web).await;
    waiting.ask(&format!("GET {RECORDS}?max_wait=60s"), &[], b"").await;
    while broker.inside().services().fetch.waiter_count() == 0 {
        tokio::task::yield_now().await;
    }
    drop(waiting);
    while broker.inside().services().fetch.waiter_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_etag_spare_the_body() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    call(web, "POST /v1/topics/t/records", br#"{"value":"a"}"#).await.ok(200);
    let read = call(web, &format!("GET {RECORDS}"), b"").await;
    let tag = read.header("etag").unwrap().to_owned();
    let asks = [format!("if-none-match: \"x\", {tag}")];
    let asks: Vec<_> = asks.iter().map(String::as_str).collect();
    let again = call_with(web, &format!("GET {RECORDS}"), &asks, b"").await;
    assert_eq!((again.head.status, again.body.len()), (304, 0));
    call(web, "POST /v1/topics/t/records", br#"{"value":"b"}"#).await.ok(200);
    let more = call_with(web, &format!("GET {RECORDS}"), &asks, b"").await;
    assert_eq!(more.ok(200)["next_offset"], 2);
    let mut http = Http::connect(web).await;
    http.ask(&format!("HEAD {RECORDS}?offset=latest&max_wait=60s"), &[], b"").await;
    let head = http.head().await;
    assert_eq!((head.status, head.header("riverrun-next-offset")), (200, Some("2")));
    http.ask("GET /readyz", &[], b"").await;
    http.reply().await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_follow_the_partition() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let accept = ["accept: application/x-ndjson"];
    let mut http = Http::connect(web).await;
    http.ask(&format!("GET {RECORDS}"), &accept, b"").await;
    assert_eq!(http.head().await.header("content-type"), Some("application/x-ndjson"));
    for n in 0..5 {
        let record = json!({"value": n}).to_string();
        call(web, "POST /v1/topics/t/records", record.as_bytes()).await.ok(200);
        let line = loop {
            let chunk = http.chunk().await.unwrap();
            if chunk != b"\n" {
                break chunk;
            }
        };
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&line["offset"], &line["value"]), (&json!(n), &json!(n.to_string())));
    }
    let whole = call_with(web, &format!("GET {RECORDS}?follow=false"), &accept, b"").await;
    assert_eq!(whole.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 5);
    let two = call_with(web, &format!("GET {RECORDS}?max_records=2"), &accept, b"").await;
    assert_eq!(two.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 2);
    broker.stop().await;
    while http.chunk().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_named() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let invalid = (400, "INVALID_ARGUMENT");
    for (query, part) in [
        ("offset=-1", "-1"),
        ("offset=99999999999999999999", "99999999999999999999"),
        ("max_wait=61s", "60000ms"),
        ("max_wait=-1s", "-1s"),
        ("max_bytes=0", "max_bytes"),
        ("max_bytes=1KB", "1KB"),
        ("ofset=1", "ofset"),
        ("offset=1&offset=2", "once"),
        ("follow=true", "follow"),
    ] {
        call(web, &format!("GET {RECORDS}?{query}"), b"").await.refused(invalid, &[part]);
    }
    let unknown = (404, "UNKNOWN_TOPIC_OR_PARTITION");
    call(web, "GET /v1/topics/t/partitions/1/records", b"").await.refused(unknown, &["1"]);
    call(web, "GET /v1/topics/t/partitions/x/records", b"").await.refused(invalid, &["partition"]);
    call(web, "GET /v1/topics/none/partitions/0/records", b"").await.refused(unknown, &["none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_records_come_as_lines_in_pieces_of_a_bound() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let body: Vec<_> = (0..10_000).map(|n| json!({"value": n})).collect();
    call(web, "POST /v1/topics/t/records", Value::from(body).to_string().as_bytes()).await.ok(200);
    for (query, count) in [("?follow=false", 10_000), ("?max_records=9000", 9_000)] {
        let mut http = Http::connect(web).await;
        http.ask(&format!("GET {RECORDS}{query}"), &["accept: application/x-ndjson"], b"").await;
        http.head().await;
        let mut lines = Vec::new();
        while let Some(chunk) = http.chunk().await {
            assert!(chunk.len() <= (256 << 10) + 200, "{} bytes at once", chunk.len());
            lines.extend(chunk);
        }
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let offset = |line| serde_json::from_slice::<Value>(line).unwrap()["offset"].as_u64();
        assert!(lines.map(offset).eq((0..count).map(Some)), "{query}");
    }
}
