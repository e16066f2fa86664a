//! A set of small numbers as bits.

/// Numbers below a fixed bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// All numbers below `len`.
    pub(super) fn full(len: u32) -> Bits {
        let (whole, rest) = (len as usize / 64, len % 64);
        let mut words = vec![u64::MAX; whole];
        if rest > 0 {
            words.push((1 << rest) - 1);
        }
        Bits(words)
    }

    /// None of the numbers below `len`.
    pub(super) fn empty(len: u32) -> Bits {
        Bits(vec![0; len.div_ceil(64) as usize])
    }

    /// Puts a number in; one past the bound is not taken.
    pub(super) fn insert(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word |= bit(number);
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & bit(number) != 0)
    }

    /// Takes a number out; true when it was in.
    pub(super) fn remove(&mut self, number: u32) -> bool {
        let Some(word) = self.0.get_mut(number as usize / 64) else { return false };
        let was = *word & bit(number) != 0;
        *word &= !bit(number);
        was
    }
}

fn bit(number: u32) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_hold_what_was_put_in() {
        for len in [0, 1, 63, 64, 65, 200] {
            let mut bits = Bits::full(len);
            assert!((0..len).all(|number| bits.contains(number)) && !bits.contains(len), "{len}");
            assert!((0..len).all(|number| bits.remove(number)), "{len}");
            assert!((0..len + 64).all(|number| !bits.contains(number) && !bits.remove(number)));
            assert_eq!(bits, Bits::empty(len));
            (0..len).for_each(|number| bits.insert(number));
            assert_eq!(bits, Bits::full(len));
        }
    }
}
