//! `tests/python`: a script with stubs generated from the `.proto` files, as a user without the SDK would write it.
//!
//! It needs `python3` and its packages from PyPI. Where they cannot be had it says so and checks nothing,
//! unless `REQUIRE_PYTHON` is set.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use riverrun_broker::{Broker, Config};

#[test]
fn a_script_with_generated_stubs_produces_and_fetches() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
    config.grpc.listen = "127.0.0.1:0".parse().unwrap();
    config.http.enabled = false;
    let broker = Broker::start(config).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    // target/PROFILE/deps/main-HASH
    let test = std::env::current_exe().unwrap();
    let work = test.ancestors().nth(3).unwrap().join("python-stubs");
    let mut script = Command::new("python3");
    script.arg(tests.join("python/run.py")).arg(work).arg(tests.join("../proto/proto"));
    script.arg(broker.address().to_string()).stdin(Stdio::null());
    let output = match script.output() {
        Ok(output) => output,
        Err(error) => return skip(&format!("`python3` does not start: {error}")),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    match stdout.lines().last() {
        Some("PASSED") => {}
        Some(line) if line.starts_with("SKIPPED") => skip(line),
        other => panic!("unexpected last line {other:?}\n{stdout}\n{stderr}"),
    }
}

/// Says that nothing was checked; fails where that must not be.
#[expect(clippy::print_stdout, reason = "the reason stands in the test's output")]
fn skip(reason: &str) {
    assert!(std::env::var_os("REQUIRE_PYTHON").is_none(), "{reason}");
    println!("SKIPPED: {reason}");
}
