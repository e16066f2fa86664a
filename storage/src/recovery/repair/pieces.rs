//! Which files are of this log, what is valid in each, and how far the log was durable. Reads only.

use std::path::{Path, PathBuf};

use riverrun_proto::{LeaderEpoch, Offset};

use super::{
    super::{
        Site, leftovers,
        survey::{FoundSegment, Survey},
        unwritten::in_line,
    },
    neighbours,
    rescue::RescueDisk,
    salvage::{self, Bounds, Salvage},
};
use crate::{
    IoFailure, StorageError, Timestamp,
    disk::OpenMode,
    format::{ENTRY_BYTES, Previous},
    state::{LogState, StoredState},
};

/// One file of the log.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    /// The file.
    pub(super) found: &'a FoundSegment,
    /// What is valid in it; `None` when nothing can be told from other bytes.
    pub(super) salvage: Option<Salvage>,
    /// True when all of it could be read.
    pub(super) is_readable: bool,
}

impl Piece<'_> {
    /// First offset past what can be read of it.
    pub(super) fn end_offset(&self) -> Offset {
        self.salvage.as_ref().map_or(self.found.base, Salvage::end_offset)
    }

    /// When the first thing in it was appended, as far as that is known: nothing in front of it is later.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        let created = self.found.header.map(|(header, _)| header.created);
        let appended = self.salvage.as_ref().and_then(|salvage| salvage.first_append_time);
        // A segment that was written anew is younger than what it holds.
        created.into_iter().chain(appended).min()
    }

    /// What it tells of the segment before it.
    pub(super) fn told(&self) -> Option<Previous> {
        self.found.header.and_then(|(header, _)| header.previous)
    }
}

/// What lies in the directory.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// The files of the log, oldest first, up to where a crash may have left anything.
    pub(super) pieces: Vec<Piece<'a>>,
    /// Files from elsewhere.
    pub(super) strangers: Vec<PathBuf>,
    /// First offset kept.
    pub(super) log_start: Offset,
    /// The highest offset known durable.
    pub(super) durable: Offset,
    /// What is gone below counts as lost: as `durable`, but without a state file all that reads back is wanted.
    pub(super) wanted: Offset,
    /// The state, when it is valid.
    pub(super) state: Option<LogState>,
}

impl Found<'_> {
    /// Log start and epochs by what the files hold.
    pub(super) fn state_anew(&self) -> LogState {
        let epochs = self.pieces.iter().filter_map(|piece| piece.salvage.as_ref());
        let mut epochs = epochs.flat_map(|salvage| salvage.epochs.iter().copied());
        let first = epochs.next().map_or(LeaderEpoch(1), |(epoch, _)| epoch);
        let mut state = LogState::new(self.log_start, first);
        for (epoch, start) in epochs {
            if epoch > state.epoch() {
                state.begin_epoch(epoch, start);
            }
        }
        state
    }
}

/// Looks at every file.
pub(super) fn find<'a>(
    site: Site<'_>,
    rescue: &RescueDisk,
    survey: &'a Survey,
) -> Result<Found<'a>, StorageError> {
    let state = match &survey.state {
        StoredState::Valid(state) => Some(state.clone()),
        StoredState::Missing | StoredState::Invalid => None,
    };
    let line = in_line(site, survey)?;
    let mut strangers = outside(survey, &line);
    let mut pieces: Vec<Piece<'_>> = Vec::with_capacity(line.len());
    for (number, found) in line.iter().copied().enumerate() {
        let salt = salt_of(site, survey, found, line.get(number + 1).copied())?;
        let bounds = Bounds { offset: None, cut: None, history: state.as_ref() };
        let read = |salt| salvage::salvage(site, found, salt, bounds);
        let mut salvage = salt.map(read).transpose()?;
        if let Some(salvage) = salvage.as_mut().filter(|_| state.is_none()) {
            leave_the_doubtful(site, survey, found, salvage)?;
        }
        pieces.push(Piece { found, salvage, is_readable: !rescue.was_refused(&found.path) });
    }
    if survey.tells_nothing() && pieces.iter().all(|piece| piece.salvage.is_none()) {
        return Err(StorageError::Missing { path: site.dir.to_owned() });
    }
    let mut pieces = neighbours::settle(site, pieces, state.as_ref(), &mut strangers)?;
    if strangers.is_empty() {
        // Only now: a file from elsewhere makes the log's own look like strays.
        let strays = leftovers::strays(site, survey)?.into_iter().map(|stray| stray.path);
        strangers.extend(strays.filter(|path| !line.iter().any(|found| found.path == *path)));
    }
    let first = pieces.first().map_or(Offset::ZERO, |piece| piece.found.base);
    let log_start = state.as_ref().map_or(first, |state| state.log_start);
    let marked = survey.mark.newest().map_or(Offset::ZERO, |mark| mark.flushed);
    let proven = pieces.iter().flat_map(|piece| {
        let header = piece.found.header.map(|(header, _)| header.durable_upto);
        [header, piece.salvage.as_ref().map(|salvage| salvage.durable_upto)]
    });
    let proven = proven.flatten().max().unwrap_or_default();
    // Without a state file what says how far the log was durable may be gone as well.
    let read = pieces.last().filter(|_| state.is_none()).map(Piece::end_offset).unwrap_or_default();
    let stated = state.as_ref().map_or(Offset::ZERO, LogState::proves_durable);
    let durable = marked.max(proven).max(stated);
    let wanted = durable.max(log_start).max(read);
    leave_the_torn(&mut pieces, wanted);
    Ok(Found { pieces, strangers, log_start, durable, wanted, state })
}

/// Leaves out of `salvage` what stands behind a break at which a recovery cut the segment, where no epochs tell what is stale: another segment
/// began there by the word of the mark, or the bytes from the break on were set aside.
fn leave_the_doubtful(
    site: Site<'_>,
    survey: &Survey,
    found: &FoundSegment,
    salvage: &mut Salvage,
) -> Result<(), IoFailure> {
    let named = survey.mark.newest().map(|mark| mark.segment_base);
    if let Some(named) = named.filter(|named| *named > found.base) {
        salvage.cut_torn(named);
    }
    for (_, path) in survey.torn.iter().filter(|(base, _)| *base == found.base) {
        let torn = bytes_at(site, path, 0)?;
        let mut cut = None;
        for hole in salvage.holes.iter().filter(|_| !torn.is_empty()) {
            let there = bytes_at(site, &found.path, hole.bytes.start)?;
            if cut.is_none() && there.starts_with(&torn) {
                cut = Some(hole.offsets.start);
            }
        }
        if let Some(cut) = cut {
            salvage.cut_torn(cut);
        }
    }
    Ok(())
}

/// As many bytes of the file at `path` from `pos` on as an entry header has, or what there is.
fn bytes_at(site: Site<'_>, path: &Path, pos: u64) -> Result<Vec<u8>, IoFailure> {
    let at = |op| move |error| IoFailure::new(op, path, error);
    let file = site.disk.open(path, OpenMode::Read).map_err(at("open"))?;
    let left = file.len().saturating_sub(pos).min(ENTRY_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(left).expect("96 at most")];
    file.read_at(pos, &mut bytes).map_err(at("read"))?;
    Ok(bytes)
}

/// Segment files that are not in `line`: from elsewhere.
fn outside(survey: &Survey, line: &[&FoundSegment]) -> Vec<PathBuf> {
    let paths = survey.segments.iter().map(|found| found.path.clone());
    paths.filter(|path| !line.iter().any(|of_line| of_line.path == *path)).collect()
}

/// What `next` tells of `found`, when it tells of that one.
pub(super) fn claim(found: &FoundSegment, next: Option<&FoundSegment>) -> Option<Previous> {
    let next = next?;
    let told = next.header.and_then(|(header, _)| header.previous);
    told.filter(|told| told.base == found.base && told.facts.end_offset == next.base)
}

/// The salt of `found`; `None` when nothing proves one.
fn salt_of(
    site: Site<'_>,
    survey: &Survey,
    found: &FoundSegment,
    next: Option<&FoundSegment>,
) -> Result<Option<u64>, StorageError> {
    if let Some((header, _)) = found.header {
        return Ok(Some(header.salt()));
    }
    let claimed = claim(found, next);
    let marked = survey.mark.newest().filter(|mark| mark.segment_base == found.base);
    let ends =
        [claimed.map(|told| (told.end_pos, told.chain)), marked.map(|it| (it.pos, it.chain))];
    for end in ends.into_iter().flatten() {
        if let Some(salt) = salvage::salt_by_end(site, found, end)? {
            return Ok(Some(salt));
        }
    }
    if let Some(salt) = salvage::salt_by_fields(site, found)? {
        return Ok(Some(salt));
    }
    let Some(told) = claimed else { return Ok(None) };
    Ok(salvage::salt_by_seal(site, found, &told.facts)?)
}

/// Leaves what stands at or past `wanted` and behind a break to the recovery that follows: a crash may leave anything there.
fn leave_the_torn(pieces: &mut Vec<Piece<'_>>, wanted: Offset) {
    let mut end = pieces.first().map_or(Offset::ZERO, |piece| piece.found.base);
    let mut kept = pieces.len();
    for (number, piece) in pieces.iter_mut().enumerate() {
        let is_apart = piece.found.base > end || piece.salvage.is_none();
        if end >= wanted && is_apart {
            kept = number;
            break;
        }
        if piece.salvage.as_mut().is_some_and(|salvage| salvage.cut_torn(wanted)) {
            kept = number + 1;
            break;
        }
        end = piece.end_offset();
    }
    pieces.truncate(kept);
}
