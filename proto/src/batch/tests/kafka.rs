//! Against `kafka-protocol`, an independent implementation: what one writes the other reads.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    indexmap::IndexMap,
    protocol::StrBytes,
    records::{
        Compression as TheirCompression, Record as TheirRecord, RecordBatchDecoder,
        RecordBatchEncoder, RecordEncodeOptions, RecordSet, TimestampType,
    },
};
use proptest::{collection::vec, prop_assert_eq, strategy::Strategy};

use super::super::*;
use super::{
    build::{records_of, sample_records},
    random::{check_random, compression, record},
};
use crate::{Header, Record};

/// The producer's fields of a batch under test.
const PRODUCER: (i64, i16, i32) = (1 << 33, 5, 77);

fn their_compression(compression: Compression) -> TheirCompression {
    match compression {
        Compression::None => TheirCompression::None,
        Compression::Gzip => TheirCompression::Gzip,
        Compression::Snappy => TheirCompression::Snappy,
        Compression::Lz4 => TheirCompression::Lz4,
        Compression::Zstd => TheirCompression::Zstd,
    }
}

/// Our record as theirs, `index` records into a batch at `base_offset`.
fn theirs(record: &Record, index: usize, base_offset: i64) -> TheirRecord {
    let index = i32::try_from(index).unwrap();
    let header = |header: &Header| {
        let key = StrBytes::try_from(header.key.clone()).unwrap();
        (key, header.value.clone())
    };
    TheirRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 12,
        producer_id: PRODUCER.0,
        producer_epoch: PRODUCER.1,
        timestamp_type: TimestampType::Creation,
        offset: base_offset + i64::from(index),
        sequence: PRODUCER.2 + index,
        timestamp: record.timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().map(header).collect::<IndexMap<_, _>>(),
    }
}

/// A batch that they wrote.
fn written_by_them(compression: Compression, records: &[TheirRecord]) -> Bytes {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: their_compression(compression) };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes.freeze()
}

/// A batch that we wrote, stamped.
fn written_by_us(compression: Compression, records: &[Record], base_offset: i64) -> RecordBatch {
    let options = BuilderOptions {
        producer_id: ProducerId(PRODUCER.0),
        producer_epoch: ProducerEpoch(PRODUCER.1),
        base_sequence: PRODUCER.2,
        ..BuilderOptions::default()
    };
    let mut builder = BatchBuilder::new(compression, options);
    records.iter().for_each(|record| builder.push(record).unwrap());
    let base_offset = Offset(u64::try_from(base_offset).unwrap());
    builder.build().unwrap().stamped(base_offset, LeaderEpoch(12))
}

/// Each header once: their records keep headers in a map.
fn without_repeated_headers(mut record: Record) -> Record {
    let mut seen = std::collections::HashSet::new();
    record.headers.retain(|header| seen.insert(header.key.clone()));
    record
}

/// Both directions for the same records.
#[track_caller]
fn check_both_ways(compression: Compression, records: &[Record]) {
    let base_offset = 1 << 35;
    let their_records: Vec<_> = records
        .iter()
        .enumerate()
        .map(|(index, record)| theirs(record, index, base_offset))
        .collect();
    let ours = written_by_us(compression, records, base_offset);
    let mut bytes = ours.as_bytes().clone();
    let RecordSet { compression: read_compression, version, records: read } =
        RecordBatchDecoder::decode(&mut bytes).unwrap();
    assert_eq!((read_compression, version), (their_compression(compression), 2));
    assert_eq!(read, their_records);

    let bytes = written_by_them(compression, &their_records);
    let decoded = RecordBatch::decode(bytes.clone()).unwrap();
    assert_eq!(decoded.base_offset().0, u64::try_from(base_offset).unwrap());
    assert_eq!(decoded.header().leader_epoch, LeaderEpoch(12));
    let header = decoded.header();
    assert_eq!((header.producer_id.0, header.producer_epoch.0, header.base_sequence), PRODUCER);
    assert_eq!(records_of(&decoded), records);
    assert_eq!(decoded.check_produced(ProducedLimits::default()), Ok(()));
    // They count timestamps from the smallest one, we from the first, as Java does: with the same start
    // and without a codec there is only one way to write the batch.
    let smallest_first = decoded.header().base_timestamp_ms == records[0].timestamp_ms;
    if compression == Compression::None && smallest_first {
        assert_eq!(ours.as_bytes(), &bytes);
    }
}

#[test]
fn samples_go_both_ways() {
    for compression in Compression::ALL {
        let records: Vec<_> = sample_records().into_iter().map(without_repeated_headers).collect();
        check_both_ways(compression, &records);
        check_both_ways(compression, &records[..1]);
        let many = vec![records[0].clone(); 5000];
        check_both_ways(compression, &many);
        let mut large = records[0].clone();
        large.value =
            Some(Bytes::from((0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect::<Vec<_>>()));
        check_both_ways(compression, &[large.clone(), large]);
    }
}

#[test]
fn random_batches_go_both_ways() {
    let record = record().prop_map(without_repeated_headers);
    check_random(200, &(compression(), vec(record, 1..30)), |(compression, mut records)| {
        // Half of the cases are such that the bytes must be the same.
        if records.len() % 2 == 0 {
            records.sort_by_key(|record| record.timestamp_ms);
        }
        check_both_ways(compression, &records);
        prop_assert_eq!(records.is_empty(), false);
        Ok(())
    });
}

#[test]
fn they_refuse_what_we_refuse() {
    let ours = written_by_us(Compression::None, &sample_records(), 0);
    let mut flipped = ours.as_bytes().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(RecordBatchDecoder::decode(&mut Bytes::from(flipped.clone())).is_err());
    assert!(matches!(RecordBatch::decode(flipped.into()), Err(DecodeError::Crc { .. })));
}
