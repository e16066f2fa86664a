//! Records into a topic by the web door.

use std::time::Duration;

use serde_json::{Value, json};

use super::create;
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    broker::TestBroker,
    http::{Http, call, call_with},
};

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_were_given() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let records = json!([
        {"key": "k", "value": "text", "headers": [{"key": "a", "value": "1"}, {"key": "a", "value": null}],
         "timestamp_ms": 1_700_000_000_000_u64},
        {"value": {"a": [1, 2]}},
        {"key": "k", "value": null},
        {"value": "/wA=", "value_type": "base64"},
    ]);
    let placed = call(web, "POST /v1/topics/t/records", records.to_string().as_bytes()).await;
    let expected: Vec<_> = (0..4).map(|offset| json!({"partition": 0, "offset": offset})).collect();
    assert_eq!(placed.ok(200)["records"], json!(expected));
    let one = br#"{"value":"one"}"#;
    let placed = call(web, "POST /v1/topics/t/records", one).await.ok(200);
    assert_eq!(placed, json!({"records": [{"partition": 0, "offset": 4}]}));
    let read = call(web, "GET /v1/topics/t/partitions/0/records", b"").await.ok(200);
    let read = &read["records"];
    assert_eq!(read[0]["key"], "k");
    assert_eq!(read[0]["headers"], records[0]["headers"]);
    assert_eq!(read[0]["timestamp_ms"], 1_700_000_000_000_u64);
    assert_eq!(read[1]["value"], r#"{"a":[1,2]}"#);
    assert_eq!(read[2]["value"], Value::Null);
    assert_eq!((&read[3]["value"], &read[3]["value_type"]), (&json!("/wA="), &json!("base64")));
    assert_eq!(read[4]["value"], "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bodies_and_cloud_events_are_values() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let post = "POST /v1/topics/t/records?key=a%20b";
    call_with(web, post, &["content-type: application/octet-stream"], b"\xff\xfe").await.ok(200);
    let event = [
        "content-type: text/x-test",
        "ce-id: 7",
        "ce-source: /s",
        "ce-type: made",
        "ce-specversion: 1.0",
        "ce-partitionkey: eu",
        "ce-note: %C3%A9",
    ];
    call_with(web, "POST /v1/topics/t/records", &event, b"data").await.ok(200);
    let read = call(web, "GET /v1/topics/t/partitions/0/records", b"").await.ok(200);
    let read = &read["records"];
    assert_eq!((&read[0]["key"], &read[0]["value"]), (&json!("a b"), &json!("//4=")));
    assert_eq!((&read[1]["key"], &read[1]["value"]), (&json!("eu"), &json!("data")));
    let headers = read[1]["headers"].as_array().unwrap();
    for (key, value) in [("ce_id", "7"), ("ce_note", "\u{e9}"), ("content-type", "text/x-test")] {
        assert!(headers.contains(&json!({"key": key, "value": value})), "{headers:?}");
    }
    call_with(web, "POST /v1/topics/t/records", &["ce-id: 7"], b"data")
        .await
        .refused((400, "INVALID_ARGUMENT"), &["ce-source"]);
    call_with(web, "POST /v1/topics/t/records", &["ce-specversion: 0.3"], b"data")
        .await
        .refused((400, "INVALID_ARGUMENT"), &["ce-specversion", "0.3"]);
    let form = ["content-type: application/x-www-form-urlencoded"];
    call_with(web, "POST /v1/topics/t/records", &form, b"a=b")
        .await
        .refused((415, "UNSUPPORTED_MEDIA_TYPE"), &["application/json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_numbers_choose_the_partition() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 8).await;
    let keyed: Vec<_> =
        (0..40).map(|n| json!({"key": format!("k{}", n % 5), "value": n})).collect();
    let body = Value::from(keyed).to_string();
    let placed = call(web, "POST /v1/topics/t/records", body.as_bytes()).await.ok(200);
    for n in 0..40 {
        let partition = &placed["records"][n]["partition"];
        assert_eq!(partition, &placed["records"][n % 5]["partition"]);
    }
    let body = br#"[{"value":1,"partition":6},{"value":2}]"#;
    let placed = call(web, "POST /v1/topics/t/records?partition=3", body).await.ok(200);
    assert_eq!(
        (&placed["records"][0]["partition"], &placed["records"][1]["partition"]),
        (&json!(6), &json!(3))
    );
    let mut used: Vec<_> = Vec::new();
    for _ in 0..8 {
        let placed = call(web, "POST /v1/topics/t/records", br#"[{"value":1},{"value":2}]"#).await;
        let placed = placed.ok(200);
        assert_eq!(placed["records"][0]["partition"], placed["records"][1]["partition"]);
        used.push(placed["records"][0]["partition"].as_u64().unwrap());
    }
    used.sort_unstable();
    assert_eq!(used, (0..8).collect::<Vec<_>>(), "records without a key take turns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_tells_what_became_of_each_record() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 2).await;
    let body =
        br#"[{"value":1,"partition":0},{"value":2,"partition":9},{"value":3,"partition":1}]"#;
    let reply = call(web, "POST /v1/topics/t/records", body).await;
    reply.refused((404, "UNKNOWN_TOPIC_OR_PARTITION"), &["partitions 0 to 1", "9"]);
    let records = &reply.json()["records"];
    assert_eq!((&records[0]["offset"], &records[2]["offset"]), (&json!(0), &json!(0)));
    assert_eq!(records[1]["error"]["code"], "UNKNOWN_TOPIC_OR_PARTITION");
    let invalid = (400, "INVALID_ARGUMENT");
    call(web, "POST /v1/topics/t/records", b"[]").await.refused(invalid, &["records"]);
    let many = format!("[{}]", vec![r#"{"value":1}"#; 10_001].join(","));
    call(web, "POST /v1/topics/t/records", many.as_bytes()).await.refused(invalid, &["10000"]);
    let wrong = br#"[{"value":1},{"value":"x","value_type":"base64"}]"#;
    let reply = call(web, "POST /v1/topics/t/records", wrong).await;
    reply.refused(invalid, &["base64"]);
    assert_eq!(reply.json()["index"], 1);
    call(web, "POST /v1/topics/none/records", b"{}")
        .await
        .refused((404, "UNKNOWN_TOPIC_OR_PARTITION"), &[]);
    call(web, "POST /v1/topics/t/records?acks=0", b"{}").await.refused(invalid, &["acks"]);
    call(web, "POST /v1/topics/t/records?key=a", br#"{"value":1}"#)
        .await
        .refused(invalid, &["key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_appended_while_they_come() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut http = Http::connect(web).await;
    let head = "POST /v1/topics/t/records HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    http.send(head).await;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    http.send(chunk("{\"value\":\"first\"}\n\n{\"val")).await;
    let poll = "GET /v1/topics/t/partitions/0/records?max_wait=20s";
    let read = call(web, poll, b"").await.ok(200);
    assert_eq!(read["records"][0]["value"], "first", "it is there before the body is over");
    http.send(chunk("ue\":\"second\"}")).await;
    http.send("0\r\n\r\n").await;
    let told = http.reply().await.ok(200);
    assert_eq!(told["record_count"], 2);
    assert_eq!(told["partitions"][0]["next_offset"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_of_lines_is_larger_than_any_body_may_be() {
    let broker = TestBroker::start_with(|config| config.http.body_bytes_max = 64 << 10).await;
    let web = broker.web_address();
    create(web, "t", 3).await;
    let lines: String =
        (0..20_000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect();
    assert!(lines.len() > 400 << 10);
    let typed = ["content-type: application/x-ndjson"];
    let told = call_with(web, "POST /v1/topics/t/records", &typed, lines.as_bytes()).await.ok(200);
    assert_eq!(told["record_count"], 20_000);
    let counts = told["partitions"].as_array().unwrap().iter();
    assert_eq!(counts.map(|one| one["record_count"].as_u64().unwrap()).sum::<u64>(), 20_000);
    let wrong = "{\"value\":1}\n{\"value\":2}\n{\"value\":\n{\"value\":4}\n";
    let reply = call_with(web, "POST /v1/topics/t/records", &typed, wrong.as_bytes()).await;
    reply.refused((400, "INVALID_ARGUMENT"), &["EOF"]);
    assert_eq!(reply.json()["index"], 2);
    assert_eq!(reply.json()["appended"]["record_count"], 2);
    let long = format!("{{\"value\":\"{}\"}}\n", "x".repeat(200 << 10));
    let mut http = Http::connect(web).await;
    let line = "POST /v1/topics/t/records";
    http.ask(line, &typed, long.as_bytes()).await;
    http.reply().await.refused((413, "BODY_TOO_LARGE"), &["a line", "65536"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_bounds_in_bytes_and_in_time() {
    let broker = TestBroker::start_with(|config| {
        config.http.body_bytes_max = 64 << 10;
        config.http.body_timeout = Duration::from_millis(200);
    })
    .await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let start = "POST /v1/topics/t/records HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let mut declared = Http::connect(web).await;
    declared.send(format!("{start}content-length: 4294967296\r\n\r\n{{")).await;
    declared.reply().await.refused((413, "BODY_TOO_LARGE"), &["65536", "http.body_bytes_max"]);
    let mut slow = Http::connect(web).await;
    slow.send(format!("{start}content-length: 100\r\n\r\n{{")).await;
    slow.reply().await.refused((408, "REQUEST_TIMEOUT"), &["http.body_timeout"]);
    let mut trickle = Http::connect(web).await;
    trickle.send(format!("{start}content-length: 12\r\n\r\n[")).await;
    // The body is whole in the end, but not in time; it may be cut by then.
    for byte in b"          ]" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(trickle.socket.write_all(&[*byte]).await);
    }
    trickle.reply().await.refused((408, "REQUEST_TIMEOUT"), &["http.body_timeout", "1024"]);
    // Lines may come for longer than one may take.
    let lines = "content-type: application/x-ndjson\r\ntransfer-encoding: chunked";
    let mut stream = Http::connect(web).await;
    let line = "POST /v1/topics/t/records HTTP/1.1\r\nhost: localhost";
    stream.send(format!("{line}\r\n{lines}\r\n\r\n")).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.send("c\r\n{\"value\":1}\n\r\n").await;
    }
    stream.send("0\r\n\r\n").await;
    assert_eq!(stream.reply().await.ok(200)["record_count"], 10);
    let mut overflow = Http::connect(web).await;
    overflow
        .send(format!("{start}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{"))
        .await;
    overflow.reply().await.refused((400, "BROKEN_BODY"), &[]);
    let mut both = Http::connect(web).await;
    both.send(format!("{start}content-length: 5\r\ncontent-length: 6\r\n\r\n{{}}")).await;
    assert_eq!(both.head().await.status, 400);
    call(web, "POST /v1/topics/t/records", br#"{"value":1}"#).await.ok(200);
}
