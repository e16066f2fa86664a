//! Random records, from a seed that a failure prints: `SEED=<hex>` runs it again.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::super::*;
use super::build::{batch_of, records_of};
use crate::{Header, Record};

/// Runs `test` on `cases` values, and names the seed when it fails.
pub(super) fn check_random<S: Strategy>(
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), proptest::test_runner::TestCaseError>,
) {
    let seed = match std::env::var("SEED") {
        Ok(seed) => u64::from_str_radix(&seed, 16).expect("SEED is hexadecimal"),
        Err(_) => RandomState::new().hash_one(0),
    };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(strategy, test) {
        panic!("SEED={seed:x}\n{error}");
    }
}

/// Bytes of a few typical sizes, compressible and not.
fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        (any::<u8>(), 0..5000usize).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

/// One header.
fn header() -> impl Strategy<Value = Header> {
    ("[a-zé]{1,9}", option::of(bytes()))
        .prop_map(|(key, value)| Header { key: key.into_bytes().into(), value })
}

/// One record. Timestamps are such that any two of them have a difference.
pub(super) fn record() -> impl Strategy<Value = Record> {
    let timestamp = prop_oneof![-10_000..10_000i64, i64::MIN / 2..i64::MAX / 2];
    (timestamp, option::of(bytes()), option::of(bytes()), vec(header(), 0..4)).prop_map(
        |(timestamp_ms, key, value, headers)| Record { timestamp_ms, key, value, headers },
    )
}

/// One of the codecs.
pub(super) fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Gzip),
        Just(Compression::Snappy),
        Just(Compression::Lz4),
        Just(Compression::Zstd),
    ]
}

#[test]
fn whatever_is_built_is_read_back() {
    check_random(400, &(compression(), vec(record(), 1..40)), |(compression, records)| {
        let batch = batch_of(compression, &records);
        let decoded = RecordBatch::decode(batch.as_bytes().clone());
        proptest::prop_assert_eq!(decoded.as_ref(), Ok(&batch));
        proptest::prop_assert_eq!(batch.check_produced(ProducedLimits::default()), Ok(()));
        proptest::prop_assert_eq!(records_of(&batch), records);
        Ok(())
    });
}

#[test]
fn whatever_is_retained_is_what_was_kept() {
    let cases = (compression(), vec((record(), any::<bool>()), 1..30));
    check_random(200, &cases, |(compression, records)| {
        let (all, keep): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        let batch = batch_of(compression, &all).stamped(Offset(1000), LeaderEpoch(0));
        let kept = |offset: Offset| keep[usize::try_from(offset.0 - 1000).unwrap()];
        let retained = batch.retain(usize::MAX, |view| kept(view.offset)).unwrap();
        let expected: Vec<_> = batch
            .records(usize::MAX)
            .unwrap()
            .map(Result::unwrap)
            .filter(|record| kept(record.offset))
            .collect();
        let found = retained.map_or(vec![], |batch| {
            let batch = RecordBatch::decode(batch.into_bytes()).unwrap();
            batch.records(usize::MAX).unwrap().map(Result::unwrap).collect()
        });
        proptest::prop_assert_eq!(found, expected);
        Ok(())
    });
}
