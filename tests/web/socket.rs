//! WebSockets of the web door, with another implementation as the client.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, protocol::CloseFrame},
};

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{call, call_with},
};

/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(super) async fn open(web: SocketAddr) -> Socket {
        let (socket, _) = connect_async(format!("ws://{web}/v1/ws")).await.unwrap();
        Socket(socket)
    }

    async fn say(&mut self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    async fn say_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next message that is no ping.
    async fn message(&mut self) -> Message {
        loop {
            let message = timeout(DEADLINE, self.0.next()).await.expect("something in time");
            let message = message.expect("it is open").unwrap();
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }

    pub(super) async fn hear(&mut self) -> Value {
        serde_json::from_str(self.message().await.to_text().unwrap()).unwrap()
    }

    pub(super) async fn ask(&mut self, message: Value) -> Value {
        self.say(message).await;
        self.hear().await
    }

    /// Asks what must go well: gives the answer, which has this op.
    async fn asks(&mut self, message: Value, op: &str) -> Value {
        let answer = self.ask(message).await;
        assert_eq!(answer["op"], op, "{answer}");
        answer
    }

    /// Fails unless the answer is a problem with this code whose message holds the part.
    #[track_caller]
    fn refused(answer: &Value, id: Value, (code, part): (&str, &str)) {
        assert_eq!((&answer["op"], &answer["id"]), (&json!("problem"), &id), "{answer}");
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
    }

    async fn closed(&mut self) -> CloseFrame {
        let message = self.message().await;
        let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
        frame
    }
}

fn produce(numbers: std::ops::Range<u32>) -> Value {
    let records: Vec<_> =
        numbers.map(|n| json!({"key": format!("k{n}"), "value": n.to_string()})).collect();
    json!({"op": "produce", "id": 1, "topic": "t", "records": records})
}

pub(super) fn numbers(message: &Value) -> Vec<u32> {
    let records = message["records"].as_array().unwrap().iter();
    records.map(|record| record["value"].as_str().unwrap().parse().unwrap()).collect()
}

/// Notes the records of a message, none of which may have come before.
fn take(message: &Value, seen: &mut BTreeSet<u32>) {
    for number in numbers(message) {
        assert!(seen.insert(number), "{number} came twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_on_a_socket_arrives_at_its_tails() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 3).await;
    let (mut one, mut other) = (Socket::open(web).await, Socket::open(web).await);
    let tail = json!({"op": "tail", "id": "all", "topic": "t"});
    assert_eq!(other.ask(tail).await["op"], "tailing");
    let one_key = json!({"op": "tail", "id": 2, "topic": "t", "key": "k7"});
    assert_eq!(other.ask(one_key).await["id"], 2);
    let produced = one.ask(produce(0..10)).await;
    assert_eq!((&produced["op"], &produced["id"]), (&json!("produced"), &json!(1)));
    let at = |place: &Value, name: &str| place[name].as_u64().unwrap();
    let place = |place: &Value| (at(place, "partition"), at(place, "offset"));
    let placed: BTreeSet<_> = produced["records"].as_array().unwrap().iter().map(place).collect();
    assert_eq!(placed.len(), 10, "{produced}");
    let (mut all, mut only) = (BTreeSet::new(), Vec::new());
    while all.len() < 10 || only.is_empty() {
        let message = other.hear().await;
        assert_eq!((&message["op"], &message["gaps"]), (&json!("records"), &json!([])));
        match &message["id"] {
            id if id == "all" => {
                for record in message["records"].as_array().unwrap() {
                    assert!(placed.contains(&place(record)), "{record}");
                }
                all.extend(numbers(&message));
            }
            _ => only.extend(numbers(&message)),
        }
    }
    assert_eq!((all, only), ((0..10).collect(), vec![7]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_resumes_exactly_across_sockets_restarts_and_server_sent_events() {
    let mut broker = TestBroker::start().await;
    create(broker.web_address(), "t", 4).await;
    let mut socket = Socket::open(broker.web_address()).await;
    let tail = json!({"op": "tail", "id": "a", "topic": "t", "from": "earliest"});
    let mut cursor = socket.ask(tail).await["cursor"].clone();
    let mut seen = BTreeSet::new();
    for round in 0..4 {
        let (first, next) = (round * 30, round * 30 + 30);
        socket.say(produce(first..next)).await;
        while seen.len() < next as usize - 10 {
            let message = socket.hear().await;
            if message["op"] == "records" {
                cursor = message["cursor"].clone();
                take(&message, &mut seen);
            }
        }
        if round % 2 == 1 {
            let dir = broker.stop().await.unwrap();
            broker = TestBroker::start_in(dir, |_| ()).await;
        }
        socket = Socket::open(broker.web_address()).await;
        let tail = json!({"op": "tail", "id": "a", "topic": "t", "cursor": cursor});
        assert_eq!(socket.ask(tail).await["cursor"], cursor);
    }
    while seen.len() < 120 {
        let message = socket.hear().await;
        cursor = message["cursor"].clone();
        take(&message, &mut seen);
    }
    let cursor = cursor.as_str().unwrap();
    let path = format!("HEAD /v1/topics/t/events?cursor={cursor}");
    assert_eq!(call(broker.web_address(), &path, b"").await.head.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_ended_says_where_it_stood_and_its_id_is_free() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    socket.ask(json!({"op": "tail", "id": "a", "topic": "t"})).await;
    socket.say(produce(0..3)).await;
    let mut came = Vec::new();
    while came.len() < 3 {
        let message = socket.hear().await;
        if message["op"] == "records" {
            came.extend(numbers(&message));
        }
    }
    let mut message = socket.ask(json!({"op": "end", "id": "a"})).await;
    if message["op"] == "produced" {
        message = socket.hear().await;
    }
    assert_eq!((&message["op"], &message["id"]), (&json!("ended"), &json!("a")), "{message}");
    call(web, "POST /v1/topics/t/records", br#"{"value":"3"}"#).await.ok(200);
    let again = json!({"op": "tail", "id": "a", "topic": "t", "cursor": message["cursor"]});
    assert_eq!(socket.ask(again).await["op"], "tailing");
    assert_eq!(
        numbers(&socket.hear().await),
        [3],
        "nothing came after the end, nothing is missing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_gone_are_told_as_gaps() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    let first = json!({"op": "tail", "id": 1, "topic": "t", "from": "earliest"});
    let cursor = socket.ask(first).await["cursor"].clone();
    drop(socket);
    for n in 0..10 {
        let record = json!({"value": n.to_string()}).to_string();
        call(web, "POST /v1/topics/t/records", record.as_bytes()).await.ok(200);
    }
    call(web, "DELETE /v1/topics/t/partitions/0/records?before=7", b"").await.ok(200);
    let mut late = Socket::open(web).await;
    let tail = json!({"op": "tail", "id": 1, "topic": "t", "cursor": cursor});
    late.ask(tail.clone()).await;
    let message = late.hear().await;
    let told = json!([{"partition": 0, "reason": "retention", "offset": 0, "next_offset": 7}]);
    assert_eq!((&message["gaps"], &message["records"]), (&told, &json!([])));
    assert_eq!(numbers(&late.hear().await), [7, 8, 9]);
    assert_eq!(call(web, "DELETE /v1/topics/t", b"").await.head.status, 204);
    let over = late.hear().await;
    Socket::refused(&over, json!(1), ("UNAVAILABLE", "closed"));
    create(web, "t", 1).await;
    late.ask(tail).await;
    assert_eq!(late.hear().await["gaps"][0]["reason"], "topic_recreated");
}

/// Messages until one has this op.
async fn until(socket: &mut Socket, op: &str) -> Value {
    let mut others = Vec::new();
    // Signs of life come for ever.
    while others.len() < 20 {
        let message = socket.hear().await;
        if message["op"] == op {
            return message;
        }
        others.push(message);
    }
    panic!("no `{op}` among {others:?}")
}

/// A subscription `w` of the topic `t`, by everything that a first use says, with credit for so many.
fn subscribe(id: &str, session: &str, records: u64, settings: Value) -> Value {
    let create = json!({"topics": ["t"], "start": "earliest", "settings": settings});
    json!({
        "op": "subscribe",
        "id": id,
        "subscription": "w",
        "session_id": session,
        "credit": {"records_total": records},
        "create": create,
    })
}

fn settle(job: &Value, outcome: &str) -> Value {
    let item = json!({"lease": job["lease"], "outcome": outcome});
    json!({"op": "settle", "id": "w", "settle_id": 9, "sync": true, "items": [item]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_worked_on_a_socket() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    assert_eq!(socket.ask(produce(0..3)).await["op"], "produced");
    let settings = json!({"backoff_min_ms": 1, "backoff_max_ms": 1});
    let opened = socket.asks(subscribe("w", "one", 2, settings), "subscribed").await;
    assert_eq!((&opened["session_id"], &opened["order"]), (&json!("one"), &json!("unordered")));
    let mut jobs = Vec::new();
    while jobs.len() < 2 {
        jobs.extend(until(&mut socket, "jobs").await["records"].as_array().unwrap().clone());
    }
    let values: Vec<_> = jobs.iter().map(|job| job["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["0", "1"], "no more than the credit");
    let settled = socket.ask(settle(&jobs[0], "ack")).await;
    let ok = json!([{"item": 0, "status": "ok"}]);
    assert_eq!((&settled["settle_id"], &settled["results"]), (&json!(9), &ok));
    socket.say(settle(&jobs[1], "nack")).await;
    assert_eq!(until(&mut socket, "settled").await["results"], ok);
    socket.say(json!({"op": "credit", "id": "w", "credit": {"records_total": 9}})).await;
    let mut left = Vec::new();
    while left.len() < 2 {
        left.extend(until(&mut socket, "jobs").await["records"].as_array().unwrap().clone());
    }
    left.sort_by_key(|job| job["offset"].as_u64());
    let (again, last) = (&left[0], &left[1]);
    assert_eq!((&again["value"], &again["failures"]), (&json!("1"), &json!(1)));
    socket.say(json!({"op": "drain", "id": "w"})).await;
    for job in [again, last] {
        socket.say(settle(job, "ack")).await;
        assert_eq!(until(&mut socket, "settled").await["results"], ok);
    }
    assert_eq!(until(&mut socket, "ended").await["id"], "w");
    let described = call(web, "GET /v1/subscriptions/w", b"").await.ok(200);
    assert_eq!(described["partitions"][0]["lag"], 0, "{described}");
    Socket::refused(
        &socket.ask(json!({"op": "pause", "id": "w"})).await,
        json!("w"),
        ("INVALID_ARGUMENT", "of a subscription"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_socket_held_is_resumed_or_comes_to_others() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    socket.ask(produce(0..1)).await;
    let opened = socket.asks(subscribe("w", "one", 1, json!({})), "subscribed").await;
    let job = until(&mut socket, "jobs").await;
    drop(socket);
    let mut socket = Socket::open(web).await;
    let mut again = subscribe("w", "one", 1, json!({}));
    again["resume"] = json!({"session_epoch": opened["session_epoch"], "last_delivery_seq": 0});
    assert_eq!(socket.ask(again).await["resumed"], true);
    let replayed = until(&mut socket, "jobs").await;
    assert_eq!(replayed["records"][0]["replayed"], true, "{replayed}");
    assert_eq!(replayed["records"][0]["offset"], job["records"][0]["offset"]);
    drop(socket);
    // After the grace it is free.
    let mut other = Socket::open(web).await;
    other.asks(subscribe("w", "two", 1, json!({})), "subscribed").await;
    let taken = until(&mut other, "jobs").await;
    assert_eq!(taken["records"][0]["offset"], 0);
    other.say(settle(&taken["records"][0], "ack")).await;
    assert_eq!(until(&mut other, "settled").await["results"][0]["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_is_told() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    socket.ask(produce(0..1)).await;
    socket.asks(subscribe("w", "", 1, json!({"ack_wait_ms": 1000})), "subscribed").await;
    until(&mut socket, "jobs").await;
    let revoked = until(&mut socket, "revoked").await;
    let told = (&revoked["topic"], &revoked["partition"], &revoked["ranges"], &revoked["reason"]);
    assert_eq!(told, (&json!("t"), &json!(0), &json!([[0, 1]]), &json!("lease_expired")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_the_socket_lives_on() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    let tail = |id: Value| json!({"op": "tail", "id": id, "topic": "t"});
    let long = "x".repeat(65);
    for (message, id, refused) in [
        (json!(7), json!(null), ("INVALID_ARGUMENT", "an object with an `op`")),
        (json!({"op": "dance", "id": 1}), json!(1), ("INVALID_ARGUMENT", "dance")),
        (json!({"op": "tail", "topic": "t"}), json!(null), ("INVALID_ARGUMENT", "`id`")),
        (tail(json!(long)), json!(null), ("INVALID_ARGUMENT", "at most 64 bytes")),
        (tail(json!([1])), json!(null), ("INVALID_ARGUMENT", "`id`")),
        (
            json!({"op": "tail", "id": 2, "topic": "t", "form": 1}),
            json!(2),
            ("INVALID_ARGUMENT", "form"),
        ),
        (
            json!({"op": "tail", "id": 2, "topic": "no"}),
            json!(2),
            ("UNKNOWN_TOPIC_OR_PARTITION", "no"),
        ),
        (
            json!({"op": "tail", "id": 2, "topic": "t", "cursor": "x"}),
            json!(2),
            ("INVALID_ARGUMENT", "cursor"),
        ),
        (
            json!({"op": "tail", "id": 2, "topic": "t", "partitions": [1]}),
            json!(2),
            ("UNKNOWN_TOPIC_OR_PARTITION", "1"),
        ),
        (
            json!({"op": "drain", "id": 2}),
            json!(2),
            ("INVALID_ARGUMENT", "of a subscription of this socket"),
        ),
        (
            json!({"op": "subscribe", "id": 2, "subscription": "no"}),
            json!(2),
            ("UNKNOWN_SUBSCRIPTION", "no"),
        ),
        (
            json!({"op": "subscribe", "id": 2, "subscription": "no", "credit": {"records": 1}}),
            json!(2),
            ("INVALID_ARGUMENT", "records"),
        ),
        (json!({"op": "end", "id": 2}), json!(2), ("INVALID_ARGUMENT", "of a tail of this socket")),
        (
            json!({"op": "produce", "id": 3, "topic": "t", "records": []}),
            json!(3),
            ("INVALID_ARGUMENT", "records"),
        ),
        (
            json!({"op": "produce", "id": 3, "topic": "t", "records": [{"key": "k"}]}),
            json!(3),
            ("INVALID_ARGUMENT", "value"),
        ),
        (
            json!({"op": "produce", "id": 3, "topic": "t", "partition": 9, "records": [{"value": "v"}]}),
            json!(3),
            ("UNKNOWN_TOPIC_OR_PARTITION", "9"),
        ),
    ] {
        let answer = socket.ask(message).await;
        Socket::refused(&answer, id, refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_of_what_goes_on_is_named_and_the_socket_lives_on() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    let tail = |id: Value| json!({"op": "tail", "id": id, "topic": "t"});
    socket.say_text("{").await;
    Socket::refused(&socket.hear().await, json!(null), ("INVALID_ARGUMENT", "EOF"));
    socket.0.send(Message::binary(vec![1])).await.unwrap();
    Socket::refused(&socket.hear().await, json!(null), ("INVALID_ARGUMENT", "binary"));
    let mut opened = subscribe("s", "", 0, json!({}));
    opened["id"] = json!(0);
    assert_eq!(socket.ask(opened).await["op"], "subscribed");
    for (message, refused) in [
        (json!({"op": "end", "id": 0}), "drain"),
        (json!({"op": "drain", "id": 0, "now": 1}), "now"),
        (json!({"op": "settle", "id": 0, "sync": true, "items": []}), "settle_id"),
        (json!({"op": "settle", "id": 0, "items": [{"lease": "x", "outcome": "ack"}]}), "lease"),
        (
            json!({"op": "credit", "id": 0, "credit": {"records_total": u64::MAX}}),
            "credit.records_total",
        ),
    ] {
        let answer = socket.ask(message).await;
        Socket::refused(&answer, json!(0), ("INVALID_ARGUMENT", refused));
    }
    for id in 1..16 {
        assert_eq!(socket.ask(tail(json!(id))).await["op"], "tailing");
    }
    Socket::refused(&socket.ask(tail(json!(3))).await, json!(3), ("INVALID_ARGUMENT", "no tail"));
    Socket::refused(
        &socket.ask(tail(json!(16))).await,
        json!(16),
        ("INVALID_ARGUMENT", "at most 16"),
    );
    socket.say(produce(0..1)).await;
    until(&mut socket, "produced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_past_the_limit_closes_the_socket_with_the_limit() {
    let broker = TestBroker::start().await;
    create(broker.web_address(), "t", 1).await;
    let mut socket = Socket::open(broker.web_address()).await;
    let fits = json!({"op": "produce", "topic": "t", "records": [{"value": "x".repeat(260_000)}]});
    assert_eq!(socket.ask(fits).await["op"], "produced");
    socket.say_text(&" ".repeat((256 << 10) + 1)).await;
    let closed = socket.closed().await;
    assert_eq!(u16::from(closed.code), 1009);
    assert!(closed.reason.contains("262144"), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_requests_and_other_pages_get_no_socket() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let none = (400, "NO_WEBSOCKET");
    call(web, "GET /v1/ws", b"").await.refused(none, &["upgrade"]);
    call(web, "GET /v1/ws?a=1", b"").await.refused((400, "INVALID_ARGUMENT"), &["a"]);
    let upgrade = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "origin: https://evil.test",
    ];
    let refused = call_with(web, "GET /v1/ws", &upgrade, b"").await;
    refused.refused((403, "ORIGIN_NOT_ALLOWED"), &["evil.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_broker_ends_its_sockets_politely() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    socket.ask(json!({"op": "tail", "id": 1, "topic": "t"})).await;
    let mut silent = Socket::open(web).await;
    let stopping = tokio::spawn(broker.stop());
    assert_eq!(u16::from(socket.closed().await.code), 1001);
    assert_eq!(u16::from(silent.closed().await.code), 1001);
    drop((socket, silent));
    timeout(DEADLINE, stopping).await.expect("it does not wait for sockets").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_end_is_answered_and_what_was_held_is_free_at_once() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    socket.asks(produce(0..1), "produced").await;
    let once = json!({"max_failures": 1});
    for session in ["one", "two", "three"] {
        socket.asks(subscribe("w", session, 1, once.clone()), "subscribed").await;
        let job = until(&mut socket, "jobs").await;
        let held = (&job["records"][0]["offset"], &job["records"][0]["failures"]);
        assert_eq!(held, (&json!(0), &json!(0)), "an end is no failure: {job}");
        socket.0.send(Message::Ping("there?".into())).await.unwrap();
        let pong = timeout(DEADLINE, socket.0.next()).await.unwrap().unwrap().unwrap();
        assert!(pong.is_pong() || pong.is_ping(), "{pong:?}");
        socket.0.close(None).await.unwrap();
        while !timeout(DEADLINE, socket.0.next())
            .await
            .unwrap()
            .expect("an answer")
            .unwrap()
            .is_close()
        {}
        socket = Socket::open(web).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_records_come_in_messages_of_a_bound() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 3).await;
    let records: Vec<_> = (0..10_000).map(|n| json!({"value": n, "partition": n % 3})).collect();
    let body = Value::from(records).to_string();
    call(web, "POST /v1/topics/t/records", body.as_bytes()).await.ok(200);
    let mut socket = Socket::open(web).await;
    socket.ask(json!({"op": "tail", "id": 1, "topic": "t", "from": "earliest"})).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 10_000 {
        let message = socket.message().await;
        let text = message.to_text().unwrap();
        assert!(text.len() <= (256 << 10) + 1_000, "{} bytes at once", text.len());
        take(&serde_json::from_str(text).unwrap(), &mut seen);
    }
}
