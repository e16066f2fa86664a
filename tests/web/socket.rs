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

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(web: SocketAddr) -> Socket {
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

    async fn hear(&mut self) -> Value {
        serde_json::from_str(self.message().await.to_text().unwrap()).unwrap()
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.say(message).await;
        self.hear().await
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

fn numbers(message: &Value) -> Vec<u32> {
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
            json!({"op": "end", "id": 2}),
            json!(2),
            ("INVALID_ARGUMENT", "of a tail of this session"),
        ),
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
    socket.say_text("{").await;
    Socket::refused(&socket.hear().await, json!(null), ("INVALID_ARGUMENT", "EOF"));
    socket.0.send(Message::binary(vec![1])).await.unwrap();
    Socket::refused(&socket.hear().await, json!(null), ("INVALID_ARGUMENT", "binary"));
    for id in 0..16 {
        assert_eq!(socket.ask(tail(json!(id))).await["op"], "tailing");
    }
    Socket::refused(&socket.ask(tail(json!(3))).await, json!(3), ("INVALID_ARGUMENT", "no tail"));
    Socket::refused(
        &socket.ask(tail(json!(16))).await,
        json!(16),
        ("INVALID_ARGUMENT", "at most 16"),
    );
    assert_eq!(socket.ask(produce(0..1)).await["op"], "produced");
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
    assert_eq!(u16::from(closed.code), 1008);
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
