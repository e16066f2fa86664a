//! The work of the harness in pieces that several threads take one by one; the first violation ends it.
//!
//! The first entries of all segments come first, so that a broker that is wrong everywhere is seen soon.

use std::{
    ops::{AddAssign, Range},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use super::{HEADER_BLOCK, every_bit, every_sector, fixture::Fixture, many_faults};
use crate::harness::{Size, Violation};

/// Threads that work.
const THREADS: usize = 2;
/// Bytes of a file in one piece.
const PIECE_BYTES: u64 = 1024;
/// Images with several faults in one piece.
const PIECE_IMAGES: u64 = 20;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) flips: u64,
    pub(super) sectors: u64,
    pub(super) images: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.flips += other.flips;
        self.sectors += other.sectors;
        self.images += other.images;
    }
}

/// One piece.
#[derive(Clone)]
enum Piece<'a> {
    /// Bits of a part of a file.
    Bits(&'a Fixture, &'a str, Range<u64>),
    /// Sectors of a file that is so long.
    Sectors(&'a Fixture, &'a str, u64),
    /// Images with several faults, by their seeds.
    Images(&'a Fixture, Range<u64>),
}

impl Piece<'_> {
    fn run(self) -> Result<Count, Violation> {
        let mut count = Count::default();
        match self {
            Piece::Bits(fixture, name, part) => count.flips = every_bit(fixture, name, part)?,
            Piece::Sectors(fixture, name, used) => {
                count.sectors = every_sector(fixture, name, used)?;
            }
            Piece::Images(fixture, seeds) => {
                count.images = seeds.end - seeds.start;
                seeds.into_iter().try_for_each(|seed| many_faults(fixture, seed))?;
            }
        }
        Ok(count)
    }
}

/// All of it.
pub(super) struct Work<'a> {
    fixtures: &'a [Fixture],
    /// Pieces that are the same in every run.
    pieces: Vec<Piece<'a>>,
    /// Seeds of the images that follow them.
    seeds: Range<u64>,
    /// No further images are begun after this.
    ends: Option<Instant>,
    /// Number of the next piece.
    next: AtomicU64,
    /// A violation was found.
    stop: AtomicBool,
}

impl<'a> Work<'a> {
    pub(super) fn of(fixtures: &'a [Fixture], size: &Size) -> Work<'a> {
        let mut pieces = Vec::new();
        let files = fixtures.iter().flat_map(|fixture| {
            fixture.files.iter().map(move |(name, used)| (fixture, name.as_str(), *used))
        });
        for (fixture, name, used) in files {
            let starts = (0..used).step_by(usize::try_from(PIECE_BYTES).unwrap_or(1));
            pieces.extend(starts.map(|from| {
                (from, Piece::Bits(fixture, name, from..used.min(from + PIECE_BYTES)))
            }));
            pieces.push((u64::MAX, Piece::Sectors(fixture, name, used)));
        }
        if size.count.is_some() {
            pieces.clear();
        }
        pieces.sort_by_key(|(from, _)| from.abs_diff(HEADER_BLOCK));
        Work {
            fixtures,
            pieces: pieces.into_iter().map(|(_, piece)| piece).collect(),
            seeds: size.seed..size.seed.saturating_add(size.rounds(500, 2_000)),
            ends: size.time.map(|time| Instant::now() + time),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Does it; what was done, or what was found.
    pub(super) fn run(&self) -> Result<Count, Violation> {
        let mut all = Count::default();
        let threads = std::thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| scope.spawn(|| self.take_pieces()));
            threads.map(|thread| thread.join().expect("what can panic is caught"))
        });
        for count in threads {
            all += count?;
        }
        Ok(all)
    }

    fn take_pieces(&self) -> Result<Count, Violation> {
        let mut all = Count::default();
        while !self.stop.load(Ordering::Relaxed)
            && let Some(piece) = self.piece(self.next.fetch_add(1, Ordering::Relaxed))
        {
            let done = piece.run();
            self.stop.fetch_or(done.is_err(), Ordering::Relaxed);
            all += done?;
        }
        Ok(all)
    }

    /// The piece of this number: those of the files first, then images, of each log in turn.
    fn piece(&self, number: u64) -> Option<Piece<'a>> {
        let fixed = self.pieces.len() as u64;
        if number < fixed {
            return self.pieces.get(usize::try_from(number).unwrap_or(usize::MAX)).cloned();
        }
        let (number, logs) = (number - fixed, self.fixtures.len() as u64);
        let fixture = &self.fixtures[usize::try_from(number % logs).unwrap_or(0)];
        let from = self.seeds.start.saturating_add(number / logs * PIECE_IMAGES);
        let seeds = from..self.seeds.end.min(from.saturating_add(PIECE_IMAGES));
        let is_over = self.ends.is_some_and(|ends| Instant::now() > ends);
        (!seeds.is_empty() && !is_over).then_some(Piece::Images(fixture, seeds))
    }
}
