//! Which files are of this log, what is valid in each, and how far the log was durable. Reads only.

use std::path::PathBuf;

use riverrun_proto::{LeaderEpoch, Offset};

use super::{
    super::{
        Site, links,
        survey::{FoundSegment, Survey},
        unwritten::in_line,
    },
    salvage::{self, Bounds, Salvage},
};
use crate::{
    StorageError,
    format::Previous,
    state::{LogState, StoredState},
};

/// One file of the log.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    /// The file.
    pub(super) found: &'a FoundSegment,
    /// What is valid in it; `None` when nothing can be told from other bytes.
    pub(super) salvage: Option<Salvage>,
}

impl Piece<'_> {
    /// First offset past what can be read of it.
    pub(super) fn end_offset(&self) -> Offset {
        self.salvage.as_ref().map_or(self.found.base, Salvage::end_offset)
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
pub(super) fn find<'a>(site: Site<'_>, survey: &'a Survey) -> Result<Found<'a>, StorageError> {
    if survey.tells_nothing() {
        return Err(StorageError::Missing { path: site.dir.to_owned() });
    }
    let line = in_line(site, survey)?;
    let mut pieces: Vec<Piece<'_>> = Vec::with_capacity(line.len());
    let mut strangers: Vec<PathBuf> = survey
        .segments
        .iter()
        .filter(|found| !line.iter().any(|of_line| of_line.path == found.path))
        .map(|found| found.path.clone())
        .collect();
    for (number, found) in line.iter().copied().enumerate() {
        if pieces.last().is_some_and(|last| found.base < last.end_offset()) {
            // Two tell of the same offsets, and the one before is tied to those before it.
            strangers.push(found.path.clone());
            continue;
        }
        let next = line.get(number + 1).copied();
        pieces.push(Piece { found, salvage: salvage_of(site, survey, found, next)? });
    }
    let state = match &survey.state {
        StoredState::Valid(state) => Some(state.clone()),
        StoredState::Missing | StoredState::Invalid => None,
    };
    let first = pieces.first().map_or(Offset::ZERO, |piece| piece.found.base);
    let log_start = state.as_ref().map_or(first, |state| state.log_start);
    let marked = survey.mark.newest().map_or(Offset::ZERO, |mark| mark.flushed);
    let proven = pieces.iter().flat_map(|piece| {
        let header = piece.found.header.map(|(header, _)| header.durable_upto);
        [header, piece.salvage.as_ref().map(|salvage| salvage.durable_upto)]
    });
    let proven = proven.flatten().max().unwrap_or_default();
    // Without a state file nothing says what was durable, and what reads back counts as found.
    let read = pieces.last().filter(|_| state.is_none()).map(Piece::end_offset).unwrap_or_default();
    let durable = marked.max(proven).max(log_start).max(read);
    leave_the_torn(&mut pieces, durable);
    Ok(Found { pieces, strangers, log_start, durable, state })
}

/// What `next` tells of `found`, when it tells of that one.
pub(super) fn claim(found: &FoundSegment, next: Option<&FoundSegment>) -> Option<Previous> {
    let next = next?;
    let told = next.header.and_then(|(header, _)| header.previous);
    told.filter(|told| told.base == found.base && told.facts.end_offset == next.base)
}

/// What is valid in `found`. `None` without a salt to know its entries by, and when it ends in another seal than its
/// successor says: one of the two was exchanged, and its records are not this log's.
fn salvage_of(
    site: Site<'_>,
    survey: &Survey,
    found: &FoundSegment,
    next: Option<&FoundSegment>,
) -> Result<Option<Salvage>, StorageError> {
    let claimed = claim(found, next);
    let marked = survey.mark.newest().filter(|mark| mark.segment_base == found.base);
    let salt = match (found.header, claimed, marked) {
        (Some((header, _)), ..) => Some(header.salt()),
        (None, Some(told), _) => salvage::salt_by_end(site, found, (told.end_pos, told.chain))?,
        (None, None, Some(mark)) => salvage::salt_by_end(site, found, (mark.pos, mark.chain))?,
        (None, None, None) => None,
    };
    let salt = match salt {
        Some(salt) => Some(salt),
        None => salvage::salt_by_fields(site, found)?,
    };
    let Some(salt) = salt else { return Ok(None) };
    let stands_for = found.header.and_then(|(header, _)| header.stands_for);
    let ends_as_told = claimed.filter(|told| stands_for != Some(*told));
    let bounds = Bounds {
        offset: claimed.map(|told| told.facts.end_offset),
        cut: ends_as_told.filter(|told| !told.sealed).map(|told| told.end_pos),
    };
    let salvage = salvage::salvage(site, found, salt, bounds)?;
    let exchanged = ends_as_told
        .is_some_and(|told| told.sealed && salvage.end.sealed && salvage.end.chain != told.chain);
    Ok((!exchanged).then_some(salvage))
}

/// Leaves what stands at or past `durable` and behind a break to the recovery that follows: a crash may leave anything there.
fn leave_the_torn(pieces: &mut Vec<Piece<'_>>, durable: Offset) {
    let mut end = pieces.first().map_or(Offset::ZERO, |piece| piece.found.base);
    let mut kept = pieces.len();
    for (number, piece) in pieces.iter_mut().enumerate() {
        let is_apart = piece.found.base > end || piece.salvage.is_none();
        if end >= durable && is_apart {
            kept = number;
            break;
        }
        if piece.salvage.as_mut().is_some_and(|salvage| salvage.cut_torn(durable)) {
            kept = number + 1;
            break;
        }
        end = piece.end_offset();
    }
    pieces.truncate(kept);
}

/// Whether the file before `next` ends as `next` says.
pub(super) fn is_linked(
    site: Site<'_>,
    found: &FoundSegment,
    next: &FoundSegment,
) -> Result<bool, StorageError> {
    Ok(links::end_of(site, found, next)?.is_ok())
}
