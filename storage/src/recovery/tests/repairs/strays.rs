//! Whatever stops a log, a repair says that it is needed, and mends it.

use super::*;
use crate::recovery::tests::rows::{parted, plant};

#[test]
fn a_stray_segment_of_an_earlier_history_is_moved_and_costs_nothing() {
    for base in [12, 16, 20, 30] {
        for clean in [true, false] {
            let (disk, strange) = parted(base);
            if clean {
                open(&disk.kill()).writer.close().unwrap();
            }
            let disk = disk.kill();
            plant(&disk, &segment_path(base), &strange);
            let (done, disk) = check_repaired(&disk, 20, &[]);
            assert_eq!(done.set_aside, [segment_path(base)], "base {base} clean {clean}");
            let name = segment_path(base).file_name().unwrap().to_owned();
            assert!(bytes_of(&disk, &Path::new(QUARANTINE).join(name)) == strange);
        }
    }
}

#[test]
fn a_log_without_records_whose_only_segment_is_missing_goes_on() {
    for trimmed in [false, true] {
        for mark in [true, false] {
            let disk = SimDisk::new(1);
            let mut log = open(&disk);
            let mut end = 0;
            if trimmed {
                fill(&mut log, 20);
                end = log.writer.log_end().0;
                log.writer.drop_before(Offset(end)).unwrap();
            }
            log.writer.close().unwrap();
            for name in named(&disk, ".log") {
                disk.remove_file(&Path::new(DIR).join(name)).unwrap();
            }
            if !mark {
                disk.remove_file(&Path::new(DIR).join(paths::MARK)).unwrap();
            }
            assert!(open(&disk.copy()).reader.failure().is_some());
            let done = repair(&disk).accept_loss().unwrap();
            assert!(done.is_needed() && done.losses.is_empty(), "{done:?}");
            let mut log = open(&disk.crash(CrashPolicy::lose_all()));
            assert!(log.reader.failure().is_none(), "{:?}", log.report);
            assert_eq!(log.writer.log_end(), Offset(end));
            fill(&mut log, 1);
        }
    }
}

#[test]
fn what_an_open_calls_damaged_a_look_calls_damaged() {
    let logs = [rolled(false).0, rolled(true).0, parted(12).0.kill()];
    for seed in seed()..seed() + 200 {
        let mut rng = Rng::new(seed);
        let disk = logs[usize::try_from(rng.below(3)).unwrap()].copy();
        for _ in 0..=rng.below(3) {
            if rng.below(4) == 0 {
                let base = [12, 16, 20, 30][usize::try_from(rng.below(4)).unwrap()];
                let bytes = parted(base).1;
                let _ = disk.remove_file(&segment_path(base));
                plant(&disk, &segment_path(base), &bytes);
            } else {
                harm(&disk, &mut rng);
            }
        }
        let Ok(log) = try_open(&disk.copy()) else { continue };
        let is_damaged = log.report.verdict == RecoveryVerdict::Damaged;
        let plan = repair(&disk).look();
        let plan = plan.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(plan.is_needed() || !is_damaged, "seed {seed}: {:?}", log.report);
        repair(&disk).accept_loss().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let mut log = open(&disk);
        assert!(log.reader.failure().is_none(), "seed {seed}: {:?}", log.report);
        fill(&mut log, 1);
    }
}
