//! PLANTED: a harness that stays green over a planted bug proves nothing, so each bug must be caught.
//!
//! Runs the twin of this program that was built with feature `planted`, once per bug and harness, with the size that must find it.
//! Caught means: it ended with a violation, not with an error of its own.

use std::{path::PathBuf, process::Command, time::Instant};

use riverrun_storage::planted::Bug;

use crate::harness::{HARNESS_FAULT, Size, Verdict, Violation};

/// Stands in the line of a harness that caught something.
const VIOLATION: &str = ": VIOLATION: ";

/// Every bug with a harness that must catch it. More than one harness may have to.
fn hunts() -> impl Iterator<Item = (Bug, &'static [&'static str])> {
    let also: (Bug, &[&str]) = (Bug::ForgetAck, &["points", "--count", "1"]);
    Bug::ALL.into_iter().map(|bug| (bug, hunter(bug))).chain([also])
}

/// Arguments of the harness that catches a bug, within the size of the check.
const fn hunter(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AckBeforeSync => &["sim", "--count", "50"],
        Bug::SkipSync => &["power", "--count", "10"],
        Bug::SkipDirsync => &["sim", "--count", "50"],
        Bug::RetrySync => &["inject", "--count", "40"],
        Bug::TrustLength => &["flip"],
        Bug::TruncateFirstBad => &["flip"],
        Bug::ServeBeforeResync => &["sim", "--count", "50"],
        Bug::ReuseOffset => &["kill", "--count", "10"],
        Bug::ForgetAck => &["kill", "--count", "10"],
        Bug::NoDedup => &["net", "--count", "1"],
        Bug::MissedWake => &["wait", "--count", "500"],
        Bug::WindowOffByOne => &["net", "--count", "1"],
        Bug::AckRefused => &["full", "--count", "1"],
        Bug::TrustRange => &["fuzz", "--count", "1000"],
    }
}

pub(crate) fn run(_size: &Size) -> Verdict {
    let Some(twin) = twin("prove") else {
        return Verdict::Skipped(
            "no build with planted bugs; `cargo xtask prove` makes one".into(),
        );
    };
    let mut missed = Vec::new();
    let mut skipped = Vec::new();
    for (bug, hunter) in hunts() {
        let begun = Instant::now();
        let output = Command::new(&twin).args(hunter).env("RIVERRUN_PLANTED", bug.name()).output();
        let text = match &output {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => error.to_string(),
        };
        let seconds = begun.elapsed().as_secs_f64();
        let verdict = text.lines().find(|line| line.contains(VIOLATION));
        let said = verdict.or(text.lines().next()).unwrap_or("said nothing");
        println!("  {:<24} {seconds:>5.1} s  {said}", bug.name());
        if text.contains(": SKIPPED: ") {
            skipped.push(bug.name());
        } else if verdict.is_none() || text.contains(HARNESS_FAULT) {
            missed.push(bug.name());
        }
    }
    let all = hunts().count();
    let figures =
        format!("{} of {all} hunts ended with a catch", all - missed.len() - skipped.len());
    if !missed.is_empty() {
        let what = format!("{figures}; missed: {}", missed.join(", "));
        return Verdict::Violation(Violation { what, again: String::new() });
    }
    match skipped.as_slice() {
        [] => Verdict::Green(figures),
        some => Verdict::Skipped(format!("{figures}; not tried here: {}", some.join(", "))),
    }
}

/// A program built with planted bugs: in the folder beside this one's.
pub(crate) fn twin(program: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let twin = own.parent()?.parent()?.join("planted").join(program);
    twin.exists().then_some(twin)
}
