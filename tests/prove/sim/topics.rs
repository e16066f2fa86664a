//! The power is cut at every change of the disk while a broker starts for the first time, makes a topic, and removes one with records.
//!
//! A topic that was made is there; one that was removed is gone, and one made under its name has none of its records. Without an answer
//! it is one or the other, whole. Afterwards records go in and come out.

use riverrun_broker::topic::error::TopicError;

use super::{
    images::{Tried, each_image},
    model::Broken,
    run::{Run, create_topic, delete_topic},
    step::{Net, Step},
    world::World,
};
use riverrun_storage::disk::sim::SimDisk;

/// Cuts the power in both, over a disk that keeps what is in doubt and over one that has written it back.
pub(super) fn try_all(tried: &mut Tried) -> Result<(), Broken> {
    let told = |what: &str, nth: u64, broken: Broken| {
        format!("{broken}\n  while a topic was {what}, power cut at {nth}")
    };
    for written_back in [false, true] {
        let mut nth = 1;
        while cut_making(nth, written_back, tried).map_err(|broken| told("made", nth, broken))? {
            nth += 1;
        }
        nth = 1;
        while cut_removing(nth, written_back, tried)
            .map_err(|broken| told("removed", nth, broken))?
        {
            nth += 1;
        }
    }
    Ok(())
}

/// Cuts the power at the `nth` change of a first start and of the making of a topic, or, where the start is `written_back`, of the latter
/// alone; false when both are over before.
fn cut_making(nth: u64, written_back: bool, tried: &mut Tried) -> Result<bool, Broken> {
    let disk = World::empty_disk(1)?;
    if !written_back {
        disk.cut_power_at(nth);
    }
    let made = match World::on(disk.clone()) {
        Ok(mut world) => {
            if written_back {
                disk.write_back();
                disk.cut_power_at(nth);
            }
            answer(&disk, create_topic(&mut world))?
        }
        Err(_) if is_dead(&disk) => false,
        Err(broken) => return Err(broken),
    };
    if !is_dead(&disk) {
        return Ok(false);
    }
    each_image(&disk, nth, tried, |disk| {
        let mut world = started(disk)?;
        match create_topic(&mut world)? {
            Ok(()) if made => Err("vanish: the topic was made and is not there".into()),
            Ok(()) | Err(TopicError::Exists { .. }) => is_of_use(Run::over(world, 1)?),
            Err(error) => Err(format!("refused: {error}")),
        }
    })?;
    Ok(true)
}

/// Cuts the power at the `nth` change while a topic with records is removed; false when that is over before.
fn cut_removing(nth: u64, written_back: bool, tried: &mut Tried) -> Result<bool, Broken> {
    let mut run = Run::new(1)?;
    take(&mut run)?;
    let disk = run.world.disk.clone();
    if written_back {
        disk.write_back();
    }
    disk.cut_power_at(nth);
    let removed = answer(&disk, delete_topic(&mut run.world))?;
    if !is_dead(&disk) {
        return Ok(false);
    }
    each_image(&disk, nth, tried, |disk| {
        let mut world = started(disk.clone())?;
        match create_topic(&mut world)? {
            // No record of the one before is in it.
            Ok(()) => is_of_use(Run::over(world, 1)?),
            Err(TopicError::Exists { .. }) if removed => {
                Err("resurrect: the topic was removed and is there".into())
            }
            Err(TopicError::Exists { .. }) => {
                drop(world);
                run.begin_on(disk.kill()).and_then(Run::finish_reading).map(drop)
            }
            Err(error) => Err(format!("refused: {error}")),
        }
    })?;
    Ok(true)
}

/// A machine over `disk` of which every partition started.
fn started(disk: SimDisk) -> Result<World, Broken> {
    let world = World::on(disk)?;
    world.is_whole()?;
    Ok(world)
}

/// Whether a change was confirmed. What fails without power says nothing.
fn answer(disk: &SimDisk, answer: Result<Result<(), TopicError>, Broken>) -> Result<bool, Broken> {
    match answer {
        Ok(Ok(())) => Ok(true),
        Ok(Err(_)) | Err(_) if is_dead(disk) => Ok(false),
        Ok(Err(error)) => Err(format!("refused: {error}")),
        Err(broken) => Err(broken),
    }
}

fn is_dead(disk: &SimDisk) -> bool {
    use riverrun_storage::disk::Disk;
    disk.free_bytes().is_err()
}

/// Records go in, and nothing else comes out.
fn is_of_use(mut run: Run) -> Result<(), Broken> {
    take(&mut run)?;
    run.finish_reading().map(drop)
}

fn take(run: &mut Run) -> Result<(), Broken> {
    let send = |partition| Step::Produce {
        producer: 0,
        partition,
        records: 2,
        bytes: 40,
        net: Net::Whole,
    };
    let steps = [send(0), send(1), Step::Turn(0), Step::Turn(1), Step::Flush, Step::Flush];
    steps.into_iter().try_for_each(|step| run.step_alive(step))
}
