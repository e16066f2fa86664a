//! Logs that are opened for reading only.

use super::*;
use crate::{AppendError, Log, LogFailure, RecoveryVerdict, disk::ReadOnlyDisk, log::tests::fill};

#[test]
fn a_log_opened_for_reading_only_ends_at_what_is_durable_and_is_left_as_it_is() {
    for (closed, torn) in [(true, false), (false, false), (false, true)] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        fill(&mut log, 60);
        log.flusher.flush().unwrap();
        if closed {
            log.writer.close().unwrap();
        } else {
            fill(&mut log, 3);
        }
        let disk = disk.kill();
        if torn {
            let (path, pos) = active_end(&disk);
            disk.flip_bit(&path, pos - 1, 3);
        }
        let before = directory(&disk);
        let steps = disk.step_count();
        let opened = Log::open_read_only(
            Arc::new(ReadOnlyDisk::new(Arc::new(disk.clone()))),
            DIR,
            options(),
            Timestamp(1_000),
        );
        let mut log = opened.unwrap();
        assert_eq!(log.report.verdict == RecoveryVerdict::Trusted, closed, "{:?}", log.report);
        assert_eq!(log.reader.offsets().log_end, Offset(120), "torn {torn}");
        assert_eq!(read_all(&log.reader), filled(0, 120), "torn {torn}");
        let refused = log.writer.append(&batch(&["x"], 1), Timestamp(1));
        assert!(matches!(refused, Err(AppendError::Failed(LogFailure::ReadOnly))), "{refused:?}");
        assert!(log.writer.drop_before(Offset(10)).is_err());
        assert!(log.writer.roll(Timestamp(1)).is_err());
        assert!(log.flusher.flush().is_err());
        drop(log);
        assert!(directory(&disk) == before);
        assert_eq!(disk.step_count(), steps, "nothing was tried");
        let end = open(&disk).reader.offsets().log_end.0;
        assert_eq!(end, if closed { 120 } else { 126 - 2 * u64::from(torn) }, "goes on as ever");
    }
}

/// The last segment file, and where its entries end.
fn active_end(disk: &SimDisk) -> (PathBuf, u64) {
    let names: Vec<_> = directory(disk).into_iter().map(|(name, _)| name).collect();
    let last = names.iter().rfind(|name| name.ends_with(".log")).unwrap();
    let path = Path::new(DIR).join(last);
    let (pos, header) = entries(disk, &path).pop().unwrap();
    (path, pos + ENTRY_BYTES as u64 + u64::from(header.length))
}

#[test]
fn a_damaged_log_opened_for_reading_only_is_read_around_the_damage() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 60);
    log.writer.close().unwrap();
    disk.flip_bit(&Path::new(DIR).join("state"), 20, 1);
    let before = directory(&disk);
    let log = Log::open_read_only(Arc::new(disk.clone()), DIR, options(), Timestamp(1));
    let log = log.unwrap();
    assert_eq!(log.report.verdict, RecoveryVerdict::Damaged);
    assert_eq!(read_all(&log.reader), filled(0, 120));
    assert!(directory(&disk) == before);
}
