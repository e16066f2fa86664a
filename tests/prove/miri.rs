//! MIRI: the unsafe code under an interpreter that knows what is allowed, as far as it reaches: every copy into and out of a map,
//! with a writer and readers at a time, over memory without a file. Maps of files, and the signal handler, are the system's and out of
//! its reach; those run in the tests of `storage/src/disk`.

use std::{path::Path, process::Command};

use crate::harness::{Size, Verdict, Violation};

/// Checks of the code that is run.
const CHECKS: &str = "disk::mmap::tests";

pub(crate) fn run(size: &Size) -> Verdict {
    if !Path::new("storage/Cargo.toml").exists() {
        return Verdict::Skipped("not started in the source folder".into());
    }
    let known = Command::new("cargo").args(["+nightly", "miri", "--version"]).output();
    if !known.is_ok_and(|output| output.status.success()) {
        return Verdict::Skipped(
            "no nightly toolchain with Miri (`rustup +nightly component add miri rust-src`)".into(),
        );
    }
    let seeds = size.seed..size.seed + size.rounds(4, 32).clamp(1, 1_000);
    let flags = format!("-Zmiri-many-seeds={}..{}", seeds.start, seeds.end);
    let output = Command::new("cargo")
        .args(["+nightly", "miri", "test", "--package", "riverrun-storage", "--lib", CHECKS])
        .env("MIRIFLAGS", flags)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Verdict::Skipped(format!("cannot start cargo: {error}")),
    };
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() && out.contains("test result: ok") {
        return Verdict::Green(format!("{} seeds of `{CHECKS}`", seeds.end - seeds.start));
    }
    let is_verdict = |line: &&str| {
        line.contains("Undefined Behavior") || line.contains("panicked") || line.contains("FAILED")
    };
    match err.lines().chain(out.lines()).find(is_verdict) {
        Some(line) => Verdict::Violation(Violation {
            what: line.trim().to_owned(),
            again: format!("--seed {} --count {}", seeds.start, seeds.end - seeds.start),
        }),
        None => {
            let line = err.lines().rev().find(|line| line.starts_with("error"));
            Verdict::Skipped(line.unwrap_or("Miri ended without a verdict").to_owned())
        }
    }
}
