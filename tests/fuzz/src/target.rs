//! What a target is, and all of them.

use crate::{
    batch, config, groups, index, mark, memory, messages, metadata, segment, subscriptions,
};

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was understood, and every promise about it was looked at.
    Accepted,
    /// It was refused by an error.
    Refused,
}

/// One door.
#[derive(Debug)]
pub struct Target {
    /// Its name; that of its folder in `corpus/` too.
    pub name: &'static str,
    /// What the bytes are.
    pub what: &'static str,
    /// Most bytes of memory that one input may make it hold at once.
    pub held_bytes_max: fn(usize) -> usize,
    /// Looks at the bytes.
    run: fn(&[u8]) -> Taken,
}

/// Largest input, in bytes.
pub const INPUT_BYTES_MAX: usize = 4_096;
const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "batch",
        what: "a record batch: decoded, split, inflated, checked, filtered, picked from",
        // The windows and blocks of the codecs, and what may be inflated, twice.
        held_bytes_max: |_| 16 * MIB + 2 * batch::INFLATED_BYTES_MAX,
        run: batch::run,
    },
    Target {
        name: "segment",
        what: "all files of a log: opened, recovered, read, appended to, crashed, opened again",
        held_bytes_max: |bytes| 16 * MIB + 64 * bytes,
        run: segment::run,
    },
    Target {
        name: "index",
        what: "an index file, a snapshot of producers: what is read is the same with any of them",
        held_bytes_max: |_| 16 * MIB,
        run: index::run,
    },
    Target {
        name: "mark",
        what: "the mark page and the state file of a log",
        held_bytes_max: |_| 16 * MIB,
        run: mark::run,
    },
    Target {
        name: "metadata",
        what: "commands of the metadata log, and the snapshot of what they come to",
        held_bytes_max: |bytes| MIB + 256 * bytes,
        run: metadata::run,
    },
    Target {
        name: "groups",
        what: "entries of the groups' log with stored offsets, and the snapshot of them",
        held_bytes_max: |bytes| MIB + 256 * bytes,
        run: groups::run,
    },
    Target {
        name: "subscriptions",
        what: "entries of the subscriptions' log, and the snapshot of them",
        held_bytes_max: |bytes| MIB + 256 * bytes,
        run: subscriptions::run,
    },
    Target {
        name: "messages",
        what: "every request message of the gRPC door, translated and checked",
        held_bytes_max: |bytes| MIB + 256 * bytes,
        run: messages::run,
    },
    Target {
        name: "config",
        what: "the broker's settings as text",
        held_bytes_max: |bytes| MIB + 512 * bytes,
        run: config::run,
    },
];

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Looks at `input`.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn look_at(&self, input: &[u8]) -> Taken {
        let most = (self.held_bytes_max)(input.len());
        let (taken, held) = memory::peak(|| (self.run)(input));
        assert!(held <= most, "{} bytes made it hold {held}, more than {most}", input.len());
        taken
    }
}
