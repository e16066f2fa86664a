//! `tests/conformance`: the published conformance suite of the Durable Streams protocol against the real binary.
//!
//! It needs the packages of the lock file by `npm`. Every case must pass but those of `refused.txt`, and every one of those must fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    npm,
    process::{Broker, finish},
};

/// Cases of the suite in the version of the lock file.
const CASES: usize = 338;
/// Longest time that the suite may take.
const SUITE_MAX: Duration = Duration::from_secs(240);
/// What the suite takes for granted: an answer to a page of any origin, and long polls that end before its patience.
const SETTINGS: &str = "[http]\ncors_origins = [\"*\"]\nstream_wait = \"1s\"\n";

#[test]
fn the_published_suite_of_durable_streams_passes() {
    let folder = match npm::installed("conformance", &["streams.test.mjs"]) {
        Ok(folder) => folder,
        Err(reason) => {
            return npm::skip(&format!("{CASES} cases of the Durable Streams suite"), &reason);
        }
    };
    let mut broker = Broker::start_with(SETTINGS);
    let report = folder.join("report.json");
    fs::remove_file(&report).ok();
    // On a machine under load a case that lives from seconds may come too late: it may try again.
    let mut suite = Command::new("node");
    suite
        .args(["node_modules/vitest/vitest.mjs", "run", "streams.test.mjs", "--retry=1"])
        .args(["--testTimeout=20000", "--reporter=json", "--outputFile=report.json"])
        .env("STREAMS_URL", format!("http://{}", broker.web_address))
        .current_dir(&folder);
    let output = finish(&mut suite, SUITE_MAX).expect("it was installed");
    broker.stop();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = fs::read(&report).unwrap_or_else(|error| panic!("no report: {error}\n{said}"));
    judge(&serde_json::from_slice(&report).unwrap());
}

/// Compares what became of each case with what should.
#[expect(clippy::print_stdout, reason = "the figures stand in the test's output")]
fn judge(report: &Value) {
    let files = report["testResults"].as_array().unwrap();
    let cases = files.iter().flat_map(|file| file["assertionResults"].as_array().unwrap());
    let mut outcomes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut reasons = BTreeMap::new();
    let mut count = 0;
    for case in cases {
        let name = case["fullName"].as_str().unwrap().trim();
        outcomes.entry(name).or_default().push(case["status"].as_str().unwrap());
        reasons.insert(name, case["failureMessages"].to_string());
        count += 1;
    }
    let text = include_str!("conformance/refused.txt");
    let refused: BTreeSet<_> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let is_wrong = |name: &str, statuses: &[&str]| {
        let wanted = if refused.contains(name) { "failed" } else { "passed" };
        statuses.iter().any(|status| *status != wanted)
    };
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|(name, statuses)| is_wrong(name, statuses))
        .map(|(name, statuses)| format!("{name}: {statuses:?} {}", reasons[name]))
        .collect();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    let unknown: Vec<_> = refused.iter().filter(|name| !outcomes.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "refused, but in no suite: {unknown:?}");
    assert_eq!(count, CASES);
    let is_late = |name: &&&str| !refused.contains(**name) && reasons[**name] != "[]";
    let late: Vec<_> = outcomes.keys().filter(is_late).collect();
    println!("durable streams: at the second try only: {late:?}");
    println!(
        "durable streams: {} cases passed, {} refused by name",
        count - refused.len(),
        refused.len()
    );
}
