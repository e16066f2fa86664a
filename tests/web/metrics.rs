//! What the door counts of its own requests.

use std::net::SocketAddr;

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{Http, call},
    openmetrics::Scrape,
};

async fn scrape(web: SocketAddr) -> Scrape {
    let reply = call(web, "GET /metrics", b"").await;
    assert_eq!(reply.head.status, 200);
    Scrape::parse(std::str::from_utf8(&reply.body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_class_and_no_label_is_of_the_callers_choice() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    for line in ["GET /v1/topics/t", "GET /v1/topics/none", "BREW /v1/topics/t"] {
        call(web, line, b"").await;
    }
    let mut http = Http::connect(web).await;
    http.ask("HEAD /v1/topics/t", &[], b"").await;
    assert_eq!(http.head().await.status, 200);
    for nowhere in ["GET /nowhere", "GET /else/where", "POST /healthz"] {
        call(web, nowhere, b"").await;
    }
    let seen = scrape(web).await;
    let count =
        |api, status| seen.get("riverrun_web_requests_total", &[("api", api), ("status", status)]);
    assert_eq!(count("POST /v1/topics", "2xx"), Some(1.0));
    assert_eq!(count("GET /v1/topics/{topic}", "2xx"), Some(2.0));
    assert_eq!(count("GET /v1/topics/{topic}", "4xx"), Some(1.0));
    assert_eq!(count("other", "4xx"), Some(4.0));
    let told = seen.all("riverrun_web_requests_total").count();
    assert_eq!(told, 4, "what never came has no series");
    let labels = [("door", "web"), ("api", "GET /v1/topics/{topic}")];
    assert_eq!(seen.value("riverrun_request_duration_seconds_count", &labels), 3.0);
    let unknown = [("code", "UNKNOWN_TOPIC_OR_PARTITION")];
    assert_eq!(seen.value("riverrun_requests_refused_total", &unknown), 1.0);
}

/// Waits until as many requests are in flight; the scrape is one of them.
async fn until_in_flight(web: SocketAddr, wanted: f64) {
    let mut last = f64::NAN;
    for _ in 0..1_000 {
        last = scrape(web).await.value("riverrun_web_requests_in_flight", &[]);
        if last == wanted {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{last} requests are in flight instead of {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_in_flight_until_it_is_answered_or_its_caller_is_gone() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    until_in_flight(web, 1.0).await;
    let poll = "GET /v1/topics/t/partitions/0/records?max_wait=60s";
    let (mut one, mut other) = (Http::connect(web).await, Http::connect(web).await);
    one.ask(poll, &[], b"").await;
    other.ask(poll, &[], b"").await;
    until_in_flight(web, 3.0).await;
    drop(other);
    until_in_flight(web, 2.0).await;
    let record = br#"{"value": "x"}"#;
    call(web, "POST /v1/topics/t/records", record).await.ok(200);
    one.reply().await.ok(200);
    until_in_flight(web, 1.0).await;
}
