//! What the broker refuses although frame and checksum hold.

use bytes::Bytes;

use super::super::{header::write, *};
use super::build::{batch_of, sample_records};
use crate::{Header, Record};

/// Checks a batch whose header was changed by `change` and whose records are `body`.
#[track_caller]
fn check(body: &[u8], change: impl Fn(&mut BatchHeader), expected: &str) {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend_from_slice(body);
    let mut header = *batch_of(Compression::None, &sample_records()[..1]).header();
    (header.base_timestamp_ms, header.max_timestamp_ms) = (0, 0);
    change(&mut header);
    write(&mut bytes, header);
    let outcome = RecordBatch::decode(bytes.into())
        .and_then(|batch| batch.check_produced(ProducedLimits::default()));
    let text = outcome.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    assert_eq!(text, expected);
}

/// A record with this offset delta and an empty value.
fn plain(offset_delta: u8) -> [u8; 7] {
    [0x0c, 0, 0, offset_delta << 1, 0x01, 0x00, 0]
}

/// A record with one header of this name.
fn with_header(key: &[u8]) -> Vec<u8> {
    let key_bytes = u8::try_from(key.len()).unwrap();
    let fields = [&[0, 0, 0, 0x01, 0x01, 0x02, key_bytes << 1][..], key, &[0x01]].concat();
    [&[u8::try_from(fields.len()).unwrap() << 1], &fields[..]].concat()
}

#[test]
fn records_are_walked() {
    let two = |header: &mut BatchHeader| (header.record_count, header.last_offset_delta) = (2, 1);
    check(&plain(0), |_| {}, "ok");
    check(&[plain(0), plain(1)].concat(), two, "ok");
    check(&plain(1), |_| {}, "record `0` of the batch: `offset_delta` is `1`, expected `0` to `0`");
    let repeated = "record `1` of the batch: `offset_delta` is `0`, expected `1` to `1`";
    check(&[plain(0), plain(0)].concat(), two, repeated);
    let gap = "`record_count` is `1` in a batch over `2` offsets";
    check(&plain(0), |header| header.last_offset_delta = 1, gap);
    let missing = "record `1` of the batch: `record_length` is not a varint";
    check(&[&plain(0)[..], &[0x80; 7]].concat(), two, missing);
    check(&[&plain(0)[..], &[0]].concat(), |_| {}, "`1` bytes follow the last record");
    let negative = "record `0` of the batch: `record_length` is `-1` with `6` bytes left";
    check(&[1, 0, 0, 0, 0, 0, 0], |_| {}, negative);
    let empty = "record `0` of the batch: `record_length` is `0` with `0` bytes left";
    check(&[0, 0, 0, 0, 0, 0, 0], |_| {}, empty);
    let key = "record `0` of the batch: `key` is `3` with `2` bytes left";
    check(&[0x0c, 0, 0, 0, 0x06, 0x00, 0], |_| {}, key);
    let null = "record `0` of the batch: `value` is `-2` with `1` bytes left";
    check(&[0x0c, 0, 0, 0, 0x01, 0x03, 0], |_| {}, null);
    let count = "record `0` of the batch: `header_count` is `1` with `0` bytes left";
    check(&[0x0c, 0, 0, 0, 0x01, 0x01, 0x02], |_| {}, count);
    let minus = "record `0` of the batch: `header_count` is `-1` with `0` bytes left";
    check(&[0x0c, 0, 0, 0, 0x01, 0x01, 0x01], |_| {}, minus);
    let after = "record `0` of the batch: `1` bytes follow the last header";
    check(&[0x0e, 0, 0, 0, 0x01, 0x01, 0, 9], |_| {}, after);
}

#[test]
fn names_of_headers_are_checked() {
    check(&with_header(b"name"), |_| {}, "ok");
    let empty = "record `0` of the batch: `header.key` has `0` bytes, allowed are 1 to `1024`";
    check(&with_header(b""), |_| {}, empty);
    check(&with_header(b"\xff"), |_| {}, "record `0` of the batch: `header.key` is not UTF-8");
}

#[test]
fn headers_are_checked() {
    let attributes =
        |bits| format!("`attributes` is `{bits}`: only a codec may be set by a producer");
    check(&plain(0), |h| h.attributes = 1 << 3, &attributes("0x0008"));
    check(&plain(0), |h| h.attributes = 1 << 4, &attributes("0x0010"));
    check(&plain(0), |h| h.attributes = 1 << 5, &attributes("0x0020"));
    check(&plain(0), |h| h.attributes = 1 << 15, &attributes("0x8000"));
    let timestamp = "`max_timestamp` is `9`, the records give `0`";
    check(&plain(0), |h| h.max_timestamp_ms = 9, timestamp);
    check(&plain(0), |h| h.producer_id = ProducerId(1), "`producer_epoch` is `-1`");
    let sequence = |h: &mut BatchHeader| {
        (h.producer_id, h.producer_epoch) = (ProducerId(0), ProducerEpoch(0));
    };
    check(&plain(0), sequence, "`base_sequence` is `-1`");
}

#[test]
fn sizes_are_checked() {
    let batch = batch_of(Compression::Gzip, &sample_records());
    let bytes = batch.as_bytes().len();
    let limits = ProducedLimits { batch_bytes_max: bytes - 1, ..ProducedLimits::default() };
    let too_large = DecodeError::BatchTooLarge { bytes, limit: bytes - 1 };
    assert_eq!(batch.check_produced(limits), Err(too_large));
    let limits = ProducedLimits { batch_bytes_max: bytes, ..ProducedLimits::default() };
    assert_eq!(batch.check_produced(limits), Ok(()));
    let limits = ProducedLimits { inflated_bytes_max: 50, ..limits };
    let codec = Compression::Gzip;
    let bomb = DecodeError::Inflate(InflateError::TooLarge { codec, limit: 50 });
    assert_eq!(batch.check_produced(limits), Err(bomb));
}

#[test]
fn the_builder_refuses_what_the_broker_refuses() {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    let mut check = |record: &Record, expected: &str| {
        let outcome = builder.push(record);
        let text = outcome.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert_eq!(text, expected);
    };
    let header = |key: Vec<u8>| Header { key: key.into(), value: None };
    let key = |bytes| Record { key: Some(Bytes::from(vec![0; bytes])), ..Record::default() };
    let headers = |headers| Record { headers, ..Record::default() };
    check(&key(64 << 10), "ok");
    check(&key((64 << 10) + 1), "`key` has `65537` bytes, at most `65536` are allowed");
    check(&headers(vec![header(vec![b'x'; 1024])]), "ok");
    let long = "`header.key` has `1025` bytes, allowed are 1 to `1024`";
    check(&headers(vec![header(vec![b'x'; 1025])]), long);
    check(&headers(vec![header(vec![0xff])]), "`header.key` is not UTF-8");
    check(&headers(vec![header(vec![b'x']); 256]), "ok");
    let many = "`headers` has `257` entries, at most `256` are allowed";
    check(&headers(vec![header(vec![b'x']); 257]), many);
    let at = |timestamp_ms| Record { timestamp_ms, ..Record::default() };
    check(&at(i64::MIN), "ok");
    let far = "`timestamp_ms` is `0`, and its difference to the batch's first, `-9223372036854775808`, does not fit 64 bits";
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    builder.push(&at(i64::MIN)).unwrap();
    assert_eq!(builder.push(&at(0)).unwrap_err().to_string(), far);
    assert_eq!(builder.len(), 1);
    let batch = builder.build().unwrap();
    assert_eq!(batch.check_produced(ProducedLimits::default()), Ok(()));
}
