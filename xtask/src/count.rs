//! Counts the instructions of the hot paths, per record, and holds them against what was recorded.
//!
//! Instructions hardly depend on what else the machine does, so a path that became dearer is seen on a busy machine, too.
//! `valgrind` runs the program twice, with so many rounds and with twice as many; the difference is the cost of the
//! rounds, and what it took to get ready falls out. The record is `benches/instructions.txt`: a path and its
//! instructions per record on each line.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Command};

use crate::{check::cargo, packages};

/// Where the record is.
const RECORD: &str = "benches/instructions.txt";
/// What stands above the record.
const HEADING: &str = "\
# Instructions per record of each hot path, as valgrind counts them in the release build. Written by
# `cargo xtask count --write`; `cargo xtask count` fails when a path takes over 5 % more.
";
/// The program that has the paths.
const PROGRAM: &str = "target/release/micro";
/// Rounds of the shorter run.
const ROUNDS: u64 = 64;
/// A path may take so many percent more.
const PERCENT_MAX: f64 = 5.0;

/// Instructions per record of each path.
type Counts = BTreeMap<String, f64>;

/// Counts, and fails when a path became dearer; with `write` the counts become the record.
pub(crate) fn run(root: &Path, write: bool) -> Result<(), String> {
    packages::install(&["valgrind"]);
    if let Some(why) = missing() {
        println!("count: SKIPPED: {why}");
        return Ok(());
    }
    let words =
        ["build", "--release", "--locked", "--package", "riverrun-benches", "--bin", "micro"];
    cargo(root, &words.map(str::to_owned), None)?;
    let counts = count_all(root)?;
    let path = root.join(RECORD);
    if write {
        std::fs::write(&path, print(&counts)).map_err(|error| format!("{RECORD}: {error}"))?;
        println!("count: wrote {RECORD}");
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{RECORD}: {error}"))?;
    compare(&parse(&text)?, &counts)
}

/// Why nothing can be counted here.
fn missing() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the record is one of x86-64 processors".to_owned());
    }
    let known = Command::new("valgrind").arg("--version").output();
    let is_there = known.is_ok_and(|output| output.status.success());
    (!is_there).then(|| "no `valgrind` (Debian and Ubuntu: apt install valgrind)".to_owned())
}

fn count_all(root: &Path) -> Result<Counts, String> {
    let output = Command::new(root.join(PROGRAM)).arg("list").output();
    let output = output.map_err(|error| format!("cannot start `{PROGRAM}`: {error}"))?;
    let mut counts = Counts::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (name, records) = line.split_once(' ').ok_or("`micro list` said something else")?;
        let records: u64 = records.parse().map_err(|_| format!("`{line}` has no number"))?;
        let (short, long) = (count(root, name, ROUNDS)?, count(root, name, 2 * ROUNDS)?);
        let per_record = long.saturating_sub(short) as f64 / (ROUNDS * records) as f64;
        println!("  {name:<20} {per_record:>10.1} instructions per record");
        counts.insert(name.to_owned(), per_record);
    }
    Ok(counts)
}

/// Instructions of the program for so many rounds of a path.
fn count(root: &Path, name: &str, rounds: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(root.join(PROGRAM))
        .args(["count", name, &rounds.to_string()])
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("`{name}` under valgrind ended with {}:\n{said}", output.status));
    }
    collected(&said).ok_or_else(|| format!("valgrind did not say what it counted:\n{said}"))
}

/// The number in `==7== Collected : 12345`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

fn print(counts: &Counts) -> String {
    let mut text = HEADING.to_owned();
    for (name, count) in counts {
        let _written = writeln!(text, "{name} {count:.1}");
    }
    text
}

fn parse(text: &str) -> Result<Counts, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, count) = line.split_once(' ').ok_or(format!("{RECORD}: `{line}`"))?;
            let count = count.parse().map_err(|_| format!("{RECORD}: `{line}` has no number"))?;
            Ok((name.to_owned(), count))
        })
        .collect()
}

/// Fails when a path is dearer than its record, or has none.
fn compare(record: &Counts, counts: &Counts) -> Result<(), String> {
    let mut problems = Vec::new();
    for (name, count) in counts {
        let Some(before) = record.get(name) else {
            problems.push(format!("`{name}` is not in {RECORD}"));
            continue;
        };
        let percent = (count / before - 1.0) * 100.0;
        if percent > PERCENT_MAX {
            problems.push(format!("`{name}`: {count:.1} instead of {before:.1}, {percent:+.1} %"));
        } else if percent < -PERCENT_MAX {
            println!(
                "  {name} became cheaper, {percent:+.1} %: record it with `cargo xtask count --write`"
            );
        }
    }
    for name in record.keys().filter(|name| !counts.contains_key(*name)) {
        problems.push(format!("`{name}` of {RECORD} is no path any more"));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "instructions per record:\n  {}\nwhere that is meant, `cargo xtask count --write` records it",
            problems.join("\n  ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, f64)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_dearer_path_is_a_problem_and_a_cheaper_one_is_none() {
        let record = counts(&[("a", 100.0), ("b", 100.0)]);
        compare(&record, &counts(&[("a", 104.9), ("b", 10.0)])).unwrap();
        let problem = compare(&record, &counts(&[("a", 105.1), ("b", 100.0)])).unwrap_err();
        assert!(problem.contains("`a`: 105.1 instead of 100.0, +5.1 %"), "{problem}");
        assert!(!problem.contains("`b`"), "{problem}");
    }

    #[test]
    fn paths_come_and_go_only_with_their_record() {
        let (one, two) = (counts(&[("a", 1.0)]), counts(&[("a", 1.0), ("b", 1.0)]));
        assert!(compare(&one, &two).unwrap_err().contains("`b` is not in"));
        assert!(compare(&two, &one).unwrap_err().contains("`b` of"));
    }

    #[test]
    fn the_record_reads_back() {
        let record = counts(&[("append", 1234.5), ("flush", 0.5)]);
        assert_eq!(parse(&print(&record)).unwrap(), record);
        assert!(parse("append many\n").is_err());
    }

    #[test]
    fn what_valgrind_says_is_found() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== no such thing\n"), None);
    }
}
