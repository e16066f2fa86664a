//! What the checker found: anomalies with a few witnesses each, and counts.

use std::{collections::BTreeMap, fmt};

/// Witnesses kept of each anomaly; the others are counted.
const WITNESSES_MAX: usize = 8;

macro_rules! anomalies {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Something that a broker which keeps its promises never shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Anomaly { $($(#[$doc])* $variant,)+ }

        impl Anomaly {
            /// All of them.
            pub const ALL: &'static [Anomaly] = &[$(Anomaly::$variant,)+];

            /// As reports call it.
            pub const fn name(self) -> &'static str {
                match self { $(Anomaly::$variant => $name,)+ }
            }
        }
    };
}

anomalies! {
    /// A record that was acknowledged is not in the final log.
    LostWrite = "lost-write",
    /// A record of the final log was given to no reader, though they read on to the end.
    Unseen = "unseen",
    /// A record that was read is not in the final log.
    Vanish = "vanish",
    /// One offset named two values.
    InconsistentOffset = "inconsistent-offset",
    /// One value stands at two offsets.
    Duplicate = "duplicate",
    /// A record whose send surely failed was read.
    AbortedRead = "aborted-read",
    /// A value that nobody sent there was read.
    Unexpected = "unexpected",
    /// The log has the sends of one sender in another order.
    NonmonotonicSend = "nonmonotonic-send",
    /// A send stands before one that was acknowledged before it began.
    RealtimeOrder = "realtime-order",
    /// A batch is there in part, or with others between its records.
    IntSendSkip = "int-send-skip",
    /// A reader was taken past offsets.
    PollSkip = "poll-skip",
    /// A reader was taken back.
    NonmonotonicPoll = "nonmonotonic-poll",
    /// A poll that began after an acknowledgement was shown an end before it.
    StaleEnd = "stale-end",
    /// A session holds more records than its window.
    OverWindow = "over-window",
    /// A record was given to another one while its lease ran.
    EarlyRedeliver = "early-redeliver",
    /// A record came again after its settlement was confirmed.
    AckResurrect = "ack-resurrect",
    /// A record counts as settled and nobody settled it.
    LostInflight = "lost-inflight",
    /// Attempts or failures of a record went back.
    AttemptRegress = "attempt-regress",
    /// A dead letter is there twice.
    DlqDup = "dlq-dup",
    /// A record that was rejected, or wore out, has no dead letter.
    DlqLost = "dlq-lost",
    /// A record was handed out before an earlier one of its key was settled.
    KeyOrder = "key-order",
    /// A stored offset went back.
    CommitRegress = "commit-regress",
    /// A stored offset is gone.
    CommitLost = "commit-lost",
    /// A member stored an offset of a partition that another one owned by then.
    ZombieWrite = "zombie-write",
    /// Bytes that nobody sent.
    WrongBytes = "wrong-bytes",
    /// A reply names a level below the one that was asked for.
    WrongLevel = "wrong-level",
    /// Two whole looks at one partition differ.
    ViewsDiffer = "views-differ",
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One anomaly: how often, and the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Times it was found.
    pub count: u64,
    /// What was seen, with indexes of events.
    pub witnesses: Vec<String>,
}

/// Values by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations that were begun, and events that came by themselves.
    pub operations: u64,
    /// Values that were sent.
    pub attempts: u64,
    /// Those that were acknowledged.
    pub acked: u64,
    /// Those acknowledged or read, and not there at the end.
    pub lost: u64,
    /// Of these: what a power cut may take from a topic that is not flushed before it acknowledges.
    pub lost_allowed: u64,
    /// Lost at the beginning, amid, and at the end of what is left of their partition.
    pub lost_where: [u64; 3],
    /// Values that stand twice.
    pub duplicated: u64,
    /// Values that nobody sent.
    pub unexpected: u64,
    /// Values without an answer that are there.
    pub recovered: u64,
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Anomalies by name.
    pub anomalies: BTreeMap<Anomaly, Found>,
    /// Values by what became of them.
    pub counts: Counts,
    /// The longest that a record was acknowledged and the next poll of a reader did not have it, in nanoseconds.
    pub lag_max_ns: u64,
    /// By fault: the longest from it to the next send that began after it and was acknowledged, in nanoseconds.
    pub gaps_max_ns: BTreeMap<String, u64>,
}

impl Findings {
    /// Whether no anomaly was found.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// How often an anomaly was found.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.anomalies.get(&anomaly).map_or(0, |found| found.count)
    }

    /// The anomalies, each with its first witness, one per line.
    pub fn report(&self) -> String {
        let lines = self.anomalies.iter().map(|(anomaly, found)| {
            format!("{anomaly} x{}: {}", found.count, found.witnesses.join("; "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Takes one down; the text is made only while witnesses are wanted.
    pub(super) fn add(&mut self, anomaly: Anomaly, witness: impl FnOnce() -> String) {
        let found = self.anomalies.entry(anomaly).or_default();
        found.count += 1;
        if found.witnesses.len() < WITNESSES_MAX {
            found.witnesses.push(witness());
        }
    }
}

/// The counts on one line, and the anomalies by name.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { attempts, acked, lost, lost_allowed, lost_where, .. } = self.counts;
        let Counts { duplicated, unexpected, recovered, .. } = self.counts;
        write!(f, "{attempts} attempts, {acked} acked, {lost} lost")?;
        if lost > 0 {
            let [prefix, middle, postfix] = lost_where;
            write!(
                f,
                " ({prefix} prefix, {middle} middle, {postfix} postfix; {lost_allowed} allowed)"
            )?;
        }
        write!(f, ", {duplicated} duplicated, {unexpected} unexpected, {recovered} recovered")?;
        write!(f, ", worst lag {} ms", self.lag_max_ns / 1_000_000)?;
        for (name, gap) in &self.gaps_max_ns {
            write!(f, ", gap after {name} {} ms", gap / 1_000_000)?;
        }
        for (anomaly, found) in &self.anomalies {
            write!(f, ", {anomaly} x{}", found.count)?;
        }
        Ok(())
    }
}
