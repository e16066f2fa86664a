//! What a harness is, how large a run of it is, and what it can say.

use std::time::Duration;

use crate::{
    checker, clock, flip, full, fuzz, inject, kill, miri, net, pause, planted, points, power, sim,
};

/// One harness.
pub(crate) struct Harness {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// What it does to the broker, in a few words.
    pub(crate) what: &'static str,
    /// Whether it writes to the folder for temporary files, and so wants [`ROOM_BYTES`] there.
    pub(crate) writes: bool,
    pub(crate) run: fn(&Size) -> Verdict,
}

/// All of them, in the order in which they run.
pub(crate) const HARNESSES: &[Harness] = &[
    // Not in the program's own checks: there, the files of the house that it compiles again would bring theirs.
    #[cfg(not(test))]
    Harness {
        name: "wait",
        what: "wait lists and publication over all orders of threads",
        writes: false,
        run: crate::wait::run,
    },
    Harness {
        name: "checker",
        what: "the checker at the size of a soak",
        writes: false,
        run: checker::run,
    },
    Harness {
        name: "miri",
        what: "unsafe code under an interpreter",
        writes: false,
        run: miri::run,
    },
    Harness {
        name: "sim",
        what: "crashes, faults and time jumps of a broker in one thread, all by a seed",
        writes: false,
        run: sim::run,
    },
    Harness {
        name: "flip",
        what: "bits that changed, sectors that went, files that were cut",
        writes: true,
        run: flip::run,
    },
    Harness {
        name: "fuzz",
        what: "bytes that nobody wrote, at every door",
        writes: true,
        run: fuzz::run,
    },
    Harness { name: "kill", what: "the broker is killed under load", writes: true, run: kill::run },
    Harness {
        name: "points",
        what: "the broker dies at one place of its own code after the other",
        writes: true,
        run: points::run,
    },
    Harness {
        name: "power",
        what: "the power of its file system is cut under load",
        writes: true,
        run: power::run,
    },
    Harness { name: "full", what: "a disk of 32 MB that gets full", writes: true, run: full::run },
    Harness {
        name: "inject",
        what: "one system call of the broker fails",
        writes: true,
        run: inject::run,
    },
    Harness {
        name: "net",
        what: "a network that swallows, cuts, resets, trickles, slows and stops",
        writes: true,
        run: net::run,
    },
    Harness {
        name: "pause",
        what: "broker, members and workers that stand still for seconds",
        writes: true,
        run: pause::run,
    },
    Harness {
        name: "clock",
        what: "the wall clock of the broker jumps by years",
        writes: true,
        run: clock::run,
    },
    Harness {
        name: "planted",
        what: "every planted bug is caught by its harness",
        writes: true,
        run: planted::run,
    },
];

/// Free bytes that a harness wants which writes: what the largest of them takes, and the reserve that a broker keeps.
const ROOM_BYTES: u64 = 1 << 30;

impl Harness {
    /// Runs it, where there is room for it.
    pub(crate) fn verdict(&self, size: &Size) -> Verdict {
        let folder = std::env::temp_dir();
        let free =
            rustix::fs::statvfs(&folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        match free {
            Err(error) if self.writes => Verdict::Skipped(format!(
                "no free bytes are known of {}: {error}",
                folder.display()
            )),
            Ok(free) if self.writes && free < ROOM_BYTES => Verdict::Skipped(format!(
                "it wants {} MiB free in {}, where {} MiB are; TMPDIR names another folder",
                ROOM_BYTES >> 20,
                folder.display(),
                free >> 20
            )),
            Ok(_) | Err(_) => (self.run)(size),
        }
    }
}

/// How much of a harness is run.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Rounds (seeds, cycles, points), where the command line names them.
    pub(crate) count: Option<u64>,
    /// The seed of the first round; the others follow it.
    pub(crate) seed: u64,
    /// Goes on with further rounds for so long.
    pub(crate) time: Option<Duration>,
    /// The size recorded in the documentation instead of the size of the check.
    pub(crate) full: bool,
}

impl Size {
    /// Rounds to run: as asked for, or by the two usual sizes. With a time, rounds go on until it is over.
    pub(crate) fn rounds(&self, check: u64, full: u64) -> u64 {
        match (self.count, self.time) {
            (Some(count), _) => count,
            (None, Some(_)) => u64::MAX,
            (None, None) if self.full => full,
            (None, None) => check,
        }
    }
}

/// What a harness says at its end.
pub(crate) enum Verdict {
    /// Nothing was violated: the figures, on one line.
    Green(String),
    /// It could not run here: why. Counts neither as passed nor as failed.
    Skipped(String),
    Violation(Violation),
}

/// Stands in a violation that is none: the harness broke, so it caught nothing.
pub(crate) const HARNESS_FAULT: &str = "the harness itself broke";

/// A promise that was not kept.
pub(crate) struct Violation {
    /// What was seen, for a person.
    pub(crate) what: String,
    /// Arguments that do it again: `--seed 17 --count 1`.
    pub(crate) again: String,
}
