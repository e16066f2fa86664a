//! Webhooks: a real receiver over sockets, a real broker. [`guard`]: what may not be posted to. [`settings`]: what is told and
//! changed. [`sessions`]: of which subscription, and what is said when there is none. [`signed`]: signatures, checked by another implementation. [`tls`]: whom an endpoint must prove to be. [`trouble`]: receivers that fail, slow and die.
//! [`stalls`]: endpoints that take a connection and go no further, and what one may hold; [`memory`]: in bytes of the process.

mod guard;
mod memory;
mod sessions;
mod settings;
mod signed;
mod stalls;
pub(crate) mod tls;
mod trouble;

use riverrun_broker::Config;
use riverrun_proto::grpc::v1;
use tempfile::TempDir;

use crate::support::{
    broker::TestBroker,
    client::in_time,
    push::PushStubs,
    receiver::{Hook, Receiver},
    records::fetch,
};

/// A broker that may post to this machine.
async fn broker() -> TestBroker {
    TestBroker::start_with(allow_loopback).await
}

/// The same on what another one left.
async fn broker_in(dir: TempDir) -> TestBroker {
    TestBroker::start_in(dir, allow_loopback).await
}

fn allow_loopback(config: &mut Config) {
    config.webhooks.allow_networks =
        vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
}

/// Settings that post to the receiver, with quick retries.
fn hooked(receiver: &Receiver) -> v1::SubscriptionSettings {
    posts_to(&receiver.url())
}

fn posts_to(url: &str) -> v1::SubscriptionSettings {
    v1::SubscriptionSettings {
        backoff_min_ms: Some(1),
        backoff_max_ms: Some(20),
        webhook: Some(v1::WebhookSettings { url: Some(url.into()), ..Default::default() }),
        ..Default::default()
    }
}

/// A change of the webhook alone.
fn hook(webhook: v1::WebhookSettings) -> v1::SubscriptionSettings {
    v1::SubscriptionSettings { webhook: Some(webhook), ..Default::default() }
}

/// Waits until everything of `s` is settled.
async fn settled(stubs: &mut PushStubs) -> v1::SubscriptionPartition {
    stubs.lane_until(|lane| lane.lag == 0 && lane.high_watermark > 0).await
}

/// How the webhook stands.
async fn standing(stubs: &mut PushStubs) -> v1::WebhookStanding {
    stubs.describe().await.webhook.expect("it has one")
}

/// Waits until the webhook stands as it should.
async fn standing_until(
    stubs: &mut PushStubs,
    is_so: impl Fn(&v1::WebhookStanding) -> bool,
) -> v1::WebhookStanding {
    in_time(async {
        loop {
            let standing = standing(stubs).await;
            if is_so(&standing) {
                return standing;
            }
        }
    })
    .await
}

/// The dead letters of `s`: values, and why they died.
async fn dead(stubs: &mut PushStubs) -> Vec<(String, String)> {
    let read = stubs.topics.fetch.fetch(fetch("s.dead", 0)).await.unwrap().into_inner();
    let records = read.partitions.into_iter().next().unwrap().records;
    let text = |bytes: Option<bytes::Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let letter = |record: v1::Record| {
        let detail = record.headers.into_iter().find(|one| one.key == "riverrun-dead-detail");
        (text(record.value), text(detail.unwrap().value))
    };
    let mut letters: Vec<_> = records.into_iter().map(letter).collect();
    letters.sort();
    letters
}

/// The bodies, sorted and each once.
fn bodies(hooks: &[Hook]) -> Vec<String> {
    let mut bodies: Vec<String> = hooks.iter().map(Hook::text).collect();
    bodies.sort();
    bodies.dedup();
    bodies
}
