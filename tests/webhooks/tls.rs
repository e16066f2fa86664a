//! Endpoints over TLS: one that proves who it is gets the records, another nothing.
//!
//! The certificate in `tls/` is of an authority made for this test, for `localhost` and 127.0.0.1, and its key is no secret.

use std::{path::Path, sync::Arc};

use riverrun_broker::{Broker, Config};
use riverrun_proto::grpc::v1;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::{allow_loopback, dead, posts_to, settled};
use crate::support::{
    broker::TestBroker,
    push::{PushStubs, value},
    receiver::{Receiver, status},
};

/// A file of `tls/`.
pub(super) fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("webhooks/tls").join(name);
    path.to_str().unwrap().to_owned()
}

/// What an endpoint proves itself with.
pub(crate) fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config).into()
}

/// What comes of a record for this endpoint, and how much the endpoint saw.
async fn post(trust: bool, host: &str) -> (Option<String>, usize) {
    let receiver = Receiver::start_tls(acceptor(), |_| status(200)).await;
    let broker = TestBroker::start_with(|config| {
        allow_loopback(config);
        if trust {
            config.webhooks.ca_files = vec![file("ca.pem")];
        }
    })
    .await;
    let url = format!("https://{host}:{}/", receiver.address.port());
    let settings = v1::SubscriptionSettings { max_failures: Some(1), ..posts_to(&url) };
    let mut stubs = PushStubs::with_subscription(&broker, settings).await;
    stubs.send(&[value("x")]).await;
    let lane = settled(&mut stubs).await;
    let letter = if lane.dead > 0 { dead(&mut stubs).await.pop() } else { None };
    (letter.map(|(_, reason)| reason), receiver.came().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_must_prove_who_it_is() {
    assert_eq!(post(true, "localhost").await, (None, 1));
    assert_eq!(post(true, "127.0.0.1").await, (None, 1));
    let (reason, seen) = post(false, "localhost").await;
    let reason = reason.expect("not trusted");
    assert!(reason.contains("UnknownIssuer") && seen == 0, "{reason}");
    let (reason, seen) = post(true, "127.0.0.2").await;
    let reason = reason.expect("another name");
    assert!(reason.contains("not valid for name") && seen == 0, "{reason}");
}

#[test]
fn a_file_that_holds_no_certificate_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.enabled = false;
    config.webhooks.ca_files = vec![file("server.key")];
    let error = Broker::start(config).map(drop).unwrap_err().to_string();
    assert!(error.contains("`webhooks.ca_files`") && error.contains("no certificate"), "{error}");
}
