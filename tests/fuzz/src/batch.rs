//! A record batch, or several one after another.
//!
//! The first byte: bit 0 puts lengths and checksums right, bit 1 asks for records before they are stamped.

use bytes::Bytes;
use riverrun_proto::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, RecordBatch,
    batch::{BatchBuilder, BuilderOptions, Compression, OffsetRecord, ProducedLimits, RecordView},
};

use crate::{Taken, layout};

/// Most bytes that records are inflated to.
pub(crate) const INFLATED_BYTES_MAX: usize = 256 << 10;
/// Bit of the first byte: length and checksum are put right.
pub(crate) const MEND: u8 = 1;

pub(crate) fn run(input: &[u8]) -> Taken {
    let Some((flags, bytes)) = input.split_first() else { return Taken::Refused };
    let mut bytes = bytes.to_vec();
    if flags & MEND != 0 {
        layout::mend_batch(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    let whole = RecordBatch::decode(bytes.clone());
    let mut taken = Taken::Refused;
    let mut pos = 0;
    for batch in RecordBatch::split(&bytes) {
        let Ok(batch) = batch else { break };
        let length = batch.as_bytes().len();
        assert_eq!(
            batch.as_bytes(),
            &bytes[pos..pos + length],
            "the batches lie one after another"
        );
        assert_eq!(batch.header().total_bytes(), length);
        pos += length;
        look_at(&batch);
        taken = Taken::Accepted;
    }
    if let Ok(whole) = whole {
        assert_eq!(whole.as_bytes().len(), bytes.len());
        assert_eq!(pos, bytes.len(), "what is one batch is split into itself");
    }
    taken
}

fn look_at(batch: &RecordBatch) {
    let header = *batch.header();
    assert_eq!(RecordBatch::decode(batch.as_bytes().clone()).as_ref(), Ok(batch));
    assert!(header.record_count > 0 && u64::from(header.record_count) <= header.span());
    let moved = batch.clone().stamped(Offset(1_000), LeaderEpoch(3));
    assert_eq!(moved.header().crc, header.crc, "a stamp lies outside the checksum");
    let moved = RecordBatch::decode(moved.into_bytes()).expect("a stamped batch is whole");
    assert_eq!(moved.base_offset(), Offset(1_000));
    let owned = batch.clone().with_producer(ProducerId(7), ProducerEpoch(1), 5);
    let owned =
        RecordBatch::decode(owned.into_bytes()).expect("another identity, a fresh checksum");
    assert_eq!(owned.header().record_count, header.record_count);

    let limits =
        ProducedLimits { batch_bytes_max: 1 << 20, inflated_bytes_max: INFLATED_BYTES_MAX };
    let produced = batch.check_produced(limits);
    let records = records_of(batch);
    if produced.is_ok() {
        let records = records.as_ref().expect("what may be produced can be read");
        check_produced(batch, records);
    }
    if let Some(records) = records {
        check_kept(batch, &records);
        check_picked(batch, &records);
    }
}

/// All records, when each of them can be read.
fn records_of(batch: &RecordBatch) -> Option<Vec<OffsetRecord>> {
    let records = batch.records(INFLATED_BYTES_MAX).ok()?;
    assert!(records.inflated_bytes() <= INFLATED_BYTES_MAX.max(batch.as_bytes().len()));
    let mut views = records.views();
    let mut read = Vec::new();
    let mut from = batch.base_offset();
    for owned in records.clone() {
        let view = views.next().expect("borrowed and owned records are as many");
        let (Ok(owned), Ok(view)) = (&owned, &view) else {
            assert!(owned.is_err() && view.is_err(), "borrowed and owned records agree");
            assert!(views.next().is_none(), "an error ends the walk");
            return None;
        };
        check_same(owned, view);
        assert!(owned.offset >= from && owned.offset < batch.end_offset(), "offsets rise within");
        from = Offset(owned.offset.0 + 1);
        read.push(owned.clone());
    }
    assert!(views.next().is_none());
    assert_eq!(read.len(), batch.header().record_count as usize);
    Some(read)
}

fn check_same(owned: &OffsetRecord, view: &RecordView<'_>) {
    assert_eq!(owned.offset, view.offset);
    assert_eq!(owned.record, view.to_record());
    assert_eq!(
        view.headers.len(),
        view.headers.count(),
        "headers are counted before they are read"
    );
}

/// What may be produced is dense, and is the same when it is built anew.
fn check_produced(batch: &RecordBatch, records: &[OffsetRecord]) {
    for (record, offset) in records.iter().zip(batch.base_offset().0..) {
        assert_eq!(record.offset.0, offset, "offsets of a produced batch are dense");
    }
    let newest = records.iter().map(|record| record.record.timestamp_ms).max();
    assert_eq!(newest, Some(batch.header().max_timestamp_ms));
    let Some(again) = built(records) else { return };
    let read = records_of(&again).expect("what is built can be read");
    assert!(read.iter().map(|one| &one.record).eq(records.iter().map(|one| &one.record)));
    let twice = built(&read).expect("built before");
    assert_eq!(twice.as_bytes(), again.as_bytes(), "records have one form");
}

/// The records in a batch of our own; `None` when their times lie too far apart for one.
fn built(records: &[OffsetRecord]) -> Option<RecordBatch> {
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    for record in records {
        builder.push(&record.record).ok()?;
    }
    Some(builder.build().expect("there are records"))
}

/// Keeping some of the records keeps those, as they were.
fn check_kept(batch: &RecordBatch, records: &[OffsetRecord]) {
    let wanted = |offset: Offset| !offset.0.is_multiple_of(3);
    let kept = batch.retain(INFLATED_BYTES_MAX, |view| wanted(view.offset));
    let kept = kept.expect("its records were read before");
    let expected: Vec<_> = records.iter().filter(|record| wanted(record.offset)).cloned().collect();
    check_part(batch, kept, &expected);
}

/// Picking offsets gives the records at them.
fn check_picked(batch: &RecordBatch, records: &[OffsetRecord]) {
    let inflated = batch.records(INFLATED_BYTES_MAX).expect("read before");
    let wanted: Vec<Offset> = records
        .iter()
        .map(|record| record.offset)
        .filter(|offset| offset.0.is_multiple_of(2))
        .collect();
    let picked = batch.pick(&inflated, wanted.iter().copied()).expect("read before");
    let expected: Vec<_> =
        records.iter().filter(|record| wanted.contains(&record.offset)).cloned().collect();
    check_part(batch, picked, &expected);
}

fn check_part(batch: &RecordBatch, part: Option<RecordBatch>, expected: &[OffsetRecord]) {
    let Some(part) = part else {
        assert!(expected.is_empty(), "records were left out");
        return;
    };
    let part = RecordBatch::decode(part.into_bytes()).expect("a part is a whole batch");
    assert_eq!((part.base_offset(), part.span()), (batch.base_offset(), batch.span()));
    assert_eq!(records_of(&part).as_deref(), Some(expected));
}
