//! Push subscriptions over HTTP: made, moved, received from and settled.

use std::net::SocketAddr;

use riverrun_proto::grpc::v1;
use serde_json::{Value, json};

use crate::support::{
    broker::TestBroker,
    http::{Reply, call},
    push::PushStubs,
};

/// A request about subscription `s`.
async fn post(web: SocketAddr, what: &str, body: Value) -> Reply {
    let line = format!("POST /v1/subscriptions/s/{what}");
    call(web, &line, body.to_string().as_bytes()).await
}

/// A broker with topic `t` and subscription `s` on it, made over HTTP.
async fn house(settings: Value) -> (TestBroker, PushStubs, SocketAddr) {
    let broker = TestBroker::start().await;
    let stubs = PushStubs::with_topic(&broker).await;
    let web = broker.web_address();
    let body = json!({"subscription": "s", "topics": ["t"], "settings": settings});
    let made = call(web, "POST /v1/subscriptions", body.to_string().as_bytes()).await.ok(201);
    assert_eq!(made["created"], true);
    (broker, stubs, web)
}

/// Receives as session `w`, waiting for the first record.
async fn receive(web: SocketAddr, max_records: u32) -> Vec<Value> {
    let ask = json!({"session_id": "w", "max_records": max_records, "max_wait_ms": 15_000});
    let got = post(web, "receive", ask).await.ok(200);
    got["records"].as_array().unwrap().clone()
}

/// Settles as session `w`; gives the statuses.
async fn settle(web: SocketAddr, items: Vec<Value>) -> Vec<String> {
    let body = json!({"session_id": "w", "items": items, "sync": true});
    let told = post(web, "settle", body).await.ok(200);
    let results = told["results"].as_array().unwrap();
    results.iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect()
}

fn item(record: &Value, outcome: &str) -> Value {
    json!({"lease": record["lease"], "outcome": outcome})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_settles_is_settled_for_all() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    stubs.send_numbers(3).await;
    let got = receive(web, 10).await;
    assert_eq!(got.len(), 3);
    let first = json!({
        "offset": 0, "value": "0", "key": null, "headers": [], "topic": "t", "partition": 0,
        "attempts": 1, "failures": 0, "replayed": false,
        "lease": got[0]["lease"], "timestamp_ms": got[0]["timestamp_ms"],
    });
    assert_eq!(got[0], first);
    assert_eq!(stubs.lane().await.in_flight, 3);
    let nack = json!({
        "lease": got[1]["lease"], "outcome": "nack", "delay_ms": 0, "reason": "busy",
    });
    let items = vec![item(&got[0], "ack"), nack, item(&got[2], "release")];
    assert_eq!(settle(web, items).await, ["ok"; 3]);
    let lane = stubs.lane().await;
    assert_eq!((lane.floor, lane.lag), (1, 2), "gRPC sees what HTTP settled");
    let mut again = receive(web, 10).await;
    if again.len() < 2 {
        again.extend(receive(web, 10).await);
    }
    again.sort_by_key(|record| record["offset"].as_u64());
    let told = |record: &Value| (record["offset"].clone(), record["failures"].clone());
    assert_eq!(told(&again[0]), (json!(1), json!(1)), "a nack comes again and is counted");
    assert_eq!(told(&again[1]), (json!(2), json!(0)), "what was given back comes again");
    assert_eq!(settle(web, vec![item(&got[1], "ack")]).await, ["stale_lease"]);
    let items = vec![item(&again[0], "ack"), item(&again[1], "reject")];
    assert_eq!(settle(web, items).await, ["ok"; 2]);
    stubs.lane_until(|lane| lane.lag == 0 && lane.dead == 1).await;
    let redriven = post(web, "redrive", json!({"dry_run": true})).await.ok(200);
    assert_eq!((&redriven["matched"], &redriven["redriven"]), (&json!(1), &json!(0)));
    let redriven = post(web, "redrive", json!({})).await.ok(200);
    assert_eq!((&redriven["redriven"], &redriven["error"]), (&json!(1), &Value::Null));
    assert_eq!(receive(web, 10).await[0]["value"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_comes_again_and_one_that_is_extended_stays() {
    let (_broker, mut stubs, web) = house(json!({"ack_wait_ms": 1_000})).await;
    stubs.send_numbers(2).await;
    let got = receive(web, 10).await;
    let extend = json!({"lease": got[0]["lease"], "outcome": "extend", "lease_ms": 600_000});
    assert_eq!(settle(web, vec![extend]).await, ["ok"]);
    let again = receive(web, 10).await;
    assert_eq!((&again[0]["offset"], again.len()), (&json!(1), 1));
    assert_eq!(again[0]["attempts"], 2);
    let items = vec![item(&got[0], "ack"), item(&again[0], "ack")];
    assert_eq!(settle(web, items).await, ["ok", "ok"]);
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_shown_changed_moved_paused_and_deleted() {
    let (_broker, mut stubs, web) = house(json!({
        "order": "key_fifo",
        "filter": {"key_prefix": {"base64": "/w=="}, "headers": [{"name": "h", "equals": "x"}]},
    }))
    .await;
    stubs.send_numbers(4).await;
    let one = "/v1/subscriptions/s";
    let described = call(web, &format!("GET {one}"), b"").await.ok(200);
    let settings = &described["settings"];
    assert_eq!(
        (&settings["order"], &settings["ack_wait_ms"]),
        (&json!("key_fifo"), &json!(30_000))
    );
    let filter = json!({
        "key_equals": null, "key_prefix": {"base64": "/w=="},
        "headers": [{"name": "h", "equals": "x"}],
    });
    assert_eq!(settings["filter"], filter);
    let change = json!({"settings": {"max_failures": 3, "filter": {}}});
    let changed = call(web, &format!("PATCH {one}"), change.to_string().as_bytes()).await;
    assert_eq!(changed.head.status, 204, "{changed:?}");
    let settings = stubs.describe().await.settings.unwrap();
    assert_eq!((settings.max_failures, settings.order()), (Some(3), v1::DeliveryOrder::KeyFifo));
    let listed = call(web, "GET /v1/subscriptions", b"").await.ok(200);
    assert_eq!(listed["subscriptions"][0]["lag"], 4);

    assert_eq!(post(web, "pause", json!({})).await.head.status, 204);
    let explained = call(web, &format!("GET {one}/explain"), b"").await.ok(200);
    assert_eq!(explained["partitions"][0]["reason"], "paused");
    let none = post(web, "receive", json!({})).await.ok(200);
    assert_eq!((&none["records"], &none["idle_reason"]), (&json!([]), &json!("paused")));
    assert_eq!(post(web, "resume", json!({})).await.head.status, 204);

    let told = post(web, "seek", json!({"to": {"offset": 3}, "dry_run": true})).await.ok(200);
    assert_eq!(told["partitions"][0]["to_offset"], 3);
    assert_eq!(stubs.lane().await.floor, 0, "a dry run moves nothing");
    post(web, "seek", json!({"to": {"offset": 3}})).await.ok(200);
    assert_eq!(stubs.lane().await.floor, 3);
    let peeked = call(web, &format!("GET {one}/peek?max_records=5"), b"").await.ok(200);
    let peeked = peeked["records"].as_array().unwrap();
    assert_eq!((&peeked[0]["offset"], &peeked[0]["value"]), (&json!(3), &json!("3")));
    assert_eq!(receive(web, 1).await[0]["offset"], 3);

    let forced = call(web, &format!("DELETE {one}?force=true"), b"").await;
    assert_eq!(forced.head.status, 204, "{forced:?}");
    let gone = call(web, &format!("GET {one}"), b"").await;
    gone.refused((404, "UNKNOWN_SUBSCRIPTION"), &["s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_answers_with_the_first_record() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    let waits = tokio::spawn(receive(web, 1));
    while stubs.describe().await.sessions.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!waits.is_finished());
    stubs.send_numbers(1).await;
    assert_eq!(waits.await.unwrap()[0]["value"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_subscriptions_cannot_mean_is_refused_by_name() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    stubs.send_numbers(1).await;
    let lease = receive(web, 1).await[0]["lease"].clone();
    let bad = (400, "INVALID_ARGUMENT");
    let one = |item: Value| json!({"session_id": "w", "items": [item]});
    for (what, body, parts) in [
        ("receive", json!({"max_record": 1}), ["max_record", "unknown field"]),
        ("receive", json!({"max_records": 10_001}), ["max_records", "10000"]),
        ("receive", json!({"max_wait_ms": 60_001}), ["max_wait_ms", "60000"]),
        ("receive", json!({"session_id": "a b"}), ["session_id", "a b"]),
        ("settle", json!({"items": []}), ["session_id", "missing field"]),
        ("settle", one(json!({"lease": "x", "outcome": "ack"})), ["items.lease", "`x`"]),
        ("settle", one(json!({"lease": lease, "outcome": "done"})), ["done", "nack"]),
        ("settle", one(json!({"lease": lease})), ["outcome", "missing field"]),
        (
            "settle",
            one(json!({"lease": lease, "outcome": "ack", "delay_ms": 5})),
            ["items.delay_ms", "nack"],
        ),
        ("settle", one(json!({"lease": lease, "outcome": "extend"})), ["items.lease_ms", "extend"]),
        ("seek", json!({"to": {"group": "g"}}), ["`to`", "group g"]),
        ("seek", json!({}), ["to", "missing field"]),
        ("redrive", json!({"key": {"base64": "?"}}), ["key", "base64"]),
        ("redrive", json!({"key": {"base63": ""}}), ["a string", "base64"]),
    ] {
        post(web, what, body).await.refused(bad, &parts);
    }
    for (settings, parts) in [
        (json!({"order": "lifo"}), ["lifo", "key_fifo"]),
        (json!({"ack_wait_ms": 1}), ["ack_wait_ms", "1000"]),
        (
            json!({"filter": {"headers": [{"name": "a", "equals": "b", "prefix": "c"}]}}),
            ["headers", "both"],
        ),
    ] {
        let body = json!({"subscription": "x", "topics": ["t"], "settings": settings});
        let reply = call(web, "POST /v1/subscriptions", body.to_string().as_bytes()).await;
        reply.refused(bad, &parts);
    }
    let lost = json!({"lease": "other:0:0:1:1", "outcome": "ack"});
    assert_eq!(
        settle(web, vec![lost, item(&json!({"lease": lease}), "ack")]).await,
        ["unknown_partition", "ok"]
    );
    let unknown = (404, "UNKNOWN_SUBSCRIPTION");
    for line in ["POST /v1/subscriptions/none/receive", "POST /v1/subscriptions/none/redrive"] {
        call(web, line, b"{}").await.refused(unknown, &["none"]);
    }
    call(web, "GET /v1/subscriptions/none/explain", b"").await.refused(unknown, &["none"]);
    call(web, "GET /v1/subscriptions/s/peek?max_records=1001", b"").await.refused(bad, &["1000"]);
    call(web, "DELETE /v1/subscriptions/s?force=maybe", b"").await.refused(bad, &["force"]);
}
