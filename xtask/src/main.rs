//! The caretaker: `cargo xtask check` is the one command that says whether the house is in order.
//!
//! - `check [CRATE]`: format, tidy, lints, documentation, then every test; of one crate when named.
//! - `docs`: writes the generated pages of the documentation anew.
//! - `prove [HARNESS]`: the harnesses for crash, power loss, damage, full disks and bad networks.
//! - `count [--write]`: instructions of the hot paths, against what was recorded.
//! - `compare [ARGUMENTS]`: measures Riverrun and its peers in one run; see `benches/README.md`.
//! - `tour`: walks the tour of the README.
//! - `tidy`: only the rules about the source itself, in well under a second.
//!
//! It uses the standard library alone, so that it builds in a second and never breaks with a dependency.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it reads the source tree and measures its own steps"
)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

mod check;
mod compare;
mod count;
mod generated;
mod packages;
mod promises;
mod prove;
mod tidy;
mod tour;

const USAGE: &str = "usage: cargo xtask <command>

commands:
  check [CRATE]  format, tidy, clippy, docs and all tests; of one crate (folder name) when given
  docs           write the generated pages of docs/ anew
  prove [HARNESS...] [--count N] [--seed S] [--minutes M] [--full]
                 the harnesses that show the guarantees; all of them, or those named
  count [--write]
                 count the instructions of the hot paths and compare them with what was recorded, or record them
  compare [--help | ARGUMENTS...]
                 build Riverrun and the comparison in release, and run the same workloads against it and its peers
  tour           run the commands of the README and compare what they print
  tidy           the rules about the source that no compiler checks";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let done = match words.as_slice() {
        ["check"] => check::run(&root, None),
        ["check", name] => check::run(&root, Some(name)),
        ["docs"] => generated::write(&root),
        ["prove", words @ ..] => prove::run(&root, words),
        ["count"] => count::run(&root, false),
        ["count", "--write"] => count::run(&root, true),
        ["compare", words @ ..] => compare::run(&root, words),
        ["tour"] => tour::run(&root),
        ["tidy"] => tidy::run(&root),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nxtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace: the folder above this crate.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
