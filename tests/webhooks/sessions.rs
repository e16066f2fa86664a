//! The sessions that webhooks open: of which subscription, and what is said when there is none.

use std::sync::Arc;

use riverrun_broker::service::delivery::PushError;
use riverrun_proto::grpc::v1;
use tonic::transport::Endpoint;

use super::{broker, hook, hooked};
use crate::support::{
    client::in_time,
    process,
    push::{PushStubs, spec, value},
    receiver::{Receiver, status},
};

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_opened_of_another_subscription_that_has_the_name_by_now() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    let delivery = &broker.inside().services().delivery;
    let first = delivery.hooked().remove(0);
    let delete = v1::DeleteSubscriptionRequest { subscription: "s".into(), force: true };
    in_time(stubs.subscriptions.delete_subscription(delete)).await.expect("deleted");
    // Without a webhook: nobody but its clients may have its records.
    assert!(stubs.create("s", spec(v1::SubscriptionSettings::default())).await.expect("created"));
    let opened = delivery.open_webhook((first.number, &first.name), "h", 1);
    let refused = opened.map(drop).expect_err("it is another one");
    let expected: Arc<str> = "s".into();
    let PushError::UnknownSubscription { subscription } = refused else { panic!("{refused:?}") };
    assert_eq!(subscription, expected);
    assert!(stubs.describe().await.sessions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_webhook_has_no_session_is_said_once_however_often_it_tries() {
    let receiver = Receiver::start(|_| status(200)).await;
    let settings =
        "[subscriptions]\nsessions_max = 1\n[webhooks]\nallow_networks = [\"127.0.0.0/8\"]";
    let broker = process::Broker::start_with(settings);
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address)).expect("an address");
    let mut stubs = PushStubs::on(in_time(endpoint.connect()).await.expect("connects"));
    stubs.topics.create("t", 1, v1::TopicConfig::default()).await;
    assert!(stubs.create("s", spec(v1::SubscriptionSettings::default())).await.expect("created"));
    let only = stubs.session("w").await;
    stubs.alter(hooked(&receiver)).await;
    let said = || broker.stderr().matches("no session").count();
    in_time(async {
        while said() == 0 {
            stubs.describe().await;
        }
    })
    .await;
    // Whoever changes it wants to see what comes of it: it tries again at once.
    for timeout_ms in 10_001..10_011 {
        stubs
            .alter(hook(v1::WebhookSettings { timeout_ms: Some(timeout_ms), ..Default::default() }))
            .await;
    }
    drop(only);
    stubs.send(&[value("a")]).await;
    assert_eq!(receiver.count(1).await[0].text(), "a");
    assert_eq!(said(), 1, "{}", broker.stderr());
}
