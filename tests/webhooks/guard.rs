//! What may not be posted to: addresses that are not of the public internet, by number and by name, and wherever an answer
//! points.

use riverrun_proto::grpc::v1;

use super::{broker, dead, hooked, posts_to, settled};
use crate::support::{
    broker::TestBroker,
    push::{PushStubs, value},
    receiver::{Answer, Receiver, status},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_on_this_machine_is_refused_by_number_and_by_name() {
    let receiver = Receiver::start(|_| status(200)).await;
    let port = receiver.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
        let broker = TestBroker::start().await;
        let settings = v1::SubscriptionSettings {
            max_failures: Some(1),
            ..posts_to(&format!("http://{host}:{port}/"))
        };
        let mut stubs = PushStubs::with_subscription(&broker, settings).await;
        stubs.send(&[value("x")]).await;
        let lane = settled(&mut stubs).await;
        assert_eq!(lane.dead, 1, "{host}");
        let (_, reason) = dead(&mut stubs).await.remove(0);
        // Whoever may set a webhook does not learn here which address a name has.
        let kind = if host == "0.0.0.0" { "of this network" } else { "loopback" };
        let host = host.trim_matches(['[', ']']);
        assert_eq!(reason, format!("`{host}` is {kind} and not in `webhooks.allow_networks`"));
    }
    assert!(receiver.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_posted_to_when_its_network_is_allowed() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let mut stubs = PushStubs::with_subscription(&broker, posts_to(&url)).await;
    stubs.send(&[value("x")]).await;
    settled(&mut stubs).await;
    let hooks = receiver.count(1).await;
    let host = format!("localhost:{}", receiver.address.port());
    assert_eq!(hooks[0].header("host"), Some(host.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let inner = Receiver::start(|_| status(200)).await;
    let location = format!("location: {}", inner.url());
    let outer = Receiver::start(move |_| Answer::Head(307, vec![location.clone()])).await;
    let broker = broker().await;
    let settings = v1::SubscriptionSettings { max_failures: Some(1), ..hooked(&outer) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("x")]).await;
    settled(&mut stubs).await;
    let reason = "answered 307 Temporary Redirect; redirects are not followed";
    assert_eq!(dead(&mut stubs).await, [("x".into(), reason.into())]);
    assert!(inner.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_an_answer_is_bounded_in_bytes_and_in_headers() {
    for (lines, is_taken) in [
        (vec![format!("x-large: {}", "y".repeat(100 << 10))], false),
        // With `content-length` there is one more.
        (vec!["x: 1".to_owned(); 99], true),
        (vec!["x: 1".to_owned(); 100], false),
    ] {
        let receiver = Receiver::start(move |_| Answer::Head(200, lines.clone())).await;
        let broker = broker().await;
        let settings = v1::SubscriptionSettings { max_failures: Some(1), ..hooked(&receiver) };
        let mut stubs = PushStubs::with_subscription(&broker, settings).await;
        stubs.send(&[value("x")]).await;
        let lane = settled(&mut stubs).await;
        assert_eq!(lane.dead == 0, is_taken, "{lane:?}");
    }
}
