//! Short workloads, the power cut at every change of the disk, and every image that the disk can then be left with.
//!
//! Each workload is taken twice. Once as it comes: so much is then in doubt at a cut that only some subsets of it can be tried. Once over a
//! disk that has written everything back before each step, as a kernel may: what is in doubt then is what that step changed, and every subset
//! of it is tried.

use riverrun_storage::disk::sim::{CrashPolicy, NameOrder, SimDisk, Survival};

use super::{
    model::Broken,
    random::Random,
    run::Run,
    step::{Net, Step},
    topics,
};

/// Up to so many units every subset is tried.
const UNITS_MAX: u64 = 8;
/// Subsets tried of more units.
const SAMPLES: u64 = 64;

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    /// Places at which the power was cut.
    pub(super) cuts: u64,
    /// Of these, how many had every subset tried.
    pub(super) whole: u64,
    /// Disks opened and read.
    pub(super) images: u64,
}

/// Tries all workloads.
pub(super) fn try_all() -> Result<Tried, Broken> {
    let mut tried = Tried::default();
    for (index, steps) in workloads().iter().enumerate() {
        for written_back in [false, true] {
            let mut nth = 1;
            while cut_at(steps, nth, written_back, &mut tried).map_err(|broken| {
                let what = format!("workload {index}, power cut at {nth}");
                format!("{broken}\n  in {what}, written back before each step: {written_back}")
            })? {
                nth += 1;
            }
        }
    }
    topics::try_all(&mut tried)?;
    Ok(tried)
}

/// Cuts the power at the `nth` change; false when the workload is over before.
fn cut_at(steps: &[Step], nth: u64, written_back: bool, tried: &mut Tried) -> Result<bool, Broken> {
    let mut run = Run::new(1)?;
    run.world.disk.cut_power_at(nth);
    for step in steps {
        if run.world.is_dead() {
            break;
        }
        if written_back {
            run.world.disk.write_back();
        }
        run.step_alive(*step)?;
    }
    if !run.world.is_dead() {
        return Ok(false);
    }
    each_image(&run.world.disk, nth, tried, |disk| {
        run.begin_on(disk).and_then(Run::finish_reading).map(drop)
    })?;
    Ok(true)
}

/// Looks at what a disk without power can be left with: at every subset of what is in doubt, or at some of them.
pub(super) fn each_image(
    dead: &SimDisk,
    nth: u64,
    tried: &mut Tried,
    look: impl Fn(SimDisk) -> Result<(), Broken>,
) -> Result<(), Broken> {
    tried.cuts += 1;
    let (sectors, names) = dead.dirty_units();
    tried.whole += u64::from(sectors + names <= UNITS_MAX);
    for policy in policies(sectors, names, nth) {
        look(dead.crash(policy)).map_err(|broken| format!("{broken}\n  with {policy:?}"))?;
        tried.images += 1;
    }
    Ok(())
}

/// What can be left of so many units: each subset, or some of them.
fn policies(sectors: u64, names: u64, nth: u64) -> Vec<CrashPolicy> {
    if sectors + names <= UNITS_MAX {
        let chosen = |mask: u64| CrashPolicy {
            sectors: Survival::Chosen(mask & ((1 << sectors) - 1)),
            names: Survival::Chosen(mask >> sectors),
            name_order: NameOrder::Any,
        };
        return (0..1 << (sectors + names)).map(chosen).collect();
    }
    let mut random = Random::new(nth);
    let mut all = vec![CrashPolicy::lose_all(), CrashPolicy::keep_all()];
    all.extend((2..SAMPLES).map(|_| CrashPolicy::weak(random.next())));
    all
}

fn workloads() -> Vec<Vec<Step>> {
    let send = |records, bytes| Step::Produce {
        producer: 0,
        partition: 0,
        records,
        bytes,
        net: Net::Whole,
    };
    let (turn, flush) = ([Step::Turn(0), Step::Turn(1)], Step::Flush);
    let one = |records, bytes| vec![send(records, bytes), turn[0], turn[1], flush, flush];
    let commit = [Step::Fetch { partition: 0, again: false }, Step::Commit { partition: 0 }];
    vec![
        one(1, 20),
        [one(2, 5_000), one(1, 20)].concat(),
        [one(1, 20), commit.to_vec(), vec![turn[0], turn[1], flush, flush, flush]].concat(),
        vec![send(1, 20), send(3, 9_000), send(1, 20), turn[0], turn[1], flush, flush],
        // The segment is full with the last one.
        vec![
            send(1, 300_000),
            send(1, 300_000),
            send(1, 300_000),
            Step::Prepare,
            turn[0],
            turn[1],
            flush,
            send(1, 300_000),
            turn[0],
            turn[1],
            flush,
            flush,
        ],
    ]
}
