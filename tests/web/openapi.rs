//! The description of the door against the door.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{broker::TestBroker, http::call};

/// Every path that a file of the door gives a route.
fn routes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routes(&path, found);
        } else if path.file_name().is_some_and(|name| name == "grpc_web.rs" || name == "echo.rs") {
            // Described by the `.proto` files; only in builds for tests.
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let parts = text.split(".route(").skip(1);
            found.extend(parts.map(|part| part.split('"').nth(1).unwrap().to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_described_with_the_methods_it_has() {
    let broker = TestBroker::start().await;
    let web = broker.web_address();
    let described = call(web, "GET /openapi.json", b"").await.ok(200);
    let paths = described["paths"].as_object().unwrap();
    let mut found = BTreeSet::new();
    routes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/src/gateway/web"), &mut found);
    assert!(found.len() > 10, "{found:?}");
    assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), found);
    for (path, methods) in paths {
        let one = path.replace("{partition}", "0").replace("{topic}", "t").replace("{group}", "g");
        let one = one.replace("{subscription}", "s");
        let reply = call(web, &format!("TRACE {one}"), b"").await;
        reply.refused((405, "METHOD_NOT_ALLOWED"), &[&one]);
        let allowed = reply.header("allow").unwrap().to_lowercase();
        let allowed: BTreeSet<_> = allowed.split(',').filter(|method| *method != "head").collect();
        let methods: BTreeSet<_> =
            methods.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(methods, allowed, "{path}");
    }
}
