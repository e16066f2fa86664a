//! Builds what the harnesses run, as it is and with planted bugs, and runs them.
//!
//! ```text
//! target/prove/plain/    riverrun, prove, worker: as a user gets them, with assertions on
//! target/prove/planted/  the same, built with the feature `planted`
//! target/prove/plain/fuzz  the fuzz targets, with counters of what an input reaches, and with planted bugs that sleep
//! ```

use std::{path::Path, process::Command};

use crate::{check::cargo, packages};

/// What a folder holds.
const PROGRAMS: [&str; 3] = ["riverrun", "prove", "worker"];

/// What makes the stable compiler put in the counters that libFuzzer reads. Given for a named host, so that programs of the build have
/// none.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds and runs; `words` are the harnesses and their sizes.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    packages::install(&["strace", "xfsprogs", "libfaketime"]);
    build(root, "plain", false)?;
    let all = words.iter().all(|word| word.starts_with("--"));
    if all || words.contains(&"fuzz") || words.contains(&"planted") {
        build_fuzz(root)?;
    }
    if all || words.contains(&"planted") || words.contains(&"points") {
        build(root, "planted", true)?;
    }
    let program = root.join("target/prove/plain/prove");
    let status = Command::new(&program)
        .args(words)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err(format!("the harnesses ended with {status}")) }
}

/// Builds the programs and puts them aside, where the other build does not replace them. The broker is built by itself, so that it has
/// the features that a user gets and none that only tests ask for.
fn build(root: &Path, folder: &str, planted: bool) -> Result<(), String> {
    for package in ["riverrun-cli", "riverrun-tests"] {
        let mut words = vec!["build", "--profile", "prove", "--locked", "--bins"];
        words.extend(["--package", package]);
        if planted {
            words.extend(["--features", "planted"]);
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        cargo(root, &words, None)?;
    }
    let from = root.join("target/prove");
    let to = from.join(folder);
    std::fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
    for program in PROGRAMS {
        // Removed first: a running one keeps its file.
        std::fs::remove_file(to.join(program)).ok();
        std::fs::copy(from.join(program), to.join(program))
            .map_err(|error| format!("cannot copy `{program}`: {error}"))?;
    }
    Ok(())
}

/// Builds the fuzz targets, or takes an earlier build away where libFuzzer cannot be built.
fn build_fuzz(root: &Path) -> Result<(), String> {
    let to = root.join("target/prove/plain/fuzz");
    std::fs::remove_file(&to).ok();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if !Command::new(&compiler).arg("--version").output().is_ok_and(|out| out.status.success()) {
        return Ok(());
    }
    let told = Command::new("rustc").arg("-vV").output();
    let told = told.map_err(|error| format!("cannot start rustc: {error}"))?;
    let told = String::from_utf8_lossy(&told.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc does not say which host it is for")?;
    let words = ["build", "--profile", "prove", "--locked", "--target", host];
    let rest = ["--package", "riverrun-fuzz", "--bin", "fuzz", "--features", "libfuzzer,planted"];
    let words: Vec<String> = words.into_iter().chain(rest).map(str::to_owned).collect();
    cargo(root, &words, Some(("RUSTFLAGS", COUNTERS)))?;
    let from = root.join("target").join(host).join("prove/fuzz");
    std::fs::copy(from, to).map_err(|error| format!("cannot copy `fuzz`: {error}"))?;
    Ok(())
}
