//! PLANTED: a harness that stays green over a planted bug proves nothing, so each bug must be caught.
//!
//! Runs the twin of this program that was built with feature `planted`, once per bug, with the harness and size that must find
//! it. Caught means: it ended with a violation, not with an error of its own.

use std::{path::PathBuf, process::Command};

use riverrun_storage::planted::Bug;

use crate::harness::{Size, Verdict, Violation};

/// Arguments of the harness that catches a bug, within the size of the check.
const fn hunter(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AckBeforeSync => &["sim", "--count", "50"],
        Bug::SkipSync => &["power", "--count", "20"],
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
        Bug::TrustRange => &["fuzz"],
    }
}

pub(crate) fn run(_size: &Size) -> Verdict {
    let Some(twin) = twin() else {
        return Verdict::Skipped(
            "no build with planted bugs; `cargo xtask prove` makes one".into(),
        );
    };
    let mut missed = Vec::new();
    let mut skipped = Vec::new();
    for bug in Bug::ALL {
        let output =
            Command::new(&twin).args(hunter(bug)).env("RIVERRUN_PLANTED", bug.name()).output();
        let text = match &output {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("  {:<24} {}", bug.name(), text.lines().next().unwrap_or("said nothing"));
        if text.contains(": SKIPPED: ") {
            skipped.push(bug.name());
        } else if !text.contains(": VIOLATION: ") {
            missed.push(bug.name());
        }
    }
    let count = Bug::ALL.len() - missed.len() - skipped.len();
    if !missed.is_empty() {
        let what = format!("not caught: {}", missed.join(", "));
        return Verdict::Violation(Violation { what, again: String::new() });
    }
    let figures = format!("{count} of {} planted bugs caught", Bug::ALL.len());
    match skipped.as_slice() {
        [] => Verdict::Green(figures),
        some => Verdict::Skipped(format!("{figures}; not tried here: {}", some.join(", "))),
    }
}

/// The program built with planted bugs: in the folder beside this one's.
fn twin() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let twin = own.parent()?.parent()?.join("planted").join("prove");
    twin.exists().then_some(twin)
}
