//! A small seeded source of randomness. Not for secrets.

/// Gives the same numbers for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same for the same `seed`.
    pub fn seeded(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Dice of their own for the `number`-th of many.
    pub fn throw(&self, number: u64) -> Dice {
        let mut own = Dice(self.0 ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        own.next_number();
        own
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, end)`; 0 when `end` is.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_number().checked_rem(end).unwrap_or(0)
    }

    /// True so many times of a hundred.
    pub fn hits(&mut self, percent: u8) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// Puts things in any order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let end = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
            let other = usize::try_from(self.below(end)).unwrap_or(0);
            things.swap(last, other);
        }
    }
}
