//! Damaged and made-up bytes: an error, never a panic, and never a batch whose checksum does not hold.

use bytes::Bytes;
use proptest::{collection::vec, prelude::any, sample::Index};

use super::super::{
    header::{check_crc, write},
    *,
};
use super::{
    build::{batch_of, sample_records},
    random::{check_random, compression},
};

/// Bound for inflating damaged records.
const INFLATED_MAX: usize = 1 << 20;

/// Reads everything there is to read; only a panic fails.
fn exercise(batch: &RecordBatch) {
    let _ = batch.check_produced(ProducedLimits::default());
    let Ok(records) = batch.records(INFLATED_MAX) else { return };
    assert!(records.inflated_bytes() <= INFLATED_MAX.max(batch.as_bytes().len()));
    let views = records.views().inspect(|view| {
        if let Ok(view) = view {
            assert!(view.headers.count() <= records.inflated_bytes());
        }
    });
    let viewed: Vec<_> =
        views.map(|view| view.map(|view| (view.offset, view.to_record()))).collect();
    let owned: Vec<_> =
        records.clone().map(|found| found.map(|found| (found.offset, found.record))).collect();
    assert_eq!(viewed, owned);
    let valid = owned.iter().filter_map(|found| found.as_ref().ok());
    let offsets: Vec<_> = valid.map(|found| found.0).collect();
    assert!(offsets.is_sorted());
    assert!(
        offsets.iter().all(|offset| (batch.base_offset()..batch.end_offset()).contains(offset))
    );
    let _ = batch.retain(INFLATED_MAX, |view| view.offset.0 % 2 == 0);
}

/// Decodes and exercises; gives back whether it was a batch.
fn decode(bytes: Bytes) -> bool {
    let Ok(batch) = RecordBatch::decode(bytes) else { return false };
    assert_eq!(check_crc(batch.as_bytes(), batch.header().crc), Ok(()));
    exercise(&batch);
    true
}

/// Gives damaged bytes the length and checksum that fit, so that the damage reaches what lies behind them.
fn refit(mut bytes: Vec<u8>) -> Option<Bytes> {
    let header = BatchHeader::peek(&bytes).ok()?;
    write(&mut bytes, header);
    Some(bytes.into())
}

#[test]
fn every_cut_is_an_error() {
    for compression in Compression::ALL {
        let bytes = batch_of(compression, &sample_records()).into_bytes();
        for end in 0..bytes.len() {
            let cut = RecordBatch::decode(bytes.slice(..end));
            let needed = if end < HEADER_BYTES { HEADER_BYTES } else { bytes.len() };
            assert_eq!(cut, Err(DecodeError::Truncated { needed, have: end }));
            if let Some(refitted) = refit(bytes[..end].to_vec()) {
                decode(refitted);
            }
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert_eq!(RecordBatch::decode(longer), Err(DecodeError::TrailingBytes { count: 1 }));
    }
}

#[test]
fn every_flipped_bit_is_noticed_unless_the_broker_stamps_it() {
    for compression in Compression::ALL {
        let bytes = batch_of(compression, &sample_records()).into_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let accepted = decode(flipped.clone().into());
            let stamped = matches!(bit / 8, 0..8 | 12..16);
            // A negative base offset is refused though it is stamped.
            let negative = bit == 7;
            assert_eq!(accepted, stamped && !negative, "bit {bit} of {compression}");
            if let Some(refitted) = refit(flipped) {
                decode(refitted);
            }
        }
    }
}

#[test]
fn every_byte_of_an_uncompressed_batch_may_hold_anything() {
    let bytes = batch_of(Compression::None, &sample_records()).into_bytes();
    for index in HEADER_BYTES..bytes.len().min(HEADER_BYTES + 60) {
        for value in 0..=u8::MAX {
            let mut changed = bytes.to_vec();
            changed[index] = value;
            assert!(decode(refit(changed).unwrap()));
        }
    }
}

#[test]
fn random_damage_behind_a_fitting_checksum() {
    let changes = vec((any::<Index>(), any::<u8>()), 1..6);
    check_random(1500, &(compression(), changes), |(compression, changes)| {
        let mut bytes = batch_of(compression, &sample_records()).as_bytes().to_vec();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        refit(bytes).map(decode);
        Ok(())
    });
}

#[test]
fn random_bytes_are_no_batches() {
    check_random(1000, &vec(any::<u8>(), 0..300), |bytes| {
        decode(Bytes::from(bytes.clone()));
        // The same as a body behind a good header.
        let sample = batch_of(Compression::None, &sample_records());
        for compression in Compression::ALL {
            let mut with_header = sample.as_bytes()[..HEADER_BYTES].to_vec();
            with_header.extend_from_slice(&bytes);
            let header = BatchHeader { attributes: compression.id(), ..*sample.header() };
            write(&mut with_header, header);
            decode(with_header.into());
        }
        Ok(())
    });
}

/// A header that lies.
#[track_caller]
fn check_header(change: impl Fn(&mut BatchHeader), expected: &str) {
    let batch = batch_of(Compression::None, &sample_records());
    let mut bytes = batch.as_bytes().to_vec();
    let mut header = *batch.header();
    change(&mut header);
    write(&mut bytes, header);
    let outcome = RecordBatch::decode(bytes.into()).and_then(|batch| {
        exercise(&batch);
        batch.records(INFLATED_MAX)?.try_for_each(|record| record.map(|_| ()))
    });
    let text = outcome.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    assert_eq!(text, expected);
}

#[test]
fn lying_headers_are_told_apart() {
    check_header(|_| {}, "ok");
    check_header(|h| h.record_count = 0, "`record_count` is `0` in a batch over `4` offsets");
    check_header(|h| h.record_count = 5, "`record_count` is `5` in a batch over `4` offsets");
    check_header(
        |h| h.record_count = u32::MAX >> 1,
        "`record_count` is `2147483647` in a batch over `4` offsets",
    );
    check_header(
        |h| (h.record_count, h.last_offset_delta) = (u32::MAX >> 1, u32::MAX >> 1),
        "`record_count` is `2147483647` in a batch over `2147483648` offsets",
    );
    check_header(|h| h.record_count = 3, "`345` bytes follow the last record");
    check_header(|h| h.record_count = 1 << 31, "`record_count` is `-2147483648`");
    check_header(|h| h.last_offset_delta = u32::MAX, "`last_offset_delta` is `-1`");
    check_header(|h| h.base_offset = Offset(u64::MAX), "`base_offset` is `-1`");
    check_header(
        |h| h.base_offset = Offset(Offset::MAX.0 - 3),
        "offsets from `base_offset` `9223372036854775804` pass the largest offset",
    );
    check_header(|h| h.base_offset = Offset(Offset::MAX.0 - 4), "ok");
    check_header(|h| h.attributes = 5, "`compression` is `5`, known are 0 to 4");
    check_header(|h| h.attributes = 4, "`zstd` data is damaged");
    check_header(
        |h| h.base_timestamp_ms = i64::MAX,
        "record `2` of the batch: `timestamp_delta` is `69000`, and the batch's first timestamp, `9223372036854775807`, with it does not fit 64 bits",
    );
}

#[test]
fn magic_and_length_are_checked_first() {
    let bytes = batch_of(Compression::None, &sample_records()).into_bytes();
    let changed = |at: usize, to: [u8; 4]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + 4].copy_from_slice(&to);
        RecordBatch::decode(bytes.into()).unwrap_err().to_string()
    };
    assert_eq!(changed(8, [0xff; 4]), "`batch_length` is `-1`");
    assert_eq!(changed(8, [0, 0, 0, 48]), "`batch_length` is `48`");
    let huge = format!("batch is cut: `2147483659` bytes needed, `{}` came", bytes.len());
    assert_eq!(changed(8, [0x7f, 0xff, 0xff, 0xff]), huge);
    let crc = [bytes[17], bytes[18], bytes[19]];
    for magic in [0, 1, 3] {
        let text = changed(16, [magic, crc[0], crc[1], crc[2]]);
        assert_eq!(text, format!("`magic` is `{magic}`, only `2` is supported"));
    }
}
