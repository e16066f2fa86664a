//! Push sessions as server-sent events, whose records are settled by calls.

use std::{net::SocketAddr, time::Duration};

use riverrun_proto::grpc::v1;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::events::Reader;
use crate::support::{
    broker::TestBroker,
    http::{Http, Reply, call, call_with},
    push::PushStubs,
};

const EVENTS: &str = "/v1/subscriptions/s/events";

/// A broker with topic `t` and subscription `s` on it.
async fn house(settings: Value) -> (TestBroker, PushStubs, SocketAddr) {
    let broker = TestBroker::start().await;
    let stubs = PushStubs::with_topic(&broker).await;
    let web = broker.web_address();
    let body = json!({"subscription": "s", "topics": ["t"], "settings": settings});
    call(web, "POST /v1/subscriptions", body.to_string().as_bytes()).await.ok(201);
    (broker, stubs, web)
}

/// Opens session `w`. The first event tells of it.
async fn open(web: SocketAddr, query: &str, last_id: &str) -> (Reader, Value) {
    let path = format!("{EVENTS}?session_id=w{query}");
    let mut reader = Reader::at(Http::connect(web).await, &path, last_id).await;
    let first = reader.next().await;
    assert_eq!(first.name, "subscribed");
    (reader, first.json())
}

/// Asks for events that there are not, with header lines; the reply ends.
async fn ask(web: SocketAddr, path: &str, headers: &[&str]) -> Reply {
    let line = format!("GET {path}");
    let reply = call_with(web, &line, headers, b"");
    timeout(Duration::from_secs(15), reply).await.expect("no stream of events")
}

/// The next event, which has this name.
async fn named(reader: &mut Reader, name: &str) -> Value {
    let event = reader.next().await;
    assert_eq!(event.name, name, "{event:?}");
    event.json()
}

/// So many records, which come next.
async fn records(reader: &mut Reader, count: usize) -> Vec<Value> {
    let mut came = Vec::new();
    while came.len() < count {
        came.push(named(reader, "record").await);
    }
    came
}

/// Settles as session `w`, durably; gives the statuses.
async fn settle(web: SocketAddr, items: Vec<Value>) -> Vec<String> {
    let body = json!({"session_id": "w", "items": items, "sync": true}).to_string();
    let told = call(web, "POST /v1/subscriptions/s/settle", body.as_bytes()).await.ok(200);
    let results = told["results"].as_array().unwrap();
    results.iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect()
}

async fn ack(web: SocketAddr, record: &Value) {
    assert_eq!(settle(web, vec![item(record, "ack")]).await, ["ok"], "{record}");
}

fn item(record: &Value, outcome: &str) -> Value {
    json!({"lease": record["lease"], "outcome": outcome})
}

fn offsets(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["offset"].as_u64().unwrap()).collect()
}

/// Waits until the subscription has a session that is like this.
async fn session_until(
    stubs: &mut PushStubs,
    fits: impl Fn(&v1::SubscriptionSession) -> bool,
) -> v1::SubscriptionSession {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let sessions = stubs.describe().await.sessions;
        if let Some(session) = sessions.iter().find(|session| fits(session)) {
            return session.clone();
        }
        assert!(Instant::now() < until, "{sessions:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_by_a_call_makes_room_and_the_next_record_comes_at_once() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    let (mut reader, told) = open(web, "&max_in_flight=2&client_id=page", "").await;
    assert_eq!((&told["session_id"], &told["resumed"]), (&json!("w"), &json!(false)));
    assert_eq!((&told["max_in_flight"], &told["ack_wait_ms"]), (&json!(2), &json!(30_000)));
    stubs.send_numbers(100).await;
    let mut held = records(&mut reader, 2).await;
    let first = json!({
        "offset": 0, "value": "0", "key": null, "headers": [], "topic": "t", "partition": 0,
        "attempts": 1, "failures": 0, "replayed": false,
        "lease": held[0]["lease"], "timestamp_ms": held[0]["timestamp_ms"],
    });
    assert_eq!(held[0], first, "as `receive` tells it");
    let session = session_until(&mut stubs, |session| session.in_flight == 2).await;
    assert_eq!((session.session_id.as_str(), session.client_id.as_str()), ("w", "page"));
    assert_eq!(session.delivered, 2, "no more than it may hold");
    let began = Instant::now();
    for offset in 2..100 {
        ack(web, &held.remove(0)).await;
        held.extend(records(&mut reader, 1).await);
        assert_eq!(held[1]["offset"], offset);
    }
    // A record that waited for a timer would have waited for a tenth of a second and more.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    for record in held {
        ack(web, &record).await;
    }
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_holds_no_more_bytes_than_it_may() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    let values: Vec<String> = [40, 40, 40, 500, 10].map(|size| "x".repeat(size)).into();
    let sent = values.iter().map(|value| json!({"value": value})).collect::<Value>().to_string();
    call(web, "POST /v1/topics/t/records", sent.as_bytes()).await.ok(200);
    let (mut reader, _) = open(web, "&max_bytes=100", "").await;
    let held = records(&mut reader, 2).await;
    let session = session_until(&mut stubs, |session| session.in_flight == 2).await;
    assert_eq!(session.delivered, 2);
    ack(web, &held[0]).await;
    let third = named(&mut reader, "record").await;
    ack(web, &held[1]).await;
    assert_eq!(session_until(&mut stubs, |session| session.in_flight == 1).await.delivered, 3);
    ack(web, &third).await;
    let large = named(&mut reader, "record").await;
    assert_eq!(large["offset"], 3, "a record that is larger goes to empty hands");
    assert_eq!(session_until(&mut stubs, |session| session.in_flight == 1).await.delivered, 4);
    let explained = call(web, "GET /v1/subscriptions/s/explain", b"").await.ok(200);
    assert_eq!(explained["partitions"][0]["reason"], "session_limit");
    let nack = json!({"lease": large["lease"], "outcome": "nack", "delay_ms": 3_600_000});
    assert_eq!(settle(web, vec![nack]).await, ["ok"]);
    assert_eq!(named(&mut reader, "record").await["offset"], 4, "a nack makes room too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_comes_again_and_what_ran_out_is_revoked() {
    let (_broker, mut stubs, web) = house(json!({"ack_wait_ms": 1_000})).await;
    let (mut reader, _) = open(web, "&max_in_flight=1", "").await;
    stubs.send_numbers(1).await;
    let first = named(&mut reader, "record").await;
    let nack = json!({"lease": first["lease"], "outcome": "nack", "delay_ms": 0});
    assert_eq!(settle(web, vec![nack]).await, ["ok"]);
    let again = named(&mut reader, "record").await;
    assert_eq!((&again["offset"], &again["failures"]), (&json!(0), &json!(1)));
    let revoked = named(&mut reader, "revoked").await;
    let told = json!({
        "topic": "t", "partition": 0, "ranges": [[0, 1]], "reason": "lease_expired",
    });
    assert_eq!(revoked, told);
    let extend =
        |record: &Value| json!({"lease": record["lease"], "outcome": "extend", "lease_ms": 60_000});
    assert_eq!(settle(web, vec![extend(&again)]).await, ["stale_lease"]);
    let third = named(&mut reader, "record").await;
    assert_eq!(third["failures"], 2);
    assert_eq!(settle(web, vec![extend(&third)]).await, ["ok"]);
    let seek = json!({"to": "latest"}).to_string();
    call(web, "POST /v1/subscriptions/s/seek", seek.as_bytes()).await.ok(200);
    assert_eq!(named(&mut reader, "revoked").await["reason"], "seek");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_goes_on_with_its_leases_in_the_midst_of_a_delivery() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    stubs.send_numbers(200).await;
    let (mut reader, _) = open(web, "", "").await;
    let mut held = records(&mut reader, 30).await;
    for round in 0..5 {
        // Some of those it has are settled while it is away, and some before: its last ones too, or not.
        let from = if round == 1 { held.len() - 5 } else { 0 };
        for record in held.drain(from..from + 5).collect::<Vec<_>>() {
            ack(web, &record).await;
        }
        let last_id = reader.last_id.clone();
        if round % 2 == 0 {
            drop(reader);
            session_until(&mut stubs, |session| session.detached).await;
        }
        ack(web, &held.remove(0)).await;
        let (next, told) = open(web, "", &last_id).await;
        reader = next;
        assert_eq!(told["resumed"], true, "{told}");
        held.extend(records(&mut reader, 20).await);
    }
    held.extend(records(&mut reader, 70).await);
    let mut seen = offsets(&held);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((held.len(), seen.len()), (170, 170), "none twice, and none that was settled");
    assert!(held.iter().all(|record| record["failures"] == 0 && record["attempts"] == 1));
    let items = held.iter().map(|record| item(record, "ack")).collect();
    assert_eq!(settle(web, items).await, ["ok"; 170], "the leases are those of before");
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_again_without_its_parameters_has_its_session_in_the_id() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    let connect = async |last_id: &str| Reader::at(Http::connect(web).await, EVENTS, last_id).await;
    let mut reader = connect("").await;
    let told = named(&mut reader, "subscribed").await;
    assert_eq!(told["session_id"].as_str().unwrap().len(), 32, "the broker made one up");
    let mut again = connect(&reader.last_id).await;
    let after = named(&mut again, "subscribed").await;
    assert_eq!((&after["session_id"], &after["resumed"]), (&told["session_id"], &json!(true)));
    stubs.send_numbers(1).await;
    assert_eq!(named(&mut again, "record").await["offset"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_replaced_is_told_and_does_not_take_its_place_back() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    let (mut one, _) = open(web, "&reports_started=true", "").await;
    stubs.send_numbers(1).await;
    assert_eq!(named(&mut one, "record").await["offset"], 0);
    let (mut other, told) = open(web, "", "").await;
    assert_eq!(told["resumed"], false);
    let goaway = named(&mut one, "goaway").await;
    assert_eq!(
        (&goaway["error"]["code"], &goaway["released"]),
        (&json!("SESSION_REPLACED"), &json!(false))
    );
    assert!(one.any().await.is_none());
    let record = named(&mut other, "record").await;
    assert_eq!(record["failures"], 0, "handling of it had not begun");
    let taken = (409, "SESSION_REPLACED");
    let header = format!("last-event-id: {}", one.last_id);
    let path = format!("{EVENTS}?session_id=w");
    ask(web, &path, &[&header]).await.refused(taken, &["session_id"]);
    let receive = json!({"session_id": "w"}).to_string();
    call(web, "POST /v1/subscriptions/s/receive", receive.as_bytes())
        .await
        .refused(taken, &["`w`", "open stream"]);
    ack(web, &record).await;
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_get_the_answer_to_its_return_may_come_again() {
    let (_broker, mut stubs, web) = house(json!({})).await;
    // Of a session that ended long ago, as after a restart.
    let last_id = "w:5:1:0";
    let (mut lost, told) = open(web, "", last_id).await;
    assert_eq!(told["resumed"], false);
    let (mut again, told) = open(web, "", last_id).await;
    assert_eq!(told["resumed"], false);
    let goaway = named(&mut lost, "goaway").await;
    assert_eq!(goaway["error"]["code"], "SESSION_REPLACED");
    stubs.send_numbers(1).await;
    assert_eq!(named(&mut again, "record").await["offset"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_named_and_open_nothing() {
    let (broker, mut stubs, web) = house(json!({})).await;
    let bad = (400, "INVALID_ARGUMENT");
    let long = "w".repeat(65);
    for (query, parts) in [
        ("session_id=a%20b", ["session_id", "a b", "1 to 64"]),
        (&format!("session_id={long}"), ["session_id", &long, "1 to 64"]),
        ("session_id=", ["session_id", "``", "1 to 64"]),
        ("session_id=webhook-1", ["session_id", "webhook-1", "does not begin"]),
        ("max_in_flight=0", ["max_in_flight", "`0`", "1 to 1000000"]),
        ("max_in_flight=1000001", ["max_in_flight", "`1000001`", "1 to 1000000"]),
        ("max_in_flight=x", ["max_in_flight", "`x`", "1 to 1000000"]),
        ("max_bytes=0", ["max_bytes", "`0`", "1 to 4611686018427387904"]),
        ("max_bytes=4611686018427387905", ["max_bytes", "`4611686018427387905`", "1 to"]),
        ("reports_started=yes", ["reports_started", "`yes`", "true or false"]),
        ("max_records=1", ["query", "max_records", ""]),
        ("max_bytes=1&max_bytes=2", ["query", "max_bytes", "once"]),
        ("client_id=%ff", ["query", "client_id", "UTF-8"]),
    ] {
        ask(web, &format!("{EVENTS}?{query}"), &[]).await.refused(bad, &parts);
    }
    for (query, id) in [("", "17"), ("", "w:1:2"), ("", "w:1:2:x"), ("?session_id=v", "w:1:2:3")] {
        let header = format!("last-event-id: {id}");
        let reply = ask(web, &format!("{EVENTS}{query}"), &[&header]).await;
        reply.refused(bad, &["last-event-id", &format!("`{id}`")]);
    }
    ask(web, EVENTS, &["last-event-id: a b:1:2:3"]).await.refused(bad, &["session_id", "a b"]);
    let unknown = (404, "UNKNOWN_SUBSCRIPTION");
    ask(web, "/v1/subscriptions/none/events", &[]).await.refused(unknown, &["none"]);
    for (path, status) in [
        ("s/events", 200),
        ("none/events", 404),
        ("made/events?topics=t", 200),
        ("s/events?a", 400),
    ] {
        let mut http = Http::connect(web).await;
        http.ask(&format!("HEAD /v1/subscriptions/{path}"), &[], b"").await;
        assert_eq!(http.head().await.status, status, "{path}");
    }
    ask(web, "/v1/subscriptions/made/events?topics=t,none", &[])
        .await
        .refused((404, "UNKNOWN_TOPIC_OR_PARTITION"), &["none"]);
    ask(web, EVENTS, &["origin: http://evil.test"])
        .await
        .refused((403, "ORIGIN_NOT_ALLOWED"), &["evil.test"]);
    // An image of another page says nothing of it.
    for site in ["cross-site", "same-site"] {
        let header = format!("sec-fetch-site: {site}");
        ask(web, EVENTS, &[&header]).await.refused((403, "ORIGIN_NOT_ALLOWED"), &[site]);
    }
    // Who was here before does not make again what was deleted.
    let gone = ask(web, "/v1/subscriptions/none/events?topics=t", &["last-event-id: w:1:2:3"]);
    gone.await.refused(unknown, &["none"]);
    assert!(stubs.describe().await.sessions.is_empty());
    let path = "/v1/subscriptions/made/events?topics=t";
    let mut reader = Reader::at(Http::connect(web).await, path, "").await;
    assert_eq!(named(&mut reader, "subscribed").await["order"], "unordered");
    let made = call(web, "GET /v1/subscriptions/made", b"").await.ok(200);
    assert_eq!(made["topics"], json!(["t"]), "made on first use");
    call(web, "DELETE /v1/subscriptions/made?force=true", b"").await;
    let goaway = named(&mut reader, "goaway").await;
    assert_eq!(goaway["released"], true, "{goaway}");
    assert!(reader.any().await.is_none());
    drop(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_and_others_get_what_it_held() {
    let broker = TestBroker::start_with(|config| {
        config.http.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    let web = broker.web_address();
    let large = json!({"value": "x".repeat(1 << 20)}).to_string();
    for _ in 0..24 {
        call(web, "POST /v1/topics/t/records", large.as_bytes()).await.ok(200);
    }
    let settings = json!({"backoff_min_ms": 1, "backoff_max_ms": 1});
    let body = json!({"subscription": "s", "topics": ["t"], "settings": settings}).to_string();
    call(web, "POST /v1/subscriptions", body.as_bytes()).await.ok(201);
    let (mut slow, _) = open(web, "&reports_started=true", "").await;
    session_until(&mut stubs, |session| session.in_flight == 24).await;
    // It takes nothing. Nothing is asked of the session, which ends all the same, and nothing of it failed.
    let until = Instant::now() + Duration::from_secs(20);
    while !stubs.describe().await.sessions.is_empty() {
        assert!(Instant::now() < until, "it is still there");
        tokio::task::yield_now().await;
    }
    let mut came = Vec::new();
    while let Some(event) = slow.any().await {
        came.push(event.json()["offset"].clone());
    }
    assert!(came.len() < 24, "it was cut");
    let (mut other, told) = open(web, "&max_in_flight=1", &slow.last_id).await;
    assert_eq!(told["resumed"], false, "it came too late for that");
    for offset in 0..24 {
        let record = named(&mut other, "record").await;
        assert_eq!((&record["offset"], &record["failures"]), (&json!(offset), &json!(0)));
        ack(web, &record).await;
    }
    assert_eq!(stubs.lane().await.lag, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_broker_gives_back_what_is_held_and_settled_records_stay_settled() {
    let (broker, mut stubs, web) = house(json!({})).await;
    stubs.send_numbers(10).await;
    let (mut reader, _) = open(web, "", "").await;
    let held = records(&mut reader, 10).await;
    for record in &held[..4] {
        ack(web, record).await;
    }
    let stopped = tokio::spawn(broker.stop());
    let goaway = named(&mut reader, "goaway").await;
    assert_eq!(
        (&goaway["error"]["code"], &goaway["released"]),
        (&json!("UNAVAILABLE"), &json!(true))
    );
    assert!(reader.any().await.is_none());
    let broker = TestBroker::start_in(stopped.await.unwrap().unwrap(), |_| ()).await;
    let web = broker.web_address();
    let (mut after, told) = open(web, "", &reader.last_id).await;
    assert_eq!((&told["session_id"], &told["resumed"]), (&json!("w"), &json!(false)));
    let rest = records(&mut after, 6).await;
    assert_eq!(offsets(&rest), (4..10).collect::<Vec<_>>());
    assert!(rest.iter().all(|record| record["failures"] == 0), "a stop is no failure");
    assert_eq!(settle(web, vec![item(&held[9], "ack")]).await, ["stale_lease"]);
    let items = rest.iter().map(|record| item(record, "ack")).collect();
    assert_eq!(settle(web, items).await, ["ok"; 6]);
}
