//! The walk of `docs/http.md` by the real `curl` and the real binary: the commands that stand there, and what they print.
//!
//! What a record is called, and what the commands leave in their files, is known here; what they do is not. Numbers, ids and
//! times differ from run to run and are not compared.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::process::Broker;

/// The page, the heading of its walk, and the address of the broker there.
const PAGE: &str = include_str!("../../docs/http.md");
const HEADING: &str = "## With curl alone\n";
const ADDRESS: &str = "localhost:7080";
/// What the walk leaves: the events before the connection was cut, and those of the one that went on.
const EVENTS: [&str; 2] = ["before.txt", "after.txt"];
/// The records of the walk are called `line 1` and so on.
const COUNT: usize = 1001;
/// A command that takes longer, in seconds, hangs.
const SECONDS_MAX: &str = "60";

#[test]
fn the_walk_of_the_documentation_reads_every_record_once_also_across_a_kill() {
    if let Err(error) = Command::new("curl").arg("--version").output() {
        return println!("SKIPPED: the walk with `curl`: {error}");
    }
    let mut broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for (command, expected) in steps() {
        if command.starts_with("kill -9 ") {
            broker.kill();
            kills += 1;
        } else if command.starts_with("riverrun serve") {
            broker.restart();
        } else {
            let command = command.replace(ADDRESS, &broker.web_address);
            let printed = shell(folder.path(), &command);
            assert_eq!(shape(&printed), shape(&expected), "{command}\n{printed}");
        }
    }
    assert_eq!(kills, 1);
    judge(folder.path());
}

/// The commands of the walk, and what they print.
fn steps() -> Vec<(String, String)> {
    let (_, walk) = PAGE.split_once(HEADING).unwrap();
    let (_, walk) = walk.split_once("```console\n").unwrap();
    let (walk, _) = walk.split_once("```").unwrap();
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in walk.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), String::new())),
            (None, Some((command, _))) if command.ends_with('\\') => {
                *command = command.trim_end_matches('\\').to_owned() + line;
            }
            (None, Some((_, expected))) => *expected += &format!("{line}\n"),
            (None, None) => panic!("`{line}` is printed by no command"),
        }
    }
    steps
}

/// What a command prints.
fn shell(folder: &Path, command: &str) -> String {
    let mut bash = Command::new("timeout");
    bash.args([SECONDS_MAX, "bash", "-c", command]).current_dir(folder);
    // What it leaves in the background keeps none of what is waited for.
    let output = bash.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A text without its numbers, ids and times.
fn shape(text: &str) -> String {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    let mut shape = String::new();
    for piece in text.trim_end().split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        let has_digit = word.contains(|c: char| c.is_ascii_digit());
        shape.push_str(if has_digit { "#" } else { word });
        shape.push_str(&piece[word.len()..]);
    }
    shape
}

/// Fails unless the events are all records, each once, in the order of their partition.
fn judge(folder: &Path) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let mut values = Vec::new();
    for file in EVENTS {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let before = values.len();
        for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let record: Value = serde_json::from_str(data).unwrap();
            let offset = next.entry(record["partition"].as_u64().unwrap()).or_default();
            assert_eq!(record["offset"], *offset, "{record}");
            *offset += 1;
            values.push(record["value"].as_str().unwrap().to_owned());
        }
        assert!(values.len() > before, "nothing came in {file}");
    }
    values.sort_unstable();
    let mut expected: Vec<_> = (1..=COUNT).map(|number| format!("line {number}")).collect();
    expected.sort_unstable();
    assert_eq!(values, expected);
}
