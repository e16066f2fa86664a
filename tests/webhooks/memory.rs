//! What webhooks hold in memory. The broker runs in a process of its own, so that the peak is its own.

use bytes::Bytes;
use riverrun_proto::{
    Record,
    batch::{BatchBuilder, BuilderOptions, Compression},
    grpc::v1,
};
use tonic::transport::Endpoint;

use super::posts_to;
use crate::support::{
    client::in_time,
    process::Broker,
    push::{PushStubs, spec},
    receiver::{Answer, Receiver},
};

const SETTINGS: &str = r#"
[webhooks]
allow_networks = ["127.0.0.0/8"]
[subscriptions]
cache_bytes_max = "1MiB"
"#;
const BATCHES: u32 = 45;
const MIB: usize = 1 << 20;
/// Inflated bytes of a batch, in MiB.
const BATCH_MIB: usize = 48;
/// What the broker may take, several batches at once while they are looked through. All of them are more than twice as large.
const PEAK_MAX: usize = 1_024 * MIB;

/// A record that is wanted, and many bytes that are not.
fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::Zstd, BuilderOptions::default());
    let wanted = Record { key: Some("small".into()), value: Some("x".into()), ..Record::default() };
    builder.push(&wanted).unwrap();
    let zeros = Record { value: Some(vec![0; MIB].into()), ..Record::default() };
    for _ in 0..BATCH_MIB {
        builder.push(&zeros).unwrap();
    }
    builder.build().unwrap().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_for_an_answer_do_not_hold_the_batches_they_came_in() {
    let receiver = Receiver::start(|_| Answer::Silence).await;
    let broker = Broker::start_with(SETTINGS);
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap();
    let mut stubs = PushStubs::on(in_time(endpoint.connect()).await.unwrap());
    stubs.topics.create("t", 1, v1::TopicConfig::default()).await;
    let mut settings = posts_to(&receiver.url());
    settings.filter = Some(v1::SubscriptionFilter {
        key_equals: Some(Bytes::from_static(b"small")),
        ..Default::default()
    });
    if let Some(webhook) = &mut settings.webhook {
        (webhook.concurrency, webhook.timeout_ms) = (Some(BATCHES), Some(100_000));
    }
    assert!(stubs.create("s", spec(settings)).await.unwrap());
    let batch = batch();
    for _ in 0..BATCHES {
        let request = v1::AppendRequest {
            topic: "t".into(),
            payload: Some(v1::append_request::Payload::Batch(batch.clone())),
            ..Default::default()
        };
        in_time(stubs.topics.produce.append(request)).await.unwrap();
    }
    receiver.count(BATCHES as usize).await;
    let peak = broker.peak_bytes();
    assert!(peak < PEAK_MAX, "{} MiB", peak / MIB);
}
