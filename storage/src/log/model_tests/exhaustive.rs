//! Small workloads, cut at every single disk call, and recoveries cut at every call again.

use super::*;
use crate::disk::sim::{Call, Fault, FaultError};

/// Every kind of step in a few calls. Batches are large so that it rolls.
fn workload() -> Vec<Operation> {
    let append = |bytes| Operation::Append { count: 2, bytes, compression: Compression::None };
    vec![
        append(100),
        Operation::Flush,
        append(3_000),
        Operation::Produce { id: 1, count: 2 },
        Operation::SyncMark,
        append(5_000),
        append(50),
        Operation::Flush,
        append(4_000),
        append(60),
        Operation::Prepare,
        append(5_000),
        Operation::Flush,
        Operation::Retry { id: 1, back: 0 },
        Operation::DropBefore { records: 9 },
        append(10),
        Operation::Roll,
        append(20),
        Operation::ReopenClean,
        append(30),
    ]
}

/// Runs the workload until the power goes or it ends.
fn run_until_stopped(harness: &mut Harness) {
    if harness.open(0).is_err() {
        return;
    }
    for operation in workload() {
        if harness.apply(&operation).is_err() {
            return;
        }
    }
}

fn policies(seed: u64) -> Vec<CrashPolicy> {
    let mut policies = vec![CrashPolicy::lose_all(), CrashPolicy::keep_all()];
    policies.extend((0..2).map(|n| CrashPolicy::random(seed * 31 + n)));
    policies.extend((0..2).map(|n| CrashPolicy::weak(seed * 37 + n)));
    policies
}

/// Calls that change the medium in a run without a crash.
fn step_count() -> u64 {
    let mut harness = Harness::new(SimDisk::new(1));
    run_until_stopped(&mut harness);
    assert_eq!(harness.model.end(), 22, "the workload runs to its end");
    harness.disk.step_count()
}

#[test]
fn a_power_loss_at_every_call_loses_nothing_flushed() {
    let steps = step_count();
    assert!(steps > 60, "{steps}");
    for step in 1..=steps {
        let mut harness = Harness::new(SimDisk::new(step));
        harness.disk.cut_power_at(step);
        run_until_stopped(&mut harness);
        for policy in policies(step) {
            let disk = harness.disk.crash(policy);
            let mut next = Harness::new(disk);
            next.model = harness.model.clone();
            let flushed = next.model.flushed;
            next.open(flushed).unwrap_or_else(|_| panic!("step {step}, {policy:?}"));
            let append = Operation::Append { count: 1, bytes: 9, compression: Compression::None };
            next.apply(&append).unwrap();
            next.apply(&Operation::Flush).unwrap();
            next.apply(&Operation::Crash(CrashPolicy::lose_all())).unwrap();
        }
    }
}

#[test]
fn a_power_loss_at_every_call_of_a_recovery_is_harmless() {
    let steps = step_count();
    // Every few steps of the workload; every step of each recovery.
    for step in (1..=steps).step_by(7) {
        let mut harness = Harness::new(SimDisk::new(step));
        harness.disk.cut_power_at(step);
        run_until_stopped(&mut harness);
        for (first, second) in policies(step).into_iter().zip(policies(step + 1_000)).skip(1) {
            for recovery_step in 1.. {
                let mut next = Harness::new(harness.disk.crash(first));
                next.model = harness.model.clone();
                next.disk.cut_power_at(recovery_step);
                let flushed = next.model.flushed;
                let finished = next.open(flushed).is_ok();
                let flushed = next.model.flushed;
                next.log = None;
                next.disk = next.disk.crash(second);
                next.open(flushed).unwrap_or_else(|_| {
                    panic!("step {step}, {first:?}, then {recovery_step}, {second:?}")
                });
                if finished {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_fault_at_every_call_loses_nothing_and_serves_nothing_that_goes_away() {
    let calls = [
        Call::Open,
        Call::Create,
        Call::List,
        Call::CreateDir,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
        Call::Allocate,
        Call::Write,
        Call::Read,
        Call::Sync,
    ];
    let mut stopped_count = 0;
    for call in calls {
        for error in [FaultError::Io, FaultError::NoSpace] {
            for nth in 1.. {
                let mut harness = Harness::new(SimDisk::new(nth));
                harness.faulty = true;
                harness.disk.inject(Fault { call, nth, error, lasting: false });
                run_until_stopped(&mut harness);
                let hit = harness.disk.call_count(call) >= nth;
                stopped_count += u32::from(harness.log.is_none());
                check_after_fault(harness, &format!("{call:?} {nth} {error:?}"));
                if !hit {
                    break;
                }
            }
        }
    }
    assert!(stopped_count > 0);
}

/// The process dies after a fault; what the next start serves survives a power loss right then.
fn check_after_fault(mut harness: Harness, label: &str) {
    if let Some(log) = harness.log.take() {
        let offsets = log.reader.offsets();
        assert!(offsets.flushed.0 >= harness.model.flushed, "{label}");
        harness.model.flushed = offsets.flushed.0;
    }
    harness.disk = harness.disk.kill();
    let flushed = harness.model.flushed;
    harness.open(flushed).unwrap_or_else(|_| panic!("{label}: no start"));
    let served = harness.model.end();
    harness.log = None;
    harness.disk = harness.disk.crash(CrashPolicy::lose_all());
    harness.open(served).unwrap_or_else(|_| panic!("{label}: no second start"));
}
