//! The door itself: who may come in, and what is said to those who knock wrongly.

use std::time::Duration;

use super::create;
use crate::support::{
    broker::TestBroker,
    http::{Http, call, call_with},
};

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_is_alive_and_ready() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    assert_eq!(call(web, "GET /healthz", b"").await.ok(200)["status"], "alive");
    assert_eq!(call(web, "GET /readyz", b"").await.ok(200)["status"], "ready");
    let mut http = Http::connect(web).await;
    for _ in 0..3 {
        http.ask("GET /readyz", &[], b"").await;
        http.reply().await.ok(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_no_route_knows_is_named_by_all_of_them() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/topics"] {
        let refused = call(web, &format!("GET {path}?verbose=1"), b"").await;
        refused.refused((400, "INVALID_ARGUMENT"), &["query", "verbose"]);
        assert_eq!(call(web, &format!("GET {path}"), b"").await.head.status, 200, "{path}");
    }
    let chosen = call(web, "GET /metrics?name[]=riverrun_build_info", b"").await;
    chosen.refused((400, "INVALID_ARGUMENT"), &["query", "name[]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_methods_are_named() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    call(web, "GET /nowhere", b"").await.refused((404, "NOT_FOUND"), &["/nowhere"]);
    let reply = call(web, "POST /healthz", b"").await;
    reply.refused((405, "METHOD_NOT_ALLOWED"), &["/healthz", "POST"]);
    assert_eq!(reply.header("allow"), Some("GET,HEAD"));
    call(web, "TRACE /healthz", b"").await.refused((405, "METHOD_NOT_ALLOWED"), &["TRACE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_and_names_that_lead_here_are_refused() {
    let broker = TestBroker::start_with(|config| {
        config.http.cors_origins = vec!["https://shop.test".into()];
    })
    .await;
    let web = broker.web_address();
    let origin = |origin| call_with(web, "GET /healthz", origin, b"");
    origin(&["origin: https://evil.test"]).await.refused((403, "ORIGIN_NOT_ALLOWED"), &["evil"]);
    origin(&["origin: null"]).await.refused((403, "ORIGIN_NOT_ALLOWED"), &["null"]);
    origin(&["origin: http://localhost"]).await.ok(200);
    let allowed = origin(&["origin: https://shop.test"]).await;
    allowed.ok(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://shop.test"));
    assert_eq!(allowed.header("vary"), Some("origin"));
    let none = origin(&[]).await;
    assert_eq!(none.header("access-control-allow-origin"), None);
    assert_eq!(none.header("vary"), Some("origin"), "a cache must not give it to a page");
    let asks = ["origin: https://shop.test", "access-control-request-method: POST"];
    let asked = call_with(web, "OPTIONS /v1/topics", &asks, b"").await;
    assert_eq!(asked.head.status, 204);
    assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"));
    let mut http = Http::connect(web).await;
    http.send("GET /healthz HTTP/1.1\r\nhost: evil.test\r\n\r\n").await;
    http.reply().await.refused((421, "UNKNOWN_HOST"), &["evil.test", "http.hosts"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_have_bounds_in_bytes_and_in_time() {
    let broker = TestBroker::start_with(|config| {
        config.http.header_bytes_max = 4 << 10;
        config.http.header_timeout = Duration::from_millis(200);
    })
    .await;
    let web = broker.web_address();
    let large = format!("x: {}", "y".repeat(5 << 10));
    call_with(web, "GET /healthz", &[&large], b"")
        .await
        .refused((431, "HEADERS_TOO_LARGE"), &["http.header_bytes_max", "4096"]);
    let huge = format!("x: {}", "y".repeat(1 << 20));
    let mut http = Http::connect(web).await;
    http.send(format!("GET /healthz HTTP/1.1\r\n{}", &huge[..64 << 10])).await;
    assert_eq!(http.head().await.status, 431);
    for slow in ["", "GET /healthz HTTP/1.1\r\nhost: loc"] {
        let mut http = Http::connect(web).await;
        http.send(slow).await;
        let said = http.rest().await;
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{said:?}");
    }
    for broken in
        ["\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n"]
    {
        let mut http = Http::connect(web).await;
        http.send(broken).await;
        assert!(http.rest().await.starts_with(b"HTTP/1.1 400"), "{broken}");
    }
    call(web, "GET /healthz", b"").await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_bound_are_closed_and_the_others_served() {
    let broker = TestBroker::start_with(|config| config.http.connections_max = 2).await;
    let web = broker.web_address();
    let (mut one, mut two) = (Http::connect(web).await, Http::connect(web).await);
    for http in [&mut one, &mut two] {
        http.ask("GET /healthz", &[], b"").await;
        http.reply().await.ok(200);
    }
    let mut three = Http::connect(web).await;
    assert!(three.rest().await.is_empty());
    one.ask("GET /healthz", &[], b"").await;
    one.reply().await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_broker_ends_connections_that_wait() {
    let broker = TestBroker::start().await;
    let mut idle = Http::connect(broker.web_address()).await;
    idle.ask("GET /readyz", &[], b"").await;
    idle.reply().await.ok(200);
    let fresh = Http::connect(broker.web_address()).await;
    broker.stop().await;
    assert!(idle.rest().await.is_empty());
    drop(fresh);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_does_not_pass_for_an_object() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    create(web, "t", 1).await;
    let sub = br#"{"subscription":"s","topics":["t"]}"#;
    call(web, "POST /v1/subscriptions", sub).await.ok(201);
    for (line, body) in [
        ("POST /v1/topics", r#"["u",3]"#),
        ("POST /v1/topics", r#"{"topic":"u","config":[null,null]}"#),
        ("PATCH /v1/topics/t", "[]"),
        ("POST /v1/topics/t/records", r#"[["k","auto","v"]]"#),
        ("POST /v1/topics/t/records", r#"{"value":"v","headers":[["h","x"]]}"#),
        ("PUT /v1/groups/g/offsets", r#"{"offsets":[["t",0,0]]}"#),
        ("POST /v1/groups/g/offsets/reset", r#"{"to":"latest","partitions":[["t",0]]}"#),
        ("POST /v1/subscriptions", r#"{"subscription":"u","topics":["t"],"settings":[]}"#),
        ("PATCH /v1/subscriptions/s", r#"{"settings":{"filter":[]}}"#),
        ("POST /v1/subscriptions/s/receive", "[]"),
        ("POST /v1/subscriptions/s/settle", r#"{"session_id":"w","items":[["l","ack"]]}"#),
        ("POST /v1/subscriptions/s/redrive", "[]"),
        ("POST /v1/subscriptions/s/seek", r#"{"to":"latest","partitions":[["t",0]]}"#),
    ] {
        let reply = call(web, line, body.as_bytes()).await;
        reply.refused((400, "INVALID_ARGUMENT"), &["expected an object"]);
    }
    let lines = call_with(
        web,
        "POST /v1/topics/t/records",
        &["content-type: application/x-ndjson"],
        b"[\"k\",\"auto\",\"v\"]\n",
    );
    lines.await.refused((400, "INVALID_ARGUMENT"), &["expected an object"]);
    let key = br#"{"key":["aGk="]}"#;
    let redrive = call(web, "POST /v1/subscriptions/s/redrive", key).await;
    redrive.refused((400, "INVALID_ARGUMENT"), &["a string or an object"]);
    assert_eq!(call(web, "GET /v1/topics/u", b"").await.head.status, 404);
}
