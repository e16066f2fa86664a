//! The state file: log start and epoch history, replaced atomically.
//!
//! ```text
//! 0 magic u64 | 8 version u32 | 12 crc u32 (over the rest) | 16 log start u64 | 24 count u32 | 28 zero u32
//! 32 epochs {epoch u32, zero u32, first offset u64}
//! ```
//!
//! Replacing it: write a temporary file, sync it, rename it over the old one, sync the directory.
//! It exists from the creation of a log on. A log with records and without it is damaged.

use std::path::Path;

use riverrun_proto::{LeaderEpoch, Offset};

use crate::{
    IoFailure, Timestamp,
    disk::{Disk, OpenMode},
    failpoint::{Place, passes},
    fixed::{crc32, put, u32_at, u64_at},
    paths,
};

/// First eight bytes.
const MAGIC: &[u8; 8] = b"RIVERSTA";
/// Layout of the file.
const VERSION: u32 = 1;
/// Bytes before the epochs.
const HEAD_BYTES: usize = 32;
/// Bytes of one epoch.
const EPOCH_BYTES: usize = 16;
/// Epochs remembered; past it the oldest are forgotten.
const EPOCH_COUNT_MAX: usize = 4096;

/// 2026-01-01 00:00 UTC, in milliseconds since 1970.
const EPOCH_ZERO_MS: i64 = 1_767_225_600_000;
/// Highest epoch that a clock gives, reached in 2060: a clock that runs far ahead leaves as many for counting.
const TIMED_EPOCH_MAX: u32 = 1 << 30;

/// Whether counting can have come to `epoch`: from the highest that a clock gives it would take a billion unclean starts. What carries a
/// higher one was not written here.
pub(crate) const fn is_reachable(epoch: LeaderEpoch) -> bool {
    epoch.0 < i32::MAX as u32
}

/// Whether a start can begin an epoch after `epoch`, which is one of ours.
pub(crate) const fn has_next(epoch: LeaderEpoch) -> bool {
    is_reachable(LeaderEpoch(epoch.0.saturating_add(1)))
}

/// The first offset of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochStart {
    /// The epoch.
    pub(crate) epoch: LeaderEpoch,
    /// First offset appended in it.
    pub(crate) start: Offset,
}

/// What a log remembers beside its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogState {
    /// First offset kept.
    pub(crate) log_start: Offset,
    /// Rising in epoch and start; never empty.
    epochs: Vec<EpochStart>,
}

impl LogState {
    /// State of a log that begins at `log_start` with `epoch`.
    pub(crate) fn new(log_start: Offset, epoch: LeaderEpoch) -> LogState {
        LogState { log_start, epochs: vec![EpochStart { epoch, start: log_start }] }
    }

    /// What it proves durable: the log start, and where the newest epoch began. A start begins one where the log ended durably.
    pub(crate) fn proves_durable(&self) -> Offset {
        self.epochs.last().expect("never empty").start.max(self.log_start)
    }

    /// The newest epoch.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.epochs.last().expect("never empty").epoch
    }

    /// Begins `epoch` at `start`. An epoch that would hold no records is forgotten.
    pub(crate) fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        assert!(epoch > self.epoch(), "epoch `{}` after `{}`", epoch.0, self.epoch().0);
        self.epochs.retain(|known| known.start < start);
        self.epochs.push(EpochStart { epoch, start });
        let excess = self.epochs.len().saturating_sub(EPOCH_COUNT_MAX);
        self.epochs.drain(..excess);
    }

    /// Moves the log start and forgets epochs that ended before it.
    pub(crate) fn set_log_start(&mut self, log_start: Offset) {
        self.log_start = log_start;
        let first = self.epochs.partition_point(|known| known.start <= log_start).max(1) - 1;
        self.epochs.drain(..first);
    }

    /// The newest epoch not after `epoch`, and the first offset past it; `log_end` for the newest.
    /// For an epoch before all that are remembered, the first offset of the oldest.
    pub(crate) fn epoch_end(&self, epoch: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        let after = self.epochs.partition_point(|known| known.epoch <= epoch);
        let end = self.epochs.get(after).map_or(log_end, |next| next.start);
        let known = after.checked_sub(1).map_or(epoch, |last| self.epochs[last].epoch);
        (known, end)
    }

    /// Where the history of a reader parts from this one, when the record before `from` was of `epoch` there: the newest epoch
    /// that both can have, and its end. `None` when nothing says that they part before `from`.
    pub(crate) fn parting(
        &self,
        (from, epoch): (Offset, LeaderEpoch),
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let (known, end) = self.epoch_end(epoch, log_end);
        if from > end {
            return Some((known, end));
        }
        if epoch <= self.epoch() || from <= self.log_start {
            return None;
        }
        // Nothing was appended in that epoch here, so the record before `from` is another one, and so may be all of its epoch.
        let after = self.epochs.partition_point(|known| known.start < from);
        let start = after.checked_sub(1).map_or(self.log_start, |last| self.epochs[last].start);
        let before = after.checked_sub(2).map_or(epoch, |last| self.epochs[last].epoch);
        Some((before, start.max(self.log_start)))
    }

    /// The epoch that `offset` was appended in; before all that are remembered, the oldest.
    pub(crate) fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.remembered_epoch_at(offset).unwrap_or(self.epochs[0].epoch)
    }

    /// The epoch that `offset` was appended in, unless it is forgotten.
    pub(crate) fn remembered_epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.epochs.partition_point(|known| known.start <= offset);
        after.checked_sub(1).map(|last| self.epochs[last].epoch)
    }

    /// True when no epoch goes back before the one in front of it. A checksum that holds does not say so.
    fn rises(&self) -> bool {
        let rises =
            |pair: &[EpochStart]| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start;
        self.epochs.windows(2).all(rises)
    }

    /// The file.
    fn encode(&self) -> Vec<u8> {
        let mut file = vec![0; HEAD_BYTES];
        put(&mut file, 0, MAGIC);
        put(&mut file, 8, &VERSION.to_le_bytes());
        put(&mut file, 16, &self.log_start.0.to_le_bytes());
        let count = u32::try_from(self.epochs.len()).expect("at most `EPOCH_COUNT_MAX`");
        put(&mut file, 24, &count.to_le_bytes());
        for known in &self.epochs {
            let mut epoch = [0; EPOCH_BYTES];
            put(&mut epoch, 0, &known.epoch.0.to_le_bytes());
            put(&mut epoch, 8, &known.start.0.to_le_bytes());
            file.extend_from_slice(&epoch);
        }
        let crc = crc32(&file[16..]);
        put(&mut file, 12, &crc.to_le_bytes());
        file
    }

    /// The state in `file`, or `None` when it is not a valid one.
    fn decode(file: &[u8]) -> Option<LogState> {
        if file.len() < HEAD_BYTES || !file.starts_with(MAGIC) || u32_at(file, 8) != VERSION {
            return None;
        }
        let count = usize::try_from(u32_at(file, 24)).ok()?;
        let file = file.get(..HEAD_BYTES + count.min(EPOCH_COUNT_MAX) * EPOCH_BYTES)?;
        if crc32(&file[16..]) != u32_at(file, 12) || count == 0 || count > EPOCH_COUNT_MAX {
            return None;
        }
        let epochs = file[HEAD_BYTES..].chunks_exact(EPOCH_BYTES).map(|bytes| EpochStart {
            epoch: LeaderEpoch(u32_at(bytes, 0)),
            start: Offset(u64_at(bytes, 8)),
        });
        let state = LogState { log_start: Offset(u64_at(file, 16)), epochs: epochs.collect() };
        let is_ours = state.epochs.iter().all(|known| is_reachable(known.epoch));
        (is_ours && state.rises()).then_some(state)
    }
}

/// The epoch of a start at `now` of a log whose highest epoch was `highest`: the seconds since 2026, or one
/// more than `highest` when that is not less.
///
/// A directory that was put back from a copy knows nothing of what was appended after the copy, so a count
/// alone would give the same epoch to two histories. The time of the start tells them apart, and the later
/// one is the higher.
pub(crate) fn epoch_of_start(highest: LeaderEpoch, now: Timestamp) -> LeaderEpoch {
    let seconds = now.0.saturating_sub(EPOCH_ZERO_MS) / 1_000;
    let timed = u32::try_from(seconds.clamp(0, i64::from(TIMED_EPOCH_MAX))).expect("clamped");
    LeaderEpoch(timed.max(highest.0 + 1))
}

/// What was found in place of the state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredState {
    /// There is none.
    Missing,
    /// There is one and it is not valid.
    Invalid,
    /// A valid one.
    Valid(LogState),
}

/// Reads the state of the log in `dir`.
pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<StoredState, IoFailure> {
    let path = dir.join(paths::STATE);
    let Some(bytes) = read_small(disk, &path)? else { return Ok(StoredState::Missing) };
    Ok(LogState::decode(&bytes).map_or(StoredState::Invalid, StoredState::Valid))
}

/// Makes `state` the state of the log in `dir`; it is durable when this returns.
pub(crate) fn store(disk: &dyn Disk, dir: &Path, state: &LogState) -> Result<(), IoFailure> {
    replace(disk, &dir.join(paths::STATE), &state.encode())?;
    disk.sync_dir(dir).map_err(|error| IoFailure::new("sync", dir, error))
}

/// Largest side file that is read whole.
const SMALL_BYTES_MAX: u64 = 64 << 20;

/// The bytes of a side file; `None` when it does not exist. A larger one than we write reads as empty.
pub(crate) fn read_small(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, IoFailure> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IoFailure::new("open", path, error)),
    };
    let len = if file.len() > SMALL_BYTES_MAX { 0 } else { file.len() };
    let mut bytes = vec![0; usize::try_from(len).expect("a small length")];
    file.read_at(0, &mut bytes).map_err(|error| IoFailure::new("read", path, error))?;
    Ok(Some(bytes))
}

/// Replaces the file at `path` by `bytes` in one step. The caller syncs the directory.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), IoFailure> {
    let temporary = path.with_file_name(temporary_name(path));
    write_new(disk, &temporary, bytes, true)?;
    passes(Place::BeforeReplace);
    disk.rename(&temporary, path).map_err(|error| IoFailure::new("rename", &temporary, error))?;
    passes(Place::AfterReplace);
    Ok(())
}

/// Writes `bytes` to a new file at `path`, in place of one that an interrupted step left there.
pub(crate) fn write_new(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    sync: bool,
) -> Result<(), IoFailure> {
    remove_if_present(disk, path)?;
    let at = |op| move |error| IoFailure::new(op, path, error);
    let file = disk.open(path, OpenMode::CreateNew).map_err(at("create"))?;
    file.allocate(bytes.len() as u64).map_err(at("allocate"))?;
    file.write_at(0, &[bytes]).map_err(at("write"))?;
    if sync {
        file.sync().map_err(at("sync"))?;
    }
    Ok(())
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_present(disk: &dyn Disk, path: &Path) -> Result<(), IoFailure> {
    match disk.remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(IoFailure::new("remove", path, error)),
    }
}

/// `<name>.tmp`.
fn temporary_name(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    format!("{name}{}", paths::TEMPORARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LogState {
        let mut state = LogState::new(Offset(0), LeaderEpoch(1));
        state.begin_epoch(LeaderEpoch(2), Offset(10));
        state.begin_epoch(LeaderEpoch(5), Offset(30));
        state
    }

    #[test]
    fn files_are_read_back_only_whole() {
        let file = sample().encode();
        assert_eq!(LogState::decode(&file), Some(sample()));
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert_eq!(LogState::decode(&bad), None, "byte {at}");
            assert_eq!(LogState::decode(&file[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn epochs_that_go_back_are_refused_whatever_their_checksum() {
        let at = |epoch, start| EpochStart { epoch: LeaderEpoch(epoch), start: Offset(start) };
        for pair in [[at(2, 0), at(1, 9)], [at(1, 9), at(2, 0)], [at(1, 0), at(1, 9)]] {
            let state = LogState { log_start: Offset(0), epochs: pair.to_vec() };
            assert_eq!(LogState::decode(&state.encode()), None, "{pair:?}");
        }
    }

    #[test]
    fn epoch_ends_are_those_of_the_next_epoch() {
        let (state, end) = (sample(), Offset(40));
        for (epoch, known, until) in [(0, 0, 0), (1, 1, 10), (2, 2, 30), (4, 2, 30), (5, 5, 40)] {
            let expected = (LeaderEpoch(known), Offset(until));
            assert_eq!(state.epoch_end(LeaderEpoch(epoch), end), expected, "epoch {epoch}");
        }
        assert_eq!(state.epoch_at(Offset(9)), LeaderEpoch(1));
        assert_eq!(state.epoch_at(Offset(10)), LeaderEpoch(2));
        assert_eq!(state.remembered_epoch_at(Offset(10)), Some(LeaderEpoch(2)));
        let mut trimmed = sample();
        trimmed.set_log_start(Offset(12));
        assert_eq!(trimmed.epoch_at(Offset(9)), LeaderEpoch(2));
        assert_eq!(trimmed.remembered_epoch_at(Offset(9)), None);
    }

    #[test]
    fn a_reader_from_another_history_is_told_where_it_parts() {
        // Epochs 1 from 0, 2 from 10, 5 from 30; the log ends at 40.
        let (mut state, end) = (sample(), Offset(40));
        let parting = |state: &LogState, from, epoch| {
            let parting = state.parting((Offset(from), LeaderEpoch(epoch)), end);
            parting.map(|(known, end)| (known.0, end.0))
        };
        for (from, epoch) in [(40, 5), (35, 5), (30, 2), (11, 2), (5, 5), (0, 9)] {
            assert_eq!(parting(&state, from, epoch), None, "{from} of epoch {epoch}");
        }
        for (from, epoch, expected) in [
            (41, 5, (5, 40)),
            (31, 2, (2, 30)),
            (31, 4, (2, 30)),
            (11, 1, (1, 10)),
            // An epoch that never was here.
            (41, 9, (5, 40)),
            (40, 9, (2, 30)),
            (31, 9, (2, 30)),
            (30, 9, (1, 10)),
            (10, 9, (9, 0)),
            (1, 9, (9, 0)),
        ] {
            let told = parting(&state, from, epoch);
            assert_eq!(told, Some(expected), "{from} of epoch {epoch}");
            // Whoever goes on there is not told again.
            assert_eq!(parting(&state, expected.1, expected.0), None, "{from} of epoch {epoch}");
        }
        state.set_log_start(Offset(12));
        assert_eq!(parting(&state, 12, 9), None, "nothing is kept before it");
        assert_eq!(parting(&state, 13, 9), Some((9, 12)));
    }

    #[test]
    fn a_start_has_the_epoch_of_its_time_and_never_a_lower_one() {
        let at = |highest, ms| epoch_of_start(LeaderEpoch(highest), Timestamp(ms)).0;
        assert_eq!(at(1, EPOCH_ZERO_MS + 5_999), 5);
        assert_eq!(at(5, EPOCH_ZERO_MS + 5_999), 6, "twice in one second");
        assert_eq!([at(7, 0), at(7, i64::MIN)], [8, 8], "a clock that was set back");
        assert_eq!(at(1, i64::MAX), TIMED_EPOCH_MAX);
    }

    #[test]
    fn empty_and_passed_epochs_are_forgotten() {
        let mut state = sample();
        state.begin_epoch(LeaderEpoch(6), Offset(30));
        assert_eq!(state.epoch_end(LeaderEpoch(5), Offset(40)), (LeaderEpoch(2), Offset(30)));
        state.set_log_start(Offset(30));
        assert_eq!(state.epochs, [EpochStart { epoch: LeaderEpoch(6), start: Offset(30) }]);
    }
}
