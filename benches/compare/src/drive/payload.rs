//! Records that can be told apart: the first eight bytes are the number of the record, the rest is random.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};

/// Records are cut out of blocks of about so many bytes, so that making one costs a copy and no allocation.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of the number.
const NUMBER_BYTES: usize = 8;

/// Makes records.
#[derive(Debug)]
pub(crate) struct Payloads {
    bytes: usize,
    next: u64,
    /// Random bytes of a whole block.
    pattern: Vec<u8>,
    block: Bytes,
}

impl Payloads {
    /// Records of this many bytes, from number 0.
    pub(crate) fn new(bytes: usize) -> Payloads {
        let count = (BLOCK_BYTES / bytes).max(1);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut byte = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        };
        let pattern = (0..count * bytes).map(|_| byte()).collect();
        Payloads { bytes, next: 0, pattern, block: Bytes::new() }
    }

    /// The next record, with a time after its number.
    pub(crate) fn next_due(&mut self, due: u64) -> Bytes {
        let mut record = BytesMut::from(self.next().as_ref());
        record[NUMBER_BYTES..2 * NUMBER_BYTES].copy_from_slice(&due.to_le_bytes());
        record.freeze()
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Bytes {
        if self.block.is_empty() {
            let mut block = BytesMut::from(self.pattern.as_slice());
            for record in block.chunks_exact_mut(self.bytes) {
                record[..NUMBER_BYTES].copy_from_slice(&self.next.to_le_bytes());
                self.next += 1;
            }
            self.block = block.freeze();
        }
        self.block.split_to(self.bytes)
    }
}

/// Checks that the records of a topic come whole, in order, each once.
#[derive(Debug)]
pub(crate) struct Checker {
    bytes: usize,
    /// Records that were right.
    pub(crate) records: u64,
}

impl Checker {
    /// Expects records of this many bytes, from number 0.
    pub(crate) fn new(bytes: usize) -> Checker {
        Checker { bytes, records: 0 }
    }

    /// Takes the next record.
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<()> {
        let number = number(payload)?;
        if number != self.records || payload.len() != self.bytes {
            return Err(Error::Wrong(format!(
                "record {} of {} bytes came as number {number} with {} bytes",
                self.records,
                self.bytes,
                payload.len()
            )));
        }
        self.records += 1;
        Ok(())
    }
}

/// The number of a record.
pub(crate) fn number(payload: &[u8]) -> Result<u64> {
    let first = payload.first_chunk::<NUMBER_BYTES>();
    first.map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(|| {
        Error::Wrong(format!("a record of {} bytes came, which has no number", payload.len()))
    })
}

/// The time in a record that [`Payloads::next_due`] made.
pub(crate) fn due(payload: &[u8]) -> Result<u64> {
    number(payload.get(NUMBER_BYTES..).unwrap_or_default())
}

/// Checks that every record of a topic comes once, in whatever order.
#[derive(Debug)]
pub(crate) struct Seen {
    bytes: usize,
    /// A bit for each number.
    bits: Vec<u64>,
    /// Records that came again.
    pub(crate) again: u64,
}

impl Seen {
    /// Expects this many records of this many bytes.
    pub(crate) fn new(records: u64, bytes: usize) -> Seen {
        let words = usize::try_from(records.div_ceil(64)).unwrap_or(usize::MAX);
        Seen { bytes, bits: vec![0; words], again: 0 }
    }

    /// Takes a record.
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<()> {
        let number = number(payload)?;
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        let word = self.bits.get_mut(word).filter(|_| payload.len() == self.bytes);
        let word = word.ok_or_else(|| {
            let bytes = payload.len();
            Error::Wrong(format!("number {number} with {bytes} bytes came, which nobody sent"))
        })?;
        self.again += *word >> (number % 64) & 1;
        *word |= 1 << (number % 64);
        Ok(())
    }

    /// Records that came at all.
    pub(crate) fn records(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_with_their_numbers_and_what_is_missing_is_seen() {
        let mut payloads = Payloads::new(100);
        let records: Vec<Bytes> = (0..5000).map(|_| payloads.next()).collect();
        let mut checker = Checker::new(100);
        for record in &records {
            assert!(checker.take(record).is_ok());
        }
        assert_eq!(checker.records, 5000);
        assert!(checker.take(&records[4999]).is_err(), "one came twice");
        let mut checker = Checker::new(100);
        assert!(checker.take(&records[1]).is_err(), "one is missing");
        assert!(Checker::new(100).take(&records[0][..99]).is_err(), "one was cut");
    }

    #[test]
    fn records_in_any_order_are_told_from_those_that_come_again() {
        let mut payloads = Payloads::new(100);
        let records: Vec<Bytes> = (0..200).map(|_| payloads.next()).collect();
        let mut seen = Seen::new(200, 100);
        for record in records.iter().rev().chain(&records[..3]) {
            assert!(seen.take(record).is_ok());
        }
        assert_eq!((seen.records(), seen.again), (200, 3));
        assert!(Seen::new(64, 100).take(&records[64]).is_err(), "nobody sent it");
    }
}
