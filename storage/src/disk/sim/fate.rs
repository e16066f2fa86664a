//! What a simulated power loss keeps and what it forgets.

/// How a power loss treats the sectors or the names that were not yet durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing that was not durable survives.
    Nothing,
    /// Everything survives, except what a failed sync had already lost.
    Everything,
    /// Each unit survives or not by this seed; a sector may also hold a content in between.
    Random(u64),
    /// Unit `i`, counted as in [`SimDisk::dirty_units`](super::SimDisk::dirty_units), survives when
    /// bit `i` is set. For tests that try every subset of up to 64 units.
    Chosen(u64),
}

/// In which combinations changes of names survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrder {
    /// A prefix of the changes in the order they were made, as a journal gives.
    Journal,
    /// Any subset; stricter than the file systems in use, within what POSIX allows.
    Any,
}

/// One power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPolicy {
    /// Fate of dirty sectors and of changed lengths.
    pub sectors: Survival,
    /// Fate of names created, renamed and removed since their directory's last sync.
    pub names: Survival,
    /// Which combinations of names can survive.
    pub name_order: NameOrder,
}

impl CrashPolicy {
    /// Keeps only what was durable.
    pub fn lose_all() -> CrashPolicy {
        CrashPolicy {
            sectors: Survival::Nothing,
            names: Survival::Nothing,
            name_order: NameOrder::Journal,
        }
    }

    /// Keeps everything that reached the kernel.
    pub fn keep_all() -> CrashPolicy {
        CrashPolicy {
            sectors: Survival::Everything,
            names: Survival::Everything,
            name_order: NameOrder::Journal,
        }
    }

    /// Keeps a random subset of the sectors and a random prefix of the name changes.
    pub fn random(seed: u64) -> CrashPolicy {
        CrashPolicy {
            sectors: Survival::Random(seed),
            names: Survival::Random(seed ^ 0x5eed),
            name_order: NameOrder::Journal,
        }
    }

    /// Keeps a random subset of the sectors and any subset of the name changes.
    pub fn weak(seed: u64) -> CrashPolicy {
        CrashPolicy { name_order: NameOrder::Any, ..CrashPolicy::random(seed) }
    }
}

/// Decides unit by unit.
#[derive(Debug)]
pub(super) struct Fate {
    survival: Survival,
    random: Random,
    unit: u32,
}

impl Fate {
    pub(super) fn new(survival: Survival) -> Fate {
        let seed = match survival {
            Survival::Random(seed) => seed,
            Survival::Nothing | Survival::Everything | Survival::Chosen(_) => 0,
        };
        Fate { survival, random: Random::new(seed), unit: 0 }
    }

    /// Whether the next unit survives.
    pub(super) fn keeps(&mut self) -> bool {
        match self.survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Random(_) => self.random.below(2) == 1,
            Survival::Chosen(bits) => {
                self.unit += 1;
                bits.checked_shr(self.unit - 1).unwrap_or(0) & 1 == 1
            }
        }
    }

    /// How many of `count` ordered units survive.
    pub(super) fn prefix(&mut self, count: usize) -> usize {
        match self.survival {
            Survival::Random(_) => self.random.index(count + 1),
            Survival::Nothing | Survival::Everything | Survival::Chosen(_) => {
                (0..count).take_while(|_| self.keeps()).count()
            }
        }
    }

    /// Which content a dirty sector ends with: `None` the durable one, `Some(i)` the i-th content in
    /// between, `Some(older_count)` the newest.
    pub(super) fn version(&mut self, older_count: usize, lost: bool) -> Option<usize> {
        match self.survival {
            Survival::Random(_) => self.random.index(older_count + 2).checked_sub(1),
            Survival::Nothing | Survival::Everything | Survival::Chosen(_) => {
                (self.keeps() && !lost).then_some(older_count)
            }
        }
    }

    /// Which length a file ends with; a random fate may also stop half way.
    pub(super) fn length(&mut self, durable: u64, live: u64) -> u64 {
        if durable == live {
            return live;
        }
        let half_way = matches!(self.survival, Survival::Random(_)) && self.random.below(3) == 0;
        if half_way {
            let (low, high) = (durable.min(live), durable.max(live));
            let blocks = (high - low) / 4096 + 1;
            return (low + self.random.below(blocks) * 4096).min(high);
        }
        if self.keeps() { live } else { durable }
    }
}

/// A small seeded generator (splitmix64): the same seed gives the same disk on every machine.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }
}
