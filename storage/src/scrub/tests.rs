use std::{fmt, io, path::Path, time::Duration};

use parking_lot::Mutex;

use super::*;
use crate::{
    CompactionOptions, Log, OpenedLog, Timestamp,
    disk::{
        DirEntry, Disk,
        sim::{Call, Fault, FaultError, SimDisk},
    },
    format::ENTRY_BYTES,
    log::tests::fill,
    recycle::{RecycleLimits, RecyclePool},
    testing::{DIR, open, options},
};

/// Bytes of one step in most tests: a fraction of a segment.
const STEP: u64 = 3_000;

/// A log of many sealed segments, all of it flushed.
fn filled(disk: &SimDisk) -> OpenedLog {
    let mut log = open(disk);
    fill(&mut log, 150);
    log.flusher.flush().unwrap();
    assert!(log.reader.segment_count() > 4);
    log
}

/// Takes steps until the pass is over. What was found, and the bytes read.
fn finish(scrubber: &mut LogScrubber) -> (Vec<ReadError>, u64) {
    let (mut found, mut bytes) = (Vec::new(), 0);
    loop {
        let step = scrubber.step(STEP);
        found.extend(step.found);
        bytes += step.bytes;
        if step.is_complete {
            return (found, bytes);
        }
    }
}

fn scrub(log: &OpenedLog) -> Vec<ReadError> {
    finish(&mut log.reader.scrubber()).0
}

/// The damage that is all that was found.
#[track_caller]
fn only_damage(found: &[ReadError]) -> Damage {
    match found {
        [ReadError::Corrupt(damage)] => damage.clone(),
        other => panic!("not one damage: {other:?}"),
    }
}

/// The sealed segment with this number.
fn sealed(log: &OpenedLog, number: usize) -> Arc<Segment> {
    log.reader.scrubber().shared.segments.read()[number].clone()
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_while_nobody_reads_and_named_as_a_read_names_it() {
    for within in [4, 20, ENTRY_BYTES as u64 + 30, ENTRY_BYTES as u64 + 200] {
        let disk = SimDisk::new(1);
        let log = filled(&disk);
        assert!(scrub(&log).is_empty());
        let segment = sealed(&log, 2);
        let (first, stride) = entries_of(&log, &segment);
        let offset = Offset(segment.base.0 + 4);
        let pos = first + 2 * stride;
        disk.flip_bit(&segment.path, pos + within, 3);
        let damage = only_damage(&scrub(&log));
        assert_eq!((damage.pos, &damage.path), (pos, &segment.path), "{within}");
        assert_eq!(damage.offsets, offset..Offset(offset.0 + 2), "{within}");
        match log.reader.read(offset, Offset(offset.0 + 2), 100) {
            Err(ReadError::Corrupt(read)) => assert_eq!(read, damage, "{within}"),
            other => panic!("{within}: {other:?}"),
        }
        log.reader.read(damage.offsets.end, log.reader.offsets().log_end, 100).unwrap();
    }
}

/// Where the first entry of a segment that [`fill`] made begins, and how far the next one is.
fn entries_of(log: &OpenedLog, segment: &Segment) -> (u64, u64) {
    let shared = log.reader.scrubber().shared;
    let file = shared.disk.open(&segment.path, OpenMode::Read).unwrap();
    let mut reader = ChunkReader::new(file.as_ref(), segment.end_pos());
    let pos = HEADER_BLOCK_BYTES as u64;
    let (header, _) = reader.entry_at(pos, segment.salt).unwrap().unwrap();
    (pos, header.stride())
}

#[test]
fn a_damaged_header_block_and_a_damaged_seal_are_found_although_readers_do_without() {
    let disk = SimDisk::new(1);
    let log = filled(&disk);
    let (first, second) = (sealed(&log, 0), sealed(&log, 1));
    disk.flip_bit(&first.path, 60, 0);
    disk.flip_bit(&second.path, second.end_pos() - 20, 0);
    let found = scrub(&log);
    let [ReadError::Corrupt(header), ReadError::Corrupt(seal)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((header.pos, header.reason), (0, DamageReason::SegmentHeader));
    assert_eq!(header.offsets, first.base..first.end_offset());
    assert_eq!(seal.path, second.path);
    assert!(seal.pos >= second.end_pos() - 200, "{seal:?}");
    assert_eq!(crate::testing::read_all(&log.reader).len(), 300);
}

#[test]
fn all_damage_is_found_in_one_pass_and_again_in_the_next() {
    let disk = SimDisk::new(1);
    let log = filled(&disk);
    for number in 0..3 {
        let segment = sealed(&log, number);
        let (first, stride) = entries_of(&log, &segment);
        disk.flip_bit(&segment.path, first + 10, 0);
        disk.flip_bit(&segment.path, first + 3 * stride + 150, 0);
    }
    let mut scrubber = log.reader.scrubber();
    for pass in 0..2 {
        let found = finish(&mut scrubber).0;
        assert_eq!(found.len(), 6, "{pass}: {found:?}");
    }
}

#[test]
fn a_segment_that_was_cut_or_removed_is_found() {
    let disk = SimDisk::new(1);
    let log = filled(&disk);
    let (cut, gone) = (sealed(&log, 0), sealed(&log, 1));
    disk.open(&cut.path, OpenMode::Write).unwrap().set_len(cut.end_pos() / 2).unwrap();
    disk.remove_file(&gone.path).unwrap();
    let found = scrub(&log);
    let [ReadError::Corrupt(damage), ReadError::Io(failure)] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(matches!(damage.reason, DamageReason::CutOff { .. }), "{damage:?}");
    assert_eq!(failure.path, gone.path);
}

#[test]
fn a_sector_that_cannot_be_read_is_told_and_the_other_segments_are_looked_at() {
    let disk = SimDisk::new(1);
    let log = filled(&disk);
    let last = sealed(&log, log.reader.segment_count() - 2);
    let (first, _) = entries_of(&log, &last);
    disk.flip_bit(&last.path, first + 10, 0);
    let mut scrubber = log.reader.scrubber();
    scrubber.step(1);
    disk.inject(Fault { call: Call::Read, nth: 1, error: FaultError::Io, lasting: false });
    let (found, _) = finish(&mut scrubber);
    let [ReadError::Io(failure), ReadError::Corrupt(damage)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (failure.path.as_path(), &damage.path),
        (sealed(&log, 0).path.as_path(), &last.path)
    );
}

#[test]
fn a_pass_reads_every_sealed_byte_in_pieces_that_are_bounded() {
    let disk = SimDisk::new(1);
    let log = filled(&disk);
    let segments = log.reader.scrubber().shared.segments.read().clone();
    let (_, sealed) = segments.split_last().unwrap();
    let sealed: u64 = sealed.iter().map(|segment| segment.end_pos()).sum();
    let mut scrubber = log.reader.scrubber();
    assert!(scrubber.has_more());
    let mut read = 0;
    loop {
        let step = scrubber.step(STEP);
        // Small segments are read ahead as a whole.
        assert!(step.bytes < STEP + u64::from(options().segment_bytes_max) + 4096, "{step:?}");
        read += step.bytes;
        if step.is_complete {
            break;
        }
    }
    assert!(read >= sealed, "{read} of {sealed}");
}

#[test]
fn a_log_without_sealed_segments_has_nothing_to_look_at() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 2);
    let reads = disk.call_count(Call::Read);
    let mut scrubber = log.reader.scrubber();
    assert!(!scrubber.has_more());
    assert!(scrubber.step(STEP).is_complete);
    assert_eq!(disk.call_count(Call::Read), reads);
}

#[test]
fn damage_of_records_that_were_dropped_is_not_told() {
    let disk = SimDisk::new(1);
    let mut log = filled(&disk);
    let segment = sealed(&log, 0);
    let (first, stride) = entries_of(&log, &segment);
    disk.flip_bit(&segment.path, first + 150, 0);
    disk.flip_bit(&segment.path, first + 4 * stride + 150, 0);
    log.writer.drop_before(Offset(4)).unwrap();
    assert_eq!(only_damage(&scrub(&log)).offsets, Offset(8)..Offset(10));
}

/// Later than every append.
const LATE: Timestamp = Timestamp(100_000);

/// What may happen to segments while they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// Retention drops about half of the log, and its files are written again.
    Retention,
    /// Compaction writes segments anew.
    Compaction,
}

impl Meanwhile {
    fn happen(self, log: &mut OpenedLog) {
        match self {
            Meanwhile::Retention => {
                let end = log.reader.offsets().log_end;
                log.writer.drop_before(Offset(end.0 / 2)).unwrap();
                fill(log, 60);
                log.flusher.flush().unwrap();
            }
            Meanwhile::Compaction => {
                let options = CompactionOptions {
                    map_bytes_max: 1 << 20,
                    lag: Duration::ZERO,
                    tombstone_retention: Duration::ZERO,
                    producer_age_max: Duration::ZERO,
                    dirty_percent_min: 0,
                };
                let done = log.writer.compactor().compact(LATE, &options).unwrap();
                assert!(done.segment_count > 0, "{done:?}");
            }
        }
    }
}

/// A log of sealed segments in which every key is written over and over, with files that are used again.
fn keyed(disk: Arc<dyn Disk>) -> OpenedLog {
    let mut log = Log::open(disk.clone(), DIR, options(), Timestamp(1_000)).unwrap();
    let pool =
        RecyclePool::open(disk, RecycleLimits { file_bytes_min: 0, ..Default::default() }).unwrap();
    log.writer.recycle_through(Arc::new(pool));
    for number in 0..150 {
        let key = format!("key {}", number % 7);
        let value = vec![b'v'; 300];
        log.writer.append(&keyed_batch(&key, &value), Timestamp(10_000)).unwrap();
    }
    log.flusher.flush().unwrap();
    log
}

fn keyed_batch(key: &str, value: &[u8]) -> riverrun_proto::RecordBatch {
    use riverrun_proto::batch::{BatchBuilder, BuilderOptions, Compression};
    let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
    builder.push_parts(10_000, Some(key.as_bytes()), Some(value), &[]).unwrap();
    builder.build().unwrap()
}

#[test]
fn what_retention_removes_or_compaction_replaces_between_two_steps_is_no_damage() {
    for meanwhile in [Meanwhile::Retention, Meanwhile::Compaction] {
        for steps in 0..20 {
            let mut log = keyed(Arc::new(SimDisk::new(1)));
            let mut scrubber = log.reader.scrubber();
            for _ in 0..steps {
                assert_eq!(scrubber.step(STEP).found.len(), 0);
            }
            meanwhile.happen(&mut log);
            let (found, _) = finish(&mut scrubber);
            assert!(found.is_empty(), "{meanwhile:?} after {steps} steps: {found:?}");
        }
    }
}

#[test]
fn what_goes_while_its_file_is_being_opened_is_no_damage() {
    for meanwhile in [Meanwhile::Retention, Meanwhile::Compaction] {
        for before in 0..4 {
            let disk = Arc::new(Meddled::default());
            let log = Arc::new(Mutex::new(keyed(disk.clone())));
            let mut scrubber = log.lock().reader.scrubber();
            let happen = log.clone();
            *disk.hook.lock() =
                Some((before, Box::new(move || meanwhile.happen(&mut happen.lock()))));
            let (found, _) = finish(&mut scrubber);
            assert!(disk.hook.lock().is_none(), "it happened");
            assert!(found.is_empty(), "{meanwhile:?} at {before}: {found:?}");
        }
    }
}

/// What a [`Meddled`] disk lets happen, after so many other opens.
type Hook = (usize, Box<dyn FnOnce() + Send>);

/// A disk on which something happens between the choice of a segment and the opening of its file.
struct Meddled {
    disk: SimDisk,
    hook: Mutex<Option<Hook>>,
}

impl Default for Meddled {
    fn default() -> Meddled {
        Meddled { disk: SimDisk::new(1), hook: Mutex::default() }
    }
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddled").finish_non_exhaustive()
    }
}

impl Disk for Meddled {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::ReadUncached {
            let due = {
                let mut hook = self.hook.lock();
                if let Some((left, _)) = hook.as_mut().filter(|(left, _)| *left > 0) {
                    *left -= 1;
                    None
                } else {
                    hook.take()
                }
            };
            if let Some((_, happen)) = due {
                happen();
            }
        }
        self.disk.open(path, mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}
