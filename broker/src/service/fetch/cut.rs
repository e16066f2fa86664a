//! Cuts what was read to the form and the number of records asked for.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_proto::{
    Offset, RecordBatch,
    batch::{BatchHeader, DecodeError, OffsetRecord},
    limits::INFLATED_BYTES_MAX,
};

use super::{FetchPartitionError, FetchedRecords, Format};
use crate::partition::PartitionRead;

/// Runs of more bytes are decoded on the blocking pool.
const BYTES_INLINE: usize = 64 << 10;
/// Most bytes of decoded records of one partition, whatever the stored batches inflate to.
const DECODED_BYTES_MAX: usize = INFLATED_BYTES_MAX;

/// Brings `read` into `format`, with at most `records_max` records at or past `from`.
pub(super) async fn cut(
    read: PartitionRead,
    from: Offset,
    format: Format,
    records_max: Option<usize>,
) -> Result<FetchedRecords, FetchPartitionError> {
    let decodes = format == Format::Structured || records_max.is_some();
    if !decodes {
        return Ok(whole(read));
    }
    if read.batches.len() <= BYTES_INLINE {
        return cut_here(read, from, format, records_max);
    }
    let cut = crate::blocking::run(move || cut_here(read, from, format, records_max)).await;
    cut.unwrap_or_else(|_| Err(undecodable(from, "the decoding thread ended")))
}

fn whole(read: PartitionRead) -> FetchedRecords {
    let PartitionRead { batches, next_offset, leader_epoch } = read;
    FetchedRecords { batches, next_offset, leader_epoch, ..FetchedRecords::default() }
}

fn cut_here(
    read: PartitionRead,
    from: Offset,
    format: Format,
    records_max: Option<usize>,
) -> Result<FetchedRecords, FetchPartitionError> {
    let records_max = records_max.unwrap_or(usize::MAX);
    match format {
        Format::Encoded => count(read, from, records_max),
        Format::Structured => decode(read, from, records_max),
    }
}

/// Keeps whole batches; the last may hold more records than wanted, which `next_offset` tells to skip.
fn count(
    read: PartitionRead,
    from: Offset,
    records_max: usize,
) -> Result<FetchedRecords, FetchPartitionError> {
    let mut pos = 0;
    let mut counted = 0;
    while pos < read.batches.len() {
        let header =
            BatchHeader::peek(&read.batches[pos..]).map_err(|error| malformed(from, &error))?;
        let end = pos + header.total_bytes();
        let is_dense = u64::from(header.record_count) == header.span();
        let left = records_max - counted;
        let start = header.base_offset.max(from);
        let batch_end = Offset(header.base_offset.0 + header.span());
        let (here, cut_at) = if is_dense {
            let here = usize::try_from(batch_end.since(start)).unwrap_or(usize::MAX);
            (here, (here > left).then(|| Offset(start.0 + left as u64)))
        } else {
            count_sparse(&read, pos..end, (from, left))?
        };
        if let Some(next_offset) = cut_at {
            let batches = first(&read.batches, end);
            let leader_epoch = header.leader_epoch;
            let record_count = records_max;
            return Ok(FetchedRecords {
                batches,
                next_offset,
                leader_epoch,
                record_count,
                records: Vec::new(),
            });
        }
        counted += here;
        pos = end;
        if counted == records_max {
            let batches = first(&read.batches, end);
            let (next_offset, leader_epoch) = (batch_end, header.leader_epoch);
            return Ok(FetchedRecords {
                batches,
                next_offset,
                leader_epoch,
                record_count: counted,
                records: Vec::new(),
            });
        }
    }
    Ok(FetchedRecords { record_count: counted, ..whole(read) })
}

/// The first `len` bytes of a read, in memory of their own where the rest of it would be kept for little: the reply holds what it sends until
/// it is sent, and is counted by its length.
fn first(read: &Bytes, len: usize) -> Bytes {
    match len < read.len() / 2 {
        true => Bytes::copy_from_slice(&read[..len]),
        false => read.slice(..len),
    }
}

/// Counts the records of a compacted batch, which its header cannot tell from `from` on; where to cut when
/// there are more than `left`.
fn count_sparse(
    read: &PartitionRead,
    range: std::ops::Range<usize>,
    (from, left): (Offset, usize),
) -> Result<(usize, Option<Offset>), FetchPartitionError> {
    let failed = |error: DecodeError| malformed(from, &error);
    let batch = RecordBatch::decode(read.batches.slice(range)).map_err(failed)?;
    let records = batch.records(DECODED_BYTES_MAX).map_err(failed)?;
    let mut here = 0;
    for view in records.views() {
        let view = view.map_err(failed)?;
        if view.offset < from {
            continue;
        }
        if here == left {
            return Ok((here, Some(view.offset)));
        }
        here += 1;
    }
    Ok((here, None))
}

/// Decodes records until there are enough, in number or in bytes.
fn decode(
    read: PartitionRead,
    from: Offset,
    records_max: usize,
) -> Result<FetchedRecords, FetchPartitionError> {
    let mut fetched = FetchedRecords { next_offset: from, ..FetchedRecords::default() };
    let mut inflated = 0;
    for batch in RecordBatch::split(&read.batches) {
        let batch = batch.map_err(|error| malformed(fetched.next_offset, &error))?;
        let failed = |error: DecodeError| malformed(batch.base_offset(), &error);
        if inflated > 0 && inflated + batch.as_bytes().len() > DECODED_BYTES_MAX {
            return Ok(fetched);
        }
        let records = batch.records(DECODED_BYTES_MAX).map_err(failed)?;
        inflated += records.inflated_bytes();
        for record in records {
            let record = record.map_err(failed)?;
            if record.offset < from {
                continue;
            }
            // Small records take more memory decoded than inflated.
            let taken = fetched.record_count * size_of::<OffsetRecord>();
            if fetched.record_count == records_max || taken >= DECODED_BYTES_MAX {
                return Ok(fetched);
            }
            fetched.next_offset = Offset(record.offset.0 + 1);
            fetched.leader_epoch = batch.header().leader_epoch;
            fetched.record_count += 1;
            fetched.records.push(record);
        }
        fetched.next_offset = fetched.next_offset.max(batch.end_offset());
    }
    fetched.next_offset = read.next_offset;
    Ok(fetched)
}

fn malformed(offset: Offset, error: &DecodeError) -> FetchPartitionError {
    undecodable(offset, error.to_string())
}

fn undecodable(offset: Offset, reason: impl Into<Arc<str>>) -> FetchPartitionError {
    FetchPartitionError::Decode { offset, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use riverrun_proto::{
        LeaderEpoch, Record,
        batch::{BatchBuilder, BuilderOptions, Compression},
    };

    use super::*;

    /// Batches of 3, 2 and 4 records from offset 10 on.
    fn read() -> PartitionRead {
        let mut batches = BytesMut::new();
        let mut next = 10;
        for count in [3, 2, 4] {
            let mut builder = BatchBuilder::new(Compression::Lz4, BuilderOptions::default());
            for index in 0..count {
                let value = Some(Bytes::from(format!("v{}", next + index)));
                builder.push(&Record { timestamp_ms: 1, value, ..Record::default() }).unwrap();
            }
            let batch = builder.build().unwrap().stamped(Offset(next), LeaderEpoch(4));
            batches.extend_from_slice(batch.as_bytes());
            next += count;
        }
        let next_offset = Offset(next);
        PartitionRead { batches: batches.freeze(), next_offset, leader_epoch: LeaderEpoch(4) }
    }

    #[track_caller]
    fn check_encoded(from: u64, records_max: usize, batch_count: usize, next: u64, counted: usize) {
        let cut = cut_here(read(), Offset(from), Format::Encoded, Some(records_max)).unwrap();
        assert_eq!(RecordBatch::split(&cut.batches).count(), batch_count);
        assert_eq!((cut.next_offset, cut.record_count), (Offset(next), counted));
    }

    #[test]
    fn whole_batches_are_kept_and_the_rest_is_told_by_the_next_offset() {
        check_encoded(10, 100, 3, 19, 9);
        check_encoded(10, 9, 3, 19, 9);
        check_encoded(10, 8, 3, 18, 8);
        check_encoded(10, 3, 1, 13, 3);
        check_encoded(10, 1, 1, 11, 1);
        check_encoded(11, 1, 1, 12, 1);
        check_encoded(12, 2, 2, 14, 2);
        check_encoded(12, 3, 2, 15, 3);
    }

    #[test]
    fn little_of_a_large_read_does_not_keep_the_rest_in_memory() {
        let read = read();
        let whole = read.batches.as_ptr_range();
        for (records_max, is_kept) in [(1, false), (3, false), (5, true), (100, true)] {
            let read = PartitionRead { batches: read.batches.clone(), ..read };
            let cut = cut_here(read, Offset(10), Format::Encoded, Some(records_max)).unwrap();
            assert_eq!(whole.contains(&cut.batches.as_ptr()), is_kept, "{records_max}");
        }
    }

    #[test]
    fn structured_records_are_cut_exactly() {
        for (from, records_max, expected) in
            [(10, 100, 10..19), (11, 2, 11..13), (12, 5, 12..17), (18, 5, 18..19), (10, 0, 10..10)]
        {
            let cut =
                cut_here(read(), Offset(from), Format::Structured, Some(records_max)).unwrap();
            let offsets: Vec<_> = cut.records.iter().map(|record| record.offset.0).collect();
            assert_eq!(offsets, expected.clone().collect::<Vec<_>>());
            assert_eq!(cut.next_offset, Offset(expected.end));
        }
    }
}
