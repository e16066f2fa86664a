//! Builds what the harnesses run, as it is and with planted bugs, and runs them.
//!
//! ```text
//! target/prove/plain/    riverrun, prove, worker: as a user gets them, with assertions on
//! target/prove/planted/  the same, built with the feature `planted`
//! ```

use std::{path::Path, process::Command};

use crate::check::cargo;

/// What a folder holds.
const PROGRAMS: [&str; 3] = ["riverrun", "prove", "worker"];

/// Builds and runs; `words` are the harnesses and their sizes.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    build(root, "plain", false)?;
    if words.iter().all(|word| word.starts_with("--")) || words.contains(&"planted") {
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
