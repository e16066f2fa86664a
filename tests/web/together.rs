//! Readers of one topic that stand at the same place: what they cost, and that each of them gets what it would get alone.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    create,
    events::{Reader, number, send},
    socket::{Socket, numbers},
};
use crate::support::{broker::TestBroker, http::call, openmetrics::Scrape};

/// What has not come by then is held up by somebody.
const SOON: Duration = Duration::from_secs(10);

async fn scrape(web: SocketAddr) -> Scrape {
    let reply = call(web, "GET /metrics", b"").await;
    Scrape::parse(std::str::from_utf8(&reply.body).unwrap())
}

/// Records of all partitions that were read for somebody.
async fn records_read(web: SocketAddr) -> f64 {
    let seen = scrape(web).await;
    seen.all("riverrun_fetch_records_total").map(|(_, value)| value).sum()
}

/// Waits until the door has so many connections; the scrape is one of them.
async fn until_connected(web: SocketAddr, count: f64) {
    let so_many = async {
        while scrape(web).await.value("riverrun_connections", &[("door", "web")]) != count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, so_many).await.expect("in time");
}

/// Readers that were greeted.
async fn readers(web: SocketAddr, count: usize, query: &str) -> Vec<Reader> {
    let greeted = |_| async {
        let mut reader = Reader::open(web, query, "").await;
        reader.any().await.unwrap();
        reader
    };
    join_all((0..count).map(greeted)).await
}

/// Waits until so many at least wait at the partitions.
async fn until_waiting(broker: &TestBroker, count: usize) {
    let enough = async {
        while broker.inside().services().fetch.waiter_count() < count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, enough).await.expect("in time");
}

/// The numbers of as many records, and their ids.
async fn take(reader: &mut Reader, count: usize) -> Vec<(u32, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let event = reader.next().await;
        taken.push((number(&event), event.id));
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_at_the_end_have_read_for_them_does_not_grow_with_their_number() {
    const RECORDS: u32 = 20;
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 2).await;
    let mut all = readers(web, 40, "").await;
    let mut filtered = readers(web, 20, "?key_prefix=k1").await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = Socket::open(web).await;
        let tail = json!({"op": "tail", "id": 1, "topic": "t"});
        assert_eq!(socket.ask(tail).await["op"], "tailing");
        sockets.push(socket);
    }
    // One of each kind stands for the others.
    until_waiting(&broker, 3).await;
    for n in 0..RECORDS {
        send(web, n..n + 1).await;
    }
    let (every, with_1) = (RECORDS as usize, 11);
    let all = join_all(all.iter_mut().map(|reader| take(reader, every))).await;
    let filtered = join_all(filtered.iter_mut().map(|reader| take(reader, with_1))).await;
    for (seen, wanted) in [(&all, every), (&filtered, with_1)] {
        assert!(seen.iter().all(|one| *one == seen[0]), "ids and records are the same for all");
        let mut seen: Vec<u32> = seen[0].iter().map(|(number, _)| *number).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), wanted, "each once");
    }
    for socket in &mut sockets {
        let mut seen = Vec::new();
        while seen.len() < every {
            seen.extend(numbers(&socket.hear().await));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..RECORDS).collect::<Vec<_>>());
    }
    let read = records_read(web).await;
    // Three kinds of readers, and as much again for those that were held up until nothing was kept for them any more.
    assert!(read <= f64::from(6 * RECORDS), "{read} records were read for 80 readers of {RECORDS}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_from_everywhere_get_what_is_in_the_log_whoever_reads_it() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    send(web, 0..30).await;
    let mut first = Reader::open(web, "?from=earliest", "").await;
    let ids: Vec<String> = take(&mut first, 30).await.into_iter().map(|(_, id)| id).collect();
    // From the end, from the start, from the midst, in twos, with and without a filter.
    let mut standing = Vec::new();
    for (from, query) in [(30, ""), (30, "?key_prefix=k4"), (10, ""), (10, "?key_prefix=k4")] {
        for _ in 0..2 {
            standing.push((from, query, Reader::open(web, query, &ids[from - 1]).await));
        }
    }
    for _ in 0..2 {
        standing.push((0, "", Reader::open(web, "?from=earliest", "").await));
    }
    for n in 30..60 {
        send(web, n..n + 1).await;
    }
    let whole = call(web, "GET /v1/topics/t/partitions/0/records", b"").await.ok(200);
    let stored = whole["records"].as_array().unwrap();
    assert_eq!(stored.len(), 60);
    for (from, query, mut reader) in standing {
        let is_wanted =
            |record: &&Value| query.is_empty() || record["key"].as_str().unwrap().starts_with("k4");
        for record in stored[from..].iter().filter(is_wanted) {
            let event = timeout(SOON, reader.next()).await.expect("in time");
            let mut expected = record.clone();
            expected["partition"] = json!(0);
            assert_eq!(event.json(), expected, "from {from} with `{query}`");
            let offset = record["offset"].as_u64().unwrap();
            let (place, _) = event.id.rsplit_once(':').unwrap();
            assert!(place.ends_with(&format!(";0:{}", offset + 1)), "{place} after {offset}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_a_gap_also_for_who_comes_right_after_it_was_read() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    send(web, 0..10).await;
    let mut reader = Reader::open(web, "?from=earliest", "").await;
    let start = reader.any().await.unwrap().id;
    assert_eq!(take(&mut reader, 10).await[9].0, 9);
    call(web, "DELETE /v1/topics/t/partitions/0/records?before=7", b"").await.ok(200);
    let mut late = Reader::open(web, "", &start).await;
    let gap = late.next().await;
    let told = json!({"partition": 0, "reason": "retention", "offset": 0, "next_offset": 7});
    assert_eq!((gap.name.as_str(), gap.json()), ("gap", told));
    assert_eq!(number(&late.next().await), 7);
    assert_eq!(call(web, "DELETE /v1/topics/t", b"").await.head.status, 204);
    create(web, "t", 1).await;
    send(web, 100..101).await;
    let mut other = Reader::open(web, "", &gap.id).await;
    assert_eq!(other.next().await.json()["reason"], "topic_recreated");
    assert_eq!(number(&other.next().await), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waited_for_all_may_leave() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let first = readers(web, 1, "").await;
    until_waiting(&broker, 1).await;
    let mut others = readers(web, 5, "").await;
    drop(first);
    // Those that are left, and the scrape itself.
    until_connected(web, 6.0).await;
    until_waiting(&broker, 1).await;
    send(web, 0..1).await;
    for reader in &mut others {
        let event = timeout(SOON, reader.next()).await.expect("in time");
        assert_eq!(number(&event), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_to_be_shared_comes_to_each_reader_all_the_same() {
    const RECORDS: u32 = 5_000;
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let mut readers = readers(web, 4, "").await;
    until_waiting(&broker, 1).await;
    send(web, 0..RECORDS).await;
    for reader in &mut readers {
        let taken = timeout(SOON, take(reader, RECORDS as usize)).await.expect("in time");
        assert!(taken.iter().map(|(number, _)| *number).eq(0..RECORDS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_holds_up_no_other() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    // The first waits for all at first, and never takes what it is sent.
    let _silent = readers(web, 3, "").await;
    until_waiting(&broker, 1).await;
    let mut others = readers(web, 3, "").await;
    let large = json!({"value": "x".repeat(200 << 10)}).to_string();
    for _ in 0..60 {
        call(web, "POST /v1/topics/t/records", large.as_bytes()).await.ok(200);
        for reader in &mut others {
            timeout(SOON, reader.next()).await.expect("in time");
        }
    }
}
