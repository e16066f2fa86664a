//! `tests/openapi`: the web door of the real binary, fuzzed by its own description with schemathesis.
//!
//! Every reply must be one that `openapi.json` has: its status, type, headers and shape. What breaks the description is refused,
//! what fits it is done. It needs `python3` and its packages from PyPI. Where they cannot be had it says so and checks nothing,
//! unless `REQUIRE_PYTHON` is set.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "checks touch files, clocks and processes, and stop at the first surprise"
)]

#[path = "support/binary.rs"]
#[expect(dead_code, reason = "the other checks use the rest of it")]
mod binary;
#[path = "support/process.rs"]
#[expect(dead_code, reason = "the other checks use the rest of it")]
mod process;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use process::Broker;

/// Room for few topics, so that one of ten thousand partitions is refused, and waits that end soon.
const SETTINGS: &str = "[limits]\npartitions_max = 300\n[http]\nstream_wait = \"5ms\"\n";

#[test]
fn the_door_is_as_its_description_says() {
    let mut broker = Broker::start_with(SETTINGS);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    // target/PROFILE/deps/openapi-HASH
    let test = std::env::current_exe().unwrap();
    let work = test.ancestors().nth(3).unwrap().join("openapi-fuzz");
    let mut script = Command::new("python3");
    script.arg(tests.join("openapi/run.py")).arg(work).arg(&broker.web_address);
    let output = match script.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return skip(&format!("`python3` does not start: {error}")),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let panics = broker.stderr();
    assert!(!panics.contains("panicked"), "{panics}");
    assert!(broker.stop().success(), "{}", broker.stderr());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    match stdout.lines().last() {
        Some("PASSED") => {}
        Some(line) if line.starts_with("SKIPPED") => return skip(line),
        other => panic!("unexpected last line {other:?}\n{stdout}\n{stderr}"),
    }
    let figures =
        stdout.lines().filter(|line| line.contains("generated") || line.contains("cases"));
    figures.for_each(|line| println!("{}", line.trim()));
}

/// Says that nothing was checked; fails where that must not be.
#[expect(clippy::print_stdout, reason = "the reason stands in the test's output")]
fn skip(reason: &str) {
    assert!(std::env::var_os("REQUIRE_PYTHON").is_none(), "{reason}");
    println!("SKIPPED: {reason}");
}
