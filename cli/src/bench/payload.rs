//! The records that are sent: random or text-like values that say which record they are.
//!
//! ```text
//! value = run (u32) | producer (u32) | number (u64) | filling
//! ```
//!
//! All little-endian. `run` is drawn anew for every run, so that records of others are told apart. A value is
//! either *cycled* (one of a fixed set whose bytes are shared, so that making it costs next to nothing; its
//! number counts up to the size of the set and begins again) or *numbered* (bytes of its own, every
//! number once).

use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use riverrun_client::Record;
use serde_json::{Value, json};

use super::numbers::{Random, mix};
use crate::units;

/// Bytes of a value that say which record it is.
pub(super) const STAMP_BYTES: usize = 16;
/// Largest value: what the largest batch of the protocol holds.
const SIZE_MAX: u64 = 64 << 20;
/// Bytes of the set that values are cycled through: more than compression looks back in a batch.
const CYCLE_BYTES: usize = 2 << 20;
/// Fewest values in the set.
const CYCLE_COUNT_MIN: usize = 4;
/// Most keys.
const KEYS_MAX: u32 = 1_000_000;

/// What records look like.
#[derive(Clone, Debug, Args)]
pub(super) struct RecordArgs {
    /// Bytes of each record's value; at least 16, which say which record it is
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = parse_size)]
    pub(super) size: usize,
    /// Number of different keys; 0 for records without key
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(KEYS_MAX)))]
    pub(super) keys: u32,
    /// What values are filled with; it matters to compression
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(super) payload: Filling,
}

impl RecordArgs {
    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        json!({ "size": self.size, "keys": self.keys, "payload": self.payload.name() })
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let size = units::parse_bytes(text)?;
    match usize::try_from(size) {
        Ok(bytes) if (STAMP_BYTES as u64..=SIZE_MAX).contains(&size) => Ok(bytes),
        Ok(_) | Err(_) => Err(format!("`{text}` is not within 16 B and 64 MiB")),
    }
}

/// What values are filled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Filling {
    /// Random bytes, which cannot be compressed
    #[default]
    Random,
    /// Words, which compress as text does
    Text,
}

impl Filling {
    /// As it is spelled.
    pub(super) fn name(self) -> &'static str {
        match self {
            Filling::Random => "random",
            Filling::Text => "text",
        }
    }
}

/// Which record a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The run that sent it.
    pub(super) run: u32,
    /// The producer, from 0.
    pub(super) producer: u32,
    /// Its number within the producer, see the head of this module.
    pub(super) number: u64,
}

impl Stamp {
    /// Reads it from a value.
    pub(super) fn read(value: &[u8]) -> Option<Stamp> {
        let (run, rest) = value.split_first_chunk::<4>()?;
        let (producer, rest) = rest.split_first_chunk::<4>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        Some(Stamp {
            run: u32::from_le_bytes(*run),
            producer: u32::from_le_bytes(*producer),
            number: u64::from_le_bytes(*number),
        })
    }

    fn write(self, value: &mut [u8]) {
        value[..4].copy_from_slice(&self.run.to_le_bytes());
        value[4..8].copy_from_slice(&self.producer.to_le_bytes());
        value[8..16].copy_from_slice(&self.number.to_le_bytes());
    }

    /// What the record adds to the sum over all records.
    pub(super) fn digest(self) -> u64 {
        mix(mix(u64::from(self.producer)) ^ self.number)
    }
}

/// The records of one producer.
#[derive(Debug)]
pub(super) struct Payload {
    run: u32,
    producer: u32,
    /// The set of values, each with its digest.
    cycle: Vec<(Bytes, u64)>,
    /// Keys, used in turns.
    keys: Vec<Bytes>,
}

impl Payload {
    /// Makes the set of values for one producer of a run.
    pub(super) fn new(args: &RecordArgs, run: u32, producer: u32) -> Payload {
        let count = (CYCLE_BYTES / args.size).max(CYCLE_COUNT_MIN);
        let mut all = BytesMut::zeroed(count * args.size);
        let mut random = Random::new(u64::from(run) << 32 | u64::from(producer));
        match args.payload {
            Filling::Random => random.fill(&mut all),
            Filling::Text => fill_with_words(&mut random, &mut all),
        }
        for (number, value) in (0..).zip(all.chunks_exact_mut(args.size)) {
            Stamp { run, producer, number }.write(value);
        }
        let all = all.freeze();
        let slot = |at: usize| {
            let digest = Stamp { run, producer, number: at as u64 }.digest();
            (all.slice(at * args.size..(at + 1) * args.size), digest)
        };
        let keys = (0..args.keys).map(|key| Bytes::from(format!("key-{key:07}"))).collect();
        Payload { run, producer, cycle: (0..count).map(slot).collect(), keys }
    }

    /// The records that are cycled, from the first on.
    pub(super) fn cycle(&self) -> Cycle<'_> {
        Cycle { payload: self, at: 0, count: 0 }
    }

    /// A record with a number that none of the run has, and its digest.
    pub(super) fn numbered(&self, number: u64) -> (Record, u64) {
        let stamp = Stamp { run: self.run, producer: self.producer, number };
        let at = number % self.cycle.len() as u64;
        let (filling, _) = &self.cycle[usize::try_from(at).expect("below the length")];
        let mut value = BytesMut::from(&filling[..]);
        stamp.write(&mut value);
        (self.with_key(Record::new(value.freeze()), number), stamp.digest())
    }

    fn with_key(&self, record: Record, count: u64) -> Record {
        if self.keys.is_empty() {
            return record;
        }
        // Keys come in no order that partitions would notice.
        let at = mix(count) % self.keys.len() as u64;
        record.key(self.keys[usize::try_from(at).expect("below the length")].clone())
    }
}

/// Goes through the set of values for ever. This is on the path that is measured, so it does next to nothing.
#[derive(Debug)]
pub(super) struct Cycle<'a> {
    payload: &'a Payload,
    /// The next of the set.
    at: usize,
    /// Records so far.
    count: u64,
}

impl Cycle<'_> {
    /// The next record, and its digest.
    pub(super) fn next(&mut self) -> (Record, u64) {
        let (value, digest) = &self.payload.cycle[self.at];
        let record = self.payload.with_key(Record::new(value.clone()), self.count);
        self.at = if self.at + 1 < self.payload.cycle.len() { self.at + 1 } else { 0 };
        self.count += 1;
        (record, *digest)
    }
}

const WORDS: [&str; 16] = [
    "\"customer\":",
    "\"order\":",
    "\"total\":",
    "\"status\":",
    "\"paid\",",
    "\"open\",",
    "\"sent\",",
    "{\"id\":",
    "},",
    "\"Amsterdam\",",
    "\"2026-11-26\",",
    "true,",
    "false,",
    "\"items\":[",
    "],",
    "\"note\":",
];

/// Words and numbers, as JSON of a shop would have them.
fn fill_with_words(random: &mut Random, mut to: &mut [u8]) {
    while !to.is_empty() {
        let drawn = random.next();
        let word = match drawn % 4 {
            0 => format!("{},", (drawn >> 8) % 1_000_000),
            _ => WORDS[usize::try_from((drawn >> 8) % 16).expect("below 16")].to_owned(),
        };
        let length = word.len().min(to.len());
        let (head, tail) = to.split_at_mut(length);
        head.copy_from_slice(&word.as_bytes()[..length]);
        to = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(size: usize, keys: u32, payload: Filling) -> RecordArgs {
        RecordArgs { size, keys, payload }
    }

    fn stamp(record: &Record) -> Stamp {
        Stamp::read(record.value_bytes().unwrap()).unwrap()
    }

    #[test]
    fn values_say_which_record_they_are() {
        for size in [16, 17, 1024, 1 << 20] {
            let payload = Payload::new(&args(size, 0, Filling::Random), 7, 3);
            let (record, digest) = payload.numbered(123_456_789);
            assert_eq!(record.value_bytes().unwrap().len(), size);
            let expected = Stamp { run: 7, producer: 3, number: 123_456_789 };
            assert_eq!((stamp(&record), expected.digest()), (expected, digest));
            let mut cycle = payload.cycle();
            for number in 0..3 {
                let (record, digest) = cycle.next();
                assert_eq!((stamp(&record).number, stamp(&record).digest()), (number, digest));
            }
        }
        assert_eq!(Stamp::read(&[0; 15]), None);
    }

    #[test]
    fn cycled_values_begin_again_and_differ_before() {
        let payload = Payload::new(&args(1 << 20, 0, Filling::Random), 1, 0);
        let mut cycle = payload.cycle();
        let values: Vec<Vec<u8>> =
            (0..5).map(|_| cycle.next().0.value_bytes().unwrap().to_vec()).collect();
        assert_eq!(values[0], values[4]);
        assert_ne!(values[0][16..], values[1][16..]);
    }

    #[test]
    fn so_many_keys_are_used_as_were_asked_for() {
        let payload = Payload::new(&args(16, 5, Filling::Text), 1, 0);
        let mut cycle = payload.cycle();
        let keys: std::collections::BTreeSet<Vec<u8>> =
            (0..1000).map(|_| cycle.next().0.key_bytes().unwrap().to_vec()).collect();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused_with_the_bounds() {
        for text in ["15", "0", "65MiB", "x"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("16"), Ok(16));
        assert!(parse_size("15").unwrap_err().contains("16 B and 64 MiB"));
    }
}
