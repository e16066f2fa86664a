//! Builds the broker and the comparison in release, and runs the comparison.
//!
//! The comparison is a workspace of its own in `benches/compare/`, so that nothing else compiles the clients of other queues. Its build
//! stays below the target folder of the house.

use std::path::Path;

use crate::check::cargo;

/// Manifest of the comparison.
pub(crate) const MANIFEST: &str = "benches/compare/Cargo.toml";

/// Builds and runs; `words` are for the comparison. The broker is not built when they name one, or only ask for help.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let own = |word: &&str| word.starts_with("--riverrun") || ["--help", "-h"].contains(word);
    if !words.iter().any(own) {
        call(root, &["build", "--release", "--locked", "--package", "riverrun-cli"])?;
    }
    let first = ["run", "--release", "--locked", "--manifest-path", MANIFEST];
    let target = ["--target-dir", "target/compare", "--"];
    let all: Vec<&str> = first.into_iter().chain(target).chain(words.iter().copied()).collect();
    call(root, &all)
}

fn call(root: &Path, words: &[&str]) -> Result<(), String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    cargo(root, &words, None)
}
