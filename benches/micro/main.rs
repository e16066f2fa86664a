//! Micro-benchmarks: the hot paths by themselves, on one thread, without a network.
//!
//! ```text
//! micro                     all paths, timed
//! micro --help              how to choose some, and how long to measure
//! micro list                name of each path, and records in one round of it
//! micro count PATH ROUNDS   so many rounds and nothing else, for a tool that counts instructions
//! ```
//!
//! A path is made once and then goes its rounds; each round handles the same number of records in the same way,
//! so that the difference between two numbers of rounds is the cost of the rounds alone. Paths: [`codec`],
//! [`log`], [`dispatch`], [`ack_set`].

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of a program for people"
)]

mod ack_set;
mod codec;
mod dispatch;
mod log;

use std::{fmt, process::ExitCode};

use divan::{Bencher, counter::ItemsCount};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One round of a path.
type Round = Box<dyn FnMut()>;

/// One hot path.
#[derive(Clone, Copy, Debug)]
struct Path {
    name: &'static str,
    /// Records that one round handles.
    records: usize,
    /// Makes what a round needs.
    make: fn() -> Round,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every path.
const PATHS: [Path; 12] = [
    Path { name: "codec_build", records: codec::RECORDS, make: codec::build },
    Path { name: "codec_check", records: codec::RECORDS, make: codec::check },
    Path { name: "codec_read", records: codec::RECORDS, make: codec::read },
    Path { name: "append", records: log::RECORDS, make: log::append },
    Path { name: "append_single", records: log::SINGLES, make: log::append_single },
    Path { name: "flush", records: log::RECORDS, make: log::flush },
    Path { name: "fetch", records: log::STORED, make: log::fetch },
    Path { name: "dispatch", records: dispatch::RECORDS, make: dispatch::in_order },
    Path { name: "dispatch_disorder", records: dispatch::RECORDS, make: dispatch::in_disorder },
    Path { name: "dispatch_key", records: dispatch::RECORDS, make: dispatch::by_key },
    Path {
        name: "dispatch_stuck_key",
        records: dispatch::RECORDS,
        make: dispatch::by_key_with_one_stuck,
    },
    Path { name: "ack_set", records: ack_set::RECORDS, make: ack_set::in_disorder },
];

#[divan::bench(args = PATHS)]
fn path(bencher: Bencher<'_, '_>, path: &Path) {
    let round = (path.make)();
    bencher.counter(ItemsCount::new(path.records)).bench_local(round);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            PATHS.iter().for_each(|path| println!("{} {}", path.name, path.records));
            ExitCode::SUCCESS
        }
        ["count", name, rounds] => count(name, rounds),
        _ => {
            divan::Divan::from_args().run_benches();
            ExitCode::SUCCESS
        }
    }
}

/// Goes so many rounds of a path.
fn count(name: &str, rounds: &str) -> ExitCode {
    let path = PATHS.iter().find(|path| path.name == name);
    let (Some(path), Ok(rounds)) = (path, rounds.parse::<u32>()) else {
        eprintln!("micro: `count {name} {rounds}`: a path that `micro list` shows, and a number");
        return ExitCode::from(2);
    };
    let mut round = (path.make)();
    for _ in 0..rounds {
        round();
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_goes_its_rounds() {
        for path in PATHS {
            let mut round = (path.make)();
            round();
            round();
        }
    }

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<&str> = PATHS.iter().map(|path| path.name).collect();
        assert_eq!(names.len(), PATHS.len());
    }
}
