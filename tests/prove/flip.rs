//! FLIP: bits that changed, sectors that went, swapped or were cut off: every file of a log gives the right bytes, or the log
//! says by name what is damaged, and below the durable mark it refuses writes and cuts nothing.
//!
//! A flipped bit in every byte of every file (all eight bits of headers and of the small files), zeroed and swapped
//! sectors, cut files, and images with several faults. Each image is opened, read record by record, written to and opened
//! again. With `--count` nothing is done but so many images with several faults, from the seed on.

mod fixture;
mod house;
mod judge;
mod panics;
mod work;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use riverrun_storage::disk::{
    Disk, OpenMode,
    sim::{CrashPolicy, SimDisk},
};
use riverrun_tests::random::Random;

use self::{
    fixture::{DIR, Fixture},
    work::{Count, Work},
};
use crate::harness::{Size, Verdict, Violation};

/// Bytes of a segment in which every bit is flipped: the header block's fields and the first entry's header.
const HEADER_BYTES: u64 = 160;
const HEADER_BLOCK: u64 = 4096;
/// A file that is not a segment has every bit of this many bytes flipped.
const SMALL_FILE_BYTES: u64 = 1024;

/// One damage.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64, u8),
    Zero(u64),
    Swap(u64, u64),
    Cut(u64),
}

pub(crate) fn run(size: &Size) -> Verdict {
    match all(size) {
        Ok(figures) => Verdict::Green(figures),
        Err(violation) => Verdict::Violation(violation),
    }
}

fn all(size: &Size) -> Result<String, Violation> {
    let fixtures = [true, false].map(fixture::build);
    let done = panics::kept(|| {
        let count = Work::of(&fixtures, size).run()?;
        Ok((count, house::every_byte(size)?))
    });
    let (count, house) = done?;
    let Count { flips, sectors, images } = count;
    Ok(format!(
        "{flips} flipped bits, {sectors} lost, swapped or cut sectors, {images} images with several faults, {house} starts of a \
         broker over damaged state: 0 wrong bytes, 0 records passed over"
    ))
}

/// Flips a bit in every byte of a part of a file, and every bit where the format says what follows.
fn every_bit(fixture: &Fixture, name: &str, part: Range<u64>) -> Result<u64, Violation> {
    let mut count = 0;
    let segment = name.ends_with(".log");
    for pos in part {
        // The block of a segment's header is zeros behind its fields.
        let header = if segment {
            pos % HEADER_BLOCK < HEADER_BYTES && pos < 2 * HEADER_BLOCK
        } else {
            pos < SMALL_FILE_BYTES
        };
        let bits = if header { 0..8 } else { (pos % 8)..(pos % 8 + 1) };
        for bit in bits {
            let bit = u8::try_from(bit).unwrap_or(0);
            one(fixture, name, Damage::Flip(pos, bit))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Zeroes, swaps and cuts at every sector of a file.
fn every_sector(fixture: &Fixture, name: &str, used: u64) -> Result<u64, Violation> {
    let mut count = 0;
    for pos in (0..used).step_by(512) {
        let last = (used - 1) / 512 * 512;
        for damage in [
            Damage::Zero(pos),
            Damage::Swap(pos, pos / 2),
            Damage::Swap(pos, last),
            Damage::Cut(pos),
        ] {
            // A file that someone cut is more than one place; so is a swap.
            several(fixture, &[(name.to_owned(), damage)], String::new())?;
            count += 1;
        }
    }
    Ok(count)
}

/// An image with two to five faults.
fn many_faults(fixture: &Fixture, seed: u64) -> Result<(), Violation> {
    let mut random = Random::new(seed);
    let faults: Vec<(String, Damage)> = (0..2 + random.below(4))
        .map(|_| {
            let (name, used) = &fixture.files
                [usize::try_from(random.below(fixture.files.len() as u64)).unwrap_or(0)];
            let used = (*used).max(1);
            let pos = random.below(used);
            let damage = match random.below(5) {
                0 | 1 => Damage::Flip(pos, u8::try_from(random.below(8)).unwrap_or(0)),
                2 => Damage::Zero(pos),
                3 => Damage::Swap(pos, random.below(used)),
                _ => Damage::Cut(pos),
            };
            (name.clone(), damage)
        })
        .collect();
    several(fixture, &faults, format!("--seed {seed} --count 1"))
}

/// One damaged bit.
fn one(fixture: &Fixture, name: &str, damage: Damage) -> Result<(), Violation> {
    let told = check(fixture, &[(name.to_owned(), damage)], true);
    told.map_err(|what| Violation { what, again: String::new() })
}

fn several(fixture: &Fixture, faults: &[(String, Damage)], again: String) -> Result<(), Violation> {
    check(fixture, faults, false).map_err(|what| Violation { what, again })
}

fn check(fixture: &Fixture, faults: &[(String, Damage)], one: bool) -> Result<(), String> {
    let disk = fixture.disk.crash(CrashPolicy::keep_all());
    for (name, damage) in faults {
        apply(&disk, &Path::new(DIR).join(name), *damage);
    }
    let unmarked = !one && faults.iter().any(|(name, _)| name.starts_with("mark"));
    let judged = catch_unwind(AssertUnwindSafe(|| judge::judge(fixture, &disk, (one, unmarked))));
    let said = match judged {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(said)) => said,
        Err(_) => panics::newest(),
    };
    let log = if fixture.clean { "closed" } else { "killed" };
    Err(format!("{log} log, {faults:?}: {said}"))
}

/// Does the damage, as far as the file reaches.
fn apply(disk: &SimDisk, path: &Path, damage: Damage) {
    let len = disk.open(path, OpenMode::Read).map_or(0, |file| file.len());
    match damage {
        Damage::Flip(pos, bit) if pos < len => disk.flip_bit(path, pos, bit),
        Damage::Zero(pos) if pos < len => disk.zero_sector(path, pos),
        Damage::Swap(a, b) if a.max(b) < len => disk.swap_sectors(path, a, b),
        Damage::Cut(pos) if pos < len => {
            let cut = disk.open(path, OpenMode::Write).and_then(|file| file.set_len(pos));
            cut.expect("nobody has it open");
        }
        Damage::Flip(..) | Damage::Zero(_) | Damage::Swap(..) | Damage::Cut(_) => {}
    }
}
