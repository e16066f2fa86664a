//! What the harness tells while it runs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use crate::{case::Case, drive::Figures, error::Error, report};

/// A ceiling is measured.
pub(crate) fn ceiling(round: u32, name: &str, figures: &Figures) {
    println!("round {round}  {name}: {}", report::short(None, figures));
}

/// A measurement is done.
pub(crate) fn step(round: u32, who: &str, case: Case, figures: &Figures) {
    let shown = report::short(Some(case.workload), figures);
    println!("round {round}  {who}, {}: {shown}", case.title());
}

/// A measurement failed.
pub(crate) fn failed(round: u32, who: &str, what: &str, error: &Error) {
    println!("round {round}  {who}, {what}: FAILED: {error}");
}

/// A peer is left out.
pub(crate) fn skipped(peer: &str, part: Option<&str>, reason: &str) {
    println!("SKIPPED  {peer} {}: {reason}", part.unwrap_or(""));
}

/// Something is being fetched.
pub(crate) fn fetching(what: &str) {
    println!("fetching {what}");
}

/// A plain line.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// The run could not be done.
pub(crate) fn complain(error: &Error) {
    eprintln!("compare: {error}");
}
