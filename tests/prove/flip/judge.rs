//! What a damaged log may do: give the right bytes, or name what is damaged. Nothing else.

use riverrun_proto::{Offset, RecordBatch};
use riverrun_storage::{
    AppendError, LogFailure, OpenedLog, ReadError, RecoveryVerdict, Timestamp, disk::sim::SimDisk,
};

use super::fixture::{self, Fixture};

/// Most bytes of a batch when it is read.
const INFLATED_MAX: usize = 1 << 20;
/// Bytes read at a time.
const RUN_BYTES: usize = 64 << 10;

/// Opens a damaged image, reads all of it, writes to it, and opens it once more. `one` is damage in one place; `unmarked` is damage
/// to the mark as well: then nothing but later entries proves an entry durable, and a damaged end passes for a torn one.
pub(super) fn judge(
    fixture: &Fixture,
    disk: &SimDisk,
    (one, unmarked): (bool, bool),
) -> Result<(), String> {
    let mut log = match fixture::open(disk) {
        Ok(log) => log,
        // Damage in several places may leave nothing that says what the directory is.
        Err(error) if !one && !error.to_string().is_empty() => return Ok(()),
        Err(error) => return Err(format!("one damaged place and it does not open: {error}")),
    };
    let is_judged = log.report.verdict != RecoveryVerdict::Trusted;
    let least = if unmarked && is_judged { 1 } else { fixture.durable };
    let found = read(fixture, &log, least)
        .map_err(|what| format!("{what}: {:?}, {}", log.report.verdict, log.report.torn_bytes))?;
    if log.report.verdict == RecoveryVerdict::Damaged {
        return refuses(fixture, &mut log);
    }
    if one && found.damaged.len() > 45 {
        return Err(format!("one damaged place took {} records", found.damaged.len()));
    }
    let end = found.end;
    // The sequence of the producer goes on where the log ends; where the tail was dropped, so does it.
    let appended = log.writer.append(&fixture::batch(end, 1), Timestamp(2_000_000));
    match appended {
        Ok(_) => {}
        // What remembers the producer may be what was damaged.
        Err(AppendError::UnknownProducer { .. }) => return Ok(()),
        // Its newest batch and the snapshot that tells of it: it is refused by name, and begins anew.
        Err(AppendError::OutOfOrderSequence { .. }) if !one && !found.damaged.is_empty() => {
            return Ok(());
        }
        Err(error) => return Err(format!("a log that is not damaged refuses a record: {error}")),
    }
    log.flusher.flush().map_err(|error| format!("the flush after it: {error}"))?;
    drop(log);
    let again =
        fixture::open(&disk.kill()).map_err(|error| format!("opened once more: {error}"))?;
    let found_again = read(fixture, &again, end)?;
    if found_again.end != end + 1 {
        return Err(format!("{} is the end, {} was acknowledged", found_again.end, end + 1));
    }
    // Where sectors changed places, what lies between two of them may be told of as damaged more widely when the end is judged anew.
    let wider = found_again.damaged.iter().find(|offset| !found.damaged.contains(offset));
    match wider.filter(|_| one) {
        Some(offset) => Err(format!("offset {offset} was there, and not after another start")),
        None => Ok(()),
    }
}

/// What reading came to.
struct Found {
    end: u64,
    damaged: Vec<u64>,
}

/// Reads every record by its offset, and looks some up by time.
fn read(fixture: &Fixture, log: &OpenedLog, least: u64) -> Result<Found, String> {
    let offsets = log.reader.offsets();
    let (start, end) = (offsets.log_start.0, offsets.log_end.0);
    // Without its state and its first segment a log cannot know where it began; it says that it is damaged.
    if start != 0 && log.report.verdict != RecoveryVerdict::Damaged {
        return Err(format!("the log begins at {start}"));
    }
    if end < least {
        return Err(format!("{least} records were flushed and the log ends at {end}"));
    }
    if end < fixture.log_end && log.report.verdict == RecoveryVerdict::Trusted {
        return Err("dropped records and calls itself trusted".into());
    }
    let mut damaged = Vec::new();
    let mut next = start;
    while next < end {
        match log.reader.read(Offset(next), Offset(end), RUN_BYTES) {
            Ok(run) => {
                next = holds(next, &run.bytes)
                    .map_err(|what| format!("{what} of {start}..{end}, {:?}", log.report))?;
            }
            Err(ReadError::Corrupt(damage)) if damage.offsets.contains(&Offset(next)) => {
                damaged.push(next);
                next += 1;
            }
            Err(other) => return Err(format!("reading {next}: {other}")),
        }
    }
    if damaged.is_empty() && start == 0 {
        let last = fixture.durable.min(end);
        for offset in [0, last / 2, last - 1] {
            let at = Timestamp(fixture::timestamp(offset));
            let found = log.reader.find_by_time(at, Offset(end));
            match found {
                Ok(Some((found, time))) if found.0 == offset && time == at => {}
                other => return Err(format!("looked for offset {offset} by time: {other:?}")),
            }
        }
    }
    Ok(Found { end, damaged })
}

/// Whether `bytes` hold exactly the records from `next` on; gives the first offset behind them.
fn holds(mut next: u64, bytes: &bytes::Bytes) -> Result<u64, String> {
    let wanted = next;
    for batch in RecordBatch::split(bytes) {
        let batch = batch.map_err(|error| format!("{next}: a batch that is none: {error}"))?;
        let records = batch.records(INFLATED_MAX).map_err(|error| format!("{next}: {error}"))?;
        for record in records {
            let record = record.map_err(|error| format!("{next}: {error}"))?;
            let (offset, value) = (record.offset.0, record.record.value.unwrap_or_default());
            if value != fixture::value(offset) {
                return Err(format!("wrong bytes at offset {offset}"));
            }
            // A batch is given whole, also what lies before the offset asked for.
            if offset > next {
                return Err(format!("offset {next} was passed over in silence"));
            }
            next = next.max(offset + 1);
        }
    }
    if next > wanted { Ok(next) } else { Err(format!("nothing came at offset {next}")) }
}

/// A damaged log refuses writes and stays as it is.
fn refuses(fixture: &Fixture, log: &mut OpenedLog) -> Result<(), String> {
    let end = log.writer.log_end().0.max(fixture.log_end);
    match log.writer.append(&fixture::batch(end, 1), Timestamp(2_000_000)) {
        Err(AppendError::Failed(LogFailure::Damaged(_))) => Ok(()),
        other => Err(format!("a damaged log took a record: {other:?}")),
    }
}
