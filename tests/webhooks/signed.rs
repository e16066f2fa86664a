//! Signatures, checked by another implementation of HMAC-SHA256 than the broker's.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use riverrun_proto::grpc::v1;
use sha2::Sha256;

use super::{broker, hook, hooked, settled};
use crate::support::{
    push::{PushStubs, value},
    receiver::{Hook, Receiver, status},
};

fn secret(byte: u8) -> ([u8; 32], String) {
    ([byte; 32], format!("whsec_{}", STANDARD.encode([byte; 32])))
}

fn secrets(bytes: &[u8]) -> v1::SubscriptionSettings {
    let secrets = bytes.iter().map(|byte| secret(*byte).1).collect();
    let secrets = Some(v1::WebhookSecrets { secrets });
    hook(v1::WebhookSettings { secrets, ..Default::default() })
}

/// The signature that this secret makes.
fn signature(byte: u8, hook: &Hook) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret(byte).0).unwrap();
    let header = |name| hook.header(name).unwrap();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&hook.body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_signed_with_every_secret_there_is() {
    let receiver = Receiver::start(|_| status(200)).await;
    let broker = broker().await;
    let mut stubs = PushStubs::with_subscription(&broker, hooked(&receiver)).await;
    let all: [&[u8]; 5] = [&[], &[1], &[1, 2], &[2], &[]];
    for (round, bytes) in all.into_iter().enumerate() {
        stubs.alter(secrets(bytes)).await;
        stubs.send(&[value(&format!("body {round}"))]).await;
        let hook = receiver.count(round + 1).await.remove(round);
        assert_eq!(hook.text(), format!("body {round}"));
        let expected: Vec<String> = bytes.iter().map(|byte| signature(*byte, &hook)).collect();
        let expected = Some(expected.join(" ")).filter(|text| !text.is_empty());
        assert_eq!(hook.header("webhook-signature"), expected.as_deref());
        let seconds: i64 = hook.header("webhook-timestamp").unwrap().parse().unwrap();
        assert!(seconds > 1_700_000_000, "{seconds}");
        settled(&mut stubs).await;
    }
}
