//! WebSockets whose messages are protobuf: the same services, written otherwise.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use riverrun_proto::grpc::v1::{
    self, SocketRequest, SocketResponse, session_request::Frame, session_response,
    settle_item::Outcome, socket_request::Ask, socket_response::Told,
};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{ClientRequestBuilder, Message},
};

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{call, call_with},
};

/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(20);
const PROTOBUF: &str = "riverrun.v1.protobuf";

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(web: SocketAddr) -> Socket {
        let request = ClientRequestBuilder::new(format!("ws://{web}/v1/ws").parse().unwrap());
        let (socket, reply) = connect_async(request.with_sub_protocol(PROTOBUF)).await.unwrap();
        assert_eq!(reply.headers()["sec-websocket-protocol"], PROTOBUF);
        Socket(socket)
    }

    async fn say(&mut self, id: &str, ask: Ask) {
        let request = SocketRequest { id: id.into(), ask: Some(ask) };
        self.0.send(Message::binary(request.encode_to_vec())).await.unwrap();
    }

    async fn hear(&mut self) -> (String, Told) {
        loop {
            let message = timeout(DEADLINE, self.0.next()).await.expect("something in time");
            match message.expect("it is open").unwrap() {
                Message::Binary(bytes) => {
                    let response = SocketResponse::decode(bytes).unwrap();
                    return (response.id, response.told.expect("something"));
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{other:?}")
                }
            }
        }
    }

    async fn ask(&mut self, id: &str, ask: Ask) -> Told {
        self.say(id, ask).await;
        let (of, told) = self.hear().await;
        assert_eq!(of, id, "{told:?}");
        told
    }

    /// What is asked is refused, by a message that holds the part.
    async fn refused(&mut self, ask: Ask, part: &str) {
        let told = self.ask("x", ask).await;
        let Told::Problem(problem) = &told else { panic!("{told:?}") };
        assert!(problem.error.as_ref().unwrap().message.contains(part), "{told:?}");
    }

    async fn session(&mut self, id: &str, frame: Frame) {
        self.say(id, Ask::Session(v1::SessionRequest { frame: Some(frame) })).await;
    }

    /// The next frame of the push session that is no sign of life.
    async fn heard(&mut self, id: &str) -> session_response::Frame {
        loop {
            let (of, told) = self.hear().await;
            assert_eq!(of, id);
            let Told::Session(v1::SessionResponse { frame: Some(frame) }) = told else {
                panic!("{told:?}")
            };
            if !matches!(frame, session_response::Frame::Heartbeat(_)) {
                return frame;
            }
        }
    }

    async fn delivered(&mut self, id: &str) -> v1::Deliver {
        let frame = self.heard(id).await;
        let session_response::Frame::Deliver(delivered) = frame else { panic!("{frame:?}") };
        delivered
    }
}

/// A record whose value is no text.
fn record(key: &str, last: u8) -> v1::SocketRecord {
    let value = vec![0xff, last];
    let record = v1::Record {
        key: Some(key.as_bytes().to_vec().into()),
        value: Some(value.into()),
        ..v1::Record::default()
    };
    v1::SocketRecord { record: Some(record), partition: None }
}

fn produce(records: Vec<v1::SocketRecord>) -> Ask {
    let topic = "t".to_owned();
    Ask::Produce(v1::SocketProduce { topic, records, ..v1::SocketProduce::default() })
}

fn tail(cursor: Option<&str>) -> v1::SocketTail {
    v1::SocketTail { topic: "t".into(), cursor: cursor.map(str::to_owned), ..Default::default() }
}

fn last_bytes(records: &[v1::SocketRecord]) -> Vec<u8> {
    let value = |one: &v1::SocketRecord| one.record.as_ref().unwrap().value.clone().unwrap();
    records.iter().map(|one| *value(one).last().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_arrives_at_a_tail_that_resumes_by_its_cursor() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let (mut one, mut other) = (Socket::open(web).await, Socket::open(web).await);
    let told = other.ask("a", Ask::Tail(tail(None))).await;
    let Told::Tailing(v1::SocketTailing { cursor: first }) = told else { panic!("{told:?}") };
    let told = one.ask("", produce(vec![record("k", 1), record("l", 2)])).await;
    let Told::Produced(v1::SocketProduced { records: placed }) = told else { panic!("{told:?}") };
    assert_eq!(placed.iter().map(|one| one.offset).collect::<Vec<_>>(), [Some(0), Some(1)]);
    let mut came = Vec::new();
    while came.len() < 2 {
        let (id, told) = other.hear().await;
        let Told::Records(found) = told else { panic!("{told:?}") };
        assert_eq!((id.as_str(), found.gaps.len()), ("a", 0));
        assert!(found.records.iter().all(|one| one.partition == Some(0)));
        came.extend(last_bytes(&found.records));
    }
    assert_eq!(came, [1, 2]);
    let told = other.ask("a", Ask::End(v1::SocketEnd {})).await;
    let Told::Ended(v1::SocketEnded { cursor }) = told else { panic!("{told:?}") };
    assert_eq!(cursor.split(':').nth(1), Some("2"), "{cursor}");
    // The word is one, whatever reads by it.
    let path = format!("HEAD /v1/topics/t/events?cursor={cursor}");
    assert_eq!(call(web, &path, b"").await.head.status, 200);
    let only = v1::SocketTail { key: Some("l".into()), ..tail(Some(&first)) };
    assert!(matches!(other.ask("b", Ask::Tail(only)).await, Told::Tailing(_)));
    let (id, told) = other.hear().await;
    let Told::Records(found) = told else { panic!("{told:?}") };
    assert_eq!((id.as_str(), last_bytes(&found.records)), ("b", vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_worked_from_its_opening_to_its_drain() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    socket.ask("", produce(vec![record("k", 1), record("k", 2)])).await;
    let settings = v1::SubscriptionSettings {
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(1),
        ..Default::default()
    };
    let spec =
        v1::SubscriptionSpec { topics: vec!["t".into()], start: None, settings: Some(settings) };
    let open = v1::OpenSession {
        subscription: "w".into(),
        session_id: "one".into(),
        format: v1::RecordFormat::Structured as i32,
        create: Some(spec),
        ..Default::default()
    };
    socket.session("w", Frame::Open(open)).await;
    let opened = socket.heard("w").await;
    assert!(matches!(opened, session_response::Frame::Opened(_)), "{opened:?}");
    let credit = v1::Credit { messages_total: 9, bytes_total: 1 << 20 };
    socket.session("w", Frame::Credit(credit)).await;
    let mut settled = 0;
    let mut is_failed = false;
    while settled < 2 {
        let delivered = socket.delivered("w").await;
        for record in &delivered.records {
            let outcome = match is_failed {
                true => Outcome::Ack(v1::Ack {}),
                false => Outcome::Nack(v1::Nack::default()),
            };
            settled += u32::from(is_failed);
            is_failed = true;
            let item = v1::SettleItem {
                topic: delivered.topic.clone(),
                partition: delivered.partition,
                start_offset: record.offset,
                end_offset: record.offset + 1,
                session_epoch: delivered.session_epoch,
                delivery_seq: delivered.delivery_seq,
                outcome: Some(outcome),
            };
            let settle = v1::SettleFrame { settle_id: 7, items: vec![item], sync: false };
            socket.session("w", Frame::Settle(settle)).await;
        }
    }
    socket.session("w", Frame::Drain(v1::DrainSession {})).await;
    let (id, told) = socket.hear().await;
    assert_eq!((id.as_str(), told), ("w", Told::Ended(v1::SocketEnded::default())));
    let described = call(web, "GET /v1/subscriptions/w", b"").await.ok(200);
    assert_eq!(described["partitions"][0]["lag"], 0, "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_the_socket_lives_on() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut socket = Socket::open(web).await;
    let none = v1::SocketProduce { topic: "t".into(), ..Default::default() };
    socket.refused(Ask::Produce(none.clone()), "records").await;
    let never = v1::SocketProduce { acks: v1::Acks::None as i32, ..none.clone() };
    socket.refused(Ask::Produce(never), "LEADER or ALL").await;
    let empty = v1::SocketProduce { records: vec![v1::SocketRecord::default()], ..none };
    socket.refused(Ask::Produce(empty), "records.record").await;
    socket.refused(Ask::End(v1::SocketEnd {}), "of a tail").await;
    let pause = v1::SessionRequest { frame: Some(Frame::Pause(v1::PauseSession {})) };
    socket.refused(Ask::Session(pause), "of a subscription").await;
    socket.refused(Ask::Session(v1::SessionRequest::default()), "session.frame").await;
    let wrong = v1::SocketTail { cursor: Some("?".into()), ..tail(None) };
    socket.refused(Ask::Tail(wrong), "cursor").await;
    let astray = v1::SocketRecord { partition: Some(9), ..record("k", 1) };
    let told = socket.ask("", produce(vec![record("k", 1), astray])).await;
    let Told::Problem(problem) = &told else { panic!("{told:?}") };
    let error = problem.error.as_ref().unwrap();
    assert_eq!(error.code(), v1::ErrorCode::UnknownTopicOrPartition, "{told:?}");
    let became: Vec<_> =
        problem.records.iter().map(|one| (one.offset, one.error.is_some())).collect();
    assert_eq!(became, [(Some(0), false), (None, true)]);
    for (message, part) in
        [(Message::text("{}"), "binary"), (Message::binary(vec![1]), "SocketRequest")]
    {
        socket.0.send(message).await.unwrap();
        let (id, told) = socket.hear().await;
        let Told::Problem(problem) = &told else { panic!("{told:?}") };
        assert!(
            id.is_empty() && problem.error.as_ref().unwrap().message.contains(part),
            "{told:?}"
        );
    }
    assert!(matches!(socket.ask("", produce(vec![record("k", 3)])).await, Told::Produced(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_protocol_that_is_known_is_spoken_and_others_are_passed_over() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let upgrade = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for (named, chosen) in [
        (None, None),
        (Some("mqtt"), None),
        (Some("riverrun.v1.json"), Some("riverrun.v1.json")),
        (Some("mqtt, riverrun.v1.protobuf, riverrun.v1.json"), Some(PROTOBUF)),
        (Some("riverrun.v1.json,riverrun.v1.protobuf"), Some("riverrun.v1.json")),
        (Some("riverrun.v1.protobuf2"), None),
    ] {
        let named = named.map(|named| format!("sec-websocket-protocol: {named}"));
        let headers: Vec<&str> = upgrade.into_iter().chain(named.as_deref()).collect();
        let reply = call_with(web, "GET /v1/ws", &headers, b"").await;
        assert_eq!(reply.head.status, 101);
        assert_eq!(reply.header("sec-websocket-protocol"), chosen, "{named:?}");
    }
    // Without one that is known, messages are JSON.
    let (mut socket, _) = connect_async(format!("ws://{web}/v1/ws")).await.unwrap();
    socket.send(Message::binary(vec![])).await.unwrap();
    let answer = loop {
        let message = timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap();
        if !message.is_ping() {
            break message;
        }
    };
    let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    assert_eq!(answer["op"], "problem");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_records_come_in_messages_of_a_bound() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let records: Vec<_> = (0..10_000).map(|n| serde_json::json!({"value": n})).collect();
    let body = Value::from(records).to_string();
    call(web, "POST /v1/topics/t/records", body.as_bytes()).await.ok(200);
    let mut socket = Socket::open(web).await;
    let tail = v1::SocketTail { topic: "t".into(), from_earliest: true, ..Default::default() };
    socket.ask("t", Ask::Tail(tail)).await;
    let mut next = 0;
    while next < 10_000 {
        let (_, Told::Records(found)) = socket.hear().await else { panic!("no records") };
        // What a record takes while it waits to be encoded counts too.
        assert!((1..4_000).contains(&found.records.len()), "{} at once", found.records.len());
        for one in found.records {
            assert_eq!(one.record.unwrap().offset, next);
            next += 1;
        }
    }
}
