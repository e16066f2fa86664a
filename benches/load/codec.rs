//! Workload `codec`: records per second through the batch codec alone, on one core.

use std::hint::black_box;

use bytes::Bytes;
use riverrun_proto::{
    BatchBuilder, BuilderOptions, Compression, RecordBatch,
    batch::{EncodeError, ProducedLimits},
    limits::INFLATED_BYTES_MAX,
};

use crate::{
    clock,
    error::{Error, Result},
    report::{Measurement, Target},
};

/// Bytes of a batch before compression, about.
const BATCH_BYTES: usize = 1 << 20;
/// Shortest time each number is measured for, in seconds.
const SECONDS: f64 = 0.3;

/// Measures it.
pub(crate) fn run() -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for value_bytes in [100, 1024] {
        for compression in Compression::ALL {
            measurements.extend(measure(compression, value_bytes)?);
        }
    }
    Ok(measurements)
}

/// Four numbers for one codec and one size of record.
fn measure(compression: Compression, value_bytes: usize) -> Result<[Measurement; 4]> {
    let count = BATCH_BYTES / value_bytes;
    let values: Vec<_> = (0..count).map(|index| text(index, value_bytes)).collect();
    let mut builder = BatchBuilder::new(compression, BuilderOptions::default());
    let mut batch = build(&mut builder, &values).map_err(wrong)?;
    let built = rate(count, || {
        batch = build(&mut builder, &values)?;
        Ok::<_, EncodeError>(())
    })?;
    let checked = rate(count, || {
        RecordBatch::decode(batch.as_bytes().clone())?.check_produced(ProducedLimits::default())
    })?;
    let viewed = rate(count, || {
        batch.records(INFLATED_BYTES_MAX)?.views().try_for_each(|view| {
            view.map(|view| {
                black_box(view);
            })
        })
    })?;
    let owned = rate(count, || {
        batch.records(INFLATED_BYTES_MAX)?.try_for_each(|record| {
            record.map(|record| {
                black_box(record);
            })
        })
    })?;
    let name = |what: &str| format!("{compression}, {value_bytes} B: {what}");
    let small = compression == Compression::None && value_bytes == 100;
    let target = if small { Target::AtLeast(10.0) } else { Target::None };
    Ok([
        Measurement::new(name("build"), built, "M rec/s").target(target),
        Measurement::new(name("decode and check"), checked, "M rec/s").target(target),
        Measurement::new(name("decode, borrowed"), viewed, "M rec/s").target(target),
        Measurement::new(name("decode, owned"), owned, "M rec/s").target(target),
    ])
}

fn build(
    builder: &mut BatchBuilder,
    values: &[Bytes],
) -> std::result::Result<RecordBatch, EncodeError> {
    for (timestamp_ms, value) in (1_700_000_000_000..).zip(values) {
        builder.push_parts(timestamp_ms, None, Some(value), &[])?;
    }
    builder.build()
}

/// Text that compresses about as log lines do: half of it repeats.
fn text(index: usize, bytes: usize) -> Bytes {
    let mut random = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut line = String::with_capacity(bytes + 64);
    while line.len() < bytes {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        line += &format!("GET /orders/{:06x}?page={} 200 ", random & 0xff_ffff, random >> 60);
    }
    line.truncate(bytes);
    Bytes::from(line)
}

/// Millions of records per second.
fn rate<E: std::fmt::Display>(
    count: usize,
    mut once: impl FnMut() -> std::result::Result<(), E>,
) -> Result<f64> {
    let (start, mut rounds) = (clock::now(), 0usize);
    while clock::seconds_since(start) < SECONDS {
        once().map_err(wrong)?;
        rounds += 1;
    }
    Ok((rounds * count) as f64 / 1e6 / clock::seconds_since(start))
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Wrong(error.to_string())
}
