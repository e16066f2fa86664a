//! Server-sent events by the web door.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::{Value, json};

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{Http, call, call_with},
};

/// One event as a browser sees it.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) name: String,
    data: Vec<String>,
}

impl Event {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.data.join("\n")).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// A reader of events, which knows no more than what was sent.
pub(super) struct Reader {
    pub(super) http: Http,
    text: String,
    pub(super) last_id: String,
}

impl Reader {
    pub(super) async fn open(web: SocketAddr, query: &str, last_id: &str) -> Reader {
        Reader::on(Http::connect(web).await, query, last_id).await
    }

    async fn on(http: Http, query: &str, last_id: &str) -> Reader {
        Reader::at(http, &format!("/v1/topics/t/events{query}"), last_id).await
    }

    /// Reads the events of this path.
    pub(super) async fn at(mut http: Http, path: &str, last_id: &str) -> Reader {
        let header = format!("last-event-id: {last_id}");
        let headers = [header.as_str()];
        let headers = if last_id.is_empty() { &[] } else { &headers[..] };
        http.ask(&format!("GET {path}"), headers, b"").await;
        let head = http.head().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Reader { http, text: String::new(), last_id: last_id.to_owned() }
    }

    /// The next event, with or without data; comments are none. `None` at the end.
    pub(super) async fn any(&mut self) -> Option<Event> {
        loop {
            if let Some((one, rest)) = self.text.split_once("\n\n") {
                let mut event = Event::default();
                for line in one.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => id.clone_into(&mut event.id),
                        Some(("event", name)) => name.clone_into(&mut event.name),
                        Some(("data", data)) => event.data.push(data.to_owned()),
                        Some(("retry", ms)) => assert!(ms.parse::<u32>().is_ok()),
                        _ => assert_eq!(line, ":"),
                    }
                }
                self.text = rest.to_owned();
                if !event.id.is_empty() {
                    self.last_id.clone_from(&event.id);
                    return Some(event);
                }
                continue;
            }
            let chunk = self.http.chunk().await?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event with data.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let event = self.any().await.expect("it goes on");
            if !event.data.is_empty() {
                return event;
            }
        }
    }
}

pub(super) async fn send(web: SocketAddr, numbers: std::ops::Range<u32>) {
    let one = |n| json!({"key": format!("k{n}"), "value": n});
    let records: Vec<_> = numbers.map(one).collect();
    let body = Value::from(records).to_string();
    call(web, "POST /v1/topics/t/records", body.as_bytes()).await.ok(200);
}

pub(super) fn number(event: &Event) -> u32 {
    event.json()["value"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_cut_again_and_again_gets_every_record_once_also_across_restarts() {
    let mut broker = TestBroker::start().await;
    create(broker.web_address(), "t", 4).await;
    let mut reader = Reader::open(broker.web_address(), "", "").await;
    let first = reader.any().await.unwrap();
    assert!(first.data.is_empty(), "the first event has an id and no data");
    let (mut seen, mut sent) = (BTreeSet::new(), 0);
    for round in 0..6 {
        send(broker.web_address(), sent..sent + 50).await;
        sent += 50;
        if round % 3 == 2 {
            let dir = broker.stop().await.unwrap();
            broker = TestBroker::start_in(dir, |_| ()).await;
        }
        // Some are left over for the next connection, and of what it was sent nothing is remembered but the id.
        reader = Reader::open(broker.web_address(), "", &reader.last_id).await;
        while seen.len() < sent as usize - 20 {
            assert!(seen.insert(number(&reader.next().await)), "one came twice");
        }
    }
    while seen.len() < sent as usize {
        assert!(seen.insert(number(&reader.next().await)), "one came twice");
    }
    assert_eq!(seen, (0..sent).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_connection_says_where_to_begin() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 2).await;
    send(web, 0..10).await;
    let mut all = Reader::open(web, "?from=earliest", "").await;
    let mut last = String::new();
    for _ in 0..10 {
        last = all.next().await.id;
    }
    let mut latest = Reader::open(web, "", "").await;
    latest.any().await.unwrap();
    send(web, 10..11).await;
    assert_eq!(number(&latest.next().await), 10);
    let mut given = Reader::open(web, &format!("?cursor={last}"), "").await;
    assert_eq!(number(&given.next().await), 10);
    let address = format!("?from=earliest&cursor={last}");
    let mut both = Reader::open(web, &address, &given.last_id).await;
    both.any().await.unwrap();
    send(web, 11..12).await;
    assert_eq!(number(&both.next().await), 11, "the header wins over what the address says");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_gone_are_told_as_a_gap() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    send(web, 0..10).await;
    let mut reader = Reader::open(web, "?from=earliest", "").await;
    for n in 0..3 {
        assert_eq!(number(&reader.next().await), n);
    }
    let cursor = reader.last_id.clone();
    drop(reader);
    call(web, "DELETE /v1/topics/t/partitions/0/records?before=7", b"").await.ok(200);
    let mut late = Reader::open(web, "", &cursor).await;
    let gap = late.next().await;
    assert_eq!(gap.name, "gap");
    let told = json!({"partition": 0, "reason": "retention", "offset": 3, "next_offset": 7});
    assert_eq!(gap.json(), told);
    assert_eq!(number(&late.next().await), 7);
    let mut after = Reader::open(web, "", &gap.id).await;
    assert_eq!(number(&after.next().await), 7, "the gap has an id of its own");
    assert_eq!(call(web, "DELETE /v1/topics/t", b"").await.head.status, 204);
    create(web, "t", 1).await;
    send(web, 100..101).await;
    let mut other = Reader::open(web, "", &after.last_id).await;
    let gap = other.next().await;
    assert_eq!((gap.name.as_str(), &gap.json()["reason"]), ("gap", &json!("topic_recreated")));
    assert_eq!(number(&other.next().await), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_in_values_and_filters_are_safe() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let forged = "a\n\ndata: forged\r\nid: 7\r\u{2028}\u{0}";
    let records = json!([
        {"key": "eu-1", "value": forged, "headers": [{"key": "kind", "value": "x"}]},
        {"key": "us-1", "value": "no", "headers": [{"key": "kind", "value": "y"}]},
        {"value": "no key"},
    ]);
    call(web, "POST /v1/topics/t/records", records.to_string().as_bytes()).await.ok(200);
    for query in ["key=eu-1", "key_prefix=eu", "header=kind:x", "key_prefix=eu&header=kind"] {
        let mut reader = Reader::open(web, &format!("?from=earliest&{query}"), "").await;
        assert_eq!(reader.next().await.json()["value"], forged, "{query}");
    }
    let mut none = Reader::open(web, "?from=earliest&key=other", "").await;
    let greeting = none.any().await.unwrap();
    let moved = none.any().await.unwrap();
    assert!(
        moved.data.is_empty() && moved.id != greeting.id,
        "what was passed over is not read again"
    );
    let mut resumed = Reader::open(web, "?key=other", &moved.id).await;
    assert_eq!(resumed.any().await.unwrap().id, moved.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_cursors_and_partitions_are_named_and_the_end_ends_the_stream() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 2).await;
    create(web, "wide", 129).await;
    let invalid = (400, "INVALID_ARGUMENT");
    let events = "GET /v1/topics/t/events";
    for (query, part) in [
        ("cursor=x", "cursor"),
        ("from=middle", "middle"),
        ("partitions=0,x", "partitions"),
        ("kye=1", "kye"),
    ] {
        call(web, &format!("{events}?{query}"), b"").await.refused(invalid, &[part]);
    }
    call_with(web, events, &["last-event-id: 17"], b"")
        .await
        .refused(invalid, &["last-event-id", "17"]);
    let topic = call(web, "GET /v1/topics/t", b"").await.ok(200);
    let id = topic["topic_id"].as_str().unwrap().replace('-', "");
    let header = format!("last-event-id: {id};9:1:1");
    call_with(web, events, &[&header], b"").await.refused(invalid, &["2 partitions", "9"]);
    let unknown = (404, "UNKNOWN_TOPIC_OR_PARTITION");
    call(web, &format!("{events}?partitions=0,2"), b"").await.refused(unknown, &["2"]);
    call(web, "GET /v1/topics/none/events", b"").await.refused(unknown, &["none"]);
    call(web, "GET /v1/topics/wide/events", b"").await.refused(invalid, &["1 to 128", "129"]);
    let mut reader = Reader::open(web, "?partitions=1", "").await;
    reader.any().await.unwrap();
    broker.stop().await;
    assert!(reader.any().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_and_resumes_where_it_was() {
    let broker = TestBroker::start().await;
    create(broker.web_address(), "t", 1).await;
    let large = json!({"value": "x".repeat(1 << 20)}).to_string();
    for _ in 0..24 {
        let reply = call(broker.web_address(), "POST /v1/topics/t/records", large.as_bytes());
        reply.await.ok(200);
    }
    let dir = broker.stop().await.unwrap();
    let broker = TestBroker::start_in(dir, |config| {
        config.http.write_timeout = std::time::Duration::from_millis(300);
        config.http.connections_max = 1;
    })
    .await;
    let web = broker.web_address();
    let mut reader = Reader::open(web, "?from=earliest", "").await;
    // It has the only place and takes nothing more, so another is let in once it was cut.
    let mut next = loop {
        let mut http = Http::connect(web).await;
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let sent = tokio::io::AsyncWriteExt::write_all(&mut http.socket, request).await;
        if sent.is_ok() && http.line().await.is_some() {
            break http;
        }
    };
    while next.line().await.is_some_and(|line| !line.is_empty()) {}
    let mut body = [0; br#"{"status":"ready"}"#.len()];
    tokio::io::AsyncReadExt::read_exact(&mut next.socket, &mut body).await.unwrap();
    let mut offsets = Vec::new();
    while let Some(event) = reader.any().await {
        if !event.data.is_empty() {
            offsets.push(event.json()["offset"].as_u64().unwrap());
        }
    }
    assert!(offsets.len() < 24, "it was cut");
    let mut again = Reader::on(next, "", &reader.last_id).await;
    while offsets.len() < 24 {
        offsets.push(again.next().await.json()["offset"].as_u64().unwrap());
    }
    assert_eq!(offsets, (0..24).collect::<Vec<_>>());
}

/// Bytes of text after which a step ends, and what the record that ends it may have here.
const STEP_TEXT_BYTES: usize = (256 << 10) + (16 << 10);

#[tokio::test(flavor = "multi_thread")]
async fn many_small_records_of_a_wide_topic_come_in_pieces_of_a_bound() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 100).await;
    let records: Vec<_> = (0..10_000).map(|n| json!({"value": n, "partition": n % 3})).collect();
    let body = Value::from(records).to_string();
    call(web, "POST /v1/topics/t/records", body.as_bytes()).await.ok(200);
    let mut reader = Reader::open(web, "?from=earliest", "").await;
    let (mut bytes, mut seen) = (0, BTreeSet::new());
    while seen.len() < 10_000 {
        // A chunk is the text that was made at once.
        let chunk = reader.http.chunk().await.expect("it goes on");
        let before = seen.len();
        assert!(chunk.len() <= STEP_TEXT_BYTES, "{} bytes at once", chunk.len());
        bytes += chunk.len();
        for line in std::str::from_utf8(&chunk).unwrap().lines() {
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut reader.last_id),
                Some(("data", data)) => {
                    let record: Value = serde_json::from_str(data).unwrap();
                    let number: u32 = record["value"].as_str().unwrap().parse().unwrap();
                    assert!(seen.insert(number), "{number} came twice");
                }
                _ => {}
            }
        }
        if seen.len() > before && seen.len() % 2 == 1 {
            // The next connection begins in the midst of what the last one had read.
            reader = Reader::open(web, "", &reader.last_id).await;
        }
    }
    assert!(bytes > 10 * STEP_TEXT_BYTES, "{bytes} bytes of text are not many");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_without_room_for_what_is_left_read_it_again() {
    let broker = TestBroker::start_with(|config| {
        config.limits.connection_bytes = 64 << 10;
        config.limits.read_bytes_per_connection_max = 300 << 10;
    })
    .await;
    let web = broker.web_address();
    create(web, "t", 50).await;
    for start in (0..5_000).step_by(1_000) {
        send(web, start..start + 1_000).await;
    }
    let mut reader = Reader::open(web, "?from=earliest", "").await;
    let mut seen = BTreeSet::new();
    while seen.len() < 5_000 {
        assert!(seen.insert(number(&reader.next().await)), "one came twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_grows_past_what_one_reader_takes_goes_on_and_its_ids_stay_good() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 127).await;
    let to = async |partition: u32, number: u32| {
        let record = json!({"value": number, "partition": partition}).to_string();
        call(web, "POST /v1/topics/t/records", record.as_bytes()).await.ok(200);
    };
    to(0, 0).await;
    let mut reader = Reader::open(web, "?from=earliest", "").await;
    assert_eq!(number(&reader.next().await), 0);
    call(web, "PATCH /v1/topics/t", br#"{"partitions":130}"#).await.ok(200);
    // The first is found by who waits already, the others by who looks for new partitions.
    for (partition, sent) in [(126, 1), (127, 2), (128, 3), (129, 4)] {
        to(partition, sent).await;
    }
    assert_eq!(number(&reader.next().await), 1);
    let gap = reader.next().await;
    assert_eq!(gap.name, "gap", "{gap:?}");
    let told =
        json!({"reason": "too_many_partitions", "partition_count": 130, "partitions_read": 128});
    assert_eq!(gap.json(), told);
    let mut last = reader.next().await;
    assert_eq!(number(&last), 2, "one more had a place, and is read from its start");
    for sent in 5..8 {
        // Every connection goes on and hears of it again.
        let mut next = Reader::open(web, "", &last.id).await;
        let gap = next.next().await;
        assert_eq!((gap.name.as_str(), gap.json()), ("gap", told.clone()));
        to(3, sent).await;
        last = next.next().await;
        assert_eq!(number(&last), sent);
    }
    let mut rest = Reader::open(web, "?from=earliest&partitions=128,129", "").await;
    let rest = BTreeSet::from([number(&rest.next().await), number(&rest.next().await)]);
    assert_eq!(rest, BTreeSet::from([3, 4]), "another reader takes what it has no place for");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_fit_the_headers_that_the_door_takes() {
    let broker = TestBroker::start_with(|config| config.http.header_bytes_max = 1 << 10).await;
    let web = broker.web_address();
    create(web, "t", 60).await;
    let mut all = Http::connect(web).await;
    all.ask("GET /v1/topics/t/events", &[], b"").await;
    assert_eq!(all.head().await.status, 400);
    let mut reader = Reader::open(web, "?partitions=0,1,2,3,4,5,6,7,8,9,10,11,12", "").await;
    let id = reader.any().await.unwrap().id;
    Reader::open(web, "", &id).await.next().await;
}
