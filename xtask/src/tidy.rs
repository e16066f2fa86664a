//! The rules about the source that no compiler checks.
//!
//! Each rule is a function from the tree to findings, in a file of its own with tests that feed it
//! bad samples. A rule has no list of exceptions to grow: where a place is allowed, its path says so.

use std::{fmt, path::Path};

mod dead_files;
mod heads;
mod links;
mod manifest;
mod mentions;
mod protocol;
mod sizes;
mod source;
mod tree;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use manifest::Manifest;
use tree::Tree;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Path from the root, with `/`.
    path: String,
    /// Line from 1; 0 when the whole file is meant.
    line: usize,
    /// What is wrong and what to do instead.
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, message: message.into() }
    }
}

/// Whether a file is compiled for tests only.
fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let named = name == "tests.rs" || name.ends_with("_tests.rs") || name == "testing.rs";
    named || path.starts_with("tests/") || path.contains("/tests/") || path.contains("/testing/")
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [Rule; 8] = [
    manifest::check,
    words::check,
    heads::check,
    dead_files::check,
    links::check,
    mentions::check,
    protocol::check,
    sizes::check,
];

/// Checks the tree under `root` and prints every finding.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let tree = Tree::read(root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files in order", tree.file_count());
        return Ok(());
    }
    Err(format!("tidy found {} places to mend", findings.len()))
}
