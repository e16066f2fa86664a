//! Topics by the web door.

use serde_json::json;

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{call, call_with},
};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_described_changed_and_deleted() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    assert_eq!(call(web, "GET /v1/topics", b"").await.ok(200), json!({"topics": []}));
    let checked = br#"{"topic":"orders","validate_only":true}"#;
    call(web, "POST /v1/topics", checked).await.ok(200);
    let new = br#"{"topic":"orders","partitions":3,"config":{"retention_ms":5000,"durability":"interval"}}"#;
    let made = call(web, "POST /v1/topics", new).await;
    assert_eq!(made.header("location"), Some("/v1/topics/orders"));
    let made = made.ok(201);
    assert_eq!(made["partition_count"], 3);
    call(web, "POST /v1/topics", new).await.refused((409, "TOPIC_EXISTS"), &["orders"]);
    let described = call(web, "GET /v1/topics/orders", b"").await.ok(200);
    assert_eq!(described["overrides"], json!({"retention_ms": 5000, "durability": "interval"}));
    assert_eq!(described["config"]["cleanup_policy"], "delete");
    assert_eq!(described["partitions"][2]["high_watermark"], 0);
    let change =
        br#"{"partitions":4,"config":{"cleanup_policy":"compact"},"reset":["retention_ms"]}"#;
    let changed = call(web, "PATCH /v1/topics/orders", change).await.ok(200);
    assert_eq!(changed["partition_count"], 4);
    assert_eq!(changed["config"]["cleanup_policy"], "compact");
    let wrong = "DELETE /v1/topics/orders?topic_id=00000000-0000-4000-8000-000000000009";
    call(web, wrong, b"").await.refused((409, "TOPIC_ID_MISMATCH"), &["orders"]);
    let id = made["topic_id"].as_str().unwrap();
    let gone = call(web, &format!("DELETE /v1/topics/orders?topic_id={id}"), b"").await;
    assert_eq!(gone.head.status, 204);
    call(web, "GET /v1/topics/orders", b"")
        .await
        .refused((404, "UNKNOWN_TOPIC_OR_PARTITION"), &["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_topic_is_named() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let invalid = (400, "INVALID_ARGUMENT");
    for (body, part) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "an object"),
        (r#"{"topic":1}"#, "string"),
        (r#"{"topic":"a","topic":"b"}"#, "duplicate field `topic`"),
        (r#"{"topic":"a","partition":1}"#, "unknown field `partition`"),
        (r#"{"topic":"a","partitions":-1}"#, "-1"),
        (r#"{"topic":"a","partitions":1e999}"#, "out of range"),
        (r#"{"topic":"../a"}"#, "topic"),
        (r#"{"topic":"a\r\nb"}"#, "topic"),
        (r#"{"topic":"a","config":{"durability":"fsnyc"}}"#, "fsnyc"),
        (r#"{"topic":"a","config":{"segment_bytes":1}}"#, "segment_bytes"),
    ] {
        call(web, "POST /v1/topics", body.as_bytes()).await.refused(invalid, &[part]);
    }
    let deep = "[".repeat(10_000);
    call(web, "POST /v1/topics", deep.as_bytes()).await.refused(invalid, &[]);
    call(web, "DELETE /v1/topics/a?topic_id=7", b"").await.refused(invalid, &["topic_id", "7"]);
    call(web, "GET /v1/topics?page=1", b"").await.refused(invalid, &["query", "page"]);
    call(web, "GET /v1/topics/%ff", b"").await.refused(invalid, &[]);
    call(web, "GET /v1/topics/..%2f..%2fetc", b"")
        .await
        .refused((404, "UNKNOWN_TOPIC_OR_PARTITION"), &["../../etc"]);
    let typed = ["content-type: text/plain"];
    call_with(web, "POST /v1/topics", &typed, br#"{"topic":"a"}"#)
        .await
        .refused((415, "UNSUPPORTED_MEDIA_TYPE"), &["application/json", "text/plain"]);
    let zipped = ["content-type: application/json", "content-encoding: gzip"];
    call_with(web, "POST /v1/topics", &zipped, b"x")
        .await
        .refused((415, "UNSUPPORTED_CONTENT_ENCODING"), &["gzip"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_and_old_records_deleted() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let records = r#"[{"value":"a","timestamp_ms":1000},{"value":"b","timestamp_ms":2000},{"value":"c","timestamp_ms":3000}]"#;
    call(web, "POST /v1/topics/t/records", records.as_bytes()).await.ok(200);
    let offset = async |query: &str| {
        let line = format!("GET /v1/topics/t/partitions/0/offset?{query}");
        call(web, &line, b"").await
    };
    assert_eq!(offset("position=latest").await.ok(200)["offset"], 3);
    assert_eq!(offset("timestamp_ms=1500").await.ok(200)["offset"], 1);
    offset("").await.refused((400, "INVALID_ARGUMENT"), &["position"]);
    offset("position=middle").await.refused((400, "INVALID_ARGUMENT"), &["middle"]);
    let deleted = call(web, "DELETE /v1/topics/t/partitions/0/records?before=2", b"").await;
    assert_eq!(deleted.ok(200)["log_start_offset"], 2);
    assert_eq!(offset("position=earliest").await.ok(200)["offset"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_waits_for_its_time_is_cancelled() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let body = br#"{"subscription":"s","topics":["t"]}"#;
    call(web, "POST /v1/subscriptions", body).await.ok(201);
    let timed = |time_ms: &str| json!([{"key": "riverrun-deliver-at", "value": time_ms}]);
    let records = json!([
        {"value": "far", "headers": timed("99999999999999")},
        {"value": "past", "headers": timed("1000")},
        {"value": "plain"},
    ]);
    call(web, "POST /v1/topics/t/records", records.to_string().as_bytes()).await.ok(200);
    let receive = br#"{"max_records":10,"max_wait_ms":15000}"#;
    let got = call(web, "POST /v1/subscriptions/s/receive", receive).await.ok(200);
    assert_eq!(got["records"].as_array().unwrap().len(), 2, "{got}");
    let lag = async || {
        call(web, "GET /v1/subscriptions", b"").await.ok(200)["subscriptions"][0]["lag"].clone()
    };
    assert_eq!(lag().await, 3);
    let cancel = async |body: &str| {
        let line = "POST /v1/topics/t/partitions/0/cancel";
        call(web, line, body.as_bytes()).await
    };
    for _ in 0..2 {
        assert_eq!(cancel(r#"{"offset":0}"#).await.ok(200), json!({"cancelled": true}));
    }
    assert_eq!(lag().await, 2, "it is settled");
    assert_eq!(cancel(r#"{"offset":1}"#).await.ok(200), json!({"cancelled": false}));
    let bad = (400, "INVALID_ARGUMENT");
    cancel(r#"{"offset":2}"#).await.refused(bad, &["offset", "riverrun-deliver-at", "`2`"]);
    cancel(r#"{"offset":"0"}"#).await.refused(bad, &["string", "u64"]);
    cancel("{}").await.refused(bad, &["offset"]);
    cancel(r#"{"offset":0,"key":"k"}"#).await.refused(bad, &["key"]);
    cancel(r#"{"offset":3}"#).await.refused((416, "OFFSET_OUT_OF_RANGE"), &["3"]);
    let line = "POST /v1/topics/t/partitions/7/cancel";
    let unknown = (404, "UNKNOWN_TOPIC_OR_PARTITION");
    call(web, line, br#"{"offset":0}"#).await.refused(unknown, &["7"]);
}
