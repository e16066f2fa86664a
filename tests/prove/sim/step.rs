//! What happens in one run, as a list: the same list is the same run, and a shorter list is a simpler one.

use super::random::Random;

/// Partitions of the topic.
pub(super) const PARTITIONS: usize = 2;
/// Producers.
pub(super) const PRODUCERS: usize = 2;

/// What the network does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Net {
    /// Both ways are whole.
    Whole,
    /// The call never arrives.
    RequestLost,
    /// It is done, and the caller never hears of it.
    ReplyLost,
}

/// How a process or a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process dies: what the kernel was given stays, durable or not.
    Kill,
    /// The power goes: what was not durable is kept or not by this seed; name changes as a journal keeps them.
    Power(u64),
    /// The same, with any subset of the name changes.
    PowerAnyNames(u64),
    /// The power goes and nothing survives that was not durable.
    PowerLosesAll,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A producer sends its next batch, and again all that it has no answer to if something went wrong.
    Produce { producer: usize, partition: usize, records: u8, bytes: u32, net: Net },
    /// A reader reads on, or from the beginning.
    Fetch { partition: usize, again: bool },
    /// The reader stores where it is.
    Commit { partition: usize },
    /// A shard appends what waits.
    Turn(usize),
    /// The oldest flush that waits is done.
    Flush,
    /// The next segment of a partition is made ready.
    Prepare,
    /// Time passes, in milliseconds.
    Wait(u32),
    /// The wall clock jumps by so many years.
    Jump(i8),
    /// The next sync of a file fails.
    FailSync,
    /// The power goes at the n-th change of the disk from here.
    CutAt { at: u8, end: End },
    /// The broker ends and starts anew. With a number the power goes again at that change during the start.
    Restart { end: End, again: Option<u8> },
}

/// The steps of a seed.
pub(super) fn steps_of(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let count = 20 + random.below(60);
    let mut steps = Vec::new();
    for _ in 0..count {
        steps.push(step(&mut random));
    }
    steps
}

fn step(random: &mut Random) -> Step {
    let partition = random.index(PARTITIONS);
    match random.below(100) {
        0..30 => {
            let bytes = match random.below(16) {
                0 => 300_000,
                1..4 => 5_000,
                _ => 20,
            };
            let net = match random.below(8) {
                0 => Net::RequestLost,
                1 => Net::ReplyLost,
                _ => Net::Whole,
            };
            let (producer, records) = (random.index(PRODUCERS), 1 + random.small(3));
            Step::Produce { producer, partition, records, bytes, net }
        }
        30..42 => Step::Fetch { partition, again: random.below(4) == 0 },
        42..47 => Step::Commit { partition },
        47..65 => Step::Turn(random.index(2)),
        65..82 => Step::Flush,
        82..84 => Step::Prepare,
        84..90 => Step::Wait([1, 60, 150, 6_000][random.index(4)]),
        90..92 => Step::Jump([-10, 10][random.index(2)]),
        92 => Step::FailSync,
        93..96 => Step::CutAt { at: 1 + random.small(40), end: end(random) },
        _ => Step::Restart {
            end: end(random),
            again: (random.below(3) == 0).then(|| 1 + random.small(60)),
        },
    }
}

/// How the machine ends next.
pub(super) fn end(random: &mut Random) -> End {
    let seed = random.next();
    match random.below(8) {
        0..2 => End::Kill,
        2..5 => End::Power(seed),
        5..7 => End::PowerAnyNames(seed),
        _ => End::PowerLosesAll,
    }
}
