//! What readers got, to be held against what was sent: nothing missing, nothing else, nothing changed.
//!
//! Invariant: a record counts once, however often it comes; the sum over all records' stamps then shows
//! that they are the same ones, since offsets alone would not.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::payload::Stamp;
use crate::{
    failure::{Class, Failure},
    units,
};

/// Furthest an offset may lie behind the first one of its partition: a bit is kept for each.
const SPAN_MAX: u64 = 1 << 33;

/// What was sent and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Records.
    pub(super) count: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    /// Sum of their stamps' digests.
    pub(super) digest: u64,
}

impl Expected {
    /// Adds a record.
    pub(super) fn add(&mut self, bytes: u64, digest: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.digest = self.digest.wrapping_add(digest);
    }

    /// Adds what another one counted.
    pub(super) fn merge(&mut self, other: Expected) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// One partition.
#[derive(Clone, Debug, Default)]
struct Lane {
    /// First offset that may come.
    start: u64,
    /// A bit for each offset from there on: it came.
    seen: Vec<u64>,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    lanes: BTreeMap<u32, Lane>,
    /// The run whose records count; all do when there is none.
    run: Option<u32>,
    /// Records, each once.
    pub(super) got: Expected,
    /// Records that came again.
    pub(super) repeated: u64,
    /// Records of others.
    pub(super) foreign: u64,
    /// Two readers got the same record, so that the sums hold some records twice.
    is_blurred: bool,
}

impl Tally {
    /// For the records of `run`, or for all; partitions begin at these offsets, others at 0.
    pub(super) fn new(run: Option<u32>, starts: impl IntoIterator<Item = (u32, u64)>) -> Tally {
        let lane = |(partition, start)| (partition, Lane { start, seen: Vec::new() });
        Tally { lanes: starts.into_iter().map(lane).collect(), run, ..Tally::default() }
    }

    /// Takes a record. Gives its stamp when it is one of the run that came for the first time.
    pub(super) fn take(
        &mut self,
        partition: u32,
        offset: u64,
        value: Option<&Bytes>,
    ) -> Option<Stamp> {
        let lane = self.lanes.entry(partition).or_default();
        let Some(distance) = offset.checked_sub(lane.start).filter(|far| *far < SPAN_MAX) else {
            self.foreign += 1;
            return None;
        };
        let (word, bit) = (usize::try_from(distance / 64).unwrap_or(usize::MAX), distance % 64);
        if lane.seen.len() <= word {
            lane.seen.resize(word + 1, 0);
        }
        if lane.seen[word] >> bit & 1 == 1 {
            self.repeated += 1;
            return None;
        }
        lane.seen[word] |= 1 << bit;
        let value = value.map_or(&[][..], |value| value);
        let stamp = Stamp::read(value);
        if self.run.is_some() && stamp.map(|stamp| stamp.run) != self.run {
            self.foreign += 1;
            return None;
        }
        self.got.add(value.len() as u64, stamp.map_or(0, Stamp::digest));
        stamp
    }

    /// Adds what another reader got of the same records.
    pub(super) fn merge(&mut self, other: Tally) {
        let mut both = 0;
        for (partition, lane) in other.lanes {
            let mine = self
                .lanes
                .entry(partition)
                .or_insert_with(|| Lane { start: lane.start, seen: Vec::new() });
            mine.seen.resize(mine.seen.len().max(lane.seen.len()), 0);
            for (mine, seen) in mine.seen.iter_mut().zip(lane.seen) {
                both += u64::from((*mine & seen).count_ones());
                *mine |= seen;
            }
        }
        self.got.merge(other.got);
        self.got.count -= both.min(self.got.count);
        self.is_blurred |= other.is_blurred || both > 0;
        self.repeated += other.repeated + both;
        self.foreign += other.foreign;
    }

    /// The first offset that did not come although a later one of its partition did.
    pub(super) fn gap(&self) -> Option<(u32, u64)> {
        self.lanes.iter().find_map(|(partition, lane)| {
            let last = lane.seen.len().checked_sub(1)?;
            let whole = |at: usize| match at == last {
                // Below the highest bit that is set.
                true => u64::MAX >> lane.seen[at].leading_zeros(),
                false => u64::MAX,
            };
            let at = (0..lane.seen.len()).find(|at| lane.seen[*at] != whole(*at))?;
            let bit = u64::from(lane.seen[at].trailing_ones());
            Some((*partition, lane.start + at as u64 * 64 + bit))
        })
    }

    /// Fails unless exactly `expected` came.
    pub(super) fn check(&self, expected: &Expected) -> Result<(), Failure> {
        let got = &self.got;
        let problem = if got.count != expected.count {
            let first = self.gap().map(|(partition, offset)| {
                format!("; the first one missing is offset {offset} of partition {partition}")
            });
            let (got, all) = (units::count(got.count), units::records(expected.count));
            format!("{got} of {all} came back{}", first.unwrap_or_default())
        } else if self.is_blurred {
            return Ok(());
        } else if got.bytes != expected.bytes {
            let (got, all) = (units::count(got.bytes), units::count(expected.bytes));
            format!("{got} bytes of values came back, {all} were sent")
        } else if got.digest != expected.digest {
            "as many records came back as were sent, and not the same ones".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::new(Class::Corrupt, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(run: u32, number: u64) -> Bytes {
        let mut value = [run.to_le_bytes(), 0u32.to_le_bytes()].concat();
        value.extend(number.to_le_bytes());
        value.into()
    }

    /// Takes these offsets of partition 0, each with its offset as number, in a run of 9.
    fn took(start: u64, offsets: &[u64]) -> Tally {
        let mut tally = Tally::new(Some(9), [(0, start)]);
        for offset in offsets {
            tally.take(0, *offset, Some(&value(9, *offset)));
        }
        tally
    }

    fn sent(numbers: impl IntoIterator<Item = u64>) -> Expected {
        let mut expected = Expected::default();
        for number in numbers {
            expected.add(16, Stamp { run: 9, producer: 0, number }.digest());
        }
        expected
    }

    #[test]
    fn everything_once_is_right_in_any_order() {
        let offsets: Vec<u64> = (100..300).rev().collect();
        let tally = took(100, &offsets);
        tally.check(&sent(100..300)).unwrap();
        assert_eq!((tally.gap(), tally.repeated, tally.foreign), (None, 0, 0));
    }

    #[test]
    fn a_record_that_is_missing_is_named() {
        let offsets: Vec<u64> = (0..300).filter(|offset| *offset != 137).collect();
        let refused = took(0, &offsets).check(&sent(0..300)).unwrap_err();
        assert_eq!(refused.class, Class::Corrupt);
        assert!(refused.message.contains("299 of 300 records"), "{refused}");
        assert!(refused.message.contains("offset 137 of partition 0"), "{refused}");
        assert_eq!(took(0, &[0, 1, 2]).gap(), None, "what comes later may still come");
        assert_eq!(took(5, &[6]).gap(), Some((0, 5)));
    }

    #[test]
    fn a_repeat_makes_up_for_nothing() {
        let tally = took(0, &[0, 1, 1]);
        assert_eq!(tally.repeated, 1);
        assert!(tally.check(&sent(0..3)).is_err());
    }

    #[test]
    fn another_record_in_its_place_is_seen() {
        let mut tally = Tally::new(Some(9), []);
        tally.take(0, 0, Some(&value(9, 0)));
        tally.take(0, 1, Some(&value(9, 0)));
        let refused = tally.check(&sent(0..2)).unwrap_err();
        assert!(refused.message.contains("not the same"), "{refused}");
        let mut short = Tally::new(None, []);
        short.take(0, 0, Some(&value(9, 0).slice(1..)));
        assert!(short.check(&sent(0..1)).unwrap_err().message.contains("bytes"));
    }

    #[test]
    fn records_of_others_are_told_apart() {
        let mut tally = took(10, &[10]);
        tally.take(0, 11, Some(&value(8, 11)));
        tally.take(0, 12, None);
        tally.take(0, 9, Some(&value(9, 9)));
        tally.take(0, 10 + SPAN_MAX, Some(&value(9, 9)));
        assert_eq!((tally.foreign, tally.got.count), (4, 1));
    }

    #[test]
    fn readers_that_share_add_up() {
        let mut tally = took(0, &[0, 2]);
        tally.merge(took(0, &[1, 3, 200]));
        assert_eq!(tally.gap(), Some((0, 4)));
        let mut whole = took(0, &[0, 2]);
        whole.merge(took(0, &[1]));
        whole.check(&sent(0..3)).unwrap();
        whole.merge(took(0, &[1, 2]));
        whole.check(&sent(0..3)).unwrap();
        assert_eq!(whole.repeated, 2);
        let mut twice = took(0, &[0, 1]);
        twice.merge(took(0, &[0]));
        assert!(twice.check(&sent(0..3)).is_err(), "what came twice is no third one");
    }
}
