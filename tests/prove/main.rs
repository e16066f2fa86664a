//! The harnesses: what the broker promises, under crash, power loss, corruption, full disks and bad networks.
//!
//! `cargo xtask prove` builds the program under test twice (as it is, and with planted bugs) and runs this one.
//!
//! Each harness is a file with a `run` that takes its `Size` and gives a `Verdict`. It prints one line of figures, or
//! `SKIPPED` and why; a violation says what was seen, the seed, and the command that does it again. Whatever a harness makes
//! (processes, mounts, folders) is below one folder of its own and goes when it ends, also when it is killed: the next run
//! finds what a killed one left by its name and removes it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program of the checks: it talks to its user and touches files, clocks and processes"
)]

mod args;
mod checker;
mod clock;
mod flip;
mod full;
mod fuzz;
mod harness;
mod inject;
mod kill;
mod miri;
mod net;
mod pause;
mod planted;
mod points;
mod power;
mod sim;
#[cfg(not(test))]
mod wait;

use std::process::ExitCode;

use harness::{HARNESSES, Verdict};

fn main() -> ExitCode {
    let arguments = match args::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("prove: {message}\n\n{}", args::usage());
            return ExitCode::from(2);
        }
    };
    let mut failed = Vec::new();
    let mut violations = Vec::new();
    for harness in HARNESSES.iter().filter(|harness| arguments.wants(harness.name)) {
        let started = std::time::Instant::now();
        let verdict = harness.verdict(&arguments.size);
        let seconds = started.elapsed().as_secs_f64();
        let label = harness.name.to_uppercase();
        match verdict {
            Verdict::Green(figures) => println!("{label}: {figures} ({seconds:.1} s)"),
            Verdict::Skipped(why) => println!("{label}: SKIPPED: {why}"),
            Verdict::Violation(violation) => {
                let again = format!("cargo xtask prove {} {}", harness.name, violation.again);
                let told = format!("{label}: VIOLATION: {}\n  again: {again}", violation.what);
                println!("{told}");
                failed.push(harness.name);
                violations.push(told);
            }
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    // Once more at the end: whoever reads only the last lines of a long run sees them.
    eprintln!("prove: violations in {}\n{}", failed.join(", "), violations.join("\n"));
    ExitCode::FAILURE
}
