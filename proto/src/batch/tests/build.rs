//! What the builder writes, the decoder reads.

use bytes::Bytes;

use super::super::*;
use crate::{Header, Record, limits::INFLATED_BYTES_MAX};

/// Records with every shape of field.
pub(super) fn sample_records() -> Vec<Record> {
    let header = |key: &'static str, value: Option<&'static [u8]>| Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(Bytes::from_static),
    };
    let bytes = |text: &'static [u8]| Some(Bytes::from_static(text));
    vec![
        Record { timestamp_ms: 1_000, key: bytes(b"k"), value: bytes(b"value"), headers: vec![] },
        Record { timestamp_ms: 999, key: None, value: bytes(b""), headers: vec![] },
        Record { timestamp_ms: 70_000, key: bytes(b""), value: None, headers: vec![] },
        Record {
            timestamp_ms: -5,
            key: bytes(b"with headers"),
            value: bytes(&[7; 300]),
            headers: vec![
                header("trace", Some(b"abc")),
                header("trace", Some(b"")),
                header("none", None),
            ],
        },
    ]
}

/// A batch of `records`.
pub(super) fn batch_of(compression: Compression, records: &[Record]) -> RecordBatch {
    let mut builder = BatchBuilder::new(compression, BuilderOptions::default());
    for record in records {
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

/// The records of `batch`.
pub(super) fn records_of(batch: &RecordBatch) -> Vec<Record> {
    let records = batch.records(INFLATED_BYTES_MAX).unwrap();
    records.map(|record| record.unwrap().record).collect()
}

#[test]
fn built_batches_decode_to_their_records() {
    for compression in Compression::ALL {
        let records = sample_records();
        let batch = batch_of(compression, &records);
        let decoded = RecordBatch::decode(batch.as_bytes().clone()).unwrap();
        assert_eq!(decoded, batch);
        assert_eq!(decoded.header().compression(), Ok(compression));
        assert_eq!(records_of(&decoded), records);
        let views = decoded.records(INFLATED_BYTES_MAX).unwrap();
        let copies: Vec<_> = views.views().map(|view| view.unwrap().to_record()).collect();
        assert_eq!(copies, records);
        assert_eq!(decoded.check_produced(ProducedLimits::default()), Ok(()));
        assert_eq!(decoded.span(), 4);
        assert_eq!(decoded.header().max_timestamp_ms, 70_000);
    }
}

#[test]
fn stamping_moves_the_batch_and_keeps_the_checksum() {
    let batch = batch_of(Compression::None, &sample_records());
    let (offset, epoch) = (Offset(1 << 40), LeaderEpoch(7));
    let mut stamped = batch.as_bytes().to_vec();
    stamp(&mut stamped, offset, epoch);
    assert_eq!(stamped[..STAMPED_BYTES], batch.stamped_prefix(offset, epoch));
    assert_eq!(stamped[STAMPED_BYTES..], batch.as_bytes()[STAMPED_BYTES..]);
    let decoded = RecordBatch::decode(stamped.into()).unwrap();
    assert_eq!(decoded.base_offset(), offset);
    assert_eq!(decoded.header().leader_epoch, epoch);
    assert_eq!(decoded.end_offset(), Offset((1 << 40) + 4));
    let offsets: Vec<_> =
        decoded.records(usize::MAX).unwrap().map(|record| record.unwrap().offset.0).collect();
    assert_eq!(offsets, (1 << 40..(1 << 40) + 4).collect::<Vec<u64>>());
    assert_eq!(batch.stamped(offset, epoch), decoded);
}

#[test]
fn batches_are_split_without_copying() {
    let first = batch_of(Compression::None, &sample_records());
    let second = batch_of(Compression::Zstd, &sample_records());
    let both = Bytes::from([&first.as_bytes()[..], second.as_bytes()].concat());
    let split: Vec<_> = RecordBatch::split(&both).collect();
    assert_eq!(split, [Ok(first.clone()), Ok(second.clone())]);
    assert_eq!(
        split[1].as_ref().unwrap().as_bytes().as_ptr(),
        both[first.as_bytes().len()..].as_ptr()
    );

    let cut = both.slice(..both.len() - 1);
    let split: Vec<_> = RecordBatch::split(&cut).collect();
    let have = second.as_bytes().len() - 1;
    assert_eq!(split, [Ok(first), Err(DecodeError::Truncated { needed: have + 1, have })]);
}

#[test]
fn a_builder_starts_anew_after_each_batch() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression, BuilderOptions::default());
        assert_eq!(builder.build(), Err(EncodeError::Empty));
        for _ in 0..3 {
            for record in sample_records() {
                let before = builder.encoded_bytes();
                builder.push(&record).unwrap();
                let bytes = builder.encoded_bytes() - before;
                assert!(bytes <= record.encoded_bytes());
                assert!(bytes + 16 > record.encoded_bytes());
            }
            assert_eq!(builder.len(), 4);
            let bytes = builder.encoded_bytes();
            let batch = builder.build().unwrap();
            assert_eq!(records_of(&batch), sample_records());
            assert!(builder.is_empty());
            if compression == Compression::None {
                assert_eq!(batch.as_bytes().len(), bytes);
            }
        }
    }
}

#[test]
fn producer_fields_are_set_before_or_after_building() {
    let options = BuilderOptions {
        producer_id: ProducerId(9),
        producer_epoch: ProducerEpoch(2),
        base_sequence: 40,
        ..BuilderOptions::default()
    };
    let mut builder = BatchBuilder::new(Compression::None, options);
    builder.push(&sample_records()[0]).unwrap();
    let batch = builder.build().unwrap();
    assert_eq!(batch.header().producer_id, ProducerId(9));
    assert_eq!(batch.header().base_sequence, 40);
    let changed = batch.clone().with_producer(ProducerId(10), ProducerEpoch(3), 0);
    builder.push(&sample_records()[0]).unwrap();
    builder.set_producer(ProducerId(10), ProducerEpoch(3), 0);
    assert_eq!(builder.build().unwrap(), changed);
    assert_eq!(RecordBatch::decode(changed.as_bytes().clone()).unwrap(), changed);
    assert_ne!(changed.header().crc, batch.header().crc);
}

#[test]
fn bounds_of_a_batch_are_kept() {
    let options = BuilderOptions { bytes_max: 200, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(Compression::None, options);
    let alone = builder.push_parts(0, None, Some(&[0; 140]), &[]);
    assert_eq!(alone, Err(EncodeError::RecordTooLarge { bytes: 210, limit: 200 }));
    builder.push_parts(0, None, Some(&[0; 60]), &[]).unwrap();
    let second = builder.push_parts(0, None, Some(&[0; 70]), &[]);
    assert_eq!(second, Err(EncodeError::BatchFull { bytes: 208, limit: 200 }));
    assert_eq!(records_of(&builder.build().unwrap()).len(), 1);
}

#[test]
fn compaction_keeps_offsets_and_span() {
    for compression in Compression::ALL {
        let batch = batch_of(compression, &sample_records());
        let batch = batch.stamped(Offset(50), LeaderEpoch(1));
        let kept = batch.retain(usize::MAX, |view| view.offset.0 % 2 == 1).unwrap().unwrap();
        let decoded = RecordBatch::decode(kept.as_bytes().clone()).unwrap();
        assert_eq!((decoded.base_offset(), decoded.span()), (Offset(50), 4));
        let records: Vec<_> = decoded.records(usize::MAX).unwrap().map(Result::unwrap).collect();
        let all = sample_records();
        assert_eq!(records[0], OffsetRecord { offset: Offset(51), record: all[1].clone() });
        assert_eq!(records[1], OffsetRecord { offset: Offset(53), record: all[3].clone() });
        assert_eq!(records.len(), 2);
        assert_eq!(decoded.header().max_timestamp_ms, 999);
        let records = batch.records(usize::MAX).unwrap();
        let odd = || (0..=batch.end_offset().0).filter(|offset| offset % 2 == 1).map(Offset);
        let picked = batch.pick(&records, odd());
        let picked = RecordBatch::decode(picked.unwrap().unwrap().into_bytes()).unwrap();
        assert_eq!(picked.header().compression(), Ok(Compression::None));
        assert_eq!(records_of(&picked), records_of(&kept));
        // From a mark on: the same without what lies before it.
        let mut views = records.views();
        let first = views.next().unwrap().unwrap().offset;
        let rest = records.from_mark(&views.mark());
        let of_rest = batch.pick(&rest, odd()).unwrap().unwrap();
        let is_kept = usize::from(first.0 % 2 == 1);
        let behind = records_of(&kept).split_off(is_kept);
        assert_eq!(records_of(&of_rest), behind);
        assert_eq!(batch.pick(&rest, [first]), Ok(None), "it lies before the mark");
        assert_eq!(batch.retain(usize::MAX, |_| false), Ok(None));
        assert_eq!(batch.retain(usize::MAX, |_| true), Ok(Some(batch.clone())));
        let dense = decoded.check_produced(ProducedLimits::default());
        assert_eq!(dense, Err(DecodeError::RecordCount { count: 2, span: 4 }));
    }
}
