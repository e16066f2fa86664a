//! Connections that flood the gRPC door with frames, or hold it open and do nothing: each is cut or bounded,
//! a healthy client beside it is served, and nothing of it stays behind.

use std::time::Duration;

use riverrun_broker::Config;
use riverrun_proto::grpc::v1;

use crate::support::{
    broker::{Stubs, TestBroker},
    client::{address, in_time},
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PREFACE,
        RST_STREAM, SETTINGS, Seen, WINDOW_UPDATE, Wire, be32, call, frame, header, kept_header,
        message,
    },
    records::{append, fetch},
};

const APPEND: &str = "/riverrun.v1.Produce/Append";
const PIPELINE: &str = "/riverrun.v1.Produce/AppendPipeline";
const FETCH: &str = "/riverrun.v1.Fetch/Fetch";
/// The setting of the first window of a stream.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A broker with a topic `t`, and a client that behaves.
async fn house() -> (TestBroker, Stubs) {
    let broker = TestBroker::start().await;
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
    (broker, stubs)
}

/// Checks that the healthy client and a new one are served, and that no flood left anything behind.
async fn check_well(broker: &TestBroker, healthy: &mut Stubs) {
    in_time(healthy.append("t", &["healthy"])).await;
    in_time(async { broker.stubs().await.append("t", &["new"]).await }).await;
    let services = broker.inside().services();
    let tail = broker.inside().registry().partition("t", &[], 0).unwrap().tail().clone();
    let left = || {
        let waiters = services.fetch.waiter_count() + tail.waiter_count();
        waiters + services.produce.in_flight_bytes()
    };
    in_time(async {
        while left() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The identifier of the nth stream of a client.
fn stream(nth: usize) -> u32 {
    u32::try_from(nth * 2 + 1).unwrap()
}

#[tokio::test]
async fn streams_opened_and_reset_at_once_end_the_connection() {
    let (broker, mut healthy) = house().await;
    let mut wire = Wire::greeted(address(&broker), &[]).await;
    let block = call(APPEND);
    let open_and_reset = |nth| {
        let open = frame(HEADERS, END_HEADERS, stream(nth), &block);
        [open, frame(RST_STREAM, 0, stream(nth), &be32(8))].concat()
    };
    wire.repeat(200_000, open_and_reset).await;
    assert_eq!(wire.closed().await.goaway, Some(ENHANCE_YOUR_CALM));
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn streams_that_force_the_broker_to_reset_them_end_the_connection() {
    let (broker, mut healthy) = house().await;
    let mut wire = Wire::greeted(address(&broker), &[]).await;
    let block = call(APPEND);
    let open_and_overflow = |nth| {
        let open = frame(HEADERS, END_HEADERS, stream(nth), &block);
        [open, frame(WINDOW_UPDATE, 0, stream(nth), &be32(0x7fff_ffff))].concat()
    };
    wire.repeat(200_000, open_and_overflow).await;
    let seen = wire.closed().await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "after {} resets", seen.resets.len());
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let (broker, mut healthy) = house().await;
    // Whole headers, so that no piece is a fault in itself.
    for piece in [Vec::new(), header("x", &"y".repeat(1_000))] {
        let mut wire = Wire::greeted(address(&broker), &[]).await;
        assert!(wire.send(&frame(HEADERS, 0, 1, &call(APPEND))).await);
        wire.repeat(200_000, |_| frame(CONTINUATION, 0, 1, &piece)).await;
        let seen = wire.closed().await;
        assert!(seen.goaway.is_some(), "pieces of {} bytes", piece.len());
        assert!(seen.answered.is_empty());
    }
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn header_lists_past_the_limit_are_refused() {
    assert_eq!(Config::default().grpc.header_list_bytes_max, 16 << 10);
    // Limits on both sides of the protocol stack's own, which would hide that ours is not heard.
    for limit in [4 << 10, 16 << 10, 64 << 10] {
        let broker =
            TestBroker::start_with(|config| config.grpc.header_list_bytes_max = limit).await;
        let mut healthy = broker.stubs().await;
        healthy.create("t", 1, v1::TopicConfig::default()).await;
        let list = |bytes: u32| header("x", &"y".repeat(bytes as usize));
        // The same by reference: kept once, named again and again.
        let times = limit as usize / 1_000 + 1;
        let bomb = [kept_header("x", &"y".repeat(1_000)), vec![0x80 | 62; times]].concat();
        for (list, allowed) in
            [(list(limit - 1_000), true), (list(limit + 1_000), false), (bomb, false)]
        {
            check_header_list(&broker, &list, allowed).await;
        }
        assert_eq!(healthy.read("t").await, ["a"], "by the list within the limit");
        check_well(&broker, &mut healthy).await;
    }
}

/// Checks that an append with these headers is made, or refused.
async fn check_header_list(broker: &TestBroker, list: &[u8], allowed: bool) {
    let mut wire = Wire::greeted(address(broker), &[]).await;
    let block = [&call(APPEND)[..], list].concat();
    assert!(wire.send(&frame(HEADERS, END_HEADERS, 1, &block)).await);
    let body = message(&append("t", &["a"]));
    wire.send(&frame(DATA, END_STREAM, 1, &body)).await;
    let over = |seen: &Seen| seen.goaway.is_some() || seen.ended.contains(&1);
    let seen = wire.until(over).await;
    // Data is a receipt: without it the call was not made.
    assert_eq!(seen.data_bytes > 0, allowed, "{seen:?}");
    assert_eq!(seen.goaway.is_none(), allowed || !seen.answered.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn floods_of_pings_and_settings_are_answered_and_hold_nobody_up() {
    const COUNT: usize = 50_000;
    let (broker, mut healthy) = house().await;
    for (kind, payload) in [(PING, vec![1; 8]), (SETTINGS, Vec::new())] {
        let mut wire = Wire::greeted(address(&broker), &[]).await;
        let flood = async {
            wire.repeat(COUNT, |_| frame(kind, 0, 0, &payload)).await;
            wire.until(|seen| seen.pongs.max(seen.settings_acks) >= COUNT).await
        };
        let work = async {
            for _ in 0..20 {
                in_time(healthy.append("t", &["beside"])).await;
            }
        };
        let (seen, ()) = tokio::join!(flood, work);
        let answered = seen.pongs.max(seen.settings_acks);
        assert!(answered >= COUNT || seen.goaway.is_some(), "{seen:?}");
    }
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn empty_data_frames_without_end_end_the_connection() {
    let (broker, mut healthy) = house().await;
    let mut wire = Wire::greeted(address(&broker), &[]).await;
    assert!(wire.send(&frame(HEADERS, END_HEADERS, 1, &call(PIPELINE))).await);
    wire.repeat(500_000, |_| frame(DATA, 0, 1, &[])).await;
    assert_eq!(wire.closed().await.goaway, Some(ENHANCE_YOUR_CALM));
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_gets_its_replies_once_it_does() {
    const CALLS: usize = 16;
    let (broker, mut healthy) = house().await;
    let value = "v".repeat(1_000_000);
    for _ in 0..4 {
        healthy.append("t", &[&value]).await;
    }
    let mut wire = Wire::greeted(address(&broker), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let large = v1::FetchRequest { max_bytes: 8 << 20, ..fetch("t", 0) };
    for nth in 0..CALLS {
        let head = frame(HEADERS, END_HEADERS, stream(nth), &call(FETCH));
        let body = frame(DATA, END_STREAM, stream(nth), &message(&large));
        assert!(wire.send(&[head, body].concat()).await);
    }
    let seen = wire.until(|seen| seen.answered.len() == CALLS).await;
    assert_eq!((seen.data_bytes, seen.closed), (0, false));
    check_well(&broker, &mut healthy).await;
    let open = frame(SETTINGS, 0, 0, &[&[0, 4][..], &be32(16 << 20)].concat());
    assert!(wire.send(&open).await);
    assert!(wire.send(&frame(WINDOW_UPDATE, 0, 0, &be32(1 << 30))).await);
    let seen = wire.until(|seen| seen.ended.len() == CALLS).await;
    assert!(seen.data_bytes >= CALLS * 1_000_000, "{}", seen.data_bytes);
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn a_call_that_comes_byte_by_byte_is_served() {
    let (broker, mut healthy) = house().await;
    let mut wire = Wire::connect(address(&broker)).await;
    let all = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &call(APPEND)),
        frame(DATA, END_STREAM, 1, &message(&append("t", &["slow"]))),
    ];
    for byte in all.concat() {
        assert!(wire.send(&[byte]).await);
    }
    let seen = wire.until(|seen| seen.ended.contains(&1)).await;
    assert!(seen.data_bytes > 5 && !seen.closed, "{seen:?}");
    assert_eq!(healthy.read("t").await, ["slow"]);
    check_well(&broker, &mut healthy).await;
}

#[tokio::test]
async fn half_a_call_leaves_nothing_when_its_connection_goes() {
    let (broker, mut healthy) = house().await;
    let body = message(&append("t", &["never whole"]));
    let poll = v1::FetchRequest { max_wait_ms: 60_000, min_bytes: 1 << 20, ..fetch("t", 0) };
    let mut wire = Wire::greeted(address(&broker), &[]).await;
    assert!(wire.send(&frame(HEADERS, END_HEADERS, 1, &call(APPEND))).await);
    assert!(wire.send(&frame(DATA, 0, 1, &body[..body.len() - 1])).await);
    assert!(wire.send(&frame(HEADERS, END_HEADERS, 3, &call(FETCH))).await);
    assert!(wire.send(&frame(DATA, END_STREAM, 3, &message(&poll))).await);
    let services = broker.inside().services().clone();
    in_time(async {
        while services.fetch.waiter_count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(wire);
    check_well(&broker, &mut healthy).await;
    assert_eq!(healthy.read("t").await, ["healthy", "new"]);
}

#[tokio::test]
async fn a_greeting_that_does_not_end_is_cut() {
    let soon = Duration::from_millis(50);
    let broker = TestBroker::start_with(|config| config.grpc.handshake_timeout = soon).await;
    let mut wire = Wire::connect(address(&broker)).await;
    assert!(wire.send(&PREFACE[..PREFACE.len() - 1]).await);
    assert!(wire.closed().await.closed);
    let mut other = Wire::connect(address(&broker)).await;
    other.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(other.closed().await.answered.is_empty(), "not our protocol");
    let mut stubs = broker.stubs().await;
    stubs.create("t", 1, v1::TopicConfig::default()).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_cut() {
    let broker = TestBroker::start_with(|config| {
        config.grpc.keepalive_interval = Duration::from_secs(1);
        config.grpc.keepalive_timeout = Duration::from_secs(1);
    })
    .await;
    let mut wire = Wire::greeted(address(&broker), &[]).await;
    assert!(wire.send(&frame(HEADERS, END_HEADERS, 1, &call(PIPELINE))).await);
    assert!(wire.closed().await.closed);
}

#[tokio::test]
async fn idle_connections_fill_the_cap_and_the_next_is_refused() {
    const CAP: u32 = 40;
    let broker = TestBroker::start_with(|config| config.grpc.connections_max = CAP).await;
    let mut healthy = broker.stubs().await;
    healthy.create("t", 1, v1::TopicConfig::default()).await;
    let mut idle = Vec::new();
    for _ in 1..CAP {
        let mut wire = Wire::greeted(address(&broker), &[]).await;
        assert!(wire.lives().await);
        idle.push(wire);
    }
    let mut refused = Wire::connect(address(&broker)).await;
    let seen = refused.closed().await;
    assert_eq!((seen.settings_acks, seen.goaway), (0, None), "closed on arrival");
    healthy.append("t", &["beside"]).await;
    for wire in &mut idle {
        assert!(wire.lives().await);
    }
    drop(idle);
    in_time(async {
        loop {
            let mut next = Wire::connect(address(&broker)).await;
            let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
            if next.send(&greeting).await && next.lives().await {
                break;
            }
        }
    })
    .await;
    check_well(&broker, &mut healthy).await;
}
