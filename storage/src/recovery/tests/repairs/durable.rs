//! What a repair says is durable.

use super::*;

#[test]
fn a_power_loss_amid_a_repair_makes_no_loss_of_what_was_never_durable() {
    for mark in [true, false] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        fill(&mut log, 3);
        log.flusher.sync_mark().unwrap();
        fill(&mut log, 3);
        let disk = disk.kill();
        disk.remove_file(&Path::new(DIR).join(paths::STATE)).unwrap();
        if !mark {
            disk.remove_file(&Path::new(DIR).join(paths::MARK)).unwrap();
        }
        disk.sync_dir(Path::new(DIR)).unwrap();
        for step in 1.. {
            let disk = disk.copy();
            disk.cut_power_at(step);
            let finished = repair(&disk).accept_loss().is_ok();
            let disk = disk.crash(CrashPolicy::lose_all());
            let done = repair(&disk).accept_loss().unwrap();
            assert_eq!(done.losses, [], "step {step}: {done:?}");
            let log = open(&disk);
            let end = log.reader.offsets().log_end.0;
            assert!(end >= 6, "step {step}: {:?}", log.report);
            assert_eq!(read_all(&log.reader), filled(0, end));
            if finished {
                assert_eq!(end, 12, "a repair that ended has all of it on disk");
                break;
            }
        }
    }
}

#[test]
fn without_a_state_file_what_lies_behind_damage_is_kept_wherever_the_repair_was_cut_short() {
    let (whole, bases, end) = rolled(false);
    flip(&whole, bases[0], 2, 30);
    flip(&whole, bases[1], bases[1], 30);
    for name in [paths::STATE, paths::MARK] {
        whole.remove_file(&Path::new(DIR).join(name)).unwrap();
    }
    whole.write_back();
    let given_up = [2, 3, bases[1], bases[1] + 1];
    for step in 1.. {
        let disk = whole.copy();
        disk.cut_power_at(step);
        let finished = repair(&disk).accept_loss().is_ok();
        let disk = disk.crash(CrashPolicy::weak(step));
        repair(&disk).accept_loss().unwrap();
        check_records(&open(&disk), end, &given_up);
        if finished {
            break;
        }
    }
}
