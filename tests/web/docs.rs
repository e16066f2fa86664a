//! The page that shows the description of the door.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{
    broker::TestBroker,
    http::{Reply, call},
    process::write_file,
};

async fn page(broker: &TestBroker) -> (Reply, String) {
    let reply = call(broker.web_address(), "GET /docs", b"").await;
    assert_eq!(reply.head.status, 200);
    let text = String::from_utf8(reply.body.clone()).unwrap();
    (reply, text)
}

/// What stands between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_brings_all_it_needs_and_may_ask_nobody() {
    let broker = TestBroker::start().await;
    let (reply, text) = page(&broker).await;
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for part in [between(&text, "<style>", "</style>"), between(&text, "<script>", "</script>")] {
        let hash = STANDARD.encode(Sha256::digest(part));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "{policy} allows not {hash}");
    }
    let described = call(broker.web_address(), "GET /openapi.json", b"").await.ok(200);
    let shown = between(&text, "type=\"application/json\">", "</script>");
    assert_eq!(serde_json::from_str::<Value>(shown).unwrap(), described);
    for asks in ["src=", "http://", "https://", "fetch(", "import "] {
        assert!(!text.contains(asks), "the page has `{asks}`");
    }
    call(broker.web_address(), "GET /docs?a=1", b"")
        .await
        .refused((400, "INVALID_ARGUMENT"), &["a"]);
}

/// It needs `node`. Where that cannot be had it says so and checks nothing, unless `REQUIRE_NODE` is set.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_every_call_with_a_line_to_copy() {
    let broker = TestBroker::start().await;
    let (_, text) = page(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let file = write_file(folder.path(), "page.html", text.as_bytes());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/render.mjs");
    let output = Command::new("node").arg(script).arg(file).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("`node` does not start: {error}")),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["title"], "Riverrun v1");
    assert_eq!(told["found"], serde_json::json!(["post /v1/subscriptions/{subscription}/redrive"]));
    let described = call(broker.web_address(), "GET /openapi.json", b"").await.ok(200);
    let paths = described["paths"].as_object().unwrap().iter();
    let described: BTreeSet<String> = paths
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    let shown = told["shown"].as_array().unwrap();
    let names = shown.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(described, names);
    let of = |name: &str| shown.iter().find(|one| one["name"] == name).unwrap();
    let create = of("post /v1/topics");
    let line = "curl -X POST -H 'content-type: application/json' -d '{\"topic\":\"text\"}' \
                'http://localhost:7080/v1/topics'";
    assert!(create["line"].as_str().unwrap().ends_with(line), "{create}");
    for word in ["retention_ms", "validate_only", "201", "Made."] {
        assert!(create["text"].as_str().unwrap().contains(word), "{word} is missing");
    }
}

/// Says that nothing was checked; fails where that must not be.
#[expect(clippy::print_stdout, reason = "the reason stands in the test's output")]
fn skip(reason: &str) {
    assert!(std::env::var_os("REQUIRE_NODE").is_none(), "{reason}");
    println!("SKIPPED: {reason}");
}
