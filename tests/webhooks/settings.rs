//! What is told of a webhook, and what changes while it runs.

use std::sync::Arc;

use riverrun_proto::{Header, Record, grpc::v1};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{broker, broker_in, hook, hooked, settled, standing_until};
use crate::support::{
    http::call,
    push::{PushStubs, keyed, open, spec, value},
    receiver::{Answer, Receiver, status},
};

fn url(url: &str) -> v1::SubscriptionSettings {
    hook(v1::WebhookSettings { url: Some(url.into()), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_posted_with_what_is_known_of_it() {
    let receiver = Receiver::start(|_| status(202)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    let header = |key: &'static str, value: &'static str| Header {
        key: key.into(),
        value: Some(value.into()),
    };
    let headers = vec![
        header("ce_specversion", "1.0"),
        header("ce_id", "7"),
        header("ce_source", "/a"),
        header("ce_type", "t"),
        header("content-type", "application/json"),
        header("trace", "ä"),
    ];
    let record = Record { timestamp_ms: 5, headers, ..keyed("käy", "{\"a\": 1}") };
    stubs.send(&[record]).await;
    settled(&mut stubs).await;
    let hook = receiver.count(1).await.remove(0);
    assert_eq!((hook.line.as_str(), hook.text().as_str()), ("POST /in?a=b HTTP/1.1", "{\"a\": 1}"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-id", "7"),
        ("ce-type", "t"),
        ("riverrun-header-trace", "%C3%A4"),
        ("riverrun-key", "k%C3%A4y"),
        ("riverrun-subscription", "s"),
        ("riverrun-topic", "t"),
        ("riverrun-partition", "0"),
        ("riverrun-offset", "0"),
        ("riverrun-timestamp-ms", "5"),
        ("riverrun-attempts", "1"),
        ("riverrun-failures", "0"),
    ] {
        assert_eq!(hook.header(name), Some(value), "{name}");
    }
    let id = hook.header("webhook-id").unwrap();
    // Topic id, partition, epoch, offset.
    let parts: Vec<&str> = id.split('-').collect();
    assert!(parts.len() == 4 && parts[0].len() == 32 && !id.contains('.'), "{id}");
    assert_eq!((parts[1], parts[3]), ("0", "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_moved_taken_away_and_set_again_while_it_runs() {
    let (first, second) =
        (Receiver::start(|_| status(200)).await, Receiver::start(|_| status(200)).await);
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&first)).await;
    stubs.send(&[value("a")]).await;
    first.count(1).await;
    settled(&mut stubs).await;
    stubs.alter(url(&second.url())).await;
    stubs.send(&[value("b")]).await;
    second.count(1).await;
    settled(&mut stubs).await;
    stubs.alter(url("")).await;
    // It ends once what it held is settled; then somebody else may have the records.
    while !stubs.describe().await.sessions.is_empty() {}
    assert_eq!(stubs.describe().await.webhook, None);
    stubs.send(&[value("c")]).await;
    let mut session = stubs.session("w").await;
    let got = session.one().await;
    assert_eq!(got.value, "c");
    session.ack(&[got]).await;
    drop(session);
    stubs.alter(url(&first.url())).await;
    stubs.send(&[value("d")]).await;
    assert_eq!(first.count(2).await[1].text(), "d");
    assert_eq!((first.came().len(), second.came().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_endpoint_before_says_is_not_said_of_the_one_now() {
    let held = Arc::new(Semaphore::new(0));
    let answers = held.clone();
    let first = Receiver::start(move |_| Answer::When(answers.clone(), 410)).await;
    let second = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&first)).await;
    stubs.send(&[value("a")]).await;
    first.count(1).await;
    stubs.alter(url(&second.url())).await;
    held.add_permits(1);
    // It was told that it is gone, which pauses the subscription of an endpoint that says so itself.
    standing_until(&mut stubs, |standing| standing.failed == 1).await;
    assert_eq!(second.count(1).await[0].text(), "a");
    settled(&mut stubs).await;
    assert!(!stubs.describe().await.paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_told_to_nobody_and_sign_after_a_restart() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let web = broker.web_address();
    drop(PushStubs::with_topic(&broker).await);
    let secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let body = json!({"subscription": "s", "topics": ["t"], "settings": {
        "webhook": {"url": receiver.url(), "secrets": [secret], "concurrency": 2, "timeout_ms": 5_000},
    }});
    call(web, "POST /v1/subscriptions", body.to_string().as_bytes()).await.ok(201);
    let described = call(web, "GET /v1/subscriptions/s", b"").await.ok(200);
    let expected =
        json!({"url": receiver.url(), "secret_count": 1, "concurrency": 2, "timeout_ms": 5_000});
    assert_eq!(described["settings"]["webhook"], expected);
    assert!(!described.to_string().contains("whsec"), "{described}");
    let mut stubs = PushStubs::new(&broker).await;
    let told = stubs.describe().await;
    assert_eq!(told.settings.clone().unwrap().webhook.unwrap().secrets, None);
    stubs.send(&[value("a")]).await;
    let before = receiver.count(1).await.remove(0);
    settled(&mut stubs).await;
    let metrics = call(web, "GET /metrics", b"").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let line = "riverrun_webhook_requests_total{subscription=\"s\",outcome=\"delivered\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    let dir = broker.stop().await.unwrap();
    let broker = broker_in(dir).await;
    let mut stubs = PushStubs::new(&broker).await;
    stubs.send(&[value("a")]).await;
    let after = receiver.count(2).await.remove(1);
    assert!(before.header("webhook-signature").is_some());
    assert!(after.header("webhook-signature").is_some());
    standing_until(&mut stubs, |standing| standing.delivered == 1).await;

    let change = json!({"settings": {"webhook": {"secrets": ["whsec_short"]}}});
    let refused =
        call(broker.web_address(), "PATCH /v1/subscriptions/s", change.to_string().as_bytes())
            .await;
    refused.refused((400, "INVALID_ARGUMENT"), &["settings.webhook.secrets", "24 to 64 bytes"]);
    assert!(!refused.json().to_string().contains("short"));
    let change = json!({"settings": {"webhook": {"secrets": "whsec_naked"}}});
    let refused =
        call(broker.web_address(), "PATCH /v1/subscriptions/s", change.to_string().as_bytes())
            .await;
    refused.refused((400, "INVALID_ARGUMENT"), &["`secrets` must be a list of texts"]);
    assert!(!refused.json().to_string().contains("naked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_told_to_post_nothing_posts_nothing() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = crate::support::broker::TestBroker::start_with(|config| {
        super::allow_loopback(config);
        config.webhooks.enabled = false;
    })
    .await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    assert_eq!(stubs.explain().await.reason(), v1::IdleReason::NoSession);
    // Sessions take turns: one that posts would get some of these.
    let mut session = stubs.session("w").await;
    for number in 0..20 {
        stubs.send(&[value(&number.to_string())]).await;
        let got = session.one().await;
        assert_eq!(got.value, number.to_string());
        session.ack(&[got]).await;
    }
    assert!(receiver.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_set_again_while_requests_are_under_way_goes_on_in_its_session() {
    let held = Arc::new(Semaphore::new(0));
    let answers = held.clone();
    let receiver = Receiver::start(move |_| Answer::When(answers.clone(), 200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    stubs.send(&[value("a")]).await;
    receiver.count(1).await;
    stubs.alter(url("")).await;
    while !stubs.describe().await.sessions.iter().all(|session| session.paused) {}
    stubs.alter(url(&receiver.url())).await;
    stubs.send(&[value("b")]).await;
    receiver.count(2).await;
    assert_eq!(stubs.describe().await.sessions.len(), 1);
    stubs.alter(url("")).await;
    held.add_permits(2);
    settled(&mut stubs).await;
    while !stubs.describe().await.sessions.is_empty() {}
    assert_eq!(receiver.came().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_takes_no_session_of_a_webhook() {
    let broker = broker().await;
    let mut stubs = PushStubs::with_topic(&broker).await;
    stubs.create("s", spec(v1::SubscriptionSettings::default())).await.unwrap();
    let refused = stubs.session_with(open("webhook-1")).await.unwrap_err();
    assert!(refused.message().contains("does not begin with `webhook-`"), "{refused:?}");
    let receive = v1::ReceiveRequest {
        subscription: "s".into(),
        session_id: "webhook-1".into(),
        ..Default::default()
    };
    let refused = stubs.receive(receive).await.unwrap_err();
    assert!(refused.message().contains("does not begin with `webhook-`"), "{refused:?}");
}
