//! The signature of [Standard Webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body, one for each
//! secret, so that a receiver that knows only one of them finds its own.
//!
//! ```text
//! webhook-signature: v1,BASE64(HMAC-SHA256(secret, "ID.SECONDS." BODY)) v1,...
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

use crate::subscription::webhook::Secret;

/// What signs the requests of one endpoint.
#[derive(Debug)]
pub(super) struct Signer {
    keys: Vec<hmac::Key>,
}

impl Signer {
    pub(super) fn new(secrets: &[Secret]) -> Signer {
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        Signer { keys: secrets.iter().map(key).collect() }
    }

    /// The header's value; `None` without a secret.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
        let signatures = self.keys.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        let signatures: Vec<String> = signatures.collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}
