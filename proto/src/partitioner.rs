//! From a record's key to its partition, the way Kafka's clients do it.
//!
//! `partition = (murmur2(key) & 0x7fff_ffff) % count`: the same key goes to the same partition whatever
//! client writes it, Kafka's Java client and librdkafka's `murmur2_random` included, for as long as the number
//! of partitions stays. A record without a key has no partition of its own; its producer picks one.
//!
//! The hash is MurmurHash2, 32 bits, with Kafka's seed. It spreads keys; it protects against nobody.

use std::num::NonZeroU32;

use crate::PartitionId;

/// Kafka's seed.
const SEED: u32 = 0x9747_b28c;
/// Multiplier of the hash.
const M: u32 = 0x5bd1_e995;
/// The hash is taken as a positive signed number.
const POSITIVE: u32 = 0x7fff_ffff;

/// The partition of a record with this key in a topic of `count` partitions.
pub fn partition_for_key(key: &[u8], count: NonZeroU32) -> PartitionId {
    PartitionId((murmur2(key) & POSITIVE) % count)
}

/// MurmurHash2 with Kafka's seed. Kafka prints the same bits as a signed number.
pub fn murmur2(bytes: &[u8]) -> u32 {
    // Java's lengths are 32 bits wide; no key comes near that.
    #[expect(clippy::cast_possible_truncation, reason = "defined modulo 2^32")]
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &[u8], hash: i32, of_ten: u32) {
        assert_eq!(murmur2(key).cast_signed(), hash);
        let ten = NonZeroU32::new(10).unwrap();
        assert_eq!(partition_for_key(key, ten), PartitionId(of_ten));
        assert_eq!(partition_for_key(key, NonZeroU32::MIN), PartitionId(0));
    }

    #[test]
    fn published_vectors() {
        // From the tests of Kafka's Java client.
        check(b"21", -973_932_308, 0);
        check(b"foobar", -790_332_482, 6);
        check(b"a-little-bit-long-string", -985_981_536, 2);
        check(b"a-little-bit-longer-string", -1_486_304_829, 9);
        check(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971, 7);
        check(b"abc", 479_470_107, 7);
    }

    #[test]
    fn vectors_of_another_implementation() {
        // Computed with kafka-python 3.0.12: every length of tail, and bytes past 0x7f.
        check(b"", 275_646_681, 1);
        check(b"\x00", 375_494_588, 8);
        check(b"a", -1_563_381_124, 4);
        check(b"ab", 316_155_434, 4);
        check(b"abcd", -1_323_649_548, 0);
        check(b"\xff\xff\xff", 1_548_199_422, 2);
        check(&(0..=255).collect::<Vec<u8>>(), -1_948_347_274, 4);
    }
}
