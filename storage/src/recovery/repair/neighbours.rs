//! Which files tell of the same log, and where each ends for the next one.
//!
//! ```text
//! the next one                                       | verdict
//! tied to this one by its seal, or made by a         | of this log
//!   recovery that found this one's end where it is   |
//! has records of epochs that the state does not know | from elsewhere
//! tells where a recovery cut this one                | this one ends there
//! begins before this one ends, in a higher epoch     | a recovery cut this one there: it ends there
//! begins before this one ends, not so                | from elsewhere: this one is tied to those before it
//! ```

use std::path::PathBuf;

use super::{
    super::{Site, links, survey::FoundSegment},
    pieces::{Piece, claim},
    salvage::{self, Bounds, covers},
};
use crate::{StorageError, format::Previous, state::LogState};

/// Takes those from elsewhere out of `found`, and cuts what stands in one behind the place where the next goes on.
pub(super) fn settle<'a>(
    site: Site<'_>,
    found: Vec<Piece<'a>>,
    history: Option<&LogState>,
    strangers: &mut Vec<PathBuf>,
) -> Result<Vec<Piece<'a>>, StorageError> {
    let mut pieces: Vec<Piece<'a>> = Vec::with_capacity(found.len());
    for piece in found {
        if let Some(last) = pieces.last_mut().filter(|_| history.is_none()) {
            leave_the_doubtful(site, last, &piece)?;
        }
        let is_of_log = match pieces.last() {
            Some(last) => follows(site, last, &piece)?,
            None => true,
        };
        if is_of_log {
            pieces.push(piece);
        } else {
            strangers.push(piece.found.path.clone());
        }
    }
    for number in 1..pieces.len() {
        let next = pieces[number].found;
        end_before(site, &mut pieces[number - 1], next, history)?;
    }
    Ok(pieces)
}

/// Leaves out of `last` what may be stale where no epochs say so: a recovery cuts a segment no later than at a break, and begins another one
/// there. `next`, or what it tells of the one between, says where that was.
fn leave_the_doubtful(
    site: Site<'_>,
    last: &mut Piece<'_>,
    next: &Piece<'_>,
) -> Result<(), StorageError> {
    let between = next.told().map(|told| told.base).filter(|base| *base > last.found.base);
    let begun = between.unwrap_or(next.found.base).min(next.found.base);
    let Some(salvage) = &mut last.salvage else { return Ok(()) };
    if salvage.cut_torn(begun) && next.salvage.is_none() && salvage.end_offset() > begun {
        let bounds = Bounds { offset: Some(begun), cut: None, history: None };
        *salvage = salvage::salvage(site, last.found, salvage.salt, bounds)?;
    }
    Ok(())
}

/// Whether `next` is of this log, when `last` is.
fn follows(site: Site<'_>, last: &Piece<'_>, next: &Piece<'_>) -> Result<bool, StorageError> {
    let told = claim(last.found, Some(next.found));
    if next.salvage.as_ref().is_some_and(|salvage| salvage.is_strange) {
        // Two histories that parted go on behind the same cut, not behind the same seal.
        if next.found.header.is_none() {
            let sealed = last.salvage.as_ref().filter(|salvage| salvage.end.sealed);
            return Ok(sealed.is_some_and(|salvage| salvage.end_offset() == next.found.base));
        }
        let is_tied = told.is_some_and(|told| told.sealed || recovered(next, last));
        return Ok(is_tied && is_linked(site, last.found, next.found)?);
    }
    Ok(next.found.base >= last.end_offset() || told.is_some() || supersedes(next, last))
}

/// True when `next` was made by a recovery that found the end of `last` where its chain breaks now.
fn recovered(next: &Piece<'_>, last: &Piece<'_>) -> bool {
    let whole_upto = last.salvage.as_ref().map(|salvage| {
        let hole = salvage.holes.first();
        hole.map_or(salvage.end_offset(), |hole| hole.offsets.start)
    });
    let found_upto = next.found.header.map(|(header, _)| header.durable_upto);
    whole_upto.is_some() && whole_upto == found_upto
}

/// True when a recovery that cut `last` where `next` begins made `next`: its epoch is higher than that of all it replaced.
fn supersedes(next: &Piece<'_>, last: &Piece<'_>) -> bool {
    let (Some(of_next), Some(of_last)) = (&next.salvage, &last.salvage) else { return false };
    let (newest, replaced) =
        (of_next.epochs.last(), of_last.epochs.last().map(|(epoch, _)| *epoch));
    match next.found.header {
        Some((header, _)) => Some(header.leader_epoch) > replaced,
        // What it copied has the epoch it had.
        None => newest.map(|(epoch, _)| *epoch) >= replaced,
    }
}

/// Leaves out of `piece` what stands behind the place where `next` goes on; all of it when the two do not belong together.
fn end_before(
    site: Site<'_>,
    piece: &mut Piece<'_>,
    next: &FoundSegment,
    history: Option<&LogState>,
) -> Result<(), StorageError> {
    let told = claim(piece.found, Some(next));
    if let Some(told) = told
        && is_exchanged(site, piece, next, &told)?
    {
        piece.salvage = None;
    }
    let Some(salvage) = &piece.salvage else { return Ok(()) };
    // One that was written anew is cut nowhere, and without a header block nobody knows.
    let is_old = |told: &Previous| {
        piece.found.header.is_some_and(|(header, _)| header.stands_for != Some(*told))
    };
    let cut = told.filter(|told| !told.sealed && is_old(told)).map(|told| told.end_pos);
    let is_behind = cut.is_some_and(|cut| salvage.end.end_pos > cut);
    if salvage.end_offset() > next.base || is_behind {
        let bounds = Bounds { offset: Some(next.base), cut, history };
        piece.salvage = Some(salvage::salvage(site, piece.found, salvage.salt, bounds)?);
    }
    Ok(())
}

/// True when `piece` does not end as `next` says by `told`, and not as if it was written anew: one of the two was exchanged, and its records
/// are not this log's.
fn is_exchanged(
    site: Site<'_>,
    piece: &Piece<'_>,
    next: &FoundSegment,
    told: &Previous,
) -> Result<bool, StorageError> {
    let Some(salvage) = &piece.salvage else { return Ok(false) };
    if salvage.is_strange {
        return Ok(!is_linked(site, piece.found, next)?);
    }
    if !(told.sealed && salvage.end.sealed) || salvage.end.chain == told.chain {
        return Ok(false);
    }
    Ok(match piece.found.header {
        Some((header, _)) => header.stands_for != Some(*told),
        None => !salvage.sealed_facts.is_some_and(|facts| covers(&facts, &told.facts)),
    })
}

/// Whether the file before `next` ends as `next` says.
pub(super) fn is_linked(
    site: Site<'_>,
    found: &FoundSegment,
    next: &FoundSegment,
) -> Result<bool, StorageError> {
    Ok(links::end_of(site, found, next)?.is_ok())
}
