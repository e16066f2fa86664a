//! `tests/yardstick`: the cases of the Autobahn test suite against a socket of the door.
//!
//! They talk to an echo, so the door has one in builds for tests: `/v1/ws/echo` reads, writes, bounds and closes as `/v1/ws` does, and
//! gives back what comes. The suite needs `python3` and a package from PyPI. Where they cannot be had this says so and checks nothing,
//! unless `REQUIRE_PYTHON` is set. `docs/testing.md` has the table.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use tokio::task::spawn_blocking;

use crate::support::broker::TestBroker;

/// Cases that are run.
const CASES: usize = 263;

/// What the suite says that is no fault.
const FINE: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_of_the_autobahn_suite_pass() {
    let broker = TestBroker::start().await;
    let url = format!("ws://{}/v1/ws/echo", broker.web_address());
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    // target/PROFILE/deps/main-HASH
    let test = std::env::current_exe().unwrap();
    let work = test.ancestors().nth(3).unwrap().join("web-yardstick");
    let mut script = Command::new("python3");
    script.arg(tests.join("yardstick/run.py")).arg(work).arg(url).stdin(Stdio::null());
    let output = match spawn_blocking(move || script.output()).await.unwrap() {
        Ok(output) => output,
        Err(error) => return skip(&format!("`python3` does not start: {error}")),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (status, stderr) = (output.status, String::from_utf8_lossy(&output.stderr));
    assert!(status.success(), "{status}: {stdout}\n{stderr}");
    let last = stdout.lines().last().unwrap_or_default();
    if last.starts_with("SKIPPED") {
        return skip(last);
    }
    let results: Vec<(String, String, String, String)> = serde_json::from_str(last).unwrap();
    let mut table: BTreeMap<(u32, &str, &str), usize> = BTreeMap::new();
    for (id, behavior, close, _) in &results {
        let part = id.split('.').next().unwrap().parse().unwrap();
        *table.entry((part, behavior.as_str(), close.as_str())).or_default() += 1;
    }
    for ((part, behavior, close), count) in &table {
        println!("{part:>3}.*  {count:>3}  {behavior}, closed {close}");
    }
    let is_wrong = |(_, behavior, close, _): &&(String, String, String, String)| {
        !FINE.contains(&behavior.as_str()) || !FINE.contains(&close.as_str())
    };
    let wrong: Vec<_> = results.iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(results.len(), CASES);
}

/// Says that nothing was checked; fails where that must not be.
#[expect(clippy::print_stdout, reason = "the reason stands in the test's output")]
fn skip(reason: &str) {
    assert!(std::env::var_os("REQUIRE_PYTHON").is_none(), "{reason}");
    println!("SKIPPED: {CASES} cases of the Autobahn suite: {reason}");
}
