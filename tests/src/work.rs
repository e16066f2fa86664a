//! What becomes of a record in the work queue checks: decided by its number and its failures alone.

/// Failures after which a record is a dead letter. A worker that dies takes what its other handlers began with it, which
/// counts for those records as well; so it is far more than a good record meets.
pub const MAX_FAILURES: u32 = 10;

/// What a handler does with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It succeeds.
    Done,
    /// It fails this time: one in twenty, up to twice.
    Retry,
    /// It fails each time: one in two hundred.
    Poison,
    /// Its worker dies: one in a hundred, once.
    Crash,
}

impl Fate {
    /// What becomes of record `number` that failed so often.
    pub fn of(number: u64, failures: u32) -> Fate {
        let chance = mix(number);
        if Fate::is_poison(number) {
            Fate::Poison
        } else if chance % 100 == 7 && failures == 0 {
            Fate::Crash
        } else if chance % 20 == 3 && failures < 1 + u32::from(chance % 40 == 3) {
            Fate::Retry
        } else {
            Fate::Done
        }
    }

    /// Whether a record never succeeds.
    pub fn is_poison(number: u64) -> bool {
        mix(number) % 200 == 11
    }

    /// As it stands in the log.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Done => "done",
            Fate::Retry => "retry",
            Fate::Poison => "poison",
            Fate::Crash => "crash",
        }
    }
}

/// Spreads numbers that follow each other (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
